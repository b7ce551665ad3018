"""Tuning of modes: planted means, directions and responses."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.signal import lfilter

from retina_codec._common.time import block_coordinate, time_coordinate
from retina_codec.modes import epoch_tuning, response_association

LENGTH = 30


def movie_labels(seed=0):
    """Steps, and gratings in 8 directions, 5 of each, with rests between."""
    rng = np.random.default_rng(seed)
    kinds = [("on", np.nan)] * 6 + [("grating", 45.0 * d) for d in range(8) for _ in range(5)]
    kinds = [kinds[i] for i in rng.permutation(len(kinds))]
    labels = np.ravel([[name] * LENGTH + ["rest"] * 5 for name, _ in kinds])
    angles = np.ravel([[angle] * LENGTH + [np.nan] * 5 for _, angle in kinds])
    time = time_coordinate(np.arange(labels.size) * 0.01, 0.01)
    return xr.DataArray(
        labels, dims="time", coords={"time": time, "direction": ("time", angles)}, name="epoch"
    )


def test_tuning_to_steps_and_directions():
    epochs = movie_labels()
    angle = np.radians(epochs["direction"].values)
    tuned = np.nan_to_num(1 + np.cos(angle - np.radians(90)))
    on = (epochs.values == "on").astype(float)
    starts = np.flatnonzero(np.r_[True, epochs.values[1:] != epochs.values[:-1]])
    since = np.arange(on.size) - starts[np.searchsorted(starts, np.arange(on.size), "right") - 1]
    values = np.stack([tuned, 2.0 * on * (since < 10), -tuned], axis=1)
    loadings = xr.DataArray(values, dims=("time", "mode"), coords={"time": epochs["time"]})
    found = epoch_tuning(loadings, epochs, ignore=["rest"], n_permutations=199)
    assert list(found["epoch"].values) == ["grating", "on"]
    np.testing.assert_array_equal(found["n_epochs"], [40, 6])
    np.testing.assert_allclose(found["mean_loading"], [[1, 0], [0, 2 / 3], [-1, 0]], atol=1e-12)
    np.testing.assert_allclose(found["sem"].sel(epoch="on"), 0, atol=1e-12)
    each = 1 + np.cos(np.repeat(np.arange(8), 5) * np.pi / 4)
    assert float(found["sem"][0, 0]) == pytest.approx(each.std(ddof=1) / np.sqrt(40))
    course = found["time_course"].sel(mode=1, epoch="on").values
    np.testing.assert_allclose(course, [2.0] * 10 + [0.0] * 20)
    assert found["onset"].attrs["units"] == "s"
    np.testing.assert_allclose(
        found["direction_tuning"][0], 1 + np.cos(np.radians(found["direction"] - 90)), atol=1e-12
    )
    assert float(found["dsi"][0]) == pytest.approx(0.5)
    assert float(found["preferred_direction"][0]) == pytest.approx(90)
    assert float(found["p_value"][0]) == pytest.approx(1 / 200)
    assert np.isnan(found["dsi"][1]) and found["reason"].values[1] == "silent"
    assert np.isnan(found["dsi"][2]) and "negative" in str(found["reason"].values[2])
    # The response to the onset can be left out.
    late = epoch_tuning(loadings, epochs, ignore=["rest"], skip=0.1, n_permutations=199)
    np.testing.assert_allclose(late["mean_loading"].sel(epoch="on")[1], 0)


def test_an_epoch_that_began_before_the_loadings_keeps_its_time():
    """Loadings lack the first history of every block, and with it starts of epochs."""
    labels = np.tile(np.repeat(["on", "off"], 20), 4)
    time = time_coordinate(np.arange(160) * 0.01, 0.01)
    block = block_coordinate(np.repeat([0, 1], 80))
    epochs = xr.DataArray(labels, dims="time", coords={"time": time, "block": block})
    since = np.tile(np.arange(20), 8)
    values = np.exp(-since / 5.0) * (labels == "on")
    loadings = xr.DataArray(
        values[:, None], dims=("time", "mode"), coords={"time": time, "block": block}
    ).isel(time=np.r_[8:80, 88:160])
    found = epoch_tuning(loadings, epochs, skip=0.1).sel(mode=0, epoch="on")
    np.testing.assert_allclose(found["time_course"], np.exp(-np.arange(20) / 5))
    np.testing.assert_allclose(found["time_course_sem"], 0, atol=1e-12)
    assert float(found["n_epochs"]) == 4
    assert float(found["mean_loading"]) == pytest.approx(np.exp(-np.arange(10, 20) / 5).mean())
    assert float(found["sem"]) == pytest.approx(0, abs=1e-12)


def test_epochs_without_direction_have_none():
    epochs = movie_labels().drop_vars("direction")
    loadings = (epochs == "on").astype(float).expand_dims(mode=2, cell=3)
    found = epoch_tuning(loadings, epochs)
    assert "direction_tuning" not in found
    np.testing.assert_allclose(found["mean_loading"].sel(epoch="on"), 1)
    with pytest.raises(ValueError, match="nothing is left of"):
        epoch_tuning(loadings, epochs, skip=0.5)
    with pytest.raises(ValueError, match="epochs lacks times"):
        epoch_tuning(loadings, epochs.isel(time=slice(10)))
    with pytest.raises(TypeError, match="epochs is a list"):
        epoch_tuning(loadings, epochs.values.tolist())


def slow(rng, n_signals, n=1500):
    return lfilter([1], [1, -0.9], rng.normal(size=(n_signals, n)), axis=1)


def test_association_with_responses():
    rng = np.random.default_rng(0)
    values = slow(rng, 4)
    time = time_coordinate(np.arange(1500) * 0.01, 0.01)
    block = block_coordinate(np.repeat([0, 1, 2], 500))
    rate = xr.DataArray(
        values.T, dims=("time", "cell"), coords={"time": time, "block": block, "cell": list("abcd")}
    )
    rows = np.stack([values[1] + 0.5 * slow(rng, 1)[0], slow(rng, 1)[0], 0 * values[0]], axis=1)
    loadings = xr.DataArray(rows, dims=("time", "mode"), coords={"time": time, "block": block})
    found = response_association(loadings, rate)
    within = [
        (v.reshape(3, 500) - v.reshape(3, 500).mean(1, keepdims=True)).ravel()
        for v in (rows[:, 0], values[1])
    ]
    assert float(found["r"].sel(mode=0, cell="b")) == pytest.approx(np.corrcoef(*within)[0, 1])
    assert float(found["q_value"].sel(mode=0, cell="b")) < 0.01
    assert np.isnan(found["r"][2]).all()
    assert int(np.abs(found["r"].values[0]).argmax()) == 1
    assert (found["q_value"][:2].values.ravel() < 0.01).sum() == 1
    # Loadings of single cells: each with its own.
    own = xr.concat([loadings.isel(mode=[0]), loadings.isel(mode=[1])], dim="cell")
    own = own.assign_coords(cell=["b", "c"], mode=[0]).transpose("time", "cell", "mode")
    mine = response_association(own, rate)
    assert list(mine["cell"].values) == ["b", "c"]
    assert float(mine["r"].sel(cell="b")[0]) == pytest.approx(float(found["r"][0, 1]))
    with pytest.raises(ValueError, match="of 2 cells without names"):
        response_association(own.drop_vars("cell"), rate)
    with pytest.raises(ValueError, match="rate lacks the cells"):
        response_association(own, rate.sel(cell=["a", "b"]))
    with pytest.raises(ValueError, match="rate lacks times"):
        response_association(loadings, rate.isel(time=slice(50)))
    with pytest.raises(ValueError, match="rate has 1 NaN"):
        response_association(loadings, rate.where((rate.time > 0) | (rate.cell != "a")))


def test_times_that_stand_there_twice_are_named():
    time = time_coordinate(np.tile(np.arange(200) * 0.01, 2), 0.01)
    block = block_coordinate(np.repeat([0, 1], 200))
    rate = xr.DataArray(
        np.random.default_rng(0).random((400, 1)),
        dims=("time", "cell"),
        coords={"time": time, "block": block, "cell": ["a"]},
    )
    loadings = rate.rename(cell="mode").drop_vars("mode")
    epochs = xr.DataArray(np.tile(np.repeat(["on", "off"], 50), 4), coords=[("time", time.values)])
    for refused in (
        lambda: epoch_tuning(loadings, epochs.assign_coords(time=time)),
        lambda: response_association(loadings, rate),
    ):
        with pytest.raises(ValueError, match="times that stand there twice"):
            refused()


def test_association_is_calibrated():
    below = []
    time = time_coordinate(np.arange(1500) * 0.01, 0.01)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        rate = xr.DataArray(
            slow(rng, 5).T, dims=("time", "cell"), coords={"time": time, "cell": list("abcde")}
        )
        loadings = xr.DataArray(slow(rng, 5), dims=("mode", "time"), coords={"time": time})
        below.append(response_association(loadings, rate)["p_value"].values < 0.05)
    assert 0.01 < np.mean(below) < 0.09
