"""Curves of ablation and effects of silencing: what is drawn is what was found."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

from retina_codec import plot


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture
def curve():
    rng = np.random.default_rng(0)
    dims = ("group", "percentage")
    ratio = rng.random((2, 4))
    random = rng.random((3, 2, 4))
    random[:, :, [0, 2]] = np.nan  # tried at two of the points
    return xr.Dataset(
        {
            "mean_ratio": (dims, ratio),
            "mean_ratio_low": (dims, ratio - 0.1),
            "mean_ratio_high": (dims, ratio + 0.1),
            "random_ratio": (("draw", *dims), random),
        },
        {"group": ["target", "off_target"], "percentage": [1, 5, 10, 50]},
        {"parameters": json.dumps({"preserve": True})},
    )


def test_a_curve_for_each_group_and_random_orders_where_they_were_tried(curve):
    ax = plot.ablation_curve(curve)
    assert ax.get_xlabel() == "preserved channels (%)"
    lines = {line.get_label(): line for line in ax.get_lines()}
    for group, name in (("target", "target"), ("off_target", "off target")):
        np.testing.assert_array_equal(lines[name].get_xdata(), curve["percentage"])
        np.testing.assert_array_equal(lines[name].get_ydata(), curve["mean_ratio"].sel(group=group))
    bars = {container.get_label(): container for container in ax.containers}
    mean = curve["random_ratio"].mean("draw").isel(percentage=[1, 3]).sel(group="target")
    drawn = bars["target, random"].lines[0]
    np.testing.assert_array_equal(drawn.get_xdata(), [5, 50])
    np.testing.assert_allclose(drawn.get_ydata(), mean)
    _, texts = ax.get_legend_handles_labels()
    assert len(texts) == 4


def test_effects_beside_their_controls():
    rng = np.random.default_rng(0)
    dims = ("silenced", "response")
    loss = rng.random((3, 2))
    effects = xr.Dataset(
        {
            "mean_loss": (dims, loss),
            "mean_loss_low": (dims, loss - 0.1),
            "mean_loss_high": (dims, loss + 0.1),
            "mean_control_loss": (("draw", *dims), rng.random((4, 3, 2))),
        },
        {"silenced": ["a", "b", "c"], "response": ["light", "motion"]},
    )
    ax = plot.silencing_effects(effects)
    drawn = [container.lines[0].get_ydata() for container in ax.containers]
    np.testing.assert_array_equal(np.array(drawn).T, loss)
    points = [line for line in ax.get_lines() if line.get_marker() == "."]
    for place, line in enumerate(points):
        ours = effects["mean_control_loss"].isel(response=place)
        np.testing.assert_array_equal(np.sort(line.get_ydata()), np.sort(ours.values.ravel()))
    assert [text.get_text() for text in ax.get_xticklabels()] == ["a", "b", "c"]
    _, names = ax.get_legend_handles_labels()
    assert sorted(names) == ["light responses", "motion responses", "random units"]


def test_other_results_are_refused(curve):
    with pytest.raises(TypeError, match="curve is a DataArray"):
        plot.ablation_curve(curve["mean_ratio"])
    with pytest.raises(ValueError, match=r"curve has no 'mean_ratio_low'; .*ablation_curve"):
        plot.ablation_curve(curve.drop_vars("mean_ratio_low"))
    with pytest.raises(ValueError, match=r"effects has no 'mean_loss'; .*silencing_effects"):
        plot.silencing_effects(curve)
    with pytest.raises(TypeError, match="ax is a int"):
        plot.ablation_curve(curve, ax=3)
