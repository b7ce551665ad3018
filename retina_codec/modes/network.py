"""An autoencoder while it is fitted: tensors that a training loop steps, and their loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from retina_codec.modes.autoencoder import Autoencoder

SMALLEST_NORM = 1e-12


@dataclass(frozen=True)
class Settings:
    """How a network is fitted, apart from the data.

    Parameters
    ----------
    n_modes : int
        Atoms.
    k : float
        Modes active in a sample: at most (TopK), or on average.
    penalty : float
        Weight of the term that makes it sparse, where it has one.
    threshold, anneal : float
        Of the codes of "codec", and the share of the training over which it rises.
    unit_norm, non_negative, decoder_bias : bool
        What atoms are held to, and whether there is an offset.
    """

    n_modes: int
    k: float
    penalty: float
    threshold: float
    anneal: float
    unit_norm: bool
    non_negative: bool
    decoder_bias: bool


class Network(ABC):
    """An autoencoder while it is fitted.

    Parameters
    ----------
    settings : Settings
        How it is fitted.
    atoms : Tensor
        (mode, column), the first dictionary.
    signs : Tensor
        (column,), 1 or -1: the sign that atoms keep to if they are not to be negative.
    generator : torch.Generator
        On the CPU, so that draws are the same on all devices.
    fixed : bool
        Whether the dictionary stays as it is.
    """

    learning_rate: ClassVar[float] = 5e-3
    # Samples in a step: least and most.
    batch_sizes: ClassVar[tuple[int, int]] = (64, 2048)
    # Whether unused modes start anew.
    revives: ClassVar[bool] = True

    def __init__(
        self,
        settings: Settings,
        atoms: Tensor,
        signs: Tensor,
        generator: torch.Generator,
        *,
        fixed: bool,
    ) -> None:
        self.settings = settings
        self.signs = signs
        self.generator = generator
        self.fixed = fixed
        self.dictionary = atoms.clone()
        if not fixed:
            with torch.no_grad():
                self.constrain()
        self.offset = torch.zeros(atoms.shape[1], device=atoms.device)
        self.weights: dict[str, Tensor] = {} if fixed else {"dictionary": self.dictionary}
        if settings.decoder_bias:
            self.weights["offset"] = self.offset
        # What is not stepped, but belongs to the fit.
        self.extra: dict[str, Tensor] = {}

    @abstractmethod
    def training_code(self, rows: Tensor) -> Tensor:
        """Return loadings (sample, mode) of a mini-batch, through which gradients flow."""

    @abstractmethod
    def code(self, rows: Tensor) -> Tensor:
        """Return loadings as the fitted autoencoder gives them."""

    @abstractmethod
    def fitted(self) -> Autoencoder:
        """Return the autoencoder, on the CPU."""

    def errors(self, rows: Tensor, code: Tensor) -> Tensor:
        """Squared error of each row (sample,)."""
        return (code @ self.dictionary + self.offset - rows).square().sum(dim=1)

    def loss(self, rows: Tensor, code: Tensor) -> Tensor:
        """Return what is made small: the mean squared error, and what a kind adds."""
        return self.errors(rows, code).mean()

    def reached(self, done: float) -> bool:
        """Take note of the share of the training that is `done`; say if the fit may end there."""
        return True

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """One step; atoms of unit norm move on the sphere."""
        with torch.no_grad():
            gradient = self.dictionary.grad
            if gradient is not None and self.settings.unit_norm:
                along = (gradient * self.dictionary).sum(dim=1, keepdim=True)
                gradient -= along * self.dictionary
            optimizer.step()
            if not self.fixed:
                self.constrain()

    def constrain(self) -> None:
        """Hold atoms to their signs and to unit norm."""
        if self.settings.non_negative:
            self.dictionary.copy_((self.dictionary * self.signs).clamp(min=0) * self.signs)
        if self.settings.unit_norm:
            norms = self.dictionary.norm(dim=1, keepdim=True)
            self.dictionary /= norms.clamp(min=SMALLEST_NORM)

    def revive(self, dead: Tensor, fresh: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Let modes that are `dead` start again as `fresh` unit atoms.

        Returns the weights that changed, each with its rows, whose moments are to be forgotten.
        """
        if self.settings.non_negative:
            fresh = normalize((fresh * self.signs).clamp(min=0) * self.signs, dim=1)
        self.dictionary[dead] = fresh
        return [(self.dictionary, dead)]

    def clones(self) -> dict[str, Tensor]:
        """Copy all that the fit has found so far."""
        return {
            name: value.detach().clone() for name, value in {**self.weights, **self.extra}.items()
        }

    def restore(self, saved: dict[str, Tensor]) -> None:
        """Take back what `clones` gave."""
        with torch.no_grad():
            for name, value in {**self.weights, **self.extra}.items():
                value.copy_(saved[name])
