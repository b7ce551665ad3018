"""A small model, a movie in two blocks, and all activations by plain torch."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from retina_codec._common.time import block_coordinate, time_coordinate
from retina_codec.interneurons import compare_interneurons
from retina_codec.models import LayerGeometry, from_module

HISTORY, BIN, FRAMES, SIZE = 4, 0.02, 1400, 6
LAYERS = ["0", "1", "3"]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(HISTORY, 3, 3),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(48, 2),
        nn.Softplus(),
    )
    geometry = LayerGeometry((1.0, 1.0))
    return from_module(
        net,
        history=HISTORY,
        bin_width=BIN,
        cells=["a", "b"],
        default_layers=LAYERS,
        geometry={"0": geometry, "1": geometry},
    )


@pytest.fixture(scope="module")
def movie():
    """Noise with a memory of some frames; two blocks with a gap between them."""
    values = np.random.default_rng(0).standard_normal((FRAMES, SIZE, SIZE))
    for t in range(1, FRAMES):
        values[t] = 0.6 * values[t - 1] + 0.8 * values[t]
    block = np.repeat([0, 1], [600, FRAMES - 600])
    return xr.DataArray(
        values,
        dims=("time", "y", "x"),
        coords={
            "time": time_coordinate(BIN * np.arange(FRAMES) + 3.0 * block, BIN),
            "block": block_coordinate(block),
            "y": ("y", np.arange(SIZE), {"units": "pixel"}),
            "x": ("x", np.arange(SIZE), {"units": "pixel"}),
        },
    )


@pytest.fixture(scope="module")
def activation(model, movie):
    """All activations of all layers (sample, unit), by plain torch on windows cut by hand."""
    kept = [t for t in range(FRAMES) if t >= HISTORY - 1 and not 600 <= t < 600 + HISTORY - 1]
    windows = np.stack([movie.values[t - HISTORY + 1 : t + 1] for t in kept])
    net = model.network.module
    with torch.no_grad():
        before = net[0](torch.as_tensor(windows, dtype=torch.float32))
        after = before.clamp(min=0)
        dense = net[3](after.flatten(1))
    samples = movie["time"].isel(time=kept)
    return {"0": before.numpy(), "1": after.numpy(), "3": dense.numpy()}, samples, np.array(kept)


def on_clock(values, movie):
    return xr.DataArray(
        values,
        dims=("time", "interneuron"),
        coords={"time": movie["time"]},
        name="potential",
        attrs={"units": "mV"},
    )


def recorded(activation, movie, traces):
    """Traces (sample, interneuron) on the movie's clock; other times are large, not to be used."""
    values = np.full((FRAMES, traces.shape[1]), 1e6)
    values[activation[2]] = traces
    return on_clock(values, movie)


def noise(movie, n, seed=0):
    """Autocorrelated noise (time, interneuron) about the resting potential."""
    values = np.random.default_rng(seed).standard_normal((FRAMES, n))
    for t in range(1, FRAMES):
        values[t] = 0.8 * values[t - 1] + 0.6 * values[t]
    return on_clock(values - 60, movie)


def compare(*args, **options):
    return compare_interneurons(*args, **{"n_shifts": 19, "progress": False, **options})
