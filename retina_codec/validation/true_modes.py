"""Modes beside the true contributions: whether a mode is something that the circuit does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from retina_codec._common.checks import require_at_least, require_dims, require_finite
from retina_codec._common.provenance import provenance
from retina_codec.attribution import methods
from retina_codec.attribution.methods import Method
from retina_codec.validation.halves import Halves
from retina_codec.validation.matching import (
    NEGLIGIBLE,
    best_matches,
    correlations,
    without_rates,
)
from retina_codec.validation.moments import Covariance
from retina_codec.validation.of_model import N_RATES, REMOVED
from retina_codec.validation.true_contributions import STEPS, true_features
from retina_codec.validation.truth import CircuitLike, node_of, true_circuit


def modes_against_truth(
    loadings: xr.DataArray | Mapping[str, xr.DataArray],
    rates: xr.DataArray | Mapping[str, xr.DataArray],
    simulation: xr.DataTree,
    *,
    circuit: CircuitLike | None = None,
    node: str = "test",
    method: Method | None = None,
    least_share: float = 0.01,
    least_left: float = 0.05,
    progress: bool = True,
) -> xr.Dataset:
    """Compare modes of contributions with the true contributions of a simulated retina.

    For each ganglion cell and each true channel that drives it, the mode whose loading follows
    the true contribution best is chosen on half A of the movie, by the magnitude of the
    correlation, and its r on half B counts as positive if it has the sign that it had on A: a
    loading is a strength, whatever the mode does to the cell. Rates are removed as by
    `retina_codec.benchmark_recovery`, which compares the contributions that modes were fitted to.

    Parameters
    ----------
    loadings : DataArray, or mapping of str to DataArray
        (time, cell, mode), or (time, mode), the same for all cells: loadings of a movie that has
        all times of the node's frames with a whole history. One, or several by the name of the
        model (or of whatever they were fitted to); one alone is called ``"model"``. Any
        features do, such as raw channels.
    rates : DataArray, or mapping of str to DataArray
        (time, cell), Hz: what each model predicts, by the same names.
    simulation : DataTree
        As from `retina_codec.simulate_retina`.
    circuit, node, method, least_share, least_left
        As for `retina_codec.benchmark_recovery`.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Dataset
        `r` (model, removed, cell, true_channel), NaN where there is nothing to recover, 0 where
        there is and no mode is ever active (or nothing of it is left without the rates); `mode`,
        the label of the chosen mode as a string (empty without one), and `polarity`, 1 or -1.
        With the coordinates `cut` and `channel` of `true_channel`, and the types of cells.

    Raises
    ------
    TypeError
        If something is of another type.
    ValueError
        If a dim, cell or time is missing, values are NaN, names differ, or the simulation is not
        what `retina_codec.benchmark_recovery` takes.

    Examples
    --------
    >>> import retina_codec as rc
    >>> movie = rc.stimuli.white_noise(n_frames=150, shape=(14, 14), seed=0)
    >>> truth = rc.simulate_retina({"test": movie})
    >>> circuit = rc.simulation.circuit("default", shape=(14, 14))
    >>> tree = rc.contributions(circuit, movie, layers="bipolar", progress=False)
    >>> perfect = tree["layers/bipolar"]["contribution"].sum(("y", "x")).rename(channel="mode")
    >>> found = rc.validation.modes_against_truth(
    ...     perfect, circuit.predict(movie), truth, progress=False
    ... )
    >>> of_bipolars = found["r"].sel(removed="nothing").where(found["cut"] == "bipolar")
    >>> bool(of_bipolars.median() > 0.99)
    True
    """
    by_model = _by_name(loadings, "loadings")
    predicted = _by_name(rates, "rates")
    if set(by_model) != set(predicted):
        raise ValueError(
            f"rates are of {', '.join(predicted)}, loadings of {', '.join(by_model)}; give both by "
            "the same names"
        )
    method = method or methods.IntegratedGradients(steps=STEPS)
    require_at_least(least_share, 0.0, "least_share")
    require_at_least(least_left, 0.0, "least_left")
    shown, where = node_of(simulation, node, "node", ["true_rate"])
    known = true_circuit(shown, circuit, where)
    cells = [str(cell) for cell in shown["cell"].values]
    halves = Halves.of(shown["stimulus"], known.history, where)
    times = shown["time"].values[halves.frames]
    given = [
        (
            _at(array, times, cells, f"loadings[{name!r}]", "mode"),
            _at(predicted[name], times, cells, f"rates[{name!r}]", None)[..., None],
        )
        for name, array in by_model.items()
    ]
    true_rate = shown["true_rate"].transpose("time", "cell").values[halves.frames]
    truth = true_features(known, halves, shown, true_rate, cells, method, progress)
    is_feature = truth.features(least_share, least_left)
    found = [
        _matched(
            np.concatenate([rate, true_rate[..., None], truth.summed.net(), values], axis=-1),
            halves,
            is_feature,
        )
        for values, rate in given
    ]
    r, place, polarity = (np.stack(part) for part in zip(*found, strict=True))
    labels = np.full(r.shape, "", dtype=object)
    for i, array in enumerate(by_model.values()):
        names = array["mode"].values.astype(str).astype(object)
        labels[i] = np.where(place[i] >= 0, names[place[i]], "")
    channels = truth.summed.channels
    cut = np.repeat(list(channels), [len(names) for names in channels.values()])
    channel = np.concatenate(list(channels.values()))
    dims = ("model", "removed", "cell", "true_channel")
    return xr.Dataset(
        {
            "r": (dims, r, {"units": "1", "long_name": "correlation on half B"}),
            "mode": (dims, labels),
            "polarity": (dims, polarity),
        },
        {
            "model": list(by_model),
            "removed": list(REMOVED),
            "cell": cells,
            "true_channel": [f"{a}: {b}" for a, b in zip(cut, channel, strict=True)],
            "cut": ("true_channel", cut),
            "channel": ("true_channel", channel),
            **truth.coords,
        },
        provenance(
            made_by="modes_against_truth",
            circuit=known.specification.name,
            node=node,
            method=repr(method),
            least_share=least_share,
            least_left=least_left,
        ),
    )


def _by_name(given: Any, argument: str) -> dict[str, xr.DataArray]:
    named = dict(given) if isinstance(given, Mapping) else {"model": given}
    for name, array in named.items():
        if not isinstance(array, xr.DataArray):
            raise TypeError(
                f"{argument}[{name!r}] is a {type(array).__name__}; expected a DataArray over time"
            )
    if not named:
        raise ValueError(f"{argument} is empty; expected at least one")
    return {str(name): array for name, array in named.items()}


def _at(
    array: xr.DataArray, times: np.ndarray, cells: list[str], argument: str, last: str | None
) -> np.ndarray:
    """Values (time, cell[, last]) at those times and cells, by label."""
    wanted = ("time", "cell") if last is None else ("time", "cell", last)
    array = require_dims(array, wanted, argument, optional=() if last is None else ("cell",))
    if "time" not in array.coords:
        raise ValueError(f"{argument} has no coordinate 'time': take the movie's")
    index = array.get_index("time").get_indexer(pd.Index(times))
    if (index < 0).any():
        raise ValueError(
            f"{argument} lacks {int((index < 0).sum())} of the {len(times)} times that are "
            f"compared, the first {times[index < 0][0]:.6g} s: compute it on the whole movie of "
            "the node"
        )
    array = array.isel(time=index)
    if "cell" not in array.dims:
        array = array.expand_dims(cell=cells)
    missing = [cell for cell in cells if cell not in array["cell"].values.astype(str)]
    if missing:
        raise ValueError(f"{argument} lacks the cells {', '.join(missing)}")
    array = array.sel(cell=cells).transpose(*wanted)
    require_finite(array, argument)
    return array.values.astype(np.float64)


def _matched(
    columns: np.ndarray, halves: Halves, is_feature: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Match columns (time, cell, rates + true channels + modes): r, place, polarity."""
    n_cells, n_true = is_feature[0].shape
    moments = tuple(Covariance(columns.shape[1:]) for _ in range(2))
    for half, rows in zip(moments, halves.rows, strict=True):
        half.add(columns[rows])
    matrices = [half.matrix() for half in moments]
    shape = (len(REMOVED), n_cells, n_true)
    r, place, polarity = np.full(shape, np.nan), np.full(shape, -1), np.full(shape, np.nan)
    true, modes = slice(N_RATES, N_RATES + n_true), slice(N_RATES + n_true, None)
    for j, rates in enumerate(REMOVED.values()):
        wanted = is_feature[0] & is_feature[1] if rates else is_feature[0]
        for i in range(n_cells):
            whole = [matrix[i] for matrix in matrices]
            rest = [without_rates(whole[0], matrix, rates) for matrix in whole]
            with np.errstate(invalid="ignore", divide="ignore"):
                first, second = (
                    correlations(
                        left[modes, true],
                        (np.diag(left)[modes], np.diag(left)[true]),
                        (np.diag(before)[modes], np.diag(before)[true]),
                    )
                    for left, before in zip(rest, whole, strict=True)
                )
            best = best_matches(first, second, either_sign=True)
            varies = np.all(
                [np.diag(left)[true] > NEGLIGIBLE * np.diag(before)[true]
                 for left, before in zip(rest, whole, strict=True)], axis=0,
            )  # fmt: skip
            r[j, i, wanted[i] & varies] = 0  # and stays so where no mode is there
            known = wanted[i] & varies & (best.place >= 0)
            r[j, i, known] = best.r[known]
            place[j, i, known] = best.place[known]
            polarity[j, i, known] = best.polarity[known]
    return r, place, polarity
