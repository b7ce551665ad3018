"""Which units of a layer are acted on: channels by label, or units by labelled places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from retina_codec._common.checks import nearest_names, require_array
from retina_codec.attribution.identity import described_data
from retina_codec.attribution.reduction import UNIT_DIMS, LayerResult, Reduction
from retina_codec.models.model import Samples, UnitLayout

# Labels that are written out.
LISTED = 8


@dataclass(frozen=True, eq=False)
class Choice:
    """Channels or units of one layer; all of it if neither is given, all others if `others`."""

    layer: str
    channels: tuple[Any, ...] | None = None
    units: xr.DataArray | None = None
    others: bool = False

    @classmethod
    def of(cls, layer: str, given: Any, argument: str, *, others: bool) -> Choice:
        """Take what a user gave for a layer: None, a label, labels, or a mask of units.

        Raises
        ------
        TypeError, ValueError
            If a mask is not of booleans over dims of units, or there is nothing in it.
        """
        if given is None:
            return cls(layer, others=others)
        if isinstance(given, xr.DataArray) and given.dtype == bool:
            unknown = [dim for dim in given.dims if dim not in UNIT_DIMS]
            if unknown or not given.ndim:
                raise ValueError(
                    f"{argument} has dims {tuple(given.dims)}; expected a mask over some of "
                    f"{', '.join(UNIT_DIMS)}: select one sample and one output with .isel"
                )
            return cls(layer, units=given.reset_coords(drop=True), others=others)
        labels = np.atleast_1d(np.asarray(given)).ravel().tolist()
        if not labels:
            raise ValueError(f"{argument} is empty; expected at least one label")
        if len(set(labels)) != len(labels):
            raise ValueError(f"{argument}={labels} names a channel twice")
        return cls(layer, channels=tuple(labels), others=others)

    def require_mask(self) -> xr.DataArray:
        """Return the mask of units; TypeError if it is none."""
        return require_array(self.units, "units")

    def __str__(self) -> str:
        if self.units is not None:
            said = described_data(self.units)
            dims = " x ".join(map(str, self.units.dims))
            chosen = (
                f"{int(self.units.sum())} of {self.units.size} units over {dims} "
                f"({said['data values'].split()[-1]} {said['data coordinates']})"
            )
        elif self.channels is None:
            chosen = "all units"
        else:
            listed = ", ".join(map(str, self.channels[:LISTED]))
            more = len(self.channels) - LISTED
            chosen = f"channel{'s' * (len(self.channels) > 1)} {listed}"
            chosen += f" and {more} more" if more > 0 else ""
        return f"{self.layer}: {'all but ' * self.others}{chosen}"

    def settings(self) -> list[Any]:
        """Say all of it in plain values."""
        return [str(self), [] if self.channels is None else [str(c) for c in self.channels]]

    def mask(self, shape: Sequence[int], layout: UnitLayout, labels: np.ndarray) -> Tensor:
        """Mark the units of a layer whose output is (sample, ...) of this shape.

        Raises
        ------
        ValueError
            If there is no such channel, or a mask is of other dims or sizes.
        """
        sizes = dict(zip(layout.dims, shape[1:], strict=True))
        if layout.grid is not None:
            sizes["y"], sizes["x"] = layout.grid
        marked = xr.DataArray(True)
        if self.channels is not None:
            if "channel" not in sizes:
                raise ValueError(
                    f"layer {self.layer!r} has dims {tuple(sizes)} and no channels; give units="
                )
            known = {str(label): place for place, label in enumerate(labels)}
            for label in self.channels:
                if str(label) not in known:
                    raise ValueError(
                        f"layer {self.layer!r} has no channel {label!r}; "
                        f"{nearest_names(label, labels)}"
                    )
            places = [known[str(label)] for label in self.channels]
            marked = xr.DataArray(np.isin(np.arange(sizes["channel"]), places), dims="channel")
        elif self.units is not None:
            wrong = {
                dim: n for dim, n in self.units.sizes.items() if sizes.get(str(dim)) != n
            }  # places are compared where the data are known
            if wrong:
                raise ValueError(
                    f"units has {wrong}; layer {self.layer!r} has {sizes}: take the mask from "
                    "contributions or activations of this layer"
                )
            marked = self.units.drop_vars(list(self.units.coords))
        if self.others:
            marked = ~marked
        return _as_tensor(marked, shape, layout)

    def require_places(self, shape: Sequence[int], layout: UnitLayout, samples: Samples) -> None:
        """Raise ValueError unless a mask's channels and places are those of the layer's units."""
        if self.units is None:
            return
        result = LayerResult(
            self.layer, tuple(shape), layout, samples, Reduction(keep_lag="lag" in layout.dims)
        )
        for dim in self.units.dims:
            if dim not in self.units.coords:
                continue
            own = result.coords[str(dim)]
            if not np.array_equal(self.units[dim].values, own.values):
                raise ValueError(
                    f"units has {dim}={_short(self.units[dim].values)}; layer {self.layer!r} has "
                    f"{_short(own.values)} for these data: take the mask from contributions or "
                    "activations of this layer, to data with the same places"
                )


def _short(values: np.ndarray) -> str:
    listed = ", ".join(map(str, values[:3]))
    return f"[{listed}{', ...' if len(values) > 3 else ''}]"


def _as_tensor(marked: xr.DataArray, shape: Sequence[int], layout: UnitLayout) -> Tensor:
    """Lay a mask over labelled dims out as the layer does; class tokens go with their channel."""
    if layout.grid is not None and {"y", "x"} & set(marked.dims):
        full = marked.broadcast_like(xr.DataArray(np.zeros(layout.grid), dims=("y", "x"))).stack(
            token=("y", "x"), create_index=False
        )
        # What stands for the whole is at no place.
        marked = full.pad(token=(layout.class_tokens, 0), constant_values=False).astype(bool)
    template = xr.DataArray(np.zeros(tuple(shape[1:]), dtype=bool), dims=layout.dims)
    whole = marked.broadcast_like(template).transpose(*layout.dims)
    return torch.from_numpy(np.ascontiguousarray(whole.values))
