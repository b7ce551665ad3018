"""Large kernels built from stacks of small convolutions without nonlinearity in between.

The small kernels are composed to one at every step, differentiably, and the input is convolved with
that one: the numbers are those of the stages in turn, and a step of training takes about half the
time or less (a first stage over the history alone costs as much as the whole kernel).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from retina_codec.models.convolution import correlate_movie
from retina_codec.models.layers import MovieConvolution, SpatialConvolution


def stage_kernels(kernel: tuple[int, int], stage: int) -> list[tuple[int, int]]:
    """Kernels of `stage` pixels, the last one smaller if need be, that compose to `kernel`."""

    def along(size: int) -> list[int]:
        if size == 1 or stage == 1:
            return [size]
        whole, rest = divmod(size - 1, stage - 1)
        return [stage] * whole + ([rest + 1] if rest else [])

    y, x = along(kernel[0]), along(kernel[1])
    n = max(len(y), len(x))
    return list(zip(y + [1] * (n - len(y)), x + [1] * (n - len(x)), strict=True))


def composed(kernels: Sequence[Tensor]) -> Tensor:
    """One kernel (out, in, y, x) that does what valid convolutions with `kernels` do in turn."""
    whole = kernels[0]
    for kernel in kernels[1:]:
        # Correlating twice is correlating once with the two kernels' full convolution.
        y, x = (size - 1 for size in kernel.shape[2:])
        padded = functional.pad(whole.transpose(0, 1), (x, x, y, y))
        flipped = kernel.flip(2, 3)
        whole = correlate_movie(padded[:, None], flipped[:, None]).transpose(0, 1)
    return whole


class LinearStack(nn.Module):
    """A convolution over space, as a stack of small ones.

    Parameters
    ----------
    in_channels, out_channels : int
        Of the stack as a whole.
    kernel_size : tuple of int
        Height and width of the kernel that the stack amounts to.
    stage : int
        Side of the small kernels.
    stage_channels : int
        Channels between them.

    Notes
    -----
    Input ``(sample, in, y, x)``, output ``(sample, out, y - ky + 1, x - kx + 1)``. Only the last
    small convolution has a bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        *,
        stage: int = 3,
        stage_channels: int | None = None,
    ) -> None:
        super().__init__()
        kernels = stage_kernels(kernel_size, stage)
        between = [stage_channels or out_channels] * (len(kernels) - 1)
        sizes = [in_channels, *between, out_channels]
        self.stages = nn.Sequential(
            *(
                nn.Conv2d(sizes[i], sizes[i + 1], kernel, bias=i == len(kernels) - 1)
                for i, kernel in enumerate(kernels)
            )
        )
        with torch.device("meta"):
            # Lends its forward pass; in a tuple, because its weights are not this module's.
            self._whole = (SpatialConvolution(in_channels, out_channels, kernel_size),)

    @property
    def weight(self) -> Tensor:
        """The kernel that the stack amounts to, ``(out, in, y, x)``."""
        return composed([stage.weight for stage in self.stages])  # type: ignore[misc]

    @property
    def bias(self) -> Tensor:
        """The bias of the last stage, ``(out,)``."""
        return self.stages[-1].bias  # type: ignore[return-value]

    def forward(self, maps: Tensor) -> Tensor:
        """Convolve maps with the composed kernel."""
        weights = {"weight": self.weight, "bias": self.bias}
        return functional_call(self._whole[0], weights, (maps,))


class MovieLinearStack(nn.Module):
    """A convolution over space and history, as a stack: the first stage takes all of the history.

    Parameters
    ----------
    history : int
        Frames that an output depends on; the last one is the current frame.
    channels : int
        Number of output channels.
    kernel_size : tuple of int
        Height and width of the kernel that the stack amounts to.
    colors : int
        Number of colour planes.
    stage : int
        Side of the small kernels.
    stage_channels : int
        Channels between them.

    Notes
    -----
    Input and output as for `MovieConvolution`. Only the last small convolution has a bias.
    """

    def __init__(
        self,
        history: int,
        channels: int,
        kernel_size: tuple[int, int],
        *,
        colors: int = 1,
        stage: int = 3,
        stage_channels: int | None = None,
    ) -> None:
        super().__init__()
        kernels = stage_kernels(kernel_size, stage)
        between = [stage_channels or channels] * (len(kernels) - 1)
        sizes = [*between, channels]
        self.kernel_size = kernel_size
        self.first = MovieConvolution(
            history, sizes[0], kernels[0], colors=colors, bias=len(kernels) == 1
        )
        self.rest = nn.Sequential(
            *(
                nn.Conv2d(sizes[i - 1], sizes[i], kernels[i], bias=i == len(kernels) - 1)
                for i in range(1, len(kernels))
            )
        )
        with torch.device("meta"):
            self._whole = (MovieConvolution(history, channels, kernel_size, colors=colors),)

    @property
    def weight(self) -> Tensor:
        """The kernel that the stack amounts to, ``(channel, history, color, y, x)``."""
        first = self.first.weight
        stages: list[Tensor] = [stage.weight for stage in self.rest]  # type: ignore[misc]
        whole = composed([first.flatten(1, 2), *stages])
        return whole.unflatten(1, first.shape[1:3])

    @property
    def bias(self) -> Tensor:
        """The bias of the last stage, ``(channel,)``."""
        last = self.rest[-1] if len(self.rest) else self.first
        return last.bias  # type: ignore[return-value]

    def forward(self, movie: Tensor) -> Tensor:
        """Convolve a movie with the composed kernel."""
        weights = {"weight": self.weight, "bias": self.bias}
        return functional_call(self._whole[0], weights, (movie,))
