"""Sparsity of each sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from retina_codec._common.provenance import provenance
from retina_codec.analysis.columns import columns_of


def sparsity(
    contribution: xr.DataArray, *, features: str | Sequence[str] | None = None
) -> xr.DataArray:
    """Hoyer's sparsity of each sample over the hidden units: 0 if all are equal, 1 if one is alone.

    With n units of absolute values |c_j|,

        (sqrt(n) - sum_j |c_j| / sqrt(sum_j c_j^2)) / (sqrt(n) - 1)

    Parameters
    ----------
    contribution : DataArray
        Contributions or activations, such as (time, cell, sign, channel); lazy ones are read block
        by block.
    features : str or sequence of str, optional
        Dims of the units; by default all of ``sign``, ``channel``, ``lag``, ``y``, ``x`` and
        ``token`` that there are.

    Returns
    -------
    DataArray
        Over the other dims, with their coordinates, in units of 1. NaN where all units are 0.

    Raises
    ------
    TypeError
        If `contribution` is no DataArray.
    ValueError
        If it has NaN, is empty, lacks a dim that is named, or has fewer than two units.

    References
    ----------
    Hoyer, J. Mach. Learn. Res. 5:1457, 2004.

    Examples
    --------
    >>> import numpy as np
    >>> import retina_codec as rc
    >>> import xarray as xr
    >>> c = xr.DataArray([[1.0, -1.0, 1.0, 1.0], [0, 5, 0, 0]], dims=("time", "channel"))
    >>> rc.analysis.sparsity(c).values
    array([0., 1.])
    """
    columns = columns_of(contribution, features, "contribution")
    n = len(columns)
    if n < 2:
        raise ValueError(
            f"contribution has {n} unit along {columns.features}; sparsity needs at least two"
        )
    found = np.empty(columns.n_rows)
    filled = 0
    for _, values in columns.blocks():
        part = np.abs(values[:, 0])
        # Divided by the largest, that squares of small numbers are not lost.
        largest = part.max(axis=1)
        with np.errstate(invalid="ignore"):
            part /= largest[:, None]
            ratio = part.sum(axis=1) / np.sqrt(np.square(part).sum(axis=1))
        sparse = (np.sqrt(n) - ratio) / (np.sqrt(n) - 1)
        found[filled : filled + len(sparse)] = np.clip(sparse, 0, 1)
        filled += len(sparse)
    result = columns.labelled(found, columns.rows).rename("sparsity")
    result.attrs = {
        "units": "1",
        "long_name": "Hoyer sparsity",
        "undefined": "NaN where all units are 0",
        **provenance(function="sparsity", features=list(columns.features)),
    }
    return result
