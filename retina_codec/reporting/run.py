"""A finished run folder, read part by part."""

from __future__ import annotations

import json
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import yaml

from retina_codec._common.files import open_tree
from retina_codec.attribution import open_contributions
from retina_codec.models import RetinaModel, load_model
from retina_codec.modes import load_modes
from retina_codec.modes.result import LABELS_FILE, Modes

# Without these there is nothing to report: file or folder, and the stage that writes it.
ESSENTIAL = {
    "recording.zarr": "recording",
    "models/trained/weights.safetensors": "training",
    "evaluation.nc": "evaluation",
}
NETWORKS = ("trained", "untrained")


class Run:
    """What a run left behind; a part that is absent is None or empty.

    Raises
    ------
    FileNotFoundError
        If the folder is no run folder, or a stage that everything else rests on is missing.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        if not (self.folder / "job.yaml").is_file():
            raise FileNotFoundError(
                f"run_folder={str(folder)!r} has no job.yaml; expected a folder that "
                "'retina-codec run' or 'retina-codec demo' made"
            )
        for name, stage in ESSENTIAL.items():
            if not (self.folder / name).exists():
                raise FileNotFoundError(
                    f"run_folder={str(folder)!r} has no {name}: the stage {stage!r} is missing; "
                    "run the job again, it goes on where it stopped"
                )

    @cached_property
    def job(self) -> dict[str, Any]:
        """The settings."""
        settings = yaml.safe_load((self.folder / "job.yaml").read_text(encoding="utf-8"))
        return settings if isinstance(settings, dict) else {}

    @cached_property
    def findings(self) -> list[str]:
        """Sentences of the summary."""
        file = self.folder / "summary.json"
        if not file.is_file():
            return []
        return [str(sentence) for sentence in json.loads(file.read_text()).get("findings", [])]

    @cached_property
    def recording(self) -> xr.DataTree:
        """The recording, lazily."""
        return open_tree(self.folder / "recording.zarr")

    @cached_property
    def model(self) -> RetinaModel:
        """The trained model."""
        return load_model(self.folder / "models" / "trained")

    @cached_property
    def evaluation(self) -> dict[str, xr.Dataset]:
        """Scores over `cell`, by model."""
        return self._datasets("evaluation.nc")

    @cached_property
    def predictions(self) -> dict[str, xr.DataArray]:
        """Rates (time, cell), by model."""
        return {name: data["prediction"] for name, data in self._datasets("predictions.nc").items()}

    @cached_property
    def reliability(self) -> xr.Dataset | None:
        """Agreement of repeats over `cell`."""
        return self._dataset("reliability.nc")

    @cached_property
    def training(self) -> xr.Dataset | None:
        """Losses over `epoch`."""
        return self._dataset("training.nc")

    @cached_property
    def interneurons(self) -> dict[str, xr.Dataset]:
        """Comparison with the recorded interneurons, by network."""
        return self._datasets("interneurons.nc")

    @cached_property
    def contributions(self) -> dict[str, xr.DataTree]:
        """Contribution trees, lazily, by network."""
        folder = self.folder / "contributions"
        return {
            name: open_contributions(folder / f"{name}.zarr")
            for name in NETWORKS
            if (folder / f"{name}.zarr").exists()
        }

    @cached_property
    def modes(self) -> dict[str, dict[str, Modes]]:
        """Modes by network and layer."""
        found: dict[str, dict[str, Modes]] = {}
        for name in NETWORKS:
            files = sorted((self.folder / "modes" / name).glob(f"*/{LABELS_FILE}"))
            if files:
                found[name] = {file.parent.name: load_modes(file.parent) for file in files}
        return found

    @cached_property
    def mode_scores(self) -> dict[str, xr.Dataset]:
        """Scores of the modes, by ``network/layer``."""
        return self._by_layer("mode_scores.nc")

    @cached_property
    def descriptions(self) -> dict[str, xr.Dataset]:
        """What modes carry, by ``network/layer``."""
        found = self._by_layer("descriptions.nc")
        return {name: data for name, data in found.items() if "partial_r" in data}

    @cached_property
    def selectivity(self) -> dict[str, xr.Dataset]:
        """How well modes tell epochs apart, by ``network/layer``."""
        return self._by_layer("selectivity.nc")

    @cached_property
    def decomposed(self) -> xr.Dataset | None:
        """The node whose movie was decomposed, at the times of the contributions."""
        name = (self.job.get("contributions") or {}).get("node", "")
        if not self.contributions or name not in self.recording.children:
            return None
        times = next(iter(self.contributions.values())).to_dataset()["time"].values
        node = self.recording[name].to_dataset()
        return node.sel(time=times) if np.isin(times, node["time"].values).all() else None

    @cached_property
    def held_out(self) -> xr.Dataset | None:
        """The node that the predictions are of, at their times."""
        if not self.predictions:
            return None
        times = next(iter(self.predictions.values()))["time"].values
        for name in ("test", "train"):
            if name in self.recording.children:
                node = self.recording[name].to_dataset()
                if np.isin(times, node["time"].values).all():
                    return node.sel(time=times)
        return None

    def _dataset(self, name: str) -> xr.Dataset | None:
        tree = self._tree(name)
        return None if tree is None else tree.to_dataset()

    def _datasets(self, name: str) -> dict[str, xr.Dataset]:
        tree = self._tree(name)
        return {} if tree is None else {k: n.to_dataset() for k, n in tree.children.items()}

    def _by_layer(self, name: str) -> dict[str, xr.Dataset]:
        tree = self._tree(name)
        if tree is None:
            return {}
        return {
            f"{network}/{layer}": node.to_dataset()
            for network, group in tree.children.items()
            for layer, node in group.children.items()
        }

    def _tree(self, name: str) -> xr.DataTree | None:
        if not (self.folder / name).exists():
            return None
        with open_tree(self.folder / name) as tree:
            return tree.load()
