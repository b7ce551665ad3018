"""Sparse autoencoders with a linear, rectified encoder: they differ in what makes them sparse."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from retina_codec.modes.autoencoder import Autoencoder
from retina_codec.modes.network import Network, Settings

ROWS_AT_ONCE = 65536
# Share of the running mean that a mini-batch brings to the threshold of batch_topk.
MEMORY = 0.02
# JumpReLU, in units of loadings (which are about 1 when a mode is active).
FIRST_THRESHOLD = 0.5
BANDWIDTH = 1.0


@dataclass(frozen=True, eq=False)
class Linear(Autoencoder):
    """Linear encoder, rectified.

    Parameters
    ----------
    encoder : ndarray
        (mode, column).
    bias : ndarray
        (mode,).
    """

    encoder: np.ndarray
    bias: np.ndarray

    def encode(self, matrix: np.ndarray) -> np.ndarray:
        """Return loadings (sample, mode), none negative."""
        encoder, bias = torch.from_numpy(self.encoder), torch.from_numpy(self.bias)
        parts = [
            self.keep(torch.relu(rows @ encoder.T + bias))
            for rows in torch.from_numpy(matrix).split(ROWS_AT_ONCE)
        ]
        return torch.cat(parts).numpy()

    @abstractmethod
    def keep(self, code: Tensor) -> Tensor:
        """Set weak values of a rectified code (sample, mode) to 0."""


@dataclass(frozen=True, eq=False)
class TopK(Linear):
    """Of the rectified code, the k largest values of a sample are kept.

    Gao et al., "Scaling and evaluating sparse autoencoders" (arXiv 2406.04093), section 2.

    Parameters
    ----------
    k : ndarray
        (1,), the largest number of modes that are active in a sample.
    """

    not_by_mode: ClassVar[tuple[str, ...]] = ("offset", "k")

    k: np.ndarray

    def keep(self, code: Tensor) -> Tensor:
        """All but the k largest of each sample to 0."""
        return strongest(code, int(self.k[0]))


@dataclass(frozen=True, eq=False)
class BatchTopK(Linear):
    """One threshold for all modes, above which the rectified code is kept.

    Bussmann et al., "BatchTopK sparse autoencoders" (arXiv 2412.06410): in the fit, the k n
    largest values of n samples together are kept; the threshold is the mean of their smallest.

    Parameters
    ----------
    threshold : ndarray
        (1,).
    """

    not_by_mode: ClassVar[tuple[str, ...]] = ("offset", "threshold")

    threshold: np.ndarray

    def keep(self, code: Tensor) -> Tensor:
        """All that is not above the threshold to 0."""
        return above(code, torch.from_numpy(self.threshold))


@dataclass(frozen=True, eq=False)
class JumpReLU(Linear):
    """A threshold for each mode, above which the rectified code is kept.

    Rajamanoharan et al., "Jumping ahead" (arXiv 2407.14435): thresholds are fitted through a
    straight-through estimator; here to a mean number of active modes (their appendix).

    Parameters
    ----------
    threshold : ndarray
        (mode,).
    """

    threshold: np.ndarray

    def keep(self, code: Tensor) -> Tensor:
        """All that is not above its mode's threshold to 0."""
        return above(code, torch.from_numpy(self.threshold))


@dataclass(frozen=True, eq=False)
class L1(Linear):
    """The rectified code as it is, made sparse by a penalty on its sum."""

    def keep(self, code: Tensor) -> Tensor:
        """Return all of the code."""
        return code


def strongest(code: Tensor, k: int) -> Tensor:
    """Set all but the `k` largest of each sample to 0."""
    values, places = code.topk(k, dim=1)
    return torch.zeros_like(code).scatter(1, places, values)


def above(code: Tensor, threshold: Tensor) -> Tensor:
    """Set what is not above the threshold to 0."""
    return code * (code > threshold)


class LinearNetwork(Network):
    """Encoder that starts as the dictionary, and a bias; see `Network`."""

    def __init__(
        self,
        settings: Settings,
        atoms: Tensor,
        signs: Tensor,
        generator: torch.Generator,
        *,
        fixed: bool,
    ) -> None:
        super().__init__(settings, atoms, signs, generator, fixed=fixed)
        norms = self.dictionary.square().sum(dim=1, keepdim=True)
        self.encoder = self.dictionary / norms.clamp(min=1e-12)
        self.bias = torch.zeros(len(atoms), device=atoms.device)
        self.weights |= {"encoder": self.encoder, "bias": self.bias}

    def rectified(self, rows: Tensor) -> Tensor:
        """Code (sample, mode) of which a kind keeps the strong values."""
        return torch.relu(torch.addmm(self.bias, rows, self.encoder.T))

    def training_code(self, rows: Tensor) -> Tensor:
        """As `code`."""
        return self.code(rows)

    def revive(self, dead: Tensor, fresh: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Let modes that are `dead` start again as `fresh` unit atoms, which they look for."""
        changed = super().revive(dead, fresh)
        self.encoder[dead] = self.dictionary[dead]
        self.bias[dead] = 0
        return [*changed, (self.encoder, dead), (self.bias, dead)]

    def arrays(self) -> dict[str, np.ndarray]:
        """Fields of `Linear`."""
        return {
            name: getattr(self, name).detach().cpu().numpy().copy()
            for name in ("dictionary", "offset", "encoder", "bias")
        }


class TopKNetwork(LinearNetwork):
    """See `TopK`."""

    def code(self, rows: Tensor) -> Tensor:
        """Keep the k strongest modes of each sample."""
        # As strongest(self.rectified(rows), k), but only what is kept is rectified.
        code = torch.addmm(self.bias, rows, self.encoder.T)
        values, places = code.topk(int(self.settings.k), dim=1, sorted=False)
        return torch.zeros_like(code).scatter(1, places, torch.relu(values))

    def fitted(self) -> TopK:
        """Return the autoencoder, on the CPU."""
        return TopK(**self.arrays(), k=np.array([int(self.settings.k)]))


class BatchTopKNetwork(LinearNetwork):
    """See `BatchTopK`."""

    def __init__(
        self,
        settings: Settings,
        atoms: Tensor,
        signs: Tensor,
        generator: torch.Generator,
        *,
        fixed: bool,
    ) -> None:
        super().__init__(settings, atoms, signs, generator, fixed=fixed)
        self.threshold = torch.full((1,), -1.0, device=atoms.device)  # not known yet
        self.extra = {"threshold": self.threshold}

    def training_code(self, rows: Tensor) -> Tensor:
        """Keep the strongest values of the mini-batch; their smallest moves the threshold."""
        code = self.rectified(rows)
        n_kept = max(1, min(round(self.settings.k * len(rows)), code.numel()))
        values, places = code.flatten().topk(n_kept, sorted=False)
        with torch.no_grad():
            least = values.min().clamp(min=0)
            known = self.threshold >= 0
            moved = torch.lerp(self.threshold, least.expand(1), MEMORY)
            self.threshold.copy_(torch.where(known, moved, least))
        return torch.zeros_like(code).flatten().scatter(0, places, values).view_as(code)

    def code(self, rows: Tensor) -> Tensor:
        """Keep what is above the threshold."""
        return above(self.rectified(rows), self.threshold)

    def fitted(self) -> BatchTopK:
        """Return the autoencoder, on the CPU."""
        return BatchTopK(**self.arrays(), threshold=self.threshold.cpu().numpy().copy())


class _Jump(torch.autograd.Function):
    """Code above a threshold, and whether it is; gradients of the latter by a narrow window."""

    @staticmethod
    def forward(ctx, code, threshold):  # type: ignore[no-untyped-def]
        active = (code > threshold).to(code.dtype)
        ctx.save_for_backward(code, threshold, active)
        return code * active, active

    @staticmethod
    def backward(ctx, of_kept, of_active):  # type: ignore[no-untyped-def]
        code, threshold, active = ctx.saved_tensors
        window = ((code - threshold).abs() < BANDWIDTH / 2).to(code.dtype) / BANDWIDTH
        of_threshold = -(window * (threshold * of_kept + of_active)).sum(dim=0)
        return of_kept * active, of_threshold


class JumpReLUNetwork(LinearNetwork):
    """See `JumpReLU`; the loss adds ``penalty * (l0 / k - 1)**2``."""

    def __init__(
        self,
        settings: Settings,
        atoms: Tensor,
        signs: Tensor,
        generator: torch.Generator,
        *,
        fixed: bool,
    ) -> None:
        super().__init__(settings, atoms, signs, generator, fixed=fixed)
        first = torch.full((len(atoms),), FIRST_THRESHOLD, device=atoms.device)
        self.log_threshold = first.log()
        self.weights["log_threshold"] = self.log_threshold
        self._l0: Tensor | None = None

    def training_code(self, rows: Tensor) -> Tensor:
        """Keep what is above the thresholds, and note how much that is."""
        kept, active = _Jump.apply(self.rectified(rows), self.log_threshold.exp())
        self._l0 = active.sum(dim=1).mean()
        return kept

    def code(self, rows: Tensor) -> Tensor:
        """Keep what is above the thresholds."""
        return above(self.rectified(rows), self.log_threshold.exp())

    def loss(self, rows: Tensor, code: Tensor) -> Tensor:
        """Mean squared error, and the distance of the mean number of active modes from k."""
        l0, self._l0 = self._l0, None
        if l0 is None:
            l0 = (code > 0).to(code.dtype).sum(dim=1).mean()
        return super().loss(rows, code) + self.settings.penalty * (l0 / self.settings.k - 1) ** 2

    def revive(self, dead: Tensor, fresh: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Let modes that are `dead` start again with the first threshold."""
        changed = super().revive(dead, fresh)
        self.log_threshold[dead] = float(np.log(FIRST_THRESHOLD))
        return [*changed, (self.log_threshold, dead)]

    def fitted(self) -> JumpReLU:
        """Return the autoencoder, on the CPU."""
        threshold = self.log_threshold.detach().exp().cpu().numpy().copy()
        return JumpReLU(**self.arrays(), threshold=threshold)


class L1Network(LinearNetwork):
    """See `L1`; the loss adds ``penalty`` times the mean sum of a sample's loadings."""

    def code(self, rows: Tensor) -> Tensor:
        """Return the rectified code."""
        return self.rectified(rows)

    def loss(self, rows: Tensor, code: Tensor) -> Tensor:
        """Mean squared error, and the loadings' mean sum."""
        return super().loss(rows, code) + self.settings.penalty * code.sum(dim=1).mean()

    def fitted(self) -> L1:
        """Return the autoencoder, on the CPU."""
        return L1(**self.arrays())
