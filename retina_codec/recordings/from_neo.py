"""From neo objects (spike trains, frame marks) to the labelled tree of a recording."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import neo
import numpy as np
import quantities as pq
import xarray as xr

from retina_codec._common.checks import magnitude, nearest_names, require_dims, require_finite
from retina_codec._common.provenance import provenance
from retina_codec._common.time import bin_width_of, block_coordinate, time_coordinate
from retina_codec.recordings.binning import (
    checked_bin_width,
    checked_marks,
    count_spikes,
    firing_rate,
    late_mark_note,
    require_matching_width,
)
from retina_codec.recordings.nodes import STIMULUS_DIMS, chosen_cells
from retina_codec.recordings.plan import FrozenNoise, usable_blocks

COUNT_ATTRS = {"units": "1", "long_name": "spikes in the bin"}


def recording_from_neo(
    block: neo.Block | neo.Segment,
    *,
    stimulus: xr.DataArray | np.ndarray,
    frame_times: str | neo.Event | pq.Quantity | np.ndarray,
    plan: FrozenNoise | None = None,
    bin_width: float | pq.Quantity | None = None,
    cells: Iterable[object] | None = None,
    rate_sd: float | pq.Quantity = 0.010,
) -> xr.DataTree:
    """Align the spike trains of a neo segment with the frames of a stimulus.

    Frame ``i`` is shown from its mark to the next one, and a spike is counted in the bin of the
    frame during which it falls (half-open bins). The last frame, where no further mark ends it,
    lasts one mean interval.

    Parameters
    ----------
    block : neo.Block or neo.Segment
        Spike trains, one a cell; a Block must hold one segment. The id of a cell is the train's
        ``name``, else its annotation ``id``, else its number.
    stimulus : xarray.DataArray or numpy.ndarray
        The movie, one entry a frame: DataArray with dims (time, [color,] y, x), or array
        (frame, y, x), or (frame,) for a full field. Frames are matched to marks by order; the
        `time` of a DataArray is not used beyond a check of its bin width.
    frame_times : str, neo.Event, quantity or numpy.ndarray
        Frame marks on the clock of the spikes: the name of an event of the segment, an event, or
        times (plain numbers are seconds).
    plan : FrozenNoise, optional
        The repeats in the stimulus. Then only complete blocks are used whose frozen frames are
        exactly those of block 0. Without a plan, the recording is one continuous run.
    bin_width : float or quantity, optional
        Seconds; must agree with the mean frame interval within 2 %, which it then replaces.
    cells : list of ids, optional
        Cells to keep, in this order.
    rate_sd : float or quantity
        Standard deviation, in seconds, of the Gaussian that smooths `rate`.

    Returns
    -------
    xarray.DataTree
        Node ``train``: stimulus(time, [color,] y, x) float32; spike_count(time, cell) int32;
        rate(time, cell) in Hz; `time` in seconds on the clock of the recording, and block(time).
        With a plan, node ``test`` too: stimulus(time, [color,] y, x) of the frozen frames, `time`
        from 0; spike_count(repeat, time, cell); rate(time, cell), the mean over repeats;
        repeat_onset(repeat) in seconds. `block` and `repeat` are the plan's block numbers.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If there are no spike trains, ids are double or unknown, marks do not ascend, numbers of
        frames and marks do not fit, the stimulus has NaN, or the plan does not fit the stimulus.

    Warns
    -----
    UserWarning
        About frames that are not used, and about late frame marks.

    Examples
    --------
    >>> import neo, numpy as np, quantities as pq
    >>> from retina_codec.recordings import recording_from_neo
    >>> segment = neo.Segment()
    >>> segment.spiketrains.append(neo.SpikeTrain([0.05, 0.06, 0.31] * pq.s, t_stop=1, name="C1"))
    >>> recording = recording_from_neo(
    ...     segment, stimulus=np.array([1.0, -1.0, 1.0, -1.0]),
    ...     frame_times=[0, 100, 200, 300] * pq.ms,
    ... )
    >>> recording["train"]["spike_count"].sel(cell="C1").values
    array([2, 0, 0, 1], dtype=int32)
    """
    tree, notes = build_recording(
        block,
        stimulus=stimulus,
        frame_times=frame_times,
        plan=plan,
        bin_width=bin_width,
        cells=cells,
        rate_sd=rate_sd,
    )
    for note in notes:
        warnings.warn(note, UserWarning, stacklevel=2)
    return tree


def build_recording(
    block: neo.Block | neo.Segment,
    *,
    stimulus: Any,
    frame_times: Any,
    plan: FrozenNoise | None = None,
    bin_width: Any = None,
    cells: Iterable[object] | None = None,
    rate_sd: Any = 0.010,
) -> tuple[xr.DataTree, list[str]]:
    """`recording_from_neo`, giving what is to be warned of instead of warning."""
    segment = _segment_of(block)
    trains = _trains_of(segment)
    ids = chosen_cells(list(trains), cells)
    if not (plan is None or isinstance(plan, FrozenNoise)):
        raise TypeError(
            f"plan is a {type(plan).__name__}; expected FrozenNoise(running_frames=..., "
            "frozen_frames=...) or None"
        )
    movie = _movie_of(stimulus)
    marks = checked_marks(_seconds_of(frame_times, segment))
    n_frames, n_marks = movie.sizes["time"], len(marks)

    notes: list[str] = []
    if plan is None:
        if n_marks - n_frames not in (0, 1):
            raise ValueError(
                f"stimulus has {n_frames} frames but frame_times has {n_marks} marks; expected one "
                "mark a frame (and at most one more, which ends the last frame): cut the longer to "
                "what was shown, or give the plan= of its repeats"
            )
        frames = [np.arange(n_frames)]
    else:
        blocks, notes = usable_blocks(movie.values, n_marks, plan)
        frames = [
            np.arange(plan.running(number).start, plan.frozen(number).stop) for number in blocks
        ]
    used = np.concatenate(frames)

    edges = np.append(marks, marks[-1] + np.diff(marks).mean())[: used[-1] + 2]
    interval, width = checked_bin_width(edges, used, bin_width)
    if "time" in movie.coords and "bin_width" in movie["time"].attrs:
        require_matching_width(bin_width_of(movie, "stimulus"), interval, "stimulus: bin_width")
    late = late_mark_note(marks)
    notes = [*notes, late] if late else notes

    counts = np.stack([count_spikes(trains[name], edges) for name in ids], axis=1)
    if plan is None:
        numbers = np.zeros(n_frames, dtype=np.int64)
        nodes = {"train": _run_node(movie, counts, edges, used, numbers, ids, width, rate_sd)}
    else:
        running = np.concatenate([np.arange(n_frames)[plan.running(b)] for b in blocks])
        numbers = np.repeat(blocks, plan.running_frames)
        nodes = {
            "train": _run_node(movie, counts, edges, running, numbers, ids, width, rate_sd),
            "test": _repeat_node(movie, counts, edges, plan, blocks, ids, width, rate_sd),
        }
    tree = xr.DataTree.from_dict({f"/{name}": node for name, node in nodes.items()})
    tree.attrs = {
        **provenance(
            function="recording_from_neo",
            plan=None if plan is None else asdict(plan),
            bin_width=width,
            rate_sd=nodes["train"]["rate"].attrs["smoothing_sd"],
        ),
        "source_format": "neo",
        "frames_used": _spans(used),
    }
    if notes:
        tree.attrs["notes"] = "; ".join(notes)
    return tree, notes


def _segment_of(block: Any) -> neo.Segment:
    if isinstance(block, neo.Segment):
        return block
    if not isinstance(block, neo.Block):
        raise TypeError(f"block is a {type(block).__name__}; expected a neo.Block or neo.Segment")
    if len(block.segments) != 1:
        raise ValueError(
            f"block holds {len(block.segments)} segments; expected one: give the segment to use, "
            "such as block.segments[0]"
        )
    return block.segments[0]


def _trains_of(segment: neo.Segment) -> dict[str, np.ndarray]:
    """Spike times in seconds by cell id."""
    if not len(segment.spiketrains):
        raise ValueError("block holds no spike trains; expected one neo.SpikeTrain a cell")
    trains: dict[str, np.ndarray] = {}
    for number, train in enumerate(segment.spiketrains):
        name = str(train.name or train.annotations.get("id", number))
        if name in trains:
            raise ValueError(
                f"block holds two spike trains with the id {name!r}; give each its own name"
            )
        times = np.asarray(train.rescale("s").magnitude, dtype=np.float64)
        if not np.isfinite(times).all():
            raise ValueError(
                f"block: spike train {name!r} holds NaN or infinite times; remove them"
            )
        trains[name] = times
    return trains


def _seconds_of(frame_times: Any, segment: neo.Segment) -> Any:
    if isinstance(frame_times, str):
        events = {str(event.name): event for event in segment.events}
        if frame_times not in events:
            raise ValueError(
                f"frame_times={frame_times!r} is no event of the segment; "
                f"{nearest_names(frame_times, events)}"
            )
        frame_times = events[frame_times]
    if isinstance(frame_times, neo.Event):
        return frame_times.times.rescale("s").magnitude
    return magnitude(frame_times, "s", "frame_times")


def _movie_of(stimulus: Any) -> xr.DataArray:
    """Return the movie with dims (time, [color,] y, x) and coordinates on y and x."""
    if isinstance(stimulus, xr.DataArray):
        movie = require_dims(stimulus, STIMULUS_DIMS, "stimulus", optional=("color",))
    else:
        values = np.asarray(stimulus)
        if values.ndim not in (1, 3) or values.dtype.kind not in "biuf":
            raise ValueError(
                f"stimulus has shape {values.shape} and dtype {values.dtype}; expected numbers, "
                "(frame, y, x) or (frame,); with colour planes give a DataArray with dims "
                "('time', 'color', 'y', 'x')"
            )
        values = values[:, None, None] if values.ndim == 1 else values
        movie = xr.DataArray(values, dims=("time", "y", "x"))
    require_finite(movie, "stimulus")
    pixels = {
        dim: (dim, np.arange(movie.sizes[dim]), {"units": "pixel", "long_name": "pixel index"})
        for dim in ("y", "x")
        if dim not in movie.coords
    }
    return movie.assign_coords(pixels)


def _stimulus_part(movie: xr.DataArray, frames: Any, time: xr.DataArray) -> xr.DataArray:
    """Frames of the movie, on the time of their node."""
    places = {dim: movie.coords[dim].variable for dim in movie.dims[1:] if dim in movie.coords}
    return xr.DataArray(
        movie.values[frames].astype(np.float32),
        dims=movie.dims,
        coords={"time": time, **places},
        attrs={"units": "1", "long_name": "stimulus", **movie.attrs},
    )


def _run_node(
    movie: xr.DataArray,
    counts: np.ndarray,
    edges: np.ndarray,
    frames: np.ndarray,
    numbers: np.ndarray,
    ids: list[str],
    width: float,
    rate_sd: Any,
) -> xr.Dataset:
    """Node of frames shown once: spike_count(time, cell)."""
    time = time_coordinate(edges[frames], width)
    spike_count = xr.DataArray(
        counts[frames],
        dims=("time", "cell"),
        coords={"time": time, "cell": _cell_coordinate(ids), "block": block_coordinate(numbers)},
        attrs=COUNT_ATTRS,
    )
    return xr.Dataset(
        {
            "stimulus": _stimulus_part(movie, frames, time),
            "spike_count": spike_count,
            "rate": firing_rate(spike_count, sd=rate_sd),
        }
    )


def _repeat_node(
    movie: xr.DataArray,
    counts: np.ndarray,
    edges: np.ndarray,
    plan: FrozenNoise,
    blocks: list[int],
    ids: list[str],
    width: float,
    rate_sd: Any,
) -> xr.Dataset:
    """Node of the frozen frames: spike_count(repeat, time, cell)."""
    time = time_coordinate(np.arange(plan.frozen_frames) * width, width)
    time.attrs["long_name"] = "onset of the bin after the start of the repeat"
    repeat = xr.DataArray(blocks, dims="repeat", attrs={"long_name": "number of the presentation"})
    spike_count = xr.DataArray(
        np.stack([counts[plan.frozen(block)] for block in blocks]),
        dims=("repeat", "time", "cell"),
        coords={"repeat": repeat, "time": time, "cell": _cell_coordinate(ids)},
        attrs=COUNT_ATTRS,
    )
    onsets = xr.DataArray(
        edges[[plan.frozen(block).start for block in blocks]],
        dims="repeat",
        attrs={"units": "s", "long_name": "start of the repeat on the clock of the recording"},
    )
    data = xr.Dataset(
        {
            "stimulus": _stimulus_part(movie, plan.frozen(blocks[0]), time),
            "spike_count": spike_count,
            "rate": firing_rate(spike_count, sd=rate_sd),
        }
    )
    return data.assign_coords(repeat_onset=onsets)


def _cell_coordinate(ids: list[str]) -> xr.DataArray:
    return xr.DataArray(np.asarray(ids, dtype=str), dims="cell", attrs={"long_name": "cell id"})


def _spans(frames: np.ndarray) -> str:
    """Ascending frame numbers as text, such as ``0..98399``."""
    cuts = np.flatnonzero(np.diff(frames) > 1)
    starts, stops = np.r_[frames[0], frames[cuts + 1]], np.r_[frames[cuts], frames[-1]]
    return ", ".join(f"{a}..{b}" for a, b in zip(starts, stops, strict=True))
