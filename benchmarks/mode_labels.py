"""How often `describe_modes` labels modes that carry nothing, or calls light motion.

    python benchmarks/mode_labels.py [--recordings N] [--first SEED] [--modes M] [--frames F]

Each surrogate recording has a movie of its own (in turn natural scenes with discs, and the probe
movie of labelled epochs) and two sets of modes: autocorrelated loadings that know nothing of the
stimulus (time constants of 30 to 300 ms; half of them sparse), of which none should get a label;
and loadings that follow one feature of light at some lag, half of them rectified, of which none
should be called motion or mixed. Loadings are those of three cells at three places. Prints both
counts, and seconds a recording.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import xarray as xr
from scipy.signal import lfilter

from retina_codec import stimuli
from retina_codec.modes import describe_modes

CELLS = ("a", "b", "c")


def movie(seed: int, n_frames: int) -> xr.DataArray:
    """Natural scenes for even seeds, epochs of light and motion for odd ones."""
    if seed % 2:
        probe = stimuli.probe_movie(seed=seed, n_cycles=-(-n_frames // 4900))
        return probe.isel(time=slice(n_frames))
    pictures = {str(i): stimuli.dead_leaves((120, 120), seed=seed + i) for i in range(2)}
    return stimuli.natural_movie(pictures, n_frames=n_frames, seed=seed)


def smooth(rng: np.random.Generator, n: int) -> np.ndarray:
    """Autocorrelated noise of unit variance."""
    decay = np.exp(-1 / rng.uniform(3, 30))
    signal = lfilter([1], [1, -decay], rng.normal(size=n + 300))[300:]
    return signal / signal.std()


def unrelated(rng: np.random.Generator, n: int, mode: int) -> np.ndarray:
    """Return loadings (time, cell) that share a time course and know nothing of the movie."""
    shared = smooth(rng, n)
    cells = np.stack([0.7 * shared + 0.7 * smooth(rng, n) for _ in CELLS], axis=1)
    return np.maximum(cells - 1, 0) if mode % 2 else cells


def light_driven(rng: np.random.Generator, features: xr.Dataset, mode: int) -> np.ndarray:
    """Return loadings (time, cell) that follow one feature of light at the cell's place."""
    names = [n for n in features if features[n].attrs["family"] == "light"]
    followed = features[rng.choice(names)].values
    followed = (followed - followed.mean(axis=0)) / (followed.std(axis=0) + 1e-12)
    followed = np.roll(followed, int(rng.integers(2, 12)), axis=0)
    n = len(followed)
    noise = rng.uniform(0.3, 1) * np.stack([smooth(rng, n) for _ in CELLS], axis=1)
    return np.maximum(followed + noise, 0) if mode % 2 else followed + noise


def labels_of(seed: int, n_modes: int, n_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of unrelated modes, and of modes that follow light."""
    rng = np.random.default_rng([seed, 5])
    shown = movie(seed, n_frames)
    at = xr.Dataset(
        {axis: ("cell", rng.uniform(6, 17, len(CELLS))) for axis in "yx"}, {"cell": list(CELLS)}
    )
    features = stimuli.stimulus_features(shown, at=at)
    n = shown.sizes["time"]
    sets = (
        [unrelated(rng, n, mode) for mode in range(n_modes)],
        [light_driven(rng, features, mode) for mode in range(n_modes)],
    )
    found = []
    for rows in sets:
        loadings = xr.DataArray(
            np.stack(rows, axis=2),
            dims=("time", "cell", "mode"),
            coords={"time": features["time"], "cell": list(CELLS)},
        )
        if "block" in features.coords:
            loadings = loadings.assign_coords(block=features["block"])
        found.append(describe_modes(loadings, features, max_lag=0.2).label.values)
    return found[0], found[1]


def main() -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recordings", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="seed of the first recording")
    parser.add_argument("--modes", type=int, default=8)
    parser.add_argument("--frames", type=int, default=3000)
    told = parser.parse_args()
    counts: dict[str, dict[str, int]] = {"unrelated": {}, "light": {}}
    start = time.process_time()
    for done, seed in enumerate(range(told.first, told.first + told.recordings), start=1):
        for name, labels in zip(counts, labels_of(seed, told.modes, told.frames), strict=True):
            for label in labels:
                counts[name][str(label)] = counts[name].get(str(label), 0) + 1
        if done % 20 == 0:
            print(done, counts, f"{(time.process_time() - start) / done:.1f} s", flush=True)
    n = told.recordings * told.modes
    some = n - counts["unrelated"].get("none", 0)
    moving = counts["light"].get("motion", 0) + counts["light"].get("mixed", 0)
    print(f"{told.recordings} surrogate recordings of {told.modes} modes, {told.frames} frames")
    print(f"unrelated modes with any label: {some} of {n} ({100 * some / n:.1f} %)")
    print(f"modes of light called motion or mixed: {moving} of {n} ({100 * moving / n:.1f} %)")


if __name__ == "__main__":
    main()
