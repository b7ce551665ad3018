"""How good a model and a recording are, cell by cell, and how a training went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from retina_codec._common.checks import nearest_names, require_choice
from retina_codec.plot.style import (
    BLACK,
    BLUE,
    GREY,
    PALETTE,
    SKY,
    VERMILION,
    axes_for,
    bar_size,
    label_of,
    legend_beside,
    mark_columns,
    styled,
)

SCORE_NAMES = {
    "pearson_r": "Pearson r",
    "cc_norm": "normalised correlation CC / CC_max",
    "fev": "fraction of explainable variance",
    "deviance_explained": "deviance explained",
}
MEASURE_NAMES = {
    "cc_max": "CC_max",
    "split_half_r": "split-half r",
    "ceiling": "split-half ceiling",
    "odd_even_r": "odd-even r",
    "pair_r": "r of two repeats",
    "spearman_brown": "Spearman-Brown",
}


@styled
def scores(
    evaluation: xr.Dataset,
    *,
    score: str = "pearson_r",
    baseline: xr.Dataset | None = None,
    reliability: xr.Dataset | None = None,
    names: Sequence[str] = ("model", "baseline"),
    ax: Axes | None = None,
) -> Axes:
    """Draw a score of every cell with its interval, between its null and its ceiling.

    Parameters
    ----------
    evaluation : Dataset
        Over `cell`, as from `retina_codec.evaluate`: the score, and where it has them
        `<score>_low` and `<score>_high`, `<score>_null_high`, the scores of its baseline
        `<score>_baseline` (`_low`, `_high`), and cc_max (cc_max_low, cc_max_high).
    score : {"pearson_r", "cc_norm", "fev", "deviance_explained"}
        What to draw.
    baseline : Dataset, optional
        The same scores of another model, of the same cells, instead of the baseline in
        `evaluation`.
    reliability : Dataset, optional
        As from `retina_codec.reliability`: cc_max (cell), the ceiling, instead of that in
        `evaluation`.
    names : (str, str)
        Names of the model and the baseline in the legend.
    ax : matplotlib Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    matplotlib Axes
        With bars, intervals, a dotted tick at the upper end of each cell's null, and for
        ``"pearson_r"`` a tick at its ceiling, in a band of the ceiling's interval (for
        ``"cc_norm"`` and ``"fev"`` a line at 1). A cell without a score says ``n/a``.

    Raises
    ------
    TypeError
        If `evaluation`, `baseline`, `reliability` or `ax` is of another type.
    ValueError
        If the score is unknown or missing, or the cells differ.

    Examples
    --------
    >>> import xarray as xr
    >>> from retina_codec import plot
    >>> evaluation = xr.Dataset(
    ...     {"pearson_r": ("cell", [0.7, 0.8]), "cc_max": ("cell", [0.9, 0.95])},
    ...     {"cell": ["C1", "C2"]},
    ... )
    >>> plot.scores(evaluation).get_ylabel()
    'Pearson r'
    """
    require_choice(score, tuple(SCORE_NAMES), "score")
    evaluation = _over_cells(evaluation, (score,), "evaluation")
    shown = [(names[0], evaluation, BLUE)]
    if baseline is not None:
        baseline = _over_cells(baseline, (score,), "baseline")
        shown.append((names[1], _same_cells(baseline, evaluation, "baseline"), SKY))
    elif f"{score}_baseline" in evaluation:
        shown.append((names[1], _baseline_of(evaluation, score), SKY))
    ceiling = evaluation
    if reliability is not None:
        measured = _over_cells(reliability, ("cc_max",), "reliability")
        ceiling = _same_cells(measured, evaluation, "reliability")

    cells = evaluation["cell"].values
    ax = axes_for(ax, bar_size(len(cells)))
    bars = [(name, *_with_interval(data, score), color) for name, data, color in shown]
    _grouped_bars(ax, bars)
    if score == "pearson_r" and "cc_max" in ceiling:
        _ceilings(ax, ceiling)
    elif score in ("cc_norm", "fev"):
        ax.axhline(1, color=BLACK, linewidth=1, linestyle="--", label="ceiling")
    null = evaluation.get(f"{score}_null_high")
    if null is not None and np.isfinite(null).any():
        _ticks(ax, null.values, color=VERMILION, linestyle=":", label="null: shifted in time")
    _finish(ax, cells, SCORE_NAMES[score])
    return ax


@styled
def reliability(
    dataset: xr.Dataset,
    *,
    measures: Sequence[str] = ("cc_max", "split_half_r"),
    ax: Axes | None = None,
) -> Axes:
    """Draw how well repeats of the stimulus agree, cell by cell.

    Parameters
    ----------
    dataset : Dataset
        Over `cell`, as from `retina_codec.reliability`.
    measures : sequence of str
        Which of its variables to draw side by side; a standard error `<measure>_se` is drawn
        where there is one.
    ax : matplotlib Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    matplotlib Axes
        With one bar a cell and measure.

    Raises
    ------
    TypeError
        If `dataset` or `ax` is of another type.
    ValueError
        If a measure is missing.

    Examples
    --------
    >>> import xarray as xr
    >>> from retina_codec import plot
    >>> found = xr.Dataset({"cc_max": ("cell", [0.9, 0.7])}, {"cell": ["C1", "C2"]})
    >>> len(plot.reliability(found, measures=["cc_max"]).patches)
    2
    """
    if isinstance(measures, str):
        measures = (measures,)
    dataset = _over_cells(dataset, measures, "dataset")
    ax = axes_for(ax, bar_size(dataset.sizes["cell"]))
    bars = []
    for place, name in enumerate(measures):
        error = dataset[f"{name}_se"].values if f"{name}_se" in dataset else None
        interval = None if error is None else np.stack([error, error])
        color = PALETTE[place % len(PALETTE)]
        bars.append((MEASURE_NAMES.get(name, name), dataset[name].values, interval, color))
    _grouped_bars(ax, bars)
    _finish(ax, dataset["cell"].values, "agreement of repeats")
    return ax


@styled
def training(history: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw the losses of a training over its epochs.

    Parameters
    ----------
    history : Dataset
        Over `epoch`, as from `retina_codec.train`: train_loss, validation_loss; the epoch that
        was kept in ``attrs["best_epoch"]``.
    ax : matplotlib Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    matplotlib Axes
        With two lines and a mark at the best epoch.

    Raises
    ------
    TypeError
        If `history` or `ax` is of another type.
    ValueError
        If a loss is missing.

    Examples
    --------
    >>> import xarray as xr
    >>> from retina_codec import plot
    >>> history = xr.Dataset(
    ...     {"train_loss": ("epoch", [0.5, 0.4]), "validation_loss": ("epoch", [0.6, 0.5])},
    ...     {"epoch": [0, 1]}, attrs={"best_epoch": 1},
    ... )
    >>> len(plot.training(history).lines)
    3
    """
    losses = {"train_loss": "training", "validation_loss": "validation"}
    history = _over(history, "epoch", tuple(losses), "history")
    ax = axes_for(ax, (6.0, 3.4))
    for (name, label), color in zip(losses.items(), (BLUE, VERMILION), strict=True):
        ax.plot(
            history["epoch"].values,
            history[name].values,
            color=color,
            marker="o",
            markersize=3,
            label=label,
        )
    if "best_epoch" in history.attrs:
        best = int(history.attrs["best_epoch"])
        ax.axvline(best, color=GREY, linestyle="--", linewidth=1, label=f"kept: epoch {best}")
    ax.set(xlabel="epoch", ylabel=label_of(history["train_loss"], "Poisson loss"))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_beside(ax)
    return ax


Bars = tuple[str, np.ndarray, np.ndarray | None, Any]


def _grouped_bars(ax: Axes, bars: Sequence[Bars]) -> None:
    """Draw (name, values, distances to the interval's ends, colour) side by side at each place."""
    width = 0.8 / len(bars)
    for place, (name, values, interval, color) in enumerate(bars):
        at = np.arange(len(values)) + width * (place - (len(bars) - 1) / 2)
        ax.bar(at, values, width * 0.92, color=color, label=name)
        if interval is not None:
            ax.errorbar(at, values, interval, fmt="none", ecolor=BLACK, elinewidth=1, capsize=2)
        for x in at[~np.isfinite(values)]:
            ax.text(x, 0, " n/a", rotation=90, ha="center", va="bottom", fontsize=8, color=GREY)
    ax.axhline(0, color=BLACK, linewidth=0.8)


def _ticks(ax: Axes, values: np.ndarray, **style: Any) -> None:
    """Draw one short level line a cell."""
    places = np.arange(len(values))
    ax.hlines(values, places - 0.45, places + 0.45, linewidth=2, **style)


def _ceilings(ax: Axes, data: xr.Dataset) -> None:
    """Draw the ceiling of each cell, in a pale band of its interval."""
    if not np.isfinite(data["cc_max"]).any():
        return
    _ticks(ax, data["cc_max"].values, color=BLACK, label="ceiling")
    if "cc_max_low" in data and "cc_max_high" in data:
        # Bands of different cells are apart because a level between them is missing.
        x = (np.arange(data.sizes["cell"])[:, None] + [-0.45, 0.45, 0.45]).ravel()
        apart = np.tile([0, 0, np.nan], data.sizes["cell"])
        low, high = (np.repeat(data[f"cc_max_{end}"].values, 3) + apart for end in ("low", "high"))
        ax.fill_between(x, low, high, color=BLACK, alpha=0.2, linewidth=0)


def _baseline_of(evaluation: xr.Dataset, score: str) -> xr.Dataset:
    """Scores of the baseline in an evaluation, under the names of a model's."""
    names = {
        f"{score}_baseline{end}": f"{score}{end}"
        for end in ("", "_low", "_high")
        if f"{score}_baseline{end}" in evaluation
    }
    return evaluation[list(names)].rename(names)


def _with_interval(data: xr.Dataset, score: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Values, and the distances (2, cell) to the ends of their intervals."""
    values = data[score].values
    if f"{score}_low" not in data or f"{score}_high" not in data:
        return values, None
    ends = np.stack([values - data[f"{score}_low"].values, data[f"{score}_high"].values - values])
    # A bootstrap interval need not hold the estimate itself.
    return values, np.maximum(ends, 0)


def _finish(ax: Axes, cells: np.ndarray, label: str) -> None:
    ax.set_ylim(top=max(1.0, ax.get_ylim()[1]))
    mark_columns(ax, cells)
    ax.set(xlabel="cell", ylabel=label, xlim=(-0.6, len(cells) - 0.4))
    legend_beside(ax)


def _over_cells(data: Any, variables: Sequence[str], argument: str) -> xr.Dataset:
    return _over(data, "cell", variables, argument)


def _over(data: Any, dim: str, variables: Sequence[str], argument: str) -> xr.Dataset:
    """Return the Dataset (also from a tree's node) if it has `variables` over `dim`."""
    if isinstance(data, xr.DataTree):
        data = data.to_dataset()
    if not isinstance(data, xr.Dataset):
        remedy = "; draw one at a time" if isinstance(data, Mapping) else ""
        raise TypeError(
            f"{argument} is a {type(data).__name__}; expected an xarray.Dataset over {dim}{remedy}"
        )
    for name in variables:
        if name not in data:
            raise ValueError(f"{argument} has no {name!r}; {nearest_names(name, data.data_vars)}")
        if data[name].dims != (dim,):
            raise ValueError(
                f"{argument}[{name!r}] has dims {data[name].dims}; expected ({dim!r},)"
            )
    return data if dim in data.coords else data.assign_coords({dim: np.arange(data.sizes[dim])})


def _same_cells(data: xr.Dataset, reference: xr.Dataset, argument: str) -> xr.Dataset:
    """Return `data` in the order of the cells of `reference`, all of which it must have."""
    missing = [c for c in reference["cell"].values if c not in data["cell"].values]
    if missing:
        raise ValueError(
            f"{argument} lacks the cells {missing}; it has {list(data['cell'].values)}: give the "
            "result for the same cells"
        )
    return data.sel(cell=reference["cell"].values)
