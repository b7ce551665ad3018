"""How well a model predicts a recording, and against which ceiling."""

from __future__ import annotations

import numpy as np
import xarray as xr

from retina_codec._common.checks import require_at_least
from retina_codec._common.provenance import provenance
from retina_codec._common.statistics import moving_block_draws, pearson
from retina_codec._common.time import bin_width_of
from retina_codec.models.model import RetinaModel
from retina_codec.recordings import signal_power

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
    >>> import retina_codec as rc
    >>> rc.evaluate(model, recording["test"])  # doctest: +SKIP
    """
    require_at_least(n_draws, 1, "n_draws")
    dataset = node.to_dataset() if isinstance(node, xr.DataTree) else node
    predicted = model.predict(dataset["stimulus"])
    counts = dataset["spike_count"].sel(cell=predicted["cell"], time=predicted["time"])
    repeated = "repeat" in counts.dims
    trials = counts.transpose("repeat", "time", "cell") if repeated else counts.expand_dims(
        "repeat").transpose("repeat", "time", "cell")
    observed = trials.values.astype(np.float64)
    expected = predicted.values.astype(np.float64) * model.bin_width

    n = expected.shape[0]
    block = max(1, round(BLOCK_SECONDS / bin_width_of(predicted, "node")))
    rng = np.random.default_rng(seed)
    draws = np.concatenate([np.arange(n)[None], moving_block_draws(n, block, n_draws, rng)])
    scores = [_scores(expected[draw], observed[:, draw]) for draw in draws]
    tail = 100 * (1 - level) / 2
    variables = {}
    for name, (long_name, needs_repeats) in _SCORES.items():
        values = np.array([score[name] for score in scores])
        reason = "needs at least two repeats; " if needs_repeats and not repeated else ""
        low, high = np.nanpercentile(
            np.where(np.isnan(values).all(0), 0.0, values), [tail, 100 - tail], axis=0
        )
        undefined = np.isnan(values[0])
        for suffix, column in (("", values[0]), ("_low", low), ("_high", high)):
            attrs = {"units": "1", "long_name": long_name}
            if undefined.any():
                attrs["undefined_because"] = reason or "no signal power or no spikes in that cell"
            variables[name + suffix] = (
                "cell", np.where(undefined, np.nan, column), attrs
            )
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


def _scores(expected: np.ndarray, observed: np.ndarray) -> dict[str, np.ndarray]:
    """Scores per cell of expected counts (time, cell) against trials (repeat, time, cell)."""
    mean = observed.mean(0)
    r = pearson(expected, mean)
    undefined = np.full(mean.shape[1], np.nan)
    cc_max = fev = undefined
    with np.errstate(invalid="ignore", divide="ignore"):
        if observed.shape[0] > 1:
            power = signal_power(observed)
            cc_max = np.where(power > 0, np.sqrt(power / mean.var(0, ddof=1)), np.nan)
            noise = observed.var(0, ddof=1).mean(0)
            error = ((observed - expected) ** 2).mean((0, 1))
            total = observed.var((0, 1), ddof=1)
            fev = np.where(total > noise, 1 - (error - noise) / (total - noise), np.nan)
        flat = observed.mean((0, 1))
        gain = (observed * _log(expected) - expected).mean((0, 1)) - (flat * _log(flat) - flat)
        saturated = (observed * _log(observed) - observed).mean((0, 1))
        explained = gain / (saturated - (flat * _log(flat) - flat))
        explained = np.where(flat > 0, explained, np.nan)
    return {
        "pearson_r": r,
        "cc_norm": r / cc_max,
        "cc_max": cc_max,
        "fev": fev,
        "deviance_explained": explained,
    }


def _log(values: np.ndarray) -> np.ndarray:
    """Logarithm with ``0 * log 0 = 0`` in mind."""
    return np.log(np.maximum(values, 1e-12))
