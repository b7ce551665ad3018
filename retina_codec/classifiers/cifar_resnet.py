"""The small ResNets that He et al. trained on CIFAR-10, as `Classifier`."""

from __future__ import annotations

import os
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from retina_codec._common.checks import require_count
from retina_codec.classifiers.geometry import resnet_geometry
from retina_codec.classifiers.model import Classifier
from retina_codec.classifiers.published import count_outputs, default_names, filled, state_of

CIFAR10 = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
# Of ImageNet: what published CIFAR-10 weights were trained with.
MEAN, SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WIDTHS = (16, 32, 64)


class _Block(nn.Module):
    """Two convolutions beside a shortcut without weights (option A of He et al.)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.stride, self.added = stride, after - before

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.relu(self.bn1(self.conv1(x)))
        inner = self.bn2(self.conv2(inner))
        # Every second pixel, and zeros as further channels, half of them before the others.
        half = self.added // 2
        shortcut = functional.pad(
            x[:, :, :: self.stride, :: self.stride], [0, 0, 0, 0, half, self.added - half]
        )
        return functional.relu(inner + shortcut)


class _CifarResNet(nn.Module):
    """Three stages of `n_blocks` residual blocks, the mean over places, a dense layer."""

    def __init__(self, n_blocks: int, n_outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.layer1 = _stage(WIDTHS[0], WIDTHS[0], n_blocks)
        self.layer2 = _stage(WIDTHS[0], WIDTHS[1], n_blocks)
        self.layer3 = _stage(WIDTHS[1], WIDTHS[2], n_blocks)
        self.linear = nn.Linear(WIDTHS[2], n_outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def _stage(before: int, after: int, n_blocks: int) -> nn.Sequential:
    """Blocks of one width; the first halves the image if it widens."""
    first = _Block(before, after, stride=1 if before == after else 2)
    return nn.Sequential(first, *(_Block(after, after, 1) for _ in range(n_blocks - 1)))


def cifar_resnet(
    weights: str | os.PathLike[str] | None = None,
    *,
    depth: int = 20,
    categories: Sequence[str] | None = None,
    seed: int = 0,
) -> Classifier:
    """ResNet for images of 32 x 32 pixels, as He et al. trained on CIFAR-10.

    A convolution of 16 channels, then three stages of ``(depth - 2) / 6`` residual blocks with
    16, 32 and 64 channels; the second and third stage halve the image. Shortcuts have no weights.
    Images ``(image, color, y, x)`` (red, green, blue) are normalised with ImageNet's mean and
    standard deviation, as the published weights want it.

    Parameters
    ----------
    weights : path, optional
        A local state dict (.safetensors, .pt, .pth or .th), alone or under ``"state_dict"``; keys
        may start with ``"module."``. By default random weights.
    depth : int
        20, 32, 44, 56 or 110 in the paper; any ``6 n + 2``.
    categories : sequence of str, optional
        Names of the outputs. By default those of CIFAR-10 if there are ten, numbers otherwise.
    seed : int
        Of the random weights.

    Returns
    -------
    Classifier
        Its default layers are the ``(depth - 2) / 2`` residual blocks, ``layer1.0`` to
        ``layer3.2`` for depth 20, whose units have their receptive-field centre as ``y``, ``x``.

    Raises
    ------
    FileNotFoundError, OSError
        If the file is missing or unreadable.
    ValueError
        If the weights are those of another network (it names the keys), `depth` is not
        ``6 n + 2``, or there are more or fewer `categories` than outputs.

    References
    ----------
    He et al., CVPR 2016, arXiv 1512.03385, section 4.2, shortcuts of option A.

    Examples
    --------
    >>> import retina_codec as rc
    >>> model = rc.classifiers.cifar_resnet(depth=20)
    >>> len(model.default_layers)
    9
    >>> model.outputs[:3].tolist()
    ['airplane', 'automobile', 'bird']
    """
    depth = require_count(depth, 8, "depth")
    if depth % 6 != 2:
        raise ValueError(f"depth={depth}; expected 6 n + 2, such as 20, 32, 44, 56 or 110")
    n_blocks = (depth - 2) // 6
    state = state_of(weights)
    n_outputs = count_outputs(state, "linear.weight", weights, categories, len(CIFAR10))
    network = filled(lambda: _CifarResNet(n_blocks, n_outputs), state, weights, seed)
    return Classifier(
        network,
        categories=default_names(CIFAR10, n_outputs) if categories is None else categories,
        mean=MEAN,
        sd=SD,
        default_layers=[
            f"layer{stage}.{block}"
            for stage in range(1, len(WIDTHS) + 1)
            for block in range(n_blocks)
        ],
        geometry=resnet_geometry(network),
    )
