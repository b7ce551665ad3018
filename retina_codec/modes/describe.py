"""What modes carry: their partial correlation with features of the stimulus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from retina_codec._common.checks import magnitude, require_count
from retina_codec._common.provenance import provenance
from retina_codec._common.time import bin_width_of, whole_history
from retina_codec.modes.association import associations
from retina_codec.modes.feature_input import block_numbers, covering, epoch_numbers, families_of
from retina_codec.modes.labels import label_modes
from retina_codec.modes.lagged_samples import LaggedSamples
from retina_codec.modes.loadings import cell_loadings
from retina_codec.modes.result import Modes
from retina_codec.modes.shift_null import CircularShifts, Null, Permutations

WINDOWS_NEEDED = 10  # of max_lag, for a null of shifts


def describe_modes(
    modes: Modes | xr.DataArray,
    features: xr.Dataset,
    *,
    max_lag: float = 0.4,
    q: float = 0.05,
    min_r: float = 0.2,
    epochs: xr.DataArray | None = None,
    ignore: Sequence[str] = (),
    n_draws: int = 2000,
    seed: int = 0,
) -> xr.Dataset:
    """Tell which modes carry light and which carry motion.

    For each mode and feature the correlation of the loading with the feature `lag` seconds
    before is computed, the *other* family's features (at all lags up to `max_lag`) and those of
    the family ``"nuisance"`` being regressed out of both: what a mode owes to light that comes
    with motion does not count as motion, nor the reverse. The lag with the largest absolute
    value is taken. Its p-value comes from circular shifts of the feature within each block, each
    longer than `max_lag` plus the autocorrelation, the largest value over lags being taken in each
    draw too, and q-values are those of Benjamini and Hochberg over all modes and features.

    Loadings of single cells are described cell by cell, with the features at the cell's own place
    if they have the dim `cell`. A mode's effect is the mean over cells of the absolute partial
    correlation, each cell counting by its share of the mode's variance; in the null all cells are
    shifted together. So a mode that follows motion to the right in one cell and to the left in
    another is not averaged away.

    Components along x and y are also tested together, as ``"velocity"`` and ``"motion_energy"``,
    by their multiple correlation, so that oblique directions are found as well as cardinal ones.

    Parameters
    ----------
    modes : Modes or DataArray
        Modes of a movie, or loadings (time, ..., mode), of which `time` has ``attrs["bin_width"]``.
        Loadings are averaged over all other dims but `cell`.
    features : Dataset
        Over `time` or (time, cell), as from `retina_codec.stimulus_features`; each variable has
        ``attrs["family"]``: ``"light"``, ``"motion"`` or ``"nuisance"``. All times (and cells) of
        the loadings must be there; more are welcome, as the past of the first samples.
    max_lag : float
        Seconds; lags are 0 to `max_lag` in steps of the bin width, and none reaches into another
        block.
    q : float
        Largest q-value that counts.
    min_r : float
        Smallest absolute partial correlation that counts.
    epochs : DataArray, optional
        (time,), the label of every sample of a movie built of epochs. Then means over epochs
        (contiguous runs of one label in one block) are correlated, and the null permutes which
        epoch is which.
    ignore : sequence of str
        Labels of `epochs` to leave out, such as ``"transition"``.
    n_draws : int
        Draws of the null, or a few more. Small p-values come from a fitted tail, and neighbouring
        shifts are nearly the same, so that more draws sharpen little.
    seed : int
        Of the draws. (In one block, shifts are taken at equal steps.)

    Returns
    -------
    Dataset
        Over (mode, feature): `partial_r` (-1 to 1; of several cells the mean size, with the sign of
        the weighted mean; of x and y together 0 to 1), `lag` (s), `p_value`, `q_value`; NaN where
        the loading or the feature does not vary (beyond what is regressed out).
        Over mode: `light_effect` and `motion_effect`, the largest absolute partial r of each
        family (NaN if it is absent); `label`: "light", "motion", "mixed" (both count, within a
        factor of 2 of each other) or "none"; `subtype`: "ON", "OFF", "contrast",
        "translation (45 deg)", "object motion", "speed" or the name of another feature, with
        "suppressed by" before it where the correlation is negative (luminance is "ON" where it is
        positive and "OFF" where it is negative); `direction` of translation,
        degrees, 0 = +x, 90 = +y, else NaN (also where cells differ: the subtype then says
        "translation by cell", and luminance "ON and OFF by cell").
        Of loadings with `cell`: `cell_partial_r` (cell, mode, feature) at the mode's lag,
        `cell_direction` (cell, mode) of all cells, `cell_weight` (cell, mode).
        The coordinate `family` stands on `feature`.

    Raises
    ------
    TypeError
        If `modes`, `features` or `epochs` is of another type.
    ValueError
        If a dim, family, time or cell is missing, values are NaN, or there are too few samples for
        shifts (at least 10 times `max_lag`) or epochs for permutations (20).

    Notes
    -----
    Partial correlation with the residuals of both sides; shifting residuals: Winkler et al.,
    NeuroImage 2014 (the Kennedy method); circular shifts keep the autocorrelation of both sides
    and break only their relation. Each block of at least four times the shortest shift turns on its
    own, by a shift of its own, about its own mean; shorter blocks are laid end to end and turn
    together. Small p-values are extrapolated by a generalised Pareto tail, since a recording has
    only as many independent shifts as it has stretches of `max_lag` plus the autocorrelation time.

    Examples
    --------
    >>> import numpy as np
    >>> import xarray as xr
    >>> from retina_codec._common.time import time_coordinate
    >>> rng = np.random.default_rng(0)
    >>> time = time_coordinate(np.arange(3000) * 0.01, 0.01)
    >>> features = xr.Dataset(
    ...     {
    ...         "luminance_on": ("time", rng.random(3000), {"family": "light"}),
    ...         "speed": ("time", rng.random(3000), {"family": "motion"}),
    ...     },
    ...     coords={"time": time},
    ... )
    >>> driven = features["luminance_on"].shift(time=5, fill_value=0)
    >>> described = describe_modes(driven.expand_dims("mode"), features)
    >>> str(described.label[0].values), str(described.subtype[0].values)
    ('light', 'ON')
    >>> round(float(described.lag.sel(feature="luminance_on")[0]), 3)
    0.05
    """
    loadings = cell_loadings(modes)
    bin_width = bin_width_of(loadings, "modes")
    max_lag = magnitude(max_lag, "s", "max_lag")
    if not max_lag >= 0:
        raise ValueError(f"max_lag={max_lag}; expected seconds, 0 or more")
    for argument, value in (("q", q), ("min_r", min_r)):
        if not 0 < value < 1:
            raise ValueError(f"{argument}={value}; expected a number between 0 and 1")
    n_draws = require_count(n_draws, 100, "n_draws")
    families = families_of(features, loadings)
    features = covering(features, loadings)
    n_lags = round(max_lag / bin_width) + 1
    places = features.get_index("time").get_indexer(loadings.get_index("time"))
    kept = np.isin(places, whole_history(features, n_lags))
    if epochs is None and kept.sum() < WINDOWS_NEEDED * n_lags:
        raise ValueError(
            f"modes: {int(kept.sum())} samples have {max_lag} s of features before them in their "
            f"own block; at least {WINDOWS_NEEDED * n_lags} are needed for a null: lower max_lag "
            "or give a longer recording"
        )
    samples = LaggedSamples(features, loadings, places, kept, n_lags)
    if epochs is None:
        blocks = block_numbers(features)[places[kept]]
        shortest = n_lags + min(samples.slowest(list(families), blocks), len(blocks) // 4)
        circles = samples.turn(blocks, shortest, n_draws)
        null: Null = CircularShifts(circles, shortest, n_draws, seed)
    else:
        n_epochs = samples.average(epoch_numbers(epochs, ignore, loadings)[kept])
        circles, null = [slice(None)], Permutations(n_epochs, n_draws, seed)
    described = associations(samples, families, circles, null, bin_width).assign_coords(
        {str(key): c for key, c in loadings.coords.items() if c.dims in (("mode",), ("cell",))}
    )
    if loadings.sizes["cell"] == 1 and "cell" not in _dims(modes):
        described = described.drop_vars(
            ["cell_partial_r", "cell_direction", "cell_weight", "cell"], errors="ignore"
        )
    made_by = provenance(
        method="describe_modes",
        max_lag=max_lag,
        q=q,
        min_r=min_r,
        null_draws="shifts" if epochs is None else "epochs",
        n_draws=n_draws,
        seed=seed,
    )
    return label_modes(described, q=q, min_r=min_r).assign_attrs({**loadings.attrs, **made_by})


def _dims(modes: Modes | xr.DataArray) -> tuple[Any, ...]:
    return modes.loadings.dims if isinstance(modes, Modes) else modes.dims
