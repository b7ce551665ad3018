"""What all pictures share: colours, font sizes, labels with units, and where they are drawn."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch

P = ParamSpec("P")
R = TypeVar("R")

# Okabe & Ito's palette, which colour-blind readers can tell apart, without its pale yellow.
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
SKY, ORANGE, BLACK, GREY = "#56B4E9", "#E69F00", "#000000", "#767676"
PALE = "#D9D9D9"
PALETTE = (BLUE, VERMILION, GREEN, PURPLE, SKY, ORANGE, BLACK)

# What a mode carries; "none" is a label of its own.
LABEL_COLORS = {"light": VERMILION, "motion": BLUE, "mixed": "#A6438F", "none": GREY}

DIVERGING = "RdBu_r"
SEQUENTIAL = "bone_r"

LETTER = 0.08  # inches that a letter of a tick label takes
OUTLIER = 1.5  # of the 99.8th percentile

_OFF_SCREEN: ContextVar[bool] = ContextVar("off_screen", default=False)

_STYLE = {
    "font.size": 10,
    "axes.labelsize": 10,
    "axes.titlesize": 11,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "lines.linewidth": 1.5,
    "figure.dpi": 100,
}


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Run a plot function under the shared style; the caller's rcParams stay as they were."""

    @functools.wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        # Not rc_context, which also undoes what the first figure sets up in a notebook.
        before = {name: mpl.rcParams[name] for name in _STYLE}
        mpl.rcParams.update(_STYLE)
        try:
            return draw(*args, **kwargs)
        finally:
            mpl.rcParams.update(before)

    return wrapper


@contextmanager
def off_screen() -> Iterator[None]:
    """Make new figures that pyplot does not know of, so that none is shown or has to be closed."""
    token = _OFF_SCREEN.set(True)
    try:
        yield
    finally:
        _OFF_SCREEN.reset(token)


def new_figure(size: tuple[float, float]) -> Figure:
    """Return a figure of `size` inches that gives labels the room they need."""
    make = Figure if _OFF_SCREEN.get() else plt.figure
    return make(figsize=size, layout="constrained")


def axes_for(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """Return `ax`, or new Axes on a figure of `size` inches; TypeError if it is something else."""
    if ax is None:
        ax = new_figure(size).subplots()
    elif not isinstance(ax, Axes):
        raise TypeError(
            f"ax is a {type(ax).__name__}; expected one matplotlib Axes, or None for a new figure"
        )
    settle_ticks(ax)
    return ax


def figure_for(figure: Figure | SubFigure | None, size: tuple[float, float]) -> Figure | SubFigure:
    """Return `figure`, or a new one of `size` inches; TypeError if it is something else."""
    if figure is None:
        return new_figure(size)
    if not isinstance(figure, Figure | SubFigure):
        raise TypeError(
            f"figure is a {type(figure).__name__}; expected a matplotlib Figure or SubFigure, or "
            "None for a new one"
        )
    return figure


def settle_ticks(ax: Any, size: float | None = None, axis: str = "both") -> None:
    """Fix the size of tick labels, which matplotlib would read from rcParams when it draws."""
    ax.tick_params(axis=axis, labelsize=size or _STYLE["xtick.labelsize"])


def bar_size(n_cells: int) -> tuple[float, float]:
    """Inches for bars over `n_cells` cells."""
    return float(np.clip(2.5 + 0.42 * n_cells, 5, 16)), 3.6


def heat_size(n_rows: int, n_columns: int) -> tuple[float, float]:
    """Inches for a heat map whose rows and columns carry labels."""
    return (
        float(np.clip(2.8 + 0.3 * n_columns, 5, 16)),
        float(np.clip(1.8 + 0.2 * n_rows, 3, 14)),
    )


def label_of(data: xr.DataArray, name: str = "", units: str = "") -> str:
    """Axis label: `name` (or the data's long name), and its units unless they are ``"1"``."""
    name = name or str(data.attrs.get("long_name", data.name or "value"))
    units = units or str(data.attrs.get("units", "1"))
    return name if units in ("", "1") else f"{name} ({units})"


def color_limits(values: np.ndarray) -> tuple[dict[str, Any], str]:
    """Colour map and limits for `values`, and which ends of the colour bar get an arrow.

    Signed values get a diverging map that is symmetric about 0, others a sequential one from 0.
    The limit is the largest magnitude. Where that is an outlier, it is the 99.8th percentile of
    those that are not 0, so that the rest is not bleached; arrows on the colour bar then say
    that values lie beyond it.
    """
    known = np.abs(values[np.isfinite(values) & (values != 0)])
    largest = limit = float(known.max()) if known.size else 1.0
    if known.size and largest > OUTLIER * np.percentile(known, 99.8):
        limit = float(np.percentile(known, 99.8))
    clipped = largest > limit
    if (values < 0).any():
        return {"cmap": DIVERGING, "vmin": -limit, "vmax": limit}, "both" if clipped else "neither"
    return {"cmap": SEQUENTIAL, "vmin": 0.0, "vmax": limit}, "max" if clipped else "neither"


def heat_map(
    ax: Axes, values: np.ndarray, label: str, *, symmetric: bool = False, side: str = "right"
) -> Any:
    """Draw a heat map (row, column) with its colour bar; `symmetric` even if nothing is negative.

    Missing values (NaN) are left pale grey.
    """
    colors, extend = color_limits(values)
    if symmetric and colors["vmin"] == 0:
        colors = {"cmap": DIVERGING, "vmin": -colors["vmax"], "vmax": colors["vmax"]}
    ax.set_facecolor(PALE)
    image = ax.imshow(values, aspect="auto", interpolation="nearest", **colors)
    color_bar(ax, image, label, extend, side)
    for spine in ax.spines.values():
        spine.set_visible(False)
    return image


def color_bar(
    ax: Axes, image: Any, label: str, extend: str = "neither", side: str = "right"
) -> None:
    """Add a colour bar at the "right", or at the "top" where labels take the right."""
    # Only a layout engine knows how much room the headings above a heat map take.
    engine = getattr(ax.figure, "get_layout_engine", lambda: None)()
    pad = 0.1 if side == "top" and engine is None else 0.02
    aspect = 40 if side == "top" else 30
    bar = ax.figure.colorbar(
        image, ax=ax, label=label, extend=extend, pad=pad, aspect=aspect, location=side
    )
    bar.outline.set_visible(False)
    settle_ticks(bar.ax)


def mark_rows(ax: Axes, names: Iterable[Any], *, fewer: bool = False) -> None:
    """Write `names` at the rows 0, 1, 2 ...; if `fewer`, as many as can be read."""
    names = [str(name) for name in names]
    _mark(ax.yaxis, names, 60 if fewer else len(names))
    settle_ticks(ax, 8 if len(names) > 12 else None, "y")


def mark_columns(ax: Axes, names: Iterable[Any], *, fewer: bool = False) -> None:
    """Write `names` at the columns 0, 1, 2 ...; upright where they would collide."""
    names = [str(name) for name in names]
    _mark(ax.xaxis, names, 60 if fewer else len(names))
    longest = max((len(line) for name in names for line in name.splitlines()), default=0)
    inches = ax.get_window_extent().width / ax.figure.dpi / max(len(names), 1)
    if LETTER * (longest + 1) > inches and longest > 1:
        ax.tick_params(axis="x", labelrotation=90)
    settle_ticks(ax, 8 if len(names) > 24 else None, "x")


def _mark(axis: Any, names: list[str], most: int) -> None:
    step = -(-len(names) // max(most, 1)) or 1
    axis.set_ticks(range(0, len(names), step), names[::step])
    axis.set_tick_params(length=0)


def color_key(ax: Axes, colors: Iterable[tuple[str, str]], **options: Any) -> None:
    """Legend of coloured squares: (name, colour) pairs."""
    ax.legend(handles=[Patch(color=color, label=name) for name, color in colors], **options)


def legend_beside(ax: Axes, **options: Any) -> None:
    """Legend to the right of the Axes, where it hides nothing."""
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0, **options)
