"""Rates: smoothing within blocks, to both sides or into the past only."""

import dask.array as da
import numpy as np
import pytest
import quantities as pq
import xarray as xr

from retina_codec._common.time import block_coordinate, time_coordinate
from retina_codec.recordings import firing_rate

BIN = 0.01


def counts_of(values, blocks=None, chunks=None):
    values = np.asarray(values)[:, None]
    data = values if chunks is None else da.from_array(values, chunks=(chunks, -1))
    blocks = np.zeros(len(values)) if blocks is None else blocks
    return xr.DataArray(
        data,
        dims=("time", "cell"),
        coords={
            "time": time_coordinate(np.arange(len(values)) * BIN, BIN),
            "block": block_coordinate(blocks),
            "cell": ["a"],
        },
    )


def slow_causal(counts, blocks, sd):
    """Weighted mean of the bins of the block up to now, cut at four sd."""
    rate = np.zeros(len(counts))
    for t in range(len(counts)):
        lags = [k for k in range(int(4 * sd + 0.5) + 1) if t >= k and blocks[t - k] == blocks[t]]
        weights = np.exp(-0.5 * (np.array(lags) / sd) ** 2)
        rate[t] = sum(w * counts[t - k] for w, k in zip(weights, lags, strict=True)) / weights.sum()
    return rate / BIN


@pytest.mark.parametrize("chunks", [None, 13, 200])
@pytest.mark.parametrize("sd", [0.8, 2.5])
def test_causal_smoothing(sd, chunks):
    blocks = np.repeat([0, 1, 2], [60, 45, 95])
    counts = np.random.default_rng(0).poisson(0.5, 200)
    rate = firing_rate(counts_of(counts, blocks, chunks), sd=sd * BIN * pq.s, causal=True)
    assert isinstance(rate.data, da.Array) == (chunks is not None)
    np.testing.assert_allclose(rate.values[:, 0], slow_causal(counts, blocks, sd), rtol=1e-9)


def test_a_causal_rate_does_not_know_the_future():
    counts = np.random.default_rng(1).poisson(0.5, 100)
    later = counts.copy()
    later[60:] += 3
    a, b = (firing_rate(counts_of(c), sd=0.03, causal=True).values for c in (counts, later))
    np.testing.assert_array_equal(a[:60], b[:60])
    assert (a[60:] != b[60:]).all()


@pytest.mark.parametrize("chunks", [3, 17, 100])
def test_lazy_rates_are_those_in_memory(chunks):
    blocks = np.repeat([0, 1], [70, 30])
    counts = np.random.default_rng(2).poisson(0.5, 100)
    whole = firing_rate(counts_of(counts, blocks), sd=0.02)
    lazy = firing_rate(counts_of(counts, blocks, chunks), sd=0.02)
    np.testing.assert_allclose(lazy.values, whole.values, rtol=1e-12)
    for block in (0, 1):
        inside = blocks == block
        assert whole.values[inside].sum() * BIN == pytest.approx(counts[inside].sum())


def test_counts_that_are_nan_are_refused():
    counts = np.ones(20)
    counts[7] = np.nan
    with pytest.raises(ValueError, match=r"spike_count has 1 NaN .*time=7, cell=0"):
        firing_rate(counts_of(counts).astype(np.float64).copy(data=counts[:, None]))
