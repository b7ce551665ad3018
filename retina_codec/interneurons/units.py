"""The hidden units of several layers, numbered one after the other, and their activations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from retina_codec.attribution.capture import captured
from retina_codec.models.model import Model, Samples

UNIT_DIMS = ("channel", "y", "x")


class Units:
    """Layers of a model with the shapes of their outputs; units are numbered through all.

    Parameters
    ----------
    model : Model
        On its device.
    names : sequence of str
        Of the layers.
    samples : Samples
        Of any stimulus: one sample tells the shapes.
    """

    def __init__(self, model: Model, names: Sequence[str], samples: Samples) -> None:
        self.names = list(names)
        self._network = model.network
        self._modules = {name: model.layer(name) for name in names}
        caught = self.run(next(iter(samples.batches(1, 0, 1))).inputs, 1)
        self.shapes = {name: tuple(caught[name].shape[1:]) for name in names}
        self.coords = {
            name: samples.layer_coords(name, (1, *shape)) for name, shape in self.shapes.items()
        }
        sizes = [int(np.prod(shape)) for shape in self.shapes.values()]
        self.edges = np.r_[0, np.cumsum(sizes)]

    def __len__(self) -> int:
        return int(self.edges[-1])

    def of_layer(self, name: str) -> slice:
        """Numbers of a layer's units."""
        place = self.names.index(name)
        return slice(int(self.edges[place]), int(self.edges[place + 1]))

    def run(self, inputs: Tensor, n: int) -> dict[str, Tensor]:
        """Give the outputs of the layers for `n` samples, in one forward pass."""
        with torch.no_grad(), captured(self._modules) as caught:
            self._network(inputs)
        return {name: _activation(caught, name, n) for name in self.names}

    def take(self, outputs: Mapping[str, Tensor], numbers: slice | np.ndarray) -> np.ndarray:
        """Activations (sample, unit) of the units with these numbers, in double precision.

        An array of numbers is ascending.
        """
        parts = []
        for name, low, high in zip(self.names, self.edges[:-1], self.edges[1:], strict=True):
            flat = outputs[name].flatten(1)
            if isinstance(numbers, slice):
                inside = flat[:, max(numbers.start - low, 0) : max(numbers.stop - low, 0)]
            else:
                own = numbers[(numbers >= low) & (numbers < high)] - low
                inside = flat[:, torch.as_tensor(own, device=flat.device)]
            parts.append(inside.cpu().numpy().astype(np.float64))
        return np.concatenate(parts, axis=1)

    def labels(self, number: int) -> dict[str, Any]:
        """Layer, channel, y and x of a unit; NaN for the places of a dense layer."""
        place = int(np.searchsorted(self.edges, number, side="right")) - 1
        name = self.names[place]
        found: dict[str, Any] = {"layer": name, "y": np.nan, "x": np.nan}
        indices = np.unravel_index(number - self.edges[place], self.shapes[name])
        for axis, index in zip(UNIT_DIMS, indices, strict=False):
            found[axis] = self.coords[name][axis].values[index].item()
        return found

    def number_of(self, layer: str, labels: Mapping[str, Any]) -> int:
        """Give the number of the unit of a layer with these labels `channel`, `y` and `x`."""
        shape, coords = self.shapes[layer], self.coords[layer]
        index = []
        for axis in UNIT_DIMS[: len(shape)]:
            values = coords[axis].values
            if axis == "channel":
                found = values.astype(str) == str(labels[axis])
            else:
                found = np.isclose(values, labels[axis])
            index.append(int(found.argmax()))
        return self.of_layer(layer).start + int(np.ravel_multi_index(index, shape))

    def nearest(self, y: float, x: float) -> np.ndarray:
        """Numbers of the units, one a channel, that are centred nearest to a place.

        Layers of which it is not known where their units look have none.
        """
        found = []
        for name, shape in self.shapes.items():
            index = self.index_at(name, y, x)
            if index is not None:
                places = int(np.prod(shape[1:]))
                start = self.of_layer(name).start + index[0] * shape[2] + index[1]
                found.append(start + places * np.arange(shape[0]))
        return np.concatenate(found) if found else np.empty(0, dtype=np.int64)

    def index_at(self, name: str, y: float, x: float) -> tuple[int, int] | None:
        """Index (y, x) of a layer's units that are centred nearest to a place, if it has places."""
        coords = self.coords[name]
        if not (np.isfinite(y) and np.isfinite(x)) or not has_places(coords):
            return None
        near = (int(np.abs(coords[a].values - c).argmin()) for a, c in (("y", y), ("x", x)))
        return next(near), next(near)


def has_places(coords: Mapping[str, xr.DataArray]) -> bool:
    """Whether a layer's y and x are places in the movie, and no mere indices."""
    return all(axis in coords and coords[axis].attrs.get("units") != "index" for axis in "yx")


def _activation(caught: Mapping[str, Tensor], name: str, n: int) -> Tensor:
    """Output (sample, channel[, y, x]) of a layer for a batch of `n` samples."""
    if name not in caught:
        raise ValueError(f"layer {name!r} did not run in the forward pass: choose another")
    activation = caught[name].detach()
    if activation.ndim not in (2, 4) or len(activation) != n:
        raise ValueError(
            f"layer {name!r} gives a tensor of shape {tuple(activation.shape)} for {n} samples; "
            "expected (sample, channel) or (sample, channel, y, x)"
        )
    return activation
