"""Bins drawn again, and predictions shifted in time: what intervals and nulls are made of.

Both respect the contiguous runs of the bins that are scored: no stretch that is drawn crosses from
one run into the next, and a prediction is shifted round within each run.
"""

from __future__ import annotations

import numpy as np
from scipy.fft import irfft, rfft

# Shorter stretches would cut through the autocorrelation of responses and make intervals narrow.
STRETCH_SECONDS = 0.5
# With fewer stretches in a recording their draws are too much alike for an interval.
FEWEST_STRETCHES = 4


class Resampling:
    """Weights (row, bin) that turn sums over bins into means over resampled bins.

    Row 0 takes all bins, row 1 those of the runs that are long enough to be shifted, the others
    are the draws of a moving-block bootstrap (Kunsch, Ann. Statist. 17, 1989). Every row sums to
    1. They are made stretch by stretch, since all of them may be larger than memory.

    Parameters
    ----------
    runs : list of slice
        Contiguous runs of the bins, which cover them all.
    bin_width : float
        Seconds.
    n_draws : int
        Rows of the bootstrap.
    shortest_shift : float
        Seconds; runs of less than twice as much cannot be shifted.
    seed : int
        Of draws and shifts.
    """

    def __init__(
        self,
        runs: list[slice],
        bin_width: float,
        n_draws: int,
        shortest_shift: float,
        seed: int,
    ) -> None:
        self.runs = runs
        self.n_bins = runs[-1].stop
        self.n_rows = 2 + n_draws
        self.bin_width = bin_width
        self._seed = seed
        self._shortest_shift = max(1, int(np.ceil(shortest_shift / bin_width - 1e-6)))
        sizes = np.array([run.stop - run.start for run in runs])
        length = max(1, round(STRETCH_SECONDS / bin_width))
        self.has_intervals = self.n_bins >= FEWEST_STRETCHES * length
        # A run shorter than a stretch is drawn whole. Runs are drawn so often that each can expect
        # its share of the bins, however many stretches fit into it.
        lengths = np.minimum(sizes, length)
        chance = sizes / lengths / (sizes / lengths).sum()
        n_stretches = int(np.ceil(self.n_bins / (chance @ lengths)))
        rng = np.random.default_rng(seed)
        chosen = rng.choice(len(runs), size=(n_draws, n_stretches), p=chance)
        first = np.array([run.start for run in runs])
        self._starts = first[chosen] + rng.integers(0, (sizes - lengths + 1)[chosen])
        self._lengths = lengths[chosen]
        self.shifted_runs = [
            run for run, size in zip(runs, sizes, strict=True) if size >= 2 * self._shortest_shift
        ]
        self._shifted = np.zeros(self.n_bins)
        for run in self.shifted_runs:
            self._shifted[run] = 1 / sum(r.stop - r.start for r in self.shifted_runs)

    def weights(self, start: int, stop: int) -> np.ndarray:
        """Weights (row, bin) of the bins [start, stop)."""
        width = stop - start
        n_draws = len(self._starts)
        inside = (self._starts < stop) & (self._starts + self._lengths > start)
        row = np.nonzero(inside)[0] * (width + 1)
        first, lengths = self._starts[inside], self._lengths[inside]
        # A stretch adds one at its first bin and takes it away behind its last.
        size = n_draws * (width + 1)
        edges = np.bincount(row + np.maximum(first, start) - start, minlength=size)
        edges -= np.bincount(row + np.minimum(first + lengths, stop) - start, minlength=size)
        times = np.cumsum(edges.reshape(n_draws, width + 1), axis=1)[:, :width]
        weights = np.empty((self.n_rows, width))
        weights[0] = 1 / self.n_bins
        weights[1] = self._shifted[start:stop]
        weights[2:] = times / self._lengths.sum(1, keepdims=True)
        return weights

    def shifts(self, n_shifts: int) -> np.ndarray:
        """Draw circular shifts (shift, run) in bins: one for each run that can be shifted.

        A single run has no more than a certain number of them: if that is less than `n_shifts`,
        it gets each of them once.
        """
        rng = np.random.default_rng([self._seed, 1])
        possible = [
            np.arange(self._shortest_shift, run.stop - run.start - self._shortest_shift + 1)
            for run in self.shifted_runs
        ]
        if len(possible) == 1:
            n_shifts = min(n_shifts, len(possible[0]))
            return np.sort(rng.choice(possible[0], n_shifts, replace=False))[:, None]
        columns = [rng.choice(shifts, n_shifts) for shifts in possible]
        return np.stack(columns, axis=1) if columns else np.empty((0, 0), dtype=np.int64)

    def shifted_products(
        self, recorded: np.ndarray, predicted: np.ndarray, shifts: np.ndarray
    ) -> np.ndarray:
        """Mean products (shift, cell) of what was recorded with shifted predictions (bin, cell).

        The prediction is delayed by the shift; its end comes round to the start of the run.
        """
        total = np.zeros((len(shifts), recorded.shape[1]))
        for run, of_run in zip(self.shifted_runs, shifts.T, strict=True):
            n = run.stop - run.start
            spectrum = rfft(recorded[run], axis=0) * rfft(predicted[run], axis=0).conj()
            total += irfft(spectrum, n, axis=0)[of_run] * self._shifted[run.start]
        return total
