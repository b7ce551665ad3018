"""Tuning, clusters and triggered averages of modes, as drawn."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

from retina_codec import plot


@pytest.fixture
def tuning(rng):
    dims = ("mode", "epoch", "onset")
    course = rng.random((3, 2, 20))
    course[:, 1, 15:] = np.nan
    return xr.Dataset(
        {
            "time_course": (dims, course),
            "time_course_sem": (dims, 0.1 * course),
            "direction_tuning": (("mode", "direction"), rng.random((3, 8))),
            "direction_sem": (("mode", "direction"), np.full((3, 8), 0.1)),
            "dsi": ("mode", [0.5, np.nan, 0.1]),
            "p_value": ("mode", [0.01, np.nan, 0.4]),
        },
        coords={
            "mode": [4, 7, 9],
            "epoch": ["bar", "transition"],
            "onset": np.arange(20) * 0.05,
            "direction": np.arange(8) * 45.0,
        },
    )


def test_tuning_is_drawn_mode_by_mode(tuning):
    axes = plot.mode_tuning(tuning, modes=[9, 4])
    assert axes.shape == (2, 2)
    line, rest = axes[0, 0].lines
    np.testing.assert_allclose(line.get_ydata(), tuning["time_course"][2, 0])
    np.testing.assert_allclose(line.get_xdata(), tuning["onset"])
    assert line.get_color() != rest.get_color()
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["mode 9\nloading", "mode 4\nloading"]
    # All the way round, and downwards as the movie is seen.
    angle, radius = axes[1, 1].lines[0].get_data()
    np.testing.assert_allclose(np.degrees(angle), [*range(0, 360, 45), 0])
    np.testing.assert_allclose(radius, tuning["direction_tuning"][0, [*range(8), 0]])
    assert axes[1, 1].get_theta_direction() == -1
    assert "DSI 0.50" in axes[1, 1].texts[0].get_text()
    figure = plt.figure(layout="constrained")
    still = tuning.drop_vars(["direction_tuning", "direction_sem"])
    assert plot.mode_tuning(still.drop_vars("mode"), figure=figure).shape == (3, 1)
    with pytest.raises(ValueError, match="expected labels of modes of tuning"):
        plot.mode_tuning(tuning, modes=[5])
    with pytest.raises(ValueError, match="tuning has no time_course_sem"):
        plot.mode_tuning(tuning.drop_vars("time_course_sem"))
    with pytest.raises(TypeError, match="tuning is a DataArray"):
        plot.mode_tuning(tuning["time_course"])


def test_cells_are_sorted_by_cluster(rng):
    profile = rng.random((5, 3))
    clusters = xr.Dataset(
        {
            "profile": (("cell", "mode"), profile),
            "cluster": ("cell", [1, 0, 1, 0, 0]),
            "silhouette": ("cell", [0.1, 0.2, 0.3, 0.9, 0.5]),
            "shuffled_score": ("shuffle", [0.1, 0.3]),
            "p_value": 0.05,
        },
        coords={"cell": list("abcde")},
    )
    ax = plot.cell_clusters(clusters)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == list("debca")
    np.testing.assert_allclose(ax.images[0].get_array(), profile[[3, 4, 1, 2, 0]])
    assert [line.get_ydata()[0] for line in ax.lines] == [2.5]
    (right,) = ax.child_axes
    assert [tick.get_text() for tick in right.get_yticklabels()] == ["cluster 0", "cluster 1"]
    np.testing.assert_allclose(right.get_yticks(), [1, 3.5])
    assert ax.texts[0].get_text() == "silhouette 0.40 (shuffled 0.20, p = 0.05)"
    with pytest.raises(ValueError, match="clusters has no profile"):
        plot.cell_clusters(clusters.drop_vars("profile"))
    with pytest.raises(TypeError, match="clusters is a list"):
        plot.cell_clusters([1, 2])


def test_triggered_average_is_shown_at_its_peak():
    values = np.zeros((2, 6, 4, 5))
    values[0, 3, 1, 2] = -2.0
    values[0, 4, 1, 2] = 1.0
    values[1] = np.nan
    average = xr.DataArray(
        values,
        {"mode": ["a", "b"], "lag": np.arange(6) * 0.01},
        ("mode", "lag", "y", "x"),
        attrs={"units": "1"},
    )
    axes = plot.mode_triggered_average(average)
    assert axes.shape == (2, 2)
    np.testing.assert_allclose(axes[0, 0].images[0].get_array(), values[0, 3])
    assert [ax.get_title() for ax in axes[:, 0]] == ["a: 30 ms", "b: silent"]
    lag, course = axes[0, 1].lines[-1].get_data()
    np.testing.assert_allclose(course, values[0, :, 1, 2])
    np.testing.assert_allclose(lag, np.arange(6) * 10)
    left, right = axes[0, 1].get_xlim()
    assert left > right == 0
    coloured = average.expand_dims(color=["r", "g"], axis=2)
    np.testing.assert_allclose(
        plot.mode_triggered_average(coloured, modes=["a"])[0, 0].images[0].get_array(), values[0, 3]
    )
    with pytest.raises(ValueError, match="average has no coordinate 'lag'"):
        plot.mode_triggered_average(average.drop_vars("lag"))
    with pytest.raises(ValueError, match="average has dims"):
        plot.mode_triggered_average(average.isel(x=0))
