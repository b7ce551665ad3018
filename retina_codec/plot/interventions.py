"""What is lost when something is silenced: curves over channels, and effects on responses."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from retina_codec.plot.style import (
    BLUE,
    GREY,
    LABEL_COLORS,
    PALETTE,
    VERMILION,
    axes_for,
    legend_beside,
    mark_columns,
    styled,
)

GROUP_COLORS = {"target": VERMILION, "off_target": BLUE}
GROUP_NAMES = {"target": "target", "off_target": "off target"}


@styled
def ablation_curve(curve: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw what is left of target and off-target responses while channels are silenced.

    Parameters
    ----------
    curve : Dataset
        As from `retina_codec.ablation_curve`.
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Axes
        Mean ratio after / before of each group with its interval; dashed, the mean over random
        orders, with their range.

    Raises
    ------
    TypeError, ValueError
        If `curve` is no result of `ablation_curve`, or `ax` no Axes.

    Examples
    --------
    >>> import xarray as xr
    >>> from retina_codec import plot
    >>> ratio = (("group", "count"), [[0.5, 0.1], [0.9, 0.8]])
    >>> names = ("mean_ratio", "mean_ratio_low", "mean_ratio_high")
    >>> curve = xr.Dataset(
    ...     dict.fromkeys(names, ratio), {"group": ["target", "off_target"], "count": [1, 2]}
    ... )
    >>> plot.ablation_curve(curve).get_ylabel()
    'after / before'
    """
    _require(curve, "curve", ("mean_ratio", "mean_ratio_low", "mean_ratio_high"), "ablation_curve")
    ax = axes_for(ax, (6.0, 3.6))
    step = "percentage" if "percentage" in curve.dims else "count"
    x = curve[step].values
    ax.axhline(1.0, color=GREY, linewidth=0.8)
    for group, color in GROUP_COLORS.items():
        one = curve.sel(group=group)
        ax.fill_between(
            x, one["mean_ratio_low"], one["mean_ratio_high"], color=color, alpha=0.2, linewidth=0
        )
        ax.plot(x, one["mean_ratio"], "o-", color=color, markersize=4, label=GROUP_NAMES[group])
        if "random_ratio" in curve:
            random = one["random_ratio"]
            mean = random.mean([dim for dim in random.dims if dim not in ("draw", step)])
            there = np.isfinite(mean.mean("draw").values)
            centre = mean.mean("draw").values[there]
            ends = np.stack([mean.min("draw").values[there], mean.max("draw").values[there]])
            ax.errorbar(
                x[there], centre, np.abs(ends - centre), color=color, linestyle="--", linewidth=1,
                capsize=2, alpha=0.7, label=f"{GROUP_NAMES[group]}, random",
            )  # fmt: skip
    kept = json.loads(curve.attrs.get("parameters", "{}")).get("preserve", False)
    what = f"{'preserved' if kept else 'silenced'} channels"
    ax.set_xlabel(f"{what} (%)" if step == "percentage" else what)
    ax.set_ylabel("after / before")
    ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
    legend_beside(ax)
    return ax


@styled
def silencing_effects(effects: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw how much of each response is lost, beside random units of equal contribution.

    Parameters
    ----------
    effects : Dataset
        As from `retina_codec.interventions.silencing_effects`.
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Axes
        For each thing silenced, the mean loss over cells of each response with its interval; grey
        points beside it are the controls.

    Raises
    ------
    TypeError, ValueError
        If `effects` is no result of `silencing_effects`, or `ax` no Axes.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from retina_codec import plot
    >>> loss = (("silenced", "response"), np.ones((1, 2)))
    >>> names = ("mean_loss", "mean_loss_low", "mean_loss_high")
    >>> effects = xr.Dataset(
    ...     dict.fromkeys(names, loss), {"silenced": ["mode 0"], "response": ["light", "motion"]}
    ... )
    >>> plot.silencing_effects(effects).get_ylabel()
    'loss of the response'
    """
    _require(effects, "effects", ("mean_loss", "mean_loss_low", "mean_loss_high"),
             "interventions.silencing_effects")  # fmt: skip
    silenced = effects["silenced"].values
    responses = effects["response"].values
    ax = axes_for(ax, (2.5 + 0.5 * len(silenced) * len(responses), 3.6))
    ax.axhline(0.0, color=GREY, linewidth=0.8)
    width = 0.8 / len(responses)
    for place, response in enumerate(responses):
        color = LABEL_COLORS.get(str(response), PALETTE[place % len(PALETTE)])
        x = np.arange(len(silenced)) + (place - (len(responses) - 1) / 2) * width
        one = effects.sel(response=response)
        mean = one["mean_loss"].values
        ends = np.stack([mean - one["mean_loss_low"], one["mean_loss_high"] - mean])
        ax.errorbar(
            x - 0.1 * width, mean, np.maximum(ends, 0), fmt="o", color=color, capsize=3,
            markersize=5, label=f"{response} responses",
        )  # fmt: skip
        if "mean_control_loss" in one:
            random = one["mean_control_loss"].transpose("draw", "silenced").values
            places = np.broadcast_to(x + 0.2 * width, random.shape)
            ax.plot(
                places.ravel(), random.ravel(), ".", color=GREY, markersize=4,
                label="random units" if place == len(responses) - 1 else None,
            )  # fmt: skip
    mark_columns(ax, [str(name) for name in silenced])
    ax.set_xlim(-0.5, len(silenced) - 0.5)
    ax.set_ylabel("loss of the response")
    legend_beside(ax)
    return ax


def _require(value: object, argument: str, names: tuple[str, ...], maker: str) -> None:
    if not isinstance(value, xr.Dataset):
        raise TypeError(f"{argument} is a {type(value).__name__}; expected an xarray.Dataset")
    missing = [name for name in names if name not in value]
    if missing:
        raise ValueError(
            f"{argument} has no {missing[0]!r}; expected the result of retina_codec.{maker}"
        )
