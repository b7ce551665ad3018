"""How well contributions of trained networks name the interneurons that drove the cells.

    python benchmarks/recovery.py train FOLDER [--circuits NAME ...] [--part 0/2]
    python benchmarks/recovery.py score FOLDER [--circuits NAME ...] [--part 0/2]
    python benchmarks/recovery.py tables FOLDER

Simulated retinas, whose interneurons are known: for each circuit a movie (natural, steps,
gratings, bars, differential motion, white noise) and its spikes; on them, for each seed,
`trained` (BN-CNN), `shifted` (the same, on spikes shifted in time within each block), `untrained`
(random weights; batch norms have the movie's means and sds) and `refitted` (the true
architecture, its numbers fitted to the same spikes: the ceiling). `score` compares each with the
truth (`rc.benchmark_recovery`) on movies of which no network saw anything. Both can be stopped and
called again: what is in FOLDER is not done twice; `--part 0/2` and `--part 1/2` share the work
between two processes. One thread each. `tables` prints Markdown: median over the cells of a type,
then over types; over seeds the median and the range.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import xarray as xr

import retina_codec as rc
from retina_codec._common.files import written_beside
from retina_codec._common.time import runs_of

SIZE, HISTORY = 24, 40
FRAMES_A_MINUTE = 6000
TEST_FRAMES, AGREEMENT_FRAMES = 4000, 1500
# Of the BN-CNN. There is no noise and no penalty on rates: with 20 minutes it underfits.
CHANNELS, KERNELS = (8, 16), (9, 9)
UPDATES, FRAMES_AN_UPDATE = 2400, 512
REFIT_UPDATES = 300
METHOD = rc.methods.IntegratedGradients(steps=8)
KINDS = ("trained", "untrained", "shifted", "refitted")
SEEDS = {"default": 5, "drawn_1": 1, "drawn_2": 1, "drawn_3": 1}
SHIFTED_SEEDS = {"default": 3, "drawn_1": 1, "drawn_2": 0, "drawn_3": 0}
MINUTES = 20.0
OTHER_MINUTES = (5.0, 60.0, 1.0)  # one seed of the default circuit


def movies(minutes: float) -> dict[str, xr.DataArray]:
    """Make what is trained on, and what is judged on: a natural movie and white noise."""
    left, right = rc.stimuli.split_images(rc.stimuli.photographs())
    screen = rc.stimuli.Screen(shape=(SIZE, SIZE))
    n = round(minutes * FRAMES_A_MINUTE)
    part = n // 20
    train = [
        screen.natural_movie(left, n_frames=n - 8 * part, seed=1),
        screen.light_steps(n_frames=part, seed=1),
        screen.moving_gratings(n_frames=part, seed=1),
        screen.moving_bars(n_frames=part, seed=1),
        screen.differential_motion(n_frames=part, seed=1),
        screen.white_noise(n_frames=4 * part, seed=1),
    ]
    return {
        "train": rc.stimuli.concatenate(train),
        "test": screen.natural_movie(right, n_frames=TEST_FRAMES, seed=2),
        "noise": screen.white_noise(n_frames=TEST_FRAMES, seed=3),
    }


def simulate(circuit: str, minutes: float, *nodes: str) -> xr.DataTree:
    shown = movies(minutes)
    return rc.simulate_retina({name: shown[name] for name in nodes}, circuit, seed=0)


def shifted(node: xr.Dataset) -> xr.Dataset:
    """Move all spikes half a block later, circularly: rates and their rhythm stay."""
    counts = node["spike_count"].copy(deep=True)
    for run in runs_of(node):
        counts[run] = np.roll(node["spike_count"][run].values, (run.stop - run.start) // 2, axis=0)
    return node.assign(spike_count=counts)


def fit(circuit: str, kind: str, seed: int, node: xr.Dataset) -> rc.RetinaModel:
    if kind == "refitted":
        truth = rc.simulation.circuit(circuit, movie=node["stimulus"])
        model = rc.validation.refittable_circuit(truth, seed=seed)
        updates, rate = REFIT_UPDATES, 3e-2
    else:
        model = rc.models.BNCNN.for_recording(
            node, history=HISTORY, channels=CHANNELS, kernel_sizes=KERNELS, noise=0.0, seed=seed
        )
        # An untrained network has seen the movie but learned nothing: batch norms have their
        # means and sds, weights do not move.
        updates, rate = (UPDATES, 1e-2) if kind != "untrained" else (1, 1e-12)
    split = rc.split(shifted(node) if kind == "shifted" else node, gap=HISTORY)
    training, validation = (split[part].to_dataset() for part in ("train", "validation"))
    epochs = max(1, round(updates * FRAMES_AN_UPDATE / training.sizes["time"]))
    rc.train(
        model,
        training,
        validation=validation,
        max_epochs=epochs,
        learning_rate=rate,
        l1_rate=0.0,
        seed=seed,
        progress=False,
    )
    return model


def place(folder: Path, circuit: str, minutes: float, kind: str, seed: int) -> Path:
    return folder / f"{circuit}_{minutes:g}min" / f"{kind}_{seed}"


def jobs(circuits: list[str]) -> list[tuple[str, float, int]]:
    """Return circuit, minutes and seed of all that is compared, the most important first."""
    found = [(circuit, MINUTES, seed) for circuit in circuits for seed in range(SEEDS[circuit])]
    found += [("default", minutes, 0) for minutes in OTHER_MINUTES if "default" in circuits]
    return found


def kinds(circuit: str, minutes: float, seed: int) -> list[str]:
    """Return what is compared there: spikes are shifted for fewer seeds, and for 20 minutes."""
    shifted_too = minutes == MINUTES and seed < SHIFTED_SEEDS[circuit]
    return [kind for kind in KINDS if kind != "shifted" or shifted_too]


def train(folder: Path, todo: list[tuple[str, float, int]]) -> None:
    for circuit, minutes, seed in todo:
        missing = [
            kind
            for kind in kinds(circuit, minutes, seed)
            if not place(folder, circuit, minutes, kind, seed).exists()
        ]
        if not missing:
            continue
        node = simulate(circuit, minutes, "train")["train"].to_dataset()
        for kind in missing:
            start = time.perf_counter()
            model = fit(circuit, kind, seed, node)
            save(model, place(folder, circuit, minutes, kind, seed))
            took = time.perf_counter() - start
            print(f"{circuit}, {minutes:g} min, seed {seed}, {kind}: {took:.0f} s", flush=True)


def save(model: rc.RetinaModel, path: Path) -> None:
    """Write a model; of a refitted circuit, which is rebuilt by its name, the weights."""
    if not isinstance(model, rc.simulation.Circuit):
        model.save(path)
        return
    with written_beside(path) as fresh:
        fresh.mkdir(parents=True)
        safetensors.torch.save_file(model.network.state_dict(), fresh / "weights.safetensors")


def load(folder: Path, circuit: str, minutes: float, kind: str, seed: int, movie: xr.DataArray):
    path = place(folder, circuit, minutes, kind, seed)
    if kind != "refitted":
        return rc.load_model(path)
    truth = rc.simulation.circuit(circuit, movie=movie)
    model = rc.validation.refittable_circuit(truth, seed=seed)
    model.network.load_state_dict(safetensors.torch.load_file(path / "weights.safetensors"))
    return model


def score(folder: Path, todo: list[tuple[str, float, int]]) -> None:
    for circuit, minutes, seed in todo:
        path = place(folder, circuit, minutes, "recovery", seed).with_suffix(".nc")
        names = kinds(circuit, minutes, seed)
        if path.exists() or not all(
            place(folder, circuit, minutes, kind, seed).exists() for kind in names
        ):
            continue
        judged = simulate(circuit, MINUTES, "test", "noise")
        movie = judged["test"]["stimulus"]
        models = {kind: load(folder, circuit, minutes, kind, seed, movie) for kind in names}
        start = time.perf_counter()
        found = rc.benchmark_recovery(models, judged, method=METHOD, progress=False)
        rc.save_tree(found, path)
        took = time.perf_counter() - start
        print(f"{circuit}, {minutes:g} min, seed {seed}: {took:.0f} s", flush=True)


def opened(folder: Path, circuit: str, minutes: float, seeds: int) -> dict[int, xr.DataTree]:
    paths = {
        seed: place(folder, circuit, minutes, "recovery", seed).with_suffix(".nc")
        for seed in range(seeds)
    }
    return {seed: rc.open_tree(path).load() for seed, path in paths.items() if path.exists()}


def show(heading: list[str], rows: list[list[str]]) -> None:
    print(f"\n| {' | '.join(heading)} |\n|{'---|' * len(heading)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def number(summary: xr.Dataset, name: str, **labels: str) -> str:
    """Write the median over seeds, with the range where there are several."""
    ends = [f"{name}{end}" for end in ("", "_low", "_high")]
    value, *spread = (float(summary[end].sel(labels)) for end in ends if end in summary)
    if not np.isfinite(value):
        return "-"
    text = f"{value:.2f}"
    if spread and max(spread) - min(spread) >= 0.005:
        text += f" ({min(spread):.2f} to {max(spread):.2f})"
    return text


def recovered(summary: xr.Dataset) -> None:
    """Print one row a model: rates, interneurons, contributions, CKA."""
    for cut in summary["cut"].values:
        columns = {
            "rate": ("prediction_r", {}),
            "worst cell": ("worst_prediction_r", {}),
            "interneurons: potential": ("interneuron_r", {"signal": "potential"}),
            "release": ("interneuron_r", {"signal": "release"}),
        }
        for removed in ("nothing", "predicted", "both"):
            at = {"cut": cut, "removed": removed}
            which = f"{removed} removed"
            columns[f"contributions, {which}"] = (
                "contribution_r",
                {"features": "contribution", **at},
            )
            columns[f"CKA, {which}"] = ("cka", {"parts": "net", **at})
        for features in ("single_unit", "activation", "unit_activation"):
            at = {"cut": cut, "removed": "predicted", "features": features}
            columns[f"{features.replace('_', ' ')}, predicted removed"] = ("contribution_r", at)
        print(f"\nCut: {cut}")
        show(
            ["", *summary["model"].values],
            [
                [words, *(number(summary, v, model=m, **at) for m in summary["model"].values)]
                for words, (v, at) in columns.items()
            ],
        )


def by_type(trees: dict[int, xr.DataTree]) -> None:
    """Print interneurons and true contributions type by type, median over cells and seeds."""
    heard = xr.concat([tree["interneurons"]["r"] for tree in trees.values()], "seed", join="outer")
    heard = heard.groupby("interneuron_type").median(skipna=True).median("seed")
    models = heard["model"].values
    show(
        ["type", *(f"{m}: {s}" for m in models for s in ("potential", "release"))],
        [
            [str(kind), *(f"{float(heard.sel(model=m, signal=s, interneuron_type=kind)):.2f}"
                          for m in models for s in ("potential", "release"))]
            for kind in heard["interneuron_type"].values
        ],
    )  # fmt: skip
    r = xr.concat([tree["contributions"]["r"] for tree in trees.values()], "seed", join="outer")
    r = r.sel(features="contribution", removed="predicted")
    known = r.isel(seed=0).sel(model="refitted").notnull().sum("cell")
    r = r.median(["seed", "cell"], skipna=True)
    labels = list(zip(r["cut"].values, r["channel"].values, strict=True))
    show(
        ["true contribution", "cells", *models],
        [
            [f"{cut}: {channel}", str(int(known.isel(true_channel=i))),
             *(f"{float(r.sel(model=m).isel(true_channel=i)):.2f}" for m in models)]
            for i, (cut, channel) in enumerate(labels)
            if known.isel(true_channel=i) > 0
        ],
    )  # fmt: skip


def agreement(folder: Path, circuit: str) -> None:
    """Print how far two networks of other seeds report the same, trained and untrained."""
    movie = simulate(circuit, MINUTES, "test")["test"]["stimulus"][:AGREEMENT_FRAMES]
    rows = []
    for kind in ("trained", "untrained"):
        pair = [load(folder, circuit, MINUTES, kind, seed, movie) for seed in (0, 1)]
        found = rc.validation.agreement(*pair, movie, method=METHOD, progress=False)
        for layer in found["layer"].values:
            one = found.sel(layer=layer)
            rows.append(
                [f"{kind}, {layer}"]
                + [
                    f"{float(one['cka'].sel(removed=v).median()):.2f}"
                    for v in one["removed"].values
                ]
                + [f"{float(one['r'].sel(removed=v).median()):.2f}" for v in one["removed"].values]
            )
    show(["two networks", *(f"{v}, {w} removed" for v in ("CKA", "r")
                            for w in found["removed"].values)], rows)  # fmt: skip


def tables(folder: Path, circuits: list[str]) -> None:
    for circuit in circuits:
        trees = opened(folder, circuit, MINUTES, SEEDS[circuit])
        if not trees:
            continue
        print(f"\n## {circuit}, {MINUTES:g} minutes, seeds: {len(trees)}")
        recovered(rc.validation.summarise(trees))
        by_type(trees)
    if "default" not in circuits:
        return
    rows = []
    for minutes in sorted((MINUTES, *OTHER_MINUTES)):
        trees = opened(folder, "default", minutes, 1)
        if not trees:
            continue
        summary = rc.validation.summarise(trees[0])
        at = {"cut": "bipolar", "removed": "predicted"}
        for model in ("trained", "refitted"):
            rows.append(
                [
                    f"{minutes:g}",
                    model,
                    number(summary, "prediction_r", model=model),
                    number(summary, "worst_prediction_r", model=model),
                    number(summary, "interneuron_r", model=model, signal="potential"),
                    number(summary, "contribution_r", model=model, features="contribution", **at),
                    number(summary, "cka", model=model, parts="net", **at),
                ]
            )
    print("\n## How much movie (default, seed 0)")
    show(["minutes", "", "rate", "worst cell", "interneurons", "contributions", "CKA"], rows)
    print("\n## Agreement")
    agreement(folder, "default")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=("train", "score", "tables"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--circuits", nargs="+", default=list(SEEDS), choices=list(SEEDS))
    parser.add_argument("--part", default="0/1", help="which share of the work, such as 0/2")
    given = parser.parse_args()
    torch.set_num_threads(1)
    index, n = (int(number) for number in given.part.split("/"))
    todo = jobs(given.circuits)[index::n]
    if given.stage == "train":
        train(given.folder, todo)
    elif given.stage == "score":
        score(given.folder, todo)
    else:
        tables(given.folder, given.circuits)


if __name__ == "__main__":
    main()
