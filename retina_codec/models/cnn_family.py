"""What the convolutional models of the retina have in common: kernels, places, first weights."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from retina_codec._common.checks import magnitude, require_at_least, require_choice, require_count
from retina_codec.models.fitting import movie_settings, rate_to_drive
from retina_codec.models.layers import (
    GaussianNoise,
    MovieConvolution,
    RatePerBin,
    SpatialConvolution,
)
from retina_codec.models.model import LayerGeometry, RetinaModel, training_node

# The published kernels belong to frames of 50 x 50 pixels; smaller frames get smaller ones.
PUBLISHED_SIZE = 50
# A softplus of 1 stands for one spike per bin, or for 1 Hz.
RATE_UNITS = ("per_bin", "Hz")

ConvolutionMaker = Callable[["ConvolutionPlan", int], nn.Module]
NormMaker = Callable[[tuple[int, int, int]], nn.Module]


def fitting_kernels(size: int, published: Sequence[int]) -> tuple[int, ...]:
    """Odd kernel sizes in the published proportion to a frame of `size` pixels, at least 1."""
    return tuple(
        max(1, round((kernel * size / PUBLISHED_SIZE - 1) / 2) * 2 + 1) for kernel in published
    )


def per_layer(value: int | Sequence[int], n_layers: int, argument: str) -> tuple[int, ...]:
    """One whole number of at least 1 for each layer; a single one stands for all."""
    values = (value,) * n_layers if isinstance(value, int | np.integer) else tuple(value)
    if len(values) != n_layers:
        raise ValueError(
            f"{argument}={values} has {len(values)} numbers; expected {n_layers}, one for each "
            "convolution"
        )
    return tuple(require_count(one, 1, argument) for one in values)


def require_channels(channels: Sequence[int]) -> None:
    """Raise ValueError unless there is a hidden layer."""
    if len(channels) == 0:
        raise ValueError("channels is empty; expected the channels of at least one convolution")


@dataclass(frozen=True)
class ConvolutionPlan:
    """Sizes of a stack of valid convolutions over a movie, and where its units look.

    Parameters
    ----------
    history, colors : int
        Frames and colour planes that the first convolution takes.
    channels : tuple of int
        Channels that each convolution gives.
    kernel_sizes : tuple of int
        Side of each kernel, as asked for.
    kernels : tuple of (int, int)
        Height and width of each kernel: those asked for, cut to what is left of the frame (a
        one-dimensional movie has one-dimensional kernels).
    sizes : tuple of (int, int)
        Height and width of each convolution's output.
    """

    history: int
    colors: int
    channels: tuple[int, ...]
    kernel_sizes: tuple[int, ...]
    kernels: tuple[tuple[int, int], ...]
    sizes: tuple[tuple[int, int], ...]

    @classmethod
    def of(
        cls,
        input_shape: tuple[int, ...],
        history: int,
        channels: Sequence[int],
        kernel_sizes: Sequence[int] | None,
        published: Sequence[int],
    ) -> Self:
        """Plan for a frame ``([color,] y, x)``.

        Kernels default to the published ones in proportion to the frame; beyond their number the
        last one is repeated.
        """
        height, width = input_shape[-2:]
        if kernel_sizes is None:
            repeated = [*published, *[published[-1]] * len(channels)][: len(channels)]
            kernel_sizes = fitting_kernels(min(height, width), repeated)
        asked = per_layer(tuple(kernel_sizes), len(channels), "kernel_sizes")
        kernels, sizes = [], []
        for kernel in asked:
            kernels.append((min(kernel, height), min(kernel, width)))
            height, width = height - kernels[-1][0] + 1, width - kernels[-1][1] + 1
            sizes.append((height, width))
        return cls(
            history=require_count(history, 1, "history"),
            colors=input_shape[0] if len(input_shape) == 3 else 1,
            channels=per_layer(tuple(channels), len(channels), "channels"),
            kernel_sizes=asked,
            kernels=tuple(kernels),
            sizes=tuple(sizes),
        )

    def shape(self, layer: int) -> tuple[int, int, int]:
        """Channels, height and width that convolution `layer` (from 0) gives."""
        return (self.channels[layer], *self.sizes[layer])

    def geometry(self, names: Sequence[str]) -> dict[str, LayerGeometry]:
        """Where the units of each layer look, for layers named ``name1``, ``name2`` ..."""
        places: dict[str, LayerGeometry] = {}
        y = x = 0.0
        for i, (ky, kx) in enumerate(self.kernels, start=1):
            y, x = y + (ky - 1) / 2, x + (kx - 1) / 2
            places |= dict.fromkeys((f"{name}{i}" for name in names), LayerGeometry((y, x)))
        return places

    def hidden(
        self, convolution: ConvolutionMaker, norm: NormMaker | None, noise: float, n_layers: int
    ) -> OrderedDict[str, nn.Module]:
        """Make the first `n_layers`: convolution, batch norm (if any), noise, ReLU."""
        require_at_least(noise, 0, "noise")
        modules = OrderedDict[str, nn.Module]()
        for i in range(n_layers):
            modules[f"conv{i + 1}"] = convolution(self, i)
            if norm is not None:
                modules[f"norm{i + 1}"] = norm(self.shape(i))
            modules[f"noise{i + 1}"] = GaussianNoise(noise)
            modules[f"relu{i + 1}"] = nn.ReLU()
        return modules


def plain_convolution(plan: ConvolutionPlan, layer: int) -> nn.Module:
    """One kernel: over space and history in the first layer, over space after it."""
    channels, kernel = plan.channels[layer], plan.kernels[layer]
    if layer == 0:
        return MovieConvolution(plan.history, channels, kernel, colors=plan.colors)
    return SpatialConvolution(plan.channels[layer - 1], channels, kernel)


def rate_layer(bin_width: Any, rate_units: str) -> RatePerBin:
    """Softplus to a rate in Hz, from spikes per bin or from Hz."""
    require_choice(rate_units, RATE_UNITS, "rate_units")
    width = float(magnitude(bin_width, "s", "bin_width"))
    return RatePerBin(width if rate_units == "per_bin" else 1.0)


def take_weights(
    model: RetinaModel, weights: Mapping[str, Tensor], like: nn.Module | None = None
) -> None:
    """Give a model `weights` (all of its own, and no others) on the device and type of `like`."""
    if like is not None:
        tensor = next(t for t in like.parameters() if t.is_floating_point())
        model.network.to(tensor.device, tensor.dtype)
    model.network.load_state_dict(dict(weights))


class FitsRecording(RetinaModel):
    """A model whose arguments a recording gives."""

    def _start(self, drive: Tensor) -> None:
        """Set the bias of the outputs, so that the model starts at the drive (cell,)."""
        raise NotImplementedError

    @classmethod
    def for_recording(
        cls, recording: xr.DataTree | xr.Dataset, *, history: int = 40, **options: Any
    ) -> Self:
        """Make an untrained model that fits a recording.

        Parameters
        ----------
        recording : xarray.DataTree or xarray.Dataset
            A recording with a node ``train``, or a node.
        history : int
            Frames that a response depends on.
        **options
            As for the class.

        Returns
        -------
        RetinaModel
            Of this class, with the recording's frame shape, bin width, cells, mean and sd; each
            output starts at its cell's mean rate.
        """
        node = training_node(recording)
        model = cls(**movie_settings(node), history=history, **options)
        drive = rate_to_drive(node)
        if options.get("rate_units", "per_bin") == "Hz":
            rate = nn.functional.softplus(drive) / model.bin_width
            drive = rate + torch.log(-torch.expm1(-rate))
        with torch.no_grad():
            model._start(drive)
        return model
