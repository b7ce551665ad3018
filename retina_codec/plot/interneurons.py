"""Interneurons beside the hidden units that follow them: where, and with what receptive field."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from retina_codec._common.checks import nearest_names
from retina_codec.plot.style import (
    BLACK,
    BLUE,
    DIVERGING,
    GREY,
    PALE,
    VERMILION,
    figure_for,
    settle_ticks,
    styled,
)

IN_A_ROW = 8


@styled
def interneuron_fields(
    fields: xr.Dataset,
    *,
    interneuron: Any | None = None,
    figure: Figure | SubFigure | None = None,
) -> np.ndarray:
    """Draw receptive fields of interneurons beside those of their units, in space and time.

    Parameters
    ----------
    fields : Dataset
        As from `retina_codec.interneurons.receptive_fields`.
    interneuron : label or sequence of labels, optional
        Which to draw, a row each; by default the first four.
    figure : matplotlib Figure or SubFigure, optional
        Where to draw; by default a new one.

    Returns
    -------
    ndarray of matplotlib Axes
        (interneuron, 3): map of the interneuron, map of the unit, and both time courses, each
        scaled to a largest magnitude of 1. The strongest pixel of a map is 1; several colour
        planes are averaged.

    Raises
    ------
    TypeError
        If `fields` or `figure` is of another type.
    ValueError
        If a variable or an interneuron is missing.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from retina_codec import plot
    >>> space, course = np.eye(3)[None], np.array([[0.0, 1.0]])
    >>> found = xr.Dataset(
    ...     {"interneuron_space": (("interneuron", "y", "x"), space),
    ...      "unit_space": (("interneuron", "y", "x"), space),
    ...      "interneuron_time": (("interneuron", "lag"), course),
    ...      "unit_time": (("interneuron", "lag"), course),
    ...      "similarity": ("interneuron", [1.0])},
    ...     {"interneuron": ["b1"], "lag": [0.0, 0.01], "unit_layer": ("interneuron", ["relu1"]),
    ...      "unit_channel": ("interneuron", [2])},
    ... )
    >>> plot.interneuron_fields(found).shape
    (1, 3)
    """
    if not isinstance(fields, xr.Dataset):
        raise TypeError(
            f"fields is a {type(fields).__name__}; expected the Dataset of "
            "retina_codec.interneurons.receptive_fields"
        )
    needed = ("interneuron_space", "unit_space", "interneuron_time", "unit_time", "similarity")
    _require(fields, needed, "fields", "retina_codec.interneurons.receptive_fields")
    labels = fields["interneuron"].values[:4] if interneuron is None else np.atleast_1d(interneuron)
    rows = [_one(fields, label, "fields") for label in labels]
    figure = figure_for(figure, (7.5, 0.6 + 1.9 * len(rows)))
    grid = figure.subplots(len(rows), 3, squeeze=False, width_ratios=(1, 1, 1.6))
    for axes, label, row in zip(grid, labels, rows, strict=True):
        unit = f"{row['unit_layer'].item()}, channel {row['unit_channel'].item()}"
        _map(axes[0], row["interneuron_space"], str(label))
        _map(axes[1], row["unit_space"], unit)
        _courses(axes[2], row)
        axes[2].set_title(f"r of the fields {float(row['similarity']):.2f}", fontsize=9)
    grid[0, 2].legend(loc="upper left", fontsize=8)
    grid[-1, 2].set_xlabel("before the response (ms)")
    return grid


@styled
def interneuron_map(
    comparison: xr.DataTree,
    *,
    interneuron: Any,
    layer: str,
    figure: Figure | SubFigure | None = None,
) -> np.ndarray:
    """Draw the correlation of one interneuron with every unit of a layer, channel by channel.

    Parameters
    ----------
    comparison : DataTree
        As from `retina_codec.compare_interneurons`.
    interneuron : label
        Which.
    layer : str
        Name of a layer whose units have places.
    figure : matplotlib Figure or SubFigure, optional
        Where to draw; by default a new one.

    Returns
    -------
    ndarray of matplotlib Axes
        One map a channel, all of one colour scale. A cross marks where the interneuron looks, a
        ring the best unit, if it is in this layer. Over lags, the largest correlation is drawn.

    Raises
    ------
    TypeError
        If `comparison` or `figure` is of another type.
    ValueError
        If there is no such interneuron or layer, or its units have no places.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from retina_codec import plot
    >>> r = xr.DataArray(
    ...     np.zeros((1, 2, 3, 3)), dims=("interneuron", "channel", "y", "x"),
    ...     coords={"interneuron": ["b1"], "channel": [0, 1], "y": [0, 1, 2], "x": [0, 1, 2]},
    ... )
    >>> found = xr.DataTree.from_dict({"/layers/relu1": r.to_dataset(name="correlation")})
    >>> plot.interneuron_map(found, interneuron="b1", layer="relu1").shape
    (2,)
    """
    if not isinstance(comparison, xr.DataTree):
        raise TypeError(
            f"comparison is a {type(comparison).__name__}; expected the DataTree of "
            "retina_codec.compare_interneurons"
        )
    group = comparison.children.get("layers")
    nodes = (
        {} if group is None else {n.path.removeprefix(f"{group.path}/"): n for n in group.subtree}
    )
    names = [name for name, node in nodes.items() if "correlation" in node.data_vars]
    if layer not in names:
        raise ValueError(f"layer={layer!r} is not in comparison; {nearest_names(layer, names)}")
    correlation = _one(nodes[layer].to_dataset(), interneuron, "comparison")["correlation"]
    if not {"y", "x"} <= set(correlation.dims):
        raise ValueError(
            f"layer={layer!r} has units without places; choose one with y and x, or look at its "
            "correlation(interneuron, channel) itself"
        )
    values = correlation.max("lag") if "lag" in correlation.dims else correlation
    values = values.transpose("channel", "y", "x")
    n = values.sizes["channel"]
    columns = min(n, IN_A_ROW)
    rows = -(-n // columns)
    figure = figure_for(figure, (max(5.0, 1.5 * columns + 1), 1.7 * rows + 0.6))
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    known = np.abs(values.values[np.isfinite(values.values)])
    limit = float(known.max()) if known.size and known.max() > 0 else 1.0
    root = comparison.to_dataset()
    row = _one(root, interneuron, "comparison") if "interneuron" in root.dims else root
    y, x = (values[axis].values.astype(float) for axis in "yx")
    extent = (*_ends(x), *_ends(y)[::-1])
    for ax, name, plane in zip(axes, values["channel"].values, values.values, strict=False):
        ax.set_facecolor(PALE)
        image = ax.imshow(
            plane,
            cmap=DIVERGING,
            vmin=-limit,
            vmax=limit,
            extent=extent,
            interpolation="nearest",
        )
        ax.set_title(f"channel {name}", fontsize=9)
        settle_ticks(ax, 8)
        if "centre_y" in row:
            ax.plot(row["centre_x"], row["centre_y"], "+", color=BLACK, markersize=9)
        if "best_layer" in row and (row["best_layer"], str(row["best_channel"].item())) == (
            layer,
            str(name),
        ):
            place = row["best_x"], row["best_y"]
            ax.plot(*place, "o", mfc="none", mec=BLACK, markersize=11)
        ax.set_xlim(extent[:2])
        ax.set_ylim(extent[2:])
    for unused in axes[n:]:
        unused.remove()
    units = values["y"].attrs.get("units", "")
    axes[0].set_ylabel(f"y ({units})" if units else "y")
    axes[0].set_xlabel(f"x ({units})" if units else "x")
    bar = figure.colorbar(image, ax=list(axes[:n]), label="correlation", aspect=25, shrink=0.8)
    bar.outline.set_visible(False)
    settle_ticks(bar.ax)
    return np.asarray(axes[:n])


def _require(data: xr.Dataset, names: tuple[str, ...], argument: str, maker: str) -> None:
    for name in names:
        if name not in data:
            raise ValueError(
                f"{argument} has no {name!r}; {nearest_names(name, data.data_vars)}; expected the "
                f"Dataset of {maker}"
            )


def _one(data: xr.Dataset, interneuron: Any, argument: str) -> xr.Dataset:
    labels = data["interneuron"].values
    if interneuron not in labels:
        raise ValueError(
            f"interneuron={interneuron!r} is not in {argument}; "
            f"{nearest_names(interneuron, labels)}"
        )
    return data.sel(interneuron=interneuron)


def _map(ax: Axes, space: xr.DataArray, title: str) -> None:
    plane = space.mean("color") if "color" in space.dims else space
    ax.set_facecolor(PALE)
    ax.imshow(plane.transpose("y", "x"), cmap=DIVERGING, vmin=-1, vmax=1, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_title(title, fontsize=9)


def _courses(ax: Axes, row: xr.Dataset) -> None:
    lag = 1000 * row["lag"].values
    ax.axhline(0, color=GREY, linewidth=0.6)
    for name, color, label in (
        ("interneuron_time", BLUE, "interneuron"),
        ("unit_time", VERMILION, "unit"),
    ):
        course = row[name].values
        largest = np.abs(course).max()
        ax.plot(lag, course / (largest if largest > 0 else 1), color=color, label=label)
    ax.set(xlim=(lag.max() or 1, 0), ylim=(-1.1, 1.1))
    ax.set_ylabel("of its maximum", fontsize=9)
    settle_ticks(ax, 8)


def _ends(places: np.ndarray) -> tuple[float, float]:
    """Outer edges of pixels centred on these places."""
    half = (places[1] - places[0]) / 2 if len(places) > 1 else 0.5
    return float(places[0] - half), float(places[-1] + half)
