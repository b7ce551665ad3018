"""The facts stated with the real recordings, beside what this package finds in them.

    RETINA_CODEC_DATA=... python benchmarks/facts.py

Reads the tables of the README.md in that folder (figures of independent scripts), opens the
recordings, and prints for every column of every table the largest difference between the two, and
the values of one cell as an example. A number the README prints with d decimals can differ by half
a unit of the last; columns with random splits or permutations differ by chance.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
import xarray as xr

import retina_codec as rc
from retina_codec.models.nonlinearities import HistogramNonlinearity
from retina_codec.recordings import (
    direction_selectivity,
    direction_tuning,
    on_off_index,
    psth,
    quality,
)
from retina_codec.recordings.spikes import SpikeTimes

Column = dict[str, float]


def tables(text: str) -> list[dict[str, dict[str, str]]]:
    """Tables whose first column is `cell`: column -> cell -> text."""
    found = []
    for block in re.findall(r"^\| cell \|.*\n\|[-|]+\|\n(?:\|.*\n?)+", text, re.M):
        rows = [[word.strip() for word in line.strip().strip("|").split("|")]
                for line in block.strip().split("\n")]  # fmt: skip
        found.append(
            {name: {row[0]: row[i] for row in rows[2:]} for i, name in enumerate(rows[0]) if i}
        )
    return found


def numbers(column: dict[str, str], part: int = 0, split: str = r"[ /@]+") -> Column:
    """One number of each entry of a column, such as the second of ``0.923 / 0.936``."""
    values = {}
    for cell, entry in column.items():
        words = [
            word for word in re.split(split, entry.replace("(", " ").replace(")", " ")) if word
        ]
        values[cell] = float(words[part].replace("+", "").replace("<", ""))
    return values


def compare(name: str, theirs: Column, ours: dict[str, float], decimals: int) -> None:
    """Print the largest difference, and the first cell's two numbers."""
    off = {cell: abs(theirs[cell] - float(ours[cell])) for cell in theirs}
    worst = max(off, key=lambda cell: off[cell])
    first = next(iter(theirs))
    print(
        f"  {name:34s} {theirs[first]:>10.{decimals}f} {float(ours[first]):>12.{decimals + 2}f}"
        f"   largest difference {off[worst]:.2g} ({worst})"
    )


def by_cell(values: xr.DataArray) -> dict[str, float]:
    return {str(cell): float(value) for cell, value in zip(values["cell"].values, values.values,
                                                           strict=True)}  # fmt: skip


def opened(path: Path) -> xr.DataTree:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they say is in the README's own lists
        return rc.open_recording(path)


def full_field(folder: Path, counts: dict, scores: dict) -> None:
    recording = opened(folder)
    train, test = recording["train"].to_dataset(), recording["test"].to_dataset()
    n_train, n_test = train["spike_count"].sum("time"), test["spike_count"].sum(["repeat", "time"])
    seconds = 98400 * train["time"].attrs["bin_width"]
    spikes = SpikeTimes.from_dataset(recording["spikes"])
    marks = recording["frames"]["frame_time"].values
    compare("spikes", numbers(counts["spikes"]),
            {c: len(spikes.of(i)) for i, c in enumerate(spikes.ids)}, 0)  # fmt: skip
    before = {c: (spikes.of(i) < marks[0]).sum() for i, c in enumerate(spikes.ids)}
    after = {c: (spikes.of(i) >= marks[-1]).sum() for i, c in enumerate(spikes.ids)}
    compare("before", numbers(counts["before/after stim"]), before, 0)
    compare("after", numbers(counts["before/after stim"], 1), after, 0)
    short = quality(recording, refractory_period=0.002)["isi_violations"]
    compare("% ISI < 2 ms", numbers(counts["% ISI<2ms"]), by_cell(100 * short), 2)
    compare("rate Hz", numbers(counts["rate Hz"]), by_cell((n_train + n_test) / seconds), 3)
    compare("in running", numbers(counts["in running"]), by_cell(n_train), 0)
    compare("in frozen", numbers(counts["in frozen"]), by_cell(n_test), 0)
    average = rc.spike_triggered_average(train, history=45)
    kernels = {str(c): average.sel(cell=c).values.ravel() for c in average["cell"].values}
    compare("spikes used", numbers(counts["spikes used"]), by_cell(average["n_spikes"]), 0)
    lags = {c: int(np.abs(k).argmax()) for c, k in kernels.items()}
    compare("STA peak lag", numbers(counts["peak lag (ms)"]), lags, 0)
    peaks = {c: k[lags[c]] for c, k in kernels.items()}
    compare("STA peak", numbers(counts["peak"]), peaks, 4)
    lobes = {c: -np.sign(peaks[c]) * (-np.sign(peaks[c]) * k).max() for c, k in kernels.items()}
    compare("STA opposite lobe", numbers(counts["opposite lobe @ lag"]), lobes, 3)
    shipped = {c: np.corrcoef(np.loadtxt(folder / f"STA_{c}.txt")[::-1], k)[0, 1]
               for c, k in kernels.items()}  # fmt: skip
    compare("r with the shipped STA", numbers(counts["r_ref"]), shipped, 6)

    found = rc.reliability(test, history=45)
    for theirs, ours, decimals in (
        ("pair r", "pair_r", 3), ("odd/even", "odd_even_r", 3), ("split", "split_half_r", 3),
        ("SB", "spearman_brown", 3), ("ceiling", "ceiling", 3), ("SP", "signal_power", 4),
        ("CCmax", "cc_max", 3),
    ):  # fmt: skip
        compare(theirs, numbers(scores[theirs]), by_cell(found[ours]), decimals)
    model = rc.models.LN.from_spike_triggered_average(train, history=45)
    fitted = rc.evaluate(model, test, n_draws=20)
    compare("LN r softplus", numbers(scores["LN r softplus"]), by_cell(fitted["pearson_r"]), 4)
    compare("CCnorm softplus", numbers(scores["CCnorm softplus"]), by_cell(fitted["cc_norm"]), 3)
    hist = histogram_r(train, test, kernels)
    compare("LN r hist (raw STA)", numbers(scores["LN r hist"]), hist, 3)
    normed = {c: r / float(found["cc_max"].sel(cell=c)) for c, r in hist.items()}
    compare("CCnorm hist (raw STA)", numbers(scores["CCnorm hist"]), normed, 3)


def histogram_r(train: xr.Dataset, test: xr.Dataset, kernels: dict) -> dict[str, float]:
    """Scores of the histogram nonlinearity on the raw average, as the README fits it."""
    lags = len(next(iter(kernels.values())))

    def drives(flicker: np.ndarray) -> np.ndarray:
        return np.stack(
            [np.convolve(flicker, k)[lags - 1 : len(flicker)] for k in kernels.values()], axis=1
        )

    blocks = train["block"].values
    flicker = train["stimulus"].values[:, 0, 0].astype(float)
    counts = train["spike_count"].values
    drive = np.concatenate([drives(flicker[blocks == b]) for b in np.unique(blocks)])
    target = np.concatenate([counts[blocks == b][lags - 1 :] for b in np.unique(blocks)])
    sd = drive.std(0)
    nonlinearity = HistogramNonlinearity(len(kernels), 1.0)
    nonlinearity.fit(drive / sd, target)
    frozen = drives(test["stimulus"].values[:, 0, 0].astype(float)) / sd
    rate = nonlinearity(torch.from_numpy(frozen).float()).detach().numpy()
    mean = test["spike_count"].values.mean(0)[lags - 1 :]
    return {c: np.corrcoef(rate[:, i], mean[:, i])[0, 1] for i, c in enumerate(kernels)}


def light_steps(folder: Path, facts: dict) -> None:
    recording = opened(folder)
    spikes = SpikeTimes.from_dataset(recording["spikes"])
    compare("spikes", numbers(facts["spikes"]),
            {c: len(spikes.of(i)) for i, c in enumerate(spikes.ids)}, 0)  # fmt: skip
    node = recording["light_steps"].to_dataset()
    total = node["spike_count"].sum(["repeat", "time"])
    seconds = float(recording["epochs"]["duration"].sum())
    compare("rate Hz", numbers(facts["rate Hz"]), by_cell(total / seconds), 3)
    found = on_off_index(recording)
    compare("spikes at ON", numbers(facts["gray / ON / gray / OFF"], 1), by_cell(found["n_on"]), 0)
    compare("spikes at OFF", numbers(facts["gray / ON / gray / OFF"], 3), by_cell(found["n_off"]),
            0)  # fmt: skip
    compare("index", numbers(facts["index"]), by_cell(found["on_off_index"]), 4)
    trials = psth(recording, onsets=node["repeat_onset"].values, duration=5.95754, bin_width=0.05)
    compare("peak Hz", numbers(facts["peak Hz @ s"]), by_cell(trials["rate"].max("time")), 1)
    at = trials["rate"].idxmax("time") + 0.025
    compare("peak @ s", numbers(facts["peak Hz @ s"], 1), by_cell(at), 3)
    compare("odd/even r", numbers(facts["odd/even r"]),
            by_cell(rc.reliability(trials)["odd_even_r"]), 3)  # fmt: skip


def gratings(folder: Path, facts: dict) -> None:
    recording = opened(folder)
    for number in (1, 2):
        tuning = direction_tuning(recording, stimulus=f"gratings_{number}")
        found = direction_selectivity(tuning)
        total = tuning["spike_count"].sum(["repeat", "direction"])
        compare(f"n{number}", numbers(facts[f"n{number}"]), by_cell(total), 0)
        compare(f"DSI{number}", numbers(facts[f"DSI{number}"]), by_cell(found["dsi"]), 4)
        compare(f"PD{number} deg", numbers(facts[f"PD{number}"]),
                by_cell(found["preferred_direction"]), 1)  # fmt: skip
        compare(f"p{number}", numbers(facts[f"p{number}"]), by_cell(found["p_value"]), 3)


def binary_noise(path: Path, facts: dict) -> None:
    node = opened(path)["train"].to_dataset()
    names = dict(zip(node["cell"].values.astype(str), facts["spikes"], strict=True))

    def renamed(values: xr.DataArray) -> dict[str, float]:
        return {names[cell]: value for cell, value in by_cell(values).items()}

    total = node["spike_count"].sum("time")
    width = node["time"].attrs["bin_width"]
    compare("spikes", numbers(facts["spikes"]), renamed(total), 0)
    compare("rate Hz", numbers(facts["rate Hz"]), renamed(total / (width * 144051)), 3)
    compare("max count", numbers(facts["max count"]), renamed(node["spike_count"].max("time")), 0)
    average = rc.spike_triggered_average(node, history=40).isel(y=0, x=0, drop=True)
    peak_at = abs(average).argmax("lag")
    compare("STA peak", numbers(facts["peak"]), renamed(average.isel(lag=peak_at)), 4)
    compare("STA peak lag", numbers(facts["STA peak lag (ms)"]), renamed(peak_at), 0)
    first, last = node.isel(time=slice(0, 115240)), node.isel(time=slice(115240 - 39, None))
    for nonlinearity, name in (("softplus", "LN r softplus"), ("histogram", "LN r hist")):
        model = rc.models.LN.from_spike_triggered_average(
            first, history=40, nonlinearity=nonlinearity
        )
        rate = model.predict(last["stimulus"])
        counts = last["spike_count"].sel(time=rate["time"])
        compare(name, numbers(facts[name]), renamed(xr.corr(rate, counts, dim="time")), 3)


def main() -> None:
    data = Path(os.environ.get("RETINA_CODEC_DATA", ""))
    if not (data / "README.md").is_file():
        sys.exit("RETINA_CODEC_DATA does not name a folder with the recordings and their README.md")
    counts, scores, steps, grating, binary = tables((data / "README.md").read_text("utf-8"))
    print(f"{'':36s} {'stated':>10s} {'found':>12s}   (first cell)")
    for title, run in (
        ("full-field noise", lambda: full_field(data / "ganglion_fullfield_noise", counts, scores)),
        ("light steps", lambda: light_steps(data / "ganglion_light_steps", steps)),
        ("drifting gratings", lambda: gratings(data / "ganglion_drifting_gratings", grating)),
        ("binary noise", lambda: binary_noise(data / "ganglion_binary_noise/RGCdata.mat", binary)),
    ):
        print(title)
        run()


if __name__ == "__main__":
    main()
