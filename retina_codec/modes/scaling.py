"""Column scaling: contributions to the units that autoencoders are fitted in, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from retina_codec.modes.rows import Survey

SCALINGS = ("signed_sqrt", "rms", "std", "none")


@dataclass(frozen=True)
class ColumnScaling:
    """Division by a scale and, by kind, the signed square root.

    - ``"signed_sqrt"``: ``y = sign(c) * sqrt(|c| / rms)`` with each column's root mean square.
      Contributions have heavy tails; the square root keeps a few large events from ruling the fit.
    - ``"rms"``: ``y = c / rms``.
    - ``"std"``: ``y = c / s`` with one standard deviation of all values (the paper's).
    - ``"none"``: ``y = c``.

    Columns that never change carry nothing: they become 0 and come back as their constant.

    Parameters
    ----------
    kind : str
        One of those.
    scale : ndarray
        (column,), in the contribution's units; 1 where the column is constant.
    constant : ndarray
        (column,), the value of constant columns, NaN elsewhere.
    """

    kind: str
    scale: np.ndarray
    constant: np.ndarray

    @classmethod
    def fit(cls, survey: Survey, kind: str) -> ColumnScaling:
        """Scaling of the columns that were surveyed."""
        if kind == "std":
            mean = survey.mean.mean()
            scale = np.full_like(survey.squares, np.sqrt(survey.squares.mean() - mean**2))
        elif kind == "none":
            scale = np.ones_like(survey.squares)
        else:
            scale = np.sqrt(survey.squares)
        return cls(
            kind,
            np.where(survey.still, 1.0, scale).astype(np.float32),
            np.where(survey.still, survey.first, np.nan).astype(np.float32),
        )

    @property
    def still(self) -> np.ndarray:
        """Which columns are constant."""
        return ~np.isnan(self.constant)

    def forward(self, matrix: np.ndarray) -> np.ndarray:
        """Contributions (sample, column) to scaled units."""
        scaled = matrix / self.scale
        if self.kind == "signed_sqrt":
            scaled = np.sign(scaled) * np.sqrt(np.abs(scaled))
        scaled[:, self.still] = 0
        return scaled

    def inverse(self, scaled: np.ndarray) -> np.ndarray:
        """Scaled units (sample, column) to contributions."""
        if self.kind == "signed_sqrt":
            scaled = scaled * np.abs(scaled)
        return np.where(self.still, self.constant, scaled * self.scale)
