"""One picture file, as red, green and blue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
KINDS = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey with transparency",
    "P": "a palette",
    "PA": "a palette with transparency",
    "RGBA": "colour with transparency",
    "CMYK": "CMYK",
    "I": "whole numbers of 32 bits",
    "F": "real numbers",
}


def picture_size(path: Path) -> tuple[int, int]:
    """Size (y, x) of a picture, from the head of its file; OSError if it is no picture."""
    try:
        with Image.open(path) as picture:
            width, height = picture.size
    except MemoryError:  # not the picture's fault: it must not be skipped for it
        raise
    except Exception as error:
        raise _unreadable(path, error) from error
    return height, width


def read_picture(path: Path, *, convert: bool) -> Image.Image:
    """Read a picture whole, as red, green and blue.

    Raises
    ------
    OSError
        If it is missing, no picture, or damaged.
    ValueError
        If it has another kind of colours and is not to be converted, or has none that can be.
    """
    try:
        with Image.open(path) as picture:
            picture.load()
    except MemoryError:  # not the picture's fault: it must not be skipped for it
        raise
    # Whatever a decoder raises for a damaged file: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        raise _unreadable(path, error) from error
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    mode = picture.mode
    kind = "grey of 16 bits" if mode.startswith("I;16") else KINDS.get(mode, f"mode {mode}")
    if not convert:
        raise ValueError(
            f"image {path} is {kind}; expected red, green and blue: convert=True converts it, or "
            "leave it out"
        )
    if mode.startswith("I;16"):
        # From 0..65535 to 0..255, as a grey of 8 bits.
        grey = np.round(np.asarray(picture, dtype=np.float64) / 257).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if mode in ("I", "F"):
        raise ValueError(
            f"image {path} is of {kind}, whose range a file does not say: scale it to 0..255 and "
            "save it anew"
        )
    if "A" in mode or "transparency" in picture.info:
        alpha = np.asarray(picture.convert("RGBA"))[..., 3]
        if (alpha < 255).any():
            raise ValueError(
                f"image {path} has transparent pixels: paste it on a background and save it anew"
            )
    return picture.convert("RGB")


def _unreadable(path: Path, error: Exception) -> OSError:
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(f"image {path} does not exist")
    return OSError(
        f"image {path} cannot be read ({type(error).__name__}: {error}): copy it again, or leave "
        "out what is damaged with corrupted='skip'"
    )
