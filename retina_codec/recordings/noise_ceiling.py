"""How well repeats of a stimulus agree: the ceiling for every model of the cells."""

from __future__ import annotations

import numpy as np
import xarray as xr

from retina_codec._common.checks import require_count
from retina_codec._common.provenance import provenance
from retina_codec._common.time import bin_width_of, whole_history
from retina_codec.recordings.nodes import require_node

MEASURES = {
    "cc_max": ("1", "correlation of the mean response with the true rate (Schoppe et al. 2016)"),
    "cc_max_se": ("1", "jackknife standard error of cc_max over repeats"),
    "signal_power": ("1", "signal power, spikes^2/bin^2 (Schoppe et al. 2016)"),
    "signal_power_se": (
        "1",
        "jackknife standard error of signal_power over repeats, spikes^2/bin^2",
    ),
    "split_half_r": ("1", "correlation of the means of random halves of the repeats"),
    "spearman_brown": (
        "1",
        "2 r / (1 + r) of split_half_r: reliability of the mean of all repeats",
    ),
    "ceiling": ("1", "sqrt(spearman_brown): best correlation with the mean response"),
    "odd_even_r": ("1", "correlation of the means of even and of odd repeats"),
    "pair_r": ("1", "mean correlation of two single repeats"),
    "mean_rate": ("Hz", "mean firing rate over the bins used"),
}


def reliability(
    node: xr.DataTree | xr.Dataset, *, history: int = 1, n_splits: int = 1000, seed: int = 0
) -> xr.Dataset:
    """Agreement of repeats: noise ceiling, signal power and split-half reliability of each cell.

    With counts R_n(t) of N repeats and variances over time (ddof = 1),

    - signal power SP = [Var(sum_n R_n) - sum_n Var(R_n)] / (N (N - 1)),
    - cc_max = sqrt(SP / Var(mean_n R_n)),

    after Schoppe et al., Front. Comput. Neurosci. 10:10 (2016), eqs. 1 to 3; the split-half
    correlation r of two random groups of floor(N / 2) repeats, averaged over splits, gives
    spearman_brown = 2 r / (1 + r) and ceiling = sqrt(spearman_brown). Pairs and splits of which a
    part does not vary are left out of the averages.

    Parameters
    ----------
    node : xarray.DataTree or xarray.Dataset
        Node with spike_count(repeat, time, cell).
    history : int
        Frames that a model sees: the first ``history - 1`` bins of each block, of which it cannot
        predict the response, are left out. 1 keeps all bins.
    n_splits : int
        Random splits for `split_half_r`.
    seed : int
        Seed of the splits, which are the same for all cells.

    Returns
    -------
    xarray.Dataset
        Over `cell`: cc_max, cc_max_se, signal_power, signal_power_se (jackknife standard errors
        over repeats), split_half_r, spearman_brown, ceiling, odd_even_r, pair_r, mean_rate (Hz),
        and `reason`: why a number is NaN ("" where none is).

    Raises
    ------
    TypeError
        If `node` is no node, or a number is not whole.
    ValueError
        If `node` has no repeats, or no bin with a whole history.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from retina_codec._common.time import time_coordinate
    >>> from retina_codec.recordings import reliability
    >>> rate = np.random.default_rng(0).gamma(1.0, 1.0, size=(500, 1))
    >>> counts = np.random.default_rng(1).poisson(rate, size=(20, 500, 1))
    >>> node = xr.Dataset(
    ...     {"spike_count": (("repeat", "time", "cell"), counts)},
    ...     coords={"time": time_coordinate(np.arange(500) * 0.01, 0.01), "cell": ["C1"]},
    ... )
    >>> found = reliability(node)
    >>> bool(abs(found["signal_power"][0] - rate.var(ddof=1)) < 0.1)
    True
    """
    data = require_node(node, "node")
    history = require_count(history, 1, "history")
    n_splits = require_count(n_splits, 1, "n_splits")
    seed = require_count(seed, 0, "seed")
    counts = data["spike_count"]
    if "repeat" not in counts.dims:
        raise ValueError(
            "node['spike_count'] has no dim 'repeat'; reliability needs a repeated stimulus: give "
            "the node with the repeats, such as recording['test']"
        )
    bins = whole_history(data, history)
    if len(bins) < 2:
        raise ValueError(
            f"history={history} leaves {len(bins)} of the {counts.sizes['time']} bins; at least 2 "
            "are needed: give a smaller history"
        )
    values = counts.values[:, bins].astype(np.float64)
    n = len(values)
    halves = _random_halves(n, n_splits, np.random.default_rng(seed))
    rows = [_of_one_cell(values[:, :, i], *halves) for i in range(values.shape[2])]
    rates = values.mean(axis=(0, 1)) / bin_width_of(data, "node")
    for row, rate in zip(rows, rates, strict=True):
        row["mean_rate"] = rate
    variables = {
        name: ("cell", np.array([row[name] for row in rows]), {"units": units, "long_name": text})
        for name, (units, text) in MEASURES.items()
    }
    reasons = np.array([_reason(values[:, :, i], row) for i, row in enumerate(rows)], dtype=str)
    cells = {name: c for name, c in counts.coords.items() if c.dims == ("cell",)}
    return xr.Dataset(
        {**variables, "reason": ("cell", reasons, {"long_name": "why a number is NaN"})},
        coords=cells,
        attrs={
            **provenance(function="reliability", history=history, n_splits=n_splits, seed=seed),
            "n_repeats": n,
            "n_bins": len(bins),
        },
    )


def _random_halves(n: int, n_splits: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Two 0/1 matrices (split, repeat): members of the first and of the second half."""
    order = np.argsort(rng.random((n_splits, n)), axis=1)
    first, second = np.zeros((n_splits, n)), np.zeros((n_splits, n))
    np.put_along_axis(first, order[:, : n // 2], 1.0, axis=1)
    np.put_along_axis(second, order[:, n // 2 : 2 * (n // 2)], 1.0, axis=1)
    return first, second


def _of_one_cell(counts: np.ndarray, first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """All measures but the rate, from the covariance matrix of the repeats.

    The covariance of two sums of repeats is a sum over entries of that matrix, so that no split
    has to be averaged over time.
    """
    n = len(counts)
    if n < 2:
        return dict.fromkeys(MEASURES, np.nan)
    centred = counts - counts.mean(axis=1, keepdims=True)
    covariance = centred @ centred.T / (counts.shape[1] - 1)
    signal_power, cc_max = power_and_ceiling(covariance.sum(), np.trace(covariance), n)

    variance = np.diag(covariance)
    sums = covariance.sum(axis=1)
    without = power_and_ceiling(
        covariance.sum() - 2 * sums + variance, np.trace(covariance) - variance, n - 1
    )
    even = np.arange(n) % 2 == 0
    pairs = _correlation(covariance, variance[:, None], variance[None, :])[np.triu_indices(n, 1)]
    split = _mean_of_defined(_correlation_of_sums(covariance, first, second))
    brown = 2 * split / (1 + split) if split > -1 else np.nan
    return {
        "cc_max": float(cc_max),
        "cc_max_se": _jackknife_error(without[1]),
        "signal_power": float(signal_power),
        "signal_power_se": _jackknife_error(without[0]),
        "split_half_r": split,
        "spearman_brown": brown,
        "ceiling": float(np.sqrt(brown)) if brown >= 0 else np.nan,
        "odd_even_r": float(
            _correlation_of_sums(covariance, even[None].astype(float), ~even[None] + 0.0)[0]
        ),
        "pair_r": _mean_of_defined(pairs),
    }


def power_and_ceiling(
    of_sum: np.ndarray | float, sum_of: np.ndarray | float, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """Signal power and cc_max, from the variance of the sum and the sum of variances."""
    if n < 2:
        nothing = np.full(np.shape(of_sum), np.nan)
        return nothing, nothing
    of_sum = np.asarray(of_sum)
    power = (of_sum - sum_of) / (n * (n - 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return power, np.where(power > 0, np.sqrt(power / (of_sum / n**2)), np.nan)


def _correlation(
    covariance: np.ndarray, variance_a: np.ndarray, variance_b: np.ndarray
) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(
            (variance_a > 0) & (variance_b > 0),
            covariance / np.sqrt(variance_a * variance_b),
            np.nan,
        )


def _correlation_of_sums(covariance: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlation of the summed repeats `a` with the summed repeats `b`, one a row."""
    in_a, in_b = a @ covariance, b @ covariance
    return _correlation((in_a * b).sum(1), (in_a * a).sum(1), (in_b * b).sum(1))


def _mean_of_defined(values: np.ndarray) -> float:
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if defined.size else np.nan


def _jackknife_error(without_one: np.ndarray) -> float:
    """Jackknife standard error from the estimates that leave out one repeat each."""
    n = len(without_one)
    return float(np.sqrt((n - 1) / n * ((without_one - without_one.mean()) ** 2).sum()))


def _reason(counts: np.ndarray, row: dict[str, float]) -> str:
    """Why a measure is NaN, or an empty text."""
    missing = [name for name in MEASURES if np.isnan(row[name])]
    if not missing:
        return ""
    if len(counts) < 2:
        return "fewer than two repeats"
    if not counts.any():
        return "no spikes"
    if row["signal_power"] <= 0:
        why = "signal power is not positive"
    elif len(counts) < 3:
        why = "fewer than three repeats"
    else:
        why = "signal power or variance vanishes in a part of the repeats"
    return f"{why}: {', '.join(missing)} undefined"
