"""Checkpoints of torch-deep-retina against its layers, re-implemented here, on windows."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn
from torch.nn import functional

import retina_codec as rc
from retina_codec._common.time import time_coordinate
from retina_codec.models import deep_retina
from retina_codec.models.bncnn import BNCNN
from retina_codec.models.cnn2016 import CNN2016
from retina_codec.models.retinotopic import Retinotopic
from retina_codec.models.stacked import StackedBNCNN

HISTORY, SIZE = 6, 16
SHAPE = (HISTORY, SIZE, SIZE)
STATS = {"mean": 51.5, "std": 12.25}
EXACT = {"rtol": 1e-10, "atol": 1e-11}


def load_deep_retina(source, **options):
    """The network as it is in the file, without the lag that labels its rates."""
    return deep_retina.load_deep_retina(source, **({"response_bin": "current"} | options))


class Noise(nn.Module):
    """Noise whose sd is in the state dict."""

    def __init__(self, sd=0.05):
        super().__init__()
        self.sigma = nn.Parameter(torch.full((1,), sd), requires_grad=False)

    def forward(self, x):
        return x + self.sigma * torch.randn_like(x) if self.training else x


class PositiveNorm(nn.Module):
    """Running statistics as parameters, scale by absolute value; by its formula."""

    def __init__(self, n, eps=1e-3):
        super().__init__()
        self.eps = eps
        self.running_mean = nn.Parameter(torch.zeros(n))
        self.running_var = nn.Parameter(torch.ones(n))
        self.scale = nn.Parameter(torch.ones(n))
        self.shift = nn.Parameter(torch.zeros(n))

    def forward(self, x):
        mean, var, scale, shift = (
            t.reshape(-1, *[1] * (x.ndim - 2))
            for t in (self.running_mean, self.running_var, self.scale, self.shift)
        )
        return (x - mean) / (var + self.eps).sqrt() * scale.abs() + shift


class Stack(nn.Module):
    """Small convolutions in a row, those between without bias unless told."""

    def __init__(self, n_in, n_out, size, stage=3, between=None, norm=False, bias=False, drop=0):
        super().__init__()
        between = between or n_out
        parts, left, first = [], size, True
        while left > stage or first:
            reach = min(stage, left)
            left -= reach - 1
            last = left == 1
            parts.append(
                nn.Conv2d(
                    n_in if first else between,
                    n_out if last else between,
                    reach,
                    bias=last or bias,
                )
            )
            if not last and norm:
                parts.append(PositiveNorm(between, eps=1e-5))
            if not last and drop:
                parts.append(nn.Dropout(drop))
            first = False
        if left > 1:
            parts.append(nn.Conv2d(between, n_out, left))
        self.convs = nn.Sequential(*parts)

    def forward(self, x):
        return self.convs(x)


class OneHot(nn.Module):
    def __init__(self, n, places, maps=None):
        super().__init__()
        self.w = nn.Parameter(torch.rand(n, places))
        self.maps = list(range(n)) if maps is None else maps

    def forward(self, x):
        positive = self.w - self.w.min(1, keepdim=True).values
        share = positive / positive.sum(1, keepdim=True)
        return torch.stack([x[:, m].flatten(1) @ share[i] for i, m in enumerate(self.maps)], 1)


class Grab(nn.Module):
    """One unit of each map; leaves no trace in the state dict."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def forward(self, x):
        return torch.stack([x[:, i, y, z] for i, (y, z) in enumerate(self.at)], 1)


class Net(nn.Module):
    def __init__(self, *modules):
        super().__init__()
        self.sequential = nn.Sequential(*modules)

    def forward(self, x):
        return self.sequential(x)


def hidden(conv1, conv2, by, norm, order="new"):
    """Two layers: sizes 16 -> 12 -> 10 with 4 and 3 channels."""
    modules = []
    for conv, size in ((conv1, (4, 12, 12)), (conv2, (3, 10, 10))):
        modules.append(conv)
        n = size[0] * size[1] * size[2]
        if by == "channel":
            make = PositiveNorm if norm == "positive" else nn.BatchNorm2d
            modules += [make(size[0], eps=1e-3), Noise(), nn.ReLU()]
        elif by == "unit":
            make = PositiveNorm if norm == "positive" else nn.BatchNorm1d
            back = nn.Unflatten(1, size)
            rest = [Noise(), nn.ReLU(), back] if order == "old" else [back, Noise(), nn.ReLU()]
            modules += [nn.Flatten(), make(n, eps=1e-3), *rest]
        else:
            modules += [Noise(0.1), nn.ReLU()]
    return modules


def plain(**options):
    return nn.Conv2d(HISTORY, 4, 5, **options), nn.Conv2d(4, 3, 3, **options)


def stacks(**options):
    return Stack(HISTORY, 4, 5, **options), Stack(4, 3, 3, **options)


def bncnn(by, order="new", bias=True, dense_bias=True, final_eps=1e-3):
    return Net(
        *hidden(*plain(bias=bias), by, "plain", order),
        nn.Flatten(),
        nn.Linear(300, 2, bias=dense_bias),
        nn.BatchNorm1d(2, eps=final_eps),
        nn.Softplus(),
    )


def stacked(by, convs=None, dense_bias=False):
    return Net(
        *hidden(*(convs or stacks()), by, "positive"),
        nn.Flatten(),
        nn.Linear(300, 2, bias=dense_bias),
        PositiveNorm(2),
        nn.Softplus(),
    )


def to_maps(by, convs, n_maps, readout, norm_after=False):
    """A third convolution, 10 -> 7, to the cells."""
    rest = [PositiveNorm(n_maps), nn.Softplus()]
    rest = [readout, *rest] if norm_after else [*rest, readout]
    return Net(*hidden(*convs, by, "positive"), nn.Conv2d(3, n_maps, 4), *rest)


def three_layers():
    """Another number of layers, the stages' sizes not all alike."""
    return Net(
        *(Stack(HISTORY, 4, 6), PositiveNorm(4), Noise(), nn.ReLU()),
        *(Stack(4, 3, 5, stage=5), PositiveNorm(3), Noise(), nn.ReLU()),
        *(Stack(3, 2, 4, stage=2), PositiveNorm(2), Noise(), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(2 * 4 * 4, 2, bias=False), PositiveNorm(2), nn.Softplus()),
    )


def cnn(bias):
    return Net(
        *hidden(*plain(bias=bias), None, None),
        nn.Flatten(),
        nn.Linear(300, 2, bias=bias),
        nn.Softplus(),
    )


NETWORKS = {
    "BNCNN, old order": (lambda: bncnn("unit", "old"), BNCNN, {}),
    "BNCNN by unit": (lambda: bncnn("unit"), BNCNN, {}),
    "BNCNN by channel": (lambda: bncnn("channel", dense_bias=False), BNCNN, {}),
    "BNCNN without biases": (lambda: bncnn("unit", bias=False, dense_bias=False), BNCNN, {}),
    "BNCNN, oldest": (lambda: bncnn("unit", final_eps=1e-5), BNCNN, {"final_eps": 1e-5}),
    "positive, plain kernels": (lambda: stacked("unit", plain()), BNCNN, {}),
    "stacked by unit": (lambda: stacked("unit"), StackedBNCNN, {}),
    "stacked by channel": (lambda: stacked("channel", dense_bias=True), StackedBNCNN, {}),
    "stacked, inner norms": (lambda: stacked("unit", stacks(norm=True)), StackedBNCNN, {}),
    "stacked, inner biases and dropout": (
        lambda: stacked("unit", stacks(bias=True, drop=0.2, between=7)),
        StackedBNCNN,
        {},
    ),
    "stacked, all of these": (
        lambda: stacked("channel", stacks(bias=True, norm=True, stage=2, drop=0.1)),
        StackedBNCNN,
        {},
    ),
    "three layers": (three_layers, StackedBNCNN, {}),
    "CNN": (lambda: cnn(True), CNN2016, {}),
    "CNN without biases": (lambda: cnn(False), CNN2016, {}),
    "retinotopic": (lambda: to_maps("unit", stacks(), 2, OneHot(2, 49)), Retinotopic, {}),
    "retinotopic, plain kernels": (
        lambda: to_maps("channel", plain(), 2, OneHot(2, 49)),
        Retinotopic,
        {},
    ),
    "retinotopic, shared maps": (
        lambda: to_maps("unit", stacks(), 2, OneHot(3, 49, [1, 0, 1])),
        Retinotopic,
        {"maps": [1, 0, 1]},
    ),
    # Units of the maps are centred from pixel 4.5 on.
    "convolutional to the cells": (
        lambda: to_maps("unit", stacks(), 2, Grab([(1, 2), (5, 3)]), norm_after=True),
        Retinotopic,
        {"places": [(5.5, 6.5), (9.5, 7.5)]},
    ),
}


def randomised(net, dtype=torch.double):
    generator = torch.Generator().manual_seed(7)
    net = net.to(dtype).eval()
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if tensor.is_floating_point() and not name.endswith("sigma"):
                values = torch.randn(tensor.shape, generator=generator, dtype=torch.double)
                values *= 1.4 / tensor[0].numel() ** 0.5 if tensor.ndim > 1 else 0.5
                if name.endswith("running_var"):
                    values = values.abs() + 0.3
                tensor.copy_(values)
    return net


def movie_of(n=25):
    values = np.random.default_rng(0).normal(51.5, 12.25, (n, SIZE, SIZE)).astype(np.float32)
    return xr.DataArray(
        values,
        dims=("time", "y", "x"),
        coords={"time": time_coordinate(np.arange(n) * 0.01, 0.01)},
    )


def windows_of(frames):
    """(N, history, y, x): the last frame is the most recent one."""
    return torch.stack([frames[t : t + HISTORY] for t in range(len(frames) - HISTORY + 1)])


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_and_gradients_are_the_networks(name):
    make, cls, options = NETWORKS[name]
    torch.manual_seed(0)
    net = randomised(make())
    model = load_deep_retina(net.state_dict(), img_shape=SHAPE, norm_stats=STATS, **options)
    assert type(model) is cls
    assert model.dtype == torch.double
    frames = (torch.from_numpy(movie_of().values).double() - 51.5) / 12.25
    frames.requires_grad_()
    ours, theirs = model.network(frames[None]), net(windows_of(frames))
    assert float(theirs.detach().std(0).min()) > 1e-3  # far more than the tolerance
    torch.testing.assert_close(ours, theirs, **EXACT)
    upstream = torch.randn_like(ours)
    (a,) = torch.autograd.grad(ours, frames, upstream)
    (b,) = torch.autograd.grad(theirs, frames, upstream)
    torch.testing.assert_close(a, b, **EXACT)
    assert (model.history, model.bin_width, model.mean, model.sd) == (6, 0.01, 51.5, 12.25)


@pytest.mark.parametrize("name", ["BNCNN by unit", "stacked by unit", "CNN", "retinotopic"])
def test_checkpoint_file(tmp_path, name):
    make, cls, _ = NETWORKS[name]
    torch.manual_seed(0)
    net = randomised(make(), torch.float32)
    path = tmp_path / "checkpoint.pt"
    content = {
        "model_type": "BNCNN",
        "model_state_dict": net.state_dict(),
        "img_shape": list(SHAPE),
        # As NumPy has made them from a movie.
        "norm_stats": {"mean": np.float32(51.5), "std": np.float64(12.25)},
        "cells": np.array([6, 10]),
        "model_hyps": {"softplus": True, "activ_fxn": "ReLU", "noise": 0.3, "paddings": [0, 0]},
        "epoch": 3,
        "optim_state_dict": {"state": {0: torch.ones(2)}},
    }
    torch.save(content, path)
    model = load_deep_retina(path)
    assert type(model) is cls
    assert model.outputs.tolist() == ["6", "10"]
    assert model._config["noise"] == pytest.approx(0.1 if name == "CNN" else 0.05)
    movie = movie_of()
    predicted = model.predict(movie)
    frames = (torch.from_numpy(movie.values) - 51.5) / 12.25
    with torch.no_grad():
        expected = net(windows_of(frames)).numpy()
    assert predicted.attrs["units"] == "Hz"
    assert predicted.dtype == np.float32
    np.testing.assert_allclose(predicted.values, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(predicted["time"], movie["time"][HISTORY - 1 :])
    loaded = rc.load_model(model.save(tmp_path / "model"))
    xr.testing.assert_identical(loaded.predict(movie), predicted)


def test_arguments_go_before_what_the_checkpoint_says(tmp_path):
    net = randomised(bncnn("unit"))
    content = {"model_state_dict": net.state_dict(), "img_shape": (1, 2, 3), "cells": [1, 2]}
    model = load_deep_retina(
        content, img_shape=SHAPE, norm_stats=[1.0, 2.0], cells=["p", "q"], bin_width=0.02
    )
    assert model.outputs.tolist() == ["p", "q"]
    assert (model.mean, model.sd, model.bin_width) == (1.0, 2.0, 0.02)


def rolling_window(frames, history):
    """Windows as the networks were trained on: the last one ends before the last frame."""
    return torch.stack([frames[i : i + history] for i in range(len(frames) - history)])


@pytest.mark.parametrize("name", ["BNCNN by unit", "stacked by unit", "CNN", "retinotopic"])
def test_rates_are_of_the_bins_that_the_network_was_trained_on(name):
    """In training, ``rolling_window(stim, history)`` was paired with ``resp[history:]``."""
    movie, net = movie_of(), randomised(NETWORKS[name][0]())
    settings = {"img_shape": SHAPE, "norm_stats": STATS}
    model = deep_retina.load_deep_retina(net.state_dict(), **settings)
    assert model.history == HISTORY + 1
    predicted = model.predict(movie)
    bins_of_responses = movie["time"][HISTORY:]
    np.testing.assert_array_equal(predicted["time"], bins_of_responses)
    frames = (torch.from_numpy(movie.values).double() - 51.5) / 12.25
    expected = net(rolling_window(frames, HISTORY)).detach().numpy()
    assert predicted.shape == expected.shape
    np.testing.assert_allclose(predicted.values, expected, rtol=1e-5)
    # The frame of the bin itself has no say in it.
    changed = movie.copy(data=movie.values.copy())
    changed[-1] += 100
    np.testing.assert_array_equal(model.predict(changed)[-1], predicted[-1])
    last = load_deep_retina(net.state_dict(), **settings).predict(movie)
    np.testing.assert_array_equal(last["time"], movie["time"][HISTORY - 1 :])
    np.testing.assert_allclose(last.values[:-1], predicted.values, rtol=1e-5)


def test_evenly_spread_readout_is_an_average():
    net = to_maps("unit", stacks(), 2, OneHot(2, 49))
    randomised(net)
    state = net.state_dict()
    state["sequential.15.w"][:] = 0.2  # the quotient would be 0 / 0
    model = load_deep_retina(state, img_shape=SHAPE, norm_stats=STATS)
    np.testing.assert_allclose(model.places()["weight"], 1 / 49, rtol=1e-9)
    frames = torch.randn(10, SIZE, SIZE, dtype=torch.double)
    expected = net.sequential[:-1](windows_of(frames)).mean((2, 3))
    torch.testing.assert_close(model.network(frames[None]), expected, **EXACT)


def test_one_hot_readout_can_be_fixed():
    net = randomised(to_maps("unit", stacks(), 2, OneHot(2, 49)))
    state = net.state_dict()
    state["sequential.15.w"][:] = functional.one_hot(torch.tensor([9, 30]), 49)
    model = load_deep_retina(state, img_shape=SHAPE, norm_stats=STATS)
    fixed = model.fix_places()
    np.testing.assert_allclose(fixed.places()["y"], [1 + 4.5, 4 + 4.5])
    np.testing.assert_allclose(fixed.places()["x"], [2 + 4.5, 2 + 4.5])
    frames = torch.randn(1, 10, SIZE, SIZE, dtype=torch.double)
    torch.testing.assert_close(fixed.network(frames), model.network(frames), **EXACT)


def test_collapsed_network_is_the_same():
    net = randomised(stacked("unit", stacks(norm=True, bias=True)))
    model = load_deep_retina(net.state_dict(), img_shape=SHAPE, norm_stats=STATS)
    frames = torch.randn(12, SIZE, SIZE, dtype=torch.double)
    expected = net(windows_of(frames))
    torch.testing.assert_close(model.collapse().network(frames[None]), expected, **EXACT)


class TestBadInput:
    settings = {"img_shape": SHAPE, "norm_stats": STATS}  # noqa: RUF012

    def refused(self, state, message, **options):
        with pytest.raises(ValueError, match=message):
            load_deep_retina(state, **(self.settings | options))

    def test_no_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"none\.pt' does not exist"):
            load_deep_retina(tmp_path / "none.pt")

    @pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
    @pytest.mark.parametrize("zipped", [True, False])
    def test_truncated_file(self, tmp_path, share, zipped):
        path = tmp_path / "checkpoint.pt"
        state = bncnn("unit").state_dict()
        torch.save(state, path, _use_new_zipfile_serialization=zipped)
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        self.refused(path, r"checkpoint\.pt' is not a readable PyTorch file, it may be truncated")

    def test_file_of_another_kind(self, tmp_path):
        path = tmp_path / "notes.txt"
        path.write_text("these are no weights\n" * 20)
        self.refused(path, "is not a readable PyTorch file")

    def test_python_objects_are_not_unpickled(self, tmp_path):
        path = tmp_path / "checkpoint.pt"
        torch.save({"model": bncnn("unit")}, path)
        self.refused(path, r"holds Python objects, which are not loaded .*save its state dict")

    def test_no_mapping(self, tmp_path):
        path = tmp_path / "checkpoint.pt"
        torch.save([1, 2], path)
        self.refused(path, "source holds a list; expected a state dict")

    def test_checkpoint_of_another_model(self):
        other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).state_dict()
        self.refused(other, r"unexpected 0\.weight, 0\.bias, .* and 1 more; missing .*sequential")
        self.refused({}, "missing or mixed keys 'sequential")

    def test_checkpoint_of_a_model_of_ours(self, tmp_path):
        model = BNCNN((6, 6), history=3, bin_width=0.01, cells=["a"], kernel_sizes=(3, 3))
        self.refused(model.network.state_dict(), r"unexpected conv1\.weight")

    def test_missing_and_unexpected_keys(self):
        state = bncnn("unit").state_dict()
        del state["sequential.2.running_var"]
        state["sequential.2.gain"] = torch.ones(3)
        self.refused(
            state, r"missing sequential\.2\.running_var; unexpected sequential\.2\.gain .* norm"
        )

    def test_missing_layers(self):
        state = bncnn("unit").state_dict()
        without = {k: v for k, v in state.items() if ".0." not in k}
        self.refused(without, r"unexpected sequential\.2 .*missing a convolution")
        without = {k: v for k, v in state.items() if ".6." not in k}
        self.refused(without, r"unexpected sequential\.8 .*missing a convolution")
        without = {k: v for k, v in state.items() if ".13." not in k and ".14." not in k}
        self.refused(without, r"missing a dense layer to the cells")
        without = {k: v for k, v in state.items() if ".8." not in k}
        self.refused(without, r"missing the batch norm after sequential\.6")
        without = {k: v for k, v in state.items() if ".0." in k}
        self.refused(without, r"has 1 convolutions and dense layers; missing others")

    def test_relatives_that_are_not_understood(self):
        state = {
            "sequential.0.conv.weight": torch.randn(4, HISTORY, 5, 5),
            "sequential.1.scale_param": torch.ones(4, 12, 12),
        }
        self.refused(
            state, r"missing sequential\.0\.weight; unexpected sequential\.0\.conv\.weight"
        )

    def test_image_shape(self):
        state = bncnn("unit").state_dict()
        self.refused(state, "img_shape is missing in source", img_shape=None)
        self.refused(state, r"expected \(history, y, x\)", img_shape=(40, 50))
        self.refused(state, "takes 6 channels; .* gives 40", img_shape=(40, SIZE, SIZE))
        self.refused(state, "has 576 entries; expected 4 .* or 784", img_shape=(HISTORY, 18, 18))
        self.refused(state, "does not fit into", img_shape=(HISTORY, 4, 4))
        padded = Net(
            *hidden(*plain(), "channel", "plain"),
            nn.Flatten(),
            nn.Linear(363, 2),
            nn.BatchNorm1d(2),
        )
        self.refused(padded.state_dict(), "takes 363 units; .* gives 300 where nothing is padded")

    def test_norm_stats(self):
        state = bncnn("unit").state_dict()
        self.refused(state, "norm_stats is missing in source", norm_stats=None)
        self.refused(state, "expected 'mean' and 'std'", norm_stats={"mean": 0.0})
        self.refused(state, "has 1 numbers", norm_stats=[0.0])
        self.refused(state, "without variation", norm_stats=[0.0, 0.0])

    def test_cells(self):
        self.refused(bncnn("unit").state_dict(), "cells has 3 ids .*has 2 outputs", cells=[1, 2, 3])

    @pytest.mark.parametrize(
        ("setting", "value"),
        [
            ("softplus", False),
            ("activ_fxn", "Tanh"),
            ("inference_exp", True),
            ("paddings", [2, 0]),
            ("recurrent", True),
        ],
    )
    def test_settings_that_change_the_outputs(self, setting, value):
        content = {"model_state_dict": bncnn("unit").state_dict(), "hyps": {setting: value}}
        self.refused(content, f"trained with {setting}=")

    def test_places_and_maps(self):
        dense, maps = bncnn("unit").state_dict(), to_maps("unit", stacks(), 2, OneHot(2, 49))
        self.refused(dense, "places is given, but", places=[(1, 1), (2, 2)])
        self.refused(maps.state_dict(), r"maps=\[0, 2\]; expected .* 0 to 1", maps=[0, 2])
        state = {k: v for k, v in maps.state_dict().items() if not k.endswith(".w")}
        self.refused(state, r"does not hold where the cells read .*give places")
        state = to_maps("unit", stacks(), 2, OneHot(3, 49, [1, 0, 1])).state_dict()
        self.refused(state, "2 maps and 3 cells; give maps=")
        self.refused(to_maps("unit", stacks(), 2, OneHot(2, 36)).state_dict(), "has .36,. places")

    def test_negative_scales_where_positive_ones_are_used(self):
        state = stacked("unit").state_dict()
        for old, new in (("scale", "weight"), ("shift", "bias")):
            state[f"sequential.2.{new}"] = -state.pop(f"sequential.2.{old}")
        self.refused(state, r"batch norm after sequential\.0 has negative scales")

    def test_response_bin(self):
        self.refused({}, "response_bin='last' is not known", response_bin="last")
