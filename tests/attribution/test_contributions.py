"""Properties of contributions: what must hold, what must not change, and what is refused."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import retina_codec as rc
from retina_codec._common.time import block_coordinate, time_coordinate


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


def test_labels_and_baselines_are_told_by_tensors(net, images):
    labels = torch.tensor([0, 2, 1, 1, 0, 2, 2])
    baseline = torch.randn(2, 6, 6, dtype=torch.double)
    kinds = [(labels, baseline), (labels.numpy(), baseline.numpy()), (labels.tolist(), baseline)]
    first, *others = [
        rc.contributions(
            net,
            images,
            layers="conv1",
            target=rc.targets.PerSample(one),
            method=rc.methods.IntegratedGradients(steps=3, baseline=x0),
            progress=False,
        )
        for one, x0 in kinds
    ]
    each = net(images).detach().numpy()
    np.testing.assert_allclose(first["target"], each[np.arange(7), labels.numpy()], rtol=1e-12)
    assert "baseline=array(2, 6, 6) " in first.attrs["parameters"]
    for other in others:
        xr.testing.assert_identical(
            first["layers/conv1"].to_dataset(), other["layers/conv1"].to_dataset()
        )


def test_an_output_is_named_by_a_number(net, images):
    trees = [
        rc.contributions(
            net, images, layers="conv1", target=rc.targets.Output(name), progress=False
        )
        for name in (2, "2", ["2"])
    ]
    for tree in trees:
        assert tree["output"].values.tolist() == ["2"]
        np.testing.assert_array_equal(tree["target"], trees[0]["target"])


def test_samples_of_a_movie_are_its_windows(twin):
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
    t = 20  # a frame of the first block, by itself
    for name in ("conv1", "relu1", "relu2"):
        literally = twin(model.network, model.layers[name])
        expected, last, first = literally.integrated(frames[None, t - 4 : t + 1], 6)
        ours = tree[f"layers/{name}"]["contribution"].sel(time=movie["time"].values[t])
        np.testing.assert_allclose(ours.values, expected[0], rtol=2e-3, atol=2e-4)
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


class Repeated(nn.Module):
    """One number, as many outputs."""

    def __init__(self, n):
        super().__init__()
        self.n = n

    def forward(self, x):
        return x.sum(1, keepdim=True).expand(-1, self.n)


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

    def test_nan_in_a_movie(self):
        movie = movie_of()
        movie[17, 2, 3] = np.nan
        with pytest.raises(ValueError, match="NaN or infinite values, the first in frame 17"):
            rc.contributions(movie_model(), movie, progress=False)

    def test_blocks_shorter_than_the_history(self):
        movie = movie_of(8)
        with pytest.raises(ValueError, match=r"no block of at least history=5 frames .* has 4\)"):
            rc.contributions(movie_model(), movie, progress=False)

    @pytest.mark.parametrize(
        ("target", "message"),
        [
            (rc.targets.PerSample([0, 1]), r"labels has shape \(2,\); .* each of 7 samples"),
            (rc.targets.PerSample([0] * 6 + [3]), "label 3 of sample 6 is out of range; .* 0 to 2"),
            (rc.targets.PerSample([-1] + [0] * 6), "label -1 of sample 0 is out of range"),
            (rc.targets.PerSample(["0"] * 6 + ["x"]), "target: no output 'x'; choices: 0, 1, 2"),
            (rc.targets.Output(["0", "x"]), "target: no output 'x'; choices: 0, 1, 2"),
            (rc.targets.Output(7), "target: no output 7; choices: 0, 1, 2"),
            (rc.targets.Output([]), "target: names is empty; choose from 0, 1, 2"),
            (rc.targets.Output(["0", "2", "0"]), "has an output twice"),
            (
                rc.targets.PerSample(
                    xr.DataArray([0] * 7, dims="sample", coords={"sample": np.arange(1, 8)})
                ),
                "labels has other coordinates along 'sample' than the samples",
            ),
            (rc.targets.Surprisal(torch.zeros(3, 2, 6, 6)), "outputs do not vary over the refer"),
            (rc.targets.Surprisal(torch.ones(1, 2, 6, 6)), "reference has fewer than two samples"),
            (
                rc.targets.Surprisal(torch.randn(2, 2, 6, 6), regularization=0),
                "covariance of the 3 outputs over 2 samples cannot be inverted",
            ),
        ],
    )
    def test_targets(self, net, images, target, message):
        with pytest.raises(ValueError, match=message):
            rc.contributions(net, images, layers="conv1", target=target, progress=False)

    def test_contrast_of_one_output(self):
        network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        with pytest.raises(ValueError, match="Contrast needs at least two outputs"):
            rc.contributions(network, torch.randn(4, 3), target=rc.targets.Contrast())

    def test_nan_outputs(self):
        network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        nn.init.constant_(network[2].bias, np.nan)
        with pytest.raises(ValueError, match="model gives NaN or infinite outputs"):
            rc.contributions(network, torch.randn(4, 3), layers="1", progress=False)

    def test_too_large(self, net, images):
        with pytest.raises(ValueError, match=r"above memory_limit=1000: use sum_over="):
            rc.contributions(net, images, layers="conv1", memory_limit=1000)

    def test_too_large_to_be_allocated(self):
        """The advice is given before numpy is asked for 20 TB."""
        network = nn.Sequential(nn.Linear(1, 10**4), nn.ReLU(), Repeated(10**4))
        with pytest.raises(ValueError, match=r"run[.]zarr' to stream it to disk"):
            rc.contributions(network, torch.ones(50_000, 1), layers="1", progress=False)

    @pytest.mark.parametrize("dim", ["channel", "y", "sign", "output"])
    def test_samples_along_a_dim_of_the_result(self, net, images, dim):
        named = xr.DataArray(images.numpy(), dims=(dim, "color", "row", "column"))
        with pytest.raises(ValueError, match=f"sample_dim='{dim}' is the name of another dim"):
            rc.contributions(net, named, layers="conv1", progress=False)
        if dim != "output":
            with pytest.raises(ValueError, match=f"output_dim='{dim}' is the name of another dim"):
                rc.contributions(net, images, layers="conv1", output_dim=dim, progress=False)

    def test_a_slash_in_the_name_of_a_layer(self):
        net = nn.Sequential(nn.Flatten(), nn.Linear(5 * 36, 4), nn.ReLU(), nn.Linear(4, 2))
        model = rc.models.from_module(
            net, history=5, bin_width=0.01, cells=["a", "b"], layers={"front/relu": net[2]}
        )
        with pytest.raises(ValueError, match="layer 'front/relu' has a slash in its name"):
            rc.contributions(model, movie_of(), layers="front/relu", progress=False)

    def test_no_samples(self, net, images):
        with pytest.raises(ValueError, match=r"data has shape \(0, 2, 6, 6\); .* at least one"):
            rc.contributions(net, images[:0], layers="conv1", progress=False)
        with pytest.raises(ValueError, match=r"no block of at least history=5 frames .* has 0\)"):
            rc.contributions(movie_model(), movie_of()[:0], progress=False)

    def test_complex_data(self, net, images):
        with pytest.raises(ValueError, match="data is complex; expected real numbers"):
            rc.contributions(net, images.to(torch.cdouble), layers="conv1", progress=False)

    @pytest.mark.parametrize("baseline", ["mean", [[0.0], [0.0, 1.0]], object()])
    def test_a_baseline_that_is_no_number(self, net, images, baseline):
        method = rc.methods.IntegratedGradients(baseline=baseline)
        with pytest.raises(ValueError, match="expected a number or an array of numbers"):
            rc.contributions(net, images, layers="conv1", method=method, progress=False)

    def test_best_of_a_method_to_which_places_are_not_the_same(self, net, images):
        with pytest.raises(ValueError, match="is for IntegratedGradients; Ablation does not"):
            rc.contributions(
                net, images, layers="conv1", collect="best", method=rc.methods.Ablation()
            )

    def test_not_a_model(self, images):
        with pytest.raises(TypeError, match=r"model is a str; expected a retina_codec[.]Model"):
            rc.contributions("simulated_bncnn", images)

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
