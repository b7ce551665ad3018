"""Toy networks whose numbers can be worked out by hand, and a slow literal twin."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import retina_codec as rc


def hooks_of(network):
    """Names of all modules that have a hook, or a forward of their own."""
    return [
        name
        for name, module in network.named_modules()
        if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
    ]


class Literal:
    """Outputs of a network one sample at a time, with units of a layer overwritten by a hook.

    `change(a, a0, i)` gives what the layer is to give for sample `i`.
    """

    def __init__(self, network, layer, x0):
        self.network, self.layer, self.x0 = network, layer, x0

    def value(self, x):
        kept = []
        handle = self.layer.register_forward_hook(lambda m, i, o: kept.append(o.clone()))
        with torch.no_grad():
            self.network(x.clone())
        handle.remove()
        return kept[0]

    def outputs(self, xs, change):
        rest = self.value(self.x0)
        rows = []
        for i, x in enumerate(xs):
            put = change(self.value(x[None]), rest, i)
            handle = self.layer.register_forward_hook(lambda m, a, o, put=put: put.clone())
            with torch.no_grad():
                rows.append(self.network(x[None].clone())[0].numpy())
            handle.remove()
        return np.stack(rows)


@pytest.fixture
def literal():
    return Literal


@pytest.fixture
def hooks():
    return hooks_of


def movie_of(n, shape, seed=0, blocks=1):
    rng = np.random.default_rng(seed)
    time = rc.time_coordinate(np.arange(n) * 0.01, 0.01)
    coords = {"time": time, "y": 10.0 * np.arange(shape[0]), "x": 10.0 * np.arange(shape[1])}
    movie = xr.DataArray(rng.normal(size=(n, *shape)).astype("float32"), coords, ("time", "y", "x"))
    if blocks > 1:
        movie = movie.assign_coords(block=("time", np.arange(n) * blocks // n))
    return movie


@pytest.fixture
def movie():
    return movie_of(60, (9, 9), blocks=2)


def retina_model(seed=0):
    """A small BN-CNN with batch norms that are not the identity."""
    torch.manual_seed(seed)
    model = rc.models.BNCNN(
        (9, 9), history=5, bin_width=0.01, cells=["a", "b", "c"], channels=(3, 4),
        kernel_sizes=(4, 3), noise=0.05,
    )  # fmt: skip
    draw = torch.Generator().manual_seed(seed)
    for module in model.network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            n = module.num_features
            module.bias.data = 0.5 * torch.randn(n, generator=draw)
            module.running_mean = 0.3 * torch.randn(n, generator=draw)
            module.running_var = 0.5 + torch.rand(n, generator=draw)
    return model


@pytest.fixture
def model():
    with torch.random.fork_rng():
        return retina_model()


@pytest.fixture
def classifier():
    """A ResNet block with one in-place ReLU that runs twice, and batch norms."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = rc.classifiers.resnet18(categories=["x", "y", "z"], seed=1)
        draw = torch.Generator().manual_seed(0)
        for module in net.network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.bias.data = 0.3 * torch.randn(module.num_features, generator=draw)
        return net


@pytest.fixture
def images():
    values = np.random.default_rng(0).random((5, 3, 32, 32), dtype=np.float32)
    coords = {"image": [3, 1, 4, 15, 9], "category": ("image", ["x", "y", "z", "x", "y"])}
    return xr.DataArray(values, coords, ("image", "color", "y", "x"))


def linear_model(n_units=4, n_cells=2, seed=0):
    """A linear network of windows of one pixel: rate = W2 (W1 x + b1) + b2."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Flatten(), nn.Linear(6, n_units), nn.Linear(n_units, n_cells))
    model = rc.models.from_module(
        net.double(), history=6, bin_width=0.01, cells=[f"c{i}" for i in range(n_cells)]
    )
    return model, net


@pytest.fixture
def linear():
    return linear_model()


@pytest.fixture
def pixel():
    return movie_of(40, (1, 1), seed=3)
