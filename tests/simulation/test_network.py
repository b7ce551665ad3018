"""The network against a literal, loop-by-loop computation, and what every model must hold to."""

import numpy as np
import pytest
import torch

from retina_codec import simulation, stimuli
from retina_codec.simulation.network import CircuitNetwork
from retina_codec.simulation.specification import read_specification

SPEC = read_specification("default")
PAST = SPEC.history - 1


@pytest.fixture(scope="module")
def model():
    return simulation.circuit("default", shape=(24, 24))


@pytest.fixture(scope="module")
def movie():
    rng = np.random.default_rng(0)
    return torch.as_tensor(rng.normal(size=(2, SPEC.history + 7, 24, 24)), dtype=torch.float32)


def test_a_bipolar_cell_is_its_formula(model, movie):
    """One unit of each type, from the formula in the docs, with plain sums."""
    row, column, sample = 3, 11, 4
    window = movie[1, sample : sample + 40, row : row + 9, column : column + 9].double().numpy()
    y, x = np.mgrid[-4:5, -4:5]

    def gaussian(sd):
        g = np.exp(-(y**2 + x**2) / (2 * sd**2))
        return g / g.sum()

    def peaked(tau, lag):
        p = np.where(lag > 0, (lag / tau) ** 4 * np.exp(-4 * (lag / tau - 1)), 0.0)
        return p / p.sum()

    output = model.network.bipolar(movie)
    assert output.shape == (2 * 8, 5, 16, 16)
    for channel, kind in enumerate(SPEC.bipolar.values()):
        lag = np.arange(40) * 0.01 - kind.delay
        time = peaked(kind.tau, lag) - kind.late_weight * peaked(kind.late_tau, lag)
        space = gaussian(kind.centre_sd) - kind.surround_weight * gaussian(kind.surround_sd)
        drive = kind.polarity * kind.scale * np.einsum("lyx,l,yx->", window[::-1], time, space)
        expected = max(drive - kind.threshold, 0)
        found = float(output[8 + sample, channel, row, column])
        assert found == pytest.approx(expected, abs=2e-4)


def test_an_amacrine_cell_is_its_formula(model):
    bipolar = torch.rand(1, 5, 16, 16, generator=torch.Generator().manual_seed(0))
    output = model.network.amacrine(bipolar)
    g = np.exp(-((np.arange(7) - 3.0) ** 2) / (2 * 2.5**2))
    g = np.outer(g, g) / g.sum() ** 2
    patch = bipolar[0, :, 2:9, 5:12].double().numpy()
    expected = ((patch[2] + patch[3]) * g).sum() - 0.15
    assert float(output[0, 0, 5, 8]) == pytest.approx(expected, abs=1e-5)
    # At the corner there is nothing beyond the edge.
    corner = (bipolar[0, 0, :4, :4].double().numpy() * g[3:, 3:]).sum() - 0.1
    assert float(output[0, 1, 0, 0]) == pytest.approx(max(corner, 0), abs=1e-5)


def test_ganglion_cells_are_linked_to_their_types_only(model):
    network = model.network
    weights = network.ganglion.bipolar_weight.reshape(16, 5, 16, 16)
    names = list(SPEC.bipolar)
    cells = list(SPEC.cells)
    for i, (kind, cell) in enumerate(SPEC.cells.values()):
        sources = {s.source: s for s in SPEC.ganglion[kind].inputs}
        for channel, name in enumerate(names):
            total = float(weights[i, channel].sum())
            expected = cell.scale * sources[name].weight if name in sources else 0.0
            assert total == pytest.approx(expected, rel=1e-4), cells[i]
    starburst = network.ganglion.amacrine_weight.reshape(16, 3, 16, 16)[
        cells.index("direction_selective_0"), 2
    ]
    place = (starburst.sum(dim=0) * torch.arange(16)).sum() / starburst.sum()
    assert float(place) == pytest.approx(7.5 - 1 + 4, abs=0.3)  # ahead, towards +x


def test_segments_and_the_whole_movie_agree(model, movie):
    whole = model.network(movie)
    assert whole.shape == (16, 16)
    for segment in range(2):
        for sample in range(8):
            window = movie[segment : segment + 1, sample : sample + 40]
            np.testing.assert_allclose(
                model.network(window)[0], whole[8 * segment + sample], rtol=1e-4, atol=1e-4
            )


def test_a_later_frame_cannot_alter_an_earlier_rate(model, movie):
    later = movie.clone()
    later[0, 44:] += 3.0
    before, after = model.network(movie), model.network(later)
    torch.testing.assert_close(after[:5], before[:5], rtol=0, atol=0)
    torch.testing.assert_close(after[8:], before[8:], rtol=0, atol=0)
    assert (after[5:8] - before[5:8]).abs().max() > 1


def test_gradients_reach_the_movie_and_parameters_are_frozen(movie):
    network = CircuitNetwork(SPEC, (24, 24)).double()
    assert not any(p.requires_grad for p in network.parameters())
    x = movie[:1, :41].double().requires_grad_()
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).double()
    rate = network(x)[:, 10].sum()
    (gradient,) = torch.autograd.grad(rate, x)
    step = 1e-6
    with torch.no_grad():
        change = (network(x + step * direction) - network(x - step * direction))[:, 10].sum()
    assert float((gradient * direction).sum()) == pytest.approx(
        float(change / (2 * step)), rel=1e-4
    )


def test_the_bipolar_layer_cuts_the_network(model, movie):
    """With its output replaced, nothing of the movie is left in the rates."""
    network = model.network
    fixed = network.bipolar(movie[:1])
    handle = network.bipolar.register_forward_hook(lambda *_: fixed)
    try:
        replaced = network(torch.randn(1, movie.shape[1], 24, 24))
    finally:
        handle.remove()
    torch.testing.assert_close(replaced, network(movie[:1]))


def test_grey_leaves_all_interneurons_silent(model):
    network = model.network
    bipolar = network.bipolar(torch.zeros(1, 40, 24, 24))
    assert float(bipolar.abs().max()) == 0
    assert float(network.amacrine(bipolar).abs().max()) == 0
    offsets = np.array([cell.offset for _, cell in SPEC.cells.values()])
    rate = network(torch.zeros(1, 40, 24, 24))[0]
    np.testing.assert_allclose(rate, 10 * np.log1p(np.exp(offsets)), rtol=1e-4)


def test_the_model_predicts_with_labels(model):
    noise = stimuli.white_noise(n_frames=60, seed=0)
    rate = model.predict(noise)
    assert rate.dims == ("time", "cell")
    np.testing.assert_array_equal(rate["time"], noise["time"][PAST:])
    assert list(rate["cell"].values) == list(SPEC.cells)
    coords = model.samples(noise).layer_coords("bipolar", (1, 5, 16, 16))
    np.testing.assert_array_equal(coords["y"], np.arange(4, 20))
    assert list(coords["channel"].values) == list(SPEC.bipolar)


def test_a_small_field_is_refused():
    with pytest.raises(ValueError, match=r"shape=\(8, 30\).*at least 9 pixels"):
        simulation.circuit("default", shape=(8, 30))
