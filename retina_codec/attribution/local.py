"""Methods that look at the network at the input alone: activation times gradient, and its kin."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from retina_codec.attribution.integration import Decomposition, sum_dtype
from retina_codec.attribution.methods import (
    ActivationGradient,
    Method,
    NormalizedGradient,
    SmoothGradient,
)
from retina_codec.attribution.path import Nodes, Path, gradients_of


def at_input(path: Path, method: Method) -> Decomposition:
    """Activation at the input times a gradient there, as `method` has it."""
    nodes = path.evaluate((1.0,))
    activation, target = _activations(nodes), nodes.targets[0].detach()
    if isinstance(method, SmoothGradient):
        gradients = _smooth_gradients(path, method)
    elif isinstance(method, ActivationGradient | NormalizedGradient):
        gradients = gradients_of(nodes)
    else:
        raise TypeError(f"method={method!r} does not look at the input alone")
    parts: dict[str, list[Tensor]] = {name: [] for name in activation}
    for _, found in gradients:
        for name, half in found.items():
            gradient = half.to(activation[name])
            if isinstance(method, NormalizedGradient):
                length = gradient.flatten(1).norm(dim=1).view(-1, *[1] * (gradient.ndim - 1))
                # Where no unit matters, none contributes.
                gradient = gradient / length.clamp(min=torch.finfo(gradient.dtype).tiny)
            parts[name].append(gradient * activation[name])
    baseline = path.evaluate((0.0,), gradients=False).targets[0]
    contribution = {name: torch.stack(products, 1) for name, products in parts.items()}
    return Decomposition(contribution, target, baseline)


def _smooth_gradients(
    path: Path, method: SmoothGradient
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Mean over noisy inputs of each target's gradients. The target is chosen without noise."""
    sums: dict[int, dict[str, Tensor]] = {}
    for copy in range(method.n_samples):
        noisy = path.moved_to(path.inputs + method.sd * _noise(path, method, copy))
        for k, found in gradients_of(noisy.evaluate((1.0,))):
            if k not in sums:
                sums[k] = {
                    name: torch.zeros_like(gradient, dtype=sum_dtype(gradient))
                    for name, gradient in found.items()
                }
            for name, gradient in found.items():
                sums[k][name] += gradient.to(sums[k][name]) / method.n_samples
    yield from sums.items()


def _noise(path: Path, method: SmoothGradient, copy: int) -> Tensor:
    """Noise of the shape of the inputs; how samples are cut into batches does not matter."""
    inputs, first = path.inputs, int(path.sample[0])
    if path.history is None:
        shape = tuple(inputs.shape[1:])
        parts = [noise_of(method, copy, first + i, shape) for i in range(len(inputs))]
        return torch.from_numpy(np.stack(parts)).to(inputs)
    shape = tuple(inputs.shape[2:])
    parts = [noise_of(method, copy, first + i, shape) for i in range(inputs.shape[1])]
    return torch.from_numpy(np.stack(parts)[None]).to(inputs)


def noise_of(method: SmoothGradient, copy: int, index: int, shape: tuple[int, ...]) -> np.ndarray:
    """Give the noise, of sd 1, of one noisy copy of a sample, or of a frame of a movie.

    Frames are counted by the samples: that of the number i is the oldest that sample i sees.
    """
    return np.random.default_rng([method.seed, copy, index]).standard_normal(shape)


def _activations(nodes: Nodes) -> dict[str, Tensor]:
    """Layers at the first point; those of half precision in single, as contributions are."""
    return {name: a.to(sum_dtype(a)) for name, a in nodes.at(0).items()}


def activations_and_gradients(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Layers at the input (sample, ...), and each target's gradient there (sample, target, ...)."""
    nodes = path.evaluate((1.0,))
    activation = _activations(nodes)
    parts: dict[str, list[Tensor]] = {name: [] for name in activation}
    for _, found in gradients_of(nodes):
        for name, gradient in found.items():
            parts[name].append(gradient.to(activation[name]))
    return activation, {name: torch.stack(gradients, 1) for name, gradients in parts.items()}
