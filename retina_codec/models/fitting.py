"""What a model of a recording takes over from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from retina_codec._common.checks import require_dims
from retina_codec._common.time import bin_width_of


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
    return {
        "input_shape": movie.shape[1:],
        "bin_width": bin_width_of(movie, "stimulus"),
        "cells": [str(cell) for cell in node["cell"].values],
        "mean": float(movie.mean()),
        "sd": float(movie.std()),
    }


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
