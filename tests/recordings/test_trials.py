"""Trials around onsets: a literal loop over spikes, the bin edges."""

import numpy as np
import pytest
import quantities as pq
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from retina_codec.recordings import reliability
from retina_codec.recordings.spikes import SpikeTimes
from retina_codec.recordings.trials import psth


def recording_of(trains, epochs=None):
    nodes = {"/spikes": SpikeTimes.from_trains(trains).to_dataset()}
    if epochs is not None:
        start, duration, label = zip(*epochs, strict=True)
        nodes["/epochs"] = xr.Dataset(
            {
                "start": ("epoch", np.array(start, dtype=float), {"units": "s"}),
                "duration": ("epoch", np.array(duration, dtype=float), {"units": "s"}),
                "label": ("epoch", np.array(label)),
            }
        )
    return xr.DataTree.from_dict(nodes)


@pytest.fixture
def recording():
    rng = np.random.default_rng(0)
    trains = {name: np.sort(rng.uniform(0, 20, n)) for name, n in (("a", 300), ("b", 0), ("c", 7))}
    return recording_of(trains, [(9, 1, "off"), (5.5, 1, "on"), (2.25, 1, "on"), (3.25, 1, "off")])


@settings(deadline=None, max_examples=40)
@given(
    times=st.lists(st.integers(0, 4000), max_size=60),
    onsets=st.lists(st.integers(0, 3000), min_size=1, max_size=6, unique=True),
    n_bins=st.integers(1, 30),
)
def test_against_a_loop_over_spikes(times, onsets, n_bins):
    # On a grid of 1/1024 s all sums are exact, and spikes lie on the edges of bins.
    unit, width = 2.0**-10, 2.0**-6
    onsets = np.sort(onsets) * unit
    found = psth(
        recording_of({"a": np.sort(np.array(times, dtype=float)) * unit}),
        onsets=onsets,
        duration=n_bins * width,
        bin_width=width,
    )
    expected = np.zeros((len(onsets), n_bins, 1), dtype=int)
    for i, onset in enumerate(onsets):
        for time in np.array(times) * unit:
            k = int(np.floor((time - onset) / width))
            if 0 <= k < n_bins:
                expected[i, k, 0] += 1
    np.testing.assert_array_equal(found["spike_count"], expected)
    assert found["spike_count"].dtype == np.int32
    np.testing.assert_array_equal(found["rate"], expected.mean(axis=0) / width)


def test_trials_end_to_end_keep_every_spike(recording):
    found = psth(recording, onsets=np.arange(20.0), duration=1, bin_width=0.125)
    assert found["spike_count"].sum(["repeat", "time"]).values.tolist() == [300, 0, 7]
    assert found["cell"].values.tolist() == ["a", "b", "c"]
    assert found["time"].attrs["bin_width"] == 0.125
    np.testing.assert_array_equal(found["repeat_onset"], np.arange(20.0))
    assert found["rate"].attrs["units"] == "Hz"


def test_onsets_by_label_by_units_and_cells_by_id(recording):
    named = psth(recording, onsets="on", duration=0.9, bin_width=0.3)
    given_ms = psth(
        recording,
        onsets=np.array([2250.0, 5500.0]) * pq.ms,
        duration=900 * pq.ms,
        bin_width=300 * pq.ms,
        cells=["c", "a"],
    )
    assert named["repeat_onset"].values.tolist() == [2.25, 5.5]
    assert named.sizes["time"] == 3  # 0.9 / 0.3 is 2.9999999999999996
    assert given_ms["cell"].values.tolist() == ["c", "a"]
    xr.testing.assert_equal(named.sel(cell=["c", "a"]), given_ms)


def test_what_is_left_after_whole_bins_is_not_used():
    found = psth(recording_of({"a": np.array([0.31])}), onsets=[0.0], duration=0.35, bin_width=0.1)
    assert found.sizes["time"] == 3 and int(found["spike_count"].sum()) == 0


def test_it_is_a_node_with_repeats():
    rng = np.random.default_rng(1)
    rate = rng.gamma(0.5, 60.0, 40)  # Hz, in bins of 50 ms, over 100 trials
    fired = np.repeat(np.arange(4000), rng.poisson(np.tile(rate * 0.05, 100)))
    times = np.sort((fired + rng.uniform(0, 1, fired.size)) * 0.05)
    node = psth(recording_of({"a": times}), onsets=np.arange(100) * 2.0, duration=2, bin_width=0.05)
    truth = (rate * 0.05).var(ddof=1)
    assert float(reliability(node)["signal_power"][0]) == pytest.approx(truth, rel=0.1)


def test_bad_input(recording):
    good = {"onsets": [1.0, 2.0], "duration": 1.0, "bin_width": 0.1}
    for change, message in (
        ({"onsets": "om"}, r"onsets='om' labels no epoch; choices: off, on"),
        ({"onsets": []}, r"onsets has shape \(0,\)"),
        ({"onsets": [[1.0, 2.0]]}, r"onsets has shape \(1, 2\)"),
        ({"onsets": [1.0, np.nan]}, "onset 1 is nan"),
        ({"onsets": [2.0, 1.0]}, r"onset 1 \(1 s\) is not later than the one before \(2 s\)"),
        ({"onsets": [1.0, 1.0]}, "remove double ones"),
        ({"onsets": [1.0] * pq.m}, "onsets is in m; expected something in s"),
        ({"duration": 0}, "duration=0; expected a time above 0"),
        ({"duration": 0.05}, r"duration=0\.05 s is shorter than one bin"),
        ({"bin_width": float("nan")}, "bin_width=nan; expected a time above 0"),
        ({"bin_width": 3 * pq.mV}, "bin_width is in mV"),
        ({"cells": ["aa"]}, "no cell 'aa'; did you mean 'a'"),
    ):
        with pytest.raises(ValueError, match=message):
            psth(recording, **(good | change))
    with pytest.raises(TypeError, match="recording is a Dataset; expected a recording"):
        psth(recording["spikes"].to_dataset(), **good)
    with pytest.raises(ValueError, match=r"no node 'spikes' \(its nodes: 'epochs'\)"):
        psth(xr.DataTree.from_dict({"/epochs": recording["epochs"].to_dataset()}), **good)
    only_spikes = xr.DataTree.from_dict({"/spikes": recording["spikes"].to_dataset()})
    with pytest.raises(ValueError, match="onsets='on' names epochs, but the recording has no node"):
        psth(only_spikes, **(good | {"onsets": "on"}))
