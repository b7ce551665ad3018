"""Loadings and lagged features, sample by sample or epoch by epoch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import xarray as xr

from retina_codec.modes.shift_null import (
    decorrelation_time,
    make_circles,
    nuisance_basis,
    residuals,
)

EPOCHS_NEEDED = 20  # for a null of permutations


class LaggedSamples:
    """Loadings and lagged features over the samples (or epochs) that are correlated."""

    def __init__(
        self,
        features: xr.Dataset,
        loadings: xr.DataArray,
        places: np.ndarray,
        kept: np.ndarray,
        n_lags: int,
    ) -> None:
        self._features = {
            str(name): np.atleast_2d(feature.transpose(..., "time").values.astype(np.float64))
            for name, feature in features.data_vars.items()
        }
        self._rows = places[kept]
        self._lags = range(n_lags)
        self._numbers: np.ndarray | None = None
        # (cell, mode, n)
        self.loadings = loadings.values[kept].transpose(1, 2, 0).astype(np.float64)
        self.by_cell = any(len(values) > 1 for values in self._features.values())

    def slowest(self, names: Sequence[str], blocks: np.ndarray) -> int:
        """Longest autocorrelation time about the means of blocks, in samples."""
        shown = [self._features[name][:, self._rows] for name in names]
        loadings = self.loadings.reshape(-1, self.loadings.shape[2])
        means = nuisance_basis(np.empty((len(blocks), 0)), _runs(blocks))
        return max(decorrelation_time(residuals(s, means)) for s in (loadings, *shown))

    def turn(self, blocks: np.ndarray, shortest: int, n_draws: int) -> list[slice]:
        """Sort the samples into circles."""
        order, circles = make_circles(blocks, shortest, n_draws)
        self._rows, self.loadings = self._rows[order], self.loadings[:, :, order]
        return circles

    def average(self, numbers: np.ndarray) -> int:
        """Take means over epochs from here on; return how many there are."""
        used = numbers >= 0
        numbers = np.unique(numbers[used], return_inverse=True)[1]
        n = int(numbers.max(initial=-1)) + 1
        if n < EPOCHS_NEEDED:
            raise ValueError(
                f"epochs has {n} epochs with features before them; at least {EPOCHS_NEEDED} are "
                "needed to permute: show more, or leave epochs out"
            )
        self._rows = self._rows[used]
        self._numbers = numbers
        self.loadings = self._means(self.loadings[:, :, used])
        return n

    def lagged(self, name: str, cell: int) -> np.ndarray:
        """Feature (lag, n) at a cell."""
        values = self._features[name][cell % len(self._features[name])]
        return self._means(np.stack([values[self._rows - lag] for lag in self._lags]))

    def _means(self, values: np.ndarray) -> np.ndarray:
        if self._numbers is None:
            return values
        sizes = np.bincount(self._numbers)
        flat = values.reshape(-1, values.shape[-1])
        means = [np.bincount(self._numbers, row) / sizes for row in flat]
        return np.reshape(means, (*values.shape[:-1], len(sizes)))


def _runs(numbers: np.ndarray) -> list[slice]:
    """Stretches of one number."""
    edges = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]
