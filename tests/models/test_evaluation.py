"""Scores against plain loops, and where they are undefined."""

import numpy as np
import pytest
import xarray as xr

import retina_codec as rc
from retina_codec._common.time import time_coordinate


class Fixed(rc.models.RetinaModel):
    """A model whose prediction is given."""

    def __init__(self, rate):
        import torch

        super().__init__(
            torch.nn.Identity(),
            history=1,
            bin_width=0.01,
            cells=[str(i) for i in range(rate.shape[1])],
        )
        self.rate = rate

    def predict(self, data, **options):
        return xr.DataArray(
            self.rate, dims=("time", "cell"), coords={"time": data["time"], "cell": self.outputs}
        )


def node_of(counts, seed=0):
    n = counts.shape[-2]
    dims = ("repeat", "time", "cell") if counts.ndim == 3 else ("time", "cell")
    return xr.Dataset(
        {
            "stimulus": (("time", "y", "x"), np.zeros((n, 1, 1))),
            "spike_count": (dims, counts),
        },
        coords={
            "time": time_coordinate(np.arange(n) * 0.01, 0.01),
            "cell": [str(i) for i in range(counts.shape[-1])],
        },
    )


@pytest.fixture
def trials():
    rng = np.random.default_rng(0)
    rate = rng.gamma(2.0, 10.0, size=(400, 3))
    return rate, rng.poisson(rate * 0.01, size=(12, 400, 3))


def test_scores_are_their_definitions(trials):
    rate, counts = trials
    predicted = rate * 0.8 + 5
    scores = rc.evaluate(Fixed(predicted), node_of(counts), n_draws=5)
    for i in range(3):
        expected, observed = predicted[:, i] * 0.01, counts[:, :, i].astype(float)
        psth, n = observed.mean(0), len(observed)
        r = np.corrcoef(expected, psth)[0, 1]
        power = (observed.sum(0).var(ddof=1) - sum(t.var(ddof=1) for t in observed)) / (n * (n - 1))
        noise = observed.var(0, ddof=1).mean()
        fev = 1 - (((observed - expected) ** 2).mean() - noise) / (observed.var() - noise)
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.where(observed > 0, observed * np.log(observed / expected), 0)
            flat = np.where(observed > 0, observed * np.log(observed / observed.mean()), 0)
        deviance = (logs - observed + expected).sum()
        null = (flat - observed + observed.mean()).sum()
        one = scores.isel(cell=i)
        assert float(one.pearson_r) == pytest.approx(r)
        assert float(one.cc_norm) == pytest.approx(r / np.sqrt(power / psth.var(ddof=1)))
        assert float(one.fev) == pytest.approx(fev)
        assert float(one.deviance_explained) == pytest.approx(1 - deviance / null)


def test_the_true_rate_reaches_the_ceiling(trials):
    rate, counts = trials
    scores = rc.evaluate(Fixed(rate), node_of(counts), n_draws=200)
    for name in ("cc_norm", "fev"):
        assert (scores[f"{name}_low"] < 1.02).all()
        assert (scores[f"{name}_high"] > 0.98).all()
    shuffled = rc.evaluate(Fixed(rate[::-1].copy()), node_of(counts), n_draws=200)
    assert (shuffled["cc_norm"] < 0.3).all()


def test_interval_covers_the_correlation_it_estimates():
    """Of many recordings of one cell, about 95 % of the intervals hold the true correlation."""
    covered = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        rate = rng.gamma(2.0, 10.0, size=(1000, 1))
        predicted = rate + rng.normal(0, 10, size=rate.shape)
        counts = (rate * 0.01)[None]
        scores = rc.evaluate(Fixed(predicted), node_of(counts[0]), n_draws=200, seed=seed)
        truth = np.sqrt(200 / 300)  # sd of the rate over that of the prediction
        covered += float(scores.pearson_r_low[0]) <= truth <= float(scores.pearson_r_high[0])
    assert 51 <= covered <= 60


def test_undefined_scores_are_nan_with_the_reason(trials):
    rate, counts = trials
    counts = counts.copy()
    counts[:, :, 1] = 0
    scores = rc.evaluate(Fixed(rate), node_of(counts), n_draws=20)
    assert np.isnan(scores.cc_norm[1])
    assert np.isfinite(scores.cc_norm[[0, 2]]).all()
    assert "no spikes" in scores.cc_norm.attrs["undefined_because"]
    single = rc.evaluate(Fixed(rate), node_of(counts[0]), n_draws=20)
    assert np.isnan(single.cc_norm).all()
    assert np.isnan(single.fev_low).all()
    assert np.isfinite(single.pearson_r[0])
    assert "two repeats" in single.cc_norm.attrs["undefined_because"]


def test_real_recording_ln(real_data):
    """The LN figures of the data's own notes: softplus r, frozen bins 44 to 599."""
    with pytest.warns(UserWarning):
        recording = rc.open_recording(real_data / "ganglion_fullfield_noise")
    model = rc.models.LN.from_spike_triggered_average(recording, history=45)
    scores = rc.evaluate(model, recording["test"], n_draws=20)
    assert scores.attrs["n_bins"] == 556
    r = [0.7920, 0.6866, 0.8837, 0.7626, 0.8486, 0.8684, 0.6414, 0.8066]
    np.testing.assert_allclose(scores.pearson_r, r, atol=0.002)
    cc_norm = [0.801, 0.717, 0.897, 0.771, 0.878, 0.896, 0.656, 0.829]
    np.testing.assert_allclose(scores.cc_norm, cc_norm, atol=0.002)
