"""Trials: spikes around onsets that the stimulus or the epochs of a recording give."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr

from retina_codec._common.checks import magnitude, nearest_names
from retina_codec._common.provenance import provenance
from retina_codec._common.time import time_coordinate
from retina_codec.recordings.nodes import cell_coordinate
from retina_codec.recordings.spikes import SpikeTimes

# A duration that is whole bins but for rounding does not lose its last bin.
ROUNDING = 1e-9


def psth(
    recording: xr.DataTree,
    *,
    onsets: object,
    duration: object,
    bin_width: object,
    cells: Iterable[object] | None = None,
) -> xr.Dataset:
    """Spike counts of trials around `onsets`, and their mean rate (peristimulus time histogram).

    Bin k of a trial holds the spikes whose time after the onset is in
    ``[k bin_width, (k + 1) bin_width)``; the rate is the mean count over trials, divided by the bin
    width. Trials may overlap. Where spikes, onsets and bins share the grid of one clock, rounding
    of the difference decides on which side of an edge a spike falls.

    Parameters
    ----------
    recording : xarray.DataTree
        Recording with ``/spikes``: spike_time(spike) in seconds, n_spikes(cell).
    onsets : array, quantity or str
        Onsets of the trials in seconds (or in units of time) on the clock of the recording, in
        ascending order; or the label of the ``/epochs`` whose starts they are.
    duration : float or quantity
        Length of a trial in seconds; what is left of it after whole bins is not used.
    bin_width : float or quantity
        Width of a bin in seconds.
    cells : iterable of str, optional
        Ids of the cells wanted, in this order; all by default.

    Returns
    -------
    xarray.Dataset
        spike_count(repeat, time, cell), int32; rate(time, cell) in Hz; coordinates time (s, from 0
        at the onset), repeat, repeat_onset(repeat) (s), cell. It is a node with repeats, as
        `reliability` takes it.

    Raises
    ------
    TypeError
        If `recording` is no recording, or `cells` is one string.
    ValueError
        If it has no ``/spikes`` or no such epochs or cells, if the onsets are none, not finite or
        out of order, or if a time is not positive or in no unit of time.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from retina_codec.recordings.trials import psth
    >>> from retina_codec.recordings.spikes import SpikeTimes
    >>> spikes = SpikeTimes.from_trains({"C1": np.array([0.05, 1.01, 1.12, 2.15])})
    >>> recording = xr.DataTree.from_dict({"/spikes": spikes.to_dataset()})
    >>> found = psth(recording, onsets=[0.0, 1.0, 2.0], duration=0.2, bin_width=0.1)
    >>> found["spike_count"].sel(cell="C1").values
    array([[1, 0],
           [1, 1],
           [0, 1]], dtype=int32)
    """
    spikes = require_spikes(recording, "recording").select(cells)
    starts = _checked_onsets(recording, onsets)
    length = positive_seconds(duration, "duration")
    width = positive_seconds(bin_width, "bin_width")
    n_bins = int(np.floor(length / width + ROUNDING))
    if n_bins < 1:
        raise ValueError(
            f"duration={length:g} s is shorter than one bin (bin_width={width:g} s); give a longer "
            "duration or a smaller bin width"
        )
    edges = np.arange(n_bins + 1) * width
    counts = np.empty((len(starts), n_bins, len(spikes)), dtype=np.int32)
    for cell in range(len(spikes)):
        times = spikes.of(cell)
        # A bin more on either side: which spikes are inside is for the relative times to decide.
        first = np.searchsorted(times, starts - width)
        last = np.searchsorted(times, starts + edges[-1] + width)
        for i, start in enumerate(starts):
            relative = times[first[i] : last[i]] - start
            counts[i, :, cell] = np.diff(np.searchsorted(relative, edges))
    return xr.Dataset(
        {
            "spike_count": (
                ("repeat", "time", "cell"),
                counts,
                {"units": "1", "long_name": "spikes in the bin"},
            ),
            "rate": (
                ("time", "cell"),
                counts.mean(axis=0, dtype=np.float64) / width,
                {"units": "Hz", "long_name": "mean firing rate of the trials"},
            ),
        },
        coords={
            "time": time_coordinate(np.arange(n_bins) * width, width),
            "repeat": ("repeat", np.arange(len(starts)), {"long_name": "number of the trial"}),
            "repeat_onset": ("repeat", starts, {"units": "s", "long_name": "onset of the trial"}),
            "cell": cell_coordinate(spikes.ids),
        },
        attrs=provenance(
            function="psth",
            onsets=onsets if isinstance(onsets, str) else f"{len(starts)} times",
            duration=length,
            bin_width=width,
        ),
    )


def require_spikes(recording: Any, argument: str) -> SpikeTimes:
    """Spike times of a recording, or an error that says what to give."""
    if not isinstance(recording, xr.DataTree):
        raise TypeError(
            f"{argument} is a {type(recording).__name__}; expected a recording "
            "(xarray.DataTree) with the node 'spikes'"
        )
    if "spikes" not in recording.children:
        names = ", ".join(map(repr, recording.children)) or "none"
        raise ValueError(
            f"{argument} has no node 'spikes' (its nodes: {names}), so that no spike times are "
            "known; give a whole recording, opened from spike times and not from counts"
        )
    return SpikeTimes.from_dataset(recording.children["spikes"])


def require_epochs(recording: xr.DataTree, label: str, argument: str) -> xr.Dataset:
    """Epochs of a recording with this label, in the order of time, or ValueError."""
    if "epochs" not in recording.children:
        raise ValueError(
            f"{argument}={label!r} names epochs, but the recording has no node 'epochs'"
        )
    epochs = recording.children["epochs"].to_dataset()
    labels = epochs["label"].values.astype(str)
    if label not in labels:
        names = dict.fromkeys(labels.tolist())
        raise ValueError(f"{argument}={label!r} labels no epoch; {nearest_names(label, names)}")
    return epochs.isel(epoch=labels == label).sortby("start")


def count_in_windows(spikes: SpikeTimes, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """Spikes (window, cell) in the half-open windows ``[starts[i], stops[i])``."""
    counts = np.empty((len(starts), len(spikes)), dtype=np.int64)
    for cell in range(len(spikes)):
        times = spikes.of(cell)
        counts[:, cell] = np.searchsorted(times, stops) - np.searchsorted(times, starts)
    return counts


def positive_seconds(value: object, argument: str) -> float:
    """Seconds of a number or quantity; ValueError unless they are above 0."""
    seconds = float(magnitude(value, "s", argument))
    if not (seconds > 0 and np.isfinite(seconds)):
        raise ValueError(f"{argument}={value!r}; expected a time above 0, in seconds or with units")
    return seconds


def _checked_onsets(recording: xr.DataTree, onsets: object) -> np.ndarray:
    if isinstance(onsets, str):
        return require_epochs(recording, onsets, "onsets")["start"].values.astype(np.float64)
    times = np.atleast_1d(np.asarray(magnitude(onsets, "s", "onsets"), dtype=np.float64))
    if times.ndim != 1 or not times.size:
        raise ValueError(
            f"onsets has shape {times.shape}; expected at least one onset in one row, in seconds"
        )
    bad = np.flatnonzero(~np.isfinite(times))
    if bad.size:
        raise ValueError(f"onsets: onset {bad[0]} is {times[bad[0]]}; leave it out")
    back = np.flatnonzero(np.diff(times) <= 0)
    if back.size:
        raise ValueError(
            f"onsets: onset {back[0] + 1} ({times[back[0] + 1]:g} s) is not later than the one "
            f"before ({times[back[0]]:g} s); sort them and remove double ones"
        )
    return times
