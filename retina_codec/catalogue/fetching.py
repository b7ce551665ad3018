"""Files of a data set brought to this machine, each checked before it is kept."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from retina_codec._common.progress import progress_bar
from retina_codec.catalogue.description import DatasetFile, DatasetInfo
from retina_codec.catalogue.registry import by_hand, dataset, files_folder, is_complete

TIMEOUT = 30.0  # seconds without an answer


def fetch_dataset(
    name: str, *, folder: str | os.PathLike[str] | None = None, progress: bool = True
) -> Path:
    """Download the files of a data set that are not yet here.

    A file is kept only when it has arrived whole and, where its checksum is known, has that
    checksum. Files that are here already are never overwritten. Needs `pooch`.

    Parameters
    ----------
    name : str
        One of `dataset_names`.
    folder : path, optional
        Data folder, which holds a folder for each data set; that of the environment variable
        ``RETINA_CODEC_DATA`` by default, or else the platform's cache.
    progress : bool
        Show progress, where standard error is a terminal.

    Returns
    -------
    pathlib.Path
        Folder of the files.

    Raises
    ------
    OSError
        If no address is known, the network or the server fails, a file arrives incomplete or with
        another checksum, or a file that is here has another one. The message gives the DOI, the
        web page, and the folder and names of the files, to get them by hand.
    ValueError
        If no data set has that name.

    Warns
    -----
    UserWarning
        If a file was taken whose checksum is not known.

    Examples
    --------
    >>> from retina_codec.catalogue import fetch_dataset
    >>> (fetch_dataset("simulated_sample") / "sample.nc").is_file()
    True
    """
    info = dataset(name)
    root = files_folder(info, folder)
    if not info.included:
        _fetch_files(info, root, progress=progress)
    return root


def _fetch_files(info: DatasetInfo, root: Path, *, progress: bool) -> None:
    archives_done = is_complete(info, root)
    wanted = []
    for file in info.files:
        if file.unpack:
            if not archives_done:
                wanted.append(file)
        elif not (root / file.name).exists():
            wanted.append(file)
        elif file.sha256 is not None and _sha256(root / file.name) != file.sha256:
            raise OSError(
                f"{str(root / file.name)!r} is not the file of data set {info.name!r}: its "
                "checksum is another one. Move it away and fetch again, or keep it and open it "
                "with open_recording"
            )
    if not wanted and archives_done:
        return
    unknown = [file.name for file in wanted if file.url is None]
    if unknown or not wanted:
        which = ", ".join(unknown) or "its files"
        raise OSError(
            f"data set {info.name!r}: no direct address of {which} is known; {by_hand(info, root)}"
        )
    for file in progress_bar(wanted, f"fetch {info.name}", shown=progress and len(wanted) > 1):
        _fetch_file(info, file, root, progress=progress and len(wanted) == 1)


def _fetch_file(info: DatasetInfo, file: DatasetFile, root: Path, *, progress: bool) -> None:
    """Download one file into a room beside its place, check it there, then move it in."""
    import pooch

    target = root / file.name
    known = None if file.sha256 is None else f"sha256:{file.sha256}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetching.", dir=root) as name, _quiet():
            arrived = Path(
                pooch.retrieve(
                    file.url,
                    known_hash=known,
                    fname=target.name,
                    path=name,
                    downloader=pooch.HTTPDownloader(
                        progressbar=progress and sys.stderr.isatty(), timeout=TIMEOUT
                    ),
                )
            )
            _require_size(arrived, file)
            checksum = _sha256(arrived)
            if file.unpack:
                _unpack(arrived, root)
            else:
                arrived.replace(target)
    # A wrong checksum is a ValueError of pooch; what the network does wrong is an OSError.
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise OSError(
            f"data set {info.name!r}: {file.name} could not be fetched from {file.url} "
            f"({' '.join(str(error).split())}); nothing of it was kept. Try again, or "
            f"{by_hand(info, root)}"
        ) from error
    if file.sha256 is None:
        warnings.warn(
            f"data set {info.name!r}: the checksum of {file.name} is not known, so it could not be "
            f"checked; what arrived has sha256 {checksum}",
            UserWarning,
            stacklevel=4,
        )


def _require_size(path: Path, file: DatasetFile) -> None:
    """Catch what a server that does not tell the length has cut."""
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        raise ValueError(f"{size} bytes arrived, {file.size} were expected")


def _unpack(archive: Path, root: Path) -> None:
    """Unpack beside `root`'s files first, so that a broken archive leaves nothing there."""
    fresh = archive.with_suffix(".unpacked")
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(fresh)
    standing = [path.name for path in fresh.iterdir() if (root / path.name).exists()]
    if standing:
        raise ValueError(f"{', '.join(standing)} stands in {str(root)!r} already; move it away")
    for path in fresh.iterdir():
        shutil.move(path, root / path.name)


def _sha256(path: Path) -> str:
    import pooch

    return pooch.file_hash(str(path), alg="sha256")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence pooch's notes: progress is shown by bars, failures by our errors."""
    import pooch

    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
