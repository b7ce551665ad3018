"""Bars, flashed and moving, in um and um/s: what several phenomena are shown with."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from retina_codec.physiology.trials import Trial, frames_of
from retina_codec.stimuli.classical import bars_at
from retina_codec.stimuli.movie import position_along
from retina_codec.stimuli.screen import Screen

AXES = (0.0, 90.0)
DIRECTIONS = (0.0, 90.0, 180.0, 270.0)


def reach_of(screen: Screen, direction: float, width: float) -> float:
    """Furthest place (um from the middle) at which a bar is still in part on the screen."""
    along = position_along(screen.shape, direction)
    return float(screen.pixel_size * (np.abs(along).max() + 0.5) + width / 2)


def places_of(screen: Screen, axis: float, spacing: float) -> np.ndarray:
    """Places (um from the middle) along an axis, `spacing` apart, where bars are on the screen."""
    half = reach_of(screen, axis, 0.0)
    n = int((2 * half - 1e-6) // spacing) + 1
    return spacing * (np.arange(n) - (n - 1) / 2)


def bar_trial(
    screen: Screen,
    places: np.ndarray,
    *,
    direction: float,
    width: float,
    contrast: float,
    epoch: str | np.ndarray,
    event: int = 0,
    conditions: Mapping[str, float] | None = None,
    moving: bool = True,
) -> Trial:
    """Trial of a bar that is at `places` (frame,), um along `direction` from the middle."""
    frames = bars_at(
        screen.shape,
        np.asarray(places) / screen.pixel_size,
        direction=direction,
        width=width / screen.pixel_size,
        contrast=contrast,
    )
    given = {"contrast": contrast, **(conditions or {})}
    heading = direction if moving else np.nan
    return Trial(frames, epoch, event=event, conditions=given, direction=heading)


def crossing_trial(
    screen: Screen,
    *,
    direction: float,
    width: float,
    speed: float,
    contrast: float,
    tail: float,
    conditions: Mapping[str, float] | None = None,
) -> Trial:
    """Trial of a bar that crosses the screen; its event is where it is in the middle."""
    step = speed * screen.bin_width
    n = int(np.ceil(reach_of(screen, direction, width) / step))
    places = step * np.arange(-n, n + 1 + frames_of(screen, tail))
    return bar_trial(
        screen,
        places,
        direction=direction,
        width=width,
        contrast=contrast,
        epoch="bar",
        event=n,
        conditions={"speed": speed, **(conditions or {})},
    )
