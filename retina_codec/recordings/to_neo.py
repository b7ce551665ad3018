"""A recording as neo objects: spike trains, frame marks and epochs of one segment."""

from __future__ import annotations

import json
from typing import Any

import neo
import numpy as np
import quantities as pq
import xarray as xr

from retina_codec.recordings.formats.tree import require_recording
from retina_codec.recordings.from_neo import ORIGINAL_NAME
from retina_codec.recordings.recorded import SOURCE
from retina_codec.recordings.spikes import SpikeTimes

SEGMENT = "recording"
FRAMES = "frames"
EPOCHS = "epochs"


def recording_to_neo(recording: xr.DataTree) -> neo.Block:
    """Give the spike trains, frame marks and epochs of a recording as a neo.Block.

    Parameters
    ----------
    recording : xarray.DataTree
        As from `open_recording`, with the node ``spikes``.

    Returns
    -------
    neo.Block
        One segment, in seconds on the clock of the recording: a spike train a cell, with the id as
        its `name` and its annotation ``id``; the event ``frames`` with all frame marks; an epoch
        for each `source` in the node ``epochs`` (``epochs`` where it names none), labelled, with
        its further columns as array annotations. Attrs of the recording are annotations of the
        block: ``parameters`` (JSON) holds plan and frames; ``stimuli`` (JSON) the dims, shape and
        attrs of the stimulus of each node. Events and epochs have their name in the annotation
        ``original_name`` too, and in their description, because some writers of neo rename them.
        The movies are not in it: neo has no object for what is larger than memory. Give the movie
        again to `recording_from_neo`, or write with `save_recording`.

    Raises
    ------
    TypeError
        If `recording` is not a DataTree.
    ValueError
        If it holds no recording, or only counts and no spike times.

    Examples
    --------
    >>> import neo, numpy as np, quantities as pq
    >>> from retina_codec.recordings import recording_from_neo
    >>> from retina_codec.recordings.to_neo import recording_to_neo
    >>> train = neo.SpikeTrain([50, 60, 310] * pq.ms, t_stop=1000, name="C1")
    >>> recording = recording_from_neo(
    ...     [train], stimulus=np.ones(4), frame_times=[0, 100, 200, 300] * pq.ms
    ... )
    >>> block = recording_to_neo(recording)
    >>> block.segments[0].spiketrains[0].name
    'C1'
    >>> again = recording_from_neo(block, stimulus=np.ones(4), frame_times="frames")
    >>> again["train"].identical(recording["train"])
    True
    """
    spikes = spikes_in(recording)
    segment = neo.Segment(name=SEGMENT)
    begin, end = limits_of(recording, spikes)
    for number, cell in enumerate(spikes.ids):
        segment.spiketrains.append(
            neo.SpikeTrain(
                spikes.of(number), units="s", t_start=begin, t_stop=end, name=cell, id=cell
            )
        )
    if "frames" in recording.children:
        marks = recording["frames"].to_dataset()["frame_time"].values
        labels = np.arange(len(marks)).astype(str)
        segment.events.append(neo.Event(marks * pq.s, labels=labels, **_named(FRAMES)))
    if "epochs" in recording.children:
        for name, table in epoch_tables(recording["epochs"].to_dataset()).items():
            columns = {
                str(key): _quantity(table[key]) for key in table.data_vars if key not in _OWN
            }
            segment.epochs.append(
                neo.Epoch(
                    table["start"].values * pq.s,
                    durations=table["duration"].values * pq.s,
                    labels=table["label"].values.astype(str),
                    array_annotations=columns,
                    **_named(name),
                )
            )
    block = neo.Block(name=str(recording.attrs.get("source", "recording")))
    block.annotate(**{str(key): _plain(value) for key, value in recording.attrs.items()})
    block.annotate(stimuli=json.dumps(_stimuli(recording), sort_keys=True))
    block.segments.append(segment)
    block.check_relationships()
    return block


_OWN = ("start", "duration", "label", SOURCE)


def spikes_in(recording: Any, argument: str = "recording") -> SpikeTimes:
    """Spike times of a recording; ValueError where it has none."""
    if not isinstance(recording, xr.DataTree):
        raise TypeError(
            f"{argument} is a {type(recording).__name__}; expected an xarray.DataTree, as from "
            "open_recording"
        )
    require_recording(recording, argument)
    if "spikes" not in recording.children or "spike_time" not in recording["spikes"]:
        raise ValueError(
            f"{argument} holds spike counts but no spike times (no node 'spikes'), which neo, NWB "
            "and NIX are made of: save it as .zarr or .nc"
        )
    return SpikeTimes.from_dataset(recording["spikes"].to_dataset())


def limits_of(recording: xr.DataTree, spikes: SpikeTimes) -> tuple[float, float]:
    """Begin (0 or before) and end of a recording: all spikes, marks and epochs lie within."""
    times = [spikes.times]
    if "frames" in recording.children:
        times.append(recording["frames"].to_dataset()["frame_time"].values)
    if "epochs" in recording.children:
        epochs = recording["epochs"].to_dataset()
        times += [epochs["start"].values, (epochs["start"] + epochs["duration"]).values]
    times = [one for one in times if one.size]
    begin, end = min(float(one.min()) for one in times), max(float(one.max()) for one in times)
    return min(0.0, begin), end


def epoch_tables(epochs: xr.Dataset) -> dict[str, xr.Dataset]:
    """Epochs by the name of the table they are from, each with the columns that it has."""
    if SOURCE not in epochs:
        return {EPOCHS: epochs}
    sources = epochs[SOURCE].values.astype(str)
    tables = {}
    for name in dict.fromkeys(sources):
        table = epochs.isel(epoch=np.flatnonzero(sources == name))
        empty = [key for key in table.data_vars if key not in _OWN and _is_empty(table[key].values)]
        tables[str(name) or EPOCHS] = table.drop_vars(empty)
    return tables


def _is_empty(values: np.ndarray) -> bool:
    if values.dtype.kind == "f":
        return bool(np.isnan(values).all())
    return values.dtype.kind in "UOT" and not any(str(value) for value in values)


def _named(name: str) -> dict[str, str]:
    """Name, also where a writer that changes names leaves it alone."""
    return {
        "name": name,
        "description": json.dumps({ORIGINAL_NAME: name}),
        ORIGINAL_NAME: name,
    }


def _quantity(column: xr.DataArray) -> Any:
    values = column.values
    if values.dtype.kind not in "biuf":
        return values.astype(str)
    try:
        return values * pq.Quantity(1, column.attrs["units"])
    except (KeyError, LookupError):
        return values


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float) else json.dumps(np.asarray(value).tolist())


def _stimuli(recording: xr.DataTree) -> dict[str, Any]:
    """Dims, shape and attrs of the stimulus of each node."""
    return {
        node.path.strip("/"): {
            "dims": list(map(str, node["stimulus"].dims)),
            "shape": list(node["stimulus"].shape),
            "attrs": {str(key): _plain(value) for key, value in node["stimulus"].attrs.items()},
        }
        for node in recording.subtree
        if "stimulus" in node.data_vars
    }
