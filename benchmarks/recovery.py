"""How well contributions of trained networks name the interneurons that drove the cells.

    python benchmarks/recovery.py train FOLDER [--circuits NAME ...] [--work WHAT] [--part 0/2]
    python benchmarks/recovery.py score FOLDER [--circuits NAME ...] [--work WHAT] [--part 0/2]
    python benchmarks/recovery.py tables FOLDER [--circuits NAME ...]
    python benchmarks/recovery.py interneurons FOLDER
    python benchmarks/recovery.py methods FOLDER
    python benchmarks/recovery.py figures FOLDER [--to FOLDER]

Simulated retinas, whose interneurons are known: for each circuit a movie (natural, steps,
gratings, bars, differential motion, white noise) and its spikes; on them, for each seed,
`trained` (BN-CNN), `shifted` (the same, on spikes shifted in time within each block), `untrained`
(random weights; batch norms have the movie's means and sds) and `refitted` (the true
architecture, its numbers fitted to the same spikes: the ceiling), and `ln`, a linear-nonlinear
model. `--work amounts` is the default circuit on a small movie (16 x 16 pixels) of 1, 5, 20 and 60
minutes, with the same number of updates each. `score` compares each with the truth
(`rc.benchmark_recovery`) on movies of which no network saw anything. Both can be stopped and called
again: what is in FOLDER is not done twice; `--part 0/2` and `--part 1/2` share the work between two
processes. One thread each.

`tables` prints Markdown: median over the cells of a type, then over types; over seeds the median
and the range. `interneurons` compares the networks of seed 0 with the circuit's interneurons on
white noise (`rc.interneurons.compare_models`), with nulls. `methods` compares contributions with
other methods and with activations. `figures` draws what docs/recovery.md shows.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
import xarray as xr
from matplotlib.figure import Figure

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
KINDS = ("trained", "untrained", "shifted", "refitted", "ln")
SEEDS = {"default": 5, "drawn_1": 1, "drawn_2": 1, "drawn_3": 1}
MINUTES = 20.0
# How much movie: one seed of the default circuit, on a small movie.
AMOUNTS, SMALL, SMALL_UPDATES = (1.0, 5.0, 20.0, 60.0), 16, 1200
SHIFTS = 100  # of the recordings of interneurons
DRIVERS_FRAMES, SHORT_FRAMES, BURSTS = 3000, 600, 20  # on which methods are compared


class Job(NamedTuple):
    """What is trained on: a circuit, minutes of movie of so many pixels; and the seed."""

    circuit: str
    minutes: float
    seed: int
    size: int = SIZE

    @property
    def kinds(self) -> list[str]:
        """What is compared there: LN has no seeds, amounts have no shifted spikes."""
        if self.size != SIZE or self.minutes != MINUTES:
            return ["trained", "untrained", "refitted"]
        return [kind for kind in KINDS if kind != "ln" or self.seed == 0]

    def place(self, folder: Path, kind: str) -> Path:
        """Where a model is, or its recovery."""
        pixels = "" if self.size == SIZE else f"_{self.size}px"
        return folder / f"{self.circuit}_{self.minutes:g}min{pixels}" / f"{kind}_{self.seed}"


def movies(minutes: float, size: int = SIZE) -> dict[str, xr.DataArray]:
    """Make what is trained on, and what is judged on: a natural movie and white noise."""
    left, right = rc.stimuli.split_images(rc.stimuli.photographs())
    screen = rc.stimuli.Screen(shape=(size, size))
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


def simulate(job: Job, *nodes: str) -> xr.DataTree:
    # What is judged on does not depend on the minutes.
    shown = movies(job.minutes if "train" in nodes else 1.0, job.size)
    return rc.simulate_retina({name: shown[name] for name in nodes}, job.circuit, seed=0)


def shifted(node: xr.Dataset) -> xr.Dataset:
    """Move all spikes half a block later, circularly: rates and their rhythm stay."""
    counts = node["spike_count"].copy(deep=True)
    for run in runs_of(node):
        counts[run] = np.roll(node["spike_count"][run].values, (run.stop - run.start) // 2, axis=0)
    return node.assign(spike_count=counts)


def fit(job: Job, kind: str, node: xr.Dataset) -> rc.RetinaModel:
    split = rc.split(shifted(node) if kind == "shifted" else node, gap=HISTORY)
    training, validation = (split[part].to_dataset() for part in ("train", "validation"))
    if kind == "ln":
        return rc.models.LN.from_least_squares(
            training, validation=validation, history=HISTORY, progress=False
        )
    if kind == "refitted":
        truth = rc.simulation.circuit(job.circuit, movie=node["stimulus"])
        model = rc.validation.refittable_circuit(truth, seed=job.seed)
        updates, rate = REFIT_UPDATES, 3e-2
    else:
        model = rc.models.BNCNN.for_recording(
            node, history=HISTORY, channels=CHANNELS, kernel_sizes=KERNELS, noise=0.0,
            seed=job.seed,
        )  # fmt: skip
        # An untrained network has seen the movie but learned nothing: batch norms have their
        # means and sds, weights do not move.
        updates, rate = (UPDATES if job.size == SIZE else SMALL_UPDATES), 1e-2
        if kind == "untrained":
            updates, rate = 1, 1e-12
    epochs = max(1, round(updates * FRAMES_AN_UPDATE / training.sizes["time"]))
    rc.train(
        model,
        training,
        validation=validation,
        max_epochs=epochs,
        learning_rate=rate,
        l1_rate=0.0,
        seed=job.seed,
        progress=False,
    )
    return model


def jobs(circuits: list[str], work: str, size: int = SMALL) -> list[Job]:
    """Return all that is compared, the most important first."""
    of_circuits = [Job(name, MINUTES, seed) for name in circuits for seed in range(SEEDS[name])]
    of_amounts = [Job("default", minutes, 0, size) for minutes in AMOUNTS]
    found = of_circuits if work != "amounts" else []
    return found + (of_amounts if work != "circuits" and "default" in circuits else [])


def train(folder: Path, todo: list[Job]) -> None:
    for job in todo:
        missing = [kind for kind in job.kinds if not job.place(folder, kind).exists()]
        if not missing:
            continue
        node = simulate(job, "train")["train"].to_dataset()
        for kind in missing:
            start = time.perf_counter()
            model = fit(job, kind, node)
            save(model, job.place(folder, kind))
            took = time.perf_counter() - start
            print(f"{tuple(job)}, {kind}: {took:.0f} s", flush=True)


def save(model: rc.RetinaModel, path: Path) -> None:
    """Write a model; of a refitted circuit, which is rebuilt by its name, the weights."""
    if not isinstance(model, rc.simulation.Circuit):
        model.save(path)
        return
    with written_beside(path) as fresh:
        fresh.mkdir(parents=True)
        safetensors.torch.save_file(model.network.state_dict(), fresh / "weights.safetensors")


def load(folder: Path, job: Job, kind: str, movie: xr.DataArray) -> rc.RetinaModel:
    path = job.place(folder, kind)
    if kind != "refitted":
        return rc.load_model(path)
    truth = rc.simulation.circuit(job.circuit, movie=movie)
    model = rc.validation.refittable_circuit(truth, seed=job.seed)
    model.network.load_state_dict(safetensors.torch.load_file(path / "weights.safetensors"))
    return model


def score(folder: Path, todo: list[Job]) -> None:
    for job in todo:
        path = job.place(folder, "recovery").with_suffix(".nc")
        names = [kind for kind in job.kinds if kind != "ln"]
        if path.exists() or not all(job.place(folder, kind).exists() for kind in names):
            continue
        judged = simulate(job, "test", "noise")
        movie = judged["test"]["stimulus"]
        models = {kind: load(folder, job, kind, movie) for kind in names}
        start = time.perf_counter()
        found = rc.benchmark_recovery(models, judged, method=METHOD, progress=False)
        rc.save_tree(found, path)
        print(f"{tuple(job)}: {time.perf_counter() - start:.0f} s", flush=True)


def opened(folder: Path, todo: list[Job]) -> dict[int, xr.DataTree]:
    """Open what was scored, by seed."""
    paths = {job.seed: job.place(folder, "recovery").with_suffix(".nc") for job in todo}
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


def beside_ln(folder: Path, job: Job) -> None:
    """Print rates by type of cell: LN beside the network."""
    if not all(job.place(folder, kind).exists() for kind in ("ln", "trained")):
        return
    node = simulate(job, "test")["test"].to_dataset()
    r = {}
    for kind in ("ln", "trained"):
        rate = load(folder, job, kind, node["stimulus"]).predict(node["stimulus"])
        r[kind] = xr.corr(rate, node["true_rate"].sel(cell=rate["cell"]), "time")
    rows = []
    for cell_type in dict.fromkeys(node["cell_type"].values.tolist()):
        cells = node["cell"].values[node["cell_type"].values == cell_type]
        ranges = [(float(v.sel(cell=cells).min()), float(v.sel(cell=cells).max()))
                  for v in r.values()]  # fmt: skip
        rows.append([cell_type, str(len(cells)), *(f"{a:.2f} to {b:.2f}" for a, b in ranges)])
    print("\nr of the rate, over the cells of a type")
    show(["type", "cells", "LN", "trained"], rows)


def agreement(folder: Path, circuit: str) -> None:
    """Print how far two networks of other seeds report the same, trained and untrained."""
    pair = [Job(circuit, MINUTES, seed) for seed in (0, 1)]
    movie = simulate(pair[0], "test")["test"]["stimulus"][:AGREEMENT_FRAMES]
    rows = []
    for kind in ("trained", "untrained"):
        if not all(job.place(folder, kind).exists() for job in pair):
            continue
        models = [load(folder, job, kind, movie) for job in pair]
        found = rc.validation.agreement(*models, movie, method=METHOD, progress=False)
        for layer in found["layer"].values:
            one = found.sel(layer=layer)
            medians = [one[v].median("cell").sel(removed=w) for v in ("cka", "r")
                       for w in one["removed"].values]  # fmt: skip
            rows.append([f"{kind}, {layer}", *(f"{float(value):.2f}" for value in medians)])
    if rows:
        words = [f"{v}, {w} removed" for v in ("CKA", "r") for w in found["removed"].values]
        print("\n## Agreement")
        show(["two networks", *words], rows)


def amounts_of(folder: Path, size: int) -> xr.Dataset | None:
    """Join the summaries over minutes of movie."""
    found = {}
    for job in jobs(["default"], "amounts", size):
        trees = opened(folder, [job])
        if trees:
            found[job.minutes] = rc.validation.summarise(trees[job.seed])
    if len(found) < 2:
        return None
    minutes = xr.Variable("minutes", list(found), {"units": "min"})
    return xr.concat(list(found.values()), minutes)


def tables(folder: Path, circuits: list[str]) -> None:
    for circuit in circuits:
        todo = [Job(circuit, MINUTES, seed) for seed in range(SEEDS[circuit])]
        trees = opened(folder, todo)
        if trees:
            print(f"\n## {circuit}, {MINUTES:g} minutes, seeds: {len(trees)}")
            recovered(rc.validation.summarise(trees))
            by_type(trees)
        beside_ln(folder, todo[0])
    if "default" not in circuits:
        return
    for size in (SMALL, SIZE):
        summary = amounts_of(folder, size)
        if summary is None:
            continue
        at = {"cut": "bipolar", "removed": "predicted"}
        columns = {
            "rate": ("prediction_r", {}),
            "worst cell": ("worst_prediction_r", {}),
            "interneurons": ("interneuron_r", {"signal": "potential"}),
            "contributions": ("contribution_r", {"features": "contribution", **at}),
            "CKA": ("cka", {"parts": "net", **at}),
        }
        print(f"\n## How much movie (default, {size} x {size} pixels, seed 0)")
        show(
            ["minutes", "", *columns],
            [
                [f"{minutes:g}", model]
                + [number(summary.sel(minutes=minutes), name, model=model, **labels)
                   for name, labels in columns.values()]
                for model in summary["model"].values
                for minutes in summary["minutes"].values
            ],
        )  # fmt: skip
    agreement(folder, "default")


def compared_interneurons(folder: Path) -> xr.DataTree:
    """Hold networks of seed 0 against the interneurons on white noise, with nulls."""
    job = Job("default", MINUTES, 0)
    node = simulate(job, "noise")["noise"].to_dataset()
    load_one = {kind: load(folder, job, kind, node["stimulus"]) for kind in job.kinds
                if kind != "ln" and job.place(folder, kind).exists()}  # fmt: skip
    controls = {kind: load_one[kind] for kind in ("untrained", "shifted") if kind in load_one}
    return rc.interneurons.compare_models(
        load_one, node, controls=controls, by="interneuron_layer", n_shifts=SHIFTS, progress=False
    )


def interneurons(folder: Path) -> None:
    tree = compared_interneurons(folder)
    root = tree.to_dataset()
    trained = root.sel(model="trained")
    names = ["uncorrected_r", "best_r", "null_r", "matched_r", "combined_r"]
    columns = {name: trained[name] for name in names}
    columns |= {f"{kind}: best_r": trained["control_best_r"].sel(control=kind)
                for kind in root["control"].values}  # fmt: skip
    medians = {
        name: values.groupby(trained["interneuron_type"]).median()
        for name, values in columns.items()
    }
    kinds = list(dict.fromkeys(trained["interneuron_type"].values.tolist()))
    show(
        ["type", *columns],
        [[kind, *(f"{float(v.sel(interneuron_type=kind)):.2f}" for v in medians.values())]
         for kind in kinds],
    )  # fmt: skip
    tested = tree["over_cells"].to_dataset().sel(model="trained", score="best")
    show(
        ["over cells", "cells", "against", "median difference", "p"],
        [
            [str(kind), str(int(one["n_cells"])), str(against),
             f"{float(one['median_difference']):.2f}", f"{float(one['p_value']):.1g}"]
            for kind in tested["type"].values
            for against in tested["against"].values
            for one in [tested.sel(type=kind, against=against)]
        ],
    )  # fmt: skip


OTHER_METHODS = {
    "contribution": METHOD,
    "activation x gradient": rc.methods.ActivationGradient(),
    "ablation": rc.methods.Ablation(),
}


def other_methods(folder: Path) -> None:
    """Print other ways to say what a unit did: named drivers, and correlation with two truths."""
    job = Job("default", MINUTES, 0)
    judged = simulate(job, "test")
    movie = judged["test"]["stimulus"]
    models = {kind: load(folder, job, kind, movie) for kind in ("trained", "untrained")}
    options: Any = {"layers": "relu2", "progress": False}

    def first(n_frames: int) -> xr.DataTree:
        node = judged["test"].to_dataset().isel(time=slice(0, n_frames))
        return xr.DataTree.from_dict({"test": node})

    rows = []
    for name, method in OTHER_METHODS.items():
        found = rc.validation.named_drivers(
            models, first(DRIVERS_FRAMES), method=method, n_bursts=BURSTS, **options
        )
        contested = found.isel(cell=found["contested"].values == 1)
        asked = [(name, "contribution")] + [("activation", "activation")] * (method is METHOD)
        for words, features in asked:
            right = contested["right"].sel(features=features)
            of_models = [f"{float(right.sel(model=m).mean()):.2f}" for m in models]
            rows.append([words, *of_models, f"{float(contested['chance'].mean()):.2f}"])
    n = int(np.isfinite(right.isel(model=0)).sum())
    print(f"\nDriver named: {n} bursts of {contested.sizes['cell']} cells driven by several types")
    show(["by", *models, "chance"], rows)
    rows = []
    truths = {"path": METHOD, "ablation": OTHER_METHODS["ablation"]}
    for true_name, true_method in truths.items():
        for name, method in OTHER_METHODS.items():
            if true_name == "ablation" and name == "activation x gradient":
                continue
            found = rc.benchmark_recovery(
                models, first(SHORT_FRAMES), noise=None, method=method, true_method=true_method,
                **options,
            )  # fmt: skip
            summary = rc.validation.summarise(found).sel(cut="bipolar", removed="predicted")
            asked = [(name, "contribution")] + [("activation", "activation")] * (method is METHOD)
            for words, features in asked:
                values = [number(summary, "contribution_r", model=m, features=features)
                          for m in models]  # fmt: skip
                rows.append([words, true_name, *values])
    print("\nr with true contributions, predicted rate removed")
    show(["by", "truth by", *models], rows)


def figures(folder: Path, to: Path) -> None:
    """Draw one burst of each type of cell, the amounts of movie, and the interneurons."""
    to.mkdir(parents=True, exist_ok=True)
    job = Job("default", MINUTES, 0)
    tree = opened(folder, [job])[0]
    judged = simulate(job, "test")
    node = judged["test"].to_dataset()
    model = load(folder, job, "trained", node["stimulus"])
    r = tree["contributions"]["r"].sel(model="trained", features="contribution")
    r = r.where(r["cut"] == "bipolar", drop=True).notnull().sum("true_channel")
    panels = []
    for kind in dict.fromkeys(node["cell_type"].values.tolist()):
        of_kind = r.sel(cell=node["cell"].values[node["cell_type"].values == kind])
        # The first cell of those of which most is left to recover.
        cell = str(of_kind["cell"].values[of_kind.sel(removed="predicted").values.argmax()])
        # Matches made without the rate where something is left, else with it.
        found = {
            removed: rc.validation.matched_burst(
                model, judged, tree, cell=cell, name="trained", removed=removed, around=0.3
            )
            for removed in ("predicted", "nothing")
            if int(r.sel(cell=cell, removed=removed))
        }
        burst = found["nothing"]
        if "predicted" in found:
            channels = found["predicted"]["true_channel"].values
            rest = burst.drop_sel(true_channel=channels)
            burst = xr.concat([rest, found["predicted"]], "true_channel", data_vars="minimal")
        panels.append(burst)
    figure = Figure(figsize=(13, 10.5), layout="constrained")
    grid = figure.subfigures(3, 3).ravel()
    for burst, part in zip(panels, grid, strict=False):
        rc.plot.burst(burst["true"], burst["recovered"], figure=part)
    figure.savefig(to / "recovery_bursts.png", dpi=90)
    for size in (SMALL, SIZE):
        summary = amounts_of(folder, size)
        if summary is not None:
            figure = Figure(layout="constrained", figsize=(11.5, 2.9))
            rc.plot.recovery_curve(summary, figure=figure)
            figure.savefig(to / "recovery_amounts.png", dpi=90)
            break
    compared = compared_interneurons(folder)
    shown = {m: compared.to_dataset().sel(model=m) for m in ("trained", "untrained")}
    figure = Figure(layout="constrained", figsize=(10, 4.5))
    rc.plot.interneuron_match(shown, ax=figure.subplots())
    figure.savefig(to / "recovery_interneurons.png", dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=list(STAGES))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--circuits", nargs="+", default=list(SEEDS), choices=list(SEEDS))
    parser.add_argument("--work", default="all", choices=("all", "circuits", "amounts"))
    parser.add_argument("--size", type=int, default=SMALL, help="pixels of --work amounts")
    parser.add_argument("--part", default="0/1", help="which share of the work, such as 0/2")
    here = Path(__file__).parents[1] / "docs" / "images"
    parser.add_argument("--to", type=Path, default=here, help="where figures go")
    given = parser.parse_args()
    torch.set_num_threads(1)
    STAGES[given.stage](given)


def todo_of(given: argparse.Namespace) -> list[Job]:
    index, n = (int(part) for part in given.part.split("/"))
    return jobs(given.circuits, given.work, given.size)[index::n]


STAGES = {
    "train": lambda given: train(given.folder, todo_of(given)),
    "score": lambda given: score(given.folder, todo_of(given)),
    "tables": lambda given: tables(given.folder, given.circuits),
    "interneurons": lambda given: interneurons(given.folder),
    "methods": lambda given: other_methods(given.folder),
    "figures": lambda given: figures(given.folder, given.to),
}


if __name__ == "__main__":
    main()
