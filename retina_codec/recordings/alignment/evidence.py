"""What the spikes say for each shift between stimulus and spikes, frame by frame.

With relative model rates q (rate over its own local mean) and local mean counts m, the spikes n at
frame t speak for "these spikes follow frame t - d of the file" against "they follow nothing" by

    l_t(d) = sum over cells of  n_t log q(t - d) - m_t (q(t - d) - 1)     (nats),

the Poisson log likelihood ratio. Both means are taken over the same window, so that slow changes
of gain and excitability cancel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


@dataclass(frozen=True)
class Layout:
    """Frames laid out with empty frames between runs, so that no shift reaches another run."""

    runs: list[slice]
    pad: int

    @property
    def place(self) -> np.ndarray:
        """Index of each frame in the layout."""
        n = self.runs[-1].stop
        number = np.zeros(n, dtype=np.int64)
        for i, run in enumerate(self.runs):
            number[run] = i
        return np.arange(n) + self.pad * (number + 1)

    @property
    def size(self) -> int:
        """Length of the layout."""
        return self.runs[-1].stop + self.pad * (len(self.runs) + 1)

    def spread(self, values: np.ndarray) -> np.ndarray:
        """`values` (frame, ...) in the layout, 0 between runs."""
        spread = np.zeros((self.size, *values.shape[1:]), dtype=values.dtype)
        spread[self.place] = values
        return spread


def local_mean(values: np.ndarray, runs: list[slice], width: int, known: np.ndarray) -> np.ndarray:
    """Mean over `width` frames around each frame (fewer at the ends of a run) of `known` ones."""
    found = np.empty(values.shape, dtype=np.float64)
    weight = known.astype(np.float64).reshape(-1, *[1] * (values.ndim - 1))
    for run in runs:
        n = run.stop - run.start
        low = np.clip(np.arange(n) - width // 2, 0, max(0, n - width))
        high = np.minimum(low + width, n)
        sums = np.zeros((n + 1, *values.shape[1:]))
        sizes = np.zeros((n + 1, *weight.shape[1:]))
        np.cumsum(values[run] * weight[run], axis=0, out=sums[1:])
        np.cumsum(weight[run], axis=0, out=sizes[1:])
        found[run] = (sums[high] - sums[low]) / np.maximum(sizes[high] - sizes[low], 1)
    return found


def relative_rates(
    rates: np.ndarray, runs: list[slice], width: int, known: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Give log q and q - 1, (fold, frame, cell) float32; 0 where nothing is known."""
    ratio = np.ones(rates.shape, dtype=np.float32)
    for fold, values in enumerate(rates):
        mean = local_mean(values, runs, width, known)
        np.divide(values, mean, out=ratio[fold], where=(mean > 0) & known[:, None])
    np.maximum(ratio, 0.02, out=ratio)
    ratio[:, ~known] = 1
    return np.log(ratio), ratio - 1


def fold_stretches(folds: np.ndarray, runs: list[slice]) -> list[tuple[slice, int]]:
    """Contiguous stretches of frames of one fold, each within a run."""
    found = []
    for run in runs:
        inner = folds[run]
        cuts = np.flatnonzero(np.diff(inner)) + 1
        for a, b in zip(np.r_[0, cuts], np.r_[cuts, len(inner)], strict=True):
            found.append((slice(int(run.start + a), int(run.start + b)), int(inner[a])))
    return found


def shift_evidence(
    counts: np.ndarray,
    means: np.ndarray,
    log_ratio: np.ndarray,
    excess: np.ndarray,
    *,
    layout: Layout,
    stretches: list[tuple[slice, int]],
    shifts: np.ndarray,
) -> np.ndarray:
    """l_t(d): evidence (frame, shift) in nats, summed over cells; see the head of this module."""
    found = np.zeros((len(counts), len(shifts)), dtype=np.float32)
    place = layout.place
    # Shifts are whole numbers in a row: a window of frames is all of them, the largest first.
    model = [
        sliding_window_view(
            layout.spread(np.concatenate([logs, extra], axis=1)), len(shifts), axis=0
        )
        for logs, extra in zip(log_ratio, excess, strict=True)
    ]
    spikes = np.concatenate([counts, -means], axis=1).astype(np.float32)
    for part, fold in stretches:
        start = place[part.start] - shifts[-1]
        windows = model[fold][start : start + part.stop - part.start]
        found[part] = np.einsum("tc,tcs->ts", spikes[part], windows)[:, ::-1]
    return found
