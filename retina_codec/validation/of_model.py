"""One model against the true contributions: moments gathered in one pass, results from those."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from retina_codec.attribution.methods import Method
from retina_codec.models.model import RetinaModel
from retina_codec.validation.features import (
    LayerLabels,
    Summed,
    candidate_labels,
    candidate_map,
    net_map,
    signed_sums,
    streamed,
)
from retina_codec.validation.halves import Halves
from retina_codec.validation.matching import (
    NEGLIGIBLE,
    Matches,
    best_matches,
    coefficients,
    correlations,
    linear_cka,
    without_rates,
)
from retina_codec.validation.moments import Covariance, CrossCovariance, pooled

# What is removed, as columns of the moments: the model's own rate is the first, the true one the
# second.
REMOVED: dict[str, list[int]] = {"nothing": [], "predicted": [0], "both": [0, 1]}
FEATURES = ("contribution", "activation", "single_unit", "unit_activation")
# An activation says nothing of the sign of its effect.
UNSIGNED = ("activation", "unit_activation")
N_RATES = 2


@dataclass
class UnitMoments:
    """Moments of the single units of a layer: of their contributions by cell, of activations."""

    contribution: list[CrossCovariance]
    activation: CrossCovariance


@dataclass
class ModelMoments:
    """All that is kept of a model's contributions, by half.

    `columns` has, for each cell: own and true rate; positive and negative parts of the true
    channels; those of the model's contributions, layer by layer; those of its activations.
    """

    cells: list[str]
    true_sizes: list[int]
    columns: tuple[Covariance, Covariance]
    units: dict[str, tuple[UnitMoments, UnitMoments]] = field(default_factory=dict)
    labels: dict[str, LayerLabels] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        name: str,
        model: RetinaModel,
        halves: Halves,
        truth: Summed,
        true_rate: np.ndarray,
        cells: list[str],
        layers: Sequence[str],
        method: Method,
        progress: bool,
    ) -> ModelMoments:
        """Compute the model's contributions and gather their moments."""
        net = truth.net()
        found: ModelMoments | None = None
        for stretch, rate, parts, labels in streamed(
            model, halves, cells, layers, method, name, progress
        ):
            rates = np.stack([rate, true_rate[stretch.rows]], axis=-1)
            contribution = [signed_sums(part.contribution) for part in parts.values()]
            activation = [signed_sums(part.activation) for part in parts.values()]
            of_cells = (len(rate), len(cells))
            columns = np.concatenate(
                [
                    rates,
                    truth.values[stretch.rows],
                    *contribution,
                    *(np.broadcast_to(a[:, None], (*of_cells, a.shape[1])) for a in activation),
                ],
                axis=-1,
            )
            if found is None:
                shape = columns.shape[1:]
                sizes = [len(names) for names in truth.channels.values()]
                found = cls(cells, sizes, (Covariance(shape), Covariance(shape)), {}, labels)
            found.columns[stretch.half].add(columns)
            targets = np.concatenate([rates, net[stretch.rows]], axis=-1)
            for layer, part in parts.items():
                if layer not in found.units:
                    found.units[layer] = tuple(  # type: ignore[assignment]
                        _unit_moments(part.activation.shape, targets.shape) for _ in range(2)
                    )
                units = found.units[layer][stretch.half]
                for i, moments in enumerate(units.contribution):
                    moments.add(part.contribution[:, i].reshape(len(rate), -1), targets[:, i])
                units.activation.add(
                    part.activation.reshape(len(rate), -1), targets.reshape(len(rate), -1)
                )
        if found is None:
            raise ValueError("no frames to compare")
        return found

    @property
    def channels(self) -> dict[str, np.ndarray]:
        """Channels by layer."""
        return {layer: labels.channel for layer, labels in self.labels.items()}

    @property
    def places(self) -> dict[str, slice]:
        """Where the columns of the truth, contributions and activations are."""
        n_true = 2 * sum(self.true_sizes)
        n = 2 * sum(len(names) for names in self.channels.values())
        first = N_RATES + n_true
        return {
            "truth": slice(N_RATES, first),
            "contribution": slice(first, first + n),
            "activation": slice(first + n, first + 2 * n),
        }

    def mapped(self, where: str, matrix: np.ndarray) -> np.ndarray:
        """Extend a map of the columns at `where` to all columns."""
        whole = np.zeros((self.columns[0].matrix().shape[1], matrix.shape[1]))
        whole[self.places[where]] = matrix
        return whole


def _unit_moments(shape: Sequence[int], targets: Sequence[int]) -> UnitMoments:
    n_units, (_, n_cells, n_columns) = int(np.prod(shape[1:])), targets
    return UnitMoments(
        [CrossCovariance(n_units, n_columns) for _ in range(n_cells)],
        CrossCovariance(n_units, n_cells * n_columns),
    )


def compared(
    moments: ModelMoments,
    truth: Summed,
    features: tuple[np.ndarray, np.ndarray],
    is_left: np.ndarray,
    cuts: Sequence[str],
) -> dict[str, xr.Dataset]:
    """Give the results ``contributions`` and ``similarity`` of one model, without `model`.

    `features` says, for each (cell, true_channel), whether it contributes, and whether something
    is left of it without the true rate; `is_left` the latter of (cut, cell).
    """
    covariances = [half.matrix() for half in moments.columns]
    return {
        "contributions": _matched(moments, covariances, truth, features),
        "similarity": _similar(moments, covariances, is_left, cuts),
    }


def _matched(
    moments: ModelMoments,
    covariances: list[np.ndarray],
    truth: Summed,
    features: tuple[np.ndarray, np.ndarray],
) -> xr.Dataset:
    channels = moments.channels
    sizes = [len(names) for names in channels.values()]
    to_truth = moments.mapped("truth", net_map(moments.true_sizes))
    maps = {
        kind: moments.mapped(kind, candidate_map(sizes)) for kind in ("contribution", "activation")
    }
    of_sums = [(*label, np.nan, np.nan) for label in candidate_labels(channels)]
    of_units = _unit_labels(moments.labels)
    n_cells, n_true = features[0].shape
    shape = (len(FEATURES), len(REMOVED), n_cells, n_true)
    r, polarity = np.full(shape, np.nan), np.full(shape, np.nan)
    names = np.full((*shape, 3), "", dtype=object)
    places = np.full((*shape, 2), np.nan)
    for j, rates in enumerate(REMOVED.values()):
        is_feature = features[0] & features[1] if rates else features[0]
        for i in range(n_cells):
            whole = [c[i] for c in covariances]
            rest = [without_rates(whole[0], c, rates) for c in whole]
            varies = np.all(
                [_diagonal(to_truth, left) > NEGLIGIBLE * _diagonal(to_truth, c)
                 for left, c in zip(rest, whole, strict=True)], axis=0,
            )  # fmt: skip
            with np.errstate(invalid="ignore", divide="ignore"):
                for k, kind in enumerate(FEATURES):
                    if kind in maps:
                        first, second = (
                            _between(maps[kind], to_truth, c, before)
                            for c, before in zip(rest, whole, strict=True)
                        )
                        labels = of_sums
                    else:
                        first, second = _of_units(moments, kind, i, to_truth, whole, rest, rates)
                        labels = of_units
                    best = best_matches(first, second, either_sign=kind in UNSIGNED)
                    _note(best, labels, is_feature[i] & varies, r[k, j, i], polarity[k, j, i],
                          names[k, j, i], places[k, j, i])  # fmt: skip
    cut = np.repeat(list(truth.channels), [len(one) for one in truth.channels.values()])
    channel = np.concatenate(list(truth.channels.values()))
    dims = ("features", "removed", "cell", "true_channel")
    return xr.Dataset(
        {
            "r": (dims, r, {"units": "1", "long_name": "correlation with the best feature"}),
            "polarity": (dims, polarity, {"units": "1", "long_name": "sign on the first half"}),
            **{
                f"best_{name}": (dims, names[..., n].astype(str))
                for n, name in enumerate(("layer", "channel", "part"))
            },
            **{f"best_{axis}": (dims, places[..., n]) for n, axis in enumerate(("y", "x"))},
        },
        {
            "features": list(FEATURES),
            "removed": list(REMOVED),
            "cell": moments.cells,
            "true_channel": [f"{a}/{b}" for a, b in zip(cut, channel, strict=True)],
            "cut": ("true_channel", cut),
            "channel": ("true_channel", channel),
        },
    )


def _note(
    best: Matches,
    labels: Sequence[tuple[str, str, str, float, float]],
    is_feature: np.ndarray,
    r: np.ndarray,
    polarity: np.ndarray,
    names: np.ndarray,
    places: np.ndarray,
) -> None:
    """Write the matches of one cell's true features into the views given; 0 without any."""
    r[is_feature] = 0
    for k in np.flatnonzero(is_feature & (best.place >= 0)):
        r[k], polarity[k] = best.r[k], best.polarity[k]
        *name, y, x = labels[best.place[k]]
        names[k] = name
        places[k] = y, x


def _diagonal(matrix: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.einsum("pf,pq,qf->f", matrix, covariance, matrix, optimize=True)
    return found


def _between(
    units: np.ndarray, columns: np.ndarray, rest: np.ndarray, whole: np.ndarray
) -> np.ndarray:
    """Correlations (unit, column) of two sets of columns, given by maps."""
    return correlations(
        units.T @ rest @ columns,
        (_diagonal(units, rest), _diagonal(columns, rest)),
        (_diagonal(units, whole), _diagonal(columns, whole)),
    )


def _of_units(
    moments: ModelMoments,
    kind: str,
    cell: int,
    to_truth: np.ndarray,
    whole: list[np.ndarray],
    rest: list[np.ndarray],
    rates: list[int],
) -> tuple[np.ndarray, np.ndarray]:
    """Correlations (unit, true channel) of single units, on both halves."""
    cross, variance = [], []
    for half in range(2):
        parts = []
        for layers in moments.units.values():
            units = layers[half]
            parts.append(units.contribution[cell] if kind == "single_unit" else units.activation)
        matrix = np.concatenate([part.matrix() for part in parts])
        n = to_truth.shape[1] + N_RATES
        if kind == "unit_activation":
            matrix = matrix[:, cell * n : (cell + 1) * n]
        cross.append(matrix)
        variance.append(np.concatenate([part.variance() for part in parts]))
    found = []
    b = b_true = None
    if rates:
        of_rates = whole[0][np.ix_(rates, rates)]
        b = coefficients(of_rates, cross[0][:, rates].T)  # (rate, unit)
        b_true = coefficients(of_rates, whole[0][rates] @ to_truth)
    for half in range(2):
        covariance, left = cross[half][:, N_RATES:], variance[half]
        if b is not None and b_true is not None:
            own, of_rates = cross[half][:, rates], whole[half][np.ix_(rates, rates)]
            covariance = (
                covariance
                - own @ b_true
                - b.T @ (whole[half][rates] @ to_truth)
                + b.T @ of_rates @ b_true
            )
            left = left - 2 * (own.T * b).sum(0) + np.einsum("ru,rs,su->u", b, of_rates, b)
        found.append(
            correlations(
                covariance,
                (left, _diagonal(to_truth, rest[half])),
                (variance[half], _diagonal(to_truth, whole[half])),
            )
        )
    return found[0], found[1]


def _unit_labels(labels: Mapping[str, LayerLabels]) -> list[tuple[str, str, str, float, float]]:
    return [
        (layer, str(channel), "", float(y), float(x))
        for layer, units in labels.items()
        for channel in units.channel
        for y, x in zip(units.y, units.x, strict=True)
    ]


def _similar(
    moments: ModelMoments, covariances: list[np.ndarray], is_left: np.ndarray, cuts: Sequence[str]
) -> xr.Dataset:
    layers = list(moments.channels)
    sizes = [len(names) for names in moments.channels.values()]
    left = _by_layer(moments, "contribution", sizes)
    right = _by_layer(moments, "truth", moments.true_sizes)
    # Both halves together: what is looked at without a choice. They are equally long.
    both = pooled(moments.columns)
    shape = (len(REMOVED), len(left), len(cuts), len(moments.cells), len(layers))
    values = np.full((3, *shape), np.nan)
    for index in np.ndindex(*shape):
        j, p, c, i, layer = index
        rates = list(REMOVED.values())[j]
        if rates and not is_left[c, i]:
            continue
        parts = list(left)[p]
        a, b = left[parts][layer], right[parts][c]
        fits = (covariances[0][i], covariances[0][i], both[i])
        for n, (fit, applied) in enumerate(
            zip(fits, (covariances[0][i], covariances[1][i], both[i]), strict=True)
        ):
            rest = without_rates(fit, applied, rates)
            values[n][index] = linear_cka(rest, a, b)
            # A model that has nothing where there is a truth.
            if np.isnan(values[n][index]) and (_diagonal(b, rest) > 0).any():
                values[n][index] = 0
    first = np.where(np.isfinite(values[0]), values[0], -np.inf)
    best = first.argmax(-1)
    known = np.isfinite(first).any(-1)
    dims = ("removed", "parts", "cut", "cell")
    attrs = {"units": "1", "long_name": "linear CKA with the true contributions"}
    chosen = np.take_along_axis(values[1], best[..., None], axis=-1)[..., 0]
    return xr.Dataset(
        {
            "cka": (dims, chosen, attrs),
            "cka_layer": (dims, np.where(known, np.array(layers)[best], "")),
            "layer_cka": ((*dims, "layer"), values[2], attrs),
        },
        {
            "removed": list(REMOVED),
            "parts": list(left),
            "cut": list(cuts),
            "cell": moments.cells,
            "layer": layers,
        },
    )


def _by_layer(
    moments: ModelMoments, where: str, sizes: Sequence[int]
) -> dict[str, list[np.ndarray]]:
    """Give maps of all columns to those of each layer: sums of both parts, and the parts."""
    net, start = moments.mapped(where, net_map(sizes)), np.r_[0, np.cumsum(sizes)]
    parts = moments.mapped(where, np.eye(2 * sum(sizes)))
    return {
        "net": [net[:, start[i] : start[i + 1]] for i in range(len(sizes))],
        "signed": [parts[:, 2 * start[i] : 2 * start[i + 1]] for i in range(len(sizes))],
    }
