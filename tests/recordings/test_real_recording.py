"""The real full-field noise: counts, alignment, averages, against known facts."""

import numpy as np
import pytest

from retina_codec.recordings import (
    open_recording,
    save_recording,
    spike_triggered_average,
    split,
)

pytestmark = pytest.mark.data

HISTORY = 45
CELLS = [f"C{k}" for k in range(1, 9)]
IN_RUNNING = [16448, 15004, 10294, 19041, 9405, 5643, 56262, 4986]
IN_FROZEN = [6120, 5083, 4003, 6930, 3378, 1967, 18067, 1646]
RATE = [17.200, 15.309, 10.896, 19.794, 9.742, 5.800, 56.649, 5.055]
USED = [16083, 14661, 9943, 18626, 9122, 5561, 54697, 4913]
PEAK_LAG = [4, 6, 6, 5, 6, 6, 5, 5]
PEAK = [-0.4300, 0.3670, -0.6296, -0.3643, -0.4616, 0.7241, -0.2951, 0.7494]


@pytest.fixture(scope="module")
def folder(real_data):
    return real_data / "ganglion_fullfield_noise"


@pytest.fixture(scope="module")
def recording(folder):
    with pytest.warns(UserWarning) as caught:
        opened = open_recording(folder)
    assert [str(warning.message).split(":")[0] for warning in caught] == [
        "frames 98400..101400 are not used",
        "mark 34799 may be doubled",
        "10 of 100553 frame intervals are longer than 1.25 times the median of 0.01332 s (the "
        "longest 0.052 s, the first after frame 13410)",
    ]
    return opened


def test_blocks_and_counts(recording):
    train, test = recording["train"], recording["test"]
    assert train["cell"].values.tolist() == CELLS
    assert recording.attrs["frames_used"] == "0..98399"
    assert test["repeat"].values.tolist() == list(range(41))
    assert train["time"].attrs["bin_width"] == pytest.approx(0.0133342, abs=5e-8)
    assert train["time"].values[0] == 1.7499
    assert train.sizes["time"] == 41 * 1800 and test.sizes["time"] == 600
    assert train["spike_count"].sum("time").values.tolist() == IN_RUNNING
    assert test["spike_count"].sum(["repeat", "time"]).values.tolist() == IN_FROZEN
    seconds = 98400 * train["time"].attrs["bin_width"]
    assert seconds == pytest.approx(1312.087, abs=5e-4)
    total = np.array(IN_RUNNING) + np.array(IN_FROZEN)
    np.testing.assert_allclose(total / seconds, RATE, atol=5e-4)
    np.testing.assert_allclose(
        test["stimulus"].values[:3, 0, 0], [0.520823, -1.113784, 1.852502], atol=1e-6
    )


def test_spike_triggered_averages_are_the_shipped_ones(recording, folder):
    found = spike_triggered_average(recording["train"], history=HISTORY)
    assert found["n_spikes"].values.tolist() == USED
    for cell, lag, peak in zip(CELLS, PEAK_LAG, PEAK, strict=True):
        ours = found.sel(cell=cell).values.ravel()
        shipped = np.loadtxt(folder / f"STA_{cell}.txt")[::-1]
        assert np.corrcoef(ours, shipped)[0, 1] > 0.9999
        assert np.abs(ours / np.linalg.norm(ours) - shipped).max() <= 0.0008
        assert np.abs(ours).argmax() == lag
        assert ours[lag] == pytest.approx(peak, abs=5e-5)


def test_split_takes_whole_blocks(recording):
    parts = split(recording["train"], validation_fraction=0.1)
    assert sorted(set(parts["validation"]["block"].values)) == [5, 15, 25, 35]


@pytest.mark.parametrize("name", ["noise.zarr", "noise.nc"])
def test_round_trip(recording, tmp_path, name):
    with open_recording(save_recording(recording, tmp_path / name)) as again:
        assert again.load().identical(recording)
