"""A movie in two halves, with a gap between: what is chosen on one is scored on the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import xarray as xr

from retina_codec._common.time import runs_of, whole_history

# Fewer samples in a half give no correlation worth the name.
FEWEST = 10


@dataclass(frozen=True)
class Stretch:
    """Consecutive frames of one half: `half` 0 or 1, `rows` among those used, `frames` shown."""

    half: int
    rows: slice
    frames: slice


@dataclass(frozen=True)
class Halves:
    """The frames of a movie that are used: `frames`, of which the first `length` are one half.

    As many are in the other; between them lies a gap that is as long as the history, so that no
    frame is seen from both.
    """

    movie: xr.DataArray
    frames: np.ndarray
    length: int
    gap: int

    @classmethod
    def of(cls, movie: xr.DataArray, history: int, argument: str) -> Halves:
        """Cut the frames with a whole `history` in their block; ValueError if they are too few."""
        frames = whole_history(movie, history)
        length = (len(frames) - history) // 2
        if length < FEWEST:
            raise ValueError(
                f"{argument} has {len(frames)} frames with a whole history; two halves with "
                f"{history} between need at least {history + 2 * FEWEST}: give a longer movie"
            )
        used = np.concatenate([frames[:length], frames[-length:]])
        return cls(movie, used, length, history)

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def rows(self) -> tuple[slice, slice]:
        """Rows of the two halves."""
        return slice(0, self.length), slice(self.length, 2 * self.length)

    def stretches(self, size: int) -> Iterator[Stretch]:
        """Give stretches of at most `size` frames, none of two blocks or of both halves."""
        run_of = np.empty(self.movie.sizes["time"], dtype=int)
        for number, run in enumerate(runs_of(self.movie)):
            run_of[run] = number
        for half, rows in enumerate(self.rows):
            frames = self.frames[rows]
            edges = np.flatnonzero(np.diff(run_of[frames])) + 1
            bounds = np.r_[0, edges, len(frames)]
            for first, last in pairwise(bounds.tolist()):
                for start in range(first, last, size):
                    stop = min(start + size, last)
                    yield Stretch(
                        half,
                        slice(rows.start + start, rows.start + stop),
                        slice(int(frames[start]), int(frames[stop - 1]) + 1),
                    )

    def shown(self, stretch: Stretch, history: int) -> xr.DataArray:
        """Give the movie of a stretch, with the frames before that its first sample sees."""
        return self.movie.isel(time=slice(stretch.frames.start - history + 1, stretch.frames.stop))
