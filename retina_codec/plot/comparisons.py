"""Trained models beside their controls: epochs told apart, interneurons matched."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from retina_codec._common.checks import nearest_names, require_choice
from retina_codec.plot.style import (
    BLACK,
    BLUE,
    GREY,
    PALETTE,
    axes_for,
    legend_beside,
    mark_columns,
    styled,
)

TYPE_NAMES = ("interneuron_type", "type")  # as in simulations, and in recordings
MOST_WRAPPED = 12

Results = xr.Dataset | Mapping[str, xr.Dataset]


@styled
def epoch_selectivity(selectivity: Results, *, score: str = "best", ax: Axes | None = None) -> Axes:
    """Draw how well modes tell each kind of epoch from all others.

    Parameters
    ----------
    selectivity : Dataset, or mapping of str to Dataset
        As from `retina_codec.epoch_selectivity`: best_auc, best_auc_low, best_auc_high (epoch), or
        those of `assigned_auc`; several by name, such as ``{"trained": ..., "untrained": ...}``.
    score : {"best", "assigned"}
        The mode that is best for the kind, or all together that are assigned to it. A kind that
        none is assigned to has no point.
    ax : matplotlib Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    matplotlib Axes
        With one point and interval a kind of epoch and result, and a line at 0.5 (chance).

    Raises
    ------
    TypeError
        If `selectivity` or `ax` is of another type.
    ValueError
        If a variable is missing, or `score` is unknown.

    Examples
    --------
    >>> import xarray as xr
    >>> from retina_codec import plot
    >>> found = xr.Dataset(
    ...     {"best_auc": ("epoch", [0.9]), "best_auc_low": ("epoch", [0.8]),
    ...      "best_auc_high": ("epoch", [0.95])}, {"epoch": ["bar"]},
    ... )
    >>> plot.epoch_selectivity({"trained": found, "untrained": found}).get_ylabel()
    'AUC of the best mode'
    """
    words = {"best": "AUC of the best mode", "assigned": "AUC of the modes assigned"}
    require_choice(score, list(words), "score")
    names = tuple(f"{score}_auc{end}" for end in ("", "_low", "_high"))
    named = _named(selectivity, names, "selectivity", "retina_codec.epoch_selectivity")
    kinds = list(dict.fromkeys(str(k) for data in named.values() for k in data["epoch"].values))
    ax = axes_for(ax, (max(5.5, 2.6 + 0.7 * len(kinds)), 3.4))
    ax.axhline(0.5, color=GREY, linestyle="--", linewidth=1, label="chance")
    step = 0.6 / len(named)
    for place, (name, data) in enumerate(named.items()):
        at = np.array([kinds.index(str(kind)) for kind in data["epoch"].values])
        value, low, high = (data[variable].values for variable in names)
        ax.errorbar(
            at + step * (place - (len(named) - 1) / 2),
            value,
            # A bootstrap interval need not hold the estimate itself.
            np.maximum([value - low, high - value], 0),
            fmt="o" if place == 0 else "s",
            color=PALETTE[place % len(PALETTE)],
            markerfacecolor=PALETTE[place % len(PALETTE)] if place == 0 else "white",
            capsize=3,
            label=name,
        )
    mark_columns(ax, [kind.replace("_", " ") for kind in kinds])
    ax.set(
        xlabel="kind of epoch",
        ylabel=words[score],
        xlim=(-0.6, len(kinds) - 0.4),
        ylim=(min(0.45, ax.get_ylim()[0]), 1.02),
    )
    legend_beside(ax)
    return ax


@styled
def interneuron_match(comparison: Results, *, ax: Axes | None = None) -> Axes:
    """Draw how well the best model unit follows each interneuron, against its null.

    Parameters
    ----------
    comparison : Dataset, or mapping of str to Dataset
        As from `retina_codec.compare_interneurons`: best_r, null_r, p_value (interneuron),
        coordinate type or interneuron_type (interneuron); several by name, such as
        ``{"trained": ..., "untrained": ...}``.
    ax : matplotlib Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    matplotlib Axes
        With one point an interneuron, grouped by type; a filled one has p < 0.05. Bars are the
        nulls: what the best of as many units reaches without any relation.

    Raises
    ------
    TypeError
        If `comparison` or `ax` is of another type.
    ValueError
        If a variable is missing.

    Examples
    --------
    >>> import xarray as xr
    >>> from retina_codec import plot
    >>> found = xr.Dataset(
    ...     {"best_r": ("interneuron", [0.8]), "null_r": ("interneuron", [0.3]),
    ...      "p_value": ("interneuron", [0.01])},
    ...     {"interneuron": ["b1"], "type": ("interneuron", ["bipolar"])},
    ... )
    >>> plot.interneuron_match(found).get_ylabel()
    'correlation with the best unit'
    """
    needed = ("best_r", "null_r", "p_value")
    named = _named(comparison, needed, "comparison", "retina_codec.compare_interneurons")
    types = list(dict.fromkeys(kind for data in named.values() for kind in _types(data)))
    ax = axes_for(ax, (float(np.clip(2.6 + 0.9 * len(types), 5.5, 14)), 4.0))
    step = 0.7 / len(named)
    for place, (name, data) in enumerate(named.items()):
        color = PALETTE[place % len(PALETTE)] if len(named) > 1 else BLUE
        middle = np.array([types.index(kind) for kind in _types(data)], dtype=float)
        middle += step * (place - (len(named) - 1) / 2)
        at = middle + _spread(middle, 0.7 * step)
        significant = data["p_value"].values < 0.05
        ax.hlines(
            data["null_r"].values,
            at - 0.06,
            at + 0.06,
            color=GREY,
            linewidth=2,
            zorder=1,
            label="null" if place == 0 else "_null",
        )
        for chosen, face, label in (
            (significant, color, f"{name}, p < 0.05"),
            (~significant, "white", f"{name}, not significant"),
        ):
            if chosen.any():
                ax.scatter(
                    at[chosen],
                    data["best_r"].values[chosen],
                    s=28,
                    edgecolors=color,
                    facecolors=face,
                    label=label,
                    zorder=2,
                )
    ax.axhline(0, color=BLACK, linewidth=0.8)
    names = [kind.replace("_", " ") for kind in types]
    # Many types have no room for words below each other either.
    mark_columns(ax, names if len(types) > MOST_WRAPPED else [fill(name, 10) for name in names])
    ax.set(
        xlabel="type of interneuron",
        ylabel="correlation with the best unit",
        xlim=(-0.6, len(types) - 0.4),
        ylim=(min(0.0, ax.get_ylim()[0]), 1.02),
    )
    legend_beside(ax)
    return ax


def _types(data: xr.Dataset) -> list[str]:
    names = [name for name in TYPE_NAMES if name in data.coords]
    return [str(kind) for kind in (data[names[0]] if names else data["interneuron"]).values]


def _spread(middle: np.ndarray, width: float) -> np.ndarray:
    """Sideways shifts that part the points that share a middle."""
    shifts = np.zeros(len(middle))
    for value in np.unique(middle):
        members = np.flatnonzero(middle == value)
        if len(members) > 1:
            shifts[members] = np.linspace(-width / 2, width / 2, len(members))
    return shifts


def _named(results: Any, variables: tuple[str, ...], argument: str, maker: str) -> dict[str, Any]:
    """Results by name, each checked to have `variables`."""
    if isinstance(results, xr.DataTree | xr.Dataset) or not isinstance(results, Mapping):
        results = {"model": results}
    named = {}
    for name, data in results.items():
        data = data.to_dataset() if isinstance(data, xr.DataTree) else data
        which = argument if name == "model" else f"{argument}[{name!r}]"
        if not isinstance(data, xr.Dataset):
            raise TypeError(f"{which} is a {type(data).__name__}; expected the Dataset of {maker}")
        for variable in variables:
            if variable not in data:
                raise ValueError(
                    f"{which} has no {variable!r}; {nearest_names(variable, data.data_vars)}; "
                    f"expected the Dataset of {maker}"
                )
        named[str(name)] = data
    if not named:
        raise ValueError(f"{argument} is empty; give at least one Dataset of {maker}")
    return named
