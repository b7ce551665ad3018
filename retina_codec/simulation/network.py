"""The circuit as a network: a module for each layer, with autograd all the way through."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from retina_codec.simulation.specification import BipolarType, CircuitSpecification, Input

NEGLIGIBLE = 1e-9  # of the largest weight
FILTERED_AT_ONCE = 16  # samples: few enough that little of a banded matrix is 0


@dataclass(frozen=True)
class Field:
    """The field of a movie: pixels and bins in physical units, and the lattice of interneurons.

    Parameters
    ----------
    shape : tuple of int
        Height and width in pixels.
    pixel_size : float
        Side of a pixel in um.
    bin_width : float
        Duration of a frame in seconds.
    """

    shape: tuple[int, int]
    pixel_size: float
    bin_width: float

    @property
    def size(self) -> tuple[float, float]:
        """Height and width in um."""
        return self.shape[0] * self.pixel_size, self.shape[1] * self.pixel_size

    def pixels(self, axis: int) -> np.ndarray:
        """Places of the pixels along an axis, um from the middle."""
        return _centred(self.shape[axis], self.pixel_size)

    def lattice(self, circuit: CircuitSpecification, axis: int) -> np.ndarray:
        """Places of the interneurons along an axis, um from the middle."""
        inside = self.size[axis] - 2 * circuit.margin
        # A little more, lest rounding loses the last one.
        return _centred(int(inside / circuit.spacing + 1e-6), circuit.spacing)

    def history(self, circuit: CircuitSpecification) -> int:
        """Frames that a response depends on, the current one included."""
        return max(1, round(circuit.memory / (1000 * self.bin_width)))


class BipolarLayer(nn.Module):
    """Bipolar cells of all types at every place of the lattice.

    Takes segments ``(segment, frame, y, x)`` and gives rectified outputs ``(segment * (frame -
    history + 1), type, y, x)``, segment by segment in time order. Beyond the edge of the movie
    everything is grey.
    """

    def __init__(self, circuit: CircuitSpecification, field: Field) -> None:
        super().__init__()
        types = list(circuit.bipolar.values())
        # A difference of Gaussians is taken from blurred frames, which the types share.
        sds = sorted({sd for kind in types for sd in (kind.centre_sd, kind.surround_sd)})
        blurs = [
            np.stack(
                [
                    _blur(
                        field.lattice(circuit, axis),
                        field.pixels(axis),
                        sd,
                        circuit.bipolar_reach,
                        field.pixel_size,
                    )
                    for sd in sds
                ]
            )
            for axis in (0, 1)
        ]
        # Types that see the same region share its filter and differ in their kernels over time.
        regions = list(dict.fromkeys(_region(kind) for kind in types))
        mix = np.zeros((len(regions), len(sds)))
        for i, (centre_sd, surround_sd, surround_weight) in enumerate(regions):
            mix[i, sds.index(centre_sd)] += 1.0
            mix[i, sds.index(surround_sd)] -= surround_weight
        time = np.stack(
            [
                # Kernels go over lag, frames forwards in time: the last one is lag 0.
                kind.polarity * kind.scale * temporal_kernel(circuit, kind, field.bin_width)[::-1]
                for kind in types
            ]
        )
        self.members = [
            [i for i, kind in enumerate(types) if _region(kind) == region] for region in regions
        ]
        order = [i for members in self.members for i in members]
        self.order = [order.index(i) for i in range(len(types))]
        self.rows = _frozen(blurs[0])
        self.columns = _frozen(blurs[1])
        self.mix = _frozen(mix)
        self.time = _frozen(time)
        self.threshold = _frozen(np.array([kind.threshold for kind in types])[:, None, None])

    def drive(self, movie: Tensor) -> Tensor:
        """Drive before the rectification, in standard deviations on natural movies."""
        segments, frames = movie.shape[:2]
        (n_blurs, height), width = self.rows.shape[:2], self.columns.shape[1]
        across = movie.flatten(0, 1) @ self.columns.flatten(0, 1).mT
        across = across.unflatten(2, (n_blurs, width))
        # Blur by blur: a product with weights that are expanded is not copied.
        blurred = [
            torch.bmm(rows.expand(len(across), -1, -1), across[:, :, i])
            for i, rows in enumerate(self.rows)
        ]
        seen = self.mix @ torch.stack(blurred).flatten(1)
        seen = seen.unflatten(1, (segments, frames, height * width))
        found = []
        for region, members in zip(seen, self.members, strict=True):
            parts = [part for one in region for part in _filtered(one, self.time[members])]
            found.append(parts[0] if len(parts) == 1 else torch.cat(parts))
        drive = torch.cat(found, dim=1)
        if self.order != sorted(self.order):
            drive = drive[:, self.order]
        return drive.unflatten(2, (height, width))

    def release(self, drive: Tensor) -> Tensor:
        """Rectify the drive: what amacrine and ganglion cells receive."""
        return (drive - self.threshold).relu_()

    def forward(self, movie: Tensor) -> Tensor:
        """Rectified outputs of all bipolar cells."""
        return self.release(self.drive(movie))


class AmacrineLayer(nn.Module):
    """Amacrine cells of all types, one at each bipolar cell's place.

    Takes bipolar outputs ``(sample, type, y, x)`` and gives rectified outputs of the same
    lattice; beyond its edge there are no bipolar cells.
    """

    def __init__(self, circuit: CircuitSpecification, field: Field) -> None:
        super().__init__()
        bipolar = list(circuit.bipolar)
        types = list(circuit.amacrine.values())
        mix = np.zeros((len(types), len(bipolar)))
        for i, kind in enumerate(types):
            for source, strength in kind.inputs.items():
                mix[i, bipolar.index(source)] = strength
        pools = []
        for axis in (0, 1):
            places = field.lattice(circuit, axis)
            pools.append(
                np.stack(
                    [
                        _blur(places, places, kind.sd, circuit.amacrine_reach, circuit.spacing)
                        for kind in types
                    ]
                )
            )
        thresholds = np.array([kind.threshold for kind in types])
        self.mix = _frozen(mix)
        self.rows = _frozen(pools[0])
        self.columns = _frozen(pools[1])
        self.threshold = _frozen(thresholds[:, None, None])

    def drive(self, bipolar: Tensor) -> Tensor:
        """Drive before the rectification."""
        mixed = (self.mix @ bipolar.flatten(2)).unflatten(2, bipolar.shape[2:])
        return self.rows @ (mixed @ self.columns.mT)

    def release(self, drive: Tensor) -> Tensor:
        """Rectify the drive: what ganglion cells receive."""
        return (drive - self.threshold).relu_()

    def forward(self, bipolar: Tensor) -> Tensor:
        """Rectified outputs of all amacrine cells."""
        return self.release(self.drive(bipolar))


class GanglionInput(nn.Module):
    """All that ganglion cells receive: outputs of bipolar and of amacrine types, as channels.

    A cut of the circuit: here the direct way from bipolar cells stands apart from the one through
    amacrine cells.
    """

    def forward(self, bipolar: Tensor, amacrine: Tensor) -> Tensor:
        """Join both along the channels."""
        return torch.cat([bipolar, amacrine], dim=1)


class GanglionLayer(nn.Module):
    """Ganglion cells: pools of bipolar and amacrine outputs, and a softplus to Hz."""

    def __init__(self, circuit: CircuitSpecification, field: Field) -> None:
        super().__init__()
        cells = circuit.cells.values()
        names = [*circuit.bipolar, *circuit.amacrine]
        y, x = (field.lattice(circuit, axis) for axis in (0, 1))
        weights = np.zeros((len(cells), len(names), len(y), len(x)))
        for i, (kind, cell) in enumerate(cells):
            angle = np.deg2rad(cell.preferred_direction or 0.0)
            for source in circuit.ganglion[kind].inputs:
                centre = (
                    cell.y + source.ahead * np.sin(angle),
                    cell.x + source.ahead * np.cos(angle),
                )
                weights[i, names.index(source.source)] += source.weight * _pool(
                    y, x, centre, source
                )
        scales = np.array([cell.scale for _, cell in cells], dtype=np.float64)
        self.weight = _frozen(scales[:, None] * weights.reshape(len(cells), -1))
        self.offset = _frozen(np.array([cell.offset for _, cell in cells], dtype=np.float64))
        self.gain = circuit.output_gain

    def extra_repr(self) -> str:
        """Show the gain of the output."""
        return f"gain={self.gain}"

    def drive(self, received: Tensor) -> Tensor:
        """Drive of every cell, before the offset."""
        return functional.linear(received.flatten(1), self.weight)

    def forward(self, received: Tensor) -> Tensor:
        """Rates in Hz (sample, cell)."""
        return self.gain * functional.softplus(self.drive(received) + self.offset)


class CircuitNetwork(nn.Module):
    """The whole circuit: movie segments ``(segment, frame, y, x)`` in, rates in Hz out.

    Parameters
    ----------
    circuit : CircuitSpecification
        Its neurons.
    field : Field
        The movies that it is built for.

    Notes
    -----
    Output ``(segment * (frame - history + 1), cell)``, segment by segment in time order. The
    submodules ``bipolar`` and ``ganglion_input`` each cut the network: their outputs are all that
    the rest sees.
    """

    def __init__(self, circuit: CircuitSpecification, field: Field) -> None:
        super().__init__()
        self.bipolar = BipolarLayer(circuit, field)
        self.amacrine = AmacrineLayer(circuit, field)
        self.ganglion_input = GanglionInput()
        self.ganglion = GanglionLayer(circuit, field)

    def forward(self, movie: Tensor) -> Tensor:
        """Rates of all ganglion cells."""
        bipolar = self.bipolar(movie)
        return self.ganglion(self.ganglion_input(bipolar, self.amacrine(bipolar)))


def temporal_kernel(
    circuit: CircuitSpecification, kind: BipolarType, bin_width: float
) -> np.ndarray:
    """Kernel over lag (0 first) of a bipolar type, the photoreceptor included.

    Parameters
    ----------
    circuit : CircuitSpecification
        The circuit.
    kind : BipolarType
        A type of it.
    bin_width : float
        Duration of a frame in seconds.
    """
    n_lags = max(1, round(circuit.memory / (1000 * bin_width)))
    lag = 1000 * bin_width * np.arange(n_lags)  # ms
    kernel = _peaked(lag - kind.delay, kind.tau, kind.order)
    kernel -= kind.late_weight * _peaked(lag - kind.delay, kind.late_tau, kind.order)
    if circuit.photoreceptor is not None:
        early = _peaked(lag, circuit.photoreceptor.tau, circuit.photoreceptor.order)
        kernel = np.convolve(kernel, early)[:n_lags]
    return kernel


def _peaked(lag: np.ndarray, tau: float, order: float) -> np.ndarray:
    """Low-pass kernel with its peak at `tau`, of sum 1."""
    t = np.maximum(lag, 0) / tau
    shape = t**order * np.exp(-order * (t - 1))
    return shape / shape.sum()


def _region(kind: BipolarType) -> tuple[float, float, float]:
    return kind.centre_sd, kind.surround_sd, kind.surround_weight


def _centred(n: int, spacing: float) -> np.ndarray:
    return spacing * (np.arange(n) - (n - 1) / 2)


def _blur(
    places: np.ndarray, seen: np.ndarray, sd: float, reach: float, spacing: float
) -> np.ndarray:
    """Weights (place, seen) of a Gaussian cut at `reach`.

    They sum to 1 where all that is reached is there; `spacing` is that of `seen`.
    """

    def gaussian(distance: np.ndarray) -> np.ndarray:
        # A little more, lest rounding decides about what lies just at the edge.
        inside = np.abs(distance) <= reach + 1e-6
        return np.where(inside, np.exp(-0.5 * (distance / sd) ** 2), 0.0)

    distance = seen - places[:, None]
    # What a place would reach, were there no edge.
    n = int(np.ceil(reach / spacing)) + 1
    endless = (distance[:, :1] % spacing) + spacing * np.arange(-n - 1, n + 1)
    return gaussian(distance) / gaussian(endless).sum(axis=1, keepdims=True)


def _pool(y: np.ndarray, x: np.ndarray, centre: tuple[float, float], pool: Input) -> np.ndarray:
    """Weights (y, x) of sum 1 round `centre`, given from the middle of the lattice."""
    squared = (y[:, None] - centre[0]) ** 2 + (x - centre[1]) ** 2
    weights = np.exp(-0.5 * squared / pool.sd**2)
    if pool.inner_sd > 0:
        weights = weights * (1 - np.exp(-0.5 * squared / pool.inner_sd**2))
    return weights / weights.sum()


def _filtered(frames: Tensor, kernels: Tensor) -> list[Tensor]:
    """Kernels (kernel, frame) over frames (frame, place): parts of (sample, kernel, place).

    As products of a banded matrix with stretches of frames: one product for several samples keeps
    a processor busier than one for each.
    """
    n_kernels, history = kernels.shape
    n = len(frames) - history + 1
    at_once = min(FILTERED_AT_ONCE, n)
    banded = torch.cat([functional.pad(kernels, (i, at_once - 1 - i)) for i in range(at_once)])
    # Stretches are views that overlap by the history.
    stretches = frames.unfold(0, at_once + history - 1, at_once).mT
    found = [torch.bmm(banded.expand(len(stretches), -1, -1), stretches)]
    rest = n % at_once
    if rest:
        found.append(banded[: rest * n_kernels, : rest + history - 1] @ frames[n - rest :])
    return [part.reshape(-1, n_kernels, frames.shape[1]) for part in found]


def _frozen(values: np.ndarray) -> nn.Parameter:
    """Parameter that does not learn; tails far below single precision are 0.

    Products with them would be subnormal numbers, on which processors are many times slower.
    """
    values = np.where(np.abs(values) < NEGLIGIBLE * np.abs(values).max(), 0.0, values)
    return nn.Parameter(torch.as_tensor(values, dtype=torch.float32), requires_grad=False)
