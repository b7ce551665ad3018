"""Loadings of rows that may be larger than memory: in memory, or streamed into a store."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dask
import dask.array
import numpy as np
import xarray as xr

from retina_codec._common.files import open_tree, save_tree, tree_format
from retina_codec.modes.autoencoder import Autoencoder
from retina_codec.modes.rows import Rows
from retina_codec.modes.scaling import ColumnScaling

MEMORY_LIMIT = 8e9  # bytes of loadings in memory; more is refused with advice


def require_room(rows: Rows, n_modes: int, store: str | os.PathLike[str] | None) -> None:
    """Raise ValueError unless loadings fit in memory, or `store` names a Zarr store."""
    if store is not None:
        if tree_format(Path(store), "store") != "zarr":
            raise ValueError(f"store={str(store)!r}; expected a name ending in .zarr")
        return
    size = 4.0 * rows.n_first * rows.each * n_modes
    if size > MEMORY_LIMIT:
        raise ValueError(
            f"loadings of {rows.n_first * rows.each} samples and {n_modes} modes would take "
            f"{size / 1e9:.1f} GB of memory: name a Zarr store with store="
        )


def encoded(
    autoencoder: Autoencoder,
    scaling: ColumnScaling,
    rows: Rows,
    coords: Mapping[str, Any],
    attrs: Mapping[str, Any],
    store: str | os.PathLike[str] | None,
    *,
    known: np.ndarray | None = None,
) -> xr.DataArray:
    """Return loadings (*sample dims, mode), in memory or, with a `store`, written there and lazy.

    `known` are those of all rows, if they have been computed already.
    """
    n_modes = len(autoencoder.dictionary)

    def part(start: int, stop: int) -> np.ndarray:
        if known is not None:
            loadings = known[start * rows.each : stop * rows.each]
        else:
            loadings = autoencoder.encode(scaling.forward(rows.read(start, stop)))
        return loadings.reshape(stop - start, *rows.samples.shape[1:], n_modes)

    if store is None:
        parts = [part(start, stop) for start, stop in rows.spans()]
        values = parts[0] if len(parts) == 1 else np.concatenate(parts)
    else:
        values = dask.array.concatenate(
            [
                dask.array.from_delayed(
                    dask.delayed(part, pure=False)(start, stop),
                    (stop - start, *rows.samples.shape[1:], n_modes),
                    np.float32,
                )
                for start, stop in rows.spans()
            ]
        )
    labelled = rows.samples.label(values, "mode", coords).rename("loadings")
    labelled.attrs = dict(attrs)
    if store is None:
        return labelled
    with dask.config.set(scheduler="synchronous"):  # one block at a time
        save_tree(xr.DataTree.from_dict({"/loadings": labelled.to_dataset()}), store)
    return open_tree(store)["loadings"].to_dataset()["loadings"]
