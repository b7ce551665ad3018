"""Gradients integrated along the path: the rules, and the sum over its points, in place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from retina_codec.attribution.path import Nodes, Path, gradients_of


@dataclass(frozen=True)
class Rule:
    """How a rule weighs the change of a layer at the points of the path.

    The gradient at point k of ``points(steps)`` is multiplied with ``weight * (a[k + above] -
    a[k - below])``, where points outside of the path are those at its ends. Points whose number is
    odd alone have a gradient if `odd_only`.
    """

    above: int
    below: int
    weight: float
    odd_only: bool = False

    def points(self, steps: int) -> int:
        """Give the number of the last point; they are evenly spaced from 0, the baseline."""
        return 2 * steps if self.odd_only else steps

    def has_gradient(self, k: int, last: int) -> bool:
        """Whether the gradient at point `k` counts."""
        if self.odd_only:
            return k % 2 == 1
        return min(k + self.above, last) > max(k - self.below, 0)


# The sum over steps written as one over points: the gradient at a point stands in the step above
# it and in the one below, and is multiplied with both changes of the layer at once.
RULES = {
    "trapezoid": Rule(1, 1, 0.5),
    "left": Rule(1, 0, 1.0),
    "right": Rule(0, 1, 1.0),
    "midpoint": Rule(1, 1, 1.0, odd_only=True),
}


@dataclass
class Decomposition:
    """Contributions of one batch: per layer (sample, target, units); targets (sample, target)."""

    contribution: dict[str, Tensor]
    target: Tensor
    target_baseline: Tensor

    def residual(self, layer: str) -> Tensor:
        """Sum of a layer's contributions minus the change of the target (sample, target)."""
        total = self.contribution[layer].flatten(2).sum(2)
        return total - (self.target - self.target_baseline)


def integrate(path: Path, steps: int, rule: Rule, together: int = 1) -> Decomposition:
    """Walk the path from the input down to the baseline, `together` points in one pass.

    Downwards, because what a target fixes at the input must be known first. Two passes are held
    at a time: the one whose gradients are taken, and the one below it, which says how far the
    layers move.
    """
    last = rule.points(steps)
    if rule.odd_only:
        together = 1
    total: dict[str, Tensor] = {}
    top: Tensor | None = None
    above: dict[str, Tensor] | None = None
    chunk = range(last, max(last - together, -1), -1)
    nodes = _evaluate(path, chunk, last, rule)
    while True:
        if top is None:
            top = nodes.targets[0].detach()
            n, n_targets = top.shape
            total = {
                name: a.new_zeros(n_targets, n, *a.shape[1:], dtype=sum_dtype(a))
                for name, a in nodes.layers.items()
            }
        rest = range(chunk[-1] - 1, max(chunk[-1] - 1 - together, -1), -1)
        following = _evaluate(path, rest, last, rule) if len(rest) else None
        lowest = nodes.at(len(chunk) - 1)
        if any(rule.has_gradient(k, last) for k in chunk):
            factors = _factors(nodes, rule, above, following.at(0) if following else None)
            _add(total, nodes, factors, rule.weight)
        bottom = nodes.targets[-1].detach()
        if following is None:
            break
        above, chunk, nodes = lowest, rest, following
    return Decomposition({k: c.transpose(0, 1) for k, c in total.items()}, top, bottom)


def _evaluate(path: Path, chunk: range, last: int, rule: Rule) -> Nodes:
    gradients = any(rule.has_gradient(k, last) for k in chunk)
    return path.evaluate([k / last for k in chunk], gradients=gradients)


def sum_dtype(a: Tensor) -> torch.dtype:
    """Give the precision in which contributions of a layer are summed: single at least."""
    return a.dtype if a.dtype in (torch.float32, torch.float64) else torch.float32


def _factors(
    nodes: Nodes,
    rule: Rule,
    above: Mapping[str, Tensor] | None,
    below: Mapping[str, Tensor] | None,
) -> dict[str, Tensor]:
    """Give the changes of each layer that gradients at some points are multiplied with."""
    n = nodes.targets.shape[1]
    factors = {}
    for name, values in nodes.layers.items():
        a = values.detach()
        upper = lower = a
        if rule.above:
            upper = _shifted(above[name] if above else a[:n], a[:-n])
        if rule.below:
            lower = _shifted(a[n:], below[name] if below else a[-n:])
        factors[name] = upper - lower
    return factors


def _shifted(first: Tensor, second: Tensor) -> Tensor:
    """Points one after the other, without copying where there is nothing to join."""
    if not len(first):
        return second
    return torch.cat([first, second]) if len(second) else first


def _add(
    total: dict[str, Tensor], nodes: Nodes, factors: Mapping[str, Tensor], weight: float
) -> None:
    """Add weight x gradient x factor of every target and layer to `total` (target, sample, ...)."""
    n_points, n, _ = nodes.targets.shape
    for k, gradients in gradients_of(nodes):
        for name, gradient in gradients.items():
            into, factor = total[name][k], factors[name]
            if n_points == 1 and gradient.dtype == factor.dtype == into.dtype:
                into.addcmul_(gradient, factor, value=weight)
            else:
                product = gradient.to(into.dtype) * factor.to(into.dtype)
                into.add_(product.unflatten(0, (n_points, n)).sum(0), alpha=weight)
