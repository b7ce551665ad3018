"""From neo objects (spike trains, frame marks, epochs) to the labelled tree of a recording."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import neo
import numpy as np
import quantities as pq
import xarray as xr
from neo.core.spiketrainlist import SpikeTrainList

from retina_codec.recordings.assembly import Plan
from retina_codec.recordings.recorded import (
    Column,
    EpochTable,
    Recorded,
    Trace,
    precision_notes,
    trace_of,
    tree_of,
)
from retina_codec.recordings.spikes import SpikeTimes

# Annotation of an event or epoch that holds the name it had before a writer changed it.
ORIGINAL_NAME = "original_name"


def recording_from_neo(
    block: neo.Block | neo.Segment | Sequence[neo.SpikeTrain],
    *,
    stimulus: Any,
    frame_times: Any = None,
    plan: Plan | str | Mapping[str, Plan | str | None] | None = None,
    frames: tuple[int, int] | Mapping[str, tuple[int, int] | None] | None = None,
    bin_width: float | pq.Quantity | None = None,
    cells: Iterable[object] | None = None,
    rate_sd: float | pq.Quantity = 0.010,
) -> xr.DataTree:
    """Align the spike trains of neo segments with the frames of stimuli.

    Frame ``i`` is shown from its mark to the next one, and a spike is counted in the bin of the
    frame during which it falls (half-open bins). The last frame, where no further mark ends it,
    lasts one mean interval.

    Parameters
    ----------
    block : neo.Block, neo.Segment, neo SpikeTrainList or list of neo.SpikeTrain
        Spike trains, one a cell. The id of a cell is the train's ``name``, else its annotation
        ``id``, else its number. A SpikeTrainList made from arrays is not taken apart; its ids are
        its annotation ``name`` or ``id``, else the channel ids. Cells of several segments are
        matched by id, and each must be in all of them.
    stimulus : xarray.DataArray, numpy.ndarray, path, mapping or list
        The movie, one entry a frame: DataArray with dims (time, [color,] y, x), or array
        (frame, y, x), or (frame,) for a full field, or a file or a description (a mapping with
        ``kind``) as `retina_codec.stimuli.open_movie` takes them. Frames are matched to marks by
        order; the `time` of a DataArray is not used beyond a check of its bin width. What is larger
        than 64 MB, or lies in a file, stays lazy.

        Several stimuli of one segment: a mapping from names to movies, with `frame_times` a mapping
        with the same names. Several segments: one movie, which all of them show (repeats); a list
        of movies, one a segment (runs); or a mapping from the names of the segments to movies.
    frame_times : str, neo object, quantity, numpy.ndarray, mapping or list, optional
        Frame marks on the clock of the spikes: the name of an event, of epochs (their starts) or
        of an analog channel with trigger pulses of the segment (each crosses half of its height at
        a mark: rising, or falling where the channel is high most of the time, with a warning); a
        neo.Event, neo.Epoch, neo.AnalogSignal or neo.IrregularlySampledSignal; or times (plain
        numbers are seconds). By default the only event of the segment. For several segments what
        all of them know or share, or a list, one a segment.
    plan : FrozenNoise, RepeatedFrames, str or mapping, optional
        The repeats in the stimulus. FrozenNoise: only complete blocks are used whose frozen frames
        are exactly those of most blocks. RepeatedFrames: where each repeat begins. ``"find"``: the
        stretch that recurs in the stimulus (`find_repeats`). Another string: the label of the
        epochs that are the repeats. Without a plan, all frames were shown once. For several
        stimuli: the same for all, or by name. Not with several segments.
    frames : (int, int) or mapping, optional
        First frame to use, and the one after the last; a plan counts from the first one. By the
        names of the stimuli, or of several segments.
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
        rate(time, cell) in Hz; `time` in seconds on the clock of the recording, and block(time),
        the number of each contiguous run: a run ends where the display paused.
        With a plan, node ``test`` too: stimulus(time, [color,] y, x) of the repeated frames, `time`
        from 0; spike_count(repeat, time, cell); rate(time, cell), the mean over repeats;
        repeat_onset(repeat) in seconds. `block` and `repeat` are FrozenNoise's block numbers.
        Stimuli by name: nodes of these names; with a plan ``<name>_train`` and ``<name>_test``.
        Several segments: ``test``, `repeat` the number of the segment, or ``train``.
        Node ``spikes``: spike_time(spike), cell after cell, and n_spikes(cell). Node ``frames``:
        frame_time(frame), all marks. Node ``epochs``, where there are epochs: start(epoch),
        duration(epoch) in seconds, label(epoch), source(epoch), the name of the epochs, and their
        array annotations. Arrays of more than 256 MB stay lazy (dask).

        Segments whose clocks overlap (each starting at 0) are laid end to end:
        ``attrs["segments"]`` is a JSON list of the name of each and the shift, in seconds, that was
        added to its times.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If there are no spike trains, ids are double or unknown or missing in a segment, times do
        not ascend or must be in another unit, there is no such event, numbers of frames and marks
        do not fit, the stimulus has NaN, or the plan does not fit the stimulus.

    Warns
    -----
    UserWarning
        About frames that are not used, late frame marks, inverted trigger pulses, pauses, and
        spikes outside the stimulus.

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
        frames=frames,
        bin_width=bin_width,
        cells=cells,
        rate_sd=rate_sd,
    )
    for note in notes:
        warnings.warn(note, UserWarning, stacklevel=2)
    return tree


def build_recording(block: Any, **arguments: Any) -> tuple[xr.DataTree, list[str]]:
    """`recording_from_neo`, giving what is to be warned of instead of warning."""
    tree, notes = tree_of(recorded_of(block), **arguments)
    tree.attrs["source_format"] = "neo"
    return tree, notes


def recorded_of(block: Any) -> list[Recorded]:
    """Segments of a block, or the one that was given, or spike trains as one."""
    if isinstance(block, neo.Segment):
        return [_recorded(block)]
    if isinstance(block, neo.Block):
        if not block.segments:
            raise ValueError("block holds 0 segments; expected at least one, with spike trains")
        parts = []
        for number, segment in enumerate(block.segments):
            label = f"block.segments[{number}]" if len(block.segments) > 1 else "block"
            parts.append(_recorded(segment, label))
        return parts
    if isinstance(block, neo.SpikeTrain):
        block = [block]
    if not isinstance(block, Sequence | SpikeTrainList):
        raise TypeError(
            f"block is a {type(block).__name__}; expected a neo.Block, a neo.Segment or a list of "
            "neo.SpikeTrain"
        )
    spikes = spikes_of(block)
    return [Recorded(spikes, notes=precision_notes(_dtype(block), spikes.times))]


def _dtype(trains: Any) -> np.dtype:
    """Kind of number that the spike times were kept in."""
    if isinstance(trains, SpikeTrainList) and getattr(trains, "_items", trains) is None:
        return trains.multiplexed[1].dtype
    return np.result_type(*{getattr(train, "dtype", np.dtype(np.float64)) for train in trains})


def _recorded(segment: neo.Segment, argument: str = "block") -> Recorded:
    events: dict[str, np.ndarray] = {}
    for event in map(_loaded, segment.events):
        name = _free(_name_of(event, "event"), events)
        events[name] = np.asarray(event.times.rescale("s").magnitude, dtype=np.float64)
    signals: dict[str, Callable[[], Trace]] = {}
    for signal in [*segment.analogsignals, *segment.irregularlysampledsignals]:
        for channel, name in enumerate(_channels(signal)):
            signals[_free(name, signals)] = partial(_trace, signal, channel)
    spikes = spikes_of(segment.spiketrains, argument)
    return Recorded(
        spikes,
        events,
        [_table(_loaded(epoch)) for epoch in segment.epochs],
        signals,
        str(segment.name or ""),
        precision_notes(_dtype(segment.spiketrains), spikes.times),
    )


def _loaded(thing: Any) -> Any:
    """Read what a lazy reader of neo left in its file."""
    return thing.load() if hasattr(thing, "load") else thing


def _trace(signal: Any, channel: int) -> Trace:
    return trace_of(_loaded(signal), channel)


def _name_of(thing: Any, otherwise: str) -> str:
    return str(thing.annotations.get(ORIGINAL_NAME) or thing.name or otherwise)


def _free(name: str, taken: Mapping[str, Any]) -> str:
    """Name, with a number behind where it is taken."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name} ({number})"
    return free


def _channels(signal: Any) -> list[str]:
    """Names of the channels of a signal: its own, or one for each of several."""
    name = _name_of(signal, "signal")
    n = 1 if len(signal.shape) < 2 else signal.shape[1]
    if n == 1:
        return [name]
    given = signal.array_annotations.get("channel_names") if signal.array_annotations else None
    if given is None or len(set(given)) != n:
        return [f"{name}[{channel}]" for channel in range(n)]
    return [str(channel) for channel in given]


def _table(epoch: neo.Epoch) -> EpochTable:
    """Epochs of one array; those without labels are called by its name."""
    n = len(epoch.times)
    name = _name_of(epoch, "epoch")
    given = np.array([str(label) for label in epoch.labels], dtype=str)
    columns: dict[str, Column] = {}
    for key, values in epoch.array_annotations.items():
        units = {"units": values.dimensionality.string} if isinstance(values, pq.Quantity) else {}
        plain = np.asarray(values.magnitude if units else values)
        if plain.ndim == 1 and plain.dtype.kind in "biufU":
            columns[str(key)] = (plain, units)
    return EpochTable(
        name,
        np.asarray(epoch.times.rescale("s").magnitude, dtype=np.float64),
        np.broadcast_to(epoch.durations.rescale("s").magnitude, n).astype(np.float64),
        given if len(given) == n and (given != "").any() else np.full(n, name),
        columns,
    )


def spikes_of(trains: Any, argument: str = "block") -> SpikeTimes:
    """Spike times by cell id: a train's name, else its annotation ``id``, else its number."""
    if isinstance(trains, SpikeTrainList) and getattr(trains, "_items", trains) is None:
        return _multiplexed(trains, argument)
    ids, parts = [], []
    for number, train in enumerate(trains):
        train = _loaded(train)
        if not isinstance(train, neo.SpikeTrain):
            raise TypeError(
                f"{argument}: item {number} is a {type(train).__name__}; expected a neo.Block, a "
                "neo.Segment or a list of neo.SpikeTrain"
            )
        ids.append(str(train.name or train.annotations.get("id", number)))
        parts.append(np.asarray(train.rescale("s").magnitude, dtype=np.float64))
    if not parts:
        raise ValueError(f"{argument} holds no spike trains; expected one neo.SpikeTrain a cell")
    return SpikeTimes.checked(
        np.concatenate(parts), np.r_[0, np.cumsum([len(part) for part in parts])], ids
    )


def _multiplexed(trains: SpikeTrainList, argument: str) -> SpikeTimes:
    """Spike times of a list that neo keeps as two arrays, without making a train of each cell."""
    if not len(trains):
        raise ValueError(f"{argument} holds no spike trains; expected one neo.SpikeTrain a cell")
    channels, times = trains.multiplexed
    channels, known = np.asarray(channels), np.asarray(list(trains.all_channel_ids))
    annotations = getattr(trains, "_annotations", {})
    ids: Any = known
    for key in ("name", "id"):
        given = annotations.get(key)
        if given is not None and not isinstance(given, str) and len(given) == len(known):
            ids = given
            break
    order = np.argsort(known, kind="stable")
    place = np.searchsorted(known[order], channels)
    lost = place >= len(known)
    lost[~lost] = known[order][place[~lost]] != channels[~lost]
    if lost.any():
        raise ValueError(
            f"{argument}: spike {int(np.flatnonzero(lost)[0])} is of channel "
            f"{channels[lost][0]}, which is none of the {len(known)} channel ids"
        )
    numbers = order[place]
    seconds = np.asarray(times.rescale("s").magnitude, dtype=np.float64)
    if (np.diff(numbers) < 0).any():
        by_cell = np.argsort(numbers, kind="stable")
        numbers, seconds = numbers[by_cell], seconds[by_cell]
    counts = np.bincount(numbers, minlength=len(known))
    return SpikeTimes.checked(seconds, np.r_[0, np.cumsum(counts)], list(ids))
