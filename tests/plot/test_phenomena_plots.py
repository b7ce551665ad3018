"""Pictures of phenomena show the numbers of the results."""

import numpy as np
import pytest

import retina_codec as rc
from retina_codec import physiology

CELL = "on_transient_0"
CHOSEN = [
    physiology.StepResponse(duration=0.5),
    physiology.FrequencyDoubling(n_phases=2, n_periods=1),
    physiology.SpeedTuning(speeds=(2000.0, 4000.0)),
]


@pytest.fixture(scope="module")
def tree():
    circuit = rc.simulation.circuit("default", shape=(12, 12))
    return rc.phenomena(circuit, names=CHOSEN, cells=[CELL, "off_transient_0"])


def test_traces_and_tuning_stand_side_by_side(tree):
    node = tree["speed_tuning"]
    axes = rc.plot.phenomenon({"a": node, "b": node}, cell=CELL)
    assert axes.shape == (2, 2)
    curve = axes[1, 1].lines[0]
    np.testing.assert_allclose(curve.get_ydata(), node["speed_response"].sel(cell=CELL))
    assert axes[0, 0].get_title(loc="left").startswith(f"a, cell {CELL}")
    assert axes[1, 0].get_xlabel() == "speed (um/s)"
    # Two harmonics are two curves.
    doubled = rc.plot.phenomenon(tree["frequency_doubling"], cell=CELL)
    assert len(doubled[1, 0].lines) == 2
    lines = [
        line.get_ydata()
        for line in rc.plot.phenomenon(tree["step_response"], cell=CELL)[0, 0].lines
    ]
    response = tree["step_response"]["response"].sel(cell=CELL)
    np.testing.assert_allclose(lines[0], response.isel(trial=0))


def test_table_and_agreement_show_their_numbers(tree):
    ax = rc.plot.phenomena_table(tree)
    texts = [text.get_text() for text in ax.texts]
    assert f"{float(tree['value'].sel(cell=CELL, index='step_bias')):.2f}" in texts
    assert len(texts) == int(np.isfinite(tree["value"]).sum())
    noisy = tree.copy(deep=True)
    with pytest.raises(ValueError, match="compare_phenomena"):
        rc.plot.phenomena_agreement(noisy.to_dataset())


def test_explanations_are_bars_of_their_channels():
    circuit = rc.simulation.circuit("default", shape=(10, 10))
    steps = physiology.StepResponse(duration=0.5)
    method = rc.methods.IntegratedGradients(steps=2)
    found = rc.explain(
        circuit, steps, cells=["on_sustained_0"], layers="bipolar", method=method, control=circuit
    )
    axes = rc.plot.explanation(found, cell="on_sustained_0")
    assert len(axes) == 2
    heights = [bar.get_height() for bar in axes[0].patches]
    np.testing.assert_allclose(heights, found["layers/bipolar"]["change"].values[0])
    with pytest.raises(ValueError, match="did you mean 'bipolar'"):
        rc.plot.explanation(found, cell="on_sustained_0", layer="bipola")
    with pytest.raises(ValueError, match="cell='x'"):
        rc.plot.explanation(found, cell="x")
    with pytest.raises(ValueError, match="not the result of one phenomenon"):
        rc.plot.phenomenon(found, cell="on_sustained_0")
