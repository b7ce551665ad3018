"""Files that hold named arrays, read alike: HDF5, netCDF, NPZ, NPY, MATLAB, columns of text.

An array is read with the axes that the program which wrote it shows: those of MATLAB 7.3, which
stand in the HDF5 file in reverse order, are turned back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr

from retina_codec._common.checks import nearest_names
from retina_codec.recordings.formats.hdf5 import dataset_names, opened, require_dataset
from retina_codec.recordings.formats.matlab import SUFFIX, read_matlab
from retina_codec.recordings.formats.text import read_column
from retina_codec.stimuli.sources import open_movie

# Axes that a movie may have beyond those that were named, where their size is 1.
SPARE_AXES = ("y", "x", "color")


class Container:
    """A file with named arrays.

    Parameters
    ----------
    path : Path
        The file; its contents say what it is, for text and NumPy's files its suffix.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"mapping: {str(path)!r} is no file")
        self.path = path
        self._held: dict[str, Any] | None = None
        suffix = path.suffix.lower()
        self.is_hdf5 = suffix in (".h5", ".hdf5", ".hdf") or bool(h5py.is_hdf5(path))
        self.is_matlab = suffix == SUFFIX

    def names(self) -> list[str]:
        """Names of its arrays."""
        if self.is_hdf5:
            with opened(self.path) as file:
                return [name for name in dataset_names(file) if not name.startswith("#")]
        return list(self._variables()) if self.is_matlab else _array_names(self.path)

    def read(self, entry: str | None, argument: str) -> Any:
        """One array; a dict of arrays for a group or struct; a list for a cell array."""
        if self.is_hdf5:
            with opened(self.path) as file:
                return _hdf5_value(file, self._entry(entry, argument), argument, self.is_matlab)
        return self._array(entry, argument)

    def movie(
        self, entry: str | None, dims: Sequence[str] | None, units: str | None, argument: str
    ) -> tuple[xr.DataArray, bool]:
        """Movie in an array, lazy where the file can be read in parts; whether it may have NaN."""
        suffix = self.path.suffix.lower()
        if self.is_hdf5:
            with opened(self.path) as file:
                name = self._entry(entry, argument)
                dataset = require_dataset(file, name, argument)
                whole = dataset.dtype.kind in "biu"
                if suffix == ".nc" and dims is None:
                    return open_movie(self.path, dataset=name, units=units), not whole
                shape = dataset.shape[::-1] if self.is_matlab else dataset.shape
                axes = _axes(shape, dims, argument)
                if self.is_matlab:
                    axes = _axes(shape, axes or ("time", "y", "x"), argument)
                    axes = None if axes is None else axes[::-1]
                return _flat(open_movie(dataset, dims=axes, units=units), dims), not whole
        if suffix in (".npy", ".npz", ".nc"):
            name = self._entry(entry, argument)
            inside = None if suffix == ".npy" else name
            return open_movie(self.path, dataset=inside, dims=dims, units=units), True
        values = self._array(entry, argument)
        axes = _axes(np.shape(values), dims, argument)
        return _flat(open_movie(values, dims=axes, units=units), dims), True

    def _entry(self, entry: str | None, argument: str) -> str:
        """Name of the array; the only one where none is named."""
        names = self.names()
        if entry is None:
            if len(names) == 1:
                return names[0]
            raise ValueError(
                f"{argument}: {self.path.name} holds {len(names)} arrays; say which with entry: "
                f"{', '.join(names)}"
            )
        entry = str(entry).strip("/")
        if entry in names or any(name.startswith(f"{entry}/") for name in names):
            return entry
        raise ValueError(
            f"{argument}: {self.path.name} has no entry {entry!r}; {nearest_names(entry, names)}"
        )

    def _array(self, entry: str | None, argument: str) -> Any:
        name = self._entry(entry, argument)
        if not self.is_matlab:
            return _read_array(self.path, name)
        held = self._variables()
        if name in held:
            return held[name]
        # A struct was asked for by its name: its fields.
        start = f"{name}/"
        return {k.removeprefix(start): v for k, v in held.items() if k.startswith(start)}

    def _variables(self) -> dict[str, Any]:
        """Variables of a file of MATLAB 5 to 7, which is read once, as a whole."""
        if self._held is None:
            self._held = _fields(read_matlab(self.path))
        return self._held


@contextmanager
def _clear_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # what is raised depends on where a file is damaged
        text = " ".join(str(error).split()) or type(error).__name__
        raise OSError(
            f"path={str(path)!r} cannot be read ({text}); it is cut off, damaged, holds Python "
            "objects, or is of another kind than its suffix says"
        ) from error


def _array_names(path: Path) -> list[str]:
    """Names of the arrays of a file that is neither HDF5 nor of MATLAB; they are not read."""
    suffix = path.suffix.lower()
    if suffix in (".npy", ".txt", ".csv"):
        return [path.stem]
    if suffix not in (".npz", ".nc"):
        raise ValueError(
            f"path={str(path)!r} is of no kind that a mapping can read: expected HDF5, .npz, .npy, "
            ".nc, .mat, .txt"
        )
    with _clear_errors(path):
        if suffix == ".npz":
            with np.load(path, allow_pickle=False) as held:
                return list(held.files)
        with xr.open_dataset(path, engine="scipy", decode_times=False) as data:
            return [str(name) for name in data.variables]


def _read_array(path: Path, name: str) -> np.ndarray:
    suffix = path.suffix.lower()
    if suffix in (".txt", ".csv"):
        return read_column(path, "mapping")
    with _clear_errors(path):
        if suffix == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False)
        if suffix == ".npz":
            with np.load(path, allow_pickle=False) as held:
                return held[name]
        with xr.open_dataset(path, engine="scipy", decode_times=False) as data:
            return data[name].values


def _fields(held: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Variables of a file of MATLAB 5 to 7, those of a struct as ``struct/field``."""
    found: dict[str, Any] = {}
    for name, value in held.items():
        if isinstance(value, np.ndarray) and value.dtype.names and value.size == 1:
            inner = {field: value.reshape(-1)[0][field] for field in value.dtype.names}
            found |= _fields(inner, f"{before}{name}/")
        elif isinstance(value, np.ndarray) and value.dtype == object:
            found[f"{before}{name}"] = [_text(item) for item in value.ravel(order="F")]
        else:
            found[f"{before}{name}"] = _text(value)
    return found


def _text(value: Any) -> Any:
    """One text as str; arrays as they are."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "U" and value.size == 1:
        return str(value.ravel()[0])
    return value


def _hdf5_value(file: h5py.File, name: str, argument: str, matlab: bool) -> Any:
    item = file.get(name)
    if isinstance(item, h5py.Group):
        return {
            inner: _hdf5_array(file, value, matlab)
            for inner, value in item.items()
            if isinstance(value, h5py.Dataset)
        }
    return _hdf5_array(file, require_dataset(file, name, argument), matlab)


def _hdf5_array(file: h5py.File, dataset: h5py.Dataset, matlab: bool) -> Any:
    if h5py.check_ref_dtype(dataset.dtype) is not None:
        # A cell array of MATLAB 7.3: references to its items.
        return [_hdf5_array(file, file[ref], matlab) for ref in np.ravel(dataset[...])]
    if h5py.check_string_dtype(dataset.dtype) is not None:
        return np.asarray(dataset.asstr()[...], dtype=str)
    values = dataset[...]
    if not matlab:
        return values
    if dataset.attrs.get("MATLAB_empty", 0):
        return np.empty(0)
    if dataset.attrs.get("MATLAB_class") == b"char":
        return "".join(chr(code) for code in values.ravel())
    return values.T


def _axes(
    shape: tuple[int, ...], dims: Sequence[str] | None, argument: str
) -> tuple[str, ...] | None:
    """Name every axis of a movie; axes of size 1 need no name."""
    if dims is None:
        if len(shape) != 2 or 1 not in shape:
            return None
        dims = ("time",)
    names = list(dims)
    spare = [name for name in SPARE_AXES if name not in names]
    missing = len(shape) - len(names)
    if not 0 <= missing <= len(spare):
        return tuple(names)
    ones = [axis for axis, size in enumerate(shape) if size == 1][::-1]
    if len(ones) < missing:
        raise ValueError(
            f"{argument}: dims {names} name {len(names)} axes, but the array has shape {shape}; "
            "name each axis longer than 1"
        )
    for axis, name in zip(sorted(ones[:missing]), spare, strict=False):
        names.insert(axis, name)
    return tuple(names)


def _flat(movie: xr.DataArray, dims: Sequence[str] | None) -> xr.DataArray:
    """Movie without the dim `color` that only an axis without a name gave it."""
    if "color" in movie.dims and "color" not in (dims or ()):
        return movie.isel(color=0, drop=True)
    return movie
