"""Any network on plain tensors, as a `Model` with numbered samples and outputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from retina_codec.models.model import Batch, Model, frozen


class TensorSamples:
    """Tensors, samples first."""

    def __init__(
        self,
        inputs: Tensor,
        sample_dim: str,
        sample_coords: dict[str, xr.DataArray],
        model: Model,
        input_dims: tuple[str, ...] | None = None,
    ) -> None:
        self._inputs = inputs
        self.input_dims = input_dims
        self._model = model
        self.coords = sample_coords or {
            sample_dim: xr.DataArray(np.arange(len(inputs)), dims=sample_dim)
        }

    def __len__(self) -> int:
        return len(self._inputs)

    def batches(self, size: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Give slices of the tensor."""
        stop = len(self) if stop is None else stop
        for first in range(start, stop, size):
            index = slice(first, min(first + size, stop))
            yield Batch(index, self._inputs[index].to(self._model.device, self._model.dtype))

    def layer_coords(self, layer: str, shape: tuple[int, ...]) -> dict[str, xr.DataArray]:
        """Give indices: geometry does not say where the units of an unknown network look."""
        return {
            dim: xr.DataArray(
                np.arange(size), dims=dim, attrs={} if dim == "channel" else {"units": "index"}
            )
            for dim, size in zip(("channel", "y", "x"), shape[1:], strict=False)
        }


class TensorModel(Model):
    """Any network that takes a tensor, samples first, and gives (sample, output).

    Parameters
    ----------
    network : torch.nn.Module
        The network.
    example : array or tensor
        Inputs, of which the first tells the number of outputs.
    sample_dim, output_dim : str
        Names of those dims; of a DataArray, the first dim is the sample's.
    """

    def __init__(
        self,
        network: nn.Module,
        example: Any,
        *,
        sample_dim: str = "sample",
        output_dim: str = "output",
    ) -> None:
        super().__init__(network, sample_dim=sample_dim, output_dim=output_dim, outputs=[])
        devices = [self.device] if self.device.type == "cuda" else []
        first = self._tensor(example)[:1].to(self.device, self.dtype, copy=True)
        with torch.random.fork_rng(devices), frozen(network), torch.no_grad():
            outputs = network(first)
        if not isinstance(outputs, Tensor) or outputs.ndim != 2:
            raise ValueError(
                "model gives "
                + (f"shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else "no tensor")
                + "; expected outputs (sample, output): wrap it in a module that does"
            )
        self.outputs = np.arange(outputs.shape[1]).astype(str)

    @staticmethod
    def _tensor(data: Any, argument: str = "data") -> Tensor:
        values = data.values if isinstance(data, xr.DataArray) else data
        tensor = torch.as_tensor(values)
        if tensor.ndim < 2 or not len(tensor):
            raise ValueError(
                f"{argument} has shape {tuple(tensor.shape)}; expected samples first, at least "
                "one, then inputs"
            )
        if tensor.is_complex():
            raise ValueError(
                f"{argument} is complex; expected real numbers, such as its .real or .abs()"
            )
        if not torch.isfinite(tensor).all():
            first = int(torch.argwhere(~torch.isfinite(tensor))[0][0])
            raise ValueError(f"{argument} has NaN or infinite values, the first in sample {first}")
        return tensor

    def samples(self, data: Any, argument: str = "data") -> TensorSamples:
        """Lay out a tensor, samples first."""
        coords: dict[str, xr.DataArray] = {}
        dims = None
        if isinstance(data, xr.DataArray):
            dims = tuple(map(str, data.dims[1:]))
            self.sample_dim = str(data.dims[0])
            coords = {
                str(name): coord
                for name, coord in data.coords.items()
                if coord.dims == (self.sample_dim,)
            }
        return TensorSamples(self._tensor(data, argument), self.sample_dim, coords, self, dims)
