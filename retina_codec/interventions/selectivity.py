"""Which way of ranking channels finds those that a category needs: curves compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from retina_codec._common.checks import nearest_names
from retina_codec._common.provenance import provenance
from retina_codec.interventions.curves import ablation_curve
from retina_codec.models.model import BATCH_SIZE, Model
from retina_codec.modes import Modes

ROW = "row"
OF_RANKING = ("auc", "ratio", "score", "score_there")


def rank_by_mode(
    modes: Modes, association: xr.Dataset, targets: Sequence[str] | None = None
) -> xr.DataArray:
    """Rank the channels of a layer for each category by the mode that stands for it best.

    The mode is that with the largest correlation. A channel's rank is the size of what the mode
    gives it: its row of the dictionary brought back to the contribution's own units, at the mode's
    mean loading where it is on, the sizes of both signs added.

    Parameters
    ----------
    modes : Modes
        Of one layer, with the features ``("sign", "channel")`` or ``"channel"``.
    association : Dataset
        From `retina_codec.analysis.category_association` of these modes.
    targets : sequence of str, optional
        Categories or nodes of the hierarchy; by default all categories.

    Returns
    -------
    DataArray
        (target, channel), for `retina_codec.ablation_curve` and `compare_rankings`; on ``target``
        the ``mode`` and its correlation ``r``.

    Raises
    ------
    TypeError
        If `modes` or `association` is of another type.
    ValueError
        If a target is unknown or no mode varies, or the modes have no channels.

    References
    ----------
    Melander et al., ICLR 2026, arXiv 2603.06557: channels are ranked by the mode's dictionary row.

    Examples
    --------
    >>> import numpy as np, retina_codec as rc, xarray as xr
    >>> labels = np.repeat(["cat", "dog"], 50)
    >>> team = np.array([[2.0, 1, 0, 0], [0, 0, 1, 3]])[np.repeat([0, 1], 50)]
    >>> strength = 1 + np.random.default_rng(0).random((100, 1))
    >>> contribution = xr.DataArray(strength * team, dims=("image", "channel"))
    >>> modes = rc.fit_modes(contribution, features="channel", n_modes=2, k=1, progress=False)
    >>> found = rc.analysis.category_association(modes, labels, n_permutations=50)
    >>> rc.interventions.rank_by_mode(modes, found).argmax("channel").values
    array([0, 3])
    """
    if not isinstance(modes, Modes):
        raise TypeError(f"modes is a {type(modes).__name__}; expected the result of fit_modes")
    if not isinstance(association, xr.Dataset) or "r" not in association:
        raise TypeError(
            "association is not what retina_codec.analysis.category_association gives; pass its "
            "Dataset"
        )
    if "channel" not in modes.dictionary.dims:
        raise ValueError(
            f"modes: the dictionary has dims {modes.dictionary.dims}; expected 'channel', of one "
            "layer: fit the modes of each layer, and give compare_rankings a mapping of layers"
        )
    known = [str(node) for node in association["node"].values]
    if targets is None:
        targets = [n for n, kind in zip(known, association["kind"].values, strict=True)
                   if kind == "category"]  # fmt: skip
    for target in targets:
        if target not in known:
            raise ValueError(
                f"targets has {target!r}, which is not in the association; "
                f"{nearest_names(target, known)}"
            )
    r = association["r"].sel(node=list(targets)).transpose("node", "mode")
    if r.isnull().all("mode").any():
        raise ValueError("association: no mode has a correlation with one of the targets")
    best = r.fillna(-np.inf).argmax("mode").values
    on = modes.loadings.where(modes.loadings != 0)
    others = [dim for dim in on.dims if dim != "mode"]
    size = np.nan_to_num(on.mean(others).values)
    chosen = xr.DataArray(
        size[best][:, None] * (best[:, None] == np.arange(len(size))),
        dims=("target", "mode"),
        coords={"mode": modes.dictionary["mode"].values},
    )
    given: Any = modes.reconstruct(chosen)
    sizes = abs(given - modes.reconstruct(xr.zeros_like(chosen)))
    sizes = sizes.sum([dim for dim in sizes.dims if dim not in ("target", "channel")])
    return sizes.transpose("target", "channel").assign_coords(
        target=np.array(list(targets), object),
        mode=("target", association["mode"].values[best]),
        r=("target", r.values[np.arange(len(best)), best]),
    )


def compare_rankings(
    model: Model,
    data: xr.DataArray,
    rankings: Mapping[str, Any],
    *,
    layer: str | None = None,
    labels: xr.DataArray | str,
    groups: Mapping[str, Sequence[str]] | None = None,
    percentages: Sequence[float] | None = None,
    counts: Sequence[int] | None = None,
    preserve: bool = False,
    top: int = 1,
    n_random: int = 20,
    random_at: Sequence[float] | None = None,
    silence: str = "baseline",
    n_draws: int = 200,
    level: float = 0.95,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    progress: bool = True,
) -> xr.Dataset:
    """Ablate (or preserve) channels for every category by several rankings, and compare them.

    All curves (`retina_codec.ablation_curve`) are of the same images, with what comes before the
    layer computed once. Means over targets have intervals of a bootstrap over targets, in which
    all rankings have the same targets.

    Parameters
    ----------
    model : Model
        A classifier.
    data : DataArray
        Images (image, color, y, x), best of those that nothing was fitted to.
    rankings : mapping of str to DataArray, or to mapping of str to DataArray
        By name, such as ``"modes of contributions"``: (target, channel), as from `rank_by_mode`;
        or a mapping with one for each of several layers, which are silenced together. The first is
        what the others are compared with.
    layer : str, optional
        The layer of rankings that are DataArrays.
    labels : DataArray or str
        Category of each image, or the name of such a coordinate of `data`.
    groups : mapping of str to sequence of str, optional
        Categories of targets that are groups; other targets are categories.
    percentages, counts, preserve, top, n_random, random_at, silence, n_draws, level, seed, \
    batch_size, progress
        As for `retina_codec.ablation_curve`; `n_draws` also of the bootstrap over targets.

    Returns
    -------
    Dataset
        Over ``ranking`` and ``target``: `score` and `auc` (.., group), `ratio` (.., group,
        percentage or count), with ``_low`` and ``_high`` over images. Over ``ranking``:
        `mean_score`, `mean_ratio` (.., group, percentage), and `score_difference`: that of the
        first ranking minus the other's, each with ``_low`` and ``_high`` over targets. With random
        orders: `random_mean_score` (draw), `mean_score_there` (ranking), at the same points, and
        `random_share` (ranking): the share of random orders, the ranking counted once, whose mean
        score is as low (with `preserve` as high).

    Raises
    ------
    TypeError, ValueError
        As `retina_codec.ablation_curve`; ValueError if the rankings have other targets, or layers.

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
    >>> own = xr.DataArray([[2.0, 1, 0, 0], [0, 0, 1, 2]], {"target": ["left", "right"]},
    ...     ("target", "channel"))
    >>> found = rc.interventions.compare_rankings(model, images, {"own": own, "other": -own},
    ...     layer="2", labels="category", counts=[1, 2], n_random=0, progress=False)
    >>> found["mean_score"].values.round(2)
    array([-0.75,  3.  ])
    """
    by_layer = _by_layer(rankings, layer)
    names = list(by_layer)
    first = by_layer[names[0]]
    targets = [str(target) for target in next(iter(first.values()))["target"].values]
    rows = [f"{name}: {target}" for name in names for target in targets]
    stacked = {
        key: xr.concat(
            [by_layer[name][key].drop_vars("target").rename(target=ROW) for name in names], dim=ROW
        ).assign_coords({ROW: rows})
        for key in first
    }
    wanted = {t: list((groups or {}).get(t, [t])) for t in targets}
    curve = ablation_curve(
        model,
        data,
        stacked,
        labels=labels,
        target={row: wanted[t] for row, t in zip(rows, targets * len(names), strict=True)},
        percentages=percentages,
        counts=counts,
        preserve=preserve,
        top=top,
        n_random=n_random,
        random_at=random_at,
        silence=silence,
        n_draws=n_draws,
        level=level,
        seed=seed,
        batch_size=batch_size,
        progress=progress,
    )
    apart = _unstacked(curve, names, targets)
    kept = [
        f"{name}{end}" for name in OF_RANKING for end in ("", "_low", "_high")
        if f"{name}{end}" in apart
    ]  # fmt: skip
    found = apart[kept].assign(before=apart["before"].isel(ranking=0, drop=True))
    _add_means(found, n_draws, level, seed)
    if n_random:
        # The same random orders for all rankings.
        drawn = apart["random_score"].isel(ranking=0, drop=True).mean("target")
        there = apart["score_there"].mean("target")
        beyond = drawn >= there if preserve else drawn <= there
        found["random_mean_score"] = drawn.assign_attrs(
            units="1", long_name="mean score of random channels"
        )
        found["mean_score_there"] = there.assign_attrs(
            units="1", long_name="mean score where random channels were tried"
        )
        found["random_share"] = ((1 + beyond.sum("draw")) / (1 + n_random)).assign_attrs(
            units="1", long_name="share of random orders with a mean score as extreme"
        )
    found.attrs = {
        "model_fingerprint": model.fingerprint,
        **provenance(
            function="compare_rankings",
            curve=curve.attrs["parameters"],
            images=data.sizes[model.sample_dim],
            n_draws=n_draws,
            level=level,
            seed=seed,
        ),
    }
    return found


def _by_layer(rankings: Mapping[str, Any], layer: str | None) -> dict[str, dict[str, xr.DataArray]]:
    """Rankings (target, channel) by name and layer, all of the same targets and layers."""
    if not isinstance(rankings, Mapping) or not rankings:
        raise TypeError("rankings: expected at least one ranking by its name, {name: ranking}")
    found: dict[str, dict[str, xr.DataArray]] = {}
    for name, given in rankings.items():
        if isinstance(given, xr.DataArray):
            if layer is None:
                raise ValueError(f"layer is missing: name the layer of rankings[{name!r}]")
            given = {layer: given}
        elif layer is not None:
            raise ValueError(f"rankings[{name!r}] has layers of its own: give no layer=")
        found[str(name)] = {
            str(key): _with_targets(array, f"rankings[{name!r}]") for key, array in given.items()
        }
    layers = list(next(iter(found.values())))
    targets = next(iter(next(iter(found.values())).values()))["target"].values.tolist()
    for name, arrays in found.items():
        if set(arrays) != set(layers):
            raise ValueError(f"rankings[{name!r}] is of the layers {list(arrays)}, not {layers}")
        for array in arrays.values():
            if array["target"].values.tolist() != targets:
                raise ValueError(
                    f"rankings[{name!r}] has other targets than the first: give the same, in the "
                    "same order"
                )
    return found


def _with_targets(array: Any, argument: str) -> xr.DataArray:
    if not isinstance(array, xr.DataArray) or set(array.dims) != {"target", "channel"}:
        dims = tuple(array.dims) if isinstance(array, xr.DataArray) else type(array).__name__
        raise ValueError(
            f"{argument}: {dims}; expected a DataArray (target, channel), as from rank_by_mode: "
            "rename the dim of categories with .rename(node='target')"
        )
    if "target" not in array.coords:
        raise ValueError(f"{argument} has no coordinate 'target': name the categories")
    extra = [name for name in array.coords if name not in ("target", "channel")]
    return array.drop_vars(extra).transpose("target", "channel")


def _unstacked(curve: xr.Dataset, names: list[str], targets: list[str]) -> xr.Dataset:
    """Curves over (ranking, target) instead of rows."""
    n = len(targets)
    parts = [
        curve.isel({ROW: slice(i * n, (i + 1) * n)})
        .rename({ROW: "target"})
        .assign_coords(target=np.array(targets, object))
        for i in range(len(names))
    ]
    with_row = [name for name in curve.data_vars if ROW in curve[name].dims]
    joined = xr.concat(
        [part[with_row] for part in parts], dim=xr.Variable("ranking", np.array(names, object))
    )
    return joined


def _add_means(found: xr.Dataset, n_draws: int, level: float, seed: int) -> None:
    """Means over targets, and differences to the first ranking, with intervals over targets."""
    n = found.sizes["target"]
    draws = np.random.default_rng([seed, 3]).integers(n, size=(n_draws, n))
    tails = [(1 - level) / 2, (1 + level) / 2]
    difference = found["score"].isel(ranking=0, drop=True) - found["score"]
    for name, values, text in (
        ("mean_score", found["score"], "score, mean over targets"),
        ("mean_ratio", found["ratio"], "after over before, mean over targets"),
        ("score_difference", difference, "score of the first ranking minus this one's"),
    ):
        drawn = values.isel(target=xr.DataArray(draws, dims=("drawn", "target"))).mean("target")
        ends = drawn.quantile(tails, dim="drawn")
        for end, part in (
            ("", values.mean("target")),
            ("_low", ends.isel(quantile=0, drop=True)),
            ("_high", ends.isel(quantile=1, drop=True)),
        ):
            found[name + end] = part.assign_attrs(units="1", long_name=text)
