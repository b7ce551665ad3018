"""What a movie shows at each moment: features of light and of motion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from retina_codec._common.checks import require_dims, require_finite
from retina_codec._common.provenance import provenance
from retina_codec._common.time import bin_width_of, runs_of
from retina_codec.stimuli.optical_flow import FlowEstimator

FRAMES_AT_ONCE = 512
RADIUS = 4.0  # pixels: standard deviation of the Gaussian round `at`, unless told

LONG_NAMES = {
    "luminance": ("light", "1", "mean contrast"),
    "luminance_on": ("light", "1/s", "rise of the mean contrast"),
    "luminance_off": ("light", "1/s", "fall of the mean contrast"),
    "contrast": ("light", "1", "spatial standard deviation"),
    "velocity_x": ("motion", "pixel/s", "velocity along x, of the whole picture"),
    "velocity_y": ("motion", "pixel/s", "velocity along y (downwards), of the whole picture"),
    "speed": ("motion", "pixel/s", "mean local speed"),
    "differential_motion": ("motion", "pixel/s", "spread of local velocities about the common one"),
}


def stimulus_features(stimulus: xr.DataArray, *, at: Sequence[float] | None = None) -> xr.Dataset:
    """Features of light and of motion at every frame.

    Changes are from the frame before to this one; in the first frame of a block, before which
    nothing is known, they are 0. Motion is estimated locally between consecutive frames: the
    change of the (slightly smoothed) picture is fitted by a shift, a change of luminance and a
    change of contrast, so that flicker, contrast modulation and reversing gratings give no motion
    (generalised optical flow, Negahdaripour, IEEE PAMI 20, 1998). Local velocities count by the
    structure there is to see them by, and little or not at all where motion explains little of the
    change (white noise, saccades). Shifts above about a pixel a frame are underestimated, and
    periodic pictures are ambiguous from half a period on.

    Parameters
    ----------
    stimulus : DataArray
        Movie (time, [color,] y, x); colour planes are averaged.
    at : sequence of float, optional
        ``(y, x)`` or ``(y, x, radius)``, in the units of the movie's own coordinates: weight
        all features by a Gaussian round this place (standard deviation `radius`, 4 pixels
        unless given). By default the whole field counts alike.

    Returns
    -------
    Dataset
        Over time. Light: `luminance` (weighted mean, units of the stimulus), `luminance_on` and
        `luminance_off` (positive and negative part of its derivative, per second), `contrast`
        (spatial standard deviation). Motion, in pixels per second: `velocity_x`, `velocity_y`
        (of the picture as a whole, +y downwards), `speed` (mean local speed),
        `differential_motion` (root mean squared deviation of local velocities from the common
        one). A movie one pixel wide along a dim has no velocity along it; a movie of one pixel
        has no motion features. ``attrs["family"]`` of a variable is ``"light"`` or ``"motion"``.

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
    """
    movie = require_dims(stimulus, ("time", "color", "y", "x"), "stimulus", optional=("color",))
    bin_width = bin_width_of(movie, "stimulus")
    if movie.size == 0:
        raise ValueError(f"stimulus is empty: {dict(movie.sizes)}; expected frames with pixels")
    weights = _place_weights(movie, at)
    shape = (movie.sizes["y"], movie.sizes["x"])
    moving = [axis for axis, n in zip("yx", shape, strict=True) if n > 1]
    names = ["luminance", "luminance_on", "luminance_off", "contrast"]
    if moving:
        names += [f"velocity_{axis}" for axis in moving] + ["speed", "differential_motion"]
    values = _light(movie, weights, bin_width)
    if moving:
        contrast = float(np.sqrt(np.mean(values["pixel_contrast"] ** 2)))
        values |= _motion(movie, FlowEstimator(shape, weights, contrast), bin_width)
    coords = {name: coord for name, coord in movie.coords.items() if coord.dims in (("time",), ())}
    return xr.Dataset(
        {name: ("time", values[name], _attrs(name)) for name in names},
        coords=coords,
        attrs=provenance(features="stimulus_features", at=None if at is None else list(at)),
    )


def _light(
    movie: xr.DataArray, weights: tuple[np.ndarray, np.ndarray], bin_width: float
) -> dict[str, np.ndarray]:
    """Light features, and the contrast of all pixels alike, by which motion judges structure."""
    n_frames = movie.sizes["time"]
    luminance, contrast, pixel_contrast, change = (np.zeros(n_frames) for _ in range(4))
    for run in runs_of(movie):
        for start in range(run.start, run.stop, FRAMES_AT_ONCE):
            shown = slice(start, min(start + FRAMES_AT_ONCE, run.stop))
            frames = _grey(movie[shown])
            luminance[shown], contrast[shown] = _weighted(frames, weights)
            pixel_contrast[shown] = frames.std(axis=(1, 2))
        change[run] = np.diff(luminance[run], prepend=luminance[run.start]) / bin_width
    return {
        "luminance": luminance,
        "luminance_on": np.maximum(change, 0),
        "luminance_off": np.maximum(-change, 0),
        "contrast": contrast,
        "pixel_contrast": pixel_contrast,
    }


def _motion(movie: xr.DataArray, flow: FlowEstimator, bin_width: float) -> dict[str, np.ndarray]:
    """Motion features in pixels per second."""
    names = ("velocity_y", "velocity_x", "speed", "differential_motion")
    values = {name: np.zeros(movie.sizes["time"]) for name in names}
    for run in runs_of(movie):
        # Chunks overlap by a frame, so that every change inside the block is seen once.
        for start in range(run.start, run.stop - 1, FRAMES_AT_ONCE):
            stop = min(start + FRAMES_AT_ONCE + 1, run.stop)
            found = flow(_grey(movie[start:stop]))
            for name in names:
                values[name][start + 1 : stop] = getattr(found, name) / bin_width
    return values


def _attrs(name: str) -> dict[str, str]:
    family, units, long_name = LONG_NAMES[name]
    return {"units": units, "long_name": long_name, "family": family}


def _grey(movie: xr.DataArray) -> np.ndarray:
    require_finite(movie, "stimulus")
    values = movie.values.astype(np.float64)
    return values.mean(axis=1) if "color" in movie.dims else values


def _weighted(
    frames: np.ndarray, weights: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean and standard deviation over the pixels of every frame."""
    rows, columns = weights
    mean = rows @ frames @ columns
    variance = rows @ (frames - mean[:, None, None]) ** 2 @ columns
    return mean, np.sqrt(variance)


def _place_weights(
    movie: xr.DataArray, at: Sequence[float] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Weight of every row and every column, each with the sum 1."""
    if at is None:
        return np.full(movie.sizes["y"], 1 / movie.sizes["y"]), np.full(
            movie.sizes["x"], 1 / movie.sizes["x"]
        )
    if len(at) not in (2, 3) or (len(at) == 3 and not at[2] > 0):
        raise ValueError(f"at={at!r}; expected (y, x) or (y, x, radius) with a radius above 0")
    weights = []
    for axis, place in zip(("y", "x"), at, strict=False):
        if axis not in movie.coords:
            raise ValueError(
                f"stimulus has no coordinate {axis!r}, which at={at!r} needs: add pixel indices "
                f"with .assign_coords({axis}=range({movie.sizes[axis]}))"
            )
        positions = movie[axis].values.astype(np.float64)
        if not positions.min() <= place <= positions.max():
            raise ValueError(
                f"at={at!r}: {axis}={place} is outside the field, which goes from "
                f"{positions.min():g} to {positions.max():g}"
            )
        pitch = abs(positions[1] - positions[0]) if positions.size > 1 else 1.0
        radius = at[2] if len(at) == 3 else RADIUS * pitch
        weight = np.exp(-0.5 * ((positions - place) / radius) ** 2)
        weights.append(weight / weight.sum())
    return weights[0], weights[1]
