"""Gradients of numbers inside a network with respect to its input, each sample's own.

A movie's segments overlap: a frame is in the input of many samples. Here every sample has its own
window (lag, [color,] y, x), so that its gradient is not mixed with those of its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from retina_codec.attribution.budget import (
    MEMORY_BUDGET,
    MOST_ON_A_GPU,
    MOST_SAMPLES,
    bytes_of_graph,
)
from retina_codec.attribution.capture import stopped_after
from retina_codec.models.model import Batch, Model, Samples

# Numbers (sample, function) of a layer's output (sample, ...), or of the network's outputs
# (sample, output), and of the samples' indices (sample,) in the data.
Functions = Callable[[Tensor, Tensor], Tensor]


def chosen_outputs(columns: Sequence[int]) -> Functions:
    """Take outputs of the network, by their numbers."""
    columns = list(columns)
    return lambda outputs, sample: outputs[:, columns]


def weighted_sums(weights: Tensor) -> Functions:
    """Sum the units of a layer with weights, the same for all samples or their own.

    Parameters
    ----------
    weights : torch.Tensor
        (function, *units), or (sample of the data, function, *units).
    """

    def values(activation: Tensor, sample: Tensor) -> Tensor:
        units = activation.flatten(1)
        if weights.ndim == activation.ndim:
            return units @ weights.flatten(1).to(units).T
        own = weights[sample.to(weights.device)].flatten(2).to(units)
        return (own @ units[:, :, None])[:, :, 0]

    return values


class SeparateInputs:
    """Samples of data, or some of them, each with an input of its own.

    Parameters
    ----------
    samples : Samples
        As a model lays them out.
    chosen : array of int, optional
        Indices of those that are wanted, ascending; by default all.
    """

    def __init__(self, samples: Samples, chosen: np.ndarray | None = None) -> None:
        self._samples = samples
        self.chosen = np.arange(len(samples)) if chosen is None else np.asarray(chosen)
        self.input_dims = samples.input_dims
        self.coords: dict[str, xr.DataArray] = {
            name: coord.isel({coord.dims[0]: self.chosen}) for name, coord in samples.coords.items()
        }

    def __len__(self) -> int:
        return len(self.chosen)

    def batches(self, size: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Give inputs (sample, [lag,] ...) of `size` samples at a time."""
        stop = len(self) if stop is None else stop
        held: list[Tensor] = []
        n_held, first = 0, start
        for inputs in self._inputs(size, start, stop):
            held.append(inputs)
            n_held += len(inputs)
            while n_held >= size:
                whole = torch.cat(held)
                yield Batch(slice(first, first + size), whole[:size])
                held, n_held, first = [whole[size:]], n_held - size, first + size
        if n_held:
            yield Batch(slice(first, stop), torch.cat(held))

    def _inputs(self, size: int, start: int, stop: int) -> Iterator[Tensor]:
        """Windows of contiguous stretches of what is chosen."""
        wanted = self.chosen[start:stop]
        for stretch in np.split(wanted, np.flatnonzero(np.diff(wanted) != 1) + 1):
            if len(stretch):
                for batch in self._samples.batches(size, int(stretch[0]), int(stretch[-1]) + 1):
                    yield batch.select(torch.arange(batch.index.stop - batch.index.start))

    def layer_coords(self, layer: str, shape: tuple[int, ...]) -> dict[str, xr.DataArray]:
        """Coordinates of a layer's unit dims."""
        return self._samples.layer_coords(layer, shape)


def differentiable(network: nn.Module, inputs: Tensor, layer: nn.Module | None = None) -> Tensor:
    """Output of the network, or of a layer, for inputs that it may be differentiated by.

    Raises
    ------
    ValueError
        If the layer does not run.
    """
    if layer is None:
        return network(inputs.clone())  # a copy, for networks that work on their input in place
    with stopped_after({"layer": layer}, attached=True) as caught:
        network(inputs.clone())
    if "layer" not in caught:
        raise ValueError("the layer does not run in the forward pass: choose another")
    return caught["layer"]


class InputGradients:
    """Gradients of scalar functions of a layer with respect to each sample's own input.

    The network must be frozen while it is used, with gradients on (`capture.undisturbed`).

    Parameters
    ----------
    model : Model
        Whose network treats each sample by itself.
    samples : Samples
        Data, as ``model.samples`` lays them out.
    functions : Functions
        The numbers that are differentiated, such as `chosen_outputs` and `weighted_sums` give.
    layer : str, optional
        Layer whose output they are of; by default the network's outputs.
    chosen : array of int, optional
        Indices of the samples that are wanted, ascending; by default all.
    batch_size : int, optional
        Samples in one pass; by default what fits the budget.
    memory_budget : float
        Bytes that a pass may take.

    Attributes
    ----------
    n_functions : int
        Numbers a sample.
    input_shape : tuple of int
        Of one input: ([lag, color,] y, x) and the like.
    """

    def __init__(
        self,
        model: Model,
        samples: Samples,
        functions: Functions,
        *,
        layer: str | None = None,
        chosen: np.ndarray | None = None,
        batch_size: int | None = None,
        memory_budget: float = MEMORY_BUDGET,
    ) -> None:
        self.samples = SeparateInputs(samples, chosen)
        self._network = model.network
        self._layer = None if layer is None else model.layer(layer)
        self._functions = functions
        probe = next(iter(self.samples.batches(1)))
        self.input_shape = tuple(probe.inputs.shape[1:])
        # Recorded units: d / d stimulus = d / d input / sd.
        self._sd = model.normalization[1]
        graph, values = bytes_of_graph(self._network, lambda: self._values(probe)[1])
        self.n_functions = values.shape[1]
        one = probe.inputs.numel() * probe.inputs.element_size()
        device = probe.inputs.device.type
        fitting = int(memory_budget // max(1, graph + (self.n_functions + 3) * one))
        most = MOST_SAMPLES.get(device, MOST_ON_A_GPU)
        self.batch_size = batch_size or max(1, min(fitting, most, len(self.samples)))

    def __len__(self) -> int:
        return len(self.samples)

    def _values(self, batch: Batch) -> tuple[Tensor, Tensor]:
        inputs = batch.inputs.detach().requires_grad_()
        sample = torch.from_numpy(self.samples.chosen[batch.index])
        found = differentiable(self._network, inputs, self._layer)
        return inputs, self._functions(found, sample)

    def each(
        self, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[slice, Tensor, Iterator[Tensor]]]:
        """Give, batch by batch, one function's gradients after the other.

        Yields
        ------
        slice
            Of the chosen samples.
        torch.Tensor
            (sample, function), the numbers.
        iterator of torch.Tensor
            For each function its gradients (sample, ...), shaped as inputs, in the function's
            units per recorded unit of the data. To be used up before the next batch.
        """
        for batch in self.samples.batches(self.batch_size, start, stop):
            inputs, values = self._values(batch)
            yield batch.index, values.detach(), self._gradients(inputs, values)

    def batches(
        self, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Give, batch by batch, the samples, numbers, and gradients (sample, function, ...)."""
        for index, values, gradients in self.each(start, stop):
            yield index, values, torch.stack(list(gradients), dim=1)

    def _gradients(self, inputs: Tensor, values: Tensor) -> Iterator[Tensor]:
        n = values.shape[1]
        for k in range(n):
            if not values.requires_grad:
                yield torch.zeros_like(inputs)
                continue
            # Samples do not interact, so the gradient of the sum is each sample's own.
            (gradient,) = torch.autograd.grad(
                values[:, k].sum(), inputs, retain_graph=k + 1 < n, allow_unused=True
            )
            yield torch.zeros_like(inputs) if gradient is None else gradient / self._sd
