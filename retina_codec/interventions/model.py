"""A model with something silenced: one of the same class, which shares the weights."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xarray as xr
from torch import Tensor

from retina_codec.attribution.methods import Ablation, described
from retina_codec.interventions.choice import Choice
from retina_codec.interventions.of_modes import ModeChoice, passes_without_modes
from retina_codec.interventions.silencing import Silencing, sharing_weights
from retina_codec.models.model import Model, Samples


class Silenced(Model):
    """What is the same in all models with something silenced; mixed into the model's own class."""

    _silencing: Silencing
    _modes: ModeChoice | None
    _done: tuple[str, ...]

    def __init_subclass__(cls) -> None:
        """Leave out what the other bases do: this is no architecture that could be loaded."""

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}; {'; '.join(self._done)})"

    def _settings(self) -> dict[str, Any]:
        own: list[Any] = [str(self._modes)] if self._modes else []
        own += [choice.settings() for choice in self._silencing.choices.values()]
        how = [described(self._silencing.how), self._silencing.strength]
        if self._modes is not None:
            how += [described(self._modes.method), repr(self._modes.target)]
        return {**super()._settings(), "silenced": [*self._done, own, how]}

    def samples(self, data: Any, argument: str = "data") -> Samples:
        """Lay out `data` as the model does, and see that units chosen by place have that place."""
        samples = super().samples(data, argument)
        self._silencing.require_places(samples)
        return samples

    def _passes(self, samples: Samples, batch_size: int) -> Iterator[tuple[slice, Tensor]]:
        # Where nothing changes, the network runs as it is, to the last bit.
        if self._modes is None or self._silencing.strength == 1:
            yield from super()._passes(samples, batch_size)
        else:
            yield from passes_without_modes(self, self._silencing, self._modes, samples)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Refuse: what is saved is the model before, and the call that silenced.

        Raises
        ------
        TypeError
            Always, with the way to keep it.
        """
        raise TypeError(
            f"a model with something silenced ({'; '.join(self._done)}) has no folder format: "
            "save the model that it was made from, and call rc.ablate or rc.preserve again on "
            "what rc.load_model gives"
        )


@functools.cache
def _silenced_class(kind: type[Model]) -> type[Silenced]:
    return type(kind.__name__, (Silenced, kind), {"__doc__": kind.__doc__})


def silenced_copy(
    model: Model,
    choices: dict[str, Choice],
    strength: float,
    how: Ablation,
    modes: ModeChoice | None = None,
) -> Silenced:
    """Copy a model without its weights, and silence something in the copy."""
    silencing = Silencing(
        sharing_weights(model), choices, strength, how, by_sample=modes is not None
    )
    copied: Any = sharing_weights(model)
    if not isinstance(copied, Silenced):
        kind: Any = type(model)
        copied.__class__ = _silenced_class(kind)
    silencing.put_on(copied)
    acted = [str(modes)] if modes is not None else [str(c) for c in choices.values()]
    what = "silenced" if strength == 0 else f"scaled by {strength:g}"
    if how.silence == "zero":
        what += " to zero" if strength == 0 else " about zero"
    done = tuple(f"{text} {what}" for text in acted)
    copied._done = (*getattr(model, "_done", ()), *done)
    copied._silencing, copied._modes = silencing, modes
    silenced: Silenced = copied
    return silenced


def ordered_baseline(baseline: Any) -> Any:
    """Bring a DataArray of one frame or image into the order that networks have."""
    if not isinstance(baseline, xr.DataArray) or not baseline.ndim:
        return baseline
    unknown = [dim for dim in baseline.dims if dim not in ("color", "y", "x")]
    if unknown:
        raise ValueError(
            f"baseline has dims {tuple(baseline.dims)}; expected those of one frame or image, "
            "of color, y, x"
        )
    return baseline.transpose("color", "y", "x", missing_dims="ignore")
