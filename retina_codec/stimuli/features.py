"""What a movie shows at each moment: features of light and of motion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from retina_codec._common.checks import require_dims, require_finite
from retina_codec._common.provenance import provenance
from retina_codec._common.time import bin_width_of, runs_of
from retina_codec.stimuli.motion_energy import MotionEnergy
from retina_codec.stimuli.optical_flow import FlowEstimator

FRAMES_AT_ONCE = 512
RADIUS = 4.0  # pixels: standard deviation of the Gaussian round `at`, unless told
ROUNDING = 1e-12  # share of the power of a frame
MEMORY = 0.25  # seconds over which temporal contrast is taken

LONG_NAMES = {
    "luminance": ("light", "1", "mean contrast"),
    "luminance_on": ("light", "1/s", "rise of the mean contrast"),
    "luminance_off": ("light", "1/s", "fall of the mean contrast"),
    "contrast": ("light", "1", "spatial standard deviation"),
    "temporal_contrast": ("light", "1", f"standard deviation of luminance over {MEMORY:g} s"),
    "velocity_x": ("motion", "pixel/s", "velocity along x, of the whole picture"),
    "velocity_y": ("motion", "pixel/s", "velocity along y (downwards), of the whole picture"),
    "motion_energy_x": ("motion", "1", "opponent over total motion energy along x"),
    "motion_energy_y": ("motion", "1", "opponent over total motion energy along y (downwards)"),
    "speed": ("motion", "pixel/s", "mean local speed"),
    "differential_motion": ("motion", "pixel/s", "spread of local velocities about the common one"),
}


Places = tuple[np.ndarray, np.ndarray]  # weight of every row (place, y), every column (place, x)


def stimulus_features(
    stimulus: xr.DataArray, *, at: Sequence[float] | xr.Dataset | None = None
) -> xr.Dataset:
    """Features of light and of motion at every frame.

    Changes are from the frame before to this one; in the first frame of a block, before which
    nothing is known, they are 0. Velocity is estimated locally between consecutive frames: the
    change of the (slightly smoothed) picture is fitted by a shift, a change of luminance and a
    change of contrast, so that flicker, contrast modulation and reversing gratings give no motion
    (generalised optical flow, Negahdaripour, IEEE PAMI 20, 1998). Local velocities count by the
    structure there is to see them by, and little or not at all where motion explains little of the
    change (white noise, saccades). Shifts above about a pixel a frame are underestimated, below
    0.01 pixels a frame they count as none, and periodic pictures are ambiguous from half a period
    on.

    Motion energy is the retina's and the cortex's way of telling direction: opponent energy of
    spatiotemporal filters over their total (Adelson & Bergen, J. Opt. Soc. Am. A 2:284, 1985),
    from -1 to 1. It sees faster shifts than the flow and saturates with them: a direction rather
    than a velocity. Its filters look some 50 ms into the past. Of any picture times a time course
    it is 0. Unsigned total energy is not among the features: it does not tell motion from flicker.

    Parameters
    ----------
    stimulus : DataArray
        Movie (time, [color,] y, x); colour planes are averaged.
    at : sequence of float or Dataset, optional
        ``(y, x)`` or ``(y, x, radius)``, in the units of the movie's own coordinates: weight
        all features by a Gaussian round this place (standard deviation `radius`, 4 pixels
        unless given). Several places, such as the receptive fields of cells: a Dataset with
        `y`, `x` and optionally `radius` along `cell` (its variables or coordinates). By default
        the whole field counts alike.

    Returns
    -------
    Dataset
        Over time, or (time, cell) for several places. Light: `luminance` (weighted mean, units of
        the stimulus), `luminance_on` and `luminance_off` (positive and negative part of its
        derivative, per second), `contrast` (spatial standard deviation), `temporal_contrast`
        (standard deviation of the luminance over the last 0.25 s, as far as the block goes back).
        Motion: `velocity_x`, `velocity_y` (of the picture as a whole, pixels per second, +y
        downwards), `motion_energy_x`, `motion_energy_y` (1), `speed` (mean local speed, pixels per
        second), `differential_motion` (root mean squared deviation of local velocities from the
        common one, pixels per second). A movie one pixel wide along a dim has no velocity and no
        energy along it; a movie of one pixel has no motion features. ``attrs["family"]`` of a
        variable is ``"light"`` or ``"motion"``.

    Raises
    ------
    TypeError
        If `stimulus` is not a DataArray.
    ValueError
        If its dims, time coordinate or values are not as described, or `at` is not a place with
        coordinates in the movie.

    Examples
    --------
    >>> from retina_codec import stimuli
    >>> blobs = stimuli.dead_leaves((40, 40), seed=1, radius=(3, 12)).values
    >>> frames = [blobs[:24, 20 - i : 20 - i + 20] for i in range(20)]  # 1 pixel a frame
    >>> frames = xr.zeros_like(stimuli.white_noise(n_frames=20, shape=(24, 20))) + frames
    >>> features = stimuli.stimulus_features(frames)
    >>> 85 < float(features["velocity_x"].median()) < 115  # pixels a second, at 100 Hz
    True
    >>> cells = xr.Dataset({"y": ("cell", [5, 12]), "x": ("cell", [5, 12])}, {"cell": ["a", "b"]})
    >>> stimuli.stimulus_features(frames, at=cells)["speed"].dims
    ('time', 'cell')
    """
    movie = require_dims(stimulus, ("time", "color", "y", "x"), "stimulus", optional=("color",))
    bin_width = bin_width_of(movie, "stimulus")
    if movie.size == 0:
        raise ValueError(f"stimulus is empty: {dict(movie.sizes)}; expected frames with pixels")
    weights = _place_weights(movie, at)
    shape = (movie.sizes["y"], movie.sizes["x"])
    moving = [axis for axis, n in zip("yx", shape, strict=True) if n > 1]
    names = ["luminance", "luminance_on", "luminance_off", "contrast", "temporal_contrast"]
    values = _light(movie, weights, bin_width)
    if moving:
        names += [f"{name}_{axis}" for name in ("velocity", "motion_energy") for axis in moving]
        names += ["speed", "differential_motion"]
        contrast = float(np.sqrt(np.mean(values["pixel_contrast"] ** 2)))
        values |= _velocities(movie, FlowEstimator(shape, weights, contrast), bin_width)
        values |= _energies(movie, MotionEnergy(weights, contrast, bin_width))
    coords = {name: coord for name, coord in movie.coords.items() if coord.dims in (("time",), ())}
    dims: tuple[str, ...] = ("time",)
    given: Any = at if at is None else list(at)
    if isinstance(at, xr.Dataset):
        dims, given = ("time", "cell"), f"{len(weights[0])} places"
        coords |= {name: coord for name, coord in at.coords.items() if coord.dims == ("cell",)}
        coords |= {f"{axis}_at": ("cell", at[axis].values) for axis in "yx"}
    return xr.Dataset(
        {
            name: (dims, values[name] if len(dims) == 2 else values[name][:, 0], _attrs(name))
            for name in names
        },
        coords=coords,
        attrs=provenance(features="stimulus_features", at=given),
    )


def _light(movie: xr.DataArray, weights: Places, bin_width: float) -> dict[str, np.ndarray]:
    """Light features, and the contrast of all pixels alike, by which motion judges structure."""
    n_frames = movie.sizes["time"]
    shape = (n_frames, len(weights[0]))
    luminance, contrast, change, temporal = (np.zeros(shape) for _ in range(4))
    pixel_contrast = np.zeros(n_frames)
    n_memory = max(2, round(MEMORY / bin_width))
    for run in runs_of(movie):
        for start in range(run.start, run.stop, FRAMES_AT_ONCE):
            shown = slice(start, min(start + FRAMES_AT_ONCE, run.stop))
            frames = _grey(movie[shown])
            luminance[shown], contrast[shown] = _weighted(frames, weights)
            pixel_contrast[shown] = frames.std(axis=(1, 2))
        change[run] = np.diff(luminance[run], axis=0, prepend=luminance[[run.start]]) / bin_width
        temporal[run] = _running_deviation(luminance[run], n_memory)
    return {
        "luminance": luminance,
        "luminance_on": np.maximum(change, 0),
        "luminance_off": np.maximum(-change, 0),
        "contrast": contrast,
        "temporal_contrast": temporal,
        "pixel_contrast": pixel_contrast,
    }


def _running_deviation(values: np.ndarray, n: int) -> np.ndarray:
    """Return the standard deviation (time, place) of each value and those before it, `n` in all."""
    before = np.full((n - 1, values.shape[1]), np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(np.concatenate([before, values]), n, axis=0)
    return np.nanstd(windows, axis=-1)


def _velocities(
    movie: xr.DataArray, flow: FlowEstimator, bin_width: float
) -> dict[str, np.ndarray]:
    """Motion features in pixels per second."""
    names = ("velocity_y", "velocity_x", "speed", "differential_motion")
    values = {name: np.zeros((movie.sizes["time"], flow.n_places)) for name in names}
    for run in runs_of(movie):
        # Chunks overlap by a frame, so that every change inside the block is seen once.
        for start in range(run.start, run.stop - 1, FRAMES_AT_ONCE):
            stop = min(start + FRAMES_AT_ONCE + 1, run.stop)
            found = flow(_grey(movie[start:stop]))
            for name in names:
                values[name][start + 1 : stop] = getattr(found, name) / bin_width
    return values


def _energies(movie: xr.DataArray, energy: MotionEnergy) -> dict[str, np.ndarray]:
    """Opponent energy; before the first frame of a block, that frame is taken to have stood."""
    values = {axis: np.zeros((movie.sizes["time"], energy.n_places)) for axis in energy.moving}
    for run in runs_of(movie):
        for start in range(run.start, run.stop, FRAMES_AT_ONCE):
            stop = min(start + FRAMES_AT_ONCE, run.stop)
            first = max(run.start, start - energy.n_before)
            frames = _grey(movie[first:stop])
            missing = energy.n_before - (start - first)
            before = np.broadcast_to(frames[:1], (missing, *frames.shape[1:]))
            for axis, found in energy(np.concatenate([before, frames])).items():
                values[axis][start:stop] = found
    return {f"motion_energy_{axis}": found for axis, found in values.items()}


def _attrs(name: str) -> dict[str, str]:
    family, units, long_name = LONG_NAMES[name]
    return {"units": units, "long_name": long_name, "family": family}


def _grey(movie: xr.DataArray) -> np.ndarray:
    require_finite(movie, "stimulus")
    values = movie.values.astype(np.float64)
    return values.mean(axis=1) if "color" in movie.dims else values


def _weighted(frames: np.ndarray, weights: Places) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean and standard deviation (frame, place) over the pixels of every frame."""
    rows, columns = weights

    def total(values: np.ndarray) -> np.ndarray:
        return np.einsum("py,typ->tp", rows, values @ columns.T)

    # About the frame's plain mean, so that the difference of squares loses no digits.
    middle = frames.mean(axis=(1, 2))
    frames = frames - middle[:, None, None]
    mean = total(frames)
    power = total(np.square(frames))
    variance = power - np.square(mean)
    # What rounding leaves of a uniform picture is no contrast, and of a balanced one no luminance:
    # a correlation would not see how small it is.
    uniform = variance <= ROUNDING * np.maximum(power, np.square(middle)[:, None])
    luminance = mean + middle[:, None]
    grey = np.square(luminance) <= ROUNDING * np.maximum(power, np.square(middle)[:, None])
    return np.where(grey, 0, luminance), np.sqrt(np.where(uniform, 0, variance))


def _place_weights(movie: xr.DataArray, at: Sequence[float] | xr.Dataset | None) -> Places:
    """Weight of every row (place, y) and column (place, x), each with the sum 1."""
    if at is None:
        n_y, n_x = movie.sizes["y"], movie.sizes["x"]
        return np.full((1, n_y), 1 / n_y), np.full((1, n_x), 1 / n_x)
    if isinstance(at, xr.Dataset):
        places, radii = _places(at)
    else:
        if len(at) not in (2, 3) or (len(at) == 3 and not at[2] > 0):
            raise ValueError(
                f"at={at!r}; expected (y, x) or (y, x, radius) with a radius above 0, or a Dataset "
                "with y(cell) and x(cell)"
            )
        places = {axis: np.array([place]) for axis, place in zip("yx", at, strict=False)}
        radii = np.array([at[2]]) if len(at) == 3 else None
    weights = []
    for axis, centre in places.items():
        if axis not in movie.coords:
            raise ValueError(
                f"stimulus has no coordinate {axis!r}, which at={at!r} needs: add pixel indices "
                f"with .assign_coords({axis}=range({movie.sizes[axis]}))"
            )
        positions = movie[axis].values.astype(np.float64)
        outside = ~((positions.min() <= centre) & (centre <= positions.max()))
        if outside.any():
            raise ValueError(
                f"at={at!r}: {axis}={centre[outside][0]:g} is outside the field, which goes from "
                f"{positions.min():g} to {positions.max():g}"
            )
        pitch = abs(positions[1] - positions[0]) if positions.size > 1 else 1.0
        radius = np.full(len(centre), RADIUS * pitch) if radii is None else radii
        weight = np.exp(-0.5 * ((positions - centre[:, None]) / radius[:, None]) ** 2)
        weights.append(weight / weight.sum(axis=1, keepdims=True))
    return weights[0], weights[1]


def _places(at: xr.Dataset) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Centres by axis, and radii if there are any, each (cell,)."""
    for axis in "yx":
        if axis not in at.variables or at[axis].dims != ("cell",) or at[axis].size == 0:
            raise ValueError(
                f"at has no {axis}(cell) ({dict(at.sizes)}); expected a Dataset with y and x "
                "along 'cell', in the units of the movie's coordinates"
            )
    places = {axis: at[axis].values.astype(np.float64) for axis in "yx"}
    if "radius" not in at.variables:
        return places, None
    radii = at["radius"].values.astype(np.float64)
    if radii.shape != places["y"].shape or not (radii > 0).all():
        raise ValueError("at has a radius that is not along 'cell', or not above 0")
    return places, radii
