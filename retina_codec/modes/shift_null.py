"""Partial correlation at several lags, and its null by shifts or permutations.

Everything here is plain arrays: loadings (mode, n), a feature at every lag (lag, n), and an
orthonormal basis of the nuisance (n, p), all over the same n samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from scipy.fft import fft, irfft, rfft
from scipy.stats import genpareto

KEPT_VARIANCE = 0.9999  # of the nuisance, by its leading principal components
SAMPLES_PER_COMPONENT = 10
SHORTEST_CIRCLE = 4  # of the shortest shift: then half of the shifts can be drawn
TAIL = 0.25  # share of the null that the tail is fitted to
HEAVIEST_TAIL = 0.5  # shape of the generalised Pareto distribution
NEGLIGIBLE = 1e-8  # share of variance left after the nuisance that counts as none


def nuisance_basis(columns: np.ndarray, circles: Sequence[slice] = (slice(None),)) -> np.ndarray:
    """Orthonormal basis (n, p) of what is regressed out, the mean of each circle included.

    Lagged copies of smooth signals are nearly the same, so only the principal components that
    hold 99.99 % of their variance are taken, and at most one for every 10 samples.

    Parameters
    ----------
    columns : ndarray
        (n, number of signals and lags), may have no columns.
    circles : sequence of slice
        Stretches of samples that are shifted on their own.
    """
    n = len(columns)
    constant = np.zeros((n, len(circles)))
    for place, circle in enumerate(circles):
        constant[circle, place] = 1
    constant /= np.linalg.norm(constant, axis=0)
    columns = columns - constant @ (constant.T @ columns)
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


def make_circles(
    blocks: np.ndarray, shortest_shift: int, n_draws: int
) -> tuple[np.ndarray, list[slice]]:
    """Order of the samples, and the stretches of it that are shifted each on its own.

    A block of at least four times the shortest shift is one; shorter blocks are laid end to end
    and shifted together. Of each, as few samples at the end are left out as make its length a
    multiple of the step between shifts.

    Parameters
    ----------
    blocks : ndarray
        (n,), number of the contiguous run of each sample.
    shortest_shift : int
        Samples.
    n_draws : int
        Number of draws wanted.
    """
    places = [np.flatnonzero(blocks == number) for number in dict.fromkeys(blocks.tolist())]
    apart = [p for p in places if len(p) >= SHORTEST_CIRCLE * shortest_shift]
    together = [p for p in places if len(p) < SHORTEST_CIRCLE * shortest_shift]
    parts = apart + ([np.concatenate(together)] if together else [])
    parts = [part[: len(part) - len(part) % shift_step(len(part), n_draws)] for part in parts]
    ends = np.cumsum([len(part) for part in parts])
    return np.concatenate(parts), [
        slice(int(end - len(part)), int(end)) for part, end in zip(parts, ends, strict=True)
    ]


def shift_step(n: int, n_draws: int) -> int:
    """Return the samples between shifts: neighbours are nearly the same, and all cost time."""
    return max(1, n // n_draws)


class Null(Protocol):
    """How one side is displaced against the other to see what chance does."""

    def spectra(self, basis: np.ndarray) -> list[np.ndarray]:
        """Return what `taken` needs of the basis (n, p), made once for all features."""

    def taken(
        self, lagged: np.ndarray, basis: np.ndarray, spectra: list[np.ndarray] | None = None
    ) -> np.ndarray:
        """Mean squared projection (lag,) of displaced `lagged` (lag, n) on the basis."""

    def prepared(self, lagged: np.ndarray) -> np.ndarray:
        """`lagged` (lag, n) in the form that `products` takes, made once for all modes."""

    def products(self, loading: np.ndarray, prepared: np.ndarray) -> np.ndarray:
        """Sum of products (lag, draw) of a loading (n,) with the displaced feature."""


class CircularShifts:
    """Shifts within circles; each draw displaces every circle by a shift of its own.

    With one circle, shifts at equal steps are taken, all of them if it has no more samples than
    draws are wanted.

    Parameters
    ----------
    circles : sequence of slice
        As from `make_circles`; together all samples.
    shortest_shift : int
        Samples; in a circle shorter than four times this, a quarter of it.
    n_draws : int
        As for `make_circles`.
    seed : int
        Of the draws, if there are several circles.
    """

    def __init__(
        self, circles: Sequence[slice], shortest_shift: int, n_draws: int, seed: int
    ) -> None:
        self._circles = circles
        rng = np.random.default_rng(seed)
        self._steps, self._shifts = [], []
        for circle in circles:
            n = circle.stop - circle.start
            step = shift_step(n, n_draws)
            shortest = min(shortest_shift, n // SHORTEST_CIRCLE)
            allowed = np.arange(n // step)
            if shortest:
                allowed = allowed[(allowed * step >= shortest) & (allowed * step <= n - shortest)]
            self._steps.append(step)
            self._shifts.append(
                allowed if len(circles) == 1 else allowed[rng.integers(len(allowed), size=n_draws)]
            )

    def spectra(self, basis: np.ndarray) -> list[np.ndarray]:
        """Power (frequency,) of all columns of the basis together, in each circle."""
        return [
            np.square(np.abs(rfft(np.ascontiguousarray(basis[circle].T)))).sum(axis=0)
            for circle in self._circles
        ]

    def taken(
        self, lagged: np.ndarray, basis: np.ndarray, spectra: list[np.ndarray] | None = None
    ) -> np.ndarray:
        """Mean squared projection (lag,) on the basis, over all shifts of all circles.

        Every circle's mean being in the basis, `lagged` has none, and the circles' projections
        are uncorrelated over draws.
        """
        total = np.zeros(len(lagged))
        spectra = self.spectra(basis) if spectra is None else spectra
        for circle, of_basis in zip(self._circles, spectra, strict=True):
            n = circle.stop - circle.start
            product = of_basis * np.square(np.abs(rfft(lagged[:, circle])))
            doubled = 2 * product.sum(axis=1) - product[:, 0]
            total += (doubled - product[:, -1] if n % 2 == 0 else doubled) / n**2
        return total

    def prepared(self, lagged: np.ndarray) -> np.ndarray:
        """Spectra (lag, frequency) of the circles, side by side."""
        return np.concatenate(
            [fft(lagged[:, c].astype(np.float32)).conj() for c in self._circles], axis=1
        )

    def products(self, loading: np.ndarray, prepared: np.ndarray) -> np.ndarray:
        """Sum of products (lag, draw).

        Only every step-th shift is wanted: the spectrum of those is the sum of the stretches that
        the whole spectrum folds into.
        """
        total: np.ndarray | float = 0.0
        for circle, step, shifts in zip(self._circles, self._steps, self._shifts, strict=True):
            spectrum = fft(loading[circle].astype(np.float32)) * prepared[:, circle]
            folded = spectrum.reshape(len(prepared), step, -1).sum(axis=1) / step
            # What is correlated is real: half of the spectrum says it all.
            half = folded.shape[1] // 2 + 1
            at_steps = irfft(folded[:, :half], folded.shape[1])
            one = len(self._circles) == 1
            total = total + (
                at_steps[:, shifts[0] : shifts[-1] + 1] if one else at_steps[:, shifts]
            )
        return np.asarray(total)


class Permutations:
    """Samples (epochs) in random order.

    Parameters
    ----------
    n : int
        Number of samples.
    n_draws : int
        Number of orders.
    seed : int
        Of the orders.
    """

    def __init__(self, n: int, n_draws: int, seed: int) -> None:
        self._order = np.argsort(np.random.default_rng(seed).random((n_draws, n)), axis=1)

    def spectra(self, basis: np.ndarray) -> list[np.ndarray]:
        """Return nothing: none is needed."""
        return []

    def taken(
        self, lagged: np.ndarray, basis: np.ndarray, spectra: list[np.ndarray] | None = None
    ) -> np.ndarray:
        """Mean squared projection (lag,) on the basis; the constant takes nothing."""
        n, p = basis.shape
        return np.square(lagged).sum(axis=1) * (p - 1) / (n - 1)

    def prepared(self, lagged: np.ndarray) -> np.ndarray:
        """`lagged` as it is."""
        return lagged

    def products(self, loading: np.ndarray, prepared: np.ndarray) -> np.ndarray:
        """Sum of products (lag, draw)."""
        return prepared @ loading[self._order].T


class LaggedFeature:
    """Residuals of a feature at several lags, for correlation with residuals of loadings.

    A displaced residual is no longer orthogonal to the nuisance: the share of its power that the
    nuisance takes up, on average over draws, is left out of its norm, so that the null has the
    degrees of freedom of a partial correlation.

    Parameters
    ----------
    lagged : ndarray
        (lag, n), not yet residuals.
    basis : ndarray
        (n, p), orthonormal.
    null : Null
        Made for these n samples.
    spectra : list of ndarray, optional
        ``null.spectra(basis)``, where several features share it.
    """

    def __init__(
        self,
        lagged: np.ndarray,
        basis: np.ndarray,
        null: Null,
        spectra: list[np.ndarray] | None = None,
    ) -> None:
        left = residuals(lagged, basis)
        power = np.square(left).sum(axis=1)
        self.scale = np.sqrt(power)
        with np.errstate(invalid="ignore", divide="ignore"):
            self.unit = left / self.scale[:, None]
            free = np.sqrt(1 - null.taken(left, basis, spectra) / power)
            self._prepared = null.prepared(self.unit / free[:, None])
        self._null = null

    def observed(self, unit: np.ndarray) -> np.ndarray:
        """Correlation (lag,) with a loading's residual of unit norm; NaN where nothing is left."""
        return self.unit @ unit

    def drawn(self, unit: np.ndarray) -> np.ndarray:
        """Correlations (lag, draw) by chance."""
        return self._null.products(unit, self._prepared)


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
