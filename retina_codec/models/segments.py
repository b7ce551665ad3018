"""What a training step sees: mini-batches of contiguous stretches, and their loss."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.utils.data import IterableDataset

from retina_codec._common.checks import BLOCK_BYTES
from retina_codec._common.time import runs_of
from retina_codec.models.model import MovieSamples, RetinaModel

# Keeps the logarithm of the Poisson loss finite for a rate of zero.
SMALLEST_COUNT = 1e-6
# Bytes of the normalised movie that a training holds; a larger one is read region by region.
MOVIE_BUDGET = 2**30
# Frames that stand for a movie too large to be read for its fingerprint.
FRAMES_OF_FINGERPRINT = 16


def poisson_loss(rate: Tensor, counts: Tensor, bin_width: float) -> Tensor:
    """Mean negative log-likelihood of counts at ``rate * bin_width``, up to a constant."""
    expected = rate * bin_width
    return (expected - counts * torch.log(expected + SMALLEST_COUNT)).mean()


def squared_loss(rate: Tensor, counts: Tensor, bin_width: float) -> Tensor:
    """Mean squared difference between counts and ``rate * bin_width``."""
    return ((rate * bin_width - counts) ** 2).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "poisson": poisson_loss,
    "mse": squared_loss,
}


class Segments(IterableDataset[tuple[Tensor, Tensor]]):
    """Mini-batches of contiguous stretches in random order, with a new cut every epoch.

    Stretches share the transform of their frames, and cutting at a random offset keeps their
    edges from always falling on the same frames. A movie larger than `budget` bytes (1 GB, divided
    by the number of recordings that are `sharing` it) is read in regions of half of that, in
    random order, each once an epoch: stretches are then shuffled within a region. Several
    processes (`process` of `n_processes`) see disjoint parts of each mini-batch, of `n_segments`
    stretches each.
    """

    def __init__(
        self,
        model: RetinaModel,
        node: xr.Dataset,
        n_segments: int,
        length: int,
        seed: int,
        *,
        budget: int | None = None,
        sharing: int = 1,
    ) -> None:
        self._movie = model.samples(node["stimulus"])
        counts = node["spike_count"].transpose("time", "cell").values.astype(np.float32)
        self.counts = torch.from_numpy(counts).to(model.device, model.dtype)
        self.past = model.history - 1
        self.runs = [run for run in runs_of(node) if run.stop - run.start >= model.history]
        longest = max(run.stop - run.start for run in self.runs) - self.past
        self.length = min(length, longest)
        used = [run for run in self.runs if run.stop - run.start - self.past >= self.length]
        # Frames of blocks that are too short for a stretch.
        self.n_left_out = node.sizes["time"] - sum(run.stop - run.start for run in used)
        self.n_segments = n_segments
        self.seed = seed
        # Passes of the data in an epoch that has several are cut anew.
        self.epoch, self.cut = 0, 0
        self.process, self.n_processes = 0, 1
        n_frames = node.sizes["time"]
        size = math.prod(node["stimulus"].shape) // n_frames * model.dtype.itemsize
        budget = MOVIE_BUDGET // sharing if budget is None else budget
        self._whole: Tensor | None = None
        if n_frames * size <= budget:
            self._region = n_frames
            self._chunk = _frames_of_a_read(node["stimulus"], n_frames)
            self._whole = self._read(0, n_frames)
            del self._movie  # other processes need no second copy
        else:
            fitting = max(1, budget // 2 // size)
            self._chunk = _frames_of_a_read(node["stimulus"], fitting)
            # Whole reads, so that few frames are read for two regions.
            self._region = max(1, fitting // self._chunk) * self._chunk

    def _read(self, start: int, stop: int) -> Tensor:
        """Normalised frames [start, stop), read in parts so that raw values take little room."""
        frames: Tensor | None = None
        first = start
        while first < stop:
            # Up to a multiple of the part's size: parts that are chunks of the file.
            last = min((first // self._chunk + 1) * self._chunk, stop)
            part = self._movie.frames(first, last)[0]
            if frames is None:
                frames = part.new_empty((stop - start, *part.shape[1:]))
            frames[first - start : last - start] = part
            first = last
        if frames is None:
            raise ValueError("no frames to read")
        return frames

    @property
    def n_stretches(self) -> int:
        """Stretches of an epoch, at most."""
        return sum((run.stop - run.start - self.past) // self.length for run in self.runs)

    def starts(self) -> np.ndarray:
        """First sample of each stretch of this pass, in random order, region after region."""
        rng = np.random.default_rng([self.seed, self.epoch, self.cut])
        spares = [run.stop - run.start - self.past - self.length for run in self.runs]
        used = [(run, spare) for run, spare in zip(self.runs, spares, strict=True) if spare >= 0]
        offsets = [int(rng.integers(0, min(self.length, spare + 1))) for _, spare in used]
        starts = self._cut_at(offsets, [run for run, _ in used])
        if len(starts) < self.n_processes:
            # An offset may cost a run its last stretch: not where each process needs one.
            starts = self._cut_at([0] * len(used), [run for run, _ in used])
        regions = np.unique(starts // self._region)
        if len(regions) == 1:
            return rng.permutation(starts)
        return np.concatenate(
            [
                rng.permutation(starts[starts // self._region == region])
                for region in rng.permutation(regions)
            ]
        )

    def _cut_at(self, offsets: Sequence[int], runs: Sequence[slice]) -> np.ndarray:
        """First samples of the stretches of runs, each cut from its offset on."""
        return np.concatenate(
            [
                np.arange(run.start + self.past + offset, run.stop - self.length + 1, self.length)
                for run, offset in zip(runs, offsets, strict=True)
            ]
        )

    def __len__(self) -> int:
        """Return the number of batches in an epoch at most."""
        return max(1, -(-(self.n_stretches // self.n_processes) // self.n_segments))

    def n_batches(self) -> int:
        """Count the batches of this pass."""
        whole, rest = divmod(len(self.starts()), self.n_segments * self.n_processes)
        return whole + (rest >= self.n_processes)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        starts = self.starts()
        step = self.n_segments * self.n_processes
        region, offset, held = -1, 0, self._whole
        for i in range(0, len(starts), step):
            chosen = starts[i : i + step]
            # The same number for every process, which the mean of their gradients asks for.
            share = len(chosen) // self.n_processes
            if share == 0:
                return
            frames: list[Tensor] = []
            counts: list[Tensor] = []
            for t in chosen[self.process * share : (self.process + 1) * share]:
                if self._whole is None and t // self._region != region:
                    region = t // self._region
                    offset = max(0, region * self._region - self.past)
                    end = min((region + 1) * self._region + self.length, len(self.counts))
                    held = None  # before the next one is read: never two beside each other
                    frames = [part.clone() for part in frames]
                    held = self._read(offset, end)
                if held is not None:
                    frames.append(held[t - self.past - offset : t + self.length - offset])
                counts.append(self.counts[t : t + self.length])
            yield torch.stack(frames), torch.cat(counts)


def joint_batches(
    segments: Mapping[str, Segments], *, seed: int, epoch: int
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Give mini-batches of several recordings in random order, each of one recording.

    Every recording gives as many as the longest one has in a pass: shorter ones are passed over
    several times, with new cuts, so that the core and each readout learn at one pace.

    Parameters
    ----------
    segments : mapping of str to Segments
        Mini-batches by recording.
    seed, epoch : int
        The order is a function of both.

    Yields
    ------
    tuple
        Name, frames and counts of a mini-batch.
    """
    for of_one in segments.values():
        of_one.epoch, of_one.cut = epoch, 0
    n = max(of_one.n_batches() for of_one in segments.values())
    batches = {name: _repeated(of_one, n) for name, of_one in segments.items()}
    turns = np.repeat(np.arange(len(segments)), n)
    names = list(segments)
    for turn in np.random.default_rng([seed, epoch]).permutation(turns).tolist():
        yield names[turn], *next(batches[names[turn]])


def _repeated(segments: Segments, n: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Give `n` mini-batches of one recording: passes over it, each with a new cut."""
    given = 0
    for cut in itertools.count():
        segments.cut = cut
        for batch in segments:
            yield batch
            given += 1
            if given == n:
                return


class JointSegments(IterableDataset[tuple[str, Tensor, Tensor]]):
    """What `joint_batches` gives, epoch after epoch."""

    def __init__(self, segments: Mapping[str, Segments], seed: int) -> None:
        self.segments = dict(segments)
        self.seed = seed
        self.epoch = 0

    def set_process(self, process: int, n_processes: int) -> None:
        """Give one of several processes its part of each mini-batch."""
        for segments in self.segments.values():
            segments.process, segments.n_processes = process, n_processes

    def __len__(self) -> int:
        """Return the number of batches in an epoch at most."""
        return len(self.segments) * max(len(segments) for segments in self.segments.values())

    def __iter__(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        # A generator: the epoch is that of the first batch, not of the making of the iterator.
        yield from joint_batches(self.segments, seed=self.seed, epoch=self.epoch)


def _frames_of_a_read(movie: xr.DataArray, most: int) -> int:
    """Frames to read at a time: at most 64 MB of float32, and whole chunks of a lazy movie."""
    fitting = max(1, min(most, BLOCK_BYTES * movie.sizes["time"] // (4 * max(1, movie.size))))
    if movie.chunks is None:
        return fitting
    chunk = max(movie.chunks[movie.get_axis_num("time")])
    return max(1, fitting // chunk) * chunk


def data_fingerprint(samples: MovieSamples, node: xr.Dataset) -> str:
    """Sixteen hex digits that change with the counts, the blocks or the movie of a node.

    Of a movie that is lazy or larger than the budget a few frames stand for all.
    """
    movie = node["stimulus"]
    digest = hashlib.sha256(repr((movie.sizes, runs_of(node))).encode())
    digest.update(node["time"].values.tobytes())
    digest.update(
        np.ascontiguousarray(node["spike_count"].transpose("time", "cell").values).tobytes()
    )
    n_frames = node.sizes["time"]
    if movie.chunks is None and movie.nbytes <= MOVIE_BUDGET:
        step = _frames_of_a_read(movie, n_frames)
        parts = [(start, min(start + step, n_frames)) for start in range(0, n_frames, step)]
    else:
        chosen = np.linspace(0, n_frames - 1, min(n_frames, FRAMES_OF_FINGERPRINT)).astype(int)
        parts = [(int(frame), int(frame) + 1) for frame in chosen]
    for start, stop in parts:
        digest.update(samples.frames(start, stop).cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
