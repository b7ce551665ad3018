"""Maximum likelihood of Poisson counts with a linear drive: convex, all cells side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.nn import functional

from retina_codec._common.checks import require_dims
from retina_codec._common.progress import progress_bar

# Pairs of steps and gradients that L-BFGS remembers.
MEMORY = 10
# Gradient of the mean loss, per standardised weight, below which a cell is at its maximum.
TOLERANCE = 1e-6
# Steps without a better validation after which a fit ends.
PATIENCE = 10


@dataclass(frozen=True)
class Curve:
    """Expected counts of a drive: convex and log-concave, so that the likelihood has one maximum.

    `loss` gives, bin by bin, the negative log-likelihood up to a constant and its first and second
    derivative along the drive; `expected` is the curve itself, `drive` its inverse.
    """

    loss: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
    expected: Callable[[np.ndarray], np.ndarray]
    drive: Callable[[np.ndarray], np.ndarray]


def _exponential_loss(drive: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    expected = drive.exp()
    return expected - counts * drive, expected - counts, expected


def _softplus_loss(drive: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # Below -500 double precision has no softplus; the curve is an exponential long before.
    drive = drive.clamp(min=-500)
    expected, slope = functional.softplus(drive, threshold=500), drive.sigmoid()
    ratio = slope / expected
    bend = slope * (1 - slope)
    return (
        expected - counts * expected.log(),
        slope - counts * ratio,
        bend - counts * (bend / expected - ratio**2),
    )


CURVES = {
    "exponential": Curve(_exponential_loss, np.exp, np.log),
    "softplus": Curve(
        _softplus_loss,
        lambda drive: np.logaddexp(0, drive),
        lambda mean: mean + np.log(-np.expm1(-mean)),
    ),
}


def require_single_trials(node: xr.Dataset, argument: str, cells: np.ndarray) -> None:
    """Raise ValueError unless `node` has counts (time, cell) of these cells, in this order."""
    require_dims(node["spike_count"], ("time", "cell"), f"{argument}: spike_count")
    given = [str(cell) for cell in node["cell"].values]
    if given != cells.tolist():
        raise ValueError(
            f"{argument} has the cells {given}; the model has {cells.tolist()}: select them with "
            ".sel(cell=...)"
        )


class Design(Protocol):
    """Counts (time, cell), and drives as a linear function of weights (cell, weight)."""

    counts: Tensor

    def forward(self, weights: Tensor) -> Tensor:
        """Drives (time, cell)."""
        ...

    def backward(self, residual: Tensor) -> Tensor:
        """Apply the transpose of `forward`."""
        ...


def maximise_likelihood(
    design: Design,
    start: Tensor,
    curve: Curve,
    *,
    penalty: Tensor,
    validation: Design | None,
    max_steps: int,
    progress: bool,
    label: str,
) -> Tensor:
    """Weights (cell, weight) at the maximum of the penalised likelihood.

    L-BFGS, each cell for itself and all in the same products, with an exact search along each
    direction: the drive is linear in the weights, so that a search needs no product at all.

    Parameters
    ----------
    design : Design
        What is fitted.
    start : torch.Tensor
        (cell, weight).
    curve : Curve
        From drive to expected counts.
    penalty : torch.Tensor
        (weight,): ``sum(penalty * weight**2) / 2`` is added to the mean loss of a bin.
    validation : Design, optional
        Each cell keeps the step that predicts it best; without it, the last one.
    max_steps : int
        Steps at most.
    progress : bool
        Show a progress bar.
    label : str
        Of the progress bar.
    """
    counts = design.counts.double()
    weights, drive = start, design.forward(start).double()
    best, best_loss, unseen = weights, drive.new_full((len(start),), torch.inf), drive
    since_best = 0
    if validation is not None:
        unseen_counts = validation.counts.double()
        unseen = validation.forward(start).double()
        best_loss = curve.loss(unseen, unseen_counts)[0].mean(0)
    memory: list[tuple[Tensor, Tensor, Tensor]] = []
    gradient = _gradient(design, weights, curve.loss(drive, counts)[1], penalty)
    for _ in progress_bar(range(max_steps), label, shown=progress):
        moving = gradient.abs().amax(1) > TOLERANCE
        direction = torch.where(moving[:, None], _direction(gradient, memory), 0.0)
        change = design.forward(direction).double()
        along = (penalty * weights * direction).sum(1).double()
        across = (penalty * direction**2).sum(1).double()
        step = _search(curve, drive, change, counts, along, across)
        moved = step.to(direction)[:, None] * direction
        if not moved.any():
            break
        weights = weights + moved
        drive = drive + step * change
        new = _gradient(design, weights, curve.loss(drive, counts)[1], penalty)
        turned = new - gradient
        inner = (moved * turned).sum(1)
        memory = [*memory[1 - MEMORY :], (moved, turned, inner)]
        gradient = new
        if validation is not None:
            unseen = unseen + step * validation.forward(direction).double()
            loss = curve.loss(unseen, unseen_counts)[0].mean(0)
            better = loss < best_loss
            best = torch.where(better[:, None], weights, best)
            best_loss = torch.where(better, loss, best_loss)
            since_best = 0 if better.any() else since_best + 1
            if since_best == PATIENCE:
                break
    return weights if validation is None else best


def _gradient(design: Design, weights: Tensor, slope: Tensor, penalty: Tensor) -> Tensor:
    return design.backward(slope.to(weights)) / len(slope) + penalty * weights


def _direction(gradient: Tensor, memory: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """Two-loop recursion (Nocedal & Wright 2006, algorithm 7.4), cell by cell.

    A pair without curvature, as of a cell that no longer moves, counts for nothing.
    """
    remaining = gradient
    factors = []
    for moved, turned, inner in reversed(memory):
        share = torch.where(inner > 0, (moved * remaining).sum(1) / inner.clamp(min=1e-30), 0.0)
        remaining = remaining - share[:, None] * turned
        factors.append(share)
    if memory:
        _, turned, inner = memory[-1]
        size = inner / (turned**2).sum(1).clamp(min=1e-30)
        remaining = torch.where(inner > 0, size, 1.0)[:, None] * remaining
    for (moved, turned, inner), share in zip(memory, reversed(factors), strict=True):
        back = torch.where(inner > 0, (turned * remaining).sum(1) / inner.clamp(min=1e-30), 0.0)
        remaining = remaining + (share - back)[:, None] * moved
    return -remaining


def _search(
    curve: Curve, drive: Tensor, change: Tensor, counts: Tensor, along: Tensor, across: Tensor
) -> Tensor:
    """Step (cell,) that minimises the loss along a direction: damped Newton in one dimension."""

    def at(step: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        loss, slope, bend = curve.loss(drive + step * change, counts)
        return (
            loss.mean(0) + along * step + across * step**2 / 2,
            (slope * change).mean(0) + along + across * step,
            (bend * change**2).mean(0) + across,
        )

    total = torch.zeros_like(along)
    loss, slope, bend = at(total)
    for _ in range(4):
        step = torch.where(bend > 0, -slope / bend.clamp(min=1e-300), 0.0)
        for _ in range(40):
            tried = at(total + step)
            # At the minimum a step may cost a last digit; halving would not mend that.
            better = tried[0] <= loss + 1e-13 * loss.abs()
            if (better | (step == 0)).all():
                break
            step = torch.where(better, step, step / 2)
        step = torch.where(better, step, 0.0)
        total = total + step
        loss, slope, bend = (
            torch.where(better, new, old)
            for new, old in zip(tried, (loss, slope, bend), strict=True)
        )
        # The next direction gains more than the last digits of this step.
        if (step.abs() <= 0.1 * total.abs()).all():
            break
    return total
