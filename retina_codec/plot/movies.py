"""Frames of a stimulus."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.figure import Figure, SubFigure

from retina_codec._common.checks import require_count, require_dims
from retina_codec.plot.style import figure_for, label_of, settle_ticks, styled


@styled
def movie_frames(
    stimulus: xr.DataArray,
    *,
    times: Sequence[float] | None = None,
    n: int = 6,
    figure: Figure | SubFigure | None = None,
) -> np.ndarray:
    """Draw a row of frames of a movie.

    Parameters
    ----------
    stimulus : DataArray
        Movie (time, [color,] y, x); colour planes are averaged.
    times : sequence of float, optional
        When, in seconds: the frame shown at each of these times. By default `n` frames at equal
        distances.
    n : int
        Number of frames if `times` is not given.
    figure : matplotlib Figure or SubFigure, optional
        Where to draw; by default a new one.

    Returns
    -------
    ndarray of matplotlib Axes
        One a frame, all on one grey scale; titled with the onset of the frame and, where the
        movie has the coordinate `epoch`, what it shows.

    Raises
    ------
    TypeError
        If `stimulus` or `figure` is of another type.
    ValueError
        If dims are missing, or a time is outside the movie.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from retina_codec import plot
    >>> movie = xr.DataArray(
    ...     np.zeros((9, 4, 4)), {"time": np.arange(9) * 0.01}, ("time", "y", "x")
    ... )
    >>> [ax.get_title() for ax in plot.movie_frames(movie, times=[0.02, 0.055])]
    ['0.02 s', '0.05 s']
    """
    movie = require_dims(stimulus, ("time", "color", "y", "x"), "stimulus", optional=("color",))
    if movie.sizes["time"] == 0 or "time" not in movie.coords:
        raise ValueError("stimulus has no frames with a coordinate 'time' in seconds")
    onsets = movie["time"].values
    if times is None:
        n = min(require_count(n, 1, "n"), len(onsets))
        places = np.linspace(0, len(onsets) - 1, n).round().astype(int)
    else:
        wanted = np.atleast_1d(np.asarray(times, dtype=float))
        outside = wanted[(wanted < onsets[0]) | ~(wanted <= onsets[-1])]
        if wanted.size == 0 or outside.size:
            raise ValueError(
                f"times={list(times)} must be one or more times in seconds from {onsets[0]:g} to "
                f"{onsets[-1]:g}, the span of the stimulus"
            )
        # A rounding error must not give the frame before.
        places = np.searchsorted(onsets, wanted + 1e-9, side="right") - 1
    frames = movie.isel(time=places)
    if "color" in frames.dims:
        frames = frames.mean("color", keep_attrs=True)
    low, high = float(frames.min()), float(frames.max())
    figure = figure_for(figure, (1.7 * len(places) + 1.0, 2.5))
    axes = figure.subplots(1, len(places), squeeze=False)[0]
    for ax, frame in zip(axes, frames, strict=True):
        image = ax.imshow(frame.values, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        ax.set_axis_off()
        epoch = f"\n{frame['epoch'].item()}" if "epoch" in frame.coords else ""
        ax.set_title(f"{frame['time'].item():.2f} s{epoch}", fontsize=9, loc="center")
    bar = figure.colorbar(image, ax=axes, label=label_of(movie, "stimulus"), pad=0.01, aspect=15)
    settle_ticks(bar.ax)
    return axes
