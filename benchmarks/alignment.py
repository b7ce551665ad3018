"""Verdicts of `check_alignment` on real, damaged and simulated recordings.

    RETINA_CODEC_DATA=<folder> python benchmarks/alignment.py [--simulations N] [--damaged M]

Prints one line a recording: the verdict, what was planted and what was found, and the seconds it
took; then, over the simulated recordings (linear-nonlinear cells whose gain drifts by a factor of
up to 3, some overdispersed; full fields and small movies), the number of false alarms and how many
of each kind of damage were found. The real recordings are left out where they are absent.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from pathlib import Path

import numpy as np
import scipy.io
import xarray as xr

from retina_codec._common.time import time_coordinate
from retina_codec.recordings.alignment import check_alignment
from retina_codec.recordings.plan import FrozenNoise

DAMAGES = ("cut", "extra", "swap", "tail", "drift", "offset")
EXPECTED = {
    "cut": "shift",
    "extra": "shift",
    "swap": "not_followed",
    "tail": "not_followed",
    "drift": "drift",
}


def node(stimulus: np.ndarray, marks: np.ndarray, spikes: dict[str, np.ndarray]) -> xr.Dataset:
    """Node of a recording: frame i lasts from mark i to mark i + 1."""
    stimulus = np.asarray(stimulus, dtype=np.float32)
    if stimulus.ndim == 1:
        stimulus = stimulus[:, None, None]
    n = len(stimulus)
    edges = np.append(marks, marks[-1] + np.diff(marks).mean())[: n + 1]
    counts = np.stack([np.histogram(times, edges)[0] for times in spikes.values()], axis=1)
    return xr.Dataset(
        {
            "stimulus": (("time", "y", "x"), stimulus),
            "spike_count": (("time", "cell"), counts.astype(np.int32)),
        },
        coords={
            "time": time_coordinate(edges[:n], float(np.diff(edges).mean())),
            "cell": list(spikes),
        },
    )


def simulated(seed: int, *, shorter: float = 1.0) -> tuple[np.ndarray, np.ndarray, dict]:
    """Movie, marks and spike times of a random clean recording of linear-nonlinear cells."""
    rng = np.random.default_rng([seed, 17])
    refresh = rng.choice([60.0, 75.0, 100.0])
    n = int(shorter * refresh * rng.uniform(150, 400))
    size = int(rng.choice([1, 1, 4, 6]))
    n_cells = int(rng.integers(3, 12))
    if rng.random() < 0.5:
        movie = rng.normal(size=(n, size, size))
    else:
        movie = rng.choice([-1.0, 1.0], size=(n, size, size))
    lags = np.arange(round(0.3 * refresh)) / refresh
    marks = 0.5 + np.arange(n + 1) / refresh
    spikes = {}
    at = (np.arange(n) + 0.5) / n
    for cell in range(n_cells):
        peak, sign = rng.uniform(0.04, 0.09), rng.choice([-1, 1])
        kernel = np.exp(-(((lags - peak) / 0.02) ** 2) / 2)
        kernel -= rng.uniform(0.2, 0.7) * np.exp(-(((lags - 1.8 * peak) / 0.03) ** 2) / 2)
        place = np.exp(
            -((np.arange(size)[:, None] - rng.uniform(0, size - 1)) ** 2)
            - (np.arange(size) - rng.uniform(0, size - 1)) ** 2
        )
        light = movie.reshape(n, -1) @ place.ravel() / np.linalg.norm(place)
        drive = np.convolve(light, sign * kernel / np.linalg.norm(kernel))[:n]
        # Gain and excitability drift slowly, each by a factor of up to 3.
        steepness = rng.uniform(0.8, 1.6) * 1.7 ** np.sin(np.pi * (rng.uniform(1, 3) * at + cell))
        level = rng.uniform(3, 25) * 1.7 ** np.sin(np.pi * (rng.uniform(1, 4) * at + 2 * cell))
        rate = np.log1p(np.exp(2 * steepness * drive - 1))
        rate *= level / rate.mean() / refresh
        if seed % 3 == 0:  # overdispersed: excitability also wanders within seconds
            slow = np.repeat(rng.gamma(3, 1 / 3, size=n // 40 + 1), 40)[:n]
            rate = rate * slow
        counts = rng.poisson(np.minimum(rate, 8))
        when = np.repeat(marks[:-1], counts) + rng.uniform(0, 1 / refresh, counts.sum())
        spikes[f"cell {cell}"] = np.sort(when)
    return movie, marks, spikes


def damaged(movie: np.ndarray, marks: np.ndarray, spikes: dict, kind: str, seed: int) -> xr.Dataset:
    """Node of a recording with one planted damage, noted in its attrs."""
    rng = np.random.default_rng([seed, 23])
    n = len(movie)
    movie, at = movie.copy(), int(rng.uniform(0.2, 0.8) * n)
    if kind == "cut":
        movie = np.concatenate([movie[:at], movie[at + 1 :]])
    elif kind == "extra":
        movie = np.concatenate([movie[:at], movie[at : at + 1], movie[at:-1]])
    elif kind == "swap":
        length = n // 25
        a, b = int(0.15 * n), int(0.6 * n)
        first, second = movie[a : a + length].copy(), movie[b : b + length].copy()
        movie[a : a + length], movie[b : b + length] = second, first
        at = a
    elif kind == "tail":
        at = int(0.95 * n)
        movie[at:] = movie[n // 5 : n // 5 + n - at]
    elif kind == "drift":
        # 100 ppm, or what makes 40 ms in a short recording.
        change = rng.choice([-1, 1]) * max(100e-6, 0.040 / np.ptp(marks))
        spikes = {cell: times * (1 + change) for cell, times in spikes.items()}
        at = round(1e6 * change)
    elif kind == "offset":
        spikes = {cell: times + 4.2 for cell, times in spikes.items()}
        at = 0
    return node(movie, marks[: len(movie) + 1], spikes).assign_attrs(planted=kind, at=at)


def found_rightly(found: xr.Dataset, kind: str) -> bool:
    """Whether the damage planted was found as what it is."""
    if kind == "offset":
        return found.attrs["verdict"] != "aligned"
    alarms = found["kind"].values[found["alarm"].values]
    return found.attrs["verdict"] == "misaligned" and EXPECTED[kind] in alarms


def show(name: str, data: xr.Dataset, **options: object) -> xr.Dataset:
    start = time.perf_counter()
    found = check_alignment(data, **options)
    seconds = time.perf_counter() - start
    print(
        f"{name:28s} {found.attrs['verdict']:12s} {seconds:5.1f} s  {found.attrs['reason'][:230]}"
    )
    return found


def real_recordings(folder: Path) -> None:
    noise = folder / "ganglion_fullfield_noise"
    marks = np.loadtxt(noise / "frametimes_fullfieldnoise.txt")
    stimulus = np.loadtxt(noise / "stimulus_fullfieldnoise.txt")
    spikes = {f"C{k}": np.loadtxt(noise / f"fullfieldnoise_C{k}.txt") for k in range(1, 9)}
    clean, ends = stimulus[:98400], marks[:98401]
    show("noise, all marks", node(stimulus[: len(marks)], marks, spikes))
    plan = FrozenNoise(1800, 600)
    show("noise, all marks, plan", node(stimulus[: len(marks)], marks, spikes), plan=plan)
    show("noise, frames 0..98399", node(clean, ends, spikes))
    for at in (24600, 49200, 78720):
        show(f"  cut at {at}", node(np.delete(stimulus[:98401], at), ends, spikes))
    swapped = clean.copy()
    swapped[24000:26400], swapped[60000:62400] = clean[60000:62400], clean[24000:26400]
    show("  24000.. and 60000.. swapped", node(swapped, ends, spikes))
    for change in (100, -100):
        moved = {cell: times * (1 + 1e-6 * change) for cell, times in spikes.items()}
        show(f"  clock {change:+d} ppm", node(clean, ends, moved))
    for offset in (5.0, -3.0):
        moved = {cell: times + offset for cell, times in spikes.items()}
        show(f"  spikes {offset:+g} s", node(clean, ends, moved))
    file = scipy.io.loadmat(folder / "ganglion_binary_noise" / "RGCdata.mat")
    width = float(np.ravel(file["dtStim"])[0])
    movie, counts = file["Stim"].astype(np.float32), file["SpCounts"].astype(np.int32)
    show(
        "binary noise",
        xr.Dataset(
            {
                "stimulus": (("time", "y", "x"), movie[:, :, None]),
                "spike_count": (("time", "cell"), counts),
            },
            coords={
                "time": time_coordinate(np.arange(len(movie)) * width, width),
                "cell": ["1", "2", "3", "4"],
            },
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=100)
    parser.add_argument("--damaged", type=int, default=30, help="simulations that are damaged")
    chosen = parser.parse_args()
    folder = os.environ.get("RETINA_CODEC_DATA")
    if folder:
        real_recordings(Path(folder))
    verdicts: Counter[str] = Counter()
    hits: Counter[str] = Counter()
    for seed in range(chosen.simulations):
        if seed and seed % 10 == 0:
            print(f"after {seed} simulations: {dict(verdicts)}; found {dict(hits)}")
        movie, marks, spikes = simulated(seed)
        found = check_alignment(node(movie, marks, spikes))
        verdicts[found.attrs["verdict"]] += 1
        if found.attrs["verdict"] != "aligned":
            print(f"simulation {seed}, clean: {found.attrs['reason']}")
        for kind in DAMAGES if seed < chosen.damaged else ():
            data = damaged(movie, marks, spikes, kind, seed)
            found = check_alignment(data)
            right = found_rightly(found, kind)
            hits[kind] += right
            if not right:
                print(
                    f"simulation {seed}, {kind} at {data.attrs['at']}: missed, "
                    f"{found.attrs['verdict']}: {found.attrs['reason']}"
                )
    print(f"{chosen.simulations} clean simulations: {dict(verdicts)}")
    print(
        "damage found as what it is: "
        + ", ".join(f"{k} {hits[k]}/{chosen.damaged}" for k in DAMAGES)
    )


if __name__ == "__main__":
    main()
