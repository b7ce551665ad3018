"""The autoencoder of the contribution-decomposition paper: thresholded sigmoid codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear

from retina_codec.modes.autoencoder import Autoencoder
from retina_codec.modes.linear import ROWS_AT_ONCE, above
from retina_codec.modes.network import Network, Settings

DROPOUT = 0.05
HIDDEN = ("first", "second")


@dataclass(frozen=True, eq=False)
class Codec(Autoencoder):
    """Two hidden layers, sigmoid codes of which those under a threshold are 0, linear dictionary.

    Melander et al. 2026 (arXiv 2603.06557). A hidden layer is a linear map as wide as there are
    columns, then (in the fit) dropout, ReLU and layer norm.

    Parameters
    ----------
    first_weight, second_weight : ndarray
        (column, column), of the hidden layers.
    first_bias, first_scale, first_shift, second_bias, second_scale, second_shift : ndarray
        (column,), biases, and the affine part of their layer norms.
    encoder : ndarray
        (mode, column), from the last hidden layer to codes.
    bias : ndarray
        (mode,).
    threshold : ndarray
        (1,), codes under it are 0.
    """

    not_by_mode: ClassVar[tuple[str, ...]] = (
        "offset",
        "threshold",
        *(f"{layer}_{part}" for layer in HIDDEN for part in ("weight", "bias", "scale", "shift")),
    )

    first_weight: np.ndarray
    first_bias: np.ndarray
    first_scale: np.ndarray
    first_shift: np.ndarray
    second_weight: np.ndarray
    second_bias: np.ndarray
    second_scale: np.ndarray
    second_shift: np.ndarray
    encoder: np.ndarray
    bias: np.ndarray
    threshold: np.ndarray

    def encode(self, matrix: np.ndarray) -> np.ndarray:
        """Return loadings (sample, mode): 0, or between the threshold and 1."""
        weights = {name: torch.from_numpy(array) for name, array in self.arrays().items()}
        parts = [
            above(sigmoid_code(rows, weights), weights["threshold"])
            for rows in torch.from_numpy(matrix).split(ROWS_AT_ONCE)
        ]
        return torch.cat(parts).numpy()


def sigmoid_code(
    rows: Tensor, weights: dict[str, Tensor], generator: torch.Generator | None = None
) -> Tensor:
    """Codes (sample, mode) before the threshold; with dropout if there is a `generator`."""
    hidden = rows
    for layer in HIDDEN:
        hidden = linear(hidden, weights[f"{layer}_weight"], weights[f"{layer}_bias"])
        if generator is not None:
            kept = torch.rand(hidden.shape, generator=generator) >= DROPOUT
            hidden = hidden * (kept.to(hidden.device) / (1 - DROPOUT))
        hidden = layer_norm(
            torch.relu(hidden),
            hidden.shape[1:],
            weights[f"{layer}_scale"],
            weights[f"{layer}_shift"],
        )
    return torch.sigmoid(linear(hidden, weights["encoder"], weights["bias"]))


class CodecNetwork(Network):
    """See `Codec`.

    The loss is the mean squared error over samples and columns, plus ``penalty`` times the mean
    absolute value of the dictionary.
    """

    learning_rate = 1e-3
    batch_sizes = (128, 128)
    revives = False

    def __init__(
        self,
        settings: Settings,
        atoms: Tensor,
        signs: Tensor,
        generator: torch.Generator,
        *,
        fixed: bool,
    ) -> None:
        n_modes, n_columns = atoms.shape

        def uniform(*shape: int) -> Tensor:
            # As torch.nn.Linear starts.
            drawn = torch.rand(shape, generator=generator) * 2 - 1
            return (drawn / n_columns**0.5).to(atoms.device)

        if not fixed:
            atoms = (torch.rand(atoms.shape, generator=generator) * 2 - 1) / n_modes**0.5
            atoms = atoms.to(signs.device)
        super().__init__(settings, atoms, signs, generator, fixed=fixed)
        for layer in HIDDEN:
            self.weights[f"{layer}_weight"] = uniform(n_columns, n_columns)
            self.weights[f"{layer}_bias"] = uniform(n_columns)
            self.weights[f"{layer}_scale"] = torch.ones_like(signs)
            self.weights[f"{layer}_shift"] = torch.zeros_like(signs)
        self.weights["encoder"] = uniform(n_modes, n_columns)
        self.weights["bias"] = uniform(n_modes)
        # Where it is annealed, it starts from 0: as `reached` has it before the first epoch.
        first = settings.threshold if settings.anneal == 0 else 0.0
        self.threshold = torch.full((1,), first, device=signs.device)
        self.extra = {"threshold": self.threshold}

    def training_code(self, rows: Tensor) -> Tensor:
        """With dropout; under the threshold, no gradient flows."""
        return above(sigmoid_code(rows, self.weights, self.generator), self.threshold)

    def code(self, rows: Tensor) -> Tensor:
        """Without dropout."""
        return above(sigmoid_code(rows, self.weights), self.threshold)

    def loss(self, rows: Tensor, code: Tensor) -> Tensor:
        """Mean squared error over samples and columns, and the mean of the dictionary."""
        error = super().loss(rows, code) / rows.shape[1]
        return error + self.settings.penalty * self.dictionary.abs().mean()

    def reached(self, done: float) -> bool:
        """Raise the threshold in proportion; the fit may end once it is at its value."""
        anneal = self.settings.anneal
        share = min(done / anneal, 1.0) if anneal > 0 else 1.0
        self.threshold.fill_(self.settings.threshold * share)
        return share == 1.0

    def fitted(self) -> Codec:
        """Return the autoencoder, on the CPU."""
        weights = {"dictionary": self.dictionary, "offset": self.offset, **self.weights}
        arrays = {name: value.detach().cpu().numpy().copy() for name, value in weights.items()}
        return Codec(**arrays, threshold=self.threshold.cpu().numpy().copy())
