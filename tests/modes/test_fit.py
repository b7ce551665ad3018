"""Fits find planted modes, whatever the order of dims, and score what they have not seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from sklearn.metrics import r2_score

from retina_codec.modes import fit_modes
from retina_codec.modes.held_out import held_out_stretches, stretches_aside
from retina_codec.modes.rows import Rows, Survey
from retina_codec.modes.scaling import ColumnScaling

QUICK = {"n_modes": 6, "max_epochs": 10, "progress": False}


def test_reconstruction_is_labelled_like_the_input(contribution):
    reconstructed = fit_modes(contribution, **QUICK).reconstruct()
    assert reconstructed.dims == contribution.dims
    assert reconstructed.attrs == contribution.attrs
    assert reconstructed.name == contribution.name
    assert reconstructed["time"].attrs == contribution["time"].attrs
    xr.testing.assert_identical(reconstructed.coords.to_dataset(), contribution.coords.to_dataset())


def test_silencing_a_mode_changes_the_reconstruction_by_its_share(contribution):
    modes = fit_modes(contribution, **QUICK)
    without = modes.loadings.where(modes.loadings["mode"] != 0, 0)
    assert not modes.reconstruct(without).equals(modes.reconstruct())
    first = modes.loadings.isel(time=slice(5), cell=0)
    xr.testing.assert_allclose(
        modes.reconstruct(first), modes.reconstruct().isel(time=slice(5), cell=0)
    )


def test_scores_against_sklearn(contribution):
    modes = fit_modes(contribution, **QUICK)
    scores = modes.score()
    held_out = scores["held_out"].values
    wanted = contribution.stack(
        column=("sign", "channel"), row=("time", "cell"), create_index=False
    )
    kept = np.repeat(held_out, contribution.sizes["cell"])
    got = modes.reconstruct().stack(
        column=("sign", "channel"), row=("time", "cell"), create_index=False
    )
    expected = r2_score(
        wanted.transpose("row", "column").values[kept].astype(float),
        got.transpose("row", "column").values[kept].astype(float),
        multioutput="raw_values",
    )
    np.testing.assert_allclose(scores["r2"].values.ravel(), expected, rtol=1e-5)
    assert float(scores["mean_r2"]) == pytest.approx(expected.mean(), rel=1e-5)
    active = modes.loadings[held_out] != 0
    assert float(scores["l0"]) == pytest.approx(float(active.sum("mode").mean()))
    assert int(scores["alive"]) == int(active.any(("time", "cell")).sum())


def test_score_and_transform_of_other_samples(contribution, movie_contribution):
    modes = fit_modes(contribution, **QUICK)
    again = modes.transform(contribution.transpose("sign", ...))
    # Not the same bits: of a fit, loadings are encoded before modes are put in order.
    np.testing.assert_allclose(again.values, modes.loadings.values, rtol=1e-5, atol=1e-6)
    other = movie_contribution(seed=0, n=300).isel(cell=0, drop=True)
    assert modes.transform(other).dims == ("time", "mode")
    scored = modes.score(other)
    assert scored["held_out"].all() and scored["held_out"].size == 300
    expected = r2_score(
        other.values.reshape(300, -1).astype(float),
        modes.reconstruct(modes.transform(other)).values.reshape(300, -1).astype(float),
        multioutput="raw_values",
    )
    np.testing.assert_allclose(scored["r2"].values.ravel(), expected, rtol=1e-5)


def test_held_out_samples_are_stretches_and_do_not_touch_the_fit(contribution):
    held_out = fit_modes(contribution, **QUICK).score()["held_out"]
    n_stretches = int((np.diff(held_out.values.astype(int)) == 1).sum() + held_out.values[0])
    assert 0.08 <= float(held_out.mean()) <= 0.12
    assert 1 < n_stretches <= 10
    assert "block" in held_out.coords
    changed = contribution.copy(deep=True)
    changed[held_out.values] = 3.0
    for autoencoder in ("pca", "nmf"):
        a = fit_modes(contribution, autoencoder=autoencoder, **QUICK)
        b = fit_modes(changed, autoencoder=autoencoder, **QUICK)
        order = np.argsort([row.sum() for row in a.dictionary.values])
        order_b = np.argsort([row.sum() for row in b.dictionary.values])
        np.testing.assert_array_equal(a.dictionary.values[order], b.dictionary.values[order_b])


@pytest.mark.parametrize("n", [3, 20, 101, 5000])
def test_stretches_hold_the_asked_fraction(n):
    mask = held_out_stretches(n, 0.2, seed=1)
    assert mask.sum() == pytest.approx(max(1, 0.2 * n), abs=5)
    assert not np.array_equal(held_out_stretches(5000, 0.2, 0), held_out_stretches(5000, 0.2, 1))
    aside = stretches_aside(mask, 0.2, seed=1)
    assert not (aside & mask).any()
    assert aside.sum() == pytest.approx(0.1 * n, abs=5)
    assert not (aside | mask).all()


def test_scored_samples_do_not_tell_the_fit_when_to_stop(contribution):
    one = fit_modes(contribution, **QUICK)
    held_out, aside = one.score()["held_out"].values, one.score()["aside"].values
    assert not (held_out & aside).any() and aside.any()
    changed = contribution.copy(deep=True)
    changed[held_out] = 3.0
    other = fit_modes(changed, **QUICK)
    atoms, others = (np.sort(m.dictionary.values.reshape(6, -1), axis=0) for m in (one, other))
    np.testing.assert_array_equal(atoms, others)  # in another order: energy is of all samples
    changed = contribution.copy(deep=True)
    changed[aside] = 3.0
    other = fit_modes(changed, autoencoder="pca", **QUICK)
    assert not other.score()["aside"].any()  # nothing to stop: all that is not scored is fitted


def test_modes_are_ordered_by_energy(contribution):
    modes = fit_modes(contribution, **QUICK)
    shares = modes.loadings["energy_share"].values
    assert (np.diff(shares) <= 0).all()
    assert shares.sum() == pytest.approx(1)
    active = (modes.loadings != 0).mean(("time", "cell"))
    np.testing.assert_allclose(active, modes.loadings["active_fraction"])


def test_several_layers_stand_side_by_side(contribution):
    second = contribution.isel(channel=slice(2)) * 100
    both = {"conv1": contribution, "conv2.0": second.transpose("channel", ...)}
    modes = fit_modes(both, **QUICK)
    assert modes.dictionary.dims == ("mode", "column")
    assert list(np.unique(modes.dictionary["layer"])) == ["conv1", "conv2.0"]
    assert modes.dictionary.sizes["column"] == 12 + 4
    rebuilt = modes.reconstruct()
    assert list(rebuilt) == ["conv1", "conv2.0"]
    assert rebuilt["conv2.0"].dims == both["conv2.0"].dims
    assert rebuilt["conv2.0"].sizes == both["conv2.0"].sizes
    numbered = fit_modes([contribution, second], **QUICK)
    assert set(numbered.dictionary["layer"].values) == {"0", "1"}


def test_images_and_seeds(planted):
    values, _ = planted(0, n=400)
    contribution = xr.DataArray(values.reshape(200, 2, 16), dims=("image", "category", "channel"))
    options = {"features": "channel", **QUICK}
    one, same, other = (fit_modes(contribution, seed=seed, **options) for seed in (3, 3, 4))
    assert one.loadings.dims == ("image", "category", "mode")
    xr.testing.assert_identical(one.loadings, same.loadings)
    assert not np.array_equal(one.loadings.values, other.loadings.values)


def test_fit_leaves_random_state_and_input_alone(contribution):
    before, kept = torch.get_rng_state(), contribution.copy(deep=True)
    numpy_before = np.random.get_state()[1].copy()  # noqa: NPY002
    fit_modes(contribution, **QUICK)
    fit_modes(contribution, autoencoder="nmf", **QUICK)
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])  # noqa: NPY002
    xr.testing.assert_identical(contribution, kept)


def test_negative_columns_and_non_negative_loadings(contribution):
    for autoencoder in ("topk", "nmf"):
        modes = fit_modes(contribution, autoencoder=autoencoder, **QUICK)
        assert (modes.loadings >= 0).all()
    # Positive columns are reconstructed as positive, on the whole, negative ones as negative.
    rebuilt = modes.reconstruct().mean(("time", "cell", "channel"))
    assert rebuilt.sel(sign="positive") > 0 > rebuilt.sel(sign="negative")


def test_scaling_is_invertible():
    rng = np.random.default_rng(0)
    matrix = (rng.normal(size=(50, 4)) ** 3).astype(np.float32)
    matrix[:, 1] = -2
    rows = Rows({"contribution": xr.DataArray(matrix, dims=("time", "channel"))}, ("channel",), 1e9)
    scaling = ColumnScaling.fit(Survey.of(rows, np.ones(50, dtype=bool)), "signed_sqrt")
    scaled = scaling.forward(matrix)
    assert (scaled[:, 1] == 0).all()
    np.testing.assert_allclose(scaling.inverse(scaled), matrix, rtol=1e-5)
    expected = np.sign(matrix[:, 0]) * np.sqrt(
        abs(matrix[:, 0]) / np.sqrt((matrix[:, 0] ** 2).mean())
    )
    np.testing.assert_allclose(scaled[:, 0], expected, rtol=1e-5)


def test_constant_column_takes_no_part(contribution):
    contribution[:, :, 1, 2] = 0
    with pytest.warns(UserWarning, match="constant in 1 of 12 columns .sign=negative, channel=2"):
        modes = fit_modes(contribution, **QUICK)
    assert np.isnan(modes.score()["r2"].sel(sign="negative", channel=2))
    assert np.isfinite(modes.score()["mean_r2"])
    assert (modes.reconstruct().sel(sign="negative", channel=2) == 0).all()


def test_dead_atoms_are_revived(planted):
    values, _ = planted(5, n=4000, atoms=20, columns=20)
    modes = fit_modes(
        xr.DataArray(values, dims=("time", "channel")),
        features="channel",
        n_modes=20,
        progress=False,
    )
    assert int((modes.loadings["active_fraction"] > 0).sum()) >= 19


def test_bad_input_is_named(contribution):
    def fails(message, data=contribution, **options):
        with pytest.raises(ValueError, match=message):
            fit_modes(data, **{**QUICK, **options})

    fails("fewer than n_modes=500", contribution.isel(time=slice(20)), n_modes=500)
    fails(
        r"contribution has 1 NaN or infinite values, the first at index",
        contribution.where(
            (contribution.time > 0)
            | (contribution.channel > 0)
            | (contribution.cell == "b")
            | (contribution.sign == "negative")
        ),
    )
    fails("contribution is 0 in all", contribution * 0)
    fails("does not change in any column", contribution * 0 + 1)
    fails("autoencoder='topkk' is not known; did you mean 'topk'", autoencoder="topkk")
    fails("k=7 is more than n_modes=6", k=7)
    fails("features=.* names 'unit', which contribution .* does not have", features=("unit",))
    fails("no dim is left for samples", features=contribution.dims)
    fails("one or several different dims", features=("channel", "channel"))
    fails("n_modes=0; expected a number of at least 1", n_modes=0)
    fails("validation_fraction=0.7", validation_fraction=0.7)
    fails("'pca' finds at most one mode for each of the 12", autoencoder="pca", n_modes=13)
    fails(
        "the first layer have different samples", [contribution, contribution.isel(time=slice(9))]
    )
    fails("contribution is empty", {})
    with pytest.raises(TypeError, match="contribution is a ndarray; expected an xarray"):
        fit_modes(contribution.values)
    modes = fit_modes(contribution, **QUICK)
    with pytest.raises(ValueError, match="the modes were fitted with channel="):
        modes.transform(contribution.isel(channel=slice(3)))
    with pytest.raises(ValueError, match="'sign' is missing"):
        modes.transform(contribution.sum("sign"))
    with pytest.raises(ValueError, match="the modes were fitted to"):
        modes.transform({"conv1": contribution})
    with pytest.raises(ValueError, match="expected a dim 'mode' with all 6 modes"):
        modes.reconstruct(modes.loadings.isel(mode=slice(2)))
