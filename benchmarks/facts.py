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


def signs(column: dict[str, str]) -> Column:
    """1 for ON and -1 for OFF."""
    return {cell: {"ON": 1.0, "OFF": -1.0}[entry] for cell, entry in column.items()}


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


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def drives(kernels: dict[str, np.ndarray], flicker: np.ndarray) -> np.ndarray:
    """Filter the flicker: drive (frame, cell) from the first frame with all lags."""
    lags = len(next(iter(kernels.values())))
    return np.stack(
        [np.convolve(flicker, k)[lags - 1 : len(flicker)] for k in kernels.values()], axis=1
    )


def compare_shapes(facts: dict, kernels: dict[str, np.ndarray], milliseconds: float) -> None:
    """Sign, peak, opposite lobe and their lags."""
    lag_column = "peak lag (ms)" if "peak lag (ms)" in facts else "STA peak lag (ms)"
    lags = {c: int(np.abs(k).argmax()) for c, k in kernels.items()}
    peaks = {c: k[lags[c]] for c, k in kernels.items()}
    opposite = {c: int((-np.sign(peaks[c]) * k).argmax()) for c, k in kernels.items()}
    lobes = {c: k[opposite[c]] for c, k in kernels.items()}
    compare("STA sign", signs(facts["sign"]), {c: np.sign(peak) for c, peak in peaks.items()}, 0)
    compare("STA peak lag", numbers(facts[lag_column]), lags, 0)
    in_ms = {c: milliseconds * lag for c, lag in lags.items()}
    compare("STA peak lag, ms", numbers(facts[lag_column], 1), in_ms, 1)
    compare("STA peak", numbers(facts["peak"]), peaks, 4)
    compare("STA opposite lobe", numbers(facts["opposite lobe @ lag"]), lobes, 3)
    compare("STA opposite lobe @ lag", numbers(facts["opposite lobe @ lag"], 1), opposite, 0)


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
    compare_shapes(counts, kernels, 1000 * train["time"].attrs["bin_width"])
    shipped = {c: np.loadtxt(folder / f"STA_{c}.txt")[::-1] for c in kernels}
    compare("r with the shipped STA", numbers(counts["r_ref"]),
            {c: correlation(k, shipped[c]) for c, k in kernels.items()}, 6)  # fmt: skip
    mixed = rc.spike_triggered_average(with_frozen(train, test), history=45)
    compare("the same, frozen frames included", numbers(counts["r_all"]),
            {c: correlation(mixed.sel(cell=c).values.ravel(), shipped[c]) for c in kernels},
            4)  # fmt: skip
    for part, shift in ((0, 1), (1, -1)):
        apart = {
            c: correlation(k[5:40], shipped[c][5 + shift : 40 + shift]) for c, k in kernels.items()
        }
        name = f"the same, one frame {'later' if shift < 0 else 'earlier'}"
        compare(name, numbers(counts["r_shift"], part), apart, 3)

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
    frozen, rate = histogram_rates(train, test, kernels)
    repeats = test["spike_count"].values[:, 44:]
    mean = repeats.mean(0)
    hist = {c: correlation(rate[:, i], mean[:, i]) for i, c in enumerate(kernels)}
    compare("LN r hist (raw STA)", numbers(scores["LN r hist"]), hist, 3)
    normed = {c: value / float(found["cc_max"].sel(cell=c)) for c, value in hist.items()}
    compare("CCnorm hist (raw STA)", numbers(scores["CCnorm hist"]), normed, 3)
    linear = {c: correlation(frozen[:, i], mean[:, i]) for i, c in enumerate(kernels)}
    compare("r of the filter alone", numbers(scores["r_lin"]), linear, 3)
    single = {
        c: np.mean([correlation(rate[:, i], repeat[:, i]) for repeat in repeats])
        for i, c in enumerate(kernels)
    }
    compare("mean single-trial r, hist", numbers(scores["r_trial"]), single, 3)


def with_frozen(train: xr.Dataset, test: xr.Dataset) -> xr.Dataset:
    """All frames in the order shown, running and frozen, as one run."""
    blocks = train["block"].values
    movie, counts = [], []
    for repeat, block in enumerate(np.unique(blocks)):
        movie += [train["stimulus"].values[blocks == block], test["stimulus"].values]
        counts += [
            train["spike_count"].values[blocks == block], test["spike_count"].values[repeat]
        ]  # fmt: skip
    width = train["time"].attrs["bin_width"]
    onsets = width * np.arange(sum(map(len, movie)))
    return xr.Dataset(
        {
            "stimulus": (train["stimulus"].dims, np.concatenate(movie)),
            "spike_count": (("time", "cell"), np.concatenate(counts)),
        },
        coords={"time": ("time", onsets, {"bin_width": width}), "cell": train["cell"]},
    )


def histogram_rates(
    train: xr.Dataset, test: xr.Dataset, kernels: dict
) -> tuple[np.ndarray, np.ndarray]:
    """Drive and rate in the frozen bins, of the raw average and a histogram nonlinearity."""
    lags = len(next(iter(kernels.values())))
    blocks = train["block"].values
    flicker = train["stimulus"].values[:, 0, 0].astype(float)
    counts = train["spike_count"].values
    drive = np.concatenate([drives(kernels, flicker[blocks == b]) for b in np.unique(blocks)])
    target = np.concatenate([counts[blocks == b][lags - 1 :] for b in np.unique(blocks)])
    sd = drive.std(0)
    nonlinearity = HistogramNonlinearity(len(kernels), 1.0)
    nonlinearity.fit(drive / sd, target)
    frozen = drives(kernels, test["stimulus"].values[:, 0, 0].astype(float))
    return frozen, nonlinearity(torch.from_numpy(frozen / sd).float()).detach().numpy()


def light_steps(folder: Path, facts: dict) -> None:
    recording = opened(folder)
    spikes = SpikeTimes.from_dataset(recording["spikes"])
    compare("spikes", numbers(facts["spikes"]),
            {c: len(spikes.of(i)) for i, c in enumerate(spikes.ids)}, 0)  # fmt: skip
    node, epochs = recording["light_steps"].to_dataset(), recording["epochs"].to_dataset()
    start, stop = epochs["start"].values, (epochs["start"] + epochs["duration"]).values
    trains = {c: spikes.of(i) for i, c in enumerate(spikes.ids)}
    compare("before", numbers(facts["before/after"]),
            {c: (times < start[0]).sum() for c, times in trains.items()}, 0)  # fmt: skip
    compare("after", numbers(facts["before/after"], 1),
            {c: (times >= stop[-1]).sum() for c, times in trains.items()}, 0)  # fmt: skip
    total = node["spike_count"].sum(["repeat", "time"])
    seconds = float(epochs["duration"].sum())
    compare("rate Hz", numbers(facts["rate Hz"]), by_cell(total / seconds), 3)
    found = on_off_index(recording)
    for step, part in ((0, "first"), (2, "second")):
        in_step = {
            c: (np.searchsorted(t, stop[step::4]) - np.searchsorted(t, start[step::4])).sum()
            for c, t in trains.items()
        }
        compare(f"spikes at the {part} gray", numbers(facts["gray / ON / gray / OFF"], step),
                in_step, 0)  # fmt: skip
    compare("spikes at ON", numbers(facts["gray / ON / gray / OFF"], 1), by_cell(found["n_on"]), 0)
    compare("spikes at OFF", numbers(facts["gray / ON / gray / OFF"], 3), by_cell(found["n_off"]),
            0)  # fmt: skip
    compare("index", numbers(facts["index"]), by_cell(found["on_off_index"]), 4)
    course = {c: course_index(times, start[::4], start[-1]) for c, times in trains.items()}
    compare("index of the course", numbers(facts["course index"]), course, 4)
    trials = psth(recording, onsets=node["repeat_onset"].values, duration=5.95754, bin_width=0.05)
    compare("peak Hz", numbers(facts["peak Hz @ s"]), by_cell(trials["rate"].max("time")), 1)
    at = trials["rate"].idxmax("time") + 0.025
    compare("peak @ s", numbers(facts["peak Hz @ s"], 1), by_cell(at), 3)
    compare("odd/even r", numbers(facts["odd/even r"]),
            by_cell(rc.reliability(trials)["odd_even_r"]), 3)  # fmt: skip


def course_index(times: np.ndarray, onsets: np.ndarray, last: float) -> float:
    """Index from bins of 10 ms of each spike's own trial, without spikes after the last mark."""
    times = times[(times >= onsets[0]) & (times < last)]
    after = times - onsets[np.searchsorted(onsets, times, side="right") - 1]
    on = ((after >= 1.99) & (after < 2.98)).sum()
    off = ((after >= 4.96) & (after < 5.96)).sum()
    return float((on - off) / (on + off))


def gratings(folder: Path, facts: dict) -> None:
    recording = opened(folder)
    spikes = SpikeTimes.from_dataset(recording["spikes"])
    trains = {c: spikes.of(i) for i, c in enumerate(spikes.ids)}
    compare("spikes", numbers(facts["spikes"]), {c: len(t) for c, t in trains.items()}, 0)
    epochs = recording["epochs"].to_dataset()
    shown = epochs.isel(epoch=(epochs["label"] == "grating").values)
    start, stop = float(shown["start"].min()), float((shown["start"] + shown["duration"]).max())
    rates = {c: ((t >= start) & (t < stop)).sum() / (stop - start) for c, t in trains.items()}
    compare("rate Hz", numbers(facts["rate Hz"]), rates, 2)
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
    kernels = {names[str(c)]: average.sel(cell=c).values for c in average["cell"].values}
    compare_shapes(facts, kernels, 1000 * width)
    first, last = node.isel(time=slice(0, 115240)), node.isel(time=slice(115240 - 39, None))
    for nonlinearity, name in (("softplus", "LN r softplus"), ("histogram", "LN r hist")):
        model = rc.models.LN.from_spike_triggered_average(
            first, history=40, nonlinearity=nonlinearity
        )
        rate = model.predict(last["stimulus"])
        counts = last["spike_count"].sel(time=rate["time"])
        compare(name, numbers(facts[name]), renamed(xr.corr(rate, counts, dim="time")), 3)
        if nonlinearity == "softplus":
            whole = slice(0, counts.sizes["time"] // 4 * 4)
            summed = [
                values.isel(time=whole).values.reshape(-1, 4, len(names)).sum(axis=1)
                for values in (rate, counts)
            ]
            by_four = {
                c: correlation(summed[0][:, i], summed[1][:, i])
                for i, c in enumerate(names.values())
            }
            compare("r softplus 4-bin", numbers(facts["r softplus 4-bin"]), by_four, 3)
    fitted = rc.spike_triggered_average(first, history=40).isel(y=0, x=0)
    kernels = {names[str(c)]: fitted.sel(cell=c).values for c in fitted["cell"].values}
    drive = drives(kernels, last["stimulus"].values[:, 0, 0].astype(float))
    alone = {
        c: correlation(drive[:, i], counts.sel(cell=cell).values)
        for i, (cell, c) in enumerate(names.items())
    }
    compare("r filter only", numbers(facts["r filter only"]), alone, 3)


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
