"""How the positive and the negative parts of contributions relate."""

from __future__ import annotations

import numpy as np
import xarray as xr

from retina_codec._common.checks import require_array
from retina_codec._common.provenance import provenance
from retina_codec.analysis.columns import COLUMN_DIMS, Columns, columns_of
from retina_codec.attribution.reduction import SIGNS

# Of a part's size: what varies less over the channels is rounding.
STILL = 1e-14


def sign_correlation(contribution: xr.DataArray) -> xr.Dataset:
    """Correlate over channels the positive with the size of the negative part.

    Units are split by sign first, then summed over places (and lags, and tokens): a channel has a
    positive part P and a negative part N. Pearson's r between P and |N| over the channels is near
    1 where the same channels raise the target in some places and lower it in others, and near 0 or
    below where helpers and hinderers are different channels.

    Parameters
    ----------
    contribution : DataArray
        (sample[, cell][, sign], channel[, y, x]): signs split and summed over places already
        (``split_sign=True, sum_over=("y", "x")``), or whole maps, which are split here. An array
        that was summed over places *without* its signs split has lost what is asked for. Lazy
        ones are read block by block.

    Returns
    -------
    Dataset
        ``correlation`` over the sample dims: of each sample; ``correlation_of_means``, a scalar:
        of the parts averaged over all samples. Units of 1. NaN where one of the parts is the same
        in all channels.

    Raises
    ------
    TypeError
        If `contribution` is no DataArray.
    ValueError
        If it has no dim ``channel`` or fewer than two channels, has other signs than
        ``positive`` and ``negative``, parts of the wrong sign, NaN, or nothing to split.

    References
    ----------
    Melander et al., ICLR 2026, arXiv 2603.06557.

    Examples
    --------
    >>> import retina_codec as rc
    >>> import xarray as xr
    >>> parts = [[[1.0, 2, 3], [-2, -4, -6]], [[1.0, 2, 3], [-3, -2, -1]]]
    >>> c = xr.DataArray(
    ...     parts,
    ...     dims=("time", "sign", "channel"),
    ...     coords={"sign": ["positive", "negative"]},
    ... )
    >>> rc.analysis.sign_correlation(c)["correlation"].values.round(6)
    array([ 1., -1.])
    """
    array = require_array(contribution, "contribution")
    if "channel" not in array.dims:
        raise ValueError(f"contribution has dims {tuple(array.dims)}; expected 'channel' in them")
    if array.sizes["channel"] < 2:
        raise ValueError("contribution has one channel; a correlation over channels needs two")
    if "sign" in array.dims:
        if "sign" not in array.coords or sorted(map(str, array["sign"].values)) != sorted(SIGNS):
            raise ValueError(
                "contribution has a dim 'sign' without the labels 'positive' and 'negative'; give "
                "it as rc.contributions(..., split_sign=True) does"
            )
        array = array.sel(sign=list(SIGNS))
    inner = [
        str(dim) for dim in array.dims if dim in COLUMN_DIMS and dim not in ("sign", "channel")
    ]
    if "sign" not in array.dims and not inner:
        raise ValueError(
            f"contribution has dims {tuple(array.dims)}: neither 'sign' nor places to split; use "
            "rc.contributions(..., split_sign=True, sum_over=('y', 'x'))"
        )
    split = ["sign"] if "sign" in array.dims else []
    columns = columns_of(array, [*split, "channel", *inner], "contribution")
    n_channels = array.sizes["channel"]
    found = np.empty(columns.n_rows)
    sums = np.zeros((2, n_channels))
    filled = 0
    for _, values in columns.blocks():
        positive, negative = _parts(values[:, 0], columns, n_channels)
        found[filled : filled + len(positive)] = _correlation(positive, negative)
        filled += len(positive)
        sums += positive.sum(axis=0), negative.sum(axis=0)
    attrs = {"units": "1", "undefined": "NaN where a part is the same in all channels"}
    each = columns.labelled(found, columns.rows)
    each.attrs = {**attrs, "long_name": "correlation of the two signs over channels"}
    mean = xr.DataArray(
        _correlation(sums[:1], sums[1:])[0],
        attrs={**attrs, "long_name": "correlation of the two signs' means over channels"},
    )
    return xr.Dataset(
        {"correlation": each, "correlation_of_means": mean},
        attrs=provenance(
            function="sign_correlation",
            samples=columns.n_rows,
            summed_over=inner,
            channels=n_channels,
        ),
    )


def _parts(values: np.ndarray, columns: Columns, n_channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Size of the positive and of the negative part (row, channel)."""
    if "sign" in columns.features:
        parts = values.reshape(len(values), 2, n_channels, -1)
        if (parts[:, 0] < 0).any() or (parts[:, 1] > 0).any():
            raise ValueError(
                "contribution has values below 0 at sign='positive' or above 0 at 'negative'; "
                "give it as rc.contributions(..., split_sign=True) does"
            )
        return parts[:, 0].sum(axis=2), -parts[:, 1].sum(axis=2)
    maps = values.reshape(len(values), n_channels, -1)
    return maps.clip(min=0).sum(axis=2), -maps.clip(max=0).sum(axis=2)


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson's r of the rows of two matrices; NaN where a row is constant."""
    still = np.zeros(len(a), bool)
    parts = []
    for values in (a, b):
        largest = values.max(axis=1)
        apart = values - values.mean(axis=1, keepdims=True)
        length = np.sqrt(np.square(apart).sum(axis=1))
        still |= length <= STILL * np.sqrt(values.shape[1]) * largest
        parts.append(apart / np.where(length > 0, length, 1.0)[:, None])
    return np.where(still, np.nan, (parts[0] * parts[1]).sum(axis=1).clip(-1, 1))
