"""Modes silenced in the network: the share of each unit that is theirs, sample by sample."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from retina_codec._common.checks import require_choice
from retina_codec.attribution.budget import MEMORY_BUDGET
from retina_codec.attribution.capture import undisturbed
from retina_codec.attribution.identity import described_data
from retina_codec.attribution.methods import Method
from retina_codec.attribution.reduction import SIGNS, UNIT_DIMS, Reduction
from retina_codec.attribution.run import Options, Run
from retina_codec.attribution.targets import Target
from retina_codec.interventions.rest import ROWS, Rest, first_of
from retina_codec.interventions.silencing import Silencing, nothing, scaled
from retina_codec.models.model import Batch, Model, Samples, UnitLayout
from retina_codec.modes import Modes


@dataclass(frozen=True, eq=False)
class ModeChoice:
    """Modes to be silenced, and how the contributions are computed that tell their loadings."""

    modes: Modes
    chosen: tuple[int, ...]
    layers: tuple[str, ...]
    method: Method
    target: Target
    others: bool = False

    @classmethod
    def of(
        cls,
        modes: Modes,
        chosen: int | Sequence[int] | None,
        layers: Sequence[str],
        method: Method,
        target: Target,
        *,
        others: bool,
    ) -> ModeChoice:
        """Check what a user gave.

        Raises
        ------
        ValueError
            If there is no such mode, or the modes are of other layers.
        """
        if chosen is None:
            raise ValueError("modes without mode: say which, by their labels, as mode=[0, 3]")
        labels = tuple(int(label) for label in np.atleast_1d(chosen))
        for label in labels:
            require_choice(label, modes.dictionary["mode"].values.tolist(), "mode")
        fitted = _layers_of(modes)
        if len(fitted) not in (0, len(layers)) or any(
            of not in (None, name) for of, name in zip(fitted, layers, strict=False)
        ):
            raise ValueError(
                f"modes were fitted to contributions of {', '.join(map(str, fitted))}, but "
                f"layer is {', '.join(layers)}: name the layers of the modes, in their order"
            )
        return cls(modes, labels, tuple(layers), method, target, others)

    def __str__(self) -> str:
        digest = described_data(self.modes.dictionary)["data values"].split()[-1]
        listed = ", ".join(map(str, self.chosen))
        return (
            f"{', '.join(self.layers)}: {'all but ' * self.others}mode"
            f"{'s' * (len(self.chosen) > 1)} {listed} of {self.modes.dictionary.sizes['mode']} "
            f"({digest})"
        )

    @property
    def dims(self) -> set[str]:
        """Dims of contributions that the modes know, as columns or as samples."""
        features = json.loads(self.modes.attrs["parameters"])["features"]
        return {*features, *map(str, self.modes.loadings.dims)} - {"mode"}

    def shares(self, contributions: Mapping[str, xr.DataArray]) -> dict[str, xr.DataArray]:
        """Which share of each unit is the modes', from contributions of single units.

        A unit belongs to the column of its channel and, where signs are columns, to that of the
        sign that its contribution has in the sample.
        """
        with xr.set_options(arithmetic_join="exact"):
            return self._shares(contributions)

    def _shares(self, contributions: Mapping[str, xr.DataArray]) -> dict[str, xr.DataArray]:
        columns = {name: _columns(c, self.dims) for name, c in contributions.items()}
        single = "column" not in self.modes.dictionary.dims
        given = next(iter(columns.values())) if single else columns
        share = self.modes.share(self.chosen, self.modes.transform(given))
        shares = share if isinstance(share, dict) else {self.layers[0]: share}
        found = {}
        for name, c in contributions.items():
            of_unit = shares[name]
            if "sign" in of_unit.dims:
                positive, negative = (of_unit.sel(sign=s, drop=True) for s in SIGNS)
                of_unit = xr.where(c > 0, positive, xr.where(c < 0, negative, 0.0))
            of_unit = of_unit.broadcast_like(c).transpose(*c.dims)
            found[name] = 1 - of_unit if self.others else of_unit
        return found


def _layers_of(modes: Modes) -> list[str | None]:
    """Layers that modes were fitted to, as far as their attrs tell."""
    about = json.loads(modes.attrs["parameters"]).get("contribution", {})
    prefix = "contribution of "
    names: list[str | None] = []
    for key, attrs in about.items():
        said = str(attrs.get("long_name", ""))
        if said.startswith("activation of "):
            raise ValueError(
                f"modes were fitted to the {said}; silencing needs each unit's share of a "
                "contribution: fit modes to contributions, or silence the mode's channels"
            )
        name = said.removeprefix(prefix) if said.startswith(prefix) else None
        names.append(name if name or len(about) == 1 else key)
    return names


def _columns(contribution: xr.DataArray, known: set[str]) -> xr.DataArray:
    """Contributions of single units as the modes know them: signs first, then sums."""
    over = [dim for dim in contribution.dims if dim in UNIT_DIMS and dim not in known]
    if "sign" not in known:
        return contribution.sum(over)
    parts = [contribution.clip(min=0).sum(over), contribution.clip(max=0).sum(over)]
    return xr.concat(parts, xr.DataArray(list(SIGNS), dims="sign", name="sign"))


class Passes:
    """Batches of a model's data with the contributions of every unit, to be run without some.

    Parameters
    ----------
    model : Model
        With the hooks of `silencing` on it.
    silencing : Silencing
        By sample; its source is the model as it was before.
    layers : sequence of str
        Those that are acted on.
    method, target
        How contributions are computed.
    samples : Samples
        Of the model.
    """

    def __init__(
        self,
        model: Model,
        silencing: Silencing,
        layers: Sequence[str],
        method: Method,
        target: Target,
        samples: Samples,
    ) -> None:
        source = silencing.source
        self.silencing = silencing
        self.layers = tuple(layers)
        self._samples = samples
        modules = {name: source.layer(name) for name in layers}
        options = Options(MEMORY_BUDGET)
        with undisturbed(source):
            self._run = Run(source, samples, modules, target, method, Reduction(), {}, options)
            probe = next(iter(samples.batches(min(2, len(samples))))).inputs
            self.first = first_of(source.network, modules, probe)
            with silencing.sharing(nothing(layers, probe)):
                self.rest = Rest(model.network, model.layer(self.first), probe)
            groups = self._run.template(_without_memory)
        # Labels of outputs stand at the root, from which groups of a tree inherit them.
        outputs = {
            name: coord for name, coord in groups[""].coords.items() if name == source.output_dim
        }
        self._template = {
            name: groups[f"layers/{name}"]["contribution"].assign_coords(outputs) for name in layers
        }
        labels = self._run.target.labels
        # Whether there is a target for each output, whose outputs are then computed apart.
        self.each = labels is not None
        if labels is not None and not np.array_equal(labels, model.outputs):
            raise ValueError(
                f"target gives {len(labels)} targets, the model {len(model.outputs)} outputs; "
                "expected each output in turn, rc.targets.Output(), or one target for all"
            )

    def __len__(self) -> int:
        return -(-len(self._samples) // self._run.batch_size)

    def __iter__(self) -> Iterator[Pass]:
        source = self.silencing.source
        for batch in self._samples.batches(self._run.batch_size):
            with undisturbed(source):
                ((_, variables),) = self._run.batches(batch.index)
            found = {}
            for name in self.layers:
                labelled = self._template[name].isel({source.sample_dim: batch.index})
                found[name] = labelled.copy(data=variables[f"layers/{name}"]["contribution"])
            yield Pass(self, batch, found)


class Pass:
    """One batch: contributions of single units by layer, and outputs without a share of them."""

    def __init__(
        self, passes: Passes, batch: Batch, contributions: dict[str, xr.DataArray]
    ) -> None:
        self._passes = passes
        self._batch = batch
        self.index = batch.index
        self.contributions = contributions
        with torch.no_grad(), passes.silencing.sharing(nothing(passes.layers, batch.inputs)):
            self._front = passes.rest.front(batch.inputs)

    def outputs(self, shares: Mapping[str, xr.DataArray]) -> Tensor:
        """Give outputs (sample, output) without these shares, labelled as contributions are.

        With shares for each output, each output is from a pass of its own.
        """
        passes, front = self._passes, self._front
        silencing = passes.silencing
        still = silencing.still(self._batch.inputs)
        laid_out = {
            name: _units(share, still[name].layout, still[name].values, passes.each)
            for name, share in shares.items()
        }
        n_targets, n = laid_out[passes.first].shape[:2]
        together = max(1, ROWS // n)
        parts = []
        for start in range(0, n_targets, together):
            some = {k: s[start : start + together].flatten(0, 1) for k, s in laid_out.items()}
            k = len(some[passes.first]) // n
            here = front.activation.repeat(k, *[1] * (front.activation.ndim - 1))
            rest = still[passes.first].values
            values = scaled(here, rest, some[passes.first], silencing.strength)
            with silencing.sharing(some):
                outputs = front.outputs(values).unflatten(0, (k, n))
            if not passes.each:
                return outputs[0]
            parts.append(outputs[torch.arange(k), :, torch.arange(start, start + k)])
        return torch.cat(parts).T


def passes_without_modes(
    model: Model, silencing: Silencing, choice: ModeChoice, samples: Samples
) -> Iterator[tuple[slice, Tensor]]:
    """Give the outputs of a model whose modes are silenced, batch by batch.

    `model` has the hooks of `silencing` on it, whose source is the model as it was before. For
    each batch contributions are computed to each unit, and from them the shares; the rest of the
    network runs once, or once for each output where contributions are to each.
    """
    passes = Passes(model, silencing, choice.layers, choice.method, choice.target, samples)
    for one in passes:
        yield one.index, one.outputs(choice.shares(one.contributions))


def _without_memory(shape: tuple[int, ...], dtype: object) -> np.ndarray:
    return np.broadcast_to(np.zeros((), np.float32), shape)


def _units(share: xr.DataArray, layout: UnitLayout, like: Tensor, each: bool) -> Tensor:
    """Shares (target, sample, ...) as the layer lays out its units; class tokens have none."""
    values = torch.from_numpy(np.ascontiguousarray(share.values, dtype=np.float32)).to(like)
    values = values.movedim(1, 0) if each else values[None]
    dims = [str(dim) for dim in share.dims[2 if each else 1 :]]
    if layout.grid is not None:
        axis = 2 + dims.index("y")
        values = values.flatten(axis, axis + 1)
        dims[axis - 2 : axis] = ["token"]
        pad = list(values.shape)
        pad[axis] = layout.class_tokens
        values = torch.cat([values.new_zeros(pad), values], dim=axis)
    # Summed over the lags, which share one number then.
    for dim in layout.dims:
        if dim not in dims:
            values, dims = values[..., None], [*dims, dim]
    values = values.permute(0, 1, *(2 + dims.index(dim) for dim in layout.dims))
    return values.expand(*values.shape[:2], *like.shape[1:])
