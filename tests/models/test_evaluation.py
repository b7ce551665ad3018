"""Scores against plain loops, and where they are undefined."""

import numpy as np
import pytest
import torch
import xarray as xr

import retina_codec as rc
from retina_codec._common.time import block_coordinate, time_coordinate
from retina_codec.models import scores as models_scores
from retina_codec.models.comparison import paired_difference
from retina_codec.models.nonlinearities import HistogramNonlinearity
from retina_codec.models.resampling import Resampling
from retina_codec.recordings import noise_ceiling


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
        literal = definitions(predicted[:, i] * 0.01, counts[:, :, i].astype(float))
        for name, value in literal.items():
            assert float(scores[name][i]) == pytest.approx(value), name


def test_the_true_rate_reaches_the_ceiling(trials):
    rate, counts = trials
    scores = rc.evaluate(Fixed(rate), node_of(counts), n_draws=200)
    for name in ("cc_norm", "fev"):
        assert (scores[f"{name}_low"] < 1.02).all()
        assert (scores[f"{name}_high"] > 0.98).all()
    shuffled = rc.evaluate(Fixed(rate[::-1].copy()), node_of(counts), n_draws=200)
    assert (shuffled["cc_norm"] < 0.3).all()


def smooth(rng, n, width=8):
    """A rate with a correlation time of some bins, in Hz."""
    noise = rng.gamma(0.5, 1.0, size=n + width - 1)
    return 20 * np.convolve(noise, np.ones(width) / width, mode="valid")


def rate_array(rate, node, units="Hz"):
    coords = {name: node[name] for name in ("time", "cell", "block") if name in node.coords}
    return xr.DataArray(rate, coords, ("time", "cell"), attrs={"units": units})


def with_blocks(node, lengths):
    return node.assign_coords(block=block_coordinate(np.repeat(range(len(lengths)), lengths)))


def definitions(expected, observed):
    """Scores of one cell by plain formulas: expected (time), observed (repeat, time)."""
    psth, n = observed.mean(0), len(observed)
    r = np.corrcoef(expected, psth)[0, 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(observed > 0, observed * np.log(observed / expected), 0)
        flat = np.where(observed > 0, observed * np.log(observed / observed.mean()), 0)
    deviance = (logs - observed + expected).sum()
    null = (flat - observed + observed.mean()).sum()
    power = (observed.sum(0).var(ddof=1) - sum(t.var(ddof=1) for t in observed)) / (n * (n - 1))
    noise = observed.var(0, ddof=1).mean()
    return {
        "pearson_r": r,
        "cc_norm": r / np.sqrt(power / psth.var(ddof=1)),
        "fev": 1 - (((observed - expected) ** 2).mean() - noise) / (observed.var() - noise),
        "deviance_explained": 1 - deviance / null,
    }


class TestIntervals:
    def test_draws_are_whole_stretches_of_one_run(self):
        runs = [slice(0, 90), slice(90, 120), slice(120, 300)]
        made = Resampling(runs, 0.01, n_draws=2000, shortest_shift=0.4, seed=3)
        weights = made.weights(0, 300)
        np.testing.assert_allclose(weights.sum(1), 1)
        np.testing.assert_array_equal(
            weights[:, 77:210], made.weights(77, 210), err_msg="stretch by stretch"
        )
        np.testing.assert_allclose(weights[0], 1 / 300)
        np.testing.assert_allclose(weights[1], np.repeat([1 / 270, 0, 1 / 270], [90, 30, 180]))
        seen = np.zeros(300)
        for row, starts, lengths in zip(weights[2:], made._starts, made._lengths, strict=True):
            times = np.zeros(300)
            for start, length in zip(starts, lengths, strict=True):
                run = next(run for run in runs if run.start <= start < run.stop)
                assert start + length <= run.stop
                assert length == min(50, run.stop - run.start)
                times[start : start + length] += 1
            np.testing.assert_allclose(row, times / times.sum())
            seen += times
        # Each run gets its share of the bins, also the one that is shorter than a stretch.
        shares = [seen[run].sum() / seen.sum() for run in runs]
        np.testing.assert_allclose(shares, [0.3, 0.1, 0.6], atol=0.01)

    def test_scores_of_a_draw_are_those_of_the_bins_drawn(self, trials):
        rate, counts = trials
        node = with_blocks(node_of(counts), [150, 250])
        scores = rc.evaluate(rate_array(rate * 0.8 + 5, node), node, n_draws=7, keep_draws=True)
        made = Resampling([slice(0, 150), slice(150, 400)], 0.01, 7, 1.0, 0)
        for draw in range(7):
            bins = np.concatenate(
                [
                    np.arange(a, a + n)
                    for a, n in zip(made._starts[draw], made._lengths[draw], strict=True)
                ]
            )
            for i in range(3):
                expected = (rate[bins, i] * 0.8 + 5) * 0.01
                literal = definitions(expected, counts[:, bins, i].astype(float))
                for name, value in literal.items():
                    found = float(scores[f"{name}_draws"][draw, i])
                    assert found == pytest.approx(value), name
        np.testing.assert_allclose(
            scores["fev_high"], np.percentile(scores["fev_draws"], 97.5, axis=0)
        )

    def test_interval_covers_the_correlation_it_estimates(self):
        """Of many recordings of one cell, about 95 % of the intervals hold the true value."""
        covered = 0
        for seed in range(60):
            rng = np.random.default_rng(seed)
            rate = rng.gamma(2.0, 10.0, size=(1000, 1))
            predicted = np.maximum(rate + rng.normal(60, 10, size=rate.shape), 0)
            scores = rc.evaluate(
                Fixed(predicted), node_of(rate * 0.01), n_draws=200, n_shifts=1, seed=seed
            )
            truth = np.sqrt(200 / 300)  # sd of the rate over that of the prediction
            covered += float(scores.pearson_r_low[0]) <= truth <= float(scores.pearson_r_high[0])
        assert 51 <= covered <= 60

    def test_paired_and_normalised_intervals_cover_what_they_estimate(self):
        """Truth: correlations with the rate itself, over a recording of many hours."""
        rng = np.random.default_rng(0)

        def recording(n, n_repeats):
            rate = smooth(rng, n)
            good = rate + 0.5 * smooth(rng, n)
            poor = rate + 1.5 * smooth(rng, n)
            counts = rng.poisson(rate * 0.01, size=(n_repeats, n))
            return rate, good, poor, counts

        rate, good, poor, _ = recording(1_000_000, 1)
        r_good, r_poor = (
            np.corrcoef(rate, good)[0, 1],
            np.corrcoef(rate, poor)[0, 1],
        )
        held = {"cc_norm": 0, "cc_norm_difference": 0}
        widths = []
        for seed in range(60):
            _, good, poor, counts = recording(1500, 20)
            node = node_of(counts[:, :, None])
            found = rc.evaluate(
                rate_array(good[:, None], node),
                node,
                baseline=rate_array(poor[:, None], node),
                n_draws=200,
                n_shifts=1,
                seed=seed,
            ).isel(cell=0)
            for name, truth in (("cc_norm", r_good), ("cc_norm_difference", r_good - r_poor)):
                held[name] += float(found[f"{name}_low"]) <= truth <= float(found[f"{name}_high"])
            widths.append(float(found["cc_norm_difference_high"] - found["cc_norm_difference_low"]))
        # 95 % of 60 is 57; 51 or fewer happen once in 200 times.
        assert all(count >= 52 for count in held.values()), held
        assert 0 < np.median(widths) < 0.25

    def test_intervals_of_what_is_too_short_are_missing(self, trials):
        rate, counts = trials
        scores = rc.evaluate(Fixed(rate[:150]), node_of(counts[:, :150]), n_draws=20)
        assert np.isfinite(scores.pearson_r).all()
        assert np.isnan(scores.pearson_r_low).all() and np.isnan(scores.fev_high).all()
        assert "too short for intervals" in str(scores.reason[0].item())
        assert "no block of 2 s to shift" in str(scores.reason[0].item())
        assert "cc_max" not in str(scores.reason[0].item())


class TestNull:
    @pytest.mark.parametrize("lengths", [[400], [230, 170], [150, 250]])
    def test_null_is_that_of_predictions_rolled_within_blocks(self, trials, lengths):
        rate, counts = trials
        node = with_blocks(node_of(counts), lengths)
        predicted = rate * 0.8 + 5
        scores = rc.evaluate(Fixed(predicted), node, n_draws=5, n_shifts=300, shortest_shift=0.8)
        ends = np.cumsum(lengths)
        runs = [slice(end - n, end) for end, n in zip(ends, lengths, strict=True)]
        used = [run for run in runs if run.stop - run.start >= 160]
        shifts = Resampling(runs, 0.01, 5, 0.8, 0).shifts(300)
        # A single block has only so many shifts.
        assert shifts.shape == {400: (241, 1), 230: (300, 2), 150: (91, 1)}[lengths[0]]
        for i in range(3):
            null = {name: [] for name in ("pearson_r", "cc_norm", "fev", "deviance_explained")}
            observed = np.concatenate([counts[:, run, i] for run in used], axis=1).astype(float)
            for row in shifts:
                assert all(
                    80 <= s <= run.stop - run.start - 80 for s, run in zip(row, used, strict=True)
                )
                rolled = np.concatenate(
                    [np.roll(predicted[run, i], s) for s, run in zip(row, used, strict=True)]
                )
                for name, value in definitions(rolled * 0.01, observed).items():
                    null[name].append(value)
            unmoved = np.concatenate([predicted[run, i] for run in used])
            r = definitions(unmoved * 0.01, observed)["pearson_r"]
            p = (1 + sum(x >= r for x in null["pearson_r"])) / (1 + len(shifts))
            assert float(scores["p_value"][i]) == pytest.approx(p)
            for name, values in null.items():
                assert float(scores[f"{name}_null"][i]) == pytest.approx(np.mean(values))
                high = np.quantile(values, 0.95)
                assert float(scores[f"{name}_null_high"][i]) == pytest.approx(high)

    def test_p_of_unrelated_predictions_is_uniform(self):
        """Smooth signals correlate by chance: a null that ignored that would find too many."""
        rng = np.random.default_rng(1)
        rate = np.stack([smooth(rng, 1000, 40) for _ in range(200)], axis=1)
        other = np.stack([smooth(rng, 1000, 40) for _ in range(200)], axis=1)
        node = node_of(rng.poisson(rate * 0.01))
        p = rc.evaluate(rate_array(other, node), node, n_draws=5)["p_value"].values
        assert 8 <= (p <= 0.1).sum() <= 34
        assert 0.42 < p.mean() < 0.58
        true = rc.evaluate(rate_array(rate, node), node, n_draws=5)["p_value"].values
        assert np.median(true) < 0.05


class TestBaseline:
    def test_the_same_table_from_a_model_its_prediction_and_its_evaluation(self, trials):
        rate, counts = trials
        node = node_of(counts)
        poor = rate + np.random.default_rng(5).gamma(2.0, 10.0, size=rate.shape)
        options = {"n_draws": 40, "seed": 2}
        kept = rc.evaluate(Fixed(poor), node, keep_draws=True, **options)
        tables = [
            rc.evaluate(Fixed(rate), node, baseline=baseline, **options)
            for baseline in (Fixed(poor), rate_array(poor, node)[:, ::-1], kept)
        ]
        for table in tables:
            for name in ("pearson_r", "cc_norm", "fev", "deviance_explained"):
                np.testing.assert_allclose(table[f"{name}_baseline"], kept[name])
                np.testing.assert_allclose(table[f"{name}_baseline_low"], kept[f"{name}_low"])
                np.testing.assert_allclose(table[f"{name}_difference"], table[name] - kept[name])
                ours = rc.evaluate(Fixed(rate), node, keep_draws=True, **options)
                difference = ours[f"{name}_draws"] - kept[f"{name}_draws"]
                low = np.percentile(difference, 2.5, axis=0)
                np.testing.assert_allclose(table[f"{name}_difference_low"], low)
            assert (table["pearson_r_difference_low"] > 0).all()
            assert (table["reason"] == "").all()

    def test_pairing_narrows_the_interval(self, trials):
        rate, counts = trials
        node = node_of(counts)
        near = rate_array(rate + np.random.default_rng(5).gamma(2.0, 3.0, rate.shape), node)
        table = rc.evaluate(Fixed(rate), node, baseline=near, n_draws=200)
        paired = table["pearson_r_difference_high"] - table["pearson_r_difference_low"]
        alone = table["pearson_r_high"] - table["pearson_r_low"]
        assert (paired < 0.7 * alone).all()

    def test_models_of_other_histories_are_scored_on_common_bins(self, trials):
        rate, counts = trials
        node = node_of(counts)
        late = rate_array(rate, node).isel(time=slice(30, None))
        table = rc.evaluate(Fixed(rate + 3), node, baseline=late, n_draws=5)
        assert table.attrs["n_bins"] == 370
        alone = rc.evaluate(late, node, n_draws=5)
        np.testing.assert_allclose(table["pearson_r_baseline"], alone["pearson_r"])
        np.testing.assert_allclose(table["pearson_r_difference"], 0, atol=1e-12)

    def test_paired_difference_is_the_difference_of_evaluations(self, trials):
        rate, counts = trials
        node = node_of(counts)
        poor = rate_array(rate + np.random.default_rng(5).gamma(2.0, 10.0, rate.shape), node)
        found = paired_difference(Fixed(rate), poor, node, n_draws=40)
        table = rc.evaluate(Fixed(rate), node, baseline=poor, n_draws=40)
        for name in ("pearson_r", "cc_norm", "fev", "deviance_explained"):
            np.testing.assert_allclose(found[f"{name}_first"], table[name])
            np.testing.assert_allclose(found[f"{name}_second"], table[f"{name}_baseline"])
            for end in ("", "_low", "_high"):
                np.testing.assert_allclose(
                    found[f"{name}_difference{end}"], table[f"{name}_difference{end}"]
                )
        a = rc.evaluate(Fixed(rate), node, n_draws=40, keep_draws=True)["cc_norm_draws"]
        b = rc.evaluate(poor, node, n_draws=40, keep_draws=True)["cc_norm_draws"]
        low, high = np.percentile((a - b).mean("cell"), [2.5, 97.5])
        assert float(found["mean_cc_norm_difference_low"]) == pytest.approx(low)
        assert float(found["mean_cc_norm_difference_high"]) == pytest.approx(high)
        same = paired_difference(poor, poor, node, n_draws=10)
        assert (same["fev_difference"] == 0).all() and float(same.mean_fev_difference_high) == 0

    def test_a_baseline_that_cannot_be_paired_is_refused(self, trials):
        rate, counts = trials
        node = node_of(counts)
        kept = rc.evaluate(Fixed(rate), node, n_draws=10, keep_draws=True)

        def against(baseline, **options):
            return rc.evaluate(Fixed(rate), node, baseline=baseline, **{"n_draws": 10, **options})

        with pytest.raises(ValueError, match=r"no pearson_r_draws.*keep_draws=True"):
            against(rc.evaluate(Fixed(rate), node, n_draws=10))
        with pytest.raises(ValueError, match=r"with \{'n_draws': 10, 'seed': 0\}; expected"):
            against(kept, seed=1)
        other = rc.evaluate(Fixed(rate), node_of(counts[::-1] + 1), n_draws=10, keep_draws=True)
        with pytest.raises(ValueError, match="other bins, cells or counts"):
            against(other)
        with pytest.raises(ValueError, match=r"baseline has the cells \['0', '1'\]"):
            against(rate_array(rate, node)[:, :2])
        with pytest.raises(TypeError, match="baseline is a dict"):
            against({"LN": kept})


class TestUndefined:
    def test_scores_are_nan_with_the_reason_of_each_cell(self, trials):
        rate, counts = trials
        counts = counts.copy()
        counts[:, :, 1] = 0
        scores = rc.evaluate(Fixed(rate), node_of(counts), n_draws=20)
        assert np.isnan(scores.cc_norm[1])
        assert np.isfinite(scores.cc_norm[[0, 2]]).all()
        reasons = scores["reason"].values
        assert reasons[0] == reasons[2] == ""
        assert reasons[1].startswith("no spikes: pearson_r, pearson_r_low")

    def test_a_single_trial_has_correlation_and_deviance_only(self, trials):
        rate, counts = trials
        for single in (counts[0], counts[:1]):
            scores = rc.evaluate(Fixed(rate), node_of(single), n_draws=20)
            for name in ("cc_norm", "fev", "cc_max", "cc_norm_null", "fev_low", "cc_max_high"):
                assert np.isnan(scores[name]).all()
            for name in ("pearson_r", "deviance_explained_low", "pearson_r_null", "p_value"):
                assert np.isfinite(scores[name]).all()
            assert scores.attrs["n_repeats"] == 1
            reason = str(scores.reason[0].item())
            assert reason.startswith("fewer than two repeats: cc_norm")
            assert ";" not in reason
        r = np.corrcoef(rate[:, 0], counts[0, :, 0])[0, 1]
        assert float(scores.pearson_r[0]) == pytest.approx(r)

    def test_noise_alone_has_no_ceiling(self):
        rng = np.random.default_rng(2)
        node = node_of(rng.poisson(0.2, size=(10, 400, 6)))
        scores = rc.evaluate(Fixed(rng.gamma(1, 10, size=(400, 6))), node, n_draws=50)
        power = rc.reliability(node, n_splits=1)["signal_power"]
        assert (power <= 0).any() and (power > 0).any()
        for cell in range(6):
            reason = str(scores.reason[cell].item())
            assert np.isnan(scores.cc_norm[cell]) == (power[cell] <= 0)
            assert ("signal power is not positive" in reason) == bool(power[cell] <= 0)
            assert np.isnan(scores.cc_norm_low[cell]) == ("cc_norm_low" in reason)

    def test_a_constant_prediction_has_no_correlation(self, trials):
        rate, counts = trials
        flat = np.broadcast_to(counts.mean((0, 1)) / 0.01, rate.shape).copy()
        flat[:, 1] = rate[:, 1]
        scores = rc.evaluate(Fixed(flat), node_of(counts), n_draws=20)
        assert np.isnan(scores.pearson_r[0]) and np.isfinite(scores.pearson_r[1])
        assert float(scores.deviance_explained[0]) == pytest.approx(0, abs=1e-12)
        assert "the prediction does not vary: pearson_r" in str(scores.reason[0].item())

    def test_spikes_where_none_was_expected_have_a_finite_price(self, trials):
        """As if 1e-12 spikes had been expected in the logarithm, and none beside it."""
        rate, counts = trials
        rate = rate.copy()
        rate[::40] = 0
        scores = rc.evaluate(Fixed(rate), node_of(counts), n_draws=20)
        for cell in range(3):
            n, e = counts[:, :, cell].astype(float), rate[:, cell] * 0.01
            in_zero = n[:, ::40].sum()
            assert in_zero > 0
            logs = sum(k * np.log(k) for k in n.ravel() if k) + in_zero * 12 * np.log(10)
            logs -= (n * np.log(np.where(e > 0, e, 1))).sum()
            null = sum(k * np.log(k) for k in n.ravel() if k) - n.sum() * np.log(n.mean())
            expected = 1 - (logs - n.sum() + e.sum() * len(n)) / null
            assert float(scores.deviance_explained[cell]) == pytest.approx(expected)

    @pytest.mark.parametrize("engine", ["h5netcdf"])
    def test_the_table_is_saved_with_its_reasons(self, trials, tmp_path, engine):
        rate, counts = trials
        counts = counts.copy()
        counts[:, :, 2] = 0
        scores = rc.evaluate(Fixed(rate), node_of(counts), n_draws=20)
        scores.to_netcdf(tmp_path / "scores.nc", engine=engine)
        xr.testing.assert_identical(xr.load_dataset(tmp_path / "scores.nc"), scores)


def test_ceiling_is_that_of_the_reliability(trials):
    rate, counts = trials
    node = node_of(counts)
    found = rc.reliability(node, n_splits=1)
    scores = rc.evaluate(Fixed(rate), node, n_draws=5)
    for name in ("cc_max", "cc_max_low", "cc_max_high"):
        np.testing.assert_allclose(scores[name], found[name])
    narrower = rc.evaluate(Fixed(rate), node, n_draws=5, level=0.5)
    assert (narrower["cc_max_low"] > scores["cc_max_low"]).all()


def test_counts_larger_than_memory_are_read_in_stretches(trials, monkeypatch):
    rate, counts = trials
    node = with_blocks(node_of(counts), [150, 250])
    whole = rc.evaluate(Fixed(rate), node, n_draws=20)
    largest = 0
    values = xr.DataArray.values.fget

    def watched(array):
        nonlocal largest
        if array.dims == ("repeat", "time", "cell"):
            largest = max(largest, array.size)
        return values(array)

    monkeypatch.setattr(xr.DataArray, "values", property(watched))
    monkeypatch.setattr(models_scores, "CHUNK_NUMBERS", 12 * 70 * 2)
    monkeypatch.setattr(noise_ceiling, "CHUNK_NUMBERS", 12 * 70 * 2)
    monkeypatch.setattr(models_scores, "CHUNK_BINS", 31)
    monkeypatch.setattr(models_scores, "TOTAL_NUMBERS", 22 * 20 * 2)  # two cells, then one
    lazy = rc.evaluate(Fixed(rate), node.chunk(time=50), n_draws=20)
    assert 0 < largest <= 12 * 140 * 2
    xr.testing.assert_allclose(lazy, whole, rtol=1e-9)
    assert lazy.attrs == whole.attrs


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"n_draws": 0}, ValueError, "n_draws=0"),
        ({"n_shifts": 1.5}, TypeError, "n_shifts=1.5"),
        ({"level": 95}, ValueError, "level=95; expected a number above 0 and below 1"),
        ({"shortest_shift": 0}, ValueError, "shortest_shift=0"),
        ({"seed": -1}, ValueError, "seed=-1"),
    ],
)
def test_bad_settings(trials, change, error, words):
    rate, counts = trials
    with pytest.raises(error, match=words):
        rc.evaluate(Fixed(rate), node_of(counts), **change)


def test_data_that_do_not_fit(trials):
    rate, counts = trials
    node = node_of(counts)
    with pytest.raises(TypeError, match="model is a ndarray; expected a RetinaModel"):
        rc.evaluate(rate, node)
    with pytest.raises(ValueError, match="no variable 'stimulus' to predict from"):
        rc.evaluate(Fixed(rate), node.drop_vars("stimulus"))
    with pytest.raises(ValueError, match="no variable 'spike_count'"):
        rc.evaluate(Fixed(rate), node.drop_vars("spike_count"))
    with pytest.raises(ValueError, match="cells: no cell '2'"):
        rc.evaluate(Fixed(rate), node.isel(cell=[0, 1]))
    with pytest.raises(ValueError, match="model is in 'spikes'; expected rates in 'Hz'"):
        rc.evaluate(rate_array(rate, node, "spikes"), node)
    with pytest.raises(ValueError, match="negative rates"):
        rc.evaluate(rate_array(-rate, node), node)
    with pytest.raises(ValueError, match="400 bins that node does not have, the first at 100 s"):
        late = rate_array(rate, node)
        rc.evaluate(late.assign_coords(time=late["time"] + 100), node)
    with pytest.raises(ValueError, match="node has 1 bins that model predict"):
        rc.evaluate(rate_array(rate, node)[:1], node)
    spoilt = node.assign(spike_count=node["spike_count"].astype(float))
    spoilt["spike_count"][0, 3, 1] = np.nan
    with pytest.raises(ValueError, match=r"node\['spike_count'\] has 1 NaN"):
        rc.evaluate(Fixed(rate), spoilt)


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


def test_a_time_that_starts_anew_is_refused():
    """Predictions are matched by their time: with the same onsets twice they would be mixed up."""
    rng = np.random.default_rng(0)
    onsets = np.tile(np.arange(100) * 0.01, 2)
    node = xr.Dataset(
        {
            "stimulus": (("time", "y", "x"), rng.normal(size=(200, 1, 1)).astype(np.float32)),
            "spike_count": (("time", "cell"), rng.poisson(0.3, (200, 1))),
        },
        coords={
            "time": time_coordinate(onsets, 0.01),
            "block": ("time", np.repeat([0, 1], 100)),
            "cell": ["a"],
        },
    )
    model = rc.models.LN((1, 1), history=4, bin_width=0.01, cells=["a"])
    with pytest.raises(ValueError, match=r"time goes back after bin 99 \(0\.99 to 0 s\)"):
        rc.evaluate(model, node, n_draws=10)
