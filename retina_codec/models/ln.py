"""The linear-nonlinear model: one filter a cell, and a pointwise nonlinearity."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
import xarray as xr
from scipy.optimize import curve_fit
from torch import Tensor, nn

from retina_codec._common.time import whole_history
from retina_codec.models.fitting import movie_settings, rate_to_drive
from retina_codec.models.layers import MovieConvolution
from retina_codec.models.model import LayerGeometry, RetinaModel, training_node
from retina_codec.models.saving import SavedModel
from retina_codec.recordings import spike_triggered_average


class ScaledSoftplus(nn.Module):
    """``gain * log(1 + exp(slope * drive + offset))`` spikes per bin, as a rate in Hz."""

    def __init__(self, cells: int, bin_width: float) -> None:
        super().__init__()
        self.bin_width = bin_width
        self.gain = nn.Parameter(torch.ones(cells))
        self.slope = nn.Parameter(torch.ones(cells))
        self.offset = nn.Parameter(torch.zeros(cells))

    def forward(self, drive: Tensor) -> Tensor:
        """Turn drive into rates."""
        return self.gain.clamp(min=0) * F.softplus(self.slope * drive + self.offset) / self.bin_width


class LN(SavedModel, RetinaModel):
    """A linear filter over space and history for each cell, then a scaled softplus.

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
    seed : int
        Of the initial weights.

    References
    ----------
    Chichilnisky, Network 12 (2001), 199.

    Examples
    --------
    >>> import retina_codec as rc
    >>> rc.models.LN((1, 1), history=40, bin_width=0.01, cells=["a"])
    LN(1 outputs along 'cell'; layers: filter)
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
        seed: int = 0,
    ) -> None:
        colors = input_shape[0] if len(input_shape) == 3 else 1
        frame = (input_shape[-2], input_shape[-1])
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = nn.Sequential(
                OrderedDict[str, nn.Module](
                    filter=MovieConvolution(history, len(cells), frame, colors=colors, bias=False),
                    flatten=nn.Flatten(),
                    nonlinearity=ScaledSoftplus(len(cells), float(bin_width)),
                )
            )
        super().__init__(
            network.eval(),
            history=history,
            bin_width=bin_width,
            cells=cells,
            input_shape=tuple(input_shape),
            mean=mean,
            sd=sd,
            default_layers=("filter",),
            geometry={"filter": LayerGeometry(((frame[0] - 1) / 2, (frame[1] - 1) / 2))},
            channels={"filter": list(cells)},
        )
        self._config = {}

    @classmethod
    def for_recording(
        cls, recording: xr.DataTree | xr.Dataset, *, history: int = 40, **options: Any
    ) -> Self:
        """Make an untrained model that fits a recording, for `retina_codec.train`.

        Parameters
        ----------
        recording : xarray.DataTree or xarray.Dataset
            A recording with a node ``train``, or a node.
        history : int
            Frames that a response depends on.
        **options
            As for the class.
        """
        node = training_node(recording)
        model = cls(**movie_settings(node), history=history, **options)
        nonlinearity: Any = model.network.get_submodule("nonlinearity")
        with torch.no_grad():
            nonlinearity.offset.copy_(rate_to_drive(node))
        return model

    @classmethod
    def from_spike_triggered_average(
        cls, recording: xr.DataTree | xr.Dataset, *, history: int = 40
    ) -> Self:
        """Fit a model to white noise: the filter is the spike-triggered average.

        The nonlinearity is fitted by least squares to the counts of each bin. For stimuli with
        correlations in space or time the average is not the filter: use `for_recording` and
        `retina_codec.train`.

        Parameters
        ----------
        recording : xarray.DataTree or xarray.Dataset
            A recording with a node ``train``, or a node, without repeats.
        history : int
            Frames of the filter.

        Returns
        -------
        LN
            The fitted model.
        """
        node = training_node(recording)
        model = cls(**movie_settings(node), history=history)
        average = spike_triggered_average(node, history=history)
        kernels = average.transpose("cell", "lag", ...).values.astype(np.float64)[:, ::-1]
        kernels = kernels.reshape(*kernels.shape[:2], -1, *kernels.shape[-2:])
        kernels = (kernels - model.mean) / model.sd
        bins = whole_history(node["stimulus"], history)
        counts = node["spike_count"].transpose("time", "cell").values[bins].astype(np.float64)
        layer: Any = model.network.get_submodule("filter")
        nonlinearity: Any = model.network.get_submodule("nonlinearity")
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(kernels.copy()))
            batches = model.samples(node["stimulus"]).batches(4096)
            drive = torch.cat([layer(batch.inputs).flatten(1) for batch in batches]).double().numpy()
            # Unit variance of the drive makes one starting point do for every cell.
            layer.weight /= torch.from_numpy(drive.std(0)).float()[:, None, None, None, None]
            drive /= drive.std(0)
            for i in range(counts.shape[1]):
                fitted, _ = curve_fit(
                    _scaled_softplus,
                    drive[:, i],
                    counts[:, i],
                    p0=(0.05, 0.9, -3.0),
                    bounds=([0, -np.inf, -np.inf], np.inf),
                    maxfev=20000,
                )
                for parameter, value in zip(
                    (nonlinearity.gain, nonlinearity.slope, nonlinearity.offset),
                    fitted,
                    strict=True,
                ):
                    parameter[i] = float(value)
        return model


def _scaled_softplus(drive: np.ndarray, gain: float, slope: float, offset: float) -> np.ndarray:
    return gain * np.logaddexp(0, slope * drive + offset)
