"""The LNP model: its maximum likelihood against scikit-learn, planted filters, bad input."""

import numpy as np
import pytest
import torch
import xarray as xr
from sklearn.linear_model import PoissonRegressor

import retina_codec as rc
from retina_codec._common.time import block_coordinate, time_coordinate
from retina_codec.models.nonlinearities import Exponential
from retina_codec.models.poisson_fit import CURVES

HISTORY = 4


def recording(n=3000, seed=0, shape=(2, 2), smooth=False, blocks=None, curve=np.exp, offset=-1.5):
    """Two cells with planted filters (cell, lag in time order, y, x); the second fires less."""
    rng = np.random.default_rng(seed)
    movie = 3 + 2 * rng.normal(size=(n, *shape))
    if smooth:
        movie[1:] += 0.9 * (movie[:-1] - 3)
    kernels = np.random.default_rng(9).normal(size=(2, HISTORY, *shape))
    kernels *= 0.6 / np.sqrt(kernels[0].size)
    windows = np.lib.stride_tricks.sliding_window_view(movie - 3, HISTORY, axis=0)
    drive = np.einsum("tyxl,clyx->tc", windows, kernels) + np.array([offset, offset - 1])
    drive = np.concatenate([np.full((HISTORY - 1, 2), offset), drive])
    coords = {"time": time_coordinate(np.arange(n) * 0.01, 0.01), "cell": ["a", "b"]}
    if blocks is not None:
        coords["block"] = block_coordinate(blocks)
    node = xr.Dataset(
        {
            "stimulus": (("time", "y", "x"), movie.astype(np.float32)),
            "spike_count": (("time", "cell"), rng.poisson(curve(drive))),
        },
        coords=coords,
    )
    return node, kernels


def design_matrix(model, node):
    """Windows of the normalised movie, one a row, and counts: block by block, plain loops."""
    rows, counts = [], []
    values = (node["stimulus"].values.astype(np.float64) - model.mean) / model.sd
    block = node["block"].values if "block" in node.coords else np.zeros(len(values))
    for t in range(HISTORY - 1, len(values)):
        if block[t - HISTORY + 1] == block[t]:
            rows.append(values[t - HISTORY + 1 : t + 1].ravel())
            counts.append(node["spike_count"].values[t])
    return np.array(rows), np.array(counts)


def fitted_weights(model):
    weights = model.layers["filter"].weight.detach().double().flatten(1).numpy()
    return weights, model.layers["nonlinearity"].offset.detach().double().numpy()


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("l2", [0.0, 0.05])
def test_maximum_likelihood_is_that_of_scikit_learn(smooth, l2):
    node, _ = recording(smooth=smooth, blocks=np.repeat([0, 1], [1400, 1600]))
    model = rc.models.LN.from_maximum_likelihood(node, history=HISTORY, l2=l2, progress=False)
    design, counts = design_matrix(model, node)
    weights, offsets = fitted_weights(model)
    for i in range(2):
        judge = PoissonRegressor(alpha=l2, tol=1e-9, max_iter=5000).fit(design, counts[:, i])
        np.testing.assert_allclose(weights[i], judge.coef_, atol=2e-4)
        assert offsets[i] == pytest.approx(judge.intercept_, abs=2e-4)
        rate = model.predict(node["stimulus"]).values[:, i]
        np.testing.assert_allclose(rate * 0.01, judge.predict(design), rtol=2e-3)


def test_softplus_is_fitted_to_its_maximum():
    """No direction raises the likelihood: the gradient of a plain sum over windows is zero."""
    node, _ = recording(curve=lambda drive: np.logaddexp(0, drive))
    model = rc.models.LN.from_maximum_likelihood(
        node, history=HISTORY, nonlinearity="softplus", l2=0.0, progress=False
    )
    design, counts = design_matrix(model, node)
    weights, offsets = (torch.tensor(value, requires_grad=True) for value in fitted_weights(model))
    mean = torch.nn.functional.softplus(torch.from_numpy(design) @ weights.T + offsets)
    (mean - torch.from_numpy(counts) * mean.log()).mean(0).sum().backward()
    assert float(weights.grad.abs().max()) < 2e-5
    assert float(offsets.grad.abs().max()) < 2e-5
    predicted = model.predict(node["stimulus"]).values * 0.01
    np.testing.assert_allclose(predicted, mean.detach().numpy(), rtol=1e-4)


@pytest.mark.parametrize("name", list(CURVES))
def test_derivatives_of_the_curves(name):
    drive = torch.linspace(-30, 6, 50, dtype=torch.double, requires_grad=True)
    counts = torch.arange(50, dtype=torch.double) % 4
    loss, slope, bend = CURVES[name].loss(drive, counts)
    (auto,) = torch.autograd.grad(loss.sum(), drive, create_graph=True)
    (second,) = torch.autograd.grad(auto.sum(), drive)
    torch.testing.assert_close(auto, slope)
    torch.testing.assert_close(second, bend, atol=1e-9, rtol=1e-6)
    expected = CURVES[name].expected(drive.detach().numpy())
    np.testing.assert_allclose(CURVES[name].drive(expected), drive.detach().numpy(), atol=2e-3)
    judge = expected - counts.numpy() * np.log(expected)
    np.testing.assert_allclose(loss.detach().numpy(), judge, rtol=1e-12)


def test_planted_filters_are_found_on_a_correlated_movie():
    node, kernels = recording(20000, smooth=True)
    model = rc.models.LN.from_maximum_likelihood(node, history=HISTORY, progress=False)
    weights, _ = fitted_weights(model)
    np.testing.assert_allclose(weights / model.sd, kernels.reshape(2, -1), atol=0.03)


def test_training_by_gradient_reaches_the_same_filters():
    node, kernels = recording(6000, offset=-0.5)
    model = rc.models.LN.for_recording(node, history=HISTORY, nonlinearity="exponential")
    rate = model.layers["nonlinearity"](torch.zeros(1, 2)).detach().numpy()[0] * 0.01
    np.testing.assert_allclose(rate, node["spike_count"].mean("time"), rtol=1e-4)
    rc.train(model, node, max_epochs=8, n_segments=2, l1_rate=0.0, progress=False)
    direct = rc.models.LN.from_maximum_likelihood(node, history=HISTORY, progress=False)
    for trained, fitted, planted in zip(
        fitted_weights(model)[0], fitted_weights(direct)[0], kernels, strict=True
    ):
        assert np.corrcoef(trained, fitted)[0, 1] > 0.97
        assert np.corrcoef(fitted, planted.ravel())[0, 1] > 0.95


def test_validation_keeps_a_large_filter_from_fitting_noise():
    node, _ = recording(1200, shape=(8, 8))
    train, validation = node.isel(time=slice(800)), node.isel(time=slice(810, None))
    options = {"history": HISTORY, "l2": 0.0, "progress": False}
    stopped = rc.models.LN.from_maximum_likelihood(train, validation=validation, **options)
    free = rc.models.LN.from_maximum_likelihood(train, max_steps=40, **options)

    def loss(model, part):
        expected = np.maximum(model.predict(part["stimulus"]).values * 0.01, 1e-9)
        counts = part["spike_count"].values[HISTORY - 1 :]
        return (expected - counts * np.log(expected)).mean()

    test, _ = recording(4000, seed=5, shape=(8, 8))
    assert loss(free, train) < loss(stopped, train)
    assert loss(stopped, test) < loss(free, test)


def test_a_model_is_saved_and_decomposed(tmp_path):
    node, _ = recording(400)
    model = rc.models.LN.from_maximum_likelihood(node, history=HISTORY, progress=False)
    again = rc.load_model(model.save(tmp_path / "model"))
    assert again.fingerprint == model.fingerprint
    xr.testing.assert_identical(again.predict(node["stimulus"]), model.predict(node["stimulus"]))
    tree = rc.contributions(model, node["stimulus"][:20], progress=False)
    change = tree["target"] - tree["target_baseline"]
    found = tree["layers/filter/contribution"].sum(["channel", "y", "x"])
    np.testing.assert_allclose(found, change, atol=2e-2 * float(abs(change).max()))
    assert float(abs(change).max()) > 1


def test_exponential_without_drive():
    curve = Exponential(2, 0.5)
    curve.start_at(torch.log(torch.expm1(torch.tensor([0.1, 3.0]))))
    torch.testing.assert_close(curve(torch.zeros(1, 2)), torch.tensor([[0.2, 6.0]]))


class TestBadInput:
    def test_silent_cell_ends_at_a_low_rate(self):
        node, _ = recording(500)
        node["spike_count"][:, 1] = 0
        model = rc.models.LN.from_maximum_likelihood(node, history=HISTORY, progress=False)
        rate = model.predict(node["stimulus"]).values
        assert np.isfinite(rate).all()
        assert rate[:, 1].max() < 0.2

    def test_unknown_nonlinearity(self):
        with pytest.raises(ValueError, match=r"nonlinearity='exponentail' .*mean 'exponential'"):
            rc.models.LN.from_maximum_likelihood(
                recording(100)[0], nonlinearity="exponentail", history=HISTORY
            )
        with pytest.raises(ValueError, match="nonlinearity='exponential' is not known"):
            rc.models.LN.from_spike_triggered_average(
                recording(100)[0], nonlinearity="exponential", history=HISTORY
            )

    def test_repeats(self):
        node, _ = recording(100)
        node["spike_count"] = node["spike_count"].expand_dims(repeat=2)
        with pytest.raises(ValueError, match=r"recording: spike_count has dims .*repeat"):
            rc.models.LN.from_maximum_likelihood(node, history=HISTORY)

    def test_validation_of_other_cells(self):
        node, _ = recording(100)
        other = node.assign_coords(cell=["a", "c"])
        with pytest.raises(ValueError, match=r"validation has the cells \['a', 'c'\]; the model"):
            rc.models.LN.from_maximum_likelihood(node, validation=other, history=HISTORY)

    @pytest.mark.parametrize(("name", "value"), [("max_steps", 0), ("l2", -1.0), ("history", 0)])
    def test_out_of_range(self, name, value):
        options = {"history": HISTORY} | {name: value}
        with pytest.raises(ValueError, match=f"{name}={value}"):
            rc.models.LN.from_maximum_likelihood(recording(100)[0], **options)
