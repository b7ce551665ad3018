"""The best stimulus: closed forms of linear cells, limits, channels, modes, images."""

import numpy as np
import pytest
import torch
import xarray as xr

import retina_codec as rc

HISTORY, SIDE, MEAN, SD = 5, 8, 2.0, 0.5


def movie_of(n=60, seed=0):
    rng = np.random.default_rng(seed)
    coords = {
        "time": rc.time_coordinate(np.arange(n) * 0.01, 0.01),
        "y": ("y", 50.0 * np.arange(SIDE), {"units": "um"}),
        "x": ("x", 50.0 * np.arange(SIDE), {"units": "um"}),
    }
    values = rng.normal(MEAN, SD, (n, SIDE, SIDE)).astype(np.float32)
    return xr.DataArray(values, coords, ("time", "y", "x"), attrs={"units": "cd/m^2"})


@pytest.fixture(scope="module")
def ln():
    return rc.models.LN(
        (SIDE, SIDE), history=HISTORY, bin_width=0.01, cells=["a", "b"], mean=MEAN, sd=SD, seed=3
    )


@pytest.fixture(scope="module")
def bncnn():
    return rc.models.BNCNN(
        (SIDE, SIDE), history=HISTORY, bin_width=0.01, cells=["a", "b"], channels=(3, 4),
        kernel_sizes=(3, 3), mean=MEAN, sd=SD, seed=1,
    )  # fmt: skip


def filter_of(ln, cell):
    return ln.layers["filter"].weight.detach().numpy()[cell, :, 0].astype(float)


WIDE = {"limits": (-50.0, 50.0), "progress": False}


def test_of_a_linear_nonlinear_model_it_is_the_filter(ln):
    found = rc.optimize_stimulus(ln, movie_of(), output="b", energy=0.3, restarts=3, **WIDE)
    contrast = found["stimulus"].values - MEAN
    best = filter_of(ln, 1)
    assert np.corrcoef(contrast.ravel(), best.ravel())[0, 1] > 0.9999
    np.testing.assert_allclose(np.sqrt((contrast**2).mean()), 0.3, rtol=1e-4)
    np.testing.assert_allclose(found["similarity"], 1, atol=1e-3)
    # The largest rate that this much contrast can make.
    drive = 0.3 / SD * np.sqrt(best.size) * np.linalg.norm(best)
    nonlinearity = ln.network.get_submodule("nonlinearity")
    with torch.no_grad():
        rate = nonlinearity(torch.tensor([[0.0, drive]], dtype=torch.float32))[0, 1]
    assert float(found["objective"].max()) == pytest.approx(float(rate), rel=1e-3)
    # What is promised is what the model does.
    assert float(ln.predict(found["stimulus"]).sel(cell="b")[0]) == pytest.approx(
        float(found["objective"].max()), rel=1e-4
    )
    assert found["stimulus"].dims == ("time", "y", "x")
    assert found["stimulus"].attrs["units"] == "cd/m^2"
    assert found["objective"].attrs["units"] == "Hz"
    xr.testing.assert_equal(found["y"].variable, movie_of()["y"].variable)


def test_with_a_range_it_is_the_clipped_filter(ln):
    """Of a linear objective within a box and a ball: the filter, scaled, then clipped."""
    low, high, energy = MEAN - 0.35, MEAN + 0.25, 0.2
    found = rc.optimize_stimulus(
        ln, movie_of(), output="a", energy=energy, limits=(low, high), restarts=2, progress=False
    )
    contrast = found["stimulus"].values - MEAN
    best = filter_of(ln, 0)

    def clipped(scale):
        return np.clip(scale * best, -0.35, 0.25)

    few, many = 0.0, 1e4
    for _ in range(200):
        middle = (few + many) / 2
        few, many = (
            (middle, many) if np.sqrt((clipped(middle) ** 2).mean()) < energy else (few, middle)
        )
    expected = clipped(few)
    assert (expected == 0.25).any() and (expected == -0.35).any()
    np.testing.assert_allclose(contrast, expected, atol=4e-3)


def test_limits_hold_and_the_history_never_falls(bncnn):
    movie = movie_of()
    options = {"energy": 0.4, "limits": (MEAN - 1.0, MEAN + 0.6), "progress": False, "seed": 2}
    found = rc.optimize_stimulus(bncnn, movie, output="a", n_frames=9, max_steps=25, **options)
    contrast = found["stimulus"].values - MEAN
    assert contrast.shape == (9, SIDE, SIDE)
    assert np.sqrt((contrast**2).mean()) <= 0.4 * (1 + 1e-5)
    assert contrast.min() >= -1.0 - 1e-5 and contrast.max() <= 0.6 + 1e-5
    history = found["objective"].values
    assert (np.diff(history, axis=1) >= 0).all() and (history[:, -1] > history[:, 0]).all()
    assert history.max() > found["random_objective"].max() * 1.2
    mean_rate = float(bncnn.predict(found["stimulus"]).sel(cell="a").mean())
    assert mean_rate == pytest.approx(history.max(), rel=1e-4)
    again = rc.optimize_stimulus(bncnn, movie, output="a", n_frames=9, max_steps=25, **options)
    xr.testing.assert_identical(found, again)
    # Random movies under the same limits, made here: none is better.
    rng = np.random.default_rng(5)
    noise = rng.normal(0, 0.4, (2000, SIDE, SIDE))
    noise = np.clip(noise, -1.0, 0.6)
    many = xr.DataArray(
        (MEAN + noise).astype(np.float32),
        {"time": rc.time_coordinate(np.arange(2000) * 0.01, 0.01)},
        ("time", "y", "x"),
    )
    assert history.max() > float(bncnn.predict(many).sel(cell="a").max())


def test_a_blur_takes_out_the_detail(ln):
    rough = rc.optimize_stimulus(ln, movie_of(), output="a", energy=0.2, restarts=1, **WIDE)
    smooth = rc.optimize_stimulus(
        ln, movie_of(), output="a", energy=0.2, restarts=1, smooth_time=0.01, smooth_space=100.0,
        **WIDE,
    )  # fmt: skip

    def detail(found):
        frames = found["stimulus"].values - MEAN
        power = np.abs(np.fft.fft2(frames)) ** 2
        fast = np.add.outer(*[np.abs(np.fft.fftfreq(SIDE))] * 2) > 0.4
        return power[:, fast].sum() / power.sum()

    assert detail(smooth) < 0.02 < 0.2 < detail(rough)
    assert float(smooth["objective"].max()) < float(rough["objective"].max())
    assert np.sqrt(((smooth["stimulus"].values - MEAN) ** 2).mean()) == pytest.approx(0.2, rel=1e-3)


def test_channels_and_units(bncnn):
    movie = movie_of()
    found = rc.optimize_stimulus(
        bncnn, movie, layer="conv1", channel=2, unit=(3, 1), energy=0.3, restarts=2, **WIDE
    )
    contrast = found["stimulus"].values - MEAN
    kernel = bncnn.layers["conv1"].weight.detach().numpy()[2, :, 0]
    # A unit of the first convolution sees its kernel's place and nothing else.
    inside = contrast[:, 3:6, 1:4]
    assert np.corrcoef(inside.ravel(), kernel.ravel())[0, 1] > 0.999
    assert (inside**2).sum() / (contrast**2).sum() > 0.999
    whole = rc.optimize_stimulus(
        bncnn, movie, layer="relu2", channel=0, energy=0.3, restarts=2, **WIDE
    )
    assert float(whole["objective"].max()) > float(whole["random_objective"].max())
    assert whole["objective"].attrs["units"] == "1"


def test_a_mode_is_driven_by_its_movie(bncnn):
    movie = movie_of(300)
    options = {
        "method": rc.methods.IntegratedGradients(steps=4), "target": rc.targets.Output("a"),
        "split_sign": True, "sum_over": ("y", "x"), "progress": False,
    }  # fmt: skip

    def contribution(data):
        tree = rc.contributions(bncnn, data, layers="relu2", **options)
        return tree["layers/relu2"]["contribution"].sel(cell="a")

    given = contribution(movie)
    modes = rc.fit_modes(given, n_modes=6, k=2, seed=0, max_epochs=20, progress=False)
    # Of the samples that were fitted, which are most of them.
    scale = np.sqrt((given**2).mean("time"))
    np.testing.assert_allclose(modes.column_scale.transpose(*scale.dims), scale, rtol=0.15)
    found = rc.optimize_stimulus(
        bncnn, movie, modes=modes, mode=1, output="a", layer="relu2", energy=0.4, restarts=2,
        max_steps=25, progress=False,
    )  # fmt: skip
    # The objective is the projection of the contributions on the atom.
    own = contribution(found["stimulus"]).isel(time=0)
    atom = modes.dictionary.sel(mode=1)
    projection = float((own * atom / modes.column_scale).sum())
    assert float(found["objective"].max()) == pytest.approx(projection, rel=1e-3)
    best = float(modes.transform(contribution(found["stimulus"])).sel(mode=1)[0])
    assert best > float(modes.loadings.sel(mode=1).quantile(0.99))


def test_images_of_a_classifier():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 25, 2, bias=False))
    model = rc.classifiers.from_module(
        net, categories=["p", "q"], mean=(0.4, 0.5, 0.45), sd=(0.2, 0.25, 0.3)
    )
    rng = np.random.default_rng(0)
    images = xr.DataArray(
        rng.integers(0, 255, (6, 3, 5, 5)).astype(np.uint8), dims=("image", "color", "y", "x")
    )
    found = rc.optimize_stimulus(
        model, images, output="q", energy=0.02, limits=(0.0, 1.0), restarts=2, progress=False
    )
    weight = net[1].weight.detach().numpy()[1].reshape(3, 5, 5)
    weight = weight / np.array([0.2, 0.25, 0.3])[:, None, None]
    contrast = found["stimulus"].values - np.array([0.4, 0.5, 0.45])[:, None, None]
    assert found["stimulus"].dims == ("color", "y", "x")
    assert np.corrcoef(contrast.ravel(), weight.ravel())[0, 1] > 0.9999
    again = model.predict(found["stimulus"].expand_dims("image").astype(np.float32))
    assert float(again.sel(category="q")[0]) == pytest.approx(
        float(found["objective"].max()), rel=1e-3
    )


def test_nothing_of_the_model_is_changed(bncnn):
    bncnn.network.train()
    random, fingerprint = torch.random.get_rng_state(), bncnn.fingerprint
    rc.optimize_stimulus(bncnn, movie_of(), layer="relu1", channel=1, max_steps=2, progress=False)
    assert bncnn.network.training and bncnn.fingerprint == fingerprint
    assert all(p.requires_grad and p.grad is None for p in bncnn.network.parameters())
    assert not any(m._forward_hooks for m in bncnn.network.modules())
    assert torch.equal(random, torch.random.get_rng_state())
    bncnn.network.eval()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "name what is to be driven: output=, one of a, b"),
        ({"output": "c"}, "no cell 'c'; .*choices: a, b"),
        ({"output": "a", "layer": "relu1"}, "name what is to be driven"),
        ({"layer": "relu1", "channel": 9}, "layer 'relu1' has no channel 9"),
        ({"layer": "relu3", "channel": 0}, "no layer 'relu3'"),
        (
            {"layer": "relu1", "channel": 0, "unit": (9, 0)},
            r"unit=\(9, 0\); layer 'relu1' has maps",
        ),
        ({"mode": 1}, "give modes= and the label"),
        ({"output": "a", "limits": (3.0, 4.0)}, "do not hold mean grey, 2, between them"),
        ({"output": "a", "energy": 0.0}, "energy=0; expected a positive"),
        ({"output": "a", "n_frames": 3}, "n_frames=3; expected a number of at least 5"),
        ({"output": "a", "restarts": 0}, "restarts=0"),
    ],
)
def test_what_cannot_be_meant_is_said(bncnn, arguments, message):
    with pytest.raises(ValueError, match=message):
        rc.optimize_stimulus(bncnn, movie_of(), progress=False, **arguments)


def test_a_silent_cell_is_said(ln):
    class Silent(torch.nn.Module):
        def forward(self, windows):
            return torch.relu(windows.flatten(1).sum(1, keepdim=True) * 0 - 1)

    model = rc.models.from_module(Silent(), history=3, bin_width=0.01, cells=["a"])
    with pytest.raises(ValueError, match="no start has a gradient"):
        rc.optimize_stimulus(model, movie_of() - MEAN, output="a", progress=False)


def test_a_movie_that_does_not_fit_is_called_by_its_argument(bncnn):
    with pytest.raises(ValueError, match=r"like has frames of .*; the model takes frames of"):
        rc.optimize_stimulus(bncnn, movie_of().isel(x=slice(3)), output="a", progress=False)
