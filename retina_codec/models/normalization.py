"""Batch normalisation as the models of the retina use it: by map or by unit, sign kept or not."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from retina_codec._common.checks import require_choice
from retina_codec.models.cnn_family import NormMaker

NORMS = ("channel", "unit")
# Added to the variance in the published networks.
PUBLISHED_EPS = 1e-3


class MapNorm(nn.Module):
    """Batch norm with one scale a channel or one a unit, which may be kept positive.

    A negative scale would turn an ON unit into an OFF unit after its filter was read off; with
    ``positive`` the absolute value of ``weight`` is used (Maheswaranathan et al. 2023).

    Parameters
    ----------
    shape : tuple of int
        Of a sample: (channel, y, x), or (cell,).
    per : {"channel", "unit"}
        What has a mean, a variance, a scale and a shift of its own.
    positive : bool
        Use the absolute value of the scale.
    momentum : float
        Share of each batch in the running mean and variance.
    """

    def __init__(
        self, shape: tuple[int, ...], *, per: str, positive: bool, momentum: float
    ) -> None:
        super().__init__()
        self.shape = shape
        self.per = per
        self.positive = positive
        self.momentum = momentum
        self.eps = PUBLISHED_EPS
        n = shape[0] if per == "channel" else int(torch.Size(shape).numel())
        self.weight = nn.Parameter(torch.ones(n))
        self.bias = nn.Parameter(torch.zeros(n))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("running_mean", torch.zeros(n))
        self.register_buffer("running_var", torch.ones(n))

    def extra_repr(self) -> str:
        """Show what decides the output."""
        return (
            f"{self.shape}, per={self.per}, positive={self.positive}, eps={self.eps}, "
            f"momentum={self.momentum}"
        )

    def forward(self, values: Tensor) -> Tensor:
        """Normalise (sample, channel[, y, x])."""
        return functional.batch_norm(
            values.flatten(1) if self.per == "unit" else values,
            self.running_mean,
            self.running_var,
            self.weight.abs() if self.positive else self.weight,
            self.bias,
            self.training,
            self.momentum,
            self.eps,
        ).view_as(values)


def map_norm(per: str, positive: bool, momentum: float) -> NormMaker:
    """Make batch norms of this kind, given a shape (channel, y, x)."""
    require_choice(per, NORMS, "norm")
    return partial(MapNorm, per=per, positive=positive, momentum=momentum)
