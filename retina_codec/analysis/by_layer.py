"""The statistics of all layers of a network side by side, with intervals over images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from scipy import sparse

from retina_codec._common.checks import require_count
from retina_codec._common.provenance import provenance
from retina_codec.analysis.comparison import QUANTITIES
from retina_codec.analysis.components import (
    ROUNDING,
    counts_of,
    labels_of,
    ratio_of,
    spectra_of_means,
)
from retina_codec.analysis.hoyer import sparsity
from retina_codec.analysis.signs import sign_correlation
from retina_codec.attribution.reduction import UNIT_DIMS

LONG_NAMES = {
    "sparsity": "Hoyer sparsity, median over images",
    "participation_ratio": "participation ratio of the groups' means",
    "dimensionality": "principal components of the groups' means",
    "sign_correlation": "r of positive and |negative| part, median over images",
}


def layer_statistics(
    tree: xr.DataTree,
    groups: xr.DataArray | Sequence[Any] | str,
    *,
    explained: float = 0.95,
    n_draws: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> xr.Dataset:
    """Sparsity, dimensions and the relation of the signs by layer, contributions and activations.

    Intervals are percentiles of a bootstrap over images, drawn within each group so that every
    group keeps its number. The means of drawn images scatter more than the means themselves:
    intervals of the two counts of dimensions lie somewhat too high where groups are small.

    Parameters
    ----------
    tree : DataTree
        From `retina_codec.contributions` with ``split_sign=True``, ``sum_over=("y", "x")`` and one
        target; for activations beside it, with ``extras="activation"``. Samples must not follow
        one another, as images do not.
    groups : DataArray, sequence or str
        A label for each image, such as its category, or the name of such a coordinate.
    explained : float
        Share of the variance of the groups' means that `dimensionality` counts components for.
    n_draws : int
        Of the bootstrap.
    level : float
        Coverage of the intervals.
    seed : int
        Of the bootstrap.

    Returns
    -------
    Dataset
        Over ``layer``, in the tree's order, and ``quantity`` (``"contribution"``,
        ``"activation"``): `sparsity`, the median over images of `retina_codec.analysis.sparsity`,
        with the two signs of a channel added; `participation_ratio` and `dimensionality` of the
        groups' means. Over ``layer``: `sign_correlation`, the median over images of
        `retina_codec.analysis.sign_correlation`; `NAME_difference`, contribution minus activation,
        drawn together. Each with ``_low`` and ``_high``; units of 1.

    Raises
    ------
    TypeError
        If `tree` is no DataTree.
    ValueError
        If it has no layers, contributions have other dims, or labels do not fit.

    References
    ----------
    Melander et al., ICLR 2026, arXiv 2603.06557.

    Examples
    --------
    >>> import numpy as np, retina_codec as rc, torch
    >>> _ = torch.manual_seed(0)
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 6, 3), torch.nn.ReLU(), torch.nn.Flatten(),
    ...     torch.nn.Linear(96, 4))
    >>> tree = rc.contributions(net, torch.randn(40, 1, 6, 6), layers=["0", "1"], split_sign=True,
    ...     target=rc.targets.TopK(1), sum_over=("y", "x"), extras="activation", progress=False)
    >>> found = rc.analysis.layer_statistics(tree, np.arange(40) % 4, n_draws=20)
    >>> dict(found["sparsity"].sizes)
    {'layer': 2, 'quantity': 2}
    """
    if not isinstance(tree, xr.DataTree):
        raise TypeError(
            f"tree is a {type(tree).__name__}; expected the result of retina_codec.contributions"
        )
    layers = _layers(tree)
    if not 0 < explained <= 1:
        raise ValueError(f"explained={explained!r}; expected a share above 0 and at most 1")
    if not 0 < level < 1:
        raise ValueError(f"level={level!r}; expected a number between 0 and 1")
    require_count(n_draws, 1, "n_draws")
    first = next(iter(layers.values()))["contribution"]
    if isinstance(groups, str):
        if groups not in first.coords:
            raise ValueError(f"groups={groups!r} is no coordinate of the contributions")
        groups = first[groups]
    dim, labels = labels_of(first, None, (), groups)
    names, members = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"groups has one label, {names[0]!r}; expected at least two groups")
    draws = _draws(members, n_draws, seed)
    weights = _weights(draws, members, len(names))
    tables = [_of_layer(data, dim, draws, weights, explained) for data in layers.values()]
    quantities = [q for q in QUANTITIES if all(q in data for data in layers.values())]
    tails = (50 * (1 - level), 50 * (1 + level))
    variables: dict[str, Any] = {}
    for name in LONG_NAMES:
        if name == "sign_correlation":
            _add(variables, name, np.stack([t[name] for t in tables]), ("layer",), tails)
            continue
        values = np.stack([np.stack([t[q, name] for q in quantities]) for t in tables])
        _add(variables, name, values, ("layer", "quantity"), tails)
        if len(quantities) == len(QUANTITIES):
            _add(variables, f"{name}_difference", values[:, 0] - values[:, 1], ("layer",), tails)
    return xr.Dataset(
        variables,
        {"layer": np.array(list(layers), object), "quantity": np.array(quantities, object)},
        attrs=provenance(
            function="layer_statistics",
            images=len(labels),
            groups=len(names),
            explained=explained,
            n_draws=n_draws,
            level=level,
            seed=seed,
            contributions=dict(tree.attrs),
        ),
    )


def _layers(tree: xr.DataTree) -> dict[str, xr.Dataset]:
    """Layers by name, of one target and with the signs apart."""
    if "layers" not in tree.children:
        raise ValueError("tree has no group 'layers'; expected that of retina_codec.contributions")
    layers = {str(name): node.to_dataset() for name, node in tree["layers"].children.items()}
    for name, data in layers.items():
        dims = tuple(map(str, data["contribution"].dims))
        others = [dim for dim in dims if dim not in ("sign", *UNIT_DIMS)]
        if len(others) != 1 or others == ["time"]:
            raise ValueError(
                f"tree: the contributions of {name!r} have dims {dims}; expected one target of "
                "images, which do not follow one another: target=TopK(1), or .sel one output"
            )
        if "sign" not in dims or {"y", "x"} & set(dims):
            raise ValueError(
                f"tree: the contributions of {name!r} have dims {dims}; expected 'sign' and no "
                "places: compute them with split_sign=True, sum_over=('y', 'x')"
            )
    return layers


def _draws(members: np.ndarray, n_draws: int, seed: int) -> np.ndarray:
    """Images (draw, image), drawn within each group; the first draw are the images as they are."""
    rng = np.random.default_rng(seed)
    draws = np.empty((n_draws + 1, len(members)), dtype=np.int64)
    draws[0] = np.arange(len(members))
    for group in range(members.max() + 1):
        own = np.flatnonzero(members == group)
        draws[1:, own] = own[rng.integers(len(own), size=(n_draws, len(own)))]
    return draws


def _weights(draws: np.ndarray, members: np.ndarray, n_groups: int) -> sparse.csr_array:
    """Matrix (draw and group, image) that takes the means of the groups."""
    n_draws, n = draws.shape
    rows = (np.arange(n_draws)[:, None] * n_groups + members).ravel()
    share = np.tile(1 / np.bincount(members)[members], n_draws)
    return sparse.csr_array((share, (rows, draws.ravel())), shape=(n_draws * n_groups, n))


def _of_layer(
    data: xr.Dataset, dim: str, draws: np.ndarray, weights: sparse.csr_array, explained: float
) -> dict[Any, np.ndarray]:
    """Each statistic of one layer, (draw,)."""
    data = data.load()
    of_signs = sign_correlation(data["contribution"])["correlation"].values
    found: dict[Any, np.ndarray] = {"sign_correlation": np.nanmedian(of_signs[draws], axis=1)}
    for quantity in QUANTITIES:
        if quantity not in data:
            continue
        values = data[quantity]
        if "sign" in values.dims:
            values = values.sum("sign")
        each = sparsity(values).values
        found[quantity, "sparsity"] = np.nanmedian(each[draws], axis=1)
        units = values.transpose(dim, ...).values.reshape(len(each), -1).astype(np.float64)
        means = (weights @ units).reshape(len(draws), -1, units.shape[1])
        spectra = spectra_of_means(means)
        spectra[spectra < ROUNDING * spectra.sum(axis=1, keepdims=True)] = 0.0
        found[quantity, "participation_ratio"] = ratio_of(spectra)
        found[quantity, "dimensionality"] = counts_of(spectra, np.array([explained]))[:, 0]
    return found


def _add(
    variables: dict[str, Any],
    name: str,
    values: np.ndarray,
    dims: tuple[str, ...],
    tails: tuple[float, float],
) -> None:
    """Add a variable and the ends of its interval, of values (*dims, draw)."""
    base = name.removesuffix("_difference")
    text = LONG_NAMES[base] + (", contribution - activation" if base != name else "")
    low, high = np.percentile(values[..., 1:], tails, axis=-1)
    for end, part in (("", values[..., 0]), ("_low", low), ("_high", high)):
        variables[name + end] = (dims, part, {"units": "1", "long_name": text})
