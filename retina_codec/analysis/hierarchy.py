"""Groups of categories: nodes of a hierarchy, and the categories below each."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from retina_codec._common.checks import nearest_names

Hierarchy = Mapping[str, Sequence[str]] | str | os.PathLike[str]


def nodes_of(hierarchy: Hierarchy, categories: Sequence[str]) -> dict[str, list[str]]:
    """Categories below each node, in their own order.

    Parameters
    ----------
    hierarchy : mapping or path
        The children of each node, which are nodes or categories; or a YAML file with that. A child
        may have several parents.
    categories : sequence of str
        Names of the categories.

    Raises
    ------
    FileNotFoundError, OSError
        If the file is missing or no YAML.
    ValueError
        If a child is neither a node nor a category, a node has the name of a category, or is
        below itself.
    """
    children = _children(hierarchy)
    known = [str(name) for name in categories]
    for node, below in children.items():
        if node in known:
            raise ValueError(f"hierarchy: the node {node!r} has the name of a category; rename it")
        for child in below:
            if child not in children and child not in known:
                raise ValueError(
                    f"hierarchy: {child!r} below {node!r} is neither a node nor a category; "
                    f"{nearest_names(child, [*children, *known])}"
                )
    found: dict[str, set[str]] = {}
    for node in children:
        _descend(node, children, found, ())
    return {node: [name for name in known if name in found[node]] for node in children}


def _descend(
    node: str,
    children: Mapping[str, Sequence[str]],
    found: dict[str, set[str]],
    above: tuple[str, ...],
) -> set[str]:
    if node in above:
        raise ValueError(f"hierarchy: {node!r} is below itself, by {' > '.join((*above, node))}")
    if node not in children:
        return {node}
    if node not in found:
        below = (_descend(child, children, found, (*above, node)) for child in children[node])
        found[node] = set().union(*below)
    return found[node]


def _children(hierarchy: Any) -> dict[str, list[str]]:
    given: Any = hierarchy
    if isinstance(hierarchy, str | os.PathLike):
        path = Path(hierarchy)
        if not path.is_file():
            raise FileNotFoundError(f"hierarchy={str(path)!r}: there is no such file")
        try:
            given = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise OSError(f"hierarchy={str(path)!r} is no YAML: {error}") from error
    if not isinstance(given, Mapping) or not all(
        isinstance(below, Sequence) and not isinstance(below, str) for below in given.values()
    ):
        raise ValueError(
            "hierarchy: expected a list of children for each node, such as "
            "{animal: [bird, cat, dog], vehicle: [car, ship]}"
        )
    return {str(node): [str(child) for child in below] for node, below in given.items()}
