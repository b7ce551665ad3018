"""What modes carry: their partial correlation with features of the stimulus."""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.stats import false_discovery_control

from retina_codec._common.checks import magnitude, require_array, require_finite
from retina_codec._common.provenance import provenance
from retina_codec._common.time import bin_width_of, whole_history
from retina_codec.modes.labels import directions, label_modes
from retina_codec.modes.result import Modes
from retina_codec.modes.shift_null import (
    decorrelation_time,
    lagged_correlation,
    nuisance_basis,
    residuals,
)

FAMILIES = ("light", "motion", "nuisance")
WINDOWS_NEEDED = 10  # of max_lag, for a null of shifts


def describe_modes(
    modes: Modes | xr.DataArray,
    features: xr.Dataset,
    *,
    max_lag: float = 0.4,
    q: float = 0.05,
    min_r: float = 0.2,
) -> xr.Dataset:
    """Tell which modes carry light and which carry motion.

    For each mode and feature the correlation of the loading with the feature `lag` seconds
    before is computed, the *other* family's features (at all lags up to `max_lag`) and those of
    the family ``"nuisance"`` being regressed out of both: what a mode owes to light that comes
    with motion does not count as motion, nor the reverse. The lag with the largest absolute
    value is taken. Its p-value comes from circular shifts of the feature, the largest value
    over lags being taken at each shift too, and q-values are those of Benjamini and Hochberg
    over all modes and features.

    Parameters
    ----------
    modes : Modes or DataArray
        Modes of a movie, or loadings (time, ..., mode), of which `time` has ``attrs["bin_width"]``.
        Loadings are averaged over all other dims (cells): select one before to describe it alone.
    features : Dataset
        Over `time`, as from `retina_codec.stimulus_features`; each variable has
        ``attrs["family"]``: ``"light"``, ``"motion"`` or ``"nuisance"``. All times of the
        loadings must be there; more are welcome, as the past of the first samples.
    max_lag : float
        Seconds; lags are 0 to `max_lag` in steps of the bin width, and none reaches into another
        block.
    q : float
        Largest q-value that counts.
    min_r : float
        Smallest absolute partial correlation that counts.

    Returns
    -------
    Dataset
        Over (mode, feature): `partial_r` (-1 to 1), `lag` (s), `p_value`, `q_value`; NaN where
        the loading or the feature does not vary (beyond what is regressed out).
        Over mode: `light_effect` and `motion_effect`, the largest absolute partial r of each
        family (NaN if it is absent); `label`: "light", "motion", "mixed" (both count, within a
        factor of 2 of each other) or "none"; `subtype`: "ON", "OFF", "contrast",
        "translation (45 deg)", "object motion", "speed" or the name of another feature, with
        "suppressed by" before it where the correlation is negative (luminance is "ON" where it is
        positive and "OFF" where it is negative); `direction` of translation,
        degrees, 0 = +x, 90 = +y, else NaN.
        The coordinate `family` stands on `feature`.

    Raises
    ------
    TypeError
        If `modes` or `features` is of another type.
    ValueError
        If a dim, family or time is missing, values are NaN, or there are too few samples for
        shifts: at least 10 times `max_lag`.

    Notes
    -----
    Partial correlation with the residuals of both sides; shifting residuals: Winkler et al.,
    NeuroImage 2014 (the Kennedy method); circular shifts keep the autocorrelation of both sides
    and break only their relation. Small p-values are extrapolated by a generalised Pareto tail,
    since a recording has only as many independent shifts as it has stretches of `max_lag` plus
    the autocorrelation time.

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
    loadings = mean_loadings(modes)
    bin_width = bin_width_of(loadings, "modes")
    max_lag = magnitude(max_lag, "s", "max_lag")
    if not max_lag >= 0:
        raise ValueError(f"max_lag={max_lag}; expected seconds, 0 or more")
    for argument, value in (("q", q), ("min_r", min_r)):
        if not 0 < value < 1:
            raise ValueError(f"{argument}={value}; expected a number between 0 and 1")
    families = _families(features)
    features = _cover(features, loadings)
    n_lags = round(max_lag / bin_width) + 1
    places = features.get_index("time").get_indexer(loadings.get_index("time"))
    kept = np.isin(places, whole_history(features, n_lags))
    rows = places[kept]
    if len(rows) < WINDOWS_NEEDED * n_lags:
        raise ValueError(
            f"modes: {len(rows)} samples have {max_lag} s of features before them in their own "
            f"block; at least {WINDOWS_NEEDED * n_lags} are needed for a null: lower max_lag or "
            "give a longer recording"
        )
    values = loadings.values[kept].T.astype(np.float64)
    lagged = {
        name: np.stack(
            [features[name].values[rows - lag].astype(np.float64) for lag in range(n_lags)]
        )
        for name in families
    }
    tested, at_lags, p_value = _correlate(values, lagged, families)
    described = _at_best_lag(at_lags, p_value, bin_width).assign_coords(
        feature=tested,
        family=("feature", [families[name] for name in tested]),
        **{str(key): c for key, c in loadings.coords.items() if c.dims == ("mode",)},
    )
    described["direction"] = ("mode", directions(at_lags, tested), {"units": "degree"})
    made_by = provenance(method="describe_modes", max_lag=max_lag, q=q, min_r=min_r)
    return label_modes(described, q=q, min_r=min_r).assign_attrs({**loadings.attrs, **made_by})


def mean_loadings(modes: Modes | xr.DataArray) -> xr.DataArray:
    """Return loadings (time, mode), averaged over all other dims."""
    loadings = modes.loadings if isinstance(modes, Modes) else require_array(modes, "modes")
    for dim in ("time", "mode"):
        if dim not in loadings.dims:
            raise ValueError(
                f"modes: the loadings have dims {tuple(loadings.dims)}; expected 'time' and 'mode'"
            )
    require_finite(loadings, "modes")
    others = [dim for dim in loadings.dims if dim not in ("time", "mode")]
    averaged = loadings.mean(others, keep_attrs=True) if others else loadings
    return averaged.transpose("time", "mode")


def _families(features: xr.Dataset) -> dict[str, str]:
    """Family of every feature, in the order of the Dataset."""
    if not isinstance(features, xr.Dataset):
        raise TypeError(
            f"features is a {type(features).__name__}; expected an xarray.Dataset over time, as "
            "from retina_codec.stimulus_features"
        )
    families = {}
    for name, feature in features.data_vars.items():
        if feature.dims != ("time",):
            raise ValueError(
                f"features[{name!r}] has dims {feature.dims}; expected ('time',): give one value "
                "for every time"
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
    return families


def _cover(features: xr.Dataset, loadings: xr.DataArray) -> xr.Dataset:
    """`features`, checked to have all times of the loadings, with blocks."""
    theirs, ours = features.get_index("time"), loadings.get_index("time")
    if "time" not in features.coords or not theirs.is_unique:
        raise ValueError("features has no coordinate 'time' with each time once: take the movie's")
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


def _correlate(
    loadings: np.ndarray, lagged: dict[str, np.ndarray], families: dict[str, str]
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return tested features, partial r (mode, feature, lag), p-values (mode, feature)."""
    tested, at_lags, p_values = [], [], []
    for family in ("light", "motion"):
        names = [name for name in families if families[name] == family]
        others = [lagged[name] for name in families if families[name] != family]
        basis = nuisance_basis(np.concatenate([np.empty((0, loadings.shape[1])), *others]).T)
        left = residuals(loadings, basis)
        for name in names:
            slowest = decorrelation_time(np.concatenate([left, lagged[name][:1]]))
            shortest = min(len(lagged[name]) + slowest, loadings.shape[1] // 4)
            found = lagged_correlation(left, lagged[name], basis, shortest)
            tested.append(name)
            at_lags.append(found.observed)
            p_values.append(found.p_value)
    return tested, np.stack(at_lags, axis=1), np.stack(p_values, axis=1)


def _at_best_lag(at_lags: np.ndarray, p_value: np.ndarray, bin_width: float) -> xr.Dataset:
    dims = ("mode", "feature")
    best = np.abs(np.nan_to_num(at_lags)).argmax(axis=2)
    partial_r = np.take_along_axis(at_lags, best[:, :, None], axis=2)[:, :, 0]
    tested = np.isfinite(p_value)
    q_value = np.full(p_value.shape, np.nan)
    if tested.any():
        q_value[tested] = false_discovery_control(p_value[tested])
    return xr.Dataset(
        {
            "partial_r": (dims, partial_r, {"units": "1", "long_name": "partial correlation"}),
            "lag": (dims, np.where(tested, best * bin_width, np.nan), {"units": "s"}),
            "p_value": (dims, p_value, {"units": "1"}),
            "q_value": (dims, q_value, {"units": "1", "long_name": "Benjamini-Hochberg"}),
        }
    )
