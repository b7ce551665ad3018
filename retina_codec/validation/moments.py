"""Means of products over time, gathered stretch by stretch: nothing is held for all of it."""

from __future__ import annotations

import numpy as np


class Covariance:
    """Covariances between all columns, for several cells at once.

    Parameters
    ----------
    shape : tuple of int
        (cell, column).
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.n = 0
        self._origin = np.zeros(shape)
        self._sum = np.zeros(shape)
        self._product = np.zeros((*shape, shape[1]))

    def add(self, columns: np.ndarray) -> None:
        """Add a stretch of time (time, cell, column)."""
        values = columns.astype(np.float64).transpose(1, 2, 0)
        if self.n == 0:
            # Sums are taken about the first mean: precise however far columns are from 0.
            self._origin = values.mean(2)
        values -= self._origin[..., None]
        self.n += values.shape[2]
        self._sum += values.sum(2)
        self._product += values @ values.transpose(0, 2, 1)

    def mean(self) -> np.ndarray:
        """Return the means (cell, column)."""
        found: np.ndarray = self._origin + self._sum / self.n
        return found

    def matrix(self) -> np.ndarray:
        """Return the covariances (cell, column, column)."""
        mean = self._sum / self.n
        found: np.ndarray = self._product / self.n - mean[:, :, None] * mean[:, None, :]
        return found


def pooled(halves: tuple[Covariance, Covariance]) -> np.ndarray:
    """Covariances (cell, column, column) over both halves, about their common mean."""
    n = halves[0].n + halves[1].n
    a, b = halves[0].n / n, halves[1].n / n
    apart = halves[0].mean() - halves[1].mean()
    between: np.ndarray = a * b * apart[:, :, None] * apart[:, None, :]
    return a * halves[0].matrix() + b * halves[1].matrix() + between


class CrossCovariance:
    """Variances of many units, and their covariances with a few columns.

    Parameters
    ----------
    n_units, n_columns : int
        How many of each; memory grows with their product.
    """

    def __init__(self, n_units: int, n_columns: int) -> None:
        self.n = 0
        self._origins = np.zeros(n_units), np.zeros(n_columns)
        self._units = np.zeros(n_units)
        self._squares = np.zeros(n_units)
        self._columns = np.zeros(n_columns)
        self._products = np.zeros((n_units, n_columns))

    def add(self, units: np.ndarray, columns: np.ndarray) -> None:
        """Add a stretch of time: `units` (time, unit) and `columns` (time, column)."""
        units, columns = units.astype(np.float64), columns.astype(np.float64)
        if self.n == 0:
            self._origins = units.mean(0), columns.mean(0)
        units -= self._origins[0]
        columns -= self._origins[1]
        self.n += len(units)
        self._units += units.sum(0)
        self._squares += np.einsum("tu,tu->u", units, units)
        self._columns += columns.sum(0)
        self._products += units.T @ columns

    def variance(self) -> np.ndarray:
        """Return the variances of the units (unit,)."""
        found: np.ndarray = self._squares / self.n - (self._units / self.n) ** 2
        return found

    def level(self) -> np.ndarray:
        """Return the squared means of the units (unit,), against which variances are judged."""
        found: np.ndarray = (self._origins[0] + self._units / self.n) ** 2
        return found

    def matrix(self) -> np.ndarray:
        """Return the covariances (unit, column)."""
        means = np.outer(self._units / self.n, self._columns / self.n)
        found: np.ndarray = self._products / self.n - means
        return found
