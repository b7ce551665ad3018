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

from retina_codec.attribution.capture import captured, execution_order, replaced, stopped_after

# Multiples of the input where a layer is compared with a straight line through 0 and 1: along the
# path, and far outside, where any rectification or saturation shows.
PLACES = (0.5, 0.2718, -1.0, -30.0, 30.0)
# Of the largest value: single precision of a sum over some thousand inputs.
STRAIGHT = 2e-5
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


def stirred(inputs: Tensor) -> Tensor:
    """Add noise as large as the inputs: data may begin with a stretch of the baseline itself."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(inputs.shape, generator=generator, dtype=torch.float32).to(inputs)
    size = float(inputs.abs().amax())
    return inputs + noise * (size if size > 0 else 1.0)


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
        again = network(probe.clone())
        if not torch.equal(outputs, again):
            raise ValueError(
                "model gives other outputs when it runs again on the same input (the largest "
                f"difference is {float((outputs - again).abs().max()):.3g}): contributions need "
                "a network without dropout or noise in evaluation mode"
            )
        straight = _straight(network, order, layers, probe, baseline)
        idle, reads_input = _needed(network, straight, probe, outputs)
    return Plan(
        dict(layers),
        [module for module in straight if module not in idle],
        [module for module in straight if module in idle],
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
                network(probe)  # says it if the layer runs twice or gives no tensor
            if name not in caught:
                raise ValueError(f"layer {name!r} does not run in the forward pass: choose another")
    return order


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

    def outputs(s: float) -> dict[str, Tensor]:
        with stopped_after(candidates) as caught:
            network(torch.lerp(baseline, probe, s))  # a fresh tensor, for in-place modules
        return caught

    start, end = outputs(0.0), outputs(1.0)
    found = dict(candidates)
    for s in PLACES:
        here = outputs(s)
        for name in list(found):
            if not lies_on_line(here[name], start[name], end[name], s):
                del found[name]
    inside = {part for module in found.values() for part in list(module.modules())[1:]}
    return [module for module in found.values() if module not in inside]


def lies_on_line(here: Tensor, start: Tensor, end: Tensor, s: float) -> bool:
    """Whether a layer's output at place `s` is on the line through its ends, up to rounding."""
    if not here.is_floating_point():
        return False
    scale = max(float((end - start).abs().amax()), float(start.abs().amax()))
    distance = float((here - torch.lerp(start, end, s)).abs().amax())
    tolerance = STRAIGHT if here.dtype != torch.float64 else 1e-10
    # Not a number, as a logarithm may give far outside, is not on the line.
    return distance <= tolerance * scale * max(1.0, abs(s))


def _needed(
    network: nn.Module, straight: list[nn.Module], probe: Tensor, expected: Tensor
) -> tuple[list[nn.Module], bool]:
    """Straight modules that only feed other ones, and whether the rest reads the input itself."""
    if not straight:
        return [], True
    with stopped_after({str(i): module for i, module in enumerate(straight)}) as caught:
        network(probe)
    values = {module: caught[str(i)] for i, module in enumerate(straight)}
    idle: list[nn.Module] = []
    if _same(network, values, set(straight[:-1]), probe, expected):
        idle = straight[:-1]  # the last stands before all that follows: a chain
    for module in straight[len(idle) :]:
        hidden = {*idle, module}
        if _same(network, values, hidden, probe, expected):
            idle.append(module)
    unread = torch.full_like(probe, torch.nan)
    return idle, not _same(network, values, set(idle), unread, expected)


def _same(
    network: nn.Module,
    values: Mapping[nn.Module, Tensor],
    hidden: set[nn.Module],
    inputs: Tensor,
    expected: Tensor,
) -> bool:
    """Whether the outputs stay as expected when hidden modules give NaN instead of their values."""
    outputs = {m: torch.full_like(v, torch.nan) if m in hidden else v for m, v in values.items()}
    with replaced({module: output.clone() for module, output in outputs.items()}):
        try:
            return torch.equal(network(inputs.clone()), expected)
        except Exception:  # a network may refuse NaN: then it looks at them
            return False


def front_of(network: nn.Module, layer: nn.Module, probe: Tensor) -> tuple[list[nn.Module], bool]:
    """Modules before `layer` that need not run when it is held, and whether inputs are read."""
    order = execution_order(network, probe.clone())
    before = order[: order.index(layer)]
    inside = {part for module in [*before, layer] for part in list(module.modules())[1:]}
    outermost = [module for module in before if module not in inside]
    idle, reads_input = _needed(network, [*outermost, layer], probe, network(probe.clone()))
    return [module for module in idle if module is not layer], reads_input


def bypassed(network: nn.Module, layers: Mapping[str, nn.Module], probe: Tensor) -> list[str]:
    """Layers that do not cut the network: something goes from input to outputs around them.

    In one pass every layer's output is cut off from what came before. What each layer, and the
    outputs, then still depend on is to be the layer right before it; if it is an earlier one,
    those between are bypassed.
    """
    inputs = probe.detach().clone().requires_grad_()
    leaves: dict[str, Tensor] = {"": inputs}
    stages: dict[str, Tensor] = {}

    def hold(name: str) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        def hook(module: nn.Module, given: Any, output: Tensor) -> Tensor:
            stages[name] = output.clone()  # before an in-place module writes to it
            leaves[name] = output.detach().clone().requires_grad_()
            return leaves[name].clone()

        return hook

    with ExitStack() as stack:
        for name, layer in layers.items():
            stack.callback(layer.register_forward_hook(hold(name)).remove)
        outputs = network(inputs.clone())
    order = list(leaves)
    found: set[str] = set()
    for place, stage in enumerate([*stages.values(), outputs], start=1):
        if not stage.requires_grad:
            continue
        # Not the plain sum, whose gradient is zero behind a softmax.
        weights = torch.linspace(1, 2, stage[0].numel()).to(stage)
        gradients = torch.autograd.grad(
            (stage.flatten(1) * weights).sum(),
            [leaves[name] for name in order[:place]],
            retain_graph=True,
            allow_unused=True,
        )
        for before, gradient in enumerate(gradients):
            if gradient is not None and bool(gradient.any()):
                found |= set(order[before + 1 : place])
    return [name for name in layers if name in found]


def elementwise_after(
    network: nn.Module, name: str, layer: nn.Module, probe: Tensor
) -> list[nn.Module]:
    """Modules after `layer` that are elementwise functions of its output, such as batch norms.

    Elementwise is what has a diagonal Jacobian: its products with two vectors have the same ratio
    to them, everywhere.
    """
    order = execution_order(network, probe)
    later = {str(i): module for i, module in enumerate(order[order.index(layer) + 1 :])}
    generator = torch.Generator().manual_seed(0)
    with captured({name: layer, **later}) as caught:
        network(probe)
    origin = caught[name]
    found = []
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
            found.append(module)
    return found
