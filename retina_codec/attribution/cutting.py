"""How a run is cut into blocks, batches and chunks: fixed when its store is made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import xarray as xr

from retina_codec.attribution.block_run import BlockRun

# Bytes of all variables over one block of samples, which is held while it is computed. Shorter
# blocks where there are few samples, for processes to share and so that little is lost.
BLOCK_BYTES = 32 * 2**20
LONGEST_BLOCK = 4096
FEWEST_BLOCKS = 32
LARGEST_CHUNK = 64 * 2**20


@dataclass(frozen=True)
class Cut:
    """How a run is cut up, which decides the last bits: fixed when its store is made."""

    batch_size: int
    steps_in_a_pass: int
    units_in_a_pass: int
    block_size: int
    target_sd: list[float] | None
    collected_at: dict[str, str] | None

    @classmethod
    def of(cls, run: BlockRun, groups: Mapping[str, xr.Dataset]) -> Cut:
        """Cut a run anew."""
        per_sample = sum(
            group.data_vars[name].nbytes for group in groups.values() for name in group.data_vars
        ) / len(run.samples)
        return cls(
            run.batch_size,
            run.together,
            run.passes_of,
            block_size(len(run.samples), per_sample, run.batch_size),
            run.notes.get("target_sd"),
            run.notes.get("collected_at"),
        )

    def apply(self, run: BlockRun) -> None:
        """Cut a run as another process did, or the one that was killed.

        Raises
        ------
        ValueError
            If its layers are collected elsewhere.
        """
        here = run.notes.get("collected_at")
        if self.collected_at != here:
            raise ValueError(
                f"store: collect='best' chose {self.collected_at} when the run was begun, and "
                f"{here} now; give the memory_budget of the first run"
            )
        run.batch_size = self.batch_size
        run.together = self.steps_in_a_pass
        run.passes_of = self.units_in_a_pass
        if self.target_sd is not None:
            scale = torch.tensor(self.target_sd, dtype=torch.float64)
            run.scale = scale.to(run.model.device, torch.float32)


def block_size(n_samples: int, bytes_per_sample: float, batch_size: int) -> int:
    """Choose the samples of a block: whole batches."""
    samples = min(BLOCK_BYTES / bytes_per_sample, LONGEST_BLOCK, n_samples / FEWEST_BLOCKS)
    return batch_size * max(1, int(samples // batch_size))


def chunks_of(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Cut a block of a variable into chunks of at most `LARGEST_CHUNK` bytes, from the first dim.

    Those along the samples divide the block.
    """
    chunks = list(shape)
    for axis, size in enumerate(shape):
        fitting = LARGEST_CHUNK // max(1, itemsize * math.prod(shape[axis + 1 :]))
        if size <= fitting:
            break
        chunks[axis] = max(1, fitting)
        while axis == 0 and size % chunks[0]:
            chunks[0] -= 1
        if chunks[axis] > 1:
            break
    return tuple(chunks)
