"""Recorded signals shifted in time: same statistics, no relation with the stimulus."""

from __future__ import annotations

import numpy as np

# A shift must be longer than signals and stimuli stay like themselves.
SHORTEST_SHIFT = 5.0


def circular_shifts(n: int, bin_width: float, n_shifts: int, seed: int | list[int]) -> np.ndarray:
    """Draw different circular shifts of a signal of `n` bins, in bins.

    Each moves the signal by at least 5 s, either way round.

    Raises
    ------
    ValueError
        If the signal is too short for as many.
    """
    if n_shifts == 0:
        return np.empty(0, dtype=np.int64)
    shortest = int(np.ceil(SHORTEST_SHIFT / bin_width))
    possible = np.arange(shortest, n - shortest + 1)
    if len(possible) < n_shifts:
        raise ValueError(
            f"n_shifts={n_shifts}, but a comparison over {n * bin_width:g} s has "
            f"{len(possible)} shifts of at least {SHORTEST_SHIFT:g} s either way: give a longer "
            "recording or ask for fewer"
        )
    return np.random.default_rng(seed).choice(possible, size=n_shifts, replace=False)


class ShiftedSignals:
    """Signals at several lags and circularly shifted copies of each: columns on demand.

    Parameters
    ----------
    lagged : numpy.ndarray
        (time, lag, signal).
    shifts : numpy.ndarray
        In bins.
    """

    def __init__(self, lagged: np.ndarray, shifts: np.ndarray) -> None:
        centred = lagged - lagged.mean(0)
        self.lagged = centred / centred.std(0)
        self._shifts = np.r_[0, shifts].astype(np.int64)
        # (shift, lag, signal), the first without a shift.
        self.shape = (len(self._shifts), *lagged.shape[1:])

    def at(self, rows: np.ndarray) -> np.ndarray:
        """Signals (row, shift, lag, signal) at some of the times."""
        return self.lagged[(rows[:, None] - self._shifts) % len(self.lagged)]
