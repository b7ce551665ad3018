"""Trials of a stimulus: laid end to end as blocks of a movie, and found again in responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from retina_codec._common.provenance import provenance
from retina_codec._common.time import bin_width_of
from retina_codec.stimuli.movie import concatenate, make_movie
from retina_codec.stimuli.screen import Screen

ONSET_ATTRS = {"units": "s", "long_name": "time after the event of the trial"}
WHOLE = 1e-6  # of a bin: rounding of times


@dataclass(frozen=True)
class Trial:
    """One trial: frames (time, y, x), what they show, and the frame of its event.

    Parameters
    ----------
    frames : array
        Contrast (time, y, x), or (time,) where the whole field has one level.
    epoch : str or array of str
        What each frame shows.
    event : int
        Frame that counts as 0 in `onset`.
    conditions : mapping of str to float
        What tells it from the other trials.
    direction : float
        Of motion, degrees.
    """

    frames: np.ndarray
    epoch: str | Sequence[str] | np.ndarray
    event: int = 0
    conditions: Mapping[str, float] = field(default_factory=dict)
    direction: float = np.nan


def trial_movie(
    screen: Screen,
    trials: Sequence[Trial],
    *,
    lead: float,
    units: Mapping[str, tuple[str, str]],
    phenomenon: str,
    **parameters: Any,
) -> xr.DataArray:
    """Lay trials end to end, each a block that begins with `lead` seconds of grey.

    Nothing that was shown before a trial reaches into it. `units` has (units, long name) of each
    condition.
    """
    n_lead = frames_of(screen, lead)
    movies, onsets = [], []
    for trial in trials:
        frames = np.asarray(trial.frames, dtype=np.float32)
        if frames.ndim == 1:
            frames = np.broadcast_to(frames[:, None, None], (len(frames), *screen.shape))
        grey = np.zeros((n_lead, *screen.shape), dtype=np.float32)
        n = len(frames)
        movie = make_movie(
            np.concatenate([grey, frames]),
            bin_width=screen.bin_width,
            epoch=np.r_[np.full(n_lead, "grey"), np.broadcast_to(trial.epoch, n)],
            direction=np.r_[np.full(n_lead, np.nan), np.full(n, trial.direction)],
        )
        movies.append(screen.place(movie))
        onsets.append((np.arange(n_lead + n) - n_lead - trial.event) * screen.bin_width)
    lengths = [len(onset) for onset in onsets]
    coords: dict[str, Any] = {
        "trial": ("time", np.repeat(np.arange(len(trials)), lengths), {"long_name": "trial"}),
        "onset": ("time", np.concatenate(onsets), ONSET_ATTRS),
    }
    for name, (unit, text) in units.items():
        values = [trial.conditions[name] for trial in trials]
        attrs = {"units": unit, "long_name": text}
        coords[name] = ("time", np.repeat(values, lengths), attrs)
    made_by = provenance(
        generator=phenomenon,
        pixel_size=screen.pixel_size,
        bin_width=screen.bin_width,
        lead=lead,
        **parameters,
    )
    movie = concatenate(movies).assign_coords(coords)
    return movie.assign_attrs(made_by, phenomenon=phenomenon, conditions=list(units))


def frames_of(screen: Screen, seconds: float) -> int:
    """Return a duration in frames of a screen, at least one."""
    return max(1, round(seconds / screen.bin_width))


def by_trial(response: xr.DataArray, conditions: Sequence[str]) -> xr.DataArray:
    """Rates (trial, onset, cell) of a response (time, cell), NaN where a trial has no frame.

    `response` has the coordinates trial(time), onset(time) and those named in `conditions`, which
    the result has along `trial`.
    """
    width = bin_width_of(response, "response")
    numbers, first, which = np.unique(
        response["trial"].values, return_index=True, return_inverse=True
    )
    place = np.rint(response["onset"].values / width).astype(int)
    start = place.min()
    values = np.full(
        (len(numbers), place.max() - start + 1, response.sizes["cell"]), np.nan, dtype=np.float64
    )
    values[which, place - start] = response.transpose("time", "cell").values
    onset = np.round((np.arange(values.shape[1]) + start) * width, 9)
    coords: dict[str, Any] = {
        "trial": ("trial", numbers),
        "onset": ("onset", onset, {**ONSET_ATTRS, "bin_width": width}),
        "cell": response["cell"],
    }
    for name in conditions:
        coords[name] = ("trial", response[name].values[first], response[name].attrs)
    return xr.DataArray(
        values,
        dims=("trial", "onset", "cell"),
        coords=coords,
        name="response",
        attrs={"units": "Hz", "long_name": "firing rate"},
    )


def within(trials: xr.DataArray, start: float, stop: float) -> xr.DataArray:
    """Frames whose onset is in [start, stop), seconds after the event."""
    edge = WHOLE * trials["onset"].attrs["bin_width"]
    onset = trials["onset"].values
    return trials.isel(onset=(onset >= start - edge) & (onset < stop - edge))


def where(trials: xr.DataArray, **conditions: float) -> xr.DataArray:
    """Trials of these conditions."""
    chosen = np.ones(trials.sizes["trial"], dtype=bool)
    for name, value in conditions.items():
        chosen &= np.isclose(trials[name].values, value, equal_nan=True)
    return trials.isel(trial=chosen)


def leading_grey(response: xr.DataArray) -> np.ndarray:
    """Frames (time,) of the grey that each trial begins with."""
    _, which = np.unique(response["trial"].values, return_inverse=True)
    shown = response["epoch"].values.astype(str) != "grey"
    grey = np.zeros(len(shown), dtype=bool)
    for trial in range(which.max() + 1):
        frames = np.flatnonzero(which == trial)
        grey[frames] = np.cumsum(shown[frames]) == 0
    return grey


def resting(response: xr.DataArray) -> xr.DataArray:
    """Mean rate (cell) in the grey that trials begin with.

    Raises
    ------
    ValueError
        If there is none: the lead was not longer than the history of the model.
    """
    grey = leading_grey(response)
    if not grey.any():
        raise ValueError(
            "response has no frame of the grey before a trial; make the movie with a longer lead "
            "(the memory of the model, and 0.1 s more)"
        )
    return response.isel(time=grey).mean("time")


def peak_time(rate: xr.DataArray) -> xr.DataArray:
    """When a rate (..., onset) is largest, to a part of a bin by a parabola through three points.

    NaN where there is no rate at all.
    """
    values = rate.transpose(..., "onset").values
    onset, width = rate["onset"].values, rate["onset"].attrs["bin_width"]
    known = np.where(np.isnan(values), -np.inf, values)
    at = known.argmax(-1)
    inner = np.clip(at, 1, max(values.shape[-1] - 2, 1))
    left, middle, right = (
        np.take_along_axis(values, np.minimum(inner + k, values.shape[-1] - 1)[..., None], -1)[
            ..., 0
        ]
        for k in (-1, 0, 1)
    )
    bend = left - 2 * middle + right
    with np.errstate(invalid="ignore", divide="ignore"):
        shift = np.where((bend < 0) & (inner == at), 0.5 * (left - right) / bend, 0.0)
    # Where a neighbour is as large (a plateau), its first frame is the peak.
    shift = np.where(np.abs(shift) < 0.5, shift, 0.0)
    found = np.where(np.isinf(known.max(-1)), np.nan, onset[at] + np.nan_to_num(shift) * width)
    return rate.isel(onset=0, drop=True).transpose(...).copy(data=found).assign_attrs(units="s")


def over_cells(
    values: Mapping[str, np.ndarray | xr.DataArray],
    described: Mapping[str, tuple[str, str]],
    reason: np.ndarray,
    cell: xr.DataArray,
    **parameters: Any,
) -> xr.Dataset:
    """Lay indices out over `cell`, with `reason`: why some are NaN ("" where none is)."""
    variables: dict[str, Any] = {
        name: ("cell", np.asarray(value, dtype=np.float64), {"units": unit, "long_name": text})
        for (name, (unit, text)), value in (
            ((name, described[name]), value) for name, value in values.items()
        )
    }
    missing = np.any([np.isnan(np.asarray(value)) for value in values.values()], axis=0)
    told = np.where(missing, np.asarray(reason, dtype=str), "")
    variables["reason"] = ("cell", told, {"long_name": "why a number is NaN"})
    return xr.Dataset(variables, coords={"cell": cell}, attrs=provenance(**parameters))
