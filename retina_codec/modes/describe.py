"""What modes carry: their partial correlation with features of the stimulus."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import false_discovery_control

from retina_codec._common.checks import (
    magnitude,
    require_array,
    require_count,
    require_dims,
    require_finite,
)
from retina_codec._common.provenance import provenance
from retina_codec._common.time import bin_width_of, runs_of, whole_history
from retina_codec.modes.epoch_runs import numbered_epochs
from retina_codec.modes.labels import joint_names, label_modes, resultant
from retina_codec.modes.result import Modes
from retina_codec.modes.shift_null import (
    CircularShifts,
    LaggedFeature,
    Null,
    Permutations,
    decorrelation_time,
    make_circles,
    nuisance_basis,
    residuals,
    tail_p_value,
)

FAMILIES = ("light", "motion", "nuisance")
WINDOWS_NEEDED = 10  # of max_lag, for a null of shifts
EPOCHS_NEEDED = 20  # for a null of permutations
LEAST_SHARE = 0.01  # of a mode's variance: cells with less of it are left out
COLLINEAR = 0.95  # correlation of two components from which they are one


def describe_modes(
    modes: Modes | xr.DataArray,
    features: xr.Dataset,
    *,
    max_lag: float = 0.4,
    q: float = 0.05,
    min_r: float = 0.2,
    epochs: xr.DataArray | None = None,
    ignore: Sequence[str] = (),
    n_draws: int = 2000,
    seed: int = 0,
) -> xr.Dataset:
    """Tell which modes carry light and which carry motion.

    For each mode and feature the correlation of the loading with the feature `lag` seconds
    before is computed, the *other* family's features (at all lags up to `max_lag`) and those of
    the family ``"nuisance"`` being regressed out of both: what a mode owes to light that comes
    with motion does not count as motion, nor the reverse. The lag with the largest absolute
    value is taken. Its p-value comes from circular shifts of the feature within each block, each
    longer than `max_lag` plus the autocorrelation, the largest value over lags being taken in each
    draw too, and q-values are those of Benjamini and Hochberg over all modes and features.

    Loadings of single cells are described cell by cell, with the features at the cell's own place
    if they have the dim `cell`. A mode's effect is the mean over cells of the absolute partial
    correlation, each cell counting by its share of the mode's variance; in the null all cells are
    shifted together. So a mode that follows motion to the right in one cell and to the left in
    another is not averaged away.

    Components along x and y are also tested together, as ``"velocity"`` and ``"motion_energy"``,
    by their multiple correlation, so that oblique directions are found as well as cardinal ones.

    Parameters
    ----------
    modes : Modes or DataArray
        Modes of a movie, or loadings (time, ..., mode), of which `time` has ``attrs["bin_width"]``.
        Loadings are averaged over all other dims but `cell`.
    features : Dataset
        Over `time` or (time, cell), as from `retina_codec.stimulus_features`; each variable has
        ``attrs["family"]``: ``"light"``, ``"motion"`` or ``"nuisance"``. All times (and cells) of
        the loadings must be there; more are welcome, as the past of the first samples.
    max_lag : float
        Seconds; lags are 0 to `max_lag` in steps of the bin width, and none reaches into another
        block.
    q : float
        Largest q-value that counts.
    min_r : float
        Smallest absolute partial correlation that counts.
    epochs : DataArray, optional
        (time,), the label of every sample of a movie built of epochs. Then means over epochs
        (contiguous runs of one label in one block) are correlated, and the null permutes which
        epoch is which.
    ignore : sequence of str
        Labels of `epochs` to leave out, such as ``"transition"``.
    n_draws : int
        Draws of the null, or a few more. Small p-values come from a fitted tail, and neighbouring
        shifts are nearly the same, so that more draws sharpen little.
    seed : int
        Of the draws. (In one block, shifts are taken at equal steps.)

    Returns
    -------
    Dataset
        Over (mode, feature): `partial_r` (-1 to 1; of several cells the mean size, with the sign of
        the weighted mean; of x and y together 0 to 1), `lag` (s), `p_value`, `q_value`; NaN where
        the loading or the feature does not vary (beyond what is regressed out).
        Over mode: `light_effect` and `motion_effect`, the largest absolute partial r of each
        family (NaN if it is absent); `label`: "light", "motion", "mixed" (both count, within a
        factor of 2 of each other) or "none"; `subtype`: "ON", "OFF", "contrast",
        "translation (45 deg)", "object motion", "speed" or the name of another feature, with
        "suppressed by" before it where the correlation is negative (luminance is "ON" where it is
        positive and "OFF" where it is negative); `direction` of translation,
        degrees, 0 = +x, 90 = +y, else NaN (also where cells differ: the subtype then says
        "translation by cell", and luminance "ON and OFF by cell").
        Of loadings with `cell`: `cell_partial_r` (cell, mode, feature) at the mode's lag,
        `cell_direction` (cell, mode) of all cells, `cell_weight` (cell, mode).
        The coordinate `family` stands on `feature`.

    Raises
    ------
    TypeError
        If `modes`, `features` or `epochs` is of another type.
    ValueError
        If a dim, family, time or cell is missing, values are NaN, or there are too few samples for
        shifts (at least 10 times `max_lag`) or epochs for permutations (20).

    Notes
    -----
    Partial correlation with the residuals of both sides; shifting residuals: Winkler et al.,
    NeuroImage 2014 (the Kennedy method); circular shifts keep the autocorrelation of both sides
    and break only their relation. Each block of at least four times the shortest shift turns on its
    own, by a shift of its own, about its own mean; shorter blocks are laid end to end and turn
    together. Small p-values are extrapolated by a generalised Pareto tail, since a recording has
    only as many independent shifts as it has stretches of `max_lag` plus the autocorrelation time.

    Examples
    --------
    >>> import numpy as np
    >>> import xarray as xr
    >>> from retina_codec._common.time import time_coordinate
    >>> rng = np.random.default_rng(0)
    >>> time = time_coordinate(np.arange(3000) * 0.01, 0.01)
    >>> features = xr.Dataset(
    ...     {
    ...         "luminance_on": ("time", rng.random(3000), {"family": "light"}),
    ...         "speed": ("time", rng.random(3000), {"family": "motion"}),
    ...     },
    ...     coords={"time": time},
    ... )
    >>> driven = features["luminance_on"].shift(time=5, fill_value=0)
    >>> described = describe_modes(driven.expand_dims("mode"), features)
    >>> str(described.label[0].values), str(described.subtype[0].values)
    ('light', 'ON')
    >>> round(float(described.lag.sel(feature="luminance_on")[0]), 3)
    0.05
    """
    loadings = cell_loadings(modes)
    bin_width = bin_width_of(loadings, "modes")
    max_lag = magnitude(max_lag, "s", "max_lag")
    if not max_lag >= 0:
        raise ValueError(f"max_lag={max_lag}; expected seconds, 0 or more")
    for argument, value in (("q", q), ("min_r", min_r)):
        if not 0 < value < 1:
            raise ValueError(f"{argument}={value}; expected a number between 0 and 1")
    n_draws = require_count(n_draws, 100, "n_draws")
    families = _families(features, loadings)
    features = _cover(features, loadings)
    n_lags = round(max_lag / bin_width) + 1
    places = features.get_index("time").get_indexer(loadings.get_index("time"))
    kept = np.isin(places, whole_history(features, n_lags))
    if epochs is None and kept.sum() < WINDOWS_NEEDED * n_lags:
        raise ValueError(
            f"modes: {int(kept.sum())} samples have {max_lag} s of features before them in their "
            f"own block; at least {WINDOWS_NEEDED * n_lags} are needed for a null: lower max_lag "
            "or give a longer recording"
        )
    samples = _Samples(features, loadings, places, kept, n_lags)
    if epochs is None:
        blocks = _block_numbers(features)[places[kept]]
        shortest = n_lags + min(samples.slowest(list(families), blocks), len(blocks) // 4)
        circles = samples.turn(blocks, shortest, n_draws)
        null: Null = CircularShifts(circles, shortest, n_draws, seed)
    else:
        n_epochs = samples.average(_epoch_numbers(epochs, ignore, loadings)[kept])
        circles, null = [slice(None)], Permutations(n_epochs, n_draws, seed)
    described = _describe(samples, families, circles, null, bin_width).assign_coords(
        {str(key): c for key, c in loadings.coords.items() if c.dims in (("mode",), ("cell",))}
    )
    if loadings.sizes["cell"] == 1 and "cell" not in _dims(modes):
        described = described.drop_vars(
            ["cell_partial_r", "cell_direction", "cell_weight", "cell"], errors="ignore"
        )
    made_by = provenance(
        method="describe_modes",
        max_lag=max_lag,
        q=q,
        min_r=min_r,
        null_draws="shifts" if epochs is None else "epochs",
        n_draws=n_draws,
        seed=seed,
    )
    return label_modes(described, q=q, min_r=min_r).assign_attrs({**loadings.attrs, **made_by})


def _dims(modes: Modes | xr.DataArray) -> tuple[Any, ...]:
    return modes.loadings.dims if isinstance(modes, Modes) else modes.dims


def mean_loadings(modes: Modes | xr.DataArray) -> xr.DataArray:
    """Return loadings (time, mode), averaged over all other dims."""
    loadings = checked_loadings(modes)
    others = [dim for dim in loadings.dims if dim not in ("time", "mode")]
    averaged = loadings.mean(others, keep_attrs=True) if others else loadings
    return averaged.transpose("time", "mode")


def cell_loadings(modes: Modes | xr.DataArray) -> xr.DataArray:
    """Return loadings (time, cell, mode), averaged over other dims; one cell if there is none."""
    loadings = checked_loadings(modes)
    others = [dim for dim in loadings.dims if dim not in ("time", "cell", "mode")]
    averaged = loadings.mean(others, keep_attrs=True) if others else loadings
    if "cell" not in averaged.dims:
        averaged = averaged.drop_vars("cell", errors="ignore").expand_dims("cell")
    return averaged.transpose("time", "cell", "mode")


def checked_loadings(modes: Modes | xr.DataArray) -> xr.DataArray:
    """Return the loadings, checked to be finite and over `time` and `mode`."""
    loadings = modes.loadings if isinstance(modes, Modes) else require_array(modes, "modes")
    for dim in ("time", "mode"):
        if dim not in loadings.dims:
            raise ValueError(
                f"modes: the loadings have dims {tuple(loadings.dims)}; expected 'time' and 'mode'"
            )
    require_finite(loadings, "modes")
    return loadings


def _families(features: xr.Dataset, loadings: xr.DataArray) -> dict[str, str]:
    """Family of every feature, in the order of the Dataset."""
    if not isinstance(features, xr.Dataset):
        raise TypeError(
            f"features is a {type(features).__name__}; expected an xarray.Dataset over time, as "
            "from retina_codec.stimulus_features"
        )
    families = {}
    for name, feature in features.data_vars.items():
        if set(feature.dims) not in ({"time"}, {"time", "cell"}):
            raise ValueError(
                f"features[{name!r}] has dims {feature.dims}; expected ('time',) or "
                "('time', 'cell'): give one value for every time"
            )
        family = feature.attrs.get("family")
        if family not in FAMILIES:
            raise ValueError(
                f"features[{name!r}].attrs['family'] is {family!r}; expected one of "
                f"{', '.join(FAMILIES)}: set it"
            )
        require_finite(feature, f"features[{name!r}]")
        families[str(name)] = family
    if not set(families.values()) & {"light", "motion"}:
        raise ValueError(
            "features has no variable of the family 'light' or 'motion': there is nothing to "
            "describe modes by"
        )
    if "cell" in features.dims:
        if "cell" not in loadings.coords:
            raise ValueError(
                "features are given at each cell, but the loadings have no coordinate 'cell': fit "
                "modes to contributions to each cell, or give features of one place"
            )
        ours = [str(cell) for cell in loadings["cell"].values]
        theirs = (
            [str(cell) for cell in features["cell"].values] if "cell" in features.coords else []
        )
        missing = sorted(set(ours) - set(theirs))
        if missing:
            raise ValueError(
                f"features lack the cells {', '.join(missing)} of the loadings: give "
                "stimulus_features a place (at=) for every cell, with the same ids"
            )
    return families


def _cover(features: xr.Dataset, loadings: xr.DataArray) -> xr.Dataset:
    """`features`, checked to have all times of the loadings, with blocks."""
    theirs, ours = features.get_index("time"), loadings.get_index("time")
    if "time" not in features.coords or not theirs.is_unique:
        raise ValueError("features has no coordinate 'time' with each time once: take the movie's")
    if "cell" in features.dims:
        features = features.sel(cell=loadings["cell"].values)
    missing = ~ours.isin(theirs)
    if missing.any():
        raise ValueError(
            f"features lacks {int(missing.sum())} of the {ours.size} times of the loadings, the "
            f"first {ours[missing][0]:.6g} s (features: {theirs[0]:.6g} to {theirs[-1]:.6g} s): "
            "compute them on the same movie, whose times are copied, not recomputed"
        )
    if "block" in features.coords or "block" not in loadings.coords:
        return features
    return features.sel(time=ours).assign_coords(block=("time", loadings["block"].values))


def _block_numbers(features: xr.Dataset) -> np.ndarray:
    """Return the number of the contiguous run of every sample."""
    numbers = np.zeros(features.sizes["time"], dtype=int)
    for place, run in enumerate(runs_of(features)):
        numbers[run] = place
    return numbers


def _epoch_numbers(epochs: Any, ignore: Sequence[str], loadings: xr.DataArray) -> np.ndarray:
    """Return the number of the epoch of every sample of the loadings, -1 for those left out."""
    epochs = require_dims(epochs, ("time",), "epochs")
    try:
        loadings, epochs = xr.align(loadings, epochs, join="exact")
    except ValueError as error:
        raise ValueError(
            f"epochs and the loadings of modes have different times ({error}): "
            "take epochs.sel(time=loadings.time)"
        ) from error
    labels = np.asarray(epochs.values, dtype=str)
    return np.where(np.isin(labels, list(ignore)), -1, numbered_epochs(labels, loadings))


def _runs(numbers: np.ndarray) -> list[slice]:
    """Stretches of one number."""
    edges = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


class _Samples:
    """Loadings and lagged features over the samples (or epochs) that are correlated."""

    def __init__(
        self,
        features: xr.Dataset,
        loadings: xr.DataArray,
        places: np.ndarray,
        kept: np.ndarray,
        n_lags: int,
    ) -> None:
        self._features = {
            str(name): np.atleast_2d(feature.transpose(..., "time").values.astype(np.float64))
            for name, feature in features.data_vars.items()
        }
        self._rows = places[kept]
        self._lags = range(n_lags)
        self._numbers: np.ndarray | None = None
        # (cell, mode, n)
        self.loadings = loadings.values[kept].transpose(1, 2, 0).astype(np.float64)
        self.by_cell = any(len(values) > 1 for values in self._features.values())

    def slowest(self, names: Sequence[str], blocks: np.ndarray) -> int:
        """Longest autocorrelation time about the means of blocks, in samples."""
        shown = [self._features[name][:, self._rows] for name in names]
        loadings = self.loadings.reshape(-1, self.loadings.shape[2])
        means = nuisance_basis(np.empty((len(blocks), 0)), _runs(blocks))
        return max(decorrelation_time(residuals(s, means)) for s in (loadings, *shown))

    def turn(self, blocks: np.ndarray, shortest: int, n_draws: int) -> list[slice]:
        """Sort the samples into circles."""
        order, circles = make_circles(blocks, shortest, n_draws)
        self._rows, self.loadings = self._rows[order], self.loadings[:, :, order]
        return circles

    def average(self, numbers: np.ndarray) -> int:
        """Take means over epochs from here on; return how many there are."""
        used = numbers >= 0
        numbers = np.unique(numbers[used], return_inverse=True)[1]
        n = int(numbers.max(initial=-1)) + 1
        if n < EPOCHS_NEEDED:
            raise ValueError(
                f"epochs has {n} epochs with features before them; at least {EPOCHS_NEEDED} are "
                "needed to permute: show more, or leave epochs out"
            )
        self._rows = self._rows[used]
        self._numbers = numbers
        self.loadings = self._means(self.loadings[:, :, used])
        return n

    def lagged(self, name: str, cell: int) -> np.ndarray:
        """Feature (lag, n) at a cell."""
        values = self._features[name][cell % len(self._features[name])]
        return self._means(np.stack([values[self._rows - lag] for lag in self._lags]))

    def _means(self, values: np.ndarray) -> np.ndarray:
        if self._numbers is None:
            return values
        sizes = np.bincount(self._numbers)
        flat = values.reshape(-1, values.shape[-1])
        means = [np.bincount(self._numbers, row) / sizes for row in flat]
        return np.reshape(means, (*values.shape[:-1], len(sizes)))


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


def _describe(
    samples: _Samples,
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
        units = np.stack(
            [_unit(residuals(samples.loadings[c], bases[c % len(bases)])) for c in range(n_cells)]
        )
        pairs = joint_names(names)
        in_pairs = [name for pair in pairs for name in pair]
        found = {
            name: tested_one
            for components in [(name,) for name in names if name not in in_pairs] + pairs
            for name, tested_one in _test(samples, components, bases, units, weight, null).items()
        }
        ordered = names + [name for name in found if name not in names]
        tested |= {name: found[name] for name in ordered}
        family_of |= dict.fromkeys(ordered, family)
    return _dataset(tested, family_of, weight, bin_width)


def _basis(samples: _Samples, names: Sequence[str], cell: int, circles: list[slice]) -> np.ndarray:
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
    samples: _Samples,
    names: tuple[str, ...],
    bases: list[np.ndarray],
    units: np.ndarray,
    weight: np.ndarray,
    null: Null,
) -> dict[str, _Tested]:
    """Test one feature; or two components, each and together by their multiple correlation."""
    shape = units.shape[:2]
    parts = [
        [LaggedFeature(samples.lagged(name, cell), basis, null) for name in names]
        for cell, basis in enumerate(bases)
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
