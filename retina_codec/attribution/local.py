"""Methods that look at the network at the input alone: activation times gradient, and its kin."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from retina_codec.attribution.integration import Decomposition
from retina_codec.attribution.methods import (
    ActivationGradient,
    Method,
    NormalizedGradient,
    SmoothGradient,
)
from retina_codec.attribution.path import Path, gradients_of


def at_input(path: Path, method: Method) -> Decomposition:
    """Activation at the input times a gradient there, as `method` has it."""
    nodes = path.evaluate((1.0,))
    activation, target = nodes.at(0), nodes.targets[0].detach()
    if isinstance(method, SmoothGradient):
        gradients = _smooth_gradients(path, method)
    elif isinstance(method, ActivationGradient | NormalizedGradient):
        gradients = gradients_of(nodes)
    else:
        raise TypeError(f"method={method!r} does not look at the input alone")
    parts: dict[str, list[Tensor]] = {name: [] for name in activation}
    for _, found in gradients:
        for name, gradient in found.items():
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
    seed = int(path.sample[0])  # that the noise of a batch does not depend on what ran before
    generator = torch.Generator().manual_seed(method.seed * 2**32 + seed)
    sums: dict[int, dict[str, Tensor]] = {}
    for _ in range(method.n_samples):
        noise = torch.randn(path.inputs.shape, generator=generator) * method.sd
        noisy = path.moved_to(path.inputs + noise.to(path.inputs))
        for k, found in gradients_of(noisy.evaluate((1.0,))):
            if k not in sums:
                sums[k] = {name: torch.zeros_like(gradient) for name, gradient in found.items()}
            for name, gradient in found.items():
                sums[k][name] += gradient / method.n_samples
    yield from sums.items()


def activations_and_gradients(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Layers at the input (sample, ...), and each target's gradient there (sample, target, ...)."""
    nodes = path.evaluate((1.0,))
    activation = nodes.at(0)
    parts: dict[str, list[Tensor]] = {name: [] for name in activation}
    for _, found in gradients_of(nodes):
        for name, gradient in found.items():
            parts[name].append(gradient)
    return activation, {name: torch.stack(gradients, 1) for name, gradients in parts.items()}
