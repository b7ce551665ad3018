"""Contributions as features: streamed over the movie, signs apart, summed over places."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from scipy.linalg import block_diag

from retina_codec._common.progress import progress_counter
from retina_codec.attribution import contributions
from retina_codec.attribution.capture import captured
from retina_codec.attribution.methods import Method
from retina_codec.models.model import RetinaModel, frozen
from retina_codec.validation.halves import Halves, Stretch

# Contributions of all units and cells that are held at a time, and the most frames of that.
BLOCK_BYTES = 64_000_000
MOST_FRAMES = 1024
# Bytes that a pass through the network may take: a small share of the usual, no slower.
PASS_BYTES = 2**28
PARTS = ("positive", "negative")


@dataclass(frozen=True)
class LayerPart:
    """One layer in one stretch of time.

    `contribution` is (time, cell, channel, place), `activation` (time, channel, place).
    """

    contribution: np.ndarray
    activation: np.ndarray


@dataclass(frozen=True)
class LayerLabels:
    """Labels of a layer's units: channels, and y and x of the places."""

    channel: np.ndarray
    y: np.ndarray
    x: np.ndarray

    @classmethod
    def of(cls, contribution: xr.DataArray) -> LayerLabels:
        """Read them from contributions (time, cell, channel[, y, x])."""
        channel = contribution["channel"].values.astype(str)
        if not {"y", "x"} <= set(contribution.dims):
            n_places = int(np.prod(contribution.shape[3:]))
            return cls(channel, np.full(n_places, np.nan), np.full(n_places, np.nan))
        y, x = np.meshgrid(contribution["y"].values, contribution["x"].values, indexing="ij")
        return cls(channel, y.ravel(), x.ravel())


def frames_at_once(model: RetinaModel, halves: Halves, layers: Sequence[str]) -> int:
    """How many frames' contributions fit the bytes that are held."""
    first = next(halves.stretches(1))
    batch = next(iter(model.samples(halves.shown(first, model.history)).batches(1)))
    modules = {name: model.layer(name) for name in layers}
    with frozen(model.network), torch.no_grad(), captured(modules) as caught:
        model.network(batch.inputs)
    units = sum(values[0].numel() for values in caught.values())
    return int(np.clip(BLOCK_BYTES // (4 * units * len(model.outputs)), 1, MOST_FRAMES))


def streamed(
    model: RetinaModel,
    halves: Halves,
    cells: Sequence[str],
    layers: Sequence[str],
    method: Method,
    name: str,
    progress: bool,
) -> Iterator[tuple[Stretch, np.ndarray, dict[str, LayerPart], dict[str, LayerLabels]]]:
    """Give, stretch after stretch, predicted rates (time, cell) and all layers' contributions."""
    size = frames_at_once(model, halves, layers)
    with progress_counter(len(halves), f"contributions of {name}", shown=progress) as bar:
        for stretch in halves.stretches(size):
            tree = contributions(
                model,
                halves.shown(stretch, model.history),
                layers=layers,
                method=method,
                memory_budget=PASS_BYTES,
                extras="activation",
                progress=False,
            )
            parts, labels = {}, {}
            for layer in layers:
                found = tree[f"layers/{layer}"].to_dataset().sel(cell=list(cells))
                contribution = found["contribution"].transpose("time", "cell", "channel", ...)
                labels[layer] = LayerLabels.of(contribution)
                activation = found["activation"].transpose("time", "channel", ...).values
                parts[layer] = LayerPart(
                    contribution.values.reshape(*contribution.shape[:3], -1),
                    activation.reshape(*activation.shape[:2], -1),
                )
            yield stretch, _rates(tree, cells), parts, labels
            bar.update(stretch.rows.stop - stretch.rows.start)


def _rates(tree: xr.DataTree, cells: Sequence[str]) -> np.ndarray:
    rates: np.ndarray = tree.to_dataset()["target"].sel(cell=list(cells)).values
    return rates


def signed_sums(values: np.ndarray) -> np.ndarray:
    """Positive and negative parts (..., channel, place), summed over places: (..., 2 channel)."""
    whole = values.sum(-1)
    positive = np.maximum(values, 0).sum(-1)
    summed: np.ndarray = np.concatenate([positive, whole - positive], axis=-1)
    return summed


@dataclass(frozen=True)
class Summed:
    """Contributions of a model summed over places, for all used frames.

    `rate` (row, cell); `values` (row, cell, column): for each layer the positive parts of its
    channels, then the negative ones. `channels` by layer.
    """

    rate: np.ndarray
    values: np.ndarray
    channels: Mapping[str, np.ndarray]

    def net(self) -> np.ndarray:
        """Both parts together (row, cell, channel of all layers)."""
        return self.values @ net_map([len(names) for names in self.channels.values()]).astype(
            self.values.dtype
        )


def summed(
    model: RetinaModel,
    halves: Halves,
    cells: Sequence[str],
    layers: Sequence[str],
    method: Method,
    name: str,
    progress: bool,
) -> Summed:
    """Compute the contributions of all used frames, signs apart and summed over places."""
    rates, values = [], []
    channels: dict[str, np.ndarray] = {}
    with progress_counter(len(halves), f"contributions of {name}", shown=progress) as bar:
        for stretch in halves.stretches(MOST_FRAMES):
            tree = contributions(
                model,
                halves.shown(stretch, model.history),
                layers=layers,
                method=method,
                memory_budget=PASS_BYTES,
                split_sign=True,
                sum_over=("y", "x"),
                progress=False,
            )
            parts = []
            for layer in layers:
                found = tree[f"layers/{layer}"].to_dataset()["contribution"].sel(cell=list(cells))
                found = found.transpose("time", "cell", "sign", "channel")
                channels[layer] = found["channel"].values.astype(str)
                parts.append(found.values.reshape(*found.shape[:2], -1))
            rates.append(_rates(tree, cells))
            values.append(np.concatenate(parts, axis=-1))
            bar.update(stretch.rows.stop - stretch.rows.start)
    return Summed(np.concatenate(rates), np.concatenate(values), channels)


def net_map(sizes: Sequence[int]) -> np.ndarray:
    """Map (column, channel) from the parts of layers with so many channels to their sums."""
    found: np.ndarray = block_diag(*(np.tile(np.eye(size), (2, 1)) for size in sizes))
    return found


def candidate_map(sizes: Sequence[int]) -> np.ndarray:
    """Map (column, candidate) from the parts of layers to positive, negative and both."""
    found: np.ndarray = block_diag(
        *(np.hstack([np.eye(2 * size), np.tile(np.eye(size), (2, 1))]) for size in sizes)
    )
    return found


def candidate_labels(channels: Mapping[str, np.ndarray]) -> list[tuple[str, str, str]]:
    """Layer, channel and part of each candidate, in the order of `candidate_map`."""
    return [
        (layer, str(channel), part)
        for layer, names in channels.items()
        for part in (*PARTS, "both")
        for channel in names
    ]
