"""Correlation of a movie with kernels over space and time, by the cheapest of several routes.

One operation, ``output[n t, c, y, x] = sum over l, k, i, j of movie[n, t + l, k, y + i, x + j] *
weight[c, l, k, i, j]``, and the two that its gradients need. It is linear in the movie and in the
weight, so that each of the three is differentiated by the other two. All work in stretches of
the movie that fit a memory budget, and keep nothing for the backward pass but their two inputs.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from retina_codec.models.convolution_direct import Direct, Frames, Windows
from retina_codec.models.convolution_fourier import OUTPUTS_IN_ROW, Fourier
from retina_codec.models.convolution_parts import Route, Sizes, sizes_of

# Bytes of intermediate results at a time. Larger stretches are no faster on a CPU: they leave its
# cache.
MEMORY_BUDGET = 64 * 2**20

# Multiplications and additions that take as long as moving one number, or as one in a large
# matrix product: in convolutions of few channels, and in many small products.
MOVE, CONVOLVE, SMALL = 60, 2, 3

ROUTES: dict[str, type[Route]] = {
    "frames": Frames,
    "windows": Windows,
    "direct": Direct,
    "fourier": Fourier,
}


def costs(sizes: Sizes) -> dict[str, float]:
    """Estimate the work of each route that can be taken, in operations of a matrix product."""
    s = sizes
    n_in, n_out = s.segments * s.frames * s.colors, s.segments * s.outputs
    pixels, places = s.height * s.width, s.out_height * s.out_width
    lags = s.history * s.colors
    terms = n_out * s.channels * lags
    if places == 1:
        n_frames = s.segments * s.frames
        return {
            "windows": 2 * terms * pixels + MOVE * n_out * lags * pixels,
            "frames": 2 * n_frames * s.channels * lags * pixels
            + MOVE * n_frames * s.channels * s.history,
        }
    direct = 2 * CONVOLVE * terms * s.kernel_height * s.kernel_width * places
    if s.history > 1:
        direct += MOVE * n_out * lags * pixels
    frequencies = s.height * (s.width // 2 + 1)

    def transform(planes: int, height: int, width: int) -> float:
        rows = 4 * (s.width // 2 + 1) * height * width
        columns = 8 * frequencies * height
        return planes * (rows + columns + MOVE * height * width)

    in_row = min(OUTPUTS_IN_ROW, s.outputs)
    row = (math.ceil((s.history - 1) / in_row) + 1) * in_row * s.colors
    moved = n_out * (row / in_row + 2 * s.channels) + in_row * s.channels * row
    fourier = (
        transform(n_in, s.height, s.width)
        + transform(s.channels * lags, s.kernel_height, s.kernel_width)
        + transform(n_out * s.channels, s.out_height, s.out_width)
        + frequencies * (8 * SMALL * n_out * s.channels * row + MOVE * moved)
    )
    return {"direct": direct, "fourier": fourier}


def cheapest(sizes: Sizes) -> str:
    """Name of the route with the least work."""
    estimated = costs(sizes)
    return min(estimated, key=lambda name: estimated[name])


def correlate_movie(
    movie: Tensor, weight: Tensor, *, route: str | None = None, budget: int | None = None
) -> Tensor:
    """Correlate a movie with kernels over space and time.

    Parameters
    ----------
    movie : torch.Tensor
        ``(segment, frame, color, y, x)``.
    weight : torch.Tensor
        ``(channel, history, color, ky, kx)``, in time order, the last frame lag 0.
    route : str, optional
        ``"fourier"`` or ``"direct"``; ``"frames"`` or ``"windows"`` where the kernels are as
        large as the frames. By default what `costs` finds cheapest.
    budget : int, optional
        Bytes of intermediate results at a time; by default `MEMORY_BUDGET`.

    Returns
    -------
    torch.Tensor
        ``(segment * (frame - history + 1), channel, y - ky + 1, x - kx + 1)``. The same numbers
        by every route, up to rounding.

    Raises
    ------
    ValueError
        If the movie does not fit the kernels, or the route does not exist for them.

    Examples
    --------
    >>> import torch
    >>> movie, weight = torch.randn(2, 12, 1, 9, 9), torch.randn(4, 5, 1, 3, 3)
    >>> tuple(correlate_movie(movie, weight).shape)
    (16, 4, 7, 7)
    """
    sizes = sizes_of(movie, weight)
    possible = costs(sizes)
    if route is None:
        route = cheapest(sizes)
    elif route not in possible:
        raise ValueError(f"route={route!r}; expected one of {', '.join(possible)}")
    plan = ROUTES[route](sizes, MEMORY_BUDGET if budget is None else budget)
    output: Tensor = _Correlate.apply(movie, weight, plan)
    return output


class _Correlate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, movie: Tensor, weight: Tensor, plan: Route) -> Tensor:
        ctx.save_for_backward(movie, weight)
        ctx.plan = plan
        return plan.correlate(movie, weight)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        movie, weight = ctx.saved_tensors
        to_movie = _ToMovie.apply(upstream, weight, ctx.plan) if ctx.needs_input_grad[0] else None
        to_weight = _ToWeight.apply(movie, upstream, ctx.plan) if ctx.needs_input_grad[1] else None
        return to_movie, to_weight, None


class _ToMovie(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, output: Tensor, weight: Tensor, plan: Route) -> Tensor:
        ctx.save_for_backward(output, weight)
        ctx.plan = plan
        return plan.to_movie(output, weight)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        output, weight = ctx.saved_tensors
        to_output = (
            _Correlate.apply(upstream, weight, ctx.plan) if ctx.needs_input_grad[0] else None
        )
        to_weight = _ToWeight.apply(upstream, output, ctx.plan) if ctx.needs_input_grad[1] else None
        return to_output, to_weight, None


class _ToWeight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, movie: Tensor, output: Tensor, plan: Route) -> Tensor:
        ctx.save_for_backward(movie, output)
        ctx.plan = plan
        return plan.to_weight(movie, output)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        movie, output = ctx.saved_tensors
        to_movie = _ToMovie.apply(output, upstream, ctx.plan) if ctx.needs_input_grad[0] else None
        to_output = _Correlate.apply(movie, upstream, ctx.plan) if ctx.needs_input_grad[1] else None
        return to_movie, to_output, None
