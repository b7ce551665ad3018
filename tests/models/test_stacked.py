"""Stacks of small kernels, and the large kernels they amount to."""

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.signal import convolve2d, correlate2d
from torch.nn import functional

from retina_codec import plot
from retina_codec._common.time import time_coordinate
from retina_codec.models.bncnn import BNCNN
from retina_codec.models.layers import MovieConvolution
from retina_codec.models.retinotopic import Retinotopic
from retina_codec.models.stacked import StackedBNCNN
from retina_codec.models.stacks import LinearStack, MovieLinearStack, composed, stage_kernels

EXACT = {"rtol": 1e-10, "atol": 1e-12}


@pytest.mark.parametrize(
    ("kernel", "stage", "expected"),
    [
        ((15, 15), 3, [(3, 3)] * 7),
        ((11, 11), 5, [(5, 5), (5, 5), (3, 3)]),
        ((8, 8), 3, [(3, 3), (3, 3), (3, 3), (2, 2)]),
        ((1, 7), 3, [(1, 3)] * 3),
        ((7, 3), 3, [(3, 3), (3, 1), (3, 1)]),
        ((2, 2), 3, [(2, 2)]),
        ((1, 1), 3, [(1, 1)]),
    ],
)
def test_stages_reach_as_far_as_the_kernel(kernel, stage, expected):
    stages = stage_kernels(kernel, stage)
    assert stages == expected
    for axis in (0, 1):
        assert 1 + sum(size[axis] - 1 for size in stages) == kernel[axis]


def test_composed_kernels_by_hand():
    first, second = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0])
    whole = composed([first.reshape(1, 1, 1, 2), second.reshape(1, 1, 1, 2)])
    # (a + b z)(c + d z)
    torch.testing.assert_close(whole.flatten(), torch.tensor([3.0, 11.0, 10.0]))


def test_composed_kernels_against_scipy():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(4, 3, 3, 2)), rng.normal(size=(2, 4, 2, 3))
    ours = composed([torch.tensor(first), torch.tensor(second)]).numpy()
    image = rng.normal(size=(3, 9, 8))
    for o in range(2):
        for i in range(3):
            literal = sum(convolve2d(first[m, i], second[o, m]) for m in range(4))
            np.testing.assert_allclose(ours[o, i], literal, atol=1e-12)
        middle = [
            sum(correlate2d(image[i], first[m, i], "valid") for i in range(3)) for m in range(4)
        ]
        in_turn = sum(correlate2d(middle[m], second[o, m], "valid") for m in range(4))
        at_once = sum(correlate2d(image[i], ours[o, i], "valid") for i in range(3))
        np.testing.assert_allclose(at_once, in_turn, atol=1e-10)


@pytest.mark.parametrize(
    ("kernel", "stage", "between"),
    [((7, 7), 3, None), ((6, 5), 3, 5), ((5, 5), 5, 2), ((1, 1), 3, 4), ((9, 10), 3, 3)],
)
@pytest.mark.parametrize("colors", [1, 2])
def test_a_stack_over_a_movie_is_its_stages_in_turn(kernel, stage, between, colors):
    torch.manual_seed(0)
    stack = MovieLinearStack(
        6, 4, kernel, colors=colors, stage=stage, stage_channels=between
    ).double()
    movie = torch.randn(2, 12, colors, 9, 10, dtype=torch.double, requires_grad=True)
    windows = movie.unfold(1, 6, 1).movedim(-1, 2).flatten(0, 1).flatten(1, 2)
    literal = functional.conv2d(windows, stack.first.weight.flatten(1, 2), stack.first.bias)
    for part in stack.rest:
        literal = functional.conv2d(literal, part.weight, part.bias)
    ours = stack(movie)
    torch.testing.assert_close(ours, literal, **EXACT)
    upstream = torch.randn_like(ours)
    tensors = [movie, *stack.parameters()]
    gradients = torch.autograd.grad(ours, tensors, upstream)
    expected = torch.autograd.grad(literal, tensors, upstream)
    for a, b in zip(gradients, expected, strict=True):
        torch.testing.assert_close(a, b, **EXACT)


@pytest.mark.parametrize(("kernel", "between"), [((11, 11), None), ((6, 5), 3), ((1, 1), 2)])
def test_a_stack_over_maps_is_its_stages_in_turn(kernel, between):
    torch.manual_seed(0)
    stack = LinearStack(8, 6, kernel, stage_channels=between).double()
    maps = torch.randn(40, 8, 24, 23, dtype=torch.double, requires_grad=True)
    ours, literal = stack(maps), stack.stages(maps)
    torch.testing.assert_close(ours, literal, **EXACT)
    upstream = torch.randn_like(ours)
    tensors = [maps, *stack.parameters()]
    gradients = torch.autograd.grad(ours, tensors, upstream)
    expected = torch.autograd.grad(literal, tensors, upstream)
    for a, b in zip(gradients, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10 * float(b.abs().max()))


def test_weights_of_a_stack_are_those_of_its_stages_alone():
    stack = MovieLinearStack(6, 4, (7, 7), stage_channels=3)
    assert {name: tuple(tensor.shape) for name, tensor in stack.state_dict().items()} == {
        "first.weight": (3, 6, 1, 3, 3),
        "rest.0.weight": (3, 3, 3, 3),
        "rest.1.weight": (4, 3, 3, 3),
        "rest.1.bias": (4,),
    }
    plain = MovieConvolution(6, 4, (7, 7))
    assert stack.weight.shape == plain.weight.shape
    maps = LinearStack(4, 5, (5, 5))
    assert sum(p.numel() for p in maps.parameters()) == 4 * 5 * 9 + 5 * 5 * 9 + 5
    assert maps.weight.shape == (5, 4, 5, 5)


def model_of(cls=StackedBNCNN, shape=(20, 18), **options):
    settings = {"history": 6, "bin_width": 0.01, "cells": ["a", "b"], "mean": 0.2, "sd": 1.5}
    kernels = (8, 7, 3) if cls is Retinotopic else (8, 7)
    model = cls(shape, **({"kernel_sizes": kernels} | settings | options))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in model.network.double().state_dict().items():
            if tensor.is_floating_point():
                values = torch.randn(tensor.shape, generator=generator, dtype=torch.double)
                values *= 1.4 / tensor[0].numel() ** 0.5 if tensor.ndim > 1 else 1
                tensor.copy_(values.abs() + 0.3 if name.endswith("running_var") else values)
    return model


def movie_of(n, shape=(20, 18), seed=0):
    values = np.random.default_rng(seed).normal(size=(n, *shape)).astype(np.float32)
    dims = ("time", "y", "x") if len(shape) == 2 else ("time", "color", "y", "x")
    return xr.DataArray(
        values, dims=dims, coords={"time": time_coordinate(np.arange(n) * 0.01, 0.01)}
    )


def in_turn(model, frames):
    """The network with every stage run by itself, the first ones on stacked windows."""
    values = frames.unfold(1, model.history, 1).movedim(-1, 2).flatten(0, 1).flatten(1, -3)
    for module in model.network:
        if isinstance(module, MovieLinearStack):
            first = module.first
            values = functional.conv2d(values, first.weight.flatten(1, 2), first.bias)
            values = module.rest(values)
        else:
            values = module.stages(values) if isinstance(module, LinearStack) else module(values)
    return values


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"norm": "channel", "stages": (2, 5), "stage_channels": 3, "rate_units": "Hz"},
        {"shape": (2, 17, 16)},
        {"shape": (1, 25)},
        {"shape": (1, 1)},
        {"channels": (4, 3, 2), "kernel_sizes": (6, 5, 4)},
    ],
)
def test_collapsed_model_is_the_same_model(options):
    model = model_of(**options)
    shape = options.get("shape", (20, 18))
    plain = model.collapse()
    assert type(plain) is BNCNN
    assert isinstance(plain.layers["conv1"], MovieConvolution)
    frames = torch.randn(3, 11, *shape, dtype=torch.double, requires_grad=True)
    ours, theirs = model.network(frames), plain.network(frames)
    torch.testing.assert_close(ours, theirs, **EXACT)
    (a,) = torch.autograd.grad(ours.square().sum(), frames)
    (b,) = torch.autograd.grad(theirs.square().sum(), frames)
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * float(a.abs().max()))
    torch.testing.assert_close(plain.network(frames), in_turn(model, frames), **EXACT)
    movie = movie_of(60, shape)
    xr.testing.assert_allclose(model.predict(movie), plain.predict(movie), rtol=1e-6)
    assert float(model.predict(movie).std("time").max()) > 0.1 or shape == (1, 1)


def test_collapsed_model_has_its_own_weights_and_saves(tmp_path):
    import retina_codec as rc

    model, movie = model_of(), movie_of(20)
    plain = model.collapse()
    before = model.predict(movie)
    with torch.no_grad():
        for tensor in plain.network.parameters():
            tensor.add_(1)
    xr.testing.assert_identical(model.predict(movie), before)
    single = model_of()
    single.network.float()
    small = single.collapse()
    assert small.dtype == torch.float32
    loaded = rc.load_model(small.save(tmp_path / "model"))
    xr.testing.assert_identical(loaded.predict(movie), small.predict(movie))
    assert (loaded.mean, loaded.sd, loaded.bin_width) == (0.2, 1.5, 0.01)


def test_collapsed_model_trains_alike():
    """Noise off and batch statistics on, both still compute the same."""
    model = model_of(noise=0.0)
    plain = model.collapse()
    frames = torch.randn(4, 16, 20, 18, dtype=torch.double)
    torch.testing.assert_close(
        model.network.train()(frames), plain.network.train()(frames), rtol=1e-8, atol=1e-9
    )
    torch.testing.assert_close(
        model.layers["norm2"].running_var, plain.layers["norm2"].running_var, **EXACT
    )


def test_collapsed_retinotopic_model_is_the_same_model():
    for places in (None, [(9, 9), (12, 7)]):
        model = model_of(Retinotopic, places=places)
        plain = model.collapse()
        assert isinstance(plain.layers["conv1"], MovieConvolution)
        frames = torch.randn(2, 9, 20, 18, dtype=torch.double)
        torch.testing.assert_close(model.network(frames), plain.network(frames), **EXACT)


def test_scales_of_either_sign_keep_the_sign_of_a_unit():
    model = model_of()
    frames = torch.randn(2, 9, 20, 18, dtype=torch.double)
    before = model.network(frames)
    for name in ("norm1", "norm2", "norm3"):
        model.layers[name].weight.data.neg_()
    torch.testing.assert_close(model.network(frames), before, rtol=0, atol=0)
    drive = model.layers["norm1"](torch.zeros(1, *model.layers["norm1"].shape).double())
    more = model.layers["norm1"](torch.ones(1, *model.layers["norm1"].shape).double())
    assert (more >= drive).all()


def test_filters_of_a_stack_are_drawn():
    assert plot.filters(model_of(), layer="conv1").shape == (8, 2)


def test_layers_are_the_published_ones_and_not_their_stages():
    model = model_of()
    assert list(model.layers)[:4] == ["conv1", "norm1", "noise1", "relu1"]
    assert not any("." in name for name in model.layers)
    with pytest.raises(ValueError, match=r"no layer 'conv1\.first'"):
        model.layer("conv1.first")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": (3, 3, 3)}, r"stages=\(3, 3, 3\) has 3 numbers; expected 2"),
        ({"stages": 0}, "stages=0; expected"),
        ({"stage_channels": (0, 1)}, "stage_channels=0; expected"),
    ],
)
def test_bad_stages(options, message):
    with pytest.raises(ValueError, match=message):
        model_of(**options)
