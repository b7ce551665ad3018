"""Local motion that flicker and contrast changes cannot feign: a generalised optical flow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# All lengths in pixels. The smoothing makes a shift of up to about a pixel nearly linear; the
# window has to be wider than the grain of the smoothed picture.
SMOOTHING = 1.0
WINDOW = 2.5
GRID_STEP = 3
# Ridge on the velocity: a share of the gradient energy of the frame difference (a shift leaves
# little of it, a contrast reversal much), and a floor relative to the movie's contrast.
RIDGE = 0.05
FLOOR = 0.02
# Share of the change that motion must explain to be believed: not at all, and fully; and the
# weight of "no motion" where nothing is believed.
DOUBT, TRUST = 0.3, 0.7
PRIOR = 0.2


@dataclass(frozen=True)
class Flow:
    """Velocities in pixels a frame between consecutive frames, each (frame - 1,)."""

    velocity_y: np.ndarray
    velocity_x: np.ndarray
    speed: np.ndarray
    differential_motion: np.ndarray


class FlowEstimator:
    """Motion between consecutive frames of one field size.

    Between two frames, in Gaussian windows on a grid, the change of the smoothed picture is fitted
    as ``D = -v . grad M + a + b (M - local mean)``, with D the difference and M the mean of the
    two frames (Negahdaripour, IEEE PAMI 20, 1998): a is flicker, b a change of contrast, and what
    they explain is not motion. The velocity v is ridge-regularised, and counts as far as motion
    explains the rest of the change.

    Parameters
    ----------
    shape : tuple of int
        Height and width of the field in pixels.
    place_weights : tuple of ndarray
        Weight of every row and of every column.
    contrast : float
        Root mean squared contrast of the movie, against which structure is judged.
    """

    def __init__(
        self, shape: tuple[int, int], place_weights: tuple[np.ndarray, np.ndarray], contrast: float
    ) -> None:
        self._smooth = [_smoothing_matrix(n) for n in shape]
        self._slope = [_slope_matrix(n) for n in shape]
        self._window = [_window_matrix(n) for n in shape]
        rows, columns = (place[_centres(n)] for place, n in zip(place_weights, shape, strict=True))
        weight = np.outer(rows, columns)
        self._weight = weight / weight.max()
        self._floor = (FLOOR * contrast) ** 2 + 1e-12  # far below any contrast shown

    def __call__(self, frames: np.ndarray) -> Flow:
        """Motion between consecutive frames (frame, y, x)."""
        smooth_y, smooth_x = self._smooth
        slope_y, slope_x = self._slope
        smoothed = _apply(frames, smooth_y, smooth_x)
        along_y = _apply(frames, slope_y, smooth_x)
        along_x = _apply(frames, smooth_y, slope_x)
        change = smoothed[1:] - smoothed[:-1]
        picture, gy, gx = ((f[1:] + f[:-1]) / 2 for f in (smoothed, along_y, along_x))
        unsteady = (along_y[1:] - along_y[:-1]) ** 2 + (along_x[1:] - along_x[:-1]) ** 2

        means = {name: self._local(f) for name, f in _named(gy, gx, picture, change)}
        fields = {"y": gy, "x": gx, "m": picture, "d": change}

        def covariance(p: str, q: str) -> np.ndarray:
            return self._local(fields[p] * fields[q]) - means[p] * means[q]

        # Take the share of `picture` (a change of contrast) out of gradients and change.
        spread = covariance("m", "m") + 1e-6 * self._floor
        with_m = {name: covariance(name, "m") for name in "yxd"}

        def partial(p: str, q: str) -> np.ndarray:
            return covariance(p, q) - with_m[p] * with_m[q] / spread

        yy, xx, yx = partial("y", "y"), partial("x", "x"), partial("y", "x")
        yd, xd, dd = partial("y", "d"), partial("x", "d"), partial("d", "d")
        ridge = RIDGE * self._local(unsteady) + self._floor
        vy, vx = _solve(yy + ridge, yx, xx + ridge, -yd, -xd)
        explained = (self._floor - vy * yd - vx * xd) / (self._floor + np.maximum(dd, 0))
        belief = np.clip((explained - DOUBT) / (TRUST - DOUBT), 0, 1)
        # Structure of a window relative to the ridge: 0 on grey, up to 1.
        weight = self._weight / (ridge + yy + xx)
        return _pool(vy, vx, belief, weight * yy, weight * yx, weight * xx)

    def _local(self, field: np.ndarray) -> np.ndarray:
        return _apply(field, *self._window)


def _pool(
    vy: np.ndarray,
    vx: np.ndarray,
    belief: np.ndarray,
    yy: np.ndarray,
    yx: np.ndarray,
    xx: np.ndarray,
) -> Flow:
    """Pool local velocities, each in the directions in which its window has structure."""
    strongest = (yy + xx) / 2 + np.sqrt(((yy - xx) / 2) ** 2 + yx**2)
    everything = strongest.sum(axis=(1, 2)) + 1e-12
    strongest, yy, yx, xx = (belief * f for f in (strongest, yy, yx, xx))

    def total(local: np.ndarray) -> np.ndarray:
        return local.sum(axis=(1, 2))

    doubted = PRIOR * (everything - total(strongest)) + 1e-6 * everything
    mean_y, mean_x = _solve(
        total(yy) + doubted,
        total(yx),
        total(xx) + doubted,
        total(yy * vy + yx * vx),
        total(yx * vy + xx * vx),
    )
    dy, dx = vy - mean_y[:, None, None], vx - mean_x[:, None, None]
    spread = total(yy * dy**2 + 2 * yx * dy * dx + xx * dx**2)
    n = total(strongest) + doubted
    return Flow(
        velocity_y=mean_y,
        velocity_x=mean_x,
        speed=total(strongest * np.hypot(vy, vx)) / n,
        differential_motion=np.sqrt(np.maximum(spread, 0) / n),
    )


def _named(*fields: np.ndarray) -> list[tuple[str, np.ndarray]]:
    return list(zip("yxmd", fields, strict=True))


def _apply(frames: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Apply a matrix along y and one along x."""
    return rows @ frames @ columns.T


def _solve(
    yy: np.ndarray, yx: np.ndarray, xx: np.ndarray, y: np.ndarray, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Solve the symmetric 2 x 2 systems [[yy, yx], [yx, xx]] v = (y, x)."""
    determinant = yy * xx - yx**2
    return (xx * y - yx * x) / determinant, (yy * x - yx * y) / determinant


def _smoothing_matrix(n: int) -> np.ndarray:
    """Gaussian smoothing of n pixels; the picture goes on unchanged beyond the edge."""
    kernel = np.exp(-0.5 * (_taps() / SMOOTHING) ** 2)
    return _band(n, kernel / kernel.sum())


def _slope_matrix(n: int) -> np.ndarray:
    """Slope of the smoothed picture, exact for a ramp."""
    kernel = _taps() * np.exp(-0.5 * (_taps() / SMOOTHING) ** 2)
    return _band(n, kernel / (kernel * _taps()).sum())


def _taps() -> np.ndarray:
    reach = int(np.ceil(4 * SMOOTHING))
    return np.arange(-reach, reach + 1)


def _band(n: int, kernel: np.ndarray) -> np.ndarray:
    matrix = np.zeros((n, n))
    for offset, value in zip(_taps(), kernel, strict=True):
        np.add.at(matrix, (np.arange(n), np.clip(np.arange(n) + offset, 0, n - 1)), value)
    return matrix


def _centres(n: int) -> np.ndarray:
    """Every third pixel, with margins alike."""
    return np.arange(((n - 1) % GRID_STEP) // 2, n, GRID_STEP)


def _window_matrix(n: int) -> np.ndarray:
    """Normalised Gaussian windows (centre, pixel) round every third pixel."""
    window = np.exp(-0.5 * ((np.arange(n) - _centres(n)[:, None]) / WINDOW) ** 2)
    if n > 4:
        # What enters at the edge is not a shift of what was seen.
        window[:, [0, -1]] = 0
    return window / window.sum(axis=1, keepdims=True)
