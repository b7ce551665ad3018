"""Contribution beside activation: the same statistics of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from retina_codec._common.provenance import provenance
from retina_codec.analysis.columns import columns_of
from retina_codec.analysis.components import dimensionality, participation_ratio
from retina_codec.analysis.hoyer import sparsity

QUANTITIES = ("contribution", "activation")
QUANTILES = (0.25, 0.5, 0.75)


def compare_with_activation(
    layer: xr.DataTree | xr.Dataset,
    *,
    groups: Any = None,
    explained: float | Sequence[float] = (0.9, 0.95),
) -> xr.Dataset:
    """Sparsity and number of dimensions of a layer's contributions beside those of its activation.

    Both are looked at over the same hidden units: where signs are split, the two parts of a
    contribution are added first.

    Parameters
    ----------
    layer : DataTree or Dataset
        A node of `retina_codec.contributions`, with ``contribution`` and, by
        ``extras="activation"``, ``activation``.
    groups : DataArray or sequence, optional
        A label for each sample: the dimensions are counted over the means of the groups.
    explained : float or sequence of float
        Shares of the variance that dimensions are counted for.

    Returns
    -------
    Dataset
        Over ``quantity``, ``"contribution"`` and ``"activation"``: ``sparsity`` (quantity,
        quantile), the quartiles over samples (and cells) of `sparsity`; ``undefined_samples``
        (quantity), how many had none; ``participation_ratio`` (quantity); and ``dimensionality``
        (quantity, explained). Units of 1. NaN where nothing varies, or all units are 0.

    Raises
    ------
    TypeError
        If `layer` is neither.
    ValueError
        If it lacks one of the two variables, or they do not fit `sparsity` and `dimensionality`.

    References
    ----------
    Melander et al., ICLR 2026, arXiv 2603.06557: contributions are sparser than activations and
    have more dimensions, in a ResNet-50.

    Examples
    --------
    >>> import retina_codec as rc, torch
    >>> _ = torch.manual_seed(0)
    >>> network = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> tree = rc.contributions(
    ...     network, torch.randn(50, 3), layers="1", extras="activation", progress=False
    ... )
    >>> found = rc.analysis.compare_with_activation(tree["layers/1"])
    >>> dict(found.sizes)
    {'quantity': 2, 'quantile': 3, 'explained': 2}
    """
    if isinstance(layer, xr.DataTree):
        layer = layer.to_dataset()
    if not isinstance(layer, xr.Dataset):
        raise TypeError(
            f"layer is a {type(layer).__name__}; expected a node of rc.contributions, such as "
            "tree['layers/relu1']"
        )
    for name in QUANTITIES:
        if name not in layer:
            raise ValueError(
                f"layer has no variable {name!r} (it has {', '.join(map(str, layer.data_vars))}); "
                "use rc.contributions(..., extras='activation')"
            )
    columns = columns_of(layer["activation"], None, "activation")
    if groups is not None and not isinstance(groups, xr.DataArray) and len(columns.rows) == 1:
        labels = np.asarray(groups)
        n = columns.n_rows
        if labels.shape != (n,):
            raise ValueError(f"groups has shape {labels.shape}; expected one label for each of {n}")
        groups = xr.DataArray(labels, dims=columns.rows)
    parts = []
    for name in QUANTITIES:
        values = layer[name]
        if "sign" in values.dims:
            values = values.sum("sign")
        parts.append(_of_one(values, groups, explained))
    found = xr.concat(parts, dim=xr.Variable("quantity", np.array(QUANTITIES)), coords="minimal")
    found.attrs = provenance(function="compare_with_activation", features=list(columns.features))
    return found


def _of_one(values: xr.DataArray, groups: Any, explained: float | Sequence[float]) -> xr.Dataset:
    each = sparsity(values).values
    defined = each[np.isfinite(each)]
    quartiles = np.quantile(defined, QUANTILES) if defined.size else np.full(len(QUANTILES), np.nan)
    ratio = participation_ratio(values, groups=groups)
    count = dimensionality(values, groups=groups, explained=explained)
    attrs = {"units": "1", "long_name": "Hoyer sparsity, quartiles over samples"}
    found = xr.Dataset(
        {
            "sparsity": xr.DataArray(quartiles, dims="quantile", attrs=attrs),
            "undefined_samples": xr.DataArray(
                each.size - defined.size,
                attrs={"units": "1", "long_name": "samples in which all units are 0"},
            ),
        },
        coords={"quantile": xr.DataArray(list(QUANTILES), dims="quantile", attrs={"units": "1"})},
    )
    for name, part in (("participation_ratio", ratio), ("dimensionality", count)):
        found[name] = part.drop_attrs()
        found[name].attrs = {k: part.attrs[k] for k in ("units", "long_name", "undefined")}
    return found
