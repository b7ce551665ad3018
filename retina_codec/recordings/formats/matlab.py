"""MATLAB files with binned data: ``Stim`` (frame, 1), ``SpCounts`` (frame, cell), ``dtStim``.

The layout of `RGCdata.mat` (Uzzell & Chichilnisky 2004, as kept by the Pillow laboratory): one
full-field value a frame, the spike counts of each cell in the same frames, and the duration of a
frame in seconds. Files of MATLAB 5 to 7 and of MATLAB 7.3 (HDF5, whose axes stand in reverse
order). Other files of MATLAB are opened with ``mapping=``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
import scipy.sparse
import xarray as xr

from retina_codec._common.checks import nearest_names, require_finite
from retina_codec.recordings.formats.base import Format, Options, Read
from retina_codec.recordings.formats.binned import (
    agreed_bin_width,
    binned_node,
    binned_tree,
    given_bin_width,
    matched,
    regular_bins,
    require_cells,
    require_counts,
    require_plausible_counts,
)
from retina_codec.recordings.formats.hdf5 import dataset_names, opened, require_dataset
from retina_codec.recordings.nodes import chosen_cells
from retina_codec.stimuli.sources import open_movie

STIMULUS, COUNTS, WIDTH = "Stim", "SpCounts", "dtStim"
NEEDED = (STIMULUS, COUNTS, WIDTH)
SUFFIX = ".mat"
HEADER = 128  # bytes, of MATLAB 5 to 7


def is_new_matlab(path: Path) -> bool:
    """Whether a file of MATLAB is one of version 7.3, which is HDF5."""
    return bool(h5py.is_hdf5(path))


def matlab_names(path: Path) -> list[str]:
    """Names of the variables of a file of MATLAB; OSError where it is damaged."""
    if is_new_matlab(path):
        with opened(path) as file:
            return [name for name in dataset_names(file) if "/" not in name]
    with _clear_errors(path):
        _require_whole(path)
        return [name for name, _, _ in scipy.io.whosmat(path)]


def read_matlab(path: Path, names: list[str] | None = None) -> dict[str, Any]:
    """Variables of a file of MATLAB 5 to 7, with the axes that MATLAB shows."""
    with _clear_errors(path):
        _require_whole(path)
        held = scipy.io.loadmat(path, variable_names=names)
    return {
        name: value.toarray() if scipy.sparse.issparse(value) else value
        for name, value in held.items()
        if not name.startswith("__")
    }


def _require_whole(path: Path) -> None:
    """Raise ValueError unless the variables of a MATLAB 5 file fill it to its end.

    Each begins with its type and its length in bytes. SciPy takes a variable that is cut off for
    the end of the file, and says nothing.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(HEADER)
        if 0 in header[:4]:
            return  # MATLAB 4, which has no header
        if header[126:] not in (b"IM", b"MI"):
            raise ValueError("it has no header of MATLAB")
        order = "<" if header[126:] == b"IM" else ">"
        place = HEADER
        while place < size:
            file.seek(place)
            tag = file.read(8)
            place += 8 + (struct.unpack(f"{order}I", tag[4:])[0] if len(tag) == 8 else 0)
    if place != size or size < HEADER:
        raise ValueError(f"its variables need {place} bytes, {size} are there")


@contextmanager
def _clear_errors(path: Path) -> Iterator[None]:
    """Whatever SciPy raises of a damaged file becomes one OSError."""
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:  # struct, zlib, type and value errors, by where the damage is
        text = " ".join(str(error).split()) or type(error).__name__
        raise OSError(
            f"path={str(path)!r} is no readable file of MATLAB ({text}); it is cut off, damaged, "
            "or of another kind: copy it anew"
        ) from error


def _recognises(path: Path) -> bool:
    try:
        return path.suffix.lower() == SUFFIX and set(NEEDED) <= set(matlab_names(path))
    except OSError:
        return False


def _read(path: Path, options: Options) -> Read:
    names = matlab_names(path)
    for name in NEEDED:
        if name not in names:
            raise ValueError(
                f"path={str(path)!r} has no variable {name!r}, which the format 'matlab_binned' "
                f"needs; {nearest_names(name, names)}: say with mapping= what the variables are"
            )
    held = _variables(path)
    stimulus, counts = held[STIMULUS], held[COUNTS]
    if stimulus.ndim != 2 or 1 not in stimulus.shape:
        raise ValueError(
            f"path: {STIMULUS} has shape {stimulus.shape}; expected (frame, 1), one value a frame: "
            "say with mapping= what its axes are"
        )
    if counts.ndim != 2:
        raise ValueError(f"path: {COUNTS} has shape {counts.shape}; expected (frame, cell)")
    if held[WIDTH].size != 1:
        raise ValueError(f"path: {WIDTH} has shape {held[WIDTH].shape}; expected one number")
    found = given_bin_width(float(held[WIDTH].ravel()[0]), f"path: {WIDTH}")
    width = agreed_bin_width(options.bin_width, found)
    ids = require_cells(range(1, counts.shape[1] + 1))
    wanted = chosen_cells(ids, options.cells)
    chosen = counts[:, [ids.index(cell) for cell in wanted]]
    movie = open_movie(stimulus.ravel(), units="1")
    require_finite(movie, f"stimulus ({STIMULUS})")
    movie, notes = matched(movie, len(chosen), "train")
    chosen = require_counts(chosen, width, f"path: {COUNTS}")
    notes += require_plausible_counts(chosen, wanted, width, "train")
    node: xr.Dataset = binned_node(
        movie,
        onsets=regular_bins(len(chosen), width),
        bin_width=width,
        cells=wanted,
        counts=chosen,
        block=np.zeros(len(chosen), dtype=np.int64),
    )
    return binned_tree({"train": node}, notes, function="matlab_binned", bin_width=width)


def _variables(path: Path) -> Mapping[str, np.ndarray]:
    """Read the variables of the layout, with the axes that MATLAB shows."""
    if is_new_matlab(path):
        with opened(path) as file:
            return {name: require_dataset(file, name)[...].T for name in NEEDED}
    return read_matlab(path, list(NEEDED))


MATLAB_BINNED = Format(
    name="matlab_binned",
    expects=f"a .mat file with {', '.join(NEEDED)}",
    takes=("bin_width", "cells"),
    recognises=_recognises,
    read=_read,
)
