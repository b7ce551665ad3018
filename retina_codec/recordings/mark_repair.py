"""Frame marks that do not fit the number of frames: put right where the marks tell how."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retina_codec.recordings.frame_marks import describe_frame_marks

MOST_NAMED = 5


@dataclass(frozen=True)
class FittedMarks:
    """Frame marks, and what was done to them.

    `gaps` are the marks after which later ones are late for good (a stall, a pause, marks that are
    lost); `odd` those after which frames and marks may be counted differently.
    """

    marks: np.ndarray
    gaps: np.ndarray
    odd: np.ndarray
    notes: list[str]


def fitted_marks(marks: np.ndarray, n_frames: int, pause_intervals: float) -> FittedMarks:
    """Fit marks to `n_frames` frames.

    Doubled marks are taken out, and lost ones laid into their gap, where their number is exactly
    what frames and marks differ by. Else marks stay as they are, and what looks doubled or lost is
    only said. Gaps of more than `pause_intervals` intervals are pauses, and no loss.
    """
    found = describe_frame_marks(marks)
    lost, doubled = found["lost"].values, np.flatnonzero(found["doubled"].values)
    pauses = np.flatnonzero(lost >= pause_intervals)
    lost = np.where(lost < pause_intervals, lost, 0)
    gaps = np.flatnonzero(lost)
    nothing = np.empty(0, dtype=np.int64)
    if not gaps.size and not doubled.size:
        return FittedMarks(marks, pauses, nothing, [])
    surplus = len(marks) - n_frames
    # One mark more than frames ends the last frame. Where the numbers fit as they are, nothing is
    # taken out or laid in: a display that stalls leaves the same gap as a lost mark.
    if surplus > 1 and not gaps.size and surplus - doubled.size in (0, 1):
        kept = np.delete(marks, doubled)
        pauses = pauses - np.searchsorted(doubled, pauses, side="right")
        return FittedMarks(
            kept,
            pauses,
            nothing,
            [
                f"{doubled.size} frame marks are doubled ({_named(doubled)}) and were left out: "
                f"without them there is one mark for each of the {n_frames} frames"
            ],
        )
    n_lost = int(lost.sum())
    if surplus < 0 and not doubled.size and surplus + n_lost in (0, 1):
        parts = []
        for start, stop in zip(np.r_[0, gaps + 1], np.r_[gaps + 1, len(marks)], strict=True):
            parts.append(marks[start:stop])
            if stop < len(marks):
                n = int(lost[stop - 1])
                parts.append(np.linspace(marks[stop - 1], marks[stop], n + 2)[1:-1])
        pauses = pauses + np.cumsum(lost)[pauses]
        return FittedMarks(
            np.concatenate(parts),
            pauses,
            nothing,
            [
                f"{n_lost} frame marks are lost (after {_named(gaps)}) and were laid into their "
                f"gaps: with them there is one mark for each of the {n_frames} frames; counts "
                "there are unsure"
            ],
        )
    notes = []
    if gaps.size:
        notes.append(
            f"after {_named(gaps)} the gap is longer by one or more whole intervals, and later "
            "marks do not catch up: the display stalled, or marks were lost; frames and marks are "
            "taken one by one, runs end there, and check_alignment tells whether that is right"
        )
    if doubled.size:
        notes.append(
            f"{_named(doubled)} may be doubled: later marks stay ahead by an interval; frames and "
            "marks are taken one by one, check_alignment tells whether that is right"
        )
    return FittedMarks(marks, np.union1d(gaps, pauses), np.union1d(gaps, doubled), notes)


def _named(marks: np.ndarray) -> str:
    text = ", ".join(str(i) for i in marks[:MOST_NAMED])
    word = "mark" if len(marks) == 1 else "marks"
    return f"{word} {text}{', ...' if len(marks) > MOST_NAMED else ''}"
