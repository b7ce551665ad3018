"""What is known: nodes of a simulation, the circuit that made them, models of the same cells."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr

from retina_codec._common.checks import nearest_names
from retina_codec.models.model import RetinaModel
from retina_codec.simulation import Circuit, CircuitSpecification
from retina_codec.simulation import circuit as build_circuit

CircuitLike = Circuit | CircuitSpecification | str | os.PathLike[str]


def node_of(
    simulation: Any, name: str, argument: str, variables: Sequence[str]
) -> tuple[xr.Dataset, str]:
    """Return a node with the true signals that are needed, and what to call it in errors."""
    if not isinstance(simulation, xr.DataTree):
        raise TypeError(
            f"simulation is a {type(simulation).__name__}; expected the DataTree of "
            "retina_codec.simulate_retina"
        )
    if name not in simulation.children:
        raise ValueError(
            f"simulation has no node {name!r}; {nearest_names(name, simulation.children)}: give "
            f"another with {argument}="
        )
    node = simulation[name].to_dataset()
    for variable in ("stimulus", *variables):
        if variable not in node:
            raise ValueError(
                f"simulation[{name!r}] has no {variable!r}, so the truth is not known there; "
                "expected a node of retina_codec.simulate_retina: a recording of a real retina "
                "cannot be judged in this way"
            )
    return node, f"simulation[{name!r}]"


def true_circuit(node: xr.Dataset, circuit: CircuitLike | None, where: str) -> Circuit:
    """Build the circuit that made `node`, or check that the one given did.

    Raises
    ------
    ValueError
        If it is not known, or another circuit made the node.
    """
    movie = node["stimulus"]
    if circuit is None:
        name = json.loads(node.attrs.get("parameters", "{}")).get("circuit")
        if name is None:
            raise ValueError(
                f"{where} does not say which circuit made it (attrs['parameters']): give circuit="
            )
        try:
            built = build_circuit(str(name), movie=movie)
        except ValueError as error:
            raise ValueError(
                f"{where} was made by a circuit called {name!r}, which cannot be built from its "
                f"name alone ({error}): give circuit="
            ) from error
    elif isinstance(circuit, Circuit):
        built = circuit
    else:
        built = build_circuit(circuit, movie=movie)
    made_by = node.attrs.get("model_fingerprint")
    if made_by != built.fingerprint:
        raise ValueError(
            f"circuit {built.specification.name!r} has the fingerprint {built.fingerprint}, but "
            f"{where} was made by {made_by}: give the circuit that made it with circuit= (a file "
            "may have changed since, or another pixel size was told)"
        )
    return built


def models_of(model: Any) -> dict[str, RetinaModel]:
    """Give models by name; one alone is called ``"model"``."""
    named = dict(model) if isinstance(model, Mapping) else {"model": model}
    if not named:
        raise ValueError("model is empty; expected a RetinaModel, or several by name")
    for name, one in named.items():
        if not isinstance(one, RetinaModel):
            which = f"model[{name!r}]" if isinstance(model, Mapping) else "model"
            raise TypeError(
                f"{which} is a {type(one).__name__}; expected a model of the retina, such as "
                "retina_codec.load_model or retina_codec.simulation.circuit gives"
            )
    return {str(name): one for name, one in named.items()}


def require_cells(name: str, model: RetinaModel, cells: Sequence[str], where: str) -> None:
    """Raise ValueError unless the model has these cells, in whatever order."""
    own = set(model.outputs.tolist())
    missing, extra = [c for c in cells if c not in own], sorted(own - set(cells))
    if missing or extra:
        raise ValueError(
            f"model {name!r} and {where} are not of the same cells: it lacks "
            f"{', '.join(missing) or 'none'}, and has {', '.join(extra) or 'none'} beside them; "
            "train it on this simulation"
        )
