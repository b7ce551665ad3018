"""Motion anticipation: a moving bar is answered where it is, not where it was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from retina_codec.physiology.bars import DIRECTIONS, crossing_trial
from retina_codec.physiology.flashed_bars import (
    CONDITIONS,
    flashed_bar_trials,
    receptive_field_centres,
)
from retina_codec.physiology.phenomenon import Described, Phenomenon
from retina_codec.physiology.trials import Trial, peak_time, resting, trial_movie
from retina_codec.stimuli.screen import Screen


@dataclass(frozen=True)
class MotionAnticipation(Phenomenon):
    """Bars that are flashed at many places, and bars that cross the field.

    Bars flashed give the centre of the receptive field and the latency L of the response there. Of
    the contrast that a cell answers more, and of the directions whose peak is at least half of the
    best, `lead_time` is how long before the middle of the bar reaches the centre the rate peaks,
    on average (negative: after it).

    - `compensation` = (L + lead_time) / L: 0 where the response to the moving bar trails by the
      latency, 1 where it peaks with the bar in the centre, above 1 ahead of it.

    Examples
    --------
    >>> import retina_codec as rc
    >>> bars = rc.physiology.MotionAnticipation()
    >>> movie = bars.movie(rc.stimuli.Screen(shape=(8, 8)))
    >>> sorted(set(movie["epoch"].values.tolist()))
    ['bar', 'flash', 'gap', 'grey']
    """

    name = "motion_anticipation"
    indices: ClassVar[Described] = {
        "compensation": ("1", "share of the latency that is made up for in motion"),
        "lead_time": ("s", "peak before the bar reaches the receptive field's centre"),
    }
    source = (
        "Berry, Brivanlou, Jordan & Meister, Nature 398:334 (1999): moving against flashed bars, "
        "133 um wide"
    )
    conditions: ClassVar[Described] = {
        **CONDITIONS,
        "speed": ("um/s", "speed of the bar, 0 = flashed"),
    }

    contrast: float = 1.2
    width: float = 133.0
    speed: float = 1000.0
    spacing: float = 100.0
    flash: float = 0.05
    window: float = 0.25

    def _memory(self) -> float:
        return 0.02

    def _size(self) -> tuple[float, float]:
        return 3 * self.width, 3 * self.width

    def _coarsest_pixel(self) -> float:
        return self.width

    def _coarsest_bin(self) -> float:
        return 0.02

    def _movie(self, screen: Screen, lead: float, centre: tuple[float, float]) -> xr.DataArray:
        flashed = flashed_bar_trials(
            screen,
            width=self.width,
            spacing=self.spacing,
            flash=self.flash,
            window=self.window,
            contrast=self.contrast,
        )
        trials = [
            Trial(one.frames, one.epoch, conditions={**one.conditions, "speed": 0.0})
            for one in flashed
        ]
        for direction in DIRECTIONS:
            for sign in (1.0, -1.0):
                trials.append(
                    crossing_trial(
                        screen,
                        direction=direction,
                        width=self.width,
                        speed=self.speed,
                        contrast=sign * self.contrast,
                        tail=self.window,
                        conditions={"axis": direction, "place": np.nan},
                    )
                )
        return trial_movie(
            screen,
            trials,
            lead=lead,
            units=self.conditions,
            phenomenon=self.name,
            contrast=self.contrast,
            width=self.width,
            speed=self.speed,
        )

    def _measure(self, rate: xr.DataArray) -> xr.Dataset:
        fields = receptive_field_centres(rate, least_response=self.least_response)
        trials, rest = self._trials(rate), resting(rate)
        moving = trials.isel(trial=trials["speed"].values > 0)
        above = moving - rest
        top = above.max("onset").transpose("trial", "cell").values
        at = peak_time(above).transpose("trial", "cell").values
        angle = np.deg2rad(moving["axis"].values)[:, None]
        # The bar is in the middle of the screen at 0, and moves along its direction.
        centre = np.cos(angle) * fields["x"].values + np.sin(angle) * fields["y"].values
        lead = centre / moving["speed"].values[:, None] - at
        liked = np.sign(moving["contrast"].values)[:, None] == fields["contrast"].values
        height = np.where(liked, top, -np.inf)
        best = height.max(0)
        used = (height >= 0.5 * best) & (best >= self.least_response)
        count = used.sum(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            lead_time = np.where(used, lead, 0.0).sum(0) / count
            latency = fields["flash_latency"].values
            compensation = (latency + lead_time) / latency
        lost = fields["reason"].values != ""
        silent = lost | (count == 0) | ~np.isfinite(lead_time)
        reason = np.where(
            lost, fields["reason"].values, self._no_response("the largest rate to a moving bar")
        )
        return self._table(
            {"compensation": compensation, "lead_time": lead_time},
            silent,
            reason,
            rate,
            flash_latency=fields["flash_latency"],
            y=fields["y"],
            x=fields["x"],
            response=trials,
        )
