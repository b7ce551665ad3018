"""What is done to pictures before a network sees them: resized and cropped, then normalised."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms

# Steps of a torchvision pipeline that change no value: from a picture to numbers in [0, 1].
TO_NUMBERS = ("ToTensor", "PILToTensor", "ToImage", "ToDtype", "ConvertImageDtype", "RGB")
REMEDY = (
    "expected a retina_codec.classifiers.Preprocessing, weights.transforms() of torchvision, or a "
    "Compose of Resize, CenterCrop, ToTensor and Normalize, in that order; put anything else into "
    "the network, or apply it to the images before"
)


@dataclass(frozen=True)
class Preprocessing:
    """How pictures become inputs of a network.

    `resize` and `crop` are done where pictures are opened, by
    `retina_codec.classifiers.open_images`; a classifier takes images of their final size and does
    the rest, ``(image - mean) / sd``, itself, so that the baseline 0 of a contribution method is
    the mean colour.

    Parameters
    ----------
    resize : int or (int, int), optional
        Pixels of the shorter side, or (y, x).
    crop : (int, int), optional
        Pixels (y, x) of the centre that is kept.
    interpolation : {"bilinear", "bicubic", "nearest", "box", "hamming", "lanczos"}
        Of `resize`; pixels are averaged where the picture becomes smaller, but for "nearest".
    mean, sd : sequence of float, optional
        Of each colour, for images in [0, 1]; without them the network sees the images as they
        are.

    Raises
    ------
    ValueError
        If only one of `mean` and `sd` is given, they differ in length, an `sd` is not positive, or
        a size is not.

    Examples
    --------
    >>> import retina_codec as rc
    >>> from torchvision.models import ResNet50_Weights
    >>> rc.classifiers.Preprocessing.of(ResNet50_Weights.IMAGENET1K_V2.transforms())
    Preprocessing(resize=232, crop=(224, 224), interpolation='bilinear', mean=(0.485, 0.456, 0.406),
                  sd=(0.229, 0.224, 0.225))
    """

    resize: int | tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    interpolation: str = "bilinear"
    mean: tuple[float, ...] | None = None
    sd: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        mean, sd = self.mean, self.sd
        if (mean is None) != (sd is None):
            raise ValueError(f"mean={mean} and sd={sd}: give both, or neither")
        if mean is not None and sd is not None:
            mean, sd = (tuple(float(value) for value in values) for values in (mean, sd))
            if len(mean) != len(sd):
                raise ValueError(f"mean={mean} and sd={sd} differ in length; one value a colour")
            if not all(value > 0 for value in sd):
                raise ValueError(f"sd={sd}; expected positive numbers")
            object.__setattr__(self, "mean", mean)
            object.__setattr__(self, "sd", sd)
        for name, given in (("resize", self.resize), ("crop", self.crop)):
            sizes = () if given is None else (given,) if isinstance(given, int) else tuple(given)
            if not all(isinstance(size, int) and size > 0 for size in sizes):
                raise ValueError(f"{name}={given!r}; expected whole numbers of pixels above 0")
        known = [mode.value for mode in InterpolationMode]
        if self.interpolation not in known:
            raise ValueError(
                f"interpolation={self.interpolation!r} is not known; choices: {', '.join(known)}"
            )

    @classmethod
    def of(cls, given: Any) -> Preprocessing:
        """Read it from transforms of torchvision, or take it as it is.

        Parameters
        ----------
        given : Preprocessing, torchvision transform or None
            ``weights.transforms()``, or a ``Compose`` (also of ``transforms.v2``) of Resize,
            CenterCrop, steps to numbers, and Normalize.

        Returns
        -------
        Preprocessing
            The same, as plain numbers.

        Raises
        ------
        TypeError
            If it is something else, or has a step that is none of these.
        ValueError
            If its steps are in another order.
        """
        if given is None:
            return cls()
        if isinstance(given, cls):
            return given
        if hasattr(given, "resize_size") and hasattr(given, "crop_size"):  # torchvision's presets
            return cls(
                _one_or_two(given.resize_size),
                _two(given.crop_size),
                given.interpolation.value,
                tuple(given.mean),
                tuple(given.std),
            )
        said: dict[str, Any] = {}
        for step in _steps(given):
            kind = type(step).__name__
            if not type(step).__module__.startswith("torchvision.") or kind not in (
                "Resize",
                "CenterCrop",
                "Normalize",
                *TO_NUMBERS,
            ):
                raise TypeError(f"preprocess={kind!r} is no step that is known; {REMEDY}")
            before = {"Resize": (), "CenterCrop": ("resize",), "Normalize": ("resize", "crop")}
            if kind in before and not set(said) - {"interpolation"} <= set(before[kind]):
                raise ValueError(f"preprocess has {kind} after {', '.join(said)}; {REMEDY}")
            if kind == "Resize":
                said["resize"] = _one_or_two(step.size)
                said["interpolation"] = getattr(step.interpolation, "value", step.interpolation)
            elif kind == "CenterCrop":
                said["crop"] = _two(step.size)
            elif kind == "Normalize":
                said["mean"], said["sd"] = tuple(step.mean), tuple(step.std)
        return cls(**said)

    def size_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """Size (y, x) that a picture of `size` (y, x) has afterwards."""
        if self.crop is not None:
            return self.crop
        if self.resize is None:
            return size
        if not isinstance(self.resize, int):
            return self.resize
        short, long = min(size), max(size)
        longer = int(self.resize * long / short)  # as torchvision rounds it
        return (self.resize, longer) if size[0] <= size[1] else (longer, self.resize)

    def arranged(self, picture: Image.Image) -> Image.Image:
        """Resize and crop a picture."""
        if self.resize is not None:
            size = [self.resize] if isinstance(self.resize, int) else list(self.resize)
            picture = transforms.resize(picture, size, InterpolationMode(self.interpolation))
        if self.crop is not None:
            picture = transforms.center_crop(picture, list(self.crop))
        return picture

    def described(self) -> dict[str, Any]:
        """Say it in plain values."""
        return asdict(self)


def _steps(given: Any) -> Iterator[Any]:
    """Go through the steps of a pipeline, whatever holds them."""
    inner = getattr(given, "transforms", None)
    if inner is None and type(given).__name__ == "Sequential":
        inner = list(given)
    if inner is None:
        yield given
        return
    for step in inner:
        yield from _steps(step)


def _one_or_two(size: int | Sequence[int]) -> int | tuple[int, int]:
    sizes = [size] if isinstance(size, int) else list(size)
    return int(sizes[0]) if len(sizes) == 1 else (int(sizes[0]), int(sizes[1]))


def _two(size: int | Sequence[int]) -> tuple[int, int]:
    given = _one_or_two(size)
    return (given, given) if isinstance(given, int) else given
