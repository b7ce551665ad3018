"""How well a model predicts: recordings against ceiling, null and baseline; labels of images."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import t as student_t

from retina_codec._common.checks import require_count, require_dims, require_finite
from retina_codec._common.provenance import provenance
from retina_codec._common.time import bin_width_of, require_time_forward, runs_of
from retina_codec.models.accuracy import accuracy, judges_images
from retina_codec.models.model import Model, RetinaModel
from retina_codec.models.resampling import FEWEST_STRETCHES, STRETCH_SECONDS, Resampling
from retina_codec.models.scores import (
    SCORES,
    Predicted,
    Recorded,
    does_not_vary,
    means_over_time,
    scores_of,
    shifted_scores,
)
from retina_codec.recordings.nodes import chosen_cells, require_node
from retina_codec.recordings.noise_ceiling import reliability

CEILING = "highest correlation any model can reach"


def evaluate(
    model: Model | xr.DataArray,
    node: xr.DataTree | xr.Dataset | xr.DataArray,
    *,
    baseline: Model | xr.DataArray | xr.Dataset | None = None,
    n_draws: int = 1000,
    n_shifts: int = 1000,
    shortest_shift: float = 1.0,
    level: float = 0.95,
    keep_draws: bool = False,
    seed: int = 0,
) -> xr.Dataset:
    """Score a model's predictions: on a recording cell by cell, on images category by category.

    Recordings are scored on raw counts. Intervals are percentiles of a moving-block bootstrap over
    time [2]_ (stretches of half a second that never cross from one block into the next). The null
    answers what a prediction with the same statistics but no relation with the responses would
    score: the prediction is shifted round within each block. Where a baseline is given, both are
    scored on the bins that both predict, and the interval of their difference is paired: each draw
    takes the same bins for both.

    Images are scored by how often the label is the largest logit, or among the five largest.
    Intervals of these shares are Wilson's [3]_; those of cross-entropies and of differences are
    percentiles of a bootstrap that draws images within each category, the same for both models.

    Parameters
    ----------
    model : Model or xarray.DataArray
        The model, or rates (time, cell) in Hz that one predicted for bins of `node`; of a
        classifier, logits (image, category).
    node : xarray.DataTree, xarray.Dataset or xarray.DataArray
        stimulus (time, [color,] y, x), which predictions that are given do not need, and
        spike_count ([repeat,] time, cell), also larger than memory. For a classifier, images
        (image, color, y, x) with a coordinate ``label`` (image): names of categories, or whole
        numbers that count them from 0.
    baseline : Model, xarray.DataArray or xarray.Dataset, optional
        What to compare with, such as an `LN` model: a model, its prediction, or (for recordings)
        its evaluation on the same bins with ``keep_draws=True`` and the same `n_draws` and `seed`.
    n_draws : int
        Draws of the bootstrap.
    n_shifts : int
        Shifted predictions; fewer where a single block does not have as many shifts. Of recordings
        only, like the next.
    shortest_shift : float
        Seconds that a prediction is moved by at least, either way round. Blocks of less than twice
        as much are left out of the null.
    level : float
        Coverage of the intervals, and quantile of the null's upper end.
    keep_draws : bool
        Keep the scores of all draws, so that the result can be a `baseline`; of recordings only.
    seed : int
        Of draws and shifts.

    Returns
    -------
    xarray.Dataset
        Over ``cell``, each score with

        - ``_low`` and ``_high``: its interval;
        - ``_null`` and ``_null_high``: mean and upper quantile of shifted predictions;
        - where there is a baseline, ``_baseline``, ``_baseline_low``, ``_baseline_high``; and
          ``_difference``, ``_difference_low``, ``_difference_high``: the model's less the
          baseline's;
        - if `keep_draws`, ``_draws`` (draw, cell).

        The scores are

        - ``pearson_r``: of the prediction with the mean count over repeats, or the single trial;
        - ``cc_norm``: `pearson_r` over its ceiling ``cc_max = sqrt(SP / Var(mean))`` [1]_;
        - ``fev``: fraction of explainable variance explained,
          ``1 - (MSE_trial - s2) / (Var_trial - s2)``, s2 the variance across repeats;
        - ``deviance_explained``: of Poisson counts, against each cell's mean rate. In the logarithm
          an expected count below 1e-12 a bin is taken for 1e-12: a spike where none was expected
          costs 27.6 nats instead of an infinite deviance.

        Further ``cc_max`` (its interval is the jackknife over repeats of `reliability`),
        ``p_value`` (one-sided, of `pearson_r` among its shifted ones; not below
        ``1 / (n_shifts + 1)``) and ``reason``: why a number of that cell is NaN ("" where none
        is).

        Of images, over ``category`` (of the label): ``n_images``, ``top1``, ``top5`` (where there
        are more than five categories) and ``cross_entropy`` (nat), each with ``_low`` and
        ``_high``, NaN where no image has the label; the same over all images as scalars,
        ``top1_overall`` ...; and with a baseline ``_baseline`` and ``_difference``, as above.

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        If the recording or the baseline does not fit the model, or no bin is predicted; if images
        have no labels, or labels that are no categories.

    References
    ----------
    .. [1] Schoppe et al., Front. Comput. Neurosci. 10 (2016), 10.
    .. [2] Kunsch, Ann. Statist. 17 (1989), 1217.
    .. [3] Wilson, J. Am. Stat. Assoc. 22 (1927), 209.

    Examples
    --------
    >>> import numpy as np, retina_codec as rc, xarray as xr
    >>> movie = rc.stimuli.white_noise(n_frames=500, shape=(1, 1), seed=0)
    >>> model = rc.models.BNCNN((1, 1), history=8, bin_width=0.01, cells=["a"])
    >>> rate = np.nan_to_num(model.predict(movie).reindex(time=movie.time).values)
    >>> counts = np.random.default_rng(0).poisson(rate * 0.01, size=(20, *rate.shape))
    >>> node = xr.Dataset(
    ...     {"stimulus": movie, "spike_count": (("repeat", "time", "cell"), counts)},
    ...     {"cell": ["a"]},
    ... )
    >>> scores = rc.evaluate(model, node, n_draws=100)
    >>> [name for name in scores if str(name).startswith("fev")]
    ['fev', 'fev_low', 'fev_high', 'fev_null', 'fev_null_high']
    >>> bool(scores["pearson_r"][0] > scores["pearson_r_null_high"][0])
    True
    """
    if judges_images(model):
        if isinstance(baseline, xr.Dataset) or keep_draws:
            raise ValueError(
                "keep_draws, and a baseline that is an evaluation, are of recordings: give the "
                "other classifier, or its logits, as baseline"
            )
        return accuracy(
            model,
            node,  # type: ignore[arg-type]  # checked there
            baseline=baseline,
            n_draws=n_draws,
            level=level,
            seed=seed,
        )
    n_shifts = require_count(n_shifts, 1, "n_shifts")
    others = {} if baseline is None or isinstance(baseline, xr.Dataset) else {"baseline": baseline}
    judged = judge(
        {"model": model, **others},
        node,
        n_draws=n_draws,
        level=level,
        shortest_shift=shortest_shift,
        seed=seed,
    )
    found = judged.scores[0]
    variables: dict[str, Any] = {}
    null, p_value, n_shifts = _null(judged, n_shifts, level)
    for name, long_name in SCORES.items():
        variables |= judged.with_interval(name, found[name], long_name)
        for suffix, text in (
            ("_null", "mean of shifted predictions"),
            ("_null_high", f"{100 * level:g} % quantile of shifted predictions"),
        ):
            variables[name + suffix] = _variable(null[name + suffix], f"{long_name}, {text}")
    variables |= _ceiling(judged, found["cc_max"][0], level)
    variables["p_value"] = _variable(p_value, "p of pearson_r among shifted predictions")
    if baseline is not None:
        other = (
            _given_baseline(baseline, judged)
            if isinstance(baseline, xr.Dataset)
            else judged.scores[1]
        )
        for name, long_name in SCORES.items():
            variables |= judged.with_interval(
                f"{name}_baseline", other[name], f"{long_name}, baseline"
            )
            variables |= judged.with_interval(
                f"{name}_difference", found[name] - other[name], f"{long_name}, above the baseline"
            )
    reasons = [
        _reason({name: v[1][i] for name, v in variables.items()}, judged, i)
        for i in range(len(judged.cells))
    ]
    variables["reason"] = ("cell", np.array(reasons, dtype=str), {"long_name": "why one is NaN"})
    if keep_draws:
        for name, long_name in SCORES.items():
            attrs = {"units": "1", "long_name": f"{long_name}, draws of the bootstrap"}
            variables[f"{name}_draws"] = (("draw", "cell"), found[name][2:], attrs)
    attrs = {} if judged.fingerprints[0] is None else {"model_fingerprint": judged.fingerprints[0]}
    if len(judged.fingerprints) > 1 and judged.fingerprints[1] is not None:
        attrs["baseline_fingerprint"] = judged.fingerprints[1]
    return xr.Dataset(
        variables,
        coords={"cell": judged.cells},
        attrs={
            **attrs,
            "data_fingerprint": judged.data_fingerprint,
            "n_bins": judged.resampling.n_bins,
            "n_repeats": judged.recorded.n_repeats,
            **provenance(
                function="evaluate",
                level=level,
                n_draws=n_draws,
                n_shifts=n_shifts,
                shortest_shift=shortest_shift,
                block_seconds=STRETCH_SECONDS,
                seed=seed,
            ),
        },
    )


@dataclass(frozen=True)
class Judged:
    """Predictions of one recording and their scores (row, cell), on the same resampled bins."""

    cells: xr.DataArray
    resampling: Resampling
    recorded: Recorded
    expected: list[np.ndarray]
    predicted: list[Predicted]
    scores: list[dict[str, np.ndarray]]
    fingerprints: list[str | None]
    level: float
    shortest_shift: float
    seed: int
    counts: xr.DataArray  # (repeat, time, cell) of the bins that are scored
    repeated: bool

    @property
    def data_fingerprint(self) -> str:
        """Sixteen hex digits that change with the bins, the cells or the counts."""
        digest = hashlib.sha256(self.counts["time"].values.tobytes())
        digest.update(json.dumps(self.cells.values.tolist()).encode())
        digest.update(np.ascontiguousarray(self.recorded.counts).tobytes())
        return digest.hexdigest()[:16]

    def with_interval(self, name: str, values: np.ndarray, long_name: str) -> dict[str, Any]:
        """Variables of a score (row, cell): the estimate, and the ends of its interval."""
        low, high = self.interval(values)
        return {
            name: _variable(values[0], long_name),
            f"{name}_low": _variable(low, f"{long_name}, lower end"),
            f"{name}_high": _variable(high, f"{long_name}, upper end"),
        }

    def interval(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Percentiles of the draws of (row, ...); NaN where too many of them are undefined."""
        draws = values[2:]
        undefined = np.isnan(draws).mean(0) > 1 - self.level
        undefined |= np.isnan(values[0]) | (not self.resampling.has_intervals)
        tail = 50 * (1 - self.level)
        low, high = np.nanpercentile(np.where(undefined, 0.0, draws), [tail, 100 - tail], axis=0)
        return np.where(undefined, np.nan, low), np.where(undefined, np.nan, high)


def judge(
    given: Mapping[str, Model | xr.DataArray],
    node: xr.DataTree | xr.Dataset | xr.DataArray,
    *,
    n_draws: int,
    level: float,
    shortest_shift: float,
    seed: int,
) -> Judged:
    """Score several predictions (by argument) on the bins that all of them predict."""
    data = require_node(node, "node")
    require_time_forward(data, "node")
    n_draws = require_count(n_draws, 1, "n_draws")
    seed = require_count(seed, 0, "seed")
    if not 0 < level < 1:
        raise ValueError(f"level={level!r}; expected a number above 0 and below 1")
    if not shortest_shift > 0:
        raise ValueError(f"shortest_shift={shortest_shift!r}; expected seconds above 0")
    rates = {name: _rates(value, data, name) for name, value in given.items()}
    first, *others = rates.values()
    cells = first["cell"].values.tolist()
    for name, rate in list(rates.items())[1:]:
        if sorted(rate["cell"].values.tolist()) != sorted(cells):
            raise ValueError(
                f"{name} has the cells {rate['cell'].values.tolist()}; the model has {cells}: "
                "compare models of the same cells"
            )
    onsets = data["time"].values
    common = np.isin(onsets, first["time"].values)
    for rate in others:
        common &= np.isin(onsets, rate["time"].values)
    bins = np.flatnonzero(common)
    if len(bins) < 2:
        raise ValueError(
            f"node has {len(bins)} bins that {' and '.join(given)} predict; expected at least 2: "
            "give a longer recording, or models with a shorter history"
        )
    counts = data["spike_count"].assign_coords(cell=data["cell"].astype(str))
    counts = counts.sel(cell=chosen_cells(counts["cell"].values.tolist(), cells))
    require_finite(counts, "node['spike_count']")
    repeated = "repeat" in counts.dims
    if not repeated:
        counts = counts.expand_dims("repeat")
    width = bin_width_of(data, "node")
    at = onsets[bins]
    expected = [
        rate.sel(cell=cells).values[np.searchsorted(rate["time"].values, at)].astype(np.float64)
        * width
        for rate in rates.values()
    ]
    runs = _runs(data, bins)
    resampling = Resampling(runs, width, n_draws, shortest_shift, seed)
    recorded, predicted = means_over_time(counts, bins, expected, resampling)
    return Judged(
        cells=first["cell"],
        resampling=resampling,
        recorded=recorded,
        expected=expected,
        predicted=predicted,
        scores=[scores_of(recorded, one) for one in predicted],
        fingerprints=[rate.attrs.get("model_fingerprint") for rate in rates.values()],
        level=level,
        shortest_shift=shortest_shift,
        seed=seed,
        counts=counts.isel(time=bins),
        repeated=repeated,
    )


def _rates(given: Any, data: xr.Dataset, argument: str) -> xr.DataArray:
    """Rates (time, cell) of a model or a prediction, whose times are bins of the recording."""
    if isinstance(given, RetinaModel):
        if "stimulus" not in data:
            raise ValueError(
                f"node has no variable 'stimulus' to predict from; it has "
                f"{', '.join(map(str, data.data_vars))}: add it, or give the prediction"
            )
        return given.predict(data["stimulus"])
    if not isinstance(given, xr.DataArray):
        raise TypeError(
            f"{argument} is a {type(given).__name__}; expected a RetinaModel, or a DataArray of "
            "rates (time, cell) such as model.predict gives"
        )
    rate = require_dims(given, ("time", "cell"), argument)
    if rate.attrs.get("units", "Hz") != "Hz":
        raise ValueError(f"{argument} is in {rate.attrs['units']!r}; expected rates in 'Hz'")
    for dim in ("time", "cell"):
        if dim not in rate.coords:
            raise ValueError(f"{argument} has no coordinate {dim!r}, so it cannot be matched")
    require_finite(rate, argument)
    if (rate < 0).any():
        raise ValueError(f"{argument} has negative rates; expected rates in Hz")
    strange = ~np.isin(rate["time"].values, data["time"].values)
    if strange.any():
        raise ValueError(
            f"{argument} has {strange.sum()} bins that node does not have, the first at "
            f"{rate['time'].values[strange][0]:g} s: give the node that it predicts"
        )
    return rate.assign_coords(cell=rate["cell"].astype(str)).sortby("time")


def _runs(data: xr.Dataset, bins: np.ndarray) -> list[slice]:
    """Contiguous runs of the bins that are scored, as slices of `bins`."""
    edges = np.diff(bins) != 1
    number = np.empty(data.sizes["time"], dtype=np.int64)
    for i, run in enumerate(runs_of(data)):
        number[run] = i
    edges |= np.diff(number[bins]) != 0
    bounds = np.r_[0, np.flatnonzero(edges) + 1, len(bins)]
    return [slice(int(a), int(b)) for a, b in itertools.pairwise(bounds)]


def _null(judged: Judged, n_shifts: int, level: float) -> tuple[dict[str, Any], np.ndarray, int]:
    """Mean and upper quantile of each score of shifted predictions, p, and their number."""
    shifts = judged.resampling.shifts(n_shifts)
    undefined = np.full(len(judged.cells), np.nan)
    if len(shifts) == 0:
        names = [name + suffix for name in SCORES for suffix in ("_null", "_null_high")]
        return dict.fromkeys(names, undefined), undefined, 0
    moved, unmoved = shifted_scores(
        judged.recorded, judged.predicted[0], judged.expected[0], judged.resampling, shifts
    )
    null = {}
    for name in SCORES:
        # The score of each cell is defined for all shifts or for none.
        null[f"{name}_null"] = moved[name].mean(0)
        null[f"{name}_null_high"] = np.quantile(moved[name], level, axis=0)
    r, observed = moved["pearson_r"], unmoved["pearson_r"]
    p_value = (1 + (r >= observed).sum(0)) / (1 + len(r))
    return null, np.where(np.isnan(observed[0]), np.nan, p_value), len(r)


def _ceiling(judged: Judged, cc_max: np.ndarray, level: float) -> dict[str, Any]:
    """cc_max with its jackknife interval over repeats."""
    low = high = np.full(len(cc_max), np.nan)
    if judged.repeated:
        found = reliability(xr.Dataset({"spike_count": judged.counts}), n_splits=1)
        n = judged.recorded.n_repeats
        reach = found["cc_max_se"].values * student_t.ppf((1 + level) / 2, max(1, n - 1))
        low, high = np.maximum(cc_max - reach, 0), np.minimum(cc_max + reach, 1)
    return {
        "cc_max": _variable(cc_max, CEILING),
        "cc_max_low": _variable(low, f"{CEILING}, lower end (jackknife over repeats)"),
        "cc_max_high": _variable(high, f"{CEILING}, upper end (jackknife over repeats)"),
    }


def _given_baseline(baseline: xr.Dataset, judged: Judged) -> dict[str, np.ndarray]:
    """Scores (row, cell) that an evaluation kept; ValueError unless its rows are those here."""
    missing = [f"{name}_draws" for name in SCORES if f"{name}_draws" not in baseline]
    if missing:
        raise ValueError(
            f"baseline has no {', '.join(missing)}, without which the difference has no interval: "
            "make it with evaluate(..., keep_draws=True), or give the model itself"
        )
    if baseline.attrs.get("data_fingerprint") != judged.data_fingerprint:
        raise ValueError(
            "baseline was evaluated on other bins, cells or counts: evaluate it on the same node "
            "(models of different history predict different bins), or give the model itself"
        )
    settings = json.loads(baseline.attrs["parameters"])
    ours = {"n_draws": judged.resampling.n_rows - 2, "seed": judged.seed}
    theirs = {name: settings.get(name) for name in ours}
    if theirs != ours:
        raise ValueError(
            f"baseline was evaluated with {theirs}; expected {ours}: draws are paired only if "
            "both are the same"
        )
    scores = {}
    for name in SCORES:
        estimate = baseline[name].values[None]
        # Row 1 is that of the null, which a difference does not use.
        scores[name] = np.concatenate([estimate, estimate, baseline[f"{name}_draws"].values])
    return scores


def _variable(values: np.ndarray, long_name: str) -> tuple[str, np.ndarray, dict[str, str]]:
    return ("cell", np.asarray(values), {"units": "1", "long_name": long_name})


def _reason(values: dict[str, float], judged: Judged, cell: int) -> str:
    """Why variables of a cell are NaN, or an empty text."""
    missing = [name for name, value in values.items() if np.isnan(value)]
    if not missing:
        return ""
    counts = judged.recorded.counts[:, cell]
    silent, constant = not counts.any(), np.ptp(counts) == 0
    needs_repeats = ("cc_norm", "cc_max", "fev")
    n = judged.recorded.n_repeats
    seconds = FEWEST_STRETCHES * STRETCH_SECONDS
    causes: list[tuple[str, list[str]]] = [
        ("no spikes", missing if silent else []),
        (
            "fewer than two repeats",
            [m for m in missing if m.startswith(needs_repeats)] if n < 2 else [],
        ),
        ("the mean count does not vary", [m for m in missing if constant]),
        (
            "signal power is not positive",
            [m for m in missing if m.startswith(needs_repeats) and np.isnan(values["cc_max"])],
        ),
        (
            "no explainable variance",
            [m for m in missing if m.startswith("fev") and np.isnan(values["fev"])],
        ),
        ("fewer than three repeats", [m for m in missing if m.startswith("cc_max") and n < 3]),
        (
            "signal power vanishes without one of the repeats",
            [m for m in missing if m.startswith("cc_max")],
        ),
        (
            f"no block of {2 * judged.shortest_shift:g} s to shift a prediction in",
            [m for m in missing if "null" in m or m == "p_value"]
            if not judged.resampling.shifted_runs
            else [],
        ),
        (
            f"less than {seconds:g} s, too short for intervals",
            [m for m in missing if m.endswith(("_low", "_high")) and "null" not in m]
            if not judged.resampling.has_intervals
            else [],
        ),
        (
            "the prediction does not vary",
            [
                m
                for m in missing
                if any(does_not_vary(expected[:, cell]) for expected in judged.expected)
            ],
        ),
        ("undefined in too many of the draws or shifts", missing),
    ]
    said, texts = set(), []
    for why, names in causes:
        new = [name for name in names if name not in said]
        said.update(new)
        if new:
            texts.append(f"{why}: {', '.join(new)} undefined")
    return "; ".join(texts)
