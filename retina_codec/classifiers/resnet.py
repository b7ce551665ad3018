"""ResNet-18 of torchvision, as a `Classifier`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torchvision
from torch import Tensor
from torchvision.models import ResNet18_Weights

from retina_codec._common.checks import nearest_names
from retina_codec.classifiers.geometry import resnet_geometry
from retina_codec.classifiers.model import Classifier
from retina_codec.classifiers.weights import SUFFIXES, fill, read_weights

BLOCKS = tuple(f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1))
CLASSES = "fc.weight"


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
    state = None if weights is None else _state_dict(weights)
    n_outputs = _n_outputs(state, weights, categories)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = torchvision.models.resnet18(weights=None, num_classes=n_outputs).eval()
    if state is not None:
        fill(network, state, weights)
    imagenet = ResNet18_Weights.IMAGENET1K_V1
    preprocessing = imagenet.transforms()
    if categories is None:
        names = imagenet.meta["categories"]
        categories = (
            _unique(names) if len(names) == n_outputs else [str(i) for i in range(n_outputs)]
        )
    return Classifier(
        network,
        categories=categories,
        mean=preprocessing.mean,
        sd=preprocessing.std,
        default_layers=BLOCKS,
        geometry=resnet_geometry(network),
    )


def _n_outputs(
    state: Mapping[str, Tensor] | None, weights: object, categories: Sequence[str] | None
) -> int:
    """Count the outputs: as many as the weights have, or as there are categories."""
    if state is None or CLASSES not in state:  # without it, `fill` says which keys are missing
        return 1000 if categories is None else len(categories)
    in_file = state[CLASSES].shape[0]
    if categories is not None and len(categories) != in_file:
        raise ValueError(
            f"categories has {len(categories)} names; weights={str(weights)!r} have {in_file} "
            "outputs: name each of them, in order"
        )
    return in_file


def _state_dict(weights: str | os.PathLike[str]) -> Mapping[str, Tensor]:
    """Read weights from a file, or from torchvision by their name."""
    if not isinstance(weights, str | os.PathLike):
        raise TypeError(
            f"weights is a {type(weights).__name__}; expected a path, or the name of torchvision's "
            "weights as a str"
        )
    if str(weights) in ResNet18_Weights.__members__:
        try:
            return ResNet18_Weights[str(weights)].get_state_dict(progress=False, check_hash=True)
        except (OSError, RuntimeError) as error:
            raise OSError(
                f"weights={weights!r}: torchvision could not download them ({error}); pass a local "
                "file instead, weights='resnet18.pth'"
            ) from error
    if Path(weights).suffix not in SUFFIXES:
        raise ValueError(
            f"weights={str(weights)!r} is neither a file ending in {', '.join(SUFFIXES)} nor "
            f"torchvision's: {nearest_names(weights, ResNet18_Weights.__members__)}"
        )
    return read_weights(Path(weights))


def _unique(names: Sequence[str]) -> list[str]:
    """Append its index to every name that stands there more than once."""
    count = Counter(names)
    return [f"{name} {i}" if count[name] > 1 else name for i, name in enumerate(names)]
