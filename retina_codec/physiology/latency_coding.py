"""Latency coding: when a cell answers a flashed grating says where its bars were."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from retina_codec.physiology.phenomenon import Described, Phenomenon
from retina_codec.physiology.trials import Trial, frames_of, resting, trial_movie, within
from retina_codec.stimuli.classical import grating_frames
from retina_codec.stimuli.screen import Screen


@dataclass(frozen=True)
class LatencyCoding(Phenomenon):
    """A grating flashed in several phases: latency and number of spikes.

    Of each phase that is answered (largest rate above rest at least `least_response`), the latency
    is when the rate first reaches half of its largest height above rest. The window ends before
    what a cell answers to the end of the flash.

    - `latency_spread`: standard deviation of the latencies over phases, each weighted by its
      largest rate, seconds;
    - `count_modulation` = (most - fewest) / (most + fewest) expected spikes over phases.

    Examples
    --------
    >>> import retina_codec as rc
    >>> flashed = rc.physiology.LatencyCoding(n_phases=4)
    >>> movie = flashed.movie(rc.stimuli.Screen(shape=(12, 12)))
    >>> sorted(set(movie["phase"].values.tolist()))
    [0.0, 90.0, 180.0, 270.0]
    """

    name = "latency_coding"
    indices: ClassVar[Described] = {
        "latency_spread": ("s", "spread of latencies over the phases of a flashed grating"),
        "count_modulation": ("1", "(most - fewest) / (most + fewest) spikes over phases"),
    }
    source = (
        "Gollisch & Meister, Science 319:1108 (2008): gratings flashed for 150 ms in eight phases"
    )
    conditions: ClassVar[Described] = {"phase": ("degree", "phase of the grating")}

    contrast: float = 1.2
    flash: float = 0.15
    period: float = 600.0
    n_phases: int = 8
    window: float = 0.18

    def _size(self) -> tuple[float, float]:
        return 0.0, self.period / 2

    def _coarsest_pixel(self) -> float:
        return self.period / 4

    def _coarsest_bin(self) -> float:
        return 0.02

    def _movie(self, screen: Screen, lead: float, centre: tuple[float, float]) -> xr.DataArray:
        n_flash = frames_of(screen, self.flash)
        rest = np.zeros((frames_of(screen, self.window - self.flash), *screen.shape))
        trials = []
        for phase in 360.0 * np.arange(self.n_phases) / self.n_phases:
            shown = grating_frames(
                screen.shape,
                n_frames=n_flash,
                direction=0.0,
                period=self.period / screen.pixel_size,
                shift=0.0,
                contrast=self.contrast,
                phase=np.deg2rad(phase),
            )
            epoch = np.r_[np.full(n_flash, "grating"), np.full(len(rest), "grey")]
            trials.append(Trial(np.concatenate([shown, rest]), epoch, conditions={"phase": phase}))
        return trial_movie(
            screen,
            trials,
            lead=lead,
            units=self.conditions,
            phenomenon=self.name,
            contrast=self.contrast,
            flash=self.flash,
            period=self.period,
            n_phases=self.n_phases,
        )

    def _measure(self, rate: xr.DataArray) -> xr.Dataset:
        trials, rest = self._trials(rate), resting(rate)
        shown = within(trials, 0, self.window)
        above = (shown - rest).transpose("trial", "cell", "onset")
        top = above.max("onset").values
        answered = top >= self.least_response
        latency = np.where(answered, _half_rise(above, top), np.nan)
        weight = np.where(answered, top, 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            total = weight.sum(0)
            mean = np.nansum(weight * latency, 0) / total
            spread = np.sqrt(np.nansum(weight * (latency - mean) ** 2, 0) / total)
            counts = shown.sum("onset").values
            most, fewest = counts.max(0), counts.min(0)
            modulation = (most - fewest) / (most + fewest)
        silent = answered.sum(0) < 1
        spread = np.where(answered.sum(0) > 1, spread, np.nan)
        reason = np.where(
            silent,
            self._no_response("the largest rate at any phase"),
            "only one phase is answered: no spread of latencies",
        )
        kept = xr.DataArray(
            latency,
            dims=("phase", "cell"),
            coords={"phase": trials["phase"].values, "cell": rate["cell"]},
            attrs={"units": "s", "long_name": "latency of half the largest rate"},
        )
        kept["phase"].attrs = {"units": "degree", "long_name": "phase of the grating"}
        return self._table(
            {"latency_spread": spread, "count_modulation": modulation},
            silent,
            reason,
            rate,
            latency=kept,
            response=trials,
        )


def _half_rise(above: xr.DataArray, top: np.ndarray) -> np.ndarray:
    """When (trial, cell) a rate first crosses half of its peak, between frames by a line."""
    values, onset = above.values, above["onset"].values
    width = above["onset"].attrs["bin_width"]
    half = 0.5 * top[..., None]
    at = (values >= half).argmax(-1)
    before = np.maximum(at - 1, 0)
    high = np.take_along_axis(values, at[..., None], -1)[..., 0]
    low = np.take_along_axis(values, before[..., None], -1)[..., 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(at > 0, (high - half[..., 0]) / (high - low), 0.0)
    found: np.ndarray = onset[at] - share * width
    return found
