"""A CNN of the retina that is convolutional to the end: each cell reads one place of a map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from retina_codec.models.cnn_family import (
    ConvolutionPlan,
    FitsRecording,
    per_layer,
    plain_convolution,
    rate_layer,
    require_channels,
    take_weights,
)
from retina_codec.models.model import LayerGeometry
from retina_codec.models.normalization import MapNorm, map_norm
from retina_codec.models.saving import SavedModel
from retina_codec.models.stacked import collapsed_weights, stacked_convolution

PUBLISHED_KERNELS = (15, 11, 11)


class PlaceReadout(nn.Module):
    """Each cell's rate, read from its map at one place, or at a place that is being learned.

    Parameters
    ----------
    maps : sequence of int
        Number of the map that each cell reads.
    size : tuple of int
        Height and width of the maps.
    places : sequence of int, optional
        Place of each cell, ``y * width + x``. By default places are learned: a softmax of
        ``choice`` (cell, place) weighs all places of the map.
    """

    # Decay would draw every cell to all places alike.
    undecayed = ("choice",)

    def __init__(
        self, maps: Sequence[int], size: tuple[int, int], places: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        self.size = size
        self.map: Tensor
        self.register_buffer("map", torch.as_tensor(maps, dtype=torch.long))
        if places is None:
            # Nearly even, and different enough that the cells can part.
            self.choice = nn.Parameter(0.01 * torch.randn(len(maps), size[0] * size[1]))
        else:
            self.place: Tensor
            self.register_buffer("place", torch.as_tensor(places, dtype=torch.long))

    @property
    def fixed(self) -> bool:
        """Whether the places are fixed."""
        return not hasattr(self, "choice")

    def extra_repr(self) -> str:
        """Show the number of cells and the size of the maps."""
        return f"{len(self.map)} cells, maps of {self.size}, fixed={self.fixed}"

    def forward(self, maps: Tensor) -> Tensor:
        """Turn maps (sample, map, y, x) into rates (sample, cell)."""
        places = maps.flatten(2)
        if self.fixed:
            return places[:, self.map, self.place]
        return torch.einsum("ncp,cp->nc", places[:, self.map], self.choice.softmax(1))


class Retinotopic(SavedModel, FitsRecording):
    """A CNN that is convolutional to the end, with a readout place for each cell.

    Two convolutional layers as in `StackedBNCNN`; a third convolution gives one map for each cell
    or cell type, batch norm by map, softplus: the rates that such a cell would have at every place
    of the retina. Each cell reads one place of its map. Places are given, or learned (a weight for
    each place, which sum to 1) and then fixed with `fix_places`. Contributions are taken at
    ``relu1`` and ``relu2`` by default; ``rate`` holds the maps of rates.

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
        Channels of the convolutions before the maps.
    kernel_sizes : tuple of int, optional
        Side of the kernels in pixels, the one of the maps last; by default 15, 11 and 11 on
        50 x 50 pixels, and in proportion on smaller frames (1 on a full-field movie).
    types : sequence of str, optional
        Type of each cell; cells of a type share a map. By default every cell has its own.
    places : sequence of (float, float), optional
        (y, x) of each cell in pixels, the first pixel being 0: it reads the unit whose receptive
        field is centred nearest to it. By default places are learned.
    noise : float
        Standard deviation of the noise added before each ReLU while training.
    seed : int
        Of the initial weights.
    stacked : bool
        Build the kernels of the first layers from stacks of small ones.
    stages, stage_channels, norm, norm_momentum, rate_units
        As for `StackedBNCNN`.

    Raises
    ------
    ValueError
        If `types` or `places` are not one for each cell, or a place is not in the frame.

    References
    ----------
    The model type "RetinotopicModel" of github.com/baccuslab/torch-deep-retina, re-implemented;
    there the weights of the places are ``(w - min w) / sum(w - min w)``.

    Examples
    --------
    >>> from retina_codec.models.retinotopic import Retinotopic
    >>> model = Retinotopic(
    ...     (24, 24), history=8, bin_width=0.01, cells=["a", "b"], places=[(9, 12), (14.2, 10)]
    ... )
    >>> model.places()["y"].values
    array([ 9., 14.])
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
        types: Sequence[str] | None = None,
        places: Sequence[Sequence[float]] | None = None,
        noise: float = 0.05,
        seed: int = 0,
        stacked: bool = True,
        stages: int | Sequence[int] = 3,
        stage_channels: int | Sequence[int] | None = None,
        norm: str = "unit",
        norm_momentum: float = 0.01,
        rate_units: str = "per_bin",
    ) -> None:
        require_channels(channels)
        if types is not None and len(types) != len(cells):
            raise ValueError(
                f"types has {len(types)} entries; expected one for each of {len(cells)} cells"
            )
        kinds = [str(kind) for kind in (cells if types is None else types)]
        labels = list(dict.fromkeys(kinds))
        plan = ConvolutionPlan.of(
            input_shape, history, [*channels, len(labels)], kernel_sizes, PUBLISHED_KERNELS
        )
        n_hidden = len(channels)
        sides = per_layer(stages, n_hidden, "stages")
        between = per_layer(
            plan.channels[:-1] if stage_channels is None else stage_channels,
            n_hidden,
            "stage_channels",
        )
        last = f"{n_hidden + 1}"
        geometry = plan.geometry(("conv", "norm", "noise", "relu"))
        maps = geometry[f"conv{last}"]
        chosen = None if places is None else _units(places, plan, maps, input_shape, cells)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            make = stacked_convolution(sides, between) if stacked else plain_convolution
            modules = plan.hidden(make, map_norm(norm, True, norm_momentum), noise, n_hidden)
            modules[f"conv{last}"] = plain_convolution(plan, n_hidden)
            modules[f"norm{last}"] = MapNorm(
                plan.shape(n_hidden), per="channel", positive=True, momentum=norm_momentum
            )
            modules["rate"] = rate_layer(bin_width, rate_units)
            modules["readout"] = PlaceReadout(
                [labels.index(kind) for kind in kinds], plan.sizes[-1], chosen
            )
            network = nn.Sequential(modules)
        super().__init__(
            network.eval(),
            history=history,
            bin_width=bin_width,
            cells=cells,
            input_shape=tuple(input_shape),
            mean=mean,
            sd=sd,
            layers=modules,
            default_layers=[f"relu{i + 1}" for i in range(n_hidden)],
            geometry={**geometry, "rate": maps},
            channels=dict.fromkeys((f"conv{last}", f"norm{last}", "rate"), labels),
        )
        self._config: dict[str, Any] = {
            "channels": list(plan.channels[:-1]),
            "kernel_sizes": list(plan.kernel_sizes),
            "types": None if types is None else kinds,
            "places": None,
            "noise": noise,
            "stacked": stacked,
            "stages": list(sides),
            "stage_channels": list(between),
            "norm": norm,
            "norm_momentum": norm_momentum,
            "rate_units": rate_units,
        }
        if chosen is not None:
            self._config["places"] = self._centres(torch.tensor(chosen)).tolist()

    @property
    def readout(self) -> PlaceReadout:
        """The layer that reads each cell's place."""
        return self.network.get_submodule("readout")  # type: ignore[return-value]

    def _start(self, drive: Tensor) -> None:
        norm = self.network.get_submodule(f"norm{len(self._config['channels']) + 1}")
        maps = self.readout.map
        for i in range(len(norm.bias)):  # type: ignore[arg-type]
            norm.bias[i] = drive[(maps == i).cpu()].mean()  # type: ignore[operator]

    def _centres(self, places: Tensor) -> np.ndarray:
        """(cell, 2): y and x of the receptive-field centres of `places` (cell,), in pixels."""
        geometry = self.geometry["rate"]
        index = np.stack(np.unravel_index(places.cpu().numpy(), self.readout.size), axis=1)
        return np.array(geometry.offset) + geometry.stride * index

    def places(self) -> xr.Dataset:
        """Say where each cell reads its map.

        Returns
        -------
        xarray.Dataset
            Over ``cell``: ``y`` and ``x``, the receptive-field centre of the (strongest) place, in
            pixels; ``weight``, its share among all places of the map, 1 where places are fixed.
        """
        readout = self.readout
        if readout.fixed:
            place, weight = readout.place, torch.ones(len(self.outputs))
        else:
            weight, place = readout.choice.detach().softmax(1).max(1)
        y, x = self._centres(place).T
        return xr.Dataset(
            {
                "y": ("cell", y, {"units": "pixel"}),
                "x": ("cell", x, {"units": "pixel"}),
                "weight": ("cell", weight.double().cpu().numpy(), {"units": "1"}),
            },
            coords={"cell": self.outputs},
        )

    def fix_places(self) -> Retinotopic:
        """Return a copy in which each cell reads only its strongest place.

        Returns
        -------
        Retinotopic
            With weights of its own, on the same device; it can be trained further.
        """
        found = self.places()
        places = np.stack([found["y"].values, found["x"].values], axis=1).tolist()
        fixed = self._like(places=places)
        own = {k: v for k, v in fixed.network.state_dict().items() if k.startswith("readout.")}
        rest = {k: v for k, v in self.network.state_dict().items() if not k.startswith("readout.")}
        take_weights(fixed, {**rest, **own}, like=self.network)
        return fixed

    def collapse(self) -> Retinotopic:
        """Return the model with the same outputs and one convolution for each stack.

        Returns
        -------
        Retinotopic
            With weights of its own, on the same device.
        """
        plain = self._like(stacked=False)
        take_weights(plain, collapsed_weights(self.network), like=self.network)  # type: ignore[arg-type]
        return plain

    def _like(self, **changed: Any) -> Self:
        return type(self)(
            self.input_shape or (),
            history=self.history,
            bin_width=self.bin_width,
            cells=self.outputs.tolist(),
            mean=self.mean,
            sd=self.sd,
            **{**self._config, **changed},
        )


def _units(
    places: Sequence[Sequence[float]],
    plan: ConvolutionPlan,
    geometry: LayerGeometry,
    input_shape: tuple[int, ...],
    cells: Sequence[str],
) -> list[int]:
    """Find the number ``y * width + x`` of the unit nearest to each place."""
    found = np.asarray(places, dtype=np.float64)
    if found.shape != (len(cells), 2):
        raise ValueError(
            f"places has shape {found.shape}; expected (y, x) for each of {len(cells)} cells"
        )
    frame = np.array(input_shape[-2:])
    outside = ~((found >= 0) & (found <= frame - 1)).all(1)
    if outside.any():
        cell = int(np.flatnonzero(outside)[0])
        raise ValueError(
            f"places: cell {cells[cell]!r} is at (y, x) = {tuple(found[cell].tolist())}; expected "
            f"pixels of a frame of {tuple(frame.tolist())}"
        )
    index = np.rint((found - geometry.offset) / geometry.stride).astype(int)
    # Valid convolutions have no units at the edge of the frame: the nearest there are is taken.
    index = np.clip(index, 0, np.array(plan.sizes[-1]) - 1)
    return np.ravel_multi_index(tuple(index.T), plan.sizes[-1]).tolist()
