"""What a node of a recording must hold, checked at the door; choosing cells by id."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from retina_codec._common.checks import nearest_names, require_dims
from retina_codec._common.time import bin_width_of

COUNT_DIMS = ("repeat", "time", "cell")
STIMULUS_DIMS = ("time", "color", "y", "x")
# What was recorded, in the order in which it is looked for.
RESPONSES = ("spike_count", "rate", "response", "potential")


def require_node(
    node: Any, argument: str, *, variables: Sequence[str] = ("spike_count",)
) -> xr.Dataset:
    """Return the node of a recording as a Dataset with dims in order, or say what it lacks."""
    if isinstance(node, xr.DataTree):
        data = node.to_dataset()
    elif isinstance(node, xr.Dataset):
        data = node
    else:
        raise TypeError(
            f"{argument} is a {type(node).__name__}; expected one node of a recording, "
            "such as recording['train'] (xarray.DataTree or Dataset)"
        )
    for name in variables:
        if name not in data:
            remedy = f"it has {', '.join(map(str, data.data_vars)) or 'no variables'}"
            if isinstance(node, xr.DataTree) and node.children:
                names = ", ".join(f"[{child!r}]" for child in node.children)
                remedy = f"it is a tree: give one of its nodes, {names}"
            raise ValueError(f"{argument} has no variable {name!r}; {remedy}")
    if "spike_count" in data:
        counts = require_dims(
            data["spike_count"], COUNT_DIMS, f"{argument}['spike_count']", optional=("repeat",)
        )
        if "cell" not in counts.coords:
            raise ValueError(
                f"{argument} has no coordinate 'cell'; name the cells with "
                ".assign_coords(cell=[...])"
            )
        data = data.assign(spike_count=counts)
    if "stimulus" in data:
        stimulus = require_dims(
            data["stimulus"], STIMULUS_DIMS, f"{argument}['stimulus']", optional=("color",)
        )
        data = data.assign(stimulus=stimulus)
    bin_width_of(data, argument)
    return data


def response_of(node: Any) -> str | None:
    """Name of what was recorded in a node, the first of `RESPONSES`; None where there is none."""
    held = node.data_vars if isinstance(node, xr.DataTree | xr.Dataset) else ()
    return next((name for name in RESPONSES if name in held), None)


def cell_coordinate(ids: Sequence[str]) -> xr.DataArray:
    """Return the `cell` coordinate: the ids of the cells."""
    return xr.DataArray(np.asarray(ids, dtype=str), dims="cell", attrs={"long_name": "cell id"})


def chosen_cells(available: Sequence[str], cells: Iterable[object] | None) -> list[str]:
    """Ids of `cells` in the order asked for (all of `available` for None)."""
    if cells is None:
        return list(available)
    if isinstance(cells, str):
        raise TypeError(f"cells={cells!r} is one string; expected a list of ids: [{cells!r}]")
    wanted = [str(cell) for cell in cells]
    if not wanted:
        raise ValueError("cells is empty; give at least one id, or None for all cells")
    for place, cell in enumerate(wanted):
        if cell not in available:
            raise ValueError(f"cells: no cell {cell!r}; {nearest_names(cell, available)}")
        if cell in wanted[:place]:
            raise ValueError(f"cells: {cell!r} is given twice; give each id once")
    return wanted
