"""Local motion that flicker and contrast changes cannot feign: a generalised optical flow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# All lengths in pixels. The smoothing makes a shift of up to about a pixel nearly linear; the
# window has to be wider than the grain of the smoothed picture.
SMOOTHING = 1.0
WINDOW = 2.5
GRID_STEP = 3
MARGIN = 3  # at the edges: of three standard deviations of the smoothing
# Ridge on the velocity: a share of the gradient energy of the frame difference (a shift leaves
# little of it, a contrast reversal much), and a floor relative to the movie's contrast.
RIDGE = 0.05
FLOOR = 0.02
# Pixels a frame. What is found in flicker, reversing gratings and contrast changes stays below;
# slower motion fades out, so that what is no motion is none, not a little that follows the light.
SLOWEST = 0.01
# Share of the change that motion must explain to be believed: not at all, and fully; and the
# weight of "no motion" where nothing is believed.
DOUBT, TRUST = 0.3, 0.7
PRIOR = 0.2


@dataclass(frozen=True)
class Flow:
    """Velocities in pixels a frame between consecutive frames, each (frame - 1, place)."""

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
        Weight of every row (place, y) and of every column (place, x).
    contrast : float
        Root mean squared contrast of the movie, against which structure is judged.
    """

    def __init__(
        self, shape: tuple[int, int], place_weights: tuple[np.ndarray, np.ndarray], contrast: float
    ) -> None:
        self._smooth = [_smoothing_matrix(n) for n in shape]
        self._slope = [_slope_matrix(n) for n in shape]
        # Smoothing sees beyond the edge, where there is no picture: as far as it does, slopes along
        # the edge stay and those across it fade, and an oblique grating seems to turn.
        self._window = [window_matrix(n, margin=MARGIN) for n in shape]
        # What is left of a window at the edge is few pixels, which any motion explains.
        whole = np.outer(*(_window_share(n) for n in shape)).ravel() ** 2
        weight = weights_on_grid(place_weights) * whole
        self._weight = weight / weight.max(axis=1, keepdims=True)
        self.n_places = len(self._weight)
        self._floor = (FLOOR * contrast) ** 2 + 1e-12  # far below any contrast shown

    def __call__(self, frames: np.ndarray) -> Flow:
        """Motion between consecutive frames (frame, y, x)."""
        smooth_y, smooth_x = self._smooth
        slope_y, slope_x = self._slope
        smoothed = apply(frames, smooth_y, smooth_x)
        along_y = apply(frames, slope_y, smooth_x)
        along_x = apply(frames, smooth_y, slope_x)
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
        whole = ridge + yy + xx
        return _pool(vy, vx, belief, yy / whole, yx / whole, xx / whole, self._weight)

    def _local(self, field: np.ndarray) -> np.ndarray:
        return apply(field, *self._window)


def _pool(
    vy: np.ndarray,
    vx: np.ndarray,
    belief: np.ndarray,
    yy: np.ndarray,
    yx: np.ndarray,
    xx: np.ndarray,
    weight: np.ndarray,
) -> Flow:
    """Pool local velocities round each place, in the directions their windows have structure in."""

    def total(local: np.ndarray) -> np.ndarray:
        return local.reshape(len(local), -1) @ weight.T

    strongest = (yy + xx) / 2 + np.sqrt(((yy - xx) / 2) ** 2 + yx**2)
    everything = total(strongest) + 1e-12
    strongest, yy, yx, xx = (belief * f for f in (strongest, yy, yx, xx))
    believed = total(strongest)
    doubted = PRIOR * (everything - believed) + 1e-6 * everything
    sum_yy, sum_yx, sum_xx = total(yy), total(yx), total(xx)
    along_y, along_x = yy * vy + yx * vx, yx * vy + xx * vx
    sum_y, sum_x = total(along_y), total(along_x)
    mean_y, mean_x = _solve(sum_yy + doubted, sum_yx, sum_xx + doubted, sum_y, sum_x)
    # Of the squared deviations from the mean, in the metric of the structure.
    spread = (
        total(along_y * vy + along_x * vx)
        - 2 * (mean_y * sum_y + mean_x * sum_x)
        + mean_y**2 * sum_yy
        + 2 * mean_y * mean_x * sum_yx
        + mean_x**2 * sum_xx
    )
    n = believed + doubted
    fast = _fading(np.hypot(mean_y, mean_x))
    speed = total(strongest * np.hypot(vy, vx)) / n
    differential = np.sqrt(np.maximum(spread, 0) / n)
    return Flow(
        velocity_y=mean_y * fast,
        velocity_x=mean_x * fast,
        speed=speed * _fading(speed),
        differential_motion=differential * _fading(differential),
    )


def _fading(speed: np.ndarray) -> np.ndarray:
    """Factor of a speed: 0 up to `SLOWEST`, soon 1 above (non-negative garrote)."""
    return np.maximum(0, 1 - np.square(SLOWEST / np.maximum(speed, SLOWEST)))


def weights_on_grid(place_weights: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Weight (place, centre of a window), with the largest of each place 1.

    Parameters
    ----------
    place_weights : tuple of ndarray
        Weight of every row (place, y) and of every column (place, x).
    """
    rows, columns = (weights[:, centres(weights.shape[1])] for weights in place_weights)
    weight = (rows[:, :, None] * columns[:, None, :]).reshape(len(rows), -1)
    return weight / weight.max(axis=1, keepdims=True)


def _named(*fields: np.ndarray) -> list[tuple[str, np.ndarray]]:
    return list(zip("yxmd", fields, strict=True))


def apply(frames: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
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


def centres(n: int) -> np.ndarray:
    """Every third pixel, with margins alike."""
    return np.arange(((n - 1) % GRID_STEP) // 2, n, GRID_STEP)


def window_matrix(n: int, *, margin: int = 1) -> np.ndarray:
    """Normalised Gaussian windows (centre, pixel) round every third pixel.

    Parameters
    ----------
    n : int
        Pixels.
    margin : int
        Pixels at either edge that are not looked at; at most a third of the field, none of 4 pixels
        or fewer. What enters at the edge is not a shift of what was seen.
    """
    window = _window(n, margin)
    return window / window.sum(axis=1, keepdims=True)


def _window(n: int, margin: int) -> np.ndarray:
    window = np.exp(-0.5 * ((np.arange(n) - centres(n)[:, None]) / WINDOW) ** 2)
    margin = min(margin, n // 3) if n > 4 else 0
    window[:, :margin] = 0
    window[:, n - margin :] = 0
    return window


def _window_share(n: int) -> np.ndarray:
    """Share of each window (centre,) that lies within the margins."""
    return _window(n, MARGIN).sum(axis=1) / _window(n, 0).sum(axis=1).max()
