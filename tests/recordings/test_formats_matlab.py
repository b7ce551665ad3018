"""MATLAB files with binned data, and the real one of four macaque cells."""

import warnings

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse

import retina_codec as rc


def variables(n=500, n_cells=3, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "Stim": rng.choice([-0.48, 0.48], (n, 1)),
        "SpCounts": rng.poisson(0.4, (n, n_cells)).astype(np.uint8),
        "dtStim": np.array([[0.0083]]),
    }


def write(path, held, *, version=5):
    if version == 5:
        scipy.io.savemat(path, held)
        return path
    # MATLAB 7.3: HDF5 behind a header of 512 bytes, the axes in reverse order.
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in held.items():
            file[name] = np.asarray(values).T
            file[name].attrs["MATLAB_class"] = np.bytes_("double")
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(512))
    return path


def opened(path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return rc.open_recording(path, **options)


@pytest.mark.parametrize("version", [5, 7.3])
def test_every_value_stands_where_it_belongs(tmp_path, version):
    held = variables()
    rec = opened(write(tmp_path / "cells.mat", held, version=version))
    assert rec.attrs["source_format"] == "matlab_binned"
    train = rec["train"]
    assert train["stimulus"].dims == ("time", "y", "x")
    np.testing.assert_array_equal(
        train["stimulus"].values[:, 0, 0], held["Stim"][:, 0].astype("f4")
    )
    np.testing.assert_array_equal(train["spike_count"].values, held["SpCounts"])
    assert train["spike_count"].dtype == np.int32
    assert list(train["cell"].values) == ["1", "2", "3"]
    np.testing.assert_allclose(train["time"].values, np.arange(500) * 0.0083)
    assert not train["block"].values.any()
    chosen = opened(tmp_path / "cells.mat", cells=[3])["train"]["spike_count"]
    np.testing.assert_array_equal(chosen.values[:, 0], held["SpCounts"][:, 2])


def test_counts_do_not_wrap(tmp_path):
    held = variables()
    held["SpCounts"][:] = 3
    node = opened(write(tmp_path / "a.mat", held))["train"]
    # 3 x 200 does not fit into the file's eight bits.
    assert int((node["spike_count"] * 200).max()) == 600
    assert int(node["spike_count"].sum()) == 3 * 500 * 3


def test_sparse_counts(tmp_path):
    held = variables()
    dense = opened(write(tmp_path / "a.mat", held))["train"]["spike_count"]
    held["SpCounts"] = scipy.sparse.csc_matrix(held["SpCounts"].astype(float))
    assert opened(write(tmp_path / "b.mat", held))["train"]["spike_count"].identical(dense)


@pytest.mark.parametrize("version", [5, 7.3])
@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"Stim": np.zeros((500, 4))}, r"Stim has shape \(500, 4\).*mapping="),
        ({"Stim": np.full((500, 1), np.nan)}, "stimulus .* 500 NaN"),
        ({"Stim": np.zeros((499, 1))}, "500 bins but the stimulus only 499"),
        ({"SpCounts": np.full((500, 2), 0.5)}, "not whole numbers of spikes"),
        ({"SpCounts": np.full((500, 2), np.nan)}, "1000 of them are NaN"),
        ({"SpCounts": np.full((500, 2), -1.0)}, "some are negative"),
        ({"SpCounts": np.zeros((500, 2))}, "none of the 2 cells has a spike"),
        ({"SpCounts": np.full((500, 2), 11.0)}, "spikes a second in the mean"),
        ({"dtStim": np.array([[8.34]])}, "no bin of a display"),
        ({"dtStim": np.array([[0.01, 0.02]])}, "expected one number"),
    ],
)
def test_wrong_contents(tmp_path, version, change, match):
    path = write(tmp_path / "a.mat", variables() | change, version=version)
    with pytest.raises(ValueError, match=match):
        rc.open_recording(path)


def test_a_wrong_name_offers_the_nearest(tmp_path):
    held = variables()
    held["spcounts"] = held.pop("SpCounts")
    path = write(tmp_path / "a.mat", held)
    with pytest.raises(ValueError, match=r"no known layout.*mapping="):
        rc.open_recording(path)
    with pytest.raises(ValueError, match=r"no variable 'SpCounts'.*did you mean 'spcounts'"):
        rc.open_recording(path, format="matlab_binned")


def test_zero_cells(tmp_path):
    # savemat writes an empty array; MATLAB 7.3 marks it otherwise.
    path = write(tmp_path / "a.mat", variables() | {"SpCounts": np.zeros((500, 0))})
    with pytest.raises(ValueError, match="holds no cells"):
        rc.open_recording(path)


@pytest.mark.parametrize("version", [5, 7.3])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_truncated_file(tmp_path, version, kept):
    path = write(tmp_path / "a.mat", variables(5000), version=version)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(OSError, match="cut off"):
        rc.open_recording(path, format="matlab_binned")


def test_bin_width_must_agree(tmp_path):
    path = write(tmp_path / "a.mat", variables())
    assert opened(path, bin_width=0.0084)["train"]["time"].attrs["bin_width"] == 0.0084
    with pytest.raises(ValueError, match=r"bin_width=0\.01 s, but"):
        rc.open_recording(path, bin_width=0.01)


# The real file: data/README.md, section 4


@pytest.fixture(scope="module")
def real(real_data):
    return opened(real_data / "ganglion_binary_noise" / "RGCdata.mat")["train"]


@pytest.mark.data
def test_counts_rates_and_stimulus_of_the_real_file(real):
    counts = real["spike_count"]
    assert counts.sizes["time"] == 144051
    assert counts.sum("time").values.tolist() == [31528, 21553, 49954, 43126]
    assert counts.max("time").values.tolist() == [3, 3, 4, 4]
    width = real["time"].attrs["bin_width"]
    assert width == 0.008340605
    rates = counts.mean("time").values / width
    # The table prints 41.578 for cell 3; its own 49954 spikes in 1201.4725 s give 41.5773.
    assert [f"{rate:.3f}" for rate in rates] == ["26.241", "17.939", "41.577", "35.894"]
    values, number = np.unique(real["stimulus"].values, return_counts=True)
    np.testing.assert_array_equal(values, np.float32([-0.48, 0.48]))
    assert number.tolist() == [71942, 72109]
    assert f"{144051 * width:.2f}" == "1201.47"


@pytest.mark.data
def test_correlations_of_the_real_counts(real):
    r = np.corrcoef(real["spike_count"].values.T.astype(float))
    assert f"{r[0, 1]:.3f}" == "0.544"
    assert f"{r[2, 3]:.3f}" == "0.697"
    across = r[:2, 2:]
    assert f"{across.max():.2f}" == "-0.13"
    assert f"{across.min():.2f}" == "-0.18"


@pytest.mark.data
def test_averages_of_the_real_file(real):
    sta = rc.spike_triggered_average(real, history=40).squeeze(("y", "x"))
    expected = [  # peak at lag, opposite lobe at lag
        (3, "-0.4397", 9, "+0.100"),
        (3, "-0.4448", 5, "+0.176"),
        (4, "+0.3483", 7, "-0.129"),
        (4, "+0.4497", 7, "-0.194"),
    ]
    for own, (lag, peak, other_lag, lobe) in zip(sta.values, expected, strict=True):
        assert int(np.abs(own).argmax()) == lag
        assert f"{own[lag]:+.4f}" == peak
        opposite = own * -np.sign(own[lag])
        assert int(opposite.argmax()) == other_lag
        assert f"{own[other_lag]:+.3f}" == lobe
    assert [f"{1000 * t:.1f}" for t in sta["lag"].values[[3, 4]]] == ["25.0", "33.4"]


@pytest.mark.data
def test_the_real_stimulus_is_white_and_never_repeats(real):
    frames = real["stimulus"].values.ravel()
    frames = frames - frames.mean()
    power = frames @ frames
    lags = [frames[k:] @ frames[:-k] / power for k in range(1, 20)]
    assert float(f"{max(np.abs(lags)):.4f}") == 0.0044
    words = np.lib.stride_tricks.sliding_window_view(frames > 0, 60)
    keys = words @ (1 << np.arange(60, dtype=np.uint64))
    assert len(np.unique(keys)) == len(keys)
