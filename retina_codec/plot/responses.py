"""Responses over time: what a cell did, and what models say it does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xarray as xr
from matplotlib.axes import Axes

from retina_codec._common.checks import require_dims
from retina_codec._common.time import bin_width_of
from retina_codec.plot.stretches import (
    TIME_LABEL,
    Stretch,
    draw_line,
    in_stretch,
    limits_of,
    one_cell,
)
from retina_codec.plot.style import GREY, PALETTE, axes_for, legend_beside, styled
from retina_codec.recordings.nodes import require_node


@styled
def prediction(
    predicted: xr.DataArray | Mapping[str, xr.DataArray],
    node: xr.DataTree | xr.Dataset,
    *,
    cell: object = None,
    time: Stretch = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the recorded response of one cell, and the rates that models predict.

    Parameters
    ----------
    predicted : DataArray, or mapping of str to DataArray
        Rates (time, cell) in Hz, as from ``model.predict``; several by name.
    node : DataTree or Dataset
        The recording: spike_count ([repeat,] time, cell). The mean over repeats divided by the
        bin width (Hz) is drawn; without repeats it is the single trial.
    cell : str, optional
        Id of the cell; needed if there are several.
    time : slice or (float, float), optional
        Stretch to draw, in seconds; by default all.
    ax : matplotlib Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    matplotlib Axes
        With the response as an area and one line a model.

    Raises
    ------
    TypeError
        If `predicted`, `node`, `time` or `ax` is of another type.
    ValueError
        If a dim, the cell or every sample of the stretch is missing.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from retina_codec._common.time import time_coordinate
    >>> from retina_codec import plot
    >>> coords = {"time": time_coordinate(np.arange(200) * 0.01, 0.01), "cell": ["C1"]}
    >>> counts = np.random.default_rng(0).poisson(0.2, size=(5, 200, 1))
    >>> node = xr.Dataset({"spike_count": (("repeat", "time", "cell"), counts)}, coords)
    >>> rate = xr.DataArray(np.full((200, 1), 20.0), coords, ("time", "cell"))
    >>> plot.prediction(rate, node, cell="C1").get_ylabel()
    'firing rate (Hz)'
    """
    named = dict(predicted) if isinstance(predicted, Mapping) else {"model": predicted}
    if not named:
        raise ValueError("predicted is empty; give at least one DataArray (time, cell)")
    data = require_node(node, "node")
    observed = one_cell(data["spike_count"], cell, "node['spike_count']")
    lines = {}
    for name, rate in named.items():
        argument = f"predicted[{name!r}]" if isinstance(predicted, Mapping) else "predicted"
        rate = one_cell(
            require_dims(rate, ("time", "cell"), argument, optional=("cell",)), cell, argument
        )
        lines[name] = in_stretch(rate, time, argument)
    observed = in_stretch(observed, time, "node")
    repeats = observed.sizes.get("repeat", 1)
    rate = (observed.mean("repeat") if "repeat" in observed.dims else observed) / bin_width_of(data)

    ax = axes_for(ax, (8.0, 3.2))
    name = "single trial" if repeats == 1 else f"recorded, mean of {repeats} repeats"
    _area(ax, rate, name)
    for (name, line), color in zip(lines.items(), _colors(len(lines)), strict=True):
        # In steps as the response is: a bin starts at its onset.
        draw_line(ax, line, color=color, label=name, drawstyle="steps-post")
    ax.set(xlabel=TIME_LABEL, ylabel="firing rate (Hz)", ylim=(0, None))
    start, stop = limits_of(time)
    onsets = rate["time"].values
    ax.set_xlim(onsets[0] if start is None else start, onsets[-1] if stop is None else stop)
    if "cell" in observed.coords:
        ax.set_title(f"cell {observed['cell'].item()}")
    legend_beside(ax)
    return ax


def _area(ax: Axes, rate: xr.DataArray, label: str) -> None:
    """Fill under a rate, and mark its upper edge."""
    line = draw_line(ax, rate, color=GREY, linewidth=0.6, drawstyle="steps-post")
    times, values = line.get_data()
    ax.fill_between(times, values, step="post", color=GREY, alpha=0.35, linewidth=0, label=label)


def _colors(n: int) -> list[Any]:
    return [PALETTE[i % len(PALETTE)] for i in range(n)]
