"""Folders of text files: frame marks, stimulus values, spike times, parameters."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from retina_codec._common.checks import nearest_names
from retina_codec.recordings.assembly import Presentation, assemble
from retina_codec.recordings.binning import checked_marks
from retina_codec.recordings.formats.base import Format, Options, Read
from retina_codec.recordings.nodes import chosen_cells
from retina_codec.recordings.plan import FrozenNoise
from retina_codec.recordings.spikes import SpikeTimes
from retina_codec.stimuli.sources import open_movie

MARKS = "frametimes_"
STIMULUS = "stimulus_"
SPIKES = re.compile(r"(?P<stem>.+)_(?P<id>C[0-9]+)\.txt")
REFERENCE_STEM = "STA"  # STA_C<id>.txt: spike-triggered averages kept beside the spikes
LAYOUT = "frametimes_<stem>.txt, stimulus_<stem>.txt and <stem>_C<id>.txt"


@dataclass(frozen=True)
class Parameters:
    """Type and parameters of a stimulus, and the file that tells them (all empty without one)."""

    stimulus_type: str | None = None
    values: dict[str, str] = field(default_factory=dict)
    file: str = ""

    def text_of(self, key: str) -> str:
        """Value of `key` as it stands in the file; ValueError if there is none."""
        if key not in self.values:
            raise ValueError(f"{self.file} has no {key!r}; {nearest_names(key, self.values)}")
        return self.values[key]

    def whole_numbers(self, key: str) -> list[int]:
        """Whole numbers of `key`: one, or one for each of several stimuli."""
        words = self.text_of(key).split()
        if not words or not all(re.fullmatch(r"[0-9]+", word) and int(word) > 0 for word in words):
            raise ValueError(
                f"{self.file}: {key} = {self.text_of(key)}; expected whole numbers of at least 1"
            )
        return [int(word) for word in words]

    def decimals(self, key: str) -> list[float]:
        """Numbers of `key` that are not negative."""
        words = self.text_of(key).split()
        if not words or not all(re.fullmatch(r"[0-9]+(\.[0-9]+)?", word) for word in words):
            raise ValueError(
                f"{self.file}: {key} = {self.text_of(key)}; expected numbers of at least 0"
            )
        return [float(word) for word in words]

    def describe(self, tree: xr.DataTree) -> None:
        """Keep type and parameters with the recording."""
        if self.stimulus_type is not None:
            tree.attrs["stimulus_type"] = self.stimulus_type
            tree.attrs["stimulus_parameters"] = json.dumps(self.values)


def _recognises(path: Path) -> bool:
    # An empty folder too: the reader then says what it misses.
    return path.is_dir() and (any(path.glob("*.txt")) or not any(path.iterdir()))


def _read(folder: Path, options: Options) -> Read:
    """Read marks, stimulus, spikes and plan, and assemble them."""
    names = file_names(folder)
    marks_file = _the_file(folder, names, MARKS, options.frame_times, "frame_times", stem=None)
    stem = marks_file.name.removeprefix(MARKS).removesuffix(".txt")
    stimulus_file = _the_file(folder, names, STIMULUS, options.stimulus, "stimulus", stem=stem)
    found = spike_files(folder, names, stem)
    marks = read_column(marks_file, "frame_times")
    spikes = read_spikes(found, options.cells)
    values = read_column(stimulus_file, "stimulus")
    taken = {marks_file.name, stimulus_file.name, *(path.name for path in found.values())}
    parameters = read_parameters(folder, [n for n in names if n not in taken])
    plan = _plan(parameters) if options.plan is None else options.plan
    tree, notes = assemble(
        spikes,
        [Presentation(open_movie(values), checked_marks(marks), plan, options.frames)],
        bin_width=options.bin_width,
    )
    parameters.describe(tree)
    return tree, notes


def file_names(folder: Path) -> list[str]:
    """Names of the files of a folder, sorted; FileNotFoundError if there are none."""
    if not folder.is_dir():
        raise NotADirectoryError(
            f"path={str(folder)!r} is a file; a recording in text files expects the folder which "
            "holds it"
        )
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    if not names:
        raise FileNotFoundError(f"path={str(folder)!r} holds no files; expected {LAYOUT}")
    return names


def read_spikes(files: dict[str, Path], cells: Any) -> SpikeTimes:
    """Spike times of the chosen cells, one file each."""
    ids = chosen_cells(list(files), cells)
    return SpikeTimes.from_trains({name: _ascending(files[name]) for name in ids})


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


def spike_files(folder: Path, names: list[str], stem: str) -> dict[str, Path]:
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


def read_parameters(folder: Path, names: list[str]) -> Parameters:
    """Type and parameters of the stimulus, from the one parameter file (if there is one)."""
    found = []
    for name in names:
        if name.endswith(".txt") and not SPIKES.fullmatch(name):
            parsed = _parsed_parameters(folder / name)
            if parsed is not None:
                found.append(Parameters(*parsed, name))
    if len(found) > 1:
        raise ValueError(
            f"path={str(folder)!r} holds several parameter files "
            f"({', '.join(parameters.file for parameters in found)}): leave only that of this "
            "stimulus"
        )
    return found[0] if found else Parameters()


def _plan(parameters: Parameters) -> FrozenNoise | None:
    if parameters.stimulus_type != "FrozenNoise" and "FrozenFrames" not in parameters.values:
        return None
    return FrozenNoise(
        running_frames=parameters.whole_numbers("RunningFrames")[0],
        frozen_frames=parameters.whole_numbers("FrozenFrames")[0],
    )


def _parsed_parameters(path: Path) -> tuple[str, dict[str, str]] | None:
    """Type and parameters, or None where the file is not made of ``key = value`` lines."""
    # Other encodings only spoil a unit or a name here, which nothing depends on.
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) < 2 or "=" in lines[0] or any("=" not in line for line in lines[1:]):
        return None
    pairs = (line.split("=", 1) for line in lines[1:])
    return lines[0], {key.strip(): value.strip() for key, value in pairs}


TEXT = Format(
    name="text",
    expects=f"a folder with {LAYOUT}",
    takes=("stimulus", "frame_times", "bin_width", "cells", "plan", "frames"),
    recognises=_recognises,
    read=_read,
)
