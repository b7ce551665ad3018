"""Sizes of a correlation of a movie, and its cutting into stretches that fit a memory budget."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class Sizes(NamedTuple):
    """Sizes of a correlation: movie (segments, frames, colors, height, width) and the kernel."""

    segments: int
    frames: int
    colors: int
    height: int
    width: int
    channels: int
    history: int
    kernel_height: int
    kernel_width: int

    @property
    def outputs(self) -> int:
        """Frames of output in a segment."""
        return self.frames - self.history + 1

    @property
    def out_height(self) -> int:
        """Rows of output."""
        return self.height - self.kernel_height + 1

    @property
    def out_width(self) -> int:
        """Columns of output."""
        return self.width - self.kernel_width + 1

    @property
    def movie(self) -> tuple[int, ...]:
        """Shape of the movie."""
        return self[:5]

    @property
    def weight(self) -> tuple[int, ...]:
        """Shape of the weight."""
        return self.channels, self.history, self.colors, self.kernel_height, self.kernel_width

    @property
    def output(self) -> tuple[int, ...]:
        """Shape of the output."""
        samples = self.segments * self.outputs
        return samples, self.channels, self.out_height, self.out_width


def sizes_of(movie: Tensor, weight: Tensor) -> Sizes:
    """Sizes of the correlation of a movie with a weight.

    Raises
    ------
    ValueError
        If the movie is shorter than the history, smaller than the kernel, or has other colours.
    """
    channels, history, colors, kernel_height, kernel_width = weight.shape
    segments, frames, found, height, width = movie.shape
    if found != colors:
        raise ValueError(f"the movie has {found} colour planes; the kernels take {colors}")
    if frames < history:
        raise ValueError(
            f"a segment of {frames} frames is shorter than the history of {history} frames"
        )
    if height < kernel_height or width < kernel_width:
        raise ValueError(
            f"frames of {(height, width)} are smaller than the kernels, "
            f"{(kernel_height, kernel_width)}"
        )
    return Sizes(
        segments, frames, colors, height, width, channels, history, kernel_height, kernel_width
    )


class Stretch(NamedTuple):
    """Segments, and the outputs in each of them, that are computed at once."""

    segments: slice
    outputs: slice
    frames: slice


@dataclass(frozen=True)
class Route:
    """A correlation in stretches of at most `budget` bytes of intermediate results."""

    sizes: Sizes
    budget: int

    def stretches(self, numbers: float, itemsize: int, multiple: int = 1) -> Iterator[Stretch]:
        """Cut the outputs, each of which takes so many numbers, into equal stretches."""
        segments, outputs, past = self.sizes.segments, self.sizes.outputs, self.sizes.history - 1
        most = max(1, int(self.budget / (numbers * itemsize)))
        length = _equal_part(outputs, most, multiple)
        together = _equal_part(segments, max(1, most // length)) if length == outputs else 1
        for first in range(0, segments, together):
            for start in range(0, outputs, length):
                stop = min(start + length, outputs)
                chosen = slice(first, min(first + together, segments))
                yield Stretch(chosen, slice(start, stop), slice(start, stop + past))

    def correlate(self, movie: Tensor, weight: Tensor) -> Tensor:
        """Give the output."""
        raise NotImplementedError

    def to_movie(self, output: Tensor, weight: Tensor) -> Tensor:
        """Apply the adjoint to the movie: the gradient of ``(correlate * output).sum()``."""
        raise NotImplementedError

    def to_weight(self, movie: Tensor, output: Tensor) -> Tensor:
        """Apply the adjoint to the weight, likewise."""
        raise NotImplementedError

    def by_segment(self, output: Tensor) -> Tensor:
        """Output with segments and frames apart."""
        return output.reshape(self.sizes.segments, self.sizes.outputs, *output.shape[1:])


def _equal_part(n: int, most: int, multiple: int = 1) -> int:
    """Size of the parts when `n` is cut into equal ones of at most about `most`."""
    if n <= most:
        return n
    part = math.ceil(n / math.ceil(n / most))
    return min(n, math.ceil(part / multiple) * multiple)
