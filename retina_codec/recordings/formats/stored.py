"""A recording in a file of another format: all of its tree but the spike times, which are there.

NWB and NIX hold spike trains, frame marks and epochs in their own way, so that other programs find
them. The nodes (movies, counts, rates) stand beside as they are, with a digest of the spike times
that they were made of: opened again they are exactly what was saved, and where the spike trains
were changed in between, that is told instead of giving counts that are not theirs.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import xarray as xr

from retina_codec._common.checks import magnitude
from retina_codec._common.time import bin_width_of
from retina_codec.recordings.binning import require_matching_width
from retina_codec.recordings.formats.base import Options
from retina_codec.recordings.formats.tree import of_cells, require_recording
from retina_codec.recordings.spikes import SpikeTimes

# Written by save_recording; options that make a tree anew from the spike trains.
ANEW = ("stimulus", "frame_times", "plan", "frames")


def digest_of(spikes: SpikeTimes) -> str:
    """Digest of spike times, cells and their ids."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(np.ascontiguousarray(spikes.times).data)
    digest.update(np.ascontiguousarray(spikes.offsets).data)
    digest.update("\n".join(spikes.ids).encode())
    return digest.hexdigest()


def without_spike_times(recording: xr.DataTree) -> xr.DataTree:
    """All nodes as they are, but ``spikes`` without its times."""
    nodes = {node.path: node.to_dataset() for node in recording.subtree}
    nodes["/spikes"] = nodes["/spikes"].drop_vars("spike_time")
    tree = xr.DataTree.from_dict(nodes)
    for node in recording.subtree:
        tree[node.path].attrs = dict(node.attrs)
    return tree


def with_spike_times(tree: xr.DataTree, spikes: SpikeTimes, digest: str, path: Path) -> xr.DataTree:
    """Put the spike times back; ValueError where they are not those that were saved."""
    ids = [str(cell) for cell in tree["spikes"].to_dataset()["cell"].values]
    if set(ids) != set(spikes.ids) or digest_of(spikes.select(ids)) != digest:
        raise ValueError(
            f"path={str(path)!r}: its spike trains are not those of which save_recording made the "
            "counts beside them; they were changed since: make the recording anew, with stimulus= "
            "and frame_times="
        )
    saved = tree["spikes"].to_dataset()
    made = spikes.select(ids).to_dataset()
    tree["spikes"] = xr.DataTree(saved.assign(spike_time=made["spike_time"]))
    return tree


SAVED_TREE = "saved"  # in the encoding of a tree: it is given back as it was


def chosen(tree: xr.DataTree, options: Options) -> xr.DataTree:
    """Check the bin width that was given, and keep the cells that were asked for."""
    for data in require_recording(tree, "path"):
        if options.bin_width is not None:
            given = magnitude(options.bin_width, "s", "bin_width")
            require_matching_width(given, bin_width_of(data, "path"))
    tree = tree if options.cells is None else of_cells(tree, options.cells)
    tree.encoding[SAVED_TREE] = True
    return tree
