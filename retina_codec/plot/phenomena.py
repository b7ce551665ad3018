"""Classical phenomena: responses and tuning, tables of indices, and what carries them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from retina_codec._common.checks import nearest_names
from retina_codec.physiology.battery import PHENOMENA
from retina_codec.plot.style import (
    BLUE,
    GREY,
    PALE,
    PALETTE,
    VERMILION,
    axes_for,
    color_bar,
    figure_for,
    label_of,
    legend_beside,
    mark_columns,
    mark_rows,
    settle_ticks,
    styled,
)

MOST_LABELLED = 8  # trials that a legend names
TUNING = {
    "paired_flash": ("paired_flash_ratios",),
    "omitted_stimulus": ("index_by_period",),
    "latency_coding": ("latency",),
    "frequency_doubling": ("f1", "f2"),
    "direction_selectivity": ("direction_tuning",),
    "speed_tuning": ("speed_response",),
}
LOGARITHMIC = ("speed",)
# By what trials are coloured, where it is not by all of their conditions.
COLORED = {
    "object_motion": ("trial_differential",),
    "motion_reversal": ("trial_turn",),
    "motion_anticipation": ("trial_contrast",),
    "direction_selectivity": ("trial_direction",),
    "speed_tuning": ("trial_speed",),
}
# Trials that are drawn, where it is not all, and seconds.
DRAWN = {
    "motion_anticipation": ("trial_speed", lambda values: values > 0),
    "direction_selectivity": ("trial_phase", lambda values: values == 0),
}
STRETCH = {
    "contrast_gain": (0.0, 3.0),
    "motion_anticipation": (-0.6, 0.6),
    "motion_reversal": (-0.6, 0.3),
    "object_motion": (0.0, 1.0),
    "omitted_stimulus": (-0.5, 0.3),
    "speed_tuning": (-0.6, 0.6),
}
SMOOTH = 1e5  # um: places beyond any screen are none

Found = xr.Dataset | xr.DataTree


@styled
def phenomenon(
    found: Found | Mapping[str, Found],
    *,
    cell: object,
    figure: Figure | SubFigure | None = None,
) -> np.ndarray:
    """Draw the response of one cell to a classical stimulus, and its tuning where there is one.

    Parameters
    ----------
    found : Dataset or DataTree, or mapping of str to them
        What `Phenomenon.measure` gives, or a node of the result of `retina_codec.phenomena`;
        several by name, such as ``{"truth": ..., "trained": ...}``, side by side.
    cell : str
        Id of the cell.
    figure : matplotlib Figure or SubFigure, optional
        Where to draw; by default a new one.

    Returns
    -------
    array of matplotlib Axes
        A column a source: above, the rate over time, one line a trial, coloured by its condition,
        with the event of the trial at 0 (dotted); below, the tuning curve, if there is one. The
        indices are in the title.

    Raises
    ------
    TypeError
        If `found` or `figure` is of another type.
    ValueError
        If there is no such cell, or nothing that was measured.

    Examples
    --------
    >>> import retina_codec as rc
    >>> circuit = rc.simulation.circuit("default", shape=(10, 10))
    >>> tree = rc.phenomena(circuit, names="step_response", cells=["on_sustained_0"])
    >>> axes = rc.plot.phenomenon(tree["step_response"], cell="on_sustained_0")
    >>> axes[0, 0].get_ylabel()
    'firing rate (Hz)'
    """
    named = _named(found, cell)
    kinds = {str(data.attrs.get("phenomenon", "")) for data in named.values()}
    tuned = next(iter(kinds)) in TUNING and any(
        TUNING[next(iter(kinds))][0] in data for data in named.values()
    )
    n = len(named)
    figure = figure_for(figure, (1.5 + 4.4 * n, 5.4 if tuned else 3.2))
    rows = 2 if tuned else 1
    axes = np.empty((rows, n), dtype=object)
    grid: Any = figure.add_gridspec(rows, n)
    for column, (name, data) in enumerate(named.items()):
        for row in range(rows):
            first = axes[row, 0] if column else None
            axes[row, column] = figure.add_subplot(grid[row, column], sharey=first)
            settle_ticks(axes[row, column])
        one = data.sel(cell=cell)
        _traces(axes[0, column], one, legend=column == n - 1)
        axes[0, column].set_title(_title(one, name if n > 1 else "", cell), fontsize=9)
        if tuned:
            _tuning(axes[1, column], one, legend=column == n - 1)
        for row in range(rows):
            if column:
                axes[row, column].set_ylabel("")
    for panel in axes[:, 0]:
        # Once all are drawn: the columns share their limits.
        if panel.dataLim.y0 >= 0:
            panel.set_ylim(bottom=0)
    return axes


def _traces(ax: Axes, one: xr.Dataset, *, legend: bool) -> None:
    """Rate over time, one line a trial."""
    if "response" not in one:
        ax.text(0.5, 0.5, str(one["reason"].values), ha="center", transform=ax.transAxes, wrap=True)
        return
    kind = str(one.attrs["phenomenon"])
    response = one["response"].transpose("trial", "onset")
    if kind in DRAWN:
        name, drawn = DRAWN[kind]
        response = response.isel(trial=drawn(response[name].values))
    if kind in STRETCH:
        response = response.sel(onset=slice(*STRETCH[kind]))
    conditions = COLORED.get(kind) or _conditions(response)
    labels = _trial_labels(response, conditions)
    names = list(dict.fromkeys(labels))
    colors = dict(zip(names, _colors(len(names)), strict=True))
    seen: set[str] = set()
    for values, label in zip(response.values, labels, strict=True):
        shown = label if label not in seen and len(names) <= MOST_LABELLED else None
        seen.add(label)
        ax.plot(response["onset"], values, color=colors[label], linewidth=1, label=shown)
    ax.axvline(0, color=GREY, linestyle=":", linewidth=1)
    known = np.isfinite(response.values).any(0)
    onset = response["onset"].values[known]
    ax.set(
        xlabel=label_of(response["onset"], "time after the event"),
        ylabel="firing rate (Hz)",
        xlim=(onset[0], onset[-1]),
    )
    if legend and 1 < len(names) <= MOST_LABELLED:
        legend_beside(ax, title=_legend_title(response, conditions))


def _conditions(response: xr.DataArray) -> Sequence[str]:
    """Conditions of the trials that differ between them."""
    return [
        str(name)
        for name, coord in response.coords.items()
        if coord.dims == ("trial",)
        and name != "trial"
        and len(np.unique(coord.values[np.isfinite(coord.values.astype(float))])) > 1
    ]


def _trial_labels(response: xr.DataArray, conditions: Sequence[str]) -> list[str]:
    rows = np.stack([response[name].values.astype(float) for name in conditions], axis=1)
    return [
        ", ".join("none" if value > SMOOTH else f"{value:.4g}" for value in row) for row in rows
    ]


def _legend_title(response: xr.DataArray, conditions: Sequence[str]) -> str:
    return ",\n".join(
        label_of(response[name], name.removeprefix("trial_").replace("_", " "))
        for name in conditions
    )


def _colors(n: int) -> list[Any]:
    """Colours of conditions: the palette, or where they are many, shades."""
    if n <= len(PALETTE):
        return list(PALETTE[:n])
    return [mpl.colormaps["viridis"](0.9 * i / (n - 1)) for i in range(n)]


def _tuning(ax: Axes, one: xr.Dataset, *, legend: bool) -> None:
    """Draw tuning curves of the phenomenon against their one dim."""
    names = [name for name in TUNING[str(one.attrs["phenomenon"])] if name in one]
    for name, color in zip(names, PALETTE, strict=False):
        curve = one[name]
        (dim,) = curve.dims
        label = name.upper() if len(names) > 1 else None
        ax.plot(curve[dim], curve, "o-", color=color, markersize=4, label=label)
        ax.set_xlabel(label_of(curve[dim], str(dim)))
        ax.set_ylabel(label_of(curve) if len(names) == 1 else "amplitude (Hz)")
        if dim in LOGARITHMIC:
            ax.set_xscale("log", base=2)
            ax.set_xticks(curve[dim].values, [f"{v:g}" for v in curve[dim].values])
        if dim == "direction":
            ax.set_xticks(np.arange(0, 360, 90))
    if legend and len(names) > 1:
        legend_beside(ax)


def _title(one: xr.Dataset, source: str, cell: object) -> str:
    heading = f"{source}, cell {cell}" if source else f"cell {cell}"
    known = PHENOMENA[str(one.attrs["phenomenon"])].indices
    numbers = [
        f"{name.replace('_', ' ')} {float(one[name]):.2g}" + ("" if unit == "1" else f" {unit}")
        for name, (unit, _) in known.items()
        if name in one
    ]
    return "\n".join([heading, *(fill(", ".join(numbers[:4]), 48).split("\n"))])


def _named(found: Any, cell: object) -> dict[str, xr.Dataset]:
    several = isinstance(found, Mapping) and not isinstance(found, xr.Dataset | xr.DataTree)
    given = dict(found) if several else {"": found}
    if not given:
        raise ValueError("found is empty; give at least one result of a phenomenon")
    named = {}
    for name, data in given.items():
        data = data.to_dataset() if isinstance(data, xr.DataTree) else data
        which = f"found[{name!r}]" if several else "found"
        if not isinstance(data, xr.Dataset):
            raise TypeError(f"{which} is a {type(data).__name__}; expected a Dataset or DataTree")
        if "reason" not in data or "phenomenon" not in data.attrs:
            raise ValueError(
                f"{which} is not the result of one phenomenon: give a node of the result of "
                "phenomena, such as found['step_response']"
            )
        if cell not in data["cell"].values:
            raise ValueError(f"cell={cell!r}: {nearest_names(cell, data['cell'].values)}")
        named[str(name)] = data
    return named


@styled
def phenomena_table(table: Found, *, ax: Axes | None = None) -> Axes:
    """Draw all indices of all cells.

    Parameters
    ----------
    table : DataTree or Dataset
        Result of `retina_codec.phenomena`: value(cell, index).
    ax : matplotlib Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    matplotlib Axes
        A heat map, each index divided by its largest magnitude over the cells; numbers are the
        indices themselves, missing ones are left grey.

    Raises
    ------
    TypeError
        If `table` or `ax` is of another type.

    Examples
    --------
    >>> import retina_codec as rc
    >>> circuit = rc.simulation.circuit("default", shape=(10, 10))
    >>> tree = rc.phenomena(circuit, names="step_response", cells=["on_sustained_0"])
    >>> rc.plot.phenomena_table(tree).get_xlabel()
    ''
    """
    data = table.to_dataset() if isinstance(table, xr.DataTree) else table
    if not isinstance(data, xr.Dataset) or "value" not in data:
        raise TypeError("table: expected the result of retina_codec.phenomena")
    values = data["value"].transpose("cell", "index").values
    with np.errstate(invalid="ignore", divide="ignore"):
        known = np.where(np.isfinite(values), np.abs(values), 0.0)
        scaled = values / np.where(known.max(0) > 0, known.max(0), 1.0)
    n_cells, n_indices = values.shape
    ax = axes_for(ax, (2.6 + 0.52 * n_indices, 2.4 + 0.24 * n_cells))
    ax.set_facecolor(PALE)
    image = ax.imshow(scaled, aspect="auto", cmap="RdBu_r", vmin=-1, vmax=1)
    color_bar(ax, image, "index / largest magnitude")
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            dark = abs(scaled[row, column]) > 0.6
            ax.text(
                column,
                row,
                f"{value:.0f}" if abs(value) >= 100 else f"{value:.2f}",
                ha="center",
                va="center",
                fontsize=6.5,
                color="white" if dark else "black",
            )
    for spine in ax.spines.values():
        spine.set_visible(False)
    units = data["units"].values if "units" in data.coords else np.full(n_indices, "1")
    names = [
        str(name).replace("_", " ") + ("" if unit == "1" else f" ({unit})")
        for name, unit in zip(data["index"].values, units, strict=True)
    ]
    mark_columns(ax, names)
    mark_rows(ax, data["cell"].values)
    return ax


@styled
def phenomena_agreement(comparison: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw how well the indices of models agree with those of the reference, over cells.

    Parameters
    ----------
    comparison : Dataset
        Result of `retina_codec.physiology.compare_phenomena`.
    ax : matplotlib Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    matplotlib Axes
        A column an index: r with its interval, one marker a model; a line at 0.9.

    Raises
    ------
    TypeError
        If `comparison` or `ax` is of another type.
    ValueError
        If it is another result.

    Examples
    --------
    >>> import retina_codec as rc
    >>> circuit = rc.simulation.circuit("default", shape=(14, 14))
    >>> table = rc.phenomena(circuit, names="step_response")
    >>> both = rc.physiology.compare_phenomena({"a": table, "b": table}, reference="a")
    >>> rc.plot.phenomena_agreement(both).get_ylabel()
    'correlation with a over cells'
    """
    if not isinstance(comparison, xr.Dataset):
        raise TypeError(f"comparison is a {type(comparison).__name__}; expected a Dataset")
    if not {"r", "r_low", "r_high"} <= set(comparison.data_vars):
        raise ValueError("comparison: expected the result of compare_phenomena")
    shown = comparison.isel(index=comparison["r"].notnull().any("compared").values)
    models = [str(name) for name in shown["compared"].values]
    reference = next(str(name) for name in shown["source"].values if name not in models)
    ax = axes_for(ax, (2.4 + 0.5 * shown.sizes["index"], 4.4))
    ax.axhline(0, color=GREY, linewidth=0.8)
    ax.axhline(0.9, color=GREY, linestyle="--", linewidth=1, label="r = 0.9")
    step = 0.6 / len(models)
    for place, model in enumerate(models):
        r, low, high = (shown[name].sel(compared=model).values for name in ("r", "r_low", "r_high"))
        at = np.arange(len(r)) + step * (place - (len(models) - 1) / 2)
        reach = np.maximum(np.nan_to_num([r - low, high - r]), 0)
        color = PALETTE[place % len(PALETTE)]
        face = color if place == 0 else "white"
        ax.errorbar(
            at, r, reach, fmt="o", color=color, markerfacecolor=face, capsize=2, label=model
        )
    mark_columns(ax, [str(name).replace("_", " ") for name in shown["index"].values])
    ax.set(
        ylabel=f"correlation with {reference} over cells",
        xlim=(-0.6, shown.sizes["index"] - 0.4),
        ylim=(-1.03, 1.03),
    )
    legend_beside(ax)
    return ax


@styled
def explanation(
    found: xr.DataTree,
    *,
    cell: object,
    layer: str | None = None,
    figure: Figure | SubFigure | None = None,
) -> np.ndarray:
    """Draw what each channel, or mode, adds to a phenomenon, beside the control network.

    Parameters
    ----------
    found : DataTree
        Result of `retina_codec.explain`.
    cell : str
        Id of the cell.
    layer : str, optional
        Name of the layer, or ``"modes"``; by default modes if there are, else the last layer.
    figure : matplotlib Figure or SubFigure, optional
        Where to draw; by default a new one.

    Returns
    -------
    array of matplotlib Axes
        One panel a network: bars with intervals over pairs, filled where q < 0.05; in the title
        the change of the rate that they add up to.

    Raises
    ------
    TypeError
        If `found` or `figure` is of another type.
    ValueError
        If there is no such cell or layer.

    Examples
    --------
    >>> import retina_codec as rc
    >>> circuit = rc.simulation.circuit("default", shape=(10, 10))
    >>> steps = rc.physiology.StepResponse(duration=0.5)
    >>> tree = rc.explain(circuit, steps, cells=["on_sustained_0"], layers="bipolar")
    >>> rc.plot.explanation(tree, cell="on_sustained_0")[0].get_ylabel()
    'change of the contribution (Hz)'
    """
    if not isinstance(found, xr.DataTree) or "layers" not in found.children:
        raise TypeError("found: expected the result of retina_codec.explain")
    parts = _parts(found)
    name = list(parts)[-1] if layer is None else layer
    if name not in parts:
        raise ValueError(f"layer={layer!r}: {nearest_names(layer, parts)}")
    cells = found.to_dataset()["cell"].values
    if cell not in cells:
        raise ValueError(f"cell={cell!r}: {nearest_names(cell, cells)}")
    panels = [(found, name, parts[name])]
    if "control" in found.children:
        control = found.children["control"]
        others = {k: v for k, v in _parts(control).items() if k != "modes"}
        # Of another architecture, or beside modes: its last layer.
        beside = name if name in others else list(others)[-1]
        panels.append((control, beside, others[beside]))
    n_bars = [data.sizes[_dim(data)] for _, _, data in panels]
    figure = figure_for(figure, (1.6 + sum(max(2.4, 0.34 * n) for n in n_bars), 3.6))
    axes = np.empty(len(panels), dtype=object)
    grid: Any = figure.add_gridspec(1, len(panels), width_ratios=[max(7, n) for n in n_bars])
    for i, (tree, part, data) in enumerate(panels):
        ax = axes[i] = figure.add_subplot(grid[0, i], sharey=axes[0] if i else None)
        settle_ticks(ax)
        total = float(tree.to_dataset()["change"].sel(cell=cell))
        _bars(ax, data.sel(cell=cell), _dim(data))
        ax.set_title(
            f"{'control, ' if i else ''}{part}, cell {cell}\nchange of rate {total:.1f} Hz"
        )
        ax.set_ylabel("" if i else "change of the contribution (Hz)")
    return axes


def _parts(tree: xr.DataTree) -> dict[str, xr.Dataset]:
    """Layers, and modes, of an explanation."""
    layers = tree.children["layers"].children if "layers" in tree.children else {}
    found = {str(name): node.to_dataset() for name, node in layers.items()}
    if "modes" in tree.children:
        found["modes"] = tree.children["modes"].to_dataset()
    return found


def _dim(data: xr.Dataset) -> str:
    return next(str(dim) for dim in data["change"].dims if dim != "cell")


def _bars(ax: Axes, data: xr.Dataset, dim: str) -> None:
    change, low, high = (data[v].values for v in ("change", "change_low", "change_high"))
    at = np.arange(len(change))
    color = [VERMILION if value > 0 else BLUE for value in change]
    sure = data["q_value"].values < 0.05
    face = [c if s else "white" for c, s in zip(color, sure, strict=True)]
    ax.bar(at, change, color=face, edgecolor=color, linewidth=1.2)
    reach = np.maximum(np.nan_to_num([change - low, high - change]), 0)
    ax.errorbar(at, change, reach, fmt="none", ecolor="black", elinewidth=0.8, capsize=2)
    ax.axhline(0, color="black", linewidth=0.8)
    names = data[dim].values if dim in data.coords else at
    mark_columns(ax, [str(one).replace("_", " ") for one in names])
    ax.set_xlabel(dim)
