"""What is found out about a network before the first path is walked.

Nothing is taken from the type of a module: a layer is affine, elementwise or a cut of the network
if it behaves so on a few samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from retina_codec.attribution.capture import (
    blank,
    captured,
    execution_order,
    replaced,
    stopped_after,
)

# Multiples of the input where a layer is compared with a straight line through 0 and 1: along the
# path, and far outside, where any rectification or saturation shows, whatever the layer's bias.
PLACES = (0.5, 0.2718, -1.0, -30.0, 30.0, -1e7, 1e7)
# Of the largest value of a channel: single precision of a sum over some thousand inputs.
STRAIGHT = 2e-5
# Of the largest channel: what smaller ones are held to.
SMALL = 0.02
# Of the largest output: the same sample in batches of other sizes.
APART = 1e-3
# Samples looked at.
PROBE = 2


@dataclass(frozen=True)
class Plan:
    """How the paths through a network are walked.

    `layers` are those asked for, `straight` affine functions of the input that stand before what
    is computed along the path, `idle` modules whose output nothing but those uses. `reads_input`
    says whether the rest of the network looks at the input itself; `shared` are the layers that no
    in-place module changes.
    """

    layers: dict[str, nn.Module]
    straight: list[nn.Module] = field(default_factory=list)
    idle: list[nn.Module] = field(default_factory=list)
    reads_input: bool = True
    shared: frozenset[str] = frozenset()


def make_plan(
    network: nn.Module, layers: Mapping[str, nn.Module], probe: Tensor, baseline: Tensor
) -> Plan:
    """Look at a frozen network on a few inputs (`probe`), and the baseline of each.

    Raises
    ------
    ValueError
        If a layer does not run, runs more than once or gives no single tensor, or if the network
        gives other numbers when it runs again.
    """
    with torch.no_grad():
        order = _order(network, layers, probe)
        outputs = network(probe.clone())
        if not bool(torch.isfinite(outputs).all()):
            raise ValueError("model gives NaN or infinite outputs for the first samples")
        again = network(probe.clone())
        if not torch.equal(outputs, again):
            raise ValueError(
                "model gives other outputs when it runs again on the same input (the largest "
                f"difference is {float((outputs - again).abs().max()):.3g}): contributions need "
                "a network without dropout or noise in evaluation mode"
            )
        require_apart(network, probe, baseline, outputs)
        straight = _straight(network, order, layers, probe, baseline)
        idle, reads_input = _needed(network, straight, probe, outputs)
    return Plan(
        dict(layers),
        [module for module in straight if module not in idle],
        idle,
        reads_input,
        frozenset(_unchanged(network, layers, probe)),
    )


def _unchanged(network: nn.Module, layers: Mapping[str, nn.Module], probe: Tensor) -> list[str]:
    """Layers whose output no in-place module writes to."""
    versions: dict[str, tuple[Tensor, int]] = {}

    def note(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            versions[name] = output, output._version

        return hook

    with ExitStack() as stack, torch.no_grad():
        for name, layer in layers.items():
            stack.callback(layer.register_forward_hook(note(name)).remove)
        network(probe.clone())
    return [name for name, (output, version) in versions.items() if output._version == version]


def _order(network: nn.Module, layers: Mapping[str, nn.Module], probe: Tensor) -> list[nn.Module]:
    order = execution_order(network, probe)
    for name, module in layers.items():
        if module not in order:
            with captured({name: module}) as caught:
                network(probe.clone())  # says it if the layer runs twice or gives no tensor
            if name not in caught:
                raise ValueError(f"layer {name!r} does not run in the forward pass: choose another")
    return order


def require_apart(network: nn.Module, probe: Tensor, baseline: Tensor, outputs: Tensor) -> None:
    """Raise ValueError if outputs of a sample, or of a point of its path, change with the batch."""
    scale = float(outputs.abs().amax())
    points = [torch.lerp(baseline[:1], probe[:1], s) for s in (0.0, 0.2, 0.5, 1.0)]
    together = network(torch.cat(points)).unflatten(0, (len(points), -1))
    pairs = [(network(point), rows) for point, rows in zip(points, together, strict=True)]
    if len(probe) > 1:
        pairs.append((network(probe[:1].clone()), outputs[:1]))
    for alone, rows in pairs:
        if not torch.allclose(alone, rows, rtol=0, atol=APART * scale):
            raise ValueError(
                "model gives other outputs for a sample when it is alone than in a batch with "
                "others: contributions need a network that treats every sample by itself"
            )


def scattered(probe: Tensor) -> Tensor:
    """Give inputs around the probe, with noise on them, so that no part of them stands still.

    A movie may begin in the dark, where everything looks as if it were straight.
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(probe.shape, generator=generator, dtype=torch.float64).to(probe)
    sd = float(probe.std(unbiased=False))
    return probe + noise * (sd if sd > 0 else 1.0)


def _straight(
    network: nn.Module,
    order: list[nn.Module],
    layers: Mapping[str, nn.Module],
    probe: Tensor,
    baseline: Tensor,
) -> list[nn.Module]:
    """Outermost modules, up to the first layer asked for, that are affine in the input.

    In a CNN of the retina this is the first convolution, nine tenths of the work.
    """
    first = min(order.index(module) for module in layers.values())
    candidates = {str(i): module for i, module in enumerate(order[: first + 1])}
    inputs = scattered(probe)

    def outputs(s: float) -> dict[str, Tensor]:
        with stopped_after(candidates) as caught:
            network(torch.lerp(baseline, inputs, s))  # a fresh tensor, for in-place modules
        return caught

    start, end = outputs(0.0), outputs(1.0)
    found = {name: module for name, module in candidates.items() if name in start and name in end}
    for s in PLACES:
        try:
            here = outputs(s)
        except Exception:  # a network may refuse such inputs: then it is walked as it is
            return []
        for name in list(found):
            if name not in here or not lies_on_line(here[name], start[name], end[name], s):
                del found[name]
    inside = {part for module in found.values() for part in list(module.modules())[1:]}
    return [module for module in found.values() if module not in inside]


def lies_on_line(here: Tensor, start: Tensor, end: Tensor, s: float) -> bool:
    """Whether a layer's output at place `s` is on the line through its ends, up to rounding."""
    if not here.is_floating_point():
        return False
    # Channel by channel, as a small one may bend beside a large one; but one that is small by
    # chance has the rounding of others.
    scale = torch.maximum(_by_channel(end - start), _by_channel(start))
    scale = scale.clamp(min=SMALL * float(scale.amax()))
    distance = _by_channel(here - torch.lerp(start, end, s))
    tolerance = STRAIGHT if here.dtype != torch.float64 else 1e-10
    # Not a number, as a logarithm may give far outside, is not on the line.
    return bool((distance <= tolerance * scale * max(1.0, abs(s))).all())


def _by_channel(values: Tensor) -> Tensor:
    """Take the largest absolute value along the first dim after the sample."""
    values = values.abs()
    return values.amax(0) if values.ndim < 3 else values.flatten(2).amax((0, 2))


def _needed(
    network: nn.Module, straight: list[nn.Module], probe: Tensor, expected: Tensor
) -> tuple[list[nn.Module], bool]:
    """Straight modules that only feed later ones, and whether the rest reads the input itself."""
    if not straight:
        return [], True
    with stopped_after({str(i): module for i, module in enumerate(straight)}) as caught:
        network(probe.clone())
    values = {module: caught[str(i)] for i, module in enumerate(straight)}
    idle: list[nn.Module] = []
    if _same(network, values, set(straight[:-1]), probe, expected):
        idle = straight[:-1]  # the last stands before all that follows: a chain
    for module in straight[len(idle) :]:
        hidden = {*idle, module}
        if _same(network, values, hidden, probe, expected):
            idle.append(module)
    # Those after the last that is needed are not known when the pass stops at it.
    last = max((i for i, module in enumerate(straight) if module not in idle), default=-1)
    idle = [module for module in straight[: last + 1] if module in idle]
    # What it is given then first; others for networks that only compare it with something.
    unread = [blank(probe.shape, probe, 0.0), blank(probe.shape, probe), *_far_from(probe)]
    reads_input = not all(
        _same(network, values, set(idle), inputs, expected, clone=False) for inputs in unread
    )
    return idle, reads_input


def _far_from(probe: Tensor) -> list[Tensor]:
    """Give inputs that are nothing like the probe, whatever they are compared with."""
    near = scattered(probe)
    return [near, 1e4 * near, -1e4 * near]


def _same(
    network: nn.Module,
    values: Mapping[nn.Module, Tensor],
    hidden: set[nn.Module],
    inputs: Tensor,
    expected: Tensor,
    *,
    clone: bool = True,
) -> bool:
    """Whether the outputs stay as expected when hidden modules give NaN instead of their values."""
    outputs = {m: blank(v.shape, v) if m in hidden else v.clone() for m, v in values.items()}
    with replaced(outputs):
        try:
            return torch.equal(network(inputs.clone() if clone else inputs), expected)
        except Exception:  # a network may refuse NaN: then it looks at them
            return False


def front_of(network: nn.Module, layer: nn.Module, probe: Tensor) -> tuple[list[nn.Module], bool]:
    """Modules before `layer` that need not run when it is held, and whether inputs are read."""
    order = execution_order(network, probe)
    before = order[: order.index(layer)]
    inside = {part for module in [*before, layer] for part in list(module.modules())[1:]}
    outermost = [module for module in before if module not in inside]
    with torch.no_grad():
        expected = network(probe.clone())
        idle, reads_input = _needed(network, [*outermost, layer], probe, expected)
    return [module for module in idle if module is not layer], reads_input


def bypassed(network: nn.Module, layers: Mapping[str, nn.Module], probe: Tensor) -> list[str]:
    """Layers that do not cut the network: something goes from input to outputs around them.

    In one pass every layer's output is cut off from what came before. What each layer, and the
    outputs, then still depend on is to be the layer right before it; if it is an earlier one,
    those between are bypassed. In a second pass with another input all layers are held, and
    nothing after the first may change: that finds what has no gradient.
    """
    inputs = scattered(probe).requires_grad_()
    leaves: dict[str, Tensor] = {"": inputs}
    stages: dict[str, Tensor] = {}

    def hold(name: str) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        def hook(module: nn.Module, given: Any, output: Tensor) -> Tensor:
            stages[name] = output.clone()  # before an in-place module writes to it
            if name not in leaves:
                leaves[name] = output.detach().clone().requires_grad_()
            return leaves[name].clone()

        return hook

    with ExitStack() as stack:
        for name, layer in layers.items():
            stack.callback(layer.register_forward_hook(hold(name)).remove)
        outputs = network(inputs.clone())
        found = [*stages.values(), outputs]
        stages = {}
        try:
            # With gradients as before: without them some modules take another way.
            changed = network(-30 * inputs)
            again = [*stages.values(), changed]
        except Exception:  # a network may refuse such inputs
            again = found
        if len(again) != len(found):  # or take another way for them, on which a layer does not run
            again = found
    order = list(leaves)
    around: set[str] = set()
    for place, (stage, other) in enumerate(zip(found, again, strict=True), start=1):
        before = {0} if place > 1 and not torch.equal(stage, other) else set()
        before |= set(_with_gradient(stage, [leaves[name] for name in order[:place]]))
        if before:
            around |= set(order[min(before) + 1 : place])
    return [name for name in layers if name in around]


def _with_gradient(output: Tensor, leaves: list[Tensor]) -> list[int]:
    """Those of the leaves that an output has a gradient to."""
    if not output.requires_grad:
        return []
    # Not the plain sum, whose gradient is zero behind a softmax.
    weights = torch.linspace(1, 2, output[0].numel()).to(output)
    total = (output.flatten(1) * weights).sum()
    gradients = torch.autograd.grad(total, leaves, retain_graph=True, allow_unused=True)
    return [i for i, g in enumerate(gradients) if g is not None and bool(g.any())]


def _around(
    network: nn.Module, layer: nn.Module, modules: Mapping[str, nn.Module], probe: Tensor
) -> set[str]:
    """Those of `modules` that other inputs change although the output of `layer` is held."""
    few = probe[:1]
    changed: set[str] = set()
    with torch.no_grad():
        with stopped_after({"layer": layer, **modules}) as caught:
            network(few.clone())

        def outputs(inputs: Tensor) -> dict[str, Tensor]:
            held = replaced({layer: caught["layer"].clone()})
            with held, stopped_after(modules) as found:
                network(inputs.clone())
            return found

        for inputs in _far_from(few):
            try:
                there = outputs(inputs)
            except Exception:  # a network may refuse such inputs
                continue
            changed |= {
                name
                for name in modules
                if name not in there or not torch.equal(caught[name], there[name])
            }
            if len(changed) == len(modules):
                break
    return changed


def elementwise_after(network: nn.Module, layer: nn.Module, probe: Tensor) -> list[nn.Module]:
    """Modules after `layer` that are elementwise functions of its output, such as batch norms.

    Elementwise is what has a diagonal Jacobian: its products with two vectors have the same ratio
    to them, everywhere.
    """
    order = execution_order(network, probe)
    later = {f"later {i}": module for i, module in enumerate(order[order.index(layer) + 1 :])}
    generator = torch.Generator().manual_seed(0)
    with captured({"layer": layer, **later}) as caught:
        network(probe.clone())
    origin = caught["layer"]
    found = {}
    for key, module in later.items():
        output = caught[key]
        if output.shape != origin.shape or not output.requires_grad:
            continue
        vectors = [
            (torch.rand(output.shape, generator=generator, dtype=torch.float64) + 0.5).to(output)
            for _ in range(2)
        ]
        products = [
            torch.autograd.grad(output, origin, vector, retain_graph=True, allow_unused=True)[0]
            for vector in vectors
        ]
        if products[0] is None or not products[0].any():
            continue
        ratios = [product / vector for product, vector in zip(products, vectors, strict=True)]
        if torch.allclose(ratios[0], ratios[1], rtol=1e-4, atol=0):
            found[key] = module
    # A residual sum is elementwise too, but not a function of the layer alone.
    around = _around(network, layer, found, probe) if found else set()
    return [module for key, module in found.items() if key not in around]
