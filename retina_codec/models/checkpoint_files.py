"""Checkpoints of a training: files that a killed run is continued from, with the same bits."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from retina_codec._common.files import written_beside
from retina_codec._common.version import __version__
from retina_codec.models.model import RetinaModel

FORMAT = 1
# The one before the newest stays, in case a disk damages the newest.
KEPT = 2
NAME = re.compile(r"epoch-(\d+)\.ckpt")
CONTENTS = (
    "format",
    "model",
    "data",
    "settings",
    "record",
    "weights",
    "best_weights",
    "optimizer",
    "schedule",
    "generators",
)


def describe_model(model: RetinaModel) -> dict[str, Any]:
    """Say all that a model's weights must fit, as plain values by name."""
    return {
        "architecture": type(model).__name__,
        "input_shape": None if model.input_shape is None else list(model.input_shape),
        **model._settings(),
        "weights": {
            name: f"{tuple(value.shape)} {value.dtype}"
            for name, value in model.network.state_dict().items()
        },
        # Strides, noise and the like, which no weight shows.
        "layers": {name: str(module) for name, module in model.network.named_modules() if name},
    }


def describe_models(models: Mapping[str, RetinaModel]) -> dict[str, Any]:
    """Say all that the weights of several models with one core must fit."""
    whole: dict[str, Any] = {"architecture": "SharedCore", "sessions": list(models)}
    for session, model in models.items():
        for name, value in describe_model(model).items():
            whole[f"{name} of {session!r}"] = (
                {f"{key} of {session!r}": item for key, item in value.items()}
                if isinstance(value, dict)
                else value
            )
    return whole


def checkpoint_files(folder: str | os.PathLike[str]) -> list[Path]:
    """Checkpoints in a folder, the newest last."""
    folder = Path(folder)
    files = folder.iterdir() if folder.is_dir() else ()
    found = [(int(match[1]), file) for file in files if (match := NAME.fullmatch(file.name))]
    return [file for _, file in sorted(found)]


def epochs_in(path: Path) -> int:
    """Epochs done when a checkpoint of this name was written."""
    match = NAME.fullmatch(path.name)
    return int(match[1]) if match else 0


def write_checkpoint(folder: Path, state: dict[str, Any]) -> Path:
    """Write the state after ``len(state["record"])`` epochs, and remove what it makes too old."""
    path = folder / f"epoch-{len(state['record']):05d}.ckpt"
    with written_beside(path) as fresh:
        torch.save({"format": FORMAT, "retina_codec_version": __version__, **state}, fresh)
    for old in checkpoint_files(folder)[:-KEPT]:
        old.unlink()
    return path


def find_checkpoint(resume: str | os.PathLike[str]) -> Path:
    """Return the file `resume`, or the newest checkpoint in the folder `resume`.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    path = Path(resume)
    if path.is_file():
        return path
    if not path.is_dir():
        raise FileNotFoundError(
            f"resume={str(path)!r} does not exist; expected a checkpoint, or the folder that "
            "checkpoints= named"
        )
    files = checkpoint_files(path)
    if not files:
        raise FileNotFoundError(
            f"resume={str(path)!r} has no checkpoint: the run ended before its first epoch did; "
            "train without resume, or with resume=True, which begins where there is none"
        )
    return files[-1]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, tensors on the CPU; nothing but plain values and tensors is unpickled.

    Raises
    ------
    ValueError
        If it is damaged or no checkpoint of a training.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        earlier = [file for file in checkpoint_files(path.parent) if file.name < path.name]
        remedy = (
            f"resume={str(earlier[-1])!r}, the one before, continues an epoch earlier"
            if earlier
            else "there is none before it: train from the start, with another checkpoints folder"
        )
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"resume: {path} is damaged or no checkpoint ({reason[0][:200]}); {remedy}"
        ) from error
    missing = [
        name for name in CONTENTS if not isinstance(state, dict) or name not in state
    ]  # another kind of file that torch can read
    if missing:
        raise ValueError(
            f"resume: {path} is no checkpoint of retina_codec.train: it has no {missing[0]!r}"
        )
    if state["format"] != FORMAT:
        raise ValueError(
            f"resume: {path} has format {state['format']}, written by retina_codec "
            f"{state.get('retina_codec_version')}; this version reads format {FORMAT}"
        )
    return state


def _difference(theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    """Say in what two descriptions of models differ first; nothing if they do not."""
    for name in dict.fromkeys([*ours, *theirs]):
        there, here = theirs.get(name), ours.get(name)
        if there == here:
            continue
        if isinstance(there, dict) and isinstance(here, dict):
            keys = [
                key for key in dict.fromkeys([*here, *there]) if there.get(key) != here.get(key)
            ]
            name, there, here = keys[0], there.get(keys[0]), here.get(keys[0])
        return f"{name} is {there or 'absent'} there and {here or 'absent'} here"
    return ""


def require_same_run(
    path: Path,
    state: dict[str, Any],
    description: dict[str, Any],
    settings: dict[str, Any],
    data: str,
) -> None:
    """Raise ValueError that says what differs, if a checkpoint is of another run.

    `description` is that of the model, or of several.
    """
    what = _difference(state["model"], description)
    if what:
        raise ValueError(
            f"resume: {path} is a checkpoint of another model: {what}; make the model with the "
            "same arguments as for the first run"
        )
    free = set()
    if settings["schedule"] != "one_cycle":
        free.add("max_epochs")  # nothing before the last epoch depends on it
    differing = [
        f"{name}={state['settings'].get(name)!r} there and {settings.get(name)!r} here"
        for name in sorted(settings.keys() | state["settings"].keys())
        if name not in free and settings.get(name) != state["settings"].get(name)
    ]
    if differing:
        raise ValueError(
            f"resume: {path} was written with other settings: {', '.join(differing)}; give those "
            "of the first run"
        )
    if state["data"] != data:
        raise ValueError(
            f"resume: {path} was written in a training on other data (fingerprint "
            f"{state['data']} there, {data} here); give the movie, counts and validation of the "
            "first run"
        )
