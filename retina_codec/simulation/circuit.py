"""The circuit as a `RetinaModel`: it predicts, and its true contributions can be taken."""

from __future__ import annotations

import os

import numpy as np
import xarray as xr

from retina_codec._common.checks import magnitude, require_dims
from retina_codec._common.time import bin_width_of
from retina_codec.models.model import LayerGeometry, MovieSamples, RetinaModel
from retina_codec.simulation.network import CircuitNetwork, Field
from retina_codec.simulation.specification import (
    BipolarType,
    CircuitSpecification,
    read_specification,
)

MICROMETRES = {"um": 1.0, "µm": 1.0, "μm": 1.0, "micrometre": 1.0, "micrometer": 1.0, "mm": 1000.0}
INDICES = ("pixel", "pixels", "px", "index", "1")
# A bin may last this share of the shortest time to peak: kernels are sampled once a bin.
LONGEST_BIN = 0.75
COARSEST_PIXEL = 2.5  # of the smallest centre's standard deviation
PITCH_TOLERANCE = 0.01


class Circuit(RetinaModel):
    """A retina with known wiring, as a model of movies of one size; made by `circuit`.

    Attributes
    ----------
    specification : CircuitSpecification
        What it was built from.
    field : Field
        The movies that it takes: shape, pixel size in um, bin width in seconds.
    """

    def __init__(self, specification: CircuitSpecification, field: Field) -> None:
        network = CircuitNetwork(specification, field)
        pitch = specification.spacing / field.pixel_size
        first = [
            (field.lattice(specification, axis)[0] - field.pixels(axis)[0]) / field.pixel_size
            for axis in (0, 1)
        ]
        # Amacrine cells sit at the bipolar cells' places.
        geometry = LayerGeometry(offset=(float(first[0]), float(first[1])), stride=pitch)
        channels = {
            "bipolar": list(specification.bipolar),
            "amacrine": list(specification.amacrine),
            "ganglion_input": [*specification.bipolar, *specification.amacrine],
        }
        super().__init__(
            network,
            history=field.history(specification),
            bin_width=field.bin_width,
            cells=list(specification.cells),
            input_shape=field.shape,
            layers={name: network.get_submodule(name) for name in channels},
            default_layers=("bipolar", "ganglion_input"),
            geometry=dict.fromkeys(channels, geometry),
            channels=channels,
        )
        self.specification = specification
        self.field = field

    def samples(self, data: xr.DataArray, argument: str = "data") -> MovieSamples:
        """Check that a movie (time, y, x) fits, its pixel size too, and lay it out."""
        found = super().samples(data, argument)
        given = pixel_size_of(data, self.field.pixel_size, argument)
        if abs(given - self.field.pixel_size) > PITCH_TOLERANCE * self.field.pixel_size:
            raise ValueError(
                f"{argument} has pixels of {given:g} um; the circuit was built for "
                f"{self.field.pixel_size:g} um: build it with circuit(..., movie={argument})"
            )
        return found


def circuit(
    name_or_yaml: str | os.PathLike[str] | CircuitSpecification = "default",
    *,
    movie: xr.DataArray | None = None,
    shape: tuple[int, int] | None = None,
    pixel_size: float | None = None,
    bin_width: float | None = None,
) -> Circuit:
    """Build a retina with known wiring, as a model of movies of one size.

    Two of its layers cut the circuit, so that contributions there are complete: ``"bipolar"``,
    the rectified outputs of bipolar cells, each by all ways that it takes; and
    ``"ganglion_input"``, the same outputs on their direct way to the ganglion cells beside those
    of amacrine cells (see `excitation_and_inhibition`). ``"amacrine"`` is one way alone.
    ``predict`` gives the true rates; contributions of this model are the true contributions.

    Parameters
    ----------
    name_or_yaml : str, path or CircuitSpecification
        ``"default"``, another circuit of the package (``"drawn_1"``, ``"drawn_2"``,
        ``"drawn_3"``, ``"first"``), a YAML file of the same form, or a circuit as an object.
    movie : DataArray, optional
        A movie (time, y, x) to take shape, pixel size and bin width from.
    shape : tuple of int, optional
        Height and width of the movies in pixels, without `movie`: by default 24 x 24. Cells lie
        round the middle; beyond the edge there is grey.
    pixel_size : float or quantity, optional
        Side of a pixel in um. By default that of the movie's coordinates, or, where these count
        pixels, the one that the circuit's file names (50 um).
    bin_width : float or quantity, optional
        Duration of a frame in seconds, without `movie`: by default 0.01.

    Returns
    -------
    Circuit
        A `RetinaModel`: takes movies (time, y, x) in contrast units and gives rates (time, cell)
        in Hz, for every frame with a whole history; cells are called by type and number
        (``"on_sustained_0"``). Its parameters are frozen.

    Raises
    ------
    ValueError
        If there is no such circuit, its description is wrong, the movie's coordinates are not in
        um, mm or pixels or its pixels or bins are too coarse, or cells are outside the field.

    Examples
    --------
    >>> from retina_codec import simulation, stimuli
    >>> model = simulation.circuit("default")
    >>> rate = model.predict(stimuli.white_noise(n_frames=100, seed=0))
    >>> rate.sizes["time"], rate.attrs["units"], str(rate["cell"].values[0])
    (61, 'Hz', 'on_sustained_0')
    """
    if isinstance(name_or_yaml, CircuitSpecification):
        specification = name_or_yaml
    else:
        specification = read_specification(name_or_yaml)
    size = None if pixel_size is None else float(magnitude(pixel_size, "um", "pixel_size"))
    if size is not None and not size > 0:
        raise ValueError(f"pixel_size={pixel_size!r}; expected um above 0")
    if movie is not None:
        if shape is not None or bin_width is not None:
            raise ValueError("shape and bin_width are those of movie: give either, not both")
        field = field_of(movie, specification, pixel_size=size, argument="movie")
    else:
        default = specification.pixel_size if size is None else size
        if default is None:
            raise ValueError(
                f"pixel_size is not given, and circuit {specification.name!r} names none: give the "
                "side of a pixel in um"
            )
        height, width = _checked_shape((24, 24) if shape is None else shape)
        seconds = 0.01 if bin_width is None else float(magnitude(bin_width, "s", "bin_width"))
        field = Field((height, width), default, seconds)
    require_field(field, specification, "movie" if movie is not None else "shape")
    return Circuit(specification, field)


def excitation_and_inhibition(contribution: xr.DataArray, model: Circuit) -> xr.Dataset:
    """Sum contributions at the ganglion cells' inputs over bipolar, and over amacrine cells.

    Bipolar cells excite ganglion cells and amacrine cells inhibit them, so the two sums are what
    reached a cell by excitation and by inhibition. They exist at this cut only: at ``"bipolar"`` a
    channel acts by both ways at once, and the sign of a contribution is not that of a synapse
    either (less inhibition than at the baseline raises the rate).

    Parameters
    ----------
    contribution : DataArray
        Contributions of `model` at the layer ``"ganglion_input"``, with the dim `channel`.
    model : Circuit
        The circuit.

    Returns
    -------
    Dataset
        `excitation` and `inhibition`, summed over channel (and y, x), in the units of the
        contributions.

    Raises
    ------
    ValueError
        If the channels are not those of this layer.

    Examples
    --------
    >>> import retina_codec as rc
    >>> model = rc.simulation.circuit("default", shape=(14, 14))
    >>> movie = rc.stimuli.white_noise(n_frames=45, shape=(14, 14), seed=0)
    >>> tree = rc.contributions(model, movie, sum_over=("y", "x"), progress=False)
    >>> received = tree["layers/ganglion_input"]["contribution"]
    >>> sorted(rc.simulation.excitation_and_inhibition(received, model).data_vars)
    ['excitation', 'inhibition']
    """
    expected = model.channels["ganglion_input"].tolist()
    if "channel" not in contribution.dims or contribution["channel"].values.tolist() != expected:
        raise ValueError(
            "contribution is not of the layer 'ganglion_input': expected the channels "
            f"{', '.join(expected)}"
        )
    direct = list(model.specification.bipolar)
    over = [dim for dim in ("channel", "y", "x") if dim in contribution.dims]
    is_direct = np.isin(contribution["channel"].values, direct)
    parts = {"excitation": is_direct, "inhibition": ~is_direct}
    return xr.Dataset(
        {
            name: contribution.isel(channel=chosen)
            .sum(over)
            .assign_attrs(contribution.attrs, long_name=f"contribution of {name}")
            for name, chosen in parts.items()
        }
    )


def field_of(
    movie: xr.DataArray,
    specification: CircuitSpecification,
    *,
    pixel_size: float | None = None,
    argument: str,
) -> Field:
    """Shape, pixel size and bin width of a movie (time, y, x)."""
    movie = require_dims(movie, ("time", "y", "x"), argument)
    default = specification.pixel_size if pixel_size is None else pixel_size
    return Field(
        (movie.sizes["y"], movie.sizes["x"]),
        pixel_size_of(movie, default, argument),
        bin_width_of(movie, argument),
    )


def pixel_size_of(movie: xr.DataArray, default: float | None, argument: str) -> float:
    """Side of a pixel in um: from coordinates in um or mm; `default` where these count pixels."""
    found = set()
    for axis in ("y", "x"):
        units = movie[axis].attrs.get("units", "pixel") if axis in movie.coords else "pixel"
        if units in INDICES or movie.sizes[axis] < 2:
            continue
        if units not in MICROMETRES:
            raise ValueError(
                f"{argument} has coordinate {axis!r} in {units!r}; expected micrometres on the "
                "retina ('um'; or 'mm', or 'pixel' with pixel_size=): convert it"
            )
        steps = np.diff(movie[axis].values.astype(np.float64)) * MICROMETRES[units]
        if not (steps[0] > 0 and np.allclose(steps, steps[0], rtol=PITCH_TOLERANCE)):
            raise ValueError(f"{argument}: coordinate {axis!r} does not grow in equal steps")
        found.add(float(np.round(steps.mean(), 6)))
    if len(found) > 1:
        raise ValueError(
            f"{argument} has pixels of {' x '.join(f'{one:g}' for one in sorted(found))} um; "
            "expected square ones"
        )
    if found:
        return found.pop()
    if default is None:
        raise ValueError(
            f"{argument} has no pixel size: its coordinates count pixels, and the circuit names no "
            "pixel_size: give pixel_size= in um, or coordinates y and x with units 'um'"
        )
    return default


def require_field(field: Field, specification: CircuitSpecification, argument: str) -> None:
    """Raise unless the circuit can be built for movies of this size, pixel size and bin width."""
    name = specification.name
    kinds: list[BipolarType] = list(specification.bipolar.values())
    shortest = min(kind.tau for kind in kinds) / 1000
    if not 0 < field.bin_width <= LONGEST_BIN * shortest:
        raise ValueError(
            f"{argument} has bins of {field.bin_width:g} s; the fastest bipolar cells of circuit "
            f"{name!r} need at most {LONGEST_BIN * shortest:.3g} s: make it with a shorter "
            "bin_width"
        )
    finest = min(kind.centre_sd for kind in kinds)
    if field.pixel_size > COARSEST_PIXEL * finest:
        raise ValueError(
            f"{argument} has pixels of {field.pixel_size:g} um; the centres of circuit {name!r} "
            f"need at most {COARSEST_PIXEL * finest:g} um: is the pixel size right?"
        )
    height, width = field.size
    least = 2 * specification.margin + specification.spacing
    if min(height, width) < least:
        raise ValueError(
            f"{argument} is {height:g} x {width:g} um ({field.shape[0]} x {field.shape[1]} pixels "
            f"of {field.pixel_size:g} um); circuit {name!r} needs at least {least:g} x {least:g} um"
        )
    for kind, ganglion in specification.ganglion.items():
        for cell in ganglion.placed:
            if abs(cell.y) > height / 2 or abs(cell.x) > width / 2:
                key = "cells" if ganglion.mosaic is None else "mosaic.extent"
                raise ValueError(
                    f"circuit.ganglion.{kind}.{key}: a cell at y={cell.y:g}, x={cell.x:g} um is "
                    f"outside the movie, {height:g} x {width:g} um round the middle "
                    f"({field.shape[0]} x {field.shape[1]} pixels of {field.pixel_size:g} um): "
                    "give a larger movie or a smaller mosaic"
                )


def _checked_shape(shape: tuple[int, int]) -> tuple[int, int]:
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"shape={shape!r}; expected (height, width) in pixels")
    return int(shape[0]), int(shape[1])
