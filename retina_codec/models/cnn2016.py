"""The CNN of the retina of 2016 (McIntosh et al.)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from retina_codec.models.cnn_family import (
    ConvolutionPlan,
    FitsRecording,
    plain_convolution,
    rate_layer,
    require_channels,
)
from retina_codec.models.saving import SavedModel

PUBLISHED_KERNELS = (15, 9)


class CNN2016(SavedModel, FitsRecording):
    """Two convolutional layers and a dense one, without batch normalisation.

    Convolution over space and history, noise, ReLU; convolution over space, noise, ReLU; dense,
    softplus. Contributions are taken at ``relu1`` and ``relu2`` by default.

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
        Channels of the convolutions.
    kernel_sizes : tuple of int, optional
        Side of the kernels in pixels; by default 15 and 9 on 50 x 50 pixels, and in proportion
        on smaller frames (1 on a full-field movie).
    noise : float
        Standard deviation of the noise added before each ReLU while training.
    seed : int
        Of the initial weights.
    rate_units : {"per_bin", "Hz"}
        What the softplus gives: spikes per bin, or Hz (networks trained on rates).

    References
    ----------
    McIntosh et al., Advances in Neural Information Processing Systems 29 (2016), 1369.

    Examples
    --------
    >>> from retina_codec.models.cnn2016 import CNN2016
    >>> model = CNN2016((50, 50), history=40, bin_width=0.01, cells=["a", "b"])
    >>> model
    CNN2016(2 outputs along 'cell'; layers: relu1, relu2)
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
        channels: Sequence[int] = (16, 8),
        kernel_sizes: Sequence[int] | None = None,
        noise: float = 0.1,
        seed: int = 0,
        rate_units: str = "per_bin",
    ) -> None:
        require_channels(channels)
        plan = ConvolutionPlan.of(input_shape, history, channels, kernel_sizes, PUBLISHED_KERNELS)
        n_layers = len(plan.channels)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            modules = plan.hidden(plain_convolution, None, noise, n_layers)
            modules["flatten"] = nn.Flatten()
            n_units = torch.Size(plan.shape(n_layers - 1)).numel()
            modules["dense"] = nn.Linear(n_units, len(cells))
            modules["rate"] = rate_layer(bin_width, rate_units)
            network = nn.Sequential(modules)
        super().__init__(
            network.eval(),
            history=history,
            bin_width=bin_width,
            cells=cells,
            input_shape=tuple(input_shape),
            mean=mean,
            sd=sd,
            default_layers=[f"relu{i + 1}" for i in range(n_layers)],
            geometry=plan.geometry(("conv", "noise", "relu")),
        )
        self._config: dict[str, Any] = {
            "channels": list(plan.channels),
            "kernel_sizes": list(plan.kernel_sizes),
            "noise": noise,
            "rate_units": rate_units,
        }

    def _start(self, drive: Tensor) -> None:
        self.network.get_submodule("dense").bias.copy_(drive)  # type: ignore[operator]
