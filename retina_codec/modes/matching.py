"""Which modes of two fits are the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from scipy.optimize import linear_sum_assignment

from retina_codec._common.provenance import provenance
from retina_codec.modes.columns import Contribution
from retina_codec.modes.fit import fit_modes
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


def stability(
    contribution: Contribution, *, seeds: Sequence[int] = (0, 1, 2), **options: Any
) -> xr.Dataset:
    """How well each mode comes back when the fit is repeated with other seeds.

    Parameters
    ----------
    contribution : DataArray, or dict or list of DataArray
        As for `fit_modes`.
    seeds : sequence of int
        The first gives the modes that are looked for, the others the refits. A seed changes the
        held-out samples, the starting values and the order of mini-batches.
    **options
        Other arguments of `fit_modes`.

    Returns
    -------
    Dataset
        `cosine` (mode, seed), of each mode with its partner in each refit (`match_modes`), and
        `stability` (mode), their median. Modes that were never active are NaN.

    Raises
    ------
    TypeError, ValueError
        As `fit_modes`; ValueError if there are fewer than two different seeds.

    Examples
    --------
    >>> import numpy as np
    >>> import xarray as xr
    >>> strength = np.eye(3)[np.random.default_rng(0).integers(3, size=600)]
    >>> contribution = xr.DataArray(strength, dims=("time", "channel"))
    >>> stability(
    ...     contribution, seeds=(0, 1), features="channel", n_modes=3, k=1, progress=False
    ... ).stability.round(2).values
    array([1., 1., 1.])
    """
    seeds = tuple(seeds)
    if len(set(seeds)) < 2 or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds={seeds}; expected at least two, all different")
    reference = fit_modes(contribution, seed=seeds[0], **options)
    active = reference.loadings["active_fraction"] > 0
    cosines = [
        match_modes(reference, fit_modes(contribution, seed=seed, **options))["cosine"]
        for seed in seeds[1:]
    ]
    cosine = xr.concat(cosines, dim="seed").assign_coords(seed=list(seeds[1:]))
    cosine = cosine.transpose("mode", "seed").where(active)
    return xr.Dataset(
        {
            "cosine": cosine,
            "stability": cosine.median("seed").assign_attrs(
                units="1", long_name="median cosine over refits"
            ),
        },
        attrs={**reference.attrs, **provenance(method="stability", seeds=seeds, **options)},
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
