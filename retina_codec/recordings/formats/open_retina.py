"""HDF5 files in the layout of open-retina, one file a session.

They hold::

    responses_<stimulus>     (cell, time), or (trial, cell, time)
    stimulus_<stimulus>      (channel, time, y, x)
    session_info/...         about the session

or, for stimuli that several sessions share, ``stimuli/<stimulus>.npy`` in the file's folder. The
path is the file, or a folder with one such file. Each stimulus becomes a node of its name; more
than one channel becomes the dim `color`. The layout has no clock: `bin_width` must be given, unless
``session_info/frame_rate`` (Hz) is there. Responses that are whole numbers are spike counts; others
(calcium traces) are kept as they are, as `response`, and no counts are made of them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr

from retina_codec._common.checks import nearest_names, require_finite
from retina_codec.recordings.formats.base import Format, Options, Read
from retina_codec.recordings.formats.binned import (
    agreed_bin_width,
    binned_node,
    binned_tree,
    counts_in_bins,
    given_bin_width,
    matched,
    natural,
    regular_bins,
    require_cells,
    require_node_name,
    require_plausible_counts,
)
from retina_codec.recordings.formats.hdf5 import dataset_names, looks_inside, opened
from retina_codec.recordings.nodes import chosen_cells
from retina_codec.stimuli.sources import open_movie

RESPONSES = "responses_"
STIMULUS = "stimulus_"
FOLDER = "stimuli"
INFO = "session_info"
FRAME_RATE = f"{INFO}/frame_rate"
CELL_IDS = f"{INFO}/roi_ids"
SUFFIXES = (".h5", ".hdf5")
AXES = ("color", "time", "y", "x")
MOST_COLORS = 4  # no display has more; an axis longer than this is no channel


def _recognises(path: Path) -> bool:
    files = _sessions(path) if path.is_dir() else [path]
    return any(
        name.startswith(RESPONSES) for file in files for name in (looks_inside(file) or set())
    )


def _sessions(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES)


def _read(path: Path, options: Options) -> Read:
    path = _session(path)
    notes: list[str] = []
    nodes: dict[str, xr.Dataset] = {}
    with opened(path) as file:
        found = {
            name.removeprefix(RESPONSES): file[name]
            for name in dataset_names(file)
            if name.startswith(RESPONSES) and "/" not in name
        }
        if not found:
            raise ValueError(
                f"path={str(path)!r} holds no array {RESPONSES}<stimulus>; "
                f"{nearest_names(RESPONSES, file)}"
            )
        width = _bin_width(file, options.bin_width)
        ids = _cell_ids(file, found)
        wanted = chosen_cells(ids, options.cells)
        rows = [ids.index(cell) for cell in wanted]
        for name in natural(found):
            values = np.ascontiguousarray(np.swapaxes(found[name][...][..., rows, :], -1, -2))
            movie, said = matched(_movie(path, file, name), values.shape[-2], name)
            nodes[require_node_name(name)], more = _node(movie, values, width, wanted, name)
            notes += [*said, *more]
        info = _session_info(file)
    tree, notes = binned_tree(nodes, notes, function="open_retina", bin_width=width)
    if info:
        tree.attrs["session_info"] = json.dumps(info, sort_keys=True)
    return tree, notes


def _session(path: Path) -> Path:
    """Return the file itself, or the one session of a folder."""
    if not path.is_dir():
        return path
    files = _sessions(path)
    if len(files) != 1:
        listed = ", ".join(file.name for file in files) or "none"
        raise ValueError(
            f"path={str(path)!r} is a folder with {len(files)} sessions ({listed}); give the path "
            f"of one of them: {FOLDER}/ beside it is found"
        )
    return files[0]


def _bin_width(file: h5py.File, given: Any) -> float:
    if FRAME_RATE in file:
        rate = float(np.ravel(file[FRAME_RATE][...])[0])
        if not rate > 0:
            raise ValueError(f"path: {FRAME_RATE} is {rate:g}; expected frames per second")
        found = given_bin_width(1 / rate, f"path: 1 / {FRAME_RATE}")
        return agreed_bin_width(given, found)
    if given is None:
        raise ValueError(
            f"bin_width was not given, and the file has no {FRAME_RATE}: this layout has no clock; "
            "say how long a frame lasted, such as bin_width=1/30 (seconds)"
        )
    return given_bin_width(given)


def _cell_ids(file: h5py.File, found: dict[str, h5py.Dataset]) -> list[str]:
    """Ids of the regions of interest where the session has them, else the numbers of the rows."""
    sizes = {}
    for name, dataset in found.items():
        if dataset.ndim not in (2, 3):
            raise ValueError(
                f"path: {RESPONSES}{name} has shape {dataset.shape}; expected (cell, time) or "
                "(trial, cell, time)"
            )
        sizes[name] = dataset.shape[-2]
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{RESPONSES}{name}: {n}" for name, n in sizes.items())
        raise ValueError(
            f"path: the responses are those of different numbers of cells ({listed}); expected the "
            "same cells, in the same order, for all stimuli"
        )
    n_cells = next(iter(sizes.values()))
    if CELL_IDS in file and file[CELL_IDS].size == n_cells:
        return require_cells(np.ravel(file[CELL_IDS][...]).tolist())
    return require_cells(range(n_cells))


def _movie(path: Path, file: h5py.File, name: str) -> xr.DataArray:
    inside, beside = f"{STIMULUS}{name}", path.parent / FOLDER / f"{name}.npy"
    if inside in file:
        movie = open_movie(path, dataset=inside, dims=AXES)
        kind, where = file[inside].dtype.kind, inside
    elif beside.is_file():
        movie = open_movie(beside, dims=AXES)
        kind, where = np.load(beside, mmap_mode="r").dtype.kind, f"{FOLDER}/{beside.name}"
    else:
        there = [entry for entry in dataset_names(file) if entry.startswith(STIMULUS)]
        there += [f"{FOLDER}/{entry.name}" for entry in (path.parent / FOLDER).glob("*.npy")]
        raise ValueError(
            f"path: there is no stimulus for {RESPONSES}{name}: neither {inside!r} in the file nor "
            f"{FOLDER}/{name}.npy beside it; {nearest_names(inside, there)}"
        )
    if movie.sizes["color"] > MOST_COLORS:
        raise ValueError(
            f"path: {where} has {movie.sizes['color']} channels; expected (channel, time, y, x) "
            f"with at most {MOST_COLORS}: the axes are in another order"
        )
    if kind == "f":
        require_finite(movie, f"stimulus ({where})")
    return movie.isel(color=0, drop=True) if movie.sizes["color"] == 1 else movie


def _node(
    movie: xr.DataArray, values: np.ndarray, width: float, cells: list[str], name: str
) -> tuple[xr.Dataset, list[str]]:
    where = f"{RESPONSES}{name}"
    dims = ("trial", "time", "cell")[3 - values.ndim :]
    onsets = regular_bins(values.shape[-2], width)
    common: dict[str, Any] = {"onsets": onsets, "bin_width": width, "cells": cells}
    if "trial" not in dims:
        common["block"] = np.zeros(len(onsets), dtype=np.int64)
    counts = counts_in_bins(values, width)
    if counts is not None:
        notes = require_plausible_counts(counts, cells, width, name)
        return binned_node(movie, counts=counts, **common), notes
    require_finite(xr.DataArray(values, dims=dims), f"path: {where}")
    said = f"{where}, as they are; the file has no spike counts of {name}"
    node = binned_node(movie, response=values.astype(np.float64), said=said, **common)
    return node, [f"response is {said}"]


def _session_info(file: h5py.File) -> dict[str, Any]:
    """Words and single numbers that the session says of itself."""
    group = file.get(INFO)
    info: dict[str, Any] = {}
    for name, item in group.items() if isinstance(group, h5py.Group) else []:
        if isinstance(item, h5py.Dataset) and item.size == 1 and isinstance(name, str):
            value = np.ravel(item[()])[0]
            info[name] = value.decode() if isinstance(value, bytes) else np.asarray(value).item()
    return info


OPEN_RETINA = Format(
    name="open_retina",
    expects=f"an HDF5 file with {RESPONSES}<stimulus> and {STIMULUS}<stimulus>, or {FOLDER}/ "
    "beside it, of open-retina",
    takes=("bin_width", "cells"),
    recognises=_recognises,
    read=_read,
)
