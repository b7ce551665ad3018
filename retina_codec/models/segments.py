"""What a training step sees: mini-batches of contiguous stretches, and their loss."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.utils.data import IterableDataset

from retina_codec._common.time import runs_of
from retina_codec.models.model import RetinaModel

# Keeps the logarithm of the Poisson loss finite for a rate of zero.
SMALLEST_COUNT = 1e-6


def poisson_loss(rate: Tensor, counts: Tensor, bin_width: float) -> Tensor:
    """Mean negative log-likelihood of counts at ``rate * bin_width``, up to a constant."""
    expected = rate * bin_width
    return (expected - counts * torch.log(expected + SMALLEST_COUNT)).mean()


class Segments(IterableDataset[tuple[Tensor, Tensor]]):
    """Mini-batches of contiguous stretches in random order, with a new cut every epoch.

    Stretches share the transform of their frames, and cutting at a random offset keeps their
    edges from always falling on the same frames.
    """

    def __init__(
        self, model: RetinaModel, node: xr.Dataset, n_segments: int, length: int, seed: int
    ) -> None:
        movie = model.samples(node["stimulus"])
        self.frames = movie.frames(0, node.sizes["time"])[0]
        counts = node["spike_count"].transpose("time", "cell").values.astype(np.float32)
        self.counts = torch.from_numpy(counts).to(model.device, model.dtype)
        self.past = model.history - 1
        self.runs = [run for run in runs_of(node) if run.stop - run.start >= model.history]
        longest = max(run.stop - run.start for run in self.runs) - self.past
        self.length = min(length, longest)
        self.n_segments = n_segments
        self.seed = seed
        self.epoch = 0

    def starts(self) -> np.ndarray:
        """First sample of each stretch of this epoch, in random order."""
        rng = np.random.default_rng([self.seed, self.epoch])
        starts = []
        for run in self.runs:
            spare = run.stop - run.start - self.past - self.length
            if spare < 0:
                continue
            offset = int(rng.integers(0, min(self.length, spare + 1)))
            starts.append(
                np.arange(run.start + self.past + offset, run.stop - self.length + 1, self.length)
            )
        return rng.permutation(np.concatenate(starts))

    def __len__(self) -> int:
        """Return the number of batches in an epoch at most."""
        n = sum((run.stop - run.start - self.past) // self.length for run in self.runs)
        return max(1, -(-n // self.n_segments))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        starts = self.starts()
        for i in range(0, len(starts), self.n_segments):
            chosen = starts[i : i + self.n_segments]
            frames = [self.frames[t - self.past : t + self.length] for t in chosen]
            counts = [self.counts[t : t + self.length] for t in chosen]
            yield torch.stack(frames), torch.cat(counts)
