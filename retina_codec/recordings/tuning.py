"""Responses described by a number a cell: ON-OFF index, direction and orientation selectivity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import numpy as np
import xarray as xr
from scipy.stats import t as student_t

from retina_codec._common.checks import (
    magnitude,
    nearest_names,
    require_at_least,
    require_count,
    require_finite,
)
from retina_codec._common.provenance import provenance
from retina_codec._common.time import BIN_WIDTH_TOLERANCE, bin_width_of, runs_of
from retina_codec.recordings.nodes import cell_coordinate, require_node
from retina_codec.recordings.trials import count_in_windows, require_epochs, require_spikes

LEVEL = 0.95
# Angles drawn at a time in a permutation test: bounds its memory (32 MB).
CHUNK_NUMBERS = 2**22
# Permuted counts sum to the observed vector up to rounding; such draws are as extreme.
ROUNDING = 1e-9


def on_off_index(
    recording_or_node: xr.DataTree | xr.Dataset, *, on: str = "on", off: str = "off"
) -> xr.Dataset:
    """Preference for light on or off: ``(ON - OFF) / (ON + OFF)`` of the two mean rates.

    Rates are spikes per second of all presentations labelled `on` and `off`, so that unequal
    durations do not bias the index; for equal ones it is the index of the spike counts. The index
    is +1 for a cell that fires only at `on` and -1 for one that fires only at `off`.

    The interval (95 %) leaves out one presentation at a time: the index plus and minus Student's t
    times the jackknife standard error, cut at -1 and 1. The k-th `on` is left out together with the
    k-th `off` where there are as many of both (a whole repeat in a node with repeats); else the
    variances of leaving out either are added.

    Parameters
    ----------
    recording_or_node : xarray.DataTree or xarray.Dataset
        A recording with ``/spikes`` and ``/epochs``: spikes in ``[start, start + duration)`` of the
        epochs with these labels are counted. Or one node with spike_count([repeat,] time, cell)
        and the coordinate epoch(time): counts in the frames with these labels (of a model: its
        rates times the bin width).
    on, off : str
        Labels of the epochs that are compared.

    Returns
    -------
    xarray.Dataset
        Over `cell`: on_off_index, on_off_index_low, on_off_index_high (1), on_rate, off_rate (Hz),
        n_on, n_off (spikes), and `reason`: why a number is NaN ("" where none is).

    Raises
    ------
    TypeError
        If it is neither a recording nor a node of one.
    ValueError
        If there are no spikes, epochs or labels of this kind.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from retina_codec._common.time import time_coordinate
    >>> from retina_codec.recordings.tuning import on_off_index
    >>> node = xr.Dataset(
    ...     {"spike_count": (("time", "cell"), np.array([[0], [3], [0], [1]]))},
    ...     coords={
    ...         "time": time_coordinate(np.arange(4) * 0.5, 0.5),
    ...         "epoch": ("time", ["gray", "on", "gray", "off"]),
    ...         "cell": ["C1"],
    ...     },
    ... )
    >>> float(on_off_index(node)["on_off_index"].sel(cell="C1"))
    0.5
    """
    if on == off:
        raise ValueError(f"on and off are both {on!r}; give two different labels")
    if _is_recording(recording_or_node):
        spikes = require_spikes(recording_or_node, "recording")
        cell = cell_coordinate(spikes.ids)
        shown = []
        for label, argument in ((on, "on"), (off, "off")):
            epochs = require_epochs(recording_or_node, label, argument)
            start, seconds = epochs["start"].values, epochs["duration"].values
            shown.append((count_in_windows(spikes, start, start + seconds), seconds))
    else:
        data = require_node(recording_or_node, "node")
        cell = data["cell"]
        shown = [_labelled_counts(data, on, "on"), _labelled_counts(data, off, "off")]
    (n_on, on_seconds), (n_off, off_seconds) = shown

    index = _index(n_on.sum(0), on_seconds.sum(), n_off.sum(0), off_seconds.sum())
    if len(n_on) == len(n_off):
        groups = [_without_each(n_on, on_seconds, n_off, off_seconds, leave=(True, True))]
    else:
        groups = [
            _without_each(n_on, on_seconds, n_off, off_seconds, leave=(True, False)),
            _without_each(n_on, on_seconds, n_off, off_seconds, leave=(False, True)),
        ]
    n = [len(group) for group in groups]
    variance = sum(
        (k - 1) / k * ((group - group.mean(0)) ** 2).sum(0)
        for k, group in zip(n, groups, strict=True)
    )
    freedom = sum(n) - len(n)
    reach = np.sqrt(variance) * student_t.ppf((1 + LEVEL) / 2, freedom) if min(n) > 1 else np.nan
    reasons = np.where(
        np.isnan(index),
        "no spikes in either: index and interval undefined",
        np.where(
            np.isnan(reach + index),
            "fewer than two presentations, or spikes in only one: interval undefined",
            "",
        ),
    )
    variables = {
        "on_off_index": (index, "1", "(ON - OFF) / (ON + OFF) of the mean rates"),
        "on_off_index_low": (np.maximum(index - reach, -1), "1", "lower end, 95 % jackknife"),
        "on_off_index_high": (np.minimum(index + reach, 1), "1", "upper end, 95 % jackknife"),
        "on_rate": (n_on.sum(0) / on_seconds.sum(), "Hz", f"mean rate during {on!r}"),
        "off_rate": (n_off.sum(0) / off_seconds.sum(), "Hz", f"mean rate during {off!r}"),
        "n_on": (n_on.sum(0), "1", f"spikes during {on!r}"),
        "n_off": (n_off.sum(0), "1", f"spikes during {off!r}"),
    }
    return _over_cells(variables, reasons, cell, function="on_off_index", on=on, off=off)


def direction_tuning(
    recording_or_node: xr.DataTree | xr.Dataset,
    *,
    label: str = "grating",
    skip: object = 0.0,
    stimulus: str | None = None,
    between: Sequence[float] | None = None,
) -> xr.Dataset:
    """Spikes of each cell during each presentation of each direction of motion.

    Parameters
    ----------
    recording_or_node : xarray.DataTree or xarray.Dataset
        A recording with ``/spikes`` and ``/epochs`` that have the column direction(epoch): spikes
        in ``[start + skip, start + duration)`` are counted. Or one node with
        spike_count([repeat,] time, cell) and the coordinates epoch(time) and direction(time):
        contiguous frames of one direction are a presentation. Counts of a model are its rates
        times the bin width.
    label : str
        Label of the epochs to take.
    skip : float or quantity
        Seconds left out at the start of each presentation (the response to its onset).
    stimulus : str, optional
        Where several kinds of grating were shown: the one wanted, by its name in the column
        stimulus(epoch) of ``/epochs``.
    between : pair of float, optional
        Only presentations that start in ``[between[0], between[1])`` (seconds) are taken.

    Returns
    -------
    xarray.Dataset
        spike_count(repeat, direction, cell), the k-th presentation of each direction being repeat
        k; response_duration(repeat, direction) in seconds; direction in degrees, ascending.

    Raises
    ------
    TypeError
        If it is neither a recording nor a node of one.
    ValueError
        If there are no spikes, epochs or directions of this kind, if directions were not shown
        equally often or their durations differ, or if `skip` leaves nothing.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from retina_codec.recordings.spikes import SpikeTimes
    >>> from retina_codec.recordings.tuning import direction_tuning
    >>> spikes = SpikeTimes.from_trains({"C1": np.array([0.5, 1.2, 1.4, 1.6])})
    >>> epochs = xr.Dataset(
    ...     {
    ...         "start": ("epoch", [0.0, 1.0]), "duration": ("epoch", [1.0, 1.0]),
    ...         "label": ("epoch", ["grating"] * 2), "direction": ("epoch", [90.0, 0.0]),
    ...     }
    ... )
    >>> recording = xr.DataTree.from_dict({"/spikes": spikes.to_dataset(), "/epochs": epochs})
    >>> direction_tuning(recording)["spike_count"].sel(repeat=0, cell="C1").values
    array([3, 1])
    """
    seconds = float(magnitude(skip, "s", "skip"))
    require_at_least(seconds, 0, "skip")
    if _is_recording(recording_or_node):
        spikes = require_spikes(recording_or_node, "recording")
        cell = cell_coordinate(spikes.ids)
        epochs = require_epochs(recording_or_node, label, "label")
        if "direction" not in epochs:
            raise ValueError(
                "recording['epochs'] has no column 'direction'; add direction(epoch) in degrees"
            )
        if stimulus is not None:
            epochs = _of_stimulus(epochs, stimulus)
        epochs = epochs.isel(epoch=_chosen(epochs["start"].values, between))
        start = epochs["start"].values
        stop = start + epochs["duration"].values
        directions = epochs["direction"].values.astype(np.float64)
        counts = count_in_windows(spikes, start + seconds, stop)
        durations = stop - start - seconds
    else:
        data = require_node(recording_or_node, "node")
        if stimulus is not None:
            raise ValueError(
                f"stimulus={stimulus!r} chooses among the epochs of a recording, but one node was "
                "given; leave it out"
            )
        cell = data["cell"]
        counts, durations, directions = _moving_counts(data, label, seconds, between)
    if (durations <= 0).any():
        raise ValueError(
            f"skip={seconds:g} s leaves nothing of presentations that last "
            f"{durations.min() + seconds:g} s; give a shorter skip"
        )
    if np.isnan(directions).any():
        raise ValueError(f"label={label!r}: a presentation has direction NaN; give its degrees")
    if durations.max() - durations.min() > BIN_WIDTH_TOLERANCE * durations.max():
        raise ValueError(
            f"label={label!r}: responses last from {durations.min():g} to {durations.max():g} s; "
            "these are several kinds of presentation: choose one with stimulus= or "
            "between=(start, stop)"
        )
    values, which = np.unique(directions % 360, return_inverse=True)
    times_shown = np.bincount(which)
    if len(set(times_shown.tolist())) > 1:
        listed = ", ".join(f"{v:g}: {k}" for v, k in zip(values, times_shown, strict=True))
        raise ValueError(
            f"label={label!r}: directions (degrees) were not shown equally often ({listed}); "
            "choose one stimulus with stimulus=, or whole cycles with between=(start, stop)"
        )
    # Presentations come in the order of time; a stable sort by direction keeps it.
    order = np.argsort(which, kind="stable").reshape(len(values), -1).T
    return xr.Dataset(
        {
            "spike_count": (
                ("repeat", "direction", "cell"),
                counts[order],
                {"units": "1", "long_name": "spikes during the presentation"},
            ),
            "response_duration": (
                ("repeat", "direction"),
                durations[order],
                {"units": "s", "long_name": "time over which spikes are counted"},
            ),
        },
        coords={
            "direction": (
                "direction",
                values,
                {"units": "degree", "long_name": "direction of motion, 0 = +x, 90 = +y"},
            ),
            "repeat": ("repeat", np.arange(len(order))),
            "cell": cell,
        },
        attrs=provenance(
            function="direction_tuning",
            label=label,
            skip=seconds,
            stimulus=stimulus,
            between=None if between is None else [float(time) for time in between],
        ),
    )


def direction_selectivity(
    tuning: xr.Dataset | xr.DataArray, *, n_permutations: int = 10_000, seed: int = 0
) -> xr.Dataset:
    """Direction and orientation selectivity by vector sums, with permutation tests.

    With mean responses r_k to directions phi_k,

    - dsi = ``|sum r exp(i phi)| / sum r``, which is 1 - circular variance,
    - osi = ``|sum r exp(2 i phi)| / sum r``,

    and the angle of the sum is the preferred direction, half that of the second the preferred axis
    (Mardia & Jupp, Directional Statistics, 2000, section 2.3; Mazurek, Kager & Van Hooser, Front.
    Neural Circuits 8:92, 2014, eqs. 2 and 3). An index of few spikes is large by chance: p is
    ``(1 + #{permuted >= observed}) / (n_permutations + 1)`` over permutations of all counts across
    repeats and directions, the same permutations for all cells.

    Parameters
    ----------
    tuning : xarray.Dataset or xarray.DataArray
        spike_count([repeat,] direction, cell) as from `direction_tuning`; directions in degrees,
        equally spaced around the circle.
    n_permutations : int
        Permutations of the test.
    seed : int
        Seed of the permutations.

    Returns
    -------
    xarray.Dataset
        Over `cell`: dsi, preferred_direction (degrees, 0 to 360), p_value; osi,
        preferred_orientation (degrees, 0 to 180: the axis of motion, bars being perpendicular to
        it), orientation_p_value; n_spikes; and `reason`: why a number is NaN ("" where none is).

    Raises
    ------
    TypeError
        If `tuning` is of another type, or a number is not whole.
    ValueError
        If dims are wrong, counts are negative or not finite, or directions do not go around the
        circle in equal steps.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from retina_codec.recordings.tuning import direction_selectivity
    >>> counts = xr.DataArray(
    ...     np.array([[[10], [5], [0], [5]]] * 5), dims=("repeat", "direction", "cell"),
    ...     coords={"direction": [0.0, 90.0, 180.0, 270.0], "cell": ["C1"]},
    ... )
    >>> found = direction_selectivity(counts, n_permutations=999)
    >>> float(found["dsi"][0]), float(found["preferred_direction"][0])
    (0.5, 0.0)
    >>> bool(found["p_value"][0] < 0.01)
    True
    """
    n_permutations = require_count(n_permutations, 1, "n_permutations")
    seed = require_count(seed, 0, "seed")
    counts = _checked_tuning(tuning)
    n_repeats, _, n_cells = counts.shape
    angles = np.deg2rad(counts["direction"].values.astype(np.float64))
    responses = counts.values.reshape(-1, n_cells).astype(np.float64)
    of_each = np.tile(angles, n_repeats)
    total = responses.sum(axis=0)
    units = np.stack([np.exp(1j * of_each), np.exp(2j * of_each)])
    observed = units @ responses  # (direction | orientation, cell)

    rng = np.random.default_rng(seed)
    reached = np.zeros((2, n_cells))
    step = max(1, CHUNK_NUMBERS // max(len(of_each), n_cells))
    for first in range(0, n_permutations, step):
        n = min(step, n_permutations - first)
        # Angles are permuted and not counts: one draw then serves all cells as a matrix product.
        order = np.argsort(rng.random((n, len(of_each))), axis=1)
        for unit, vector, hits in zip(units, observed, reached, strict=True):
            drawn = np.abs(unit[order] @ responses)
            hits += (drawn >= np.abs(vector) - ROUNDING * total).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        dsi, osi = np.abs(observed) / total
    silent = total == 0
    p_values = np.where(silent, np.nan, (1 + reached) / (n_permutations + 1))
    # An index of 0 has no direction: what is left of its angle is rounding.
    direction, orientation = np.where(
        np.abs(observed) > ROUNDING * total, np.rad2deg(np.angle(observed)), np.nan
    )
    reasons = np.where(
        silent,
        "no spikes",
        np.where(np.isnan(direction + orientation), "no preferred direction or axis", ""),
    )
    variables = {
        "dsi": (dsi, "1", "|sum r exp(i phi)| / sum r"),
        "preferred_direction": (direction % 360, "degree", "angle of the vector sum"),
        "p_value": (p_values[0], "1", "permutation test of dsi"),
        "osi": (osi, "1", "|sum r exp(2 i phi)| / sum r"),
        "preferred_orientation": (orientation / 2 % 180, "degree", "axis of preferred motion"),
        "orientation_p_value": (p_values[1], "1", "permutation test of osi"),
        "n_spikes": (np.rint(total).astype(np.int64), "1", "spikes in all presentations"),
    }
    return _over_cells(
        variables,
        reasons,
        counts["cell"],
        function="direction_selectivity",
        n_permutations=n_permutations,
        seed=seed,
    )


def _is_recording(value: Any) -> TypeGuard[xr.DataTree]:
    """Whether `value` is a whole recording with epochs, and not one node."""
    return isinstance(value, xr.DataTree) and "spike_count" not in value.to_dataset()


def _over_cells(
    variables: dict[str, tuple[np.ndarray, str, str]],
    reasons: np.ndarray,
    cell: xr.DataArray,
    **parameters: Any,
) -> xr.Dataset:
    """Results over `cell`, with units, names and why some are NaN."""
    return xr.Dataset(
        {
            **{
                name: ("cell", values, {"units": units, "long_name": text})
                for name, (values, units, text) in variables.items()
            },
            "reason": ("cell", reasons.astype(str), {"long_name": "why a number is NaN"}),
        },
        coords={"cell": cell},
        attrs=provenance(**parameters),
    )


def _index(
    n_on: np.ndarray, on_seconds: np.ndarray, n_off: np.ndarray, off_seconds: np.ndarray
) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        on, off = n_on / on_seconds, n_off / off_seconds
        return (on - off) / (on + off)


def _without_each(
    n_on: np.ndarray,
    on_seconds: np.ndarray,
    n_off: np.ndarray,
    off_seconds: np.ndarray,
    *,
    leave: tuple[bool, bool],
) -> np.ndarray:
    """Index (left out, cell) without each presentation of `on`, of `off`, or of both."""

    def left(values: np.ndarray, out: bool) -> np.ndarray:
        return values.sum(0, keepdims=True) - (values if out else 0)

    return _index(
        left(n_on, leave[0]),
        left(on_seconds, leave[0])[:, None],
        left(n_off, leave[1]),
        left(off_seconds, leave[1])[:, None],
    )


def _labels_of(data: xr.Dataset, label: str, argument: str) -> np.ndarray:
    """Whether each frame has this label; ValueError where none has."""
    if "epoch" not in data.coords or data["epoch"].dims != ("time",):
        raise ValueError(
            "node has no coordinate epoch(time) that says what its frames show; add it with "
            ".assign_coords(epoch=('time', [...])), or give the recording with its epochs"
        )
    labels = data["epoch"].values.astype(str)
    if label not in labels:
        names = dict.fromkeys(labels.tolist())
        raise ValueError(
            f"{argument}={label!r} labels no frame of node; {nearest_names(label, names)}"
        )
    return labels == label


def _presentations(data: xr.Dataset, starts_new: Callable[[slice], np.ndarray]) -> np.ndarray:
    """Give each frame the number of its presentation; blocks and `starts_new` begin a new one."""
    new = np.zeros(data.sizes["time"], dtype=bool)
    for run in runs_of(data):
        new[run] = starts_new(run)
        new[run.start] = True
    return np.cumsum(new) - 1


def _labelled_counts(data: xr.Dataset, label: str, argument: str) -> tuple[np.ndarray, np.ndarray]:
    """Give counts (presentation, cell) in frames with this label, and the seconds of each.

    A presentation is a repeat, or, without repeats, a contiguous run of such frames.
    """
    shown = _labels_of(data, label, argument)
    width = bin_width_of(data, "node")
    require_finite(data["spike_count"], "node['spike_count']")
    counts = data["spike_count"].isel(time=np.flatnonzero(shown))
    if "repeat" in counts.dims:
        summed = _summed(counts.sum("time").values)
        return summed, np.full(len(summed), shown.sum() * width)
    numbers = _presentations(data, lambda run: np.diff(shown[run], prepend=shown[run.start]))[shown]
    _, which, frames = np.unique(numbers, return_inverse=True, return_counts=True)
    values = _summed(counts.values)
    summed = np.zeros((len(frames), counts.sizes["cell"]), dtype=values.dtype)
    np.add.at(summed, which, values)
    return summed, frames * width


def _summed(counts: np.ndarray) -> np.ndarray:
    """Give counts as whole numbers; expected counts, of a model's rates, as they are."""
    return counts.astype(np.float64 if counts.dtype.kind == "f" else np.int64)


def _chosen(starts: np.ndarray, between: Sequence[float] | None) -> np.ndarray:
    """Numbers of the presentations that start within `between`; all for None."""
    if between is None:
        return np.arange(len(starts))
    first, last = (float(magnitude(time, "s", "between")) for time in between)
    chosen = np.flatnonzero((starts >= first) & (starts < last))
    if not chosen.size:
        raise ValueError(
            f"between=({first:g}, {last:g}): no presentation starts there; they start from "
            f"{starts.min():g} to {starts.max():g} s"
        )
    return chosen


def _of_stimulus(epochs: xr.Dataset, stimulus: str) -> xr.Dataset:
    """Epochs whose column `stimulus` has this name."""
    if "stimulus" not in epochs:
        raise ValueError(
            f"stimulus={stimulus!r}, but recording['epochs'] has no column 'stimulus'; choose with "
            "between=(start, stop) instead"
        )
    names = epochs["stimulus"].values.astype(str)
    if stimulus not in names:
        known = dict.fromkeys(names.tolist())
        raise ValueError(f"stimulus={stimulus!r} has no epochs; {nearest_names(stimulus, known)}")
    return epochs.isel(epoch=names == stimulus)


def _moving_counts(
    data: xr.Dataset, label: str, skip: float, between: Sequence[float] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give counts (presentation, cell), seconds and direction of each, in the order of time."""
    shown = _labels_of(data, label, "label")
    if "direction" not in data.coords or data["direction"].dims != ("time",):
        raise ValueError("node has no coordinate direction(time); add it in degrees")
    direction = np.where(shown, data["direction"].values, np.nan)
    if np.isnan(direction[shown]).any():
        raise ValueError(f"label={label!r}: frames have direction NaN; give their degrees")
    width = bin_width_of(data, "node")
    onset = data["time"].values
    changed = np.where(shown, direction, -1.0)
    numbers = _presentations(
        data, lambda run: np.diff(changed[run], prepend=changed[run.start]) != 0
    )
    first = np.flatnonzero(np.diff(numbers, prepend=-1))
    first = first[shown[first]]
    first = first[_chosen(onset[first], between)]
    frames = [np.flatnonzero(numbers == numbers[i]) for i in first]
    # A frame is left out if it starts before the skipped time is over (but for rounding).
    frames = [of[onset[of] - onset[of[0]] >= skip - 1e-6 * width] for of in frames]
    counts = data["spike_count"]
    require_finite(counts, "node['spike_count']")
    repeated = counts if "repeat" in counts.dims else counts.expand_dims("repeat")
    summed = [_summed(repeated.isel(time=of).sum("time").values) for of in frames]
    n_repeats = repeated.sizes["repeat"]
    return (
        np.stack(summed, axis=1).reshape(-1, counts.sizes["cell"]),
        np.tile([len(of) * width for of in frames], n_repeats),
        np.tile(direction[first], n_repeats),
    )


def _checked_tuning(tuning: Any) -> xr.DataArray:
    """Give (repeat, direction, cell), whose directions go around the circle in equal steps."""
    if isinstance(tuning, xr.Dataset):
        if "spike_count" not in tuning:
            raise ValueError(
                "tuning has no variable 'spike_count'; give the result of direction_tuning"
            )
        tuning = tuning["spike_count"]
    if not isinstance(tuning, xr.DataArray):
        raise TypeError(
            f"tuning is a {type(tuning).__name__}; expected spike counts with dims "
            "(repeat, direction, cell), as from direction_tuning"
        )
    if "repeat" not in tuning.dims:
        tuning = tuning.expand_dims("repeat")
    if set(tuning.dims) != {"repeat", "direction", "cell"} or "direction" not in tuning.coords:
        raise ValueError(
            f"tuning has dims {tuple(tuning.dims)}; expected ([repeat,] direction, cell) with the "
            "coordinate 'direction' in degrees"
        )
    counts = tuning.transpose("repeat", "direction", "cell")
    if not np.isfinite(counts.values).all() or (counts.values < 0).any():
        raise ValueError("tuning has counts that are negative, NaN or infinite; correct them")
    directions = np.sort(counts["direction"].values.astype(np.float64) % 360)
    n = len(directions)
    steps = np.diff(np.r_[directions, directions[0] + 360])
    if n < 3 or np.abs(steps - 360 / n).max() > 1e-6 * 360:
        raise ValueError(
            f"tuning: directions {', '.join(f'{d:g}' for d in directions)} (degrees) are not at "
            "least three in equal steps around the circle; vector sums would be biased: choose "
            "such directions with .sel(direction=[...])"
        )
    return counts
