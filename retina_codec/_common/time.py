"""The `time` dimension: onset of each bin in seconds, its bin width, and contiguous runs.

One module owns time. `time` is made once, by the recording, and copied from then on; a gap
between runs is marked by the integer coordinate `block(time)`, and nothing (window, filter,
split) may cross from one block into the next.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

# Frame marks of real displays jitter by a sample or two; a wrong bin width is off by far more.
BIN_WIDTH_TOLERANCE = 0.02


def time_coordinate(onsets: np.ndarray | Sequence[float], bin_width: float) -> xr.DataArray:
    """Return the `time` coordinate: bin onsets in seconds, with the bin width in its attrs."""
    onsets = np.asarray(onsets, dtype=np.float64)
    return xr.DataArray(
        onsets,
        dims="time",
        attrs={"units": "s", "long_name": "onset of the bin", "bin_width": float(bin_width)},
    )


def block_coordinate(numbers: np.ndarray | Sequence[int]) -> xr.DataArray:
    """Return the `block` coordinate along `time`: the number of each bin's contiguous run."""
    return xr.DataArray(
        np.asarray(numbers, dtype=np.int64),
        dims="time",
        attrs={"long_name": "number of the contiguous run"},
    )


def bin_width_of(data: xr.DataArray | xr.Dataset, argument: str = "data") -> float:
    """Bin width in seconds, read from ``time.attrs`` and checked against the bin onsets.

    Raises
    ------
    ValueError
        If `data` has no `time` coordinate, if `time` does not say its bin width, or if that
        differs from the median interval between onsets (within blocks) by more than 2 %.
    """
    if "time" not in data.coords:
        raise ValueError(
            f"{argument} has no coordinate 'time'; expected bin onsets in seconds: "
            "add it with .assign_coords(time=retina_codec.time_coordinate(onsets, bin_width))"
        )
    time = data["time"]
    if "bin_width" not in time.attrs:
        raise ValueError(
            f"{argument}: its coordinate 'time' has no attrs['bin_width'] (seconds): set it, "
            "or make the coordinate with retina_codec.time_coordinate(onsets, bin_width)"
        )
    width = float(time.attrs["bin_width"])
    steps = np.diff(time.values)
    if "block" in data.coords:
        steps = steps[np.diff(data["block"].values) == 0]
    if steps.size:
        median = float(np.median(steps))
        if not abs(median - width) <= BIN_WIDTH_TOLERANCE * width:
            raise ValueError(
                f"{argument}: time.attrs['bin_width'] is {width:g} s, but bins start every "
                f"{median:g} s (median): one of them is wrong, or time is not in seconds"
            )
    return width


def require_time_forward(data: xr.DataArray | xr.Dataset, argument: str) -> None:
    """Raise ValueError unless each bin, across blocks too, starts after the one before.

    For what finds bins by their time: labels, predictions of two models, a recording's counts.
    """
    if "time" not in data.coords:
        return  # `bin_width_of` says what is missing
    onsets = data["time"].values
    back = np.flatnonzero(~(np.diff(onsets) > 0))
    if back.size:
        frame = int(back[0])
        raise ValueError(
            f"{argument}: time goes back after bin {frame} ({onsets[frame]:g} to "
            f"{onsets[frame + 1]:g} s), so that bins cannot be told from each other by it; lay "
            "the blocks end to end with .assign_coords(time=...), keeping its attrs"
        )


def runs_of(data: xr.DataArray | xr.Dataset) -> list[slice]:
    """Contiguous runs along `time`, as index slices in order; one run if there is no `block`."""
    n = data.sizes["time"]
    if "block" not in data.coords or n == 0:
        return [slice(0, n)]
    block = data["block"].values
    edges = np.flatnonzero(np.diff(block)) + 1
    starts, stops = np.r_[0, edges], np.r_[edges, n]
    if len(np.unique(block[starts])) != len(starts):
        raise ValueError(
            "coordinate 'block' returns to a number it has left: each contiguous run needs a "
            "number of its own; sort by time first"
        )
    return [slice(int(a), int(b)) for a, b in zip(starts, stops, strict=True)]


def whole_history(data: xr.DataArray | xr.Dataset, history: int) -> np.ndarray:
    """Give the indices of the bins whose last `history` frames all lie in their own block."""
    return np.concatenate(
        [np.arange(run.start + history - 1, run.stop) for run in runs_of(data)] or [np.array([])]
    ).astype(np.int64)
