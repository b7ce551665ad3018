r"""Any file with arrays, and a mapping that says what they are.

The file is HDF5, netCDF, NPZ, NPY or one of MATLAB; or the path is a folder, and the mapping names
files in it. The mapping is a dict, or the path of a YAML file. All keys are optional where not
said otherwise::

    stimulus:                  # needed
      entry: movie             # path of the array in the file ("group/movie", struct "data/movie")
      file: movie.npy          # another file, in the folder of the recording; entry: is in it then
      dims: [time, y, x]       # what its axes are: time, color, y, x, in the file's order
      units: "1"               # of its values
    # or a stimulus described by parameters:  {kind: drifting_grating, direction: 45, ...}

    # Either counts in bins, one a frame of the stimulus ...
    spike_count:
      entry: counts            # or entries: {C1: path, C2: path}, one array a cell
      file: counts.npz
      dims: [cell, time]       # time, cell, and repeat where the stimulus was repeated
    rate: {entry: rates, dims: [cell, time]}                    # Hz; where there are no counts
    response: {entry: traces, dims: [cell, time], units: "1"}   # neither counts nor rates

    # ... or spike times, with a time for each frame.
    spike_times:
      entry: spikes            # a group or cell array: an item a cell; a matrix (dims: [cell,
                               # spike], filled up with NaN); or one row of all spikes, with one of
      ends: spike_index        #   where each cell ends in it,
      sizes: n_spikes          #   how many spikes each cell has, or
      cell_of: clusters        #   whose spike each is
      entries: {C1: path}      # or an array a cell, by id
      units: ms                # s, ms, us, or samples with
      sampling_rate: 20000     #   samples per second
      dims: [cell, spike]
      file: spikes.mat
    plan: find                 # repeats: find, {running_frames: 1800, frozen_frames: 600}, or
                               # {starts: [0, 900], n_frames: 500}

    frame_times: {entry: marks, units: s}    # onset of each frame; units as of spike_times
    # or frames of equal length:  {start: 0.5, interval: 0.01}, seconds
    bin_width: 0.01            # seconds; or {value: 10, units: ms}; or {entry: dt, units: s}
    cells: [C1, C2]            # ids, or {entry: ids}; else those of the entries, or numbers from 0
    block: 6                   # so many blocks of equal length, or {entry: block}: a number a bin
    repeat_onset: {entry: starts, units: s}  # start of each repeat

    nodes:                     # several stimuli: the keys above for each, those outside for all
      train: {stimulus: {entry: train/movie}, spike_count: {entry: train/counts, dims: [...]}}
      test: {...}

A plain text stands for ``{entry: text}``. Without `nodes` the node is ``train``; counts with
`repeat` make it ``test``. Axes of files of MATLAB are those that MATLAB shows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import yaml

from retina_codec._common.checks import nearest_names, require_count, require_finite
from retina_codec.recordings.assembly import Plan, Presentation, assemble
from retina_codec.recordings.binning import checked_marks, require_plausible_width
from retina_codec.recordings.formats.base import Format, Options, Read
from retina_codec.recordings.formats.binned import (
    agreed_bin_width,
    binned_node,
    binned_tree,
    bins_of,
    equal_blocks,
    given_bin_width,
    matched,
    natural,
    regular_bins,
    require_cells,
    require_counts,
    require_node_name,
    require_plausible_counts,
)
from retina_codec.recordings.formats.containers import Container
from retina_codec.recordings.nodes import chosen_cells
from retina_codec.recordings.plan import FrozenNoise, RepeatedFrames
from retina_codec.recordings.spikes import SpikeTimes
from retina_codec.stimuli.sources import open_movie

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
PLACE = ("entry", "file")
CLOCK = ("units", "sampling_rate")
KEYS: dict[str, tuple[str, ...]] = {
    "stimulus": (*PLACE, "dims", "units"),
    "spike_count": (*PLACE, "entries", "dims"),
    "rate": (*PLACE, "entries", "dims"),
    "response": (*PLACE, "entries", "dims", "units"),
    "spike_times": (*PLACE, "entries", "ends", "sizes", "cell_of", "dims", *CLOCK),
    "plan": ("running_frames", "frozen_frames", "starts", "n_frames"),
    "frame_times": (*PLACE, "start", "interval", *CLOCK),
    "bin_width": (*PLACE, "value", "units"),
    "cells": PLACE,
    "block": PLACE,
    "repeat_onset": (*PLACE, *CLOCK),
}
RESPONSES = ("spike_count", "rate", "response")
RESPONSE_DIMS = ("repeat", "time", "cell")

Spec = dict[str, Any]


def _read(path: Path, options: Options) -> Read:
    mapping = _mapping(options.mapping)
    specs = _node_specs(mapping)
    if options.stimulus is not None and len(specs) > 1:
        raise ValueError(
            f"stimulus was given, but the mapping has {len(specs)} nodes: say in the mapping which "
            "stimulus each has"
        )
    files = _Files(path)
    if any("spike_times" in spec for spec in specs.values()):
        return _with_spike_times(files, specs, mapping, options)
    for argument in ("plan", "frames"):
        if getattr(options, argument) is not None:
            raise ValueError(
                f"{argument} was given, but the mapping has counts in bins: it goes with "
                "spike_times only"
            )
    nodes: dict[str, xr.Dataset] = {}
    notes: list[str] = []
    for name, spec in specs.items():
        name = name or ("test" if _has_repeats(spec) else "train")
        nodes[name], said = _binned(files, spec, name, options)
        notes += said
    return binned_tree(nodes, notes, function="mapped", mapping=mapping)


# The mapping


def _mapping(given: Any) -> Spec:
    """Return the mapping as a dict, from one or from a YAML file."""
    if given is None:
        raise ValueError(
            "mapping was not given, which the format 'mapped' needs: a dict or the path of a YAML "
            "file that says what the entries are"
        )
    if isinstance(given, str | os.PathLike):
        file = Path(given)
        if not file.is_file():
            raise FileNotFoundError(f"mapping={str(file)!r} is no file")
        try:
            given = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            text = " ".join(str(error).split())
            raise ValueError(f"mapping: {file.name} is no YAML ({text})") from error
    if not isinstance(given, Mapping):
        raise TypeError(
            f"mapping is a {type(given).__name__}; expected a dict, or a YAML file of one"
        )
    return dict(given)


def _node_specs(mapping: Spec) -> dict[str | None, Spec]:
    """Return checked specifications by node; without `nodes`, one under None."""
    nodes = mapping.get("nodes")
    shared = {key: value for key, value in mapping.items() if key != "nodes"}
    if nodes is None:
        return {None: _checked(shared, "mapping", extra=("nodes",))}
    if not isinstance(nodes, Mapping) or not nodes:
        raise ValueError(f"mapping: nodes={nodes!r}; expected a mapping for each node, by name")
    # What is said for all nodes is checked even where each node says it for itself.
    _checked(shared, "mapping", extra=("nodes",), whole=False)
    specs: dict[str | None, Spec] = {}
    for name, own in nodes.items():
        if not isinstance(own, Mapping):
            raise ValueError(f"mapping: nodes: {name}={own!r}; expected a mapping")
        specs[require_node_name(str(name))] = _checked({**shared, **own}, f"mapping: {name}")
    return specs


def _checked(given: Spec, where: str, *, extra: Sequence[str] = (), whole: bool = True) -> Spec:
    """Specification of one node with nothing in it that is not known."""
    spec: Spec = {}
    for key, value in given.items():
        if key not in KEYS:
            raise ValueError(f"{where}: {key!r} is no key; {nearest_names(key, [*KEYS, *extra])}")
        spec[key] = _checked_item(key, value, where)
    if not whole:
        return spec
    held = [key for key in RESPONSES if key in spec]
    if "spike_times" in spec and held:
        raise ValueError(f"{where}: both spike_times and {held[0]} are given; expected one of them")
    if not held and "spike_times" not in spec:
        raise ValueError(
            f"{where}: there are no responses; expected one of spike_count, spike_times, "
            "rate, response"
        )
    return spec


def _checked_item(key: str, value: Any, where: str) -> Any:
    if isinstance(value, str) and key != "plan":
        return {"entry": value}
    if not isinstance(value, Mapping):
        plain = {"bin_width": int | float, "cells": list | tuple, "block": int, "plan": str}
        if key in plain and isinstance(value, plain[key]) and not isinstance(value, bool):
            return value
        raise ValueError(
            f"{where}: {key}={value!r}; expected the name of an entry, or a mapping with some of "
            f"{', '.join(KEYS[key])}"
        )
    if key == "stimulus" and "kind" in value:
        return dict(value)
    for inner in value:
        if inner not in KEYS[key]:
            raise ValueError(
                f"{where}: {key}: {inner!r} is no key; {nearest_names(inner, KEYS[key])}"
            )
    return dict(value)


def _dims(given: Any, known: Sequence[str], where: str) -> tuple[str, ...]:
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise ValueError(f"{where}: dims={given!r}; expected a list of names, such as {[*known]}")
    for dim in given:
        if dim not in known:
            raise ValueError(f"{where}: dims: {dim!r}; {nearest_names(dim, known)}")
    if len(set(given)) != len(given):
        raise ValueError(f"{where}: dims={list(given)!r}; expected each name once")
    return tuple(given)


def _has_repeats(spec: Spec) -> bool:
    return any("repeat" in (spec[key].get("dims") or ()) for key in RESPONSES if key in spec)


# Reading


class _Files:
    """The recording's file or folder, and the other files that the mapping names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: dict[Path, Container] = {}

    def of(self, item: Spec, where: str) -> Container:
        """Give the file that an item of the mapping is in."""
        name = item.get("file")
        folder = self.path if self.path.is_dir() else self.path.parent
        if name is None and self.path.is_dir():
            there = [file.name for file in folder.iterdir() if file.is_file()]
            raise ValueError(
                f"{where}: the path is a folder: say with file: which of its files it is in; "
                f"choices: {', '.join(sorted(there))}"
            )
        path = self.path if name is None else folder / str(name)
        if not path.is_file():
            there = sorted(file.name for file in folder.iterdir() if file.is_file())
            raise FileNotFoundError(
                f"{where}: file {str(name)!r} does not exist; {nearest_names(name, there)}"
            )
        return self._opened.setdefault(path, Container(path))

    def read(self, item: Spec, where: str, *, key: str = "entry") -> Any:
        """Read what stands at the entry of an item."""
        return self.of(item, where).read(item.get(key), where)

    def row(self, item: Spec, where: str, *, key: str = "entry") -> np.ndarray:
        """Numbers in one row or column."""
        values = np.asarray(self.read(item, where, key=key))
        if values.dtype.kind not in "biuf":
            raise ValueError(f"{where}: expected numbers in one row, not {values.dtype}")
        if values.ndim > 1 and max(values.shape) != values.size:
            raise ValueError(f"{where} has shape {values.shape}; expected one row of numbers")
        return values.ravel()


def _movie(files: _Files, spec: Spec, where: str, override: Any) -> tuple[xr.DataArray, bool]:
    """Open the stimulus, and say whether its values have to be looked at for NaN."""
    if override is not None:
        return open_movie(override), True
    if "stimulus" not in spec:
        raise ValueError(f"{where}: there is no stimulus; say which entry, file or kind it is")
    item = spec["stimulus"]
    if "kind" in item:
        return open_movie(item), False
    where = f"{where}: stimulus"
    dims = item.get("dims")
    if dims is not None:
        dims = _dims(dims, ("time", "color", "y", "x"), where)
    units = item.get("units")
    return files.of(item, where).movie(item.get("entry"), dims, units, where)


def _seconds(values: np.ndarray, item: Spec, where: str) -> np.ndarray:
    """Convert times to seconds, from the units that an item states."""
    units = item.get("units", "s")
    rate = item.get("sampling_rate")
    if units == "samples":
        if not isinstance(rate, int | float) or isinstance(rate, bool) or not rate > 0:
            raise ValueError(
                f"{where}: sampling_rate={rate!r}; times in samples need it, in samples per second"
            )
        return values.astype(np.float64) / rate
    if units not in SECONDS:
        raise ValueError(f"{where}: units={units!r}; {nearest_names(units, [*SECONDS, 'samples'])}")
    if rate is not None:
        raise ValueError(f"{where}: sampling_rate goes with units: samples, not {units}")
    # Divided where that is exact: 0.001 has no exact value, 1000 has.
    return values.astype(np.float64) / round(1 / SECONDS[units])


def _texts(values: Any) -> list[str]:
    """Ids as text; whole numbers without a point."""
    if isinstance(values, str):
        return [values.strip()]
    if isinstance(values, list):
        return [text for value in values for text in _texts(value)]
    array = np.ravel(values)
    if array.dtype.kind == "f" and np.array_equal(array, np.round(array)):
        array = array.astype(np.int64)
    return [str(value).strip() for value in array]


def _ids(files: _Files, spec: Spec, named: list[str] | None, n_cells: int, where: str) -> list[str]:
    """Ids of the cells: those of the mapping, else the names of the entries, else numbers."""
    given = spec.get("cells")
    if given is None:
        ids = named if named is not None else [str(i) for i in range(n_cells)]
    elif named is not None:
        raise ValueError(f"{where}: cells are given, but the entries have names: leave one out")
    elif isinstance(given, Mapping):
        ids = _texts(files.read(dict(given), f"{where}: cells"))
    else:
        ids = [str(cell) for cell in given]
    ids = require_cells(ids)
    if len(ids) != n_cells:
        raise ValueError(f"{where}: there are {len(ids)} ids of cells, but {n_cells} cells")
    return ids


# Counts, rates, traces in bins


def _binned(files: _Files, spec: Spec, name: str, options: Options) -> tuple[xr.Dataset, list[str]]:
    where = f"mapping: {name}"
    movie, unsure = _movie(files, spec, where, options.stimulus)
    if unsure:
        require_finite(movie, f"stimulus ({where})")
    held: dict[str, np.ndarray] = {}
    ids: list[str] | None = None
    for key in RESPONSES:
        if key in spec:
            values, named = _responses(files, spec[key], f"{where}: {key}")
            own = _ids(files, spec, named, values.shape[-1], f"{where}: {key}")
            if ids is not None and own != ids:
                raise ValueError(f"{where}: {key} has other cells than what is given beside it")
            held[key], ids = values, own
    if ids is None:
        raise ValueError(f"{where}: there are no responses")
    wanted = chosen_cells(ids, options.cells)
    chosen = [ids.index(cell) for cell in wanted]
    held = {key: values[..., chosen] for key, values in held.items()}
    n_bins = next(iter(held.values())).shape[-2]
    for key, values in held.items():
        if values.shape[-2] != n_bins:
            raise ValueError(f"{where}: {key} has {values.shape[-2]} bins, others {n_bins}")
    movie, notes = matched(movie, n_bins, name)
    repeats = next((v.shape[0] for v in held.values() if v.ndim == 3), None)
    onsets, width, gaps, said = _bins(files, spec, n_bins, where, options.bin_width)
    notes += said
    block = None if repeats is not None else _block(files, spec, gaps, where)
    if repeats is not None:
        onsets = onsets - onsets[0]
    counts = None
    if "spike_count" in held:
        counts = require_counts(held["spike_count"], width, f"{where}: spike_count")
        notes += require_plausible_counts(counts, wanted, width, name)
    rest = {key: _finite(held[key], f"{where}: {key}") for key in held if key != "spike_count"}
    said_of = f"{' and '.join(rest)} as in the file; it has no spike counts of {name}"
    made = binned_node(
        movie,
        onsets=onsets,
        bin_width=width,
        cells=wanted,
        counts=counts,
        rate=_mean(rest.get("rate")),
        response=rest.get("response", _single_repeats(rest.get("rate"))),
        response_units=spec.get("response", {}).get("units", "1") if "response" in rest else "Hz",
        block=block,
        repeat_onset=_repeat_onset(files, spec, repeats, where),
        said=said_of,
    )
    if counts is not None and "response" in rest:
        notes.append(f"{name}: response is not used: there are spike counts")
    if counts is None:
        notes.append(f"{name}: {said_of}")
    return made, notes


def _mean(rate: np.ndarray | None) -> np.ndarray | None:
    return rate.mean(axis=0) if rate is not None and rate.ndim == 3 else rate


def _single_repeats(rate: np.ndarray | None) -> np.ndarray | None:
    """Rates of single repeats, which are responses; their mean is the rate."""
    return rate if rate is not None and rate.ndim == 3 else None


def _finite(values: np.ndarray, where: str) -> np.ndarray:
    dims = RESPONSE_DIMS[3 - values.ndim :]
    require_finite(xr.DataArray(values, dims=dims), where)
    return values.astype(np.float64)


def _responses(files: _Files, item: Spec, where: str) -> tuple[np.ndarray, list[str] | None]:
    """Responses ([repeat,] time, cell), and the names of the cells where entries have names."""
    if "entries" not in item:
        return _arranged(files.read(item, where), item.get("dims"), where), None
    entries = _entries(item, where)
    parts = {}
    for cell, entry in entries.items():
        values = files.of(item, where).read(entry, where)
        parts[cell] = _arranged(values, item.get("dims"), f"{where}: {entry}")
        if parts[cell].shape[-1] != 1:
            raise ValueError(f"{where}: {entry} holds several cells; expected one an entry")
        first = next(iter(parts.values()))
        if parts[cell].shape != first.shape:
            raise ValueError(
                f"{where}: {entry} of cell {cell!r} has {_sizes(parts[cell])}, other cells "
                f"{_sizes(first)}; all must have the same: leave the cell out"
            )
    return np.concatenate(list(parts.values()), axis=-1), list(parts)


def _sizes(values: np.ndarray) -> str:
    *repeats, n_bins, _ = values.shape
    return f"{f'{repeats[0]} repeats of ' if repeats else ''}{n_bins} bins"


def _entries(item: Spec, where: str) -> dict[str, str]:
    entries = item["entries"]
    if not isinstance(entries, Mapping) or not entries:
        raise ValueError(f"{where}: entries={entries!r}; expected an entry for each cell, by id")
    return {str(cell): str(entry) for cell, entry in entries.items()}


def _arranged(values: Any, dims: Any, where: str) -> np.ndarray:
    """Array as ([repeat,] time, cell), from the order in which its dims are named."""
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf":
        kind = values.dtype if isinstance(values, np.ndarray) else type(values).__name__
        raise ValueError(f"{where} holds {kind}; expected an array of numbers")
    if dims is None:
        if values.ndim > 1 and max(values.shape) != values.size:
            raise ValueError(
                f"{where} has shape {values.shape}: say with dims: what its axes are, such as "
                "[cell, time]"
            )
        values, dims = values.ravel(), ("time",)
    names = list(_dims(dims, RESPONSE_DIMS, where))
    if "time" not in names:
        raise ValueError(f"{where}: dims={names}; expected 'time' among them")
    # MATLAB gives every array two axes at least: those of size 1 need no name.
    while values.ndim > len(names) and 1 in values.shape:
        values = values.squeeze(axis=len(values.shape) - 1 - values.shape[::-1].index(1))
    if values.ndim != len(names):
        raise ValueError(
            f"{where}: dims {names} name {len(names)} axes, but the array has shape {values.shape}"
        )
    if "cell" not in names:
        values, names = values[..., None], [*names, "cell"]
    order = [dim for dim in RESPONSE_DIMS if dim in names]
    return np.ascontiguousarray(values.transpose([names.index(dim) for dim in order]))


def _bin_width(files: _Files, spec: Spec, where: str, option: Any) -> float | None:
    """Bin width (s) of the mapping, which must be that of the caller; None if neither says it."""
    item = spec.get("bin_width")
    where = f"{where}: bin_width"
    if isinstance(item, Mapping):
        if ("value" in item) == ("entry" in item or "file" in item):
            raise ValueError(f"{where}={dict(item)!r}; expected one of value and entry")
        value = (
            np.array([item["value"]], dtype=float)
            if "value" in item
            else files.row(dict(item), where)
        )
        if value.size != 1:
            raise ValueError(f"{where} has {value.size} values; expected one")
        item = float(_seconds(value, dict(item), where)[0])
    if item is None:
        return None if option is None else given_bin_width(option)
    return agreed_bin_width(option, given_bin_width(item, where))


def _marks(files: _Files, spec: Spec, n_frames: int, where: str) -> np.ndarray | None:
    """Frame times in seconds."""
    item = spec.get("frame_times")
    if item is None:
        return None
    where = f"{where}: frame_times"
    if "interval" in item or "start" in item:
        if set(item) - {"interval", "start"} or "interval" not in item:
            raise ValueError(
                f"{where}={item!r}; expected start and interval (seconds), or an entry"
            )
        return float(item.get("start", 0.0)) + regular_bins(
            n_frames + 1, given_bin_width(item["interval"], f"{where}: interval")
        )
    return _seconds(files.row(item, where), item, where)


def _bins(
    files: _Files, spec: Spec, n_bins: int, where: str, option: Any
) -> tuple[np.ndarray, float, np.ndarray, list[str]]:
    """Onsets and width of the bins (s), number of the run of each, and notes."""
    width = _bin_width(files, spec, where, option)
    marks = _marks(files, spec, n_bins, where)
    if marks is None:
        if width is None:
            raise ValueError(
                f"{where}: neither frame_times nor bin_width is given, so the bins have no time; "
                "give bin_width (seconds)"
            )
        return regular_bins(n_bins, width), width, np.zeros(n_bins, dtype=np.int64), []
    if len(marks) - n_bins not in (0, 1):
        raise ValueError(
            f"{where}: there are {len(marks)} frame_times but {n_bins} bins; expected one a bin "
            "(and at most one more, which ends the last)"
        )
    onsets, found, block, notes = bins_of(marks[:n_bins], f"{where}: frame_times")
    return onsets, agreed_bin_width(width, found), block, notes


def _block(files: _Files, spec: Spec, gaps: np.ndarray, where: str) -> np.ndarray:
    """Give the number of the run of each bin: as given, else by gaps between the bins."""
    item = spec.get("block")
    where = f"{where}: block"
    if item is None:
        return gaps
    if isinstance(item, int):
        block = equal_blocks(len(gaps), require_count(item, 1, where), where)
    else:
        block = files.row(item, where)
        if len(block) != len(gaps) or not np.array_equal(block, np.round(block)):
            raise ValueError(
                f"{where} has {len(block)} numbers for {len(gaps)} bins; expected a whole number "
                "for each"
            )
        block = block.astype(np.int64)
    inside = np.flatnonzero((np.diff(gaps) != 0) & (np.diff(block) == 0))
    if inside.size:
        raise ValueError(
            f"{where}: there is a gap after bin {inside[0]}, inside block {block[inside[0]]}; "
            "leave block out, or correct the times"
        )
    starts = block[np.r_[0, np.flatnonzero(np.diff(block)) + 1]]
    if len(np.unique(starts)) != len(starts):
        raise ValueError(f"{where} returns to a number it has left; give each run its own")
    return block


def _repeat_onset(files: _Files, spec: Spec, repeats: int | None, where: str) -> np.ndarray | None:
    item = spec.get("repeat_onset")
    if item is None:
        return None
    where = f"{where}: repeat_onset"
    if repeats is None:
        raise ValueError(f"{where} is given, but the responses have no dim 'repeat'")
    onsets = _seconds(files.row(item, where), item, where)
    if len(onsets) != repeats or not np.isfinite(onsets).all():
        raise ValueError(
            f"{where} has {len(onsets)} times for {repeats} repeats; expected a finite one for each"
        )
    return onsets


# Spike times


def _with_spike_times(
    files: _Files, specs: dict[str | None, Spec], mapping: Spec, options: Options
) -> Read:
    """Make the recording from spike times and frame times, by way of `assemble`."""
    first = next(iter(specs.values()))
    shown = []
    for name, spec in specs.items():
        where = "mapping" if name is None else f"mapping: {name}"
        for key in ("block", "repeat_onset"):
            if key in spec:
                raise ValueError(f"{where}: {key} goes with counts in bins, not with spike_times")
        if any(spec.get(key) != first.get(key) for key in ("spike_times", "cells", "bin_width")):
            raise ValueError(
                f"{where}: spike_times, cells and bin_width must be the same for all nodes: say "
                "them once, outside of nodes"
            )
        movie, _ = _movie(files, spec, where, options.stimulus)
        marks = _marks(files, spec, movie.sizes["time"], where)
        if marks is None:
            raise ValueError(f"{where}: spike_times need frame_times, the onset of each frame")
        marks = checked_marks(marks)
        require_plausible_width(float(np.median(np.diff(marks))), f"{where}: frame_times")
        plan = options.plan if options.plan is not None else _plan(spec.get("plan"), where)
        names = {} if name is None else {"once": name, "repeated": name}
        if name is not None and plan is not None:
            names["once"] = f"{name}_once"
        shown.append(Presentation(movie, marks, plan, options.frames, **names))
    spikes = _spikes(files, first, "mapping").select(options.cells)
    width = _bin_width(files, first, "mapping", options.bin_width)
    tree, notes = assemble(spikes, shown, bin_width=width)
    tree.attrs["mapping"] = json.dumps(mapping, default=repr, sort_keys=True)
    return tree, notes


def _plan(given: Any, where: str) -> Plan | str | None:
    if given is None or isinstance(given, str):
        return given
    where = f"{where}: plan"
    if set(given) == {"running_frames", "frozen_frames"}:
        return FrozenNoise(**given)
    if set(given) == {"starts", "n_frames"} and isinstance(given["starts"], Sequence):
        return RepeatedFrames(tuple(given["starts"]), given["n_frames"])
    raise ValueError(
        f"{where}={dict(given)!r}; expected running_frames and frozen_frames, or starts and "
        "n_frames"
    )


def _spikes(files: _Files, spec: Spec, where: str) -> SpikeTimes:
    item = spec["spike_times"]
    where = f"{where}: spike_times"
    trains, named = _trains(files, item, where)
    if isinstance(trains, dict):
        ids = _ids(files, spec, list(trains) if named else None, len(trains), where)
        seconds = [_seconds(_train(values, where), item, where) for values in trains.values()]
        return SpikeTimes.from_trains(dict(zip(ids, seconds, strict=True)))
    times, offsets, names = trains
    ids = _ids(files, spec, names if "cells" not in spec else None, len(offsets) - 1, where)
    return SpikeTimes.checked(_seconds(times, item, where), offsets, ids)


def _train(values: Any, where: str) -> np.ndarray:
    values = np.asarray(values)
    if values.size == 0:
        return np.empty(0)
    if values.dtype.kind not in "biuf" or max(values.shape, default=1) != values.size:
        raise ValueError(
            f"{where}: a cell's spikes have shape {values.shape} and type {values.dtype}; expected "
            "a row of numbers"
        )
    return values.ravel()


Flat = tuple[np.ndarray, np.ndarray, list[str] | None]


def _trains(files: _Files, item: Spec, where: str) -> tuple[dict[str, Any] | Flat, bool]:
    """Trains by cell, or flat times with offsets; and whether the trains' names are ids."""
    ways = [key for key in ("ends", "sizes", "cell_of", "entries", "dims") if key in item]
    if len(ways) > 1:
        raise ValueError(f"{where}: {' and '.join(ways)} are given; expected one of them")
    if "entries" in item:
        if "entry" in item:
            raise ValueError(f"{where}: both entry and entries are given; expected one of them")
        source = files.of(item, where)
        return {c: source.read(e, where) for c, e in _entries(item, where).items()}, True
    if ways and ways[0] != "dims":
        return _flat(files, item, ways[0], where), False
    values = files.read(item, where)
    if isinstance(values, dict):
        return {name: values[name] for name in natural(values)}, True
    if isinstance(values, list):
        return {str(i): value for i, value in enumerate(values)}, False
    if "dims" in item:
        names = _dims(item["dims"], ("cell", "spike"), where)
        if len(names) != 2 or values.ndim != 2:
            raise ValueError(f"{where} has shape {values.shape}; expected dims cell and spike")
        rows = values if names == ("cell", "spike") else values.T
        return {str(i): _unpadded(row, i, where) for i, row in enumerate(rows)}, False
    if values.ndim > 1 and max(values.shape) != values.size:
        raise ValueError(
            f"{where} has shape {values.shape}: say with dims: [cell, spike] what its axes are"
        )
    return {"0": values}, False


def _unpadded(row: np.ndarray, number: int, where: str) -> np.ndarray:
    """Cut off the NaN that fill up the row of a cell."""
    gaps = np.isnan(row) if row.dtype.kind == "f" else np.zeros(len(row), dtype=bool)
    n_spikes = int((~gaps).sum())
    if gaps[:n_spikes].any():
        raise ValueError(
            f"{where}: spike {int(np.argmax(gaps))} of cell {number} is NaN, and there are times "
            "after it; NaN may only fill a row up"
        )
    return row[:n_spikes]


def _flat(files: _Files, item: Spec, way: str, where: str) -> Flat:
    """All times in one row, and where each cell's are."""
    times = files.row(item, where)
    where = f"{where}: {way}"
    if way == "cell_of":
        owners = np.ravel(np.asarray(files.read(item, where, key=way)))
        if len(owners) != len(times):
            raise ValueError(f"{where} has {len(owners)} entries for {len(times)} spikes")
        names, number, sizes = np.unique(owners, return_inverse=True, return_counts=True)
        # A stable sort keeps the order of each cell's spikes.
        order = np.argsort(number, kind="stable")
        return times[order], np.r_[0, np.cumsum(sizes)], _texts(names)
    index = files.row(item, where, key=way)
    if not np.array_equal(index, np.round(index)):
        raise ValueError(f"{where} should hold whole numbers")
    index = index.astype(np.int64)
    return times, np.r_[0, index if way == "ends" else np.cumsum(index)], None


MAPPED = Format(
    name="mapped",
    expects="any HDF5, netCDF, NPZ or MATLAB file, with mapping= that says what its entries are",
    takes=("mapping", "stimulus", "bin_width", "cells", "plan", "frames"),
    recognises=lambda path: False,
    read=_read,
)
