"""Files written beside and renamed into place; labelled trees to Zarr or netCDF and back."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import xarray as xr

TREE_SUFFIXES = (".zarr", ".nc")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def written_beside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a path beside `path` to write a file or folder to; rename it into place at the end.

    If the body raises, whatever stood at `path` stays and nothing new is left behind.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # The suffix is kept because writers choose their format by it.
    room = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    fresh = room / target.name
    try:
        yield fresh
        replaced = room / "replaced"
        if target.is_dir() and not target.is_symlink():
            target.replace(replaced)  # a folder cannot be renamed over another
        try:
            fresh.replace(target)
        except OSError:
            if replaced.exists():
                replaced.replace(target)
            raise
    finally:
        _remove(room)


def tree_format(path: Path, argument: str = "path") -> str:
    """``"zarr"`` or ``"netcdf"``, by the suffix of `path`."""
    if path.suffix not in TREE_SUFFIXES:
        raise ValueError(f"{argument}={str(path)!r}: expected a name ending in .zarr or .nc")
    return "zarr" if path.suffix == ".zarr" else "netcdf"


def with_string_labels(data: xr.Dataset) -> xr.Dataset:
    """Labels as variable-length strings (object dtype), which all formats hold alike."""
    text = {
        name: variable.astype(object)
        for name, variable in data.variables.items()
        if variable.dtype.kind in "UT"
    }
    return data.assign_coords({k: v for k, v in text.items() if k in data.coords}).assign(
        {k: v for k, v in text.items() if k not in data.coords}
    )


def save_tree(tree: xr.DataTree | xr.Dataset, path: str | os.PathLike[str]) -> Path:
    """Write a tree (or one Dataset) to Zarr or netCDF, whole or not at all.

    Every group carries the coordinates it inherits, so that any group opens alone.

    Parameters
    ----------
    tree : xarray.DataTree or xarray.Dataset
        What to write.
    path : path
        Ends in ``.zarr`` or ``.nc``; what stands there is replaced.

    Returns
    -------
    pathlib.Path
        `path`.

    Raises
    ------
    ValueError
        If the suffix is another one.
    """
    path = Path(path)
    kind = tree_format(path)
    if isinstance(tree, xr.Dataset):
        tree = xr.DataTree(tree)
    tree = tree.map_over_datasets(with_string_labels)
    for node in tree.subtree:
        for variable in node.variables.values():
            # Encodings of an earlier file (chunks, filters) do not fit the new one.
            variable.encoding = {}
    with written_beside(path) as fresh:
        if kind == "zarr":
            tree.to_zarr(fresh, zarr_format=2, consolidated=True, write_inherited_coords=True)
        else:
            tree.to_netcdf(fresh, engine="h5netcdf", write_inherited_coords=True)
    return path


def open_tree(path: str | os.PathLike[str], argument: str = "path") -> xr.DataTree:
    """Open a tree that `save_tree` wrote, lazily (Zarr: with dask chunks).

    Raises
    ------
    FileNotFoundError
        If there is nothing at `path`.
    OSError
        If it is not a readable Zarr or netCDF store.
    ValueError
        If the suffix is neither ``.zarr`` nor ``.nc``.
    """
    path = Path(path)
    kind = tree_format(path, argument)
    if not path.exists():
        raise FileNotFoundError(f"{argument}={str(path)!r} does not exist")
    try:
        if kind == "zarr":
            tree = xr.open_datatree(path, engine="zarr", chunks={})
        else:
            tree = xr.open_datatree(path, engine="h5netcdf")
    except Exception as error:
        raise OSError(
            f"{argument}={str(path)!r} is not a readable {kind} store; it is cut off, damaged or "
            f"of another kind: {error}"
        ) from error
    return tree.map_over_datasets(_with_plain_labels)


def _with_plain_labels(data: xr.Dataset) -> xr.Dataset:
    """Undo `with_string_labels`: coordinate labels as plain NumPy strings."""
    text = {
        name: (variable.dims, np.asarray(variable.values.astype(object), dtype=str), variable.attrs)
        for name, variable in data.coords.items()
        if variable.dtype.kind in "OT"
    }
    return data.assign_coords(text)
