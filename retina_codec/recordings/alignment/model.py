"""From movie and spikes to the evidence for each shift, by a reference that vouches for itself.

Which part of a file is right is not known beforehand. Models are therefore fitted to many parts
(tenths, thirds, halves, all), and the part whose model explains most of the *whole* recording,
each piece at its own best shift, is the reference: a wrong tail, a swapped block or a clock that
drifts spoils some parts only. The model is then fitted again to all frames that follow it, each
with the spikes at its shift.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retina_codec.recordings.alignment.decoding import (
    SWITCH,
    Calibration,
    Story,
    calibrate,
    decode,
    fine_shifts,
    largest_excursions,
)
from retina_codec.recordings.alignment.drive import Design, cross_fitted_rates, rates_of_parts
from retina_codec.recordings.alignment.evidence import (
    Layout,
    fold_stretches,
    local_mean,
    relative_rates,
    shift_evidence,
)

N_TENTHS = 10
SUBPARTS = 4  # of each tenth, dealt to two folds
N_FOLDS = 4
FIRST_DISPERSION = 2.0
# Frames times cells at which the candidates are compared.
MOST_COMPARED = 400_000
MOST_ROUNDS = 2
CALIBRATION_SECONDS = (2.0, 8.0)
# Places far apart at which spikes and rates are compared to learn what coincidences do.
N_COINCIDENCES = 24
COINCIDENCE_MARGIN = 1.3


@dataclass(frozen=True)
class Scale:
    """Lengths in frames that the analysis works with."""

    history: int
    max_shift: int
    local: int  # window of the local means
    pieces: tuple[int, ...]  # pieces for the calibration

    @property
    def shifts(self) -> np.ndarray:
        """All shifts, in frames."""
        return np.arange(-self.max_shift, self.max_shift + 1)


@dataclass(frozen=True)
class Followed:
    """How the spikes of a run of frames follow a model, for every shift between the two."""

    evidence: np.ndarray  # (frame, shift), calibrated nats
    shifts: np.ndarray
    expected: np.ndarray  # (frame,): calibrated nats, if the spikes follow the model
    expected_not: np.ndarray  # (frame,): the same, if they follow nothing (negative)
    relative: np.ndarray  # (frame, cell): relative model rate q
    calibration: Calibration
    switch: float  # price of a sudden change, calibrated nats


def candidate_parts(n_labels: int) -> list[np.ndarray]:
    """Labels of each candidate for the reference: tenths, overlapping thirds, halves, and all."""
    labels = np.arange(n_labels)
    tenths = labels // SUBPARTS
    parts = [labels[tenths == k] for k in (0, 2, 4, 6, 9)]
    parts += [labels[(tenths >= k) & (tenths < k + 3)] for k in (0, 2, 4, 7)]
    parts += [labels[tenths < N_TENTHS // 2], labels[tenths >= N_TENTHS // 2], labels]
    return parts


def first_evidence(design: Design, counts: np.ndarray, scale: Scale) -> np.ndarray:
    """Evidence (frame, shift) by the model of the part that explains the recording best."""
    n = len(counts)
    known = design.known()
    labels = np.arange(n) * (N_TENTHS * SUBPARTS) // n
    folds = labels % 2
    stretches = fold_stretches(folds, design.runs)
    layout = Layout(design.runs, scale.max_shift)
    means = local_mean(counts, design.runs, scale.local, np.ones(n, dtype=bool))
    share = max(1, round(n * counts.shape[1] / MOST_COMPARED))
    compared = _part_of_each(stretches, share)
    pieces = [part.start for part, _ in compared]
    sizes = [part.stop - part.start for part, _ in compared]
    taken = np.concatenate([np.arange(a, a + size) for a, size in zip(pieces, sizes, strict=True)])
    edges = np.r_[0, np.cumsum(sizes)[:-1]]
    price = np.log(len(scale.shifts)) + 4.0

    best_score, best = -np.inf, None
    for rates in rates_of_parts(design, counts, labels, candidate_parts(labels.max() + 1), folds):
        ratios = relative_rates(rates, design.runs, scale.local, known)
        found = shift_evidence(
            counts, means, *ratios, layout=layout, stretches=compared, shifts=scale.shifts
        )
        by_piece = np.add.reduceat(found[taken], edges, axis=0).max(axis=1) / FIRST_DISPERSION
        score = float(np.maximum(by_piece - price, 0).sum())
        if score > best_score:
            best_score, best = score, (ratios, found)
    if best is None or best_score <= 0:
        return np.zeros((n, len(scale.shifts)), dtype=np.float32)
    ratios, found = best
    if share == 1:
        return found
    return shift_evidence(
        counts, means, *ratios, layout=layout, stretches=stretches, shifts=scale.shifts
    )


def _part_of_each(stretches: list[tuple[slice, int]], share: int) -> list[tuple[slice, int]]:
    """Return the middle `1 / share` of each stretch."""
    found = []
    for part, fold in stretches:
        size = part.stop - part.start
        kept = max(1, size // share)
        start = part.start + (size - kept) // 2
        found.append((slice(start, start + kept), fold))
    return found


def follow(
    design: Design,
    counts: np.ndarray,
    story: Story,
    scale: Scale,
) -> Followed | None:
    """Fit to the frames that follow, each with the spikes at its shift; then judge all frames.

    None where next to nothing follows.
    """
    n = len(counts)
    known = design.known()
    follows = story.follows
    shift = np.round(np.where(follows, story.lag, 0)).astype(np.int64)
    # The spikes of frame t belong to frame t - shift of the file.
    shown = np.flatnonzero(follows)
    source = shown - shift[shown]
    run_of = np.repeat(np.arange(len(design.runs)), [r.stop - r.start for r in design.runs])
    kept = (source >= 0) & (source < n)
    kept[kept] &= run_of[source[kept]] == run_of[shown[kept]]
    aligned = np.zeros_like(counts)
    used = np.zeros(n, dtype=bool)
    aligned[source[kept]] = counts[shown[kept]]
    used[source[kept]] = True
    used &= known
    length = max(4 * scale.history, n // (N_FOLDS * 12))
    folds = np.arange(n) // length % N_FOLDS
    if used.sum() < 4 * length or len(np.unique(folds[used])) < 2:
        return None
    rates = cross_fitted_rates(design, aligned, used, folds)
    log_ratio, excess = relative_rates(rates, design.runs, scale.local, known)
    return judged(counts, log_ratio, excess, folds, story, used, scale=scale, runs=design.runs)


def judged(
    counts: np.ndarray,
    log_ratio: np.ndarray,
    excess: np.ndarray,
    folds: np.ndarray,
    story: Story,
    used: np.ndarray,
    *,
    scale: Scale,
    runs: list[slice],
) -> Followed:
    """Evidence for every shift, calibrated on the frames that follow at their shift."""
    n = len(counts)
    means = local_mean(counts, runs, scale.local, np.ones(n, dtype=bool))
    evidence = shift_evidence(
        counts,
        means,
        log_ratio,
        excess,
        layout=Layout(runs, scale.max_shift),
        stretches=fold_stretches(folds, runs),
        shifts=scale.shifts,
    )
    frames = np.arange(n)
    logs, extra = log_ratio[folds, frames], excess[folds, frames]
    expected = np.einsum("tc,tc->t", means, (1 + extra) * logs - extra)
    variance = np.einsum("tc,tc->t", means, (1 + extra) * logs**2)
    expected_not = np.einsum("tc,tc->t", means, logs - extra)
    follows = story.follows & used
    fine, spline = fine_shifts(scale.shifts)
    at_lag = np.zeros(n)
    for lag in np.unique(story.lag[follows]):
        here = follows & (story.lag == lag)
        at_lag[here] = evidence[here] @ spline[:, np.abs(fine - lag).argmin()]
    calibration = calibrate(
        at_lag[follows], expected[follows], variance[follows], widths=scale.pieces
    )
    dispersion = calibration.dispersion
    switch = max(SWITCH, coincidences(counts, means, logs, extra, runs, scale) / dispersion)
    return Followed(
        evidence=evidence / np.float32(dispersion),
        shifts=scale.shifts,
        expected=expected * max(calibration.slope, 0.0) / dispersion,
        expected_not=expected_not / dispersion,
        relative=1 + extra,
        calibration=calibration,
        switch=switch,
    )


def coincidences(
    counts: np.ndarray,
    means: np.ndarray,
    log_ratio: np.ndarray,
    excess: np.ndarray,
    runs: list[slice],
    scale: Scale,
) -> float:
    """Evidence in raw nats that a stretch collects where spikes and rates have nothing in common.

    Cells that fire together in rare events make large evidence by coincidence, far more than
    independent spikes would. Rates are compared with spikes from far away in the recording; of the
    largest stretch of each comparison the 90th percentile counts, with a margin (a plan may repeat
    its frames, so that a few comparisons are true).
    """
    n = len(counts)
    length = min(run.stop - run.start for run in runs)
    found = []
    for k in range(N_COINCIDENCES):
        # Fractions of the golden ratio never fall on a period.
        away = int((0.05 + 0.9 * ((k + 1) * 0.6180339887 % 1)) * n)
        if len(runs) > 1 and min(away % length, -away % length) <= scale.max_shift:
            continue
        moved = np.einsum("tc,tc->t", counts, np.roll(log_ratio, away, axis=0))
        moved -= np.einsum("tc,tc->t", means, np.roll(excess, away, axis=0))
        found.append(moved)
    if not found:
        return 0.0
    return COINCIDENCE_MARGIN * float(np.quantile(largest_excursions(np.stack(found)), 0.9))


def reference_model(design: Design, counts: np.ndarray, scale: Scale) -> Followed | None:
    """Evidence by the model of all that follows, or None where nothing does."""
    story = decode(
        first_evidence(design, counts, scale) / np.float32(FIRST_DISPERSION), scale.shifts
    )
    found = None
    for _ in range(MOST_ROUNDS):
        if not story.follows.any():
            return None
        found = follow(design, counts, story, scale)
        if found is None:
            return None
        again = decode(found.evidence, scale.shifts, switch=found.switch)
        if _alike(again, story):
            break
        story = again
    return found


def _alike(one: Story, other: Story) -> bool:
    """Whether two stories align nearly all frames in the same way."""
    lags = [np.where(s.follows, np.round(s.lag), np.inf) for s in (one, other)]
    return bool((lags[0] != lags[1]).mean() < 0.02)
