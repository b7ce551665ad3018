"""The runs of one or several nodes of a recording, laid end to end in order of time."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from retina_codec._common.time import bin_width_of, runs_of
from retina_codec.recordings.alignment.drive import pooled_movie, standardised
from retina_codec.recordings.alignment.findings import Finding, span_text

# Cells beyond this number would not add much; those with the most spikes are taken.
MOST_CELLS = 64


@dataclass(frozen=True)
class Sequence:
    """Frames in order of time, with the node and the frame of the node that each one is."""

    movie: np.ndarray  # (frame, place), standardised
    counts: np.ndarray  # (frame, cell)
    time: np.ndarray  # (frame,), s
    node: np.ndarray  # (frame,), str
    frame: np.ndarray  # (frame,)
    runs: list[slice]
    cells: np.ndarray
    bin_width: float

    @classmethod
    def of(cls, nodes: Mapping[str, xr.Dataset]) -> Sequence:
        """Lay the runs of `nodes` end to end; they must share cells, places and bin width."""
        pieces = []
        for name, data in nodes.items():
            pooled = pooled_movie(data["stimulus"], f"{name}['stimulus']")
            counts = np.asarray(data["spike_count"].values, dtype=np.float32)
            time = data["time"].values
            for run in runs_of(data):
                frames = np.arange(run.start, run.stop)
                names = np.full(len(frames), name)
                pieces.append((time[run], pooled[run], counts[run], names, frames))
        pieces.sort(key=lambda piece: float(piece[0][0]))
        time, movie, counts, names, frames = (
            np.concatenate(column) for column in zip(*pieces, strict=True)
        )
        stops = np.cumsum([len(piece[0]) for piece in pieces])
        cells = next(iter(nodes.values()))["cell"].values
        if len(cells) > MOST_CELLS:
            kept = np.sort(np.argsort(-counts.sum(axis=0), kind="stable")[:MOST_CELLS])
            counts, cells = counts[:, kept], cells[kept]
        return cls(
            movie=standardised(movie),
            counts=counts,
            time=time,
            node=names,
            frame=frames,
            runs=[slice(int(b - len(p[0])), int(b)) for p, b in zip(pieces, stops, strict=True)],
            cells=cells,
            bin_width=bin_width_of(next(iter(nodes.values()))),
        )

    def segments(self, length: int) -> list[slice]:
        """Cut into pieces of about `length` frames; short runs are put together."""
        found: list[slice] = []
        open_start: int | None = None
        for i, run in enumerate(self.runs):
            start = run.start if open_start is None else open_start
            last = i + 1 == len(self.runs)
            joined = not last and self.node[self.runs[i + 1].start] == self.node[run.start]
            if run.stop - start < length and joined:
                open_start = start
                continue
            n_pieces = max(1, round((run.stop - start) / length))
            edges = start + np.arange(n_pieces + 1) * (run.stop - start) // n_pieces
            found += [slice(int(a), int(b)) for a, b in itertools.pairwise(edges)]
            open_start = None
        return found

    def finding(self, kind: str, start: int, stop: int, text: str, **columns: object) -> Finding:
        """Make a finding about the frames [start, stop) ; `text` follows their numbers."""
        first, last = int(self.frame[start]), int(self.frame[stop - 1])
        name = str(self.node[start])
        begin, end = float(self.time[start]), float(self.time[stop - 1] + self.bin_width)
        where = span_text(first, last, begin, end)
        if self.node[stop - 1] != name:
            where = f"from frame {first} of {name} to frame {last} of {self.node[stop - 1]}"
        return Finding(kind, name, first, last, begin, end, f"{where}: {text}", **columns)  # type: ignore[arg-type]


def analysed_together(nodes: Mapping[str, xr.Dataset]) -> list[dict[str, xr.Dataset]]:
    """Group nodes that share cells, shape of the frames and bin width."""
    groups: dict[tuple[object, ...], dict[str, xr.Dataset]] = {}
    for name, data in nodes.items():
        shape = tuple(data["stimulus"].sizes[d] for d in data["stimulus"].dims if d != "time")
        key = (shape, tuple(data["cell"].values), round(1e6 * bin_width_of(data)))
        groups.setdefault(key, {})[name] = data
    return list(groups.values())
