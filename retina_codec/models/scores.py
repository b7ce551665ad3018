"""The scores, as functions of means over time: one row of weights over the bins, one score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from retina_codec.models.resampling import Resampling
from retina_codec.recordings.noise_ceiling import power_and_ceiling

SCORES = {
    "pearson_r": "Pearson correlation with the mean count",
    "cc_norm": "correlation over its ceiling",
    "fev": "fraction of explainable variance explained",
    "deviance_explained": "Poisson deviance explained",
}
# Counts held in double precision at a time (32 MB), and bins whose weights are (at 1000 draws).
CHUNK_NUMBERS = 2**22
CHUNK_BINS = 4096
# Means over time held at a time (128 MB): rows x quantities, each repeat one of them, x cells.
TOTAL_NUMBERS = 2**24
# Expected counts below this are taken for it in logarithms: a spike where none was expected costs
# 27.6 nats, not an infinite deviance.
SMALLEST_EXPECTED = 1e-12
# Variance, as a share of the mean square, that is rounding and nothing else.
NEGLIGIBLE = 1e-12


@dataclass(frozen=True)
class Recorded:
    """Means over time (row, cell) of what was recorded, and the mean count (bin, cell).

    `mean` and `mean_square` are of the mean count over repeats, `square` is of the squared count,
    `log_count` of ``n log n - n`` and `trial_squares` the sum over repeats of their squared means.
    """

    n_repeats: int
    counts: np.ndarray
    mean: np.ndarray
    mean_square: np.ndarray
    square: np.ndarray
    log_count: np.ndarray
    trial_squares: np.ndarray

    def rows(self, row: int) -> Recorded:
        """One row only, (1, cell)."""
        part = slice(row, row + 1)
        return Recorded(
            self.n_repeats,
            self.counts,
            self.mean[part],
            self.mean_square[part],
            self.square[part],
            self.log_count[part],
            self.trial_squares[part],
        )


@dataclass(frozen=True)
class Predicted:
    """Means over time (row, cell) of expected counts, and of their products with the mean count.

    `log_product` is of the mean count times the logarithm of the expected one.
    """

    mean: np.ndarray
    mean_square: np.ndarray
    product: np.ndarray
    log_product: np.ndarray


def means_over_time(
    counts: xr.DataArray, bins: np.ndarray, expected: list[np.ndarray], resampling: Resampling
) -> tuple[Recorded, list[Predicted]]:
    """Means over the bins of every resampling, for each of several predictions.

    Parameters
    ----------
    counts : xarray.DataArray
        (repeat, time, cell), may be larger than memory: it is read in stretches of time.
    bins : ndarray
        Which bins of it are scored, ascending.
    expected : list of ndarray
        Expected counts (bin, cell), one for each prediction.
    resampling : Resampling
        Of those bins.
    """
    n_repeats, _, n_cells = counts.shape
    n_quantities = 4 + n_repeats + 4 * len(expected)
    group = max(1, TOTAL_NUMBERS // (resampling.n_rows * n_quantities))
    parts = [
        _means_of_group(counts.isel(cell=cells), bins, [e[:, cells] for e in expected], resampling)
        for cells in (slice(first, first + group) for first in range(0, n_cells, group))
    ]
    recorded = Recorded(
        n_repeats,
        np.concatenate([part[0] for part in parts], axis=1),
        *(np.concatenate([part[1][k] for part in parts], axis=1) for k in range(5)),
    )
    predicted = [
        Predicted(*(np.concatenate([part[2][m][k] for part in parts], axis=1) for k in range(4)))
        for m in range(len(expected))
    ]
    return recorded, predicted


def _means_of_group(
    counts: xr.DataArray, bins: np.ndarray, expected: list[np.ndarray], resampling: Resampling
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Mean counts (bin, cell), means of what was recorded (5, row, cell) and of each prediction."""
    n_repeats, n_frames, n_cells = counts.shape
    mean_counts = np.empty((len(bins), n_cells))
    # One matrix product for all quantities: the weights are what is large.
    n_quantities = 4 + n_repeats + 4 * len(expected)
    totals = np.zeros((resampling.n_rows, n_quantities, n_cells))
    step = max(1, CHUNK_NUMBERS // (n_repeats * n_cells))
    for first in range(0, n_frames, step):
        in_step = slice(*np.searchsorted(bins, [first, first + step]))
        if in_step.start == in_step.stop:
            continue
        read = counts.isel(time=slice(first, first + step)).values[:, bins[in_step] - first]
        for start in range(in_step.start, in_step.stop, CHUNK_BINS):
            stop = min(start + CHUNK_BINS, in_step.stop)
            trials = read[:, start - in_step.start : stop - in_step.start].astype(np.float64)
            mean = mean_counts[start:stop] = trials.mean(0)
            log_count = (trials * _log(trials) - trials).mean(0)
            quantities = [mean, mean**2, (trials**2).mean(0), log_count, *trials]
            for prediction in expected:
                rate = prediction[start:stop]
                quantities += [rate, rate**2, mean * rate, mean * _log(rate)]
            columns = np.concatenate(quantities, axis=1)
            totals += (resampling.weights(start, stop) @ columns).reshape(totals.shape)
    of_counts = totals[:, :4].transpose(1, 0, 2)
    squares = (totals[:, 4 : 4 + n_repeats] ** 2).sum(1)
    of_predicted = [
        totals[:, first : first + 4].transpose(1, 0, 2)
        for first in range(4 + n_repeats, n_quantities, 4)
    ]
    return mean_counts, np.concatenate([of_counts, squares[None]]), of_predicted


def scores_of(recorded: Recorded, predicted: Predicted) -> dict[str, np.ndarray]:
    """Each score and cc_max (row, cell); NaN where undefined.

    With counts R_n(t) of N repeats, their mean R(t) and expected counts e(t),

    - pearson_r = corr(e, R);
    - cc_norm = pearson_r / cc_max, cc_max = sqrt(SP / Var(R)), SP the signal power;
    - fev = 1 - (MSE - s2) / (Var - s2), MSE and Var of single repeats, s2 the mean over time of
      the variance across repeats (N - 1 degrees of freedom);
    - deviance_explained = 1 - D(e) / D(mean count), D the Poisson deviance of single repeats, in
      whose logarithms e is at least `SMALLEST_EXPECTED`.
    """
    n = recorded.n_repeats
    variance = _variance(recorded.mean_square, recorded.mean)
    of_expected = _variance(predicted.mean_square, predicted.mean)
    covariance = predicted.product - recorded.mean * predicted.mean
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.sqrt(variance * of_expected)
        pearson_r = np.where(scale > 0, covariance / scale, np.nan)
        cc_max = fev = np.full(recorded.mean.shape, np.nan)
        if n > 1:
            sum_of = n * recorded.square - recorded.trial_squares
            _, cc_max = power_and_ceiling(n**2 * variance, sum_of, n)
            noise = (recorded.square - recorded.mean_square) * n / (n - 1)
            total = recorded.square - recorded.mean**2
            error = recorded.square - 2 * predicted.product + predicted.mean_square
            fev = np.where(total > noise, 1 - (error - noise) / (total - noise), np.nan)
        flat = recorded.mean * _log(recorded.mean) - recorded.mean
        best = recorded.log_count - flat
        gain = predicted.log_product - predicted.mean - flat
        explained = np.where(best > NEGLIGIBLE * np.abs(flat), gain / best, np.nan)
    return {
        "pearson_r": pearson_r,
        "cc_norm": pearson_r / cc_max,
        "fev": fev,
        "deviance_explained": explained,
        "cc_max": np.broadcast_to(cc_max, pearson_r.shape),
    }


def shifted_scores(
    recorded: Recorded,
    predicted: Predicted,
    expected: np.ndarray,
    resampling: Resampling,
    shifts: np.ndarray,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Scores (shift, cell) of a shifted prediction, and (1, cell) of it where it belongs.

    Both over the runs that can be shifted. A shift round a run changes nothing but the products.
    """
    of_counts = recorded.rows(1)
    mean, mean_square = predicted.mean[1:2], predicted.mean_square[1:2]
    unshifted = scores_of(
        of_counts,
        Predicted(mean, mean_square, predicted.product[1:2], predicted.log_product[1:2]),
    )
    moved = Predicted(
        mean,
        mean_square,
        resampling.shifted_products(recorded.counts, expected, shifts),
        resampling.shifted_products(recorded.counts, _log(expected), shifts),
    )
    return scores_of(of_counts, moved), unshifted


def _variance(mean_square: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Variance, and 0 where it is rounding."""
    variance = mean_square - mean**2
    return np.where(variance > NEGLIGIBLE * mean_square, variance, 0.0)


def does_not_vary(values: np.ndarray) -> bool:
    """Whether values over time differ by rounding only."""
    return bool(np.var(values) <= NEGLIGIBLE * np.mean(np.square(values)))


def _log(values: np.ndarray) -> np.ndarray:
    """Logarithm that keeps ``0 * log 0`` at 0."""
    return np.log(np.maximum(values, SMALLEST_EXPECTED))
