"""Recorded potentials laid beside the model's samples: by their times, never by position."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from retina_codec._common.checks import require_dims, require_finite
from retina_codec._common.provenance import provenance
from retina_codec._common.time import bin_width_of, require_time_forward, whole_history

# Fewer samples in a half give no correlation worth the name.
FEWEST = 3


def resample_potential(potential: xr.DataArray, stimulus: xr.DataArray) -> xr.DataArray:
    """Mean of a potential, sampled finely, in each bin of a stimulus.

    Parameters
    ----------
    potential : xarray.DataArray
        (time, interneuron), `time` in seconds on the stimulus's axis (0 is the same moment),
        ascending. It may be sampled at any rate above one sample a bin.
    stimulus : xarray.DataArray
        Its `time` is the onset of each bin, in seconds.

    Returns
    -------
    xarray.DataArray
        (time, interneuron), at the stimulus's times, in the potential's units.

    Raises
    ------
    TypeError
        If one is not a DataArray.
    ValueError
        If a time is missing or goes back, or a bin has no sample.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> import retina_codec as rc
    >>> movie = rc.stimuli.white_noise(n_frames=3, seed=0)
    >>> fine = xr.DataArray(
    ...     np.arange(30.0)[:, None], dims=("time", "interneuron"),
    ...     coords={"time": 0.0005 + 0.001 * np.arange(30)},
    ... )
    >>> rc.interneurons.resample_potential(fine, movie).values[:, 0].tolist()
    [4.5, 14.5, 24.5]
    """
    potential = require_dims(potential, ("time", "interneuron"), "potential")
    if "time" not in potential.coords:
        raise ValueError(
            "potential has no coordinate 'time'; give it the seconds at which it was sampled with "
            ".assign_coords(time=...)"
        )
    require_time_forward(potential, "potential")
    require_finite(potential, "potential")
    width = bin_width_of(stimulus, "stimulus")
    onsets = stimulus["time"].values
    # An onset is a sum of many widths: a sample at the very edge belongs to the bin it opens.
    hair = 1e-6 * width
    first, last = np.searchsorted(
        potential["time"].values, np.stack([onsets - hair, onsets + width - hair])
    )
    empty = last == first
    if empty.any():
        raise ValueError(
            f"potential has no sample in {int(empty.sum())} of the stimulus's {len(onsets)} bins, "
            f"the first at {float(onsets[empty][0]):g} s; give the stretch of the stimulus that "
            "was recorded with .sel(time=slice(start, stop)), or interpolate the potential before"
        )
    values = potential.values.astype(np.float64)
    mean = values.mean(0)
    sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values - mean, axis=0)])
    return xr.DataArray(
        (sums[last] - sums[first]) / (last - first)[:, None] + mean,
        dims=("time", "interneuron"),
        coords={
            **{str(name): c for name, c in stimulus.coords.items() if c.dims == ("time",)},
            **{str(name): c for name, c in potential.coords.items() if c.dims == ("interneuron",)},
        },
        name=potential.name,
        attrs={**potential.attrs, **provenance(function="resample_potential")},
    )


def lagged_potential(
    potential: xr.DataArray, samples: Mapping[str, xr.DataArray], lags: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Find the potential at each of the model's samples and at the bins around it.

    Parameters
    ----------
    potential : DataArray
        (time, interneuron).
    samples : mapping of str to DataArray
        Coordinates of the model's samples: `time`, and `block` if there are several.
    lags : ndarray of int
        Bins by which the potential is before the sample, ascending; negative: after.

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
            f"first {float(times[absent][0])!r} s; it must be on the stimulus's clock: take means "
            "in the stimulus's bins with "
            "retina_codec.interneurons.resample_potential(potential, stimulus)"
        )
    aligned = potential.isel(time=place)
    require_finite(aligned, "potential")
    labelled = xr.Dataset(coords=samples)
    ahead = max(0, -int(lags[0]))
    rows = np.intersect1d(
        whole_history(labelled, 1 + max(0, int(lags[-1]))),
        whole_history(labelled, 1 + ahead) - ahead,
    )
    values = aligned.values.astype(np.float64)
    return rows, values[rows[:, None] - lags]


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
