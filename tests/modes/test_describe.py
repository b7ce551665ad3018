"""Modes with a planted meaning get the right label; modes without one get none."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.signal import lfilter

from retina_codec._common.time import block_coordinate, time_coordinate
from retina_codec.modes import describe_modes, fit_modes
from retina_codec.modes.shift_null import (
    decorrelation_time,
    lagged_correlation,
    nuisance_basis,
    residuals,
    tail_p_value,
)
from retina_codec.stimuli import stimulus_features

N = 4000


def smooth(rng, n_signals, n=N, tau=10.0):
    """First-order autoregressive signals (signal, n) of unit variance."""
    decay = np.exp(-1 / tau)
    noise = rng.normal(size=(n_signals, n + 500))
    signals = lfilter([1], [1, -decay], noise, axis=1)[:, 500:]
    return signals / signals.std(axis=1, keepdims=True)


def make_features(rng, n=N, shared=0.0, motion=True):
    """Light and motion features; `shared` of the speed comes from the luminance."""
    luminance, contrast, x, y, differential = smooth(rng, 5, n)
    change = np.diff(luminance, prepend=luminance[0])
    speed = np.hypot(x, y) * (1 - shared) + shared * 2 * luminance
    light = {
        "luminance": luminance,
        "luminance_on": np.maximum(change, 0),
        "luminance_off": np.maximum(-change, 0),
        "contrast": contrast,
    }
    moving = {"velocity_x": x, "velocity_y": y, "speed": speed, "differential_motion": differential}
    variables = {name: ("time", v, {"family": "light"}) for name, v in light.items()}
    if motion:
        variables |= {name: ("time", v, {"family": "motion"}) for name, v in moving.items()}
    coords = {"time": time_coordinate(np.arange(n) * 0.01, 0.01)}
    return xr.Dataset(variables, coords=coords)


def make_loadings(features, rows):
    return xr.DataArray(np.stack(rows), dims=("mode", "time"), coords={"time": features["time"]})


def driven(rng, feature, lag, noise=0.5):
    values = feature.values
    signal = np.r_[np.full(lag, values[0]), values[: values.size - lag]]
    return signal / signal.std() + noise * smooth(rng, 1, values.size, 5)[0]


def test_planted_meanings_are_found():
    rng = np.random.default_rng(0)
    f = make_features(rng)
    angle = np.cos(np.radians(120)) * f.velocity_x + np.sin(np.radians(120)) * f.velocity_y
    both = f.contrast / f.contrast.std() + f.differential_motion / f.differential_motion.std()
    rows = [
        driven(rng, f.luminance_on, 7),
        driven(rng, f.luminance_off, 12),
        driven(rng, f.contrast, 3),
        driven(rng, angle, 9),
        driven(rng, f.differential_motion, 20),
        driven(rng, f.speed, 0),
        driven(rng, both, 5),
        driven(rng, -f.luminance, 5),
        driven(rng, -f.speed, 5),
        smooth(rng, 1)[0],
    ]
    d = describe_modes(make_loadings(f, rows), f)
    assert list(d.label.values) == ["light"] * 3 + ["motion"] * 3 + [
        "mixed",
        "light",
        "motion",
        "none",
    ]
    direction = float(d.direction[3])
    assert direction == pytest.approx(120, abs=8)
    assert list(d.subtype.values) == [
        "ON",
        "OFF",
        "contrast",
        f"translation ({direction:.0f} deg)",
        "object motion",
        "speed",
        "contrast + object motion",
        "OFF",
        "suppressed by speed",
        "none",
    ]
    assert d.lag.sel(feature="luminance_on")[0] == pytest.approx(0.07)
    assert d.lag.sel(feature="luminance_off")[1] == pytest.approx(0.12)
    assert d.lag.sel(feature="differential_motion")[4] == pytest.approx(0.2)
    assert d.partial_r.sel(feature="luminance")[7] < -0.5
    assert np.isnan(d.direction[[0, 5, 9]]).all()
    assert d.lag.attrs["units"] == "s"
    assert set(d.family.values) == {"light", "motion"}


@pytest.mark.parametrize("lag", [0, 5, 23])
def test_light_that_comes_with_motion_is_not_called_motion(lag):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        f = make_features(rng, shared=0.7)
        assert np.corrcoef(f.luminance, f.speed)[0, 1] > 0.8
        loadings = make_loadings(f, [driven(rng, f.luminance, lag, noise=0.3)])
        assert describe_modes(loadings, f).label.values == ["light"]
        # The confound is real: without the light features the same mode is called motion.
        alone = f[["velocity_x", "velocity_y", "speed", "differential_motion"]]
        assert describe_modes(loadings, alone).label.values == ["motion"]


def test_nuisance_is_regressed_out_and_not_tested():
    rng = np.random.default_rng(1)
    f = make_features(rng)
    rate = f.contrast + 0.02 * smooth(rng, 1)[0]
    loadings = make_loadings(f, [driven(rng, f.contrast, 4, noise=0.3)])
    assert describe_modes(loadings, f).label.values == ["light"]
    told = f.assign(rate=rate.assign_attrs(family="nuisance"))
    d = describe_modes(loadings, told)
    assert "rate" not in d.feature
    assert d.label.values == ["none"]


def test_unrelated_modes_get_no_label():
    labelled, p_values = [], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        f = make_features(rng, n=3000, shared=0.3)
        rows = np.concatenate([smooth(rng, 10, 3000), np.maximum(smooth(rng, 10, 3000, 20) - 1, 0)])
        d = describe_modes(make_loadings(f, rows), f)
        labelled.append((d.label != "none").values)
        p_values.append(d.p_value.values.ravel())
    assert np.mean(labelled) <= 0.05
    assert 0.02 < np.mean(np.concatenate(p_values) < 0.05) < 0.09


def test_one_family_alone():
    rng = np.random.default_rng(2)
    f = make_features(rng, motion=False)
    rows = [driven(rng, f.luminance_on, 5), *smooth(rng, 5)]
    d = describe_modes(make_loadings(f, rows), f)
    assert d.label.values[0] == "light"
    assert not set(d.label.values) & {"motion", "mixed"}
    assert np.isnan(d.motion_effect).all()
    assert np.isnan(d.direction).all()


def test_full_field_movie_has_no_motion():
    rng = np.random.default_rng(2)
    movie = xr.DataArray(
        smooth(rng, 1)[0].reshape(-1, 1, 1),
        dims=("time", "y", "x"),
        coords={"time": time_coordinate(np.arange(N) * 0.01, 0.01)},
    )
    f = stimulus_features(movie)
    d = describe_modes(make_loadings(f, [driven(rng, f.luminance_off, 5)]), f)
    assert d.label.values == ["light"]
    assert d.subtype.values == ["OFF"]


def test_partial_r_against_least_squares():
    rng = np.random.default_rng(3)
    f = make_features(rng, n=1500)[["luminance", "speed"]]
    loadings = make_loadings(f, [driven(rng, f.luminance + f.speed, 3)])
    d = describe_modes(loadings, f, max_lag=0.05)
    lag = round(float(d.lag.sel(feature="speed")[0]) / 0.01)
    rows = np.arange(5, 1500)
    nuisance = np.stack([np.ones(rows.size)] + [f.luminance.values[rows - i] for i in range(6)], 1)
    left = [
        v - nuisance @ np.linalg.lstsq(nuisance, v, rcond=None)[0]
        for v in (loadings.values[0, rows], f.speed.values[rows - lag])
    ]
    expected = np.corrcoef(*left)[0, 1]
    # The basis leaves out 0.01 % of the nuisance's variance.
    assert float(d.partial_r.sel(feature="speed")[0]) == pytest.approx(expected, abs=0.02)


def test_loadings_are_averaged_over_cells_and_order_does_not_matter(contribution):
    rng = np.random.default_rng(0)
    f = make_features(rng, n=600)
    modes = fit_modes(contribution, n_modes=4, max_epochs=5, progress=False)
    f = f.assign_coords(block=contribution["block"])
    described = describe_modes(modes, f, max_lag=0.1)
    mean = modes.loadings.mean("cell", keep_attrs=True)
    xr.testing.assert_identical(described, describe_modes(mean.transpose(), f, max_lag=0.1))
    assert "energy_share" in described.coords
    assert described.attrs["retina_codec_version"]


def test_lags_do_not_cross_blocks():
    rng = np.random.default_rng(4)
    f = make_features(rng, n=2000).assign_coords(
        block=block_coordinate(np.repeat([0, 1, 2, 3], 500))
    )
    loadings = make_loadings(f, [driven(rng, f.contrast, 5)]).assign_coords(block=f["block"])
    d = describe_modes(loadings, f, max_lag=0.2)
    # What stands in the first max_lag of a block of the loadings is never looked at.
    spoilt = loadings.copy(deep=True)
    for start in range(0, 2000, 500):
        spoilt[:, start : start + 20] = 100 + start
    xr.testing.assert_identical(d, describe_modes(spoilt, f, max_lag=0.2))
    # Blocks known to the loadings alone count too.
    xr.testing.assert_identical(d, describe_modes(spoilt, f.drop_vars("block"), max_lag=0.2))
    # The past of the first samples is used where features go further back.
    late = loadings.isel(time=slice(20, None))
    assert describe_modes(late, f, max_lag=0.2).partial_r.equals(d.partial_r)


def test_constant_loadings_and_features_have_no_correlation():
    rng = np.random.default_rng(5)
    f = make_features(rng, n=1000)
    f["differential_motion"] = f["differential_motion"] * 0
    f["differential_motion"].attrs["family"] = "motion"
    d = describe_modes(make_loadings(f, [np.zeros(1000), driven(rng, f.contrast, 2)]), f)
    assert np.isnan(d.partial_r[0]).all() and d.label[0] == "none"
    assert np.isnan(d.partial_r.sel(feature="differential_motion")).all()
    assert d.label[1] == "light"


def test_null_of_shifts_against_a_loop():
    rng = np.random.default_rng(6)
    loadings, feature, other = smooth(rng, 1, 301), smooth(rng, 1, 310)[0], smooth(rng, 1, 301)
    lagged = np.stack([feature[9 - lag : 310 - lag] for lag in range(3)])
    basis = nuisance_basis(other.T)
    left, right = residuals(loadings, basis), residuals(lagged, basis)
    null, taken = [], []
    for shift in range(301):
        turned = np.roll(right, shift, axis=1)
        taken.append(((turned @ basis) ** 2).sum(axis=1))
        null.append(turned @ left[0])
    norm = np.sqrt((left**2).sum() * ((right**2).sum(axis=1) - np.mean(taken, axis=0)))
    expected = np.abs(np.array(null) / norm).max(axis=1)[40 : 301 - 40 + 1]
    found = lagged_correlation(left, lagged, basis, 40)
    direct = [np.corrcoef(left[0], row)[0, 1] for row in right]
    np.testing.assert_allclose(found.observed[0], direct, rtol=1e-6)
    assert found.p_value[0] == pytest.approx(tail_p_value(np.abs(direct).max(), expected), rel=1e-6)


def test_tail_p_value():
    rng = np.random.default_rng(7)
    null = np.abs(rng.normal(size=20000)) * 0.1
    assert tail_p_value(0.05, null) == (1 + (null >= 0.05).sum()) / 20001
    # Two-sided normal tail probabilities: 3 and 5 standard deviations.
    assert tail_p_value(0.3, null) == pytest.approx(2.7e-3, rel=0.3)
    assert 1e-8 < tail_p_value(0.5, null) < 1e-5
    assert tail_p_value(0.9, np.full(100, 0.1)) == pytest.approx(1 / 101)


def test_decorrelation_time():
    signals = smooth(np.random.default_rng(8), 1, 100_000, tau=25)
    assert decorrelation_time(signals) == pytest.approx(25, abs=4)


def test_bad_input_is_named():
    rng = np.random.default_rng(9)
    f = make_features(rng, n=1000)
    loadings = make_loadings(f, smooth(rng, 2, 1000))

    def fails(message, modes=loadings, features=f, **options):
        with pytest.raises(ValueError, match=message):
            describe_modes(modes, features, **options)

    shifted = f.assign_coords(time=time_coordinate(f.time.values + 0.003, 0.01))
    fails("features lacks 1000 of the 1000 times of the loadings", features=shifted)
    fails("features lacks 1 of the 1000 times", features=f.isel(time=slice(1, None)))
    fails("at least 410 are needed for a null", loadings.isel(time=slice(200)))
    fails("expected 'time' and 'mode'", loadings.rename(mode="atom"))
    fails("modes has 2 NaN", loadings.where(loadings.time > 0))
    fails("family'. is None; expected one of light, motion, nuisance", features=f.drop_attrs())
    fails(
        r"features\['contrast'\] has dims", features=f.assign(contrast=f.contrast.expand_dims("c"))
    )
    fails(
        "features.'luminance'. has 1 NaN",
        features=f.assign(
            luminance=f.luminance.where(f.time > 0, np.nan).assign_attrs(family="light")
        ),
    )
    fails("no variable of the family", features=f[[]])
    fails("max_lag=-1", max_lag=-1)
    fails("min_r=2", min_r=2)
    fails("has no attrs.'bin_width'", loadings.assign_coords(time=f.time.values))
    with pytest.raises(TypeError, match=r"features is a DataArray; expected an xarray"):
        describe_modes(loadings, f.luminance)
