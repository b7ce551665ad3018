"""Repeats of one stimulus: each against the mean of the others, without a model."""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter1d

from retina_codec._common.time import bin_width_of
from retina_codec.recordings.alignment.continuous import (
    PRICES,
    Outcome,
)
from retina_codec.recordings.alignment.decoding import Story, Stretch, decode
from retina_codec.recordings.alignment.drift import peaks
from retina_codec.recordings.alignment.evidence import relative_rates
from retina_codec.recordings.alignment.findings import Finding, span_text
from retina_codec.recordings.alignment.model import (
    CALIBRATION_SECONDS,
    Followed,
    Scale,
    judged,
)
from retina_codec.recordings.alignment.sequence import MOST_CELLS
from retina_codec.recordings.alignment.table import expected_range, segment_table

LEAST_REPEATS = 4
ROUNDS = 3
# Mean rates that stand beside the other repeats, so that an empty bin is no certainty.
PRIOR_REPEATS = 1.0


def check_repeats(data: xr.Dataset, name: str, *, max_shift: int) -> Outcome:
    """Check each repeat of a node against the mean of the others."""
    counts = data["spike_count"].values.astype(np.float32)
    cells = data["cell"].values
    if len(cells) > MOST_CELLS:
        kept = np.sort(np.argsort(-counts.sum(axis=(0, 1)), kind="stable")[:MOST_CELLS])
        counts, cells = counts[:, :, kept], cells[kept]
    n_repeats, n, _ = counts.shape
    width = bin_width_of(data)
    max_shift = min(max_shift, n // 4)
    silent = not counts.any()
    if n_repeats < LEAST_REPEATS or max_shift < 2 or silent:
        reason = (
            f"{name} has {n_repeats} repeats of {n} frames with {int(counts.sum())} spikes; "
            f"expected at least {LEAST_REPEATS} repeats of 8 frames with spikes to compare each "
            "with the others"
        )
        verdict = "undetermined" if silent else "unchecked"
        return Outcome(_table(data, name, cells, None, None, width), [], verdict, reason)
    scale = Scale(
        history=1,
        max_shift=max_shift,
        local=n,
        pieces=tuple(min(n, max(1, round(s / width))) for s in CALIBRATION_SECONDS),
    )
    good = np.ones(n_repeats, dtype=bool)
    for _ in range(ROUNDS):
        found = _against_others(counts, good, scale)
        stories = _stories(found, n_repeats, n)
        good = np.array([_as_filed(story) for story in stories])
        if good.sum() < LEAST_REPEATS - 1:
            good[:] = True
    nats = (found.expected - found.expected_not).reshape(n_repeats, n).sum(axis=1)
    table = _table(data, name, cells, found, stories, width, counts)
    # A repeat that is wrong must show.
    least = PRICES * found.switch
    if float(np.median(nats)) < least:
        reason = (
            f"the repeats carry too little evidence: {np.median(nats):.0f} nats each between "
            f"following the others and not, of which {least:.0f} are needed"
        )
        table["state"][:] = "undetermined"
        return Outcome(table, [], "undetermined", reason)
    findings = []
    for repeat, story in enumerate(stories):
        findings += _findings(data, name, repeat, story, width)
    verdict, reason = "aligned", f"all {n_repeats} repeats of {name} follow each other"
    if findings:
        verdict, reason = "misaligned", "; ".join(finding.text for finding in findings)
    shortest = least / float(nats.mean()) * n * width
    return Outcome(table, findings, verdict, reason, 1, shortest)


def _against_others(counts: np.ndarray, good: np.ndarray, scale: Scale) -> Followed:
    """Evidence (repeat * frame, shift) of each repeat, by the smoothed mean of the other good."""
    n_repeats, n, n_cells = counts.shape
    total = counts[good].sum(axis=0)
    others = total[None] - counts * good[:, None, None]
    n_others = (good.sum() - good).astype(np.float64)[:, None, None]
    mean = others.mean(axis=1, keepdims=True)
    rates = gaussian_filter1d(others, 1.0, axis=1, mode="nearest")
    rates = (rates + PRIOR_REPEATS * mean / n_others) / (n_others + PRIOR_REPEATS)
    runs = [slice(r * n, (r + 1) * n) for r in range(n_repeats)]
    known = np.ones(n_repeats * n, dtype=bool)
    ratios = relative_rates(
        rates.reshape(1, -1, n_cells).astype(np.float32), runs, scale.local, known
    )
    frames = n_repeats * n
    lag = np.where(np.repeat(good, n), 0.0, np.nan)
    story = Story(lag, [Stretch(0, frames, 0.0, 0.0)], 0.0)
    return judged(
        counts.reshape(frames, n_cells), *ratios, np.zeros(frames, dtype=np.int64), story, known,
        scale=scale, runs=runs,
    )  # fmt: skip


def _stories(found: Followed, n_repeats: int, n: int) -> list[Story]:
    evidence = found.evidence.reshape(n_repeats, n, -1)
    return [decode(rows, found.shifts, switch=found.switch, start=0.0) for rows in evidence]


def _as_filed(story: Story) -> bool:
    return all(s.follows for s in story.stretches) and bool((np.abs(story.lag) < 0.75).all())


def _findings(
    data: xr.Dataset, name: str, repeat: int, story: Story, width: float
) -> list[Finding]:
    onset, number = _onset(data, repeat), int(data["repeat"].values[repeat])
    found = []
    for stretch in story.stretches:
        span = (
            stretch.start,
            stretch.stop - 1,
            onset + stretch.start * width,
            onset + stretch.stop * width,
        )
        where = f"repeat {number} of {name}, {span_text(*span)}"
        if not stretch.follows:
            text = f"{where}: the spikes do not follow those of the other repeats"
            found.append(Finding("repeat_not_followed", name, *span, text, repeat=number))
        elif abs(stretch.first_lag) >= 0.75:
            shift = round(stretch.first_lag)
            way = "later" if shift > 0 else "earlier"
            text = (
                f"{where}: the spikes come {abs(shift)} frames ({abs(shift) * width:.3f} s) {way} "
                "than in the other repeats"
            )
            found.append(
                Finding("repeat_shift", name, *span, text, repeat=number, shift=float(shift))
            )
    return found


def _onset(data: xr.Dataset, repeat: int) -> float:
    if "repeat_onset" in data.coords:
        return float(data["repeat_onset"].values[repeat])
    return float(data["time"].values[0])


def _table(
    data: xr.Dataset,
    name: str,
    cells: np.ndarray,
    found: Followed | None,
    stories: list[Story] | None,
    width: float,
    counts: np.ndarray | None = None,
) -> xr.Dataset:
    """One segment a repeat."""
    n_repeats, n = data.sizes["repeat"], data.sizes["time"]
    unknown = np.full(n_repeats, np.nan)
    start = np.array([_onset(data, r) for r in range(n_repeats)])
    columns = {
        "node": np.full(n_repeats, name),
        "repeat": np.asarray(data["repeat"].values, dtype=np.int64),
        "start": start,
        "stop": start + n * width,
        "start_frame": np.zeros(n_repeats, dtype=np.int64),
        "stop_frame": np.full(n_repeats, n),
        "correlation": np.full((n_repeats, len(cells)), np.nan),
        "correlation_pooled": unknown,
        "correlation_low": unknown,
        "correlation_high": unknown,
        "best_lag_frames": unknown,
        "best_lag": unknown,
        "best_lag_error": unknown,
        "evidence": unknown,
        "expected_evidence": unknown,
        "state": np.full(n_repeats, "undetermined"),
    }
    if found is None or stories is None or counts is None:
        return segment_table(cells=cells, **columns)
    relative = found.relative.reshape(n_repeats, n, -1)
    x = relative - relative.mean(axis=1, keepdims=True)
    y = counts - counts.mean(axis=1, keepdims=True)
    size = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = np.where(size > 0, (x * y).sum(axis=1) / size, np.nan)
        weight = np.where(size > 0, np.log(relative).var(axis=1) * counts.sum(axis=1), 0.0)
        pooled = np.nansum(correlation * weight, axis=1) / weight.sum(axis=1)
    state = np.array(
        [
            "as filed" if _as_filed(s) else "shifted" if s.follows.mean() > 0.5 else "not followed"
            for s in stories
        ]
    )
    low, high = expected_range(pooled[state == "as filed"])
    rows = found.evidence.reshape(n_repeats, n, -1).sum(axis=1, dtype=np.float64)
    lag, error, _ = peaks(rows, found.shifts)
    columns |= {
        "correlation": correlation,
        "correlation_pooled": pooled,
        "correlation_low": np.full(n_repeats, low),
        "correlation_high": np.full(n_repeats, high),
        "best_lag_frames": lag,
        "best_lag": lag * width,
        "best_lag_error": error * width,
        "evidence": rows[:, int(np.argmin(np.abs(found.shifts)))],
        "expected_evidence": found.expected.reshape(n_repeats, n).sum(axis=1),
        "state": state,
    }
    return segment_table(cells=cells, **columns)
