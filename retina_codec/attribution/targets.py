"""What is decomposed: a number, or several, computed from the network's outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from retina_codec._common.checks import nearest_names, require_at_least
from retina_codec.models.model import Model


@runtime_checkable
class Target(Protocol):
    """Numbers computed from a network's outputs, sample by sample."""

    def labels(self, model: Model) -> np.ndarray | None:
        """Output labels that the numbers belong to; None if there is one number a sample."""
        ...

    def choose(self, outputs: Tensor, model: Model) -> Tensor | None:
        """Decide at the input what stays fixed along the path."""
        ...

    def values(self, outputs: Tensor, chosen: Tensor | None) -> Tensor:
        """Return the numbers (sample, n), given the outputs (sample, output)."""
        ...


@dataclass(frozen=True)
class Output:
    """Outputs by name, each decomposed for itself.

    Parameters
    ----------
    names : "each", str or sequence of str
        Labels of outputs; ``"each"`` is all of them.

    Examples
    --------
    >>> import retina_codec as rc
    >>> rc.targets.Output(["C1", "C3"])
    Output(names=['C1', 'C3'])
    """

    names: str | Sequence[str] = "each"

    def labels(self, model: Model) -> np.ndarray:
        """Labels of the chosen outputs; ValueError with the nearest name if one is unknown."""
        if isinstance(self.names, str) and self.names == "each":
            return model.outputs
        names = [self.names] if isinstance(self.names, str) else list(self.names)
        for name in names:
            if str(name) not in model.outputs:
                raise ValueError(
                    f"target: no {model.output_dim} {name!r}; {nearest_names(name, model.outputs)}"
                )
        return np.asarray(names, dtype=str)

    def choose(self, outputs: Tensor, model: Model) -> Tensor:
        """Columns of the chosen outputs."""
        wanted = [int(np.flatnonzero(model.outputs == name)[0]) for name in self.labels(model)]
        return torch.tensor(wanted, device=outputs.device)

    def values(self, outputs: Tensor, chosen: Tensor | None) -> Tensor:
        """Return the chosen outputs (sample, n)."""
        return outputs[:, chosen]


@dataclass(frozen=True)
class Sum:
    """The sum of all outputs.

    Examples
    --------
    >>> import retina_codec as rc
    >>> rc.targets.Sum()
    Sum()
    """

    def labels(self, model: Model) -> None:
        """One number a sample."""

    def choose(self, outputs: Tensor, model: Model) -> None:
        """Nothing to fix."""

    def values(self, outputs: Tensor, chosen: Tensor | None) -> Tensor:
        """Return the sum (sample, 1)."""
        return outputs.sum(1, keepdim=True)


@dataclass(frozen=True)
class TopK:
    """The sum of each sample's k largest outputs, chosen at the input and kept along the path.

    Parameters
    ----------
    k : int
        How many.
    softmax : bool
        Take probabilities instead of logits.

    Examples
    --------
    >>> import retina_codec as rc
    >>> rc.targets.TopK(1)
    TopK(k=1, softmax=False)
    """

    k: int = 1
    softmax: bool = False

    def __post_init__(self) -> None:
        require_at_least(self.k, 1, "k")

    def labels(self, model: Model) -> None:
        """One number a sample; ValueError if `k` exceeds the number of outputs."""
        if self.k > len(model.outputs):
            raise ValueError(
                f"target: k={self.k} of {len(model.outputs)} outputs; choose a smaller k"
            )

    def choose(self, outputs: Tensor, model: Model) -> Tensor:
        """Return the columns (sample, k) that are largest at the input."""
        return outputs.topk(self.k, dim=1).indices

    def values(self, outputs: Tensor, chosen: Tensor | None) -> Tensor:
        """Return the sum over the chosen columns (sample, 1)."""
        if chosen is None:
            raise ValueError("TopK needs the columns chosen at the input")
        scored = outputs.softmax(1) if self.softmax else outputs
        return scored.gather(1, chosen).sum(1, keepdim=True)
