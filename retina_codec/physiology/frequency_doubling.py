"""Frequency doubling: a response at twice the rate at which a grating reverses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from retina_codec.physiology.phenomenon import Described, Phenomenon
from retina_codec.physiology.trials import Trial, trial_movie, within
from retina_codec.stimuli.classical import grating_frames
from retina_codec.stimuli.screen import Screen


@dataclass(frozen=True)
class FrequencyDoubling(Phenomenon):
    """A grating whose contrast reverses as a sine of time, in several phases.

    With F1 and F2 the amplitudes of the response at the reversal frequency and at twice that:

    - `nonlinearity_index` = mean of F2 over phases / largest F1 over phases, that of Hochstein &
      Shapley: above 1 in Y cells, infinite where there is no F1 at all;
    - `frequency_doubling` = F2 / (F1 + F2) of the same two numbers: 0 for a linear cell, 1 for one
      that only doubles.

    The amplitudes are those of whole periods after the first `settle` seconds.

    Examples
    --------
    >>> import retina_codec as rc
    >>> reversing = rc.physiology.FrequencyDoubling(n_phases=2, n_periods=1)
    >>> movie = reversing.movie(rc.stimuli.Screen(shape=(12, 12)))
    >>> float(movie.sel(time=(movie["trial"] == 0) & (movie["onset"] == 0)).std())
    0.0
    """

    name = "frequency_doubling"
    indices: ClassVar[Described] = {
        "frequency_doubling": ("1", "F2 / (F1 + F2)"),
        "nonlinearity_index": ("1", "F2 / F1"),
    }
    source = "Hochstein & Shapley, J. Physiol. 262:265 (1976): mean F2 over largest F1"
    conditions: ClassVar[Described] = {"phase": ("degree", "phase of the grating")}

    contrast: float = 1.2
    period: float = 300.0
    frequency: float = 4.0
    n_phases: int = 4
    n_periods: int = 4
    settle: float = 0.5

    def _size(self) -> tuple[float, float]:
        return 0.0, self.period

    def _coarsest_pixel(self) -> float:
        return self.period / 4

    def _coarsest_bin(self) -> float:
        # Four frames a period of the second harmonic.
        return 1 / (8 * self.frequency)

    def _frames(self, bin_width: float) -> tuple[int, int]:
        """Frames before the analysis, and of it: whole periods to within half a frame."""
        return round(self.settle / bin_width), round(self.n_periods / self.frequency / bin_width)

    def _movie(self, screen: Screen, lead: float, centre: tuple[float, float]) -> xr.DataArray:
        n = sum(self._frames(screen.bin_width))
        wave = np.sin(2 * np.pi * self.frequency * np.arange(n) * screen.bin_width)
        trials = []
        # A phase and its opposite differ by half a period in time only.
        for phase in 180.0 * np.arange(self.n_phases) / self.n_phases:
            pattern = grating_frames(
                screen.shape,
                n_frames=1,
                direction=0.0,
                period=self.period / screen.pixel_size,
                shift=0.0,
                contrast=self.contrast,
                phase=np.deg2rad(phase),
            )
            trials.append(
                Trial(wave[:, None, None] * pattern, "grating", conditions={"phase": phase})
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
        trials = self._trials(rate)
        width = trials["onset"].attrs["bin_width"]
        before, n = self._frames(width)
        seen = within(trials, before * width, (before + n) * width)
        time = seen["onset"].values
        harmonics = []
        for k in (1, 2):
            wave = np.exp(-2j * np.pi * k * self.frequency * time)
            harmonics.append(
                2
                / n
                * np.abs(
                    np.einsum("o,toc->tc", wave, seen.transpose("trial", "onset", "cell").values)
                )
            )
        first, second = harmonics[0].max(0), harmonics[1].mean(0)
        silent = np.maximum(first, harmonics[1].max(0)) < self.least_response
        with np.errstate(invalid="ignore", divide="ignore"):
            values = {
                "frequency_doubling": second / (first + second),
                "nonlinearity_index": second / first,
            }
        coords = {"phase": trials["phase"].values, "cell": rate["cell"]}
        kept = {
            name: xr.DataArray(
                amplitude,
                dims=("phase", "cell"),
                coords=coords,
                attrs={"units": "Hz", "long_name": f"amplitude at {text} the reversal frequency"},
            )
            for name, amplitude, text in zip(("f1", "f2"), harmonics, ("", "twice"), strict=True)
        }
        for one in kept.values():
            one["phase"].attrs = {"units": "degree", "long_name": "phase of the grating"}
        kept["f1"].attrs["long_name"] = "amplitude at the reversal frequency"
        reason = (
            f"no response: amplitudes at the reversal frequency and twice that are less than "
            f"{self.least_response:g} Hz"
        )
        return self._table(values, silent, reason, rate, **kept, response=trials)
