"""A recording of the circuit: noisy spikes, as a rig would give them, and the truth beside them."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
import xarray as xr
from torch.nn import functional

from retina_codec._common.checks import (
    magnitude,
    nearest_names,
    require_at_least,
    require_count,
    require_dims,
    require_finite,
)
from retina_codec._common.provenance import provenance
from retina_codec._common.time import bin_width_of, runs_of
from retina_codec.recordings import firing_rate
from retina_codec.simulation.circuit import circuit as build_circuit
from retina_codec.simulation.network import CircuitNetwork
from retina_codec.simulation.specification import CircuitSpecification, read_specification

FRAMES_AT_ONCE = 512
# Places of the interneurons that are listened to, in pixels from the middle of the field (y, x).
PLACES = ((0.0, 0.0), (-3.0, 3.0), (3.0, -3.0))


def simulate_retina(
    stimulus: xr.DataArray | Mapping[str, xr.DataArray],
    circuit: str | os.PathLike[str] | CircuitSpecification = "default",
    *,
    seed: int = 0,
    repeats: int | Mapping[str, int] = 1,
    smoothing: float = 0.010,
) -> xr.DataTree:
    """Show movies to a retina with a known circuit and record its ganglion cells.

    Spike counts are Poisson around the true rates. Before each block of a movie the screen is
    grey for as long as the circuit remembers, so every bin has a rate.

    Parameters
    ----------
    stimulus : DataArray or mapping of str to DataArray
        Movie (time, y, x) in contrast units (0 = mean grey), or several by the name of their
        node, such as ``{"train": ..., "test": ...}``. One movie alone becomes the node
        ``"train"``.
    circuit : str, path or CircuitSpecification
        As for `retina_codec.simulation.circuit`.
    seed : int
        Seed of the spikes; each node has its own stream.
    repeats : int or mapping of str to int
        Presentations of each movie, for all nodes or by node (the others: 1).
    smoothing : float or quantity
        Standard deviation, in seconds, of the Gaussian that turns counts into `rate`.

    Returns
    -------
    DataTree
        The layout of an opened recording. A node holds the `stimulus` (time, y, x) with its
        coordinates; `spike_count` (time, cell), or (repeat, time, cell) when there are
        repeats; `rate` (time, cell), Hz, smoothed counts (mean of the repeats). And the truth:
        `true_rate` (time, cell), Hz; `potential` (time, interneuron), mV, the drive of one cell
        of each interneuron type at three places round the middle of the field; `release`
        (time, interneuron), what that cell passes on, rectified. Cells and interneurons have
        their type and place (`cell_type`, `cell_y`, ...; `interneuron_type`,
        `interneuron_layer`, ...), in the coordinates of the movie.

    Raises
    ------
    TypeError
        If `stimulus` holds something other than DataArrays, or `seed` or `repeats` are not whole.
    ValueError
        If a movie does not fit (dims, bin width, size, NaN), or `repeats` names no node.

    Examples
    --------
    >>> from retina_codec import simulation, stimuli
    >>> noise = {"train": stimuli.white_noise(n_frames=300, seed=0),
    ...          "test": stimuli.white_noise(n_frames=100, seed=1)}
    >>> recording = simulation.simulate_retina(noise, repeats={"test": 5})
    >>> dict(recording["test"]["spike_count"].sizes)
    {'repeat': 5, 'time': 100, 'cell': 16}
    """
    require_count(seed, 0, "seed")
    smoothing = float(magnitude(smoothing, "s", "smoothing"))
    require_at_least(smoothing, 0, "smoothing")
    movies = stimulus if isinstance(stimulus, Mapping) else {"train": stimulus}
    if not movies:
        raise ValueError("stimulus is empty; expected a movie for at least one node")
    counts = _repeats_of(repeats, list(movies))
    specification = (
        circuit if isinstance(circuit, CircuitSpecification) else read_specification(circuit)
    )
    made_by = provenance(
        made_by="simulate_retina", circuit=specification.name, seed=seed, repeats=counts
    )
    nodes = {}
    for name, movie in movies.items():
        argument = f"stimulus[{name!r}]" if isinstance(stimulus, Mapping) else "stimulus"
        movie = require_dims(movie, ("time", "y", "x"), argument)
        require_finite(movie, argument)
        _require_fit(movie, specification, argument)
        model = build_circuit(specification, shape=(movie.sizes["y"], movie.sizes["x"]))
        network = cast(CircuitNetwork, model.network)
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        nodes[name] = _record(movie.rename("stimulus"), network, specification, counts[name], rng)
        nodes[name]["rate"] = firing_rate(nodes[name]["spike_count"], sd=smoothing)
        nodes[name].attrs = {"model_fingerprint": model.fingerprint, **made_by}
    tree = xr.DataTree.from_dict(nodes)
    tree.attrs = made_by
    return tree


def _repeats_of(repeats: int | Mapping[str, int], nodes: list[str]) -> dict[str, int]:
    if not isinstance(repeats, Mapping):
        return dict.fromkeys(nodes, require_count(repeats, 1, "repeats"))
    for name, number in repeats.items():
        if name not in nodes:
            raise ValueError(f"repeats: no node {name!r}; {nearest_names(name, nodes)}")
        require_count(number, 1, f"repeats[{name!r}]")
    return {name: int(repeats.get(name, 1)) for name in nodes}


def _require_fit(movie: xr.DataArray, specification: CircuitSpecification, argument: str) -> None:
    width = bin_width_of(movie, argument)
    if not np.isclose(width, specification.bin_width, rtol=0.02):
        raise ValueError(
            f"{argument} has bins of {width:g} s; circuit {specification.name!r} has bins of "
            f"{specification.bin_width:g} s: make the movie with that bin_width"
        )
    shape, least = movie.shape[1:], specification.bipolar_size
    if min(shape) < least:
        raise ValueError(
            f"{argument} has {shape[0]} x {shape[1]} pixels; circuit {specification.name!r} needs "
            f"at least {least} x {least}"
        )


def _record(
    movie: xr.DataArray,
    network: CircuitNetwork,
    specification: CircuitSpecification,
    repeats: int,
    rng: np.random.Generator,
) -> xr.Dataset:
    """Run the circuit over `movie` and draw spikes."""
    interneurons = _interneurons(movie, specification)
    rate, drive, release = _signals(movie, network, specification, interneurons)
    count_dims = ("repeat", "time", "cell") if repeats > 1 else ("time", "cell")
    shape = (repeats, *rate.shape) if repeats > 1 else rate.shape
    counts = rng.poisson(np.broadcast_to(rate * specification.bin_width, shape)).astype(np.int32)
    potential = specification.resting_potential + specification.potential_gain * drive
    along = ("time", "interneuron")
    node = xr.Dataset(
        {
            "stimulus": movie,
            "spike_count": (count_dims, counts, {"units": "1", "long_name": "spikes in the bin"}),
            "true_rate": (("time", "cell"), rate, {"units": "Hz", "long_name": "true rate"}),
            "potential": (along, potential, {"units": "mV", "long_name": "membrane potential"}),
            "release": (along, release, {"units": "1", "long_name": "rectified output"}),
        }
    )
    coords: dict[str, Any] = _cells(movie, specification)
    coords |= {str(name): v.variable for name, v in interneurons.drop_vars("unit").items()}
    coords["interneuron"] = interneurons["interneuron"].variable
    if repeats > 1:
        coords["repeat"] = xr.Variable("repeat", np.arange(repeats))
    return node.assign_coords(coords)


def _signals(
    movie: xr.DataArray,
    network: CircuitNetwork,
    specification: CircuitSpecification,
    interneurons: xr.Dataset,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rates (time, cell), and drives and releases (time, interneuron), block by block."""
    past = specification.history - 1
    unit = interneurons["unit"].values
    found: list[tuple[np.ndarray, ...]] = []
    for run in runs_of(movie):
        frames = torch.from_numpy(movie[run].values.astype(np.float32))
        frames = functional.pad(frames, (0, 0, 0, 0, past, 0))  # grey before the block
        for start in range(0, run.stop - run.start, FRAMES_AT_ONCE):
            chunk = frames[None, start : start + FRAMES_AT_ONCE + past]
            with torch.no_grad():
                bipolar_drive = network.bipolar.drive(chunk)
                bipolar = network.bipolar.release(bipolar_drive)
                amacrine_drive = network.amacrine.drive(bipolar)
                amacrine = network.amacrine.release(amacrine_drive)
                rate = network.ganglion(bipolar, amacrine)
            layers = (bipolar_drive, amacrine_drive), (bipolar, amacrine)
            listened = (torch.cat(pair, dim=1).flatten(1)[:, unit] for pair in layers)
            found.append(tuple(part.double().numpy() for part in (rate, *listened)))
    rates, drives, releases = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return rates, drives, releases


def _cells(movie: xr.DataArray, specification: CircuitSpecification) -> dict[str, xr.Variable]:
    """Coordinates over `cell`: id, type, place and preferred direction."""
    kinds, cells = zip(*specification.cells.values(), strict=True)
    directions = [np.nan if c.preferred_direction is None else c.preferred_direction for c in cells]
    return {
        "cell": xr.Variable("cell", np.array(list(specification.cells))),
        "cell_type": xr.Variable("cell", np.array(kinds)),
        "cell_y": _place(movie, "y", "cell", [cell.y for cell in cells]),
        "cell_x": _place(movie, "x", "cell", [cell.x for cell in cells]),
        "preferred_direction": xr.Variable("cell", directions, {"units": "degree"}),
    }


def _interneurons(movie: xr.DataArray, specification: CircuitSpecification) -> xr.Dataset:
    """Which interneurons are listened to: their labels, and `unit`, the index in both layers."""
    rows, columns = (movie.sizes[axis] - specification.bipolar_size + 1 for axis in ("y", "x"))
    places = []
    for y, x in PLACES:
        # The unit nearest to the place, inside the field.
        row = int(np.clip(round(y + (rows - 1) / 2), 0, rows - 1))
        column = int(np.clip(round(x + (columns - 1) / 2), 0, columns - 1))
        if (row, column) not in places:
            places.append((row, column))
    layers = {"bipolar": list(specification.bipolar), "amacrine": list(specification.amacrine)}
    types = [(layer, name) for layer, names in layers.items() for name in names]
    listed = [
        (channel, i, place) for channel in range(len(types)) for i, place in enumerate(places)
    ]
    labels = {
        "interneuron": np.array([f"{types[channel][1]}_{i}" for channel, i, _ in listed]),
        "interneuron_type": np.array([types[channel][1] for channel, _, _ in listed]),
        "interneuron_layer": np.array([types[channel][0] for channel, _, _ in listed]),
    }
    dim = "interneuron"
    return xr.Dataset(
        {
            **{name: (dim, values) for name, values in labels.items()},
            "interneuron_y": _place(movie, "y", dim, [p[0] - (rows - 1) / 2 for *_, p in listed]),
            "interneuron_x": _place(
                movie, "x", dim, [p[1] - (columns - 1) / 2 for *_, p in listed]
            ),
            "unit": (dim, [(c * rows + p[0]) * columns + p[1] for c, _, p in listed]),
        }
    )


def _place(movie: xr.DataArray, axis: str, dim: str, from_middle: list[float]) -> xr.Variable:
    """Places given in pixels from the middle, in the coordinates of the movie."""
    index = np.array(from_middle) + (movie.sizes[axis] - 1) / 2
    if axis not in movie.coords:
        return xr.Variable(dim, index, {"units": "index"})
    positions = movie[axis].values.astype(np.float64)
    pitch = positions[1] - positions[0]
    units = movie[axis].attrs.get("units", "pixel")
    return xr.Variable(dim, positions[0] + pitch * index, {"units": units})
