"""Bars and lines of scores, reliability, training and predictions."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import to_hex

import retina_codec as rc
from retina_codec import plot
from retina_codec.plot.style import BLUE


def texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_prediction_draws_the_mean_response_and_every_model(node):
    rates = {"BN-CNN": node["true_rate"], "LN": node["true_rate"] * 0.5}
    ax = plot.prediction(rates, node, cell="cell 02")
    assert ax.get_ylabel() == "firing rate (Hz)" and ax.get_xlabel() == "time (s)"
    assert texts(ax) == ["recorded, mean of 5 repeats", "BN-CNN", "LN"]
    response, first, second = ax.lines
    expected = node["spike_count"].sel(cell="cell 02").mean("repeat").values / 0.01
    drawn = response.get_ydata()
    assert np.isnan(drawn[300]), "the line must break between blocks"
    np.testing.assert_allclose(np.delete(drawn, 300), expected)
    truth = node["true_rate"].sel(cell="cell 02").values
    np.testing.assert_allclose(np.delete(first.get_ydata(), 300), truth)
    np.testing.assert_allclose(np.delete(second.get_ydata(), 300), truth * 0.5)
    np.testing.assert_allclose(np.delete(first.get_xdata(), 300), node["time"].values)
    # The same bins for both: otherwise a model seems to lead by half of one.
    assert {line.get_drawstyle() for line in ax.lines} == {"steps-post"}


def test_prediction_of_a_stretch_and_of_a_single_trial(node):
    ax = plot.prediction(
        node["true_rate"], node.isel(repeat=0, drop=True), cell="cell 00", time=slice(1.0, 1.5)
    )
    assert texts(ax) == ["single trial", "model"]
    assert ax.get_xlim() == (1.0, 1.5)
    assert len(ax.lines[1].get_xdata()) == int(
        ((node["time"] >= 1.0) & (node["time"] <= 1.5)).sum()
    )


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"cell": "cell 9"}, ValueError, "did you mean 'cell"),
        ({"cell": None}, ValueError, "say which"),
        ({"time": (100, 200)}, ValueError, r"has no sample in time=\(100, 200\)"),
        ({"time": 3}, TypeError, "slice"),
        ({"ax": "here"}, TypeError, "ax is a str"),
    ],
)
def test_prediction_says_what_is_wrong(node, change, error, words):
    with pytest.raises(error, match=words):
        plot.prediction(node["true_rate"], node, **{"cell": "cell 00", **change})


def test_scores_draw_bars_intervals_and_ceiling(evaluation):
    baseline = evaluation * 0.5
    ax = plot.scores(evaluation, baseline=baseline, names=("CNN", "LN"))
    assert ax.get_ylabel() == "Pearson r" and ax.get_xlabel() == "cell"
    heights = [bar.get_height() for bar in ax.patches]
    np.testing.assert_allclose(heights, np.r_[evaluation["pearson_r"], baseline["pearson_r"]])
    assert to_hex(ax.patches[0].get_facecolor()) == BLUE.lower()
    assert [label.get_text() for label in ax.get_xticklabels()] == list(evaluation["cell"].values)
    assert texts(ax) == ["ceiling", "CNN", "LN"]
    intervals, _, ceiling = ax.collections
    ends = np.array([segment[:, 1] for segment in intervals.get_segments()])
    np.testing.assert_allclose(ends[:, 0], evaluation["pearson_r_low"])
    np.testing.assert_allclose(ends[:, 1], evaluation["pearson_r_high"])
    assert {segment[0, 1] for segment in ceiling.get_segments()} == {0.95}


def test_scores_order_cells_by_label_and_mark_missing_ones(evaluation):
    reordered = evaluation.isel(cell=slice(None, None, -1)) * 0.5
    evaluation["pearson_r"][1] = np.nan
    ax = plot.scores(evaluation, baseline=reordered)
    np.testing.assert_allclose(ax.patches[6].get_height(), evaluation["pearson_r"][0] / 2)
    assert [text.get_text() for text in ax.texts] == [" n/a"]


def test_scores_take_the_ceiling_of_a_reliability(evaluation):
    measured = xr.Dataset({"cc_max": evaluation["cc_max"] * 0.5})
    ax = plot.scores(evaluation, reliability=measured)
    assert {segment[0, 1] for segment in ax.collections[-1].get_segments()} == {0.475}


def test_scores_draw_the_null_baseline_and_interval_of_the_ceiling_they_hold(evaluation):
    half = evaluation["pearson_r"] * 0.5
    whole = evaluation.assign(
        pearson_r_null_high=evaluation["pearson_r"] * 0.1,
        pearson_r_baseline=half,
        pearson_r_baseline_low=half - 0.05,
        pearson_r_baseline_high=half + 0.05,
        cc_max_low=evaluation["cc_max"] - 0.02,
        cc_max_high=evaluation["cc_max"] + 0.03,
    )
    ax = plot.scores(whole, names=("CNN", "LN"))
    assert texts(ax) == ["ceiling", "null: shifted in time", "CNN", "LN"]
    n = whole.sizes["cell"]
    np.testing.assert_allclose([bar.get_height() for bar in ax.patches[n:]], half)
    of_model, of_baseline, ceiling, band, null = ax.collections
    ends = np.array([segment[:, 1] for segment in of_baseline.get_segments()])
    np.testing.assert_allclose(ends, np.stack([half - 0.05, half + 0.05], axis=1))
    assert len(of_model.get_segments()) == len(ceiling.get_segments()) == n
    heights = [segment[0, 1] for segment in null.get_segments()]
    np.testing.assert_allclose(heights, whole["pearson_r_null_high"])
    paths = band.get_paths()
    assert len(paths) == n, "the bands of two cells must not touch"
    box = paths[2].get_extents()
    np.testing.assert_allclose([box.x0, box.x1, box.y0, box.y1], [1.55, 2.45, 0.93, 0.98])
    other = plot.scores(whole, baseline=evaluation * 0.25)
    np.testing.assert_allclose(
        [bar.get_height() for bar in other.patches[n:]], evaluation["pearson_r"] * 0.25
    )


def test_scores_draw_what_evaluate_gives(node):
    rate = node["true_rate"].transpose("time", "cell")
    table = rc.evaluate(rate, node, baseline=rate * 0.5 + 10, n_draws=20, n_shifts=20)
    ax = plot.scores(table)
    assert texts(ax) == ["ceiling", "null: shifted in time", "model", "baseline"]
    np.testing.assert_allclose(
        [bar.get_height() for bar in ax.patches],
        np.r_[table["pearson_r"], table["pearson_r_baseline"]],
    )
    single = rc.evaluate(rate, node.isel(repeat=0), n_draws=20, n_shifts=20)
    assert [text.get_text() for text in plot.scores(single, score="fev").texts] == [" n/a"] * 6
    assert texts(plot.scores(single)) == ["null: shifted in time", "model"]


@pytest.mark.parametrize("score", ["cc_norm", "fev"])
def test_normalised_scores_have_their_ceiling_at_one(evaluation, score):
    ax = plot.scores(evaluation, score=score)
    assert 1.0 in [line.get_ydata()[0] for line in ax.lines]


def test_scores_say_what_is_wrong(evaluation):
    with pytest.raises(ValueError, match=r"score='pearson' is not known; did you mean"):
        plot.scores(evaluation, score="pearson")
    with pytest.raises(ValueError, match=r"evaluation has no 'fev'"):
        plot.scores(evaluation.drop_vars("fev"), score="fev")
    with pytest.raises(ValueError, match=r"baseline lacks the cells"):
        plot.scores(evaluation, baseline=evaluation.isel(cell=[0]))
    with pytest.raises(TypeError, match=r"evaluation is a dict"):
        plot.scores({"trained": evaluation})


def test_reliability_draws_a_bar_a_measure(evaluation):
    found = xr.Dataset(
        {
            "cc_max": evaluation["cc_max"],
            "cc_max_se": evaluation["cc_max"] * 0.1,
            "split_half_r": evaluation["cc_max"] * 0.5,
        }
    )
    ax = plot.reliability(found)
    assert len(ax.patches) == 2 * found.sizes["cell"]
    assert texts(ax) == ["CC_max", "split-half r"]
    with pytest.raises(ValueError, match=r"dataset has no 'ceiling'"):
        plot.reliability(found, measures=["ceiling"])


def test_training_draws_both_losses_and_the_best_epoch():
    history = xr.Dataset(
        {"train_loss": ("epoch", [3.0, 2.0, 1.0]), "validation_loss": ("epoch", [3.0, 1.5, 1.8])},
        coords={"epoch": [0, 1, 2]},
        attrs={"best_epoch": 1},
    )
    ax = plot.training(history)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [3, 2, 1])
    np.testing.assert_allclose(ax.lines[1].get_ydata(), [3, 1.5, 1.8])
    assert set(ax.lines[2].get_xdata()) == {1}
    assert texts(ax) == ["training", "validation", "kept: epoch 1"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "Poisson loss")
    with pytest.raises(ValueError, match=r"history has no 'validation_loss'"):
        plot.training(history.drop_vars("validation_loss"))


def test_given_axes_are_used_and_settings_left_alone(evaluation, node):
    before, open_before = dict(mpl.rcParams), plt.get_fignums()
    figure, (left, right) = plt.subplots(1, 2)
    assert plot.scores(evaluation, ax=left) is left
    assert plot.prediction(node["true_rate"], node, cell="cell 00", ax=right) is right
    assert plt.get_fignums() == [*open_before, figure.number]
    assert dict(mpl.rcParams) == before
