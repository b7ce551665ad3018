"""Modes with a planted meaning get the right label; modes without one get none."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.signal import lfilter

from retina_codec._common.time import block_coordinate, time_coordinate
from retina_codec.modes import describe_modes, fit_modes
from retina_codec.modes.shift_null import (
    CircularShifts,
    LaggedFeature,
    Permutations,
    decorrelation_time,
    make_circles,
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
    for seed in range(2):
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


def test_order_of_dims_does_not_matter_and_coordinates_stay(contribution):
    rng = np.random.default_rng(0)
    f = make_features(rng, n=600)
    modes = fit_modes(contribution, n_modes=4, max_epochs=5, progress=False)
    f = f.assign_coords(block=contribution["block"])
    described = describe_modes(modes, f, max_lag=0.1)
    turned = modes.loadings.transpose("mode", "time", "cell")
    xr.testing.assert_identical(described, describe_modes(turned, f, max_lag=0.1))
    assert "energy_share" in described.coords
    assert described.attrs["retina_codec_version"]
    assert list(described["cell"].values) == list(modes.loadings["cell"].values)
    np.testing.assert_allclose(described["cell_weight"].sum("cell"), 1)
    # One cell alone has no dim cell, and the same numbers with and without it.
    one = modes.loadings.isel(cell=0)
    alone = describe_modes(one, f, max_lag=0.1)
    assert "cell" not in alone.dims and "cell_partial_r" not in alone
    kept = describe_modes(modes.loadings.isel(cell=[0]), f, max_lag=0.1)
    xr.testing.assert_allclose(kept["partial_r"].variable, alone["partial_r"].variable)


def test_cells_with_opposite_directions_keep_them():
    rng = np.random.default_rng(10)
    f = make_features(rng)
    cells = ["a", "b", "c", "d"]
    right = [driven(rng, sign * f.velocity_x, 6) for sign in (1, -1, 1, -1)]
    up = [driven(rng, f.velocity_x - f.velocity_y, 6) for _ in range(4)]
    either = [driven(rng, sign * f.luminance, 6) for sign in (1, -1, 1, -1)]
    loadings = xr.DataArray(
        np.array([right, up, either]),
        dims=("mode", "cell", "time"),
        coords={"time": f["time"], "cell": cells},
    )
    d = describe_modes(loadings, f, max_lag=0.1)
    assert list(d.label.values) == ["motion", "motion", "light"]
    assert d.subtype.values[0] == "translation by cell"
    assert np.isnan(d.direction[0])
    off = (d.cell_direction[:, 0] - [0, 180, 0, 180] + 180) % 360 - 180
    assert float(np.abs(off).max()) < 10
    assert float(d.direction[1]) == pytest.approx(315, abs=8)
    assert d.subtype.values[2] == "ON and OFF by cell"
    np.testing.assert_array_equal(
        np.sign(d.cell_partial_r.sel(feature="luminance")[:, 2]), [1, -1, 1, -1]
    )
    # The mean over cells, as one would be tempted to take, has lost the motion.
    assert describe_modes(loadings.mean("cell"), f, max_lag=0.1).label.values[0] == "none"


def test_each_cell_is_described_by_the_features_at_its_own_place():
    rng = np.random.default_rng(11)
    at = [make_features(rng) for _ in range(3)]
    f = xr.concat(at, xr.DataArray(["a", "b", "c"], dims="cell", name="cell"))
    rows = [[driven(rng, at[c].contrast, 4), driven(rng, at[c].speed, 9)] for c in (1, 2, 0)]
    loadings = xr.DataArray(
        np.array(rows),
        dims=("cell", "mode", "time"),
        coords={"time": f["time"], "cell": ["b", "c", "a"]},
    )
    d = describe_modes(loadings, f, max_lag=0.1)
    assert list(d.label.values) == ["light", "motion"]
    assert list(d.subtype.values) == ["contrast", "speed"]
    assert float(d.partial_r.sel(feature="contrast")[0]) > 0.8
    assert float(d.lag.sel(feature="speed")[1]) == pytest.approx(0.09)
    # Each alone gives the partial r of its cell.
    one = describe_modes(loadings.sel(cell="c"), at[2], max_lag=0.1)
    np.testing.assert_allclose(
        d.cell_partial_r.sel(cell="c", feature="contrast")[0],
        one.partial_r.sel(feature="contrast")[0],
        atol=1e-9,
    )
    with pytest.raises(ValueError, match="features lack the cells a of the loadings"):
        describe_modes(loadings, f.sel(cell=["b", "c"]))
    with pytest.raises(ValueError, match="loadings have no coordinate 'cell'"):
        describe_modes(loadings.mean("cell"), f, max_lag=0.1)


def test_an_oblique_direction_counts_as_much_as_a_cardinal_one():
    rng = np.random.default_rng(12)
    f = make_features(rng, n=12000)
    diagonal = np.sqrt(0.5) * (f.velocity_x + f.velocity_y)
    noise = np.sqrt(1 / 0.25**2 - 1)  # r of .25 with the direction, .18 with each component
    rows = [driven(rng, v, 5, noise=noise) for v in (f.velocity_x, diagonal)]
    d = describe_modes(make_loadings(f, rows), f, max_lag=0.1)
    assert list(d.label.values) == ["motion", "motion"]
    assert float(d.partial_r.sel(feature="velocity_x")[1]) < 0.22
    assert float(d.direction[1]) == pytest.approx(45, abs=12)
    # x and y that go together: the direction is that of the regression, not of the correlation.
    mixed = f.assign(velocity_y=(f.velocity_y + 2 * f.velocity_x).assign_attrs(f.velocity_y.attrs))
    d = describe_modes(make_loadings(f, [driven(rng, mixed.velocity_y, 5)]), mixed, max_lag=0.1)
    assert float(d.direction[0]) == pytest.approx(90, abs=8)


def test_a_field_of_one_row_has_a_direction_along_it():
    rng = np.random.default_rng(13)
    f = make_features(rng).drop_vars(["velocity_y", "speed"])
    loadings = make_loadings(f, [driven(rng, -f.velocity_x, 5)])
    d = describe_modes(loadings, f, max_lag=0.1)
    assert d.subtype.values == ["translation (180 deg)"]
    assert float(d.direction[0]) == 180


def test_permuted_epochs():
    rng = np.random.default_rng(14)
    n_epochs, length = 90, 40
    kinds = rng.permutation(np.repeat(["step", "bar", "still"], n_epochs // 3))
    labels = np.ravel([[kind] * length + ["rest"] * 10 for kind in kinds])
    n = labels.size
    time = time_coordinate(np.arange(n) * 0.01, 0.01)
    angle = np.radians(rng.integers(8, size=n_epochs) * 45)
    on = lambda name: (labels == name).astype(float)  # noqa: E731
    each = np.repeat(np.arange(n_epochs), 50)
    f = xr.Dataset(
        {
            "luminance": ("time", on("step") * rng.choice([-1, 1], n_epochs)[each]),
            "velocity_x": ("time", on("bar") * np.cos(angle)[each]),
            "velocity_y": ("time", on("bar") * np.sin(angle)[each]),
        },
        coords={"time": time},
    )
    f["luminance"].attrs["family"] = "light"
    for name in ("velocity_x", "velocity_y"):
        f[name].attrs["family"] = "motion"
    noise = np.repeat(rng.normal(size=(12, n_epochs)), 50, axis=1)
    rows = [f.luminance.values, f.velocity_y.values - f.velocity_x.values, *(0 * noise)]
    rows = np.stack(rows) + 0.5 * np.concatenate([noise, noise[:2]])
    epochs = xr.DataArray(labels, dims="time", coords={"time": time})
    loadings = make_loadings(f, rows)
    d = describe_modes(loadings, f, epochs=epochs, ignore=["rest"], max_lag=0.05)
    assert list(d.label.values[:2]) == ["light", "motion"]
    assert float(d.direction[1]) == pytest.approx(135, abs=15)
    assert (d.label.values[2:] == "none").mean() >= 10 / 12
    assert '"null_draws": "epochs"' in d.attrs["parameters"]
    with pytest.raises(ValueError, match="epochs has 0 epochs"):
        describe_modes(loadings, f, epochs=epochs, ignore=["rest", "bar", "still", "step"])
    with pytest.raises(ValueError, match="have different times"):
        describe_modes(loadings, f, epochs=epochs.isel(time=slice(50)))
    with pytest.raises(TypeError, match="epochs is a list"):
        describe_modes(loadings, f, epochs=labels.tolist())


def test_a_difference_between_blocks_is_not_an_association():
    """Two blocks, one bright and busy: loading and feature differ alike, but do not go together."""
    labels = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        busy = np.repeat([1.0, 8.0], 2000)
        f = make_features(rng)
        f = f.map(lambda v, busy=busy: (v * busy).assign_attrs(v.attrs))
        f = f.assign_coords(block=block_coordinate(np.repeat([0, 1], 2000)))
        rows = smooth(rng, 6) * busy + 3 * busy
        loadings = make_loadings(f, rows).assign_coords(block=f["block"])
        d = describe_modes(loadings, f, max_lag=0.1)
        labels.append((d.p_value < 0.05).mean())
    # 24 loadings; turned end to end, every second p-value would be below 0.05.
    assert np.mean(labels) < 0.15


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
    left, right = residuals(loadings, basis)[0], residuals(lagged, basis)
    drawn, taken = [], []
    for shift in range(301):
        turned = np.roll(right, shift, axis=1)
        taken.append(((turned @ basis) ** 2).sum(axis=1))
        drawn.append(turned @ left)
    norm = np.sqrt((left**2).sum() * ((right**2).sum(axis=1) - np.mean(taken, axis=0)))
    expected = (np.array(drawn) / norm)[40 : 301 - 40 + 1].T
    found = LaggedFeature(lagged, basis, CircularShifts([slice(0, 301)], 40, 400, 0))
    unit = left / np.linalg.norm(left)
    direct = [np.corrcoef(left, row)[0, 1] for row in right]
    np.testing.assert_allclose(found.observed(unit), direct, rtol=1e-6)
    np.testing.assert_allclose(found.drawn(unit), expected, atol=1e-6)
    # Every third shift, where fewer are asked for.
    few = CircularShifts([slice(0, 300)], 40, 100, 0)
    found = few.products(left[:300], few.prepared(right[:, :300]))
    direct = [np.roll(right[:, :300], s, axis=1) @ left[:300] for s in range(42, 259, 3)]
    np.testing.assert_allclose(found, np.transpose(direct), atol=1e-3)


def test_shifts_stay_within_their_circles():
    blocks = np.repeat([3, 5, 6, 9], [90, 8, 70, 9])
    order, circles = make_circles(blocks, 10, 400)
    np.testing.assert_array_equal(blocks[order], np.repeat([3, 6, 5, 9], [90, 70, 8, 9]))
    assert circles == [slice(0, 90), slice(90, 160), slice(160, 177)]
    rng = np.random.default_rng(15)
    basis = nuisance_basis(rng.normal(size=(177, 2)), circles)
    np.testing.assert_allclose(basis.T @ basis, np.eye(5), atol=1e-12)
    null = CircularShifts(circles, 10, 400, 0)
    feature, loading = residuals(rng.normal(size=(2, 177)), basis)
    found = null.products(loading, null.prepared(feature[None]))[0]
    possible = [
        [np.roll(feature[c], s) @ loading[c] for s in range(least, c.stop - c.start - least + 1)]
        for c, least in zip(circles, (10, 10, 4), strict=True)
    ]
    sums = np.add.outer(np.add.outer(possible[0], possible[1]), possible[2]).ravel()
    assert np.abs(found[:, None] - np.sort(sums)[None]).min(axis=1).max() < 1e-4
    assert len(np.unique(found.round(5))) > 350
    # What the nuisance takes, against the mean over many draws.
    rng = np.random.default_rng(16)
    taken = []
    for _ in range(4000):
        turned = [np.roll(feature[c], rng.integers(c.stop - c.start)) for c in circles]
        taken.append(((np.concatenate(turned) @ basis) ** 2).sum())
    assert null.taken(feature[None], basis)[0] == pytest.approx(np.mean(taken), rel=0.1)


def test_permutations_against_a_loop():
    rng = np.random.default_rng(17)
    basis = nuisance_basis(rng.normal(size=(60, 3)))
    feature, loading = residuals(rng.normal(size=(2, 60)), basis)
    null = Permutations(60, 5000, 0)
    found = null.products(loading, null.prepared(feature[None]))[0]
    direct = [feature[rng.permutation(60)] @ loading for _ in range(5000)]
    assert found.std() == pytest.approx(np.std(direct), rel=0.05)
    assert abs(found.mean()) < 0.05 * found.std()
    taken = [((feature[rng.permutation(60)] @ basis) ** 2).sum() for _ in range(5000)]
    assert null.taken(feature[None], basis)[0] == pytest.approx(np.mean(taken), rel=0.05)


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
    fails("n_draws=5", n_draws=5)
    with pytest.raises(TypeError, match=r"features is a DataArray; expected an xarray"):
        describe_modes(loadings, f.luminance)
