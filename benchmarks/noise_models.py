"""How well the BN-CNN predicts two real recordings of noise: a search, five seeds, the scores.

    RETINA_CODEC_DATA=... python benchmarks/noise_models.py [fullfield] [binary] [--seeds 5]

Reads the folders `ganglion_fullfield_noise` and `ganglion_binary_noise` in that folder. Everything
that is chosen (architecture, training, seed) is chosen by the mean correlation with single trials
on validation stretches of the training part: contiguous blocks of running noise, and contiguous
stretches of the first 80 % of the binary noise. The part that is reported (frozen noise, bins 44
to 599; the last 20 % of the binary noise) is predicted once, by the networks that were chosen.
No predictions are averaged over networks: what is reported of several is the mean of their scores.
One thread; what it prints is Markdown.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

import retina_codec as rc
from retina_codec._common.time import whole_history


@dataclass(frozen=True)
class Configuration:
    """What is searched over; the defaults are the published network, and training as it comes."""

    channels: tuple[int, int] = (8, 8)
    noise: float = 0.05
    history: int | None = None  # frames; by default that of the task
    training: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        words = [f"channels {self.channels[0]}, {self.channels[1]}", f"noise {self.noise:g}"]
        words += [f"history {self.history}"] if self.history else []
        words += [f"{name} {value:g}" for name, value in self.training.items()]
        return "; ".join(words)


@dataclass(frozen=True)
class Task:
    """A recording in three parts, and what is tried on it."""

    name: str
    train: xr.Dataset
    validation: xr.Dataset
    test: xr.Dataset
    validated_on: str
    history: int
    score: str  # that is reported
    configurations: list[Configuration]


def fullfield(folder: Path) -> Task:
    """Take running blocks to train and validate on, frozen repeats to test on."""
    recording = opened(folder / "ganglion_fullfield_noise")
    parts = rc.split(recording["train"].to_dataset(), gap=45)
    wide = Configuration((32, 32), 0.3)
    return Task(
        "full-field noise, frozen bins 44 to 599",
        parts["train"].to_dataset().load(),
        parts["validation"].to_dataset().load(),
        recording["test"].to_dataset().load(),
        "contiguous running blocks",
        45,
        "cc_norm",
        [
            Configuration(),
            Configuration((16, 16)),
            Configuration((32, 32)),
            wide,
            Configuration((32, 32), 0.6),
            Configuration((64, 32), 0.6),
            Configuration((64, 64), 0.6),
            Configuration((64, 64), 1.0),
            replace(wide, history=36),
            replace(wide, training={"l2_weights": 1e-4}),
            replace(wide, training={"l1_rate": 0.0}),
            replace(wide, training={"learning_rate": 3e-3}),
            replace(wide, training={"max_epochs": 40}),
        ],
    )


def binary(folder: Path) -> Task:
    """Train and validate on the first 80 %, test on the rest (one trial)."""
    history = 40
    recording = opened(folder / "ganglion_binary_noise" / "RGCdata.mat")
    whole = recording["train"].to_dataset().load()
    first = whole.isel(time=slice(0, 115240))
    parts = rc.split(first, gap=history)
    return Task(
        "binary noise, last 20 %",
        parts["train"].to_dataset(),
        parts["validation"].to_dataset(),
        whole.isel(time=slice(115240 - (history - 1), None)),
        "contiguous stretches of the first 80 %",
        history,
        "pearson_r",
        [
            Configuration(training={"max_epochs": 10}),
            Configuration((16, 16), training={"max_epochs": 10}),
            Configuration((32, 32), 0.3, training={"max_epochs": 10}),
        ],
    )


TASKS = {"fullfield": fullfield, "binary": binary}


def opened(path: Path) -> xr.DataTree:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they say is in the data's own notes
        return rc.open_recording(path)


def trained(
    task: Task, configuration: Configuration, seed: int
) -> tuple[rc.models.BNCNN, np.ndarray, int]:
    """Train a network; its single-trial correlation (cell) on the validation, and its epoch."""
    model = rc.models.BNCNN.for_recording(
        task.train,
        history=configuration.history or task.history,
        channels=configuration.channels,
        noise=configuration.noise,
        seed=seed,
    )
    record = rc.train(
        model,
        task.train,
        validation=task.validation,
        seed=seed,
        progress=False,
        **configuration.training,
    )
    # The same bins for every history.
    bins = task.validation["time"].values[whole_history(task.validation, task.history)]
    rate = model.predict(task.validation["stimulus"]).sel(time=bins).values
    counts = task.validation["spike_count"].transpose("time", "cell").sel(time=bins).values
    r = [np.corrcoef(a, b)[0, 1] for a, b in zip(rate.T, counts.T, strict=True)]
    return model, np.array(r), int(record.attrs["best_epoch"])


def search(task: Task) -> Configuration:
    """Try every configuration with one seed, and print how each did on the validation."""
    print(
        f"### {task.name}: search\n\nMean over cells of the correlation with single trials, on "
        f"{task.validation.sizes['time']} bins of {task.validated_on}; seed 0.\n"
    )
    print("| configuration | validation r | best epoch | CPU seconds |\n|---|---|---|---|")
    means = []
    for configuration in task.configurations:
        cpu = time.process_time()
        _, r, epoch = trained(task, configuration, seed=0)
        means.append(r.mean())
        print(
            f"| {configuration} | {r.mean():.4f} | {epoch} | {time.process_time() - cpu:.0f} |",
            flush=True,
        )
    best = task.configurations[int(np.argmax(means))]
    print(f"\nChosen, as the highest of these: {best}.\n", flush=True)
    return best


@dataclass(frozen=True)
class Scored:
    """A score (cell,), and what the bootstrap drew of it (draw, cell): of one or of several."""

    value: np.ndarray
    draws: np.ndarray

    @classmethod
    def mean_of(cls, tables: list[xr.Dataset], name: str) -> Scored:
        """Mean of the scores of several networks, whose draws are of the same bins."""
        return cls(
            np.mean([table[name].values for table in tables], axis=0),
            np.mean([table[f"{name}_draws"].transpose("draw", "cell") for table in tables], axis=0),
        )

    def __sub__(self, other: Scored) -> Scored:
        return Scored(self.value - other.value, self.draws - other.draws)

    def of_cell(self, cell: int) -> str:
        """Value and 95 % interval of a cell."""
        return bracketed(self.value[cell], *np.percentile(self.draws[:, cell], [2.5, 97.5]))

    def mean(self) -> str:
        """Value and 95 % interval of the mean over cells."""
        return bracketed(self.value.mean(), *np.percentile(self.draws.mean(1), [2.5, 97.5]))


def bracketed(value: float, low: float, high: float) -> str:
    return "none" if np.isnan(value) else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def report(task: Task, configuration: Configuration, n_seeds: int) -> None:
    """Train with several seeds, and print the scores on the part kept for testing."""
    first = xr.concat([task.train, task.validation], "time").sortby("time")
    baseline = rc.models.LN.from_spike_triggered_average(
        first, history=task.history, nonlinearity="histogram"
    )
    movie = task.test["stimulus"]
    # The same bins for every history.
    bins = task.test["time"].values[whole_history(task.test, task.history)]
    ln = rc.evaluate(baseline.predict(movie).sel(time=bins), task.test, keep_draws=True)
    print(f"### {task.name}: {n_seeds} seeds\n")
    print(f"| seed | validation r | test {task.score} | cells above LN (interval above 0) |")
    print("|---|---|---|---|")
    tables, validation = [], []
    for seed in range(n_seeds):
        model, r, _ = trained(task, configuration, seed)
        rate = model.predict(movie).sel(time=bins)
        tables.append(rc.evaluate(rate, task.test, baseline=ln, keep_draws=True))
        validation.append(r.mean())
        above = int((tables[-1][f"{task.score}_difference_low"] > 0).sum())
        print(
            f"| {seed} | {r.mean():.4f} | {float(tables[-1][task.score].mean()):.4f} | "
            f"{above} of {len(r)} |",
            flush=True,
        )
    each = np.stack([table[task.score].values for table in tables])  # (seed, cell)
    of_ln, of_cnn = Scored.mean_of([ln], task.score), Scored.mean_of(tables, task.score)
    above_ln = of_cnn - of_ln
    sizes = ln.attrs["n_bins"], ln.attrs["n_repeats"]
    print(
        f"\n### {task.name}: {task.score}\n\n{sizes[0]} bins, {sizes[1]} repeats. BN-CNN: mean of "
        f"the scores of {n_seeds} networks. Brackets: 95 % of a moving-block bootstrap over time, "
        "the same draws for all; those of cc_max are the jackknife over repeats. Null: predictions "
        "shifted in time, mean and 95 % quantile.\n"
    )
    print(
        "| cell | LN | BN-CNN | sd over seeds | BN-CNN - LN | null | p | ceiling cc_max |\n"
        "|---|---|---|---|---|---|---|---|"
    )

    def mean_over_seeds(name: str) -> np.ndarray:
        return np.mean([table[name].values for table in tables], axis=0)

    null, null_high = (mean_over_seeds(f"{task.score}_null{end}") for end in ("", "_high"))
    p = np.max([table["p_value"].values for table in tables], axis=0)
    ceiling = [ln[f"cc_max{end}"].values for end in ("", "_low", "_high")]
    for i, cell in enumerate(ln["cell"].values):
        print(
            f"| {cell} | {of_ln.of_cell(i)} | {of_cnn.of_cell(i)} | {each[:, i].std(ddof=1):.4f} | "
            f"{above_ln.of_cell(i)} | {null[i]:.3f}, {null_high[i]:.3f} | {p[i]:.4f} | "
            f"{bracketed(*(end[i] for end in ceiling))} |"
        )
    means = each.mean(1)
    print(
        f"| mean | {of_ln.mean()} | {of_cnn.mean()} | {means.std(ddof=1):.4f} | "
        f"{above_ln.mean()} | {null.mean():.3f} | | |"
    )
    best = int(np.argmax(validation))
    print(
        f"\nMean over cells: {means.mean():.4f}, sd over seeds {means.std(ddof=1):.4f} "
        f"({means.min():.4f} to {means.max():.4f}); seed {best}, the best on the validation: "
        f"{means[best]:.4f}.\n"
    )
    print("| other scores, mean over cells | LN | BN-CNN |\n|---|---|---|")
    for name in ("pearson_r", "cc_norm", "fev", "deviance_explained"):
        if name != task.score:
            one, several = Scored.mean_of([ln], name), Scored.mean_of(tables, name)
            print(f"| {name} | {one.mean()} | {several.mean()} |")
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", choices=[[], *TASKS], help="default: both")
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    folder = os.environ.get("RETINA_CODEC_DATA")
    if not folder:
        sys.exit("set RETINA_CODEC_DATA to the folder of the real recordings")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in arguments.tasks or TASKS:
        task = TASKS[name](Path(folder))
        report(task, search(task), arguments.seeds)


if __name__ == "__main__":
    main()
