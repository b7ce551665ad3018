"""An array that was found in a source, before it is made a movie."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

IN_MEMORY_BYTES = 64 * 2**20  # of float32; larger movies are lazy


@dataclass(frozen=True)
class Found:
    """An array that is in memory (NumPy or dask), or can be opened to read parts of it."""

    shape: tuple[int, ...]
    dtype: np.dtype
    array: np.ndarray | da.Array | None = None
    opened: Callable[[], AbstractContextManager[Any]] | None = None
    stored: tuple[int, ...] | None = None  # shape of the chunks that a file is compressed in
    dims: tuple[str, ...] | None = None  # where the source names its axes
    coords: dict[str, xr.Variable] = field(default_factory=dict)
    attrs: dict[str, Any] = field(default_factory=dict)
    named: str = "the array"

    @property
    def in_memory(self) -> bool:
        """Whether the movie is to be a NumPy array."""
        small = 4 * int(np.prod(self.shape)) <= IN_MEMORY_BYTES
        return isinstance(self.array, np.ndarray) and small


def found_labelled(
    array: xr.DataArray,
    opened: Callable[[], AbstractContextManager[Any]],
    named: str,
    *,
    in_file: bool = False,
) -> Found:
    """Describe a DataArray; of one in a file, only the coordinates are read."""
    dims = tuple(str(dim) for dim in array.dims)
    coords = {str(name): _plain(coord.variable.compute()) for name, coord in array.coords.items()}
    stored = array.encoding.get("chunks") or array.encoding.get("chunksizes")
    found = Found(
        array.shape,
        array.dtype,
        opened=opened,
        stored=stored if stored and len(stored) == array.ndim else None,
        dims=dims,
        coords=coords,
        attrs=dict(array.attrs),
        named=named,
    )
    if array.chunks is not None:
        return replace(found, array=array.data)
    if in_file or 4 * array.size > IN_MEMORY_BYTES:
        return found
    return replace(found, array=np.asarray(array[...]))


def _plain(coordinate: xr.Variable) -> xr.Variable:
    """Labels as NumPy strings: files give them as objects."""
    return coordinate.astype(object).astype(str) if coordinate.dtype.kind in "OT" else coordinate
