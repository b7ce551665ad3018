"""How well modes reconstruct contributions, and with how few of them at a time."""

from __future__ import annotations

import numpy as np


class ColumnR2:
    """Coefficient of determination of each column about its own mean, block by block."""

    def __init__(self, n_columns: int) -> None:
        self._n = 0
        self._error, self._sum, self._squares = np.zeros((3, n_columns))
        self._least, self._most = np.full(n_columns, np.inf), np.full(n_columns, -np.inf)
        self._about: np.ndarray | None = None

    def add(self, matrix: np.ndarray, reconstruction: np.ndarray) -> None:
        """Take in rows (sample, column) and what was made of them."""
        if not len(matrix):
            return
        wanted = matrix.astype(np.float64)
        if self._about is None:
            self._about = wanted.mean(axis=0)  # sums about nearly the mean lose no digits
        self._n += len(matrix)
        self._error += np.square(wanted - reconstruction).sum(axis=0)
        self._sum += (wanted - self._about).sum(axis=0)
        self._squares += np.square(wanted - self._about).sum(axis=0)
        self._least = np.minimum(self._least, matrix.min(axis=0))
        self._most = np.maximum(self._most, matrix.max(axis=0))

    def result(self) -> np.ndarray:
        """R2 (column,), NaN where a column is constant."""
        spread = self._squares - np.square(self._sum) / max(self._n, 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self._least < self._most, 1 - self._error / spread, np.nan)


def energy_shares(products: np.ndarray, dictionary: np.ndarray) -> np.ndarray:
    """Share of each mode in the energy of the reconstruction ``loadings @ dictionary``.

    ``sum_n (z_nm d_m) . x_n / sum_n x_n . x_n`` with x the reconstruction: shares add up to 1.

    Parameters
    ----------
    products : ndarray
        (mode, mode), ``loadings.T @ loadings``.
    dictionary : ndarray
        (mode, column).

    Returns
    -------
    ndarray
        (mode,).
    """
    together = products * (dictionary @ dictionary.T)
    total = together.sum()
    return together.sum(axis=1) / (total if total > 0 else 1.0)
