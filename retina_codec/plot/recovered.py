"""What was recovered of a known circuit: a table as a picture, and one burst."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from retina_codec._common.checks import nearest_names, require_choice, require_dims
from retina_codec.plot.style import (
    BLACK,
    GREY,
    PALETTE,
    VERMILION,
    axes_for,
    figure_for,
    label_of,
    legend_beside,
    mark_columns,
    settle_ticks,
    styled,
)

CUTS = ("bipolar", "ganglion_input")
REMOVED = ("nothing", "predicted", "both")
# Columns of the picture: words, variable, labels along its dims.
Column = tuple[str, str, dict[str, str]]
COLUMNS: list[Column] = [
    ("rate", "prediction_r", {}),
    ("potential of\ninterneurons", "interneuron_r", {"signal": "potential"}),
    ("release of\ninterneurons", "interneuron_r", {"signal": "release"}),
    ("contributions", "contribution_r", {"features": "contribution"}),
    ("single units'\ncontributions", "contribution_r", {"features": "single_unit"}),
    ("activations", "contribution_r", {"features": "activation"}),
    ("single units'\nactivations", "contribution_r", {"features": "unit_activation"}),
    ("CKA of\ncontributions", "cka", {"parts": "net"}),
]
CURVES: list[Column] = [
    COLUMNS[0],
    ("rate, worst cell", "worst_prediction_r", {}),
    *(
        column
        for column in COLUMNS
        if column[0].split("\n")[0] in ("potential of", "contributions")
    ),
    COLUMNS[-1],
]
MARKERS = "osD^vP*X"


@styled
def recovery(
    summary: xr.Dataset, *, cut: str = "bipolar", removed: str = "predicted", ax: Axes | None = None
) -> Axes:
    """Draw how well each model finds the known circuit, beside its controls.

    Parameters
    ----------
    summary : Dataset
        As from `retina_codec.validation.summarise`; with seeds, their range is drawn.
    cut : {"bipolar", "ganglion_input"}
        Where the true contributions are taken.
    removed : {"nothing", "predicted", "both"}
        What was removed from the contributions; the rest of the picture does not depend on it.
    ax : matplotlib Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    matplotlib Axes
        One column a comparison, in it one point a model.

    Raises
    ------
    TypeError
        If `summary` or `ax` is of another type.
    ValueError
        If a variable is missing, or `cut` or `removed` is unknown.

    Examples
    --------
    >>> import xarray as xr
    >>> from retina_codec import plot
    >>> summary = xr.Dataset(
    ...     {"prediction_r": ("model", [0.9]),
    ...      "contribution_r": (("model", "features", "removed", "cut"), [[[[0.8]]]]),
    ...      "cka": (("model", "parts", "removed", "cut"), [[[[0.7]]]])},
    ...     {"model": ["trained"], "features": ["contribution"], "removed": ["predicted"],
    ...      "cut": ["bipolar"], "parts": ["net"]},
    ... )
    >>> plot.recovery(summary).get_ylabel()
    'correlation, or CKA'
    """
    _require_summary(summary, cut, removed)
    chosen = {"cut": cut, "removed": removed}
    columns = _known_columns(COLUMNS, summary)
    models = [str(name) for name in summary["model"].values]
    ax = axes_for(ax, (2.4 + 1.3 * len(columns), 4.0))
    step = 0.7 / len(models)
    for place, model in enumerate(models):
        at = np.arange(len(columns)) + step * (place - (len(models) - 1) / 2)
        values, low, high = (
            np.array([_value(summary, name + end, {**chosen, **labels}, model)
                      for _, name, labels in columns])
            for end in ("", "_low", "_high")
        )  # fmt: skip
        reach = np.nan_to_num([values - low, high - values])
        ax.errorbar(
            at,
            values,
            np.maximum(reach, 0),
            fmt=MARKERS[place % len(MARKERS)],
            color=PALETTE[place % len(PALETTE)],
            capsize=2.5,
            linewidth=1.2,
            label=model,
        )
    for edge in np.arange(1, len(columns)) - 0.5:
        ax.axvline(edge, color=GREY, linewidth=0.5, alpha=0.5)
    ax.axhline(0, color=BLACK, linewidth=0.8)
    mark_columns(ax, [words for words, *_ in columns])
    taken = {
        "nothing": "nothing removed",
        "predicted": "predicted rate removed",
        "both": "predicted and true rate removed",
    }[removed]
    ax.set(
        ylabel="correlation, or CKA",
        xlim=(-0.55, len(columns) - 0.45),
        ylim=(min(-0.05, ax.get_ylim()[0]), 1.03),
        title=f"contributions at the cut {cut.replace('_', ' ')}, {taken}",
    )
    legend_beside(ax)
    return ax


def _require_summary(summary: Any, cut: str, removed: str) -> None:
    if not isinstance(summary, xr.Dataset):
        raise TypeError(
            f"summary is a {type(summary).__name__}; expected the Dataset of "
            "retina_codec.validation.summarise"
        )
    for name in ("prediction_r", "contribution_r", "cka"):
        if name not in summary:
            raise ValueError(
                f"summary has no {name!r}; {nearest_names(name, summary.data_vars)}; expected the "
                "Dataset of retina_codec.validation.summarise"
            )
    require_choice(cut, CUTS, "cut")
    require_choice(removed, REMOVED, "removed")


def _known_columns(columns: list[Column], summary: xr.Dataset) -> list[Column]:
    """Keep those that the summary has."""
    return [
        (words, name, labels)
        for words, name, labels in columns
        if name in summary
        and all(value in summary[name][dim].values for dim, value in labels.items())
    ]


def _value(summary: xr.Dataset, name: str, labels: dict[str, str], model: str) -> float:
    if name not in summary:
        return float("nan")
    data = summary[name].sel(model=model)
    return float(data.sel({dim: value for dim, value in labels.items() if dim in data.dims}))


@styled
def recovery_curve(
    summary: xr.Dataset,
    *,
    along: str = "minutes",
    cut: str = "bipolar",
    removed: str = "predicted",
    figure: Figure | SubFigure | None = None,
) -> np.ndarray:
    """Draw what is recovered over the amount of recording: how much one needs.

    Parameters
    ----------
    summary : Dataset
        Those of `retina_codec.validation.summarise`, joined along a dim of numbers, as by
        ``xr.concat(summaries, xr.Variable("minutes", [1.0, 5.0], {"units": "min"}))``.
    along : str
        That dim; its ``attrs["units"]`` are shown.
    cut : {"bipolar", "ganglion_input"}
        Where the true contributions are taken.
    removed : {"nothing", "predicted", "both"}
        What was removed from the contributions.
    figure : matplotlib Figure or SubFigure, optional
        Where to draw; by default a new figure.

    Returns
    -------
    ndarray of matplotlib Axes
        One a comparison (rate, its worst cell, interneurons, contributions, CKA), in it one line a
        model, over a logarithmic axis; with seeds, their range is shaded. Comparisons that the
        summary has not are left out.

    Raises
    ------
    TypeError
        If `summary` or `figure` is of another type.
    ValueError
        If a variable or the dim is missing, an amount is not above 0, or `cut` or `removed` is
        unknown.

    Examples
    --------
    >>> import xarray as xr
    >>> from retina_codec import plot
    >>> one = xr.Dataset(
    ...     {"prediction_r": ("model", [0.9]), "worst_prediction_r": ("model", [0.7]),
    ...      "contribution_r": (("model", "features", "removed", "cut"), [[[[0.8]]]]),
    ...      "cka": (("model", "parts", "removed", "cut"), [[[[0.7]]]])},
    ...     {"model": ["trained"], "features": ["contribution"], "removed": ["predicted"],
    ...      "cut": ["bipolar"], "parts": ["net"]},
    ... )
    >>> minutes = xr.Variable("minutes", [1.0, 5.0], {"units": "min"})
    >>> axes = plot.recovery_curve(xr.concat([one, one + 0.05], minutes))
    >>> len(axes), axes[0].get_xlabel()
    (4, 'minutes (min)')
    """
    _require_summary(summary, cut, removed)
    if along not in summary.dims or along not in summary.coords:
        raise ValueError(
            f"summary has no dim {along!r} with a coordinate; {nearest_names(along, summary.dims)}"
            f"; join summaries with xr.concat(..., xr.Variable({along!r}, [...]))"
        )
    amounts = summary[along].values.astype(np.float64)
    if not (amounts > 0).all():
        raise ValueError(f"summary[{along!r}] is {amounts.tolist()}; expected numbers above 0")
    summary = summary.isel({along: np.argsort(amounts)})
    amounts = np.sort(amounts)
    chosen = {"cut": cut, "removed": removed}
    panels = [
        (words.replace("\n", " "), name, labels)
        for words, name, labels in _known_columns(CURVES, summary)
    ]
    drawn = figure_for(figure, (0.6 + 2.1 * len(panels), 2.9))
    axes: np.ndarray = np.atleast_1d(drawn.subplots(1, len(panels), sharex=True, sharey=True))
    for ax, (words, name, labels) in zip(axes, panels, strict=True):
        for place, model in enumerate(summary["model"].values.tolist()):
            style = {"color": PALETTE[place % len(PALETTE)]}
            values, low, high = (
                np.array([_value(summary.isel({along: k}), name + end, {**chosen, **labels}, model)
                          for k in range(len(amounts))])
                for end in ("", "_low", "_high")
            )  # fmt: skip
            marker = MARKERS[place % len(MARKERS)]
            ax.plot(amounts, values, marker=marker, markersize=4.5, label=model, **style)
            ax.fill_between(amounts, low, high, alpha=0.2, linewidth=0, **style)
        ax.axhline(0, color=GREY, linewidth=0.6)
        ax.set_xscale("log")
        ax.set_xticks(amounts, [f"{amount:g}" for amount in amounts])
        ax.minorticks_off()
        ax.set_title(words, fontsize=9)
        settle_ticks(ax)
    axes[0].set(ylabel="correlation, or CKA", ylim=(min(-0.05, axes[0].get_ylim()[0]), 1.03))
    units = summary[along].attrs.get("units", "")
    for ax in axes:
        ax.set_xlabel(f"{along} ({units})" if units else along)
    legend_beside(axes[-1])
    return axes


@styled
def burst(
    true: xr.DataArray, recovered: xr.DataArray, *, figure: Figure | SubFigure | None = None
) -> np.ndarray:
    """Draw true contributions round one burst, each with the one that was matched with it.

    Parameters
    ----------
    true, recovered : DataArray
        (time, true_channel), as from `retina_codec.validation.matched_burst`.
    figure : matplotlib Figure or SubFigure, optional
        Where to draw; by default a new figure.

    Returns
    -------
    ndarray of matplotlib Axes
        One a true channel, with a common scale: black the true contribution, coloured the
        recovered one, whose name is at the right.

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        If the two are not of the same times and channels.

    Examples
    --------
    >>> import numpy as np
    >>> import xarray as xr
    >>> from retina_codec import plot
    >>> true = xr.DataArray(
    ...     np.eye(5)[:, :2], dims=("time", "true_channel"),
    ...     coords={"time": 0.01 * np.arange(5), "true_channel": ["on", "off"]},
    ... )
    >>> len(plot.burst(true, 0.5 * true))
    2
    """
    dims = ("time", "true_channel")
    true = require_dims(true, dims, "true")
    recovered = require_dims(recovered, dims, "recovered")
    for dim in dims:
        if not np.array_equal(true[dim].values, recovered[dim].values):
            raise ValueError(
                f"true and recovered differ along {dim!r}; expected the two of one "
                "retina_codec.validation.matched_burst"
            )
    n = true.sizes["true_channel"]
    drawn = figure_for(figure, (7.0, max(2.9, 1.2 + 0.95 * n)))
    axes: np.ndarray = np.atleast_1d(drawn.subplots(n, sharex=True, sharey=True))
    time = true["time"].values
    middle = (time[0] + time[-1]) / 2
    for k, ax in enumerate(axes):
        ax.axhline(0, color=GREY, linewidth=0.6)
        ax.plot(time - middle, true.values[:, k], color=BLACK, label="true")
        ax.plot(time - middle, recovered.values[:, k], color=VERMILION, label="recovered")
        ax.set_title(str(true["true_channel"].values[k]).replace("_", " "), fontsize=9, pad=2)
        if "feature" in recovered.coords:
            ax.annotate(
                str(recovered["feature"].values[k]).replace(" ", "\n"), (1.01, 0.5),
                xycoords="axes fraction", va="center", color=VERMILION, fontsize=8,
            )  # fmt: skip
        settle_ticks(ax)
    legend: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "ncols": 2}
    axes[0].legend(**legend, borderaxespad=0.1)
    axes[-1].set_xlabel(f"time from {middle:.2f} s (s)")
    cell = str(true["cell"].values) if "cell" in true.coords else ""
    drawn.supylabel(
        label_of(true, f"contribution to {cell.replace('_', ' ')}".removesuffix(" to "), ""),
        fontsize=10,
    )
    return axes
