"""The circuit as a network: a module for each layer, with autograd all the way through."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from retina_codec.simulation.specification import BipolarType, CircuitSpecification, Input


class BipolarLayer(nn.Module):
    """Bipolar cells of all types at every pixel that has a whole receptive field.

    Takes segments ``(segment, frame, y, x)`` and gives rectified outputs ``(segment * (frame -
    history + 1), type, y - size + 1, x - size + 1)``, segment by segment in time order.
    """

    def __init__(self, circuit: CircuitSpecification) -> None:
        super().__init__()
        types = list(circuit.bipolar.values())
        # Types that see the same region share its filter and differ in their kernels over time.
        regions = list(dict.fromkeys(_region(kind) for kind in types))
        space = np.stack([_difference_of_gaussians(circuit.bipolar_size, *r) for r in regions])
        time = np.zeros((len(types), len(regions), circuit.history))
        for i, kind in enumerate(types):
            kernel = temporal_kernel(kind, circuit.history, circuit.bin_width)
            # Kernels go over lag, frames forwards in time: the last one is lag 0.
            time[i, regions.index(_region(kind))] = kind.polarity * kind.scale * kernel[::-1]
        self.space = _frozen(space[:, None])
        self.time = _frozen(time)
        self.threshold = _frozen(np.array([kind.threshold for kind in types])[:, None, None])

    def drive(self, movie: Tensor) -> Tensor:
        """Drive before the rectification, in standard deviations on natural movies."""
        segments, frames, height, width = movie.shape
        seen = functional.conv2d(movie.reshape(-1, 1, height, width), self.space)
        n_regions, height, width = seen.shape[1:]
        series = seen.reshape(segments, frames, n_regions, -1).permute(0, 3, 2, 1)
        drive = functional.conv1d(series.reshape(-1, n_regions, frames), self.time)
        drive = drive.reshape(segments, height * width, *drive.shape[1:]).permute(0, 3, 2, 1)
        return drive.reshape(-1, drive.shape[2], height, width)

    def release(self, drive: Tensor) -> Tensor:
        """Rectify the drive: what amacrine and ganglion cells receive."""
        return functional.relu(drive - self.threshold)

    def forward(self, movie: Tensor) -> Tensor:
        """Rectified outputs of all bipolar cells."""
        return self.release(self.drive(movie))


class AmacrineLayer(nn.Module):
    """Amacrine cells of all types, one at each bipolar cell's place.

    Takes bipolar outputs ``(sample, type, y, x)`` and gives rectified outputs of the same place
    grid; beyond its edge there are no bipolar cells.
    """

    def __init__(self, circuit: CircuitSpecification) -> None:
        super().__init__()
        bipolar = list(circuit.bipolar)
        size = circuit.amacrine_size
        weight = np.zeros((len(circuit.amacrine), len(bipolar), size, size))
        for i, kind in enumerate(circuit.amacrine.values()):
            pool = np.outer(*2 * [_gaussian(size, kind.sd)])
            for source, strength in kind.inputs.items():
                weight[i, bipolar.index(source)] = strength * pool
        thresholds = np.array([kind.threshold for kind in circuit.amacrine.values()])
        self.weight = _frozen(weight)
        self.threshold = _frozen(thresholds[:, None, None])

    def drive(self, bipolar: Tensor) -> Tensor:
        """Drive before the rectification."""
        return functional.conv2d(bipolar, self.weight, padding=self.weight.shape[-1] // 2)

    def release(self, drive: Tensor) -> Tensor:
        """Rectify the drive: what ganglion cells receive."""
        return functional.relu(drive - self.threshold)

    def forward(self, bipolar: Tensor) -> Tensor:
        """Rectified outputs of all amacrine cells."""
        return self.release(self.drive(bipolar))


class GanglionLayer(nn.Module):
    """Ganglion cells: pools of bipolar and amacrine outputs, and a softplus to Hz."""

    def __init__(self, circuit: CircuitSpecification, shape: tuple[int, int]) -> None:
        super().__init__()
        cells = circuit.cells.values()
        weight: dict[str, list[np.ndarray]] = {}
        for layer, names in (
            ("bipolar", list(circuit.bipolar)),
            ("amacrine", list(circuit.amacrine)),
        ):
            weight[layer] = []
            for kind, cell in cells:
                pools = np.zeros((len(names), *shape))
                for source in circuit.ganglion[kind].inputs:
                    if source.source in names:
                        angle = np.deg2rad(cell.preferred_direction or 0.0)
                        centre = (
                            cell.y + source.ahead * np.sin(angle),
                            cell.x + source.ahead * np.cos(angle),
                        )
                        pools[names.index(source.source)] += source.weight * _pool(
                            shape, centre, source
                        )
                weight[layer].append(cell.scale * pools.ravel())
        self.bipolar_weight = _frozen(np.stack(weight["bipolar"]))
        self.amacrine_weight = _frozen(np.stack(weight["amacrine"]))
        self.offset = _frozen(np.array([cell.offset for _, cell in cells]))
        self.gain = circuit.output_gain

    def extra_repr(self) -> str:
        """Show the gain of the output."""
        return f"gain={self.gain}"

    def drive(self, bipolar: Tensor, amacrine: Tensor) -> Tensor:
        """Drive of every cell, before the offset."""
        return functional.linear(bipolar.flatten(1), self.bipolar_weight) + functional.linear(
            amacrine.flatten(1), self.amacrine_weight
        )

    def forward(self, bipolar: Tensor, amacrine: Tensor) -> Tensor:
        """Rates in Hz (sample, cell)."""
        return self.gain * functional.softplus(self.drive(bipolar, amacrine) + self.offset)


class CircuitNetwork(nn.Module):
    """The whole circuit: movie segments ``(segment, frame, y, x)`` in, rates in Hz out.

    Parameters
    ----------
    circuit : CircuitSpecification
        Its neurons.
    shape : tuple of int
        Height and width of the movie in pixels.

    Notes
    -----
    Output ``(segment * (frame - history + 1), cell)``, segment by segment in time order. The
    submodule ``bipolar`` cuts the network: its output is all that the rest sees.
    """

    def __init__(self, circuit: CircuitSpecification, shape: tuple[int, int]) -> None:
        super().__init__()
        margin = circuit.bipolar_size - 1
        self.bipolar = BipolarLayer(circuit)
        self.amacrine = AmacrineLayer(circuit)
        self.ganglion = GanglionLayer(circuit, (shape[0] - margin, shape[1] - margin))

    def forward(self, movie: Tensor) -> Tensor:
        """Rates of all ganglion cells."""
        bipolar = self.bipolar(movie)
        return self.ganglion(bipolar, self.amacrine(bipolar))


def temporal_kernel(kind: BipolarType, history: int, bin_width: float) -> np.ndarray:
    """Kernel over lag (0 first) of a bipolar type."""
    lag = np.arange(history) * bin_width - kind.delay

    def peaked(tau: float) -> np.ndarray:
        t = np.maximum(lag, 0) / tau
        shape = t**kind.order * np.exp(-kind.order * (t - 1))
        return shape / shape.sum()

    return peaked(kind.tau) - kind.late_weight * peaked(kind.late_tau)


def _region(kind: BipolarType) -> tuple[float, float, float]:
    return kind.centre_sd, kind.surround_sd, kind.surround_weight


def _gaussian(size: int, sd: float) -> np.ndarray:
    weights = np.exp(-0.5 * ((np.arange(size) - (size - 1) / 2) / sd) ** 2)
    return weights / weights.sum()


def _difference_of_gaussians(
    size: int, centre_sd: float, surround_sd: float, surround_weight: float
) -> np.ndarray:
    centre, surround = (np.outer(*2 * [_gaussian(size, sd)]) for sd in (centre_sd, surround_sd))
    return centre - surround_weight * surround


def _pool(shape: tuple[int, int], centre: tuple[float, float], pool: Input) -> np.ndarray:
    """Weights (y, x) of sum 1 round `centre`, given from the middle of the grid."""
    y, x = (np.arange(n) - (n - 1) / 2 - place for n, place in zip(shape, centre, strict=True))
    squared = y[:, None] ** 2 + x**2
    weights = np.exp(-0.5 * squared / pool.sd**2)
    if pool.inner_sd > 0:
        weights = weights * (1 - np.exp(-0.5 * squared / pool.inner_sd**2))
    return weights / weights.sum()


def _frozen(values: np.ndarray) -> nn.Parameter:
    return nn.Parameter(torch.as_tensor(values, dtype=torch.float32), requires_grad=False)
