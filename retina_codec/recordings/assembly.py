"""Frames, marks and spikes to the labelled tree of a recording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr

from retina_codec._common.checks import require_count, require_finite
from retina_codec._common.provenance import provenance
from retina_codec._common.time import bin_width_of, block_coordinate, time_coordinate
from retina_codec.recordings.binning import checked_bin_width, late_mark_note
from retina_codec.recordings.mark_repair import FittedMarks, fitted_marks
from retina_codec.recordings.nodes import cell_coordinate
from retina_codec.recordings.plan import (
    FrozenNoise,
    Layout,
    RepeatedFrames,
    layout_of,
    require_one_mark_a_frame,
)
from retina_codec.recordings.plausibility import require_plausible
from retina_codec.recordings.rates import firing_rate
from retina_codec.recordings.repeats import find_repeats, repeats_in_epochs
from retina_codec.recordings.spikes import SpikeTimes

COUNT_ATTRS = {"units": "1", "long_name": "spikes in the bin"}
# Counts of more bins than this (256 MB) are made when they are asked for, chunk by chunk.
COUNTS_IN_MEMORY = 2**26
COUNTS_IN_CHUNK = 2**23
# Displays stall for some frames; a longer gap between two marks is a pause between stimuli.
PAUSE_INTERVALS = 20

# What the movie says of its frames, along time, goes with them.
FRAME_COORDINATES = ("epoch", "direction")

Plan = FrozenNoise | RepeatedFrames


@dataclass(frozen=True)
class Frames:
    """Frames of the movie with their onset and end (seconds), in stretches without a pause."""

    movie: xr.DataArray
    onsets: np.ndarray
    ends: np.ndarray
    stretches: list[slice]

    @property
    def interval(self) -> np.ndarray:
        """Seconds for which each frame was shown."""
        return self.ends - self.onsets


@dataclass(frozen=True)
class Presentation:
    """A movie (time, [color,] y, x) that was shown, and when: checked frame marks in seconds.

    `once` and `repeated` are the names of the nodes for frames shown once and for repeats.
    """

    movie: xr.DataArray
    marks: np.ndarray
    plan: Plan | str | None = None
    frames: tuple[int, int] | None = None
    once: str = "train"
    repeated: str = "test"


def assemble(
    spikes: SpikeTimes,
    presentations: Sequence[Presentation],
    *,
    epochs: xr.Dataset | None = None,
    bin_width: Any = None,
    rate_sd: Any = 0.010,
) -> tuple[xr.DataTree, list[str]]:
    """Tree of a recording, and what its reader is to be warned of; see `recording_from_neo`."""
    nodes: dict[str, xr.Dataset] = {}
    notes: list[str] = []
    used, plans, limits = [], [], []
    for shown in presentations:
        own, frames, plan, said, limit = _nodes_of(
            spikes, shown, epochs=epochs, bin_width=bin_width, rate_sd=rate_sd
        )
        nodes |= own
        used.append(spans(frames))
        plans.append(None if plan is None else {"kind": type(plan).__name__, **asdict(plan)})
        limits.append(limit)
        notes += said
    notes += require_plausible(spikes, min(a for a, _ in limits), max(b for _, b in limits))
    made = next(iter(nodes.values()))
    single = len(presentations) == 1
    attrs = {
        **provenance(
            function="assemble",
            plan=plans[0] if single else plans,
            frames=[shown.frames for shown in presentations],
            bin_width=made["time"].attrs["bin_width"],
            rate_sd=made["rate"].attrs["smoothing_sd"],
        ),
        "frames_used": "; ".join(used),
    }
    nodes["spikes"] = spikes.to_dataset()
    nodes["frames"] = frame_mark_node(np.concatenate([shown.marks for shown in presentations]))
    if epochs is not None and epochs.sizes.get("epoch"):
        nodes["epochs"] = epochs
    tree = xr.DataTree.from_dict({f"/{name}": node for name, node in nodes.items()})
    tree.attrs = attrs
    if notes:
        tree.attrs["notes"] = "; ".join(notes)
    return tree, notes


def _nodes_of(
    spikes: SpikeTimes,
    given: Presentation,
    *,
    epochs: xr.Dataset | None,
    bin_width: Any,
    rate_sd: Any,
) -> tuple[dict[str, xr.Dataset], np.ndarray, Plan | None, list[str], tuple[float, float]]:
    """Nodes of one presentation, frames used, plan, notes, and its begin and end (seconds)."""
    movie = given.movie
    first, stop = _frame_range(given.frames, movie.sizes["time"])
    # All marks are fitted to all frames first: one that is lost before the first frame used would
    # shift every frame after it, and nothing in the recording could tell.
    fitted = fitted_marks(given.marks, movie.sizes["time"], PAUSE_INTERVALS)
    marks, gaps, repairs = fitted.marks, fitted.gaps, fitted.notes
    if given.frames is not None:
        _require_sure_start(fitted, movie.sizes["time"], first, stop)
        movie, marks = movie.isel(time=slice(first, stop)), marks[first : stop + 1]
        gaps = gaps[(gaps >= first) & (gaps < stop)] - first
    require_finite(movie, "stimulus")
    plan = _resolved(given.plan, movie, marks, epochs)
    if plan is None:
        require_one_mark_a_frame(movie.sizes["time"], len(marks))
        layout = Layout([(0, slice(0, movie.sizes["time"]))], [], [])
    else:
        layout = layout_of(movie, len(marks), plan)

    shown = _shown(movie, marks, gaps)
    used = layout.frames
    width = checked_bin_width(shown.interval[used], used + first, bin_width)
    if "time" in movie.coords and "bin_width" in movie["time"].attrs:
        own = bin_width_of(movie, "stimulus")
        checked_bin_width(shown.interval[used], used, own, "stimulus: bin_width")
    layout, notes = _without_pauses(layout, shown)
    late = late_mark_note(marks)
    notes = [*layout.notes, *repairs, *notes, *([late] if late else [])]
    nodes = {}
    if layout.runs:
        nodes[given.once] = _run_node(spikes, shown, layout.runs, width, rate_sd)
    if layout.repeats:
        nodes[given.repeated] = _repeat_node(spikes, shown, layout.repeats, width, rate_sd)
    limits = (float(shown.onsets[used[0]]), float(shown.ends[used[-1]]))
    return nodes, used + first, plan, notes, limits


def _require_sure_start(fitted: FittedMarks, n_frames: int, first: int, stop: int) -> None:
    """Raise ValueError if marks that are lost or doubled leave it open which one frame `first` has.

    Where there is one mark a frame, they may be a display that stalled: that is only warned of, as
    are those after `first`, where spikes can tell.
    """
    before = fitted.odd[fitted.odd < first]
    if before.size and len(fitted.marks) - n_frames not in (0, 1):
        raise ValueError(
            f"frames={(first, stop)}: the gap after mark {before[0]} says that a mark is lost or "
            f"doubled there, and {len(fitted.marks)} marks for {n_frames} frames do not tell how "
            "many: every frame after it would be shifted; correct frame_times, or give those of "
            "this stretch with its part of the stimulus"
        )


def frame_mark_node(marks: np.ndarray) -> xr.Dataset:
    """Node ``frames`` of a recording: all frame marks that were given."""
    attrs = {"units": "s", "long_name": "frame marks, used or not"}
    return xr.Dataset({"frame_time": ("frame", np.asarray(marks, dtype=np.float64), attrs)})


def epoch_node(
    start: Any, duration: Any, label: Sequence[str] | np.ndarray, **columns: Any
) -> xr.Dataset:
    """Node ``epochs`` of a recording: start and duration (seconds), label, further columns."""
    return xr.Dataset(
        {
            "start": ("epoch", np.asarray(start, dtype=np.float64), {"units": "s"}),
            "duration": ("epoch", np.asarray(duration, dtype=np.float64), {"units": "s"}),
            "label": ("epoch", np.asarray(label, dtype=str), {"long_name": "what was shown"}),
            **{name: ("epoch", *given) for name, given in columns.items()},
        }
    )


def _frame_range(frames: tuple[int, int] | None, n_frames: int) -> tuple[int, int]:
    if frames is None:
        return 0, n_frames
    if not isinstance(frames, Sequence) or len(frames) != 2:
        raise TypeError(f"frames={frames!r}; expected (first, stop), two frame numbers")
    first = require_count(frames[0], 0, "frames")
    stop = require_count(frames[1], 1, "frames")
    if not first < stop <= n_frames:
        raise ValueError(
            f"frames={(first, stop)} is no stretch of the {n_frames} frames of the stimulus; "
            "expected first < stop, both counted from 0"
        )
    return first, stop


def _resolved(
    plan: Plan | str | None, movie: xr.DataArray, marks: np.ndarray, epochs: xr.Dataset | None
) -> Plan | None:
    """Return the plan given, found in the stimulus, or told by epochs of a name."""
    if plan is None or isinstance(plan, FrozenNoise | RepeatedFrames):
        return plan
    if not isinstance(plan, str):
        raise TypeError(
            f"plan is a {type(plan).__name__}; expected FrozenNoise(...), RepeatedFrames(...), "
            "'find', the label of the epochs that are repeats, or None"
        )
    if plan != "find":
        return repeats_in_epochs(epochs, plan, marks[: movie.sizes["time"]])
    found = find_repeats(movie)
    if found is None:
        raise ValueError(
            "plan='find': no stretch of frames of the stimulus recurs; leave the plan out"
        )
    return found


def _shown(movie: xr.DataArray, marks: np.ndarray, gaps: np.ndarray) -> Frames:
    """Onset and end of every frame that has a mark; the last before a gap lasts an interval."""
    n_frames = min(movie.sizes["time"], len(marks))
    intervals = np.diff(marks[: n_frames + 1])
    paused = np.zeros(len(intervals), dtype=bool)
    paused[gaps[gaps < len(intervals)]] = True
    mean = float(intervals[~paused].mean())
    ends = np.append(marks[1:], marks[-1] + mean)[:n_frames]
    # A mark after a gap does not end the frame before it.
    paused = np.append(paused, False)[:n_frames]
    ends[paused] = marks[:n_frames][paused] + mean
    cuts = [0, *(np.flatnonzero(paused[:-1]) + 1).tolist(), n_frames]
    stretches = [slice(a, b) for a, b in pairwise(cuts)]
    return Frames(movie, marks[:n_frames], ends, stretches)


def _without_pauses(layout: Layout, shown: Frames) -> tuple[Layout, list[str]]:
    """Cut runs at pauses (and number them anew), leave out repeats with a pause in them."""
    if len(shown.stretches) == 1:
        return layout, []
    seams = np.array([stretch.start for stretch in shown.stretches[1:]])
    pieces = []
    for _, run in layout.runs:
        inside = seams[(seams > run.start) & (seams < run.stop)].tolist()
        edges = [run.start, *inside, run.stop]
        pieces += [slice(a, b) for a, b in pairwise(edges)]
    whole = [
        (number, part)
        for number, part in layout.repeats
        if not ((seams > part.start) & (seams < part.stop)).any()
    ]
    pauses = ", ".join(
        f"{shown.onsets[seam] - shown.onsets[seam - 1]:.3g} s after frame {seam - 1}"
        for seam in seams[:3]
    )
    note = (
        f"the display paused or stalled {len(seams)} times "
        f"({pauses}{', ...' if len(seams) > 3 else ''}); "
        "runs end there, and no window reaches across"
    )
    left_out = len(layout.repeats) - len(whole)
    if left_out:
        note += f"; {left_out} repeats with a pause in them are not used"
    # Numbers of a plan's blocks are kept where no run was cut.
    runs = layout.runs if len(pieces) == len(layout.runs) else list(enumerate(pieces))
    return Layout(runs, whole, layout.notes), [note]


def counts_in(spikes: SpikeTimes, onsets: np.ndarray, ends: np.ndarray) -> Any:
    """Count spikes (time, cell) in contiguous frames; a dask array where they are very many."""
    n_bins, n_cells = len(onsets), len(spikes)
    if n_bins * n_cells <= COUNTS_IN_MEMORY:
        return spikes.count(np.append(onsets, ends[-1]))
    step = max(1, COUNTS_IN_CHUNK // n_cells)
    # The flat arrays are one object of the graph: neither copied nor taken apart.
    shared = dask.delayed(spikes, traverse=False, pure=False)
    chunks = []
    for start in range(0, n_bins, step):
        stop = min(start + step, n_bins)
        counted = shared.count(np.append(onsets[start:stop], ends[stop - 1]))
        chunks.append(da.from_delayed(counted, (stop - start, n_cells), np.int32))
    return da.concatenate(chunks)


def _joined(parts: list[Any]) -> Any:
    if len(parts) == 1:
        return parts[0]
    if any(isinstance(part, da.Array) for part in parts):
        return da.concatenate(parts)
    return np.concatenate(parts)


def stimulus_part(movie: xr.DataArray, parts: Sequence[slice], time: xr.DataArray) -> xr.DataArray:
    """Frames of the movie, on the time of their node; a view where they are one stretch."""
    kept: dict[str, Any] = {
        str(dim): movie.coords[dim].variable for dim in movie.dims[1:] if dim in movie.coords
    }
    for name in FRAME_COORDINATES:
        if name in movie.coords:
            frames = movie.coords[name].variable
            kept[name] = frames[np.concatenate([np.arange(p.start, p.stop) for p in parts])]
    return xr.DataArray(
        _joined([movie.data[part] for part in parts]),
        dims=movie.dims,
        coords={"time": time, **kept},
        attrs={"units": "1", "long_name": "stimulus", **movie.attrs},
    )


def _run_node(
    spikes: SpikeTimes,
    shown: Frames,
    runs: list[tuple[int, slice]],
    width: float,
    rate_sd: Any,
) -> xr.Dataset:
    """Node of frames shown once: spike_count(time, cell)."""
    parts = [part for _, part in runs]
    counts = _joined([counts_in(spikes, shown.onsets[part], shown.ends[part]) for part in parts])
    onsets = np.concatenate([shown.onsets[part] for part in parts])
    numbers = np.repeat([number for number, _ in runs], [part.stop - part.start for part in parts])
    time = time_coordinate(onsets, width)
    return response_node(
        counts,
        cells=spikes.ids,
        time=time,
        stimulus=stimulus_part(shown.movie, parts, time),
        block=numbers,
        rate_sd=rate_sd,
    )


def _repeat_node(
    spikes: SpikeTimes,
    shown: Frames,
    repeats: list[tuple[int, slice]],
    width: float,
    rate_sd: Any,
) -> xr.Dataset:
    """Node of the repeated frames: spike_count(repeat, time, cell)."""
    parts = [part for _, part in repeats]
    time = time_coordinate(np.arange(parts[0].stop - parts[0].start) * width, width)
    time.attrs["long_name"] = "onset of the bin after the start of the repeat"
    counts = [counts_in(spikes, shown.onsets[part], shown.ends[part]) for part in parts]
    lazy = any(isinstance(count, da.Array) for count in counts)
    return response_node(
        da.stack(counts) if lazy else np.stack(counts),
        cells=spikes.ids,
        time=time,
        stimulus=stimulus_part(shown.movie, parts[:1], time),
        repeat=[number for number, _ in repeats],
        repeat_onset=shown.onsets[[part.start for part in parts]],
        rate_sd=rate_sd,
    )


def response_node(
    counts: Any,
    *,
    cells: Sequence[str],
    time: xr.DataArray,
    stimulus: xr.DataArray,
    block: np.ndarray | None = None,
    repeat: Sequence[int] | None = None,
    repeat_onset: np.ndarray | None = None,
    rate_sd: Any = 0.010,
) -> xr.Dataset:
    """Node of a recording from counts ([repeat,] time, cell) and the stimulus on the same time.

    `block` numbers the contiguous runs along time, `repeat` the presentations.
    """
    coords: dict[str, Any] = {"time": time, "cell": cell_coordinate(cells)}
    dims: tuple[str, ...] = ("time", "cell")
    if block is not None:
        coords["block"] = block_coordinate(block)
    if repeat is not None:
        dims = ("repeat", *dims)
        coords["repeat"] = ("repeat", np.asarray(repeat), {"long_name": "number of the repeat"})
    if repeat_onset is not None:
        text = "start of the repeat on the clock of the recording"
        coords["repeat_onset"] = ("repeat", repeat_onset, {"units": "s", "long_name": text})
    spike_count = xr.DataArray(counts, dims=dims, coords=coords, attrs=COUNT_ATTRS)
    return xr.Dataset(
        {
            "stimulus": stimulus,
            "spike_count": spike_count,
            "rate": firing_rate(spike_count, sd=rate_sd),
        }
    )


def spans(frames: np.ndarray) -> str:
    """Ascending frame numbers as text, such as ``0..98399``."""
    cuts = np.flatnonzero(np.diff(frames) > 1)
    starts, stops = np.r_[frames[0], frames[cuts + 1]], np.r_[frames[cuts], frames[-1]]
    return ", ".join(f"{a}..{b}" for a, b in zip(starts, stops, strict=True))
