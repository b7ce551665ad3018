"""Contributions of a layer's channels to one cell, moment by moment."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure, SubFigure

from retina_codec._common.checks import require_array, require_dims
from retina_codec.plot.columns import head_rows, side_by_side
from retina_codec.plot.stretches import (
    Stretch,
    along_samples,
    draw_line,
    draw_rows,
    in_stretch,
    one_cell,
)
from retina_codec.plot.style import BLACK, figure_for, label_of, mark_rows, settle_ticks, styled


@styled
def contribution(
    contribution: xr.DataArray,
    *,
    cell: object = None,
    time: Stretch = None,
    rate: xr.DataArray | None = None,
    figure: Figure | SubFigure | None = None,
) -> np.ndarray:
    """Draw how much each channel raised or lowered one cell's output at each moment.

    Parameters
    ----------
    contribution : DataArray
        Of one layer, summed over space: (time[, cell][, sign], channel), in the target's units;
        `image` may stand for `time`.
    cell : str, optional
        Id of the cell; needed if there are several.
    time : slice or (float, float), optional
        Stretch to draw, in seconds; by default all.
    rate : DataArray, optional
        (time[, cell]): the target of the decomposition, or a rate in Hz, drawn above.
    figure : matplotlib Figure or SubFigure, optional
        Where to draw; by default a new one.

    Returns
    -------
    ndarray of matplotlib Axes
        The heat map (sign x channel) x time, and before it the rate if there is one. Colours are
        symmetric about 0: red raised the output, blue lowered it.

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        If a dim or the cell is missing, the layer still has space, or the stretch is empty.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from retina_codec import plot
    >>> values = np.random.default_rng(0).normal(size=(100, 4))
    >>> shown = xr.DataArray(values, {"time": np.arange(100) * 0.01}, ("time", "channel"))
    >>> (axes,) = plot.contribution(shown)
    >>> axes.get_xlabel()
    'time (s)'
    """
    contribution = require_array(contribution, "contribution")
    space = [dim for dim in ("y", "x") if dim in contribution.dims]
    if space:
        raise ValueError(
            f"contribution has dims {tuple(contribution.dims)}; a heat map needs one value a "
            f"channel: sum over space with .sum({tuple(space)}, keep_attrs=True)"
        )
    contribution, axis_label = along_samples(contribution)
    contribution = require_dims(
        contribution, ("time", "cell", "sign", "channel"), "contribution", optional=("cell", "sign")
    )
    chosen = in_stretch(one_cell(contribution, cell, "contribution"), time, "contribution")
    above = None
    if rate is not None:
        rate, _ = along_samples(require_array(rate, "rate"))
        rate = require_dims(rate, ("time", "cell"), "rate", optional=("cell",))
        above = in_stretch(one_cell(rate, cell, "rate"), time, "rate")

    values, units = side_by_side(chosen, "time")
    height = float(np.clip(1.6 + 0.2 * len(units), 2.6, 9)) + (1.2 if rate is not None else 0)
    figure = figure_for(figure, (8.5, height))
    if above is None:
        axes = np.array([figure.subplots()], dtype=object)
    else:
        ratio = max(2.0, len(units) / 5)
        axes = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [1, ratio]})
        draw_line(axes[0], above, color=BLACK)
        axes[0].set_ylabel(label_of(above, "" if "long_name" in above.attrs else "rate"))
        settle_ticks(axes[0])
    heat = axes[-1]
    rows = xr.DataArray(values, chosen["time"].coords, ("time", "unit"))
    draw_rows(heat, rows, "unit", label_of(contribution), symmetric=True)
    settle_ticks(heat)
    mark_rows(heat, units.names, fewer=True)
    head_rows(heat, units)
    heat.set_xlabel(axis_label)
    if "cell" in chosen.coords:
        axes[0].set_title(f"cell {chosen['cell'].item()}")
    return axes
