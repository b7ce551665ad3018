"""The one loop that all autoencoders of this room but the baselines are fitted by."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from retina_codec._common.progress import progress_counter
from retina_codec.modes.autoencoder import Autoencoder
from retina_codec.modes.checkpoints import read_checkpoint, write_checkpoint
from retina_codec.modes.codec import CodecNetwork
from retina_codec.modes.linear import (
    BatchTopKNetwork,
    JumpReLUNetwork,
    L1Network,
    TopKNetwork,
)
from retina_codec.modes.network import Network, Settings
from retina_codec.modes.rows import TrainingRows, draw

NETWORKS: dict[str, type[Network]] = {
    "topk": TopKNetwork,
    "batch_topk": BatchTopKNetwork,
    "jumprelu": JumpReLUNetwork,
    "l1": L1Network,
    "codec": CodecNetwork,
}
PATIENCE = 5  # epochs without improvement before the learning rate is halved
HALVINGS = 4  # how often it is halved before the fit ends
LEAST_IMPROVEMENT = 1e-4  # of the loss on samples kept aside, relative
STEPS_AN_EPOCH = 30  # aimed at, within the limits of the batch size
DEAD_BELOW = 1e-4  # share of an epoch's samples that a live mode takes part in
CANDIDATES = 8192  # samples looked through for badly reconstructed ones
CHECKPOINT_SECONDS = 10.0  # between checkpoints, at least


@dataclass
class Course:
    """Where a fit is; with the network and the optimizer, all that it is continued from."""

    epoch: int = 0
    best_loss: float = float("inf")
    stale: int = 0
    halved: int = 0
    ended: bool = False
    best: dict[str, Tensor] = field(default_factory=dict)


def fit_network(
    kind: str,
    rows: TrainingRows,
    settings: Settings,
    *,
    seed: int,
    max_epochs: int,
    learning_rate: float | None,
    device: torch.device,
    checkpoint: Path | None = None,
    resume: bool = False,
    identity: str = "",
    dictionary: np.ndarray | None = None,
    progress: bool = True,
) -> Autoencoder:
    """Fit to `rows`; stop by the loss on those that it keeps aside.

    Atoms start as samples. Until the learning rate is first halved, modes that an epoch never
    used start again as the residual of a badly reconstructed sample. With `dictionary` (mode,
    column), atoms stay as given. `identity` says what a checkpoint must have been written for.
    """
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same draws on all devices
    if dictionary is None:
        atoms = normalize(rows.draw(settings.n_modes, generator).to(device), dim=1)
    else:
        atoms = torch.from_numpy(dictionary).to(device)
    signs = torch.from_numpy(rows.signs).to(device)
    network = NETWORKS[kind](settings, atoms, signs, generator, fixed=dictionary is not None)
    for weight in network.weights.values():
        weight.requires_grad_()
    optimizer = torch.optim.Adam(
        list(network.weights.values()),
        lr=learning_rate or network.learning_rate,
        fused=device.type in ("cpu", "cuda"),
    )
    course = Course(best=network.clones())
    if checkpoint is not None and resume and checkpoint.exists():
        _continue(read_checkpoint(checkpoint, identity), course, network, optimizer)
    least, most = network.batch_sizes
    batch_size = int(np.clip(rows.n // STEPS_AN_EPOCH, least, most))
    written = time.monotonic()
    with progress_counter(max_epochs, "fit modes", shown=progress) as bar:
        bar.update(course.epoch)
        while course.epoch < max_epochs and not course.ended:
            may_end = network.reached((course.epoch + 1) / max_epochs)
            used = _epoch(network, optimizer, rows, batch_size, device)
            course.epoch += 1
            _judge(course, network, optimizer, rows, may_end, device)
            dead = used <= DEAD_BELOW * rows.n
            if network.revives and not network.fixed and course.halved == 0 and dead.any():
                _revive(network, optimizer, rows, dead, device)
            bar.update()
            last = course.ended or course.epoch == max_epochs
            if checkpoint is not None and (last or time.monotonic() - written > CHECKPOINT_SECONDS):
                write_checkpoint(checkpoint, identity, _state(course, network, optimizer))
                written = time.monotonic()
    network.restore(course.best)
    return network.fitted()


def _epoch(
    network: Network,
    optimizer: torch.optim.Optimizer,
    rows: TrainingRows,
    batch_size: int,
    device: torch.device,
) -> Tensor:
    """One pass; returns in how many samples each mode was active."""
    used = torch.zeros(network.settings.n_modes, device=device)
    for batch in rows.batches(batch_size, network.generator, device):
        code = network.training_code(batch)
        loss = network.loss(batch, code)
        optimizer.zero_grad()
        loss.backward()
        network.step(optimizer)
        used += (code.detach() > 0).sum(dim=0)
    return used


@torch.no_grad()
def _judge(
    course: Course,
    network: Network,
    optimizer: torch.optim.Optimizer,
    rows: TrainingRows,
    may_end: bool,
    device: torch.device,
) -> None:
    """Keep the best weights; halve the learning rate, or end, where nothing improves."""
    if not may_end:
        course.best = network.clones()
        return
    aside = rows.aside.to(device)
    loss = float(network.loss(aside, network.code(aside)))
    if loss < course.best_loss * (1 - LEAST_IMPROVEMENT):
        course.best, course.best_loss, course.stale = network.clones(), loss, 0
        return
    course.stale += 1
    if course.stale > PATIENCE:
        course.stale, course.halved = 0, course.halved + 1
        if course.halved > HALVINGS:
            course.ended = True
            return
        network.restore(course.best)
        for group in optimizer.param_groups:
            group["lr"] /= 2


@torch.no_grad()
def _revive(
    network: Network,
    optimizer: torch.optim.Optimizer,
    rows: TrainingRows,
    dead: Tensor,
    device: torch.device,
) -> None:
    some = rows.some(CANDIDATES, network.generator).to(device)
    residuals = some - network.code(some) @ network.dictionary - network.offset
    weights = residuals.square().sum(dim=1).cpu() + 1e-12
    chosen = draw(weights, min(int(dead.sum()), len(some)), network.generator)
    fresh = normalize(residuals[chosen.to(device)], dim=1)
    places = dead.nonzero()[: len(fresh), 0]
    for weight, which in network.revive(places, fresh):
        for moment in ("exp_avg", "exp_avg_sq"):
            optimizer.state[weight][moment][which] = 0


def _state(course: Course, network: Network, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return {
        "course": {**vars(course), "best": {k: v.cpu() for k, v in course.best.items()}},
        "network": {k: v.cpu() for k, v in network.clones().items()},
        "optimizer": optimizer.state_dict(),
        "generator": network.generator.get_state(),
    }


def _continue(
    state: dict[str, Any], course: Course, network: Network, optimizer: torch.optim.Optimizer
) -> None:
    for name, value in state["course"].items():
        setattr(course, name, value)
    network.restore(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    network.generator.set_state(state["generator"])
