"""What `save_recording` wrote: Zarr or netCDF, opened lazily."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from retina_codec._common.checks import magnitude
from retina_codec._common.files import TREE_SUFFIXES, open_tree
from retina_codec._common.time import bin_width_of
from retina_codec.recordings.binning import require_matching_width
from retina_codec.recordings.formats.base import Format, Options, Read
from retina_codec.recordings.nodes import RESPONSES, chosen_cells, require_node, response_of
from retina_codec.recordings.spikes import SpikeTimes


def _recognises(path: Path) -> bool:
    return path.suffix in TREE_SUFFIXES


def _read(path: Path, options: Options) -> Read:
    tree = open_tree(path)
    nodes = require_recording(tree, "path")
    if options.bin_width is not None:
        for data in nodes:
            given = magnitude(options.bin_width, "s", "bin_width")
            require_matching_width(given, bin_width_of(data, "path"))
    return (tree if options.cells is None else of_cells(tree, options.cells)), []


def require_recording(tree: xr.DataTree, argument: str) -> list[xr.Dataset]:
    """Nodes that hold stimulus and responses; ValueError if there are none."""
    nodes = [
        (node, name) for node in tree.subtree for name in [response_of(node)] if name is not None
    ]
    if not nodes:
        held = ", ".join(node.path for node in tree.subtree)
        raise ValueError(
            f"{argument} is no recording: none of its nodes ({held}) holds 'spike_count' (or "
            f"{', '.join(map(repr, RESPONSES[1:]))}); expected a node such as 'train' with "
            "stimulus(time, y, x) and spike_count(time, cell)"
        )
    return [
        require_node(node, f"{argument}[{node.path!r}]", variables=("stimulus", name))
        for node, name in nodes
    ]


def of_cells(tree: xr.DataTree, cells: object) -> xr.DataTree:
    """Return the tree with these cells only, in this order, in every node that has them all."""
    ids = [_ids(node.to_dataset()) for node in tree.subtree if "cell" in node.coords]
    shared = [cell for cell in ids[0] if all(cell in others for others in ids)]
    wanted = chosen_cells(shared, cells)  # type: ignore[arg-type]

    def chosen(data: xr.Dataset) -> xr.Dataset:
        if "cell" not in data.coords:
            return data
        if "spike_time" in data:
            selected = SpikeTimes.from_dataset(data).select(wanted).to_dataset()
            return selected.assign_attrs(data.attrs)
        ids = _ids(data)
        return data.isel(cell=[ids.index(cell) for cell in wanted])

    return tree.map_over_datasets(chosen)


def _ids(data: xr.Dataset) -> list[str]:
    return [str(cell) for cell in data["cell"].values]


TREE = Format(
    name="tree",
    expects="a .zarr or .nc of save_recording",
    takes=("bin_width", "cells"),
    recognises=_recognises,
    read=_read,
)
