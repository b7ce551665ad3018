"""The picture of an alignment: what was found, with its expected range, over time."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from retina_codec._common.time import time_coordinate
from retina_codec.plot.alignment import alignment
from retina_codec.plot.style import ORANGE
from retina_codec.recordings.alignment import check_alignment


@pytest.fixture(scope="module")
def result():
    """A movie that was cut by two frames at 30 s of 60, with two late frame marks."""
    rng = np.random.default_rng(0)
    flicker = rng.normal(size=6002)
    drive = np.convolve(flicker, [0, 0.3, 0.8, 0.5, -0.4])[:6002]
    counts = rng.poisson(0.3 * np.exp(drive[:, None] * [1, -1, 1] - 0.5))[:6000]
    node = xr.Dataset(
        {
            "stimulus": (("time", "y", "x"), np.delete(flicker, [3000, 3001])[:, None, None]),
            "spike_count": (("time", "cell"), counts),
        },
        coords={"time": time_coordinate(np.arange(6000) * 0.01, 0.01), "cell": list("abc")},
    )
    marks = np.arange(6001) * 0.01
    marks[[100, 4000]] += 0.006
    frames = xr.Dataset({"frame_time": ("frame", marks)})
    return check_alignment(xr.DataTree.from_dict({"/train": node, "/frames": frames}))


def texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_four_panels_with_units(result):
    axes = alignment(result)
    assert len(axes) == 4
    assert [ax.get_ylabel().replace("\n", " ") for ax in axes] == [
        "correlation of drive and spikes",
        "evidence as filed (nats a segment)",
        "best lag (ms)",
        "frame interval (ms)",
    ]
    assert axes[-1].get_xlabel() == "time (s)"
    assert axes[0].get_title(loc="left").startswith("misaligned: ")
    assert axes[0].get_xlim() == (0.0, 60.0)


def test_points_are_those_of_the_result(result):
    axes = alignment(result)
    middle = (result["start"] + result["stop"]).values / 2
    points = axes[0].lines[0]
    np.testing.assert_allclose(points.get_xdata(), middle)
    np.testing.assert_allclose(points.get_ydata(), result["correlation_pooled"])
    np.testing.assert_allclose(axes[1].lines[0].get_ydata(), result["evidence"])
    np.testing.assert_allclose(axes[2].lines[0].get_ydata(), 1e3 * result["best_lag"].values)
    late = next(line for line in axes[3].lines if line.get_label() == "late (2)")
    np.testing.assert_allclose(late.get_ydata(), 16.0)
    band = axes[0].collections[0].get_paths()[0].get_extents()
    assert band.ymin == pytest.approx(float(result["correlation_low"][0]))
    assert band.ymax == pytest.approx(float(result["correlation_high"][0]))


def test_findings_are_shaded_and_named(result):
    axes = alignment(result)
    assert "file is shifted" in texts(axes[0])
    line = next(line for line in axes[0].lines if line.get_label() == "file is shifted")
    assert line.get_xdata()[0] == float(result["first_time"][0]) == pytest.approx(30, abs=1)
    assert to_hex(line.get_color()) == ORANGE.lower()
    for ax in axes:
        assert any(patch.get_x() == line.get_xdata()[0] for patch in ax.patches)


def test_without_frame_marks_on_a_given_figure(result):
    figure = Figure(figsize=(6, 5))
    axes = alignment(result.drop_dims("frame"), figure=figure)
    assert len(axes) == 3 and axes[0].figure is figure


def test_an_undetermined_result_is_drawn_too(result):
    node = xr.Dataset(
        {
            "stimulus": (("time", "y", "x"), np.ones((500, 1, 1))),
            "spike_count": (("time", "cell"), np.ones((500, 1), dtype=int)),
        },
        coords={"time": time_coordinate(np.arange(500) * 0.01, 0.01), "cell": ["a"]},
    )
    axes = alignment(check_alignment(node))
    assert axes[0].get_title(loc="left").startswith("undetermined: ")
    assert [text.get_text() for text in axes[2].texts] == ["no lag is told"]


def test_other_things_are_refused(result):
    with pytest.raises(TypeError, match=r"result is a dict; expected the xarray.Dataset"):
        alignment({})
    with pytest.raises(ValueError, match=r"result has no 'evidence'"):
        alignment(result.drop_vars("evidence"))
    with pytest.raises(ValueError, match=r"attrs\['verdict'\]"):
        alignment(result.drop_attrs())
    with pytest.raises(TypeError, match=r"figure is a int"):
        alignment(result, figure=3)
