"""A sparse autoencoder that keeps the k strongest modes of every sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from retina_codec._common.progress import progress_bar
from retina_codec.modes.autoencoder import Autoencoder

LEARNING_RATE = 5e-3
PATIENCE = 5  # epochs without improvement before the learning rate is halved
HALVINGS = 4  # how often it is halved before the fit ends
LEAST_IMPROVEMENT = 1e-4  # of the held-out loss, relative
STEPS_AN_EPOCH = 30  # aimed at, within the limits of the batch size
BATCH_SIZES = (64, 2048)
DEAD_BELOW = 1e-4  # share of an epoch's samples that a live mode takes part in
CANDIDATES = 8192  # samples looked through for badly reconstructed ones
ROWS_AT_ONCE = 65536


@dataclass(frozen=True, eq=False)
class TopK(Autoencoder):
    """Linear encoder, rectified, of which the k largest values of a sample are kept.

    Gao et al., "Scaling and evaluating sparse autoencoders" (arXiv 2406.04093), section 2.

    Parameters
    ----------
    encoder : ndarray
        (mode, column).
    bias : ndarray
        (mode,).
    k : ndarray
        (1,), the largest number of modes that are active in a sample.
    """

    not_by_mode: ClassVar[tuple[str, ...]] = ("offset", "k")

    encoder: np.ndarray
    bias: np.ndarray
    k: np.ndarray

    def encode(self, matrix: np.ndarray) -> np.ndarray:
        """Return loadings (sample, mode), none negative, at most k above 0 in a sample."""
        encoder, bias = torch.from_numpy(self.encoder), torch.from_numpy(self.bias)
        parts = [
            strongest(rows, encoder, bias, int(self.k[0]))
            for rows in torch.from_numpy(matrix).split(ROWS_AT_ONCE)
        ]
        return torch.cat(parts).numpy()


def strongest(rows: Tensor, encoder: Tensor, bias: Tensor, k: int) -> Tensor:
    """Rectified linear code (sample, mode), all but the `k` largest of each sample set to 0."""
    code = torch.relu(rows @ encoder.T + bias)
    values, places = code.topk(k, dim=1)
    return torch.zeros_like(code).scatter(1, places, values)


def fit_topk(
    training: np.ndarray,
    held_out: np.ndarray,
    *,
    n_modes: int,
    k: int,
    seed: int,
    max_epochs: int,
    decoder_bias: bool,
    device: torch.device,
    progress: bool,
) -> TopK:
    """Fit to the rows of `training` (sample, column); stop by the loss on `held_out`.

    Atoms start as samples. Until the learning rate is first halved, modes that an epoch never
    used start again as the residual of a badly reconstructed sample.
    """
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same draws on all devices
    rows = torch.from_numpy(training).to(device)
    unseen = torch.from_numpy(held_out).to(device)
    n = len(rows)
    batch_size = int(np.clip(n // STEPS_AN_EPOCH, *BATCH_SIZES))

    any_contribution = (rows != 0).any(dim=1).float().cpu()
    chosen = _draw(any_contribution, n_modes, generator).to(device)
    dictionary = normalize(rows[chosen], dim=1)
    encoder = dictionary.clone()
    bias = torch.zeros(n_modes, device=device)
    offset = torch.zeros(rows.shape[1], device=device)
    weights = [dictionary, encoder, bias, *([offset] if decoder_bias else [])]
    for weight in weights:
        weight.requires_grad_()
    optimizer = torch.optim.Adam(weights, lr=LEARNING_RATE)

    best, best_loss = [weight.detach().clone() for weight in weights], float("inf")
    stale = halved = 0
    for _ in progress_bar(range(max_epochs), "fit modes", shown=progress):
        used = torch.zeros(n_modes, device=device)
        for ids in torch.randperm(n, generator=generator).split(batch_size):
            batch = rows[ids.to(device)]
            code = strongest(batch, encoder, bias, k)
            loss = _squared_error(batch, code, dictionary, offset).mean()
            optimizer.zero_grad()
            loss.backward()
            _step_on_sphere(optimizer, dictionary)
            used += (code.detach() > 0).sum(dim=0)
        with torch.no_grad():
            code = strongest(unseen, encoder, bias, k)
            unseen_loss = float(_squared_error(unseen, code, dictionary, offset).mean())
            if unseen_loss < best_loss * (1 - LEAST_IMPROVEMENT):
                best, best_loss = [weight.detach().clone() for weight in weights], unseen_loss
                stale = 0
            else:
                stale += 1
            if stale > PATIENCE:
                stale, halved = 0, halved + 1
                if halved > HALVINGS:
                    break
                _restore(weights, best)
                for group in optimizer.param_groups:
                    group["lr"] /= 2
            dead = used <= DEAD_BELOW * n
            if halved == 0 and dead.any():
                some = rows[torch.randint(n, (min(n, CANDIDATES),), generator=generator).to(device)]
                code = strongest(some, encoder, bias, k)
                fresh = _bad_residuals(
                    some - code @ dictionary - offset, int(dead.sum()), generator
                )
                _revive(optimizer, dictionary, encoder, bias, dead, fresh)
    with torch.no_grad():
        _restore(weights, best)
    return TopK(
        dictionary=dictionary.detach().cpu().numpy(),
        offset=offset.detach().cpu().numpy(),
        encoder=encoder.detach().cpu().numpy(),
        bias=bias.detach().cpu().numpy(),
        k=np.array([k]),
    )


def _squared_error(rows: Tensor, code: Tensor, dictionary: Tensor, offset: Tensor) -> Tensor:
    return (code @ dictionary + offset - rows).square().sum(dim=1)


def _step_on_sphere(optimizer: torch.optim.Optimizer, dictionary: Tensor) -> None:
    """One step that keeps the atoms at unit norm."""
    with torch.no_grad():
        gradient = dictionary.grad
        if gradient is not None:
            gradient -= (gradient * dictionary).sum(dim=1, keepdim=True) * dictionary
        optimizer.step()
        dictionary /= dictionary.norm(dim=1, keepdim=True)


def _restore(weights: list[Tensor], saved: list[Tensor]) -> None:
    for weight, value in zip(weights, saved, strict=True):
        weight.copy_(value)


def _draw(weights: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """`n` different indices, with a probability in proportion to `weights` (on the CPU)."""
    # Not torch.multinomial, which takes at most 2^24 categories: Efraimidis and Spirakis 2006.
    noise = torch.rand(len(weights), generator=generator).log() / weights
    return noise.topk(n).indices


def _bad_residuals(residuals: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """`n` unit residuals, drawn in proportion to their squared norm."""
    chosen = _draw(residuals.square().sum(dim=1).cpu() + 1e-12, n, generator)
    return normalize(residuals[chosen.to(residuals.device)], dim=1)


def _revive(
    optimizer: torch.optim.Optimizer,
    dictionary: Tensor,
    encoder: Tensor,
    bias: Tensor,
    dead: Tensor,
    fresh: Tensor,
) -> None:
    dictionary[dead] = fresh
    encoder[dead] = fresh
    bias[dead] = 0
    for weight in (dictionary, encoder, bias):
        for moment in ("exp_avg", "exp_avg_sq"):
            optimizer.state[weight][moment][dead] = 0
