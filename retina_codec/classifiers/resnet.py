"""The ResNets of torchvision, as `Classifier`."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torchvision

from retina_codec.classifiers.geometry import resnet_geometry
from retina_codec.classifiers.model import Classifier
from retina_codec.classifiers.published import count_outputs, default_names, filled, state_of

# Residual blocks of each of the four stages (He et al. 2016, table 1).
BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
N_IMAGENET = 1000


def resnet18(
    weights: str | os.PathLike[str] | None = None,
    *,
    categories: Sequence[str] | None = None,
    seed: int = 0,
) -> Classifier:
    """ResNet-18 of torchvision, with random weights or those of a file.

    Images ``(image, color, y, x)`` with three colours (red, green, blue), float in [0, 1] or
    uint8, are normalised with ImageNet's mean and standard deviation. They are not resized: the
    network takes any size from 32 pixels up. ImageNet's weights were trained on 224 x 224 pixels.

    Parameters
    ----------
    weights : path or str, optional
        A local state dict (.safetensors, .pt, .pth or .th), or the name of torchvision's weights
        (``"IMAGENET1K_V1"``), which torchvision downloads. By default random weights.
    categories : sequence of str, optional
        Names of the outputs. By default the ImageNet names if there are 1000 outputs (names that
        stand there twice, like "crane", get their index appended), numbers otherwise.
    seed : int
        Of the random weights.

    Returns
    -------
    Classifier
        Its default layers are the eight residual blocks, ``layer1.0`` to ``layer4.1``, whose
        units have their receptive-field centre as ``y``, ``x``.

    Raises
    ------
    FileNotFoundError, OSError
        If the file is missing or unreadable, or torchvision cannot download its weights.
    ValueError
        If the weights are those of another network (it names the keys), `weights` is no known
        name, or there are more or fewer `categories` than outputs.

    References
    ----------
    He et al., CVPR 2016, arXiv 1512.03385.

    Examples
    --------
    >>> import numpy as np
    >>> import retina_codec as rc
    >>> import xarray as xr
    >>> model = rc.classifiers.resnet18(categories=["cat", "dog", "fish"])
    >>> images = xr.DataArray(
    ...     np.random.default_rng(0).random((2, 3, 64, 64)), dims=("image", "color", "y", "x")
    ... )
    >>> dict(model.predict(images).sizes)
    {'image': 2, 'category': 3}
    >>> tree = rc.contributions(model, images, layers="layer2.0", progress=False)
    >>> tree["layers/layer2.0"]["contribution"].dims
    ('image', 'channel', 'y', 'x')
    """
    return _resnet(18, weights, categories, seed)


def resnet34(
    weights: str | os.PathLike[str] | None = None,
    *,
    categories: Sequence[str] | None = None,
    seed: int = 0,
) -> Classifier:
    """ResNet-34 of torchvision, with random weights or those of a file.

    Parameters
    ----------
    weights, categories, seed
        As for `resnet18`.

    Returns
    -------
    Classifier
        Of images ``(image, color, y, x)`` as for `resnet18`; its default layers are the sixteen
        residual blocks, ``layer1.0`` to ``layer4.2``.

    Raises
    ------
    FileNotFoundError, OSError, ValueError
        As for `resnet18`.

    References
    ----------
    He et al., CVPR 2016, arXiv 1512.03385.

    Examples
    --------
    >>> import retina_codec as rc
    >>> len(rc.classifiers.resnet34(categories=["cat", "dog"]).default_layers)
    16
    """
    return _resnet(34, weights, categories, seed)


def resnet50(
    weights: str | os.PathLike[str] | None = None,
    *,
    categories: Sequence[str] | None = None,
    seed: int = 0,
) -> Classifier:
    """ResNet-50 of torchvision, with random weights or those of a file.

    Parameters
    ----------
    weights, categories, seed
        As for `resnet18`. Torchvision's names are ``"IMAGENET1K_V1"`` and ``"IMAGENET1K_V2"``.

    Returns
    -------
    Classifier
        Of images ``(image, color, y, x)`` as for `resnet18`; its default layers are the sixteen
        residual blocks, ``layer1.0`` to ``layer4.2``: layers 0 to 15 of the paper.

    Raises
    ------
    FileNotFoundError, OSError, ValueError
        As for `resnet18`.

    References
    ----------
    He et al., CVPR 2016, arXiv 1512.03385. Melander et al., ICLR 2026, arXiv 2603.06557.

    Examples
    --------
    >>> import retina_codec as rc
    >>> rc.classifiers.resnet50(categories=["cat", "dog"])
    Classifier(2 outputs along 'category'; layers: layer1.0, layer1.1, ..., layer4.1, layer4.2)
    """
    return _resnet(50, weights, categories, seed)


def resnet101(
    weights: str | os.PathLike[str] | None = None,
    *,
    categories: Sequence[str] | None = None,
    seed: int = 0,
) -> Classifier:
    """ResNet-101 of torchvision, with random weights or those of a file.

    Parameters
    ----------
    weights, categories, seed
        As for `resnet18`. Torchvision's names are ``"IMAGENET1K_V1"`` and ``"IMAGENET1K_V2"``.

    Returns
    -------
    Classifier
        Of images ``(image, color, y, x)`` as for `resnet18`; its default layers are the 33
        residual blocks, ``layer1.0`` to ``layer4.2``.

    Raises
    ------
    FileNotFoundError, OSError, ValueError
        As for `resnet18`.

    References
    ----------
    He et al., CVPR 2016, arXiv 1512.03385.

    Examples
    --------
    >>> import retina_codec as rc
    >>> len(rc.classifiers.resnet101(categories=["cat", "dog"]).default_layers)
    33
    """
    return _resnet(101, weights, categories, seed)


def resnet152(
    weights: str | os.PathLike[str] | None = None,
    *,
    categories: Sequence[str] | None = None,
    seed: int = 0,
) -> Classifier:
    """ResNet-152 of torchvision, with random weights or those of a file.

    Parameters
    ----------
    weights, categories, seed
        As for `resnet18`. Torchvision's names are ``"IMAGENET1K_V1"`` and ``"IMAGENET1K_V2"``.

    Returns
    -------
    Classifier
        Of images ``(image, color, y, x)`` as for `resnet18`; its default layers are the 50
        residual blocks, ``layer1.0`` to ``layer4.2``.

    Raises
    ------
    FileNotFoundError, OSError, ValueError
        As for `resnet18`.

    References
    ----------
    He et al., CVPR 2016, arXiv 1512.03385.

    Examples
    --------
    >>> import retina_codec as rc
    >>> len(rc.classifiers.resnet152(categories=["cat", "dog"]).default_layers)
    50
    """
    return _resnet(152, weights, categories, seed)


def _resnet(
    depth: int,
    weights: str | os.PathLike[str] | None,
    categories: Sequence[str] | None,
    seed: int,
) -> Classifier:
    """ResNet of one of the depths in `BLOCKS`."""
    name = f"resnet{depth}"
    published = torchvision.models.get_model_weights(name)
    state = state_of(weights, published)
    n_outputs = count_outputs(state, "fc.weight", weights, categories, N_IMAGENET)
    make = torchvision.models.get_model_builder(name)
    network = filled(lambda: make(weights=None, num_classes=n_outputs), state, weights, seed)
    used = published[str(weights) if str(weights) in published.__members__ else "IMAGENET1K_V1"]
    if categories is None:
        categories = default_names(used.meta["categories"], n_outputs)
    return Classifier(
        network,
        categories=categories,
        preprocess=used.transforms(),
        default_layers=[
            f"layer{stage}.{block}"
            for stage, n_blocks in enumerate(BLOCKS[depth], start=1)
            for block in range(n_blocks)
        ],
        geometry=resnet_geometry(network),
    )
