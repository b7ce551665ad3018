"""Types of ganglion cells, from the indices of the battery by a fixed rule."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import xarray as xr

from retina_codec._common.provenance import provenance

NEEDED = ("step_bias", "transience", "object_motion_index", "dsi")
PHENOMENA_NEEDED = ("step_response", "object_motion", "direction_selectivity")
NONE = "none"


@dataclass(frozen=True)
class TypeRule:
    """Thresholds of `classify_cells`.

    They lie in the middle of the gaps between types in the circuits ``drawn_1`` to ``drawn_3``
    (their own indices, no trained model); a test looks at those gaps. A DSI of 0.2 is also what is
    asked of recorded cells beside p < 0.01.

    Parameters
    ----------
    bias : float
        Of `step_bias`: above it ON, below minus it OFF, between ON-OFF. In the drawn circuits 1 for
        ON and OFF cells, at most 0.45 for ON-OFF cells.
    transience : float
        Above it transient. There 1 for transient, at most 0.41 for sustained cells.
    object_motion : float
        Above it object-motion-sensitive: at 0.4, differential motion is answered with 2.3 times the
        rate of global motion. There at least 0.72, and at most 0.05 for other cells.
    direction : float
        Of `dsi`: above it direction-selective. There at least 0.36, and at most 0.01.
    """

    bias: float = 0.7
    transience: float = 0.7
    object_motion: float = 0.4
    direction: float = 0.2


def classify_cells(table: xr.DataTree | xr.Dataset, *, rule: TypeRule | None = None) -> xr.Dataset:
    """Name the type of each cell from its indices.

    In this order: object motion index above its threshold, ``"object_motion"``; DSI above its
    threshold, ``"direction_selective"``; answers to both steps, ``"on_off"``; else polarity and
    kinetics, ``"on_sustained"`` and so on. A cell that lacks an index that its name would need is
    ``"none"``, with the reason.

    Parameters
    ----------
    table : DataTree or Dataset
        Result of `retina_codec.phenomena` with at least step_response, object_motion and
        direction_selectivity.
    rule : TypeRule, optional
        Thresholds.

    Returns
    -------
    Dataset
        Over `cell`: `cell_type`; `polarity` ("ON", "OFF", "ON-OFF", "none"), `kinetics`
        ("transient", "sustained", "none"); `direction_selective`, `object_motion` ("yes", "no",
        "none"); `preferred_direction` (degrees, NaN unless direction-selective); and `reason`: why
        something is "none".

    Raises
    ------
    TypeError
        If `table` is no such result.
    ValueError
        If it lacks an index.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> import retina_codec as rc
    >>> indices = ["step_bias", "transience", "object_motion_index", "dsi"]
    >>> table = xr.Dataset(
    ...     {"value": (("cell", "index"), [[-1.0, 0.9, 0.0, 0.1], [0.2, 1.0, 0.8, 0.0]]),
    ...      "reason": (("cell", "index"), np.full((2, 4), ""))},
    ...     {"cell": ["a", "b"], "index": indices},
    ... )
    >>> rc.physiology.classify_cells(table)["cell_type"].values.tolist()
    ['off_transient', 'object_motion']
    """
    limits = TypeRule() if rule is None else rule
    data = table.to_dataset() if isinstance(table, xr.DataTree) else table
    if not isinstance(data, xr.Dataset) or "value" not in data:
        raise TypeError("table: expected the result of retina_codec.phenomena")
    missing = [name for name in NEEDED if name not in data["index"].values]
    if missing:
        raise ValueError(
            f"table has no index {', '.join(missing)}; call phenomena with names="
            f"{list(PHENOMENA_NEEDED)} at least"
        )
    of = {name: data["value"].sel(index=name, drop=True).values for name in NEEDED}
    bias, transience = of["step_bias"], of["transience"]
    polarity = np.select(
        [np.isnan(bias), bias > limits.bias, bias < -limits.bias], [NONE, "ON", "OFF"], "ON-OFF"
    )
    kinetics = np.select(
        [np.isnan(transience), transience > limits.transience], [NONE, "transient"], "sustained"
    )
    moving = _exceeds(of["object_motion_index"], limits.object_motion)
    directed = _exceeds(of["dsi"], limits.direction)
    simple = np.char.add(np.char.add(np.char.lower(polarity), "_"), kinetics)
    named = np.select(
        [
            moving == "yes",
            directed == "yes",
            (moving == NONE) | (directed == NONE) | (polarity == NONE),
            polarity == "ON-OFF",
            kinetics == NONE,
        ],
        ["object_motion", "direction_selective", NONE, "on_off", NONE],
        simple,
    )
    told = np.full(len(named), "", dtype=object)
    for name in reversed(NEEDED):
        why = data["reason"].sel(index=name, drop=True).values.astype(str)
        told = np.where((why != "") & (named == NONE), np.char.add(f"{name}: ", why), told)
    heading = np.full(len(named), np.nan)
    node = table.children.get("direction_selectivity") if isinstance(table, xr.DataTree) else None
    if node is not None and "preferred_direction" in node:
        heading = node.to_dataset()["preferred_direction"].sel(cell=data["cell"]).values
    texts = {
        "cell_type": (named, "type of the cell"),
        "polarity": (polarity, "polarity of the step response"),
        "kinetics": (kinetics, "kinetics of the step response"),
        "direction_selective": (directed, "whether the cell is direction-selective"),
        "object_motion": (moving, "whether the cell is object-motion-sensitive"),
        "reason": (told.astype(str), "why something is none"),
    }
    return xr.Dataset(
        {
            **{k: ("cell", v.astype(str), {"long_name": text}) for k, (v, text) in texts.items()},
            "preferred_direction": (
                "cell",
                np.where(directed == "yes", heading, np.nan),
                {"units": "degree", "long_name": "preferred direction of motion"},
            ),
        },
        coords={"cell": data["cell"]},
        attrs=provenance(function="classify_cells", **asdict(limits)),
    )


def _exceeds(value: np.ndarray, limit: float) -> np.ndarray:
    found: np.ndarray = np.select([np.isnan(value), value > limit], [NONE, "yes"], "no")
    return found
