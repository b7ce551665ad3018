"""Stability beside its controls, consensus, the choice of a size, the target rebuilt."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
from scipy.optimize import linear_sum_assignment

from retina_codec._common.files import open_tree, save_tree
from retina_codec._common.time import time_coordinate
from retina_codec.attribution import contributions
from retina_codec.attribution.methods import IntegratedGradients
from retina_codec.models import BNCNN
from retina_codec.modes import (
    choose_modes,
    consensus_modes,
    fit_modes,
    load_modes,
    match_modes,
    stability,
    target_reconstruction,
)
from retina_codec.modes.surrogates import phase_shuffled

QUICK = {"n_modes": 6, "max_epochs": 5, "progress": False}


@pytest.fixture(scope="module")
def teams_of_three():
    """Contribution (time, channel) of five disjoint teams, one active at a time."""
    rng = np.random.default_rng(0)
    teams = np.kron(np.eye(5), [1.0, -0.7, 0.5])
    strength = np.eye(5)[rng.integers(5, size=800)] * rng.uniform(0.5, 1.5, (800, 1))
    values = strength @ teams + 0.01 * rng.normal(size=(800, 15))
    return xr.DataArray(values, dims=("time", "channel")), teams


def test_stability_stands_beside_its_controls(teams_of_three):
    contribution, _ = teams_of_three
    options = {"features": "channel", "n_modes": 5, "k": 1, "max_epochs": 25, "progress": False}
    found = stability(contribution, seeds=(0, 1, 2), **options)
    assert found["cosine"].dims == ("mode", "seed")
    assert list(found["seed"].values) == [1, 2]
    assert found["half_cosine"].dims == ("mode", "half")
    assert found["control_cosine"].dims == ("control", "mode", "seed")
    assert float(found["stability"].median()) > 0.99
    assert float(found["half_stability"].median()) > 0.99
    shuffled = float(found["control_stability"].sel(control="phase_shuffled").median())
    untrained = float(found["control_stability"].sel(control="untrained").median())
    assert max(shuffled, untrained) < float(found["stability"].median()) - 0.05
    # Worked by hand: one seed, one half, one control.
    reference = fit_modes(contribution, seed=0, **options)
    refit = fit_modes(contribution, seed=2, **options)
    np.testing.assert_allclose(
        found["cosine"].sel(seed=2), match_modes(reference, refit)["cosine"], rtol=1e-6
    )
    second = fit_modes(contribution.isel(time=slice(400, None)), seed=0, **options)
    np.testing.assert_allclose(
        found["half_cosine"].sel(half="second"), match_modes(reference, second)["cosine"], rtol=1e-6
    )
    starts = [fit_modes(contribution, seed=s, **{**options, "max_epochs": 0}) for s in (0, 1)]
    by_hand = match_modes(*starts)["cosine"].where(starts[0].loadings["active_fraction"] > 0)
    got = found["control_cosine"].sel(control="untrained", seed=1)
    np.testing.assert_allclose(got, by_hand, rtol=1e-6)
    few = {**options, "max_epochs": 1}
    bare = stability(contribution, seeds=(0, 1), halves=False, controls=(), **few)
    assert set(bare.data_vars) == {"cosine", "stability"}
    baseline = stability(contribution, seeds=(0, 1), autoencoder="pca", **options)
    assert list(baseline["control"].values) == ["phase_shuffled"]


def test_phase_shuffling_keeps_spectra_and_nothing_between_columns(contribution):
    slow = contribution.cumsum("time")
    shuffled = phase_shuffled(slow, features=("sign", "channel"), seed=0)["contribution"]
    xr.testing.assert_identical(shuffled.coords.to_dataset(), slow.coords.to_dataset())
    for block in (0, 1):
        a, b = (d.values[d["block"].values == block] for d in (slow, shuffled))
        np.testing.assert_allclose(
            abs(np.fft.rfft(a, axis=0)), abs(np.fft.rfft(b, axis=0)), rtol=1e-4, atol=1e-2
        )
        np.testing.assert_allclose(a.mean(0), b.mean(0), rtol=1e-4, atol=1e-5)
        assert abs(a - b).max() > 0.1 * a.std()
    noise = np.random.default_rng(0).normal(size=(2001, 1)) * np.ones(8)
    same = xr.DataArray(noise, dims=("time", "channel"))
    apart = phase_shuffled(same, features=("channel",), seed=1)["contribution"].values
    r = np.corrcoef(apart.T)[~np.eye(8, dtype=bool)]
    assert abs(r).max() < 0.1


def test_phase_shuffling_can_keep_the_values_of_sparse_columns_of_one_sign():
    rng = np.random.default_rng(0)
    slow = np.convolve(rng.normal(size=4096), np.hanning(41) / 20, "same")
    bursts = np.maximum(slow - slow.std(), 0)  # 0 most of the time
    given = xr.DataArray(np.stack([bursts, bursts], axis=1), dims=("time", "channel"))
    options = {"features": ("channel",), "seed": 0}
    apart = phase_shuffled(given, keep_values=True, **options)["contribution"].values
    np.testing.assert_array_equal(np.sort(apart, axis=0), np.sort(given.values, axis=0))
    assert abs(np.corrcoef(apart.T)[0, 1]) < 0.2 < np.corrcoef(given.values.T)[0, 1]
    # Slow before, and slow after: neighbours 10 apart, which would be independent in new order.
    lagged = [np.corrcoef(v[:-10], v[10:])[0, 1] for v in (bursts, apart[:, 0])]
    assert lagged[0] > 0.3
    assert lagged[1] == pytest.approx(lagged[0], abs=0.25)
    assert phase_shuffled(given, **options)["contribution"].min() < 0  # else the sign is lost


def test_stability_of_one_signed_atoms_has_a_control_of_one_sign():
    strength = np.random.default_rng(0).random((300, 4)) ** 3
    one_sign = xr.DataArray(strength, dims=("time", "channel"))
    options = {"features": "channel", "n_modes": 6, "max_epochs": 5, "progress": False}
    options["non_negative"] = True
    found = stability(one_sign, seeds=(0, 1), halves=False, **options)
    shuffled = phase_shuffled(one_sign, features=("channel",), seed=0, keep_values=True)
    fits = [fit_modes(shuffled, seed=seed, **options) for seed in (0, 1)]
    by_hand = match_modes(*fits)["cosine"].where(fits[0].loadings["active_fraction"] > 0)
    got = found["control_cosine"].sel(control="phase_shuffled", seed=1)
    np.testing.assert_allclose(got, by_hand, rtol=1e-6)


def test_consensus_keeps_what_all_seeds_find(teams_of_three, tmp_path):
    contribution, teams = teams_of_three
    options = {"features": "channel", "n_modes": 8, "k": 1, "max_epochs": 25, "progress": False}
    modes = consensus_modes(contribution, seeds=(0, 1, 2), min_stability=0.95, **options)
    n = modes.loadings.sizes["mode"]
    assert 5 <= n <= 8
    assert (modes.loadings["stability"] >= 0.95).all()
    scale = np.sqrt(np.sqrt((contribution.values**2).mean(0)))
    expected = np.sign(teams) * np.sqrt(abs(teams)) / scale
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    cosine = expected @ modes.dictionary.values.T
    assert (cosine[linear_sum_assignment(-cosine)] > 0.99).all()
    assert float(modes.score()["mean_r2"]) > 0.9
    # Each atom is the mean of matched unit atoms.
    fits = [fit_modes(contribution, seed=seed, **options) for seed in (0, 1, 2)]
    reference = fits[json_seed(modes)]
    others = [fit for fit in fits if fit is not reference]
    for row in modes.dictionary:
        m = int(abs(reference.dictionary - row).sum("channel").argmin("mode"))
        mean = reference.dictionary.values[m] + sum(
            other.dictionary.values[int(match_modes(reference, other)["matched"][m])]
            for other in others
        )
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-5)
    loaded = load_modes(modes.save(tmp_path / "modes"))
    xr.testing.assert_identical(loaded.loadings, modes.loadings)
    noise = contribution.copy(data=np.random.default_rng(0).normal(size=contribution.shape))
    with pytest.raises(ValueError, match=r"no mode reaches min_stability=0\.999"):
        consensus_modes(noise, seeds=(0, 1), min_stability=0.999, **{**options, "max_epochs": 3})
    with pytest.raises(ValueError, match="autoencoder='pca' is not known"):
        consensus_modes(contribution, autoencoder="pca", **options)


def json_seed(modes):
    return json.loads(json.loads(modes.attrs["parameters"])["fit"])["seed"]


def test_choice_is_the_smallest_size_that_loses_nothing(teams_of_three, tmp_path):
    contribution, _ = teams_of_three
    options = {"features": "channel", "max_epochs": 25, "progress": False}
    curve = choose_modes(contribution, n_modes=(3, 5, 8), k=(1, 6), seeds=(0, 1), **options)
    assert curve["r2"].dims == ("n_modes", "k", "seed")
    assert curve["r2"].sel(n_modes=3, k=6).isnull().all()  # more at a time than there are
    assert curve.attrs["recommended_n_modes"] == 5 and curve.attrs["recommended_k"] == 1
    assert "fewest modes whose R2 is within" in curve.attrs["rule"]
    fit = fit_modes(contribution, n_modes=5, k=1, seed=1, **options).score()
    point = curve.sel(n_modes=5, k=1, seed=1)
    assert float(point["r2"]) == pytest.approx(float(fit["mean_r2"]))
    assert float(point["l0"]) == float(fit["l0"])
    assert int(point["alive"]) == int(fit["alive"])
    assert float(curve["stability"].sel(n_modes=5, k=1)) > 0.99
    save_tree(curve, tmp_path / "curve.nc")
    assert open_tree(tmp_path / "curve.nc").attrs["rule"] == curve.attrs["rule"]
    strict = choose_modes(
        contribution, n_modes=(5,), k=(1,), seeds=(0, 1), min_stability=1.1, max_l0=0.1, **options
    )
    assert strict.attrs["rule"].startswith("no point has a stability of 1.1; no point has a mean")


def test_choice_names_bad_arguments(contribution):
    for bad in ({"n_modes": ()}, {"k": ()}, {"seeds": (0,)}, {"seeds": (1, 1)}):
        with pytest.raises(ValueError, match="expected at least one size, one k and two"):
            choose_modes(contribution, **bad)
    with pytest.raises(ValueError, match=r"every k of .* is more than every n_modes"):
        choose_modes(contribution, n_modes=(2,), k=(4,))
    with pytest.raises(ValueError, match="autoencoder='pca' is not known"):
        choose_modes(contribution, autoencoder="pca")


def test_target_is_rebuilt_from_modes(contribution):
    modes = fit_modes(contribution, **QUICK)
    base = xr.DataArray([2.0, 3.0], dims="cell", coords={"cell": ["a", "b"]})
    target = contribution.sum(("sign", "channel")) + base
    held_out = modes.score()["held_out"].values
    found = target_reconstruction(modes, target, base)
    expected = modes.reconstruct().sum(("sign", "channel")).values[held_out] + base.values
    np.testing.assert_allclose(found["prediction"], expected, rtol=1e-5)
    wanted = target.values[held_out].astype(float)
    for cell in range(2):
        r = np.corrcoef(expected[:, cell], wanted[:, cell])[0, 1]
        assert float(found["r"][cell]) == pytest.approx(r, rel=1e-4)
        error = ((expected[:, cell] - wanted[:, cell]) ** 2).mean() / wanted[:, cell].var()
        assert float(found["r2"][cell]) == pytest.approx(1 - error, rel=1e-4)
    # As many components as columns lose nothing.
    whole = fit_modes(contribution, autoencoder="pca", n_modes=12, progress=False)
    found = target_reconstruction(whole, target, base, loadings=whole.loadings)
    np.testing.assert_allclose(found["r2"], 1, atol=1e-5)
    two = {"one": contribution, "two": contribution.isel(channel=slice(2))}
    layered = target_reconstruction(fit_modes(two, **QUICK), target, base)
    assert layered["r"].dims == ("layer", "cell")
    population = fit_modes(contribution, features=("cell", "sign", "channel"), **QUICK)
    assert population.loadings.dims == ("time", "mode")
    assert target_reconstruction(population, target, base)["r"].dims == ("cell",)


def test_bad_targets_are_named(contribution):
    modes = fit_modes(contribution, **QUICK)
    target = contribution.sum(("sign", "channel"))
    with pytest.raises(ValueError, match="have no 'unit'"):
        target_reconstruction(modes, target.rename(cell="unit"))
    with pytest.raises(ValueError, match="different samples or cells"):
        target_reconstruction(modes, target.isel(time=slice(7)))
    with pytest.raises(ValueError, match="target has 1 NaN"):
        bad = target.copy()
        bad[int(modes.score()["held_out"].values.argmax()), 0] = np.nan
        target_reconstruction(modes, bad)
    with pytest.raises(TypeError, match="target is a ndarray"):
        target_reconstruction(modes, target.values)


def test_sums_over_cells_and_other_cells_in_the_baseline_are_refused(contribution):
    modes = fit_modes(contribution, features=("sign", "channel"), **QUICK)
    target = 5 + contribution.sum(("sign", "channel"))
    base = xr.full_like(target.isel(time=0, drop=True), 5)
    with pytest.raises(ValueError, match="contributions are to each 'cell'"):
        target_reconstruction(modes, target.isel(cell=0, drop=True), 5.0)
    with pytest.raises(ValueError, match="baseline and target have different samples or cells"):
        target_reconstruction(modes, target, base.isel(cell=slice(1)))
    with pytest.raises(ValueError, match="baseline has the dim 'layer'"):
        target_reconstruction(modes, target, base.expand_dims("layer"))


def test_an_untrained_codec_stands_beside_a_trained_one(teams_of_three):
    """Its threshold is annealed from 0: before the fit it is 0, and its codes are not."""
    contribution, _ = teams_of_three
    options = {"features": "channel", "n_modes": 15, "progress": False, "autoencoder": "codec"}
    start = fit_modes(contribution, max_epochs=0, **options)
    assert (start.loadings > 0).all()
    found = stability(
        contribution, seeds=(0, 1), halves=False, controls=["untrained"], max_epochs=30, **options
    )
    assert np.isfinite(found["control_stability"]).all()


def test_activations_go_the_same_way():
    movie = xr.DataArray(
        np.random.default_rng(0).normal(size=(150, 6, 6)),
        dims=("time", "y", "x"),
        coords={"time": time_coordinate(np.arange(150) * 0.01, 0.01)},
    )
    model = BNCNN(
        (6, 6), history=5, bin_width=0.01, cells=["a", "b"], channels=(4, 4), kernel_sizes=(3, 3)
    )
    tree = contributions(
        model, movie, layers="relu1", split_sign=True, sum_over=("y", "x"), extras="activation",
        method=IntegratedGradients(steps=2), progress=False,
    )  # fmt: skip
    node = tree["layers/relu1"].to_dataset()
    modes = fit_modes(node["contribution"], **QUICK)
    assert modes.loadings.dims == ("time", "cell", "mode")
    active = fit_modes(node["activation"], features="channel", **{**QUICK, "n_modes": 3})
    assert active.loadings.dims == ("time", "mode")
    assert active.reconstruct().attrs["units"] == node["activation"].attrs["units"]
    found = target_reconstruction(
        modes, tree["target"], tree["target_baseline"], loadings=modes.loadings
    )
    expected = modes.reconstruct().sum(("sign", "channel")) + tree["target_baseline"]
    np.testing.assert_allclose(found["prediction"], expected.transpose("time", "cell"), rtol=1e-5)
