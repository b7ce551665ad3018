"""The stages of a job, each from files to files."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xarray as xr
import yaml

from retina_codec._common.checks import naming, nearest_names
from retina_codec._common.files import open_tree, save_tree, written_beside
from retina_codec.attribution import contributions, open_contributions
from retina_codec.attribution.methods import IntegratedGradients
from retina_codec.interneurons import compare_interneurons
from retina_codec.jobs.config import Job
from retina_codec.jobs.findings import summarise
from retina_codec.jobs.folder import RunFolder
from retina_codec.jobs.side_by_side import for_each, half_of_the_threads
from retina_codec.jobs.simulated import simulated_recording
from retina_codec.models import BNCNN, LN, RetinaModel, evaluate, load_model, train
from retina_codec.modes import describe_modes, epoch_selectivity, fit_modes, load_modes
from retina_codec.recordings import open_recording, reliability, save_recording, split
from retina_codec.reporting import report
from retina_codec.stimuli import stimulus_features

NETWORKS = ("trained", "untrained")
# Two independent seeds: the control must not start from the weights that were trained.
CONTROL_SEED = 1000
# Frames between epochs say nothing about a class.
UNLABELLED = ("transition", "natural", "")
# Kinds of epoch that are one class, as far as they were shown.
CLASSES = {"motion": ("grating", "bar")}
POPULATION = "population"  # folder beside the modes of cells


@dataclass(frozen=True)
class Stage:
    """A step of a job: what it does, which settings decide it, and what it comes after."""

    name: str
    work: Callable[[Job, Path, bool], None]
    settings: Sequence[str]
    after: Sequence[str] = ()


def run_job(job: Job, *, progress: bool = True) -> Path:
    """Run a job from the recording to the report; finished stages are not repeated.

    Parameters
    ----------
    job : Job
        The settings.
    progress : bool
        Show what is being done, on standard error.

    Returns
    -------
    pathlib.Path
        The report.

    Raises
    ------
    ValueError, TypeError, OSError
        As the stages raise them; what was finished before stays.
    """
    if job.recording is not None and not Path(job.recording.path).exists():
        raise FileNotFoundError(
            f"recording.path={job.recording.path!r} does not exist: give the file or folder of "
            "the recording"
        )
    folder = RunFolder(Path(job.folder))
    with half_of_the_threads():
        _run_stages(job, folder, progress)
    return folder.path / "report.html"


def _run_stages(job: Job, folder: RunFolder, progress: bool) -> None:
    for number, stage in enumerate(STAGES, 1):
        settings = {name: getattr(job, name) for name in stage.settings}
        key = folder.key(stage.name, settings, stage.after)
        done = folder.finished(stage.name, key)
        if progress:
            state = "kept" if done else "..."
            sys.stderr.write(f"[{number}/{len(STAGES)}] {stage.name} {state}\n")
            sys.stderr.flush()
        if not done:
            start = time.monotonic()
            stage.work(job, folder.path, progress)
            folder.finish(stage.name, key)
            if progress:
                sys.stderr.write(f"        {time.monotonic() - start:.0f} s\n")
        if number == 1:  # not before: a recording that is refused leaves no folder behind
            with written_beside(folder.path / "job.yaml") as fresh:
                fresh.write_text(yaml.safe_dump(asdict(job), sort_keys=False))


def _record(job: Job, folder: Path, progress: bool) -> None:
    if job.recording is not None:
        recording = open_recording(
            job.recording.path, format=job.recording.format, cells=job.recording.cells
        )
    else:
        recording = simulated_recording(job.simulation, job.seed)  # type: ignore[arg-type]
    _node(recording, job.contributions.node)  # refused now, not after the training
    save_recording(recording, folder / "recording.zarr")


def _recording(folder: Path) -> xr.DataTree:
    return open_tree(folder / "recording.zarr")


def _node(recording: xr.DataTree, name: str) -> xr.Dataset:
    if name not in recording.children:
        raise ValueError(
            f"contributions.node={name!r} is no node of the recording; "
            f"{nearest_names(name, recording.children)}"
        )
    return recording[name].to_dataset().load()


def _measure_reliability(job: Job, folder: Path, progress: bool) -> None:
    recording = _recording(folder)
    if "test" in recording.children and "repeat" in recording["test"].dims:
        measured = reliability(_node(recording, "test"), history=job.model.history, seed=job.seed)
        save_tree(measured, folder / "reliability.nc")


def _train(job: Job, folder: Path, progress: bool) -> None:
    parts = split(_node(_recording(folder), "train"), gap=job.model.history)
    training, validation = parts["train"].to_dataset(), parts["validation"].to_dataset()
    kernels = job.model.kernel_sizes
    options: dict[str, Any] = {
        "history": job.model.history,
        "channels": tuple(job.model.channels),
        "kernel_sizes": None if kernels is None else tuple(kernels),
        "noise": job.model.noise,
    }
    model = BNCNN.for_recording(training, **options, seed=job.seed)
    for name in job.contributions.layers or ():
        model.layer(name)  # refused now, not after the training
    history = train(
        model,
        training,
        validation=validation,
        seed=job.seed,
        progress=progress,
        **asdict(job.training),
    )
    baseline = LN.from_least_squares(
        training, validation=validation, history=job.model.history, progress=progress
    )
    control = BNCNN.for_recording(training, **options, seed=job.seed + CONTROL_SEED)
    # At a learning rate of 0 an epoch sets the statistics of batch norm and nothing else, so that
    # the control works in the same range as the trained network.
    train(
        control,
        training,
        validation=validation,
        max_epochs=1,
        learning_rate=0.0,
        seed=job.seed,
        progress=progress,
    )
    for name, made in (("trained", model), ("untrained", control), ("ln", baseline)):
        made.save(folder / "models" / name)
    save_tree(history, folder / "training.nc")


def _models(folder: Path) -> dict[str, RetinaModel]:
    return {name: load_model(folder / "models" / name) for name in (*NETWORKS, "ln")}


def _evaluate(job: Job, folder: Path, progress: bool) -> None:
    recording = _recording(folder)
    # Without a test node, the validation part tells at least which epoch was kept.
    if "test" in recording.children:
        node = _node(recording, "test")
    else:
        node = split(_node(recording, "train"), gap=job.model.history)["validation"].to_dataset()
    models = _models(folder)
    scores = {name: evaluate(model, node, seed=job.seed) for name, model in models.items()}
    predictions = {
        name: model.predict(node["stimulus"]).to_dataset() for name, model in models.items()
    }
    save_tree(xr.DataTree.from_dict(scores), folder / "evaluation.nc")
    save_tree(xr.DataTree.from_dict(predictions), folder / "predictions.nc")


def _decomposed_movie(job: Job, folder: Path) -> xr.DataArray:
    node = _node(_recording(folder), job.contributions.node)
    return node["stimulus"].isel(time=slice(job.contributions.max_frames))


def _decompose(job: Job, folder: Path, progress: bool) -> None:
    movie = _decomposed_movie(job, folder)
    models = _models(folder)

    def decompose(name: str) -> None:
        tree = contributions(
            models[name],
            movie,
            layers=job.contributions.layers,
            split_sign=True,
            method=IntegratedGradients(steps=job.contributions.steps),
            sum_over=("y", "x"),
            batch_size=512,
            progress=progress and name == NETWORKS[0],
        )
        save_tree(tree, folder / "contributions" / f"{name}.zarr")

    for_each(decompose, NETWORKS)


def _fit_modes(job: Job, folder: Path, progress: bool) -> None:
    scores: dict[str, xr.Dataset] = {}
    options = asdict(job.modes) | {"seed": job.seed}
    n_population = options.pop("population_modes")
    of_population = options | {"n_modes": n_population, "features": ("cell", "sign", "channel")}
    labelled = "epoch" in _decomposed_movie(job, folder).coords

    def fit(name: str, into: Path) -> None:
        tree = open_contributions(folder / "contributions" / f"{name}.zarr")
        shown = progress and name == NETWORKS[0]
        for layer, node in tree["layers"].children.items():
            contribution = node.to_dataset()["contribution"].load()
            modes = fit_modes(contribution, progress=shown, **options)
            modes.save(into / name / layer)
            scores[f"{name}/{layer}"] = modes.score()
            if labelled:
                with naming(f"modes.population_modes={n_population}, {layer}"):
                    population = fit_modes(contribution, progress=shown, **of_population)
                population.save(into / name / layer / POPULATION)

    # Replaced as a whole: what another run left of other layers does not stay beside these.
    with written_beside(folder / "modes") as fresh:
        for_each(lambda name: fit(name, fresh), NETWORKS)
    save_tree(xr.DataTree.from_dict(scores), folder / "mode_scores.nc")


def _describe(job: Job, folder: Path, progress: bool) -> None:
    movie = _decomposed_movie(job, folder)
    # Of the whole field: features at every cell's place would take several times as long.
    features = stimulus_features(movie)
    described, selectivity = {}, {}
    for name in NETWORKS:
        for layer in sorted(path.name for path in (folder / "modes" / name).iterdir()):
            modes = load_modes(folder / "modes" / name / layer)
            described[f"{name}/{layer}"] = describe_modes(modes, features)
            if "epoch" in movie.coords:
                population = load_modes(folder / "modes" / name / layer / POPULATION)
                epochs = movie["epoch"].sel(time=population.loadings["time"])
                selectivity[f"{name}/{layer}"] = epoch_selectivity(
                    population,
                    epochs,
                    ignore=UNLABELLED,
                    groups=_classes(epochs),
                    per="epoch",
                    seed=job.seed,
                )
    save_tree(xr.DataTree.from_dict(described), folder / "descriptions.nc")
    if selectivity:
        save_tree(xr.DataTree.from_dict(selectivity), folder / "selectivity.nc")
    else:  # of a movie that was decomposed before
        (folder / "selectivity.nc").unlink(missing_ok=True)


def _classes(epochs: xr.DataArray) -> dict[str, list[str]]:
    """Kinds of epoch that are one class; none where nothing else was shown."""
    shown = set(epochs.values.astype(str).tolist()) - set(UNLABELLED)
    classes = {name: [kind for kind in kinds if kind in shown] for name, kinds in CLASSES.items()}
    return {name: kinds for name, kinds in classes.items() if kinds and shown - set(kinds)}


def _compare(job: Job, folder: Path, progress: bool) -> None:
    recording = _recording(folder)
    if "noise" not in recording.children or "potential" not in recording["noise"]:
        return
    node = _node(recording, "noise")
    compared = {}
    for name, model in _models(folder).items():
        if name in NETWORKS:
            found = compare_interneurons(
                model, node["stimulus"], node["potential"], seed=job.seed, progress=progress
            )
            compared.update({f"{name}{group.path}": group.to_dataset() for group in found.subtree})
    save_tree(xr.DataTree.from_dict(compared), folder / "interneurons.nc")


def _summarise(job: Job, folder: Path, progress: bool) -> None:
    with written_beside(folder / "summary.json") as fresh:
        fresh.write_text(json.dumps(summarise(folder), indent=1))


def _report(job: Job, folder: Path, progress: bool) -> None:
    report(folder, title=job.title)


STAGES = (
    Stage("recording", _record, ("recording", "simulation", "seed")),
    Stage("reliability", _measure_reliability, ("model", "seed"), ("recording",)),
    Stage("training", _train, ("model", "training", "seed"), ("recording",)),
    Stage("evaluation", _evaluate, ("seed",), ("training",)),
    Stage("contributions", _decompose, ("contributions",), ("training",)),
    Stage("modes", _fit_modes, ("modes", "seed"), ("contributions",)),
    Stage("description", _describe, ("seed",), ("modes",)),
    Stage("interneurons", _compare, ("seed",), ("training",)),
    Stage("summary", _summarise, (), ("reliability", "evaluation", "description", "interneurons")),
    Stage("report", _report, ("title",), ("summary",)),
)
