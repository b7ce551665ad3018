"""Where the units of a convolutional network look: receptive-field centres in image pixels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from retina_codec.models.model import LayerGeometry


def through(geometry: LayerGeometry, layer: Any) -> LayerGeometry:
    """Centres after one more convolution or pooling layer.

    Unit i of a layer with kernel k, stride s and padding p looks at units ``s i - p`` to
    ``s i - p + k - 1`` of the layer before, so its centre is their unit ``s i + (k - 1) / 2 - p``.

    Parameters
    ----------
    geometry : LayerGeometry
        Of the layer's input.
    layer : torch.nn.Conv2d or torch.nn.MaxPool2d
        With the same kernel, stride and padding along y and x.

    Returns
    -------
    LayerGeometry
        Of the layer's output.
    """
    kernel, stride, padding = (
        value[0] if isinstance(value, tuple) else value
        for value in (layer.kernel_size, layer.stride, layer.padding)
    )
    shift = geometry.stride * ((kernel - 1) / 2 - padding)
    y, x = geometry.offset
    return LayerGeometry((y + shift, x + shift), geometry.stride * stride)


def resnet_geometry(network: nn.Module) -> dict[str, LayerGeometry]:
    """Centres of the stem, of all residual blocks and of the convolutions inside.

    Parameters
    ----------
    network : torchvision.models.ResNet
        With basic or bottleneck blocks.

    Returns
    -------
    dict of str to LayerGeometry
        By module path; shortcuts inside blocks are left out.
    """
    centres: dict[str, LayerGeometry] = {}
    now = LayerGeometry()
    for name, layer in _path(network):
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            now = through(now, layer)
        centres[name] = now
        if name.startswith("layer"):
            # The last convolution of a block, and the last block of a stage, overwrite the rest.
            block = ".".join(name.split(".")[:2])
            centres[block] = centres[block.split(".")[0]] = now
    return centres


def _path(network: nn.Module) -> Iterable[tuple[str, nn.Module]]:
    """Modules on the main path of a ResNet, in the order they run."""
    for name, layer in network.named_modules():
        leaf = name.split(".")[-1]
        if leaf.startswith(("conv", "bn", "maxpool")) or name == "relu":
            yield name, layer
