"""Make the sample recording again: ``python datasets/simulated_sample/make.py [sample.nc]``.

A small simulated retina watches noise, textures, light steps and gratings. The file is compressed,
without loss, to be small enough to ship with the package.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import xarray as xr

from retina_codec import stimuli
from retina_codec._common.files import with_string_labels, written_beside
from retina_codec.simulation import simulate_retina

SHAPE = (12, 12)  # pixels
SEED = 0
REPEATS = 10
LEVELS = 16  # grey levels of a unit of contrast: exact in float32, and they compress well
CELLS = (
    "on_sustained_1",
    "off_sustained_0",
    "on_transient_0",
    "off_transient_0",
    "object_motion_0",
    "on_off_0",
    "direction_selective_0",
    "direction_selective_2",
)
COMPRESSION = {"zlib": True, "complevel": 9, "shuffle": True}


def movies() -> dict[str, xr.DataArray]:
    """Return the movies, by the name of their node, in whole grey levels."""
    textures = {f"leaves_{i}": stimuli.dead_leaves(seed=SEED + i) for i in range(4)}
    seen = {name: textures[name] for name in ("leaves_0", "leaves_1")}
    unseen = {name: textures[name] for name in ("leaves_2", "leaves_3")}
    return {
        "train": stimuli.concatenate(
            [
                stimuli.white_noise(n_frames=1600, shape=SHAPE, seed=SEED),
                _graded(stimuli.natural_movie(seen, n_frames=500, shape=SHAPE, seed=SEED)),
                _graded(stimuli.light_steps(n_frames=300, shape=SHAPE, seed=SEED)),
                _graded(
                    stimuli.moving_gratings(
                        n_frames=600,
                        shape=SHAPE,
                        seed=SEED,
                        duration=(0.4, 0.6),
                        period=(10.0, 12.0),
                        frequency=(2.0, 3.0),
                        contrast=(1.0, 1.3),
                        still_share=0.0,
                        directions=[0.0, 90.0, 180.0, 270.0],
                    )
                ),
            ]
        ),
        "test": stimuli.concatenate(
            [
                stimuli.white_noise(n_frames=200, shape=SHAPE, seed=SEED + 1),
                _graded(stimuli.natural_movie(unseen, n_frames=200, shape=SHAPE, seed=SEED + 1)),
            ]
        ),
    }


def sample() -> xr.DataTree:
    """Return the recording of eight cells, with their true rates, without the interneurons."""
    shown = movies()
    recording = simulate_retina(shown, "first", seed=SEED, repeats={"test": REPEATS})
    nodes = {}
    for name in shown:
        data = recording[name].to_dataset().drop_dims("interneuron").sel(cell=list(CELLS))
        data = data.drop_vars("repeat_onset", errors="ignore")  # there are no spike times
        data["true_rate"] = data["true_rate"].astype(np.float32)
        nodes[name] = data
    tree = xr.DataTree.from_dict(nodes)
    tree.attrs = recording.attrs
    return tree


def write(recording: xr.DataTree, path: str | Path) -> None:
    """Write a recording to `path` (netCDF), compressed."""
    tree = recording.map_over_datasets(with_string_labels)
    encoding = {
        f"/{name}": {
            str(key): (
                # Variable-length strings cannot be compressed, and there is one for each frame.
                {"dtype": "S1", **COMPRESSION} if variable.dtype.kind == "O" else COMPRESSION
            )
            for key, variable in node.variables.items()
        }
        for name, node in tree.children.items()
    }
    with written_beside(path) as fresh:
        tree.to_netcdf(fresh, engine="h5netcdf", encoding=encoding, write_inherited_coords=True)


def _graded(movie: xr.DataArray) -> xr.DataArray:
    """Round contrast to whole grey levels."""
    return movie.copy(data=np.round(movie.values * LEVELS) / np.float32(LEVELS))


if __name__ == "__main__":
    write(sample(), sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("sample.nc"))
