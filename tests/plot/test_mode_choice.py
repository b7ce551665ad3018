"""The trade-off curve shows what was found, and marks the recommended point."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from retina_codec import plot


@pytest.fixture
def curve(rng):
    dims = ("n_modes", "k", "seed")
    return xr.Dataset(
        {
            "r2": (dims, rng.random((3, 2, 2))),
            "l0": (dims, rng.random((3, 2, 2)) * 4),
            "stability": (dims[:2], rng.random((3, 2))),
        },
        {"n_modes": [4, 8, 16], "k": [1.0, 2.0], "seed": [0, 1]},
        {"recommended_n_modes": 8, "recommended_k": 2.0, "min_stability": 0.9},
    )


def test_points_are_those_of_the_curve(curve):
    axes = plot.mode_choice(curve)
    for ax, name in zip(axes, ("r2", "stability", "l0"), strict=True):
        lines = {line.get_label(): line for line in ax.get_lines()}
        mean = curve[name].mean("seed") if name != "stability" else curve[name]
        np.testing.assert_allclose(lines["k = 2"].get_ydata(), mean.sel(k=2))
        np.testing.assert_allclose(lines["k = 2"].get_xdata(), [4, 8, 16])
        ring = lines["recommended"]
        assert float(np.ravel(ring.get_xdata())[0]) == 8
        assert float(np.ravel(ring.get_ydata())[0]) == pytest.approx(
            float(mean.sel(k=2, n_modes=8))
        )
    assert axes[2].get_ylim() == (0, pytest.approx(1.1 * float(curve["l0"].max())))


def test_bad_curves_are_named(curve):
    with pytest.raises(TypeError, match="curve is a DataArray"):
        plot.mode_choice(curve["r2"])
    with pytest.raises(ValueError, match="curve has no 'stability'; expected the result of"):
        plot.mode_choice(curve.drop_vars("stability"))
