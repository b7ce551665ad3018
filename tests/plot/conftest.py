"""Synthetic results of every kind that is drawn, in the shapes that the other rooms give."""

from __future__ import annotations

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

from retina_codec._common.time import block_coordinate, time_coordinate

N, BIN = 600, 0.01
CELLS = [f"cell {i:02d}" for i in range(6)]
FEATURES = {
    "luminance": "light",
    "luminance_on": "light",
    "luminance_off": "light",
    "contrast": "light",
    "velocity_x": "motion",
    "velocity_y": "motion",
    "speed": "motion",
    "differential_motion": "motion",
}


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def time():
    """Two blocks of 3 s, 1 s apart."""
    onsets = np.r_[np.arange(300) * BIN, 4 + np.arange(300) * BIN]
    return {
        "time": time_coordinate(onsets, BIN),
        "block": block_coordinate(np.repeat([0, 1], 300)),
        "epoch": ("time", np.repeat(["transition", "on_step", "grating", "bar"], 150)),
    }


@pytest.fixture
def node(rng, time):
    rate = rng.gamma(1.0, 15.0, size=(N, len(CELLS)))
    counts = rng.poisson(rate * BIN, size=(5, *rate.shape))
    movie = rng.normal(size=(N, 8, 8)).astype(np.float32)
    return xr.Dataset(
        {
            "spike_count": (("repeat", "time", "cell"), counts),
            "true_rate": (("time", "cell"), rate, {"units": "Hz"}),
            "stimulus": (("time", "y", "x"), movie, {"units": "1", "long_name": "contrast"}),
        },
        coords={**time, "cell": CELLS},
    )


@pytest.fixture
def evaluation(rng):
    values = {}
    for score in ("pearson_r", "cc_norm", "fev", "deviance_explained"):
        middle = rng.uniform(0.4, 0.9, len(CELLS))
        values |= {score: middle, f"{score}_low": middle - 0.1, f"{score}_high": middle + 0.05}
    values["cc_max"] = np.full(len(CELLS), 0.95)
    return xr.Dataset({k: ("cell", v) for k, v in values.items()}, coords={"cell": CELLS})


@pytest.fixture
def contribution(rng, time):
    values = rng.normal(size=(N, len(CELLS), 2, 4))
    values = np.abs(values) * np.array([1, -1])[:, None]
    return xr.DataArray(
        values,
        dims=("time", "cell", "sign", "channel"),
        coords={
            **time,
            "cell": CELLS,
            "sign": ["positive", "negative"],
            "channel": np.arange(4),
        },
        name="contribution",
        attrs={"units": "Hz", "long_name": "contribution of conv1"},
    )


@pytest.fixture
def dictionary(rng):
    return xr.DataArray(
        rng.normal(size=(5, 2, 4)),
        dims=("mode", "sign", "channel"),
        coords={"mode": np.arange(5), "sign": ["positive", "negative"], "channel": np.arange(4)},
        attrs={"units": "1", "long_name": "weight in the mode"},
    )


@pytest.fixture
def loadings(rng, time):
    values = np.maximum(rng.normal(size=(N, len(CELLS), 5)), 0)
    return xr.DataArray(
        values,
        dims=("time", "cell", "mode"),
        coords={**time, "cell": CELLS, "mode": np.arange(5)},
        attrs={"units": "1", "long_name": "strength of the mode"},
    )


@pytest.fixture
def description(rng):
    r = rng.uniform(-0.8, 0.8, size=(5, len(FEATURES)))
    return xr.Dataset(
        {
            "partial_r": (("mode", "feature"), r),
            "q_value": (("mode", "feature"), np.where(np.abs(r) > 0.5, 0.01, 0.6)),
            "lag": (("mode", "feature"), np.full(r.shape, 0.05), {"units": "s"}),
            "label": ("mode", ["light", "motion", "mixed", "none", "light"]),
            "subtype": (
                "mode",
                ["ON", "translation (90 deg)", "OFF + object motion", "none", "contrast"],
            ),
        },
        coords={
            "mode": np.arange(5),
            "feature": list(FEATURES),
            "family": ("feature", list(FEATURES.values())),
        },
    )


@pytest.fixture
def selectivity():
    kinds = ["bar", "grating", "off_step", "on_step", "still"]
    best = np.array([0.95, 0.9, 0.99, 0.98, 0.6])
    return xr.Dataset(
        {
            "best_auc": ("epoch", best),
            "best_auc_low": ("epoch", best - 0.05),
            "best_auc_high": ("epoch", np.minimum(best + 0.03, 1)),
            "best_mode": ("epoch", np.arange(5)),
        },
        coords={"epoch": kinds},
    )


@pytest.fixture
def matches(rng):
    types = ["bipolar ON"] * 3 + ["bipolar OFF"] * 3 + ["amacrine wide"] * 2
    return xr.Dataset(
        {
            "best_r": ("interneuron", np.linspace(0.9, 0.2, 8)),
            "null_r": ("interneuron", np.full(8, 0.3)),
            "p_value": ("interneuron", np.r_[np.full(5, 0.001), np.full(3, 0.4)]),
        },
        coords={
            "interneuron": [f"i{n}" for n in range(8)],
            "type": ("interneuron", types),
        },
    )
