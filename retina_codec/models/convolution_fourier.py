"""Correlation of a movie in the Fourier domain of space."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from retina_codec.models.convolution_parts import Route, Stretch

# Outputs that share a row of lagged frames.
OUTPUTS_IN_ROW = 4


@dataclass(frozen=True)
class _Transform:
    """Discrete Fourier transform of planes that fill a corner of a frame, as matrix products.

    For the small planes of the retina these are faster than an FFT, compute only the part that is
    kept, and give the planes last, as the products at each frequency want them. Real and
    imaginary parts are apart: no product has to take them out of one another.
    """

    along_x: Tensor  # (part fx, x)
    along_y: Tensor  # (part fy, y part)
    shape: tuple[int, int]

    def forward(self, planes: Tensor) -> Tensor:
        """Transform planes (plane, y, x) to (part, fy fx, plane)."""
        rows = torch.matmul(self.along_x, planes.permute(1, 2, 0))  # (y, part fx, plane)
        spectrum = self.along_y @ rows.view(self.along_y.shape[1], -1)
        return spectrum.view(2, -1, planes.shape[0])

    def transposed(self, spectrum: Tensor) -> Tensor:
        """Apply the transpose of `forward`: (part, fy fx, plane) to (plane, y, x)."""
        planes = spectrum.shape[-1]
        columns = self.along_y.T @ spectrum.reshape(self.along_y.shape[0], -1)
        columns = columns.view(self.shape[0], -1, planes)  # (y, part fx, plane)
        return torch.matmul(columns.transpose(1, 2), self.along_x).transpose(0, 1)


@lru_cache(maxsize=64)
def _transform(
    frame: tuple[int, int],
    kept: tuple[int, int],
    inverse: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> _Transform:
    """Transform of planes of the size `kept` in frames; or what is transposed to its inverse."""
    height, width = frame
    n_x = width // 2 + 1
    # Products of whole numbers modulo the size: angles stay exact however large these are.
    x = torch.outer(torch.arange(n_x), torch.arange(kept[1])).remainder(width)
    y = torch.outer(torch.arange(height), torch.arange(kept[0])).remainder(height)
    x, y = (2 * math.pi / width * x.double(), 2 * math.pi / height * y.double())
    along_x = torch.stack([x.cos(), -x.sin()])
    if inverse:
        # A real plane has each frequency twice, but for the first and, if even, the last.
        twice = torch.full((n_x, 1), 2.0, dtype=torch.double)
        twice[0] = 1
        if width % 2 == 0:
            twice[-1] = 1
        along_x = along_x * twice / (height * width)
    real = torch.stack([y.cos(), y.sin()], -1)
    imaginary = torch.stack([-y.sin(), y.cos()], -1)
    along_y = torch.stack([real, imaginary]).reshape(2 * height, 2 * kept[0])
    return _Transform(
        along_x.reshape(2 * n_x, kept[1]).to(device, dtype), along_y.to(device, dtype), kept
    )


class Fourier(Route):
    """Frames transformed once, used for all lags and channels: a product at each frequency.

    Successive outputs share most of their frames. A row holds all frames that a few outputs
    need; the weights are repeated, one frame further for each of these outputs. So the rows take
    a fraction of the memory of a window for each output, and the products are larger.
    """

    @property
    def _in_row(self) -> int:
        return min(OUTPUTS_IN_ROW, self.sizes.outputs)

    @property
    def _frames_in_row(self) -> int:
        return (math.ceil((self.sizes.history - 1) / self._in_row) + 1) * self._in_row

    def _parts(self, itemsize: int) -> Iterator[Stretch]:
        s = self.sizes
        frequencies = s.height * (s.width // 2 + 1)
        row = self._frames_in_row * s.colors / self._in_row
        planes = s.channels * s.out_height * (s.width + 2 + 2 * s.out_width)
        numbers = 2 * frequencies * (row + s.channels + s.colors) + planes
        return self.stretches(numbers, itemsize, self._in_row)

    def _transforms(self, like: Tensor) -> tuple[_Transform, _Transform, _Transform]:
        """Give the transforms of frames, kernels and outputs."""
        s, frame = self.sizes, self.sizes.movie[3:]
        options = (like.dtype, like.device)
        return (
            _transform(frame, frame, False, *options),
            _transform(frame, s.weight[3:], False, *options),
            _transform(frame, s.output[2:], True, *options),
        )

    def _rows(self, movie: Tensor, transform: _Transform) -> Tensor:
        """Rows of lagged frames at each frequency: (part, frequency, row, frame color)."""
        colors, per_row = self.sizes.colors, self._in_row
        segments, frames = movie.shape[:2]
        n_rows = math.ceil((frames - self.sizes.history + 1) / per_row)
        filled = (n_rows - 1) * per_row + self._frames_in_row
        if filled != frames:
            movie = functional.pad(movie, (0, 0) * 3 + (0, filled - frames))
        spectrum = transform.forward(movie.reshape(-1, *movie.shape[3:]))
        n_frequencies = spectrum.shape[1]
        row = self._frames_in_row * colors
        if self._frames_in_row == per_row:
            return spectrum.view(2, n_frequencies, segments * n_rows, row)
        steps = (filled * colors, per_row * colors, 1)
        windows = spectrum.as_strided(
            (2, n_frequencies, segments, n_rows, row), (*spectrum.stride()[:2], *steps)
        )
        # A copy: overlapping rows cannot enter a matrix product.
        copied = windows.clone(memory_format=torch.contiguous_format)
        return copied.view(2, n_frequencies, segments * n_rows, row)

    def _add_rows(self, rows: Tensor, segments: int, frames: int) -> Tensor:
        """Apply the transpose of `_rows`, but for the transform: (part, frequency, plane)."""
        per_row = self._in_row * self.sizes.colors
        rows = rows.view(
            *rows.shape[:2], segments, -1, self._frames_in_row // self._in_row, per_row
        )
        n_rows, n_steps = rows.shape[3:5]
        if n_steps == 1:
            total = rows
        else:
            total = rows.new_zeros(*rows.shape[:3], n_rows + n_steps - 1, per_row)
            for step in range(n_steps):
                total[:, :, :, step : step + n_rows] += rows[:, :, :, :, step]
        total = total.view(*rows.shape[:3], -1, self.sizes.colors)[:, :, :, :frames]
        return total.flatten(2)

    def _repeated(self, weight: Tensor, transform: _Transform) -> Tensor:
        """Weights at each frequency: (part, frequency, output channel, frame color)."""
        s = self.sizes
        spectrum = transform.forward(weight.reshape(-1, *s.weight[3:]))
        spectrum = spectrum.view(2, -1, *s.weight[:3])
        shape = (self._in_row, s.channels, self._frames_in_row, s.colors)
        repeated = spectrum.new_zeros(*spectrum.shape[:2], *shape)
        for i in range(self._in_row):
            repeated[:, :, i, :, i : i + s.history] = spectrum
        return repeated.flatten(4).flatten(2, 3)

    def _spectrum(self, output: Tensor, transform: _Transform) -> Tensor:
        """Transpose of the transform to outputs: (part, frequency, row, output channel)."""
        segments, length, channels = output.shape[:3]
        n_rows = math.ceil(length / self._in_row)
        missing = n_rows * self._in_row - length
        if missing:
            output = functional.pad(output, (0, 0) * 3 + (0, missing))
        spectrum = transform.forward(output.reshape(-1, *output.shape[3:]))
        return spectrum.view(*spectrum.shape[:2], segments * n_rows, self._in_row * channels)

    def correlate(self, movie: Tensor, weight: Tensor) -> Tensor:
        """Give the output."""
        s = self.sizes
        of_frames, of_kernels, of_outputs = self._transforms(movie)
        kernels = self._repeated(weight, of_kernels).transpose(2, 3)
        result = movie.new_empty(s.segments, s.outputs, *s.output[1:])
        for part in self._parts(movie.element_size()):
            here = result[part.segments, part.outputs]
            rows = self._rows(movie[part.segments, part.frames], of_frames)
            # The conjugate of the kernels' transform: a correlation.
            products = rows.new_empty(2, *rows.shape[1:3], kernels.shape[-1])
            torch.bmm(rows[0], kernels[0], out=products[0]).baddbmm_(rows[1], kernels[1])
            torch.bmm(rows[1], kernels[0], out=products[1]).baddbmm_(rows[0], kernels[1], alpha=-1)
            planes = of_outputs.transposed(products.flatten(2))
            planes = planes.unflatten(0, (len(here), -1, s.channels))
            here.copy_(planes[:, : here.shape[1]])
        return result.view(s.output)

    def to_movie(self, output: Tensor, weight: Tensor) -> Tensor:
        """Apply the adjoint to the movie."""
        s = self.sizes
        of_frames, of_kernels, of_outputs = self._transforms(output)
        kernels = self._repeated(weight, of_kernels)
        output = self.by_segment(output)
        # Without a history no two stretches give to the same frame.
        alone = s.history == 1
        movie = output.new_empty(s.movie) if alone else output.new_zeros(s.movie)
        for part in self._parts(output.element_size()):
            here = movie[part.segments, part.frames]
            given = self._spectrum(output[part.segments, part.outputs], of_outputs)
            rows = given.new_empty(2, *given.shape[1:3], kernels.shape[-1])
            torch.bmm(given[0], kernels[0], out=rows[0]).baddbmm_(given[1], kernels[1], alpha=-1)
            torch.bmm(given[0], kernels[1], out=rows[1]).baddbmm_(given[1], kernels[0])
            spectrum = self._add_rows(rows, *here.shape[:2])
            planes = of_frames.transposed(spectrum).reshape(here.shape)
            here.copy_(planes) if alone else here.add_(planes)
        return movie

    def to_weight(self, movie: Tensor, output: Tensor) -> Tensor:
        """Apply the adjoint to the weight."""
        s = self.sizes
        of_frames, of_kernels, of_outputs = self._transforms(movie)
        output = self.by_segment(output)
        frequencies = s.height * (s.width // 2 + 1)
        row = self._frames_in_row * s.colors
        total = movie.new_zeros(2, frequencies, self._in_row * s.channels, row)
        for part in self._parts(movie.element_size()):
            rows = self._rows(movie[part.segments, part.frames], of_frames)
            given = self._spectrum(output[part.segments, part.outputs], of_outputs)
            given = given.transpose(2, 3)
            total[0].baddbmm_(given[0], rows[0]).baddbmm_(given[1], rows[1])
            total[1].baddbmm_(given[0], rows[1]).baddbmm_(given[1], rows[0], alpha=-1)
        total = total.view(2, frequencies, self._in_row, s.channels, -1, s.colors)
        kernels = total[:, :, 0, :, : s.history].clone()
        for i in range(1, self._in_row):
            kernels += total[:, :, i, :, i : i + s.history]
        return of_kernels.transposed(kernels.flatten(2)).reshape(s.weight)
