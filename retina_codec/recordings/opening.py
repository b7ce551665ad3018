"""Recordings from and to files: the formats, how each is recognised, and the door to them."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import quantities as pq
import xarray as xr

from retina_codec._common.checks import magnitude, require_choice
from retina_codec._common.files import TREE_SUFFIXES, open_tree, save_tree
from retina_codec._common.time import bin_width_of
from retina_codec.recordings.binning import require_matching_width
from retina_codec.recordings.from_neo import build_recording
from retina_codec.recordings.nodes import chosen_cells, require_node
from retina_codec.recordings.text import read_text_folder

FORMATS = ("text", "tree")


def open_recording(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    stimulus: str | os.PathLike[str] | None = None,
    frame_times: str | os.PathLike[str] | None = None,
    bin_width: float | pq.Quantity | None = None,
    cells: Iterable[object] | None = None,
    mapping: Mapping[str, str] | None = None,
) -> xr.DataTree:
    r"""Open a recording of ganglion cells, with the frames of its stimulus aligned to the spikes.

    Parameters
    ----------
    path : path
        What to open, by format:

        ``"text"``
            a folder with ``frametimes_<stem>.txt`` (frame marks, seconds), ``stimulus_<stem>.txt``
            (one value a frame of a full-field movie), ``<stem>_C<id>.txt`` (spike times of a cell,
            ascending, seconds, on the clock of the marks), one number a line; and, where the
            stimulus has repeats, a parameter file: the type ``FrozenNoise``, then ``key = value``
            lines with ``RunningFrames`` and ``FrozenFrames``.
        ``"tree"``
            what `save_recording` wrote (``.zarr`` or ``.nc``); opened lazily.
    format : {"text", "tree"}, optional
        The format; recognised from `path` if not given.
    stimulus, frame_times : path, optional
        For ``"text"``: the files to use, in the folder or elsewhere, where names do not tell.
    bin_width : float or quantity, optional
        Seconds. Must agree with the mean frame interval within 2 %, and takes its place
        (``"text"``), or with the bin width of each node (``"tree"``).
    cells : list of ids, optional
        Cells to keep, in this order.
    mapping : mapping, optional
        Which entry of a file is what, for formats without fixed names: none so far.

    Returns
    -------
    xarray.DataTree
        One node a part: ``train`` with stimulus(time, [color,] y, x), spike_count(time, cell) and
        rate(time, cell) in Hz; for a stimulus with repeats ``test`` too, with
        spike_count(repeat, time, cell). See `recording_from_neo`. The attrs of the root say how it
        was made; where frames are left out or marks are late, ``attrs["notes"]`` says so.

    Raises
    ------
    FileNotFoundError
        If `path` or a file of the recording does not exist.
    OSError
        If a file cannot be read.
    ValueError
        If the format is unknown or cannot be recognised, a file holds something else than it
        should (file and line are named), frames and marks do not fit, a cell is unknown, or an
        argument does not apply to the format.

    Warns
    -----
    UserWarning
        About frames that are not used, and about late frame marks.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from retina_codec.recordings import open_recording
    >>> with tempfile.TemporaryDirectory() as name:
    ...     folder = Path(name)
    ...     _ = (folder / "frametimes_flicker.txt").write_text("0.5\n0.6\n0.7\n0.8\n")
    ...     _ = (folder / "stimulus_flicker.txt").write_text("1\n-1\n1\n")
    ...     _ = (folder / "flicker_C7.txt").write_text("0.1\n0.55\n0.58\n0.72\n")
    ...     recording = open_recording(folder)
    >>> recording["train"]["spike_count"].sel(cell="C7").values
    array([2, 0, 1], dtype=int32)
    """
    path = Path(path)
    if format is not None:
        require_choice(format, FORMATS, "format")
    if not path.exists():
        raise FileNotFoundError(f"path={str(path)!r} does not exist")
    if format is None:
        format = _recognised(path)
    if mapping is not None:
        raise ValueError(f"mapping was given, but format {format!r} takes none: leave it out")
    if format == "text":
        if not path.is_dir():
            raise NotADirectoryError(
                f"path={str(path)!r} is a file; format 'text' expects the folder which holds it"
            )
        return _open_text(path, stimulus, frame_times, bin_width, cells)
    for argument, value in (("stimulus", stimulus), ("frame_times", frame_times)):
        if value is not None:
            raise ValueError(f"{argument} was given, but format 'tree' holds its own: leave it out")
    return _open_tree(path, bin_width, cells)


def save_recording(recording: xr.DataTree, path: str | os.PathLike[str]) -> Path:
    """Write a recording to Zarr or netCDF; `open_recording` gives it back identically.

    Parameters
    ----------
    recording : xarray.DataTree
        As from `open_recording`: a tree with at least one node that holds stimulus and
        spike_count.
    path : path
        Ends in ``.zarr`` or ``.nc``; what stands there is replaced when all is written.

    Returns
    -------
    pathlib.Path
        `path`.

    Raises
    ------
    TypeError
        If `recording` is not a DataTree.
    ValueError
        If it holds no node of a recording, or the suffix is another one.

    Examples
    --------
    >>> import neo, numpy as np, pathlib, quantities as pq, tempfile
    >>> from retina_codec.recordings import open_recording, recording_from_neo, save_recording
    >>> segment = neo.Segment()
    >>> segment.spiketrains.append(neo.SpikeTrain([0.05, 0.31] * pq.s, t_stop=1, name="C1"))
    >>> recording = recording_from_neo(
    ...     segment, stimulus=np.ones(4), frame_times=np.arange(4) * 0.1 * pq.s
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_recording(recording, pathlib.Path(folder) / "recording.nc")
    ...     again = open_recording(path).load().identical(recording)
    >>> again
    True
    """
    if not isinstance(recording, xr.DataTree):
        raise TypeError(
            f"recording is a {type(recording).__name__}; expected an xarray.DataTree, as from "
            "open_recording"
        )
    _require_recording(recording, "recording")
    return save_tree(recording, path)


def _recognised(path: Path) -> str:
    """Name the format of what stands at `path`."""
    if path.suffix in TREE_SUFFIXES:
        return "tree"
    if path.is_dir():
        return "text"
    raise ValueError(
        f"path={str(path)!r} is a file of no known format; known: 'text' (a folder of text files; "
        "give the folder), 'tree' (.zarr or .nc)"
    )


def _open_text(
    folder: Path, stimulus: Any, frame_times: Any, bin_width: Any, cells: Any
) -> xr.DataTree:
    read = read_text_folder(folder, stimulus=stimulus, frame_times=frame_times, cells=cells)
    tree, notes = build_recording(
        read.segment,
        stimulus=read.stimulus,
        frame_times="frames",
        plan=read.plan,
        bin_width=bin_width,
    )
    tree.attrs |= {"source_format": "text", "source": folder.resolve().name}
    if read.stimulus_type is not None:
        tree.attrs |= {
            "stimulus_type": read.stimulus_type,
            "stimulus_parameters": json.dumps(read.parameters),
        }
    for note in notes:
        warnings.warn(note, UserWarning, stacklevel=3)
    return tree


def _open_tree(path: Path, bin_width: Any, cells: Any) -> xr.DataTree:
    tree = open_tree(path)
    nodes = _require_recording(tree, "path")
    if bin_width is not None:
        for data in nodes:
            require_matching_width(
                magnitude(bin_width, "s", "bin_width"), bin_width_of(data, "path")
            )
    if cells is None:
        return tree
    shared = [cell for cell in _ids(nodes[0]) if all(cell in _ids(data) for data in nodes)]
    wanted = chosen_cells(shared, cells)

    def of_cells(data: xr.Dataset) -> xr.Dataset:
        if "cell" not in data.coords:
            return data
        ids = _ids(data)
        return data.isel(cell=[ids.index(cell) for cell in wanted])

    return tree.map_over_datasets(of_cells)


def _ids(data: xr.Dataset) -> list[str]:
    return [str(cell) for cell in data["cell"].values]


def _require_recording(tree: xr.DataTree, argument: str) -> list[xr.Dataset]:
    """Nodes that hold stimulus and spike_count; ValueError if there are none."""
    nodes = [node for node in tree.subtree if "spike_count" in node.data_vars]
    if not nodes:
        held = ", ".join(node.path for node in tree.subtree)
        raise ValueError(
            f"{argument} is no recording: none of its nodes ({held}) holds 'spike_count'; expected "
            "a node such as 'train' with stimulus(time, y, x) and spike_count(time, cell)"
        )
    needed = ("stimulus", "spike_count")
    return [require_node(node, f"{argument}[{node.path!r}]", variables=needed) for node in nodes]
