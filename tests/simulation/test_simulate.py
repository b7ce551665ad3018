"""Recordings of the circuit: layout, truth, noise, and what each cell type responds to."""

import json

import numpy as np
import pytest
import xarray as xr

from retina_codec import simulation, stimuli
from retina_codec.recordings import firing_rate
from retina_codec.simulation import simulate_retina
from retina_codec.stimuli.classical import bar_crossing, bar_frames, grating_frames
from retina_codec.stimuli.movie import make_movie

SHAPE = (24, 24)


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
    assert dict(train["spike_count"].sizes) == {"time": 850, "cell": 16}
    assert dict(test["spike_count"].sizes) == {"repeat": 30, "time": 200, "cell": 16}
    for node in (train, test):
        assert node["rate"].dims == node["true_rate"].dims == ("time", "cell")
        assert node["rate"].attrs["units"] == node["true_rate"].attrs["units"] == "Hz"
        assert node["potential"].dims == ("time", "interneuron")
        assert node["potential"].attrs["units"] == "mV"
        assert np.issubdtype(node["spike_count"].dtype, np.integer)
        assert node["time"].attrs["bin_width"] == 0.01
        xr.testing.assert_allclose(node["rate"], firing_rate(node["spike_count"]))
    assert set(train["epoch"].values) == {"noise", "bar"}
    assert set(train["block"].values) == {0, 1}
    for node in (recording, train, test):
        made_by = json.loads(node.attrs["parameters"])
        assert (made_by["circuit"], made_by["seed"]) == ("default", 0)


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
    for i in (0, 7, 16, 23):
        one = node.isel(interneuron=i)
        layer = str(one["interneuron_layer"].values)
        channel = network_types(layer).index(str(one["interneuron_type"].values))
        row, column = (round(float(one[f"interneuron_{a}"]) - 4) for a in "yx")
        drive, release = (f[:, channel, row, column] for f in layers[layer])
        np.testing.assert_allclose(one["potential"][39:], -45 + 4 * drive, atol=1e-3)
        np.testing.assert_allclose(one["release"][39:], release, atol=1e-3)


def network_types(layer):
    return list(getattr(simulation.read_specification("default"), layer))


def test_counts_are_poisson_around_the_true_rate(recording):
    node = recording["test"].to_dataset()
    mean = node["true_rate"] * 0.01
    counts = node["spike_count"]
    z = (counts.sum(("repeat", "time")) - 30 * mean.sum("time")) / np.sqrt(30 * mean.sum("time"))
    assert float(np.abs(z).max()) < 4
    fano = float((counts.var("repeat", ddof=1)).mean() / mean.mean())
    assert fano == pytest.approx(1, abs=0.05)


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


def test_places_are_in_the_movies_own_coordinates():
    noise = stimuli.white_noise(n_frames=60, seed=0)
    in_um = noise.assign_coords(
        y=("y", 50.0 * np.arange(24), {"units": "um"}), x=("x", 50.0 * np.arange(24) + 7)
    )
    pixel, um = simulate_retina(noise)["train"], simulate_retina(in_um)["train"]
    np.testing.assert_allclose(um["cell_y"], 50 * pixel["cell_y"])
    np.testing.assert_allclose(um["interneuron_x"], 50 * pixel["interneuron_x"] + 7)
    assert um["cell_y"].attrs["units"] == "um"
    assert float(pixel["cell_y"].sel(cell="on_sustained_0")) == 9.5


# What each cell type responds to; rates in spikes per bin. Every movie begins with a rest.


def rested(frames, n_rest=60):
    return make_movie(
        np.concatenate([np.repeat(frames[:1], n_rest, 0), frames]), bin_width=0.01, epoch="t"
    )


def bar(direction, contrast=1.2):
    n_frames = int(bar_crossing(SHAPE, direction, 3) / 0.4) + 30
    return rested(
        bar_frames(
            SHAPE, n_frames=n_frames, direction=direction, width=3, shift=0.4, contrast=contrast
        )
    )


def step(contrast):
    return rested(np.concatenate([np.zeros((1, *SHAPE)), np.full((60, *SHAPE), contrast)]))


def grating(where=True):
    moving = grating_frames(
        SHAPE, n_frames=200, direction=0, period=8, shift=0.3, contrast=1.0, phase=0.0
    )
    return rested(np.where(where, moving, moving[:1]))


@pytest.fixture(scope="module")
def responses():
    y, x = np.mgrid[:24, :24] - 11.5
    movies = {f"bar_{d}": bar(d) for d in (0, 90, 180, 270)}
    movies |= {
        "on": step(1.2),
        "off": step(-1.2),
        "global_grating": grating(),
        "local_grating": grating(np.hypot(y, x) < 5),
    }
    tree = simulate_retina(movies)
    return {name: 0.01 * tree[name]["true_rate"][60:] for name in movies}


def peak(responses, name, cell):
    return float(responses[name].sel(cell=cell).max())


@pytest.mark.parametrize("number", range(4))
def test_direction_selective_cells_prefer_their_direction(responses, number):
    cell, preferred = f"direction_selective_{number}", 90 * number
    towards = peak(responses, f"bar_{preferred}", cell)
    against = peak(responses, f"bar_{(preferred + 180) % 360}", cell)
    assert towards > 0.7
    assert towards > 8 * against


@pytest.mark.parametrize("cell", ["object_motion_0", "object_motion_1"])
def test_object_motion_cells_ignore_what_the_whole_field_does(responses, cell):
    local = float(responses["local_grating"].sel(cell=cell)[30:].mean())
    everywhere = float(responses["global_grating"].sel(cell=cell)[30:].mean())
    assert local > 50 * everywhere
    assert peak(responses, "bar_0", cell) > 8 * peak(responses, "on", cell)
    assert peak(responses, "bar_0", cell) > 8 * peak(responses, "off", cell)


@pytest.mark.parametrize("kind", ["sustained", "transient"])
@pytest.mark.parametrize("number", [0, 1])
def test_on_and_off_cells_see_steps_of_their_sign(responses, kind, number):
    on, off = f"on_{kind}_{number}", f"off_{kind}_{number}"
    assert peak(responses, "on", on) > 8 * peak(responses, "off", on)
    assert peak(responses, "off", off) > 8 * peak(responses, "on", off)


def test_sustained_cells_go_on_and_transient_cells_stop(responses):
    rate = responses["on"]
    late = rate[50:60].mean("time") / rate.max("time")
    assert float(late.sel(cell="on_sustained_0")) > 0.2
    assert float(late.sel(cell="on_transient_0")) < 0.05


def test_on_off_cells_see_both_signs_alike(responses):
    for cell in ("on_off_0", "on_off_1"):
        ratio = peak(responses, "on", cell) / peak(responses, "off", cell)
        assert 0.5 < ratio < 2


NOISE = stimuli.white_noise(n_frames=10, seed=0)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"stimulus": NOISE.values}, TypeError, "stimulus is a ndarray"),
        ({"stimulus": {}}, ValueError, "stimulus is empty"),
        ({"stimulus": {"a": NOISE.values}}, TypeError, r"stimulus\['a'\] is a ndarray"),
        ({"stimulus": NOISE.rename(time="frame")}, ValueError, "rename"),
        ({"stimulus": NOISE.where(NOISE > 0)}, ValueError, "NaN"),
        ({"stimulus": NOISE[:, :5]}, ValueError, "5 x 24 pixels"),
        (
            {"stimulus": stimuli.white_noise(n_frames=10, bin_width=0.02)},
            ValueError,
            "bins of 0.02 s",
        ),
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
