"""How well modes come back when the fit is repeated, and what all repetitions agree on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from retina_codec._common.checks import require_choice
from retina_codec._common.provenance import provenance
from retina_codec.modes.columns import SINGLE, Contribution, named_arrays
from retina_codec.modes.fit import fit_modes
from retina_codec.modes.matching import UNMATCHED, match_modes
from retina_codec.modes.result import Modes
from retina_codec.modes.surrogates import phase_shuffled
from retina_codec.modes.training import NETWORKS

CONTROLS = ("untrained", "phase_shuffled")
COSINE = {"units": "1", "long_name": "cosine of matched atoms"}


def stability(
    contribution: Contribution,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    halves: bool = True,
    controls: Sequence[str] = CONTROLS,
    **options: Any,
) -> xr.Dataset:
    """How well each mode comes back when the fit is repeated, beside what chance brings back.

    Parameters
    ----------
    contribution : DataArray, or dict or list of DataArray
        As for `fit_modes`.
    seeds : sequence of int
        The first gives the modes that are looked for, the others the refits. A seed changes the
        held-out samples, the starting values and the order of mini-batches.
    halves : bool
        Also fit to the first and to the second half of the recording (of images: to every other
        one, and to the rest), with the first seed.
    controls : sequence of {"untrained", "phase_shuffled"}
        What the stability is to be judged beside: the same comparison over seeds of dictionaries
        as they are before the fit (atoms start as samples, which are alike to begin with), and of
        fits to contributions whose columns have each been given random phases of their own, block
        by block: each keeps its spectrum, and teams are gone (of images: an order of its own).
        With ``non_negative`` atoms, its values too, and with them their sign; where columns are
        sparse, those of independent ones come back well, each atom being one column.
    **options
        Other arguments of `fit_modes`.

    Returns
    -------
    Dataset
        `cosine` (mode, seed), of each mode with its partner in each refit (`match_modes`), and
        `stability` (mode), their median; `half_cosine` (mode, half) and `half_stability` (mode);
        `control_cosine` (control, mode, seed) and `control_stability` (control, mode), whose modes
        are the controls' own. Modes that were never active are NaN.

    Raises
    ------
    TypeError, ValueError
        As `fit_modes`; ValueError if there are fewer than two different seeds, or a control is
        not known (``"untrained"`` is not for the baselines, which have no starting values).

    Examples
    --------
    >>> import numpy as np
    >>> import xarray as xr
    >>> strength = np.eye(3)[np.random.default_rng(0).integers(3, size=600)]
    >>> contribution = xr.DataArray(strength, dims=("time", "channel"))
    >>> stability(
    ...     contribution, seeds=(0, 1), controls=(), features="channel", n_modes=3, k=1,
    ...     progress=False,
    ... ).stability.round(2).values
    array([1., 1., 1.])
    """
    seeds = _checked_seeds(seeds)
    for control in controls:
        require_choice(control, CONTROLS, "controls")
    kind = options.get("autoencoder", "topk")
    if "untrained" in controls and kind in ("pca", "nmf"):
        controls = tuple(control for control in controls if control != "untrained")
    arrays = _plain(contribution)
    options = without_files(options)
    reference = fit_modes(arrays, seed=seeds[0], **options)
    found = _over_seeds(reference, arrays, seeds, options)
    results = {
        "cosine": found,
        "stability": found.median("seed").assign_attrs(
            units="1", long_name="median cosine over refits"
        ),
    }
    if halves:
        alive = reference.loadings["active_fraction"] > 0
        of_halves = [
            match_modes(reference, fit_modes(half, seed=seeds[0], **options))["cosine"]
            for half in _halves(arrays, reference)
        ]
        half_cosine = xr.concat(of_halves, dim="half").assign_coords(half=["first", "second"])
        half_cosine = half_cosine.transpose("mode", "half").where(alive)
        results["half_cosine"] = half_cosine.assign_attrs(COSINE)
        results["half_stability"] = half_cosine.median("half").assign_attrs(
            units="1", long_name="median cosine over halves"
        )
    of_controls = []
    for control in controls:
        data, changed = arrays, options
        if control == "untrained":
            changed = {**options, "max_epochs": 0}
        else:
            data = _plain(
                phase_shuffled(
                    arrays,
                    features=reference._layout.features,
                    seed=seeds[0],
                    # Atoms of one sign cannot describe columns that have lost theirs.
                    keep_values=bool(options.get("non_negative")),
                )
            )
        of_controls.append(
            _over_seeds(fit_modes(data, seed=seeds[0], **changed), data, seeds, changed)
        )
    if of_controls:
        control_cosine = xr.concat(of_controls, dim="control")
        control_cosine = control_cosine.assign_coords(control=list(controls))
        results["control_cosine"] = control_cosine.assign_attrs(COSINE)
        results["control_stability"] = control_cosine.median("seed").assign_attrs(
            units="1", long_name="median cosine over refits, of controls"
        )
    about = provenance(method="stability", seeds=seeds, halves=halves, **options)
    return xr.Dataset(results, attrs={**reference.attrs, **about})


def consensus_modes(
    contribution: Contribution,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    min_stability: float = 0.8,
    **options: Any,
) -> Modes:
    """Fit with several seeds, and keep what they agree on.

    The fit whose modes come back best in the others is the reference. Its modes are matched in
    each of the others (`match_modes`); those whose median cosine is at least `min_stability` are
    averaged over the fits, as unit vectors that keep the reference's length, and the encoder is
    fitted anew to these fixed atoms.

    Parameters
    ----------
    contribution : DataArray, or dict or list of DataArray
        As for `fit_modes`.
    seeds : sequence of int
        One fit each.
    min_stability : float
        Least median cosine of a mode with its partners.
    **options
        Other arguments of `fit_modes`; not for the baselines.

    Returns
    -------
    Modes
        As from `fit_modes`, with the coordinate `stability` on `mode` of `dictionary` and
        `loadings`. There are as many modes as agreed.

    Raises
    ------
    TypeError, ValueError
        As `fit_modes`; ValueError if no mode comes back, or there are fewer than two seeds.

    Examples
    --------
    >>> import numpy as np
    >>> import xarray as xr
    >>> strength = np.eye(3)[np.random.default_rng(0).integers(3, size=600)]
    >>> contribution = xr.DataArray(strength, dims=("time", "channel"))
    >>> modes = consensus_modes(
    ...     contribution, seeds=(0, 1), features="channel", n_modes=3, k=1, progress=False
    ... )
    >>> modes.loadings.sizes["mode"]
    3
    """
    seeds = _checked_seeds(seeds)
    require_choice(options.get("autoencoder", "topk"), tuple(NETWORKS), "autoencoder")
    arrays = _plain(contribution)
    fits = [fit_modes(arrays, seed=seed, **without_files(options)) for seed in seeds]
    cosines, partners = [], []
    for one in fits:
        matches = [match_modes(one, other) for other in fits if other is not one]
        alive = (one.loadings["active_fraction"] > 0).values
        cosine = np.stack([match["cosine"].values for match in matches])
        cosines.append(np.where(alive, np.nan_to_num(np.median(cosine, axis=0), nan=-1.0), -1.0))
        partners.append([match["matched"].values for match in matches])
    agreed = [np.sort(cosine)[::-1].clip(min=0).sum() for cosine in cosines]
    best = int(np.argmax(agreed))
    kept = np.flatnonzero(cosines[best] >= min_stability)
    if not kept.size:
        raise ValueError(
            f"no mode reaches min_stability={min_stability} over seeds={seeds}: the best has "
            f"{cosines[best].max():.2f}; fit fewer modes, give more samples, or lower it"
        )
    others = [one for one in fits if one is not fits[best]]
    atoms = _rows(fits[best])[kept]
    lengths = np.linalg.norm(atoms, axis=1, keepdims=True)
    total = _unit(atoms)
    for other, matched in zip(others, partners[best], strict=True):
        chosen = matched[kept]
        total = total + np.where(
            (chosen != UNMATCHED)[:, None], _unit(_rows(other))[np.maximum(chosen, 0)], 0
        )
    reference = fits[best].dictionary
    mean = reference.isel(mode=kept).copy(
        data=(lengths * _unit(total)).reshape(kept.size, *reference.shape[1:]).astype(np.float32)
    )
    modes = fit_modes(
        arrays,
        seed=seeds[best],
        dictionary=mean,
        **{**options, "k": min(options.get("k", 2), kept.size)},
    )
    # The fit orders modes by their energy.
    placed = match_modes(modes.dictionary, mean.assign_coords(mode=np.arange(kept.size)))
    stability_of = cosines[best][kept][placed["matched"].values]
    return modes.annotated(
        "stability",
        stability_of,
        {"units": "1", "long_name": "median cosine over seeds"},
        provenance(
            method="consensus_modes",
            seeds=seeds,
            min_stability=min_stability,
            fit=modes.attrs["parameters"],
        ),
    )


def _over_seeds(
    reference: Modes, arrays: Contribution, seeds: Sequence[int], options: Mapping[str, Any]
) -> xr.DataArray:
    """Cosine (mode, seed) of the reference's modes with those of fits with the other seeds."""
    cosines = [
        match_modes(reference, fit_modes(arrays, seed=seed, **options))["cosine"]
        for seed in seeds[1:]
    ]
    cosine = xr.concat(cosines, dim="seed").assign_coords(seed=list(seeds[1:]))
    alive = reference.loadings["active_fraction"] > 0
    return (
        cosine.transpose("mode", "seed").where(alive).reset_coords(drop=True).assign_attrs(COSINE)
    )


def _checked_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    seeds = tuple(seeds)
    if len(set(seeds)) < 2 or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds={seeds}; expected at least two, all different")
    return seeds


def _plain(contribution: Contribution) -> Contribution:
    """Layers by name; an array that was given alone, alone."""
    arrays = named_arrays(contribution)
    return arrays[SINGLE] if list(arrays) == [SINGLE] else arrays


def _halves(contribution: Contribution, reference: Modes) -> list[Contribution]:
    first = str(reference.score()["held_out"].dims[0])
    arrays = named_arrays(contribution)
    middle = next(iter(arrays.values())).sizes[first] // 2
    parts = (slice(None, middle), slice(middle, None))
    if first == "image":  # often sorted by category: every other one
        parts = (slice(0, None, 2), slice(1, None, 2))
    return [_plain({name: a.isel({first: part}) for name, a in arrays.items()}) for part in parts]


def _rows(modes: Modes) -> np.ndarray:
    dictionary = modes.dictionary.values
    return dictionary.reshape(len(dictionary), -1).astype(np.float64)


def _unit(rows: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1)


def without_files(options: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the files that one fit writes and several cannot share."""
    return {k: v for k, v in options.items() if k not in ("store", "checkpoint", "resume")}
