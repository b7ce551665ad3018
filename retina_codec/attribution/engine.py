"""The path from baseline to input, walked once for all layers and all targets."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from retina_codec.attribution.capture import captured, execution_order, replaced
from retina_codec.attribution.methods import RULES, ActivationGradient, IntegratedGradients, Method
from retina_codec.attribution.targets import Target
from retina_codec.models.model import Model

# Points of the path where a layer is compared with a straight line: any bend shows at one of them.
BENDS = (0.5, 0.2718)
# Single precision of a sum over some thousand inputs.
STRAIGHT = 2e-5


@dataclass
class Decomposition:
    """Contributions of one batch: per layer (sample, target, channel[, y, x])."""

    contribution: dict[str, Tensor]
    target: Tensor
    target_baseline: Tensor


@dataclass
class _StraightLayer:
    """A layer that is affine in the input: along the path it is known from its two ends."""

    module: nn.Module
    start: Tensor
    end: Tensor

    def at(self, s: float) -> Tensor:
        return torch.lerp(self.start, self.end, s)


class _Path:
    """One batch's path: the network evaluated at any point, layers caught, targets given."""

    def __init__(
        self,
        model: Model,
        layers: Mapping[str, nn.Module],
        target: Target,
        inputs: Tensor,
        baseline: float,
    ) -> None:
        self.model = model
        self.layers = layers
        self.target = target
        self.inputs = inputs
        self.baseline = torch.full_like(inputs, baseline)
        self.chosen: Tensor | None = None
        self.straight = self._straight_layers()

    def at(self, s: float) -> Tensor:
        return torch.lerp(self.baseline, self.inputs, s)

    def _straight_layers(self) -> list[_StraightLayer]:
        """Find the layers, up to the first that is asked for, that are affine on this path.

        In a CNN of the retina this is the first convolution, nine tenths of the work. Found by
        looking, not by type: any bend shows at one of `BENDS`.
        """
        order = execution_order(self.model.network, self.inputs)
        missing = [name for name, module in self.layers.items() if module not in order]
        if missing:
            raise ValueError(
                f"layer {missing[0]!r} does not run exactly once in a forward pass and give one "
                "tensor, so that its contribution is ambiguous: take the block that contains it"
            )
        first = min(order.index(module) for module in self.layers.values())
        candidates = {str(i): module for i, module in enumerate(order[: first + 1])}
        ends = {s: self._outputs(candidates, s) for s in (0.0, 1.0)}
        middles = {s: self._outputs(candidates, s) for s in BENDS}
        found = []
        for name, module in candidates.items():
            start, end = ends[0.0][name], ends[1.0][name]
            scale = (end - start).abs().amax()
            if all(
                (middles[s][name] - torch.lerp(start, end, s)).abs().amax() <= STRAIGHT * scale
                for s in BENDS
            ):
                found.append(_StraightLayer(module, start, end))
        return found

    def _outputs(self, layers: Mapping[str, nn.Module], s: float) -> dict[str, Tensor]:
        with torch.no_grad(), captured(layers) as caught:
            self.model.network(self.at(s))
        return {name: output.detach() for name, output in caught.items()}

    def evaluate(self, s: float) -> tuple[dict[str, Tensor], Tensor]:
        """Layers' outputs at point `s` of the path, with gradients attached, and targets."""
        with ExitStack() as stack:
            for layer in self.straight:
                stack.enter_context(replaced(layer.module, layer.at(s)))
            caught = stack.enter_context(captured(self.layers))
            outputs = self.model.network(self.at(s))
        if self.chosen is None:
            self.chosen = self.target.choose(outputs.detach(), self.model)
        return caught, self.target.values(outputs, self.chosen)


def decompose(
    model: Model, layers: Mapping[str, nn.Module], target: Target, method: Method, inputs: Tensor
) -> Decomposition:
    """Divide the targets of one batch among the units of each layer.

    `model.network` must be frozen: see `retina_codec.models.model.frozen`.
    """
    path = _Path(model, layers, target, inputs, method.baseline)
    if isinstance(method, IntegratedGradients):
        return _integrate(path, method)
    if isinstance(method, ActivationGradient):
        caught, top = path.evaluate(1.0)
        total: dict[str, Tensor] = {}
        _add(total, caught, top, {name: a.detach() for name, a in caught.items()})
        with torch.no_grad():
            bottom = path.evaluate(0.0)[1]
        return _decomposition(total, top, bottom)
    raise TypeError(
        f"method={method!r}; expected retina_codec.methods.IntegratedGradients(...) or another "
        "of retina_codec.methods"
    )


def _integrate(path: _Path, method: IntegratedGradients) -> Decomposition:
    """Sum over the nodes of the path, from the input down to the baseline, in place.

    The sum over steps is one over nodes: the gradient at node k stands in the step above it and
    in the one below, so it is multiplied with both changes of the layer at once and not kept.
    Downwards, because what a target fixes at the input must be known first.
    """
    low, high = RULES[method.rule]
    total: dict[str, Tensor] = {}
    caught, targets = path.evaluate(1.0)
    top = bottom = targets
    above: dict[str, Tensor] = {}
    for k in reversed(range(method.steps + 1)):
        here = {name: a.detach() for name, a in caught.items()}
        caught_below, targets_below = path.evaluate((k - 1) / method.steps) if k else ({}, targets)
        factors = {}
        for name, a in here.items():
            factor = torch.zeros_like(a)
            if above:
                factor.add_(above[name] - a, alpha=low)
            if k:
                factor.add_(a - caught_below[name].detach(), alpha=high)
            factors[name] = factor
        _add(total, caught, targets, factors)
        bottom = targets
        above, caught, targets = here, caught_below, targets_below
    return _decomposition(total, top, bottom)


def _add(
    total: dict[str, Tensor],
    caught: Mapping[str, Tensor],
    targets: Tensor,
    factors: Mapping[str, Tensor],
) -> None:
    """Add gradient x factor of every target and layer to `total` (target, sample, units)."""
    n_targets = targets.shape[1]
    for name, a in caught.items():
        if name not in total:
            total[name] = a.new_zeros(n_targets, *a.shape)
    if not any(factor.any() for factor in factors.values()):
        return
    if not targets.requires_grad:
        raise ValueError(
            f"layers {', '.join(map(repr, caught))} have no path to the output: choose others"
        )
    for k in range(n_targets):
        # Samples do not interact, so the gradient of the sum is each sample's own.
        gradients = torch.autograd.grad(
            targets[:, k].sum(),
            list(caught.values()),
            retain_graph=k + 1 < n_targets,
            allow_unused=True,
        )
        for name, gradient in zip(caught, gradients, strict=True):
            if gradient is None:
                raise ValueError(f"layer {name!r} has no path to the output: choose another layer")
            total[name][k].addcmul_(gradient, factors[name])


def _decomposition(total: Mapping[str, Tensor], top: Tensor, bottom: Tensor) -> Decomposition:
    contribution = {name: c.transpose(0, 1) for name, c in total.items()}
    return Decomposition(contribution, top.detach(), bottom.detach())
