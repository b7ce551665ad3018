"""Movies from arrays, files and descriptions; what is large stays where it is."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import dask.array as da
import h5py
import numpy as np
import quantities as pq
import xarray as xr

from retina_codec._common.checks import magnitude, nearest_names, require_dims, says_finite
from retina_codec._common.provenance import provenance
from retina_codec._common.time import BIN_WIDTH_TOLERANCE, bin_width_of, time_coordinate
from retina_codec.stimuli.described import render
from retina_codec.stimuli.found import Found, found_labelled
from retina_codec.stimuli.lazy import frames_in_chunk, lazy_array
from retina_codec.stimuli.movie_files import found_hdf5, found_in_file, found_zarr, reopening

MOVIE_DIMS = ("time", "color", "y", "x")
LARGEST = float(np.finfo(np.float32).max)
# Rounding to float32 may not exceed this part of the range of the values: 8-bit movies have 1/255.
COARSENESS = 1e-3
ROUNDING = 1e-11  # of the largest value: a range below is that of rounding errors
DIMS_BY_NUMBER = {1: ("time",), 3: ("time", "y", "x")}


def open_movie(
    source: Any,
    *,
    dataset: str | None = None,
    dims: Sequence[str] | None = None,
    bin_width: float | pq.Quantity | None = None,
    units: str | None = None,
) -> xr.DataArray:
    """Movie with named dims from an array, a file or a description.

    Parameters
    ----------
    source : array, path or mapping
        Numbers with one axis (time: a full field), three (time, y, x) or, with `dims`, others, as

        an array
            numpy.ndarray or memmap, quantity, h5py.Dataset, zarr.Array, dask array, or
            xarray.DataArray with dims (time, [color,] y, x) in any order;
        a path
            ``.npy``, ``.npz``, ``.h5``, ``.hdf5`` or ``.hdf``, ``.nc``, ``.zarr``;
        a mapping
            that describes a stimulus, with ``kind`` and its parameters: see `render`.
    dataset : str, optional
        Which array of a file: its name (``.npz``), path (HDF5), or variable (``.nc``, ``.zarr``),
        with the groups it is in: ``"train/stimulus"``. By default the only one with numbers and 1,
        3 or 4 dims (with `dims`: as many as these).
    dims : sequence of str, optional
        What each axis is, in the order of the source: ``"time"`` and some of ``"color"``, ``"y"``,
        ``"x"``. Needed for arrays with two or four axes, unless they are named in the source.
    bin_width : float or quantity, optional
        Duration of a frame in seconds, which gives the movie the coordinate `time`. A `time` that
        the source has is kept, and must agree within 2 %.
    units : str, optional
        Units of the values; by default those the source states, else ``"1"``. A quantity is
        converted to them.

    Returns
    -------
    DataArray
        ``stimulus`` (time, [color,] y, x), float32, with `y` and `x` (pixel index where the source
        has none) and the coordinates of the source. Arrays in memory of up to 64 MB (as float32)
        are NumPy arrays, not copied where they are float32. All else is lazy: dask, in chunks of
        about 32 MB along time, read and converted when they are needed. A compressed ``.npz`` is
        read whole. NaN stays: values are looked at only to see that float32 can hold them.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    OSError
        If a file is damaged or not of the format its name says; also later, from what reads the
        movie, if the file has changed or gone.
    TypeError
        If `source` is of another kind, or an argument is.
    ValueError
        If the dataset is unknown or not the only one, the values are not real numbers or none, the
        axes are not those of a movie, or `bin_width` contradicts the source. If values are beyond
        float32 (where lazy: when they are read), or differ by less than it resolves (arrays in
        memory only).

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from retina_codec import stimuli
    >>> planes = np.zeros((2, 1000, 8, 6))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(Path(folder) / "planes.npy", planes)
    ...     movie = stimuli.open_movie(
    ...         Path(folder) / "planes.npy", dims=("color", "time", "y", "x"), bin_width=0.02
    ...     )
    ...     first_second = movie[:50].load()
    >>> dict(first_second.sizes)
    {'time': 50, 'color': 2, 'y': 8, 'x': 6}
    """
    return read_movie(
        source, "source", dataset=dataset, dims=dims, bin_width=bin_width, units=units
    )


def read_movie(
    source: Any,
    argument: str,
    *,
    dataset: str | None = None,
    dims: Sequence[str] | None = None,
    bin_width: Any = None,
    units: str | None = None,
) -> xr.DataArray:
    """`open_movie` for a source that its caller knows as `argument`."""
    width = _checked_width(bin_width)
    if not (units is None or isinstance(units, str)):
        raise TypeError(f"units={units!r}; expected a string, such as '1'")
    names = _checked_dims(dims)
    is_path = isinstance(source, str | os.PathLike)
    if dataset is not None and not is_path:
        raise ValueError(
            f"dataset={dataset!r} was given, but {argument} is a {type(source).__name__} and no "
            "file: leave it out"
        )
    if isinstance(source, xr.Dataset | xr.DataTree):
        raise TypeError(
            f"{argument} is a {type(source).__name__}; expected one variable of it, such as "
            f"{argument}['stimulus']"
        )
    if isinstance(source, Mapping):
        if names is not None:
            raise ValueError(f"dims was given, but {argument} is a description: leave it out")
        movie = render(source, bin_width=width)
        return movie if units is None else movie.assign_attrs(units=units)
    if is_path:
        found = found_in_file(Path(source), argument, dataset, names)
        origin = Path(source).name
    else:
        found = _from_array(source, argument, units)
        origin = type(source).__name__
    _require_numbers(found, argument)
    _require_single_precision(found, argument)
    axes = _axes_of(found, names, argument)
    made_by = provenance(function="open_movie", source=origin, dataset=dataset, dims=list(axes))
    movie = _labelled(found, axes, {"units": "1", "long_name": "stimulus", **made_by})
    if units is not None:
        movie.attrs["units"] = units
    return _with_time(movie, width, argument)


# Arrays


def _from_array(source: Any, argument: str, units: str | None) -> Found:
    if isinstance(source, xr.DataArray):
        return found_labelled(source, partial(nullcontext, source), argument)
    if isinstance(source, da.Array):
        return Found(source.shape, source.dtype, array=source)
    if isinstance(source, h5py.Dataset):
        return found_hdf5(source, reopening(source, argument))
    zarr = sys.modules.get("zarr")
    if zarr is not None and isinstance(source, zarr.Array):
        return found_zarr(source)
    if isinstance(source, pq.Quantity):
        plain = np.asarray(
            source.magnitude if units is None else magnitude(source, units, argument)
        )
        stated = "1" if source.dimensionality.string == "dimensionless" else None
        stated = units or stated or source.dimensionality.string
        return Found(plain.shape, plain.dtype, array=plain, attrs={"units": stated})
    if isinstance(source, list | tuple):
        try:
            source = np.asarray(source)
        except ValueError as error:
            raise ValueError(
                f"{argument} is a {type(source).__name__} whose items differ in length; expected "
                "frames of one size"
            ) from error
    if not isinstance(source, np.ndarray):
        raise TypeError(
            f"{argument} is a {type(source).__name__}; expected an array (NumPy, h5py, zarr, dask, "
            "xarray), the path of a file, or a mapping that describes a stimulus"
        )
    if isinstance(source, np.ma.MaskedArray):
        if np.ma.is_masked(source):
            raise ValueError(
                f"{argument} has masked values; fill them with .filled(...) or cut them out before"
            )
        source = source.data
    if isinstance(source, np.memmap):
        return Found(source.shape, source.dtype, opened=partial(nullcontext, source))
    return Found(source.shape, source.dtype, array=source)


# Axes, values, time


def _checked_dims(dims: Sequence[str] | None) -> tuple[str, ...] | None:
    if dims is None:
        return None
    if isinstance(dims, str) or not all(isinstance(dim, str) for dim in dims):
        raise TypeError(f"dims={dims!r}; expected a sequence of names, such as ('time', 'y', 'x')")
    names = tuple(dims)
    unknown = [name for name in names if name not in MOVIE_DIMS]
    if unknown:
        raise ValueError(f"dims={names}: {unknown[0]!r}; {nearest_names(unknown[0], MOVIE_DIMS)}")
    if "time" not in names or len(set(names)) != len(names):
        raise ValueError(f"dims={names}; expected 'time' and no name twice")
    return names


def _require_numbers(found: Found, argument: str) -> None:
    where = f"{argument} ({found.named})" if found.named != argument else argument
    if found.dtype.kind not in "biuf":
        kind = "complex numbers" if found.dtype.kind == "c" else "no numbers"
        raise ValueError(
            f"{where} has dtype {found.dtype}, {kind}; expected real numbers: one value a pixel"
        )
    if 0 in found.shape:
        raise ValueError(f"{where} is empty: shape {found.shape}; expected frames with pixels")


def _require_single_precision(found: Found, argument: str) -> None:
    """Raise ValueError where float32 cannot hold or tell apart the values of an array in memory."""
    values = found.array
    if not isinstance(values, np.ndarray) or np.can_cast(values.dtype, np.float32):
        return
    # These reductions leave out NaN without a copy.
    low, high = np.fmin.reduce(values, axis=None), np.fmax.reduce(values, axis=None)
    largest = max(abs(float(low)), abs(float(high)))
    if LARGEST < largest < np.inf:
        raise ValueError(_too_large(argument, largest))
    spread = float(high) - float(low)
    # A constant whose last digits vary is one.
    least = 0.0 if values.dtype.kind in "iu" else ROUNDING * largest
    if not np.isfinite(spread) or spread <= least:
        return
    if np.spacing(np.float32(largest)) / 2 <= COARSENESS * spread:
        return
    error = np.fmax.reduce(np.abs(values - values.astype(np.float32).astype(np.float64)), axis=None)
    if error > COARSENESS * spread:
        raise ValueError(
            f"{argument} has values from {low:.10g} to {high:.10g}, which 32-bit floats, as movies "
            f"are kept, round by up to {error:.3g}: different values become the same; subtract the "
            "mean (in float64) before"
        )


def _too_large(what: str, largest: float) -> str:
    return (
        f"{what} has values up to {largest:.4g} in size, beyond the largest of 32-bit floats "
        f"({LARGEST:.4g}), as which movies are kept; scale them, or correct those that are wrong"
    )


def _as_single(values: np.ndarray, what: str) -> np.ndarray:
    """Values as float32, in C order; ValueError where finite ones are beyond it."""
    if values.dtype.kind != "f" or np.can_cast(values.dtype, np.float32):
        return values.astype(np.float32, order="C")
    with np.errstate(over="ignore"):
        single = values.astype(np.float32, order="C")
    beyond = np.isinf(single)
    if beyond.any():
        beyond &= np.isfinite(values)
        if beyond.any():
            raise ValueError(_too_large(what, float(np.abs(values[beyond]).max())))
    return single


def _axes_of(found: Found, dims: tuple[str, ...] | None, argument: str) -> tuple[str, ...]:
    """Name each axis of the source."""
    n = len(found.shape)
    if dims is not None:
        if len(dims) != n:
            raise ValueError(
                f"dims={dims} names {len(dims)} axes, but {argument} has {n}: shape {found.shape}"
            )
        return dims
    if found.dims is not None:
        if "time" in found.dims and not set(found.dims) - {"time", "color"}:
            return found.dims
        if {"time", "y", "x"} <= set(found.dims) <= set(MOVIE_DIMS):
            return found.dims
        if found.named == argument:
            plain = xr.DataArray(np.broadcast_to(np.int8(0), found.shape), dims=found.dims)
            require_dims(plain, MOVIE_DIMS, argument, optional=("color",))
        raise ValueError(
            f"{argument} ({found.named}) names its axes {found.dims}; expected ('time', 'y', 'x') "
            "and optionally 'color': say with dims= what each is, in this order"
        )
    if n not in DIMS_BY_NUMBER:
        raise ValueError(
            f"{argument} has shape {found.shape}; expected numbers, (time,) or (time, y, x), or "
            "with dims= what each axis is, such as ('time', 'color', 'y', 'x')"
        )
    return DIMS_BY_NUMBER[n]


def _labelled(found: Found, axes: tuple[str, ...], attrs: dict[str, Any]) -> xr.DataArray:
    """Return the movie: values in the order of its dims, and the coordinates of the source."""
    dims = tuple(dim for dim in MOVIE_DIMS if dim in axes or dim in ("y", "x"))
    sizes = dict(zip(axes, found.shape, strict=True))
    shape = tuple(sizes.get(dim, 1) for dim in dims)
    renamed = dict(zip(found.dims or (), axes, strict=False))
    coords: dict[str, Any] = {}
    for name, variable in found.coords.items():
        name = renamed.get(name, name)
        along = tuple(renamed[str(dim)] for dim in variable.dims)
        if not along and name in dims:  # the place of a pixel that was taken out of a movie
            coords[name] = ((name,), variable.values.reshape(1), variable.attrs)
        else:
            coords[name] = (along, variable.values, variable.attrs)
    for dim in ("y", "x"):
        pixels = (dim, np.arange(sizes.get(dim, 1)), {"units": "pixel", "long_name": "pixel index"})
        coords.setdefault(dim, pixels)
    movie = xr.DataArray(
        _values(found, axes, dims, shape),
        dims=dims,
        coords=coords,
        name="stimulus",
        attrs={**attrs, **found.attrs},
    )
    return says_finite(movie) if found.dtype.kind in "biu" else movie


def _values(
    found: Found, axes: tuple[str, ...], dims: tuple[str, ...], shape: tuple[int, ...]
) -> np.ndarray | da.Array:
    """Values as float32, with the axes of a movie: in memory, or lazy."""
    if found.in_memory:
        return _arranged(found.array, axes, dims).astype(np.float32, copy=False)
    time = axes.index("time")
    if isinstance(found.array, da.Array):
        n_frames = frames_in_chunk(shape[1:], max(found.array.chunks[time]))
        arranged = _arranged(found.array, axes, dims)
        if arranged.dtype != np.float32:
            arranged = arranged.map_blocks(_as_single, "the movie", dtype=np.float32)
        return arranged.rechunk((n_frames, *shape[1:]))
    opened = partial(nullcontext, found.array) if found.opened is None else found.opened
    return lazy_array(
        partial(_read_stored, opened, axes, dims),
        shape,
        stored=1 if found.stored is None else found.stored[time],
    )


def _arranged(array: Any, axes: tuple[str, ...], dims: tuple[str, ...]) -> Any:
    """View of `array`, whose axes are `axes`, with those of `dims`."""
    there = array.transpose([axes.index(dim) for dim in dims if dim in axes])
    return there[tuple(slice(None) if dim in axes else None for dim in dims)]


def _read_stored(
    opened: Callable[[], AbstractContextManager[Any]],
    axes: tuple[str, ...],
    dims: tuple[str, ...],
    key: tuple[slice, ...],
) -> np.ndarray:
    """Read one plain slice a dim of the movie."""
    wanted = dict(zip(dims, key, strict=True))
    try:
        with opened() as array:
            part = np.asarray(array[tuple(wanted[dim] for dim in axes)])
    except (OSError, LookupError, ValueError, RuntimeError) as error:
        frames = wanted["time"]
        raise OSError(
            f"frames {frames.start}..{frames.stop - 1} of the movie cannot be read: {error}; its "
            "file was changed, closed or is damaged: open it again"
        ) from error
    part = _arranged(part, axes, dims)
    part = part[tuple(slice(None) if dim in axes else wanted[dim] for dim in dims)]
    frames = wanted["time"]
    return _as_single(part, f"the movie (frames {frames.start}..{frames.stop - 1})")


def _checked_width(bin_width: Any) -> float | None:
    if bin_width is None:
        return None
    width = magnitude(bin_width, "s", "bin_width")
    if isinstance(width, bool) or not isinstance(width, int | float | np.number):
        raise TypeError(f"bin_width={bin_width!r}; expected a number of seconds, or a quantity")
    if not 0 < width < np.inf:
        raise ValueError(f"bin_width={width}; expected a duration in seconds above 0")
    return float(width)


def _with_time(movie: xr.DataArray, width: float | None, argument: str) -> xr.DataArray:
    """Movie with the coordinate `time`: its own if it has one, else from the bin width."""
    if "time" not in movie.coords:
        if width is None:
            return movie
        return movie.assign_coords(time=time_coordinate(np.arange(len(movie)) * width, width))
    time = movie["time"]
    if time.dtype.kind not in "iuf":
        raise ValueError(
            f"{argument}: its coordinate 'time' has dtype {time.dtype}; expected bin onsets in "
            "seconds: convert it, or drop it with .drop_vars('time')"
        )
    if "bin_width" in time.attrs:
        own = bin_width_of(movie, argument)
        if width is not None and abs(width - own) > BIN_WIDTH_TOLERANCE * own:
            raise ValueError(
                f"bin_width={width:g} s, but the coordinate 'time' of {argument} says {own:g} s: "
                "correct it (seconds, or a quantity with units), or leave it out"
            )
        return movie
    if width is None:
        return movie
    onsets = time_coordinate(time.values, width)
    movie = movie.assign_coords(time=onsets.assign_attrs(time.attrs))
    bin_width_of(movie, argument)
    return movie
