"""The true architecture with parameters that learn: the ceiling of any recovery."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from retina_codec._common.checks import require_at_least, require_count
from retina_codec.simulation import Circuit
from retina_codec.simulation.network import CircuitNetwork


class _Strengths(nn.Module):
    """Weights (cell, source * place) as a strength (cell, source) times a pool of fixed shape."""

    def __init__(self, weight: Tensor, n_sources: int) -> None:
        super().__init__()
        self.pools: Tensor
        self.register_buffer("pools", weight.unflatten(1, (n_sources, -1)).clone())

    def forward(self, strength: Tensor) -> Tensor:
        return (strength[:, :, None] * self.pools).flatten(1)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return torch.ones(self.pools.shape[:2], dtype=weight.dtype, device=weight.device)


class _Wiring(nn.Module):
    """Weights of which those that are absent stay absent."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.present: Tensor
        self.register_buffer("present", (weight != 0).to(weight.dtype))

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.present

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight


def refittable_circuit(circuit: Circuit, *, seed: int = 0, spread: float = 0.3) -> Circuit:
    """Copy a circuit: its wiring is kept, its numbers are to be found again by training.

    Fitted to the spikes that a network was trained on, it shows what these spikes allow at best:
    a network whose recovery comes near to its recovery has nothing left to gain but data. What
    learns: kernels over time, lag by lag; weights of centre and surround; thresholds; strengths
    of all inputs of amacrine and ganglion cells; offsets of ganglion cells. What stays as it is:
    who is connected with whom, and widths and places of all pools.

    Parameters
    ----------
    circuit : Circuit
        The true circuit, as from ``retina_codec.simulation.circuit(..., movie=...)``.
    seed : int
        Of the start.
    spread : float
        How far from the truth to start. Weights and offsets are multiplied by ``exp(spread * z)``,
        kernels are stretched in time by ``exp(spread * z / 2)``, with z a standard normal number
        of each weight, offset or kernel. 0 starts at the truth.

    Returns
    -------
    Circuit
        To be trained; `circuit` is left as it is, and shares nothing with it.

    Raises
    ------
    TypeError
        If `circuit` is not a Circuit, or `seed` not whole.
    ValueError
        If `spread` is below 0.

    Examples
    --------
    >>> import retina_codec as rc
    >>> circuit = rc.simulation.circuit("first")
    >>> start = rc.validation.refittable_circuit(circuit, seed=0)
    >>> sum(p.numel() for p in start.network.parameters() if p.requires_grad)
    371
    """
    if not isinstance(circuit, Circuit):
        raise TypeError(
            f"circuit is a {type(circuit).__name__}; expected one from "
            "retina_codec.simulation.circuit(...)"
        )
    require_count(seed, 0, "seed")
    require_at_least(spread, 0, "spread")
    fresh = Circuit(circuit.specification, circuit.field)
    rng = np.random.default_rng(seed)
    network = cast(CircuitNetwork, fresh.network)
    bipolar, amacrine, ganglion = network.bipolar, network.amacrine, network.ganglion
    n_sources = len(circuit.specification.bipolar) + len(circuit.specification.amacrine)
    parametrize.register_parametrization(
        ganglion, "weight", _Strengths(ganglion.weight.detach(), n_sources)
    )
    parametrize.register_parametrization(amacrine, "mix", _Wiring(amacrine.mix.detach()))
    strength = _learned(ganglion, "weight")
    wiring = _learned(amacrine, "mix")
    with torch.no_grad():
        bipolar.time.copy_(torch.from_numpy(_stretched(bipolar.time.numpy(), rng, spread)))
        scaled = [bipolar.mix, bipolar.threshold, wiring, amacrine.threshold, strength]
        for weight in (*scaled, ganglion.offset):
            factor = np.exp(spread * rng.standard_normal(tuple(weight.shape)))
            weight.mul_(torch.from_numpy(factor.astype(np.float32)))
    for weight in (bipolar.time, *scaled, ganglion.offset):
        weight.requires_grad_()
    return fresh


def _learned(module: nn.Module, name: str) -> nn.Parameter:
    """Return the parameter behind a weight that is computed from it."""
    parametrizations: Any = module.parametrizations
    return cast(nn.Parameter, parametrizations[name].original)


def _stretched(kernels: np.ndarray, rng: np.random.Generator, spread: float) -> np.ndarray:
    """Kernels (type, frame), the last frame lag 0, each stretched in time about lag 0."""
    lag = np.arange(kernels.shape[1])
    found = np.empty_like(kernels)
    for i, kernel in enumerate(kernels[:, ::-1]):
        stretch = np.exp(spread * rng.standard_normal() / 2)
        found[i] = np.interp(lag / stretch, lag, kernel)[::-1] / stretch
    return found
