"""The routes of the movie convolution against `conv2d` on stacked windows, and what they cost."""

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

import retina_codec as rc
from retina_codec.models import convolution_direct
from retina_codec.models.convolution import cheapest, correlate_movie, costs
from retina_codec.models.convolution_direct import full_precision
from retina_codec.models.convolution_parts import Sizes, sizes_of
from retina_codec.models.layers import MovieConvolution, SpatialConvolution

# (segments, frames, colors, height, width), (channels, history, ky, kx)
CASES = {
    "plane": ((2, 15, 1, 8, 9), (4, 6, 5, 3)),
    "odd width, colours": ((2, 13, 3, 7, 7), (4, 6, 3, 3)),
    "even width, 1 x 1 kernel": ((1, 9, 2, 6, 8), (3, 4, 1, 1)),
    "one output": ((3, 6, 1, 6, 5), (2, 6, 3, 2)),
    "one frame of history": ((2, 5, 3, 6, 6), (4, 1, 3, 3)),
    "two frames of history": ((1, 8, 1, 5, 5), (2, 2, 2, 2)),
    "whole frame": ((2, 15, 1, 8, 9), (4, 6, 8, 9)),
    "whole frame, colours": ((1, 12, 3, 4, 4), (2, 5, 4, 4)),
    "full field": ((2, 20, 1, 1, 1), (4, 7, 1, 1)),
    "full field, colours": ((1, 20, 3, 1, 1), (4, 7, 1, 1)),
    "bars along x": ((2, 15, 1, 1, 12), (4, 6, 1, 5)),
    "bars along y": ((2, 15, 1, 12, 1), (4, 6, 5, 1)),
    "whole bars": ((2, 15, 1, 1, 12), (4, 6, 1, 12)),
}


def inputs(case, dtype):
    (segments, frames, colors, *size), (channels, history, *kernel) = CASES[case]
    torch.manual_seed(0)
    movie = torch.randn(segments, frames, colors, *size, dtype=dtype, requires_grad=True)
    weight = torch.randn(channels, history, colors, *kernel, dtype=dtype, requires_grad=True)
    return movie, weight


def on_windows(movie, weight):
    windows = movie.unfold(1, weight.shape[1], 1).movedim(-1, 2).flatten(0, 1)
    return functional.conv2d(windows.flatten(1, 2), weight.flatten(1, 2))


def all_routes():
    for case in CASES:
        movie, weight = inputs(case, torch.float32)
        for route in costs(sizes_of(movie, weight)):
            yield pytest.param(case, route, id=f"{case}, {route}")


def assert_close(ours, literal, relative):
    assert ours.shape == literal.shape
    assert (ours - literal).abs().max() <= relative * literal.abs().max()


@pytest.mark.parametrize("budget", [None, 3000], ids=["at once", "in stretches"])
@pytest.mark.parametrize(("dtype", "relative"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize(("case", "route"), list(all_routes()))
def test_every_route_is_conv2d_on_stacked_windows(case, route, dtype, relative, budget):
    movie, weight = inputs(case, dtype)
    ours = correlate_movie(movie, weight, route=route, budget=budget)
    literal = on_windows(movie, weight)
    assert_close(ours, literal, relative)
    upstream = torch.randn_like(ours)
    found = torch.autograd.grad(ours, (movie, weight), upstream)
    expected = torch.autograd.grad(literal, (movie, weight), upstream)
    for a, b in zip(found, expected, strict=True):
        assert_close(a, b, relative)


@pytest.mark.parametrize(
    ("case", "route"),
    [
        ("plane", "fourier"),
        ("plane", "direct"),
        ("whole frame", "frames"),
        ("whole frame", "windows"),
        ("one frame of history", "fourier"),
    ],
)
def test_gradients_can_be_differentiated_again(case, route):
    movie, weight = inputs(case, torch.float64)

    def curved(movie, weight):
        return correlate_movie(movie, weight, route=route) ** 3

    # Random directions: one number a product of derivatives, not one for each pair of inputs.
    assert torch.autograd.gradcheck(curved, (movie, weight), fast_mode=True)
    assert torch.autograd.gradgradcheck(curved, (movie, weight), fast_mode=True)


def test_published_first_layer_equals_windows():
    torch.manual_seed(0)
    movie = torch.randn(2, 39 + 9, 1, 50, 50)
    layer = MovieConvolution(40, 8, (15, 15))
    assert cheapest(sizes_of(movie, layer.weight)) == "fourier"
    ours = layer(movie)
    literal = on_windows(movie, layer.weight) + layer.bias[:, None, None]
    assert_close(ours, literal, 1e-5)
    upstream = torch.randn_like(ours)
    for parameter in (layer.weight, layer.bias):
        (a,) = torch.autograd.grad(ours, parameter, upstream, retain_graph=True)
        (b,) = torch.autograd.grad(literal, parameter, upstream, retain_graph=True)
        assert_close(a, b, 1e-5)


@pytest.mark.parametrize(("dtype", "relative"), [(torch.float32, 1e-4), (torch.float64, 1e-11)])
def test_gradients_of_a_training_step_are_those_on_windows(dtype, relative):
    model = rc.models.BNCNN(
        (20, 20), history=20, bin_width=0.01, cells=["a", "b", "c"], kernel_sizes=(7, 5), noise=0.0
    )
    network = model.network.to(dtype).train()
    torch.manual_seed(0)
    movie = torch.randn(3, 19 + 16, 20, 20, dtype=dtype)
    counts = torch.poisson(torch.full((48, 3), 0.3, dtype=dtype))

    class OnWindows(torch.nn.Module):
        def forward(self, movie):
            conv1, conv2 = network.conv1, network.conv2
            x = on_windows(movie[:, :, None], conv1.weight) + conv1.bias[:, None, None]
            x = network.relu1(network.norm1(x))
            x = functional.conv2d(x, conv2.weight, conv2.bias)
            x = network.relu2(network.norm2(x)).flatten(1)
            return network.rate(network.norm3(network.dense(x)))

    found = {}
    for name, forward in (("ours", network), ("windows", OnWindows())):
        expected = forward(movie) * 0.01
        loss = (expected - counts * expected.log()).mean()
        found[name] = torch.autograd.grad(loss, list(network.parameters()))
    for (name, _), a, b in zip(network.named_parameters(), *found.values(), strict=True):
        if name not in ("conv1.bias", "conv2.bias"):  # before batch norm: nothing but rounding
            assert (a - b).norm() <= relative * b.norm(), name


@pytest.mark.parametrize("size", [(9, 9), (36, 36)])
def test_spatial_convolution_is_conv2d(size):
    torch.manual_seed(0)
    ours, plain = SpatialConvolution(8, 6, 7).double(), torch.nn.Conv2d(8, 6, 7).double()
    plain.load_state_dict(ours.state_dict())
    assert str(ours) == str(plain)
    planes = torch.randn(40, 8, *size, dtype=torch.float64, requires_grad=True)
    a, b = ours(planes), plain(planes)
    assert_close(a, b, 1e-12)
    upstream = torch.randn_like(a)
    found = torch.autograd.grad(a, (planes, *ours.parameters()), upstream)
    expected = torch.autograd.grad(b, (planes, *plain.parameters()), upstream)
    for x, y in zip(found, expected, strict=True):
        assert_close(x, y, 1e-12)


def tf32_of_convolutions():
    """What cuDNN may do now, by the name that this PyTorch has for it."""
    if hasattr(torch.backends.cudnn, "conv"):
        return torch.backends.cudnn.conv.fp32_precision == "tf32"
    return torch.backends.cudnn.allow_tf32


@pytest.fixture
def allowing_tf32():
    """PyTorch's default, whatever this process has set."""
    conv = getattr(torch.backends.cudnn, "conv", None)
    at, name, value = (
        (torch.backends.cudnn, "allow_tf32", True)
        if conv is None
        else (conv, "fp32_precision", "tf32")
    )
    before = getattr(at, name)
    setattr(at, name, value)
    yield
    setattr(at, name, before)


class TestFullPrecision:
    def test_for_as_long_as_it_lasts(self, allowing_tf32):
        with full_precision():
            assert not tf32_of_convolutions()
            with full_precision():
                assert not tf32_of_convolutions()
            assert not tf32_of_convolutions()
        assert tf32_of_convolutions()

    def test_is_put_back_after_an_error(self, allowing_tf32):
        with pytest.raises(RuntimeError, match="size of tensor"), full_precision():
            torch.zeros(2) + torch.zeros(3)
        assert tf32_of_convolutions()

    def test_covers_every_convolution_of_all_passes(self, allowing_tf32, monkeypatch):
        seen = []

        def recorded(name):
            original = getattr(at, name)

            def call(*args, **options):
                seen.append((name, tf32_of_convolutions()))
                return original(*args, **options)

            return call

        for at, name in (
            (convolution_direct.functional, "conv2d"),
            (convolution_direct, "conv2d_input"),
            (convolution_direct, "conv2d_weight"),
        ):
            monkeypatch.setattr(at, name, recorded(name))
        movie, weight = inputs("plane", torch.float32)
        output = (correlate_movie(movie, weight, route="direct") ** 3).sum()
        first = torch.autograd.grad(output, (movie, weight), create_graph=True)
        # The second pass runs long after the first, outside of any block of the caller's.
        sum(tensor.square().sum() for tensor in first).backward()
        assert {name for name, _ in seen} == {"conv2d", "conv2d_input", "conv2d_weight"}
        assert len(seen) > 6
        assert not any(tf32 for _, tf32 in seen)
        assert tf32_of_convolutions()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestCuda:
    """CUDA against the CPU in double precision, with TF32 allowed as PyTorch allows it."""

    @pytest.mark.parametrize(("dtype", "relative"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
    @pytest.mark.parametrize(("case", "route"), list(all_routes()))
    def test_routes(self, allowing_tf32, case, route, dtype, relative):
        movie, weight = inputs(case, dtype)
        literal = on_windows(movie.double(), weight.double())
        upstream = torch.randn_like(literal)
        expected = torch.autograd.grad(literal, (movie, weight), upstream)
        there = [tensor.detach().cuda().requires_grad_() for tensor in (movie, weight)]
        ours = correlate_movie(*there, route=route)
        assert ours.is_cuda
        found = torch.autograd.grad(ours, there, upstream.to(dtype).cuda())
        assert_close(ours.double().cpu(), literal, relative)
        for a, b in zip(found, expected, strict=True):
            assert_close(a.double().cpu(), b.double(), relative)

    @pytest.mark.parametrize("make", [rc.models.BNCNN, rc.models.StackedBNCNN])
    @pytest.mark.parametrize(("dtype", "relative"), [(torch.float32, 1e-4), (torch.float64, 1e-11)])
    def test_networks(self, allowing_tf32, make, dtype, relative):
        settings = {"history": 20, "bin_width": 0.01, "cells": ["a", "b"], "kernel_sizes": (7, 3)}
        network = make((20, 20), **settings, noise=0.0).network.double().train()
        torch.manual_seed(0)
        movie = torch.randn(3, 19 + 16, 20, 20, dtype=torch.double)
        upstream = torch.randn(48, 2, dtype=torch.double)
        results = []
        for device, precision in (("cpu", torch.double), ("cuda", dtype)):
            network.to(device, precision)
            parameters = {  # biases before batch norm: nothing but rounding
                name: parameter
                for name, parameter in network.named_parameters()
                if not ("conv" in name and name.endswith("bias"))
            }
            rate = network(movie.to(device, precision))
            gradients = torch.autograd.grad(
                rate, list(parameters.values()), upstream.to(device, precision)
            )
            results.append([tensor.double().cpu() for tensor in (rate, *gradients)])
        for expected, found in zip(*results, strict=True):
            assert (found - expected).norm() <= relative * expected.norm()


@pytest.mark.parametrize(
    ("sizes", "route"),
    [
        (Sizes(8, 71, 1, 50, 50, 8, 40, 15, 15), "fourier"),  # the published first layer
        (Sizes(256, 1, 8, 36, 36, 8, 1, 11, 11), "fourier"),  # the published second layer
        (Sizes(8, 71, 1, 50, 50, 8, 1, 1, 1), "direct"),  # one product a pixel
        (Sizes(256, 1, 8, 50, 50, 8, 1, 3, 3), "direct"),
        (Sizes(1, 295, 1, 50, 50, 5, 40, 50, 50), "frames"),  # LN
        (Sizes(1, 2039, 1, 1, 1, 8, 40, 1, 1), "windows"),  # full field
    ],
)
def test_route_of_known_layers(sizes, route):
    assert cheapest(sizes) == route


class PeakMemory(TorchDispatchMode):
    """Most bytes that tensors made inside held at once."""

    def __init__(self):
        super().__init__()
        self.alive, self.peak = {}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.alive[StorageWeakRef(storage)] = storage.nbytes()
        self.alive = {ref: n for ref, n in self.alive.items() if not ref.expired()}
        self.peak = max(self.peak, sum(self.alive.values()))
        return result


def peak_of_a_step(route, budget):
    movie = torch.zeros(2, 300 + 39, 1, 24, 24)
    weight = torch.zeros(2, 40, 1, 13, 13, requires_grad=True)
    with PeakMemory() as memory:
        correlate_movie(movie, weight, route=route, budget=budget).sum().backward()
    return memory.peak


@pytest.mark.parametrize("route", ["fourier", "direct"])
def test_budget_bounds_the_memory_of_both_passes(route):
    budget = 4 * 2**20
    outputs = 4 * 600 * 2 * 12 * 12  # and as much for their gradients
    kernels = 6 * 4 * 2 * 24 * 13 * 4 * 2 * 44  # repeated kernels, their products and gradients
    bounded = peak_of_a_step(route, budget)
    assert bounded < 1.5 * budget + 2 * outputs + kernels
    assert peak_of_a_step(route, 2**40) > 2 * bounded


def test_a_later_frame_cannot_alter_an_earlier_output():
    torch.manual_seed(0)
    layer = MovieConvolution(6, 3, (5, 5))
    movie = torch.randn(1, 40, 12, 12)
    later = movie.clone()
    later[:, 30:] += 10
    before, after = layer(movie), layer(later)
    torch.testing.assert_close(before[:25], after[:25], rtol=1e-5, atol=1e-5)
    assert ((before - after)[25:].abs().amax((1, 2, 3)) > 0.1).all()


def test_segments_do_not_touch():
    torch.manual_seed(0)
    layer = MovieConvolution(6, 3, (5, 5)).double()
    movie = torch.randn(3, 17, 12, 12, dtype=torch.float64)
    apart = torch.cat([layer(part[None]) for part in movie])
    torch.testing.assert_close(layer(movie), apart, rtol=1e-11, atol=1e-12)


class TestBadInput:
    def test_unknown_route(self):
        movie, weight = torch.zeros(1, 5, 1, 4, 4), torch.zeros(2, 3, 1, 2, 2)
        with pytest.raises(ValueError, match="route='frames'; expected one of direct, fourier"):
            correlate_movie(movie, weight, route="frames")

    @pytest.mark.parametrize(
        ("shape", "message"),
        [
            ((1, 5, 2, 4, 4), "2 colour planes; the kernels take 1"),
            ((1, 2, 1, 4, 4), "2 frames is shorter than the history of 3 frames"),
            ((1, 5, 1, 4, 1), r"frames of \(4, 1\) are smaller than the kernels, \(2, 2\)"),
        ],
    )
    def test_movie_that_does_not_fit(self, shape, message):
        with pytest.raises(ValueError, match=message):
            correlate_movie(torch.zeros(shape), torch.zeros(2, 3, 1, 2, 2))
