"""Core-readout models: space-time separable convolutions and, for each cell, a place to read."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
import xarray as xr
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor, nn

from retina_codec._common.checks import magnitude, require_choice, require_count
from retina_codec._common.provenance import provenance
from retina_codec.models.fitting import movie_settings, rate_to_drive
from retina_codec.models.layers import RatePerBin
from retina_codec.models.model import LayerGeometry, RetinaModel, training_node
from retina_codec.models.readouts import READOUTS, FactorisedReadout, GaussianReadout
from retina_codec.models.saving import SavedModel
from retina_codec.models.shared_core import SharedCore
from retina_codec.recordings import spike_triggered_average

# Of the published models; frames of fewer pixels get smaller kernels.
FIRST_KERNEL, LATER_KERNEL = 11, 5


class CoreReadout(SavedModel, RetinaModel):
    """A core of separable convolutions, then a readout that gives each cell its place.

    Each layer of the core convolves every frame in space, then the maps in time; batch norm, ELU.
    The first layer keeps places whose kernel lies within the frame, later ones pad with zeros, so
    that all layers have the same places. `for_recordings` shares one core between recordings.

    Contributions are taken at the last layer by default. Units of earlier layers act at several
    lags: `with_all_layers` gives the model in a form that has them too, one channel a feature and
    lag.

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
        Channels of each layer of the core.
    spatial_kernel_sizes : tuple of int, optional
        Side of each layer's kernel in pixels, odd after the first; by default 11, then 5, and on
        small frames at most half of the shorter side (1 on a full-field movie).
    temporal_kernel_sizes : tuple of int, optional
        Frames of each layer's kernel; together ``sum(size - 1) + 1 = history``. By default the
        first layer has about twice the frames of the later ones.
    readout : {"gaussian", "factorised"}
        One place a cell, found while training; or a mask over all places.
    seed : int
        Of the initial weights.

    References
    ----------
    Hoefling et al., eLife 12 (2024), RP86860; readouts: Lurz et al., ICLR 2021 (Gaussian), Klindt
    et al., NIPS 2017 (factorised).

    Examples
    --------
    >>> import retina_codec as rc
    >>> rc.models.CoreReadout((18, 16), history=30, bin_width=0.033, cells=["a", "b"])
    CoreReadout(2 outputs along 'cell'; layers: layer2)
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
        channels: Sequence[int] = (16, 16),
        spatial_kernel_sizes: Sequence[int] | None = None,
        temporal_kernel_sizes: Sequence[int] | None = None,
        readout: str = "gaussian",
        seed: int = 0,
    ) -> None:
        require_choice(readout, list(READOUTS), "readout")
        require_count(history, 1, "history")
        frame = (input_shape[-2], input_shape[-1])
        n_layers = len(channels)
        seconds = float(magnitude(bin_width, "s", "bin_width"))
        spatial = _sizes(
            spatial_kernel_sizes, fitting_kernels(min(frame), n_layers), "spatial_kernel_sizes"
        )
        temporal = _sizes(
            temporal_kernel_sizes, fitting_lags(history, n_layers), "temporal_kernel_sizes"
        )
        for value in channels:
            require_count(value, 1, "channels")
        if sum(size - 1 for size in temporal) + 1 != history:
            raise ValueError(
                f"temporal_kernel_sizes={temporal} look back over "
                f"{sum(size - 1 for size in temporal) + 1} frames; expected history={history}: "
                "the sum of (size - 1), plus 1"
            )
        if any(size % 2 == 0 for size in spatial[1:]):
            raise ValueError(
                f"spatial_kernel_sizes={spatial}: sizes after the first are to be odd, so that "
                "their maps stay centred"
            )
        kernel = (min(spatial[0], frame[0]), min(spatial[0], frame[1]))
        size = (frame[0] - kernel[0] + 1, frame[1] - kernel[1] + 1)
        colors = input_shape[0] if len(input_shape) == 3 else 1
        # A map that is one pixel high or wide has nothing to convolve there.
        later = [(k if size[0] > 1 else 1, k if size[1] > 1 else 1) for k in spatial[1:]]
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            core = SeparableCore(colors, channels, [kernel, *later], temporal)
            reader = READOUTS[readout](channels[-1], size, len(cells))
        network = _CoreReadoutNetwork(core, reader, RatePerBin(seconds))
        names = core.layer_names
        geometry = LayerGeometry(((kernel[0] - 1) / 2, (kernel[1] - 1) / 2))
        lags = {
            name: [
                f"{channel} at {seconds * lag:g} s"
                for channel in range(n)
                for lag in reversed(range(left))
            ]
            for name, n, left in zip(names[:-1], channels, core.lags_left, strict=False)
        }
        super().__init__(
            network.eval(),
            history=history,
            bin_width=bin_width,
            cells=cells,
            input_shape=tuple(input_shape),
            mean=mean,
            sd=sd,
            layers=network.layers(),
            default_layers=names[-1:],
            geometry=dict.fromkeys(names, geometry),
            channels=lags,
        )
        self._config = {
            "channels": list(channels),
            "spatial_kernel_sizes": spatial,
            "temporal_kernel_sizes": temporal,
            "readout": readout,
        }

    @classmethod
    def for_recording(
        cls,
        recording: xr.DataTree | xr.Dataset,
        *,
        history: int = 40,
        start: str = "average",
        **options: Any,
    ) -> Self:
        """Make an untrained model that fits one recording.

        Parameters
        ----------
        recording : xarray.DataTree or xarray.Dataset
            A recording with a node ``train``, or a node.
        history : int
            Frames that a response depends on.
        start : {"average", "centre"}
            Where Gaussian readouts start: where the cell's spike-triggered average has most
            energy (one pass over the movie; a cell without spikes starts in the middle), or all
            near the middle. From afar some cells do not find their place.
        **options
            As for the class.

        Returns
        -------
        CoreReadout
            With the recording's frame shape, bin width, cells, mean and sd; each output starts
            near its cell's mean rate.
        """
        require_choice(start, ["average", "centre"], "start")
        node = training_node(recording)
        model = cls(**movie_settings(node), history=history, **options)
        readout = model._parts.readout
        with torch.no_grad():
            readout.bias.copy_(rate_to_drive(node))
            if start == "average" and isinstance(readout, GaussianReadout):
                readout.position.copy_(_places_of_averages(node, history, readout.size))
        return model

    @classmethod
    def for_recordings(
        cls,
        recordings: Mapping[str, xr.DataTree | xr.Dataset],
        *,
        history: int = 40,
        **options: Any,
    ) -> SharedCore:
        """Make untrained models of several recordings with one core.

        Parameters
        ----------
        recordings : mapping of str to xarray.DataTree or xarray.Dataset
            Recordings by name, of the same bin width and colour planes; frames may differ in
            size, and each recording's movie is normalised by its own mean and sd.
        history : int
            Frames that a response depends on.
        **options
            As for the class and `for_recording`.

        Returns
        -------
        SharedCore
            ``.session(name)`` is the model of a recording; `train_jointly` trains them all.

        Raises
        ------
        ValueError
            If there is no recording, or they differ in bin width or colour planes.
        """
        if not recordings:
            raise ValueError("recordings is empty; expected recordings by name")
        nodes = {str(name): training_node(recording) for name, recording in recordings.items()}
        if options.get("spatial_kernel_sizes") is None:
            sides = [min(node.sizes["y"], node.sizes["x"]) for node in nodes.values()]
            n_layers = len(options.get("channels", (16, 16)))
            options = options | {"spatial_kernel_sizes": fitting_kernels(min(sides), n_layers)}
        return SharedCore(
            {
                name: cls.for_recording(node, history=history, **options)
                for name, node in nodes.items()
            }
        )

    def with_all_layers(self) -> Self:
        """Give the same model, sharing all weights, with the layers before the last as well.

        A unit of an earlier layer acts on a response at several lags. Here every response has a
        window of its own on each layer, and its channels are ``"FEATURE at LAG s"``, so that
        contributions can be taken there. Predictions are the same; they cost some times more.

        Returns
        -------
        CoreReadout
            All layers are default layers.
        """
        twin = copy.copy(self)
        parts = self._parts
        network = _CoreReadoutNetwork(parts.core, parts.readout, parts.rate, windows=True)
        twin.network = network.train(self.network.training)
        twin.layers = network.layers()
        twin.default_layers = tuple(parts.core.layer_names)
        return twin

    def places(self) -> xr.Dataset:
        """Say where each cell reads, in pixels of the movie.

        Returns
        -------
        xarray.Dataset
            Over ``cell``: ``y``, ``x``, the mean place (centre of the first layer's kernel), and
            ``y_sd``, ``x_sd``, of the Gaussian or the mask.
        """
        mean, sd = self._parts.readout.places()
        offset = self.geometry[self._parts.core.layer_names[-1]].offset
        values = {
            "y": mean[:, 0] + offset[0],
            "x": mean[:, 1] + offset[1],
            "y_sd": sd[:, 0],
            "x_sd": sd[:, 1],
        }
        return xr.Dataset(
            {
                name: (
                    "cell",
                    np.asarray(value),
                    {"units": "pixel", "long_name": f"place of the readout, {name}"},
                )
                for name, value in values.items()
            },
            coords={"cell": self.outputs},
            attrs={
                "model_fingerprint": self.fingerprint,
                **provenance(readout=self._config["readout"]),
            },
        )

    @property
    def core(self) -> SeparableCore:
        """The convolutions, which several models may share."""
        return self._parts.core

    def readout_penalty(self, cells: Sequence[int] | None = None) -> Tensor:
        """Give the readout's L1 penalty, averaged over all cells or those of some numbers.

        Masks and feature weights count, places do not.
        """
        n = len(self.outputs) if cells is None else len(cells)
        return self._parts.readout.penalty(cells) / n

    def share_core(self, core: SeparableCore) -> None:
        """Take over the core of another model, with its weights.

        Raises
        ------
        ValueError
            If its sizes are not those of this model's core.
        """
        if str(core) != str(self.core):
            raise ValueError(
                "the cores differ in colour planes, channels or kernels: give "
                "spatial_kernel_sizes that fit every recording's frames, and the same colours\n"
                f"{core}\n{self.core}"
            )
        self._parts.core = core
        self.layers = self._parts.layers()

    @property
    def _parts(self) -> _CoreReadoutNetwork:
        return self.network  # type: ignore[return-value]


class SeparableLayer(nn.Module):
    """Convolution of each frame in space, then of the maps in time; batch norm, ELU.

    Input ``(segment, channel, frame, y, x)``, output the same with ``lags - 1`` frames fewer.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: tuple[int, int], lags: int, padded: bool
    ) -> None:
        super().__init__()
        padding = ((kernel[0] - 1) // 2, (kernel[1] - 1) // 2) if padded else (0, 0)
        self.space = nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=False)
        self.time = nn.Conv2d(outputs, outputs, (lags, 1), bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.elu = nn.ELU()

    def forward(self, maps: Tensor) -> Tensor:
        """Convolve the maps."""
        segments, frames = maps.shape[0], maps.shape[2]
        # Frames as images, then pixels as columns: two-dimensional convolutions are fast.
        spatial = self.space(maps.transpose(1, 2).flatten(0, 1))
        size = spatial.shape[-2:]
        columns = spatial.unflatten(0, (segments, frames)).transpose(1, 2).flatten(3)
        return self.elu(self.norm(self.time(columns))).unflatten(3, size)


class SeparableCore(nn.Module):
    """Layers of separable convolutions, and the places where their units are looked at.

    Parameters
    ----------
    colors : int
        Colour planes of the movie.
    channels : sequence of int
        Of each layer.
    kernels : sequence of (int, int)
        Height and width of each layer's kernel; the first is not padded, later ones are.
    lags : sequence of int
        Frames of each layer's kernel.
    """

    def __init__(
        self,
        colors: int,
        channels: Sequence[int],
        kernels: Sequence[tuple[int, int]],
        lags: Sequence[int],
    ) -> None:
        super().__init__()
        inputs = [colors, *channels[:-1]]
        self.convolutions = nn.ModuleList(
            SeparableLayer(n_in, n_out, kernel, n_lags, padded=i > 0)
            for i, (n_in, n_out, kernel, n_lags) in enumerate(
                zip(inputs, channels, kernels, lags, strict=True)
            )
        )
        self.layer_names = [f"layer{i + 1}" for i in range(len(channels))]
        # Frames of a layer's output that one response sees: the kernels after it.
        self.lags_left = [1 + sum(n - 1 for n in lags[i + 1 :]) for i in range(len(channels))]
        self.units = nn.ModuleDict({name: nn.Identity() for name in self.layer_names})

    def forward(self, maps: Tensor, windows: bool) -> Tensor:
        """Turn segments (segment, color, frame, y, x) into maps (sample, channel, y, x)."""
        last = self.layer_names[-1]
        for name, convolution, left in zip(
            self.layer_names, self.convolutions, self.lags_left, strict=True
        ):
            maps = convolution(maps)
            if windows or name == last:
                # (segment, channel, sample, y, x, lag) -> (segment sample, channel lag, y, x)
                each = maps.unfold(2, left, 1).permute(0, 2, 1, 5, 3, 4).flatten(0, 1)
                maps = self.units[name](each.flatten(1, 2)).unflatten(1, (-1, left))
        return maps[:, :, 0]


class _CoreReadoutNetwork(nn.Module):
    """From movie segments through the core and one recording's readout to rates."""

    def __init__(
        self,
        core: SeparableCore,
        readout: GaussianReadout | FactorisedReadout,
        rate: RatePerBin,
        *,
        windows: bool = False,
    ) -> None:
        super().__init__()
        self.core = core
        self.readout = readout
        self.rate = rate
        self.windows = windows

    def layers(self) -> dict[str, nn.Module]:
        """Give the layers that run, by name."""
        names = self.core.layer_names if self.windows else self.core.layer_names[-1:]
        return {name: self.core.units[name] for name in names}

    def forward(self, movie: Tensor) -> Tensor:
        """Give rates (segment * sample, cell)."""
        colored = movie[:, None] if movie.ndim == 4 else movie.transpose(1, 2)
        return self.rate(self.readout(self.core(colored, self.windows)))


def _places_of_averages(node: xr.Dataset, history: int, size: tuple[int, int]) -> Tensor:
    """Places (cell, (y, x)), from -1 to 1, of the units whose kernels see most of the average.

    The first layer is not padded: what a map of `size` lacks of the frame is the kernel's.
    """
    kernel = (node.sizes["y"] - size[0] + 1, node.sizes["x"] - size[1] + 1)
    average = spike_triggered_average(node, history=history).transpose("cell", "lag", ...)
    deviation = average - average.mean([dim for dim in average.dims if dim != "cell"])
    dims = [dim for dim in average.dims if dim not in ("cell", "y", "x")]
    energy = np.nan_to_num((deviation**2).sum(dims).transpose("cell", "y", "x").values)
    # A window that falls to its edges puts the peak in the middle of a receptive field.
    window = np.outer(*(np.hanning(side + 2)[1:-1] for side in kernel))
    seen = np.einsum("cyxij,ij->cyx", sliding_window_view(energy, kernel, (1, 2)), window)
    places = np.stack(np.unravel_index(seen.reshape(len(seen), -1).argmax(1), size), axis=1)
    scaled = 2 * places / np.maximum(np.array(size) - 1, 1) - 1
    scaled[seen.max((1, 2)) == 0] = 0
    return torch.from_numpy(scaled)


def fitting_kernels(size: int, n_layers: int) -> list[int]:
    """Give the published kernel sizes, or on a small frame odd ones of at most half of it."""
    largest = max(1, 2 * ((size // 2 + 1) // 2) - 1)
    return [min(kernel, largest) for kernel in [FIRST_KERNEL] + [LATER_KERNEL] * (n_layers - 1)]


def fitting_lags(history: int, n_layers: int) -> list[int]:
    """Frames of each layer's kernel: the first about twice the others, together the history."""
    later = round((history - 1) / (n_layers + 1))
    return [history - (n_layers - 1) * later] + [later + 1] * (n_layers - 1)


def _sizes(given: Sequence[int] | None, default: list[int], argument: str) -> list[int]:
    if given is None:
        return default
    if len(given) != len(default):
        raise ValueError(
            f"{argument}={tuple(given)}; expected one for each of the {len(default)} layers that "
            "channels names"
        )
    return [require_count(size, 1, argument) for size in given]
