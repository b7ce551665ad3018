"""Words for what modes carry, from their partial correlations with features."""

from __future__ import annotations

import numpy as np
import xarray as xr

COMPARABLE = 2.0  # effects of light and motion within this factor make a mode "mixed"
AGREEING = 0.5  # share of the effect that is left when cells' signs or directions are summed
DIRECTED = ("velocity", "motion_energy")
SUBTYPES = {
    "luminance_on": "ON",
    "luminance_off": "OFF",
    "differential_motion": "object motion",
}


def joint_names(names: list[str]) -> list[tuple[str, ...]]:
    """Pairs of features that are components along x and y of one."""
    return [
        (name, f"{name[:-2]}_y")
        for name in names
        if name.endswith("_x") and f"{name[:-2]}_y" in names
    ]


def resultant(described: xr.Dataset, angles: dict[str, np.ndarray]) -> xr.Dataset:
    """Add the direction (mode), that of all cells together and of each (cell, mode).

    Parameters
    ----------
    described : Dataset
        With `partial_r` (mode, feature), `cell_partial_r` and `cell_weight`.
    angles : dict of ndarray
        Degrees (cell, mode) by the name of the joint feature; the one with the larger effect is
        taken.
    """
    shape = described["cell_weight"].shape
    by_cell, direction = np.full(shape, np.nan), np.full(shape[1], np.nan)
    names = list(angles)
    if names:
        size = np.nan_to_num(described["partial_r"].sel(feature=names).values, nan=-1)
        for mode, place in enumerate(size.argmax(axis=1)):
            r = described["cell_partial_r"].sel(feature=names[place]).values[:, mode]
            by_cell[:, mode] = angles[names[place]][:, mode]
            weighted = np.nan_to_num(described["cell_weight"].values[:, mode] * r)
            total = (weighted * np.exp(1j * np.radians(np.nan_to_num(by_cell[:, mode])))).sum()
            if np.abs(total) > AGREEING * weighted.sum():
                direction[mode] = np.degrees(np.angle(total)) % 360
    return described.assign(
        direction=("mode", direction, {"units": "degree"}),
        cell_direction=(("cell", "mode"), by_cell, {"units": "degree"}),
    )


def label_modes(described: xr.Dataset, *, q: float, min_r: float) -> xr.Dataset:
    """Add effects, `label` and `subtype` to partial correlations; clear `direction` elsewhere.

    Parameters
    ----------
    described : Dataset
        `partial_r`, `q_value` (mode, feature), `direction` (mode), coordinate `family`.
    q, min_r : float
        Thresholds on `q_value` and on the absolute `partial_r`.
    """
    size = abs(described["partial_r"])
    passing = (size >= min_r) & (described["q_value"] < q)
    added = {}
    for family in ("light", "motion"):
        of_family = described["family"] == family
        added[f"{family}_effect"] = size.where(of_family).max("feature")
        added[family] = size.where(of_family & passing).max("feature").fillna(0.0)
    light, motion = added.pop("light").values, added.pop("motion").values
    label = np.select(
        [
            (light == 0) & (motion == 0),
            (light > COMPARABLE * motion),
            (motion > COMPARABLE * light),
        ],
        ["none", "light", "motion"],
        "mixed",
    )
    chosen = passing.values & (size.values > 0)
    subtype, moving = [], np.zeros(len(label), dtype=bool)
    for mode, found in enumerate(label):
        words = []
        for family in ("light", "motion"):
            if found not in (family, "mixed"):
                continue
            candidates = chosen[mode] & (described["family"].values == family)
            best = int(np.where(candidates, size.values[mode], -1).argmax())
            name = str(described["feature"].values[best])
            moving[mode] |= name.removesuffix("_x").removesuffix("_y") in DIRECTED
            words.append(_word(name, float(described["partial_r"][mode, best]), described, mode))
        subtype.append(" + ".join(words) or "none")
    for effect in added.values():
        effect.attrs = {"units": "1", "long_name": "largest absolute partial correlation"}
    direction = described["direction"].where(xr.DataArray(moving, dims="mode"))
    added["label"] = xr.DataArray(label, dims="mode")
    added["subtype"] = xr.DataArray(np.array(subtype), dims="mode")
    added["direction"] = direction.assign_attrs(described["direction"].attrs)
    return described.drop_vars("agreement", errors="ignore").assign(added)


def _word(name: str, partial_r: float, described: xr.Dataset, mode: int) -> str:
    differ = (
        "agreement" in described
        and float(described["agreement"].sel(feature=name)[mode]) < AGREEING
    )
    if name in DIRECTED:
        degrees = float(described["direction"][mode])
        return f"translation ({degrees:.0f} deg)" if np.isfinite(degrees) else "translation by cell"
    component = name[-1] if name[:-2] in DIRECTED and name[-2:] in ("_x", "_y") else ""
    if component:
        degrees = float(described["direction"][mode])
        if (
            np.isnan(degrees)
            and f"{name[:-2]}_{'xy'[component == 'x']}" not in described["feature"]
        ):
            # A field one pixel wide has one axis.
            degrees = {"x": 0, "y": 90}[component] + (0 if partial_r > 0 else 180)
            described["direction"][mode] = degrees
        if differ or np.isnan(degrees):
            return "translation by cell"
        return f"translation ({degrees:.0f} deg)"
    if name == "luminance":  # the one feature that is as much there when it is low as when high
        return "ON and OFF by cell" if differ else "ON" if partial_r > 0 else "OFF"
    word = SUBTYPES.get(name, name.replace("_", " "))
    if differ:
        return f"{word}, sign by cell"
    return word if partial_r > 0 else f"suppressed by {word}"
