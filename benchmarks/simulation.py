"""Speed and memory of the simulated retina, and what an LN model makes of it.

    python benchmarks/simulation.py [--minutes M] [--threads T] [--ln CIRCUIT ...]

Prints
- for 20 cells at 50 x 50 pixels and 100 Hz: seconds of movie simulated in a second, for Poisson
  and for refractory spikes, and the memory that this adds to a process of its own; the movie is
  lazy, made chunk by chunk, and making it is timed apart;
- with `--ln`: for each circuit named, the correlation of an LN model with the true rate on a
  held-out movie (10 minutes of natural and artificial movies to fit it on, natural movies of other
  parts of the photographs to test it on, 20 repeats), beside the ceiling that 20 repeats give.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time

import dask.array as da
import numpy as np
import torch
import xarray as xr

import retina_codec as rc

SIZE, PIXEL, BIN_WIDTH, CHUNK = 50, 50.0, 0.01, 1000
TEST_FRAMES, REPEATS = 3000, 20
HISTORY = 40


def lazy_noise(n_frames: int):
    """Noise in chunks of 10 s, each made when it is wanted."""

    def chunk(block_info=None):
        start, stop = block_info[None]["array-location"][0]
        rng = np.random.default_rng(start)
        return 2 * rng.integers(0, 2, size=(stop - start, SIZE, SIZE)).astype(np.float32) - 1

    frames = da.map_blocks(
        chunk,
        chunks=((CHUNK,) * (n_frames // CHUNK), (SIZE,), (SIZE,)),
        dtype=np.float32,
        meta=np.empty((0, 0, 0), dtype=np.float32),
    )
    return xr.DataArray(
        frames,
        dims=("time", "y", "x"),
        coords={
            "time": rc.time_coordinate(BIN_WIDTH * np.arange(n_frames), BIN_WIDTH),
            **{a: (a, PIXEL * (np.arange(SIZE) - 24.5), {"units": "um"}) for a in ("y", "x")},
        },
    )


def peak_memory() -> float:
    """Peak memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(minutes: float, threads: int, spiking: str) -> tuple[float, ...]:
    torch.set_num_threads(threads)
    rc.simulate_retina(lazy_noise(CHUNK), spiking=spiking)  # what is done once
    n_frames = round(minutes * 60 / BIN_WIDTH / CHUNK) * CHUNK
    movie = lazy_noise(n_frames)
    start = time.perf_counter()
    for i in range(0, n_frames, CHUNK):
        movie[i : i + CHUNK].values  # noqa: B018
    making = time.perf_counter() - start
    before = peak_memory()
    start = time.perf_counter()
    cpu = time.process_time()
    recording = rc.simulate_retina(movie, spiking=spiking)
    taken = time.perf_counter() - start
    cpu = time.process_time() - cpu
    n_cells = recording["train"].sizes["cell"]
    # The movie is looked through for NaN, then read: it is made twice.
    return n_frames * BIN_WIDTH, taken, cpu, 2 * making, peak_memory() - before, n_cells


def speed(minutes: float, threads: int) -> None:
    context = multiprocessing.get_context("spawn")
    for spiking in ("poisson", "refractory"):
        with context.Pool(1) as pool:
            found = pool.apply(measure, (minutes, threads, spiking))
        seconds, taken, cpu, making, memory, n_cells = found
        print(
            f"{spiking}: {n_cells} cells, {SIZE} x {SIZE}, {seconds:.0f} s of movie in "
            f"{taken:.1f} s ({cpu:.1f} s of CPU, {threads} threads; {making:.1f} s to make the "
            f"movie): {seconds / taken:.0f} x real time, {seconds / (taken - making):.0f} x "
            f"without making it; {memory:.0f} MB more than before"
        )


def linear_nonlinear(name: str) -> None:
    """How much of a circuit an LN model explains."""
    left, right = rc.stimuli.split_images(rc.stimuli.photographs())
    screen = rc.stimuli.Screen()
    train = rc.stimuli.concatenate(
        [
            screen.natural_movie(left, n_frames=40000, seed=1),
            screen.light_steps(n_frames=3333, seed=1),
            screen.moving_gratings(n_frames=3333, seed=1),
            screen.moving_bars(n_frames=3334, seed=1),
            screen.white_noise(n_frames=10000, seed=1),
        ]
    )
    test = screen.natural_movie(right, n_frames=TEST_FRAMES, seed=2)
    recording = rc.simulate_retina(
        {"train": train, "test": test}, name, seed=0, repeats={"test": REPEATS}
    )
    parts = rc.split(recording["train"].to_dataset(), gap=HISTORY)
    model = rc.models.LN.from_least_squares(
        parts["train"].to_dataset(),
        validation=parts["validation"].to_dataset(),
        history=HISTORY,
        progress=False,
    )
    node = recording["test"].to_dataset()
    predicted = model.predict(node["stimulus"])
    true = node["true_rate"].sel(time=predicted["time"])
    ceiling = rc.reliability(node, history=HISTORY)["cc_max"]
    print(
        f"{name}: r of LN with the true rate, and the ceiling of {REPEATS} repeats; by type, range"
    )
    for kind in dict.fromkeys(node["cell_type"].values.tolist()):
        cells = node["cell"].values[node["cell_type"].values == kind]
        r = [np.corrcoef(predicted.sel(cell=c), true.sel(cell=c))[0, 1] for c in cells]
        high = ceiling.sel(cell=cells).values
        print(
            f"  {kind:20s} r {min(r):5.2f} to {max(r):5.2f}   ceiling {high.min():.2f} to "
            f"{high.max():.2f}   {len(cells)} cells, {float(true.sel(cell=cells).mean()):.1f} Hz"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ln", nargs="*", default=[], metavar="CIRCUIT")
    given = parser.parse_args()
    if given.ln:
        torch.set_num_threads(given.threads)
        for name in given.ln:
            linear_nonlinear(name)
    else:
        speed(given.minutes, given.threads)


if __name__ == "__main__":
    main()
