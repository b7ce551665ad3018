"""How well repeats of a stimulus agree: the ceiling for every model of the cells."""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.stats import t as student_t

from retina_codec._common.checks import require_count, require_finite
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
    "explainable_variance": (
        "1",
        "signal power / mean variance of a single repeat (Sahani & Linden 2003)",
    ),
    "split_half_r": ("1", "correlation of the means of random halves of the repeats"),
    "spearman_brown": (
        "1",
        "2 r / (1 + r) of split_half_r: reliability of the mean of all repeats",
    ),
    "ceiling": ("1", "sqrt(spearman_brown): best correlation with the mean response"),
    "odd_even_r": ("1", "correlation of the means of even and of odd repeats"),
    "pair_r": ("1", "mean correlation of two single repeats"),
}
# Measures with a jackknife interval, and the range that they cannot leave.
RANGES = {
    "cc_max": (0.0, 1.0),
    "signal_power": (-np.inf, np.inf),
    "explainable_variance": (0.0, 1.0),
    "split_half_r": (-1.0, 1.0),
    "spearman_brown": (-np.inf, 1.0),
    "ceiling": (0.0, 1.0),
    "pair_r": (-1.0, 1.0),
}
LEVEL = 0.95
# Counts held in double precision at a time (32 MB): bounds the memory for long nodes.
CHUNK_NUMBERS = 2**22


def reliability(
    node: xr.DataTree | xr.Dataset, *, history: int = 1, n_splits: int = 1000, seed: int = 0
) -> xr.Dataset:
    """Agreement of repeats: noise ceiling, signal power and split-half reliability of each cell.

    With counts R_n(t) of N repeats and variances over time (ddof = 1),

    - signal power SP = [Var(sum_n R_n) - sum_n Var(R_n)] / (N (N - 1)),
    - cc_max = sqrt(SP / Var(mean_n R_n)),
    - explainable_variance = SP / mean_n Var(R_n),

    the first two after Schoppe et al., Front. Comput. Neurosci. 10:10 (2016), eqs. 1 to 3. The
    third is the fraction of the variance of *single* repeats that the stimulus explains, the
    signal power as a part of the total power of Sahani & Linden, NIPS 15 (2003), eq. 1; of the
    variance of the *mean* of the repeats that fraction is cc_max^2. The split-half correlation r
    of two random groups of floor(N / 2) repeats, averaged over splits, gives
    spearman_brown = 2 r / (1 + r) and ceiling = sqrt(spearman_brown). Pairs and splits of which a
    part does not vary are left out of the averages.

    Intervals ``<measure>_low`` and ``<measure>_high`` (95 %) leave out each repeat in turn: the
    estimate plus and minus Student's t with N - 1 degrees of freedom times the jackknife standard
    error (Efron & Stein, Ann. Statist. 9, 1981), cut where the measure cannot go. Halves keep
    their members when a repeat is left out.

    Parameters
    ----------
    node : xarray.DataTree or xarray.Dataset
        Node with spike_count(repeat, time, cell), read in stretches of time where it is larger
        than memory.
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
        Over `cell`: cc_max, signal_power, explainable_variance, split_half_r, spearman_brown,
        ceiling, pair_r, each with ``_low`` and ``_high``; cc_max_se, signal_power_se (jackknife
        standard errors over repeats), odd_even_r, mean_rate (Hz), and `reason`: why a number is
        NaN ("" where none is). cc_max and explainable_variance are NaN where the signal power is
        not positive, and have no interval where it is not without each one of the repeats.

    Raises
    ------
    TypeError
        If `node` is no node, or a number is not whole.
    ValueError
        If `node` has no repeats, counts that are NaN, or no bin with a whole history.

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
    require_finite(counts, "node['spike_count']")
    bins = whole_history(data, history)
    if len(bins) < 2:
        raise ValueError(
            f"history={history} leaves {len(bins)} of the {counts.sizes['time']} bins; at least 2 "
            "are needed: give a smaller history"
        )
    covariance, spikes = covariance_of_repeats(counts, bins)
    n = counts.sizes["repeat"]
    halves = _random_halves(n, n_splits, np.random.default_rng(seed))
    rows = [_of_one_cell(of_cell, *halves) for of_cell in covariance]
    variables = {}
    for name, (units, text) in MEASURES.items():
        for suffix, addition in (("", ""), ("_low", ", lower end"), ("_high", ", upper end")):
            if suffix and name not in RANGES:
                continue
            values = np.array([row[name + suffix] for row in rows])
            interval = f"{addition} of the 95 % jackknife interval" if suffix else ""
            attrs = {"units": units, "long_name": text + interval}
            variables[name + suffix] = ("cell", values, attrs)
    rates = spikes / (n * len(bins) * bin_width_of(data, "node"))
    variables["mean_rate"] = (
        "cell",
        rates,
        {"units": "Hz", "long_name": "mean firing rate over the bins used"},
    )
    reasons = [_reason(n, fired, row) for fired, row in zip(spikes, rows, strict=True)]
    variables["reason"] = (
        "cell",
        np.array(reasons, dtype=str),
        {"long_name": "why a number is NaN"},
    )
    return xr.Dataset(
        variables,
        coords={name: c for name, c in counts.coords.items() if c.dims == ("cell",)},
        attrs={
            **provenance(function="reliability", history=history, n_splits=n_splits, seed=seed),
            "n_repeats": n,
            "n_bins": len(bins),
        },
    )


def covariance_of_repeats(counts: xr.DataArray, bins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Covariance over `bins` (cell, repeat, repeat), ddof = 1, and all spikes (cell).

    `counts` (repeat, time, cell) is read once, in stretches of time. Sums of products of counts
    are exact in double precision, so that the stretches cannot matter.
    """
    n_repeats, n_cells = counts.sizes["repeat"], counts.sizes["cell"]
    products = np.zeros((n_cells, n_repeats, n_repeats))
    sums = np.zeros((n_cells, n_repeats))
    step = max(1, CHUNK_NUMBERS // max(1, n_repeats * n_cells))
    used = np.zeros(counts.sizes["time"], dtype=bool)
    used[bins] = True
    for start in range(0, len(used), step):
        part = slice(start, start + step)
        # Cell first, and as doubles: BLAS multiplies the matrices of all cells in one call.
        values = counts.isel(time=part).values[:, used[part]]
        trials = np.ascontiguousarray(values.transpose(2, 0, 1), dtype=np.float64)
        products += trials @ trials.transpose(0, 2, 1)
        sums += trials.sum(axis=2)
    n = len(bins)
    covariance = (products - sums[:, :, None] * sums[:, None, :] / n) / (n - 1)
    return covariance, sums.sum(axis=1)


def _random_halves(n: int, n_splits: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Two 0/1 matrices (split, repeat): members of the first and of the second half."""
    order = np.argsort(rng.random((n_splits, n)), axis=1)
    first, second = np.zeros((n_splits, n)), np.zeros((n_splits, n))
    np.put_along_axis(first, order[:, : n // 2], 1.0, axis=1)
    np.put_along_axis(second, order[:, n // 2 : 2 * (n // 2)], 1.0, axis=1)
    return first, second


def _of_one_cell(covariance: np.ndarray, first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """All measures but the rate, from the covariance matrix of the repeats.

    The covariance of two sums of repeats is a sum over entries of that matrix, so that neither a
    split nor a repeat left out has to be averaged over time.
    """
    n = len(covariance)
    variance, sums = np.diag(covariance), covariance.sum(axis=1)
    every = np.arange(n)

    # One row for all repeats, then one without each of them.
    of_sum = covariance.sum() - np.r_[0.0, 2 * sums - variance]
    sum_of = variance.sum() - np.r_[0.0, variance]
    power, cc_max = _all_then_without(of_sum, sum_of)
    with np.errstate(invalid="ignore", divide="ignore"):
        size = np.r_[n, np.full(n, n - 1)]
        explainable = np.where(power > 0, power * size / sum_of, np.nan)

    pair = _correlation(covariance, variance[:, None], variance[None, :])
    np.fill_diagonal(pair, np.nan)
    defined = np.isfinite(pair)
    total, number = np.nansum(pair, axis=1), defined.sum(axis=1)
    splits = _splits_then_without(covariance, first, second)
    with np.errstate(invalid="ignore", divide="ignore"):
        pairs = (total.sum() - 2 * np.r_[0.0, total]) / (number.sum() - 2 * np.r_[0, number])
        brown = np.where(splits > -1, 2 * splits / (1 + splits), np.nan)
        ceiling = np.where(brown >= 0, np.sqrt(np.maximum(brown, 0)), np.nan)
    even = every % 2 == 0
    estimates = {
        "cc_max": cc_max,
        "signal_power": power,
        "explainable_variance": explainable,
        "split_half_r": splits,
        "spearman_brown": brown,
        "ceiling": ceiling,
        "pair_r": pairs,
    }
    row = {
        "odd_even_r": float(
            _correlation_of_sums(covariance, even[None].astype(float), ~even[None] + 0.0)[0]
        )
    }
    for name, values in estimates.items():
        error = _jackknife_error(values[1:])
        reach = error * student_t.ppf((1 + LEVEL) / 2, n - 1)
        least, most = RANGES[name]
        row[name] = float(values[0])
        row[f"{name}_se"] = error
        row[f"{name}_low"] = float(np.maximum(values[0] - reach, least))
        row[f"{name}_high"] = float(np.minimum(values[0] + reach, most))
    return row


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


def _jackknife_error(without_one: np.ndarray) -> float:
    """Jackknife standard error from the estimates that leave out one repeat each."""
    n = len(without_one)
    return float(np.sqrt((n - 1) / n * ((without_one - without_one.mean()) ** 2).sum()))


def _all_then_without(of_sum: np.ndarray, sum_of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Signal power and cc_max of all repeats, then without each of them."""
    n = len(of_sum) - 1
    with_all = power_and_ceiling(of_sum[:1], sum_of[:1], n)
    without = power_and_ceiling(of_sum[1:], sum_of[1:], n - 1)
    return np.r_[with_all[0], without[0]], np.r_[with_all[1], without[1]]


def _splits_then_without(
    covariance: np.ndarray, first: np.ndarray, second: np.ndarray
) -> np.ndarray:
    """Mean split-half correlation of all repeats, then without each of them.

    A repeat left out leaves its half: sums lose its row of the matrix.
    """
    in_first, in_second = first @ covariance, second @ covariance
    across = (in_first * second).sum(1)[:, None] - first * in_second - second * in_first
    variance = np.diag(covariance)
    of_first = (in_first * first).sum(1)[:, None] - first * (2 * in_first - variance)
    of_second = (in_second * second).sum(1)[:, None] - second * (2 * in_second - variance)
    whole = _mean_of_defined(_correlation_of_sums(covariance, first, second))
    if len(covariance) < 4:  # a half of one repeat has nothing left
        return np.r_[whole, np.full(len(covariance), np.nan)]
    without = _correlation(across, of_first, of_second)
    return np.r_[whole, [_mean_of_defined(column) for column in without.T]]


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


def _reason(n: int, spikes: float, row: dict[str, float]) -> str:
    """Why a measure is NaN, or an empty text."""
    missing = [name for name in MEASURES if np.isnan(row[name])]
    missing += [f"{name}_low" for name in RANGES if np.isnan(row[f"{name}_low"])]
    missing += [f"{name}_high" for name in RANGES if np.isnan(row[f"{name}_high"])]
    if not missing:
        return ""
    if n < 2:
        return "fewer than two repeats"
    if not spikes:
        return "no spikes"
    if row["signal_power"] <= 0:
        why = "signal power is not positive"
    elif n < 4:
        why = f"fewer than {'three' if n < 3 else 'four'} repeats"
    else:
        why = "signal power or variance vanishes in a part of the repeats"
    return f"{why}: {', '.join(missing)} undefined"
