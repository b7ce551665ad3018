"""How many modes, and how many at a time: the trade-off curve and a recommended point."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from retina_codec._common.checks import require_choice, require_count
from retina_codec._common.progress import progress_bar
from retina_codec._common.provenance import provenance
from retina_codec.modes.columns import Contribution
from retina_codec.modes.fit import USES_K, fit_modes
from retina_codec.modes.matching import match_modes
from retina_codec.modes.refits import without_files
from retina_codec.modes.result import Modes


def choose_modes(
    contribution: Contribution,
    *,
    n_modes: Sequence[int] = (8, 16, 32, 64),
    k: Sequence[float] = (1, 2, 4),
    seeds: Sequence[int] = (0, 1, 2),
    min_stability: float = 0.9,
    max_l0: float | None = None,
    tolerance: float = 0.02,
    progress: bool = True,
    **options: Any,
) -> xr.Dataset:
    """Fit many sizes and sparsities, score each, and recommend one.

    The rule: among the points whose median stability is at least `min_stability` (and whose L0 is
    at most `max_l0`), take the best held-out R2; recommend the point with the fewest modes, and of
    those the smallest `k`, whose R2 is not below it by more than one standard error of the best,
    or `tolerance` if that is more. Where no point is so stable, the most stable point among those
    within `tolerance` of the best R2 is recommended, and ``attrs["rule"]`` says so.

    Parameters
    ----------
    contribution : DataArray, or dict or list of DataArray
        As for `fit_modes`.
    n_modes : sequence of int
        Sizes to try.
    k : sequence of int or float
        Modes active in a sample to try; larger ones than a size are left out there.
    seeds : sequence of int
        One fit each at every point; at least two.
    min_stability : float
        Asked of the median over modes of the median cosine over pairs of seeds.
    max_l0 : float, optional
        Largest mean number of active modes.
    tolerance : float
        Loss of R2 that fewer modes are worth.
    progress : bool
        Show a progress bar.
    **options
        Other arguments of `fit_modes`; an autoencoder that uses `k`.

    Returns
    -------
    Dataset
        `r2`, `l0`, `alive` (n_modes, k, seed), on the held-out stretches of each fit;
        `stability` (n_modes, k): of the modes of each fit that are ever active, the median cosine
        with their partners in the other fits. NaN where `k` is more than `n_modes`. ``attrs``:
        ``recommended_n_modes``, ``recommended_k`` and ``rule``.

    Raises
    ------
    TypeError, ValueError
        As `fit_modes`; ValueError if a sequence is empty or has too few seeds.

    Examples
    --------
    >>> import numpy as np
    >>> import xarray as xr
    >>> strength = np.eye(3)[np.random.default_rng(0).integers(3, size=600)]
    >>> contribution = xr.DataArray(strength, dims=("time", "channel"))
    >>> curve = choose_modes(
    ...     contribution, n_modes=(2, 3), k=(1,), seeds=(0, 1), features="channel", progress=False
    ... )
    >>> int(curve.attrs["recommended_n_modes"])
    3
    """
    sizes = sorted({require_count(size, 1, "n_modes") for size in n_modes})
    numbers = sorted(set(k))
    seeds = tuple(seeds)
    if not sizes or not numbers or len(set(seeds)) < max(2, len(seeds)):
        raise ValueError(
            f"n_modes={tuple(n_modes)}, k={tuple(k)}, seeds={seeds}; expected at least one size, "
            "one k and two different seeds"
        )
    require_choice(options.get("autoencoder", "topk"), USES_K, "autoencoder")
    points = [point for point in itertools.product(sizes, numbers) if point[1] <= point[0]]
    if not points:
        raise ValueError(f"every k of {tuple(k)} is more than every n_modes of {tuple(n_modes)}")
    shape = (len(sizes), len(numbers), len(seeds))
    r2, l0, alive = np.full((3, *shape), np.nan)
    steady = np.full(shape[:2], np.nan)
    attrs: dict[str, Any] = {}
    options = without_files(options)
    for size, number in progress_bar(points, "choose modes", shown=progress):
        fits = [
            fit_modes(contribution, n_modes=size, k=number, seed=seed, progress=False, **options)
            for seed in seeds
        ]
        at = sizes.index(size), numbers.index(number)
        scores = [modes.score() for modes in fits]
        r2[at] = [float(score["mean_r2"]) for score in scores]
        l0[at] = [float(score["l0"]) for score in scores]
        alive[at] = [int(score["alive"]) for score in scores]
        steady[at] = _agreement(fits)
        attrs = fits[0].attrs
    dims = ("n_modes", "k", "seed")
    curve = xr.Dataset(
        {
            "r2": (dims, r2, {"units": "1", "long_name": "held-out R2, mean over columns"}),
            "l0": (dims, l0, {"units": "1", "long_name": "mean number of active modes"}),
            "alive": (dims, alive, {"units": "1", "long_name": "modes in use"}),
            "stability": (
                dims[:2],
                steady,
                {"units": "1", "long_name": "median cosine over seeds"},
            ),
        },
        coords={"n_modes": sizes, "k": numbers, "seed": list(seeds)},
    )
    size, number, rule = _recommended(curve, min_stability, max_l0, tolerance)
    curve.attrs = {
        **attrs,
        **provenance(
            method="choose_modes",
            min_stability=min_stability,
            max_l0=max_l0,
            tolerance=tolerance,
            fit=attrs["parameters"],
        ),
        "min_stability": float(min_stability),
        "recommended_n_modes": size,
        "recommended_k": number,
        "rule": rule,
    }
    return curve


def _agreement(fits: Sequence[Modes]) -> float:
    """Median over the active modes of each fit of their median cosine with the other fits."""
    medians = []
    for one in fits:
        cosine = np.stack(
            [match_modes(one, other)["cosine"].values for other in fits if other is not one]
        )
        active = (one.loadings["active_fraction"] > 0).values
        medians.append(np.median(cosine[:, active], axis=0))
    return float(np.median(np.concatenate(medians)))


def _recommended(
    curve: xr.Dataset, min_stability: float, max_l0: float | None, tolerance: float
) -> tuple[int, float, str]:
    r2 = curve["r2"].mean("seed").values
    error = curve["r2"].std("seed", ddof=1).values / np.sqrt(curve.sizes["seed"])
    steady, l0 = curve["stability"].values, curve["l0"].mean("seed").values
    known = np.isfinite(r2)
    sparse = known if max_l0 is None else known & (l0 <= max_l0)
    said = "" if max_l0 is None else f" and a mean of at most {max_l0:g} active modes"
    if not sparse.any():
        sparse, said = known, f"; no point has a mean of at most {max_l0:g} active modes"
    stable = sparse & (steady >= min_stability)
    if stable.any():
        best = np.unravel_index(np.where(stable, r2, -np.inf).argmax(), r2.shape)
        margin = max(float(error[best]), tolerance)
        good = stable & (r2 >= r2[best] - margin)
        place = np.argwhere(good)[0]  # the fewest modes, then the smallest k
        rule = (
            f"fewest modes whose R2 is within {margin:.3f} (the larger of one standard error and "
            f"the tolerance) of the best with a stability of at least {min_stability:g}{said}"
        )
    else:
        best = np.unravel_index(np.where(sparse, r2, -np.inf).argmax(), r2.shape)
        good = sparse & (r2 >= r2[best] - tolerance)
        place = np.unravel_index(np.where(good, steady, -np.inf).argmax(), r2.shape)
        rule = (
            f"no point has a stability of {min_stability:g}{said}: the most stable whose R2 is "
            f"within {tolerance:g} of the best"
        )
    return curve["n_modes"].values[place[0]].item(), curve["k"].values[place[1]].item(), rule
