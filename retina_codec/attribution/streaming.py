"""Results streamed into a store, by one process or several, and gone on with when killed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import numpy as np
import torch
import xarray as xr

from retina_codec._common.checks import require_count
from retina_codec._common.progress import progress_counter
from retina_codec.attribution.block_run import BlockRun
from retina_codec.attribution.cutting import Cut
from retina_codec.attribution.store import Store, lazy_template


def process_of(given: tuple[int, int] | None) -> tuple[int, int]:
    """Say which process of how many this is: as told, as torch.distributed or a launcher has it.

    Raises
    ------
    ValueError, TypeError
        If it is no (rank, number of processes).
    """
    what = "process"
    distributed = torch.distributed
    if given is None and distributed.is_available() and distributed.is_initialized():
        given = distributed.get_rank(), distributed.get_world_size()
    if given is None and {"RANK", "WORLD_SIZE"} <= os.environ.keys():
        what = "process, from the environment's RANK and WORLD_SIZE"
        try:
            given = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        except ValueError:
            given = os.environ["RANK"], os.environ["WORLD_SIZE"]  # type: ignore[assignment]
    if given is None:
        return 0, 1
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise ValueError(f"{what}={given!r}; expected (rank, number of processes)")
    rank, n = (
        require_count(value, least, what) for value, least in zip(given, (0, 1), strict=True)
    )
    if rank >= n:
        raise ValueError(f"{what}={given!r}; ranks of {n} processes are 0 to {n - 1}")
    return rank, n


def stream(
    store: Store, make_run: Callable[[], BlockRun], process: tuple[int, int], progress: bool
) -> None:
    """Compute what is missing of a store; return when all of it is there.

    Raises
    ------
    ValueError
        If there is something else.
    OSError
        If the disk is full.
    TimeoutError
        If another process does not do its part.
    """
    rank, n_processes = process
    if store.is_finished():
        if rank == 0:
            store.tidy()
        return
    begun = store.is_begun()
    run = make_run()
    groups = lazy_template(run)
    if rank == 0 and not begun:
        store.create(Cut.of(run, groups), groups)
    store.wait(lambda: store.is_begun() or store.is_finished(), "process 0 has not begun it")
    cut = store.cut()
    if cut is None:  # finished in the meantime
        return
    cut.apply(run)
    blocks = run.blocks(cut.block_size)
    if rank == 0 and begun:
        store.require_space(groups, 1 - store.n_done() / len(blocks))
    own = [i for i in range(rank, len(blocks), n_processes) if not store.is_done(i)]
    n_batches = sum(-(-(blocks[i].stop - blocks[i].start) // cut.batch_size) for i in own)
    with progress_counter(n_batches, run.what, shown=progress) as bar:

        def step() -> None:
            bar.update()
            store.show_alive()

        for i in own:
            if not (store.is_finished() or store.is_done(i)):
                before = run.unresolved
                values = _block(run, groups, blocks[i], step)
                region = {run.model.sample_dim: blocks[i]}
                store.write(i, values, region, run.unresolved - before)
    if rank != 0:
        store.wait(store.is_finished, "other processes have not done their blocks")
        return
    store.wait(
        lambda: store.n_done() == len(blocks) or store.is_finished(),
        "other processes have not done their blocks",
    )
    if store.is_finished():  # by another process that made the same run
        store.tidy()
        return
    run.unresolved = store.unresolved()
    store.finish()
    run.say_what_is_unresolved()


def _block(
    run: BlockRun, groups: Mapping[str, xr.Dataset], block: slice, step: Callable[[], None]
) -> dict[str, xr.Dataset]:
    """Compute a block of samples; call `step` after each batch."""
    held: dict[str, dict[str, np.ndarray]] = {}
    n = block.stop - block.start
    for index, variables in run.batches(block):
        inside = slice(index.start - block.start, index.stop - block.start)
        for path, arrays in variables.items():
            own = held.setdefault(path, {})
            for name, values in arrays.items():
                if name not in own:
                    own[name] = np.empty((n, *values.shape[1:]), groups[path][name].dtype)
                own[name][inside] = values
        step()
    return {
        path: xr.Dataset({name: (groups[path][name].dims, values) for name, values in own.items()})
        for path, own in held.items()
    }
