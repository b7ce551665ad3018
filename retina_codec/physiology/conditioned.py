"""How a cell's receptive field changes while modes are on, against modes shifted in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from scipy.stats import false_discovery_control

from retina_codec._common.checks import (
    magnitude,
    nearest_names,
    require_at_least,
    require_count,
    require_dims,
)
from retina_codec._common.progress import progress_counter
from retina_codec._common.provenance import provenance
from retina_codec._common.time import runs_of
from retina_codec.attribution.budget import MEMORY_BUDGET
from retina_codec.attribution.capture import undisturbed
from retina_codec.attribution.input_gradients import InputGradients, chosen_outputs
from retina_codec.interneurons.fields import first_pair
from retina_codec.models.model import RetinaModel
from retina_codec.modes import Modes
from retina_codec.modes.loadings import cell_loadings
from retina_codec.physiology.instantaneous import (
    FIELD_DIMS,
    columns_of,
    lag_coordinate,
    samples_at,
)

STATISTICS = ("change", "similarity", "gain", "shift", "stretch")
TEXTS = {
    "change": "held-out squared change of the field, over the squared mean field",
    "similarity": "held-out cosine with the mean field; negative where polarity flips",
    "gain": "held-out projection on the mean field, which has 1; negative where polarity flips",
    "shift": "distance of the field's centre from its centre by chance",
    "stretch": "spread of the field over its spread by chance",
}
# A condition that is met more rarely, in either half, says nothing.
LEAST_ON = 20


@dataclass(frozen=True)
class _Sums:
    """Sums of one cell's fields over samples: of all (half, field), where on (half, draw, ...)."""

    whole: np.ndarray
    n_whole: np.ndarray
    on: np.ndarray
    n_on: np.ndarray


def mode_conditioned_field(
    model: RetinaModel,
    stimulus: xr.DataArray,
    loadings: Modes | xr.DataArray,
    *,
    cells: str | Sequence[str] | None = None,
    modes: Sequence[int] | None = None,
    together: Sequence[Sequence[int]] = (),
    exclusive: bool = False,
    threshold: float = 0.0,
    n_shifts: int = 99,
    shortest_shift: float = 1.0,
    stretch: float = 2.0,
    seed: int = 0,
    memory_budget: float = MEMORY_BUDGET,
    progress: bool = True,
) -> xr.Dataset:
    """Mean receptive field of each cell while a mode is on, or several are, with its null.

    For each condition (a mode on; modes on together) the instantaneous fields of the moments at
    which it is met are averaged. In the null the loadings are shifted circularly in time, within
    each block and against the fields, by random times: what is on keeps its rhythm and its share
    of the time, and the other modes keep their company; what it has to do with the field is lost.
    What a mode has in common with the cell's rate is part of the effect: ``similarity`` does not
    see a field that only grows or shrinks, ``change`` and ``gain`` do.

    **Held out**: moments are divided into stretches that belong to two halves in turn. Each
    number is a product of one half's field with the other half's, so that what one half has by
    chance adds nothing on average. Give a movie and loadings that the modes were not fitted to.

    Parameters
    ----------
    model : RetinaModel
        The model.
    stimulus : xarray.DataArray
        Movie (time, [color,] y, x) in its recorded units.
    loadings : Modes or xarray.DataArray
        (time[, cell], mode) for bins of the movie with a whole history, such as
        ``modes.transform(contribution)`` gives. With a dim `cell`, each cell has its own; other
        dims are averaged.
    cells : str or sequence of str, optional
        Cells by id; by default all.
    modes : sequence of int, optional
        Modes by their label; by default all. None of them where it is empty.
    together : sequence of sequences of int
        Combinations: all of these modes on at once.
    exclusive : bool
        A condition is met only while no other mode is on.
    threshold : float
        A mode is on while its loading is above.
    n_shifts : int
        Shifts of the null; the smallest p value is ``1 / (n_shifts + 1)``.
    shortest_shift : float
        Seconds; in a block shorter than four times that, a quarter of it.
    stretch : float
        Seconds of the stretches of the two halves.
    seed : int
        Of the shifts.
    memory_budget : float
        Bytes that a pass through the network may take.
    progress : bool
        Show a progress bar.

    Returns
    -------
    xarray.Dataset
        Over `cell` and `condition` (``"3"``, ``"0+3"``): ``field`` and ``null_field``, the mean
        over all shifts (lag, [color,] y, x), in Hz per unit of the stimulus; ``rate``, Hz, while
        it is on; ``n_on``, moments. Five numbers, each with ``NAME_null`` (its median by chance),
        ``NAME_p_value`` and ``NAME_q_value`` (adjusted over cells and conditions), of f, the
        field of a condition, and m, the mean field over all moments, whose parts a and b are the
        two halves': ``change`` = <f_a - m_a, f_b - m_b> / <m_a, m_b>; ``similarity`` = (<f_a, m_b>
        + <f_b, m_a>) / 2 / sqrt(<f_a, f_b> <m_a, m_b>); ``gain``, the same over <m_a, m_b>. A
        field whose polarity flips has a negative similarity. ``shift`` and ``stretch`` are of the
        map in space at the mean field's course: distance of the squared map's centre of mass from
        that of the null field (units of `y`), and the square root of its second moment over that
        of the null field. p values of `change` and `shift` are for larger ones, of `similarity`
        for smaller ones, of `gain` and `stretch` two-sided about the null's median. And
        ``mean_field`` (cell, lag, [color,] y, x); ``reason``: why a condition has no numbers.

    Raises
    ------
    TypeError, ValueError
        If `model`, `stimulus` or `loadings` do not fit each other, or a cell or mode is unknown.

    References
    ----------
    Melander et al., ICLR 2026, arXiv 2603.06557: fields of a cell while different modes are on.
    Products of independent halves: Walther et al., NeuroImage 137, 188 (2016).

    Examples
    --------
    >>> import numpy as np, retina_codec as rc, xarray as xr
    >>> model = rc.load_model("simulated_bncnn")
    >>> movie = rc.stimuli.Screen(shape=(16, 16)).white_noise(n_frames=330, seed=0)
    >>> rates = model.predict(movie).sel(cell=["on_off_0"])
    >>> on = (rates - rates.median()).clip(min=0).values  # as if a mode were on in bursts
    >>> loadings = xr.DataArray(on, {"time": rates["time"], "mode": [0]}, ("time", "mode"))
    >>> found = rc.physiology.mode_conditioned_field(
    ...     model, movie, loadings, cells="on_off_0", n_shifts=9, stretch=0.5, progress=False
    ... )
    >>> found["field"].dims
    ('cell', 'condition', 'lag', 'y', 'x')
    """
    if not isinstance(model, RetinaModel):
        raise TypeError(f"model is a {type(model).__name__}; expected a RetinaModel")
    movie = require_dims(stimulus, ("time", *FIELD_DIMS[1:]), "stimulus", optional=("color",))
    columns = columns_of(model, cells)
    strengths = cell_loadings(loadings)
    conditions = _conditions(strengths, modes, together)
    n_shifts = require_count(n_shifts, 1, "n_shifts")
    shortest = float(magnitude(shortest_shift, "s", "shortest_shift"))
    length = float(magnitude(stretch, "s", "stretch"))
    require_at_least(shortest, model.bin_width, "shortest_shift")
    require_at_least(length, model.bin_width, "stretch")
    samples = model.samples(movie, "stimulus")
    chosen = samples_at(strengths["time"].values, samples.coords["time"], model, "loadings")
    if len(chosen) != strengths.sizes["time"] or np.any(np.diff(strengths["time"].values) <= 0):
        raise ValueError(
            "loadings: its times are not ascending, or several are of one bin of the stimulus: "
            "give one loading a bin, in order"
        )
    at = samples.coords["time"][chosen]
    runs = runs_of(at.to_dataset(name="at").assign_coords(_block(samples.coords, chosen)))
    bins = max(1, round(length / model.bin_width))
    halves = _halves(runs, bins)
    order = _shifted_orders(runs, round(shortest / model.bin_width), n_shifts, seed)
    places = tuple(map(str, movie.dims[1:]))
    dims = ("lag", *places)
    shape = (model.history, *(movie.sizes[dim] for dim in places))
    rows = []
    with (
        undisturbed(model),
        progress_counter(len(columns) * len(chosen), "fields of modes", shown=progress) as bar,
    ):
        for column in columns:
            on = _on(strengths, str(model.outputs[column]), conditions, threshold, exclusive)
            gradients = InputGradients(
                model,
                samples,
                chosen_outputs([column]),
                chosen=chosen,
                memory_budget=memory_budget,
            )
            sums, rate = _summed(gradients, on, order, halves, bar)
            rows.append(_statistics(sums, shape, _grid(movie)) | {"rate": rate})
    return _labelled(rows, model, movie, columns, conditions, dims, shape, {
        "exclusive": exclusive, "threshold": threshold, "n_shifts": n_shifts,
        "shortest_shift": shortest, "stretch": length, "seed": seed,
    })  # fmt: skip


def _block(coords: dict[str, xr.DataArray], chosen: np.ndarray) -> dict[str, Any]:
    """Give the block of each chosen sample: a new one, too, wherever samples are left out."""
    given = coords["block"].values[chosen] if "block" in coords else np.zeros(len(chosen))
    breaks = (np.diff(given) != 0) | (np.diff(chosen) != 1)
    return {"block": ("time", np.r_[0, np.cumsum(breaks)])}


def _conditions(
    loadings: xr.DataArray, modes: Sequence[int] | None, together: Sequence[Sequence[int]]
) -> dict[str, list[int]]:
    """Places along `mode` of the modes of each condition, by its name."""
    labels = [str(label) for label in loadings["mode"].values]
    wanted = [[mode] for mode in (loadings["mode"].values if modes is None else modes)]
    wanted += [list(several) for several in together]
    found = {}
    for several in wanted:
        for mode in several:
            if str(mode) not in labels:
                raise ValueError(f"no mode {mode}; {nearest_names(mode, labels)}")
        found["+".join(map(str, several))] = [labels.index(str(mode)) for mode in several]
    if not found:
        raise ValueError("modes is empty and together, too: name a mode")
    return found


def _halves(runs: list[slice], length: int) -> np.ndarray:
    """Give each sample a half, 0 or 1: stretches in turn, none across a run's end."""
    numbers = np.empty(runs[-1].stop, dtype=np.int64)
    turn = 0
    for run in runs:
        n = run.stop - run.start
        parts = np.array_split(np.arange(run.start, run.stop), max(1, round(n / length)))
        for part in parts:
            numbers[part] = turn % 2
            turn += 1
    return numbers


def _shifted_orders(runs: list[slice], shortest: int, n_shifts: int, seed: int) -> np.ndarray:
    """Say whose loadings each sample gets (draw, sample); the first draw is as it was."""
    rng = np.random.default_rng(seed)
    n = runs[-1].stop
    order = np.tile(np.arange(n), (1 + n_shifts, 1))
    for run in runs:
        size = run.stop - run.start
        least = min(shortest, size // 4)
        if least:
            shifts = rng.integers(least, size - least + 1, size=n_shifts)
            places = (np.arange(size) - shifts[:, None]) % size
            order[1:, run] = run.start + places
    return order


def _on(
    loadings: xr.DataArray,
    cell: str,
    conditions: dict[str, list[int]],
    threshold: float,
    exclusive: bool,
) -> np.ndarray:
    """Say where (sample, condition) each condition is met."""
    own = loadings.isel(cell=0)
    if "cell" in loadings.coords:
        known = loadings["cell"].values.astype(str)
        if cell not in known:
            raise ValueError(f"loadings have no cell {cell!r}; {nearest_names(cell, known)}")
        own = loadings.isel(cell=int(np.flatnonzero(known == cell)[0]))
    active = own.transpose("time", "mode").values > threshold
    met = []
    for several in conditions.values():
        here = active[:, several].all(axis=1)
        if exclusive:
            here &= active.sum(axis=1) == len(several)
        met.append(here)
    return np.stack(met, axis=1)


def _summed(
    gradients: InputGradients, on: np.ndarray, order: np.ndarray, halves: np.ndarray, bar: Any
) -> tuple[_Sums, np.ndarray]:
    """Sum fields over the moments of every condition, draw and half; give the rate while on."""
    n_draws, n_conditions = len(order), on.shape[1]
    size = int(np.prod(gradients.input_shape))
    device = torch.device("cpu")
    sums = torch.zeros(2, n_draws * n_conditions, size, device=device)
    whole = torch.zeros(2, size, device=device)
    rates = np.zeros(n_conditions)
    for index, values, found in gradients.each():
        # From time order to lags.
        fields = next(found).flip(1).flatten(1).float().to(device)
        # (sample, draw, condition)
        weights = on[order[:, index]].transpose(1, 0, 2)
        rates += (values.double().cpu().numpy() * on[index]).sum(axis=0)
        for half in (0, 1):
            mine = torch.from_numpy(halves[index] == half)
            used = torch.from_numpy(weights.reshape(len(weights), -1).astype(np.float32))[mine]
            sums[half].addmm_(used.T, fields[mine])
            whole[half] += fields[mine].sum(0)
        bar.update(index.stop - index.start)
    counts = np.stack(
        [on[order[:, halves == half]].sum(axis=1) for half in (0, 1)]
    )  # (half, draw, condition)
    n_whole = np.array([(halves == half).sum() for half in (0, 1)])
    with np.errstate(invalid="ignore"):
        rate = rates / counts[:, 0].sum(axis=0)
    summed = _Sums(
        whole.double().numpy(),
        n_whole,
        sums.numpy().reshape(2, n_draws, n_conditions, size),
        counts,
    )
    return summed, rate


def _statistics(
    sums: _Sums, shape: tuple[int, ...], grid: tuple[np.ndarray, np.ndarray]
) -> dict[str, np.ndarray]:
    """Fields and numbers of one cell, for every condition."""
    mean_field = (sums.whole.sum(axis=0) / sums.n_whole.sum()).reshape(shape)
    course = first_pair(mean_field)[1]
    course = course / np.linalg.norm(course)
    with np.errstate(invalid="ignore", divide="ignore"):
        halves = sums.whole / sums.n_whole[:, None]
    size = float(halves[0] @ halves[1])
    columns: dict[str, list[Any]] = {}
    for k in range(sums.on.shape[2]):
        counts = sums.n_on[:, :, k]  # (half, draw)
        row: dict[str, Any] = {"n_on": int(counts[:, 0].sum()), "reason": ""}
        if counts[:, 0].min() < LEAST_ON:
            row["reason"] = (
                f"met at {int(counts[0, 0])} and {int(counts[1, 0])} moments of the two halves; "
                f"at least {LEAST_ON} are needed"
            )
        elif not size > 0:
            row["reason"] = "the cell has no mean field that both halves share"
        with np.errstate(invalid="ignore", divide="ignore"):
            f = sums.on[:, :, k] / counts[:, :, None]  # (half, draw, pixel)
            both = sums.on[:, :, k].sum(axis=0) / counts.sum(axis=0)[:, None]
        null = np.nanmean(both[1:], axis=0) if counts.sum() else np.full(both.shape[1], np.nan)
        row["field"] = both[0].reshape(shape)
        row["null_field"] = null.reshape(shape)
        found = _numbers(f, halves, size, both, null, course, shape, grid)
        row.update(_tested(found, bool(row["reason"])))
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    return {name: np.asarray(column) for name, column in columns.items()} | {
        "mean_field": mean_field
    }


def _numbers(
    f: np.ndarray,
    halves: np.ndarray,
    size: float,
    both: np.ndarray,
    null: np.ndarray,
    course: np.ndarray,
    shape: tuple[int, ...],
    grid: tuple[np.ndarray, np.ndarray],
) -> dict[str, np.ndarray]:
    """Give the five numbers (draw,), of which the first draw is what was observed."""
    away = f - halves[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        change = (away[0] * away[1]).sum(axis=1) / size
        along = (f[0] @ halves[1] + f[1] @ halves[0]) / 2
        own = (f[0] * f[1]).sum(axis=1)
        similarity = along / np.sqrt(np.where(own > 0, own, np.nan) * size)
        gain = along / size
    centre, spread = _moments(np.concatenate([both, null[None]]), course, shape, grid)
    with np.errstate(invalid="ignore", divide="ignore"):
        shift = np.hypot(*(centre[:, :-1] - centre[:, -1:]))
        stretch = spread[:-1] / spread[-1]
    return {
        "change": change, "similarity": similarity, "gain": gain, "shift": shift,
        "stretch": stretch,
    }  # fmt: skip


def _moments(
    fields: np.ndarray,
    course: np.ndarray,
    shape: tuple[int, ...],
    grid: tuple[np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Centre (axis, field) and spread (field,) of squared maps in space at a course in time."""
    maps = np.tensordot(fields.reshape(-1, *shape), course, axes=([1], [0]))
    if maps.ndim == 4:  # colours
        maps = np.sqrt((maps**2).sum(axis=1))
    if min(maps.shape[1:]) < 2:
        missing = np.full(len(maps), np.nan)
        return np.stack([missing, missing]), missing
    y, x = grid
    with np.errstate(invalid="ignore", divide="ignore"):
        weight = maps**2 / (maps**2).sum(axis=(1, 2), keepdims=True)
    rows, columns = weight.sum(axis=2), weight.sum(axis=1)
    centre = np.stack([rows @ y, columns @ x])
    variance = rows @ y**2 - centre[0] ** 2 + columns @ x**2 - centre[1] ** 2
    return centre, np.sqrt(np.maximum(variance, 0))


def _tested(found: dict[str, np.ndarray], without: bool) -> dict[str, float]:
    """Observed numbers, their medians by chance and p values."""
    row: dict[str, float] = {}
    for name, values in found.items():
        observed, null = float(values[0]), values[1:][np.isfinite(values[1:])]
        if without or not np.isfinite(observed) or not null.size:
            row |= {name: np.nan, f"{name}_null": np.nan, f"{name}_p_value": np.nan}
            continue
        median = float(np.median(null))
        if name in ("change", "shift"):
            reached = null >= observed
        elif name == "similarity":
            reached = null <= observed
        else:
            reached = np.abs(null - median) >= abs(observed - median)
        row[name] = observed
        row[f"{name}_null"] = median
        row[f"{name}_p_value"] = float((1 + reached.sum()) / (1 + null.size))
    return row


def _grid(movie: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    return movie["y"].values.astype(np.float64), movie["x"].values.astype(np.float64)


def _labelled(
    rows: list[dict[str, np.ndarray]],
    model: RetinaModel,
    movie: xr.DataArray,
    columns: list[int],
    conditions: dict[str, list[int]],
    dims: tuple[str, ...],
    shape: tuple[int, ...],
    said: dict[str, Any],
) -> xr.Dataset:
    units = str(movie.attrs.get("units", "1"))
    per = "Hz" if units == "1" else f"Hz/({units})"
    pixel = str(movie["y"].attrs.get("units", "pixel")) if "y" in movie.coords else "pixel"
    made: dict[str, Any] = {}
    over = ("cell", "condition")

    def put(name: str, dims: tuple[str, ...], units: str, text: str) -> None:
        values = np.stack([row[name] for row in rows])
        made[name] = (dims, values, {"units": units, "long_name": text})

    put("field", (*over, *dims), per, "mean receptive field while the mode is on")
    put("null_field", (*over, *dims), per, "mean receptive field while a shifted mode is on")
    put("mean_field", ("cell", *dims), per, "mean receptive field")
    put("rate", over, "Hz", "mean rate while the mode is on")
    put("n_on", over, "1", "moments at which the mode is on")
    put("reason", over, "1", "why there are no numbers")
    for name in STATISTICS:
        own = pixel if name == "shift" else "1"
        put(name, over, own, TEXTS[name])
        put(f"{name}_null", over, own, f"{name}: median over shifts")
        put(f"{name}_p_value", over, "1", f"{name}: share of shifts that reach it")
        p = made[f"{name}_p_value"][1]
        q = np.full(p.shape, np.nan)
        if np.isfinite(p).any():
            q[np.isfinite(p)] = false_discovery_control(p[np.isfinite(p)])
        attrs = {"units": "1", "long_name": f"{name}: p value adjusted over cells and conditions"}
        made[f"{name}_q_value"] = (over, q, attrs)
    places = {dim: movie[dim].variable for dim in dims if dim in movie.coords}
    return xr.Dataset(
        made,
        {
            "cell": model.outputs[columns],
            "condition": list(conditions),
            "lag": lag_coordinate(model.history, model.bin_width),
            **places,
        },
        {
            "model_fingerprint": model.fingerprint,
            **provenance(function="mode_conditioned_field", **said),
        },
    )
