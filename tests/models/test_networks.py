"""Retina networks against convolutions on stacked windows, and what may not depend on what."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch.nn import functional

import retina_codec as rc
from retina_codec._common.time import block_coordinate, time_coordinate
from retina_codec.models.layers import MovieConvolution


def movie_of(n, shape=(8, 9), seed=0, blocks=None):
    values = np.random.default_rng(seed).normal(size=(n, *shape)).astype(np.float32)
    coords = {"time": time_coordinate(np.arange(n) * 0.01, 0.01)}
    coords |= {"y": 100.0 + 4 * np.arange(shape[0]), "x": 4.0 * np.arange(shape[1])}
    if blocks is not None:
        coords["block"] = block_coordinate(blocks)
    return xr.DataArray(values, dims=("time", "y", "x"), coords=coords)


@pytest.mark.parametrize(
    ("kernel", "size", "colors"),
    [((5, 3), (8, 9), 1), ((3, 3), (7, 7), 2), ((8, 9), (8, 9), 1), ((1, 1), (1, 1), 1)],
)
def test_movie_convolution_is_conv2d_on_stacked_windows(kernel, size, colors):
    torch.manual_seed(0)
    layer = MovieConvolution(6, 4, kernel, colors=colors).double()
    movie = torch.randn(2, 15, colors, *size, dtype=torch.double, requires_grad=True)
    ours = layer(movie)
    windows = movie.unfold(1, 6, 1).movedim(-1, 2).flatten(0, 1)  # (N, lag, color, y, x)
    literal = functional.conv2d(windows.flatten(1, 2), layer.weight.flatten(1, 2), layer.bias)
    torch.testing.assert_close(ours, literal, rtol=1e-10, atol=1e-12)
    upstream = torch.randn_like(ours)
    for tensor in (movie, layer.weight, layer.bias):
        (a,) = torch.autograd.grad(ours, tensor, upstream, retain_graph=True)
        (b,) = torch.autograd.grad(literal, tensor, upstream, retain_graph=True)
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def small_model(**options):
    settings = {"history": 5, "bin_width": 0.01, "cells": ["a", "b", "c"], "kernel_sizes": (3, 3)}
    return rc.models.BNCNN((8, 9), **(settings | options))


def test_prediction_depends_neither_on_batches_nor_on_dim_order():
    model, movie = small_model(), movie_of(60)
    whole = model.predict(movie)
    xr.testing.assert_allclose(whole, model.predict(movie, batch_size=7), rtol=1e-5)
    xr.testing.assert_allclose(whole, model.predict(movie.transpose("x", "time", "y")), rtol=1e-5)


def test_a_later_frame_cannot_alter_an_earlier_rate():
    model, movie = small_model(), movie_of(60)
    changed = movie.copy()
    changed[40:] += 3
    before, after = model.predict(movie), model.predict(changed)
    same = before["time"] < movie["time"].values[40]
    xr.testing.assert_allclose(before[same.values], after[same.values], rtol=1e-5)
    assert (abs(before - after)[~same.values].max("cell") > 1e-3).all()


def test_no_window_crosses_a_block():
    model = small_model()
    movie = movie_of(60, blocks=np.repeat([0, 1], [25, 35]))
    predicted = model.predict(movie)
    parts = [model.predict(movie[:25]), model.predict(movie[25:])]
    np.testing.assert_allclose(predicted.values, xr.concat(parts, "time").values, rtol=1e-4)
    assert predicted.sizes["time"] == 60 - 2 * 4
    assert set(predicted["block"].values) == {0, 1}
    np.testing.assert_array_equal(predicted["time"].values[:21], movie["time"].values[4:25])


def test_movie_is_normalised_by_the_models_mean_and_sd():
    movie = movie_of(30)
    plain = small_model().predict(movie)
    scaled = small_model(mean=50.0, sd=4.0).predict(movie * 4 + 50)
    np.testing.assert_allclose(plain.values, scaled.values, rtol=1e-3)


def test_hidden_units_have_places_in_the_movie():
    model, movie = small_model(), movie_of(20)
    tree = rc.contributions(model, movie, layers=("relu1", "relu2"), progress=False)
    # 3 x 3 kernels on pixels 4 apart: the first centre is one pixel in, then two.
    np.testing.assert_allclose(tree["layers/relu1"]["y"][:2], [104, 108])
    np.testing.assert_allclose(tree["layers/relu2"]["x"][:2], [8, 12])
    assert tree["layers/relu1"].sizes["y"] == 6
    assert tree["layers/relu1"].sizes["x"] == 7


def test_from_module_sees_windows_in_time_order():
    class LastMinusFirst(torch.nn.Module):
        def forward(self, windows):
            return (windows[:, -1] - windows[:, 0]).mean((1, 2))[:, None]

    model = rc.models.from_module(LastMinusFirst(), history=4, bin_width=0.01, cells=["a"])
    movie = movie_of(12)
    mean = movie.mean(("y", "x")).values
    np.testing.assert_allclose(model.predict(movie)[:, 0], mean[3:] - mean[:-3], atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 12), (50, 50)])
def test_default_kernels_fit_any_frame(size):
    model = rc.models.BNCNN(size, history=3, bin_width=0.01, cells=["a"])
    assert model.predict(movie_of(6, size)).sizes == {"time": 4, "cell": 1}
    expected = {(1, 1): (1, 1), (1, 12): (1, 1), (50, 50): (15, 15)}[size]
    assert model.layers["conv1"].kernel_size == expected


def test_save_and_load_keep_the_model(tmp_path):
    model, movie = small_model(mean=0.3, sd=2.0, seed=5), movie_of(30)
    loaded = rc.load_model(model.save(tmp_path / "model"))
    assert loaded.fingerprint == model.fingerprint
    assert loaded.predict(movie).attrs == model.predict(movie).attrs
    xr.testing.assert_identical(loaded.predict(movie), model.predict(movie))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_fingerprint_tells_weights_and_cells_apart():
    prints = {
        small_model().fingerprint,
        small_model(seed=1).fingerprint,
        small_model(cells=["a", "b", "d"]).fingerprint,
        small_model(sd=2.0).fingerprint,
    }
    assert len(prints) == 4
    assert small_model().fingerprint in prints


class TestBadInput:
    def test_wrong_frame(self):
        with pytest.raises(ValueError, match=r"frames of \(5, 5\); the model takes .*\(8, 9\)"):
            small_model().predict(movie_of(20, (5, 5)))

    def test_wrong_dims(self):
        movie = movie_of(20).rename(time="frame")
        with pytest.raises(ValueError, match=r"rename with \.rename\(frame='time'\)"):
            small_model().predict(movie)

    def test_bare_array(self):
        with pytest.raises(TypeError, match=r"data is a ndarray; expected an xarray.DataArray"):
            small_model().predict(movie_of(20).values)

    def test_nan(self):
        movie = movie_of(20)
        movie[13, 2, 2] = np.nan
        with pytest.raises(ValueError, match="first in frame 13"):
            small_model().predict(movie)

    def test_other_bin_width(self):
        movie = movie_of(20)
        movie = movie.assign_coords(time=time_coordinate(np.arange(20) * 0.02, 0.02))
        with pytest.raises(ValueError, match=r"bins of 0\.02 s; the model was made for 0\.01 s"):
            small_model().predict(movie)

    def test_bin_width_that_lies(self):
        movie = movie_of(20)
        movie = movie.assign_coords(time=time_coordinate(np.arange(20) * 10.0, 0.01))
        with pytest.raises(ValueError, match="time is not in seconds"):
            small_model().predict(movie)

    def test_block_shorter_than_history(self):
        with pytest.raises(ValueError, match=r"no block of at least history=5 frames .*has 4"):
            small_model().predict(movie_of(4))

    @pytest.mark.parametrize("damage", ["missing", "cut", "other", "unknown"])
    def test_damaged_model(self, tmp_path, damage):
        folder = small_model().save(tmp_path / "model")
        weights, config = folder / "weights.safetensors", folder / "config.yaml"
        if damage == "missing":
            weights.unlink()
            with pytest.raises(FileNotFoundError, match=r"has no weights\.safetensors"):
                rc.load_model(folder)
        elif damage == "cut":
            weights.write_bytes(weights.read_bytes()[:-10])
            with pytest.raises(ValueError, match="does not hold this model's weights"):
                rc.load_model(folder)
        elif damage == "other":
            other = small_model(seed=3).save(tmp_path / "other")
            weights.write_bytes((other / "weights.safetensors").read_bytes())
            with pytest.raises(ValueError, match="not those that were saved"):
                rc.load_model(folder)
        else:
            config.write_text(config.read_text().replace("BNCNN", "BNCN"))
            with pytest.raises(ValueError, match="did you mean 'BNCNN'"):
                rc.load_model(folder)
