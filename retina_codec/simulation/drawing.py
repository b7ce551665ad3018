"""Circuits drawn from the ranges that a circuit's file gives, and files of circuits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from retina_codec._common.checks import require_count
from retina_codec._common.files import written_beside
from retina_codec.simulation.calibration import calibrate
from retina_codec.simulation.specification import (
    PARAMETER,
    CircuitSpecification,
    parameter_keys,
    parse_specification,
    read_specification,
)

DIGITS = 4  # that a drawn number keeps
MOSAIC_SEEDS = 2**16
LONG = 100  # characters of a mapping that is not put on one line


def draw_circuit(
    seed: int,
    circuit: str | os.PathLike[str] | CircuitSpecification = "default",
    *,
    name: str | None = None,
) -> CircuitSpecification:
    """Draw a circuit: each parameter uniformly from its range, mosaics anew, then calibrated.

    Parameters
    ----------
    seed : int
        Of what is drawn.
    circuit : str, path or CircuitSpecification
        The circuit whose ranges are used; parameters without a range stay as they are.
    name : str, optional
        Name of the new circuit; by default that of the old one with the seed.

    Returns
    -------
    CircuitSpecification
        With the same ranges, calibrated as by `calibrate`. `write_circuit` keeps it.

    Raises
    ------
    TypeError
        If `seed` is not whole.
    ValueError
        If there is no such circuit, or it gives no range.

    Examples
    --------
    >>> from retina_codec import simulation
    >>> drawn = simulation.draw_circuit(7)
    >>> limits = drawn.ranges["bipolar.on_transient.tau"]
    >>> drawn.name, limits.low <= drawn.bipolar["on_transient"].tau <= limits.high
    ('default_7', True)
    """
    require_count(seed, 0, "seed")
    old = circuit if isinstance(circuit, CircuitSpecification) else read_specification(circuit)
    return calibrate(drawn_parameters(old, seed, name or f"{old.name}_{seed}"))


def drawn_parameters(circuit: CircuitSpecification, seed: int, name: str) -> CircuitSpecification:
    """Draw all parameters that have a range, and the phases of the mosaics; not calibrated."""
    if not circuit.ranges:
        raise ValueError(
            f"circuit {circuit.name!r} gives no ranges to draw from; write parameters as "
            "{value: ..., range: [lowest, highest], source: ...}"
        )
    rng = np.random.default_rng(seed)
    plain = circuit.to_mapping()
    for path in sorted(circuit.ranges):
        part: Any = plain
        for key in parameter_keys(path):
            part = part[key]
        low, high = part["range"]
        drawn = rng.uniform(low, high)
        part["value"] = min(max(float(f"{drawn:.{DIGITS}g}"), low), high)
    for kind in sorted(plain["ganglion"]):
        mosaic = plain["ganglion"][kind].get("mosaic")
        if mosaic is not None:
            mosaic["seed"] = int(rng.integers(MOSAIC_SEEDS))
    plain["name"] = name
    return parse_specification(plain)


def write_circuit(
    circuit: CircuitSpecification, path: str | os.PathLike[str], *, comment: str = ""
) -> Path:
    """Write a circuit as a YAML file that `retina_codec.simulation.circuit` reads.

    Parameters
    ----------
    circuit : CircuitSpecification
        The circuit.
    path : path
        Of the file; its end is .yaml or .yml.
    comment : str
        Lines put at the top.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    ValueError
        If the path has another end.
    OSError
        If it cannot be written.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from retina_codec import simulation
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> mine = simulation.read_specification("default")
    >>> path = simulation.write_circuit(mine, folder / "mine.yaml")
    >>> simulation.read_specification(path) == mine
    True
    """
    path = Path(path)
    if path.suffix not in (".yaml", ".yml"):
        raise ValueError(f"path={str(path)!r}; expected a file that ends in .yaml")
    top = "".join(f"# {line}\n" for line in comment.splitlines())
    body = yaml.dump(
        circuit.to_mapping(), Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=100
    )
    with written_beside(path) as fresh:
        Path(fresh).write_text(top + body, encoding="utf-8")
    return path


class _Dumper(yaml.SafeDumper):
    """Writes a parameter with its range on one line, and a shared mapping out each time."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent(dumper: _Dumper, data: dict[str, Any]) -> yaml.MappingNode:
    node = dumper.represent_mapping("tag:yaml.org,2002:map", data)
    if set(data) == PARAMETER:
        node.flow_style = True
    elif sum(len(str(value)) for value in data.values()) > LONG:
        node.flow_style = False
    return node


_Dumper.add_representer(dict, _represent)
