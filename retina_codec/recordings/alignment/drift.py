"""Lags of single stretches to a part of a frame, and the line through them: clocks that drift."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retina_codec.recordings.alignment.decoding import fine_shifts

# Evidence that the best lag of a stretch must have over "follows nothing" to be told, in nats.
LEAST_PEAK = 8.0
MOST_PIECES = 100
LEAST_PIECES = 12


@dataclass(frozen=True)
class Line:
    """lag(frame) = at_start + slope * frame, in frames."""

    at_start: float
    slope: float  # frames a frame: 1e-6 is one part per million
    slope_error: float
    gain: float  # nats beyond the best constant lag

    def at(self, frames: np.ndarray) -> np.ndarray:
        """Lag at each of `frames`."""
        return self.at_start + self.slope * frames


def peaks(rows: np.ndarray, shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Best lag (frames) of evidence (stretch, shift), its standard error and its evidence.

    The error is from the curvature at the peak. Lag and error are NaN where the peak has less than
    `LEAST_PEAK` nats, or lies at the end of the range.
    """
    fine, spline = fine_shifts(shifts)
    values = rows @ spline
    best = values.argmax(axis=1)
    height = values[np.arange(len(rows)), best]
    inner = np.clip(best, 1, max(1, len(fine) - 2))
    lag, error = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
    if len(fine) < 3:
        return lag, error, height
    left, middle, right = (values[np.arange(len(rows)), inner + k] for k in (-1, 0, 1))
    curvature = (left - 2 * middle + right) / (fine[1] - fine[0]) ** 2
    told = (height >= LEAST_PEAK) & (best == inner) & (curvature < 0)
    slope = (right - left) / (2 * (fine[1] - fine[0]))
    lag[told] = (fine[inner] - slope / np.where(told, curvature, 1.0))[told]
    error[told] = 1 / np.sqrt(-curvature[told])
    return lag, error, height


def fitted_line(evidence: np.ndarray, shifts: np.ndarray) -> Line | None:
    """Line of the lag that the evidence (frame, shift) speaks for most, or None if it is not told.

    A search over all lines finds the one with the most evidence, where no piece can count less
    than 0 (pieces that follow nothing do not matter); the lags of the pieces near it then give the
    weighted regression, its error widened by their scatter.
    """
    n = len(evidence)
    n_pieces = min(MOST_PIECES, n // 4)
    if n_pieces < LEAST_PIECES:
        return None
    edges = np.arange(n_pieces) * n // n_pieces
    middle = (edges + np.append(edges[1:], n) - 1) / 2
    rows = np.add.reduceat(evidence, edges, axis=0, dtype=np.float64)
    fine, spline = fine_shifts(shifts)
    values = np.maximum(rows @ spline, 0)
    step = fine[1] - fine[0]
    reach = fine[-1]
    relative = (middle - (n - 1) / 2) / n  # -1/2 .. 1/2
    best, found = -np.inf, (0.0, 0.0)
    constant = values.sum(axis=0).max()
    pieces = np.arange(n_pieces)[:, None]
    for rise in np.arange(-2 * reach, 2 * reach + step / 2, step):
        place = np.round((fine + rise * relative[:, None] + reach) / step).astype(np.int64)
        inside = (place >= 0) & (place < len(fine))
        score = np.where(inside, values[pieces, np.clip(place, 0, len(fine) - 1)], 0.0).sum(axis=0)
        if score.max() > best:
            best, found = float(score.max()), (float(fine[score.argmax()]), float(rise))
    centre, rise = found
    error = np.inf
    scores = [best - constant]
    for _ in range(3):
        near = np.round(centre + rise * relative).astype(np.int64)
        # Peaks within two frames of the line.
        columns = near[:, None] - int(shifts[0]) + np.arange(-3, 4)
        inside = (columns >= 0).all(axis=1) & (columns < len(shifts)).all(axis=1)
        if inside.sum() < LEAST_PIECES:
            return None
        local = np.take_along_axis(rows[inside], columns[inside], axis=1)
        lag, lag_error, _ = peaks(local, np.arange(-3, 4))
        told = np.isfinite(lag)
        if told.sum() < LEAST_PIECES:
            return None
        y, x = (lag + near[inside])[told], relative[inside][told]
        weight = 1 / lag_error[told] ** 2
        total = weight.sum()
        x0, y0 = (weight * x).sum() / total, (weight * y).sum() / total
        spread = (weight * (x - x0) ** 2).sum()
        if spread <= 0:
            return None
        rise = float((weight * (x - x0) * (y - y0)).sum() / spread)
        centre = float(y0 - rise * x0)
        misfit = weight * (y - centre - rise * x) ** 2
        error = np.sqrt(max(1.0, misfit.sum() / (len(y) - 2)) / spread)
    return Line(
        at_start=centre - rise * (n - 1) / (2 * n),
        slope=rise / n,
        slope_error=float(error) / n,
        gain=float(scores[0]),
    )
