"""Run a model over the stimuli, and find the units that follow each interneuron."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from retina_codec._common.progress import progress_counter
from retina_codec.interneurons.choosing import (
    Fold,
    RunningBest,
    Scored,
    Stretch,
    folds_of,
    pooled,
    scored,
)
from retina_codec.interneurons.combination import BlockSums, held_out_r
from retina_codec.interneurons.moments import Moments
from retina_codec.interneurons.parts import Pair, Part, gap_of, parts_of
from retina_codec.interneurons.places import given_centres, half_centres
from retina_codec.interneurons.units import Units
from retina_codec.models.model import Model, frozen


@dataclass(frozen=True)
class Settings:
    """How to search; `lags` in bins, `source` of centres settled."""

    lags: np.ndarray
    n_shifts: int
    seed: int
    source: str
    batch_size: int
    memory_budget: float
    progress: bool


@dataclass(frozen=True)
class Found:
    """What a search found.

    `whole` are correlations (unit, lag, interneuron) over the whole of each stimulus, `best`
    the scores by what folds answer, `centres` (interneuron, 2) those of receptive fields.
    """

    parts: list[Part]
    units: Units
    whole: list[np.ndarray]
    best: dict[Any, Scored]
    matched: Scored
    combined: Scored
    centres: np.ndarray


def search(
    model: Model,
    pairs: Sequence[Pair],
    names: Sequence[str],
    settings: Settings,
) -> Found:
    """Compare one model's layers with the interneurons of all stimuli."""
    parts = parts_of(model, list(pairs), settings.lags, settings.n_shifts, settings.seed)
    with frozen(model.network):
        units = Units(model, names, parts[0].samples)
        size = _chunk(parts, settings)
        n_chunks = -(-len(units) // size)
        n_batches = sum(-(-len(part.samples) // settings.batch_size) for part in parts)
        steps = n_batches * (n_chunks + (settings.source == "sta"))
        with progress_counter(steps, "compare_interneurons", shown=settings.progress) as bar:
            halves, whole = _centres(model, pairs, parts, settings, bar.update)
            chunked = _Search(units, parts, halves, settings)
            for start in range(0, len(units), size):
                chunked.run(slice(start, min(start + size, len(units))), bar.update)
    return chunked.found(whole)


def _chunk(parts: Sequence[Part], settings: Settings) -> int:
    """Units whose sums, and correlations in every stretch, are held at a time."""
    columns = int(np.prod(parts[0].signals.shape))
    per_unit = columns * (2 * 8 + 2 * 4 * len(parts))
    return max(1, int(settings.memory_budget // per_unit))


def _centres(
    model: Model,
    pairs: Sequence[Pair],
    parts: Sequence[Part],
    settings: Settings,
    seen: Callable[[], Any],
) -> tuple[np.ndarray, np.ndarray]:
    """Centres by half (half, interneuron, 2), and of the whole (interneuron, 2)."""
    if settings.source == "coordinates":
        centres = given_centres(pairs[0])
        return np.stack([centres, centres]), centres
    if settings.source == "sta":
        zero = int(np.flatnonzero(settings.lags == 0)[0])
        history = int(getattr(model, "history", 1))
        return half_centres(parts, zero, history, settings.batch_size, seen)
    nowhere = np.full((2, parts[0].signals.shape[2], 2), np.nan)
    return nowhere, nowhere[0]


class _Search:
    """What is known after some of the units."""

    def __init__(
        self, units: Units, parts: list[Part], halves: np.ndarray, settings: Settings
    ) -> None:
        self._units, self._parts, self._settings = units, parts, settings
        self._folds = folds_of([part.n for part in parts])
        n_shifts, self._n_lags, self._n_signals = parts[0].signals.shape
        self._shape = (n_shifts, self._n_signals)
        self._best = {
            key: [RunningBest(*self._shape) for _ in folds] for key, folds in self._folds.items()
        }
        self._matched_best = [RunningBest(*self._shape) for _ in self._folds["together"]]
        self._matched = [[units.nearest(y, x) for y, x in centres] for centres in halves]
        whole_shape = (len(units), self._n_lags, self._n_signals)
        self._whole = [np.empty(whole_shape, dtype=np.float32) for _ in parts]
        # Both halves know the same place where it was given: one regression's sums serve both.
        wanted = {
            (signal, *numbers): numbers
            for by_signal in self._matched
            for signal, numbers in enumerate(by_signal)
            if len(numbers)
        }
        self._features = np.unique(np.concatenate([*wanted.values(), np.empty(0, dtype=int)]))
        self._columns = {key: np.searchsorted(self._features, n) for key, n in wanted.items()}
        n_columns = n_shifts * self._n_lags
        self._sums = [
            {key: BlockSums(len(n), n_columns, part.halves) for key, n in wanted.items()}
            for part in parts
        ]

    def run(self, chunk: slice, seen: Callable[[], Any]) -> None:
        """Go through all movies for the units with these numbers."""
        r: dict[Stretch, np.ndarray] = {}
        for number, part in enumerate(self._parts):
            whole, *halves = self._correlations(chunk, number, part, seen)
            self._whole[number][chunk] = whole
            for half, correlation in enumerate(halves):
                r[number, half] = correlation
        numbers = np.arange(chunk.start, chunk.stop)
        for key, folds in self._folds.items():
            for fold, best in zip(folds, self._best[key], strict=True):
                for shift in range(self._shape[0]):
                    best.offer(*_by_fold(fold, r, np.s_[:, shift]), numbers, shift, slice(None))
        for fold, best in zip(self._folds["together"], self._matched_best, strict=True):
            for signal, wanted in enumerate(self._matched[fold.half]):
                inside = wanted[(wanted >= chunk.start) & (wanted < chunk.stop)]
                at = np.s_[inside - chunk.start, :, :, signal]
                chosen, score = (np.moveaxis(c, 1, 2) for c in _by_fold(fold, r, at))
                best.offer(chosen, score, inside, slice(None), signal)

    def _correlations(
        self, chunk: slice, number: int, part: Part, seen: Callable[[], Any]
    ) -> list[np.ndarray]:
        """Over the whole, unshifted, and (unit, shift, lag, interneuron) in each half."""
        n = chunk.stop - chunk.start
        unshifted, columns = self._n_lags * self._n_signals, int(np.prod(part.signals.shape))
        whole, halves = Moments(n, unshifted), [Moments(n, columns) for _ in range(2)]
        first = chunk.start == 0
        for batch, used, row in part.batches(self._settings.batch_size):
            outputs = self._units.run(batch.inputs, len(used))
            activation = self._units.take(outputs, chunk)[used]
            signals = part.signals.at(row)
            flat = signals.reshape(len(row), columns)
            whole.add(activation, flat[:, :unshifted])
            half = part.half_of(row)
            for moments, inside in zip(halves, (half == 0, half == 1), strict=True):
                moments.add(activation[inside], flat[inside])
            if first and len(self._features):
                features = self._units.take(outputs, self._features)[used]
                for key, sums in self._sums[number].items():
                    of_one = signals[..., key[0]].reshape(len(row), -1)
                    sums.add(features[:, self._columns[key]], of_one, row)
            seen()
        shapes = ((n, self._n_lags, self._n_signals), *[(n, *part.signals.shape)] * 2)
        return [
            moments.correlation().reshape(shape)
            for moments, shape in zip((whole, *halves), shapes, strict=True)
        ]

    def found(self, centres: np.ndarray) -> Found:
        """Put the folds together.

        Raises
        ------
        ValueError
            If no unit changes in both halves.
        """
        best = {key: scored(folds) for key, folds in self._best.items()}
        if np.isnan(best["together"].r).any():
            raise ValueError(
                f"layers {', '.join(self._units.names)}: no unit changes in both halves of the "
                "recording; choose other layers, or a stimulus that drives them"
            )
        return Found(
            self._parts,
            self._units,
            self._whole,
            best,
            scored(self._matched_best),
            self._combined(),
            centres,
        )

    def _combined(self) -> Scored:
        """Ridge regression on the units of all channels at each interneuron's place."""
        r = np.full((2, *self._shape), np.nan)
        for half, signal in product(range(2), range(self._n_signals)):
            numbers = self._matched[half][signal]
            if len(numbers):
                sums = [by_key[signal, *numbers] for by_key in self._sums]
                r[half, :, signal] = held_out_r(sums, half, self._n_lags)
        mean = r.mean(0)
        return Scored(mean[0], mean[1:], np.empty(0))


def _by_fold(fold: Fold, r: dict[Stretch, np.ndarray], at: Any) -> tuple[np.ndarray, np.ndarray]:
    """Correlations to choose by and to score by, of a part of the units, shifts and signals."""
    chosen, score = (
        pooled([r[stretch][at] for stretch in stretches], list(stretches.values()))
        for stretches in (fold.choose, fold.score)
    )
    return chosen, score


def together(found: Found) -> np.ndarray:
    """Correlations (unit, lag, interneuron) over the whole of all stimuli."""
    return pooled(found.whole, [part.n for part in found.parts])


def gap(model: Model, settings: Settings) -> int:
    """Count the samples between the halves."""
    return gap_of(model, settings.lags)
