"""`Ablation`: what really changes when one unit after the other is silenced."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from retina_codec.attribution.integration import Decomposition
from retina_codec.attribution.methods import Ablation
from retina_codec.attribution.path import Path

# Of each layer: modules that need not run when it is held, and whether the input is read then.
Fronts = Mapping[str, tuple[list[nn.Module], bool]]


def silenced(path: Path, method: Ablation, fronts: Fronts, samples: int) -> Decomposition:
    """Silence every unit of every layer in turn, in passes of about `samples` samples."""
    top = path.evaluate((1.0,), gradients=False)
    bottom = path.evaluate((0.0,), gradients=False)
    target = top.targets[0]
    n, n_targets = target.shape
    together = max(1, samples // n)
    shapes = path.shapes({module for idle, _ in fronts.values() for module in idle})
    contribution = {}
    for name, layer in path.question.plan.layers.items():
        here = top.at(0)[name]
        silent = bottom.at(0)[name].flatten(1)
        modules, reads_input = fronts[name]
        idle = {module: shapes[module] for module in modules}
        if method.silence == "zero":
            silent = torch.zeros_like(silent)
        units = silent.shape[1]
        total = target.new_empty(n, n_targets, units)
        for first in range(0, units, together):
            chosen = range(first, min(first + together, units))
            values = here.flatten(1).repeat(len(chosen), 1, 1)
            for i, unit in enumerate(chosen):
                values[i, :, unit] = silent[:, unit]
            changed = path.held(
                layer, values.view(len(chosen) * n, *here.shape[1:]), idle, reads_input
            )
            total[:, :, first : chosen.stop] = (target - changed).permute(1, 2, 0)
        contribution[name] = total.unflatten(2, here.shape[1:])
    return Decomposition(contribution, target, bottom.targets[0])
