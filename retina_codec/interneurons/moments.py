"""Correlations of many units with many signals, in one pass over time."""

from __future__ import annotations

import numpy as np

# A unit whose sd is below this share of its size varies by no more than single precision resolves.
RESOLUTION = 1e-6


class Moments:
    """Sums over time of units, of signals, of their squares and of their products.

    Parameters
    ----------
    n_units, n_signals : int
        How many of each; memory grows with their product.
    """

    def __init__(self, n_units: int, n_signals: int) -> None:
        self.n = 0
        # Sums are taken about the first value of each unit: precise however far it is from 0.
        self._origin = np.zeros(n_units)
        self._units = np.zeros(n_units)
        self._units_squared = np.zeros(n_units)
        self._signals = np.zeros(n_signals)
        self._signals_squared = np.zeros(n_signals)
        self._products = np.zeros((n_units, n_signals))

    def add(self, units: np.ndarray, signals: np.ndarray) -> None:
        """Add a stretch of time: `units` (time, unit), `signals` (time, signal), near mean 0."""
        if len(units) == 0:
            return
        if self.n == 0:
            self._origin = units[0].copy()
        units = units - self._origin
        self.n += len(units)
        self._units += units.sum(0)
        self._units_squared += np.einsum("tu,tu->u", units, units)
        self._signals += signals.sum(0)
        self._signals_squared += np.einsum("ts,ts->s", signals, signals)
        self._products += units.T @ signals

    def correlation(self) -> np.ndarray:
        """Pearson correlation (unit, signal) in single precision; NaN where one is constant."""
        mean = self._units / self.n
        unit_variance = self._units_squared / self.n - mean**2
        floor = (RESOLUTION * (np.abs(self._origin) + np.abs(mean))) ** 2
        unit_variance = np.where(unit_variance > floor, unit_variance, np.nan)
        signal_mean = self._signals / self.n
        signal_variance = self._signals_squared / self.n - signal_mean**2
        found = np.empty(self._products.shape, dtype=np.float32)
        # Some units at a time: the products are the largest array there is.
        for part in np.array_split(np.arange(len(mean)), max(1, len(mean) // 64)):
            covariance = self._products[part] / self.n - mean[part, None] * signal_mean
            covariance /= np.sqrt(unit_variance[part])[:, None] * np.sqrt(signal_variance)
            found[part] = covariance
        return found
