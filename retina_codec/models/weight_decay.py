"""Which parameters of a network are weights, and may be drawn to zero."""

from __future__ import annotations

from typing import Any

from torch import nn

# Modules of torch whose gains and offsets can have several dims.
WITHOUT_WEIGHTS = (nn.LayerNorm, nn.RMSNorm)


def parameter_groups(network: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Give an optimiser's parameter groups: decayed weights, and all that is trained beside them.

    Weights have several dims: offsets, gains and batch norms have one. A module with parameters
    that have several dims and are no weights (places, a table) names them in a class attribute
    ``undecayed``. Parameters that modules share are given once.

    Parameters
    ----------
    network : torch.nn.Module
        Its parameters that need no gradient are left out.
    decay : float
        ``weight_decay`` of the weights.

    Returns
    -------
    list of dict
        For ``torch.optim``; groups without parameters are left out.
    """
    spared = {
        id(parameter)
        for module in network.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if name in getattr(module, "undecayed", ()) or isinstance(module, WITHOUT_WEIGHTS)
    }
    learning = [p for p in network.parameters() if p.requires_grad]
    weights = [p for p in learning if p.ndim > 1 and id(p) not in spared]
    others = [p for p in learning if p.ndim <= 1 or id(p) in spared]
    groups: list[dict[str, Any]] = [
        {"params": weights, "weight_decay": decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
