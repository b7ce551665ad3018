"""Models on disk: ``config.yaml`` and ``weights.safetensors`` in one folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

import safetensors.torch
import yaml
from torch import Tensor

from retina_codec._common.checks import nearest_names
from retina_codec._common.files import written_beside
from retina_codec._common.version import __version__
from retina_codec.models.model import RetinaModel
from retina_codec.models.zoo import CONFIG, WEIGHTS, model_folder

MOST_TOLD = 3  # weights that differ, in a message


class SavedModel(RetinaModel):
    """A retina model whose architecture is named by a class and its plain arguments."""

    architectures: ClassVar[dict[str, type[SavedModel]]] = {}
    _config: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        SavedModel.architectures[cls.__name__] = cls

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``config.yaml`` and ``weights.safetensors`` into `folder`, whole or not at all.

        Parameters
        ----------
        folder : path
            Made, or replaced if it exists.

        Returns
        -------
        pathlib.Path
            `folder`.
        """
        config = {
            "architecture": type(self).__name__,
            "retina_codec_version": __version__,
            "fingerprint": self.fingerprint,
            "arguments": {
                "input_shape": list(self.input_shape or ()),
                "history": self.history,
                "bin_width": self.bin_width,
                "cells": self.outputs.tolist(),
                "mean": self.mean,
                "sd": self.sd,
                **self._config,
            },
        }
        with written_beside(folder) as fresh:
            fresh.mkdir()
            (fresh / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False))
            weights = {k: v.contiguous() for k, v in self.network.state_dict().items()}
            safetensors.torch.save_file(weights, fresh / WEIGHTS)
        return Path(folder)


def load_model(folder: str | os.PathLike[str]) -> SavedModel:
    """Load a model that ``model.save(folder)`` wrote, or one of the zoo by its name.

    Parameters
    ----------
    folder : path or str
        With ``config.yaml`` and ``weights.safetensors``; or, if there is nothing of that name in
        the working directory, the name of a model that comes with the package
        (``retina-codec models list``).

    Returns
    -------
    RetinaModel
        On the CPU, with the same fingerprint as the saved one.

    Raises
    ------
    FileNotFoundError
        If the folder or one of the two files is missing, and it is no name of the zoo.
    NotADirectoryError
        If it is a file.
    ValueError
        If the configuration is damaged or names an unknown architecture, or the weights are
        damaged or belong to another model.

    Examples
    --------
    >>> import retina_codec as rc
    >>> rc.load_model("simulated_bncnn")
    BNCNN(16 outputs along 'cell'; layers: relu1, relu2)
    """
    folder = model_folder(folder)
    if folder.is_file():
        raise NotADirectoryError(
            f"folder={str(folder)!r} is a file; expected a folder that model.save wrote"
        )
    config = _read_config(_file(folder, CONFIG))
    weights = _file(folder, WEIGHTS)
    model = _built(folder / CONFIG, config)
    _fill(model, weights)
    if model.fingerprint != config["fingerprint"]:
        raise ValueError(
            f"{folder}: the weights are not those that were saved (fingerprint "
            f"{model.fingerprint}, expected {config['fingerprint']})"
        )
    return model


def _file(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise FileNotFoundError(
            f"folder={str(folder)!r} has no {name}; expected a folder that model.save wrote"
        )
    return folder / name


def _read_config(file: Path) -> dict[str, Any]:
    """Return the configuration of a model, with all its entries."""
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{file} is not a YAML file: {str(error).splitlines()[0]}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{file} holds no settings of a model; expected what model.save wrote")
    if "sessions" in config:
        raise ValueError(
            f"{file} is of a model of several recordings; read it by rc.models.SharedCore.load, or "
            f"one of them by its own folder: {', '.join(config['sessions'])}"
        )
    architecture = config.get("architecture")
    if architecture not in SavedModel.architectures:
        raise ValueError(
            f"{file} names the architecture {architecture!r}; "
            f"{nearest_names(architecture, SavedModel.architectures)}"
        )
    arguments = config.get("arguments")
    if "fingerprint" not in config or not isinstance(arguments, dict):
        raise ValueError(
            f"{file} lacks the entries 'fingerprint' or 'arguments'; expected what model.save wrote"
        )
    return config


def _built(file: Path, config: dict[str, Any]) -> SavedModel:
    """Make the model that a configuration describes, with weights of its own."""
    try:
        arguments = dict(config["arguments"])
        arguments["input_shape"] = tuple(arguments["input_shape"])
        return SavedModel.architectures[config["architecture"]](**arguments)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file} does not describe a {config['architecture']} of retina-codec {__version__} "
            f"(it was written by {config.get('retina_codec_version')}): {error}"
        ) from error


def _fill(model: SavedModel, file: Path) -> None:
    """Give a model the weights in `file`, which must be all of its own and no others."""
    try:
        weights = safetensors.torch.load_file(file)
    except OSError as error:
        raise OSError(f"{file} cannot be read: {error}") from error
    except Exception as error:
        raise ValueError(
            f"{file} does not hold this model's weights: it is cut short or damaged ({error})"
        ) from error
    wrong = _differences(model.network.state_dict(), weights)
    if wrong:
        more = f" and {len(wrong) - MOST_TOLD} more" if len(wrong) > MOST_TOLD else ""
        raise ValueError(
            f"{file} does not hold this model's weights but those of another: "
            f"{'; '.join(wrong[:MOST_TOLD])}{more}"
        )
    model.network.load_state_dict(weights)


def _differences(own: dict[str, Tensor], given: dict[str, Tensor]) -> list[str]:
    """Say where the weights that are given have other names or shapes than a model's own."""
    texts = [f"{name} is missing" for name in own if name not in given]
    texts += [f"{name} is not of this model" for name in given if name not in own]
    texts += [
        f"{name} has shape {tuple(given[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in given and own[name].shape != given[name].shape
    ]
    return texts
