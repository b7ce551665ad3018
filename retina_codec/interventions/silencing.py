"""Layers that give other values than their own: hooks on a copy that shares the weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from retina_codec.attribution.capture import captured
from retina_codec.attribution.methods import Ablation, baselines_of
from retina_codec.attribution.reduction import layout_of
from retina_codec.interventions.choice import Choice
from retina_codec.models.model import Model, Samples, UnitLayout

M = TypeVar("M", bound=Model)


def sharing_weights(model: M) -> M:
    """Copy a model, all but its weights and buffers: those are the model's own.

    The copy has modules of its own, so that hooks on one network are not on the other.
    """
    tensors = (*model.network.parameters(), *model.network.buffers())
    copied = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    copied.network.eval()
    return copied


@dataclass(frozen=True, eq=False)
class Still:
    """A layer at rest: what it gives when silenced (1, ...), and which units are acted on (...)."""

    values: Tensor
    chosen: Tensor
    layout: UnitLayout


class Silencing:
    """What some layers of a network give: ``a0 + strength (a - a0)`` in the units chosen.

    a0 is the layer's value at the baseline input, in the network as it was before, or zero. Other
    units give what they gave, bit for bit. With `by_sample`, a share f of each unit in each sample
    is acted on: ``a + (strength - 1) f (a - a0)``; it must be given while the network runs.

    Parameters
    ----------
    source : Model
        The model as it was before, a copy of its own; it shares its weights.
    choices : mapping of str to Choice
        What is acted on, by layer.
    strength : float
        0 silences, 1 leaves as it is, 2 doubles the deviation from a0.
    how : Ablation
        What a silenced unit gives, and the baseline input.
    by_sample : bool
        Whether shares are given for each sample.
    """

    def __init__(
        self,
        source: Model,
        choices: Mapping[str, Choice],
        strength: float,
        how: Ablation,
        *,
        by_sample: bool = False,
    ) -> None:
        self.source = source
        self.choices = dict(choices)
        self.strength = strength
        self.how = how
        self.by_sample = by_sample
        self._shares: Mapping[str, Tensor] | None = None
        self._known: tuple[Any, dict[str, Still]] = (None, {})
        self._now: dict[str, Still] = {}
        # Frames of a sample, where the network takes segments of frames.
        self._history: int | None = getattr(source, "history", None)

    def put_on(self, model: Model) -> None:
        """Act on the layers of a model, which is to be a copy of `source`."""
        model.network.register_forward_pre_hook(_Begin(self))
        for name in self.choices:
            model.layer(name).register_forward_hook(_Change(self, name))

    @contextmanager
    def sharing(self, shares: Mapping[str, Tensor]) -> Iterator[None]:
        """Act on these shares (row, ...) of the layers' units while the network runs inside."""
        self._shares = shares
        try:
            yield
        finally:
            self._shares = None

    def begin(self, inputs: Tensor) -> None:
        """Find out what layers give at rest, as the network begins to run."""
        if self.by_sample and self._shares is None and self.strength != 1:
            raise ValueError(
                "modes are silenced in each sample by their loadings there, so that this model "
                "gives outputs of data only, by predict; for contributions or gradients of what is "
                "left, silence the mode's channels or units"
            )
        self._now = self.still(inputs)

    def still(self, inputs: Tensor) -> dict[str, Still]:
        """Layers at rest, for network inputs like these."""
        known, found = self._known
        key = self._situation(inputs)
        if known != key:
            found = self._at_rest(inputs)
            self._known = key, found
        return found

    def _situation(self, inputs: Tensor) -> Any:
        """Say what values at rest depend on: frames, arithmetic, weights (which may learn)."""
        network = self.source.network
        kind = inputs.device.type
        return (
            tuple(inputs.shape[1:] if self._history is None else inputs.shape[2:]),
            inputs.dtype,
            inputs.device,
            torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind),
            tuple(
                (tensor.data_ptr(), tensor._version)
                for tensor in (*network.parameters(), *network.buffers())
            ),
        )

    def baseline_input(self, inputs: Tensor) -> Tensor:
        """Give the baseline as network input of one sample, for inputs like these."""
        history = self._history
        shape = tuple(inputs.shape[1 if history is None else 2 :])
        baseline = baselines_of(self.how, shape)
        if len(baseline) != 1:
            raise ValueError(
                f"baseline has {len(baseline)} inputs; expected one, at which silenced units stay"
            )
        one = baseline.to(inputs.device, inputs.dtype)
        whole = (1, *shape) if history is None else (1, history, *shape)
        return one.expand(whole).clone()

    def _at_rest(self, inputs: Tensor) -> dict[str, Still]:
        model = self.source
        one = self.baseline_input(inputs)
        modules = {name: model.layer(name) for name in self.choices}
        with torch.inference_mode(False), torch.no_grad(), captured(modules) as caught:
            model.network(one)
        found = {}
        for name, choice in self.choices.items():
            if name not in caught:
                raise ValueError(f"layer {name!r} does not run in the forward pass: choose another")
            values = caught[name].detach()
            if len(values) != 1:
                raise ValueError(
                    f"layer {name!r} gives {len(values)} rows for one sample; expected one a "
                    "sample: take a later layer"
                )
            if self.how.silence == "zero":
                values = torch.zeros_like(values)
            layout = layout_of(name, tuple(values.shape), model, {})
            labels = np.arange(0)
            if "channel" in layout.dims:
                n = values.shape[1 + layout.dims.index("channel")]
                labels = getattr(model, "channels", {}).get(name, np.arange(n))
            chosen = choice.mask(values.shape, layout, labels).to(inputs.device)
            found[name] = Still(values, chosen, layout)
        return found

    def require_places(self, samples: Samples) -> None:
        """Raise ValueError unless masks of units are of the places that these data have."""
        if any(choice.units is not None for choice in self.choices.values()):
            still = self.still(next(iter(samples.batches(1))).inputs)
            for name, choice in self.choices.items():
                choice.require_places(still[name].values.shape, still[name].layout, samples)

    def change(self, name: str, output: Tensor) -> Tensor:
        """Give what a layer gives instead of `output` (row, ...)."""
        if self.strength == 1:
            return output
        still = self._now[name]
        if self._shares is None:
            return scaled(output, still.values, still.chosen, self.strength)
        return scaled(output, still.values, self._shares[name], self.strength)


def scaled(output: Tensor, rest: Tensor, share: Tensor, strength: float) -> Tensor:
    """Scale the deviation of a `share` of units from what they give at rest."""
    if share.dtype == torch.bool:
        # Others exactly as they were, and silenced ones exactly at rest, whatever they gave.
        silent = rest if strength == 0 else rest + strength * (output - rest)
        return torch.where(share, silent, output)
    return output + (strength - 1) * share * (output - rest)


def nothing(layers: Iterable[str], like: Tensor) -> dict[str, Tensor]:
    """Shares with which layers give what they gave."""
    return {name: like.new_zeros((), dtype=torch.bool) for name in layers}


class _Begin:
    """Tells a silencing that its network begins to run."""

    def __init__(self, silencing: Silencing) -> None:
        self._silencing = silencing

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._silencing.begin(inputs[0])


class _Change:
    """Lets a layer give what a silencing says. No closure: copies of a model copy it along."""

    def __init__(self, silencing: Silencing, name: str) -> None:
        self._silencing = silencing
        self._name = name

    def __call__(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return self._silencing.change(self._name, output)
