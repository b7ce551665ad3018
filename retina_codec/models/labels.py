"""Labels of samples as places of a model's outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from retina_codec._common.checks import nearest_names


def places_of(names: Sequence[Any], outputs: np.ndarray, argument: str, kind: str) -> list[int]:
    """Places of outputs by name; ValueError with the nearest name for one that is not there.

    `kind` is what an output is: ``"category"``, ``"cell"``.
    """
    places = {str(name): i for i, name in enumerate(outputs)}
    for name in names:
        if str(name) not in places:
            raise ValueError(f"{argument}: no {kind} {name!r}; {nearest_names(name, outputs)}")
    return [places[str(name)] for name in names]


def columns_of(
    labels: np.ndarray, outputs: np.ndarray, argument: str, kind: str, sample: str = "sample"
) -> np.ndarray:
    """Places of the outputs that labels (sample,) name; whole numbers count outputs from 0.

    Raises
    ------
    ValueError
        If a label names no output.
    """
    if labels.dtype.kind in "iu":
        bad = np.flatnonzero((labels < 0) | (labels >= len(outputs)))
        if bad.size:
            raise ValueError(
                f"{argument}: label {labels[bad[0]]} of {sample} {bad[0]} is out of range; "
                f"expected 0 to {len(outputs) - 1}"
            )
        return labels.astype(np.int64)
    names, inverse = np.unique(labels.astype(str), return_inverse=True)
    return np.asarray(places_of(names.tolist(), outputs, argument, kind), dtype=np.int64)[inverse]
