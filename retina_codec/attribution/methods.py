"""How a target is divided among hidden units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from retina_codec._common.checks import require_at_least, require_choice

# Weights of the gradients at the lower and the upper end of each step.
RULES = {"trapezoid": (0.5, 0.5), "left": (1.0, 0.0), "right": (0.0, 1.0)}


@runtime_checkable
class Method(Protocol):
    """A way to divide a target: which baseline, and how many steps from it."""

    @property
    def baseline(self) -> float:
        """Value of the baseline input, after the model's normalisation."""
        ...


@dataclass(frozen=True)
class IntegratedGradients:
    """Gradients integrated along the straight path from a baseline *input* to the input.

    With x(s) = x0 + s (x - x0), a(s) the hidden layer and T(s) the target along the path,

        c_j = integral dT/da_j da_j ~ sum_k 1/2 (g_k + g_(k+1)) (a_(k+1) - a_k)

    (trapezoid rule, steps + 1 evaluations). Over a layer that cuts every path from input to
    output, the contributions sum to T(x) - T(x0) up to the integration error.

    Parameters
    ----------
    steps : int
        Steps along the path.
    baseline : float
        The baseline input after the model's normalisation: 0 is the mean grey.
    rule : {"trapezoid", "left", "right"}
        How gradients are weighted within a step.

    References
    ----------
    Melander et al., ICLR 2026, arXiv 2603.06557; Dhamdhere et al., ICLR 2019 (conductance).

    Examples
    --------
    >>> import retina_codec as rc
    >>> rc.methods.IntegratedGradients(steps=10)
    IntegratedGradients(steps=10, baseline=0.0, rule='trapezoid')
    """

    steps: int = 20
    baseline: float = 0.0
    rule: str = "trapezoid"

    def __post_init__(self) -> None:
        require_at_least(self.steps, 1, "steps")
        require_choice(self.rule, list(RULES), "rule")


@dataclass(frozen=True)
class ActivationGradient:
    """Activation times gradient, at the input itself.

    Parameters
    ----------
    baseline : float
        Baseline of the completeness error, which this method does not aim to make small.

    Examples
    --------
    >>> import retina_codec as rc
    >>> rc.methods.ActivationGradient()
    ActivationGradient(baseline=0.0)
    """

    baseline: float = 0.0
