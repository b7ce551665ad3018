"""Building blocks of retina networks."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class MovieConvolution(nn.Module):
    """A convolution over space and the last `history` frames of a movie.

    The first layer of a CNN of the retina sees windows of 40 frames or so, which overlap in all
    but one frame. Here every frame is transformed once (``rfft2``), used for all lags and
    channels, and the sum over lags is one complex matrix product at each spatial frequency; the
    numbers are those of ``conv2d`` on stacked windows, at about a tenth of the cost. Kernels as
    large as the frame need no transform: they are a one-dimensional convolution over time.

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
        convolve = self._in_time if movie.shape[-2:] == self.kernel_size else self._in_fourier
        output = convolve(movie)
        return output if self.bias is None else output + self.bias[:, None, None]

    def _in_time(self, movie: Tensor) -> Tensor:
        segments, frames = movie.shape[:2]
        pixels = movie.reshape(segments, frames, -1).transpose(1, 2)
        weight = self.weight.flatten(2).transpose(1, 2)
        output = functional.conv1d(pixels, weight).transpose(1, 2)
        return output.reshape(-1, weight.shape[0], 1, 1)

    def _in_fourier(self, movie: Tensor) -> Tensor:
        segments, _, _, height, width = movie.shape
        frames = torch.fft.rfft2(movie)
        weight = torch.fft.rfft2(self.weight, s=(height, width)).conj()
        # (segment, time, color, fy, fx, lag) -> (fy fx, segment time, lag color)
        windows = frames.unfold(1, self.history, 1).permute(3, 4, 0, 1, 5, 2)
        n_y, n_x, _, n_times = windows.shape[:4]
        windows = windows.reshape(n_y * n_x, segments * n_times, -1)
        weight = weight.permute(3, 4, 1, 2, 0).reshape(n_y * n_x, -1, weight.shape[0])
        product = torch.bmm(windows, weight).reshape(n_y, n_x, segments * n_times, -1)
        # Wrap-around spoils only the rows and columns that a valid correlation does not have.
        output = torch.fft.irfft2(product.permute(2, 3, 0, 1), s=(height, width))
        ky, kx = self.kernel_size
        return output[..., : height - ky + 1, : width - kx + 1]


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
