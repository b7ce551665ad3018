"""`ablation_curve`: more and more channels silenced, and what is left of the responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from retina_codec._common.checks import (
    nearest_names,
    require_array,
    require_at_least,
    require_count,
    require_finite,
)
from retina_codec._common.provenance import provenance
from retina_codec._common.time import bin_width_of, runs_of
from retina_codec.attribution.methods import Ablation, described
from retina_codec.interventions.conditions import Conditions
from retina_codec.interventions.model import ordered_baseline
from retina_codec.models.model import BATCH_SIZE, Model, Samples, frozen
from retina_codec.models.resampling import STRETCH_SECONDS, Resampling

PERCENTAGES = (1, 2, 5, 10, 18, 25, 50, 80, 99)
# Layers with fewer channels are counted channel by channel, unless told.
SMALL_LAYER = 64
GROUPS = ("target", "off_target")

Ranking = xr.DataArray | Mapping[str, xr.DataArray]


def ablation_curve(
    model: Model,
    data: xr.DataArray,
    ranking: Ranking,
    *,
    layer: str | None = None,
    labels: xr.DataArray | str,
    target: Any = None,
    ignore: Sequence[str] = ("transition",),
    percentages: Sequence[float] | None = None,
    counts: Sequence[int] | None = None,
    preserve: bool = False,
    top: int = 1,
    n_random: int = 0,
    random_at: Sequence[float] | None = None,
    silence: str = "baseline",
    baseline: Any = 0.0,
    n_draws: int = 200,
    level: float = 0.95,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    progress: bool = True,
) -> xr.Dataset:
    """Silence the first channels of a ranking, more and more, and see which responses suffer.

    Of the samples, those of the *target* (a category, or a kind of epoch) are compared with all
    others, the *off-target*. What is left of a response is a ratio, after over before: of a
    classifier's accuracy; of a retina model's response, the mean over samples of |rate - rate at
    the baseline|, cell by cell. With AUC the mean ratio over the curve (trapezoid rule over the
    percentages or counts, over their range),

        score = (AUC_target - AUC_off_target) / AUC_off_target,

    below 0 where ablation hits the target more than the rest, above 0 where preservation keeps it
    better.

    Parameters
    ----------
    model : Model
        A classifier or a model of the retina.
    data : DataArray
        Images, or a movie.
    ranking : DataArray or mapping of str to DataArray
        Over ``channel``: the largest value is silenced (or kept) first. With a further dim, one
        curve for each of its labels. A mapping has one for each of several layers, which are
        silenced together. A mode's row of the dictionary with signs is made one with
        ``abs(...).sum("sign")``.
    layer : str, optional
        The layer of a `ranking` that is one DataArray.
    labels : DataArray or str
        Category or kind of epoch of each sample, over ``image`` or ``time``, or the name of such a
        coordinate of `data`.
    target : label, sequence of labels or mapping, optional
        What counts as target; a mapping says it for each label of the ranking's further dim. By
        default that label itself.
    ignore : sequence of str
        Labels of samples that count neither way.
    percentages : sequence of float, optional
        Of each layer's channels, rounded, at least one channel. By default 1, 2, 5, 10, 18, 25,
        50, 80 and 99, where no layer has fewer than 64 channels.
    counts : sequence of int, optional
        Numbers of channels (of each layer) instead; by default 1 to all but one of the smallest
        layer, where that has fewer than 64.
    preserve : bool
        Silence all other channels instead.
    top : int
        An image counts as right if its category is among so many of the largest logits (of equal
        logits none is larger: an image of which all are equal is wrong).
    n_random : int
        Random orders of the channels beside the ranking.
    random_at : sequence of float, optional
        Those of the percentages or counts at which random orders are tried; by default all.
    silence, baseline
        What a silenced unit gives, as for `ablate`.
    n_draws : int
        Draws of the bootstrap: of images within target and off-target; of a movie, of stretches
        of 0.5 s (Kunsch, Ann. Statist. 1989).
    level : float
        Coverage of the intervals.
    seed : int
        Of random orders and draws.
    batch_size : int
        Samples in one pass.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Dataset
        Over ``percentage`` or ``count``, ``group`` (target, off_target), of a retina model
        ``cell``, and the ranking's further dim: `before` and `after`, accuracy (0 to 1) or mean
        response (Hz); `ratio`; `auc`; `score`, each with ``_low`` and ``_high`` (but `before`);
        `mean_ratio`, `mean_auc`, `mean_score`: means over the further dim and cells, with
        intervals. With random orders `random_ratio` (draw, ...), `random_auc`, `random_score`
        and, for comparison at the same points, `auc_there` and `score_there`; and
        `random_share`, the share of the random orders (and the ranking itself, counted once)
        whose mean score is at least as extreme as that of the ranking, to its side. Of a retina
        model also `correlation` of the rates with those before. NaN where nothing is there
        before. `n_channels` stands on the curve, for each layer.

    Raises
    ------
    TypeError, ValueError
        For an unknown layer, channel or label, percentages or counts out of range, labels or
        rankings that do not fit, or a target without samples.

    Notes
    -----
    Of each batch what comes before the (first) layer is computed once. Orders that silence the
    same channels are run once.

    References
    ----------
    Melander et al., ICLR 2026, arXiv 2603.06557.

    Examples
    --------
    >>> import numpy as np, retina_codec as rc, torch, xarray as xr
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 4), torch.nn.ReLU(),
    ...     torch.nn.Linear(4, 2))
    >>> weights = [torch.eye(4), torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1]])]
    >>> for place, weight in zip((1, 3), weights):
    ...     _ = net[place].weight.data.copy_(weight), net[place].bias.data.zero_()
    >>> model = rc.classifiers.from_module(net, categories=["left", "right"])
    >>> images = xr.DataArray(
    ...     np.eye(4, dtype="float32").reshape(4, 1, 2, 2) + 0.1,
    ...     dims=("image", "color", "y", "x"),
    ...     coords={"category": ("image", ["left", "left", "right", "right"])},
    ... )
    >>> ranking = xr.DataArray([2.0, 1, 0, 0], dims="channel")
    >>> curve = ablation_curve(model, images, ranking, layer="2", labels="category",
    ...     target="left", counts=[1, 2], progress=False)
    >>> curve["after"].sel(group="target").values
    array([0.5, 0. ])
    >>> float(curve["score"])
    -0.75
    """
    names, orders, row_dim, rows = _rankings(model, ranking, layer)
    samples = model.samples(data)
    how = Ablation(silence=silence, baseline=ordered_baseline(baseline))
    require_count(n_random, 0, "n_random")
    require_count(n_draws, 1, "n_draws")
    require_count(top, 1, "top")
    if not 0 < level < 1:
        raise ValueError(f"level={level!r}; expected a number between 0 and 1")
    require_at_least(batch_size, 1, "batch_size")
    known = _labels(data, labels, samples, model)
    members = _members(known, target, ignore, row_dim, rows)
    if model.exclusive_outputs:
        used = np.unique(known[members.any((0, 1))])
        for label in used.tolist():
            if label not in model.outputs:
                raise ValueError(
                    f"labels has {label!r}, which is no output of the model; "
                    f"{nearest_names(label, model.outputs)}"
                )
    with frozen(model.network):
        conditions = Conditions(model, names, how, samples)
        steps = _steps(conditions.n_channels, percentages, counts)
        plan = _Plan.of(conditions, orders, steps, preserve, n_random, random_at, seed)
        measured = _measure(
            model, conditions, plan, samples, known, top, batch_size, progress=progress
        )
    weights = _weights(model, data, samples, members, n_draws, seed)
    about = {
        "model_fingerprint": model.fingerprint,
        **provenance(
            function="ablation_curve",
            layers=names,
            preserve=preserve,
            top=top if model.exclusive_outputs else None,
            silenced=described(how),
            n_random=n_random,
            n_draws=n_draws,
            level=level,
            seed=seed,
            target=target,
            ignore=list(ignore),
        ),
    }
    return _summarised(
        model, measured, plan, weights, members, steps, row_dim, rows, level
    ).assign_attrs(about)


def _rankings(
    model: Model, ranking: Ranking, layer: str | None
) -> tuple[list[str], dict[str, xr.DataArray], str | None, np.ndarray]:
    """Layers, their rankings ([row,] channel), and the name and labels of the further dim."""
    if isinstance(ranking, Mapping):
        if layer is not None or not ranking:
            raise ValueError("ranking is a mapping of layers: give at least one, and no layer=")
        orders = {str(name): array for name, array in ranking.items()}
    elif layer is None:
        raise ValueError("layer is missing: name the layer of the ranking's channels")
    else:
        orders = {layer: ranking}
    further: set[tuple[str, ...]] = set()
    for name, array in orders.items():
        model.layer(name)
        argument = "ranking" if layer is not None else f"ranking[{name!r}]"
        array = require_array(array, argument)
        if "channel" not in array.dims or array.ndim > 2:
            raise ValueError(
                f"{argument} has dims {tuple(array.dims)}; expected 'channel' and at most one "
                "other: select with .sel, or sum over signs with abs(ranking).sum('sign')"
            )
        if "sign" in array.dims:
            raise ValueError(
                f"{argument} has a dim 'sign', and a channel is silenced with both: rank channels "
                "by abs(ranking).sum('sign'), or by one sign"
            )
        require_finite(array, argument)
        other = tuple(str(dim) for dim in array.dims if dim != "channel")
        further.add(other)
        orders[name] = array.transpose(*other, "channel")
    if len(further) > 1:
        raise ValueError(f"ranking has further dims {sorted(further)}; expected the same")
    (dims,) = further
    if not dims:
        return list(orders), orders, None, np.array(["all"])
    xr.align(*(a.isel(channel=0, drop=True) for a in orders.values()), join="exact")
    first = next(iter(orders.values()))
    return list(orders), orders, dims[0], first[dims[0]].values


def _labels(
    data: xr.DataArray, labels: xr.DataArray | str, samples: Samples, model: Model
) -> np.ndarray:
    """Label of each sample, as text."""
    dim = model.sample_dim
    if isinstance(labels, str):
        if labels not in data.coords:
            raise ValueError(
                f"labels={labels!r} is no coordinate of data; {nearest_names(labels, data.coords)}"
            )
        labels = data[labels]
    labels = require_array(labels, "labels")
    if labels.dims != (dim,):
        raise ValueError(f"labels has dims {tuple(labels.dims)}; expected ({dim!r},)")
    if dim not in labels.coords:
        if len(labels) != len(samples):
            raise ValueError(
                f"labels has {len(labels)} values for {len(samples)} samples; give one for each"
            )
        return labels.values.astype(str)
    index = labels.get_index(dim)
    own = samples.coords[dim].to_index()
    places = index.get_indexer(own) if index.is_unique else np.array([-1])
    if (places < 0).any():
        raise ValueError(
            f"labels lacks some of the data's {dim} (or has one twice); give one label for each"
        )
    return labels.values[places].astype(str)


def _members(
    known: np.ndarray, target: Any, ignore: Sequence[str], row_dim: str | None, rows: np.ndarray
) -> np.ndarray:
    """Which samples are target, and which off-target: (row, group, sample)."""
    if target is None:
        if row_dim is None:
            raise ValueError("target is missing: name the labels that count as target")
        target = {row: row for row in rows.tolist()}
    if not isinstance(target, Mapping):
        target = dict.fromkeys(rows.tolist(), target)
    counted = ~np.isin(known, [str(label) for label in ignore])
    members = np.zeros((len(rows), 2, len(known)), dtype=bool)
    for place, row in enumerate(rows.tolist()):
        if row not in target:
            raise ValueError(f"target has nothing for {row_dim} {row!r}; expected a label for each")
        wanted = np.atleast_1d(np.asarray(target[row])).astype(str)
        for label in wanted.tolist():
            if label not in known:
                raise ValueError(
                    f"target has {label!r}, which no sample is; "
                    f"{nearest_names(label, np.unique(known))}"
                )
        chosen = np.isin(known, wanted)
        members[place] = chosen & counted, ~chosen & counted
        if not members[place].any(1).all():
            raise ValueError(f"target={wanted.tolist()} leaves no sample off target, or none on it")
    return members


@dataclass(frozen=True)
class _Steps:
    """Points of a curve: their dim, where they are, and channels of each layer there."""

    dim: str
    values: np.ndarray
    n_channels: dict[str, np.ndarray]


def _steps(
    n_channels: Mapping[str, int],
    percentages: Sequence[float] | None,
    counts: Sequence[int] | None,
) -> _Steps:
    fewest = min(n_channels.values())
    if percentages is not None and counts is not None:
        raise ValueError("percentages and counts are given; expected one of them")
    if counts is None and percentages is None:
        if fewest < SMALL_LAYER:
            counts = range(1, max(2, fewest))
        else:
            percentages = PERCENTAGES
    if counts is not None:
        whole = np.array([require_count(count, 1, "counts") for count in counts])
        if not len(whole) or (np.diff(whole) <= 0).any() or whole[-1] > fewest:
            raise ValueError(
                f"counts={whole.tolist()}; expected rising numbers of channels, at most {fewest}"
            )
        return _Steps("count", whole, dict.fromkeys(n_channels, whole))
    values = np.asarray(percentages, dtype=np.float64)
    if not len(values) or (np.diff(values) <= 0).any() or values[0] <= 0 or values[-1] > 100:
        raise ValueError(
            f"percentages={values.tolist()}; expected rising numbers above 0, at most 100"
        )
    rounded = {
        name: np.maximum(1, np.round(values * n / 100)).astype(int)
        for name, n in n_channels.items()
    }
    return _Steps("percentage", values, rounded)


@dataclass(frozen=True)
class _Plan:
    """What is run: masks of channels by layer, and which of them each point of a curve needs."""

    masks: list[dict[str, np.ndarray]]
    ranked: np.ndarray  # (row, step)
    random: np.ndarray  # (draw, step there)
    there: np.ndarray  # steps at which random orders are tried

    @classmethod
    def of(
        cls,
        conditions: Conditions,
        rankings: Mapping[str, xr.DataArray],
        steps: _Steps,
        preserve: bool,
        n_random: int,
        random_at: Sequence[float] | None,
        seed: int,
    ) -> _Plan:
        masks: list[dict[str, np.ndarray]] = []
        places: dict[bytes, int] = {}

        def place(orders: Mapping[str, np.ndarray], step: int) -> int:
            one = {}
            for name, order in orders.items():
                chosen = np.zeros(conditions.n_channels[name], dtype=bool)
                chosen[order[: steps.n_channels[name][step]]] = True
                one[name] = ~chosen if preserve else chosen
            key = b"".join(mask.tobytes() for mask in one.values())
            if key not in places:
                places[key] = len(masks)
                masks.append(one)
            return places[key]

        for name, array in rankings.items():
            own = conditions.labels[name]
            if array.sizes["channel"] != len(own) or (
                "channel" in array.coords
                and not np.array_equal(array["channel"].values.astype(str), own.astype(str))
            ):
                raise ValueError(
                    f"ranking of layer {name!r} has {array.sizes['channel']} channels, the layer "
                    f"{len(own)}, or others: give a value for each channel, in the layer's order"
                )
        # A stable order: of equal values the first channel goes first.
        orders = {
            name: np.argsort(-np.atleast_2d(array.values), axis=1, kind="stable")
            for name, array in rankings.items()
        }
        n_steps = len(steps.values)
        n_rows = len(next(iter(orders.values())))
        ranked = [
            [place({name: order[row] for name, order in orders.items()}, step)
             for step in range(n_steps)]
            for row in range(n_rows)
        ]  # fmt: skip
        there = np.arange(n_steps)
        if random_at is not None:
            there = np.flatnonzero(np.isin(steps.values, np.asarray(random_at)))
            if len(there) != len(set(random_at)):
                raise ValueError(
                    f"random_at={list(random_at)}; expected some of {steps.values.tolist()}"
                )
        rng = np.random.default_rng([seed, 1])
        random = []
        for _ in range(n_random):
            drawn = {name: rng.permutation(n) for name, n in conditions.n_channels.items()}
            random.append([place(drawn, int(step)) for step in there])
        return cls(masks, np.array(ranked), np.array(random, dtype=int), there)


@dataclass(frozen=True)
class _Measured:
    """What is counted, of each condition behind the network as it is: (condition, sample, unit)."""

    response: np.ndarray
    rates: np.ndarray | None


def _measure(
    model: Model,
    conditions: Conditions,
    plan: _Plan,
    samples: Samples,
    known: np.ndarray,
    top: int,
    batch_size: int,
    *,
    progress: bool,
) -> _Measured:
    n, n_outputs = len(samples), len(model.outputs)
    n_units = 1 if model.exclusive_outputs else n_outputs
    found = np.zeros((1 + len(plan.masks), n, n_units), dtype=np.float32)
    right = np.searchsorted(model.outputs, known, sorter=np.argsort(model.outputs))
    right = np.argsort(model.outputs)[np.minimum(right, n_outputs - 1)]

    def note(number: int, index: slice, outputs: Any) -> None:
        values = outputs.float().cpu().numpy()
        if not model.exclusive_outputs:
            found[number, index] = values
            return
        own = np.take_along_axis(values, right[index, None], axis=1)
        # Its own logit counts; one as large as another is not larger.
        found[number, index] = (values >= own).sum(1, keepdims=True) <= top

    for index, whole, others in conditions.outputs(plan.masks, batch_size, progress=progress):
        note(0, index, whole)
        for number, outputs in others:
            note(1 + number, index, outputs)
    if model.exclusive_outputs:
        return _Measured(found, None)
    rest = conditions.at_baseline.float().cpu().numpy()
    return _Measured(np.abs(found - rest), found)


def _weights(
    model: Model,
    data: xr.DataArray,
    samples: Samples,
    members: np.ndarray,
    n_draws: int,
    seed: int,
) -> np.ndarray:
    """How much each sample counts, in the data as they are (row 0) and in each draw."""
    n = len(samples)
    if model.sample_dim == "time":
        runs = runs_of(xr.Dataset(coords=samples.coords))
        resampling = Resampling(runs, bin_width_of(data), n_draws, STRETCH_SECONDS, seed)
        return np.delete(resampling.weights(0, n), 1, axis=0) * n
    counted = members.any((0, 1))
    rng = np.random.default_rng([seed, 2])
    weights = np.zeros((1 + n_draws, n))
    weights[0] = 1
    n_counted = int(counted.sum())
    weights[1:, counted] = rng.multinomial(n_counted, np.full(n_counted, 1 / n_counted), n_draws)
    return weights


def _auc(ratio: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean of a ratio (..., step) over a curve, by the trapezoid rule."""
    if len(values) == 1:
        return ratio[..., 0]
    area: np.ndarray = np.trapezoid(ratio, values, axis=-1)
    return area / (values[-1] - values[0])


def _score(auc: np.ndarray) -> np.ndarray:
    """Score (...) from areas (group, ...)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        score: np.ndarray = (auc[0] - auc[1]) / auc[1]
    return np.where(np.isfinite(score), score, np.nan)


def _mean_response(response: np.ndarray, weights: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Means (draw, condition, unit) over the members (sample,) of a group."""
    own = weights[:, members]
    chosen = response[:, members].transpose(1, 0, 2)
    total = own @ chosen.reshape(len(chosen), -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: np.ndarray = total / own.sum(1, keepdims=True)
    return mean.reshape(len(own), *chosen.shape[1:])


def _summarised(
    model: Model,
    measured: _Measured,
    plan: _Plan,
    weights: np.ndarray,
    members: np.ndarray,
    steps: _Steps,
    row_dim: str | None,
    rows: np.ndarray,
    level: float,
) -> xr.Dataset:
    """Put numbers and intervals together."""
    n_rows, values = len(rows), steps.values.astype(np.float64)
    before, after, random = [], [], []
    for row in range(n_rows):
        means = [_mean_response(measured.response, weights, m) for m in members[row]]
        both = np.stack(means)  # (group, draw, condition, unit)
        before.append(both[:, :, 0])
        after.append(both[:, :, 1 + plan.ranked[row]])
        random.append(both[:, 0][:, 1 + plan.random] if plan.random.size else None)
    # (draw, row, unit, group[, step])
    first = np.stack(before).transpose(2, 0, 3, 1)
    then = np.stack(after).transpose(2, 0, 4, 1, 3)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(first[..., None] > 0, then / first[..., None], np.nan)
    auc = _auc(ratio, values)
    score = _score(np.moveaxis(auc, -1, 0))
    table = _Table(model, row_dim, steps.dim, level)
    accuracy = model.exclusive_outputs
    what = "accuracy" if accuracy else "mean |rate - rate at the baseline|"
    units = "1" if accuracy else "Hz"
    table.add("before", first, ("group",), units, f"{what}, nothing silenced", interval=False)
    table.add("after", then, ("group", steps.dim), units, f"{what}, silenced")
    table.add("ratio", ratio, ("group", steps.dim), "1", f"{what}, after over before")
    table.add("auc", auc, ("group",), "1", "mean ratio over the curve")
    table.add("score", score, (), "1", "(AUC target - AUC off target) / AUC off target")
    for name, array, dims in (
        ("ratio", ratio, ("group", steps.dim)),
        ("auc", auc, ("group",)),
        ("score", score, ()),
    ):
        table.add_mean(name, array, dims)
    if measured.rates is not None:
        r = np.stack(
            [
                [_correlations(measured.rates, 1 + plan.ranked[row], m) for m in members[row]]
                for row in range(n_rows)
            ]
        )  # (row, group, step, cell)
        table.add(
            "correlation", r.transpose(0, 3, 1, 2)[None], ("group", steps.dim), "1",
            "correlation of rates after with rates before", interval=False,
        )  # fmt: skip
    if plan.random.size:
        _add_random(table, random, first[0], ratio[0], values, plan.there, steps.dim)
    coords: dict[str, Any] = {"group": list(GROUPS), steps.dim: steps.values}
    for name, n in steps.n_channels.items():
        key = "n_channels" if len(steps.n_channels) == 1 else f"n_channels_{name}"
        coords[key] = (steps.dim, n, {"long_name": f"channels of {name}"})
    if row_dim is not None:
        coords[row_dim] = rows
    if not accuracy:
        coords[model.output_dim] = model.outputs
    found = table.dataset(coords)
    found[steps.dim].attrs = {
        "units": "%" if steps.dim == "percentage" else "1",
        "long_name": f"{'share' if steps.dim == 'percentage' else 'number'} of channels",
    }
    return found


def _correlations(rates: np.ndarray, chosen: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Correlation (condition, cell) of rates with those before, over members (sample,)."""
    kept = rates[:, members].astype(np.float64)
    kept -= kept.mean(1, keepdims=True)
    norms = np.sqrt((kept**2).sum(1))
    products = np.einsum("ksc,sc->kc", kept[chosen], kept[0])
    scale = norms[chosen] * norms[0]
    return np.divide(products, scale, out=np.full_like(products, np.nan), where=scale > 0)


def _add_random(
    table: _Table,
    random: list[Any],
    first: np.ndarray,
    ratio: np.ndarray,
    values: np.ndarray,
    there: np.ndarray,
    step_dim: str,
) -> None:
    # (draw, row, unit, group, step), from (row, group, draw, step, unit)
    after = np.stack(random).transpose(2, 0, 4, 1, 3)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.where(first[None, ..., None] > 0, after / first[None, ..., None], np.nan)
    whole = np.full((*found.shape[:-1], len(values)), np.nan)
    whole[..., there] = found
    table.add_draws("random_ratio", whole, ("group", step_dim), "as ratio, random channels")
    auc = _auc(found, values[there])
    score = _score(np.moveaxis(auc, -1, 0))
    table.add_draws("random_auc", auc, ("group",), "as auc, random channels")
    table.add_draws("random_score", score, (), "as score, random channels")
    own = _auc(ratio[..., there], values[there])
    own_score = _score(np.moveaxis(own, -1, 0))
    table.add("auc_there", own[None], ("group",), "1", "auc where random orders were tried",
              interval=False)  # fmt: skip
    table.add("score_there", own_score[None], (), "1", "score where random orders were tried",
              interval=False)  # fmt: skip
    drawn, mean = score.mean((1, 2)), float(own_score.mean())
    beyond = (drawn <= mean).sum(), (drawn >= mean).sum()
    table.variables["random_share"] = (
        (),
        (1 + min(beyond)) / (1 + len(drawn)),
        {"units": "1", "long_name": "share of random orders with a mean score as extreme"},
    )


class _Table:
    """Variables (draw, row, unit, ...) with intervals, labelled."""

    def __init__(self, model: Model, row_dim: str | None, step_dim: str, level: float) -> None:
        self._row = () if row_dim is None else (row_dim,)
        self._unit = () if model.exclusive_outputs else (model.output_dim,)
        self._tails = (50 * (1 - level), 50 * (1 + level))
        self.variables: dict[str, Any] = {}

    def _plain(self, values: np.ndarray) -> np.ndarray:
        """Leave out the row and unit that have no dim."""
        if not self._unit:
            values = values[:, 0]
        return values if self._row else values[0]

    def _ends(self, values: np.ndarray) -> np.ndarray:
        """Give the ends of the interval (2, ...) of draws; NaN where none is known."""
        known = np.isfinite(values).any(0)
        ends = np.full((2, *values.shape[1:]), np.nan)
        ends[:, known] = np.nanpercentile(values[:, known], self._tails, axis=0)
        return ends

    def add(
        self,
        name: str,
        values: np.ndarray,
        dims: tuple[str, ...],
        units: str,
        text: str,
        *,
        interval: bool = True,
    ) -> None:
        dims = (*self._row, *self._unit, *dims)
        attrs = {"units": units, "long_name": text}
        self.variables[name] = (dims, self._plain(values[0]), attrs)
        if interval:
            self._add_ends(name, dims, [self._plain(e) for e in self._ends(values[1:])], attrs)

    def add_mean(self, name: str, values: np.ndarray, dims: tuple[str, ...]) -> None:
        """Add the mean over rows and units that are known in the data as they are."""
        shape = values.shape
        flat = values.reshape(shape[0], shape[1] * shape[2], *shape[3:])
        known = np.isfinite(flat[0]).all(tuple(range(1, flat.ndim - 1)))
        kept = flat[:, known]
        finite = np.isfinite(kept)
        with np.errstate(invalid="ignore"):
            mean = np.where(finite, kept, 0.0).sum(1) / finite.sum(1)
        attrs = {"units": "1", "long_name": f"mean {name}"}
        self.variables[f"mean_{name}"] = (dims, mean[0], attrs)
        self._add_ends(f"mean_{name}", dims, list(self._ends(mean[1:])), attrs)

    def add_draws(self, name: str, values: np.ndarray, dims: tuple[str, ...], text: str) -> None:
        plain = np.stack([self._plain(one) for one in values])
        attrs = {"units": "1", "long_name": text}
        self.variables[name] = (("draw", *self._row, *self._unit, *dims), plain, attrs)

    def _add_ends(
        self, name: str, dims: tuple[str, ...], ends: Sequence[np.ndarray], attrs: dict[str, str]
    ) -> None:
        for end, values in zip(("low", "high"), ends, strict=True):
            text = f"{attrs['long_name']}, {'lower' if end == 'low' else 'upper'} end"
            self.variables[f"{name}_{end}"] = (dims, values, {**attrs, "long_name": text})

    def dataset(self, coords: Mapping[str, Any]) -> xr.Dataset:
        return xr.Dataset(self.variables, coords)
