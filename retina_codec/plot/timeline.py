"""Stimulus, responses and modes on one time axis."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from retina_codec._common.checks import require_array, require_dims
from retina_codec.plot.columns import side_by_side
from retina_codec.plot.mode_maps import color_of, labels_of, mode_names
from retina_codec.plot.stretches import (
    TIME_LABEL,
    Stretch,
    bin_of,
    draw_line,
    draw_rows,
    drawn_runs,
    in_stretch,
    one_cell,
)
from retina_codec.plot.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    LABEL_COLORS,
    ORANGE,
    PALE,
    PALETTE,
    PURPLE,
    SKY,
    VERMILION,
    color_key,
    figure_for,
    label_of,
    mark_rows,
    settle_ticks,
    styled,
)

KEY_HEIGHT = 26  # points that the key of the epochs takes above them
IN_STRIP = 12  # frames
REST = ("", "transition")  # epochs that are none
# Warm for light and cool for motion, as for the labels of modes.
EPOCH_COLORS = {
    "on_step": ORANGE,
    "off_step": VERMILION,
    "bar": BLUE,
    "grating": SKY,
    "still": GREEN,
    "natural": PURPLE,
    "noise": BLACK,
}


@styled
def mode_timeline(
    loadings: xr.DataArray,
    *,
    stimulus: xr.DataArray | None = None,
    rate: xr.DataArray | None = None,
    contribution: xr.DataArray | None = None,
    description: xr.Dataset | None = None,
    time: Stretch = None,
    cell: object = None,
    figure: Figure | SubFigure | None = None,
) -> np.ndarray:
    """Draw when each mode is active, below the stimulus and the responses.

    Parameters
    ----------
    loadings : DataArray
        ``modes.loadings``: (time, mode) or (time, cell, mode).
    stimulus : DataArray, optional
        (time, [color,] y, x): frames at equal distances are drawn, and its mean luminance. The
        coordinate epoch (time), of the stimulus or the loadings, becomes a coloured band.
    rate : DataArray, optional
        (time, cell) or (time,): rates in Hz; of one cell a line, of several a heat map.
    contribution : DataArray, optional
        (time[, cell][, sign], channel), summed over space: what each channel contributed to the
        cell, or on average over cells.
    description : Dataset, optional
        As from `retina_codec.describe_modes`: names of modes are coloured by what they carry.
    time : slice or (float, float), optional
        Stretch to draw, in seconds; by default all.
    cell : str, optional
        Draw the loadings and the rate of this cell; by default the mean of the loadings over
        cells, and all rates.
    figure : matplotlib Figure or SubFigure, optional
        Where to draw; by default a new one.

    Returns
    -------
    ndarray of matplotlib Axes
        From top to bottom: epochs, frames, mean stimulus, rates, contributions (each if there is
        something to draw), loadings.

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        If a dim, the cell or a mode's description is missing, or the stretch is empty.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from retina_codec import plot
    >>> values = np.random.default_rng(0).random((100, 3))
    >>> coords = {"time": np.arange(100) * 0.01, "mode": [0, 1, 2]}
    >>> (axes,) = plot.mode_timeline(xr.DataArray(values, coords, ("time", "mode")))
    >>> axes.get_ylabel()
    'mode'
    """
    loadings = require_dims(loadings, ("time", "cell", "mode"), "loadings", optional=("cell",))
    if "mode" not in loadings.coords:
        loadings = loadings.assign_coords(mode=np.arange(loadings.sizes["mode"]))
    loadings = in_stretch(loadings, time, "loadings")
    over_cells = "cell" in loadings.dims and cell is None and loadings.sizes["cell"] > 1
    shown = (
        loadings.mean("cell", keep_attrs=True)
        if over_cells
        else one_cell(loadings, cell, "loadings")
    )
    panels: list[tuple[str, float, Any]] = []
    luminance = None if stimulus is None else _luminance(stimulus, time)
    epoch = _epochs(luminance, shown)
    if epoch is not None:
        panels.append(("epoch", 0.25, epoch))
    if stimulus is not None and luminance is not None:
        if {"y", "x"} <= set(stimulus.dims) and stimulus.sizes["y"] * stimulus.sizes["x"] > 1:
            panels.append(("frames", 0.8, in_stretch(stimulus, time, "stimulus")))
        panels.append(("stimulus", 0.8, luminance))
    if rate is not None:
        rates = _rates(rate, time, cell)
        panels.append(("rate", float(np.clip(0.13 * rates.sizes.get("cell", 0), 1.0, 4)), rates))
    if contribution is not None:
        parts = _contributions(contribution, time, cell)
        panels.append(("contribution", float(np.clip(0.13 * parts.shape[1], 1.0, 4)), parts))
    n_modes = shown.sizes["mode"]
    panels.append(("loadings", float(np.clip(0.18 * n_modes, 1.5, 9)), shown))

    heights = [height for _, height, _ in panels]
    figure = figure_for(figure, (9.5, sum(heights) + 1.2))
    axes = figure.subplots(
        len(panels), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )[:, 0]
    for ax, (kind, _, data) in zip(axes, panels, strict=True):
        settle_ticks(ax)
        if kind == "epoch":
            _draw_epochs(ax, data)
        elif kind == "stimulus":
            draw_line(ax, data, color=BLACK, linewidth=1)
            ax.set_ylabel(label_of(data, "mean\nstimulus"))
        elif kind == "frames":
            _draw_frames(ax, data)
        elif kind == "rate":
            _draw_rates(ax, data)
        elif kind == "contribution":
            draw_rows(ax, data, "unit", label_of(data, "contribution"), symmetric=True)
            mark_rows(ax, data["unit"].values, fewer=True)
            ax.set_ylabel("channel")
            settle_ticks(ax, 7, "y")
        else:
            _draw_loadings(ax, data, "mean loading over cells" if over_cells else "loading")
    heat = axes[-1]
    if description is not None:
        _color_modes(heat, labels_of(description, shown["mode"].values))
    heat.set_xlabel(TIME_LABEL)
    onsets = shown["time"].values
    heat.set_xlim(onsets[0], onsets[-1] + bin_of(shown))
    if cell is not None:
        # Above the key of the epochs, where there is one.
        keyed = axes[0].get_legend() is not None
        axes[0].set_title(f"cell {cell}", pad=KEY_HEIGHT if keyed else None)
    return axes


def _luminance(stimulus: Any, time: Stretch) -> xr.DataArray:
    movie = require_dims(
        stimulus, ("time", "color", "y", "x"), "stimulus", optional=("color", "y", "x")
    )
    chosen = in_stretch(movie, time, "stimulus")
    return chosen.mean([dim for dim in chosen.dims if dim != "time"], keep_attrs=True)


def _epochs(luminance: xr.DataArray | None, loadings: xr.DataArray) -> xr.DataArray | None:
    for data in (luminance, loadings):
        if data is not None and "epoch" in data.coords:
            return data["epoch"]
    return None


def _rates(rate: Any, time: Stretch, cell: object) -> xr.DataArray:
    rate = require_dims(require_array(rate, "rate"), ("time", "cell"), "rate", optional=("cell",))
    rate = rate if cell is None else one_cell(rate, cell, "rate")
    return in_stretch(rate, time, "rate")


def _contributions(contribution: Any, time: Stretch, cell: object) -> xr.DataArray:
    """Contributions (time, unit) to the cell, or their mean over cells."""
    given = require_dims(
        contribution, ("time", "cell", "sign", "channel"), "contribution", optional=("cell", "sign")
    )
    if "cell" in given.dims:
        given = (
            given.mean("cell", keep_attrs=True)
            if cell is None
            else one_cell(given, cell, "contribution")
        )
    given = in_stretch(given, time, "contribution")
    values, units = side_by_side(given, "time")
    groups = [name for name, start, stop in units.groups for _ in range(start, stop)]
    marks = {"positive": "+", "negative": "-"}
    names = [
        f"{marks.get(group, '')}{name}" for group, name in zip(groups, units.names, strict=True)
    ]
    coords = {key: c for key, c in given.coords.items() if c.dims == ("time",)}
    return xr.DataArray(values, {**coords, "unit": names}, ("time", "unit"), attrs=given.attrs)


def _draw_frames(ax: Axes, stimulus: xr.DataArray) -> None:
    """Strip of frames, each where it is shown."""
    movie = stimulus.mean("color") if "color" in stimulus.dims else stimulus
    movie = movie.transpose("time", "y", "x")
    onsets = movie["time"].values
    edges = np.linspace(onsets[0], onsets[-1] + bin_of(movie), IN_STRIP + 1)
    places = np.clip(np.searchsorted(onsets, (edges[1:] + edges[:-1]) / 2), 0, len(onsets) - 1)
    frames = movie.isel(time=np.unique(places))
    low, high = float(frames.min()), float(frames.max())
    width = 0.92 * (edges[1] - edges[0])
    for frame in frames:
        centre = frame["time"].item()
        ax.imshow(
            frame.values,
            cmap="gray",
            vmin=low,
            vmax=high,
            aspect="auto",
            extent=(centre - width / 2, centre + width / 2, 1, 0),
            interpolation="nearest",
        )
    ax.set(yticks=[], ylim=(1, 0))
    ax.set_ylabel("frames", rotation=0, ha="right", va="center")
    ax.tick_params(axis="x", length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)


def colors_of_epochs(names: Sequence[str]) -> dict[str, str]:
    """Colour of each kind of epoch, of rests too."""
    free = [color for color in PALETTE if color not in map(EPOCH_COLORS.get, names)] or PALETTE
    others = [name for name in names if name not in EPOCH_COLORS and name not in REST]
    colors = EPOCH_COLORS | dict.fromkeys(REST, GREY)
    colors |= {name: free[i % len(free)] for i, name in enumerate(others)}
    return {name: colors[name] for name in names}


def _draw_epochs(ax: Axes, epoch: xr.DataArray) -> None:
    """Coloured band of what was shown, with a key beside; rests are pale."""
    labels = epoch.values.astype(str)
    width = bin_of(epoch)
    onsets = epoch["time"].values
    names = [name for name in dict.fromkeys(labels) if name not in REST]
    colors = EPOCH_COLORS | colors_of_epochs(names)
    # An epoch also ends where time has a gap.
    starts = {run.start for run in drawn_runs(epoch)} | {
        int(i) + 1 for i in np.flatnonzero(labels[1:] != labels[:-1])
    }
    edges = [*sorted(starts), len(labels)]
    for start, stop in itertools.pairwise(edges):
        ax.axvspan(
            onsets[start],
            onsets[stop - 1] + width,
            color=colors.get(labels[start], PALE),
            linewidth=0,
        )
    ax.set(yticks=[], ylim=(0, 1))
    ax.tick_params(axis="x", length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    key = [(name.replace("_", " "), colors[name]) for name in names]
    if set(labels) & set(REST):
        key.append(("between", PALE))
    color_key(
        ax,
        key,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=min(len(key), 8),
        handlelength=1,
        columnspacing=1.2,
    )


def _draw_rates(ax: Axes, rate: xr.DataArray) -> None:
    if "cell" not in rate.dims:
        draw_line(ax, rate, color=BLACK, linewidth=1)
        ax.set(ylabel=label_of(rate, "rate", "Hz"), ylim=(0, None))
        return
    draw_rows(ax, rate, "cell", label_of(rate, "rate", "Hz"))
    names = rate["cell"].values if "cell" in rate.coords else range(rate.sizes["cell"])
    ax.set_ylabel("cell")
    mark_rows(ax, names, fewer=True)
    settle_ticks(ax, 7, "y")


def _draw_loadings(ax: Axes, loadings: xr.DataArray, label: str) -> None:
    draw_rows(ax, loadings, "mode", label)
    mark_rows(ax, mode_names(loadings))
    ax.set_ylabel("mode")


def _color_modes(ax: Axes, described: xr.Dataset) -> None:
    """Write each mode's number in the colour of its label, with a key above."""
    labels = [str(label) for label in described["label"].values]
    for text, label in zip(ax.get_yticklabels(), labels, strict=True):
        text.set_color(color_of(label))
        text.set_fontweight("bold")
    key = [(f"{name} mode", color) for name, color in LABEL_COLORS.items() if name in labels]
    color_key(
        ax,
        key,
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        borderaxespad=0.1,
        ncols=len(key),
        handlelength=1,
    )
