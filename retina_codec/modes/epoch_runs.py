"""Epochs: contiguous runs of one label in one block."""

from __future__ import annotations

import numpy as np
import xarray as xr

from retina_codec._common.time import runs_of


def numbered_epochs(labels: np.ndarray, data: xr.DataArray) -> np.ndarray:
    """Return the number of the epoch that each sample of `data` belongs to.

    Parameters
    ----------
    labels : ndarray
        (time,) of str.
    data : DataArray
        With `time`, and `block` where there is a gap.
    """
    new = np.r_[True, labels[1:] != labels[:-1]]
    for run in runs_of(data):
        new[run.start] = True
    return np.cumsum(new) - 1
