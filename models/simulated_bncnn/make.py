"""Make the first two models again: ``python models/simulated_bncnn/make.py [folder]``.

A simulated retina watches natural and artificial movies; a BN-CNN and an LN model are trained on
the same recording and judged on the same repeated movie. Writes ``simulated_bncnn`` and
``simulated_ln`` into `folder` (default: the one that these models are in): configuration, weights,
and the section "Scores" of each card. A minute or two on one thread.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import xarray as xr

import retina_codec as rc
from retina_codec.jobs.config import SimulationSettings
from retina_codec.jobs.simulated import simulated_recording
from retina_codec.models.saving import SavedModel

ZOO = Path(__file__).resolve().parents[1]
NETWORK, BASELINE = "simulated_bncnn", "simulated_ln"
SEED = 0
HISTORY = 30  # frames
RECORDING = SimulationSettings(
    size=16, natural_frames=12000, artificial_frames=3000, test_frames=1500, repeats=20
)
HEADING = "## Scores\n"


def models(recording: xr.DataTree, *, progress: bool = True) -> dict[str, SavedModel]:
    """Return both models, trained on the node ``train``; a tenth of it chooses when to stop."""
    split = rc.split(recording["train"], gap=HISTORY)
    training, validation = (split[part].to_dataset() for part in ("train", "validation"))
    network = rc.models.BNCNN.for_recording(
        training, history=HISTORY, channels=(8, 8), kernel_sizes=(7, 5), seed=SEED
    )
    rc.train(network, training, validation=validation, max_epochs=30, seed=SEED, progress=progress)
    baseline = rc.models.LN.from_least_squares(
        training, validation=validation, history=HISTORY, progress=progress
    )
    return {NETWORK: network, BASELINE: baseline}


def scores(made: dict[str, SavedModel], recording: xr.DataTree) -> dict[str, xr.Dataset]:
    """Judge both on the node ``test``, which shows pictures that neither was trained on."""
    network, baseline = made[NETWORK], made[BASELINE]
    test = recording["test"]
    above = rc.models.paired_difference(network, baseline, test, seed=SEED)
    judged = rc.evaluate(network, test, baseline=baseline, keep_draws=True, seed=SEED)
    means = [name for name in above.data_vars if str(name).startswith("mean_")]
    return {
        NETWORK: judged.merge(above[means]),
        BASELINE: rc.evaluate(baseline, test, keep_draws=True, seed=SEED),
    }


def section(judged: xr.Dataset) -> str:
    """Text of the section "Scores": each cell's, and their means."""
    columns = {
        "ceiling": "cc_max",
        "r": "pearson_r",
        "r, shifted": "pearson_r_null_high",
        "CCnorm": "cc_norm",
        "FEV": "fev",
        "deviance explained": "deviance_explained",
    }
    if "pearson_r_baseline" in judged:
        columns |= {"r of LN": "pearson_r_baseline", "r above LN": "pearson_r_difference"}
    rows = [["cell", *columns], ["---"] * (1 + len(columns))]
    for cell in judged["cell"].values.tolist():
        one = judged.sel(cell=cell)
        rows.append([cell, *(_of_cell(one, name) for name in columns.values())])
    rows.append(["mean", *(_mean(judged, name) for name in columns.values())])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return (
        f"{HEADING}\n"
        f"`rc.evaluate` on `test`: {judged.attrs['n_bins']} bins, {judged.attrs['n_repeats']} "
        "repeats, raw counts. In brackets 95 % intervals\n(bootstrap over half seconds; of the "
        "ceiling: jackknife over repeats). The ceiling is the highest r\nthat any model can reach; "
        "95 % of predictions shifted in time stay under the r of that column.\n\n"
        f"{table}\n"
    )


def write(made: dict[str, SavedModel], judged: dict[str, xr.Dataset], folder: Path) -> None:
    """Write configuration, weights and card of each model; other files there stay."""
    for name, model in made.items():
        before, after = (ZOO / name / "card.md").read_text().split(HEADING)
        rest = after[after.index("\n## ") :]
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory() as room:
            for file in model.save(Path(room, name)).iterdir():
                shutil.copyfile(file, place / file.name)
        (place / "card.md").write_text(f"{before}{section(judged[name])}{rest}")


def _of_cell(one: xr.Dataset, name: str) -> str:
    ends = [float(one[f"{name}_{end}"]) for end in ("low", "high") if f"{name}_{end}" in one]
    return _with_interval(float(one[name]), ends, 2)


def _mean(judged: xr.Dataset, name: str) -> str:
    ends: list[float] = []
    if f"{name}_draws" in judged:
        ends = np.percentile(judged[f"{name}_draws"].mean("cell"), [2.5, 97.5]).tolist()
    elif f"mean_{name}" in judged:
        ends = [float(judged[f"mean_{name}_{end}"]) for end in ("low", "high")]
    return _with_interval(float(judged[name].mean()), ends, 3)


def _with_interval(value: float, ends: list[float], digits: int) -> str:
    # Zero is added so that nothing is written as -0.00.
    text, *others = (f"{round(number, digits) + 0.0:.{digits}f}" for number in (value, *ends))
    return f"{text} [{', '.join(others)}]" if others else text


if __name__ == "__main__":
    torch.set_num_threads(1)
    recording = simulated_recording(RECORDING, SEED)
    made = models(recording)
    write(made, scores(made, recording), Path(sys.argv[1]) if len(sys.argv) > 1 else ZOO)
