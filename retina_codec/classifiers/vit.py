"""The vision transformer ViT-B/16 of torchvision, as `Classifier`."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence

import torchvision
from torch import Tensor, nn
from torchvision.models import ViT_B_16_Weights

from retina_codec._common.checks import require_count
from retina_codec.classifiers.model import Classifier
from retina_codec.classifiers.published import count_outputs, default_names, filled, state_of
from retina_codec.models.model import LayerGeometry, UnitLayout

PATCH = 16
N_BLOCKS = 12
N_IMAGENET = 1000
IMAGE_SIZE = 224
PLACES = "encoder.pos_embedding"
HEAD = "heads.head.weight"


def vit_b_16(
    weights: str | os.PathLike[str] | None = None,
    *,
    categories: Sequence[str] | None = None,
    image_size: int | None = None,
    seed: int = 0,
) -> Classifier:
    """ViT-B/16 of torchvision, with random weights or those of a file.

    Images ``(image, color, y, x)`` (red, green, blue) are normalised with the mean and standard
    deviation that the weights want. A layer's tokens are its patches, as ``y``, ``x`` (their
    centres, in pixels), and the class token, whose contributions are
    ``contribution_class_token``: they are part of the sum that completeness is about.

    Parameters
    ----------
    weights : path or str, optional
        A local state dict (.safetensors, .pt, .pth or .th), or the name of torchvision's weights
        (``"IMAGENET1K_V1"``), which torchvision downloads. By default random weights; torchvision
        sets the head of a new network to zero, here it is drawn from a normal distribution of
        standard deviation ``1 / sqrt(768)``, so that the logits depend on the image.
    categories : sequence of str, optional
        Names of the outputs; by default as for `resnet18`.
    image_size : int, optional
        Height and width of the images, a multiple of 16; by default that of the weights, or 224.
        The network takes no other.
    seed : int
        Of the random weights.

    Returns
    -------
    Classifier
        Its default layers are the outputs of the twelve encoder blocks,
        ``encoder.layers.encoder_layer_0`` to ``encoder.layers.encoder_layer_11``, (channel, y, x)
        and the class token (channel).

    Raises
    ------
    FileNotFoundError, OSError
        If the file is missing or unreadable, or torchvision cannot download its weights.
    ValueError
        If the weights are those of another network or image size (it names the keys), `weights`
        is no known name, there are more or fewer `categories` than outputs, or `image_size` is not
        a multiple of 16.

    References
    ----------
    Dosovitskiy et al., ICLR 2021, arXiv 2010.11929.

    Examples
    --------
    >>> import retina_codec as rc
    >>> model = rc.classifiers.vit_b_16(categories=["cat", "dog"], image_size=32)
    >>> len(model.default_layers), model.layouts["encoder.layers.encoder_layer_0"].grid
    (12, (2, 2))
    """
    if image_size is not None:
        image_size = require_count(image_size, PATCH, "image_size")
        if image_size % PATCH:
            raise ValueError(f"image_size={image_size}; expected a multiple of {PATCH}")
    state = state_of(weights, ViT_B_16_Weights)
    n_outputs = count_outputs(state, HEAD, weights, categories, N_IMAGENET)
    size = image_size or _size_of(state) or IMAGE_SIZE

    def make() -> nn.Module:
        network = torchvision.models.vit_b_16(num_classes=n_outputs, image_size=size)
        head = network.heads.head
        nn.init.normal_(head.weight, std=head.in_features**-0.5)
        return network

    network = filled(make, state, weights, seed)
    named = str(weights) in ViT_B_16_Weights.__members__
    published = ViT_B_16_Weights[str(weights)] if named else ViT_B_16_Weights.IMAGENET1K_V1
    if categories is None:
        categories = default_names(published.meta["categories"], n_outputs)
    model = Classifier(
        network,
        categories=categories,
        preprocess=published.transforms(),
        default_layers=[f"encoder.layers.encoder_layer_{i}" for i in range(N_BLOCKS)],
        geometry={
            name: LayerGeometry(((PATCH - 1) / 2,) * 2, PATCH) for name in _of_patches(network)
        },
        image_size=(size, size),
    )
    tokens = UnitLayout(("token", "channel"), grid=(size // PATCH,) * 2, class_tokens=1)
    model.layouts.update(
        {name: tokens for name in _of_patches(network) if name.startswith("encoder")}
    )
    return model


def _of_patches(network: nn.Module) -> list[str]:
    """Modules whose output has a unit for each patch."""
    return [
        name for name, _ in network.named_modules() if name.startswith(("conv_proj", "encoder"))
    ]


def _size_of(state: Mapping[str, Tensor] | None) -> int | None:
    """Height and width of the images that weights are for, from the number of their patches."""
    if state is None or PLACES not in state or state[PLACES].ndim != 3:
        return None  # `fill` says what does not fit
    return PATCH * math.isqrt(max(1, state[PLACES].shape[1] - 1))
