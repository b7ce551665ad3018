"""Output nonlinearities of LN models: drive to rate, one function a cell, fitted to counts."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import curve_fit
from torch import Tensor, nn
from torch.nn import functional

N_BINS = 30  # of the histogram: few enough for small errors, many enough to follow the curve


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
        return (
            self.gain.clamp(min=0)
            * functional.softplus(self.slope * drive + self.offset)
            / self.bin_width
        )

    @torch.no_grad()
    def start_at(self, drive: Tensor) -> None:
        """Give ``softplus(drive)`` (cell,) spikes per bin where the filters give nothing."""
        self.offset.copy_(drive)

    @torch.no_grad()
    def fit(self, drive: np.ndarray, counts: np.ndarray) -> None:
        """Fit counts a bin (bin, cell) by least squares to drives of unit variance."""
        for i in range(counts.shape[1]):
            fitted, _ = curve_fit(
                _scaled_softplus,
                drive[:, i],
                counts[:, i],
                p0=(0.05, 0.9, -3.0),
                bounds=([0, -np.inf, -np.inf], np.inf),
                maxfev=20000,
            )
            parameters = (self.gain, self.slope, self.offset)
            for parameter, value in zip(parameters, fitted, strict=True):
                parameter[i] = float(value)


class Exponential(nn.Module):
    """``exp(drive + offset)`` spikes per bin, as a rate in Hz (Paninski 2004).

    The scale of the filter is the slope, so that the likelihood of counts is concave in all
    parameters.
    """

    def __init__(self, cells: int, bin_width: float) -> None:
        super().__init__()
        self.bin_width = bin_width
        self.offset = nn.Parameter(torch.zeros(cells))

    def forward(self, drive: Tensor) -> Tensor:
        """Turn drive into rates."""
        return torch.exp(drive + self.offset) / self.bin_width

    @torch.no_grad()
    def start_at(self, drive: Tensor) -> None:
        """Give ``softplus(drive)`` (cell,) spikes per bin where the filters give nothing."""
        self.offset.copy_(functional.softplus(drive).log())


class HistogramNonlinearity(nn.Module):
    """Mean count at equally many drives each, linear in between (Chichilnisky 2001).

    Beyond the first and the last centre the rate stays what it is there.
    """

    undecayed = ("counts",)

    def __init__(self, cells: int, bin_width: float) -> None:
        super().__init__()
        self.bin_width = bin_width
        self.centres: Tensor
        self.register_buffer("centres", torch.linspace(-2, 2, N_BINS).repeat(cells, 1))
        self.counts = nn.Parameter(torch.linspace(0, 1, N_BINS).repeat(cells, 1))

    def forward(self, drive: Tensor) -> Tensor:
        """Turn drive (sample, cell) into rates."""
        of_cell = drive.T.contiguous()
        right = torch.searchsorted(self.centres, of_cell).clamp(1, N_BINS - 1)
        left = right - 1
        low, high = self.centres.gather(1, left), self.centres.gather(1, right)
        share = ((of_cell - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
        counts = torch.lerp(self.counts.gather(1, left), self.counts.gather(1, right), share)
        return counts.T / self.bin_width

    @torch.no_grad()
    def fit(self, drive: np.ndarray, counts: np.ndarray) -> None:
        """Average counts a bin (bin, cell) over groups of bins with neighbouring drives."""
        for i in range(counts.shape[1]):
            groups = np.array_split(np.argsort(drive[:, i], kind="stable"), N_BINS)
            for k, group in enumerate(groups):
                self.centres[i, k] = float(drive[group, i].mean())
                self.counts[i, k] = float(counts[group, i].mean())


NONLINEARITIES: dict[
    str, type[ScaledSoftplus] | type[Exponential] | type[HistogramNonlinearity]
] = {
    "softplus": ScaledSoftplus,
    "exponential": Exponential,
    "histogram": HistogramNonlinearity,
}


def _scaled_softplus(drive: np.ndarray, gain: float, slope: float, offset: float) -> np.ndarray:
    return gain * np.logaddexp(0, slope * drive + offset)
