"""Whether a stimulus is what was shown: evidence, lag and frame marks over time."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from retina_codec._common.checks import nearest_names
from retina_codec.plot.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PALE,
    PURPLE,
    SKY,
    VERMILION,
    figure_for,
    legend_beside,
    settle_ticks,
    styled,
)

NEEDED = ("start", "stop", "correlation_pooled", "best_lag", "evidence", "kind", "alarm")
KINDS = {
    "not_followed": ("spikes do not follow", VERMILION),
    "repeat_not_followed": ("repeat does not follow", VERMILION),
    "plan": ("frozen frames are wrong", VERMILION),
    "shift": ("file is shifted", ORANGE),
    "repeat_shift": ("repeat is shifted", ORANGE),
    "drift": ("clocks drift", PURPLE),
    "offset": ("spikes are offset", PURPLE),
    "weakly_followed": ("follows otherwise", SKY),
}
TITLE_LETTERS = 95


@styled
def alignment(result: xr.Dataset, *, figure: Figure | SubFigure | None = None) -> np.ndarray:
    """Draw what `retina_codec.check_alignment` found, over the time of the recording.

    Parameters
    ----------
    result : Dataset
        As from `retina_codec.check_alignment`.
    figure : matplotlib Figure or SubFigure, optional
        Where to draw; by default a new figure.

    Returns
    -------
    numpy.ndarray of Axes
        From above: correlation of drive and spikes with its expected range, evidence beside what
        is expected, best lag with its standard error, and, where the recording has frame marks,
        their intervals. What was found is shaded.

    Raises
    ------
    TypeError
        If `result` or `figure` is of another type.
    ValueError
        If `result` is no result of `check_alignment`.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from retina_codec._common.time import time_coordinate
    >>> from retina_codec.plot.alignment import alignment
    >>> from retina_codec.recordings.alignment import check_alignment
    >>> rng = np.random.default_rng(0)
    >>> flicker = rng.normal(size=6000)
    >>> node = xr.Dataset(
    ...     {
    ...         "stimulus": (("time", "y", "x"), flicker[:, None, None]),
    ...         "spike_count": (("time", "cell"), rng.poisson(np.exp(flicker - 1))[:, None]),
    ...     },
    ...     coords={"time": time_coordinate(np.arange(6000) * 0.01, 0.01), "cell": ["C1"]},
    ... )
    >>> axes = alignment(check_alignment(node))
    >>> axes[-1].get_xlabel()
    'time (s)'
    """
    result = _checked(result)
    marks = "interval" in result
    n_rows = 4 if marks else 3
    figure = figure_for(figure, (9.5, 1.9 * n_rows + 0.8))
    axes: np.ndarray = figure.subplots(n_rows, 1, sharex=True, squeeze=False)[:, 0]
    for ax in axes:
        settle_ticks(ax)
    _draw_correlation(axes[0], result)
    _draw_evidence(axes[1], result)
    _draw_lag(axes[2], result)
    if marks:
        _draw_intervals(axes[3], result)
    _shade(axes, result)
    for ax in axes:
        handles, _ = ax.get_legend_handles_labels()
        if handles:
            legend_beside(ax)
    axes[-1].set_xlabel("time (s)")
    axes[0].set_xlim(float(result["start"].min()), float(result["stop"].max()))
    axes[0].set_title(_title(result))
    return axes


def _title(result: xr.Dataset) -> str:
    """Verdict and the first words of the reason."""
    text = f"{result.attrs['verdict']}: {result.attrs['reason']}"
    if len(text) > TITLE_LETTERS:
        text = text[:TITLE_LETTERS].rsplit(" ", 1)[0] + " ..."
    return text


def _checked(result: Any) -> xr.Dataset:
    if not isinstance(result, xr.Dataset):
        raise TypeError(
            f"result is a {type(result).__name__}; expected the xarray.Dataset of "
            "retina_codec.check_alignment"
        )
    for name in NEEDED:
        if name not in result:
            raise ValueError(
                f"result has no {name!r}; {nearest_names(name, result.data_vars)}: expected the "
                "result of retina_codec.check_alignment"
            )
    if "verdict" not in result.attrs:
        raise ValueError(
            "result has no attrs['verdict']; expected the result of retina_codec.check_alignment"
        )
    return result


def _middles(result: xr.Dataset) -> np.ndarray:
    return (result["start"].values + result["stop"].values) / 2


def _by_source(result: xr.Dataset) -> list[tuple[str, np.ndarray, Any]]:
    """Label, rows and colour of what was shown once and of what was repeated."""
    repeated = result["segment_repeat"].values >= 0
    kinds = [("shown once", ~repeated, BLUE), ("repeats", repeated, GREEN)]
    return [(label, rows, color) for label, rows, color in kinds if rows.any()]


def _draw_correlation(ax: Axes, result: xr.Dataset) -> None:
    at, values = _middles(result), result["correlation_pooled"].values
    low, high = result["correlation_low"].values, result["correlation_high"].values
    for label, rows, color in _by_source(result):
        ax.plot(at[rows], values[rows], "o", color=color, markersize=3, label=label)
        known = rows & np.isfinite(low)
        if known.any():
            edges = np.c_[result["start"].values, result["stop"].values][known].ravel()
            ax.fill_between(
                edges,
                np.repeat(low[known], 2),
                np.repeat(high[known], 2),
                color=color,
                alpha=0.18,
                linewidth=0,
                label="expected range",
            )
    ax.axhline(0, color=GREY, linewidth=0.8)
    ax.set_ylabel("correlation of\ndrive and spikes")


def _draw_evidence(ax: Axes, result: xr.Dataset) -> None:
    at = _middles(result)
    for label, rows, color in _by_source(result):
        ax.plot(
            at[rows], result["evidence"].values[rows], "o", color=color, markersize=3, label=label
        )
        ax.plot(
            at[rows],
            result["expected_evidence"].values[rows],
            "_",
            color=GREY,
            markersize=4,
            label="expected",
        )
    ax.axhline(0, color=GREY, linewidth=0.8)
    ax.set_ylabel("evidence as filed\n(nats a segment)")


def _draw_lag(ax: Axes, result: xr.Dataset) -> None:
    at = _middles(result)
    lag, error = 1e3 * result["best_lag"].values, 1e3 * result["best_lag_error"].values
    for label, rows, color in _by_source(result):
        ax.errorbar(
            at[rows],
            lag[rows],
            error[rows],
            fmt="o",
            color=color,
            markersize=3,
            elinewidth=0.8,
            label=label,
        )
    ax.axhline(0, color=GREY, linewidth=0.8)
    if not np.isfinite(lag).any():
        ax.text(0.5, 0.5, "no lag is told", transform=ax.transAxes, ha="center", color=GREY)
    ax.set_ylabel("best lag (ms)")


def _draw_intervals(ax: Axes, result: xr.Dataset) -> None:
    at, interval = result["frame_time"].values, 1e3 * result["interval"].values
    lost, late = result["lost"].values > 0, result["late"].values
    # The interval that ends with the mark that is one too many.
    doubled = np.append(result["doubled"].values[1:], False)
    ax.plot(at, interval, ",", color=GREY, rasterized=True)
    for rows, label, color in (
        (late, "late", ORANGE),
        (lost, "lost", VERMILION),
        (doubled, "doubled", PURPLE),
    ):
        if rows.any():
            name = f"{label} ({int(rows.sum())})"
            ax.plot(at[rows], interval[rows], "o", color=color, markersize=4, label=name)
    ax.set_ylabel("frame interval\n(ms)")


def _shade(axes: np.ndarray, result: xr.Dataset) -> None:
    """Shade what was found; its name goes into the legend of the first Axes."""
    named = set()
    for place, kind in enumerate(result["kind"].values):
        label, color = KINDS.get(str(kind), ("", PALE))
        if not label:
            continue
        start, stop = float(result["first_time"][place]), float(result["last_time"][place])
        for ax in axes:
            shown = label if ax is axes[0] and label not in named else None
            if kind in ("shift", "drift", "offset"):
                # They last to the end: a line where they start, a pale band after it.
                ax.axvspan(start, stop, color=color, alpha=0.08, linewidth=0)
                ax.axvline(start, color=color, linewidth=1.2, label=shown)
            else:
                ax.axvspan(start, stop, color=color, alpha=0.25, linewidth=0, label=shown)
        named.add(label)
