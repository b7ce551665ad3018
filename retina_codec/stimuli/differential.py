"""Motion of an object against its background, and the same motion of both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from retina_codec._common.checks import require_at_least, require_choice
from retina_codec._common.provenance import provenance
from retina_codec.stimuli.movie import (
    duration_in_frames,
    make_movie,
    pixel_grid,
    position_along,
    require_range,
    require_size,
)

# What moves: the object, the background, and whether both take the same way.
MOTIONS = {
    "global_motion": (True, True, True),
    "differential_motion": (True, True, False),
    "object_motion": (True, False, False),
    "background_motion": (False, True, False),
}


def differential_motion(
    *,
    n_frames: int,
    shape: tuple[int, int] = (24, 24),
    seed: int = 0,
    bin_width: float = 0.01,
    duration: tuple[float, float] = (1.0, 2.0),
    period: float = 8.0,
    radius: float = 5.0,
    centre: tuple[float, float] = (0.0, 0.0),
    jitter: float = 0.5,
    contrast: float = 1.0,
    motions: Sequence[str] = tuple(MOTIONS),
) -> xr.DataArray:
    """Jitter a grating in a disc (the object) and one round it (the background).

    The stimulus of Olveczky, Baccus & Meister, Nature 423:401, 2003: both gratings make random
    walks across their stripes, the same or each its own, or one of them stands still. Motions take
    turns.

    Parameters
    ----------
    n_frames : int
        Length of the movie.
    shape : tuple of int
        Height and width in pixels.
    seed : int
        Seed of durations, walks and phases.
    bin_width : float
        Duration of a frame in seconds.
    duration : tuple of float
        Limits of the duration of a motion in seconds.
    period : float
        Of both gratings, in pixels.
    radius : float
        Of the disc, in pixels.
    centre : tuple of float
        y and x of its middle, in pixels from that of the field.
    jitter : float
        Step of the walks: standard deviation in pixels a frame.
    contrast : float
        Amplitude of the gratings.
    motions : sequence of str
        Of ``"global_motion"`` (both together), ``"differential_motion"`` (each its own way),
        ``"object_motion"`` and ``"background_motion"`` (one alone); in this order, again and again.

    Returns
    -------
    DataArray
        Contrast (time, y, x); `epoch` is the motion.

    Raises
    ------
    ValueError
        If an argument is out of range, or a motion is not known.

    Examples
    --------
    >>> from retina_codec import stimuli
    >>> movie = stimuli.differential_motion(n_frames=900, seed=0)
    >>> sorted(set(movie["epoch"].values.tolist()))
    ['background_motion', 'differential_motion', 'global_motion', 'object_motion']
    """
    require_size(n_frames, shape, bin_width)
    require_range(duration, "duration")
    for value, name in ((period, "period"), (radius, "radius")):
        if not value > 0:
            raise ValueError(f"{name}={value!r}; expected a number of pixels above 0")
    require_at_least(jitter, 0, "jitter")
    require_at_least(contrast, 0, "contrast")
    if len(motions) == 0:
        raise ValueError(f"motions is empty; expected some of {', '.join(MOTIONS)}")
    for motion in motions:
        require_choice(motion, tuple(MOTIONS), "motions")
    rng = np.random.default_rng(seed)
    y, x = pixel_grid(shape)
    inside = np.clip(radius + 0.5 - np.hypot(y - centre[0], x - centre[1]), 0, 1)
    along = position_along(shape, 0.0)
    frames = np.empty((n_frames, *shape), dtype=np.float32)
    epoch = np.empty(n_frames, dtype=f"<U{max(map(len, MOTIONS))}")
    start, turn = 0, 0
    while start < n_frames:
        motion = motions[turn % len(motions)]
        object_moves, background_moves, together = MOTIONS[motion]
        # All of a motion is drawn before it is cut at the end of the movie.
        length = duration_in_frames(rng, duration, bin_width)
        walks = rng.normal(0.0, jitter, size=(2, length)).cumsum(axis=1)
        phases = rng.uniform(0, 2 * np.pi, size=2)
        if together:
            walks[1], phases[1] = walks[0], phases[0]
        gratings = [
            contrast * np.sin(2 * np.pi * (along - moves * walk[:, None, None]) / period + phase)
            for moves, walk, phase in zip(
                (object_moves, background_moves), walks, phases, strict=True
            )
        ]
        stop = min(n_frames, start + length)
        shown = inside * gratings[0] + (1 - inside) * gratings[1]
        frames[start:stop] = shown[: stop - start]
        epoch[start:stop] = motion
        start, turn = stop, turn + 1
    made_by = provenance(
        generator="differential_motion",
        seed=seed,
        duration=duration,
        period=period,
        radius=radius,
        centre=centre,
        jitter=jitter,
        contrast=contrast,
        motions=list(motions),
    )
    return make_movie(frames, bin_width=bin_width, epoch=epoch, attrs=made_by)
