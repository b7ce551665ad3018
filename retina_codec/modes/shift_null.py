"""Partial correlation at several lags, and its null by circular shifts.

Everything here is plain arrays: loadings (mode, n), a feature at every lag (lag, n), and an
orthonormal basis of the nuisance (n, p), all over the same n samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.fft import irfft, rfft
from scipy.stats import genpareto

KEPT_VARIANCE = 0.9999  # of the nuisance, by its leading principal components
SAMPLES_PER_COMPONENT = 10
TAIL = 0.25  # share of the null that the tail is fitted to
HEAVIEST_TAIL = 0.5  # shape of the generalised Pareto distribution
NEGLIGIBLE = 1e-8  # share of variance left after the nuisance that counts as none


def nuisance_basis(columns: np.ndarray) -> np.ndarray:
    """Orthonormal basis (n, p) of what is regressed out, the constant included.

    Lagged copies of smooth signals are nearly the same, so only the principal components that
    hold 99.99 % of their variance are taken, and at most one for every 10 samples.

    Parameters
    ----------
    columns : ndarray
        (n, number of signals and lags), may have no columns.
    """
    n = len(columns)
    constant = np.full((n, 1), n**-0.5)
    columns = columns - columns.mean(axis=0)
    scale = np.sqrt(np.square(columns).mean(axis=0))
    columns = columns[:, scale > 0] / scale[scale > 0]
    if columns.shape[1] == 0:
        return constant
    variance, axes = np.linalg.eigh(columns.T @ columns)
    variance, axes = variance[::-1], axes[:, ::-1]
    held = np.cumsum(variance) / variance.sum()
    n_kept = min(int(np.searchsorted(held, KEPT_VARIANCE)) + 1, n // SAMPLES_PER_COMPONENT)
    components = columns @ (axes[:, :n_kept] / np.sqrt(variance[:n_kept]))
    return np.concatenate([constant, components], axis=1)


def residuals(signals: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """`signals` (signal, n) without their projection on `basis`; 0 where nothing is left."""
    left = signals - (signals @ basis) @ basis.T
    total = np.square(signals - signals.mean(axis=1, keepdims=True)).sum(axis=1)
    left[np.square(left).sum(axis=1) <= NEGLIGIBLE * total] = 0
    return left


def decorrelation_time(signals: np.ndarray) -> int:
    """Return the samples until the slowest of `signals` (signal, n) is correlated below 1/e."""
    spectrum = np.square(np.abs(rfft(signals - signals.mean(axis=1, keepdims=True))))
    covariance = irfft(spectrum, signals.shape[1])[:, : signals.shape[1] // 2 + 1]
    below = covariance < covariance[:, :1] / np.e
    first = np.where(below.any(axis=1), below.argmax(axis=1), 0)
    return int(first.max(initial=0))


@dataclass(frozen=True)
class LaggedCorrelation:
    """Partial correlations of every mode with one feature.

    Parameters
    ----------
    observed : ndarray
        (mode, lag), NaN where the loading or the feature has nothing left.
    p_value : ndarray
        (mode,), of the largest absolute value over lags.
    """

    observed: np.ndarray
    p_value: np.ndarray


def lagged_correlation(
    loadings: np.ndarray, lagged: np.ndarray, basis: np.ndarray, shortest_shift: int
) -> LaggedCorrelation:
    """Partial correlation of loadings with a lagged feature, and its null.

    The feature's residuals are shifted round the loadings' residuals, all lags together, by
    every shift of at least `shortest_shift`; at each shift the statistic is again the largest
    absolute correlation over lags. A shifted residual is no longer orthogonal to the nuisance:
    the share of its power that the nuisance takes up, on average over shifts, is left out of
    its norm, so that the null has the degrees of freedom of a partial correlation.

    Parameters
    ----------
    loadings : ndarray
        (mode, n), residuals with respect to `basis`.
    lagged : ndarray
        (lag, n), the feature at each lag, not yet residuals.
    basis : ndarray
        (n, p), orthonormal.
    shortest_shift : int
        Samples.
    """
    n = loadings.shape[1]
    lagged = residuals(lagged, basis)
    power = np.square(lagged).sum(axis=1)
    norms = np.sqrt(np.square(loadings).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        unit = loadings / norms[:, None]
        observed = unit @ (lagged / np.sqrt(power)[:, None]).T
        lagged_spectrum = rfft(lagged)
        basis_power = np.square(np.abs(rfft(basis, axis=0))).sum(axis=1)
        taken = _mean_over_shifts(basis_power, np.square(np.abs(lagged_spectrum)), n)
        lagged_spectrum /= np.sqrt(power - taken)[:, None]
    p_value = np.full(len(loadings), np.nan)
    for mode in np.flatnonzero(np.isfinite(observed).all(axis=1)):
        at_all_shifts = irfft(rfft(unit[mode]) * lagged_spectrum.conj(), n)
        null = np.abs(at_all_shifts[:, shortest_shift : n - shortest_shift + 1]).max(axis=0)
        p_value[mode] = tail_p_value(np.abs(observed[mode]).max(), null)
    return LaggedCorrelation(observed, p_value)


def tail_p_value(observed: float, null: np.ndarray) -> float:
    """Share of `null` at or above `observed`; in its upper quarter, from a fitted tail.

    Values of the null at neighbouring shifts are nearly the same, so the few largest of them
    are one event and counting them says little. The squared statistics above the 75 % quantile
    are fitted by a generalised Pareto distribution (method of moments, Hosking and Wallis,
    Technometrics 1987; its use for permutation tests, Knijnenburg et al., Bioinformatics 2009).
    Its shape is kept at or above 0, the exponential tail of a squared Gaussian variable, since a
    fitted end of the tail would make every observation beyond it significant.
    """
    count = int((null >= observed).sum())
    if count >= TAIL * null.size:
        return (1 + count) / (1 + null.size)
    squared = np.square(null)
    start = np.quantile(squared, 1 - TAIL)
    excess = squared[squared > start] - start
    if excess.size == 0:
        return (1 + count) / (1 + null.size)
    mean, variance = excess.mean(), excess.var()
    shape = 0.5 * (1 - mean**2 / variance) if variance > 0 else 0.0
    shape = float(np.clip(shape, 0, HEAVIEST_TAIL))
    scale = mean * (1 - shape)
    return float(TAIL * genpareto.sf(observed**2 - start, shape, scale=scale))


def _mean_over_shifts(basis_power: np.ndarray, lagged_power: np.ndarray, n: int) -> np.ndarray:
    """Mean squared projection on the basis of signals (signal, frequency) shifted by 0 .. n - 1."""
    product = basis_power * lagged_power
    doubled = 2 * product.sum(axis=1) - product[:, 0]
    if n % 2 == 0:
        doubled -= product[:, -1]
    return doubled / n**2
