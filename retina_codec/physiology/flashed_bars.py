"""Where the receptive fields of a model's cells are, from flashed bars."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from retina_codec._common.provenance import provenance
from retina_codec.physiology.bars import AXES, bar_trial, places_of
from retina_codec.physiology.trials import (
    by_trial,
    frames_of,
    peak_time,
    resting,
    trial_movie,
    within,
)
from retina_codec.stimuli.screen import Screen

CONDITIONS = {
    "contrast": ("1", "contrast of the bar"),
    "axis": ("degree", "axis across the bar: 0 = x, 90 = y"),
    "place": ("um", "place of the bar along the axis, from the middle"),
}
KEPT = 0.5  # of the largest response: places below it are not part of the centre


def flashed_bar_trials(
    screen: Screen, *, width: float, spacing: float, flash: float, window: float, contrast: float
) -> list[Any]:
    """Trials of bars flashed at places along x and along y, bright and dark."""
    n_flash, n = frames_of(screen, flash), frames_of(screen, window)
    trials = []
    for axis in AXES:
        for place in places_of(screen, axis, spacing):
            for sign in (1.0, -1.0):
                trial = bar_trial(
                    screen,
                    np.full(n, place),
                    direction=axis,
                    width=width,
                    contrast=sign * contrast,
                    epoch=np.where(np.arange(n) < n_flash, "flash", "gap"),
                    moving=False,
                    conditions={"axis": axis, "place": place},
                )
                trial.frames[n_flash:] = 0.0
                trials.append(trial)
    return trials


def flashed_bars(
    screen: Screen,
    *,
    lead: float = 0.5,
    width: float = 150.0,
    spacing: float = 100.0,
    flash: float = 0.05,
    window: float = 0.25,
    contrast: float = 1.2,
) -> xr.DataArray:
    """Bars flashed at many places, to find receptive fields; see `receptive_field_centres`.

    Parameters
    ----------
    screen : Screen
        Pixels, their size, and frames.
    lead : float
        Seconds of grey before each flash.
    width, spacing : float
        Width of the bars, and distance of their places, um.
    flash, window : float
        Seconds that a bar is shown, and that the response is watched.
    contrast : float
        Of the bars, bright and dark.

    Returns
    -------
    DataArray
        Contrast (time, y, x) with `trial`, `onset`, `contrast`, `axis` (0: a place along x, 90:
        along y) and `place` (um from the middle) over time.

    Examples
    --------
    >>> import retina_codec as rc
    >>> movie = rc.physiology.flashed_bars(rc.stimuli.Screen(shape=(4, 4)))
    >>> sorted(set(movie["place"].values.tolist()))
    [-50.0, 50.0]
    """
    parts = {"width": width, "spacing": spacing, "flash": flash, "window": window}
    trials = flashed_bar_trials(screen, contrast=contrast, **parts)
    return trial_movie(
        screen,
        trials,
        lead=lead,
        units=CONDITIONS,
        phenomenon="flashed_bars",
        contrast=contrast,
        **parts,
    )


def receptive_field_centres(response: xr.DataArray, *, least_response: float = 1.0) -> xr.Dataset:
    """Centre of each cell's receptive field from its response to `flashed_bars`.

    Along each axis, the mean place, weighted by how far the largest rate above rest (of either
    contrast) exceeds half of that at the best place. It needs no linear response, which a
    spike-triggered average does: ON-OFF cells have a centre too.

    Parameters
    ----------
    response : DataArray
        Rates (time, cell) in Hz with the coordinates of `flashed_bars`.
    least_response : float
        Hz above rest, below which a cell does not respond.

    Returns
    -------
    Dataset
        Over `cell`: `y`, `x` (um from the middle of the screen), `contrast` (sign of the bars that
        the cell answers more), `flash_latency` (s, from the onset of the flash at the best place to
        the peak), and `reason`: why they are NaN.

    Examples
    --------
    >>> import retina_codec as rc
    >>> movie = rc.physiology.flashed_bars(rc.stimuli.Screen(shape=(16, 16)))
    >>> model = rc.simulation.circuit("default", movie=movie)
    >>> found = rc.physiology.receptive_field_centres(model.predict(movie))
    >>> true = model.specification.cells["on_transient_0"][1]
    >>> bool(abs(found["x"].sel(cell="on_transient_0") - true.x) < 30)
    True
    """
    trials, rest = by_trial(response, tuple(CONDITIONS)), resting(response)
    trials = trials.isel(trial=np.isfinite(trials["place"].values))
    above = within(trials, 0, np.inf) - rest
    top = above.max("onset").transpose("trial", "cell").values
    cells = np.arange(top.shape[1])
    best = top.argmax(0)
    axis, place = trials["axis"].values, trials["place"].values
    contrast = trials["contrast"].values
    found = {}
    for name, angle in zip(("x", "y"), AXES, strict=True):
        bright, dark = (
            top[np.isclose(axis, angle) & (np.sign(contrast) == sign)] for sign in (1, -1)
        )
        places = place[np.isclose(axis, angle) & (contrast > 0)]
        height = np.maximum(bright, dark)
        weight = np.maximum(height - KEPT * height.max(0), 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            found[name] = places @ weight / weight.sum(0)
    peaks = peak_time(above).transpose("trial", "cell").values
    silent = top[best, cells] < least_response
    variables = {
        "y": (found["y"], "um", "centre of the receptive field, y, from the middle"),
        "x": (found["x"], "um", "centre of the receptive field, x, from the middle"),
        "contrast": (np.sign(contrast[best]), "1", "sign of the bars that are answered more"),
        "flash_latency": (peaks[best, cells], "s", "from the flash to the peak"),
    }
    told = f"no response: no flashed bar raises the rate by {least_response:g} Hz"
    return xr.Dataset(
        {
            **{
                name: (
                    "cell",
                    np.where(silent, np.nan, values),
                    {"units": units, "long_name": text},
                )
                for name, (values, units, text) in variables.items()
            },
            "reason": ("cell", np.where(silent, told, ""), {"long_name": "why a number is NaN"}),
        },
        coords={"cell": response["cell"]},
        attrs=provenance(function="receptive_field_centres", least_response=least_response),
    )
