"""Labelled arrays read as rows (samples) and columns (hidden units), block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from retina_codec._common.checks import blocks_of_rows, nearest_names, require_array
from retina_codec.attribution.reduction import UNIT_DIMS

COLUMN_DIMS = ("sign", *UNIT_DIMS)


def several(names: str | Sequence[str]) -> tuple[str, ...]:
    """Names as a tuple; one may be given alone."""
    return (names,) if isinstance(names, str) else tuple(names)


@dataclass(frozen=True)
class Columns:
    """An array as blocks of values (row, by, column).

    `array` has its dims in the order `rows`, `by`, `features`, each possibly several.
    """

    array: xr.DataArray
    rows: tuple[str, ...]
    by: tuple[str, ...]
    features: tuple[str, ...]
    argument: str

    def __len__(self) -> int:
        return self._size(self.features)

    def _size(self, dims: Sequence[str]) -> int:
        return int(np.prod([self.array.sizes[dim] for dim in dims], dtype=int))

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return self._size(self.rows)

    @property
    def n_by(self) -> int:
        """Number of results asked for."""
        return self._size(self.by)

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Give values (row, by, column) in double precision, and the part of the first dim.

        Raises
        ------
        ValueError
            Where they are not finite.
        """
        for start, part in blocks_of_rows(self.array):
            bad = ~np.isfinite(part)
            if bad.any():
                place = np.argwhere(bad)[0]
                place[0] += start
                where = ", ".join(
                    f"{dim}={i}" for dim, i in zip(self.array.dims, place, strict=True)
                )
                raise ValueError(
                    f"{self.argument} has NaN or infinite values, the first at index ({where}); "
                    "replace or cut them out before"
                )
            values = part.astype(np.float64).reshape(-1, self.n_by, len(self))
            yield slice(start, start + len(part)), values

    def labelled(self, values: np.ndarray, dims: Sequence[str]) -> xr.DataArray:
        """Values of some of the dims, with the coordinates that lie along them."""
        coords = {
            name: coord
            for name, coord in self.array.coords.items()
            if coord.dims and set(coord.dims) <= set(dims)
        }
        shape = [self.array.sizes[dim] for dim in dims]
        return xr.DataArray(values.reshape(shape), dims=tuple(dims), coords=coords)


def columns_of(
    array: xr.DataArray,
    features: str | Sequence[str] | None,
    argument: str,
    *,
    by: str | Sequence[str] = (),
    first: str | None = None,
) -> Columns:
    """Say which dims are columns, and bring them to the end.

    Parameters
    ----------
    array : DataArray
        What was given.
    features : str or sequence of str, optional
        Dims that are columns; by default all that belong to hidden units.
    argument : str
        Name of `array` in messages.
    by : str or sequence of str
        Dims along which results are taken one by one.
    first : str, optional
        Sample dim that comes first.

    Raises
    ------
    TypeError
        If it is no DataArray.
    ValueError
        If a dim is missing, there are no columns or no samples.
    """
    array = require_array(array, argument)
    present = tuple(str(dim) for dim in array.dims)
    wanted = (
        tuple(dim for dim in COLUMN_DIMS if dim in present)
        if features is None
        else several(features)
    )
    one_by_one = several(by)
    for name, dims in (("features", wanted), ("by", one_by_one)):
        for dim in dims:
            if dim not in present:
                raise ValueError(
                    f"{name}: {argument} has no dim {dim!r}; {nearest_names(dim, present)}"
                )
    both = [dim for dim in wanted if dim in one_by_one]
    if both:
        raise ValueError(f"{both[0]!r} is in features and in by; give it in one of them")
    if not wanted:
        raise ValueError(
            f"{argument} has dims {present}, none of which is a dim of hidden units "
            f"({', '.join(COLUMN_DIMS)}): say which are columns with features="
        )
    rows = [dim for dim in present if dim not in wanted and dim not in one_by_one]
    if first is not None:
        rows = [first, *(dim for dim in rows if dim != first)]
    if any(size == 0 for size in array.sizes.values()):
        raise ValueError(f"{argument} is empty: sizes {dict(array.sizes)}")
    ordered = array.transpose(*rows, *one_by_one, *wanted)
    if not rows:
        ordered = ordered.expand_dims("the only sample")
    return Columns(ordered, tuple(rows), one_by_one, wanted, argument)
