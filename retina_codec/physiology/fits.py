"""A Gaussian, or a difference of two, fitted to a map in space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import least_squares

SHAPES = ("gaussian", "difference_of_gaussians")
# Bounds of the surround: its sd in those of the centre, and its volume in that of the centre.
SURROUND_SD, SURROUND_STRENGTH = (1.2, 8.0), (0.0, 3.0)
# In pixels: what a sd may become in a fit, and below what it is not told from a single pixel (one
# pixel further, a Gaussian of that sd has 2 % left). The largest is the field's larger side.
SMALLEST_SD, NARROWEST_SD = 0.2, 0.36
PRECISION = 1e-7  # of least squares
AT_BOUND = 1e-3  # of the logarithm of a sd


@dataclass
class Fit:
    """Parameters of a fit, NaN where there is none, and then the reason."""

    reason: str = ""
    values: dict[str, float] = field(default_factory=dict)


def parameters_of(shape: str) -> tuple[str, ...]:
    """Name the parameters of a shape."""
    centre = ("center_y", "center_x", "sd_major", "sd_minor", "orientation", "amplitude", "fit_r2")
    return centre if shape == "gaussian" else (*centre, "surround_sd_ratio", "surround_strength")


def fit_map(space: np.ndarray, y: np.ndarray, x: np.ndarray, *, shape: str, least_r2: float) -> Fit:
    """Fit a shape to a map (y, x) by least squares, the strongest pixel being positive.

    The centre's parameters are those of ``amplitude * exp(-d^2 / 2)``, with d the distance from
    the centre in units of an ellipse's sds; a surround has the same centre, axes and orientation,
    a sd `surround_sd_ratio` times as large, and `surround_strength` times the volume.
    """
    if space.size < 2 or min(space.shape) < 2:
        return Fit(f"a map of {space.shape[0]} x {space.shape[1]} pixels has no extent to fit")
    if not np.isfinite(space).all() or not space.any():
        return Fit("nothing in the field")
    n_parameters = 6 if shape == "gaussian" else 8
    if space.size <= n_parameters:
        return Fit(f"{space.size} pixels are too few for {n_parameters} parameters")
    pitch = float(min(np.abs(np.diff(y)).min(), np.abs(np.diff(x)).min()))
    if not pitch > 0:
        return Fit("two pixels have the same place")
    rows, columns = np.meshgrid(y, x, indexing="ij")
    model = _model(rows, columns, shape)
    low, high = _bounds(y, x, pitch, shape)
    best = None
    for start in _starts(space, y, x, pitch, shape):
        inside = np.clip(start, low + 1e-6 * (high - low), high - 1e-6 * (high - low))
        found = least_squares(
            lambda p: (model(p) - space).ravel(),
            inside,
            bounds=(low, high),
            x_scale=high - low,
            ftol=PRECISION,
            xtol=PRECISION,
        )
        if best is None or found.cost < best.cost:
            best = found
    if best is None or not best.success:
        return Fit("the fit did not converge")
    p = best.x
    r2 = 1 - 2 * best.cost / float(((space - space.mean()) ** 2).sum())
    if not r2 >= least_r2:
        return Fit(f"the fit explains {100 * max(r2, 0):.0f} % of the map's variance")
    for place, name in ((0, "center_y"), (1, "center_x")):
        edge = 1e-3 * (high[place] - low[place])
        if not low[place] + edge < p[place] < high[place] - edge:
            return Fit(f"{name} is at the edge of the field")
    if min(p[2], p[3]) < np.log(NARROWEST_SD * pitch):
        return Fit("the fit is narrower than a pixel can show")
    if max(p[2] - high[2], p[3] - high[3]) > -AT_BOUND:
        return Fit("the fit is wider than the field")
    return Fit(values=dict(zip(parameters_of(shape), _named(p, r2, shape), strict=True)))


def _model(rows: np.ndarray, columns: np.ndarray, shape: str) -> Callable[[np.ndarray], np.ndarray]:
    def values(p: np.ndarray) -> np.ndarray:
        across, down = columns - p[1], rows - p[0]
        cos, sin = np.cos(p[4]), np.sin(p[4])
        along = (across * cos + down * sin) / np.exp(p[2])
        beside = (down * cos - across * sin) / np.exp(p[3])
        square = along**2 + beside**2
        centre = np.exp(-square / 2)
        if shape == "gaussian":
            return np.asarray(p[5] * centre)
        ratio, strength = p[6], p[7]
        return np.asarray(p[5] * (centre - strength / ratio**2 * np.exp(-square / 2 / ratio**2)))

    return values


def _bounds(
    y: np.ndarray, x: np.ndarray, pitch: float, shape: str
) -> tuple[np.ndarray, np.ndarray]:
    extent = max(np.ptp(y), np.ptp(x)) + pitch
    sds = np.log([SMALLEST_SD * pitch, extent])
    low = [y.min() - pitch / 2, x.min() - pitch / 2, sds[0], sds[0], -2 * np.pi, 1e-6]
    high = [y.max() + pitch / 2, x.max() + pitch / 2, sds[1], sds[1], 2 * np.pi, 10.0]
    if shape != "gaussian":
        low += [SURROUND_SD[0], SURROUND_STRENGTH[0]]
        high += [SURROUND_SD[1], SURROUND_STRENGTH[1]]
    return np.array(low), np.array(high)


def _starts(
    space: np.ndarray, y: np.ndarray, x: np.ndarray, pitch: float, shape: str
) -> list[np.ndarray]:
    """Two places to begin at: round about the strongest pixel, and as stretched as the map is."""
    row, column = np.unravel_index(int(space.argmax()), space.shape)
    strong = space > 0.5 * space.max()
    size = np.log(pitch * np.sqrt(max(1.0, float(strong.sum())) / (2 * np.pi * np.log(2))))
    across, down = np.meshgrid(x - x[column], y - y[row])
    spread = np.cov(np.stack([across[strong], down[strong]]), bias=True) if strong.sum() > 2 else 0
    variances, axes = np.linalg.eigh(spread + np.eye(2) * pitch**2 / 12)
    stretch = float(np.log(variances[1] / variances[0]) / 4)
    angle = float(np.arctan2(axes[1, 1], axes[0, 1]))
    starts = []
    for more, turn in ((0.0, 0.0), (stretch, angle)):
        start = [y[row], x[column], size + more, size - more, turn, space.max()]
        starts.append(np.array(start if shape == "gaussian" else [*start, 2.5, 0.5]))
    return starts


def _named(p: np.ndarray, r2: float, shape: str) -> list[float]:
    """Give sds in order, and the orientation of the larger one in degrees, 0 to 180."""
    major, minor, angle = np.exp(p[2]), np.exp(p[3]), p[4]
    if minor > major:
        major, minor, angle = minor, major, angle + np.pi / 2
    centre = [p[0], p[1], major, minor, float(np.degrees(angle) % 180), p[5], r2]
    return [float(value) for value in (centre if shape == "gaussian" else [*centre, p[6], p[7]])]
