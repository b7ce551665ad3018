"""The stimulus that was found by gradient, and how it was found."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure, SubFigure

from retina_codec._common.checks import require_count
from retina_codec.plot.style import BLUE, GREY, figure_for, label_of, settle_ticks, styled


@styled
def optimized_stimulus(
    found: xr.Dataset, *, n: int = 6, figure: Figure | SubFigure | None = None
) -> np.ndarray:
    """Draw an optimised stimulus beside the history of its objective.

    Parameters
    ----------
    found : Dataset
        As from `retina_codec.optimize_stimulus`; colour planes of a movie are averaged.
    n : int
        Frames of a movie, at equal distances.
    figure : matplotlib Figure or SubFigure, optional
        Where to draw; by default a new one.

    Returns
    -------
    ndarray of matplotlib Axes
        Frames of the movie, or one image, then the history: a line a restart, and in grey the
        best of random stimuli.

    Raises
    ------
    TypeError
        If `found` is something else.

    Examples
    --------
    >>> import numpy as np, retina_codec as rc, xarray as xr
    >>> found = xr.Dataset(
    ...     {"stimulus": (("time", "y", "x"), np.zeros((5, 3, 3))),
    ...      "objective": (("restart", "step"), np.ones((2, 4))),
    ...      "random_objective": ("draw", np.zeros(3))},
    ...     {"time": np.arange(5) * 0.01},
    ... )
    >>> len(rc.plot.optimized_stimulus(found, n=3))
    4
    """
    if not isinstance(found, xr.Dataset) or not {"stimulus", "objective"} <= set(found):
        raise TypeError("found is no result of retina_codec.optimize_stimulus")
    stimulus = found["stimulus"]
    frames, titles = [stimulus], ["best image"]
    if "time" in stimulus.dims:
        movie = stimulus.mean("color") if "color" in stimulus.dims else stimulus
        last = movie.sizes["time"] - 1
        places = np.unique(np.linspace(0, last, require_count(n, 1, "n")).round().astype(int))
        frames = [movie.isel(time=int(i)) for i in places]
        before = 1000 * (movie["time"].values[-1] - movie["time"].values[places])
        titles = [f"-{ms:.0f} ms" if ms > 0 else "0 ms" for ms in before]
    colors = "color" in frames[0].dims
    low, high = float(stimulus.min()), float(stimulus.max())
    figure = figure_for(figure, (1.35 * len(frames) + 4.0, 2.7))
    axes = figure.subplots(
        1, len(frames) + 1, squeeze=False, width_ratios=[1] * len(frames) + [2.2]
    )[0]
    for ax, frame, title in zip(axes, frames, titles, strict=False):
        if colors and frame.sizes["color"] == 3:
            ax.imshow(np.clip(frame.transpose("y", "x", "color").values, 0, 1))
        else:
            plane = frame.mean("color") if colors else frame
            image = ax.imshow(plane.values, cmap="gray", vmin=low, vmax=high)
        ax.set_axis_off()
        ax.set_title(title, fontsize=9, loc="center")
    if not (colors and frames[0].sizes["color"] == 3):
        bar = figure.colorbar(
            image, ax=list(axes[:-1]), label=label_of(stimulus, "stimulus"), pad=0.01, aspect=15
        )
        settle_ticks(bar.ax, 8)
    ax = axes[-1]
    ax.plot(found["objective"].values.T, color=BLUE, linewidth=1)
    if "random_objective" in found:
        best = float(found["random_objective"].max())
        ax.axhline(best, color=GREY, linestyle="--", linewidth=1)
        ax.set_title(
            f"dashed: best of {found.sizes['draw']} random", fontsize=8, color=GREY, loc="left"
        )
    ax.set_xlabel("step")
    ax.set_ylabel(label_of(found["objective"], "objective"))
    settle_ticks(ax)
    return axes
