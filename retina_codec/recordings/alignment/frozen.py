"""Blocks of a file that do not have the frozen frames of their plan."""

from __future__ import annotations

import numpy as np
import xarray as xr

from retina_codec.recordings.plan import FrozenNoise


def wrong_blocks(stimulus: xr.DataArray, plan: FrozenNoise) -> list[tuple[int, int]]:
    """Frames [first, stop) of the blocks whose frozen frames are not those of block 0.

    Also an incomplete last block is compared, by the frozen frames that it has. Blocks in a row
    are one entry.

    Raises
    ------
    ValueError
        If the stimulus is shorter than one block, or no other block agrees with block 0.
    """
    n = stimulus.sizes["time"]
    if n < plan.block_frames:
        raise ValueError(
            f"plan has blocks of {plan.block_frames} frames, but the stimulus has {n}; check the "
            "plan"
        )
    first = stimulus.isel(time=plan.frozen(0)).values
    found: list[tuple[int, int]] = []
    n_compared = 0
    for block in range(1, -(-n // plan.block_frames)):
        frozen = stimulus.isel(time=plan.frozen(block)).values
        n_compared += len(frozen) == plan.frozen_frames
        if np.array_equal(frozen, first[: len(frozen)]):
            continue
        start, stop = block * plan.block_frames, min(n, (block + 1) * plan.block_frames)
        if found and found[-1][1] == start:
            start = found.pop()[0]
        found.append((start, stop))
    wrong = sum(stop - start for start, stop in found) // plan.block_frames
    if n_compared > 1 and wrong >= n_compared:
        raise ValueError(
            f"plan: the frozen frames differ from those of block 0 in all {n_compared} other "
            f"blocks; the plan ({plan.running_frames} running + {plan.frozen_frames} frozen "
            "frames) does not fit this stimulus: check its numbers of frames"
        )
    return found
