"""Classical stimuli: full-field steps, gratings, bars, white noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from retina_codec._common.checks import require_at_least, require_count
from retina_codec._common.provenance import provenance
from retina_codec.stimuli.movie import (
    duration_in_frames,
    make_movie,
    position_along,
    require_range,
    require_size,
)


def light_steps(
    *,
    n_frames: int,
    shape: tuple[int, int] = (24, 24),
    seed: int = 0,
    bin_width: float = 0.01,
    duration: tuple[float, float] = (0.4, 1.0),
    amplitude: float = 1.5,
) -> xr.DataArray:
    """Full-field steps to random levels.

    Parameters
    ----------
    n_frames : int
        Length of the movie.
    shape : tuple of int
        Height and width in pixels.
    seed : int
        Seed of levels and durations.
    bin_width : float
        Duration of a frame in seconds.
    duration : tuple of float
        Shortest and longest level in seconds.
    amplitude : float
        Levels are uniform between ``-amplitude`` and ``amplitude``.

    Returns
    -------
    DataArray
        Contrast (time, y, x); `epoch` is ``"on_step"`` where the level is above the one before
        (the first: above grey), else ``"off_step"``.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> from retina_codec import stimuli
    >>> movie = stimuli.light_steps(n_frames=300, seed=0)
    >>> sorted(set(movie["epoch"].values.tolist()))
    ['off_step', 'on_step']
    """
    require_size(n_frames, shape, bin_width)
    require_range(duration, "duration")
    require_at_least(amplitude, 0, "amplitude")
    rng = np.random.default_rng(seed)
    levels = np.empty(n_frames)
    epoch = np.empty(n_frames, dtype="<U8")
    start, before = 0, 0.0
    while start < n_frames:
        stop = start + duration_in_frames(rng, duration, bin_width)
        level = rng.uniform(-amplitude, amplitude)
        levels[start:stop] = level
        epoch[start:stop] = "on_step" if level > before else "off_step"
        start, before = stop, level
    made_by = provenance(generator="light_steps", seed=seed, duration=duration, amplitude=amplitude)
    frames = np.broadcast_to(levels[:, None, None], (n_frames, *shape))
    return make_movie(frames, bin_width=bin_width, epoch=epoch, attrs=made_by)


def grating_frames(
    shape: tuple[int, int],
    *,
    n_frames: int,
    direction: float,
    period: float,
    shift: float,
    contrast: float,
    phase: float,
) -> np.ndarray:
    """Frames (time, y, x) of a sinusoidal grating that moves `shift` pixels a frame."""
    along = position_along(shape, direction)
    moved = along - shift * np.arange(n_frames)[:, None, None]
    return contrast * np.sin(2 * np.pi * moved / period + phase)


def moving_gratings(
    *,
    n_frames: int,
    shape: tuple[int, int] = (24, 24),
    seed: int = 0,
    bin_width: float = 0.01,
    duration: tuple[float, float] = (0.5, 1.5),
    period: tuple[float, float] = (5.0, 12.0),
    frequency: tuple[float, float] = (1.0, 6.0),
    contrast: tuple[float, float] = (0.5, 1.3),
    still_share: float = 0.2,
    directions: Sequence[float] | None = None,
) -> xr.DataArray:
    """Sinusoidal gratings, drifting or still, one after another.

    Parameters
    ----------
    n_frames : int
        Length of the movie.
    shape : tuple of int
        Height and width in pixels.
    seed : int
        Seed of all that is random.
    bin_width : float
        Duration of a frame in seconds.
    duration : tuple of float
        Limits of the duration of a grating in seconds.
    period : tuple of float
        Limits of its period in pixels.
    frequency : tuple of float
        Limits of its temporal frequency in Hz; its speed is period x frequency.
    contrast : tuple of float
        Limits of its amplitude.
    still_share : float
        Share of the gratings that stand still.
    directions : sequence of float, optional
        Directions to draw from, in degrees; any direction by default.

    Returns
    -------
    DataArray
        Contrast (time, y, x); `epoch` is ``"grating"`` or ``"still"``, `direction` that of the
        drift in degrees, NaN for a still one.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> from retina_codec import stimuli
    >>> movie = stimuli.moving_gratings(n_frames=200, seed=0, still_share=0, directions=[0, 90])
    >>> set(movie["direction"].values.tolist()) <= {0.0, 90.0}
    True
    """
    require_size(n_frames, shape, bin_width)
    limits = {"duration": duration, "period": period, "frequency": frequency, "contrast": contrast}
    for name, pair in limits.items():
        require_range(pair, name)
    if not 0 <= still_share <= 1:
        raise ValueError(f"still_share={still_share!r}; expected a share between 0 and 1")
    _require_directions(directions)
    rng = np.random.default_rng(seed)
    frames = np.empty((n_frames, *shape), dtype=np.float32)
    epoch = np.empty(n_frames, dtype="<U7")
    heading = np.full(n_frames, np.nan)
    start = 0
    while start < n_frames:
        length = duration_in_frames(rng, duration, bin_width)
        still = bool(rng.uniform() < still_share)
        towards = _draw_direction(rng, directions)
        cycle = rng.uniform(*period)
        shift = cycle * rng.uniform(*frequency) * bin_width
        shown = grating_frames(
            shape,
            n_frames=length,
            direction=towards,
            period=cycle,
            shift=0.0 if still else shift,
            contrast=rng.uniform(*contrast),
            phase=rng.uniform(0, 2 * np.pi),
        )
        stop = min(n_frames, start + length)
        frames[start:stop] = shown[: stop - start]
        epoch[start:stop] = "still" if still else "grating"
        heading[start:stop] = np.nan if still else towards
        start = stop
    made_by = provenance(
        generator="moving_gratings",
        seed=seed,
        still_share=still_share,
        directions=directions,
        **limits,
    )
    return make_movie(frames, bin_width=bin_width, epoch=epoch, direction=heading, attrs=made_by)


def bar_crossing(shape: tuple[int, int], direction: float, width: float) -> float:
    """Way in pixels from where a bar is just outside the field to where it has just left it."""
    along = position_along(shape, direction)
    return float(along.max() - along.min() + width + 1)


def bar_frames(
    shape: tuple[int, int],
    *,
    n_frames: int,
    direction: float,
    width: float,
    shift: float,
    contrast: float,
) -> np.ndarray:
    """Frames (time, y, x) of a bar that enters the field and moves `shift` pixels a frame.

    The bar is across `direction`; a pixel it covers in part has a part of its contrast.
    """
    centres = shift * np.arange(n_frames) - bar_crossing(shape, direction, width) / 2
    return bars_at(shape, centres, direction=direction, width=width, contrast=contrast)


def bars_at(
    shape: tuple[int, int],
    centres: np.ndarray,
    *,
    direction: float,
    width: float,
    contrast: float,
) -> np.ndarray:
    """Frames (time, y, x) of a bar whose middle is at `centres` (time,) along `direction`.

    Places and `width` are in pixels, places from the middle of the field; a pixel that the bar
    covers in part has a part of its contrast.
    """
    along = position_along(shape, direction)
    cover = (width + 1) / 2 - np.abs(along - np.asarray(centres)[:, None, None])
    return contrast * np.clip(cover, 0, min(1.0, width))


def moving_bars(
    *,
    n_frames: int,
    shape: tuple[int, int] = (24, 24),
    seed: int = 0,
    bin_width: float = 0.01,
    width: tuple[float, float] = (2.0, 4.0),
    speed: tuple[float, float] = (0.2, 0.8),
    contrast: tuple[float, float] = (1.0, 1.5),
    directions: Sequence[float] | None = None,
) -> xr.DataArray:
    """Bright and dark bars on grey that cross the whole field, one after another.

    Parameters
    ----------
    n_frames : int
        Length of the movie.
    shape : tuple of int
        Height and width in pixels.
    seed : int
        Seed of all that is random.
    bin_width : float
        Duration of a frame in seconds.
    width : tuple of float
        Limits of the width of a bar in pixels.
    speed : tuple of float
        Limits of its speed in pixels a frame.
    contrast : tuple of float
        Limits of its contrast; half of the bars are dark.
    directions : sequence of float, optional
        Directions to draw from, in degrees; any direction by default.

    Returns
    -------
    DataArray
        Contrast (time, y, x); `epoch` is ``"bar"``, `direction` in degrees.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> from retina_codec import stimuli
    >>> movie = stimuli.moving_bars(n_frames=300, seed=0)
    >>> bool(abs(movie).max() > 0.9), str(movie["epoch"].values[0])
    (True, 'bar')
    """
    require_size(n_frames, shape, bin_width)
    limits = {"width": width, "speed": speed, "contrast": contrast}
    for name, pair in limits.items():
        require_range(pair, name)
    _require_directions(directions)
    rng = np.random.default_rng(seed)
    frames = np.empty((n_frames, *shape), dtype=np.float32)
    heading = np.empty(n_frames)
    start = 0
    while start < n_frames:
        towards = _draw_direction(rng, directions)
        breadth = rng.uniform(*width)
        shift = rng.uniform(*speed)
        polarity = rng.choice([-1.0, 1.0])
        length = int(np.ceil(bar_crossing(shape, towards, breadth) / shift))
        shown = bar_frames(
            shape,
            n_frames=length,
            direction=towards,
            width=breadth,
            shift=shift,
            contrast=polarity * rng.uniform(*contrast),
        )
        stop = min(n_frames, start + length)
        frames[start:stop] = shown[: stop - start]
        heading[start:stop] = towards
        start = stop
    made_by = provenance(generator="moving_bars", seed=seed, directions=directions, **limits)
    return make_movie(frames, bin_width=bin_width, epoch="bar", direction=heading, attrs=made_by)


def white_noise(
    *,
    n_frames: int,
    shape: tuple[int, int] = (24, 24),
    seed: int = 0,
    bin_width: float = 0.01,
    check: int = 2,
    hold: int = 3,
    contrast: float = 1.0,
) -> xr.DataArray:
    """Binary white noise: square checks, bright or dark at random, held for some frames.

    Parameters
    ----------
    n_frames : int
        Length of the movie.
    shape : tuple of int
        Height and width in pixels; a check is cut where it does not fit.
    seed : int
        Seed of the checks.
    bin_width : float
        Duration of a frame in seconds.
    check : int
        Side of a check in pixels.
    hold : int
        Frames that a pattern stands.
    contrast : float
        Checks are ``-contrast`` or ``contrast``.

    Returns
    -------
    DataArray
        Contrast (time, y, x); `epoch` is ``"noise"``.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> from retina_codec import stimuli
    >>> movie = stimuli.white_noise(n_frames=30, shape=(8, 8), seed=0)
    >>> sorted(set(movie.values.ravel().tolist()))
    [-1.0, 1.0]
    """
    require_size(n_frames, shape, bin_width)
    require_count(check, 1, "check")
    require_count(hold, 1, "hold")
    require_at_least(contrast, 0, "contrast")
    rng = np.random.default_rng(seed)
    size = (-(-n_frames // hold), *(-(-n // check) for n in shape))
    patterns = contrast * (2.0 * rng.integers(0, 2, size=size) - 1.0)
    rows, columns = (np.arange(n) // check for n in shape)
    frames = patterns[np.arange(n_frames)[:, None, None] // hold, rows[:, None], columns]
    made_by = provenance(
        generator="white_noise", seed=seed, check=check, hold=hold, contrast=contrast
    )
    return make_movie(frames, bin_width=bin_width, epoch="noise", attrs=made_by)


def _require_directions(directions: Sequence[float] | None) -> None:
    if directions is not None and len(directions) == 0:
        raise ValueError("directions is empty; expected degrees, or None for any direction")


def _draw_direction(rng: np.random.Generator, directions: Sequence[float] | None) -> float:
    if directions is None:
        return float(rng.uniform(0, 360))
    return float(rng.choice(np.asarray(directions, dtype=float)))
