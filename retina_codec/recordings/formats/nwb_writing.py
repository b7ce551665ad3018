"""A recording to NWB: units, frame marks, epochs, and the movies in an HDF5 file beside."""

from __future__ import annotations

import datetime
import json
import uuid
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from retina_codec._common.files import save_tree, written_beside
from retina_codec.recordings.formats.nwb import PAIR, SAVED
from retina_codec.recordings.formats.stored import digest_of, without_spike_times
from retina_codec.recordings.from_neo import ORIGINAL_NAME
from retina_codec.recordings.recorded import SOURCE
from retina_codec.recordings.spikes import SpikeTimes
from retina_codec.recordings.to_neo import FRAMES, SEGMENT, epoch_tables, limits_of, spikes_in

UNKNOWN_START = "1970-01-01T00:00:00+00:00"
BLOCK = "recording"


def save_nwb(recording: xr.DataTree, path: Path) -> Path:
    """Write ``<name>.nwb`` and, with movies and counts, ``<name>_stimulus.h5`` beside it.

    The second one is netCDF-4, which is HDF5, written chunk by chunk. Both are written whole
    before either is put in place; each knows the other by a common mark.
    """
    try:
        import pynwb  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError(
            f"path={str(path)!r}: writing NWB needs pynwb; install it with "
            "pip install 'retina-codec[files]'"
        ) from error
    spikes = spikes_in(recording)
    beside = path.with_name(f"{path.stem}_stimulus.h5")
    pair = uuid.uuid4().hex
    with written_beside(path) as fresh, written_beside(beside) as fresh_beside:
        nodes = without_spike_times(recording)
        nodes.attrs[PAIR] = pair
        save_tree(nodes, fresh_beside.with_suffix(".nc")).replace(fresh_beside)
        file = pynwb.NWBFile(
            session_description=_description(recording),
            identifier=pair,
            session_start_time=_started(recording),
        )
        begin, end = limits_of(recording, spikes)
        _add_units(file, spikes, begin, end)
        if "frames" in recording.children:
            _add_marks(file, recording["frames"].to_dataset()["frame_time"].values)
        if "epochs" in recording.children:
            _add_epochs(file, recording["epochs"].to_dataset())
        for node in recording.subtree:
            if "stimulus" in node.data_vars:
                _add_stimulus(file, node.path, node.to_dataset(), beside.name)
        said = {"file": beside.name, "pair": pair, "digest": digest_of(spikes)}
        file.add_scratch(
            json.dumps(said),
            name=SAVED.rsplit("/", 1)[-1],
            description="for retina_codec: file with movies and counts, and what they belong to",
        )
        with pynwb.NWBHDF5IO(str(fresh), "w") as io:
            io.write(file)
    return path


def _description(recording: xr.DataTree) -> str:
    source = recording.attrs.get("source", "a recording")
    return f"{source}, written by retina_codec; root attrs: {json.dumps(_texts(recording.attrs))}"


def _texts(attrs: dict[Any, Any]) -> dict[str, str]:
    return {str(key): str(value) for key, value in attrs.items()}


def _started(recording: xr.DataTree) -> datetime.datetime:
    """Start of the session, which the format asks for; where it is not known, 1970."""
    text = str(recording.attrs.get("session_start_time", UNKNOWN_START))
    started = datetime.datetime.fromisoformat(text)
    return started if started.tzinfo else started.replace(tzinfo=datetime.UTC)


def _add_units(file: Any, spikes: SpikeTimes, begin: float, end: float) -> None:
    """Table of the cells, made of whole columns; names and segment as neo's NWBIO has them."""
    from hdmf.common import (  # type: ignore[import-untyped]
        ElementIdentifiers,
        VectorData,
        VectorIndex,
    )
    from pynwb.misc import Units  # type: ignore[import-untyped]

    n = len(spikes)
    times = VectorData(
        name="spike_times", description="spike times of each unit in seconds", data=spikes.times
    )
    limits = VectorData(
        name="obs_intervals",
        description="the observation interval of each unit",
        data=np.tile([[begin, end]], (n, 1)),
    )
    file.units = Units(
        name="units",
        description="sorted cells",
        columns=[
            times,
            VectorIndex(name="spike_times_index", data=spikes.offsets[1:], target=times),
            limits,
            VectorIndex(name="obs_intervals_index", data=np.arange(1, n + 1), target=limits),
            *_name_columns(spikes.ids),
        ],
        colnames=["spike_times", "obs_intervals", "_name", "segment", "block"],
        id=ElementIdentifiers(name="id", data=np.arange(n)),
    )


def _name_columns(names: Sequence[str]) -> list[Any]:
    from hdmf.common import VectorData

    n = len(names)
    return [
        VectorData(name="_name", description="name (cell id, or name of epochs)", data=list(names)),
        VectorData(name="segment", description="name of the segment (neo)", data=[SEGMENT] * n),
        VectorData(name="block", description="name of the block (neo)", data=[BLOCK] * n),
    ]


def _add_marks(file: Any, marks: np.ndarray) -> None:
    """Add the marks as the kind of series that neo and older readers know as an event."""
    from pynwb.misc import AnnotationSeries

    with warnings.catch_warnings():
        # Newer versions of pynwb prefer a table of events, which the others cannot read.
        warnings.filterwarnings("ignore", message="AnnotationSeries is deprecated")
        series = AnnotationSeries(
            name=FRAMES,
            data=np.arange(len(marks)).astype(str).tolist(),
            timestamps=np.asarray(marks, dtype=np.float64),
            description=json.dumps({ORIGINAL_NAME: FRAMES}),
            comments=_segment(),
        )
    file.add_acquisition(series)


def _segment() -> str:
    return json.dumps({"block": BLOCK, "segment": SEGMENT})


def _add_epochs(file: Any, epochs: xr.Dataset) -> None:
    """Add one table of epochs, with the name that each has in the recording."""
    from hdmf.common import ElementIdentifiers, VectorData, VectorIndex
    from pynwb.epoch import TimeIntervals  # type: ignore[import-untyped]

    names = epochs[SOURCE].values.astype(str) if SOURCE in epochs else None
    if names is None:
        names = np.full(epochs.sizes["epoch"], next(iter(epoch_tables(epochs))))
    start = epochs["start"].values
    tags = VectorData(
        name="tags", description="label", data=epochs["label"].values.astype(str).tolist()
    )
    n = len(start)
    columns = [
        VectorData(name="start_time", description="start in seconds", data=start),
        VectorData(
            name="stop_time", description="end in seconds", data=start + epochs["duration"].values
        ),
        tags,
        VectorIndex(name="tags_index", data=np.arange(1, n + 1), target=tags),
        *_name_columns(names.tolist()),
    ]
    own = ["start_time", "stop_time", "tags", "_name", "segment", "block"]
    for key in epochs.data_vars:
        name = str(key)
        if name in ("start", "duration", "label", SOURCE, "timeseries", "id", *own):
            continue
        values = epochs[key].values
        is_text = values.dtype.kind not in "biuf"
        columns.append(
            VectorData(
                name=name,
                description=f"{epochs[key].attrs.get('long_name', name)} "
                f"[{epochs[key].attrs.get('units', '1')}]",
                data=values.astype(str).tolist() if is_text else values,
            )
        )
        own.append(name)
    file.epochs = TimeIntervals(
        name="epochs",
        description="epochs of the recording",
        columns=columns,
        colnames=own,
        id=ElementIdentifiers(name="id", data=np.arange(n)),
    )


def _add_stimulus(file: Any, place: str, node: xr.Dataset, beside: str) -> None:
    """Name the movie beside as a template, and say when which of its frames was shown."""
    import pynwb
    from pynwb.image import ImageSeries  # type: ignore[import-untyped]

    stimulus = node["stimulus"]
    name = place.strip("/").replace("/", "_") or "stimulus"
    time = node["time"].values
    onsets = time
    if "repeat_onset" in node.coords:
        onsets = (node["repeat_onset"].values[:, None] + time[None, :]).ravel()
    # A template with its own timestamps: pynwb before 4 asks for them where a file is external.
    file.add_stimulus_template(
        ImageSeries(
            name=name,
            external_file=[beside],
            starting_frame=[0],
            format="external",
            dimension=[stimulus.sizes["x"], stimulus.sizes["y"]],
            timestamps=np.asarray(time, dtype=np.float64),
            unit=str(stimulus.attrs.get("units", "1")),
            description=f"dataset {place.rstrip('/')}/stimulus of {beside}, dims "
            f"({', '.join(map(str, stimulus.dims))})",
        )
    )
    file.add_stimulus(
        pynwb.TimeSeries(
            name=name,
            data=np.tile(np.arange(len(time)), len(onsets) // len(time)),
            timestamps=np.asarray(onsets, dtype=np.float64),
            unit="frame",
            description=f"number of the frame of template {name!r} that is shown from then on",
            comments=_segment(),
        )
    )
