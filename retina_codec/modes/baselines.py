"""Principal components and non-negative factors behind the interface of the autoencoders."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from sklearn.decomposition import NMF, PCA, non_negative_factorization
from sklearn.exceptions import ConvergenceWarning

from retina_codec.modes.autoencoder import Autoencoder

NMF_ROWS = 20_000  # factors are fitted to at most so many samples, evenly spaced
NMF_TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False)
class Pca(Autoencoder):
    """Principal components (scikit-learn); the offset is the mean, loadings have both signs."""

    def encode(self, matrix: np.ndarray) -> np.ndarray:
        """Return loadings (sample, mode): projections on the components."""
        return (matrix - self.offset) @ self.dictionary.T


def fit_pca(training: np.ndarray, *, n_modes: int, seed: int) -> Pca:
    """Principal components of the rows of `training` (sample, column)."""
    fitted = PCA(n_modes, random_state=seed).fit(training)
    return Pca(
        fitted.components_.astype(np.float32, copy=False),
        fitted.mean_.astype(np.float32, copy=False),
    )


def fit_pca_to_blocks(blocks: Iterable[np.ndarray], *, n_modes: int) -> Pca:
    """Principal components of rows that are not held together, from their covariance."""
    n, total, products = 0, np.zeros(()), np.zeros(())
    for block in blocks:
        rows = block.astype(np.float64)
        n += len(rows)
        total = total + rows.sum(axis=0)
        products = products + rows.T @ rows
    mean = total / n
    _, vectors = np.linalg.eigh(products / n - np.outer(mean, mean))
    return Pca(
        np.ascontiguousarray(vectors.T[::-1][:n_modes], dtype=np.float32),
        mean.astype(np.float32),
    )


@dataclass(frozen=True, eq=False)
class Nmf(Autoencoder):
    """Non-negative factors (scikit-learn) of the columns split by sign.

    Parameters
    ----------
    factors : ndarray
        (mode, 2 * column), for the positive and the negative parts; their difference is the
        dictionary.
    """

    not_by_mode: ClassVar[tuple[str, ...]] = ("offset",)

    factors: np.ndarray

    def encode(self, matrix: np.ndarray) -> np.ndarray:
        """Return loadings (sample, mode), not negative."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            loadings, _, _ = non_negative_factorization(
                _split(matrix),
                H=self.factors,
                update_H=False,
                n_components=len(self.factors),
                tol=NMF_TOLERANCE,
            )
        return loadings


def fit_nmf(training: np.ndarray, *, n_modes: int, seed: int) -> Nmf:
    """Non-negative factors of the rows of `training` (sample, column)."""
    model = NMF(n_modes, random_state=seed, tol=NMF_TOLERANCE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        factors = model.fit(_split(training)).components_
    norms = np.linalg.norm(factors, axis=1, keepdims=True)
    factors = (factors / np.where(norms > 0, norms, 1)).astype(np.float32)
    positive, negative = np.split(factors, 2, axis=1)
    return Nmf(positive - negative, np.zeros(training.shape[1], dtype=np.float32), factors)


def _split(matrix: np.ndarray) -> np.ndarray:
    return np.concatenate([np.maximum(matrix, 0), np.maximum(-matrix, 0)], axis=1)
