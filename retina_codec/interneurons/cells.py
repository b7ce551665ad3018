"""What holds over cells: p-values by type, and false discoveries among cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import false_discovery_control, wilcoxon

from retina_codec._common.checks import nearest_names
from retina_codec._common.provenance import provenance

TYPE_NAMES = ("interneuron_type", "type")  # as in simulations, and in recordings
ALL = "all"
SHIFTED = "shifted recordings"
# Each score with its null from shifted recordings, and its value in controls.
SCORES = {
    "best": ("best_r", "null_r", "control_best_r"),
    "matched": ("matched_r", "matched_null_r", "control_matched_r"),
    "combined": ("combined_r", "combined_null_r", "control_combined_r"),
}


def over_cells(comparison: xr.Dataset | xr.DataTree, *, by: str | None = None) -> xr.Dataset:
    """Test over cells, by type, whether a model follows interneurons beyond its controls.

    For each score and control, the one-sided Wilcoxon signed-rank test of the differences, cell by
    cell, between the model's correlation and the control's: those of shifted recordings (mean over
    shifts), and of the models that were given as controls. It takes cells as independent, although
    they saw the same movie. Duplicate cells count once; five cells are the fewest that can reach
    p < 0.05.

    Parameters
    ----------
    comparison : xarray.Dataset or xarray.DataTree
        From `compare_interneurons` or `compare_models`.
    by : str, optional
        Coordinate along `interneuron` that tells the types; by default `interneuron_type` or
        `type`. Without any, all cells are taken together only.

    Returns
    -------
    xarray.Dataset
        Over ([model,] score, against, type), the type ``"all"`` among them: ``n_cells``,
        ``median_r``, ``median_control_r``, ``median_difference`` and ``p_value``; NaN where there
        is no cell. `score` is ``"best"``, ``"matched"`` or ``"combined"``.

    Raises
    ------
    TypeError
        If `comparison` is something else.
    ValueError
        If it lacks the variables of a comparison, or has no coordinate `by`.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> import retina_codec as rc
    >>> found = xr.Dataset({"best_r": ("interneuron", [0.4, 0.5, 0.6, 0.5, 0.7]),
    ...                     "null_r": ("interneuron", np.zeros(5))})
    >>> tested = rc.interneurons.over_cells(found).sel(score="best", type="all")
    >>> tested["p_value"].values.tolist()
    [0.03125]
    """
    data = comparison.to_dataset() if isinstance(comparison, xr.DataTree) else comparison
    if not isinstance(data, xr.Dataset):
        raise TypeError(
            f"comparison is a {type(comparison).__name__}; expected the result of "
            "compare_interneurons or compare_models"
        )
    for name in SCORES["best"][:2]:
        if name not in data or "interneuron" not in data[name].dims:
            raise ValueError(
                f"comparison has no {name!r} over 'interneuron'; {nearest_names(name, data)}; "
                "expected the result of compare_interneurons or compare_models"
            )
    if "model" in data.dims:
        each = [over_cells(data.sel(model=name), by=by) for name in data["model"].values]
        return xr.concat(each, data["model"].variable.to_index_variable())
    types = _types(data, by)
    counted = np.ones(data.sizes["interneuron"], dtype=bool)
    if "duplicate_of" in data:
        counted = data["duplicate_of"].values.astype(str) == ""
    kinds = [ALL, *(kind for kind in dict.fromkeys(types) if kind != ALL)] if types else [ALL]
    controls = [str(name) for name in data["control"].values] if "control" in data.dims else []
    scores = [name for name, (value, _, _) in SCORES.items() if value in data]
    against = [SHIFTED, *controls]
    table = np.full((5, len(scores), len(against), len(kinds)), np.nan)
    for i, score in enumerate(scores):
        value, null, control = SCORES[score]
        for j in range(len(against)):
            other = data[null] if j == 0 else data[control].isel(control=j - 1)
            for k, kind in enumerate(kinds):
                of_kind = np.array([kind in (ALL, one) for one in types or [ALL] * len(counted)])
                chosen = counted & of_kind
                table[:, i, j, k] = _tested(data[value].values[chosen], other.values[chosen])
    dims = ("score", "against", "type")
    r = {"units": "1"}
    return xr.Dataset(
        {
            "n_cells": (dims, table[0].astype(np.int64), {**r, "long_name": "cells, each once"}),
            "median_r": (dims, table[1], r),
            "median_control_r": (dims, table[2], r),
            "median_difference": (dims, table[3], r),
            "p_value": (dims, table[4], {**r, "long_name": "Wilcoxon signed-rank, one-sided"}),
        },
        {"score": scores, "against": against, "type": kinds},
        attrs=provenance(function="over_cells", by=by),
    )


def _types(data: xr.Dataset, by: str | None) -> list[str]:
    """Type of each interneuron; empty if there are none."""
    if by is not None and (by not in data.coords or data[by].dims != ("interneuron",)):
        held = [name for name, coord in data.coords.items() if coord.dims == ("interneuron",)]
        raise ValueError(
            f"by={by!r} is no coordinate along 'interneuron'; {nearest_names(by, held)}"
        )
    names = [name for name in ((by,) if by else TYPE_NAMES) if name in data.coords]
    return [str(kind) for kind in data[names[0]].values] if names else []


def _tested(value: np.ndarray, other: np.ndarray) -> tuple[float, ...]:
    """Give the number of cells, medians of both and of the difference, and p."""
    known = np.isfinite(value) & np.isfinite(other)
    value, other = value[known], other[known]
    if not known.any():
        return 0, np.nan, np.nan, np.nan, np.nan
    difference = value - other
    p: Any = wilcoxon(difference, alternative="greater").pvalue if difference.any() else 1.0
    medians = (float(np.median(values)) for values in (value, other, difference))
    return len(value), *medians, float(p)


def q_values(p: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Benjamini and Hochberg's adjusted p-values of the cells that are counted; else NaN."""
    found = np.full(len(p), np.nan)
    chosen = counted & np.isfinite(p)
    if chosen.any():
        found[chosen] = false_discovery_control(p[chosen])
    return found
