"""Motion reversal: a burst when a moving bar turns round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from retina_codec.physiology.bars import DIRECTIONS, bar_trial, crossing_trial, reach_of
from retina_codec.physiology.phenomenon import Described, Phenomenon
from retina_codec.physiology.trials import frames_of, resting, trial_movie, within
from retina_codec.stimuli.screen import Screen

SMOOTH = 1e6  # place of a reversal that does not come: beyond any screen


@dataclass(frozen=True)
class MotionReversal(Phenomenon):
    """A bar that moves, and turns round at several places; beside it bars that move on.

    Before it turns, the picture is that of a bar that moves on; afterwards, that of one that came
    the other way. In the window after the turn, `reversal` is the largest rate, and `smooth` the
    largest of the two smooth motions, with the bar at the place of the turn at time 0.

    - `motion_reversal_index` = sum(reversal - smooth) / sum(reversal + smooth) over places,
      directions and contrasts: 0 for a response that only depends on what each way would have
      given, above 0 for a burst of the turn's own.

    Examples
    --------
    >>> import retina_codec as rc
    >>> turns = rc.physiology.MotionReversal(places=(0.0,))
    >>> movie = turns.movie(rc.stimuli.Screen(shape=(8, 8)))
    >>> sorted(set(movie["epoch"].values.tolist()))
    ['back', 'bar', 'grey']
    """

    name = "motion_reversal"
    indices: ClassVar[Described] = {
        "motion_reversal_index": ("1", "(reversal - smooth) / (reversal + smooth)"),
    }
    source = (
        "Schwartz, Taylor, Fisher, Harris & Berry, Neuron 55:958 (2007): a burst some 150 ms after "
        "a bar reverses; the two smooth motions as controls: here"
    )
    conditions: ClassVar[Described] = {
        "contrast": ("1", "contrast of the bar"),
        "heading": ("degree", "direction before the turn"),
        "turn": ("um", "place of the turn along the direction, none beyond the screen"),
    }

    contrast: float = 1.2
    width: float = 133.0
    speed: float = 1000.0
    places: tuple[float, ...] = (-100.0, 0.0, 100.0)
    window: tuple[float, float] = (0.05, 0.3)

    def _memory(self) -> float:
        # Motion before the turn must still be seen in the window.
        return self.window[0] + 0.05

    def _size(self) -> tuple[float, float]:
        side = 2 * max(abs(place) for place in self.places) + 2 * self.width
        return side, side

    def _coarsest_pixel(self) -> float:
        return self.width

    def _coarsest_bin(self) -> float:
        return 0.02

    def _movie(self, screen: Screen, lead: float, centre: tuple[float, float]) -> xr.DataArray:
        step = self.speed * screen.bin_width
        after = frames_of(screen, self.window[1])
        trials = []
        for direction in DIRECTIONS:
            for sign in (1.0, -1.0):
                contrast = sign * self.contrast
                trials.append(
                    crossing_trial(
                        screen,
                        direction=direction,
                        speed=self.speed,
                        contrast=contrast,
                        tail=self.window[1],
                        width=self.width,
                        conditions={"heading": direction, "turn": SMOOTH},
                    )
                )
                for place in self.places:
                    n = int(np.ceil((reach_of(screen, direction, self.width) + place) / step))
                    frame = np.arange(-n, after + 1)
                    trials.append(
                        bar_trial(
                            screen,
                            place - step * np.abs(frame),
                            direction=direction,
                            contrast=contrast,
                            epoch=np.where(frame > 0, "back", "bar"),
                            event=n,
                            width=self.width,
                            conditions={"heading": direction, "turn": place},
                        )
                    )
        return trial_movie(
            screen,
            trials,
            lead=lead,
            units=self.conditions,
            phenomenon=self.name,
            contrast=self.contrast,
            speed=self.speed,
            places=list(self.places),
            width=self.width,
        )

    def _measure(self, rate: xr.DataArray) -> xr.Dataset:
        trials, rest = self._trials(rate), resting(rate)
        reversal, smooth, onsets = [], [], self.window
        for trial in range(trials.sizes["trial"]):
            one = trials.isel(trial=trial)
            place = float(one["turn"])
            if place == SMOOTH:
                continue
            reversal.append(within(one, *onsets).max("onset").values)
            smooth.append(
                np.max(
                    [
                        within(of, onsets[0] + shift, onsets[1] + shift).max("onset").values
                        for of, shift in self._smooth(trials, one, place)
                    ],
                    axis=0,
                )
            )
        turned, controls = np.asarray(reversal), np.asarray(smooth)
        top = (np.maximum(turned, controls) - rest.values).max(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            index = (turned - controls).sum(0) / (turned + controls).sum(0)
        return self._table(
            {"motion_reversal_index": index},
            top < self.least_response,
            self._no_response("the largest rate to a bar"),
            rate,
            response=trials,
        )

    def _smooth(
        self, trials: xr.DataArray, one: xr.DataArray, place: float
    ) -> list[tuple[xr.DataArray, float]]:
        """Both smooth motions, with the time at which each has its bar at the place of the turn."""
        found = []
        for back, shift in ((0.0, place / self.speed), (180.0, -place / self.speed)):
            same = (
                (trials["turn"].values == SMOOTH)
                & np.isclose(trials["contrast"].values, float(one["contrast"]))
                & np.isclose(trials["heading"].values, (float(one["heading"]) + back) % 360)
            )
            found.append((trials.isel(trial=same).isel(trial=0, drop=True), shift))
        return found

    def compared(
        self, movie: xr.DataArray, found: xr.Dataset
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Pair what follows each turn with the same stretch of the two smooth motions."""
        onset, turn = movie["onset"].values, movie["turn"].values
        heading, contrast = movie["heading"].values, movie["contrast"].values

        def window(shift: float) -> np.ndarray:
            start, stop = (edge + shift for edge in self.window)
            inside: np.ndarray = (onset >= start - 1e-9) & (onset < stop - 1e-9)
            return inside

        pairs = []
        for trial in np.unique(movie["trial"].values[turn != SMOOTH]):
            of = movie["trial"].values == trial
            at = int(np.flatnonzero(of)[0])
            shift = turn[at] / self.speed
            same = (turn == SMOOTH) & np.isclose(contrast, contrast[at])
            on = same & np.isclose(heading, heading[at]) & window(shift)
            back = same & np.isclose(heading, (heading[at] + 180) % 360) & window(-shift)
            pairs.append((of & window(0.0), on | back))
        return pairs
