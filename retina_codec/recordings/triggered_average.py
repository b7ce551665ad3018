"""The spike-triggered average: the mean stimulus before a spike."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from retina_codec._common.checks import require_count, require_finite
from retina_codec._common.provenance import provenance
from retina_codec._common.time import bin_width_of, runs_of, whole_history
from retina_codec.recordings.nodes import require_node

# Numbers held in double precision at a time: bounds the memory for long movies (8 MB).
CHUNK_NUMBERS = 2**20
# Sums are written once a block: with fewer frames in it, that costs more than reading the frames.
FRAMES_AT_LEAST = 32
# Counts up to this many (64 MB) are read once and kept; more are read beside the movie.
COUNTS_KEPT = 2**24


def spike_triggered_average(node: xr.DataTree | xr.Dataset, *, history: int) -> xr.DataArray:
    """Spike-weighted mean of the stimulus at each lag before the spikes (Chichilnisky 2001).

    ``STA[l] = sum_t n(t) s(t - l) / sum_t n(t)``, over the bins t whose last `history` frames lie
    in their own block. The stimulus enters as it is: its mean is not removed. It is read once, in
    blocks, and the lags are shifts of the counts: beside the sums, about one chunk of the movie is
    held in memory.

    Parameters
    ----------
    node : xarray.DataTree or xarray.Dataset
        Node with stimulus(time, [color,] y, x) and spike_count([repeat,] time, cell); repeats are
        summed. Both may be larger than memory (dask).
    history : int
        Number of lags, in frames.

    Returns
    -------
    xarray.DataArray
        Dims (cell, lag, [color,] y, x), in the units of the stimulus; `lag` in seconds, 0 = the
        frame during which the spike falls. Coordinate n_spikes(cell): spikes used. NaN for a cell
        without spikes.

    Raises
    ------
    TypeError
        If `node` is no node of a recording, or `history` is not whole.
    ValueError
        If a variable is missing, the stimulus or the counts have NaN, or no block has `history`
        frames.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from retina_codec._common.time import time_coordinate
    >>> from retina_codec.recordings import spike_triggered_average
    >>> flicker = np.random.default_rng(0).normal(size=1000)
    >>> counts = (np.roll(flicker, 2) > 1.5).astype(int)  # fires two frames after a bright one
    >>> node = xr.Dataset(
    ...     {
    ...         "stimulus": (("time", "y", "x"), flicker[:, None, None]),
    ...         "spike_count": (("time", "cell"), counts[:, None]),
    ...     },
    ...     coords={"time": time_coordinate(np.arange(1000) * 0.01, 0.01), "cell": ["C1"]},
    ... )
    >>> sta = spike_triggered_average(node, history=5)
    >>> float(sta.squeeze().idxmax("lag"))
    0.02
    """
    history = require_count(history, 1, "history")
    data = require_node(node, "node", variables=("stimulus", "spike_count"))
    stimulus, counts = data["stimulus"], data["spike_count"]
    require_finite(counts, "node['spike_count']")
    valid = np.zeros(data.sizes["time"], dtype=bool)
    valid[_used_bins(data, history)] = True
    spikes = counts.sum("repeat") if "repeat" in counts.dims else counts
    if spikes.size <= COUNTS_KEPT:
        spikes = spikes.compute()
    n_cells, n_pixels = spikes.sizes["cell"], stimulus.isel(time=0).size
    sums = np.zeros((n_cells, history, n_pixels))
    n_spikes = np.zeros(n_cells)
    step = max(FRAMES_AT_LEAST, CHUNK_NUMBERS // max(n_pixels, n_cells))
    for start, frames in _blocks(stimulus, step):
        n = len(frames)
        # A frame takes part in the response of `history` bins: its own and those after it.
        reach = slice(start, start + n + history - 1)
        fired = np.zeros((n_cells, n + history - 1))
        used = valid[reach]
        fired[:, : len(used)][:, used] = spikes.isel(time=reach).values[used].T
        n_spikes += fired[:, :n].sum(axis=1)
        # (cell, lag, frame), a view: a bin that counts has all its lags in its own block.
        lagged = np.lib.stride_tricks.sliding_window_view(fired, n, axis=1)
        lags_at_once = max(1, CHUNK_NUMBERS // (n_cells * max(n, n_pixels)))
        for lag in range(0, history, lags_at_once):
            part = slice(lag, min(lag + lags_at_once, history))
            weights = lagged[:, part].reshape(-1, n)
            sums[:, part] += (weights @ frames).reshape(n_cells, -1, n_pixels)
    with np.errstate(invalid="ignore"):
        sums /= n_spikes[:, None, None]

    bin_width = bin_width_of(data, "node")
    places = stimulus.dims[1:]
    lags = xr.DataArray(
        np.arange(history) * bin_width,
        dims="lag",
        attrs={"units": "s", "long_name": "time before the spike", "bin_width": bin_width},
    )
    spikes_used = xr.DataArray(
        n_spikes.astype(np.int64), dims="cell", attrs={"units": "1", "long_name": "spikes used"}
    )
    return xr.DataArray(
        sums.reshape(n_cells, history, *(stimulus.sizes[dim] for dim in places)),
        dims=("cell", "lag", *places),
        coords={
            "lag": lags,
            "n_spikes": spikes_used,
            **{name: c for name, c in counts.coords.items() if c.dims == ("cell",)},
            **{name: stimulus.coords[name] for name in places if name in stimulus.coords},
        },
        name="spike_triggered_average",
        attrs={
            "units": stimulus.attrs.get("units", "1"),
            "long_name": "mean stimulus before a spike",
            **provenance(function="spike_triggered_average", history=history),
        },
    )


def _used_bins(data: xr.Dataset, history: int) -> np.ndarray:
    """Bins with a whole history, or ValueError if there is none."""
    bins = whole_history(data, history)
    if not bins.size:
        raise ValueError(
            f"history={history} frames, but no contiguous run of node is as long "
            f"({data.sizes['time']} frames in {len(runs_of(data))} runs): give a smaller history"
        )
    return bins


def _blocks(stimulus: xr.DataArray, step: int) -> Iterator[tuple[int, np.ndarray]]:
    """Give at most `step` frames at a time, (frame, pixel), with the number of the first.

    Each chunk of a dask movie is computed once: small ones several at a time, a large one whole,
    and handed on in pieces.
    """
    n_frames = stimulus.sizes["time"]
    lengths = stimulus.chunksizes["time"] if stimulus.chunks else (step,) * -(-n_frames // step)
    start = stop = 0
    for i, length in enumerate(lengths):
        stop = min(stop + length, n_frames)
        following = lengths[i + 1] if i + 1 < len(lengths) else step
        if stop < n_frames and stop - start + following <= step:
            continue
        yield from _pieces(stimulus, start, stop, step)
        start = stop


def _pieces(
    stimulus: xr.DataArray, start: int, stop: int, step: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Read these frames at once; give `step` of them at a time, in double precision."""
    chunk = stimulus.isel(time=slice(start, stop)).values.reshape(stop - start, -1)
    for first in range(0, len(chunk), step):
        frames = chunk[first : first + step].astype(np.float64)
        if not np.isfinite(frames).all():
            require_finite(stimulus, "node['stimulus']")
        yield start + first, frames
