"""Each true interneuron beside the hidden unit that follows it best, on white noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from retina_codec._common.progress import progress_counter
from retina_codec.attribution.capture import captured
from retina_codec.models.model import BATCH_SIZE, RetinaModel, frozen
from retina_codec.simulation.network import AmacrineLayer, BipolarLayer
from retina_codec.validation.halves import Halves
from retina_codec.validation.matching import NEGLIGIBLE, best_matches, correlations
from retina_codec.validation.moments import CrossCovariance

SIGNALS = ("potential", "release")


def matched_interneurons(
    name: str,
    model: RetinaModel,
    halves: Halves,
    signals: Mapping[str, np.ndarray],
    layers: Sequence[str],
    progress: bool,
) -> xr.Dataset:
    """Find the best unit of each interneuron on half A, and its correlation on half B.

    `signals` has the potential and the release (row, interneuron). Potentials are compared with
    what enters the rectification of a layer, releases with what leaves it; layers that do not
    rectify have one output.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    gathered: dict[tuple[str, str], tuple[CrossCovariance, CrossCovariance]] = {}
    modules = {layer: model.layer(layer) for layer in layers}
    with (
        frozen(model.network),
        torch.no_grad(),
        progress_counter(len(halves), f"interneurons of {name}", shown=progress) as bar,
    ):
        for stretch in halves.stretches(BATCH_SIZE):
            n = stretch.rows.stop - stretch.rows.start
            batch = next(
                iter(model.samples(halves.shown(stretch, model.history)).batches(BATCH_SIZE))
            )
            with _entering(modules) as before, captured(modules) as after:
                model.network(batch.inputs)
            for layer in layers:
                for signal, of_layer in zip(SIGNALS, (before, after), strict=True):
                    units = of_layer.get(layer, after[layer])
                    shapes[layer] = tuple(units.shape[1:])
                    columns = signals[signal][stretch.rows]
                    values = units.reshape(n, -1).float().cpu().numpy()  # numpy has no bfloat16
                    if (layer, signal) not in gathered:
                        sizes = values.shape[1], columns.shape[1]
                        gathered[layer, signal] = (CrossCovariance(*sizes), CrossCovariance(*sizes))
                    gathered[layer, signal][stretch.half].add(values, columns)
            bar.update(n)
    coords = _unit_labels(model, halves.movie, shapes)
    return xr.concat(
        [_best(signal, signals[signal], halves, gathered, coords, layers) for signal in SIGNALS],
        xr.Variable("signal", list(SIGNALS)),
    )


@contextmanager
def _entering(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Catch what enters the rectification of layers: what a ReLU gets, the drives of a circuit."""
    caught: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for name, module in modules.items():
            if isinstance(module, nn.ReLU | BipolarLayer | AmacrineLayer):

                def hook(module: Any, inputs: Any, name: str = name) -> None:
                    if isinstance(module, nn.ReLU):
                        caught[name] = inputs[0].clone()  # it may work in place
                    else:
                        caught[name] = module.drive(inputs[0])

                stack.callback(module.register_forward_pre_hook(hook).remove)
        yield caught


def _unit_labels(
    model: RetinaModel, movie: xr.DataArray, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, list[np.ndarray]]:
    """Channel, y and x of all units of each layer, flat; NaN for the places of a dense layer."""
    samples = model.samples(movie)
    labels = {}
    for layer, shape in shapes.items():
        coords = samples.layer_coords(layer, (1, *shape))
        known = [coords[axis].values for axis in ("channel", "y", "x")[: len(shape)]]
        grid = [values.ravel() for values in np.meshgrid(*known, indexing="ij")]
        grid += [np.full(int(np.prod(shape)), np.nan)] * (3 - len(grid))
        labels[layer] = [grid[0].astype(str), *grid[1:]]
    return labels


def _best(
    signal: str,
    values: np.ndarray,
    halves: Halves,
    gathered: Mapping[tuple[str, str], tuple[CrossCovariance, CrossCovariance]],
    labels: Mapping[str, list[np.ndarray]],
    layers: Sequence[str],
) -> xr.Dataset:
    found, varies = [], np.ones(values.shape[1], dtype=bool)
    for half, rows in enumerate(halves.rows):
        variance = values[rows].astype(np.float64).var(0)
        scale = np.square(values[rows].astype(np.float64)).mean(0)
        varies &= variance > NEGLIGIBLE * scale
        parts = []
        for layer in layers:
            moments = gathered[layer, signal][half]
            own = moments.variance()
            parts.append(
                correlations(moments.matrix(), (own, variance), (own + moments.level(), scale))
            )
        found.append(np.concatenate(parts))
    best = best_matches(*found)
    names = np.concatenate([np.full(len(labels[layer][0]), layer) for layer in layers])
    channel, y, x = (np.concatenate([labels[layer][i] for layer in layers]) for i in range(3))
    missing = best.place < 0
    dim = "interneuron"
    return xr.Dataset(
        {
            "r": (
                dim,
                np.where(missing & varies, 0.0, best.r),
                {"units": "1", "long_name": "correlation with the best unit"},
            ),
            "best_layer": (dim, np.where(missing, "", names[best.place])),
            "best_channel": (dim, np.where(missing, "", channel[best.place])),
            "best_y": (dim, np.where(missing, np.nan, y[best.place])),
            "best_x": (dim, np.where(missing, np.nan, x[best.place])),
        }
    )
