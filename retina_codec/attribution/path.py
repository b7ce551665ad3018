"""One batch's straight path from baseline to input, with the network evaluated along it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from retina_codec.attribution.capture import captured, replaced, stopped_after
from retina_codec.attribution.plan import Plan, lies_on_line
from retina_codec.attribution.targets import BoundTarget

# Samples of a batch on which straight layers are looked at again, half-way.
CHECKED = 16


@dataclass(frozen=True)
class Question:
    """What is asked of every batch: a frozen network, how to walk it, the target, the precision."""

    network: nn.Module
    plan: Plan
    target: BoundTarget
    precision: torch.dtype | None = None

    def arithmetic(self, device: torch.device) -> AbstractContextManager[object]:
        """Give the context in which the network runs."""
        if self.precision is None:
            return nullcontext()
        return torch.autocast(device.type, dtype=self.precision)


@dataclass
class Nodes:
    """Points of a path: layers (point * sample, ...) with gradients, targets (point, sample, n)."""

    layers: dict[str, Tensor]
    targets: Tensor

    def at(self, point: int) -> dict[str, Tensor]:
        """Layers at one point, without gradients."""
        n = self.targets.shape[1]
        return {name: a.detach()[point * n : (point + 1) * n] for name, a in self.layers.items()}


class Path:
    """One batch's path.

    Parameters
    ----------
    question : Question
        What is asked.
    inputs : torch.Tensor
        Network inputs of a batch.
    baseline : torch.Tensor
        Baseline of one input, or of one frame of it; the same for all samples.
    sample : torch.Tensor
        Indices of the batch's samples in the data.
    history : int, optional
        Frames that a sample needs, where the inputs are segments of frames.
    """

    def __init__(
        self,
        question: Question,
        inputs: Tensor,
        baseline: Tensor,
        sample: Tensor,
        history: int | None = None,
    ) -> None:
        self.question = question
        self.inputs = inputs
        self._baseline = baseline
        self.baseline = baseline.expand_as(inputs)
        self.sample = sample
        self.history = history
        self.fixed: Tensor | None = None
        self.ends: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        self.shapes: dict[nn.Module, torch.Size] = {}  # of what idle modules would give
        if question.plan.straight:
            one = self.baseline[:1] if history is None else self.baseline[:1, :history]
            self._find_ends(one)

    def _find_ends(self, baseline: Tensor) -> None:
        """Straight layers at the ends of the path, between which they need not be computed.

        They are looked at again half-way; a batch on which one bends walks its whole path.
        """
        plan = self.question.plan
        starts = self._straight(baseline)  # of one sample: it is that of all
        ends = self._straight(self.inputs)
        shapes = self.shapes
        few = self.inputs[:CHECKED]
        if self.history is not None:
            few = few[:, : self.history - 1 + CHECKED]
        if any(
            len(end) != len(self.sample) or starts[module].shape != (1, *end.shape[1:])
            for module, end in ends.items()
        ):
            # Layers that do not give a row a sample, but maps of whole segments.
            starts, few = self._straight(self.baseline), self.inputs
        middles = self._straight(torch.lerp(self.baseline[: len(few), : few.shape[1]], few, 0.5))
        for module in plan.straight:
            here = middles[module]
            start, end = starts[module], ends[module][: len(here)]
            if not lies_on_line(
                here, start if len(start) == len(end) else start.expand_as(end), end, 0.5
            ):
                self.question = replace(
                    self.question, plan=replace(plan, straight=[], idle=[], reads_input=True)
                )
                return
        self.ends = {module: (starts[module], ends[module]) for module in plan.straight}
        self.shapes = shapes

    def _straight(self, inputs: Tensor) -> dict[nn.Module, Tensor]:
        """Run the network as far as the straight layers; give their outputs."""
        plan = self.question.plan
        wanted = {str(i): module for i, module in enumerate([*plan.straight, *plan.idle])}
        arithmetic = self.question.arithmetic(inputs.device)
        with torch.no_grad(), arithmetic, stopped_after(wanted) as caught:
            self.question.network(inputs.clone())
        found = {module: caught[name] for name, module in wanted.items()}
        self.shapes = {module: found[module].shape for module in plan.idle}
        return {
            module: found[module].float() if self.question.precision else found[module]
            for module in plan.straight
        }

    def _points(self, places: Sequence[float]) -> Tensor:
        return torch.cat([torch.lerp(self.baseline, self.inputs, s) for s in places])

    def evaluate(self, places: Sequence[float], *, gradients: bool = True) -> Nodes:
        """Evaluate layers and targets at some places of the path, 0 the baseline, 1 the input.

        The place 1 is to be evaluated first: what a target fixes at the input is fixed there.
        """
        question, plan = self.question, self.question.plan
        given = {module: _between(start, end, places) for module, (start, end) in self.ends.items()}
        n_points = len(places)
        idle = {
            module: self.inputs.new_empty(n_points * shape[0], *shape[1:])
            for module, shape in self.shapes.items()
            if self.ends
        }
        if self.ends and not plan.reads_input:
            inputs = self.inputs.new_empty(n_points * len(self.inputs), *self.inputs.shape[1:])
        else:
            inputs = self._points(places)
        with (
            torch.set_grad_enabled(gradients),
            question.arithmetic(inputs.device),
            replaced({**given, **idle}),
            captured(plan.layers, shared=plan.shared) as caught,
        ):
            outputs = question.network(inputs)
        outputs = outputs.unflatten(0, (n_points, -1))
        if question.precision is not None:
            outputs = outputs.float()
        if places[0] == 1.0 and self.fixed is None:
            self.fixed = question.target.choose(outputs[0].detach(), self.sample)
        return Nodes(caught, question.target.values(outputs, self.fixed))

    def moved_to(self, inputs: Tensor) -> Path:
        """Path of the same samples to other inputs, with what the target fixed."""
        path = Path(self.question, inputs, self._baseline, self.sample, self.history)
        path.fixed = self.fixed
        return path

    def held(
        self,
        layer: nn.Module,
        values: Tensor,
        idle: Mapping[nn.Module, torch.Size],
        reads_input: bool,
    ) -> Tensor:
        """Give the targets (point, sample, n) when a layer gives `values` (point * sample, ...).

        `idle` modules, with the shape that they give for the batch, do not run: nothing but the
        layer needs them.
        """
        question = self.question
        n_points = len(values) // len(self.sample)
        inputs = self.inputs.new_empty(n_points * len(self.inputs), *self.inputs.shape[1:])
        if reads_input:
            inputs = self.inputs.repeat(n_points, *[1] * (self.inputs.ndim - 1))
        given = {
            module: self.inputs.new_empty(n_points * shape[0], *shape[1:])
            for module, shape in idle.items()
        }
        given[layer] = values
        with torch.no_grad(), question.arithmetic(inputs.device), replaced(given):
            outputs = question.network(inputs).unflatten(0, (n_points, -1))
        return question.target.values(
            outputs.float() if question.precision else outputs, self.fixed
        )


def _between(start: Tensor, end: Tensor, places: Sequence[float]) -> Tensor:
    parts = [torch.lerp(start, end, s) for s in places]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def gradients_of(nodes: Nodes) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Gradients of each target with respect to every layer, from one forward pass.

    The nodes are used up.
    """
    n_targets = nodes.targets.shape[-1]
    names = ", ".join(map(repr, nodes.layers))
    if not nodes.targets.requires_grad:
        raise ValueError(f"layers {names} have no path to the output: choose others")
    for k in range(n_targets):
        # Samples do not interact, so the gradient of the sum is each sample's own.
        gradients = torch.autograd.grad(
            nodes.targets[..., k].sum(),
            list(nodes.layers.values()),
            retain_graph=k + 1 < n_targets,
            allow_unused=True,
        )
        found: dict[str, Tensor] = {}
        for name, gradient in zip(nodes.layers, gradients, strict=True):
            if gradient is None:
                raise ValueError(f"layer {name!r} has no path to the output: choose another layer")
            found[name] = gradient
        yield k, found
