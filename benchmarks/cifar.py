"""Contributions, modes and ablation of a ResNet-20 on CIFAR-10, over its nine blocks.

    RETINA_CODEC_DATA=... python benchmarks/cifar.py contributions FOLDER [--networks KIND ...]
    python benchmarks/cifar.py modes FOLDER
    RETINA_CODEC_DATA=... python benchmarks/cifar.py curves FOLDER [--preserve]
    python benchmarks/cifar.py tables FOLDER
    RETINA_CODEC_DATA=... python benchmarks/cifar.py figures FOLDER

Of 2,000 images, sorted by category, the first half of each category's fits the modes and the second
half is what they are scored on. `untrained` is the same network with random weights, whose batch
norms have the means and variances of the images, on every fourth image; `trained_few` is the
trained one on those. Each stage keeps what it made in FOLDER and does
not do it twice; one that was killed is called again. `tables` prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import nn

import retina_codec as rc

STAGES = ("contributions", "modes", "curves", "tables", "figures")
NETWORKS = ("trained", "trained_few", "untrained")
HIERARCHY = {
    "animal": ["bird", "cat", "deer", "dog", "frog", "horse"],
    "vehicle": ["airplane", "automobile", "ship", "truck"],
}
MODES = {"n_modes": 48, "k": 4, "max_epochs": 100, "progress": False}
SEEDS = (0, 1)
# Blocks that are ablated, the quickest first, and at how many channels; random orders are tried at
# two of these.
CURVES = {
    "layer3.2": [1, 2, 6, 16, 32, 51],
    "layer3.0": [1, 2, 6, 16, 32, 51],
    "layer2.1": [1, 2, 4, 8, 16, 24],
    "layer1.2": [1, 2, 4, 6, 8, 12],
}
QUANTITIES = ("contribution", "activation")
CURVE_IMAGES = 50  # of each category
N_RANDOM = 20
# The control has fewer steps and images: its contributions are compared, not ablated.
STEPS = {"trained": 20, "untrained": 8}
EVERY = {"trained": 1, "untrained": 4}


def images() -> xr.DataArray:
    """Return the 2,000 images, each with its category as `label`, and which half it is of."""
    data = Path(os.environ["RETINA_CODEC_DATA"]) / "cifar10_test" / "cifar10_test_2000.npz"
    with np.load(data) as file:
        pictures, labels, names = (file[key] for key in ("images", "labels", "class_names"))
    return xr.DataArray(
        pictures.transpose(0, 3, 1, 2),
        dims=("image", "color", "y", "x"),
        coords={"image": np.arange(len(pictures)), "label": ("image", names[labels])},
    )


def fitting(data: xr.DataArray | xr.Dataset) -> np.ndarray:
    """Say which images the modes are fitted to: the first half of each category's."""
    labels = data["label"].values
    place = np.zeros(len(labels), dtype=int)
    for label in np.unique(labels):
        own = labels == label
        place[own] = 2 * np.arange(own.sum()) // own.sum()
    return place == 0


def network(kind: str, pictures: xr.DataArray) -> rc.classifiers.Classifier:
    """Return the network with its published weights, or with random ones."""
    if kind == "trained":
        return rc.classifiers.cifar_resnet(
            Path(os.environ["RETINA_CODEC_DATA"]) / "cifar10_resnet20.th"
        )
    model = rc.classifiers.cifar_resnet(seed=0)
    norms = [part for part in model.network.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the mean over all that is shown
    model.network.train()
    with torch.no_grad():
        for batch in model.samples(pictures[fitting(pictures)]).batches(500):
            model.network(batch.inputs)
    model.network.eval()
    return model


def contributions(folder: Path, kinds: list[str]) -> None:
    """Stream the contributions of all blocks to a store, a network each."""
    pictures = images()
    for kind in kinds:
        store = folder / f"{kind}.zarr"
        if kind not in STEPS or store.exists():
            continue
        start = time.perf_counter()
        rc.contributions(
            network(kind, pictures),
            pictures[:: EVERY[kind]],
            split_sign=True,
            sum_over=("y", "x"),
            extras="activation",
            method=rc.methods.IntegratedGradients(steps=STEPS[kind]),
            store=store,
            progress=False,
        )
        said("contributions", kind, start)


def tree_of(folder: Path, kind: str) -> xr.DataTree:
    """Read contributions and activations of each block, with the category of each image."""
    tree = rc.open_contributions(folder / f"{kind.removesuffix('_few')}.zarr").load()
    return tree.isel(image=slice(None, None, EVERY["untrained"])) if "few" in kind else tree


def layer_data(folder: Path, kind: str) -> dict[str, xr.Dataset]:
    """Return the same block by block."""
    return {
        str(name): node.to_dataset()
        for name, node in tree_of(folder, kind)["layers"].children.items()
    }


def fitted_modes(data: xr.Dataset, quantity: str, seed: int) -> tuple[rc.Modes, xr.Dataset]:
    """Fit modes to one half of the images, and associate them with categories on the other."""
    values = data[quantity]
    features = ("sign", "channel") if quantity == "contribution" else "channel"
    own = fitting(values)
    modes = rc.fit_modes(values.isel(image=own), features=features, seed=seed, **MODES)
    loadings = modes.transform(values.isel(image=~own))
    found = rc.analysis.category_association(loadings, "label", hierarchy=HIERARCHY)
    found["loadings"] = loadings
    found["held_out_r2"] = modes.score(values.isel(image=~own))["mean_r2"]
    return modes, found


def modes(folder: Path, kinds: list[str]) -> None:
    """Statistics of all blocks; modes of each block, of contributions and of activations."""
    for kind in kinds:
        if not (folder / f"{kind.removesuffix('_few')}.zarr").exists():
            continue
        path = folder / f"statistics_{kind}.nc"
        if not path.exists():
            start = time.perf_counter()
            found = rc.analysis.layer_statistics(tree_of(folder, kind), "label", n_draws=500)
            rc.save_tree(found, path)
            said("statistics", kind, start)
        every = layer_data(folder, kind)
        blocks = every if kind == "trained" else CURVES
        for seed in SEEDS if kind == "trained" else SEEDS[:1]:
            for name in blocks:
                for quantity in ("contribution", "activation"):
                    path = folder / f"modes_{kind}_{name}_{quantity}_{seed}"
                    if (path / "association.nc").exists():
                        continue
                    start = time.perf_counter()
                    found_modes, found = fitted_modes(every[name], quantity, seed)
                    found_modes.save(path)
                    rc.save_tree(found, path / "association.nc")
                    said("modes", path.name, start)


def curves(folder: Path, preserve: bool) -> None:
    """Ablate four blocks by modes of contributions, of activations, and by single channels."""
    pictures = images()
    own = np.flatnonzero(~fitting(pictures))
    shown = pictures.isel(image=own[np.arange(len(own)) % 100 < CURVE_IMAGES])
    model = network("trained", pictures)
    every = layer_data(folder, "trained")
    for name, counts in CURVES.items():
        path = folder / f"{'preserve' if preserve else 'ablate'}_{name}.nc"
        if path.exists():
            continue
        start = time.perf_counter()
        rankings = {}
        for quantity in ("contribution", "activation"):
            place = folder / f"modes_trained_{name}_{quantity}_0"
            association = rc.open_tree(place / "association.nc").to_dataset().load()
            rankings[f"{quantity} modes"] = rc.interventions.rank_by_mode(
                rc.load_modes(place), association
            )
        # Single channels: those whose own contribution goes with the category, on fitting images.
        single = every[name]["contribution"].sum("sign")
        single = single.isel(image=fitting(single))
        r = rc.analysis.category_association(single, "label", n_permutations=1)["r"]
        rankings["single channels"] = r.fillna(-1).rename(node="target").transpose("target", ...)
        found = rc.interventions.compare_rankings(
            model,
            shown,
            rankings,
            layer=name,
            labels="label",
            counts=counts,
            n_random=N_RANDOM,
            random_at=[counts[2], counts[3]],
            preserve=preserve,
            progress=False,
        )
        rc.save_tree(found, path)
        said("preserve" if preserve else "ablate", name, start)


def interval(data: xr.Dataset, name: str, digits: int = 2, **where: str) -> str:
    """Write a number and its interval."""
    value, low, high = (
        float(data[f"{name}{end}"].sel({k: v for k, v in where.items() if k in data[name].dims}))
        for end in ("", "_low", "_high")
    )
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def row(*cells: object) -> None:
    print("| " + " | ".join(str(cell) for cell in cells) + " |")


def header(*cells: str) -> None:
    print()
    row(*cells)
    row(*["---"] * len(cells))


def over_images(r: np.ndarray, loadings: xr.DataArray) -> tuple[float, float]:
    """Interval of the median best r over modes, images drawn within their category."""
    labels, values = loadings["label"].values, loadings.transpose("image", "mode").values
    values = values[:, np.isfinite(r)]
    names, members = np.unique(labels, return_inverse=True)
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(300):
        own = [rng.choice(np.flatnonzero(members == k), (members == k).sum()) for k in range(10)]
        part, label = values[np.concatenate(own)], members[np.concatenate(own)]
        masks = (label[:, None] == np.arange(len(names))).astype(float)
        masks = (masks - masks.mean(0)) / masks.std(0)
        sd = part.std(0)
        found = ((part - part.mean(0)) / np.where(sd > 0, sd, np.nan)).T @ masks / len(part)
        drawn.append(np.nanmedian(found.max(axis=1)))
    return tuple(np.percentile(drawn, [2.5, 97.5]))


def tables(folder: Path) -> None:
    """Print what was found, as Markdown."""
    for kind in NETWORKS:
        path = folder / f"statistics_{kind}.nc"
        if not path.exists():
            continue
        found = rc.open_tree(path).to_dataset()
        print(f"\n{kind}")
        header("block", *(f"{n}, {q}" for n in ("sparsity", "participation ratio")
                          for q in ("contributions", "activations")),
               "components for 95 %", "r of the signs")  # fmt: skip
        for name in found["layer"].values:
            here = found.sel(layer=name)
            counts = (int(here["dimensionality"].sel(quantity=q)) for q in QUANTITIES)
            row(
                name,
                *(interval(here, "sparsity", quantity=q) for q in QUANTITIES),
                *(interval(here, "participation_ratio", quantity=q) for q in QUANTITIES),
                "{} and {}".format(*counts),
                interval(here, "sign_correlation"),
            )
    header("network", "block", "of", "modes alive", "class modes", "categories with one",
           "best r, median over modes", "by chance", "r2, new images")  # fmt: skip
    for kind in NETWORKS:
        for name in (f"layer{stage}.{block}" for stage in (1, 2, 3) for block in (0, 1, 2)):
            for quantity in QUANTITIES:
                path = folder / f"modes_{kind}_{name}_{quantity}_0" / "association.nc"
                if not path.exists():
                    continue
                found = rc.open_tree(path).to_dataset().load()
                best = found["best_r"].values
                low, high = over_images(best, found["loadings"])
                row(kind, name, quantity, int(np.isfinite(best).sum()),
                    int(found["n_class_modes"]), int(found["n_categories"]),
                    f"{np.nanmedian(best):.2f} ({low:.2f} to {high:.2f})",
                    f"{float(found['chance_best_r'].median()):.2f}",
                    f"{float(found['held_out_r2']):.2f}")  # fmt: skip
    header("what", "block", "ranking", "score, mean over categories",
           "contribution modes minus this", "where random: score", "random: mean (range)",
           "share of random as extreme")  # fmt: skip
    for what in ("ablate", "preserve"):
        for name in CURVES:
            path = folder / f"{what}_{name}.nc"
            if not path.exists():
                continue
            found = rc.open_tree(path).to_dataset().load()
            drawn = found["random_mean_score"].values
            for ranking in found["ranking"].values:
                here = found.sel(ranking=ranking)
                row(what, name, ranking, interval(here, "mean_score"),
                    interval(here, "score_difference"), f"{float(here['mean_score_there']):.2f}",
                    f"{drawn.mean():.2f} ({drawn.min():.2f} to {drawn.max():.2f})",
                    f"{float(here['random_share']):.2f}")  # fmt: skip


def figures(folder: Path, block: str = "layer3.1") -> None:
    """Draw the statistics of all layers, the ablation curves and pages of two modes."""
    control = folder / "statistics_untrained.nc"
    few = folder / "statistics_trained_few.nc"
    drawn = {}
    with_control = control.exists() and few.exists()
    path = few if with_control else folder / "statistics_trained.nc"
    drawn["layers"] = rc.plot.layer_statistics(
        rc.open_tree(path).to_dataset(),
        control=rc.open_tree(control).to_dataset() if with_control else None,
    )[0]
    for name in CURVES:
        path = folder / f"ablate_{name}.nc"
        if path.exists():
            found = rc.open_tree(path).to_dataset().load()
            drawn[f"ablate_{name}"] = rc.plot.ranking_comparison(found)[0]
    modes_path = folder / f"modes_trained_{block}_contribution_0"
    if "RETINA_CODEC_DATA" in os.environ and modes_path.exists():
        pictures = images()
        model, modes = network("trained", pictures), rc.load_modes(modes_path)
        found = rc.open_tree(modes_path / "association.nc").to_dataset().load()
        others = pictures.isel(image=~fitting(pictures))
        best = found["best_r"].values
        both = (int(np.nanargmax(best)), int(np.nanargmin(np.abs(best - np.nanmedian(best)))))
        for mode in both:
            loadings = found["loadings"].sel(mode=mode)
            shown = np.argsort(-loadings.values)[:6]
            fields = rc.analysis.contribution_fields(
                model, others[shown], block, dictionary=modes.dictionary.sel(mode=[mode]),
                progress=False,
            )  # fmt: skip
            masks = rc.analysis.field_masks(fields["field"], share=0.5, smoothing=1.0)
            drawn[f"mode_{mode}"] = rc.plot.mode_page(
                modes.dictionary, found, others[shown], masks, mode=mode,
                loadings=loadings[shown],
            )[0]  # fmt: skip
    for name, ax in drawn.items():
        ax.figure.savefig(folder / f"cifar_{name}.png", dpi=80)


def said(stage: str, what: str, start: float) -> None:
    """Print how long a part of a stage took, and the most memory the process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{stage} {what}: {time.perf_counter() - start:.0f} s, peak {peak:.0f} MB", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--preserve", action="store_true")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.stage == "contributions":
        contributions(given.folder, given.networks)
    elif given.stage == "modes":
        modes(given.folder, given.networks)
    elif given.stage == "curves":
        curves(given.folder, given.preserve)
    elif given.stage == "tables":
        tables(given.folder)
    else:
        figures(given.folder)
