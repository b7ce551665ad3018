"""What all stimuli described by parameters share: their labels, and the checks of parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import quantities as pq
import xarray as xr

from retina_codec._common.checks import magnitude, require_count, says_finite
from retina_codec._common.provenance import provenance
from retina_codec.stimuli.lazy import lazy_array
from retina_codec.stimuli.movie import make_movie, require_size

NUMBERS_AT_ONCE = 2**18  # float64 intermediates are kept to a few MB
WHOLE_FRAMES_TOLERANCE = 0.02  # of a frame


class Rendered(Protocol):
    """Frames that can be made from their numbers."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""

    def frames(self, start: int, stop: int) -> np.ndarray:
        """Frames (time, y, x) from `start` to `stop`, float32."""


def _read_rendered(rendered: Rendered, key: tuple[slice, ...]) -> np.ndarray:
    time, *pixels = key
    return rendered.frames(time.start, time.stop)[:, *pixels]


def labelled_movie(
    rendered: Rendered,
    n_frames: int,
    *,
    epoch: str | np.ndarray,
    direction: float | np.ndarray = np.nan,
    kind: str,
    parameters: dict[str, Any],
) -> xr.DataArray:
    """Label the lazy movie; its description is `kind` with `parameters`, which name them all."""
    movie = make_movie(
        lazy_array(partial(_read_rendered, rendered), (n_frames, *rendered.shape)),
        bin_width=parameters["bin_width"],
        epoch=epoch,
        direction=direction,
        attrs={
            "long_name": "stimulus",
            "description": json.dumps({"kind": kind, **parameters}),
            **provenance(generator=kind, **parameters),
        },
    )
    return says_finite(movie)


# Parameters


def plain_number(value: Any, units: str, argument: str) -> float:
    """Plain finite number of `value` in `units`."""
    plain = magnitude(value, units, argument)
    if isinstance(plain, bool) or not isinstance(plain, int | float | np.integer | np.floating):
        raise TypeError(
            f"{argument}={value!r}; expected one number"
            + ("" if units == "dimensionless" else f" ({units}, or a quantity)")
        )
    if not np.isfinite(plain):
        raise ValueError(f"{argument}={plain}; expected a finite number")
    return float(plain)


def positive_number(value: Any, units: str, argument: str) -> float:
    """Plain number of `value` in `units`; ValueError unless it is above 0."""
    number = plain_number(value, units, argument)
    if not number > 0:
        raise ValueError(f"{argument}={number:g}; expected a number above 0 ({units})")
    return number


def plain_numbers(values: Any, units: str, argument: str, *, n: int | None = None) -> list[float]:
    """Numbers of a sequence or a quantity; one number counts `n` times, if `n` is given."""
    single = np.isscalar(values) or getattr(values, "ndim", 1) == 0
    if single and n is not None:
        return [plain_number(values, units, argument)] * n
    if single or isinstance(values, Mapping) or not hasattr(values, "__len__"):
        raise TypeError(f"{argument}={values!r}; expected a sequence of numbers")
    if len(values) == 0:
        raise ValueError(f"{argument} is empty; expected at least one number")
    return [plain_number(value, units, f"{argument}[{i}]") for i, value in enumerate(values)]


def texts(values: Any, argument: str) -> list[str]:
    """Strings of a sequence."""
    listed = isinstance(values, Sequence | np.ndarray) and not isinstance(values, str)
    if not listed or not all(isinstance(value, str) for value in values):
        raise TypeError(f"{argument}={values!r}; expected a sequence of strings")
    return [str(value) for value in values]


def field_size(shape: Any, *, n_frames: int, bin_width: float) -> tuple[int, int]:
    """Height and width in pixels."""
    if not isinstance(shape, Sequence) or isinstance(shape, str):
        raise TypeError(f"shape={shape!r}; expected (height, width) in pixels")
    for n in shape:
        require_count(n, 1, "shape: height or width")
    field: Any = tuple(int(n) for n in shape)
    require_size(n_frames, field, bin_width)
    return field


def lengths(period: Any, pixel: Any) -> tuple[float, float]:
    """Spatial period and pixel size in one unit: micrometres or degrees, where they have units."""
    if isinstance(period, pq.Quantity) != isinstance(pixel, pq.Quantity):
        raise ValueError(
            f"spatial_period={period} and pixel_size={pixel}; expected both as plain numbers (in "
            "one unit), or both as quantities: give pixel_size with its units too"
        )
    units = "um"
    if isinstance(pixel, pq.Quantity) and pixel.simplified.dimensionality != pq.m.dimensionality:
        units = "degree"
    spatial_period = positive_number(period, units, "spatial_period")
    return spatial_period, positive_number(pixel, units, "pixel_size")


def whole_frames(seconds: float, bin_width: float, argument: str) -> int:
    """Frames that last `seconds`; ValueError unless they are whole to 2 % of a frame."""
    frames = seconds / bin_width
    whole = round(frames)
    if whole < 1 or abs(frames - whole) > WHOLE_FRAMES_TOLERANCE:
        nearest = max(1, whole)
        raise ValueError(
            f"{argument}={seconds:g} s is {frames:.6g} frames of {bin_width:g} s; expected a whole "
            f"number of frames, such as {nearest} ({nearest * bin_width:.6g} s): correct it, or "
            "bin_width"
        )
    return whole
