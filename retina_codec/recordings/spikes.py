"""Spike times of many cells as flat arrays, checked once, and counted in bins.

Thousands of cells and tens of millions of spikes stay two arrays: all times, cell after cell, and
the place where each cell begins. neo's objects are met at the boundary only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from retina_codec.recordings.nodes import cell_coordinate, chosen_cells


@dataclass(frozen=True, eq=False)
class SpikeTimes:
    """Spike times in seconds, cell after cell.

    Parameters
    ----------
    times : numpy.ndarray
        Seconds, float64; those of one cell stand together and do not descend.
    offsets : numpy.ndarray
        Cell i has ``times[offsets[i]:offsets[i + 1]]``; one entry more than there are cells.
    ids : list of str
        Ids of the cells.
    """

    times: np.ndarray
    offsets: np.ndarray
    ids: list[str]

    @classmethod
    def from_trains(cls, trains: Mapping[str, np.ndarray]) -> SpikeTimes:
        """Join the trains (seconds) of several cells; ValueError says which spike is bad."""
        sizes = [len(times) for times in trains.values()]
        times = np.concatenate([*trains.values(), np.empty(0)]).astype(np.float64)
        return cls.checked(times, np.r_[0, np.cumsum(sizes)], list(trains))

    @classmethod
    def checked(cls, times: np.ndarray, offsets: np.ndarray, ids: Sequence[object]) -> SpikeTimes:
        """Make them from flat arrays; ValueError says which cell or spike is bad."""
        times = np.asarray(times, dtype=np.float64)
        offsets = np.asarray(offsets, dtype=np.int64)
        names = [str(name) for name in ids]
        if not names:
            raise ValueError("spike times: there are no cells; expected at least one spike train")
        seen: set[str] = set()
        for name in names:
            if name in seen:
                raise ValueError(
                    f"spike times: two spike trains have the cell id {name!r}; give each its own"
                )
            seen.add(name)
        if len(offsets) != len(names) + 1 or offsets[0] != 0 or offsets[-1] != len(times):
            raise ValueError(
                f"spike times: {len(times)} times in {len(names)} cells, but the cells' index ends "
                f"at {offsets[-1] if len(offsets) else 'nothing'} and has {len(offsets) - 1} "
                "entries; the file is damaged or was cut off"
            )
        if (np.diff(offsets) < 0).any():
            raise ValueError("spike times: the index of the cells descends; the file is damaged")
        found = cls(times, offsets, names)
        bad = np.flatnonzero(~np.isfinite(times))
        if bad.size:
            cell, number = found._place(int(bad[0]))
            raise ValueError(
                f"spike times: spike {number} of cell {cell!r} is {times[bad[0]]}; remove NaN and "
                "infinite times"
            )
        back = np.flatnonzero(times[1:] < times[:-1]) + 1
        back = back[~np.isin(back, offsets)]
        if back.size:
            cell, number = found._place(int(back[0]))
            raise ValueError(
                f"spike times: spike {number} of cell {cell!r} ({times[back[0]]:g} s) comes after "
                f"one at {times[back[0] - 1]:g} s; times must ascend: sort them, or check that "
                "they are those of one cell"
            )
        return found

    @classmethod
    def from_dataset(cls, data: xr.Dataset | xr.DataTree) -> SpikeTimes:
        """Spike times of the node ``spikes`` of a recording."""
        if isinstance(data, xr.DataTree):
            data = data.to_dataset()
        sizes = np.asarray(data["n_spikes"].values, dtype=np.int64)
        return cls(
            np.asarray(data["spike_time"].values, dtype=np.float64),
            np.r_[0, np.cumsum(sizes)],
            [str(cell) for cell in data["cell"].values],
        )

    def to_dataset(self) -> xr.Dataset:
        """Node ``spikes`` of a recording: spike_time(spike), n_spikes(cell)."""
        return xr.Dataset(
            {
                "spike_time": (
                    "spike",
                    self.times,
                    {"units": "s", "long_name": "spike times, cell after cell"},
                ),
                "n_spikes": (
                    "cell",
                    np.diff(self.offsets),
                    {"units": "1", "long_name": "spikes of the cell in spike_time"},
                ),
            },
            coords={"cell": cell_coordinate(self.ids)},
        )

    def __len__(self) -> int:
        return len(self.ids)

    def of(self, number: int) -> np.ndarray:
        """Give the times of the cell with this number (a view)."""
        return self.times[self.offsets[number] : self.offsets[number + 1]]

    def select(self, cells: Iterable[object] | None) -> SpikeTimes:
        """Those of `cells`, in that order; all for None."""
        wanted = chosen_cells(self.ids, cells)
        if wanted == self.ids:
            return self
        numbers = {name: i for i, name in enumerate(self.ids)}
        parts = [self.of(numbers[name]) for name in wanted]
        return SpikeTimes(
            np.concatenate(parts), np.r_[0, np.cumsum([len(part) for part in parts])], wanted
        )

    def count(self, edges: np.ndarray) -> np.ndarray:
        """Spikes (bin, cell) in the half-open bins ``[edges[i], edges[i + 1])``, int32."""
        n_bins, n_cells = len(edges) - 1, len(self)
        counts = np.zeros(n_bins * n_cells, dtype=np.int32)
        for number in range(n_cells):
            times = self.of(number)
            inside = times[np.searchsorted(times, edges[0]) : np.searchsorted(times, edges[-1])]
            # Each spike looks for its bin: bins are many more than the spikes of a cell.
            bins = np.searchsorted(edges, inside, side="right") - 1
            fired, spikes = np.unique(bins, return_counts=True)
            counts[fired * n_cells + number] = spikes
        return counts.reshape(n_bins, n_cells)

    def _place(self, index: int) -> tuple[str, int]:
        """Id of the cell of the spike at `index`, and the spike's number within it."""
        cell = int(np.searchsorted(self.offsets, index, side="right")) - 1
        return self.ids[cell], index - int(self.offsets[cell])
