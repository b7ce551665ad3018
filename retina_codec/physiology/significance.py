"""Is a spike-triggered average more than chance? Spikes shifted against the stimulus say."""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.stats import false_discovery_control

from retina_codec._common.checks import require_count
from retina_codec._common.progress import progress_counter
from retina_codec._common.provenance import provenance
from retina_codec._common.time import runs_of
from retina_codec.recordings import spike_triggered_average
from retina_codec.recordings.nodes import require_node

# Numbers of shifted averages that are held at a time (64 MB).
HELD = 2**23


def spike_triggered_significance(
    node: xr.DataTree | xr.Dataset,
    *,
    history: int,
    n_shifts: int = 200,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """Test the spike-triggered average of each cell against spikes shifted in time.

    The statistic is the largest magnitude, over lags and pixels, of the average's difference from
    the stimulus mean, in standard errors of white noise: ``max |STA - m| / (s / sqrt(n))`` with
    the stimulus' mean m, sd s, and n spikes. One number a cell, so that lags and pixels need no
    further correction. In the null, the spike trains of every block are shifted circularly by the
    same random time of at least `history` bins (in a block shorter than four times that, a
    quarter of it): spikes keep their rate, rhythm and bursts, and lose the stimulus. Where a
    shift carries spikes over a block's end they meet frames that they could not have followed.

    Parameters
    ----------
    node : xarray.DataTree or xarray.Dataset
        Node with stimulus(time, [color,] y, x) and spike_count([repeat,] time, cell).
    history : int
        Number of lags, in frames.
    n_shifts : int
        Shifts of the null; the smallest p value is ``1 / (n_shifts + 1)``.
    seed : int
        Of the shifts.
    progress : bool
        Show a progress bar.

    Returns
    -------
    xarray.Dataset
        Over `cell`: ``spike_triggered_average`` (cell, lag, [color,] y, x); ``statistic``, in
        standard errors; ``null_median`` and ``null_high`` (95 %), the statistic by chance;
        ``p_value`` = (1 + shifts at or above) / (1 + shifts); ``q_value``, adjusted over cells
        (Benjamini and Hochberg). NaN for a cell without spikes.

    Raises
    ------
    TypeError, ValueError
        As `retina_codec.spike_triggered_average`; if every block is shorter than 8 bins, or the
        stimulus does not vary.

    References
    ----------
    Chichilnisky, Network 12, 199 (2001); Benjamini and Hochberg, J. R. Stat. Soc. B 57, 289
    (1995).

    Examples
    --------
    >>> import numpy as np, retina_codec as rc, xarray as xr
    >>> rng = np.random.default_rng(0)
    >>> flicker = rng.normal(size=2000)
    >>> counts = np.stack([np.roll(flicker, 2) > 1.5, rng.random(2000) < 0.1], 1).astype(int)
    >>> node = xr.Dataset(
    ...     {
    ...         "stimulus": (("time", "y", "x"), flicker[:, None, None]),
    ...         "spike_count": (("time", "cell"), counts),
    ...     },
    ...     coords={
    ...         "time": rc.time_coordinate(np.arange(2000) * 0.01, 0.01), "cell": ["driven", "not"]
    ...     },
    ... )
    >>> found = rc.physiology.spike_triggered_significance(
    ...     node, history=5, n_shifts=99, progress=False
    ... )
    >>> (found["p_value"] < 0.05).values.tolist()
    [True, False]
    """
    n_shifts = require_count(n_shifts, 1, "n_shifts")
    data = require_node(node, "node", variables=("stimulus", "spike_count"))
    average = spike_triggered_average(data, history=history)
    counts = data["spike_count"]
    if "repeat" in counts.dims:
        counts = counts.sum("repeat")
    counts = counts.transpose("time", "cell").compute()
    stimulus = data["stimulus"]
    mean, sd = float(stimulus.mean()), float(stimulus.std())
    if not sd > 0:
        raise ValueError("node['stimulus'] does not vary: nothing can be triggered by it")
    runs = runs_of(data)
    if max(run.stop - run.start for run in runs) < 8:
        raise ValueError(
            "node has no block of 8 bins or more: its spikes cannot be shifted against the stimulus"
        )
    rng = np.random.default_rng(seed)
    observed = _statistic(average, mean, sd)
    null = np.empty((n_shifts, counts.sizes["cell"]))
    at_once = max(1, HELD // max(1, average.size))
    with progress_counter(n_shifts, "shifted spikes", shown=progress) as bar:
        for first in range(0, n_shifts, at_once):
            n = min(at_once, n_shifts - first)
            shifted = [_shifted(counts.values, runs, history, rng) for _ in range(n)]
            columns = np.concatenate(shifted, axis=1)
            trains = xr.DataArray(
                columns, {"cell": np.arange(columns.shape[1])}, dims=("time", "cell")
            )
            drawn = spike_triggered_average(
                xr.Dataset({"stimulus": stimulus, "spike_count": trains}), history=history
            )
            # A shifted train may have no spike in bins with a whole history: then it says nothing
            # against chance.
            found = np.nan_to_num(_statistic(drawn, mean, sd), nan=np.inf)
            null[first : first + n] = found.reshape(n, -1)
            bar.update(n)
    reached = (null >= observed).sum(axis=0)
    silent = ~np.isfinite(observed)
    p_value = np.where(silent, np.nan, (1 + reached) / (1 + n_shifts))
    q_value = np.full(p_value.shape, np.nan)
    if not silent.all():
        q_value[~silent] = false_discovery_control(p_value[~silent])
    quantiles = np.quantile(null, [0.5, 0.95], axis=0, method="higher")
    quantiles[:, silent] = np.nan
    made = {
        "statistic": (observed, "largest difference from the mean stimulus, in standard errors"),
        "null_median": (quantiles[0], "median of the statistic by chance"),
        "null_high": (quantiles[1], "95 % of the statistic by chance are below"),
        "p_value": (p_value, "share of shifts that reach the statistic"),
        "q_value": (q_value, "p value adjusted over cells"),
    }
    described = {
        name: ("cell", values, {"units": "1", "long_name": text})
        for name, (values, text) in made.items()
    }
    return xr.Dataset(
        {"spike_triggered_average": average, **described},
        attrs=provenance(
            function="spike_triggered_significance", history=history, n_shifts=n_shifts, seed=seed
        ),
    )


def _statistic(average: xr.DataArray, mean: float, sd: float) -> np.ndarray:
    """Largest magnitude (cell,) in standard errors; NaN for a cell without spikes."""
    values = np.abs(average.values - mean).reshape(average.sizes["cell"], -1).max(axis=1)
    statistic: np.ndarray = values * np.sqrt(average["n_spikes"].values) / sd
    return statistic


def _shifted(
    counts: np.ndarray, runs: list[slice], history: int, rng: np.random.Generator
) -> np.ndarray:
    """Roll counts (time, cell), each block by a time of its own, the same for all cells."""
    moved = counts.copy()
    for run in runs:
        n = run.stop - run.start
        least = min(history, n // 4)
        if least:
            shift = int(rng.integers(least, n - least + 1))
            moved[run] = np.roll(counts[run], shift, axis=0)
    return moved
