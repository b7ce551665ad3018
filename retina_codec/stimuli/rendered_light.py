"""Light steps and drifting gratings, of which any frame is made alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import quantities as pq
import xarray as xr

from retina_codec._common.checks import require_at_least, require_choice, require_count
from retina_codec.stimuli.movie import position_along
from retina_codec.stimuli.rendering import (
    NUMBERS_AT_ONCE,
    field_size,
    labelled_movie,
    lengths,
    plain_number,
    plain_numbers,
    positive_number,
    texts,
    whole_frames,
)

WAVEFORMS = ("sine", "square")


def level_sequence(
    *,
    levels: Sequence[float],
    durations: float | pq.Quantity | Sequence[float | pq.Quantity],
    shape: tuple[int, int],
    bin_width: float | pq.Quantity,
    labels: Sequence[str] | None = None,
    n_cycles: int = 1,
) -> xr.DataArray:
    """Full-field light steps: levels one after another, in cycles.

    Parameters
    ----------
    levels : sequence of float
        Value of the whole field in each step, in the units of the stimulus.
    durations : float, quantity or sequence of them
        Duration of each step (or of all alike) in seconds. Each must be a whole number of frames
        to within 2 % of a frame.
    shape : tuple of int
        Height and width in pixels; ``(1, 1)`` for a full field.
    bin_width : float or quantity
        Duration of a frame in seconds.
    labels : sequence of str, optional
        What each step is called in `epoch`; the level as text by default.
    n_cycles : int
        How often the sequence is shown.

    Returns
    -------
    DataArray
        Lazy movie (time, y, x), float32, dimensionless, with `epoch`. ``attrs["description"]`` is
        what `render` takes, as JSON.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If there are no levels, numbers of levels, durations and labels differ, a duration is no
        whole number of frames, or an argument is out of range.

    Examples
    --------
    >>> from retina_codec import stimuli
    >>> steps = stimuli.level_sequence(
    ...     levels=[0.5, 1, 0.5, 0], durations=[2, 1, 2, 1], labels=["gray", "on", "gray", "off"],
    ...     n_cycles=68, shape=(1, 1), bin_width=0.02,
    ... )
    >>> steps.sizes["time"], str(steps["epoch"].values[299]), float(steps[299, 0, 0])
    (20400, 'off', 0.0)
    """
    width = positive_number(bin_width, "s", "bin_width")
    field = field_size(shape, n_frames=1, bin_width=width)
    values = plain_numbers(levels, "dimensionless", "levels")
    seconds = plain_numbers(durations, "s", "durations", n=len(values))
    n_frames = [whole_frames(s, width, f"durations[{i}]") for i, s in enumerate(seconds)]
    names = [f"{value:g}" for value in values] if labels is None else texts(labels, "labels")
    if len(seconds) != len(values) or len(names) != len(values):
        raise ValueError(
            f"levels has {len(values)} entries, durations {len(seconds)}, labels {len(names)}; "
            "expected as many of each: one duration, one label a level"
        )
    n_cycles = require_count(n_cycles, 1, "n_cycles")
    return labelled_movie(
        _Levels(field, tuple(values), tuple(np.cumsum(n_frames).tolist())),
        n_cycles * sum(n_frames),
        epoch=np.tile(np.repeat(names, n_frames), n_cycles),
        kind="level_sequence",
        parameters={
            "levels": values,
            "durations": seconds,
            "shape": list(field),
            "bin_width": width,
            "labels": names,
            "n_cycles": n_cycles,
        },
    )


@dataclass(frozen=True)
class _Levels:
    shape: tuple[int, int]
    levels: tuple[float, ...]
    ends: tuple[int, ...]  # frame after the last one of each level, in a cycle

    def frames(self, start: int, stop: int) -> np.ndarray:
        level = np.searchsorted(self.ends, np.arange(start, stop) % self.ends[-1], side="right")
        made = np.empty((stop - start, *self.shape), dtype=np.float32)
        made[:] = np.asarray(self.levels)[level][:, None, None]
        return made


def drifting_grating(
    *,
    direction: float | pq.Quantity,
    spatial_period: float | pq.Quantity,
    temporal_period: float | pq.Quantity,
    duration: float | pq.Quantity,
    shape: tuple[int, int],
    bin_width: float | pq.Quantity,
    pixel_size: float | pq.Quantity = 1.0,
    waveform: str = "sine",
    contrast: float = 1.0,
    mean: float = 0.0,
    phase: float | pq.Quantity = 0.0,
) -> xr.DataArray:
    """Render a grating that drifts in one direction.

    Frame ``k`` shows, at the position ``s`` along `direction` from the middle of the field,
    ``mean + contrast * wave(s / spatial_period - k * bin_width / temporal_period + phase / 360)``,
    where ``wave(c)`` is ``sin(2 pi c)``, or for a square wave 1 in the first half of each cycle
    and -1 in the second.

    Parameters
    ----------
    direction : float or quantity
        Where the bars move, in degrees: 0 = +x, 90 = +y (downwards).
    spatial_period : float or quantity
        Width of a bright and a dark bar together, in the unit of `pixel_size`.
    temporal_period : float or quantity
        Seconds in which the grating moves by one period.
    duration : float or quantity
        Seconds; a whole number of frames to within 2 % of a frame.
    shape : tuple of int
        Height and width in pixels.
    bin_width : float or quantity
        Duration of a frame in seconds.
    pixel_size : float or quantity
        Side of a pixel: plain numbers for both, or quantities for both. 1 by default: periods are
        in pixels.
    waveform : {"sine", "square"}
        Profile across the bars.
    contrast : float
        Amplitude about the mean.
    mean : float
        Mean of the grating.
    phase : float or quantity
        Degrees of the cycle at the middle of the field in the first frame.

    Returns
    -------
    DataArray
        Lazy movie (time, y, x), float32, dimensionless; `epoch` is ``"grating"``, `direction` in
        degrees. ``attrs["description"]`` is what `render` takes, as JSON.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If one is out of range, `spatial_period` and `pixel_size` are in different units, or
        `duration` is no whole number of frames.

    Examples
    --------
    >>> import quantities as pq
    >>> from retina_codec import stimuli
    >>> grating = stimuli.drifting_grating(
    ...     direction=0, spatial_period=240 * pq.um, pixel_size=0.03 * pq.mm,
    ...     temporal_period=80 * pq.ms, duration=1, shape=(1, 8), bin_width=0.01,
    ... )
    >>> bool(np.allclose(grating[1, 0, 1:], grating[0, 0, :-1]))  # one pixel a frame, to the right
    True
    """
    return _grating_movie(
        "drifting_grating",
        directions=[direction],
        n_cycles=1,
        gray_before=0.0,
        spatial_period=spatial_period,
        temporal_period=temporal_period,
        duration=duration,
        shape=shape,
        bin_width=bin_width,
        pixel_size=pixel_size,
        waveform=waveform,
        contrast=contrast,
        mean=mean,
        phase=phase,
    )


def grating_sequence(
    *,
    directions: Sequence[float] | pq.Quantity,
    spatial_period: float | pq.Quantity,
    temporal_period: float | pq.Quantity,
    duration: float | pq.Quantity,
    shape: tuple[int, int],
    bin_width: float | pq.Quantity,
    n_cycles: int = 1,
    gray_before: float | pq.Quantity = 0.0,
    pixel_size: float | pq.Quantity = 1.0,
    waveform: str = "sine",
    contrast: float = 1.0,
    mean: float = 0.0,
    phase: float | pq.Quantity = 0.0,
) -> xr.DataArray:
    """Drifting gratings in several directions, one after another, in cycles, each after gray.

    Parameters
    ----------
    directions : sequence of float or quantity
        Directions in degrees, in the order of presentation; see `drifting_grating`.
    spatial_period, temporal_period, shape, bin_width, pixel_size, waveform, contrast, mean, phase
        Of each grating; see `drifting_grating`.
    duration : float or quantity
        Of each grating in seconds; a whole number of frames to within 2 % of a frame.
    n_cycles : int
        How often all directions are shown.
    gray_before : float or quantity
        Seconds at the mean before each grating; whole frames as well.

    Returns
    -------
    DataArray
        Lazy movie (time, y, x), float32, dimensionless; `epoch` is ``"gray"`` or ``"grating"``,
        `direction` in degrees, NaN in gray. ``attrs["description"]`` is what `render` takes, as
        JSON.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If there are no directions, or as for `drifting_grating`.

    Examples
    --------
    >>> from retina_codec import stimuli
    >>> gratings = stimuli.grating_sequence(
    ...     directions=range(0, 360, 45), n_cycles=4, gray_before=5, duration=4,
    ...     spatial_period=16, temporal_period=1, shape=(24, 24), bin_width=0.02,
    ... )
    >>> gratings.sizes["time"], gratings["direction"].values[[0, 249, 250, 700]].tolist()
    (14400, [nan, nan, 0.0, 45.0])
    """
    return _grating_movie(
        "grating_sequence",
        directions=directions,
        n_cycles=n_cycles,
        gray_before=gray_before,
        spatial_period=spatial_period,
        temporal_period=temporal_period,
        duration=duration,
        shape=shape,
        bin_width=bin_width,
        pixel_size=pixel_size,
        waveform=waveform,
        contrast=contrast,
        mean=mean,
        phase=phase,
    )


def _grating_movie(
    kind: str,
    *,
    directions: Any,
    n_cycles: Any,
    gray_before: Any,
    spatial_period: Any,
    temporal_period: Any,
    duration: Any,
    shape: Any,
    bin_width: Any,
    pixel_size: Any,
    waveform: Any,
    contrast: Any,
    mean: Any,
    phase: Any,
) -> xr.DataArray:
    """One grating is a sequence of one, which is described by fewer parameters."""
    single = kind == "drifting_grating"
    width = positive_number(bin_width, "s", "bin_width")
    field = field_size(shape, n_frames=1, bin_width=width)
    degrees = (
        [plain_number(directions[0], "degree", "direction")]
        if single
        else plain_numbers(directions, "degree", "directions")
    )
    length, pixel = lengths(spatial_period, pixel_size)
    seconds = positive_number(temporal_period, "s", "temporal_period")
    lasting = plain_number(duration, "s", "duration")
    before = plain_number(gray_before, "s", "gray_before")
    require_at_least(before, 0, "gray_before")
    require_choice(waveform, WAVEFORMS, "waveform")
    n_cycles = require_count(n_cycles, 1, "n_cycles")
    gratings = _Gratings(
        shape=field,
        directions=tuple(degrees),
        n_gray=whole_frames(before, width, "gray_before") if before else 0,
        n_grating=whole_frames(lasting, width, "duration"),
        period=length / pixel,
        cycles_a_frame=width / seconds,
        square=waveform == "square",
        contrast=plain_number(contrast, "dimensionless", "contrast"),
        mean=plain_number(mean, "dimensionless", "mean"),
        phase=plain_number(phase, "degree", "phase"),
    )
    parameters = {
        "spatial_period": length,
        "temporal_period": seconds,
        "duration": lasting,
        "shape": list(field),
        "bin_width": width,
        "pixel_size": pixel,
        "waveform": waveform,
        "contrast": gratings.contrast,
        "mean": gratings.mean,
        "phase": gratings.phase,
    }
    own = (
        {"direction": degrees[0]}
        if single
        else {"directions": degrees, "n_cycles": n_cycles, "gray_before": before}
    )
    one = np.repeat(["gray", "grating"], [gratings.n_gray, gratings.n_grating])
    heading = np.repeat(degrees, len(one))
    heading[np.tile(one == "gray", len(degrees))] = np.nan
    return labelled_movie(
        gratings,
        n_cycles * len(heading),
        epoch=np.tile(one, n_cycles * len(degrees)),
        direction=np.tile(heading, n_cycles),
        kind=kind,
        parameters={**own, **parameters},
    )


@dataclass(frozen=True)
class _Gratings:
    shape: tuple[int, int]
    directions: tuple[float, ...]
    n_gray: int
    n_grating: int
    period: float  # pixels
    cycles_a_frame: float
    square: bool
    contrast: float
    mean: float
    phase: float  # degrees

    def frames(self, start: int, stop: int) -> np.ndarray:
        made = np.full((stop - start, *self.shape), self.mean, dtype=np.float32)
        one = self.n_gray + self.n_grating
        for number in range(start // one, -(-stop // one)):
            onset = number * one + self.n_gray
            first, last = max(start, onset), min(stop, onset + self.n_grating)
            if first < last:
                direction = self.directions[number % len(self.directions)]
                self._draw(made[first - start : last - start], direction, first - onset)
        return made

    def _draw(self, made: np.ndarray, direction: float, first: int) -> None:
        """Draw a grating into `made` from its frame `first` on."""
        place = position_along(self.shape, direction) / self.period + self.phase / 360
        at_once = max(1, NUMBERS_AT_ONCE // place.size)
        for start in range(0, len(made), at_once):
            part = made[start : start + at_once]
            passed = np.mod((first + start + np.arange(len(part))) * self.cycles_a_frame, 1.0)
            part[:] = self.mean + self.contrast * self._wave(place - passed[:, None, None])

    def _wave(self, cycles: np.ndarray) -> np.ndarray:
        if not self.square:
            return np.sin(2 * np.pi * cycles)
        # Edges often lie exactly on pixels: without rounding, noise would decide their colour.
        return np.where(np.mod(np.round(cycles, 9), 1.0) < 0.5, 1.0, -1.0)
