"""How many samples, and points of the path, go through the network at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from retina_codec.attribution.path import Path

# Bytes that a pass may take, unless told.
MEMORY_BUDGET = 2**30
# Samples in a pass: more are slower on a CPU, whose cache they leave; a GPU is to be filled, by
# points of the path as well.
MOST_SAMPLES = {"cpu": 64}
MOST_ON_A_GPU = 256


Found = TypeVar("Found")


def bytes_of_graph(network: nn.Module, run: Callable[[], Found]) -> tuple[int, Found]:
    """Count the bytes that autograd keeps in a call, weights apart; give also what it gave."""
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        found = run()
    weights = sum(p.untyped_storage().nbytes() for p in network.parameters())
    return max(0, sum(kept.values()) - weights), found


def bytes_of_sample(path: Path, n_targets: int) -> int:
    """Estimate the bytes that one sample takes while a path is walked, at one point in a pass.

    What autograd keeps is counted; two passes are held at a time, and per layer the sums and one
    gradient for every target.
    """
    graph, nodes = bytes_of_graph(path.question.network, lambda: path.evaluate((1.0,)))
    n = nodes.targets.shape[1]
    layers = sum(a.numel() * a.element_size() for a in nodes.layers.values())
    ends = sum(end.numel() * end.element_size() for _, end in path.ends.values())
    inputs = path.inputs.numel() * path.inputs.element_size()
    widest = max(a.numel() * a.element_size() for a in nodes.layers.values())
    total = 2 * graph + 4 * layers + n_targets * (layers + widest) + 3 * ends + 2 * inputs
    return -(-total // n)


def passes(
    n_samples: int, per_sample: int, budget: float, *, device: torch.device
) -> tuple[int, int]:
    """Choose samples of a batch, and points of its path in one pass, that fit the budget."""
    fitting = max(1, int(budget // max(1, per_sample)))
    most = MOST_SAMPLES.get(device.type, MOST_ON_A_GPU)
    batch = min(fitting, most, max(1, n_samples))
    if device.type == "cpu" and batch >= 8:
        return batch, 1
    return batch, max(1, min(fitting // batch, most // batch))
