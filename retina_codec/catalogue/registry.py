"""The data sets that are described, and where their files are on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from retina_codec._common.checks import nearest_names
from retina_codec.catalogue.description import DESCRIPTION, DatasetInfo, read_description

DATA_VARIABLE = "RETINA_CODEC_DATA"


def descriptions_folder() -> Path:
    """Folder with a folder for each data set.

    A wheel carries ``datasets/`` of the repository as ``retina_codec/_datasets/``; in a working
    copy it stands beside the package.
    """
    package = Path(__file__).resolve().parents[1]
    installed, beside = package / "_datasets", package.parent / "datasets"
    if installed.is_dir():
        return installed
    # Another package named `datasets` may stand beside an installed one.
    if beside.is_dir() and (package.parent / "pyproject.toml").is_file():
        return beside
    raise FileNotFoundError(
        f"the descriptions of data sets are missing: neither {str(installed)!r} nor "
        f"{str(beside)!r} holds them; install retina-codec again"
    )


def dataset_names() -> list[str]:
    """Return the names of the known data sets, in alphabetical order.

    Returns
    -------
    list of str
        Names for `dataset`, `open_dataset` and `fetch_dataset`.

    Examples
    --------
    >>> from retina_codec.catalogue import dataset_names
    >>> "simulated_sample" in dataset_names()
    True
    """
    return sorted(path.parent.name for path in descriptions_folder().glob(f"*/{DESCRIPTION}"))


def dataset(name: str) -> DatasetInfo:
    """Say what is known of a data set.

    Parameters
    ----------
    name : str
        One of `dataset_names`.

    Returns
    -------
    DatasetInfo
        Citation, licence, species, layout, files with checksums, how to get them, and facts.

    Raises
    ------
    ValueError
        If no data set has that name.

    Examples
    --------
    >>> from retina_codec.catalogue import dataset
    >>> dataset("binary_noise_uzzell").paper_doi
    '10.1152/jn.01171.2003'
    """
    names = dataset_names()
    if name not in names:
        raise ValueError(f"name={name!r} is no known data set; {nearest_names(name, names)}")
    return read_description(descriptions_folder() / name)


def data_folder(folder: str | os.PathLike[str] | None = None) -> Path:
    """Folder that holds a folder for each data set's files.

    `folder` if given, else the one that the environment variable ``RETINA_CODEC_DATA`` names, else
    the platform's cache.
    """
    chosen = folder if folder is not None else os.environ.get(DATA_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().resolve()
    import pooch

    return Path(pooch.os_cache("retina-codec"))


def files_folder(info: DatasetInfo, folder: str | os.PathLike[str] | None = None) -> Path:
    """Folder of the files of one data set; it need not exist."""
    return info.place if info.folder is None else data_folder(folder) / info.folder


def missing_files(info: DatasetInfo, root: Path) -> list[str]:
    """Names of the files that the set must have and `root` has not."""
    return [f.name for f in info.files if not f.unpack and not (root / f.name).is_file()]


def recordings_in(info: DatasetInfo, root: Path) -> dict[str, Path]:
    """Find the recordings of the set beneath `root`, by their path there."""
    if info.recordings is None or not root.is_dir():
        return {}
    if info.recordings == ".":
        return {".": root}
    found = {path.relative_to(root).as_posix(): path for path in sorted(root.glob(info.recordings))}
    # Archives packed on some systems hold shadows of each file.
    return {
        name: path
        for name, path in found.items()
        if not any(part.startswith(".") or part == "__MACOSX" for part in Path(name).parts)
    }


def is_complete(info: DatasetInfo, root: Path) -> bool:
    """Whether all files of the set that are known of are beneath `root`."""
    if not root.is_dir() or missing_files(info, root):
        return False
    if info.recordings is None:
        return bool(info.files) or any(root.iterdir())
    return bool(recordings_in(info, root))


def by_hand(info: DatasetInfo, root: Path) -> str:
    """Sentences that say where to get the files and where to put them."""
    if info.included:
        return f"they belong into {str(root)!r} and come with the package: install it again"
    doi = f"DOI https://doi.org/{info.data_doi}" if info.data_doi else "no DOI is known"
    names = ", ".join(file.name for file in info.files if not file.unpack)
    wanted = f"the files {names}" if names else "its files, with the folders they are in,"
    return (
        f"get them by hand from {info.landing_page} ({doi}) and put {wanted} into "
        f"{str(root)!r}. {info.obtain}"
    )
