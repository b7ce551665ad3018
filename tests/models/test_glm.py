"""The GLM: planted filters found, twins of its prediction and its simulation, what is refused."""

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import poisson
from sklearn.linear_model import PoissonRegressor

import retina_codec as rc
from retina_codec._common.time import block_coordinate, time_coordinate
from retina_codec.models.glm import GLM
from retina_codec.models.spike_history import past_features, poisson_counts, raised_cosines

HISTORY = 5
STIMULUS = np.array([[0.5, 0.6, -0.3, -0.2, 0], [0, -0.5, 0.4, 0.3, -0.2]])  # lag 0 first
LAGS = np.arange(1, 11)
OWN = np.stack([-4 * np.exp(-(LAGS - 1) / 1.5), -2 * np.exp(-(LAGS - 1) / 2.0)])
CROSS = 0.8 * np.exp(-(LAGS - 1) / 2)  # from the first cell to the second
OFFSET = np.array([-0.8, -1.0])


def planted(n=20000, seed=0, coupled=False, blocks=None):
    """Two full-field cells with refractory filters, simulated by a plain loop."""
    rng = np.random.default_rng(seed)
    flicker = rng.normal(size=n)
    drive = np.stack([np.convolve(flicker, k)[:n] for k in STIMULUS], 1) + OFFSET
    counts = np.zeros((n, 2), dtype=np.int32)
    block = np.zeros(n, dtype=int) if blocks is None else np.asarray(blocks)
    start = 0
    for t in range(n):
        if t and block[t] != block[t - 1]:
            start = t
        past = counts[max(start, t - 10) : t][::-1]
        added = [(past[:, i] * OWN[i, : len(past)]).sum() for i in range(2)]
        if coupled:
            added[1] += (past[:, 0] * CROSS[: len(past)]).sum()
        counts[t] = rng.poisson(np.exp(drive[t] + added))
    coords = {"time": time_coordinate(np.arange(n) * 0.01, 0.01), "cell": ["a", "b"]}
    if blocks is not None:
        coords["block"] = block_coordinate(block)
    return xr.Dataset(
        {
            "stimulus": (("time", "y", "x"), flicker[:, None, None].astype(np.float32)),
            "spike_count": (("time", "cell"), counts),
        },
        coords=coords,
    )


@pytest.fixture(scope="module")
def node():
    return planted()


@pytest.fixture(scope="module")
def fitted(node):
    return fit(node)


def fit(node, **options):
    settings = {"history": HISTORY, "spike_history": 10, "n_basis": 5, "progress": False}
    return GLM.from_maximum_likelihood(node, **(settings | options))


def small(coupling=False, seed=0, **options):
    """A model with spike filters that matter, on a small movie with colours."""
    settings = {"history": 3, "bin_width": 0.01, "cells": ["a", "b", "c"]}
    settings |= {"spike_history": 4, "n_basis": 3, "coupling": coupling}
    model = GLM((2, 2, 3), **(settings | options))
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.copy_(torch.from_numpy(rng.normal(size=parameter.shape)) * 0.15)
        model.network.nonlinearity.offset -= 1
        model.network.spikes.post_spike.copy_(-3 * model.network.spikes.post_spike.abs())
        if coupling:
            model.network.spikes.coupling.copy_(-model.network.spikes.coupling.abs())
            model.network.spikes.coupling[range(3), range(3)] = 0
    return model


def small_movie(n=60, blocks=None, seed=0):
    values = np.random.default_rng(seed).normal(size=(n, 2, 2, 3)).astype(np.float32)
    coords = {"time": time_coordinate(np.arange(n) * 0.01, 0.01)}
    if blocks is not None:
        coords["block"] = block_coordinate(blocks)
    return xr.DataArray(values, dims=("time", "color", "y", "x"), coords=coords)


def counts_of(movie, seed=1, repeats=None):
    shape = (len(movie), 3) if repeats is None else (repeats, len(movie), 3)
    dims = ("time", "cell") if repeats is None else ("repeat", "time", "cell")
    values = np.random.default_rng(seed).poisson(0.4, size=shape)
    return xr.DataArray(values, dims=dims, coords={"time": movie["time"], "cell": ["a", "b", "c"]})


def literal_rate(model, movie, counts):
    """Conditional rate (time, cell) by plain loops over bins, lags and cells."""
    path = model.network
    weight = path.filter.weight.detach().double().numpy()
    own = model.post_spike_filter.values
    cross = None if path.spikes.coupling is None else model.coupling_filter.values
    offset = path.nonlinearity.offset.detach().double().numpy()
    block = movie["block"].values if "block" in movie.coords else np.zeros(len(movie), int)
    values = (movie.values.astype(float) - model.mean) / model.sd
    rates = []
    for t in range(len(movie)):
        first = int(np.flatnonzero(block == block[t])[0])
        if t - first < model.history - 1:
            continue
        window = values[t - model.history + 1 : t + 1]
        row = []
        for i in range(3):
            u = offset[i] + (weight[i] * window).sum()
            for lag in range(1, own.shape[1] + 1):
                if t - lag < first:
                    continue
                for j in range(3):
                    if i == j:
                        u += own[i, lag - 1] * counts[t - lag, j]
                    elif cross is not None:
                        u += cross[i, j, lag - 1] * counts[t - lag, j]
            row.append(
                np.exp(u) if model._config["nonlinearity"] == "exponential" else np.log1p(np.exp(u))
            )
        rates.append(row)
    return np.array(rates) / model.bin_width


@pytest.mark.parametrize("coupling", [False, True])
@pytest.mark.parametrize("nonlinearity", ["exponential", "softplus"])
def test_rate_given_spikes_is_the_literal_one(coupling, nonlinearity):
    model = small(coupling, nonlinearity=nonlinearity, mean=0.3, sd=1.5)
    movie = small_movie(blocks=np.repeat([0, 1], [25, 35]))
    counts = counts_of(movie)
    given = model.predict(movie, spike_count=counts)
    assert given.dims == ("time", "cell")
    np.testing.assert_allclose(given, literal_rate(model, movie, counts.values), rtol=1e-5)
    # Cells by name, dims by name, one result a repeat.
    np.testing.assert_array_equal(
        model.predict(movie, spike_count=counts.isel(cell=[2, 0, 1]).T), given
    )
    several = counts_of(movie, repeats=2)
    both = model.predict(movie, spike_count=several)
    assert both.dims == ("repeat", "time", "cell")
    np.testing.assert_array_equal(both[1], model.predict(movie, spike_count=several[1]))


@pytest.mark.parametrize("coupling", [False, True])
def test_the_prediction_is_the_mean_rate_given_the_models_own_spikes(coupling):
    model, movie = small(coupling), small_movie(blocks=np.repeat([0, 1], [25, 35]))
    model.network.ceiling.fill_(1e6)
    spikes = model.simulate(movie, n_repeats=30, seed=3)
    assert spikes.dims == ("repeat", "time", "cell")
    assert spikes.values.max() > 0
    whole = spikes.reindex(time=movie["time"], fill_value=0)
    given = model.predict(movie, spike_count=whole).mean("repeat")
    np.testing.assert_allclose(given, model.predict(movie, n_repeats=30, seed=3), rtol=1e-5)


def test_simulated_counts_are_poisson_given_the_rate():
    """Each count is the inverse of the distribution function: uniform when sent back."""
    model, movie = small(), small_movie(400)
    spikes = model.simulate(movie, n_repeats=20).reindex(time=movie["time"], fill_value=0)
    rate = model.predict(movie, spike_count=spikes).values * 0.01
    counts = spikes.values[:, 2:]
    z = (counts - rate) / np.sqrt(rate)
    assert abs(z.mean()) < 4 / np.sqrt(z.size)
    assert z.var() == pytest.approx(1, abs=0.1)
    assert abs((z[:, 1:] * z[:, :-1]).mean()) < 4 / np.sqrt(z.size)


def test_inversion_is_that_of_scipy():
    rng = np.random.default_rng(0)
    expected, uniform = rng.gamma(1, 3, size=(200, 7)), rng.random((200, 7))
    np.testing.assert_array_equal(poisson_counts(expected, uniform), poisson.ppf(uniform, expected))
    assert not poisson_counts(np.zeros(3), np.array([0, 0.5, 1 - 1e-16])).any()


@pytest.mark.parametrize(("n_lags", "n_basis"), [(20, 6), (10, 5), (1, 1), (4, 4)])
def test_raised_cosines_tile_log_time(n_lags, n_basis):
    basis = raised_cosines(n_lags, n_basis)
    assert basis.shape == (n_basis, n_lags)
    assert basis.min() >= 0
    assert basis[0, 0] == 1
    assert basis[0].argmax() == 0
    # Neighbouring bumps sum to one between the second centre and the last.
    spacing = np.log(n_lags + 1) / (n_basis + 1)
    inside = (np.log(np.arange(1, n_lags + 1)) >= spacing) & (
        np.log(np.arange(1, n_lags + 1)) <= spacing * (n_basis - 2)
    )
    np.testing.assert_allclose(basis[:, inside].sum(0), 2)
    # After the last lag nothing is left.
    assert np.all(basis[:, -1] < 1 if n_lags > 1 else True)


def test_features_are_of_earlier_bins_of_the_same_run():
    counts = torch.zeros(12, 1)
    counts[2], counts[7] = 1, 2
    basis = torch.from_numpy(raised_cosines(4, 3)).float()
    features = past_features(counts, basis, [slice(0, 5), slice(5, 12)])[:, 0]
    expected = np.zeros((12, 3))
    expected[3:5] = basis.numpy().T[:2]
    expected[8:12] = 2 * basis.numpy().T
    np.testing.assert_allclose(features, expected)


def test_planted_filters_are_found(fitted):
    weight = fitted.layers["filter"].weight.detach().numpy().reshape(2, -1)[:, ::-1] / fitted.sd
    np.testing.assert_allclose(weight, STIMULUS, atol=0.06)
    history = fitted.post_spike_filter
    assert history.dims == ("cell", "lag")
    np.testing.assert_allclose(history["lag"], LAGS * 0.01)
    # A refractory cell: its own spike silences it, most just after.
    assert (history[:, 0] < -1).all()
    assert (history.argmin("lag") == 0).all()
    np.testing.assert_allclose(history[:, 1:].values, OWN[:, 1:], atol=0.35)


def test_coupling_is_found_where_it_is_planted():
    node = planted(coupled=True)
    model = fit(node, coupling=True)
    coupling = model.coupling_filter
    assert coupling.dims == ("cell", "source", "lag")
    np.testing.assert_allclose(coupling.sel(cell="b", source="a"), CROSS, atol=0.2)
    assert float(abs(coupling.sel(cell="a", source="b")).max()) < 0.35
    np.testing.assert_array_equal(coupling.sel(cell="a", source="a"), model.post_spike_filter[0])
    test = planted(6000, seed=1, coupled=True)
    gain = model.log_likelihood(test) - fit(node).log_likelihood(test)
    assert float(gain.bits_per_spike.sel(cell="b")) > 0.02


def test_history_raises_the_likelihood_of_unseen_spikes(node, fitted):
    test = planted(6000, seed=1)
    score = fitted.log_likelihood(test)
    ln = rc.models.LN.from_maximum_likelihood(node, history=HISTORY, progress=False)
    expected = ln.predict(test["stimulus"]).values * 0.01
    counts = test["spike_count"].values[HISTORY - 1 :]
    plain = poisson.logpmf(counts, expected).mean(0)
    assert (score.log_likelihood.values > plain + 0.02).all()
    given = fitted.predict(test["stimulus"], spike_count=test["spike_count"]).values * 0.01
    np.testing.assert_allclose(score.log_likelihood, poisson.logpmf(counts, given).mean(0))
    flat = poisson.logpmf(counts, counts.mean(0)).mean(0)
    bits = (score.log_likelihood - flat) / counts.mean(0) / np.log(2)
    np.testing.assert_allclose(score.bits_per_spike, bits)


def test_cells_may_be_numbered_and_in_another_order(node):
    numbered = node.assign_coords(cell=[7, 12])
    model = fit(numbered, max_steps=3)
    assert model.outputs.tolist() == ["7", "12"]
    expected = fit(node, max_steps=3).log_likelihood(node)
    for given in (numbered, numbered.isel(cell=[1, 0])):
        score = model.log_likelihood(given)
        assert score["cell"].values.tolist() == ["7", "12"]
        np.testing.assert_allclose(score.log_likelihood, expected.log_likelihood, rtol=1e-12)
        np.testing.assert_allclose(score.bits_per_spike, expected.bits_per_spike, rtol=1e-12)
    repeated = xr.concat([node["spike_count"]] * 2, "repeat").assign_coords(cell=[7, 12])
    score = model.log_likelihood(numbered.assign(spike_count=repeated))
    np.testing.assert_allclose(score.log_likelihood, expected.log_likelihood, rtol=1e-12)


def test_fit_is_the_maximum_that_scikit_learn_finds():
    node = planted(3000, blocks=np.repeat([0, 1], [1300, 1700]))
    model = fit(node, l2=0.0)
    movie = (node["stimulus"].values.ravel().astype(float) - model.mean) / model.sd
    basis = raised_cosines(10, 5)
    rows, counts = [], []
    for first, stop in ((0, 1300), (1300, 3000)):
        for t in range(first + HISTORY - 1, stop):
            past = node["spike_count"].values[max(first, t - 10) : t][::-1]
            features = basis[:, : len(past)] @ past  # (basis, cell)
            rows.append((movie[t - HISTORY + 1 : t + 1], features))
            counts.append(node["spike_count"].values[t])
    for i in range(2):
        design = np.array([np.r_[window, features[:, i]] for window, features in rows])
        judge = PoissonRegressor(alpha=0, tol=1e-10, max_iter=20000)
        scale = design.std(0)
        judge.fit(design / scale, np.array(counts)[:, i])
        found = np.r_[
            model.layers["filter"].weight[i].detach().numpy().ravel(),
            model.network.spikes.post_spike[i].detach().numpy(),
        ]
        np.testing.assert_allclose(found * scale, judge.coef_, atol=2e-3)
        offset = float(model.network.nonlinearity.offset[i].detach())
        assert offset == pytest.approx(judge.intercept_, abs=5e-3)


def test_no_answer_depends_on_batches_or_on_what_comes_later():
    model, movie = small(True), small_movie()
    counts = counts_of(movie)
    for options in ({}, {"spike_count": counts}):
        whole = model.predict(movie, **options)
        np.testing.assert_allclose(model.predict(movie, batch_size=7, **options), whole, rtol=1e-5)
    later, more = movie.copy(), counts.copy()
    later[40:] += 3
    more[40:] += 2
    same = movie["time"].values[2:] < movie["time"].values[40]
    np.testing.assert_allclose(model.predict(later)[same], model.predict(movie)[same], rtol=1e-5)
    before, after = (model.predict(movie, spike_count=c).values for c in (counts, more))
    np.testing.assert_array_equal(before[: 40 - 2 + 1], after[: 40 - 2 + 1])
    assert (abs(before - after)[41 - 2] > 1e-4).any()


def test_same_seed_same_spikes():
    model, movie = small(), small_movie()
    a, b, c = (model.simulate(movie, n_repeats=3, seed=seed) for seed in (0, 0, 1))
    xr.testing.assert_identical(a, b)
    assert (a.values != c.values).any()


def test_an_exponential_that_excites_itself_stays_at_its_ceiling():
    model, movie = small(), small_movie()
    with torch.no_grad():
        model.network.spikes.post_spike.fill_(5.0)
    model.network.ceiling.fill_(4.0)
    rate = model.predict(movie, n_repeats=5)
    assert float(rate.max()) == pytest.approx(400)


def test_contributions_divide_the_rate_given_no_spikes():
    model, movie = small(), small_movie(30)
    tree = rc.contributions(model, movie, progress=False)
    silent = counts_of(movie) * 0
    np.testing.assert_allclose(tree["target"], model.predict(movie, spike_count=silent), rtol=1e-4)
    assert float(abs(tree["target"] - tree["target_baseline"]).max()) > 1
    assert tree["layers/filter"]["channel"].values.tolist() == ["a", "b", "c"]


def test_evaluation_and_round_trip(tmp_path, fitted, node):
    again = rc.load_model(fitted.save(tmp_path / "model"))
    assert again.fingerprint == fitted.fingerprint
    part = node.isel(time=slice(0, 1000))
    xr.testing.assert_identical(
        again.predict(part["stimulus"], n_repeats=4), fitted.predict(part["stimulus"], n_repeats=4)
    )
    coupled = small(True)
    assert rc.load_model(coupled.save(tmp_path / "c")).fingerprint == coupled.fingerprint
    scores = rc.evaluate(fitted, part, n_draws=10)
    assert (scores["pearson_r"] > 0.2).all()


class TestBadInput:
    def test_training_is_refused(self, node):
        model = GLM.for_recording(node, history=HISTORY)
        with pytest.raises(ValueError, match=r"no spike history: .*from_maximum_likelihood"):
            rc.train(model, node, max_epochs=1, progress=False)

    def test_no_coupling(self):
        with pytest.raises(ValueError, match="coupling=True"):
            small().coupling_filter  # noqa: B018

    def test_counts_of_other_times(self):
        movie = small_movie()
        with pytest.raises(ValueError, match="spike_count has 59 bins and data 60 frames"):
            small().predict(movie, spike_count=counts_of(movie)[:-1])

    def test_counts_of_other_cells(self):
        movie = small_movie()
        counts = counts_of(movie).assign_coords(cell=["a", "b", "cc"])
        with pytest.raises(ValueError, match="spike_count has no cell 'c'; did you mean 'cc'"):
            small().predict(movie, spike_count=counts)

    def test_likelihood_of_other_cells(self, node, fitted):
        with pytest.raises(ValueError, match="spike_count has no cell 'b'"):
            fitted.log_likelihood(node.assign_coords(cell=["a", "c"]))

    def test_counts_without_names(self):
        movie = small_movie()
        with pytest.raises(TypeError, match="spike_count is a ndarray"):
            small().predict(movie, spike_count=counts_of(movie).values)

    def test_more_bumps_than_bins(self):
        with pytest.raises(ValueError, match="n_basis=5 exceeds spike_history=4"):
            small(n_basis=5)

    @pytest.mark.parametrize("name", ["spike_history", "n_basis", "history"])
    def test_zero(self, name):
        with pytest.raises(ValueError, match=f"{name}=0"):
            small(**{name: 0})

    def test_no_repeats(self):
        with pytest.raises(ValueError, match="n_repeats=0"):
            small().predict(small_movie(), n_repeats=0)

    def test_repeats_in_the_fit(self, node):
        several = node.copy()
        several["spike_count"] = node["spike_count"].expand_dims(repeat=2)
        with pytest.raises(ValueError, match=r"recording: spike_count has dims"):
            fit(several)

    def test_silent_cell(self, node):
        silent = node.isel(time=slice(0, 800)).copy(deep=True)
        silent["spike_count"][:, 1] = 0
        model = fit(silent)
        assert np.isfinite(model.predict(silent["stimulus"]).values).all()
        assert np.isnan(model.log_likelihood(silent).bits_per_spike[1])
