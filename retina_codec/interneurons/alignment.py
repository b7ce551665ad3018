"""Recorded potentials laid beside the model's samples: by their times, never by position."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from retina_codec._common.checks import require_finite
from retina_codec._common.time import whole_history

# Fewer samples in a half give no correlation worth the name.
FEWEST = 3


def lagged_potential(
    potential: xr.DataArray, samples: Mapping[str, xr.DataArray], n_lags: int
) -> tuple[np.ndarray, np.ndarray]:
    """Find the potential at each of the model's samples and at the bins before.

    Parameters
    ----------
    potential : DataArray
        (time, interneuron).
    samples : mapping of str to DataArray
        Coordinates of the model's samples: `time`, and `block` if there are several.
    n_lags : int
        Bins: 1 is the sample's own.

    Returns
    -------
    rows : ndarray of int
        Samples whose lags all lie in their own block.
    lagged : ndarray
        (row, lag, interneuron), the potential `lag` bins before each of those samples.

    Raises
    ------
    ValueError
        If `potential` lacks a sample's exact time, or has NaN at one.
    """
    if "time" not in potential.indexes:
        raise ValueError(
            "potential has no coordinate 'time'; give it the stimulus's with "
            ".assign_coords(time=stimulus['time'])"
        )
    index = potential.indexes["time"]
    if not index.is_unique:
        raise ValueError(
            "potential has times that stand there twice; keep one with .drop_duplicates('time')"
        )
    times = samples["time"].values
    place = index.get_indexer(times)
    absent = place < 0
    if absent.any():
        raise ValueError(
            f"potential has no value at {int(absent.sum())} of the model's {len(times)} times, the "
            f"first {float(times[absent][0])!r} s; it must be on the stimulus's clock: resample it "
            "to the stimulus's bins and copy its 'time'"
        )
    aligned = potential.isel(time=place)
    require_finite(aligned, "potential")
    rows = whole_history(xr.Dataset(coords=samples), n_lags)
    values = aligned.values.astype(np.float64)
    return rows, values[rows[:, None] - np.arange(n_lags)]


def separate_halves(lagged: np.ndarray, gap: int, interneurons: np.ndarray) -> tuple[slice, slice]:
    """First and second half of the rows of `lagged`, with `gap` rows between.

    Raises
    ------
    ValueError
        If there are too few rows, or an interneuron is constant in one of the halves.
    """
    n = len(lagged)
    length = (n - gap) // 2
    if length < FEWEST:
        raise ValueError(
            f"stimulus has {n} samples to compare; two halves with {gap} samples between need at "
            f"least {gap + 2 * FEWEST}: give a longer stretch"
        )
    halves = slice(0, length), slice(n - length, n)
    constant = np.any([np.ptp(lagged[half], axis=0).min(0) == 0 for half in halves], axis=0)
    if constant.any():
        raise ValueError(
            "potential is constant in a half of the recording for interneuron "
            f"{', '.join(str(name) for name in interneurons[constant])}: leave it out with "
            ".drop_sel(interneuron=...), or give a stretch in which it responds"
        )
    return halves
