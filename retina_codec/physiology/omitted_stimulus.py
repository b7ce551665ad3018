"""Omitted stimulus response: a burst where a flash of a regular train is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from retina_codec.physiology.phenomenon import Described, Phenomenon
from retina_codec.physiology.trials import (
    Trial,
    frames_of,
    peak_time,
    resting,
    trial_movie,
    within,
)
from retina_codec.stimuli.screen import Screen

LEAST_SLOPE_PERIODS = 3
AFTER = 0.02  # seconds after the peak of the answer to the end of the last flash


@dataclass(frozen=True)
class OmittedStimulus(Phenomenon):
    """Trains of dark full-field flashes that stop.

    With L the time from the first flash to the peak of the response to it, and P the period:

    - `omitted_stimulus_index` = (omitted - train) / (omitted + train), mean over periods: `train`
      the largest rate within P/2 of L after the last flash, `omitted` the largest from L - P/2 to
      L + 3P/2 after the time at which the next flash would have come (and not before what is
      answered to the end of the last flash has passed). Above 0 where the missing
      flash is answered more than those shown;
    - `omitted_latency_slope`: slope, over periods, of the time from the last flash to the peak of
      the omitted response, for cells whose index is above 0 at three periods or more: 1 where the
      response keeps its time to the missing flash, 0 where it follows the last one.

    Examples
    --------
    >>> import retina_codec as rc
    >>> trains = rc.physiology.OmittedStimulus(periods=(0.08, 0.1))
    >>> movie = trains.movie(rc.stimuli.Screen(shape=(4, 4)))
    >>> flash = (movie["epoch"] == "flash") & (movie["period"] == 0.1)
    >>> int(flash.sum()), bool((movie.sel(time=flash)["onset"] < 0).all())  # 12 of 40 ms
    (48, True)
    """

    name = "omitted_stimulus"
    indices: ClassVar[Described] = {
        "omitted_stimulus_index": ("1", "(omitted - train) / (omitted + train)"),
        "omitted_latency_slope": ("1", "shift of the omitted response with the period"),
    }
    source = (
        "Schwartz, Harris, Shrom & Berry, Nature Neuroscience 10:552 (2007): dark flashes at 6 to "
        "20 Hz, latency against period; Schwartz & Berry, J. Neurophysiol. 99:1991 (2008)"
    )
    conditions: ClassVar[Described] = {"period": ("s", "from one flash to the next")}

    contrast: float = 1.2
    flash: float = 0.04
    periods: tuple[float, ...] = (0.06, 0.07, 0.08, 0.09, 0.1, 0.11, 0.12)
    n_flashes: int = 12

    def _memory(self) -> float:
        # An omission is told by two flashes before it.
        return 2 * min(self.periods)

    def _coarsest_bin(self) -> float:
        return self.flash / 2

    def _movie(self, screen: Screen, lead: float, centre: tuple[float, float]) -> xr.DataArray:
        n_flash, tail = frames_of(screen, self.flash), frames_of(screen, 0.5)
        trials = []
        for period in self.periods:
            n = frames_of(screen, period)
            level = np.zeros(self.n_flashes * n + tail)
            for i in range(self.n_flashes):
                level[i * n : i * n + n_flash] = -self.contrast
            trials.append(
                Trial(
                    level,
                    np.where(
                        level != 0,
                        "flash",
                        np.where(np.arange(len(level)) < self.n_flashes * n, "gap", "omitted"),
                    ),
                    event=self.n_flashes * n,
                    conditions={"period": n * screen.bin_width},
                )
            )
        return trial_movie(
            screen,
            trials,
            lead=lead,
            units=self.conditions,
            phenomenon=self.name,
            contrast=self.contrast,
            flash=self.flash,
            periods=list(self.periods),
            n_flashes=self.n_flashes,
        )

    def _measure(self, rate: xr.DataArray) -> xr.Dataset:
        trials, rest = self._trials(rate), resting(rate)
        periods = trials["period"].values
        latency = self._latency(trials)
        omitted, train = np.empty((2, len(periods), rate.sizes["cell"]))
        at = np.empty_like(omitted)
        largest = (trials - rest).max(("trial", "onset"))
        for i, period in enumerate(periods):
            for cell, delay in enumerate(latency.values):
                one = trials.isel(trial=i, cell=cell, drop=True)
                train[i, cell] = within(one, delay - 1.5 * period, delay - 0.5 * period).max()
                after = within(one, *self._window(delay, float(period)))
                omitted[i, cell] = after.max()
                at[i, cell] = peak_time(after) + period
        with np.errstate(invalid="ignore", divide="ignore"):
            each = (omitted - train) / (omitted + train)
        slope = np.full(rate.sizes["cell"], np.nan)
        for cell in range(len(slope)):
            shown = each[:, cell] > 0
            if shown.sum() >= LEAST_SLOPE_PERIODS:
                slope[cell] = np.polyfit(periods[shown], at[shown, cell], 1)[0]
        silent = (largest < self.least_response).values
        reason = np.where(
            silent, self._no_response("the largest rate"),
            f"no omitted stimulus response at {LEAST_SLOPE_PERIODS} periods or more: no slope",
        )  # fmt: skip
        coords = {"period": periods, "cell": rate["cell"]}
        kept = {
            name: xr.DataArray(
                np.where(silent, np.nan, values),
                dims=("period", "cell"),
                coords=coords,
                attrs={"units": units, "long_name": text},
            )
            for name, values, units, text in (
                ("index_by_period", each, "1", "(omitted - train) / (omitted + train)"),
                ("latency_by_period", at, "s", "from the last flash to the omitted response"),
            )
        }
        for one in kept.values():
            one["period"].attrs = {"units": "s", "long_name": "period of the train"}
        return self._table(
            {"omitted_stimulus_index": each.mean(0), "omitted_latency_slope": slope},
            silent,
            reason,
            rate,
            **kept,
            flash_latency=latency.assign_attrs(units="s", long_name="from a flash to the peak"),
            response=trials,
        )

    def _window(self, delay: float, period: float) -> tuple[float, float]:
        """Where the omitted response is looked for, seconds after the missing flash."""
        return delay + max(-0.5 * period, self.flash + AFTER - period), delay + 1.5 * period

    def _latency(self, trials: xr.DataArray) -> xr.DataArray:
        """Time (cell) from a flash to the peak after the first one, in the slowest train."""
        slow = trials.isel(trial=int(np.argmax(trials["period"].values)), drop=True)
        period = float(trials["period"].values.max())
        start = -self.n_flashes * period
        # The second flash is not answered before its own latency, at least 30 ms.
        return peak_time(within(slow, start, start + period + 0.03)) - start

    def compared(
        self, movie: xr.DataArray, found: xr.Dataset
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Pair the omitted response with the same stretch of the train, two periods before."""
        onset = movie["onset"].values
        delay = float(found["flash_latency"])
        pairs = []
        for period in np.unique(movie["period"].values):
            shown = np.isclose(movie["period"].values, period)
            start, stop = self._window(delay, float(period))
            pairs.append(
                tuple(
                    shown & (onset >= start - shift - 1e-9) & (onset < stop - shift - 1e-9)
                    for shift in (0.0, 2 * period)
                )
            )
        return pairs
