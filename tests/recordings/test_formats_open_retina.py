"""HDF5 files of open-retina: one session, its stimuli inside or beside it."""

import json
import warnings

import h5py
import numpy as np
import pytest

import retina_codec as rc

WIDTH = 1 / 30
N_CELLS = 4


def session(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "stimulus_random_noise_1": rng.integers(0, 256, (3, 50, 16, 8), dtype=np.uint8),
        "stimulus_random_noise_2": rng.normal(size=(1, 40, 16, 8)).astype(np.float32),
        "responses_random_noise_1": rng.poisson(1.3, (N_CELLS, 50)),
        "responses_random_noise_2": rng.normal(size=(N_CELLS, 40)),
        "session_info/animal": "mouse",
        "session_info/roi_ids": np.array([12, 3, 44, 5]),
    }


def write(path, held):
    with h5py.File(path, "w") as file:
        for name, values in held.items():
            file[name] = values
    return path


def opened(path, *, bin_width=WIDTH, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return rc.open_recording(path, bin_width=bin_width, **options)


def test_every_value_stands_where_it_belongs(tmp_path):
    held = session()
    path = write(tmp_path / "session_1.h5", held)
    with pytest.warns(UserWarning, match="no spike counts of random_noise_2"):
        rec = rc.open_recording(path, bin_width=WIDTH)
    assert rec.attrs["source_format"] == "open_retina"
    assert set(rec.children) == {"random_noise_1", "random_noise_2"}
    colored, plain = rec["random_noise_1"], rec["random_noise_2"]
    assert colored["stimulus"].dims == ("time", "color", "y", "x")
    assert colored["stimulus"].chunks is not None
    np.testing.assert_array_equal(
        colored["stimulus"].values, held["stimulus_random_noise_1"].transpose(1, 0, 2, 3)
    )
    np.testing.assert_array_equal(colored["spike_count"].values, held["responses_random_noise_1"].T)
    assert colored["spike_count"].dtype == np.int32
    assert colored["rate"].attrs["units"] == "Hz"
    np.testing.assert_allclose(colored["time"].values, np.arange(50) / 30)
    assert colored["time"].attrs["bin_width"] == pytest.approx(WIDTH)
    # One channel is no colour; traces are no counts, and none are made of them.
    assert plain["stimulus"].dims == ("time", "y", "x")
    np.testing.assert_array_equal(plain["stimulus"].values, held["stimulus_random_noise_2"][0])
    np.testing.assert_array_equal(plain["response"].values, held["responses_random_noise_2"].T)
    assert not {"spike_count", "rate"} & set(plain.data_vars)
    assert list(plain["cell"].values) == ["12", "3", "44", "5"]
    assert json.loads(rec.attrs["session_info"]) == {"animal": "mouse"}


def test_stimuli_beside_the_file(tmp_path):
    held = session()
    inside = opened(write(tmp_path / "a.h5", held))
    other = tmp_path / "elsewhere"
    (other / "stimuli").mkdir(parents=True)
    for name in ("random_noise_1", "random_noise_2"):
        np.save(other / "stimuli" / f"{name}.npy", held.pop(f"stimulus_{name}"))
    write(other / "b.hdf5", held)
    for path in (other, other / "b.hdf5"):
        beside = opened(path)
        for name in inside.children:
            assert beside[name]["stimulus"].chunks is not None
            np.testing.assert_array_equal(
                beside[name]["stimulus"].values, inside[name]["stimulus"].values
            )


def test_trials_are_repeats(tmp_path):
    held = session()
    held["responses_random_noise_1"] = np.random.default_rng(1).poisson(1.0, (6, N_CELLS, 50))
    rec = opened(write(tmp_path / "a.h5", held))
    counts = rec["random_noise_1"]["spike_count"]
    assert counts.dims == ("repeat", "time", "cell")
    np.testing.assert_array_equal(
        counts.values, held["responses_random_noise_1"].transpose(0, 2, 1)
    )


def test_cells_are_chosen(tmp_path):
    held = session()
    rec = opened(write(tmp_path / "a.h5", held), cells=[44, 12])
    np.testing.assert_array_equal(
        rec["random_noise_1"]["spike_count"].values, held["responses_random_noise_1"][[2, 0]].T
    )


def test_the_clock_must_be_said(tmp_path):
    held = session()
    with pytest.raises(ValueError, match=r"bin_width was not given.*1/30"):
        rc.open_recording(write(tmp_path / "a.h5", held))
    held["session_info/frame_rate"] = 75.0
    path = write(tmp_path / "a.h5", held)
    rec = opened(path, bin_width=None)
    assert rec["random_noise_1"]["time"].attrs["bin_width"] == pytest.approx(1 / 75)
    with pytest.raises(ValueError, match=r"bin_width=0.0333333 s, but"):
        opened(path)
    with pytest.raises(ValueError, match=r"bin_width=33.3 s is no bin of a display"):
        opened(write(tmp_path / "b.h5", session()), bin_width=33.3)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"stimulus_random_noise_1": None}, "did you mean 'stimulus_random_noise_2'"),
        ({"stimulus_random_noise_1": np.zeros((50, 3, 16, 8))}, "50 channels.*another order"),
        ({"stimulus_random_noise_1": np.zeros((50, 16, 8))}, "dims"),
        ({"stimulus_random_noise_2": np.full((1, 40, 16, 8), np.nan)}, "stimulus .* NaN"),
        ({"responses_random_noise_1": np.ones((N_CELLS, 51))}, "51 bins but the stimulus only 50"),
        ({"responses_random_noise_1": np.ones((N_CELLS, 40))}, "more than a loose end"),
        ({"responses_random_noise_1": np.ones((3, 50))}, "different numbers of cells"),
        ({"responses_random_noise_1": np.ones(50)}, r"expected \(cell, time\)"),
        ({"responses_random_noise_1": np.zeros((N_CELLS, 50))}, "none of the 4 cells has a spike"),
        ({"responses_random_noise_2": np.full((N_CELLS, 40), np.nan)}, "NaN or infinite"),
        ({"session_info/roi_ids": np.array([1, 2, 2, 3])}, "two cells have the id '2'"),
    ],
)
def test_wrong_contents(tmp_path, change, match):
    held = {k: v for k, v in (session() | change).items() if v is not None}
    path = write(tmp_path / "a.h5", held)
    with pytest.raises(ValueError, match=match):
        opened(path)


def test_no_cells(tmp_path):
    held = {"stimulus_a": np.zeros((1, 9, 2, 2)), "responses_a": np.zeros((0, 9))}
    with pytest.raises(ValueError, match="holds no cells"):
        opened(write(tmp_path / "a.h5", held))


def test_names_the_tree_needs_for_itself(tmp_path):
    held = {"stimulus_spikes": np.zeros((1, 9, 2, 2)), "responses_spikes": np.ones((2, 9))}
    with pytest.raises(ValueError, match="a stimulus is called 'spikes'"):
        opened(write(tmp_path / "a.h5", held))


def test_several_sessions_in_a_folder(tmp_path):
    for name in ("a.h5", "b.h5"):
        write(tmp_path / name, session())
    with pytest.raises(ValueError, match=r"2 sessions \(a\.h5, b\.h5\)"):
        opened(tmp_path)


def test_truncated_and_foreign_files(tmp_path):
    path = write(tmp_path / "a.h5", session())
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(OSError, match="cut off or damaged"):
        opened(path, format="open_retina")
    with h5py.File(path, "w") as file:
        file["response_a"] = np.zeros((2, 5))
    with pytest.raises(ValueError, match="holds no array responses_<stimulus>"):
        opened(path, format="open_retina")
