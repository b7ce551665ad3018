"""A screen in physical units: movies whose lengths are in micrometres on the retina."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import quantities as pq
import xarray as xr

from retina_codec._common.checks import magnitude, require_dims
from retina_codec._common.provenance import provenance
from retina_codec._common.time import bin_width_of
from retina_codec.stimuli.classical import light_steps, moving_bars, moving_gratings, white_noise
from retina_codec.stimuli.differential import MOTIONS, differential_motion
from retina_codec.stimuli.movie import require_size
from retina_codec.stimuli.natural import natural_movie
from retina_codec.stimuli.pink import pink_noise

Pair = tuple[float, float]
WHOLE = 1e-3  # how near to a whole number of pixels or frames


@dataclass(frozen=True)
class Screen:
    """A screen seen by the retina: makes the movies of this room in um, um/s, s and Hz.

    The generators of `retina_codec.stimuli` count pixels and frames; the methods of a screen take
    the same arguments in physical units (plain numbers, or `quantities`), so that a stimulus stays
    the same when pixels or frames change. Movies have y and x in um from the middle of the screen,
    y downwards.

    Parameters
    ----------
    shape : tuple of int
        Height and width in pixels.
    pixel_size : float or quantity
        Side of a pixel on the retina, um.
    bin_width : float or quantity
        Duration of a frame, s.

    Raises
    ------
    ValueError
        If one of them is not above 0.

    Examples
    --------
    >>> from retina_codec import stimuli
    >>> screen = stimuli.Screen(shape=(24, 24), pixel_size=50.0, bin_width=0.01)
    >>> movie = screen.moving_bars(n_frames=300, width=(100, 200), speed=(1000, 2000), seed=0)
    >>> movie["x"].values[:3].tolist(), movie["x"].attrs["units"]
    ([-575.0, -525.0, -475.0], 'um')
    """

    shape: tuple[int, int] = (24, 24)
    pixel_size: float = 50.0
    bin_width: float = 0.01

    def __post_init__(self) -> None:
        for name, units in (("pixel_size", "um"), ("bin_width", "s")):
            object.__setattr__(self, name, float(magnitude(getattr(self, name), units, name)))
        if not self.pixel_size > 0:
            raise ValueError(f"pixel_size={self.pixel_size!r}; expected um above 0")
        require_size(1, self.shape, self.bin_width)

    def place(self, movie: xr.DataArray) -> xr.DataArray:
        """Give a movie (time, y, x) of this screen its coordinates in um.

        Raises
        ------
        ValueError
            If its size or bin width is not that of the screen.
        """
        movie = require_dims(movie, ("time", "y", "x"), "movie")
        if movie.shape[1:] != tuple(self.shape):
            raise ValueError(
                f"movie has {movie.shape[1]} x {movie.shape[2]} pixels; the screen has "
                f"{self.shape[0]} x {self.shape[1]}"
            )
        if not np.isclose(bin_width_of(movie, "movie"), self.bin_width):
            raise ValueError(
                f"movie has bins of {bin_width_of(movie, 'movie'):g} s; the screen has frames of "
                f"{self.bin_width:g} s"
            )
        return movie.assign_coords(
            {
                axis: (axis, self.pixel_size * (np.arange(n) - (n - 1) / 2), {"units": "um"})
                for axis, n in zip(("y", "x"), self.shape, strict=True)
            }
        )

    def light_steps(
        self,
        *,
        n_frames: int,
        seed: int = 0,
        duration: Pair = (0.4, 1.0),
        amplitude: float = 1.5,
    ) -> xr.DataArray:
        """Full-field steps to random levels; see `retina_codec.stimuli.light_steps`."""
        movie = light_steps(**self._size(n_frames, seed), duration=duration, amplitude=amplitude)
        return self._made(movie, "light_steps", seed, duration=duration, amplitude=amplitude)

    def moving_gratings(
        self,
        *,
        n_frames: int,
        seed: int = 0,
        duration: Pair = (0.5, 1.5),
        period: Pair = (250.0, 600.0),
        frequency: Pair = (1.0, 6.0),
        contrast: Pair = (0.5, 1.3),
        still_share: float = 0.2,
        directions: Sequence[float] | None = None,
    ) -> xr.DataArray:
        """Gratings with periods in um; see `retina_codec.stimuli.moving_gratings`."""
        movie = moving_gratings(
            **self._size(n_frames, seed),
            duration=duration,
            period=self._lengths(period, "period"),
            frequency=frequency,
            contrast=contrast,
            still_share=still_share,
            directions=directions,
        )
        return self._made(
            movie, "moving_gratings", seed, duration=duration, period=period, frequency=frequency,
            contrast=contrast, still_share=still_share, directions=directions,
        )  # fmt: skip

    def moving_bars(
        self,
        *,
        n_frames: int,
        seed: int = 0,
        width: Pair = (100.0, 200.0),
        speed: Pair = (1000.0, 4000.0),
        contrast: Pair = (1.0, 1.5),
        directions: Sequence[float] | None = None,
    ) -> xr.DataArray:
        """Bars, width in um and speed in um/s; see `retina_codec.stimuli.moving_bars`."""
        movie = moving_bars(
            **self._size(n_frames, seed),
            width=self._lengths(width, "width"),
            speed=self._speeds(speed, "speed"),
            contrast=contrast,
            directions=directions,
        )
        return self._made(
            movie, "moving_bars", seed, width=width, speed=speed, contrast=contrast,
            directions=directions,
        )  # fmt: skip

    def white_noise(
        self,
        *,
        n_frames: int,
        seed: int = 0,
        check: float = 100.0,
        hold: float = 0.03,
        contrast: float = 1.0,
    ) -> xr.DataArray:
        """Binary noise, checks in um held for `hold` s; see `retina_codec.stimuli.white_noise`.

        Both have to be whole multiples of a pixel and of a frame.
        """
        pixels = self._whole(self._length(check, "check"), f"check={check!r} um", "pixels")
        seconds = float(magnitude(hold, "s", "hold"))
        frames = self._whole(seconds / self.bin_width, f"hold={hold!r} s", "frames")
        movie = white_noise(
            **self._size(n_frames, seed), check=pixels, hold=frames, contrast=contrast
        )
        return self._made(movie, "white_noise", seed, check=check, hold=hold, contrast=contrast)

    def pink_noise(
        self,
        *,
        n_frames: int,
        seed: int = 0,
        clip: float = 5.0,
        exponents: Pair = (1.0, 1.0),
        contrast: float = 1.0,
    ) -> xr.DataArray:
        """Clips of 1/f noise; see `retina_codec.stimuli.pink_noise`."""
        movie = pink_noise(
            **self._size(n_frames, seed), clip=clip, exponents=exponents, contrast=contrast
        )
        return self._made(
            movie, "pink_noise", seed, clip=clip, exponents=exponents, contrast=contrast
        )

    def differential_motion(
        self,
        *,
        n_frames: int,
        seed: int = 0,
        duration: Pair = (1.0, 2.0),
        period: float = 400.0,
        radius: float = 250.0,
        centre: Pair = (0.0, 0.0),
        jitter: float = 250.0,
        contrast: float = 1.0,
        motions: Sequence[str] = tuple(MOTIONS),
    ) -> xr.DataArray:
        """Object and background, lengths in um; see `retina_codec.stimuli.differential_motion`.

        `jitter` is the standard deviation of the walks after one second, in um.
        """
        movie = differential_motion(
            **self._size(n_frames, seed),
            duration=duration,
            period=self._length(period, "period"),
            radius=self._length(radius, "radius"),
            centre=self._lengths(centre, "centre"),
            jitter=self._length(jitter, "jitter") * np.sqrt(self.bin_width),
            contrast=contrast,
            motions=motions,
        )
        return self._made(
            movie, "differential_motion", seed, duration=duration, period=period, radius=radius,
            centre=centre, jitter=jitter, contrast=contrast, motions=list(motions),
        )  # fmt: skip

    def natural_movie(
        self,
        images: Mapping[str, xr.DataArray] | xr.DataArray | np.ndarray,
        *,
        n_frames: int,
        seed: int = 0,
        fixation: Pair = (0.4, 1.2),
        jitter: float = 135.0,
        drift_share: float = 0.5,
        drift: float = 3500.0,
        object_share: float = 0.5,
        object_radius: Pair = (150.0, 300.0),
        object_speed: Pair = (500.0, 4000.0),
    ) -> xr.DataArray:
        """Fixations on pictures, in um and um/s; see `retina_codec.stimuli.natural_movie`.

        A picture pixel is a third of a screen pixel. `jitter` is the standard deviation of the
        gaze in each direction after one second of fixation, in um.
        """
        movie = natural_movie(
            images,
            **self._size(n_frames, seed),
            fixation=fixation,
            jitter=self._length(jitter, "jitter") * np.sqrt(self.bin_width),
            drift_share=drift_share,
            drift=self._speed(drift, "drift"),
            object_share=object_share,
            object_radius=self._lengths(object_radius, "object_radius"),
            object_speed=self._speeds(object_speed, "object_speed"),
        )
        return self._made(
            movie, "natural_movie", seed, fixation=fixation, jitter=jitter,
            drift_share=drift_share, drift=drift, object_share=object_share,
            object_radius=object_radius, object_speed=object_speed,
        )  # fmt: skip

    def _size(self, n_frames: int, seed: int) -> dict[str, Any]:
        return {
            "n_frames": n_frames,
            "shape": tuple(self.shape),
            "seed": seed,
            "bin_width": self.bin_width,
        }

    def _made(
        self, movie: xr.DataArray, generator: str, seed: int, **parameters: Any
    ) -> xr.DataArray:
        """Coordinates in um, and what made the movie in the units that it was asked in."""
        made_by = provenance(
            generator=f"Screen.{generator}",
            seed=seed,
            pixel_size=self.pixel_size,
            **{name: _as_given(value) for name, value in parameters.items()},
        )
        return self.place(movie).assign_attrs(made_by)

    def _length(self, value: Any, argument: str) -> float:
        """Pixels of a length in um."""
        return float(magnitude(value, "um", argument)) / self.pixel_size

    def _lengths(self, pair: Sequence[Any], argument: str) -> Pair:
        low, high = (self._length(value, argument) for value in pair)
        return low, high

    def _speed(self, value: Any, argument: str) -> float:
        """Pixels a frame of a speed in um/s."""
        return float(magnitude(value, "um/s", argument)) * self.bin_width / self.pixel_size

    def _speeds(self, pair: Sequence[Any], argument: str) -> Pair:
        low, high = (self._speed(value, argument) for value in pair)
        return low, high

    def _whole(self, number: float, given: str, what: str) -> int:
        if not (number >= 1 - WHOLE and abs(number - round(number)) <= WHOLE):
            raise ValueError(
                f"{given} is {number:g} {what} of this screen ({self.pixel_size:g} um, "
                f"{self.bin_width:g} s); expected a whole number of them"
            )
        return round(number)


def _as_given(value: Any) -> Any:
    """Quantities as text, with their units."""
    if isinstance(value, pq.Quantity):
        return str(value)
    return [_as_given(one) for one in value] if isinstance(value, tuple) else value
