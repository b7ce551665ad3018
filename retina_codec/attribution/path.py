"""One batch's straight path from baseline to input, with the network evaluated along it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from retina_codec.attribution.capture import (
    blank,
    captured,
    replaced,
    shapes_of,
    stopped_after,
)
from retina_codec.attribution.plan import Plan, lies_on_line
from retina_codec.attribution.targets import BoundTarget

# Samples of a batch on which straight layers are looked at again, half-way along the path.
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
        self._idle_shapes: dict[nn.Module, torch.Size] = {}
        if question.plan.straight and not self._find_ends():
            plan = replace(question.plan, straight=[], idle=[], reads_input=True)
            self.question = replace(question, plan=plan)

    def _find_ends(self) -> bool:
        """Straight layers at the ends of the path, between which they need not be computed.

        They are looked at again half-way, on the samples that differ most from the baseline. If
        one bends, or does not run, the batch walks its whole path: False.
        """
        plan = self.question.plan
        one = self.baseline[:1] if self.history is None else self.baseline[:1, : self.history]
        with shapes_of(plan.idle) as shapes:
            ends = self._straight(self.inputs)
        starts = self._straight(one)  # of one sample: it is that of all
        samples_first = all(len(end) == len(self.sample) for end in ends.values())
        if samples_first:
            few, chosen = self._most_unlike()
        else:
            few, chosen = self.inputs, slice(None)
            starts = self._straight(self.baseline)
        middles = self._straight(torch.lerp(self.baseline[: len(few), : few.shape[1]], few, 0.5))
        ran = [len(found) == len(plan.straight) for found in (starts, ends, middles)]
        if not all(ran) or len(shapes) < len(plan.idle):
            return False
        for module in plan.straight:
            end = ends[module][chosen]
            if not lies_on_line(middles[module], starts[module].expand_as(end), end, 0.5):
                return False
        self.ends = {module: (starts[module], ends[module]) for module in plan.straight}
        self._idle_shapes = dict(shapes)
        return True

    def _most_unlike(self) -> tuple[Tensor, slice | Tensor]:
        """Take inputs of a few samples that differ most from the baseline, and which those are."""
        inputs = self.inputs
        if self.history is not None and len(inputs) == 1:
            away = (inputs - self.baseline)[0].flatten(1).abs().amax(1)
            # Windows that begin before the frame.
            last = max(len(self.sample) - CHECKED, 0)
            start = min(max(int(away.argmax()) - CHECKED // 2, 0), last)
            stop = min(start + CHECKED, len(self.sample))
            return inputs[:, start : stop + self.history - 1], slice(start, stop)
        away = (inputs - self.baseline).flatten(1).abs().amax(1)
        chosen = away.topk(min(CHECKED, len(inputs))).indices
        return inputs[chosen], chosen

    def _straight(self, inputs: Tensor) -> dict[nn.Module, Tensor]:
        """Run the network as far as the straight layers; give the outputs of those that ran."""
        straight = {str(i): module for i, module in enumerate(self.question.plan.straight)}
        arithmetic = self.question.arithmetic(inputs.device)
        with torch.no_grad(), arithmetic, stopped_after(straight) as caught:
            self.question.network(inputs.clone())
        return {
            straight[name]: value.float() if self.question.precision else value
            for name, value in caught.items()
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
        idle = self._idle(self._idle_shapes, n_points)
        if self.ends and not plan.reads_input:
            inputs = self._unread(n_points)
        else:
            inputs = self._points(places)
        with (
            torch.set_grad_enabled(gradients),
            question.arithmetic(inputs.device),
            replaced({**given, **idle}),
            captured(plan.layers, shared=plan.shared) as caught,
        ):
            outputs = question.network(inputs)
        for name in plan.layers:
            if name not in caught:
                raise ValueError(
                    f"layer {name!r} does not run at every point of the path: which way the "
                    "network takes depends on its input; take the block that contains the layer"
                )
        outputs = outputs.unflatten(0, (n_points, -1))
        if question.precision is not None:
            outputs = outputs.float()
        if places[0] == 1.0 and self.fixed is None:
            self.fixed = question.target.choose(outputs[0].detach(), self.sample)
        return Nodes(caught, question.target.values(outputs, self.fixed))

    def _unread(self, n_points: int) -> Tensor:
        """Give inputs that are not looked at."""
        shape = self.inputs.shape
        return blank((n_points * shape[0], *shape[1:]), self.inputs, 0.0)

    def _idle(
        self, shapes: Mapping[nn.Module, torch.Size], n_points: int
    ) -> dict[nn.Module, Tensor]:
        """Give outputs of modules that are not looked at."""
        return {
            module: blank((n_points * shape[0], *shape[1:]), self.inputs)
            for module, shape in shapes.items()
        }

    def moved_to(self, inputs: Tensor) -> Path:
        """Path of the same samples to other inputs, with what the target fixed."""
        path = Path(self.question, inputs, self._baseline, self.sample, self.history)
        path.fixed = self.fixed
        return path

    def shapes(self, modules: Collection[nn.Module]) -> dict[nn.Module, torch.Size]:
        """Shapes of the outputs of modules, at the input."""
        question = self.question
        with (
            torch.no_grad(),
            question.arithmetic(self.inputs.device),
            shapes_of(modules) as shapes,
        ):
            question.network(self.inputs.clone())
        return shapes

    def held(
        self,
        layer: nn.Module,
        values: Tensor,
        idle: Mapping[nn.Module, torch.Size],
        reads_input: bool,
    ) -> Tensor:
        """Give the targets (point, sample, n) when a layer gives `values` (point * sample, ...).

        `idle` modules, of whose outputs the shapes are given, do not run: nothing but the layer
        needs them.
        """
        question = self.question
        n_points = len(values) // len(self.sample)
        inputs = self._unread(n_points)
        if reads_input:
            inputs = self.inputs.repeat(n_points, *[1] * (self.inputs.ndim - 1))
        given = {**self._idle(idle, n_points), layer: values}
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
