"""What a stimulus is to drive: an output, a channel of a layer, or a contribution mode."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from retina_codec._common.checks import nearest_names
from retina_codec.attribution.capture import captured
from retina_codec.attribution.input_gradients import differentiable
from retina_codec.models.model import Model
from retina_codec.modes import Modes

# Of the path from mean grey, when contributions to be differentiated are computed.
STEPS = 4
# From network inputs (stimulus, ...) to a number for each sample in them (stimulus * sample,).
Objective = Callable[[Tensor], Tensor]


def of_output(model: Model, name: str) -> Objective:
    """Take one output of the network."""
    column = _column(model, name)
    return lambda inputs: model.network(inputs.clone())[:, column]


def _column(model: Model, name: str) -> int:
    names = [str(label) for label in model.outputs]
    if str(name) not in names:
        raise ValueError(f"no {model.output_dim} {name!r}; {nearest_names(name, names)}")
    return names.index(str(name))


def of_channel(
    model: Model, layer: str, channel: int | str, place: tuple[int, int] | None, probe: Tensor
) -> Objective:
    """Take one unit of a channel, or the mean over its map."""
    module = model.layer(layer)
    with torch.no_grad():
        shape = tuple(differentiable(model.network, probe, module).shape)
    names = [str(label) for label in getattr(model, "channels", {}).get(layer, range(shape[1]))]
    if str(channel) not in names:
        raise ValueError(
            f"layer {layer!r} has no channel {channel!r}; {nearest_names(channel, names)}"
        )
    number = names.index(str(channel))
    if place is not None:
        fits = len(shape) == 4 and all(0 <= p < n for p, n in zip(place, shape[2:], strict=True))
        if not fits:
            raise ValueError(f"unit={place}; layer {layer!r} has maps of {shape[2:]}")

    def values(inputs: Tensor) -> Tensor:
        maps = differentiable(model.network, inputs, module)[:, number]
        if place is not None:
            return maps[:, place[0], place[1]]
        return maps.flatten(1).mean(1)

    return values


def of_mode(
    model: Model, modes: Modes, mode: int, output: str | None, layer: str | None
) -> Objective:
    """Project the contributions of a layer on a mode's atom.

    ``sum_j d_j c_j / s_j`` with the atom d, the scale s of each column, and the contributions c to
    the cell (or to the sum of all) by integrated gradients in a few steps from mean grey.
    """
    dictionary = modes.dictionary
    known = [str(label) for label in dictionary["mode"].values]
    if str(mode) not in known:
        raise ValueError(f"no mode {mode}; {nearest_names(mode, known)}")
    weights = dictionary.isel(mode=known.index(str(mode))) / modes.column_scale
    parts = _by_layer(model, weights, layer)
    column = None if output is None else _column(model, output)
    modules = {name: model.layer(name) for name in parts}

    def values(inputs: Tensor) -> Tensor:
        places = torch.linspace(0, 1, STEPS + 1).to(inputs)
        points = torch.cat([s * inputs for s in places])
        with captured(modules) as caught:
            outputs = model.network(points)
        target = outputs.sum() if column is None else outputs[:, column].sum()
        slopes = torch.autograd.grad(target, list(caught.values()), create_graph=True)
        total: Tensor | float = 0.0
        for (name, layer), slope in zip(caught.items(), slopes, strict=True):
            a = layer.unflatten(0, (STEPS + 1, -1))
            g = slope.unflatten(0, (STEPS + 1, -1))
            unit = (0.5 * (g[1:] + g[:-1]) * (a[1:] - a[:-1])).sum(0)
            # Signs before sums, as the modes had it.
            unit = unit.flatten(2) if unit.ndim > 2 else unit[:, :, None]
            positive, negative, both = parts[name]
            total = total + unit.clamp(min=0).sum(2) @ positive.to(unit)
            total = total + unit.clamp(max=0).sum(2) @ negative.to(unit)
            total = total + unit.sum(2) @ both.to(unit)
        return torch.as_tensor(total)

    return values


def _by_layer(
    model: Model, weights: xr.DataArray, layer: str | None
) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Weights (channel,) of the positive parts, the negative parts, and unsplit contributions."""
    flat = weights
    if "column" not in weights.dims:
        if layer is None:
            raise ValueError(
                "layer: the modes are of one layer and do not say which; name it, one of "
                f"{', '.join(model.default_layers)}"
            )
        flat = weights.stack(column=list(weights.dims))
    others = {str(name) for name in flat.coords if flat[name].dims == ("column",)}
    others -= {"column", "layer", "channel", "sign"}
    if "channel" not in flat.coords or others:
        raise ValueError(
            "modes: a stimulus can be made for modes over channels (and signs, and layers), not "
            f"over {', '.join(sorted(others)) or 'other columns'}: sum contributions over y and x"
        )
    n = flat.sizes["column"]
    layers = flat["layer"].values.astype(str) if "layer" in flat.coords else np.full(n, layer)
    signs = flat["sign"].values.astype(str) if "sign" in flat.coords else np.full(n, "both")
    found = {}
    for name in dict.fromkeys(layers.tolist()):
        model.layer(name)
        here = layers == name
        # The order of a layer's channels is that of their labels in the contributions.
        labels = list(dict.fromkeys(flat["channel"].values[here].tolist()))
        split = {kind: torch.zeros(len(labels)) for kind in ("positive", "negative", "both")}
        for label, sign, value in zip(
            flat["channel"].values[here].tolist(), signs[here], flat.values[here], strict=True
        ):
            split[sign][labels.index(label)] = float(value)
        found[name] = (split["positive"], split["negative"], split["both"])
    return found
