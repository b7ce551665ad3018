"""The true contributions as features, and of which of them there is something to recover."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from retina_codec.attribution.methods import Method
from retina_codec.models.model import RetinaModel
from retina_codec.validation.features import Summed, summed
from retina_codec.validation.halves import Halves
from retina_codec.validation.matching import without_rates
from retina_codec.validation.moments import Covariance

CUTS = ("bipolar", "ganglion_input")
STEPS = 8
# A smaller share of variance is no contribution, whatever the caller says.
TINY = 1e-12


@dataclass(frozen=True)
class Truth:
    """The true contributions, and which of them there is something to recover of.

    `share` and `left` are (cell, true_channel), `left_of_cut` (cut, cell).
    """

    summed: Summed
    share: np.ndarray
    left: np.ndarray
    left_of_cut: np.ndarray
    coords: dict[str, Any]

    def features(self, least_share: float, least_left: float) -> tuple[np.ndarray, np.ndarray]:
        """Tell which (cell, true_channel) contribute, and of which something is left."""
        return self.share >= max(least_share, TINY), self.left >= least_left


def true_features(
    circuit: RetinaModel,
    halves: Halves,
    node: xr.Dataset,
    true_rate: np.ndarray,
    cells: list[str],
    method: Method,
    progress: bool,
) -> Truth:
    """Compute the contributions of the circuit and what is left of them without its rate."""
    found = summed(circuit, halves, cells, CUTS, method, "the circuit", progress)
    columns = Covariance((len(cells), 1 + sum(map(len, found.channels.values()))))
    columns.add(np.concatenate([true_rate[..., None], found.net()], axis=-1))
    whole = columns.matrix()
    rest = np.stack([without_rates(one, one, [0]) for one in whole])
    variance, remaining = (np.einsum("cpp->cp", matrix)[:, 1:] for matrix in (whole, rest))
    cut = np.repeat(list(found.channels), [len(names) for names in found.channels.values()])
    of_cut = np.stack([variance[:, cut == name].sum(1) for name in CUTS])
    left_of_cut = np.stack([remaining[:, cut == name].sum(1) for name in CUTS])
    total = np.where(cut == CUTS[0], of_cut[0][:, None], of_cut[1][:, None])
    coords: dict[str, Any] = {
        str(name): coord.variable for name, coord in node.coords.items() if coord.dims == ("cell",)
    }
    return Truth(
        found,
        _ratio(variance, total),
        _ratio(remaining, variance),
        _ratio(left_of_cut, of_cut),
        coords,
    )


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide; 0 where there is nothing."""
    found: np.ndarray = np.where(whole > 0, part, 0.0) / np.where(whole > 0, whole, 1.0)
    return found
