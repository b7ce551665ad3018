"""How a target is divided among hidden units."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import xarray as xr

from retina_codec._common.checks import require_at_least, require_choice, require_count
from retina_codec.attribution.integration import RULES

Baseline = Any  # a number, or an array


class Method:
    """A way to divide a target among the units of a layer."""

    baseline: Baseline = 0.0


@dataclass(frozen=True)
class IntegratedGradients(Method):
    """Gradients integrated along the straight path from a baseline *input* to the input.

    With x(s) = x0 + s (x - x0), a(s) the hidden layer and T(s) the target along the path,

        c_j = integral dT/da_j da_j ~ sum_k 1/2 (g_k + g_(k+1)) (a_(k+1) - a_k)

    (trapezoid rule, steps + 1 evaluations). Over a layer that cuts every path from input to
    output, the contributions sum to T(x) - T(x0) up to the integration error.

    Parameters
    ----------
    steps : int
        Steps along the path; with a `tolerance`, those to begin with.
    baseline : float or array
        The baseline input after the model's normalisation: 0 is the mean grey. A number; an array
        (a DataArray: in any order of its dims) of the shape of one input (of a movie: one frame,
        shown all the time); or several of them along a further first dim, over which
        contributions are averaged.
    rule : {"trapezoid", "left", "right", "midpoint"}
        Where in each step the gradient is taken: at both ends, at one, or half-way (which takes
        another evaluation of the network a step).
    tolerance : float, optional
        Largest completeness error that is accepted, relative to the target's standard deviation
        over the data. Samples above it are computed again with twice the steps, until they are
        below or `max_steps` is reached; the result says how many each took (``steps``).
    max_steps : int
        Most steps with a `tolerance`.

    References
    ----------
    Melander et al., ICLR 2026, arXiv 2603.06557; Dhamdhere et al., ICLR 2019 (conductance).

    Examples
    --------
    >>> import retina_codec as rc
    >>> rc.methods.IntegratedGradients(steps=10)
    IntegratedGradients(steps=10, baseline=0.0, rule='trapezoid', tolerance=None, max_steps=640)
    """

    steps: int = 20
    baseline: Baseline = field(default=0.0, compare=False)
    rule: str = "trapezoid"
    tolerance: float | None = None
    max_steps: int = 640

    def __post_init__(self) -> None:
        require_count(self.steps, 1, "steps")
        require_choice(self.rule, list(RULES), "rule")
        require_count(self.max_steps, 1, "max_steps")
        if self.tolerance is not None:
            if not self.tolerance > 0:
                raise ValueError(f"tolerance={self.tolerance!r}; expected a number above 0")
            require_at_least(self.max_steps, self.steps, "max_steps")


@dataclass(frozen=True)
class ActivationGradient(Method):
    """Activation times gradient, at the input itself.

    Parameters
    ----------
    baseline : float or array
        Baseline of the completeness error, which this method does not aim to make small.

    Examples
    --------
    >>> import retina_codec as rc
    >>> rc.methods.ActivationGradient()
    ActivationGradient(baseline=0.0)
    """

    baseline: Baseline = field(default=0.0, compare=False)


@dataclass(frozen=True)
class NormalizedGradient(Method):
    """Activation times gradient, divided by the gradient's length.

    The length is the root of the summed squares over all units of the layer, for each sample and
    target. Units: those of the activation.

    Parameters
    ----------
    baseline : float or array
        Baseline of the completeness error, which this method does not aim to make small.

    Examples
    --------
    >>> import retina_codec as rc
    >>> rc.methods.NormalizedGradient()
    NormalizedGradient(baseline=0.0)
    """

    baseline: Baseline = field(default=0.0, compare=False)


@dataclass(frozen=True)
class SmoothGradient(Method):
    """Activation times the gradient averaged over noisy copies of the input.

    Parameters
    ----------
    n_samples : int
        Noisy copies.
    sd : float
        Of the noise, after the model's normalisation.
    baseline : float or array
        Baseline of the completeness error, which this method does not aim to make small.
    seed : int
        Of the noise.

    References
    ----------
    Smilkov et al., arXiv 1706.03825 (there on the input; here at a hidden layer).

    Examples
    --------
    >>> import retina_codec as rc
    >>> rc.methods.SmoothGradient(n_samples=10)
    SmoothGradient(n_samples=10, sd=0.15, baseline=0.0, seed=0)
    """

    n_samples: int = 20
    sd: float = 0.15
    baseline: Baseline = field(default=0.0, compare=False)
    seed: int = 0

    def __post_init__(self) -> None:
        require_count(self.n_samples, 1, "n_samples")
        require_at_least(self.sd, 0, "sd")
        require_count(self.seed, 0, "seed")


@dataclass(frozen=True)
class Ablation(Method):
    """The true change of the target when a unit is silenced: T(x) minus T without the unit.

    The network runs once more for every unit from its layer on, so this is for small layers or
    few samples.

    Parameters
    ----------
    silence : {"baseline", "zero"}
        What a silenced unit gives: its value at the baseline input, or zero (which before a batch
        norm is not silence).
    baseline : float or array
        The baseline input.

    Examples
    --------
    >>> import retina_codec as rc
    >>> rc.methods.Ablation()
    Ablation(silence='baseline', baseline=0.0)
    """

    silence: str = "baseline"
    baseline: Baseline = field(default=0.0, compare=False)

    def __post_init__(self) -> None:
        require_choice(self.silence, ["baseline", "zero"], "silence")


def baselines_of(
    method: Method, shape: tuple[int, ...], dims: tuple[str, ...] | None = None
) -> torch.Tensor:
    """Baselines of a method as (baseline, ...), each of the `shape` of one input.

    A DataArray is brought into the order of `dims`, where those of one input have names.

    Raises
    ------
    ValueError
        If it is of another shape, or has NaN.
    """
    given = _ordered(method.baseline, dims)
    try:
        values = _plain(given).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"baseline={method.baseline!r}; expected a number or an array of numbers"
        ) from error
    if values.ndim == 0:
        values = np.full((1,) + (1,) * len(shape), float(values))
    elif values.shape == shape:
        values = values[None]
    elif values.ndim != len(shape) + 1 or values.shape[1:] != shape or not len(values):
        raise ValueError(
            f"baseline has shape {values.shape}; expected a number, the shape {shape} of one "
            f"input, or (baseline, {', '.join(map(str, shape))}) to average over several"
        )
    if not np.isfinite(values).all():
        raise ValueError("baseline has NaN or infinite values; replace them")
    return torch.from_numpy(np.ascontiguousarray(values))


def _ordered(baseline: Baseline, dims: tuple[str, ...] | None) -> Baseline:
    if not isinstance(baseline, xr.DataArray) or not baseline.ndim or dims is None:
        return baseline
    if not set(dims) <= set(baseline.dims):
        raise ValueError(
            f"baseline has dims {tuple(baseline.dims)}; expected {dims}, or a further one to "
            "average over: rename them with .rename, or give its .values"
        )
    return baseline.transpose(..., *dims)


def _plain(baseline: Baseline) -> np.ndarray:
    """Values of a number, an array, a DataArray or a tensor on any device."""
    if isinstance(baseline, torch.Tensor):
        return baseline.detach().cpu().numpy()
    return np.asarray(baseline.values if isinstance(baseline, xr.DataArray) else baseline)


def described(method: Method) -> str:
    """Say what a method is in one line, an array as its shape and digest."""
    import hashlib

    values = _plain(method.baseline)
    if values.ndim == 0:
        return repr(method)
    digest = hashlib.sha256(np.ascontiguousarray(values, np.float64).tobytes()).hexdigest()[:16]
    text = ", ".join(
        f"{name}={f'array{values.shape} {digest}' if name == 'baseline' else repr(value)}"
        for name, value in vars(method).items()
    )
    return f"{type(method).__name__}({text})"
