"""Loadings as they are given: checked, and averaged over what is not asked about."""

from __future__ import annotations

import xarray as xr

from retina_codec._common.checks import require_array, require_finite
from retina_codec.modes.result import Modes


def mean_loadings(modes: Modes | xr.DataArray) -> xr.DataArray:
    """Return loadings (time, mode), averaged over all other dims."""
    loadings = checked_loadings(modes)
    others = [dim for dim in loadings.dims if dim not in ("time", "mode")]
    averaged = loadings.mean(others, keep_attrs=True) if others else loadings
    return averaged.transpose("time", "mode")


def cell_loadings(modes: Modes | xr.DataArray) -> xr.DataArray:
    """Return loadings (time, cell, mode), averaged over other dims; one cell if there is none."""
    loadings = checked_loadings(modes)
    others = [dim for dim in loadings.dims if dim not in ("time", "cell", "mode")]
    averaged = loadings.mean(others, keep_attrs=True) if others else loadings
    if "cell" not in averaged.dims:
        averaged = averaged.drop_vars("cell", errors="ignore").expand_dims("cell")
    return averaged.transpose("time", "cell", "mode")


def checked_loadings(modes: Modes | xr.DataArray) -> xr.DataArray:
    """Return the loadings, checked to be finite and over `time` and `mode`."""
    loadings = modes.loadings if isinstance(modes, Modes) else require_array(modes, "modes")
    for dim in ("time", "mode"):
        if dim not in loadings.dims:
            raise ValueError(
                f"modes: the loadings have dims {tuple(loadings.dims)}; expected 'time' and 'mode'"
            )
    require_finite(loadings, "modes")
    return loadings
