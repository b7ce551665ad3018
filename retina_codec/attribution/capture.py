"""Hidden layers caught during a forward pass, and a network left as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def captured(layers: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Catch the output of each layer in the forward pass that runs inside.

    The tensors caught carry gradients of what follows: the first layer's is a leaf, so nothing
    below it is differentiated. What follows works on a copy, so that an in-place module after the
    layer cannot change what was caught.

    Raises
    ------
    ValueError
        If a layer runs twice in one pass, or does not give one tensor.
    """
    caught: dict[str, Tensor] = {}

    def catch(name: str) -> Callable[[nn.Module, Any, Any], Tensor]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> Tensor:
            if not isinstance(output, Tensor):
                raise ValueError(
                    f"layer {name!r} gives a {type(output).__name__}; expected one tensor: take "
                    "a layer inside it"
                )
            if name in caught:
                raise ValueError(
                    f"layer {name!r} runs more than once in a forward pass, so its contribution "
                    "is ambiguous: take the block that contains it"
                )
            if not output.requires_grad:
                output = output.detach().requires_grad_()
            caught[name] = output
            return output.clone()

        return hook

    with ExitStack() as stack:
        for name, layer in layers.items():
            stack.callback(layer.register_forward_hook(catch(name)).remove)
        yield caught


def execution_order(network: nn.Module, inputs: Tensor) -> list[nn.Module]:
    """Modules of `network` that run exactly once and give one tensor, in the order they end."""
    ended: list[nn.Module] = []
    several: set[nn.Module] = set()

    def note(module: nn.Module, args: Any, output: Any) -> None:
        if module in ended or not isinstance(output, Tensor):
            several.add(module)
        ended.append(module)

    with ExitStack() as stack, torch.no_grad():
        for module in network.modules():
            stack.callback(module.register_forward_hook(note).remove)
        network(inputs)
    return [module for module in ended if module not in several]


@contextmanager
def replaced(layer: nn.Module, output: Tensor) -> Iterator[None]:
    """Let `layer` give `output`, whatever its input, without computing anything."""
    layer.forward = lambda *args, **kwargs: output
    try:
        yield
    finally:
        del layer.forward
