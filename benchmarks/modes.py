"""Whether modes of trained networks are stable, carry light and motion, and are true.

    python benchmarks/recovery.py train FOLDER
    python benchmarks/modes.py FOLDER [--layer relu1] [--code cells] [--networks 0 1 2]
        [--size MODES K] [--tables NAME ...]

Takes networks of `benchmarks/recovery.py` (trained on 20 minutes of a simulated retina, with
several seeds; untrained; and the true architecture refitted to the same spikes), computes their
contributions to every ganglion cell on three movies that none was trained on, and fits modes to
those of one layer (of the circuit: bipolar cells for the first layer, inputs of ganglion cells for
the second):
- `fit`: natural movie, steps, gratings, bars, differential motion; the size and sparsity are chosen
  on it by `rc.choose_modes`, for the first trained network, and are then those of all;
- `test`: natural movie of other parts of the photographs, on which modes are compared with the true
  contributions, rates removed (`rc.validation.modes_against_truth`);
- `probe`: 32 epochs each of ON steps, OFF steps, gratings, bars and still pictures, on which modes
  are assigned to classes on one half of the epochs and scored on the other.
Modes of `cells` have the channels of a layer as columns and are the same for all cells, of
`population` the channels for each cell. Figures are medians over networks and seeds of the
autoencoder, with the range; of epochs, networks stand in rows of their own, with 95 % intervals.
Prints Markdown. What is in FOLDER already is not computed again. One thread.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from recovery import MINUTES, SIZE, Job, load, simulate

import retina_codec as rc

KINDS = ("trained", "untrained", "refitted")
METHOD = rc.methods.IntegratedGradients(steps=4)
CODES = {"cells": ("sign", "channel"), "population": ("cell", "sign", "channel")}
# One mode a sample would be a clustering of samples, not teams that add up.
N_MODES = {"cells": (8, 16, 24, 32, 64), "population": (32, 64, 128, 192)}
K = (2, 3)
MOST_ACTIVE = 3.0
# Contributions of one sign add up: roots of them do not.
OPTIONS: dict[str, Any] = {"scaling": "rms", "non_negative": True, "max_epochs": 60}
OTHER_OPTIONS = (
    {"scaling": "rms", "non_negative": False},
    {"scaling": "signed_sqrt", "non_negative": True},
    {"scaling": "signed_sqrt", "non_negative": False},
)
LAYERS = {"relu1": ("relu1", "bipolar"), "relu2": ("relu2", "ganglion_input")}
GROUPS = {"motion": ["grating", "bar"]}
CLASSES = ("on_step", "off_step", "motion")
TABLES = ("scores", "stability", "rates", "truth", "epochs", "labels")
FIT_FRAMES = 12000
TIMES_APART = {"cells": 3, "population": 1}  # of which modes are fitted to: neighbours are alike
CELLS_APART = 5  # every fifth is described: each costs as much as the first


def movies() -> dict[str, xr.DataArray]:
    left, _ = rc.stimuli.split_images(rc.stimuli.photographs())
    screen = rc.stimuli.Screen(shape=(SIZE, SIZE))
    part = FIT_FRAMES // 10
    return {
        "fit": rc.stimuli.concatenate(
            [
                screen.natural_movie(left, n_frames=FIT_FRAMES - 4 * part, seed=11),
                screen.light_steps(n_frames=part, seed=11),
                screen.moving_gratings(n_frames=part, seed=11),
                screen.moving_bars(n_frames=part, seed=11),
                screen.differential_motion(n_frames=part, seed=11),
            ]
        ),
        "probe": rc.stimuli.probe_movie(
            seed=12, shape=(SIZE, SIZE), n_cycles=4, epoch_duration=0.5, transition=0.2
        ),
    }


def decomposed(model: rc.RetinaModel, movie: xr.DataArray, path: Path) -> xr.DataTree:
    """Contributions to each cell and activations, summed over places; computed once."""
    if not path.exists():
        tree = rc.contributions(
            model,
            movie,
            target=rc.targets.Output(list(model.outputs)),
            method=METHOD,
            split_sign=True,
            sum_over=("y", "x"),
            extras=("activation",),
            progress=False,
        )
        rc.save_tree(tree, path)
    return rc.open_tree(path).load()


class Study(NamedTuple):
    """Contributions of one layer of several networks, and how modes are fitted to them."""

    trees: dict[tuple[str, str, int], xr.DataTree]  # by movie, kind of network, seed
    networks: list[int]
    layer: str
    code: str
    seeds: list[int]
    folder: Path

    def columns(
        self, movie: str, kind: str, network: int, variable: str = "contribution"
    ) -> xr.DataArray:
        """Take the layer that was asked for; of the circuit, the one that stands for it."""
        tree = self.trees[movie, kind, network]
        names = [name for name in LAYERS[self.layer] if name in tree["layers"].children]
        found = tree[f"layers/{names[0]}"].to_dataset()[variable]
        return found.isel(time=slice(None, None, TIMES_APART[self.code] if movie == "fit" else 1))

    def features(self, columns: xr.DataArray) -> list[str]:
        """Dims of the code; activations have no cells and no signs."""
        return [dim for dim in CODES[self.code] if dim in columns.dims]

    def raw(self, movie: str, kind: str, network: int) -> xr.DataArray:
        """Name the columns as modes: what modes are made of."""
        columns = self.columns(movie, kind, network)
        features = self.features(columns)
        found = columns.stack(mode=features).drop_vars(["mode", *features], errors="ignore")
        return found.assign_coords(mode=np.arange(found.sizes["mode"]))

    def fitted(
        self, kind: str, network: int, n_modes: int, k: int, seed: int = 0,
        variable: str = "contribution", **options: Any,
    ) -> rc.Modes:  # fmt: skip
        """Fit modes to one network."""
        columns = self.columns("fit", kind, network, variable)
        return rc.fit_modes(
            columns, features=self.features(columns), n_modes=n_modes, k=k, seed=seed,
            progress=False, **{**OPTIONS, **options},
        )  # fmt: skip

    def of_all(self, n_modes: int, k: int) -> Fits:
        """Fit to each network with each seed, or read what has been fitted already."""
        kept = self.folder / f"{self.layer}_{self.code}_{n_modes}_{k}"
        kept.mkdir(parents=True, exist_ok=True)
        fits: Fits = {}
        for kind in KINDS:
            for network in self.networks:
                fits[kind, network] = []
                for seed in self.seeds:
                    path = kept / f"{kind}_{network}_{seed}"
                    if not path.exists():
                        self.fitted(kind, network, n_modes, k, seed).save(path)
                    fits[kind, network].append(rc.load_modes(path))
        return fits


Fits = dict[tuple[str, int], list[rc.Modes]]  # by kind of network and its seed; a seed each


def table(heading: list[str], rows: list[list[object]]) -> None:
    print(f"\n| {' | '.join(heading)} |\n|{'---|' * len(heading)}")
    for row in rows:
        print(f"| {' | '.join(str(entry) for entry in row)} |", flush=True)


def spread(values: Iterable[float]) -> str:
    """Median and range."""
    numbers = np.array(list(values), dtype=float)
    text = f"{np.median(numbers):.2f}"
    if len(numbers) > 1:
        text += f" ({numbers.min():.2f} to {numbers.max():.2f})"
    return text


def choose(study: Study) -> tuple[int, int]:
    """Choose size and sparsity on the first trained network's contributions."""
    columns = study.columns("fit", "trained", study.networks[0])
    curve = rc.choose_modes(
        columns,
        features=study.features(columns),
        n_modes=N_MODES[study.code],
        k=K,
        seeds=study.seeds,
        max_l0=MOST_ACTIVE,
        progress=False,
        **OPTIONS,
    )
    mean = curve.mean("seed")
    table(
        ["modes", "k", "held-out R2", "L0", "alive", "stability"],
        [
            [n, k, *(f"{float(mean[v].sel(n_modes=n, k=k)):.2f}" for v in ("r2", "l0", "alive")),
             f"{float(curve['stability'].sel(n_modes=n, k=k)):.2f}"]
            for n in N_MODES[study.code] for k in K
        ],
    )  # fmt: skip
    print("\n" + str(curve.attrs["rule"]), flush=True)
    return int(curve.attrs["recommended_n_modes"]), int(curve.attrs["recommended_k"])


def agreement(modes: list[rc.Modes]) -> list[float]:
    """Median cosine of the modes of each fit with those of the first."""
    alive = modes[0].loadings["active_fraction"] > 0
    return [
        float(rc.match_modes(modes[0], other)["cosine"].where(alive).median())
        for other in modes[1:]
    ]


def channels_in(modes: rc.Modes) -> float:
    """Median over atoms of how many columns share in it, softly counted: (sum w2)^2 / sum w4."""
    dictionary = modes.dictionary
    atoms = dictionary.transpose("mode", ...).values.reshape(dictionary.sizes["mode"], -1)
    squares = atoms[modes.loadings["active_fraction"].values > 0] ** 2
    return float(np.median(squares.sum(1) ** 2 / (squares**2).sum(1)))


def sparse_scores(study: Study, fits: Fits, n_modes: int, k: int) -> None:
    """Reconstruction beside other scalings, and PCA and NMF of as many components as are active."""
    kinds: dict[str, dict[str, Any]] = {"TopK": {}}
    for options in OTHER_OPTIONS:
        signs = "one sign" if options["non_negative"] else "either sign"
        kinds[f"TopK, {options['scaling']}, {signs}"] = options
    kinds["BatchTopK"] = {"autoencoder": "batch_topk"}
    baseline = {"n_modes": k, "scaling": OPTIONS["scaling"], "non_negative": False}
    kinds[f"PCA, {k} components"] = {**baseline, "autoencoder": "pca"}
    kinds[f"NMF, {k} components"] = {**baseline, "autoencoder": "nmf"}
    kinds["TopK, untrained networks"] = kinds["TopK, refitted circuits"] = {}
    rows = []
    for name, options in kinds.items():
        kind = name.split()[-2] if name.endswith(("networks", "circuits")) else "trained"
        held_out, elsewhere, active, stable, of_atoms = [], [], [], [], []
        for network in study.networks:
            modes = fits[kind, network]
            if options:
                size = options.get("n_modes", n_modes)
                rest = {key: value for key, value in options.items() if key != "n_modes"}
                seeds = study.seeds if size == n_modes else [0]
                modes = [study.fitted(kind, network, size, k, seed, **rest) for seed in seeds]
            test = study.columns("test", kind, network)
            scores = [one.score() for one in modes]
            held_out += [float(score["mean_r2"]) for score in scores]
            active += [float(score["l0"]) for score in scores]
            elsewhere += [float(one.score(test)["mean_r2"]) for one in modes]
            stable += agreement(modes)
            of_atoms += [channels_in(one) for one in modes]
        alike = spread(stable) if stable else "-"
        rows.append([name, spread(held_out), spread(elsewhere), spread(active), alike,
                     spread(of_atoms)])  # fmt: skip
    table(
        ["", "R2, held out", "R2, other photographs", "active", "cosine over seeds",
         "columns in an atom"], rows,
    )  # fmt: skip


def stability(study: Study, n_modes: int, k: int) -> None:
    found = []
    for network in study.networks:
        columns = study.columns("fit", "trained", network)
        found.append(
            rc.modes.stability(
                columns, features=study.features(columns), n_modes=n_modes, k=k,
                seeds=study.seeds, progress=False, **OPTIONS,
            )
        )  # fmt: skip
    rows: list[list[object]] = [
        ["over seeds", spread(float(one["stability"].median()) for one in found)],
        ["halves of the movie", spread(float(one["half_stability"].median()) for one in found)],
    ]
    for control in found[0]["control"].values:
        of_control = (one["control_stability"].sel(control=control).median() for one in found)
        rows.append([str(control).replace("_", " "), spread(map(float, of_control))])
    table(["median cosine of matched modes", ""], rows)


def rates(study: Study, fits: Fits) -> None:
    """Say how well the rates come back from the reconstructed contributions."""
    rows = []
    for kind in KINDS:
        found = []
        for network in study.networks:
            test = study.trees["test", kind, network]
            modes = fits[kind, network][0]
            loadings = modes.transform(study.columns("test", kind, network))
            found.append(
                rc.modes.target_reconstruction(
                    modes, test["target"], test["target_baseline"], loadings=loadings
                )["r"]
            )
        medians = (float(r.median()) for r in found)
        rows.append([kind, spread(medians), spread(float(r.min()) for r in found)])
    table(["rates from modes, r", "median over cells", "worst cell"], rows)


def truth(study: Study, fits: Fits, simulation: xr.DataTree) -> None:
    """Compare modes, and the columns that they were fitted to, with the true contributions."""
    loadings, predicted = {}, {}
    for (kind, network), of_seeds in fits.items():
        of_rates = study.trees["test", kind, network]["target"]
        loadings[f"{kind}, {network}, raw"] = study.raw("test", kind, network)
        for seed, modes in enumerate(of_seeds):
            columns = study.columns("test", kind, network)
            loadings[f"{kind}, {network}, {seed}"] = modes.transform(columns)
        predicted |= {name: of_rates for name in loadings if name not in predicted}
    found = rc.validation.modes_against_truth(
        loadings, predicted, simulation, method=METHOD, progress=False
    )
    rows = []
    for cut in np.unique(found["cut"].values):
        r = found["r"].isel(true_channel=np.flatnonzero(found["cut"].values == cut))
        of_types = r.groupby("cell_type").median("cell")
        of_types = of_types.median("true_channel").median("cell_type")
        for removed in ("predicted", "both"):
            at = of_types.sel(removed=removed)
            medians = {
                kind: [
                    [float(at.sel(model=f"{kind}, {network}, {i}")) for i in range(len(of_seeds))]
                    for network in study.networks
                    for of_seeds in [fits[kind, network]]
                ]
                for kind in KINDS
            }
            share = np.median(medians["trained"], axis=1) / np.median(medians["refitted"], axis=1)
            single = (
                spread(float(at.sel(model=f"{kind}, {network}, raw")) for network in study.networks)
                for kind in KINDS
            )
            of_modes = (spread(np.ravel(medians[kind])) for kind in KINDS)
            rows.append([cut, removed, *of_modes, spread(share), *single])
    table(
        ["cut", "rate removed", *KINDS, "trained / refitted",
         *(f"single channels, {kind}" for kind in KINDS)], rows,
    )  # fmt: skip


def told_apart(study: Study, fits: Fits, n_modes: int, k: int) -> dict[str, list[xr.DataArray]]:
    """Return what is shown the probe, over time and `mode`: modes, and what they stand beside."""
    found: dict[str, list[xr.DataArray]] = {}

    def add(name: str, loadings: xr.DataArray) -> None:
        found.setdefault(name, []).append(loadings)

    for kind in KINDS:
        for network in study.networks:
            columns = study.columns("probe", kind, network)
            for modes in fits[kind, network]:
                add(f"modes, {kind}", modes.transform(columns))
            add(f"single channels, {kind}", study.raw("probe", kind, network))
            activation = study.columns("probe", kind, network, "activation")
            for seed in study.seeds:
                of_activations = study.fitted(kind, network, n_modes, k, seed, "activation")
                add(f"modes of activations, {kind}", of_activations.transform(activation))
            components = study.fitted(
                kind, network, 2 * k, k, autoencoder="pca", non_negative=False
            )
            add(f"PCA, {kind}", components.transform(columns))
    return found


def probe(study: Study, fits: Fits, n_modes: int, k: int, epochs: xr.DataArray) -> None:
    """AUC of epochs and purity, beside what has no modes, or no training."""

    def entry(scores: list[xr.Dataset], name: str) -> str:
        """Median over networks and seeds, and the widest interval."""
        if not scores:
            return "-"
        middle = np.median([float(score[name]) for score in scores])
        low = min(float(score[f"{name}_low"]) for score in scores)
        high = max(float(score[f"{name}_high"]) for score in scores)
        return f"{middle:.2f} [{low:.2f}, {high:.2f}]"

    rows = []
    for name, of_networks in told_apart(study, fits, n_modes, k).items():
        scores = [
            rc.epoch_selectivity(
                loadings, epochs.sel(time=loadings["time"]), ignore=["transition"],
                groups=GROUPS, per="epoch",
            )
            for loadings in of_networks
        ]  # fmt: skip
        aucs, pure, together = [], [], []
        for one in CLASSES:
            best = [score.sel(epoch=one) for score in scores]
            aucs.append(entry(best, "best_auc"))
            of_class = [at for at in best if np.isfinite(at["assigned_auc"])]
            none = len(best) - len(of_class)
            together.append(entry(of_class, "assigned_auc") + (f"; {none} none" if none else ""))
            pairs = zip(scores, best, strict=True)
            own = [score.sel(mode=at["best_mode"].item()) for score, at in pairs]
            # The best mode for a class can be mostly active in another one.
            kept = [at for at in own if str(at["assigned"].values) == one]
            missing = len(own) - len(kept)
            pure.append(entry(kept, "purity") + (f"; {missing} other" if missing else ""))
        rows.append([name, *aucs, *together, *pure, entry(scores, "mean_purity"), len(scores)])
    names = [name.replace("_", " ") for name in CLASSES]
    table(
        ["", *(f"AUC of the best, {name}" for name in names),
         *(f"AUC of all assigned, {name}" for name in names),
         *(f"purity of the best, {name}" for name in names),
         "purity of all", "fits"], rows,
    )  # fmt: skip


def labels(study: Study, fits: Fits, features: xr.Dataset) -> None:
    """Say what modes of the first network carry on the probe movie, by features of the field."""
    rows = []
    network = study.networks[0]
    for kind in KINDS:
        loadings = fits[kind, network][0].transform(study.columns("probe", kind, network))
        others = [dim for dim in loadings.dims if dim != "mode"]
        active = (loadings > 0).mean(others).values > 0.001
        loadings = loadings.isel(mode=np.flatnonzero(active))
        if "cell" in loadings.dims:
            loadings = loadings.isel(cell=slice(None, None, CELLS_APART))
        described = rc.describe_modes(loadings, features, max_lag=0.2)
        row = [kind, str(int(active.sum()))]
        for label in ("light", "motion", "mixed", "none"):
            chosen = described["label"].values == label
            subtypes = sorted(set(map(str, described["subtype"].values[chosen])) - {""})
            row.append(f"{int(chosen.sum())} {'; '.join(subtypes) if label != 'none' else ''}")
        rows.append(row)
    table(["", "active modes", "light", "motion", "mixed", "none"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--circuit", default="default")
    parser.add_argument("--layer", default="relu1", choices=list(LAYERS))
    parser.add_argument("--code", default="cells", choices=list(CODES))
    parser.add_argument("--networks", type=int, nargs="+", default=[0, 1, 2], help="seeds of them")
    parser.add_argument("--seeds", type=int, default=2, help="of the autoencoders")
    parser.add_argument("--tables", nargs="+", default=list(TABLES), choices=TABLES)
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("MODES", "K"), help="as was chosen before"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    simulation = simulate(Job(given.circuit, MINUTES, 0), "test")
    shown = {**movies(), "test": simulation["test"]["stimulus"]}
    kept = given.folder / "modes" / given.circuit
    kept.mkdir(parents=True, exist_ok=True)
    trees = {}
    for kind in KINDS:
        for network in given.networks:
            model = load(given.folder, Job(given.circuit, MINUTES, network), kind, shown["test"])
            for name, movie in shown.items():
                path = kept / f"{kind}_{network}_{name}.nc"
                trees[name, kind, network] = decomposed(model, movie, path)
    seeds = list(range(given.seeds))
    study = Study(trees, given.networks, given.layer, given.code, seeds, kept)
    n_modes, k = given.size or choose(study)
    fits = study.of_all(n_modes, k)
    of_table = {
        "scores": lambda: sparse_scores(study, fits, n_modes, k),
        "stability": lambda: stability(study, n_modes, k),
        "rates": lambda: rates(study, fits),
        "truth": lambda: truth(study, fits, simulation),
        "epochs": lambda: probe(study, fits, n_modes, k, shown["probe"]["epoch"]),
        "labels": lambda: labels(study, fits, rc.stimulus_features(shown["probe"])),
    }
    for name in given.tables:
        of_table[name]()


if __name__ == "__main__":
    main()
