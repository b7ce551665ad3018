"""Rates removed, best matches and CKA, all of them from covariances.

A regression on half A is applied to half B by its covariances alone: with coefficients ``b`` the
remainders ``u - b_u r`` and ``t - b_t r`` have the covariance ``C(u, t) - b_u C(r, t) - C(u, r) b_t
+ b_u C(r, r) b_t`` on B; the intercept drops out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# A remainder below this share of the variance is rounding: nothing was left.
NEGLIGIBLE = 1e-9
# Regressors that agree so far are one.
COLLINEAR = 1e-6


def coefficients(of_rates: np.ndarray, with_rates: np.ndarray) -> np.ndarray:
    """Regress on rates, given their covariances (rate, rate), and those with columns (rate, n)."""
    sd = np.sqrt(np.maximum(np.diag(of_rates), 0.0))
    scale = np.where(sd > 0, sd, 1.0)
    correlation = of_rates / np.outer(scale, scale)
    scaled = np.linalg.pinv(correlation, rcond=COLLINEAR, hermitian=True)
    found: np.ndarray = scaled @ (with_rates / scale[:, None]) / scale[:, None]
    return found


def without_rates(fitted: np.ndarray, applied: np.ndarray, rates: list[int]) -> np.ndarray:
    """Covariances (column, column) of what is left without the columns `rates`.

    The coefficients are those of the covariances `fitted`; what they leave is looked at in those
    of `applied`.
    """
    if not rates:
        return applied
    b = coefficients(fitted[np.ix_(rates, rates)], fitted[rates])
    cross = b.T @ applied[rates]
    left: np.ndarray = applied - cross - cross.T + b.T @ applied[np.ix_(rates, rates)] @ b
    return left


def correlations(
    covariance: np.ndarray, variances: tuple[np.ndarray, np.ndarray], whole: tuple[np.ndarray, ...]
) -> np.ndarray:
    """Correlations (unit, column) from covariances; NaN where nothing but rounding varies.

    `variances` are those of units and of columns, `whole` the same before anything was removed.
    """
    known = [
        np.where((left > NEGLIGIBLE * before) & (before > 0), left, np.nan)
        for left, before in zip(variances, whole, strict=True)
    ]
    found: np.ndarray = covariance / np.sqrt(np.outer(*known))
    return found


@dataclass(frozen=True)
class Matches:
    """The best unit of each column: `r` on half B, `place` of the unit, `polarity` 1 or -1."""

    r: np.ndarray
    place: np.ndarray
    polarity: np.ndarray


def best_matches(first: np.ndarray, second: np.ndarray, *, either_sign: bool = False) -> Matches:
    """Choose on half A, score on half B: correlations (unit, column) of each.

    With `either_sign` the unit with the largest magnitude is chosen and its r on B counted as
    positive if it has the sign that it had on A. Columns without any match: NaN, place -1.
    """
    there = np.isfinite(first) & np.isfinite(second)
    ranked = np.where(there, np.abs(first) if either_sign else first, -np.inf)
    place = ranked.argmax(0)
    columns = np.arange(first.shape[1])
    found = there[place, columns]
    polarity = np.where(found & either_sign & (first[place, columns] < 0), -1, 1)
    r = np.where(found, polarity * second[place, columns], np.nan)
    return Matches(r, np.where(found, place, -1), polarity)


def linear_cka(covariance: np.ndarray, left: np.ndarray, right: np.ndarray) -> float:
    """Linear CKA of two sets of columns, given by maps (column, n) onto them; NaN if one is 0.

    Kornblith et al., ICML 2019, eq. (3) with linear kernels, as by section 3 from the covariances:
    ``|X'Y|^2 / (|X'X| |Y'Y|)`` for centred X and Y (time, feature), Frobenius norms.
    """

    def norm(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.linalg.norm(a.T @ covariance @ b))

    scale = norm(left, left) * norm(right, right)
    return norm(left, right) ** 2 / scale if scale > 0 else float("nan")
