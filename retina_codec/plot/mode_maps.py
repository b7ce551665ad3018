"""Modes as heat maps: their units, the features they follow, the cells they drive."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from retina_codec._common.checks import require_array
from retina_codec.plot.columns import head_columns, side_by_side
from retina_codec.plot.style import (
    GREY,
    LABEL_COLORS,
    axes_for,
    heat_map,
    heat_size,
    label_of,
    mark_columns,
    mark_rows,
    settle_ticks,
    styled,
)

SIGNIFICANT = 0.05
MOST_LIFT = 3.0  # binary logarithm


@styled
def dictionary(dictionary: xr.DataArray, *, ax: Axes | None = None) -> Axes:
    """Draw which hidden units each mode is a team of.

    Parameters
    ----------
    dictionary : DataArray
        ``modes.dictionary``: (mode, sign, channel), or any other dims beside `mode`.
    ax : matplotlib Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    matplotlib Axes
        With a heat map (mode, unit), colours symmetric about 0.

    Raises
    ------
    TypeError
        If `dictionary` or `ax` is of another type.
    ValueError
        If `dictionary` has no dim `mode`, or no other.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from retina_codec import plot
    >>> shown = xr.DataArray(np.eye(4).reshape(4, 2, 2), dims=("mode", "sign", "channel"))
    >>> plot.dictionary(shown.assign_coords(sign=["positive", "negative"])).get_ylabel()
    'mode'
    """
    dictionary = _with_modes(dictionary, "dictionary")
    values, units = side_by_side(dictionary, "mode")
    ax = axes_for(ax, heat_size(len(values), len(units)))
    heat_map(ax, values, label_of(dictionary, "weight in the mode"), symmetric=True)
    mark_rows(ax, mode_names(dictionary), fewer=True)
    mark_columns(ax, units.names, fewer=True)
    head_columns(ax, units.groups)
    ax.set(xlabel="channel", ylabel="mode")
    return ax


@styled
def mode_cells(loadings: xr.DataArray, *, ax: Axes | None = None) -> Axes:
    """Draw which modes drive which cells: the mean loading of each mode in each cell.

    Parameters
    ----------
    loadings : DataArray
        ``modes.loadings`` of contributions to single cells: (time, cell, mode), or (cell, mode).
    ax : matplotlib Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    matplotlib Axes
        With a heat map (mode, cell).

    Raises
    ------
    TypeError
        If `loadings` or `ax` is of another type.
    ValueError
        If `loadings` has no dim `mode` or no dim `cell`.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from retina_codec import plot
    >>> loadings = xr.DataArray(np.ones((9, 3, 2)), dims=("time", "cell", "mode"))
    >>> plot.mode_cells(loadings).get_xlabel()
    'cell'
    """
    loadings = _with_modes(loadings, "loadings")
    if "cell" not in loadings.dims:
        raise ValueError(
            f"loadings has dims {tuple(loadings.dims)} and no 'cell': fit the modes to "
            "contributions to each cell, with the target Output()"
        )
    others = [dim for dim in loadings.dims if dim not in ("mode", "cell")]
    mean = loadings.mean(others).transpose("mode", "cell")
    ax = axes_for(ax, heat_size(*mean.shape))
    heat_map(ax, mean.values.astype(float), "mean loading")
    mark_rows(ax, mode_names(mean), fewer=True)
    mark_columns(ax, mean["cell"].values if "cell" in mean.coords else range(mean.sizes["cell"]))
    ax.set(xlabel="cell", ylabel="mode")
    return ax


@styled
def mode_features(description: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw which features of light and motion each mode follows, and what it is called for it.

    Parameters
    ----------
    description : Dataset
        As from `retina_codec.describe_modes`: partial_r and q_value (mode, feature), label and
        subtype (mode), the coordinate family (feature).
    ax : matplotlib Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    matplotlib Axes
        With a heat map (mode, feature), families side by side, a dot where q < 0.05, and label
        and subtype of each mode at the right.

    Raises
    ------
    TypeError
        If `description` or `ax` is of another type.
    ValueError
        If a variable is missing.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from retina_codec import plot
    >>> description = xr.Dataset(
    ...     {
    ...         "partial_r": (("mode", "feature"), [[0.6, 0.0], [0.1, -0.4]]),
    ...         "q_value": (("mode", "feature"), [[0.01, 0.9], [0.3, 0.02]]),
    ...         "label": ("mode", ["light", "motion"]),
    ...         "subtype": ("mode", ["ON", "suppressed by speed"]),
    ...     },
    ...     {"feature": ["luminance_on", "speed"], "family": ("feature", ["light", "motion"])},
    ... )
    >>> plot.mode_features(description).get_ylabel()
    'mode'
    """
    description = _checked(description)
    # Families side by side, each in its own order.
    order = np.argsort([str(name) for name in description["family"].values], kind="stable")
    description = description.isel(feature=order)
    r = description["partial_r"].transpose("mode", "feature")
    q = description["q_value"].transpose("mode", "feature").values
    n_modes, n_features = r.shape
    width, height = heat_size(n_modes, n_features)
    ax = axes_for(ax, (max(width, 7.5), height + 1.5))
    heat_map(ax, r.values.astype(float), "partial correlation", symmetric=True, side="top")
    rows, columns = np.nonzero(q < SIGNIFICANT)
    strongest = float(np.nanmax(np.abs(r.values), initial=0)) or 1.0
    dark = np.abs(r.values[rows, columns]) > 0.6 * strongest
    ax.scatter(columns, rows, s=9, color=np.where(dark, "white", "black"), linewidths=0)
    mark_rows(ax, mode_names(r))
    mark_columns(ax, [str(name).replace("_", " ") for name in r["feature"].values])
    families = [str(name) for name in r["family"].values]
    edges = [i for i in range(1, n_features) if families[i] != families[i - 1]]
    starts = [0, *edges, n_features]
    head_columns(ax, [(families[a], a, b) for a, b in itertools.pairwise(starts)])
    _name_rows(ax, description)
    ax.set(ylabel="mode", xlabel=f"feature (dot: q < {SIGNIFICANT:g})")
    return ax


@styled
def coactivation(found: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw which modes are on together more, or less, often than by chance.

    Parameters
    ----------
    found : Dataset
        As from `retina_codec.modes.coactivation`: lift and q_value (mode, other).
    ax : matplotlib Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    matplotlib Axes
        With a heat map (mode, other) of the binary logarithm of the lift (cut at 3: eight times as
        often; pale where undefined, and on the diagonal), and a dot where q < 0.05.

    Raises
    ------
    TypeError
        If `found` or `ax` is of another type.
    ValueError
        If a variable is missing.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from retina_codec import plot
    >>> dims = ("mode", "other")
    >>> found = xr.Dataset({"lift": (dims, [[5, 2], [2, 5.0]]), "q_value": (dims, np.eye(2))})
    >>> plot.coactivation(found).get_xlabel()
    'other mode (dot: q < 0.05)'
    """
    if not isinstance(found, xr.Dataset):
        raise TypeError(
            f"found is a {type(found).__name__}; expected the Dataset of "
            "retina_codec.modes.coactivation"
        )
    missing = [name for name in ("lift", "q_value") if name not in found]
    if missing:
        raise ValueError(
            f"found has no {', '.join(missing)}; expected the Dataset of "
            "retina_codec.modes.coactivation"
        )
    lift = found["lift"].transpose("mode", "other").values.astype(float)
    q = found["q_value"].transpose("mode", "other").values
    # Never together: as far below chance as the colours go.
    shown = np.log2(np.clip(lift, 2.0**-MOST_LIFT, 2.0**MOST_LIFT))
    np.fill_diagonal(shown, np.nan)
    ax = axes_for(ax, heat_size(*shown.shape))
    heat_map(ax, shown, "log2 (together / by chance)", symmetric=True)
    rows, columns = np.nonzero(q < SIGNIFICANT)
    ax.scatter(columns, rows, s=9, color="black", linewidths=0)
    names = found["mode"].values if "mode" in found.coords else range(len(shown))
    mark_rows(ax, names, fewer=True)
    mark_columns(ax, names, fewer=True)
    ax.set(ylabel="mode", xlabel=f"other mode (dot: q < {SIGNIFICANT:g})")
    return ax


def mode_names(data: Any) -> list[str]:
    """Labels of the modes."""
    return [str(mode) for mode in data["mode"].values]


def labels_of(description: xr.Dataset, modes: np.ndarray) -> xr.Dataset:
    """Label and subtype of `modes`, in that order; ValueError if one is not described."""
    description = _checked(description)
    missing = [m for m in modes if m not in description["mode"].values]
    if missing:
        raise ValueError(
            f"description lacks the modes {missing}: describe the modes that the loadings are of"
        )
    return description[["label", "subtype"]].sel(mode=modes)


def color_of(label: object) -> str:
    """Colour of what a mode carries."""
    return LABEL_COLORS.get(str(label), GREY)


def _name_rows(ax: Axes, description: xr.Dataset) -> None:
    """Write label and subtype of each mode at the right of its row, in the label's colour."""
    labels = [str(value) for value in description["label"].values]
    subtypes = [str(value) for value in description["subtype"].values]
    names = [a if b in ("", "none") else f"{a}: {b}" for a, b in zip(labels, subtypes, strict=True)]
    right = ax.secondary_yaxis("right")
    right.yaxis.set_ticks(range(len(names)), names)
    right.tick_params(length=0)
    settle_ticks(right, 8 if len(names) > 12 else None)
    for text, label in zip(right.get_yticklabels(), labels, strict=True):
        text.set_color(color_of(label))
    for spine in right.spines.values():
        spine.set_visible(False)


def _with_modes(data: Any, argument: str) -> xr.DataArray:
    data = require_array(data, argument)
    if "mode" not in data.dims or data.ndim < 2:
        raise ValueError(
            f"{argument} has dims {tuple(data.dims)}; expected 'mode' and at least one other: "
            "give modes.dictionary or modes.loadings"
        )
    return data if "mode" in data.coords else data.assign_coords(mode=np.arange(data.sizes["mode"]))


def _checked(description: Any) -> xr.Dataset:
    if isinstance(description, xr.DataTree):
        description = description.to_dataset()
    if not isinstance(description, xr.Dataset):
        raise TypeError(
            f"description is a {type(description).__name__}; expected the Dataset of "
            "retina_codec.describe_modes"
        )
    needed = ("partial_r", "q_value", "label", "subtype", "family")
    missing = [name for name in needed if name not in description.variables]
    if missing:
        raise ValueError(
            f"description has no {', '.join(missing)}; expected the Dataset of "
            "retina_codec.describe_modes"
        )
    if "mode" not in description.coords:
        description = description.assign_coords(mode=np.arange(description.sizes["mode"]))
    return description
