"""What a circuit is made of: types of neurons, their parameters and inputs, read from YAML."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from retina_codec._common.checks import nearest_names
from retina_codec.simulation.mosaic import Mosaic, mosaic_places

CIRCUITS = Path(__file__).parent / "circuits"
UNITS = {"length": "um", "time": "ms", "rate": "Hz", "potential": "mV"}
PROCESSES = ("poisson", "refractory")
CHOSEN = "chosen"  # the source of a range that no paper gives
PARAMETER = {"value", "range", "source"}

Part = TypeVar("Part")


@dataclass(frozen=True)
class Range:
    """Where a parameter may lie, and who says so: a key of `sources`, or ``"chosen"``."""

    low: float
    high: float
    source: str


@dataclass(frozen=True)
class Photoreceptor:
    """A low-pass filter that all bipolar cells share.

    Over lag t it is proportional to ``(t / tau)^order exp(-order (t / tau - 1))``, with the sum 1.
    """

    tau: float  # ms, time to the peak
    order: float


@dataclass(frozen=True)
class BipolarType:
    """A lattice of bipolar cells: a temporal kernel times a difference of Gaussians, rectified.

    The kernel over lag t is ``p(t - delay; tau) - late_weight p(t - delay; late_tau)`` with
    ``p(t; tau)`` proportional to ``(t / tau)^order exp(-order (t / tau - 1))`` and of sum 1,
    convolved with that of the photoreceptor.
    """

    polarity: float  # 1 = ON, -1 = OFF
    tau: float  # ms, time to the peak
    order: float
    late_tau: float  # ms
    late_weight: float
    delay: float  # ms
    centre_sd: float  # um
    surround_sd: float  # um
    surround_weight: float  # of a centre of weight 1
    threshold: float  # in standard deviations of the drive on natural movies
    scale: float = 1.0  # calibrated: makes that standard deviation 1


@dataclass(frozen=True)
class AmacrineType:
    """A lattice of amacrine cells: rectified sums of bipolar outputs under a Gaussian."""

    inputs: Mapping[str, float]  # weight of each bipolar type
    sd: float  # um
    threshold: float


@dataclass(frozen=True)
class Input:
    """What a ganglion cell takes from one type of interneuron: a Gaussian pool, or a ring."""

    source: str
    weight: float  # above 0 of bipolar types (excitation), below 0 of amacrine types (inhibition)
    sd: float  # um
    inner_sd: float = 0.0  # um: what is left out in the middle of a ring
    ahead: float = 0.0  # um: shift of the pool towards the cell's preferred direction


@dataclass(frozen=True)
class Cell:
    """A ganglion cell: where it is, and numbers of calibration where it does not share its type's.

    `y` and `x` are in um from the middle of the field, y downwards.
    """

    y: float
    x: float
    preferred_direction: float | None = None  # degrees
    scale: float | None = None
    offset: float | None = None


@dataclass(frozen=True)
class GanglionType:
    """A type of ganglion cells: the same inputs, at the places of a mosaic or at listed ones."""

    inputs: tuple[Input, ...]
    mosaic: Mosaic | None = None
    cells: tuple[Cell, ...] = ()
    mean_rate: float = 7.5  # Hz on natural movies, of each cell or in the mean of a mosaic
    scale: float = 1.0  # calibrated
    offset: float = 0.0  # calibrated: makes that mean rate

    @property
    def placed(self) -> tuple[Cell, ...]:
        """All cells with their places and calibration."""
        cells = self.cells
        if self.mosaic is not None:
            cells = tuple(Cell(*place) for place in mosaic_places(self.mosaic))
        return tuple(
            dataclasses.replace(
                cell,
                scale=self.scale if cell.scale is None else cell.scale,
                offset=self.offset if cell.offset is None else cell.offset,
            )
            for cell in cells
        )


@dataclass(frozen=True)
class Spiking:
    """How rates become spikes.

    ``"poisson"``, or ``"refractory"``: after a spike the cell recovers as
    ``w(t) = 1 - exp(-(t - absolute) / relative)`` from ``t = absolute`` on, before as 0.
    """

    process: str = "poisson"
    absolute: float = 0.0  # ms
    relative: float = 0.0  # ms


@dataclass(frozen=True)
class CircuitSpecification:
    """A retina: bipolar, amacrine and ganglion cells by type, and what they share.

    Lengths are in um, times in ms.

    Attributes
    ----------
    name : str
        Name of the circuit.
    memory : float
        ms of the past that a response depends on.
    spacing : float
        um between neighbours on the square lattice of interneurons, centred on the field.
    margin : float
        um at the edge of the field without interneurons.
    bipolar_reach, amacrine_reach : float
        um from its middle to where a Gaussian of a bipolar (on pixels) or amacrine cell (on
        bipolar cells) is cut, in y and in x.
    output_gain : float
        Hz; a cell fires at ``output_gain * softplus(scale * input + offset)``.
    resting_potential, potential_gain : float
        mV, and mV per unit of drive: how the drive of an interneuron is given as a potential.
    bipolar, amacrine, ganglion : mapping of str to types
        By name.
    photoreceptor : Photoreceptor, optional
        Without it, bipolar cells see the movie itself.
    spiking : Spiking
        How rates become spikes.
    pixel_size : float, optional
        um; that of movies whose coordinates are pixel indices. Without it they are refused.
    sources : mapping of str to str
        Publications by key.
    ranges : mapping of str to Range
        By the path of the parameter, such as ``"bipolar.on_transient.tau"``.
    """

    name: str
    memory: float
    spacing: float
    margin: float
    bipolar_reach: float
    amacrine_reach: float
    output_gain: float
    resting_potential: float
    potential_gain: float
    bipolar: Mapping[str, BipolarType]
    amacrine: Mapping[str, AmacrineType]
    ganglion: Mapping[str, GanglionType]
    photoreceptor: Photoreceptor | None = None
    spiking: Spiking = field(default_factory=Spiking)
    pixel_size: float | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)

    @property
    def cells(self) -> dict[str, tuple[str, Cell]]:
        """Type and parameters of every ganglion cell, by id: the type and a number."""
        return {
            f"{kind}_{i}": (kind, cell)
            for kind, ganglion in self.ganglion.items()
            for i, cell in enumerate(ganglion.placed)
        }

    def to_mapping(self) -> dict[str, Any]:
        """Return plain dicts, lists and numbers, as the YAML file has them."""
        plain: dict[str, Any] = _without_none(dataclasses.asdict(self))
        del plain["ranges"]
        for ganglion in plain["ganglion"].values():
            if not ganglion["cells"]:
                del ganglion["cells"]
        for path, allowed in self.ranges.items():
            *above, last = parameter_keys(path)
            part: Any = plain
            for key in above:
                part = part[key]
            part[last] = {
                "value": part[last],
                "range": [allowed.low, allowed.high],
                "source": allowed.source,
            }
        return {"name": plain.pop("name"), "units": dict(UNITS), **plain}


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
    content = _mapping(content, "circuit")
    _require_units(content.get("units"))
    ranges: dict[str, Range] = {}
    plain = _plain(content, "", ranges)
    del plain["units"]
    plain["bipolar"] = _parts(BipolarType, plain.get("bipolar"), "circuit.bipolar")
    plain["amacrine"] = _parts(AmacrineType, plain.get("amacrine"), "circuit.amacrine")
    ganglion = {}
    for name, entry in _mapping(plain.get("ganglion"), "circuit.ganglion").items():
        where = f"circuit.ganglion.{name}"
        entry = dict(_mapping(entry, where))
        entry["inputs"] = _listed(Input, entry.get("inputs"), f"{where}.inputs")
        if ("cells" in entry) == ("mosaic" in entry):
            raise ValueError(f"{where} needs either mosaic: or cells:, one of the two")
        if "cells" in entry:
            entry["cells"] = _listed(Cell, entry["cells"], f"{where}.cells")
        else:
            entry["mosaic"] = _part(Mosaic, entry["mosaic"], f"{where}.mosaic")
        ganglion[str(name)] = _part(GanglionType, entry, where)
    plain["ganglion"] = ganglion
    for name, kind in (("photoreceptor", Photoreceptor), ("spiking", Spiking)):
        if name in plain:
            plain[name] = _part(kind, plain[name], f"circuit.{name}")
    plain["ranges"] = ranges
    specification = _part(CircuitSpecification, plain, "circuit")
    _check(specification)
    return specification


def _require_units(units: Any) -> None:
    """Raise unless a file says these units: in others its numbers would mean something else."""
    if units != UNITS:
        raise ValueError(
            f"circuit.units is {units!r}; expected {UNITS}: give lengths in um, times in ms, rates "
            "in Hz and potentials in mV"
        )


def parameter_keys(path: str) -> list[Any]:
    """Keys and list numbers of a path: ``"a.inputs[0].sd"`` -> ``["a", "inputs", 0, "sd"]``."""
    parts = path.replace("[", ".[").split(".")
    return [int(part[1:-1]) if part.startswith("[") else part for part in parts]


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value]
    return value


def _plain(value: Any, path: str, ranges: dict[str, Range]) -> Any:
    """Numbers in place of ``{value, range, source}``; the ranges are noted by path."""
    if isinstance(value, Mapping):
        if "value" in value:
            ranges[path] = _range(value, f"circuit.{path}")
            return value["value"]
        return {
            str(key): _plain(item, f"{path}.{key}" if path else str(key), ranges)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_plain(item, f"{path}[{i}]", ranges) for i, item in enumerate(value)]
    return value


def _range(value: Mapping[str, Any], where: str) -> Range:
    if set(value) != PARAMETER:
        raise ValueError(
            f"{where} has the entries {', '.join(map(str, value))}; expected value, range and "
            "source"
        )
    limits = value["range"]
    if not isinstance(limits, list) or len(limits) != 2:
        raise ValueError(f"{where}.range is {limits!r}; expected [lowest, highest]")
    for number, name in ((value["value"], "value"), (limits[0], "range"), (limits[1], "range")):
        _number(number, f"{where}.{name}")
    if not limits[0] <= value["value"] <= limits[1]:
        raise ValueError(
            f"{where}.value is {value['value']!r}, which is outside its range {limits}"
        )
    return Range(float(limits[0]), float(limits[1]), str(value["source"]))


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
    for name, one in fields.items():
        default = one.default
        if one.default_factory is not dataclasses.MISSING:
            default = None
        if name not in value and default is dataclasses.MISSING:
            raise ValueError(f"{where} has no entry {name!r}; expected all of {', '.join(fields)}")
        given = value.get(name, default)
        if one.type == "float" or (one.type == "float | None" and given is not None):
            _number(given, f"{where}.{name}")
        if one.type == "int" and (isinstance(given, bool) or not isinstance(given, int)):
            raise ValueError(f"{where}.{name} is {given!r}; expected a whole number")
        if one.type == "tuple[float, ...]":
            if not isinstance(given, list | tuple):
                raise ValueError(f"{where}.{name} is {given!r}; expected a list of numbers")
            for i, number in enumerate(given):
                _number(number, f"{where}.{name}[{i}]")
            value = {**value, name: tuple(given)}
    return kind(**value)


def _number(value: Any, where: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise ValueError(f"{where} is {value!r}; expected a number")


def _positive(part: Any, where: str, **units: str) -> None:
    for name, unit in units.items():
        _at_least(part, where, name, unit, above=True)


def _at_least(part: Any, where: str, name: str, unit: str, *, above: bool = False) -> None:
    value = getattr(part, name)
    if not (value > 0 if above else value >= 0):
        what = f"a number {'above' if above else 'of at least'} 0"
        raise ValueError(
            f"{where}.{name} is {value!r}; expected {what}{f', in {unit}' if unit else ''}"
        )


def _known(source: str, choices: Mapping[str, Any], where: str) -> None:
    if source not in choices:
        raise ValueError(f"{where}: no type {source!r}; {nearest_names(source, choices)}")


def _check(circuit: CircuitSpecification) -> None:
    """Check what no single entry shows: ranges, and that inputs come from types there are."""
    _positive(
        circuit, "circuit", memory="ms", spacing="um", bipolar_reach="um", amacrine_reach="um",
        output_gain="Hz", potential_gain="mV",
    )  # fmt: skip
    _at_least(circuit, "circuit", "margin", "um")
    if circuit.pixel_size is not None:
        _positive(circuit, "circuit", pixel_size="um")
    if circuit.photoreceptor is not None:
        _positive(circuit.photoreceptor, "circuit.photoreceptor", tau="ms", order="")
    _check_spiking(circuit.spiking)
    both = sorted(set(circuit.bipolar) & set(circuit.amacrine))
    if both:
        raise ValueError(f"circuit has bipolar and amacrine types of the same name: {both}")
    for name, bipolar in circuit.bipolar.items():
        where = f"circuit.bipolar.{name}"
        _positive(
            bipolar, where, tau="ms", order="", late_tau="ms", centre_sd="um", surround_sd="um",
            scale="",
        )  # fmt: skip
        _at_least(bipolar, where, "delay", "ms")
        if bipolar.polarity not in (1, -1):
            raise ValueError(
                f"{where}.polarity is {bipolar.polarity!r}; expected 1 (ON) or -1 (OFF)"
            )
        if bipolar.delay + bipolar.tau >= circuit.memory:
            raise ValueError(
                f"{where}: delay + tau is {bipolar.delay + bipolar.tau:g} ms, beyond the "
                f"{circuit.memory:g} ms of circuit.memory: raise that, or give shorter times"
            )
    for name, amacrine in circuit.amacrine.items():
        where = f"circuit.amacrine.{name}"
        _positive(amacrine, where, sd="um")
        for source, weight in _mapping(amacrine.inputs, f"{where}.inputs").items():
            _known(source, circuit.bipolar, f"{where}.inputs")
            _number(weight, f"{where}.inputs.{source}")
    for name, ganglion in circuit.ganglion.items():
        _check_ganglion(circuit, ganglion, f"circuit.ganglion.{name}")
    for path, allowed in circuit.ranges.items():
        if allowed.source != CHOSEN and allowed.source not in circuit.sources:
            raise ValueError(
                f"circuit.{path}.source is {allowed.source!r}, which is not {CHOSEN!r} nor among "
                f"circuit.sources; {nearest_names(allowed.source, circuit.sources)}"
            )


def _check_spiking(spiking: Spiking) -> None:
    if spiking.process not in PROCESSES:
        raise ValueError(
            f"circuit.spiking.process is {spiking.process!r}; "
            f"{nearest_names(spiking.process, PROCESSES)}"
        )
    _at_least(spiking, "circuit.spiking", "absolute", "ms")
    _at_least(spiking, "circuit.spiking", "relative", "ms")


def _check_ganglion(circuit: CircuitSpecification, ganglion: GanglionType, where: str) -> None:
    if ganglion.mosaic is not None:
        _positive(ganglion.mosaic, f"{where}.mosaic", spacing="um", extent="um")
        _at_least(ganglion.mosaic, f"{where}.mosaic", "jitter", "")
    cells = ganglion.placed
    directed = all(cell.preferred_direction is not None for cell in cells)
    for i, pool in enumerate(ganglion.inputs):
        here = f"{where}.inputs[{i}]"
        _known(pool.source, {**circuit.bipolar, **circuit.amacrine}, here)
        _positive(pool, here, sd="um")
        _at_least(pool, here, "inner_sd", "um")
        excites = pool.source in circuit.bipolar
        if not (pool.weight > 0 if excites else pool.weight < 0):
            raise ValueError(
                f"{here}.weight is {pool.weight!r}; bipolar cells excite (above 0) and amacrine "
                f"cells inhibit (below 0), and {pool.source!r} is "
                f"{'a bipolar' if excites else 'an amacrine'} type"
            )
        if pool.ahead and not directed:
            raise ValueError(
                f"{here}.ahead is {pool.ahead!r}, but not every cell has a direction: give "
                "mosaic.directions, or preferred_direction with each cell, in degrees"
            )
    _positive(ganglion, where, mean_rate="Hz", scale="")
    for i, cell in enumerate(cells):
        _positive(cell, f"{where}.cells[{i}]", scale="")
