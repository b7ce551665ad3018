"""How well a model predicts a recording, and against which ceiling."""

from __future__ import annotations

import numpy as np
import xarray as xr

from retina_codec._common.checks import require_at_least
from retina_codec._common.provenance import provenance
from retina_codec._common.statistics import moving_block_draws
from retina_codec._common.time import bin_width_of
from retina_codec.models.model import RetinaModel
from retina_codec.recordings.noise_ceiling import power_and_ceiling

# Shorter blocks would cut through the autocorrelation of responses and make intervals too narrow.
BLOCK_SECONDS = 0.5


def evaluate(
    model: RetinaModel,
    node: xr.DataTree | xr.Dataset,
    *,
    n_draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> xr.Dataset:
    """Score a model's predictions on a recording, cell by cell, on raw counts.

    Parameters
    ----------
    model : RetinaModel
        The model.
    node : xarray.DataTree or xarray.Dataset
        stimulus (time, [color,] y, x) and spike_count ([repeat,] time, cell).
    n_draws : int
        Draws of the moving-block bootstrap over time (blocks of half a second).
    level : float
        Coverage of the intervals.
    seed : int
        Of the bootstrap.

    Returns
    -------
    xarray.Dataset
        Over ``cell``, each score with ``_low`` and ``_high``:

        - ``pearson_r``: of the prediction with the mean count over repeats (or the single trial);
        - ``cc_norm``: `pearson_r` over its ceiling ``cc_max = sqrt(SP / Var(mean))`` [1]_;
        - ``fev``: fraction of explainable variance explained,
          ``1 - (MSE_trial - s2) / (Var_trial - s2)``, s2 the variance across repeats;
        - ``deviance_explained``: of Poisson counts, against each cell's mean rate.

        NaN where undefined (no repeats, no signal power, no spikes); attrs say why.

    Raises
    ------
    ValueError
        If the recording does not fit the model.

    References
    ----------
    .. [1] Schoppe et al., Front. Comput. Neurosci. 10 (2016), 10.

    Examples
    --------
    >>> import numpy as np, retina_codec as rc, xarray as xr
    >>> movie = rc.stimuli.white_noise(n_frames=500, shape=(1, 1), seed=0)
    >>> model = rc.models.BNCNN((1, 1), history=8, bin_width=0.01, cells=["a"])
    >>> rate = np.nan_to_num(model.predict(movie).reindex(time=movie.time).values)
    >>> counts = np.random.default_rng(0).poisson(rate * 0.01, size=(20, *rate.shape))
    >>> node = xr.Dataset(
    ...     {"stimulus": movie, "spike_count": (("repeat", "time", "cell"), counts)},
    ...     {"cell": ["a"]},
    ... )
    >>> scores = rc.evaluate(model, node, n_draws=100)
    >>> sorted(str(name) for name in scores if not str(name).endswith(("_low", "_high")))
    ['cc_max', 'cc_norm', 'deviance_explained', 'fev', 'pearson_r']
    """
    require_at_least(n_draws, 1, "n_draws")
    dataset = node.to_dataset() if isinstance(node, xr.DataTree) else node
    predicted = model.predict(dataset["stimulus"])
    counts = dataset["spike_count"].sel(cell=predicted["cell"], time=predicted["time"])
    repeated = "repeat" in counts.dims
    trials = (
        counts.transpose("repeat", "time", "cell")
        if repeated
        else counts.expand_dims("repeat").transpose("repeat", "time", "cell")
    )
    observed = trials.values.astype(np.float64)
    expected = predicted.values.astype(np.float64) * model.bin_width

    n = expected.shape[0]
    block = max(1, round(BLOCK_SECONDS / bin_width_of(predicted, "node")))
    draws = moving_block_draws(n, block, n_draws, np.random.default_rng(seed))
    # A draw is how often it takes each bin; the first row is the data themselves.
    weights = np.stack([np.ones(n), *(np.bincount(draw, minlength=n) for draw in draws)]) / n
    scores = _scores(expected, observed, weights)
    tail = 100 * (1 - level) / 2
    variables = {}
    for name, (long_name, needs_repeats) in _SCORES.items():
        values = scores[name]
        reason = "needs at least two repeats; " if needs_repeats and not repeated else ""
        low, high = np.nanpercentile(
            np.where(np.isnan(values).all(0), 0.0, values), [tail, 100 - tail], axis=0
        )
        undefined = np.isnan(values[0])
        for suffix, column in (("", values[0]), ("_low", low), ("_high", high)):
            attrs = {"units": "1", "long_name": long_name}
            if undefined.any():
                attrs["undefined_because"] = reason or "no signal power or no spikes in that cell"
            variables[name + suffix] = ("cell", np.where(undefined, np.nan, column), attrs)
    return xr.Dataset(
        variables,
        coords={"cell": predicted["cell"]},
        attrs={
            "model_fingerprint": model.fingerprint,
            "n_bins": n,
            "n_repeats": observed.shape[0],
            **provenance(level=level, n_draws=n_draws, block_seconds=BLOCK_SECONDS, seed=seed),
        },
    )


_SCORES = {
    "pearson_r": ("Pearson correlation with the mean count", False),
    "cc_norm": ("correlation over its ceiling", True),
    "cc_max": ("highest correlation any model can reach", True),
    "fev": ("fraction of explainable variance explained", True),
    "deviance_explained": ("Poisson deviance explained", False),
}


def _scores(
    expected: np.ndarray, observed: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Scores (draw, cell) of expected counts (time, cell) against trials (repeat, time, cell).

    Every score is made of means over time, so a draw is one row of `weights` (draw, time).
    """
    n_repeats, n, _ = observed.shape
    mean = observed.mean(0)

    def over_time(values: np.ndarray) -> np.ndarray:
        return weights @ values

    mean_observed, mean_expected = over_time(mean), over_time(expected)
    variance_observed = over_time(mean**2) - mean_observed**2
    variance_expected = over_time(expected**2) - mean_expected**2
    covariance = over_time(mean * expected) - mean_observed * mean_expected
    undefined = np.full(mean_observed.shape, np.nan)
    cc_max = fev = undefined
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.sqrt(variance_observed * variance_expected)
        pearson_r = np.where(scale > 0, covariance / scale, np.nan)
        if n_repeats > 1:
            of_sum = n_repeats**2 * variance_observed * n / (n - 1)
            each = np.stack([over_time(trial) for trial in observed])
            sum_of = (over_time((observed**2).sum(0)) - (each**2).sum(0)) * n / (n - 1)
            _, cc_max = power_and_ceiling(of_sum, sum_of, n_repeats)
            noise = over_time(observed.var(0, ddof=1))
            error = over_time(((observed - expected) ** 2).mean(0))
            total = over_time((observed**2).mean(0)) - mean_observed**2
            fev = np.where(total > noise, 1 - (error - noise) / (total - noise), np.nan)
        flat = mean_observed * _log(mean_observed) - mean_observed
        gain = over_time(mean * _log(expected) - expected) - flat
        best = over_time((observed * _log(observed) - observed).mean(0)) - flat
        explained = np.where(best > 0, gain / best, np.nan)
    return {
        "pearson_r": pearson_r,
        "cc_norm": pearson_r / cc_max,
        "cc_max": cc_max,
        "fev": fev,
        "deviance_explained": explained,
    }


def _log(values: np.ndarray) -> np.ndarray:
    """Logarithm that keeps ``0 * log 0`` at 0."""
    return np.log(np.maximum(values, 1e-12))
