"""Doubled and lost frame marks: put right where their number explains it, else said."""

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
    return (counts[2:] * (flicker[:-2] > 0.8)).sum() / counts.sum()


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
    ):
        recording = recording_from_neo(segment, stimulus=flicker, frame_times=seen)
    np.testing.assert_array_equal(recording["train"]["time"], seen)
