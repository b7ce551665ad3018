"""What is decomposed: a number, or several, computed from the network's outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from retina_codec._common.checks import require_at_least, require_count
from retina_codec.models.labels import columns_of, places_of
from retina_codec.models.model import BATCH_SIZE, Model, Samples, frozen

# Of the largest eigenvalue of a covariance: what is below is rounding.
SINGULAR = 1e-13


@dataclass(frozen=True)
class BoundTarget:
    """A target of one model and one set of data.

    `labels` are the outputs that its numbers belong to, None if there is one a sample.
    ``choose(outputs, sample)`` decides at the input what stays fixed along the path, given the
    outputs (sample, output) and the samples' indices; ``values(outputs, fixed)`` gives the
    numbers (point, sample, n) of outputs (point, sample, output).
    """

    labels: np.ndarray | None
    units: str
    values: Callable[[Tensor, Tensor | None], Tensor]
    choose: Callable[[Tensor, Tensor], Tensor | None] = lambda outputs, sample: None


class Target:
    """Numbers computed from a network's outputs, sample by sample."""

    def bind(self, model: Model, samples: Samples) -> BoundTarget:
        """Fit the target to a model and its data; ValueError if they do not go together."""
        raise NotImplementedError


@dataclass(frozen=True)
class Output(Target):
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

    def bind(self, model: Model, samples: Samples) -> BoundTarget:
        """Find the outputs; ValueError with the nearest name if one is unknown."""
        if isinstance(self.names, str) and self.names == "each":
            return BoundTarget(model.outputs, model.output_units, lambda outputs, _: outputs)
        one = isinstance(self.names, str) or not isinstance(self.names, Iterable)
        names: list[Any] = [self.names] if one else list(self.names)
        if not names:
            raise ValueError(
                f"target: names is empty; choose from {', '.join(map(str, model.outputs))}"
            )
        columns = places_of(names, model.outputs, "target", model.output_dim)
        if len(set(columns)) != len(columns):
            raise ValueError(f"target: names={names} has an output twice; give each once")
        labels = model.outputs[columns]
        return BoundTarget(labels, model.output_units, lambda outputs, _: outputs[..., columns])


@dataclass(frozen=True)
class Sum(Target):
    """The sum of all outputs.

    Examples
    --------
    >>> import retina_codec as rc
    >>> rc.targets.Sum()
    Sum()
    """

    def bind(self, model: Model, samples: Samples) -> BoundTarget:
        """One number a sample."""
        return BoundTarget(None, model.output_units, lambda outputs, _: outputs.sum(-1, True))


@dataclass(frozen=True)
class TopK(Target):
    """The sum of each sample's k largest outputs.

    Parameters
    ----------
    k : int
        How many.
    softmax : bool
        Take probabilities instead of logits.
    follow : bool
        Which outputs are largest is decided at the input and kept along the path; with `follow`
        it is decided anew at every point, as in the code of the reference.

    References
    ----------
    Melander et al., ICLR 2026, arXiv 2603.06557.

    Examples
    --------
    >>> import retina_codec as rc
    >>> rc.targets.TopK(1)
    TopK(k=1, softmax=False, follow=False)
    """

    k: int = 1
    softmax: bool = False
    follow: bool = False

    def __post_init__(self) -> None:
        require_count(self.k, 1, "k")

    def bind(self, model: Model, samples: Samples) -> BoundTarget:
        """One number a sample; ValueError if `k` exceeds the number of outputs."""
        if self.k > len(model.outputs):
            raise ValueError(
                f"target: k={self.k} of {len(model.outputs)} outputs; choose a smaller k"
            )

        def values(outputs: Tensor, fixed: Tensor | None) -> Tensor:
            columns = _largest(outputs, self.k) if self.follow else fixed
            return _scores(outputs, self.softmax, columns).sum(-1, keepdim=True)

        return BoundTarget(
            None,
            "1" if self.softmax else model.output_units,
            values,
            lambda outputs, sample: _largest(outputs, self.k),
        )


@dataclass(frozen=True)
class PerSample(Target):
    """One given output for each sample, such as an image's true category.

    Parameters
    ----------
    labels : sequence of str or int, tensor or xarray.DataArray
        Of every sample (of a movie: every frame with a whole history): names of outputs, or whole
        numbers that count outputs from 0.
    softmax : bool
        Take probabilities instead of logits.

    Examples
    --------
    >>> import retina_codec as rc
    >>> rc.targets.PerSample([0, 2, 1])
    PerSample(labels=[0, 2, 1], softmax=False)
    """

    labels: Any
    softmax: bool = False

    def bind(self, model: Model, samples: Samples) -> BoundTarget:
        """Find the outputs; ValueError for a wrong number of labels, or an unknown one."""
        labels = plain(self.labels)
        if labels.shape != (len(samples),):
            raise ValueError(
                f"target: labels has shape {labels.shape}; expected one label for each of "
                f"{len(samples)} samples"
            )
        sample = model.sample_dim
        if isinstance(self.labels, xr.DataArray) and sample in self.labels.coords:
            there = samples.coords.get(sample)
            if there is not None and not np.array_equal(self.labels[sample].values, there.values):
                raise ValueError(
                    f"target: labels has other coordinates along {sample!r} than the samples; "
                    f"select those of the samples with .sel({sample}=...)"
                )
        columns = columns_of(labels, model.outputs, "target", model.output_dim)
        chosen = torch.from_numpy(columns)
        return BoundTarget(
            None,
            "1" if self.softmax else model.output_units,
            lambda outputs, fixed: _scores(outputs, self.softmax, fixed),
            lambda outputs, sample: chosen[sample.cpu()].to(outputs.device)[:, None],
        )


@dataclass(frozen=True)
class Contrast(Target):
    """The largest output minus the second largest; which they are is decided at the input.

    Examples
    --------
    >>> import retina_codec as rc
    >>> rc.targets.Contrast()
    Contrast()
    """

    def bind(self, model: Model, samples: Samples) -> BoundTarget:
        """One number a sample; ValueError if there is only one output."""
        if len(model.outputs) < 2:
            raise ValueError("target: Contrast needs at least two outputs; the model has one")

        def values(outputs: Tensor, fixed: Tensor | None) -> Tensor:
            pair = _scores(outputs, False, fixed)
            return pair[..., :1] - pair[..., 1:]

        return BoundTarget(
            None, model.output_units, values, lambda outputs, sample: _largest(outputs, 2)
        )


@dataclass(frozen=True)
class Entropy(Target):
    """Entropy of the softmax of the outputs, in nats.

    A unit that makes the network surer *lowers* it, with a negative contribution.

    Examples
    --------
    >>> import retina_codec as rc
    >>> rc.targets.Entropy()
    Entropy()
    """

    def bind(self, model: Model, samples: Samples) -> BoundTarget:
        """One number a sample."""

        def values(outputs: Tensor, fixed: Tensor | None) -> Tensor:
            logs = outputs.log_softmax(-1)
            return -(logs.exp() * logs).sum(-1, keepdim=True)

        return BoundTarget(None, "1", values)


@dataclass(frozen=True)
class Surprisal(Target):
    """How unusual the outputs are together: half their squared Mahalanobis distance, in nats.

    S = 1/2 (y - mu)' Sigma^-1 (y - mu), with the mean mu and the covariance Sigma of the model's
    outputs to reference data: up to a constant, minus the log of a Gaussian density.

    Parameters
    ----------
    reference : DataArray, array or tensor, optional
        Data that mean and covariance are taken from; by default those to be decomposed.
    regularization : float
        Added to the diagonal of Sigma, as a share of its mean variance: with silent or redundant
        cells it cannot be inverted.

    References
    ----------
    Melander et al., ICLR 2026, arXiv 2603.06557.

    Examples
    --------
    >>> import retina_codec as rc
    >>> rc.targets.Surprisal()
    Surprisal(reference=None, regularization=0.001)
    """

    reference: Any = field(default=None, compare=False)
    regularization: float = 1e-3

    def __post_init__(self) -> None:
        require_at_least(self.regularization, 0, "regularization")

    def __repr__(self) -> str:
        given = self.reference
        shown = None if given is None else f"<{type(given).__name__} {tuple(np.shape(given))}>"
        return f"Surprisal(reference={shown}, regularization={self.regularization})"

    def bind(self, model: Model, samples: Samples) -> BoundTarget:
        """Run the model on the reference; ValueError if its outputs do not vary."""
        reference = (
            samples if self.reference is None else model.samples(self.reference, "reference")
        )
        n, total = 0, torch.zeros(len(model.outputs), dtype=torch.float64)
        products = torch.zeros(len(model.outputs), len(model.outputs), dtype=torch.float64)
        shift: Tensor | None = None  # of the first sample, for the rounding of large means
        with frozen(model.network), torch.no_grad():
            for batch in reference.batches(BATCH_SIZE):
                outputs = model.network(batch.inputs.clone()).double().cpu()
                shift = outputs[0] if shift is None else shift
                outputs = outputs - shift
                n += len(outputs)
                total += outputs.sum(0)
                products += outputs.T @ outputs
        if shift is None or n < 2:
            raise ValueError("target: the reference has fewer than two samples; give more data")
        mean = total / n
        covariance = products / n - mean[:, None] * mean
        variance = float(covariance.diagonal().mean())
        if not variance > 0:
            raise ValueError(
                "target: the model's outputs do not vary over the reference, so that no surprisal "
                "is defined; give other reference data"
            )
        covariance += self.regularization * variance * torch.eye(len(mean), dtype=torch.float64)
        spectrum = torch.linalg.eigvalsh(covariance)
        if not float(spectrum[0]) > SINGULAR * float(spectrum[-1]):
            raise ValueError(
                f"target: the covariance of the {len(mean)} outputs over {n} samples cannot be "
                "inverted; give more reference data or a larger regularization"
            )
        factor = torch.linalg.cholesky(covariance)
        whitening = torch.linalg.inv(factor).T.to(model.device, model.dtype)
        centre = (mean + shift).to(model.device, model.dtype)

        def values(outputs: Tensor, fixed: Tensor | None) -> Tensor:
            return 0.5 * ((outputs - centre) @ whitening).square().sum(-1, keepdim=True)

        return BoundTarget(None, "1", values)


def _largest(outputs: Tensor, k: int) -> Tensor:
    return outputs.topk(k, dim=-1).indices


def _scores(outputs: Tensor, softmax: bool, columns: Tensor | None) -> Tensor:
    """Take outputs (or probabilities) of the chosen columns (sample, k), at every point."""
    if columns is None:
        raise ValueError("the target's outputs are to be chosen at the input first")
    scored = outputs.softmax(-1) if softmax else outputs
    return scored.gather(-1, columns.expand(*scored.shape[:-1], columns.shape[-1]))


def plain(given: Any) -> np.ndarray:
    """Values of a DataArray, a Series, a tensor on any device, or a sequence."""
    if isinstance(given, Tensor):
        return given.detach().cpu().numpy()
    return np.asarray(getattr(given, "values", given))


def described(target: Target) -> str:
    """Say what a target is in one line; long arrays by their shape."""
    if isinstance(target, PerSample):
        labels = plain(target.labels)
        if labels.size > 20:
            return f"PerSample(labels=<{labels.size} labels>, softmax={target.softmax})"
    return repr(target)


__all__ = [
    "Contrast",
    "Entropy",
    "Output",
    "PerSample",
    "Sum",
    "Surprisal",
    "Target",
    "TopK",
]
