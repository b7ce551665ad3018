"""The best unit of each interneuron: chosen on some stretches of a recording, scored on others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# A stretch: number of the stimulus, and of its half.
Stretch = tuple[int, int]


@dataclass(frozen=True)
class Fold:
    """Where a unit is chosen and where it is scored, each stretch with its weight.

    `half` is the half of all stimuli on which it is chosen; -1 if it is not one.
    """

    choose: Mapping[Stretch, float]
    score: Mapping[Stretch, float]
    half: int = -1


def folds_of(lengths: Sequence[int]) -> dict[str | int | tuple[str, int], list[Fold]]:
    """Folds by what they answer: all stimuli together, each by its number, and from it to others.

    Parameters
    ----------
    lengths : sequence of int
        Rows of each stimulus: the weights of its correlations.
    """
    stimuli = range(len(lengths))

    def across(wanted: Sequence[int], half: int) -> dict[Stretch, float]:
        return {(k, half): float(lengths[k]) for k in wanted}

    def both_ways(wanted: Sequence[int], *, shared: bool) -> list[Fold]:
        return [
            Fold(across(wanted, half), across(wanted, 1 - half), half if shared else -1)
            for half in (0, 1)
        ]

    folds: dict[str | int | tuple[str, int], list[Fold]] = {
        "together": both_ways(stimuli, shared=True)
    }
    if len(lengths) > 1:
        for k in stimuli:
            folds[k] = both_ways([k], shared=False)
            others = [other for other in stimuli if other != k]
            folds["others", k] = [
                Fold(
                    {**across([k], 0), **across([k], 1)},
                    {**across(others, 0), **across(others, 1)},
                )
            ]
    return folds


def pooled(found: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """Weighted mean of correlations; a unit that is constant in a stretch counts 0 there.

    NaN where it is constant in all.
    """
    if len(found) == 1:
        return found[0]
    total = np.zeros_like(found[0])
    known = np.zeros(found[0].shape, dtype=bool)
    for r, weight in zip(found, weights, strict=True):
        finite = np.isfinite(r)
        total += np.where(finite, r, 0) * np.float32(weight / sum(weights))
        known |= finite
    return np.where(known, total, np.nan)


class RunningBest:
    """The unit with the largest correlation so far, by shift and interneuron, and its score.

    Parameters
    ----------
    n_shifts, n_signals : int
        The unshifted recording included.
    """

    def __init__(self, n_shifts: int, n_signals: int) -> None:
        self.chosen_r = np.full((n_shifts, n_signals), -np.inf)
        self.score = np.full((n_shifts, n_signals), np.nan)
        # Numbers of the unit and of the lag; -1: none so far.
        self.unit = np.full((n_shifts, n_signals), -1)
        self.lag = np.full((n_shifts, n_signals), -1)

    def offer(
        self,
        chosen: np.ndarray,
        scored: np.ndarray,
        numbers: np.ndarray,
        shift: int | slice,
        signal: int | slice,
    ) -> None:
        """Offer the units with `numbers`; correlations (unit, lag, shift or signal)."""
        if len(numbers) == 0:
            return
        n_lags = chosen.shape[1]
        flat = (len(numbers) * n_lags, -1)
        chosen, scored = chosen.reshape(flat), scored.reshape(flat)
        ranked = np.where(np.isfinite(chosen) & np.isfinite(scored), chosen, -np.inf)
        place = ranked.argmax(0)
        columns = np.arange(len(place))
        found, score = ranked[place, columns], scored[place, columns]
        better = found > self.chosen_r[shift, signal]
        for held, value in (
            (self.chosen_r, found),
            (self.score, score),
            (self.unit, numbers[place // n_lags]),
            (self.lag, place % n_lags),
        ):
            held[shift, signal] = np.where(better, value, held[shift, signal])


@dataclass(frozen=True)
class Scored:
    """Score (interneuron), its null (shift, interneuron), and the units chosen in each fold."""

    r: np.ndarray
    null: np.ndarray
    unit: np.ndarray

    @property
    def p_value(self) -> np.ndarray:
        """Share of shifted recordings that score as high, the recording itself counted in."""
        p = (1 + (self.null >= self.r).sum(0)) / (1 + len(self.null))
        return np.where(np.isfinite(self.r), p, np.nan)


def scored(best: Sequence[RunningBest]) -> Scored:
    """Mean over folds."""
    score = np.mean([fold.score for fold in best], axis=0)
    return Scored(score[0], score[1:], np.stack([fold.unit[0] for fold in best]))
