"""The generalised linear model of spike trains: stimulus filter and spike history."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
import xarray as xr
from scipy.special import gammaln
from torch import Tensor, nn

from retina_codec._common.checks import (
    magnitude,
    nearest_names,
    require_at_least,
    require_choice,
    require_count,
    require_dims,
)
from retina_codec._common.progress import progress_bar
from retina_codec._common.provenance import provenance
from retina_codec._common.time import runs_of, whole_history
from retina_codec.models.design import MovieDesign
from retina_codec.models.fitting import movie_settings, rate_to_drive
from retina_codec.models.layers import MovieConvolution
from retina_codec.models.model import (
    BATCH_SIZE,
    LayerGeometry,
    RetinaModel,
    frozen,
    training_node,
)
from retina_codec.models.nonlinearities import NONLINEARITIES
from retina_codec.models.poisson_fit import CURVES, maximise_likelihood, require_single_trials
from retina_codec.models.saving import SavedModel
from retina_codec.models.spike_history import SpikeFilters, past_features, poisson_counts

# Before a fit has seen counts: beyond what a cell fires in a bin.
UNFITTED_CEILING = 100.0
# Repeats that a prediction without counts averages.
N_REPEATS = 50


class GLM(SavedModel, RetinaModel):
    """A stimulus filter and a post-spike filter a cell, summed before an exponential.

    ``rate = f(stimulus filter * movie + post-spike filter * earlier counts + offset)``, with
    coupling filters from the other cells' earlier counts by option; counts are Poisson given the
    rate. Fitted by maximum likelihood with `from_maximum_likelihood`; `rc.train`, which sees no
    spike history, is refused.

    Without recorded spikes, `predict` simulates repeats and averages their rates. Contributions,
    which follow the path from the movie to the output, divide the rate *given no earlier
    spikes*, ``f(stimulus filter * movie + offset)``: their target is that rate and not the one
    that `predict` gives.

    Parameters
    ----------
    input_shape : tuple of int
        ``([color,] y, x)`` of a frame.
    history : int
        Frames of the stimulus filter.
    bin_width : float or quantity
        Duration of a frame, in seconds.
    cells : sequence of str
        Ids of the ganglion cells.
    mean, sd : float
        Of the training movie, in its recorded units.
    spike_history : int
        Earlier bins that spikes are remembered for, at least 1.
    n_basis : int
        Raised cosines in log time that make up each spike-history filter; at most
        `spike_history`.
    coupling : bool
        Filters from the spikes of every other cell.
    nonlinearity : {"exponential", "softplus"}
        The curve f, in spikes per bin.
    seed : int
        Of the initial weights.

    References
    ----------
    Pillow et al., Nature 454 (2008), 995, doi 10.1038/nature07140; Truccolo et al., J.
    Neurophysiol. 93 (2005), 1074.

    Examples
    --------
    >>> import retina_codec as rc
    >>> rc.models.GLM((1, 1), history=40, bin_width=0.01, cells=["a"])
    GLM(1 outputs along 'cell'; layers: filter)
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
        spike_history: int = 20,
        n_basis: int = 6,
        coupling: bool = False,
        nonlinearity: str = "exponential",
        seed: int = 0,
    ) -> None:
        require_choice(nonlinearity, list(CURVES), "nonlinearity")
        seconds = float(magnitude(bin_width, "s", "bin_width"))
        require_count(history, 1, "history")
        require_count(spike_history, 1, "spike_history")
        require_count(n_basis, 1, "n_basis")
        if n_basis > spike_history:
            raise ValueError(
                f"n_basis={n_basis} exceeds spike_history={spike_history}: a filter of that many "
                "bins has no more weights than bins"
            )
        colors = input_shape[0] if len(input_shape) == 3 else 1
        frame = (input_shape[-2], input_shape[-1])
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = _StimulusPath(
                MovieConvolution(history, len(cells), frame, colors=colors, bias=False),
                SpikeFilters(len(cells), spike_history, n_basis, coupling),
                NONLINEARITIES[nonlinearity](len(cells), seconds),
            )
        super().__init__(
            network.eval(),
            history=history,
            bin_width=bin_width,
            cells=cells,
            input_shape=tuple(input_shape),
            mean=mean,
            sd=sd,
            layers={"filter": network.filter},
            default_layers=("filter",),
            geometry={"filter": LayerGeometry(((frame[0] - 1) / 2, (frame[1] - 1) / 2))},
            channels={"filter": list(cells)},
        )
        self._config = {
            "spike_history": spike_history,
            "n_basis": n_basis,
            "coupling": coupling,
            "nonlinearity": nonlinearity,
        }

    @classmethod
    def for_recording(
        cls, recording: xr.DataTree | xr.Dataset, *, history: int = 40, **options: Any
    ) -> Self:
        """Make a model that fits a recording, with a random stimulus filter and no spike history.

        Parameters
        ----------
        recording : xarray.DataTree or xarray.Dataset
            A recording with a node ``train``, or a node.
        history : int
            Frames of the stimulus filter.
        **options
            As for the class.
        """
        node = training_node(recording)
        model = cls(**movie_settings(node), history=history, **options)
        model._path.nonlinearity.start_at(rate_to_drive(node))
        return model

    @classmethod
    def from_maximum_likelihood(
        cls,
        recording: xr.DataTree | xr.Dataset,
        *,
        validation: xr.DataTree | xr.Dataset | None = None,
        history: int = 40,
        l2: float = 1e-4,
        max_steps: int = 200,
        progress: bool = True,
        **options: Any,
    ) -> Self:
        """Fit stimulus filter, spike history and offset at once by maximum likelihood.

        The likelihood of the counts, given movie and earlier counts, is concave in all of them,
        so there is one maximum; it is found by L-BFGS on the movie as an operator.

        Parameters
        ----------
        recording : xarray.DataTree or xarray.Dataset
            A recording with a node ``train``, or a node, without repeats.
        validation : xarray.DataTree or xarray.Dataset, optional
            A node that was not trained on: each cell keeps the step that predicts it best.
        history : int
            Frames of the stimulus filter.
        l2 : float
            ``l2 / 2`` times the sum of squared weights is added to the mean loss of a bin, for a
            movie and features of earlier counts of unit variance; offsets are not penalised.
        max_steps : int
            Most steps of L-BFGS.
        progress : bool
            Show a progress bar.
        **options
            As for the class: spike_history, n_basis, coupling, nonlinearity.

        Returns
        -------
        GLM
            The fitted model.

        Raises
        ------
        ValueError
            If the recording has no stimulus or counts, has repeats, or does not fit `validation`.

        References
        ----------
        Pillow et al., Nature 454 (2008), 995; concavity: Paninski, Network 15 (2004), 243.
        """
        require_count(max_steps, 1, "max_steps")
        require_at_least(l2, 0, "l2")
        node = training_node(recording)
        model = cls.for_recording(node, history=history, **options)
        require_single_trials(node, "recording", model.outputs)
        design = _GLMDesign(model, node)
        unseen = None
        if validation is not None:
            unseen_node = training_node(validation, "validation")
            require_single_trials(unseen_node, "validation", model.outputs)
            unseen = _GLMDesign(model, unseen_node, like=design)
        path = model._path
        start = torch.zeros(len(model.outputs), design.n_weights)
        start[:, -1] = path.nonlinearity.offset.detach()
        penalty = torch.full((design.n_weights,), float(l2))
        penalty[-1] = 0
        weights = maximise_likelihood(
            design,
            start,
            CURVES[model._config["nonlinearity"]],
            penalty=penalty,
            validation=unseen,
            max_steps=max_steps,
            progress=progress,
            label="fit GLM",
        )
        with torch.no_grad():
            filters, own, coupling, offset = design.unpack(weights)
            path.filter.weight.copy_(filters.reshape(path.filter.weight.shape))
            path.spikes.post_spike.copy_(own)
            if path.spikes.coupling is not None:
                path.spikes.coupling.copy_(coupling)
            path.nonlinearity.offset.copy_(offset)
            path.ceiling.copy_(design.counts.amax(0).clamp(min=1))
        return model

    @property
    def _path(self) -> _StimulusPath:
        return self.network  # type: ignore[return-value]

    @property
    def post_spike_filter(self) -> xr.DataArray:
        """What a spike of a cell adds to its own drive later: (cell, lag).

        Lags in seconds, the first one bin. Under an exponential the rate is multiplied with the
        exponential of it.
        """
        return self._filter_array(self._own(self._path.spikes.filters()), "post-spike filter")

    @property
    def coupling_filter(self) -> xr.DataArray:
        """What a spike of the cell `source` adds to the drive of `cell` later: (cell, source, lag).

        On the diagonal stand the post-spike filters.

        Raises
        ------
        ValueError
            If the model has no coupling.
        """
        filters = self._path.spikes.filters()
        if filters.ndim == 2:
            raise ValueError(
                "the model has no coupling filters: make or fit it with coupling=True, or take "
                "post_spike_filter"
            )
        return self._filter_array(filters, "coupling filter")

    def _own(self, filters: np.ndarray) -> np.ndarray:
        return filters if filters.ndim == 2 else np.einsum("iil->il", filters)

    def _filter_array(self, filters: np.ndarray, long_name: str) -> xr.DataArray:
        lags = self.bin_width * np.arange(1, filters.shape[-1] + 1)
        dims = ("cell", "lag") if filters.ndim == 2 else ("cell", "source", "lag")
        return xr.DataArray(
            filters,
            dims=dims,
            coords={
                **dict.fromkeys(dims[:-1], self.outputs),
                "lag": ("lag", lags, {"units": "s", "long_name": "time since the spike"}),
            },
            name=long_name.replace(" ", "_").replace("-", "_"),
            attrs={
                "units": "1",
                "long_name": long_name,
                "model_fingerprint": self.fingerprint,
                **provenance(model=type(self).__name__),
            },
        )

    def predict(
        self,
        data: xr.DataArray,
        *,
        spike_count: xr.DataArray | None = None,
        n_repeats: int = N_REPEATS,
        seed: int = 0,
        batch_size: int = BATCH_SIZE,
        progress: bool = False,
    ) -> xr.DataArray:
        """Predict rates from a movie, given the recorded spikes or without them.

        Parameters
        ----------
        data : xarray.DataArray
            A movie (time, [color,] y, x) in its recorded units.
        spike_count : xarray.DataArray, optional
            Recorded counts ([repeat,] time, cell) at the movie's times: each bin is predicted
            given the bins before it. Without them, the model's own spikes are simulated, and the
            rates of all simulated repeats averaged.
        n_repeats : int
            Simulated repeats.
        seed : int
            Of the simulated spikes.
        batch_size : int
            Samples in one forward pass.
        progress : bool
            Show a progress bar.

        Returns
        -------
        xarray.DataArray
            ([repeat,] time, cell) in Hz, one sample for each frame with a whole history.

        Raises
        ------
        ValueError
            If movie or counts do not fit the model or each other.
        """
        if spike_count is None:
            rate, _ = self._simulate(data, n_repeats, seed, batch_size, progress, keep=False)
            dims: tuple[str, ...] = ("time", "cell")
            how: dict[str, Any] = {"n_repeats": n_repeats, "seed": seed}
        else:
            counts = self._matching_counts(data, spike_count)
            rate = self._given(data, counts.values, batch_size, progress)
            dims, how = tuple(map(str, counts.dims)), {"given": "recorded spikes"}
        return self._labelled(data, rate.astype(np.float32), dims, "prediction", "Hz", how)

    def simulate(
        self,
        data: xr.DataArray,
        *,
        n_repeats: int = N_REPEATS,
        seed: int = 0,
        batch_size: int = BATCH_SIZE,
        progress: bool = False,
    ) -> xr.DataArray:
        """Draw spikes in answer to a movie: each repeat remembers its own spikes alone.

        A block starts without earlier spikes. So that an exponential cannot run away, a bin is
        expected to hold at most as many spikes as the fullest one of the fit (see Gerhard et al.,
        PLoS Comput. Biol. 13 (2017), e1005390, on the instability).

        Parameters
        ----------
        data, batch_size, progress
            As for `predict`.
        n_repeats : int
            Repeats.
        seed : int
            Of the spikes.

        Returns
        -------
        xarray.DataArray
            spike_count (repeat, time, cell), one sample for each frame with a whole history.
        """
        _, counts = self._simulate(data, n_repeats, seed, batch_size, progress, keep=True)
        return self._labelled(
            data,
            counts,
            ("repeat", "time", "cell"),
            "spike_count",
            "1",
            {"n_repeats": n_repeats, "seed": seed},
        )

    def log_likelihood(self, node: xr.DataTree | xr.Dataset) -> xr.Dataset:
        """How likely recorded counts are, each bin given the movie and the bins before it.

        Parameters
        ----------
        node : xarray.DataTree or xarray.Dataset
            stimulus (time, [color,] y, x) and spike_count ([repeat,] time, cell).

        Returns
        -------
        xarray.Dataset
            Over ``cell``: ``log_likelihood`` in nats per bin, and ``bits_per_spike`` above a
            constant rate, the node's own (NaN for a cell without spikes).
        """
        dataset = training_node(node, "node")
        rate = self.predict(dataset["stimulus"], spike_count=dataset["spike_count"])
        counts = self._matching_counts(dataset["stimulus"], dataset["spike_count"])
        counts = counts.sel(time=rate["time"])
        observed = counts.transpose(*rate.dims).values.reshape(-1, len(self.outputs))
        expected = rate.values.astype(np.float64).reshape(observed.shape) * self.bin_width
        mean = observed.mean(0)
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.where(observed > 0, observed * np.log(expected), 0)
            value = (logs - expected - gammaln(observed + 1)).mean(0)
            flat = (observed * np.log(mean) - mean - gammaln(observed + 1)).mean(0)
            bits = np.where(mean > 0, (value - flat) / (mean * math.log(2)), np.nan)
        return xr.Dataset(
            {
                "log_likelihood": (
                    "cell",
                    value,
                    {"units": "nat", "long_name": "log-likelihood of a bin"},
                ),
                "bits_per_spike": (
                    "cell",
                    bits,
                    {"units": "bit", "long_name": "log-likelihood above a constant rate"},
                ),
            },
            coords={"cell": self.outputs},
            attrs={"model_fingerprint": self.fingerprint, **provenance(n_bins=len(observed))},
        )

    def _labelled(
        self,
        data: xr.DataArray,
        values: np.ndarray,
        dims: tuple[str, ...],
        name: str,
        units: str,
        how: dict[str, Any],
    ) -> xr.DataArray:
        return xr.DataArray(
            values,
            dims=dims,
            coords={**self.samples(data).coords, "cell": self.outputs},
            name=name,
            attrs={
                "units": units,
                "long_name": "predicted rate" if units == "Hz" else "simulated spikes",
                "model_fingerprint": self.fingerprint,
                **provenance(model=type(self).__name__, **how),
            },
        )

    def _drive(self, data: xr.DataArray, batch_size: int, progress: bool) -> np.ndarray:
        """Drive of the movie and the offset (time, cell), without spike history."""
        require_at_least(batch_size, 1, "batch_size")
        samples = self.samples(data)
        drive = np.empty((len(samples), len(self.outputs)))
        n_batches = -(-len(samples) // batch_size)
        with frozen(self.network), torch.no_grad():
            for batch in progress_bar(
                samples.batches(batch_size), "predict", total=n_batches, shown=progress
            ):
                filtered = self._path.filter(batch.inputs).flatten(1)
                drive[batch.index] = filtered.double().cpu().numpy()
        return drive + self._path.nonlinearity.offset.detach().double().cpu().numpy()

    def _matching_counts(self, data: xr.DataArray, spike_count: xr.DataArray) -> xr.DataArray:
        """Give counts ([repeat,] time, cell) of the model's cells, at exactly the movie's times."""
        counts = require_dims(
            spike_count, ("repeat", "time", "cell"), "spike_count", optional=("repeat",)
        )
        names = [str(cell) for cell in counts["cell"].values]
        for cell in self.outputs.tolist():
            if cell not in names:
                raise ValueError(f"spike_count has no cell {cell!r}; {nearest_names(cell, names)}")
        if not np.array_equal(counts["time"].values, data["time"].values):
            raise ValueError(
                f"spike_count has {counts.sizes['time']} bins and data {data.sizes['time']} "
                "frames, or they start at other times: give the counts of the movie's own bins"
            )
        return counts.isel(cell=[names.index(str(cell)) for cell in self.outputs])

    def _given(
        self, data: xr.DataArray, counts: np.ndarray, batch_size: int, progress: bool
    ) -> np.ndarray:
        drive = self._drive(data, batch_size, progress)
        kept, runs = whole_history(data, self.history), runs_of(data)
        filters = self._path.spikes.filters()
        curve = CURVES[self._config["nonlinearity"]]
        trials = counts.astype(np.float64).reshape(-1, *counts.shape[-2:])
        rates = []
        for trial in trials:
            past = np.zeros(trial.shape)
            for run in runs:
                for lag in range(1, min(filters.shape[-1], run.stop - run.start - 1) + 1):
                    earlier, at = trial[run.start : run.stop - lag], filters[..., lag - 1]
                    added = earlier * at if at.ndim == 1 else earlier @ at.T
                    past[run.start + lag : run.stop] += added
            rates.append(curve.expected(drive + past[kept]) / self.bin_width)
        return np.stack(rates).reshape(*counts.shape[:-2], *drive.shape)

    def _simulate(
        self,
        data: xr.DataArray,
        n_repeats: int,
        seed: int,
        batch_size: int,
        progress: bool,
        keep: bool,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean rate over repeats (time, cell), and counts (repeat, time, cell) if they are kept."""
        require_count(n_repeats, 1, "n_repeats")
        drive = self._drive(data, batch_size, progress)
        curve = CURVES[self._config["nonlinearity"]]
        ceiling = self._path.ceiling.double().cpu().numpy()
        filters = np.moveaxis(self._path.spikes.filters(), -1, 0)
        n_lags, n_cells = len(filters), len(self.outputs)
        # (lag, 1, cell), or (lag, source, cell)
        filters = filters[:, None] if filters.ndim == 2 else filters.transpose(0, 2, 1)
        coupled = self._path.spikes.coupling is not None
        rng = np.random.default_rng(seed)
        mean = np.empty(drive.shape)
        counts = np.empty((n_repeats if keep else 0, *drive.shape), dtype=np.int32)
        done = 0
        for run in runs_of(data):
            # What past spikes add to the coming bins, as a ring: (bin, repeat, cell).
            coming = np.zeros((n_lags, n_repeats, n_cells))
            n = max(0, run.stop - run.start - self.history + 1)
            for i in range(n):
                now = i % n_lags
                # A drive beyond the ceiling is not told from the ceiling, nor is it infinite.
                with np.errstate(over="ignore"):
                    expected = np.minimum(curve.expected(drive[done + i] + coming[now]), ceiling)
                coming[now] = 0
                spikes = poisson_counts(expected, rng.random(expected.shape))
                if spikes.any():
                    added = spikes @ filters if coupled else spikes * filters
                    split = n_lags - now - 1
                    coming[now + 1 :] += added[:split]
                    coming[: now + 1] += added[split:]
                mean[done + i] = expected.mean(0) / self.bin_width
                if keep:
                    counts[:, done + i] = spikes
            done += n
        return mean, counts


class _StimulusPath(nn.Module):
    """From a movie to the rate given no earlier spikes; the spike filters lie beside."""

    def __init__(self, movie: MovieConvolution, spikes: SpikeFilters, nonlinearity: Any) -> None:
        super().__init__()
        self.filter = movie
        self.spikes = spikes
        self.nonlinearity = nonlinearity
        self.ceiling: Tensor
        self.register_buffer("ceiling", torch.full((len(spikes.post_spike),), UNFITTED_CEILING))

    def forward(self, movie: Tensor) -> Tensor:
        """Give the rates; refuse to be trained."""
        if self.training:
            raise ValueError(
                "a GLM is not trained by rc.train, which shows it no spike history: fit it with "
                "rc.models.GLM.from_maximum_likelihood(recording)"
            )
        return self.nonlinearity(self.filter(movie).flatten(1))


class _GLMDesign:
    """Movie, standardised features of earlier counts and a constant, as one operator.

    Weights (cell, lag * pixel + feature + 1): the features are a cell's own counts through the
    basis, or with coupling every cell's. `like` gives the standardisation.
    """

    def __init__(self, model: GLM, node: xr.Dataset, *, like: _GLMDesign | None = None) -> None:
        self._movie = MovieDesign(model, node)
        self.counts = self._movie.counts
        spikes = model._path.spikes
        counts = node["spike_count"].transpose("time", "cell").values.astype(np.float32)
        features = past_features(torch.from_numpy(counts), spikes.basis.cpu(), runs_of(node))
        features = features[whole_history(node["stimulus"], model.history)].to(model.device)
        self._coupled = spikes.coupling is not None
        self._sizes = features.shape[1:]
        self._mean: Tensor = features.mean(0) if like is None else like._mean
        sd = features.std(0)
        # A silent cell's features are all zero, and stay so.
        self._sd: Tensor = torch.where(sd > 0, sd, 1.0) if like is None else like._sd
        self._features = (features - self._mean) / self._sd
        n_cells, n_basis = self._sizes
        self._n_features = n_basis * (n_cells if self._coupled else 1)
        self.n_weights = math.prod(self._movie.shape) + self._n_features + 1

    def _parts(self, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n = math.prod(self._movie.shape)
        filters = weights[:, :n].unflatten(1, self._movie.shape)
        return filters, weights[:, n:-1], weights[:, -1]

    def forward(self, weights: Tensor) -> Tensor:
        """Drives (time, cell)."""
        filters, past, offset = self._parts(weights)
        if self._coupled:
            added = self._features.flatten(1) @ past.T
        else:
            added = torch.einsum("tcb,cb->tc", self._features, past)
        return self._movie.forward(filters) + added + offset

    def backward(self, residual: Tensor) -> Tensor:
        """Apply the transpose of `forward`."""
        if self._coupled:
            past = residual.T @ self._features.flatten(1)
        else:
            past = torch.einsum("tc,tcb->cb", residual, self._features)
        filters = self._movie.backward(residual).flatten(1)
        return torch.cat([filters, past, residual.sum(0)[:, None]], dim=1)

    def unpack(self, weights: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Give filters, own and coupling weights on features as they are, and offsets."""
        filters, past, offset = self._parts(weights)
        n_cells, n_basis = self._sizes
        if not self._coupled:
            past = past / self._sd
            return filters, past, past.new_zeros(0), offset - (past * self._mean).sum(1)
        coupling = past.unflatten(1, (n_cells, n_basis)) / self._sd
        offset = offset - (coupling * self._mean).sum((1, 2))
        own = coupling.diagonal(dim1=0, dim2=1).T.clone()
        cells = torch.arange(n_cells)
        coupling = coupling.clone()
        coupling[cells, cells] = 0
        return filters, own, coupling, offset
