"""Contributions against closed forms, a slow literal twin, Captum, and what must not change."""

import numpy as np
import pytest
import torch
import xarray as xr
from captum.attr import LayerConductance
from torch import nn

import retina_codec as rc
from retina_codec._common.time import block_coordinate, time_coordinate


def literal(network, layer, inputs, steps, baseline=0.0, rule=(0.5, 0.5)):
    """Contributions of every unit of `layer` to every output, as the formula is written."""
    start = torch.full_like(inputs, baseline)
    activations, gradients, outputs = [], [], []
    for k in range(steps + 1):
        x = start + k / steps * (inputs - start)
        kept = []
        handle = layer.register_forward_hook(lambda m, i, o, kept=kept: kept.append(o) or o.clone())
        y = network(x.requires_grad_())
        handle.remove()
        rows = [
            torch.autograd.grad(y[:, c].sum(), kept[0], retain_graph=True)[0]
            for c in range(y.shape[1])
        ]
        activations.append(kept[0].detach())
        gradients.append(torch.stack(rows, 1))
        outputs.append(y.detach())
    total = sum(
        (rule[0] * gradients[k] + rule[1] * gradients[k + 1])
        * (activations[k + 1] - activations[k])[:, None]
        for k in range(steps)
    )
    return total.numpy(), outputs[0].numpy(), outputs[-1].numpy()


class Net(nn.Module):
    """In-place ReLUs, and one module used twice."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(3, 4, 3)
        self.dense = nn.Linear(4 * 4, 3)
        self.unused = nn.Linear(1, 1)

    def forward(self, x):
        x = self.relu(self.norm(self.conv1(x)))
        x = self.relu(self.conv2(x))
        return nn.functional.softplus(self.dense(x.flatten(1)))


@pytest.fixture
def net():
    torch.manual_seed(0)
    network = Net().double()
    with torch.no_grad():
        network.norm.running_mean.normal_()
        network.norm.running_var.uniform_(0.5, 2)
        network.dense.weight *= 5  # so that the outputs move
    return network.eval()


@pytest.fixture
def images():
    return torch.randn(7, 2, 6, 6, dtype=torch.double, generator=torch.manual_seed(1))


LAYERS = ["conv1", "norm", "conv2"]


@pytest.mark.parametrize("rule", ["trapezoid", "left", "right"])
@pytest.mark.parametrize("baseline", [0.0, 0.7])
def test_equals_the_literal_formula(net, images, rule, baseline):
    weights = {"trapezoid": (0.5, 0.5), "left": (1, 0), "right": (0, 1)}[rule]
    method = rc.methods.IntegratedGradients(steps=9, baseline=baseline, rule=rule)
    tree = rc.contributions(
        net, images, layers=LAYERS, method=method, target=rc.targets.Output(), progress=False
    )
    for layer in LAYERS:
        twin, first, last = literal(net, getattr(net, layer), images, 9, baseline, weights)
        ours = tree[f"layers/{layer}"]
        np.testing.assert_allclose(ours["contribution"].values, twin, rtol=1e-5, atol=1e-7)
        error = twin.sum((2, 3, 4)) - (last - first)
        np.testing.assert_allclose(ours["completeness_error"].values, error, atol=1e-6)
        np.testing.assert_allclose(tree["target"].values, last, rtol=1e-6)
        np.testing.assert_allclose(tree["target_baseline"].values, first, rtol=1e-6)
        assert np.abs(last - first).max() > 0.1  # the target really changed


@pytest.mark.parametrize("layer", LAYERS)
def test_left_rule_is_captums_conductance(net, images, layer):
    """Captum's trapezoid visits nodes 0 to 1 and its conductance sums with a left rule."""
    steps = 12
    method = rc.methods.IntegratedGradients(steps=steps, rule="left")
    ours = rc.contributions(
        net, images, layers=layer, method=method, target=rc.targets.Output("1"), progress=False
    )
    theirs = LayerConductance(net, getattr(net, layer)).attribute(
        images, baselines=0.0, target=1, n_steps=steps, method="riemann_trapezoid"
    )
    np.testing.assert_allclose(
        ours[f"layers/{layer}"]["contribution"].values[:, 0],
        theirs.detach().numpy(),
        rtol=1e-4,
        atol=1e-6,
    )


def test_by_hand_on_a_net_without_nonlinearity():
    network = nn.Sequential(nn.Linear(2, 3, bias=True), nn.Linear(3, 2)).double()
    x = torch.tensor([[1.0, -2.0]], dtype=torch.double)
    tree = rc.contributions(
        network,
        x,
        layers="0",
        target=rc.targets.Output(),
        progress=False,
        method=rc.methods.IntegratedGradients(steps=1),
    )
    hidden = network[0].weight.detach() @ x[0]  # the bias cancels: it is there at the baseline too
    expected = network[1].weight.detach() * hidden
    found = tree["layers/0"]["contribution"].values[0]
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-6)


def test_by_hand_on_a_relu():
    """max(0, a + b): the unit's whole change passes through it."""
    network = nn.Sequential(nn.Linear(2, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False))
    network = network.double()
    with torch.no_grad():
        network[0].weight[:] = 1.0
        network[2].weight[:] = 3.0
    x = torch.tensor([[1.0, 2.0], [1.0, -4.0]], dtype=torch.double)
    tree = rc.contributions(network, x, layers="1", progress=False)
    np.testing.assert_allclose(tree["layers/1"]["contribution"].values[:, 0, 0], [9, 0], rtol=1e-12)
    np.testing.assert_allclose(tree["layers/1"]["completeness_error"].values, 0, atol=1e-9)


def test_residual_falls_with_steps_and_is_smaller_after_the_relu(net, images):
    def worst(layer, steps):
        tree = rc.contributions(
            net,
            images,
            layers=layer,
            target=rc.targets.Output(),
            method=rc.methods.IntegratedGradients(steps=steps),
            progress=False,
        )
        return float(np.abs(tree[f"layers/{layer}"]["completeness_error"]).max())

    assert worst("conv1", 160) < worst("conv1", 20) / 5
    assert worst("conv2", 20) < worst("conv1", 20)


def test_same_before_and_after_an_elementwise_map(net, images):
    method = rc.methods.IntegratedGradients(steps=400)
    tree = rc.contributions(net, images, layers=["conv1", "norm"], method=method, progress=False)
    before, after = (tree[f"layers/{name}"]["contribution"].values for name in ("conv1", "norm"))
    np.testing.assert_allclose(before, after, atol=2e-6)


def test_sign_before_space(net, images):
    whole = rc.contributions(net, images, layers=LAYERS, progress=False)
    split = rc.contributions(
        net, images, layers=LAYERS, split_sign=True, sum_over=("y", "x"), progress=False
    )
    for layer in LAYERS:
        maps, sums = (tree[f"layers/{layer}"]["contribution"] for tree in (whole, split))
        assert sums.dims == ("sample", "output", "sign", "channel")
        positive = maps.clip(min=0).sum(("y", "x"))
        np.testing.assert_allclose(sums.sel(sign="positive"), positive, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(sums.sum("sign"), maps.sum(("y", "x")), rtol=1e-4, atol=1e-6)
        assert (sums.sel(sign="negative") <= 0).all()
        assert float(sums.sel(sign="negative").min()) < 0


def test_targets(net, images):
    outputs = net(images).detach()
    each = rc.contributions(net, images, layers="norm", progress=False)
    added = rc.contributions(net, images, layers="norm", target=rc.targets.Sum(), progress=False)
    contribution = each["layers/norm"]["contribution"]
    np.testing.assert_allclose(
        added["layers/norm"]["contribution"], contribution.sum("output"), rtol=1e-4, atol=1e-7
    )
    assert added["target"].dims == ("sample",)

    best = outputs.argmax(1).numpy()
    top = rc.contributions(net, images, layers="norm", target=rc.targets.TopK(1), progress=False)
    chosen = contribution.isel(output=xr.DataArray(best, dims="sample"))
    np.testing.assert_allclose(top["layers/norm"]["contribution"], chosen, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(top["target"], outputs.max(1).values, rtol=1e-6)

    soft = rc.contributions(
        net, images, layers="norm", target=rc.targets.TopK(2, softmax=True), progress=False
    )
    expected = outputs.softmax(1).topk(2).values.sum(1)
    np.testing.assert_allclose(soft["target"], expected, rtol=1e-6)


def test_activation_gradient(net, images):
    tree = rc.contributions(
        net,
        images,
        layers="conv2",
        method=rc.methods.ActivationGradient(),
        target=rc.targets.Output("0"),
        progress=False,
    )
    kept = []
    handle = net.conv2.register_forward_hook(lambda m, i, o: kept.append(o) or o.clone())
    out = net(images.requires_grad_())
    handle.remove()
    (gradient,) = torch.autograd.grad(out[:, 0].sum(), kept[0])
    np.testing.assert_allclose(
        tree["layers/conv2"]["contribution"][:, 0],
        (gradient * kept[0]).detach(),
        rtol=1e-5,
        atol=1e-8,
    )


def movie_model():
    torch.manual_seed(3)
    return rc.models.BNCNN(
        (9, 9), history=5, bin_width=0.01, cells=["a", "b"], mean=0.2, sd=1.5, kernel_sizes=(3, 3)
    )


def movie_of(n=60):
    values = np.random.default_rng(0).normal(size=(n, 9, 9)).astype(np.float32)
    coords = {
        "time": time_coordinate(np.arange(n) * 0.01, 0.01),
        "y": np.arange(9),
        "x": np.arange(9),
        "block": block_coordinate(np.repeat([0, 1], [n // 2, n - n // 2])),
    }
    return xr.DataArray(values, dims=("time", "y", "x"), coords=coords)


def test_movie_equals_the_literal_formula_on_windows():
    model, movie = movie_model(), movie_of()
    method = rc.methods.IntegratedGradients(steps=6)
    tree = rc.contributions(
        model,
        movie,
        layers=["conv1", "relu1", "relu2"],
        method=method,
        progress=False,
        batch_size=16,
    )
    frames = torch.from_numpy((movie.values - 0.2) / 1.5)
    network = model.network
    t = 20  # a frame of the first block, by itself
    for name in ("conv1", "relu1", "relu2"):
        twin, first, last = literal(network, model.layers[name], frames[None, t - 4 : t + 1], 6)
        ours = tree[f"layers/{name}"]["contribution"].sel(time=movie["time"].values[t])
        np.testing.assert_allclose(ours.values, twin[0], rtol=2e-3, atol=2e-4)
        assert np.abs(last - first).max() > 0.05
    assert tree.sizes["time"] == 60 - 2 * 4
    assert set(tree["block"].values) == {0, 1}
    np.testing.assert_array_equal(tree["time"].values[:26], movie["time"].values[4:30])
    assert tree["time"].attrs == movie["time"].attrs


def test_batches_do_not_matter():
    model, movie = movie_model(), movie_of()
    one, many = (
        rc.contributions(model, movie, batch_size=size, progress=False) for size in (7, 1000)
    )
    for layer in ("relu1", "relu2"):
        np.testing.assert_allclose(
            one[f"layers/{layer}"]["contribution"],
            many[f"layers/{layer}"]["contribution"],
            rtol=1e-3,
            atol=1e-4,
        )


def test_the_affine_front_is_not_computed_at_each_step():
    model, movie = movie_model(), movie_of()
    calls: list[int] = []
    original = type(model.layers["conv1"]).forward

    def counted(self, x):
        calls.append(1)
        return original(self, x)

    def calls_with(steps):
        calls.clear()
        method = rc.methods.IntegratedGradients(steps=steps)
        rc.contributions(model, movie, method=method, progress=False, batch_size=1000)
        return len(calls)

    type(model.layers["conv1"]).forward = counted
    try:
        assert calls_with(50) == calls_with(5)
    finally:
        type(model.layers["conv1"]).forward = original


@pytest.mark.parametrize("fails", [False, True])
def test_the_network_is_as_before(net, images, fails):
    net.train()
    net.norm.eval()
    net.conv1.weight.requires_grad_(False)
    net.dense.weight.grad = torch.ones_like(net.dense.weight)
    modes = {name: module.training for name, module in net.named_modules()}
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    if fails:

        class Broken(nn.Module):
            def __init__(self, inner):
                super().__init__()
                self.inner = inner
                self.calls = 0

            def forward(self, x):
                self.calls += 1
                if self.calls > 8:
                    raise RuntimeError("broken")
                return self.inner(x)

        with pytest.raises(RuntimeError, match="broken"):
            rc.contributions(Broken(net), images, layers="inner.conv2", progress=False)
    else:
        rc.contributions(net, images, layers=["conv1", "conv2"], progress=False)
    assert torch.equal(torch.rand(2), expected)
    for name, module in net.named_modules():
        assert module.training == modes[name]
        assert not module._forward_hooks
        assert not module._backward_hooks
        assert "forward" not in vars(module)
    assert not net.conv1.weight.requires_grad
    assert net.conv2.weight.requires_grad
    assert net.conv2.weight.grad is None
    assert torch.equal(net.dense.weight.grad, torch.ones_like(net.dense.weight))
    for name, value in net.state_dict().items():
        assert torch.equal(value, weights[name])


@pytest.mark.parametrize("suffix", [".zarr", ".nc"])
def test_any_group_of_a_store_opens_by_plain_xarray(tmp_path, suffix, recwarn):
    import warnings

    tree = rc.contributions(movie_model(), movie_of(), progress=False, split_sign=True)
    path = rc.save_tree(tree, tmp_path / f"contributions{suffix}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine = "zarr" if suffix == ".zarr" else "h5netcdf"
        alone = xr.open_dataset(path, group="layers/relu1", engine=engine)
        assert {"time", "cell", "block"} <= set(alone.coords)
        opened = rc.open_contributions(path)
    for group in ("/", "layers/relu1", "layers/relu2"):
        xr.testing.assert_identical(opened[group].to_dataset().load(), tree[group].to_dataset())
        alone.close()
    assert opened["time"].attrs["bin_width"] == 0.01


class TestBadInput:
    def test_unknown_layer(self, net, images):
        with pytest.raises(ValueError, match=r"no layer 'conv_2'; did you mean 'conv2'\?"):
            rc.contributions(net, images, layers="conv_2", progress=False)

    def test_module_used_twice(self, net, images):
        with pytest.raises(ValueError, match="layer 'relu' runs more than once"):
            rc.contributions(net, images, layers="relu", progress=False)

    def test_layer_that_does_not_run(self, net, images):
        with pytest.raises(ValueError, match="layer 'unused' does not run in the forward pass"):
            rc.contributions(net, images, layers="unused", progress=False)

    @pytest.mark.parametrize("cut", [True, False])
    def test_layer_without_a_path_to_the_output(self, images, cut):
        class SideBranch(nn.Module):
            def __init__(self):
                super().__init__()
                self.main = nn.Linear(72, 3)
                self.side = nn.Linear(72, 4)

            def forward(self, x):
                side = self.side(x.flatten(1))
                out = self.main(x.flatten(1))
                return out if cut else out + side.detach()[:, :3] * out

        layers = ["side"] if cut else ["side", "main"]
        with pytest.raises(ValueError, match="layer 'side' does not cut the network"):
            rc.contributions(SideBranch().double(), images, layers=layers, progress=False)
        with pytest.raises(ValueError, match=r"'side' ha(s|ve) no path to the output"):
            rc.contributions(
                SideBranch().double(), images, layers=layers, progress=False, allow_bypass=True
            )

    def test_unknown_target(self, net, images):
        with pytest.raises(ValueError, match="target: no output '7'"):
            rc.contributions(net, images, layers="conv1", target=rc.targets.Output("7"))

    def test_too_many_for_top_k(self, net, images):
        with pytest.raises(ValueError, match="k=9 of 3 outputs"):
            rc.contributions(net, images, layers="conv1", target=rc.targets.TopK(9))

    def test_unknown_dim(self, net, images):
        with pytest.raises(ValueError, match="sum_over='z' is not known"):
            rc.contributions(net, images, layers="conv1", sum_over="z")

    def test_zero_steps(self):
        with pytest.raises(ValueError, match="steps=0; expected a number of at least 1"):
            rc.methods.IntegratedGradients(steps=0)

    def test_unknown_rule(self):
        with pytest.raises(ValueError, match=r"rule='simpson' is not known; .*trapezoid"):
            rc.methods.IntegratedGradients(rule="simpson")

    def test_nan(self, net, images):
        images[3, 0, 0, 0] = torch.nan
        with pytest.raises(ValueError, match="first in sample 3"):
            rc.contributions(net, images, layers="conv1")

    def test_too_large(self, net, images):
        with pytest.raises(ValueError, match=r"above memory_limit=1000: use sum_over="):
            rc.contributions(net, images, layers="conv1", memory_limit=1000)

    def test_not_a_method(self, net, images):
        with pytest.raises(TypeError, match=r"method='ig'; expected one of retina_codec.methods"):
            rc.contributions(net, images, layers="conv1", method="ig")

    def test_not_a_target(self, net, images):
        with pytest.raises(TypeError, match=r"target='each'; expected one of retina_codec.targets"):
            rc.contributions(net, images, layers="conv1", target="each")

    def test_store_of_something_else(self, tmp_path):
        rc.save_tree(xr.Dataset({"a": 1}), tmp_path / "a.nc")
        with pytest.raises(ValueError, match="holds no contributions"):
            rc.open_contributions(tmp_path / "a.nc")
        with pytest.raises(FileNotFoundError, match="does not exist"):
            rc.open_contributions(tmp_path / "b.nc")
