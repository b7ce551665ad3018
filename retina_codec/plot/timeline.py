"""Stimulus, responses and modes on one time axis."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from retina_codec._common.checks import require_array, require_dims
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
        (time, [color,] y, x): its mean luminance is drawn. The coordinate epoch (time), of the
        stimulus or the loadings, becomes a coloured band.
    rate : DataArray, optional
        (time, cell) or (time,): rates in Hz; of one cell a line, of several a heat map.
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
        From top to bottom: epochs, stimulus, rates (each if there is something to draw), loadings.

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
    if luminance is not None:
        panels.append(("stimulus", 0.8, luminance))
    if rate is not None:
        rates = _rates(rate, time, cell)
        panels.append(("rate", float(np.clip(0.13 * rates.sizes.get("cell", 0), 1.0, 4)), rates))
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
        elif kind == "rate":
            _draw_rates(ax, data)
        else:
            _draw_loadings(ax, data, "mean loading over cells" if over_cells else "loading")
    heat = axes[-1]
    if description is not None:
        _color_modes(heat, labels_of(description, shown["mode"].values))
    heat.set_xlabel(TIME_LABEL)
    onsets = shown["time"].values
    heat.set_xlim(onsets[0], onsets[-1] + bin_of(shown))
    if cell is not None:
        axes[0].set_title(f"cell {cell}")
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


def _draw_epochs(ax: Axes, epoch: xr.DataArray) -> None:
    """Coloured band of what was shown, with a key beside; rests are pale."""
    labels = epoch.values.astype(str)
    width = bin_of(epoch)
    onsets = epoch["time"].values
    names = [name for name in dict.fromkeys(labels) if name not in REST]
    free = [color for color in PALETTE if color not in map(EPOCH_COLORS.get, names)] or PALETTE
    others = [name for name in names if name not in EPOCH_COLORS]
    colors = EPOCH_COLORS | {name: free[i % len(free)] for i, name in enumerate(others)}
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
