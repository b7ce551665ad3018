"""NIX files as neo writes them, read through their HDF5 layout, which is fast for many cells.

neo's own reader makes an object of each spike train, at some 6 ms each; here the trains of a
segment become one flat array. Cells are in the natural order of their ids: the file has none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import dask.array as da
import h5py
import numpy as np
import quantities as pq
import xarray as xr

from retina_codec.recordings.formats.base import Format, Options, Read
from retina_codec.recordings.formats.hdf5 import opened
from retina_codec.recordings.formats.neo_files import read_recorded
from retina_codec.recordings.formats.stored import ANEW, chosen, with_spike_times
from retina_codec.recordings.from_neo import ORIGINAL_NAME
from retina_codec.recordings.recorded import EpochTable, Recorded, Trace, precision_notes
from retina_codec.recordings.spikes import SpikeTimes

SAVED = "retina_codec"  # property of the block in which save_recording says what belongs to it
VARIABLE = "retina_codec.variable"
IN_MEMORY_BYTES = 64 * 2**20
CHUNK_BYTES = 32 * 2**20


def _recognises(path: Path) -> bool:
    if not path.is_file():
        return False
    if path.suffix.lower() == ".nix":
        return True
    try:
        with h5py.File(path, "r") as file:
            return file.attrs.get("format") == "nix"
    except OSError:
        return False


def _read(path: Path, options: Options) -> Read:
    anew = [name for name in options.given() if name in ANEW]
    with opened(path) as file:
        block = _block(file, path)
        parts = [
            _segment(group)
            for group in _in_order(block.get("groups", {}))
            if _type(group) == "neo.segment"
        ]
        said = _property(block, SAVED)
        saved = None if said is None or anew else json.loads(said)
        tree = None if saved is None else _saved(block, saved, path)
    if saved is None or tree is None:
        names = [part.name for part in parts]
        if len(set(names)) < len(names):
            raise ValueError(
                f"path={str(path)!r} holds {len(parts)} segments, but not their order, which must "
                f"be told by different names ({', '.join(map(repr, names))}): name them"
            )
        return read_recorded(parts, path, options)
    (part,) = parts
    return chosen(with_spike_times(tree, part.spikes, saved["digest"], path), options), []


def _block(file: h5py.File, path: Path) -> h5py.Group:
    """Find the block with neo's segments."""
    held = [block for block in file.get("data", {}).values() if _type(block) == "neo.block"]
    if len(held) != 1:
        raise ValueError(
            f"path={str(path)!r} holds {len(held)} blocks of neo; expected one, as neo.NixIO "
            "writes it: read others with neo, and give the block to recording_from_neo"
        )
    return held[0]


def _type(item: h5py.Group) -> str:
    return str(item.attrs.get("type", ""))


def _in_order(group: Any) -> list[h5py.Group]:
    """Entities in the natural order of their names: the file keeps no other."""
    held = [item for item in group.values() if isinstance(item, h5py.Group)]
    return sorted(held, key=lambda item: _natural(_name(item)))


def _natural(text: str) -> list[tuple[int, str]]:
    """Key to sort names so that 2 comes before 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]


def _property(item: h5py.Group, name: str) -> Any:
    """First value of a property of an entity, None if it has none."""
    place = f"metadata/properties/{name}"
    if place not in item:
        return None
    value = item[place][()]
    first = value[0] if np.ndim(value) else value
    return first.decode() if isinstance(first, bytes) else first


def _name(item: h5py.Group) -> str:
    """Name in neo, the one before a writer changed it if that is told."""
    return str(_property(item, ORIGINAL_NAME) or _property(item, "neo_name") or "")


def _segment(group: h5py.Group) -> Recorded:
    """Read a segment; each entity is opened once, and closed again: there are thousands."""
    ids: list[str] = []
    times: list[np.ndarray] = []
    dtypes = set()
    events: dict[str, np.ndarray] = {}
    tables: list[EpochTable] = []
    tags = group.get("multi_tags", {})
    for key in tags:
        tag = tags[key]
        kind = _type(tag)
        if kind == "neo.spiketrain":
            given = _property(tag, "neo_name") or _property(tag, "id")
            ids.append(str(len(ids) if given is None else given))
            array = tag["positions"]
            data = array["data"]
            dtypes.add(data.dtype)
            times.append(_seconds(array, data))
        elif kind == "neo.event":
            events[_name(tag) or f"event {len(events)}"] = _seconds(tag["positions"])
        elif kind == "neo.epoch":
            tables.append(_table(tag))
    name = _name(group)
    if not ids:
        raise ValueError(
            f"path: segment {name!r} holds no spike trains; expected one neo.SpikeTrain a cell"
        )
    order = sorted(range(len(ids)), key=lambda i: _natural(ids[i]))
    offsets = np.r_[0, np.cumsum([len(times[i]) for i in order])]
    flat = np.empty(offsets[-1])
    for place, i in enumerate(order):
        flat[offsets[place] : offsets[place + 1]] = times[i]
        times[i] = flat[:0]  # not held twice
    spikes = SpikeTimes.checked(flat, offsets, [ids[i] for i in order])
    return Recorded(
        spikes,
        events,
        sorted(tables, key=lambda table: table.name),
        _signals(group),
        name,
        precision_notes(np.result_type(*dtypes), flat),
    )


def _seconds(array: h5py.Group, data: h5py.Dataset | None = None) -> np.ndarray:
    """Read the times of a data array, in seconds."""
    values = np.asarray((array["data"] if data is None else data)[()], dtype=np.float64)
    unit = str(array.attrs.get("unit", "s"))
    return values if unit == "s" else pq.Quantity(values, unit).rescale("s").magnitude


def _table(tag: h5py.Group) -> EpochTable:
    start = _seconds(tag["positions"])
    name = _name(tag) or "epoch"
    duration = np.broadcast_to(_seconds(tag["extents"]), start.shape)
    held = tag["positions"].get("dimensions/1/labels")
    labels = [] if held is None else [str(label) for label in held.asstr()[()]]
    columns = {}
    for key, item in tag["metadata/properties"].items():
        values = item[()]
        is_own = key in ("neo_name", "nix_name", ORIGINAL_NAME)
        # Only array annotations have a value for each epoch; their type says what they are.
        if is_own or np.shape(values) != start.shape or item.attrs.get("type") != "ARRAYANNOTATION":
            continue
        is_text = h5py.check_string_dtype(item.dtype) is not None
        units = item.attrs.get("unit")
        columns[key] = (
            np.array(item.asstr()[()], dtype=str) if is_text else values,
            {"units": str(units)} if units else {},
        )
    known = len(labels) == len(start) and any(labels)
    return EpochTable(
        name, start, duration, np.array(labels) if known else np.full(len(start), name), columns
    )


def _signals(group: h5py.Group) -> dict[str, Callable[[], Trace]]:
    """Channels of the segment's signals, one data array each."""
    found: dict[str, Callable[[], Trace]] = {}
    path = Path(group.file.filename)
    arrays = [
        array
        for array in group.get("data_arrays", {}).values()
        if _type(array) in ("neo.analogsignal", "neo.irregularlysampledsignal")
    ]
    names = [_name(array) or "signal" for array in arrays]
    for array, name in zip(arrays, names, strict=True):
        # Arrays of one signal share its name and end in the number of the channel.
        channel = str(array.attrs["name"]).rsplit(".", 1)[-1]
        called = name if names.count(name) == 1 else f"{name}[{channel}]"
        found[called] = partial(_trace, path, array.name)
    return found


def _trace(path: Path, name: str) -> Trace:
    with opened(path) as file:
        array = file[name]
        values = np.asarray(array["data"][()], dtype=np.float64)
        time = array["dimensions/1"]
        unit = str(time.attrs.get("unit", "s"))
        if "ticks" in time:
            times = np.asarray(time["ticks"][()])
        else:
            start = float(time.attrs.get("offset", 0.0))
            times = np.asarray(
                start + np.arange(len(values)) * float(time.attrs["sampling_interval"])
            )
    return pq.Quantity(times, unit).rescale("s").magnitude, values


# What save_recording wrote


class StoredArray:
    """Array of an HDF5 file, which is opened for each part that is read, and closed again."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        self.path, self.name = Path(dataset.file.filename).resolve(), dataset.name
        self.shape, self.dtype, self.ndim = dataset.shape, dataset.dtype, dataset.ndim

    def __getitem__(self, key: Any) -> np.ndarray:
        with opened(self.path) as file:
            return np.asarray(file[self.name][key])


def _saved(block: h5py.Group, said: dict[str, Any], path: Path) -> xr.DataTree:
    """Nodes that save_recording wrote; movies, and what is larger than 64 MB, lazily."""
    nodes: dict[str, dict[str, dict[str, xr.Variable]]] = {
        place: {"data_vars": {}, "coords": {}} for place in said["attrs"]
    }
    for array in block.get("data_arrays", {}).values():
        if _type(array) == VARIABLE:
            about = json.loads(array.attrs["definition"])
            kind = "coords" if about["coordinate"] else "data_vars"
            values = _values(array["data"], about)
            made = xr.Variable(about["dims"], values, about["attrs"])
            nodes[about["node"]][kind][about["name"]] = made
    tree = xr.DataTree.from_dict(
        {
            place: xr.Dataset(held["data_vars"], held["coords"], said["attrs"][place])
            for place, held in nodes.items()
        }
    )
    if "spikes" not in tree.children:
        raise OSError(f"path={str(path)!r}: the arrays of save_recording are gone; copy it anew")
    return tree


def _values(data: h5py.Dataset, about: dict[str, Any]) -> Any:
    if h5py.check_string_dtype(data.dtype) is not None:
        return np.array(data.asstr()[()], dtype=str).reshape(data.shape if about["dims"] else ())
    if not about["dims"]:
        return data[()].reshape(())
    small = data.nbytes <= IN_MEMORY_BYTES
    if about["coordinate"] or (small and about["name"] != "stimulus"):
        return data[()]
    # Chunks along time, which is first but for the counts of repeats.
    axis = about["dims"].index("time") if "time" in about["dims"] else 0
    row = max(1, data.nbytes // max(1, data.shape[axis]))
    chunks = list(data.shape)
    chunks[axis] = min(data.shape[axis], max(1, CHUNK_BYTES // row))
    return da.from_array(StoredArray(data), chunks=tuple(chunks), meta=np.empty(0, data.dtype))


NIX = Format(
    name="nix",
    expects="a NIX file, as neo writes it",
    takes=("stimulus", "frame_times", "bin_width", "cells", "plan", "frames"),
    recognises=_recognises,
    read=_read,
)
