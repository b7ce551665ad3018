"""Frame marks: checked, and the bin width that they give."""

from __future__ import annotations

import numpy as np

from retina_codec._common.checks import magnitude
from retina_codec._common.time import BIN_WIDTH_TOLERANCE

# Real displays are late by half a frame or more; the jitter of recorded marks is about 1 %.
LATE = 1.25
# Frames of displays and bins of recordings; milliseconds read as seconds are far outside.
PLAUSIBLE_WIDTH = (1e-4, 1.0)


def require_plausible_width(usual: float, argument: str) -> None:
    """Raise ValueError unless a display can have frames that follow each other so (s)."""
    if not PLAUSIBLE_WIDTH[0] <= usual <= PLAUSIBLE_WIDTH[1]:
        raise ValueError(
            f"{argument}: frames follow each other every {usual:g} s (median), which those of no "
            "display do; are these times in another unit? Give them in seconds, or say their unit"
        )


def checked_marks(marks: np.ndarray) -> np.ndarray:
    """Return frame marks (seconds) as float64, or raise ValueError that says which mark is bad."""
    marks = np.asarray(marks, dtype=np.float64)
    if marks.ndim != 1 or len(marks) < 2:
        raise ValueError(
            f"frame_times has shape {marks.shape}; expected at least two frame marks in one row, "
            "in seconds"
        )
    bad = np.flatnonzero(~np.isfinite(marks))
    if bad.size:
        raise ValueError(
            f"frame_times: mark {bad[0]} is {marks[bad[0]]}; each mark must be a finite time in "
            "seconds: remove it together with its frame"
        )
    if marks.min() < 0:
        bad = np.flatnonzero(marks < 0)
        raise ValueError(
            f"frame_times: mark {bad[0]} is negative ({marks[bad[0]]:g} s); marks count from the "
            "start of the recording: shift marks and spikes by the same time"
        )
    back = np.flatnonzero(np.diff(marks) <= 0)
    if back.size:
        i = int(back[0])
        kind = "repeats" if marks[i + 1] == marks[i] else "is earlier than"
        raise ValueError(
            f"frame_times: mark {i + 1} ({marks[i + 1]:g} s) {kind} mark {i} ({marks[i]:g} s); "
            "marks must ascend: remove double marks, sort marks that are out of order"
        )
    return marks


def checked_bin_width(
    intervals: np.ndarray,
    frames: np.ndarray,
    bin_width: object = None,
    argument: str = "bin_width",
) -> float:
    """Mean of the `intervals` (seconds) of `frames`, or the bin width given, if that agrees."""
    mean, median = float(intervals.mean()), float(np.median(intervals))
    require_plausible_width(median, "frame_times")
    if abs(mean - median) > BIN_WIDTH_TOLERANCE * median:
        longest = int(np.argmax(intervals))
        raise ValueError(
            f"frame_times: intervals are {mean:g} s in the mean but {median:g} s in the median "
            f"(the longest, {intervals[longest]:g} s, follows mark {frames[longest]}): marks are "
            "missing or the display stalled; correct frame_times, or open the stretches before and "
            "after one by one, each with its own marks"
        )
    if bin_width is None:
        return mean
    given = magnitude(bin_width, "s", "bin_width")
    require_matching_width(given, mean, argument)
    return float(given)


def require_matching_width(given: float, found: float, argument: str = "bin_width") -> None:
    """Raise ValueError unless the bin width `given` is the frame interval `found`."""
    if not abs(given - found) <= BIN_WIDTH_TOLERANCE * found:
        raise ValueError(
            f"{argument}={given:g} s, but the frames of the recording follow each other every "
            f"{found:g} s: correct it (seconds, or a quantity with units), or leave it out"
        )


def late_mark_note(marks: np.ndarray) -> str | None:
    """One sentence about late frame marks, or None if there are none."""
    intervals = np.diff(marks)
    median = float(np.median(intervals))
    late = np.flatnonzero(intervals > LATE * median)
    if not late.size:
        return None
    return (
        f"{late.size} of {intervals.size} frame intervals are longer than {LATE:g} times the "
        f"median of {median:.6g} s (the longest {intervals.max():.3g} s, the first after frame "
        f"{late[0]}): these marks are late, and counts in the bins around them are unsure"
    )
