"""Polarity reversal: a shift of the surround turns an OFF cell into an ON cell, for a moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from retina_codec.physiology.phenomenon import Described, Phenomenon
from retina_codec.physiology.trials import Trial, frames_of, resting, trial_movie, where, within
from retina_codec.stimuli.classical import grating_frames
from retina_codec.stimuli.movie import pixel_grid
from retina_codec.stimuli.screen import Screen


@dataclass(frozen=True)
class PolarityReversal(Phenomenon):
    """A bright or a dark disc on a cell's centre, soon after the grating round it shifted, or not.

    - `polarity_still`, `polarity_shifted` = (B - D) / (B + D), B and D the mean rates in the window
      after the bright and after the dark disc appears, with the surround at rest and after its
      shift by half a period;
    - `polarity_change` = polarity_shifted - polarity_still, between -2 and 2.

    Examples
    --------
    >>> import retina_codec as rc
    >>> shifts = rc.physiology.PolarityReversal()
    >>> movie = shifts.movie(rc.stimuli.Screen(shape=(14, 14)))
    >>> len(set(movie["trial"].values.tolist()))
    4
    """

    name = "polarity_reversal"
    indices: ClassVar[Described] = {
        "polarity_change": ("1", "change of polarity by a shift of the surround"),
        "polarity_still": ("1", "polarity with the surround at rest"),
        "polarity_shifted": ("1", "polarity after a shift of the surround"),
    }
    source = (
        "Geffen, de Vries & Meister, PLoS Biology 5:e65 (2007): a peripheral shift, polarity of "
        "the response to the centre"
    )
    conditions: ClassVar[Described] = {
        "contrast": ("1", "contrast of the disc"),
        "shifted": ("1", "1 = the surround shifts before, 0 = it rests"),
    }
    centred = True

    contrast: float = 1.2
    period: float = 300.0
    radius: float = 150.0
    delay: float = 0.1
    before: float = 0.4
    window: float = 0.2

    def _size(self) -> tuple[float, float]:
        side = 2 * self.radius + self.period
        return side, side

    def _coarsest_pixel(self) -> float:
        return self.period / 4

    def _memory(self) -> float:
        return self.delay + 0.02

    def _movie(self, screen: Screen, lead: float, centre: tuple[float, float]) -> xr.DataArray:
        y, x = pixel_grid(screen.shape)
        away = np.hypot(y - centre[0] / screen.pixel_size, x - centre[1] / screen.pixel_size)
        inside = np.clip(self.radius / screen.pixel_size + 0.5 - away, 0, 1)
        n_before, n_delay = frames_of(screen, self.before), frames_of(screen, self.delay)
        n_after = frames_of(screen, self.window)
        first, second = (
            grating_frames(
                screen.shape,
                n_frames=1,
                direction=0.0,
                period=self.period / screen.pixel_size,
                shift=0.0,
                contrast=self.contrast,
                phase=phase,
            )
            * (1 - inside)
            for phase in (0.0, np.pi)
        )
        trials = []
        for shifted in (0.0, 1.0):
            for sign in (1.0, -1.0):
                later = second if shifted else first
                parts = [first] * n_before + [later] * n_delay
                parts += [later + sign * self.contrast * inside] * n_after
                epoch = np.repeat(["surround", "shifted", "disc"], [n_before, n_delay, n_after])
                given = {"contrast": sign * self.contrast, "shifted": shifted}
                trials.append(
                    Trial(np.concatenate(parts), epoch, event=n_before + n_delay, conditions=given)
                )
        return trial_movie(
            screen,
            trials,
            lead=lead,
            units=self.conditions,
            phenomenon=self.name,
            contrast=self.contrast,
            period=self.period,
            radius=self.radius,
            delay=self.delay,
            centre=list(centre),
        )

    def _measure(self, rate: xr.DataArray) -> xr.Dataset:
        trials, rest = self._trials(rate), resting(rate)
        seen = within(trials, 0, self.window)
        top = (seen - rest).max(("trial", "onset"))
        contrast = float(np.abs(trials["contrast"].values).max())
        polarity = []
        with np.errstate(invalid="ignore", divide="ignore"):
            for shifted in (0.0, 1.0):
                bright, dark = (
                    where(seen, shifted=shifted, contrast=sign * contrast)
                    .mean(("trial", "onset"))
                    .values
                    for sign in (1.0, -1.0)
                )
                polarity.append((bright - dark) / (bright + dark))
        still, after = polarity
        return self._table(
            {
                "polarity_change": after - still,
                "polarity_still": still,
                "polarity_shifted": after,
            },
            top < self.least_response,
            self._no_response("the largest rate after a disc"),
            rate,
            response=trials,
        )

    def compared(
        self, movie: xr.DataArray, found: xr.Dataset
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Pair the disc after a shift with the disc without one, by contrast."""
        onset, shifted = movie["onset"].values, movie["shifted"].values
        contrast = movie["contrast"].values
        kept = (onset >= -1e-9) & (onset < self.window - 1e-9)
        return [
            tuple(kept & (contrast == one) & (shifted == kind) for kind in (1.0, 0.0))
            for one in np.unique(contrast)
        ]
