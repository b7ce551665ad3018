"""Folders of text files: frame marks, stimulus values, spike times, parameters -> neo objects."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import neo
import numpy as np
import quantities as pq

from retina_codec._common.checks import nearest_names
from retina_codec.recordings.nodes import chosen_cells
from retina_codec.recordings.plan import FrozenNoise

MARKS = "frametimes_"
STIMULUS = "stimulus_"
SPIKES = re.compile(r"(?P<stem>.+)_(?P<id>C[0-9]+)\.txt")
REFERENCE_STEM = "STA"  # STA_C<id>.txt: spike-triggered averages kept beside the spikes
LAYOUT = "frametimes_<stem>.txt, stimulus_<stem>.txt and <stem>_C<id>.txt"


@dataclass(frozen=True)
class TextRecording:
    """What a folder of text files holds."""

    segment: neo.Segment
    stimulus: np.ndarray
    plan: FrozenNoise | None
    stimulus_type: str | None
    parameters: dict[str, str]


def read_text_folder(
    folder: Path,
    *,
    stimulus: str | os.PathLike[str] | None = None,
    frame_times: str | os.PathLike[str] | None = None,
    cells: Iterable[object] | None = None,
) -> TextRecording:
    """Read the folder: a neo.Segment (spike trains, event ``frames``), stimulus and plan."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    if not names:
        raise FileNotFoundError(f"path={str(folder)!r} holds no files; expected {LAYOUT}")
    marks_file = _the_file(folder, names, MARKS, frame_times, "frame_times", stem=None)
    stem = marks_file.name.removeprefix(MARKS).removesuffix(".txt")
    stimulus_file = _the_file(folder, names, STIMULUS, stimulus, "stimulus", stem=stem)
    spike_files = _spike_files(folder, names, stem)
    ids = chosen_cells(list(spike_files), cells)

    marks = read_column(marks_file, "frame_times")
    trains = {name: _ascending(spike_files[name]) for name in ids}
    values = read_column(stimulus_file, "stimulus")
    taken = {marks_file.name, stimulus_file.name, *(path.name for path in spike_files.values())}
    stimulus_type, parameters, plan = _parameters(folder, [n for n in names if n not in taken])

    segment = neo.Segment(name=folder.name)
    ends = [times[[0, -1]] for times in (marks, *trains.values()) if times.size]
    start, stop = min(0.0, *(a for a, _ in ends)), max(b for _, b in ends) if ends else 0.0
    for name, times in trains.items():
        segment.spiketrains.append(
            neo.SpikeTrain(
                times * pq.s, t_start=start * pq.s, t_stop=stop * pq.s, name=name, id=name
            )
        )
    segment.events.append(neo.Event(times=marks * pq.s, name="frames"))
    return TextRecording(segment, values, plan, stimulus_type, parameters)


def _the_file(
    folder: Path,
    names: list[str],
    prefix: str,
    given: str | os.PathLike[str] | None,
    argument: str,
    *,
    stem: str | None,
) -> Path:
    """Find the one file with `prefix`, that of `stem` where there are several, or the one given."""
    if given is not None:
        if not isinstance(given, str | os.PathLike):
            raise TypeError(
                f"{argument} is a {type(given).__name__}; expected the path of a text file "
                "(arrays go into recording_from_neo)"
            )
        for path in (folder / given, Path(given)):
            if path.is_file():
                return path
        raise FileNotFoundError(
            f"{argument}={str(given)!r} is no file, in the folder or elsewhere; "
            f"{nearest_names(given, names)}"
        )
    found = [name for name in names if name.startswith(prefix) and name.endswith(".txt")]
    if f"{prefix}{stem}.txt" in found:
        found = [f"{prefix}{stem}.txt"]
    if not found:
        raise FileNotFoundError(
            f"path={str(folder)!r} holds no {prefix}*.txt; expected {LAYOUT}: rename the file, or "
            f"name it with {argument}="
        )
    if len(found) > 1:
        raise ValueError(
            f"path={str(folder)!r} holds several {prefix}*.txt ({', '.join(found)}): name the one "
            f"to use with {argument}="
        )
    return folder / found[0]


def _spike_files(folder: Path, names: list[str], stem: str) -> dict[str, Path]:
    """Spike files by cell id, in the order of the ids' numbers."""
    stems: dict[str, dict[str, Path]] = {}
    for name in names:
        match = SPIKES.fullmatch(name)
        if match and match["stem"] != REFERENCE_STEM and not name.startswith((MARKS, STIMULUS)):
            stems.setdefault(match["stem"], {})[match["id"]] = folder / name
    if not stems:
        raise FileNotFoundError(
            f"path={str(folder)!r} holds no spike files; expected {stem}_C<id>.txt, one a cell, "
            "with one spike time in seconds a line"
        )
    if stem not in stems:
        if len(stems) > 1:
            raise ValueError(
                f"path={str(folder)!r} holds spike files of several recordings "
                f"({', '.join(f'{other}_C<id>.txt' for other in stems)}), none named like the "
                f"frame marks ({stem}_C<id>.txt): give each recording a folder of its own"
            )
        (stem,) = stems
    return dict(sorted(stems[stem].items(), key=lambda item: (int(item[0][1:]), item[0])))


def read_column(path: Path, argument: str) -> np.ndarray:
    """One finite number a line; errors name the file and the line. Empty lines are skipped."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{argument}: {path.name} is not a text file ({error.reason})") from error
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        values = np.array(lines, dtype=np.float64)
    except ValueError:
        values = None
    if values is None or not np.isfinite(values).all():
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip() and not _is_finite(line):
                raise ValueError(
                    f"{argument}: {path.name}, line {number}: {line.strip()[:40]!r}; expected one "
                    "finite number a line"
                )
    return np.asarray(values, dtype=np.float64)


def _is_finite(line: str) -> bool:
    try:
        return bool(np.isfinite(float(line)))
    except ValueError:
        return False


def _ascending(path: Path) -> np.ndarray:
    """Spike times; equal ones may follow each other, earlier ones may not."""
    times = read_column(path, "spike times")
    back = np.flatnonzero(np.diff(times) < 0)
    if back.size:
        i = int(back[0])
        raise ValueError(
            f"spike times: {path.name}, spike {i + 2}: {times[i + 1]:g} s comes after "
            f"{times[i]:g} s; times must ascend: sort the file, or check that it holds one cell"
        )
    return times


def _parameters(
    folder: Path, names: list[str]
) -> tuple[str | None, dict[str, str], FrozenNoise | None]:
    """Type and parameters of the stimulus, and its plan, from the one parameter file (if any)."""
    found = {}
    for name in names:
        if name.endswith(".txt") and not SPIKES.fullmatch(name):
            parsed = _parsed_parameters(folder / name)
            if parsed is not None:
                found[name] = parsed
    if len(found) > 1:
        raise ValueError(
            f"path={str(folder)!r} holds several parameter files ({', '.join(found)}): leave only "
            "that of this stimulus"
        )
    if not found:
        return None, {}, None
    ((name, (stimulus_type, parameters)),) = found.items()
    if stimulus_type != "FrozenNoise" and "FrozenFrames" not in parameters:
        return stimulus_type, parameters, None
    plan = FrozenNoise(
        running_frames=_whole_number(parameters, "RunningFrames", name),
        frozen_frames=_whole_number(parameters, "FrozenFrames", name),
    )
    return stimulus_type, parameters, plan


def _parsed_parameters(path: Path) -> tuple[str, dict[str, str]] | None:
    """Type and parameters, or None where the file is not made of ``key = value`` lines."""
    # Other encodings only spoil a unit or a name here, which nothing depends on.
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) < 2 or "=" in lines[0] or any("=" not in line for line in lines[1:]):
        return None
    pairs = (line.split("=", 1) for line in lines[1:])
    return lines[0], {key.strip(): value.strip() for key, value in pairs}


def _whole_number(parameters: dict[str, str], key: str, name: str) -> int:
    if key not in parameters:
        raise ValueError(
            f"{name} describes frozen noise but has no {key!r}; {nearest_names(key, parameters)}"
        )
    if not re.fullmatch(r"[0-9]+", parameters[key]) or int(parameters[key]) < 1:
        raise ValueError(
            f"{name}: {key} = {parameters[key]}; expected a whole number of at least 1"
        )
    return int(parameters[key])
