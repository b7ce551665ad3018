"""From the contributions of a layer's units, batch by batch, to labelled variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
import xarray as xr
from torch import Tensor

from retina_codec._common.checks import nearest_names, require_choice
from retina_codec.models.model import Model, Samples, UnitLayout

SIGNS = ("positive", "negative")
UNIT_DIMS = ("channel", "lag", "y", "x", "token")
# Layouts of layers that the model says nothing of, by the number of dims after the sample.
LAYOUTS = {
    1: UnitLayout(("channel",)),
    3: UnitLayout(("channel", "y", "x")),
    4: UnitLayout(("channel", "lag", "y", "x")),
}


def layout_of(
    name: str, shape: tuple[int, ...], model: Model, given: Mapping[str, Sequence[str]]
) -> UnitLayout:
    """Say what the dims of a layer's output (sample, ...) are.

    Raises
    ------
    ValueError
        If nobody says it, or the dims said do not fit.
    """
    layout = model.layouts.get(name, LAYOUTS.get(len(shape) - 1))
    if name in given:
        told = given[name]
        dims: tuple[str, ...] = (told,) if isinstance(told, str) else tuple(told)
        for dim in dims:
            require_choice(dim, UNIT_DIMS, f"layer_dims[{name!r}]")
        layout = UnitLayout(dims)
    if (
        layout is None
        or len(layout.dims) != len(shape) - 1
        or len(set(layout.dims)) != len(layout.dims)
    ):
        wrong = "" if layout is None else f", not {layout.dims}"
        raise ValueError(
            f"layer {name!r} gives a tensor of shape {shape} for a batch; say what its dims after "
            f"the sample are, with layer_dims={{{name!r}: (...)}} of {', '.join(UNIT_DIMS)}{wrong}"
        )
    if layout.grid is not None:
        patches = shape[1 + layout.dims.index("token")] - layout.class_tokens
        if patches != layout.grid[0] * layout.grid[1]:
            raise ValueError(
                f"layer {name!r} has {patches} patch tokens; its layout says {layout.grid}"
            )
    return layout


@dataclass(frozen=True)
class Reduction:
    """What is kept of the contributions: signs apart or not, and the dims summed over."""

    split_sign: bool = False
    sum_over: tuple[str, ...] = ()
    keep_lag: bool = False

    def __post_init__(self) -> None:
        for dim in self.sum_over:
            require_choice(dim, UNIT_DIMS, "sum_over")
        if self.keep_lag and "lag" in self.sum_over:
            raise ValueError("keep_lag=True and sum_over has 'lag': give one of them")


@dataclass(frozen=True)
class Variable:
    """An array to be: dims, sizes without those of sample and target, and attrs."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    attrs: dict[str, str]


class LayerResult:
    """One layer's variables: what they look like, and a batch reduced to them.

    Parameters
    ----------
    name : str
        The layer.
    shape : tuple of int
        Of its output, samples first.
    layout : UnitLayout
        Of its output.
    samples : Samples
        That say where units look.
    reduction : Reduction
        What is kept.
    """

    def __init__(
        self,
        name: str,
        shape: tuple[int, ...],
        layout: UnitLayout,
        samples: Samples,
        reduction: Reduction,
    ) -> None:
        self.name = name
        self.reduction = reduction
        self.layout = layout
        sizes = dict(zip(layout.dims, shape[1:], strict=True))
        if layout.grid is not None:
            del sizes["token"]
            sizes["y"], sizes["x"] = layout.grid
        # Always in the same order, whatever the network's.
        self.sizes = {dim: sizes[dim] for dim in UNIT_DIMS if dim in sizes}
        over = set(reduction.sum_over) | (set() if reduction.keep_lag else {"lag"})
        unknown = [
            dim
            for dim in reduction.sum_over
            # A dense layer has no places, and most have no lags: the sum is itself.
            if dim not in self.sizes
            and not (dim in ("y", "x", "lag") and set(sizes) <= {"channel"})
        ]
        if unknown:
            raise ValueError(
                f"layer {name!r} has no dim {unknown[0]!r} to sum over; "
                f"{nearest_names(unknown[0], self.sizes)}"
            )
        self.summed = tuple(dim for dim in self.sizes if dim in over)
        self.kept = tuple(dim for dim in self.sizes if dim not in over)
        # Up to the first that the layer lacks: what is asked for is told by its place alone.
        asked = list(takewhile(self.sizes.__contains__, ("channel", "y", "x")))
        places = {}
        if asked:
            places = samples.layer_coords(name, (shape[0], *(self.sizes[dim] for dim in asked)))
        self.coords = {dim: places[dim] for dim in self.kept if dim in places}
        for dim in self.kept:
            if dim not in self.coords:
                attrs = {"units": "index"} if dim != "channel" else {}
                self.coords[dim] = xr.DataArray(np.arange(self.sizes[dim]), dims=dim, attrs=attrs)

    def variables(self, units: str, extras: Sequence[str]) -> dict[str, Variable]:
        """Say what the variables over units are to be: their dims after sample and target."""
        shape = tuple(self.sizes[dim] for dim in self.kept)
        sign = (("sign",), (2,)) if self.reduction.split_sign else ((), ())
        attrs = {"units": units, "long_name": f"contribution of {self.name}"}
        found = {"contribution": Variable((*sign[0], *self.kept), (*sign[1], *shape), attrs)}
        if self.layout.class_tokens:
            kept = tuple(dim for dim in self.kept if dim not in ("y", "x"))
            sizes = tuple(self.sizes[dim] for dim in kept)
            found["contribution_class_token"] = Variable(
                (*sign[0], *kept),
                (*sign[1], *sizes),
                {"units": units, "long_name": f"contribution of the class tokens of {self.name}"},
            )
        if "activation" in extras:
            attrs = {"units": "1", "long_name": f"activation of {self.name}"}
            found["activation"] = Variable(self.kept, shape, attrs)
        if "gradient" in extras:
            attrs = {"units": units, "long_name": f"gradient with respect to {self.name}"}
            found["gradient"] = Variable(self.kept, shape, attrs)
        return found

    def reduce(self, contribution: Tensor) -> dict[str, np.ndarray]:
        """Reduce contributions (sample, target, units) to the variables; signs before sums."""
        patches, rest = self._apart(contribution)
        reduced = {"contribution": self._signed(patches, self.sizes, self.summed)}
        if rest is not None:
            sizes = {dim: n for dim, n in self.sizes.items() if dim not in ("y", "x")}
            summed = (*(dim for dim in self.summed if dim in sizes), "token")
            reduced["contribution_class_token"] = self._signed(
                rest, {**sizes, "token": self.layout.class_tokens}, summed
            )
        return reduced

    def summed_up(self, values: Tensor) -> np.ndarray:
        """Sum an activation or gradient (sample, target, units) over the dims summed over."""
        return self._sum(self._apart(values)[0], list(self.sizes), self.summed, 2)

    def _apart(self, values: Tensor) -> tuple[Tensor, Tensor | None]:
        """Units in the order of `sizes`, patches as (y, x); class tokens for themselves."""
        dims = list(self.layout.dims)
        rest = None
        if self.layout.grid is not None:
            axis = 2 + dims.index("token")
            if self.layout.class_tokens:
                rest = values.narrow(axis, 0, self.layout.class_tokens)
                order = [2 + dims.index(dim) for dim in UNIT_DIMS if dim in dims]
                rest = rest.permute(0, 1, *order)
            start = self.layout.class_tokens
            values = values.narrow(axis, start, values.shape[axis] - start)
            values = values.unflatten(axis, self.layout.grid)
            dims[axis - 2 : axis - 1] = ["y", "x"]
        return values.permute(0, 1, *(2 + dims.index(dim) for dim in self.sizes)), rest

    def _signed(
        self, values: Tensor, sizes: Mapping[str, int], summed: Sequence[str]
    ) -> np.ndarray:
        dims = [dim for dim in UNIT_DIMS if dim in sizes]
        if not self.reduction.split_sign:
            return self._sum(values, dims, summed, 2)
        parts = [values.clamp(min=0), values.clamp(max=0)]
        return np.stack([self._sum(part, dims, summed, 2) for part in parts], axis=2)

    @staticmethod
    def _sum(values: Tensor, dims: Sequence[str], summed: Sequence[str], first: int) -> np.ndarray:
        axes = [first + i for i, dim in enumerate(dims) if dim in summed]
        reduced: np.ndarray = (values.sum(axes) if axes else values).cpu().numpy()
        return reduced
