"""Counts to firing rates, smoothed within contiguous runs."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from scipy.ndimage import correlate1d, gaussian_filter1d

from retina_codec._common.checks import magnitude, require_at_least, require_dims, require_finite
from retina_codec._common.time import bin_width_of, runs_of

CUT = 4.0  # standard deviations of the Gaussian that are kept


def firing_rate(
    spike_count: xr.DataArray, *, sd: object = 0.010, causal: bool = False
) -> xr.DataArray:
    """Give the firing rate of spike counts: counts / bin width, smoothed with a Gaussian.

    Smoothing stays within each block. Repeats are averaged. Counts larger than memory (dask) give
    a rate that is made when it is asked for.

    Parameters
    ----------
    spike_count : xarray.DataArray
        Counts, dims ([repeat,] time, cell); `time` in seconds with ``attrs["bin_width"]``,
        contiguous runs told apart by the coordinate `block(time)`.
    sd : float or quantity
        Standard deviation of the Gaussian in seconds; 0 = no smoothing.
    causal : bool
        False: a whole Gaussian, reflected at the ends of a block, so that it keeps the spikes.
        True: the half of it that looks into the past, its weights summing to 1, also where the
        block has only just begun.

    Returns
    -------
    xarray.DataArray
        `rate`, dims (time, cell), Hz.

    Raises
    ------
    TypeError
        If `spike_count` is no DataArray.
    ValueError
        If its dims or its time are wrong, counts in memory are NaN, or `sd` is negative or no time.

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
    if spike_count.chunks is None:  # what is lazy stays so
        require_finite(spike_count, "spike_count")
    if "repeat" in spike_count.dims:
        spike_count = spike_count.mean("repeat")
    values = spike_count.data.astype(np.float64) / bin_width
    if sd_seconds > 0:
        parts = [
            _smoothed(values[run], sd_seconds / bin_width, causal) for run in runs_of(spike_count)
        ]
        lazy = isinstance(values, da.Array)
        values = parts[0] if len(parts) == 1 else (da if lazy else np).concatenate(parts)
    rate = spike_count.copy(data=values).rename("rate")
    rate.attrs = {
        "units": "Hz",
        "long_name": "firing rate",
        "smoothing_sd": sd_seconds,
        "smoothing": "causal half Gaussian" if causal else "Gaussian",
    }
    return rate


def _smoothed(values: Any, sd: float, causal: bool) -> Any:
    """Smooth one run (time, cell) with a Gaussian whose standard deviation is `sd` bins."""
    radius = int(CUT * sd + 0.5)
    if isinstance(values, da.Array):
        # A chunk must be as long as its overlap; "reflect" of dask is that of SciPy.
        chunk = max(radius + 1, *values.chunks[0])
        values = values.rechunk({0: min(chunk, len(values))})
        if min(values.chunks[0]) <= radius:
            return values.rechunk({0: -1}).map_blocks(_smooth, sd, causal, dtype=np.float64)
        # For a causal filter the mirrored past is not used: zeros mark where the block begins.
        return values.map_overlap(
            _smooth_inner,
            depth={0: radius},
            boundary={0: "none" if causal else "reflect"},
            dtype=np.float64,
            sd=sd,
            causal=causal,
        )
    return _smooth(values, sd, causal)


def _smooth_inner(values: np.ndarray, *, sd: float, causal: bool) -> np.ndarray:
    """Smooth a chunk with its overlap, which the caller trims away again."""
    return _smooth(values, sd, causal)


def _smooth(values: np.ndarray, sd: float, causal: bool) -> np.ndarray:
    if not causal:
        return gaussian_filter1d(values, sd, axis=0, mode="reflect", truncate=CUT)
    lags = np.arange(int(CUT * sd + 0.5) + 1)
    weights = np.exp(-0.5 * (lags / sd) ** 2)
    # correlate1d looks to both sides: the future has weight 0, bins before the block are 0.
    kernel = np.r_[weights[::-1], np.zeros(len(lags) - 1)]
    summed = correlate1d(values, kernel, axis=0, mode="constant")
    available = np.cumsum(weights)[np.minimum(np.arange(len(values)), len(lags) - 1)]
    return summed / available[:, None]
