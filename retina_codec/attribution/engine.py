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

    def gradients(self, s: float) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """Layers' outputs, gradients of each target (target first), and targets at point `s`."""
        caught, targets = self.evaluate(s)
        activations = list(caught.values())
        collected: list[list[Tensor]] = [[] for _ in activations]
        for k in range(targets.shape[1]):
            # Samples do not interact, so the gradient of the sum is each sample's own.
            gradients = torch.autograd.grad(
                targets[:, k].sum(),
                activations,
                retain_graph=k + 1 < targets.shape[1],
                allow_unused=True,
            )
            for name, kept, gradient in zip(caught, collected, gradients, strict=True):
                if gradient is None:
                    raise ValueError(
                        f"layer {name!r} has no path to the output: choose another layer"
                    )
                kept.append(gradient)
        stacked = {name: torch.stack(kept) for name, kept in zip(caught, collected, strict=True)}
        return {name: a.detach() for name, a in caught.items()}, stacked, targets.detach()


def decompose(
    model: Model, layers: Mapping[str, nn.Module], target: Target, method: Method, inputs: Tensor
) -> Decomposition:
    """Divide the targets of one batch among the units of each layer.

    `model.network` must be frozen: see `capture.frozen`.
    """
    path = _Path(model, layers, target, inputs, method.baseline)
    if isinstance(method, IntegratedGradients):
        total, top, bottom = _integrate(path, method)
    elif isinstance(method, ActivationGradient):
        activations, gradients, top = path.gradients(1.0)
        total = {name: gradients[name] * activations[name] for name in gradients}
        with torch.no_grad():
            bottom = path.evaluate(0.0)[1]
    else:
        raise TypeError(
            f"method={method!r}; expected retina_codec.methods.IntegratedGradients(...) or another "
            "of retina_codec.methods"
        )
    return Decomposition({name: c.transpose(0, 1) for name, c in total.items()}, top, bottom)


def _integrate(
    path: _Path, method: IntegratedGradients
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Sum the steps from the input down to the baseline, in place.

    Downwards, because what a target fixes at the input must be known first.
    """
    low, high = RULES[method.rule]
    above, gradients_above, top = path.gradients(1.0)
    total = {name: torch.zeros_like(gradient) for name, gradient in gradients_above.items()}
    bottom = top
    for k in reversed(range(method.steps)):
        below, gradients_below, bottom = path.gradients(k / method.steps)
        for name, sum_ in total.items():
            mean = low * gradients_below[name] + high * gradients_above[name]
            sum_.addcmul_(mean, above[name] - below[name])
        above, gradients_above = below, gradients_below
    return total, top, bottom
