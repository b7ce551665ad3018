"""Fit modes to contributions."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch

from retina_codec._common.checks import require_at_least, require_choice
from retina_codec._common.provenance import provenance
from retina_codec.modes.autoencoder import Autoencoder
from retina_codec.modes.baselines import fit_nmf, fit_pca
from retina_codec.modes.columns import Contribution, Layout, layout_of, named_arrays, stack
from retina_codec.modes.held_out import held_out_stretches
from retina_codec.modes.result import KINDS, Modes, labelled_modes
from retina_codec.modes.scaling import ColumnScaling
from retina_codec.modes.topk import fit_topk

NOT_YET = ("batch_topk", "jumprelu", "l1", "codec")


def fit_modes(
    contribution: Contribution,
    *,
    features: str | Sequence[str] = ("sign", "channel"),
    n_modes: int = 32,
    autoencoder: str = "topk",
    k: int = 2,
    seed: int = 0,
    max_epochs: int = 200,
    validation_fraction: float = 0.1,
    decoder_bias: bool = False,
    progress: bool = True,
    device: str | torch.device | None = None,
) -> Modes:
    """Find the sparse set of recurring teams of hidden units in their contributions.

    Each column is divided by its root mean square over the training samples, and the signed
    square root is taken. Contiguous stretches of `time` (or `image`), about
    `validation_fraction` of it in up to ten places, are kept out of the fit; they say when to
    stop and are scored (`Modes.score`).

    Parameters
    ----------
    contribution : DataArray, or dict or list of DataArray
        As from `retina_codec.contributions`, in the target's units. The dims in `features` are
        columns, all others samples: ``(time, cell, sign, channel)`` gives loadings
        ``(time, cell, mode)``. The order of dims does not matter. Several layers (by name, or
        numbered in a list) must have the same samples; their columns are put side by side.
    features : str or sequence of str
        Dims that tell hidden units apart.
    n_modes : int
        Number of modes.
    autoencoder : {"topk", "pca", "nmf"}
        ``"topk"``: linear encoder, rectified, of which the `k` strongest modes of every sample
        are kept; unit-norm atoms that start as samples and are revived when unused (Gao et al.,
        arXiv 2406.04093, section 2). ``"pca"`` and ``"nmf"`` (of the positive and negative parts
        side by side) are baselines from scikit-learn.
    k : int
        For ``"topk"``: the largest number of modes active in a sample.
    seed : int
        Of the held-out stretches, the starting values and the order of mini-batches.
    max_epochs : int
        For ``"topk"``: most passes through the training samples; the fit ends earlier when the
        held-out loss stands still at the smallest learning rate.
    validation_fraction : float
        Share of the samples that is held out, above 0 and up to 0.5.
    decoder_bias : bool
        For ``"topk"``: also fit an offset. Without it, silent modes mean no contribution.
    progress : bool
        Show a progress bar.
    device : str or torch.device, optional
        Where ``"topk"`` is fitted; the CPU by default.

    Returns
    -------
    Modes
        Dictionary, loadings and scores, on the CPU.

    Raises
    ------
    TypeError
        If `contribution` is not a DataArray or a collection of them.
    ValueError
        If an argument is out of its range, a dim of `features` is missing, no dim is left for
        samples, values are NaN or all 0, or there are fewer training samples than modes.

    Warns
    -----
    UserWarning
        If columns are constant: they take no part, and their r2 is NaN.

    Examples
    --------
    Two teams of channels, of which one is active at a time:

    >>> import numpy as np
    >>> import xarray as xr
    >>> team = np.array([[1.0, 1, 0, 0], [0, 0, 1, 1]])
    >>> strength = np.eye(2)[np.random.default_rng(0).integers(2, size=500)]
    >>> contribution = xr.DataArray(strength @ team, dims=("time", "channel"))
    >>> modes = fit_modes(contribution, features="channel", n_modes=2, k=1, progress=False)
    >>> (abs(modes.dictionary) > 0.1).astype(int).values.tolist() in ([[1, 1, 0, 0], [0, 0, 1, 1]],
    ... [[0, 0, 1, 1], [1, 1, 0, 0]])
    True
    >>> round(float(modes.score()["mean_r2"]), 2)
    1.0
    """
    names = (features,) if isinstance(features, str) else tuple(features)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"features={names}; expected one or several different dims")
    if autoencoder in NOT_YET:
        raise ValueError(
            f"autoencoder={autoencoder!r} is not in this version; available: {', '.join(KINDS)}"
        )
    require_choice(autoencoder, tuple(KINDS), "autoencoder")
    for argument, number in (("n_modes", n_modes), ("k", k), ("max_epochs", max_epochs)):
        require_at_least(number, 1, argument)
    if autoencoder == "topk" and k > n_modes:
        raise ValueError(f"k={k} is more than n_modes={n_modes}: lower k or raise n_modes")
    if not 0 < validation_fraction <= 0.5:
        raise ValueError(
            f"validation_fraction={validation_fraction}; expected more than 0 and at most 0.5"
        )

    arrays = named_arrays(contribution)
    layout = layout_of(arrays, names)
    matrix, samples = stack(arrays, names)
    held_out = held_out_stretches(samples.shape[0], validation_fraction, seed)
    rows = np.repeat(held_out, len(matrix) // len(held_out))
    training = matrix[~rows]
    _check_training(training, layout, n_modes, autoencoder)
    scaling = ColumnScaling.fit(training)
    scaled = scaling.forward(training)
    fitted: Autoencoder
    if autoencoder == "topk":
        fitted = fit_topk(
            scaled,
            scaling.forward(matrix[rows]),
            n_modes=n_modes,
            k=k,
            seed=seed,
            max_epochs=max_epochs,
            decoder_bias=decoder_bias,
            device=torch.device(device or "cpu"),
            progress=progress,
        )
    elif autoencoder == "pca":
        fitted = fit_pca(scaled, n_modes=n_modes, seed=seed)
    else:
        fitted = fit_nmf(scaled, n_modes=n_modes, seed=seed)
    attrs = provenance(
        method="fit_modes",
        autoencoder=autoencoder,
        features=names,
        n_modes=n_modes,
        k=k if autoencoder == "topk" else None,
        seed=seed,
        max_epochs=max_epochs,
        validation_fraction=validation_fraction,
        decoder_bias=decoder_bias,
        contribution={name: array.attrs for name, array in arrays.items()},
    )
    return labelled_modes(fitted, scaling, layout, samples, matrix, held_out, attrs)


def _check_training(training: np.ndarray, layout: Layout, n_modes: int, autoencoder: str) -> None:
    """Refuse what no autoencoder can be fitted to; warn of constant columns."""
    with_any = int((training != 0).any(axis=1).sum())
    if with_any == 0:
        raise ValueError(
            f"contribution is 0 in all {len(training)} training samples: there is nothing to "
            "fit; check that the target depends on this layer"
        )
    if with_any < n_modes:
        raise ValueError(
            f"contribution has {with_any} training samples that are not 0, fewer than "
            f"n_modes={n_modes}: give more samples or lower n_modes"
        )
    still = training.min(axis=0) == training.max(axis=0)
    if still.all():
        raise ValueError(
            "contribution does not change in any column over the training samples: there is "
            "nothing to fit"
        )
    if still.any():
        warnings.warn(
            f"contribution is constant in {int(still.sum())} of {still.size} columns "
            f"({'; '.join(layout.names[still][:5])}{'; ...' if still.sum() > 5 else ''}): they "
            "take no part in the modes",
            UserWarning,
            stacklevel=3,
        )
    if autoencoder == "pca" and n_modes > training.shape[1]:
        raise ValueError(
            f"n_modes={n_modes}, but 'pca' finds at most one mode for each of the "
            f"{training.shape[1]} columns: lower n_modes"
        )
