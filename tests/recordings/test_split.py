"""Splits: disjoint, contiguous, with gaps; whole blocks where there are enough."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import example, given, settings
from hypothesis import strategies as st

from retina_codec._common.time import runs_of
from retina_codec.recordings import split

from .conftest import node


def positions(data, part):
    return np.searchsorted(data["time"].values, part["time"].values)


@example(lengths=[1, 1], fraction=0.5, gap=0)
@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 300), min_size=1, max_size=8),
    fraction=st.floats(0.02, 0.9),
    gap=st.integers(0, 30),
)
def test_parts_are_disjoint_and_apart(lengths, fraction, gap):
    data = node(tuple(lengths))
    try:
        parts = split(data, validation_fraction=fraction, gap=gap)
    except ValueError as error:
        assert "too short to split" in str(error)
        return
    train, validation = positions(data, parts["train"]), positions(data, parts["validation"])
    assert len(train) and len(validation)
    assert not set(train) & set(validation)
    assert (np.diff(train) > 0).all() and (np.diff(validation) > 0).all()
    block = data["block"].values
    for i in validation:  # within a block, the other part is more than a gap away
        near = train[block[train] == block[i]]
        assert not near.size or np.abs(near - i).min() > gap
    numbers = [set(parts[name]["block"].values.tolist()) for name in ("train", "validation")]
    assert not numbers[0] & numbers[1]
    for name, place in (("train", train), ("validation", validation)):
        for run in runs_of(parts[name].to_dataset()):
            assert (np.diff(place[run]) == 1).all()
            assert len(set(block[place[run]])) == 1


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


def test_two_blocks_are_both_cut_for_a_small_fraction():
    parts = split(node((1000, 1000)), validation_fraction=0.1, gap=20)
    assert parts["validation"].sizes["time"] == 200
    assert len(runs_of(parts["validation"].to_dataset())) == 2


def test_values_follow_their_time_and_repeats_stay():
    data = node((500,), n_repeats=3, shape=(2, 2)).drop_vars("block")
    parts = split(data, validation_fraction=0.2, gap=5)
    for part in parts.children.values():
        xr.testing.assert_equal(
            part.to_dataset().drop_vars("block"), data.sel(time=part["time"].values)
        )
        assert part["time"].attrs["bin_width"] == data["time"].attrs["bin_width"]


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
    with pytest.raises(TypeError, match="node is a list"):
        split([1])
