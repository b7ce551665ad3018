"""What a segment of a recording holds, whatever it came from; one or several of them to a tree.

Everything here is in seconds on the clock of the segment. neo objects and files are turned into
`Recorded` by their own modules; stimulus and spikes meet here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import dask.array as da
import neo
import numpy as np
import xarray as xr

from retina_codec._common.checks import magnitude, nearest_names
from retina_codec._common.time import bin_width_of, runs_of, time_coordinate
from retina_codec.recordings.assembly import Plan, Presentation, assemble, epoch_node, response_node
from retina_codec.recordings.binning import checked_marks, require_matching_width
from retina_codec.recordings.spikes import SpikeTimes
from retina_codec.stimuli.sources import read_movie

PULSE_LOW = 0.25  # of the height: a pulse is over below it, so that noise at the edge counts once
INVERTED = 0.6  # a trace that is high for a larger share of the time has pulses that are low
COARSE = 1e-4  # s: spike times known no better than this are told
SOURCE = "source"  # column of epochs: the name of the table they are from

Trace = tuple[np.ndarray, np.ndarray]
Column = tuple[np.ndarray, dict[str, str]]


@dataclass(frozen=True)
class EpochTable:
    """A named table of epochs: starts and durations in seconds, labels, further columns."""

    name: str
    start: np.ndarray
    duration: np.ndarray
    labels: np.ndarray
    columns: Mapping[str, Column] = field(default_factory=dict)


@dataclass(frozen=True)
class Recorded:
    """A segment: spikes, and what may mark frames and epochs, by name.

    Parameters
    ----------
    spikes : SpikeTimes
        Of all cells.
    events : mapping of str to numpy.ndarray
        Times of events, in seconds.
    tables : list of EpochTable
        Epochs.
    signals : mapping of str to callable
        Analog channels that may carry trigger pulses, read when asked for: times in seconds and
        values.
    name : str
        Name of the segment.
    notes : list of str
        What the reader is to be warned of.
    """

    spikes: SpikeTimes
    events: Mapping[str, np.ndarray] = field(default_factory=dict)
    tables: Sequence[EpochTable] = ()
    signals: Mapping[str, Callable[[], Trace]] = field(default_factory=dict)
    name: str = ""
    notes: Sequence[str] = ()

    def marks(self, frame_times: Any) -> tuple[np.ndarray, list[str]]:
        """Frame marks, and notes on them.

        They are the named (or only) event, table of epochs or channel, or times as given.
        """
        if frame_times is None:
            frame_times = self._only_event()
        if isinstance(frame_times, str):
            starts = {table.name: table.start for table in self.tables}
            if frame_times in self.events:
                return checked_marks(self.events[frame_times]), []
            if frame_times in starts:
                return checked_marks(starts[frame_times]), []
            if frame_times in self.signals:
                times, values = self.signals[frame_times]()
                edges, notes = pulse_edges(times, values, f"frame_times={frame_times!r}")
                return checked_marks(edges), notes
            raise ValueError(
                f"frame_times={frame_times!r} is no event, epoch or channel of the segment; "
                f"{nearest_names(frame_times, [*self.events, *starts, *self.signals]) or 'none'}"
            )
        given, notes = _given_marks(frame_times)
        return checked_marks(given), notes

    def _only_event(self) -> str:
        if len(self.events) == 1:
            return next(iter(self.events))
        others = [*(table.name for table in self.tables), *self.signals]
        held = "no event" if not self.events else f"the events {', '.join(self.events)}"
        more = f" (and the epochs and channels {', '.join(others)})" if others else ""
        raise ValueError(
            f"frame_times was not given, and the segment holds {held}{more}; expected the frame "
            "marks: their name, or the times"
        )

    @property
    def epochs(self) -> xr.Dataset | None:
        """Node ``epochs``: all tables, in order of time; None if there are none."""
        return joined_epochs(self.tables)

    def shifted(self, seconds: float) -> Recorded:
        """All but the signals, on a clock that shows `seconds` more."""
        return replace(
            self,
            spikes=SpikeTimes(self.spikes.times + seconds, self.spikes.offsets, self.spikes.ids),
            events={name: times + seconds for name, times in self.events.items()},
            tables=[replace(table, start=table.start + seconds) for table in self.tables],
        )


def precision_notes(dtype: np.dtype, times: np.ndarray) -> list[str]:
    """Note on spike times (seconds) that were kept in numbers too coarse for them."""
    if dtype != np.float32 or not times.size:
        return []
    step = float(np.spacing(np.float32(np.abs(times).max())))
    if step < COARSE:
        return []
    return [
        f"spike times are 32-bit numbers, which at {times.max():.6g} s are {1000 * step:.2g} ms "
        "apart: spikes may be counted in a neighbouring bin"
    ]


def _given_marks(frame_times: Any) -> tuple[np.ndarray, list[str]]:
    """Seconds from neo objects, quantities, or plain seconds; and notes."""
    if isinstance(frame_times, neo.Event | neo.Epoch):
        return np.asarray(frame_times.times.rescale("s").magnitude, dtype=np.float64), []
    if isinstance(frame_times, neo.AnalogSignal | neo.IrregularlySampledSignal):
        if frame_times.shape[1] != 1:
            raise ValueError(
                f"frame_times is a signal of {frame_times.shape[1]} channels; expected one: choose "
                "it with signal[:, [i]]"
            )
        return pulse_edges(*trace_of(frame_times, 0), "frame_times")
    return np.asarray(magnitude(frame_times, "s", "frame_times")), []


def trace_of(signal: neo.AnalogSignal | neo.IrregularlySampledSignal, channel: int) -> Trace:
    """Give times in seconds and values of one channel of a signal."""
    times = np.asarray(signal.times.rescale("s").magnitude, dtype=np.float64)
    return times, np.asarray(signal.magnitude[:, channel], dtype=np.float64)


def pulse_edges(
    times: np.ndarray, values: np.ndarray, argument: str
) -> tuple[np.ndarray, list[str]]:
    """Find when each pulse of a trace begins, and say so where its polarity had to be judged.

    A trace that is high most of the time has inverted (active-low) pulses, which begin where it
    falls. Where it is high about half of the time nothing tells, and it is taken to rise.
    """
    rising = rising_edges(times, values, argument)
    low, high = float(np.min(values)), float(np.max(values))
    share = float(np.mean(np.asarray(values) >= low + 0.5 * (high - low)))
    if share <= 0.5:
        return rising, []
    held = f"{argument} is high {100 * share:.0f} % of the time"
    remedy = "if not, give the times of the marks"
    if share <= INVERTED:
        return rising, [f"{held}: each pulse is taken to begin where it rises; {remedy}"]
    falling = rising_edges(times, -np.asarray(values, dtype=np.float64), argument)
    return falling, [
        f"{held}: its pulses are taken to be inverted (active-low), each beginning where the trace "
        f"falls; {remedy}"
    ]


def rising_edges(times: np.ndarray, values: np.ndarray, argument: str) -> np.ndarray:
    """Find when a trace of pulses rises through half its height, between samples (linear).

    A pulse ends below a quarter of the height; what wavers in between is the same pulse. A pulse
    that is under way at the first sample has no edge.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.size == 0 or not np.isfinite(values).all():
        what = "no samples" if values.size == 0 else "NaN or infinite samples"
        raise ValueError(f"{argument} has {what}; expected a trace of trigger pulses")
    low, high = float(values.min()), float(values.max())
    if low == high:
        raise ValueError(
            f"{argument} is constant ({low:g}): it has no trigger pulses; name another channel"
        )
    half, over = low + 0.5 * (high - low), low + PULSE_LOW * (high - low)
    # 1 = in a pulse, 0 = between pulses, -1 = as before: each sample takes the last that is known.
    state = np.full(values.shape, -1, dtype=np.int8)
    state[values >= half] = 1
    state[values < over] = 0
    known = np.maximum.accumulate(np.where(state >= 0, np.arange(len(state)), -1))
    state = np.where(known >= 0, state[known], 0)
    after = np.flatnonzero((state[1:] == 1) & (state[:-1] == 0)) + 1
    below, above = values[after - 1], values[after]
    part = (half - below) / (above - below)
    return times[after - 1] + part * (times[after] - times[after - 1])


def joined_epochs(tables: Sequence[EpochTable]) -> xr.Dataset | None:
    """Node ``epochs`` from tables; what a table has no column for is NaN, or empty text."""
    tables = [table for table in tables if len(table.start)]
    if not tables:
        return None
    start = np.concatenate([table.start for table in tables])
    order = np.argsort(start, kind="stable")
    columns = {}
    for name in dict.fromkeys(name for table in tables for name in table.columns):
        if name in ("start", "duration", "label", SOURCE):
            continue
        given = [table.columns.get(name) for table in tables]
        is_text = any(column[0].dtype.kind in "UO" for column in given if column is not None)
        parts = [
            np.asarray(column[0], dtype=str if is_text else np.float64)
            if column is not None
            else np.full(len(table.start), "" if is_text else np.nan)
            for column, table in zip(given, tables, strict=True)
        ]
        attrs = next(column[1] for column in given if column is not None)
        columns[name] = (np.concatenate(parts)[order], attrs)
    source = np.concatenate([np.full(len(table.start), table.name) for table in tables])
    return epoch_node(
        start[order],
        np.concatenate([table.duration for table in tables])[order],
        np.concatenate([np.asarray(table.labels, dtype=str) for table in tables])[order],
        **columns,
        **{SOURCE: (source[order], {"long_name": "table the epoch is from"})},
    )


def tree_of(
    parts: Sequence[Recorded],
    *,
    stimulus: Any,
    frame_times: Any = None,
    plan: Any = None,
    frames: Any = None,
    bin_width: Any = None,
    cells: Iterable[object] | None = None,
    rate_sd: Any = 0.010,
) -> tuple[xr.DataTree, list[str]]:
    """Tree of the segments of a recording, and what to warn of; see `recording_from_neo`."""
    wanted = None if cells is None or isinstance(cells, str) else list(cells)
    parts = [
        replace(part, spikes=part.spikes.select(cells if wanted is None else wanted))
        for part in parts
    ]
    settings = {"bin_width": bin_width, "rate_sd": rate_sd}
    if len(parts) > 1:
        return _tree_of_segments(parts, stimulus, frame_times, plan, frames, settings)
    (part,) = parts
    if _is_by_name(stimulus):
        shown, said = _by_name(part, stimulus, frame_times, plan, frames)
    else:
        movie = _only_movie(stimulus)
        if _is_list(frame_times) and len(frame_times) == 1 and _is_marks(frame_times[0]):
            (frame_times,) = frame_times
        marks, said = part.marks(frame_times)
        shown = [Presentation(movie, marks, plan, frames)]
    tree, notes = assemble(part.spikes, shown, epochs=part.epochs, **settings)
    return tree, with_notes(tree, [*part.notes, *said, *notes])


def with_notes(tree: xr.DataTree, notes: Iterable[str]) -> list[str]:
    """Put the notes, each once, into the attrs of the tree, and give them."""
    notes = list(dict.fromkeys(notes))
    if notes:
        tree.attrs["notes"] = "; ".join(notes)
    return notes


def _only_movie(stimulus: Any) -> xr.DataArray:
    """Movie of the only segment: as given, or in a list of one, as several segments have it.

    A list of one frame (y, x) is a movie itself, and so is any longer list.
    """
    if _is_list(stimulus) and len(stimulus) == 1:
        (only,) = stimulus
        is_frame = getattr(only, "ndim", 0) == 2 and "time" not in getattr(only, "dims", ())
        if not is_frame and not _is_list(only):
            return read_movie(only, "stimulus[0]")
    return read_movie(stimulus, "stimulus")


def _is_marks(value: Any) -> bool:
    """Whether it gives the marks of a whole segment, and is not a single time."""
    return isinstance(value, str) or getattr(value, "ndim", 0) > 0 or isinstance(value, list)


def _is_by_name(stimulus: Any) -> bool:
    """Whether it is a mapping from names to stimuli; with a ``kind`` it describes one."""
    described = isinstance(stimulus, Mapping) and "kind" in stimulus
    return isinstance(stimulus, Mapping) and not isinstance(stimulus, xr.Dataset) and not described


def _by_name(
    part: Recorded, stimulus: Mapping[str, Any], frame_times: Any, plan: Any, frames: Any
) -> tuple[list[Presentation], list[str]]:
    """Several stimuli of one segment, with notes: a node, or with a plan two, by each name."""
    names = _names(stimulus, "stimulus")
    if not isinstance(frame_times, Mapping):
        raise TypeError(
            f"frame_times is a {type(frame_times).__name__}, but stimulus names several stimuli "
            f"({', '.join(names)}); expected a mapping with the same names"
        )
    given = _for_each(frame_times, names, "frame_times")
    marks, said = {}, []
    for name in names:
        marks[name], more = _said_of(f"frame_times[{name!r}]", part.marks, given[name])
        said += more
    plans, stretches = _for_each(plan, names, "plan"), _for_each(frames, names, "frames")
    shown = [
        Presentation(
            read_movie(stimulus[name], f"stimulus[{name!r}]"),
            marks[name],
            plans[name],
            stretches[name],
            once=name if plans[name] is None else f"{name}_train",
            repeated=f"{name}_test",
        )
        for name in names
    ]
    return shown, said


def _names(stimulus: Mapping[str, Any], argument: str) -> list[str]:
    names = list(stimulus)
    for name in names:
        if not isinstance(name, str) or not name or "/" in name:
            raise ValueError(f"{argument}: the name {name!r}; expected a text without '/'")
    taken = [name for name in names if name in ("spikes", "frames", "epochs")]
    if taken or not names:
        raise ValueError(
            f"{argument} names {taken or 'no stimulus'}; expected at least one, by names other "
            "than spikes, frames and epochs"
        )
    return names


def _for_each(
    value: Any, names: Sequence[str], argument: str, names_of: str = "stimulus"
) -> dict[str, Any]:
    """Value of each name: of a mapping with the names of `names_of`, or the same for all."""
    if not isinstance(value, Mapping):
        return dict.fromkeys(names, value)
    for name in [*names, *value]:
        if name not in value or name not in names:
            other = value if name not in value else names
            lacking = argument if name not in value else names_of
            raise ValueError(f"{lacking} has no {name!r}; {nearest_names(name, other)}")
    return {name: value[name] for name in names}


def _said_of(what: str, call: Callable[..., Any], *given: Any) -> Any:
    """Call, with `what` before the message where it raises ValueError."""
    try:
        return call(*given)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


# Several segments


def _tree_of_segments(
    parts: Sequence[Recorded],
    stimulus: Any,
    frame_times: Any,
    plan: Plan | str | None,
    frames: Any,
    settings: Mapping[str, Any],
) -> tuple[xr.DataTree, list[str]]:
    """One movie: repeats. A list of movies: runs. Movies by the names of segments: nodes."""
    if plan is not None:
        raise ValueError(
            f"plan was given, but block holds {len(parts)} segments, each a run or a repeat of "
            "its own; open them one by one, such as block.segments[0], or leave the plan out"
        )
    labels = [part.name or str(number) for number, part in enumerate(parts)]
    by_name, in_turn = _is_by_name(stimulus), _is_list(stimulus)
    movies = _movies_each(stimulus, labels)
    if by_name and isinstance(frame_times, Mapping):
        each = list(_for_each(frame_times, labels, "frame_times", "block").values())
    else:
        each = _marks_each(frame_times, len(parts))
    stretches = _stretch_each(frames, labels, differ=by_name or in_turn)
    marked = [
        _said_of(f"segment {label!r}", part.marks, one)
        for label, part, one in zip(labels, parts, each, strict=True)
    ]
    marks = [own for own, _ in marked]
    said = [
        f"segment {label!r}: {note}"
        for label, (_, notes) in zip(labels, marked, strict=True)
        for note in notes
    ]
    parts = _same_cells(parts, labels)
    shifts = clock_shifts(parts, marks)
    parts = [part.shifted(shift) for part, shift in zip(parts, shifts, strict=True)]
    names = labels if by_name else [f"segment_{number}" for number in range(len(parts))]
    shown = [
        Presentation(movie, own + shift, None, stretch, once=name)
        for movie, own, shift, stretch, name in zip(
            movies, marks, shifts, stretches, names, strict=True
        )
    ]
    spikes = _joined_spikes([part.spikes for part in parts])
    tables = [table for part in parts for table in part.tables]
    tree, notes = assemble(spikes, shown, epochs=joined_epochs(tables), **settings)
    notes = [*(note for part in parts for note in part.notes), *said, *notes]
    if not by_name:
        pieces = {name: tree[name].to_dataset() for name in names}
        width = _shared_width(list(pieces.values()), labels)
        rate_sd = settings["rate_sd"]
        if in_turn:
            made = {"train": _runs(list(pieces.values()), width, rate_sd)}
        else:
            repeats, more = _repeats(list(pieces.values()), labels, width, rate_sd)
            made = {"test": repeats}
            notes += more
        rest = {node.path: node.to_dataset() for node in tree.children.values()}
        kept = {path: node for path, node in rest.items() if path.strip("/") not in pieces}
        attrs = tree.attrs
        tree = xr.DataTree.from_dict({**{f"/{name}": node for name, node in made.items()}, **kept})
        tree.attrs = attrs
    notes = with_notes(tree, notes)
    tree.attrs["segments"] = json.dumps(
        [{"name": name, "shift": shift} for name, shift in zip(labels, shifts, strict=True)]
    )
    return tree, notes


def _is_list(value: Any) -> bool:
    """Whether it lists one thing a segment, and is not a list of numbers."""
    is_list = isinstance(value, list | tuple)
    return is_list and not (value and isinstance(value[0], int | float | np.number))


def _movies_each(stimulus: Any, labels: Sequence[str]) -> list[xr.DataArray]:
    """Movie of each segment: by its name, in turn, or the same for all."""
    if _is_by_name(stimulus):
        if len(set(labels)) < len(labels):
            raise ValueError(
                f"stimulus gives movies by name, but segments share a name ({', '.join(labels)}); "
                "give a list of movies, one a segment"
            )
        _names(stimulus, "stimulus")
        given = _for_each(stimulus, labels, "stimulus", "block")
        return [read_movie(given[name], f"stimulus[{name!r}]") for name in labels]
    if not _is_list(stimulus):
        return [read_movie(stimulus, "stimulus")] * len(labels)
    if len(stimulus) != len(labels):
        raise ValueError(
            f"stimulus is a list of {len(stimulus)}, but block holds {len(labels)} segments; "
            "expected one movie a segment, or one movie that all of them show"
        )
    return [read_movie(one, f"stimulus[{i}]") for i, one in enumerate(stimulus)]


def _stretch_each(frames: Any, labels: Sequence[str], *, differ: bool) -> list[Any]:
    """Frames to use of each segment: by its name, or the same for all."""
    given = _for_each(frames, labels, "frames", "block")
    each = [given[label] for label in labels]
    if not differ and any(one != each[0] for one in each):
        raise ValueError(
            f"frames={frames!r} differ, but stimulus is one movie that all segments repeat; "
            "expected the same frames of each, or movies in a list or by the names of the segments"
        )
    return each


def _marks_each(frame_times: Any, n_parts: int) -> list[Any]:
    """Give what marks the frames of each segment: one of a list, or the same for all."""
    if isinstance(frame_times, Mapping):
        raise TypeError(
            "frame_times is a mapping, but stimulus is not; expected a name, or a list of marks, "
            "one a segment"
        )
    if not _is_list(frame_times):
        return [frame_times] * n_parts
    if len(frame_times) != n_parts:
        raise ValueError(
            f"frame_times is a list of {len(frame_times)}, but block holds {n_parts} segments; "
            "expected the marks of each segment, or one name that all of them know"
        )
    return list(frame_times)


def _same_cells(parts: Sequence[Recorded], labels: Sequence[str]) -> list[Recorded]:
    """Put the cells of all segments in the order of the first; ValueError if one is missing."""
    ids = parts[0].spikes.ids
    for part, label in zip(parts, labels, strict=True):
        for cell in sorted(set(ids) ^ set(part.spikes.ids)):
            there = labels[0] if cell in ids else label
            missing = label if cell in ids else labels[0]
            raise ValueError(
                f"cells: cell {cell!r} has a spike train in segment {there!r} but none in "
                f"{missing!r}; a cell without spikes needs an empty train: add it, or say with "
                "cells= which to keep"
            )
    return [replace(part, spikes=part.spikes.select(ids)) for part in parts]


def clock_shifts(parts: Sequence[Recorded], marks: Sequence[np.ndarray]) -> list[float]:
    """Seconds to add to the clock of each segment so that they follow each other.

    None where they do already. Otherwise the clock of a segment starts a whole number of seconds,
    at least one, after the end of the segment before.
    """
    spans = [_span(part, own) for part, own in zip(parts, marks, strict=True)]
    if all(a[1] <= b[0] for a, b in pairwise(spans)):
        return [0.0] * len(parts)
    shifts = [0.0]
    for (_, end), (begin, _) in pairwise(spans):
        shifts.append(float(math.ceil(shifts[-1] + end + 1.0 - min(begin, 0.0))))
    return shifts


def _span(part: Recorded, marks: np.ndarray) -> tuple[float, float]:
    """First and last time of a segment, with one frame after the last mark."""
    begins, ends = [float(marks[0])], [float(marks[-1] + np.diff(marks).mean())]
    if part.spikes.times.size:
        begins.append(float(part.spikes.times.min()))
        ends.append(float(part.spikes.times.max()))
    for table in part.tables:
        if len(table.start):
            begins.append(float(np.min(table.start)))
            ends.append(float(np.max(table.start + table.duration)))
    return min(begins), max(ends)


def _joined_spikes(parts: Sequence[SpikeTimes]) -> SpikeTimes:
    """Spikes of consecutive segments with the same cells."""
    ids = parts[0].ids
    counts = np.sum([np.diff(part.offsets) for part in parts], axis=0)
    times = np.concatenate([part.of(i) for i in range(len(ids)) for part in parts])
    return SpikeTimes(times, np.r_[0, np.cumsum(counts)], ids)


def _shared_width(pieces: Sequence[xr.Dataset], labels: Sequence[str]) -> float:
    """Bin width of all segments (seconds): the mean over frames, with which each must agree."""
    widths = [bin_width_of(piece) for piece in pieces]
    width = float(np.average(widths, weights=[piece.sizes["time"] for piece in pieces]))
    for own, label in zip(widths, labels, strict=True):
        _said_of(f"segment {label!r}", require_matching_width, own, width, "frame interval")
    return width


def _repeats(
    pieces: Sequence[xr.Dataset], labels: Sequence[str], width: float, rate_sd: Any
) -> tuple[xr.Dataset, list[str]]:
    """Node of segments that show the same frames: spike_count(repeat, time, cell)."""
    whole = [i for i, piece in enumerate(pieces) if len(runs_of(piece)) == 1]
    if not whole:
        raise ValueError(
            "frame_times: the display pauses in every segment, so that none is a whole repeat; "
            "give the movies as a list, one a segment, to use their runs"
        )
    paused = [labels[i] for i in range(len(pieces)) if i not in whole]
    notes = [f"repeats with a pause in them are not used: {', '.join(paused)}"] if paused else []
    kept = [pieces[i] for i in whole]
    counts = [piece["spike_count"].data for piece in kept]
    lazy = any(isinstance(count, da.Array) for count in counts)
    time = time_coordinate(np.arange(kept[0].sizes["time"]) * width, width)
    time.attrs["long_name"] = "onset of the bin after the start of the repeat"
    node = response_node(
        da.stack(counts) if lazy else np.stack(counts),
        cells=_ids(kept[0]),
        time=time,
        stimulus=kept[0]["stimulus"].drop_vars("block").assign_coords(time=time),
        repeat=whole,
        repeat_onset=np.array([float(piece["time"].values[0]) for piece in kept]),
        rate_sd=rate_sd,
    )
    return node, notes


def _runs(pieces: Sequence[xr.Dataset], width: float, rate_sd: Any) -> xr.Dataset:
    """Node of segments in turn: spike_count(time, cell), each with blocks of its own."""
    stimuli = [piece["stimulus"].drop_vars(["block", "time"]) for piece in pieces]
    shapes = [{dim: n for dim, n in one.sizes.items() if dim != "time"} for one in stimuli]
    for number, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise ValueError(
                f"stimulus[{number}] has frames of {shape}, stimulus[0] of {shapes[0]}; segments "
                "of one node need frames of one size: give the movies by the names of the segments"
            )
    shared = set.intersection(*(set(map(str, one.coords)) for one in stimuli))
    stimuli = [one.drop_vars(set(one.coords) - shared) for one in stimuli]
    blocks, first = [], 0
    for piece in pieces:
        blocks.append(piece["block"].values + first)
        first = int(blocks[-1].max()) + 1
    counts = [piece["spike_count"].data for piece in pieces]
    lazy = any(isinstance(count, da.Array) for count in counts)
    time = time_coordinate(np.concatenate([piece["time"].values for piece in pieces]), width)
    stimulus = xr.concat(
        stimuli, "time", coords="minimal", compat="override", join="override",
        combine_attrs="override",
    )  # fmt: skip
    return response_node(
        (da if lazy else np).concatenate(counts),
        cells=_ids(pieces[0]),
        time=time,
        stimulus=stimulus.assign_coords(time=time),
        block=np.concatenate(blocks),
        rate_sd=rate_sd,
    )


def _ids(piece: xr.Dataset) -> list[str]:
    return [str(cell) for cell in piece["cell"].values]
