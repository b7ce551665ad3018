"""Contributions of a BN-CNN of the retina, beside Captum and the bare network, in one run.

    python benchmarks/contributions.py [--frames N] [--steps S]

Prints, for one layer and all cells: milliseconds per time point, the ratio of each to ours (median
over repeats of the paired runs), the peak memory of the process, and the largest difference
between our numbers and Captum's at the same rule, relative to the largest contribution.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time

import numpy as np
import torch
import xarray as xr
from captum.attr import LayerConductance

import retina_codec as rc

HISTORY, SIZE, CELLS = 40, 50, 5
REPEATS = 3


def movie_of(n_frames: int) -> xr.DataArray:
    values = np.random.default_rng(0).normal(size=(n_frames, SIZE, SIZE)).astype(np.float32)
    time_ = rc.time_coordinate(np.arange(n_frames) * 0.01, 0.01)
    return xr.DataArray(values, dims=("time", "y", "x"), coords={"time": time_})


def ours(model: rc.Model, movie: xr.DataArray, steps: int) -> np.ndarray:
    method = rc.methods.IntegratedGradients(steps=steps, rule="left")
    tree = rc.contributions(model, movie, layers="conv2", method=method, progress=False)
    return tree["layers/conv2"]["contribution"].values


def captum(model: rc.Model, movie: xr.DataArray, steps: int) -> np.ndarray:
    frames = torch.from_numpy(movie.values)
    windows = frames.unfold(0, HISTORY, 1).movedim(-1, 1)
    conductance = LayerConductance(model.network, model.layers["conv2"])
    parts = [
        conductance.attribute(
            windows, target=cell, n_steps=steps, method="riemann_trapezoid",
            internal_batch_size=len(windows),
        ).detach()
        for cell in range(CELLS)
    ]  # fmt: skip
    return torch.stack(parts, 1).numpy()


def bare(model: rc.Model, movie: xr.DataArray, steps: int) -> None:
    """S + 1 forward and backward passes for each cell, on windows: what any method needs."""
    windows = torch.from_numpy(movie.values).unfold(0, HISTORY, 1).movedim(-1, 1)
    for _ in range(steps + 1):
        outputs = model.network(windows.clone().requires_grad_())
        for cell in range(CELLS):
            outputs[:, cell].sum().backward(retain_graph=cell + 1 < CELLS)


def timed(function: object, *arguments: object) -> tuple[float, object]:
    start = time.perf_counter()
    result = function(*arguments)  # type: ignore[operator]
    return time.perf_counter() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=103)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    movie = movie_of(options.frames)
    n = options.frames - HISTORY + 1
    model = rc.models.BNCNN(
        (SIZE, SIZE), history=HISTORY, bin_width=0.01, cells=[f"c{i}" for i in range(CELLS)]
    )
    ours(model, movie, 2)  # warm-up
    ratios: dict[str, list[float]] = {"captum": [], "bare": []}
    seconds: list[float] = []
    for _ in range(REPEATS):
        spent, found = timed(ours, model, movie, options.steps)
        seconds.append(spent)
        spent_captum, expected = timed(captum, model, movie, options.steps)
        ratios["captum"].append(spent_captum / spent)
        ratios["bare"].append(timed(bare, model, movie, options.steps)[0] / spent)
    found, expected = np.asarray(found), np.asarray(expected)
    difference = np.abs(found - expected).max() / np.abs(expected).max()
    print(f"BN-CNN {HISTORY} x {SIZE} x {SIZE}, {CELLS} cells, {options.steps} steps, {n} points")
    print(f"ours     {1000 * statistics.median(seconds) / n:8.1f} ms per time point, all cells")
    for name, values in ratios.items():
        print(f"{name:8s} {statistics.median(values):8.1f} times as long")
    print(f"largest difference from captum, relative: {difference:.1e}")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB")


if __name__ == "__main__":
    main()
