"""Hidden units side by side: the dims that tell them apart, as labelled rows or columns."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from retina_codec.plot.style import BLACK, settle_ticks

UNIT_DIMS = ("sign", "channel", "y", "x")


@dataclass(frozen=True)
class Units:
    """Labels of units side by side: a name each, and the groups (heading, start, stop)."""

    names: list[str]
    groups: list[tuple[str, int, int]]

    def __len__(self) -> int:
        return len(self.names)


def side_by_side(data: xr.DataArray, kept: str) -> tuple[np.ndarray, Units]:
    """Values (`kept`, unit) of `data`, all other dims stacked, and the labels of the units.

    The last dim names a unit and the others its group: ``(mode, sign, channel)`` gives the
    groups "positive" and "negative". Columns of several layers (dim ``column`` with the
    coordinates `layer`, `sign`, `channel`) are grouped in the same way.
    """
    if "column" in data.dims:
        keys = [key for key in ("layer", *UNIT_DIMS) if key in data.coords]
        rows = list(zip(*(data[key].values.astype(str) for key in keys), strict=True))
        values = data.transpose(kept, "column").values
    else:
        order = {dim: place for place, dim in enumerate(UNIT_DIMS)}
        dims = sorted((d for d in data.dims if d != kept), key=lambda d: order.get(str(d), -1))
        labels = [
            data[dim].values.astype(str) if dim in data.coords else np.arange(data.sizes[dim])
            for dim in dims
        ]
        shape = [len(values) for values in labels]
        rows = [
            tuple(str(values[i]) for values, i in zip(labels, index, strict=True))
            for index in np.ndindex(*shape)
        ]
        values = data.transpose(kept, *dims).values.reshape(data.sizes[kept], -1)
    return values.astype(float), Units([row[-1] for row in rows], _groups(rows))


def _groups(rows: Sequence[tuple[str, ...]]) -> list[tuple[str, int, int]]:
    headings = [" ".join(row[:-1]) for row in rows]
    edges = [0, *(i for i in range(1, len(rows)) if headings[i] != headings[i - 1]), len(rows)]
    return [(headings[a], a, b) for a, b in itertools.pairwise(edges)]


def head_columns(ax: Axes, groups: Sequence[tuple[str, int, int]]) -> None:
    """Write the headings of groups of columns above a heat map, and part them by lines."""
    for _, start, _ in groups[1:]:
        ax.axvline(start - 0.5, color=BLACK, linewidth=1.2)
    if any(heading for heading, _, _ in groups):
        top = ax.secondary_xaxis("top")
        middles = [(start + stop - 1) / 2 for _, start, stop in groups]
        top.xaxis.set_ticks(middles, [heading for heading, _, _ in groups])
        top.tick_params(length=0)
        settle_ticks(top)
        top.spines["top"].set_visible(False)


def head_rows(ax: Axes, units: Units) -> None:
    """Write the headings of groups of rows left of a heat map, and part them by lines."""
    beside = -(16 + 6 * max(len(name) for name in units.names))
    for heading, start, stop in units.groups:
        if start:
            ax.axhline(start - 0.5, color=BLACK, linewidth=1.2)
        ax.annotate(
            f"{heading} channel".strip(),
            (0, (start + stop - 1) / 2),
            (beside, 0),
            xycoords=ax.get_yaxis_transform(),
            textcoords="offset points",
            rotation=90,
            ha="right",
            va="center",
        )
