"""Rows (sample, column) of contributions that may be larger than memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from retina_codec._common.checks import require_finite
from retina_codec.modes.columns import Samples, called
from retina_codec.modes.scaling import ColumnScaling

# Rows that stand for all where these are not held: atoms start as some of them.
MOST_CANDIDATES = 2**16
# Rows kept aside to tell when to stop that are looked at, at most.
MOST_ASIDE = 2**17


class Rows:
    """Matrix (sample, column) of contributions, float32, read in blocks along the first sample dim.

    Up to `budget` bytes are read once and held; of more, a block is a quarter of that, in whole
    chunks of a lazy array.

    Parameters
    ----------
    arrays : mapping of str to DataArray
        Layers, in memory or lazy.
    features : sequence of str
        The column dims.
    budget : float
        Bytes.

    Raises
    ------
    ValueError
        If the layers' samples differ, or a value is NaN or infinite.
    """

    def __init__(
        self, arrays: Mapping[str, xr.DataArray], features: Sequence[str], budget: float
    ) -> None:
        self.samples = _samples_of(arrays, features)
        dims = (*self.samples.dims, *features)
        self._arrays = [array.transpose(*dims) for array in arrays.values()]
        self.n_first = self.samples.shape[0]
        # Rows of each index of the first sample dim.
        self.each = int(np.prod(self.samples.shape[1:]))
        self.n_columns = sum(a[dict.fromkeys(self.samples.dims, 0)].size for a in self._arrays)
        first_bytes = 4 * self.each * self.n_columns
        self.step = self.n_first
        self._whole: np.ndarray | None = None
        self.held = self.n_first * first_bytes <= budget
        if not self.held:
            chunks = [max(a.chunks[0]) for a in self._arrays if a.chunks is not None]
            chunk = max(chunks, default=1)
            fitting = max(1, int(budget / 4 / first_bytes))
            self.step = min(max(1, fitting // chunk) * chunk, self.n_first)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows of indices [start, stop) of the first sample dim."""
        if self._whole is not None:
            return self._whole[start * self.each : stop * self.each]
        n = (stop - start) * self.each
        parts = [a[start:stop].values.astype(np.float32).reshape(n, -1) for a in self._arrays]
        matrix = np.ascontiguousarray(np.concatenate(parts, axis=1))
        if self.held and n == self.n_first * self.each:
            self._whole = matrix
        return matrix

    def spans(self) -> list[tuple[int, int]]:
        """First indices and ends of the blocks."""
        starts = range(0, self.n_first, self.step)
        return [(start, min(start + self.step, self.n_first)) for start in starts]

    def blocks(self, mask: np.ndarray | None = None) -> Iterator[np.ndarray]:
        """Rows block by block, of the indices that `mask` marks if there is one."""
        for start, stop in self.spans():
            matrix = self.read(start, stop)
            yield matrix if mask is None else matrix[np.repeat(mask[start:stop], self.each)]

    def spaced(self, mask: np.ndarray, most: int) -> np.ndarray:
        """At most `most` rows of the indices that `mask` marks, evenly spaced."""
        step = max(1, -(-int(mask.sum()) * self.each // most))
        parts, passed = [], 0
        for matrix in self.blocks(mask):
            parts.append(matrix[(-passed) % step :: step])
            passed += len(matrix)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


@dataclass(frozen=True)
class Survey:
    """What is to be known of training rows before they are scaled; one pass.

    Parameters
    ----------
    n, n_with_any : int
        Rows, and those that are not all 0.
    least, most, first, squares, total : ndarray
        (column,): smallest and largest value, one value, mean of squares, mean.
    """

    n: int
    n_with_any: int
    least: np.ndarray
    most: np.ndarray
    first: np.ndarray
    squares: np.ndarray
    mean: np.ndarray

    @classmethod
    def of(cls, rows: Rows, mask: np.ndarray) -> Survey:
        """Look through the rows of the indices that `mask` marks."""
        n = with_any = 0
        least = np.full(rows.n_columns, np.inf, dtype=np.float32)
        most, first = -least, np.zeros_like(least)
        squares, total = np.zeros(rows.n_columns), np.zeros(rows.n_columns)
        for matrix in rows.blocks(mask):
            if not len(matrix):
                continue
            if n == 0:
                first = matrix[0].copy()
            n += len(matrix)
            with_any += int((matrix != 0).any(axis=1).sum())
            least = np.minimum(least, matrix.min(axis=0))
            most = np.maximum(most, matrix.max(axis=0))
            squares += np.square(matrix, dtype=np.float64).sum(axis=0)
            total += matrix.sum(axis=0, dtype=np.float64)
        return cls(n, with_any, least, most, first, squares / max(n, 1), total / max(n, 1))

    @property
    def still(self) -> np.ndarray:
        """Which columns are constant."""
        return self.least == self.most

    @property
    def signs(self) -> np.ndarray:
        """-1 for columns that are nowhere positive, 1 for the others."""
        return np.where((self.most <= 0) & (self.least < 0), -1, 1).astype(np.float32)


class TrainingRows:
    """Scaled rows that a network is fitted to, and those kept aside to say when to stop.

    Rows that are not held are read block by block in random order, and shuffled within a block.

    Parameters
    ----------
    rows : Rows
        All of them.
    scaling : ColumnScaling
        Fitted to the training rows.
    training, aside : ndarray of bool
        Which indices of the first sample dim.
    signs : ndarray
        (column,), see `Survey`.
    """

    def __init__(
        self,
        rows: Rows,
        scaling: ColumnScaling,
        training: np.ndarray,
        aside: np.ndarray,
        signs: np.ndarray,
    ) -> None:
        self._rows, self._scaling, self._mask = rows, scaling, training
        self.signs = signs
        self.n = int(training.sum()) * rows.each
        self._whole: Tensor | None = None
        if rows.held:
            self._whole = self._scaled(next(rows.blocks(training)))
            self._candidates = self._whole
        else:
            self._candidates = self._scaled(rows.spaced(training, MOST_CANDIDATES))
        looked_at = aside if aside.any() else training
        self.aside = self._scaled(rows.spaced(looked_at, MOST_ASIDE))

    def _scaled(self, matrix: np.ndarray) -> Tensor:
        return torch.from_numpy(self._scaling.forward(matrix))

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """`n` different rows that are not 0."""
        with_any = (self._candidates != 0).any(dim=1).float()
        return self._candidates[draw(with_any, n, generator)]

    def some(self, n: int, generator: torch.Generator) -> Tensor:
        """`n` random rows, some perhaps twice."""
        n_rows = len(self._candidates)
        return self._candidates[torch.randint(n_rows, (min(n, n_rows),), generator=generator)]

    def batches(
        self, size: int, generator: torch.Generator, device: torch.device
    ) -> Iterator[Tensor]:
        """All rows once, in random order, `size` at a time."""
        if self._whole is not None:
            self._whole = self._whole.to(device)
            yield from _shuffled(self._whole, size, generator)
            return
        spans = self._rows.spans()
        for place in torch.randperm(len(spans), generator=generator).tolist():
            start, stop = spans[place]
            marked = np.repeat(self._mask[start:stop], self._rows.each)
            block = self._scaled(self._rows.read(start, stop)[marked]).to(device)
            yield from _shuffled(block, size, generator)


def draw(weights: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """`n` different indices, with a probability in proportion to `weights` (on the CPU)."""
    # Not torch.multinomial, which takes at most 2^24 categories: Efraimidis and Spirakis 2006.
    noise = torch.rand(len(weights), generator=generator).log() / weights
    return noise.topk(n).indices


def _shuffled(rows: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    for ids in torch.randperm(len(rows), generator=generator).split(size):
        yield rows[ids.to(rows.device)]


def _samples_of(arrays: Mapping[str, xr.DataArray], features: Sequence[str]) -> Samples:
    """Labels of the rows, the same in all layers."""
    first = next(iter(arrays.values()))
    dims = _sample_dims(first, features)
    for name, array in arrays.items():
        if set(_sample_dims(array, features)) != set(dims):
            raise ValueError(
                f"{called(name)} has sample dims {_sample_dims(array, features)}, the first layer "
                f"{dims}: all layers must have the same samples"
            )
        try:
            xr.align(first, array, join="exact", exclude=set(features))
        except ValueError as error:
            raise ValueError(
                f"{called(name)} and the first layer have different samples ({error}): select "
                "the same ones in all layers"
            ) from error
        require_finite(array, called(name))
    coords = {
        key: coord.variable
        for key, coord in first.coords.items()
        if set(coord.dims) <= set(dims) and (coord.dims or len(arrays) == 1)
    }
    return Samples(dims, tuple(first.sizes[dim] for dim in dims), coords)


def _sample_dims(array: xr.DataArray, features: Sequence[str]) -> tuple[str, ...]:
    """Sample dims in an order that does not depend on the array's: time or image, then by name."""
    dims = sorted(str(dim) for dim in array.dims if dim not in features)
    return tuple(sorted(dims, key=lambda dim: dim not in ("time", "image")))
