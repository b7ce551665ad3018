"""Features and epochs that modes are described by, checked against the loadings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from retina_codec._common.checks import require_dims, require_finite
from retina_codec._common.time import runs_of
from retina_codec.modes.epoch_runs import numbered_epochs

FAMILIES = ("light", "motion", "nuisance")


def families_of(features: xr.Dataset, loadings: xr.DataArray) -> dict[str, str]:
    """Family of every feature, in the order of the Dataset."""
    if not isinstance(features, xr.Dataset):
        raise TypeError(
            f"features is a {type(features).__name__}; expected an xarray.Dataset over time, as "
            "from retina_codec.stimulus_features"
        )
    families = {}
    for name, feature in features.data_vars.items():
        if set(feature.dims) not in ({"time"}, {"time", "cell"}):
            raise ValueError(
                f"features[{name!r}] has dims {feature.dims}; expected ('time',) or "
                "('time', 'cell'): give one value for every time"
            )
        family = feature.attrs.get("family")
        if family not in FAMILIES:
            raise ValueError(
                f"features[{name!r}].attrs['family'] is {family!r}; expected one of "
                f"{', '.join(FAMILIES)}: set it"
            )
        require_finite(feature, f"features[{name!r}]")
        families[str(name)] = family
    if not set(families.values()) & {"light", "motion"}:
        raise ValueError(
            "features has no variable of the family 'light' or 'motion': there is nothing to "
            "describe modes by"
        )
    if "cell" in features.dims:
        if "cell" not in loadings.coords:
            raise ValueError(
                "features are given at each cell, but the loadings have no coordinate 'cell': fit "
                "modes to contributions to each cell, or give features of one place"
            )
        ours = [str(cell) for cell in loadings["cell"].values]
        theirs = (
            [str(cell) for cell in features["cell"].values] if "cell" in features.coords else []
        )
        missing = sorted(set(ours) - set(theirs))
        if missing:
            raise ValueError(
                f"features lack the cells {', '.join(missing)} of the loadings: give "
                "stimulus_features a place (at=) for every cell, with the same ids"
            )
    return families


def covering(features: xr.Dataset, loadings: xr.DataArray) -> xr.Dataset:
    """`features`, checked to have all times of the loadings, with blocks."""
    theirs, ours = features.get_index("time"), loadings.get_index("time")
    if "time" not in features.coords or not theirs.is_unique:
        raise ValueError("features has no coordinate 'time' with each time once: take the movie's")
    if "cell" in features.dims:
        features = features.sel(cell=loadings["cell"].values)
    missing = ~ours.isin(theirs)
    if missing.any():
        raise ValueError(
            f"features lacks {int(missing.sum())} of the {ours.size} times of the loadings, the "
            f"first {ours[missing][0]:.6g} s (features: {theirs[0]:.6g} to {theirs[-1]:.6g} s): "
            "compute them on the same movie, whose times are copied, not recomputed"
        )
    if "block" in features.coords or "block" not in loadings.coords:
        return features
    return features.sel(time=ours).assign_coords(block=("time", loadings["block"].values))


def block_numbers(features: xr.Dataset) -> np.ndarray:
    """Return the number of the contiguous run of every sample."""
    numbers = np.zeros(features.sizes["time"], dtype=int)
    for place, run in enumerate(runs_of(features)):
        numbers[run] = place
    return numbers


def epoch_numbers(epochs: Any, ignore: Sequence[str], loadings: xr.DataArray) -> np.ndarray:
    """Return the number of the epoch of every sample of the loadings, -1 for those left out."""
    epochs = require_dims(epochs, ("time",), "epochs")
    try:
        loadings, epochs = xr.align(loadings, epochs, join="exact")
    except ValueError as error:
        raise ValueError(
            f"epochs and the loadings of modes have different times ({error}): "
            "take epochs.sel(time=loadings.time)"
        ) from error
    labels = np.asarray(epochs.values, dtype=str)
    return np.where(np.isin(labels, list(ignore)), -1, numbered_epochs(labels, loadings))
