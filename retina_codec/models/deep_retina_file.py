"""Checkpoints of torch-deep-retina, read into layers that say nothing of our models.

A network there is one ``nn.Sequential`` named ``sequential``, and a checkpoint numbers the weights
by their place in it. Layers without weights (ReLU, flatten, reshape, softplus) leave no trace, so
the architecture is read off the kinds and shapes of those that have some.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

STATE_KEYS = ("model_state_dict", "state_dict", "net_state_dict")
SETTING_KEYS = ("hyps", "model_hyps")
NUMBERED = re.compile(r"(?:module\.)?sequential\.(\d+)\.(.+)")
INNER_EPS = 1e-5  # added to the variance in batch norms between the stages of a stack
# Names of the tensors of each kind of module: those it must have, and those it may have.
FIELDS: dict[str, tuple[set[str], set[str]]] = {
    "convolution": ({"weight"}, {"bias"}),
    "norm": ({"weight", "bias", "running_mean", "running_var"}, {"num_batches_tracked"}),
    "positive norm": ({"scale", "shift", "running_mean", "running_var"}, set()),
    "noise": ({"sigma"}, set()),
    "readout": ({"w"}, set()),
}


@dataclass
class Stage:
    """One convolution, or one of a stack, or a dense layer: ``weight`` (out, in[, y, x])."""

    weight: Tensor
    bias: Tensor


@dataclass
class Layer:
    """A convolution, stack of convolutions or dense layer, with the norm and noise after it."""

    name: str
    stages: list[Stage]
    stacked: bool
    norm: dict[str, Tensor] | None = None
    positive: bool = False
    noise: float | None = None

    @property
    def dense(self) -> bool:
        """Whether it takes units rather than maps."""
        return self.stages[0].weight.ndim == 2

    @property
    def channels(self) -> int:
        """Channels or outputs that it gives."""
        return len(self.stages[-1].weight)

    @property
    def kernel(self) -> int:
        """Side of the kernel that it amounts to."""
        return 1 + sum(stage.weight.shape[-1] - 1 for stage in self.stages)


@dataclass
class Network:
    """The layers of a checkpoint, the weights of a one-hot readout, and what else it says."""

    layers: list[Layer]
    readout: Tensor | None
    notes: dict[str, Any]
    dtype: torch.dtype


def read_network(source: str | os.PathLike[str] | Mapping[str, Any]) -> Network:
    """Read a checkpoint file, or its content.

    Raises
    ------
    FileNotFoundError, ValueError
        As `load_deep_retina` says.
    """
    content = source if isinstance(source, Mapping) else _unpickled(Path(source))
    if not isinstance(content, Mapping):
        raise ValueError(
            f"source holds a {type(content).__name__}; expected a state dict, or a dict with "
            f"{STATE_KEYS[0]!r}"
        )
    held = [key for key in STATE_KEYS if isinstance(content.get(key), Mapping)]
    state = content[held[0]] if held else content
    notes: dict[str, Any] = {}
    for key in SETTING_KEYS:
        if isinstance(content.get(key), Mapping):
            notes |= content[key]
    notes |= {k: v for k, v in content.items() if held or not isinstance(v, Tensor)}
    _refuse_settings(notes)
    tensors = {str(name): tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}
    layers, readout = _layers(tensors)
    floating = [tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()]
    return Network(layers, readout, notes, floating[0])


def _unpickled(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"source={str(path)!r} does not exist, or is no file")
    # Means and sds are saved as NumPy numbers, under the name that module had before NumPy 2.
    plain: list[Any] = [np.dtype, np.ndarray]
    plain += [type(np.dtype(name)) for name in ("float32", "float64", "int32", "int64")]
    makers = {"scalar": np.float32(0).__reduce__()[0], "_reconstruct": np.zeros(1).__reduce__()[0]}
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        plain += [(maker, f"{module}.{name}") for name, maker in makers.items()]
    try:
        with torch.serialization.safe_globals(plain):
            return torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except Exception as error:
        refused = re.search(r"Unsupported (?:global|class|operand)[^\n]*", str(error))
        if refused:
            raise ValueError(
                f"source={str(path)!r} holds Python objects, which are not loaded "
                f"({refused.group()[:120]}): save its state dict, img_shape, norm_stats and cells "
                "alone"
            ) from error
        raise ValueError(
            f"source={str(path)!r} is not a readable PyTorch file, it may be truncated: copy it "
            f"again ({(str(error) or type(error).__name__).splitlines()[0][:200]})"
        ) from error


def _refuse_settings(notes: Mapping[str, Any]) -> None:
    """Refuse what leaves no trace in the weights but changes the outputs."""
    paddings = notes.get("paddings") or 0
    other = {
        "activ_fxn": notes.get("activ_fxn", "ReLU") != "ReLU",
        "softplus": not notes.get("softplus", True),
        "inference_exp": bool(notes.get("inference_exp", False)),
        "recurrent": bool(notes.get("recurrent", False)),
        "kinetic": bool(notes.get("kinetic", False)),
        "paddings": bool(np.any(paddings)),
    }
    refused = [f"{name}={notes[name]!r}" for name, unlike in other.items() if unlike]
    if refused:
        raise ValueError(
            f"source was trained with {', '.join(refused)}, which no model here has; expected "
            "ReLU, softplus, no padding and no recurrence"
        )


def _layers(state: Mapping[str, Tensor]) -> tuple[list[Layer], Tensor | None]:
    """Read the layers in order, and the weights of a one-hot readout."""
    modules: dict[int, dict[str, Tensor]] = {}
    strange = []
    for key, tensor in state.items():
        match = NUMBERED.fullmatch(key)
        if match is None:
            strange.append(key)
        else:
            modules.setdefault(int(match[1]), {})[match[2]] = tensor
    if strange or not modules:
        raise ValueError(
            f"source is not a checkpoint of torch-deep-retina: unexpected {_some(strange)}; "
            "missing or mixed keys 'sequential.N.weight' and the like"
        )
    layers: list[Layer] = []
    readout = None
    seen: set[str] = set()
    for number in sorted(modules):
        tensors, name = modules[number], f"sequential.{number}"
        kind = _kind(tensors)
        _require_fields(kind, tensors, name)
        if readout is not None:
            raise ValueError(f"source: unexpected {name} after the one-hot readout")
        if kind in ("convolution", "stack"):
            stages = _stages(tensors, name) if kind == "stack" else [_stage(tensors, name)]
            layers.append(Layer(name, stages, stacked=kind == "stack"))
            seen = set()
            continue
        family = kind.removeprefix("positive ")
        if not layers or family in seen:
            raise ValueError(
                f"source: unexpected {name} (a {kind}: {', '.join(tensors)}); missing a "
                "convolution or dense layer before it"
            )
        seen.add(family)
        if kind == "noise":
            layers[-1].noise = float(tensors["sigma"].mean())
        elif kind == "readout":
            readout = tensors["w"]
        else:
            layers[-1].positive = kind == "positive norm"
            layers[-1].norm = _norm(tensors)
    if len(layers) < 2:
        raise ValueError(
            f"source has {len(layers)} convolutions and dense layers; missing others: expected at "
            "least one convolution, and a dense layer or convolution to the cells"
        )
    return layers, readout


def _kind(tensors: Mapping[str, Tensor]) -> str:
    names = set(tensors)
    if any(name.startswith("convs.") for name in names):
        return "stack"
    if {"scale", "shift"} & names:
        return "positive norm"
    if {"running_mean", "running_var"} & names:
        return "norm"
    for kind in ("noise", "readout"):
        if FIELDS[kind][0] & names:
            return kind
    return "convolution"


def _require_fields(kind: str, tensors: Mapping[str, Tensor], name: str) -> None:
    if kind == "stack":
        required, optional = {key for key in tensors if key.startswith("convs.")}, set[str]()
    else:
        required, optional = FIELDS[kind]
    missing = sorted(required - set(tensors))
    unexpected = sorted(set(tensors) - required - optional)
    if missing or unexpected:
        words = [
            f"{word} {_some([f'{name}.{key}' for key in keys])}"
            for word, keys in (("missing", missing), ("unexpected", unexpected))
            if keys
        ]
        raise ValueError(
            f"source is not a checkpoint of a network that is known here: {'; '.join(words)} "
            f"({name} was taken for a {kind})"
        )


def _some(names: Sequence[str]) -> str:
    listed = ", ".join(names[:6]) or "nothing"
    return listed if len(names) <= 6 else f"{listed} and {len(names) - 6} more"


def _stage(tensors: Mapping[str, Tensor], name: str) -> Stage:
    """Read weights in double precision, in which norms and biases are folded in."""
    weight = tensors["weight"]
    if weight.ndim not in (2, 4) or (weight.ndim == 4 and weight.shape[2] != weight.shape[3]):
        raise ValueError(
            f"source: {name}.weight is {tuple(weight.shape)}; expected (out, in, y, x) with square "
            "kernels, or (out, in)"
        )
    bias = tensors.get("bias", weight.new_zeros(len(weight)))
    return Stage(weight.double(), bias.double())


def _norm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a batch norm of either kind by PyTorch's names, in double precision."""
    scale, shift = ("scale", "shift") if "scale" in tensors else ("weight", "bias")
    return {
        "weight": tensors[scale].double(),
        "bias": tensors[shift].double(),
        "running_mean": tensors["running_mean"].double(),
        "running_var": tensors["running_var"].double(),
    }


def _stages(tensors: Mapping[str, Tensor], name: str) -> list[Stage]:
    """Read the stages of a stack; inner biases and batch norms are affine, and folded in."""
    inner: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        _, place, field = key.split(".", 2)
        inner.setdefault(int(place), {})[field] = tensor
    stages: list[Stage] = []
    for number in sorted(inner):
        part, part_name = inner[number], f"{name}.convs.{number}"
        kind = _kind(part)
        _require_fields(kind, part, part_name)
        if kind == "convolution":
            stages.append(_stage(part, part_name))
        elif kind in ("norm", "positive norm") and stages:
            norm, last = _norm(part), stages[-1]
            scale = norm["weight"].abs() if kind == "positive norm" else norm["weight"]
            scale = scale / (norm["running_var"] + INNER_EPS).sqrt()
            last.weight = last.weight * scale[:, None, None, None]
            last.bias = (last.bias - norm["running_mean"]) * scale + norm["bias"]
        else:
            raise ValueError(f"source: unexpected {part_name} (a {kind}) in a stack")
    for stage, after in pairwise(stages):
        if after.weight.ndim != 4 or after.weight.shape[1] != len(stage.weight):
            raise ValueError(f"source: the stages of {name} do not fit each other")
        # A valid convolution turns a constant into a constant.
        after.bias = after.bias + after.weight.sum((2, 3)) @ stage.bias
        stage.bias = torch.zeros_like(stage.bias)
    return stages
