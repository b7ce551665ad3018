"""Movies and images that are read or made when they are indexed: dask arrays, in chunks of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np

FLOAT = np.dtype(np.float32)
CHUNK_BYTES = 32 * 2**20  # of float32 in a chunk of a lazy movie


@dataclass(frozen=True)
class LazyFrames:
    """What dask needs of an array whose parts are read or made when they are indexed.

    `read` gives the values inside one plain slice a dim; `shape` has time (or the image) first.
    """

    read: Callable[[tuple[slice, ...]], np.ndarray]
    shape: tuple[int, ...]
    dtype: np.dtype = FLOAT

    @property
    def ndim(self) -> int:
        """Number of dims."""
        return len(self.shape)

    def __getitem__(self, key: Any) -> np.ndarray:
        """Read what `key` spans, then take of it what `key` says."""
        key = key if isinstance(key, tuple) else (key,)
        key += (slice(None),) * (self.ndim - len(key))
        spans = [_span(item, n) for item, n in zip(key, self.shape, strict=True)]
        part = self.read(tuple(span for span, _ in spans))
        for axis in reversed(range(self.ndim)):  # backwards: a number drops its axis
            part = part[(slice(None),) * axis + (spans[axis][1],)]
        return part


def _span(item: Any, n: int) -> tuple[slice, Any]:
    """Give the plain slice of ``range(n)`` that holds `item`, and where `item` is inside it."""
    if isinstance(item, slice):
        picked = range(n)[item]
        if not picked:
            return slice(0, 0), slice(None)
        first, last = sorted((picked[0], picked[-1]))
        return slice(first, last + 1), slice(None, None, picked.step)
    numbers = np.arange(n)[item]
    if numbers.size == 0:
        return slice(0, 0), slice(None)
    first = int(numbers.min())
    return slice(first, int(numbers.max()) + 1), numbers - first


def frames_in_chunk(frame_shape: Sequence[int], stored: int = 1) -> int:
    """Frames of a chunk of about 32 MB, in whole chunks of a file that stores `stored` in one."""
    n_frames = max(1, CHUNK_BYTES // (4 * int(np.prod(frame_shape))))
    if stored > n_frames:
        # A compressed chunk is read whole each time: up to 128 MB it is rather not cut.
        return stored if stored <= 4 * n_frames else n_frames
    return n_frames // stored * stored


def lazy_array(
    read: Callable[[tuple[slice, ...]], np.ndarray],
    shape: tuple[int, ...],
    *,
    stored: int = 1,
    dtype: np.dtype = FLOAT,
) -> da.Array:
    """Return a dask array, chunked along its first dim, of what `read` gives; see `LazyFrames`."""
    n_frames = min(shape[0], frames_in_chunk(shape[1:], stored))
    return da.from_array(
        LazyFrames(read, shape, dtype),
        chunks=(n_frames, *shape[1:]),
        name=False,  # a hash would read everything
        asarray=False,
        meta=np.empty((0,) * len(shape), dtype=dtype),
    )
