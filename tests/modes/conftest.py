"""Planted modes and stimuli that the tests of this room share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from retina_codec._common.time import block_coordinate, time_coordinate


def plant(
    seed: int, n: int = 6000, atoms: int = 12, columns: int = 16, noise: float = 0.02
) -> tuple[np.ndarray, np.ndarray]:
    """Contributions (n, columns) of sparse teams, and the teams in transformed units (up to RMS).

    Teams add up in the space of signed square roots, in which modes are fitted.
    """
    rng = np.random.default_rng(seed)
    dictionary = rng.normal(size=(atoms, columns))
    dictionary /= np.linalg.norm(dictionary, axis=1, keepdims=True)
    strength = (rng.random((n, atoms)) < 0.12) * rng.uniform(0.5, 1.5, (n, atoms))
    scaled = strength @ dictionary + noise * rng.normal(size=(n, columns))
    return scaled * np.abs(scaled), dictionary


def make_contribution(seed: int = 0, n: int = 600) -> xr.DataArray:
    """Contribution (time, cell, sign, channel) with blocks, labels and attrs."""
    values, _ = plant(seed, n=2 * n, columns=6, atoms=5)
    parts = np.stack([np.maximum(values, 0), np.minimum(values, 0)], axis=1)
    return xr.DataArray(
        parts.reshape(n, 2, 2, 6).astype(np.float32),
        dims=("time", "cell", "sign", "channel"),
        coords={
            "time": time_coordinate(np.arange(n) * 0.01, 0.01),
            "block": block_coordinate(np.repeat([0, 1], [n // 3, n - n // 3])),
            "cell": ["a", "b"],
            "sign": ["positive", "negative"],
            "channel": np.arange(6),
            "layer": "conv1",
        },
        name="contribution",
        attrs={"units": "Hz", "model": "abc", "completeness": 0.5},
    )


@pytest.fixture
def contribution() -> xr.DataArray:
    return make_contribution()


@pytest.fixture
def planted() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    return plant


@pytest.fixture
def movie_contribution() -> Callable[..., xr.DataArray]:
    return make_contribution
