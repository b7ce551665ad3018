"""The 2023 model of the retina: large kernels as stacks of small ones (Maheswaranathan et al.)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from retina_codec.models.bncnn import BNCNN, PUBLISHED_KERNELS
from retina_codec.models.cnn_family import (
    ConvolutionMaker,
    ConvolutionPlan,
    FitsRecording,
    per_layer,
    rate_layer,
    require_channels,
    take_weights,
)
from retina_codec.models.normalization import MapNorm, map_norm
from retina_codec.models.saving import SavedModel
from retina_codec.models.stacks import LinearStack, MovieLinearStack


def stacked_convolution(stages: Sequence[int], stage_channels: Sequence[int]) -> ConvolutionMaker:
    """Make stacks with these small kernels, and channels between them, in each layer."""

    def make(plan: ConvolutionPlan, layer: int) -> nn.Module:
        channels, kernel = plan.channels[layer], plan.kernels[layer]
        if layer == 0:
            return MovieLinearStack(
                plan.history,
                channels,
                kernel,
                colors=plan.colors,
                stage=stages[0],
                stage_channels=stage_channels[0],
            )
        return LinearStack(
            plan.channels[layer - 1],
            channels,
            kernel,
            stage=stages[layer],
            stage_channels=stage_channels[layer],
        )

    return make


def collapsed_weights(network: nn.Sequential) -> dict[str, Tensor]:
    """Weights of the network with one convolution in place of each stack, by name."""
    weights: dict[str, Tensor] = {}
    with torch.no_grad():
        for name, module in network.named_children():
            if isinstance(module, LinearStack | MovieLinearStack):
                weights |= {f"{name}.weight": module.weight, f"{name}.bias": module.bias}
            else:
                weights |= {f"{name}.{k}": v for k, v in module.state_dict().items()}
    return weights


class StackedBNCNN(SavedModel, FitsRecording):
    """A batch-normalised CNN whose large kernels are stacks of 3 x 3 kernels.

    As `BNCNN`, with two differences. Each convolution is a stack of small ones without
    nonlinearity in between, which has fewer weights and learns smoother kernels; `collapse` gives
    the plain model that it amounts to. And the scales of the batch norms, one for each unit, are
    kept positive, so that a unit keeps the sign of its filter. Contributions are taken at
    ``relu1`` and ``relu2`` by default.

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
        Side of the kernels that the stacks amount to, in pixels; by default 15 and 11 on
        50 x 50 pixels, and in proportion on smaller frames (1 on a full-field movie).
    noise : float
        Standard deviation of the noise added before each ReLU while training.
    seed : int
        Of the initial weights.
    stages : int or tuple of int
        Side of the small kernels, in all layers or in each.
    stage_channels : int or tuple of int, optional
        Channels between the small kernels; by default those of the layer.
    norm : {"unit", "channel"}
        What has a mean and a scale of its own: each unit, or a whole map.
    norm_momentum : float
        Share of each batch in the running mean and variance.
    rate_units : {"per_bin", "Hz"}
        What the softplus gives: spikes per bin, or Hz (networks trained on rates).

    References
    ----------
    Maheswaranathan et al., Neuron 111 (2023), 2742, doi 10.1016/j.neuron.2023.06.007.

    Examples
    --------
    >>> from retina_codec.models.stacked import StackedBNCNN
    >>> model = StackedBNCNN((24, 24), history=8, bin_width=0.01, cells=["a"])
    >>> len(model.layers["conv1"].rest)  # 3 x 3 kernels after the first: 7 x 7 pixels in all
    2
    >>> model.collapse()
    BNCNN(1 outputs along 'cell'; layers: relu1, relu2)
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
        stages: int | Sequence[int] = 3,
        stage_channels: int | Sequence[int] | None = None,
        norm: str = "unit",
        norm_momentum: float = 0.01,
        rate_units: str = "per_bin",
    ) -> None:
        require_channels(channels)
        plan = ConvolutionPlan.of(input_shape, history, channels, kernel_sizes, PUBLISHED_KERNELS)
        n_layers = len(plan.channels)
        sides = per_layer(stages, n_layers, "stages")
        between = per_layer(
            plan.channels if stage_channels is None else stage_channels, n_layers, "stage_channels"
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            make = stacked_convolution(sides, between)
            modules = plan.hidden(make, map_norm(norm, True, norm_momentum), noise, n_layers)
            modules["flatten"] = nn.Flatten()
            n_units = torch.Size(plan.shape(n_layers - 1)).numel()
            modules["dense"] = nn.Linear(n_units, len(cells), bias=False)
            modules[f"norm{n_layers + 1}"] = MapNorm(
                (len(cells),), per=norm, positive=True, momentum=norm_momentum
            )
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
            # Not the stages, which do not run by themselves.
            layers=modules,
            default_layers=[f"relu{i + 1}" for i in range(n_layers)],
            geometry=plan.geometry(("conv", "norm", "noise", "relu")),
        )
        self._config: dict[str, Any] = {
            "channels": list(plan.channels),
            "kernel_sizes": list(plan.kernel_sizes),
            "noise": noise,
            "stages": list(sides),
            "stage_channels": list(between),
            "norm": norm,
            "norm_momentum": norm_momentum,
            "rate_units": rate_units,
        }

    def _start(self, drive: Tensor) -> None:
        last = f"norm{len(self._config['channels']) + 1}"
        self.network.get_submodule(last).bias.copy_(drive)  # type: ignore[operator]

    def collapse(self) -> BNCNN:
        """Return the plain model with the same outputs: one convolution for each stack.

        Returns
        -------
        BNCNN
            With weights of its own, on the same device.
        """
        options = {k: v for k, v in self._config.items() if k not in ("stages", "stage_channels")}
        plain = BNCNN(
            self.input_shape or (),
            history=self.history,
            bin_width=self.bin_width,
            cells=self.outputs.tolist(),
            mean=self.mean,
            sd=self.sd,
            positive_norm=True,
            **options,
        )
        take_weights(plain, collapsed_weights(self.network), like=self.network)  # type: ignore[arg-type]
        return plain
