"""What layouts with responses already in bins share: their time, counts, cells, nodes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from retina_codec._common.checks import magnitude
from retina_codec._common.provenance import provenance
from retina_codec._common.time import block_coordinate, time_coordinate
from retina_codec.recordings.assembly import response_node, spans, stimulus_part
from retina_codec.recordings.binning import (
    PLAUSIBLE_WIDTH,
    require_matching_width,
    require_plausible_width,
)
from retina_codec.recordings.formats.base import Read
from retina_codec.recordings.nodes import cell_coordinate
from retina_codec.recordings.plausibility import HIGHEST_RATE

# A movie may be this much longer than the responses: its last frames had none.
SPARE_FRAMES = 0.01
# Two bins further apart than this many bin widths are not neighbours.
GAP = 1.5
OTHER_NODES = ("spikes", "frames", "epochs")


def natural(names: Iterable[str]) -> list[str]:
    """Sort names so that numbers in them count: cell2 before cell10."""

    def key(name: str) -> list[Any]:
        parts = re.split(r"([0-9]+)", name)
        return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]

    return sorted(names, key=key)


def require_cells(ids: Sequence[object]) -> list[str]:
    """Ids as text; ValueError if there are none, or two are the same."""
    names = [str(name) for name in ids]
    if not names:
        raise ValueError("cells: the file holds no cells; expected the responses of at least one")
    for place, name in enumerate(names):
        if name in names[:place]:
            raise ValueError(f"cells: two cells have the id {name!r}; give each its own")
    return names


def require_node_name(name: str) -> str:
    """Return the name of a node; ValueError where the tree means something else by it."""
    if name in OTHER_NODES or "/" in name or not name:
        raise ValueError(
            f"a stimulus is called {name!r}, a name that a recording cannot give to one "
            f"({', '.join(OTHER_NODES)} hold other things): rename it in the file"
        )
    return name


def bins_of(values: np.ndarray, argument: str) -> tuple[np.ndarray, float, np.ndarray, list[str]]:
    """Onsets (s), bin width (s), number of the contiguous run of each bin, and notes.

    Where `values` start anew, the bins from there on are laid behind those before.
    """
    onsets = np.array(values, dtype=np.float64).reshape(-1)
    if len(onsets) != np.size(values) or np.max(np.shape(values), initial=0) != np.size(values):
        raise ValueError(f"{argument} has shape {np.shape(values)}; expected one time a bin")
    if len(onsets) < 2:
        raise ValueError(f"{argument} has {len(onsets)} times; expected at least two bins")
    bad = np.flatnonzero(~np.isfinite(onsets))
    if bad.size:
        raise ValueError(
            f"{argument}: the time of bin {bad[0]} is {onsets[bad[0]]}; each must be finite"
        )
    steps = np.diff(onsets)
    usual = float(np.median(steps))
    require_plausible_width(usual, argument)
    seams = np.flatnonzero((steps > GAP * usual) | (steps < (2 - GAP) * usual))
    inside = np.delete(steps, seams)
    # Onsets in single precision are coarse late in a recording; their mean is not.
    width = float(inside.mean())
    notes = []
    backward = [int(seam) for seam in seams if steps[seam] <= 0]
    for seam in backward:
        onsets[seam + 1 :] += onsets[seam] + width - onsets[seam + 1]
    if backward:
        notes.append(
            f"{argument} starts anew after bins {', '.join(map(str, backward))}: later blocks are "
            "laid end to end"
        )
    close = [int(seam) for seam in seams if 0 < steps[seam] < usual]
    if close:
        raise ValueError(
            f"{argument}: bin {close[0] + 1} begins {steps[close[0]]:g} s after the one before, "
            f"others {usual:g} s; bins of unequal width cannot be one node: correct the times"
        )
    block = np.zeros(len(onsets), dtype=np.int64)
    block[seams + 1] = 1
    return onsets, width, np.cumsum(block), notes


def regular_bins(n_bins: int, bin_width: float) -> np.ndarray:
    """Onsets (s) of contiguous bins from 0."""
    return np.arange(n_bins) * bin_width


def given_bin_width(value: Any, argument: str = "bin_width") -> float:
    """Bin width in seconds from a number or quantity; ValueError unless a display can have it."""
    given = magnitude(value, "s", argument)
    if isinstance(given, bool) or not isinstance(given, int | float | np.number):
        raise TypeError(f"{argument}={value!r}; expected a number of seconds, or a quantity")
    if not PLAUSIBLE_WIDTH[0] <= given <= PLAUSIBLE_WIDTH[1]:
        raise ValueError(
            f"{argument}={float(given):g} s is no bin of a display; give it in seconds, or as a "
            "quantity with its unit"
        )
    return float(given)


def agreed_bin_width(bin_width: Any, found: float) -> float:
    """Bin width the caller gave, if it is the one `found` in the file; else that."""
    if bin_width is None:
        return found
    given = given_bin_width(bin_width)
    require_matching_width(given, found)
    return given


def equal_blocks(n_bins: int, n_blocks: int, argument: str) -> np.ndarray:
    """Give the number of the block of each bin, for blocks of equal length."""
    if n_bins % n_blocks:
        raise ValueError(
            f"{argument}: {n_bins} bins are no {n_blocks} blocks of equal length; correct the "
            "number of blocks"
        )
    return np.repeat(np.arange(n_blocks), n_bins // n_blocks)


def matched(movie: xr.DataArray, n_bins: int, name: str) -> tuple[xr.DataArray, list[str]]:
    """Movie cut to the bins of the responses; ValueError where that is more than a loose end."""
    n_frames = movie.sizes["time"]
    if n_frames == n_bins:
        return movie, []
    if n_bins > n_frames:
        raise ValueError(
            f"{name}: the responses have {n_bins} bins but the stimulus only {n_frames} frames; "
            "they do not belong together, or an axis is not what it was taken for"
        )
    if n_frames - n_bins > SPARE_FRAMES * n_frames:
        raise ValueError(
            f"{name}: the stimulus has {n_frames} frames but the responses only {n_bins} bins; "
            "more than a loose end: check that both belong together, or cut the longer one"
        )
    return movie.isel(time=slice(0, n_bins)), [
        f"{name}: frames {n_bins}..{n_frames - 1} of the stimulus are not used: they have no "
        "responses"
    ]


def counts_in_bins(values: np.ndarray, bin_width: float) -> np.ndarray | None:
    """Spike counts as int32; None where the values are something else (rates, traces).

    Counts are whole numbers, not all of them multiples of ``1 / bin_width`` as rates in Hz of
    single bins are.
    """
    values = np.asarray(values)
    if values.dtype.kind not in "biuf" or not np.isfinite(values).all():
        return None
    if values.size and (values.min() < 0 or values.max() > np.iinfo(np.int32).max):
        return None
    counts = values.astype(np.int32)  # small unsigned types wrap in arithmetic
    if not np.array_equal(counts, values):
        return None
    per_spike = round(1 / bin_width)
    if per_spike > 1 and counts.any() and not (counts % per_spike).any():
        return None
    return counts


def require_counts(values: np.ndarray, bin_width: float, name: str) -> np.ndarray:
    """Spike counts as int32; ValueError where they are none."""
    counts = counts_in_bins(values, bin_width)
    if counts is None:
        values = np.asarray(values)
        hint = "they are not whole numbers of spikes"
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            hint = f"{int((~np.isfinite(values)).sum())} of them are NaN or infinite"
        elif values.size and values.min() < 0:
            hint = "some are negative"
        elif values.dtype.kind in "biuf" and np.array_equal(values, np.round(values)):
            hint = f"all are multiples of {1 / bin_width:g}, as rates in Hz are"
        raise ValueError(
            f"{name} should hold spike counts, but {hint}; say that they are rates or responses, "
            "or correct the file"
        )
    return counts


def require_plausible_counts(
    counts: np.ndarray, cells: Sequence[str], bin_width: float, name: str
) -> list[str]:
    """Give notes on silent cells; ValueError where counts ([repeat,] time, cell) cannot be."""
    mean = counts.reshape(-1, counts.shape[-1]).mean(axis=0) / bin_width
    if not mean.any():
        raise ValueError(
            f"{name}: none of the {len(cells)} cells has a spike; check that these are the counts"
        )
    if mean.max() > HIGHEST_RATE:
        cell = int(mean.argmax())
        raise ValueError(
            f"{name}: cell {cells[cell]!r} fires {mean[cell]:.4g} spikes a second in the mean, "
            "which no cell can; are the counts rates, or is the bin width wrong?"
        )
    silent = [cell for cell, fired in zip(cells, mean > 0, strict=True) if not fired]
    if silent:
        return [f"{name}: no spikes at all in {len(silent)} cells ({', '.join(silent[:5])})"]
    return []


def binned_node(
    movie: xr.DataArray,
    *,
    onsets: np.ndarray,
    bin_width: float,
    cells: Sequence[str],
    counts: Any = None,
    rate: Any = None,
    response: Any = None,
    response_units: str = "1",
    block: np.ndarray | None = None,
    repeat_onset: np.ndarray | None = None,
    said: str = "",
) -> xr.Dataset:
    """Node of responses in bins: the movie, and counts, or rates or traces where there are none.

    Parameters
    ----------
    movie : xarray.DataArray
        Dims (time, [color,] y, x), one frame a bin.
    onsets, bin_width
        Seconds.
    cells : list of str
        Ids.
    counts, response : array, optional
        ([repeat,] time, cell).
    rate : array, optional
        (time, cell), Hz; where there are counts, it is made from them instead.
    response_units : str
        Units of `response`.
    block : numpy.ndarray, optional
        Number of the contiguous run of each bin.
    repeat_onset : numpy.ndarray, optional
        Seconds on the clock of the recording.
    said : str
        What the values are, where there are no counts.
    """
    time = time_coordinate(onsets, bin_width)
    repeats = next((v.shape[0] for v in (counts, response) if v is not None and v.ndim == 3), None)
    if repeats is not None:
        time.attrs["long_name"] = "onset of the bin after the start of the repeat"
    stimulus = stimulus_part(movie, [slice(0, movie.sizes["time"])], time)
    numbers = None if repeats is None else list(range(repeats))
    if counts is not None:
        return response_node(
            counts,
            cells=cells,
            time=time,
            stimulus=stimulus,
            block=block,
            repeat=numbers,
            repeat_onset=repeat_onset,
        )
    coords: dict[str, Any] = {"time": time, "cell": cell_coordinate(cells)}
    if block is not None:
        coords["block"] = block_coordinate(block)
    if numbers is not None:
        coords["repeat"] = ("repeat", numbers, {"long_name": "number of the repeat"})
    if repeat_onset is not None:
        text = "start of the repeat on the clock of the recording"
        coords["repeat_onset"] = ("repeat", repeat_onset, {"units": "s", "long_name": text})
    node = xr.Dataset({"stimulus": stimulus}, coords=coords, attrs={"responses": said})
    if response is not None:
        dims = ("repeat", "time", "cell")[3 - response.ndim :]
        attrs = {"units": response_units, "long_name": "response"}
        node["response"] = (dims, response, attrs)
    if rate is not None:
        node["rate"] = (("time", "cell"), rate, {"units": "Hz", "long_name": "firing rate"})
    return node


def binned_tree(
    nodes: Mapping[str, xr.Dataset], notes: Sequence[str], *, function: str, **parameters: Any
) -> Read:
    """Tree of a recording from its nodes; the notes stand in its attrs, too."""
    tree = xr.DataTree.from_dict({f"/{name}": node for name, node in nodes.items()})
    used = [
        f"{name}: {spans(np.arange(node.sizes['time']))}"
        for name, node in nodes.items()
        if "stimulus" in node
    ]
    tree.attrs = {**provenance(function=function, **parameters), "frames_used": "; ".join(used)}
    if notes:
        tree.attrs["notes"] = "; ".join(notes)
    return tree, list(notes)
