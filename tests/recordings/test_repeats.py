"""Repeats found in the stimulus, told by epochs, or given."""

import dask.array as da
import neo
import numpy as np
import pytest
import quantities as pq
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from retina_codec.recordings import (
    FrozenNoise,
    RepeatedFrames,
    find_repeats,
    open_recording,
    recording_from_neo,
)


def movie_of(values, lazy=False):
    values = np.asarray(values, dtype=np.float32)
    values = values[:, None, None] if values.ndim == 1 else values
    data = da.from_array(values, chunks=(7, -1, -1)) if lazy else values
    return xr.DataArray(data, dims=("time", "y", "x"))


@settings(deadline=None, max_examples=40)
@given(
    gaps=st.lists(st.integers(1, 60), min_size=2, max_size=6),
    length=st.integers(12, 50),
    seed=st.integers(0, 100),
)
def test_planted_repeats_are_found(gaps, length, seed):
    rng = np.random.default_rng(seed)
    stretch, parts, starts, at = rng.normal(size=length), [], [], 0
    for gap in gaps:
        parts += [rng.normal(size=gap), stretch]
        starts.append(at + gap)
        at += gap + length
    frames = np.concatenate([*parts, rng.normal(size=5)])
    found = find_repeats(movie_of(frames), min_frames=10)
    assert found == RepeatedFrames(tuple(starts), length)


def test_lazy_movies_and_frames_of_many_pixels():
    frames = np.random.default_rng(0).normal(size=(300, 3, 4))
    frames[200:260] = frames[40:100]
    assert find_repeats(movie_of(frames, lazy=True)) == RepeatedFrames((40, 200), 60)
    # one pixel of one frame makes the difference
    frames[230, 2, 3] += 1e-3
    assert find_repeats(movie_of(frames), min_frames=20) == RepeatedFrames((40, 200), 30)


def test_nothing_but_repeats():
    cycle = np.r_[np.full(30, 0.5), np.ones(20), np.full(30, 0.5), np.zeros(20)]
    found = find_repeats(movie_of(np.tile(cycle, 5)))
    assert (found.n_frames, len(found.starts)) == (100, 5)
    assert np.diff(found.starts).tolist() == [100] * 4


def test_a_repeat_that_was_broken_off_is_not_trained_on():
    rng = np.random.default_rng(6)
    a, b = rng.normal(size=100), rng.normal(size=60)
    found = find_repeats(movie_of(np.r_[a, a, a, a, a[:30]]))
    assert found == RepeatedFrames((0, 100, 200, 300), 100, left_out=((400, 430),))
    found = find_repeats(movie_of(np.r_[a, b, a, b, a, rng.normal(size=70)]))
    assert found == RepeatedFrames((0, 160), 160, left_out=((320, 420),))
    values = np.r_[a, b, a, rng.normal(size=80), a[20:80], rng.normal(size=200)]
    opened = recording_from_neo(segment(), stimulus=values, frame_times=MARKS, plan="find")
    tested = set(opened["test"]["stimulus"].values.ravel().tolist())
    assert not tested & set(opened["train"]["stimulus"].values.ravel().tolist())
    assert "frames 340..399 are not used: they show a part of the repeats" in opened.attrs["notes"]


def test_a_damaged_first_block_does_not_decide():
    values = np.random.default_rng(7).normal(size=600)
    for block in (1, 2):
        values[200 * block + 140 : 200 * block + 200] = values[140:200]
    values[150] += 1
    with pytest.warns(UserWarning, match=r"frames 0\.\.199 \(block 0\) are not used.*of block 1"):
        opened = recording_from_neo(
            segment(), stimulus=values, frame_times=MARKS, plan=FrozenNoise(140, 60)
        )
    assert opened["test"]["repeat"].values.tolist() == [1, 2]


def test_noise_and_grey_have_no_repeats():
    rng = np.random.default_rng(1)
    assert find_repeats(movie_of(rng.normal(size=2000))) is None
    grey = np.r_[rng.normal(size=200), np.zeros(500), rng.normal(size=200)]
    assert find_repeats(movie_of(grey)) is None
    assert find_repeats(movie_of(np.zeros(1000))) is None
    assert find_repeats(movie_of(rng.choice([-1.0, 1.0], 5000)), min_frames=50) is None


def segment(epochs=()):
    made = neo.Segment()
    times = np.random.default_rng(2).uniform(0, 6, 200)
    made.spiketrains.append(neo.SpikeTrain(np.sort(times) * pq.s, t_stop=9, name="a"))
    for start, duration, label in epochs:
        made.epochs.append(
            neo.Epoch(np.array(start) * pq.s, durations=np.array(duration) * pq.s, labels=label)
        )
    return made


@pytest.fixture
def frames():
    values = np.random.default_rng(3).normal(size=600)
    values[300:400] = values[100:200]
    return values


MARKS = np.arange(600) * 0.01


def test_plans_that_say_the_same_give_the_same(frames):
    found = recording_from_neo(segment(), stimulus=frames, frame_times=MARKS, plan="find")
    told = recording_from_neo(
        segment(),
        stimulus=frames,
        frame_times=MARKS,
        plan=RepeatedFrames(starts=(100, 300), n_frames=100),
    )
    table = ([1.002, 2.5, 3.001], [1.0, 0.3, 1.0], ["frozen", "pause", "frozen"])
    epochs = recording_from_neo(segment([table]), stimulus=frames, frame_times=MARKS, plan="frozen")
    assert found["test"].identical(told["test"]) and found["train"].identical(told["train"])
    assert epochs["test"].identical(told["test"])
    assert found["test"]["spike_count"].shape == (2, 100, 1)
    assert found["test"]["repeat_onset"].values.tolist() == [1.0, 3.0]
    runs = found["train"]["block"].values
    assert [int((runs == k).sum()) for k in range(3)] == [100, 100, 200]
    assert epochs["epochs"]["label"].values.tolist() == ["frozen", "pause", "frozen"]
    total = found["train"]["spike_count"].sum() + found["test"]["spike_count"].sum()
    assert int(total) == 200


def test_frozen_noise_is_found_without_its_plan():
    rng = np.random.default_rng(4)
    values = rng.normal(size=600)
    for block in (1, 2):
        values[200 * block + 140 : 200 * block + 200] = values[140:200]
    found = recording_from_neo(segment(), stimulus=values, frame_times=MARKS, plan="find")
    told = recording_from_neo(
        segment(), stimulus=values, frame_times=MARKS, plan=FrozenNoise(140, 60)
    )
    assert found["test"].identical(told["test"]) and found["train"].identical(told["train"])


@pytest.mark.parametrize(
    ("plan", "epochs", "words"),
    [
        ("find", (), "plan='find': no stretch of frames"),
        ("frozen", (), "plan='frozen' names epochs, but the recording has none"),
        ("frozn", ([1, 3], [1, 1], ["frozen"] * 2), "did you mean 'frozen'"),
        ("frozen", ([1, 3], [1, 0.5], ["frozen"] * 2), "repeats are of unequal length: epoch"),
        ("frozen", ([1], [1], ["frozen"]), "the label of one epoch only"),
        ("frozen", ([1, 3], [1, 0], ["frozen"] * 2), "the epoch at 3 s has no duration"),
        (RepeatedFrames((0, 550), 60), (), "the last repeat ends at frame 610"),
        (RepeatedFrames((0, 300), 60), (), "repeat 1 .frames 300..359. differs from repeat 0"),
    ],
)
def test_plans_that_do_not_fit(plan, epochs, words):
    values = np.random.default_rng(5).normal(size=600)
    made = segment([epochs] if epochs else [])
    with pytest.raises(ValueError, match=words) as error:
        recording_from_neo(made, stimulus=values, frame_times=MARKS, plan=plan)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("starts", "n_frames", "kind", "words"),
    [
        ((5,), 3, ValueError, "first frames of two repeats"),
        ((0, 5), 6, ValueError, "begin 5 frames apart but have n_frames=6"),
        ((0, 5.5), 2, TypeError, "starts=5.5"),
        ((-1, 5), 2, ValueError, "starts=-1"),
        ((0, 5), 0, ValueError, "n_frames=0"),
    ],
)
def test_bad_repeats(starts, n_frames, kind, words):
    with pytest.raises(kind, match=words):
        RepeatedFrames(starts, n_frames)


@pytest.mark.data
def test_the_real_noise_tells_its_repeats(real_data):
    folder = real_data / "ganglion_fullfield_noise"
    with pytest.warns(UserWarning):
        planned = open_recording(folder, cells=["C6"])
    with pytest.warns(UserWarning):
        found = open_recording(folder, cells=["C6"], frames=(0, 98400), plan="find")
    assert found["test"].identical(planned["test"])
    assert found["train"].identical(planned["train"])
