"""One burst of a cell: the true contributions beside the features that were matched with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from retina_codec._common.checks import nearest_names, require_choice
from retina_codec._common.provenance import provenance
from retina_codec._common.time import bin_width_of, runs_of, whole_history
from retina_codec.attribution import contributions, methods
from retina_codec.attribution.methods import Method
from retina_codec.attribution.targets import Output
from retina_codec.models.model import RetinaModel
from retina_codec.validation.true_contributions import CUTS, STEPS
from retina_codec.validation.truth import CircuitLike, models_of, node_of, true_circuit


def matched_burst(
    model: RetinaModel,
    simulation: xr.DataTree,
    recovery: xr.DataTree,
    *,
    cell: str,
    name: str | None = None,
    cut: str = "bipolar",
    removed: str = "predicted",
    at: float | None = None,
    around: float = 0.5,
    node: str = "test",
    circuit: CircuitLike | None = None,
    method: Method | None = None,
    true_method: Method | None = None,
) -> xr.Dataset:
    """Compute the true contributions to a cell round one burst, and the matched ones of a model.

    Parameters
    ----------
    model : RetinaModel
        One of those that were compared.
    simulation : DataTree
        The simulation that they were compared on.
    recovery : DataTree
        What `retina_codec.benchmark_recovery` found: it holds the matches.
    cell : str
        The ganglion cell.
    name : str, optional
        Name of the model there; not needed if it is the only one.
    cut : {"bipolar", "ganglion_input"}
        Where the true contributions are taken.
    removed : {"nothing", "predicted", "both"}
        Which of the matches.
    at : float, optional
        Time of the burst, s; by default the largest true rate of the cell that has `around` on
        both sides in its block.
    around : float
        Seconds before and after.
    node, circuit, method, true_method
        As for `retina_codec.benchmark_recovery`.

    Returns
    -------
    Dataset
        `true` and `recovered` (time, true_channel), in Hz, of the true channels that contribute to
        the cell, nothing removed. `true_rate` and
        `predicted_rate` (time), Hz. The coordinate `feature` (true_channel) names the match.

    Raises
    ------
    TypeError, ValueError
        If something is not what `retina_codec.benchmark_recovery` takes and gives, a name is
        unknown, or `at` has no such stretch round it.

    Examples
    --------
    >>> import retina_codec as rc
    >>> movie = rc.stimuli.white_noise(n_frames=150, shape=(14, 14), seed=0)
    >>> truth = rc.simulate_retina({"test": movie})
    >>> circuit = rc.simulation.circuit("default", shape=(14, 14))
    >>> found = rc.benchmark_recovery(circuit, truth, noise=None, progress=False)
    >>> burst = rc.validation.matched_burst(
    ...     circuit, truth, found, cell="on_off_0", around=0.2, removed="nothing"
    ... )
    >>> bool(abs(burst["true"] - burst["recovered"]).max() < 1e-3)
    True
    """
    models_of(model)
    require_choice(cut, CUTS, "cut")
    shown, where = node_of(simulation, node, "node", ["true_rate"])
    known = true_circuit(shown, circuit, where)
    matches = _matches(recovery, name, cell, cut, removed)
    movie = shown["stimulus"]
    true_rate = shown["true_rate"].sel(cell=cell)
    frames = _frames(movie, true_rate, max(model.history, known.history), at, around, where)
    method = method or methods.IntegratedGradients(steps=STEPS)
    true_method = true_method or methods.IntegratedGradients(steps=STEPS)

    def decomposed(one: RetinaModel, layers: list[str], method: Method, split: bool) -> xr.DataTree:
        clip = movie.isel(time=slice(frames.start - one.history + 1, frames.stop))
        return contributions(
            one, clip, layers=layers, target=Output([cell]), method=method, split_sign=split,
            sum_over=("y", "x"), progress=False,
        )  # fmt: skip

    channels = [str(channel) for channel in matches["channel"].values]
    true = decomposed(known, [cut], true_method, False)[f"layers/{cut}"].to_dataset()[
        "contribution"
    ]
    true = true.sel(channel=channels).isel(cell=0).transpose("time", "channel")
    layers = list(dict.fromkeys(matches["best_layer"].values.tolist()))
    of_model = decomposed(model, layers, method, True)
    recovered, labels = [], []
    for k in range(len(channels)):
        match = matches.isel(true_channel=k)
        layer, channel, part = (str(match[f"best_{key}"].item()) for key in
                                ("layer", "channel", "part"))  # fmt: skip
        values = of_model[f"layers/{layer}"].to_dataset()["contribution"].isel(cell=0)
        values = values.isel(channel=values["channel"].values.astype(str).tolist().index(channel))
        values = values.sum("sign") if part == "both" else values.sel(sign=part)
        recovered.append(values.values)
        labels.append(f"{layer} {channel} {part}".replace(" both", ""))
    along = ("time", "true_channel")
    units = {"units": "Hz"}
    return xr.Dataset(
        {
            "true": (along, true.values, {**units, "long_name": "true contribution"}),
            "recovered": (
                along,
                np.stack(recovered, axis=1),
                {**units, "long_name": "recovered contribution"},
            ),
            "true_rate": ("time", true_rate.values[frames], {**units, "long_name": "true rate"}),
            "predicted_rate": (
                "time",
                of_model.to_dataset()["target"].isel(cell=0).values,
                {**units, "long_name": "predicted rate"},
            ),
        },
        {
            "time": movie["time"].isel(time=frames),
            "true_channel": channels,
            "feature": ("true_channel", labels),
            "cell": cell,
        },
        provenance(made_by="matched_burst", cut=cut, removed=removed, model=model.fingerprint),
    )


def _matches(recovery: Any, name: str | None, cell: str, cut: str, removed: str) -> xr.Dataset:
    """Find the matches (true_channel) of the contributions to a cell, where there are any."""
    if not isinstance(recovery, xr.DataTree) or "contributions" not in recovery.children:
        raise TypeError(
            "recovery is not what retina_codec.benchmark_recovery gives: a DataTree with the node "
            "'contributions'"
        )
    found = recovery["contributions"].to_dataset()
    names = found["model"].values.tolist()
    if name is None and len(names) > 1:
        raise ValueError(f"recovery is of several models: choose name= from {', '.join(names)}")
    chosen = {"model": names[0] if name is None else name, "cell": cell, "removed": removed}
    for dim, value in chosen.items():
        known = found[dim].values.tolist()
        if value not in known:
            argument = "name" if dim == "model" else dim
            raise ValueError(f"{argument}={value!r} is unknown; {nearest_names(value, known)}")
    of_cell = found.sel({**chosen, "features": "contribution"})
    kept = (of_cell["cut"] == cut).values & (of_cell["best_layer"].values != "")
    if not kept.any():
        raise ValueError(f"cell={cell!r} has no matched contribution at cut={cut!r}")
    return of_cell.isel(true_channel=np.flatnonzero(kept))


def _frames(
    movie: xr.DataArray,
    rate: xr.DataArray,
    history: int,
    at: float | None,
    around: float,
    where: str,
) -> slice:
    """Frames from `around` before to `around` after a burst, all of one block."""
    n = round(around / bin_width_of(movie, where))
    whole = whole_history(movie, history)
    inside = [
        np.arange(max(run.start + history - 1 + n, run.start), run.stop - n)
        for run in runs_of(movie)
    ]
    possible = np.intersect1d(np.concatenate(inside), whole)
    if at is not None:
        frame = int(np.abs(movie["time"].values - at).argmin())
        if frame not in possible:
            raise ValueError(
                f"at={at!r}: {where} has no {around:g} s with a whole history on both sides of it"
            )
    elif len(possible) == 0:
        raise ValueError(f"around={around!r}: no block of {where} is that long; give less")
    else:
        frame = int(possible[rate.values[possible].argmax()])
    return slice(frame - n, frame + n + 1)
