"""Recordings of the circuit: layout, truth, noise, one clock."""

import json

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import retina_codec as rc
from retina_codec import simulation, stimuli
from retina_codec._common.time import runs_of, time_coordinate
from retina_codec.recordings import firing_rate
from retina_codec.recordings.spikes import SpikeTimes
from retina_codec.simulation import simulate_retina

CELLS = 20


@pytest.fixture(scope="module")
def recording():
    train = stimuli.concatenate(
        [stimuli.white_noise(n_frames=700, seed=0), stimuli.moving_bars(n_frames=150, seed=1)]
    )
    return simulate_retina(
        {"train": train, "test": stimuli.white_noise(n_frames=200, seed=2)}, repeats={"test": 30}
    )


def test_nodes_have_the_layout_of_recordings(recording):
    train, test = recording["train"], recording["test"]
    assert dict(train["spike_count"].sizes) == {"time": 850, "cell": CELLS}
    assert dict(test["spike_count"].sizes) == {"repeat": 30, "time": 200, "cell": CELLS}
    for node in (train, test):
        assert node["rate"].dims == node["true_rate"].dims == ("time", "cell")
        assert node["rate"].attrs["units"] == node["true_rate"].attrs["units"] == "Hz"
        assert node["potential"].dims == ("time", "interneuron")
        assert node["potential"].attrs["units"] == "mV"
        assert np.issubdtype(node["spike_count"].dtype, np.integer)
        assert node["time"].attrs["bin_width"] == 0.01
        xr.testing.assert_allclose(node["rate"], firing_rate(node["spike_count"]))
    assert test["repeat_onset"].dims == ("repeat",)
    assert set(train["epoch"].values) == {"noise", "bar"}
    assert set(train["block"].values) == {0, 1}
    for node in (recording, train, test):
        made_by = json.loads(node.attrs["parameters"])
        assert (made_by["circuit"], made_by["seed"]) == ("default", 0)
        assert made_by["spiking"] == "refractory"


def test_the_true_rate_is_the_circuits(recording):
    movie = recording["train"]["stimulus"]
    expected = simulation.circuit("default").predict(movie)
    assert expected.sizes["time"] == 850 - 2 * 39
    found = recording["train"]["true_rate"].sel(time=expected["time"])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_each_block_begins_after_grey(recording):
    bars = stimuli.moving_bars(n_frames=150, seed=1)
    alone = simulate_retina(bars)["train"]
    joined = recording["train"].to_dataset().isel(time=slice(700, None))
    np.testing.assert_allclose(joined["true_rate"], alone["true_rate"], rtol=1e-4, atol=1e-5)
    grey = simulate_retina(stimuli.light_steps(n_frames=50, amplitude=0))["train"]["true_rate"]
    np.testing.assert_allclose(alone["true_rate"][0], grey[0], rtol=1e-5)  # kernels are 0 at lag 0
    np.testing.assert_allclose(grey, grey[:1].values.repeat(50, axis=0), rtol=1e-6)


def test_potentials_are_the_drives_of_the_units_at_their_places(recording):
    import torch

    node = recording["test"].to_dataset()
    network = simulation.circuit("default").network
    movie = torch.from_numpy(node["stimulus"].values)[None]
    bipolar = network.bipolar(movie)
    layers = {
        "bipolar": (network.bipolar.drive(movie), bipolar),
        "amacrine": (network.amacrine.drive(bipolar), network.amacrine(bipolar)),
    }
    types = [*network_types("bipolar"), *network_types("amacrine")]
    assert set(node["interneuron_type"].values) == set(types)
    assert node.sizes["interneuron"] == 8 * 3
    for i in (0, 7, 16, 23):  # of five bipolar and three amacrine types, at three places
        one = node.isel(interneuron=i)
        layer = str(one["interneuron_layer"].values)
        channel = network_types(layer).index(str(one["interneuron_type"].values))
        row, column = (round(float(one[f"interneuron_{a}"])) for a in "yx")
        drive, release = (f[:, channel, row, column] for f in layers[layer])
        np.testing.assert_allclose(one["potential"][39:], -45 + 4 * drive, atol=1e-3)
        np.testing.assert_allclose(one["release"][39:], release, atol=1e-3)


def network_types(layer):
    return list(getattr(simulation.read_specification("default"), layer))


def test_counts_have_the_true_rate_as_their_mean(recording):
    node = recording["test"].to_dataset()
    mean = node["true_rate"] * 0.01
    counts = node["spike_count"]
    z = (counts.sum(("repeat", "time")) - 30 * mean.sum("time")) / np.sqrt(30 * mean.sum("time"))
    assert float(np.abs(z).max()) < 4
    binned = counts.sum("repeat").values.reshape(20, 10, CELLS).sum(1)
    expected = 30 * mean.values.reshape(20, 10, CELLS).sum(1)
    enough = expected > 5
    assert ((binned - expected)[enough] ** 2 / expected[enough]).mean() < 1.1


def test_poisson_counts_where_asked():
    noise = stimuli.white_noise(n_frames=300, seed=2)
    node = simulate_retina(noise, spiking="poisson", repeats=60)["train"].to_dataset()
    counts = node["spike_count"]
    fano = float(counts.var("repeat", ddof=1).mean() / (node["true_rate"] * 0.01).mean())
    assert fano == pytest.approx(1, abs=0.05)
    per_trial = counts.sum("time")
    spread = float((per_trial.var("repeat", ddof=1) / per_trial.mean("repeat")).mean())
    assert spread == pytest.approx(1, abs=0.15)


class TestOneClock:
    def test_spikes_are_those_of_the_counts(self, recording):
        spikes = recording["spikes"]
        assert spikes["n_spikes"].dims == ("cell",)
        assert int(spikes["n_spikes"].sum()) == spikes.sizes["spike"]
        flat = SpikeTimes.from_dataset(spikes)
        assert flat.ids == recording["train"]["cell"].values.tolist()
        for run in runs_of(recording["train"].to_dataset()):
            time = recording["train"]["time"].values[run]
            counted = flat.count(np.append(time, time[-1] + 0.01) - 1e-9)
            np.testing.assert_array_equal(counted, recording["train"]["spike_count"][run])
        test = recording["test"]
        time = test["time"].values
        for onset, counts in zip(test["repeat_onset"], test["spike_count"], strict=True):
            counted = flat.count(float(onset) + np.append(time, time[-1] + 0.01) - 1e-9)
            np.testing.assert_array_equal(counted, counts)

    def test_presentations_do_not_overlap(self, recording):
        train, test = recording["train"], recording["test"]
        onsets = test["repeat_onset"].values
        assert onsets[0] >= float(train["time"][-1]) + 0.01
        np.testing.assert_allclose(np.diff(onsets), 2.0 + 1.0)
        assert test["repeat_onset"].attrs["units"] == "s"

    def test_a_movie_keeps_its_own_times(self):
        noise = stimuli.white_noise(n_frames=100, seed=0)
        later = noise.assign_coords(time=time_coordinate(noise["time"].values + 7, 0.01))
        recording = simulate_retina({"a": noise, "b": later})
        np.testing.assert_array_equal(recording["b"]["time"], later["time"])
        times = recording["spikes"]["spike_time"].values
        assert ((times < 1) | ((times >= 7) & (times < 8))).all()
        of_b = int(recording["b"]["spike_count"].sum())
        assert (times >= 7).sum() == of_b > 0

    def test_where_movies_overlap_in_time_it_is_said(self):
        noise = stimuli.white_noise(n_frames=60, seed=0)
        recording = simulate_retina({"a": noise, "b": noise})
        assert "spikes" not in recording.children
        assert "'a' and 'b' overlap in time" in recording.attrs["notes"]

    def test_it_saves_and_opens_as_a_recording(self, recording, tmp_path):
        rc.save_recording(recording, tmp_path / "simulated.nc")
        opened = rc.open_recording(tmp_path / "simulated.nc")
        for name in ("train", "test", "spikes"):
            xr.testing.assert_equal(opened[name].to_dataset(), recording[name].to_dataset())
        neo = rc.recordings.recording_to_neo(recording)
        assert len(neo.segments[0].spiketrains) == CELLS


def test_a_seed_fixes_the_spikes_of_each_node():
    noise = stimuli.white_noise(n_frames=100, seed=0)
    first = simulate_retina({"a": noise, "b": noise}, seed=1)
    again = simulate_retina({"b": noise}, seed=1)
    xr.testing.assert_equal(first["b"].to_dataset(), again["b"].to_dataset())
    other = simulate_retina({"b": noise}, seed=2)
    assert not np.array_equal(first["a"]["spike_count"], first["b"]["spike_count"])
    assert not np.array_equal(first["b"]["spike_count"], other["b"]["spike_count"])
    xr.testing.assert_identical(first["b"]["true_rate"], other["b"]["true_rate"])


def test_chunks_do_not_show(monkeypatch):
    noise = stimuli.white_noise(n_frames=120, seed=0)
    whole = simulate_retina(noise)["train"]["true_rate"]
    monkeypatch.setattr("retina_codec.simulation.simulate.FRAMES_AT_ONCE", 17)
    np.testing.assert_allclose(simulate_retina(noise)["train"]["true_rate"], whole, rtol=1e-4)


def test_a_lazy_movie_stays_lazy_and_is_read_in_parts():
    noise = stimuli.white_noise(n_frames=900, seed=0)
    largest = []

    def look(block):
        largest.append(block.size)
        return block

    frames = da.from_array(noise.values, chunks=(300, 24, 24)).map_blocks(look, dtype=np.float32)
    lazy = noise.copy(data=frames)
    node = simulate_retina(lazy)["train"]
    assert node["stimulus"].chunks is not None
    assert max(largest) <= 300 * 24 * 24
    np.testing.assert_array_equal(node["true_rate"], simulate_retina(noise)["train"]["true_rate"])


def test_places_are_in_the_movies_own_coordinates():
    noise = stimuli.white_noise(n_frames=60, seed=0)
    in_um = stimuli.Screen().place(noise)
    shifted = in_um.assign_coords(x=("x", in_um["x"].values + 7, {"units": "um"}))
    pixel, um = simulate_retina(noise)["train"], simulate_retina(shifted)["train"]
    np.testing.assert_allclose(um["cell_y"], 50 * (pixel["cell_y"] - 11.5))
    np.testing.assert_allclose(um["interneuron_x"], 50 * (pixel["interneuron_x"] - 11.5) + 7)
    assert um["cell_y"].attrs["units"] == "um"
    cells = simulation.read_specification("default").cells
    np.testing.assert_allclose(um["cell_y"], [cell.y for _, cell in cells.values()])
    np.testing.assert_allclose(um["cell_x"], [cell.x + 7 for _, cell in cells.values()])
    in_mm = in_um.assign_coords(
        {axis: (axis, in_um[axis].values / 1000, {"units": "mm"}) for axis in ("y", "x")}
    )
    mm = simulate_retina(in_mm)["train"]
    np.testing.assert_array_equal(mm["true_rate"], um["true_rate"])
    np.testing.assert_allclose(1000 * mm["cell_y"], um["cell_y"])


NOISE = stimuli.white_noise(n_frames=10, seed=0)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"stimulus": NOISE.values}, TypeError, "stimulus is a ndarray"),
        ({"stimulus": {}}, ValueError, "stimulus is empty"),
        ({"stimulus": {"a": NOISE.values}}, TypeError, r"stimulus\['a'\] is a ndarray"),
        ({"stimulus": NOISE.rename(time="frame")}, ValueError, "rename"),
        ({"stimulus": NOISE.where(NOISE > 0)}, ValueError, "NaN"),
        ({"stimulus": NOISE[:, :5]}, ValueError, "outside the movie.*5 x 24 pixels"),
        (
            {"stimulus": {"test": stimuli.white_noise(n_frames=10, bin_width=0.02)}},
            ValueError,
            r"stimulus\['test'\] has bins of 0.02 s",
        ),
        (
            {"stimulus": NOISE.assign_coords(y=("y", np.arange(24.0), {"units": "degree"}))},
            ValueError,
            "stimulus has coordinate 'y' in 'degree'; expected micrometres",
        ),
        ({"stimulus": NOISE, "pixel_size": 5.0}, ValueError, "mosaic.extent: a cell at"),
        ({"stimulus": {"spikes": NOISE}}, ValueError, "the node 'spikes' is that of the spike"),
        ({"stimulus": NOISE, "spiking": "posson"}, ValueError, "did you mean 'poisson'"),
        ({"stimulus": NOISE, "repeats": 0}, ValueError, "repeats=0"),
        ({"stimulus": NOISE, "repeats": 1.5}, TypeError, "repeats=1.5"),
        ({"stimulus": {"test": NOISE}, "repeats": {"tst": 2}}, ValueError, "did you mean 'test'"),
        ({"stimulus": NOISE, "seed": "a"}, TypeError, "seed='a'"),
        ({"stimulus": NOISE, "circuit": "other"}, ValueError, "circuit='other'"),
        ({"stimulus": NOISE, "smoothing": -1}, ValueError, "smoothing=-1"),
    ],
)
def test_bad_input_is_named(kwargs, error, message):
    with pytest.raises(error, match=message):
        simulate_retina(**kwargs)
