"""The part of a network that follows a layer, run again and again on what the layer gives."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from retina_codec.attribution.capture import (
    blank,
    execution_order,
    replaced,
    shapes_of,
    stopped_after,
)
from retina_codec.attribution.plan import front_of

# Rows that go through the rest of the network at once.
ROWS = 1024


def first_of(network: nn.Module, layers: dict[str, nn.Module], probe: Tensor) -> str:
    """Name of the layer that ends first in a forward pass."""
    order = execution_order(network, probe)
    return min(layers, key=lambda name: order.index(layers[name]))


class Rest:
    """What follows `layer` in a frozen network; nothing before it that only it needs is run.

    Parameters
    ----------
    network : torch.nn.Module
        The network.
    layer : torch.nn.Module
        A layer of it that runs once.
    probe : torch.Tensor
        Network inputs of a few samples.
    """

    def __init__(self, network: nn.Module, layer: nn.Module, probe: Tensor) -> None:
        self._network = network
        self._layer = layer
        self._idle, self._reads_input = front_of(network, layer, probe)

    def front(self, inputs: Tensor) -> Front:
        """Run the network as far as the layer."""
        with torch.no_grad(), shapes_of(self._idle) as shapes:
            with stopped_after({"layer": self._layer}) as caught:
                self._network(inputs.clone())
            return Front(self, inputs, caught["layer"], dict(shapes))

    def run(self, front: Front, values: Tensor) -> Tensor:
        """Give the outputs (point * sample, output) where the layer gives `values`."""
        n_points = len(values) // len(front.activation)
        inputs = front.inputs
        shape = (n_points * inputs.shape[0], *inputs.shape[1:])
        inputs = (
            inputs.repeat(n_points, *[1] * (inputs.ndim - 1))
            if self._reads_input
            else blank(shape, inputs, 0.0)
        )
        idle = {
            module: blank((n_points * shape[0], *shape[1:]), inputs)
            for module, shape in front.shapes.items()
        }
        with torch.no_grad(), replaced({**idle, self._layer: values}):
            outputs: Tensor = self._network(inputs)
        return outputs


class Front:
    """A batch run as far as a layer: inputs, what the layer gives, shapes of what came before."""

    def __init__(
        self, rest: Rest, inputs: Tensor, activation: Tensor, shapes: dict[nn.Module, torch.Size]
    ) -> None:
        self._rest = rest
        self.inputs = inputs
        self.activation = activation
        self.shapes = shapes

    def outputs(self, values: Tensor) -> Tensor:
        """Give the outputs (point * sample, output) where the layer gives `values`."""
        return self._rest.run(self, values)
