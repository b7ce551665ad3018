"""What a recording says about its cells: refractory violations, drift, presence; choosing cells."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import t as student_t

from retina_codec._common.checks import magnitude, require_count, require_finite
from retina_codec._common.provenance import provenance
from retina_codec._common.time import bin_width_of, whole_history
from retina_codec.recordings.nodes import cell_coordinate, chosen_cells, require_node
from retina_codec.recordings.noise_ceiling import MEASURES as OF_REPEATS
from retina_codec.recordings.noise_ceiling import covariance_of_repeats, reliability
from retina_codec.recordings.spikes import SpikeTimes
from retina_codec.recordings.trials import positive_seconds, require_spikes

LEVEL = 0.95
# Counts held at a time (64 MB of doubles): bounds the memory for long recordings of many cells.
CHUNK_NUMBERS = 2**23

MEASURES = {
    "n_spikes": ("1", "spikes of the cell in all"),
    "mean_rate": ("Hz", "mean firing rate"),
    "isi_violations": ("1", "fraction of intervals between spikes below the refractory period"),
    "contamination": ("1", "fraction of spikes from other cells (Hill et al. 2011)"),
    "n_duplicates": ("1", "spikes at the same time as the one before"),
    "presence_ratio": ("1", "fraction of the windows of the recording with a spike"),
    "rate_drift": ("%/min", "change of the rate, in percent of its mean"),
    "rate_drift_low": ("%/min", "lower end of the 95 % interval of rate_drift"),
    "rate_drift_high": ("%/min", "upper end of the 95 % interval of rate_drift"),
    "response_drift": ("1", "correlation of repeat number with the repeat's share in the response"),
}
FROM_REPEATS = ("cc_max", "signal_power", "explainable_variance", "ceiling")

# Criteria of `select_cells`: measure, which end is good, units that a limit is taken in.
CRITERIA = {
    "min_spikes": ("n_spikes", "least", "dimensionless"),
    "min_rate": ("mean_rate", "least", "Hz"),
    "max_isi_violations": ("isi_violations", "most", "dimensionless"),
    "max_contamination": ("contamination", "most", "dimensionless"),
    "min_presence": ("presence_ratio", "least", "dimensionless"),
    "max_drift": ("rate_drift", "most", "percent/min"),
    "max_response_drift": ("response_drift", "most", "dimensionless"),
    "min_cc_max": ("cc_max", "least", "dimensionless"),
    "min_explainable_variance": ("explainable_variance", "least", "dimensionless"),
}
REMEDY = {
    "isi_violations": "it needs spike times (the node 'spikes'), not only counts",
    "contamination": "it needs spike times (the node 'spikes'), not only counts",
    "response_drift": "it needs a node with at least three repeats",
    "cc_max": "it needs a node with repeats",
    "explainable_variance": "it needs a node with repeats",
}


def quality(
    recording_or_node: xr.DataTree | xr.Dataset,
    *,
    refractory_period: object = 0.0015,
    n_windows: int = 20,
    history: int = 1,
) -> xr.Dataset:
    """Quality of each cell: refractory violations, contamination, drift, presence, reliability.

    - isi_violations: fraction of the intervals between spikes that are below `refractory_period`
      (tau); n_duplicates: intervals of 0.
    - contamination: with v violations among N spikes in T seconds and a second cell that fires
      independently, the fraction f of its spikes solves ``v = 2 tau N^2 f (1 - f) / T``, so that
      ``f = (1 - sqrt(1 - 2 v T / (tau N^2))) / 2``, after Hill, Mehta & Kleinfeld, J. Neurosci.
      31:8699 (2011), with no dead time of the detection. The cells' rates are taken as constant: a
      stimulus that drives both together makes f too large. T runs from the first to the last
      spike of all cells.
    - mean_rate: spikes per second while stimuli were shown (in the bins of the nodes with
      spike_count); without such nodes during the epochs (from the first start to the last end);
      without these from the first to the last spike of all cells.
    - presence_ratio and rate_drift: that time in `n_windows` windows of equal length; the fraction
      with a spike, and the slope of a line through their rates, in percent of the mean rate per
      minute. Its interval is that of ordinary least squares (95 %), which is too narrow where the
      rate wanders slower than a window.
    - response_drift: each repeat's projection on the mean of the others,
      ``Cov(R_n, M) / Var(M)``, is its share in the common response; this is its correlation with
      the number of the repeat.
    - cc_max, signal_power, explainable_variance, ceiling as from `reliability`.

    Parameters
    ----------
    recording_or_node : xarray.DataTree or xarray.Dataset
        A recording, or one of its nodes with spike_count([repeat,] time, cell). Measures of what
        it lacks (spike times, repeats) are NaN. Of several nodes with repeats, the one with the
        most bins in all is taken.
    refractory_period : float or quantity
        Seconds in which a cell cannot fire again.
    n_windows : int
        Windows for presence and drift, at least 3.
    history : int
        Frames left out at the start of each block for what is measured from repeats, plus 1; see
        `reliability`.

    Returns
    -------
    xarray.Dataset
        Over `cell`: n_spikes, mean_rate (Hz), isi_violations, contamination, n_duplicates,
        presence_ratio, rate_drift with ``_low`` and ``_high`` (%/min), response_drift, cc_max,
        signal_power, explainable_variance, ceiling, and `reason`: why a number is NaN ("" where
        none is).

    Raises
    ------
    TypeError
        If it is neither a recording nor a node, or a number is not whole.
    ValueError
        If it has neither spikes nor counts, counts are NaN, its nodes differ in their cells, or a
        number is too small.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from retina_codec.recordings.quality import quality
    >>> from retina_codec.recordings.spikes import SpikeTimes
    >>> times = np.sort(np.r_[np.arange(0, 100, 0.1), 50.001])  # one spike too early
    >>> spikes = SpikeTimes.from_trains({"C1": times})
    >>> found = quality(xr.DataTree.from_dict({"/spikes": spikes.to_dataset()}))
    >>> float(found["isi_violations"].sel(cell="C1"))
    0.001
    """
    tau = positive_seconds(refractory_period, "refractory_period")
    n_windows = require_count(n_windows, 3, "n_windows")
    history = require_count(history, 1, "history")
    spikes, nodes, extent = _parts_of(recording_or_node)
    if nodes:
        cell = next(iter(nodes.values()))["cell"]
        windows = _windows_of_nodes(nodes, n_windows)
    else:
        spikes = require_spikes(recording_or_node, "recording")
        cell = cell_coordinate(spikes.ids)
        windows = _windows_of_spikes(spikes, extent or _extent(spikes), n_windows)
    drift, reach = _slope(windows)
    values = {name: np.full(cell.size, np.nan) for name in (*MEASURES, *FROM_REPEATS)}
    values |= {
        "n_spikes": windows.all_spikes,
        "mean_rate": windows.mean_rate,
        "presence_ratio": windows.presence,
        "rate_drift": drift,
        "rate_drift_low": drift - reach,
        "rate_drift_high": drift + reach,
    }
    if spikes is not None:
        values |= _of_intervals(spikes, tau)
    repeated = {name: data for name, data in nodes.items() if "repeat" in data["spike_count"].dims}
    source = ""
    if repeated:
        source = max(repeated, key=lambda name: repeated[name]["spike_count"].size)
        data = repeated[source]
        measured = reliability(data, history=history)
        values |= {name: measured[name].values for name in FROM_REPEATS}
        covariance, _ = covariance_of_repeats(data["spike_count"], whole_history(data, history))
        values["response_drift"] = _response_drift(covariance)
    described = MEASURES | {name: OF_REPEATS[name] for name in FROM_REPEATS}
    reasons = [_reason(values, i, spikes, source) for i in range(cell.size)]
    return xr.Dataset(
        {
            **{
                name: ("cell", values[name], {"units": units, "long_name": text})
                for name, (units, text) in described.items()
            },
            "reason": ("cell", np.array(reasons, dtype=str), {"long_name": "why a number is NaN"}),
        },
        coords={"cell": cell},
        attrs={
            **provenance(
                function="quality", refractory_period=tau, n_windows=n_windows, history=history
            ),
            "repeats_from": source,
        },
    )


def select_cells(
    recording: xr.DataTree,
    *,
    cells: Iterable[object] | None = None,
    min_spikes: object | None = None,
    min_rate: object | None = None,
    max_isi_violations: object | None = None,
    max_contamination: object | None = None,
    min_presence: object | None = None,
    max_drift: object | None = None,
    max_response_drift: object | None = None,
    min_cc_max: object | None = None,
    min_explainable_variance: object | None = None,
    measured: xr.Dataset | None = None,
) -> xr.DataTree:
    """Keep the cells of a recording that meet all criteria given.

    A cell for which a measure is NaN fails its criterion. Drifts are compared by their size.

    Parameters
    ----------
    recording : xarray.DataTree
        An opened recording.
    cells : iterable of str, optional
        Ids of the cells to choose from, in the order wanted; all by default.
    min_spikes, min_rate, max_isi_violations, max_contamination, min_presence, max_drift, \
max_response_drift, min_cc_max, min_explainable_variance : float or quantity, optional
        Least or most of n_spikes, mean_rate (Hz), isi_violations, contamination, presence_ratio,
        rate_drift (%/min), response_drift, cc_max, explainable_variance, each as from `quality`.
        Quantities are converted to these units, numbers are taken in them.
    measured : xarray.Dataset, optional
        Result of `quality` for this recording, where its parameters matter; measured with the
        defaults if not given.

    Returns
    -------
    xarray.DataTree
        The recording with these cells in every node, ``/spikes`` included;
        ``attrs["notes"]`` says which cells were left out and why.

    Raises
    ------
    TypeError
        If `recording` is no recording, or a criterion is no number.
    ValueError
        If a criterion cannot be measured in this recording or has other units, a cell is unknown,
        or none is left.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from retina_codec.recordings.quality import select_cells
    >>> from retina_codec.recordings.spikes import SpikeTimes
    >>> spikes = SpikeTimes.from_trains({"C1": np.arange(100.0), "C2": np.array([3.0])})
    >>> recording = xr.DataTree.from_dict({"/spikes": spikes.to_dataset()})
    >>> chosen = select_cells(recording, min_rate=0.5)
    >>> chosen["spikes"]["cell"].values.tolist(), chosen.attrs["notes"]
    (['C1'], 'cell C2 is left out: mean_rate 0.010101 is below 0.5')
    """
    if not isinstance(recording, xr.DataTree):
        raise TypeError(
            f"recording is a {type(recording).__name__}; expected a recording (xarray.DataTree)"
        )
    limits = {
        "min_spikes": min_spikes,
        "min_rate": min_rate,
        "max_isi_violations": max_isi_violations,
        "max_contamination": max_contamination,
        "min_presence": min_presence,
        "max_drift": max_drift,
        "max_response_drift": max_response_drift,
        "min_cc_max": min_cc_max,
        "min_explainable_variance": min_explainable_variance,
    }
    wanted = {
        criterion: _limit(limit, CRITERIA[criterion][2], criterion)
        for criterion, limit in limits.items()
        if limit is not None
    }
    if measured is None:
        measured = quality(recording)
    available = [str(cell) for cell in measured["cell"].values]
    candidates = chosen_cells(available, cells)
    failed: dict[str, list[str]] = {cell: [] for cell in candidates}
    for criterion, limit in wanted.items():
        name, good, _ = CRITERIA[criterion]
        if name not in measured or np.isnan(measured[name]).all():
            why = REMEDY.get(name, "see measured['reason']")
            raise ValueError(
                f"{criterion}={limit!r}, but {name} is defined for no cell of this recording: "
                f"{why}; leave the criterion out"
            )
        for cell in candidates:
            value = float(measured[name].values[available.index(cell)])
            complaint = _complaint(name, value, limit, good)
            if complaint:
                failed[cell].append(complaint)
    kept = [cell for cell in candidates if not failed[cell]]
    notes = [
        f"cell {cell} is left out: {'; '.join(complaints)}"
        for cell, complaints in failed.items()
        if complaints
    ]
    if not kept:
        raise ValueError(
            f"no cell of {len(candidates)} meets all criteria "
            f"({', '.join(f'{name}={limit!r}' for name, limit in wanted.items())}): "
            f"{'. '.join(notes[:3])}{' ...' if len(notes) > 3 else ''}. Relax them"
        )
    unasked = len(available) - len(candidates)
    if unasked:
        notes.append(f"{unasked} cells are left out: not asked for")
    chosen = recording.map_over_datasets(_with_cells, kept)
    earlier = recording.attrs.get("notes")
    chosen.attrs = dict(recording.attrs)
    if notes:
        chosen.attrs["notes"] = "; ".join([*([earlier] if earlier else []), *notes])
    return chosen


@dataclass(frozen=True)
class _Windows:
    """Spikes (window, cell) in windows of the recording, and when and how long these are."""

    counts: np.ndarray
    seconds: np.ndarray
    centre: np.ndarray
    all_spikes: np.ndarray
    mean_rate: np.ndarray

    @property
    def presence(self) -> np.ndarray:
        """Fraction of the windows in which a cell fired; NaN without windows."""
        if not len(self.counts):
            return np.full(self.counts.shape[1], np.nan)
        return (self.counts > 0).mean(axis=0)


def _parts_of(
    value: Any,
) -> tuple[SpikeTimes | None, dict[str, xr.Dataset], tuple[float, float] | None]:
    """Spike times, nodes with counts and the time from the first to the last epoch, if any."""
    if not isinstance(value, xr.DataTree) or "spike_count" in value.to_dataset():
        return None, {"node": _finite(require_node(value, "node"), "node")}, None
    nodes = {
        str(name): _finite(require_node(node, f"recording[{name!r}]"), f"recording[{name!r}]")
        for name, node in value.children.items()
        if "spike_count" in node.to_dataset()
    }
    spikes = require_spikes(value, "recording") if "spikes" in value.children else None
    ids = [[str(cell) for cell in data["cell"].values] for data in nodes.values()]
    if spikes is not None:
        ids.append(spikes.ids)
    if any(other != ids[0] for other in ids):
        raise ValueError(
            "the nodes of recording differ in their cells; give one node at a time, or select the "
            "cells they share"
        )
    extent = None
    if "epochs" in value.children and value["epochs"].sizes.get("epoch"):
        epochs = value["epochs"].to_dataset()
        stop = epochs["start"].values + epochs["duration"].values
        extent = (float(epochs["start"].min()), float(stop.max()))
    return spikes, nodes, extent


def _finite(data: xr.Dataset, argument: str) -> xr.Dataset:
    """Return the node, or raise ValueError where its counts are NaN."""
    require_finite(data["spike_count"], f"{argument}['spike_count']")
    return data


def _windows_of_spikes(spikes: SpikeTimes, extent: tuple[float, float], n_windows: int) -> _Windows:
    """Give spikes in equal windows between the two times."""
    edges = np.linspace(*extent, n_windows + 1)
    counts = spikes.count(edges)
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = counts.sum(0) / (extent[1] - extent[0])
    middle = (edges[:-1] + edges[1:]) / 2
    return _Windows(counts, np.diff(edges), middle, np.diff(spikes.offsets).astype(float), rate)


def _windows_of_nodes(nodes: dict[str, xr.Dataset], n_windows: int) -> _Windows:
    """Give spikes in windows of equally many bins of all nodes, in the order they were shown.

    Bins of repeats without `repeat_onset` have no place in that order: they count for the mean
    rate only.
    """
    onsets, widths, placed = [], [], []
    for name, data in nodes.items():
        width = bin_width_of(data, f"recording[{name!r}]")
        onset = data["time"].values
        if "repeat" in data["spike_count"].dims:
            if "repeat_onset" not in data.coords:
                continue
            onset = (data["repeat_onset"].values[:, None] + onset).ravel()
        onsets.append(onset)
        widths.append(np.full(onset.size, width))
        placed.append(name)
    n_cells = next(iter(nodes.values())).sizes["cell"]
    when = np.concatenate([*onsets, np.empty(0)])
    seconds_each = np.concatenate([*widths, np.empty(0)])
    n_windows = min(n_windows, len(when))
    window = np.empty(len(when), dtype=np.int64)
    window[np.argsort(when, kind="stable")] = np.arange(len(when)) * n_windows // max(1, len(when))
    seconds = np.bincount(window, weights=seconds_each, minlength=n_windows)
    middles = np.bincount(window, weights=when + seconds_each / 2, minlength=n_windows)
    centre = middles / np.maximum(np.bincount(window, minlength=n_windows), 1)

    counts = np.zeros((n_windows, n_cells))
    all_spikes, all_seconds = np.zeros(n_cells), 0.0
    first = 0
    for name, data in nodes.items():
        here = data["spike_count"]
        repeats = here.sizes.get("repeat", 1)
        n_bins = here.sizes["time"]
        all_seconds += repeats * n_bins * bin_width_of(data, name)
        of_bin = None
        if name in placed:
            of_bin = window[first : first + repeats * n_bins].reshape(repeats, n_bins)
            first += repeats * n_bins
        step = max(1, CHUNK_NUMBERS // max(1, repeats * n_cells))
        for start in range(0, n_bins, step):
            part = here.isel(time=slice(start, start + step)).values.astype(np.float64)
            part = part.reshape(-1, n_cells)
            all_spikes += part.sum(axis=0)
            if of_bin is not None:
                # Bins times windows, 0 or 1: the sums of all windows are one product.
                windows = of_bin[:, start : start + step].reshape(-1)
                counts += (windows == np.arange(n_windows)[:, None]).astype(np.float64) @ part
    return _Windows(counts, seconds, centre, all_spikes, all_spikes / all_seconds)


def _extent(spikes: SpikeTimes) -> tuple[float, float]:
    """First and last spike of all cells."""
    if not spikes.times.size:
        return 0.0, 0.0
    return float(spikes.times.min()), float(spikes.times.max())


def _slope(windows: _Windows) -> tuple[np.ndarray, np.ndarray]:
    """Slope of the rate in percent of its mean per minute, and half its 95 % interval."""
    n = len(windows.centre)
    if n < 3 or not np.ptp(windows.centre) > 0:
        nothing = np.full(windows.counts.shape[1], np.nan)
        return nothing, nothing
    rates = windows.counts / windows.seconds[:, None]
    minutes = (windows.centre - windows.centre.mean()) / 60
    mean = rates.mean(axis=0)
    squares = (minutes**2).sum()
    slope = minutes @ (rates - mean) / squares
    rest = rates - mean - minutes[:, None] * slope
    error = np.sqrt((rest**2).sum(0) / (n - 2) / squares)
    with np.errstate(invalid="ignore", divide="ignore"):
        reach = student_t.ppf((1 + LEVEL) / 2, n - 2) * error
        return 100 * slope / mean, 100 * reach / mean


def _of_intervals(spikes: SpikeTimes, tau: float) -> dict[str, np.ndarray]:
    """Measures of the intervals between the spikes of each cell."""
    first, last = _extent(spikes)
    n = np.diff(spikes.offsets).astype(np.float64)
    short, same = np.zeros(len(spikes)), np.zeros(len(spikes))
    for cell in range(len(spikes)):
        intervals = np.diff(spikes.of(cell))
        short[cell] = (intervals < tau).sum()
        same[cell] = (intervals == 0).sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        root = 1 - 2 * short * (last - first) / (tau * n**2)
        return {
            "n_spikes": n,
            "isi_violations": np.where(n > 1, short / (n - 1), np.nan),
            "contamination": np.where(n > 1, (1 - np.sqrt(root)) / 2, np.nan),
            "n_duplicates": same,
        }


def _response_drift(covariance: np.ndarray) -> np.ndarray:
    """Correlation of repeat number and projection on the mean of the others, of each cell."""
    n = covariance.shape[1]
    if n < 3:
        return np.full(len(covariance), np.nan)
    own = np.diagonal(covariance, axis1=1, axis2=2)
    with_all = covariance.sum(axis=2)
    mean_variance = covariance.sum(axis=(1, 2))[:, None] - 2 * with_all + own
    number = np.arange(n) - (n - 1) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        share = (with_all - own) * (n - 1) / mean_variance
        share = share - share.mean(axis=1, keepdims=True)
        return share @ number / np.sqrt((share**2).sum(1) * (number**2).sum())


def _reason(
    values: dict[str, np.ndarray], cell: int, spikes: SpikeTimes | None, repeats: str
) -> str:
    """Why measures of a cell are NaN, or an empty text."""
    missing = [name for name, numbers in values.items() if np.isnan(numbers[cell])]
    grouped: dict[str, list[str]] = {}
    for name in missing:
        if name in FROM_REPEATS or name == "response_drift":
            why = "no repeats" if not repeats else "too few repeats, or no signal power"
        elif name in ("isi_violations", "contamination", "n_duplicates"):
            why = "no spike times" if spikes is None else "fewer than two spikes"
            if spikes is not None and name == "contamination" and values["n_spikes"][cell] > 1:
                why = "more violations than a second cell explains"
        else:
            why = "no spikes, or too short"
        grouped.setdefault(why, []).append(name)
    return "; ".join(f"{why}: {', '.join(names)} undefined" for why, names in grouped.items())


def _limit(value: object, units: str, criterion: str) -> float:
    """Limit of a criterion as a plain number in `units`."""
    number = magnitude(value, units, criterion)
    if np.ndim(number) or isinstance(number, str | bool | np.bool_):
        raise TypeError(f"{criterion}={value!r}; expected one number, or a quantity in {units}")
    if np.isnan(number):
        raise ValueError(f"{criterion}={value!r}; expected a number")
    return number


def _complaint(name: str, value: float, limit: float, good: str) -> str:
    """Say what is wrong with a value, or nothing."""
    if np.isnan(value):
        return f"{name} is undefined"
    if good == "least":
        return "" if value >= limit else f"{name} {value:.5g} is below {limit:g}"
    return "" if abs(value) <= limit else f"{name} {value:.5g} is beyond {limit:g}"


def _with_cells(data: xr.Dataset, kept: list[str]) -> xr.Dataset:
    """Give a node of a recording with these cells only, spikes included."""
    if "cell" not in data.dims:
        return data
    ids = [str(cell) for cell in data["cell"].values]
    numbers = [ids.index(cell) for cell in kept]
    return data.isel(cell=numbers) if "spike" not in data.dims else _with_spikes_of(data, numbers)


def _with_spikes_of(data: xr.Dataset, numbers: list[int]) -> xr.Dataset:
    """Give the node ``spikes`` with these cells, and all that it holds of their spikes."""
    offsets = SpikeTimes.from_dataset(data).offsets
    spikes = [np.arange(offsets[number], offsets[number + 1]) for number in numbers]
    return data.isel(cell=numbers, spike=np.concatenate(spikes))
