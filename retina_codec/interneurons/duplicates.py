"""Interneurons that stand in a recording twice."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from retina_codec.interneurons.parts import Part

# Two recordings of one cell differ by noise; copies of one recording do not.
ALIKE = 0.999


def duplicates_of(parts: Sequence[Part], lag: int, names: np.ndarray) -> np.ndarray:
    """Name, for each interneuron, the first one that it is a copy of under all stimuli, or "".

    Warns of those found.
    """
    alike = np.ones((len(names), len(names)), dtype=bool)
    for part in parts:
        signals = part.signals.lagged[:, lag]
        alike &= signals.T @ signals / len(signals) > ALIKE
    found: list[str] = []
    for i in range(len(names)):
        earlier = [j for j in np.flatnonzero(alike[i, :i]) if found[j] == ""]
        found.append(str(names[earlier[0]]) if earlier else "")
    said = [f"{name} of {twin}" for name, twin in zip(names, found, strict=True) if twin]
    if said:
        warnings.warn(
            f"potential: interneurons that are duplicates of others (r > {ALIKE:g} under every "
            f"stimulus): {', '.join(said)}; they count once in what is said of all cells. If they "
            "are different cells, the stimulus does not tell them apart",
            stacklevel=4,
        )
    return np.array(found, dtype=str)
