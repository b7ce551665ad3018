"""The plan of a stimulus with repeats, and which of its frames can be used."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retina_codec._common.checks import require_count


@dataclass(frozen=True)
class FrozenNoise:
    """Plan of a frozen-noise stimulus: blocks of running frames, then of frozen frames.

    Block ``b`` starts at frame ``b * block_frames``; its running frames are shown once, its frozen
    frames are the same in every block.

    Parameters
    ----------
    running_frames : int
        Running (unique) frames of each block, at least 1.
    frozen_frames : int
        Frozen (repeated) frames of each block, at least 1.

    Raises
    ------
    TypeError
        If a number of frames is not whole.
    ValueError
        If it is below 1.

    Examples
    --------
    >>> from retina_codec.recordings import FrozenNoise
    >>> FrozenNoise(running_frames=1800, frozen_frames=600).block_frames
    2400
    """

    running_frames: int
    frozen_frames: int

    def __post_init__(self) -> None:
        require_count(self.running_frames, 1, "running_frames")
        require_count(self.frozen_frames, 1, "frozen_frames")

    @property
    def block_frames(self) -> int:
        """Frames of one block."""
        return self.running_frames + self.frozen_frames

    def running(self, block: int) -> slice:
        """Frames of the running part of `block`."""
        start = block * self.block_frames
        return slice(start, start + self.running_frames)

    def frozen(self, block: int) -> slice:
        """Frames of the frozen part of `block`."""
        start = block * self.block_frames + self.running_frames
        return slice(start, start + self.frozen_frames)


def _span(start: int, stop: int) -> str:
    return f"frames {start}..{stop - 1}"


def usable_blocks(
    stimulus: np.ndarray, n_marks: int, plan: FrozenNoise
) -> tuple[list[int], list[str]]:
    """Numbers of the complete blocks whose frozen frames are those of block 0, and what was left.

    The second item says, in one sentence each, which frames are not used and why.
    """
    n_stimulus = len(stimulus)
    lengths = f"stimulus has {n_stimulus} frames and frame_times {n_marks} marks"
    if abs(n_stimulus - n_marks) > plan.block_frames:
        raise ValueError(
            f"{lengths}: they differ by more than one block of the plan ({plan.block_frames} "
            "frames), which an incomplete last block cannot explain; check that both belong to "
            "this recording, or cut the longer to what was shown"
        )
    n_complete = min(n_stimulus, n_marks) // plan.block_frames
    if n_complete == 0:
        raise ValueError(
            f"{lengths}: not one complete block of the plan ({plan.running_frames} running + "
            f"{plan.frozen_frames} frozen frames); check the plan"
        )
    first = stimulus[plan.frozen(0)]
    used, notes = [], []
    for block in range(n_complete):
        if np.array_equal(stimulus[plan.frozen(block)], first):
            used.append(block)
        else:
            start = block * plan.block_frames
            notes.append(
                f"{_span(start, start + plan.block_frames)} (block {block}) are not used: the "
                "frozen frames of the stimulus are not those of block 0"
            )
    if n_complete > 1 and len(used) == 1:
        raise ValueError(
            f"stimulus: the frozen frames differ from those of block 0 in all of the blocks 1.."
            f"{n_complete - 1}; the plan ({plan.running_frames} running + {plan.frozen_frames} "
            "frozen frames) does not fit this stimulus: check its numbers of frames"
        )
    end = n_complete * plan.block_frames
    # One mark more than frames only ends the last frame.
    if n_stimulus > end or n_marks > end + 1:
        notes.append(
            f"{_span(end, max(n_stimulus, n_marks))} are not used: they are no complete block of "
            f"the plan ({lengths})"
        )
    return used, notes
