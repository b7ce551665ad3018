"""What was found, as rows of a table with one sentence each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr


@dataclass(frozen=True)
class Finding:
    """One thing found in frames [first, last] of a node; an alarm, or only a note."""

    kind: str
    node: str
    first_frame: int
    last_frame: int
    first_time: float
    last_time: float
    text: str
    alarm: bool = True
    repeat: int = -1
    shift: float = np.nan  # frames
    drift: float = np.nan  # ppm
    drift_error: float = np.nan  # ppm


COLUMNS: dict[str, tuple[str, str]] = {
    "kind": ("", "what was found"),
    "node": ("", "node of the recording"),
    "repeat": ("1", "number of the repeat, -1 where there is none"),
    "alarm": ("", "whether the stimulus is not what was shown when"),
    "first_frame": ("1", "first frame of the node concerned"),
    "last_frame": ("1", "last frame of the node concerned"),
    "first_time": ("s", "onset of the first frame, on the clock of the recording"),
    "last_time": ("s", "end of the last frame, on the clock of the recording"),
    "shift": ("frame", "frames by which the file is ahead of what was shown"),
    "drift": ("ppm", "drift of the spike times against the frames"),
    "drift_error": ("ppm", "standard error of drift"),
    "text": ("", "in words"),
}


def findings_table(findings: Sequence[Finding]) -> dict[str, xr.Variable]:
    """Variables over `finding`, one a column."""
    kinds: dict[str, type] = {
        "kind": str, "node": str, "text": str, "alarm": bool,
        "repeat": np.int64, "first_frame": np.int64, "last_frame": np.int64,
    }  # fmt: skip
    table = {}
    for name, (units, long_name) in COLUMNS.items():
        values: np.ndarray = np.array(
            [getattr(f, name) for f in findings], dtype=kinds.get(name, np.float64)
        )
        attrs = {"long_name": long_name, **({"units": units} if units else {})}
        label = f"finding_{name}" if name in ("node", "repeat") else name
        table[label] = xr.Variable("finding", values, attrs)
    return table


def span_text(first: int, last: int, start: float, stop: float) -> str:
    """Frames and seconds in words."""
    return f"frames {first}..{last} ({start:.2f} to {stop:.2f} s)"
