"""Spikes: their mean rate is the one asked for, whatever the process; refractory where asked."""

import numpy as np
import pytest

from retina_codec.simulation.specification import Spiking
from retina_codec.simulation.spiking import draw_spikes, recovery_function

REFRACTORY = Spiking("refractory", absolute=2.0, relative=3.0)
REPEATS = 80
TIME = 5.0 + 0.01 * np.arange(2500)


@pytest.fixture(scope="module")
def rate():
    """Hz: a slow sine, a constant rate, and short bursts."""
    t = TIME - TIME[0]
    bursts = np.where(np.sin(4 * np.pi * t) > 0.9, 120.0, 0.5)
    return np.stack([20 * (1 + np.sin(2 * np.pi * t)), np.full(2500, 40.0), bursts], axis=1)


def draw(rate, spiking, seed=0, repeats=REPEATS, runs=(slice(0, 2500),)):
    rng = np.random.default_rng(seed)
    return draw_spikes(rate, 0.01, spiking, time=TIME, runs=runs, rng=rng, repeats=repeats)


@pytest.fixture(scope="module")
def drawn(rate):
    return draw(rate, REFRACTORY)


def test_refractory_spikes_have_the_rate_asked_for(drawn, rate):
    np.testing.assert_allclose(drawn.rate, rate, rtol=1e-9)
    for cell in range(3):
        # By the phase of the half-second cycle: 50 cycles, 80 repeats.
        counted = drawn.counts[:, :, cell].reshape(REPEATS, 50, 50).sum(axis=(0, 1))
        expected = 0.01 * rate[:, cell].reshape(50, 50).sum(axis=0) * REPEATS
        z = (counted - expected) / np.sqrt(expected)
        assert np.abs(z).max() < 4
        assert abs(z.mean()) < 0.5


def test_they_are_refractory_and_less_variable_than_poisson(drawn):
    intervals = np.concatenate([np.diff(train) for of in drawn.times for train in of])
    assert intervals.min() >= 0.002
    totals = drawn.counts.sum(axis=1)
    fano = totals.var(axis=0, ddof=1) / totals.mean(axis=0)
    # A renewal process: in long counts the Fano factor is the squared variation of its intervals.
    steady = np.concatenate([np.diff(of[1]) for of in drawn.times])
    assert fano[1] == pytest.approx(steady.var() / steady.mean() ** 2, rel=0.4)
    assert fano[1] < 0.85


def test_the_recovery_is_the_function_asked_for():
    """Intervals at a steady rate, against the hazard q w: divided out, it is w again."""
    rate = np.full((2500, 1), 60.0)
    drawn = draw(rate, REFRACTORY, repeats=200)
    intervals = 1000 * np.concatenate([np.diff(of[0]) for of in drawn.times])
    edges = np.arange(0, 41.0)
    counted = np.histogram(intervals, edges)[0]
    surviving = np.array([(intervals >= edge).sum() for edge in edges[:-1]])
    hazard = counted / surviving
    recovered = hazard[20:35].mean()
    # Spikes are uniform inside steps of 1 ms, so an interval is smeared by a triangle of 2 ms.
    lags = edges[:-1] + 0.5
    expected = np.clip(1 - np.exp(-(lags - 2) / 3), 0, None)
    np.testing.assert_allclose(hazard[3:20] / recovered, expected[3:20], atol=0.12)
    assert hazard[:2].max() == 0


def test_recovery_by_steps():
    w = recovery_function(Spiking("refractory", absolute=2.0, relative=3.0), 1.0)
    assert w[:2].tolist() == [0, 0]
    np.testing.assert_allclose(w[2:5], 1 - np.exp(-np.array([1, 2, 3]) / 3))
    assert w[-1] == 1
    np.testing.assert_array_equal(recovery_function(Spiking("refractory"), 1.0), [1, 1])


def test_a_rate_beyond_the_refractory_limit_is_told():
    rate = np.full((2500, 1), 900.0)
    drawn = draw(rate, REFRACTORY, repeats=20)
    assert float(drawn.rate.max()) < 400
    counted = drawn.counts.sum() / (20 * 25.0)
    assert counted == pytest.approx(drawn.rate.mean(), rel=0.01)


@pytest.mark.parametrize("spiking", [REFRACTORY, Spiking("poisson")])
def test_times_are_in_their_bins_and_repeats_are_independent(rate, spiking):
    runs = (slice(0, 1200), slice(1200, 2500))
    drawn = draw(rate, spiking, repeats=6, runs=runs)
    edges = np.append(TIME, TIME[-1] + 0.01)
    for repeat in range(6):
        for cell in range(3):
            times = drawn.times[repeat][cell]
            assert (np.diff(times) >= 0).all()
            # A hair inside, as onsets of bins are rounded.
            counted = np.histogram(times + 1e-9, edges)[0]
            np.testing.assert_array_equal(counted, drawn.counts[repeat, :, cell])
    noise = drawn.counts - drawn.counts.mean(axis=0)
    flat = noise.reshape(6, -1)
    r = np.corrcoef(flat)[np.triu_indices(6, 1)]
    # Left-out means make independent repeats correlate by -1 / (n - 1).
    np.testing.assert_allclose(r, -0.2, atol=0.06)


def test_a_seed_fixes_the_spikes(rate, drawn):
    again = draw(rate, REFRACTORY)
    np.testing.assert_array_equal(again.counts, drawn.counts)
    assert not np.array_equal(draw(rate, REFRACTORY, seed=1).counts, drawn.counts)


def test_segments_do_not_show(rate, drawn, monkeypatch):
    monkeypatch.setattr("retina_codec.simulation.spiking.SEGMENT", 25000)
    whole = draw(rate, REFRACTORY)
    np.testing.assert_allclose(whole.rate, drawn.rate, rtol=1e-9)
    # The hazards are the same up to what the start of a segment forgets.
    differing = (whole.counts != drawn.counts).mean()
    assert differing < 1e-3
