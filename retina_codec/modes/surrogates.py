"""Contributions whose columns have lost each other: what no team can be found in."""

from __future__ import annotations

import numpy as np
import xarray as xr

from retina_codec._common.time import runs_of
from retina_codec.modes.columns import Contribution, layout_of, named_arrays


def phase_shuffled(
    contribution: Contribution,
    *,
    features: tuple[str, ...],
    seed: int,
    keep_values: bool = False,
) -> dict[str, xr.DataArray]:
    """Give every column, of each cell too, random phases of its own, block by block of time.

    Each keeps its spectrum, and so its mean, variance and autocorrelation. One set of phases for
    all columns would keep their cross-correlations as well, and with them the teams: phases are
    independent. Values become more nearly normal; a non-negative column does not stay so. Images
    have no order, and with it no spectrum: there each column is put in an order of its own.

    Parameters
    ----------
    contribution : DataArray, or dict or list of DataArray
        As for `fit_modes`.
    features : tuple of str
        The column dims.
    seed : int
        Of the phases.
    keep_values : bool
        Put the column's own values in the order of those with new phases, as amplitude-adjusted
        surrogates do (Theiler et al. 1992, Physica D 58:77): they keep their distribution and
        their sign, and their spectrum nearly.

    Returns
    -------
    dict of str to DataArray
        By layer, labelled as given.
    """
    rng = np.random.default_rng(seed)
    arrays = named_arrays(contribution)
    layout_of(arrays, features)
    shuffled = {}
    for name, array in arrays.items():
        samples = [str(dim) for dim in array.dims if dim not in features]
        first = next((dim for dim in ("time", "image") if dim in samples), sorted(samples)[0])
        turned = array.transpose(first, ...)
        values = turned.values.astype(np.float64)
        if first == "image":
            values = rng.permuted(values, axis=0)
        else:
            for run in runs_of(turned) if first == "time" else [slice(0, len(values))]:
                fresh = _with_phases(values[run], rng)
                if keep_values:
                    ranks = np.argsort(np.argsort(fresh, axis=0), axis=0)
                    fresh = np.take_along_axis(np.sort(values[run], axis=0), ranks, axis=0)
                values[run] = fresh
        shuffled[name] = turned.copy(data=values).transpose(*array.dims)
    return shuffled


def _with_phases(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    spectrum = np.fft.rfft(values, axis=0)
    turns = np.exp(2j * np.pi * rng.random(spectrum.shape))
    turns[0] = 1
    if len(values) % 2 == 0:
        turns[-1] = rng.choice([-1.0, 1.0], size=turns.shape[1:])  # stays real
    return np.fft.irfft(spectrum * turns, n=len(values), axis=0)
