"""Reading modes: their tuning, the cells that share them, the stimulus before them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch

from retina_codec._common.checks import require_dims
from retina_codec.plot.kernels import panel_grid, run_to_response
from retina_codec.plot.mode_maps import mode_names
from retina_codec.plot.style import (
    BLACK,
    DIVERGING,
    GREY,
    PALE,
    axes_for,
    figure_for,
    heat_map,
    heat_size,
    mark_columns,
    mark_rows,
    settle_ticks,
    styled,
)
from retina_codec.plot.timeline import colors_of_epochs

ROW = 1.7  # inches that a mode takes
MOST = 8  # modes drawn unless they are named


@styled
def mode_tuning(
    tuning: xr.Dataset,
    *,
    modes: Sequence[Any] | None = None,
    figure: Figure | SubFigure | None = None,
) -> np.ndarray:
    """Draw the mean loading of modes after the onset of each kind of epoch, and by direction.

    Parameters
    ----------
    tuning : Dataset
        As from `retina_codec.modes.epoch_tuning`: time_course and time_course_sem
        (mode, epoch, onset), and direction_tuning, direction_sem (mode, direction) where something
        moved.
    modes : sequence, optional
        Labels of the modes to draw, a row each; by default the first 8.
    figure : matplotlib Figure or SubFigure, optional
        Where to draw; by default a new figure.

    Returns
    -------
    ndarray of matplotlib Axes
        (mode, panel). Left: one line a kind of epoch, with its standard error. Right, where there
        are directions: mean loading by direction, as the movie is seen (0 degrees to the right, 90
        downwards), with the direction selectivity index and its p-value where it is known.

    Raises
    ------
    TypeError
        If `tuning` or `figure` is of another type.
    ValueError
        If a variable or a mode is missing.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from retina_codec import plot
    >>> dims = ("mode", "epoch", "onset")
    >>> ones = np.ones((2, 2, 9))
    >>> tuning = xr.Dataset(
    ...     {"time_course": (dims, ones), "time_course_sem": (dims, ones)},
    ...     {"mode": [0, 1], "epoch": ["bar", "still"], "onset": np.arange(9) * 0.1},
    ... )
    >>> plot.mode_tuning(tuning).shape
    (2, 1)
    """
    needed = ("time_course", "time_course_sem")
    tuning = _with_mode(_checked(tuning, needed, "tuning", "epoch_tuning"), modes, "tuning")
    turned = "direction_tuning" in tuning
    n, names = tuning.sizes["mode"], mode_names(tuning)
    figure = figure_for(figure, (9.0 if turned else 7.0, ROW * n + 0.7))
    grid: Any = figure.add_gridspec(n, 2 if turned else 1, width_ratios=[3.2, 1] if turned else [1])
    axes = np.empty((n, 2 if turned else 1), dtype=object)
    kinds = [str(kind) for kind in tuning["epoch"].values]
    colors = colors_of_epochs(kinds)
    onset = tuning["onset"].values
    for row in range(n):
        first = axes[0, 0] if row else None
        ax = axes[row, 0] = figure.add_subplot(grid[row, 0], sharex=first)
        settle_ticks(ax)
        for kind, name in zip(tuning["epoch"].values, kinds, strict=True):
            course, sem = (tuning[v].isel(mode=row).sel(epoch=kind).values for v in needed)
            ax.plot(onset, course, color=colors[name], label=name.replace("_", " "))
            ax.fill_between(
                onset, course - sem, course + sem, color=colors[name], alpha=0.25, linewidth=0
            )
        ax.set_ylabel(f"mode {names[row]}\nloading")
        ax.set_xlim(onset[0], onset[-1])
        ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
        ax.tick_params(labelbottom=row == n - 1)
        if turned:
            axes[row, 1] = _direction(figure, grid[row, 1], tuning.isel(mode=row), row == 0)
    axes[-1, 0].set_xlabel("time since the start of the epoch (s)")
    handles = [Patch(color=colors[name], label=name.replace("_", " ")) for name in kinds]
    axes[0, 0].legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1.02), ncols=6, borderaxespad=0,
        handlelength=1,
    )  # fmt: skip
    return axes


@styled
def cell_clusters(clusters: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw which modes drive which cells, the cells sorted by cluster.

    Parameters
    ----------
    clusters : Dataset
        As from `retina_codec.modes.cluster_cells`: profile (cell, mode), cluster and silhouette
        (cell).
    ax : matplotlib Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    matplotlib Axes
        With a heat map (cell, mode), clusters set apart by lines and named at the right, and within
        each the most typical cell (largest silhouette) first. The title has the mean silhouette,
        that of shuffled profiles and the p-value.

    Raises
    ------
    TypeError
        If `clusters` or `ax` is of another type.
    ValueError
        If a variable is missing.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from retina_codec import plot
    >>> clusters = xr.Dataset(
    ...     {"profile": (("cell", "mode"), np.eye(3)), "cluster": ("cell", [0, 1, 0]),
    ...      "silhouette": ("cell", [0.5, 0.2, 0.6])},
    ...     {"cell": ["a", "b", "c"], "mode": [0, 1, 2]},
    ... )
    >>> [tick.get_text() for tick in plot.cell_clusters(clusters).get_yticklabels()]
    ['c', 'a', 'b']
    """
    clusters = _checked(clusters, ("profile", "cluster", "silhouette"), "clusters", "cluster_cells")
    clusters = _with_mode(clusters, None, "clusters", most=None)
    if "cell" not in clusters.coords:
        clusters = clusters.assign_coords(cell=np.arange(clusters.sizes["cell"]))
    order = np.lexsort([-clusters["silhouette"].values, clusters["cluster"].values])
    clusters = clusters.isel(cell=order)
    profile = clusters["profile"].transpose("cell", "mode")
    label = clusters["cluster"].values
    width, height = heat_size(*profile.shape)
    ax = axes_for(ax, (width + 1.0, height))
    heat_map(ax, profile.values.astype(float), "share of the cell's loadings", side="top")
    mark_rows(ax, profile["cell"].values)
    mark_columns(ax, mode_names(profile), fewer=True)
    edges = np.flatnonzero(np.diff(label)) + 1
    for edge in edges:
        ax.axhline(edge - 0.5, color=BLACK, linewidth=1.2)
    middles = (np.r_[0, edges] + np.r_[edges, label.size] - 1) / 2
    right = ax.secondary_yaxis("right")
    right.set_yticks(middles, [f"cluster {label[round(m - 0.25)]}" for m in middles])
    right.tick_params(length=0)
    settle_ticks(right)
    for spine in right.spines.values():
        spine.set_visible(False)
    ax.set(xlabel="mode", ylabel="cell")
    note = f"silhouette {float(clusters['silhouette'].mean()):.2f}"
    if "shuffled_score" in clusters:
        note += f" (shuffled {float(clusters['shuffled_score'].mean()):.2f}"
        note += f", p = {float(clusters['p_value']):.2g})" if "p_value" in clusters else ")"
    ax.annotate(
        note, (0, 0), (0, -38), xycoords="axes fraction", textcoords="offset points", color=GREY,
        fontsize=9, va="top",
    )  # fmt: skip
    return ax


@styled
def mode_triggered_average(
    average: xr.DataArray,
    *,
    modes: Sequence[Any] | None = None,
    figure: Figure | SubFigure | None = None,
) -> np.ndarray:
    """Draw the mean stimulus before modes: its map at the strongest lag, and its time course.

    Parameters
    ----------
    average : DataArray
        As from `retina_codec.modes.mode_triggered_average`: (mode, lag, [color,] y, x); colours are
        averaged.
    modes : sequence, optional
        Labels of the modes to draw; by default the first 8.
    figure : matplotlib Figure or SubFigure, optional
        Where to draw; by default a new figure.

    Returns
    -------
    ndarray of matplotlib Axes
        (mode, panel). Above: the map at the lag with the largest value, each mode on its own scale
        (the time course shows it), and a dot at its strongest pixel; below: the time course of that
        pixel, up to the response at 0 ms.

    Raises
    ------
    TypeError
        If `average` or `figure` is of another type.
    ValueError
        If a dim or a mode is missing.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from retina_codec import plot
    >>> average = xr.DataArray(
    ...     np.random.default_rng(0).normal(size=(3, 5, 4, 4)),
    ...     {"mode": [0, 1, 2], "lag": np.arange(5) * 0.01}, ("mode", "lag", "y", "x"),
    ... )
    >>> plot.mode_triggered_average(average).shape
    (3, 2)
    """
    average = require_dims(
        average, ("mode", "lag", "color", "y", "x"), "average", optional=("color",)
    )
    if "lag" not in average.coords:
        raise ValueError("average has no coordinate 'lag' in seconds")
    shown = _with_mode(average, modes, "average")
    if "color" in shown.dims:
        shown = shown.mean("color")
    grid = panel_grid(figure, shown.sizes["mode"], 2)
    lags = 1000 * shown["lag"].values
    units = str(average.attrs.get("units", "1"))
    for panels, of_mode, name in zip(grid, shown.values, mode_names(shown), strict=True):
        known = np.nan_to_num(of_mode)
        lag, y, x = (int(i) for i in np.unravel_index(np.abs(known).argmax(), known.shape))
        limit = float(np.abs(known[lag]).max()) or 1.0
        panels[0].imshow(known[lag], cmap=DIVERGING, vmin=-limit, vmax=limit)
        panels[0].set_axis_off()
        silent = np.isnan(of_mode).all()
        if not silent:
            panels[0].plot(x, y, ".", color=BLACK, markersize=3)
        title = f"{name}: silent" if silent else f"{name}: {lags[lag]:.0f} ms"
        panels[0].set_title(title, fontsize=9, loc="center")
        panels[1].plot(lags, known[:, y, x], color=BLACK)
        run_to_response(panels[1], lags)
    grid[0, -1].set_ylabel("mean" if units == "1" else f"mean ({units})", fontsize=9)
    largest = 1.08 * max(float(np.abs(panels[-1].dataLim.intervaly).max()) for panels in grid)
    for panels in grid:
        panels[-1].set_ylim(-largest or -1, largest or 1)
    return grid


def _direction(figure: Any, place: Any, tuning: xr.Dataset, top: bool) -> Any:
    ax = figure.add_subplot(place, projection="polar")
    ax.set_theta_direction(-1)  # y downwards, as in the movie
    settle_ticks(ax, 7)
    angle = np.radians(np.r_[tuning["direction"].values, tuning["direction"].values[:1]])
    mean, sem = (tuning[f"direction_{name}"].values for name in ("tuning", "sem"))
    mean, sem = np.r_[mean, mean[:1]], np.nan_to_num(np.r_[sem, sem[:1]])
    ax.plot(angle, mean, color=BLACK, linewidth=1.2)
    ax.fill_between(angle, mean - sem, mean + sem, color=GREY, alpha=0.4, linewidth=0)
    ax.set_ylim(min(0.0, float(np.nanmin(mean))), (float(np.nanmax(mean + sem)) or 1.0) * 1.05)
    ax.set_xticks(np.radians([0, 90, 180, 270]), ["0°", "90°", "", ""])
    ax.tick_params(pad=-2)
    ax.yaxis.set_major_locator(_two_rings())
    ax.set_rlabel_position(225)
    ax.spines["polar"].set_color(PALE)
    if top:
        ax.set_title("by direction", fontsize=9, loc="center", pad=12)
    if "dsi" in tuning and np.isfinite(tuning["dsi"]):
        text = f"DSI {float(tuning['dsi']):.2f}\np = {float(tuning['p_value']):.2g}"
        ax.annotate(
            text, (1, 0), (12, 0), xycoords="axes fraction", textcoords="offset points", fontsize=8,
            color=GREY,
        )  # fmt: skip
    return ax


def _two_rings() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(2, prune="lower")


def _checked(data: Any, needed: Sequence[str], argument: str, source: str) -> xr.Dataset:
    if isinstance(data, xr.DataTree):
        data = data.to_dataset()
    if not isinstance(data, xr.Dataset):
        raise TypeError(
            f"{argument} is a {type(data).__name__}; expected the Dataset of "
            f"retina_codec.modes.{source}"
        )
    missing = [name for name in needed if name not in data]
    if missing:
        raise ValueError(
            f"{argument} has no {', '.join(missing)}; expected the Dataset of "
            f"retina_codec.modes.{source}"
        )
    return data


def _with_mode(
    data: Any, modes: Sequence[Any] | None, argument: str, most: int | None = MOST
) -> Any:
    """Return `data` of the modes that are drawn, with the coordinate `mode`."""
    if "mode" not in data.coords:
        data = data.assign_coords(mode=np.arange(data.sizes["mode"]))
    if modes is None:
        return data.isel(mode=slice(most))
    known = data["mode"].values.tolist()
    missing = [mode for mode in modes if mode not in known]
    if missing or not len(modes):
        raise ValueError(f"modes={list(modes)}; expected labels of modes of {argument}: {known}")
    return data.sel(mode=list(modes))
