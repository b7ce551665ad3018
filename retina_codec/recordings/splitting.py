"""Training and validation parts that do not leak into each other."""

from __future__ import annotations

import numpy as np
import xarray as xr

from retina_codec._common.checks import require_count
from retina_codec._common.provenance import provenance
from retina_codec._common.time import block_coordinate, runs_of
from retina_codec.recordings.nodes import require_node

MAX_STRETCHES = 5
# A stretch costs two gaps and, in every user, its first history: shorter ones waste more than this.
GAPS_IN_STRETCH = 5


def split(
    node: xr.DataTree | xr.Dataset, *, validation_fraction: float = 0.1, gap: int = 40
) -> xr.DataTree:
    """Split a node along time into training and validation parts, in whole contiguous runs.

    Where the node has several blocks and some of them make up about the fraction asked for
    (between half and twice), whole blocks spread evenly over the recording are taken: windows do
    not cross blocks, so no gap is needed. Else contiguous stretches (at most five, spread evenly)
    are taken from each block, and `gap` frames on either side of each are left out.

    Parameters
    ----------
    node : xarray.DataTree or xarray.Dataset
        Node of a recording; every variable with `time` is split.
    validation_fraction : float
        Share of the frames for validation, above 0 and below 1; met as nearly as blocks allow.
    gap : int
        Frames left out between a training and a validation part, at least the history (frames)
        of the models to be trained.

    Returns
    -------
    xarray.DataTree
        Nodes ``train`` and ``validation``, each with block(time). Whole blocks keep their numbers;
        where a block was cut, all pieces of both nodes are numbered anew in the order of time.

    Raises
    ------
    TypeError
        If `node` is no node of a recording, or `gap` is not whole.
    ValueError
        If the fraction is not between 0 and 1, or the node is too short for it with such a gap.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from retina_codec._common.time import time_coordinate
    >>> from retina_codec.recordings import split
    >>> node = xr.Dataset(
    ...     {"spike_count": (("time", "cell"), np.zeros((1000, 1), int))},
    ...     coords={"time": time_coordinate(np.arange(1000) * 0.01, 0.01), "cell": ["C1"]},
    ... )
    >>> parts = split(node, validation_fraction=0.2, gap=40)
    >>> parts["train"].sizes["time"], parts["validation"].sizes["time"]
    (720, 200)
    """
    data = require_node(node, "node")
    gap = require_count(gap, 0, "gap")
    if not 0 < validation_fraction < 1:
        raise ValueError(
            f"validation_fraction={validation_fraction!r}; expected a number above 0 and below 1"
        )
    runs = runs_of(data)
    chosen = _whole_runs(runs, validation_fraction)
    if chosen:
        train = [run for i, run in enumerate(runs) if i not in chosen]
        validation = [runs[i] for i in chosen]
        if "block" not in data.coords:
            data = data.assign_coords(block=block_coordinate(np.zeros(data.sizes["time"])))
    else:
        train, validation = _stretches(runs, validation_fraction, gap)
        if not (train and validation):
            longest = max(run.stop - run.start for run in runs)
            raise ValueError(
                f"node is too short to split: its longest contiguous run has {longest} frames; "
                f"validation_fraction={validation_fraction!r} with gap={gap} leaves nothing of one "
                "part: give a larger fraction or a smaller gap"
            )
        numbers = np.full(data.sizes["time"], -1)
        for number, piece in enumerate(sorted([*train, *validation], key=lambda s: s.start)):
            numbers[piece] = number
        data = data.assign_coords(block=block_coordinate(numbers))
    tree = xr.DataTree.from_dict(
        {
            f"/{name}": data.isel(time=np.concatenate([np.arange(s.start, s.stop) for s in pieces]))
            for name, pieces in (("train", train), ("validation", validation))
        }
    )
    tree.attrs = provenance(function="split", validation_fraction=validation_fraction, gap=gap)
    return tree


def _whole_runs(runs: list[slice], fraction: float) -> list[int]:
    """Choose evenly spread runs (indices) that hold about `fraction` of the frames, or none."""
    n = len(runs)
    m = max(1, round(fraction * n))
    if m >= n:
        return []
    chosen = [int((i + 0.5) * n / m) for i in range(m)]
    lengths = np.array([run.stop - run.start for run in runs])
    share = lengths[chosen].sum() / lengths.sum()
    return chosen if fraction / 2 <= share <= 2 * fraction else []


def _stretches(runs: list[slice], fraction: float, gap: int) -> tuple[list[slice], list[slice]]:
    """Training and validation pieces: evenly spread stretches of each run, gaps around them."""
    train, validation = [], []
    for run in runs:
        length = run.stop - run.start
        n_validation = round(fraction * length)
        n = int(np.clip(n_validation // max(1, GAPS_IN_STRETCH * gap), 1, MAX_STRETCHES))
        edges = np.linspace(0, n_validation, n + 1).round().astype(int)
        sizes = np.diff(edges)
        centres = run.start + (np.arange(n) + 0.5) * length / n
        starts = (centres - sizes / 2).round().astype(int)
        pieces = [slice(int(a), int(a + size)) for a, size in zip(starts, sizes, strict=True)]
        free_from = [run.start, *(piece.stop + gap for piece in pieces)]
        free_to = [*(piece.start - gap for piece in pieces), run.stop]
        rest = [slice(a, b) for a, b in zip(free_from, free_to, strict=True) if b > a]
        if n_validation and rest:
            validation += pieces
            train += rest
        else:
            train.append(run)
    return train, validation
