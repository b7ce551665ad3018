"""Noise with the spectrum of natural scenes: 1/f in space and in time."""

from __future__ import annotations

import numpy as np
import xarray as xr

from retina_codec._common.checks import require_at_least
from retina_codec._common.provenance import provenance
from retina_codec.stimuli.movie import make_movie, require_size


def pink_noise(
    *,
    n_frames: int,
    shape: tuple[int, int] = (24, 24),
    seed: int = 0,
    bin_width: float = 0.01,
    clip: float = 5.0,
    exponents: tuple[float, float] = (1.0, 1.0),
    contrast: float = 1.0,
) -> xr.DataArray:
    """Clips of Gaussian noise whose amplitude falls as 1/f over spatial and temporal frequency.

    The spectra of natural scenes are of this kind in space (Field, J. Opt. Soc. Am. A 4:2379,
    1987) and in time (Dong & Atick, Network 6:345, 1995); here the two are taken as separable.
    A clip is cut from a larger periodic one, in space and in time, so that its edges are not alike.

    Parameters
    ----------
    n_frames : int
        Length of the movie.
    shape : tuple of int
        Height and width in pixels.
    seed : int
        Seed of the noise.
    bin_width : float
        Duration of a frame in seconds.
    clip : float
        Duration of a clip in seconds; clips follow one another without a gap.
    exponents : tuple of float
        Of the amplitude over spatial and over temporal frequency: 1 is 1/f, 0 is white.
    contrast : float
        Standard deviation of the noise.

    Returns
    -------
    DataArray
        Contrast (time, y, x); `epoch` is ``"pink_noise"``.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> from retina_codec import stimuli
    >>> movie = stimuli.pink_noise(n_frames=500, shape=(16, 16), seed=0)
    >>> 0.3 < float(movie.std()) < 2
    True
    """
    require_size(n_frames, shape, bin_width)
    require_at_least(clip, bin_width, "clip")
    require_at_least(contrast, 0, "contrast")
    if len(exponents) != 2 or not min(exponents) >= 0:
        raise ValueError(f"exponents={exponents!r}; expected two numbers of at least 0")
    rng = np.random.default_rng(seed)
    length = max(1, round(clip / bin_width))
    size = (2 * length, 2 * shape[0], 2 * shape[1])
    amplitude = _amplitude(size, exponents)
    # Of white noise through this filter; the mean has none.
    amplitude *= contrast / np.sqrt(_mean_power(amplitude, size[-1]))
    frames = np.empty((n_frames, *shape), dtype=np.float32)
    for start in range(0, n_frames, length):
        # Drawn whole: a longer movie with the same seed begins with the shorter one.
        white = rng.standard_normal(size, dtype=np.float32)
        clipped = np.fft.irfftn(np.fft.rfftn(white) * amplitude, s=size, axes=(0, 1, 2))
        stop = min(n_frames, start + length)
        frames[start:stop] = clipped[: stop - start, : shape[0], : shape[1]]
    made_by = provenance(
        generator="pink_noise", seed=seed, clip=clip, exponents=exponents, contrast=contrast
    )
    return make_movie(frames, bin_width=bin_width, epoch="pink_noise", attrs=made_by)


def _amplitude(size: tuple[int, int, int], exponents: tuple[float, float]) -> np.ndarray:
    """Filter over the frequencies of `rfftn`; below the lowest frequency it does not grow."""
    t, y, x = (np.fft.fftfreq(size[0]), np.fft.fftfreq(size[1]), np.fft.rfftfreq(size[2]))
    space = np.hypot(y[:, None], x)
    lowest = 1 / min(size[1:])
    found = (
        np.maximum(space, lowest) ** -exponents[0]
        * (np.maximum(np.abs(t), 1 / size[0]) ** -exponents[1])[:, None, None]
    )
    found[0, 0, 0] = 0.0
    return found


def _mean_power(amplitude: np.ndarray, width: int) -> float:
    """Variance of unit white noise through the filter, over all frequencies of `fftn`."""
    twice = np.full(amplitude.shape[-1], 2.0)
    twice[0] = 1.0
    if width % 2 == 0:
        twice[-1] = 1.0
    n = amplitude.shape[0] * amplitude.shape[1] * width
    return float((amplitude**2 * twice).sum() / n)
