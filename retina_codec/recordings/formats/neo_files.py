"""Any file that neo reads and that holds spike trains; stimulus and frame marks come with it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import neo
import numpy as np
import xarray as xr

from retina_codec._common.checks import nearest_names
from retina_codec.recordings.formats.base import Format, Options, Read
from retina_codec.recordings.formats.text import read_column
from retina_codec.recordings.from_neo import recorded_of
from retina_codec.recordings.recorded import Recorded, tree_of

PICKLES = (".pkl", ".pickle")
# Suffixes of neo's formats that say nothing: such files are read where format="neo" is given.
COMMON = {"", "txt", "dat", "npy", "bin", "json", "xml", "h5", "mat", "tsv", "set", "meta"}
COMMON |= {str(number) for number in range(1, 33)}


def _recognises(path: Path) -> bool:
    if path.suffix.lower() in PICKLES:
        return path.is_file()
    try:
        if path.is_file():
            return path.suffix[1:].lower() not in COMMON and bool(_readers(path))
        suffixes = {file.suffix[1:].lower() for file in path.iterdir() if file.is_file()} - COMMON
        return any(
            reader.mode == "dir" and suffixes & {suffix.lower() for suffix in reader.extensions}
            for reader in neo.io.iolist
            if _has_spikes(reader)
        )
    except (OSError, ValueError):
        return False


def _has_spikes(reader: Any) -> bool:
    held = [*reader.supported_objects, *reader.readable_objects]
    return neo.SpikeTrain in held and reader is not neo.io.PickleIO


def _readers(path: Path) -> list[Any]:
    """Readers of neo that go by the suffix, and give spike trains."""
    return [reader for reader in neo.io.list_candidate_ios(path) if _has_spikes(reader)]


def _read(path: Path, options: Options) -> Read:
    return read_recorded(recorded_of(_block(path)), path, options)


def _block(path: Path) -> neo.Block:
    """Read the block with spike trains, by the first reader that finds one."""
    if path.suffix.lower() in PICKLES:
        raise ValueError(
            f"path={str(path)!r} is a pickle, which can run any program when it is opened: it is "
            "not read. Open it where you trust it, and write it with neo.NixIO or neo.io.NWBIO"
        )
    try:
        readers = _readers(path)
    except ValueError:
        readers = []
    if not readers:
        raise ValueError(
            f"path={str(path)!r}: neo knows no reader of spike trains for it; expected a file such "
            "as .nix, .plx, .nev, .smr, .nex or .mat (neo's own), or a folder of such"
        )
    failed = []
    for reader in readers:
        try:
            io = reader(str(path))
            try:
                blocks = io.read(lazy=False)
            finally:
                if hasattr(io, "close"):
                    io.close()
        except Exception as error:  # each reader fails in its own way on what it cannot read
            text = " ".join(str(error).split())[:200]
            failed.append(f"{reader.__name__}: {type(error).__name__} {text}")
            continue
        found = [
            block for block in blocks if any(len(segment.spiketrains) for segment in block.segments)
        ]
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError(
                f"path={str(path)!r} holds {len(found)} neo blocks with spike trains; read it with "
                f"neo.io.{reader.__name__} and give one to recording_from_neo"
            )
        failed.append(f"{reader.__name__}: no spike trains in it")
    raise OSError(
        f"path={str(path)!r} cannot be read by neo ({'; '.join(failed)}); check that the file is "
        "whole and of the format its suffix says"
    )


def read_recorded(parts: Sequence[Recorded], path: Path, options: Options) -> Read:
    """Tree of the segments of a file that holds no movie, with the options of its caller."""
    if options.stimulus is None:
        raise ValueError(
            f"stimulus was not given, and path={str(path)!r} holds no movie; give stimulus= (the "
            "path of a movie, an array, or a description)"
        )
    return tree_of(
        parts,
        stimulus=stimulus_option(options.stimulus, path),
        frame_times=marks_option(options.frame_times, path, parts),
        plan=options.plan,
        frames=options.frames,
        bin_width=options.bin_width,
        cells=options.cells,
    )


def stimulus_option(stimulus: Any, path: Path) -> Any:
    """Stimulus as given; a name of a file beside the recording as its path."""
    if (
        isinstance(stimulus, Mapping)
        and not isinstance(stimulus, xr.Dataset)
        and ("kind" not in stimulus)
    ):
        return {name: stimulus_option(one, path) for name, one in stimulus.items()}
    if isinstance(stimulus, str | os.PathLike):
        beside = path.parent / stimulus
        return read_values(beside if beside.exists() else Path(stimulus), "stimulus")
    return stimulus


def read_values(path: Path, argument: str) -> Any:
    """Values of a text file with one number a line; other files by their path."""
    if path.suffix.lower() != ".txt":
        return path
    if not path.is_file():
        raise FileNotFoundError(f"{argument}={str(path)!r} does not exist")
    return read_column(path, argument)


def marks_option(frame_times: Any, path: Path, parts: Sequence[Recorded]) -> Any:
    """Frame marks as given: a name in the file, else a text file with one time (s) a line."""
    if isinstance(frame_times, Mapping):
        return {name: marks_option(one, path, parts) for name, one in frame_times.items()}
    if isinstance(frame_times, list | tuple):
        return [marks_option(one, path, parts) for one in frame_times]
    if not isinstance(frame_times, str | os.PathLike):
        return frame_times
    names = [
        name
        for part in parts
        for name in (*part.events, *(table.name for table in part.tables), *part.signals)
    ]
    if str(frame_times) in names:
        return str(frame_times)
    for file in (path.parent / frame_times, Path(frame_times)):
        if file.is_file():
            return read_marks(file)
    raise ValueError(
        f"frame_times={str(frame_times)!r} is no event, epoch or channel in {path.name}, and no "
        f"file; {nearest_names(frame_times, dict.fromkeys(names)) if names else 'it holds none'}"
    )


def read_marks(path: Path) -> np.ndarray:
    """Read times in seconds: a text file with one a line, or a ``.npy``."""
    if path.suffix.lower() != ".npy":
        return read_column(path, "frame_times")
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        text = " ".join(str(error).split())
        raise OSError(f"frame_times={str(path)!r} is not a readable NumPy file: {text}") from error


NEO = Format(
    name="neo",
    expects="a file that neo reads, with spike trains (.plx, .nev, .smr, .nex, ...)",
    takes=("stimulus", "frame_times", "bin_width", "cells", "plan", "frames"),
    recognises=_recognises,
    read=_read,
)
