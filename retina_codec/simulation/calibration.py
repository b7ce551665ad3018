"""Scales and offsets of a circuit, from its responses to one natural movie."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
import xarray as xr
from scipy.optimize import brentq
from torch import Tensor

from retina_codec._common.checks import require_dims
from retina_codec.simulation.circuit import field_of, require_field
from retina_codec.simulation.network import CircuitNetwork
from retina_codec.simulation.specification import CircuitSpecification
from retina_codec.stimuli import natural_movie, photographs

DRIVE_SD = 3.0
FRAMES, SEED = 6000, 2024
FRAMES_AT_ONCE = 500


def calibration_movie() -> xr.DataArray:
    """Return the movie that circuits are calibrated on: one minute on the two photographs."""
    return natural_movie(photographs(), n_frames=FRAMES, seed=SEED)


def calibrate(
    specification: CircuitSpecification, *, movie: xr.DataArray | None = None
) -> CircuitSpecification:
    """Find the scales and offsets of a circuit, as the YAML files have them.

    Bipolar drives get the standard deviation 1 (over time and place, before the rectification),
    the drives of ganglion cells the standard deviation 3, and offsets are such that cells fire at
    their type's mean rate. Cells of a mosaic share the numbers of their type; listed ones each have
    their own.

    Parameters
    ----------
    specification : CircuitSpecification
        A circuit; the scales and offsets it has are replaced.
    movie : DataArray, optional
        Natural movie (time, y, x) in one block; by default the one that the shipped circuits
        were calibrated on.

    Returns
    -------
    CircuitSpecification
        The same circuit with new scales and offsets.

    Raises
    ------
    ValueError
        If the movie has other dims, or leaves a type or cell without any drive.

    Examples
    --------
    >>> from retina_codec.simulation import calibrate, read_specification
    >>> from retina_codec.stimuli import white_noise
    >>> noise = white_noise(n_frames=300, shape=(16, 16), seed=0)
    >>> circuit = calibrate(read_specification("default"), movie=noise)
    >>> circuit.bipolar["on_sustained"].scale == circuit.bipolar["off_sustained"].scale
    True
    """
    movie = calibration_movie() if movie is None else movie
    movie = require_dims(movie, ("time", "y", "x"), "movie")
    frames = torch.as_tensor(movie.values, dtype=torch.float32)[None]
    specification = _unscaled(specification)
    field = field_of(movie, specification, argument="movie")
    require_field(field, specification, "movie")
    network = CircuitNetwork(specification, field)
    past = field.history(specification) - 1
    chunks = [
        frames[:, start - past : start + FRAMES_AT_ONCE]
        for start in range(past, frames.shape[1], FRAMES_AT_ONCE)
    ]
    with torch.no_grad():
        sums = torch.zeros(3, len(specification.bipolar), dtype=torch.float64)
        for chunk in chunks:
            drive = network.bipolar.drive(chunk).double()
            ones = torch.ones_like(drive)
            sums += torch.stack([f.sum(dim=(0, 2, 3)) for f in (ones, drive, drive**2)])
        sd = (sums[2] / sums[0] - (sums[1] / sums[0]) ** 2).sqrt()
        _require_drive(sd, list(specification.bipolar))
        bipolar = {
            name: dataclasses.replace(kind, scale=1 / float(spread))
            for (name, kind), spread in zip(specification.bipolar.items(), sd, strict=True)
        }
        specification = dataclasses.replace(specification, bipolar=bipolar)
        network = CircuitNetwork(specification, field)
        drives = torch.cat([_ganglion_drive(network, chunk) for chunk in chunks]).double()
    _require_drive(drives.std(dim=0), list(specification.cells))
    return _with_outputs(specification, drives.numpy())


def _unscaled(specification: CircuitSpecification) -> CircuitSpecification:
    bipolar = {k: dataclasses.replace(v, scale=1.0) for k, v in specification.bipolar.items()}
    ganglion = {
        name: dataclasses.replace(
            kind,
            cells=tuple(dataclasses.replace(c, scale=None, offset=None) for c in kind.cells),
            scale=1.0,
            offset=0.0,
        )
        for name, kind in specification.ganglion.items()
    }
    return dataclasses.replace(specification, bipolar=bipolar, ganglion=ganglion)


def _ganglion_drive(network: CircuitNetwork, chunk: Tensor) -> Tensor:
    bipolar = network.bipolar(chunk)
    return network.ganglion.drive(network.ganglion_input(bipolar, network.amacrine(bipolar)))


def _require_drive(sd: Tensor, names: list[str]) -> None:
    silent = [name for name, spread in zip(names, sd, strict=True) if not float(spread) > 0]
    if silent:
        raise ValueError(
            f"movie does not drive {', '.join(silent)}: calibrate on a movie with more contrast"
        )


def _with_outputs(specification: CircuitSpecification, drives: np.ndarray) -> CircuitSpecification:
    """Give each type, or each listed cell, its scale and offset, from raw drives (time, cell)."""
    columns = iter(drives.T)
    ganglion = {}
    for name, kind in specification.ganglion.items():
        of_cells = np.stack([next(columns) for _ in kind.placed], axis=1)
        if kind.mosaic is not None:
            scale, offset = _output(of_cells, specification.output_gain, kind.mean_rate)
            ganglion[name] = dataclasses.replace(kind, scale=scale, offset=offset)
            continue
        cells = []
        for cell, drive in zip(kind.cells, of_cells.T, strict=True):
            scale, offset = _output(drive, specification.output_gain, kind.mean_rate)
            cells.append(dataclasses.replace(cell, scale=scale, offset=offset))
        ganglion[name] = dataclasses.replace(kind, cells=tuple(cells))
    return dataclasses.replace(specification, ganglion=ganglion)


def _output(drive: np.ndarray, gain: float, mean_rate: float) -> tuple[float, float]:
    """Scale and offset that give these drives the wanted spread and mean rate."""
    scale = DRIVE_SD / drive.std(axis=0).mean()

    def excess(offset: float) -> float:
        return float((gain * np.logaddexp(0, scale * drive + offset)).mean() - mean_rate)

    return float(scale), float(brentq(excess, -100.0, 100.0))
