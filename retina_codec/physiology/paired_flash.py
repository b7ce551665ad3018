"""Paired flash: how much a flash leaves of the response to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from retina_codec.physiology.phenomenon import Described, Phenomenon
from retina_codec.physiology.trials import Trial, frames_of, resting, trial_movie, where, within
from retina_codec.stimuli.screen import Screen


@dataclass(frozen=True)
class PairedFlash(Phenomenon):
    """Two full-field flashes at several intervals, bright and dark, and one alone.

    `paired_flash_ratio` = R2 / R1 at the shortest interval: R1 the largest rate above rest after
    the flash alone, R2 the largest difference between the response to both and the response to the
    first alone, after the second. Of the two polarities, the one with the larger R1. 1 for a linear
    cell, below 1 where the first flash suppresses, above 1 where it helps. `paired_flash_ratios`
    (interval, cell) has all intervals.

    Examples
    --------
    >>> import retina_codec as rc
    >>> flashes = rc.physiology.PairedFlash(intervals=(0.1,))
    >>> movie = flashes.movie(rc.stimuli.Screen(shape=(4, 4)))
    >>> sorted(set(movie["interval"].values.tolist()))  # 0: one flash alone
    [0.0, 0.1]
    """

    name = "paired_flash"
    indices: ClassVar[Described] = {
        "paired_flash_ratio": ("1", "response to the second flash over the first")
    }
    source = (
        "two flashes, the response to the first subtracted: Birch, Hood, Nusinowitz & Pepperberg, "
        "Invest. Ophthalmol. Vis. Sci. 36:1603 (1995)"
    )
    conditions: ClassVar[Described] = {
        "contrast": ("1", "contrast of the flashes"),
        "interval": ("s", "from the first to the second flash, 0 = one alone"),
    }

    contrast: float = 1.2
    flash: float = 0.05
    intervals: tuple[float, ...] = (0.1, 0.2, 0.3)
    window: float = 0.25

    def _memory(self) -> float:
        return min(self.intervals)

    def _coarsest_bin(self) -> float:
        return self.flash

    def _movie(self, screen: Screen, lead: float, centre: tuple[float, float]) -> xr.DataArray:
        n_flash, n = frames_of(screen, self.flash), frames_of(screen, max(self.intervals))
        n += frames_of(screen, self.window)
        trials = []
        for sign in (1.0, -1.0):
            for interval in (0.0, *self.intervals):
                level = np.zeros(n)
                for at in {0, round(interval / screen.bin_width)}:
                    level[at : at + n_flash] = sign * self.contrast
                given = {"contrast": sign * self.contrast, "interval": interval}
                trials.append(Trial(level, _labels(level), conditions=given))
        return trial_movie(
            screen,
            trials,
            lead=lead,
            units=self.conditions,
            phenomenon=self.name,
            contrast=self.contrast,
            flash=self.flash,
            intervals=list(self.intervals),
        )

    def _measure(self, rate: xr.DataArray) -> xr.Dataset:
        trials, rest = self._trials(rate), resting(rate)
        first, ratios = [], []
        for contrast in np.unique(trials["contrast"].values):
            shown = where(trials, contrast=contrast)
            alone = where(shown, interval=0.0).isel(trial=0, drop=True)
            first.append(within(alone - rest, 0, self.window).max("onset").values)
            second = [
                within(
                    where(shown, interval=interval).isel(trial=0, drop=True) - alone,
                    interval,
                    interval + self.window,
                ).max("onset")
                for interval in self.intervals
            ]
            ratios.append(np.stack(second))
        best = np.argmax(first, axis=0)
        cells = np.arange(len(best))
        top = np.asarray(first)[best, cells]
        silent = top < self.least_response
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.where(silent, np.nan, np.asarray(ratios)[best, :, cells].T / top)
        kept = xr.DataArray(
            ratio,
            dims=("interval", "cell"),
            coords={"interval": list(self.intervals), "cell": rate["cell"]},
            attrs={"units": "1", "long_name": "response to the second flash over the first"},
        )
        kept["interval"].attrs = {"units": "s", "long_name": "from the first to the second flash"}
        return self._table(
            {"paired_flash_ratio": ratio[int(np.argmin(self.intervals))]},
            silent,
            self._no_response("the largest rate after one flash"),
            rate,
            paired_flash_ratios=kept,
            response=trials,
        )

    def compared(
        self, movie: xr.DataArray, found: xr.Dataset
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Pair what follows the second flash with what follows one alone."""
        onset = movie["onset"].values
        pairs = []
        for contrast in np.unique(movie["contrast"].values):
            of = np.isclose(movie["contrast"].values, contrast)
            alone = of & (movie["interval"].values == 0) & _between(onset, 0, self.window)
            for interval in self.intervals:
                shown = of & np.isclose(movie["interval"].values, interval)
                pairs.append((shown & _between(onset, interval, interval + self.window), alone))
        return pairs


def _between(onset: np.ndarray, start: float, stop: float) -> np.ndarray:
    return (onset >= start - 1e-9) & (onset < stop - 1e-9)


def _labels(level: np.ndarray) -> Sequence[str] | np.ndarray:
    return np.where(level != 0, "flash", "grey")
