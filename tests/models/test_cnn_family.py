"""What holds for every convolutional model of the retina, whatever its layers."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch.nn import functional

import retina_codec as rc
from retina_codec._common.time import block_coordinate, time_coordinate
from retina_codec.models.bncnn import BNCNN
from retina_codec.models.cnn2016 import CNN2016
from retina_codec.models.cnn_family import fitting_kernels
from retina_codec.models.retinotopic import Retinotopic
from retina_codec.models.stacked import StackedBNCNN

FAMILY = [BNCNN, CNN2016, StackedBNCNN, Retinotopic]
VARIANTS = [
    (BNCNN, {}),
    (BNCNN, {"norm": "unit", "positive_norm": True, "rate_units": "Hz"}),
    (BNCNN, {"channels": (3, 2, 4), "kernel_sizes": (3, 3, 2)}),
    (CNN2016, {}),
    (StackedBNCNN, {}),
    (StackedBNCNN, {"stages": (2, 3), "stage_channels": (5, 2), "norm": "channel"}),
    (Retinotopic, {}),
    (Retinotopic, {"types": ["on", "off", "on"], "places": [(3, 3), (4, 5), (3, 6)]}),
    (Retinotopic, {"stacked": False, "norm": "channel"}),
]
SHAPES = [(1, 1), (1, 12), (12, 1), (9, 10), (2, 9, 10), (3, 1, 1)]


def movie_of(n, shape=(12, 13), seed=0, blocks=None):
    values = np.random.default_rng(seed).normal(size=(n, *shape)).astype(np.float32)
    coords = {"time": time_coordinate(np.arange(n) * 0.01, 0.01)}
    if blocks is not None:
        coords["block"] = block_coordinate(blocks)
    dims = ("time", "y", "x") if len(shape) == 2 else ("time", "color", "y", "x")
    return xr.DataArray(values, dims=dims, coords=coords)


def model_of(cls, shape=(12, 13), seed=0, **options):
    """A model with kernels of several stages, and weights that no initial value hides."""
    settings = {"history": 5, "bin_width": 0.01, "cells": ["a", "b", "c"], "seed": seed}
    if min(shape[-2:]) > 1 and "kernel_sizes" not in options:
        settings["kernel_sizes"] = (5, 4, 2) if cls is Retinotopic else (5, 4)
    model = cls(shape, **(settings | options))
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, tensor in model.network.state_dict().items():
            if tensor.is_floating_point():
                values = torch.randn(tensor.shape, generator=generator)
                if tensor.ndim > 1 and "choice" not in name:
                    values *= 1.4 / tensor[0].numel() ** 0.5
                tensor.copy_(values.abs() + 0.3 if name.endswith("running_var") else values)
    return model


@pytest.mark.parametrize(("cls", "options"), VARIANTS)
def test_a_later_frame_cannot_alter_an_earlier_rate(cls, options):
    model, movie = model_of(cls, **options), movie_of(40)
    changed = movie.copy()
    changed[25:] += 3
    before, after = model.predict(movie), model.predict(changed)
    same = (before["time"] < movie["time"].values[25]).values
    xr.testing.assert_allclose(before[same], after[same], rtol=1e-4, atol=1e-3)
    assert (abs(before - after)[~same].max("cell") > 1e-2).all()


@pytest.mark.parametrize(("cls", "options"), VARIANTS)
def test_no_window_crosses_a_block_and_batches_do_not_matter(cls, options):
    model = model_of(cls, **options)
    movie = movie_of(40, blocks=np.repeat([0, 1], [18, 22]))
    predicted = model.predict(movie)
    parts = [model.predict(movie[:18]), model.predict(movie[18:], batch_size=7)]
    assert predicted.sizes == {"time": 40 - 2 * 4, "cell": 3}
    np.testing.assert_allclose(
        predicted.values, xr.concat(parts, "time").values, rtol=1e-3, atol=1e-3
    )
    np.testing.assert_array_equal(predicted["time"].values[:14], movie["time"].values[4:18])


@pytest.mark.parametrize(("cls", "options"), VARIANTS)
def test_save_and_load_keep_the_model(tmp_path, cls, options):
    model, movie = model_of(cls, mean=0.3, sd=2.0, **options), movie_of(20)
    loaded = rc.load_model(model.save(tmp_path / "model"))
    assert type(loaded) is cls
    assert loaded.fingerprint == model.fingerprint
    xr.testing.assert_identical(loaded.predict(movie), model.predict(movie))
    assert loaded._config == model._config
    other = model_of(cls, seed=4, mean=0.3, sd=2.0, **options)
    assert other.fingerprint != model.fingerprint


@pytest.mark.parametrize("cls", FAMILY)
@pytest.mark.parametrize("shape", SHAPES)
def test_any_frame_has_fitting_kernels(cls, shape):
    model = cls(shape, history=3, bin_width=0.02, cells=["a", "b"])
    rate = model.network(torch.randn(2, 7, *shape))
    assert rate.shape == (2 * 5, 2)
    assert (rate > 0).all()


@pytest.mark.parametrize(
    ("cls", "kernels"),
    [
        (BNCNN, [15, 11]),
        (CNN2016, [15, 9]),
        (StackedBNCNN, [15, 11]),
        (Retinotopic, [15, 11, 11]),
    ],
)
def test_published_kernels_on_published_frames(cls, kernels):
    model = cls((50, 50), history=40, bin_width=0.01, cells=["a"])
    assert model._config["kernel_sizes"] == kernels
    assert model._config["channels"] == ([16, 8] if cls is CNN2016 else [8, 8])
    assert model.layers["noise1"].sd == (0.1 if cls is CNN2016 else 0.05)
    assert fitting_kernels(25, kernels)[0] == 7


@pytest.mark.parametrize("cls", FAMILY)
def test_model_of_a_recording_starts_at_its_mean_rates(cls):
    movie = movie_of(400, (6, 6)) * 4 + 50
    counts = np.random.default_rng(1).poisson([0.1, 0.4, 1.2], size=(400, 3))
    node = xr.Dataset(
        {"stimulus": movie, "spike_count": (("time", "cell"), counts)}, {"cell": ["a", "b", "c"]}
    )
    mean = counts.mean(0) / 0.01
    for units in ("per_bin", "Hz"):
        model = cls.for_recording(node, history=7, kernel_sizes=None, rate_units=units)
        assert model.outputs.tolist() == ["a", "b", "c"]
        assert (model.history, model.bin_width, model.input_shape) == (7, 0.01, (6, 6))
        assert model.mean == pytest.approx(50, abs=0.2)
        # Without drive from the dense layer or maps, what is left is the bias.
        for name, tensor in model.network.state_dict().items():
            if name in ("dense.weight", "conv3.weight", "conv3.bias"):
                tensor.zero_()
        np.testing.assert_allclose(model.predict(movie)[0].values, mean, rtol=1e-3)


@pytest.mark.parametrize("cls", FAMILY)
def test_noise_is_added_before_relu_in_training_only(cls):
    model = model_of(cls, noise=0.7)
    caught = {}
    for name in ("noise1", "relu1"):
        model.layers[name].register_forward_hook(
            lambda module, given, out, name=name: caught.update({name: (given[0], out)})
        )
    frames = torch.randn(4, 60, 12, 13)
    with torch.no_grad():
        model.network(frames)
        torch.testing.assert_close(*caught["noise1"], rtol=0, atol=0)
        model.network.train()
        torch.manual_seed(0)
        model.network(frames)
    before, after = caught["noise1"]
    assert float((after - before).std()) == pytest.approx(0.7, rel=0.02)
    torch.testing.assert_close(caught["relu1"][1], functional.relu(after))


@pytest.mark.parametrize("cls", FAMILY)
def test_contributions_are_taken_after_relu_and_sum_to_the_change(cls):
    model = model_of(cls)
    movie = movie_of(12).assign_coords(y=10.0 + np.arange(12) * 2, x=np.arange(13.0))
    assert model.default_layers == ("relu1", "relu2")
    tree = rc.contributions(
        model, movie, method=rc.methods.IntegratedGradients(steps=64), progress=False
    )
    change = tree["target"] - tree["target_baseline"]
    assert float(abs(change).max()) > 1
    for name, size, y in (("relu1", 8, 14.0), ("relu2", 5, 17.0)):
        node = tree[f"layers/{name}"]
        total = node["contribution"].sum(("channel", "y", "x"))
        np.testing.assert_allclose(total.values, change.values, atol=0.02 * float(change.std()))
        # 5 x 5, then 4 x 4 kernels on pixels 2 apart.
        assert node.sizes["y"] == size
        np.testing.assert_allclose(node["y"][:2], [y, y + 2])


@pytest.mark.parametrize("cls", FAMILY)
def test_a_network_keeps_the_random_state(cls):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first, second = model_of(cls), model_of(cls)
    torch.testing.assert_close(torch.rand(3), expected)
    assert first.fingerprint == second.fingerprint
    assert (
        cls((5, 5), history=2, bin_width=0.01, cells=["a"], seed=1).fingerprint
        != cls((5, 5), history=2, bin_width=0.01, cells=["a"], seed=2).fingerprint
    )


@pytest.mark.parametrize("cls", FAMILY)
def test_bin_width_may_be_a_quantity(cls):
    import quantities as pq

    models = [cls((3, 3), history=2, bin_width=width, cells=["a"]) for width in (0.01, 10 * pq.ms)]
    frames = torch.randn(1, 5, 3, 3)
    torch.testing.assert_close(models[0].network(frames), models[1].network(frames))


class TestBadInput:
    @pytest.mark.parametrize("cls", FAMILY)
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"kernel_sizes": (3,)}, r"kernel_sizes=\(3,\) has 1 numbers; expected [23]"),
            ({"kernel_sizes": (3, 0, 3)[:2]}, "kernel_sizes"),
            ({"channels": (), "kernel_sizes": None}, "channels is empty"),
            ({"channels": (4, 0)}, "channels=0; expected"),
            ({"noise": -1}, "noise=-1"),
            ({"history": 0}, "history=0"),
            ({"rate_units": "kHz"}, "rate_units='kHz' is not known"),
        ],
    )
    def test_values(self, cls, options, message):
        with pytest.raises(ValueError, match=message):
            model_of(cls, **options)

    def test_kind_of_norm(self):
        for cls in (BNCNN, StackedBNCNN, Retinotopic):
            with pytest.raises(ValueError, match="norm='layer' is not known"):
                model_of(cls, norm="layer")

    def test_fraction_of_a_channel(self):
        with pytest.raises(TypeError, match=r"channels=2\.5; expected a whole number"):
            model_of(BNCNN, channels=(2.5, 3))
