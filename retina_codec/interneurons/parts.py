"""What is compared: one or several stimuli, and the potentials recorded under each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from retina_codec._common.checks import nearest_names, require_dims
from retina_codec._common.time import bin_width_of
from retina_codec.interneurons.alignment import lagged_potential, separate_halves
from retina_codec.interneurons.shifts import ShiftedSignals, circular_shifts
from retina_codec.models.model import Batch, Model, Samples

ONLY = ""  # the name of a stimulus that was given alone


@dataclass(frozen=True)
class Pair:
    """A movie and the potentials (time, interneuron) that were recorded under it."""

    name: str
    stimulus: xr.DataArray
    potential: xr.DataArray


@dataclass(frozen=True)
class Part:
    """A movie as the model sees it, with the recorded signals at its samples.

    `row_of` gives each sample's row among those that are compared, or -1. `halves` are rows.
    """

    name: str
    stimulus: xr.DataArray
    samples: Samples
    row_of: np.ndarray
    signals: ShiftedSignals
    halves: tuple[slice, slice]

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.signals.lagged)

    def batches(self, size: int) -> Iterator[tuple[Batch, np.ndarray, np.ndarray]]:
        """Give batches of samples, which of them are compared, and their rows."""
        for batch in self.samples.batches(size):
            row = self.row_of[batch.index]
            used = row >= 0
            yield batch, used, row[used]

    def half_of(self, row: np.ndarray) -> np.ndarray:
        """0 or 1 for rows in the first or second half, -1 between them."""
        first, second = self.halves
        return np.where(row < first.stop, 0, np.where(row >= second.start, 1, -1))


def pairs_of(stimulus: Any, potential: Any) -> list[Pair]:
    """Movies and potentials by stimulus, the interneurons in the same order in all.

    Raises
    ------
    TypeError, ValueError
        If they are of other kinds, do not belong together or hold other interneurons.
    """
    named = _named(stimulus, potential)
    pairs: list[Pair] = []
    for name, (movie, values) in named.items():
        where = f"potential[{name!r}]" if name else "potential"
        if not isinstance(movie, xr.DataArray):
            which = f"stimulus[{name!r}]" if name else "stimulus"
            raise TypeError(
                f"{which} is a {type(movie).__name__}; expected an xarray.DataArray (time, "
                "[color,] y, x), a mapping of such, or a recording with nodes that hold "
                "stimulus and potential"
            )
        values = require_dims(values, ("time", "interneuron"), where)
        if "interneuron" not in values.coords:
            values = values.assign_coords(interneuron=np.arange(values.sizes["interneuron"]))
        labels = values.indexes["interneuron"]
        if not labels.is_unique:
            raise ValueError(f"{where} has interneurons of the same name; rename them")
        if values.sizes["interneuron"] == 0:
            raise ValueError(f"{where} holds no interneuron")
        if pairs:
            first = pairs[0].potential.indexes["interneuron"]
            if set(labels) != set(first):
                odd = ", ".join(map(str, sorted(set(labels) ^ set(first), key=str)))
                raise ValueError(
                    f"{where} and potential[{pairs[0].name!r}] hold other interneurons (only in "
                    f"one of them: {odd}); keep those of all stimuli with .sel(interneuron=...)"
                )
            values = values.sel(interneuron=first)
            for axis in ("y", "x"):
                here, there = (m.coords.get(axis) for m in (movie, pairs[0].stimulus))
                if here is not None and (there is None or not np.array_equal(here, there)):
                    raise ValueError(
                        f"stimulus[{name!r}] and stimulus[{pairs[0].name!r}] have other "
                        f"coordinates {axis!r}: put all movies on one screen"
                    )
        pairs.append(Pair(name, movie, values))
    return pairs


def _named(stimulus: Any, potential: Any) -> dict[str, tuple[Any, Any]]:
    if isinstance(stimulus, xr.DataTree | xr.Dataset):
        return _of_recording(stimulus, potential)
    if isinstance(potential, str):
        raise TypeError(
            f"potential={potential!r} names a variable, but stimulus is a "
            f"{type(stimulus).__name__}; expected a recording, or the potentials as a DataArray "
            "(time, interneuron)"
        )
    if not isinstance(stimulus, Mapping) and not isinstance(potential, Mapping):
        return {ONLY: (stimulus, potential)}
    if not isinstance(stimulus, Mapping) or not isinstance(potential, Mapping):
        raise TypeError(
            f"stimulus is a {type(stimulus).__name__} and potential a "
            f"{type(potential).__name__}; for several stimuli, give both as mappings by name"
        )
    if not stimulus:
        raise ValueError("stimulus is empty; give at least one movie")
    lacking = [str(name) for name in stimulus if name not in potential]
    lacking += [str(name) for name in potential if name not in stimulus]
    if lacking:
        raise ValueError(
            f"stimulus and potential do not both have {', '.join(lacking)}; "
            f"{nearest_names(lacking[0], stimulus)}"
        )
    return {str(name): (stimulus[name], potential[name]) for name in stimulus}


def _of_recording(recording: Any, variable: Any) -> dict[str, tuple[Any, Any]]:
    if not isinstance(variable, str):
        raise TypeError(
            f"potential is a {type(variable).__name__}, but stimulus is a recording; expected the "
            "name of one of its variables, by default 'potential'"
        )
    nodes: dict[str, Any] = (
        {name: child.to_dataset() for name, child in recording.children.items()}
        if isinstance(recording, xr.DataTree) and recording.children
        else {ONLY: recording.to_dataset() if isinstance(recording, xr.DataTree) else recording}
    )
    held = {
        str(name): (node["stimulus"], node[variable])
        for name, node in nodes.items()
        if "stimulus" in node and variable in node
    }
    if not held:
        lists = "; ".join(f"{name or '/'}: {', '.join(map(str, n))}" for name, n in nodes.items())
        raise ValueError(
            f"stimulus: no node of the recording holds both 'stimulus' and {variable!r}; it has "
            f"{lists}"
        )
    return {ONLY: next(iter(held.values()))} if len(held) == 1 else held


def parts_of(
    model: Model, pairs: list[Pair], lags: np.ndarray, n_shifts: int, seed: int
) -> list[Part]:
    """Lay potentials beside the model's samples, and draw the shifts of each stimulus."""
    parts = []
    for number, pair in enumerate(pairs):
        try:
            samples = model.samples(pair.stimulus, "stimulus")
            rows, lagged = lagged_potential(pair.potential, samples.coords, lags)
            gap = gap_of(model, lags)
            halves = separate_halves(lagged, gap, pair.potential["interneuron"].values)
            # One stimulus alone is shifted as ever; several, each by its own draws.
            shifts = circular_shifts(
                len(rows),
                bin_width_of(pair.stimulus, "stimulus"),
                n_shifts,
                seed if number == 0 else [seed, number],
            )
        except ValueError as error:
            if not pair.name:
                raise
            raise ValueError(f"stimulus {pair.name!r}: {error}") from error
        row_of = np.full(len(samples), -1)
        row_of[rows] = np.arange(len(rows))
        signals = ShiftedSignals(lagged, shifts)
        parts.append(Part(pair.name, pair.stimulus, samples, row_of, signals, halves))
    return parts


def gap_of(model: Model, lags: np.ndarray) -> int:
    """Rows between halves that share no frame and no lag."""
    return int(getattr(model, "history", 1)) + len(lags) - 1
