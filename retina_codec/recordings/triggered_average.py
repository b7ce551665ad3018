"""The spike-triggered average: the mean stimulus before a spike."""

from __future__ import annotations

import numpy as np
import xarray as xr

from retina_codec._common.checks import require_count, require_finite
from retina_codec._common.provenance import provenance
from retina_codec._common.time import bin_width_of, runs_of
from retina_codec.recordings.nodes import require_node

# Numbers held in double precision at a time: bounds the memory for long movies (32 MB).
CHUNK_NUMBERS = 2**22


def spike_triggered_average(node: xr.DataTree | xr.Dataset, *, history: int) -> xr.DataArray:
    """Spike-weighted mean of the stimulus at each lag before the spikes (Chichilnisky 2001).

    ``STA[l] = sum_t n(t) s(t - l) / sum_t n(t)``, over the bins t whose last `history` frames lie
    in their own block. The stimulus enters as it is: its mean is not removed.

    Parameters
    ----------
    node : xarray.DataTree or xarray.Dataset
        Node with stimulus(time, [color,] y, x) and spike_count([repeat,] time, cell); repeats are
        summed.
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
        If a variable is missing, the stimulus has NaN, or no block has `history` frames.

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
    require_finite(stimulus, "node['stimulus']")
    runs = [run for run in runs_of(data) if run.stop - run.start >= history]
    if not runs:
        raise ValueError(
            f"history={history} frames, but no contiguous run of node is as long "
            f"({data.sizes['time']} frames in {len(runs_of(data))} runs): give a smaller history"
        )
    spikes = counts.sum("repeat") if "repeat" in counts.dims else counts
    weights = spikes.values.astype(np.float64)
    frames = stimulus.values.reshape(stimulus.sizes["time"], -1)
    step = max(1, CHUNK_NUMBERS // frames.shape[1])
    sums = np.zeros((history, weights.shape[1], frames.shape[1]))
    n_spikes = np.zeros(weights.shape[1])
    for run in runs:
        for start in range(run.start + history - 1, run.stop, step):
            stop = min(start + step, run.stop)
            before = frames[start - history + 1 : stop].astype(np.float64)
            fired = weights[start:stop].T
            n_spikes += fired.sum(axis=1)
            for lag in range(history):
                first = history - 1 - lag
                sums[lag] += fired @ before[first : first + stop - start]
    with np.errstate(invalid="ignore"):
        average = (sums / n_spikes[:, None]).transpose(1, 0, 2)

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
        average.reshape(len(average), history, *(stimulus.sizes[dim] for dim in places)),
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
