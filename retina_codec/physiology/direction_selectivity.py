"""Direction and orientation selectivity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from retina_codec._common.time import bin_width_of
from retina_codec.physiology.phenomenon import Described, Phenomenon
from retina_codec.physiology.trials import Trial, frames_of, resting, trial_movie, within
from retina_codec.recordings.tuning import direction_selectivity, direction_tuning
from retina_codec.stimuli.classical import grating_frames
from retina_codec.stimuli.screen import Screen


@dataclass(frozen=True)
class DirectionSelectivity(Phenomenon):
    """Gratings that drift in eight directions, each in several phases.

    `dsi` and `osi`, direction and orientation selectivity, are the vector sums of
    `retina_codec.recordings.direction_selectivity`, of the expected spikes after the first `skip`
    seconds: the same function that describes recordings. With them its `preferred_direction`,
    `preferred_orientation` and p-values; phases count as repeats.

    Examples
    --------
    >>> import retina_codec as rc
    >>> gratings = rc.physiology.DirectionSelectivity(n_phases=1)
    >>> movie = gratings.movie(rc.stimuli.Screen(shape=(10, 10)))
    >>> np.unique(movie["direction"].dropna("time")).tolist()
    [0.0, 45.0, 90.0, 135.0, 180.0, 225.0, 270.0, 315.0]
    """

    name = "direction_selectivity"
    indices: ClassVar[Described] = {
        "dsi": ("1", "direction selectivity, |sum r exp(i phi)| / sum r"),
        "osi": ("1", "orientation selectivity, |sum r exp(2 i phi)| / sum r"),
    }
    source = (
        "Barlow & Levick, J. Physiol. 178:477 (1965); vector sums: Mazurek, Kager & Van Hooser, "
        "Front. Neural Circuits 8:92 (2014), eqs. 2 and 3"
    )
    conditions: ClassVar[Described] = {"phase": ("degree", "phase of the grating")}

    contrast: float = 1.2
    period: float = 500.0
    frequency: float = 4.0
    duration: float = 1.0
    skip: float = 0.25
    n_directions: int = 8
    n_phases: int = 4

    def _size(self) -> tuple[float, float]:
        return self.period, self.period

    def _coarsest_pixel(self) -> float:
        return self.period / 4

    def _memory(self) -> float:
        # Motion is told by two frames at least; a memory of one frame sees pictures.
        return 0.02

    def _movie(self, screen: Screen, lead: float, centre: tuple[float, float]) -> xr.DataArray:
        trials = []
        for phase in 360.0 * np.arange(self.n_phases) / self.n_phases:
            for direction in 360.0 * np.arange(self.n_directions) / self.n_directions:
                shown = grating_frames(
                    screen.shape,
                    n_frames=frames_of(screen, self.duration),
                    direction=direction,
                    period=self.period / screen.pixel_size,
                    shift=self.period * self.frequency * screen.bin_width / screen.pixel_size,
                    contrast=self.contrast,
                    phase=np.deg2rad(phase),
                )
                trials.append(
                    Trial(shown, "grating", conditions={"phase": phase}, direction=direction)
                )
        return trial_movie(
            screen,
            trials,
            lead=lead,
            units=self.conditions,
            phenomenon=self.name,
            contrast=self.contrast,
            period=self.period,
            frequency=self.frequency,
            n_phases=self.n_phases,
        )

    def _measure(self, rate: xr.DataArray) -> xr.Dataset:
        tuning = direction_tuning(
            xr.Dataset({"spike_count": rate * bin_width_of(rate)}).assign_coords(time=rate["time"]),
            label="grating",
            skip=self.skip,
        )
        found = direction_selectivity(tuning, n_permutations=999)
        trials, rest = self._trials(rate), resting(rate)
        directions = rate["direction"].groupby(rate["trial"]).max()
        trials = trials.assign_coords(direction=("trial", directions.values))
        top = (within(trials, 0, np.inf) - rest).max(("trial", "onset"))
        mean = tuning["spike_count"].mean("repeat") / tuning["response_duration"].mean("repeat")
        kept = {
            name: found[name]
            for name in (
                "preferred_direction", "p_value", "preferred_orientation", "orientation_p_value",
            )
        }  # fmt: skip
        silent = (top < self.least_response) | (found["n_spikes"] == 0)
        for name in kept:
            kept[name] = kept[name].where(~silent)
        return self._table(
            {"dsi": found["dsi"], "osi": found["osi"]},
            silent,
            self._no_response("the largest rate during any grating"),
            rate,
            **kept,
            direction_tuning=mean.assign_attrs(units="Hz", long_name="mean rate"),
            response=trials,
        )

    def compared(
        self, movie: xr.DataArray, found: xr.Dataset
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Pair the direction shown nearest to the preferred one with its opposite, by phase."""
        shown = movie["direction"].values
        onset, phase = movie["onset"].values, movie["phase"].values
        away = np.abs((shown - float(found["preferred_direction"]) + 180) % 360 - 180)
        if not np.isfinite(away).any():
            return []
        best = shown[np.nanargmin(away)]
        kept = onset >= self.skip - 1e-9
        return [
            tuple(
                kept & (phase == one) & np.isclose(shown, direction % 360)
                for direction in (best, best + 180)
            )
            for one in np.unique(phase)
        ]
