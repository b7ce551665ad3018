"""Which modes of two fits are the same."""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.optimize import linear_sum_assignment

from retina_codec._common.provenance import provenance
from retina_codec.modes.result import Modes

UNMATCHED = -1


def match_modes(a: Modes | xr.DataArray, b: Modes | xr.DataArray) -> xr.Dataset:
    """Pair the modes of two fits so that the sum of the cosines of their atoms is largest.

    Parameters
    ----------
    a, b : Modes or DataArray
        Modes, or dictionaries (mode, *column dims), of the same columns.

    Returns
    -------
    Dataset
        Over `mode`, the modes of `a`: `matched`, the mode of `b` paired with it (-1 if `b` has
        too few), and `cosine` of their dictionary rows (NaN if unpaired).

    Raises
    ------
    TypeError
        If `a` or `b` is neither.
    ValueError
        If their columns differ.

    Notes
    -----
    Hungarian method (`scipy.optimize.linear_sum_assignment`). The cosine keeps its sign: atoms
    that point in opposite directions do not match.

    Examples
    --------
    >>> import numpy as np
    >>> import xarray as xr
    >>> a = xr.DataArray(np.eye(3), dims=("mode", "channel"))
    >>> match_modes(a, a.isel(mode=[2, 0, 1]).drop_vars("mode", errors="ignore")).matched.values
    array([1, 2, 0])
    """
    first, second = _dictionary(a, "a"), _dictionary(b, "b")
    if set(first.dims) != set(second.dims):
        raise ValueError(
            f"a has dims {tuple(first.dims)} and b has {tuple(second.dims)}: fit both with the "
            "same features"
        )
    second = second.transpose(*first.dims)
    try:
        xr.align(first, second, join="exact", exclude={"mode"})
    except ValueError as error:
        raise ValueError(
            f"a and b have different columns ({error}): fit both to the same"
        ) from error
    rows, others = _unit_rows(first), _unit_rows(second)
    cosine = rows @ others.T
    ours, theirs = linear_sum_assignment(-cosine)
    matched = np.full(len(rows), UNMATCHED)
    matched[ours] = second["mode"].values[theirs]
    found = np.full(len(rows), np.nan)
    found[ours] = cosine[ours, theirs]
    return xr.Dataset(
        {
            "matched": ("mode", matched),
            "cosine": ("mode", found, {"units": "1", "long_name": "cosine of matched atoms"}),
        },
        coords={"mode": first["mode"].values},
        attrs=provenance(method="match_modes"),
    )


def _dictionary(modes: Modes | xr.DataArray, argument: str) -> xr.DataArray:
    dictionary = modes.dictionary if isinstance(modes, Modes) else modes
    if not isinstance(dictionary, xr.DataArray):
        raise TypeError(
            f"{argument} is a {type(modes).__name__}; expected Modes or a dictionary DataArray"
        )
    if "mode" not in dictionary.dims:
        raise ValueError(f"{argument} has dims {tuple(dictionary.dims)}; expected one named 'mode'")
    return dictionary.transpose("mode", ...)


def _unit_rows(dictionary: xr.DataArray) -> np.ndarray:
    rows = dictionary.values.reshape(dictionary.sizes["mode"], -1).astype(np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1)
