"""What is computed block by block over samples, into memory or into a store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
import xarray as xr
from torch import Tensor

from retina_codec._common.progress import progress_bar
from retina_codec.models.model import Model, Samples


class BlockRun(ABC):
    """A computation that was checked and planned, whose samples do not depend on each other.

    The network must be frozen (`capture.undisturbed`) while a run is made and used.

    Attributes
    ----------
    what : str
        What is computed, in the plural, as messages and progress bars call it.
    files : tuple of str
        Files by which a finished store of such results is known.
    opened_by : str
        The function that opens such a store.
    smaller : str
        How a result that does not fit is made smaller, in a message.
    batch_size, together, passes_of : int
        How a run is cut: samples in a pass, points of a path in one, units in one.
    notes : dict
        What was found when the run was made.
    unresolved : int
        Samples that are not as exact as was asked for.
    """

    what: ClassVar[str]
    files: ClassVar[tuple[str, ...]]
    opened_by: ClassVar[str]
    smaller: ClassVar[str]

    model: Model
    samples: Samples
    batch_size: int
    together: int = 1
    passes_of: int = 1
    notes: dict[str, Any]
    scale: Tensor | None = None
    unresolved: int = 0

    def blocks(self, size: int) -> list[slice]:
        """Cut the samples into blocks of `size`, each computed without the others."""
        n = len(self.samples)
        return [slice(start, min(start + size, n)) for start in range(0, n, size)]

    @abstractmethod
    def batches(self, block: slice) -> Iterator[tuple[slice, dict[str, dict[str, np.ndarray]]]]:
        """Compute a block: for each batch its samples, and variables by group (``""`` the root)."""

    @abstractmethod
    def template(
        self, zeros: Callable[[tuple[int, ...], Any], Any] = np.zeros
    ) -> dict[str, xr.Dataset]:
        """Give the groups (``""`` the root) of the result, all values still to be filled in.

        ``zeros(shape, dtype)`` makes the arrays: by default in memory, which they take as they are
        written to.
        """

    def say_what_is_unresolved(self) -> None:  # noqa: B027 - most runs have nothing to say
        """Warn of samples that are not as exact as was asked for."""


def _without_memory(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    return np.broadcast_to(np.zeros((), dtype), shape)


def in_memory(run: BlockRun, memory_limit: float, progress: bool) -> xr.DataTree:
    """Compute a run, all of it held in memory.

    Raises
    ------
    ValueError
        If the result is larger than the limit.
    """
    # Looked at without memory first: a result may be larger than can be allocated.
    needed = sum(group.nbytes for group in run.template(_without_memory).values())
    if needed > memory_limit:
        raise ValueError(
            f"the result would take {needed / 1e9:.3g} GB, above memory_limit={memory_limit:g}: "
            f"use {run.smaller}, a shorter stretch of data, or store='run.zarr' to stream it to "
            "disk"
        )
    groups = run.template()
    n = len(run.samples)
    for index, variables in progress_bar(
        run.batches(slice(0, n)), run.what, shown=progress, total=-(-n // run.batch_size)
    ):
        for path, arrays in variables.items():
            for name, values in arrays.items():
                groups[path][name].values[index] = values
    run.say_what_is_unresolved()
    return xr.DataTree.from_dict({f"/{path}": group for path, group in groups.items()})
