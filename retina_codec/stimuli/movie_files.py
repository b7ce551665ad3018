"""Arrays in files: NumPy, HDF5, netCDF and Zarr.

A file is opened anew for each part that is read from it, and closed again. That costs some
milliseconds a part (of 32 MB, if all is read), leaves no file open for as long as a movie lives
(nor locked for other programs), and lets a movie be pickled to other processes.
"""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

import h5py
import numpy as np
import xarray as xr

from retina_codec._common.checks import nearest_names
from retina_codec.stimuli.found import Found, found_labelled

# What zipfile and NumPy's reader of headers raise for a damaged .npz.
DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    ValueError,
    OSError,
    EOFError,
    NotImplementedError,
    tokenize.TokenError,
)
SUFFIXES = (".npy", ".npz", ".h5", ".hdf5", ".hdf", ".nc", ".zarr")


def found_in_file(
    path: Path, argument: str, dataset: str | None, dims: tuple[str, ...] | None
) -> Found:
    """Find `dataset` in a file, or the only array that can be a movie (with axes `dims`)."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(
            f"{argument}={str(path)!r} has no known suffix; expected one of {', '.join(SUFFIXES)}: "
            "open other files yourself and give the array"
        )
    if not path.exists():
        raise FileNotFoundError(f"{argument}={str(path)!r} does not exist")
    path = path.resolve()
    place = _File(path, argument, dataset, dims)
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return _from_npy(place)
    if suffix == ".npz":
        return _from_npz(place)
    if suffix == ".nc":
        return _from_netcdf(place)
    if suffix == ".zarr":
        return _from_zarr(place)
    return _from_hdf5(place)


@dataclass(frozen=True)
class _File:
    """A file, and what was asked of it."""

    path: Path
    argument: str
    dataset: str | None
    dims: tuple[str, ...] | None

    def __str__(self) -> str:
        return f"{self.argument}={str(self.path)!r}"

    def unreadable(self, kind: str, error: object) -> OSError:
        return OSError(
            f"{self} is not a readable {kind}: {error}; if it was cut off, copy it again"
        )

    def unknown(self, names: Sequence[str]) -> ValueError:
        offered = nearest_names(self.dataset, names)
        return ValueError(f"dataset={self.dataset!r} is not in {self.path.name}; {offered}")

    def chosen(self, held: Mapping[str, Any]) -> str:
        """Name of the dataset asked for, or of the only one that can be a movie."""
        if self.dataset is not None:
            name = self.dataset.strip("/")
            if name not in held:
                raise self.unknown(list(held))
            return name
        numbers = (1, 3, 4) if self.dims is None else (len(self.dims),)
        fitting = [
            name
            for name, array in held.items()
            if len(array.shape) in numbers and array.dtype.kind in "biuf"
        ]
        if len(fitting) == 1:
            return fitting[0]
        wanted = " or ".join(str(n) for n in numbers)
        if fitting:
            raise ValueError(
                f"{self} holds several arrays of numbers with {wanted} dims: choose one with "
                f"dataset=; {', '.join(fitting)}"
            )
        listed = ", ".join(f"{name} {a.shape} {a.dtype}" for name, a in held.items())
        raise ValueError(
            f"{self} holds no array of numbers with {wanted} dims; it holds {listed or 'no array'}"
        )


@dataclass(frozen=True)
class _NpyLayout:
    shape: tuple[int, ...]
    dtype: np.dtype
    order: Literal["C", "F"]
    offset: int


def _npy_layout(file: IO[bytes]) -> _NpyLayout:
    """Read the header of an array in NumPy's format; ValueError if there is none."""
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"version {version} of the format, which holds records and no numbers")
    shape, fortran, dtype = readers[version](file)
    return _NpyLayout(shape, dtype, "F" if fortran else "C", file.tell())


@contextmanager
def _mapped(path: Path, layout: _NpyLayout) -> Iterator[np.ndarray]:
    yield np.memmap(path, layout.dtype, "r", layout.offset, layout.shape, layout.order)


def _found_mapped(place: _File, layout: _NpyLayout, named: str) -> Found:
    needed = layout.offset + layout.dtype.itemsize * int(np.prod(layout.shape))
    size = place.path.stat().st_size
    if size < needed and not layout.dtype.hasobject:
        raise place.unreadable("NumPy file", f"{needed} bytes are announced, {size} are there")
    opened = partial(_mapped, place.path, layout)
    return Found(layout.shape, layout.dtype, opened=opened, named=named)


def _from_npy(place: _File) -> Found:
    if place.dataset is not None:
        raise ValueError(f"dataset={place.dataset!r} was given, but a .npy file holds one array")
    try:
        with place.path.open("rb") as file:
            layout = _npy_layout(file)
    except (ValueError, OSError) as error:
        raise place.unreadable("NumPy file", error) from error
    return _found_mapped(place, layout, place.path.name)


def _from_npz(place: _File) -> Found:
    try:
        with zipfile.ZipFile(place.path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            layouts = {}
            for name in members:
                if name.endswith(".npy"):
                    with archive.open(name) as file:
                        layouts[name.removesuffix(".npy")] = _npy_layout(file)
    except DAMAGED as error:
        raise place.unreadable(".npz file", error) from error
    name = place.chosen(layouts)
    layout, member = layouts[name], members[f"{name}.npy"]
    named = f"{name} in {place.path.name}"
    if layout.dtype.hasobject:
        return Found(layout.shape, layout.dtype, named=named)
    if member.compress_type == zipfile.ZIP_STORED:
        # What np.savez writes lies in the file as it is, behind a header with two lengths.
        with place.path.open("rb") as file:
            file.seek(member.header_offset + 26)
            lengths = struct.unpack("<HH", file.read(4))
        start = member.header_offset + 30 + sum(lengths) + layout.offset
        inside = _NpyLayout(layout.shape, layout.dtype, layout.order, start)
        return _found_mapped(place, inside, named)
    try:
        with np.load(place.path, allow_pickle=False) as arrays:
            values = arrays[name]
    except (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError) as error:
        raise place.unreadable(".npz file", error) from error
    return Found(values.shape, values.dtype, array=values, named=named)


@contextmanager
def _opened_hdf5(path: Path, name: str) -> Iterator[h5py.Dataset]:
    with h5py.File(path, "r") as file:
        yield file[name]


def found_hdf5(
    dataset: h5py.Dataset, opened: Callable[[], AbstractContextManager[Any]], named: str = ""
) -> Found:
    """Describe an open HDF5 dataset, which `opened` opens again."""
    labels = tuple(dim.label for dim in dataset.dims)
    units = dataset.attrs.get("units")
    return Found(
        dataset.shape or (),
        dataset.dtype,
        opened=opened,
        stored=dataset.chunks,
        dims=labels if labels and all(labels) else None,
        attrs={"units": units} if isinstance(units, str) else {},
        named=named or f"dataset {dataset.name}",
    )


def reopening(source: h5py.Dataset, argument: str) -> Callable[[], AbstractContextManager[Any]]:
    """Way back to an open dataset: by its file and name where that is safe, else the thing itself.

    A file opened for reading can be opened a second time, so the movie outlives the caller's own
    handle. One that is being written cannot, and one in memory has no name.
    """
    if not source:
        raise ValueError(
            f"{argument} is a dataset of a closed HDF5 file: give the path of the file"
        )
    file = source.file
    path = Path(file.filename)
    on_disk = file.driver in ("sec2", "stdio", "windows") and path.is_file()
    if file.mode == "r" and source.name and on_disk:
        return partial(_opened_hdf5, path.resolve(), source.name)
    return partial(nullcontext, source)


def _from_hdf5(place: _File) -> Found:
    try:
        file = h5py.File(place.path, "r")
    except OSError as error:
        raise place.unreadable("HDF5 file", error) from error
    with file:
        # A dataset asked for may lie behind links, which a walk through the file does not follow.
        named = None if place.dataset is None else file.get(place.dataset)
        if not isinstance(named, h5py.Dataset):
            named = file[place.chosen(_hdf5_datasets(file))]
        opened = partial(_opened_hdf5, place.path, named.name)
        return found_hdf5(named, opened, f"{named.name} in {place.path.name}")


def _hdf5_datasets(file: h5py.File) -> dict[str, h5py.Dataset]:
    held: dict[str, h5py.Dataset] = {}

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.shape is not None:
            held[name] = item

    file.visititems(note)
    return held


@contextmanager
def _opened_variable(path: Path, engine: str, group: str, name: str) -> Iterator[xr.DataArray]:
    with _opened_group(path, engine, group) as data:
        yield data[name]


def _opened_group(path: Path, engine: Any, group: str) -> xr.Dataset:
    # Times stay numbers; without consolidated metadata Zarr would warn each time.
    options: dict[str, Any] = {"decode_times": False, "cache": False}
    if engine == "zarr":
        options["consolidated"] = False
    if engine != "scipy":  # classic netCDF has no groups
        options["group"] = group
    return xr.open_dataset(path, engine=engine, **options)


def _found_variable(place: _File, engine: str, groups: Sequence[str]) -> Found:
    """Find the variable asked for, or the only one that can be a movie, in groups of a file."""
    held: dict[str, tuple[str, str]] = {}
    arrays: dict[str, xr.Variable] = {}
    try:
        for group in sorted(groups):
            with _opened_group(place.path, engine, group) as data:
                for name, array in data.data_vars.items():
                    full = f"{group}/{name}".strip("/")
                    held[full], arrays[full] = (group, str(name)), array.variable
    except (OSError, TypeError, ValueError, LookupError) as error:
        kind = "Zarr store" if engine == "zarr" else "netCDF file"
        raise place.unreadable(kind, error) from error
    chosen = place.chosen(arrays)
    opened = partial(_opened_variable, place.path, engine, *held[chosen])
    with opened() as array:
        return found_labelled(array, opened, f"{chosen} in {place.path.name}", in_file=True)


def _from_netcdf(place: _File) -> Found:
    with place.path.open("rb") as start:
        if start.read(3) == b"CDF":
            return _found_variable(place, "scipy", ["/"])
    groups = ["/"]

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Group):
            groups.append(name)

    try:
        with h5py.File(place.path, "r") as file:
            file.visititems(note)
    except OSError as error:
        raise place.unreadable("netCDF file", error) from error
    return _found_variable(place, "h5netcdf", groups)


def _from_zarr(place: _File) -> Found:
    import zarr

    try:
        node = zarr.open(place.path, mode="r")
        if isinstance(node, zarr.Group):
            members = dict(node.members(max_depth=None))
    except Exception as error:  # what Zarr raises depends on what is wrong, and on its version
        raise place.unreadable("Zarr store", error) from error
    if isinstance(node, zarr.Array):
        if place.dataset is not None:
            raise ValueError(f"dataset={place.dataset!r} was given, but {place} is one array")
        return found_zarr(node, place.path.name)
    arrays = {name: member for name, member in members.items() if isinstance(member, zarr.Array)}
    if arrays and all(_zarr_dims(array) is not None for array in arrays.values()):
        groups = ["/", *(name for name, member in members.items() if name not in arrays)]
        return _found_variable(place, "zarr", groups)
    name = place.chosen(arrays)
    return found_zarr(arrays[name], f"{name} in {place.path.name}")


def _zarr_dims(array: Any) -> tuple[str, ...] | None:
    """Names of the axes, which the two versions of the format keep in different places."""
    names = array.attrs.get("_ARRAY_DIMENSIONS") or getattr(array.metadata, "dimension_names", None)
    return None if not names or None in names else tuple(names)


def found_zarr(array: Any, named: str = "the Zarr array") -> Found:
    """Describe an open Zarr array."""
    # A Zarr array holds no file open, and can be pickled.
    units = array.attrs.get("units")
    return Found(
        array.shape,
        array.dtype,
        opened=partial(nullcontext, array),
        stored=array.chunks,
        dims=_zarr_dims(array),
        attrs={"units": units} if isinstance(units, str) else {},
        named=named,
    )
