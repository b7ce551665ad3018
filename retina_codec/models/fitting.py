"""What a model of a recording takes over from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from retina_codec._common.checks import require_dims, require_finite
from retina_codec._common.time import bin_width_of
from retina_codec.models.reading import FrameReader

# Numbers that are held in double precision at a time (8 MB).
DOUBLE_NUMBERS = 2**20


def movie_settings(node: xr.Dataset) -> dict[str, Any]:
    """Frame shape, bin width, cells, and the movie's mean and sd: arguments of a model.

    Parameters
    ----------
    node : xarray.Dataset
        stimulus (time, [color,] y, x) and spike_count (time, cell).
    """
    movie = require_dims(
        node["stimulus"], ("time", "color", "y", "x"), "stimulus", optional=("color",)
    )
    mean, sd = mean_and_sd(movie)
    return {
        "input_shape": movie.shape[1:],
        "bin_width": bin_width_of(movie, "stimulus"),
        "cells": [str(cell) for cell in node["cell"].values],
        "mean": mean,
        "sd": sd,
    }


def mean_and_sd(movie: xr.DataArray) -> tuple[float, float]:
    """Mean and standard deviation of a movie that may be larger than memory, read once in order.

    Means and sums of squared deviations of its parts are merged (Chan, Golub & LeVeque, Am. Stat.
    37 (1983), 242), so that a large mean takes no digits from a small sd.

    Parameters
    ----------
    movie : xarray.DataArray
        (time, [color,] y, x), in memory, memory-mapped or of dask.

    Raises
    ------
    ValueError
        If there are no frames, or some pixels are not finite.
    """
    if movie.size == 0:
        raise ValueError(f"stimulus is empty, of shape {movie.shape}; expected frames to train on")
    reader = FrameReader(movie)
    n_together = max(1, DOUBLE_NUMBERS * movie.shape[0] // movie.size)
    n, mean, squares = 0, 0.0, 0.0
    with np.errstate(invalid="ignore"):  # infinity is refused below
        for start in range(0, movie.shape[0], n_together):
            part = reader.read(start, min(start + n_together, movie.shape[0])).astype(np.float64)
            part_mean = part.mean()
            part -= part_mean
            n, n_before = n + part.size, n
            away = part_mean - mean
            squares += np.vdot(part, part) + away**2 * n_before * part.size / n
            mean += away * part.size / n
    if not np.isfinite(squares):
        require_finite(movie, "stimulus")
    return float(mean), float(np.sqrt(squares / n))


def rate_to_drive(node: xr.Dataset) -> Tensor:
    """Drive (cell,) whose softplus is each cell's mean number of spikes per bin."""
    mean = (
        node["spike_count"]
        .astype(np.float64)
        .mean([d for d in ("repeat", "time") if d in node["spike_count"].dims])
    )
    # A silent cell would ask for a drive of minus infinity.
    per_bin = np.maximum(mean.values, 1e-3)
    # The inverse of the softplus, in a form that does not overflow.
    return torch.from_numpy(per_bin + np.log(-np.expm1(-per_bin)))
