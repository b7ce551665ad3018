"""What a cell's next spikes owe to the last ones: basis, filters and features of spike counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


def raised_cosines(n_lags: int, n_basis: int) -> np.ndarray:
    """Bumps (basis, lag) that tile lags 1 to `n_lags` evenly in log time, narrow first.

    ``(1 + cos(pi / 2 * (log(lag) - centre) / spacing)) / 2`` within two spacings of its centre:
    the first is centred on lag 1, and the last has come down to zero at ``n_lags + 1``
    (Pillow et al. 2008, methods).
    """
    spacing = np.log(n_lags + 1) / (n_basis + 1)
    centres = spacing * np.arange(n_basis)
    distance = (np.log(np.arange(1, n_lags + 1)) - centres[:, None]) / spacing
    return (1 + np.cos(np.pi / 2 * np.clip(distance, -2, 2))) / 2


class SpikeFilters(nn.Module):
    """Post-spike filters, one a cell, and coupling filters between cells by option.

    ``post_spike`` is (cell, basis), ``coupling`` (cell, source, basis) with nothing on its
    diagonal.
    """

    def __init__(self, cells: int, n_lags: int, n_basis: int, coupling: bool) -> None:
        super().__init__()
        self.basis: Tensor
        self.register_buffer("basis", torch.from_numpy(raised_cosines(n_lags, n_basis)).float())
        self.post_spike = nn.Parameter(torch.zeros(cells, n_basis))
        self.coupling = nn.Parameter(torch.zeros(cells, cells, n_basis)) if coupling else None

    def extra_repr(self) -> str:
        """Show the sizes."""
        return f"{tuple(self.post_spike.shape)}, coupling={self.coupling is not None}"

    @torch.no_grad()
    def filters(self) -> np.ndarray:
        """Give the added drive (cell, lag), or with coupling (cell, source, lag), from lag 1 on."""
        own = self.post_spike
        if self.coupling is None:
            return (own @ self.basis).double().cpu().numpy()
        weights = self.coupling.clone()
        cells = torch.arange(len(own))
        weights[cells, cells] = own
        return (weights @ self.basis).double().cpu().numpy()


def past_features(counts: Tensor, basis: Tensor, runs: Sequence[slice]) -> Tensor:
    """See counts (time, cell) through the basis: (time, cell, basis), from earlier bins alone.

    Nothing is known of the time before a run, which counts as no spikes.
    """
    n_basis, n_lags = basis.shape
    kernels = basis.flip(1)[:, None].to(counts)
    features = counts.new_zeros(*counts.shape, n_basis)
    for run in runs:
        # The bin itself is left out: its feature ends one bin earlier.
        padded = functional.pad(counts[run].T[:, None], (n_lags, 0))[..., :-1]
        features[run] = functional.conv1d(padded, kernels).permute(2, 0, 1)
    return features


def poisson_counts(expected: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Poisson counts by inversion: the same uniform number gives nearly the same count.

    So a difference of rounding in `expected`, as between two batch sizes, changes a count only
    where the number falls between the two.
    """
    counts = np.zeros(expected.shape)
    probability = np.exp(-expected)
    below = probability.copy()
    above = uniform >= below
    k = 0
    while above.any():
        k += 1
        probability = probability * expected / k
        below = below + probability
        counts[above] = k
        # Rounding may keep the sum below a number next to one.
        above = above & (uniform >= below) & (probability > 0)
    return counts
