"""Correlation of a movie without transforms: by frames, by windows, or by `conv2d`."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.grad import conv2d_input, conv2d_weight

from retina_codec.models.convolution_parts import Route, Sizes, Stretch

# What cuDNN may do is one setting for all threads, and a backward pass has threads of its own.
_SETTING = threading.RLock()


@contextmanager
def full_precision() -> Iterator[None]:
    """Let cuDNN convolve float32 in float32, for as long as this lasts.

    PyTorch lets it use TF32 by default, whose mantissa has 10 bits, but lets no matrix product:
    the routes would differ by 1e-3. It holds for what is called inside, and not for a backward
    pass that autograd runs later: only what is differentiated by itself, as the routes are, may
    use it.
    """
    # Setting the older name beside the newer one makes PyTorch refuse to read either.
    settings: Any = getattr(torch.backends.cudnn, "conv", None)
    name, full = ("allow_tf32", False) if settings is None else ("fp32_precision", "ieee")
    settings = torch.backends.cudnn if settings is None else settings
    with _SETTING:
        before = getattr(settings, name)
        if before == full:
            yield
            return
        setattr(settings, name, full)
        try:
            yield
        finally:
            setattr(settings, name, before)


class Frames(Route):
    """Kernels as large as the frames: one product of frames with all lags, summed along lags."""

    def _numbers(self) -> int:
        s = self.sizes
        return 2 * s.channels * s.history + s.colors * s.height * s.width

    def _flat(self, weight: Tensor) -> Tensor:
        """Weight as (history channel, color y x)."""
        return weight.transpose(0, 1).reshape(self.sizes.history * self.sizes.channels, -1)

    def correlate(self, movie: Tensor, weight: Tensor) -> Tensor:
        """Give the output."""
        s, flat = self.sizes, self._flat(weight)
        output = movie.new_empty(s.segments, s.outputs, s.channels)
        row = s.history * s.channels
        for part in self.stretches(self._numbers(), movie.element_size()):
            frames = movie[part.segments, part.frames].flatten(2)
            each = torch.matmul(frames, flat.T).contiguous()
            # The frame l after the first goes with the kernel of the l-th lag: a diagonal.
            n, total = each.shape[:2]
            diagonal = each.as_strided(
                (n, total - s.history + 1, s.history, s.channels),
                (total * row, row, row + s.channels, 1),
            )
            torch.sum(diagonal, 2, out=(out := torch.empty_like(diagonal[:, :, 0])))
            output[part.segments, part.outputs] = out
        return output.reshape(s.output)

    def _spread(self, output: Tensor, part: Stretch) -> Tensor:
        """Output as each frame of the stretch meets it: (segment, frame, history channel)."""
        s, past = self.sizes, self.sizes.history - 1
        padded = functional.pad(output[part.segments, part.outputs], (0, 0, past, past))
        lagged = padded.unfold(1, s.history, 1).transpose(2, 3)  # from the last lag to the first
        return lagged.flip(2).flatten(2)

    def to_movie(self, output: Tensor, weight: Tensor) -> Tensor:
        """Apply the adjoint to the movie."""
        s, flat = self.sizes, self._flat(weight)
        output = self.by_segment(output).flatten(2)
        movie = output.new_zeros(s.movie)
        for part in self.stretches(self._numbers(), output.element_size()):
            frames = torch.matmul(self._spread(output, part), flat)
            movie[part.segments, part.frames] += frames.view(*frames.shape[:2], *s.movie[2:])
        return movie

    def to_weight(self, movie: Tensor, output: Tensor) -> Tensor:
        """Apply the adjoint to the weight."""
        s = self.sizes
        output = self.by_segment(output).flatten(2)
        flat = movie.new_zeros(s.history * s.channels, s.colors * s.height * s.width)
        for part in self.stretches(self._numbers(), movie.element_size()):
            frames = movie[part.segments, part.frames].reshape(-1, flat.shape[1])
            flat.addmm_(self._spread(output, part).flatten(0, 1).T, frames)
        return flat.view(s.history, s.channels, *s.movie[2:]).transpose(0, 1).contiguous()


class Windows(Route):
    """Kernels as large as the frames: one product with stacked windows of frames."""

    def _numbers(self) -> int:
        return 2 * self.sizes.history * self.sizes.colors * self.sizes.height * self.sizes.width

    def _stacked(self, movie: Tensor, part: Stretch) -> Tensor:
        """Windows of a stretch: (sample, history color y x)."""
        windows = movie[part.segments, part.frames].unfold(1, self.sizes.history, 1)
        return windows.movedim(-1, 2).flatten(2).flatten(0, 1)

    def correlate(self, movie: Tensor, weight: Tensor) -> Tensor:
        """Give the output."""
        s, flat = self.sizes, weight.flatten(1)
        output = movie.new_empty(s.segments, s.outputs, s.channels)
        for part in self.stretches(self._numbers(), movie.element_size()):
            here = output[part.segments, part.outputs]
            here.copy_((self._stacked(movie, part) @ flat.T).view_as(here))
        return output.reshape(s.output)

    def to_movie(self, output: Tensor, weight: Tensor) -> Tensor:
        """Apply the adjoint to the movie."""
        s, flat = self.sizes, weight.flatten(1)
        output = self.by_segment(output).flatten(2)
        movie = output.new_zeros(s.movie)
        for part in self.stretches(self._numbers(), output.element_size()):
            windows = torch.matmul(output[part.segments, part.outputs], flat)
            _add_windows(movie, windows, part, s)
        return movie

    def to_weight(self, movie: Tensor, output: Tensor) -> Tensor:
        """Apply the adjoint to the weight."""
        output = self.by_segment(output).flatten(2)
        flat = movie.new_zeros(self.sizes.channels, math.prod(self.sizes.weight[1:]))
        for part in self.stretches(self._numbers(), movie.element_size()):
            here = output[part.segments, part.outputs].flatten(0, 1)
            flat.addmm_(here.T, self._stacked(movie, part))
        return flat.view(self.sizes.weight)


def _add_windows(movie: Tensor, windows: Tensor, part: Stretch, sizes: Sizes) -> None:
    """Add windows of a stretch to the frames that they are made of."""
    n, length = windows.shape[:2]
    windows = windows.view(n, length, sizes.history, *sizes.movie[2:])
    start = part.frames.start
    for lag in range(sizes.history):
        movie[part.segments, start + lag : start + lag + length] += windows[:, :, lag]


class Direct(Windows):
    """`conv2d` on stacked windows."""

    def _numbers(self) -> int:
        s = self.sizes
        return super()._numbers() + 2 * s.channels * s.out_height * s.out_width

    def _planes(self, movie: Tensor, part: Stretch) -> Tensor:
        """Windows of a stretch: (sample, history color, y, x)."""
        s = self.sizes
        return self._stacked(movie, part).view(-1, s.history * s.colors, s.height, s.width)

    def correlate(self, movie: Tensor, weight: Tensor) -> Tensor:
        """Give the output."""
        s, flat = self.sizes, weight.flatten(1, 2)
        output = movie.new_empty(s.segments, s.outputs, *s.output[1:])
        for part in self.stretches(self._numbers(), movie.element_size()):
            here = output[part.segments, part.outputs]
            planes = self._planes(movie, part)
            with full_precision():
                maps = functional.conv2d(planes, flat)
            here.copy_(maps.view_as(here))
        return output.view(s.output)

    def to_movie(self, output: Tensor, weight: Tensor) -> Tensor:
        """Apply the adjoint to the movie."""
        s, flat = self.sizes, weight.flatten(1, 2)
        output = self.by_segment(output)
        movie = output.new_zeros(s.movie)
        for part in self.stretches(self._numbers(), output.element_size()):
            here = output[part.segments, part.outputs]
            n, length = here.shape[:2]
            shape = (n * length, s.history * s.colors, s.height, s.width)
            with full_precision():
                windows = conv2d_input(shape, flat, here.flatten(0, 1))
            _add_windows(movie, windows.view(n, length, -1), part, s)
        return movie

    def to_weight(self, movie: Tensor, output: Tensor) -> Tensor:
        """Apply the adjoint to the weight."""
        s = self.sizes
        output = self.by_segment(output)
        shape = (s.channels, s.history * s.colors, s.kernel_height, s.kernel_width)
        flat = movie.new_zeros(shape)
        for part in self.stretches(self._numbers(), movie.element_size()):
            here = output[part.segments, part.outputs].flatten(0, 1)
            with full_precision():
                flat += conv2d_weight(self._planes(movie, part), shape, here)
        return flat.view(s.weight)
