"""How often a classifier is right: overall and category by category, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import logsumexp
from scipy.stats import binomtest

from retina_codec._common.checks import require_array, require_count, require_dims, require_finite
from retina_codec._common.provenance import provenance
from retina_codec.models.labels import columns_of
from retina_codec.models.model import Model

# Within how many of the largest outputs the label is to be.
TOPS = (1, 5)
# Images in one forward pass: half a GB for a ResNet at 224 pixels.
BATCH = 32


def judges_images(given: Any) -> bool:
    """Say whether something is a classifier, or what one predicted."""
    if isinstance(given, Model):
        return given.exclusive_outputs
    return isinstance(given, xr.DataArray) and set(given.dims) == {"image", "category"}


def accuracy(
    model: Model | xr.DataArray,
    images: xr.DataArray,
    *,
    baseline: Model | xr.DataArray | None = None,
    n_draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> xr.Dataset:
    """Score a classifier on labelled images; `retina_codec.evaluate` is the public name.

    Parameters
    ----------
    model : Model or xarray.DataArray
        The classifier, or logits (image, category) that one predicted for all of `images`.
    images : xarray.DataArray
        (image, color, y, x) with a coordinate ``label`` (image): names of categories, or whole
        numbers that count them from 0. Of a prediction only the labels are looked at.
    baseline : Model or xarray.DataArray, optional
        Another classifier of the same categories, such as the network before ablation.
    n_draws : int
        Draws of the bootstrap.
    level : float
        Coverage of the intervals.
    seed : int
        Of the draws.

    Returns
    -------
    xarray.Dataset
        As `retina_codec.evaluate` says.

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        If images have no labels, labels are no categories, or predictions are of other images.
    """
    n_draws = require_count(n_draws, 1, "n_draws")
    if not 0 < level < 1:
        raise ValueError(f"level={level!r}; expected a number between 0 and 1")
    logits = _logits(model, images, "model")
    categories = logits["category"].values.astype(str)
    label = columns_of(_labels(images), categories, "images['label']", "category", "image")
    values = _values(logits.values, label)
    values_of, predicted = {"": values}, {"model": logits}
    if baseline is not None:
        other = _logits(baseline, images, "baseline")
        if other["category"].values.astype(str).tolist() != categories.tolist():
            raise ValueError("baseline has other categories than model: compare models of the same")
        predicted["baseline"] = other
        compared = _values(other.values, label)
        values_of["_baseline"] = compared
        values_of["_difference"] = {name: values[name] - compared[name] for name in values}
    variables: dict[str, Any] = {
        "n_images": (
            "category",
            np.bincount(label, minlength=len(categories)),
            {"units": "1", "long_name": "images with this label"},
        )
    }
    draws = _Draws(label, len(categories), n_draws, level, seed)
    for suffix, scores in values_of.items():
        for name, long_name in _long_names(suffix).items():
            if name in scores:
                variables |= draws.variables(name, suffix, scores[name], long_name)
    return xr.Dataset(
        variables,
        coords={"category": logits["category"].values},
        attrs={
            **{
                f"{name}_fingerprint": found.attrs["model_fingerprint"]
                for name, found in predicted.items()
                if "model_fingerprint" in found.attrs
            },
            "n_images": len(label),
            **provenance(function="evaluate", level=level, n_draws=n_draws, seed=seed),
        },
    )


def _long_names(suffix: str) -> dict[str, str]:
    of = {"": "", "_baseline": ", baseline", "_difference": ", above the baseline"}[suffix]
    tops = {f"top{k}": f"label among the {k} largest logits" for k in TOPS[1:]}
    return {
        name: text + of
        for name, text in {
            "top1": "label has the largest logit",
            **tops,
            "cross_entropy": "cross-entropy of softmax and label",
        }.items()
    }


def _logits(given: Any, images: xr.DataArray, argument: str) -> xr.DataArray:
    """Logits (image, category) of all images, in their order."""
    images = require_array(images, "images")
    if isinstance(given, Model):
        return given.predict(images, batch_size=BATCH)
    if not judges_images(given):
        raise TypeError(
            f"{argument} is a {type(given).__name__}; expected a classifier, or logits (image, "
            "category) such as model.predict gives"
        )
    logits = require_dims(given, ("image", "category"), argument)
    for dim in ("image", "category"):
        if dim not in logits.coords:
            raise ValueError(f"{argument} has no coordinate {dim!r}, so it cannot be matched")
    ids = images["image"].values  # numbers where there is no coordinate, as in predictions
    if not np.array_equal(logits["image"].values, ids):
        raise ValueError(
            f"{argument} is of other images than images, or in another order: select them with "
            ".sel(image=...)"
        )
    require_finite(logits, argument)
    return logits


def _labels(images: xr.DataArray) -> np.ndarray:
    if "label" not in images.coords or images["label"].dims != ("image",):
        raise ValueError(
            "images has no coordinate label(image), the true category of each: add it with "
            ".assign_coords(label=('image', [...])), or open them with "
            "retina_codec.classifiers.open_images"
        )
    labels = images["label"].values
    if labels.dtype.kind not in "iuUOST":
        raise TypeError(
            f"images['label'] has dtype {labels.dtype}; expected names of categories, or whole "
            "numbers that count them from 0"
        )
    return labels


def _values(logits: np.ndarray, label: np.ndarray) -> dict[str, np.ndarray]:
    """Score each image: whether it is right, and its cross-entropy."""
    logits = logits.astype(np.float64)
    own = np.take_along_axis(logits, label[:, None], axis=1)
    # Of equal logits the first is the larger, as argmax has it.
    before = np.arange(logits.shape[1]) < label[:, None]
    rank = ((logits > own) | ((logits == own) & before)).sum(1)
    found = {f"top{k}": (rank < k).astype(np.float64) for k in TOPS if k < logits.shape[1]}
    return {**found, "cross_entropy": logsumexp(logits, axis=1) - own[:, 0]}


class _Draws:
    """Means over the images of each category, and over all, with intervals."""

    def __init__(
        self, label: np.ndarray, n_categories: int, n_draws: int, level: float, seed: int
    ) -> None:
        self.places = [np.flatnonzero(label == k) for k in range(n_categories)]
        self.level = level
        rng = np.random.default_rng(seed)
        # Images are drawn anew within each category.
        self.drawn = [
            places[rng.integers(0, len(places), (n_draws, len(places)))] if len(places) else None
            for places in self.places
        ]

    def variables(self, name: str, of: str, values: np.ndarray, long_name: str) -> dict[str, Any]:
        """Variables over categories, and those with ``_overall``, of a value of each image.

        `of` is ``"_baseline"``, ``"_difference"`` or nothing.
        """
        tail = (1 - self.level) / 2
        n = np.array([len(places) for places in self.places])
        mean = np.array([values[p].mean() if len(p) else np.nan for p in self.places])
        overall = values.mean()
        if name.startswith("top") and of != "_difference":
            ends = np.array([self._wilson(values[places]) for places in self.places]).T
            overall_ends = self._wilson(values)
        else:
            draws = np.array(
                [
                    np.full(self._n_draws(), np.nan) if drawn is None else values[drawn].mean(1)
                    for drawn in self.drawn
                ]
            )
            ends = np.quantile(draws, [tail, 1 - tail], axis=1)
            seen = n > 0
            overall_ends = np.quantile((n[seen] / n.sum()) @ draws[seen], [tail, 1 - tail])
        made: Mapping[str, tuple[Any, Any, str]] = {
            "": (mean, overall, ""),
            "_low": (ends[0], overall_ends[0], ", lower end"),
            "_high": (ends[1], overall_ends[1], ", upper end"),
        }
        units = {"units": "nat" if name.startswith("cross_entropy") else "1"}
        variables: dict[str, Any] = {}
        for suffix, (by_category, of_all, text) in made.items():
            attrs = {**units, "long_name": f"{long_name}{text}"}
            variables[f"{name}{of}{suffix}"] = ("category", by_category, attrs)
            all_attrs = {**units, "long_name": f"{long_name}, all images{text}"}
            variables[f"{name}_overall{of}{suffix}"] = ((), of_all, all_attrs)
        return variables

    def _n_draws(self) -> int:
        return next(len(drawn) for drawn in self.drawn if drawn is not None)

    def _wilson(self, hits: np.ndarray) -> tuple[float, float]:
        """Wilson's interval of a proportion; NaN without images."""
        if not len(hits):
            return np.nan, np.nan
        found = binomtest(int(hits.sum()), len(hits)).proportion_ci(self.level, method="wilson")
        return found.low, found.high
