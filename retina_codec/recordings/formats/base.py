"""What a file format is to the door: a name, how it is recognised, how it is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import xarray as xr

from retina_codec.recordings.assembly import Plan

Read = tuple[xr.DataTree, list[str]]


@dataclass(frozen=True)
class Options:
    """What the caller of `open_recording` said beyond the path; None = not said."""

    stimulus: Any = None
    frame_times: Any = None
    bin_width: Any = None
    cells: Iterable[object] | None = None
    mapping: Mapping[str, Any] | str | os.PathLike[str] | None = None
    plan: Plan | str | None = None
    frames: tuple[int, int] | None = None

    def given(self) -> list[str]:
        """Names of the options that were given."""
        return [field.name for field in fields(self) if getattr(self, field.name) is not None]


@dataclass(frozen=True)
class Format:
    """A file format.

    Parameters
    ----------
    name : str
        As in ``open_recording(format=...)``.
    expects : str
        What stands at the path, in a few words, for messages.
    takes : tuple of str
        Options that apply.
    recognises : callable
        Whether what stands at a path is of this format, from names and a look inside; never
        raises.
    read : callable
        Path and options -> the tree, and notes to warn of.
    """

    name: str
    expects: str
    takes: tuple[str, ...]
    recognises: Callable[[Path], bool]
    read: Callable[[Path, Options], Read]
