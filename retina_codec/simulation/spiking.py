"""Spikes from rates: Poisson, or with a refractory period and the same mean rate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from retina_codec.simulation.specification import Spiking

STEP = 1.0  # ms: of refractory spikes; at most one spike in each
RECOVERED = 6.0  # time constants after which a cell counts as recovered
SEGMENT = 1000  # steps that are computed together with as many others as there are
AT_ONCE = 128  # segments
BURN_IN = 5  # recovery times before a segment, in which its start is forgotten


@dataclass(frozen=True)
class Spikes:
    """Drawn spikes: counts (repeat, time, cell), and times by repeat and cell.

    Times are in seconds, ascending. `rate` (time, cell) is the mean rate that they have, in Hz.
    """

    counts: np.ndarray
    times: list[list[np.ndarray]]
    rate: np.ndarray


def draw_spikes(
    rate: np.ndarray,
    bin_width: float,
    spiking: Spiking,
    *,
    time: np.ndarray,
    runs: Sequence[slice],
    rng: np.random.Generator,
    repeats: int,
) -> Spikes:
    """Draw spikes of all cells with a given rate in each bin.

    Poisson counts are drawn bin by bin, and their times uniformly inside the bin. Refractory
    spikes are drawn in steps of 1 ms with the probability ``q(t) w(t - last spike)``, with `w` the
    recovery function and `q` the free firing rate (after Berry & Meister, J. Neurosci. 18:2200,
    1998). Here `q` is made such that the mean rate over all trials is the one given: the share of
    trials that are at each age is known from the rates before, so ``q = rate / mean of w``. Where
    this would need more than a certain spike, the mean rate falls short.

    Parameters
    ----------
    rate : ndarray
        Hz, (time, cell).
    bin_width : float
        Seconds.
    spiking : Spiking
        The process.
    time : ndarray
        Onsets of the bins in seconds.
    runs : sequence of slice
        Runs of bins without gaps; a cell is recovered at the start of each.
    rng : numpy.random.Generator
        Source of chance.
    repeats : int
        Trials; independent.
    """
    if spiking.process == "refractory":
        drawn = [
            _Refractory(rate[run], bin_width, spiking).draw(time[run.start], rng, repeats)
            for run in runs
        ]
        return Spikes(
            np.concatenate([one.counts for one in drawn], axis=1),
            [
                [np.concatenate(parts) for parts in zip(*of_runs, strict=True)]
                for of_runs in zip(*(one.times for one in drawn), strict=True)
            ],
            np.concatenate([one.rate for one in drawn]),
        )
    shape = (repeats, *rate.shape)
    counts = rng.poisson(np.broadcast_to(rate * bin_width, shape)).astype(np.int32)
    # A stream of its own: counts do not depend on whether times are drawn.
    inside = rng.spawn(1)[0]
    times = [
        [
            np.sort(np.repeat(time, of_cell) + bin_width * inside.uniform(size=of_cell.sum()))
            for of_cell in of_repeat.T
        ]
        for of_repeat in counts
    ]
    return Spikes(counts, times, rate)


class _Refractory:
    """Spikes with a refractory period in one run, in steps of about a millisecond."""

    def __init__(self, rate: np.ndarray, bin_width: float, spiking: Spiking) -> None:
        self._bin_width = bin_width
        self._rate = rate
        # Whole steps in a bin.
        self._steps = max(1, round(1000 * bin_width / STEP))
        self._recovery = recovery_function(spiking, 1000 * bin_width / self._steps)

    def draw(self, onset: float, rng: np.random.Generator, repeats: int) -> Spikes:
        """Draw the spikes of a run that begins at `onset`."""
        n_cells = self._rate.shape[1]
        reached = []
        last = np.full(repeats * n_cells, -len(self._recovery) - 1)
        found: list[list[np.ndarray]] = [[] for _ in range(repeats * n_cells)]
        start = 0
        for free, fired in self._free_rates():
            reached.append(fired)
            candidates = []
            for _ in range(repeats):
                step, cell = np.nonzero(rng.random(free.shape) < free)
                order = np.argsort(cell, kind="stable")
                sizes = np.bincount(cell, minlength=n_cells)
                candidates += np.split(start + step[order], np.cumsum(sizes)[:-1])
            for train, kept in enumerate(self._thinned(rng, candidates, last)):
                found[train].append(kept)
            start += len(free)
        counts = np.zeros((repeats, *self._rate.shape), dtype=np.int32)
        times: list[list[np.ndarray]] = [[] for _ in range(repeats)]
        for train, parts in enumerate(found):
            repeat, cell = divmod(train, n_cells)
            steps = np.concatenate(parts)
            np.add.at(counts[repeat, :, cell], steps // self._steps, 1)
            inside = rng.uniform(size=len(steps))
            times[repeat].append(onset + (steps + inside) * (self._bin_width / self._steps))
        return Spikes(counts, times, np.concatenate(reached))

    def _free_rates(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Probability of a spike in each step of a recovered cell, and rates reached in each bin.

        By groups of segments that go on together, each from some time before its start.
        """
        n_bins = len(self._rate)
        ages = len(self._recovery) - 1  # the last entry is "recovered"
        # What is born at a step stands at its number in the ring, and is of age 0 at the next.
        by_step = np.stack(
            [self._recovery[(step - 1 - np.arange(ages)) % ages] for step in range(ages)]
        )
        wanted = self._rate * self._bin_width / self._steps  # spikes in a step
        in_segment = max(1, SEGMENT // self._steps)  # bins
        before = -(-BURN_IN * ages // self._steps)  # bins
        for start in range(0, n_bins, AT_ONCE * in_segment):
            firsts = np.arange(start, min(n_bins, start + AT_ONCE * in_segment), in_segment)
            # State: the share of the trials that have recovered, and that at each age since the
            # last spike; ages go round in a ring, so that growing older moves nothing.
            recovered = np.ones((len(firsts), wanted.shape[1]))
            share = np.zeros((*recovered.shape, ages))
            free = np.zeros((len(firsts), in_segment, self._steps, wanted.shape[1]))
            fired = np.zeros_like(free[:, :, 0])
            step = 0
            for k in range(-before, in_segment):
                bins = np.clip(firsts + k, 0, n_bins - 1)
                asked = np.where((firsts + k >= 0)[:, None], wanted[bins], 0.0)
                for part in range(self._steps):
                    able_at = by_step[step % ages]
                    able = share @ able_at + recovered
                    q = np.minimum(asked / np.maximum(able, 1e-12), 1.0)
                    share *= 1 - q[..., None] * able_at
                    recovered *= 1 - q
                    born = able * q
                    # The oldest have recovered; those just born take their place.
                    oldest = share[..., step % ages]
                    recovered += oldest
                    oldest[...] = born
                    step += 1
                    if k >= 0:
                        free[:, k, part] = q
                        fired[:, k] += born
            stop = min(n_bins, start + len(firsts) * in_segment)
            yield (
                free.reshape(-1, wanted.shape[1])[: (stop - start) * self._steps],
                fired.reshape(-1, wanted.shape[1])[: stop - start] / self._bin_width,
            )

    def _thinned(
        self, rng: np.random.Generator, candidates: list[np.ndarray], last: np.ndarray
    ) -> list[np.ndarray]:
        """Keep each candidate with the probability of having recovered; `last` is updated."""
        sizes = np.array([len(one) for one in candidates])
        steps = np.zeros((sizes.max(initial=0), len(candidates)), dtype=np.int64)
        for train, one in enumerate(candidates):
            steps[: len(one), train] = one
        kept = np.zeros(steps.shape, dtype=bool)
        for k, now in enumerate(steps):  # all trains at once, spike by spike
            age = np.clip(now - last - 1, 0, len(self._recovery) - 1)
            kept[k] = (k < sizes) & (rng.random(len(now)) < self._recovery[age])
            last[kept[k]] = now[kept[k]]
        return [steps[kept[:, train], train] for train in range(len(candidates))]


def recovery_function(spiking: Spiking, step: float) -> np.ndarray:
    """Chance of having recovered, by whole steps since the step of the last spike, less one.

    The last entry, 1, stands for all later steps. Two spikes are apart by at least `absolute`
    wherever they are in their steps.
    """
    blocked = int(np.ceil(spiking.absolute / step - 1e-9))
    n = int(np.ceil(RECOVERED * spiking.relative / step))
    # Age k means that k steps lie between: the intervals are k to k + 2 steps.
    recovering = np.arange(1, n + 1) * step / max(spiking.relative, 1e-12)
    return np.concatenate([np.zeros(blocked), 1 - np.exp(-recovering), [1.0, 1.0]])
