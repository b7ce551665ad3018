"""Opening large recordings, beside neo's own reading of the same files, in one run.

    python benchmarks/recordings.py [--units N] [--spikes N] [--frames N] [--folder PATH]

Writes NWB and NIX files of many spikes, and a movie, to a folder (by default one that is removed
again), and opens each in a process of its own. Prints, for each: seconds, and the peak memory
of the process beyond that of its imports; and the ratio of neo's figures, which makes an object of
each spike train, to ours. Of the movie it prints the same for opening it with its spikes, and for
the spike-triggered average of one cell over a tenth of it.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import h5py  # noqa: F401  (all that readers need is imported before memory is measured)
import neo
import nixio  # noqa: F401
import numpy as np
import pynwb  # noqa: F401
import xarray as xr

import retina_codec as rc
from retina_codec.recordings import open_recording, save_recording
from retina_codec.recordings.spikes import SpikeTimes

DURATION = 3600.0
FLICKER_FRAMES = 36_000  # ten a second: what is measured is the spikes
MOVIE_CELLS = 20
HISTORY = 40


def write_spikes(folder: Path, n_units: int, n_spikes: int) -> None:
    """Save one recording of `n_units` cells as NWB and as NIX, its movie as .npy."""
    rng = np.random.default_rng(0)
    counts = rng.multinomial(n_spikes, np.full(n_units, 1 / n_units))
    times = np.concatenate([np.sort(rng.uniform(0, DURATION, n)) for n in counts])
    spikes = SpikeTimes(times, np.r_[0, np.cumsum(counts)], [f"C{i}" for i in range(n_units)])
    np.save(folder / "flicker.npy", rng.normal(size=FLICKER_FRAMES).astype(np.float32))
    save_with_marks(spikes, FLICKER_FRAMES, folder, ("nwb", "nix"))


def save_with_marks(
    spikes: SpikeTimes, n_frames: int, folder: Path, suffixes: tuple[str, ...], name: str = "spikes"
) -> None:
    """Save spikes and frame marks, with a node of two frames, since a recording must have one."""
    first = SpikeTimes(spikes.of(0), np.array([0, len(spikes.of(0))]), spikes.ids[:1])
    marks = np.arange(n_frames) * DURATION / n_frames
    time_ = rc.time_coordinate(marks[:2], DURATION / n_frames)
    counts = xr.DataArray(
        first.count(marks[:3]), dims=("time", "cell"), coords={"time": time_, "cell": first.ids}
    )
    stimulus = xr.DataArray(np.zeros((2, 1, 1), np.float32), dims=("time", "y", "x"))
    recording = xr.DataTree.from_dict(
        {
            "/sample": xr.Dataset({"spike_count": counts, "stimulus": stimulus}),
            "/spikes": spikes.to_dataset(),
            "/frames": xr.Dataset({"frame_time": ("frame", marks)}),
        }
    )
    for suffix in suffixes:
        began = time.perf_counter()
        path = save_recording(recording, folder / f"{name}.{suffix}")
        size = path.stat().st_size / 1e6
        seconds = time.perf_counter() - began
        report(f"written {path.name}", f"{seconds:8.1f} s   {size:6.0f} MB on disk")


def write_movie(folder: Path, n_frames: int) -> None:
    """Write a movie of 50 x 50 pixels, and spikes of some cells, at 100 Hz."""
    rng = np.random.default_rng(1)
    movie = np.lib.format.open_memmap(
        folder / "movie.npy", "w+", dtype=np.uint8, shape=(n_frames, 50, 50)
    )
    for start in range(0, n_frames, 10_000):
        part = movie[start : start + 10_000]
        part[:] = rng.integers(0, 256, part.shape, dtype=np.uint8)
    movie.flush()
    del movie
    last = n_frames * 0.01
    counts = rng.poisson(10 * last, MOVIE_CELLS)
    times = np.concatenate([np.sort(rng.uniform(0, last, n)) for n in counts])
    spikes = SpikeTimes(times, np.r_[0, np.cumsum(counts)], [f"C{i}" for i in range(MOVIE_CELLS)])
    np.save(folder / "marks.npy", np.arange(n_frames) * 0.01)
    save_with_marks(spikes, 1000, folder, ("nwb",), name="movie")


def ours(path: Path) -> int:
    recording = open_recording(path, stimulus="flicker.npy", frame_times="frames")
    return int(recording["spikes"].sizes["spike"])


def neo_nwb(path: Path) -> int:
    logging.disable()
    blocks = neo.io.NWBIO(str(path), mode="r").read_all_blocks()
    return sum(len(t) for b in blocks for s in b.segments for t in s.spiketrains)


def neo_nix(path: Path) -> int:
    io = neo.NixIO(str(path), mode="ro")
    trains = io.read_block().segments[0].spiketrains
    io.close()
    return sum(len(train) for train in trains)


def open_movie_with_spikes(path: Path) -> int:
    node = open_recording(path, stimulus="movie.npy", frame_times="marks.npy")["train"]
    return int(node.sizes["time"])


def average(path: Path) -> int:
    node = open_recording(path, stimulus="movie.npy", frame_times="marks.npy")["train"]
    part = node.to_dataset().isel(time=slice(0, node.sizes["time"] // 10), cell=[0])
    began = time.perf_counter()
    rc.spike_triggered_average(part, history=HISTORY).load()
    print(json.dumps({"inner": time.perf_counter() - began}))
    return int(part.sizes["time"])


MEASURED: dict[str, Callable[[Path], int]] = {
    "ours": ours,
    "neo_nwb": neo_nwb,
    "neo_nix": neo_nix,
    "movie": open_movie_with_spikes,
    "average": average,
}


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_here(what: str, path: Path) -> None:
    """Run one of `MEASURED`, in this process, and print what it took as JSON."""
    warnings.simplefilter("ignore")
    before, began = peak_mb(), time.perf_counter()
    n = MEASURED[what](path)
    took = {"seconds": time.perf_counter() - began, "mb": peak_mb() - before, "n": n}
    print(json.dumps(took))


def measured(what: str, path: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--part", what, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = {}
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            found |= json.loads(line)
    return found


def report(what: str, text: str) -> None:
    print(f"{what:42s} {text}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=3000)
    parser.add_argument("--spikes", type=int, default=10_000_000)
    parser.add_argument("--frames", type=int, default=360_000, help="of the movie, at 100 Hz")
    parser.add_argument("--folder", type=Path, help="where to write; kept")
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        what, place = arguments.part[0], Path(arguments.part[1])
        if what == "write":
            write_spikes(place, arguments.units, arguments.spikes)
            write_movie(place, arguments.frames)
        else:
            measure_here(what, place)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        # A process starts with the peak of the one that started it: this one stays small.
        numbers = [f"--{key}={getattr(arguments, key)}" for key in ("units", "spikes", "frames")]
        write = [sys.executable, __file__, "--part", "write", str(folder), *numbers]
        subprocess.run(write, check=True)
        for suffix in ("nwb", "nix"):
            path = folder / f"spikes.{suffix}"
            own, other = measured("ours", path), measured(f"neo_{suffix}", path)
            for who, found in (("open_recording", own), ("neo", other)):
                report(
                    f"{who} {path.name}",
                    f"{found['seconds']:8.2f} s   {found['mb']:6.0f} MB   {found['n']} spikes",
                )
            ratios = [other[key] / max(own[key], 1e-3) for key in ("seconds", "mb")]
            report("  neo / ours", f"{ratios[0]:8.1f}     {ratios[1]:6.1f}")
        path = folder / "movie.nwb"
        opened = measured("movie", path)
        report(
            f"open_recording, {int(opened['n'])} frames of 50 x 50",
            f"{opened['seconds']:8.2f} s   {opened['mb']:6.0f} MB",
        )
        found = measured("average", path)
        report(
            f"and a triggered average over {int(found['n'])} frames",
            f"{found['inner']:8.2f} s   {found['mb']:6.0f} MB",
        )


if __name__ == "__main__":
    main()
