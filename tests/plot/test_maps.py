"""Heat maps of contributions and modes, kernels, frames and comparisons."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import xarray as xr

import retina_codec as rc
from retina_codec import plot
from retina_codec.plot.kernels import separated
from retina_codec.plot.style import LABEL_COLORS


def limits(ax):
    return [image.get_clim() for image in ax.images]


def texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def ticks(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


class TestContribution:
    def test_images_stand_side_by_side(self):
        values = np.random.default_rng(0).normal(size=(30, 2, 4))
        shown = xr.DataArray(
            values,
            {"image": [f"dog_{i}.png" for i in range(30)], "sign": ["positive", "negative"]},
            ("image", "sign", "channel"),
        )
        (ax,) = plot.contribution(shown)
        (image,) = ax.images
        np.testing.assert_allclose(image.get_array(), values.reshape(30, 8).T)
        assert ax.get_xlabel() == "image (position in the set)"
        np.testing.assert_allclose(image.get_extent()[:2], (0, 30))

    def test_draws_sign_by_channel_over_time(self, contribution):
        (ax,) = plot.contribution(contribution.transpose("channel", ...), cell="cell 01")
        first, second = ax.images
        expected = contribution.sel(cell="cell 01").values.reshape(600, 8).T
        np.testing.assert_allclose(first.get_array(), expected[:, :300])
        np.testing.assert_allclose(second.get_array(), expected[:, 300:])
        np.testing.assert_allclose(second.get_extent()[:2], (4.0, 7.0))
        assert limits(ax)[0] == limits(ax)[1]
        low, high = limits(ax)[0]
        assert low == -high
        assert ticks(ax.yaxis) == [*"0123"] * 2
        assert [text.get_text() for text in ax.texts] == ["positive channel", "negative channel"]
        assert ax.get_xlabel() == "time (s)"
        labels = [other.get_ylabel() for other in ax.figure.axes]
        assert "contribution of conv1 (Hz)" in labels

    def test_rate_above_shares_time(self, contribution, node):
        rate, heat = plot.contribution(
            contribution, cell="cell 01", time=(1, 2), rate=node["true_rate"]
        )
        stretch = node["true_rate"].sel(cell="cell 01", time=slice(1, 2))
        np.testing.assert_allclose(rate.lines[0].get_ydata(), stretch)
        assert rate.get_ylabel() == "rate (Hz)"
        assert rate.get_xlim() == heat.get_xlim()
        assert rate.get_title(loc="left") == "cell cell 01"

    def test_positive_only_is_symmetric_too(self, contribution):
        (ax,) = plot.contribution(abs(contribution).isel(cell=0))
        low, high = limits(ax)[0]
        assert low == -high < 0

    def test_long_stretches_are_averaged_not_dropped(self, contribution):
        long = xr.DataArray(
            np.zeros((5000, 2)), {"time": np.arange(5000) * 0.01}, ("time", "channel")
        )
        long[1234, 1] = 8.0
        (ax,) = plot.contribution(long)
        drawn = ax.images[0].get_array()
        assert drawn.shape[1] <= 700
        assert drawn.max() == pytest.approx(1.0)  # the mean of 8 bins

    def test_says_what_is_wrong(self, contribution):
        with pytest.raises(ValueError, match=r"has 6 cells; say which"):
            plot.contribution(contribution)
        with pytest.raises(ValueError, match=r"sum over space with \.sum\(\('y', 'x'\)"):
            plot.contribution(contribution.expand_dims(("y", "x")), cell="cell 01")
        with pytest.raises(TypeError, match=r"contribution is a ndarray"):
            plot.contribution(contribution.values)
        with pytest.raises(TypeError, match=r"figure is a Axes"):
            plot.contribution(contribution, cell="cell 01", figure=plt.gca())


class TestModes:
    def test_dictionary(self, dictionary):
        ax = plot.dictionary(dictionary.transpose("channel", "mode", "sign"))
        np.testing.assert_allclose(ax.images[0].get_array(), dictionary.values.reshape(5, 8))
        low, high = limits(ax)[0]
        assert low == -high
        assert ticks(ax.xaxis) == [*"0123"] * 2
        assert ticks(ax.child_axes[0].xaxis) == ["positive", "negative"]
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("channel", "mode")

    def test_dictionary_of_several_layers(self, dictionary):
        columns = xr.DataArray(
            np.arange(8.0).reshape(2, 4),
            dims=("mode", "column"),
            coords={
                "layer": ("column", ["conv1", "conv1", "conv2", "conv2"]),
                "channel": ("column", [0, 1, 0, 1]),
            },
        )
        ax = plot.dictionary(columns)
        assert ticks(ax.child_axes[0].xaxis) == ["conv1", "conv2"]
        assert ticks(ax.xaxis) == ["0", "1", "0", "1"]
        with pytest.raises(ValueError, match=r"expected 'mode'"):
            plot.dictionary(dictionary.rename(mode="atom"))

    def test_mode_cells(self, loadings):
        ax = plot.mode_cells(loadings)
        np.testing.assert_allclose(
            ax.images[0].get_array(), loadings.mean("time").values.T, rtol=1e-6
        )
        assert limits(ax)[0][0] == 0
        with pytest.raises(ValueError, match=r"no 'cell'"):
            plot.mode_cells(loadings.isel(cell=0))

    def test_mode_features(self, description):
        shuffled = description.isel(feature=[4, 0, 5, 1, 6, 2, 7, 3])
        ax = plot.mode_features(shuffled)
        np.testing.assert_allclose(ax.images[0].get_array(), description["partial_r"].values)
        low, high = limits(ax)[0]
        assert low == -high
        marked = {tuple(place) for place in ax.collections[0].get_offsets().data.astype(int)}
        rows, columns = np.nonzero(description["q_value"].values < 0.05)
        assert marked == set(zip(columns, rows, strict=True))
        above, right = ax.child_axes
        assert ticks(above.xaxis) == ["light", "motion"]
        assert ticks(right.yaxis) == [
            "light: ON",
            "motion: translation (90 deg)",
            "mixed: OFF + object motion",
            "none",
            "light: contrast",
        ]
        colors = [label.get_color() for label in right.get_yticklabels()]
        assert colors[:2] == [LABEL_COLORS["light"], LABEL_COLORS["motion"]]
        with pytest.raises(ValueError, match=r"description has no label, family"):
            plot.mode_features(description.drop_vars(["label", "family"]))
        with pytest.raises(TypeError, match=r"description is a DataArray"):
            plot.mode_features(description["partial_r"])

    def test_timeline_stacks_what_is_given(self, loadings, node, description):
        epoch, _frames, stimulus, rate, heat = plot.mode_timeline(
            loadings, stimulus=node["stimulus"], rate=node["true_rate"], description=description
        )
        np.testing.assert_allclose(
            np.delete(stimulus.lines[0].get_ydata(), 300), node["stimulus"].mean(("y", "x"))
        )
        np.testing.assert_allclose(rate.images[0].get_array(), node["true_rate"].values[:300].T)
        mean = loadings.mean("cell").values.T
        np.testing.assert_allclose(heat.images[1].get_array(), mean[:, 300:])
        assert texts(epoch) == ["on step", "grating", "bar", "between"]
        assert len(epoch.patches) == 4
        assert [label.get_color() for label in heat.get_yticklabels()] == [
            LABEL_COLORS[str(name)] for name in description["label"].values
        ]
        assert heat.get_xlabel() == "time (s)"
        assert heat.get_xlim() == epoch.get_xlim() == (0.0, pytest.approx(7.0))

    def test_gaps_are_seen_without_blocks_too(self, loadings):
        _, heat = plot.mode_timeline(loadings.drop_vars("block"))
        spans = [image.get_extent()[:2] for image in heat.images]
        np.testing.assert_allclose(spans, [(0, 3), (4, 7)])

    def test_timeline_of_one_cell(self, loadings, node):
        _, rate, heat = plot.mode_timeline(
            loadings, rate=node["true_rate"], cell="cell 03", time=(1, 2)
        )
        stretch = {"cell": "cell 03", "time": slice(1, 2)}
        np.testing.assert_allclose(rate.lines[0].get_ydata(), node["true_rate"].sel(stretch))
        np.testing.assert_allclose(heat.images[0].get_array(), loadings.sel(stretch).values.T)
        assert rate.get_ylabel() == "rate (Hz)"

    def test_timeline_says_what_is_wrong(self, loadings, description):
        with pytest.raises(ValueError, match=r"description lacks the modes"):
            plot.mode_timeline(loadings, description=description.isel(mode=slice(3)))
        with pytest.raises(ValueError, match=r"loadings has dims"):
            plot.mode_timeline(loadings.rename(mode="atom"))


class TestFilters:
    def test_separates_space_and_time(self):
        model = rc.models.BNCNN((12, 12), history=20, bin_width=0.01, cells=["a"], channels=(3, 2))
        space, course = np.ones((4, 4)), np.sin(np.arange(20.0))
        space[1, 2] = -2.0
        kernel = model.layers["conv1"].weight
        size = kernel.shape[-1]
        space = space[:size, :size]
        with torch.no_grad():
            kernel[0, :, 0] = torch.from_numpy(course[:, None, None] * space)
        axes = plot.filters(model, layer="conv1")
        assert axes.shape == (3, 2)
        np.testing.assert_allclose(axes[0, 0].images[0].get_array(), space / -2.0, atol=1e-6)
        lags, drawn = axes[0, 1].lines[1].get_data()
        np.testing.assert_allclose(drawn, course * -2.0, atol=1e-6)
        assert (lags[0], lags[-1]) == (pytest.approx(190), 0)
        assert axes[0, 1].get_xlim() == (pytest.approx(190), 0)
        assert axes[0, 0].get_title(loc="center") == "0: 100 %"
        assert axes[0, 1].get_xlabel() == "before the response (ms)"
        low, high = axes[0, 0].images[0].get_clim()
        assert low == -high

    def test_one_pixel_has_a_time_course_only(self):
        model = rc.models.BNCNN((1, 1), history=10, bin_width=0.02, cells=["a"], channels=(9, 2))
        axes = plot.filters(model, layer="conv1")
        assert axes.shape == (9, 1)
        weight = model.layers["conv1"].weight.detach().numpy()
        np.testing.assert_allclose(axes[8, 0].lines[1].get_ydata(), weight[8, :, 0, 0, 0])
        assert not axes[0, 0].images

    def test_colour_planes_have_a_map_each(self):
        model = rc.models.BNCNN((2, 12, 12), history=5, bin_width=0.01, cells=["a"])
        assert plot.filters(model, layer="conv1").shape == (8, 3)

    def test_share_of_the_first_pair(self):
        a, b = np.zeros((4, 1, 2, 2)), np.zeros((4, 1, 2, 2))
        a[0, 0, 0, 0], b[1, 0, 1, 1] = 3.0, 4.0
        space, course, share = separated(a + b)
        assert share == pytest.approx(16 / 25)
        np.testing.assert_allclose(space[0], [[0, 0], [0, 1]], atol=1e-12)
        np.testing.assert_allclose(course, [0, 4, 0, 0], atol=1e-12)

    def test_says_which_layers_have_kernels(self):
        model = rc.models.BNCNN((12, 12), history=5, bin_width=0.01, cells=["a"])
        with pytest.raises(ValueError, match=r"layer='conv2' has a weight of shape .*: conv1$"):
            plot.filters(model, layer="conv2")
        with pytest.raises(ValueError, match=r"no layer 'conv_1'; did you mean"):
            plot.filters(model, layer="conv_1")
        with pytest.raises(TypeError, match=r"model is a Sequential"):
            plot.filters(model.network, layer="conv1")


class TestFrames:
    def test_draws_the_frame_shown_at_each_time(self, node):
        axes = plot.movie_frames(node["stimulus"], times=[0.058, 4.0])
        np.testing.assert_array_equal(axes[0].images[0].get_array(), node["stimulus"][5])
        np.testing.assert_array_equal(axes[1].images[0].get_array(), node["stimulus"][300])
        assert axes[1].get_title(loc="center") == "4.00 s\ngrating"
        assert limits(axes[0]) == limits(axes[1])

    def test_number_and_colour(self, node):
        colored = node["stimulus"].expand_dims(color=2, axis=1)
        assert plot.movie_frames(colored, n=4).shape == (4,)

    @pytest.mark.parametrize("times", [[-1.0], [99.0], []])
    def test_says_what_is_wrong(self, node, times):
        with pytest.raises(ValueError, match=r"times=.* from 0 to 6.99"):
            plot.movie_frames(node["stimulus"], times=times)


class TestComparisons:
    def test_epoch_selectivity_beside_a_control(self, selectivity):
        control = selectivity.isel(epoch=[1, 0, 2])
        ax = plot.epoch_selectivity({"trained": selectivity, "untrained": control})
        assert texts(ax) == ["chance", "trained", "untrained"]
        assert ticks(ax.xaxis) == ["bar", "grating", "off step", "on step", "still"]
        trained, untrained = (container.lines[0] for container in ax.containers)
        np.testing.assert_allclose(trained.get_ydata(), selectivity["best_auc"])
        # In the order of the first result, whatever the order of the second.
        np.testing.assert_array_equal(np.round(untrained.get_xdata()), [1, 0, 2])
        assert ax.get_ylabel() == "AUC of the best mode"
        with pytest.raises(ValueError, match=r"selectivity has no 'best_auc_low'"):
            plot.epoch_selectivity(selectivity.drop_vars("best_auc_low"))

    def test_epoch_selectivity_of_assigned_modes(self, selectivity):
        ends = ("", "_low", "_high")
        assigned = {f"assigned_auc{e}": selectivity[f"best_auc{e}"] - 0.2 for e in ends}
        # Nothing is assigned to the last kind.
        both = selectivity.assign(assigned).where(selectivity["epoch"] != "still")
        ax = plot.epoch_selectivity(both, score="assigned")
        expected = [0.75, 0.7, 0.79, 0.78, np.nan]
        np.testing.assert_allclose(ax.containers[0].lines[0].get_ydata(), expected)
        assert ax.get_ylabel() == "AUC of the modes assigned"
        assert len(ticks(ax.xaxis)) == 5
        with pytest.raises(ValueError, match=r"score='all' is not known"):
            plot.epoch_selectivity(both, score="all")
        with pytest.raises(ValueError, match=r"selectivity has no 'assigned_auc'"):
            plot.epoch_selectivity(selectivity, score="assigned")

    def test_interneurons_by_type(self, matches):
        ax = plot.interneuron_match(matches)
        assert ticks(ax.xaxis) == ["bipolar ON", "bipolar\nOFF", "amacrine\nwide"]
        assert texts(ax) == ["null", "model, p < 0.05", "model, not significant"]
        null, significant, rest = ax.collections
        np.testing.assert_allclose(significant.get_offsets()[:, 1], matches["best_r"][:5])
        np.testing.assert_allclose(rest.get_offsets()[:, 1], matches["best_r"][5:])
        assert len(null.get_segments()) == 8
        places = np.r_[significant.get_offsets()[:, 0], rest.get_offsets()[:, 0]]
        np.testing.assert_array_equal(np.round(places), [0, 0, 0, 1, 1, 1, 2, 2])

    def test_interneurons_of_a_simulation(self, matches):
        ax = plot.interneuron_match(matches.rename(type="interneuron_type"))
        assert len(ticks(ax.xaxis)) == 3
        ax = plot.interneuron_match(matches.drop_vars("type"))
        assert ticks(ax.xaxis) == [f"i{n}" for n in range(8)]

    def test_interneurons_beside_a_control(self, matches):
        tree = xr.DataTree.from_dict({"trained": matches, "untrained": matches * 0.5})
        ax = plot.interneuron_match(dict(tree.children))
        assert "untrained, p < 0.05" in texts(ax)
        with pytest.raises(TypeError, match=r"comparison is a float"):
            plot.interneuron_match(0.5)
        with pytest.raises(ValueError, match=r"comparison is empty"):
            plot.interneuron_match({})
