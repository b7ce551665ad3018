"""How well the channels at one place follow an interneuron together: ridge regression."""

from __future__ import annotations

import numpy as np

# Blocks of a half, of which each is left out once to choose the penalty.
INNER = 4
# Penalties, of the sum of squares of a standardised feature.
ALPHAS = np.logspace(-4, 2, 7)


class BlockSums:
    """Sums of products of features and signals, in consecutive blocks of two halves.

    Parameters
    ----------
    n_features, n_signals : int
        How many of each.
    halves : tuple of slice
        Rows of each half.
    """

    def __init__(self, n_features: int, n_signals: int, halves: tuple[slice, slice]) -> None:
        edges = [np.linspace(half.start, half.stop, INNER + 1).astype(int) for half in halves]
        self._edges = np.concatenate(edges)
        shape = (2 * INNER,)
        self.n = np.zeros(shape)
        self._origin: np.ndarray | None = None
        self.x = np.zeros((*shape, n_features))
        self.y = np.zeros((*shape, n_signals))
        self.xx = np.zeros((*shape, n_features, n_features))
        self.xy = np.zeros((*shape, n_features, n_signals))
        self.yy = np.zeros((*shape, n_signals))

    def add(self, features: np.ndarray, signals: np.ndarray, row: np.ndarray) -> None:
        """Add `features` (row, feature) and `signals` (row, signal) at ascending rows."""
        if self._origin is None and len(features):
            self._origin = features[0].copy()
        interval = np.searchsorted(self._edges, row, side="right") - 1
        for number in np.unique(interval):
            # The edges' own gap, and what is before the first or after the last, are not used.
            block = number if number < INNER else number - 1
            if number < 0 or number == INNER or block >= 2 * INNER:
                continue
            inside = interval == number
            x, y = features[inside] - self._origin, signals[inside]
            self.n[block] += len(x)
            self.x[block] += x.sum(0)
            self.y[block] += y.sum(0)
            self.xx[block] += x.T @ x
            self.xy[block] += x.T @ y
            self.yy[block] += np.einsum("ts,ts->s", y, y)


class Centred:
    """Centred sums over some blocks; several stimuli are centred each on its own and added."""

    def __init__(self, sums: list[BlockSums], blocks: list[int]) -> None:
        totals = []
        for one in sums:
            n = one.n[blocks].sum()
            x, y = one.x[blocks].sum(0), one.y[blocks].sum(0)
            totals.append(
                (
                    n,
                    one.xx[blocks].sum(0) - np.outer(x, x) / n,
                    one.xy[blocks].sum(0) - np.outer(x, y) / n,
                    one.yy[blocks].sum(0) - y**2 / n,
                )
            )
        self.each = totals
        self.n, self.xx, self.xy, self.yy = (
            sum(parts[1:], parts[0]) for parts in zip(*totals, strict=True)
        )

    def weights(self) -> np.ndarray:
        """Ridge coefficients (alpha, feature, signal)."""
        scale = np.sqrt(np.diag(self.xx))
        # A feature that does not change, beside what rounding leaves, gets no weight.
        used = scale > 1e-9 * max(float(scale.max()), np.finfo(float).tiny)
        scale = np.where(used, scale, np.inf)
        strength, directions = np.linalg.eigh(self.xx / np.outer(scale, scale))
        aligned = directions.T @ (self.xy / scale[:, None])
        found = np.stack(
            [directions @ (aligned / (np.maximum(strength, 0) + a)[:, None]) for a in ALPHAS]
        )
        return found / scale[:, None]

    def correlation(self, weights: np.ndarray) -> np.ndarray:
        """Correlation (..., signal) of what `weights` (..., feature, signal) predict.

        The mean over stimuli, weighted by their length; 0 where nothing is predicted.
        """
        total = 0.0
        for n, xx, xy, yy in self.each:
            covariance = (weights * xy).sum(-2)
            variance = (weights * (xx @ weights)).sum(-2)
            size = np.sqrt(np.maximum(variance, 0) * yy)
            # Rounding leaves some variance to features that are constant here.
            with np.errstate(invalid="ignore", divide="ignore"):
                r = np.where(size > 1e-12 * yy, covariance / size, 0.0)
            total = total + n * np.clip(r, -1, 1)
        return np.asarray(total / self.n)


def held_out_r(sums: list[BlockSums], half: int, n_lags: int) -> np.ndarray:
    """Fit on one half, score on the other.

    Parameters
    ----------
    sums : list of BlockSums
        By stimulus; signals are (shift, lag), flat.
    half : int
        That is fitted on. Penalty and lag are those with the largest mean correlation in its
        blocks, each left out once.
    n_lags : int
        Lags.

    Returns
    -------
    ndarray
        (shift,): correlation on the other half.
    """
    own = [half * INNER + i for i in range(INNER)]
    other = [(1 - half) * INNER + i for i in range(INNER)]
    inner = np.mean(
        [
            Centred(sums, [out]).correlation(
                Centred(sums, [block for block in own if block != out]).weights()
            )
            for out in own
        ],
        axis=0,
    )
    # (shift, alpha, lag)
    ranked = np.moveaxis(inner.reshape(len(ALPHAS), -1, n_lags), 1, 0)
    n_shifts = len(ranked)
    alpha, lag = np.divmod(ranked.reshape(n_shifts, -1).argmax(1), n_lags)
    scored = Centred(sums, other).correlation(Centred(sums, own).weights())
    return scored.reshape(len(ALPHAS), n_shifts, n_lags)[alpha, np.arange(n_shifts), lag]
