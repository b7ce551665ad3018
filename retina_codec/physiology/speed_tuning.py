"""Speed tuning: how fast a bar should move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from retina_codec.physiology.bars import DIRECTIONS, crossing_trial
from retina_codec.physiology.phenomenon import Described, Phenomenon
from retina_codec.physiology.trials import resting, trial_movie
from retina_codec.stimuli.screen import Screen


@dataclass(frozen=True)
class SpeedTuning(Phenomenon):
    """Bars that cross the field at several speeds, in four directions, bright and dark.

    The response to a speed is the largest rate above rest, over directions and contrasts.

    - `preferred_speed`: the speeds' mean on a logarithmic scale, weighted by the responses, um/s;
    - `speed_bandwidth`: the standard deviation there, in octaves.

    Examples
    --------
    >>> import retina_codec as rc
    >>> bars = rc.physiology.SpeedTuning(speeds=(2000.0, 4000.0))
    >>> movie = bars.movie(rc.stimuli.Screen(shape=(4, 4)))
    >>> len(set(movie["trial"].values.tolist()))
    16
    """

    name = "speed_tuning"
    indices: ClassVar[Described] = {
        "preferred_speed": ("um/s", "preferred speed"),
        "speed_bandwidth": ("octave", "width of the speed tuning"),
    }
    source = (
        "bars of several speeds: Cleland & Harding, J. Physiol. 345:47 (1983); weighted mean "
        "and spread of the logarithm: here"
    )
    conditions: ClassVar[Described] = {
        "contrast": ("1", "contrast of the bar"),
        "speed": ("um/s", "speed of the bar"),
    }

    contrast: float = 1.2
    width: float = 133.0
    speeds: tuple[float, ...] = (500.0, 1000.0, 2000.0, 4000.0)

    def _memory(self) -> float:
        return 0.02

    def _size(self) -> tuple[float, float]:
        return self.width, self.width

    def _coarsest_pixel(self) -> float:
        return self.width

    def _movie(self, screen: Screen, lead: float, centre: tuple[float, float]) -> xr.DataArray:
        trials = []
        for speed in self.speeds:
            for direction in DIRECTIONS:
                for sign in (1.0, -1.0):
                    trials.append(
                        crossing_trial(
                            screen,
                            direction=direction,
                            width=self.width,
                            speed=speed,
                            contrast=sign * self.contrast,
                            tail=0.25,
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
            speeds=list(self.speeds),
        )

    def _measure(self, rate: xr.DataArray) -> xr.Dataset:
        trials, rest = self._trials(rate), resting(rate)
        top = (trials - rest).max("onset")
        response = np.stack(
            [
                top.isel(trial=np.isclose(trials["speed"].values, speed)).max("trial").values
                for speed in self.speeds
            ]
        )
        weight = np.maximum(response, 0.0)
        octaves = np.log2(self.speeds)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = octaves @ weight / weight.sum(0)
            spread = np.sqrt((weight * (octaves[:, None] - mean) ** 2).sum(0) / weight.sum(0))
        kept = xr.DataArray(
            response,
            dims=("speed", "cell"),
            coords={"speed": list(self.speeds), "cell": rate["cell"]},
            attrs={"units": "Hz", "long_name": "largest rate above rest"},
        )
        kept["speed"].attrs = {"units": "um/s", "long_name": "speed of the bar"}
        return self._table(
            {"preferred_speed": 2**mean, "speed_bandwidth": spread},
            response.max(0) < self.least_response,
            self._no_response("the largest rate to a bar"),
            rate,
            speed_response=kept,
            response=trials,
        )
