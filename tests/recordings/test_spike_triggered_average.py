"""The spike-triggered average against a slow loop over spikes."""

import numpy as np
import pytest
import xarray as xr

from retina_codec._common.time import runs_of
from retina_codec.recordings import spike_triggered_average, triggered_average


def slow(data, cell, history):
    counts = data["spike_count"].sel(cell=cell)
    if "repeat" in counts.dims:
        counts = counts.sum("repeat")
    stimulus = data["stimulus"].values.astype(float)
    total, n = np.zeros((history, *stimulus.shape[1:])), 0
    for run in runs_of(data):
        for t in range(run.start + history - 1, run.stop):
            for _ in range(int(counts[t])):
                n += 1
                for lag in range(history):
                    total[lag] += stimulus[t - lag]
    return total / n, n


@pytest.mark.parametrize("n_repeats", [None, 3])
@pytest.mark.parametrize(
    ("shape", "dims"),
    [((1, 1), ("y", "x")), ((3, 2), ("y", "x")), ((2, 2, 3), ("color", "y", "x"))],
)
@pytest.mark.parametrize("chunk", [2**22, 64])
def test_against_a_slow_loop(make_node, monkeypatch, n_repeats, shape, dims, chunk):
    monkeypatch.setattr(triggered_average, "CHUNK_NUMBERS", chunk)
    data = make_node((40, 6, 30), n_repeats=n_repeats, shape=shape, dims=dims)
    found = spike_triggered_average(data, history=8)  # the block of 6 frames is too short
    assert found.dims == ("cell", "lag", *dims)
    np.testing.assert_allclose(found["lag"], np.arange(8) * 0.02)
    for cell in data["cell"].values:
        expected, n = slow(data, cell, 8)
        np.testing.assert_allclose(found.sel(cell=cell), expected, rtol=1e-9, atol=1e-12)
        assert int(found["n_spikes"].sel(cell=cell)) == n


def test_dim_order_does_not_matter(make_node):
    data = make_node(shape=(3, 2), n_repeats=2)
    xr.testing.assert_identical(
        spike_triggered_average(data.transpose("x", "cell", "time", "y", "repeat"), history=5),
        spike_triggered_average(data, history=5),
    )


def test_it_finds_the_filter_of_a_planted_cell(make_node):
    data = make_node((20_000,), n_cells=1, shape=(2, 2))
    drive = data["stimulus"].values[:, 1, 0] - 0.4
    counts = np.r_[0, 0, 0, drive[:-3] > 1.0].astype(int)  # three frames later
    data = data.assign(spike_count=(("time", "cell"), counts[:, None]))
    found = spike_triggered_average(data, history=6) - 0.4
    assert float(found.isel(cell=0, lag=3, y=1, x=0)) == pytest.approx(1.525, abs=0.03)
    rest = found.isel(cell=0).values.copy()
    rest[3, 1, 0] = 0
    assert np.abs(rest).max() < 0.1


def test_a_silent_cell_is_nan_without_a_warning(make_node, recwarn):
    data = make_node()
    data["spike_count"][:, 1] = 0
    found = spike_triggered_average(data, history=3)
    assert np.isnan(found.sel(cell="C2")).all()
    assert found["n_spikes"].values[1] == 0
    assert not recwarn.list


def test_bad_input(make_node):
    with pytest.raises(ValueError, match="history=61 frames, but no contiguous run"):
        spike_triggered_average(make_node(), history=61)
    with pytest.raises(ValueError, match="history=0"):
        spike_triggered_average(make_node(), history=0)
    with pytest.raises(ValueError, match="node has no variable 'stimulus'; it has spike_count"):
        spike_triggered_average(make_node().drop_vars("stimulus"), history=3)
    with pytest.raises(ValueError, match=r"\['stimulus'\] has dims .*rename\(row='y'\)"):
        spike_triggered_average(make_node().rename(y="row"), history=3)
    data = make_node()
    data["stimulus"][7] = np.nan
    with pytest.raises(ValueError, match=r"node\['stimulus'\] has 1 NaN .*time=7"):
        spike_triggered_average(data, history=3)
