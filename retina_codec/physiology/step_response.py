"""Step response: ON or OFF, transient or sustained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from retina_codec._common.time import bin_width_of
from retina_codec.physiology.phenomenon import Described, Phenomenon
from retina_codec.physiology.trials import (
    Trial,
    frames_of,
    peak_time,
    resting,
    trial_movie,
    within,
)
from retina_codec.recordings.tuning import on_off_index
from retina_codec.stimuli.screen import Screen

LATER = 0.4  # seconds after the peak, Franke et al. 2017


@dataclass(frozen=True)
class StepResponse(Phenomenon):
    """Full-field steps from grey to bright and to dark.

    - `on_off_index` = (ON - OFF) / (ON + OFF) of the mean rates during the two steps, by
      `retina_codec.recordings.on_off_index`;
    - `transience` = 1 - a / b, with b the largest rate above rest in the step that the cell answers
      more, and a the rate above rest 400 ms after that peak: 1 for a cell that has stopped, 0 for
      one that goes on (the transience index of Franke et al. 2017);
    - `on_response`, `off_response`: the largest rates above rest (0 where none is above);
    - `step_bias` = (on_response - off_response) / (on_response + off_response): the same preference
      without the spikes that a cell fires at rest.

    Examples
    --------
    >>> import retina_codec as rc
    >>> steps = rc.physiology.StepResponse()
    >>> movie = steps.movie(rc.stimuli.Screen(shape=(14, 14)))
    >>> model = rc.simulation.circuit("default", movie=movie)
    >>> found = steps.measure(model.predict(movie))
    >>> bool(found["on_off_index"].sel(cell="on_sustained_0") > 0.5)
    True
    """

    name = "step_response"
    indices: ClassVar[Described] = {
        "on_off_index": ("1", "(ON - OFF) / (ON + OFF)"),
        "step_bias": ("1", "(ON - OFF) / (ON + OFF) of the largest rates above rest"),
        "transience": ("1", "transience of the larger step response"),
        "on_response": ("Hz", "largest rate above rest after light on"),
        "off_response": ("Hz", "largest rate above rest after light off"),
    }
    source = (
        "steps: Hartline, Am. J. Physiol. 121:400 (1938); index: Carcieri, Jacobs & Nirenberg, "
        "J. Neurophysiol. 90:1704 (2003); transience: Franke et al., Nature 542:439 (2017)"
    )
    conditions: ClassVar[Described] = {"contrast": ("1", "contrast of the step")}

    contrast: float = 1.2
    duration: float = 0.8

    def _movie(self, screen: Screen, lead: float, centre: tuple[float, float]) -> xr.DataArray:
        n = frames_of(screen, self.duration)
        trials = [
            Trial(
                np.full(n, sign * self.contrast),
                label,
                conditions={"contrast": sign * self.contrast},
            )
            for sign, label in ((1.0, "on"), (-1.0, "off"))
        ]
        return trial_movie(
            screen,
            trials,
            lead=lead,
            units=self.conditions,
            phenomenon=self.name,
            contrast=self.contrast,
            duration=self.duration,
        )

    def _measure(self, rate: xr.DataArray) -> xr.Dataset:
        trials, rest = self._trials(rate), resting(rate)
        above = within(trials, 0, np.inf) - rest
        on, off = (above.isel(trial=np.sign(above["contrast"].values) == s) for s in (1, -1))
        peaks = [np.maximum(part.max(("trial", "onset")), 0) for part in (on, off)]
        larger = xr.where(peaks[0] >= peaks[1], on.mean("trial"), off.mean("trial"))
        larger = larger.transpose("onset", "cell").assign_coords(onset=above["onset"])
        top = larger.max("onset")
        late = np.rint((peak_time(larger) + LATER) / above["onset"].attrs["bin_width"]).astype(int)
        last = larger.sizes["onset"] - 1
        after = larger.values[np.minimum(late.values, last), np.arange(larger.sizes["cell"])]
        silent = top < self.least_response
        cut = late.values > last
        reason = np.where(
            silent, self._no_response("the largest rate in a step"),
            f"the peak is less than {LATER:g} s before the end of the step: transience undefined",
        )  # fmt: skip
        with np.errstate(invalid="ignore", divide="ignore"):
            transience = np.where(cut, np.nan, 1 - after / top.values)
            bias = (peaks[0] - peaks[1]) / (peaks[0] + peaks[1])
        values = {
            "on_off_index": index_of_rate(rate),
            "step_bias": bias,
            "transience": transience,
            "on_response": peaks[0],
            "off_response": peaks[1],
        }
        return self._table(values, silent, reason, rate, response=trials)


def index_of_rate(rate: xr.DataArray) -> np.ndarray:
    """ON-OFF index of a rate (time, cell), as of recorded counts: the expected ones are counted."""
    counts = (rate * bin_width_of(rate)).assign_coords(time=rate["time"])
    found = on_off_index(xr.Dataset({"spike_count": counts}))
    index: np.ndarray = found["on_off_index"].values
    return index
