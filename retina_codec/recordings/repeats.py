"""Repeats of a stimulus, found in its frames or told by epochs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import xarray as xr

from retina_codec._common.checks import nearest_names, require_count, require_dims
from retina_codec.recordings.nodes import STIMULUS_DIMS
from retina_codec.recordings.plan import RepeatedFrames, digest_of

READ_NUMBERS = 2**24  # pixels read at a time: 64 MB


def find_repeats(
    stimulus: xr.DataArray, *, min_frames: int = 50, min_repeats: int = 2
) -> RepeatedFrames | None:
    """Find the stretch of frames that recurs, from the stimulus itself.

    Frames are compared exactly. Of all stretches of at least `min_frames` frames that occur
    several times, the one with the most repeated frames (repeats x length) is taken and made as
    long as all its occurrences agree; a stretch without any change (grey) does not count. Where a
    stimulus is nothing but repeats, they follow each other. What elsewhere shows a part of the
    repeat (one that was broken off) is `left_out` of the running frames.

    Parameters
    ----------
    stimulus : xarray.DataArray
        Dims (time, [color,] y, x); read block by block, so it may be larger than memory.
    min_frames : int
        Shortest stretch, in frames. Words of a coarse binary stimulus recur by chance: take more
        than ``2 log2(number of frames)`` of them.
    min_repeats : int
        Fewest occurrences, at least 2.

    Returns
    -------
    RepeatedFrames or None
        Where each repeat begins, and its length; None if nothing recurs.

    Raises
    ------
    TypeError
        If `stimulus` is no DataArray, or a number is not whole.
    ValueError
        If the dims are wrong or a number is too small.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from retina_codec.recordings import find_repeats
    >>> frames = np.random.default_rng(0).normal(size=1000)
    >>> frames[700:800] = frames[100:200]
    >>> movie = xr.DataArray(frames[:, None, None], dims=("time", "y", "x"))
    >>> find_repeats(movie)
    RepeatedFrames(starts=(100, 700), n_frames=100, left_out=())
    """
    movie = require_dims(stimulus, STIMULUS_DIMS, "stimulus", optional=("color",))
    min_frames = require_count(min_frames, 2, "min_frames")
    min_repeats = require_count(min_repeats, 2, "min_repeats")
    frames = _frame_numbers(movie)
    if len(frames) < 2 * min_frames:
        return None
    words = _words(frames, min_frames)
    changes = np.cumsum(np.r_[0, np.diff(frames) != 0])
    still = changes[min_frames - 1 :] == changes[: len(words)]
    order, starts = _groups(words)
    best: RepeatedFrames | None = None
    sizes = np.diff(np.r_[starts, len(order)])
    seen = np.zeros(len(words), dtype=bool)
    for group in np.argsort(-sizes, kind="stable"):
        if sizes[group] < min_repeats:
            break
        places = np.sort(order[starts[group] : starts[group] + sizes[group]])
        # Words inside a stretch that was already followed to its ends are that stretch again.
        if seen[places[0]] or still[places[0]]:
            continue
        found, covered = _longest(frames, places, min_frames)
        for start in covered:
            seen[start : start + len(covered[start])] = True
        if found is None or len(found.starts) < min_repeats:
            continue
        if best is None or _size(found) > _size(best):
            best = found
    return None if best is None else _without_parts(best, frames, words, still, min_frames)


def _without_parts(
    found: RepeatedFrames,
    frames: np.ndarray,
    words: np.ndarray,
    still: np.ndarray,
    min_frames: int,
) -> RepeatedFrames:
    """Leave out what elsewhere shows a part of the repeat: it is neither a run nor a repeat."""
    repeated = np.zeros(len(frames), dtype=bool)
    for start in found.starts:
        repeated[start : start + found.n_frames] = True
    inside = words[found.starts[0] : found.starts[0] + found.n_frames - min_frames + 1]
    part = np.zeros(len(frames), dtype=bool)
    for place in np.flatnonzero(np.isin(words, inside) & ~still):
        part[place : place + min_frames] = True
    # A repeat that follows the last one without a pause, and was soon broken off.
    end = found.starts[-1] + found.n_frames
    if np.diff(found.starts).min() == found.n_frames:
        begun = frames[found.starts[0] :][: len(frames) - end] == frames[end:]
        n = len(begun) if begun.all() else int(np.argmin(begun))
        part[end : end + n] = True
    part &= ~repeated
    edges = np.flatnonzero(np.diff(np.r_[False, part, False])).reshape(-1, 2)
    return replace(found, left_out=tuple((int(a), int(b)) for a, b in edges))


def repeats_in_epochs(epochs: xr.Dataset | None, label: str, onsets: np.ndarray) -> RepeatedFrames:
    """Frames of the epochs with this label: each is one repeat, and they must be equally long."""
    if epochs is None or not epochs.sizes.get("epoch"):
        raise ValueError(
            f"plan={label!r} names epochs, but the recording has none; give FrozenNoise(...), "
            "RepeatedFrames(...) or 'find'"
        )
    labels = epochs["label"].values.astype(str)
    chosen = labels == label
    if not chosen.any():
        names = dict.fromkeys(labels.tolist())
        raise ValueError(f"plan={label!r} is no label of the epochs; {nearest_names(label, names)}")
    start = np.sort(epochs["start"].values[chosen])
    stop = start + epochs["duration"].values[chosen][np.argsort(epochs["start"].values[chosen])]
    if len(start) < 2:
        raise ValueError(
            f"plan={label!r} is the label of one epoch only; repeats need at least two: leave the "
            "plan out"
        )
    if not (stop > start).all():
        raise ValueError(
            f"plan={label!r}: the epoch at {start[stop <= start][0]:g} s has no duration; expected "
            "that of the repeat, in seconds"
        )
    # Marks and epochs are stamped by different hands: half an interval decides.
    half = 0.5 * float(np.median(np.diff(onsets)))
    first, last = np.searchsorted(onsets, start - half), np.searchsorted(onsets, stop - half)
    lengths = last - first
    if len(set(lengths.tolist())) > 1 or lengths[0] < 1:
        usual = int(np.median(lengths))
        odd = int(np.flatnonzero(lengths != usual)[0]) if (lengths != usual).any() else 0
        raise ValueError(
            f"plan={label!r}: repeats are of unequal length: epoch {odd}, at {start[odd]:g} s, "
            f"holds {lengths[odd]} frames, others {usual}; correct its duration, take frames= that "
            "hold it whole, or give "
            "RepeatedFrames(starts=..., n_frames=...) with the frames that all have"
        )
    return RepeatedFrames(tuple(int(a) for a in first), int(lengths[0]))


def _frame_numbers(movie: xr.DataArray) -> np.ndarray:
    """Give each frame a number, the same for equal frames only."""
    n_frames = movie.sizes["time"]
    pixels = max(1, int(np.prod([size for dim, size in movie.sizes.items() if dim != "time"])))
    step = max(1, READ_NUMBERS // pixels)
    known: dict[bytes, int] = {}
    numbers = np.empty(n_frames, dtype=np.int64)
    for start in range(0, n_frames, step):
        values = movie.isel(time=slice(start, start + step)).values
        for i, frame in enumerate(values):
            numbers[start + i] = known.setdefault(digest_of(frame), len(known))
    return numbers


def _words(numbers: np.ndarray, length: int) -> np.ndarray:
    """Give each stretch of `length` frames a number, the same for equal stretches only."""
    # Doubling: a word of 2 n frames is a pair of words of n frames.
    words, size = numbers, 1
    while size < length:
        shift = min(size, length - size)
        pairs = np.stack([words[: len(words) - shift], words[shift:]], axis=1)
        words = np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1)
        size += shift
    return words


def _groups(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Order that puts equal words together, and where each group starts in it."""
    order = np.argsort(words, kind="stable")
    return order, np.flatnonzero(np.r_[True, np.diff(words[order]) != 0])


def _longest(
    frames: np.ndarray, places: np.ndarray, length: int
) -> tuple[RepeatedFrames | None, dict[int, range]]:
    """Follow equal stretches at `places` to both sides as long as all agree."""
    apart = int(np.diff(places).min())
    before = _agreement(frames, places, -1, -1, apart)
    after = length + _agreement(frames, places, length, 1, apart)
    covered = {int(p - before): range(int(before + after - length + 1)) for p in places}
    n_frames = min(before + after, apart)
    starts = tuple(int(p - before) for p in places)
    if n_frames < length:
        return None, covered
    return RepeatedFrames(starts, int(n_frames)), covered


def _agreement(frames: np.ndarray, places: np.ndarray, first: int, step: int, most: int) -> int:
    """Frames beyond `places` + `first`, in direction `step`, in which all places agree."""
    room = int(places[0] + first + 1 if step < 0 else len(frames) - (places[-1] + first))
    room = min(room, most)
    if room <= 0:
        return 0
    reach = np.arange(room) * step + first
    differs = np.zeros(room, dtype=bool)
    reference = frames[places[0] + reach]
    for place in places[1:]:
        differs |= frames[place + reach] != reference
    return int(np.argmax(differs)) if differs.any() else room


def _size(found: RepeatedFrames) -> int:
    return len(found.starts) * found.n_frames
