"""Phenomena of recorded cells: what was shown to them of the battery."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from retina_codec.physiology.direction_selectivity import DirectionSelectivity
from retina_codec.physiology.phenomenon import Phenomenon
from retina_codec.physiology.step_response import StepResponse
from retina_codec.recordings.nodes import chosen_cells
from retina_codec.recordings.rates import firing_rate
from retina_codec.recordings.tuning import (
    direction_selectivity,
    direction_tuning,
    on_off_index,
)

STEP_LABELS = {"on", "off"}
MOTION_LABELS = ("grating", "bar")


def recorded_phenomena(
    recording: xr.DataTree, chosen: Sequence[Phenomenon], cells: Iterable[object] | None
) -> dict[str, xr.Dataset]:
    """Measure each phenomenon that the recording shows.

    Raises
    ------
    ValueError
        If it shows none.
    """
    found: dict[str, xr.Dataset] = {}
    for one in chosen:
        node = _node_of(recording, one)
        if node is not None:
            count = node["spike_count"]
            found[one.name] = one.measure(firing_rate(count).assign_coords(_over_time(node)))
        elif isinstance(one, StepResponse):
            found |= _steps(recording, one)
        elif isinstance(one, DirectionSelectivity):
            found |= _motion(recording, one)
    if not found:
        names = ", ".join(one.name for one in chosen)
        raise ValueError(
            f"model_or_recording shows none of {names}: it has no node whose stimulus is one of "
            "these movies, no epochs 'on' and 'off', and no 'grating' or 'bar' with directions"
        )
    ids = chosen_cells(next(iter(found.values()))["cell"].values.astype(str).tolist(), cells)
    return {name: node.sel(cell=ids) for name, node in found.items()}


def _node_of(recording: xr.DataTree, one: Phenomenon) -> xr.Dataset | None:
    """Return the node that shows the movie of a phenomenon."""
    for child in (recording, *recording.children.values()):
        data = child.to_dataset()
        shown = {"stimulus", "spike_count"} <= set(data.data_vars)
        if shown and data["stimulus"].attrs.get("phenomenon") == one.name:
            return data
    return None


def _over_time(node: xr.Dataset) -> dict[str, Any]:
    return {str(k): v.variable for k, v in node.coords.items() if v.dims == ("time",)}


def _labels(node: xr.DataTree) -> set[str]:
    data = node.to_dataset()
    if "label" in data:
        return set(data["label"].values.astype(str).tolist())
    if "spike_count" in data and "epoch" in data.coords:
        return set(data["epoch"].values.astype(str).tolist())
    return set()


def _sources(recording: xr.DataTree) -> list[tuple[xr.DataTree, set[str]]]:
    """Where labels are: the whole recording, if it has epochs, or its nodes."""
    if "epochs" in recording.children and "spikes" in recording.children:
        return [(recording, _labels(recording.children["epochs"]))]
    return [(node, _labels(node)) for node in (recording, *recording.children.values())]


def _steps(recording: xr.DataTree, one: StepResponse) -> dict[str, xr.Dataset]:
    for source, labels in _sources(recording):
        if labels >= STEP_LABELS:
            return {one.name: _attributed(on_off_index(source), one)}
    return {}


def _motion(recording: xr.DataTree, one: DirectionSelectivity) -> dict[str, xr.Dataset]:
    for source, labels in _sources(recording):
        for label in MOTION_LABELS:
            if label not in labels:
                continue
            kinds = _kinds(source, label)
            found = []
            for kind in kinds:
                tuning = direction_tuning(source, label=label, stimulus=kind)
                found.append(direction_selectivity(tuning))
            if len(kinds) == 1:
                return {one.name: _attributed(found[0], one)}
            # Several gratings were shown: the table has the first, nodes have each.
            nodes = {one.name: found[0]}
            nodes |= {f"{one.name}_{kind}": each for kind, each in zip(kinds, found, strict=True)}
            return {name: _attributed(node, one) for name, node in nodes.items()}
    return {}


def _kinds(source: xr.DataTree, label: str) -> list[str | None]:
    """Names of the gratings that were shown, where epochs have them; else None alone."""
    if "epochs" not in source.children or "stimulus" not in source["epochs"].data_vars:
        return [None]
    epochs = source["epochs"].to_dataset()
    of_label = epochs["label"].values.astype(str) == label
    return list(np.unique(epochs["stimulus"].values[of_label].astype(str)))


def _attributed(found: xr.Dataset, one: Phenomenon) -> xr.Dataset:
    return found.assign_attrs(phenomenon=one.name, source=one.source)
