"""The network against a literal, loop-by-loop computation, and what every model must hold to."""

import numpy as np
import pytest
import torch

import retina_codec as rc
from retina_codec import simulation, stimuli
from retina_codec.simulation.network import CircuitNetwork, Field
from retina_codec.simulation.specification import parse_specification, read_specification

SPEC = read_specification("default")
FIELD = Field((24, 24), 50.0, 0.01)
PAST = 39
BIPOLAR, AMACRINE = list(SPEC.bipolar), list(SPEC.amacrine)
PLACES = 50.0 * (np.arange(24) - 11.5)  # um, of pixels and of the lattice


@pytest.fixture(scope="module")
def model():
    return simulation.circuit("default")


@pytest.fixture(scope="module")
def movie():
    rng = np.random.default_rng(0)
    return torch.as_tensor(rng.normal(size=(2, 47, 24, 24)), dtype=torch.float32)


def literal_kernel(kind):
    """Photoreceptor and bipolar kernel over 40 lags of 10 ms, by plain sums."""

    def peaked(lags, tau, order):
        p = np.array([(t / tau) ** order * np.exp(-order * (t / tau - 1)) if t > 0 else 0.0
                      for t in lags])  # fmt: skip
        return p / p.sum()

    lags = 10.0 * np.arange(40)
    late = peaked(lags - kind.delay, kind.tau, kind.order)
    late = late - kind.late_weight * peaked(lags - kind.delay, kind.late_tau, kind.order)
    early = peaked(lags, SPEC.photoreceptor.tau, SPEC.photoreceptor.order)
    return np.array([sum(early[j] * late[i - j] for j in range(i + 1)) for i in range(40)])


def gaussian(sd, reach, pitch=50.0):
    """One-dimensional weights at places `pitch` apart, the middle one at 0."""
    n = int(reach / pitch)
    g = np.exp(-0.5 * (pitch * np.arange(-n, n + 1) / sd) ** 2)
    return g / g.sum()


def test_a_bipolar_cell_is_its_formula(model, movie):
    """One unit of each type, from the formula in the docs, with plain sums."""
    row, column, sample = 7, 12, 4
    window = movie[1, sample : sample + 40, row - 4 : row + 5, column - 4 : column + 5]
    window = window.double().numpy()
    output = model.network.bipolar(movie)
    assert output.shape == (2 * 8, 5, 24, 24)
    for channel, kind in enumerate(SPEC.bipolar.values()):
        centre, surround = (np.outer(g, g) for g in (gaussian(kind.centre_sd, 225),
                                                     gaussian(kind.surround_sd, 225)))  # fmt: skip
        space = centre - kind.surround_weight * surround
        drive = np.einsum("lyx,l,yx->", window[::-1], literal_kernel(kind), space)
        expected = max(kind.polarity * kind.scale * drive - kind.threshold, 0)
        found = float(output[8 + sample, channel, row, column])
        assert found == pytest.approx(expected, abs=5e-4)


def test_beyond_the_edge_there_is_grey(model, movie):
    """A movie in a larger grey frame gives the same drives inside."""
    larger = torch.nn.functional.pad(movie[:1, :41], (6, 6, 6, 6))
    wide = CircuitNetwork(SPEC, Field((36, 36), 50.0, 0.01))
    inside = wide.bipolar.drive(larger)[:, :, 6:-6, 6:-6]
    torch.testing.assert_close(inside, model.network.bipolar.drive(movie[:1, :41]))


def test_an_amacrine_cell_is_its_formula(model):
    bipolar = torch.rand(1, 5, 24, 24, generator=torch.Generator().manual_seed(0))
    output = model.network.amacrine(bipolar)
    wide = SPEC.amacrine["wide"]
    g = gaussian(wide.sd, 200)
    patch = bipolar[0, :, 6:15, 5:14].double().numpy()
    both = patch[BIPOLAR.index("on_transient")] + patch[BIPOLAR.index("off_transient")]
    expected = (both * np.outer(g, g)).sum() - wide.threshold
    channel = AMACRINE.index("wide")
    assert float(output[0, channel, 10, 9]) == pytest.approx(expected, abs=1e-5)
    # At the corner there is nothing beyond the edge.
    crossover = SPEC.amacrine["crossover"]
    g = gaussian(crossover.sd, 200)[4:]
    seen = bipolar[0, BIPOLAR.index("on_sustained"), :5, :5].double().numpy()
    corner = (seen * np.outer(g, g)).sum() - crossover.threshold
    channel = AMACRINE.index("crossover")
    assert float(output[0, channel, 0, 0]) == pytest.approx(max(corner, 0), abs=1e-5)


def test_ganglion_cells_are_linked_to_their_types_only(model):
    weight = model.network.ganglion.weight.reshape(len(SPEC.cells), 8, 24, 24).double().numpy()
    for i, (kind, cell) in enumerate(SPEC.cells.values()):
        pools = {pool.source: pool for pool in SPEC.ganglion[kind].inputs}
        for channel, name in enumerate([*BIPOLAR, *AMACRINE]):
            total = weight[i, channel].sum()
            if name not in pools:
                assert total == 0
                continue
            assert total == pytest.approx(cell.scale * pools[name].weight, rel=1e-4)
            pool = pools[name]
            angle = np.deg2rad(cell.preferred_direction or 0.0)
            share = weight[i, channel] / total
            at = [(share.sum(axis=1 - axis) * PLACES).sum() for axis in (0, 1)]
            if pool.sd < 70:  # wide pools are cut by the edge, which moves their middle
                assert at[0] == pytest.approx(cell.y + pool.ahead * np.sin(angle), abs=8)
                assert at[1] == pytest.approx(cell.x + pool.ahead * np.cos(angle), abs=8)
            if pool.inner_sd:
                nearest = np.abs(PLACES - cell.y).argmin(), np.abs(PLACES - cell.x).argmin()
                assert share[nearest] < 0.3 * share.max()


def test_segments_and_the_whole_movie_agree(model, movie):
    whole = model.network(movie)
    assert whole.shape == (16, 20)
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
    network = CircuitNetwork(SPEC, FIELD).double()
    assert not any(p.requires_grad for p in network.parameters())
    x = movie[:1, :43].double().requires_grad_()
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).double()
    rate = network(x)[:, 10].sum()
    (gradient,) = torch.autograd.grad(rate, x)
    step = 1e-6
    with torch.no_grad():
        change = (network(x + step * direction) - network(x - step * direction))[:, 10].sum()
    assert float((gradient * direction).sum()) == pytest.approx(
        float(change / (2 * step)), rel=1e-4
    )


@pytest.mark.parametrize("layer", ["bipolar", "ganglion_input"])
def test_two_layers_cut_the_network(model, movie, layer):
    """With its output replaced, nothing of the movie is left in the rates."""
    network = model.network
    fixed = []
    handle = model.layer(layer).register_forward_hook(lambda *out: fixed.append(out[2]))
    expected = network(movie[:1])
    handle.remove()
    handle = model.layer(layer).register_forward_hook(lambda *_: fixed[0])
    try:
        replaced = network(torch.randn(1, movie.shape[1], 24, 24))
    finally:
        handle.remove()
    torch.testing.assert_close(replaced, expected)


def test_grey_leaves_all_interneurons_silent(model):
    network = model.network
    bipolar = network.bipolar(torch.zeros(1, 40, 24, 24))
    assert float(bipolar.abs().max()) == 0
    assert float(network.amacrine(bipolar).abs().max()) == 0
    offsets = np.array([cell.offset for _, cell in SPEC.cells.values()])
    rate = network(torch.zeros(1, 40, 24, 24))[0]
    np.testing.assert_allclose(rate, 10 * np.log1p(np.exp(offsets)), rtol=1e-4)


@pytest.fixture(scope="module")
def tree(model):
    """Contributions at both cuts."""
    return rc.contributions(model, stimuli.moving_bars(n_frames=140, seed=3), progress=False)


class TestContributions:
    def test_both_cuts_are_complete(self, tree):
        change = tree["target"] - tree["target_baseline"]
        assert float(abs(change).max()) > 20
        for layer in ("bipolar", "ganglion_input"):
            error = tree[f"layers/{layer}"]["completeness_error"]
            assert float(abs(error).max()) < 0.02 * float(abs(change).max())

    def test_direct_bipolar_inputs_stand_apart_from_amacrine_ones(self, tree, model):
        received = tree["layers/ganglion_input"]["contribution"]
        assert received["channel"].values.tolist() == [*BIPOLAR, *AMACRINE]
        by_channel = received.sum(("y", "x"))
        for cell, (kind, _) in SPEC.cells.items():
            sources = {pool.source for pool in SPEC.ganglion[kind].inputs}
            used = abs(by_channel.sel(cell=cell)).max("time") > 0
            assert set(received["channel"].values[used]) <= sources
        parts = simulation.excitation_and_inhibition(received, model)
        xr_total = parts["excitation"] + parts["inhibition"]
        np.testing.assert_allclose(xr_total, received.sum(("channel", "y", "x")), atol=2e-3)
        # From silence at grey, excitation can only add, inhibition only take away.
        assert float(parts["excitation"].min()) > -0.01
        assert float(parts["inhibition"].max()) < 0.01 * float(parts["excitation"].max())
        assert float(parts["inhibition"].min()) < -1
        with pytest.raises(ValueError, match="not of the layer 'ganglion_input'"):
            simulation.excitation_and_inhibition(tree["layers/bipolar"]["contribution"], model)

    def test_at_bipolar_outputs_the_delayed_type_only_inhibits(self, tree):
        """Its only way is through the starburst cells."""
        total = tree["layers/bipolar"]["contribution"].sum(("y", "x")).sel(channel="on_delayed")
        assert float(total.max()) < 0.02
        assert float(total.min()) < -1


class TestField:
    def test_finer_pixels_show_the_same_retina_the_same_movie(self):
        """Each pixel split in four: almost the same rates, at the same places."""
        movie = stimuli.Screen().moving_bars(n_frames=120, seed=1)
        fine = movie.isel(y=np.arange(24).repeat(2), x=np.arange(24).repeat(2))
        fine = stimuli.Screen((48, 48), 25.0).place(fine)
        coarse_rate = simulation.circuit(movie=movie).predict(movie)
        fine_rate = simulation.circuit(movie=fine).predict(fine)
        r = np.corrcoef(coarse_rate.values.ravel(), fine_rate.values.ravel())[0, 1]
        assert r > 0.98

    def test_shorter_bins_show_the_same_retina_the_same_movie(self):
        movie = stimuli.Screen().moving_bars(n_frames=120, seed=1)
        fast = stimuli.Screen(bin_width=0.005)
        twice = movie.isel(time=np.arange(120).repeat(2)).drop_vars(["time", "block"])
        twice = fast.place(
            twice.assign_coords(time=rc.time_coordinate(0.005 * np.arange(240), 0.005))
        )
        slow_rate = simulation.circuit(movie=movie).predict(movie)
        model = simulation.circuit(movie=twice)
        assert model.history == 80
        fast_rate = model.predict(twice).isel(time=slice(0, None, 2))
        n = min(slow_rate.sizes["time"], fast_rate.sizes["time"])
        r = np.corrcoef(slow_rate.values[:n].ravel(), fast_rate.values[:n].ravel())[0, 1]
        assert r > 0.95

    def test_units_lie_at_their_places_in_the_movies_coordinates(self, model):
        noise = stimuli.Screen((24, 26), 50.0).white_noise(n_frames=60, seed=0)
        wide = simulation.circuit(movie=noise)
        samples = wide.samples(noise)
        coords = samples.layer_coords("bipolar", (1, 5, 24, 26))
        np.testing.assert_allclose(coords["x"], 50 * (np.arange(26) - 12.5))
        assert coords["x"].attrs["units"] == "um"
        assert coords["channel"].values.tolist() == BIPOLAR
        pixels = stimuli.white_noise(n_frames=60, seed=0)
        coords = model.samples(pixels).layer_coords("amacrine", (1, 3, 24, 24))
        np.testing.assert_allclose(coords["y"], np.arange(24))

    def test_a_margin_leaves_the_edge_without_interneurons(self):
        noise = stimuli.white_noise(n_frames=60, seed=0)
        first = simulation.circuit("first")
        assert first.network.bipolar(torch.zeros(1, 40, 24, 24)).shape == (1, 5, 16, 16)
        coords = first.samples(noise).layer_coords("bipolar", (1, 5, 16, 16))
        np.testing.assert_allclose(coords["y"], np.arange(4, 20))

    def test_the_model_predicts_with_labels(self, model):
        noise = stimuli.white_noise(n_frames=60, seed=0)
        rate = model.predict(noise)
        assert rate.dims == ("time", "cell")
        np.testing.assert_array_equal(rate["time"], noise["time"][PAST:])
        assert list(rate["cell"].values) == list(SPEC.cells)


def without_pixel_size():
    plain = SPEC.to_mapping()
    del plain["pixel_size"]
    return parse_specification(plain)


def in_units(units, pitch=50.0):
    noise = stimuli.white_noise(n_frames=60, seed=0)
    return noise.assign_coords(
        {axis: (axis, pitch * np.arange(24), {"units": units}) for axis in ("y", "x")}
    )


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"shape": (5, 30)}, r"circuit.ganglion.\w+.mosaic.extent: a cell .* outside the movie"),
        ({"shape": (24,)}, r"shape=\(24,\)"),
        ({"pixel_size": 10.0}, r"mosaic.extent: .* \(24 x 24 pixels of 10 um\)"),
        ({"pixel_size": 200.0}, r"pixels of 200 um; the centres .* at most 112.5 um"),
        ({"pixel_size": 0}, r"pixel_size=0; expected um"),
        ({"bin_width": 0.05}, r"bins of 0.05 s; .* at most 0.0165 s"),
        ({"movie": in_units("degree")}, r"movie has coordinate 'y' in 'degree'; expected micro"),
        ({"movie": in_units("um", -50.0)}, r"coordinate 'y' does not grow in equal steps"),
        ({"movie": in_units("um", 5.0)}, r"mosaic.extent: .* 120 x 120 um"),
        ({"movie": in_units("um"), "shape": (24, 24)}, r"give either, not both"),
        ({"name_or_yaml": without_pixel_size()}, r"pixel_size is not given"),
        (
            {"name_or_yaml": without_pixel_size(), "movie": in_units("pixel", 1)},
            r"movie has no pixel size",
        ),
        ({"name_or_yaml": "first", "shape": (8, 30)}, r"shape is 400 x 1500 um .* at least 450"),
    ],
)
def test_a_field_that_does_not_fit_is_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        simulation.circuit(**kwargs)


def test_pixels_of_two_sizes_are_refused():
    movie = in_units("um").assign_coords(x=("x", 25.0 * np.arange(24), {"units": "um"}))
    with pytest.raises(ValueError, match="pixels of 25 x 50 um; expected square"):
        simulation.circuit(movie=movie)


def test_millimetres_are_understood_and_another_pixel_size_is_refused(model):
    assert simulation.circuit(movie=in_units("mm", 0.05)).field.pixel_size == pytest.approx(50)
    with pytest.raises(ValueError, match="data has pixels of 60 um; the circuit was built for 50"):
        model.predict(in_units("um", 60.0))
