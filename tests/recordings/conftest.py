"""Synthetic recordings in the exact layout of the text folders, and nodes of recordings."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from retina_codec._common.time import block_coordinate, time_coordinate

RUNNING, FROZEN, BLOCKS = 30, 12, 4
PERIOD = RUNNING + FROZEN
BIN_WIDTH = 0.02


def write_column(path: Path, values) -> None:
    path.write_text("".join(f"{value!r}\n" for value in np.asarray(values, dtype=float).tolist()))


@pytest.fixture
def text_folder(tmp_path) -> Callable[..., Path]:
    """Write a frozen-noise folder: 4 complete blocks, then stimulus past the marks."""

    def write(
        *, marks=None, stimulus=None, spikes=None, plan: str | None = "default", name="noise"
    ) -> Path:
        rng = np.random.default_rng(3)
        folder = tmp_path / name
        folder.mkdir()
        if stimulus is None:
            stimulus = rng.normal(size=BLOCKS * PERIOD + 25)
            for block in range(1, BLOCKS):
                start = block * PERIOD + RUNNING
                stimulus[start : start + FROZEN] = stimulus[RUNNING:PERIOD]
        if marks is None:
            n = BLOCKS * PERIOD + 17
            marks = 0.5 + np.arange(n) * BIN_WIDTH + rng.uniform(0, 1e-4, n)
        if spikes is None:
            spikes = {f"C{k}": np.sort(rng.uniform(0, 5, 60 * k)) for k in (1, 2, 10)}
        write_column(folder / "frametimes_flicker.txt", marks)
        write_column(folder / "stimulus_flicker.txt", stimulus)
        for cell, times in spikes.items():
            write_column(folder / f"flicker_{cell}.txt", times)
            write_column(folder / f"STA_{cell}.txt", [0.5, 0.1])
        if plan == "default":
            plan = (
                "FrozenNoise\nstixelwidth = 800\nblackwhite = false\n"
                f"RunningFrames={RUNNING}\nFrozenFrames={FROZEN}\n"
            )
        if plan is not None:
            (folder / "01_frozen_gauss.txt").write_text(plan)
        return folder

    return write


def node(
    lengths=(60, 50), *, n_cells=2, n_repeats=None, shape=(1, 1), seed=0, dims=("y", "x")
) -> xr.Dataset:
    """Node with random stimulus and counts, one block for each of `lengths`."""
    rng = np.random.default_rng(seed)
    n = sum(lengths)
    counts = rng.poisson(0.7, (n_repeats or 1, n, n_cells)).astype(np.int32)
    count_dims = ("repeat", "time", "cell")
    if n_repeats is None:
        counts, count_dims = counts[0], count_dims[1:]
    numbers = np.repeat(np.arange(len(lengths)), lengths)
    onsets = np.arange(n) * BIN_WIDTH + numbers * 1.0
    return xr.Dataset(
        {
            "stimulus": (("time", *dims), rng.normal(0.4, 1, (n, *shape)).astype(np.float32)),
            "spike_count": (count_dims, counts),
        },
        coords={
            "time": time_coordinate(onsets, BIN_WIDTH),
            "block": block_coordinate(numbers),
            "cell": [f"C{i + 1}" for i in range(n_cells)],
        },
    )


@pytest.fixture
def make_node() -> Callable[..., xr.Dataset]:
    return node
