"""Checks at the door: each message names the argument, what was given and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import quantities as pq
import xarray as xr

FINITE = "retina_codec_finite"
LISTED = 100  # choices that a message lists
BLOCK_BYTES = 64 * 2**20  # of an array that may be larger than memory, at a time


def nearest_names(name: object, choices: Iterable[object]) -> str:
    """Text that offers the closest choice and lists them all, or the first of very many."""
    listed = [str(choice) for choice in choices]
    close = difflib.get_close_matches(str(name), listed, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    rest = f", ... ({len(listed)} in all)" if len(listed) > LISTED else ""
    return f"{hint}choices: {', '.join(listed[:LISTED])}{rest}"


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Let errors say what they are about: which model and movie, which setting of a job."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


def require_choice(value: Any, choices: Sequence[Any], argument: str) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{argument}={value!r} is not known; {nearest_names(value, choices)}")


def require_array(value: Any, argument: str) -> xr.DataArray:
    """Return `value`, or raise TypeError if it is not a DataArray."""
    if not isinstance(value, xr.DataArray):
        raise TypeError(
            f"{argument} is a {type(value).__name__}; expected an xarray.DataArray with named dims"
        )
    return value


def require_dims(
    array: Any, dims: Sequence[str], argument: str, *, optional: Sequence[str] = ()
) -> xr.DataArray:
    """Return `array` transposed to `dims` (with those of `optional` it has, in place).

    `dims` lists the required and the optional dims in their order; those that are also in
    `optional` may be missing.
    """
    array = require_array(array, argument)
    needed = [dim for dim in dims if dim not in optional]
    missing = [dim for dim in needed if dim not in array.dims]
    extra = [str(dim) for dim in array.dims if dim not in dims]
    if missing or extra:
        remedy = "add the missing dims with .expand_dims or drop the extra ones with .isel"
        if missing and len(missing) == len(extra):
            renames = ", ".join(f"{old}={new!r}" for old, new in zip(extra, missing, strict=True))
            remedy = f"rename with .rename({renames})"
        raise ValueError(
            f"{argument} has dims {tuple(array.dims)}; expected {tuple(needed)}"
            f"{f' and optionally {tuple(optional)}' if optional else ''}: {remedy}"
        )
    return array.transpose(*[dim for dim in dims if dim in array.dims])


def says_finite(array: xr.DataArray) -> xr.DataArray:
    """Return `array`; if lazy, marked as read from whole numbers or rendered: it has no NaN.

    The mark names the dask array. It is in the encoding, so that it is neither written to files nor
    outlives arithmetic.
    """
    if array.chunks is not None:
        array.encoding[FINITE] = array.data.name
    return array


def _is_marked(array: xr.DataArray) -> bool:
    mark = array.encoding.get(FINITE)
    return mark is not None and array.chunks is not None and mark in array.data.dask.layers


def require_finite(array: xr.DataArray, argument: str) -> None:
    """Raise ValueError that says where `array` has NaN or infinity.

    It goes block by block along the first dim, so that an array larger than memory (dask) is
    never held whole. Whole numbers are finite and are not looked at, nor are movies whose source
    cannot hold anything else (`says_finite`).
    """
    if array.dtype.kind in "biu" or array.size == 0 or _is_marked(array):
        return
    n_bad, first = 0, None
    for start, part in blocks_of_rows(array):
        bad = ~np.isfinite(part)
        if first is None and bad.any():
            first = np.argwhere(bad)[0]
            first[:1] += start
        n_bad += int(bad.sum())
    if first is not None:
        place = ", ".join(f"{dim}={i}" for dim, i in zip(array.dims, first, strict=True))
        raise ValueError(
            f"{argument} has {n_bad} NaN or infinite values, the first at index "
            f"({place}); replace or cut them out before"
        )


def blocks_of_rows(array: xr.DataArray) -> Iterator[tuple[int, np.ndarray]]:
    """Values of `array` in parts of about 64 MB along its first dim, each with where it starts."""
    if array.ndim == 0:
        yield 0, array.values
        return
    n_rows = array.shape[0]
    step = max(1, BLOCK_BYTES * n_rows // array.nbytes)
    if array.chunks is not None:
        # Whole chunks, so that none is computed twice.
        chunk = max(array.chunks[0])
        step = max(1, step // chunk) * chunk
    for start in range(0, n_rows, step):
        yield start, array[start : start + step].values


def require_at_least(value: float, least: float, argument: str) -> None:
    """Raise ValueError unless ``value >= least``."""
    if not value >= least:
        raise ValueError(f"{argument}={value!r}; expected a number of at least {least}")


def require_count(value: Any, least: int, argument: str) -> int:
    """Return `value` as int; TypeError unless it is whole, ValueError if it is below `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{argument}={value!r}; expected a whole number of at least {least}")
    require_at_least(int(value), least, argument)
    return int(value)


def magnitude(value: Any, units: str, argument: str) -> Any:
    """Plain number(s) of `value` in `units`; a `quantities` object is converted, a number kept.

    Raises
    ------
    ValueError
        If the quantity cannot be converted to `units`.
    """
    if not isinstance(value, pq.Quantity):
        return value
    try:
        converted = value.rescale(units).magnitude
    except ValueError as error:
        raise ValueError(
            f"{argument} is in {value.dimensionality}; expected something in {units}"
        ) from error
    return float(converted) if np.ndim(converted) == 0 else np.asarray(converted)
