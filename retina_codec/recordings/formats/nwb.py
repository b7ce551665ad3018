"""NWB 2 files, read through their HDF5 layout: units, events, epochs, and the movies shown.

Read are: ``units`` (spike times as the flat array that they are in the file), time series with
timestamps in ``acquisition``, ``stimulus/presentation`` and ``processing``, and tables of
``events``, as events; series with a rate as channels; all tables of ``intervals`` as epochs; and
image series of ``stimulus/presentation`` as movies, with their timestamps as frame marks. Segments
and original names are found where neo's NWBIO wrote the file. Axes of image series are
(frame, x, y), as the standard has it; movies in files beside (``external_file``) have the axes of
these files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import dask.array as da
import h5py
import numpy as np
import xarray as xr

from retina_codec.recordings.assembly import Presentation, assemble
from retina_codec.recordings.binning import checked_marks
from retina_codec.recordings.formats.base import Format, Options, Read
from retina_codec.recordings.formats.hdf5 import opened
from retina_codec.recordings.formats.neo_files import marks_option, read_recorded
from retina_codec.recordings.formats.stored import ANEW, chosen, with_spike_times
from retina_codec.recordings.from_neo import ORIGINAL_NAME
from retina_codec.recordings.recorded import (
    Column,
    EpochTable,
    Recorded,
    Trace,
    precision_notes,
    with_notes,
)
from retina_codec.recordings.spikes import SpikeTimes
from retina_codec.stimuli.sources import read_movie

SAVED = "scratch/retina_codec"  # what save_recording says of the file beside
PAIR = "retina_codec_pair"
NAME_COLUMNS = ("unit_name", "_name", "cell_id", "cell", "name")
LABEL_COLUMNS = ("label", "labels", "tags", "condition", "stimulus_name", "stimulus", "type")
SHOWN = "stimulus/presentation"
TIMES_IN = ("acquisition", SHOWN, "processing", "analysis")
READABLE = (".npy", ".npz", ".h5", ".hdf5", ".hdf", ".nc")
INDEXED = ("indexed_timeseries", "indexed_images")
CHUNK_BYTES = 32 * 2**20


def _recognises(path: Path) -> bool:
    if not path.is_file():
        return False
    if path.suffix.lower() == ".nwb":
        return True
    try:
        with h5py.File(path, "r") as file:
            return "nwb_version" in file.attrs
    except OSError:
        return False


def _read(path: Path, options: Options) -> Read:
    anew = [name for name in options.given() if name in ANEW]
    with opened(path) as file:
        said = json.loads(_text(file[SAVED])) if SAVED in file and not anew else None
        parts = _segments(file, path)
        places = _places(file, every=isinstance(options.stimulus, str))
        started = _text(file["session_start_time"]) if "session_start_time" in file else None
    # What lies in files beside is read when this one is closed: its errors are those of others.
    if said is not None:
        return chosen(_saved(said, parts[0].spikes, path), options), []
    if options.stimulus is not None:
        is_name = isinstance(options.stimulus, str) and options.stimulus in places
        places = {options.stimulus: places[options.stimulus]} if is_name else {}
    if options.stimulus is not None and not places:
        tree, notes = read_recorded(parts, path, options)
    else:
        shown = {name: _movie(path, place) for name, place in places.items()}
        tree, notes = _of_movies(parts, shown, path, options)
    if started is not None:
        tree.attrs["session_start_time"] = started
    return tree, notes


# Spikes


def _segments(file: h5py.File, path: Path) -> list[Recorded]:
    """Segments of the file: one, or as many as neo wrote into it."""
    units = file.get("units")
    if not isinstance(units, h5py.Group) or "spike_times" not in units:
        held = "no table 'units'" if units is None else "a table 'units' without 'spike_times'"
        raise ValueError(
            f"path={str(path)!r} holds {held}; expected an NWB file with sorted spikes"
        )
    times = units["spike_times"][()]
    ends = units["spike_times_index"][()] if "spike_times_index" in units else None
    n_cells = len(units["id"]) if "id" in units else len(ends if ends is not None else [])
    if ends is None:
        # Without an index a row is one spike.
        raise ValueError(
            f"path={str(path)!r}: units has no 'spike_times_index', so that its cells cannot be "
            "told apart; the file is damaged"
        )
    offsets = np.r_[0, ends.astype(np.int64)]
    if n_cells != len(ends) or (len(offsets) and offsets[-1] != len(times)):
        raise ValueError(
            f"path={str(path)!r}: units has {n_cells} rows, an index of {len(ends)} and "
            f"{len(times)} spike times, of which {offsets[-1]} belong to a cell; the file is "
            "damaged"
        )
    segments = _hierarchy(units, n_cells)
    keys = list(dict.fromkeys(segments))
    names = _unit_names(units, segments, n_cells)
    events, signals = _events(file)
    tables = _tables(file)
    if not keys:
        raise ValueError(f"path={str(path)!r}: units has no rows; expected one a cell")
    parts = []
    for key in keys:
        rows = np.array([i for i, own in enumerate(segments) if own == key])
        if len(keys) == 1:
            spikes = SpikeTimes.checked(times, offsets, names)
        else:
            pieces = [times[offsets[i] : offsets[i + 1]] for i in rows]
            sizes = [len(piece) for piece in pieces]
            spikes = SpikeTimes.checked(
                np.concatenate(pieces), np.r_[0, np.cumsum(sizes)], [names[i] for i in rows]
            )
        mine = partial(_belongs, key, keys)
        parts.append(
            Recorded(
                spikes,
                {name: marks for (own, name), marks in events.items() if mine(own)},
                [table for own, table in tables if mine(own)],
                {name: trace for (own, name), trace in signals.items() if mine(own)},
                key[1],
                precision_notes(times.dtype, spikes.times),
            )
        )
    return parts


Key = tuple[str, str]


def _belongs(key: Key, keys: list[Key], own: Key | None) -> bool:
    """Whether what is of segment `own` (None = not said) is to be found in segment `key`."""
    return own is None or own == key or own not in keys


def _hierarchy(table: h5py.Group, n_rows: int) -> list[Key]:
    """Block and segment of each row, where neo wrote the file."""
    if "segment" not in table or "block" not in table:
        return [("", "")] * n_rows
    return list(zip(_texts(table["block"]), _texts(table["segment"]), strict=True))


def _unit_names(units: h5py.Group, segments: list[Key], n_cells: int) -> list[str]:
    """Names of the units where they are all different, else their ids."""
    for column in NAME_COLUMNS:
        if column in units and len(units[column]) == n_cells and units[column].ndim == 1:
            names = _texts(units[column])
            if all(names) and len(set(zip(segments, names, strict=True))) == n_cells:
                return names
    return [str(number) for number in units["id"][()]]


# Events, channels, epochs


def _events(
    file: h5py.File,
) -> tuple[dict[tuple[Key | None, str], np.ndarray], dict[tuple[Key | None, str], Any]]:
    """Series with timestamps by segment and name, and those with a rate as channels."""
    events: dict[tuple[Key | None, str], np.ndarray] = {}
    signals: dict[tuple[Key | None, str], Callable[[], Trace]] = {}
    path = Path(file.filename)
    for place in TIMES_IN:
        if place in file:
            for series in _series(file[place]):
                name, segment = _named(series)
                if "timestamps" in series:
                    events.setdefault((segment, name), series["timestamps"][()])
                elif "starting_time" in series and place != SHOWN and series["data"].ndim <= 2:
                    for channel, called in _channels(series["data"], name):
                        key = (segment, called)
                        signals[key] = partial(_trace, path, series.name, channel)
    for name, table in file.get("events", {}).items():  # tables of events, since NWB 2.11
        if isinstance(table, h5py.Group) and "timestamp" in table:
            events.setdefault((None, name), table["timestamp"][()])
    return events, signals


def _series(group: h5py.Group) -> list[h5py.Group]:
    """Time series in a group and the groups in it."""
    found = []
    for item in group.values():
        if isinstance(item, h5py.Group):
            is_series = "timestamps" in item or ("starting_time" in item and "data" in item)
            found += [item] if is_series else _series(item)
    return found


def _named(series: h5py.Group) -> tuple[str, Key | None]:
    """Name of a series before a writer changed it, and its segment, where neo wrote them."""
    name = series.name.rsplit("/", 1)[-1]
    described = _json(series.attrs.get("description"))
    hierarchy = _json(series.attrs.get("comments"))
    segment = None
    if {"block", "segment"} <= set(hierarchy):
        segment = (str(hierarchy["block"]), str(hierarchy["segment"]))
    return str(described.get(ORIGINAL_NAME, name)), segment


def _json(text: Any) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _channels(data: h5py.Dataset, name: str) -> list[tuple[int | None, str]]:
    if data.ndim == 1:
        return [(None, name)]
    if data.shape[1] == 1:
        return [(0, name)]
    return [(channel, f"{name}[{channel}]") for channel in range(data.shape[1])]


def _trace(path: Path, name: str, channel: int | None) -> Trace:
    with opened(path) as file:
        data, timing = file[name]["data"], _timing(file[name])
        values = data[()] if channel is None else data[:, channel]
    times = np.empty(0) if timing is None else timing(len(values))
    return times, np.asarray(values, dtype=np.float64)


def _timing(series: h5py.Group) -> Callable[[int], np.ndarray] | None:
    """Give the times in seconds of as many samples as there are; None where the series has none."""
    if "timestamps" in series:
        times = np.asarray(series["timestamps"][()], dtype=np.float64)
        return lambda n_samples: times
    if "starting_time" not in series:
        return None
    start = float(series["starting_time"][()])
    rate = float(series["starting_time"].attrs["rate"])
    return lambda n_samples: start + np.arange(n_samples) / rate


def _tables(file: h5py.File) -> list[tuple[Key | None, EpochTable]]:
    """All tables of intervals, those that neo wrote taken apart by segment and name."""
    found: list[tuple[Key | None, EpochTable]] = []
    for name, table in file["intervals"].items() if "intervals" in file else ():
        if not isinstance(table, h5py.Group) or "start_time" not in table:
            continue
        start = np.asarray(table["start_time"][()], dtype=np.float64)
        duration = np.asarray(table["stop_time"][()], dtype=np.float64) - start
        labels = _labels(table, name, len(start))
        columns: dict[str, Column] = {
            key: (np.asarray(_texts(column) if column.dtype.kind in "OS" else column[()]), {})
            for key, column in table.items()
            if _is_column(column, len(start)) and key not in _TAKEN
        }
        keys: list[Key | None] = [None] * len(start)
        if "segment" in table and "block" in table:
            keys = list(_hierarchy(table, len(start)))
        names = _texts(table["_name"]) if "_name" in table else [name] * len(start)
        for key, own in dict.fromkeys(zip(keys, names, strict=True)):
            rows = [i for i in range(len(start)) if (keys[i], names[i]) == (key, own)]
            parts = {column: (values[rows], attrs) for column, (values, attrs) in columns.items()}
            made = EpochTable(own, start[rows], duration[rows], labels[rows], parts)
            found.append((key, made))
    return found


_TAKEN = {"id", "start_time", "stop_time", "segment", "block", "_name", *LABEL_COLUMNS}


def _is_column(item: Any, n_rows: int) -> bool:
    """One number or text a row: no index, no references."""
    if not isinstance(item, h5py.Dataset) or item.shape != (n_rows,):
        return False
    if item.attrs.get("neurodata_type") == "VectorIndex" or f"{item.name}_index" in item.file:
        return False
    return item.dtype.kind in "biuf" or h5py.check_string_dtype(item.dtype) is not None


def _labels(table: h5py.Group, name: str, n_rows: int) -> np.ndarray:
    for column in LABEL_COLUMNS:
        if column not in table or h5py.check_string_dtype(table[column].dtype) is None:
            continue
        texts = _texts(table[column])
        if f"{column}_index" in table:
            ends = table[f"{column}_index"][()].astype(int)
            begins = np.r_[0, ends[:-1]]
            texts = [", ".join(texts[a:b]) for a, b in zip(begins, ends, strict=True)]
        if len(texts) == n_rows and any(texts):
            return np.array(texts)
    return np.full(n_rows, name)


def _texts(dataset: h5py.Dataset) -> list[str]:
    values = dataset.asstr()[()] if h5py.check_string_dtype(dataset.dtype) else dataset[()]
    return [str(value) for value in values]


def _text(dataset: h5py.Dataset) -> str:
    value = dataset[()]
    return value.decode() if isinstance(value, bytes) else str(value)


# Movies


@dataclass(frozen=True)
class Shown:
    """A movie of the file, and the onset of each of its frames in seconds (None = not said)."""

    movie: xr.DataArray
    marks: np.ndarray | None


def _places(file: h5py.File, *, every: bool) -> dict[str, str]:
    """Movies in ``stimulus/presentation``: those with frames, else those of a full field.

    With `every`, all series there that can be movies.
    """
    shown = file.get(SHOWN)
    templates = file.get("stimulus/templates", {})
    images, fields = {}, {}
    for name, series in shown.items() if isinstance(shown, h5py.Group) else ():
        if not isinstance(series, h5py.Group) or "data" not in series:
            continue
        data = series["data"]
        if data.ndim >= 3 or any(key in series for key in ("external_file", *INDEXED)):
            images[name] = series.name
        elif data.ndim == 1 and data.dtype.kind in "iuf" and name not in templates:
            fields[name] = series.name
    return images | fields if every else images or fields


def _movie(path: Path, place: str) -> Shown:
    """Movie of a series and its timing."""
    names: list[str] = []
    with opened(path) as file:
        series = file[place]
        if any(key in series for key in INDEXED):
            movie = None
            frames = _indexed(series)
        elif "external_file" in series and len(series["external_file"]):
            movie, frames = None, None
            names = _texts(series["external_file"])
        else:
            movie, frames = _frames(series["data"], f"path ({place})"), None
        timing = _timing(series)
    if frames is not None:
        movie = _taken(frames, path, place)
    if movie is None:
        movie = _external(names, path, place)
    return Shown(movie, None if timing is None else timing(movie.sizes["time"]))


def _frames(data: h5py.Dataset, argument: str) -> xr.DataArray:
    dims = {1: ("time",), 3: ("time", "x", "y"), 4: ("time", "x", "y", "color")}
    if data.ndim not in dims:
        raise ValueError(
            f"{argument} has shape {data.shape}; expected (frame,), (frame, x, y) or (frame, x, y, "
            "color)"
        )
    movie = read_movie(data, argument, dims=dims[data.ndim])
    factor, offset = (
        float(data.attrs.get(key, x)) for key, x in (("conversion", 1), ("offset", 0))
    )
    if (factor, offset) != (1.0, 0.0):
        movie = (movie * np.float32(factor) + np.float32(offset)).assign_attrs(movie.attrs)
    unit = data.attrs.get("unit")
    return movie.assign_attrs(units=unit) if isinstance(unit, str) and unit != "unknown" else movie


def _external(names: list[str], path: Path, place: str) -> xr.DataArray:
    """Movie in files beside the NWB file, one after the other."""
    parts = []
    for name in names:
        file = Path(name) if Path(name).is_absolute() else path.parent / name
        if file.suffix.lower() not in READABLE:
            raise ValueError(
                f"path={str(path)!r}: the frames of {place} are in {name!r}, which cannot be read "
                f"(expected {', '.join(READABLE)}); convert the video to an array, and give it "
                "with stimulus="
            )
        if not file.exists():
            raise FileNotFoundError(
                f"path={str(path)!r}: the frames of {place} are in {name!r}, which does not exist; "
                "put it beside the file, or give the movie with stimulus="
            )
        parts.append(read_movie(file, f"stimulus ({place})"))
    return parts[0] if len(parts) == 1 else xr.concat(parts, "time", combine_attrs="override")


Frames = tuple[np.ndarray, "xr.DataArray | str"]


def _indexed(series: h5py.Group) -> Frames:
    """Numbers of the frames shown, and the images, or the name of the series they are from."""
    numbers = np.asarray(series["data"][()], dtype=np.int64)
    if "indexed_timeseries" in series:
        return numbers, str(series["indexed_timeseries"].name)
    images = series["indexed_images"]
    order = images.get("order_of_images")
    held = (
        [images.file[reference] for reference in order[()]]
        if order is not None
        else [item for item in images.values() if isinstance(item, h5py.Dataset)]
    )
    # Colour images have a third axis, which is last.
    stack = np.stack([image[()] for image in held])
    dims = ("time", "x", "y", "color")[: stack.ndim]
    return numbers, read_movie(stack, f"path ({images.name})", dims=dims)


def _taken(frames: Frames, path: Path, place: str) -> xr.DataArray:
    """Frames by their numbers, chunk by chunk: a movie of few images is never unrolled whole."""
    numbers, source = frames
    movie = _movie(path, source).movie if isinstance(source, str) else source
    if numbers.size and not (numbers.min() >= 0 and numbers.max() < movie.sizes["time"]):
        raise ValueError(
            f"path={str(path)!r}: {place} shows frames {numbers.min()}..{numbers.max()} of "
            f"{movie.sizes['time']}; the file is damaged"
        )
    step = max(1, CHUNK_BYTES // max(1, 4 * movie[0].size))
    array = da.asarray(movie.data)
    taken = [array[numbers[i : i + step]] for i in range(0, len(numbers), step)]
    coords = {name: movie.coords[name] for name in movie.dims[1:] if name in movie.coords}
    return xr.DataArray(da.concatenate(taken), dims=movie.dims, coords=coords, attrs=movie.attrs)


def _of_movies(
    parts: list[Recorded], shown: Mapping[str, Shown], path: Path, options: Options
) -> Read:
    """Tree of the movies in the file, a node for each where there are several."""
    if not shown:
        raise ValueError(
            f"path={str(path)!r} holds no movie in {SHOWN}; give stimulus= (the path of a movie, "
            "an array, or a description), and with frame_times= what marks its frames"
        )
    if len(parts) > 1:
        names = ", ".join(part.name for part in parts)
        raise ValueError(
            f"path={str(path)!r} holds {len(parts)} segments ({names}); give stimulus=, one movie "
            "that all of them show, or movies by the names of the segments"
        )
    (part,) = parts
    given = options.frame_times
    if given is not None and len(shown) > 1:
        raise ValueError(
            f"frame_times was given, but path={str(path)!r} holds several movies "
            f"({', '.join(shown)}); choose one with stimulus="
        )
    presentations: list[Presentation] = []
    said: list[str] = []
    for name, one in shown.items():
        if given is not None:
            marks, more = part.marks(marks_option(given, path, parts))
            said += more
        elif one.marks is None:
            raise ValueError(
                f"path={str(path)!r}: the movie {name!r} has neither timestamps nor a rate; name "
                f"the frame marks with frame_times= ({', '.join(part.events) or 'a file'})"
            )
        else:
            marks = checked_marks(one.marks)
        nodes = {} if len(shown) == 1 else {"once": name, "repeated": f"{name}_test"}
        if len(shown) > 1 and options.plan is not None:
            nodes["once"] = f"{name}_train"
        presentations.append(Presentation(one.movie, marks, options.plan, options.frames, **nodes))
    tree, notes = assemble(
        part.spikes.select(options.cells),
        presentations,
        epochs=part.epochs,
        bin_width=options.bin_width,
    )
    return tree, with_notes(tree, [*part.notes, *said, *notes])


# What save_recording wrote


def _saved(said: dict[str, str], spikes: SpikeTimes, path: Path) -> xr.DataTree:
    """Tree of save_recording: its nodes are in the file beside, its spike times in this one."""
    beside = path.parent / said["file"]
    if not beside.is_file():
        raise FileNotFoundError(
            f"path={str(path)!r}: its movies and counts are in {said['file']!r}, which is not "
            "beside it; put it there, or make the recording anew, with stimulus= and frame_times="
        )
    try:
        tree = xr.open_datatree(beside, engine="h5netcdf")
    except (OSError, KeyError) as error:
        text = " ".join(str(error).split())
        raise OSError(
            f"path={str(path)!r}: {said['file']!r} beside it is cut off or damaged ({text}); copy "
            "it anew"
        ) from error
    try:
        if tree.attrs.pop(PAIR, None) != said["pair"]:
            raise OSError(
                f"path={str(path)!r}: {said['file']!r} beside it is of another recording, or of "
                "another time of saving; copy both files anew"
            )
        labelled = tree.map_over_datasets(_with_plain_labels)
        return with_spike_times(labelled, spikes, said["digest"], path)
    except (OSError, ValueError):
        tree.close()
        raise


def _with_plain_labels(data: xr.Dataset) -> xr.Dataset:
    """Coordinate labels as plain NumPy strings; files hold them as objects."""
    text = {
        name: (variable.dims, np.asarray(variable.values.astype(object), dtype=str), variable.attrs)
        for name, variable in data.coords.items()
        if variable.dtype.kind in "OT"
    }
    return data.assign_coords(text)


NWB = Format(
    name="nwb",
    expects="an NWB 2 file with sorted units",
    takes=("stimulus", "frame_times", "bin_width", "cells", "plan", "frames"),
    recognises=_recognises,
    read=_read,
)
