"""The batch-normalised CNN of the retina (Maheswaranathan et al., Neuron 2023)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Self

import torch
import xarray as xr
from torch import nn

from retina_codec._common.checks import require_at_least
from retina_codec.models.fitting import movie_settings, rate_to_drive
from retina_codec.models.layers import GaussianNoise, MovieConvolution, RatePerBin
from retina_codec.models.model import LayerGeometry, RetinaModel, training_node
from retina_codec.models.saving import SavedModel

PUBLISHED_KERNELS = (15, 11)
# The published kernels belong to frames of 50 x 50 pixels; smaller frames get smaller ones.
PUBLISHED_SIZE = 50


def fitting_kernels(size: int) -> tuple[int, int]:
    """Odd kernel sizes in the published proportion to a frame of `size` pixels, at least 1."""
    return tuple(  # type: ignore[return-value]
        max(1, round((kernel * size / PUBLISHED_SIZE - 1) / 2) * 2 + 1)
        for kernel in PUBLISHED_KERNELS
    )


class BNCNN(SavedModel, RetinaModel):
    """Two convolutional layers and a dense one, each with batch normalisation.

    Convolution over space and history, batch norm, noise, ReLU; convolution over space, batch
    norm, noise, ReLU; dense without bias, batch norm, softplus. Contributions are taken at
    ``relu1`` and ``relu2`` by default. The CODEC paper takes them at the convolutions (``conv1``,
    ``conv2``): in the limit of many steps a unit's contribution is the same before and after an
    elementwise map, but the completeness error at few steps is far smaller after it.

    Parameters
    ----------
    input_shape : tuple of int
        ``([color,] y, x)`` of a frame.
    history : int
        Frames that a response depends on.
    bin_width : float or quantity
        Duration of a frame, in seconds.
    cells : sequence of str
        Ids of the ganglion cells.
    mean, sd : float
        Of the training movie, in its recorded units.
    channels : tuple of int
        Channels of the two convolutions.
    kernel_sizes : tuple of int, optional
        Side of the two kernels in pixels; by default 15 and 11 on 50 x 50 pixels, and in
        proportion on smaller frames (1 on a full-field movie).
    noise : float
        Standard deviation of the noise added before each ReLU while training.
    seed : int
        Of the initial weights.

    References
    ----------
    Maheswaranathan et al., Neuron 111 (2023), 2742, doi 10.1016/j.neuron.2023.06.007.

    Examples
    --------
    >>> import retina_codec as rc
    >>> model = rc.models.BNCNN(
    ...     (24, 24), history=40, bin_width=0.01, cells=["a", "b"], kernel_sizes=(9, 7)
    ... )
    >>> model
    BNCNN(2 outputs along 'cell'; layers: relu1, relu2)
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        *,
        history: int,
        bin_width: float,
        cells: Sequence[str],
        mean: float = 0.0,
        sd: float = 1.0,
        channels: tuple[int, int] = (8, 8),
        kernel_sizes: tuple[int, int] | None = None,
        noise: float = 0.05,
        seed: int = 0,
    ) -> None:
        height, width = input_shape[-2:]
        colors = input_shape[0] if len(input_shape) == 3 else 1
        first, second = kernel_sizes or fitting_kernels(min(height, width))
        # A one-dimensional movie has one-dimensional kernels.
        kernel1 = (min(first, height), min(first, width))
        size1 = (height - kernel1[0] + 1, width - kernel1[1] + 1)
        kernel2 = (min(second, size1[0]), min(second, size1[1]))
        size2 = (size1[0] - kernel2[0] + 1, size1[1] - kernel2[1] + 1)
        for value in (first, second, *channels):
            require_at_least(value, 1, "kernel_sizes and channels")
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = nn.Sequential(
                OrderedDict[str, nn.Module](
                    conv1=MovieConvolution(history, channels[0], kernel1, colors=colors),
                    norm1=nn.BatchNorm2d(channels[0]),
                    noise1=GaussianNoise(noise),
                    relu1=nn.ReLU(),
                    conv2=nn.Conv2d(channels[0], channels[1], kernel2),
                    norm2=nn.BatchNorm2d(channels[1]),
                    noise2=GaussianNoise(noise),
                    relu2=nn.ReLU(),
                    flatten=nn.Flatten(),
                    dense=nn.Linear(channels[1] * size2[0] * size2[1], len(cells), bias=False),
                    norm3=nn.BatchNorm1d(len(cells)),
                    rate=RatePerBin(float(bin_width)),
                )
            )
        half1 = ((kernel1[0] - 1) / 2, (kernel1[1] - 1) / 2)
        half2 = ((kernel2[0] - 1) / 2, (kernel2[1] - 1) / 2)
        geometry1 = LayerGeometry(half1)
        geometry2 = LayerGeometry((half1[0] + half2[0], half1[1] + half2[1]))
        super().__init__(
            network.eval(),
            history=history,
            bin_width=bin_width,
            cells=cells,
            input_shape=tuple(input_shape),
            mean=mean,
            sd=sd,
            default_layers=("relu1", "relu2"),
            geometry={
                **dict.fromkeys(("conv1", "norm1", "noise1", "relu1"), geometry1),
                **dict.fromkeys(("conv2", "norm2", "noise2", "relu2"), geometry2),
            },
        )
        self._config = {
            "channels": list(channels),
            "kernel_sizes": [first, second],
            "noise": noise,
        }

    @classmethod
    def for_recording(
        cls,
        recording: xr.DataTree | xr.Dataset,
        *,
        history: int = 40,
        **options: Any,
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
        BNCNN
            With the recording's frame shape, bin width, cells, mean and sd; each output starts
            at its cell's mean rate.
        """
        node = training_node(recording)
        model = cls(**movie_settings(node), history=history, **options)
        with torch.no_grad():
            model.network.get_submodule("norm3").bias.copy_(rate_to_drive(node))  # type: ignore[operator]
        return model
