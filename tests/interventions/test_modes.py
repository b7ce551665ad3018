"""Modes silenced in the network: shares by hand, a literal twin for every sample and cell."""

import numpy as np
import pytest
import torch
import xarray as xr

import retina_codec as rc

STEPS = rc.methods.IntegratedGradients(steps=3)


def decomposed(model, data, layers, **options):
    return rc.contributions(model, data, layers=layers, method=STEPS, progress=False, **options)


def fitted(contribution, **options):
    options = {"n_modes": 4, "k": 2, "max_epochs": 3, "seed": 0, "progress": False, **options}
    return rc.fit_modes(contribution, **options)


@pytest.fixture
def trees(model, movie):
    sums = decomposed(model, movie, ["relu1", "relu2"], split_sign=True, sum_over=("y", "x"))
    return sums, decomposed(model, movie, ["relu1", "relu2"])


def test_shares_of_modes_are_by_hand(trees):
    contribution = trees[0]["layers/relu1"]["contribution"]
    for scaling in ("signed_sqrt", "rms"):
        modes = fitted(contribution, scaling=scaling, decoder_bias=True)
        loadings = modes.loadings.isel(time=slice(3, 20))
        ours = modes.share([0, 2], loadings)
        z = xr.dot(loadings, modes.dictionary, dim="mode") + modes.offset
        part = xr.dot(loadings.sel(mode=[0, 2]), modes.dictionary.sel(mode=[0, 2]), dim="mode")
        expected = (part / z).clip(0, 1).transpose(*ours.dims)
        np.testing.assert_allclose(ours.values, expected.values, rtol=1e-4, atol=1e-5)
        assert 0.01 < float(ours.mean()) < 0.99
        assert ours["time"].identical(loadings["time"])
    with pytest.raises(ValueError, match="mode=9 is not known"):
        modes.share(9)


def literal_rates(model, movie, layer, share, literal):
    """Each cell's rate in each sample, from a pass of its own with its own silenced units."""
    batches = model.samples(movie).batches(8)
    xs = torch.cat([b.select(torch.arange(b.index.stop - b.index.start)) for b in batches])
    twin = literal(model.network.eval(), model.layer(layer), torch.zeros_like(xs[:1]))
    share = share.transpose("time", "cell", "channel", "y", "x").values
    rates = np.empty(share.shape[:2])
    for cell in range(share.shape[1]):
        f = torch.tensor(share[:, cell], dtype=torch.float32)
        outputs = twin.outputs(xs, lambda a, a0, i, f=f: a - f[i][None] * (a - a0))
        rates[:, cell] = outputs[:, cell]
    return rates


@pytest.mark.parametrize("layer", ["relu1", "relu2"])
def test_each_cell_has_its_own_silenced_units(model, movie, trees, literal, layer):
    sums, units = trees
    modes = fitted(sums[f"layers/{layer}"]["contribution"])
    c = units[f"layers/{layer}"]["contribution"]
    of_sign = modes.share([0, 1])
    share = xr.where(
        c > 0, of_sign.sel(sign="positive", drop=True),
        xr.where(c < 0, of_sign.sel(sign="negative", drop=True), 0.0),
    )  # fmt: skip
    silenced = rc.ablate(model, layer, modes=modes, mode=[0, 1], method=STEPS)
    ours = silenced.predict(movie)
    expected = literal_rates(model, movie, layer, share, literal)
    np.testing.assert_allclose(ours.values, expected, rtol=1e-3, atol=1e-3)
    before = model.predict(movie)
    assert ours.coords.identical(before.coords)
    assert float(abs(ours - before).max()) > 0.5
    kept = rc.preserve(model, layer, modes=modes, mode=[0, 1], method=STEPS).predict(movie)
    expected = literal_rates(model, movie, layer, 1 - share, literal)
    np.testing.assert_allclose(kept.values, expected, rtol=1e-3, atol=1e-3)


def test_modes_of_a_population_of_one_target_and_of_other_columns(model, movie, trees, literal):
    sums, units = trees
    c = units["layers/relu1"]["contribution"]
    whole = sums["layers/relu1"]["contribution"]
    # Columns by cell: one loading a moment, and shares of each cell.
    population = fitted(whole, features=("cell", "sign", "channel"))
    of_sign = population.share(1)
    share = xr.where(c > 0, of_sign.sel(sign="positive", drop=True),
                     xr.where(c < 0, of_sign.sel(sign="negative", drop=True), 0.0))  # fmt: skip
    ours = rc.ablate(model, "relu1", modes=population, mode=1, method=STEPS).predict(movie)
    expected = literal_rates(model, movie, "relu1", share, literal)
    np.testing.assert_allclose(ours.values, expected, rtol=1e-3, atol=1e-3)
    # No signs: a channel's units share its number.
    plain = fitted(c.sum(("y", "x")), features="channel")
    share = plain.share(0).broadcast_like(c)
    ours = rc.ablate(model, "relu1", modes=plain, mode=0, method=STEPS).predict(movie)
    expected = literal_rates(model, movie, "relu1", share, literal)
    np.testing.assert_allclose(ours.values, expected, rtol=1e-3, atol=1e-3)
    # One target for all: the same units for all cells, from one pass.
    target = rc.targets.Sum()
    one = decomposed(model, movie, "relu1", target=target)["layers/relu1"]["contribution"]
    modes = fitted(one.sum(("y", "x")), features="channel")
    share = modes.share(0).broadcast_like(one).expand_dims(cell=model.outputs)
    ours = rc.ablate(
        model, "relu1", modes=modes, mode=0, method=STEPS, target=target
    ).predict(movie)  # fmt: skip
    expected = literal_rates(model, movie, "relu1", share, literal)
    np.testing.assert_allclose(ours.values, expected, rtol=1e-3, atol=1e-3)


def test_all_modes_silence_the_layer_and_strength_one_changes_no_bit(model, movie, trees):
    modes = fitted(trees[0]["layers/relu1"]["contribution"])
    everything = {"modes": modes, "mode": [0, 1, 2, 3], "method": STEPS}
    all_modes = rc.ablate(model, "relu1", **everything).predict(movie)
    layer = rc.ablate(model, "relu1").predict(movie)
    np.testing.assert_allclose(all_modes.values, layer.values, rtol=1e-3, atol=1e-3)
    before = model.predict(movie)
    assert rc.ablate(model, "relu1", strength=1.0, **everything).predict(movie).equals(before)
    half = rc.ablate(model, "relu1", strength=0.5, **everything).predict(movie)
    expected = rc.ablate(model, "relu1", strength=0.5).predict(movie)
    np.testing.assert_allclose(half.values, expected.values, rtol=1e-3, atol=1e-3)


def test_modes_across_layers(model, movie, trees):
    both = {name: trees[0][f"layers/{name}"]["contribution"] for name in ("relu1", "relu2")}
    modes = fitted(both)
    everything = {"modes": modes, "mode": [0, 1, 2, 3], "method": STEPS}
    ours = rc.ablate(model, ["relu1", "relu2"], **everything).predict(movie)
    layers = rc.ablate(model, ["relu1", "relu2"]).predict(movie)
    np.testing.assert_allclose(ours.values, layers.values, rtol=1e-3, atol=1e-3)
    one = rc.ablate(model, ["relu1", "relu2"], modes=modes, mode=0, method=STEPS).predict(movie)
    assert float(abs(one - ours).max()) > 0.1
    with pytest.raises(ValueError, match="modes were fitted to contributions of relu1, relu2"):
        rc.ablate(model, ["relu2", "relu1"], **everything)


@pytest.mark.filterwarnings("ignore:contribution is constant")
def test_modes_of_a_classifier(classifier, images, literal):
    layer = "layer3.1"
    units = decomposed(classifier, images, layer)["layers/layer3.1"]["contribution"]
    sums = decomposed(classifier, images, layer, split_sign=True, sum_over=("y", "x"))
    modes = fitted(sums["layers/layer3.1"]["contribution"], n_modes=2, k=1)
    of_sign = modes.share(0)
    share = xr.where(units > 0, of_sign.sel(sign="positive", drop=True),
                     xr.where(units < 0, of_sign.sel(sign="negative", drop=True), 0.0))  # fmt: skip
    ours = rc.ablate(classifier, layer, modes=modes, mode=0, method=STEPS).predict(images)
    inputs = next(iter(classifier.samples(images).batches(9))).inputs
    network = classifier.network.eval()
    twin = literal(network, classifier.layer(layer), torch.zeros_like(inputs[:1]))
    f = torch.tensor(share.transpose(*units.dims).values, dtype=torch.float32)
    expected = twin.outputs(inputs, lambda a, a0, i: a - f[i][None] * (a - a0))
    np.testing.assert_allclose(ours.values, expected, rtol=2e-3, atol=1e-3)
    assert np.abs(ours.values - classifier.predict(images).values).max() > 0.01


def test_wrong_modes_are_refused(model, movie, trees, hooks):
    sums, _ = trees
    modes = fitted(sums["layers/relu1"]["contribution"])
    with pytest.raises(ValueError, match="fitted to contributions of relu1, but layer is relu2"):
        rc.ablate(model, "relu2", modes=modes, mode=0)
    with pytest.raises(ValueError, match="mode=7 is not known"):
        rc.ablate(model, "relu1", modes=modes, mode=7)
    with pytest.raises(ValueError, match="modes without mode"):
        rc.ablate(model, "relu1", modes=modes)
    with pytest.raises(TypeError, match="modes is a DataArray"):
        rc.ablate(model, "relu1", modes=modes.dictionary, mode=0)
    # Without attributes that tell, the columns do.
    anonymous = fitted(sums["layers/relu1"]["contribution"].drop_attrs(deep=False))
    with pytest.raises(ValueError, match="modes were fitted with"):
        rc.ablate(model, "relu2", modes=anonymous, mode=0, method=STEPS).predict(movie)
    active = decomposed(model, movie, "relu1", extras="activation", sum_over=("y", "x"))
    by_activity = fitted(active["layers/relu1"]["activation"], features="channel")
    with pytest.raises(ValueError, match="modes were fitted to the activation of relu1"):
        rc.ablate(model, "relu1", modes=by_activity, mode=0)
    silenced = rc.ablate(model, "relu1", modes=modes, mode=0, method=STEPS)
    with pytest.raises(ValueError, match="modes are silenced in each sample"):
        rc.contributions(silenced, movie, progress=False)
    bad = movie.copy()
    bad[20] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        silenced.predict(bad)
    # Nothing is left behind: it predicts as before, and the original has no hooks.
    assert silenced._silencing._shares is None
    assert hooks(model.network) == []
    assert silenced.predict(movie[:20]).equals(
        rc.ablate(model, "relu1", modes=modes, mode=0, method=STEPS).predict(movie[:20])
    )
    assert silenced.fingerprint != rc.ablate(model, "relu1", modes=modes, mode=1).fingerprint
