"""Folders of pulses: light steps and drifting gratings, made by the test and real."""

import numpy as np
import pytest

from retina_codec.recordings import open_recording

FRAME = 0.01655


def write_column(path, values):
    path.write_text("".join(f"{value!r}\n" for value in np.asarray(values, dtype=float).tolist()))


@pytest.fixture
def steps_folder(tmp_path):
    """Three trials of grey 0.5 s, on 0.25 s, grey 0.5 s, off 0.25 s, from 2 s on."""

    def write(pulses=None, spikes=None):
        folder = tmp_path / "steps"
        folder.mkdir()
        if pulses is None:
            pulses = 2 + np.cumsum(np.r_[0, np.tile([0.5, 0.25, 0.5, 0.25], 3)])[:-1]
        write_column(folder / "stimulus.txt", pulses)
        for cell, times in (spikes or {"C7": [2.6, 2.7, 3.3, 4.1, 6.49], "C12": [5.8]}).items():
            write_column(folder / f"8_SP_{cell}.txt", times)
        return folder

    return write


def opened(folder, **options):
    with pytest.warns(UserWarning, match="levels are not in the files"):
        return open_recording(folder, **options)


def test_light_steps_become_repeats(steps_folder):
    recording = opened(steps_folder())
    assert recording.attrs["source_format"] == "text_steps"
    assert list(recording.children) == ["light_steps", "spikes", "frames", "epochs"]
    node = recording["light_steps"]
    assert node["time"].attrs["bin_width"] == pytest.approx(1 / 60)
    assert dict(node["spike_count"].sizes) == {"repeat": 3, "time": 90, "cell": 2}
    assert node["cell"].values.tolist() == ["C7", "C12"]
    np.testing.assert_allclose(node["repeat_onset"], [2, 3.5, 5])
    epoch = node["epoch"].values
    assert [str(e) for e in epoch[[0, 29, 30, 44, 45, 74, 75, 89]]] == [
        "gray", "gray", "on", "on", "gray", "gray", "off", "off",
    ]  # fmt: skip
    levels = node["stimulus"].values[:, 0, 0]
    assert levels[[0, 30, 45, 75]].tolist() == [0.5, 1.0, 0.5, 0.0]
    # 2.6 and 2.7 s are in the first on step, 3.3 s in the first off, 4.1 in the second on,
    # 6.49 s in the last off step, which no pulse ends
    counts = node["spike_count"].sel(cell="C7")
    assert int(counts[:, epoch == "on"].sum()) == 3
    assert counts[:, epoch == "off"].sum("time").values.tolist() == [1, 0, 1]
    assert recording["epochs"]["label"].values.tolist() == ["gray", "on", "gray", "off"] * 3
    np.testing.assert_allclose(recording["epochs"]["duration"], [0.5, 0.25, 0.5, 0.25] * 3)


def test_the_frame_interval_can_be_told(steps_folder):
    folder = steps_folder()
    assert opened(folder, bin_width=0.025)["light_steps"].sizes["time"] == 60
    with pytest.raises(ValueError, match=r"bin_width=0\.2 s, but the frames .* every 0\.25 s"):
        open_recording(folder, bin_width=0.2)


def test_steps_that_are_no_whole_frames(steps_folder):
    folder = steps_folder(pulses=2 + np.cumsum(np.r_[0, np.tile([0.5, 0.23, 0.5, 0.23], 3)])[:-1])
    with pytest.raises(ValueError, match=r"steps of 0\.5, 0\.23, .* are no whole numbers of fr"):
        open_recording(folder)
    assert opened(folder, bin_width=0.01)["light_steps"].sizes["time"] == 146


@pytest.mark.parametrize(
    ("pulses", "words"),
    [
        (2 + np.arange(10) * 0.5, "10 pulses; expected whole trials of 4"),
        (
            2 + np.cumsum([0, *[0.5, 0.25] * 2, 0.5, 0.4, *[0.5, 0.25] * 2, 0.5]),
            "step 1 of trial 1",
        ),
        ([2, 2.5, 2.5, 3.25], "mark 2 .* repeats mark 1"),
    ],
)
def test_pulses_that_make_no_trials(steps_folder, pulses, words):
    with pytest.raises(ValueError, match=words) as error:
        open_recording(steps_folder(pulses=pulses))
    assert "\n" not in str(error.value)


PARAMETERS = """directiongratingsequence
nangles = 4 8
period = 10 5
squareWave = 0 1
cycles = 2 1
preframeAngles = 20 10
preframeStimuli = 30
gratingwidthwhite = 120 60
gratingwidthblack = 120 60
duration = 30 20
centerX = 240
centerY = 120
"""


def grating_pulses():
    """First pulse, one period after the onset, and so on: 2 of 3 periods, then 3 of 4."""
    first = [20 + 50 * i + 10 * (k + 1) for i in range(8) for k in range(2)]
    start = 8 * 50 + 30
    second = [start + 10 + 30 * i + 5 * (k + 1) for i in range(8) for k in range(3)]
    return 1.0 + FRAME * np.array(first + second)


@pytest.fixture
def gratings_folder(tmp_path):
    def write(pulses=None, parameters=PARAMETERS):
        folder = tmp_path / "gratings"
        folder.mkdir()
        write_column(folder / "stimulus.txt", grating_pulses() if pulses is None else pulses)
        (folder / "5_sequence.txt").write_text(parameters)
        onset = 1.0 + FRAME * (20 + 50 * 1)  # of the second grating, direction 90
        write_column(folder / "5_SP_C3.txt", onset + FRAME * np.array([0.5, 9.9, 10.1, 25, 30.5]))
        return folder

    return write


def test_gratings_become_repeats_with_directions(gratings_folder):
    recording = open_recording(gratings_folder())
    assert recording.attrs["source_format"] == "text_gratings"
    nodes = ["gratings_1", "gratings_2", "spikes", "frames", "epochs"]
    assert sorted(recording.children) == sorted(nodes)
    first, second = recording["gratings_1"], recording["gratings_2"]
    assert first["spike_count"].shape == (2, 200, 1)
    assert second["spike_count"].shape == (240, 1)
    assert first["time"].attrs["bin_width"] == pytest.approx(FRAME)
    assert first["epoch"].values[[0, 19, 20, 49, 50]].tolist() == [
        "gray", "gray", "grating", "grating", "gray",
    ]  # fmt: skip
    assert first["direction"].values[[25, 75, 125, 175]].tolist() == [0, 90, 180, 270]
    counts = first["spike_count"].values[0, :, 0]
    assert np.flatnonzero(counts).tolist() == [70, 79, 80, 95, 100]
    table = recording["epochs"].to_dataset()
    chosen = table.isel(epoch=(table["label"] == "grating") & (table["stimulus"] == "gratings_1"))
    np.testing.assert_allclose(chosen["start"], grating_pulses()[:16:2])
    np.testing.assert_allclose(chosen["duration"], 20 * FRAME)
    assert chosen["direction"].values.tolist() == [0, 90, 180, 270] * 2
    # a grating moves: after one temporal period it looks the same, in between it does not
    movie = first["stimulus"].values
    np.testing.assert_allclose(movie[20], movie[30], atol=1e-5)
    assert np.abs(movie[20] - movie[25]).max() > 0.1
    assert np.ptp(movie[:20]) < 1e-6


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pulses": grating_pulses()[:-5]}, "has 35 pulses, but the parameter file asks for"),
        ({"parameters": PARAMETERS.replace("period = 10 5", "period = 10")}, "different numbers"),
        ({"parameters": PARAMETERS.replace("cycles", "cicles")}, "has no 'cycles'; did you mean"),
        ({"parameters": PARAMETERS.replace("= 30 20", "= 35 20")}, "duration 35 frames"),
    ],
)
def test_a_bad_folder_of_gratings(gratings_folder, change, words):
    with pytest.raises(ValueError, match=words) as error:
        open_recording(gratings_folder(**change))
    assert "\n" not in str(error.value)


@pytest.mark.data
def test_the_real_light_steps(real_data):
    recording = opened(real_data / "ganglion_light_steps")
    node = recording["light_steps"]
    assert node.sizes["repeat"] == 68 and node.sizes["time"] == 360
    assert node["time"].attrs["bin_width"] == pytest.approx(0.0165487, abs=5e-8)
    epochs = recording["epochs"].to_dataset()
    begin = float(epochs["start"][0])
    end = float(epochs["start"][-1] + epochs["duration"][-1])
    assert begin == pytest.approx(10.0405) and end == pytest.approx(415.1536, abs=1e-4)


@pytest.mark.data
def test_the_real_gratings(real_data):
    recording = open_recording(real_data / "ganglion_drifting_gratings")
    first, second = recording["gratings_1"], recording["gratings_2"]
    assert dict(first["spike_count"].sizes) == {"repeat": 4, "time": 8 * 700, "cell": 19}
    assert dict(second["spike_count"].sizes) == {"repeat": 4, "time": 8 * 300, "cell": 19}
    for node in (first, second):
        assert node["time"].attrs["bin_width"] == pytest.approx(0.0165487, abs=1e-6)
    assert first["repeat_onset"].values[0] == pytest.approx(11.9854 - 300 * 0.0165487, abs=1e-3)
    table = recording["epochs"].to_dataset()
    onsets = table["start"].values[(table["label"] == "onset").values]
    assert onsets[0] == pytest.approx(11.9854, abs=1e-4)
    assert sorted(set(table["direction"].values)) == [0, 45, 90, 135, 180, 225, 270, 315]
    rows = table.isel(epoch=(table["label"] == "grating") & (table["stimulus"] == "gratings_1"))
    spikes = np.loadtxt(real_data / "ganglion_drifting_gratings" / "5_SP_C3601.txt")
    start, stop = rows["start"].values, (rows["start"] + rows["duration"]).values
    counts = np.searchsorted(spikes, stop) - np.searchsorted(spikes, start)
    assert counts.sum() == 3381
    tuning = [counts[rows["direction"].values == d].mean() for d in range(0, 360, 45)]
    assert tuning == [74.75, 90.25, 177.5, 166, 158, 74.5, 51.75, 52.5]
