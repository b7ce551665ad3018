"""Partial correlations of modes with features, cell by cell, and how often chance gives them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.stats import false_discovery_control

from retina_codec.modes.labels import joint_names, resultant
from retina_codec.modes.lagged_samples import LaggedSamples
from retina_codec.modes.shift_null import (
    LaggedFeature,
    Null,
    nuisance_basis,
    residuals,
    tail_p_value,
)

LEAST_SHARE = 0.01  # of a mode's variance: cells with less of it are left out
COLLINEAR = 0.95  # correlation of two components from which they are one


@dataclass
class _Tested:
    """One feature, or two components together: partial r (cell, mode) at the best lag, p (mode)."""

    r: np.ndarray
    lag: np.ndarray
    p_value: np.ndarray
    angle: np.ndarray

    @classmethod
    def empty(cls, shape: tuple[int, ...]) -> _Tested:
        """Nothing found yet."""
        return cls(
            np.full(shape, np.nan),
            np.zeros(shape[1], dtype=int),
            np.full(shape[1], np.nan),
            np.full(shape, np.nan),
        )


def associations(
    samples: LaggedSamples,
    families: dict[str, str],
    circles: list[slice],
    null: Null,
    bin_width: float,
) -> xr.Dataset:
    """Test all features and pairs of components."""
    n_cells = len(samples.loadings)
    weight = _weights(samples.loadings)
    tested: dict[str, _Tested] = {}
    family_of: dict[str, str] = {}
    for family in ("light", "motion"):
        names = [name for name in families if families[name] == family]
        others = [name for name in families if families[name] != family]
        # Features of one place are regressed out of all cells alike.
        bases = [
            _basis(samples, others, cell, circles)
            for cell in range(n_cells if samples.by_cell else 1)
        ]
        spectra = [null.spectra(basis) for basis in bases]
        units = np.stack(
            [_unit(residuals(samples.loadings[c], bases[c % len(bases)])) for c in range(n_cells)]
        )
        pairs = joint_names(names)
        in_pairs = [name for pair in pairs for name in pair]
        found = {
            name: tested_one
            for components in [(name,) for name in names if name not in in_pairs] + pairs
            for name, tested_one in _test(
                samples, components, bases, spectra, units, weight, null
            ).items()
        }
        ordered = names + [name for name in found if name not in names]
        tested |= {name: found[name] for name in ordered}
        family_of |= dict.fromkeys(ordered, family)
    return _dataset(tested, family_of, weight, bin_width)


def _basis(
    samples: LaggedSamples, names: Sequence[str], cell: int, circles: list[slice]
) -> np.ndarray:
    n = samples.loadings.shape[2]
    columns = [samples.lagged(name, cell) for name in names]
    return nuisance_basis(np.concatenate([np.empty((0, n)), *columns]).T, circles)


def _unit(signals: np.ndarray) -> np.ndarray:
    """Signals (signal, n) of unit norm, NaN where they are 0."""
    with np.errstate(invalid="ignore"):
        return signals / np.linalg.norm(signals, axis=1, keepdims=True)


def _weights(loadings: np.ndarray) -> np.ndarray:
    """Share (cell, mode) of the mode's variance, 0 where it is negligible."""
    variance = loadings.var(axis=2)
    with np.errstate(invalid="ignore"):
        share = np.nan_to_num(variance / variance.sum(axis=0))
        share[share < LEAST_SHARE] = 0
        return np.nan_to_num(share / share.sum(axis=0))


def _test(
    samples: LaggedSamples,
    names: tuple[str, ...],
    bases: list[np.ndarray],
    spectra: list[list[np.ndarray]],
    units: np.ndarray,
    weight: np.ndarray,
    null: Null,
) -> dict[str, _Tested]:
    """Test one feature; or two components, each and together by their multiple correlation."""
    shape = units.shape[:2]
    parts = [
        [LaggedFeature(samples.lagged(name, cell), basis, null, spectrum) for name in names]
        for cell, (basis, spectrum) in enumerate(zip(bases, spectra, strict=True))
    ]
    # Correlation (lag,) of the components, the same whatever they are displaced by.
    between = [np.einsum("ln,ln->l", cell[0].unit, cell[-1].unit)[:, None] for cell in parts]
    found = {name: _Tested.empty(shape) for name in names}
    if len(names) == 2:
        found[names[0].removesuffix("_x")] = _Tested.empty(shape)
    joint = [slice(0, 1), slice(1, 2), slice(0, 2)][: len(found)]
    for mode in range(shape[1]):
        cells = [int(c) for c in np.flatnonzero(weight[:, mode])]
        observed = {c: [p.observed(units[c, mode]) for p in parts[c % len(parts)]] for c in cells}
        drawn: list[np.ndarray | float] = [0.0] * len(found)
        size: list[np.ndarray | float] = [0.0] * len(found)
        # Only cells in which something is left of all components.
        cells = [c for c in cells if np.isfinite(observed[c]).all()]
        for c in cells:
            w, place = weight[c, mode] / weight[cells, mode].sum(), c % len(parts)
            by_chance = [part.drawn(units[c, mode]) for part in parts[place]]
            for i, of in enumerate(joint):
                columns = [r[:, None] for r in observed[c][of]]
                size[i] = size[i] + w * _size(columns, between[place])[:, 0]
                drawn[i] = drawn[i] + w * _size(by_chance[of], between[place])
        for i, (of, tested) in enumerate(zip(joint, found.values(), strict=True)):
            if not cells:
                continue
            best = int(np.argmax(size[i]))
            tested.lag[mode] = best
            tested.p_value[mode] = tail_p_value(float(np.max(size[i])), np.max(drawn[i], axis=0))
            for c in cells:
                at = [r[best] for r in observed[c][of]]
                place = c % len(parts)
                rho = float(between[place][best, 0])
                tested.r[c, mode] = at[0]
                if len(at) == 2:
                    columns = [np.full((1, 1), r) for r in at]
                    tested.r[c, mode] = _size(columns, np.full((1, 1), rho)).item()
                    scale = [part.scale[best] for part in parts[place]]
                    tested.angle[c, mode] = _angle(at, rho, scale)
    return found


def _size(r: Sequence[np.ndarray], between: np.ndarray) -> np.ndarray:
    """Return absolute correlations (lag, draw), multiple ones of two components.

    Components along one line count as one.
    """
    if len(r) == 1:
        return np.abs(r[0])
    x, y = r
    apart = np.abs(between) < COLLINEAR
    with np.errstate(invalid="ignore", divide="ignore"):
        joint = (x**2 + y**2 - 2 * between * x * y) / np.where(apart, 1 - between**2, 1)
    return np.sqrt(np.where(apart, joint, np.maximum(x**2, y**2)))


def _angle(r: Sequence[float], between: float, scale: Sequence[float]) -> float:
    """Direction in degrees of the regression on x and y."""
    x, y = r
    if abs(between) < COLLINEAR:
        x, y = (x - between * y) / scale[0], (y - between * x) / scale[1]
    else:  # no telling them apart: along their common line
        x, y = x * scale[0], y * scale[1]
    return float(np.degrees(np.arctan2(y, x)) % 360)


def _dataset(
    tested: dict[str, _Tested], family_of: dict[str, str], weight: np.ndarray, bin_width: float
) -> xr.Dataset:
    dims = ("mode", "feature")
    cell_r = np.stack([found.r for found in tested.values()], axis=2)
    counted = np.where(np.isfinite(cell_r), weight[:, :, None], 0)
    with np.errstate(invalid="ignore"):
        share = counted / counted.sum(axis=0)
    known = np.nan_to_num(cell_r)
    sign = np.where((share * known).sum(axis=0) < 0, -1, 1)
    p_value = np.stack([found.p_value for found in tested.values()], axis=1)
    has_p = np.isfinite(p_value)
    partial_r = np.where(has_p, sign * (share * np.abs(known)).sum(axis=0), np.nan)
    agreement = np.abs((share * known).sum(axis=0)) / np.where(partial_r == 0, 1, np.abs(partial_r))
    lags = np.stack([found.lag for found in tested.values()], axis=1) * bin_width
    q_value = np.full(p_value.shape, np.nan)
    if has_p.any():
        q_value[has_p] = false_discovery_control(p_value[has_p])
    described = xr.Dataset(
        {
            "partial_r": (dims, partial_r, {"units": "1", "long_name": "partial correlation"}),
            "lag": (dims, np.where(has_p, lags, np.nan), {"units": "s"}),
            "p_value": (dims, p_value, {"units": "1"}),
            "q_value": (dims, q_value, {"units": "1", "long_name": "Benjamini-Hochberg"}),
            "cell_partial_r": (("cell", *dims), cell_r, {"units": "1"}),
            "cell_weight": (
                ("cell", "mode"),
                weight,
                {"units": "1", "long_name": "share of the mode's variance"},
            ),
            "agreement": (dims, agreement, {"units": "1"}),
        },
        coords={"feature": list(tested), "family": ("feature", list(family_of.values()))},
    )
    return resultant(described, {n: t.angle for n, t in tested.items() if f"{n}_x" in tested})
