"""The spike-triggered average against a slow loop over spikes."""

import tracemalloc

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from retina_codec._common.time import runs_of, time_coordinate
from retina_codec.recordings import spike_triggered_average, triggered_average

from .conftest import node


def slow(data, cell, history):
    counts = data["spike_count"].sel(cell=cell)
    if "repeat" in counts.dims:
        counts = counts.sum("repeat")
    stimulus = data["stimulus"].values.astype(float)
    total, n = np.zeros((history, *stimulus.shape[1:])), 0
    for run in runs_of(data):
        for t in range(run.start + history - 1, run.stop):
            for _ in range(int(counts[t])):
                n += 1
                for lag in range(history):
                    total[lag] += stimulus[t - lag]
    return total / n, n


@pytest.mark.parametrize("n_repeats", [None, 3])
@pytest.mark.parametrize(
    ("shape", "dims"),
    [((1, 1), ("y", "x")), ((3, 2), ("y", "x")), ((2, 2, 3), ("color", "y", "x"))],
)
@pytest.mark.parametrize("chunk", [2**22, 64])
def test_against_a_slow_loop(make_node, monkeypatch, n_repeats, shape, dims, chunk):
    monkeypatch.setattr(triggered_average, "CHUNK_NUMBERS", chunk)
    monkeypatch.setattr(triggered_average, "FRAMES_AT_LEAST", 3)
    data = make_node((40, 6, 30), n_repeats=n_repeats, shape=shape, dims=dims)
    found = spike_triggered_average(data, history=8)  # the block of 6 frames is too short
    assert found.dims == ("cell", "lag", *dims)
    np.testing.assert_allclose(found["lag"], np.arange(8) * 0.02)
    for cell in data["cell"].values:
        expected, n = slow(data, cell, 8)
        np.testing.assert_allclose(found.sel(cell=cell), expected, rtol=1e-9, atol=1e-12)
        assert int(found["n_spikes"].sel(cell=cell)) == n


@settings(deadline=None, max_examples=15)
@given(
    order=st.permutations(["repeat", "time", "cell", "color", "y", "x"]),
    frames=st.integers(1, 110),
    bins=st.integers(1, 110),
    pixels=st.integers(1, 3),
    kept=st.booleans(),
)
def test_dim_order_and_chunks_do_not_matter(order, frames, bins, pixels, kept):
    data = node(n_repeats=2, shape=(2, 3, 2), dims=("color", "y", "x"))
    expected = spike_triggered_average(data, history=5)
    lazy = data.transpose(*order)
    lazy["stimulus"] = lazy["stimulus"].chunk(time=frames, y=pixels)
    lazy["spike_count"] = lazy["spike_count"].chunk(time=bins, repeat=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triggered_average, "CHUNK_NUMBERS", 500)
        patch.setattr(triggered_average, "COUNTS_KEPT", 10**6 if kept else 0)
        found = spike_triggered_average(lazy, history=5)
    assert lazy["stimulus"].chunks and lazy["spike_count"].chunks
    xr.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    assert found.dims == expected.dims and found.attrs == expected.attrs


@pytest.mark.parametrize("n_frames", [250, 1000, 3000])  # small, larger and very large chunks
def test_a_movie_is_never_held_whole_and_read_once(n_frames):
    n, shape = 36_000, (30, 40)  # 173 MB
    read = []

    def frames(block_info=None):
        start, stop = block_info[None]["array-location"][0]
        read.append(start)
        return np.random.default_rng(start).random((stop - start, *shape), dtype=np.float32)

    movie = da.map_blocks(
        frames,
        chunks=((n_frames,) * (n // n_frames), *shape),
        dtype=np.float32,
        meta=np.empty((0, 0, 0), np.float32),
    )
    counts = np.random.default_rng(0).poisson(0.3, (n, 3))
    data = xr.Dataset(
        {"stimulus": (("time", "y", "x"), movie), "spike_count": (("time", "cell"), counts)},
        coords={"time": time_coordinate(np.arange(n) * 0.01, 0.01), "cell": ["a", "b", "c"]},
    )
    history = 20
    spike_triggered_average(data.isel(time=slice(n_frames)), history=history)  # first imports
    read.clear()
    tracemalloc.start()
    try:
        found = spike_triggered_average(data, history=history)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sorted(read) == list(range(0, n, n_frames))
    pixels = 30 * 40
    chunk = n_frames * pixels * 4
    sums = 2 * 3 * history * pixels * 8
    blocks = 4 * triggered_average.CHUNK_NUMBERS * 8
    assert peak < 2 * chunk + sums + blocks
    assert peak < n * pixels * 4 / 3
    assert int(found["n_spikes"].sum()) == counts[history - 1 :].sum()


def test_an_infinite_value_in_a_late_chunk_is_found(make_node):
    data = make_node((300,), shape=(2, 2))
    data["stimulus"][250, 1, 0] = np.inf
    with pytest.raises(ValueError, match=r"node\['stimulus'\] has 1 NaN .*time=250, y=1, x=0"):
        spike_triggered_average(data.chunk(time=100), history=3)


def test_it_finds_the_filter_of_a_planted_cell(make_node):
    data = make_node((20_000,), n_cells=1, shape=(2, 2))
    drive = data["stimulus"].values[:, 1, 0] - 0.4
    counts = np.r_[0, 0, 0, drive[:-3] > 1.0].astype(int)  # three frames later
    data = data.assign(spike_count=(("time", "cell"), counts[:, None]))
    found = spike_triggered_average(data, history=6) - 0.4
    assert float(found.isel(cell=0, lag=3, y=1, x=0)) == pytest.approx(1.525, abs=0.03)
    rest = found.isel(cell=0).values.copy()
    rest[3, 1, 0] = 0
    assert np.abs(rest).max() < 0.1


def test_a_silent_cell_is_nan_without_a_warning(make_node, recwarn):
    data = make_node()
    data["spike_count"][:, 1] = 0
    found = spike_triggered_average(data, history=3)
    assert np.isnan(found.sel(cell="C2")).all()
    assert found["n_spikes"].values[1] == 0
    assert not recwarn.list


def test_bad_input(make_node):
    with pytest.raises(ValueError, match="history=61 frames, but no contiguous run"):
        spike_triggered_average(make_node(), history=61)
    with pytest.raises(ValueError, match="history=0"):
        spike_triggered_average(make_node(), history=0)
    with pytest.raises(ValueError, match="node has no variable 'stimulus'; it has spike_count"):
        spike_triggered_average(make_node().drop_vars("stimulus"), history=3)
    with pytest.raises(ValueError, match=r"\['stimulus'\] has dims .*rename\(row='y'\)"):
        spike_triggered_average(make_node().rename(y="row"), history=3)
    data = make_node()
    data["stimulus"][7] = np.nan
    with pytest.raises(ValueError, match=r"node\['stimulus'\] has 1 NaN .*time=7"):
        spike_triggered_average(data, history=3)


@pytest.mark.parametrize("chunks", [None, 20])
def test_counts_that_are_nan_are_refused(make_node, chunks):
    # Summed over repeats, a NaN would pass for no spike.
    data = make_node(n_repeats=3).astype(np.float64)
    data["spike_count"][2, 9, 1] = np.nan
    data = data if chunks is None else data.chunk(time=chunks)
    match = r"node\['spike_count'\] has 1 NaN .*repeat=2, time=9, cell=1"
    with pytest.raises(ValueError, match=match):
        spike_triggered_average(data, history=3)
