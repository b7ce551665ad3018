"""Reading modes: cells that share them, modes that are on together, what is shown when they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from scipy.fft import irfft, rfft
from scipy.stats import false_discovery_control

from retina_codec._common.checks import require_count, require_dims
from retina_codec._common.provenance import provenance
from retina_codec._common.time import bin_width_of, runs_of
from retina_codec.modes.loadings import cell_loadings, mean_loadings
from retina_codec.modes.result import Modes
from retina_codec.modes.shift_null import (
    SHORTEST_CIRCLE,
    decorrelation_time,
    make_circles,
    nuisance_basis,
    residuals,
)
from retina_codec.recordings.triggered_average import spike_triggered_average

MOST_CLUSTERS = 8
N_SHUFFLES = 20
N_STARTS = 10


def cluster_cells(
    modes: Modes | xr.DataArray, *, n_clusters: Sequence[int] | None = None, seed: int = 0
) -> xr.Dataset:
    """Group cells that are driven by the same modes.

    k-means of the cells' profiles (mean size of the loading of each mode, as shares of the cell's
    sum), with as many clusters as give the largest mean silhouette (Rousseeuw, J. Comput. Appl.
    Math. 20:53, 1987). Beside it stands what the same search finds when every mode's values are
    shuffled over cells: clusters are to be believed as far as they exceed that.

    Parameters
    ----------
    modes : Modes or DataArray
        Modes of contributions to each cell, loadings (time, ..., cell, mode); or any profile
        (cell, mode), such as ``response_association(...)["r"]``, which is taken as it is.
    n_clusters : sequence of int, optional
        Numbers of clusters to try, by default 2 to 8, and fewer than there are cells.
    seed : int
        Of k-means and of the shuffles.

    Returns
    -------
    Dataset
        `cluster` (cell), numbered from the largest; `silhouette` (cell), -1 to 1;
        `silhouette_score` (n_clusters), the mean for each number tried; `shuffled_score`
        (shuffle), the best mean of each of 20 shuffled profiles; `p_value`, the share of them that
        reach the best score; `profile` (cell, mode); `centre` (cluster, mode).

    Raises
    ------
    TypeError
        If `modes` is of another type, or a number is not whole.
    ValueError
        If there is no dim `cell`, there are fewer than 3 different cells, or a number of clusters
        is not from 2 to one less than the number of cells.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> profile = xr.DataArray(np.repeat(np.eye(2), 4, axis=0), dims=("cell", "mode"))
    >>> profile = profile + np.random.default_rng(0).normal(0, 0.05, (8, 2))
    >>> cluster_cells(profile)["cluster"].values
    array([0, 0, 0, 0, 1, 1, 1, 1])
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_samples

    profile = _profile(modes)
    values = profile.values
    n_cells = len(np.unique(values, axis=0))
    if n_cells < 3:
        raise ValueError(
            f"modes: {n_cells} different cells cannot be clustered; at least 3 are needed"
        )
    tried = range(2, min(MOST_CLUSTERS, n_cells - 1) + 1) if n_clusters is None else n_clusters
    numbers = [require_count(k, 2, "n_clusters") for k in tried]
    if not numbers or max(numbers) >= n_cells:
        raise ValueError(
            f"n_clusters={list(numbers)}; expected numbers from 2 to {n_cells - 1} for {n_cells} "
            "different cells"
        )

    def search(data: np.ndarray) -> tuple[list[float], np.ndarray, np.ndarray]:
        scores, labels, samples = [], [], []
        for k in numbers:
            label = KMeans(k, n_init=N_STARTS, random_state=seed).fit_predict(data)
            found = silhouette_samples(data, label)
            scores.append(float(found.mean()))
            labels.append(label)
            samples.append(found)
        best = int(np.argmax(scores))
        return scores, labels[best], samples[best]

    scores, label, silhouette = search(values)
    rng = np.random.default_rng(seed)
    shuffled = [max(search(rng.permuted(values, axis=0))[0]) for _ in range(N_SHUFFLES)]
    sizes = np.bincount(label)
    # From the largest; among equals, the one that comes first among the cells.
    first = [int(np.argmax(label == k)) for k in range(len(sizes))]
    order = sorted(range(len(sizes)), key=lambda k: (-sizes[k], first[k]))
    cluster = np.argsort(order)[label]
    units = {"units": "1"}
    return xr.Dataset(
        {
            "cluster": ("cell", cluster),
            "silhouette": ("cell", silhouette, units),
            "silhouette_score": ("n_clusters", scores, units),
            "shuffled_score": ("shuffle", shuffled, units),
            "p_value": ((), (1 + sum(s >= max(scores) for s in shuffled)) / (1 + N_SHUFFLES)),
            "profile": (("cell", "mode"), values, units),
            "centre": (
                ("cluster", "mode"),
                np.stack([values[cluster == k].mean(axis=0) for k in range(len(order))]),
                units,
            ),
        },
        coords={
            "n_clusters": numbers,
            **{key: c for key, c in profile.coords.items() if c.dims in (("cell",), ("mode",))},
        },
        attrs={**profile.attrs, **provenance(method="cluster_cells", seed=seed)},
    )


def coactivation(
    modes: Modes | xr.DataArray,
    *,
    threshold: float = 0.0,
    epochs: xr.DataArray | None = None,
    n_draws: int = 2000,
    seed: int = 0,
) -> xr.Dataset:
    """Tell which modes are on together more, or less, often than by chance, and when.

    Loadings of single cells are compared within each cell and counted over all cells. Chance is
    what is left when one mode is shifted against the other within blocks, all cells together, by
    more than the autocorrelation.

    Parameters
    ----------
    modes : Modes or DataArray
        Modes of a movie, or loadings (time, [cell,] ..., mode).
    threshold : float
        A mode is on where the size of its loading is above this.
    epochs : DataArray, optional
        (time,), the label of every sample: when they are on together.
    n_draws : int
        Draws of the null, or a few more.
    seed : int
        Of the draws.

    Returns
    -------
    Dataset
        Over (mode, other): `together`, share of samples in which both are on; `expected`, its mean
        by chance; `lift`, together / expected (1: as by chance; NaN if a mode is never on);
        `p_value` (two-sided), `q_value` (Benjamini and Hochberg over pairs), NaN on the diagonal.
        `n_on` (time[, cell]), number of modes that are on. With `epochs`: `together_in`
        (mode, other, epoch), the share of each kind of epoch in which both are on.

    Raises
    ------
    TypeError
        If `modes` or `epochs` is of another type.
    ValueError
        If dims are missing, times differ, or values are NaN.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from retina_codec import time_coordinate
    >>> on = np.random.default_rng(0).random((2000, 3)) < 0.2
    >>> on[:, 1] = on[:, 0]
    >>> time = time_coordinate(np.arange(2000) * 0.01, 0.01)
    >>> loadings = xr.DataArray(on * 1.0, dims=("time", "mode"), coords={"time": time})
    >>> found = coactivation(loadings)
    >>> found["q_value"].values[0].round(2)[1] < 0.05, found["q_value"].values[0][2] > 0.05
    (np.True_, np.True_)
    """
    loadings = cell_loadings(modes)
    bin_width_of(loadings, "modes")
    n_draws = require_count(n_draws, 100, "n_draws")
    on = (np.abs(loadings.values) > threshold).transpose(1, 2, 0).astype(np.float64)
    n_cells, n_modes, n = on.shape
    blocks = np.zeros(n, dtype=int)
    runs = runs_of(loadings)
    for place, run in enumerate(runs):
        blocks[run] = place
    means = nuisance_basis(np.empty((n, 0)), runs)
    slowest = decorrelation_time(residuals(on.reshape(-1, n), means))
    shortest = 1 + min(slowest, n // 4)
    order, circles = make_circles(blocks, shortest, n)  # all shifts: counts are whole numbers
    turned = on[:, :, order]
    together = np.einsum("cin,cjn->ij", on, on) / (n_cells * n)
    rng = np.random.default_rng(seed)
    drawn = np.zeros((n_modes, n_modes, n_draws))
    for circle in circles:
        length = circle.stop - circle.start
        least = min(shortest, length // SHORTEST_CIRCLE)
        shift = rng.integers(least, max(length - least, least) + 1, size=n_draws) % length
        spectrum = rfft(turned[:, :, circle])
        for i in range(n_modes):
            products = (spectrum[:, [i]] * spectrum.conj()).sum(axis=0)
            drawn[i] += irfft(products, length)[:, shift]
    drawn /= n_cells * n
    expected = drawn.mean(axis=2)
    rounding = 0.5 / (n_cells * n)
    above = (drawn >= together[:, :, None] - rounding).sum(axis=2)
    below = (drawn <= together[:, :, None] + rounding).sum(axis=2)
    p_value = np.minimum(1, 2 * (1 + np.minimum(above, below)) / (1 + n_draws))
    upper = np.triu_indices(n_modes, 1)
    ever = on.any(axis=(0, 2))
    p_value[~(ever[:, None] & ever)] = np.nan
    np.fill_diagonal(p_value, np.nan)
    q_value = np.full(p_value.shape, np.nan)
    of_pairs = p_value[upper]
    tested = np.isfinite(of_pairs)
    if tested.any():
        adjusted = np.full(of_pairs.shape, np.nan)
        adjusted[tested] = false_discovery_control(of_pairs[tested])
        q_value[upper] = adjusted
        q_value.T[upper] = adjusted
    with np.errstate(invalid="ignore", divide="ignore"):
        lift = np.where(expected > rounding, together / expected, np.nan)
    dims, units = ("mode", "other"), {"units": "1"}
    names = loadings["mode"].values if "mode" in loadings.coords else np.arange(n_modes)
    n_on = loadings.isel(mode=0, drop=True).copy(data=on.sum(axis=1).T.astype(int))
    found = xr.Dataset(
        {
            "together": (dims, together, {**units, "long_name": "share of time on together"}),
            "expected": (dims, expected, units),
            "lift": (dims, lift, {**units, "long_name": "on together, relative to chance"}),
            "p_value": (dims, p_value, units),
            "q_value": (dims, q_value, {**units, "long_name": "Benjamini-Hochberg"}),
            "n_on": (n_on if "cell" in loadings.coords else n_on.isel(cell=0)).assign_attrs(units),
        },
        coords={"mode": names, "other": names},
    )
    if epochs is not None:
        epochs = require_dims(epochs, ("time",), "epochs")
        ours = loadings.get_index("time")
        if "time" not in epochs.coords or not ours.isin(epochs.get_index("time")).all():
            raise ValueError(
                "epochs lacks times of the loadings of modes: give the labels of the same movie"
            )
        labels = np.asarray(epochs.sel(time=ours).values, dtype=str)
        kinds = np.unique(labels)
        shares = [
            np.einsum("cin,cjn->ij", part, part) / (n_cells * part.shape[2])
            for part in (on[:, :, labels == name] for name in kinds)
        ]
        found = found.assign_coords(epoch=kinds).assign(
            together_in=((*dims, "epoch"), np.stack(shares, axis=2), units)
        )
    made_by = provenance(method="coactivation", threshold=threshold, n_draws=n_draws, seed=seed)
    return found.assign_attrs({**loadings.attrs, **made_by})


def mode_triggered_average(
    modes: Modes | xr.DataArray, stimulus: xr.DataArray, *, history: int = 40
) -> xr.DataArray:
    """Mean stimulus before moments weighted by a mode's loading, less the mean stimulus.

    What `retina_codec.spike_triggered_average` is for spikes. On natural movies it is blurred by
    the correlations of the stimulus; on white noise it is the mode's linear receptive field.

    Parameters
    ----------
    modes : Modes or DataArray
        Modes of a movie, or loadings (time, ..., mode), averaged over all other dims; not
        negative.
    stimulus : DataArray
        The movie (time, [color,] y, x); all times of the loadings must be there.
    history : int
        Number of lags, in frames.

    Returns
    -------
    DataArray
        (mode, lag, [color,] y, x), in the units of the stimulus; `lag` in seconds, 0 = the frame
        shown at that moment. NaN for a mode that is silent.

    Raises
    ------
    TypeError
        If `modes` or `stimulus` is of another type.
    ValueError
        If dims or times are missing, or a loading is negative.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from retina_codec import stimuli
    >>> movie = stimuli.white_noise(n_frames=2000, shape=(4, 4), seed=0)
    >>> movie[:] = np.random.default_rng(0).normal(size=movie.shape)
    >>> driven = np.maximum(movie[:, 1, 2].shift(time=3, fill_value=0), 0)
    >>> average = mode_triggered_average(driven.expand_dims("mode"), movie, history=6)
    >>> peak = average[0].argmax(...)
    >>> {dim: int(place) for dim, place in peak.items()}
    {'lag': 3, 'y': 1, 'x': 2}
    """
    loadings = mean_loadings(modes)
    movie = require_dims(stimulus, ("time", "color", "y", "x"), "stimulus", optional=("color",))
    if (loadings.values < 0).any():
        raise ValueError(
            "modes: loadings are negative, which a weighted mean cannot take: split them into "
            ".clip(min=0) and (-loadings).clip(min=0)"
        )
    ours = loadings.get_index("time")
    if "time" not in movie.coords or not ours.isin(movie.get_index("time")).all():
        raise ValueError(
            "stimulus lacks times of the loadings of modes: give the movie that they are of"
        )
    # One more "cell", always on where there are loadings, averages the stimulus itself.
    names = loadings["mode"].values if "mode" in loadings.coords else np.arange(loadings.shape[1])
    weight = np.zeros((movie.sizes["time"], len(names) + 1))
    places = movie.get_index("time").get_indexer(ours)
    weight[places, :-1] = loadings.values
    weight[places, -1] = 1
    node = xr.Dataset(
        {"stimulus": movie, "spike_count": (("time", "cell"), weight)},
        coords={"cell": np.arange(len(names) + 1)},
    )
    average = spike_triggered_average(node, history=history).drop_vars("n_spikes")
    difference = (average.isel(cell=slice(-1)) - average.isel(cell=-1, drop=True)).rename(
        cell="mode"
    )
    return (
        difference.assign_coords(mode=names)
        .rename("mode_triggered_average")
        .assign_attrs(
            {
                **loadings.attrs,
                "units": movie.attrs.get("units", "1"),
                "long_name": "stimulus before the mode, less its mean",
                **provenance(method="mode_triggered_average", history=history),
            }
        )
    )


def _profile(modes: Modes | xr.DataArray) -> xr.DataArray:
    """Profile (cell, mode)."""
    if isinstance(modes, xr.DataArray) and set(modes.dims) == {"cell", "mode"}:
        profile = modes.transpose("cell", "mode")
        return profile.fillna(0).astype(np.float64)
    loadings = cell_loadings(modes)
    if "cell" not in (modes.loadings if isinstance(modes, Modes) else modes).dims:
        raise ValueError(
            "modes: the loadings have no dim 'cell': fit modes to contributions to each cell, with "
            "the target Output(), or give a profile (cell, mode)"
        )
    size = abs(loadings).mean("time", keep_attrs=True)
    return (
        (size / size.sum("mode").where(lambda total: total > 0))
        .fillna(0)
        .assign_attrs(loadings.attrs)
    )
