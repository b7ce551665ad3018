"""The linear-nonlinear model: one filter a cell, and a pointwise nonlinearity."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from retina_codec._common.checks import require_at_least, require_choice
from retina_codec._common.progress import progress_bar
from retina_codec._common.time import whole_history
from retina_codec.models.fitting import movie_settings, rate_to_drive
from retina_codec.models.layers import MovieConvolution
from retina_codec.models.model import LayerGeometry, RetinaModel, training_node
from retina_codec.models.nonlinearities import NONLINEARITIES
from retina_codec.models.saving import SavedModel
from retina_codec.recordings import spike_triggered_average

# Samples of a stretch that is transformed along time at once.
STRETCH = 512


class LN(SavedModel, RetinaModel):
    """A linear filter over space and history for each cell, then a static nonlinearity.

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
    nonlinearity : {"softplus", "histogram"}
        A scaled softplus, or the mean response to each of 30 ranges of drive, linear in between.

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
        nonlinearity: str = "softplus",
    ) -> None:
        require_choice(nonlinearity, list(NONLINEARITIES), "nonlinearity")
        colors = input_shape[0] if len(input_shape) == 3 else 1
        frame = (input_shape[-2], input_shape[-1])
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = nn.Sequential(
                OrderedDict[str, nn.Module](
                    filter=MovieConvolution(history, len(cells), frame, colors=colors, bias=False),
                    flatten=nn.Flatten(),
                    nonlinearity=NONLINEARITIES[nonlinearity](len(cells), float(bin_width)),
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
        self._config = {"nonlinearity": nonlinearity}

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

        Raises
        ------
        ValueError
            For ``nonlinearity="histogram"``, which is not trained by gradient.
        """
        if options.get("nonlinearity") == "histogram":
            raise ValueError(
                "nonlinearity='histogram' is counted, not trained: use "
                "LN.from_spike_triggered_average, or nonlinearity='softplus'"
            )
        node = training_node(recording)
        model = cls(**movie_settings(node), history=history, **options)
        nonlinearity: Any = model.network.get_submodule("nonlinearity")
        with torch.no_grad():
            nonlinearity.offset.copy_(rate_to_drive(node))
        return model

    @classmethod
    def from_spike_triggered_average(
        cls,
        recording: xr.DataTree | xr.Dataset,
        *,
        history: int = 40,
        nonlinearity: str = "softplus",
    ) -> Self:
        """Fit a model to white noise: the filter is the spike-triggered average.

        The nonlinearity is fitted by least squares to the counts of each bin. For stimuli with
        correlations in space or time the average is not the filter: use `from_least_squares`.

        Parameters
        ----------
        recording : xarray.DataTree or xarray.Dataset
            A recording with a node ``train``, or a node, without repeats.
        history : int
            Frames of the filter.
        nonlinearity : {"softplus", "histogram"}
            As for the class.

        Returns
        -------
        LN
            The fitted model.
        """
        node = training_node(recording)
        model = cls(**movie_settings(node), history=history, nonlinearity=nonlinearity)
        average = spike_triggered_average(node, history=history)
        kernels = average.transpose("cell", "lag", ...).values.astype(np.float64)[:, ::-1]
        kernels = kernels.reshape(*kernels.shape[:2], -1, *kernels.shape[-2:])
        model._filter_from((kernels - model.mean) / model.sd, node)
        return model

    @classmethod
    def from_least_squares(
        cls,
        recording: xr.DataTree | xr.Dataset,
        *,
        validation: xr.DataTree | xr.Dataset,
        history: int = 40,
        max_steps: int = 40,
        progress: bool = True,
    ) -> Self:
        """Fit a model to any stimulus: the filter is the regression of the counts on the movie.

        Conjugate gradients on the normal equations, from zero: the first step is the
        spike-triggered average, later ones divide out the stimulus' correlations. Each cell keeps
        the step that predicts the validation best, which is what regularises the filter. The
        nonlinearity is then fitted by least squares to the counts of each bin.

        Parameters
        ----------
        recording : xarray.DataTree or xarray.Dataset
            A recording with a node ``train``, or a node, without repeats.
        validation : xarray.DataTree or xarray.Dataset
            A node that was not trained on.
        history : int
            Frames of the filter.
        max_steps : int
            Most steps of conjugate gradients.
        progress : bool
            Show a progress bar.

        Returns
        -------
        LN
            The fitted model.

        References
        ----------
        Early stopping as regularisation of receptive fields: Willmore & Smyth, Network 14
        (2003), 553; conjugate gradients on the normal equations (CGLS): Hansen, Rank-Deficient
        and Discrete Ill-Posed Problems (SIAM 1998), section 6.3.
        """
        require_at_least(max_steps, 1, "max_steps")
        node, unseen = training_node(recording), training_node(validation)
        model = cls(**movie_settings(node), history=history)
        system = _Regression(model, node)
        check = _Regression(model, unseen)
        weights = system.zeros()
        residual = system.counts.clone()
        gradient = direction = system.backward(residual)
        size = _of_each(gradient, gradient)
        best = weights.clone()
        best_error = torch.full_like(size, torch.inf)
        for _ in progress_bar(range(max_steps), "fit LN", shown=progress):
            change = system.forward(direction)
            step = size / (change**2).sum(0).clamp(min=1e-30)
            weights = weights + _each(step) * direction
            residual = residual - step * change
            error = ((check.counts - check.forward(weights)) ** 2).mean(0)
            better = error < best_error
            best[better], best_error[better] = weights[better], error[better]
            gradient = system.backward(residual)
            new_size = _of_each(gradient, gradient)
            direction = gradient + _each(new_size / size.clamp(min=1e-30)) * direction
            size = new_size
        layer: Any = model.network.get_submodule("filter")
        model._filter_from(best.double().reshape(layer.weight.shape).numpy(), node)
        return model

    def _filter_from(self, kernels: np.ndarray, node: xr.Dataset) -> None:
        """Set the filters (cell, lag in time order, color, y, x) and fit the nonlinearities."""
        bins = whole_history(node["stimulus"], self.history)
        counts = node["spike_count"].transpose("time", "cell").values[bins].astype(np.float64)
        layer: Any = self.network.get_submodule("filter")
        nonlinearity: Any = self.network.get_submodule("nonlinearity")
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(kernels.copy()))
            batches = self.samples(node["stimulus"]).batches(STRETCH)
            drive = (
                torch.cat([layer(batch.inputs).flatten(1) for batch in batches]).double().numpy()
            )
            # Unit variance of the drive makes one starting point do for every cell.
            scale = np.maximum(drive.std(0), 1e-12)
            layer.weight /= torch.from_numpy(scale).float()[:, None, None, None, None]
            drive /= scale
            nonlinearity.fit(drive, counts)


class _Regression:
    """Centred counts, and the movie as a linear operator between filters and drives.

    A filter as large as the frame is a sum over pixels of convolutions in time, so the movie's
    stretches are transformed along time once, and each application of the operator is one complex
    matrix product at each temporal frequency.
    """

    def __init__(self, model: LN, node: xr.Dataset) -> None:
        history = model.history
        batches = list(model.samples(node["stimulus"]).batches(STRETCH))
        self._lengths = [batch.index.stop - batch.index.start for batch in batches]
        self._n_frames = STRETCH + history - 1
        stretches = torch.zeros(len(batches), self._n_frames, math.prod(model.input_shape or ()))
        for stretch, batch in zip(stretches, batches, strict=True):
            frames = batch.inputs[0].flatten(1)
            stretch[: len(frames)] = frames
        # (frequency, stretch, pixel)
        self._movie = torch.fft.rfft(stretches, dim=1).transpose(0, 1).contiguous()
        self._shape = (len(model.outputs), history, stretches.shape[2])
        bins = whole_history(node["stimulus"], history)
        counts = node["spike_count"].transpose("time", "cell").values[bins]
        self.counts = torch.from_numpy(counts.astype(np.float32))
        self.counts -= self.counts.mean(0)

    def zeros(self) -> Tensor:
        """Give filters (cell, lag in time order, pixel) of zeros."""
        return torch.zeros(self._shape)

    def forward(self, weights: Tensor) -> Tensor:
        """Drives (time, cell) of filters, without their means."""
        spectrum = torch.fft.rfft(weights, n=self._n_frames, dim=1).conj()
        product = torch.bmm(self._movie, spectrum.permute(1, 2, 0))
        drives = torch.fft.irfft(product, n=self._n_frames, dim=0).transpose(0, 1)
        parts = [drive[:n] for drive, n in zip(drives, self._lengths, strict=True)]
        joined = torch.cat(parts)
        return joined - joined.mean(0)

    def backward(self, residual: Tensor) -> Tensor:
        """Apply the transpose of `forward`: filters that the residual (time, cell) asks for."""
        residual = residual - residual.mean(0)
        padded = torch.zeros(len(self._lengths), self._n_frames, residual.shape[1])
        for stretch, part in zip(padded, residual.split(self._lengths), strict=True):
            stretch[: len(part)] = part
        spectrum = torch.fft.rfft(padded, dim=1).conj().permute(1, 2, 0)
        product = torch.bmm(spectrum, self._movie)
        return torch.fft.irfft(product, n=self._n_frames, dim=0)[: self._shape[1]].transpose(0, 1)


def _of_each(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of the filters of each cell."""
    return (a * b).flatten(1).sum(1)


def _each(values: Tensor) -> Tensor:
    """One number a cell, to be multiplied with its filter."""
    return values[:, None, None]
