"""From neo objects to the tree: units, events, movies with space and colour, bad input."""

from itertools import pairwise

import neo
import numpy as np
import pytest
import quantities as pq
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from retina_codec._common.time import time_coordinate
from retina_codec.recordings import FrozenNoise, recording_from_neo
from retina_codec.recordings.binning import count_spikes


def segment(trains, marks=None):
    made = neo.Segment()
    for name, times in trains.items():
        made.spiketrains.append(neo.SpikeTrain(times, t_stop=100 * pq.s, name=name))
    if marks is not None:
        made.events.append(neo.Event(times=marks, name="frames"))
    return made


@settings(deadline=None)
@given(
    spikes=st.lists(st.floats(0, 10), max_size=60),
    marks=st.lists(st.floats(0, 10), min_size=2, max_size=40, unique=True),
)
def test_binning_conserves_spikes(spikes, marks):
    spikes, edges = np.array(spikes), np.sort(marks)
    counts = count_spikes(spikes, edges)
    assert counts.sum() == ((spikes >= edges[0]) & (spikes < edges[-1])).sum()
    slow = [sum(a <= t < b for t in spikes) for a, b in pairwise(edges)]
    assert counts.tolist() == slow


def test_units_are_converted_and_events_found_by_name():
    made = segment({"a": [120, 130, 350] * pq.ms}, marks=[100, 200, 300] * pq.ms)
    recording = recording_from_neo(made, stimulus=np.zeros(3), frame_times="frames")
    train = recording["train"]
    np.testing.assert_allclose(train["time"], [0.1, 0.2, 0.3])
    # the last frame has no end mark and lasts one mean interval: 0.35 s falls into it
    assert train["spike_count"].values[:, 0].tolist() == [2, 0, 1]
    for marks in (made.events[0], [100, 200, 300] * pq.ms, np.array([0.1, 0.2, 0.3])):
        other = recording_from_neo(made, stimulus=np.zeros(3), frame_times=marks)
        assert other["train"].identical(train)


def test_one_mark_more_than_frames_ends_the_last_frame():
    made = segment({"a": [0.5, 2.5, 3.1] * pq.s})
    train = recording_from_neo(made, stimulus=np.zeros(3), frame_times=np.arange(4.0))["train"]
    assert train["spike_count"].values[:, 0].tolist() == [1, 0, 1]


def test_a_block_of_one_segment_and_ids_from_annotations():
    made = segment({})
    made.spiketrains.append(neo.SpikeTrain([1.5] * pq.s, t_stop=9, id=17))
    made.spiketrains.append(neo.SpikeTrain([1.5] * pq.s, t_stop=9))
    block = neo.Block()
    block.segments.append(made)
    train = recording_from_neo(block, stimulus=np.zeros(3), frame_times=np.arange(3.0))["train"]
    assert train["cell"].values.tolist() == ["17", "1"]


def test_a_movie_keeps_its_coordinates_and_attrs():
    movie = xr.DataArray(
        np.random.default_rng(0).normal(size=(3, 2, 5, 4)),
        dims=("time", "color", "x", "y"),
        coords={
            "color": ["green", "uv"],
            "y": ("y", np.arange(4) * 50.0, {"units": "um"}),
            "time": time_coordinate(np.arange(3.0), 1.0),
        },
        attrs={"units": "contrast"},
    )
    made = segment({"a": [0.5] * pq.s})
    train = recording_from_neo(made, stimulus=movie, frame_times=np.arange(3.0) + 7)["train"]
    assert train["stimulus"].dims == ("time", "color", "y", "x")
    np.testing.assert_allclose(
        train["stimulus"], movie.transpose("time", "color", "y", "x"), rtol=1e-6
    )
    assert train["y"].attrs == {"units": "um"}
    assert train["x"].attrs["units"] == "pixel"
    assert train["stimulus"].attrs["units"] == "contrast"
    assert train["time"].values.tolist() == [7, 8, 9]


def test_the_plan_with_a_spatial_movie():
    rng = np.random.default_rng(1)
    movie = rng.normal(size=(20, 3, 2))
    movie[17:20] = movie[7:10]
    made = segment({"a": np.sort(rng.uniform(0, 20, 200)) * pq.s})
    recording = recording_from_neo(
        made, stimulus=movie, frame_times=np.arange(20.0), plan=FrozenNoise(7, 3)
    )
    assert recording["train"]["stimulus"].shape == (14, 3, 2)
    assert recording["test"]["spike_count"].shape == (2, 3, 1)
    assert recording["test"]["repeat_onset"].values.tolist() == [7, 17]
    total = recording["train"]["spike_count"].sum() + recording["test"]["spike_count"].sum()
    assert int(total) == 200


@pytest.mark.parametrize("n_marks", [20, 21])
def test_a_plan_that_fits_exactly_drops_and_warns_of_nothing(recwarn, n_marks):
    movie = np.arange(20.0)
    movie[17:] = movie[7:10]
    made = segment({"a": [19.5, 20.5] * pq.s})
    recording = recording_from_neo(
        made, stimulus=movie, frame_times=np.arange(float(n_marks)), plan=FrozenNoise(7, 3)
    )
    assert not recwarn.list
    assert recording["test"]["spike_count"].values[:, :, 0].tolist() == [[0, 0, 0], [0, 0, 1]]


def test_rate_keeps_spikes_within_each_block():
    rng = np.random.default_rng(1)
    movie = rng.normal(size=40)
    movie[35:] = movie[15:20]
    times = np.array([14.95, 3.05, 31.02])  # bins 14 (the last of its block), 3 and 31
    made = segment({"a": np.sort(times) * 0.01 * pq.s})
    recording = recording_from_neo(
        made, stimulus=movie, frame_times=np.arange(40) * 0.01, plan=FrozenNoise(15, 5)
    )
    train = recording["train"]
    assert train["rate"].dims == ("time", "cell")
    per_block = (train["rate"] * 0.01).groupby("block").sum("time")
    np.testing.assert_allclose(per_block.values[:, 0], [2, 1], rtol=1e-9)
    # the weights of a Gaussian with the sd of one bin, cut at four
    weights = np.exp(-0.5 * np.arange(-4, 5) ** 2.0)
    weights /= weights.sum()
    np.testing.assert_allclose(train["rate"].values[3, 0], 100 * weights[4], rtol=1e-4)
    np.testing.assert_allclose(train["rate"].values[4, 0], 100 * weights[5], rtol=1e-4)
    raw = recording_from_neo(
        made,
        stimulus=movie,
        frame_times=np.arange(40) * 0.01,
        plan=FrozenNoise(15, 5),
        rate_sd=0 * pq.ms,
    )
    np.testing.assert_allclose(raw["train"]["rate"], raw["train"]["spike_count"] * 100)
    np.testing.assert_allclose(raw["test"]["rate"], raw["test"]["spike_count"].mean("repeat") * 100)


GOOD = {"stimulus": np.zeros(5), "frame_times": np.arange(5.0)}


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"stimulus": np.zeros((5, 2))}, ValueError, r"stimulus has shape \(5, 2\)"),
        ({"stimulus": np.zeros(8)}, ValueError, "stimulus has 8 frames but frame_times has 5"),
        ({"stimulus": np.zeros(3)}, ValueError, "stimulus has 3 frames but frame_times has 5"),
        ({"stimulus": ["a"] * 5}, ValueError, "expected numbers"),
        (
            {"stimulus": np.array([0, 1, np.nan, 3, 4])},
            ValueError,
            r"stimulus has 1 NaN or infinite values, the first at index \(time=2, y=0, x=0\)",
        ),
        (
            {"stimulus": xr.DataArray(np.zeros((5, 1, 1)), dims=("frame", "y", "x"))},
            ValueError,
            r"stimulus has dims .* rename with \.rename\(frame='time'\)",
        ),
        (
            {
                "stimulus": xr.DataArray(
                    np.zeros((5, 1, 1)),
                    dims=("time", "y", "x"),
                    coords={"time": time_coordinate(np.arange(5) * 0.01, 0.01)},
                )
            },
            ValueError,
            r"stimulus: bin_width=0\.01 s, but the frames .* every 1 s",
        ),
        ({"frame_times": [1, 2, 3, 4, 5] * pq.mV}, ValueError, "frame_times is in"),
        ({"frame_times": "marks"}, ValueError, "frame_times='marks' is no event"),
        ({"frame_times": np.array([0, 1, np.inf, 3, 4])}, ValueError, "mark 2 is inf"),
        ({"frame_times": np.zeros((5, 1))}, ValueError, r"frame_times has shape \(5, 1\)"),
        ({"plan": (3, 2)}, TypeError, "plan is a tuple; expected FrozenNoise"),
        ({"cells": ["b"]}, ValueError, "no cell 'b'"),
        ({"rate_sd": -1}, ValueError, "sd=-1.0"),
    ],
)
def test_bad_arguments(change, kind, words):
    made = segment({"a": [0.5] * pq.s}, marks=np.arange(5) * pq.s)
    with pytest.raises(kind, match=words) as error:
        recording_from_neo(made, **{**GOOD, **change})
    assert "\n" not in str(error.value)


def test_bad_segments():
    with pytest.raises(TypeError, match="block is a list"):
        recording_from_neo([1.0], **GOOD)
    with pytest.raises(ValueError, match="block holds 0 segments"):
        recording_from_neo(neo.Block(), **GOOD)
    with pytest.raises(ValueError, match="no spike trains"):
        recording_from_neo(neo.Segment(), **GOOD)
    double = segment({"a": [0.5] * pq.s})
    double.spiketrains.append(neo.SpikeTrain([0.5] * pq.s, t_stop=9, name="a"))
    with pytest.raises(ValueError, match="two spike trains with the id 'a'"):
        recording_from_neo(double, **GOOD)


def test_a_plan_of_no_frames():
    with pytest.raises(ValueError, match="running_frames=0; expected a number of at least 1"):
        FrozenNoise(0, 5)
    with pytest.raises(TypeError, match=r"frozen_frames=2\.5; expected a whole number"):
        FrozenNoise(3, 2.5)
