"""What a circuit is made of: types of neurons, their parameters and inputs, read from YAML."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from retina_codec._common.checks import nearest_names

CIRCUITS = Path(__file__).parent / "circuits"

Part = TypeVar("Part")


@dataclass(frozen=True)
class BipolarType:
    """A mosaic of bipolar cells: a temporal kernel times a difference of Gaussians, rectified.

    The kernel over lag t is ``p(t - delay; tau) - late_weight p(t - delay; late_tau)`` with
    ``p(t; tau)`` proportional to ``(t / tau)^order exp(-order (t / tau - 1))`` and of sum 1.
    """

    polarity: float  # 1 = ON, -1 = OFF
    tau: float  # s, time to the peak
    order: float
    late_tau: float  # s
    late_weight: float
    delay: float  # s
    centre_sd: float  # pixels
    surround_sd: float  # pixels
    surround_weight: float  # of a centre of weight 1
    threshold: float  # in standard deviations of the drive on natural movies
    scale: float = 1.0  # calibrated: makes that standard deviation 1


@dataclass(frozen=True)
class AmacrineType:
    """A mosaic of amacrine cells: rectified sums of bipolar outputs under a Gaussian."""

    inputs: Mapping[str, float]  # weight of each bipolar type
    sd: float  # pixels
    threshold: float


@dataclass(frozen=True)
class Input:
    """What a ganglion cell takes from one type of interneuron: a Gaussian pool, or a ring."""

    source: str
    weight: float
    sd: float  # pixels
    inner_sd: float = 0.0  # pixels: what is left out in the middle of a ring
    ahead: float = 0.0  # pixels: shift of the pool towards the cell's preferred direction


@dataclass(frozen=True)
class Cell:
    """A ganglion cell of a type: where it is, and the numbers found by calibration."""

    y: float  # pixels from the middle of the field
    x: float
    preferred_direction: float | None = None  # degrees
    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True)
class GanglionType:
    """A type of ganglion cells: the same inputs at different places."""

    inputs: tuple[Input, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class CircuitSpecification:
    """A retina: bipolar, amacrine and ganglion cells by type, and what they share.

    Attributes
    ----------
    name : str
        Name of the circuit.
    bin_width : float
        Duration of a frame in seconds.
    history : int
        Frames that a response depends on.
    bipolar_size, amacrine_size : int
        Side of the receptive field of a bipolar cell in pixels, and of an amacrine cell in
        bipolar cells (one a pixel); odd.
    output_gain : float
        Hz; a cell fires at ``output_gain * softplus(scale * input + offset)``.
    resting_potential, potential_gain : float
        mV, and mV per unit of drive: how the drive of an interneuron is given as a potential.
    bipolar, amacrine, ganglion : mapping of str to types
        By name.
    """

    name: str
    bin_width: float
    history: int
    bipolar_size: int
    amacrine_size: int
    output_gain: float
    resting_potential: float
    potential_gain: float
    bipolar: Mapping[str, BipolarType]
    amacrine: Mapping[str, AmacrineType]
    ganglion: Mapping[str, GanglionType]

    @property
    def cells(self) -> dict[str, tuple[str, Cell]]:
        """Type and parameters of every ganglion cell, by id: the type and a number."""
        return {
            f"{kind}_{i}": (kind, cell)
            for kind, ganglion in self.ganglion.items()
            for i, cell in enumerate(ganglion.cells)
        }

    def to_mapping(self) -> dict[str, Any]:
        """Return plain dicts, lists and numbers, as the YAML file has them."""
        plain: dict[str, Any] = dataclasses.asdict(self)
        for ganglion in plain["ganglion"].values():
            ganglion.update(inputs=list(ganglion["inputs"]), cells=list(ganglion["cells"]))
        return plain


def read_specification(name_or_yaml: str | os.PathLike[str]) -> CircuitSpecification:
    """Read a circuit that comes with the package, by name, or a YAML file.

    Raises
    ------
    ValueError
        If there is no such circuit or file, or if the file does not describe a circuit.
    """
    shipped = {path.stem: path for path in sorted(CIRCUITS.glob("*.yaml"))}
    if str(name_or_yaml) in shipped:
        path = shipped[str(name_or_yaml)]
    else:
        path = Path(name_or_yaml)
        if path.suffix not in (".yaml", ".yml"):
            raise ValueError(
                f"circuit={str(name_or_yaml)!r} is not the path of a YAML file, nor the name of a "
                f"circuit in the package; {nearest_names(name_or_yaml, shipped)}"
            )
        if not path.is_file():
            raise ValueError(f"circuit={str(name_or_yaml)!r}: there is no such file")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"circuit={str(name_or_yaml)!r} is not valid YAML: {error}") from error
    return parse_specification(content)


def parse_specification(content: Any) -> CircuitSpecification:
    """Turn the content of a YAML file into a checked `CircuitSpecification`.

    Raises
    ------
    ValueError
        Naming the first entry that is missing, unknown or out of range.
    """
    plain = dict(_mapping(content, "circuit"))
    plain["bipolar"] = _parts(BipolarType, plain.get("bipolar"), "circuit.bipolar")
    plain["amacrine"] = _parts(AmacrineType, plain.get("amacrine"), "circuit.amacrine")
    ganglion = {}
    for name, entry in _mapping(plain.get("ganglion"), "circuit.ganglion").items():
        where = f"circuit.ganglion.{name}"
        entry = dict(_mapping(entry, where))
        entry["inputs"] = _listed(Input, entry.get("inputs"), f"{where}.inputs")
        entry["cells"] = _listed(Cell, entry.get("cells"), f"{where}.cells")
        ganglion[str(name)] = _part(GanglionType, entry, where)
    plain["ganglion"] = ganglion
    specification = _part(CircuitSpecification, plain, "circuit")
    _check(specification)
    return specification


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"{where} is {value!r}; expected a mapping of names to values")
    return value


def _parts(kind: type[Part], value: Any, where: str) -> dict[str, Part]:
    entries = _mapping(value, where)
    return {str(name): _part(kind, entry, f"{where}.{name}") for name, entry in entries.items()}


def _listed(kind: type[Part], value: Any, where: str) -> tuple[Part, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{where} is {value!r}; expected a list of mappings")
    return tuple(_part(kind, part, f"{where}[{i}]") for i, part in enumerate(value))


def _part(kind: type[Part], value: Any, where: str) -> Part:
    """Make one dataclass of a mapping with its keys; numbers have to be numbers."""
    value = _mapping(value, where)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name in value:
        if name not in fields:
            raise ValueError(
                f"{where} has an unknown entry {name!r}; {nearest_names(name, fields)}"
            )
    for name, field in fields.items():
        if name not in value and field.default is dataclasses.MISSING:
            raise ValueError(f"{where} has no entry {name!r}; expected all of {', '.join(fields)}")
        given = value.get(name, field.default)
        if field.type == "float" or (field.type == "float | None" and given is not None):
            _number(given, f"{where}.{name}")
        if field.type == "int" and (isinstance(given, bool) or not isinstance(given, int)):
            raise ValueError(f"{where}.{name} is {given!r}; expected a whole number")
    return kind(**value)


def _number(value: Any, where: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise ValueError(f"{where} is {value!r}; expected a number")


def _positive(part: Any, where: str, *names: str) -> None:
    for name in names:
        if not getattr(part, name) > 0:
            raise ValueError(
                f"{where}.{name} is {getattr(part, name)!r}; expected a number above 0"
            )


def _known(source: str, choices: Mapping[str, Any], where: str) -> None:
    if source not in choices:
        raise ValueError(f"{where}: no type {source!r}; {nearest_names(source, choices)}")


def _check(circuit: CircuitSpecification) -> None:
    """Check what no single entry shows: ranges, and that inputs come from types there are."""
    _positive(circuit, "circuit", "bin_width", "history", "output_gain", "potential_gain")
    for name in ("bipolar_size", "amacrine_size"):
        size = getattr(circuit, name)
        if size < 1 or size % 2 == 0:
            raise ValueError(f"circuit.{name} is {size!r}; expected an odd number of pixels")
    both = sorted(set(circuit.bipolar) & set(circuit.amacrine))
    if both:
        raise ValueError(f"circuit has bipolar and amacrine types of the same name: {both}")
    for name, bipolar in circuit.bipolar.items():
        where = f"circuit.bipolar.{name}"
        _positive(bipolar, where, "tau", "order", "late_tau", "centre_sd", "surround_sd", "scale")
        if bipolar.polarity not in (1, -1):
            raise ValueError(
                f"{where}.polarity is {bipolar.polarity!r}; expected 1 (ON) or -1 (OFF)"
            )
        if not bipolar.delay >= 0:
            raise ValueError(f"{where}.delay is {bipolar.delay!r}; expected seconds of at least 0")
    for name, amacrine in circuit.amacrine.items():
        where = f"circuit.amacrine.{name}"
        _positive(amacrine, where, "sd")
        for source, weight in _mapping(amacrine.inputs, f"{where}.inputs").items():
            _known(source, circuit.bipolar, f"{where}.inputs")
            _number(weight, f"{where}.inputs.{source}")
    for name, ganglion in circuit.ganglion.items():
        where = f"circuit.ganglion.{name}"
        for i, pool in enumerate(ganglion.inputs):
            _known(pool.source, {**circuit.bipolar, **circuit.amacrine}, f"{where}.inputs[{i}]")
            _positive(pool, f"{where}.inputs[{i}]", "sd")
            if not pool.inner_sd >= 0:
                raise ValueError(
                    f"{where}.inputs[{i}].inner_sd is {pool.inner_sd!r}; expected at least 0"
                )
            directed = all(cell.preferred_direction is not None for cell in ganglion.cells)
            if pool.ahead and not directed:
                raise ValueError(
                    f"{where}.inputs[{i}].ahead is {pool.ahead!r}, but not every cell has a "
                    "preferred_direction: add it in degrees"
                )
        for i, cell in enumerate(ganglion.cells):
            _positive(cell, f"{where}.cells[{i}]", "scale")
