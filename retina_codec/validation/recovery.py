"""`benchmark_recovery`: fitted models beside the circuit that made their recording."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from retina_codec._common.checks import naming, require_at_least, require_choice
from retina_codec._common.provenance import provenance
from retina_codec._common.time import whole_history
from retina_codec.attribution import methods
from retina_codec.attribution.methods import Method
from retina_codec.models.model import RetinaModel
from retina_codec.validation.halves import Halves
from retina_codec.validation.hidden_units import SIGNALS, matched_interneurons
from retina_codec.validation.of_model import ModelMoments, compared
from retina_codec.validation.true_contributions import CUTS, STEPS, true_features
from retina_codec.validation.truth import (
    CircuitLike,
    models_of,
    node_of,
    require_cells,
    true_circuit,
)


def benchmark_recovery(
    model: RetinaModel | Mapping[str, RetinaModel],
    simulation: xr.DataTree,
    *,
    circuit: CircuitLike | None = None,
    node: str = "test",
    noise: str | None = "noise",
    layers: str | Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    method: Method | None = None,
    true_method: Method | None = None,
    least_share: float = 0.01,
    least_left: float = 0.05,
    progress: bool = True,
) -> xr.DataTree:
    """Compare what models of a simulated retina report with what is true of it.

    Four comparisons, none of which depends on the order or the names of a model's channels:
    rates; hidden units with true interneurons, on white noise (natural movies flatter the
    controls); contributions with true contributions, matched one by one; and as a whole (CKA).
    Where something is chosen it is chosen on half A of the frames and scored on half B, with a gap
    of one history between. Give the controls beside the model: an untrained network, one trained
    on time-shifted spikes, and the ceiling, the true circuit refitted to the same spikes.

    **The rate is removed.** Contributions add up to the change of the rate, so that a true and a
    recovered one correlate because both follow the rate. `removed` says what was taken from both
    sides, by linear regression with an intercept whose coefficients are fitted on A and kept on B:
    ``"nothing"``; ``"predicted"``, the model's own predicted rate; ``"both"``, that and the true
    rate. For a good model the latter two are the same. They differ for controls: an untrained
    network's own output is no rate, so that after removing it there is still the true rate in the
    true contributions, which any unit that is driven by the movie may share. ``"predicted"`` is
    therefore lenient to controls, and ``"both"`` is the fairer one: it asks of all models alike
    what they know beyond the rate.

    Parameters
    ----------
    model : RetinaModel, or mapping of str to RetinaModel
        One, or several by name (a single one is called ``"model"``), of the cells of the
        simulation, in any order: they are matched by label. A `Circuit` is one too.
    simulation : DataTree
        As from `retina_codec.simulate_retina`.
    circuit : Circuit, CircuitSpecification, str or path, optional
        The circuit that made it, if it cannot be built from the name that the tree holds.
    node : str
        The movie on which rates and contributions are compared: a natural one, not trained on.
    noise : str, optional
        The white noise on which interneurons are compared; None leaves them out.
    layers : str, sequence of str, or mapping of str to sequences, optional
        Layers of the models, or by model; by default each model's ``default_layers``.
    method : method, optional
        Of the models' contributions; by default ``IntegratedGradients(steps=8)``.
    true_method : method, optional
        Of the true contributions, by default the same ``IntegratedGradients(steps=8)``, whatever
        `method` is: methods are compared by one truth.
    least_share : float
        A true channel is a feature of a cell if the variance of its contribution is at least this
        share of the sum of the variances of all channels of the cut. Others are NaN: they never
        contributed to that cell, so there is nothing to recover.
    least_left : float
        With rates removed, a true channel is a feature if at least this share of its variance is
        left when the true rate is removed, whatever the model; CKA needs as much of a cell's
        channels together. A cell that one type drives alone has one contribution, which is its
        rate: beyond that there is nothing to recover, and what remains after removing a
        predicted rate is the error of the prediction.
    progress : bool
        Show progress bars.

    Returns
    -------
    DataTree
        NaN is where there is nothing to recover; where a model has nothing to show for what is
        there (a cell that it left silent, say), it has 0, so that no median leaves it out.

        All nodes have the dim `model`; `cell` and `interneuron` have their types as coordinates.

        ``prediction``: `r` (model, cell), correlation of predicted and true rate, over all frames
        with a whole history.

        ``interneurons``: `r` (model, signal, interneuron), correlation on half B of the unit that
        correlates highest on half A. `potential` is compared with what enters a ReLU (of a circuit:
        with the drives of its cells), `release` with what leaves it; other layers have one output.
        The sign counts: a unit may be scaled, not turned over. `best_layer`, `best_channel`,
        `best_y`, `best_x` name the unit.

        ``contributions``: `r` (model, features, removed, cell, true_channel). `true_channel` are
        the types at both cuts (coordinates `cut` and `channel`), whose contributions to the cell
        are summed over places. `features` is where the model's best feature is sought:
        ``"contribution"``, a channel's contributions to the same cell, summed over places:
        positive parts, negative parts or both; ``"activation"``, a layer's activations in the
        same way; ``"single_unit"``, one unit's contribution at its place; ``"unit_activation"``,
        one unit's activation. All layers together. Contributions have a sign, that of their effect:
        the feature with the largest r on A is chosen. (With either sign, once the rate is removed,
        a model's OFF part passes for the ON one: what is missing from the rate, turned over.)
        Activations have none: the largest magnitude is chosen, and r on B counts as positive
        if it has the sign that it had on A (`polarity`). `best_layer`, `best_channel`, `best_part`,
        `best_y`, `best_x` name it. `share` and `variance_left` (cell, true_channel) are what
        `least_share` and `least_left` are about.

        ``similarity``: `cka` (model, removed, parts, cut, cell), linear CKA of a layer's
        contributions and the true ones, (time, channel) matrices of each cell; on half B, the
        layer chosen on A (`cka_layer`). `layer_cka` has all layers, over both halves. `parts`:
        ``"net"``, sums over places; ``"signed"``, positive and negative parts as columns of their
        own. `variance_left` (cut, cell) is what `least_left` is about. Plain CKA, not debiased:
        with thousands of frames and tens of columns the bias is small, and the controls have it
        too.

    Raises
    ------
    TypeError
        If `model` is not a model of the retina, or `simulation` not a DataTree.
    ValueError
        If a node is missing, has no truth (a real recording) or is too short; if the circuit is
        not the one that made it; or if a model is of other cells, frames or bins.

    References
    ----------
    Kornblith et al., ICML 2019, eq. (3), for linear CKA.

    Examples
    --------
    >>> import retina_codec as rc
    >>> movie = rc.stimuli.white_noise(n_frames=120, shape=(14, 14), seed=0)
    >>> truth = rc.simulate_retina({"test": movie})
    >>> circuit = rc.simulation.circuit("default", shape=(14, 14))
    >>> found = rc.benchmark_recovery(circuit, truth, noise=None, progress=False)
    >>> best = found["contributions"]["r"].sel(features="contribution", removed="predicted")
    >>> round(float(best.median()), 3)
    1.0
    """
    models = models_of(model)
    method = method or methods.IntegratedGradients(steps=STEPS)
    true_method = true_method or methods.IntegratedGradients(steps=STEPS)
    require_at_least(least_share, 0.0, "least_share")
    require_at_least(least_left, 0.0, "least_left")
    shown, where = node_of(simulation, node, "node", ["true_rate"])
    known = true_circuit(shown, circuit, where)
    cells = [str(cell) for cell in shown["cell"].values]
    movie = shown["stimulus"]
    for name, one in models.items():
        require_cells(name, one, cells, where)
        with naming(f"model {name!r} on {where}"):
            one.samples(movie, "stimulus")
    if isinstance(layers, Mapping):
        for name in layers:
            require_choice(name, list(models), "layers: a model")
    chosen = {name: _layers_of(name, one, layers) for name, one in models.items()}
    history = max(one.history for one in (known, *models.values()))
    halves = Halves.of(movie, history, where)
    heard = None if noise is None else _heard(simulation, noise, models)

    true_rate = shown["true_rate"].transpose("time", "cell").values[halves.frames]
    truth = true_features(known, halves, shown, true_rate, cells, true_method, progress)
    features = truth.features(least_share, least_left)
    found: dict[str, list[xr.Dataset]] = {}
    for name, one in models.items():
        parts = {"prediction": _prediction(one, shown, cells)}
        if heard is not None:
            interneurons, of_noise, signals = heard
            parts["interneurons"] = matched_interneurons(
                name, one, of_noise, signals, chosen[name], progress
            ).assign_coords(interneurons)
        moments = ModelMoments.of(
            name, one, halves, truth.summed, true_rate, cells, chosen[name], method,
            progress,
        )  # fmt: skip
        parts |= compared(
            moments, truth.summed, features, truth.left_of_cut >= least_left, list(CUTS)
        )
        for key, data in parts.items():
            found.setdefault(key, []).append(data)
    along = xr.Variable("model", list(models))
    joined = {key: xr.concat(data, along, join="outer") for key, data in found.items()}
    joined["prediction"] = joined["prediction"].assign_coords(truth.coords)
    contributions = joined["contributions"].assign_coords(truth.coords)
    contributions["share"] = (
        ("cell", "true_channel"),
        truth.share,
        {"units": "1", "long_name": "share of the cell's variance of contributions"},
    )
    left = {"units": "1", "long_name": "share of variance left without the true rate"}
    contributions["variance_left"] = (("cell", "true_channel"), truth.left, left)
    joined["contributions"] = contributions
    similarity = joined["similarity"].assign_coords(truth.coords)
    similarity["variance_left"] = (("cut", "cell"), truth.left_of_cut, left)
    joined["similarity"] = similarity
    tree = xr.DataTree.from_dict({f"/{key}": data for key, data in joined.items()})
    tree.attrs = {
        "circuit_fingerprint": known.fingerprint,
        **provenance(
            made_by="benchmark_recovery",
            circuit=known.specification.name,
            models={name: one.fingerprint for name, one in models.items()},
            layers=chosen,
            node=node,
            noise=noise or "",
            method=repr(method),
            true_method=repr(true_method),
            least_share=least_share,
            least_left=least_left,
            gap=halves.gap,
            frames=[len(halves) // 2] * 2,
        ),
    }
    return tree


def _layers_of(
    name: str,
    model: RetinaModel,
    layers: str | Sequence[str] | Mapping[str, Sequence[str]] | None,
) -> list[str]:
    """Layers of a model, each once; ValueError if it lacks one."""
    if isinstance(layers, Mapping):
        layers = layers.get(name)
    if layers is None:
        layers = model.default_layers
    names = list(dict.fromkeys([layers] if isinstance(layers, str) else layers))
    with naming(f"layers of model {name!r}"):
        for layer in names:
            model.layer(layer)
    if not names:
        raise ValueError(f"layers of model {name!r}: none; choose from {', '.join(model.layers)}")
    return names


def _prediction(model: RetinaModel, node: xr.Dataset, cells: list[str]) -> xr.Dataset:
    """Correlate predicted and true rates; 0 where only the true one changes, NaN where it stays."""
    movie = node["stimulus"]
    predicted = model.predict(movie).sel(cell=cells).values.astype(np.float64)
    true = node["true_rate"].transpose("time", "cell").values[whole_history(movie, model.history)]
    centred = [values - values.mean(0) for values in (predicted, true)]
    sd = [np.sqrt(np.square(values).mean(0)) for values in centred]
    told, known = (s > 1e-6 * np.abs(v).max(0) for s, v in zip(sd, (predicted, true), strict=True))
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.where(told, (centred[0] * centred[1]).mean(0) / (sd[0] * sd[1]), 0.0)
    r[~known] = np.nan
    attrs = {"units": "1", "long_name": "correlation of predicted and true rate"}
    return xr.Dataset({"r": ("cell", r, attrs)}, {"cell": cells})


def _heard(
    simulation: xr.DataTree, noise: str, models: Mapping[str, RetinaModel]
) -> tuple[dict[str, Any], Halves, dict[str, np.ndarray]]:
    """Read the interneurons on white noise: labels, halves, signals (row, interneuron)."""
    node, where = node_of(simulation, noise, "noise", SIGNALS)
    movie = node["stimulus"]
    for name, model in models.items():
        with naming(f"model {name!r} on {where}"):
            model.samples(movie)
    halves = Halves.of(movie, max(model.history for model in models.values()), where)
    labels = {
        str(name): coord.variable
        for name, coord in node.coords.items()
        if coord.dims == ("interneuron",)
    }
    signals = {
        signal: node[signal].transpose("time", "interneuron").values[halves.frames]
        for signal in SIGNALS
    }
    return labels, halves, signals
