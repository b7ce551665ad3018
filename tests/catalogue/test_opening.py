"""Data sets open by name, from where they are, or say what is missing."""

import numpy as np
import pytest
import scipy.io

import retina_codec as rc
from retina_codec import catalogue


@pytest.fixture
def toy(describe, tmp_path):
    """A set of one text recording, its files in place."""
    root = tmp_path / "toy_files"
    root.mkdir()
    (root / "frametimes_flicker.txt").write_text("0.5\n0.6\n0.7\n0.8\n")
    (root / "stimulus_flicker.txt").write_text("1\n-1\n1\n")
    (root / "flicker_C7.txt").write_text("0.1\n0.55\n0.58\n0.72\n")
    (root / "flicker_C8.txt").write_text("0.65\n")
    describe(files=[{"name": path.name, "sha256": None} for path in root.iterdir()])
    return root


def test_a_folder_is_opened_by_name(toy, tmp_path):
    recording = catalogue.open_dataset("toy", folder=tmp_path)
    assert recording["train"]["spike_count"].sel(cell="C7").values.tolist() == [2, 0, 1]
    assert recording.attrs["dataset"] == "toy"
    assert recording.attrs["source_format"] == "text"


def test_options_go_to_open_recording_over_those_of_the_description(toy, describe, tmp_path):
    listed = [{"name": path.name, "sha256": None} for path in toy.iterdir()]
    describe(options={"cells": ["C7"]}, files=listed)
    cells = catalogue.open_dataset("toy", folder=tmp_path)["train"]["cell"].values
    assert cells.tolist() == ["C7"]
    other = catalogue.open_dataset("toy", folder=tmp_path, cells=["C8"])["train"]["cell"].values
    assert other.tolist() == ["C8"]
    with pytest.raises(ValueError, match="C9"):
        catalogue.open_dataset("toy", folder=tmp_path, cells=["C9"])


def test_a_missing_file_is_not_passed_over(toy, tmp_path):
    (toy / "flicker_C8.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"toy_files' lacks flicker_C8\.txt\. .*10\.1234"):
        catalogue.open_dataset("toy", folder=tmp_path)


def test_a_set_that_is_not_here_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("RETINA_CODEC_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError) as caught:
        catalogue.open_dataset("fullfield_noise_gollisch")
    for needed in (
        "retina-codec datasets fetch fullfield_noise_gollisch",
        "https://github.com/gollischlab/GGNB-python-course",
        str(tmp_path / "ganglion_fullfield_noise"),
        "frametimes_fullfieldnoise.txt",
    ):
        assert needed in str(caught.value)


def test_a_layout_that_is_not_read_says_why(tmp_path):
    with pytest.raises(ValueError, match=r"cannot be opened by name: the stimulus is a list of im"):
        catalogue.open_dataset("goldin_2022", folder=tmp_path)


def test_one_of_several_recordings_is_chosen(describe, tmp_path):
    for session in ("a", "b"):
        tree = rc.simulate_retina(rc.stimuli.white_noise(n_frames=60, shape=(12, 12), seed=1))
        for name in ("one.nc", "two.nc") if session == "a" else ("one.nc",):
            rc.save_recording(tree, tmp_path / "toy_files" / "cells" / session / name)
    (tmp_path / "toy_files" / "cells" / "a" / "._one.nc").write_text("shadow")
    describe(layout="tree", recordings="**/cells/*/*.nc")
    names = "cells/a/one.nc, cells/a/two.nc, cells/b/one.nc"
    with pytest.raises(ValueError, match=f"holds 3 recordings; .*recording=.*: {names}$"):
        catalogue.open_dataset("toy", folder=tmp_path)
    for wanted in ("cells/b/one.nc", "b/one.nc", "two.nc"):
        opened = catalogue.open_dataset("toy", folder=tmp_path, recording=wanted)
        assert opened["train"].sizes["time"] == 60
    with pytest.raises(ValueError, match=r"recording='one.nc' is the end of 2 recordings"):
        catalogue.open_dataset("toy", folder=tmp_path, recording="one.nc")
    with pytest.raises(ValueError, match=r"recording='b/on.nc'.*did you mean 'cells/b/one.nc'"):
        catalogue.open_dataset("toy", folder=tmp_path, recording="b/on.nc")


@pytest.mark.data
def test_the_real_noise_set_holds_what_its_facts_say(real_data):
    facts = catalogue.dataset("fullfield_noise_gollisch").facts
    with pytest.warns(UserWarning, match="frames 98400"):
        recording = catalogue.open_dataset("fullfield_noise_gollisch", folder=real_data)
    train, test = (recording[node]["spike_count"] for node in ("train", "test"))
    assert train["cell"].values.tolist() == facts["cell_ids"]
    assert test.sizes["repeat"] == facts["repeats"]
    assert test.sizes["time"] == facts["frozen_frames"]
    assert train.sizes["time"] == facts["repeats"] * facts["running_frames"]
    counted = (train.sum("time") + test.sum(("repeat", "time"))).values
    assert dict(zip(facts["cell_ids"], counted.tolist(), strict=True)) == facts["spikes"]
    np.testing.assert_allclose(
        recording["train"]["time"].attrs["bin_width"], facts["frame_interval"], rtol=1e-4
    )


@pytest.mark.data
@pytest.mark.parametrize(
    "name",
    [
        "fullfield_noise_gollisch",
        "light_steps_gollisch",
        "drifting_gratings_gollisch",
        "binary_noise_uzzell",
    ],
)
def test_the_real_files_have_the_checksums_of_the_catalogue(real_data, name):
    # Fetching looks at every file, finds nothing to do, and so never asks the network.
    root = catalogue.fetch_dataset(name, folder=real_data, progress=False)
    info = catalogue.dataset(name)
    assert {file.name for file in info.files} == {path.name for path in root.iterdir()}
    assert all((root / file.name).stat().st_size == file.size for file in info.files)


@pytest.mark.data
def test_the_real_light_steps_hold_what_their_facts_say(real_data):
    facts = catalogue.dataset("light_steps_gollisch").facts
    with pytest.warns(UserWarning, match="levels are not in the files"):
        recording = catalogue.open_dataset("light_steps_gollisch", folder=real_data)
    spikes, epochs, node = (recording[name] for name in ("spikes", "epochs", "light_steps"))
    counted = dict(
        zip(spikes["cell"].values.tolist(), spikes["n_spikes"].values.tolist(), strict=True)
    )
    assert counted == facts["spikes"]
    assert epochs.sizes["epoch"] == facts["transitions"]
    start = epochs["start"].values
    assert [start[0], start[-1]] == [facts["first_transition"], facts["last_transition"]]
    durations = epochs["duration"].values.reshape(facts["trials"], 4).mean(axis=0)
    np.testing.assert_allclose(durations, facts["durations"], atol=1e-5)
    levels = node["stimulus"].squeeze().values
    changes = np.r_[True, np.diff(levels) != 0]
    assert levels[changes].tolist() == facts["levels"]
    assert node.sizes["repeat"] == facts["trials"]


@pytest.mark.data
def test_the_real_gratings_hold_what_their_facts_say(real_data):
    facts = catalogue.dataset("drifting_gratings_gollisch").facts
    recording = catalogue.open_dataset("drifting_gratings_gollisch", folder=real_data)
    spikes = recording["spikes"]
    counted = dict(
        zip(spikes["cell"].values.tolist(), spikes["n_spikes"].values.tolist(), strict=True)
    )
    assert counted == facts["spikes"]
    for number in (1, 2):
        node, told = recording[f"gratings_{number}"], facts[f"stimulus_{number}"]
        assert node.sizes["repeat"] == facts["cycles"]
        shown = np.unique(node["direction"].values[np.isfinite(node["direction"].values)])
        assert shown.tolist() == facts["directions"]
        assert told["pulses"] == facts["cycles"] * 8 * told["marked_periods"]
    both = facts["stimulus_1"]["pulses"] + facts["stimulus_2"]["pulses"]
    root = real_data / "ganglion_drifting_gratings"
    assert both == facts["pulses"] == len(np.loadtxt(root / "stimulus.txt"))
    assert set(facts["direction_selective"]) <= set(counted)


@pytest.mark.data
def test_the_real_binary_noise_holds_what_its_facts_say(real_data):
    facts = catalogue.dataset("binary_noise_uzzell").facts
    held = scipy.io.loadmat(real_data / "ganglion_binary_noise" / "RGCdata.mat")
    counts = held["SpCounts"].astype(int)
    assert counts.shape == (facts["frames"], len(facts["cell_types"]))
    assert counts.sum(axis=0).tolist() == facts["spikes"]
    assert np.unique(held["Stim"]).tolist() == facts["levels"]
    np.testing.assert_allclose(float(held["dtStim"].item()), facts["bin_width"], rtol=1e-6)
    # Three to four frames before a spike the screen was brighter for ON cells, darker for OFF.
    lagged = held["Stim"][:-3, 0] @ counts[3:]
    assert ["ON" if x > 0 else "OFF" for x in lagged] == facts["cell_types"]
