"""Modes beside the true contributions."""

import numpy as np
import pytest
import xarray as xr

import retina_codec as rc
from retina_codec.validation import modes_against_truth

CUT = "bipolar"


@pytest.fixture(scope="module")
def movie():
    return rc.stimuli.white_noise(n_frames=400, shape=(14, 14), seed=3)


@pytest.fixture(scope="module")
def truth(movie):
    return rc.simulate_retina({"test": movie}, seed=0)


@pytest.fixture(scope="module")
def circuit(movie):
    return rc.simulation.circuit("default", movie=movie)


@pytest.fixture(scope="module")
def contributions(circuit, movie):
    tree = rc.contributions(
        circuit,
        movie,
        layers=CUT,
        method=rc.methods.IntegratedGradients(steps=8),
        sum_over=("y", "x"),
        progress=False,
    )
    return tree[f"layers/{CUT}"]["contribution"]


def as_modes(array):
    return array.rename(channel="mode").assign_coords(mode=np.arange(array.sizes["channel"]))


@pytest.fixture(scope="module")
def noisy(contributions):
    """Modes of which each is a channel turned over and noise: strengths, not contributions."""
    noise = contributions.copy(data=np.random.default_rng(0).standard_normal(contributions.shape))
    return as_modes(0.5 * contributions.std("time") * noise - contributions)


def by_hand(mode, true, rates, half):
    """Correlation after a regression on the rates, fitted on half A and used on `half`."""
    design = np.stack([np.ones(len(true)), *rates], axis=1)
    first, of_half = half

    def left(values):
        fit = np.linalg.lstsq(design[first], values[first], rcond=None)[0]
        return (values - design @ fit)[of_half]

    if np.ptp(mode) == 0:
        return np.nan
    return np.corrcoef(left(mode), left(true))[0, 1]


def test_r_is_that_of_a_literal_twin(truth, circuit, contributions, noisy, movie):
    rate = 0.7 * circuit.predict(movie) + 3
    rate = rate + np.random.default_rng(1).standard_normal(rate.shape)
    found = modes_against_truth(noisy, rate, truth, progress=False)
    n = (contributions.sizes["time"] - circuit.history) // 2
    halves = slice(0, n), slice(-n, None)
    true_rate = truth["test"]["true_rate"].sel(time=contributions["time"])
    checked = 0
    for removed, n_rates in {"nothing": 0, "predicted": 1, "both": 2}.items():
        for cell in found["cell"].values:
            rates = [rate.sel(cell=cell).values, true_rate.sel(cell=cell).values][:n_rates]
            for channel in contributions["channel"].values:
                one = found.sel(model="model", removed=removed, cell=cell).isel(
                    true_channel=found["true_channel"].values.tolist().index(f"{CUT}: {channel}")
                )
                if np.isnan(one["r"]):
                    continue
                true = contributions.sel(cell=cell, channel=channel).values
                modes = noisy.sel(cell=cell).transpose("mode", "time").values
                on_first = [by_hand(m, true, rates, (halves[0], halves[0])) for m in modes]
                best = int(np.nanargmax(np.abs(on_first)))
                assert int(one["mode"]) == best
                sign = np.sign(on_first[best])
                assert one["polarity"] == sign
                r = by_hand(modes[best], true, rates, halves)
                np.testing.assert_allclose(one["r"], sign * r, rtol=1e-4, atol=1e-5)
                checked += 1
    assert checked > 30


def test_what_is_the_rate_alone_recovers_nothing(truth, circuit, movie):
    rate = circuit.predict(movie)
    noise = np.random.default_rng(2).standard_normal((*rate.shape, 3))
    modes = rate.expand_dims(mode=3, axis=2) + 5 * noise
    found = modes_against_truth(
        modes.drop_vars("mode", errors="ignore"), rate, truth, progress=False
    )
    r = found["r"].sel(model="model")
    assert r.sel(removed="nothing").median() > 0.4
    assert abs(r.sel(removed="both").median()) < 0.1


def test_a_population_code_and_the_order_of_labels(truth, circuit, noisy, movie):
    rate = circuit.predict(movie)
    one = noisy.isel(cell=0, drop=True)
    found = modes_against_truth(
        {"a": one, "b": noisy}, {"b": rate, "a": rate}, truth, progress=False
    )
    assert found["model"].values.tolist() == ["a", "b"]
    turned = modes_against_truth(
        {"b": noisy.isel(cell=slice(None, None, -1), mode=[2, 0, 1, 4, 3]).transpose("mode", ...)},
        {"b": rate.isel(cell=slice(None, None, -1))},
        truth,
        progress=False,
    )
    xr.testing.assert_allclose(found["r"].sel(model="b"), turned["r"].sel(model="b"))
    assert (found["mode"].sel(model="b") == turned["mode"].sel(model="b")).all()


def test_bad_input(truth, circuit, noisy, movie):
    rate = circuit.predict(movie)

    def refused(loadings=noisy, rates=rate, error=ValueError):
        with pytest.raises(error) as caught:
            modes_against_truth(loadings, rates, truth, progress=False)
        return str(caught.value)

    assert "rates are of b, loadings of a" in refused({"a": noisy}, {"b": rate})
    assert "loadings['model'] lacks" in refused(noisy[50:])
    assert "lacks the cells on_sustained_0" in refused(noisy.isel(cell=slice(1, None)))
    assert "rates['model'] has dims" in refused(rates=rate.rename(cell="unit"))
    assert "loadings['model'] is a ndarray" in refused(noisy.values, error=TypeError)
    assert "NaN" in refused(noisy.where(noisy["time"] > 1.0))


def test_modes_that_are_silent_count_as_found_nothing(truth, circuit, contributions, movie):
    silent = as_modes(0 * contributions).isel(mode=[0, 1])
    rate = circuit.predict(movie)
    both = {"silent": silent, "perfect": as_modes(contributions)}
    found = modes_against_truth(both, dict.fromkeys(both, rate), truth, progress=False)
    known = found["r"].sel(model="perfect").notnull()
    assert known.any()
    np.testing.assert_array_equal(found["r"].sel(model="silent"), np.where(known, 0, np.nan))
    assert set(found["mode"].sel(model="silent").values.ravel()) == {""}
