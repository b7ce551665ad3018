"""What every phenomenon is: a stimulus in physical units, and indices of the response to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from retina_codec._common.checks import require_dims
from retina_codec.physiology.trials import by_trial, leading_grey, over_cells
from retina_codec.stimuli.screen import Screen

Described = dict[str, tuple[str, str]]  # units and meaning, by name
LEAST_RESPONSE = 1.0  # Hz
RESPONSE = 0.3  # seconds after the event that a response is looked for in, unless told


@dataclass(frozen=True)
class Phenomenon(ABC):
    """A classical stimulus and the numbers that describe the response of a cell to it.

    Parameters of all phenomena are in physical units: s, um, um/s, Hz, and contrast (1 = what the
    generators of `retina_codec.stimuli` call 1).

    Attributes
    ----------
    name : str
        By which `retina_codec.phenomena` knows it.
    indices : dict of str to (str, str)
        Units and meaning of each index.
    source : str
        Where stimulus and index are from.
    centred : bool
        Whether the stimulus is shown at the receptive field of each cell.
    """

    name: ClassVar[str]
    indices: ClassVar[Described]
    source: ClassVar[str]
    conditions: ClassVar[Described] = {}
    also: ClassVar[tuple[str, ...]] = ()  # further coordinates over time that indices need
    centred: ClassVar[bool] = False

    least_response: float = LEAST_RESPONSE

    def unfit(self, screen: Screen, memory: float) -> str:
        """Say why it cannot be shown on `screen` to what sees `memory` seconds, "" if it can."""
        coarsest = self._coarsest_bin()
        if screen.bin_width > coarsest * (1 + 1e-9):
            return (
                f"needs frames of at most {coarsest:g} s; those of the model last "
                f"{screen.bin_width:g} s"
            )
        if memory < self._memory() * (1 - 1e-9):
            return (
                f"needs a memory of at least {self._memory():g} s; the model sees the last "
                f"{memory:g} s"
            )
        height, width = self._size()
        given = tuple(n * screen.pixel_size for n in screen.shape)
        if given[0] < height or given[1] < width:
            return (
                f"needs a field of {height:g} x {width:g} um; that of the model is "
                f"{given[0]:g} x {given[1]:g} um ({screen.shape[0]} x {screen.shape[1]} pixels)"
            )
        if screen.pixel_size > self._coarsest_pixel():
            return (
                f"needs pixels of at most {self._coarsest_pixel():g} um; those of the model are "
                f"{screen.pixel_size:g} um"
            )
        return ""

    def _memory(self) -> float:
        return 0.0

    def _coarsest_bin(self) -> float:
        return 0.05

    def _size(self) -> tuple[float, float]:
        return 0.0, 0.0

    def _coarsest_pixel(self) -> float:
        return np.inf

    def movie(
        self, screen: Screen, *, lead: float = 0.5, centre: tuple[float, float] = (0.0, 0.0)
    ) -> xr.DataArray:
        """Make the stimulus.

        Parameters
        ----------
        screen : Screen
            Pixels, their size, and frames.
        lead : float
            Seconds of grey before each trial: the memory of what is looked at, and 0.1 s more.
        centre : (float, float)
            y and x in um from the middle of the screen, of what is shown at one place.

        Returns
        -------
        DataArray
            Contrast (time, y, x); each trial is a block. Coordinates over time: `epoch`,
            `direction`, `trial`, `onset` (seconds after the event of the trial), and the
            conditions of the trial.

        Raises
        ------
        ValueError
            If the screen has too few or too large pixels, or too long frames.
        """
        problem = self.unfit(screen, np.inf)
        if problem:
            raise ValueError(f"screen: {self.name} {problem.replace('of the model', 'given')}")
        return self._movie(screen, lead, centre)

    @abstractmethod
    def _movie(self, screen: Screen, lead: float, centre: tuple[float, float]) -> xr.DataArray: ...

    def measure(self, response: xr.DataArray) -> xr.Dataset:
        """Compute the indices of the response to `movie`.

        Parameters
        ----------
        response : DataArray
            Rates (time, cell) in Hz with the movie's coordinates over time, as ``model.predict``
            gives them.

        Returns
        -------
        Dataset
            Over `cell`, the indices, NaN where a cell does not respond, and `reason`; with it
            `response` (trial, onset, cell), whose coordinates `trial_...` are the conditions of
            the trials, and what the indices were computed from.

        Raises
        ------
        TypeError
            If `response` is no DataArray.
        ValueError
            If it lacks a dim or a coordinate of the movie.
        """
        rate = require_dims(response, ("time", "cell"), "response")
        needed = ("epoch", "trial", "onset", *self.conditions, *self.also)
        missing = [name for name in needed if name not in rate.coords]
        if missing:
            raise ValueError(
                f"response has no coordinate {', '.join(map(repr, missing))} over time; give the "
                f"response to the movie of {self.name}, with the movie's coordinates"
            )
        found = self._measure(rate)
        return found.assign_attrs(phenomenon=self.name, source=self.source)

    @abstractmethod
    def _measure(self, rate: xr.DataArray) -> xr.Dataset: ...

    def compared(
        self, movie: xr.DataArray, found: xr.Dataset
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Frames of the phenomenon and of its control, in pairs.

        What `retina_codec.explain` compares.

        Parameters
        ----------
        movie : DataArray
            Anything with the movie's coordinates over time.
        found : Dataset
            What `measure` gave, of one cell.

        Returns
        -------
        list of (array of bool, array of bool)
            One pair a repetition: frames (time,) of the response, and of the control.
        """
        onset, grey = movie["onset"].values, leading_grey(movie)
        after = (onset >= 0) & (onset < RESPONSE)
        trials = [movie["trial"].values == trial for trial in np.unique(movie["trial"].values)]
        return [(trial & after, trial & grey) for trial in trials]

    def _trials(self, rate: xr.DataArray) -> xr.DataArray:
        return by_trial(rate, tuple(self.conditions))

    def _table(
        self,
        values: dict[str, np.ndarray | xr.DataArray],
        silent: xr.DataArray | np.ndarray,
        reason: str | np.ndarray,
        rate: xr.DataArray,
        **kept: xr.DataArray,
    ) -> xr.Dataset:
        """Lay indices out, NaN in cells that are `silent`; with what they were computed from."""
        mute = np.asarray(silent, dtype=bool)
        masked = {
            name: np.where(mute, np.nan, np.asarray(value, dtype=np.float64))
            for name, value in values.items()
        }
        told = np.broadcast_to(np.asarray(reason, dtype=str), mute.shape)
        table = over_cells(masked, self.indices, told, rate["cell"], **asdict(self))
        if "response" in kept:
            # A tuning curve has a dim of the same name as the condition of a trial.
            of_trial = [str(k) for k, v in kept["response"].coords.items() if v.dims == ("trial",)]
            names = {name: f"trial_{name}" for name in of_trial if name != "trial"}
            kept["response"] = kept["response"].rename(names)
        return table.assign(kept)

    def _no_response(self, what: str) -> str:
        return f"no response: {what} is less than {self.least_response:g} Hz above rest"
