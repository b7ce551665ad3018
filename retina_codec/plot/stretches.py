"""Stretches of time: choosing them, and drawing over them without crossing a gap."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from retina_codec._common.checks import nearest_names
from retina_codec._common.time import runs_of
from retina_codec.plot.style import PALE, color_bar, color_limits

Stretch = slice | tuple[float, float] | None

TIME_LABEL = "time (s)"
GAP = 1.5  # bins between onsets from which on time has a gap
MOST_COLUMNS = 700  # of a heat map: more than there are pixels would be dropped, not drawn


def along_samples(data: xr.DataArray) -> tuple[xr.DataArray, str]:
    """Return `data` with its samples along `time`, and the label of that axis.

    Images have no time: they stand side by side at their position in the set.
    """
    if "image" not in data.dims:
        return data, TIME_LABEL
    places = {"time": ("image", np.arange(data.sizes["image"], dtype=float))}
    plain = data.drop_vars("image", errors="ignore")
    return plain.assign_coords(places).swap_dims(image="time"), "image (position in the set)"


def in_stretch(data: Any, time: Stretch, argument: str) -> Any:
    """Cut `data` (anything with `time`) to the stretch ``start <= time <= stop``, in seconds.

    Raises
    ------
    TypeError
        If `time` is neither a slice nor a pair.
    ValueError
        If `data` has no coordinate `time`, or no sample in the stretch.
    """
    if "time" not in data.dims or "time" not in data.coords:
        raise ValueError(
            f"{argument} has dims {tuple(data.dims)} and coordinates {list(data.coords)}; expected "
            "a dim 'time' with a coordinate in seconds"
        )
    start, stop = limits_of(time)
    onsets = data["time"].values
    kept = (onsets >= (-np.inf if start is None else start)) & (
        onsets <= (np.inf if stop is None else stop)
    )
    if not kept.any():
        span = (
            f"it goes from {onsets.min():g} to {onsets.max():g} s" if onsets.size else "it is empty"
        )
        raise ValueError(f"{argument} has no sample in time={time!r}; {span}")
    return data.isel(time=kept)


def limits_of(time: Stretch) -> tuple[float | None, float | None]:
    """Start and stop of a stretch in seconds, None where it is open."""
    if time is None:
        return None, None
    if isinstance(time, slice) and time.step is None:
        return time.start, time.stop
    if isinstance(time, tuple | list) and len(time) == 2:
        return time[0], time[1]
    raise TypeError(f"time={time!r}; expected slice(start, stop) or (start, stop) in seconds")


def one_cell(data: xr.DataArray, cell: object, argument: str) -> xr.DataArray:
    """Return `data` at one `cell`; a single cell needs no name.

    Raises
    ------
    ValueError
        If there is no such cell, or several and none is named.
    """
    if "cell" not in data.dims:
        return data
    cells = data["cell"].values if "cell" in data.coords else np.arange(data.sizes["cell"])
    names = [str(name) for name in cells]
    if cell is None:
        if len(names) > 1:
            raise ValueError(f"{argument} has {len(names)} cells; say which: cell={names[0]!r}")
        return data.isel(cell=0)
    if str(cell) not in names:
        raise ValueError(f"cell={cell!r} is not in {argument}; {nearest_names(cell, names)}")
    return data.isel(cell=names.index(str(cell)))


def bin_of(data: Any) -> float:
    """Bin width in seconds to draw with: the recorded one, or else the median interval."""
    onsets = data["time"]
    if "bin_width" in onsets.attrs:
        return float(onsets.attrs["bin_width"])
    return float(np.median(np.diff(onsets.values))) if onsets.size > 1 else 1.0


def drawn_runs(data: Any) -> list[slice]:
    """Return contiguous runs along `time`: by `block`, or where that is absent by gaps in time."""
    if "block" in data.coords:
        return runs_of(data)
    steps = np.diff(data["time"].values)
    edges = np.flatnonzero(steps > GAP * bin_of(data)) + 1
    bounds = [0, *(int(edge) for edge in edges), data.sizes["time"]]
    return [slice(a, b) for a, b in itertools.pairwise(bounds)]


def draw_line(ax: Axes, data: xr.DataArray, **options: Any) -> Any:
    """Draw data (time) as one line, broken where a block ends."""
    times: list[np.ndarray] = []
    values: list[np.ndarray] = []
    gap = np.array([np.nan])
    for run in drawn_runs(data):
        times += [data["time"].values[run], gap]
        values += [data.values[run].astype(float), gap]
    return ax.plot(np.concatenate(times)[:-1], np.concatenate(values)[:-1], **options)[0]


def draw_rows(
    ax: Axes, data: xr.DataArray, row_dim: str, label: str, *, symmetric: bool = False
) -> list[Any]:
    """Heat map (`row_dim` x time), one image a block, with one colour scale and colour bar."""
    values = data.transpose(row_dim, "time").values.astype(float)
    colors, extend = color_limits(values)
    if symmetric and colors["vmin"] == 0:
        colors = color_limits(np.concatenate([values, -values]))[0]
    width = bin_of(data)
    onsets = data["time"].values
    images = []
    factor = -(-len(onsets) // MOST_COLUMNS)
    for run in drawn_runs(data):
        shown = _averaged(values[:, run], factor)
        stop = onsets[run.start] + shown.shape[1] * factor * width
        extent = (onsets[run.start], stop, len(values) - 0.5, -0.5)
        images.append(
            ax.imshow(shown, aspect="auto", extent=extent, interpolation="nearest", **colors)
        )
    ax.set_xlim(onsets[0], onsets[-1] + width)
    ax.set_facecolor(PALE)
    color_bar(ax, images[0], label, extend)
    return images


def _averaged(values: np.ndarray, factor: int) -> np.ndarray:
    """Means (row, group) of each `factor` columns, the last ones of what is left."""
    starts = np.arange(0, values.shape[1], factor)
    return np.add.reduceat(values, starts, axis=1) / np.diff(np.r_[starts, values.shape[1]])
