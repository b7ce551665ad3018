"""Pictures of what was recovered: values at their places, bad input."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

from retina_codec import plot

MODELS = ["trained", "untrained"]


@pytest.fixture
def summary(rng):
    dims = {
        "prediction_r": ("model",),
        "interneuron_r": ("model", "signal"),
        "contribution_r": ("model", "features", "removed", "cut"),
        "cka": ("model", "removed", "parts", "cut"),
    }
    coords = {
        "model": MODELS,
        "signal": ["potential", "release"],
        "features": ["contribution", "activation", "single_unit", "unit_activation"],
        "removed": ["nothing", "predicted", "both"],
        "cut": ["bipolar", "ganglion_input"],
        "parts": ["net", "signed"],
    }
    values = {
        name: (along, rng.uniform(0.2, 0.8, [len(coords[dim]) for dim in along]))
        for name, along in dims.items()
    }
    return xr.Dataset(values, coords)


def test_every_comparison_has_a_column_with_a_point_a_model(summary):
    ranges = xr.merge(
        [
            (summary + by).rename({name: name + end for name in summary})
            for end, by in (("_low", -0.1), ("_high", 0.2))
        ]
    )
    ax = plot.recovery(summary.merge(ranges), cut="ganglion_input", removed="both")
    assert len(ax.get_xticks()) == 8
    for model, drawn in zip(MODELS, ax.containers, strict=True):
        points, _, bars = drawn
        one = summary.sel(model=model)
        contributions = one["contribution_r"].sel(cut="ganglion_input", removed="both")
        names = ["contribution", "single_unit", "activation", "unit_activation"]
        expected = [
            one["prediction_r"], *one["interneuron_r"],
            *(contributions.sel(features=name) for name in names),
            one["cka"].sel(cut="ganglion_input", removed="both", parts="net"),
        ]  # fmt: skip
        np.testing.assert_allclose(points.get_ydata(), expected)
        for value, bar in zip(expected, bars[0].get_segments(), strict=True):
            np.testing.assert_allclose(bar[:, 1], [value - 0.1, value + 0.2])
    assert "predicted and true rate removed" in ax.get_title(loc="left")


def test_without_noise_there_are_no_columns_of_interneurons(summary):
    ax = plot.recovery(summary.drop_vars("interneuron_r"))
    assert len(ax.get_xticks()) == 6
    _, given = plt.subplots()
    assert plot.recovery(summary, ax=given) is given


def test_what_is_no_summary_is_refused(summary):
    with pytest.raises(TypeError, match="summary is a DataArray"):
        plot.recovery(summary["cka"])
    with pytest.raises(ValueError, match="summary has no 'cka'"):
        plot.recovery(summary.drop_vars("cka"))
    with pytest.raises(ValueError, match="cut='amacrine'"):
        plot.recovery(summary, cut="amacrine")
    with pytest.raises(ValueError, match="removed='rate'"):
        plot.recovery(summary, removed="rate")


def test_a_curve_has_a_panel_a_comparison_over_amounts(summary):
    one = summary.assign(worst_prediction_r=summary["prediction_r"] - 0.1)
    minutes = xr.Variable("minutes", [20.0, 1.0, 5.0], {"units": "min"})
    joined = xr.concat([one + 0.2, one, one + 0.1], minutes)
    axes = plot.recovery_curve(joined, cut="ganglion_input", removed="both")
    assert [ax.get_title(loc="left") for ax in axes] == [
        "rate", "rate, worst cell", "potential of interneurons", "contributions",
        "CKA of contributions",
    ]  # fmt: skip
    at = {"cut": "ganglion_input", "removed": "both"}
    expected = [
        one["prediction_r"], one["worst_prediction_r"],
        one["interneuron_r"].sel(signal="potential"),
        one["contribution_r"].sel(features="contribution", **at), one["cka"].sel(parts="net", **at),
    ]  # fmt: skip
    for ax, values in zip(axes, expected, strict=True):
        for model in MODELS:
            line = next(line for line in ax.get_lines() if line.get_label() == model)
            np.testing.assert_allclose(line.get_xdata(), [1, 5, 20])
            value = float(values.sel(model=model))
            np.testing.assert_allclose(line.get_ydata(), [value, value + 0.1, value + 0.2])
    assert axes[0].get_xscale() == "log"
    assert axes[2].get_xlabel() == "minutes (min)"
    with pytest.raises(ValueError, match=r"no dim 'hours' .*join summaries with xr.concat"):
        plot.recovery_curve(joined, along="hours")
    with pytest.raises(ValueError, match=r"summary\['minutes'\] is .*above 0"):
        plot.recovery_curve(joined.assign_coords(minutes=[0, 1, 2]))
    with pytest.raises(TypeError, match="summary is a DataArray"):
        plot.recovery_curve(joined["cka"])


def test_a_burst_has_a_panel_a_channel(rng):
    true = xr.DataArray(
        rng.normal(size=(21, 3)),
        dims=("time", "true_channel"),
        coords={
            "time": 4 + 0.01 * np.arange(21),
            "true_channel": ["on_transient", "off_transient", "wide"],
            "feature": ("true_channel", ["relu1 3", "relu1 0", "relu2 1 negative"]),
            "cell": "on_off_0",
        },
        attrs={"units": "Hz"},
    )
    axes = plot.burst(true, 0.5 * true)
    assert len(axes) == 3
    for k, ax in enumerate(axes):
        lines = {line.get_label(): line for line in ax.get_lines()}
        np.testing.assert_allclose(lines["true"].get_ydata(), true[:, k])
        np.testing.assert_allclose(lines["recovered"].get_ydata(), 0.5 * true[:, k])
        np.testing.assert_allclose(lines["true"].get_xdata(), np.linspace(-0.1, 0.1, 21))
    assert axes[2].texts[0].get_text() == "relu2\n1\nnegative"
    assert axes[0].figure.get_supylabel() == "contribution to on off 0 (Hz)"
    with pytest.raises(ValueError, match="differ along 'true_channel'"):
        plot.burst(true, true.isel(true_channel=[1, 0, 2]))
    with pytest.raises(ValueError, match="recovered has dims"):
        plot.burst(true, true.isel(time=0))
