"""Whether modes of a trained network are stable, carry light and motion, and are true.

    python benchmarks/recovery.py train FOLDER
    python benchmarks/modes.py FOLDER [--layer relu1] [--seeds 3] [--circuit default]

Takes the networks of `benchmarks/recovery.py` (trained on 20 minutes of a simulated retina,
untrained, and the true architecture refitted to the same spikes), computes their contributions to
every ganglion cell on three movies that none was trained on, and fits modes to those of one layer
(of the circuit: bipolar cells for the first layer, inputs of ganglion cells for the second):
- `fit`: natural movie, steps, gratings, bars, differential motion; the size and sparsity are chosen
  on it by `rc.choose_modes`, for the trained network, and are then those of all;
- `test`: natural movie of other parts of the photographs, on which modes are compared with the true
  contributions, rates removed (`rc.validation.modes_against_truth`);
- `probe`: 32 epochs each of ON steps, OFF steps, gratings, bars and still pictures, on which modes
  are assigned to classes on one half of the epochs and scored on the other.
Prints Markdown. What is in FOLDER already is not computed again. One thread.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from recovery import MINUTES, SIZE, Job, load, simulate

import retina_codec as rc

KINDS = ("trained", "untrained", "refitted")
METHOD = rc.methods.IntegratedGradients(steps=4)
# One mode a sample would be a clustering of samples, not teams that add up.
N_MODES, K = (16, 32, 64, 128), (2, 3)
MOST_ACTIVE = 3.0
FEATURES = ("sign", "channel")
LAYERS = {"relu1": ("relu1", "bipolar"), "relu2": ("relu2", "ganglion_input")}
GROUPS = {"motion": ["grating", "bar"]}
CLASSES = ("on_step", "off_step", "motion")
MAX_EPOCHS = 60
PROBED_APART = 3  # every third cell is shown the probe: one of each type
TIMES_APART = 3  # every third moment is fitted to: neighbours are nearly the same
CELLS_APART = 2  # every second of these is described: each costs as much as the first

Trees = dict[str, dict[str, xr.DataTree]]  # by movie and network
Fits = dict[str, list[rc.Modes]]  # by network, a seed each


def movies() -> dict[str, xr.DataArray]:
    left, _ = rc.stimuli.split_images(rc.stimuli.photographs())
    screen = rc.stimuli.Screen(shape=(SIZE, SIZE))
    return {
        "fit": rc.stimuli.concatenate(
            [
                screen.natural_movie(left, n_frames=1800, seed=11),
                screen.light_steps(n_frames=300, seed=11),
                screen.moving_gratings(n_frames=300, seed=11),
                screen.moving_bars(n_frames=300, seed=11),
                screen.differential_motion(n_frames=300, seed=11),
            ]
        ),
        "probe": rc.stimuli.probe_movie(
            seed=12, shape=(SIZE, SIZE), n_cycles=4, epoch_duration=0.5, transition=0.2
        ),
    }


def decomposed(
    model: rc.RetinaModel, movie: xr.DataArray, path: Path, every: int = 1
) -> xr.DataTree:
    """Contributions to each cell and activations, summed over places; computed once."""
    if not path.exists():
        tree = rc.contributions(
            model,
            movie,
            target=rc.targets.Output(list(model.outputs[::every])),
            method=METHOD,
            split_sign=True,
            sum_over=("y", "x"),
            extras=("activation",),
            progress=False,
        )
        rc.save_tree(tree, path)
    return rc.open_tree(path).load()


def columns(tree: xr.DataTree, variable: str = "contribution") -> xr.DataArray:
    """Take the layer that was asked for; of the circuit, the one that stands for it."""
    names = [name for name in LAYERS[tree.attrs["asked"]] if name in tree["layers"].children]
    return tree[f"layers/{names[0]}"].to_dataset()[variable]


def raw(layer: xr.DataArray) -> xr.DataArray:
    """Name the columns as modes: what modes are made of."""
    found = layer.stack(mode=FEATURES).drop_vars(["mode", *FEATURES], errors="ignore")
    return found.assign_coords(mode=np.arange(found.sizes["mode"]))


def fitted(layer: xr.DataArray, n_modes: int, k: int, seed: int, **options):
    dims = [dim for dim in FEATURES if dim in layer.dims]
    return rc.fit_modes(
        layer, features=dims, n_modes=n_modes, k=k, seed=seed, progress=False,
        **{"max_epochs": MAX_EPOCHS, **options},
    )  # fmt: skip


def once(layer: xr.DataArray, n_modes: int, k: int, seed: int, path: Path) -> rc.Modes:
    """Fit, or read what has been fitted already."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        fitted(layer, n_modes, k, seed).save(path)
    return rc.load_modes(path)


def table(heading: list[str], rows: list[list[object]]) -> None:
    print(f"\n| {' | '.join(heading)} |\n|{'---|' * len(heading)}")
    for row in rows:
        print(f"| {' | '.join(str(entry) for entry in row)} |", flush=True)


def choose(layer: xr.DataArray, seeds: int) -> tuple[int, int]:
    """Choose size and sparsity on the trained network's contributions, and show the curve."""
    curve = rc.choose_modes(
        layer,
        features=FEATURES,
        n_modes=N_MODES,
        k=K,
        seeds=range(seeds),
        max_l0=MOST_ACTIVE,
        max_epochs=MAX_EPOCHS,
        progress=False,
    )
    mean = curve.mean("seed")
    table(
        ["modes", "k", "held-out R2", "L0", "alive", "stability"],
        [
            [n, k, *(f"{float(mean[v].sel(n_modes=n, k=k)):.2f}" for v in ("r2", "l0", "alive")),
             f"{float(curve['stability'].sel(n_modes=n, k=k)):.2f}"]
            for n in N_MODES for k in K
        ],
    )  # fmt: skip
    print("\n" + str(curve.attrs["rule"]))
    return int(curve.attrs["recommended_n_modes"]), int(curve.attrs["recommended_k"])


def sparse_scores(trees: Trees, fits: Fits, n_modes: int, k: int) -> None:
    """Reconstruction beside PCA and NMF of as many components as modes are active."""
    trained = columns(trees["fit"]["trained"])
    kinds: dict[str, tuple[str, list[rc.Modes]]] = {
        f"TopK, {n_modes} modes, k = {k}": ("trained", fits["trained"])
    }
    for name, size, autoencoder in (
        (f"BatchTopK, {n_modes} modes, k = {k}", n_modes, "batch_topk"),
        (f"PCA, {k} components", k, "pca"),
        (f"NMF, {k} components", k, "nmf"),
    ):
        kinds[name] = "trained", [fitted(trained, size, k, 0, autoencoder=autoencoder)]
    kinds["TopK, untrained network"] = "untrained", fits["untrained"]
    kinds["TopK, refitted circuit"] = "refitted", fits["refitted"]
    rows = []
    for name, (kind, of_seeds) in kinds.items():
        scores = [modes.score() for modes in of_seeds]
        elsewhere = [modes.score(columns(trees["test"][kind])) for modes in of_seeds]
        row = [name]
        for found in (scores, elsewhere):
            r2 = [float(score["mean_r2"]) for score in found]
            spread = f" ({min(r2):.3f} to {max(r2):.3f})" if len(r2) > 1 else ""
            row.append(f"{np.mean(r2):.3f}{spread}")
        rows.append([*row, f"{np.mean([float(score['l0']) for score in scores]):.2f}"])
    table(
        ["R2, mean and range over seeds", "held-out stretches", "other photographs", "active"], rows
    )


def stability(layer: xr.DataArray, n_modes: int, k: int, seeds: int) -> None:
    found = rc.modes.stability(
        layer, features=FEATURES, n_modes=n_modes, k=k, seeds=range(seeds),
        max_epochs=MAX_EPOCHS, progress=False,
    )  # fmt: skip
    rows = [
        ["over seeds", f"{float(found['stability'].median()):.2f}"],
        ["halves of the movie", f"{float(found['half_stability'].median()):.2f}"],
    ]
    for control in found["control"].values:
        median = float(found["control_stability"].sel(control=control).median())
        rows.append([str(control).replace("_", " "), f"{median:.2f}"])
    table(["median cosine of matched modes", ""], rows)


def truth(test: dict[str, xr.DataTree], fits: Fits, simulation: xr.DataTree) -> None:
    """Compare modes, and the columns that they were fitted to, with the true contributions."""
    rates = {kind: tree["target"] for kind, tree in test.items()}
    loadings = {f"{kind}, raw columns": raw(columns(tree)) for kind, tree in test.items()}
    of = {name: name.split(",")[0] for name in loadings}
    for kind, tree in test.items():
        for seed, modes in enumerate(fits[kind]):
            name = f"{kind}, {seed}"
            loadings[name] = modes.transform(columns(tree))
            of[name] = kind
    found = rc.validation.modes_against_truth(
        loadings, {name: rates[kind] for name, kind in of.items()}, simulation, method=METHOD,
        progress=False,
    )  # fmt: skip
    rows = []
    for cut in np.unique(found["cut"].values):
        r = found["r"].isel(true_channel=np.flatnonzero(found["cut"].values == cut))
        for removed in ("predicted", "both"):
            one = r.sel(removed=removed)

            def median(name: str, values: xr.DataArray = one) -> float:
                of_types = values.sel(model=name).groupby("cell_type").median()
                return float(of_types.median())

            row = [cut, removed]
            for kind in test:
                r_of_seeds = [median(f"{kind}, {seed}") for seed in range(len(fits[kind]))]
                row.append(
                    f"{np.median(r_of_seeds):.2f} ({min(r_of_seeds):.2f} to {max(r_of_seeds):.2f})"
                )
            row += [f"{median(f'{kind}, raw columns'):.2f}" for kind in test]
            rows.append(row)
    table(["cut", "rate removed", *test, *(f"raw columns, {kind}" for kind in test)], rows)


def probe(trees: Trees, fits: Fits, n_modes: int, k: int, epochs: xr.DataArray) -> None:
    """AUC of epochs and purity, beside what has no modes, or no training."""
    shown = {}
    for kind, tree in trees["probe"].items():
        shown[f"modes, {kind}"] = fits[kind][0].transform(columns(tree))
        shown[f"raw columns, {kind}"] = raw(columns(tree))
    components = fitted(columns(trees["fit"]["trained"]), 2 * k, k, 0, autoencoder="pca")
    shown["PCA, trained"] = components.transform(columns(trees["probe"]["trained"]))
    for kind in ("trained", "untrained"):
        of_activations = fitted(columns(trees["fit"][kind], "activation"), n_modes, k, 0)
        shown[f"modes of activations, {kind}"] = of_activations.transform(
            columns(trees["probe"][kind], "activation")
        )
    rows = []
    for name, loadings in shown.items():
        found = rc.epoch_selectivity(
            loadings, epochs.sel(time=loadings["time"]), ignore=["transition"],
            groups=GROUPS, per="epoch",
        )  # fmt: skip
        row, pure = [name], []
        for one in CLASSES:
            best = found.sel(epoch=one)
            row.append(
                f"{float(best['best_auc']):.2f} [{float(best['best_auc_low']):.2f}, "
                f"{float(best['best_auc_high']):.2f}]"
            )
            own = found.sel(mode=best["best_mode"].item())
            # Of another class than the one that it tells apart: none.
            pure.append(
                f"{float(own['purity']):.2f} [{float(own['purity_low']):.2f}, "
                f"{float(own['purity_high']):.2f}]"
                if str(own["assigned"].values) == one
                else f"{str(own['assigned'].values).replace('_', ' ')}"
            )
        row += pure
        row.append(
            f"{float(found['mean_purity']):.2f} [{float(found['mean_purity_low']):.2f}, "
            f"{float(found['mean_purity_high']):.2f}]"
        )
        rows.append(row)
    names = [name.replace("_", " ") for name in CLASSES]
    table(
        ["", *(f"AUC, {name}" for name in names), *(f"its purity, {name}" for name in names),
         "purity of all"], rows,
    )  # fmt: skip


def labels(trees: dict[str, xr.DataTree], fits: Fits, features: xr.Dataset) -> None:
    """Say what modes carry on the probe movie, cell by cell, by features of the whole field."""
    rows = []
    for kind, tree in trees.items():
        loadings = fits[kind][0].transform(columns(tree))
        active = (loadings > 0).mean(["time", "cell"]).values > 0.001
        loadings = loadings.isel(mode=np.flatnonzero(active))
        described = rc.describe_modes(
            loadings.isel(cell=slice(None, None, CELLS_APART)), features, max_lag=0.2
        )
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
    parser.add_argument("--seeds", type=int, default=3, help="of the autoencoders")
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("MODES", "K"), help="as was chosen before"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    job = Job(given.circuit, MINUTES, 0)
    simulation = simulate(job, "test")
    shown = {**movies(), "test": simulation["test"]["stimulus"]}
    trees: dict[str, dict[str, xr.DataTree]] = {name: {} for name in shown}
    for kind in KINDS:
        model = load(given.folder, job, kind, shown["test"])
        for name, movie in shown.items():
            path = given.folder / "modes" / f"{given.circuit}_{kind}_{name}.nc"
            every = PROBED_APART if name == "probe" else 1
            trees[name][kind] = decomposed(model, movie, path, every)
            trees[name][kind].attrs["asked"] = given.layer
    trees["fit"] = {
        kind: tree.isel(time=slice(None, None, TIMES_APART)) for kind, tree in trees["fit"].items()
    }
    trained = columns(trees["fit"]["trained"])
    n_modes, k = given.size or choose(trained, 2)
    kept = given.folder / "modes" / f"{given.circuit}_{given.layer}_{n_modes}_{k}"
    fits = {
        kind: [
            once(columns(tree), n_modes, k, seed, kept / f"{kind}_{seed}")
            for seed in range(given.seeds)
        ]
        for kind, tree in trees["fit"].items()
    }
    sparse_scores(trees, fits, n_modes, k)
    test = trees["test"]["trained"]
    of_rate = rc.modes.target_reconstruction(
        fits["trained"][0],
        test["target"],
        test["target_baseline"],
        loadings=fits["trained"][0].transform(columns(test)),
    )
    r = of_rate["r"]
    print(f"\nrates from modes: r {float(r.median()):.3f}, worst {float(r.min()):.3f}", flush=True)
    truth(trees["test"], fits, simulation)
    probe(trees, fits, n_modes, k, shown["probe"]["epoch"])
    stability(trained, n_modes, k, given.seeds)
    labels(trees["probe"], fits, rc.stimulus_features(shown["probe"]))


if __name__ == "__main__":
    main()
