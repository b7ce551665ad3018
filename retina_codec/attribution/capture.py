"""Hidden layers caught during a forward pass, and layers told what to give, by hooks.

Everything is undone when a ``with`` block ends, also when the network raises.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from retina_codec.models.model import Model, frozen


@contextmanager
def undisturbed(model: Model) -> Iterator[None]:
    """Freeze the network, with gradients on; random state, modes and gradients stay as before."""
    devices = [model.device] if model.device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices),
        torch.inference_mode(False),
        torch.enable_grad(),
        frozen(model.network),
    ):
        yield


@contextmanager
def captured(
    layers: Mapping[str, nn.Module], *, shared: Collection[str] = ()
) -> Iterator[dict[str, Tensor]]:
    """Catch the output of each layer in the forward pass that runs inside.

    With gradients on, the tensors caught carry those of what follows: the first layer's is a
    leaf, so nothing below it is differentiated. What follows works on a copy, so that an in-place
    module after the layer cannot change what was caught; the layers named in `shared` are known
    to be safe and are not copied.

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
            if torch.is_grad_enabled() and not output.requires_grad:
                output = output.detach().requires_grad_()
            caught[name] = output
            return output if name in shared else output.clone()

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
        network(inputs.clone())  # for a network that works on its input in place
    return [module for module in ended if module not in several]


@contextmanager
def replaced(outputs: Mapping[nn.Module, Tensor]) -> Iterator[None]:
    """Let modules give these outputs, whatever their inputs, without computing anything.

    Hooks of the user's on these modules do not run: those that change an output have acted on
    what is given already.
    """
    with ExitStack() as stack:
        for module, output in outputs.items():
            stack.enter_context(_replaced(module, output))
        yield


# Where PyTorch keeps what it calls before and after a module's forward.
HOOKS = ("_forward_hooks", "_forward_pre_hooks")


@contextmanager
def _replaced(module: nn.Module, output: Tensor) -> Iterator[None]:
    before = vars(module).get("forward")
    hooks = {name: getattr(module, name) for name in HOOKS}
    module.forward = lambda *args, **kwargs: output
    for name in HOOKS:
        setattr(module, name, OrderedDict())
    try:
        yield
    finally:
        for name in HOOKS:
            setattr(module, name, hooks[name])
        if before is None:
            del module.forward
        else:
            module.forward = before


def blank(shape: Sequence[int], like: Tensor, value: float = float("nan")) -> Tensor:
    """Give a tensor that takes no memory, for what is not looked at."""
    return like.new_full((), value).expand(*shape)


@contextmanager
def shapes_of(modules: Collection[nn.Module]) -> Iterator[dict[nn.Module, torch.Size]]:
    """Note the shapes of the outputs of modules in the forward pass that runs inside."""
    shapes: dict[nn.Module, torch.Size] = {}

    def note(module: nn.Module, inputs: Any, output: Tensor) -> None:
        shapes[module] = output.shape

    with ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_hook(note).remove)
        yield shapes


class _StopPass(Exception):  # noqa: N818 - a signal, not an error
    """The forward pass has run as far as is wanted."""


@contextmanager
def stopped_after(
    layers: Mapping[str, nn.Module], *, attached: bool = False
) -> Iterator[dict[str, Tensor]]:
    """Catch the outputs of layers, and leave the forward pass inside when all have run.

    If `attached`, they can be differentiated with respect to what the network was given.
    """
    caught: dict[str, Tensor] = {}

    def catch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            caught[name] = (output if attached else output.detach()).clone()
            if len(caught) == len(layers):
                raise _StopPass

        return hook

    with ExitStack() as stack:
        for name, layer in layers.items():
            stack.callback(layer.register_forward_hook(catch(name)).remove)
        with suppress(_StopPass):
            yield caught
