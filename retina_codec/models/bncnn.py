"""The batch-normalised CNN of the retina (Maheswaranathan et al., Neuron 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from retina_codec._common.checks import require_choice
from retina_codec.models.cnn_family import (
    ConvolutionPlan,
    FitsRecording,
    plain_convolution,
    rate_layer,
    require_channels,
)
from retina_codec.models.normalization import NORMS, MapNorm, map_norm
from retina_codec.models.saving import SavedModel

PUBLISHED_KERNELS = (15, 11)


class BNCNN(SavedModel, FitsRecording):
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
        Channels of the convolutions: two, unless more or fewer layers are wanted.
    kernel_sizes : tuple of int, optional
        Side of the kernels in pixels; by default 15 and 11 on 50 x 50 pixels, and in
        proportion on smaller frames (1 on a full-field movie).
    noise : float
        Standard deviation of the noise added before each ReLU while training.
    seed : int
        Of the initial weights.
    norm : {"channel", "unit"}
        What has a mean and a scale of its own: a whole map, or each of its units (as in the
        published networks).
    positive_norm : bool
        Keep the scales of the batch norms positive, as the 2023 networks do.
    norm_momentum : float
        Share of each batch in the running mean and variance (published: 0.01).
    rate_units : {"per_bin", "Hz"}
        What the softplus gives: spikes per bin, or Hz (networks trained on rates).

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
        channels: Sequence[int] = (8, 8),
        kernel_sizes: Sequence[int] | None = None,
        noise: float = 0.05,
        seed: int = 0,
        norm: str = "channel",
        positive_norm: bool = False,
        norm_momentum: float = 0.1,
        rate_units: str = "per_bin",
    ) -> None:
        require_channels(channels)
        require_choice(norm, NORMS, "norm")
        plan = ConvolutionPlan.of(input_shape, history, channels, kernel_sizes, PUBLISHED_KERNELS)
        n_layers = len(plan.channels)
        last: nn.Module
        if norm == "channel" and not positive_norm:
            # PyTorch's own layers: models saved before the options were there keep their names
            # and fingerprint.
            def map_norms(shape: tuple[int, int, int]) -> nn.Module:
                return nn.BatchNorm2d(shape[0], momentum=norm_momentum)

            last = nn.BatchNorm1d(len(cells), momentum=norm_momentum)
        else:
            map_norms = map_norm(norm, positive_norm, norm_momentum)  # type: ignore[assignment]
            last = MapNorm((len(cells),), per=norm, positive=positive_norm, momentum=norm_momentum)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            modules = plan.hidden(plain_convolution, map_norms, noise, n_layers)
            modules["flatten"] = nn.Flatten()
            n_units = torch.Size(plan.shape(n_layers - 1)).numel()
            modules["dense"] = nn.Linear(n_units, len(cells), bias=False)
            modules[f"norm{n_layers + 1}"] = last
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
            geometry=plan.geometry(("conv", "norm", "noise", "relu")),
        )
        self._config: dict[str, Any] = {
            "channels": list(plan.channels),
            "kernel_sizes": list(plan.kernel_sizes),
            "noise": noise,
            "norm": norm,
            "positive_norm": positive_norm,
            "norm_momentum": norm_momentum,
            "rate_units": rate_units,
        }

    def _start(self, drive: Tensor) -> None:
        last = f"norm{len(self._config['channels']) + 1}"
        self.network.get_submodule(last).bias.copy_(drive)  # type: ignore[operator]
