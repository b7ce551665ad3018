"""From neo objects to the tree: units, events, movies with space and colour, bad input."""

import json
from itertools import pairwise

import neo
import numpy as np
import pytest
import quantities as pq
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from neo.core.spiketrainlist import SpikeTrainList

from retina_codec._common.time import time_coordinate
from retina_codec.recordings import FrozenNoise, recording_from_neo
from retina_codec.recordings.recorded import pulse_edges, rising_edges
from retina_codec.recordings.spikes import SpikeTimes


def segment(trains, marks=None):
    made = neo.Segment()
    for name, times in trains.items():
        made.spiketrains.append(neo.SpikeTrain(times, t_stop=1000 * pq.s, name=name))
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
    counts = SpikeTimes.from_trains({"a": np.sort(spikes)}).count(edges)[:, 0]
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
    made = segment({"a": [7.5] * pq.s})
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
        ({"stimulus": ["a"] * 5}, ValueError, "stimulus .* expected real numbers"),
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
    with pytest.raises(TypeError, match="block: item 0 is a float"):
        recording_from_neo([1.0], **GOOD)
    with pytest.raises(TypeError, match=r"block is a dict; expected a neo.Block"):
        recording_from_neo({}, **GOOD)
    with pytest.raises(ValueError, match="block holds 0 segments"):
        recording_from_neo(neo.Block(), **GOOD)
    with pytest.raises(ValueError, match="no spike trains"):
        recording_from_neo(neo.Segment(), **GOOD)
    double = segment({"a": [0.5] * pq.s})
    double.spiketrains.append(neo.SpikeTrain([0.5] * pq.s, t_stop=9, name="a"))
    with pytest.raises(ValueError, match="two spike trains have the cell id 'a'"):
        recording_from_neo(double, **GOOD)


def test_a_plan_of_no_frames():
    with pytest.raises(ValueError, match="running_frames=0; expected a number of at least 1"):
        FrozenNoise(0, 5)
    with pytest.raises(TypeError, match=r"frozen_frames=2\.5; expected a whole number"):
        FrozenNoise(3, 2.5)


# Arrays inside neo's lists, pulses, several stimuli and segments


def multiplexed(times, channels, ids, **annotations):
    return SpikeTrainList.from_spike_time_array(
        np.asarray(times) * pq.ms, np.asarray(channels), ids, t_stop=1e5 * pq.ms, **annotations
    )


def test_a_list_made_of_arrays_is_not_taken_apart(monkeypatch):
    rng = np.random.default_rng(0)
    times = np.sort(rng.uniform(0, 5000, 4000))
    channels = rng.choice([3, 7, 11], 4000)
    trains = multiplexed(times, channels, [11, 3, 5, 7])
    separate = neo.Segment()
    for channel in (11, 3, 5, 7):
        own = times[channels == channel]
        separate.spiketrains.append(neo.SpikeTrain(own * pq.ms, t_stop=1e5, name=str(channel)))
    settings = {"stimulus": np.zeros(5), "frame_times": np.arange(5.0)}
    with pytest.warns(UserWarning, match=r"no spikes at all in 1 cells \(5\)"):
        expected = recording_from_neo(separate, **settings)

    def refuse(self):
        raise AssertionError("the list was taken apart")

    monkeypatch.setattr(SpikeTrainList, "_spiketrains_from_array", refuse)
    made = neo.Segment()
    made.spiketrains = trains
    for block in (trains, made):
        with pytest.warns(UserWarning, match="no spikes at all"):
            found = recording_from_neo(block, **settings)
        for node in ("train", "spikes"):
            xr.testing.assert_identical(found[node].to_dataset(), expected[node].to_dataset())
    names = multiplexed([10, 20], [1, 0], [0, 1], name=["x", "y"])
    found = recording_from_neo(names, stimulus=np.zeros(3), frame_times=np.arange(3.0))
    assert found["train"]["cell"].values.tolist() == ["x", "y"]
    assert found["spikes"]["spike_time"].values.tolist() == [0.02, 0.01]


def test_bad_lists_made_of_arrays():
    stray = multiplexed([10, 20], [0, 9], [0, 1])
    with pytest.raises(ValueError, match="spike 1 is of channel 9, which is none of the 2"):
        recording_from_neo(stray, **GOOD)
    with pytest.raises(ValueError, match=r"spike 1 of cell '0'.* comes after one at"):
        recording_from_neo(multiplexed([20, 10], [0, 0], [0]), **GOOD)
    with pytest.raises(ValueError, match="two spike trains have the cell id 'x'"):
        recording_from_neo(multiplexed([20, 30], [0, 1], [0, 1], name=["x", "x"]), **GOOD)


@settings(deadline=None, max_examples=60)
@given(
    starts=st.lists(st.integers(2, 30), min_size=2, max_size=12),
    low=st.floats(-3, 3),
    height=st.floats(0.5, 8),
    seed=st.integers(0, 99),
)
def test_pulses_rise_at_half_their_height(starts, low, height, seed):
    rate = 1000.0
    onsets = np.cumsum(np.array(starts) + 3)
    clean = np.zeros(onsets[-1] + 10)
    for onset in onsets:
        clean[onset : onset + 3] = 1.0
    clean[onsets[0]] = 0.6  # a slow edge: half height lies between the samples
    noise = np.random.default_rng(seed).uniform(0, 0.2, clean.shape)
    noise[[0, onsets[0] + 1]] = 0
    noise[clean > 0] *= -1
    noise[onsets[0]] = 0
    trace = low + height * np.clip(clean + noise, 0, 1)
    times = 5 + np.arange(len(trace)) / rate
    found = rising_edges(times, trace, "frame_times")
    before, after = trace[onsets - 1], trace[onsets]
    half = low + height / 2
    expected = times[onsets - 1] + (half - before) / (after - before) / rate
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("irregular", [False, True])
def test_frame_marks_from_an_analog_channel(irregular):
    trace = np.zeros(400)
    for onset in (100, 200, 300):
        trace[onset : onset + 20] = 5
    made = segment({"a": [0.12, 0.13, 0.35] * pq.s})
    if irregular:
        signal = neo.IrregularlySampledSignal(
            np.arange(400) * pq.ms, trace, units="V", time_units="ms", name="trigger"
        )
        made.irregularlysampledsignals.append(signal)
    else:
        both = np.stack([np.zeros(400), trace], 1)
        signal = neo.AnalogSignal(both * pq.V, sampling_rate=1 * pq.kHz, name="adc")
        made.analogsignals.append(signal)
        with pytest.raises(ValueError, match="frame_times is a signal of 2 channels"):
            recording_from_neo(made, stimulus=np.zeros(3), frame_times=signal)
        with pytest.raises(ValueError, match=r"frame_times='adc\[0\]' is constant"):
            recording_from_neo(made, stimulus=np.zeros(3), frame_times="adc[0]")
    for marks in ("trigger", signal) if irregular else ("adc[1]", signal[:, [1]]):
        recording = recording_from_neo(made, stimulus=np.zeros(3), frame_times=marks)
        np.testing.assert_allclose(recording["train"]["time"], [0.0995, 0.1995, 0.2995])
        assert recording["train"]["spike_count"].values[:, 0].tolist() == [2, 0, 1]


def inverted_trace():
    trace = np.full(400, 5.0)
    for onset in (100, 200, 300):
        trace[onset : onset + 20] = 0
    return trace


def test_inverted_pulses_begin_where_they_fall():
    made = segment({"a": [0.12, 0.13, 0.35] * pq.s})
    signal = neo.AnalogSignal(inverted_trace()[:, None] * pq.V, sampling_rate=pq.kHz, name="ttl")
    made.analogsignals.append(signal)
    for marks in ("ttl", signal):
        with pytest.warns(UserWarning, match=r"is high 85 % of the time: .* inverted \(active-low"):
            recording = recording_from_neo(made, stimulus=np.zeros(3), frame_times=marks)
        np.testing.assert_allclose(recording["train"]["time"], [0.0995, 0.1995, 0.2995])
        assert "active-low" in recording.attrs["notes"]
    with pytest.warns(UserWarning, match="segment 'trial 1': .*active-low"):
        recording = recording_from_neo(
            block_of(made, segment_with(made, 1)), stimulus=np.zeros(3), frame_times="ttl"
        )
    np.testing.assert_allclose(recording["test"]["repeat_onset"] % 1, 0.0995)
    with pytest.warns(UserWarning, match="active-low"):
        recording = recording_from_neo(
            made, stimulus={"flash": np.zeros(3)}, frame_times={"flash": "ttl"}
        )
    np.testing.assert_allclose(recording["flash"]["time"], [0.0995, 0.1995, 0.2995])


def segment_with(other, number):
    """Copy of a segment: the same spikes and channels."""
    made = segment({"a": other.spiketrains[0].times}, None)
    signal = other.analogsignals[0]
    made.analogsignals.append(
        neo.AnalogSignal(signal.magnitude * pq.V, sampling_rate=pq.kHz, name=signal.name)
    )
    made.name = f"trial {number}"
    return made


@pytest.mark.parametrize(
    ("width", "edge", "words"),
    [(20, "rise", None), (50, "rise", None), (55, "rise", "where it rises"), (80, "fall", "falls")],
)
def test_the_share_of_time_that_a_trace_is_high_tells_its_polarity(width, edge, words):
    trace = np.zeros(1000)
    for onset in range(0, 1000, 100):
        trace[onset + 5 : onset + 5 + width] = 1
    edges, notes = pulse_edges(np.arange(1000.0), trace, "frame_times")
    first = 4.5 if edge == "rise" else 4.5 + width
    np.testing.assert_allclose(edges, first + np.arange(10) * 100)
    assert len(notes) == (words is not None)
    assert words is None or words in notes[0]


def test_frame_marks_from_epochs_and_epochs_are_kept():
    made = segment({"a": [0.5] * pq.s}, marks=np.arange(3) * pq.s)
    made.events.append(neo.Event([5.0] * pq.s, name="door"))
    shown = neo.Epoch(
        np.arange(3) * pq.s, durations=[1000, 1000, 500] * pq.ms, name="frames shown",
        array_annotations={"direction": [0, 90, 180] * pq.deg, "kind": np.array(["x", "y", "z"])},
    )  # fmt: skip
    made.epochs.append(shown)
    made.epochs.append(neo.Epoch([0.5] * pq.s, durations=[1] * pq.s, labels=["dark"], name="light"))
    recording = recording_from_neo(made, stimulus=np.zeros(3), frame_times="frames shown")
    assert recording["train"]["time"].values.tolist() == [0, 1, 2]
    epochs = recording["epochs"].to_dataset()
    assert epochs["label"].values.tolist() == ["frames shown", "dark"] + ["frames shown"] * 2
    assert epochs["source"].values.tolist() == ["frames shown", "light"] + ["frames shown"] * 2
    assert epochs["duration"].values.tolist() == [1, 1, 1, 0.5]
    np.testing.assert_array_equal(epochs["direction"], [0, np.nan, 90, 180])
    assert epochs["direction"].attrs["units"] == "deg"
    assert epochs["kind"].values.tolist() == ["x", "", "y", "z"]
    assert recording_from_neo(made, stimulus=np.zeros(3), frame_times=shown).identical(
        recording_from_neo(made, stimulus=np.zeros(3), frame_times=np.arange(3.0))
    )
    with pytest.raises(ValueError, match=r"frame_times was not given, .* events frames, door"):
        recording_from_neo(made, stimulus=np.zeros(3))
    with pytest.raises(ValueError, match="did you mean 'frames shown'"):
        recording_from_neo(made, stimulus=np.zeros(3), frame_times="frame shown")
    only = segment({"a": [0.5] * pq.s}, marks=np.arange(3) * pq.s)
    assert recording_from_neo(only, stimulus=np.zeros(3))["train"].sizes["time"] == 3


def test_several_stimuli_of_one_segment_by_name():
    noise, marks = np.arange(20.0), np.arange(20.0)
    noise[17:20] = noise[7:10]
    made = segment({"a": np.arange(0.25, 40, 0.5) * pq.s})
    made.events.append(neo.Event(marks * pq.s, name="noise marks"))
    gratings = {"kind": "seeded_noise", "n_frames": 10, "shape": (2, 3), "seed": 1,
                "bin_width": 1.0}  # fmt: skip
    recording = recording_from_neo(
        made,
        stimulus={"noise": noise, "checks": gratings},
        frame_times={"noise": "noise marks", "checks": np.arange(25.0, 35.0)},
        plan={"noise": FrozenNoise(7, 3), "checks": None},
    )
    assert set(recording.children) == {
        "noise_train", "noise_test", "checks", "spikes", "frames", "epochs"
    } - {"epochs"}  # fmt: skip
    assert recording["noise_test"]["spike_count"].shape == (2, 3, 1)
    assert recording["checks"]["stimulus"].shape == (10, 2, 3)
    assert (recording["checks"]["spike_count"].values == 2).all()
    assert recording["frames"]["frame_time"].values.tolist() == [*range(20), *range(25, 35)]
    with pytest.raises(TypeError, match="expected a mapping with the same names"):
        recording_from_neo(made, stimulus={"noise": noise}, frame_times="noise marks")
    with pytest.raises(ValueError, match="frame_times has no 'noise'; did you mean 'noises'"):
        recording_from_neo(made, stimulus={"noise": noise}, frame_times={"noises": marks})
    with pytest.raises(ValueError, match=r"stimulus names .'frames'"):
        recording_from_neo(made, stimulus={"frames": noise}, frame_times={"frames": marks})


def block_of(*segments):
    made = neo.Block()
    for number, one in enumerate(segments):
        one.name = f"trial {number}"
        made.segments.append(one)
    return made


def test_segments_that_show_one_movie_are_repeats():
    spikes = [[0.1, 0.2, 2.5], [1.1], [0.5, 1.5, 2.5, 2.6]]
    trials = [
        segment({"a": times * pq.s, "b": [0.5] * pq.s}, marks=(0.05 + np.arange(3)) * pq.s)
        for times in map(np.array, spikes)
    ]
    trials[1].spiketrains = [trials[1].spiketrains[1], trials[1].spiketrains[0]]
    trials[2].epochs.append(neo.Epoch([1] * pq.s, durations=[1] * pq.s, labels=["dark"]))
    movie = np.array([1.0, -1.0, 2.0])
    recording = recording_from_neo(block_of(*trials), stimulus=movie, frame_times="frames")
    assert set(recording.children) == {"test", "spikes", "frames", "epochs"}
    test = recording["test"].to_dataset()
    expected = [[2, 0, 1], [0, 1, 0], [1, 1, 2]]
    assert test["spike_count"].sel(cell="a").values.tolist() == expected
    assert (test["spike_count"].sel(cell="b").values == [1, 0, 0]).all()
    assert test["spike_count"].dims == ("repeat", "time", "cell")
    assert test["stimulus"].values.ravel().tolist() == movie.tolist()
    assert test["time"].values.tolist() == [0, 1, 2]
    # each clock starts a whole number of seconds, at least one, after the last frame's end
    shifts = [part["shift"] for part in json.loads(recording.attrs["segments"])]
    assert shifts == [0, 5, 10]
    assert test["repeat_onset"].values.tolist() == [0.05, 5.05, 10.05]
    times = SpikeTimes.from_dataset(recording["spikes"])
    assert times.of(0).tolist() == [0.1, 0.2, 2.5, 6.1, 10.5, 11.5, 12.5, 12.6]
    assert recording["epochs"]["start"].values.tolist() == [11]
    lists = recording_from_neo(
        block_of(*trials), stimulus=movie, frame_times=[0.05 + np.arange(3)] * 3
    )
    assert lists["test"].identical(recording["test"])


def test_segments_with_movies_of_their_own_are_runs(tmp_path):
    a = segment({"a": [0.5, 1.5] * pq.s}, marks=np.arange(2) * pq.s)
    b = segment({"a": [100.5, 103.5] * pq.s}, marks=np.arange(101, 104) * pq.s)
    movies = [np.full((2, 2, 3), 1.0), np.full((3, 2, 3), 2.0)]
    recording = recording_from_neo(block_of(a, b), stimulus=movies, frame_times="frames")
    train = recording["train"].to_dataset()
    # these clocks do not overlap, so they are left alone
    assert train["time"].values.tolist() == [0, 1, 101, 102, 103]
    assert train["block"].values.tolist() == [0, 0, 1, 1, 1]
    assert train["spike_count"].values[:, 0].tolist() == [1, 1, 0, 0, 1]
    assert train["stimulus"].values[:, 1, 2].tolist() == [1, 1, 2, 2, 2]
    for number, movie in enumerate(movies):
        np.save(tmp_path / f"{number}.npy", movie)
    files = [str(tmp_path / f"{number}.npy") for number in range(2)]
    lazy = recording_from_neo(block_of(a, b), stimulus=files, frame_times=["frames"] * 2)["train"]
    assert lazy["stimulus"].chunks is not None
    xr.testing.assert_equal(lazy.to_dataset().load(), train)
    numbers = recording_from_neo(
        block_of(a, segment({"a": [0.5] * pq.s})), stimulus=[1.0, 2.0], frame_times=[0.0, 1.0]
    )
    assert numbers["test"]["spike_count"].values[:, :, 0].tolist() == [[1, 1], [1, 0]]
    named = recording_from_neo(
        block_of(a, b),
        stimulus={"trial 0": movies[0], "trial 1": movies[1]},
        frame_times="frames",
    )
    assert named["trial 1"]["spike_count"].values[:, 0].tolist() == [0, 0, 1]
    np.testing.assert_array_equal(named["trial 1"]["time"], [101, 102, 103])


def test_frames_by_the_names_of_segments():
    made = [
        segment({"a": np.array([0.5, 2.5]) * pq.s}, marks=np.arange(4) * pq.s) for _ in range(2)
    ]
    block = block_of(*made)
    by_name = {"trial 0": (0, 2), "trial 1": (1, 4)}
    movies = [np.arange(4.0), 10 + np.arange(4.0)]
    movies_by_name = dict(zip(by_name, movies, strict=True))
    shown = {"frame_times": "frames", "frames": by_name}
    named = recording_from_neo(block, stimulus=movies_by_name, **shown)
    assert named["trial 0"]["stimulus"].values.ravel().tolist() == [0, 1]
    assert named["trial 1"]["stimulus"].values.ravel().tolist() == [11, 12, 13]
    assert named["trial 1"]["spike_count"].values.ravel().tolist() == [0, 1, 0]
    runs = recording_from_neo(block, stimulus=movies, **shown)
    assert runs["train"]["stimulus"].values.ravel().tolist() == [0, 1, 11, 12, 13]
    assert runs["train"]["block"].values.tolist() == [0, 0, 1, 1, 1]
    # one movie that all repeat has the same frames in each
    with pytest.raises(ValueError, match=r"frames=.* differ, but stimulus is one movie"):
        recording_from_neo(block, stimulus=movies[0], **shown)
    shown["frames"] = dict.fromkeys(by_name, (1, 3))
    repeats = recording_from_neo(block, stimulus=movies[0], **shown)
    assert repeats["test"]["stimulus"].values.ravel().tolist() == [1, 2]
    shown["frames"] = {"trial 0": (0, 2), "trail 1": (0, 2)}
    with pytest.raises(ValueError, match=r"frames has no 'trial 1'; .*choices: trial 0, trail 1"):
        recording_from_neo(block, stimulus=movies_by_name, **shown)


def test_a_list_of_one_movie_for_a_block_of_one_segment(tmp_path):
    made = segment({"a": [0.5, 1.5] * pq.s}, marks=np.arange(3) * pq.s)
    block = block_of(made)
    movie = np.random.default_rng(0).normal(size=(3, 2, 4)).astype(np.float32)
    expected = recording_from_neo(block, stimulus=movie, frame_times="frames")["train"]
    np.save(tmp_path / "a.npy", movie)
    labelled = xr.DataArray(movie, dims=("time", "y", "x"))
    for listed in ([movie], (movie,), [labelled], [str(tmp_path / "a.npy")]):
        for marks in ("frames", ["frames"], [np.arange(3.0)]):
            found = recording_from_neo(block, stimulus=listed, frame_times=marks)["train"]
            np.testing.assert_array_equal(found["stimulus"].values, movie)
            assert found["spike_count"].equals(expected["spike_count"])
    flicker = recording_from_neo(block, stimulus=[np.arange(3.0)], frame_times="frames")
    assert flicker["train"]["stimulus"].values.ravel().tolist() == [0, 1, 2]
    # a list of frames is a movie, as before
    frames = recording_from_neo(block, stimulus=list(movie), frame_times="frames")["train"]
    np.testing.assert_array_equal(frames["stimulus"].values, movie)
    with pytest.raises(ValueError, match=r"stimulus\[0\] has shape \(3, 2, 2, 2\)"):
        recording_from_neo(block, stimulus=[np.zeros((3, 2, 2, 2))], frame_times="frames")


def test_bad_blocks_of_several_segments():
    a = segment({"a": [0.5] * pq.s, "b": [0.5] * pq.s}, marks=np.arange(3) * pq.s)
    b = segment({"a": [0.5] * pq.s}, marks=np.arange(3) * pq.s)
    block = block_of(a, b)
    with pytest.raises(ValueError, match="'b' has a spike train in segment 'trial 0' but none in"):
        recording_from_neo(block, stimulus=np.zeros(3), frame_times="frames")
    good = {"block": block, "cells": ["a"], "frame_times": "frames"}
    assert recording_from_neo(**good, stimulus=np.zeros(3))["test"].sizes["repeat"] == 2
    with pytest.raises(ValueError, match="stimulus is a list of 3, but block holds 2 segments"):
        recording_from_neo(**good, stimulus=[np.zeros(3)] * 3)
    with pytest.raises(ValueError, match=r"stimulus\[1\] has frames of .'y': 2, 'x': 2."):
        recording_from_neo(**good, stimulus=[np.zeros(3), np.zeros((3, 2, 2))])
    with pytest.raises(ValueError, match="plan was given, but block holds 2 segments"):
        recording_from_neo(**good, stimulus=np.zeros(3), plan=FrozenNoise(1, 1))
    b.events[0].name = "others"
    with pytest.raises(ValueError, match="segment 'trial 1': frame_times='frames' is no event"):
        recording_from_neo(**good, stimulus=np.zeros(3))
    slow = segment({"a": [0.5] * pq.s}, marks=np.arange(3) * 0.5 * pq.s)
    with pytest.raises(
        ValueError, match=r"segment 'trial 0': frame interval=1 s, but the frames .* every 0\.75 s"
    ):
        recording_from_neo(
            block_of(a, slow), cells=["a"], stimulus=np.zeros(3), frame_times="frames"
        )


def test_quantities_against_plain_numbers():
    # the same spikes in milliseconds with their unit, and as plain numbers taken for seconds
    times = np.sort(np.random.default_rng(0).uniform(0, 100_000, 500))
    good = recording_from_neo(
        neo.SpikeTrain(times * pq.ms, t_stop=1e6), stimulus=np.zeros(100),
        frame_times=np.arange(100.0),
    )  # fmt: skip
    assert int(good["train"]["spike_count"].sum()) == 500
    for factor, word in ((1, "milliseconds"), (1000, "microseconds")):
        train = neo.SpikeTrain(factor * times, units="s", t_stop=1e9)
        with pytest.raises(ValueError, match=f"are they in {word}") as error:
            recording_from_neo(train, stimulus=np.zeros(100), frame_times=np.arange(100.0))
        assert "\n" not in str(error.value)
    train = neo.SpikeTrain(times * 1e-6, units="s", t_stop=1e9)
    with pytest.raises(ValueError, match=r"fires .* times a second"):
        recording_from_neo(train, stimulus=np.zeros(100), frame_times=np.arange(100.0))


def test_the_segment_given_is_not_changed():
    trains = [neo.SpikeTrain([0.5] * pq.s, t_stop=9, name="a")]
    recording_from_neo(trains, **GOOD)
    assert trains[0].segment is None


def test_coarse_spike_times_are_told():
    times = np.sort(np.random.default_rng(0).uniform(0, 4000, 300))
    coarse = neo.SpikeTrain(times.astype(np.float32), units="s", t_stop=5000, dtype=np.float32)
    settings = {"stimulus": np.zeros(4000), "frame_times": np.arange(4000.0)}
    with pytest.warns(UserWarning, match=r"spike times are 32-bit numbers, .* are 0\.24 ms apart"):
        recording = recording_from_neo(coarse, **settings)
    assert "32-bit" in recording.attrs["notes"]
