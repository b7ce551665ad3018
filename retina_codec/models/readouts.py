"""Readouts of a shared core: where in the feature maps each cell looks, and what it takes there."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class GaussianReadout(nn.Module):
    """Each cell reads all channels at one place, and weighs them (Lurz et al. 2021).

    While training, the place is drawn for every sample from a Gaussian with the cell's mean and
    standard deviation, so that a cell far from its receptive field finds its way; afterwards it is
    the mean. Between units the features are interpolated bilinearly; outside the map they are
    those of its edge.

    Parameters
    ----------
    channels : int
        Of the feature maps.
    size : tuple of int
        Height and width of the feature maps.
    cells : int
        Number of cells.
    initial_sd : float
        Of the places, before training, as a share of half the map.

    Notes
    -----
    Input ``(sample, channel, y, x)``, output drives ``(sample, cell)``. ``position`` is (cell, (y,
    x)): -1 is the first unit, 1 the last. ``log_sd`` is (cell,), of the same scale.
    """

    # Decay would draw every cell to the middle.
    undecayed = ("position", "log_sd")

    def __init__(
        self, channels: int, size: tuple[int, int], cells: int, *, initial_sd: float = 0.3
    ) -> None:
        super().__init__()
        self.size = size
        self.position = nn.Parameter(torch.empty(cells, 2).uniform_(-0.1, 0.1))
        self.log_sd = nn.Parameter(torch.full((cells,), math.log(initial_sd)))
        self.features = nn.Parameter(torch.randn(cells, channels) / math.sqrt(channels))
        self.bias = nn.Parameter(torch.zeros(cells))

    def extra_repr(self) -> str:
        """Show the sizes."""
        return f"{tuple(self.features.shape)}, size={tuple(self.size)}"

    def forward(self, maps: Tensor) -> Tensor:
        """Read the feature maps."""
        place = self.position.expand(len(maps), -1, -1)
        if self.training:
            place = place + self.log_sd.exp()[:, None] * torch.randn_like(place)
        # `grid_sample` takes (x, y).
        grid = place.clamp(-1, 1).flip(-1)[:, :, None]
        values = functional.grid_sample(
            maps, grid, mode="bilinear", padding_mode="border", align_corners=True
        )
        return torch.einsum("ncr,rc->nr", values[..., 0], self.features) + self.bias

    def penalty(self, cells: Sequence[int] | None = None) -> Tensor:
        """Sum of the absolute feature weights, over all cells or some."""
        return _of(cells, self.features).abs().sum()

    @torch.no_grad()
    def places(self) -> tuple[Tensor, Tensor]:
        """Mean (cell, (y, x)) and standard deviation (cell, (y, x)), counted in units."""
        half = (torch.tensor(self.size, dtype=torch.double) - 1) / 2
        mean = (self.position.clamp(-1, 1).double().cpu() + 1) * half
        return mean, self.log_sd.exp().double().cpu()[:, None] * half


class FactorisedReadout(nn.Module):
    """Each cell has a mask over places and weights of channels (Klindt et al. 2017).

    Masks are not negative: the sign is that of the channel's weight.

    Parameters
    ----------
    channels, size, cells
        As for `GaussianReadout`.

    Notes
    -----
    Input ``(sample, channel, y, x)``, output drives ``(sample, cell)``. ``mask`` is (cell, y, x),
    taken as its absolute value, ``features`` (cell, channel).
    """

    def __init__(self, channels: int, size: tuple[int, int], cells: int) -> None:
        super().__init__()
        self.size = size
        self.mask = nn.Parameter(torch.rand(cells, *size) * 2 / math.prod(size))
        self.features = nn.Parameter(torch.randn(cells, channels) / math.sqrt(channels))
        self.bias = nn.Parameter(torch.zeros(cells))

    def extra_repr(self) -> str:
        """Show the sizes."""
        return f"{tuple(self.features.shape)}, size={tuple(self.size)}"

    def forward(self, maps: Tensor) -> Tensor:
        """Read the feature maps."""
        pooled = maps.flatten(2) @ self.mask.abs().flatten(1).T  # (sample, channel, cell)
        return torch.einsum("ncr,rc->nr", pooled, self.features) + self.bias

    def penalty(self, cells: Sequence[int] | None = None) -> Tensor:
        """Sum over cells (or some) of the mask's sum times that of the absolute feature weights."""
        mask, features = _of(cells, self.mask), _of(cells, self.features)
        return (mask.abs().sum((1, 2)) * features.abs().sum(1)).sum()

    @torch.no_grad()
    def places(self) -> tuple[Tensor, Tensor]:
        """Mean (cell, (y, x)) and standard deviation (cell, (y, x)) of the masks, in units."""
        mask = self.mask.abs().double().cpu()
        mask = mask / mask.sum((1, 2), keepdim=True).clamp(min=1e-30)
        means, sds = [], []
        for axis, size in enumerate(self.size):
            share = mask.sum(2 - axis)
            unit = torch.arange(size, dtype=torch.double)
            mean = share @ unit
            means.append(mean)
            sds.append((share @ unit**2 - mean**2).clamp(min=0).sqrt())
        return torch.stack(means, 1), torch.stack(sds, 1)


def _of(cells: Sequence[int] | None, values: Tensor) -> Tensor:
    return values if cells is None else values[list(cells)]


READOUTS: dict[str, type[GaussianReadout] | type[FactorisedReadout]] = {
    "gaussian": GaussianReadout,
    "factorised": FactorisedReadout,
}
