"""Each sample's own gradient: against finite differences of single windows."""

import numpy as np
import pytest
import torch
import xarray as xr

import retina_codec as rc
from retina_codec.attribution.capture import undisturbed
from retina_codec.attribution.input_gradients import (
    InputGradients,
    SeparateInputs,
    chosen_outputs,
    weighted_sums,
)

HISTORY, SIDE, MEAN, SD = 5, 9, 2.0, 0.5


@pytest.fixture(scope="module")
def model():
    made = rc.models.BNCNN(
        (SIDE, SIDE), history=HISTORY, bin_width=0.01, cells=["a", "b", "c"], channels=(3, 4),
        kernel_sizes=(3, 3), mean=MEAN, sd=SD, seed=1,
    )  # fmt: skip
    made.network.double()
    return made


@pytest.fixture(scope="module")
def movie():
    """Three blocks, one of them with a single whole history."""
    rng = np.random.default_rng(0)
    blocks = np.repeat([0, 1, 2], [12, HISTORY, 9])
    values = rng.normal(MEAN, SD, (len(blocks), SIDE, SIDE)).astype(np.float32)
    time = rc.time_coordinate(np.arange(len(blocks)) * 0.01, 0.01)
    return xr.DataArray(
        values, {"time": time, "block": ("time", blocks)}, ("time", "y", "x")
    )  # fmt: skip


def value_of_window(model, frames, function):
    """One number of one window in recorded units, without anything of the package's."""
    inputs = torch.from_numpy((frames.astype(np.float64) - MEAN) / SD)[None]
    with torch.no_grad():
        return float(function(inputs))


def numerical(model, frames, function, places, step=1e-4):
    slopes = []
    for place in places:
        up, down = frames.astype(np.float64).copy(), frames.astype(np.float64).copy()
        up[place] += step
        down[place] -= step
        change = value_of_window(model, up, function) - value_of_window(model, down, function)
        slopes.append(change / (2 * step))
    return np.array(slopes)


def gradients(model, movie, functions, **options):
    with undisturbed(model):
        found = InputGradients(model, model.samples(movie), functions, **options)
        parts = list(found.batches())
    return (
        np.concatenate([np.arange(index.start, index.stop) for index, _, _ in parts]),
        torch.cat([values for _, values, _ in parts]).numpy(),
        torch.cat([gradient for _, _, gradient in parts]).numpy(),
    )


PLACES = [(HISTORY - 1, 4, 4), (0, 3, 5), (2, 8, 0), (HISTORY - 2, 5, 4)]
# The frame of each sample: the last of its window.
FRAMES = [4, 5, 6, 7, 8, 9, 10, 11, 16, 21, 22, 23, 24, 25]


def test_outputs_agree_with_finite_differences_of_each_window(model, movie):
    index, values, found = gradients(model, movie, chosen_outputs([2, 0]), batch_size=3)
    np.testing.assert_array_equal(index, np.arange(len(FRAMES)))
    assert found.shape == (len(FRAMES), 2, HISTORY, SIDE, SIDE)
    rates = model.predict(movie).values
    np.testing.assert_allclose(values, rates[:, [2, 0]], rtol=1e-6)
    with undisturbed(model):
        for sample in (0, 4, 8, 9, 13):  # 8 is the only one of its block
            frames = movie.values[FRAMES[sample] - HISTORY + 1 : FRAMES[sample] + 1]
            for k, cell in enumerate((2, 0)):
                slopes = numerical(model, frames, lambda x, c=cell: model.network(x)[0, c], PLACES)
                got = [found[(sample, k, *place)] for place in PLACES]
                np.testing.assert_allclose(got, slopes, rtol=1e-4, atol=1e-7)


def test_weighted_units_of_a_layer_and_weights_of_each_sample(model, movie):
    rng = np.random.default_rng(1)
    shape = (4, 5, 5)
    shared = torch.from_numpy(rng.normal(size=(2, *shape)))
    own = torch.from_numpy(rng.normal(size=(len(FRAMES), 1, *shape)))
    module = model.layer("relu2")

    def layer(inputs):
        kept = []
        handle = module.register_forward_hook(lambda m, i, output: kept.append(output))
        model.network(inputs)
        handle.remove()
        return kept[0]

    sample = 9
    frames = movie.values[FRAMES[sample] - HISTORY + 1 : FRAMES[sample] + 1]
    for weights, used in ((shared, shared[1]), (own, own[sample, 0])):
        _, values, found = gradients(model, movie, weighted_sums(weights), layer="relu2")
        k = weights.shape[-4] - 1
        with undisturbed(model):
            total = value_of_window(model, frames, lambda x, w=used: (layer(x)[0] * w).sum())
            slopes = numerical(model, frames, lambda x, w=used: (layer(x)[0] * w).sum(), PLACES)
        np.testing.assert_allclose(values[sample, k], total, rtol=1e-5)
        np.testing.assert_allclose(
            [found[(sample, k, *place)] for place in PLACES], slopes, rtol=1e-4, atol=1e-6
        )


def test_neither_batches_nor_the_choice_of_samples_change_a_gradient(model, movie):
    _, values, whole = gradients(model, movie, chosen_outputs([1]), batch_size=64)
    for size in (1, 5):
        _, same, found = gradients(model, movie, chosen_outputs([1]), batch_size=size)
        np.testing.assert_allclose(found, whole, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(same, values, rtol=1e-9)
    chosen = np.array([1, 2, 8, 12])
    _, _, some = gradients(model, movie, chosen_outputs([1]), chosen=chosen, batch_size=3)
    np.testing.assert_allclose(some, whole[chosen], rtol=1e-9, atol=1e-12)


def test_separate_inputs_are_the_windows_of_the_frames(model, movie):
    separate = SeparateInputs(model.samples(movie), np.array([0, 8, 9]))
    assert len(separate) == 3
    np.testing.assert_array_equal(separate.coords["time"], movie["time"].values[[4, 16, 21]])
    (batch,) = separate.batches(10)
    for inputs, frame in zip(batch.inputs.numpy(), (4, 16, 21), strict=True):
        expected = (movie.values[frame - HISTORY + 1 : frame + 1] - MEAN) / SD
        np.testing.assert_allclose(inputs, expected, rtol=1e-6)
    sizes = [batch.index for batch in SeparateInputs(model.samples(movie)).batches(4, 2, 13)]
    assert sizes == [slice(2, 6), slice(6, 10), slice(10, 13)]


def test_images_have_the_gradient_per_recorded_unit_of_each_colour():
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(2, 3, 3), torch.nn.ReLU(inplace=True), torch.nn.Flatten(),
        torch.nn.Linear(3 * 9, 2),
    )  # fmt: skip
    model = rc.classifiers.from_module(
        net, categories=["p", "q"], mean=(0.4, 0.5), sd=(0.2, 0.3)
    )  # fmt: skip
    rng = np.random.default_rng(0)
    images = xr.DataArray(
        rng.random((3, 2, 5, 5)).astype(np.float32), dims=("image", "color", "y", "x")
    )  # fmt: skip
    _, _, found = gradients(model, images, chosen_outputs([1]))
    pushed = images.copy(deep=True)
    for place in ((0, 2, 2), (1, 4, 1)):
        pushed.values[:] = images.values
        pushed[(slice(None), *place)] += 1e-2 * np.where(images[(slice(None), *place)] > 0.5, -1, 1)
        change = (model.predict(pushed) - model.predict(images)).values[:, 1]
        step = (pushed - images).values[(slice(None), *place)]
        np.testing.assert_allclose(found[(slice(None), 0, *place)], change / step, rtol=2e-2)


def test_nothing_is_left_behind_also_when_the_network_raises(model, movie):
    def broken(outputs, sample):
        raise RuntimeError("broken")

    random = torch.random.get_rng_state()
    model.network.train()
    with undisturbed(model):
        list(InputGradients(model, model.samples(movie), chosen_outputs([0])).batches())
        with pytest.raises(RuntimeError, match="broken"):
            InputGradients(model, model.samples(movie), broken, layer="relu1")
    assert all(module.training for module in model.network.modules())
    assert all(p.requires_grad and p.grad is None for p in model.network.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.network.modules())
    assert torch.equal(random, torch.random.get_rng_state())
    model.network.eval()


def test_a_function_that_does_not_see_the_input_has_no_gradient(model, movie):
    _, _, found = gradients(model, movie, lambda outputs, sample: torch.ones(len(outputs), 1))
    assert not found.any()
