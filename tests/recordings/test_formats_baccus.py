"""HDF5 files of the Baccus laboratory: ganglion cells, and interneurons."""

import pickle
import tracemalloc
import warnings

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import retina_codec as rc

N_TRAIN, N_TEST, N_REPEATS, WIDTH = 240, 60, 5, 0.01
CELLS = [f"cell{i}" for i in range(1, 12)]  # cell10 comes after cell9, not after cell1


def content(seed=0):
    """Everything that a file of ganglion cells holds, spikes included."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(0.3, (len(CELLS), N_TRAIN))
    spikes = {}
    for cell, row in zip(CELLS, counts, strict=True):
        bins = np.repeat(np.arange(N_TRAIN), row)
        spikes[cell] = np.sort((bins + rng.uniform(0.1, 0.9, len(bins))) * WIDTH) + 3.0
    repeats = rng.poisson(0.4, (len(CELLS), N_REPEATS, N_TEST))
    rates = rng.uniform(0, 80, (len(CELLS), N_TRAIN))
    return {
        "train/stimulus": rng.integers(0, 256, (N_TRAIN, 50, 50), dtype=np.uint8),
        "train/time": 3.0 + np.arange(N_TRAIN) * WIDTH,
        "train/response/binned": counts.astype(float),
        "train/response/firing_rate_5ms": rates / 2,
        "train/response/firing_rate_10ms": rates,
        "train/response/firing_rate_20ms": rates * 2,
        "test/stimulus": rng.integers(0, 256, (N_TEST, 50, 50), dtype=np.uint8),
        "test/time": 100.0 + np.arange(N_TEST) * WIDTH,
        "test/response/firing_rate_10ms": rng.uniform(0, 80, (len(CELLS), N_TEST)),
        **{f"test/repeats/{cell}": repeats[i].astype(float) for i, cell in enumerate(CELLS)},
        **{f"train/stas/{cell}": rng.normal(size=(4, 3, 3)) for cell in CELLS},
        **{f"spikes/{cell}": times for cell, times in spikes.items()},
    }


def write(path, held, *, without=(), attrs=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in held.items():
            if not any(name.startswith(start) for start in without):
                file[name] = values
        for name, value in (attrs or {}).items():
            file["train"].attrs[name] = value
    return path


def opened(path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return rc.open_recording(path, **options)


@pytest.fixture
def held():
    return content()


def test_every_value_stands_where_it_belongs(tmp_path, held):
    rec = opened(write(tmp_path / "naturalscene.h5", held))
    assert rec.attrs["source_format"] == "baccus"
    train, test = rec["train"], rec["test"]
    assert list(train["cell"].values) == CELLS
    assert train["stimulus"].dims == ("time", "y", "x")
    assert train["stimulus"].dtype == np.float32
    np.testing.assert_array_equal(train["stimulus"].values, held["train/stimulus"])
    np.testing.assert_array_equal(train["spike_count"].values, held["train/response/binned"].T)
    assert train["spike_count"].dtype == np.int32
    np.testing.assert_array_equal(train["time"].values, held["train/time"])
    assert train["time"].attrs["bin_width"] == pytest.approx(WIDTH, rel=1e-9)
    assert not train["block"].values.any()
    np.testing.assert_array_equal(test["stimulus"].values, held["test/stimulus"])
    assert test["spike_count"].dims == ("repeat", "time", "cell")
    for i, cell in enumerate(CELLS):
        np.testing.assert_array_equal(
            test["spike_count"].sel(cell=cell).values, held[f"test/repeats/{cell}"]
        )
        times = rec["spikes"]["spike_time"].values
        start = int(rec["spikes"]["n_spikes"].values[:i].sum())
        own = held[f"spikes/{cell}"]
        np.testing.assert_array_equal(times[start : start + len(own)], own)
    assert test["time"].values[0] == 0
    assert train["rate"].attrs["units"] == "Hz"


def test_the_movie_stays_in_the_file(tmp_path, held):
    path = write(tmp_path / "naturalscene.h5", held)
    rec = opened(path)
    movie = rec["train"]["stimulus"]
    assert movie.chunks is not None
    # Nothing is open: the file can be written to, and the movie goes to other processes.
    with h5py.File(path, "r+") as file:
        file["train/stimulus"][7, 2, 3] = 201
    again = pickle.loads(pickle.dumps(movie))
    assert float(again[7, 2, 3]) == 201


def test_opening_reads_nothing_large(tmp_path):
    n = 40_000
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("train/stimulus", (n, 50, 50), np.uint8, chunks=(100, 50, 50))
        file["train/stimulus"][n - 1] = 7
        file["train/time"] = np.arange(n) * WIDTH
        file["train/response/binned"] = np.ones((2, n), np.uint8)
    opened(tmp_path / "a.h5")
    tracemalloc.start()
    movie = opened(tmp_path / "a.h5")["train"]["stimulus"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert movie.nbytes == 400_000_000
    assert peak < 20_000_000
    assert float(movie[-1].mean()) == 7


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(places=st.lists(st.integers(0, 40_000), min_size=1, max_size=40), value=st.integers(0, 255))
def test_damaged_bytes_never_give_another_error(tmp_path, held, places, value):
    path = tmp_path / "a.h5"
    small = {k: v[..., :5, :5] if k.endswith("stimulus") else v for k, v in held.items()}
    data = bytearray(write(path, small).read_bytes())
    for place in places:
        data[place % len(data)] ^= value
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            rc.open_recording(path, format="baccus")
        except (OSError, ValueError) as error:
            assert "\n" not in str(error)


def test_repeats_by_the_name_of_the_response(tmp_path, held):
    stacked = np.stack([held[f"test/repeats/{cell}"] for cell in CELLS], axis=1)
    by_array = {k: v for k, v in held.items() if not k.startswith("test/repeats")}
    by_group = dict(by_array)
    by_array["test/repeats/binned"] = stacked
    by_array["test/repeats/firing_rate_10ms"] = stacked * 33.3
    for cell in CELLS:
        by_group[f"test/repeats/binned/{cell}"] = held[f"test/repeats/{cell}"]
    plain = opened(write(tmp_path / "a.h5", held))["test"]["spike_count"]
    for name, other in (("b.h5", by_array), ("c.h5", by_group)):
        found = opened(write(tmp_path / name, other))["test"]["spike_count"]
        assert found.identical(plain)


@pytest.mark.parametrize("per_spike", [33.3, 100.0])
def test_repeats_of_rates_are_no_counts(tmp_path, held, per_spike):
    # Rates of single bins of 10 ms are whole numbers, too: multiples of 100 Hz.
    for cell in CELLS:
        held[f"test/repeats/{cell}"] = held[f"test/repeats/{cell}"] * per_spike
    with pytest.warns(UserWarning, match="rates of single repeats"):
        test = rc.open_recording(write(tmp_path / "a.h5", held))["test"]
    assert "spike_count" not in test
    assert test["response"].dims == ("repeat", "time", "cell")
    assert test["response"].attrs["units"] == "Hz"
    np.testing.assert_allclose(
        test["response"].sel(cell="cell10").values, held["test/repeats/cell10"]
    )
    np.testing.assert_allclose(
        test["rate"].sel(cell="cell3").values, held["test/repeats/cell3"].mean(axis=0)
    )
    assert "no spike counts" in test.attrs["responses"]


def test_rates_alone_stay_rates(tmp_path, held):
    path = write(tmp_path / "a.h5", held, without=["train/response/binned", "test/repeats"])
    with (
        pytest.warns(UserWarning, match="no spike counts of train"),
        pytest.warns(UserWarning, match="no spike counts of test"),
    ):
        rec = rc.open_recording(path)
    assert "spike_count" not in rec["train"]
    np.testing.assert_array_equal(
        rec["train"]["rate"].values, held["train/response/firing_rate_10ms"].T
    )
    np.testing.assert_array_equal(
        rec["test"]["rate"].values, held["test/response/firing_rate_10ms"].T
    )


def test_cells_are_chosen_in_order(tmp_path, held):
    rec = opened(write(tmp_path / "a.h5", held), cells=["cell10", "cell2"])
    np.testing.assert_array_equal(
        rec["train"]["spike_count"].values, held["train/response/binned"][[9, 1]].T
    )
    np.testing.assert_array_equal(
        rec["test"]["spike_count"].values[..., 0], held["test/repeats/cell10"]
    )
    assert list(rec["spikes"]["cell"].values) == ["cell10", "cell2"]


def test_cells_without_names_are_numbered(tmp_path, held):
    path = write(tmp_path / "a.h5", held, without=["test", "spikes", "train/stas"])
    assert list(opened(path)["train"]["cell"].values[[0, 10]]) == ["cell01", "cell11"]


# Blocks of the training movie


def test_blocks_from_gaps_in_time(tmp_path, held):
    held["train/time"] = held["train/time"] + np.repeat([0.0, 2.0, 5.0], 80)
    rec = opened(write(tmp_path / "a.h5", held, without=["spikes"]))
    np.testing.assert_array_equal(rec["train"]["block"].values, np.repeat([0, 1, 2], 80))
    np.testing.assert_array_equal(rec["train"]["time"].values, held["train/time"])


def test_blocks_whose_time_starts_anew_are_laid_end_to_end(tmp_path, held):
    held["train/time"] = np.tile(held["train/time"][:80], 3)
    path = write(tmp_path / "a.h5", held, without=["spikes"])
    with pytest.warns(UserWarning, match="starts anew after bins 79, 159"):
        train = rc.open_recording(path)["train"]
    np.testing.assert_array_equal(train["block"].values, np.repeat([0, 1, 2], 80))
    np.testing.assert_allclose(train["time"].values, 3.0 + np.arange(240) * WIDTH, atol=1e-9)


def test_blocks_from_mapping_attribute_and_known_experiment(tmp_path, held):
    path = write(tmp_path / "a.h5", held)
    rec = opened(path, format="baccus", mapping={"blocks": {"train": 4}})
    np.testing.assert_array_equal(rec["train"]["block"].values, np.repeat(np.arange(4), 60))
    rec = opened(write(tmp_path / "b.h5", held, attrs={"n_blocks": 3}))
    np.testing.assert_array_equal(rec["train"]["block"].values, np.repeat(np.arange(3), 80))
    path = write(tmp_path / "15-10-07" / "whitenoise.h5", held)
    with pytest.warns(UserWarning, match="6 blocks"):
        rec = rc.open_recording(path)
    np.testing.assert_array_equal(rec["train"]["block"].values, np.repeat(np.arange(6), 40))
    with pytest.raises(ValueError, match="240 bins are no 7 blocks of equal length"):
        rc.open_recording(path, format="baccus", mapping={"blocks": {"train": 7}})
    with pytest.raises(ValueError, match="did you mean 'train'"):
        rc.open_recording(path, format="baccus", mapping={"blocks": {"trian": 7}})
    with pytest.raises(ValueError, match="can only say how many blocks"):
        rc.open_recording(path, format="baccus", mapping={"stimulus": "train/stimulus"})


def test_nothing_smooths_across_a_seam(tmp_path, held):
    held["train/response/binned"][:] = 0
    held["train/response/binned"][:, 119] = 1
    path = write(tmp_path / "a.h5", held, without=["spikes"])
    rate = opened(path, format="baccus", mapping={"blocks": {"train": 2}})["train"]["rate"]
    assert rate.values[119].min() > 10
    assert not rate.values[120:].any()


def test_spikes_on_another_clock_are_told(tmp_path, held):
    for cell in CELLS:
        held[f"spikes/{cell}"] = held[f"spikes/{cell}"] + 0.5
    with pytest.warns(UserWarning, match="not on the clock of 'train'"):
        rec = rc.open_recording(write(tmp_path / "a.h5", held))
    assert "not on the clock" in rec.attrs["notes"]


@pytest.mark.parametrize("factor", [1000.0, 100.0, 1e-3])
@pytest.mark.parametrize("only_rates", [False, True])
def test_spikes_in_another_unit_are_left_out_and_told(tmp_path, held, factor, only_rates):
    for cell in CELLS:
        held[f"spikes/{cell}"] = held[f"spikes/{cell}"] * factor
    without = ["train/response/binned"] if only_rates else []
    path = write(tmp_path / "a.h5", held, without=without)
    with pytest.warns(UserWarning, match="spike times of 'spikes' are left out: .* of 'train'"):
        rec = rc.open_recording(path)
    assert "spikes" not in rec.children
    assert "are left out" in rec.attrs["notes"]
    assert ("rate" if only_rates else "spike_count") in rec["train"]


def test_spikes_on_a_shifted_clock_stay_seconds(tmp_path, held):
    for cell in CELLS:
        held[f"spikes/{cell}"] = held[f"spikes/{cell}"] + 0.5
    with pytest.warns(UserWarning, match="spike times of node 'spikes' are not on the clock"):
        rec = rc.open_recording(write(tmp_path / "a.h5", held))
    np.testing.assert_array_equal(
        rec["spikes"]["spike_time"].values, np.concatenate([held[f"spikes/{c}"] for c in CELLS])
    )


# What is wrong is said


def refused(tmp_path, held, error, match, **options):
    path = write(tmp_path / "bad.h5", held)
    with pytest.raises(error, match=match):
        rc.open_recording(path, **options)


def test_truncated_file(tmp_path, held):
    path = write(tmp_path / "a.h5", held)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    for options in ({"format": "baccus"}, {}):
        with pytest.raises(OSError, match="cut off or damaged") as error:
            rc.open_recording(path, **options)
        assert "\n" not in str(error.value)
    path.write_bytes(b"not HDF5 at all")
    for options in ({"format": "baccus"}, {}):
        with pytest.raises(OSError, match="is no HDF5 file, or one that is cut off or damaged"):
            rc.open_recording(path, **options)


@pytest.mark.parametrize("suffix", [".h5", ".hdf5", ".nwb", ".nix", ".nc", ".session"])
@pytest.mark.parametrize("kept", [0.2, 0.5, 0.95])
def test_any_truncated_file_says_so_without_its_format(tmp_path, held, suffix, kept):
    path = tmp_path / f"a{suffix}"
    data = write(tmp_path / "whole.h5", held).read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(OSError, match=r"cut off|damaged"):
        rc.open_recording(path)
    path.write_bytes(data[len(data) // 2 :])  # no first bytes either
    if suffix != ".session":
        with pytest.raises(OSError, match=r"cut off|damaged"):
            rc.open_recording(path)


def test_wrong_names_offer_the_nearest(tmp_path, held):
    renamed = {k.replace("/response/", "/responses/"): v for k, v in held.items()}
    refused(tmp_path, renamed, ValueError, "did you mean 'responses'", format="baccus")
    renamed = {k.replace("train/stimulus", "train/stimuli"): v for k, v in held.items()}
    refused(tmp_path, renamed, ValueError, "did you mean 'stimuli'", format="baccus")
    renamed = {f"{k[0].upper()}{k[1:]}": v for k, v in held.items()}
    refused(tmp_path, renamed, ValueError, "did you mean 'Train'", format="baccus")
    renamed = {k.replace("binned", "bined").replace("firing_", "fire_"): v for k, v in held.items()}
    refused(tmp_path, renamed, ValueError, "holds none of binned", format="baccus")


def test_a_file_of_another_layout_is_refused_with_the_reason(tmp_path, held):
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file["recording/spikes"] = np.arange(5.0)
    with pytest.raises(ValueError, match="no known layout"):
        rc.open_recording(path)
    with pytest.raises(ValueError, match="neither a group 'train' nor 'test'"):
        rc.open_recording(path, format="baccus")
    with pytest.raises(ValueError, match="holds none of boxes"):
        rc.open_recording(path, format="baccus_interneurons")


def test_stimulus_with_nan(tmp_path, held):
    held["train/stimulus"] = held["train/stimulus"].astype(np.float32)
    held["train/stimulus"][100, 4, 5] = np.nan
    match = r"stimulus .*1 NaN.*time=100, y=4, x=5"
    refused(tmp_path, held, ValueError, match)


def test_repeats_of_unequal_length(tmp_path, held):
    held["test/repeats/cell7"] = held["test/repeats/cell7"][:, :-1]
    refused(tmp_path, held, ValueError, r"repeats/cell7 has shape \(5, 59\).*leave this cell out")
    others = [cell for cell in CELLS if cell != "cell7"]
    rec = opened(tmp_path / "bad.h5", cells=others)
    assert rec["test"]["spike_count"].shape == (5, 60, 10)
    held["test/repeats/cell7"] = np.zeros((4, N_TEST))
    refused(tmp_path, held, ValueError, r"repeats/cell7 has shape \(4, 60\)")


def test_responses_longer_than_the_stimulus(tmp_path, held):
    held["train/response/binned"] = np.ones((len(CELLS), N_TRAIN + 1))
    refused(tmp_path, held, ValueError, "train: the responses have 241 bins but the stimulus only")


def test_a_loose_end_of_the_stimulus_is_cut_and_told(tmp_path, held):
    held["train/response/binned"] = held["train/response/binned"][:, :-2]
    path = write(tmp_path / "a.h5", held, without=["spikes"])
    with pytest.warns(UserWarning, match=r"frames 238\.\.239 of the stimulus are not used"):
        assert rc.open_recording(path)["train"].sizes["time"] == 238
    held["train/response/binned"] = held["train/response/binned"][:, :100]
    refused(tmp_path, held, ValueError, "more than a loose end")


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("train/time", np.arange(N_TRAIN - 1) * WIDTH, "239 times but the stimulus 240"),
        ("train/time", np.arange(N_TRAIN) * 10.0, "every 10 s .*another unit"),
        ("train/time", np.r_[np.nan, np.arange(N_TRAIN - 1)] * WIDTH, "time of bin 0 is nan"),
        ("train/stimulus", np.zeros((N_TRAIN, 2500), np.uint8), r"expected \(frame, y, x\)"),
        ("train/response/binned", np.zeros((11, N_TRAIN)), "none of the 11 cells has a spike"),
        ("train/response/binned", np.zeros((10, N_TRAIN)), "has 10 cells but test/response 11"),
        ("train/response/binned", np.ones(N_TRAIN), r"expected \(cell, frame\)"),
        ("train/response/binned", np.full((11, N_TRAIN), 30), "3000 spikes a second"),
        ("test/response/firing_rate_10ms", np.ones((4, N_TEST)), "train/response has 11 cells"),
        ("spikes/cell3", np.array([2.0, 1.0]), "cell 'cell3'.*must ascend"),
    ],
)
def test_wrong_contents(tmp_path, held, name, value, match):
    held[name] = value
    refused(tmp_path, held, ValueError, match)


def test_zero_cells_and_unknown_cells(tmp_path, held):
    refused(tmp_path, held, ValueError, "no cell 'cell99'; did you mean", cells=["cell99"])
    empty = {"train/stimulus": held["train/stimulus"], "train/time": held["train/time"]}
    empty["train/response/binned"] = np.zeros((0, N_TRAIN))
    refused(tmp_path, empty, ValueError, "holds no cells")


def test_names_that_do_not_agree(tmp_path, held):
    held["spikes/cell12"] = held.pop("spikes/cell11")
    refused(tmp_path, held, ValueError, "spikes has no 'cell11'.*did you mean 'cell1")
    unnamed = {k: v for k, v in held.items() if not k.startswith(("test/repeats", "train/stas"))}
    unnamed["spikes/cell13"] = np.array([1.0])
    refused(tmp_path, unnamed, ValueError, "response has 11 rows.*spikes: 12.*cannot be told")


def test_cells_that_have_spikes_only_are_left_out(tmp_path, held):
    held["spikes/cell12"] = np.array([4.0])
    rec = opened(write(tmp_path / "a.h5", held))
    assert list(rec["spikes"]["cell"].values) == CELLS


def test_bin_width_must_agree(tmp_path, held):
    path = write(tmp_path / "a.h5", held)
    assert opened(path, bin_width=0.0101)["train"]["time"].attrs["bin_width"] == 0.0101
    with pytest.raises(ValueError, match=r"bin_width=0\.02 s, but"):
        rc.open_recording(path, bin_width=0.02)


# Interneurons


def interneurons(seed=1):
    rng = np.random.default_rng(seed)

    def potential(n):
        return rng.normal(size=(3, n))

    return {
        "boxes/stimuli": rng.integers(0, 2, (90, 38, 38)),
        "boxes/detrended_membrane_potential": potential(90),
        "lines/stimuli": rng.normal(size=(70, 76)),
        "lines/detrended_membrane_potential": potential(70),
        "flashes/stimuli": rng.uniform(-1, 1, 50),
        "flashes/detrended_membrane_potential": potential(50),
        "movingbar/stimuli": rng.normal(size=(12, 228)),
        "movingbar/detrended_membrane_potential": potential(60),
    }


def padded(frames):
    spare = 50 - frames.shape[1]
    widths = (spare // 2, spare - spare // 2)
    return np.pad(frames, ((0, 0), widths, widths))


def test_all_four_kinds_come_to_one_screen(tmp_path):
    held = interneurons()
    with pytest.warns(UserWarning, match="38 x 38 pixels centred"):
        rec = rc.open_recording(write(tmp_path / "bipolars_late_2012.h5", held))
    assert rec.attrs["source_format"] == "baccus_interneurons"
    assert set(rec.children) == {"boxes", "lines", "flashes", "movingbar"}
    lines = held["lines/stimuli"].reshape(70, 38, 2).mean(axis=2)
    bar = np.repeat(held["movingbar/stimuli"].reshape(12, 38, 6).mean(axis=2), 5, axis=0)
    expected = {
        "boxes": 2.0 * held["boxes/stimuli"] - 1,
        "lines": np.broadcast_to(lines[:, None, :], (70, 38, 38)),
        "flashes": np.broadcast_to(held["flashes/stimuli"][:, None, None], (50, 38, 38)),
        "movingbar": np.broadcast_to(bar[:, :, None], (60, 38, 38)),
    }
    for kind, frames in expected.items():
        node = rec[kind]
        assert node["stimulus"].shape == (len(frames), 50, 50)
        assert node["stimulus"].dims == ("time", "y", "x")
        assert node["stimulus"].chunks is not None
        np.testing.assert_allclose(node["stimulus"].values, padded(frames), atol=1e-6)
        assert node["potential"].dims == ("time", "interneuron")
        assert node["potential"].attrs["units"] == "mV"
        np.testing.assert_array_equal(
            node["potential"].values, held[f"{kind}/detrended_membrane_potential"].T
        )
        assert node["time"].attrs["bin_width"] == 0.01
        assert list(node["interneuron"].values) == ["0", "1", "2"]
        assert "spike_count" not in node


def test_boxes_that_are_whole_and_signed_stay_as_they_are(tmp_path):
    rng = np.random.default_rng(0)
    frames = rng.choice([-1.0, 1.0], (40, 50, 50))
    held = {"boxes/stimuli": frames, "boxes/detrended_membrane_potential": rng.normal(size=(2, 40))}
    rec = opened(write(tmp_path / "a.h5", held))
    np.testing.assert_array_equal(rec["boxes"]["stimulus"].values, frames)


@pytest.mark.parametrize("dtype", [np.int8, np.float64])
def test_signed_boxes_stay_as_they_are_after_a_grey_lead_in(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr("retina_codec.stimuli.lazy.CHUNK_BYTES", 50 * 50 * 4 * 64)
    rng = np.random.default_rng(0)
    frames = rng.choice(np.array([-1, 1], dtype), (400, 50, 50))
    frames[:250] = 0
    held = {
        "boxes/stimuli": frames,
        "boxes/detrended_membrane_potential": rng.normal(size=(2, 400)),
    }
    boxes = opened(write(tmp_path / "a.h5", held))["boxes"]["stimulus"]
    assert len(boxes.chunks[0]) > 1
    np.testing.assert_array_equal(boxes.values, frames)
    # 0 and 1 that come late are 0 and 1 still
    held["boxes/stimuli"] = (frames > 0).astype(dtype)
    with pytest.warns(UserWarning, match="0 and 1 became -1 and 1"):
        boxes = rc.open_recording(write(tmp_path / "b.h5", held))["boxes"]["stimulus"]
    np.testing.assert_array_equal(boxes.values, np.where(frames > 0, 1, -1))


def test_boxes_of_other_levels_are_kept_and_told(tmp_path):
    rng = np.random.default_rng(0)
    frames = rng.choice([0.0, 0.5, 1.0], (40, 50, 50))
    held = {"boxes/stimuli": frames, "boxes/detrended_membrane_potential": rng.normal(size=(2, 40))}
    with pytest.warns(UserWarning, match="boxes: values from 0 to 1, which are not only 0 and 1"):
        rec = rc.open_recording(write(tmp_path / "a.h5", held))
    np.testing.assert_array_equal(rec["boxes"]["stimulus"].values, frames)


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("boxes/stimuli", np.zeros((90, 60, 60)), "60 x 60 pixels; expected at most 50"),
        ("boxes/stimuli", np.zeros((90, 1444)), r"expected \(frame, y, x\)"),
        ("boxes/stimuli", np.full((90, 38, 38), np.nan), "stimulus .* NaN"),
        ("lines/stimuli", np.zeros((70, 77)), "multiple of 2"),
        ("flashes/stimuli", np.zeros((49,)), "responses have 50 bins but the stimulus only 49"),
        ("flashes/detrended_membrane_potential", np.full((3, 50), np.inf), "NaN or infinite"),
        ("flashes/detrended_membrane_potential", np.zeros(50), r"expected \(cell, frame\)"),
    ],
)
def test_wrong_interneuron_contents(tmp_path, name, value, match):
    held = interneurons()
    held[name] = value
    refused(tmp_path, held, ValueError, match)


def test_wrong_interneuron_names(tmp_path):
    held = {k.replace("lines/stimuli", "lines/stimulus"): v for k, v in interneurons().items()}
    refused(tmp_path, held, ValueError, "did you mean 'stimulus'")
    path = write(tmp_path / "a.h5", interneurons())
    with pytest.warns(UserWarning, match="centred"):
        rec = rc.open_recording(path, cells=[2, 0])
    assert list(rec["boxes"]["interneuron"].values) == ["2", "0"]
    with pytest.raises(ValueError, match="no cell '3'"):
        rc.open_recording(path, cells=[3])
