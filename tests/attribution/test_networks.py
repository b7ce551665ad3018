"""Odd networks: right against the slow literal twin, or refused with the reason."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
import torchvision
import xarray as xr
from torch import nn

import retina_codec as rc
from retina_codec._common.time import time_coordinate
from retina_codec.models.model import UnitLayout

STEPS = 4


def decomposed(network, x, layers, *, steps=STEPS, baseline=0.1, **options):
    method = rc.methods.IntegratedGradients(steps=steps, baseline=baseline)
    return rc.contributions(network, x, layers=layers, method=method, progress=False, **options)


@pytest.fixture
def right(twin, agree):
    """Assert that layers of a network are what the twin finds, whatever the batches."""

    def check(network, x, layers, *, baseline=0.1, batch_sizes=(None, 3), **options):
        layers = [layers] if isinstance(layers, str) else layers
        before = x.clone()
        for batch_size in batch_sizes:
            tree = decomposed(
                network, x, layers, baseline=baseline, batch_size=batch_size, **options
            )
            for name in layers:
                found = twin(network, network.get_submodule(name)).integrated(
                    x, STEPS, baseline=baseline
                )
                agree(tree, name, found)
        assert torch.equal(x, before)
        return tree

    return check


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def dense(*sizes):
    return [nn.Linear(a, b) for a, b in pairwise(sizes)]


def movie_of(frames):
    time = time_coordinate(np.arange(len(frames)) * 0.01, 0.01)
    return xr.DataArray(frames.numpy(), dims=("time", "y", "x"), coords={"time": time})


def points(n=5, size=3):
    return torch.randn(n, size, dtype=torch.double, generator=torch.Generator().manual_seed(9))


def images(n=5, size=6):
    return torch.randn(
        n, 2, size, size, dtype=torch.double, generator=torch.Generator().manual_seed(9)
    )


# Modules that work in place


def test_the_first_module_works_in_place(right):
    a, b = dense(3, 4, 2)
    network = nn.Sequential(nn.LeakyReLU(0.3, inplace=True), a, nn.ReLU(inplace=True), b).double()
    right(network, points(), ["0", "1", "2"])


class Function(nn.Module):
    """A function as the forward of a network with the given parts."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x):
        return self.function(self, x)


def network_of(function, **parts):
    return Function(function, **parts).double().eval()


def test_the_input_is_changed_in_place_before_an_affine_layer(right):
    a, b = dense(3, 4, 2)

    def forward(self, x):
        x.mul_(2.0).add_(0.3)
        return self.b(torch.tanh(self.a(x)))

    right(network_of(forward, a=a, b=b), points(), ["a"])


def test_a_functional_in_place_follows_the_layer(right):
    a, b, c = dense(3, 4, 4, 2)

    def forward(self, x):
        h = nn.functional.relu(self.a(x), inplace=True)
        h = self.b(h)
        h += 0.5
        return self.c(nn.functional.leaky_relu_(h, 0.2))

    right(network_of(forward, a=a, b=b, c=c), points(), ["a", "b"])


class Block(nn.Module):
    """A residual block as in torchvision: one ReLU in place, used twice, and an in-place sum."""

    def __init__(self, n):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(n, n, 3, padding=1), nn.BatchNorm2d(n)
        self.conv2, self.bn2 = nn.Conv2d(n, n, 3, padding=1), nn.BatchNorm2d(n)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x
        return self.relu(out)


def residual():
    network = nn.Sequential(
        nn.Conv2d(2, 3, 3), Block(3), Block(3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), *dense(3, 2)
    )
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.3, 2)
    return network.double().eval()


def test_blocks_with_skip_connections(right):
    right(residual(), images(), ["0", "1", "2", "3"])


def test_a_branch_of_a_block_does_not_cut(right):
    network = residual()
    for name in ("1.conv1", "1.bn2", "2.conv2"):
        with pytest.raises(ValueError, match=f"layer '{name}' does not cut the network"):
            decomposed(network, images(), name)
    right(network, images(), ["1.bn1", "2.conv2"], allow_bypass=True)


def test_a_block_in_front_of_a_branch_cuts_though_the_branch_is_dead(right):
    """Whether a layer cuts is no matter of the gradients on the first samples."""
    a, b, c = dense(3, 4, 4, 2)
    side = nn.Linear(3, 2)

    def forward(self, x):
        return self.c(self.b(self.a(x)).tanh()) + nn.functional.relu(self.side(x) - 4.0)

    network = network_of(forward, a=a, b=b, c=c, side=side)
    with pytest.raises(ValueError, match="layer 'b' does not cut the network"):
        decomposed(network, points(), "b")


def test_a_gate_beside_the_layer_is_a_way_around_it():
    """No gradient passes through the comparison, but the outputs change with it."""
    a, b = dense(3, 4, 2)

    def forward(self, x):
        return self.b(self.a(x).tanh()) * (x[:, :1] > 0)

    with pytest.raises(ValueError, match="layer 'a' does not cut the network"):
        decomposed(network_of(forward, a=a, b=b), points(), "a")


def test_a_network_that_reads_its_input_twice(right):
    a, b, c = dense(3, 4, 4, 2)

    def forward(self, x):
        h = self.a(x).tanh()
        return self.c((self.b(h) * (1 + x.square().sum(1, keepdim=True))).tanh())

    network = network_of(forward, a=a, b=b, c=c)
    with pytest.raises(ValueError, match="layer 'b' does not cut the network"):
        decomposed(network, points(), "b")
    right(network, points(), ["a", "b"], allow_bypass=True)


# Modules that run twice, or give no single tensor


@pytest.mark.parametrize("below", [True, False])
def test_a_module_used_twice_beside_the_layer(right, below):
    a, b, c = dense(3, 3, 3, 2)

    def forward(self, x):
        if below:
            return self.c(self.b(self.a(self.a(x)).tanh()).tanh())
        return self.c(self.a(self.a(self.b(x)).tanh()).tanh())

    network = network_of(forward, a=a, b=b, c=c)
    right(network, points(), ["b"])
    with pytest.raises(ValueError, match="layer 'a' runs more than once in a forward pass"):
        decomposed(network, points(), "a")


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = dense(3, 4, 4)

    def forward(self, x):
        h = self.left(x)
        return h, {"next": self.right(h.tanh())}


def test_modules_that_give_tuples(right):
    def forward(self, x):
        here, there = self.pair(x)
        return self.c(here * there["next"])

    network = network_of(forward, pair=Pair(), c=dense(4, 2)[0])
    right(network, points(), ["pair.left"])
    with pytest.raises(ValueError, match="layer 'pair' gives a tuple; expected one tensor"):
        decomposed(network, points(), "pair")


def test_a_network_that_gives_a_tuple_is_refused():
    network = nn.Sequential(Pair()).double()
    with pytest.raises(ValueError, match=r"model gives no tensor; expected outputs \(sample, outp"):
        decomposed(network, points(), "0.left")


# Hooks of the user's


def before(module, args):
    return (args[0] + args[0].square() / 2,)


def after(module, args, output):
    return output + output.square() / 2


def in_place(module, args, output):
    output[:, 1] = 0.0


def linear(module, args, output):
    return output.flip(1) * 2


@pytest.mark.parametrize("place", ["a", "b", "c"])
@pytest.mark.parametrize("hook", [before, after, in_place, linear])
def test_hooks_of_the_user_stay_in_force(right, place, hook):
    network = nn.Sequential()
    for name, part in zip("abc", dense(3, 4, 4, 2), strict=True):
        network.add_module(name, part)
        if name == "b":
            network.add_module("bend", nn.Tanh())
    network = network.double()
    plain = network(points()).detach()
    module = network.get_submodule(place)
    if hook is before:
        handle = module.register_forward_pre_hook(hook)
    else:
        handle = module.register_forward_hook(hook)
    assert not torch.allclose(network(points()), plain)
    hooks = dict(module._forward_hooks), dict(module._forward_pre_hooks)
    right(network, points(), ["a", "b", "bend"])
    assert (dict(module._forward_hooks), dict(module._forward_pre_hooks)) == hooks
    handle.remove()
    assert torch.equal(network(points()), plain)


def test_hooks_that_look_at_shapes_of_modules_that_do_not_run(right):
    a, b, c = dense(3, 4, 4, 2)

    def forward(self, x):
        h = self.a(x)
        n, width = h.shape
        return self.c(self.b(h).view(n, width).tanh())

    network = network_of(forward, a=a, b=b, c=c)
    a.register_forward_hook(lambda m, args, output: output[:, [3, 1, 0, 2]])
    right(network, points(), ["b"])


# Layers with other dims


def test_layers_that_keep_a_time_axis(twin):
    network = nn.Sequential(
        nn.Conv3d(1, 2, (2, 2, 2)), nn.Softplus(), nn.Conv3d(2, 3, (2, 3, 2)), nn.Tanh()
    )
    network = nn.Sequential(network, nn.Flatten(), *dense(3 * 2 * 2 * 1, 2)).double()
    x = torch.randn(3, 1, 4, 5, 3, dtype=torch.double)
    found, target, start = twin(network, network[0][2]).integrated(x, STEPS, baseline=0.1)
    summed, kept = (decomposed(network, x, "0.2", keep_lag=keep) for keep in (False, True))
    kept = kept["layers/0.2"]["contribution"]
    assert kept.dims == ("sample", "output", "channel", "lag", "y", "x")
    np.testing.assert_allclose(kept, found, rtol=1e-9, atol=1e-13)
    node = summed["layers/0.2"]
    assert node["contribution"].dims == ("sample", "output", "channel", "y", "x")
    np.testing.assert_allclose(node["contribution"], found.sum(3), rtol=1e-9, atol=1e-13)
    error = found.sum((2, 3, 4, 5)) - (target - start)
    np.testing.assert_allclose(node["completeness_error"], error, rtol=1e-9, atol=1e-13)
    assert np.abs(target - start).max() > 1e-2
    signs = decomposed(network, x, "0.2", split_sign=True, sum_over=("lag", "y", "x"))
    positive = signs["layers/0.2"]["contribution"].sel(sign="positive")
    np.testing.assert_allclose(positive, found.clip(min=0).sum((3, 4, 5)), rtol=1e-9, atol=1e-13)


def test_places_without_channels(twin, agree):
    """As told by hand: they are named by their dims, not by their place."""
    network = nn.Sequential(
        nn.Conv2d(2, 1, 3), nn.Flatten(1, 2), nn.Tanh(), nn.Flatten(), nn.Linear(20, 2)
    ).double()
    x = torch.randn(3, 2, 6, 7, dtype=torch.double)
    tree = decomposed(network, x, "2", layer_dims={"2": ("y", "x")})
    node = tree["layers/2"]
    assert dict(node["contribution"].sizes) == {"sample": 3, "output": 2, "y": 4, "x": 5}
    assert node["y"].attrs["units"] == node["x"].attrs["units"] == "index"
    agree(tree, "2", twin(network, network[2]).integrated(x, STEPS, baseline=0.1))


class Tokens(nn.Module):
    """A small vision transformer: patches, a class token, attention, a head on the class token."""

    def __init__(self, size=8):
        super().__init__()
        self.embed = nn.Conv2d(2, size, 3, stride=3)
        self.cls = nn.Parameter(torch.randn(1, 1, size))
        self.place = nn.Parameter(torch.randn(1, 7, size) / 3)
        self.drop = nn.Dropout(0.1)
        self.block = nn.TransformerEncoderLayer(
            size, 2, 12, dropout=0.1, activation="gelu", batch_first=True, norm_first=True
        )
        self.last = nn.TransformerEncoderLayer(
            size, 2, 12, dropout=0.1, activation="gelu", batch_first=True, norm_first=True
        )
        self.head = nn.Linear(size, 3)

    def forward(self, x):
        x = self.embed(x)
        n, c, h, w = x.shape
        x = x.reshape(n, c, h * w).transpose(1, 2)
        x = torch.cat([self.cls.expand(n, -1, -1), x], 1)
        x = self.drop(x + self.place)
        return self.head(self.last(self.block(x))[:, 0])


def test_layers_of_tokens(twin, agree):
    network = Tokens().double().eval()
    x = torch.randn(4, 2, 6, 9, dtype=torch.double) * 2
    layers = {"block": ("token", "channel"), "drop": ("token", "channel")}
    tree = decomposed(network, x, list(layers), layer_dims=layers)
    for name in layers:
        node = tree[f"layers/{name}"]
        assert node["contribution"].dims == ("sample", "output", "channel", "token")
        found = twin(network, network.get_submodule(name)).integrated(x, STEPS, baseline=0.1)
        # The package gives (channel, token), whatever the network's order.
        agree(tree, name, (np.swapaxes(found[0], 2, 3), *found[1:]))


def test_patches_and_class_token(twin):
    network = Tokens().double().eval()
    x = torch.randn(4, 2, 6, 9, dtype=torch.double) * 2
    model = rc.classifiers.from_module(network, categories=["a", "b", "c"])
    model.layouts["block"] = UnitLayout(("token", "channel"), grid=(2, 3), class_tokens=1)
    data = xr.DataArray(x.numpy(), dims=("image", "color", "y", "x"))
    method = rc.methods.IntegratedGradients(steps=STEPS, baseline=0.1)

    def found(**options):
        target = rc.targets.Output()
        tree = rc.contributions(
            model, data, layers="block", method=method, target=target, progress=False, **options
        )
        return tree["layers/block"]

    expected, target, start = twin(network, network.block).integrated(x, STEPS, baseline=0.1)
    node = found()
    patches, cls = node["contribution"], node["contribution_class_token"]
    assert patches.dims == ("image", "category", "channel", "y", "x")
    assert cls.dims == ("image", "category", "channel")
    np.testing.assert_allclose(cls, expected[:, :, 0], rtol=1e-9, atol=1e-13)
    whole = np.moveaxis(expected[:, :, 1:].reshape(4, 3, 2, 3, 8), -1, 2)
    np.testing.assert_allclose(patches, whole, rtol=1e-9, atol=1e-13)
    error = patches.sum(("channel", "y", "x")) + cls.sum("channel") - (target - start)
    np.testing.assert_allclose(node["completeness_error"], error, rtol=1e-9, atol=1e-12)
    assert np.abs(target - start).max() > 0.1
    assert np.abs(cls).max() > 1e-3
    split = found(split_sign=True, sum_over=("y", "x"))
    both = split["contribution"].sum("sign") + split["contribution_class_token"].sum("sign")
    np.testing.assert_allclose(both, expected.sum(2), rtol=1e-9, atol=1e-12)


def test_a_vision_transformer_of_torchvision(twin):
    network = torchvision.models.VisionTransformer(
        image_size=8,
        patch_size=4,
        num_layers=2,
        num_heads=2,
        hidden_dim=8,
        mlp_dim=12,
        num_classes=3,
    )
    nn.init.normal_(network.heads.head.weight)
    network = network.double().eval()
    x = torch.randn(3, 3, 8, 8, dtype=torch.double) * 3
    name = "encoder.layers.encoder_layer_0"
    tree = decomposed(network, x, name, layer_dims={name: ("token", "channel")})
    found = twin(network, network.get_submodule(name)).integrated(x, STEPS, baseline=0.1)
    ours = tree[f"layers/{name}"]["contribution"].transpose(..., "token", "channel")
    assert np.abs(found[1] - found[2]).max() > 0.01
    np.testing.assert_allclose(ours, found[0], rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"layer 'block' gives a tensor of shape .* say what its dims after the sample are"),
        ({"block": ("token",)}, r"layer_dims=.* not \('token',\)"),
        ({"block": ("token", "patch")}, r"layer_dims\['block'\]='patch' is not known"),
        ({"block": ("token", "token")}, r"not \('token', 'token'\)"),
    ],
)
def test_dims_that_nobody_told(given, message):
    network, x = Tokens().double().eval(), torch.randn(2, 2, 6, 9, dtype=torch.double)
    with pytest.raises(ValueError, match=message):
        decomposed(network, x, "block", layer_dims=given)


# Affine layers, found by testing


def calls_of(network, module, x, steps, **options):
    calls = []
    original = type(module).forward

    def counted(self, *args):
        if self is module:
            calls.append(1)
        return original(self, *args)

    type(module).forward = counted
    try:
        decomposed(network, x, options.pop("layers"), steps=steps, **options)
    finally:
        type(module).forward = original
    return len(calls)


class Hidden(nn.Module):
    """A linear map that no type tells: a Fourier transform, a permutation, a product."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3))

    def forward(self, x):
        spectrum = torch.fft.rfft(x, dim=1) * 0.5
        return torch.fft.irfft(spectrum, n=3, dim=1).flip(1) @ self.weight.T + 0.3


@pytest.mark.parametrize(
    "front",
    [
        lambda: [nn.Identity(), Hidden()],
        lambda: [Hidden(), nn.BatchNorm1d(4).eval()],
        lambda: [nn.Linear(3, 5), nn.Dropout(0.5), nn.Linear(5, 4), nn.Identity()],
        lambda: [nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4)), nn.Hardtanh(-1e30, 1e30)],
    ],
)
def test_affine_fronts_are_found_whatever_they_are(right, front):
    network = nn.Sequential(*front(), nn.Tanh(), *dense(4, 2)).double().eval()
    last = str(len(network) - 3)
    counts = [calls_of(network, network[0], points(), steps, layers=last) for steps in (2, 30)]
    assert counts[0] == counts[1]  # not computed at the steps
    right(network, points(), [last])
    right(network, points(), ["0", last, str(len(network) - 2)])


def test_a_small_bend_beside_a_large_straight_part(twin):
    """A layer in single precision whose units are of very different size."""

    class Front(nn.Module):
        def __init__(self):
            super().__init__()
            self.dense = nn.Linear(4, 4)

        def forward(self, x):
            return torch.cat([1e6 * x[:, :2], self.dense(x).relu()], dim=1)

    network = nn.Sequential(Front(), nn.Linear(6, 2), nn.Tanh())
    with torch.no_grad():
        network[1].weight[:, :2] *= 1e-6
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(9))
    tree = decomposed(network, x, "0", steps=10, baseline=0.0)
    expected = twin(network, network[0]).integrated(x, 10)[0]
    found = tree["layers/0/contribution"]
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_a_network_of_bfloat16():
    """Numpy has no such numbers."""
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    x = torch.randn(6, 3).bfloat16().float()
    coarse = nn.Sequential(*network)
    expected = decomposed(network, x, "1", extras="activation")
    coarse = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).bfloat16()
    coarse.load_state_dict(network.state_dict())
    found = decomposed(coarse, x, "1", extras="activation")
    assert found["target"].dtype == np.float32
    scale = float(np.abs(expected["layers/1/contribution"]).max())
    for name in ("contribution", "activation"):
        np.testing.assert_allclose(
            found[f"layers/1/{name}"], expected[f"layers/1/{name}"], atol=0.05 * max(scale, 1)
        )


@pytest.mark.parametrize("bias", [0.0, 3.0, 1e3, 1e5])
def test_a_relu_that_is_linear_on_the_first_samples(right, bias):
    """Of 40 samples, only the 25th reaches the bend of the ReLU, and only in its own batch."""
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), *dense(4, 2)).double()
    with torch.no_grad():
        network[0].weight.abs_()
        network[0].bias[:] = bias + 3
        network[2].weight[:] = torch.randn(2, 4) * 3
    x = points(40).abs()
    x[24] *= -(20.0 + bias)
    assert (network[0](x)[:24] > 0).all()
    assert (network[0](x)[24] < 0).any()
    right(network, x, ["1"], batch_sizes=(None, 30))


@pytest.mark.parametrize("n_still", [8, 20])
def test_samples_that_begin_as_the_baseline(right, n_still):
    """As a movie begins with grey: nothing changes along the first paths, so all looks straight."""
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), *dense(4, 2)).double()
    x = points(30)
    x[:n_still] = 0.1
    right(network, x, ["0", "1"])


def test_a_movie_that_begins_with_grey(twin, agree):
    net = nn.Sequential(nn.Flatten(), nn.Linear(4 * 9, 5), nn.ReLU(), *dense(5, 2)).double()
    model = rc.models.from_module(net, history=4, bin_width=0.01, cells=["a", "b"])
    frames = torch.zeros(60, 3, 3)
    frames[40:] = torch.randn(20, 3, 3)
    movie = movie_of(frames)
    method = rc.methods.IntegratedGradients(steps=STEPS)
    tree = rc.contributions(model, movie, layers=["1", "2"], method=method, progress=False)
    windows = frames.double().unfold(0, 4, 1).movedim(-1, 1)
    for name in ("1", "2"):
        agree(tree, name, twin(net, net.get_submodule(name)).integrated(windows, STEPS))


# Every architecture of the package


@pytest.mark.parametrize(
    ("make", "kernels"),
    [
        (rc.models.BNCNN, (3, 3)),
        (rc.models.StackedBNCNN, (3, 5)),
        (rc.models.CNN2016, (3, 3)),
        (rc.models.Retinotopic, (3, 3, 3)),
        (rc.models.CoreReadout, None),
        (rc.models.LN, None),
    ],
)
@pytest.mark.parametrize("ablated", [False, True])
def test_every_architecture(twin, make, kernels, ablated):
    given = {"kernel_sizes": kernels, "channels": (2,) * len(kernels)} if kernels else {}
    if kernels and len(kernels) == 3:
        given["channels"] = (2, 2)
    model = make((9, 9), history=4, bin_width=0.01, cells=["a", "b"], **given)
    model.network.double()
    frames = torch.randn(8, 9, 9) * 2
    window = frames[None, 2:6].double()
    method = rc.methods.IntegratedGradients(steps=3, baseline=0.1)
    if ablated:
        method = rc.methods.Ablation(baseline=0.1)
    names = model.default_layers
    tree = rc.contributions(
        model, movie_of(frames), layers=names, method=method, keep_lag=True, progress=False
    )
    assert tree.sizes["time"] == 5
    for name in names:
        literally = twin(model.network, model.layers[name])
        if ablated:
            expected = literally.ablation(window, baseline=0.1)[0][0]
        else:
            expected = literally.integrated(window, 3, baseline=0.1)[0][0]
        scale = np.abs(expected).max()
        assert scale > 1e-6
        np.testing.assert_allclose(
            tree[f"layers/{name}"]["contribution"][2], expected, rtol=1e-9, atol=1e-11 * scale
        )


# Which way the network takes


def test_a_way_that_depends_on_the_sample(right):
    a, b, c = dense(3, 4, 4, 2)

    def forward(self, x):
        h = self.a(x)
        h = torch.where(x[:, :1] > 4, h.square(), h)
        return self.c(self.b(h).tanh())

    network = network_of(forward, a=a, b=b, c=c)
    x = points(30)
    x[20:] *= 5
    right(network, x, ["b"])
    right(network, x, ["a"], allow_bypass=True)


def test_a_layer_that_inputs_far_from_the_data_leave_out(right):
    """What is tried out on the network takes another way; the data do not."""
    a, b, c = dense(3, 4, 4, 2)

    def forward(self, x):
        h = self.a(x)
        if x.abs().max() < 20:
            h = self.b(h.tanh())
        return self.c(h)

    right(network_of(forward, a=a, b=b, c=c), points(6), ["b"])


def sometimes(limit):
    a, b, c = dense(3, 4, 4, 2)

    def forward(self, x):
        h = self.a(x)
        if x.abs().max() < limit:
            h = self.b(h.tanh())
        return self.c(h)

    return network_of(forward, a=a, b=b, c=c)


def test_a_layer_that_does_not_always_run():
    x = points(40)
    x[20] *= 100
    with pytest.raises(ValueError, match="'b' does not run at every point of the path"):
        decomposed(sometimes(20.0), x, "b", batch_size=10, allow_bypass=True)


@pytest.mark.parametrize("limit", [0.05, 0.5])
def test_a_way_that_depends_on_the_batch_is_refused(limit):
    with pytest.raises(ValueError, match="other outputs for a sample when it is alone than in a b"):
        decomposed(sometimes(limit), points(), "a", baseline=0.0)


def test_samples_that_see_each_other_are_refused():
    a, b = dense(3, 4, 2)

    def forward(self, x):
        h = self.a(x)
        return self.b((h - h.mean(0)).tanh())

    with pytest.raises(ValueError, match="other outputs for a sample when it is alone than in a b"):
        decomposed(network_of(forward, a=a, b=b), points(), "a")


# What the network is in when it is given


@pytest.mark.parametrize("noise", ["functional", "always"])
def test_a_network_with_dropout_on_is_refused_and_draws_nothing(noise):
    a, b = dense(3, 40, 2)

    def forward(self, x):
        h = nn.functional.dropout(self.a(x)) if noise == "functional" else self.a(x)
        return self.b(h + torch.randn_like(h) if noise == "always" else h)

    network = network_of(forward, a=a, b=b)
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match="other outputs when it runs again on the same input"):
        decomposed(network, points(), "a")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_in_a_mode_without_gradients(right, mode):
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), *dense(4, 2)).double()
    plain = decomposed(network, points(), ["0", "1"])
    with mode():
        x = points() + 0.0  # made inside
        tree = decomposed(network, x, ["0", "1"])
        assert not torch.is_grad_enabled()
    for name in "01":
        np.testing.assert_array_equal(
            tree[f"layers/{name}"]["contribution"], plain[f"layers/{name}"]["contribution"]
        )


def test_channels_last(right):
    network = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 2), nn.Flatten(), *dense(18, 2)
    )
    network = network.double().to(memory_format=torch.channels_last)
    x = images().contiguous(memory_format=torch.channels_last)
    right(network, x, ["0", "1", "2"])
    method = rc.methods.Ablation(baseline=0.1)
    found, plain = (
        rc.contributions(network, given, layers=["0", "2"], method=method, progress=False)
        for given in (x, x.contiguous())
    )
    for name in "02":
        ours, theirs = (tree[f"layers/{name}"]["contribution"] for tree in (found, plain))
        assert np.abs(ours).max() > 0.01
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-14)


def test_single_precision_and_parameters_without_gradients(twin):
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), *dense(4, 2)).double()
    found, *_ = twin(network, network[0]).integrated(points(), STEPS, baseline=0.1)
    assert not any(parameter.requires_grad for parameter in network.parameters())  # by the twin
    tree = decomposed(network.float(), points(), "0")
    assert tree["layers/0"]["contribution"].dtype == np.float32
    np.testing.assert_allclose(tree["layers/0"]["contribution"], found, rtol=1e-4, atol=1e-6)
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize(
    "method",
    [
        rc.methods.IntegratedGradients(steps=8),
        rc.methods.ActivationGradient(),
        rc.methods.NormalizedGradient(),
        rc.methods.SmoothGradient(n_samples=2),
        rc.methods.Ablation(),
    ],
    ids=lambda method: type(method).__name__,
)
def test_half_precision_says_its_error(method):
    network = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 2), nn.Tanh(), nn.Flatten(), *dense(18, 2)
    )
    x = images(8).float()

    def found(precision):
        return rc.contributions(
            network,
            x,
            layers=["0", "2"],
            method=method,
            precision=precision,
            extras=("activation", "gradient"),
            progress=False,
        )

    coarse, fine = found("bfloat16"), found("model")
    told = json.loads(coarse.attrs["parameters"])["precision_error"]
    errors = []
    for name in ("0", "2"):
        one, other = (tree[f"layers/{name}"]["contribution"].values for tree in (coarse, fine))
        errors.append(np.abs(one - other).max() / np.abs(other).max())
        assert one.dtype == np.float32
    assert told == pytest.approx(max(errors), rel=1e-5)
    assert 1e-4 < told < 0.2
    np.testing.assert_allclose(
        coarse["layers/2"]["activation"], fine["layers/2"]["activation"], atol=0.05
    )
    assert "precision_error" not in json.loads(fine.attrs["parameters"])


class Broken(nn.Module):
    """Raises at the n-th time it runs."""

    def __init__(self, inner, n):
        super().__init__()
        self.inner, self.n, self.calls = inner, n, 0

    def forward(self, x):
        self.calls += 1
        if self.calls == self.n:
            raise RuntimeError("broken")
        return self.inner(x)


def state_of(network):
    return {
        name: (
            module.training,
            [*module._forward_hooks],
            [*module._forward_pre_hooks],
            [*module._backward_hooks],
            "forward" in vars(module),
            [(p.requires_grad, p.grad) for p in module.parameters(recurse=False)],
        )
        for name, module in network.named_modules()
    }


@pytest.mark.parametrize(
    "method",
    [rc.methods.IntegratedGradients(steps=3), rc.methods.Ablation()],
    ids=["integrated", "ablation"],
)
def test_nothing_is_left_wherever_the_network_raises(method):
    a, b = dense(3, 4, 2)
    n, done = 1, False
    while not done:
        middle = Broken(nn.Tanh(), n)
        network = nn.Sequential(a, middle, nn.Dropout(0.5), b).double().train()
        a.register_forward_hook(lambda m, args, output: output * 2)
        a.weight.requires_grad_(False)
        before, random = state_of(network), torch.get_rng_state()
        try:
            rc.contributions(network, points(), layers="0", method=method, progress=False)
        except RuntimeError as error:
            assert str(error) == "broken"
        assert state_of(network) == before
        assert torch.equal(torch.get_rng_state(), random)
        assert torch.is_grad_enabled()
        done = middle.calls < n  # or a trial of the engine's own, that may fail
        n += 1
    assert n > 20


def test_a_reference_is_not_changed_by_a_network_that_works_in_place():
    a, b = dense(3, 4, 2)
    network = nn.Sequential(nn.LeakyReLU(0.3, inplace=True), a, nn.Tanh(), b).double()
    x = points()
    decomposed(network, x, "1", target=rc.targets.Surprisal())
    assert torch.equal(x, points())
