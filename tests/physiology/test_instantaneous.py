"""Receptive fields at every moment: closed form, causality, stores, what is refused."""

import warnings

import numpy as np
import pytest
import torch
import xarray as xr

import retina_codec as rc

HISTORY, SIDE = 6, 8


def movie_of(n, *, blocks=None, mean=1.0, sd=0.3, seed=0, units="cd/m^2", shape=(SIDE, SIDE)):
    rng = np.random.default_rng(seed)
    values = rng.normal(mean, sd, (n, *shape)).astype(np.float32)
    coords = {
        "time": rc.time_coordinate(5.0 + np.arange(n) * 0.01, 0.01),
        "y": ("y", np.arange(SIDE) * 50.0, {"units": "um"}),
        "x": ("x", np.arange(SIDE) * 50.0, {"units": "um"}),
    }
    if blocks is not None:
        coords["block"] = ("time", np.asarray(blocks))
    dims = ("time", "y", "x") if len(shape) == 2 else ("time", "color", "y", "x")
    return xr.DataArray(values, coords, dims, attrs={"units": units})


@pytest.fixture(scope="module")
def ln():
    model = rc.models.LN(
        (SIDE, SIDE), history=HISTORY, bin_width=0.01, cells=["a", "b"], mean=1.0, sd=0.3, seed=3
    )
    with torch.no_grad():
        model.layers["filter"].weight.mul_(3)
    return model


@pytest.fixture(scope="module")
def bncnn():
    return rc.models.BNCNN(
        (SIDE, SIDE), history=HISTORY, bin_width=0.01, cells=["a", "b", "c"], channels=(3, 4),
        kernel_sizes=(3, 3), mean=1.0, sd=0.3, seed=1,
    )  # fmt: skip


def test_of_a_linear_nonlinear_model_it_is_the_filter_times_the_slope(ln):
    movie = movie_of(30, blocks=[0] * 14 + [1] * 16)
    found = rc.instantaneous_receptive_field(ln, movie, progress=False)
    weight = ln.layers["filter"].weight.detach().numpy()[:, ::-1, 0].astype(float)
    nonlinearity = ln.network.get_submodule("nonlinearity")
    normal = (movie.values.astype(float) - 1.0) / 0.3
    frames = [*range(HISTORY - 1, 14), *range(14 + HISTORY - 1, 30)]
    assert found.sizes == {"time": len(frames), "cell": 2, "lag": HISTORY, "y": SIDE, "x": SIDE}
    for i, frame in enumerate(frames):
        window = normal[frame - HISTORY + 1 : frame + 1][::-1]
        drive = torch.tensor((weight * window).sum((1, 2, 3)), dtype=torch.float64)
        drive.requires_grad_()
        (slope,) = torch.autograd.grad(nonlinearity(drive[None].float()).sum(), drive)
        expected = slope.numpy()[:, None, None, None] * weight / 0.3
        np.testing.assert_allclose(found.values[i], expected, rtol=2e-4, atol=1e-5)
    np.testing.assert_array_equal(found["time"], movie["time"].values[frames])
    np.testing.assert_array_equal(found["block"], movie["block"].values[frames])
    np.testing.assert_allclose(found["rate"].values, ln.predict(movie).values, rtol=1e-5)
    np.testing.assert_allclose(found["lag"], np.arange(HISTORY) * 0.01)
    assert found.attrs["units"] == "Hz/(cd/m^2)" and found["rate"].attrs["units"] == "Hz"
    assert found.attrs["model_fingerprint"] == ln.fingerprint
    assert found["y"].attrs["units"] == "um"


def test_a_step_of_the_stimulus_changes_the_rate_as_the_field_says(bncnn):
    movie = movie_of(25)
    found = rc.instantaneous_receptive_field(bncnn, movie, progress=False)
    before = bncnn.predict(movie)
    step, frame = 2e-3, 15
    changed = movie.copy(deep=True)
    changed[frame, 3, 4] += step
    change = (bncnn.predict(changed) - before) / step
    # The frame has the lag l in the response l bins later, and none in any other.
    for i, time in enumerate(found["time"].values):
        lag = round((time - float(movie["time"][frame])) / 0.01)
        expected = found[i, :, lag, 3, 4].values if 0 <= lag < HISTORY else 0.0
        np.testing.assert_allclose(change[i].values, expected, atol=2e-2 * float(abs(found).max()))
        if not 0 <= lag < HISTORY:
            assert not change[i].values.any()


def test_later_frames_and_other_blocks_do_not_enter(bncnn):
    movie = movie_of(24, blocks=[0] * 12 + [1] * 12)
    found = rc.instantaneous_receptive_field(bncnn, movie, progress=False)
    other = movie.copy(deep=True)
    other[9:] += 1.0
    again = rc.instantaneous_receptive_field(bncnn, other, progress=False)
    same = found["time"].values < movie["time"].values[9]
    np.testing.assert_array_equal(found.values[same], again.values[same])
    assert not np.allclose(found.values[~same], again.values[~same])


def test_cells_times_sums_and_batches_are_parts_of_the_whole(bncnn):
    movie = movie_of(24, blocks=[0] * 12 + [1] * 12)
    whole = rc.instantaneous_receptive_field(bncnn, movie, progress=False)
    times = whole["time"].values[[9, 2, 3]] + 0.004
    part = rc.instantaneous_receptive_field(
        bncnn, movie.transpose("x", "time", "y"), cells=["c", "a"], at=times, batch_size=2,
        progress=False,
    )  # fmt: skip
    expected = whole.isel(time=[2, 3, 9]).sel(cell=["c", "a"])
    xr.testing.assert_allclose(part, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(part["rate"], expected["rate"], rtol=1e-5)
    summed = rc.instantaneous_receptive_field(
        bncnn, movie, sum_over=("x", "lag"), batch_size=5, progress=False
    )
    np.testing.assert_allclose(summed, whole.sum(["x", "lag"]), rtol=1e-4, atol=1e-4)


def test_colour_planes_stay_apart():
    model = rc.models.LN((2, SIDE, SIDE), history=HISTORY, bin_width=0.01, cells=["a"], seed=1)
    movie = movie_of(9, shape=(2, SIDE, SIDE))
    found = rc.instantaneous_receptive_field(model, movie, progress=False)
    assert found.dims == ("time", "cell", "lag", "color", "y", "x")
    weight = model.layers["filter"].weight.detach().numpy()[0, ::-1]
    for field in found.values[:, 0]:
        assert np.corrcoef(field.ravel(), weight.ravel())[0, 1] > 1 - 1e-6


def test_a_store_holds_the_same_and_goes_on_where_it_was(bncnn, tmp_path, monkeypatch):
    movie = movie_of(100, blocks=[0] * 40 + [1] * 60).chunk(time=30)
    whole = rc.instantaneous_receptive_field(bncnn, movie.compute(), progress=False, batch_size=3)
    place = tmp_path / "fields.zarr"
    options = {"store": place, "batch_size": 3, "progress": False}
    calls = []
    normal = bncnn.network.forward

    def dies(inputs):
        calls.append(len(inputs))
        if len(calls) == 12:
            raise KeyboardInterrupt
        return normal(inputs)

    monkeypatch.setattr(bncnn.network, "forward", dies)
    with pytest.raises(KeyboardInterrupt):
        rc.instantaneous_receptive_field(bncnn, movie, **options)
    assert not place.exists() and place.with_name("fields.zarr.unfinished").exists()
    begun = len(calls)
    rc.instantaneous_receptive_field(bncnn, movie, **options)
    assert len(calls) - begun < begun + 30  # what was done is not done again
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = rc.instantaneous_receptive_field(bncnn, movie, **options)
        plain = xr.open_zarr(place, consolidated=True)
    assert opened.chunks is not None
    xr.testing.assert_allclose(opened.compute(), whole, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(opened["rate"], whole["rate"], rtol=1e-5)
    assert plain["receptive_field"].attrs["units"] == "Hz/(cd/m^2)"
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"holds another run: cells is"):
        rc.instantaneous_receptive_field(bncnn, movie, cells="a", store=place, progress=False)
    with pytest.raises(ValueError, match="holds no contributions; it is not replaced"):
        rc.contributions(bncnn, movie, store=place, progress=False)


def test_nothing_of_the_model_is_changed(bncnn):
    bncnn.network.train()
    random, fingerprint = torch.random.get_rng_state(), bncnn.fingerprint
    rc.instantaneous_receptive_field(bncnn, movie_of(9), progress=False)
    assert bncnn.network.training and bncnn.fingerprint == fingerprint
    assert all(p.requires_grad and p.grad is None for p in bncnn.network.parameters())
    assert torch.equal(random, torch.random.get_rng_state())
    bncnn.network.eval()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cells": ["a", "d"]}, "no cell 'd'; .*choices: a, b, c"),
        ({"cells": ["a", "a"]}, "cell twice"),
        ({"cells": []}, "cells is empty"),
        (
            {"at": [5.01]},
            r"at: 5.01 s is none of the 4 bins with a whole history of 6 frames, from",
        ),
        ({"at": []}, "at: it is empty"),
        ({"sum_over": "color"}, "sum_over='color' is not known"),
        ({"memory_limit": 1e3}, r"above memory_limit=1000: use fewer cells, sum_over=\('lag',\)"),
        ({"overwrite": True}, "are of a store"),
        ({"store": "fields.nc"}, "netCDF cannot be written by blocks"),
    ],
)
def test_what_cannot_be_meant_is_said(bncnn, arguments, message):
    with pytest.raises(ValueError, match=message):
        rc.instantaneous_receptive_field(bncnn, movie_of(9), progress=False, **arguments)


def test_other_models_are_refused():
    with pytest.raises(TypeError, match=r"model is a Linear; expected a retina_codec.models"):
        rc.instantaneous_receptive_field(torch.nn.Linear(2, 2), movie_of(9))


def test_a_stimulus_that_does_not_fit_is_called_so(bncnn):
    movie = movie_of(9)
    with pytest.raises(ValueError, match=r"stimulus has frames of \(8, 5\); the model takes"):
        rc.instantaneous_receptive_field(bncnn, movie.isel(x=slice(5)), progress=False)
    with pytest.raises(ValueError, match="stimulus has no block of at least history=6 frames"):
        rc.instantaneous_receptive_field(bncnn, movie[:5], progress=False)
    movie[7, 2, 2] = np.nan
    with pytest.raises(ValueError, match="stimulus has NaN or infinite values, the first in frame"):
        rc.instantaneous_receptive_field(bncnn, movie, progress=False)
    with pytest.raises(ValueError, match="data has NaN or infinite values, the first in frame 7"):
        bncnn.predict(movie)
