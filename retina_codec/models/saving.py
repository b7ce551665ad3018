"""Models on disk: ``config.yaml`` and ``weights.safetensors`` in one folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

import safetensors.torch
import yaml

from retina_codec._common.checks import nearest_names
from retina_codec._common.files import written_beside
from retina_codec._common.version import __version__
from retina_codec.models.model import RetinaModel


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
            (fresh / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
            weights = {k: v.contiguous() for k, v in self.network.state_dict().items()}
            safetensors.torch.save_file(weights, fresh / "weights.safetensors")
        return Path(folder)


def load_model(folder: str | os.PathLike[str]) -> SavedModel:
    """Load a model that ``model.save(folder)`` wrote.

    Parameters
    ----------
    folder : path
        With ``config.yaml`` and ``weights.safetensors``.

    Returns
    -------
    RetinaModel
        On the CPU, with the same fingerprint as the saved one.

    Raises
    ------
    FileNotFoundError
        If the folder or one of the two files is missing.
    ValueError
        If the configuration names an unknown architecture, or the weights are damaged or belong
        to another model.
    """
    folder = Path(folder)
    for name in ("config.yaml", "weights.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"folder={str(folder)!r} has no {name}; expected a folder that model.save wrote"
            )
    config = yaml.safe_load((folder / "config.yaml").read_text())
    architecture = config.get("architecture") if isinstance(config, dict) else None
    if architecture not in SavedModel.architectures:
        raise ValueError(
            f"{folder / 'config.yaml'} names the architecture {architecture!r}; "
            f"{nearest_names(architecture, SavedModel.architectures)}"
        )
    arguments = dict(config["arguments"])
    arguments["input_shape"] = tuple(arguments["input_shape"])
    model = SavedModel.architectures[architecture](**arguments)
    try:
        model.network.load_state_dict(safetensors.torch.load_file(folder / "weights.safetensors"))
    except Exception as error:
        raise ValueError(
            f"{folder / 'weights.safetensors'} does not hold this model's weights: {error}"
        ) from error
    if model.fingerprint != config["fingerprint"]:
        raise ValueError(
            f"{folder}: the weights are not those that were saved (fingerprint "
            f"{model.fingerprint}, expected {config['fingerprint']})"
        )
    return model
