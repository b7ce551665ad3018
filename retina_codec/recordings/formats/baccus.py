"""HDF5 files of the Baccus laboratory: ganglion cells, and interneurons.

Ganglion cells (doi 10.25740/rk663dm5577; Maheswaranathan et al., Neuron 2023)::

    {train,test}/stimulus                  (frame, y, x), whole numbers
    {train,test}/time                      (frame,), seconds
    {train,test}/response/binned           (cell, frame), spike counts
    {train,test}/response/firing_rate_5ms, firing_rate_10ms, firing_rate_20ms   (cell, frame)
    test/repeats/cell01, ...               (repeat, frame), one a cell; or
    test/repeats/<response>                (repeat, cell, frame), or a group of cell01, ...
    train/stas/cell01, ...                 not read
    spikes/cell01, ...                     spike times, seconds; left out, with a warning, where
                                           they cannot be, from what the counts say

Of the entries of `response` and `repeats`, spike counts are used where there are any, else rates.
The training movie is several blocks end to end. They are told apart by gaps in `time`, by
``mapping={"blocks": {"train": 6}}``, by an attribute ``n_blocks`` of the group, or, for the
published experiments, by the name of the file's folder; in this order.

Interneurons::

    {boxes,lines,flashes,movingbar}/stimuli
    {boxes,lines,flashes,movingbar}/detrended_membrane_potential   (cell, frame), mV

Their stimuli are brought to one screen of 50 x 50 pixels, see `_screen`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import dask.array as da
import h5py
import numpy as np
import xarray as xr

from retina_codec._common.checks import nearest_names, require_count, require_finite
from retina_codec._common.time import time_coordinate
from retina_codec.recordings.assembly import stimulus_part
from retina_codec.recordings.formats.base import Format, Options, Read
from retina_codec.recordings.formats.binned import (
    agreed_bin_width,
    binned_node,
    binned_tree,
    bins_of,
    counts_in_bins,
    equal_blocks,
    matched,
    natural,
    regular_bins,
    require_cells,
    require_plausible_counts,
)
from retina_codec.recordings.formats.hdf5 import looks_inside, opened, require_dataset
from retina_codec.recordings.nodes import chosen_cells
from retina_codec.recordings.plausibility import require_plausible
from retina_codec.recordings.spikes import SpikeTimes
from retina_codec.stimuli.sources import open_movie

PARTS = ("train", "test")
BIN_WIDTH = 0.01  # where a file has no times
COUNTS = "binned"
RATES = ("firing_rate_10ms", "firing_rate_20ms", "firing_rate_5ms")  # in the order of preference
# Blocks of the training movie in the published experiments, by folder.
BLOCKS = {"15-10-07": 6, "15-11-21a": 6, "15-11-21b": 6, "16-01-07": 3, "16-01-08": 3}
# Spikes in other bins than the file's counts say, beyond which the clocks are not the same. A spike
# at the very edge of a bin may go either way.
CLOCK_TOLERANCE = 0.05
# With a smaller part of the spikes in the time of the counts, the unit must be another.
LEAST_FOUND = 0.5

KINDS = ("boxes", "lines", "flashes", "movingbar")
POTENTIAL = "detrended_membrane_potential"
SCREEN = 50
BOXES = 38  # pixels that the published models give to full-field flashes
# Columns of the finer displays that make one pixel of the boxes.
FINER = {"lines": 2, "movingbar": 6}
# A moving bar was stored at a fifth of the rate of the potential.
HELD = {"movingbar": 5}


# Ganglion cells


def _recognises(path: Path) -> bool:
    held = looks_inside(path) or set()
    return any(
        f"{part}/stimulus" in held and any(name.startswith(f"{part}/response/") for name in held)
        for part in PARTS
    )


def _read(path: Path, options: Options) -> Read:
    blocks = _blocks_given(options.mapping)
    with opened(path) as file:
        parts = [part for part in PARTS if part in file]
        if not parts:
            raise ValueError(
                f"path={str(path)!r} holds neither a group 'train' nor 'test'; "
                f"{nearest_names('train', file)}"
            )
        for part in parts:
            if not isinstance(file[part], h5py.Group):
                raise ValueError(f"path: {path.name} has {part!r} as an array; expected a group")
        ids = _cell_ids(file, parts)
        wanted = chosen_cells(ids, options.cells)
        rows = [ids.index(cell) for cell in wanted]
        nodes: dict[str, xr.Dataset] = {}
        notes: list[str] = []
        for part in parts:
            source = _Part(path, file[part], part, wanted, rows, options.bin_width)
            nodes[part], said = _node(source, blocks.get(part))
            notes += said
        spikes = _spikes(file, wanted)
    if spikes is not None:
        checked = [_clock(spikes, nodes[part], part) for part in parts]
        notes += [note for _, said in checked for note in said]
        if all(usable for usable, _ in checked):
            nodes["spikes"] = spikes.to_dataset()
    return binned_tree(nodes, notes, function="baccus", blocks=blocks or None)


def _blocks_given(mapping: Any) -> dict[str, int]:
    """Numbers of blocks of ``mapping={"blocks": {"train": 6}}``."""
    if mapping is None:
        return {}
    blocks = mapping.get("blocks") if isinstance(mapping, Mapping) else None
    if not isinstance(blocks, Mapping) or set(mapping) != {"blocks"}:
        raise ValueError(
            f"mapping={mapping!r}; for the format 'baccus' it can only say how many blocks a movie "
            "is made of: {'blocks': {'train': 6}}"
        )
    for part in blocks:
        if part not in PARTS:
            raise ValueError(f"mapping: blocks of {part!r}; {nearest_names(part, PARTS)}")
    return {part: require_count(n, 1, f"mapping: blocks of {part!r}") for part, n in blocks.items()}


def _cell_ids(file: h5py.File, parts: list[str]) -> list[str]:
    """Ids in the order of the rows of `response`: the names of the cells, by number."""
    n_rows = {part: _responses(file[part], part)[0].shape[0] for part in parts}
    if len(set(n_rows.values())) > 1:
        raise ValueError(
            f"train/response has {n_rows['train']} cells but test/response {n_rows['test']}; both "
            "must hold the same cells in the same order"
        )
    n_cells = n_rows[parts[0]]
    named = {}
    for place in ("test/repeats", "spikes", "train/stas"):
        group = file.get(place)
        if isinstance(group, h5py.Group):
            inner = [group, *(item for item in group.values() if isinstance(item, h5py.Group))]
            held = {name for level in inner for name in level if _is_cell(name)}
            if held:
                named[place] = natural(held)
    ids = next((names for names in named.values() if len(names) == n_cells), None)
    if ids is None and named:
        listed = ", ".join(f"{place}: {len(names)}" for place, names in named.items())
        raise ValueError(
            f"path: response has {n_cells} rows, but there are other numbers of named cells "
            f"({listed}); which row is which cell cannot be told: correct the file"
        )
    ids = ids or [f"cell{i + 1:02d}" for i in range(n_cells)]
    # More cells than rows may have spikes or averages; those with responses must be among them.
    for place in ("test/repeats", "spikes"):
        lacking = [cell for cell in ids if cell not in named.get(place, ids)]
        if lacking:
            raise ValueError(
                f"path: {place} has no {lacking[0]!r}, which has a row in response; "
                f"{nearest_names(lacking[0], named[place])}"
            )
    return require_cells(ids)


def _is_cell(name: str | bytes) -> bool:
    if isinstance(name, bytes):  # no UTF-8
        return False
    return name.startswith("cell") and name.removeprefix("cell").isdigit()


def _responses(group: h5py.Group, part: str) -> list[h5py.Dataset]:
    """Entries of `response` that can be used, spike counts first."""
    response = group.get("response")
    if not isinstance(response, h5py.Group):
        raise ValueError(
            f"path: the group {part!r} has no group 'response'; {nearest_names('response', group)}"
        )
    found = [require_dataset(response, name) for name in (COUNTS, *RATES) if name in response]
    if not found:
        raise ValueError(
            f"path: {part}/response holds none of {', '.join((COUNTS, *RATES))}; "
            f"{nearest_names(RATES[0], response)}"
        )
    for dataset in found:
        if dataset.ndim != 2:
            raise ValueError(
                f"path: {dataset.name} has shape {dataset.shape}; expected (cell, frame)"
            )
    return found


@dataclass(frozen=True)
class _Part:
    """One of the parts of a file, and the cells and bin width that were asked for."""

    path: Path
    group: h5py.Group
    name: str
    cells: list[str]
    rows: list[int]
    bin_width: Any


def _node(part: _Part, n_blocks: int | None) -> tuple[xr.Dataset, list[str]]:
    movie = _movie(part)
    n_frames = movie.sizes["time"]
    notes: list[str] = []
    if "time" in part.group:
        times = require_dataset(part.group, "time")
        if times.size != n_frames:
            raise ValueError(
                f"path: {times.name} has {times.size} times but the stimulus {n_frames} frames; "
                "expected one a frame"
            )
        onsets, width, block, notes = bins_of(times[...], f"path: {times.name}")
    else:
        width = BIN_WIDTH
        onsets, block = regular_bins(n_frames, width), np.zeros(n_frames, dtype=np.int64)
        notes = [f"{part.name}: the file has no times; frames are taken to last {width:g} s"]
    width = agreed_bin_width(part.bin_width, width)
    block, said = _blocks(part, block, n_blocks)
    notes += said
    values: dict[str, Any]
    if "repeats" in part.group:
        values, said = _repeats(part, width)
        onsets, block_or_none = onsets - onsets[0], None
    else:
        values, said = _single(part, width)
        block_or_none = block
    notes += said
    shown = next(value for key, value in values.items() if key in ("counts", "response", "rate"))
    movie, said = matched(movie, shown.shape[-2], part.name)
    n_bins = movie.sizes["time"]
    if values.get("counts") is not None:
        notes += require_plausible_counts(values["counts"], part.cells, width, part.name)
    made = binned_node(
        movie,
        onsets=onsets[:n_bins],
        bin_width=width,
        cells=part.cells,
        block=None if block_or_none is None else block_or_none[:n_bins],
        **values,
    )
    return made, [*notes, *said]


def _movie(part: _Part) -> xr.DataArray:
    dataset = require_dataset(part.group, "stimulus")
    if dataset.ndim != 3:
        raise ValueError(f"path: {dataset.name} has shape {dataset.shape}; expected (frame, y, x)")
    movie = open_movie(part.path, dataset=dataset.name, dims=("time", "y", "x"))
    if dataset.dtype.kind == "f":
        require_finite(movie, f"stimulus ({dataset.name})")
    return movie


def _blocks(part: _Part, block: np.ndarray, given: int | None) -> tuple[np.ndarray, list[str]]:
    """Give the number of the block of each frame."""
    if block[-1]:
        if given is not None and given != block[-1] + 1:
            raise ValueError(
                f"mapping: blocks of {part.name!r} is {given}, but its times have gaps that make "
                f"{block[-1] + 1}; leave it out"
            )
        return block, []
    if given is not None:
        return equal_blocks(len(block), given, f"mapping: blocks of {part.name!r}"), []
    if "n_blocks" in part.group.attrs:
        number = require_count(part.group.attrs["n_blocks"], 1, f"path: n_blocks of {part.name}")
        return equal_blocks(len(block), number, f"path: n_blocks of {part.name}"), []
    known = BLOCKS.get(part.path.resolve().parent.name)
    if part.name != "train" or known is None:
        return block, []
    if len(block) % known:
        return block, [
            f"{part.name}: the experiment is known to have {known} blocks, but {len(block)} frames "
            "are no such number of equal ones: they are kept as one"
        ]
    return equal_blocks(len(block), known, part.name), [
        f"{part.name}: {known} blocks of equal length, as published of this experiment"
    ]


def _single(part: _Part, width: float) -> tuple[dict[str, Any], list[str]]:
    """Read counts (time, cell), or a rate where there are none."""
    notes: list[str] = []
    for dataset in _responses(part.group, part.name):
        values = dataset[...][part.rows].T
        where = dataset.name.removeprefix("/")
        if dataset.name.endswith(f"/{COUNTS}"):
            counts = counts_in_bins(values, width)
            if counts is not None:
                return {"counts": np.ascontiguousarray(counts)}, notes
            notes.append(f"{where} holds no spike counts and is not used")
            continue
        require_finite(xr.DataArray(values, dims=("time", "cell")), f"path: {where}")
        said = f"{where}; the file has no spike counts of {part.name}"
        return {"rate": values.astype(np.float64), "said": said}, [*notes, f"rate is {said}"]
    raise ValueError(
        f"path: {part.name}/response/{COUNTS} holds no spike counts (whole numbers of at least 0), "
        f"and there is none of {', '.join(RATES)}"
    )


def _repeats(part: _Part, width: float) -> tuple[dict[str, Any], list[str]]:
    """Read counts (repeat, time, cell), or responses in Hz where the repeats hold rates."""
    group = part.group["repeats"]
    where = group.name.removeprefix("/")
    if not isinstance(group, h5py.Group):
        raise ValueError(f"path: {where} is an array; expected a group with an entry a cell")
    named: list[str] = [name for name in (COUNTS, *RATES) if name in group]
    notes: list[str] = []
    for name in named or (None,):
        values = _stacked(part, group if name is None else group[name])
        counts = counts_in_bins(values, width) if name in (None, COUNTS) else None
        if counts is not None:
            return {"counts": counts}, notes
        if name == COUNTS:
            notes.append(f"{where}/{name} holds no spike counts and is not used")
            continue
        require_finite(
            xr.DataArray(values, dims=("repeat", "time", "cell")), f"path: {where}/{name or 'cell'}"
        )
        label = where if name is None else f"{where}/{name}"
        said = f"rates of single repeats from {label}; the file has no spike counts of them"
        held = {"response": values, "response_units": "Hz", "rate": values.mean(axis=0)}
        return {**held, "said": said}, [*notes, f"{part.name}: {said}"]
    raise ValueError(
        f"path: {where}/{COUNTS} holds no spike counts (whole numbers of at least 0), and there is "
        f"none of {', '.join(RATES)}"
    )


def _stacked(part: _Part, held: h5py.Group | h5py.Dataset) -> np.ndarray:
    """Repeats (repeat, time, cell) from an array (repeat, cell, time) or an entry a cell."""
    where = held.name.removeprefix("/")
    if isinstance(held, h5py.Dataset):
        n_rows = _responses(part.group, part.name)[0].shape[0]
        if held.ndim != 3 or held.shape[1] != n_rows:
            raise ValueError(
                f"path: {where} has shape {held.shape}; expected (repeat, cell, frame) with "
                f"{n_rows} cells"
            )
        return np.ascontiguousarray(np.moveaxis(held[...][:, part.rows], 1, 2))
    found = [require_dataset(held, cell) for cell in part.cells]
    for dataset in found:
        if dataset.ndim != 2:
            raise ValueError(
                f"path: {dataset.name} has shape {dataset.shape}; expected (repeat, frame)"
            )
        if dataset.shape != found[0].shape:
            raise ValueError(
                f"path: {dataset.name} has shape {dataset.shape} but {found[0].name} "
                f"{found[0].shape}; (repeat, frame) must be the same for all cells: leave this "
                "cell out with cells="
            )
    return np.stack([dataset[...] for dataset in found], axis=-1)


def _spikes(file: h5py.File, cells: list[str]) -> SpikeTimes | None:
    group = file.get("spikes")
    if not isinstance(group, h5py.Group) or not any(_is_cell(name) for name in group):
        return None
    trains = {cell: np.ravel(require_dataset(group, cell)[...]) for cell in cells}
    return SpikeTimes.from_trains(trains)


def _clock(spikes: SpikeTimes, node: xr.Dataset, part: str) -> tuple[bool, list[str]]:
    """Tell whether spike times can be seconds of this recording; a note where its bins disagree.

    The counts of the first block tell, and where there are only rates, the time that they span.
    Spikes on a shifted clock are seconds still; what is in another unit is of no use.
    """
    if "repeat" in node.dims:
        return True, []
    time = node["time"].values
    width = node["time"].attrs["bin_width"]
    said = ""
    lost = False
    if "spike_count" in node:
        first = node["block"].values == node["block"].values[0]
        edges = np.append(time[first], time[first][-1] + width)
        counted = node["spike_count"].values[first]
        found = spikes.count(edges).astype(np.int64)
        differing = np.abs(found - counted).sum() / 2
        if differing <= CLOCK_TOLERANCE * counted.sum():
            return True, []
        lost = found.sum() < LEAST_FOUND * counted.sum()
        said = (
            f"{100 * differing / max(counted.sum(), 1):.0f} % of the spikes fall in other bins "
            "than its counts say"
        )
    elif not node["rate"].values.any():
        return True, []
    try:
        require_plausible(spikes, float(time[0]), float(time[-1]) + width)
    except ValueError as error:
        said = f"{said}; {error}" if said else str(error)
        lost = True
    if lost:
        return False, [
            f"the spike times of 'spikes' are left out: they are not seconds on the clock of "
            f"{part!r} ({said})"
        ]
    if not said:
        return True, []
    return True, [f"the spike times of node 'spikes' are not on the clock of {part!r}: {said}"]


# Interneurons


def _recognises_interneurons(path: Path) -> bool:
    held = looks_inside(path) or set()
    return any(f"{kind}/{POTENTIAL}" in held for kind in KINDS)


def _read_interneurons(path: Path, options: Options) -> Read:
    nodes: dict[str, xr.Dataset] = {}
    notes: list[str] = []
    width = agreed_bin_width(options.bin_width, BIN_WIDTH)
    with opened(path) as file:
        kinds = [kind for kind in KINDS if kind in file]
        if not kinds:
            raise ValueError(
                f"path={str(path)!r} holds none of {', '.join(KINDS)}; "
                f"{nearest_names(KINDS[0], file)}"
            )
        for kind in kinds:
            nodes[kind], said = _interneuron_node(path, file[kind], kind, options.cells, width)
            notes += said
    return binned_tree(nodes, notes, function="baccus_interneurons", screen=SCREEN)


def _interneuron_node(
    path: Path, group: h5py.Group, kind: str, cells: Any, width: float
) -> tuple[xr.Dataset, list[str]]:
    potential = require_dataset(group, POTENTIAL)
    if potential.ndim != 2:
        raise ValueError(
            f"path: {potential.name} has shape {potential.shape}; expected (cell, frame)"
        )
    ids = require_cells(range(potential.shape[0]))
    wanted = chosen_cells(ids, cells)
    values = potential[...][[ids.index(cell) for cell in wanted]].T.astype(np.float64)
    require_finite(xr.DataArray(values, dims=("time", "interneuron")), f"path: {potential.name}")
    movie, notes = _screen(path, require_dataset(group, "stimuli"), kind, len(values))
    movie, said = matched(movie, len(values), kind)
    time = time_coordinate(regular_bins(len(values), width), width)
    node = xr.Dataset(
        {
            "stimulus": stimulus_part(movie, [slice(0, len(values))], time),
            "potential": (
                ("time", "interneuron"),
                values,
                {"units": "mV", "long_name": "membrane potential, detrended"},
            ),
        },
        coords={
            "time": time,
            "interneuron": ("interneuron", wanted, {"long_name": "row of the file"}),
        },
    )
    return node, [*notes, *said]


def _screen(
    path: Path, dataset: h5py.Dataset, kind: str, n_bins: int
) -> tuple[xr.DataArray, list[str]]:
    """Stimulus of one kind on the screen of 50 x 50 pixels, lazily; what was done, in a note.

    Boxes of 0 and 1, and nothing else, become -1 and 1. Lines and the moving bar are a row of
    pixels finer than the boxes: means of 2 and of 6 make one pixel; lines vary along x and the bar
    along y, constant along the other. A flash covers 38 x 38 pixels, as the boxes do. What is
    smaller than the screen stands in its middle, around it 0: grey, for stimuli of mean 0.
    """
    axes = {"boxes": 3, "flashes": 1}.get(kind, 2)
    shape = dataset.shape
    if kind == "flashes" and len(shape) > 1 and int(np.prod(shape)) == shape[0]:
        shape = shape[:1]
    if len(shape) != axes:
        layout = {3: "(frame, y, x)", 2: "(frame, pixel)", 1: "(frame,)"}[axes]
        raise ValueError(f"path: {dataset.name} has shape {dataset.shape}; expected {layout}")
    dims = ("time", "y", "x")[: len(dataset.shape)] if kind != "lines" else ("time", "x")
    source = open_movie(path, dataset=dataset.name, dims=dims)
    if dataset.dtype.kind == "f":
        require_finite(source, f"stimulus ({dataset.name})")
    frames = da.asarray(source.data)
    said = []
    if kind == "boxes":
        low, high, is_binary = _levels(frames)
        if is_binary:
            frames = 2 * frames - 1
            said.append("0 and 1 became -1 and 1")
        elif low >= 0 and high > low:
            said.append(
                f"values from {low:g} to {high:g}, which are not only 0 and 1, are kept as they are"
            )
    finer = FINER.get(kind, 1)
    along = 1 if kind == "movingbar" else 2
    if finer > 1 and frames.shape[along] > SCREEN:
        if frames.shape[along] % finer:
            raise ValueError(
                f"path: {dataset.name} has {frames.shape[along]} pixels; expected a multiple of "
                f"{finer}, which make one pixel of the boxes"
            )
        frames = da.coarsen(np.mean, _whole(frames), {along: finer})
        said.append(f"means of {finer} pixels")
    held = HELD.get(kind, 1)
    if held > 1 and len(frames) * held <= n_bins + held:
        frames = da.repeat(frames, held, axis=0)
        said.append(f"each frame held for {held} bins")
    n = BOXES if kind == "flashes" else max(frames.shape[1:])
    frames = da.broadcast_to(frames, (len(frames), *(n if m == 1 else m for m in frames.shape[1:])))
    frames, padded = _centred(frames, dataset.name)
    said += padded
    movie = xr.DataArray(
        frames.astype(np.float32),
        dims=("time", "y", "x"),
        coords={
            dim: (dim, np.arange(size), {"units": "pixel"})
            for dim, size in zip(("y", "x"), frames.shape[1:], strict=True)
        },
        attrs={"units": "1", "long_name": f"stimulus, {kind}"},
    )
    return movie, [f"{kind}: {', '.join(said)}"] if said else []


def _levels(frames: da.Array) -> tuple[float, float, bool]:
    """Least and largest value, and whether all are 0 or 1 and both occur; read block by block."""
    low, high, is_binary = np.inf, -np.inf, True
    for start, stop in pairwise(np.r_[0, np.cumsum(frames.chunks[0])]):
        values = frames[start:stop].compute()
        low, high = min(low, float(values.min())), max(high, float(values.max()))
        is_binary = is_binary and bool(((values == 0) | (values == 1)).all())
    return low, high, is_binary and low < high


def _whole(frames: da.Array) -> da.Array:
    """Chunks along time only."""
    return frames.rechunk({1: -1, 2: -1})


def _centred(frames: da.Array, name: str) -> tuple[da.Array, list[str]]:
    """Frames in the middle of the screen, 0 around; an odd pixel goes below and to the right."""
    n_y, n_x = frames.shape[1:]
    if max(n_y, n_x) > SCREEN:
        raise ValueError(
            f"path: {name} has frames of {n_y} x {n_x} pixels; expected at most {SCREEN} x {SCREEN}"
        )
    if n_y == n_x == SCREEN:
        return frames, []
    spare = [(SCREEN - n) // 2 for n in (n_y, n_x)]
    widths = [(0, 0), *((a, SCREEN - n - a) for a, n in zip(spare, (n_y, n_x), strict=True))]
    padded = da.pad(frames, widths, mode="constant", constant_values=0)
    return padded.rechunk({1: -1, 2: -1}), [f"{n_y} x {n_x} pixels centred on the screen, 0 around"]


BACCUS = Format(
    name="baccus",
    expects="an HDF5 file with {train,test}/{stimulus,time,response}, of the Baccus laboratory",
    takes=("bin_width", "cells", "mapping"),
    recognises=_recognises,
    read=_read,
)
BACCUS_INTERNEURONS = Format(
    name="baccus_interneurons",
    expects=f"an HDF5 file with {{{','.join(KINDS)}}}/{{stimuli,{POTENTIAL}}}",
    takes=("bin_width", "cells"),
    recognises=_recognises_interneurons,
    read=_read_interneurons,
)
