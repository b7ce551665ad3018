"""Opponent motion energy: which way it moves, whatever moves and however much contrast it has."""

from __future__ import annotations

import math

import numpy as np

from retina_codec.stimuli.optical_flow import apply, centres, weights_on_grid, window_matrix

PERIODS = (
    6.0,
    12.0,
)  # pixels: of the spatial filters, of which those are used that the field holds
ENVELOPE = 0.4  # of a period: standard deviation of a spatial filter along its axis
ORDERS = (3, 5)  # of the fast and the slow temporal filter
# 1/s: scale of the temporal filters, which are best driven by about 10 Hz; slower where frames are
# so long that the filters would fall between them.
RATE = 130.0
FASTEST = 1.5  # largest scale, per frame
REACH = 16.0  # of 1 / scale: where the filters have ended
SMALLEST = 0.005  # of the total energy: a smaller difference is rounding, and fades out
FLOOR = 0.05  # of the movie's contrast: below it, normalised energy fades out


class MotionEnergy:
    """Opponent motion energy along y and x, as a share of the total energy.

    Quadrature pairs of spatial filters (even and odd Gabor functions along the axis, of two
    periods, with no response to uniform light) and of temporal filters (fast and slow) give with
    ``A = even slow, A' = even fast, B = odd slow, B' = odd fast`` energies of either direction,
    ``(A + B')^2 + (A' - B)^2`` and ``(A - B')^2 + (A' + B)^2`` (Adelson & Bergen, J. Opt. Soc. Am.
    A 2:284, 1985). Their difference over their sum, each pooled over the field, lies from -1 to 1.
    Of a picture times a time course (a flicker, a reversing grating, a change of contrast) it is 0
    exactly, at every moment and place.

    Parameters
    ----------
    place_weights : tuple of ndarray
        Weight of every row (place, y) and of every column (place, x).
    contrast : float
        Root mean squared contrast of the movie.
    bin_width : float
        Seconds.
    """

    def __init__(
        self, place_weights: tuple[np.ndarray, np.ndarray], contrast: float, bin_width: float
    ) -> None:
        shape = [weights.shape[1] for weights in place_weights]
        self._weight = weights_on_grid(place_weights)
        self.n_places = len(self._weight)
        self._floor = (FLOOR * contrast) ** 2 + 1e-12
        self._courses = temporal_filters(bin_width)
        windows = [window_matrix(n) for n in shape]
        sizes = dict(zip("yx", shape, strict=True))
        self._filters = {
            axis: [_gabor(n, period) for period in _periods(n)] for axis, n in sizes.items()
        }
        self._across = dict(zip("xy", windows, strict=True))
        self.moving = [axis for axis, n in sizes.items() if n > 1]

    @property
    def n_before(self) -> int:
        """Number of frames before the first one that are wanted."""
        return self._courses.shape[1] - 1

    def __call__(self, frames: np.ndarray) -> dict[str, np.ndarray]:
        """Normalised opponent energy (frame, place) of each axis, without the first `n_before`."""
        found = {}
        for axis in self.moving:
            opponent = np.zeros((len(frames) - self.n_before, self.n_places))
            total = np.full_like(opponent, self._floor)
            for even, odd in self._filters[axis]:
                responses = []
                for kernel in (even, odd):
                    matrices = (kernel, self._across["y"]), (self._across["x"], kernel)
                    local = apply(frames, *matrices[axis == "x"])
                    responses += [_filtered(local, course) for course in self._courses]
                even_fast, even_slow, odd_fast, odd_slow = responses
                opponent = opponent + self._pool(4 * (even_slow * odd_fast - even_fast * odd_slow))
                total = total + self._pool(2 * sum(np.square(r) for r in responses))
            found[axis] = _faded(opponent / total)
        return found

    def _pool(self, local: np.ndarray) -> np.ndarray:
        return local.reshape(len(local), -1) @ self._weight.T / self._weight.sum(axis=1)


def temporal_filters(bin_width: float) -> np.ndarray:
    """Fast and slow filter (2, lag): Adelson & Bergen's, of unit norm and without steady response.

    Parameters
    ----------
    bin_width : float
        Seconds between lags.
    """
    scale = min(RATE, FASTEST / bin_width)
    t = scale * bin_width * np.arange(int(np.ceil(REACH / (scale * bin_width))))
    filters = np.stack(
        [t**n * np.exp(-t) * (1 / math.factorial(n) - t**2 / math.factorial(n + 2)) for n in ORDERS]
    )
    filters -= filters.mean(axis=1, keepdims=True)
    return filters / np.linalg.norm(filters, axis=1, keepdims=True)


def _faded(share: np.ndarray) -> np.ndarray:
    """`share`, 0 up to `SMALLEST` and soon as it is above (non-negative garrote)."""
    size = np.maximum(np.abs(share), SMALLEST)
    return share * (1 - np.square(SMALLEST / size))


def _periods(n: int) -> list[float]:
    return [period for period in PERIODS if period <= n] or [float(n)]


def _gabor(n: int, period: float) -> tuple[np.ndarray, np.ndarray]:
    """Even and odd filters (centre, pixel), each without response to uniform light."""
    offset = np.arange(n) - centres(n)[:, None]
    envelope = np.exp(-0.5 * (offset / (ENVELOPE * period)) ** 2)
    envelope /= envelope.sum(axis=1, keepdims=True)
    pair = []
    for wave in (np.cos, np.sin):
        kernel = 2 * envelope * wave(2 * np.pi * offset / period)
        pair.append(kernel - envelope * kernel.sum(axis=1, keepdims=True))
    return pair[0], pair[1]


def _filtered(local: np.ndarray, course: np.ndarray) -> np.ndarray:
    """Convolve (frame, ...) causally with a filter over lags; only frames with a whole history."""
    flat = local.reshape(len(local), -1)
    windows = np.lib.stride_tricks.sliding_window_view(flat, len(course), axis=0)
    return windows @ course[::-1]
