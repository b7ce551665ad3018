"""A small run folder, made with the functions that a job calls."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import xarray as xr
import yaml

import retina_codec as rc
from retina_codec import stimuli
from retina_codec._common.files import save_tree
from retina_codec.modes import describe_modes, epoch_selectivity, fit_modes

LAYERS = ["conv1", "conv2"]
# Whichever cell is named in a caption, it must be escaped.
CELLS = ["<b>", "<i> & 2", "<u>"]
TITLE = 'A "small" <run>'


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """Everything that a run of a simulation leaves behind; do not change it."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    rng = np.random.default_rng(0)
    movie = stimuli.probe_movie(n_cycles=1, shape=(6, 6), epoch_duration=0.2, transition=0.1)
    rate = 10 + 20 * abs(movie.mean(("y", "x")).values[:, None] + rng.normal(size=(1, 3)))
    nodes = {
        name: xr.Dataset(
            {
                "stimulus": movie.assign_attrs(units="1"),
                "spike_count": (dims, rng.poisson(rate * 0.01, size=(*repeats, *rate.shape))),
            },
            coords={"cell": CELLS},
        )
        for name, dims, repeats in (
            ("train", ("time", "cell"), ()),
            ("test", ("repeat", "time", "cell"), (4,)),
            ("probe", ("time", "cell"), ()),
        )
    }
    save_tree(xr.DataTree.from_dict(nodes), folder / "recording.zarr")
    (folder / "job.yaml").write_text(
        yaml.safe_dump(
            {
                "title": TITLE,
                "seed": 3,
                "simulation": {"circuit": "<script>"},
                "contributions": {"node": "probe"},
            }
        )
    )
    options = {"history": 5, "seed": 0}
    models = {
        "trained": rc.models.BNCNN.for_recording(
            nodes["train"], channels=(3, 2), kernel_sizes=(3, 3), **options
        ),
        "untrained": rc.models.BNCNN.for_recording(
            nodes["train"], channels=(3, 2), kernel_sizes=(3, 3), history=5, seed=1
        ),
        "ln": rc.models.LN.for_recording(nodes["train"], **options),
    }
    scores, predictions, described, told, mode_scores = {}, {}, {}, {}, {}
    features = rc.stimulus_features(movie)
    for name, model in models.items():
        model.save(folder / "models" / name)
        scores[name] = rc.evaluate(model, nodes["test"], n_draws=20)
        predictions[name] = model.predict(movie).to_dataset()
        if name == "ln":
            continue
        tree = rc.contributions(
            model,
            movie,
            layers=LAYERS,
            split_sign=True,
            sum_over=("y", "x"),
            progress=False,
            method=rc.methods.IntegratedGradients(steps=2),
        )
        save_tree(tree, folder / "contributions" / f"{name}.zarr")
        contribution = tree["layers/conv1"]["contribution"]
        modes = fit_modes(contribution, n_modes=4, k=2, max_epochs=2, progress=False)
        modes.save(folder / "modes" / name / "conv1")
        mode_scores[f"{name}/conv1"] = modes.score()
        described[f"{name}/conv1"] = describe_modes(modes, features, max_lag=0.05)
        epochs = movie["epoch"].sel(time=contribution["time"])
        told[f"{name}/conv1"] = epoch_selectivity(modes, epochs.drop_vars("epoch"), n_bootstrap=20)
    save_tree(rc.reliability(nodes["test"], n_splits=20), folder / "reliability.nc")
    history = xr.Dataset(
        {"train_loss": ("epoch", [1.0, 0.8]), "validation_loss": ("epoch", [1.1, 0.9])},
        coords={"epoch": [0, 1]},
        attrs={"best_epoch": 1},
    )
    save_tree(history, folder / "training.nc")
    for file, parts in (
        ("evaluation.nc", scores),
        ("predictions.nc", predictions),
        ("mode_scores.nc", mode_scores),
        ("descriptions.nc", described),
        ("selectivity.nc", told),
        ("interneurons.nc", {name: _matches(rng) for name in ("trained", "untrained")}),
    ):
        save_tree(xr.DataTree.from_dict(parts), folder / file)
    (folder / "summary.json").write_text(
        json.dumps({"findings": ["Modes <carry> light."], "numbers": {"r": 0.5}})
    )
    return folder


def _matches(rng):
    return xr.Dataset(
        {
            "best_r": ("interneuron", rng.uniform(0.5, 0.9, 4)),
            "null_r": ("interneuron", rng.uniform(0.1, 0.2, 4)),
            "p_value": ("interneuron", [0.01, 0.01, 0.2, 0.01]),
        },
        coords={
            "interneuron": ["a", "b", "c", "d"],
            "type": ("interneuron", ["bipolar", "bipolar", "amacrine", "amacrine"]),
        },
    )


@pytest.fixture
def run_folder(finished_run, tmp_path):
    """A copy of the run that a test may change."""
    return shutil.copytree(finished_run, tmp_path / "run")
