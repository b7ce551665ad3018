"""A recording of the circuit: noisy spikes, as a rig would give them, and the truth beside them."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
import xarray as xr

from retina_codec._common.checks import (
    magnitude,
    nearest_names,
    require_at_least,
    require_choice,
    require_count,
    require_dims,
    require_finite,
)
from retina_codec._common.provenance import provenance
from retina_codec._common.time import bin_width_of, runs_of
from retina_codec.models.reading import FrameReader
from retina_codec.recordings import firing_rate
from retina_codec.recordings.spikes import SpikeTimes
from retina_codec.simulation.circuit import Circuit
from retina_codec.simulation.circuit import circuit as build_circuit
from retina_codec.simulation.network import CircuitNetwork
from retina_codec.simulation.specification import (
    PROCESSES,
    CircuitSpecification,
    read_specification,
)
from retina_codec.simulation.spiking import draw_spikes

FRAMES_AT_ONCE = 128  # small enough that what is computed stays near the processor
BETWEEN = 1.0  # seconds between two presentations on the clock of the recording
# Places of the interneurons that are listened to, in um from the middle of the field (y, x).
PLACES = ((0.0, 0.0), (-150.0, 150.0), (150.0, -150.0))


def simulate_retina(
    stimulus: xr.DataArray | Mapping[str, xr.DataArray],
    circuit: str | os.PathLike[str] | CircuitSpecification = "default",
    *,
    seed: int = 0,
    repeats: int | Mapping[str, int] = 1,
    pixel_size: float | None = None,
    spiking: str | None = None,
    smoothing: float = 0.010,
    device: str | torch.device = "cpu",
) -> xr.DataTree:
    """Show movies to a retina with a known circuit and record its ganglion cells.

    Before each block of a movie the screen is grey for as long as the circuit remembers, so every
    bin has a rate. A lazy movie is read in chunks and stays lazy in the result; what is held of
    the rest is by time and cell.

    Parameters
    ----------
    stimulus : DataArray or mapping of str to DataArray
        Movie (time, y, x) in contrast units (0 = mean grey), or several by the name of their
        node, such as ``{"train": ..., "test": ...}``. One movie alone becomes the node
        ``"train"``. Coordinates y and x are in um (or mm), or count pixels.
    circuit : str, path or CircuitSpecification
        As for `retina_codec.simulation.circuit`.
    seed : int
        Seed of the spikes; each node has its own stream.
    repeats : int or mapping of str to int
        Presentations of each movie, for all nodes or by node (the others: 1).
    pixel_size : float or quantity, optional
        Side of a pixel in um where coordinates count pixels; by default the one that the
        circuit's file names.
    spiking : {"poisson", "refractory"}, optional
        How rates become spikes, if not as the circuit's file says.
    smoothing : float or quantity
        Standard deviation, in seconds, of the Gaussian that turns counts into `rate`.
    device : str or torch.device
        Where the circuit is computed.

    Returns
    -------
    DataTree
        The layout of an opened recording. A node holds the `stimulus` (time, y, x) with its
        coordinates; `spike_count` (time, cell), or (repeat, time, cell) when there are
        repeats, then with `repeat_onset` (s); `rate` (time, cell), Hz, smoothed counts (mean of
        the repeats). And the truth: `true_rate` (time, cell), Hz, the mean over endless repeats;
        `potential` (time, interneuron), mV, the drive of one cell of each interneuron type at
        three places round the middle of the field; `release` (time, interneuron), what that cell
        passes on, rectified. Cells and interneurons have their type and place (`cell_type`,
        `cell_y`, ...; `interneuron_type`, `interneuron_layer`, ...), in the coordinates of the
        movie. The node ``"spikes"`` has the spikes of all presentations on one clock, flat:
        `spike_time` (spike), s, cell after cell, and `n_spikes` (cell). Movies shown once keep
        their own times, repeated ones come after them; where two movies shown once overlap in
        time there is no common clock, and that node is left out (see `notes` in the attrs).

    Raises
    ------
    TypeError
        If `stimulus` holds something other than DataArrays, or `seed` or `repeats` are not whole.
    ValueError
        If a movie does not fit (dims, units, pixel size, bin width, size, NaN), a cell of the
        circuit is outside of it, or `repeats` names no node.

    Examples
    --------
    >>> from retina_codec import simulation, stimuli
    >>> noise = {"train": stimuli.white_noise(n_frames=300, seed=0),
    ...          "test": stimuli.white_noise(n_frames=100, seed=1)}
    >>> recording = simulation.simulate_retina(noise, repeats={"test": 5})
    >>> counts = recording["test"]["spike_count"]
    >>> counts.dims, counts.shape[:2]
    (('repeat', 'time', 'cell'), (5, 100))
    """
    require_count(seed, 0, "seed")
    smoothing = float(magnitude(smoothing, "s", "smoothing"))
    require_at_least(smoothing, 0, "smoothing")
    movies = stimulus if isinstance(stimulus, Mapping) else {"train": stimulus}
    if not movies:
        raise ValueError("stimulus is empty; expected a movie for at least one node")
    if "spikes" in movies:
        raise ValueError("stimulus: the node 'spikes' is that of the spike times; rename the movie")
    counts = _repeats_of(repeats, list(movies))
    specification = (
        circuit if isinstance(circuit, CircuitSpecification) else read_specification(circuit)
    )
    if spiking is not None:
        require_choice(spiking, PROCESSES, "spiking")
        specification = replace(
            specification, spiking=replace(specification.spiking, process=spiking)
        )
    made_by = provenance(
        made_by="simulate_retina",
        circuit=specification.name,
        seed=seed,
        repeats=counts,
        spiking=specification.spiking.process,
    )
    nodes, times = {}, {}
    for name, movie in movies.items():
        argument = f"stimulus[{name!r}]" if isinstance(stimulus, Mapping) else "stimulus"
        movie = require_dims(movie, ("time", "y", "x"), argument)
        require_finite(movie, argument)
        model = _model_for(movie, specification, pixel_size, argument)
        model.network.to(device)
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        nodes[name], times[name] = _record(movie.rename("stimulus"), model, counts[name], rng)
        nodes[name]["rate"] = firing_rate(nodes[name]["spike_count"], sd=smoothing)
        nodes[name].attrs = {"model_fingerprint": model.fingerprint, **made_by}
    starts = {name: float(node["time"].values[0]) for name, node in nodes.items()}
    onsets, note = _on_one_clock(nodes)
    for name, onset in onsets.items():
        if "repeat" in nodes[name].dims:
            nodes[name]["time"] = _from_zero(nodes[name]["time"])
            nodes[name] = nodes[name].assign_coords(
                repeat_onset=("repeat", onset, {"units": "s", "long_name": "onset of the repeat"})
            )
    tree = xr.DataTree.from_dict(nodes)
    if not note:
        shifts = {name: onset - starts[name] for name, onset in onsets.items()}
        tree["spikes"] = xr.DataTree(_joined(times, shifts, list(specification.cells)))
    tree.attrs = {"source_format": "simulation", "notes": note, **made_by}
    return tree


def _model_for(
    movie: xr.DataArray,
    specification: CircuitSpecification,
    pixel_size: float | None,
    argument: str,
) -> Circuit:
    """Build the circuit for a movie; errors name the argument that it came in."""
    try:
        return build_circuit(specification, movie=movie, pixel_size=pixel_size)
    except ValueError as error:
        message = str(error)
        if message.startswith("movie"):
            message = argument + message.removeprefix("movie")
        raise ValueError(message) from error


def _repeats_of(repeats: int | Mapping[str, int], nodes: list[str]) -> dict[str, int]:
    if not isinstance(repeats, Mapping):
        return dict.fromkeys(nodes, require_count(repeats, 1, "repeats"))
    for name, number in repeats.items():
        if name not in nodes:
            raise ValueError(f"repeats: no node {name!r}; {nearest_names(name, nodes)}")
        require_count(number, 1, f"repeats[{name!r}]")
    return {name: int(repeats.get(name, 1)) for name in nodes}


def _record(
    movie: xr.DataArray, model: Circuit, repeats: int, rng: np.random.Generator
) -> tuple[xr.Dataset, list[list[np.ndarray]]]:
    """Run the circuit over `movie` and draw spikes: the node, and times by repeat and cell."""
    specification = model.specification
    interneurons = _interneurons(movie, model)
    rate, drive, release = _signals(movie, model, interneurons)
    drawn = draw_spikes(
        rate,
        model.bin_width,
        specification.spiking,
        time=movie["time"].values,
        runs=runs_of(movie),
        rng=rng,
        repeats=repeats,
    )
    count_dims = ("repeat", "time", "cell") if repeats > 1 else ("time", "cell")
    potential = specification.resting_potential + specification.potential_gain * drive
    along = ("time", "interneuron")
    node = xr.Dataset(
        {
            "stimulus": movie,
            "spike_count": (
                count_dims,
                drawn.counts if repeats > 1 else drawn.counts[0],
                {"units": "1", "long_name": "spikes in the bin"},
            ),
            "true_rate": (("time", "cell"), drawn.rate, {"units": "Hz", "long_name": "true rate"}),
            "potential": (along, potential, {"units": "mV", "long_name": "membrane potential"}),
            "release": (along, release, {"units": "1", "long_name": "rectified output"}),
        }
    )
    coords: dict[str, Any] = _cells(movie, model)
    coords |= {str(name): v.variable for name, v in interneurons.drop_vars("unit").items()}
    coords["interneuron"] = interneurons["interneuron"].variable
    if repeats > 1:
        coords["repeat"] = xr.Variable("repeat", np.arange(repeats))
    return node.assign_coords(coords), drawn.times


def _signals(
    movie: xr.DataArray, model: Circuit, interneurons: xr.Dataset
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rates (time, cell), and drives and releases (time, interneuron), block by block."""
    network = cast(CircuitNetwork, model.network)
    past = model.history - 1
    unit = torch.from_numpy(interneurons["unit"].values).to(model.device)
    # Bipolar cells come first.
    late = torch.from_numpy(interneurons["interneuron_layer"].values == "amacrine").to(model.device)
    n_frames = movie.sizes["time"]
    rates = np.empty((n_frames, len(model.outputs)))
    drives, releases = (np.empty((n_frames, len(unit)), dtype=np.float32) for _ in range(2))
    reader = FrameReader(movie)
    for run in runs_of(movie):
        for start in range(run.start, run.stop, FRAMES_AT_ONCE):
            shown = slice(start, min(start + FRAMES_AT_ONCE, run.stop))
            first = max(run.start, start - past)
            frames = np.zeros((shown.stop - start + past, *movie.shape[1:]), dtype=np.float32)
            frames[past - (start - first) :] = reader.read(first, shown.stop)  # grey before a block
            chunk = torch.from_numpy(frames).to(model.device)[None]
            with torch.no_grad():
                bipolar_drive = network.bipolar.drive(chunk)
                bipolar = network.bipolar.release(bipolar_drive)
                amacrine_drive = network.amacrine.drive(bipolar)
                amacrine = network.amacrine.release(amacrine_drive)
                received = network.ganglion_input(bipolar, amacrine)
                rates[shown] = network.ganglion(received).cpu().numpy()
                heard = [
                    bipolar_drive.flatten(1)[:, unit[~late]],
                    amacrine_drive.flatten(1)[:, unit[late] - bipolar_drive[0].numel()],
                ]
                drives[shown] = torch.cat(heard, dim=1).cpu().numpy()
                releases[shown] = received.flatten(1)[:, unit].cpu().numpy()
    return rates, drives, releases


def _on_one_clock(nodes: Mapping[str, xr.Dataset]) -> tuple[dict[str, np.ndarray], str]:
    """Onset of each presentation, by node, on the clock of the recording; or why there is none.

    What is shown once keeps its own times (onset: its first time).
    """
    spans = {
        name: (
            float(node["time"].values[0]),
            float(node["time"].values[-1]) + bin_width_of(node, name),
        )
        for name, node in nodes.items()
    }
    once = sorted((spans[name], name) for name, node in nodes.items() if "repeat" not in node.dims)
    onsets = {name: np.array([span[0]]) for span, name in once}
    note = ""
    for (before, first), (after, second) in pairwise(once):
        if after[0] < before[1]:
            note = (
                f"no common clock, so no node 'spikes': the movies of {first!r} and {second!r} "
                "overlap in time; shift the coordinate time of one"
            )
    clock = max((span[1] for span, _ in once), default=-BETWEEN)
    for name, node in nodes.items():
        if "repeat" in node.dims:
            length = spans[name][1] - spans[name][0] + BETWEEN
            onsets[name] = clock + BETWEEN + length * np.arange(node.sizes["repeat"])
            clock = float(onsets[name][-1]) + length - BETWEEN
    return onsets, note


def _from_zero(time: xr.DataArray) -> xr.DataArray:
    """Give the times of a repeated movie from its onset."""
    return time.copy(data=time.values - time.values[0])


def _joined(
    times: Mapping[str, list[list[np.ndarray]]], shifts: Mapping[str, np.ndarray], cells: list[str]
) -> xr.Dataset:
    """All spikes of all presentations, cell after cell."""
    trains = {}
    for i, cell in enumerate(cells):
        parts = [
            of_cells[i] + shift
            for name, of_repeats in times.items()
            for of_cells, shift in zip(of_repeats, shifts[name], strict=True)
        ]
        trains[cell] = np.sort(np.concatenate(parts))
    return SpikeTimes.from_trains(trains).to_dataset()


def _cells(movie: xr.DataArray, model: Circuit) -> dict[str, xr.Variable]:
    """Coordinates over `cell`: id, type, place and preferred direction."""
    listed = model.specification.cells
    kinds, cells = zip(*listed.values(), strict=True)
    directions = [np.nan if c.preferred_direction is None else c.preferred_direction for c in cells]
    return {
        "cell": xr.Variable("cell", np.array(list(listed))),
        "cell_type": xr.Variable("cell", np.array(kinds)),
        "cell_y": _place(movie, model, "y", "cell", [cell.y for cell in cells]),
        "cell_x": _place(movie, model, "x", "cell", [cell.x for cell in cells]),
        "preferred_direction": xr.Variable("cell", directions, {"units": "degree"}),
    }


def _interneurons(movie: xr.DataArray, model: Circuit) -> xr.Dataset:
    """Which interneurons are listened to: their labels, and `unit`, the index in both layers."""
    specification = model.specification
    rows, columns = (model.field.lattice(specification, axis) for axis in (0, 1))
    places = []
    for y, x in PLACES:
        # The unit nearest to the place, inside the lattice.
        place = tuple(
            int(np.clip(round(at / specification.spacing + (n - 1) / 2), 0, n - 1))
            for at, n in ((y, len(rows)), (x, len(columns)))
        )
        if place not in places:
            places.append(place)
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
    y_places, x_places = (
        [float(along[p[i]]) for *_, p in listed] for i, along in enumerate((rows, columns))
    )
    return xr.Dataset(
        {
            **{name: (dim, values) for name, values in labels.items()},
            "interneuron_y": _place(movie, model, "y", dim, y_places),
            "interneuron_x": _place(movie, model, "x", dim, x_places),
            "unit": (dim, [(c * len(rows) + p[0]) * len(columns) + p[1] for c, _, p in listed]),
        }
    )


def _place(
    movie: xr.DataArray, model: Circuit, axis: str, dim: str, from_middle: list[float]
) -> xr.Variable:
    """Places given in um from the middle, in the coordinates of the movie."""
    index = np.array(from_middle) / model.field.pixel_size + (movie.sizes[axis] - 1) / 2
    if axis not in movie.coords:
        return xr.Variable(dim, index, {"units": "index"})
    positions = movie[axis].values.astype(np.float64)
    pitch = positions[1] - positions[0] if positions.size > 1 else 1.0
    units = movie[axis].attrs.get("units", "pixel")
    return xr.Variable(dim, positions[0] + pitch * index, {"units": units})
