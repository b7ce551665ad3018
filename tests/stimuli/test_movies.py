"""Movies: what they show is what their labels say, and a seed fixes them."""

import numpy as np
import pytest
import xarray as xr

from retina_codec import stimuli
from retina_codec._common.time import bin_width_of, runs_of

MAKERS = {
    "light_steps": lambda **k: stimuli.light_steps(n_frames=150, **k),
    "moving_gratings": lambda **k: stimuli.moving_gratings(n_frames=150, **k),
    "moving_bars": lambda **k: stimuli.moving_bars(n_frames=150, **k),
    "white_noise": lambda **k: stimuli.white_noise(n_frames=150, **k),
    "natural_movie": lambda **k: stimuli.natural_movie(
        {"leaves": stimuli.dead_leaves((120, 120), seed=1)}, n_frames=150, **k
    ),
    "pink_noise": lambda **k: stimuli.pink_noise(n_frames=150, **k),
    "differential_motion": lambda **k: stimuli.differential_motion(n_frames=150, **k),
    "probe_movie": lambda **k: stimuli.probe_movie(n_cycles=1, epoch_duration=0.1, **k),
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_movie_is_labelled_and_fixed_by_its_seed(name):
    movie = MAKERS[name](seed=3, shape=(10, 14), bin_width=0.02)
    assert movie.dims == ("time", "y", "x")
    assert movie.shape[1:] == (10, 14)
    assert movie.dtype == np.float32
    assert movie.attrs["units"] == "1"
    assert bin_width_of(movie) == 0.02
    assert set(movie.coords) == {"time", "block", "epoch", "direction", "y", "x"}
    assert np.isfinite(movie.values).all()
    assert movie.std() > 0
    xr.testing.assert_identical(movie, MAKERS[name](seed=3, shape=(10, 14), bin_width=0.02))
    assert not np.array_equal(movie, MAKERS[name](seed=4, shape=(10, 14), bin_width=0.02))


@pytest.mark.parametrize(
    "name",
    [
        "light_steps",
        "moving_gratings",
        "moving_bars",
        "white_noise",
        "pink_noise",
        "differential_motion",
    ],
)
def test_a_longer_movie_begins_with_the_shorter_one(name):
    maker = getattr(stimuli, name)
    long = maker(n_frames=230, seed=5)
    short = maker(n_frames=101, seed=5)
    if name == "white_noise":  # the checks are drawn at once, row by row
        assert np.array_equal(long[:101], short)
    else:
        xr.testing.assert_equal(long[:101].reset_coords(drop=True), short.reset_coords(drop=True))


def test_photographs_are_linear_luminance():
    from sklearn.datasets import load_sample_image

    picture = stimuli.photographs()["flower"]
    red, green, blue = load_sample_image("flower.jpg")[100, 200] / 255.0

    def linear(v):
        return v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4

    expected = 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)
    assert float(picture[100, 200]) == pytest.approx(expected, rel=1e-5)
    assert "vultilion" in picture.attrs["credit"]


def test_dead_leaves_cover_the_picture_with_edges_and_have_a_scale_free_spectrum():
    leaves = stimuli.dead_leaves((256, 256), seed=2, radius=(1, 100)).values
    assert 0 <= leaves.min() < 0.2
    assert 0.8 < leaves.max() <= 1
    power = np.abs(np.fft.fft2(leaves - leaves.mean())) ** 2
    k = np.hypot(*np.meshgrid(np.fft.fftfreq(256), np.fft.fftfreq(256)))
    bands = [(0.02, 0.04), (0.04, 0.08), (0.08, 0.16)]
    mean_power = [power[(k >= a) & (k < b)].mean() for a, b in bands]
    slopes = np.diff(np.log2(mean_power))
    assert ((slopes < -1.5) & (slopes > -3.5)).all()  # natural scenes: about -2


def test_split_images_leaves_no_pixel_out_and_none_twice():
    image = stimuli.dead_leaves((20, 50), seed=0)
    left, right = stimuli.split_images({"a": image}, fraction=0.6)
    xr.testing.assert_identical(xr.concat([left["a"], right["a"]], "x"), image)
    assert left["a"].sizes["x"] == 30


def test_light_steps_are_labelled_by_the_sign_of_the_change():
    movie = stimuli.light_steps(n_frames=600, seed=0, amplitude=1.2)
    level = movie.values[:, 0, 0]
    assert (movie.values == level[:, None, None]).all()
    assert np.abs(level).max() <= 1.2
    steps = np.flatnonzero(np.diff(level)) + 1
    assert len(steps) >= 5
    assert ((np.diff(steps) >= 40) & (np.diff(steps) <= 100)).all()
    labels = movie["epoch"].values
    for step in steps:
        assert labels[step] == ("on_step" if level[step] > level[step - 1] else "off_step")
    assert labels[0] == ("on_step" if level[0] > 0 else "off_step")


def test_a_grating_moves_as_its_direction_says():
    movie = stimuli.moving_gratings(
        n_frames=60,
        seed=1,
        still_share=0,
        directions=[90],
        duration=(1, 1),
        frequency=(2, 2),
        period=(8, 8),
    )
    # 2 Hz x 8 pixels = 16 pixels a second: 8 frames a pixel / 0.16 = 6.25 frames; 25 frames = 4.
    assert (movie["direction"] == 90).all()
    np.testing.assert_allclose(movie[25, 4:], movie[0, :-4], atol=1e-5)
    np.testing.assert_allclose(movie, movie.values[:, :, :1].repeat(24, axis=2), atol=1e-5)


def test_still_gratings_stand_and_have_no_direction():
    movie = stimuli.moving_gratings(n_frames=100, seed=1, still_share=1, duration=(2, 2))
    assert (movie["epoch"] == "still").all()
    assert movie["direction"].isnull().all()
    assert (movie == movie[0]).all()


@pytest.mark.parametrize(("direction", "axis"), [(0, 2), (90, 1), (180, 2), (270, 1)])
def test_a_bar_crosses_the_field_at_its_speed(direction, axis):
    movie = stimuli.moving_bars(
        n_frames=100, seed=0, speed=(0.5, 0.5), width=(3, 3), directions=[direction]
    )
    assert (np.abs(movie[0]) < 1e-6).all()
    profile = np.abs(movie.values[20:45].mean(axis=3 - axis))
    centre = (profile * np.arange(24)).sum(axis=1) / profile.sum(axis=1)
    sign = 1 if direction in (0, 90) else -1
    np.testing.assert_allclose(np.diff(centre), 0.5 * sign, atol=1e-4)
    np.testing.assert_allclose(
        profile.sum(axis=1), 3 * np.abs(movie.values[25:40]).max(), rtol=1e-4
    )


def test_white_noise_holds_square_checks():
    movie = stimuli.white_noise(n_frames=3000, seed=0, check=2, hold=3, shape=(7, 8)).values
    assert (movie[0::3] == movie[2::3]).all()
    assert (movie[:, 0:6:2] == movie[:, 1:6:2]).all()
    assert (movie[:, :, ::2] == movie[:, :, 1::2]).all()
    checks = movie[::3, ::2, ::2].reshape(1000, -1)
    correlation = np.corrcoef(checks.T)
    assert abs(checks.mean()) < 0.05
    assert np.abs(correlation - np.eye(len(correlation))).max() < 0.15


def test_a_natural_movie_shifts_by_thirds_of_a_pixel():
    # A ramp of 1 per picture pixel: after z-scoring, every shift is a multiple of one slope.
    ramp = xr.DataArray(np.tile(np.arange(600.0), (200, 1)), dims=("y", "x"))
    movie = stimuli.natural_movie(
        {"ramp": ramp}, n_frames=60, seed=2, fixation=(0.6, 0.6), object_share=0, drift_share=0
    )
    slope = 1 / np.arange(600).std()
    middle = movie.values[:, 12, :]
    assert np.abs(movie).max() <= 2
    np.testing.assert_allclose(np.diff(middle, axis=1), 3 * slope, atol=1e-4)
    steps = np.diff(middle[:, 12]) / slope
    np.testing.assert_allclose(steps, np.rint(steps), atol=0.02)
    assert 0 < np.abs(steps).max() <= 4


def test_the_jitter_of_a_natural_movie_is_the_one_asked_for():
    ramp = xr.DataArray(np.tile(np.arange(3000.0), (100, 1)), dims=("y", "x"))
    movie = stimuli.natural_movie(
        {"ramp": ramp}, n_frames=4000, seed=0, fixation=(40, 40), object_share=0, drift_share=0
    )
    shift = movie.values[:, 12, 12].astype(float) * np.arange(3000).std() / 3  # movie pixels
    lag = 50  # long enough for the rounding to thirds not to matter
    assert (shift[lag:] - shift[:-lag]).std() == pytest.approx(0.27 * np.sqrt(lag), rel=0.25)


def test_objects_cover_a_disc_and_leave_the_rest_alone():
    image = {"leaves": stimuli.dead_leaves((200, 200), seed=1)}
    kwargs = {"n_frames": 40, "seed": 4, "fixation": (0.4, 0.4), "jitter": 0, "drift_share": 0}
    without = stimuli.natural_movie(image, object_share=0, **kwargs).values
    with_disc = stimuli.natural_movie(image, object_share=1, **kwargs).values
    changed = np.abs(with_disc - without) > 1e-6
    area = changed.sum(axis=(1, 2))
    assert (without == without[0]).all()
    assert 0 < area.max() <= np.pi * 6.5**2 + 10
    assert not changed.all(axis=0).all()


def test_the_probe_movie_is_balanced_and_its_labels_are_true():
    movie = stimuli.probe_movie(seed=1, n_cycles=2)
    labels, counts = np.unique(movie["epoch"].values, return_counts=True)
    frames = dict(zip(labels.tolist(), counts.tolist(), strict=True))
    assert frames.pop("transition") > 0
    assert frames == dict.fromkeys(("bar", "grating", "off_step", "on_step", "still"), 16 * 80)
    for kind in ("grating", "bar"):
        shown = movie["direction"].values[movie["epoch"].values == kind]
        directions, counts = np.unique(shown, return_counts=True)
        assert directions.tolist() == [45.0 * i for i in range(8)]
        assert set(counts.tolist()) == {160}
    epoch = movie["epoch"].values
    change = np.diff(movie.values.mean(axis=(1, 2)))
    starts = np.flatnonzero(epoch[1:] != epoch[:-1])
    for label, sign in (("on_step", 1), ("off_step", -1)):
        onsets = [s for s in starts if epoch[s + 1] == label]
        assert len(onsets) == 16
        assert (sign * change[onsets] > 0.7).all()
    still = (epoch[1:] == "still") & (epoch[:-1] == "still")
    assert (np.diff(movie.values, axis=0)[still] == 0).all()


def test_concatenate_keeps_values_and_lets_time_grow_with_a_gap():
    steps = stimuli.light_steps(n_frames=30, seed=0)
    bare = stimuli.white_noise(n_frames=20, seed=0).drop_vars(["epoch", "direction", "block"])
    two = stimuli.concatenate([steps, bare])
    again = stimuli.concatenate([two, stimuli.moving_bars(n_frames=10, seed=0)])
    assert [run.stop - run.start for run in runs_of(again)] == [30, 20, 10]
    assert again["block"].values[[0, 30, 50]].tolist() == [0, 1, 2]
    time = again["time"].values
    np.testing.assert_allclose(time[30] - time[29], 1.01)
    np.testing.assert_allclose(time[50] - time[49], 1.01)
    assert bin_width_of(again) == 0.01
    assert np.array_equal(again[30:50], bare)
    assert set(again["epoch"].values[30:50]) == {""}
    assert set(again["epoch"].values[50:]) == {"bar"}
    assert again["direction"].isnull()[:50].all()


IMAGE = {"leaves": xr.DataArray(np.random.default_rng(0).normal(size=(50, 90)), dims=("y", "x"))}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stimuli.light_steps(n_frames=0), "n_frames=0"),
        (lambda: stimuli.light_steps(n_frames=5, duration=(1, 0.5)), "duration="),
        (lambda: stimuli.light_steps(n_frames=5, amplitude=-1), "amplitude=-1"),
        (lambda: stimuli.white_noise(n_frames=5, shape=(0, 4)), "shape="),
        (lambda: stimuli.white_noise(n_frames=5, bin_width=0), "bin_width=0"),
        (lambda: stimuli.white_noise(n_frames=5, check=0), "check=0"),
        (lambda: stimuli.moving_bars(n_frames=5, speed=(0, 1)), "speed="),
        (lambda: stimuli.moving_bars(n_frames=5, directions=[]), "directions is empty"),
        (lambda: stimuli.moving_gratings(n_frames=5, still_share=2), "still_share=2"),
        (lambda: stimuli.probe_movie(n_cycles=0), "n_cycles=0"),
        (lambda: stimuli.dead_leaves((4,)), "shape="),
        (lambda: stimuli.dead_leaves(radius=(0, 3)), "radius="),
        (lambda: stimuli.split_images({}, fraction=1.0), "fraction=1.0"),
        (lambda: stimuli.natural_movie({}, n_frames=5), "images is empty"),
        (lambda: stimuli.natural_movie(IMAGE, n_frames=5), "50 x 90 pixels.*at least 75 x 75"),
        (
            lambda: stimuli.natural_movie({"flat": 0 * IMAGE["leaves"]}, n_frames=5, shape=(8, 8)),
            "same value everywhere",
        ),
        (
            lambda: stimuli.natural_movie(IMAGE, n_frames=5, shape=(8, 8), object_share=-1),
            "object_share=-1",
        ),
        (lambda: stimuli.concatenate([]), "movies is empty"),
        (
            lambda: stimuli.concatenate(
                [
                    stimuli.white_noise(n_frames=5),
                    stimuli.white_noise(n_frames=5, shape=(24, 20)),
                ]
            ),
            r"movies\[1\] has another coordinate 'x'",
        ),
        (
            lambda: stimuli.concatenate(
                [
                    stimuli.white_noise(n_frames=5),
                    stimuli.white_noise(n_frames=5, bin_width=0.02),
                ]
            ),
            "bin width of 0.02 s",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
