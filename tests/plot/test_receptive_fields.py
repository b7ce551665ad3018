"""Pictures of receptive fields and of optimised stimuli show the numbers they are given."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from matplotlib.patches import Ellipse

import retina_codec as rc
from retina_codec import plot

SPACE = np.exp(-((np.arange(9) - 3.0)[:, None] ** 2 + (np.arange(9) - 5.0) ** 2) / 8)
COURSE = np.array([0.0, -2.0, -1.0, 0.6])


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def field(course=COURSE, space=SPACE):
    coords = {"lag": 0.01 * np.arange(4), "y": 50.0 * np.arange(9), "x": 50.0 * np.arange(9)}
    values = course[:, None, None] * space
    return xr.DataArray(values, coords, ("lag", "y", "x"), attrs={"units": "Hz"})


def test_map_has_the_polarity_and_the_fitted_ellipse():
    fields = xr.concat([field(), field(-COURSE), field() * np.nan], "cell")
    axes = plot.receptive_field(rc.separate(fields.assign_coords(cell=["off", "on", "none"])))
    off, on = (axes[0, i].images[0].get_array() for i in (0, 1))
    np.testing.assert_allclose(off, -SPACE / SPACE.max())
    np.testing.assert_allclose(on, SPACE / SPACE.max())
    (ellipse,) = [patch for patch in axes[0, 0].patches if isinstance(patch, Ellipse)]
    np.testing.assert_allclose(ellipse.center, (250.0, 150.0), atol=0.1)
    np.testing.assert_allclose([ellipse.width, ellipse.height], 2 * 2 * 50.0, rtol=1e-3)
    assert not axes[0, 2].patches and "no fit" in axes[0, 2].get_title()
    np.testing.assert_allclose(axes[1, 0].lines[1].get_ydata(), COURSE, atol=1e-12)
    # Time runs to the response.
    assert axes[1, 0].get_xlim() == (30.0, 0.0)
    with pytest.raises(TypeError, match="separate the receptive fields first"):
        plot.receptive_field(fields)
    with pytest.raises(ValueError, match="no cell 'of'"):
        plot.receptive_field(rc.separate(fields.assign_coords(cell=["off", "a", "b"])), cells="of")


def test_moments_of_a_burst_are_on_one_scale():
    gains = np.array([1.0, 2.0, -4.0, 1.5, 3.0])
    fields = xr.concat([g * field() for g in gains], "time").assign_coords(
        time=0.01 * np.arange(5), rate=("time", np.arange(5.0))
    )
    top, *maps = plot.fields_over_time(fields, times=[0.0, 0.02, 0.04])
    np.testing.assert_allclose(top.lines[0].get_ydata(), np.arange(5.0))
    shown = np.stack([ax.images[0].get_array() for ax in maps])
    # At the course, of unit length, that is positive at its peak: an OFF field is negative.
    expected = -gains[[0, 2, 4], None, None] * SPACE * np.linalg.norm(COURSE)
    np.testing.assert_allclose(shown, expected, atol=1e-9)
    assert len({ax.images[0].get_clim() for ax in maps}) == 1
    with pytest.raises(ValueError, match="not summed over"):
        plot.fields_over_time(fields.sum("lag"))


def test_fields_of_modes_stand_beside_the_mean_field():
    condition = xr.concat([-0.5 * field(), 2 * field()], "condition")
    values = {name: ("condition", [-1.0, 1.0]) for name in ("similarity", "rate")}
    found = xr.Dataset(
        {
            "field": condition,
            "null_field": xr.concat([field()] * 2, "condition"),
            "mean_field": field(),
            "similarity_p_value": ("condition", [0.01, 0.8]),
            **values,
        },
        {"condition": ["3", "0+3"]},
    )
    axes = plot.mode_conditioned_fields(found.expand_dims(cell=["a"]), cell="a")
    scale = np.linalg.norm(COURSE)
    for ax, gain in zip(axes[0], (1.0, -0.5, 2.0), strict=True):
        np.testing.assert_allclose(ax.images[0].get_array(), -gain * SPACE * scale, atol=1e-9)
    assert "similarity -1.00, p = 0.01" in axes[0, 1].get_title()
    null, own = (line.get_ydata() for line in axes[1, 1].lines[:2])
    np.testing.assert_allclose(own, -0.5 * null)
    with pytest.raises(ValueError, match="no condition '4'"):
        plot.mode_conditioned_fields(found, conditions=["4"])


def test_frames_and_history_of_an_optimised_stimulus():
    rng = np.random.default_rng(0)
    movie, image = rng.random((7, 4, 4)), rng.random((3, 4, 4))
    history = np.sort(rng.random((2, 5)), axis=1)
    given = {"objective": (("restart", "step"), history), "random_objective": ("draw", [0.1, 0.3])}
    found = xr.Dataset(
        {"stimulus": (("time", "y", "x"), movie), **given}, {"time": 0.01 * np.arange(7)}
    )
    axes = plot.optimized_stimulus(found, n=3)
    for ax, frame in zip(axes[:3], (0, 3, 6), strict=True):
        np.testing.assert_allclose(ax.images[0].get_array(), movie[frame])
    assert [ax.get_title() for ax in axes[:3]] == ["-60 ms", "-30 ms", "0 ms"]
    np.testing.assert_allclose([line.get_ydata() for line in axes[3].lines[:2]], history)
    assert axes[3].lines[2].get_ydata()[0] == 0.3
    still = xr.Dataset({"stimulus": (("color", "y", "x"), image), **given})
    shown = plot.optimized_stimulus(still)
    assert len(shown) == 2
    np.testing.assert_allclose(shown[0].images[0].get_array(), image.transpose(1, 2, 0))
    with pytest.raises(TypeError, match=r"no result of retina_codec\.optimize_stimulus"):
        plot.optimized_stimulus(given)
