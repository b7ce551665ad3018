"""Contribution-weighted receptive fields against a literal sum over single units."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import retina_codec as rc

MEAN, SD = (0.4, 0.5), (0.2, 0.3)
METHOD = rc.methods.IntegratedGradients(steps=5)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2), nn.Tanh(), nn.Conv2d(3, 4, 2), nn.ReLU(), nn.Flatten(),
        nn.Linear(16, 3),
    )  # fmt: skip
    return rc.classifiers.from_module(net.double(), categories=list("abc"), mean=MEAN, sd=SD)


@pytest.fixture(scope="module")
def images():
    values = np.random.default_rng(0).random((5, 2, 7, 7))
    return xr.DataArray(
        values, dims=("image", "color", "y", "x"), coords={"image": [10, 11, 12, 13, 14]}
    )


def literal(model, images, layer, weights):
    """One gradient a unit, of images before they are normalised."""
    c = rc.contributions(model, images, layers=layer, method=METHOD, progress=False)
    c = c[f"layers/{layer}"]["contribution"].values
    mean, sd = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (MEAN, SD))
    front = model.network.module[: int(layer) + 1]
    field = np.zeros((len(images), len(weights), 2, *images.shape[1:]))
    for i in range(len(images)):
        x = torch.from_numpy(images.values[i : i + 1]).requires_grad_()
        a = front((x - mean) / sd)[0]
        for m, row in enumerate(weights):
            for s, sign in enumerate((1, -1)):
                total = 0.0
                for unit in np.ndindex(*a.shape):
                    size = max(sign * c[(i, *unit)], 0) * abs(row[s, unit[0]])
                    if size:
                        (g,) = torch.autograd.grad(a[unit], x, retain_graph=True)
                        field[i, m, s] += size * g[0].numpy()
                        total += size
                field[i, m, s] /= total or 1
    return field


@pytest.mark.parametrize(("layer", "n"), [("1", 3), ("3", 4)])
def test_fields_of_modes_are_those_of_a_literal_sum(model, images, layer, n):
    weights = np.random.default_rng(1).normal(size=(2, 2, n))
    dictionary = xr.DataArray(
        weights, dims=("mode", "sign", "channel"),
        coords={"mode": [4, 9], "sign": ["positive", "negative"]},
    )  # fmt: skip
    found = rc.analysis.contribution_fields(
        model, images, layer, dictionary=dictionary, method=METHOD, progress=False
    )
    expected = literal(model, images, layer, weights)
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(found["field"], expected, rtol=1e-5, atol=1e-7)
    assert found["field"].dims == ("image", "mode", "sign", "color", "y", "x")
    assert found["mode"].values.tolist() == [4, 9]
    assert found["image"].values.tolist() == images["image"].values.tolist()
    turned = rc.analysis.contribution_fields(
        model, images.transpose("y", "image", ...), layer, batch_size=2, method=METHOD,
        dictionary=dictionary.isel(sign=[1, 0]).transpose("channel", ...), progress=False,
    )  # fmt: skip
    xr.testing.assert_allclose(turned, found)


def test_fields_of_channels_and_their_weights(model, images):
    found = rc.analysis.contribution_fields(
        model, images, "3", channels=[2, 0], method=METHOD, progress=False
    )
    one_hot = np.eye(4)[[2, 0]][:, None].repeat(2, 1)
    np.testing.assert_allclose(
        found["field"], literal(model, images, "3", one_hot), rtol=1e-5, atol=1e-7
    )
    tree = rc.contributions(
        model, images, layers="3", method=METHOD, split_sign=True, sum_over=("y", "x"),
        progress=False,
    )  # fmt: skip
    expected = abs(tree["layers/3"]["contribution"]).sel(channel=[2, 0])
    np.testing.assert_allclose(
        found["weight"], expected.transpose("image", "channel", "sign"), rtol=1e-6
    )
    assert (found["weight"] > 0).any() and not any(
        p.grad is not None for p in model.network.parameters()
    )


def test_of_a_linear_layer_the_field_is_its_kernel(images):
    """One place that contributes: the field is the kernel there, over the spread of the colour."""
    net = nn.Sequential(nn.Conv2d(2, 1, 7), nn.Flatten(), nn.Linear(1, 2)).double()
    model = rc.classifiers.from_module(net, categories=["a", "b"], mean=MEAN, sd=SD)
    found = rc.analysis.contribution_fields(model, images, "0", channels=[0], progress=False)
    kernel = net[0].weight.detach().numpy()[0] / np.array(SD)[:, None, None]
    for i in range(len(images)):
        on = found["weight"].values[i, 0] > 0
        assert on.sum() == 1
        np.testing.assert_allclose(found["field"].values[i, 0][on][0], kernel, rtol=1e-5)
        assert (found["field"].values[i, 0][~on] == 0).all()


def test_masks_hold_the_share():
    rng = np.random.default_rng(0)
    field = xr.DataArray(rng.normal(size=(3, 2, 9, 8)) ** 3, dims=("image", "color", "y", "x"))
    marked = rc.analysis.field_masks(field, share=0.6, smoothing=0)
    energy = (field**2).sum("color")
    for one, e in zip(marked.values, energy.values, strict=True):
        held = e[one].sum() / e.sum()
        assert held >= 0.6 and held - e[one].min() / e.sum() < 0.6
        assert e[one].min() >= e[~one].max()
    assert not rc.analysis.field_masks(field * 0).any()
    point = xr.zeros_like(field[0, 0])
    point[4, 4] = 1.0
    disc = rc.analysis.field_masks(point, share=0.5, smoothing=1.5)
    assert disc[4, 4] and disc.sum() > 5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layer": "1"}, "give one of dictionary= .* and channels="),
        ({"layer": "1", "channels": [7]}, "channels has 7, which the layer does not"),
        ({"layer": "9", "channels": [0]}, "no layer '9'"),
        (
            {"layer": "1", "dictionary": xr.DataArray(np.ones((1, 9)), dims=("mode", "channel"))},
            "dictionary has 9 channels, the layer 3",
        ),
        (
            {"layer": "1", "channels": [0], "target": rc.targets.Output()},
            "contributions to each category apart; give one target",
        ),
    ],
)
def test_bad_input(model, images, given, message):
    with pytest.raises(ValueError, match=message):
        rc.analysis.contribution_fields(model, images, progress=False, **given)


def test_movies_are_refused(model, images):
    with pytest.raises(ValueError, match="instantaneous_receptive_field"):
        rc.analysis.contribution_fields(model, images.rename(image="time"), "1", channels=[0])
