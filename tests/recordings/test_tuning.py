"""ON-OFF index and direction selectivity: closed forms, literal loops and planted cells."""

import numpy as np
import pytest
import quantities as pq
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from retina_codec._common.time import block_coordinate, time_coordinate
from retina_codec.recordings.spikes import SpikeTimes
from retina_codec.recordings.tuning import direction_selectivity, direction_tuning, on_off_index

WIDTH = 0.25  # of a frame, seconds: exact in binary


def recording_of(trains, **columns):
    units = {"start": "s", "duration": "s", "direction": "degree"}
    epochs = xr.Dataset(
        {
            name: ("epoch", np.asarray(values), {"units": units.get(name, "1")})
            for name, values in columns.items()
        }
    )
    spikes = SpikeTimes.from_trains(trains).to_dataset()
    return xr.DataTree.from_dict({"/spikes": spikes, "/epochs": epochs})


def node_of(counts, labels, *, direction=None, block=None):
    counts = np.asarray(counts)
    n = counts.shape[-2]
    coords = {
        "time": time_coordinate(np.arange(n) * WIDTH, WIDTH),
        "cell": [f"C{i}" for i in range(counts.shape[-1])],
        "epoch": ("time", labels),
    }
    if direction is not None:
        coords["direction"] = ("time", np.asarray(direction, dtype=float))
    if block is not None:
        coords["block"] = block_coordinate(block)
    dims = ("repeat", "time", "cell")[-counts.ndim :]
    return xr.Dataset({"spike_count": (dims, counts)}, coords=coords)


def steps(*labels_and_frames):
    return np.concatenate([[label] * frames for label, frames in labels_and_frames])


@pytest.mark.parametrize("repeats", [False, True])
def test_counts_that_are_nan_are_refused(repeats):
    counts = np.ones((2, 8, 1) if repeats else (8, 1))
    counts[..., 3, 0] = np.nan
    data = node_of(counts, steps(("on", 4), ("off", 4)), direction=[0, 0, 90, 90] * 2)
    for measure in (on_off_index, lambda node: direction_tuning(node, label="on")):
        with pytest.raises(ValueError, match=r"node\['spike_count'\] has [12] NaN .*time=3"):
            measure(data)


# ON-OFF


def test_rates_count_and_not_durations():
    labels = steps(("gray", 2), ("on", 2), ("gray", 1), ("off", 6))
    counts = np.ones((11, 2), dtype=int)
    counts[labels == "on", 1] = 3
    found = on_off_index(node_of(counts, labels))
    assert found["on_off_index"].values.tolist() == [0, 0.5]
    assert found["n_on"].values.tolist() == [2, 6]
    assert found["n_off"].values.tolist() == [6, 6]
    assert found["on_rate"].values.tolist() == [4, 12]
    assert (
        found["reason"] == "fewer than two presentations, or spikes in only one: interval undefined"
    ).all()


def test_a_node_and_its_recording_agree():
    rng = np.random.default_rng(0)
    labels = np.tile(steps(("gray", 3), ("on", 2), ("gray", 3), ("off", 2)), 6)
    counts = rng.poisson(2, (60, 3))
    trains = {f"C{c}": np.repeat(np.arange(60) * WIDTH, counts[:, c]) + 0.125 for c in range(3)}
    start = np.arange(6) * 10 * WIDTH
    recording = recording_of(
        trains,
        start=np.r_[start + 3 * WIDTH, start + 8 * WIDTH],
        duration=np.full(12, 2 * WIDTH),
        label=["on"] * 6 + ["off"] * 6,
    )
    of_node, of_recording = on_off_index(node_of(counts, labels)), on_off_index(recording)
    xr.testing.assert_allclose(of_node, of_recording, rtol=1e-14)
    repeats = node_of(counts.reshape(6, 10, 3), labels[:10])
    xr.testing.assert_allclose(on_off_index(repeats), of_recording, rtol=1e-14)
    lazy = repeats.chunk(time=3)
    xr.testing.assert_identical(on_off_index(lazy), on_off_index(repeats))
    xr.testing.assert_identical(
        on_off_index(repeats.transpose("cell", "time", "repeat")), on_off_index(repeats)
    )
    # the jackknife, by hand: each trial left out with its on and its off
    on = counts[labels == "on"].reshape(6, 2, 3).sum(1)
    off = counts[labels == "off"].reshape(6, 2, 3).sum(1)
    kept = [np.delete(np.arange(6), i) for i in range(6)]
    left = np.array([(on[k] - off[k]).sum(0) / (on[k] + off[k]).sum(0) for k in kept])
    error = np.sqrt(5 / 6 * ((left - left.mean(0)) ** 2).sum(0))
    reach = (of_node["on_off_index_high"] - of_node["on_off_index_low"]) / 2
    np.testing.assert_allclose(reach, 2.5705818366147395 * error)  # t(0.975, 5)


def test_runs_of_two_blocks_are_two_presentations():
    labels = steps(("on", 4), ("off", 4))
    found = on_off_index(node_of(np.ones((8, 1), int), labels, block=[0, 0, 1, 1, 1, 1, 2, 2]))
    assert np.isfinite(found["on_off_index_low"]).all()


@pytest.mark.parametrize("n_off", [40, 25])  # as many off as on, or fewer
def test_the_interval_covers_the_truth(n_off):
    rng = np.random.default_rng(1)
    n_cells, on_rate, off_rate = 400, 8.0, 4.0
    trains = {}
    edges = np.arange(80.0)
    for cell in range(n_cells):
        counts = rng.poisson(np.where(np.arange(80) < 40, on_rate, off_rate))
        trains[f"C{cell}"] = np.repeat(edges, counts) + 0.5
    recording = recording_of(
        trains,
        start=np.r_[edges[:40], edges[40 : 40 + n_off]],
        duration=np.ones(40 + n_off),
        label=["on"] * 40 + ["off"] * n_off,
    )
    found = on_off_index(recording)
    truth = 1 / 3
    inside = (found["on_off_index_low"] < truth) & (truth < found["on_off_index_high"])
    # 95 % of 400 within four standard errors of a binomial
    assert abs(int(inside.sum()) - 380) < 4 * np.sqrt(400 * 0.95 * 0.05)
    assert abs(float(found["on_off_index"].mean()) - truth) < 0.01


def test_a_silent_cell_says_so(recwarn):
    labels = np.tile(steps(("on", 1), ("off", 1)), 5)
    counts = np.ones((10, 3), dtype=int)
    counts[:, 1] = 0
    counts[:, 2] = 0
    counts[4, 2] = 1  # fires once: without that trial there is no index
    found = on_off_index(node_of(counts, labels))
    assert found["on_off_index"].values.tolist()[::2] == [0, 1]
    assert np.isnan(found["on_off_index"].values[1])
    assert found["reason"].values.tolist() == [
        "",
        "no spikes in either: index and interval undefined",
        "fewer than two presentations, or spikes in only one: interval undefined",
    ]
    assert not recwarn.list


def test_on_off_bad_input():
    node = node_of(np.ones((4, 1), int), steps(("on", 2), ("off", 2)))
    with pytest.raises(ValueError, match=r"on='ON' labels no frame of node; .*choices: on, off"):
        on_off_index(node, on="ON")
    with pytest.raises(ValueError, match="off='of' labels no frame of node; did you mean 'off'"):
        on_off_index(node, off="of")
    with pytest.raises(ValueError, match="on and off are both 'on'"):
        on_off_index(node, off="on")
    with pytest.raises(ValueError, match=r"node has no coordinate epoch\(time\)"):
        on_off_index(node.drop_vars("epoch"))
    with pytest.raises(TypeError, match="node is a list"):
        on_off_index([1])
    recording = recording_of({"a": np.array([1.0])}, start=[0.0], duration=[1.0], label=["on"])
    with pytest.raises(ValueError, match="off='off' labels no epoch; choices: on"):
        on_off_index(recording)
    with pytest.raises(ValueError, match="has no node 'epochs'"):
        on_off_index(recording.filter(lambda n: n.name != "epochs"))
    with pytest.raises(ValueError, match="has no node 'spikes'"):
        on_off_index(recording.filter(lambda n: n.name != "spikes"))


# Directions


def gratings(n_repeats=3, seed=0, order=None):
    """Recording with two cells and presentations of 2 s every 3 s, in the order of `order`."""
    rng = np.random.default_rng(seed)
    directions = (
        np.concatenate([rng.permutation(np.arange(8) * 45.0) for _ in range(n_repeats)])
        if order is None
        else np.tile(order, n_repeats)
    )
    n = len(directions)
    start = 1.0 + 3 * np.arange(n)
    rate = 10 * (1 + np.cos(np.deg2rad(directions - 90)))
    trains = {}
    for name, rates in (("tuned", rate), ("flat", np.full(n, 9.0))):
        counts = rng.poisson(2 * rates)
        trains[name] = np.sort(np.repeat(start, counts) + rng.uniform(0, 2, counts.sum()))
    return recording_of(
        trains, start=start, duration=np.full(n, 2.0), label=["grating"] * n, direction=directions
    )


def test_tuning_against_a_loop():
    recording = gratings()
    epochs = recording["epochs"].to_dataset()
    shuffled = recording.copy()
    shuffled["epochs"] = xr.DataTree(epochs.isel(epoch=np.random.default_rng(4).permutation(24)))
    for tree in (recording, shuffled):
        found = direction_tuning(tree, skip=500 * pq.ms)
        assert found["direction"].values.tolist() == [0, 45, 90, 135, 180, 225, 270, 315]
        np.testing.assert_array_equal(found["response_duration"], 1.5)
        spikes = SpikeTimes.from_dataset(tree["spikes"])
        for i, cell in enumerate(spikes.ids):
            seen = dict.fromkeys(found["direction"].values.tolist(), 0)
            for start, angle in zip(
                epochs["start"].values, epochs["direction"].values, strict=True
            ):
                n = sum(start + 0.5 <= t < start + 2 for t in spikes.of(i))
                at = {"repeat": seen[angle], "direction": angle, "cell": cell}
                assert int(found["spike_count"].sel(at)) == n
                seen[angle] += 1


def test_a_node_with_directions_gives_the_same_tuning():
    rng = np.random.default_rng(2)
    # gray between presentations of four frames, but for two that follow each other directly
    directions, labels = [np.nan], ["gray"]
    for angle, gap in zip([0, 120, 240, 120, 0, 240], [1, 0, 2, 1, 1, 1], strict=True):
        directions += [angle] * 4 + [np.nan] * gap
        labels += ["grating"] * 4 + ["gray"] * gap
    counts = rng.poisson(1.0, (len(labels), 2))
    found = direction_tuning(node_of(counts, labels, direction=directions), skip=WIDTH)
    assert found["spike_count"].dims == ("repeat", "direction", "cell")
    at = {0: (1, 21), 120: (6, 16), 240: (10, 26)}  # first frames, by hand
    assert [directions[i] for first in at.values() for i in first] == [0, 0, 120, 120, 240, 240]
    for angle, first in at.items():
        for repeat, start in enumerate(first):
            np.testing.assert_array_equal(
                found["spike_count"].sel(repeat=repeat, direction=angle),
                counts[start + 1 : start + 4].sum(0),
            )
    np.testing.assert_array_equal(found["response_duration"], 3 * WIDTH)
    # as repeats of a movie: each repeat has two presentations of each direction
    twice = np.stack([counts, counts[::-1]])
    repeated = direction_tuning(node_of(twice, labels, direction=directions), skip=WIDTH)
    assert repeated.sizes["repeat"] == 4
    np.testing.assert_array_equal(repeated["spike_count"][:2], found["spike_count"])


def test_between_tells_two_stimuli_apart():
    recording = gratings(n_repeats=4, order=np.arange(8) * 45.0)
    epochs = recording["epochs"].to_dataset()
    duration = np.where(np.arange(32) < 16, 2.0, 1.0)
    recording["epochs"] = xr.DataTree(epochs.assign(duration=("epoch", duration)))
    with pytest.raises(ValueError, match="responses last from 1 to 2 s; these are several kinds"):
        direction_tuning(recording)
    named = recording.copy()
    columns = {
        "duration": ("epoch", duration),
        "stimulus": ("epoch", np.repeat(["slow", "fast"], 16)),
    }
    named["epochs"] = xr.DataTree(epochs.assign(columns))
    second = direction_tuning(recording, between=(49.0, 97.0))
    xr.testing.assert_equal(direction_tuning(named, stimulus="fast"), second)
    with pytest.raises(ValueError, match=r"stimulus='last' has no epochs; .*choices: slow, fast"):
        direction_tuning(named, stimulus="last")
    with pytest.raises(ValueError, match="has no column 'stimulus'; choose with between"):
        direction_tuning(recording, stimulus="fast")
    assert second.sizes["repeat"] == 2
    np.testing.assert_array_equal(second["response_duration"], 1)


@pytest.mark.parametrize("n", [3, 4, 8, 12])
def test_selectivity_in_closed_form(n):
    phi = np.arange(n) * 360 / n
    counts = xr.DataArray(
        np.stack([np.exp(1.5 * np.cos(np.deg2rad(phi - 50))), np.ones(n), np.eye(n)[1]], axis=1),
        dims=("direction", "cell"),
        coords={"direction": phi, "cell": ["von Mises", "flat", "one"]},
    )
    found = direction_selectivity(counts, n_permutations=10)
    if n == 12:  # the sum is the integral, I1 / I0, but for terms of order I11
        from scipy.special import iv

        assert float(found["dsi"][0]) == pytest.approx(iv(1, 1.5) / iv(0, 1.5), abs=1e-7)
        assert float(found["osi"][0]) == pytest.approx(iv(2, 1.5) / iv(0, 1.5), abs=1e-6)
        assert float(found["preferred_direction"][0]) == pytest.approx(50, abs=1e-4)
        assert float(found["preferred_orientation"][0]) == pytest.approx(50, abs=1e-3)
    assert float(found["dsi"][1]) == pytest.approx(0, abs=1e-15)
    assert np.isnan(found["preferred_direction"].values[1])
    assert found["p_value"].values[1] == 1
    assert found["reason"].values.tolist() == ["", "no preferred direction or axis", ""]
    assert float(found["dsi"][2]) == pytest.approx(1)
    assert float(found["preferred_direction"][2]) == pytest.approx(phi[1])


def test_an_axis_without_a_direction():
    counts = xr.DataArray(
        np.tile([[0, 9, 0, 0, 0, 9, 0, 0]], (6, 1))[:, :, None],
        dims=("repeat", "direction", "cell"),
        coords={"direction": np.arange(8) * 45.0, "cell": ["bar"]},
    )
    found = direction_selectivity(counts, n_permutations=500).isel(cell=0)
    assert float(found["dsi"]) < 1e-12 and float(found["osi"]) == pytest.approx(1)
    assert float(found["preferred_orientation"]) == pytest.approx(45)
    assert float(found["orientation_p_value"]) == pytest.approx(1 / 501)
    assert float(found["p_value"]) == 1
    assert int(found["n_spikes"]) == 108


def test_p_values_against_permuted_counts():
    rng = np.random.default_rng(3)
    counts = rng.poisson(4 + 1.2 * np.cos(np.arange(8) * np.pi / 4), (4, 8))
    data = xr.DataArray(
        counts[:, :, None],
        dims=("repeat", "direction", "cell"),
        coords={"direction": np.arange(8) * 45.0, "cell": ["a"]},
    )
    n = 20_000
    found = direction_selectivity(data, n_permutations=n).isel(cell=0)
    angles = np.tile(np.arange(8) * np.pi / 4, 4)
    for factor, name in ((1, "p_value"), (2, "orientation_p_value")):
        drawn = rng.permuted(np.tile(counts.ravel(), (n, 1)), axis=1)
        size = np.abs((drawn * np.exp(1j * factor * angles)).sum(1))
        observed = np.abs((counts.ravel() * np.exp(1j * factor * angles)).sum())
        p = (1 + (size >= observed - 1e-9).sum()) / (n + 1)
        assert 0.001 < p < 0.999
        assert float(found[name]) == pytest.approx(p, abs=4 * np.sqrt(2 * p * (1 - p) / n))


def test_p_values_of_cells_without_tuning_are_uniform(monkeypatch):
    counts = np.random.default_rng(5).poisson(3.0, (4, 8, 1000))
    data = xr.DataArray(
        counts,
        dims=("repeat", "direction", "cell"),
        coords={"direction": np.arange(8) * 45.0, "cell": np.arange(1000)},
    )
    found = direction_selectivity(data, n_permutations=400)
    for name in ("p_value", "orientation_p_value"):
        for level in (0.05, 0.5):
            share = float((found[name] <= level).mean())
            assert abs(share - level) < 4 * np.sqrt(level * (1 - level) / 1000)
    monkeypatch.setattr("retina_codec.recordings.tuning.CHUNK_NUMBERS", 5000)
    xr.testing.assert_identical(direction_selectivity(data, n_permutations=400), found)
    assert (direction_selectivity(data, n_permutations=400, seed=1) != found)["p_value"].any()


@settings(deadline=None, max_examples=25)
@given(order=st.permutations(["repeat", "direction", "cell"]), turn=st.integers(0, 7))
def test_dim_order_and_turning_the_retina(order, turn):
    counts = np.random.default_rng(6).poisson(np.arange(1, 9)[:, None], (3, 8, 2))
    phi = np.arange(8) * 45.0
    data = xr.DataArray(
        counts,
        dims=("repeat", "direction", "cell"),
        coords={"direction": phi, "cell": ["a", "b"]},
    )
    found = direction_selectivity(data, n_permutations=20)
    xr.testing.assert_identical(
        direction_selectivity(data.transpose(*order), n_permutations=20), found
    )
    turned = direction_selectivity(
        data.assign_coords(direction=(phi + 45 * turn) % 360), n_permutations=20
    )
    np.testing.assert_allclose(turned["dsi"], found["dsi"])
    difference = turned["preferred_direction"] - found["preferred_direction"] - 45 * turn
    np.testing.assert_allclose(np.cos(np.deg2rad(difference)), 1)


def test_direction_bad_input():
    recording = gratings()
    epochs = recording["epochs"].to_dataset()

    def changed(**columns):
        tree = recording.copy()
        tree["epochs"] = xr.DataTree(epochs.assign(**columns))
        return tree

    first = epochs["direction"].values.copy()
    first[3] = np.nan
    for tree, options, message in (
        (recording, {"label": "gratings"}, "label='gratings' labels no epoch; did you mean"),
        (recording, {"skip": -1}, "skip=-1.0; expected a number of at least 0"),
        (recording, {"skip": 2 * pq.mV}, "skip is in mV"),
        (recording, {"skip": 2}, "skip=2 s leaves nothing of presentations that last 2 s"),
        (recording, {"between": (0, 26)}, r"not shown equally often \(.*whole cycles"),
        (recording, {"between": (500, 600)}, r"between=\(500, 600\): no presentation starts"),
        (changed(direction=("epoch", first)), {}, "a presentation has direction NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            direction_tuning(tree, **options)
    without = recording.copy()
    without["epochs"] = xr.DataTree(epochs.drop_vars("direction"))
    with pytest.raises(ValueError, match="has no column 'direction'"):
        direction_tuning(without)
    node = node_of(np.ones((3, 1), int), ["grating"] * 3)
    with pytest.raises(ValueError, match=r"node has no coordinate direction\(time\)"):
        direction_tuning(node)
    with pytest.raises(ValueError, match="stimulus='a' chooses among the epochs"):
        direction_tuning(node, stimulus="a")
    with pytest.raises(ValueError, match="frames have direction NaN"):
        direction_tuning(node_of(np.ones((2, 1), int), ["grating"] * 2, direction=[0, np.nan]))

    tuning = direction_tuning(recording)
    with pytest.raises(TypeError, match=r"n_permutations=0\.5"):
        direction_selectivity(tuning, n_permutations=0.5)
    with pytest.raises(ValueError, match="n_permutations=0;"):
        direction_selectivity(tuning, n_permutations=0)
    with pytest.raises(TypeError, match="tuning is a ndarray"):
        direction_selectivity(np.zeros((8, 2)))
    with pytest.raises(ValueError, match="has no variable 'spike_count'"):
        direction_selectivity(tuning.drop_vars("spike_count"))
    with pytest.raises(ValueError, match=r"tuning has dims \('repeat', 'angle', 'cell'\)"):
        direction_selectivity(tuning["spike_count"].rename(direction="angle"))
    with pytest.raises(ValueError, match="not at least three in equal steps around the circle"):
        direction_selectivity(tuning.isel(direction=slice(5)))
    with pytest.raises(ValueError, match="negative, NaN or infinite"):
        direction_selectivity(tuning["spike_count"] - 1000)
