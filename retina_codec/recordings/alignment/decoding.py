"""The most likely story: which frames follow the file, how far apart, and which do not follow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline

# Least price in calibrated nats of a sudden change (a jump of the lag, or to and from "follows
# nothing"): spikes that follow fake one at a given frame with a probability of about exp(-SWITCH).
SWITCH = 22.0
# Price of a step of the lag by 1 / FINE frame, with which latencies wander, over that of a jump.
STEP_SHARE = 0.36
FINE = 4
# Steps of the dynamic program at most; frames are taken together.
MOST_STEPS = 10_000
LEAST_GROUP = 4


@dataclass(frozen=True)
class Stretch:
    """Frames [start, stop) without a sudden change; the lag (frames) at either end."""

    start: int
    stop: int
    first_lag: float  # NaN: the spikes follow nothing
    last_lag: float

    @property
    def follows(self) -> bool:
        """Whether the spikes follow the stimulus at all."""
        return bool(np.isfinite(self.first_lag))


@dataclass(frozen=True)
class Story:
    """The best path through lags, and its evidence less its price."""

    lag: np.ndarray  # (frame,), frames: spikes at t follow frame t - lag; NaN: nothing
    stretches: list[Stretch]
    score: float

    @property
    def follows(self) -> np.ndarray:
        """Whether each frame is followed."""
        return np.isfinite(self.lag)


def fine_shifts(shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shifts at 1 / FINE frame, and the matrix (shift, fine shift) of the interpolating spline."""
    fine = np.linspace(shifts[0], shifts[-1], FINE * (len(shifts) - 1) + 1)
    if len(shifts) < 4:
        return shifts.astype(np.float64), np.eye(len(shifts))
    return fine, CubicSpline(shifts, np.eye(len(shifts)))(fine).T


def decode(
    evidence: np.ndarray,
    shifts: np.ndarray,
    *,
    switch: float = SWITCH,
    base: np.ndarray | None = None,
    start: float | None = None,
) -> Story:
    """Path of the lag through `evidence` (frame, shift), which must be in calibrated nats.

    Dynamic programming (Viterbi, IEEE Trans. Inf. Theory 13:260, 1967) over lags of 1 / FINE frame
    and the state "follows nothing" of evidence 0. Sudden changes cost `switch`, steps to the next
    lag a share of it.
    `base` (frame,) is a lag that costs nothing: the path is one around it. From a lag of about
    `start`, if given, the path begins; all else is a sudden change.
    """
    n = len(evidence)
    group = max(LEAST_GROUP, -(-n // MOST_STEPS))
    starts = np.arange(0, n, group)
    fine, spline = fine_shifts(shifts)
    steps = np.add.reduceat(evidence, starts, axis=0, dtype=np.float64) @ spline
    offset = np.zeros(len(starts), dtype=np.int64)
    if base is not None:
        offset = np.round(FINE * base[starts]).astype(np.int64)
        steps = _moved(steps, offset)
    steps = np.concatenate([steps, np.zeros((len(steps), 1))], axis=1)
    initial = np.zeros(steps.shape[1])
    if start is not None:
        initial[:-1] = np.where(np.abs(fine - start) <= 0.5, 0.0, -switch)
        initial[-1] = -switch
    states, score = _best_path(steps, initial, switch)

    nothing = len(fine)
    lag = np.full(n, np.nan)
    place = np.clip(states + offset, 0, nothing - 1)
    by_group = np.where(states == nothing, np.nan, fine[place])
    jumps = np.flatnonzero((np.abs(np.diff(states)) > 1) | (np.diff(states == nothing) != 0))
    firsts, stops = [0], []
    for k in jumps + 1:
        sides = [
            np.zeros(len(spline)) if s == nothing else spline[:, np.clip(s + o, 0, nothing - 1)]
            for s, o in zip(states[k - 1 : k + 1], offset[k - 1 : k + 1], strict=True)
        ]
        low = max(firsts[-1] + 1, starts[k] - 2 * group)
        high = min(n, starts[k] + 2 * group)
        gain = np.cumsum(evidence[low:high].astype(np.float64) @ (sides[0] - sides[1]))
        frame = low + int(np.r_[0.0, gain].argmax())
        stops.append(frame)
        firsts.append(frame)
    stops.append(n)
    stretches = []
    groups = np.r_[0, jumps + 1, len(starts)]
    for i, (start, stop) in enumerate(zip(firsts, stops, strict=True)):
        inner = by_group[groups[i] : groups[i + 1]]
        lag[start:stop] = inner[
            np.clip(np.arange(start, stop) // group - groups[i], 0, len(inner) - 1)
        ]
        stretches.append(Stretch(int(start), int(stop), float(inner[0]), float(inner[-1])))
    return Story(lag=lag, stretches=stretches, score=score)


def _moved(steps: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Evidence (step, fine shift) as a function of the shift beyond `offset`; 0 out of range."""
    columns = np.arange(steps.shape[1]) + offset[:, None]
    inside = (columns >= 0) & (columns < steps.shape[1])
    found = np.take_along_axis(steps, np.clip(columns, 0, steps.shape[1] - 1), axis=1)
    return np.where(inside, found, 0.0)


def _best_path(steps: np.ndarray, initial: np.ndarray, switch: float) -> tuple[np.ndarray, float]:
    """State of each step (the last column is "nothing"), and the score of the path."""
    n, n_states = steps.shape
    came_from = np.empty((n, n_states), dtype=np.int32)
    own = np.arange(n_states)
    step = STEP_SHARE * switch
    score = initial + steps[0]
    for t in range(1, n):
        lags = score[:-1]
        source = own.copy()
        reached = score.copy()
        up = lags[:-1] - step
        better = up > reached[1:-1]
        reached[1:-1][better] = up[better]
        source[1:-1][better] = own[:-2][better]
        down = lags[1:] - step
        better = down > reached[:-2]
        reached[:-2][better] = down[better]
        source[:-2][better] = own[1:-1][better]
        best = int(score.argmax())
        better = score[best] - switch > reached
        reached[better] = score[best] - switch
        source[better] = best
        came_from[t] = source
        score = reached + steps[t]
    states = np.empty(n, dtype=np.int64)
    states[-1] = int(score.argmax())
    for t in range(n - 1, 0, -1):
        states[t - 1] = came_from[t, states[t]]
    return states, float(score.max())


@dataclass(frozen=True)
class Calibration:
    """How the evidence of stretches that follow scatters, and how large it is."""

    dispersion: float  # variance of the evidence over that of Poisson spikes
    slope: float  # evidence over what the model expects of spikes that follow it


def calibrate(
    evidence: np.ndarray,
    expected: np.ndarray,
    variance: np.ndarray,
    *,
    widths: tuple[int, ...],
    least: float = 1.0,
) -> Calibration:
    """Overdispersion of evidence (frame,) that follows, from its scatter over pieces.

    `expected` and `variance` (frame,) are mean and variance of the evidence for Poisson spikes at
    the model's rates. The scatter (median absolute deviation, so that pieces that do not follow
    count little) is taken over pieces of each of `widths` frames; the largest counts, as gain and
    tuning that wander show over long pieces only.
    """
    total = float(expected.sum())
    slope = float(evidence.sum(dtype=np.float64)) / total if total > 0 else 0.0
    found = [least]
    for width in widths:
        n_pieces = len(evidence) // width
        if n_pieces < 8:
            continue
        kept = slice(0, n_pieces * width)
        e, x, v = (
            a[kept].reshape(n_pieces, width).sum(axis=1, dtype=np.float64)
            for a in (evidence, expected, variance)
        )
        informed = v > 0.05 * np.median(v)
        if informed.sum() < 8:
            continue
        z = (e - slope * x)[informed] / np.sqrt(v[informed])
        found.append((1.4826 * float(np.median(np.abs(z - np.median(z))))) ** 2)
    return Calibration(dispersion=max(found), slope=slope)


def largest_excursions(rows: np.ndarray) -> np.ndarray:
    """Largest sum over any contiguous stretch of each row (Kadane)."""
    sums = np.cumsum(rows, axis=1, dtype=np.float64)
    before = np.minimum.accumulate(np.c_[np.zeros(len(rows)), sums[:, :-1]], axis=1)
    return (sums - before).max(axis=1)
