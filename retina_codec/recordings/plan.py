"""The plan of a stimulus with repeats, and which of its frames can be used."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import xarray as xr

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


@dataclass(frozen=True)
class RepeatedFrames:
    """Plan of a stimulus in which one stretch of frames recurs: where each repeat begins.

    Frames outside the repeats are running frames, shown once.

    Parameters
    ----------
    starts : tuple of int
        First frame of each repeat, ascending, at least `n_frames` apart.
    n_frames : int
        Frames of one repeat, at least 1.
    left_out : tuple of (int, int), optional
        Stretches (first, stop) that are used for nothing, such as a repeat that was broken off:
        as running frames they would put what is tested into what is trained.

    Raises
    ------
    TypeError
        If a number of frames is not whole.
    ValueError
        If there are fewer than two repeats, one is negative, or they overlap.

    Examples
    --------
    >>> from retina_codec.recordings import RepeatedFrames
    >>> RepeatedFrames(starts=(0, 900, 1800), n_frames=500).stop
    2300
    """

    starts: tuple[int, ...]
    n_frames: int
    left_out: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        require_count(self.n_frames, 1, "n_frames")
        if len(self.starts) < 2:
            raise ValueError(f"starts={self.starts!r}; expected the first frames of two repeats")
        for start in self.starts:
            require_count(start, 0, "starts")
        apart = np.diff(self.starts)
        if apart.min() < self.n_frames:
            i = int(apart.argmin())
            raise ValueError(
                f"starts: repeats {i} and {i + 1} begin {apart[i]} frames apart but have "
                f"n_frames={self.n_frames}; repeats must ascend and not overlap: correct the "
                "starts or the number of frames"
            )

    @property
    def stop(self) -> int:
        """The frame after the last repeat."""
        return self.starts[-1] + self.n_frames


@dataclass(frozen=True)
class Layout:
    """Which frames are used for what: numbered runs shown once, and numbered repeats.

    `notes` says, in one sentence each, which frames are not used and why.
    """

    runs: list[tuple[int, slice]]
    repeats: list[tuple[int, slice]]
    notes: list[str]

    @property
    def frames(self) -> np.ndarray:
        """All frames that are used, ascending."""
        parts = [np.arange(part.start, part.stop) for _, part in [*self.runs, *self.repeats]]
        return np.sort(np.concatenate(parts))


def layout_of(movie: xr.DataArray, n_marks: int, plan: FrozenNoise | RepeatedFrames) -> Layout:
    """Lay out the frames of `movie` (time first), read stretch by stretch, by its plan."""
    if isinstance(plan, FrozenNoise):
        blocks, notes = _usable_blocks(movie, n_marks, plan)
        return Layout(
            [(block, plan.running(block)) for block in blocks],
            [(block, plan.frozen(block)) for block in blocks],
            notes,
        )
    n_frames = movie.sizes["time"]
    if plan.stop > n_frames or plan.stop > n_marks:
        raise ValueError(
            f"plan: the last repeat ends at frame {plan.stop}, but the stimulus has {n_frames} "
            f"frames and frame_times {n_marks} marks; correct the plan"
        )
    require_one_mark_a_frame(n_frames, n_marks)
    repeats = [slice(start, start + plan.n_frames) for start in plan.starts]
    first = _frames(movie, repeats[0])
    for number, part in enumerate(repeats):
        if not np.array_equal(_frames(movie, part), first):
            raise ValueError(
                f"plan: repeat {number} ({_span(part.start, part.stop)}) differs from repeat 0 in "
                "the stimulus; leave it out of the starts, or correct n_frames"
            )
    taken = np.zeros(n_frames + 2, dtype=bool)
    taken[[0, -1]] = True
    for part in [*repeats, *(slice(a, b) for a, b in plan.left_out)]:
        taken[part.start + 1 : part.stop + 1] = True
    changes = np.flatnonzero(np.diff(taken)).reshape(-1, 2)
    between = [slice(int(a), int(b)) for a, b in changes]
    notes = [
        f"{_span(a, b)} are not used: they show a part of the repeats" for a, b in plan.left_out
    ]
    return Layout(list(enumerate(between)), list(enumerate(repeats)), notes)


def require_one_mark_a_frame(n_frames: int, n_marks: int) -> None:
    """Raise ValueError unless there is a mark a frame, and at most one more, which ends it."""
    if n_marks - n_frames not in (0, 1):
        raise ValueError(
            f"stimulus has {n_frames} frames but frame_times has {n_marks} marks; expected one "
            "mark a frame (and at most one more, which ends the last frame): correct the longer "
            "one, say with frames=(first, stop) which belong to the first marks, or give the plan= "
            "of its repeats"
        )


def _frames(movie: xr.DataArray, part: slice) -> np.ndarray:
    return movie.isel(time=part).values


def digest_of(values: np.ndarray) -> bytes:
    """Sixteen bytes that are the same for equal frames only (-0.0 is 0.0)."""
    return blake2b(np.ascontiguousarray(values + 0).tobytes(), digest_size=16).digest()


def _span(start: int, stop: int) -> str:
    return f"frames {start}..{stop - 1}"


def _usable_blocks(
    movie: xr.DataArray, n_marks: int, plan: FrozenNoise
) -> tuple[list[int], list[str]]:
    """Numbers of the complete blocks that share their frozen frames, and what was left.

    The second item says, in one sentence each, which frames are not used and why.
    """
    n_stimulus = movie.sizes["time"]
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
    # What most blocks show is the frozen part: a damaged block 0 must not decide.
    digests = [digest_of(_frames(movie, plan.frozen(block))) for block in range(n_complete)]
    usual = Counter(digests).most_common(1)[0][0]
    reference = digests.index(usual)
    used = [block for block in range(n_complete) if digests[block] == usual]
    notes = [
        f"{_span(block * plan.block_frames, (block + 1) * plan.block_frames)} (block {block}) are "
        f"not used: the frozen frames of the stimulus are not those of block {reference}"
        for block in range(n_complete)
        if digests[block] != usual
    ]
    if n_complete > 1 and len(used) == 1:
        raise ValueError(
            f"stimulus: the frozen frames of the {n_complete} complete blocks all differ; the plan "
            f"({plan.running_frames} running + {plan.frozen_frames} frozen frames) does not fit "
            "this stimulus: check its numbers of frames"
        )
    end = n_complete * plan.block_frames
    # One mark more than frames only ends the last frame.
    if n_stimulus > end or n_marks > end + 1:
        notes.append(
            f"{_span(end, max(n_stimulus, n_marks))} are not used: they are no complete block of "
            f"the plan ({lengths})"
        )
    return used, notes
