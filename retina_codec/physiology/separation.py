"""A receptive field as a map in space times a course in time, and numbers that describe both."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from retina_codec._common.checks import require_array, require_choice
from retina_codec._common.provenance import provenance
from retina_codec.interneurons.fields import first_pair
from retina_codec.physiology.fits import SHAPES, fit_map, parameters_of

FIELD_DIMS = ("lag", "color", "y", "x")
LEAST_R2 = 0.3
FIRST_LOBE = 0.5  # of the largest: of two lobes nearly as high, the one nearer to the response
DESCRIBED = {
    "center_y": "centre of the fit, y",
    "center_x": "centre of the fit, x",
    "sd_major": "sd of the fit along its longer axis",
    "sd_minor": "sd of the fit along its shorter axis",
    "orientation": "direction of the longer axis, 0 = +x, 90 = +y",
    "amplitude": "height of the fitted centre, the strongest pixel being 1",
    "fit_r2": "share of the map's variance that the fit explains",
    "surround_sd_ratio": "sd of the surround over that of the centre",
    "surround_strength": "volume of the surround over that of the centre",
}


def separate(
    rf: xr.DataArray, *, fit: str | None = "gaussian", mean: float = 0.0, least_r2: float = LEAST_R2
) -> xr.Dataset:
    """Separate receptive fields into space and time, and describe both.

    A field (lag, pixel) is approximated by a course in time times a map in space, its first
    singular pair. **Sign**: the strongest pixel of the map is 1, so that the course has the
    field's units and carries the polarity: it is positive where light raises the rate (ON). Where
    a surround is the strongest, polarity is the surround's.

    Parameters
    ----------
    rf : xarray.DataArray
        (..., lag, [color,] y, x): fields of `retina_codec.instantaneous_receptive_field`, averages
        of `retina_codec.spike_triggered_average`, filters; every other dim is kept. `lag` in
        seconds.
    fit : {"gaussian", "difference_of_gaussians"}, optional
        Shape that is fitted to the map by least squares (of a coloured field, to the map of its
        first colour pair); None for no fit. The surround has the centre's place, axes and
        orientation.
    mean : float
        Subtracted first: of a spike-triggered average, the mean of its stimulus.
    least_r2 : float
        A fit that explains a smaller share of the map's variance is not given.

    Returns
    -------
    xarray.Dataset
        Over the other dims of `rf`: ``spatial`` ([color,] y, x); ``temporal`` (lag), in the
        field's units; ``separability``, the share of the field's squared norm that the pair has
        (1: separable); ``polarity``, 1 (ON) or -1 (OFF), the sign of the course at its peak: the
        extreme of the lobe nearest to the response among those at least half as high as the
        highest; ``time_to_peak``, the lag of the peak, seconds; ``peak``, the value there;
        ``zero_crossing``, the first lag after the peak at which the course changes sign, linearly
        interpolated; ``biphasic_index``, the largest value of opposite sign after the peak over
        the peak (0: monophasic). With a `fit`: ``center_y``, ``center_x``, ``sd_major``,
        ``sd_minor`` in the coordinates' units, ``orientation`` in degrees from +x to +y, 0 to
        180, ``amplitude``, ``fit_r2``; for differences also ``surround_sd_ratio`` and
        ``surround_strength``, the surround's volume over the centre's. ``reason``: why there is no
        fit, and then its numbers are NaN; empty where there is one.

    Raises
    ------
    TypeError
        If `rf` is no DataArray.
    ValueError
        If dims or the coordinate `lag` are missing, or `fit` is unknown.

    References
    ----------
    Singular value separation: DeAngelis, Ohzawa and Freeman, J. Neurophysiol. 69, 1091 (1993);
    Depireux et al., J. Neurophysiol. 85, 1220 (2001), whose index is 1 - ``separability``.
    Gaussians: Rodieck, Vision Res. 5, 583 (1965); Chichilnisky and Kalmar, J. Neurosci. 22, 2737
    (2002), whose surround, too, shares the centre's shape.

    Examples
    --------
    >>> import numpy as np, retina_codec as rc, xarray as xr
    >>> y, x = np.mgrid[:9, :9]
    >>> space = -np.exp(-((y - 4) ** 2 + (x - 5) ** 2) / 2 / 1.5**2)
    >>> course = np.array([0.0, 2.0, 1.0, -0.5])
    >>> rf = xr.DataArray(
    ...     course[:, None, None] * space, {"lag": np.arange(4) * 0.01}, ("lag", "y", "x")
    ... )
    >>> found = rc.separate(rf)
    >>> [round(float(found[name]), 2) for name in ("polarity", "time_to_peak", "biphasic_index")]
    [-1.0, 0.01, 0.25]
    >>> [round(float(found[name]), 2) for name in ("center_y", "center_x", "sd_major")]
    [4.0, 5.0, 1.5]
    """
    field = require_array(rf, "rf")
    missing = [dim for dim in ("lag", "y", "x") if dim not in field.dims]
    if missing or "lag" not in field.coords:
        what = f"no dim {missing[0]!r}" if missing else "no coordinate 'lag' in seconds"
        raise ValueError(
            f"rf has {what} (dims {tuple(field.dims)}); expected (..., lag, [color,] y, x): a "
            "field without a place has .expand_dims(y=1, x=1)"
        )
    if fit is not None:
        require_choice(fit, SHAPES, "fit")
    others = [str(dim) for dim in field.dims if dim not in FIELD_DIMS]
    places = [dim for dim in FIELD_DIMS[1:] if dim in field.dims]
    values = field.transpose(*others, "lag", *places)
    shape = tuple(values.sizes[dim] for dim in others)
    n = int(np.prod(shape, dtype=int))
    lags = values["lag"].values.astype(float)
    grid = {axis: _coordinate(values, axis) for axis in ("y", "x")}
    columns: dict[str, list[Any]] = {}
    flat = values.data.reshape(n, *values.shape[len(others) :])
    for i in range(n):
        one = np.asarray(flat[i], dtype=np.float64) - mean
        space, course, share = first_pair(one)
        row = {"spatial": space, "temporal": course, "separability": share}
        row.update(_course(course, lags))
        if fit is not None:
            found = fit_map(_plane(space), grid["y"], grid["x"], shape=fit, least_r2=least_r2)
            row.update({name: found.values.get(name, np.nan) for name in parameters_of(fit)})
            row["reason"] = found.reason
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    inner = {"spatial": tuple(places), "temporal": ("lag",)}
    attrs = _attrs(field, str(field.attrs.get("units", "1")))
    made = {
        name: (
            (*others, *inner.get(name, ())),
            np.asarray(column).reshape((*shape, *np.shape(column[0]))),
            attrs[name],
        )
        for name, column in columns.items()
    }
    kept = {
        name: coord.variable
        for name, coord in values.coords.items()
        if set(coord.dims) <= {*others, "lag", *places}
    }
    said = {"model_fingerprint": field.attrs.get("model_fingerprint", "")}
    return xr.Dataset(
        made,
        kept,
        {
            **{name: text for name, text in said.items() if text},
            **provenance(function="separate", fit=fit, mean=mean, least_r2=least_r2),
        },
    )


def _coordinate(field: xr.DataArray, axis: str) -> np.ndarray:
    """Give the places of pixels, as numbers; their indices where the field does not say."""
    return np.asarray(field[axis].values, dtype=np.float64)


def _plane(space: np.ndarray) -> np.ndarray:
    """Map (y, x) of a map ([color,] y, x): of several colours, that of their first pair."""
    if space.ndim == 2:
        return space
    plane: np.ndarray = first_pair(space)[0]
    return plane


def _course(course: np.ndarray, lags: np.ndarray) -> dict[str, float]:
    """Describe a course in time (lag,)."""
    if not np.isfinite(course).all() or not course.any():
        names = ("polarity", "time_to_peak", "peak", "zero_crossing", "biphasic_index")
        return dict.fromkeys(names, np.nan)
    # Lobes: stretches of one sign, from lag 0 on.
    edges = np.flatnonzero(np.diff(np.sign(course)) != 0) + 1
    starts = np.r_[0, edges]
    heights = np.maximum.reduceat(np.abs(course), starts)
    first = int(starts[np.flatnonzero(heights >= FIRST_LOBE * heights.max())[0]])
    stop = int(edges[edges > first][0]) if (edges > first).any() else len(course)
    place = first + int(np.abs(course[first:stop]).argmax())
    peak = float(course[place])
    sign = np.sign(peak)
    after = sign * course[place:]
    below = np.flatnonzero(after <= 0)
    crossing = np.nan
    if below.size:
        k = int(below[0])
        share = after[k - 1] / (after[k - 1] - after[k])
        crossing = float(lags[place + k - 1] + share * (lags[place + k] - lags[place + k - 1]))
    return {
        "polarity": float(sign),
        "time_to_peak": float(lags[place]),
        "peak": peak,
        "zero_crossing": crossing,
        "biphasic_index": float(max(0.0, -after.min()) / abs(peak)),
    }


def _attrs(field: xr.DataArray, units: str) -> dict[str, dict[str, str]]:
    seconds = str(field["lag"].attrs.get("units", "s"))
    pixel = str(field["y"].attrs.get("units", "pixel")) if "y" in field.coords else "pixel"
    own = {
        "spatial": ("1", "map in space"),
        "temporal": (units, "course in time"),
        "separability": ("1", "share of the squared norm in one map times one course"),
        "polarity": ("1", "1: light raises the rate; -1: it lowers it"),
        "time_to_peak": (seconds, "lag of the peak"),
        "peak": (units, "course at its peak"),
        "zero_crossing": (seconds, "lag at which the course changes sign after its peak"),
        "biphasic_index": ("1", "opposite lobe after the peak, over the peak"),
        "reason": ("1", "why there is no fit"),
    }
    in_pixels = ("center_y", "center_x", "sd_major", "sd_minor")
    for name, text in DESCRIBED.items():
        own[name] = (
            pixel if name in in_pixels else "degree" if name == "orientation" else "1",
            text,
        )
    return {name: {"units": u, "long_name": text} for name, (u, text) in own.items()}
