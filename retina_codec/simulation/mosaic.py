"""Where the cells of a type are: a hexagonal mosaic, shifted and jittered at random."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Mosaic:
    """Cells on a hexagonal grid of random phase, those in a square patch round the middle.

    With `directions` there is a mosaic for each preferred direction.
    """

    spacing: float  # um between neighbours
    extent: float  # um: side of the patch
    jitter: float = 0.0  # standard deviation of each place, as a share of the spacing
    seed: int = 0
    directions: tuple[float, ...] = ()  # degrees


def mosaic_places(mosaic: Mosaic) -> list[tuple[float, float, float | None]]:
    """Give y, x (um from the middle) and preferred direction (degrees) of each cell.

    Those nearest to the middle come first; directions take turns. A grid that has no place in the
    patch gives its nearest one, moved to the edge of the patch.
    """
    of_each = []
    for number, direction in enumerate(mosaic.directions or (None,)):
        rng = np.random.default_rng([mosaic.seed, number])
        of_each.append([(y, x, direction) for y, x in _grid(mosaic, rng)])
    # The k-th cells of all directions, then the next ones.
    return [cells[k] for k in range(max(map(len, of_each))) for cells in of_each if k < len(cells)]


def _grid(mosaic: Mosaic, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Places of one grid, rounded to 0.1 um."""
    half, spacing = mosaic.extent / 2, mosaic.spacing
    height = spacing * np.sqrt(3) / 2  # between rows
    n = int(np.ceil(half / height)) + 2
    row, column = np.meshgrid(np.arange(-n, n + 1), np.arange(-n, n + 1), indexing="ij")
    phase = rng.uniform(-0.5, 0.5, size=2)
    y = height * (row + phase[0])
    x = spacing * (column + 0.5 * (row % 2) + phase[1])
    places = np.stack([y.ravel(), x.ravel()], axis=1)
    places += rng.normal(0.0, mosaic.jitter * spacing, size=places.shape)
    places = places[np.argsort(np.hypot(*places.T), kind="stable")]
    inside = places[(np.abs(places) <= half).all(axis=1)]
    if len(inside) == 0:
        inside = np.clip(places[:1], -half, half)
    return [(round(float(a), 1), round(float(b), 1)) for a, b in inside]
