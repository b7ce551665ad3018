"""Building blocks of retina networks."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from retina_codec.models.convolution import cheapest, correlate_movie
from retina_codec.models.convolution_parts import sizes_of


class MovieConvolution(nn.Module):
    """A convolution over space and the last `history` frames of a movie.

    The first layer of a CNN of the retina sees windows of 40 frames or so, which overlap in all
    but one frame. Here no windows are stacked: every frame is transformed once, used for all lags
    and channels, and the sum over lags is a matrix product at each spatial frequency. Where that
    is not the cheapest route (small kernels; kernels as large as the frame) another one is taken.
    The numbers are those of ``conv2d`` on stacked windows.

    Parameters
    ----------
    history : int
        Frames that an output depends on; the last one is the current frame.
    channels : int
        Number of output channels.
    kernel_size : tuple of int
        Height and width of the kernel, in pixels.
    colors : int
        Number of colour planes.
    bias : bool
        Add a learned bias to each channel.

    Notes
    -----
    Input ``(segment, frame, [color,] y, x)``, output ``(segment * (frame - history + 1), channel,
    y - ky + 1, x - kx + 1)``. ``weight`` is ``(channel, history, color, ky, kx)`` in time order,
    the last frame lag 0.
    """

    def __init__(
        self,
        history: int,
        channels: int,
        kernel_size: tuple[int, int],
        *,
        colors: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.history = history
        self.kernel_size = kernel_size
        self.weight = nn.Parameter(torch.empty(channels, history, colors, *kernel_size))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None
        bound = 1 / math.sqrt(self.weight[0].numel())
        nn.init.uniform_(self.weight, -bound, bound)

    def extra_repr(self) -> str:
        """Show the size of the kernel."""
        return f"{tuple(self.weight.shape)}, bias={self.bias is not None}"

    def forward(self, movie: Tensor) -> Tensor:
        """Convolve a movie."""
        if movie.ndim == 4:
            movie = movie[:, :, None]
        output = correlate_movie(movie, self.weight)
        return output if self.bias is None else output + self.bias[:, None, None]


class SpatialConvolution(nn.Conv2d):
    """A `torch.nn.Conv2d` (stride 1, no padding) that takes the Fourier route where it is cheaper.

    For the large kernels and few channels of the retina's second layer. Parameters, weights and
    numbers are those of ``Conv2d``.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int]
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size)

    def _get_name(self) -> str:
        # Saved models know their architecture by this text.
        return "Conv2d"

    def forward(self, input: Tensor) -> Tensor:
        """Convolve planes (sample, channel, y, x)."""
        movie, weight = input[:, None], self.weight[:, None]
        # On CUDA, what `Conv2d` does may be in TF32, and its backward pass too.
        if not input.is_cuda and cheapest(sizes_of(movie, weight)) != "fourier":
            return super().forward(input)
        output = correlate_movie(movie, weight)
        return output if self.bias is None else output + self.bias[:, None, None]


class GaussianNoise(nn.Module):
    """Add Gaussian noise of standard deviation `sd` while training; nothing otherwise."""

    def __init__(self, sd: float) -> None:
        super().__init__()
        self.sd = sd

    def extra_repr(self) -> str:
        """Show the standard deviation."""
        return f"sd={self.sd}"

    def forward(self, values: Tensor) -> Tensor:
        """Add the noise."""
        if not self.training or self.sd == 0:
            return values
        return values + self.sd * torch.randn_like(values)


class RatePerBin(nn.Module):
    """Softplus to spikes per bin, divided by the bin width: a rate in Hz."""

    def __init__(self, bin_width: float) -> None:
        super().__init__()
        self.bin_width = bin_width

    def extra_repr(self) -> str:
        """Show the bin width."""
        return f"bin_width={self.bin_width}"

    def forward(self, drive: Tensor) -> Tensor:
        """Turn drive into rates."""
        return functional.softplus(drive) / self.bin_width
