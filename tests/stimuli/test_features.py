"""Features of light and motion, against planted luminance, contrast and velocities."""

import numpy as np
import pytest
import xarray as xr
from scipy.ndimage import gaussian_filter, map_coordinates

from retina_codec import stimuli
from retina_codec.stimuli import stimulus_features
from retina_codec.stimuli.motion_energy import MotionEnergy, temporal_filters
from retina_codec.stimuli.movie import make_movie

ENERGY = ("motion_energy_x", "motion_energy_y")
MOTION = ("velocity_x", "velocity_y", *ENERGY, "speed", "differential_motion")
Y, X = np.mgrid[:24, :24]
T = np.arange(60)[:, None, None]


def features_of(frames, **kwargs):
    return stimulus_features(make_movie(frames, bin_width=0.01, epoch="test"), **kwargs)


def texture(kind):
    if kind == "leaves":
        picture = stimuli.dead_leaves((200, 200), seed=1, radius=(2, 40)).values
    else:
        picture = gaussian_filter(np.random.default_rng(0).normal(size=(200, 200)), 2.0)
    return (picture - picture.mean()) / picture.std()


def translated(picture, speed, direction, n_frames=40, shape=(24, 24)):
    angle = np.deg2rad(direction)
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.stack(
        [
            map_coordinates(
                picture,
                [90 + y - speed * np.sin(angle) * t, 90 + x - speed * np.cos(angle) * t],
                order=3,
            )
            for t in range(n_frames)
        ]
    )


@pytest.mark.parametrize("kind", ["leaves", "blobs"])
@pytest.mark.parametrize("speed", [0.1, 0.3, 0.5, 0.8])
@pytest.mark.parametrize("direction", [0, 60, 200, 270])
def test_translation_gives_the_planted_velocity(kind, speed, direction):
    found = features_of(translated(texture(kind), speed, direction)).isel(time=slice(1, None))
    vx, vy = (100 * speed * f(np.deg2rad(direction)) for f in (np.cos, np.sin))
    error = np.hypot(found["velocity_x"] - vx, found["velocity_y"] - vy)
    assert float(error.median()) < 0.15 * 100 * speed
    assert float(found["speed"].median()) == pytest.approx(100 * speed, rel=0.15)
    assert float(found["differential_motion"].median()) < 0.15 * 100 * speed


PICTURE = texture("leaves")[60:84, 60:84]
PICTURE = (PICTURE - PICTURE.mean()) / PICTURE.std()
STILL = {
    "static": PICTURE + 0 * T,
    "grey": 0.0 * T * X,
    "flicker": PICTURE + np.sin(T / 3),
    "full-field flicker": np.sin(T / 3) + 0 * X,
    "contrast": PICTURE * (1 + 0.8 * np.sin(T / 3)),
    "flicker and contrast": PICTURE * (1 + 0.8 * np.sin(T / 3)) + np.cos(T / 5),
    "reversing picture": PICTURE * np.sin(T / 3),
    "reversing grating": np.sin(2 * np.pi * X / 8 + 0.3) * np.cos(2 * np.pi * T * 0.04),
    "oblique reversing grating": np.sin(2 * np.pi * (X + 0.7 * Y) / 12) * np.cos(T / 5),
    "flashed picture": PICTURE * (T > 20),
}


@pytest.mark.parametrize("name", STILL)
def test_what_does_not_move_has_no_motion(name):
    found = features_of(STILL[name])
    for variable in MOTION:
        # Nothing at all: a trace that followed the light would correlate as well as motion does.
        assert float(np.abs(found[variable]).max()) == 0, variable


def test_noise_and_saccades_have_little_motion():
    noise = stimulus_features(stimuli.white_noise(n_frames=200, seed=0))
    shifting = features_of(translated(texture("leaves"), 0.3, 0))
    assert float(noise["speed"].mean()) < 0.1 * float(shifting["speed"].mean())


@pytest.mark.parametrize("direction", [0, 90, 135])
def test_a_grating_moves_at_its_phase_speed(direction):
    movie = stimuli.moving_gratings(
        n_frames=80,
        seed=2,
        still_share=0,
        directions=[direction],
        duration=(1, 1),
        period=(8, 8),
        frequency=(4, 4),
    )
    found = stimulus_features(movie).isel(time=slice(1, 80))
    assert float(found["velocity_x"].median()) == pytest.approx(
        32 * np.cos(np.deg2rad(direction)), abs=3
    )
    assert float(found["velocity_y"].median()) == pytest.approx(
        32 * np.sin(np.deg2rad(direction)), abs=3
    )


@pytest.mark.parametrize("shape", [(24, 24), (40, 16)])
@pytest.mark.parametrize("direction", [10, 75, 200])
def test_an_oblique_grating_moves_across_its_stripes(direction, shape):
    """Nothing but the edge of the field could turn it."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    angle = np.deg2rad(direction)
    phase = 2 * np.pi * (x * np.cos(angle) + y * np.sin(angle) - 0.5 * T) / 9
    found = features_of(np.sin(phase)[:40]).isel(time=slice(1, None)).median("time")
    turned = np.arctan2(found["velocity_y"], found["velocity_x"]) - angle
    assert abs(np.angle(np.exp(1j * float(turned)))) < np.deg2rad(3)
    assert float(np.hypot(found["velocity_y"], found["velocity_x"])) == pytest.approx(50, rel=0.1)


def test_an_object_on_a_still_ground_is_differential_motion():
    ground, disc = translated(texture("blobs"), 0, 0), translated(texture("leaves"), 0.5, 0)
    inside = np.hypot(Y - 11.5, X - 11.5) < 6
    moving_object = features_of(np.where(inside, disc, ground)).isel(time=slice(1, None))
    all_of_it = features_of(disc).isel(time=slice(1, None))
    assert float(moving_object["differential_motion"].median()) > 5 * float(
        all_of_it["differential_motion"].median()
    )
    at_object = features_of(np.where(inside, disc, ground), at=(11.5, 11.5, 2.0))
    at_corner = features_of(np.where(inside, disc, ground), at=(0, 0, 2.0))
    assert float(at_object["velocity_x"][1:].median()) > 20
    assert float(at_corner["speed"][1:].median()) < 1


def test_light_features_have_their_closed_forms():
    level = np.array([0.0, 0.5, 0.5, -1.0, -1.0])
    pattern = np.where((X + Y) % 2 == 0, 1.0, -1.0)
    found = features_of(level[:, None, None] + 0.25 * pattern)
    np.testing.assert_allclose(found["luminance"], level, atol=1e-7)
    np.testing.assert_allclose(found["luminance_on"], [0, 50, 0, 0, 0], atol=1e-4)
    np.testing.assert_allclose(found["luminance_off"], [0, 0, 0, 150, 0], atol=1e-4)
    np.testing.assert_allclose(found["contrast"], 0.25, atol=1e-7)


def test_at_weights_light_by_a_gaussian():
    frames = np.zeros((2, 9, 9))
    frames[:, 4, 6] = 1.0
    found = features_of(frames, at=(4, 4, 2.0))
    weight = np.exp(-0.5 * ((np.arange(9) - 4) / 2.0) ** 2)
    weight /= weight.sum()
    mean = weight[4] * weight[6]
    np.testing.assert_allclose(found["luminance"], mean)
    np.testing.assert_allclose(found["contrast"], np.sqrt(mean - mean**2))


def test_families_units_and_coordinates_travel():
    movie = stimuli.moving_bars(n_frames=20, seed=0)
    found = stimulus_features(movie)
    assert {str(n) for n in found if found[n].attrs["family"] == "motion"} == set(MOTION)
    assert found["speed"].attrs["units"] == "pixel/s"
    assert found["luminance_on"].attrs["units"] == "1/s"
    for name in ("time", "block", "epoch", "direction"):
        xr.testing.assert_identical(found[name].variable, movie[name].variable)


def test_small_fields_have_the_motion_they_can_have():
    point = features_of(np.random.default_rng(0).normal(size=(30, 1, 1)))
    light = {"luminance", "luminance_on", "luminance_off", "contrast", "temporal_contrast"}
    assert set(point) == light
    row = features_of(np.sin(2 * np.pi * (np.arange(24) - 0.3 * T) / 8) * np.ones((1, 1)))
    assert not {"velocity_y", "motion_energy_y"} & set(row)
    assert float(row["motion_energy_x"][20:].mean()) > 0.2
    assert float(row["velocity_x"][1:].median()) == pytest.approx(30, rel=0.1)
    column = features_of(np.sin(2 * np.pi * (np.arange(24)[:, None] + 0.3 * T) / 8))
    assert "velocity_x" not in column
    assert float(column["velocity_y"][1:].median()) == pytest.approx(-30, rel=0.1)


def test_no_difference_crosses_a_block_and_chunks_do_not_show(monkeypatch):
    first = make_movie(translated(texture("blobs"), 0.3, 0), bin_width=0.01, epoch="a")
    second = make_movie(translated(texture("blobs"), 0.3, 90) + 5, bin_width=0.01, epoch="b")
    joined = stimuli.concatenate([first, second])
    found = stimulus_features(joined)
    assert float(found["luminance_on"][40]) == 0
    assert float(found["speed"][40]) == 0
    assert float(found["speed"][41]) > 20
    monkeypatch.setattr("retina_codec.stimuli.features.FRAMES_AT_ONCE", 7)
    xr.testing.assert_allclose(stimulus_features(joined), found, rtol=1e-9)


@pytest.mark.parametrize(("direction", "speed"), [(0, 0.1), (60, 0.5), (200, 1.5), (270, 0.3)])
def test_motion_energy_has_the_sign_and_angle_of_the_motion(direction, speed):
    found = features_of(translated(texture("leaves"), speed, direction, n_frames=60))
    x, y = (float(found[name][15:].mean()) for name in ENERGY)
    off = (np.degrees(np.arctan2(y, x)) - direction + 180) % 360 - 180
    assert abs(off) < 15
    assert np.hypot(x, y) > 0.1
    assert float(np.abs(found[list(ENERGY)].to_array()).max()) <= 1
    # A share: it does not depend on contrast.
    pale = features_of(0.1 * translated(texture("leaves"), speed, direction, n_frames=60))
    np.testing.assert_allclose(pale["motion_energy_x"], found["motion_energy_x"], atol=1e-6)


def test_motion_energy_is_the_textbook_sum_of_squares():
    """A literal twin: both energies of Adelson and Bergen, filter by filter, at one place."""
    movie = translated(texture("blobs"), 0.4, 30, n_frames=30)
    weights = (np.eye(24)[[10]], np.eye(24)[[13]])
    energy = MotionEnergy(weights, 1.0, 0.01)
    fast, slow = temporal_filters(0.01)
    rightward = leftward = 0.0
    across = np.exp(-0.5 * ((np.arange(24) - 10) / 2.5) ** 2)
    across[[0, -1]] = 0
    for period in (6.0, 12.0):
        envelope = np.exp(-0.5 * ((np.arange(24) - 13) / (0.4 * period)) ** 2)
        envelope /= envelope.sum()
        waves = {}
        for name, wave in (("even", np.cos), ("odd", np.sin)):
            kernel = 2 * envelope * wave(2 * np.pi * (np.arange(24) - 13) / period)
            kernel -= envelope * kernel.sum()
            course = np.einsum("tyx,y,x->t", movie, across / across.sum(), kernel)
            waves[name] = [np.convolve(course, h)[:30] for h in (fast, slow)]
        (a_, a), (b_, b) = waves["even"], waves["odd"]
        rightward = rightward + (a + b_) ** 2 + (a_ - b) ** 2
        leftward = leftward + (a - b_) ** 2 + (a_ + b) ** 2
    expected = (rightward - leftward) / (rightward + leftward)
    found = energy(movie)["x"][:, 0]
    np.testing.assert_allclose(found, expected[energy.n_before :], atol=0.02)
    assert found.mean() > 0.1


def test_several_places_are_each_alone():
    movie = stimuli.moving_bars(n_frames=120, seed=0)
    at = xr.Dataset(
        {
            "y": ("cell", [3.0, 12, 20]),
            "x": ("cell", [4.0, 12, 7]),
            "radius": ("cell", [2.0, 4, 3]),
        },
        coords={"cell": ["a", "b", "c"]},
    )
    found = stimulus_features(movie, at=at)
    assert found["luminance"].dims == ("time", "cell")
    assert list(found["cell"].values) == ["a", "b", "c"]
    assert found["velocity_x"].attrs["family"] == "motion"
    for cell, place in enumerate([(3, 4, 2), (12, 12, 4), (20, 7, 3)]):
        alone = stimulus_features(movie, at=place)
        for name in alone:
            np.testing.assert_allclose(found[name][:, cell], alone[name], atol=1e-7)
    as_coords = stimulus_features(movie, at=at.set_coords(["y", "x", "radius"]))
    xr.testing.assert_allclose(as_coords["speed"].variable, found["speed"].variable)


def test_temporal_contrast_is_the_deviation_of_the_last_quarter_of_a_second():
    level = np.random.default_rng(0).normal(size=60)
    movie = make_movie(level[:, None, None] + np.zeros((1, 4, 4)), bin_width=0.01, epoch="test")
    found = stimulus_features(movie)["temporal_contrast"]
    assert float(found[0]) == 0
    assert float(found[10]) == pytest.approx(level[:11].std(), rel=1e-6)
    assert float(found[59]) == pytest.approx(level[35:60].std(), rel=1e-6)
    # It does not look into another block.
    joined = stimuli.concatenate([movie, movie + 5])
    twice = stimulus_features(joined)["temporal_contrast"].values
    np.testing.assert_allclose(twice[60:], found, atol=1e-6)


def test_dim_order_and_colour_do_not_matter():
    movie = stimuli.moving_bars(n_frames=30, seed=0)
    expected = stimulus_features(movie)
    xr.testing.assert_identical(stimulus_features(movie.transpose("x", "time", "y")), expected)
    coloured = movie.expand_dims(color=["green", "uv"])
    xr.testing.assert_allclose(stimulus_features(coloured), expected)


def test_bad_input_is_named():
    movie = stimuli.white_noise(n_frames=5, shape=(6, 6))
    with pytest.raises(TypeError, match="stimulus is a ndarray"):
        stimulus_features(movie.values)
    with pytest.raises(ValueError, match="stimulus has dims"):
        stimulus_features(movie.rename(time="frame"))
    with pytest.raises(ValueError, match="no attrs\\['bin_width'\\]"):
        stimulus_features(movie.assign_coords(time=np.arange(5.0)))
    with pytest.raises(ValueError, match="1 NaN or infinite"):
        stimulus_features(movie.where((movie.y > 0) | (movie.x > 0) | (movie.time > 0)))
    with pytest.raises(ValueError, match="x=7 is outside the field"):
        stimulus_features(movie, at=(3, 7))
    with pytest.raises(ValueError, match="expected \\(y, x\\) or"):
        stimulus_features(movie, at=(3, 3, 0))
    places = xr.Dataset({"y": ("cell", [3.0, 3]), "x": ("cell", [3.0, 9])})
    with pytest.raises(ValueError, match="x=9 is outside the field"):
        stimulus_features(movie, at=places)
    with pytest.raises(ValueError, match="at has no x\\(cell\\)"):
        stimulus_features(movie, at=places.drop_vars("x"))
    with pytest.raises(ValueError, match="radius that is not"):
        stimulus_features(movie, at=places.assign(x=places.y, radius=("cell", [1.0, 0])))
    with pytest.raises(ValueError, match="no coordinate 'y'"):
        stimulus_features(movie.drop_vars("y"), at=(3, 3))
    with pytest.raises(ValueError, match="stimulus is empty"):
        stimulus_features(movie.isel(time=slice(0, 0)))
