"""Fit modes to contributions."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from retina_codec._common.checks import require_at_least, require_choice, require_count
from retina_codec._common.provenance import provenance
from retina_codec.modes.autoencoder import Autoencoder
from retina_codec.modes.baselines import NMF_ROWS, fit_nmf, fit_pca, fit_pca_to_blocks
from retina_codec.modes.columns import Contribution, Layout, layout_of, named_arrays
from retina_codec.modes.encoding import require_room
from retina_codec.modes.held_out import samples_apart
from retina_codec.modes.network import Settings
from retina_codec.modes.result import KINDS, MEMORY_BUDGET, Modes, NothingActive, labelled_modes
from retina_codec.modes.rows import Rows, Survey, TrainingRows
from retina_codec.modes.scaling import SCALINGS, ColumnScaling
from retina_codec.modes.training import NETWORKS, fit_network

USES_K = ("topk", "batch_topk", "jumprelu")
PENALTIES = {"jumprelu": 4.0, "l1": 0.3, "codec": 1e-4}
MAX_EPOCHS = {"codec": 400}


def fit_modes(
    contribution: Contribution,
    *,
    features: str | Sequence[str] = ("sign", "channel"),
    n_modes: int = 32,
    autoencoder: str = "topk",
    k: float = 2,
    penalty: float | None = None,
    threshold: float = 0.9,
    anneal: float = 0.6,
    scaling: str | None = None,
    unit_norm: bool | None = None,
    non_negative: bool = False,
    decoder_bias: bool = False,
    dictionary: xr.DataArray | None = None,
    seed: int = 0,
    max_epochs: int | None = None,
    learning_rate: float | None = None,
    validation_fraction: float = 0.1,
    store: str | os.PathLike[str] | None = None,
    memory_budget: float = MEMORY_BUDGET,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = True,
    device: str | torch.device | None = None,
) -> Modes:
    """Find the sparse set of recurring teams of hidden units in their contributions.

    Contiguous stretches of `time`, about `validation_fraction` of it in up to ten places, are kept
    out of the fit and scored (`Modes.score`); other stretches as long, a tenth at most, tell the
    fit when to stop. Of `image` they are single images, spread over the whole set: images are
    often sorted by category.

    Parameters
    ----------
    contribution : DataArray, or dict or list of DataArray
        As from `retina_codec.contributions`, in the target's units; or activations, or anything
        else with such dims. The dims in `features` are columns, all others samples: ``(time, cell,
        sign, channel)`` gives loadings ``(time, cell, mode)``. The order of dims does not matter.
        Several layers (by name, or numbered in a list) must have the same samples; their columns
        are put side by side. Lazy arrays (`retina_codec.open_contributions`) are never held whole
        if they are larger than `memory_budget`.
    features : str or sequence of str
        Dims that tell hidden units apart. ``("cell", "channel")`` makes codes of the population.
    n_modes : int
        Number of modes.
    autoencoder : {"topk", "batch_topk", "jumprelu", "l1", "codec", "nmf", "pca"}
        Those with a linear, rectified encoder and atoms that start as samples and are revived when
        unused: ``"topk"`` keeps the `k` strongest modes of every sample (Gao et al., arXiv
        2406.04093, section 2), ``"batch_topk"`` the strongest of all samples together, `k` a
        sample on average (Bussmann et al., arXiv 2412.06410), ``"jumprelu"`` what is above a
        threshold of each mode, fitted to `k` on average (Rajamanoharan et al., arXiv 2407.14435),
        ``"l1"`` all, with `penalty` times their sum in the loss. ``"codec"`` is the autoencoder of
        Melander et al. (arXiv 2603.06557): an encoder of two hidden layers, sigmoid codes of which
        those under `threshold` are 0, and `penalty` times the mean absolute dictionary in the loss.
        ``"nmf"`` (of the positive and negative parts side by side) and ``"pca"`` are baselines
        from scikit-learn.
    k : int or float
        Modes active in a sample: the most (``"topk"``), or their mean (``"batch_topk"``,
        ``"jumprelu"``).
    penalty : float, optional
        Weight of the term that makes it sparse: by default 4 for ``"jumprelu"`` (of
        ``(l0 / k - 1)**2``), 0.3 for ``"l1"``, 1e-4 for ``"codec"``.
    threshold : float
        Of the codes of ``"codec"``, between 0 and 1.
    anneal : float
        Share of ``max_epochs`` over which that threshold rises from 0; 0 fixes it from the start,
        as published, which leaves modes dead that start under it: they get no gradient.
    scaling : {"signed_sqrt", "rms", "std", "none"}, optional
        What is done to columns before, and undone after: division by each column's root mean
        square over the training samples, and then the signed square root; the division alone;
        division of all columns by one standard deviation; nothing. By default ``"std"`` for
        ``"codec"``, as published, else ``"signed_sqrt"``.
    unit_norm : bool, optional
        Hold atoms to unit norm; by default all but those of ``"codec"``.
    non_negative : bool
        Hold the weights of atoms to one sign: not negative, or not positive in columns that are
        nowhere positive (those of the negative parts). With ``scaling="rms"`` the advice for
        contributions split by sign, which add up as such teams do.
    decoder_bias : bool
        Also fit an offset. Without it, silent modes mean no contribution.
    dictionary : DataArray, optional
        (mode, *column dims): atoms that are kept as they are, in transformed units, as in
        ``Modes.dictionary``. Only the encoder is fitted, and `n_modes` is theirs.
    seed : int
        Of the held-out samples, the starting values and the order of mini-batches.
    max_epochs : int, optional
        Most passes through the training samples, by default 200 (``"codec"``: 400); the fit ends
        earlier when the loss on the stretches aside stands still at the smallest learning rate.
        0 leaves the starting values.
    learning_rate : float, optional
        Of Adam at first; by default 5e-3 (``"codec"``: 1e-3). Published for ``"codec"``: 1e-5 to
        5e-5, on far more samples.
    validation_fraction : float
        Share of the samples that is held out, above 0 and up to 0.5.
    store : path, optional
        Zarr store (``.zarr``) that the loadings are written to, for more than memory holds; they
        are then lazy.
    memory_budget : float
        Bytes of contributions (as float32) that are held. More is read in blocks: in random order,
        samples being shuffled within a block.
    checkpoint : path, optional
        File that the state of the fit is written to, every ten seconds or so.
    resume : bool
        Go on from `checkpoint`, if it is there: the same arguments give the same bits as a fit
        that was not interrupted (on the same machine).
    progress : bool
        Show a progress bar.
    device : str or torch.device, optional
        Where all but the baselines are fitted; the CPU by default.

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
        samples, values are NaN or all 0, there are fewer training samples than modes, no mode
        is ever active (a threshold or penalty too high), or loadings would not fit in memory;
        or if `checkpoint` is damaged or of another fit.

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
    require_choice(autoencoder, tuple(KINDS), "autoencoder")
    trained = autoencoder in NETWORKS
    max_epochs = MAX_EPOCHS.get(autoencoder, 200) if max_epochs is None else max_epochs
    require_count(max_epochs, 0, "max_epochs")
    penalty = PENALTIES.get(autoencoder, 0.0) if penalty is None else penalty
    scaling = ("std" if autoencoder == "codec" else "signed_sqrt") if scaling is None else scaling
    require_choice(scaling, SCALINGS, "scaling")
    unit_norm = autoencoder != "codec" if unit_norm is None else unit_norm
    if not 0 < validation_fraction <= 0.5:
        raise ValueError(
            f"validation_fraction={validation_fraction}; expected more than 0 and at most 0.5"
        )

    arrays = named_arrays(contribution)
    layout = layout_of(arrays, names)
    atoms = None
    if dictionary is not None:
        atoms = layout.atoms(dictionary)
        n_modes = len(atoms)
    require_count(n_modes, 1, "n_modes")
    settings = Settings(
        n_modes=n_modes,
        k=k,
        penalty=penalty,
        threshold=threshold,
        anneal=anneal,
        unit_norm=unit_norm,
        non_negative=non_negative,
        decoder_bias=decoder_bias,
    )
    _check_settings(settings, autoencoder, learning_rate, fixed=atoms is not None)
    if resume and checkpoint is None:
        raise ValueError("resume=True without checkpoint=: name the file to go on from")
    rows = Rows(arrays, names, memory_budget)
    require_room(rows, n_modes, store)
    held_out, aside = samples_apart(
        rows.samples.dims[0], rows.n_first, validation_fraction, seed, aside=trained
    )
    training = ~held_out & ~aside
    survey = Survey.of(rows, training)
    _check_training(survey, layout, n_modes, autoencoder)
    fitted_scaling = ColumnScaling.fit(survey, scaling)
    about = {
        "autoencoder": autoencoder,
        "features": names,
        "n_modes": n_modes,
        "k": k if autoencoder in USES_K else None,
        "penalty": penalty if autoencoder in PENALTIES else None,
        "threshold": threshold if autoencoder == "codec" else None,
        "anneal": anneal if autoencoder == "codec" else None,
        "scaling": scaling,
        "unit_norm": unit_norm if trained else None,
        "non_negative": non_negative,
        "decoder_bias": decoder_bias,
        "dictionary": "given" if atoms is not None else None,
        "seed": seed,
        "max_epochs": max_epochs if trained else None,
        "learning_rate": learning_rate,
        "validation_fraction": validation_fraction,
        # How much is held decides the order of samples.
        "block": rows.step if trained and not rows.held else None,
        "contribution": {name: array.attrs for name, array in arrays.items()},
    }
    fitted: Autoencoder
    if trained:
        fitted = fit_network(
            autoencoder,
            TrainingRows(rows, fitted_scaling, training, aside, survey.signs),
            settings,
            seed=seed,
            max_epochs=max_epochs,
            learning_rate=learning_rate,
            device=torch.device(device or "cpu"),
            checkpoint=None if checkpoint is None else Path(checkpoint),
            resume=resume,
            identity=_identity(about, survey, atoms),
            dictionary=atoms,
            progress=progress,
        )
    elif autoencoder == "nmf":
        fitted = fit_nmf(
            fitted_scaling.forward(rows.spaced(training, NMF_ROWS)), n_modes=n_modes, seed=seed
        )
    elif rows.held:
        whole = next(rows.blocks(training))
        fitted = fit_pca(fitted_scaling.forward(whole), n_modes=n_modes, seed=seed)
    else:
        blocks = (fitted_scaling.forward(block) for block in rows.blocks(training))
        fitted = fit_pca_to_blocks(blocks, n_modes=n_modes)
    attrs = provenance(method="fit_modes", **about)
    try:
        return labelled_modes(fitted, fitted_scaling, layout, rows, held_out, aside, attrs, store)
    except NothingActive as error:
        raise ValueError(_why_silent(autoencoder, settings)) from error


def _check_settings(
    settings: Settings, autoencoder: str, learning_rate: float | None, *, fixed: bool
) -> None:
    k, n_modes = settings.k, settings.n_modes
    if autoencoder == "topk":
        require_count(k, 1, "k")
    elif not k > 0:
        raise ValueError(f"k={k!r}; expected a mean number of active modes above 0")
    if autoencoder in USES_K and k > n_modes:
        raise ValueError(f"k={k} is more than n_modes={n_modes}: lower k or raise n_modes")
    require_at_least(settings.penalty, 0, "penalty")
    if not 0 <= settings.threshold < 1:
        raise ValueError(
            f"threshold={settings.threshold!r}; expected a number from 0 to below 1, the codes' "
            "largest value"
        )
    if not 0 <= settings.anneal <= 1:
        raise ValueError(f"anneal={settings.anneal!r}; expected a share of the training, 0 to 1")
    if learning_rate is not None and not learning_rate > 0:
        raise ValueError(f"learning_rate={learning_rate!r}; expected a number above 0")
    if autoencoder == "l1" and not settings.unit_norm:
        raise ValueError(
            "unit_norm=False with autoencoder='l1': the penalty on loadings would only make "
            "atoms longer; leave unit_norm=True"
        )
    if autoencoder not in NETWORKS:
        for name, given in (
            ("dictionary", fixed),
            ("non_negative", settings.non_negative),
        ):
            if given:
                raise ValueError(
                    f"{name} is not for the baseline {autoencoder!r}; those that take it: "
                    f"{', '.join(NETWORKS)}"
                )


def _why_silent(autoencoder: str, settings: Settings) -> str:
    said = f"autoencoder={autoencoder!r}: no mode is active in any sample: "
    if autoencoder == "codec":
        return said + (
            f"threshold={settings.threshold} with anneal={settings.anneal} kills every code; "
            "anneal it (anneal=0.6), lower it, or train longer"
        )
    return said + (
        f"penalty={settings.penalty} and k={settings.k} leave nothing worth its cost; lower "
        "penalty or raise k"
    )


def _identity(about: dict[str, Any], survey: Survey, atoms: np.ndarray | None) -> str:
    """Digest of what must be the same for a fit to go on where another one stopped."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=repr).encode())
    for array in (survey.least, survey.most, survey.squares, survey.mean, survey.first, atoms):
        if array is not None:
            digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(str(survey.n).encode())
    return digest.hexdigest()


def _check_training(survey: Survey, layout: Layout, n_modes: int, autoencoder: str) -> None:
    """Refuse what no autoencoder can be fitted to; warn of constant columns."""
    if survey.n_with_any == 0:
        raise ValueError(
            f"contribution is 0 in all {survey.n} training samples: there is nothing to "
            "fit; check that the target depends on this layer"
        )
    if survey.n_with_any < n_modes:
        raise ValueError(
            f"contribution has {survey.n_with_any} training samples that are not 0, fewer than "
            f"n_modes={n_modes}: give more samples or lower n_modes"
        )
    still = survey.still
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
    if autoencoder == "pca" and n_modes > survey.still.size:
        raise ValueError(
            f"n_modes={n_modes}, but 'pca' finds at most one mode for each of the "
            f"{survey.still.size} columns: lower n_modes"
        )
