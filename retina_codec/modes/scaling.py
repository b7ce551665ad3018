"""Column scaling: contributions to the units that autoencoders are fitted in, and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ColumnScaling:
    """Division by each column's root mean square, then the signed square root.

    ``y = sign(c) * sqrt(|c| / rms)``. Contributions have heavy tails; the square root keeps a
    few large events from ruling the fit. Columns that never change carry nothing: they become 0
    and come back as their constant.

    Parameters
    ----------
    rms : ndarray
        (column,), in the contribution's units; 1 where the column is constant.
    constant : ndarray
        (column,), the value of constant columns, NaN elsewhere.
    """

    rms: np.ndarray
    constant: np.ndarray

    @classmethod
    def fit(cls, matrix: np.ndarray) -> ColumnScaling:
        """Scaling of the columns of `matrix` (sample, column)."""
        still = matrix.min(axis=0) == matrix.max(axis=0)
        rms = np.sqrt(np.mean(np.square(matrix, dtype=np.float64), axis=0))
        return cls(
            np.where(still, 1.0, rms).astype(np.float32),
            np.where(still, matrix[0], np.nan).astype(np.float32),
        )

    @property
    def still(self) -> np.ndarray:
        """Which columns are constant."""
        return ~np.isnan(self.constant)

    def forward(self, matrix: np.ndarray) -> np.ndarray:
        """Contributions (sample, column) to scaled units."""
        scaled = matrix / self.rms
        scaled = np.sign(scaled) * np.sqrt(np.abs(scaled))
        scaled[:, self.still] = 0
        return scaled

    def inverse(self, scaled: np.ndarray) -> np.ndarray:
        """Scaled units (sample, column) to contributions."""
        matrix = scaled * np.abs(scaled) * self.rms
        return np.where(self.still, self.constant, matrix)
