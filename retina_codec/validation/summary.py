"""Numbers for a table: medians over types, then over seeds, with the spread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

NODES = ("prediction", "contributions", "similarity")


def summarise(recovery: xr.DataTree | Mapping[Any, xr.DataTree]) -> xr.Dataset:
    """Reduce what `benchmark_recovery` found to one number a model, the median over types.

    First the median over the members of a type, then over types, so that a type with many cells
    counts as one with few; last over seeds, with their range.

    Parameters
    ----------
    recovery : DataTree, or mapping of int to DataTree
        As from `retina_codec.benchmark_recovery`, with a dim `seed` or without; or one by seed.

    Returns
    -------
    Dataset
        `prediction_r` (model): over cells of a type, then types of cells; `worst_prediction_r`
        (model), the smallest of all cells. `interneuron_r` (model, signal): over the places of a
        type, then types; `interneuron_r_by_type` (model, signal, interneuron_type).
        `contribution_r` (model, features, removed, cut): over cells of a type, then over types of
        cells and true channels together. `cka` (model, removed, parts, cut): over cells of a type,
        then types. With seeds all are medians over seeds, and there are, by the same names with
        ``_low`` and ``_high``, the smallest and the largest.

    Raises
    ------
    TypeError, ValueError
        If `recovery` is something else.

    Examples
    --------
    >>> import retina_codec as rc
    >>> movie = rc.stimuli.white_noise(n_frames=120, shape=(14, 14), seed=0)
    >>> truth = rc.simulate_retina({"test": movie})
    >>> circuit = rc.simulation.circuit("default", shape=(14, 14))
    >>> found = rc.benchmark_recovery(circuit, truth, noise=None, progress=False)
    >>> rc.validation.summarise(found)["prediction_r"].round(3).values.tolist()
    [1.0]
    """
    if isinstance(recovery, Mapping) and not isinstance(recovery, xr.DataTree | xr.Dataset):
        if not recovery:
            raise ValueError("recovery is empty; give the results of at least one seed")
        of_seeds = [_of_one(tree) for tree in recovery.values()]
        summary = xr.concat(of_seeds, xr.Variable("seed", list(recovery)), join="outer")
    else:
        summary = _of_one(recovery)
    if "seed" not in summary.dims:
        return summary
    found = summary.median("seed", skipna=True, keep_attrs=True)
    for suffix, reduced in (("low", summary.min("seed")), ("high", summary.max("seed"))):
        found = found.merge(reduced.rename({name: f"{name}_{suffix}" for name in summary}))
    return found[sorted(map(str, found.data_vars))].assign_attrs(n_seeds=summary.sizes["seed"])


def _of_one(tree: Any) -> xr.Dataset:
    if not isinstance(tree, xr.DataTree):
        raise TypeError(
            f"recovery is a {type(tree).__name__}; expected the DataTree of "
            "retina_codec.benchmark_recovery, or several by seed"
        )
    missing = [name for name in NODES if name not in tree.children]
    if missing:
        raise ValueError(
            f"recovery has no node {missing[0]!r}; expected the DataTree of "
            "retina_codec.benchmark_recovery"
        )
    prediction, contributions, similarity = (tree[name].to_dataset() for name in NODES)
    summary = {
        "prediction_r": _over_types(prediction["r"], "cell"),
        "worst_prediction_r": prediction["r"].min("cell"),
    }
    if "interneurons" in tree.children:
        r = tree["interneurons"].to_dataset()["r"]
        by_type = _medians(r, "interneuron").rename(type="interneuron_type")
        summary["interneuron_r_by_type"] = by_type
        summary["interneuron_r"] = by_type.median("interneuron_type")
    by_cut = []
    for cut in np.unique(contributions["cut"].values):
        of_cut = contributions["r"].sel(true_channel=contributions["cut"] == cut)
        by_cut.append(_medians(of_cut, "cell").median(["type", "true_channel"]))
    cuts = xr.Variable("cut", np.unique(contributions["cut"].values))
    summary["contribution_r"] = xr.concat(by_cut, cuts)
    summary["cka"] = _over_types(similarity["cka"], "cell")
    plain = {name: data.reset_coords(drop=True) for name, data in summary.items()}
    return xr.Dataset(plain).map(lambda data: data.assign_attrs(units="1"))


def _medians(values: xr.DataArray, dim: str) -> xr.DataArray:
    """Medians (..., type) over the members of each type."""
    kind = f"{dim}_type" if f"{dim}_type" in values.coords else dim
    kinds = values[kind].values
    names = list(dict.fromkeys(kinds.tolist()))
    parts = [
        values.isel({dim: np.flatnonzero(kinds == name)}).median(dim, skipna=True) for name in names
    ]
    return xr.concat(parts, xr.Variable("type", names))


def _over_types(values: xr.DataArray, dim: str) -> xr.DataArray:
    return _medians(values, dim).median("type", skipna=True)
