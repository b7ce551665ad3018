"""Frames of a movie that may be larger than memory, read in order."""

from __future__ import annotations

import numpy as np
import xarray as xr

# Bytes of float32 frames that are held: some chunks of a lazy movie.
READ_AHEAD = 64 * 2**20
# A chunk so many times as large is still read at once: parts of it would each read it whole.
LARGEST_CHUNK = 4


class FrameReader:
    """Frames of a movie (time, ...), held some way ahead so that none is read twice.

    A movie of dask is read in its own chunks, which are whole again each time that a part of them
    is wanted. Requests go forwards and may overlap; one that goes back reads again.

    Parameters
    ----------
    movie : xarray.DataArray
        (time, ...), in memory or lazy.
    ahead : int
        Bytes of frames, as float32, that are held; more only where one request or chunk is larger.
    """

    def __init__(self, movie: xr.DataArray, ahead: int = READ_AHEAD) -> None:
        self._movie = movie
        self._n_ahead = max(1, ahead // (4 * max(1, int(np.prod(movie.shape[1:])))))
        chunks = movie.chunks[0] if movie.chunks else ()
        self._edges = np.cumsum(chunks, dtype=np.int64)
        self._start = 0
        self._held = np.empty((0, *movie.shape[1:]), dtype=np.float32)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Frames [start, stop) as float32: a view that holds until the next request."""
        end = self._start + len(self._held)
        if not self._start <= start <= stop <= end:
            known = self._held[start - self._start :] if self._start <= start < end else None
            n_known = 0 if known is None else len(known)
            last = self._end_of_read(start, stop)
            fresh = np.empty((last - start, *self._movie.shape[1:]), dtype=np.float32)
            if known is not None:
                fresh[:n_known] = known
            # What was held is let go before more is read.
            self._held, known = fresh, None
            fresh[n_known:] = self._movie[start + n_known : last].values
            self._start = start
        return self._held[start - self._start : stop - self._start]

    def _end_of_read(self, start: int, stop: int) -> int:
        """Frame to read up to: where a chunk ends, as far as what is held may grow."""
        limit = min(max(stop, start + self._n_ahead), self._movie.shape[0])
        edges = self._edges[self._edges >= stop]
        if edges.size == 0 or edges[0] > start + LARGEST_CHUNK * self._n_ahead:
            return limit
        return int(max(edges[0], edges[edges <= limit].max(initial=0)))
