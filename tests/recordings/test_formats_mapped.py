"""Any file with arrays, opened with a mapping that says what they are."""

import warnings
from itertools import permutations

import h5py
import numpy as np
import pytest
import scipy.io
import xarray as xr
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import retina_codec as rc

N, WIDTH = 200, 0.01
CELLS = ["C1", "C2", "C10"]


def content(seed=0):
    rng = np.random.default_rng(seed)
    trains = {
        c: np.sort(rng.uniform(0.5, 0.5 + N * WIDTH, 40 + 20 * i)) for i, c in enumerate(CELLS)
    }
    return {
        "movie": rng.integers(0, 256, (N, 6, 4)).astype(np.uint8),
        "counts": rng.poisson(0.5, (N, 3)),
        "repeats": rng.poisson(0.5, (5, N, 3)),
        "marks": 0.5 + np.arange(N) * WIDTH,
        "trains": trains,
    }


def opened(path, mapping, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return rc.open_recording(path, mapping=mapping, **options)


def write_h5(path, held):
    with h5py.File(path, "w") as file:
        for name, values in held.items():
            file[name] = values
    return path


def write_mat73(path, held):
    """Numbers, and lists as cell arrays, as MATLAB 7.3 writes them."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in held.items():
            if isinstance(values, list):
                refs = []
                for i, item in enumerate(values):
                    place = f"#refs#/{name}{i}"
                    if isinstance(item, str):
                        file[place] = np.array([[ord(c)] for c in item], np.uint16)
                        file[place].attrs["MATLAB_class"] = np.bytes_("char")
                    else:
                        file[place] = np.atleast_2d(item).T
                        file[place].attrs["MATLAB_class"] = np.bytes_("double")
                    refs.append(file[place].ref)
                file.create_dataset(name, data=np.array([refs], dtype=h5py.ref_dtype))
            else:
                file[name] = np.asarray(values).T
                file[name].attrs["MATLAB_class"] = np.bytes_("double")
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(512))
    return path


def write_classic_netcdf(path, held):
    data = {
        name: (tuple(f"{name}{i}" for i in range(np.ndim(v))), np.asarray(v, np.float64))
        for name, v in held.items()
    }
    xr.Dataset(data).to_netcdf(path, engine="scipy")
    return path


def write(path, held, kind):
    arrays = {k: np.asarray(v) for k, v in held.items() if k != "trains"}
    path = path.with_suffix(
        {"h5": ".h5", "npz": ".npz", "npzc": ".npz", "mat5": ".mat", "mat73": ".mat"}.get(
            kind, ".nc"
        )
    )
    if kind == "h5":
        write_h5(path, arrays)
    elif kind == "npz":
        np.savez(path, **arrays)
    elif kind == "npzc":
        np.savez_compressed(path, **arrays)
    elif kind == "mat5":
        scipy.io.savemat(path, arrays)
    elif kind == "mat73":
        write_mat73(path, arrays)
    elif kind == "nc3":
        write_classic_netcdf(path, arrays)
    else:
        data = {n: (tuple(f"{n}{i}" for i in range(v.ndim)), v) for n, v in arrays.items()}
        xr.Dataset(data).to_netcdf(path, engine="h5netcdf")
    return path


KINDS = ["h5", "npz", "npzc", "mat5", "mat73", "nc3", "nc4"]
COUNTS = {
    "stimulus": {"entry": "movie", "dims": ["time", "y", "x"]},
    "spike_count": {"entry": "counts", "dims": ["time", "cell"]},
    "bin_width": WIDTH,
    "cells": CELLS,
}


@pytest.fixture
def held():
    return content()


@pytest.mark.parametrize("kind", KINDS)
def test_counts_in_every_kind_of_file(tmp_path, held, kind):
    path = write(tmp_path / "a", held, kind)
    rec = opened(path, COUNTS)
    assert rec.attrs["source_format"] == "mapped"
    train = rec["train"]
    np.testing.assert_array_equal(train["stimulus"].values, held["movie"])
    assert train["stimulus"].dims == ("time", "y", "x")
    assert train["stimulus"].dtype == np.float32
    if kind in ("h5", "npz", "mat73", "nc3", "nc4"):
        assert train["stimulus"].chunks is not None
    np.testing.assert_array_equal(train["spike_count"].values, held["counts"])
    assert train["spike_count"].dtype == np.int32
    assert list(train["cell"].values) == CELLS
    np.testing.assert_allclose(train["time"].values, np.arange(N) * WIDTH)
    assert train["time"].attrs["bin_width"] == WIDTH
    assert not train["block"].values.any()


@pytest.fixture(scope="module")
def permuted(tmp_path_factory):
    """One file for each order of the axes, written once."""
    held = content()
    folder = tmp_path_factory.mktemp("permuted")
    for kind in ("h5", "npz", "mat5", "mat73"):
        for order in permutations(range(3)):
            arrays = {
                "movie": held["movie"].transpose(order),
                "repeats": held["repeats"].transpose(order),
            }
            write(folder / f"{kind}{''.join(map(str, order))}", arrays, kind)
    return folder


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["h5", "npz", "mat5", "mat73"]),
    order=st.permutations(range(3)).map(tuple),
    chosen=st.permutations(CELLS).map(lambda c: c[:2]),
)
def test_any_order_of_the_axes_gives_the_same(permuted, kind, order, chosen):
    held = content()
    suffix = {"h5": ".h5", "npz": ".npz"}.get(kind, ".mat")
    mapping = {
        "stimulus": {"entry": "movie", "dims": [("time", "y", "x")[i] for i in order]},
        "spike_count": {
            "entry": "repeats",
            "dims": [("repeat", "time", "cell")[i] for i in order],
        },
        "bin_width": WIDTH,
        "cells": CELLS,
    }
    path = permuted / f"{kind}{''.join(map(str, order))}{suffix}"
    test = opened(path, mapping, cells=chosen)["test"]
    np.testing.assert_array_equal(test["stimulus"].values, held["movie"])
    assert test["spike_count"].dims == ("repeat", "time", "cell")
    rows = [CELLS.index(cell) for cell in chosen]
    np.testing.assert_array_equal(test["spike_count"].values, held["repeats"][..., rows])


def test_yaml_file_and_nodes(tmp_path, held):
    arrays = {
        "train/movie": held["movie"],
        "train/counts": held["counts"].T,
        "test/movie": held["movie"][::-1],
        "test/counts": held["repeats"],
        "dt": np.array([10.0]),
        "starts": np.arange(5) * 3000.0,
    }
    path = write_h5(tmp_path / "a.h5", arrays)
    text = """
    bin_width: {entry: dt, units: ms}
    cells: [C1, C2, C10]
    nodes:
      train:
        stimulus: train/movie
        spike_count: {entry: train/counts, dims: [cell, time]}
        block: 4
      test:
        stimulus: {entry: test/movie, units: contrast}
        spike_count: {entry: test/counts, dims: [repeat, time, cell]}
        repeat_onset: {entry: starts, units: ms}
    """
    (tmp_path / "mapping.yaml").write_text(text)
    rec = opened(path, tmp_path / "mapping.yaml")
    assert rec.identical(opened(path, yaml.safe_load(text)))
    assert set(rec.children) == {"train", "test"}
    np.testing.assert_array_equal(rec["train"]["spike_count"].values, held["counts"])
    np.testing.assert_array_equal(rec["train"]["block"].values, np.repeat(np.arange(4), 50))
    np.testing.assert_array_equal(rec["test"]["stimulus"].values, held["movie"][::-1])
    assert rec["test"]["stimulus"].attrs["units"] == "contrast"
    np.testing.assert_array_equal(rec["test"]["spike_count"].values, held["repeats"])
    np.testing.assert_allclose(rec["test"]["repeat_onset"].values, np.arange(5) * 3.0)
    assert rec["test"]["time"].attrs["bin_width"] == pytest.approx(WIDTH)
    assert "block" not in rec["test"].coords


def test_movie_in_a_file_of_its_own_and_a_folder(tmp_path, held):
    np.save(tmp_path / "movie.npy", held["movie"])
    np.savez(tmp_path / "counts.npz", counts=held["counts"])
    mapping = COUNTS | {"stimulus": {"file": "movie.npy"}}
    from_file = opened(tmp_path / "counts.npz", mapping)
    mapping["spike_count"] = {"file": "counts.npz", "dims": ["time", "cell"]}
    from_folder = opened(tmp_path, mapping)
    for rec in (from_file, from_folder):
        assert rec["train"]["stimulus"].chunks is not None
        np.testing.assert_array_equal(rec["train"]["stimulus"].values, held["movie"])
        np.testing.assert_array_equal(rec["train"]["spike_count"].values, held["counts"])


def test_described_stimulus_and_one_given_by_hand(tmp_path, held):
    path = write(tmp_path / "a", held, "h5")
    described = {
        "kind": "seeded_noise",
        "n_frames": N,
        "shape": [4, 4],
        "seed": 3,
        "bin_width": WIDTH,
    }
    rec = opened(path, COUNTS | {"stimulus": described})
    assert rec["train"]["stimulus"].shape == (N, 4, 4)
    mapping = {key: value for key, value in COUNTS.items() if key != "stimulus"}
    rec = opened(path, mapping, stimulus=held["movie"])
    np.testing.assert_array_equal(rec["train"]["stimulus"].values, held["movie"])


def test_color_and_full_field(tmp_path, held):
    rng = np.random.default_rng(1)
    colored = rng.normal(size=(2, 6, N, 4)).astype(np.float32)
    held |= {"colored": colored, "flicker": rng.normal(size=(N, 1)).astype(np.float32)}
    for kind in ("h5", "mat5", "mat73"):
        path = write(tmp_path / kind, held, kind)
        dims = ["color", "y", "time", "x"]
        rec = opened(path, COUNTS | {"stimulus": {"entry": "colored", "dims": dims}})
        assert rec["train"]["stimulus"].dims == ("time", "color", "y", "x")
        np.testing.assert_array_equal(
            rec["train"]["stimulus"].values, colored.transpose(2, 0, 1, 3)
        )
        for stimulus in ({"entry": "flicker", "dims": ["time"]}, "flicker"):
            rec = opened(path, COUNTS | {"stimulus": stimulus})
            assert rec["train"]["stimulus"].dims == ("time", "y", "x")
            np.testing.assert_array_equal(
                rec["train"]["stimulus"].values.ravel(), held["flicker"].ravel()
            )


def test_counts_by_cell_and_structs(tmp_path, held):
    by_cell = {f"cells/{c}": held["counts"][:, i] for i, c in enumerate(CELLS)}
    path = write_h5(tmp_path / "a.h5", {"movie": held["movie"]} | by_cell)
    entries = {c: f"cells/{c}" for c in CELLS}
    mapping = {"stimulus": "movie", "bin_width": WIDTH, "spike_count": {"entries": entries}}
    train = opened(path, mapping)["train"]
    np.testing.assert_array_equal(train["spike_count"].values, held["counts"])
    assert list(train["cell"].values) == CELLS
    struct = {"movie": held["movie"], "counts": held["counts"], "dt": 10.0, "ids": CELLS}
    ids = np.array(CELLS, dtype=object)
    scipy.io.savemat(tmp_path / "b.mat", {"data": struct | {"ids": ids}})
    mapping = {
        "stimulus": "data/movie",
        "spike_count": {"entry": "data/counts", "dims": ["time", "cell"]},
        "bin_width": {"entry": "data/dt", "units": "ms"},
        "cells": "data/ids",
    }
    train = opened(tmp_path / "b.mat", mapping)["train"]
    np.testing.assert_array_equal(train["spike_count"].values, held["counts"])
    assert list(train["cell"].values) == CELLS


def test_rates_and_traces_make_no_counts(tmp_path, held):
    rng = np.random.default_rng(2)
    held |= {"rates": rng.uniform(0, 50, (3, N)), "traces": rng.normal(size=(4, N, 3))}
    path = write(tmp_path / "a", held, "h5")
    shared = {key: COUNTS[key] for key in ("stimulus", "bin_width", "cells")}
    with pytest.warns(UserWarning, match="no spike counts of train"):
        node = rc.open_recording(
            path, mapping=shared | {"rate": {"entry": "rates", "dims": ["cell", "time"]}}
        )["train"]
    np.testing.assert_array_equal(node["rate"].values, held["rates"].T)
    assert node["rate"].attrs["units"] == "Hz"
    assert "spike_count" not in node
    dims = ["repeat", "time", "cell"]
    response = {"response": {"entry": "traces", "dims": dims, "units": "dF/F"}}
    with pytest.warns(UserWarning, match="no spike counts of test"):
        node = rc.open_recording(path, mapping=shared | response)["test"]
    np.testing.assert_array_equal(node["response"].values, held["traces"])
    assert node["response"].attrs["units"] == "dF/F"
    assert not {"spike_count", "rate"} & set(node.data_vars)


def test_gaps_and_numbers_of_blocks(tmp_path, held):
    held["marks"] = held["marks"] + np.repeat([0.0, 1.0], [120, 80])
    held["numbers"] = np.repeat([3, 5, 9], [60, 60, 80])
    path = write(tmp_path / "a", held, "h5")
    mapping = {k: v for k, v in COUNTS.items() if k != "bin_width"} | {"frame_times": "marks"}
    train = opened(path, mapping)["train"]
    np.testing.assert_array_equal(train["time"].values, held["marks"])
    np.testing.assert_array_equal(train["block"].values, np.repeat([0, 1], [120, 80]))
    train = opened(path, mapping | {"block": "numbers"})["train"]
    np.testing.assert_array_equal(train["block"].values, held["numbers"])
    with pytest.raises(ValueError, match="gap after bin 119, inside block 2"):
        opened(path, mapping | {"block": 4})
    numbers = np.r_[held["numbers"][:-1], 3]
    path = write(tmp_path / "b", held | {"numbers": numbers}, "h5")
    with pytest.raises(ValueError, match="returns to a number"):
        opened(path, mapping | {"block": "numbers"})


# Spike times


def expected_counts(held):
    edges = np.append(held["marks"], held["marks"][-1] + WIDTH)
    return np.stack([np.histogram(held["trains"][c], edges)[0] for c in CELLS], axis=1)


def spike_files(tmp_path, held):
    """The same trains in every form: (path, spike_times, whether the cells have names in it)."""
    trains = list(held["trains"].values())
    flat, sizes = np.concatenate(trains), np.array([len(t) for t in trains])
    common = {"movie": held["movie"], "marks": held["marks"]}
    matrix = np.full((3, sizes.max()), np.nan)
    for row, train in zip(matrix, trains, strict=True):
        row[: len(train)] = train
    mixed = np.argsort(flat, kind="stable")
    owner = np.repeat([1, 2, 10], sizes)
    arrays = common | {
        "flat": flat * 1000,
        "ends": np.cumsum(sizes),
        "sizes": sizes,
        "mixed": np.round(flat[mixed] * 20000).astype(np.int64),
        "owner": owner[mixed],
        "matrix": matrix.T,
        **{f"units/{c}/times": t for c, t in held["trains"].items()},
        **{f"group/{c}": t * 1e6 for c, t in held["trains"].items()},
    }
    h5 = write_h5(tmp_path / "a.h5", arrays)
    yield h5, {"entry": "flat", "ends": "ends", "units": "ms"}, None
    yield h5, {"entry": "flat", "sizes": "sizes", "units": "ms"}, None
    yield h5, {"entry": "matrix", "dims": ["spike", "cell"]}, None
    yield h5, {"entry": "group", "units": "us"}, CELLS
    yield h5, {"entries": {c: f"units/{c}/times" for c in CELLS}}, CELLS
    samples = {"units": "samples", "sampling_rate": 20000}
    yield h5, {"entry": "mixed", "cell_of": "owner", **samples}, ["1", "2", "10"]
    cells = np.empty(3, dtype=object)
    cells[:] = trains
    scipy.io.savemat(tmp_path / "a.mat", common | {"spikes": cells})
    yield tmp_path / "a.mat", {"entry": "spikes"}, None
    write_mat73(tmp_path / "b.mat", common | {"spikes": trains})
    yield tmp_path / "b.mat", {"entry": "spikes"}, None


def test_spike_times_in_every_form(tmp_path, held):
    counts = expected_counts(held)
    for path, spike_times, names in spike_files(tmp_path, held):
        mapping = {"stimulus": "movie", "frame_times": "marks", "spike_times": spike_times}
        if names is None:
            mapping["cells"] = CELLS
        rec = opened(path, mapping)
        train = rec["train"]
        assert list(train["cell"].values) == (names or CELLS)
        # 50 us of rounding to samples can carry a spike over an edge.
        off = 2 if spike_times.get("units") == "samples" else 0
        assert np.abs(train["spike_count"].values - counts).sum() <= off, spike_times
        np.testing.assert_array_equal(train["stimulus"].values, held["movie"])
        np.testing.assert_array_equal(rec["spikes"]["n_spikes"].values, [40, 60, 80])
        np.testing.assert_allclose(
            rec["spikes"]["spike_time"].values[:40], held["trains"]["C1"], atol=5e-5
        )
        np.testing.assert_array_equal(rec["frames"]["frame_time"].values, held["marks"])


def test_spike_times_with_a_plan_and_nodes(tmp_path, held):
    movie = np.concatenate([held["movie"][:80], held["movie"][:80], held["movie"][160:]])
    arrays = {"movie": movie, "marks": held["marks"], "other": held["marks"] + 10}
    arrays |= {f"spikes/{c}": np.r_[t, t + 10] for c, t in held["trains"].items()}
    path = write_h5(tmp_path / "a.h5", arrays)
    mapping = {
        "stimulus": "movie",
        "frame_times": "marks",
        "spike_times": "spikes",
        "plan": {"starts": [0, 80], "n_frames": 80},
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the spikes of the other stimulus
        rec = rc.open_recording(path, mapping=mapping)
        found = rc.open_recording(path, mapping=mapping | {"plan": "find"})
        frozen = rc.open_recording(
            path,
            mapping=mapping | {"plan": {"running_frames": 1, "frozen_frames": 79}},
        )
    assert rec["test"].identical(found["test"])
    assert rec["test"].sizes["repeat"] == 2
    assert frozen["test"].sizes["time"] == 79
    counts = expected_counts(held)
    np.testing.assert_array_equal(rec["test"]["spike_count"].values[1], counts[80:160])
    nodes = {"first": {"frame_times": "marks"}, "second": {"frame_times": "other"}}
    mapping = {"stimulus": "movie", "spike_times": "spikes", "nodes": nodes}
    rec = opened(path, mapping)
    np.testing.assert_array_equal(rec["first"]["spike_count"].values, counts)
    assert rec["second"]["spike_count"].sum() == rec["first"]["spike_count"].sum()


def test_regular_frames(tmp_path, held):
    path = write_h5(tmp_path / "a.h5", {"movie": held["movie"], "s": held["trains"]["C1"]})
    mapping = {
        "stimulus": "movie",
        "spike_times": "s",
        "frame_times": {"start": 0.5, "interval": WIDTH},
    }
    rec = opened(path, mapping)
    edges = 0.5 + np.arange(N + 1) * WIDTH
    np.testing.assert_array_equal(
        rec["train"]["spike_count"].values[:, 0], np.histogram(held["trains"]["C1"], edges)[0]
    )


# What is wrong is said


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"spike_cuont": "counts"}, "'spike_cuont' is no key; did you mean 'spike_count'"),
        ({"spike_count": {"entyr": "counts"}}, "'entyr' is no key; did you mean 'entry'"),
        ({"spike_count": {"entry": "count", "dims": ["time", "cell"]}}, "did you mean 'counts'"),
        ({"stimulus": "movei"}, "no entry 'movei'; did you mean 'movie'"),
        ({"spike_count": "counts"}, "say with dims"),
        ({"spike_count": {"entry": "counts", "dims": ["time", "cel"]}}, "did you mean 'cell'"),
        ({"spike_count": {"entry": "counts", "dims": ["cell", "time"]}}, "3 bins|3 ids"),
        ({"spike_count": {"entry": "counts", "dims": ["time"]}}, "name 1 axes"),
        ({"spike_count": {"entry": "counts", "dims": ["time", "time"]}}, "each name once"),
        ({"spike_count": {"entry": "counts", "dims": ["repeat", "cell"]}}, "expected 'time'"),
        ({"spike_count": {"entry": "counts", "dims": "time"}}, "expected a list of names"),
        ({"stimulus": {"entry": "movie", "dims": ["y", "time", "x"]}}, "responses have 200 bins"),
        ({"stimulus": {"entry": "movie", "dims": ["y", "t", "x"]}}, "dims: 't'"),
        ({"stimulus": None}, "expected the name of an entry"),
        ({"cells": ["C1", "C2"]}, "2 ids of cells, but 3 cells"),
        ({"cells": ["C1", "C2", "C2"]}, "two cells have the id 'C2'"),
        ({"cells": []}, "holds no cells"),
        ({"bin_width": 10}, "10 s is no bin of a display"),
        ({"bin_width": {"value": 10, "units": "msec"}}, "did you mean 'ms'"),
        ({"bin_width": {"units": "ms"}}, "one of value and entry"),
        ({"frame_times": "marks", "bin_width": 0.02}, r"bin_width=0\.02 s, but"),
        ({"frame_times": "short"}, "199 frame_times but 200 bins"),
        ({"block": 7}, "no 7 blocks of equal length"),
        ({"repeat_onset": "marks"}, "no dim 'repeat'"),
        ({"spike_times": "marks"}, "both spike_times and spike_count"),
        ({"nodes": {}}, "expected a mapping for each node"),
        ({"nodes": {"frames": {}}}, "a stimulus is called 'frames'"),
        ({"nodes": {"a": {"stimulus": {"entry": "x", "dim": 1}}}}, "mapping: a: stimulus: 'dim'"),
        ({"spike_count": {"file": "nothing.npz"}}, "'nothing.npz' does not exist"),
        ({"spike_count": {"entry": "halves", "dims": ["time", "cell"]}}, "not whole numbers"),
        ({"spike_count": {"entry": "nan", "dims": ["time", "cell"]}}, "NaN"),
        ({"stimulus": "nanmovie"}, r"stimulus .*1 NaN .*time=7"),
        ({"spike_count": {"entries": {"C1": "one", "C2": "short"}}, "cells": None}, "cell 'C2'"),
        ({"spike_count": {"entry": "words", "dims": ["time"]}}, "expected an array of numbers"),
    ],
)
def test_wrong_mappings(tmp_path, held, change, match):
    held |= {
        "short": held["marks"][:-1],
        "one": held["counts"][:, 0],
        "halves": held["counts"] + 0.5,
        "nan": np.where(held["counts"] > 3, np.nan, held["counts"] * 1.0),
        "nanmovie": held["movie"].astype(float),
    }
    held["nan"][3, 1] = held["nanmovie"][7, 1, 1] = np.nan
    path = write(tmp_path / "a", held, "h5")
    with h5py.File(path, "r+") as file:
        file["words"] = ["a"] * N
    mapping = {k: v for k, v in (COUNTS | change).items() if not (k == "cells" and v is None)}
    with pytest.raises((ValueError, FileNotFoundError), match=match) as caught:
        opened(path, mapping)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"frame_times": None}, "need frame_times"),
        ({"frame_times": {"interval": 0.01, "entry": "marks"}}, "start and interval"),
        ({"frame_times": {"entry": "marks", "units": "us"}}, "every 1e-08 s .*another unit"),
        ({"spike_times": {"entry": "flat", "ends": "ends", "sizes": "sizes"}}, "expected one of"),
        ({"spike_times": {"entry": "flat", "ends": "sizes"}}, "index ends at|index of the cells"),
        ({"spike_times": {"entry": "flat", "cell_of": "sizes"}}, "3 entries for 180 spikes"),
        ({"spike_times": {"entry": "flat", "ends": "ends", "units": "samples"}}, "sampling_rate"),
        ({"spike_times": {"entry": "group", "sampling_rate": 5}}, "goes with units: samples"),
        ({"spike_times": {"entry": "matrix"}}, "say with dims"),
        (
            {"spike_times": {"entry": "holes", "dims": ["cell", "spike"]}},
            "spike 0 of cell 0 is NaN",
        ),
        ({"spike_times": {"entry": "flat", "ends": "ends", "units": "s"}}, "milliseconds"),
        ({"spike_times": "backward"}, "must ascend"),
        ({"block": 2}, "block goes with counts in bins"),
        ({"plan": {"running_frames": 5}}, "running_frames and frozen_frames, or starts"),
        ({"nodes": {"a": {"spike_times": "group"}, "b": {}}}, "same for all nodes"),
        ({"cells": ["C1"]}, "1 ids of cells, but 3 cells"),
    ],
)
def test_wrong_mappings_of_spike_times(tmp_path, held, change, match):
    trains = list(held["trains"].values())
    arrays = {
        "movie": held["movie"],
        "marks": held["marks"],
        "flat": np.concatenate(trains) * 1000,
        "ends": np.array([40, 100, 180]),
        "sizes": np.array([40, 60, 80]),
        "matrix": np.ones((2, 3)),
        "holes": np.array([[np.nan, 1.0, 2.0]]),
        "backward": trains[0][::-1].copy(),
        **{f"group/{c}": t for c, t in held["trains"].items()},
    }
    path = write_h5(tmp_path / "a.h5", arrays)
    base = {
        "stimulus": "movie",
        "frame_times": "marks",
        "spike_times": {"entry": "flat", "ends": "ends", "units": "ms"},
    }
    mapping = {key: value for key, value in (base | change).items() if value is not None}
    with pytest.raises(ValueError, match=match):
        opened(path, mapping)


def test_mappings_that_are_none(tmp_path, held):
    path = write(tmp_path / "a", held, "h5")
    with pytest.raises(ValueError, match="mapping was not given"):
        rc.open_recording(path, format="mapped")
    with pytest.raises(TypeError, match="mapping is a list"):
        rc.open_recording(path, mapping=["movie"])
    with pytest.raises(FileNotFoundError, match="is no file"):
        rc.open_recording(path, mapping=tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1\nb: }")
    with pytest.raises(ValueError, match=r"bad\.yaml is no YAML"):
        rc.open_recording(path, mapping=tmp_path / "bad.yaml")
    with pytest.raises(ValueError, match="no responses; expected one of spike_count"):
        opened(path, {"stimulus": "movie"})
    with pytest.raises(ValueError, match="no stimulus"):
        opened(path, {"spike_count": COUNTS["spike_count"], "bin_width": WIDTH})
    with pytest.raises(ValueError, match="neither frame_times nor bin_width"):
        opened(path, {key: COUNTS[key] for key in ("stimulus", "spike_count")})
    with pytest.raises(ValueError, match="plan was given, but the mapping has counts"):
        opened(path, COUNTS, plan="find")


@pytest.mark.parametrize("kind", KINDS)
def test_truncated_files(tmp_path, held, kind):
    path = write(tmp_path / "a", held, kind)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises(OSError, match=r"cut off|damaged|readable|truncated") as caught:
        opened(path, COUNTS)["train"]["stimulus"].values.sum()
    assert "\n" not in str(caught.value)


def test_python_objects_are_not_unpickled(tmp_path, held):
    np.savez(tmp_path / "a.npz", movie=held["movie"], counts=np.array([{"a": 1}], dtype=object))
    with pytest.raises((OSError, ValueError), match=r"objects|Object"):
        opened(tmp_path / "a.npz", COUNTS)


def test_a_kind_of_file_that_nothing_reads(tmp_path):
    (tmp_path / "a.doc").write_text("hello")
    with pytest.raises(ValueError, match="of no kind that a mapping can read"):
        opened(tmp_path / "a.doc", COUNTS)
