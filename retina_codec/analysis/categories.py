"""Which modes stand for which categories of images, and for which groups of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import false_discovery_control

from retina_codec._common.checks import (
    nearest_names,
    require_array,
    require_count,
    require_finite,
)
from retina_codec._common.provenance import provenance
from retina_codec.analysis.hierarchy import Hierarchy, nodes_of
from retina_codec.modes import Modes
from retina_codec.modes.shift_null import tail_p_value

SIGNIFICANT = 0.05
# Numbers of the null that are held at a time.
MOST_NULL = 2**25


def category_association(
    modes: Modes | xr.DataArray,
    labels: xr.DataArray | Sequence[str] | str,
    *,
    hierarchy: Hierarchy | None = None,
    categories: Sequence[str] | None = None,
    threshold: float = 0.2,
    n_permutations: int = 1000,
    seed: int = 0,
) -> xr.Dataset:
    """Correlate modes with categories: which of them is on for which kind of image.

    Pearson's r between the loadings and a mask that is 1 for the images of a category (or of any
    category below a node of `hierarchy`) and 0 for all others. A *class mode* has an r above
    `threshold` with a category.

    Parameters
    ----------
    modes : Modes or DataArray
        Modes: of these the images that were held out of the fit are looked at. Or loadings (image,
        mode) of images that the modes were not fitted to, as from ``modes.transform(new)``; all of
        them are looked at. Any other array (image, unit), such as contributions of channels, will
        do.
    labels : DataArray, sequence or str
        Category of each image, over ``image``; or the name of such a coordinate of the loadings.
        Of Modes: of all images, held out or not.
    hierarchy : mapping or path, optional
        The children of each node, which are nodes or categories: ``{"animal": ["bird", "cat"]}``,
        or a YAML file with that. A child may have several parents.
    categories : sequence of str, optional
        Names of the categories, of which some may have no image; by default those in `labels`.
    threshold : float
        Least r of a class mode.
    n_permutations : int
        Random orders of the images that tell what chance gives.
    seed : int
        Of these.

    Returns
    -------
    Dataset
        Over ``mode`` and ``node``, the categories and then the nodes of the hierarchy: `r`;
        `p_value`, one-sided, by permutation of the images, its upper quarter from a fitted tail
        (`scipy.stats.genpareto`); `q_value`, the false discovery rate over all of them (Benjamini
        and Hochberg). On ``node``: ``kind`` (``"category"`` or ``"group"``) and ``n_images``. Over
        ``mode``: `best_category` and `best_r`, `best_node` of all and `best_node_r`, `class_mode`:
        whether `best_r` is above the threshold and its q below 0.05. `chance_best_r` (mode): the
        mean over permutations of the largest r with a category, which a maximum has by chance.
        `n_class_modes`, `n_categories`: how many class modes, and how many categories have one.
        NaN (and ``""``) for modes that are the same in all images, and nodes that hold all or none.

    Raises
    ------
    TypeError
        If `modes` is neither.
    ValueError
        If labels do not fit the images or are not among the categories, a loading is NaN, or
        `hierarchy` names what is no category.

    References
    ----------
    Melander et al., ICLR 2026, arXiv 2603.06557 (r > 0.2).

    Examples
    --------
    >>> import numpy as np, retina_codec as rc, xarray as xr
    >>> labels = np.repeat(["cat", "dog", "ship"], 20)
    >>> loadings = xr.DataArray(np.eye(3)[np.repeat([0, 1, 2], 20)], dims=("image", "mode"))
    >>> found = rc.analysis.category_association(
    ...     loadings, labels, hierarchy={"animal": ["cat", "dog"]}, n_permutations=100
    ... )
    >>> found["best_category"].values.tolist(), found["n_class_modes"].item()
    (['cat', 'dog', 'ship'], 3)
    >>> found["r"].sel(node="animal").values.round(2)
    array([ 0.5,  0.5, -1. ])
    """
    values, known, dims = _values_and_labels(modes, labels)
    names = np.unique(known).tolist() if categories is None else [str(c) for c in categories]
    for label in dict.fromkeys(known.tolist()):
        if label not in names:
            raise ValueError(
                f"labels has {label!r}, which is not among the categories; "
                f"{nearest_names(label, names)}"
            )
    if not -1 <= threshold <= 1:
        raise ValueError(f"threshold={threshold!r}; expected a correlation, such as 0.2")
    require_count(n_permutations, 1, "n_permutations")
    groups = {} if hierarchy is None else nodes_of(hierarchy, names)
    members = [*([name] for name in names), *groups.values()]
    masks = np.stack([np.isin(known, below) for below in members], axis=1).astype(np.float64)
    matrix = values.transpose(*dims).values.astype(np.float64)
    r, p, chance = _tested(_unit(matrix), _unit(masks), len(names), n_permutations, seed)
    q = np.full(p.shape, np.nan)
    tested = np.isfinite(p)
    if tested.any():
        q[tested] = false_discovery_control(p[tested])
    unit = dims[1]
    coords = {name: c for name, c in values.coords.items() if c.dims == (unit,)}
    coords.setdefault(unit, xr.DataArray(np.arange(matrix.shape[1]), dims=unit))
    nodes = np.array([*names, *groups], dtype=object)
    best, best_r = _largest(r[:, : len(names)], nodes)
    best_node, best_node_r = _largest(r, nodes)
    with np.errstate(invalid="ignore"):
        sure = (r > threshold) & (q < SIGNIFICANT)
    class_mode = sure[:, : len(names)].any(axis=1)
    found = xr.Dataset(
        {
            "r": ((unit, "node"), r, {"units": "1", "long_name": "correlation with the category"}),
            "p_value": ((unit, "node"), p, {"units": "1", "long_name": "one-sided p-value"}),
            "q_value": ((unit, "node"), q, {"units": "1", "long_name": "false discovery rate"}),
            "best_category": (unit, best),
            "best_r": (unit, best_r, {"units": "1", "long_name": "best correlation"}),
            "best_node": (unit, best_node),
            "best_node_r": (unit, best_node_r, {"units": "1", "long_name": "best correlation"}),
            "chance_best_r": (unit, chance, {"units": "1", "long_name": "best r by chance"}),
            "class_mode": (unit, class_mode),
            "n_class_modes": ((), int(class_mode.sum()), {"units": "1"}),
            "n_categories": ((), int(sure[:, : len(names)].any(axis=0).sum()), {"units": "1"}),
        },
        coords={
            **coords,
            "node": nodes,
            "kind": ("node", np.array(["category"] * len(names) + ["group"] * len(groups), object)),
            "n_images": ("node", masks.sum(axis=0).astype(int), {"units": "1"}),
        },
        attrs=provenance(
            function="category_association",
            images=len(known),
            threshold=threshold,
            n_permutations=n_permutations,
            seed=seed,
            modes=values.attrs.get("parameters"),
        ),
    )
    return found


def _values_and_labels(modes: Any, labels: Any) -> tuple[xr.DataArray, np.ndarray, tuple[str, str]]:
    """Give the loadings to look at, the label of each image, and the dims (image, unit)."""
    if isinstance(modes, Modes):
        values, seen = modes.loadings, modes.score()["held_out"]
    else:
        values, seen = require_array(modes, "modes"), None
    if isinstance(labels, str):
        if labels not in values.coords:
            raise ValueError(
                f"labels={labels!r} is no coordinate of the loadings; "
                f"{nearest_names(labels, values.coords)}"
            )
        labels = values[labels]
    dim = "image"
    if isinstance(labels, xr.DataArray):
        if labels.ndim != 1:
            raise ValueError(f"labels has dims {tuple(labels.dims)}; expected one, the images'")
        dim = str(labels.dims[0])
    if dim not in values.dims or values.ndim != 2:
        raise ValueError(
            f"modes: the loadings have dims {tuple(values.dims)}; expected {dim!r} and 'mode': fit "
            "to one target, such as TopK(1), or select one output before"
        )
    if isinstance(labels, xr.DataArray):
        try:
            xr.align(values, labels, join="exact", exclude=set(values.dims) - {dim})
        except ValueError as error:
            raise ValueError(
                f"labels has other coordinates along {dim!r} than the loadings: select the same "
                "images in both"
            ) from error
    given = np.asarray(labels)
    if given.shape != (values.sizes[dim],):
        raise ValueError(
            f"labels has shape {given.shape}; expected one label for each of {values.sizes[dim]}"
        )
    if any(label is None or label != label for label in given.tolist()):
        raise ValueError("labels has None or NaN: cut out the images without a label before")
    known = given.astype(str)
    if seen is not None:
        chosen = np.flatnonzero(seen.values)
        values, known = values.isel({dim: chosen}), known[chosen]
    require_finite(values, "modes")
    if len(known) < 3:
        raise ValueError(f"modes: {len(known)} images to look at; correlation needs at least three")
    (unit,) = (str(d) for d in values.dims if d != dim)
    return values, known, (dim, unit)


def _unit(columns: np.ndarray) -> np.ndarray:
    """Columns about their mean, of norm 1; NaN where nothing varies."""
    apart = columns - columns.mean(axis=0)
    norm = np.linalg.norm(apart, axis=0)
    norm[norm <= 1e-12 * np.abs(columns).max(axis=0, initial=0) * np.sqrt(len(columns))] = np.nan
    return apart / norm


def _tested(
    loadings: np.ndarray, masks: np.ndarray, n_categories: int, n_permutations: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Correlation and p-value (mode, node), and the largest with a category by chance (mode,)."""
    r = loadings.T @ masks
    p = np.full(r.shape, np.nan)
    chance = np.full(len(r), np.nan)
    orders = np.random.default_rng(seed).permuted(
        np.tile(np.arange(len(masks)), (n_permutations, 1)), axis=1
    )
    known = np.isfinite(masks).all(axis=0)
    step = max(1, MOST_NULL // max(1, n_permutations * masks.shape[1]))
    for start in range(0, len(r), step):
        block = loadings[:, start : start + step]
        null = np.stack([block.T @ masks[order] for order in orders])
        for i in np.flatnonzero(np.isfinite(block).all(axis=0)):
            mode = start + i
            for node in np.flatnonzero(known):
                drawn = null[:, i, node]
                if r[mode, node] > 0:
                    p[mode, node] = tail_p_value(r[mode, node], drawn.clip(min=0))
                else:
                    count = int((drawn >= r[mode, node]).sum())
                    p[mode, node] = (1 + count) / (1 + n_permutations)
            own = known[:n_categories]
            if own.any():
                chance[mode] = null[:, i, :n_categories][:, own].max(axis=1).mean()
    return r, p, chance


def _largest(r: np.ndarray, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Name and value of the largest correlation of each mode."""
    some = np.isfinite(r).any(axis=1)
    place = np.where(np.isfinite(r), r, -np.inf).argmax(axis=1)
    names = np.where(some, nodes[place], "")
    return names, np.where(some, r[np.arange(len(r)), place], np.nan)
