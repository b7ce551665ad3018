"""Weights of a classifier from a local file, checked key by key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

TORCH_SUFFIXES = (".pt", ".pth", ".th")
SUFFIXES = (*TORCH_SUFFIXES, ".safetensors")
PARALLEL = "module."  # what torch.nn.DataParallel puts before every key
SHOWN = 5


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict; nothing but tensors and plain containers is unpickled.

    Parameters
    ----------
    path : pathlib.Path
        A ``.safetensors`` file, or a ``.pt``, ``.pth`` or ``.th`` file with a state dict, or with
        one under the key ``"state_dict"``; keys may start with ``"module."``.

    Returns
    -------
    dict of str to torch.Tensor
        On the CPU.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    OSError
        If it cannot be read.
    ValueError
        If it holds no state dict.
    """
    if not path.is_file():
        raise FileNotFoundError(f"weights={str(path)!r}: there is no such file")
    content: Any
    try:
        if path.suffix == ".safetensors":
            content = safetensors.torch.load_file(path)
        else:
            content = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        raise OSError(
            f"weights={str(path)!r} cannot be read as a file of tensors: {error}"
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(
        isinstance(value, Tensor) for value in content.values()
    ):
        raise ValueError(
            f"weights={str(path)!r} holds no state dict; expected tensors by name, alone or under "
            "'state_dict': write it with torch.save(network.state_dict(), path)"
        )
    return {str(key).removeprefix(PARALLEL): value for key, value in content.items()}


def fill(network: nn.Module, weights: Mapping[str, Tensor], source: object) -> None:
    """Copy `weights` into `network`.

    Raises
    ------
    ValueError
        If keys are missing, unknown or of another shape; it names them.
    """
    own = network.state_dict()
    faults = {
        "missing": [key for key in own if key not in weights and not _is_counter(key)],
        "unknown": [key for key in weights if key not in own],
        "of another shape": [
            f"{key} {tuple(weights[key].shape)} instead of {tuple(own[key].shape)}"
            for key in own
            if key in weights and weights[key].shape != own[key].shape
        ],
    }
    if any(faults.values()):
        told = "; ".join(
            f"{len(keys)} {what}: {_some(keys)}" for what, keys in faults.items() if keys
        )
        raise ValueError(
            f"weights={str(source)!r} do not fit a {type(network).__name__} of this depth and "
            f"number of categories ({told})"
        )
    network.load_state_dict(weights, strict=False)


def _is_counter(key: str) -> bool:
    """Batch counters of batch norm do nothing in evaluation, and old files lack them."""
    return key.endswith("num_batches_tracked")


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:SHOWN]) + (", ..." if len(keys) > SHOWN else "")
