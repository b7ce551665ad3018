"""`explain`: which channels and modes carry a phenomenon, beside an untrained network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import false_discovery_control

from retina_codec._common.checks import require_count
from retina_codec._common.provenance import provenance
from retina_codec._common.time import runs_of
from retina_codec.attribution.contributions import contributions
from retina_codec.attribution.methods import IntegratedGradients, Method
from retina_codec.attribution.targets import Output
from retina_codec.models.model import RetinaModel
from retina_codec.modes.result import Modes
from retina_codec.physiology.battery import Shown, centre_groups, centres_of, chosen_phenomena
from retina_codec.physiology.phenomenon import Phenomenon
from retina_codec.stimuli.screen import Screen

TAILS = (2.5, 97.5)
STEPS = 8
EXACT_FLIPS = 12  # pairs up to which every pattern of signs is tried

Pairs = list[tuple[np.ndarray, np.ndarray]]


def explain(
    model: RetinaModel,
    phenomenon: str | Phenomenon,
    *,
    cells: Iterable[object] | None = None,
    layers: str | Sequence[str] | None = None,
    modes: Modes | None = None,
    control: RetinaModel | None = None,
    method: Method | None = None,
    screen: Screen | None = None,
    centres: xr.Dataset | None = None,
    grey: float = 0.0,
    contrast: float = 1.0,
    n_draws: int = 2000,
    seed: int = 0,
    progress: bool = False,
) -> xr.DataTree:
    """Which channels and modes of a model carry a phenomenon.

    The contributions of each channel are averaged over the frames of the phenomenon, and over
    those of its control: the omitted response against the same stretch of the train two periods
    before, the turn of a bar against the two smooth motions, differential against global motion,
    the preferred against the null direction (`Phenomenon.compared`). Their difference is the part
    of the response that the phenomenon adds, channel by channel; over a layer that cuts the
    network it adds up to the change of the rate.

    Parameters
    ----------
    model : RetinaModel
        A trained network, or the known circuit.
    phenomenon : str or Phenomenon
        Name, or an object with parameters of its own.
    cells : iterable of str, optional
        Ids of the cells; by default all.
    layers : str or sequence of str, optional
        As in `retina_codec.contributions`; with `modes`, those that the modes were fitted to.
    modes : Modes, optional
        Of contributions of this model, with the features channel, or sign and channel: how much of
        the change passes through each mode (`Modes.share` of every contribution).
    control : RetinaModel, optional
        A model to stand beside it, such as an untrained network with the same cells.
    method : method, optional
        By default ``IntegratedGradients(steps=8)``.
    screen, centres, grey, contrast
        As in `retina_codec.phenomena`.
    n_draws : int
        Draws of the bootstrap over pairs, and of the signs of the test where there are more than
        12 pairs.
    seed : int
        Of both.
    progress : bool
        Show a progress bar.

    Returns
    -------
    DataTree
        Root, over `cell`: `change`, `change_low`, `change_high`: rate during the phenomenon less
        that during its control, Hz, mean over pairs (repetitions, places, periods) with the
        percentile interval (95 %) of the bootstrap over pairs; `n_pairs`; and `reason`: why they
        are NaN. Nodes ``layers/NAME``: `change`, `change_low`, `change_high`, `p_value`, `q_value`
        (cell, channel) of each channel, all places together; `completeness_error` (cell): the sum
        over channels less the change of the rate; `n_carrying` (cell): the number of channels that
        carry it, ``(sum |change|)^2 / sum change^2``. p is that of flipping the sign of pairs: for
        n pairs it cannot fall below ``2 / 2^n``; q is corrected for the channels
        (Benjamini-Hochberg). Node ``modes``: the same over (cell, mode), and `unassigned` (cell):
        what no mode has. Node ``control``: all of it for the control.

    Raises
    ------
    TypeError
        If `model`, `control` or `modes` is of another type.
    ValueError
        If the model cannot show the phenomenon, or for an unknown cell, layer or phenomenon.

    Notes
    -----
    Channels of two networks do not correspond; what can be compared is how many carry the change
    and how sure it is. A difference of mean rates is explained, not of the largest ones that many
    indices are made of.

    Examples
    --------
    >>> import retina_codec as rc
    >>> circuit = rc.simulation.circuit("default", shape=(10, 10))
    >>> steps = rc.physiology.StepResponse(duration=0.5)
    >>> found = rc.explain(circuit, steps, cells=["on_sustained_0"], layers="bipolar")
    >>> part = found["layers/bipolar"]["change"].sel(cell="on_sustained_0")
    >>> str(part["channel"][part.argmax()].values)
    'on_sustained'
    """
    (one,) = chosen_phenomena(phenomenon)
    _require_models(model, control, modes)
    n_draws = require_count(n_draws, 1, "n_draws")
    seed = require_count(seed, 0, "seed")
    options = _Options(
        layers=None if layers is None else [layers] if isinstance(layers, str) else list(layers),
        method=IntegratedGradients(steps=STEPS) if method is None else method,
        n_draws=n_draws,
        seed=seed,
        progress=progress,
    )
    shown = Shown(model, screen, cells, grey=grey, contrast=contrast)
    places = None if centres is None else centres_of(centres, shown.cells)
    nodes = _explained(shown, one, modes, places, options)
    if control is not None:
        beside = Shown(control, screen, shown.cells, grey=grey, contrast=contrast)
        if places is None and one.centred:
            # Both see the same movies: an untrained network has no receptive field of its own.
            places = shown.centres()
        other = _explained(beside, one, None, places, options)
        nodes |= {f"control{'' if name == '/' else '/' + name}": d for name, d in other.items()}
    made_by = provenance(
        function="explain",
        phenomenon=one.name,
        model_fingerprint=model.fingerprint,
        control=None if control is None else control.fingerprint,
        method=repr(options.method),
        n_draws=n_draws,
        seed=seed,
    )
    tree = xr.DataTree.from_dict({name: data.assign_attrs(made_by) for name, data in nodes.items()})
    return tree


@dataclass(frozen=True)
class _Options:
    layers: list[str] | None
    method: Method
    n_draws: int
    seed: int
    progress: bool


def _require_models(model: Any, control: Any, modes: Any) -> None:
    for value, name in ((model, "model"), (control, "control")):
        if not isinstance(value, RetinaModel) and not (name == "control" and value is None):
            raise TypeError(f"{name} is a {type(value).__name__}; expected a RetinaModel")
    if modes is not None and not isinstance(modes, Modes):
        raise TypeError(f"modes is a {type(modes).__name__}; expected the result of fit_modes")


def _explained(
    shown: Shown,
    one: Phenomenon,
    modes: Modes | None,
    centres: xr.Dataset | None,
    options: _Options,
) -> dict[str, xr.Dataset]:
    """Explain each cell on the movie that it is shown, and lay the cells side by side."""
    problem = one.unfit(shown.screen, shown.memory)
    if problem:
        raise ValueError(f"phenomenon={one.name!r} {problem}")
    parts: dict[str, list[xr.Dataset]] = {}
    for centre, cells in _shown_to(shown, one, centres):
        for name, data in _at_one_place(shown, one, centre, cells, modes, options).items():
            parts.setdefault(name, []).append(data)
    joined = {
        name: xr.concat(each, "cell", data_vars="minimal", join="outer", combine_attrs="override")
        for name, each in parts.items()
    }
    order = [cell for cell in shown.cells if cell in joined["/"]["cell"].values]
    return {name: data.sel(cell=order) for name, data in joined.items()}


def _shown_to(
    shown: Shown, one: Phenomenon, centres: xr.Dataset | None
) -> Iterator[tuple[tuple[float, float], list[str]]]:
    if not one.centred:
        yield (0.0, 0.0), shown.cells
        return
    found = shown.centres() if centres is None else centres
    groups = list(centre_groups(found, shown.screen))
    if not groups:
        raise ValueError(
            "centres: no cell answers a flashed bar, so that no receptive field is known; give "
            "centres= with y(cell) and x(cell) in um"
        )
    yield from groups


def _at_one_place(
    shown: Shown,
    one: Phenomenon,
    centre: tuple[float, float],
    cells: list[str],
    modes: Modes | None,
    options: _Options,
) -> dict[str, xr.Dataset]:
    movie = one.movie(shown.screen, lead=shown.lead, centre=centre)
    rate = shown.response(movie).sel(cell=cells)
    found = one.measure(rate)
    pairs = {cell: one.compared(rate, found.sel(cell=cell)) for cell in cells}
    told = [
        "" if pairs[cell] else str(found["reason"].sel(cell=cell).values) or "nothing to compare"
        for cell in cells
    ]
    needed = np.zeros(rate.sizes["time"], dtype=bool)
    for each in pairs.values():
        for response, control in each:
            needed |= response | control
    if not needed.any():
        return {"/": _change(rate, pairs, options, told)}
    # Contributions cost as much as many predictions: only frames that are compared get them.
    kept = _stretches(needed, rate)
    cut = shown.in_units(_with_history(movie, rate["time"].values[kept], shown.model.history))
    signed = modes is not None and "sign" in [*modes.dictionary.dims, *modes.dictionary.coords]
    tree = contributions(
        shown.model,
        cut,
        layers=options.layers,
        target=Output(cells),
        method=options.method,
        split_sign=signed,
        sum_over=("y", "x"),
        progress=options.progress,
    )
    target = tree.to_dataset()["target"].transpose("time", "cell")
    place = np.searchsorted(rate["time"].values, target["time"].values)
    chosen = {
        cell: [(response[place], control[place]) for response, control in each]
        for cell, each in pairs.items()
    }
    arrays = {
        str(name): node.to_dataset()["contribution"]
        for name, node in tree.children["layers"].children.items()
    }
    nodes = {"/": _change(target, chosen, options, told)}
    for name, whole in arrays.items():
        part = whole.sum("sign") if signed else whole
        over = [dim for dim in part.dims if dim not in ("time", "cell", "channel")]
        part = part.sum(over).transpose("time", "cell", "channel")
        data = _change(part, chosen, options, told)
        total = data["change"].sum("channel", min_count=1)
        nodes[f"layers/{name}"] = data.assign(
            completeness_error=(total - nodes["/"]["change"]).assign_attrs(
                units="Hz", long_name="sum over channels less the change of the rate"
            ),
            n_carrying=_carrying(data["change"], "channel"),
        )
    if modes is not None:
        parts = _through_modes(modes, arrays)
        data = _change(parts, chosen, options, told)
        rest = nodes["/"]["change"] - data["change"].sum("mode", min_count=1)
        nodes["modes"] = data.assign(
            unassigned=rest.assign_attrs(units="Hz", long_name="change that no mode has"),
            n_carrying=_carrying(data["change"], "mode"),
        )
    return nodes


def _stretches(needed: np.ndarray, rate: xr.DataArray) -> np.ndarray:
    """Frames from the first to the last that is needed, in each block."""
    kept = np.zeros(len(needed), dtype=bool)
    for run in runs_of(rate):
        inside = np.flatnonzero(needed[run])
        if inside.size:
            kept[run.start + inside[0] : run.start + inside[-1] + 1] = True
    return np.flatnonzero(kept)


def _with_history(movie: xr.DataArray, times: np.ndarray, history: int) -> xr.DataArray:
    """Frames of `movie` at `times` and those before that they see, all of the same blocks."""
    at = np.searchsorted(movie["time"].values, times)
    kept = np.zeros(movie.sizes["time"], dtype=bool)
    for lag in range(history):
        kept[at - lag] = True
    return movie.isel(time=kept)


def _through_modes(modes: Modes, arrays: dict[str, xr.DataArray]) -> xr.DataArray:
    """Contribution (time, cell, mode) that is each mode's share of those of the channels."""
    given: Any = next(iter(arrays.values())) if len(arrays) == 1 else arrays
    loadings = modes.transform(given)
    parts: list[xr.DataArray] = []
    for mode in loadings["mode"].values:
        share = modes.share(int(mode), loadings)
        shares = share if isinstance(share, dict) else dict.fromkeys(arrays, share)
        each = [
            (array * shares[name]).transpose("time", "cell", ...) for name, array in arrays.items()
        ]
        summed = [one.sum(list(one.dims[2:])) for one in each]
        parts.append(xr.concat(summed, "layer", coords="minimal").sum("layer"))
    joined = xr.concat(parts, loadings["mode"].variable, coords="minimal", compat="override")
    found: xr.DataArray = joined.transpose("time", "cell", "mode")
    return found


def _change(
    values: xr.DataArray, pairs: dict[str, Pairs], options: _Options, told: list[str]
) -> xr.Dataset:
    """Mean over pairs of response less control, with interval and test: (cell[, part])."""
    over = [str(dim) for dim in values.dims if dim not in ("time", "cell")]
    shape = tuple(values.sizes[dim] for dim in over)
    cells = [str(cell) for cell in values["cell"].values]
    names = ("change", "change_low", "change_high", "p_value")
    found = {name: np.full((len(cells), *shape), np.nan) for name in names}
    n_pairs = np.zeros(len(cells), dtype=np.int64)
    for i, cell in enumerate(cells):
        data = values.sel(cell=cell).values.astype(np.float64)
        each = [data[a].mean(0) - data[b].mean(0) for a, b in pairs[cell] if a.any() and b.any()]
        n_pairs[i] = len(each)
        if each:
            stacked = np.stack(each)
            found["change"][i] = stacked.mean(0)
            found["change_low"][i], found["change_high"][i] = _interval(stacked, options)
            found["p_value"][i] = _sign_test(stacked, options)
    texts = {
        "change": ("Hz", "contribution during the phenomenon less its control"),
        "change_low": ("Hz", "lower end, 95 % bootstrap over pairs"),
        "change_high": ("Hz", "upper end, 95 % bootstrap over pairs"),
        "p_value": ("1", "test of random signs of the pairs"),
    }
    variables: dict[str, Any] = {
        name: (("cell", *over), array, {"units": texts[name][0], "long_name": texts[name][1]})
        for name, array in found.items()
    }
    if over:
        q = np.full_like(found["p_value"], np.nan)
        known = np.isfinite(found["p_value"]).all(1)
        if known.any():
            q[known] = false_discovery_control(found["p_value"][known], axis=1)
        variables["q_value"] = (
            ("cell", *over),
            q,
            {"units": "1", "long_name": f"p corrected for the number of {over[0]}s"},
        )
    else:
        variables["n_pairs"] = ("cell", n_pairs, {"units": "1", "long_name": "pairs compared"})
        variables["reason"] = ("cell", told, {"long_name": "why a number is NaN"})
    coords = {dim: values[dim] for dim in over if dim in values.coords}
    return xr.Dataset(variables, coords={"cell": cells, **coords})


def _interval(stacked: np.ndarray, options: _Options) -> tuple[Any, Any]:
    """Percentile interval over pairs drawn with replacement; NaN for fewer than two."""
    if len(stacked) < 2:
        return np.nan, np.nan
    rng = np.random.default_rng(options.seed)
    draws = rng.integers(0, len(stacked), size=(options.n_draws, len(stacked)))
    low, high = np.percentile(stacked[draws].mean(1), TAILS, axis=0)
    return low, high


def _sign_test(stacked: np.ndarray, options: _Options) -> np.ndarray:
    """Share of sign patterns of the pairs whose mean is as large; all patterns where they are few.

    Phenomenon and control are exchangeable under the null.
    """
    n = len(stacked)
    if n <= EXACT_FLIPS:
        patterns = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        extra = 0
    else:
        rng = np.random.default_rng(options.seed)
        patterns = rng.choice([-1, 1], size=(options.n_draws, n))
        extra = 1
    means = np.tensordot(patterns, stacked, axes=1) / n
    observed = np.abs(stacked.mean(0))
    # A pattern that only differs by rounding is as large.
    reached = (np.abs(means) >= observed * (1 - 1e-9)).sum(0)
    found: np.ndarray = (reached + extra) / (len(patterns) + extra)
    return found


def _carrying(change: xr.DataArray, dim: str) -> xr.DataArray:
    """Give the number of parts that carry the change: participation ratio of their sizes."""
    size = abs(change)
    total = size.sum(dim, min_count=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = total**2 / (size**2).sum(dim, min_count=1)
    return found.assign_attrs(units="1", long_name=f"number of {dim}s that carry the change")
