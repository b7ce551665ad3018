"""Recordings from and to files: the formats, how each is recognised, and the door to them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import quantities as pq
import xarray as xr

from retina_codec._common.checks import require_choice
from retina_codec._common.files import TREE_SUFFIXES, save_tree
from retina_codec.recordings.assembly import Plan
from retina_codec.recordings.formats import FORMATS, Format, Options
from retina_codec.recordings.formats.hdf5 import require_whole
from retina_codec.recordings.formats.nix_writing import save_nix
from retina_codec.recordings.formats.nwb_writing import save_nwb
from retina_codec.recordings.formats.stored import SAVED_TREE
from retina_codec.recordings.formats.tree import require_recording


def open_recording(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    stimulus: Any = None,
    frame_times: Any = None,
    bin_width: float | pq.Quantity | None = None,
    cells: Iterable[object] | None = None,
    mapping: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    plan: Plan | str | None = None,
    frames: tuple[int, int] | None = None,
) -> xr.DataTree:
    r"""Open a recording of ganglion cells, with the frames of its stimulus aligned to the spikes.

    Parameters
    ----------
    path : path
        What to open. Formats are recognised by names and by what is inside:

        ``"tree"``
            ``.zarr`` or ``.nc`` of `save_recording`; opened lazily.
        ``"nwb"``, ``"nix"``
            NWB 2 and NIX: spike trains, events, epochs and movies, from any writer.
        ``"text"``
            a folder with ``frametimes_<stem>.txt`` (frame marks, seconds), ``stimulus_<stem>.txt``
            (one value a frame of a full-field movie), ``<stem>_C<id>.txt`` (spike times of a cell,
            ascending, seconds, on the clock of the marks), one number a line; and, where the
            stimulus has repeats, a parameter file: the type ``FrozenNoise``, then ``key = value``
            lines with ``RunningFrames`` and ``FrozenFrames``.
        ``"text_steps"``, ``"text_gratings"``
            such folders with pulses in ``stimulus.txt``, of light steps and of drifting gratings.
        ``"baccus"``, ``"baccus_interneurons"``
            HDF5 of the Baccus laboratory: ganglion cells; interneurons.
        ``"open_retina"``
            HDF5 of open-retina.
        ``"matlab_binned"``
            MATLAB with ``Stim``, ``SpCounts`` and ``dtStim``.
        ``"mapped"``
            any HDF5, netCDF, NPZ or MATLAB file, with a `mapping`.
        ``"neo"``
            any other file that neo reads and that holds spike trains.

        ``docs/recordings.md`` has the layouts in full.
    format : str, optional
        The format, where it cannot be recognised, or is to be another one.
    stimulus : path, array, mapping or a mapping of these, optional
        The movie, where the file has none or several; as in `recording_from_neo` for neo, NWB and
        NIX; the file to use for ``"text"``.
    frame_times : str, path or array, optional
        The frame marks, where names do not tell: the name of an event or channel, or a text file.
    bin_width : float or quantity, optional
        Seconds. Must agree with the mean frame interval within 2 %, and takes its place; needed
        where a file has no clock.
    cells : list of ids, optional
        Cells to keep, in this order.
    mapping : mapping or path of a YAML file, optional
        Which entry of the file is what; see `retina_codec.recordings.formats.mapped`.
    plan : FrozenNoise, RepeatedFrames or str, optional
        The repeats in the stimulus; see `recording_from_neo`.
    frames : (int, int), optional
        First frame of the stimulus to use, and the one after the last.

    Returns
    -------
    xarray.DataTree
        One node a stimulus or part: ``train`` with stimulus(time, [color,] y, x),
        spike_count(time, cell) and rate(time, cell) in Hz; for a stimulus with repeats ``test``
        too, with spike_count(repeat, time, cell); potential(time, interneuron) in mV for
        interneurons. ``spikes``, ``frames`` and ``epochs`` hold spike times, frame marks and
        epochs. See `recording_from_neo`. The attrs of the root say how it was made; where frames
        are left out or marks are late, ``attrs["notes"]`` says so.

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
        About frames that are not used, late, doubled or lost frame marks, pauses, spikes outside
        the stimulus, and whatever a format leaves to be assumed.

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
    formats = {known.name: known for known in FORMATS}
    if format is not None:
        require_choice(format, list(formats), "format")
    if not path.exists():
        raise FileNotFoundError(f"path={str(path)!r} does not exist")
    options = Options(stimulus, frame_times, bin_width, cells, mapping, plan, frames)
    if format is not None:
        chosen = formats[format]
    elif mapping is not None:
        chosen = formats["mapped"]
    else:
        chosen = _recognised(path)
    for argument in options.given():
        if argument not in chosen.takes:
            raise ValueError(
                f"{argument} was given, but format {chosen.name!r} ({chosen.expects}) takes only "
                f"{', '.join(chosen.takes)}: leave it out"
            )
    tree, notes = chosen.read(path, options)
    # A saved recording is given back as it was.
    if chosen.name != "tree" and not tree.encoding.pop(SAVED_TREE, False):
        tree.attrs.setdefault("source_format", chosen.name)
        tree.attrs.setdefault("source", path.resolve().name)
    for note in notes:
        warnings.warn(note, UserWarning, stacklevel=2)
    return tree


def save_recording(recording: xr.DataTree, path: str | os.PathLike[str]) -> Path:
    """Write a recording; `open_recording` gives it back identically.

    Parameters
    ----------
    recording : xarray.DataTree
        As from `open_recording`: a tree with at least one node that holds stimulus and
        spike_count. NWB and NIX need its spike times too (node ``spikes``).
    path : path
        Ends in ``.zarr`` (Zarr), ``.nc`` (netCDF), ``.nwb`` (NWB 2) or ``.nix`` (NIX); what stands
        there is replaced when all is written. NWB and NIX hold spike trains, frame marks and epochs
        so that other programs find them, and the nodes: NIX as data arrays, NWB in a file
        ``<name>_stimulus.h5`` beside, which it references as the external file of its image series.

    Returns
    -------
    pathlib.Path
        `path`.

    Raises
    ------
    TypeError
        If `recording` is not a DataTree.
    ValueError
        If it holds no node of a recording, has no spike times for NWB and NIX, or the suffix is
        another one.
    ImportError
        If pynwb (for NWB) or nixio (for NIX) is not installed.

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
    require_recording(recording, "recording")
    path = Path(path)
    writers = {".nwb": save_nwb, ".nix": save_nix, **dict.fromkeys(TREE_SUFFIXES, save_tree)}
    if path.suffix not in writers:
        raise ValueError(f"path={str(path)!r}: expected a name ending in {', '.join(writers)}")
    return writers[path.suffix](recording, path)


def _recognised(path: Path) -> Format:
    """Return the format of what stands at `path`."""
    for format in FORMATS:
        if format.recognises(path):
            return format
    require_whole(path)
    known = "; ".join(f"{format.name!r}: {format.expects}" for format in FORMATS)
    kind = "folder" if path.is_dir() else "file"
    raise ValueError(
        f"path={str(path)!r} is a {kind} of no known layout; name it with format= or say with "
        f"mapping= what its entries are. Known: {known}"
    )
