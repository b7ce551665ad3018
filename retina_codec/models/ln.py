"""The linear-nonlinear model: one filter a cell, and a pointwise nonlinearity."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from retina_codec._common.checks import magnitude, require_at_least, require_choice, require_count
from retina_codec._common.progress import progress_bar
from retina_codec._common.time import whole_history
from retina_codec.models.design import STRETCH, MovieDesign
from retina_codec.models.fitting import movie_settings, rate_to_drive
from retina_codec.models.layers import MovieConvolution
from retina_codec.models.model import LayerGeometry, RetinaModel, training_node
from retina_codec.models.nonlinearities import NONLINEARITIES
from retina_codec.models.poisson_fit import CURVES, maximise_likelihood, require_single_trials
from retina_codec.models.saving import SavedModel
from retina_codec.recordings import spike_triggered_average


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
    nonlinearity : {"softplus", "exponential", "histogram"}
        A scaled softplus; an exponential (then it is the LNP model, whose likelihood has one
        maximum); or the mean response to each of 30 ranges of drive, linear in between.

    References
    ----------
    Chichilnisky, Network 12 (2001), 199; for the exponential Paninski, Network 15 (2004), 243.

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
        seconds = float(magnitude(bin_width, "s", "bin_width"))
        require_count(history, 1, "history")
        colors = input_shape[0] if len(input_shape) == 3 else 1
        frame = (input_shape[-2], input_shape[-1])
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = nn.Sequential(
                OrderedDict[str, nn.Module](
                    filter=MovieConvolution(history, len(cells), frame, colors=colors, bias=False),
                    flatten=nn.Flatten(),
                    nonlinearity=NONLINEARITIES[nonlinearity](len(cells), seconds),
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
        nonlinearity.start_at(rate_to_drive(node))
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
            As for the class; an exponential is fitted by `from_maximum_likelihood`.

        Returns
        -------
        LN
            The fitted model.
        """
        require_choice(nonlinearity, ["softplus", "histogram"], "nonlinearity")
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
        node, unseen = training_node(recording), training_node(validation, "validation")
        model = cls(**movie_settings(node), history=history)
        system = _Regression(model, node)
        check = _Regression(model, unseen)
        weights = torch.zeros(len(model.outputs), *system.shape)
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

    @classmethod
    def from_maximum_likelihood(
        cls,
        recording: xr.DataTree | xr.Dataset,
        *,
        validation: xr.DataTree | xr.Dataset | None = None,
        history: int = 40,
        nonlinearity: str = "exponential",
        l2: float = 1e-4,
        max_steps: int = 200,
        progress: bool = True,
    ) -> Self:
        """Fit filter and offset at once by maximum likelihood of Poisson counts, to any stimulus.

        With an exponential this is the LNP model. The likelihood is concave, so there is one
        maximum; it is found by L-BFGS on the movie as an operator. Filters with many weights for
        few spikes need a `validation` part (each cell then keeps the step that predicts it best)
        or a larger `l2`.

        Parameters
        ----------
        recording : xarray.DataTree or xarray.Dataset
            A recording with a node ``train``, or a node, without repeats.
        validation : xarray.DataTree or xarray.Dataset, optional
            A node that was not trained on.
        history : int
            Frames of the filter.
        nonlinearity : {"exponential", "softplus"}
            A softplus keeps gain and slope 1.
        l2 : float
            ``l2 / 2`` times the sum of squared weights, for a movie of unit variance, is added to
            the mean loss of a bin; offsets are not penalised.
        max_steps : int
            Most steps of L-BFGS.
        progress : bool
            Show a progress bar.

        Returns
        -------
        LN
            The fitted model.

        Raises
        ------
        ValueError
            If the recording has no stimulus or counts, has repeats, or does not fit `validation`.

        References
        ----------
        Paninski, Network 15 (2004), 243, section 3.

        Examples
        --------
        >>> import numpy as np, retina_codec as rc, xarray as xr
        >>> movie = rc.stimuli.white_noise(n_frames=8000, shape=(1, 1), seed=0)
        >>> drive = np.convolve(movie.squeeze(), [0.6, 0.3], mode="full")[: len(movie)]
        >>> counts = np.random.default_rng(0).poisson(0.2 * np.exp(drive))[:, None]
        >>> node = xr.Dataset(
        ...     {"stimulus": movie, "spike_count": (("time", "cell"), counts)}, {"cell": ["a"]}
        ... )
        >>> model = rc.models.LN.from_maximum_likelihood(node, history=2, progress=False)
        >>> weight = model.layers["filter"].weight.detach().numpy().ravel() / model.sd
        >>> [round(float(w), 1) for w in weight]
        [0.3, 0.6]
        """
        require_choice(nonlinearity, list(CURVES), "nonlinearity")
        require_count(max_steps, 1, "max_steps")
        require_at_least(l2, 0, "l2")
        node = training_node(recording)
        model = cls(**movie_settings(node), history=history, nonlinearity=nonlinearity)
        require_single_trials(node, "recording", model.outputs)
        unseen = None
        if validation is not None:
            unseen_node = training_node(validation, "validation")
            require_single_trials(unseen_node, "validation", model.outputs)
            unseen = _PoissonDesign(model, unseen_node)
        design = _PoissonDesign(model, node)
        module: Any = model.network.get_submodule("nonlinearity")
        module.start_at(rate_to_drive(node))
        layer: Any = model.network.get_submodule("filter")
        start = torch.zeros(len(model.outputs), layer.weight[0].numel() + 1)
        start[:, -1] = module.offset.detach()
        penalty = torch.full((start.shape[1],), float(l2))
        penalty[-1] = 0
        weights = maximise_likelihood(
            design,
            start,
            CURVES[nonlinearity],
            penalty=penalty,
            validation=unseen,
            max_steps=max_steps,
            progress=progress,
            label="fit LN",
        )
        with torch.no_grad():
            layer.weight.copy_(weights[:, :-1].reshape(layer.weight.shape))
            module.offset.copy_(weights[:, -1])
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


class _Regression(MovieDesign):
    """Centred counts, and drives without their means."""

    def __init__(self, model: LN, node: xr.Dataset) -> None:
        super().__init__(model, node)
        self.counts = self.counts - self.counts.mean(0)

    def forward(self, weights: Tensor) -> Tensor:
        """Drives (time, cell) of filters, without their means."""
        drive = super().forward(weights)
        return drive - drive.mean(0)

    def backward(self, residual: Tensor) -> Tensor:
        """Apply the transpose of `forward`."""
        return super().backward(residual - residual.mean(0))


class _PoissonDesign:
    """Filters and offsets (cell, lag * pixel + 1) as one vector of weights a cell."""

    def __init__(self, model: LN, node: xr.Dataset) -> None:
        self._movie = MovieDesign(model, node)
        self.counts = self._movie.counts

    def forward(self, weights: Tensor) -> Tensor:
        """Drives (time, cell)."""
        filters = weights[:, :-1].unflatten(1, self._movie.shape)
        return self._movie.forward(filters) + weights[:, -1]

    def backward(self, residual: Tensor) -> Tensor:
        """Apply the transpose of `forward`."""
        filters = self._movie.backward(residual).flatten(1)
        return torch.cat([filters, residual.sum(0)[:, None]], dim=1)


def _of_each(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of the filters of each cell."""
    return (a * b).flatten(1).sum(1)


def _each(values: Tensor) -> Tensor:
    """One number a cell, to be multiplied with its filter."""
    return values[:, None, None]
