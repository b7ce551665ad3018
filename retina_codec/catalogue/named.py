"""A data set opened by its name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import xarray as xr

from retina_codec._common.checks import nearest_names
from retina_codec.catalogue.description import DatasetInfo
from retina_codec.catalogue.registry import (
    by_hand,
    dataset,
    files_folder,
    is_complete,
    missing_files,
    recordings_in,
)
from retina_codec.recordings import open_recording


def open_dataset(
    name: str,
    *,
    folder: str | os.PathLike[str] | None = None,
    recording: str | None = None,
    **options: Any,
) -> xr.DataTree:
    """Open a data set by its name. Nothing is downloaded: `fetch_dataset` does that.

    Parameters
    ----------
    name : str
        One of `dataset_names`.
    folder : path, optional
        Data folder, which holds a folder for each data set; that of the environment variable
        ``RETINA_CODEC_DATA`` by default, or else the platform's cache.
    recording : str, optional
        Which one, where the set holds several: its path in the folder of the set, or the end of it
        where that is the only one to end so.
    **options
        Arguments of `retina_codec.recordings.open_recording`, such as ``cells=[...]``. They take
        the place of those in the description of the set.

    Returns
    -------
    xarray.DataTree
        The recording, as from `open_recording`; ``attrs["dataset"]`` is `name`.

    Raises
    ------
    FileNotFoundError
        If files of the set are not on this machine; the message says how to get them.
    ValueError
        If no data set has that name, its layout is none that can be read, it holds several
        recordings and none was chosen, or `recording` is none of them.

    Examples
    --------
    >>> from retina_codec.catalogue import open_dataset
    >>> recording = open_dataset("simulated_sample", cells=["on_transient_0"])
    >>> dict(recording["test"]["spike_count"].sizes)
    {'repeat': 10, 'time': 400, 'cell': 1}
    """
    info = dataset(name)
    root = files_folder(info, folder)
    if info.layout is None:
        raise ValueError(
            f"name={name!r}: the files of this set cannot be opened by name: {info.not_read} "
            f"'retina-codec datasets show {name}' says what is in them"
        )
    if not is_complete(info, root):
        raise FileNotFoundError(_not_here(info, root))
    path = _chosen(name, recordings_in(info, root), recording)
    tree = open_recording(path, **{"format": info.layout, **info.options, **options})
    tree.attrs |= {"dataset": name}
    return tree


def _not_here(info: DatasetInfo, root: Path) -> str:
    missing = missing_files(info, root) if root.is_dir() else []
    lack = f"{str(root)!r} lacks {', '.join(missing)}" if missing else f"no files in {str(root)!r}"
    fetch = ""
    if info.files and all(file.url for file in info.files):
        fetch = f"fetch_dataset({info.name!r}) or 'retina-codec datasets fetch {info.name}'; or "
    return f"name={info.name!r}: {lack}. To get the files: {fetch}{by_hand(info, root)}"


def _chosen(name: str, recordings: dict[str, Path], wanted: str | None) -> Path:
    if wanted is None:
        if len(recordings) == 1:
            return next(iter(recordings.values()))
        raise ValueError(
            f"name={name!r} holds {len(recordings)} recordings; choose one with recording=...: "
            f"{', '.join(recordings)}"
        )
    if wanted in recordings:
        return recordings[wanted]
    ends = [path for key, path in recordings.items() if key.endswith(f"/{wanted}")]
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise ValueError(
            f"recording={wanted!r} is the end of {len(ends)} recordings; give more of the path: "
            f"{', '.join(recordings)}"
        )
    raise ValueError(
        f"recording={wanted!r} is not in data set {name!r}; {nearest_names(wanted, recordings)}"
    )
