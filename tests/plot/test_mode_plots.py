"""Modes beside filters, together, and under what was shown."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

import retina_codec as rc
from retina_codec import plot


def test_timeline_with_frames_and_contributions(loadings, contribution, node):
    axes = plot.mode_timeline(
        loadings,
        stimulus=node["stimulus"],
        contribution=contribution,
        cell="cell 02",
        time=(0.5, 2.5),
    )
    assert len(axes) == 5  # epochs, frames, luminance, contributions, loadings
    frames, heat = axes[1], axes[3]
    assert len(frames.images) == 12
    shown = frames.images[3].get_array()
    centre = np.mean(frames.images[3].get_extent()[:2])
    at = node["stimulus"].sel(time=centre, method="nearest")
    np.testing.assert_allclose(shown, at)
    drawn = heat.images[0].get_array()
    expected = contribution.sel(cell="cell 02", time=slice(0.5, 2.5))
    assert drawn.shape == (8, expected.sizes["time"])
    np.testing.assert_allclose(drawn[0], expected.isel(sign=0, channel=0))
    assert [t.get_text() for t in heat.get_yticklabels()][:5] == ["+0", "+1", "+2", "+3", "-0"]
    canvas = axes[0].figure.canvas
    canvas.draw()
    title = next(
        t for t in axes[0].get_children() if getattr(t, "get_text", str)() == "cell cell 02"
    )
    key = axes[0].get_legend().get_window_extent()
    assert title.get_window_extent().y0 >= key.y1 - 1
    mean = plot.mode_timeline(loadings, contribution=contribution.isel(sign=1, drop=True))
    np.testing.assert_allclose(
        mean[-2].images[0].get_array()[2], contribution[:300, :, 1, 2].mean("cell")
    )
    with pytest.raises(ValueError, match="contribution has dims"):
        plot.mode_timeline(loadings, contribution=contribution.rename(channel="unit"))


def test_coactivation_is_in_powers_of_two():
    lift = np.array([[1, 4, 0], [4, 1, np.nan], [0, np.nan, 1]])
    q = np.where(lift == 4, 0.01, 0.5)
    dims = ("mode", "other")
    found = xr.Dataset({"lift": (dims, lift), "q_value": (dims, q)}, {"mode": ["a", "b", "c"]})
    ax = plot.coactivation(found)
    drawn = np.ma.filled(ax.images[0].get_array(), np.nan)
    np.testing.assert_allclose(drawn, [[np.nan, 2, -3], [2, np.nan, np.nan], [-3, np.nan, np.nan]])
    assert sorted(map(tuple, ax.collections[0].get_offsets().tolist())) == [(0, 1), (1, 0)]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["a", "b", "c"]
    with pytest.raises(ValueError, match="found has no q_value"):
        plot.coactivation(found.drop_vars("q_value"))
    with pytest.raises(TypeError, match="found is a DataArray"):
        plot.coactivation(found["lift"])


def test_dictionary_with_filters(rng):
    model = rc.models.BNCNN((12, 12), history=20, bin_width=0.01, cells=["a"], channels=(4, 4))
    atoms = xr.DataArray(rng.normal(size=(5, 2, 4)), dims=("mode", "sign", "channel"))
    atoms = atoms.assign_coords(sign=["positive", "negative"])
    drawn = plot.dictionary_with_filters(atoms, model, layer="conv1")
    np.testing.assert_allclose(
        drawn["dictionary"].images[0].get_array(), atoms.values.reshape(5, 8)
    )
    assert drawn["filters"].shape == (4, 2)
    figure = plt.figure(layout="constrained")
    assert plot.dictionary_with_filters(atoms, model, layer="conv1", figure=figure)
    with pytest.raises(ValueError, match="dictionary has 3 channels, but layer='conv1' has 4"):
        plot.dictionary_with_filters(atoms[..., :3], model, layer="conv1")
    with pytest.raises(TypeError, match="model is a str"):
        plot.dictionary_with_filters(atoms, "conv1", layer="conv1")
    with pytest.raises(TypeError, match="dictionary is a ndarray"):
        plot.dictionary_with_filters(atoms.values, model, layer="conv1")
