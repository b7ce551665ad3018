"""Every method with every target against a slow literal twin in double precision, and Captum."""

import json

import numpy as np
import pytest
import torch
import xarray as xr
from captum.attr import LayerConductance, LayerFeatureAblation, LayerGradientXActivation
from torch import nn

import retina_codec as rc
from retina_codec._common.time import block_coordinate, time_coordinate
from retina_codec.attribution.local import noise_of

LAYERS = ["conv1", "norm", "conv2"]


class Net(nn.Module):
    """In-place ReLUs, one of them used twice, and outputs that are not linear in them."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(3, 2, 2)
        self.dense = nn.Linear(2 * 2 * 2, 4)

    def forward(self, x):
        x = self.relu(self.norm(self.conv1(x)))
        x = self.relu(self.conv2(x))
        return nn.functional.softplus(self.dense(x.flatten(1)))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    network = Net().double()
    with torch.no_grad():
        network.norm.running_mean.normal_()
        network.norm.running_var.uniform_(0.5, 2)
        network.conv2.weight *= 2
        network.dense.weight *= 6  # so that the outputs move
    return network.eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 2, 5, 5, dtype=torch.double, generator=torch.Generator().manual_seed(1))


def outputs_of(net, images):
    with torch.no_grad():
        return net(images).numpy()


# Targets: the package's, and the twin's score(y, fixed) and choose(y, sample).


def ranked(y, k):
    return sorted(range(len(y)), key=lambda i: -float(y[i].detach()))[:k]


def probabilities(y):
    powers = [torch.exp(v) for v in y]
    return [p / sum(powers) for p in powers]


def largest(k, softmax=False, follow=False):
    def score(y, fixed):
        numbers = probabilities(y) if softmax else y
        return [sum(numbers[i] for i in (ranked(y, k) if follow else fixed))]

    return score, lambda y, i: ranked(y, k)


def given(labels, softmax=False):
    def score(y, fixed):
        return [(probabilities(y) if softmax else y)[fixed]]

    return score, lambda y, i: int(labels[i])


def surprisal(reference, regularization=1e-3):
    mu = torch.from_numpy(reference.mean(0))
    sigma = np.cov(reference.T, bias=True)
    sigma = sigma + regularization * np.diag(sigma).mean() * np.eye(len(sigma))
    inverse = torch.from_numpy(np.linalg.inv(sigma))
    return (lambda y, fixed: [0.5 * (y - mu) @ inverse @ (y - mu)]), lambda y, i: None


def entropy(y, fixed):
    return [-sum(p * torch.log(p) for p in probabilities(y))]


LABELS = [2, 0, 3]


def elsewhere():
    return torch.randn(9, 2, 5, 5, dtype=torch.double, generator=torch.Generator().manual_seed(8))


def target_pairs(net, images):
    none = lambda y, i: None  # noqa: E731
    return {
        "each": (rc.targets.Output(), lambda y, fixed: list(y), none),
        "named": (rc.targets.Output(["3", "1"]), lambda y, fixed: [y[3], y[1]], none),
        "one": (rc.targets.Output("2"), lambda y, fixed: [y[2]], none),
        "sum": (rc.targets.Sum(), lambda y, fixed: [sum(y)], none),
        "top 1": (rc.targets.TopK(1), *largest(1)),
        "top 2": (rc.targets.TopK(2), *largest(2)),
        "top 1 of softmax": (rc.targets.TopK(1, softmax=True), *largest(1, True)),
        "top 2 of softmax": (rc.targets.TopK(2, softmax=True), *largest(2, True)),
        "top 1 followed": (rc.targets.TopK(1, follow=True), *largest(1, False, True)),
        "top 2 of softmax followed": (rc.targets.TopK(2, True, True), *largest(2, True, True)),
        "label": (rc.targets.PerSample(LABELS), *given(LABELS)),
        "name": (rc.targets.PerSample([str(i) for i in LABELS]), *given(LABELS)),
        "label of softmax": (rc.targets.PerSample(LABELS, softmax=True), *given(LABELS, True)),
        "contrast": (
            rc.targets.Contrast(),
            lambda y, fixed: [y[fixed[0]] - y[fixed[1]]],
            lambda y, i: ranked(y, 2),
        ),
        "entropy": (rc.targets.Entropy(), entropy, none),
        "surprisal": (rc.targets.Surprisal(), *surprisal(outputs_of(net, images))),
        "surprisal elsewhere": (
            rc.targets.Surprisal(elsewhere(), regularization=0.1),
            *surprisal(outputs_of(net, elsewhere()), 0.1),
        ),
    }


TARGETS = [
    "each",
    "named",
    "one",
    "sum",
    "top 1",
    "top 2",
    "top 1 of softmax",
    "top 2 of softmax",
    "top 1 followed",
    "top 2 of softmax followed",
    "label",
    "name",
    "label of softmax",
    "contrast",
    "entropy",
    "surprisal",
    "surprisal elsewhere",
]
STEPS = 4


def integrated(rule):
    return (
        rc.methods.IntegratedGradients(steps=STEPS, rule=rule, baseline=0.1),
        lambda twin, images: twin.integrated(images, STEPS, rule, 0.1),
    )


def noises(method, images):
    """Noise (copy, sample, ...): the one thing that is fed to both."""
    return [
        method.sd
        * np.stack([noise_of(method, copy, i, images.shape[1:]) for i in range(len(images))])
        for copy in range(method.n_samples)
    ]


SMOOTH = rc.methods.SmoothGradient(n_samples=3, sd=0.4, baseline=0.1, seed=3)
METHODS = {
    "trapezoid": integrated("trapezoid"),
    "left": integrated("left"),
    "right": integrated("right"),
    "midpoint": integrated("midpoint"),
    "activation x gradient": (
        rc.methods.ActivationGradient(baseline=0.1),
        lambda twin, images: twin.activation_gradient(images, 0.1),
    ),
    "normalized gradient": (
        rc.methods.NormalizedGradient(baseline=0.1),
        lambda twin, images: twin.normalized_gradient(images, 0.1),
    ),
    "smooth gradient": (
        SMOOTH,
        lambda twin, images: twin.smooth_gradient(images, noises(SMOOTH, images), 0.1),
    ),
    "ablation to baseline": (
        rc.methods.Ablation(baseline=0.1),
        lambda twin, images: twin.ablation(images, "baseline", 0.1),
    ),
    "ablation to zero": (
        rc.methods.Ablation(silence="zero", baseline=0.1),
        lambda twin, images: twin.ablation(images, "zero", 0.1),
    ),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_with_every_target_is_the_literal_formula(
    net, images, twin, agree, method, target
):
    ours, score, choose = target_pairs(net, images)[target]
    how, literally = METHODS[method]
    layers = ["conv1", "conv2"]
    tree = rc.contributions(net, images, layers=layers, target=ours, method=how, progress=False)
    for layer in layers:
        agree(tree, layer, literally(twin(net, getattr(net, layer), score, choose), images))


def test_noise_is_that_of_the_seed_whatever_the_batches(net, images):
    def found(seed, batch_size):
        method = rc.methods.SmoothGradient(n_samples=2, seed=seed)
        tree = rc.contributions(
            net, images, layers="conv1", method=method, batch_size=batch_size, progress=False
        )
        return tree["layers/conv1"]["contribution"].values

    np.testing.assert_allclose(found(0, 2), found(0, 100), rtol=1e-9, atol=1e-14)
    assert np.abs(found(0, 100) - found(1, 100)).max() > 1e-3


class TestCaptum:
    @pytest.mark.parametrize("layer", LAYERS)
    def test_left_rule_is_its_conductance(self, net, images, layer):
        """Its trapezoid visits nodes 0 to 1, and its conductance sums with a left rule.

        Eight steps, because it rounds the places of the nodes to single precision.
        """
        method = rc.methods.IntegratedGradients(steps=8, rule="left", baseline=0.25)
        ours = rc.contributions(
            net, images, layers=layer, method=method, target=rc.targets.Output("1"), progress=False
        )
        theirs = LayerConductance(net, getattr(net, layer)).attribute(
            images, baselines=0.25, target=1, n_steps=8, method="riemann_trapezoid"
        )
        expected = theirs.detach().numpy()
        assert np.abs(expected).max() > 0.1
        found = ours[f"layers/{layer}"]["contribution"].values[:, 0]
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("layer", LAYERS)
    def test_activation_gradient(self, net, images, layer):
        ours = rc.contributions(
            net,
            images,
            layers=layer,
            method=rc.methods.ActivationGradient(),
            target=rc.targets.PerSample(LABELS),
            progress=False,
        )
        theirs = LayerGradientXActivation(net, getattr(net, layer)).attribute(
            images, target=torch.tensor(LABELS)
        )
        expected = theirs.detach().numpy()
        assert np.abs(expected).max() > 0.1
        found = ours[f"layers/{layer}"]["contribution"].values
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("layer", LAYERS)
    def test_ablation(self, net, images, layer):
        kept = []
        handle = getattr(net, layer).register_forward_hook(lambda m, i, o: kept.append(o.clone()))
        with torch.no_grad():
            net(torch.full_like(images[:1], 0.2))
        handle.remove()
        ours = rc.contributions(
            net,
            images,
            layers=layer,
            method=rc.methods.Ablation(baseline=0.2),
            target=rc.targets.Output("3"),
            progress=False,
        )
        theirs = LayerFeatureAblation(net, getattr(net, layer)).attribute(
            images, layer_baselines=kept[0].expand(len(images), -1, -1, -1), target=3
        )
        expected = theirs.detach().numpy()
        assert np.abs(expected).max() > 0.1
        found = ours[f"layers/{layer}"]["contribution"].values[:, 0]
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


class TestByHand:
    def test_linear(self):
        network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)).double()
        x = torch.tensor([[1.0, -2.0], [0.3, 5.0]], dtype=torch.double)
        x0 = np.array([0.5, -1.0])
        method = rc.methods.IntegratedGradients(steps=1, baseline=x0)
        tree = rc.contributions(network, x, layers="0", method=method, progress=False)
        w, v = network[0].weight.detach().numpy(), network[1].weight.detach().numpy()
        hidden = (x.numpy() - x0) @ w.T  # the biases cancel: they are there at the baseline too
        found = tree["layers/0"]["contribution"].values
        np.testing.assert_allclose(found, v[None] * hidden[:, None], rtol=0, atol=1e-9)
        np.testing.assert_allclose(tree["layers/0"]["completeness_error"], 0, atol=1e-9)
        assert np.abs(tree["target"] - tree["target_baseline"]).max() > 0.1

    def test_after_a_relu(self):
        """max(0, a + b): the unit's whole change passes through it, in however many steps."""
        network = nn.Sequential(nn.Linear(2, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False))
        network = network.double()
        with torch.no_grad():
            network[0].weight[:] = 1.0
            network[2].weight[:] = 3.0
        x = torch.tensor([[1.0, 2.0], [1.0, -4.0]], dtype=torch.double)
        for steps in (1, 7):
            method = rc.methods.IntegratedGradients(steps=steps)
            tree = rc.contributions(network, x, layers="1", method=method, progress=False)
            found = tree["layers/1"]["contribution"].values[:, 0, 0]
            np.testing.assert_allclose(found, [9, 0], rtol=0, atol=1e-9)
            np.testing.assert_allclose(tree["layers/1"]["completeness_error"], 0, atol=1e-9)

    @pytest.mark.parametrize(
        ("rule", "expected"),
        # a from -2 to 6 in four steps, -2 0 2 4 6; the slope of the ReLU is 1 above 0 and 0 at it.
        [("trapezoid", 1 + 2 + 2), ("left", 0 + 2 + 2), ("right", 2 + 2 + 2), ("midpoint", 6)],
    )
    def test_before_a_relu(self, rule, expected):
        network = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1)).double()
        with torch.no_grad():
            network[0].weight[:], network[0].bias[:] = 1.0, 0.0
            network[2].weight[:], network[2].bias[:] = 1.0, 7.0
        x = torch.tensor([[6.0]], dtype=torch.double)
        method = rc.methods.IntegratedGradients(steps=4, baseline=-2.0, rule=rule)
        tree = rc.contributions(network, x, layers="0", method=method, progress=False)
        assert tree["layers/0"]["contribution"].item() == pytest.approx(expected, abs=1e-9)
        error = tree["layers/0"]["completeness_error"].item()
        assert error == pytest.approx(expected - 6, abs=1e-9)
        assert tree["target"].item() - tree["target_baseline"].item() == pytest.approx(6, abs=1e-9)

    def test_what_is_followed_is_not_what_is_fixed(self):
        """Outputs 2 x and 1 + x: the second is larger until x = 1, the first at the input, 3."""
        network = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 2)).double()
        with torch.no_grad():
            network[0].weight[:] = 1.0
            network[1].weight[:] = torch.tensor([[2.0], [1.0]])
            network[1].bias[:] = torch.tensor([0.0, 1.0])
        x = torch.tensor([[3.0]], dtype=torch.double)
        method = rc.methods.IntegratedGradients(steps=6, rule="midpoint")

        def found(follow):
            target = rc.targets.TopK(1, follow=follow)
            tree = rc.contributions(
                network, x, layers="0", target=target, method=method, progress=False
            )
            numbers = (tree["target"], tree["target_baseline"], tree["layers/0"]["contribution"])
            return [v.item() for v in numbers]

        assert found(False) == pytest.approx([6, 0, 6], abs=1e-9)
        assert found(True) == pytest.approx([6, 1, 1 * 1 + 2 * 2], abs=1e-9)


class TestBaseline:
    def test_array(self, net, images, twin, agree):
        baseline = torch.rand(
            2, 5, 5, dtype=torch.double, generator=torch.Generator().manual_seed(3)
        )
        method = rc.methods.IntegratedGradients(steps=3, baseline=baseline.numpy())
        tree = rc.contributions(net, images, layers="norm", method=method, progress=False)
        agree(tree, "norm", twin(net, net.norm).integrated(images, 3, baseline=baseline))

    @pytest.mark.parametrize("method", ["integrated", "ablation"])
    def test_several_are_averaged(self, net, images, twin, agree, method):
        several = torch.randn(
            3, 2, 5, 5, dtype=torch.double, generator=torch.Generator().manual_seed(4)
        )
        literally = twin(net, net.conv2)
        if method == "integrated":
            ours = rc.methods.IntegratedGradients(steps=3, baseline=xr.DataArray(several.numpy()))
            found = [literally.integrated(images, 3, baseline=one) for one in several]
        else:
            ours = rc.methods.Ablation(baseline=several.numpy())
            found = [literally.ablation(images, baseline=one) for one in several]
        tree = rc.contributions(net, images, layers="conv2", method=ours, progress=False)
        agree(tree, "conv2", [np.mean(part, 0) for part in zip(*found, strict=True)])

    def test_of_another_shape(self, net, images):
        method = rc.methods.IntegratedGradients(baseline=np.zeros((5, 5)))
        with pytest.raises(ValueError, match=r"baseline has shape \(5, 5\); expected a number, th"):
            rc.contributions(net, images, layers="norm", method=method, progress=False)

    def test_none(self, net, images):
        method = rc.methods.IntegratedGradients(baseline=np.zeros((0, 2, 5, 5)))
        with pytest.raises(ValueError, match=r"baseline has shape \(0, 2, 5, 5\)"):
            rc.contributions(net, images, layers="norm", method=method, progress=False)

    def test_with_nan(self, net, images):
        method = rc.methods.IntegratedGradients(baseline=np.nan)
        with pytest.raises(ValueError, match="baseline has NaN or infinite values"):
            rc.contributions(net, images, layers="norm", method=method, progress=False)


# Movies


HISTORY = 4


def movie_model():
    torch.manual_seed(3)
    model = rc.models.BNCNN(
        (7, 7),
        history=HISTORY,
        bin_width=0.01,
        cells=["a", "b"],
        mean=0.2,
        sd=1.5,
        kernel_sizes=(3, 3),
        channels=(2, 2),
    )
    model.network.double()
    return model


def movie_of(n=12):
    """Two blocks."""
    values = np.random.default_rng(0).normal(size=(n, 7, 7)).astype(np.float32)
    coords = {
        "time": time_coordinate(np.arange(n) * 0.01, 0.01),
        "y": np.arange(7),
        "x": np.arange(7),
        "block": block_coordinate(np.repeat([0, 1], [n // 2, n - n // 2])),
    }
    return xr.DataArray(values, dims=("time", "y", "x"), coords=coords)


def windows_of(movie):
    """Network inputs (sample, frame, y, x), none across the blocks."""
    n = movie.sizes["time"]
    frames = (torch.from_numpy(movie.values).double() - 0.2) / 1.5
    starts = [*range(n // 2 - HISTORY + 1), *range(n // 2, n - HISTORY + 1)]
    return torch.stack([frames[i : i + HISTORY] for i in starts])


@pytest.mark.parametrize(
    "name", ["trapezoid", "midpoint", "smooth", "ablation", "array", "several"]
)
def test_movies_are_the_literal_formula_on_windows(name, twin, agree):
    model, movie = movie_model(), movie_of()
    windows = windows_of(movie)
    layer = "relu2" if name == "ablation" else "conv1"
    literally = twin(model.network, model.layers[layer])
    frames = torch.randn(2, 7, 7, dtype=torch.double, generator=torch.Generator().manual_seed(4))
    if name == "smooth":
        method = rc.methods.SmoothGradient(n_samples=2, sd=0.3, baseline=-0.1)
        noise = [  # of each frame, whichever window it is seen in
            [
                0.3 * np.stack([noise_of(method, copy, i + k, (7, 7)) for k in range(HISTORY)])
                for i in range(len(windows))
            ]
            for copy in range(2)
        ]
        found = literally.smooth_gradient(windows, noise, -0.1)
    elif name == "ablation":
        method = rc.methods.Ablation(baseline=-0.1)
        found = literally.ablation(windows, baseline=-0.1)
    elif name == "array":  # one frame, shown all the time
        method = rc.methods.IntegratedGradients(steps=3, baseline=frames[0].numpy())
        found = literally.integrated(windows, 3, baseline=frames[0])
    elif name == "several":
        method = rc.methods.IntegratedGradients(steps=3, baseline=frames.numpy())
        several = [literally.integrated(windows, 3, baseline=frame) for frame in frames]
        found = [np.mean(part, 0) for part in zip(*several, strict=True)]
    else:
        method = rc.methods.IntegratedGradients(steps=3, baseline=-0.1, rule=name)
        found = literally.integrated(windows, 3, name, -0.1)
    for batch_size in (None, 2):
        tree = rc.contributions(
            model, movie, layers=layer, method=method, batch_size=batch_size, progress=False
        )
        agree(tree, layer, found)


# To a tolerance


def least_steps(literally, xs, first, accepted, baseline=0.0, most=640):
    """Steps that each sample needs, each looked at by itself."""
    needed = []
    for i in range(len(xs)):
        steps = first
        while True:
            c, top, bottom = literally.integrated(xs[i : i + 1], steps, baseline=baseline)
            error = c.sum(axis=tuple(range(2, c.ndim))) - (top - bottom)
            if np.all(np.abs(error) <= accepted) or 2 * steps > most:
                break
            steps *= 2
        needed.append(steps)
    return needed


def bent():
    """Tanh units: far from zero they need many steps."""
    network = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    torch.manual_seed(2)
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(6, 2, dtype=torch.double)
    x[1::2] *= 6
    return network, x


@pytest.mark.parametrize("baseline", [0.3, [[0.3, 0.3], [-4.0, 6.0]]])
def test_steps_double_for_the_samples_that_need_them(twin, agree, baseline):
    network, x = bent()
    literally = twin(network, network[0])
    sd = network(x).detach().numpy().std(0)
    several = [torch.tensor(x0, dtype=torch.double) for x0 in np.atleast_1d(baseline)]
    needed = [least_steps(literally, x, 2, 0.01 * sd, x0) for x0 in several]
    method = rc.methods.IntegratedGradients(steps=2, tolerance=0.01, baseline=baseline)
    tree = rc.contributions(network, x, layers="0", method=method, progress=False)
    np.testing.assert_array_equal(tree["steps"], np.max(needed, 0))
    assert len(set(np.max(needed, 0))) > 2
    found = [
        literally.integrated(x, steps, baseline=x0)
        for steps, x0 in zip(needed, several, strict=True)
    ]
    agree(tree, "0", [np.mean(part, 0) for part in zip(*found, strict=True)])
    assert tree["steps"].dims == ("sample",)
    assert tree["steps"].attrs["units"] == "1"


def test_a_tolerance_of_several_layers_is_that_of_the_worst(twin):
    """The layer after the Tanh needs one step; the one before it decides."""
    network, x = bent()
    method = rc.methods.IntegratedGradients(steps=2, tolerance=0.01)
    both, first, last = (
        rc.contributions(network, x, layers=layers, method=method, progress=False)["steps"].values
        for layers in (["0", "1"], "0", "1")
    )
    np.testing.assert_array_equal(both, first)
    np.testing.assert_array_equal(last, 2)


def test_a_tolerance_on_movies(twin, agree):
    model, movie = movie_model(), movie_of()
    movie[{"time": slice(3, 8)}] *= 4
    windows = windows_of(movie)
    layer = model.layers["conv1"]
    literally = twin(model.network, layer)
    sd = model.network(windows).detach().numpy().std(0)
    needed = least_steps(literally, windows, 1, 0.1 * sd)
    assert len(set(needed)) > 2
    for batch_size in (None, 2):
        method = rc.methods.IntegratedGradients(steps=1, tolerance=0.1)
        tree = rc.contributions(
            model, movie, layers="conv1", method=method, batch_size=batch_size, progress=False
        )
        np.testing.assert_array_equal(tree["steps"], needed)
        agree(tree, "conv1", literally.integrated(windows, needed))


def test_what_is_above_the_tolerance_is_told():
    network, x = bent()
    method = rc.methods.IntegratedGradients(steps=2, tolerance=1e-4, max_steps=15)
    with pytest.warns(UserWarning, match=r"of 6 samples have .* tolerance=0.0001 after max_steps"):
        tree = rc.contributions(network, x, layers="0", method=method, progress=False)
    assert int(tree["steps"].max()) == 8
    spread = tree["target"].std("sample")
    above = (np.abs(tree["layers/0"]["completeness_error"]) / spread).max("output") > 1e-4
    assert int(above.sum()) > 0


def test_a_labelled_baseline_is_told_by_its_dims():
    """Frames are square: by shape, a transposed one would pass for another."""
    model, movie = movie_model(), movie_of()
    side = min(movie.shape[1:])
    movie = movie[:, :side, :side]
    network = nn.Sequential(nn.Flatten(), nn.Linear(model.history * side**2, 2), nn.Tanh())
    square = rc.models.from_module(
        network.double(), history=model.history, bin_width=0.01, cells=["a", "b"]
    )
    values = np.random.default_rng(0).normal(size=(2, side, side))

    def baseline_target(baseline):
        method = rc.methods.IntegratedGradients(steps=2, baseline=baseline)
        tree = rc.contributions(square, movie, layers="1", method=method, progress=False)
        return tree["target_baseline"].values

    labelled = xr.DataArray(values, dims=("baseline", "y", "x"))
    expected = baseline_target(values)
    assert np.abs(expected - baseline_target(values.swapaxes(1, 2))).max() > 1e-3
    np.testing.assert_array_equal(baseline_target(labelled), expected)
    np.testing.assert_array_equal(
        baseline_target(labelled.transpose("x", "baseline", "y")), expected
    )
    with pytest.raises(ValueError, match=r"baseline has dims \('baseline', 'row', 'x'\)"):
        baseline_target(labelled.rename(y="row"))


def test_a_sample_above_the_tolerance_counts_once_over_baselines():
    network, x = bent()
    method = rc.methods.IntegratedGradients(
        steps=2, tolerance=1e-6, max_steps=3, baseline=[[0.3, 0.3], [-4.0, 6.0], [1.0, 0.0]]
    )
    with pytest.warns(UserWarning, match=r"^6 of 6 samples have a completeness error"):
        rc.contributions(network, x, layers="0", method=method, progress=False)


def test_a_tolerance_where_outputs_are_not_numbers():
    """A later sample that nobody has looked at when the run is planned."""

    class Root(nn.Module):
        def forward(self, x):
            return x.sqrt()

    network = nn.Sequential(nn.Identity(), Root())
    x = torch.tensor([[1.0], [2.0], [3.0], [-1.0]])
    method = rc.methods.IntegratedGradients(steps=2, tolerance=0.1)
    with pytest.raises(ValueError, match="NaN or infinite targets for some of the data"):
        rc.contributions(network, x, layers="0", method=method, progress=False)


def test_a_tolerance_of_a_target_that_does_not_vary():
    network, x = bent()
    method = rc.methods.IntegratedGradients(tolerance=0.1)
    with pytest.raises(ValueError, match="tolerance: the target does not vary over the data"):
        rc.contributions(network, x[:1], layers="0", method=method, progress=False)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tolerance": 0.0}, "tolerance=0.0; expected a number above 0"),
        ({"tolerance": 0.1, "max_steps": 5}, "max_steps=5; expected a number of at least 20"),
        ({"max_steps": 0}, "max_steps=0; expected a number of at least 1"),
    ],
)
def test_bad_tolerances(given, message):
    with pytest.raises(ValueError, match=message):
        rc.methods.IntegratedGradients(**given)


# Collected where the residual is smaller


def test_collected_where_the_residual_is_smaller():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 2)
    )
    network = network.double().eval()
    with torch.no_grad():
        network[1].running_mean.normal_()
    x = torch.randn(5, 1, 5, 5, dtype=torch.double)

    def found(steps, **options):
        method = rc.methods.IntegratedGradients(steps=steps, baseline=0.1)
        tree = rc.contributions(
            network, x, layers=["0", "1"], method=method, progress=False, **options
        )
        return tree, [tree[f"layers/{name}"] for name in "01"]

    limit = found(2000)[1]
    tree, best = found(20, collect="best")
    assert json.loads(tree.attrs["parameters"])["collected_at"] == {"0": "2", "1": "2"}
    for name, one, other, there in zip("01", found(20)[1], best, limit, strict=True):
        error, least = (np.abs(node["completeness_error"].values).max() for node in (one, other))
        assert error > 1e-3
        assert least < 1e-9  # the rest of the network is linear
        contribution = other["contribution"]
        assert contribution.dims == one["contribution"].dims
        assert contribution.attrs["long_name"] == f"contribution of {name}"
        scale = np.abs(there["contribution"].values).max()
        distance = np.abs(contribution - there["contribution"]).max()
        assert distance < 1e-3 * scale < np.abs(one["contribution"] - there["contribution"]).max()


def test_extras_are_those_of_the_layer_wherever_its_contributions_are_collected():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    x = torch.randn(6, 3, dtype=torch.double)
    tree = rc.contributions(
        network,
        x,
        layers="0",
        method=rc.methods.IntegratedGradients(steps=3),
        collect="best",
        extras=("activation", "gradient"),
        progress=False,
    )
    assert json.loads(tree.attrs["parameters"])["collected_at"] == {"0": "1"}
    drive = network[0](x).detach()
    assert float(drive.min()) < -0.1  # what the ReLU would hide
    np.testing.assert_allclose(tree["layers/0/activation"], drive, rtol=1e-12)
    gradient = network[2].weight.detach()[None] * (drive > 0)[:, None]
    np.testing.assert_allclose(tree["layers/0/gradient"], gradient, rtol=1e-12)


def test_a_module_with_other_inputs_is_no_map_of_the_layer():
    """A residual sum is elementwise in its branch, but not a function of that branch alone."""

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(3, 3)
            self.branch = nn.Linear(3, 3)
            self.sum = nn.Identity()
            self.act = nn.ReLU()
            self.last = nn.Linear(3, 2)

        def forward(self, x):
            h = self.first(x)
            return self.last(self.act(self.sum(h + self.branch(h))))

    torch.manual_seed(0)
    network, x = Residual().double(), torch.randn(5, 3, dtype=torch.double)
    tree, plain = (
        rc.contributions(
            network, x, layers="branch", collect=collect, allow_bypass=True, progress=False
        )
        for collect in ("best", "layer")
    )
    there, here = (each["layers/branch"].to_dataset() for each in (tree, plain))
    xr.testing.assert_allclose(there, here)
    assert json.loads(tree.attrs["parameters"])["collected_at"] == {"branch": "branch"}


@pytest.mark.parametrize(
    "method", [rc.methods.Ablation(), rc.methods.ActivationGradient()], ids=["silence", "local"]
)
def test_only_integrals_are_the_same_before_and_after_a_map(net, images, method):
    with pytest.raises(ValueError, match="collect='best'"):
        rc.contributions(net, images, layers="conv1", method=method, collect="best", progress=False)
