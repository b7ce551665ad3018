"""Splits: disjoint, contiguous, with gaps; whole blocks where there are enough."""

import warnings

import dask.array as da
import numpy as np
import pytest
import quantities as pq
import xarray as xr
from hypothesis import example, given, settings
from hypothesis import strategies as st

from retina_codec._common.time import runs_of
from retina_codec.recordings import split

from .conftest import node


def positions(data, part):
    return np.searchsorted(data["time"].values, part["time"].values)


@example(lengths=[1, 1], fraction=0.5, test=0.0, gap=0)
@example(lengths=[1, 1, 1], fraction=0.3, test=0.3, gap=0)
@example(lengths=[70], fraction=0.75, test=0.099, gap=0)  # stretches of 2 and 3 of 13 frames
@settings(deadline=None, max_examples=100)
@given(
    lengths=st.lists(st.integers(1, 300), min_size=1, max_size=8),
    fraction=st.floats(0.02, 0.9),
    test=st.sampled_from([0.0, 0.02, 0.05, 0.099]),
    gap=st.integers(0, 30),
)
def test_parts_are_disjoint_and_apart(lengths, fraction, test, gap):
    data = node(tuple(lengths))
    try:
        parts = split(data, validation_fraction=fraction, test_fraction=test, gap=gap)
    except ValueError as error:
        assert "too short to split" in str(error)
        return
    names = ["train", "validation", "test"] if test else ["train", "validation"]
    assert list(parts.children) == names
    places = {name: positions(data, parts[name]) for name in names}
    block = data["block"].values
    for name, place in places.items():
        assert len(place) and (np.diff(place) > 0).all()
        for run in runs_of(parts[name].to_dataset()):
            assert (np.diff(place[run]) == 1).all()
            assert len(set(block[place[run]])) == 1
        for other in names:
            if other <= name:
                continue
            assert not set(place) & set(places[other])
            numbers = [set(parts[one]["block"].values.tolist()) for one in (name, other)]
            assert not numbers[0] & numbers[1]
            for i in place:  # within a block, the other part is more than a gap away
                near = places[other][block[places[other]] == block[i]]
                assert not near.size or np.abs(near - i).min() > gap


def test_whole_blocks_spread_evenly_keep_their_numbers():
    data = node((30,) * 41)
    parts = split(data, validation_fraction=0.1, gap=10)
    assert sorted(set(parts["validation"]["block"].values)) == [5, 15, 25, 35]
    assert parts["train"].sizes["time"] + parts["validation"].sizes["time"] == data.sizes["time"]
    joined = xr.concat(
        [parts[name].to_dataset() for name in ("train", "validation")], "time"
    ).sortby("time")
    xr.testing.assert_equal(joined, data)


def test_one_long_run_gives_five_stretches_with_gaps():
    data = node((10_000,))
    parts = split(data, validation_fraction=0.1, gap=40)
    runs = runs_of(parts["validation"].to_dataset())
    assert len(runs) == 5
    assert parts["validation"].sizes["time"] == 1000
    assert parts["train"].sizes["time"] == 10_000 - 1000 - 10 * 40
    train = positions(data, parts["train"])
    np.testing.assert_array_equal(
        train[np.flatnonzero(np.diff(train) > 1) + 1]
        - 1
        - train[np.flatnonzero(np.diff(train) > 1)],
        [280] * 5,
    )
    numbers = [sorted(set(parts[name]["block"].values)) for name in ("train", "validation")]
    assert numbers == [[0, 2, 4, 6, 8, 10], [1, 3, 5, 7, 9]]


def test_every_long_block_of_a_mixed_movie_is_cut():
    lengths = (3000, 600, 600, 600, 150, 1200)
    data = node(lengths)
    parts = split(data, validation_fraction=0.1, gap=40)
    of_block = np.searchsorted(np.cumsum(lengths), positions(data, parts["validation"]), "right")
    assert np.bincount(of_block, minlength=6).tolist() == [300, 60, 60, 60, 0, 120]
    kept = np.searchsorted(np.cumsum(lengths), positions(data, parts["train"]), "right")
    assert (kept == 4).sum() == 150  # a tenth of it is less than a gap


def test_two_blocks_are_both_cut_for_a_small_fraction():
    parts = split(node((1000, 1000)), validation_fraction=0.1, gap=20)
    assert parts["validation"].sizes["time"] == 200
    assert len(runs_of(parts["validation"].to_dataset())) == 2


def test_a_test_part_is_spread_like_the_validation_part():
    parts = split(node((20_000,)), validation_fraction=0.1, test_fraction=0.2, gap=40)
    assert parts["test"].sizes["time"] == 4000
    assert abs(parts["validation"].sizes["time"] - 2000) <= 10
    for name in ("test", "validation"):
        runs = runs_of(parts[name].to_dataset())
        onsets = parts[name]["time"].values[[run.start for run in runs]]
        assert len(runs) >= 5 and onsets[0] < 80 and onsets[-1] > 320  # of 400 s
    blocks = split(node((30,) * 20), validation_fraction=0.1, test_fraction=0.2, gap=10)
    sizes = {name: part.sizes["time"] for name, part in blocks.children.items()}
    assert sizes == {"train": 14 * 30, "validation": 2 * 30, "test": 4 * 30}
    without = split(node((20_000,)), validation_fraction=0.1, gap=40)
    xr.testing.assert_identical(
        without, split(node((20_000,)), validation_fraction=0.1, test_fraction=0.0, gap=40)
    )


def test_a_gap_can_be_a_time():
    data = node((1000,))  # frames of 20 ms
    whole = split(data, validation_fraction=0.2, gap=40)
    for gap in (0.8 * pq.s, 790 * pq.ms, 800 * pq.ms):
        found = split(data, validation_fraction=0.2, gap=gap)
        assert found.identical(whole)  # 39.5 frames are 40, 40.000000001 are not 41


def test_larger_than_memory_stays_lazy():
    def never(*args, **kwargs):
        raise AssertionError("the movie was read")

    data = node((3000,)).drop_vars("stimulus")
    movie = da.map_blocks(
        never, chunks=((500,) * 6, 40, 40), dtype=np.float32, meta=np.empty((0, 0, 0), np.float32)
    )
    data = data.assign(stimulus=(("time", "y", "x"), movie))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parts = split(data, validation_fraction=0.1, test_fraction=0.1, gap=40)
    for part in parts.children.values():
        assert part["stimulus"].chunks is not None
        assert max(part["stimulus"].chunks[0]) <= 500
    shown = node((3000,), shape=(3, 2))
    lazy = split(shown.chunk(time=130), validation_fraction=0.1, gap=7)
    xr.testing.assert_equal(lazy.load(), split(shown, validation_fraction=0.1, gap=7))


def test_values_follow_their_time_and_repeats_stay():
    data = node((500,), n_repeats=3, shape=(2, 2)).drop_vars("block")
    parts = split(data, validation_fraction=0.2, gap=5)
    for part in parts.children.values():
        xr.testing.assert_equal(
            part.to_dataset().drop_vars("block"), data.sel(time=part["time"].values)
        )
        assert part["time"].attrs["bin_width"] == data["time"].attrs["bin_width"]


@pytest.mark.parametrize("name", ["rate", "response", "potential"])
def test_any_response_is_split(name):
    data = node((1000,))
    dim = "interneuron" if name == "potential" else "cell"
    held = data.rename(spike_count=name).rename(cell=dim)
    expected = split(data, validation_fraction=0.2, test_fraction=0.1, gap=10)
    found = split(held, validation_fraction=0.2, test_fraction=0.1, gap=10)
    for part in expected.children:
        np.testing.assert_array_equal(found[part][name], expected[part]["spike_count"])
        np.testing.assert_array_equal(found[part]["stimulus"], expected[part]["stimulus"])
    with pytest.raises(ValueError, match="node has no variable 'spike_count'; it has stimulus"):
        split(data[["stimulus"]])


def test_bad_input(make_node):
    for fraction in (0, 1, -0.1, float("nan")):
        with pytest.raises(ValueError, match=r"validation_fraction=.*above 0 and below 1"):
            split(make_node(), validation_fraction=fraction)
    with pytest.raises(ValueError, match="gap=-1"):
        split(make_node(), gap=-1)
    with pytest.raises(TypeError, match=r"gap=0\.5; expected a whole number"):
        split(make_node(), gap=0.5)
    with pytest.raises(ValueError, match=r"longest contiguous run has 30 frames.*gap=40"):
        split(make_node((30,)))
    for fraction in (-0.1, 0.8, float("nan")):
        with pytest.raises(ValueError, match=r"test_fraction=.*from 0 to below 0\.8, which"):
            split(make_node(), validation_fraction=0.2, test_fraction=fraction)
    with pytest.raises(ValueError, match=r"too short to split.*test_fraction=0\.1 with gap=40"):
        split(make_node((30,)), test_fraction=0.1)
    with pytest.raises(ValueError, match="gap is in mV; expected something in s"):
        split(make_node(), gap=3 * pq.mV)
    with pytest.raises(ValueError, match=r"gap=-1\.0"):
        split(make_node(), gap=-1 * pq.s)
    with pytest.raises(TypeError, match="node is a list"):
        split([1])
