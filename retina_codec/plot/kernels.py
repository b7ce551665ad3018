"""Kernels of a convolution over space and history."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from retina_codec.models.model import RetinaModel
from retina_codec.plot.style import (
    BLACK,
    BLUE,
    DIVERGING,
    GREY,
    PALETTE,
    figure_for,
    settle_ticks,
    styled,
)

IN_A_ROW = 8
LAG_LABEL = "before the response (ms)"


@styled
def filters(
    model: RetinaModel, *, layer: str, figure: Figure | SubFigure | None = None
) -> np.ndarray:
    """Draw the kernel of every channel: its space and its time course.

    The kernel (lag, color, y, x) is approximated by one map in space times one time course, its
    first singular pair; the share of its energy that the pair has is written above. The sign is
    such that the strongest pixel is positive: a time course that is positive shortly before the
    response prefers light there (ON).

    Parameters
    ----------
    model : RetinaModel
        A model with such a layer.
    layer : str
        Name of a layer whose module has ``weight`` (channel, history, color, y, x) in time order,
        the last frame lag 0, such as `BNCNN`'s ``"conv1"`` or `LN`'s ``"filter"``.
    figure : matplotlib Figure or SubFigure, optional
        Where to draw; by default a new one.

    Returns
    -------
    ndarray of matplotlib Axes
        (channel, color + 1): one map a colour plane, the time course last. Kernels of one pixel
        have no map: (channel, 1), with a line for each colour plane.

    Raises
    ------
    TypeError
        If `model` or `figure` is of another type.
    ValueError
        If there is no such layer, or its weight has other dims.

    Examples
    --------
    >>> import retina_codec as rc
    >>> from retina_codec import plot
    >>> model = rc.models.BNCNN((12, 12), history=20, bin_width=0.01, cells=["C1"])
    >>> plot.filters(model, layer="conv1").shape
    (8, 2)
    """
    if not isinstance(model, RetinaModel):
        raise TypeError(
            f"model is a {type(model).__name__}; expected a RetinaModel, such as rc.models.BNCNN"
        )
    weight = getattr(model.layer(layer), "weight", None)
    if weight is None or weight.ndim != 5:
        shape = "no weight" if weight is None else f"a weight of shape {tuple(weight.shape)}"
        fitting = [
            name
            for name, module in model.layers.items()
            if getattr(getattr(module, "weight", None), "ndim", 0) == 5
        ]
        raise ValueError(
            f"layer={layer!r} has {shape}; expected a layer with a weight (channel, history, "
            f"color, y, x): {', '.join(fitting) or 'this model has none'}"
        )
    kernels = weight.detach().double().cpu().numpy()
    names = [str(name) for name in model.channels.get(layer, np.arange(len(kernels)))]
    lags = 1000 * model.bin_width * np.arange(kernels.shape[1])[::-1]
    spatial = kernels.shape[-2:] != (1, 1)
    grid = panel_grid(figure, len(kernels), kernels.shape[2] + 1 if spatial else 1)
    for kernel, name, panels in zip(kernels, names, grid, strict=True):
        if spatial:
            _separated(panels, kernel, lags, name)
        else:
            _time_courses(panels[0], kernel[:, :, 0, 0], lags, name)
    limit = 1.08 * max(float(np.abs(panels[-1].dataLim.intervaly).max()) for panels in grid)
    for panels in grid:
        panels[-1].set_ylim(-limit or -1, limit or 1)
    return grid


def separated(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Map (color, y, x) and time course (lag) of a kernel (lag, color, y, x), and their share.

    The map's strongest pixel is 1; the share is that of the kernel's squared norm.
    """
    left, strength, right = np.linalg.svd(kernel.reshape(len(kernel), -1), full_matrices=False)
    if strength[0] == 0:  # no direction is the strongest: nothing is drawn
        return np.zeros(kernel.shape[1:]), np.zeros(len(kernel)), 0.0
    space = right[0]
    strongest = space[np.abs(space).argmax()]
    total = float((strength**2).sum())
    share = float(strength[0] ** 2) / total
    course = left[:, 0] * strength[0] * strongest
    return (space / strongest).reshape(kernel.shape[1:]), course, share


def panel_grid(figure: Figure | SubFigure | None, n: int, n_panels: int) -> np.ndarray:
    """Axes (channel, panel): channels side by side in rows of eight, panels below each other."""
    columns = min(n, IN_A_ROW)
    rows = -(-n // columns)
    size = (max(4.0, 1.3 * columns + 0.8), rows * (1.25 * n_panels + 0.5) + 0.4)
    figure = figure_for(figure, size)
    axes = figure.subplots(rows * n_panels, columns, squeeze=False)
    axes = axes.reshape(rows, n_panels, columns).transpose(0, 2, 1).reshape(-1, n_panels)
    for unused in axes[n:].ravel():
        unused.remove()
    for place, panels in enumerate(axes[:n]):
        for ax in panels:
            settle_ticks(ax, 8)
        time = panels[-1]
        time.axhline(0, color=GREY, linewidth=0.6)
        # Names of the axes once, at the first channel.
        if place == 0:
            time.set_xlabel(LAG_LABEL, fontsize=9, loc="left")
            time.set_ylabel("weight", fontsize=9)
        if place % columns:
            time.tick_params(labelleft=False)
    return axes[:n]


def _separated(panels: Any, kernel: np.ndarray, lags: np.ndarray, name: str) -> None:
    space, course, share = separated(kernel)
    limit = float(np.abs(space).max()) or 1.0
    for ax, plane in zip(panels[:-1], space, strict=True):
        ax.imshow(plane, cmap=DIVERGING, vmin=-limit, vmax=limit, interpolation="nearest")
        ax.set_axis_off()
    panels[0].set_title(f"{name}: {100 * share:.0f} %", fontsize=9, loc="center")
    panels[-1].plot(lags, course, color=BLACK)
    run_to_response(panels[-1], lags)


def _time_courses(ax: Axes, courses: np.ndarray, lags: np.ndarray, name: str) -> None:
    for color, course in zip(PALETTE if courses.shape[1] > 1 else (BLUE,), courses.T, strict=False):
        ax.plot(lags, course, color=color)
    ax.set_title(name, fontsize=9, loc="center")
    run_to_response(ax, lags)


def run_to_response(ax: Axes, lags: np.ndarray) -> None:
    """Let time run to the right, up to the response at 0."""
    longest = float(lags.max()) or 1.0
    ax.set_xlim(longest, 0)
    ax.set_xticks([longest / 2, 0] if longest < 10 else [round(longest / 2, -1), 0])
