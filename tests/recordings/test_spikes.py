"""Flat spike times: checks, counts, choice of cells, and times that cannot be."""

from itertools import pairwise

import dask.array as da
import neo
import numpy as np
import pytest
import quantities as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from retina_codec.recordings import assembly, recording_from_neo
from retina_codec.recordings.spikes import SpikeTimes


@settings(deadline=None)
@given(
    trains=st.lists(st.lists(st.floats(0, 10), max_size=30), min_size=1, max_size=4),
    marks=st.lists(st.floats(0, 10), min_size=2, max_size=40, unique=True),
)
def test_counting_conserves_spikes(trains, marks):
    edges = np.sort(marks)
    spikes = SpikeTimes.from_trains({str(i): np.sort(t) for i, t in enumerate(trains)})
    counts = spikes.count(edges)
    assert counts.dtype == np.int32
    for i, train in enumerate(trains):
        slow = [sum(a <= t < b for t in train) for a, b in pairwise(edges)]
        assert counts[:, i].tolist() == slow


def test_choice_of_cells_and_round_trip():
    spikes = SpikeTimes.from_trains({"a": [0.1, 0.2], "b": [], "c": [0.05]})
    chosen = spikes.select(["c", "a"])
    assert chosen.ids == ["c", "a"] and chosen.times.tolist() == [0.05, 0.1, 0.2]
    again = SpikeTimes.from_dataset(spikes.to_dataset())
    assert again.ids == ["a", "b", "c"] and [again.of(i).tolist() for i in range(3)] == [
        [0.1, 0.2], [], [0.05],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("times", "offsets", "ids", "words"),
    [
        ([], [0], [], "there are no cells"),
        ([1, 2], [0, 1, 2], ["a", "a"], "two spike trains have the cell id 'a'"),
        ([1, 2, np.nan], [0, 1, 3], ["a", "b"], "spike 1 of cell 'b' is nan"),
        ([1, 3, 2], [0, 1, 3], ["a", "b"], "spike 1 of cell 'b' .2 s. comes after one at 3 s"),
        ([1, 2, 3], [0, 1, 2], ["a", "b"], "the cells' index ends at 2"),
        ([1, 2, 3], [0, 3], ["a", "b"], "has 1 entries; the file is damaged"),
        ([1, 2, 3], [0, 4, 3], ["a", "b"], "index of the cells descends"),
    ],
)
def test_bad_spike_times(times, offsets, ids, words):
    with pytest.raises(ValueError, match=words):
        SpikeTimes.checked(np.array(times, dtype=float), np.array(offsets), ids)
    # a new cell may begin earlier than the one before it ended
    SpikeTimes.checked(np.array([3.0, 1.0]), np.array([0, 1, 2]), ["a", "b"])


def recorded(times, n_frames=1000, bin_width=0.01, units=pq.s):
    made = neo.Segment()
    stop = max(2e9, np.max(times, initial=0))
    made.spiketrains.append(neo.SpikeTrain(times * units, t_stop=stop * units, name="a"))
    flicker = np.random.default_rng(0).normal(size=n_frames)
    return recording_from_neo(made, stimulus=flicker, frame_times=np.arange(n_frames) * bin_width)


@pytest.mark.parametrize(("factor", "unit"), [(1e3, "milliseconds"), (1e6, "microseconds")])
def test_times_in_a_smaller_unit_are_questioned(factor, unit):
    times = np.sort(np.random.default_rng(1).uniform(0, 10, 500))
    with pytest.raises(ValueError, match=f"lie after the stimulus.*are they in {unit}") as error:
        recorded(times * factor)
    assert "\n" not in str(error.value)
    units = {1e3: pq.ms, 1e6: pq.us}[factor]
    np.testing.assert_array_equal(
        recorded(times * factor, units=units)["train"]["spike_count"],
        recorded(times)["train"]["spike_count"],
    )


def test_seconds_read_as_milliseconds_are_questioned():
    times = np.sort(np.random.default_rng(1).uniform(0, 10, 500))
    with pytest.raises(ValueError, match=r"fires 5\.005e\+04 times a second.*seconds taken"):
        recorded(times, units=pq.ms)


def test_seconds_read_as_milliseconds_by_a_slow_cell_are_questioned():
    times = np.sort(np.random.default_rng(1).uniform(0, 133, 66))
    with pytest.raises(ValueError, match=r"all 66 spikes lie before 0\.1\d* s, but the stim"):
        recorded(times, n_frames=13_300, units=pq.ms)


def test_clocks_that_do_not_meet():
    times = np.sort(np.random.default_rng(1).uniform(0, 10, 500))
    with pytest.raises(ValueError, match="all 500 spikes lie outside the stimulus"):
        recorded(times + 50)
    with pytest.warns(UserWarning, match="65 % of the spikes lie after the stimulus|6. % of the"):
        recorded(times * 3)
    with pytest.raises(ValueError, match="none of the 1 cells has a spike"):
        recorded(np.array([]))


def test_very_many_counts_are_made_when_asked_for(monkeypatch):
    rng = np.random.default_rng(2)
    trains = {f"c{i}": np.sort(rng.uniform(0, 10, 300)) for i in range(5)}
    made = neo.Segment()
    for name, times in trains.items():
        made.spiketrains.append(neo.SpikeTrain(times * pq.s, t_stop=11, name=name))
    values = rng.normal(size=1000)
    values[700:800] = values[300:400]
    call = {"stimulus": values, "frame_times": np.arange(1000) * 0.01, "plan": "find"}
    whole = recording_from_neo(made, **call)
    monkeypatch.setattr(assembly, "COUNTS_IN_MEMORY", 10)
    monkeypatch.setattr(assembly, "COUNTS_IN_CHUNK", 5 * 37)
    lazy = recording_from_neo(made, **call)
    for name in ("train", "test"):
        assert isinstance(lazy[name]["spike_count"].data, da.Array)
        assert isinstance(lazy[name]["rate"].data, da.Array)
        np.testing.assert_array_equal(lazy[name]["spike_count"], whole[name]["spike_count"])
        np.testing.assert_allclose(lazy[name]["rate"], whole[name]["rate"], rtol=1e-12, atol=1e-12)
