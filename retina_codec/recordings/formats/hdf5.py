"""HDF5 files opened with one clear error, and their entries by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from retina_codec._common.checks import nearest_names

# A .nc may also be a netCDF 3 file, which is none.
SUFFIXES = (".h5", ".hdf5", ".hdf", ".nwb", ".nix")


def looks_inside(path: Path) -> set[str] | None:
    """Paths of all datasets of an HDF5 file; None where there is no such file, or a damaged one."""
    try:
        if not path.is_file() or not h5py.is_hdf5(path):
            return None
        with h5py.File(path, "r") as file:
            return set(dataset_names(file))
    except (OSError, RuntimeError, KeyError, UnicodeError):
        return None


def require_whole(path: Path) -> None:
    """Raise OSError where `path` is, or is called, an HDF5 file and cannot be read as one.

    `looks_inside` must not raise; this gives the reason for which it found nothing.
    """
    if path.is_file() and (path.suffix.lower() in SUFFIXES or h5py.is_hdf5(path)):
        with opened(path) as file:
            dataset_names(file)


@contextmanager
def opened(path: Path, argument: str = "path") -> Iterator[h5py.File]:
    """Open an HDF5 file to read; OSError where it is cut off, damaged, or no HDF5 at all."""
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        if path.is_file() and h5py.is_hdf5(path):
            state = "is cut off or damaged: copy or download it anew"
        else:
            state = (
                "is no HDF5 file, or one that is cut off or damaged: check the format, or copy or "
                "download it anew"
            )
        raise OSError(f"{argument}={str(path)!r} {state} ({_one_line(error)})") from error
    with file:
        try:
            yield file
        except (OSError, RuntimeError, KeyError, UnicodeError) as error:
            # h5py names a damaged entry by any of these.
            raise OSError(
                f"{argument}={str(path)!r}: an entry cannot be read ({_one_line(error)}); the file "
                "is cut off or damaged: copy or download it anew"
            ) from error


def dataset_names(group: h5py.Group) -> list[str]:
    """Paths of all datasets below `group`, sorted."""
    found: list[str] = []

    def visit(name: str | bytes, item: Any) -> None:
        # A name that is no UTF-8 comes as bytes, from a damaged file.
        if isinstance(item, h5py.Dataset) and isinstance(name, str):
            found.append(name)

    group.visititems(visit)
    return sorted(found)


def require_dataset(group: h5py.Group, name: str, argument: str = "path") -> h5py.Dataset:
    """Return the dataset of that name, or raise ValueError that offers the nearest ones."""
    # `in` alone would also find what a dangling link points to.
    found = group.get(name)
    if isinstance(found, h5py.Dataset):
        return found
    held = "a group" if isinstance(found, h5py.Group) else "missing"
    raise ValueError(
        f"{argument}: {Path(group.file.filename).name} should hold an array "
        f"{f'{group.name}/{name}'.replace('//', '/')!r}, which is {held}; "
        f"{nearest_names(name, dataset_names(group)) or 'there are none'}"
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
