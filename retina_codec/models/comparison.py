"""Two models on one recording: which one predicts it better, and how sure that is."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from retina_codec._common.provenance import provenance
from retina_codec.models.evaluation import judge
from retina_codec.models.model import RetinaModel
from retina_codec.models.resampling import STRETCH_SECONDS
from retina_codec.models.scores import SCORES


def paired_difference(
    first: RetinaModel | xr.DataArray,
    second: RetinaModel | xr.DataArray,
    node: xr.DataTree | xr.Dataset,
    *,
    n_draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> xr.Dataset:
    """Compare two models on the bins that both predict: scores of the first less the second's.

    Each draw of a moving-block bootstrap over time (stretches of half a second within blocks;
    Kunsch, Ann. Statist. 17, 1989) takes the same bins for both models, so that what both find
    hard or easy cancels: the interval of a difference is much narrower than those of the scores.

    Parameters
    ----------
    first, second : RetinaModel or xarray.DataArray
        The models, or rates (time, cell) in Hz that they predicted for bins of `node`.
    node : xarray.DataTree or xarray.Dataset
        stimulus (time, [color,] y, x) and spike_count ([repeat,] time, cell).
    n_draws : int
        Draws of the bootstrap.
    level : float
        Coverage of the intervals.
    seed : int
        Of the draws.

    Returns
    -------
    xarray.Dataset
        For each score of `evaluate`, over ``cell``: ``<score>_first``, ``<score>_second``, and
        ``<score>_difference`` with ``_low`` and ``_high``; and of the mean over the cells that
        have the score, ``mean_<score>_difference`` with ``_low`` and ``_high`` (no dims). NaN
        where undefined.

    Raises
    ------
    TypeError, ValueError
        As for `evaluate`.

    Examples
    --------
    >>> import numpy as np, retina_codec as rc, xarray as xr
    >>> from retina_codec.models.comparison import paired_difference
    >>> time = rc.time_coordinate(np.arange(500) * 0.01, 0.01)
    >>> rate = np.random.default_rng(0).gamma(2.0, 10.0, size=(500, 1))
    >>> counts = np.random.default_rng(1).poisson(rate * 0.01, size=(10, 500, 1))
    >>> node = xr.Dataset(
    ...     {"spike_count": (("repeat", "time", "cell"), counts)}, {"time": time, "cell": ["a"]}
    ... )
    >>> true = xr.DataArray(rate, {"time": time, "cell": ["a"]}, ("time", "cell"))
    >>> worse = true + np.random.default_rng(2).gamma(2.0, 10.0, size=rate.shape)
    >>> found = paired_difference(true, worse, node, n_draws=200)
    >>> bool(found["pearson_r_difference_low"][0] > 0)
    True
    """
    judged = judge(
        {"first": first, "second": second},
        node,
        n_draws=n_draws,
        level=level,
        shortest_shift=1.0,
        seed=seed,
    )
    variables: dict[str, Any] = {}
    of_first, of_second = judged.scores
    for name, long_name in SCORES.items():
        for suffix, scores in (("first", of_first), ("second", of_second)):
            attrs = {"units": "1", "long_name": f"{long_name}, {suffix} model"}
            variables[f"{name}_{suffix}"] = ("cell", scores[name][0], attrs)
        difference = of_first[name] - of_second[name]
        text = f"{long_name}, first less second model"
        variables |= judged.with_interval(f"{name}_difference", difference, text)
        defined = np.isfinite(difference[0])
        # Of always the same cells: a draw in which one of them is undefined is undefined.
        mean = difference[:, defined].mean(1) if defined.any() else np.full(len(difference), np.nan)
        low, high = judged.interval(mean)
        for suffix, value, end in (
            ("", mean[0], ""),
            ("_low", low, ", lower end"),
            ("_high", high, ", upper end"),
        ):
            attrs = {"units": "1", "long_name": f"{text}, mean over cells{end}"}
            variables[f"mean_{name}_difference{suffix}"] = ((), float(value), attrs)
    fingerprints = {
        f"{which}_fingerprint": fingerprint
        for which, fingerprint in zip(("first", "second"), judged.fingerprints, strict=True)
        if fingerprint is not None
    }
    return xr.Dataset(
        variables,
        coords={"cell": judged.cells},
        attrs={
            **fingerprints,
            "data_fingerprint": judged.data_fingerprint,
            "n_bins": judged.resampling.n_bins,
            "n_repeats": judged.recorded.n_repeats,
            **provenance(
                function="paired_difference",
                level=level,
                n_draws=n_draws,
                block_seconds=STRETCH_SECONDS,
                seed=seed,
            ),
        },
    )
