"""Scores against plain loops, and where they are undefined."""

import numpy as np
import pytest
import torch
import xarray as xr

import retina_codec as rc
from retina_codec._common.time import time_coordinate
from retina_codec.models.nonlinearities import HistogramNonlinearity


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


@pytest.mark.data
def test_real_recording_histogram_nonlinearity(real_data):
    """The histogram columns of the data's own notes, whose filter is the raw average."""
    with pytest.warns(UserWarning):
        recording = rc.open_recording(real_data / "ganglion_fullfield_noise")
    train, test = recording["train"].to_dataset(), recording["test"].to_dataset()
    raw = rc.spike_triggered_average(train, history=45).values[:, :, 0, 0]
    runs = train["stimulus"].values[:, 0, 0].astype(float).reshape(41, 1800)
    counts = train["spike_count"].values.reshape(41, 1800, 8)[:, 44:].reshape(-1, 8)
    frozen = test["stimulus"].values[:, 0, 0].astype(float)
    psth = test["spike_count"].values.mean(0)[44:]

    def drives(kernels, flicker):
        return np.stack([np.convolve(flicker, k)[44 : len(flicker)] for k in kernels], axis=1)

    def scores(kernels):
        drive = np.concatenate([drives(kernels, run) for run in runs])
        sd = drive.std(0)
        nonlinearity = HistogramNonlinearity(8, 1.0)
        nonlinearity.fit(drive / sd, counts)
        rate = nonlinearity(torch.from_numpy(drives(kernels, frozen) / sd).float())
        return [
            np.corrcoef(a, b)[0, 1] for a, b in zip(rate.detach().numpy().T, psth.T, strict=True)
        ]

    r = [0.801, 0.686, 0.879, 0.772, 0.845, 0.873, 0.660, 0.806]
    np.testing.assert_allclose(scores(raw), r, atol=0.002)
    ceiling = rc.reliability(test, history=45)["cc_max"].values
    cc_norm = [0.810, 0.716, 0.892, 0.781, 0.875, 0.901, 0.675, 0.828]
    np.testing.assert_allclose(scores(raw) / ceiling, cc_norm, atol=0.002)
    # The model takes the mean of the movie out of the average before it filters.
    model = rc.models.LN.from_spike_triggered_average(
        recording, history=45, nonlinearity="histogram"
    )
    found = rc.evaluate(model, recording["test"], n_draws=20)["pearson_r"]
    np.testing.assert_allclose(found, scores(raw - runs.mean()), atol=2e-4)


@pytest.mark.data
def test_real_binary_noise(real_data):
    """LN figures of the data's notes: fitted on the first 80 %, tested on the rest, 40 lags."""
    whole = rc.open_recording(real_data / "ganglion_binary_noise" / "RGCdata.mat")["train"]
    whole = whole.to_dataset()
    assert whole.sizes["time"] == 144051
    first = whole.isel(time=slice(0, 115240))
    last = whole.isel(time=slice(115240 - 39, None))
    expected = {
        "softplus": [0.667, 0.554, 0.769, 0.787],
        "histogram": [0.671, 0.570, 0.771, 0.789],
    }
    for nonlinearity, r in expected.items():
        model = rc.models.LN.from_spike_triggered_average(
            first, history=40, nonlinearity=nonlinearity
        )
        rate = model.predict(last["stimulus"])
        counts = last["spike_count"].sel(time=rate["time"]).values
        assert len(counts) == 28811
        found = [np.corrcoef(rate.values[:, i], counts[:, i])[0, 1] for i in range(4)]
        np.testing.assert_allclose(found, r, atol=0.002, err_msg=nonlinearity)


def test_histogram_nonlinearity_is_linear_between_means():
    rng = np.random.default_rng(0)
    drive = rng.normal(size=(3000, 2))
    counts = np.stack([np.clip(drive[:, 0], 0, None), drive[:, 1] ** 2], axis=1)
    fitted = HistogramNonlinearity(2, 0.5)
    fitted.fit(drive, counts)
    at = np.linspace(-4, 4, 101)
    rate = fitted(torch.from_numpy(np.stack([at, at], 1)).float()).detach().numpy()
    for i in range(2):
        groups = np.array_split(np.argsort(drive[:, i]), 30)
        centres = [drive[g, i].mean() for g in groups]
        means = [counts[g, i].mean() for g in groups]
        np.testing.assert_allclose(rate[:, i], np.interp(at, centres, means) / 0.5, atol=1e-5)
    with pytest.raises(ValueError, match="'histogram' is counted, not trained"):
        rc.models.LN.for_recording(None, nonlinearity="histogram")


def test_a_histogram_model_is_saved_and_loaded(tmp_path):
    model = rc.models.LN((1, 1), history=6, bin_width=0.01, cells=["b"], nonlinearity="histogram")
    again = rc.load_model(model.save(tmp_path / "model"))
    assert again.fingerprint == model.fingerprint
