"""What a run found, in numbers and in sentences that they carry."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from retina_codec._common.files import open_tree
from retina_codec.attribution import open_contributions

CLASSES = {"on_step": "ON steps", "off_step": "OFF steps", "motion": "motion"}
LABELS = ("light", "motion", "mixed", "none")


def summarise(folder: Path) -> dict[str, Any]:
    """Numbers of a run and findings in words.

    Parameters
    ----------
    folder : pathlib.Path
        Run folder, with evaluation, contributions, modes and their description.

    Returns
    -------
    dict
        ``findings``: sentences; ``numbers``: what they rest on, by part.
    """
    parts = (_prediction(folder), _completeness(folder), _modes(folder), _interneurons(folder))
    findings: list[str] = []
    numbers: dict[str, Any] = {}
    for sentences, values in parts:
        findings += sentences
        numbers.update(values)
    return {"findings": findings, "numbers": numbers}


def _prediction(folder: Path) -> tuple[list[str], dict[str, Any]]:
    tree = open_tree(folder / "evaluation.nc")
    scores = {name: node.to_dataset().load() for name, node in tree.children.items()}
    trained, baseline = scores["trained"], scores["ln"]
    n = trained.sizes["cell"]
    numbers: dict[str, Any] = {
        name: {
            score: [_rounded(v) for v in data[score].values]
            for score in ("pearson_r", "cc_norm", "fev", "deviance_explained")
        }
        for name, data in scores.items()
    }
    numbers["cells"] = [str(cell) for cell in trained["cell"].values]
    sentence = (
        f"On held-out movie the model predicts {n} cells with a mean Pearson r of "
        f"{_mean(trained['pearson_r'])} (LN baseline {_mean(baseline['pearson_r'])}"
    )
    if np.isfinite(trained["cc_norm"]).any():
        sentence += (
            f"); over the ceiling that the repeats allow, {_mean(trained['cc_norm'])} "
            f"(LN {_mean(baseline['cc_norm'])}"
        )
    return [sentence + ")."], {"prediction": numbers}


def _completeness(folder: Path) -> tuple[list[str], dict[str, Any]]:
    tree = open_contributions(folder / "contributions" / "trained.zarr")
    target = tree["target"].load()
    scale = target.max("time") - target.min("time")
    errors = {}
    for layer, node in tree["layers"].children.items():
        relative = abs(node.to_dataset()["completeness_error"].load()) / scale
        errors[layer] = {
            "mean": _rounded(relative.mean(), 6),
            "quantile_99": _rounded(relative.quantile(0.99), 6),
            "largest": _rounded(relative.max(), 6),
        }
    mean, most, worst = (
        100 * max(error[name] for error in errors.values())
        for name in ("mean", "quantile_99", "largest")
    )
    return [
        f"The contributions of each layer add up to the change of the rate, with an error of "
        f"{mean:.2g} % of a cell's range on average, {most:.2g} % in 99 of 100 moments, and "
        f"{worst:.2g} % at most."
    ], {"completeness_error_over_range": errors}


def _modes(folder: Path) -> tuple[list[str], dict[str, Any]]:
    scores = open_tree(folder / "mode_scores.nc")
    described = open_tree(folder / "descriptions.nc")
    selectivity = (
        open_tree(folder / "selectivity.nc") if (folder / "selectivity.nc").is_file() else None
    )
    findings = []
    numbers: dict[str, Any] = {}
    for network, group in described.children.items():
        numbers[network] = {}
        for layer, node in group.children.items():
            data = node.to_dataset().load()
            score = scores[f"{network}/{layer}"].to_dataset().load()
            counts = Counter(str(label) for label in data["label"].values)
            numbers[network][layer] = {
                "r2": _rounded(score["mean_r2"]),
                "l0": _rounded(score["l0"]),
                "alive": int(score["alive"]),
                "labels": {label: counts[label] for label in LABELS},
                "subtypes": dict(
                    Counter(
                        str(name)
                        for name, label in zip(
                            data["subtype"].values, data["label"].values, strict=True
                        )
                        if label != "none"
                    )
                ),
            }
            if selectivity is not None:
                of_layer = selectivity[f"{network}/{layer}"].to_dataset().load()
                numbers[network][layer]["auc"] = _intervals(of_layer)
                numbers[network][layer]["purity"] = [
                    _rounded(of_layer[name])
                    for name in ("mean_purity", "mean_purity_low", "mean_purity_high")
                ]
            if network == "trained":
                findings.append(_sentence(layer, numbers[network][layer], data))
            else:
                labels = numbers[network][layer]["labels"]
                findings.append(
                    f"{layer} of the untrained control: {labels['light']} modes labelled light, "
                    f"{labels['motion']} motion, {labels['mixed']} mixed; what it shares with the "
                    "trained network comes from the movie and the architecture."
                )
    for layer in numbers.get("trained", {}):
        findings += _told_apart(layer, numbers)
    return findings, {"modes": numbers}


def _told_apart(layer: str, numbers: dict[str, Any]) -> list[str]:
    """How well light and motion are told apart, beside the control."""
    trained, control = (numbers.get(name, {}).get(layer, {}) for name in ("trained", "untrained"))
    if "auc" not in trained or "auc" not in control:
        return []
    parts = [
        f"{words} {_score(trained['auc'][kind])} ({_score(control['auc'][kind])})"
        for kind, words in CLASSES.items()
        if kind in trained["auc"] and kind in control["auc"]
    ]
    if not parts:
        return []
    return [
        f"{layer}: the population's modes, assigned to kinds of epoch on one half, tell them apart "
        f"on the other with an AUC of {', '.join(parts)}; {100 * trained['purity'][0]:.0f} % "
        f"({100 * control['purity'][0]:.0f} %) of their activity falls into the kind of each. In "
        "brackets the untrained control: what it reaches as well shows nothing about the cells."
    ]


def _score(interval: list[float | None]) -> str:
    return "none" if interval[0] is None else f"{interval[0]:.2f}"


def _sentence(layer: str, numbers: dict[str, Any], described: xr.Dataset) -> str:
    labels = numbers["labels"]
    examples = []
    for family in ("light", "motion"):
        if f"{family}_effect" not in described or not labels[family]:
            continue
        of_family = described.where(described["label"] == family, drop=True)
        best = of_family.isel(mode=int(of_family[f"{family}_effect"].argmax("mode")))
        examples.append(
            f"mode {int(best['mode'])} carries {family} ({best['subtype'].item()}, partial r "
            f"{float(best[f'{family}_effect']):.2f})"
        )
    return (
        f"{layer}: {sum(labels.values())} modes ({numbers['alive']} in use on held-out "
        f"stretches), {numbers['l0']:.1f} active at a time, explain {100 * numbers['r2']:.0f} % of "
        f"the held-out variance; {labels['light']} carry light, "
        f"{labels['motion']} motion, {labels['mixed']} both, {labels['none']} neither"
        + (f": {'; '.join(examples)}." if examples else ".")
    )


def _intervals(selectivity: xr.Dataset) -> dict[str, list[float | None]]:
    """AUC with its interval, of the modes assigned to each class; None where there is none."""
    names = ("assigned_auc", "assigned_auc_low", "assigned_auc_high")
    return {
        str(kind): [
            _rounded(value) if np.isfinite(value) else None
            for value in (selectivity[name].sel(epoch=kind) for name in names)
        ]
        for kind in selectivity["epoch"].values
    }


def _interneurons(folder: Path) -> tuple[list[str], dict[str, Any]]:
    if not (folder / "interneurons.nc").is_file():
        return [], {}
    tree = open_tree(folder / "interneurons.nc")
    medians = {
        name: [_rounded(tree[name][variable].load().median()) for variable in ("best_r", "null_r")]
        for name in ("trained", "untrained")
    }
    (trained, null), (untrained, _) = medians["trained"], medians["untrained"]
    return [
        f"On white noise the best unit for each simulated interneuron has a median r of "
        f"{trained:.2f} (untrained control {untrained:.2f}, time-shifted signals {null:.2f})."
    ], {"interneurons_median_r_and_null": medians}


def _mean(values: xr.DataArray) -> str:
    return f"{float(values.mean()):.3f}"


def _rounded(value: Any, digits: int = 4) -> float:
    return round(float(value), digits)
