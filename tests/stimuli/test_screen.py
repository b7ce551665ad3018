"""Screens: physical units in, the same stimulus whatever the pixels; 1/f clips; object motion."""

import json

import numpy as np
import pytest
import quantities as pq
import xarray as xr

from retina_codec import stimuli

LEAVES = {"leaves": stimuli.dead_leaves((150, 150), seed=1)}
MAKERS = {
    "light_steps": {},
    "moving_gratings": {},
    "moving_bars": {},
    "white_noise": {},
    "pink_noise": {},
    "differential_motion": {},
    "natural_movie": {"images": LEAVES},
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_screen_of_50_um_and_100_hz_shows_the_same_as_pixels_and_frames(name):
    """The default sizes in um are those in pixels, at 50 um and 10 ms."""
    screen = stimuli.Screen((24, 24), 50.0, 0.01)
    in_um = getattr(screen, name)(n_frames=120, seed=4, **MAKERS[name])
    in_pixels = getattr(stimuli, name)(n_frames=120, seed=4, **MAKERS[name])
    np.testing.assert_allclose(in_um, in_pixels, atol=1e-5)
    np.testing.assert_array_equal(in_um["epoch"], in_pixels["epoch"])
    for axis in ("y", "x"):
        np.testing.assert_allclose(in_um[axis], 50 * (np.arange(24) - 11.5))
        assert in_um[axis].attrs["units"] == "um"
    made_by = json.loads(in_um.attrs["parameters"])
    assert made_by["generator"] == f"Screen.{name}"
    assert made_by["pixel_size"] == 50
    assert made_by["seed"] == 4


def crossing(screen):
    """When, in s, a bar of 1500 um/s has its middle at x = -200 and at x = +200 um."""
    movie = screen.moving_bars(
        n_frames=round(2 / screen.bin_width),
        width=(200, 200),
        speed=(1500, 1500),
        directions=[0],
        seed=0,
    )
    row = abs(movie).isel(y=0).interp(x=[-200.0, 200.0])
    first = row.isel(time=slice(0, round(1.0 / screen.bin_width)))
    weight = first / first.sum("time")
    times = np.arange(first.sizes["time"]) * screen.bin_width
    return (weight * times[:, None]).sum("time").values


@pytest.mark.parametrize("screen", [stimuli.Screen((24, 24), 50.0, 0.01),
                                    stimuli.Screen((48, 48), 25.0, 0.005)])  # fmt: skip
def test_a_bar_has_its_speed_in_um_per_second_on_any_screen(screen):
    before, after = crossing(screen)
    assert after - before == pytest.approx(400 / 1500, rel=0.02)


def test_quantities_are_understood():
    screen = stimuli.Screen((24, 24), 0.05 * pq.mm, 10 * pq.ms)
    assert (screen.pixel_size, screen.bin_width) == (pytest.approx(50), pytest.approx(0.01))
    given = screen.moving_bars(
        n_frames=60, width=(0.1 * pq.mm, 0.2 * pq.mm), speed=(1 * pq.mm / pq.s, 4000), seed=2
    )
    plain = stimuli.Screen().moving_bars(n_frames=60, seed=2)
    np.testing.assert_allclose(given, plain, atol=1e-5)
    with pytest.raises(ValueError, match=r"speed is in .*; expected something in um/s"):
        screen.moving_bars(n_frames=60, speed=(1 * pq.mm, 2 * pq.mm))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stimuli.Screen(pixel_size=0), "pixel_size=0.0; expected um above 0"),
        (lambda: stimuli.Screen(bin_width=-1), "bin_width=-1.0"),
        (lambda: stimuli.Screen(shape=(0, 3)), r"shape=\(0, 3\)"),
        (lambda: stimuli.Screen().white_noise(n_frames=9, check=70), "check=70 um is 1.4 pixels"),
        (lambda: stimuli.Screen().white_noise(n_frames=9, hold=0.012), "hold=0.012 s is 1.2 fram"),
        (lambda: stimuli.Screen().white_noise(n_frames=9, check=5), "check=5 um is 0.1 pixels"),
        (
            lambda: stimuli.Screen((8, 8)).place(stimuli.white_noise(n_frames=9)),
            "movie has 24 x 24 pixels; the screen has 8 x 8",
        ),
        (
            lambda: stimuli.Screen(bin_width=0.02).place(stimuli.white_noise(n_frames=9)),
            "movie has bins of 0.01 s; the screen has frames of 0.02 s",
        ),
    ],
)
def test_what_does_not_fit_the_screen_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


class TestDifferentialMotion:
    @staticmethod
    def moved(frames):
        """Whether anything moves, frame by frame."""
        return np.abs(np.diff(frames, axis=0)).reshape(len(frames) - 1, -1).max(axis=1) > 1e-3

    def test_each_part_moves_when_its_label_says_so(self):
        movie = stimuli.differential_motion(n_frames=800, seed=0, duration=(1, 1))
        epoch = movie["epoch"].values
        assert epoch[0] == "global_motion"
        inside, outside = movie.values[:, 10:14, 10:14], movie.values[:, :, :5]
        within = epoch[1:] == epoch[:-1]
        for label, (centre, background) in {
            "global_motion": (True, True),
            "differential_motion": (True, True),
            "object_motion": (True, False),
            "background_motion": (False, True),
        }.items():
            here = within & (epoch[1:] == label)
            assert here.sum() == 2 * 99
            # A step of the walk may be next to nothing.
            for part, moves in ((inside, centre), (outside, background)):
                share = self.moved(part)[here].mean()
                assert share > 0.97 if moves else share == 0

    def test_global_motion_shifts_one_grating_and_differential_motion_two(self):
        movie = stimuli.differential_motion(n_frames=400, seed=1, duration=(1, 1), period=8.0)
        rows = {"object": movie.values[:, 12, 9:15], "ground": movie.values[:, 1, 9:15]}
        x = np.arange(6)

        def phase(row):
            """Of a grating of period 8, up to a constant."""
            basis = np.stack([np.sin(2 * np.pi * x / 8), np.cos(2 * np.pi * x / 8)], axis=1)
            s, c = np.linalg.lstsq(basis, row.T, rcond=None)[0]
            return np.unwrap(np.arctan2(c, s))

        epoch = movie["epoch"].values
        for label, together in (("global_motion", True), ("differential_motion", False)):
            at = epoch == label
            steps = [np.diff(phase(row[at])) for row in rows.values()]
            r = np.corrcoef(*steps)[0, 1]
            assert (r > 0.999) if together else (abs(r) < 0.3)
            # Steps of 0.5 pixels are 0.5 / 8 of a cycle.
            assert steps[0].std() == pytest.approx(2 * np.pi * 0.5 / 8, rel=0.25)

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"motions": []}, "motions is empty"),
            ({"motions": ["globl_motion"]}, "did you mean 'global_motion'"),
            ({"period": 0}, "period=0"),
            ({"radius": -1}, "radius=-1"),
            ({"jitter": -1}, "jitter=-1"),
            ({"duration": (2, 1)}, r"duration=\(2, 1\)"),
        ],
    )
    def test_bad_arguments_are_named(self, kwargs, message):
        with pytest.raises(ValueError, match=message):
            stimuli.differential_motion(n_frames=10, **kwargs)


class TestPinkNoise:
    @pytest.mark.parametrize("exponents", [(1.0, 1.0), (1.0, 0.0), (0.0, 1.0)])
    def test_its_covariance_is_that_of_the_spectrum(self, exponents):
        """Cosine sums over all frequencies of a clip of twice the size, written out."""
        movie = stimuli.pink_noise(
            n_frames=12000, shape=(12, 12), seed=1, clip=1.0, exponents=exponents, contrast=0.7
        )
        clips = movie.values.reshape(120, 100, 12, 12)
        t, y, x = np.meshgrid(
            *(np.fft.fftfreq(2 * n) for n in (100, 12, 12)), indexing="ij", sparse=True
        )
        with np.errstate(divide="ignore"):
            power = np.maximum(np.hypot(y, x), 1 / 24) ** (-2 * exponents[0])
            power = power * np.maximum(abs(t), 1 / 200) ** (-2 * exponents[1])
        power[0, 0, 0] = 0
        power *= 0.7**2 / power.sum()
        for dt, dy, dx in ((0, 0, 0), (0, 0, 1), (0, 2, 0), (1, 0, 0), (5, 0, 0), (2, 1, 1)):
            expected = (power * np.cos(2 * np.pi * (t * dt + y * dy + x * dx))).sum()
            a = clips[:, : 100 - dt, : 12 - dy, : 12 - dx]
            b = clips[:, dt:, dy:, dx:]
            assert (a * b).mean() == pytest.approx(expected, abs=0.02)

    def test_edges_of_a_clip_are_not_alike(self):
        movie = stimuli.pink_noise(n_frames=500, shape=(16, 16), seed=0).values
        neighbours = np.corrcoef(movie[:, :, 0].ravel(), movie[:, :, 1].ravel())[0, 1]
        edges = np.corrcoef(movie[:, :, 0].ravel(), movie[:, :, -1].ravel())[0, 1]
        assert neighbours > 0.6
        assert edges < 0.4

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"clip": 0}, "clip=0"),
            ({"exponents": (1, -1)}, r"exponents=\(1, -1\)"),
            ({"contrast": -1}, "contrast=-1"),
        ],
    )
    def test_bad_arguments_are_named(self, kwargs, message):
        with pytest.raises(ValueError, match=message):
            stimuli.pink_noise(n_frames=10, **kwargs)


def test_natural_movies_take_any_array_of_photographs():
    pictures = np.stack([stimuli.dead_leaves((90, 90), seed=i).values for i in range(3)])
    by_name = {str(i): xr.DataArray(one, dims=("y", "x")) for i, one in enumerate(pictures)}
    ours = stimuli.natural_movie(pictures, n_frames=50, seed=0)
    np.testing.assert_array_equal(ours, stimuli.natural_movie(by_name, n_frames=50, seed=0))
    labelled = xr.DataArray(pictures, dims=("image", "y", "x"))
    np.testing.assert_array_equal(ours, stimuli.natural_movie(labelled, n_frames=50, seed=0))
    with pytest.raises(ValueError, match=r"images has the shape \(90, 90\); expected grey"):
        stimuli.natural_movie(pictures[0], n_frames=50)
