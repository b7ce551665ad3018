"""`Model`: a network with labelled inputs, layers and outputs; `RetinaModel`: from movie to rates.

Everything downstream (contributions, interneuron comparison, silencing) works on this interface
and never asks which network it was given.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from retina_codec._common.checks import magnitude, nearest_names, require_at_least, require_dims
from retina_codec._common.progress import progress_bar
from retina_codec._common.provenance import provenance
from retina_codec._common.time import (
    BIN_WIDTH_TOLERANCE,
    bin_width_of,
    require_time_forward,
    runs_of,
    whole_history,
)
from retina_codec.models.reading import FrameReader

# Samples in one forward pass, unless told: some tens of MB for the field's architectures.
BATCH_SIZE = 256


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Set evaluation mode and freeze parameters inside; both are as before afterwards."""
    training = [module for module in network.modules() if module.training]
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    network.eval()
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for module in training:
            module.training = True
        for parameter in learning:
            parameter.requires_grad_(True)


@dataclass(frozen=True)
class LayerGeometry:
    """Where the units of a layer look: unit i is centred on pixel ``offset + stride * i``.

    `offset` is (y, x), in pixels; `stride` is that of both.
    """

    offset: tuple[float, float] = (0.0, 0.0)
    stride: float = 1.0


@dataclass(frozen=True)
class UnitLayout:
    """What the dims of a layer's output are, after the sample.

    `dims` names them: ``"channel"``, ``"lag"``, ``"y"``, ``"x"`` or ``"token"``. Tokens are kept
    as they are, unless `grid`, (y, x), says that they are patches of the input, row by row, after
    `class_tokens` that stand for the whole.
    """

    dims: tuple[str, ...]
    grid: tuple[int, int] | None = None
    class_tokens: int = 0


@dataclass(frozen=True)
class Batch:
    """A stretch of samples: their indices in the result, and the network input that gives them.

    The inputs are one segment of frames, of which each sample sees `history`; or, where `history`
    is None, one input a sample.
    """

    index: slice
    inputs: Tensor
    history: int | None = None

    def select(self, chosen: Tensor) -> Tensor:
        """Network inputs of some of the samples (their indices in the batch), in that order."""
        if self.history is None:
            return self.inputs[chosen]
        windows = self.inputs[0].unfold(0, self.history, 1)
        return windows[chosen].movedim(-1, 1)


class Samples(Protocol):
    """Data as a model sees them: labelled samples, and normalised inputs in batches."""

    coords: dict[str, xr.DataArray]
    # Dims of one input, or frame of it, where they have names.
    input_dims: tuple[str, ...] | None

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def batches(self, size: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Give network inputs for at most `size` of the samples [start, stop), in order."""
        ...

    def layer_coords(self, layer: str, shape: tuple[int, ...]) -> dict[str, xr.DataArray]:
        """Coordinates of a layer's unit dims, for its output `shape` (sample, channel[, y, x])."""
        ...


class Model:
    """A network with labelled inputs, layers and outputs.

    Parameters
    ----------
    network : torch.nn.Module
        Gives ``(sample, output)`` in the model's output units.
    sample_dim, output_dim : str
        Names of those dims: ``"time"`` and ``"cell"``, or ``"image"`` and ``"category"``.
    outputs : sequence of str
        Labels of the outputs.
    layers : mapping of str to torch.nn.Module, optional
        Hidden layers by name; by default every submodule under its module path.
    default_layers : sequence of str, optional
        The layers that contributions are taken at unless told; by default all of `layers`.
    output_units : str
        Units of the outputs.
    exclusive_outputs : bool
        Whether one output is the answer (categories of a classifier) or each is one (cells).

    Attributes
    ----------
    layouts : dict of str to UnitLayout
        The dims of layers that are not (sample, channel), (sample, channel, y, x) or
        (sample, channel, lag, y, x).
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        sample_dim: str,
        output_dim: str,
        outputs: Sequence[str],
        layers: Mapping[str, nn.Module] | None = None,
        default_layers: Sequence[str] | None = None,
        output_units: str = "1",
        exclusive_outputs: bool = False,
    ) -> None:
        self.network = network
        self.sample_dim = sample_dim
        self.output_dim = output_dim
        self.outputs = np.asarray(outputs, dtype=str)
        if len(np.unique(self.outputs)) != len(self.outputs):
            raise ValueError(f"{output_dim} labels are not unique: {list(self.outputs)}")
        self.layers = (
            {name: module for name, module in network.named_modules() if name}
            if layers is None
            else dict(layers)
        )
        self.default_layers = tuple(self.layers if default_layers is None else default_layers)
        self.output_units = output_units
        self.exclusive_outputs = exclusive_outputs
        self.layouts: dict[str, UnitLayout] = {}

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({len(self.outputs)} outputs along {self.output_dim!r}; "
            f"layers: {', '.join(self.default_layers)})"
        )

    @property
    def device(self) -> torch.device:
        """The device that the network is on."""
        tensors = (*self.network.parameters(), *self.network.buffers())
        return tensors[0].device if tensors else torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of the network."""
        for tensor in (*self.network.parameters(), *self.network.buffers()):
            if tensor.is_floating_point():
                return tensor.dtype
        return torch.get_default_dtype()

    @property
    def normalization(self) -> tuple[Tensor, Tensor]:
        """What is subtracted from data in recorded units, and what they are then divided by.

        Both broadcast with one network input, or frame of it.
        """
        zero = torch.zeros((), device=self.device, dtype=self.dtype)
        return zero, zero + 1

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change with the architecture or any weight."""
        digest = hashlib.sha256(str(self.network).encode())
        digest.update(json.dumps(self._settings(), sort_keys=True).encode())
        for name, tensor in sorted(self.network.state_dict().items()):
            digest.update(name.encode())
            # As bytes: numpy has no bfloat16.
            values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(values.numpy().tobytes())
        return digest.hexdigest()[:16]

    def _settings(self) -> dict[str, Any]:
        """Say what, beside architecture and weights, decides the outputs, as plain JSON values."""
        return {"outputs": self.outputs.tolist()}

    def layer(self, name: str) -> nn.Module:
        """Return the module of the layer `name`; ValueError with the nearest name if unknown."""
        if name not in self.layers:
            raise ValueError(f"no layer {name!r}; {nearest_names(name, self.layers)}")
        return self.layers[name]

    def samples(self, data: Any, argument: str = "data") -> Samples:
        """Check `data` and lay it out as samples with normalised network inputs.

        Errors call it `argument`: what it is called where the user gave it.
        """
        raise TypeError(f"{type(self).__name__} does not say how its data are laid out")

    def predict(
        self, data: Any, *, batch_size: int = BATCH_SIZE, progress: bool = False
    ) -> xr.DataArray:
        """Compute the outputs of the network for all samples of `data`.

        Parameters
        ----------
        data : xarray.DataArray
            A movie (time, [color,] y, x) in its recorded units, or images (image, color, y, x).
        batch_size : int
            Samples in one forward pass.
        progress : bool
            Show a progress bar.

        Returns
        -------
        xarray.DataArray
            (time, cell) in Hz, one sample for each frame with a whole history; or
            (image, category), logits.

        Raises
        ------
        ValueError, TypeError
            If `data` does not fit the model.
        """
        require_at_least(batch_size, 1, "batch_size")
        samples = self.samples(data)
        result = np.empty((len(samples), len(self.outputs)), dtype=np.float32)
        n_batches = -(-len(samples) // batch_size)
        with frozen(self.network), torch.no_grad():
            for index, outputs in progress_bar(
                self._passes(samples, batch_size), "predict", total=n_batches, shown=progress
            ):
                result[index] = outputs.float().cpu().numpy()
        return xr.DataArray(
            result,
            dims=(self.sample_dim, self.output_dim),
            coords={**samples.coords, self.output_dim: self.outputs},
            name="prediction",
            attrs={
                "units": self.output_units,
                "long_name": "predicted rate" if self.output_units == "Hz" else "prediction",
                "model_fingerprint": self.fingerprint,
                **provenance(model=type(self).__name__),
            },
        )

    def _passes(self, samples: Samples, batch_size: int) -> Iterator[tuple[slice, Tensor]]:
        """Run the frozen network on all samples: which they are, and outputs, batch by batch."""
        for batch in samples.batches(batch_size):
            yield batch.index, self.network(batch.inputs)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``config.yaml`` and ``weights.safetensors`` into `folder`, whole or not at all."""
        raise TypeError(
            f"{type(self).__name__} cannot be saved: its architecture is Python code that a file "
            "cannot hold; save model.network.state_dict() with safetensors.torch.save_file and "
            "wrap the network again"
        )


class MovieSamples:
    """A movie as a retina model sees it: each frame with a whole history in its block."""

    def __init__(self, movie: xr.DataArray, model: RetinaModel, argument: str = "data") -> None:
        self._movie = movie
        self._model = model
        self._argument = argument
        self.input_dims: tuple[str, ...] | None = tuple(map(str, movie.dims[1:]))
        self._runs = [run for run in runs_of(movie) if run.stop - run.start >= model.history]
        kept = whole_history(movie, model.history)
        self.coords = {
            str(name): coord.isel(time=kept)
            for name, coord in movie.coords.items()
            if coord.dims == ("time",)
        }
        self._n = len(kept)

    def __len__(self) -> int:
        return self._n

    def frames(self, start: int, stop: int) -> Tensor:
        """Frames [start, stop) normalised, as the network takes them: (1, frame, [color,] y, x)."""
        return self._normalised(np.array(self._movie[start:stop].values, dtype=np.float32), start)

    def _normalised(self, values: np.ndarray, start: int) -> Tensor:
        model = self._model
        if not np.isfinite(values).all():
            frame = start + int(np.argwhere(~np.isfinite(values))[0][0])
            raise ValueError(
                f"{self._argument} has NaN or infinite values, the first in frame {frame}; "
                "replace or cut them out before"
            )
        frames = torch.from_numpy(values).to(model.device, model.dtype)
        return ((frames - model.mean) / model.sd)[None]

    def batches(self, size: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Give segments that cover at most `size` samples, none across a block's edge.

        A lazy movie is read as the batches go, each of its chunks once.
        """
        reader = FrameReader(self._movie)
        past = self._model.history - 1
        stop = self._n if stop is None else stop
        before = 0  # samples of earlier runs
        for run in self._runs:
            n = run.stop - run.start - past
            for first in range(max(start - before, 0), min(stop - before, n), size):
                last = min(first + size, stop - before, n)
                frames = reader.read(run.start + first, run.start + last + past)
                yield Batch(
                    slice(before + first, before + last),
                    self._normalised(frames, run.start + first),
                    self._model.history,
                )
            before += n

    def layer_coords(self, layer: str, shape: tuple[int, ...]) -> dict[str, xr.DataArray]:
        """Channel names, and receptive-field centres in the movie's own coordinates."""
        model = self._model
        names = model.channels.get(layer, np.arange(shape[1]))
        coords = {"channel": xr.DataArray(np.asarray(names), dims="channel")}
        geometry = model.geometry.get(layer)
        for place, (axis, size) in enumerate(zip(("y", "x"), shape[2:], strict=False)):
            if geometry is None or axis not in self._movie.coords:
                centre, units = np.arange(size), "index"
            else:
                pixels = self._movie[axis].values.astype(np.float64)
                pitch = pixels[1] - pixels[0] if pixels.size > 1 else 1.0
                centre = pixels[0] + pitch * (
                    geometry.offset[place] + geometry.stride * np.arange(size)
                )
                units = self._movie[axis].attrs.get("units", "pixel")
            coords[axis] = xr.DataArray(
                centre,
                dims=axis,
                attrs={"units": units, "long_name": f"receptive-field centre, {axis}"},
            )
        return coords


class RetinaModel(Model):
    """A network that turns a movie into firing rates.

    Parameters
    ----------
    network : torch.nn.Module
        Takes normalised segments ``(segment, frame, [color,] y, x)`` and gives rates in Hz,
        ``(segment * (frame - history + 1), cell)``, segment by segment in time order. Its hidden
        layers give ``(segment * (frame - history + 1), channel[, y, x])``.
    history : int
        Frames that one response depends on, the current one included.
    bin_width : float or quantity
        Duration of a frame, in seconds.
    cells : sequence of str
        Ids of the ganglion cells.
    input_shape : tuple of int, optional
        ``([color,] y, x)`` of a frame; any shape is taken if it is not given.
    mean, sd : float
        Mean and standard deviation of the training movie, in its recorded units: the network
        sees ``(movie - mean) / sd``.
    layers, default_layers
        As for `Model`.
    geometry : mapping of str to LayerGeometry, optional
        Where the units of a layer look; without it, their places are indices.
    channels : mapping of str to sequence of str, optional
        Names of a layer's channels; numbers without it.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        history: int,
        bin_width: float,
        cells: Sequence[str],
        input_shape: tuple[int, ...] | None = None,
        mean: float = 0.0,
        sd: float = 1.0,
        layers: Mapping[str, nn.Module] | None = None,
        default_layers: Sequence[str] | None = None,
        geometry: Mapping[str, LayerGeometry] | None = None,
        channels: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__(
            network,
            sample_dim="time",
            output_dim="cell",
            outputs=cells,
            layers=layers,
            default_layers=default_layers,
            output_units="Hz",
        )
        require_at_least(history, 1, "history")
        if not sd > 0:
            raise ValueError(f"sd={sd!r}: a movie without variation cannot be normalised")
        self.history = int(history)
        self.bin_width = float(magnitude(bin_width, "s", "bin_width"))
        self.input_shape = None if input_shape is None else tuple(input_shape)
        self.mean = float(mean)
        self.sd = float(sd)
        self.geometry = dict(geometry or {})
        self.channels = {name: np.asarray(labels) for name, labels in (channels or {}).items()}

    def _settings(self) -> dict[str, Any]:
        return {
            **super()._settings(),
            "history": self.history,
            "bin_width": self.bin_width,
            "mean": self.mean,
            "sd": self.sd,
        }

    @property
    def normalization(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the training movie."""
        mean, sd = torch.tensor([self.mean, self.sd], device=self.device, dtype=self.dtype)
        return mean, sd

    def samples(self, data: xr.DataArray, argument: str = "data") -> MovieSamples:
        """Check that a movie (time, [color,] y, x) fits the model, and lay it out.

        Errors call it `argument`: what it is called where the user gave it.

        Raises
        ------
        ValueError
            If dims, frame shape or bin width differ from the model's, if every block is shorter
            than the history, or (as frames are read) where the movie has NaN.
        """
        movie = require_dims(data, ("time", "color", "y", "x"), argument, optional=("color",))
        shape = movie.shape[1:]
        if self.input_shape is not None and shape != self.input_shape:
            raise ValueError(
                f"{argument} has frames of {shape}; the model takes frames of {self.input_shape}"
            )
        width = bin_width_of(movie)
        if abs(width - self.bin_width) > BIN_WIDTH_TOLERANCE * self.bin_width:
            raise ValueError(
                f"{argument} has bins of {width:g} s; the model was made for {self.bin_width:g} s: "
                "resample the movie"
            )
        samples = MovieSamples(movie, self, argument)
        if len(samples) == 0:
            longest = max(run.stop - run.start for run in runs_of(movie))
            raise ValueError(
                f"{argument} has no block of at least history={self.history} frames (the longest "
                f"has {longest}): no frame has a whole history"
            )
        return samples


def training_node(recording: xr.DataTree | xr.Dataset, argument: str = "recording") -> xr.Dataset:
    """Return the node to train on: ``recording["train"]``, or what was given if it is one node.

    Raises
    ------
    ValueError
        If it has no stimulus or spike counts, or its time goes back.
    """
    node: Any = recording
    if isinstance(recording, xr.DataTree) and "train" in recording.children:
        node = recording["train"]
    dataset = node.to_dataset() if isinstance(node, xr.DataTree) else node
    missing = [name for name in ("stimulus", "spike_count") if name not in dataset]
    if missing:
        raise ValueError(
            f"{argument} has no {' and no '.join(missing)}; expected a node with stimulus(time, "
            "[color,] y, x) and spike_count(time, cell), or a tree with such a node 'train'"
        )
    require_time_forward(dataset, argument)
    return dataset
