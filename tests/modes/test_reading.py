"""Reading modes: planted groups of cells, coincidences and receptive fields."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.signal import lfilter

from retina_codec import stimuli
from retina_codec._common.time import block_coordinate, time_coordinate
from retina_codec.modes import cluster_cells, coactivation, mode_triggered_average


def profile_of(groups, rng, noise=0.1, n_modes=6):
    centres = np.eye(n_modes)
    values = np.abs(
        np.stack([centres[g] for g in groups]) + noise * rng.random((len(groups), n_modes))
    )
    return xr.DataArray(
        values, dims=("cell", "mode"), coords={"cell": [f"c{i}" for i in range(len(groups))]}
    )


def test_planted_groups_of_cells_are_found():
    groups = [2, 0, 1, 0, 1, 0, 0, 2, 1, 0]
    profile = profile_of(groups, np.random.default_rng(0))
    loadings = profile.expand_dims(time=5).assign_coords(time=time_coordinate(np.arange(5.0), 1.0))
    found = cluster_cells(loadings)
    np.testing.assert_array_equal(found["cluster"], groups)  # numbered by size: 5, 3, 2
    assert int(found["silhouette_score"].idxmax("n_clusters")) == 3
    assert float(found["silhouette_score"].max()) > float(found["shuffled_score"].max())
    assert float(found["p_value"]) == pytest.approx(1 / 21)
    np.testing.assert_allclose(found["profile"].sum("mode"), 1)
    np.testing.assert_allclose(
        found["centre"][0], found["profile"].values[np.array(groups) == 0].mean(axis=0)
    )
    # A literal silhouette of one cell.
    p = found["profile"].values
    apart = np.linalg.norm(p[:, None] - p, axis=2)
    groups = np.array(groups)
    inside = apart[0][(groups == 2) & (np.arange(10) != 0)].mean()
    nearest = min(apart[0][groups == g].mean() for g in (0, 1))
    assert float(found["silhouette"][0]) == pytest.approx((nearest - inside) / max(nearest, inside))


def test_cells_without_groups_do_not_exceed_the_shuffled():
    p_values = []
    for seed in range(6):
        values = np.random.default_rng(seed).random((14, 5))
        found = cluster_cells(xr.DataArray(values, dims=("cell", "mode")), n_clusters=[2, 3])
        p_values.append(float(found["p_value"]))
    assert np.median(p_values) > 0.2
    assert min(p_values) >= 1 / 21


def test_clustering_says_what_it_cannot_do():
    rng = np.random.default_rng(2)
    profile = profile_of([0, 1, 0, 1], rng)
    with pytest.raises(ValueError, match="expected numbers from 2 to 3 for 4 different cells"):
        cluster_cells(profile, n_clusters=[4])
    with pytest.raises(ValueError, match="2 different cells cannot be clustered"):
        cluster_cells(profile[[0, 1, 0]])
    with pytest.raises(ValueError, match="no dim 'cell'"):
        cluster_cells(profile[0].expand_dims(time=4, mode2=1).drop_vars("cell"))


def spells(rng, n, share=0.2):
    """On in spells: a thresholded smooth signal."""
    signal = lfilter([1], [1, -0.9], rng.normal(size=n))
    return signal > np.quantile(signal, 1 - share)


def test_coactivation_of_planted_pairs():
    rng = np.random.default_rng(3)
    n = 8000
    a, b = spells(rng, n), spells(rng, n)
    on = np.stack([a, a & (rng.random(n) < 0.9), b, ~a & spells(rng, n, 0.4), 0 * a], axis=1)
    time = time_coordinate(np.arange(n) * 0.01, 0.01)
    loadings = xr.DataArray(on * rng.uniform(0.5, 2, on.shape), dims=("time", "mode"))
    loadings = loadings.assign_coords(
        time=time, block=block_coordinate(np.repeat([0, 1], n // 2)), mode=list("abcde")
    )
    epochs = xr.DataArray(np.where(a, "step", "rest"), dims="time", coords={"time": time})
    found = coactivation(loadings, epochs=epochs)
    assert float(found["together"].sel(mode="a", other="b")) == (on[:, 0] & on[:, 1]).mean()
    assert float(found["together"].sel(mode="a", other="a")) == on[:, 0].mean()
    assert float(found["lift"].sel(mode="a", other="b")) > 3
    assert float(found["q_value"].sel(mode="a", other="b")) < 0.01
    assert float(found["lift"].sel(mode="a", other="d")) < 0.2
    assert float(found["q_value"].sel(mode="d", other="a")) < 0.05
    assert float(found["lift"].sel(mode="a", other="c")) == pytest.approx(1, abs=0.35)
    assert float(found["p_value"].sel(mode="a", other="c")) > 0.05
    expected = on[:, 0].mean() * on[:, 2].mean()
    assert float(found["expected"].sel(mode="a", other="c")) == pytest.approx(expected, rel=0.15)
    assert np.isnan(found["lift"].sel(mode="e")).all()
    assert np.isnan(found["p_value"].sel(mode="e")).all()
    np.testing.assert_array_equal(found["n_on"], on.sum(axis=1))
    share = (on[:, 0] & on[:, 1])[a].mean()
    assert float(found["together_in"].sel(mode="a", other="b", epoch="step")) == share
    assert float(found["together_in"].sel(mode="a", other="b", epoch="rest")) == 0
    # Cells are counted apart: modes on in different cells are not together.
    cells = xr.concat([loadings.where(loadings.mode == m, 0) for m in "ab"], dim="cell")
    cells = cells.assign_coords(cell=["x", "y"])
    apart = coactivation(cells)
    assert float(apart["together"].sel(mode="a", other="b")) == 0
    assert apart["n_on"].dims == ("time", "cell")
    with pytest.raises(ValueError, match="epochs lacks times"):
        coactivation(loadings, epochs=epochs[:9])


def test_chance_of_coactivation_is_calibrated():
    below = []
    time = time_coordinate(np.arange(2000) * 0.01, 0.01)
    for seed in range(8):
        rng = np.random.default_rng(seed)
        on = np.stack([spells(rng, 2000) for _ in range(6)], axis=1) * 1.0
        loadings = xr.DataArray(on, dims=("time", "mode"), coords={"time": time})
        p = coactivation(loadings, n_draws=500)["p_value"].values
        below.append(p[np.triu_indices(6, 1)] < 0.05)
    assert np.mean(below) < 0.1


def test_triggered_average_is_the_weighted_mean_stimulus():
    movie = stimuli.white_noise(n_frames=400, shape=(5, 6), seed=0)
    rng = np.random.default_rng(4)
    values = rng.random((400, 3, 2))
    values[..., 1] = 0
    loadings = xr.DataArray(
        values, dims=("time", "cell", "mode"), coords={"time": movie["time"], "mode": [4, 7]}
    ).isel(time=slice(7, None))
    found = mode_triggered_average(loadings, movie, history=8)
    assert found.dims == ("mode", "lag", "y", "x")
    assert list(found["mode"].values) == [4, 7]
    weight = values[7:, :, 0].mean(axis=1)
    for lag in (0, 5):
        frames = movie.values[7 - lag : 400 - lag].astype(float)
        expected = np.tensordot(weight / weight.sum(), frames, 1) - frames.mean(axis=0)
        np.testing.assert_allclose(found[0, lag], expected, atol=1e-9)
    assert np.isnan(found[1]).all()
    with pytest.raises(ValueError, match="loadings are negative"):
        mode_triggered_average(-loadings, movie)
    with pytest.raises(ValueError, match="stimulus lacks times"):
        mode_triggered_average(loadings, movie.isel(time=slice(10, None)))
