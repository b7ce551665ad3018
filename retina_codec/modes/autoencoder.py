"""What all autoencoders of this room share: encode, decode, dictionary."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Self

import numpy as np


@dataclass(frozen=True, eq=False)
class Autoencoder(ABC):
    """A fitted autoencoder of a matrix (sample, column); its fields are arrays only.

    Parameters
    ----------
    dictionary : ndarray
        (mode, column).
    offset : ndarray
        (column,), what is decoded when all modes are silent.
    """

    not_by_mode: ClassVar[tuple[str, ...]] = ("offset",)

    dictionary: np.ndarray
    offset: np.ndarray

    @abstractmethod
    def encode(self, matrix: np.ndarray) -> np.ndarray:
        """Return loadings (sample, mode) of `matrix` (sample, column), each row on its own."""

    def decode(self, loadings: np.ndarray) -> np.ndarray:
        """Reconstruction (sample, column): loadings times dictionary, plus the offset."""
        return loadings @ self.dictionary + self.offset

    def ordered(self, order: np.ndarray) -> Self:
        """Return the same autoencoder with its modes in another order."""
        arrays = self.arrays()
        return replace(
            self, **{key: a[order] for key, a in arrays.items() if key not in self.not_by_mode}
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """All that defines it, by field name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}
