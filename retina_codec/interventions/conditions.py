"""Many ways to silence the same layers, run on one batch after the other.

Of each batch the first of the layers is computed once; for each condition only what follows it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from retina_codec._common.progress import progress_bar
from retina_codec.attribution.methods import Ablation
from retina_codec.interventions.choice import Choice
from retina_codec.interventions.rest import ROWS, Front, Rest, first_of
from retina_codec.interventions.silencing import Silencing, nothing, scaled, sharing_weights
from retina_codec.models.model import BATCH_SIZE, Model, Samples


class Conditions:
    """A model of which some layers can be silenced in many ways.

    Parameters
    ----------
    model : Model
        Not changed.
    layers : sequence of str
        Its layers.
    how : Ablation
        What a silenced unit gives.
    samples : Samples
        Of the model, of which the first give the layers' shapes.
    """

    def __init__(
        self, model: Model, layers: Sequence[str], how: Ablation, samples: Samples
    ) -> None:
        self._model = sharing_weights(model)
        choices = {name: Choice(name) for name in layers}
        self._silencing = Silencing(sharing_weights(model), choices, 0.0, how, by_sample=True)
        self._silencing.put_on(self._model)
        self._samples = samples
        network = self._model.network
        modules = {name: self._model.layer(name) for name in layers}
        probe = next(iter(samples.batches(min(2, len(samples))))).inputs
        with torch.no_grad(), self._silencing.sharing(nothing(layers, probe)):
            self.first = first_of(network, modules, probe)
            self._rest = Rest(network, modules[self.first], probe)
            self.at_baseline = self._silencing.source.network(self._silencing.baseline_input(probe))
        still = self._silencing.still(probe)
        # Number of channels of each layer, and where the channel stands among its dims.
        self.axes = {name: still[name].layout.dims.index("channel") for name in layers}
        self.n_channels = {name: still[name].chosen.shape[axis] for name, axis in self.axes.items()}
        self.labels = {
            name: getattr(model, "channels", {}).get(name, np.arange(n))
            for name, n in self.n_channels.items()
        }
        self.shapes = {name: tuple(still[name].chosen.shape) for name in layers}

    def outputs(
        self,
        masks: Sequence[Mapping[str, np.ndarray]],
        batch_size: int = BATCH_SIZE,
        *,
        progress: bool = False,
    ) -> Iterator[tuple[slice, Tensor, Iterator[tuple[int, Tensor]]]]:
        """Give for each batch its samples, its outputs as it is, and those of each condition.

        `masks` says for each condition which channels (channel,) or units (the layer's dims) of
        each layer are silenced.
        """
        ready = [
            {name: torch.from_numpy(self._laid_out(name, mask)) for name, mask in one.items()}
            for one in masks
        ]
        n_batches = -(-len(self._samples) // batch_size)
        for batch in progress_bar(
            self._samples.batches(batch_size), "ablation", total=n_batches, shown=progress
        ):
            with torch.no_grad(), self._silencing.sharing(nothing(self.axes, batch.inputs)):
                front = self._rest.front(batch.inputs)
                whole = front.outputs(front.activation)
            rest = self._silencing.still(batch.inputs)[self.first].values
            yield batch.index, whole, self._each(front, rest, ready)

    def _each(
        self, front: Front, rest: Tensor, masks: Sequence[Mapping[str, Tensor]]
    ) -> Iterator[tuple[int, Tensor]]:
        """Give the number of each condition, and the outputs of one batch in it."""
        n = len(front.activation)
        together = max(1, ROWS // n)
        for start in range(0, len(masks), together):
            some = masks[start : start + together]
            shares = {
                name: torch.stack([one[name] for one in some])
                .to(rest.device)
                .repeat_interleave(n, 0)
                for name in self.axes
            }
            here = front.activation.repeat(len(some), *[1] * (front.activation.ndim - 1))
            with self._silencing.sharing(shares):
                found = front.outputs(scaled(here, rest, shares[self.first], 0.0))
            for i, outputs in enumerate(found.unflatten(0, (len(some), n))):
                yield start + i, outputs

    def _laid_out(self, name: str, mask: np.ndarray) -> np.ndarray:
        """Lay a mask of channels out as one of units, which other dims broadcast."""
        shape = self.shapes[name]
        if mask.shape == shape:
            return mask
        ones = [1] * len(shape)
        ones[self.axes[name]] = -1
        return mask.reshape(ones)
