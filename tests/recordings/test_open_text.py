"""Folders of text files: what they become, and what is said about bad ones."""

import json
import warnings

import numpy as np
import pytest
import quantities as pq

from retina_codec.recordings import open_recording

# The layout that the fixture `text_folder` writes (conftest.py).
RUNNING, FROZEN, BLOCKS, BIN_WIDTH = 30, 12, 4, 0.02
PERIOD = RUNNING + FROZEN

pytestmark = pytest.mark.filterwarnings("ignore:frames .* are not used:UserWarning")


def read(folder, name):
    return np.loadtxt(folder / name, ndmin=1)


def test_frozen_noise_becomes_train_and_test(text_folder):
    folder = text_folder()
    with pytest.warns(UserWarning, match=r"frames 168\.\.192 are not used: .*no complete block"):
        recording = open_recording(folder)
    marks, stimulus = read(folder, "frametimes_flicker.txt"), read(folder, "stimulus_flicker.txt")
    assert list(recording.children) == ["train", "test", "spikes", "frames"]
    np.testing.assert_array_equal(recording["frames"]["frame_time"], marks)
    train, test = recording["train"], recording["test"]
    assert train["cell"].values.tolist() == test["cell"].values.tolist() == ["C1", "C2", "C10"]
    assert train["spike_count"].dims == ("time", "cell")
    assert test["spike_count"].dims == ("repeat", "time", "cell")
    assert test["spike_count"].shape == (BLOCKS, FROZEN, 3)
    assert train["stimulus"].dtype == np.float32
    assert np.issubdtype(train["spike_count"].dtype, np.integer)

    frames = [b * PERIOD + i for b in range(BLOCKS) for i in range(RUNNING)]
    np.testing.assert_array_equal(train["time"], marks[frames])
    np.testing.assert_array_equal(train["block"], np.repeat(range(BLOCKS), RUNNING))
    np.testing.assert_array_equal(train["stimulus"][:, 0, 0], stimulus[frames].astype(np.float32))
    np.testing.assert_array_equal(
        test["stimulus"][:, 0, 0], stimulus[RUNNING:PERIOD].astype(np.float32)
    )
    np.testing.assert_array_equal(test["repeat_onset"], marks[RUNNING::PERIOD][:BLOCKS])
    assert test["time"].values[0] == 0
    for cell in ("C1", "C2", "C10"):
        counts, _ = np.histogram(read(folder, f"flicker_{cell}.txt"), marks[: BLOCKS * PERIOD + 1])
        counts = counts.reshape(BLOCKS, PERIOD)
        np.testing.assert_array_equal(
            train["spike_count"].sel(cell=cell), counts[:, :RUNNING].ravel()
        )
        np.testing.assert_array_equal(test["spike_count"].sel(cell=cell), counts[:, RUNNING:])


def test_attrs_say_units_and_source_without_a_path(text_folder, tmp_path):
    recording = open_recording(text_folder())
    for part in ("train", "test"):
        for name, variable in recording[part].variables.items():
            assert "long_name" in variable.attrs, (part, name)
        assert recording[part]["rate"].attrs["units"] == "Hz"
        assert recording[part]["spike_count"].attrs["units"] == "1"
        width = recording[part]["time"].attrs["bin_width"]
        assert width == pytest.approx(BIN_WIDTH, rel=1e-3)
    assert recording.attrs["source"] == "noise"
    assert recording.attrs["source_format"] == "text"
    assert recording.attrs["frames_used"] == "0..167"
    assert json.loads(recording.attrs["stimulus_parameters"])["stixelwidth"] == "800"
    assert str(tmp_path) not in str(recording.attrs)


def test_without_parameter_file_one_continuous_run(text_folder):
    marks = np.arange(51) * 0.1
    folder = text_folder(marks=marks, stimulus=np.arange(50.0), plan=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recording = open_recording(folder)
    assert list(recording.children) == ["train", "spikes", "frames"]
    assert recording["train"].sizes["time"] == 50
    assert set(recording["train"]["block"].values) == {0}
    assert "notes" not in recording.attrs


def test_a_parameter_file_of_another_type_gives_no_repeats(text_folder):
    folder = text_folder(
        marks=np.arange(20) * 0.1, stimulus=np.ones(20), plan="OnOffSteps\nNframes = 30\n"
    )
    recording = open_recording(folder)
    assert list(recording.children) == ["train", "spikes", "frames"]
    assert recording.attrs["stimulus_type"] == "OnOffSteps"


def test_blocks_whose_frozen_frames_differ_are_left_out(text_folder):
    folder = text_folder()
    stimulus = read(folder, "stimulus_flicker.txt")
    stimulus[2 * PERIOD + RUNNING + 5] += 1e-6
    np.savetxt(folder / "stimulus_flicker.txt", stimulus, fmt="%.18g")
    with pytest.warns(UserWarning, match=r"frames 84\.\.125 \(block 2\) are not used.*not those"):
        recording = open_recording(folder)
    assert recording["test"]["repeat"].values.tolist() == [0, 1, 3]
    assert sorted(set(recording["train"]["block"].values)) == [0, 1, 3]
    assert recording.attrs["frames_used"] == "0..83, 126..167"
    marks = read(folder, "frametimes_flicker.txt")
    assert recording["test"]["repeat_onset"].values[2] == marks[3 * PERIOD + RUNNING]


def test_late_marks_warn_once_with_their_number(text_folder):
    marks = np.arange(100) * 0.02
    marks[[20, 50, 70]] += 0.01
    spikes = {"C1": np.arange(9) * 0.2}
    folder = text_folder(marks=marks, stimulus=np.ones(100), plan=None, spikes=spikes)
    with pytest.warns(UserWarning, match="late") as caught:
        recording = open_recording(folder)
    (warning,) = caught
    assert str(warning.message).startswith("3 of 99 frame intervals")
    assert "the first after frame 19" in str(warning.message)
    assert warning.filename == __file__
    assert recording.attrs["notes"] == str(warning.message)


def test_cells_select_and_order(text_folder):
    folder = text_folder()
    recording = open_recording(folder, cells=["C10", "C1"])
    everything = open_recording(folder)
    assert recording["test"]["cell"].values.tolist() == ["C10", "C1"]
    np.testing.assert_array_equal(
        recording["test"]["spike_count"], everything["test"]["spike_count"].sel(cell=["C10", "C1"])
    )


def test_a_silent_cell_is_a_cell(text_folder):
    folder = text_folder()
    (folder / "flicker_C3.txt").write_text("")
    with pytest.warns(UserWarning, match=r"no spikes at all in 1 cells \(C3\)"):
        recording = open_recording(folder)
    assert recording["train"]["cell"].values.tolist() == ["C1", "C2", "C3", "C10"]
    assert recording["train"]["spike_count"].sel(cell="C3").sum() == 0
    assert recording["spikes"]["n_spikes"].values.tolist() == [60, 120, 0, 600]


def test_files_can_be_named_where_names_do_not_tell(text_folder, tmp_path):
    folder = text_folder()
    (folder / "stimulus_flicker.txt").rename(tmp_path / "movie.dat")
    (folder / "frametimes_flicker.txt").rename(folder / "pulses.txt")
    recording = open_recording(folder, stimulus=tmp_path / "movie.dat", frame_times="pulses.txt")
    assert recording["test"].sizes["repeat"] == BLOCKS


def test_the_stimulus_of_the_marks_stem_is_preferred(text_folder):
    folder = text_folder()
    (folder / "stimulus_other.txt").write_text("1\n2\n")
    assert open_recording(folder)["test"].sizes["repeat"] == BLOCKS


@pytest.mark.parametrize("given", [0.0201, 20.1 * pq.ms])
def test_bin_width_overrides_within_tolerance(text_folder, given):
    recording = open_recording(text_folder(), bin_width=given)
    assert recording["train"]["time"].attrs["bin_width"] == pytest.approx(0.0201)


@pytest.mark.parametrize("given", [0.01, 20.0, 5 * pq.ms])
def test_a_wrong_bin_width_is_refused(text_folder, given):
    with pytest.raises(ValueError, match=r"^bin_width=.* every 0\.0\d+ s: correct it"):
        open_recording(text_folder(), bin_width=given)


def test_a_bin_width_that_is_no_time_is_refused(text_folder):
    with pytest.raises(ValueError, match="bin_width is in"):
        open_recording(text_folder(), bin_width=3 * pq.mV)


def one_line(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def break_file(name, text):
    return lambda folder: (folder / name).write_text(text)


def break_line(name, line, text):
    def change(folder):
        lines = (folder / name).read_text().splitlines()
        lines[line - 1] = text
        (folder / name).write_text("\n".join(lines) + "\n")

    return change


def remove(pattern):
    def change(folder):
        for path in folder.glob(pattern):
            path.unlink()

    return change


PARAMETERS = "FrozenNoise\nRunningFrames={}\nFrozenFrames={}\n"


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (remove("*"), FileNotFoundError, "path='.*noise' holds no files; expected frametimes_"),
        (remove("frametimes_*"), FileNotFoundError, r"no frametimes_\*\.txt.*frame_times="),
        (remove("stimulus_*"), FileNotFoundError, r"no stimulus_\*\.txt.*stimulus="),
        (remove("flicker_C*"), FileNotFoundError, "no spike files; expected flicker_C<id>.txt"),
        (
            break_file("frametimes_b.txt", "1\n2\n"),
            ValueError,
            r"several frametimes_\*\.txt .*name the one to use with frame_times=",
        ),
        (
            lambda folder: [
                break_file("a_C1.txt", "1\n")(folder),
                break_file("b_C1.txt", "1\n")(folder),
                remove("flicker_C*")(folder),
            ],
            ValueError,
            r"several recordings \(a_C<id>\.txt, b_C<id>\.txt\).*folder of its own",
        ),
        (
            break_line("flicker_C2.txt", 7, "spike"),
            ValueError,
            r"^spike times: flicker_C2\.txt, line 7: 'spike'; expected one finite number a line$",
        ),
        (break_line("flicker_C2.txt", 7, "1.5 1.6"), ValueError, r"C2\.txt, line 7: '1\.5 1\.6'"),
        (break_line("flicker_C2.txt", 7, "nan"), ValueError, r"flicker_C2\.txt, line 7: 'nan'"),
        (
            break_line("flicker_C2.txt", 7, "0.00001"),
            ValueError,
            r"flicker_C2\.txt, spike 7: 1e-05 s comes after .*sort the file",
        ),
        (
            break_line("stimulus_flicker.txt", 9, "inf"),
            ValueError,
            r"^stimulus: stimulus_flicker\.txt, line 9: 'inf'",
        ),
        (
            break_line("stimulus_flicker.txt", 9, "nan"),
            ValueError,
            r"^stimulus: stimulus_flicker\.txt, line 9: 'nan'",
        ),
        (
            break_line("frametimes_flicker.txt", 3, "1,5"),
            ValueError,
            r"^frame_times: frametimes_flicker\.txt, line 3: '1,5'",
        ),
        (
            break_line("frametimes_flicker.txt", 3, "0.1"),
            ValueError,
            r"^frame_times: mark 2 \(0\.1 s\) is earlier than mark 1",
        ),
        (
            break_line("frametimes_flicker.txt", 1, "-0.5"),
            ValueError,
            r"^frame_times: mark 0 is negative \(-0\.5 s\)",
        ),
        (break_file("frametimes_flicker.txt", "1.0\n"), ValueError, "at least two frame marks"),
        (
            break_file("stimulus_flicker.txt", "0.5\n" * 400),
            ValueError,
            "stimulus has 400 frames and frame_times 185 marks: they differ by more than one block",
        ),
        (
            break_file("stimulus_flicker.txt", "0.5\n" * 30),
            ValueError,
            "they differ by more than one block",
        ),
        (
            break_file("01_frozen_gauss.txt", PARAMETERS.format(30, 13)),
            ValueError,
            "frozen frames of the 4 complete blocks all differ; the plan .* does not fit",
        ),
        (
            break_file("01_frozen_gauss.txt", PARAMETERS.format(3000, 600)),
            ValueError,
            "not one complete block of the plan",
        ),
        (
            break_file("01_frozen_gauss.txt", PARAMETERS.format("many", 12)),
            ValueError,
            r"01_frozen_gauss\.txt: RunningFrames = many; expected whole numbers",
        ),
        (
            break_file("01_frozen_gauss.txt", "FrozenNoise\nRunningFrames=30\nFreezeFrames=12\n"),
            ValueError,
            "no 'FrozenFrames'; did you mean 'FreezeFrames'",
        ),
        (
            break_file("02_more.txt", PARAMETERS.format(30, 12)),
            ValueError,
            r"several parameter files \(01_frozen_gauss\.txt, 02_more\.txt\)",
        ),
        (remove("01_*"), ValueError, "stimulus has 193 frames but frame_times has 185 marks"),
    ],
)
def test_a_bad_folder_gives_one_clear_line(text_folder, change, kind, words):
    folder = text_folder()
    change(folder)
    with pytest.raises(kind, match=words) as error:
        open_recording(folder)
    one_line(error)


def test_repeated_marks_are_refused(text_folder):
    marks = np.arange(20) * 0.1
    marks[7] = marks[6]
    folder = text_folder(marks=marks, stimulus=np.ones(20), plan=None)
    with pytest.raises(ValueError, match=r"mark 7 \(0\.6 s\) repeats mark 6 \(0\.6 s\).*ascend"):
        open_recording(folder)


def test_marks_of_two_rates_are_refused(text_folder):
    marks = np.cumsum(np.r_[0, np.tile([0.1, 0.124, 0.1], 20)])
    folder = text_folder(marks=marks[:60], stimulus=np.ones(60), plan=None)
    with pytest.raises(ValueError, match=r"the longest, 0\.124 s, follows mark 1[0-9].*one by one"):
        open_recording(folder)


def test_frames_choose_a_stretch(text_folder):
    marks = np.arange(60) * 0.1
    folder = text_folder(marks=marks, stimulus=np.arange(60.0), plan=None)
    recording = open_recording(folder, frames=(10, 29))
    assert recording.attrs["frames_used"] == "10..28"
    assert recording["train"]["stimulus"].values.ravel().tolist() == list(range(10, 29))
    np.testing.assert_array_equal(recording["train"]["time"], marks[10:29])


def test_a_pause_ends_a_run(text_folder):
    marks = np.arange(60) * 0.1
    marks[30:] += 8.0
    spikes = {"C1": np.array([2.95, 3.05, 7.0, 11.05])}  # one in the pause, two beside it
    folder = text_folder(marks=marks, stimulus=np.ones(60), plan=None, spikes=spikes)
    with pytest.warns(UserWarning, match=r"stalled 1 times \(8\.1 s after frame 29\)"):
        train = open_recording(folder)["train"]
    assert train["block"].values.tolist() == [0] * 30 + [1] * 30
    assert np.flatnonzero(train["spike_count"].values[:, 0]).tolist() == [29, 30]
    assert train["spike_count"].sum() == 2


def test_a_binary_file_in_place_of_spikes(text_folder):
    folder = text_folder()
    (folder / "flicker_C2.txt").write_bytes(b"\x89PNG\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"flicker_C2\.txt is not a text file") as error:
        open_recording(folder)
    one_line(error)


def test_other_files_do_not_disturb(text_folder):
    folder = text_folder()
    (folder / "README.txt").write_text("Salamander, day 3.\nSee the lab book.\n")
    (folder / "notes.txt").write_bytes("Präparat, 40 µm\n".encode("latin-1"))
    (folder / "rig.pdf").write_bytes(b"%PDF")
    assert open_recording(folder)["test"].sizes["repeat"] == BLOCKS


@pytest.mark.parametrize("name", ["paper.pdf", "flicker_C1.txt"])
def test_a_file_of_another_kind(tmp_path, name):
    (tmp_path / name).write_text("1.0\n")
    layouts = r"is a file of no known layout; name it with format=.*'tree'.*'text'"
    with pytest.raises(ValueError, match=layouts):
        open_recording(tmp_path / name)
    with pytest.raises(NotADirectoryError, match="expects the folder which holds it"):
        open_recording(tmp_path / name, format="text")
    with pytest.raises(ValueError, match=r"expected a name ending in \.zarr or \.nc"):
        open_recording(tmp_path / name, format="tree")


def test_a_missing_path(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"path='.*nowhere' does not exist"):
        open_recording(tmp_path / "nowhere")


def test_an_unknown_format_names_the_known_ones(text_folder):
    with pytest.raises(ValueError, match="format='txt' is not known; did you mean 'text'"):
        open_recording(text_folder(), format="txt")


def test_bad_arguments(text_folder):
    folder = text_folder()
    with pytest.raises(ValueError, match=r"mapping was given, but format 'text' .* takes only"):
        open_recording(folder, format="text", mapping={"spikes": "units"})
    with pytest.raises(
        ValueError, match=r"cells: no cell 'C11'; did you mean 'C1'\? choices: C1, C2, C10"
    ):
        open_recording(folder, cells=["C11"])
    with pytest.raises(TypeError, match=r"cells='C1' is one string; expected a list"):
        open_recording(folder, cells="C1")
    with pytest.raises(ValueError, match="'C1' is given twice"):
        open_recording(folder, cells=["C1", "C1"])
    with pytest.raises(ValueError, match="cells is empty"):
        open_recording(folder, cells=[])
    with pytest.raises(FileNotFoundError, match=r"stimulus='movie\.txt' is no file"):
        open_recording(folder, stimulus="movie.txt")
    with pytest.raises(TypeError, match="frame_times is a ndarray; expected the path"):
        open_recording(folder, frame_times=np.arange(5))
