"""Movies larger than memory: read once, in order, a little at a time."""

import tracemalloc

import dask.array as da
import numpy as np
import pytest
import torch
import xarray as xr

import retina_codec as rc
from retina_codec._common.time import block_coordinate, time_coordinate
from retina_codec.models.reading import FrameReader
from retina_codec.stimuli.lazy import lazy_array


def labelled(values, blocks=None):
    coords = {"time": time_coordinate(np.arange(len(values)) * 0.01, 0.01)}
    if blocks is not None:
        coords["block"] = block_coordinate(blocks)
    return xr.DataArray(values, dims=("time", "y", "x"), coords=coords)


def counted(values, chunk):
    """Lazy copy of `values` and how often each frame has been made, whole chunks at a time."""
    made = np.zeros(len(values), dtype=int)

    def make(block_info=None):
        (start, stop), *_ = block_info[None]["array-location"]
        made[start:stop] += 1
        return values[start:stop]

    n = len(values)
    chunks = ((chunk,) * (n // chunk) + ((n % chunk,) if n % chunk else ()), *values.shape[1:])
    return da.map_blocks(make, chunks=chunks, dtype=values.dtype, meta=values[:0]), made


def small_model(history=5, size=(6, 7)):
    model = rc.models.BNCNN(
        size, history=history, bin_width=0.01, cells=["a", "b"], kernel_sizes=(3, 3)
    )
    return model


@pytest.mark.parametrize("chunk", [3, 40, 97, 1000])
@pytest.mark.parametrize("batch_size", [1, 13, 256])
def test_each_chunk_is_read_once(chunk, batch_size):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 255, (300, 6, 7)).astype(np.uint8)
    blocks = np.repeat([0, 1, 2, 3], [110, 3, 87, 100])  # the second is shorter than the history
    lazy, made = counted(values, chunk)
    model = small_model()
    predicted = model.predict(labelled(lazy, blocks), batch_size=batch_size)
    assert made.max() == 1
    expected = model.predict(labelled(values.astype(np.float32), blocks))
    xr.testing.assert_allclose(predicted, expected, rtol=1e-4)
    assert predicted.sizes["time"] == 106 + 83 + 96


@pytest.mark.parametrize("ahead", [1, 4 * 42 * 20, 4 * 42 * 150])
@pytest.mark.parametrize("chunk", [None, 7, 64])
def test_what_is_held_is_what_was_asked_for(ahead, chunk):
    values = np.random.default_rng(0).normal(size=(200, 6, 7)).astype(np.float32)
    source = values if chunk is None else counted(values, chunk)[0]
    reader = FrameReader(labelled(source), ahead)
    for start, stop in ((0, 30), (26, 56), (52, 52), (52, 90), (150, 200), (10, 20), (199, 200)):
        np.testing.assert_array_equal(reader.read(start, stop), values[start:stop])
        assert len(reader._held) <= max(stop - start + 64, 4 * ahead / (4 * 42))


def test_a_chunk_far_larger_than_what_may_be_held_is_read_in_parts():
    spans = []

    def read(key):
        spans.append(key[0].stop - key[0].start)
        return np.zeros([s.stop - s.start for s in key], dtype=np.float32)

    movie = labelled(lazy_array(read, (5000, 6, 7)))
    reader = FrameReader(movie, 4 * 42 * 100)
    for start in range(0, 4900, 50):
        reader.read(start, start + 100)
    assert max(spans) <= 4 * 100  # the last of the chunk, within reach
    assert sum(spans) <= 5000


def test_memory_does_not_grow_with_the_movie():
    size, n = (40, 40), 40_000  # 256 MB as float32

    def read(key):
        return np.zeros([s.stop - s.start for s in key], dtype=np.float32)

    movie = labelled(lazy_array(read, (n, *size)))
    model = rc.models.LN(size, history=2, bin_width=0.01, cells=["a"])
    tracemalloc.start()
    try:
        model.predict(movie)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # What is held, as much while more is read, and a chunk or two of the movie itself.
    assert peak < 200 * 2**20


def test_nan_is_named_by_its_frame_and_only_where_it_is_used():
    values = np.zeros((60, 6, 7), dtype=np.float32)
    blocks = np.repeat([0, 1, 2], [30, 3, 27])
    values[31] = np.nan  # in a block shorter than the history: never seen
    lazy, _ = counted(values, 16)
    model = small_model()
    assert np.isfinite(model.predict(labelled(lazy, blocks))).all()
    values[47, 2, 2] = np.inf
    with pytest.raises(ValueError, match="first in frame 47"):
        model.predict(labelled(counted(values, 16)[0], blocks), batch_size=8)


@pytest.mark.filterwarnings("error")
def test_a_memory_mapped_movie_is_neither_changed_nor_copied_whole(tmp_path):
    values = np.random.default_rng(0).normal(size=(300, 6, 7)).astype(np.float32)
    np.save(tmp_path / "movie.npy", values)
    mapped = np.load(tmp_path / "movie.npy", mmap_mode="r")
    model = small_model()
    expected = model.predict(labelled(values.copy()))
    np.testing.assert_array_equal(model.predict(labelled(mapped)), expected)
    opened = rc.stimuli.open_movie(tmp_path / "movie.npy", bin_width=0.01)
    np.testing.assert_array_equal(model.predict(opened), expected)
    np.testing.assert_array_equal(np.load(tmp_path / "movie.npy"), values)


def test_predicting_leaves_the_movie_and_the_network_alone():
    values = np.random.default_rng(0).normal(size=(60, 6, 7)).astype(np.float32)
    movie, model = labelled(values.copy()), small_model()
    weights = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    model.predict(movie, batch_size=7)
    np.testing.assert_array_equal(movie.values, values)
    for name, tensor in model.network.state_dict().items():
        torch.testing.assert_close(tensor, weights[name], rtol=0, atol=0)
