"""Stimuli that are shown once: which frames the spikes follow, and how far apart."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from retina_codec.recordings.alignment.decoding import Story, Stretch, decode
from retina_codec.recordings.alignment.drift import Line, fitted_line, peaks
from retina_codec.recordings.alignment.drive import Design, kept_places, lag_basis
from retina_codec.recordings.alignment.findings import Finding
from retina_codec.recordings.alignment.model import (
    CALIBRATION_SECONDS,
    Followed,
    Scale,
    reference_model,
)
from retina_codec.recordings.alignment.search import followed_elsewhere, lag_of_recording
from retina_codec.recordings.alignment.sequence import Sequence
from retina_codec.recordings.alignment.table import (
    SEGMENT_COLUMNS,
    correlations,
    expected_range,
    segment_table,
)

HISTORY_SECONDS = 0.4
LOCAL_SECONDS = 20.0
# A stretch shows that "follows" and "follows nothing" tell apart by two prices of a change, with a
# reserve for scatter; a quarter of the recording must show.
PRICES = 2.5
LEAST_SHARE = 0.25
# Nats that the spikes follow anything at all.
LEAST_FOLLOWED = 60.0
SEGMENT_NATS = 60.0
MOST_SEGMENTS = 200
# Jumps of the lag below this many frames are none of the file, which moves by whole frames.
LEAST_JUMP = 0.6
# Latencies of real cells wander: up to one frame or 10 ms within a recording is no drift.
WANDER_FRAMES, WANDER_SECONDS = 1.0, 0.010
# Their standard deviation, which the error of a drift cannot be below.
WANDER_SD_SECONDS = 0.005
DRIFT_Z = 6.0
# A stretch that the model misjudges follows the stimulus all the same, if the spikes agree with the
# rates by these standard deviations, and by this share of what is expected.
WEAK_Z = 6.0
WEAK_SHARE = 0.3


@dataclass(frozen=True)
class Outcome:
    """What one part of a recording says: its table of segments, findings, and its verdict.

    Verdicts are those of `check_alignment`, or "unchecked": nothing could be compared here.
    """

    segments: xr.Dataset
    findings: list[Finding]
    verdict: str
    reason: str
    smallest_shift: int = 0  # frames; 0: none could be seen
    shortest_stretch: float = np.nan  # s


def default_history(bin_width: float) -> int:
    """Frames that the response of a ganglion cell reaches back."""
    return int(np.clip(round(HISTORY_SECONDS / bin_width), 4, 60))


def check_sequence(data: Sequence, *, history: int, max_shift: int, segment: int | None) -> Outcome:
    """Check all frames of `data` against each other."""
    n = len(data.counts)
    scale = Scale(
        history=history,
        max_shift=max_shift,
        local=max(8 * history, min(round(LOCAL_SECONDS / data.bin_width), n // 8)),
        pieces=tuple(max(1, round(s / data.bin_width)) for s in CALIBRATION_SECONDS),
    )
    longest = max(run.stop - run.start for run in data.runs)
    if n < 40 * history or longest < 2 * history or not (data.counts.any() and data.movie.any()):
        return _nothing(data, segment, _too_little(data, history))
    places = kept_places(data.movie, data.runs, data.counts, history)
    movie = np.ascontiguousarray(data.movie[:, places])
    design = Design(movie, data.runs, lag_basis(history, len(places)))
    away = _whole_offset(data, movie, history)
    found = None if away else reference_model(design, data.counts, scale)
    if found is None:
        # Places are kept by spikes at their own time: these may lie elsewhere.
        if away is None and len(places) < data.movie.shape[1]:
            away = _whole_offset(data, data.movie, history)
        return _nothing(data, segment, _no_reference(data), away)
    story, line = _best_story(found, n, data.bin_width)
    followed = _evidence_along(found, story)
    difference = float((found.expected - found.expected_not).sum())
    least = PRICES * found.switch / LEAST_SHARE
    if followed < LEAST_FOLLOWED or difference < least:
        reason = (
            f"the spikes carry too little evidence: {followed:.0f} nats that they follow the "
            f"stimulus, and {difference:.0f} nats between following and not, of which "
            f"{least:.0f} are needed to see a wrong quarter of the recording"
        )
        return _nothing(data, segment, reason)
    zero = round(story.lag[np.flatnonzero(story.follows)[0]])
    alarms = _findings(data, found, story, line, zero)
    per_frame = difference / n
    shortest = PRICES * found.switch / per_frame
    smallest = _smallest_visible_shift(found, story)
    length = segment or int(
        max(np.clip(SEGMENT_NATS / per_frame, 1 / data.bin_width, n // 12), n // MOST_SEGMENTS, 4)
    )
    table = _segment_table(data, found, story, zero, length)
    if any(finding.alarm for finding in alarms):
        verdict = "misaligned"
        reason = "; ".join(finding.text for finding in alarms if finding.alarm)
    else:
        verdict = "aligned"
        seen = (
            f"a shift by {smallest} frame{'s' if smallest > 1 else ''} from some frame on"
            if smallest
            else "no shift, as the stimulus changes too slowly"
        )
        reason = (
            f"the spikes follow the stimulus from the first to the last frame; a wrong stretch of "
            f"{shortest * data.bin_width:.1f} s or more, and {seen}, would have been seen"
        )
        reason = "; ".join([reason, *(finding.text for finding in alarms)])
    return Outcome(table, alarms, verdict, reason, smallest, shortest * data.bin_width)


def _best_story(found: Followed, n: int, bin_width: float) -> tuple[Story, Line | None]:
    """Most likely story, around a line if clocks that drift explain the lags better."""
    story = decode(found.evidence, found.shifts, switch=found.switch)
    line = fitted_line(found.evidence, found.shifts)
    if line is None:
        return story, None
    rise = abs(line.slope) * n
    allowed = max(WANDER_FRAMES, WANDER_SECONDS / bin_width)
    if rise < allowed or line.gain < found.switch or abs(line.slope) < DRIFT_Z * line.slope_error:
        return story, None
    drifting = decode(found.evidence, found.shifts, switch=found.switch, base=line.at(np.arange(n)))
    return (drifting, line) if drifting.score > story.score + found.switch / 2 else (story, None)


def _evidence_along(found: Followed, story: Story) -> float:
    """Nats along the story's lag."""
    follows = np.flatnonzero(story.follows)
    place = np.round(story.lag[follows]).astype(np.int64) - found.shifts[0]
    return float(found.evidence[follows, place].sum(dtype=np.float64))


def _smallest_visible_shift(found: Followed, story: Story) -> int:
    """Smallest shift, in frames, of a quarter of the recording that would be seen; 0 for none."""
    follows = np.flatnonzero(story.follows)
    place = np.round(story.lag[follows]).astype(np.int64) - int(found.shifts[0])
    n_shifts = len(found.shifts)
    for shift in range(1, n_shifts // 2 + 1):
        losses = []
        for moved in (place - shift, place + shift):
            inside = (moved >= 0) & (moved < n_shifts)
            if inside.sum() < len(place) / 2:
                continue
            own = found.evidence[follows[inside], place[inside]]
            other = found.evidence[follows[inside], moved[inside]]
            losses.append(float((own - other).mean(dtype=np.float64)))
        if losses and min(losses) * len(story.lag) * LEAST_SHARE >= 1.5 * found.switch:
            return shift
    return 0


def _findings(
    data: Sequence, found: Followed, story: Story, line: Line | None, zero: int
) -> list[Finding]:
    """Stretches that follow nothing, jumps of the lag, and drift."""
    findings = []
    if line is not None:
        findings.append(_drift_finding(data, line))
    before: tuple[Stretch, float] | None = None
    for stretch in story.stretches:
        if not stretch.follows:
            findings.append(_not_followed(data, found, stretch))
            continue
        at_start, at_end = _lags_at_ends(found, stretch, story)
        if before is not None:
            jump = at_start - before[1]
            if abs(jump) >= LEAST_JUMP:
                findings.append(_shift_finding(data, stretch, jump))
        before = stretch, at_end
    return findings


def _lags_at_ends(found: Followed, stretch: Stretch, story: Story) -> tuple[float, float]:
    """Lag to a part of a frame near the start and the end of a stretch, from the evidence there."""
    size = stretch.stop - stretch.start
    width = max(size // 4, min(size, len(story.lag) // 20))
    ends = []
    for part, told in (
        (slice(stretch.start, stretch.start + width), stretch.first_lag),
        (slice(stretch.stop - width, stretch.stop), stretch.last_lag),
    ):
        lag = story.lag[part]
        near = np.abs(lag - told) <= 1
        total = found.evidence[part][near].sum(axis=0, dtype=np.float64)[None]
        peak = peaks(total, found.shifts)[0][0]
        ends.append(float(peak) if abs(peak - told) < 1 else told)
    return ends[0], ends[1]


def _drift_finding(data: Sequence, line: Line) -> Finding:
    n = len(data.counts)
    # Lags are in frames of the file, which pauses between runs do not lengthen.
    drift = 1e6 * line.slope
    error = 1e6 * float(np.hypot(line.slope_error, WANDER_SD_SECONDS / (n * data.bin_width)))
    way = "later and later" if drift > 0 else "earlier and earlier"
    return data.finding(
        "drift",
        0,
        n,
        f"spikes come {way} after their frames, {drift:+.1f} +- {error:.1f} ppm, "
        f"{abs(line.slope) * n:.1f} frames in all: the clocks of spikes and frames drift apart; "
        "map one to the other (retina_codec.recordings.align_clocks)",
        drift=drift,
        drift_error=error,
    )


def _shift_finding(data: Sequence, stretch: Stretch, jump: float) -> Finding:
    shift = int(np.sign(jump)) * max(1, round(abs(jump)))
    frames = f"{abs(shift)} frame{'s' if abs(shift) > 1 else ''}"
    if shift > 0:
        text = f"the file is {frames} ahead of what was shown, compared with the frames before"
    else:
        text = f"the file is {frames} behind what was shown, compared with the frames before"
    return data.finding(
        "shift", stretch.start, stretch.stop, f"{text} (lag changes by {jump:+.2f} frames)",
        shift=float(shift),
    )  # fmt: skip


def _not_followed(data: Sequence, found: Followed, stretch: Stretch) -> Finding:
    part = slice(stretch.start, stretch.stop)
    evidence = found.evidence[part].sum(axis=0, dtype=np.float64)
    zero = int(np.argmin(np.abs(found.shifts)))
    expected = float(found.expected[part].sum())
    log_rate = np.log(found.relative)
    weak = _weak_follow(found, part)
    if weak > WEAK_Z:
        return replace(
            data.finding(
                "weakly_followed", stretch.start, stretch.stop,
                f"the spikes follow the stimulus ({weak:.0f} standard deviations), but otherwise "
                "than in the rest of the recording",
            ),
            alarm=False,
        )  # fmt: skip
    text = (
        f"the spikes do not follow the stimulus (evidence {evidence[zero]:.0f} nats, where "
        f"{expected:.0f} are expected)"
    )
    other = followed_elsewhere(data.counts, log_rate, stretch.start, stretch.stop)
    if other is not None:
        last = other[0] + stretch.stop - stretch.start - 1
        text += f"; they follow frames {data.frame[other[0]]}..{data.frame[last]} of the file"
    return data.finding("not_followed", stretch.start, stretch.stop, text)


def _weak_follow(found: Followed, part: slice) -> float:
    """Give the standard deviations by which spikes and rates agree more than by chance, near lag 0.

    The evidence at far lags is the null: where spikes follow nothing, all lags are alike.
    """
    evidence = found.evidence[part].sum(axis=0, dtype=np.float64)
    far = np.abs(found.shifts) > max(6, len(found.shifts) // 8)
    if far.sum() < 12:
        return 0.0
    middle = np.median(evidence[far])
    spread = 1.4826 * np.median(np.abs(evidence[far] - middle))
    nothing = float(found.expected_not[part].sum())
    best = float(evidence[~far].max())
    share = (best - nothing) / max(float(found.expected[part].sum()) - nothing, 1e-12)
    return (best - float(middle)) / float(spread) if spread > 0 and share > WEAK_SHARE else 0.0


def _segment_table(
    data: Sequence, found: Followed, story: Story, zero: int, length: int
) -> xr.Dataset:
    segments = data.segments(length)
    edges = np.array([s.start for s in segments])
    column = int(np.clip(zero - found.shifts[0], 0, len(found.shifts) - 1))
    rows = np.add.reduceat(found.evidence, edges, axis=0, dtype=np.float64)
    lag, error, _ = peaks(rows, found.shifts)
    lag = lag - zero
    relative = np.ones_like(found.relative)
    if zero >= 0:
        relative[zero:] = found.relative[: len(relative) - zero]
    else:
        relative[:zero] = found.relative[-zero:]
    correlation = correlations(relative, data.counts, edges)
    weight = np.log(found.relative).var(axis=0) * data.counts.sum(axis=0)
    known = np.isfinite(correlation)
    weights = np.where(known, weight, 0.0)
    with np.errstate(invalid="ignore"):
        pooled = (np.where(known, correlation, 0.0) * weights).sum(axis=1) / weights.sum(axis=1)
    states = []
    for piece in segments:
        nothing = ~story.follows[piece]
        away = np.abs(np.where(nothing, 0.0, story.lag[piece]) - zero) >= 0.75
        if nothing.mean() > 0.5:
            states.append("not followed")
        else:
            states.append("shifted" if (away & ~nothing).mean() > 0.5 else "as filed")
    state = np.array(states, dtype=str)
    low, high = expected_range(pooled[state == "as filed"])
    return segment_table(
        node=data.node[edges],
        repeat=np.full(len(edges), -1),
        start=data.time[edges],
        stop=np.array([data.time[s.stop - 1] for s in segments]) + data.bin_width,
        start_frame=data.frame[edges],
        stop_frame=np.array([data.frame[s.stop - 1] + 1 for s in segments]),
        correlation=correlation,
        correlation_pooled=pooled,
        correlation_low=np.full(len(edges), low),
        correlation_high=np.full(len(edges), high),
        best_lag_frames=lag,
        best_lag=lag * data.bin_width,
        best_lag_error=error * data.bin_width,
        evidence=rows[:, column],
        expected_evidence=np.add.reduceat(found.expected, edges),
        state=state,
        cells=data.cells,
    )


def _nothing(
    data: Sequence, segment: int | None, reason: str, offset: Finding | None = None
) -> Outcome:
    """Outcome where no lag can be told: undetermined, or misaligned by an offset."""
    n = len(data.counts)
    length = segment or max(4, n // 20)
    segments = data.segments(length)
    edges = np.array([s.start for s in segments])
    unknown = np.full(len(edges), np.nan)
    table = segment_table(
        node=data.node[edges],
        repeat=np.full(len(edges), -1),
        start=data.time[edges],
        stop=np.array([data.time[s.stop - 1] for s in segments]) + data.bin_width,
        start_frame=data.frame[edges],
        stop_frame=np.array([data.frame[s.stop - 1] + 1 for s in segments]),
        correlation=np.full((len(edges), len(data.cells)), np.nan),
        state=np.full(len(edges), "undetermined" if offset is None else "not followed"),
        cells=data.cells,
        **{
            name: unknown
            for name in SEGMENT_COLUMNS
            if name.startswith(("correlation_", "best_lag"))
            or name in ("evidence", "expected_evidence")
        },
    )
    if offset is not None:
        return Outcome(table, [offset], "misaligned", offset.text)
    return Outcome(table, [], "undetermined", reason)


def _too_little(data: Sequence, history: int) -> str:
    if not data.counts.any():
        return "there are no spikes"
    if not data.movie.any():
        return "the stimulus does not change"
    return (
        f"{len(data.counts)} frames in runs of at most {max(r.stop - r.start for r in data.runs)} "
        f"are too few to fit responses of {history} frames"
    )


def _no_reference(data: Sequence) -> str:
    return (
        f"{int(data.counts.sum())} spikes of {len(data.cells)} cells do not follow the stimulus at "
        "any lag within 20 s, so far as a linear filter can tell: too few spikes, cells that a "
        "linear filter does not drive, or not the stimulus that was shown"
    )


def _whole_offset(data: Sequence, movie: np.ndarray, history: int) -> Finding | None:
    """Spikes that follow a lag which no retina has, throughout."""
    if len(data.runs) > 1:
        return None
    found = lag_of_recording(movie, data.counts, history=history, bin_width=data.bin_width)
    if found is None or -1 <= found[0] <= history:
        return None
    seconds = found[0] * data.bin_width
    way = f"{seconds:.3f} s after" if seconds > 0 else f"{-seconds:.3f} s before"
    return data.finding(
        "offset",
        0,
        len(data.counts),
        f"the spikes respond {way} their frames, which no retina does: spikes and frames are not "
        "on one clock, or the first frames or spikes are missing",
        shift=float(found[0]),
    )
