"""Alignment of the real noise recordings: the wrong tail, planted damage, and no false alarm."""

import numpy as np
import pytest
import scipy.io
import xarray as xr

from retina_codec._common.time import time_coordinate
from retina_codec.recordings.alignment import check_alignment
from retina_codec.recordings.plan import FrozenNoise

pytestmark = pytest.mark.data

USABLE = 98_400


@pytest.fixture(scope="module")
def files(real_data):
    folder = real_data / "ganglion_fullfield_noise"
    marks = np.loadtxt(folder / "frametimes_fullfieldnoise.txt")
    stimulus = np.loadtxt(folder / "stimulus_fullfieldnoise.txt")
    spikes = {f"C{k}": np.loadtxt(folder / f"fullfieldnoise_C{k}.txt") for k in range(1, 9)}
    return stimulus, marks, spikes


def node_of(stimulus, marks, spikes):
    edges = np.append(marks, marks[-1] + np.diff(marks).mean())[: len(stimulus) + 1]
    counts = np.stack([np.histogram(times, edges)[0] for times in spikes.values()], axis=1)
    return xr.Dataset(
        {
            "stimulus": (("time", "y", "x"), stimulus[:, None, None].astype(np.float32)),
            "spike_count": (("time", "cell"), counts.astype(np.int32)),
        },
        coords={
            "time": time_coordinate(edges[:-1], float(np.diff(edges).mean())),
            "cell": list(spikes),
        },
    )


@pytest.fixture(scope="module")
def whole(files):
    """All marks, with as much of the stimulus: its end is not what was shown."""
    stimulus, marks, spikes = files
    return node_of(stimulus[: len(marks)], marks, spikes)


def alarms(found):
    return found["kind"].values[found["alarm"].values].tolist()


def test_the_wrong_tail_is_found_from_spikes_alone(whole):
    found = check_alignment(whole)
    assert found.attrs["verdict"] == "misaligned"
    assert alarms(found) == ["not_followed"]
    assert abs(int(found["first_frame"][0]) - USABLE) <= 300
    assert int(found["last_frame"][0]) == 100_553
    tail = found["start_frame"].values >= USABLE
    assert (found["correlation_pooled"].values[tail] < 0.1).all()
    assert (found["state"].values[tail] == "not followed").all()
    fine = found["stop_frame"].values <= USABLE - 300
    assert (found["state"].values[fine] == "as filed").all()


def test_the_plan_makes_it_exact(whole):
    found = check_alignment(whole, plan=FrozenNoise(running_frames=1800, frozen_frames=600))
    assert alarms(found) == ["not_followed"]
    assert (int(found["first_frame"][0]), int(found["last_frame"][0])) == (USABLE, 100_553)


def test_no_alarm_on_the_usable_frames(whole, files):
    marks = files[1]
    tree = xr.DataTree.from_dict(
        {
            "/train": whole.isel(time=slice(0, USABLE)),
            "/frames": xr.Dataset({"frame_time": ("frame", marks)}),
        }
    )
    found = check_alignment(tree, plan=FrozenNoise(running_frames=1800, frozen_frames=600))
    assert found.attrs["verdict"] == "aligned", found.attrs["reason"]
    assert found["kind"].values.tolist() == ["late_marks", "doubled_marks"]
    assert int(found["late"].sum()) == 10
    assert (found["correlation_pooled"] > 0.35).all()


@pytest.mark.parametrize("at", [24_600, 49_200, 78_720])
def test_a_cut_by_one_frame(files, at):
    stimulus, marks, spikes = files
    found = check_alignment(
        node_of(np.delete(stimulus[: USABLE + 1], at), marks[: USABLE + 1], spikes)
    )
    assert alarms(found) == ["shift"]
    assert float(found["shift"][0]) == 1
    assert abs(int(found["first_frame"][0]) - at) <= 300


def test_a_swapped_pair_of_blocks(files):
    stimulus, marks, spikes = files
    movie = stimulus[:USABLE].copy()
    movie[24_000:26_400], movie[60_000:62_400] = stimulus[60_000:62_400], stimulus[24_000:26_400]
    found = check_alignment(node_of(movie, marks[: USABLE + 1], spikes))
    assert alarms(found) == ["not_followed", "not_followed"]
    # The frozen frames, the last 600 of each block, are the same in both.
    np.testing.assert_allclose(found["first_frame"], [24_000, 60_000], atol=50)
    np.testing.assert_allclose(found["last_frame"], [25_799, 61_799], atol=50)
    first = int(found["first_frame"][0])
    assert f"they follow frames {first + 36_000}.." in str(found["text"][0].values)


@pytest.mark.parametrize("ppm", [100, -100])
def test_a_drifting_clock(files, ppm):
    stimulus, marks, spikes = files
    moved = {cell: times * (1 + 1e-6 * ppm) for cell, times in spikes.items()}
    found = check_alignment(node_of(stimulus[:USABLE], marks[: USABLE + 1], moved))
    assert alarms(found) == ["drift"]
    assert abs(float(found["drift"][0]) - ppm) < 2 * float(found["drift_error"][0])
    assert float(found["drift_error"][0]) < 5


@pytest.mark.parametrize("seconds", [5.0, -3.0])
def test_spikes_offset_by_seconds(files, seconds):
    stimulus, marks, spikes = files
    moved = {cell: times + seconds for cell, times in spikes.items()}
    found = check_alignment(node_of(stimulus[:USABLE], marks[: USABLE + 1], moved))
    assert found.attrs["verdict"] == "misaligned" and alarms(found) == ["offset"]
    # Their filters peak at 4 to 6 frames.
    assert float(found["shift"][0]) - seconds / 0.0133342 == pytest.approx(5, abs=3)


@pytest.mark.parametrize("swapped", [False, True])
def test_repeats_of_the_frozen_noise(whole, swapped):
    frames = 2400 * np.arange(41)[:, None] + np.arange(1800, 2400)
    counts = whole["spike_count"].values[frames]
    if swapped:
        counts[7] = whole["spike_count"].values[frames[7] - 600]
        counts[20, :] = whole["spike_count"].values[frames[20] - 2]
    node = xr.Dataset(
        {"spike_count": (("repeat", "time", "cell"), counts)},
        coords={
            "time": time_coordinate(np.arange(600) * 0.0133342, 0.0133342),
            "cell": whole["cell"],
        },
    )
    found = check_alignment(node)
    rows = list(zip(found["kind"].values, found["finding_repeat"].values, strict=True))
    if swapped:
        assert rows == [("repeat_not_followed", 7), ("repeat_shift", 20)]
        assert float(found["shift"][1]) == 2
    else:
        assert found.attrs["verdict"] == "aligned", found.attrs["reason"]


def test_no_alarm_on_the_binary_noise(real_data):
    file = scipy.io.loadmat(real_data / "ganglion_binary_noise" / "RGCdata.mat")
    movie, width = file["Stim"].astype(np.float32), float(np.ravel(file["dtStim"])[0])
    node = xr.Dataset(
        {
            "stimulus": (("time", "y", "x"), movie[:, :, None]),
            "spike_count": (("time", "cell"), file["SpCounts"].astype(np.int32)),
        },
        coords={"time": time_coordinate(np.arange(len(movie)) * width, width), "cell": [*"1234"]},
    )
    found = check_alignment(node)
    assert found.attrs["verdict"] == "aligned", found.attrs["reason"]
    assert found.sizes["finding"] == 0
