"""The true architecture, fitted again to spikes."""

import numpy as np
import pytest
import torch
import xarray as xr

import retina_codec as rc
from retina_codec.validation import refittable_circuit


@pytest.fixture(scope="module")
def movie():
    return rc.stimuli.white_noise(n_frames=2000, shape=(24, 24), seed=0)


@pytest.fixture(scope="module")
def circuit(movie):
    return rc.simulation.circuit("first", movie=movie)


def test_without_spread_it_is_the_circuit(circuit, movie):
    copy = refittable_circuit(circuit, spread=0)
    xr.testing.assert_allclose(copy.predict(movie[:300]), circuit.predict(movie[:300]), rtol=1e-5)


def test_the_start_is_seeded_and_leaves_the_circuit_alone(circuit, movie):
    before = circuit.predict(movie[:100])
    one, again, other = (refittable_circuit(circuit, seed=seed) for seed in (0, 0, 1))
    xr.testing.assert_identical(one.predict(movie[:100]), again.predict(movie[:100]))
    assert np.abs(one.predict(movie[:100]) - other.predict(movie[:100])).max() > 1
    for weight in one.network.parameters():
        with torch.no_grad():
            weight += 1
    xr.testing.assert_identical(before, circuit.predict(movie[:100]))


def test_wiring_stays_and_numbers_are_found_again(circuit, movie):
    recording = rc.simulate_retina(movie, "first", seed=0)
    start = refittable_circuit(circuit, seed=0)
    was = start.network.ganglion.weight.detach().clone(), start.network.amacrine.mix.detach()
    true = circuit.predict(movie)

    def error():
        return float(np.abs(start.predict(movie) - true).mean())

    far = error()
    rc.train(start, recording, max_epochs=8, learning_rate=0.03, progress=False)
    assert error() < far / 3
    now = start.network.ganglion.weight.detach(), start.network.amacrine.mix.detach()
    for before, after in zip(was, now, strict=True):
        assert torch.equal(before == 0, after == 0)
        assert not torch.allclose(before, after)
    # Each input of a cell is one strength times a pool of unchanged shape.
    ratio = (now[0] / was[0]).unflatten(1, (8, -1))
    spread = ratio.nan_to_num(0).amax(2) - torch.where(ratio.isnan(), torch.inf, ratio).amin(2)
    present = ~ratio.isnan().all(2)
    assert spread[present].abs().max() < 1e-3


def test_contributions_are_those_of_a_cut(circuit, movie):
    start = refittable_circuit(circuit, seed=1)
    tree = rc.contributions(start, movie[:60], progress=False)
    rise = tree["target"] - tree["target_baseline"]
    for layer in ("bipolar", "ganglion_input"):
        node = tree[f"layers/{layer}"]
        assert np.abs(node["completeness_error"]).max() < 0.1 * np.abs(rise).max()
        total = node["contribution"].sum(("channel", "y", "x"))
        assert np.corrcoef(total.values.ravel(), rise.values.ravel())[0, 1] > 0.99


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"circuit": "default"}, TypeError, "circuit is a str; expected one from"),
        ({"spread": -1.0}, ValueError, "spread=-1.0"),
        ({"seed": 0.5}, TypeError, "seed"),
    ],
)
def test_bad_input(circuit, given, error, message):
    with pytest.raises(error, match=message):
        refittable_circuit(**{"circuit": circuit, **given})
