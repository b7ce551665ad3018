"""Two networks with each other: whether a second training finds the same contributions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from retina_codec._common.checks import naming, require_at_least
from retina_codec._common.provenance import provenance
from retina_codec.attribution import methods
from retina_codec.attribution.methods import Method
from retina_codec.models.model import RetinaModel
from retina_codec.validation.features import net_map, summed
from retina_codec.validation.halves import Halves
from retina_codec.validation.matching import (
    NEGLIGIBLE,
    best_matches,
    correlations,
    linear_cka,
    without_rates,
)
from retina_codec.validation.moments import Covariance, pooled
from retina_codec.validation.truth import models_of, require_cells

REMOVED: dict[str, list[int]] = {"nothing": [], "predicted": [0, 1]}


def agreement(
    a: RetinaModel,
    b: RetinaModel,
    movie: xr.DataArray,
    *,
    layers: str | Sequence[str] | None = None,
    method: Method | None = None,
    least_share: float = 0.01,
    progress: bool = True,
) -> xr.Dataset:
    """Compare the contributions of two networks of the same cells, layer by layer.

    Two networks trained from different seeds agree if what they report is of the data; two
    untrained ones show what architecture and movie alone give. It is symmetric in `a` and `b`, and
    does not depend on the order of channels.

    Parameters
    ----------
    a, b : RetinaModel
        Of the same cells, in any order.
    movie : DataArray
        (time, [color,] y, x), in recorded units.
    layers : str or sequence of str, optional
        Layers that both have; by default those of `a`'s ``default_layers`` that `b` has too.
    method : method, optional
        Of the contributions; by default ``IntegratedGradients(steps=8)``.
    least_share : float
        Channels whose contributions have less than this share of the variance of all channels of
        the layer are not looked for in the other network.
    progress : bool
        Show progress bars.

    Returns
    -------
    Dataset
        `cka` (removed, layer, cell): linear CKA of the two (time, channel) matrices of
        contributions summed over places, over both halves of the movie. `r`
        (removed, layer, cell): for each channel the best one of the other network, with the
        largest r on half A, scored on half B (0 if the other has nothing there);
        the median over channels, and the mean of both directions. `removed` is ``"nothing"``, or
        ``"predicted"``: the rates of both networks taken from both sides by linear regression, for
        `r` fitted on half A.

    Raises
    ------
    TypeError
        If `a` or `b` is not a model of the retina.
    ValueError
        If they are of other cells, have no layer in common, or the movie does not fit or is too
        short.

    Examples
    --------
    >>> import retina_codec as rc
    >>> movie = rc.stimuli.white_noise(n_frames=120, shape=(14, 14), seed=0)
    >>> circuit = rc.simulation.circuit("default", shape=(14, 14))
    >>> same = rc.validation.agreement(circuit, circuit, movie, progress=False)
    >>> round(float(same["cka"].min()), 3)
    1.0
    """
    models = models_of({"a": a, "b": b})
    cells = [str(cell) for cell in a.outputs]
    require_cells("b", b, cells, "a")
    method = method or methods.IntegratedGradients(steps=8)
    require_at_least(least_share, 0.0, "least_share")
    names = [layers] if isinstance(layers, str) else layers
    if names is None:
        names = [layer for layer in a.default_layers if layer in b.layers]
    if not names:
        raise ValueError(
            f"layers: a has {', '.join(a.default_layers)} and b {', '.join(b.default_layers)}, "
            "none in common; agreement is of networks of one architecture"
        )
    for name, model in models.items():
        with naming(f"model {name!r} on movie"):
            model.samples(movie, "movie")
            for layer in names:
                model.layer(layer)
    halves = Halves.of(movie, max(a.history, b.history), "movie")
    found = [
        summed(model, halves, cells, names, method, name, progress)
        for name, model in models.items()
    ]
    columns = np.concatenate(
        [*(one.rate[..., None] for one in found), *(one.values for one in found)], axis=-1
    )
    moments = (Covariance(columns.shape[1:]), Covariance(columns.shape[1:]))
    for half, rows in zip(moments, halves.rows, strict=True):
        half.add(columns[rows])
    maps = _maps([[len(c) for c in one.channels.values()] for one in found])
    covariances = [half.matrix() for half in moments]
    both = pooled(moments)
    shape = (len(REMOVED), len(names), len(cells))
    cka, r = np.full(shape, np.nan), np.full(shape, np.nan)
    for j, rates in enumerate(REMOVED.values()):
        for i in range(len(cells)):
            whole = [c[i] for c in covariances]
            rest = [without_rates(whole[0], c, rates) for c in whole]
            everywhere = without_rates(both[i], both[i], rates)
            for k, (left, right) in enumerate(maps):
                cka[j, k, i] = linear_cka(everywhere, left, right)
                both_ways = [
                    _found_again(whole, rest, one, other, least_share)
                    for one, other in ((left, right), (right, left))
                ]
                # A network without contributions has nothing that could be found again.
                known = [value for value in both_ways if np.isfinite(value)]
                r[j, k, i] = np.mean(known) if known else np.nan
    dims = ("removed", "layer", "cell")
    return xr.Dataset(
        {
            "cka": (dims, cka, {"units": "1", "long_name": "linear CKA of two networks"}),
            "r": (dims, r, {"units": "1", "long_name": "correlation with the best channel"}),
        },
        {"removed": list(REMOVED), "layer": list(names), "cell": cells},
        provenance(
            made_by="agreement",
            models=[a.fingerprint, b.fingerprint],
            method=repr(method),
            least_share=least_share,
            gap=halves.gap,
        ),
    )


def _maps(sizes: Sequence[Sequence[int]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """By layer: maps from all columns to the channels of the one network and of the other."""
    n_columns = 2 + 2 * sum(map(sum, sizes))
    first, sides = 2, []
    for of_layers in sizes:
        whole = np.zeros((n_columns, sum(of_layers)))
        whole[first : first + 2 * sum(of_layers)] = net_map(of_layers)
        sides.append(np.split(whole, np.cumsum(of_layers)[:-1], axis=1))
        first += 2 * sum(of_layers)
    return list(zip(*sides, strict=True))


def _found_again(
    whole: Sequence[np.ndarray],
    rest: Sequence[np.ndarray],
    sought: np.ndarray,
    among: np.ndarray,
    least_share: float,
) -> float:
    """Median r of the channels `sought` with their best channel `among` the other network's."""
    variance = np.diag(sought.T @ sum(whole) @ sought)
    known = (variance > 0) & (variance >= least_share * variance.sum())
    first, second = (
        correlations(
            among.T @ left @ sought,
            (np.diag(among.T @ left @ among), np.diag(sought.T @ left @ sought)),
            (np.diag(among.T @ before @ among), np.diag(sought.T @ before @ sought)),
        )
        for left, before in zip(rest, whole, strict=True)
    )
    varies = np.all(
        [
            np.diag(sought.T @ left @ sought) > NEGLIGIBLE * np.diag(sought.T @ before @ sought)
            for left, before in zip(rest, whole, strict=True)
        ],
        axis=0,
    )
    r = best_matches(first, second).r
    r = np.where(np.isnan(r) & varies, 0.0, r)[known]  # the other network has nothing to match
    return float(np.median(r[np.isfinite(r)])) if np.isfinite(r).any() else float("nan")
