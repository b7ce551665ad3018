"""The receptive field at every moment: the gradient of a cell's rate by its stimulus history."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from retina_codec._common.checks import (
    nearest_names,
    require_at_least,
    require_choice,
    require_count,
    require_dims,
)
from retina_codec._common.files import open_tree
from retina_codec._common.provenance import provenance
from retina_codec._common.time import bin_width_of
from retina_codec.attribution.block_run import BlockRun, in_memory
from retina_codec.attribution.budget import MEMORY_BUDGET
from retina_codec.attribution.capture import undisturbed
from retina_codec.attribution.identity import identity_of_run
from retina_codec.attribution.input_gradients import InputGradients, chosen_outputs
from retina_codec.attribution.plan import require_apart
from retina_codec.attribution.store import RECORD, Store, require_zarr
from retina_codec.attribution.streaming import process_of, stream
from retina_codec.models.model import RetinaModel

FIELD_DIMS = ("lag", "color", "y", "x")
NAME = "receptive_field"


def instantaneous_receptive_field(
    model: RetinaModel,
    stimulus: xr.DataArray,
    *,
    cells: str | Sequence[str] | None = None,
    at: Sequence[float] | np.ndarray | xr.DataArray | None = None,
    sum_over: str | Sequence[str] = (),
    batch_size: int | None = None,
    memory_budget: float = MEMORY_BUDGET,
    memory_limit: float = 8e9,
    store: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    process: tuple[int, int] | None = None,
    progress: bool = True,
) -> xr.DataArray:
    """Receptive field of each cell at every moment, while a movie is shown.

    ``F(t, l) = d r(t) / d s(t - l)``: how much the rate now would change if the stimulus `l`
    before had been a little larger, pixel by pixel. Of a linear-nonlinear model it is the filter
    times the slope of the nonlinearity; of a network it changes shape from moment to moment, as
    its hidden units go on and off. It is the gradient with respect to the movie in its recorded
    units: the model's normalisation is undone.

    Parameters
    ----------
    model : RetinaModel
        The model.
    stimulus : xarray.DataArray
        Movie (time, [color,] y, x) in its recorded units; may be lazy.
    cells : str or sequence of str, optional
        Cells by id; by default all.
    at : sequence of float or DataArray, optional
        Times, in seconds, of the bins that are wanted (each within half a bin of its onset); by
        default every bin with a whole history in its block.
    sum_over : sequence of {"lag", "color", "y", "x"}
        Dims to sum over.
    batch_size : int, optional
        Samples in one pass; by default what fits the budget.
    memory_budget : float
        Bytes that a pass through the network may take.
    memory_limit : float
        Bytes that a result in memory may take; more is refused with advice.
    store : path, optional
        Name of a Zarr store that the result is streamed into while it is computed, and which a
        run that was killed goes on with, as for `retina_codec.contributions`.
    overwrite : bool
        Replace a `store` of another run.
    process : (int, int), optional
        Rank of this process, and how many share the run, as for `retina_codec.contributions`.
    progress : bool
        Show a progress bar.

    Returns
    -------
    xarray.DataArray
        (time, cell, lag, [color,] y, x) less the dims summed over, in Hz per unit of the
        stimulus; `lag` in seconds, 0 = the bin itself. Coordinate ``rate`` (time, cell), Hz: the
        model's rate at that moment. Lazy if it is in a store.

    Raises
    ------
    TypeError
        If `model` is no model of the retina.
    ValueError
        For an unknown cell or dim, times that are not those of bins with a whole history, a
        stimulus that does not fit the model, a result above `memory_limit`, or a `store` that
        holds something else.

    References
    ----------
    The instantaneous receptive field: Maheswaranathan et al., Neuron 111, 2742 (2023); with modes:
    Melander et al., ICLR 2026, arXiv 2603.06557.

    Examples
    --------
    >>> import retina_codec as rc
    >>> model = rc.load_model("simulated_bncnn")
    >>> movie = rc.stimuli.Screen(shape=(16, 16)).white_noise(n_frames=60, seed=0)
    >>> fields = rc.instantaneous_receptive_field(
    ...     model, movie, cells="on_sustained_0", progress=False
    ... )
    >>> fields.dims
    ('time', 'cell', 'lag', 'y', 'x')
    """
    if not isinstance(model, RetinaModel):
        raise TypeError(
            f"model is a {type(model).__name__}; expected a retina_codec.models.RetinaModel, such "
            "as retina_codec.load_model gives"
        )
    movie = require_dims(stimulus, ("time", *FIELD_DIMS[1:]), "stimulus", optional=("color",))
    columns = columns_of(model, cells)
    summed = (sum_over,) if isinstance(sum_over, str) else tuple(sum_over)
    for dim in summed:
        require_choice(dim, [dim for dim in FIELD_DIMS if dim in ("lag", *movie.dims)], "sum_over")
    if batch_size is not None:
        require_count(batch_size, 1, "batch_size")
    require_at_least(memory_budget, 1, "memory_budget")
    samples = model.samples(movie, "stimulus")
    chosen = samples_at(at, samples.coords["time"], model)

    def planned() -> FieldRun:
        return FieldRun(
            model, movie, columns, chosen, summed, batch_size=batch_size, budget=memory_budget
        )

    if store is None:
        if process is not None or overwrite:
            raise ValueError(
                "process and overwrite are of a store: name one, as store='fields.zarr', or leave "
                "them out"
            )
        with undisturbed(model):
            return _result(in_memory(planned(), memory_limit, progress))
    place = Path(store)
    require_zarr(place)
    share = process_of(process)
    identity = identity_of_run(
        model,
        movie,
        cells=[str(cell) for cell in model.outputs[columns]],
        samples=[int(chosen[0]), int(chosen[-1]), len(chosen), int(chosen.sum())],
        sum_over=list(summed),
    )
    with undisturbed(model):
        stream(Store(place, identity, batch_size, overwrite, FieldRun), planned, share, progress)
    return _result(open_tree(place, "store"))


def columns_of(model: RetinaModel, cells: str | Sequence[str] | None) -> list[int]:
    """Give the numbers of cells; ValueError with the nearest name if one is unknown."""
    if cells is None:
        return list(range(len(model.outputs)))
    names = [cells] if isinstance(cells, str) else [str(cell) for cell in cells]
    known = {str(name): i for i, name in enumerate(model.outputs)}
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        what = f"no cell {unknown[0]!r}; " if unknown else "cells is empty; "
        raise ValueError(f"{what}{nearest_names(unknown[0] if unknown else '', known)}")
    if len(set(names)) != len(names):
        raise ValueError(f"cells={names} has a cell twice; give each once")
    return [known[name] for name in names]


def samples_at(at: Any, time: xr.DataArray, model: RetinaModel, argument: str = "at") -> np.ndarray:
    """Find the samples at these times; give their indices, ascending."""
    if at is None:
        return np.arange(time.size)
    wanted = np.unique(np.asarray(at, dtype=np.float64))
    onsets = time.values
    order = np.argsort(onsets, kind="stable")
    place = np.clip(np.searchsorted(onsets[order], wanted), 1, max(1, onsets.size - 1))
    near = np.stack([order[place - 1], order[np.minimum(place, onsets.size - 1)]])
    distance = np.abs(onsets[near] - wanted)
    found = near[distance.argmin(0), np.arange(len(wanted))]
    far = wanted[distance.min(0) > 0.5 * model.bin_width]
    if far.size or not wanted.size:
        which = f"{far[0]:g} s is none" if far.size else "it is empty"
        raise ValueError(
            f"{argument}: {which} of the {onsets.size} bins with a whole history of "
            f"{model.history} frames, from {onsets.min():g} to {onsets.max():g} s: take times from "
            "model.predict(stimulus)['time']"
        )
    return np.unique(found)


class FieldRun(BlockRun):
    """Gradients of cells, ready to be computed block by block."""

    what = "receptive fields"
    files = (f"{NAME}/.zarray", "rate/.zarray")
    opened_by = "retina_codec.open_tree"
    smaller = "fewer cells, sum_over=('lag',), at= with fewer times"

    def __init__(
        self,
        model: RetinaModel,
        movie: xr.DataArray,
        columns: Sequence[int],
        chosen: np.ndarray,
        summed: tuple[str, ...],
        *,
        batch_size: int | None,
        budget: float,
    ) -> None:
        self.model, self._movie = model, movie
        self._history = model.history
        self._summed = summed
        self._cells = model.outputs[list(columns)]
        self.notes: dict[str, Any] = {}
        self._gradients = InputGradients(
            model,
            model.samples(movie, "stimulus"),
            chosen_outputs(columns),
            chosen=chosen,
            batch_size=batch_size,
            memory_budget=budget,
        )
        self.samples = self._gradients.samples
        probe = next(iter(self.samples.batches(2))).inputs
        with torch.no_grad():
            outputs = model.network(probe.clone())
            require_apart(model.network, probe, torch.zeros_like(probe), outputs)
        self.dims = ("lag", *map(str, movie.dims[1:]))
        self._axes = [2 + self.dims.index(dim) for dim in summed]
        self._dtype = np.float64 if model.dtype == torch.float64 else np.float32

    @property
    def batch_size(self) -> int:
        """Samples in one pass."""
        return self._gradients.batch_size

    @batch_size.setter
    def batch_size(self, size: int) -> None:
        self._gradients.batch_size = size

    def batches(self, block: slice) -> Iterator[tuple[slice, dict[str, dict[str, np.ndarray]]]]:
        """Compute a block: for each batch its samples, fields and rates."""
        for index, rates, fields in self._gradients.batches(block.start, block.stop):
            turned = fields.flip(2)  # from time order to lags
            kept = turned.sum(self._axes) if self._axes else turned
            yield index, {"": {NAME: kept.cpu().numpy(), "rate": rates.cpu().numpy()}}

    def template(
        self, zeros: Callable[[tuple[int, ...], Any], Any] = np.zeros
    ) -> dict[str, xr.Dataset]:
        """Give the result, all values still to be filled in."""
        sizes = dict(zip(self.dims, self._gradients.input_shape, strict=True))
        kept = tuple(dim for dim in self.dims if dim not in self._summed)
        units = str(self._movie.attrs.get("units", "1"))
        first = (len(self.samples), len(self._cells))
        coords = {**self.samples.coords, "cell": xr.DataArray(self._cells, dims="cell")}
        if "lag" in kept:
            coords["lag"] = lag_coordinate(self._history, bin_width_of(self._movie))
        for dim in kept:
            if dim in self._movie.coords:
                coords[dim] = self._movie[dim]
        shape = (*first, *(sizes[dim] for dim in kept))
        attrs = {
            "units": "Hz" if units == "1" else f"Hz/({units})",
            "long_name": "receptive field at the moment",
        }
        rate = {"units": "Hz", "long_name": "predicted rate"}
        made = {
            NAME: (("time", "cell", *kept), zeros(shape, self._dtype), attrs),
            "rate": (("time", "cell"), zeros(first, self._dtype), rate),
        }
        said = {
            "model_fingerprint": self.model.fingerprint,
            **provenance(
                function="instantaneous_receptive_field",
                sum_over=list(self._summed),
                batch_size=self.batch_size,
            ),
        }
        return {"": xr.Dataset(made, coords, said)}


def lag_coordinate(history: int, bin_width: float) -> xr.DataArray:
    """Give the coordinate `lag`, in seconds, 0 = the bin itself."""
    attrs = {"units": "s", "long_name": "time before the response", "bin_width": bin_width}
    return xr.DataArray(bin_width * np.arange(history), dims="lag", attrs=attrs)


def _result(tree: xr.DataTree) -> xr.DataArray:
    data = tree.to_dataset()
    # What the store is of: not so of what is computed from it.
    said = {name: value for name, value in data.attrs.items() if name != RECORD}
    field = data[NAME].assign_coords(rate=data["rate"])
    return field.assign_attrs(said)
