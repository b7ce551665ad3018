"""Selectivity for epochs: known areas, honest choice, intervals."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from sklearn.metrics import roc_auc_score

from retina_codec._common.time import block_coordinate, time_coordinate
from retina_codec.modes import epoch_selectivity

ORDER = ["still", "bar", "grating", "still", "bar", "grating"] * 3
LENGTH = 40


def stimulus():
    labels = np.repeat(ORDER, LENGTH)
    time = time_coordinate(np.arange(labels.size) * 0.01, 0.01)
    return xr.DataArray(labels, dims="time", coords={"time": time}, name="epoch")


def loadings_for(epochs, rng, n_modes=4):
    values = rng.normal(size=(epochs.size, n_modes))
    values[:, 1] += 1.5 * (epochs == "bar").values
    values[:, 3] += 2.0 * (epochs == "grating").values
    return xr.DataArray(values, dims=("time", "mode"), coords={"time": epochs["time"]})


def test_areas_against_sklearn():
    epochs = stimulus()
    loadings = loadings_for(epochs, np.random.default_rng(0))
    scored = epoch_selectivity(loadings, epochs)
    # Epochs of a class in turn: the second, fourth and sixth of each are scored.
    second = np.repeat(np.repeat([0, 1] * 3, 3), LENGTH) == 1
    for name in ("bar", "grating", "still"):
        for mode in range(4):
            expected = roc_auc_score(epochs.values[second] == name, loadings.values[second, mode])
            assert float(scored.auc.sel(epoch=name)[mode]) == pytest.approx(expected)
        np.testing.assert_allclose(
            scored.mean_loading.sel(epoch=name), loadings[(epochs == name).values].mean("time")
        )
    assert list(scored.best_mode.sel(epoch=["bar", "grating"]).values) == [1, 3]
    assert float(scored.best_auc.sel(epoch="bar")) == float(scored.auc.sel(epoch="bar")[1])
    assert (scored.best_auc_low <= scored.best_auc).all()
    assert (scored.best_auc <= scored.best_auc_high).all()
    assert scored.best_auc_low.sel(epoch="bar") > 0.7


def test_choice_does_not_flatter_noise():
    epochs = stimulus()
    rng = np.random.default_rng(1)
    best = []
    for _ in range(20):
        noise = rng.normal(size=(len(ORDER), 30)).repeat(LENGTH, axis=0)
        loadings = xr.DataArray(noise, dims=("time", "mode"), coords={"time": epochs["time"]})
        best.append(epoch_selectivity(loadings, epochs, n_bootstrap=2).best_auc.values)
    assert np.mean(best) == pytest.approx(0.5, abs=0.08)


def test_interval_with_one_value_an_epoch_and_blocks():
    epochs = xr.DataArray(
        np.repeat(["a", "b"], 20), dims="time", coords={"time": np.arange(40) * 0.01}
    )
    loadings = (epochs == "a").astype(float).expand_dims(cell=2, mode=1)
    with pytest.raises(ValueError, match="one epoch of the class 'a'; at least two"):
        epoch_selectivity(loadings, epochs)
    # A change of block ends an epoch.
    blocks = loadings.assign_coords(block=block_coordinate(np.repeat([0, 1, 2, 3], 10)))
    scored = epoch_selectivity(blocks, epochs)
    np.testing.assert_array_equal(scored.auc.sel(mode=0), [1, 0])
    np.testing.assert_array_equal(scored.best_auc_low, [1, 0])


def test_bad_input_is_named():
    epochs = stimulus()
    loadings = loadings_for(epochs, np.random.default_rng(0))
    with pytest.raises(ValueError, match="have different times"):
        epoch_selectivity(loadings, epochs.isel(time=slice(100)))
    with pytest.raises(ValueError, match="one class only, 'still'"):
        epoch_selectivity(loadings, xr.full_like(epochs, "still"))
    with pytest.raises(ValueError, match="confidence=95"):
        epoch_selectivity(loadings, epochs, confidence=95)
    with pytest.raises(TypeError, match="epochs is a list"):
        epoch_selectivity(loadings, list(epochs.values))


def test_what_lies_between_epochs_is_left_out_and_still_divides_them():
    """Bars apart only by a transition stay four epochs, not one that cannot be halved."""
    labels = np.repeat(["still", "bar", "pause", "bar", "pause", "bar", "still", "bar"], 20)
    time = np.arange(len(labels)) * 0.01
    epochs = xr.DataArray(labels, dims="time", coords={"time": time})
    driven = (epochs == "bar") * 1.0 + (epochs == "pause") * 5.0
    scored = epoch_selectivity(driven.expand_dims("mode"), epochs, ignore=["pause"])
    assert list(scored["epoch"].values) == ["bar", "still"]
    assert float(scored["best_auc"].sel(epoch="bar")) == 1.0
    assert float(scored["mean_loading"].sel(epoch="bar")[0]) == 1.0
    with pytest.raises(ValueError, match="one class only"):
        epoch_selectivity(driven.expand_dims("mode"), epochs, ignore=["pause", "still"])


def test_purity_of_planted_shares():
    """Activity 3 : 1 between two classes of unequal length is 3 / (3 + 1 + 0)."""
    labels = np.repeat(ORDER, [60 if name == "still" else 20 for name in ORDER])
    epochs = xr.DataArray(labels, dims="time", coords={"time": np.arange(labels.size) * 0.01})
    values = np.stack(
        [
            3.0 * (labels == "bar") + (labels == "still"),
            -7.0 * (labels == "grating"),
            0 * (labels == ""),
        ],
        axis=1,
    )
    loadings = xr.DataArray(values, dims=("time", "mode"), coords={"time": epochs["time"]})
    scored = epoch_selectivity(loadings, epochs, n_bootstrap=20)
    assert list(scored.assigned.values[:2]) == ["bar", "grating"]
    np.testing.assert_allclose(scored.purity, [0.75, 1, np.nan])
    np.testing.assert_allclose(scored.purity_low[:2], [0.75, 1])
    assert float(scored.mean_purity) == pytest.approx((3 + 7) / (4 + 7))


def test_purity_is_assigned_on_one_half_and_scored_on_the_other():
    epochs = stimulus()
    rng = np.random.default_rng(2)
    noise = np.abs(rng.normal(size=(len(ORDER), 200))).repeat(LENGTH, axis=0)
    loadings = xr.DataArray(noise, dims=("time", "mode"), coords={"time": epochs["time"]})
    scored = epoch_selectivity(loadings, epochs, n_bootstrap=100)
    assert float(scored.purity.mean()) == pytest.approx(1 / 3, abs=0.02)
    inside = (scored.purity_low <= 1 / 3) & (scored.purity_high >= 1 / 3)
    assert 0.7 < float(inside.mean()) < 0.99  # three epochs of each class: short intervals
    assert scored.mean_purity_low < scored.mean_purity < scored.mean_purity_high


def test_modes_that_share_a_class_are_scored_together():
    """One mode for every other bar tells half of the bars apart; both together all of them."""
    kinds = np.array(["bar", "still"] * 8)
    labels = np.repeat(kinds, LENGTH)
    epochs = xr.DataArray(labels, dims="time", coords={"time": np.arange(labels.size) * 0.01})
    bar = np.repeat(np.cumsum(kinds == "bar") - 1, LENGTH)  # dealt to the halves in turn
    values = np.stack(
        [
            5.0 * ((labels == "bar") & (bar % 4 < 2)),
            -5.0 * ((labels == "bar") & (bar % 4 >= 2)),
            1.0 * (labels == "still"),
            0.0 * bar,
        ],
        axis=1,
    )
    loadings = xr.DataArray(values, dims=("time", "mode"), coords={"time": epochs["time"]})
    scored = epoch_selectivity(loadings, epochs, per="epoch", n_bootstrap=50)
    assert float(scored.best_auc.sel(epoch="bar")) == 0.75
    together = scored.sel(epoch="bar")
    assert [float(together[f"assigned_auc{end}"]) for end in ("", "_low", "_high")] == [1, 1, 1]
    # A silent mode is in no class.
    alone = epoch_selectivity(loadings[:, [0, 3]], epochs, per="epoch", n_bootstrap=5)
    assert float(alone.assigned_auc.sel(epoch="bar")) == 0.75
    assert np.isnan(alone.assigned_auc.sel(epoch="still"))
    assert np.isnan(alone.assigned_auc_low.sel(epoch="still"))


def test_modes_are_assigned_on_one_half_and_scored_together_on_the_other():
    epochs = stimulus()
    rng = np.random.default_rng(3)
    noise = np.abs(rng.normal(size=(len(ORDER), 60))).repeat(LENGTH, axis=0)
    loadings = xr.DataArray(noise, dims=("time", "mode"), coords={"time": epochs["time"]})
    found = [
        epoch_selectivity(loadings.isel(mode=slice(i, i + 6)), epochs, n_bootstrap=1).assigned_auc
        for i in range(0, 60, 6)
    ]
    assert float(np.nanmean(found)) == pytest.approx(0.5, abs=0.1)


def test_groups_are_one_class_with_epochs_of_their_own():
    epochs = stimulus()
    loadings = loadings_for(epochs, np.random.default_rng(0))
    scored = epoch_selectivity(loadings, epochs, groups={"motion": ["bar", "grating"]})
    assert list(scored["epoch"].values) == ["motion", "still"]
    merged = epochs.copy(data=np.where(epochs == "still", "still", "motion"))
    second = np.zeros(epochs.size, dtype=bool)
    starts = np.arange(len(ORDER)) * LENGTH
    for members in (["bar", "grating"], ["still"]):
        own = [start for start, name in zip(starts, ORDER, strict=True) if name in members]
        for start in own[1::2]:
            second[start : start + LENGTH] = True
    expected = roc_auc_score(merged.values[second] == "motion", loadings.values[second, 1])
    assert float(scored.auc.sel(epoch="motion")[1]) == pytest.approx(expected)
    with pytest.raises(ValueError, match="groups: 'gratings' is no label of epochs; did you mean"):
        epoch_selectivity(loadings, epochs, groups={"motion": ["gratings"]})
    with pytest.raises(ValueError, match="groups: 'bar' is in two groups"):
        epoch_selectivity(loadings, epochs, groups={"a": ["bar"], "b": ["bar"]})
    with pytest.raises(TypeError, match="is one string"):
        epoch_selectivity(loadings, epochs, groups={"motion": "bar"})


def test_epochs_can_be_scored_as_wholes():
    epochs = stimulus()
    rng = np.random.default_rng(4)
    # A mode that answers the first samples of a bar only, in noise.
    onset = np.tile(np.arange(LENGTH) < 4, len(ORDER)) & (epochs == "bar").values
    values = 0.2 * rng.normal(size=(epochs.size, 2))
    values[:, 1] += 2.0 * onset
    loadings = xr.DataArray(values, dims=("time", "mode"), coords={"time": epochs["time"]})
    by_sample = epoch_selectivity(loadings, epochs)
    by_epoch = epoch_selectivity(loadings, epochs, per="epoch")
    assert by_sample["best_auc"].sel(epoch="bar") < 0.7
    assert by_epoch["best_auc"].sel(epoch="bar") == 1
    means = values.reshape(len(ORDER), LENGTH, 2).mean(1)
    second = np.repeat([0, 1] * 3, 3) == 1
    for name in ("bar", "grating", "still"):
        for mode in range(2):
            expected = roc_auc_score(np.array(ORDER)[second] == name, means[second, mode])
            assert float(by_epoch["auc"].sel(epoch=name)[mode]) == pytest.approx(expected)
    with pytest.raises(ValueError, match="per='frame'"):
        epoch_selectivity(loadings, epochs, per="frame")
