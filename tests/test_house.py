"""The house: rooms import only from rooms above, and what is public is reachable."""

import ast
import inspect
from pathlib import Path

import pytest

import retina_codec as rc

ROOMS = [
    "_common",
    "stimuli",
    "recordings",
    "catalogue",
    "models",
    "classifiers",
    "simulation",
    "attribution",
    "modes",
    "interneurons",
    "analysis",
    "physiology",
    "interventions",
    "validation",
    "plot",
    "reporting",
    "jobs",
    "cli",
]
PACKAGE = Path(rc.__file__).parent


def imported_rooms(file):
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.module == "retina_codec":
                names = [f"retina_codec.{alias.name}" for alias in node.names]
            else:
                names = [node.module or ""]
        for name in names:
            if name.startswith("retina_codec."):
                yield name.split(".")[1]


def test_every_room_is_on_the_plan():
    rooms = {path.stem for path in PACKAGE.iterdir() if path.name[0] not in ".p" or path.is_dir()}
    assert rooms - {"__init__", "__pycache__"} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_from_rooms_above(room):
    place = PACKAGE / room
    files = place.rglob("*.py") if place.is_dir() else [place.with_suffix(".py")]
    for file in files:
        for other in imported_rooms(file):
            assert ROOMS.index(other) <= ROOMS.index(room), f"{file.name} imports {other}"


@pytest.mark.parametrize("name", [name for name in rc.__all__ if name != "__version__"])
def test_public_names_are_documented(name):
    documented = inspect.getdoc(getattr(rc, name))
    assert documented
    assert "TBD" not in documented


def test_no_function_has_the_name_of_a_room():
    functions = {name for name in rc.__all__ if inspect.isfunction(getattr(rc, name))}
    assert not functions & set(ROOMS)
