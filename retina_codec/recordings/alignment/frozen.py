"""Blocks of a file that do not have the frozen frames of their plan."""

from __future__ import annotations

from collections import Counter

import numpy as np
import xarray as xr

from retina_codec.recordings.plan import FrozenNoise, digest_of


def wrong_blocks(stimulus: xr.DataArray, plan: FrozenNoise) -> tuple[int, list[tuple[int, int]]]:
    """Find the first block with the usual frozen frames, and the frames that differ from it.

    The usual frozen frames are those of most complete blocks, so that no block, not even the first,
    decides alone. What differs is [first, stop) of whole blocks; blocks in a row are one
    entry. Also an incomplete last block is compared, by the frozen frames that it has.

    Raises
    ------
    ValueError
        If the stimulus is shorter than one block, or all of three or more blocks differ.
    """
    n = stimulus.sizes["time"]
    if n < plan.block_frames:
        raise ValueError(
            f"plan has blocks of {plan.block_frames} frames, but the stimulus has {n}; check the "
            "plan"
        )
    n_complete = n // plan.block_frames
    # Block by block and by their digests: a movie may be larger than memory.
    digests = [digest_of(_frozen(stimulus, plan, block)) for block in range(n_complete)]
    usual, n_usual = Counter(digests).most_common(1)[0]
    if n_complete > 2 and n_usual == 1:
        raise ValueError(
            f"plan: the frozen frames of all {n_complete} complete blocks differ from each other; "
            f"the plan ({plan.running_frames} running + {plan.frozen_frames} frozen frames) does "
            "not fit this stimulus: check its numbers of frames"
        )
    reference = digests.index(usual)
    wrong = [block for block in range(n_complete) if digests[block] != usual]
    rest = _frozen(stimulus, plan, n_complete)
    if not np.array_equal(rest, _frozen(stimulus, plan, reference)[: len(rest)]):
        wrong.append(n_complete)
    found: list[tuple[int, int]] = []
    for block in wrong:
        start, stop = block * plan.block_frames, min(n, (block + 1) * plan.block_frames)
        if found and found[-1][1] == start:
            start = found.pop()[0]
        found.append((start, stop))
    return reference, found


def _frozen(stimulus: xr.DataArray, plan: FrozenNoise, block: int) -> np.ndarray:
    """Frozen frames of a block, time first."""
    frames = stimulus.isel(time=plan.frozen(block)).transpose("time", ...)
    return np.ascontiguousarray(frames.values)
