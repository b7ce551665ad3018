"""How well the BN-CNN predicts two real recordings of noise: a search, five seeds, the scores.

    RETINA_CODEC_DATA=... python benchmarks/noise_models.py [fullfield] [binary] [--seeds 5]

Reads the folders `ganglion_fullfield_noise` and `ganglion_binary_noise` in that folder. Everything
that is chosen (architecture, training, seed) is chosen by the mean correlation with single trials
on validation stretches of the training part: contiguous blocks of running noise, and contiguous
stretches of the first 80 % of the binary noise. The part that is reported (frozen noise, bins 44
to 599; the last 20 % of the binary noise) is predicted once, by the networks that were chosen.
Nothing is averaged over networks. One thread.
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
    print(f"  {'configuration':60s} validation r   epoch  seconds (of processor)")
    means = []
    for configuration in task.configurations:
        wall, cpu = time.perf_counter(), time.process_time()
        _, r, epoch = trained(task, configuration, seed=0)
        means.append(r.mean())
        print(
            f"  {configuration!s:60s} {r.mean():12.4f} {epoch:7d} "
            f"{time.perf_counter() - wall:8.0f} ({time.process_time() - cpu:.0f})",
            flush=True,
        )
    best = task.configurations[int(np.argmax(means))]
    print(f"  chosen: {best}", flush=True)
    return best


def interval(table: xr.Dataset, name: str, cell: int) -> str:
    low, high = (float(table[f"{name}_{end}"][cell]) for end in ("low", "high"))
    return f"{float(table[name][cell]):6.3f} [{low:6.3f} {high:6.3f}]"


def report(task: Task, configuration: Configuration, n_seeds: int) -> None:
    """Train with several seeds, and print the scores on the part kept for testing."""
    first = xr.concat([task.train, task.validation], "time").sortby("time")
    baseline = rc.models.LN.from_spike_triggered_average(
        first, history=task.history, nonlinearity="histogram"
    )
    tables, validation = [], []
    for seed in range(n_seeds):
        model, r, _ = trained(task, configuration, seed)
        tables.append(rc.evaluate(model, task.test, baseline=baseline))
        validation.append(r.mean())
        print(
            f"  seed {seed}: validation r {r.mean():.4f}, test {task.score} "
            f"{float(tables[-1][task.score].mean()):.4f}, above LN in "
            f"{int((tables[-1][f'{task.score}_difference_low'] > 0).sum())} of "
            f"{len(r)} cells (interval above 0)",
            flush=True,
        )
    values = np.stack([table[task.score].values for table in tables])
    best = int(np.argmax(validation))
    table = tables[best]
    print(f"\n  {task.name}: {table.attrs['n_bins']} bins, {table.attrs['n_repeats']} repeats")
    print(f"  {task.score}; the columns behind the mean are of seed {best}, the best on validation")
    print("  cell     LN   mean (sd) of seeds   [95 %]               above LN [95 %]         "
          "  null 95 %    p      ceiling [95 %]           r       FEV     deviance")  # fmt: skip
    for i, cell in enumerate(table["cell"].values):
        print(
            f"  {cell:5s} {float(table[f'{task.score}_baseline'][i]):6.3f} "
            f"  {values[:, i].mean():.3f} ({values[:, i].std(ddof=1):.3f}) "
            f"  {interval(table, task.score, i)}  "
            f"{interval(table, f'{task.score}_difference', i)}  "
            f"{float(table[f'{task.score}_null_high'][i]):7.3f}  "
            f"{float(table['p_value'][i]):.4f}  {interval(table, 'cc_max', i)}  "
            f"{float(table['pearson_r'][i]):.3f}   {float(table['fev'][i]):6.3f}  "
            f"{float(table['deviance_explained'][i]):6.3f}"
        )
    ln = float(table[f"{task.score}_baseline"].mean())
    means = values.mean(1)
    print(
        f"  mean over cells: LN {ln:.4f}; {n_seeds} seeds {means.mean():.4f} "
        f"(sd {means.std(ddof=1):.4f}; {means.min():.4f} to {means.max():.4f}); "
        f"seed {best}: {means[best]:.4f}\n",
        flush=True,
    )


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
        print(f"{task.name}: search on {task.validation.sizes['time']} validation bins")
        report(task, search(task), arguments.seeds)


if __name__ == "__main__":
    main()
