"""Words for what modes carry, from their partial correlations with features."""

from __future__ import annotations

import numpy as np
import xarray as xr

COMPARABLE = 2.0  # effects of light and motion within this factor make a mode "mixed"
VELOCITIES = ("velocity_x", "velocity_y")
SUBTYPES = {
    "luminance_on": "ON",
    "luminance_off": "OFF",
    "differential_motion": "object motion",
}


def directions(at_lags: np.ndarray, names: list[str]) -> np.ndarray:
    """Direction (mode,) of preferred translation, degrees: 0 = +x, 90 = +y.

    Both components are taken at the lag where they are largest together; NaN without them.

    Parameters
    ----------
    at_lags : ndarray
        (mode, feature, lag), partial correlations.
    names : list of str
        Of the features.
    """
    if not set(VELOCITIES) <= set(names):
        return np.full(len(at_lags), np.nan)
    x, y = (at_lags[:, names.index(name)] for name in VELOCITIES)
    best = np.nan_to_num(np.hypot(x, y)).argmax(axis=1)
    each = np.arange(len(best))
    return np.degrees(np.arctan2(y[each, best], x[each, best])) % 360


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
            moving[mode] |= name in VELOCITIES
            words.append(_word(name, float(described["partial_r"][mode, best]), described, mode))
        subtype.append(" + ".join(words) or "none")
    for effect in added.values():
        effect.attrs = {"units": "1", "long_name": "largest absolute partial correlation"}
    direction = described["direction"].where(xr.DataArray(moving, dims="mode"))
    added["label"] = xr.DataArray(label, dims="mode")
    added["subtype"] = xr.DataArray(np.array(subtype), dims="mode")
    added["direction"] = direction.assign_attrs(described["direction"].attrs)
    return described.assign(added)


def _word(name: str, partial_r: float, described: xr.Dataset, mode: int) -> str:
    if name in VELOCITIES:
        degrees = float(described["direction"][mode])
        return f"translation ({degrees:.0f} deg)" if np.isfinite(degrees) else "translation"
    if name == "luminance":  # the one feature that is as much there when it is low as when high
        return "ON" if partial_r > 0 else "OFF"
    word = SUBTYPES.get(name, name.replace("_", " "))
    return word if partial_r > 0 else f"suppressed by {word}"
