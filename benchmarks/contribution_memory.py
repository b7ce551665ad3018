"""Memory of a decomposition that is streamed into a store, over the length of the movie.

    python benchmarks/contribution_memory.py [--minutes 1 2 4 8] [--steps 20] [--folder PLACE]

A BN-CNN of 20 cells on a memory-mapped movie of noise (50 x 50 pixels, 100 Hz, float32), reduced by
sign and space. Each run has a process of its own. Prints the peak of its memory (VmHWM), which
counts those pages of the movie that are mapped, and the peak without mapped files (RssAnon, looked
at every 10 ms), beside what the process held before the run; then the same over the number of
steps, and an hour, extrapolated. Linux only.

The heap of glibc keeps some of what is freed, in pieces, and more of it the longer a process runs.
With --return-freed arrays of a megabyte or more are given back to the system at once, so that what
is measured is what is held; that is somewhat slower.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
import xarray as xr

import retina_codec as rc

HISTORY, SIZE, CELLS, BIN_WIDTH = 40, 50, 20, 0.01
FRAMES_A_MINUTE = round(60 / BIN_WIDTH)
LOOK = 0.01


def write_movie(path: Path, n_frames: int) -> None:
    """Write noise, a second at a time."""
    frames = np.lib.format.open_memmap(path, "w+", np.float32, (n_frames, SIZE, SIZE))
    rng = np.random.default_rng(0)
    for start in range(0, n_frames, 100):
        part = frames[start : start + 100]
        part[:] = rng.standard_normal(part.shape, dtype=np.float32)
    frames.flush()


def memory(field: str) -> float:
    """Megabytes of a line of the process's status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith(f"{field}:"))


class Watch(threading.Thread):
    """Looks at the memory that is not of mapped files, and keeps the most."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0.0
        self.over = threading.Event()

    def run(self) -> None:
        """Look until it is over."""
        while not self.over.wait(LOOK):
            self.peak = max(self.peak, memory("RssAnon"))


def measure(movie: Path, store: Path, steps: int, threads: int) -> dict[str, float]:
    """Decompose a movie in this process."""
    torch.set_num_threads(threads)
    frames = np.load(movie, mmap_mode="r")
    onsets = rc.time_coordinate(np.arange(len(frames)) * BIN_WIDTH, BIN_WIDTH)
    data = xr.DataArray(frames, dims=("time", "y", "x"), coords={"time": onsets})
    torch.manual_seed(0)
    model = rc.models.BNCNN(
        (SIZE, SIZE), history=HISTORY, bin_width=BIN_WIDTH, cells=[f"c{i}" for i in range(CELLS)]
    )
    before = memory("RssAnon")
    watch = Watch()
    watch.start()
    start = time.perf_counter()
    rc.contributions(
        model,
        data,
        method=rc.methods.IntegratedGradients(steps=steps),
        split_sign=True,
        sum_over=("y", "x"),
        store=store,
        progress=False,
    )
    seconds = time.perf_counter() - start
    watch.over.set()
    watch.join()
    files = [path for path in store.rglob("*") if path.is_file()]
    return {
        "seconds": seconds,
        "before": before,
        "VmHWM": memory("VmHWM"),
        "RssAnon": watch.peak,
        "disk": sum(path.stat().st_size for path in files) / 1e6,
        "files": len(files),
    }


def apart(
    movie: Path, store: Path, steps: int, threads: int, return_freed: bool
) -> dict[str, float]:
    """Measure in a process of its own."""
    arguments = [str(movie), str(store), str(steps), str(threads)]
    malloc = {"MALLOC_MMAP_THRESHOLD_": "1000000"} if return_freed else {}
    done = subprocess.run(
        [sys.executable, __file__, "--measure", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **malloc},
    )
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout)
    return found


COLUMNS = "| {:>12s} | {:>8s} | {:>11s} | {:>12s} | {:>19s} | {:>11s} |"


def row(name: str, found: dict[str, float], movie: Path) -> str:
    return COLUMNS.format(
        name,
        f"{found['seconds']:.0f}",
        f"{movie.stat().st_size / 1e6:.0f}",
        f"{found['VmHWM']:.0f}",
        f"{found['before']:.0f} -> {found['RssAnon']:.0f}",
        f"{found['disk']:.1f}",
    )


def head(first: str) -> str:
    names = (first, "seconds", "movie, MB", "VmHWM, MB", "without files, MB", "store, MB")
    return COLUMNS.format(*names) + "\n" + COLUMNS.format(*["---"] * 6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--compare-steps", type=int, nargs="+", default=[10, 50])
    parser.add_argument("--compare-minutes", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--return-freed", action="store_true", help="see above")
    parser.add_argument("--folder", help="where movies and stores are put, and removed from")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        movie, store, steps, threads = options.measure
        found = measure(Path(movie), Path(store), int(steps), int(threads))
        sys.stdout.write(json.dumps(found))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        results = []
        freed = ", freed arrays returned" if options.return_freed else ""
        print(f"{options.steps} steps, {CELLS} cells, {options.threads} threads{freed}")
        print(head("minutes"), flush=True)
        for minutes in options.minutes:
            movie, store = folder / f"{minutes:g}.npy", folder / f"{minutes:g}.zarr"
            write_movie(movie, round(minutes * FRAMES_A_MINUTE))
            results.append(
                apart(movie, store, options.steps, options.threads, options.return_freed)
            )
            print(row(f"{minutes:g}", results[-1], movie), flush=True)
            movie.unlink()
        last, longest = results[-1], options.minutes[-1]
        print(
            f"An hour at {options.steps} steps, EXTRAPOLATED from {longest:g} minutes and not run: "
            f"{last['seconds'] * 60 / longest / 3600:.2f} h, a store of "
            f"{last['disk'] * 60 / longest / 1000:.2f} GB, memory without mapped files as above "
            f"(largest beyond what was held before: "
            f"{max(found['RssAnon'] - found['before'] for found in results):.0f} MB)"
        )
        print(f"\n{options.compare_minutes:g} minutes of movie\n{head('steps')}")
        movie = folder / "steps.npy"
        write_movie(movie, round(options.compare_minutes * FRAMES_A_MINUTE))
        peaks = []
        for steps in options.compare_steps:
            found = apart(
                movie, folder / f"steps{steps}.zarr", steps, options.threads, options.return_freed
            )
            peaks.append(found["RssAnon"])
            print(row(str(steps), found, movie), flush=True)
        print(f"last to first, without mapped files: {peaks[-1] / peaks[0]:.3f}")


if __name__ == "__main__":
    main()
