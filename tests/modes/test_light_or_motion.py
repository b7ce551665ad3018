"""Labels on movies: what does not move is not motion, and a moving edge's light is light."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.signal import lfilter

import retina_codec as rc
from retina_codec import stimuli
from retina_codec.modes import describe_modes
from retina_codec.stimuli.classical import bar_crossing, bar_frames
from retina_codec.stimuli.movie import make_movie

SHAPE, N = (50, 50), 1500


def course(rng):
    signal = lfilter([1], [1, -np.exp(-0.01 / 0.15)], rng.normal(size=N + 500))[500:]
    return (signal / signal.std())[:, None, None]


def motionless(kind):
    """Full-size movies that change and do not move."""
    rng = np.random.default_rng(0)
    if kind == "flicker":
        frames = course(rng) + np.zeros(SHAPE)
    elif kind == "still photograph, contrast modulated":
        picture = stimuli.dead_leaves(SHAPE, seed=0, radius=(2, 20)).values
        picture = (picture - picture.mean()) / picture.std()
        frames = picture * np.clip(1 + 0.5 * course(rng), 0, 2.5)
    else:
        y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
        second = np.arange(250)[:, None, None] / 100
        parts = []
        for _ in range(N // 250):
            turn, period = rng.uniform(0, np.pi), rng.uniform(5, 14)
            across = 2 * np.pi * (x * np.cos(turn) + y * np.sin(turn)) / period
            reversal = np.sin(2 * np.pi * rng.uniform(1, 5) * second)
            parts.append(np.sin(across + rng.uniform(0, 6)) * reversal)
        frames = np.concatenate(parts)
    return make_movie(frames.astype(np.float32), bin_width=0.01, epoch=kind)


@pytest.mark.parametrize(
    "kind", ["flicker", "still photograph, contrast modulated", "counterphase grating"]
)
def test_channels_shown_what_does_not_move_are_not_called_motion(kind):
    """Every channel of an untrained network follows such a movie: by its light."""
    movie = motionless(kind)
    network = rc.models.BNCNN(SHAPE, history=20, bin_width=0.01, cells=["a"])
    tree = rc.contributions(
        network,
        movie,
        layers=["relu1"],
        method=rc.methods.ActivationGradient(),
        extras=("activation",),
        sum_over=("y", "x"),
        progress=False,
    )
    activity = tree["layers/relu1"].to_dataset()["activation"].rename(channel="mode")
    described = describe_modes(activity, rc.stimulus_features(movie), max_lag=0.2)
    assert not {"motion", "mixed"} & set(described["label"].values)
    assert (described["label"] == "light").sum() >= 6  # they do follow it


def moving_edges():
    """Bright and dark bars that cross the field in 8 directions at several speeds."""
    rng = np.random.default_rng(0)
    parts, directions = [], []
    for i in rng.permutation(64):
        direction, shift, width = 45.0 * (i % 8), rng.uniform(0.3, 1), rng.uniform(3, 9)
        bar = bar_frames(
            (24, 24),
            n_frames=int(bar_crossing((24, 24), direction, width) / shift),
            direction=direction,
            width=width,
            shift=shift,
            contrast=rng.choice([-1, 1]) * rng.uniform(0.8, 1.4),
        )
        rest = np.zeros((rng.integers(5, 25), 24, 24))
        parts += [bar, rest]
        directions += [direction] * len(bar) + [np.nan] * len(rest)
    frames = np.concatenate(parts).astype(np.float32)
    return make_movie(frames, bin_width=0.01, epoch="bar"), np.array(directions)


def test_velocity_of_an_edge_is_motion_and_its_luminance_is_light():
    movie, directions = moving_edges()
    place = rc.stimulus_features(movie, at=(12, 12, 1.5))
    edge = np.diff(place["luminance"].values, prepend=0)
    along = np.nan_to_num(np.cos(np.radians(directions - 135)))
    biphasic = np.diff(np.r_[0, np.arange(20) * np.exp(-np.arange(20) / 3)])
    driven = [
        np.maximum(along, 0) * np.abs(edge),  # an edge's passing, in one direction
        along * np.abs(edge),
        np.maximum(edge, 0),  # an edge's passing, whichever way it goes
        np.maximum(-edge, 0),
        np.maximum(edge - 0.5 * edge.std(), 0) ** 2,
        np.maximum(np.convolve(place["luminance"], biphasic)[: edge.size], 0),
    ]
    rows = np.stack([np.r_[np.zeros(5), row[:-5]] / row.std() for row in driven])
    rows += 0.3 * np.random.default_rng(1).normal(size=rows.shape)
    loadings = xr.DataArray(rows, dims=("mode", "time"), coords={"time": movie["time"]})
    features = rc.stimulus_features(movie, at=(12, 12, 3))
    described = describe_modes(loadings, features, max_lag=0.2)
    assert list(described["label"].values) == ["motion"] * 2 + ["light"] * 4
    np.testing.assert_allclose(described["direction"][:2], 135, atol=10)
    assert list(described["subtype"].values[2:]) == ["ON", "OFF", "ON", "ON"]
    # Edges and light go together: alone, motion would explain what the light does.
    moving = [name for name in features if features[name].attrs["family"] == "motion"]
    alone = describe_modes(loadings, features[moving], max_lag=0.2)
    assert "motion" in set(alone["label"].values[2:])
