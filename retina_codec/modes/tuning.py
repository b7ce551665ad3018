"""Tuning of modes: to epochs, to directions of motion, to the responses of cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import false_discovery_control

from retina_codec._common.checks import (
    magnitude,
    require_at_least,
    require_count,
    require_dims,
    require_finite,
)
from retina_codec._common.provenance import provenance
from retina_codec._common.time import bin_width_of, runs_of
from retina_codec.modes.epoch_runs import numbered_epochs
from retina_codec.modes.loadings import cell_loadings, mean_loadings
from retina_codec.modes.result import Modes
from retina_codec.modes.shift_null import (
    CircularShifts,
    LaggedFeature,
    decorrelation_time,
    make_circles,
    nuisance_basis,
    residuals,
    tail_p_value,
)
from retina_codec.recordings.tuning import direction_selectivity

WINDOWS_NEEDED = 10  # of the shortest shift


def epoch_tuning(
    modes: Modes | xr.DataArray,
    epochs: xr.DataArray,
    *,
    direction: xr.DataArray | None = None,
    ignore: Sequence[str] = (),
    skip: object = 0.0,
    n_permutations: int = 2000,
    seed: int = 0,
) -> xr.Dataset:
    """Mean loading of each mode in each kind of epoch, its time course, and direction tuning.

    An epoch is a contiguous run of one label (and one direction) in one block; it counts once,
    by its mean.

    Parameters
    ----------
    modes : Modes or DataArray
        Modes of a movie, or loadings (time, ..., mode), averaged over all other dims.
    epochs : DataArray
        (time,), the label of every sample. Its coordinate `direction`, if it has one, is used
        where `direction` is not given.
    direction : DataArray, optional
        (time,), degrees, NaN where nothing moves.
    ignore : sequence of str
        Labels to leave out, such as ``"transition"``.
    skip : float or quantity
        Seconds left out at the start of each epoch for its mean: the response to its onset.
    n_permutations : int
        Of the test of direction selectivity.
    seed : int
        Of the permutations.

    Returns
    -------
    Dataset
        `mean_loading`, `sem` (mode, epoch): mean and standard error over epochs of the kind (NaN
        for one epoch); `n_epochs` (epoch). `time_course`, `time_course_sem` (mode, epoch, onset):
        mean over epochs at `onset` seconds after their start, NaN beyond the shortest epoch of
        the kind; without epochs whose start the loadings do not have (the first of a block begins
        before the first whole history), as far as `epochs` has the times before.
        Where something moves: `direction_tuning`, `direction_sem` (mode, direction),
        over all moving epochs, and with at least three directions in equal steps: `dsi`,
        `preferred_direction`, `p_value`, `osi`, `preferred_orientation` and so on (mode) as from
        `retina_codec.recordings.direction_selectivity` (for as many repeats as each direction
        has; NaN for modes with negative loadings, whose vector sum means nothing).

    Raises
    ------
    TypeError
        If `modes`, `epochs` or `direction` is of another type.
    ValueError
        If dims or times differ, `skip` leaves nothing, or nothing is left.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from retina_codec import time_coordinate
    >>> labels = np.repeat(["on", "off", "on", "off"], 10)
    >>> time = time_coordinate(np.arange(40) * 0.01, 0.01)
    >>> epochs = xr.DataArray(labels, dims="time", coords={"time": time})
    >>> loadings = (epochs == "on").astype(float).expand_dims("mode")
    >>> epoch_tuning(loadings, epochs)["mean_loading"].sel(epoch="on").values
    array([1.])
    """
    loadings = mean_loadings(modes)
    bin_width = bin_width_of(loadings, "modes")
    epochs = require_dims(epochs, ("time",), "epochs")
    if direction is None and "direction" in epochs.coords:
        direction = epochs["direction"]
    labels = np.asarray(_aligned(epochs, loadings, "epochs").values, dtype=str)
    angles = np.full(labels.size, np.nan)
    if direction is not None:
        direction = require_dims(direction, ("time",), "direction")
        angles = _aligned(direction, loadings, "direction").values.astype(np.float64)
    missed = _missed(epochs, direction, loadings)
    n_skip = round(float(magnitude(skip, "s", "skip")) / bin_width)
    require_at_least(n_skip, 0, "skip")
    named = np.char.add(np.char.add(labels, "|"), angles.astype(str))
    values = loadings.values.astype(np.float64)
    number = numbered_epochs(named, loadings)
    starts = np.flatnonzero(np.r_[True, np.diff(number) > 0])
    stops = np.r_[starts[1:], number.size]
    used = ~np.isin(labels[starts], [str(name) for name in ignore])
    starts, stops = starts[used], stops[used]
    missed = missed[starts]
    skipped = np.maximum(n_skip - missed, 0)
    if not starts.size or (stops - starts <= skipped).any():
        shortest = (stops - starts).min(initial=number.size) * bin_width
        raise ValueError(
            f"epochs: nothing is left of {len(starts)} epochs, the shortest {shortest:g} s, with "
            f"skip={skip} and ignore={list(ignore)}: give fewer to leave out"
        )
    mean = np.stack(
        [values[a:b].mean(axis=0) for a, b in zip(starts + skipped, stops, strict=True)]
    )
    kind, angle = labels[starts], angles[starts]
    kinds = np.unique(kind)
    whole = missed == 0
    n_onset = int((stops - starts)[whole].max(initial=1))
    course = np.full((2, values.shape[1], len(kinds), n_onset), np.nan)
    for place, name in enumerate(kinds):
        of_kind = np.flatnonzero((kind == name) & whole)
        if not of_kind.size:
            continue
        n = int((stops - starts)[of_kind].min())
        traces = np.stack([values[starts[i] : starts[i] + n] for i in of_kind])
        course[0, :, place, :n], course[1, :, place, :n] = (m.T for m in _mean_and_sem(traces))
    found = [_mean_and_sem(mean[kind == name]) for name in kinds]
    units = {"units": "1"}
    tuned = xr.Dataset(
        {
            "mean_loading": (("mode", "epoch"), np.stack([m for m, _ in found], 1), units),
            "sem": (("mode", "epoch"), np.stack([s for _, s in found], 1), units),
            "n_epochs": ("epoch", [int((kind == name).sum()) for name in kinds]),
            "time_course": (("mode", "epoch", "onset"), course[0], units),
            "time_course_sem": (("mode", "epoch", "onset"), course[1], units),
        },
        coords={
            "epoch": kinds,
            "onset": ("onset", np.arange(n_onset) * bin_width, {"units": "s"}),
            **{key: c for key, c in loadings.coords.items() if c.dims == ("mode",)},
        },
    )
    if np.isfinite(angle).any():
        moving = _direction_tuning(mean, angle, n_permutations, seed)
        tuned = tuned.assign(dict(moving.data_vars.items()))
    return tuned.assign_attrs(
        {
            **loadings.attrs,
            **provenance(
                method="epoch_tuning",
                ignore=list(ignore),
                skip=n_skip * bin_width,
                n_permutations=n_permutations,
                seed=seed,
            ),
        }
    )


def response_association(
    modes: Modes | xr.DataArray,
    rate: xr.DataArray,
    *,
    n_draws: int = 2000,
    seed: int = 0,
) -> xr.Dataset:
    """Correlation of each mode with the response of each cell.

    Loadings with `cell` are correlated with the rate of their own cell, others with all. The
    p-value comes from circular shifts within blocks, as for `describe_modes`; q-values are those
    of Benjamini and Hochberg over all modes and cells. A mode of contributions to a cell is a part
    of that cell's response: its correlation says how large a part, and is no evidence of a
    coupling.

    Parameters
    ----------
    modes : Modes or DataArray
        Modes of a movie, or loadings (time, [cell,] ..., mode), averaged over other dims.
    rate : DataArray
        (time, cell), any response; all times (and cells) of the loadings must be there.
    n_draws : int
        Draws of the null.
    seed : int
        Of the draws.

    Returns
    -------
    Dataset
        `r`, `p_value`, `q_value` (mode, cell), NaN where one of them does not vary.

    Raises
    ------
    TypeError
        If `modes` or `rate` is of another type.
    ValueError
        If dims, times or cells are missing, values are NaN, or there are too few samples.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from retina_codec import time_coordinate
    >>> values = np.random.default_rng(0).random((500, 2))
    >>> coords = {"time": time_coordinate(np.arange(500) * 0.01, 0.01), "cell": ["a", "b"]}
    >>> rate = xr.DataArray(values, coords, ("time", "cell"))
    >>> loadings = rate.sel(cell="b").expand_dims("mode").drop_vars("cell")
    >>> response_association(loadings, rate)["r"].sel(cell="b").round(3).values
    array([1.])
    """
    loadings = cell_loadings(modes)
    bin_width_of(loadings, "modes")
    n_draws = require_count(n_draws, 100, "n_draws")
    rate = require_dims(rate, ("time", "cell"), "rate")
    require_finite(rate, "rate")
    own = "cell" in loadings.coords
    if loadings.sizes["cell"] > 1 and not own:
        raise ValueError(
            f"modes: the loadings are of {loadings.sizes['cell']} cells without names: add the "
            "coordinate 'cell', by which each is compared with its own rate"
        )
    if own:
        missing = sorted(set(loadings["cell"].values.tolist()) - set(rate["cell"].values.tolist()))
        if missing:
            raise ValueError(f"rate lacks the cells {missing} of the loadings; give all of them")
        rate = rate.sel(cell=loadings["cell"].values)
    rate = _aligned(rate, loadings, "rate")
    signals = loadings.values.transpose(1, 2, 0).astype(np.float64)
    responses = rate.values.T.astype(np.float64)
    n_cells, n_modes = len(responses), signals.shape[1]
    blocks = np.zeros(signals.shape[2], dtype=int)
    for place, run in enumerate(runs_of(loadings)):
        blocks[run] = place
    slowest = decorrelation_time(np.concatenate([responses, *signals]))
    shortest = 1 + min(slowest, len(blocks) // 4)
    if len(blocks) < WINDOWS_NEEDED:
        raise ValueError(f"modes: {len(blocks)} samples are too few to be shifted")
    order, circles = make_circles(blocks, shortest, n_draws)
    signals, responses = signals[:, :, order], responses[:, order]
    basis = nuisance_basis(np.empty((len(order), 0)), circles)
    null = CircularShifts(circles, shortest, n_draws, seed)
    r, p_value = (np.full((n_modes, n_cells), np.nan) for _ in range(2))
    for cell in range(n_cells):
        response = LaggedFeature(responses[[cell]], basis, null)
        left = residuals(signals[cell if own else 0], basis)
        for mode in np.flatnonzero(np.abs(left).any(axis=1)):
            unit = left[mode] / np.linalg.norm(left[mode])
            r[mode, cell] = response.observed(unit)[0]
            if np.isfinite(r[mode, cell]):
                drawn = np.abs(response.drawn(unit)[0])
                p_value[mode, cell] = tail_p_value(abs(r[mode, cell]), drawn)
    q_value = np.full(p_value.shape, np.nan)
    if np.isfinite(p_value).any():
        q_value[np.isfinite(p_value)] = false_discovery_control(p_value[np.isfinite(p_value)])
    units = {"units": "1"}
    coords: dict[str, Any] = {
        str(key): c for key, c in loadings.coords.items() if c.dims == ("mode",)
    }
    if "cell" in rate.coords:
        coords["cell"] = rate["cell"].variable
    return xr.Dataset(
        {
            "r": (("mode", "cell"), r, {**units, "long_name": "correlation with the response"}),
            "p_value": (("mode", "cell"), p_value, units),
            "q_value": (("mode", "cell"), q_value, {**units, "long_name": "Benjamini-Hochberg"}),
        },
        coords=coords,
        attrs={
            **loadings.attrs,
            **provenance(method="response_association", n_draws=n_draws, seed=seed),
        },
    )


def _aligned(data: xr.DataArray, loadings: xr.DataArray, argument: str) -> xr.DataArray:
    """Return `data` at all times of the loadings; ValueError if one is missing."""
    ours = loadings.get_index("time")
    if not (ours.is_unique and ("time" not in data.coords or data.get_index("time").is_unique)):
        raise ValueError(
            f"{argument} or the loadings of modes have times that stand there twice: lay the "
            "blocks end to end with .assign_coords(time=...), keeping its attrs"
        )
    if "time" not in data.coords or not ours.isin(data.get_index("time")).all():
        raise ValueError(
            f"{argument} lacks times of the loadings of modes: give it on the same time base, "
            "which is copied from the movie, not recomputed"
        )
    return data.sel(time=ours)


def _missed(
    epochs: xr.DataArray, direction: xr.DataArray | None, loadings: xr.DataArray
) -> np.ndarray:
    """Count samples of its epoch right before each sample (time,) that have no loading."""
    labels = np.asarray(epochs.values, dtype=str)
    times = epochs.get_index("time")
    if direction is not None and times.isin(direction.get_index("time")).all():
        angles = direction.sel(time=times).values.astype(np.float64)
        labels = np.char.add(np.char.add(labels, "|"), angles.astype(str))
    number = numbered_epochs(labels, epochs)
    first = np.searchsorted(number, number)  # numbers ascend
    place = times.get_indexer(loadings.get_index("time"))
    before = np.r_[-1, place[:-1]]
    return np.asarray(np.minimum(place - first[place], place - before - 1))


def _mean_and_sem(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the first axis and its standard error, NaN of a single one."""
    n = len(values)
    sem = values.std(axis=0, ddof=1) / np.sqrt(n) if n > 1 else np.full(values.shape[1:], np.nan)
    return values.mean(axis=0), sem


def _direction_tuning(
    mean: np.ndarray, angle: np.ndarray, n_permutations: int, seed: int
) -> xr.Dataset:
    """Tuning to direction, and selectivity as of the spike counts of cells."""
    moving = np.isfinite(angle)
    mean, angle = mean[moving], angle[moving] % 360
    directions = np.unique(angle)
    members = [np.flatnonzero(angle == value) for value in directions]
    found = [_mean_and_sem(mean[places]) for places in members]
    dims, units = ("mode", "direction"), {"units": "1"}
    tuned = xr.Dataset(
        {
            "direction_tuning": (dims, np.stack([m for m, _ in found], axis=1), units),
            "direction_sem": (dims, np.stack([s for _, s in found], axis=1), units),
        },
        coords={"direction": ("direction", directions, {"units": "degree"})},
    )
    n = len(directions)
    steps = np.diff(np.r_[directions, directions[0] + 360])
    if n < 3 or not np.allclose(steps, 360 / n):
        return tuned
    n_repeats = min(len(places) for places in members)
    responses = np.stack([mean[places[:n_repeats]] for places in members], axis=1)
    negative = (responses < 0).any(axis=(0, 1))
    counts = xr.DataArray(
        np.where(negative, 0, responses),
        dims=("repeat", "direction", "cell"),
        coords={"direction": directions, "cell": np.arange(responses.shape[2])},
    )
    selective = direction_selectivity(counts, n_permutations=n_permutations, seed=seed)
    reason = np.where(
        negative,
        "negative loadings: a vector sum means nothing",
        np.where(selective["reason"] == "no spikes", "silent", selective["reason"]),
    )
    renamed = selective.drop_vars(["n_spikes", "reason", "cell"]).rename(cell="mode")
    return tuned.merge(renamed.where(xr.DataArray(~negative, dims="mode"))).assign(
        reason=("mode", reason)
    )
