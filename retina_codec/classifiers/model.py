"""`Classifier`: a network from images to category logits, behind the `Model` interface."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from retina_codec._common.checks import require_dims
from retina_codec.classifiers.preprocessing import Preprocessing
from retina_codec.models.model import Batch, LayerGeometry, Model


class ImageSamples:
    """Images as a classifier sees them: scaled to [0, 1], then normalised colour by colour."""

    def __init__(self, images: xr.DataArray, model: Classifier, argument: str = "data") -> None:
        self._images = images
        self._argument = argument
        self.input_dims: tuple[str, ...] | None = tuple(map(str, images.dims[1:]))
        self._model = model
        self.coords = {
            str(name): coord for name, coord in images.coords.items() if coord.dims == ("image",)
        }
        self.coords.setdefault("image", xr.DataArray(np.arange(len(images)), dims="image"))

    def __len__(self) -> int:
        return len(self._images)

    def batches(self, size: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Give at most `size` images at a time."""
        stop = len(self) if stop is None else stop
        for first in range(start, stop, size):
            index = slice(first, min(first + size, stop))
            yield Batch(index, self._inputs(index))

    def _inputs(self, index: slice) -> Tensor:
        """Network inputs (image, color, y, x) of a stretch of images."""
        model = self._model
        values = np.asarray(self._images[index].values)
        if values.dtype == np.uint8:
            values = values / np.float32(255)
        else:
            self._check(values, index)
        images = torch.from_numpy(np.ascontiguousarray(values)).to(model.device, model.dtype)
        if model.mean is None:
            return images
        mean, sd = model.normalization
        return (images - mean) / sd

    def _check(self, values: np.ndarray, index: slice) -> None:
        """Refuse NaN, and values outside [0, 1] if they are to be normalised."""
        bad = ~np.isfinite(values)
        if bad.any():
            raise ValueError(
                f"{self._argument} has NaN or infinite values, the first in image "
                f"{self._name(bad, index)}; replace or cut them out before"
            )
        bad = (values < 0) | (values > 1)
        if self._model.mean is not None and bad.any():
            raise ValueError(
                f"{self._argument} has values from {values.min():g} to {values.max():g}, the "
                f"first outside [0, 1] in image {self._name(bad, index)}; expected float images in "
                "[0, 1] or uint8 images 0..255, not yet normalised: divide by 255, or undo the "
                "normalisation"
            )

    def _name(self, bad: np.ndarray, index: slice) -> Any:
        return self.coords["image"].values[index.start + int(np.argwhere(bad)[0][0])]

    def layer_coords(self, layer: str, shape: tuple[int, ...]) -> dict[str, xr.DataArray]:
        """Channel numbers, and receptive-field centres in the images' own coordinates."""
        coords = {"channel": xr.DataArray(np.arange(shape[1]), dims="channel")}
        geometry = self._model.geometry.get(layer)
        for place, (axis, size) in enumerate(zip(("y", "x"), shape[2:], strict=False)):
            centre, units = np.arange(size, dtype=np.float64), "index"
            if geometry is not None:
                pixels = self._images[axis]  # indices where the images have no coordinate
                start = float(pixels[0])
                pitch = float(pixels[1]) - start if pixels.size > 1 else 1.0
                centre = start + pitch * (geometry.offset[place] + geometry.stride * centre)
                units = pixels.attrs.get("units", "pixel")
            coords[axis] = xr.DataArray(
                centre,
                dims=axis,
                attrs={"units": units, "long_name": f"receptive-field centre, {axis}"},
            )
        return coords


class Classifier(Model):
    """A network that turns images into category logits.

    Images are ``(image, color, y, x)``, float in [0, 1] or uint8 0..255; the network sees
    ``(image - mean) / sd``, so that the baseline 0 of a contribution method is an image of the
    mean colour. Images are never resized.

    Parameters
    ----------
    network : torch.nn.Module
        Takes normalised images ``(image, color, y, x)`` and gives logits ``(image, category)``.
    categories : sequence of str
        Names of the outputs.
    preprocess : Preprocessing or torchvision transform, optional
        Resizing and cropping, which `open_images` does, and mean and sd; see `Preprocessing`.
    mean, sd : sequence of float, optional
        Of each colour, for images in [0, 1]: short for a `preprocess` that only normalises.
        Without them the network sees the images as they are (uint8 divided by 255), and any number
        of colours and any range is taken.
    layers, default_layers
        As for `retina_codec.models.Model`.
    geometry : mapping of str to LayerGeometry, optional
        Where the units of a layer look; without it, their places are indices.
    image_size : (int, int), optional
        The only height and width (y, x) that the network takes; by default any.

    Raises
    ------
    ValueError
        If only one of `mean` and `sd` is given, they differ in length, or an `sd` is not
        positive; if `preprocess` is given beside them; if category names repeat.
    TypeError
        If `preprocess` is something else.

    Examples
    --------
    >>> import retina_codec as rc
    >>> rc.classifiers.resnet18(categories=["cat", "dog"])
    Classifier(2 outputs along 'category'; layers: layer1.0, layer1.1, ..., layer4.1)
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        categories: Sequence[str],
        preprocess: Any = None,
        mean: Sequence[float] | None = None,
        sd: Sequence[float] | None = None,
        layers: Mapping[str, nn.Module] | None = None,
        default_layers: Sequence[str] | None = None,
        geometry: Mapping[str, LayerGeometry] | None = None,
        image_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(
            network,
            sample_dim="image",
            output_dim="category",
            outputs=categories,
            layers=layers,
            default_layers=default_layers,
            exclusive_outputs=True,
        )
        if preprocess is not None and (mean is not None or sd is not None):
            raise ValueError(
                "preprocess and mean or sd are given: mean and sd are short for a preprocess that "
                "only normalises, and are part of it; give one of them"
            )
        self.preprocess = (
            Preprocessing(mean=_numbers(mean), sd=_numbers(sd))
            if preprocess is None
            else Preprocessing.of(preprocess)
        )
        self.geometry = dict(geometry or {})
        self.image_size = image_size

    @property
    def mean(self) -> tuple[float, ...] | None:
        """Mean of each colour that is subtracted, for images in [0, 1]."""
        return self.preprocess.mean

    @property
    def sd(self) -> tuple[float, ...] | None:
        """Standard deviation of each colour that is divided by."""
        return self.preprocess.sd

    def _settings(self) -> dict[str, Any]:
        return {**super()._settings(), "mean": self.mean, "sd": self.sd}

    @property
    def normalization(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each colour, (color, 1, 1), of images in [0, 1]."""
        if self.mean is None or self.sd is None:
            return super().normalization
        mean, sd = torch.tensor([self.mean, self.sd], device=self.device, dtype=self.dtype)
        return mean[:, None, None], sd[:, None, None]

    def samples(self, data: xr.DataArray, argument: str = "data") -> ImageSamples:
        """Check that images (image, color, y, x) fit the model, and lay them out.

        Errors call them `argument`: what they are called where the user gave them.

        Raises
        ------
        TypeError
            If `data` is not a DataArray, or neither float nor uint8.
        ValueError
            If dims or the number of colours do not fit, if there is no image, or (as images are
            read) where one has NaN or values outside [0, 1].
        """
        images = require_dims(data, ("image", "color", "y", "x"), argument)
        if images.dtype != np.uint8 and images.dtype.kind != "f":
            raise TypeError(
                f"{argument} has dtype {images.dtype}; expected uint8 (0..255) or float ([0, 1]): "
                "convert with .astype('uint8')"
            )
        colors = images.sizes["color"]
        if self.mean is not None and colors != len(self.mean):
            raise ValueError(
                f"{argument} has {colors} colours; the model takes {len(self.mean)}: for grey "
                "images repeat the plane, e.g. .isel(color=[0, 0, 0])"
            )
        if self.image_size is not None and images.shape[2:] != self.image_size:
            raise ValueError(
                f"{argument} has images of {images.shape[2]} x {images.shape[3]} pixels (y, x); "
                f"the model takes {self.image_size[0]} x {self.image_size[1]} only: resize or "
                "crop them"
            )
        if images.size == 0:
            raise ValueError(f"{argument} is empty: {dict(images.sizes)}")
        return ImageSamples(images, self, argument)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Refuse: a classifier is its weights file and the call that made it.

        Raises
        ------
        TypeError
            Always, with the way to keep the weights.
        """
        raise TypeError(
            "a classifier has no folder format: keep its weights with safetensors.torch.save_file("
            "model.network.state_dict(), 'weights.safetensors') and make it again from that file, "
            "e.g. resnet18(weights='weights.safetensors', categories=...)"
        )


def _numbers(values: Sequence[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(float(value) for value in values)


class _CountedOutputs(nn.Module):
    """A network whose outputs are checked against the number of categories."""

    def __init__(self, module: nn.Module, n_categories: int) -> None:
        super().__init__()
        self.module = module
        self.n_categories = n_categories

    def forward(self, images: Tensor) -> Tensor:
        logits = self.module(images)
        if not isinstance(logits, Tensor) or logits.shape != (len(images), self.n_categories):
            given = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(
                f"net gives {given} for {len(images)} images; expected logits (image, category) = "
                f"{(len(images), self.n_categories)}: name as many categories as it has outputs"
            )
        return logits


def from_module(
    net: nn.Module,
    *,
    categories: Sequence[str],
    preprocess: Any = None,
    mean: Sequence[float] | None = None,
    sd: Sequence[float] | None = None,
    layers: Mapping[str, nn.Module] | None = None,
    default_layers: Sequence[str] | None = None,
) -> Classifier:
    """Wrap any network that takes images and gives category logits.

    Parameters
    ----------
    net : torch.nn.Module
        Takes normalised images (image, color, y, x) and gives logits (image, category). It is run
        in evaluation mode, and left in the mode it is in.
    categories : sequence of str
        Names of the outputs, in their order.
    preprocess : Preprocessing or torchvision transform, optional
        What pictures go through, such as ``weights.transforms()`` of torchvision, or a ``Compose``
        of Resize, CenterCrop, ToTensor and Normalize. The network sees ``(image - mean) / sd`` of
        images in [0, 1]; resizing and cropping are left to ``open_images(...,
        preprocess=model.preprocess)``, because images in one array have one size.
    mean, sd : sequence of float, optional
        Of each colour: short for a `preprocess` that only normalises. Without any of the three the
        network sees the images as they are.
    layers : mapping of str to torch.nn.Module, optional
        Hidden layers by name; by default all submodules of `net` under their module path.
    default_layers : sequence of str, optional
        Layers that contributions are taken at unless told; by default all.

    Returns
    -------
    Classifier
        With `net` inside (not a copy).

    Raises
    ------
    ValueError, TypeError
        As for `Classifier`; when it runs, if `net` does not give one logit a category.

    Examples
    --------
    >>> import numpy as np
    >>> import retina_codec as rc
    >>> import xarray as xr
    >>> from torch import nn
    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
    >>> model = rc.classifiers.from_module(net, categories=["cross", "ring"])
    >>> images = xr.DataArray(np.ones((5, 1, 8, 8), "float32"), dims=("image", "color", "y", "x"))
    >>> dict(model.predict(images).sizes)
    {'image': 5, 'category': 2}
    """
    named = {name: module for name, module in net.named_modules() if name}
    return Classifier(
        _CountedOutputs(net, len(categories)),
        categories=categories,
        preprocess=preprocess,
        mean=mean,
        sd=sd,
        layers=named if layers is None else layers,
        default_layers=default_layers,
    )
