"""What all published networks share: weights by name or from a file, and names of categories."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from retina_codec._common.checks import nearest_names
from retina_codec.classifiers.weights import SUFFIXES, fill, read_weights


def state_of(
    weights: str | os.PathLike[str] | None, published: type[WeightsEnum] | None = None
) -> Mapping[str, Tensor] | None:
    """Read weights from a file, or from torchvision by their name; None if there are none.

    Raises
    ------
    TypeError
        If `weights` is neither a path nor a name.
    FileNotFoundError, OSError
        If a file is missing or unreadable, or torchvision cannot download its weights.
    ValueError
        If `weights` is no known name, or a file without a state dict.
    """
    if weights is None:
        return None
    names = {} if published is None else published.__members__
    if not isinstance(weights, str | os.PathLike):
        raise TypeError(
            f"weights is a {type(weights).__name__}; expected a path, or the name of torchvision's "
            "weights as a str"
        )
    if published is not None and str(weights) in names:
        try:
            return published[str(weights)].get_state_dict(progress=False, check_hash=True)
        except (OSError, RuntimeError) as error:
            raise OSError(
                f"weights={weights!r}: torchvision could not download them ({error}); pass a local "
                "file instead, weights='weights.pth'"
            ) from error
    if Path(weights).suffix not in SUFFIXES:
        or_name = f" nor torchvision's: {nearest_names(weights, names)}" if names else ""
        raise ValueError(
            f"weights={str(weights)!r} is {'neither ' if names else 'not '}a file ending in "
            f"{', '.join(SUFFIXES)}{or_name}"
        )
    return read_weights(Path(weights))


def count_outputs(
    state: Mapping[str, Tensor] | None,
    head: str,
    weights: object,
    categories: Sequence[str] | None,
    default: int,
) -> int:
    """Count the outputs: as many as the head of the weights has, or as there are categories.

    Raises
    ------
    ValueError
        If there are more or fewer `categories` than outputs in the weights.
    """
    if state is None or head not in state:  # without it, `fill` says which keys are missing
        return default if categories is None else len(categories)
    in_file = state[head].shape[0]
    if categories is not None and len(categories) != in_file:
        raise ValueError(
            f"categories has {len(categories)} names; weights={str(weights)!r} have {in_file} "
            "outputs: name each of them, in order"
        )
    return in_file


def filled(
    make: Callable[[], nn.Module],
    state: Mapping[str, Tensor] | None,
    weights: object,
    seed: int,
) -> nn.Module:
    """Make a network in evaluation mode with random weights of `seed`, or those of `state`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = make().eval()
    if state is not None:
        fill(network, state, weights)
    return network


def default_names(names: Sequence[str], n_outputs: int) -> list[str]:
    """Names of the data set if there are as many outputs, numbers otherwise."""
    return _unique(names) if len(names) == n_outputs else [str(i) for i in range(n_outputs)]


def _unique(names: Sequence[str]) -> list[str]:
    """Append its index to every name that stands there more than once."""
    count = Counter(names)
    return [f"{name} {i}" if count[name] > 1 else name for i, name in enumerate(names)]
