"""What the report says: prose and tables from the numbers of a run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import xarray as xr

from retina_codec._common.version import __version__
from retina_codec.reporting.figures import Picture
from retina_codec.reporting.page import (
    Section,
    findings,
    folded,
    heading,
    joined,
    paragraph,
    picture,
    reference,
    table,
)
from retina_codec.reporting.run import NETWORKS, Run

Drawn = Mapping[str, Sequence[tuple[Picture, bytes]]]

MODEL_NAMES = {
    "trained": "trained network",
    "ln": "LN baseline",
    "untrained": "untrained network",
}
SCORES = {
    "pearson_r": "Pearson r",
    "cc_norm": "r / ceiling",
    "fev": "explainable variance",
    "deviance_explained": "deviance explained",
}
LABELS = ("light", "motion", "mixed", "none")
TOLD = {"on_step": "AUC, ON steps", "off_step": "AUC, OFF steps", "motion": "AUC, motion"}
PACKAGES = ("torch", "numpy", "xarray", "lightning", "matplotlib")
CITATIONS = (
    (
        "The method: Melander, Alaoui, Liu, Ganguli, Baccus. Causal interpretation of neural "
        "network computations with contribution decomposition. ICLR 2026.",
        "https://arxiv.org/abs/2603.06557",
    ),
    (
        "The network: Maheswaranathan et al. Interpreting the retinal neural code for natural "
        "scenes: from computations to neurons. Neuron 111 (2023), 2742.",
        "https://doi.org/10.1016/j.neuron.2023.06.007",
    ),
    (
        "The noise ceiling: Schoppe et al. Measuring the performance of neural models. Frontiers "
        "in Computational Neuroscience 10 (2016), 10.",
        "https://doi.org/10.3389/fncom.2016.00010",
    ),
)


def sections_of(run: Run, drawn: Drawn) -> list[Section]:
    """Return the sections of the report for which the run has data."""
    made = [
        _summary(run),
        _recording(run, drawn),
        _model(run, drawn),
        _contributions(run, drawn),
        _modes(run, drawn),
        _interneurons(run, drawn),
        _provenance(run),
        _citation(),
    ]
    return [section for section in made if section is not None]


def _summary(run: Run) -> Section | None:
    if not run.findings:
        return None
    return Section("findings", "What was found", findings(run.findings))


def _recording(run: Run, drawn: Drawn) -> Section:
    simulated = run.job.get("simulation") is not None
    source = (
        "A simulated retina with a known circuit watched a movie; its spikes were treated as a "
        "recording, so that every step can be checked against the truth."
        if simulated
        else "The recording holds the movie that was shown and the spikes of ganglion cells."
    )
    rows = []
    for name, child in run.recording.children.items():
        node = child.to_dataset()
        if "stimulus" not in node:
            continue
        stimulus = node["stimulus"]
        frame = " x ".join(str(stimulus.sizes[dim]) for dim in ("y", "x") if dim in stimulus.dims)
        width = stimulus["time"].attrs.get("bin_width")
        seconds = "n/a" if width is None else f"{stimulus.sizes['time'] * width:.1f}"
        rate = "n/a" if width is None else f"{1 / width:.4g}"
        rows.append(
            (
                str(name),
                str(stimulus.sizes["time"]),
                seconds,
                rate,
                frame,
                str(node.sizes.get("cell", "n/a")),
                str(node.sizes.get("repeat", 1)),
            )
        )
    header = ("part", "frames", "seconds", "frames a second", "pixels (y x x)", "cells", "repeats")
    body = joined(
        paragraph(
            source,
            f"A model of the class {type(run.model).__name__} was trained to predict the firing "
            f"rate of {_count(len(run.model.outputs), 'cell')} from the last "
            f"{run.model.history * run.model.bin_width * 1000:.0f} ms of the movie "
            f"({run.model.history} frames).",
            "Beside it stand two controls: the LN baseline, one linear filter a cell with a "
            "pointwise nonlinearity, and an untrained network of the same architecture, which "
            "shows what the architecture gives away for free.",
        ),
        table(header, rows, "Parts of the recording"),
        _figures(drawn, "recording"),
    )
    return Section("run", "What was run", body)


def _model(run: Run, drawn: Drawn) -> Section:
    rows = []
    for name, data in run.evaluation.items():
        cells = (_spread(data[score]) if score in data else "n/a" for score in SCORES)
        rows.append((MODEL_NAMES.get(name, name), *cells))
    trained, baseline = run.evaluation["trained"], run.evaluation.get("ln")
    sentences = [_sentence_on_quality(run, trained)]
    if baseline is not None:
        ours, theirs = xr.align(trained["pearson_r"], baseline["pearson_r"], join="inner")
        better = int((ours > theirs).sum())
        sentences.append(
            f"In {better} of {ours.size} cells it is above the LN baseline (median "
            f"{_number(theirs.median())})."
        )
    body = joined(
        paragraph(*sentences),
        table(
            ("model", *SCORES.values()),
            rows,
            "Median over cells, and the range over cells; n/a where it needs repeats and there "
            "are none",
        ),
        _figures(drawn, "model"),
    )
    return Section("model", "How good the model is", body)


def _sentence_on_quality(run: Run, trained: xr.Dataset) -> str:
    text = (
        "On movie that it was not trained on, the trained network reaches a median Pearson r of "
        f"{_number(trained['pearson_r'].median())} over {_count(trained.sizes['cell'], 'cell')}"
    )
    ceiling = run.reliability["cc_max"] if run.reliability is not None else trained.get("cc_max")
    if ceiling is None or not np.isfinite(ceiling).any():
        return text + "; without repeats of a movie the ceiling is unknown."
    return text + f"; the noise of the recording allows {_number(ceiling.median())}."


def _contributions(run: Run, drawn: Drawn) -> Section | None:
    if not run.contributions:
        return None
    rows = []
    for network, tree in run.contributions.items():
        root = tree.to_dataset()
        change = (root["target"] - root["target_baseline"]).values
        scale = float(np.sqrt(np.mean(change**2)))
        for layer, node in tree["layers"].children.items():
            error = node.to_dataset()["completeness_error"].values
            share = float(np.sqrt(np.mean(error**2))) / scale if scale > 0 else np.nan
            rows.append(
                (
                    MODEL_NAMES[network],
                    str(layer),
                    f"{100 * share:.2g} %" if np.isfinite(share) else "n/a",
                    f"{float(np.abs(error).max()):.2g} {root['target'].attrs.get('units', '')}",
                )
            )
    body = joined(
        paragraph(
            "Activity says how busy a hidden unit is, not what its activity did to a ganglion "
            "cell. The contribution does: it is the part of the change of a cell's predicted "
            "rate, from a grey screen to the movie, that passes through this unit. Its sign says "
            "whether the unit raised or lowered the rate at that moment."
        ),
        paragraph(
            "Contributions of a layer must add up to the whole change of the rate. What is "
            "missing, the completeness error, comes from the finite number of steps between grey "
            "and the movie, or from a layer that does not carry everything; it should be small "
            "against the change itself."
        ),
        table(
            ("network", "layer", "error, root mean square", "largest error"),
            rows,
            "Completeness error; root mean square relative to that of the change of the rate",
        ),
        _figures(drawn, "contributions"),
    )
    return Section("contributions", "What each hidden unit contributed", body)


def _modes(run: Run, drawn: Drawn) -> Section | None:
    if not run.modes:
        return None
    layers = dict.fromkeys(layer for found in run.modes.values() for layer in found)
    parts = [
        paragraph(
            "Contributions recur in teams: the same channels raise and lower the rates together, "
            "again and again. A sparse autoencoder finds these teams, the modes. Every moment is "
            "then described by the few modes that are active in it."
        ),
        paragraph(
            "What a mode carries is told from its correlation with features of light (luminance, "
            "its rises and falls, contrast) and of motion (velocity, speed, differential motion), "
            "those of the other family being regressed out. A mode carries light, motion, both "
            "(mixed) or none of what was tested. The untrained network is the control: what it "
            "shows as well is owed to the movie and the architecture, not to what was learnt "
            "from the cells."
        ),
    ]
    for layer in layers:
        parts.append(heading(f"Modes of {layer}"))
        parts.append(_mode_table(run, layer))
        parts.append(paragraph(_sentence_on_modes(run, layer)))
        parts.append(_figures(drawn, f"modes {layer}"))
    return Section("modes", "Which modes carry light and which motion", joined(*parts))


def _mode_table(run: Run, layer: str) -> str:
    rows = []
    for network in NETWORKS:
        if layer not in run.modes.get(network, {}):
            continue
        key = f"{network}/{layer}"
        score = run.mode_scores.get(key)
        description = run.descriptions.get(key)
        counts = Counter(
            [] if description is None else (str(label) for label in description["label"].values)
        )
        selectivity = run.selectivity.get(key)
        rows.append(
            (
                MODEL_NAMES[network],
                "n/a" if score is None else _number(score["mean_r2"]),
                "n/a" if score is None else f"{float(score['l0']):.1f}",
                "n/a" if score is None else str(int(score["alive"])),
                *(("n/a" if description is None else str(counts[label])) for label in LABELS),
                *(
                    "n/a"
                    if selectivity is None or kind not in selectivity["epoch"].values
                    else _number(selectivity["assigned_auc"].sel(epoch=kind))
                    for kind in TOLD
                ),
                "n/a"
                if selectivity is None or "mean_purity" not in selectivity
                else _number(selectivity["mean_purity"]),
            )
        )
    header = (
        "network",
        "held-out R2",
        "active at a time",
        "modes in use",
        *LABELS,
        *TOLD.values(),
        "purity",
    )
    return table(
        header,
        rows,
        "R2: contributions explained by the modes, mean over channels, on stretches that the "
        "modes were not fitted to. AUC and purity are of modes of the population: how well all "
        "that are assigned to this kind of epoch tell it from all others, and the share of a "
        "mode's activity that falls into one kind",
    )


def _sentence_on_modes(run: Run, layer: str) -> str:
    description = run.descriptions.get(f"trained/{layer}")
    if description is None:
        return ""
    labels = description["label"].values.astype(str)
    subtypes = description["subtype"].values.astype(str)
    parts = []
    for label in ("light", "motion", "mixed"):
        modes = description["mode"].values[labels == label]
        if len(modes):
            kinds = Counter(subtypes[labels == label])
            named = ", ".join(f"{name} ({n})" for name, n in kinds.most_common(4))
            parts.append(f"{_count(len(modes), label + ' mode')}: {named}")
    if not parts:
        return "No mode of the trained network follows a feature beyond chance."
    return "In the trained network, " + "; ".join(parts) + "."


def _interneurons(run: Run, drawn: Drawn) -> Section | None:
    if not run.interneurons:
        return None
    rows = []
    for network, data in run.interneurons.items():
        above = int((data["p_value"] < 0.05).sum())
        rows.append(
            (
                MODEL_NAMES.get(network, network),
                _number(data["best_r"].median()),
                _number(data["null_r"].median()),
                f"{above} of {data.sizes['interneuron']}",
            )
        )
    body = joined(
        paragraph(
            "If the model works like the retina, its hidden units should follow the potentials "
            "of interneurons that it has never seen. For each interneuron the unit that follows "
            "it best was chosen on one half of white-noise movie and scored on the other. The "
            "best of many units correlates with anything to some degree: the null repeats the "
            "search with the recording shifted in time."
        ),
        table(
            ("network", "median r of the best unit", "median r of the null", "p < 0.05"),
            rows,
            "Interneurons against hidden units",
        ),
        _figures(drawn, "interneurons"),
    )
    return Section("interneurons", "Model units and interneurons", body)


def _provenance(run: Run) -> Section:
    rows = [("retina-codec", __version__)]
    rows += [(name, _version(name)) for name in PACKAGES]
    for name, data in run.evaluation.items():
        fingerprint = str(data.attrs.get("model_fingerprint", ""))
        rows.append((f"fingerprint of the {MODEL_NAMES.get(name, name)}", fingerprint))
    rows.append(("seed", str(run.job.get("seed", "n/a"))))
    for name, attrs in _methods(run):
        rows.append((name, attrs))
    settings = (run.folder / "job.yaml").read_text(encoding="utf-8")
    body = joined(
        paragraph(
            "What made these results. The same settings and seed give the same results with the "
            "same versions on the same machine."
        ),
        table(("what", "value"), rows),
        folded("All settings (job.yaml)", settings),
    )
    return Section("provenance", "Where the numbers come from", body)


def _methods(run: Run) -> list[tuple[str, str]]:
    """Return the parameters of each step, as the results carry them."""
    found: list[tuple[str, Any]] = [("evaluation", run.evaluation["trained"].attrs)]
    if run.training is not None:
        found.append(("training", run.training.attrs))
    if "trained" in run.contributions:
        found.append(("contributions", run.contributions["trained"].attrs))
    for layer, modes in run.modes.get("trained", {}).items():
        found.append((f"modes of {layer}", modes.attrs))
    for name, description in run.descriptions.items():
        if name.startswith("trained/"):
            found.append((f"description of {name.removeprefix('trained/')}", description.attrs))
    rows = []
    for name, attrs in found:
        try:
            parameters = json.loads(attrs["parameters"])
        except (KeyError, TypeError, ValueError):
            continue
        rows.append((name, ", ".join(f"{key} = {value}" for key, value in parameters.items())))
    return rows


def _citation() -> Section:
    return Section(
        "cite",
        "How to cite",
        joined(
            paragraph(
                f"Please cite the software (The retina-codec developers, retina-codec, version "
                f"{__version__}), the papers whose methods it implements, and the source of your "
                "recording."
            ),
            *(reference(text, address) for text, address in CITATIONS),
        ),
    )


def _figures(drawn: Drawn, section: str) -> str:
    return joined(*(picture(png, one.title, one.caption) for one, png in drawn.get(section, ())))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "n/a"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _number(value: Any) -> str:
    number = float(value)
    return f"{number:.2f}" if np.isfinite(number) else "n/a"


def _spread(values: xr.DataArray) -> str:
    """Median and range over cells."""
    known = values.values[np.isfinite(values.values)]
    if not known.size:
        return "n/a"
    return f"{np.median(known):.2f} ({known.min():.2f} to {known.max():.2f})"
