"""Which modes tell the epochs of a stimulus apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import rankdata

from retina_codec._common.checks import (
    nearest_names,
    require_at_least,
    require_choice,
    require_dims,
)
from retina_codec._common.provenance import provenance
from retina_codec.modes.epoch_runs import numbered_epochs
from retina_codec.modes.loadings import mean_loadings
from retina_codec.modes.result import Modes


def epoch_selectivity(
    modes: Modes | xr.DataArray,
    epochs: xr.DataArray,
    *,
    ignore: Sequence[str] = (),
    groups: Mapping[str, Sequence[str]] | None = None,
    per: str = "sample",
    confidence: float = 0.95,
    n_bootstrap: int = 500,
    seed: int = 0,
) -> xr.Dataset:
    """Tell how well modes separate each class of epochs from all the others.

    An epoch is a contiguous run of one label in one block. The epochs of each class are dealt
    out in turn to two halves: on the first the best mode for the class is chosen, on the second
    every mode is scored, so that the choice does not flatter the score.

    Parameters
    ----------
    modes : Modes or DataArray
        Modes of a movie, or loadings (time, ..., mode), averaged over all other dims. Anything
        over time can stand beside modes in one table if its dim is named `mode`: principal
        components, or contributions of single channels.
    epochs : DataArray
        (time,), the label of every sample, such as "on_step", "grating", "still".
    ignore : sequence of str
        Labels to leave out, such as ``"transition"``: what lies between epochs.
    groups : mapping of str to sequence of str, optional
        Labels that are one class, such as ``{"motion": ["grating", "bar"]}``; other labels are
        each a class.
    per : {"sample", "epoch"}
        Score every sample by its loading, or every epoch by its mean loading. A mode that answers
        the onset of a step tells which epochs were steps, not which samples.
    confidence : float
        Of the interval.
    n_bootstrap : int
        Draws of the bootstrap, which resamples whole epochs of both sides.
    seed : int
        Of the bootstrap.

    Returns
    -------
    Dataset
        `auc` (mode, epoch): area under the ROC curve, on the second half, of the loading as a
        sign of this class against all others (0.5 = none, 1 = separates; Mann-Whitney, ties
        count half); `mean_loading` (mode, epoch), over both halves; `best_mode` (epoch), chosen
        on the first half; `best_auc`, `best_auc_low`, `best_auc_high` (epoch): its score on
        the second, with a percentile interval.
        Purity is the share of a mode's activity (the size of its loading, every class counting
        alike) that falls into one class: `assigned` (mode), the class with the most of it on the
        first half; `purity`, `purity_low`, `purity_high` (mode), its share on the second, with a
        percentile interval (chance: 1 / number of classes; NaN for a mode that is silent);
        `mean_purity`, `mean_purity_low`, `mean_purity_high`, over all modes, by their activity.
        `assigned_auc`, `assigned_auc_low`, `assigned_auc_high` (epoch): the AUC, on the second
        half, of the activity of all modes together that were assigned to the class: several may
        share it, such as one for each direction of motion. NaN if none is.

    Raises
    ------
    TypeError
        If `modes` or `epochs` is of another type.
    ValueError
        If dims or times differ, or a class has fewer than two epochs, or there is only one class.

    Notes
    -----
    A high AUC alone is weak evidence that a mode means something: untrained networks reach it
    too. Compare with them.

    Examples
    --------
    >>> import numpy as np
    >>> import xarray as xr
    >>> epochs = xr.DataArray(
    ...     np.repeat(["bar", "still", "bar", "still", "bar", "still", "bar", "still"], 50),
    ...     dims="time", coords={"time": np.arange(400) * 0.01},
    ... )
    >>> loadings = (epochs == "bar").astype(float).expand_dims("mode")
    >>> scored = epoch_selectivity(loadings, epochs)
    >>> scored.auc.sel(epoch="bar").values
    array([1.])
    """
    loadings = mean_loadings(modes)
    epochs = require_dims(epochs, ("time",), "epochs")
    require_choice(per, ("sample", "epoch"), "per")
    require_at_least(n_bootstrap, 1, "n_bootstrap")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}; expected a number between 0 and 1")
    try:
        loadings, epochs = xr.align(loadings, epochs, join="exact")
    except ValueError as error:
        raise ValueError(
            f"epochs and the loadings of modes have different times ({error}): "
            "take epochs.sel(time=loadings.time)"
        ) from error
    labels = np.asarray(epochs.values, dtype=str)
    values = loadings.values.astype(np.float64)
    labels, number = _grouped(labels, groups), numbered_epochs(labels, loadings)
    # Numbered before anything is left out: what lay between two epochs of a class keeps them apart.
    kept = ~np.isin(labels, [str(name) for name in ignore])
    labels, values = labels[kept], values[kept]
    number = np.unique(number[kept], return_inverse=True)[1]
    starts = np.unique(number, return_index=True)[1]
    label_of = labels[starts]
    classes = np.unique(label_of)
    half_of = _deal(label_of, classes)
    if per == "epoch":
        sizes = np.bincount(number)[:, None]
        values = np.stack([np.bincount(number, column) for column in values.T], axis=1) / sizes
        labels, number = label_of, np.arange(len(label_of))
    rng = np.random.default_rng(seed)
    first, second = (half_of[number] == half for half in (0, 1))
    chosen = np.stack([_auc(values[first], labels[first] == name) for name in classes], axis=1)
    auc = np.stack([_auc(values[second], labels[second] == name) for name in classes], axis=1)
    best = chosen.argmax(axis=0)
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]

    def interval(of_class: np.ndarray) -> np.ndarray:
        """Return ends (2, class) for what stands for each class (sample, class)."""
        return np.transpose(
            [
                np.quantile(
                    _bootstrap(
                        of_class[second, place],
                        labels[second] == name,
                        number[second],
                        n_bootstrap,
                        rng,
                    ),
                    tails,
                )
                for place, name in enumerate(classes)
            ]
        )

    low, high = interval(values[:, best])
    means = np.stack([values[labels == name].mean(axis=0) for name in classes], axis=1)
    pure = _purity(values, labels, number, half_of, classes, n_bootstrap, tails, rng)
    shares = (pure["assigned"][1][:, None] == classes) & values[first].any(axis=0)[:, None]
    together = np.abs(values) @ shares
    assigned_auc = np.stack(
        [
            _auc(together[second, place, None], labels[second] == name)[0]
            for place, name in enumerate(classes)
        ]
    )
    assigned_low, assigned_high = interval(together)
    none = ~shares.any(axis=0)
    each = np.arange(len(classes))
    made_by = provenance(
        method="epoch_selectivity",
        per=per,
        confidence=confidence,
        n_bootstrap=n_bootstrap,
        seed=seed,
    )
    return xr.Dataset(
        {
            "auc": (("mode", "epoch"), auc, {"units": "1"}),
            "mean_loading": (("mode", "epoch"), means, {"units": "1"}),
            "best_mode": ("epoch", loadings["mode"].values[best]),
            "best_auc": ("epoch", auc[best, each], {"units": "1"}),
            "best_auc_low": ("epoch", low, {"units": "1"}),
            "best_auc_high": ("epoch", high, {"units": "1"}),
            **pure,
            "assigned_auc": ("epoch", np.where(none, np.nan, assigned_auc), {"units": "1"}),
            "assigned_auc_low": ("epoch", np.where(none, np.nan, assigned_low), {"units": "1"}),
            "assigned_auc_high": ("epoch", np.where(none, np.nan, assigned_high), {"units": "1"}),
        },
        coords={
            "epoch": classes,
            **{key: coord for key, coord in loadings.coords.items() if coord.dims == ("mode",)},
        },
        attrs={**loadings.attrs, **made_by},
    )


def _grouped(labels: np.ndarray, groups: Mapping[str, Sequence[str]] | None) -> np.ndarray:
    """Labels, those of a group replaced by its name."""
    known = set(labels.tolist())
    class_of: dict[str, str] = {}
    for group, members in (groups or {}).items():
        if isinstance(members, str):
            raise TypeError(
                f"groups[{group!r}]={members!r} is one string; expected a list of labels"
            )
        for member in members:
            if member not in known or member in class_of:
                problem = "is in two groups" if member in class_of else "is no label of epochs"
                raise ValueError(f"groups: {member!r} {problem}; {nearest_names(member, known)}")
            class_of[member] = group
    return np.array([class_of.get(label, label) for label in labels.tolist()], dtype=str)


def _purity(
    values: np.ndarray,
    labels: np.ndarray,
    number: np.ndarray,
    half_of: np.ndarray,
    classes: np.ndarray,
    n_draws: int,
    tails: Sequence[float],
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Share of each mode's class-balanced activity in the class it was assigned to."""
    n_epochs = len(half_of)
    samples = np.bincount(number, minlength=n_epochs).astype(float)
    activity = np.zeros((n_epochs, values.shape[1]))
    np.add.at(activity, number, np.abs(values))
    class_of = np.searchsorted(classes, labels[np.unique(number, return_index=True)[1]])

    def mean_activity(half: int, draws: int | None) -> np.ndarray:
        """Activity (draw, class, mode) in one half; with epochs drawn anew, or as they were."""
        means = []
        for place in range(len(classes)):
            members = np.flatnonzero((class_of == place) & (half_of == half))
            n = len(members)
            weight = np.ones((1, n)) if draws is None else rng.multinomial(n, np.ones(n) / n, draws)
            means.append(weight @ activity[members] / (weight @ samples[members])[:, None])
        return np.stack(means, axis=1)

    assigned = mean_activity(0, None)[0].argmax(axis=0)
    shares, overall = [], []
    for draws in (None, n_draws):
        found = mean_activity(1, draws)
        inside = found[:, assigned, np.arange(values.shape[1])]
        total = found.sum(axis=1)
        with np.errstate(invalid="ignore"):
            shares.append(inside / total)
            overall.append(inside.sum(axis=1) / total.sum(axis=1))
    low, high = np.quantile(shares[1], tails, axis=0)
    overall_low, overall_high = np.quantile(overall[1], tails)
    units = {"units": "1"}
    return {
        "assigned": ("mode", classes[assigned]),
        "purity": ("mode", shares[0][0], units),
        "purity_low": ("mode", low, units),
        "purity_high": ("mode", high, units),
        "mean_purity": ((), overall[0][0], units),
        "mean_purity_low": ((), overall_low, units),
        "mean_purity_high": ((), overall_high, units),
    }


def _deal(label_of: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Half (0 or 1) of each epoch: in turn within its class."""
    if len(classes) < 2:
        raise ValueError(f"epochs has one class only, {str(classes[0])!r}: nothing to tell it from")
    half_of = np.empty(len(label_of), dtype=int)
    for name in classes:
        places = np.flatnonzero(label_of == name)
        if len(places) < 2:
            raise ValueError(
                f"epochs has one epoch of the class {str(name)!r}; at least two are needed, one to "
                "choose its mode and one to score it: show it more often or leave it out"
            )
        half_of[places] = np.arange(len(places)) % 2
    return half_of


def _auc(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Area under the ROC curve (mode,) of `values` (sample, mode) for the samples `inside`."""
    n_in, n_out = inside.sum(), (~inside).sum()
    ranks = rankdata(values, axis=0)[inside].sum(axis=0)
    return (ranks - n_in * (n_in + 1) / 2) / (n_in * n_out)


def _bootstrap(
    values: np.ndarray,
    inside: np.ndarray,
    number: np.ndarray,
    n_draws: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """AUC (draw,) with whole epochs, inside and outside the class, drawn with replacement."""
    levels, level = np.unique(values, return_inverse=True)
    _, epoch = np.unique(number, return_inverse=True)
    sides = [np.unique(epoch[inside]), np.unique(epoch[~inside])]
    areas = np.empty(n_draws)
    for draw in range(n_draws):
        weight = np.zeros(epoch.max() + 1)
        for side in sides:
            np.add.at(weight, rng.choice(side, len(side)), 1)
        weights = weight[epoch]
        within = np.bincount(level, weights * inside, minlength=len(levels))
        without = np.bincount(level, weights * ~inside, minlength=len(levels))
        below = np.cumsum(without) - without / 2
        areas[draw] = (within @ below) / (within.sum() * without.sum())
    return areas
