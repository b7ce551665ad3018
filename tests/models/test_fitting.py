"""What a model takes over from a recording that may be larger than memory."""

import tracemalloc

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import retina_codec as rc
from retina_codec._common.time import time_coordinate
from retina_codec.models.fitting import mean_and_sd, movie_settings


def labelled(values, dims=("time", "y", "x")):
    time = time_coordinate(np.arange(values.shape[dims.index("time")]) * 0.01, 0.01)
    return xr.DataArray(values, {"time": time}, dims)


def with_counts(movie):
    counts = np.ones((movie.sizes["time"], 2), dtype=np.int32)
    return xr.Dataset(
        {"stimulus": movie, "spike_count": (("time", "cell"), counts)}, {"cell": ["a", "b"]}
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("n_frames", [1, 999, 40_000])  # of 50 numbers: one part, and several
def test_mean_and_sd_are_those_of_the_whole_movie(dtype, n_frames):
    values = np.random.default_rng(0).gamma(2.0, 20.0, size=(n_frames, 5, 10)).astype(dtype)
    values[n_frames // 2 :] //= 3  # so that the parts differ in mean and sd
    for movie in (labelled(values), labelled(da.from_array(values, chunks=(700, 5, 10)))):
        mean, sd = mean_and_sd(movie)
        assert mean == pytest.approx(values.mean(dtype=np.float64), rel=1e-6)
        assert sd == pytest.approx(values.std(dtype=np.float64), rel=1e-6)


def test_a_large_mean_takes_no_digits_from_the_sd():
    values = np.random.default_rng(0).integers(-3, 4, size=(30_000, 8, 8)) + 4_000_000
    mean, sd = mean_and_sd(labelled(values))  # whole numbers that float32 holds exactly
    assert mean == pytest.approx(values.mean(), rel=1e-12)
    assert sd == pytest.approx((values - 4_000_000).std(), rel=1e-9)


def test_a_constant_movie_has_no_sd():
    assert mean_and_sd(labelled(np.full((7, 2, 2), 0.1))) == (pytest.approx(0.1), 0.0)


def test_models_get_them_whatever_the_order_of_dims():
    values = np.random.default_rng(0).normal(3.0, 2.0, size=(40, 3, 4))
    node = with_counts(labelled(values.transpose(1, 0, 2), ("y", "time", "x")))
    settings = movie_settings(node)
    assert settings["input_shape"] == (3, 4)
    model = rc.models.LN.for_recording(node, history=4)
    assert model.mean == settings["mean"] == pytest.approx(values.mean())
    assert model.sd == settings["sd"] == pytest.approx(values.std())


@pytest.mark.parametrize("kind", ["dask", "memory-mapped"])
def test_memory_for_a_movie_larger_than_it(kind, tmp_path):
    n_frames, shape = 80_000, (40, 40)  # 128 MB of uint8, 1 GB in double precision
    if kind == "dask":
        values = da.random.default_rng(0).integers(
            0, 256, (n_frames, *shape), dtype=np.uint8, chunks=(1000, *shape)
        )
    else:
        values = np.memmap(tmp_path / "movie", np.uint8, "w+", shape=(n_frames, *shape))
        values[::2] = 255
    node = with_counts(labelled(values))
    tracemalloc.start()
    try:
        model = rc.models.LN.for_recording(node, history=4)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 192 * 2**20  # what is read ahead, three times over
    expected = 127.5 if kind == "memory-mapped" else np.sqrt((256**2 - 1) / 12)
    assert model.mean == pytest.approx(127.5, rel=1e-3)
    assert model.sd == pytest.approx(expected, rel=1e-3)


class TestBadInput:
    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_not_finite(self, bad):
        values = np.zeros((20, 2, 3))
        values[7, 1, 2] = bad
        with pytest.raises(ValueError, match=r"stimulus has 1 NaN .* \(time=7, y=1, x=2\)"):
            rc.models.LN.for_recording(with_counts(labelled(values)), history=4)

    def test_no_frames(self):
        with pytest.raises(ValueError, match=r"stimulus is empty, of shape \(0, 2, 3\)"):
            mean_and_sd(labelled(np.zeros((0, 2, 3))))
