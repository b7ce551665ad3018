"""Tables of phenomena side by side: models, recordings and the known circuit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from retina_codec._common.checks import nearest_names, require_count
from retina_codec._common.provenance import provenance

LEAST_CELLS = 3
TAILS = (2.5, 97.5)


def compare_phenomena(
    tables: Mapping[str, xr.DataTree],
    *,
    reference: str,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> xr.Dataset:
    """Compare the indices of several models or recordings with those of one of them.

    Parameters
    ----------
    tables : mapping of str to DataTree
        Results of `retina_codec.phenomena` by name, of the same cells and phenomena, such as
        ``{"truth": ..., "trained": ..., "untrained": ...}``.
    reference : str
        The one that the others are compared with.
    n_bootstrap : int
        Draws of the bootstrap over cells.
    seed : int
        Of the bootstrap.

    Returns
    -------
    Dataset
        `value`, `reason` (source, cell, index). Over (compared, index), `compared` being the
        sources but for the reference: `r`, `r_low`, `r_high`: Pearson correlation over the cells
        that have a number in both, with the percentile interval (95 %) of the bootstrap over
        cells; `rmse`, in the units of the index; `n_cells`; and `told`: why r is NaN ("" where it
        is not). `spread` (index): the standard deviation over the reference's cells, without which
        no r can be high.

    Raises
    ------
    TypeError
        If `tables` is no mapping of such results.
    ValueError
        If there are fewer than two, the reference is not among them, or cells differ.

    Examples
    --------
    >>> import retina_codec as rc
    >>> circuit = rc.simulation.circuit("default", shape=(14, 14))
    >>> table = rc.phenomena(circuit, names="step_response")
    >>> both = rc.physiology.compare_phenomena({"a": table, "b": table}, reference="a")
    >>> float(both["r"].sel(compared="b", index="on_off_index").round(6))
    1.0
    """
    datasets = _checked(tables, reference)
    n_bootstrap = require_count(n_bootstrap, 1, "n_bootstrap")
    seed = require_count(seed, 0, "seed")
    try:
        aligned = xr.align(*datasets.values(), join="exact", exclude=("index",))
    except ValueError as error:
        raise ValueError(
            f"tables are of different cells ({error}); give phenomena(..., cells=...) the same"
        ) from error
    shared = [
        name
        for name in datasets[reference]["index"].values
        if all(name in data["index"].values for data in aligned)
    ]
    if not shared:
        raise ValueError("tables have no index in common; give phenomena the same names=")
    chosen = [data.sel(index=shared) for data in aligned]
    joined = xr.concat(
        chosen, xr.Variable("source", list(datasets)), combine_attrs="drop", join="exact"
    )
    others = [name for name in datasets if name != reference]
    rng = np.random.default_rng(seed)
    truth = joined["value"].sel(source=reference).values
    shape = (len(others), len(shared))
    found = {name: np.full(shape, np.nan) for name in ("r", "r_low", "r_high", "rmse")}
    n_cells = np.zeros(shape, dtype=np.int64)
    told = np.full(shape, "", dtype=object)
    for i, other in enumerate(others):
        values = joined["value"].sel(source=other).values
        for k in range(len(shared)):
            known = np.isfinite(truth[:, k]) & np.isfinite(values[:, k])
            n_cells[i, k] = known.sum()
            a, b = truth[known, k], values[known, k]
            if known.any():
                found["rmse"][i, k] = np.sqrt(np.mean((a - b) ** 2))
            if known.sum() < LEAST_CELLS:
                told[i, k] = f"fewer than {LEAST_CELLS} cells have a number in both"
            elif a.std() == 0 or b.std() == 0:
                told[i, k] = "all cells have the same number"
            else:
                found["r"][i, k] = np.corrcoef(a, b)[0, 1]
                low, high = _interval(a, b, n_bootstrap, rng)
                found["r_low"][i, k], found["r_high"][i, k] = low, high
    texts = {
        "r": ("1", "correlation with the reference over cells"),
        "r_low": ("1", "lower end, 95 % bootstrap over cells"),
        "r_high": ("1", "upper end, 95 % bootstrap over cells"),
        "rmse": ("that of the index", "root mean square difference from the reference"),
    }
    over = ("compared", "index")
    with np.errstate(invalid="ignore"):
        spread = np.array([np.std(one[np.isfinite(one)]) if np.isfinite(one).any() else np.nan
                           for one in truth.T])  # fmt: skip
    return joined.assign(
        {
            **{
                name: (over, values, {"units": texts[name][0], "long_name": texts[name][1]})
                for name, values in found.items()
            },
            "n_cells": (over, n_cells, {"units": "1", "long_name": "cells compared"}),
            "told": (over, told.astype(str), {"long_name": "why r is NaN"}),
            "spread": ("index", spread, {"long_name": "standard deviation of the reference"}),
        }
    ).assign_coords(compared=others).assign_attrs(
        provenance(
            function="compare_phenomena", reference=reference, n_bootstrap=n_bootstrap, seed=seed
        )
    )  # fmt: skip


def _interval(
    a: np.ndarray, b: np.ndarray, n_draws: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Percentile interval of r over cells drawn with replacement."""
    draws = rng.integers(0, len(a), size=(n_draws, len(a)))
    first, second = a[draws], b[draws]
    first = first - first.mean(1, keepdims=True)
    second = second - second.mean(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (first * second).sum(1) / np.sqrt((first**2).sum(1) * (second**2).sum(1))
    low, high = np.nanpercentile(r, TAILS)
    return float(low), float(high)


def _checked(tables: Any, reference: str) -> dict[str, xr.Dataset]:
    if not isinstance(tables, Mapping) or isinstance(tables, xr.DataTree | xr.Dataset):
        raise TypeError(
            f"tables is a {type(tables).__name__}; expected results of phenomena by name, such as "
            "{'truth': ..., 'trained': ...}"
        )
    if len(tables) < 2:
        raise ValueError(f"tables has {len(tables)} results; expected at least two to compare")
    if reference not in tables:
        raise ValueError(f"reference={reference!r}: {nearest_names(reference, tables)}")
    found = {}
    for name, table in tables.items():
        data = table.to_dataset() if isinstance(table, xr.DataTree) else table
        if not isinstance(data, xr.Dataset) or "value" not in data or "reason" not in data:
            raise TypeError(f"tables[{name!r}]: expected the result of retina_codec.phenomena")
        found[str(name)] = data[["value", "reason"]]
    return found
