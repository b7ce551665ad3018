"""Described stimuli: what the parameters say, the same in any part, and again from their text."""

import json
import pickle
import tracemalloc

import numpy as np
import pytest
import quantities as pq
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from retina_codec import stimuli
from retina_codec._common.time import bin_width_of
from retina_codec.stimuli import lazy, rendered_light, rendered_noise
from retina_codec.stimuli.classical import grating_frames

DESCRIPTIONS = {
    "gaussian": {
        "kind": "seeded_noise",
        "n_frames": 61,
        "shape": [5, 7],
        "seed": 3,
        "bin_width": 0.01,
        "check": 2,
        "hold": 3,
        "contrast": 0.3,
        "mean": 0.5,
    },
    "frozen": {
        "kind": "seeded_noise",
        "n_frames": 61,
        "shape": [3, 3],
        "seed": 4,
        "bin_width": 0.01,
        "distribution": "binary",
        "hold": 2,
        "running_frames": 8,
        "frozen_frames": 6,
    },
    "levels": {
        "kind": "level_sequence",
        "levels": [0.5, 1, 0.5, 0],
        "durations": [0.05, 0.03, 0.04, 0.01],
        "labels": ["gray", "on", "gray", "off"],
        "n_cycles": 4,
        "shape": [2, 3],
        "bin_width": 0.01,
    },
    "grating": {
        "kind": "drifting_grating",
        "direction": 30,
        "spatial_period": 4.5,
        "temporal_period": 0.17,
        "duration": 0.6,
        "shape": [6, 5],
        "bin_width": 0.01,
        "phase": 20,
    },
    "gratings": {
        "kind": "grating_sequence",
        "directions": [0, 90, 225],
        "n_cycles": 2,
        "gray_before": 0.04,
        "duration": 0.07,
        "spatial_period": 3,
        "temporal_period": 0.05,
        "waveform": "square",
        "contrast": 0.4,
        "mean": 0.5,
        "shape": [4, 6],
        "bin_width": 0.01,
    },
}


def parameters_of(name, **changes):
    return {k: v for k, v in {**DESCRIPTIONS[name], **changes}.items() if k != "kind"}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_a_description_gives_a_labelled_lazy_movie_that_its_text_gives_again(name):
    movie = stimuli.render(DESCRIPTIONS[name])
    assert movie.chunks is not None
    assert movie.dims == ("time", "y", "x")
    assert movie.dtype == np.float32
    assert movie.name == "stimulus"
    assert movie.attrs["units"] == "1"
    assert bin_width_of(movie) == 0.01
    assert set(movie.coords) == {"time", "block", "epoch", "direction", "y", "x"}
    assert movie["y"].attrs["units"] == "pixel"
    assert all(isinstance(value, str) for value in movie.attrs.values())
    again = stimuli.render(json.loads(movie.attrs["description"]))
    xr.testing.assert_identical(again, movie)
    assert again.values.tobytes() == movie.values.tobytes()
    xr.testing.assert_identical(pickle.loads(pickle.dumps(movie)), movie)


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_the_functions_give_what_the_description_gives(name):
    maker = getattr(stimuli, DESCRIPTIONS[name]["kind"])
    xr.testing.assert_identical(maker(**parameters_of(name)), stimuli.render(DESCRIPTIONS[name]))


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_a_described_movie_can_be_written_and_rendered_again(name, tmp_path):
    movie = stimuli.render(DESCRIPTIONS[name])
    movie.to_netcdf(tmp_path / "movie.nc", engine="h5netcdf")
    with xr.open_dataarray(tmp_path / "movie.nc", engine="h5netcdf") as stored:
        assert np.array_equal(stored, movie)
        again = stimuli.render(json.loads(stored.attrs["description"]))
    xr.testing.assert_identical(again, movie)


# Any part, made alone, has the bits of the whole


@settings(max_examples=60, deadline=None)
@given(data=st.data(), name=st.sampled_from(list(DESCRIPTIONS)))
def test_any_part_is_that_of_the_whole(data, name):
    movie = stimuli.render(DESCRIPTIONS[name])
    whole = movie.values
    key = tuple(data.draw(st.slices(n)) for n in movie.shape)
    assert movie[key].values.tobytes() == whole[key].tobytes()


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(list(DESCRIPTIONS)),
    n_frames=st.integers(1, 70),
    numbers_at_once=st.integers(1, 500),
)
def test_any_chunking_gives_the_same_frames(name, n_frames, numbers_at_once):
    whole = stimuli.render(DESCRIPTIONS[name]).values
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lazy, "CHUNK_BYTES", 4 * whole[0].size * n_frames)
        patch.setattr(rendered_light, "NUMBERS_AT_ONCE", numbers_at_once)
        patch.setattr(rendered_noise, "NUMBERS_AT_ONCE", numbers_at_once)
        movie = stimuli.render(DESCRIPTIONS[name])
        assert movie.data.chunksize[0] == min(n_frames, len(whole))
        assert movie.values.tobytes() == whole.tobytes()


indices = st.one_of(
    st.integers(-6, 5),
    st.slices(6),
    st.lists(st.integers(-6, 5), max_size=4).map(lambda numbers: np.array(numbers, dtype=int)),
    st.lists(st.booleans(), min_size=6, max_size=6).map(np.array),
)


@settings(max_examples=200, deadline=None)
@given(keys=st.lists(indices, max_size=3))
def test_lazy_frames_are_indexed_like_an_array_one_axis_after_another(keys):
    array = np.arange(6 * 6 * 6, dtype=np.float32).reshape(6, 6, 6)
    frames = lazy.LazyFrames(array.__getitem__, array.shape)
    expected = array
    for axis, key in reversed(list(enumerate(keys))):
        expected = expected[(slice(None),) * axis + (key,)]
    found = frames[tuple(keys)]
    assert found.shape == expected.shape
    assert np.array_equal(found, expected)


def test_an_hour_takes_no_memory_and_a_frame_inside_it_is_made_alone(monkeypatch):
    shape, frame = (50, 50), 234_567
    stimuli.seeded_noise(n_frames=1, shape=shape, seed=1, bin_width=0.01).load()  # imports
    made = []
    patterns = rendered_noise._Noise._patterns

    def noted(noise, stream, start, stop):
        made.extend(range(start, stop))
        return patterns(noise, stream, start, stop)

    monkeypatch.setattr(rendered_noise._Noise, "_patterns", noted)
    tracemalloc.start()
    try:
        movie = stimuli.seeded_noise(n_frames=360_000, shape=shape, seed=1, bin_width=0.01)
        opened = tracemalloc.get_traced_memory()[1]
        labels = sum(coord.nbytes for coord in movie.coords.values())
        tracemalloc.reset_peak()
        values = movie[frame].values
        rendered = tracemalloc.get_traced_memory()[1] - labels
    finally:
        tracemalloc.stop()
    assert movie.nbytes == 3_600_000_000
    assert opened < 32 * 2**20  # time and labels of 360,000 frames
    assert rendered < 70 * 2**20  # at most a chunk, and dask's copy of it
    assert made == [frame]
    words = np.random.Philox(key=1, counter=frame * 2500 // 4).random_raw(2500)
    expected = stats.norm.ppf(((words >> 12) + 0.5) / 2**52)
    np.testing.assert_allclose(values.ravel(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "n_frames"), [((1000, 1000), 8), ((50, 50), 3355), ((3000, 3000), 1)]
)
def test_chunks_are_whole_frames_of_about_32_megabytes(shape, n_frames):
    movie = stimuli.seeded_noise(n_frames=10_000, shape=shape, seed=0, bin_width=0.01)
    assert movie.data.chunksize == (n_frames, *shape)


def test_chunks_of_a_file_are_kept_whole_unless_they_are_huge():
    assert lazy.frames_in_chunk((50, 50), 1000) == 3000
    assert lazy.frames_in_chunk((50, 50), 5000) == 5000
    assert lazy.frames_in_chunk((50, 50), 360_000) == 3355


# Noise


def literal_noise(p):
    """One word of one stream after another, one frame and one pixel after another."""
    plan = (p.get("running_frames"), p.get("frozen_frames"))
    height, width = (-(-n // p["check"]) for n in p["shape"])
    streams = {}
    for stream in (0, 1):
        generator = np.random.Philox(key=p["seed"] + stream * 2**64)
        words = generator.random_raw(p["n_frames"] * height * width)
        if p["distribution"] == "binary":
            z = [1.0 if word >= 2**63 else -1.0 for word in words.tolist()]
        else:
            z = stats.norm.ppf([(word // 4096 + 0.5) / 2**52 for word in words.tolist()])
        streams[stream] = np.reshape(p["mean"] + p["contrast"] * np.array(z), (-1, height, width))
    movie = np.empty((p["n_frames"], *p["shape"]))
    shown = {0: 0, 1: 0}
    for frame in range(p["n_frames"]):
        stream = 0
        if plan[0] is not None and frame % sum(plan) >= plan[0]:
            stream = 1
        if plan[0] is not None and frame % sum(plan) == plan[0]:
            shown[1] = 0  # the frozen frames begin again
        pattern = streams[stream][shown[stream] // p["hold"]]
        shown[stream] += 1
        for y in range(p["shape"][0]):
            for x in range(p["shape"][1]):
                movie[frame, y, x] = pattern[y // p["check"], x // p["check"]]
    return movie


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_noise_is_that_of_a_literal_twin(data):
    hold = data.draw(st.integers(1, 3))
    parts = data.draw(st.none() | st.tuples(st.integers(1, 4), st.integers(1, 4)))
    p = {
        "n_frames": data.draw(st.integers(1, 40)),
        "shape": data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5))),
        "seed": data.draw(st.integers(0, 2**64 - 1)),
        "distribution": data.draw(st.sampled_from(["gaussian", "binary"])),
        "contrast": data.draw(st.sampled_from([1.0, 0.25])),
        "mean": data.draw(st.sampled_from([0.0, 0.5])),
        "check": data.draw(st.integers(1, 3)),
        "hold": hold,
        "running_frames": None if parts is None else parts[0] * hold,
        "frozen_frames": None if parts is None else parts[1] * hold,
    }
    movie = stimuli.seeded_noise(bin_width=0.01, **p)
    np.testing.assert_allclose(movie, literal_noise(p).astype(np.float32), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("distribution", ["gaussian", "binary"])
def test_noise_has_its_moments_and_is_white(distribution):
    movie = stimuli.seeded_noise(
        n_frames=20_000,
        shape=(4, 5),
        seed=11,
        bin_width=0.01,
        distribution=distribution,
        contrast=0.3,
        mean=0.1,
    ).values.astype(float)
    n = movie.size
    assert abs(movie.mean() - 0.1) < 4 * 0.3 / np.sqrt(n)
    assert abs(movie.std() / 0.3 - 1) < 4 / np.sqrt(2 * n)
    z = (movie - 0.1) / 0.3
    for a, b in [(z[:-1], z[1:]), (z[:, :-1], z[:, 1:]), (z[..., :-1], z[..., 1:])]:
        assert abs((a * b).mean()) < 4 / np.sqrt(a.size)
    if distribution == "binary":
        assert set(np.unique(z.round(6))) == {-1.0, 1.0}
    else:
        assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3


def test_seeds_and_streams_differ():
    common = {"n_frames": 500, "shape": (4, 4), "bin_width": 0.01}
    a = stimuli.seeded_noise(seed=1, **common).values
    b = stimuli.seeded_noise(seed=2, **common).values
    c = stimuli.seeded_noise(seed=1, running_frames=1, frozen_frames=499, **common).values
    for one, other in [(a, b), (a[:-1], c[1:])]:
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 4 / np.sqrt(one.size)


def test_a_longer_noise_begins_with_the_shorter_one():
    long = stimuli.render({**DESCRIPTIONS["frozen"], "n_frames": 500})
    assert np.array_equal(long[:61], stimuli.render(DESCRIPTIONS["frozen"]))


def test_frozen_frames_come_again_in_every_block_and_running_frames_do_not():
    movie = stimuli.seeded_noise(
        n_frames=240, shape=(6, 6), seed=0, bin_width=0.01, running_frames=18, frozen_frames=6
    )
    blocks = movie.values.reshape(10, 24, 6, 6)
    assert (blocks[:, 18:] == blocks[0, 18:]).all()
    running = blocks[:, :18].reshape(180, -1)
    assert len(np.unique(running, axis=0)) == 180
    labels = movie["epoch"].values.reshape(10, 24)
    assert (labels[:, :18] == "running").all()
    assert (labels[:, 18:] == "frozen").all()
    assert (stimuli.render(DESCRIPTIONS["gaussian"])["epoch"] == "noise").all()


# Levels


def test_levels_follow_each_other_for_their_durations():
    movie = stimuli.render(DESCRIPTIONS["levels"])
    cycle = [0.5] * 5 + [1] * 3 + [0.5] * 4 + [0]
    labels = ["gray"] * 5 + ["on"] * 3 + ["gray"] * 4 + ["off"]
    expected = np.tile(np.float32(cycle), 4)
    assert np.array_equal(movie, np.broadcast_to(expected[:, None, None], (52, 2, 3)))
    assert movie["epoch"].values.tolist() == labels * 4
    assert movie["direction"].isnull().all()


def test_one_duration_holds_for_all_levels_and_levels_name_themselves():
    movie = stimuli.level_sequence(
        levels=[0.25, -1], durations=30 * pq.ms, shape=(1, 1), bin_width=10 * pq.ms
    )
    assert movie.values.ravel().tolist() == [0.25] * 3 + [-1] * 3
    assert movie["epoch"].values.tolist() == ["0.25"] * 3 + ["-1"] * 3


@pytest.mark.parametrize("off", [0.019, -0.019])
def test_durations_may_be_off_by_two_percent_of_a_frame(off):
    movie = stimuli.level_sequence(
        levels=[0, 1], durations=[(7 + off) * 0.01, 0.05], shape=(1, 1), bin_width=0.01
    )
    assert movie.sizes["time"] == 12


@pytest.mark.parametrize("off", [0.021, -0.021, 0.5])
def test_durations_that_are_no_whole_frames_are_refused(off):
    with pytest.raises(ValueError, match=r"durations\[0\]=0\.0\d+ s is \d.* frames of 0\.01 s"):
        stimuli.level_sequence(
            levels=[0, 1], durations=[(7 + off) * 0.01, 0.05], shape=(1, 1), bin_width=0.01
        )


@pytest.mark.data
def test_the_light_steps_of_a_real_recording(real_data):
    marks = np.loadtxt(real_data / "ganglion_light_steps" / "stimulus.txt")
    # 120 + 60 + 120 + 60 frames a trial, on the clock of the recording
    bin_width = (marks[268] - marks[0]) / (67 * 360)
    steps = stimuli.level_sequence(
        levels=[0.5, 1.0, 0.5, 0.0],
        durations=[1.98585, 0.99292, 1.98586, 0.99291],
        labels=["gray before on", "on", "gray before off", "off"],
        n_cycles=68,
        shape=(1, 1),
        bin_width=bin_width,
    )
    assert steps.sizes["time"] == 68 * 360
    changes = np.r_[0, np.flatnonzero(steps["epoch"].values[1:] != steps["epoch"].values[:-1]) + 1]
    assert len(changes) == len(marks) == 272
    shown = marks[0] + steps["time"].values[changes]
    assert np.abs(shown - marks).max() < 0.25 * bin_width


# Gratings


@pytest.mark.parametrize("direction", [0, 45, 90, 200, 333.3])
def test_a_sine_grating_is_that_of_the_other_generator(direction):
    movie = stimuli.drifting_grating(
        direction=direction,
        spatial_period=6.5,
        temporal_period=0.25,
        duration=2,
        shape=(9, 12),
        bin_width=0.01,
        contrast=0.7,
        phase=40,
    )
    expected = grating_frames(
        (9, 12),
        n_frames=200,
        direction=direction,
        period=6.5,
        shift=6.5 * 0.01 / 0.25,
        contrast=0.7,
        phase=np.deg2rad(40),
    )
    np.testing.assert_allclose(movie, expected, atol=1e-6)
    assert (movie["direction"] == direction).all()
    assert (movie["epoch"] == "grating").all()


@pytest.mark.parametrize(
    ("direction", "axis", "step"), [(0, 2, 1), (90, 1, 1), (180, 2, -1), (270, 1, -1)]
)
@pytest.mark.parametrize("waveform", ["sine", "square"])
def test_a_grating_moves_where_its_direction_says(direction, axis, step, waveform):
    movie = stimuli.drifting_grating(
        direction=direction,
        spatial_period=8,
        temporal_period=0.08,  # one pixel a frame
        duration=0.4,
        shape=(24, 24),
        bin_width=0.01,
        waveform=waveform,
    ).values
    np.testing.assert_allclose(np.roll(movie[:-1], step, axis=axis), movie[1:], atol=1e-5)
    other = np.moveaxis(movie, axis, 1)
    np.testing.assert_allclose(other, np.broadcast_to(other[:, :, :1], other.shape), atol=1e-6)
    assert movie.std() > 0.5


@pytest.mark.parametrize("width", [24, 25])  # edges between pixels, and exactly on them
def test_a_square_grating_is_half_bright_and_half_dark_at_every_moment(width):
    movie = stimuli.drifting_grating(
        direction=0,
        spatial_period=8,
        temporal_period=0.32,
        duration=20,
        shape=(1, width),
        bin_width=0.01,
        waveform="square",
        contrast=0.25,
        mean=0.5,
    ).values
    assert set(np.unique(movie)) == {0.25, 0.75}
    assert (movie[:, 0, :24].sum(axis=1) == 24 * 0.5).all()
    # A pixel is bright for 16 frames, then dark for 16, for as long as the grating lasts.
    edges = np.flatnonzero(np.diff(movie[:, 0, 5]))
    assert (np.diff(edges) == 16).all()


def test_lengths_with_units_are_those_in_pixels():
    common = {"direction": 10, "temporal_period": 0.5, "duration": 0.3, "bin_width": 0.01}
    plain = stimuli.drifting_grating(spatial_period=8, shape=(5, 9), **common)
    physical = {
        "um": {"spatial_period": 240 * pq.um, "pixel_size": 0.03 * pq.mm},
        "degree": {"spatial_period": 4 * pq.degree, "pixel_size": 0.5 * pq.degree},
        "plain": {"spatial_period": 240, "pixel_size": 30},
    }
    for given_lengths in physical.values():
        movie = stimuli.drifting_grating(shape=(5, 9), **common, **given_lengths)
        np.testing.assert_allclose(movie, plain, atol=1e-6)
        again = stimuli.render(json.loads(movie.attrs["description"]))
        xr.testing.assert_identical(again, movie)


def test_times_and_angles_with_units_are_those_in_seconds_and_degrees():
    plain = stimuli.render(DESCRIPTIONS["grating"])
    physical = stimuli.drifting_grating(
        **parameters_of(
            "grating",
            direction=np.deg2rad(30) * pq.rad,
            temporal_period=170 * pq.ms,
            duration=600 * pq.ms,
            bin_width=10 * pq.ms,
            phase=np.deg2rad(20) * pq.rad,
        )
    )
    np.testing.assert_allclose(physical, plain, atol=1e-6)
    assert np.array_equal(physical["time"], plain["time"])


def test_a_sequence_is_gray_then_a_grating_for_every_direction():
    movie = stimuli.render(DESCRIPTIONS["gratings"])
    assert movie.sizes["time"] == 2 * 3 * 11
    p = parameters_of("gratings")
    for name in ("directions", "n_cycles", "gray_before"):
        p.pop(name)
    for number, direction in enumerate([0, 90, 225, 0, 90, 225]):
        part = movie[11 * number : 11 * (number + 1)]
        assert part["epoch"].values.tolist() == ["gray"] * 4 + ["grating"] * 7
        assert (part[:4] == np.float32(0.5)).all()
        assert part["direction"][:4].isnull().all()
        assert (part["direction"][4:] == direction).all()
        single = stimuli.drifting_grating(direction=direction, **p)
        assert np.array_equal(part[4:], single)


def test_gratings_may_follow_without_gray():
    movie = stimuli.render({**DESCRIPTIONS["gratings"], "gray_before": 0})
    assert movie.sizes["time"] == 42
    assert (movie["epoch"] == "grating").all()


@pytest.mark.data
@pytest.mark.parametrize(
    ("pulses", "period", "shown", "gray"), [((0, 96), 100, 4, 300), ((96, 448), 15, 12, 120)]
)
def test_the_gratings_of_a_real_recording(real_data, pulses, period, shown, gray):
    frame = 0.0165487
    movie = stimuli.grating_sequence(
        directions=range(0, 360, 45),
        n_cycles=4,
        gray_before=gray * frame,
        duration=shown * period * frame,
        temporal_period=period * frame,
        spatial_period=240,
        shape=(1, 16),
        bin_width=frame,
        waveform="square",
        pixel_size=15,
    )
    marks = np.loadtxt(real_data / "ganglion_drifting_gratings" / "stimulus.txt")[slice(*pulses)]
    onsets = np.flatnonzero(
        (movie["epoch"].values == "grating") & (np.roll(movie["epoch"].values, 1) == "gray")
    )
    assert len(onsets) == 32
    # A pulse marks the start of every period but the first.
    pulsed = (onsets[:, None] + period * np.arange(1, shown)).ravel()
    expected = movie["time"].values[pulsed]
    measured = marks - marks[0] + expected[0]
    assert np.abs(measured - expected).max() < 0.5 * frame
    # The pattern is that of the first frame again, exactly at the pulses.
    values = movie.values
    assert np.array_equal(values[pulsed], np.repeat(values[onsets], shown - 1, axis=0))
    headings = movie["direction"].values[onsets].reshape(4, 8)
    assert (headings == np.arange(0, 360, 45)).all()


# Descriptions that lack, contradict or mistake something


def test_what_a_recording_knows_fills_what_the_description_lacks():
    lacking = {"kind": "seeded_noise", "shape": [2, 2], "seed": 5}
    movie = stimuli.render(lacking, n_frames=30, bin_width=20 * pq.ms)
    full = stimuli.seeded_noise(n_frames=30, shape=(2, 2), seed=5, bin_width=0.02)
    xr.testing.assert_identical(movie, full)
    assert lacking == {"kind": "seeded_noise", "shape": [2, 2], "seed": 5}
    agreeing = stimuli.render(DESCRIPTIONS["grating"], n_frames=60, bin_width=0.0101)
    xr.testing.assert_identical(agreeing, stimuli.render(DESCRIPTIONS["grating"]))


def test_an_epoch_plan_of_yaml_is_taken_as_it_is_read():
    import yaml

    text = "kind: level_sequence\nlevels: [0, 1]\ndurations: 0.1\nshape: [1, 1]\nbin_width: 0.05\n"
    assert stimuli.render(yaml.safe_load(text)).values.ravel().tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("description", "options", "kind", "words"),
    [
        ("noise", {}, TypeError, "description is a str; expected a mapping"),
        ({"seed": 1}, {}, ValueError, "description has no 'kind'; expected one of seeded_noise"),
        (
            {"kind": "seeded_nois"},
            {},
            ValueError,
            "kind='seeded_nois' is not known; did you mean 'seeded_noise'",
        ),
        (
            {**DESCRIPTIONS["grating"], "direktion": 3},
            {},
            ValueError,
            "drifting_grating has no parameter 'direktion'; did you mean 'direction'",
        ),
        (
            {"kind": "seeded_noise", "shape": [1, 1]},
            {},
            ValueError,
            "seeded_noise needs n_frames, seed, bin_width",
        ),
        (
            DESCRIPTIONS["levels"],
            {"bin_width": 0.0103},
            ValueError,
            r"bin_width=0\.0103 s, but the description says 0\.01 s",
        ),
        (
            DESCRIPTIONS["levels"],
            {"n_frames": 51},
            ValueError,
            "n_frames=51, but the description gives 52 frames",
        ),
        (
            DESCRIPTIONS["gaussian"],
            {"n_frames": 60},
            ValueError,
            "n_frames=60, but the description gives 61 frames",
        ),
        (DESCRIPTIONS["gaussian"], {"n_frames": 60.5}, TypeError, r"n_frames=60\.5; expected"),
        (
            DESCRIPTIONS["gaussian"],
            {"bin_width": 3 * pq.m},
            ValueError,
            "bin_width is in m; expected something in s",
        ),
    ],
)
def test_a_wrong_description_is_refused(description, options, kind, words):
    with pytest.raises(kind, match=words):
        stimuli.render(description, **options)


@pytest.mark.parametrize(
    ("name", "changes", "kind", "words"),
    [
        ("gaussian", {"n_frames": 0}, ValueError, "n_frames=0"),
        ("gaussian", {"n_frames": 2.5}, TypeError, r"n_frames=2\.5"),
        ("gaussian", {"shape": 5}, TypeError, r"shape=5; expected \(height, width\)"),
        ("gaussian", {"shape": [5]}, ValueError, r"shape=\(5,\); expected \(height, width\)"),
        ("gaussian", {"shape": [5, 0]}, ValueError, "shape: height or width=0"),
        ("gaussian", {"shape": [5, 2.5]}, TypeError, r"shape: height or width=2\.5"),
        ("gaussian", {"seed": -1}, ValueError, "seed=-1"),
        ("gaussian", {"seed": 2**64}, ValueError, r"seed=\d+; expected a number below 2\*\*64"),
        ("gaussian", {"seed": "one"}, TypeError, "seed='one'"),
        ("gaussian", {"bin_width": 0}, ValueError, "bin_width=0; expected a number above 0"),
        ("gaussian", {"bin_width": "10 ms"}, TypeError, "bin_width='10 ms'; expected one number"),
        ("gaussian", {"bin_width": None}, TypeError, "bin_width=None; expected one number"),
        ("gaussian", {"distribution": "normal"}, ValueError, "distribution='normal' is not known"),
        ("gaussian", {"contrast": -0.1}, ValueError, r"contrast=-0\.1"),
        ("gaussian", {"mean": np.nan}, ValueError, "mean=nan; expected a finite number"),
        ("gaussian", {"mean": True}, TypeError, "mean=True; expected one number"),
        ("gaussian", {"check": 0}, ValueError, "check=0"),
        ("gaussian", {"hold": 0}, ValueError, "hold=0"),
        ("frozen", {"frozen_frames": None}, ValueError, "running_frames=8 and frozen_frames=None"),
        ("frozen", {"running_frames": 0}, ValueError, "running_frames=0"),
        ("frozen", {"running_frames": 7}, ValueError, "expected whole multiples of hold"),
        ("levels", {"levels": []}, ValueError, "levels is empty"),
        ("levels", {"levels": 1}, TypeError, "levels=1; expected a sequence of numbers"),
        ("levels", {"levels": "0101"}, TypeError, "levels='0101'; expected a sequence"),
        ("levels", {"levels": [0, 1]}, ValueError, "levels has 2 entries, durations 4, labels 4"),
        ("levels", {"levels": [0, np.inf, 0, 0]}, ValueError, r"levels\[1\]=inf"),
        ("levels", {"durations": [0.01]}, ValueError, "levels has 4 entries, durations 1"),
        ("levels", {"durations": 0}, ValueError, r"durations\[0\]=0 s is 0 frames"),
        ("levels", {"durations": -0.05}, ValueError, r"durations\[0\]=-0\.05 s is -5 frames"),
        ("levels", {"durations": 3 * pq.mV}, ValueError, "durations is in mV; expected .* in s"),
        ("levels", {"labels": ["a"]}, ValueError, "labels 1; expected as many of each"),
        ("levels", {"labels": 5}, TypeError, "labels=5; expected a sequence of strings"),
        ("levels", {"levels": [1, [2]]}, TypeError, r"levels\[1\]=\[2\]; expected one number"),
        ("levels", {"levels": None}, TypeError, "levels=None; expected a sequence"),
        ("grating", {"contrast": [1, [2]]}, TypeError, "contrast=.*; expected one number"),
        ("levels", {"labels": "abcd"}, TypeError, "labels='abcd'; expected a sequence of strings"),
        ("levels", {"labels": [1, 2, 3, 4]}, TypeError, "expected a sequence of strings"),
        ("levels", {"n_cycles": 0}, ValueError, "n_cycles=0"),
        ("grating", {"direction": "right"}, TypeError, "direction='right'; expected one number"),
        ("grating", {"direction": [0, 90]}, TypeError, r"direction=\[0, 90\]; expected one number"),
        ("grating", {"spatial_period": 0}, ValueError, "spatial_period=0; expected .* above 0"),
        ("grating", {"pixel_size": -1}, ValueError, "pixel_size=-1; expected a number above 0"),
        (
            "grating",
            {"spatial_period": 200 * pq.um},
            ValueError,
            r"spatial_period=200\.0 um and pixel_size=1\.0; expected both",
        ),
        (
            "grating",
            {"spatial_period": 200 * pq.um, "pixel_size": 1 * pq.degree},
            ValueError,
            "spatial_period is in um; expected something in degree",
        ),
        ("grating", {"temporal_period": 0}, ValueError, "temporal_period=0"),
        ("grating", {"duration": 0.615}, ValueError, r"duration=0\.615 s is 61\.5 frames"),
        ("grating", {"waveform": "saw"}, ValueError, "waveform='saw' is not known"),
        ("gratings", {"directions": []}, ValueError, "directions is empty"),
        ("gratings", {"directions": 90}, TypeError, "directions=90; expected a sequence"),
        ("gratings", {"gray_before": -1}, ValueError, "gray_before=-1"),
        ("gratings", {"gray_before": 0.005}, ValueError, r"gray_before=0\.005 s is 0\.5 frames"),
    ],
)
def test_a_wrong_parameter_is_refused(name, changes, kind, words):
    with pytest.raises(kind, match=words):
        stimuli.render({**DESCRIPTIONS[name], **changes})
