"""Parts for training, validation and test that do not leak into each other."""

from __future__ import annotations

import numpy as np
import quantities as pq
import xarray as xr

from retina_codec._common.checks import magnitude, require_at_least, require_count
from retina_codec._common.provenance import provenance
from retina_codec._common.time import bin_width_of, block_coordinate, runs_of
from retina_codec.recordings.nodes import RESPONSES, require_node, response_of

MAX_STRETCHES = 5
FEWEST_WHOLE = 3  # fewer whole blocks may lack a stimulus that the others show
# A stretch costs two gaps and, in every user, its first history: shorter ones waste more than this.
GAPS_IN_STRETCH = 5


def split(
    node: xr.DataTree | xr.Dataset,
    *,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.0,
    gap: object = 40,
) -> xr.DataTree:
    """Split a node along time into parts for training, validation and test, in contiguous runs.

    Where the node has many blocks, at least three of which make up about the fraction asked for
    (between half and twice), whole blocks spread evenly over the recording are taken: windows do
    not cross blocks, so no gap is needed. Else contiguous stretches (at most five, spread evenly)
    are taken from each block, since each may show another stimulus, and `gap` frames on either
    side of each are left out; blocks of which less than `gap` frames would be taken are left
    whole. Where most blocks are as short as that, whole blocks are taken, were it one. The test
    part is taken first, the validation part in the same way from what remains.

    Parameters
    ----------
    node : xarray.DataTree or xarray.Dataset
        Node of a recording, with spike_count, rate, response or potential; every variable with
        `time` is split, one larger than memory lazily.
    validation_fraction : float
        Share of the frames for validation, above 0 and below 1; met as nearly as blocks allow.
    test_fraction : float
        Share of the frames for a test part; 0 = none. For recordings without repeats.
    gap : int or quantity
        Frames left out between two parts (a time is rounded up to frames): the history of the
        models to be trained, so that no frame that one part is scored on is seen by another.

    Returns
    -------
    xarray.DataTree
        Nodes ``train``, ``validation`` and, where asked for, ``test``, each with block(time). Whole
        blocks keep their numbers; where a block was cut, the pieces of all nodes are numbered anew
        in the order of time.

    Raises
    ------
    TypeError
        If `node` is no node of a recording, or `gap` is neither whole nor a time.
    ValueError
        If a fraction is not between 0 and 1, or the node is too short for them with such a gap.

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
    data = require_node(node, "node", variables=(response_of(node) or RESPONSES[0],))
    frames = _gap_in_frames(gap, bin_width_of(data, "node"))
    if not 0 < validation_fraction < 1:
        raise ValueError(
            f"validation_fraction={validation_fraction!r}; expected a number above 0 and below 1"
        )
    if not 0 <= test_fraction < 1 - validation_fraction:
        raise ValueError(
            f"test_fraction={test_fraction!r}; expected a number from 0 to below "
            f"{1 - validation_fraction:g}, which validation_fraction={validation_fraction!r} leaves"
        )
    runs = runs_of(data)
    n_frames = data.sizes["time"]
    train, parts, cut = runs, {}, False
    for name, fraction in (("test", test_fraction), ("validation", validation_fraction)):
        if not fraction:
            continue
        share = fraction * n_frames / _length(train)
        # Once blocks were cut their pieces are no blocks of the recording: cut them all.
        chosen = [] if cut else _whole_runs(train, share)
        few = len(chosen) < FEWEST_WHOLE and _mostly_long(train, share, frames)
        if chosen and not few:
            parts[name] = [train[i] for i in chosen]
            train = [run for i, run in enumerate(train) if i not in chosen]
        elif share < 1:
            cut = True
            train, parts[name] = _stretches(train, share, frames)
        if not (train and parts.get(name)):
            longest = max(run.stop - run.start for run in runs)
            raise ValueError(
                f"node is too short to split: its longest contiguous run has {longest} frames; "
                f"{name}_fraction={fraction!r} with gap={frames} leaves nothing of one part: give "
                "a larger fraction or a smaller gap"
            )
    parts["train"] = train
    if cut or "block" not in data.coords:
        numbers = np.full(n_frames, -1 if cut else 0)
        if cut:
            pieces = sorted((piece for part in parts.values() for piece in part), key=_start)
            for number, piece in enumerate(pieces):
                numbers[piece] = number
        data = data.assign_coords(block=block_coordinate(numbers))
    tree = xr.DataTree.from_dict(
        {
            f"/{name}": data.isel(time=np.concatenate([np.r_[piece] for piece in parts[name]]))
            for name in ("train", "validation", "test")
            if name in parts
        }
    )
    tree.attrs = provenance(
        function="split",
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        gap=frames,
    )
    return tree


def _gap_in_frames(gap: object, bin_width: float) -> int:
    if not isinstance(gap, pq.Quantity):
        return require_count(gap, 0, "gap")
    seconds = float(magnitude(gap, "s", "gap"))
    require_at_least(seconds, 0, "gap")
    # A time that is whole frames but for rounding is not one frame more.
    return int(np.ceil(seconds / bin_width - 1e-6))


def _start(piece: slice) -> int:
    return piece.start


def _length(pieces: list[slice]) -> int:
    return sum(piece.stop - piece.start for piece in pieces)


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


def _mostly_long(runs: list[slice], fraction: float, gap: int) -> bool:
    """Whether most frames are in runs of which `fraction` is a gap or more."""
    long = [run for run in runs if _long_enough(run, fraction, gap)]
    return 2 * _length(long) >= _length(runs)


def _long_enough(run: slice, fraction: float, gap: int) -> bool:
    return round(fraction * (run.stop - run.start)) >= max(gap, 1)


def _stretches(runs: list[slice], fraction: float, gap: int) -> tuple[list[slice], list[slice]]:
    """Training and validation pieces: evenly spread stretches of each run, gaps around them."""
    train, validation = [], []
    some_long = any(_long_enough(run, fraction, gap) for run in runs)
    for run in runs:
        if some_long and not _long_enough(run, fraction, gap):
            train.append(run)
            continue
        length = run.stop - run.start
        n_validation = round(fraction * length)
        n = int(np.clip(n_validation // max(1, GAPS_IN_STRETCH * gap), 1, MAX_STRETCHES))
        edges = np.linspace(0, n_validation, n + 1).round().astype(int)
        # What is left is shared evenly, half a share at either end. Not even centres: sizes differ
        # by a frame, and rounded pieces could overlap.
        before = ((np.arange(n) + 0.5) * (length - n_validation) / n).round().astype(int)
        starts, stops = run.start + before + edges[:-1], run.start + before + edges[1:]
        pieces = [slice(int(a), int(b)) for a, b in zip(starts, stops, strict=True)]
        free_from = [run.start, *(piece.stop + gap for piece in pieces)]
        free_to = [*(piece.start - gap for piece in pieces), run.stop]
        rest = [slice(a, b) for a, b in zip(free_from, free_to, strict=True) if b > a]
        if n_validation and rest:
            validation += pieces
            train += rest
        else:
            train.append(run)
    return train, validation
