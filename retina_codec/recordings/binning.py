"""Spike times to counts between frame marks, and counts to rates."""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter1d

from retina_codec._common.checks import magnitude, require_at_least, require_dims
from retina_codec._common.time import BIN_WIDTH_TOLERANCE, bin_width_of, runs_of

# Real displays are late by half a frame or more; the jitter of recorded marks is about 1 %.
LATE = 1.25


def count_spikes(spike_times: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Spikes in each half-open bin ``[edges[i], edges[i + 1])``, as int32."""
    return np.diff(np.searchsorted(np.sort(spike_times), edges, side="left")).astype(np.int32)


def checked_marks(marks: np.ndarray) -> np.ndarray:
    """Return frame marks (seconds) as float64, or raise ValueError that says which mark is bad."""
    marks = np.asarray(marks, dtype=np.float64)
    if marks.ndim != 1 or len(marks) < 2:
        raise ValueError(
            f"frame_times has shape {marks.shape}; expected at least two frame marks in one row, "
            "in seconds"
        )
    bad = np.flatnonzero(~np.isfinite(marks))
    if bad.size:
        raise ValueError(
            f"frame_times: mark {bad[0]} is {marks[bad[0]]}; each mark must be a finite time in "
            "seconds: remove it together with its frame"
        )
    if marks.min() < 0:
        bad = np.flatnonzero(marks < 0)
        raise ValueError(
            f"frame_times: mark {bad[0]} is negative ({marks[bad[0]]:g} s); marks count from the "
            "start of the recording: shift marks and spikes by the same time"
        )
    back = np.flatnonzero(np.diff(marks) <= 0)
    if back.size:
        i = int(back[0])
        kind = "repeats" if marks[i + 1] == marks[i] else "is earlier than"
        raise ValueError(
            f"frame_times: mark {i + 1} ({marks[i + 1]:g} s) {kind} mark {i} ({marks[i]:g} s); "
            "marks must ascend: remove double marks, sort marks that are out of order"
        )
    return marks


def checked_bin_width(
    edges: np.ndarray, frames: np.ndarray, bin_width: object = None
) -> tuple[float, float]:
    """Mean interval of `frames`, and the bin width: that, or what was given if it agrees."""
    intervals = np.diff(edges)[frames]
    mean, median = float(intervals.mean()), float(np.median(intervals))
    if abs(mean - median) > BIN_WIDTH_TOLERANCE * median:
        longest = int(np.argmax(intervals))
        raise ValueError(
            f"frame_times: intervals are {mean:g} s in the mean but {median:g} s in the median "
            f"(the longest, {intervals[longest]:g} s, follows mark {frames[longest]}): marks are "
            "missing or the display paused; open the stretches between pauses one by one"
        )
    if bin_width is None:
        return mean, mean
    given = magnitude(bin_width, "s", "bin_width")
    require_matching_width(given, mean)
    return mean, float(given)


def require_matching_width(given: float, found: float, argument: str = "bin_width") -> None:
    """Raise ValueError unless the bin width `given` is the frame interval `found`."""
    if not abs(given - found) <= BIN_WIDTH_TOLERANCE * found:
        raise ValueError(
            f"{argument}={given:g} s, but the frames of the recording follow each other every "
            f"{found:g} s: correct it (seconds, or a quantity with units), or leave it out"
        )


def late_mark_note(marks: np.ndarray) -> str | None:
    """One sentence about late frame marks, or None if there are none."""
    intervals = np.diff(marks)
    median = float(np.median(intervals))
    late = np.flatnonzero(intervals > LATE * median)
    if not late.size:
        return None
    return (
        f"{late.size} of {intervals.size} frame intervals are longer than {LATE:g} times the "
        f"median of {median:.6g} s (the longest {intervals.max():.3g} s, the first after frame "
        f"{late[0]}): these marks are late, and counts in the bins around them are unsure"
    )


def firing_rate(spike_count: xr.DataArray, *, sd: object = 0.010) -> xr.DataArray:
    """Give the firing rate of spike counts: counts / bin width, smoothed with a Gaussian.

    Smoothing stays within each block (reflected at its ends, so that it keeps the spikes).
    Repeats are averaged.

    Parameters
    ----------
    spike_count : xarray.DataArray
        Counts, dims ([repeat,] time, cell); `time` in seconds with ``attrs["bin_width"]``,
        contiguous runs told apart by the coordinate `block(time)`.
    sd : float or quantity
        Standard deviation of the Gaussian in seconds; 0 = no smoothing.

    Returns
    -------
    xarray.DataArray
        `rate`, dims (time, cell), Hz.

    Raises
    ------
    TypeError
        If `spike_count` is no DataArray.
    ValueError
        If its dims or its time are wrong, or `sd` is negative or no time.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from retina_codec._common.time import time_coordinate
    >>> from retina_codec.recordings import firing_rate
    >>> counts = xr.DataArray(
    ...     np.array([[0], [2], [0], [0]]), dims=("time", "cell"),
    ...     coords={"time": time_coordinate(np.arange(4) * 0.01, 0.01), "cell": ["C1"]},
    ... )
    >>> firing_rate(counts, sd=0).values.ravel()
    array([  0., 200.,   0.,   0.])
    """
    spike_count = require_dims(
        spike_count, ("repeat", "time", "cell"), "spike_count", optional=("repeat",)
    )
    sd_seconds = float(magnitude(sd, "s", "sd"))
    require_at_least(sd_seconds, 0, "sd")
    bin_width = bin_width_of(spike_count, "spike_count")
    if "repeat" in spike_count.dims:
        spike_count = spike_count.mean("repeat")
    values = spike_count.values.astype(np.float64) / bin_width
    if sd_seconds > 0:
        for run in runs_of(spike_count):
            values[run] = gaussian_filter1d(
                values[run], sd_seconds / bin_width, axis=0, mode="reflect"
            )
    rate = spike_count.copy(data=values).rename("rate")
    rate.attrs = {
        "units": "Hz",
        "long_name": "firing rate",
        "smoothing_sd": sd_seconds,
    }
    return rate
