"""Pictures that movies are cut from: two photographs, and dead leaves."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from retina_codec._common.checks import require_dims
from retina_codec.stimuli.movie import require_range

REC_709_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
PHOTOGRAPHS = {"china": "danielbuechele", "flower": "vultilion"}


def photographs() -> dict[str, xr.DataArray]:
    """Two photographs, as relative luminance.

    They come with scikit-learn: ``china.jpg`` by danielbuechele and ``flower.jpg`` by vultilion
    (Flickr), both under Creative Commons Attribution 2.0; details in
    :func:`sklearn.datasets.load_sample_images`. Pixel values are linearised (sRGB,
    IEC 61966-2-1) and weighted to luminance (Rec. ITU-R BT.709).

    Returns
    -------
    dict of str to DataArray
        ``"china"`` and ``"flower"``: relative luminance (y, x), 427 x 640 pixels, 0 = black and
        1 = white, with their credit in the attrs.

    Examples
    --------
    >>> from retina_codec import stimuli
    >>> pictures = stimuli.photographs()
    >>> sorted(pictures), pictures["china"].shape
    (['china', 'flower'], (427, 640))
    """
    from sklearn.datasets import load_sample_image

    return {
        name: _image(
            _linear(load_sample_image(f"{name}.jpg") / 255.0) @ REC_709_LUMINANCE,
            long_name="relative luminance",
            credit=f"{name}.jpg by {author} (Flickr), CC BY 2.0, from scikit-learn",
        )
        for name, author in PHOTOGRAPHS.items()
    }


def dead_leaves(
    shape: tuple[int, int] = (256, 256),
    *,
    seed: int = 0,
    radius: tuple[float, float] = (2.0, 60.0),
    levels: tuple[float, float] = (0.0, 1.0),
) -> xr.DataArray:
    """Opaque discs fallen on one another: a picture with the edges and scales of natural scenes.

    Radii follow the density r^-3 between two limits, which makes the picture scale invariant in
    between (Lee, Mumford & Huang, Int. J. Comput. Vis. 41, 2001); places and grey levels are
    uniform. Discs fall until they cover every pixel.

    Parameters
    ----------
    shape : tuple of int
        Height and width in pixels.
    seed : int
        Seed of places, radii and grey levels.
    radius : tuple of float
        Smallest and largest radius in pixels.
    levels : tuple of float
        Smallest and largest grey level.

    Returns
    -------
    DataArray
        Relative luminance (y, x).

    Raises
    ------
    ValueError
        If `shape` is not two positive sizes, or a pair of limits is not ordered and positive.

    Examples
    --------
    >>> from retina_codec import stimuli
    >>> leaves = stimuli.dead_leaves((64, 64), seed=1)
    >>> leaves.dims, bool(leaves.min() >= 0), bool(leaves.max() <= 1)
    (('y', 'x'), True, True)
    """
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"shape={shape!r}; expected (height, width) in pixels, each at least 1")
    require_range(radius, "radius")
    require_range(levels, "levels", above=-np.inf)
    rng = np.random.default_rng(seed)
    height, width = shape
    picture = np.full(shape, np.nan)
    smallest, largest = (limit**-2 for limit in radius)
    # Discs are laid from the uppermost down: a new one shows only where nothing lies yet.
    while np.isnan(picture).any():
        r = (smallest + rng.uniform() * (largest - smallest)) ** -0.5  # inverse of the r^-3 law
        y = rng.uniform(-r, height - 1 + r)
        x = rng.uniform(-r, width - 1 + r)
        level = rng.uniform(*levels)
        rows = slice(max(0, int(np.ceil(y - r))), max(0, int(y + r) + 1))
        columns = slice(max(0, int(np.ceil(x - r))), max(0, int(x + r) + 1))
        part = picture[rows, columns]
        yy = np.arange(height)[rows, None] - y
        xx = np.arange(width)[None, columns] - x
        part[np.isnan(part) & (yy**2 + xx**2 <= r**2)] = level
    return _image(picture, long_name="relative luminance", credit=f"dead leaves, seed {seed}")


def split_images(
    images: Mapping[str, xr.DataArray], *, fraction: float = 0.62
) -> tuple[dict[str, xr.DataArray], dict[str, xr.DataArray]]:
    """Cut each picture in a left part to train on and a right part to test on.

    Parameters
    ----------
    images : mapping of str to DataArray
        Pictures (y, x).
    fraction : float
        Share of the width that goes to the left part.

    Returns
    -------
    tuple of two dicts
        The left parts and the right parts, under the names of the pictures.

    Raises
    ------
    ValueError
        If `fraction` is not between 0 and 1.

    Examples
    --------
    >>> from retina_codec import stimuli
    >>> train, test = stimuli.split_images(stimuli.photographs())
    >>> train["china"].sizes["x"], test["china"].sizes["x"]
    (397, 243)
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction={fraction!r}; expected a number between 0 and 1")
    left, right = {}, {}
    for name, image in images.items():
        image = require_dims(image, ("y", "x"), f"images[{name!r}]")
        cut = round(fraction * image.sizes["x"])
        left[name] = image.isel(x=slice(None, cut))
        right[name] = image.isel(x=slice(cut, None))
    return left, right


def _linear(srgb: np.ndarray) -> np.ndarray:
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _image(values: np.ndarray, *, long_name: str, credit: str) -> xr.DataArray:
    height, width = values.shape
    return xr.DataArray(
        values.astype(np.float32),
        dims=("y", "x"),
        coords={
            "y": ("y", np.arange(height), {"units": "pixel"}),
            "x": ("x", np.arange(width), {"units": "pixel"}),
        },
        name="luminance",
        attrs={"units": "1", "long_name": long_name, "credit": credit},
    )
