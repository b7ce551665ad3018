"""Movies from arrays and files: the same numbers from everywhere, lazily where they are large."""

import itertools
import pickle
import tempfile
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dask
import dask.array as da
import h5py
import numpy as np
import pytest
import quantities as pq
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from retina_codec import stimuli
from retina_codec._common.checks import require_finite
from retina_codec._common.files import save_tree
from retina_codec._common.time import bin_width_of, time_coordinate
from retina_codec.stimuli import found, lazy, movie_files, sources

rng = np.random.default_rng(0)
FRAMES = rng.normal(size=(50, 4, 6)).astype(np.float32)


def labelled(values=FRAMES, dims=("time", "y", "x"), **coords):
    return xr.DataArray(values, dims=dims, coords=coords, name="movie")


def write(path, values):
    """Write the array `values` to `path` in the format that its suffix says."""
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.name.endswith("compressed.npz"):
        np.savez_compressed(path, movie=values)
    elif path.suffix == ".npz":
        np.savez(path, movie=values)
    elif path.suffix in (".h5", ".hdf5", ".hdf"):
        with h5py.File(path, "w") as file:
            file["group/movie"] = values
    elif path.name == "plain.zarr":
        zarr.save_array(path, values)
    elif path.suffix == ".zarr":
        zarr.open_group(path, mode="w").create_array("group/movie", data=values)
    elif path.name == "classic.nc":
        array = labelled(values, [f"axis{i}" for i in range(values.ndim)])
        array.to_netcdf(path, engine="scipy")
    else:
        labelled(values, [f"axis{i}" for i in range(values.ndim)]).to_netcdf(
            path, engine="h5netcdf"
        )
    return path


NAMES = ["a.npy", "a.npz", "compressed.npz", "a.h5", "a.hdf5", "a.hdf", "plain.zarr", "a.zarr"]
LABELLED_NAMES = ["a.nc", "classic.nc"]


def array_sources(folder):
    """One source of each kind of array, all with the numbers of FRAMES."""
    write(folder / "kept.npy", FRAMES)
    write(folder / "kept.h5", FRAMES)
    return {
        "numpy": FRAMES,
        "list": FRAMES.tolist(),
        "quantity": FRAMES * pq.dimensionless,
        "memmap": np.load(folder / "kept.npy", mmap_mode="r"),
        "fortran": np.asfortranarray(FRAMES),
        "big-endian": FRAMES.astype(">f4"),
        "hdf5": h5py.File(folder / "kept.h5", "r")["group/movie"],
        "zarr": zarr.array(FRAMES),
        "dask": da.from_array(FRAMES, chunks=(7, 2, 3)),
        "labelled": labelled(),
        "labelled in another order": labelled().transpose("x", "time", "y"),
        "labelled and lazy": labelled().chunk({"time": 9}),
    }


# The same numbers from everywhere


def test_every_kind_of_array_gives_the_same_movie(tmp_path):
    by_kind = array_sources(tmp_path)
    for kind, source in by_kind.items():
        movie = stimuli.open_movie(source, bin_width=0.02)
        assert movie.dims == ("time", "y", "x"), kind
        assert movie.dtype == np.float32, kind
        assert movie.dtype.isnative
        assert movie.name == "stimulus"
        assert movie.attrs["units"] == "1"
        assert movie.attrs["long_name"] == "stimulus"
        assert np.array_equal(movie, FRAMES), kind
        assert np.array_equal(movie["time"], np.arange(50) * 0.02)
        assert bin_width_of(movie) == 0.02
        for dim, n in (("y", 4), ("x", 6)):
            assert movie[dim].values.tolist() == list(range(n))
            assert movie[dim].attrs["units"] == "pixel"
        is_lazy = kind in ("memmap", "hdf5", "zarr", "dask", "labelled and lazy")
        assert (movie.chunks is not None) == is_lazy, kind


@pytest.mark.parametrize("name", NAMES)
def test_every_kind_of_file_gives_the_same_movie(name, tmp_path):
    path = write(tmp_path / name, FRAMES)
    for given_path in (path, str(path)):
        movie = stimuli.open_movie(given_path, bin_width=20 * pq.ms)
        assert movie.dims == ("time", "y", "x")
        assert movie.dtype == np.float32
        assert (movie.chunks is None) == (name == "compressed.npz")
        assert np.array_equal(movie, FRAMES)
        assert bin_width_of(movie) == 0.02
        assert str(tmp_path) not in str(movie.attrs)  # nobody's folders in results


@pytest.mark.parametrize("name", LABELLED_NAMES)
def test_foreign_names_of_axes_are_explained_by_dims(name, tmp_path):
    path = write(tmp_path / name, FRAMES)
    with pytest.raises(ValueError, match=r"axes \('axis0', 'axis1', 'axis2'\).*say with dims="):
        stimuli.open_movie(path)
    assert np.array_equal(stimuli.open_movie(path, dims=("time", "y", "x")), FRAMES)


numbers = st.one_of(hnp.floating_dtypes(), hnp.integer_dtypes(), hnp.unsigned_integer_dtypes())


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_an_array_comes_back_from_every_file_and_with_its_axes_in_any_order(data):
    n_axes = data.draw(st.sampled_from([1, 3, 4]))
    order = {1: ("time",), 3: ("time", "y", "x"), 4: ("time", "color", "y", "x")}[n_axes]
    dims = data.draw(st.permutations(order))
    shape = data.draw(hnp.array_shapes(min_dims=n_axes, max_dims=n_axes, max_side=4))
    finite = {"allow_nan": False, "allow_infinity": False}
    kind = data.draw(numbers)
    elements = hnp.from_dtype(kind, **(finite if kind.kind == "f" else {}))
    if kind.kind == "f" and kind.itemsize == 8:
        elements = st.floats(-1e30, 1e30)
    array = data.draw(hnp.arrays(kind, shape, elements=elements))
    expected = np.transpose(array, [dims.index(dim) for dim in order]).astype(np.float32)
    expected = expected[:, None, None] if n_axes == 1 else expected
    names = NAMES + LABELLED_NAMES
    with tempfile.TemporaryDirectory() as folder:
        for name in data.draw(st.lists(st.sampled_from(names), max_size=2, unique=True)):
            if name == "classic.nc":  # knows no unsigned, long or half numbers
                array = array.astype(np.float64)
            path = write(Path(folder) / name, array)
            movie = stimuli.open_movie(path, dims=dims)
            assert movie.dims == (order if n_axes > 1 else ("time", "y", "x"))
            assert movie.dtype == np.float32
            assert np.array_equal(movie, expected)
    in_memory = stimuli.open_movie(array, dims=dims)
    assert np.array_equal(in_memory, expected)
    assert np.array_equal(stimuli.open_movie(da.from_array(array), dims=dims), expected)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), n_frames=st.integers(1, 60))
def test_any_part_in_any_chunks_is_that_of_the_array(data, n_frames):
    order = data.draw(st.permutations(["time", "y", "x"]))
    array = labelled().transpose(*order).values
    key = tuple(data.draw(st.slices(n)) for n in FRAMES.shape)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(lazy, "CHUNK_BYTES", 4 * FRAMES[0].size * n_frames)
        movie = stimuli.open_movie(write(Path(folder) / "a.h5", array), dims=order)
        assert movie.data.chunksize == (min(50, n_frames), 4, 6)
        assert np.array_equal(movie, FRAMES)
        assert np.array_equal(movie[key], FRAMES[key])


@pytest.mark.parametrize("dims", list(itertools.permutations(["time", "color", "y", "x"])))
def test_colour_planes_in_any_order_are_the_same_movie(dims, tmp_path):
    colour = rng.normal(size=(11, 2, 3, 5)).astype(np.float32)
    array = labelled(colour, ("time", "color", "y", "x")).transpose(*dims)
    path = write(tmp_path / "a.npy", array.values)
    for source in (array.values, path):
        movie = stimuli.open_movie(source, dims=dims)
        assert movie.dims == ("time", "color", "y", "x")
        assert np.array_equal(movie, colour)
    assert np.array_equal(stimuli.open_movie(array), colour)


@pytest.mark.parametrize("name", NAMES)
def test_a_full_field_has_one_pixel(name, tmp_path):
    flicker = rng.normal(size=300)
    for source in (flicker, write(tmp_path / name, flicker)):
        movie = stimuli.open_movie(source, bin_width=0.01)
        assert movie.shape == (300, 1, 1)
        assert np.array_equal(movie[:, 0, 0], flicker.astype(np.float32))
        assert movie["y"].values.tolist() == movie["x"].values.tolist() == [0]


def test_bars_and_coloured_full_fields_get_the_axis_they_lack(tmp_path):
    bars = rng.normal(size=(20, 3)).astype(np.float32)
    for source in (bars, write(tmp_path / "a.npy", bars)):
        movie = stimuli.open_movie(source, dims=("time", "x"))
        assert movie.dims == ("time", "y", "x")
        assert np.array_equal(movie[:, 0], bars)
        coloured = stimuli.open_movie(source, dims=("time", "color"))
        assert coloured.dims == ("time", "color", "y", "x")
        assert np.array_equal(coloured[:, :, 0, 0], bars)
    assert stimuli.open_movie(labelled(bars, ("time", "color"))).shape == (20, 3, 1, 1)


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int16, np.float16, np.float64])
def test_all_real_numbers_become_float32(kind, tmp_path):
    values = (FRAMES > 0).astype(kind)
    for name in NAMES:
        movie = stimuli.open_movie(write(tmp_path / f"{np.dtype(kind)}{name}", values))
        assert movie.dtype == np.float32
        assert np.array_equal(movie, FRAMES > 0)


# Labels


def test_the_coordinates_and_attrs_of_a_labelled_movie_stay():
    steps = stimuli.light_steps(n_frames=80, shape=(3, 2), seed=0, bin_width=0.05)
    steps = steps.assign_coords(y=("y", [5.0, 15.0, 25.0], {"units": "um"}))
    movie = stimuli.open_movie(steps, bin_width=0.0502)
    xr.testing.assert_identical(movie, steps)
    pixel = stimuli.open_movie(steps[:, 1, 0])
    assert pixel.shape == (80, 1, 1)
    assert pixel["y"].values.tolist() == [15.0]
    assert pixel["y"].attrs["units"] == "um"
    assert pixel["epoch"].equals(steps["epoch"])
    renamed = steps.rename(time="frame", y="row").transpose("row", "frame", "x")
    again = stimuli.open_movie(renamed, dims=("y", "time", "x"))
    assert set(again.coords) == set(steps.coords)
    assert np.array_equal(again, steps)
    assert again["epoch"].dims == ("time",)
    assert again["y"].attrs["units"] == "um"


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_a_movie_of_a_written_tree_keeps_its_labels(suffix, tmp_path):
    steps = stimuli.moving_gratings(n_frames=80, shape=(3, 2), seed=0, bin_width=0.05)
    data = xr.Dataset({"stimulus": steps, "rate": ("time", np.ones(80))})
    tree = xr.DataTree.from_dict({"/train": data, "/test": data.isel(time=slice(40))})
    path = save_tree(tree, tmp_path / f"recording{suffix}")
    movie = stimuli.open_movie(path, dataset="train/stimulus")
    assert movie.chunks is not None
    xr.testing.assert_identical(movie.load(), steps)
    assert stimuli.open_movie(path, dataset="/test/stimulus").sizes["time"] == 40
    with pytest.raises(ValueError, match=r"several arrays .*test/stimulus.*train/stimulus"):
        stimuli.open_movie(path)
    with pytest.raises(ValueError, match=r"'trian/stimulus' is not in .* mean 'train/stimulus'"):
        stimuli.open_movie(path, dataset="trian/stimulus")


def test_numbers_that_a_netcdf_file_packs_are_unpacked(tmp_path):
    array = labelled(FRAMES.round(2).astype(float))
    packed = {"movie": {"dtype": "int16", "scale_factor": 0.01, "_FillValue": -(2**15)}}
    array.to_netcdf(tmp_path / "a.nc", engine="h5netcdf", encoding=packed)
    np.testing.assert_allclose(stimuli.open_movie(tmp_path / "a.nc"), array, atol=1e-6)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_both_zarr_formats_are_read(zarr_format, tmp_path):
    array = labelled().transpose("x", "y", "time")
    array.to_dataset().to_zarr(tmp_path / "a.zarr", zarr_format=zarr_format, consolidated=False)
    assert np.array_equal(stimuli.open_movie(tmp_path / "a.zarr"), FRAMES)
    # An array taken out of it still knows what its axes are.
    assert np.array_equal(stimuli.open_movie(zarr.open(tmp_path / "a.zarr")["movie"]), FRAMES)


def test_labels_of_the_axes_of_an_hdf5_dataset_count(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["movie"] = FRAMES.transpose(2, 0, 1)
        for dim, label in zip(file["movie"].dims, ("x", "time", "y"), strict=True):
            dim.label = label
        file["movie"].attrs["units"] = "cd/m2"
    movie = stimuli.open_movie(tmp_path / "a.h5")
    assert np.array_equal(movie, FRAMES)
    assert movie.attrs["units"] == "cd/m2"


def test_units_are_those_given_else_those_of_the_source():
    assert stimuli.open_movie(FRAMES, units="cd/m2").attrs["units"] == "cd/m2"
    lit = labelled().assign_attrs(units="R*/s")
    assert stimuli.open_movie(lit).attrs["units"] == "R*/s"
    assert stimuli.open_movie(lit, units="1").attrs["units"] == "1"
    volts = stimuli.open_movie(FRAMES * pq.mV)
    assert volts.attrs["units"] == "mV"
    converted = stimuli.open_movie(FRAMES * pq.mV, units="V")
    assert converted.attrs["units"] == "V"
    np.testing.assert_allclose(converted, FRAMES / 1000, rtol=1e-6)
    with pytest.raises(ValueError, match="source is in mV; expected something in s"):
        stimuli.open_movie(FRAMES * pq.mV, units="s")


def test_time_is_copied_where_there_is_one():
    onsets = np.r_[np.arange(25), 100 + np.arange(25)] * 0.02  # a pause
    plain = labelled(time=("time", onsets, {"clock": "display"}))
    assert "bin_width" not in stimuli.open_movie(plain)["time"].attrs
    movie = stimuli.open_movie(plain, bin_width=0.02)
    assert np.array_equal(movie["time"], onsets)
    assert bin_width_of(movie) == 0.02
    assert movie["time"].attrs["clock"] == "display"
    assert "time" not in stimuli.open_movie(FRAMES).coords


# Laziness: an hour of 50 x 50 pixels at 100 Hz, none of it in memory


def sparse_hour(folder, kind):
    """Return 3.6 GB that take no room on disk, with a one in frame 234,567."""
    shape, frame = (360_000, 50, 50), (234_567, 3, 4)
    path = folder / f"hour.{kind}"
    if kind == "npy":
        array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        array[frame] = 1
        array.flush()
    elif kind == "h5":
        with h5py.File(path, "w") as file:
            file.create_dataset("movie", shape, "f4", chunks=(1000, 50, 50))[frame] = 1
    else:
        chunks = {"chunks": (1000, 50, 50), "fill_value": 0}
        zarr.create_array(path, shape=shape, dtype="f4", **chunks)[frame] = 1
    return path


@pytest.mark.parametrize("kind", ["npy", "h5", "zarr"])
def test_an_hour_in_a_file_takes_no_memory_and_a_frame_is_read_alone(kind, tmp_path, monkeypatch):
    path = sparse_hour(tmp_path, kind)
    stimuli.open_movie(path, bin_width=0.01)[0].load()  # imports
    frames_read = []
    read_stored = sources._read_stored

    def noted(opened, axes, dims, key):
        frames_read.append(key[0])
        return read_stored(opened, axes, dims, key)

    monkeypatch.setattr(sources, "_read_stored", noted)
    tracemalloc.start()
    try:
        movie = stimuli.open_movie(path, bin_width=0.01)
        opened = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        values = movie[234_567].values
        read = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert movie.nbytes == 3_600_000_000
    assert opened < 10 * 2**20  # the times of the frames, and little else
    assert read < 80 * 2**20  # at most a chunk, and dask's copy of it
    assert frames_read == [slice(234_567, 234_568)]
    assert values.sum() == values[3, 4] == 1
    assert movie[234_566].values.any() == 0


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.h5", "plain.zarr", "a.nc", "classic.nc"])
def test_no_file_stays_open(name, tmp_path):
    path = write(tmp_path / name, FRAMES)
    movie = stimuli.open_movie(path, dims=("time", "y", "x"))
    movie[3].load()
    handles = Path("/proc/self/fd")
    if handles.is_dir():  # Linux
        assert path not in [link.resolve() for link in handles.iterdir() if link.exists()]
    if name == "a.h5":  # it can be written to
        with h5py.File(path, "r+") as file:
            file["group/movie"][3] = 7
        assert (movie[3] == 7).all()
    again = pickle.loads(pickle.dumps(movie))
    xr.testing.assert_identical(again, movie)
    if name == "a.h5":  # and by other processes
        with dask.config.set(scheduler="processes", num_workers=1):
            assert np.array_equal(movie[5:9], FRAMES[5:9])


def test_a_dataset_outlives_the_callers_handle_if_it_was_opened_for_reading(tmp_path):
    path = write(tmp_path / "a.h5", FRAMES)
    with h5py.File(path, "r") as file:
        movie = stimuli.open_movie(file["group/movie"])
    assert np.array_equal(movie, FRAMES)
    with h5py.File(path, "r+") as file:
        written = stimuli.open_movie(file["group/movie"])
        assert np.array_equal(written, FRAMES)
    with pytest.raises(OSError, match=r"frames 0\.\.49 of the movie cannot be read"):
        written.load()
    with h5py.File("memory", "w", driver="core", backing_store=False) as file:
        file["movie"] = FRAMES
        assert np.array_equal(stimuli.open_movie(file["movie"]), FRAMES)


def test_many_threads_read_one_file(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("movie", data=np.repeat(FRAMES, 20, axis=0), chunks=(10, 4, 6))
    movie = stimuli.open_movie(tmp_path / "a.h5")
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda i: movie[i : i + 3].values, range(0, 900, 3)))
    assert np.array_equal(np.concatenate(parts), np.repeat(FRAMES, 20, axis=0)[:900])


@pytest.mark.parametrize(
    ("shape", "stored", "n_frames"),
    [
        ((100, 1000, 1000), None, 8),
        ((100, 1000, 1000), (3, 1000, 1000), 6),
        ((100, 1000, 1000), (20, 1000, 1000), 20),
        ((100, 1000, 1000), (100, 10, 10), 8),
        ((9_000_000, 1, 1), None, 2**23),
    ],
)
def test_chunks_are_about_32_megabytes_and_whole_chunks_of_the_file(
    shape, stored, n_frames, tmp_path
):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("movie", shape, "u1", chunks=stored)
    assert stimuli.open_movie(tmp_path / "a.h5").data.chunksize == (n_frames, *shape[1:])


def test_chunks_of_dask_become_whole_frames(monkeypatch):
    monkeypatch.setattr(lazy, "CHUNK_BYTES", 4 * 24 * 10)
    for chunks, n_frames in [((50, 2, 3), 10), ((4, 4, 6), 8), ((20, 4, 6), 20)]:
        movie = stimuli.open_movie(da.from_array(FRAMES, chunks=chunks))
        assert movie.data.chunksize == (n_frames, 4, 6)
        assert np.array_equal(movie, FRAMES)


def test_arrays_in_memory_are_neither_copied_nor_held_twice():
    small = np.zeros((1000, 10, 10), dtype=np.float32)
    assert np.shares_memory(stimuli.open_movie(small).values, small)
    assert np.shares_memory(stimuli.open_movie(labelled(small)).values, small)
    flicker = np.zeros(1000, dtype=np.float32)
    assert np.shares_memory(stimuli.open_movie(flicker).values, flicker)
    limit = found.IN_MEMORY_BYTES // 4
    assert stimuli.open_movie(np.zeros(limit, dtype=np.float32)).chunks is None
    for large in (np.zeros(limit + 1, dtype=np.float32), np.zeros((limit // 4 + 1, 2, 2), "u1")):
        for source in (large, labelled(large[:, None, None]) if large.ndim == 1 else large):
            tracemalloc.start()
            movie = stimuli.open_movie(source)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert movie.chunks is not None
            assert movie.data.chunksize[0] * movie[0].size * 4 == lazy.CHUNK_BYTES
            assert peak < 2**20
            large.flat[-1] = 3  # it is the caller's array, not a copy
            assert movie[-1, -1, -1] == 3
            large.flat[-1] = 0


def test_a_labelled_array_that_xarray_opened_lazily_is_not_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(found, "IN_MEMORY_BYTES", 1000)
    labelled().to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with xr.open_dataarray(tmp_path / "a.nc", engine="h5netcdf") as array:
        movie = stimuli.open_movie(array)
        assert movie.chunks is not None
        assert np.array_equal(movie[10:20], FRAMES[10:20])
        assert not array.variable._in_memory


def test_a_description_is_rendered():
    description = {"kind": "seeded_noise", "n_frames": 20, "shape": [3, 4], "seed": 1}
    movie = stimuli.open_movie(description, bin_width=0.01, units="R*/s")
    expected = stimuli.seeded_noise(n_frames=20, shape=(3, 4), seed=1, bin_width=0.01)
    assert np.array_equal(movie, expected)
    assert movie.attrs["units"] == "R*/s"
    xr.testing.assert_identical(movie.assign_attrs(units="1"), expected)


def test_the_dataset_asked_for_is_opened(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["train/stimulus"] = FRAMES
        file["train/time"] = np.arange(50.0)
        file["test/stimulus"] = 2 * FRAMES
        file["test/linked"] = h5py.SoftLink("/train/stimulus")
        file["spikes"] = np.zeros((3, 3))
    open_one = stimuli.open_movie
    assert np.array_equal(open_one(tmp_path / "a.h5", dataset="test/stimulus"), 2 * FRAMES)
    assert np.array_equal(open_one(tmp_path / "a.h5", dataset="/test/linked"), FRAMES)
    assert open_one(tmp_path / "a.h5", dims=("time", "x")).shape == (3, 1, 3)  # the only 2-d one
    np.savez(tmp_path / "a.npz", train=FRAMES, test=2 * FRAMES)
    assert np.array_equal(open_one(tmp_path / "a.npz", dataset="test"), 2 * FRAMES)


# Bad input


def refuse(words, kind=ValueError):
    return pytest.raises(kind, match=words)


@pytest.mark.parametrize(
    ("source", "options", "kind", "words"),
    [
        (np.zeros((5, 2)), {}, ValueError, r"^source has shape \(5, 2\); expected .*dims="),
        (np.zeros((5, 2, 2, 2)), {}, ValueError, r"source has shape \(5, 2, 2, 2\); .*dims="),
        (np.zeros(()), {}, ValueError, r"source has shape \(\)"),
        (np.zeros((0, 2, 2)), {}, ValueError, r"source .* is empty: shape \(0, 2, 2\)"),
        (np.zeros((4, 2, 0)), {}, ValueError, r"source .* is empty: shape \(4, 2, 0\)"),
        ([], {}, ValueError, "source .* is empty"),
        (np.zeros((4, 2, 2), complex), {}, ValueError, "dtype complex128, complex numbers; exp"),
        (np.full((4, 2, 2), "a"), {}, ValueError, "dtype <U1, no numbers; expected real"),
        (np.full((4, 2, 2), None), {}, ValueError, "dtype object, no numbers"),
        ([[1, 2], [3]], {}, ValueError, "source is a list whose items differ in length"),
        (np.ma.masked_less(FRAMES, 0), {}, ValueError, "source has masked values; fill them"),
        (None, {}, TypeError, "source is a NoneType; expected an array"),
        (7, {}, TypeError, "source is a int; expected an array"),
        (labelled().to_dataset(), {}, TypeError, r"is a Dataset; .*source\['stimulus'\]"),
        ({"seed": 3}, {}, ValueError, "description has no 'kind'"),
        (FRAMES, {"dataset": "a"}, ValueError, "dataset='a' was given, but source is a ndarray"),
        (FRAMES, {"dims": ("time", "x")}, ValueError, r"names 2 axes, but source has 3"),
        (FRAMES, {"dims": ("time", "y", "y")}, ValueError, "no name twice"),
        (FRAMES, {"dims": ("color", "y", "x")}, ValueError, "expected 'time'"),
        (FRAMES, {"dims": ("time", "y", "xx")}, ValueError, "'xx'; did you mean 'x'"),
        (FRAMES, {"dims": "time"}, TypeError, "dims='time'; expected a sequence of names"),
        (FRAMES, {"units": 1}, TypeError, "units=1; expected a string"),
        (FRAMES, {"bin_width": 0}, ValueError, "bin_width=0; expected a duration"),
        (FRAMES, {"bin_width": -0.01}, ValueError, r"bin_width=-0\.01; expected"),
        (FRAMES, {"bin_width": np.nan}, ValueError, "bin_width=nan; expected"),
        (FRAMES, {"bin_width": "10 ms"}, TypeError, "bin_width='10 ms'; expected a number"),
        (FRAMES, {"bin_width": 1 * pq.m}, ValueError, "bin_width is in m; expected .* in s"),
        (
            {"kind": "seeded_noise"},
            {"dims": ("time", "y", "x")},
            ValueError,
            "dims was given, but source is a description",
        ),
        (
            labelled(dims=("frame", "y", "x")),
            {},
            ValueError,
            r"source has dims \('frame', 'y', 'x'\).*rename\(frame='time'\)",
        ),
        (labelled(dims=("time", "row", "x")), {}, ValueError, r"rename\(row='y'\)"),
        (
            labelled(time=time_coordinate(np.arange(50) * 0.02, 0.02)),
            {"bin_width": 0.021},
            ValueError,
            r"bin_width=0\.021 s, but the coordinate 'time' of source says 0\.02 s",
        ),
        (
            labelled(time=("time", np.arange(50) * 20.0)),
            {"bin_width": 0.02},
            ValueError,
            "bins start every 20 s",
        ),
        (
            labelled(time=np.arange(50).astype("datetime64[ms]")),
            {},
            ValueError,
            "'time' has dtype datetime64.*expected bin onsets in seconds",
        ),
    ],
)
def test_wrong_arrays_and_arguments_are_refused(source, options, kind, words):
    with pytest.raises(kind, match=words):
        stimuli.open_movie(source, **options)


def test_the_caller_can_name_the_argument():
    with refuse(r"^stimulus has shape \(5, 2\)"):
        sources.read_movie(np.zeros((5, 2)), "stimulus")
    with refuse("^stimulus=.*does not exist", FileNotFoundError):
        sources.read_movie("nowhere.npy", "stimulus")


def test_missing_and_unknown_files_are_refused(tmp_path):
    for suffix in movie_files.SUFFIXES:
        with refuse(r"source='.*none\.\w+' does not exist", FileNotFoundError):
            stimuli.open_movie(tmp_path / f"none{suffix}")
    (tmp_path / "movie.avi").write_bytes(b"RIFF")
    with refuse(r"has no known suffix; expected one of \.npy, \.npz, \.h5"):
        stimuli.open_movie(tmp_path / "movie.avi")


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "compressed.npz", "a.h5", "a.nc", "classic.nc"])
@pytest.mark.parametrize("kept", [0, 3, 100, 0.5])
def test_cut_off_files_are_refused(name, kept, tmp_path):
    path = write(tmp_path / name, FRAMES)
    whole = path.read_bytes()
    path.write_bytes(whole[: kept if isinstance(kept, int) else int(kept * len(whole))])
    with refuse("^source='.*is not a readable .*copy it again", OSError):
        stimuli.open_movie(path, dims=("time", "y", "x")).load()


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.h5", "a.nc", "a.zarr"])
def test_files_of_another_format_are_refused(name, tmp_path):
    (tmp_path / name).write_text("time,value\n0,1\n" * 100)
    with refuse("^source='.*is not a readable", OSError):
        stimuli.open_movie(tmp_path / name)


def test_a_zarr_folder_without_metadata_is_refused(tmp_path):
    path = write(tmp_path / "a.zarr", FRAMES)
    for file in path.rglob("zarr.json"):
        file.unlink()
    with refuse("is not a readable Zarr store", OSError):
        stimuli.open_movie(path)


def test_a_damaged_part_is_named_when_it_is_read(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        noise = rng.integers(0, 255, size=(100, 8, 8), dtype=np.uint8)
        file.create_dataset("movie", data=noise, chunks=(10, 8, 8), fletcher32=True)
        place = file["movie"].id.get_chunk_info(4).byte_offset
    content = bytearray((tmp_path / "a.h5").read_bytes())
    content[place + 20] ^= 255
    (tmp_path / "a.h5").write_bytes(content)
    movie = stimuli.open_movie(tmp_path / "a.h5")
    assert np.array_equal(movie[:40], noise[:40])
    with refuse(r"frames 40\.\.49 of the movie cannot be read.*damaged", OSError):
        movie[40:50].load()


def test_a_file_that_went_away_is_named_when_it_is_read(tmp_path):
    for name in ("a.npy", "a.h5", "a.nc"):
        path = write(tmp_path / name, FRAMES)
        movie = stimuli.open_movie(path, dims=("time", "y", "x"))
        path.unlink()
        with refuse(r"frames 7\.\.7 of the movie cannot be read", OSError):
            movie[7].load()


def test_unknown_and_ambiguous_datasets_are_refused(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["train/stimulus"] = FRAMES
        file["test/stimulus"] = FRAMES
        file["empty"] = h5py.Empty("f4")
    with refuse("several arrays of numbers with 1 or 3 or 4 dims.*test/stimulus, train/stimulus"):
        stimuli.open_movie(path)
    with refuse("'train/stimuli' is not in a.h5; did you mean 'train/stimulus'"):
        stimuli.open_movie(path, dataset="train/stimuli")
    with refuse("'train' is not in a.h5; choices: test/stimulus, train/stimulus"):
        stimuli.open_movie(path, dataset="train")
    np.savez(tmp_path / "a.npz", a=FRAMES, b=FRAMES)
    with refuse("several arrays.* a, b"):
        stimuli.open_movie(tmp_path / "a.npz")
    with refuse("'c' is not in a.npz; choices: a, b"):
        stimuli.open_movie(tmp_path / "a.npz", dataset="c")
    for name in ("a.npy", "plain.zarr"):
        write(tmp_path / name, FRAMES)
        with refuse("dataset='c' was given, but"):
            stimuli.open_movie(tmp_path / name, dataset="c")


def test_files_without_a_movie_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["words"] = ["a", "b"]
        file["table"] = np.zeros((3, 2))
    with refuse(r"no array of numbers with 1 or 3 or 4 dims; it holds table \(3, 2\) float64"):
        stimuli.open_movie(tmp_path / "a.h5")
    with refuse(r"source \(/words in a\.h5\) has dtype object, no numbers"):
        stimuli.open_movie(tmp_path / "a.h5", dataset="words")
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    with refuse("it holds no array"):
        stimuli.open_movie(tmp_path / "empty.h5")
    values = {"object": np.array([None, 1]), "complex": np.zeros(4, complex)}
    for name, array in values.items():
        np.save(tmp_path / "a.npy", array, allow_pickle=True)
        with refuse(f"a.npy.* has dtype {name}"):
            stimuli.open_movie(tmp_path / "a.npy")
        np.savez(tmp_path / "a.npz", one=array)
        with refuse(f"one in a.npz.* has dtype {name}"):
            stimuli.open_movie(tmp_path / "a.npz", dataset="one")
    for name in ("a.npy", "a.npz", "a.h5", "plain.zarr"):
        write(tmp_path / f"empty{name}", np.zeros((0, 3, 3)))
        with refuse("is empty"):
            stimuli.open_movie(tmp_path / f"empty{name}")


def test_a_closed_dataset_is_refused(tmp_path):
    with h5py.File(write(tmp_path / "a.h5", FRAMES)) as file:
        dataset = file["group/movie"]
    with refuse("source is a dataset of a closed HDF5 file: give the path"):
        stimuli.open_movie(dataset)


# Finite values, block by block


@pytest.mark.parametrize("chunks", [None, {"time": 7}, {"time": 7, "y": 3}])
@pytest.mark.parametrize("block", [1, 100, 10_000])
def test_values_that_are_not_finite_are_counted_and_the_first_is_found(chunks, block, monkeypatch):
    monkeypatch.setattr("retina_codec._common.checks.BLOCK_BYTES", block)
    values = FRAMES.copy()
    movie = labelled(values)
    require_finite(movie if chunks is None else movie.chunk(chunks), "stimulus")
    values[[31, 30, 44], [2, 1, 0], [0, 5, 3]] = np.nan, np.inf, -np.inf
    with refuse(r"^stimulus has 3 NaN or infinite values, the first at index \(time=30, y=1, x=5"):
        require_finite(
            labelled(values) if chunks is None else labelled(values).chunk(chunks), "stimulus"
        )


def test_whole_numbers_are_not_looked_at_and_lazy_movies_not_held():
    def explode(block):
        raise AssertionError("computed")

    counts = da.zeros((10, 2, 2), dtype=np.int32, chunks=5).map_blocks(explode, dtype=np.int32)
    require_finite(labelled(counts), "counts")
    require_finite(labelled(np.zeros((0, 2, 2))), "nothing")
    require_finite(xr.DataArray(1.0), "one")
    with refuse(r"one has 1 NaN or infinite values, the first at index \(\)"):
        require_finite(xr.DataArray(np.nan), "one")
    movie = labelled(da.zeros((4000, 100, 100), dtype=np.float32, chunks=(800, 100, 100)))
    tracemalloc.start()
    require_finite(movie, "stimulus")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < movie.nbytes


# What float32 cannot hold


def test_values_beyond_float32_are_named(tmp_path, recwarn):
    values = FRAMES.astype(np.float64)
    values[30, 1, 2] = -1e39
    match = r"up to 1e\+39 in size, beyond the largest of 32-bit floats \(3\.403e\+38\).*scale"
    for source in (values, labelled(values), values.tolist()):
        with refuse(f"^source has values {match}"):
            stimuli.open_movie(source)
    for source in (da.from_array(values, chunks=(7, -1, -1)), write(tmp_path / "a.npy", values)):
        movie = stimuli.open_movie(source)
        with refuse(match):
            movie.compute()
    # infinity and NaN are for those who need finite values to refuse
    values[30, 1, 2] = -np.inf
    values[31, 1, 2] = np.nan
    for source in (values, da.from_array(values), write(tmp_path / "b.npy", values)):
        movie = stimuli.open_movie(source)
        assert np.isneginf(movie.values[30, 1, 2]) and np.isnan(movie.values[31, 1, 2])
    assert not recwarn.list


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint32, np.float64])
def test_values_that_become_the_same_in_float32_are_refused(dtype):
    k = np.random.default_rng(0).integers(0, 255, FRAMES.shape)
    offset = 2**26
    match = (
        r"^source has values from 67108864 to 67109118, .* round by up to 4: .*subtract the mean"
    )
    with refuse(match):
        stimuli.open_movie((k + offset).astype(dtype))
    with refuse(match):
        stimuli.open_movie(labelled((k + offset).astype(dtype)))
    # what float32 holds exactly, or resolves well, is a movie
    for values in (k, k + 2**22, 8 * k + offset):
        movie = stimuli.open_movie(values.astype(dtype))
        np.testing.assert_array_equal(movie.values.astype(np.int64), values)
    centred = (k + offset).astype(np.float64)
    centred -= centred.mean()
    np.testing.assert_allclose(stimuli.open_movie(centred), centred, rtol=1e-6)


def test_two_values_with_one_rounding_are_refused_and_constants_are_not():
    contrast = np.where(FRAMES > 0, 1.0, 0.0)
    with refuse("different values become the same"):
        stimuli.open_movie(1e9 + contrast)
    holed = 1e9 + contrast
    holed[3, 1, 1] = np.nan
    with refuse("different values become the same"):
        stimuli.open_movie(holed)
    for constant in (np.full((5, 2, 2), 0.1), np.array([0.3, 0.1 + 0.2] * 4), np.full(3, np.nan)):
        movie = stimuli.open_movie(constant)
        np.testing.assert_allclose(movie.values.ravel(), constant.ravel(), rtol=1e-7)
    small = np.random.default_rng(0).normal(1000, 0.1, (50, 3, 3))
    np.testing.assert_allclose(stimuli.open_movie(small), small, rtol=1e-7)
