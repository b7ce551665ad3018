"""How well modes reconstruct contributions, and with how few of them at a time."""

from __future__ import annotations

import numpy as np


def r2_by_column(matrix: np.ndarray, reconstruction: np.ndarray) -> np.ndarray:
    """Coefficient of determination of each column about its own mean; NaN where it is constant.

    Parameters
    ----------
    matrix, reconstruction : ndarray
        (sample, column).

    Returns
    -------
    ndarray
        (column,).
    """
    wanted = matrix.astype(np.float64)
    error = np.square(wanted - reconstruction).sum(axis=0)
    spread = np.square(wanted - wanted.mean(axis=0)).sum(axis=0)
    still = matrix.min(axis=0) == matrix.max(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(still, np.nan, 1 - error / spread)


def energy_shares(loadings: np.ndarray, dictionary: np.ndarray) -> np.ndarray:
    """Share of each mode in the energy of the reconstruction ``loadings @ dictionary``.

    ``sum_n (z_nm d_m) . x_n / sum_n x_n . x_n`` with x the reconstruction: shares add up to 1.

    Parameters
    ----------
    loadings : ndarray
        (sample, mode).
    dictionary : ndarray
        (mode, column).

    Returns
    -------
    ndarray
        (mode,).
    """
    together = (loadings.T @ loadings).astype(np.float64) * (dictionary @ dictionary.T)
    total = together.sum()
    return together.sum(axis=1) / (total if total > 0 else 1.0)
