"""Natural movies: what an eye that jitters, drifts and jumps sees of pictures and objects."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr
from scipy.ndimage import uniform_filter

from retina_codec._common.checks import require_at_least, require_dims, require_finite
from retina_codec._common.provenance import provenance
from retina_codec.stimuli.movie import (
    duration_in_frames,
    make_movie,
    pixel_grid,
    require_range,
    require_size,
)

STRIDE = 3  # picture pixels to a movie pixel: the smallest shift is a third of a movie pixel
CLIP = 2.0  # standard deviations of a picture at which its bright and dark ends are cut


def natural_movie(
    images: Mapping[str, xr.DataArray] | xr.DataArray | np.ndarray,
    *,
    n_frames: int,
    shape: tuple[int, int] = (24, 24),
    seed: int = 0,
    bin_width: float = 0.01,
    fixation: tuple[float, float] = (0.4, 1.2),
    jitter: float = 0.27,
    drift_share: float = 0.5,
    drift: float = 0.7,
    object_share: float = 0.5,
    object_radius: tuple[float, float] = (3.0, 6.0),
    object_speed: tuple[float, float] = (0.1, 0.8),
) -> xr.DataArray:
    """Fixations on pictures, with eye jitter, drifts, saccades and moving textured discs.

    A picture is z-scored and clipped at 2 standard deviations; a movie pixel is the mean of
    3 x 3 picture pixels, so shifts by a third of a movie pixel exist. A fixation begins with a
    jump to a random place of a random picture. While it lasts, the gaze makes a random walk
    (`jitter`), in some fixations with a steady drift; in some a disc cut from another patch
    glides over the picture, its texture fixed to it, and passes near the middle of the field.
    Where the gaze would leave the picture, it turns back.

    Parameters
    ----------
    images : mapping of str to DataArray, or array
        Pictures (y, x), each at least three times as high and wide as `shape`, plus 3 pixels; or
        an array (image, y, x) of several.
    n_frames : int
        Length of the movie.
    shape : tuple of int
        Height and width in pixels.
    seed : int
        Seed of all that is random.
    bin_width : float
        Duration of a frame in seconds.
    fixation : tuple of float
        Shortest and longest fixation in seconds.
    jitter : float
        Step of the random walk, standard deviation in each direction, pixels a frame.
    drift_share, drift : float
        Share of the fixations with a drift, and its highest speed in pixels a frame.
    object_share : float
        Share of the fixations with a moving disc.
    object_radius, object_speed : tuple of float
        Limits of its radius in pixels, and of its speed relative to the picture in pixels a
        frame.

    Returns
    -------
    DataArray
        Contrast (time, y, x), in standard deviations of the picture; `epoch` is ``"natural"``.

    Raises
    ------
    ValueError
        If a picture is too small or constant or not finite, or an argument is out of range.

    Examples
    --------
    >>> from retina_codec import stimuli
    >>> pictures = stimuli.photographs()
    >>> movie = stimuli.natural_movie(pictures, n_frames=200, shape=(8, 8), seed=3)
    >>> movie.sizes["time"], str(movie["epoch"].values[0]), bool(abs(movie).max() <= 2)
    (200, 'natural', True)
    """
    require_size(n_frames, shape, bin_width)
    require_range(fixation, "fixation")
    require_range(object_radius, "object_radius")
    require_range(object_speed, "object_speed", above=-1e-12)
    require_at_least(jitter, 0, "jitter")
    require_at_least(drift, 0, "drift")
    for share, name in ((drift_share, "drift_share"), (object_share, "object_share")):
        if not 0 <= share <= 1:
            raise ValueError(f"{name}={share!r}; expected a share between 0 and 1")
    images = _named(images)
    pictures = _boxed_pictures(images, shape)
    rng = np.random.default_rng(seed)
    frames = np.empty((n_frames, *shape), dtype=np.float32)
    start = 0
    while start < n_frames:
        # All of a fixation is drawn before it is cut at the end of the movie: a longer movie
        # with the same seed begins with the shorter one.
        length = duration_in_frames(rng, fixation, bin_width)
        gaze = rng.normal(0.0, jitter, size=(length, 2)).cumsum(axis=0)
        if rng.uniform() < drift_share:
            gaze += np.arange(length)[:, None] * _velocity(rng, (0.0, drift))
        scene = _scene(pictures[rng.integers(len(pictures))], gaze, shape, rng)
        if rng.uniform() < object_share:
            disc = pictures[rng.integers(len(pictures))]
            scene = _with_disc(scene, disc, gaze, object_radius, object_speed, rng)
        stop = min(n_frames, start + length)
        frames[start:stop] = scene[: stop - start]
        start = stop
    made_by = provenance(
        generator="natural_movie",
        images=list(images),
        seed=seed,
        fixation=fixation,
        jitter=jitter,
        drift_share=drift_share,
        drift=drift,
        object_share=object_share,
        object_radius=object_radius,
        object_speed=object_speed,
    )
    return make_movie(frames, bin_width=bin_width, epoch="natural", attrs=made_by)


def _named(
    images: Mapping[str, xr.DataArray] | xr.DataArray | np.ndarray,
) -> Mapping[str, xr.DataArray]:
    """Pictures by name; those of an array by their number."""
    if isinstance(images, Mapping):
        return images
    values = np.asarray(images)
    if values.ndim != 3:
        raise ValueError(
            f"images has the shape {values.shape}; expected grey pictures (image, y, x), or a "
            "mapping of names to DataArrays (y, x)"
        )
    return {str(i): xr.DataArray(one, dims=("y", "x")) for i, one in enumerate(values)}


def _boxed_pictures(images: Mapping[str, xr.DataArray], shape: tuple[int, int]) -> list[np.ndarray]:
    """Pictures z-scored, clipped, and averaged over a 3 x 3 box round every pixel."""
    if len(images) == 0:
        raise ValueError("images is empty; expected at least one picture: see photographs()")
    boxed = []
    for name, image in images.items():
        argument = f"images[{name!r}]"
        image = require_dims(image, ("y", "x"), argument)
        require_finite(image, argument)
        least = tuple(STRIDE * n + STRIDE for n in shape)
        if image.shape[0] < least[0] or image.shape[1] < least[1]:
            raise ValueError(
                f"{argument} has {image.shape[0]} x {image.shape[1]} pixels; a movie of shape "
                f"{tuple(shape)} needs at least {least[0]} x {least[1]}: take a larger picture"
            )
        values = image.values.astype(np.float64)
        if not values.std() > 0:
            raise ValueError(f"{argument} has the same value everywhere; expected a picture")
        scored = np.clip((values - values.mean()) / values.std(), -CLIP, CLIP)
        boxed.append(uniform_filter(scored, STRIDE, mode="nearest")[1:-1, 1:-1])
    return boxed


def _velocity(rng: np.random.Generator, speed: tuple[float, float]) -> np.ndarray:
    """Draw a velocity (y, x) with a uniform direction and a uniform speed."""
    angle = rng.uniform(0, 2 * np.pi)
    return rng.uniform(*speed) * np.array([np.sin(angle), np.cos(angle)])


def _folded(position: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Reflect positions into 0 .. last."""
    return last - np.abs(np.mod(position, 2 * last) - last)


def _scene(
    picture: np.ndarray, gaze: np.ndarray, shape: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """Frames (time, y, x) of `picture` seen along `gaze` (pixels), from a random place."""
    last = np.array(picture.shape) - STRIDE * (np.array(shape) - 1) - 1
    corner = np.rint(_folded(rng.uniform(0, last) + STRIDE * gaze, last)).astype(int)
    rows = corner[:, :1] + STRIDE * np.arange(shape[0])
    columns = corner[:, 1:] + STRIDE * np.arange(shape[1])
    return picture[rows[:, :, None], columns[:, None, :]]


def _with_disc(
    scene: np.ndarray,
    picture: np.ndarray,
    gaze: np.ndarray,
    radius_limits: tuple[float, float],
    speed_limits: tuple[float, float],
    rng: np.random.Generator,
) -> np.ndarray:
    """Lay a moving disc cut from `picture` over the frames of `scene`."""
    radius = rng.uniform(*radius_limits)
    velocity = _velocity(rng, speed_limits)
    passing = rng.uniform(0, len(scene))  # when the disc is at `place`
    place = rng.uniform(-2, 2, size=2)
    own = place + (np.arange(len(scene)) - passing)[:, None] * velocity
    # The gaze moves every image the other way, that of the disc too.
    centre = own - (gaze - gaze[int(passing)])
    size = np.array(picture.shape)
    middle = rng.uniform(size / 4, 3 * size / 4)
    yy, xx = pixel_grid(scene.shape[1:])
    dy, dx = yy - centre[:, 0, None, None], xx - centre[:, 1, None, None]
    cover = np.clip(radius + 0.5 - np.hypot(dy, dx), 0, 1)
    # Outside the disc the places looked up do not matter, so they may be folded.
    rows = np.rint(_folded(middle[0] + STRIDE * dy, size[0] - 1)).astype(int)
    columns = np.rint(_folded(middle[1] + STRIDE * dx, size[1] - 1)).astype(int)
    return cover * picture[rows, columns] + (1 - cover) * scene
