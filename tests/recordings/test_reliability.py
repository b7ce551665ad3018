"""Reliability against a slow literal loop, and where it is undefined."""

import numpy as np
import pytest
import xarray as xr

from retina_codec._common.time import time_coordinate
from retina_codec.recordings import noise_ceiling, reliability


def driven(n_repeats=11, n_bins=300, n_cells=3, seed=0):
    """Poisson counts of cells with a common drive, rates in spikes per bin of 10 ms."""
    rng = np.random.default_rng(seed)
    rates = rng.gamma(2.0, 0.3, size=(n_bins, n_cells))
    counts = rng.poisson(rates, size=(n_repeats, n_bins, n_cells))
    data = xr.Dataset(
        {"spike_count": (("repeat", "time", "cell"), counts.astype(np.uint8))},
        coords={
            "time": time_coordinate(np.arange(n_bins) * 0.01, 0.01),
            "cell": [f"C{i}" for i in range(n_cells)],
        },
    )
    return data, rates


def signal_power(r):
    n = len(r)
    return (np.var(r.sum(0), ddof=1) - sum(np.var(row, ddof=1) for row in r)) / (n * (n - 1))


def cc_max(r):
    return np.sqrt(signal_power(r) / np.var(r.mean(0), ddof=1))


def jackknife(function, r):
    n = len(r)
    left = np.array([function(np.delete(r, i, axis=0)) for i in range(n)])
    return np.sqrt((n - 1) / n * np.sum((left - left.mean()) ** 2))


def explainable_variance(r):
    return signal_power(r) / np.mean([np.var(row, ddof=1) for row in r])


def pair_r(r):
    return np.mean([corr(r[i], r[j]) for i in range(len(r)) for j in range(i)])


def corr(a, b):
    return np.corrcoef(a, b)[0, 1]


@pytest.mark.parametrize("history", [1, 45])
@pytest.mark.parametrize("n_repeats", [10, 11])
def test_against_a_literal_loop(history, n_repeats):
    data, _ = driven(n_repeats)
    found = reliability(data, history=history)
    half = n_repeats // 2
    for cell in data["cell"].values:
        r = data["spike_count"].sel(cell=cell).values[:, history - 1 :].astype(float)
        pairs = [corr(r[i], r[j]) for i in range(n_repeats) for j in range(i)]
        rng = np.random.default_rng(99)
        splits = []
        for _ in range(1000):
            order = rng.permutation(n_repeats)
            splits.append(corr(r[order[:half]].mean(0), r[order[half : 2 * half]].mean(0)))
        one = found.sel(cell=cell)
        expected = {
            "signal_power": signal_power(r),
            "cc_max": cc_max(r),
            "signal_power_se": jackknife(signal_power, r),
            "cc_max_se": jackknife(cc_max, r),
            "explainable_variance": explainable_variance(r),
            "pair_r": np.mean(pairs),
            "odd_even_r": corr(r[::2].mean(0), r[1::2].mean(0)),
            "mean_rate": r.mean() / 0.01,
        }
        for name, value in expected.items():
            assert float(one[name]) == pytest.approx(value, rel=1e-9), name
        # random splits differ: within five standard errors of the slow loop's mean
        error = np.std(splits) / np.sqrt(1000)
        assert float(one["split_half_r"]) == pytest.approx(np.mean(splits), abs=8 * error)
        split = float(one["split_half_r"])
        assert float(one["spearman_brown"]) == pytest.approx(2 * split / (1 + split))
        assert float(one["ceiling"]) == pytest.approx(np.sqrt(2 * split / (1 + split)))
        assert one["reason"] == ""


@pytest.mark.parametrize(("n_repeats", "t"), [(10, 2.2621571627409915), (11, 2.2281388519649385)])
def test_intervals_leave_out_each_repeat(n_repeats, t):
    data, _ = driven(n_repeats, n_cells=2)
    found = reliability(data, n_splits=25, seed=3)
    first, second = noise_ceiling._random_halves(n_repeats, 25, np.random.default_rng(3))
    for cell in data["cell"].values:
        r = data["spike_count"].sel(cell=cell).values.astype(float)

        pairs = list(zip(first, second, strict=True))

        def split_half(kept, r=r, pairs=pairs):
            halves = [(a[kept] @ r[kept], b[kept] @ r[kept]) for a, b in pairs]
            return np.mean([corr(a, b) for a, b in halves])

        left = [np.delete(np.arange(n_repeats), i) for i in range(n_repeats)]
        splits = np.array([split_half(kept) for kept in left])
        expected = {
            name: np.array([function(r[kept]) for kept in left])
            for name, function in (
                ("cc_max", cc_max),
                ("signal_power", signal_power),
                ("explainable_variance", explainable_variance),
                ("pair_r", pair_r),
            )
        }
        expected |= {
            "split_half_r": splits,
            "spearman_brown": 2 * splits / (1 + splits),
            "ceiling": np.sqrt(2 * splits / (1 + splits)),
        }
        one = found.sel(cell=cell)
        for name, values in expected.items():
            error = np.sqrt((n_repeats - 1) * values.var())
            centre = float(one[name])
            low, high = centre - t * error, centre + t * error
            if name != "signal_power":
                high = min(high, 1)
            assert float(one[f"{name}_low"]) == pytest.approx(low, rel=1e-9), name
            assert float(one[f"{name}_high"]) == pytest.approx(high, rel=1e-9), name


def test_intervals_cover_the_truth():
    n_repeats, n_cells = 12, 400
    data, rates = driven(n_repeats, 200, n_cells, seed=7)
    found = reliability(data, n_splits=50)
    power, noise = rates.var(axis=0, ddof=1), rates.mean(axis=0)  # Poisson: variance = mean
    truth = {
        "signal_power": power,
        "explainable_variance": power / (power + noise),
        "pair_r": power / (power + noise),
        "cc_max": np.sqrt(power / (power + noise / n_repeats)),
        "ceiling": np.sqrt(power / (power + noise / n_repeats)),
    }
    for name, value in truth.items():
        inside = (found[f"{name}_low"] <= value) & (value <= found[f"{name}_high"])
        assert abs(int(inside.sum()) - 380) <= 4 * np.sqrt(400 * 0.95 * 0.05), name
        np.testing.assert_allclose(found[name].mean(), value.mean(), rtol=0.01, err_msg=name)


@pytest.mark.parametrize("numbers", [2**22, 700])
def test_counts_are_read_in_stretches(monkeypatch, numbers):
    data, _ = driven()
    whole = reliability(data, history=7)
    monkeypatch.setattr(noise_ceiling, "CHUNK_NUMBERS", numbers)
    for chunks in ({"time": 37}, {"repeat": 2, "cell": 1}, {"time": -1}):
        lazy = data.chunk(chunks)
        xr.testing.assert_identical(reliability(lazy, history=7), whole)
        assert lazy["spike_count"].chunks


def test_with_two_repeats_every_split_is_the_pair():
    data, _ = driven(2)
    found = reliability(data, n_splits=7)
    np.testing.assert_allclose(found["split_half_r"], found["pair_r"])
    np.testing.assert_allclose(found["odd_even_r"], found["pair_r"])
    assert np.isfinite(found["signal_power"]).all()
    assert np.isnan(found["signal_power_se"]).all()
    assert found["reason"].values[0].startswith("fewer than three repeats: cc_max_se")
    three = reliability(driven(3)[0])
    assert np.isfinite(three["cc_max_low"]).all() and np.isnan(three["ceiling_low"]).all()
    assert three["reason"].values[0].startswith("fewer than four repeats: split_half_r_low")


def test_signal_power_finds_the_variance_of_the_true_rate():
    data, rates = driven(60, 4000, 2)
    found = reliability(data)
    np.testing.assert_allclose(found["signal_power"], rates.var(axis=0, ddof=1), rtol=0.05)
    mean = data["spike_count"].mean("repeat").values
    truth = [corr(mean[:, i], rates[:, i]) for i in range(2)]
    np.testing.assert_allclose(found["cc_max"], truth, atol=0.005)


def test_the_seed_decides_the_splits():
    data, _ = driven()
    a, b, c = (reliability(data, seed=seed, n_splits=20)["split_half_r"] for seed in (1, 1, 2))
    assert (a.values == b.values).all()
    assert (a.values != c.values).any()


def test_dim_order_does_not_matter():
    data, _ = driven()
    xr.testing.assert_identical(
        reliability(data.transpose("cell", "time", "repeat")), reliability(data)
    )


def test_blocks_lose_their_first_bins_each():
    data, _ = driven()
    data = data.assign_coords(block=("time", np.repeat([0, 1], 150)))
    keep = np.r_[4:150, 154:300]
    expected = reliability(data.drop_vars("block").isel(time=keep))
    found = reliability(data, history=5)
    np.testing.assert_allclose(found["cc_max"], expected["cc_max"])
    assert found.attrs["n_bins"] == 292


def test_undefined_numbers_say_why():
    data, _ = driven(6, 200, 4)
    counts = data["spike_count"].values.copy()
    counts[:, :, 0] = 0  # silent
    counts[:, :, 1] = 0
    counts[0, 20, 1] = 1  # one spike in all
    counts[:, :, 2] = np.random.default_rng(9).permuted(counts[:, :, 2], axis=1)  # no drive
    found = reliability(data.assign(spike_count=(("repeat", "time", "cell"), counts)))
    assert found["reason"].values[0] == "no spikes"
    assert found["mean_rate"].values[0] == 0
    assert np.isnan(found["cc_max"].values[:2]).all()
    assert np.isnan(found["explainable_variance"].values[:2]).all()
    assert "signal power is not positive" in found["reason"].values[1]
    assert found["reason"].values[3] == ""
    for i, cell in enumerate(found["cell"].values):
        for name in found.data_vars:
            if name != "reason" and np.isnan(found[name].values[i]) and i != 0:
                assert name in str(found["reason"].sel(cell=cell).values)


def test_one_repeat_is_no_repeat():
    data, _ = driven(1)
    found = reliability(data)
    assert (found["reason"] == "fewer than two repeats").all()
    assert np.isnan(found["signal_power"]).all()
    assert np.isfinite(found["mean_rate"]).all()


def test_bad_input(make_node):
    with pytest.raises(ValueError, match=r"no dim 'repeat'; .*recording\['test'\]"):
        reliability(make_node())
    with pytest.raises(TypeError, match="node is a ndarray"):
        reliability(np.zeros(3))
    tree = xr.DataTree.from_dict({"/train": make_node(), "/test": make_node(n_repeats=3)})
    with pytest.raises(ValueError, match=r"it is a tree: give one of its nodes, \['train'\]"):
        reliability(tree)
    with pytest.raises(ValueError, match="history=61 leaves 0 of the 110 bins"):
        reliability(make_node(n_repeats=3), history=61)
    with pytest.raises(TypeError, match=r"history=1\.5; expected a whole number"):
        reliability(make_node(n_repeats=3), history=1.5)
    with pytest.raises(ValueError, match="n_splits=0"):
        reliability(make_node(n_repeats=3), n_splits=0)


def test_counts_that_are_nan_are_refused(make_node):
    data = make_node(n_repeats=3).astype(np.float64)
    data["spike_count"][2, 9, 1] = np.nan
    with pytest.raises(ValueError, match=r"node\['spike_count'\] has 1 NaN .*repeat=2, time=9"):
        reliability(data)
