"""How many modes: what a size and a sparsity gain, and how stable they are."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure, SubFigure

from retina_codec.plot.style import BLACK, GREY, PALETTE, figure_for, legend_beside, styled

PANELS = (
    ("r2", "held-out R2"),
    ("stability", "stability over seeds"),
    ("l0", "active modes per sample"),
)


@styled
def mode_choice(curve: xr.Dataset, *, figure: Figure | SubFigure | None = None) -> np.ndarray:
    """Draw the trade-off that `retina_codec.choose_modes` found, and the point it recommends.

    Parameters
    ----------
    curve : Dataset
        As from `retina_codec.choose_modes`.
    figure : matplotlib Figure or SubFigure, optional
        Where to draw; by default a new figure.

    Returns
    -------
    numpy.ndarray of Axes
        Held-out R2, stability and mean number of active modes over the number of modes, one line
        for each `k`. Small points are single seeds; a ring marks what is recommended.

    Raises
    ------
    TypeError
        If `curve` or `figure` is of another type.
    ValueError
        If `curve` is no result of `choose_modes`.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from retina_codec import plot
    >>> dims = ("n_modes", "k", "seed")
    >>> curve = xr.Dataset(
    ...     {"r2": (dims, np.ones((2, 1, 2))), "l0": (dims, np.ones((2, 1, 2))),
    ...      "stability": (dims[:2], np.ones((2, 1)))},
    ...     {"n_modes": [8, 16], "k": [2], "seed": [0, 1]},
    ...     {"recommended_n_modes": 8, "recommended_k": 2},
    ... )
    >>> [ax.get_ylabel() for ax in plot.mode_choice(curve)]
    ['held-out R2', 'stability over seeds', 'active modes per sample']
    """
    if not isinstance(curve, xr.Dataset):
        raise TypeError(f"curve is a {type(curve).__name__}; expected an xarray.Dataset")
    missing = [name for name, _ in PANELS if name not in curve]
    missing += [name for name in ("n_modes", "k", "seed") if name not in curve.coords]
    missing += [n for n in ("recommended_n_modes", "recommended_k") if n not in curve.attrs]
    if missing:
        raise ValueError(
            f"curve has no {missing[0]!r}; expected the result of retina_codec.choose_modes"
        )
    figure = figure_for(figure, (10.0, 3.2))
    axes = np.atleast_1d(figure.subplots(1, len(PANELS)))
    sizes = curve["n_modes"].values
    best = {"n_modes": curve.attrs["recommended_n_modes"], "k": curve.attrs["recommended_k"]}
    for ax, (name, label) in zip(axes, PANELS, strict=True):
        by_seed = "seed" in curve[name].dims
        mean = curve[name].mean("seed") if by_seed else curve[name]
        for place, k in enumerate(curve["k"].values):
            color = PALETTE[place % len(PALETTE)]
            if by_seed:
                single = curve[name].sel(k=k).transpose("n_modes", "seed").values
                ax.plot(sizes, single, ".", color=color, markersize=3, alpha=0.6)
            ax.plot(sizes, mean.sel(k=k), "o-", color=color, markersize=4, label=f"k = {k:g}")
        ax.plot(
            best["n_modes"], mean.sel(best), "o", markersize=11, markerfacecolor="none",
            markeredgecolor=BLACK, label="recommended",
        )  # fmt: skip
        if name == "stability" and "min_stability" in curve.attrs:
            ax.axhline(curve.attrs["min_stability"], color=GREY, linestyle="--", linewidth=1)
        ax.set_xscale("log", base=2)
        ax.set_xticks(sizes, [f"{size:g}" for size in sizes])
        ax.set(xlabel="number of modes", ylabel=label)
        if name != "l0":
            ax.set_ylim(top=1.02)
        else:
            ax.set_ylim(0, 1.1 * float(curve[name].max()))  # room for the ring
    legend_beside(axes[-1])
    return axes
