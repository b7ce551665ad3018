"""Image classifiers: all layers side by side, modes and categories, rankings of channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure, SubFigure

from retina_codec._common.checks import nearest_names, require_choice
from retina_codec.plot.style import (
    BLACK,
    BLUE,
    GREY,
    PALETTE,
    VERMILION,
    axes_for,
    figure_for,
    heat_map,
    heat_size,
    mark_columns,
    mark_rows,
    settle_ticks,
    styled,
)

QUANTITY_COLORS = {"contribution": VERMILION, "activation": BLUE}
PANELS = {
    "sparsity": "Hoyer sparsity",
    "participation_ratio": "participation ratio\nof category means",
    "sign_correlation": "r of positive and\n|negative| part",
}
SIGNIFICANT = 0.05


@styled
def layer_statistics(
    statistics: xr.Dataset,
    *,
    control: xr.Dataset | None = None,
    figure: Figure | SubFigure | None = None,
) -> np.ndarray:
    """Draw sparsity, dimensions and the relation of the signs over the layers of a network.

    Parameters
    ----------
    statistics : Dataset
        As from `retina_codec.analysis.layer_statistics`.
    control : Dataset, optional
        The same of a control, such as the untrained network, with the same layers; drawn dashed.
    figure : matplotlib Figure or SubFigure, optional
        Where to draw; by default a new figure.

    Returns
    -------
    ndarray of matplotlib Axes
        Three panels: sparsity, participation ratio, correlation of the signs, with intervals.

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        If a variable is missing, or the control has other layers.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from retina_codec import plot
    >>> names = [f"{n}{end}" for n in ("sparsity", "participation_ratio")
    ...     for end in ("", "_low", "_high")]
    >>> found = xr.Dataset(
    ...     {name: (("layer", "quantity"), np.ones((2, 2))) for name in names}
    ...     | {f"sign_correlation{end}": ("layer", [0.5, 0.1]) for end in ("", "_low", "_high")},
    ...     {"layer": ["a", "b"], "quantity": ["contribution", "activation"]},
    ... )
    >>> len(plot.layer_statistics(found))
    3
    """
    statistics = _checked(statistics, PANELS, "statistics", "analysis.layer_statistics")
    shown = [(statistics, "-", "o", "")]
    if control is not None:
        control = _checked(control, PANELS, "control", "analysis.layer_statistics")
        if control["layer"].values.tolist() != statistics["layer"].values.tolist():
            raise ValueError("control has other layers than statistics: compute both for the same")
        shown.append((control, "--", "s", ", control"))
    figure = figure_for(figure, (11.0, 3.6))
    axes: np.ndarray = figure.subplots(1, len(PANELS))
    layers = [str(name) for name in statistics["layer"].values]
    place = np.arange(len(layers))
    for ax, (name, label) in zip(axes, PANELS.items(), strict=True):
        for data, line, marker, what in shown:
            one_by_one = {"": (data, BLACK)}
            if "quantity" in data[name].dims:
                one_by_one = {
                    str(q): (data.sel(quantity=q), QUANTITY_COLORS.get(str(q), GREY))
                    for q in data["quantity"].values
                }
            for quantity, (part, color) in one_by_one.items():
                ax.fill_between(
                    place, part[f"{name}_low"], part[f"{name}_high"], color=color, alpha=0.2,
                    linewidth=0,
                )  # fmt: skip
                filled = color if line == "-" else "white"
                ax.plot(
                    place, part[name], line, marker=marker, color=color, markerfacecolor=filled,
                    markersize=4.5, label=f"{quantity}{what}",
                )  # fmt: skip
        ax.set(ylabel=label, xlabel="layer", xlim=(-0.4, len(layers) - 0.6))
        settle_ticks(ax)
        mark_columns(ax, layers)
    axes[-1].axhline(0, color=GREY, linewidth=0.7)
    for ax in axes[:-1]:
        ax.set_ylim(bottom=0)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(labels))
    return axes


@styled
def category_association(found: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw which modes stand for which categories.

    Parameters
    ----------
    found : Dataset
        As from `retina_codec.analysis.category_association`.
    ax : matplotlib Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    matplotlib Axes
        With a heat map (mode, category or node) of the correlation, modes sorted by their best
        category, and a dot where q < 0.05. Modes without any are left out.

    Raises
    ------
    TypeError
        If `found` or `ax` is of another type.
    ValueError
        If a variable is missing, or no mode varies.

    Examples
    --------
    >>> import numpy as np, retina_codec as rc, xarray as xr
    >>> labels = np.repeat(["cat", "dog"], 20)
    >>> loadings = xr.DataArray(np.eye(2)[np.repeat([0, 1], 20)], dims=("image", "mode"))
    >>> found = rc.analysis.category_association(loadings, labels, n_permutations=50)
    >>> rc.plot.category_association(found).get_ylabel()
    'mode'
    """
    found = _checked(found, ("r", "q_value", "kind"), "found", "analysis.category_association")
    (unit,) = (str(dim) for dim in found["r"].dims if dim != "node")
    r = found["r"].transpose(unit, "node")
    n_categories = int((found["kind"] == "category").sum())
    own = np.nan_to_num(r.values[:, :n_categories], nan=-np.inf)
    lives = np.flatnonzero(np.isfinite(own).any(axis=1))
    if not lives.size:
        raise ValueError("found has no mode that varies over the images")
    best = own.argmax(axis=1)
    order = lives[np.lexsort((-own.max(axis=1)[lives], best[lives]))]
    values, q = r.values[order], found["q_value"].transpose(unit, "node").values[order]
    width, height = heat_size(len(order), values.shape[1])
    ax = axes_for(ax, (width, height))
    heat_map(ax, values, "correlation", symmetric=True)
    with np.errstate(invalid="ignore"):
        rows, columns = np.nonzero((q < SIGNIFICANT) & (values > 0))
    dark = values[rows, columns] > 0.6 * np.nanmax(np.abs(values))
    ax.scatter(columns, rows, s=9, color=np.where(dark, "white", "black"), linewidths=0)
    mark_rows(ax, found[unit].values[order], fewer=True)
    mark_columns(ax, found["node"].values)
    if n_categories < values.shape[1]:
        ax.axvline(n_categories - 0.5, color=BLACK, linewidth=1.2)
    ax.set(ylabel=unit, xlabel=f"category (dot: q < {SIGNIFICANT:g})")
    return ax


@styled
def ranking_comparison(
    found: xr.Dataset, *, figure: Figure | SubFigure | None = None
) -> np.ndarray:
    """Draw what ablation by several rankings leaves of a category and of the others.

    Parameters
    ----------
    found : Dataset
        As from `retina_codec.interventions.compare_rankings`.
    figure : matplotlib Figure or SubFigure, optional
        Where to draw; by default a new figure.

    Returns
    -------
    ndarray of matplotlib Axes
        Left the ratio after / before over the curve, solid of the target and dashed of the rest,
        with intervals over targets; right the score of each ranking, its interval, one dot a
        target, and the random orders.

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        If a variable is missing.

    Examples
    --------
    >>> import xarray as xr
    >>> from retina_codec import plot
    >>> names = ("mean_ratio", "mean_ratio_low", "mean_ratio_high")
    >>> curve = (("ranking", "group", "count"), [[[0.5, 0.1], [0.9, 0.8]]])
    >>> score = {f"mean_score{end}": ("ranking", [-0.6]) for end in ("", "_low", "_high")}
    >>> found = xr.Dataset(
    ...     dict.fromkeys(names, curve) | score | {"score": (("ranking", "target"), [[-0.6]])},
    ...     {"ranking": ["modes"], "group": ["target", "off_target"], "count": [1, 2],
    ...      "target": ["cat"]},
    ... )
    >>> len(plot.ranking_comparison(found))
    2
    """
    found = _checked(
        found, ("mean_ratio", "mean_score", "score"), "found", "interventions.compare_rankings"
    )
    figure = figure_for(figure, (9.5, 3.8))
    axes: np.ndarray = figure.subplots(1, 2, width_ratios=[1.5, 1])
    step = "percentage" if "percentage" in found.dims else "count"
    names = [str(name) for name in found["ranking"].values]
    for place, name in enumerate(names):
        color = PALETTE[place % len(PALETTE)]
        for group, line in (("target", "-"), ("off_target", "--")):
            part = found.sel(ranking=name, group=group)
            x = part[step].values
            axes[0].fill_between(
                x, part["mean_ratio_low"], part["mean_ratio_high"], color=color, alpha=0.12,
                linewidth=0,
            )  # fmt: skip
            what = f"{name}, {'category' if group == 'target' else 'others'}"
            axes[0].plot(x, part["mean_ratio"], line, color=color, label=what)
        here = found.sel(ranking=name)
        low, high = float(here["mean_score_low"]), float(here["mean_score_high"])
        mean = float(here["mean_score"])
        dots = np.linspace(-0.17, 0.17, here.sizes["target"]) if here.sizes["target"] > 1 else [0.0]
        axes[1].plot(place + np.asarray(dots), here["score"], ".", color=color, alpha=0.45)
        axes[1].errorbar(
            place, mean, [[max(mean - low, 0)], [max(high - mean, 0)]], fmt="D", color=color,
            markeredgecolor="white", markersize=7, capsize=3,
        )  # fmt: skip
    columns = list(names)
    if "random_mean_score" in found:
        drawn = found["random_mean_score"].values
        spread = np.linspace(-0.15, 0.15, len(drawn))
        axes[1].plot(len(names) + spread, drawn, ".", color=GREY)
        columns.append("random")
    axes[1].axhline(0, color=GREY, linewidth=0.7)
    axes[1].set(ylabel="score", xlim=(-0.5, len(columns) - 0.5))
    axes[0].set(
        xlabel="channels (%)" if step == "percentage" else "channels", ylabel="after / before"
    )
    axes[0].set_ylim(bottom=0)
    for ax in axes:
        settle_ticks(ax)
    mark_columns(axes[1], columns)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside upper left",
        ncols=min(3, len(names)),
    )  # fmt: skip
    return axes


@styled
def mode_page(
    dictionary: xr.DataArray,
    association: xr.Dataset,
    images: xr.DataArray,
    masks: xr.DataArray,
    *,
    mode: Any,
    loadings: xr.DataArray | None = None,
    most: int = 8,
    figure: Figure | SubFigure | None = None,
) -> np.ndarray:
    """Draw a page of one mode: its channels, its categories, and images with what made it act.

    Parameters
    ----------
    dictionary : DataArray
        ``modes.dictionary`` (mode, [sign,] channel).
    association : Dataset
        As from `retina_codec.analysis.category_association`.
    images : DataArray
        (image, color, y, x), uint8 or from 0 to 1, such as the images with the largest loadings,
        in the order to draw them.
    masks : DataArray
        (image, [mode,] sign, y, x), as `retina_codec.analysis.field_masks` gives of the fields of
        these images.
    mode : label
        The mode.
    loadings : DataArray, optional
        (image[, mode]), written above each image.
    most : int
        Categories (and nodes) drawn, the best first.
    figure : matplotlib Figure or SubFigure, optional
        Where to draw; by default a new figure.

    Returns
    -------
    ndarray of matplotlib Axes
        The dictionary's row, the correlations with categories, then one an image: the red line
        encloses the pixels that make the helping units active, the blue one the hindering ones.

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        If there is no such mode, or images and masks differ.

    Examples
    --------
    >>> import numpy as np, retina_codec as rc, xarray as xr
    >>> labels = np.repeat(["cat", "dog"], 20)
    >>> loadings = xr.DataArray(np.eye(2)[np.repeat([0, 1], 20)], dims=("image", "mode"))
    >>> found = rc.analysis.category_association(loadings, labels, n_permutations=50)
    >>> row = xr.DataArray(np.eye(3)[:2], {"mode": [0, 1]}, ("mode", "channel"))
    >>> images = xr.DataArray(np.random.default_rng(0).random((2, 3, 8, 8)),
    ...     dims=("image", "color", "y", "x"))
    >>> masks = xr.DataArray(np.zeros((2, 2, 8, 8), bool),
    ...     {"sign": ["positive", "negative"]}, ("image", "sign", "y", "x"))
    >>> len(rc.plot.mode_page(row, found, images, masks, mode=1))
    4
    """
    association = _checked(association, ("r", "q_value"), "association", "analysis."
                           "category_association")  # fmt: skip
    for data, argument, needed in (
        (dictionary, "dictionary", ("mode", "channel")),
        (images, "images", ("image", "color", "y", "x")),
        (masks, "masks", ("image", "sign", "y", "x")),
    ):
        if not isinstance(data, xr.DataArray):
            raise TypeError(f"{argument} is a {type(data).__name__}; expected a DataArray")
        missing = [dim for dim in needed if dim not in data.dims]
        if missing:
            raise ValueError(f"{argument} has dims {tuple(data.dims)}; {missing[0]!r} is missing")
    require_choice(mode, dictionary["mode"].values.tolist(), "mode")
    require_choice(mode, association["mode"].values.tolist(), "mode")
    if "mode" in masks.dims:
        masks = masks.sel(mode=mode)
    if images.sizes["image"] != masks.sizes["image"] or (
        "image" in images.coords
        and "image" in masks.coords
        and not np.array_equal(images["image"], masks["image"])
    ):
        raise ValueError("images and masks are not of the same images: pass the same, in order")
    n = images.sizes["image"]
    n_columns = min(n, 6)
    n_rows = -(-n // n_columns)
    figure = figure_for(figure, (9.0, 3.0 + 1.75 * n_rows))
    grid: Any = figure.add_gridspec(1 + n_rows, 1, height_ratios=[2.2, *[1.6] * n_rows])
    top = grid[0].subgridspec(1, 2, width_ratios=[1.7, 1])
    axes = [figure.add_subplot(top[0]), figure.add_subplot(top[1])]
    _channels(axes[0], dictionary.sel(mode=mode), mode)
    _categories(axes[1], association.sel(mode=mode), most)
    shown = images.transpose("image", "y", "x", "color").values
    marked = masks.transpose("image", "sign", "y", "x")
    for i in range(n):
        row = grid[1 + i // n_columns].subgridspec(1, n_columns)
        ax = figure.add_subplot(row[i % n_columns])
        picture = shown[i] if shown.shape[-1] == 3 else shown[i].mean(-1)
        ax.imshow(picture, cmap="gray", interpolation="nearest")
        for sign, color in (("positive", VERMILION), ("negative", BLUE)):
            mask = marked[i].sel(sign=sign).values
            if mask.any() and not mask.all():
                _outline(ax, mask, color)
        ax.set_axis_off()
        told = []
        if "label" in images.coords:
            told.append(str(images["label"].values[i]))
        if loadings is not None:
            one = loadings.sel(mode=mode) if "mode" in loadings.dims else loadings
            told.append(f"{float(one[i]):.2g}")
        ax.set_title("\n".join(told), fontsize=8, loc="center", pad=3)
        axes.append(ax)
    found = np.empty(len(axes), dtype=object)
    found[:] = axes
    return found


def _outline(ax: Axes, mask: np.ndarray, color: str) -> None:
    """Draw the edges between pixels that are marked and those that are not."""
    padded = np.pad(mask, 1)
    height, width = mask.shape
    across = np.argwhere(padded[:-1, 1:-1] != padded[1:, 1:-1])  # edges below row y - 1
    along = np.argwhere(padded[1:-1, :-1] != padded[1:-1, 1:])
    lines = [[(x - 0.5, y - 0.5), (x + 0.5, y - 0.5)] for y, x in across]
    lines += [[(x - 0.5, y - 0.5), (x - 0.5, y + 0.5)] for y, x in along]
    ax.add_collection(LineCollection(lines, colors=color, linewidths=1.6, capstyle="projecting"))
    ax.set(xlim=(-0.6, width - 0.4), ylim=(height - 0.4, -0.6))


def _channels(ax: Axes, row: xr.DataArray, mode: Any) -> None:
    """Draw the weights of the channels, both signs."""
    place = np.arange(row.sizes["channel"])
    parts = {"": row} if "sign" not in row.dims else {
        str(sign): row.sel(sign=sign) for sign in row["sign"].values
    }  # fmt: skip
    width = 0.8 / len(parts)
    for i, (name, part) in enumerate(parts.items()):
        color = {"positive": VERMILION, "negative": BLUE}.get(name, BLACK)
        label = {"positive": "helping part", "negative": "hindering part"}.get(name)
        at = place + width * (i - (len(parts) - 1) / 2)
        ax.bar(at, part.values, width, color=color, label=label)
    ax.axhline(0, color=BLACK, linewidth=0.7)
    ax.set(xlabel="channel", ylabel="weight in the mode", title=f"mode {mode}")
    if len(parts) > 1:
        ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.1,
                  handlelength=1)  # fmt: skip
    settle_ticks(ax)


def _categories(ax: Axes, found: xr.Dataset, most: int) -> None:
    """Draw the best categories and nodes, significant ones filled."""
    r = found["r"].values
    order = np.argsort(-np.nan_to_num(r, nan=-np.inf), kind="stable")
    order = order[np.isfinite(r[order])][:most]
    with np.errstate(invalid="ignore"):
        sure = (found["q_value"].values[order] < SIGNIFICANT) & (r[order] > 0)
    ax.barh(np.arange(len(order)), r[order], 0.7, color=np.where(sure, BLACK, "#BBBBBB"))
    mark_rows(ax, found["node"].values[order])
    ax.invert_yaxis()
    ax.axvline(0, color=BLACK, linewidth=0.7)
    ax.set(xlabel=f"r with category (black: q < {SIGNIFICANT:g})")
    settle_ticks(ax, axis="x")


def _checked(data: Any, needed: Any, argument: str, source: str) -> xr.Dataset:
    if isinstance(data, xr.DataTree):
        data = data.to_dataset()
    if not isinstance(data, xr.Dataset):
        raise TypeError(
            f"{argument} is a {type(data).__name__}; expected the Dataset of retina_codec.{source}"
        )
    for name in needed:
        if name not in data.variables:
            raise ValueError(
                f"{argument} has no {name!r}; {nearest_names(name, data.variables)}; expected the "
                f"Dataset of retina_codec.{source}"
            )
    return data
