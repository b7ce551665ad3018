"""Whether the reconstructed contributions still add up to the response."""

from __future__ import annotations

import xarray as xr

from retina_codec._common.checks import require_array, require_finite
from retina_codec._common.provenance import provenance
from retina_codec.modes.result import Modes

# Dims of outputs and samples: contributions to two of them add up to nothing.
SEPARATE = ("cell", "category", "time", "image")


def target_reconstruction(
    modes: Modes,
    target: xr.DataArray,
    baseline: xr.DataArray | float = 0.0,
    *,
    loadings: xr.DataArray | None = None,
) -> xr.Dataset:
    """Predict each cell's rate from modes: baseline plus the sum of reconstructed contributions.

    Contributions over a layer that cuts the network add up to the target's change from its
    baseline (completeness); this asks how much of that the modes keep.

    Parameters
    ----------
    modes : Modes
        Fitted to contributions of all units of a layer, to each cell (or to one scalar target).
    target : DataArray
        (sample[, cell]) as the root of `retina_codec.contributions` has it, or a recorded rate in
        its units.
    baseline : DataArray or float
        ``target_baseline``, with dims of `target`.
    loadings : DataArray, optional
        Those to use, such as a few modes only (others set to 0); by default those of the samples
        that were held out of the fit.

    Returns
    -------
    Dataset
        `prediction` (sample[, cell]) in the target's units; `r` ([cell]), Pearson's correlation
        with the target; `r2` ([cell]), the share of the target's variance about its own mean that
        is explained, ``1 - sum (target - prediction)^2 / sum (target - mean)^2``. NaN where the
        target is constant. With several layers each has its own, along the dim `layer`.

    Raises
    ------
    TypeError
        If `target` is not a DataArray.
    ValueError
        If it has a dim that contributions lack, or lacks one that tells their samples or cells
        apart; if it or `baseline` has other samples or cells, or NaN.

    Examples
    --------
    >>> import numpy as np
    >>> import xarray as xr
    >>> from retina_codec.modes import fit_modes
    >>> strength = np.eye(3)[np.random.default_rng(0).integers(3, size=600)] * [1.0, 2.0, 3.0]
    >>> contribution = xr.DataArray(strength, dims=("time", "channel"))
    >>> modes = fit_modes(contribution, features="channel", n_modes=3, k=1, progress=False)
    >>> rate = 5.0 + contribution.sum("channel")
    >>> bool(target_reconstruction(modes, rate, 5.0).r2 > 0.99)
    True
    """
    target = require_array(target, "target")
    if loadings is None:
        held_out = modes.score()["held_out"]
        loadings = modes.loadings.isel({held_out.dims[0]: held_out.values})
        if target.sizes.get(held_out.dims[0]) == held_out.size:
            target = target.isel({held_out.dims[0]: held_out.values})
            if isinstance(baseline, xr.DataArray) and held_out.dims[0] in baseline.dims:
                baseline = baseline.isel({held_out.dims[0]: held_out.values})
    rebuilt = modes.reconstruct(loadings)
    layers = rebuilt if isinstance(rebuilt, dict) else {None: rebuilt}
    results = []
    for array in layers.values():
        missing = [dim for dim in target.dims if dim not in array.dims]
        if missing:
            raise ValueError(
                f"target has dims {tuple(target.dims)}; the contributions, with dims "
                f"{tuple(array.dims)}, have no {missing[0]!r}: fit modes to contributions to "
                "each cell, or give a target without it"
            )
        over = [dim for dim in array.dims if dim not in target.dims]
        for dim in over:
            if dim in SEPARATE:
                raise ValueError(
                    f"target has dims {tuple(target.dims)}, but contributions are to each {dim!r}: "
                    "their sum over those is no response; give the target with that dim"
                )
        summed = array.sum(over)
        try:
            xr.align(summed, target, join="exact")
        except ValueError as error:
            raise ValueError(
                f"target and the contributions have different samples or cells ({error}): select "
                "the same"
            ) from error
        if isinstance(baseline, xr.DataArray):
            odd = [dim for dim in baseline.dims if dim not in target.dims]
            if odd:
                raise ValueError(f"baseline has the dim {odd[0]!r}, which target has not")
            try:
                xr.align(
                    baseline, target, join="exact", exclude=set(target.dims) - set(baseline.dims)
                )
            except ValueError as error:
                raise ValueError(
                    f"baseline and target have different samples or cells ({error}): select the "
                    "same"
                ) from error
        results.append(_agreement(summed + baseline, target))
    require_finite(target, "target")
    if isinstance(rebuilt, dict):
        joined = xr.concat(results, dim="layer").assign_coords(layer=list(rebuilt))
    else:
        joined = results[0]
    return joined.assign_attrs(provenance(method="target_reconstruction", modes=modes.attrs))


def _agreement(prediction: xr.DataArray, target: xr.DataArray) -> xr.Dataset:
    over = [dim for dim in target.dims if dim not in ("cell", "category")]
    prediction = prediction.transpose(*target.dims).astype(float).drop_attrs(deep=False)
    wanted = target.astype(float)
    about = wanted - wanted.mean(over)
    spread = (about**2).sum(over)
    moved = prediction - prediction.mean(over)
    scale = (spread * (moved**2).sum(over)) ** 0.5
    return xr.Dataset(
        {
            "prediction": prediction.assign_attrs(
                units=target.attrs.get("units", "1"), long_name="baseline plus modes"
            ),
            "r": ((about * moved).sum(over) / scale.where(scale > 0)).assign_attrs(
                units="1", long_name="correlation with the target"
            ),
            "r2": (
                1 - ((wanted - prediction) ** 2).sum(over) / spread.where(spread > 0)
            ).assign_attrs(units="1", long_name="share of the target's variance"),
        }
    )
