"""Receptive fields in space and time, moment by moment, and while modes are on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Ellipse

from retina_codec._common.checks import nearest_names, require_array, require_count
from retina_codec.interneurons.fields import first_pair
from retina_codec.plot.style import (
    BLACK,
    DIVERGING,
    GREY,
    figure_for,
    settle_ticks,
    styled,
)

IN_A_ROW = 6


@styled
def receptive_field(
    separated: xr.Dataset,
    *,
    cells: Any | None = None,
    figure: Figure | SubFigure | None = None,
) -> np.ndarray:
    """Draw receptive fields: map in space with the fitted ellipse, and course in time.

    The map is that of the result, times its polarity: red where light raises the rate at the peak
    of the course, blue where it lowers it. The ellipse is at one standard deviation of the fit; a
    cell without one says why.

    Parameters
    ----------
    separated : Dataset
        As from `retina_codec.separate`, over `cell` or over nothing; colour planes are averaged.
    cells : label or sequence of labels, optional
        Which to draw, a column each; by default the first six.
    figure : matplotlib Figure or SubFigure, optional
        Where to draw; by default a new one.

    Returns
    -------
    ndarray of matplotlib Axes
        (2, cell): maps, and courses.

    Raises
    ------
    TypeError, ValueError
        If `separated` is something else, has other dims, or lacks a cell.

    Examples
    --------
    >>> import numpy as np, retina_codec as rc, xarray as xr
    >>> field = np.array([1.0, 2.0, -0.5])[:, None, None] * np.eye(4)
    >>> rf = xr.DataArray(field, {"lag": np.arange(3) * 0.01}, ("lag", "y", "x"))
    >>> rc.plot.receptive_field(rc.separate(rf, fit=None)).shape
    (2, 1)
    """
    if not isinstance(separated, xr.Dataset) or "spatial" not in separated:
        raise TypeError(
            "separated is no result of retina_codec.separate: separate the receptive fields first"
        )
    others = [str(dim) for dim in separated["temporal"].dims if dim != "lag"]
    if others not in ([], ["cell"]):
        raise ValueError(
            f"separated has the dims {', '.join(others)} beside its field; expected 'cell' alone: "
            "select one of the others"
        )
    table = separated if others else separated.expand_dims("cell")
    if "cell" not in table.coords:
        table = table.assign_coords(cell=[""])
    names = table["cell"].values[:IN_A_ROW] if cells is None else np.atleast_1d(cells)
    rows = [_selected(table, "cell", name, "separated") for name in names]
    figure = figure_for(figure, (0.9 + 1.75 * len(rows), 3.9))
    axes = figure.subplots(2, len(rows), squeeze=False, height_ratios=(1.3, 1))
    limit = 1000 * float(table["lag"].max())
    for place, (row, name) in enumerate(zip(rows, names, strict=True)):
        _fitted_map(axes[0, place], row, str(name), first=place == 0)
        _course(axes[1, place], row, limit, first=place == 0)
    return axes


@styled
def fields_over_time(
    fields: xr.DataArray,
    *,
    cell: Any | None = None,
    times: Sequence[float] | None = None,
    n: int = 6,
    figure: Figure | SubFigure | None = None,
) -> np.ndarray:
    """Draw the receptive field of a cell at several moments, beneath its rate.

    Maps are the fields at the course in time of their mean, all on one scale, so that a field
    that grows, flips or moves is seen to.

    Parameters
    ----------
    fields : DataArray
        (time, [cell,] lag, [color,] y, x), as from `retina_codec.instantaneous_receptive_field`
        of consecutive bins, such as a burst; with the coordinate ``rate`` it is drawn. Colour
        planes are averaged.
    cell : label, optional
        Which cell; not needed if there is one.
    times : sequence of float, optional
        Moments, in seconds: the bins nearest to them. By default `n` at equal distances.
    n : int
        Moments if `times` is not given.
    figure : matplotlib Figure or SubFigure, optional
        Where to draw; by default a new one.

    Returns
    -------
    ndarray of matplotlib Axes
        (moment + 1,): the rate, then the maps.

    Raises
    ------
    TypeError, ValueError
        If `fields` is something else, or a cell or dim is missing.

    Examples
    --------
    >>> import numpy as np, retina_codec as rc, xarray as xr
    >>> values = np.random.default_rng(0).normal(size=(9, 3, 4, 4))
    >>> coords = {"time": np.arange(9) * 0.01, "lag": np.arange(3) * 0.01}
    >>> fields = xr.DataArray(values, coords, ("time", "lag", "y", "x"))
    >>> len(rc.plot.fields_over_time(fields, n=4))
    5
    """
    shown = _one_cell(require_array(fields, "fields"), cell)
    for dim in ("time", "lag", "y", "x"):
        if dim not in shown.dims:
            raise ValueError(
                f"fields has dims {tuple(shown.dims)}; expected time, lag, y and x, not summed over"
            )
    if times is None:
        places = np.linspace(0, shown.sizes["time"] - 1, require_count(n, 1, "n")).round()
        chosen = np.unique(places.astype(int)).tolist()
    else:
        chosen = [
            int(np.abs(shown["time"].values - moment).argmin()) for moment in np.atleast_1d(times)
        ]
    maps = _maps(shown.isel(time=chosen), shown.mean("time"), "time")
    figure = figure_for(figure, (1.0 + 1.5 * len(chosen), 3.4))
    grid = figure.add_gridspec(2, len(chosen), height_ratios=(1, 1.3))
    top = figure.add_subplot(grid[0, :])
    seconds = shown["time"].values
    if "rate" in shown.coords:
        top.plot(seconds, shown["rate"].values, color=BLACK)
        top.set_ylabel("rate (Hz)")
        top.set_ylim(bottom=0)
    for moment in chosen:
        top.axvline(seconds[moment], color=GREY, linewidth=0.8, linestyle=":")
    top.set_xlabel("time (s)")
    settle_ticks(top)
    axes = [figure.add_subplot(grid[1, i]) for i in range(len(chosen))]
    titles = [f"{seconds[moment]:.2f} s" for moment in chosen]
    _row_of_maps(axes, maps, shown, titles)
    return np.array([top, *axes])


@styled
def mode_conditioned_fields(
    found: xr.Dataset,
    *,
    cell: Any | None = None,
    conditions: Sequence[str] | None = None,
    figure: Figure | SubFigure | None = None,
) -> np.ndarray:
    """Draw the mean field of a cell, and its field while modes are on, in space and in time.

    Maps are fields at the course in time of the mean field, all on one scale. Above each its
    similarity to the mean field, held out, with the p value of the shifts. The courses are those
    at the mean field's map.

    Parameters
    ----------
    found : Dataset
        As from `retina_codec.physiology.mode_conditioned_field`.
    cell : label, optional
        Which cell; not needed if there is one.
    conditions : sequence of str, optional
        Which to draw; by default the first five that have numbers.
    figure : matplotlib Figure or SubFigure, optional
        Where to draw; by default a new one.

    Returns
    -------
    ndarray of matplotlib Axes
        (2, condition + 1): maps, the mean field's first, and courses, with the null's in grey.

    Raises
    ------
    TypeError, ValueError
        If `found` is something else, or a cell or condition is missing.

    Examples
    --------
    >>> import numpy as np, retina_codec as rc, xarray as xr
    >>> rng = np.random.default_rng(0)
    >>> names = ("similarity", "similarity_p_value", "rate")
    >>> found = xr.Dataset(
    ...     {"field": (("condition", "lag", "y", "x"), rng.normal(size=(2, 3, 4, 4))),
    ...      "null_field": (("condition", "lag", "y", "x"), rng.normal(size=(2, 3, 4, 4))),
    ...      "mean_field": (("lag", "y", "x"), rng.normal(size=(3, 4, 4))),
    ...      **{name: ("condition", [0.5, 0.4]) for name in names}},
    ...     {"condition": ["0", "1"], "lag": np.arange(3) * 0.01},
    ... )
    >>> rc.plot.mode_conditioned_fields(found).shape
    (2, 3)
    """
    if not isinstance(found, xr.Dataset) or "null_field" not in found:
        raise TypeError("found is no result of retina_codec.physiology.mode_conditioned_field")
    one = _one_cell(found, cell)
    if conditions is None:
        known = one["similarity"].notnull().values
        names = list(one["condition"].values[known][: IN_A_ROW - 1])
        if not names:
            raise ValueError("found has no condition with numbers for this cell: see its reason")
    else:
        names = [str(name) for name in np.atleast_1d(np.asarray(conditions))]
    rows = [_selected(one, "condition", name, "found") for name in names]
    mean = one["mean_field"]
    fields = xr.concat([mean, *(row["field"].drop_vars("condition") for row in rows)], "condition")
    maps = _maps(fields, mean, "condition")
    figure = figure_for(figure, (1.0 + 1.75 * (len(rows) + 1), 4.2))
    axes = figure.subplots(2, len(rows) + 1, squeeze=False, height_ratios=(1.3, 1))
    titles = ["mean field"]
    for name, row in zip(names, rows, strict=True):
        p = float(row["similarity_p_value"])
        titles.append(
            f"on: {name}, {float(row['rate']):.0f} Hz\n"
            f"similarity {float(row['similarity']):.2f}, p = {p:.2g}"
        )
    _row_of_maps(list(axes[0]), maps, fields, titles)
    nulls = [mean, *(row["null_field"] for row in rows)]
    space = _signed_pair(mean)[0]
    lags = 1000 * fields["lag"].values
    highest = 0.0
    for place, ax in enumerate(axes[1]):
        for values, color in ((nulls[place], GREY), (fields.isel(condition=place), BLACK)):
            course = np.tensordot(_plain(values), space, axes=([1, 2], [0, 1]))
            ax.plot(lags, course, color=color)
            highest = max(highest, float(np.abs(course).max()))
        ax.axhline(0, color=GREY, linewidth=0.6)
        ax.set_xlim(lags.max(), 0)
        settle_ticks(ax, 8)
    for place, ax in enumerate(axes[1]):
        ax.set_ylim(-1.08 * highest, 1.08 * highest)
        if place:
            ax.tick_params(labelleft=False)
    axes[1, 0].set_xlabel("before the response (ms)", fontsize=9, loc="left")
    axes[1, 0].set_ylabel("course", fontsize=9)
    return axes


def _one_cell(data: Any, cell: Any | None) -> Any:
    """Select a cell; the only one if none is named."""
    if "cell" not in data.dims:
        return data
    if cell is None:
        if data.sizes["cell"] != 1:
            names = ", ".join(map(str, data["cell"].values))
            raise ValueError(f"cell: there are several, {names}: name one")
        return data.isel(cell=0)
    return _selected(data, "cell", cell, "cell")


def _selected(data: Any, dim: str, name: Any, argument: str) -> Any:
    if name not in data.indexes[dim]:
        listed = nearest_names(name, data[dim].values)
        raise ValueError(f"{argument}: no {dim} {str(name)!r}; {listed}")
    return data.sel({dim: name})


def _plain(field: xr.DataArray) -> np.ndarray:
    """Field (lag, y, x), colour planes averaged, first dims kept."""
    if "color" in field.dims:
        field = field.mean("color")
    return np.asarray(field.transpose(..., "lag", "y", "x").values, dtype=np.float64)


def _signed_pair(mean: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """Give map and course of a field, of unit length, both positive at their strongest."""
    space, course, _ = first_pair(_plain(mean))
    sign = np.sign(course[int(np.abs(course).argmax())])
    return space / np.linalg.norm(space), sign * course / np.linalg.norm(course)


def _maps(fields: xr.DataArray, mean: xr.DataArray, dim: str) -> np.ndarray:
    """Take maps (dim, y, x) of fields at the course of the mean field."""
    course = _signed_pair(mean)[1]
    return np.tensordot(_plain(fields.transpose(dim, ...)), course, axes=([1], [0]))


def _extent(data: Any) -> tuple[float, float, float, float] | None:
    """Edges of the picture, where both axes have coordinates of more than one pixel."""
    if not {"y", "x"} <= set(data.coords) or min(data.sizes["y"], data.sizes["x"]) < 2:
        return None
    y, x = data["y"].values.astype(float), data["x"].values.astype(float)
    half = (y[1] - y[0]) / 2, (x[1] - x[0]) / 2
    return x[0] - half[1], x[-1] + half[1], y[-1] + half[0], y[0] - half[0]


def _row_of_maps(axes: list[Axes], maps: np.ndarray, data: Any, titles: list[str]) -> None:
    limit = float(np.abs(maps).max()) or 1.0
    image: Any = None
    for place, (ax, values, title) in enumerate(zip(axes, maps, titles, strict=True)):
        image = _draw(ax, values, data, limit, first=place == 0)
        ax.set_title(title, fontsize=7.5, loc="center")
    units = str(data.attrs.get("units", ""))
    label = f"field ({units})" if units else "field"
    # Beside one map only: beside a row of them, the layout has no room for titles of two lines.
    bar = axes[0].figure.colorbar(image, ax=axes[-1], label=label, pad=0.03, aspect=15)
    settle_ticks(bar.ax, 8)


def _draw(ax: Axes, values: np.ndarray, data: Any, limit: float, *, first: bool) -> Any:
    image = ax.imshow(
        values, cmap=DIVERGING, vmin=-limit, vmax=limit, extent=_extent(data),
        interpolation="nearest",
    )  # fmt: skip
    settle_ticks(ax, 8)
    if first:
        units = str(data["y"].attrs.get("units", "pixel")) if "y" in data.coords else "pixel"
        ax.set_xlabel(f"x ({units})", fontsize=9)
        ax.set_ylabel(f"y ({units})", fontsize=9)
    else:
        ax.tick_params(labelleft=False, labelbottom=False)
    return image


def _fitted_map(ax: Axes, row: xr.Dataset, name: str, *, first: bool) -> None:
    space = row["spatial"].mean("color") if "color" in row["spatial"].dims else row["spatial"]
    polarity = float(row["polarity"]) if np.isfinite(row["polarity"]) else 1.0
    _draw(ax, polarity * space.values, row, float(np.abs(space).max()) or 1.0, first=first)
    title = name
    if "fit_r2" in row and np.isfinite(row["fit_r2"]):
        ax.add_patch(
            Ellipse(
                (float(row["center_x"]), float(row["center_y"])),
                2 * float(row["sd_major"]),
                2 * float(row["sd_minor"]),
                angle=float(row["orientation"]),
                fill=False,
                color=BLACK,
            )
        )
    elif "reason" in row:
        title = f"{name}\nno fit"
    ax.set_title(title, fontsize=9, loc="center")


def _course(ax: Axes, row: xr.Dataset, limit: float, *, first: bool) -> None:
    ax.axhline(0, color=GREY, linewidth=0.6)
    ax.plot(1000 * row["lag"].values, row["temporal"].values, color=BLACK)
    if np.isfinite(row["time_to_peak"]):
        ax.plot(1000 * float(row["time_to_peak"]), float(row["peak"]), "o", color=BLACK, ms=3)
    ax.set_xlim(limit, 0)
    settle_ticks(ax, 8)
    if first:
        units = str(row["temporal"].attrs.get("units", "1"))
        ax.set_xlabel("before the response (ms)", fontsize=9, loc="left")
        ax.set_ylabel("course" if units == "1" else f"course ({units})", fontsize=9)
