"""Several models against the same interneurons, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xarray as xr

from retina_codec._common.provenance import provenance
from retina_codec.interneurons.cells import over_cells
from retina_codec.interneurons.comparison import Question, control_scores, require_movie_model
from retina_codec.models.model import Model


def compare_models(
    models: Mapping[str, Model],
    stimulus: xr.DataArray | Mapping[str, xr.DataArray] | xr.DataTree | xr.Dataset,
    potential: xr.DataArray | Mapping[str, xr.DataArray] | str = "potential",
    *,
    controls: Mapping[str, Model] | None = None,
    by: str | None = None,
    **options: Any,
) -> xr.DataTree:
    """Compare several models with the same interneurons.

    Parameters
    ----------
    models : mapping of str to Model
        By name.
    stimulus, potential
        As for `retina_codec.compare_interneurons`.
    controls : mapping of str to Model, optional
        Models that all are held against, such as ``{"untrained": ..., "time-shifted": ...}``.
    by : str, optional
        Coordinate that tells the types of the interneurons, as for `over_cells`.
    **options
        The other arguments of `retina_codec.compare_interneurons`.

    Returns
    -------
    xarray.DataTree
        Root: what `retina_codec.compare_interneurons` says of each interneuron, over (model,
        interneuron). Node ``over_cells``: (model, score, against, type). Nodes ``models/NAME``:
        the whole result of each model.

    Raises
    ------
    TypeError, ValueError
        If `models` or `controls` is no mapping of models or is empty, and as
        `retina_codec.compare_interneurons` does.

    Examples
    --------
    >>> import retina_codec as rc
    >>> screen = rc.stimuli.Screen(shape=(16, 16), pixel_size=50.0, bin_width=0.01)
    >>> recording = rc.simulate_retina(screen.white_noise(n_frames=1500, seed=0), "first")
    >>> models = {name: rc.load_model(name) for name in ("simulated_bncnn", "simulated_ln")}
    >>> tree = rc.interneurons.compare_models(models, recording, n_shifts=10, progress=False)
    >>> dict(tree["best_r"].sizes)
    {'model': 2, 'interneuron': 24}
    """
    if not isinstance(models, Mapping):
        raise TypeError(
            f"models is a {type(models).__name__}; expected a mapping of models by name"
        )
    if not models:
        raise ValueError("models is empty; give at least one model by its name")
    for name, model in models.items():
        require_movie_model(model, f"models[{name!r}]")
    question = Question(next(iter(models.values())), stimulus, potential, **options)
    scores = control_scores(question, controls)
    trees = {
        str(name): question.answer(model, scores, f"models[{name!r}]")
        for name, model in models.items()
    }
    tables = [tree.to_dataset().drop_attrs(deep=False) for tree in trees.values()]
    tables = _channels_alike(tables)
    shared = set(tables[0].data_vars) & set(scores.data_vars)
    root = xr.concat(
        [table.drop_vars(shared) for table in tables], xr.Variable("model", list(trees))
    ).merge(tables[0][list(shared)])
    root = root.assign_coords(
        model_fingerprint=("model", [tree.attrs["model_fingerprint"] for tree in trees.values()])
    )
    root.attrs = provenance(method="compare_models", models=list(trees), **options)
    nodes = {"/": root, "/over_cells": over_cells(root, by=by)}
    for name, tree in trees.items():
        nodes |= {
            f"/models/{name}{node.path}".rstrip("/"): node.to_dataset() for node in tree.subtree
        }
    return xr.DataTree.from_dict(nodes)


def _channels_alike(tables: list[xr.Dataset]) -> list[xr.Dataset]:
    """Name all channels by strings where those of one model have names: no file holds both."""
    names = [name for name in ("best_channel", "matched_channel") if name in tables[0]]
    for name in names:
        if any(table[name].dtype.kind == "U" for table in tables):
            tables = [table.assign({name: table[name].astype(str)}) for table in tables]
    return tables
