"""Doubled and lost frame marks: put right where their number explains it, else said."""

import contextlib

import neo
import numpy as np
import pytest
import quantities as pq

from retina_codec.recordings import recording_from_neo

BIN = 0.02


@pytest.fixture
def made():
    """Flicker, true marks, and spikes that follow the flicker two frames later."""
    rng = np.random.default_rng(0)
    flicker = rng.normal(size=400)
    marks = 1 + np.arange(400) * BIN + rng.uniform(-2e-4, 2e-4, 400)
    bright = np.flatnonzero(flicker[:-3] > 0.8) + 2
    segment = neo.Segment()
    times = np.sort(marks[bright] + 0.4 * BIN)
    segment.spiketrains.append(neo.SpikeTrain(times * pq.s, t_stop=99, name="a"))
    return segment, flicker, marks


def follows(recording):
    """Share of the spikes that fall two frames after a bright one."""
    train = recording["train"]
    flicker = train["stimulus"].values[:, 0, 0]
    counts = train["spike_count"].values[:, 0]
    return (counts[2:] * (flicker[:-2] > 0.8)).sum() / counts[2:].sum()


def test_lost_marks_are_laid_into_their_gap(made):
    segment, flicker, marks = made
    seen = np.delete(marks, [150, 151, 300])
    with pytest.warns(UserWarning, match=r"3 frame marks are lost \(after marks 149, 297\)"):
        recording = recording_from_neo(segment, stimulus=flicker, frame_times=seen)
    assert recording["train"].sizes["time"] == 400
    np.testing.assert_allclose(recording["train"]["time"], marks, atol=1e-3)
    assert follows(recording) == 1
    np.testing.assert_array_equal(recording["frames"]["frame_time"], seen)


def test_doubled_marks_are_left_out(made):
    segment, flicker, marks = made
    seen = np.sort(np.r_[marks, marks[[80, 200]] + 0.0021])
    with pytest.warns(UserWarning, match=r"2 frame marks are doubled \(marks 81, 202\)"):
        recording = recording_from_neo(segment, stimulus=flicker, frame_times=seen)
    np.testing.assert_allclose(recording["train"]["time"], marks, atol=3e-3)
    assert follows(recording) == 1


def test_a_number_that_does_not_explain_it_is_refused(made):
    segment, flicker, marks = made
    with pytest.raises(ValueError, match="stimulus has 400 frames but frame_times has 398 marks"):
        recording_from_neo(segment, stimulus=flicker, frame_times=marks[:-2])
    seen = np.delete(marks, [150, 390, 391, 392, 398, 399])
    with pytest.raises(ValueError, match="stimulus has 400 frames but frame_times has 394 marks"):
        recording_from_neo(segment, stimulus=flicker, frame_times=seen)


def test_a_stall_is_said_and_left(made):
    segment, flicker, marks = made
    seen = marks.copy()
    seen[200:] += BIN
    with (
        pytest.warns(UserWarning, match="after mark 199 the gap is longer.*check_alignment"),
        pytest.warns(UserWarning, match="these marks are late"),
        pytest.warns(UserWarning, match=r"paused or stalled 1 times \(0\.0397 s after frame 199\)"),
    ):
        recording = recording_from_neo(segment, stimulus=flicker, frame_times=seen)
    train = recording["train"]
    np.testing.assert_array_equal(train["time"], seen)
    assert train["block"].values.tolist() == [0] * 200 + [1] * 200


def test_spikes_of_a_stall_are_in_no_bin(made):
    _, flicker, marks = made
    seen = marks.copy()
    seen[200:] += 12 * BIN
    regular = np.arange(0.9, 9.3, 0.01)
    segment = neo.Segment()
    segment.spiketrains.append(neo.SpikeTrain(regular * pq.s, t_stop=99, name="a"))
    with pytest.warns(UserWarning, match="paused or stalled"):
        recording = recording_from_neo(segment, stimulus=flicker, frame_times=seen)
    assert recording["train"]["spike_count"].max() <= 3
    assert recording["train"]["rate"].max() < 160


@pytest.mark.parametrize("n_lost", [0, 2])
def test_frames_are_counted_over_all_marks(made, n_lost):
    segment, flicker, marks = made
    seen = np.delete(marks, [100, 101][:n_lost])
    with pytest.warns(UserWarning) if n_lost else contextlib.nullcontext():
        part = recording_from_neo(segment, stimulus=flicker, frame_times=seen, frames=(150, 390))
    assert follows(part) == 1
    np.testing.assert_allclose(part["train"]["time"], marks[150:390], atol=1e-3)


def test_frames_after_marks_that_cannot_be_counted_are_refused(made):
    segment, flicker, marks = made
    seen = np.delete(marks, [100, 101, 395, 396, 398, 399])
    with pytest.raises(ValueError, match=r"frames=\(150, 390\): the gap after mark 99 .* shifted"):
        recording_from_neo(segment, stimulus=flicker, frame_times=seen, frames=(150, 390))
    with pytest.warns(UserWarning, match="may be|later marks do not catch up"):
        part = recording_from_neo(segment, stimulus=flicker, frame_times=seen, frames=(0, 90))
    assert follows(part) == 1
