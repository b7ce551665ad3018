"""Contributions of a ResNet: completeness, an outside judge, invariance, hygiene, modes."""

import copy
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import xarray as xr
from captum.attr import LayerConductance
from torch import nn

import retina_codec as rc
from retina_codec import plot
from retina_codec.classifiers import from_module, resnet18
from retina_codec.modes import fit_modes


def with_batch_statistics(model, seed=0):
    """The model with biases and batch statistics like a trained one, in double precision.

    Without them a ResNet is homogeneous, T(s x) = s T(x): its gates never change on the path, and
    no step error could be seen. In single precision, rounding opens or shuts a gate here or there.
    """
    draw = torch.Generator().manual_seed(seed)
    for module in model.network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.bias.data = 0.5 * torch.randn(module.num_features, generator=draw)
            module.running_mean = 0.3 * torch.randn(module.num_features, generator=draw)
            module.running_var = 0.5 + torch.rand(module.num_features, generator=draw)
    model.network.double()
    return model


@pytest.fixture(scope="module")
def model():
    return with_batch_statistics(resnet18(categories=[f"c{i}" for i in range(10)], seed=1))


@pytest.fixture(scope="module")
def images():
    values = np.random.default_rng(0).random((2, 3, 40, 40), dtype=np.float32)
    return xr.DataArray(values, dims=("image", "color", "y", "x"), coords={"image": [5, 7]})


@pytest.fixture(scope="module")
def inputs(model, images):
    return next(iter(model.samples(images).batches(2))).inputs


def integrated(steps, rule="trapezoid"):
    return rc.methods.IntegratedGradients(steps=steps, rule=rule)


def decomposed(model, images, **options):
    return rc.contributions(model, images, progress=False, **options)


def out_of_place(network):
    """A copy with the same weights that changes nothing in place."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return network


def test_every_block_divides_the_whole_change_of_the_top_logit(model, images, inputs):
    with torch.no_grad():
        logits, grey = model.network(inputs), model.network(torch.zeros_like(inputs))
    top = logits.argmax(1)
    change = (logits - grey).gather(1, top[:, None])[:, 0].numpy()
    assert (np.abs(change) > 0.05).all()  # else completeness would say nothing
    errors = {}
    for steps in (3, 15):
        tree = decomposed(model, images, method=integrated(steps))
        np.testing.assert_allclose(tree["target"] - tree["target_baseline"], change, rtol=1e-3)
        assert list(tree["layers"].children) == list(model.default_layers)
        for name, node in tree["layers"].children.items():
            assert node["contribution"].dims == ("image", "channel", "y", "x")
            residual = node["contribution"].sum(("channel", "y", "x")).values - change
            np.testing.assert_allclose(node["completeness_error"], residual, atol=1e-5)
            errors[name, steps] = np.abs(residual).max()
    coarse, fine = (
        np.mean([errors[name, steps] for name in model.default_layers]) for steps in (3, 15)
    )
    assert fine < coarse / 3
    assert max(errors[name, 15] for name in model.default_layers) < 0.2 * np.abs(change).min()
    # What follows the last block is linear (mean over places, dense layer): one step is exact.
    assert max(errors["layer4.1", steps] for steps in (3, 15)) < 1e-5


def test_last_block_in_closed_form(model, images, inputs):
    contribution = decomposed(
        model, images, layers="layer4.1", target=rc.targets.Output("c3"), method=integrated(1)
    )["layers/layer4.1"]["contribution"]
    body = nn.Sequential(*list(out_of_place(model.network).children())[:-2])
    with torch.no_grad():
        rise = body(inputs) - body(torch.zeros_like(inputs))
        weight = model.network.fc.weight[3] / rise[0, 0].numel()
        expected = weight[:, None, None] * rise
    assert expected.abs().max() > 1e-3
    np.testing.assert_allclose(contribution[:, 0], expected, atol=1e-6)


@pytest.mark.parametrize("layer", ["conv1", "bn1", "layer1.0.bn1", "layer2.0", "layer4.1"])
def test_agrees_with_captum_on_a_network_without_in_place_modules(model, images, inputs, layer):
    steps = 6
    # A branch of a block does not cut the network: what passes through it.
    tree = decomposed(
        model,
        images,
        layers=layer,
        method=integrated(steps, "left"),
        allow_bypass=layer == "layer1.0.bn1",
    )
    network = out_of_place(model.network)
    target = model.network(inputs).argmax(1)
    # Captum visits n_steps + 1 points from 0 to 1, with the gradient at each step's lower end.
    expected = LayerConductance(network, network.get_submodule(layer)).attribute(
        inputs, baselines=0.0, target=target, n_steps=steps, method="riemann_trapezoid"
    )
    got = tree[f"layers/{layer}"]["contribution"].values
    scale = expected.abs().max().item()
    assert scale > 1e-4
    np.testing.assert_allclose(got, expected.detach().numpy(), atol=1e-5 * scale, rtol=1e-4)


def test_several_layers_at_once_are_the_layers_one_by_one(model, images):
    layers = ["conv1", "relu", "layer1.0", "layer1.1"]
    together = decomposed(model, images, layers=layers, method=integrated(3))
    for layer in layers:
        alone = decomposed(model, images, layers=layer, method=integrated(3))
        a, b = (t[f"layers/{layer}"]["contribution"].values for t in (together, alone))
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max(), rtol=1e-3)


def test_batch_size_changes_nothing(model, images):
    a, b = (
        decomposed(model, images, layers="layer3.0", method=integrated(4), batch_size=size)
        for size in (1, 2)
    )
    scale = float(abs(a["layers/layer3.0"]["contribution"]).max())
    xr.testing.assert_allclose(
        a["layers/layer3.0"]["contribution"],
        b["layers/layer3.0"]["contribution"],
        atol=1e-5 * scale,
        rtol=1e-4,
    )


def test_the_baseline_is_the_mean_colour(model, images):
    mean = xr.DataArray(
        np.asarray(model.mean, dtype=np.float32)[None, :, None, None] * np.ones((1, 1, 40, 40)),
        dims=("image", "color", "y", "x"),
    )
    tree = decomposed(
        model, images, layers="layer4.1", target=rc.targets.Output("c3"), method=integrated(1)
    )
    at_mean = model.predict(mean).sel(category="c3").item()
    np.testing.assert_allclose(tree["target_baseline"].values, at_mean, rtol=1e-5)


@pytest.mark.parametrize("fails", [False, True])
def test_leaves_the_network_as_it_was(images, fails):
    model = resnet18(categories=["a", "b"])
    network = model.network
    network.layer1.train()
    network.fc.weight.requires_grad_(False)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    generator = torch.random.get_rng_state()

    def look():
        return (
            [module.training for module in network.modules()],
            [parameter.requires_grad for parameter in network.parameters()],
            [len(module._forward_hooks) for module in network.modules()],
            [parameter.grad is None for parameter in network.parameters()],
            ["forward" in vars(module) for module in network.modules()],
        )

    before = look()
    if fails:
        with pytest.raises(ValueError, match="runs more than once"):
            decomposed(model, images, layers=["conv1", "layer1.0.relu"])
    else:
        decomposed(model, images, layers=["conv1", "layer1.0"], method=integrated(1))
    assert look() == before
    assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), generator)


def test_from_module_gives_contributions_at_the_layers_asked_for():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 3))
    model = from_module(
        net, categories=["a", "b", "c"], mean=[0.5] * 3, sd=[0.2] * 3, default_layers=["0", "1"]
    )
    values = np.random.default_rng(3).random((4, 3, 8, 8))
    images = xr.DataArray(values, dims=("image", "color", "y", "x"))
    tree = decomposed(model, images, target=rc.targets.Output(), method=integrated(50))
    x = torch.as_tensor((values - 0.5) / 0.2, dtype=torch.float32)
    with torch.no_grad():
        change = (net(x) - net(torch.zeros_like(x))).numpy()
    assert np.abs(change).max() > 0.1
    for layer in ("0", "1"):
        total = tree[f"layers/{layer}"]["contribution"].sum(("channel", "y", "x"))
        assert total.dims == ("image", "category")
        np.testing.assert_allclose(total, change, atol=0.01)
    # The last part is linear above the ReLU: its contribution is weight times change, exactly.
    with torch.no_grad():
        rise = net[1](net[0](x)) - net[1](net[0](torch.zeros_like(x)))
    by_hand = rise[:, None] * net[3].weight.detach().reshape(3, 4, 6, 6)
    np.testing.assert_allclose(tree["layers/1"]["contribution"], by_hand, atol=1e-5)


def test_modes_of_a_block_tell_kinds_of_images_apart():
    """The whole way: images, contributions of a block, modes. Two kinds of stripes are planted."""
    model = resnet18(categories=["a", "b", "c"], seed=2)
    rng = np.random.default_rng(1)
    upright = np.arange(80) % 2 == 0
    stripes = np.tile(np.repeat([0.2, 0.8], 4), 4)[:, None] * np.ones(32)
    values = np.where(upright[:, None, None], stripes.T, stripes)[:, None]
    values = np.clip(values + 0.05 * rng.standard_normal((80, 3, 32, 32)), 0, 1)
    images = xr.DataArray(values, dims=("image", "color", "y", "x"))
    tree = decomposed(
        model,
        images,
        layers="layer2.0",
        target=rc.targets.Sum(),
        method=integrated(2, "right"),
        split_sign=True,
        sum_over=("y", "x"),
    )
    contribution = tree["layers/layer2.0"]["contribution"]
    assert contribution.dims == ("image", "sign", "channel")
    change = tree["target"] - tree["target_baseline"]
    assert float(abs(change).min()) > 0.1
    xr.testing.assert_allclose(
        contribution.sum(("sign", "channel")), change.astype("float32"), atol=1e-3
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # some channels are silent: constant columns
        modes = fit_modes(contribution, n_modes=4, k=2, max_epochs=100, progress=False)
    assert modes.loadings.dims == ("image", "mode")
    assert dict(modes.dictionary.sizes) == {"mode": 4, "sign": 2, "channel": 128}
    assert ((modes.loadings != 0).sum("mode") <= 2).all()
    # Some mode is strong for one kind of stripes, some for the other.
    r = [np.corrcoef(column, upright)[0, 1] for column in modes.loadings.values.T]
    assert np.nanmin(r) < -0.8
    assert np.nanmax(r) > 0.8
    ax = plot.dictionary(modes.dictionary)
    assert ax.get_ylabel() == "mode"
    plt.close(ax.figure)
