"""A recording to NIX: spike trains, frame marks and epochs as neo writes them; nodes as arrays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from retina_codec._common.checks import BLOCK_BYTES
from retina_codec._common.files import written_beside
from retina_codec.recordings.formats.nix import SAVED, VARIABLE
from retina_codec.recordings.formats.stored import digest_of, without_spike_times
from retina_codec.recordings.to_neo import recording_to_neo, spikes_in


def save_nix(recording: xr.DataTree, path: Path) -> Path:
    """Write ``<name>.nix``: what neo knows as neo writes it, and every node's variables beside.

    A variable is a data array of the type ``retina_codec.variable``; its definition (JSON) says
    node, name, dims and attrs. Movies are written block by block.
    """
    try:
        import nixio  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError(
            f"path={str(path)!r}: writing NIX needs nixio; install it with "
            "pip install 'retina-codec[files]'"
        ) from error
    from neo.io import NixIO

    spikes = spikes_in(recording)
    tree = without_spike_times(recording)
    attrs = {node.path: _plain(node.attrs) for node in tree.subtree}
    said = {"digest": digest_of(spikes), "attrs": attrs}
    with written_beside(path) as fresh:
        io = NixIO(str(fresh), mode="ow")
        try:
            io.write_block(recording_to_neo(recording))
            block = io.nix_file.blocks[0]
            for number, (place, name, variable, is_coord) in enumerate(_variables(tree)):
                definition = {
                    "node": place,
                    "name": name,
                    "dims": [str(dim) for dim in variable.dims],
                    "coordinate": is_coord,
                    "attrs": _plain(variable.attrs),
                }
                _write(nixio, block, f"{VARIABLE}.{number}", variable, json.dumps(definition))
            block.metadata[SAVED] = json.dumps(said)
        finally:
            io.close()
    return path


def _variables(tree: xr.DataTree) -> Iterator[tuple[str, str, xr.Variable, bool]]:
    for node in tree.subtree:
        data = node.to_dataset()
        for name, variable in data.variables.items():
            yield node.path, str(name), variable, name in data.coords


def _plain(attrs: Any) -> dict[str, Any]:
    """Attrs as JSON holds them."""
    return {
        str(key): value if isinstance(value, str) else np.asarray(value).tolist()
        for key, value in attrs.items()
    }


def _write(nixio: Any, block: Any, name: str, variable: xr.Variable, definition: str) -> None:
    """Write one variable, a scalar as an array of one."""
    is_text = variable.dtype.kind in "UOT"
    shape = variable.shape or (1,)
    if 0 in shape:
        raise ValueError(f"recording: {definition} is empty, which NIX cannot hold; leave it out")
    dtype = nixio.DataType.String if is_text else variable.dtype
    array = block.create_data_array(name, VARIABLE, dtype=dtype, shape=shape)
    array.definition = definition
    for _ in shape:
        array.append_set_dimension()
    step = max(1, BLOCK_BYTES * shape[0] // max(1, variable.nbytes))
    for start in range(0, shape[0], step):
        part = variable[start : start + step] if variable.shape else variable
        values = np.asarray(part.values).reshape(-1, *shape[1:])
        array[start : start + len(values)] = values.astype(object) if is_text else values
