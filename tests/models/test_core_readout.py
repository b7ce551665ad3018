"""Core-readout models against plain loops; planted places; what sharing a core is good for."""

import numpy as np
import pytest
import torch
import xarray as xr

import retina_codec as rc
from retina_codec._common.time import block_coordinate, time_coordinate
from retina_codec.models.core_readout import CoreReadout, fitting_kernels, fitting_lags
from retina_codec.models.readouts import FactorisedReadout, GaussianReadout
from retina_codec.models.segments import Segments, joint_batches
from retina_codec.models.shared_core import SharedCore, train_jointly


def movie_of(n, shape=(8, 9), seed=0, blocks=None):
    values = np.random.default_rng(seed).normal(size=(n, *shape)).astype(np.float32)
    coords = {"time": time_coordinate(np.arange(n) * 0.01, 0.01)}
    coords |= {"y": 100.0 + 4 * np.arange(shape[-2]), "x": 4.0 * np.arange(shape[-1])}
    if blocks is not None:
        coords["block"] = block_coordinate(blocks)
    dims = ("time", "color", "y", "x")[-len(shape) - 1 :] if len(shape) == 3 else ("time", "y", "x")
    return xr.DataArray(values, dims=dims, coords=coords)


def small(shape=(8, 9), seed=0, **options):
    """A model whose weights and running statistics are all of some size."""
    settings = {"history": 6, "bin_width": 0.01, "cells": ["a", "b", "c"], "channels": (3, 2)}
    settings |= {"spatial_kernel_sizes": (3, 3), "temporal_kernel_sizes": (4, 3)}
    model = CoreReadout(shape, **(settings | options))
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.network.state_dict().items():
            if value.is_floating_point() and "position" not in name and "log_sd" not in name:
                value.copy_(torch.randn(value.shape, generator=rng) * 0.5)
                if "running_var" in name:
                    value.abs_().add_(0.5)
            elif "position" in name:
                value.copy_(torch.rand(value.shape, generator=rng) * 2.2 - 1.1)
    return model


def literal(model, movie):
    """Rates (sample, cell) of one block, in NumPy: loops over samples, frames and pixels."""
    parts = {k: v.double().numpy() for k, v in model.network.state_dict().items()}
    maps = (movie.values.astype(float) - model.mean) / model.sd
    maps = maps[:, None] if maps.ndim == 3 else maps  # (frame, channel, y, x)
    for i in range(len(model._config["channels"])):
        p = {
            key.split(f"convolutions.{i}.")[1]: value
            for key, value in parts.items()
            if f"convolutions.{i}." in key
        }
        kernel = p["space.weight"]
        ky, kx = kernel.shape[-2:]
        if i > 0:
            half = ((ky - 1) // 2, (kx - 1) // 2)
            maps = np.pad(maps, ((0, 0), (0, 0), (half[0],) * 2, (half[1],) * 2))
        height, width = maps.shape[2] - ky + 1, maps.shape[3] - kx + 1
        spatial = np.zeros((len(maps), len(kernel), height, width))
        for y in range(height):
            for x in range(width):
                patch = maps[:, :, y : y + ky, x : x + kx]
                spatial[:, :, y, x] = np.einsum("tcyx,ocyx->to", patch, kernel)
        in_time = p["time.weight"][..., 0]  # (out, in, lag)
        n = in_time.shape[2]
        maps = np.stack(
            [
                np.einsum("lcyx,ocl->oyx", spatial[t : t + n], in_time)
                for t in range(len(spatial) - n + 1)
            ]
        )
        shape = (1, -1, 1, 1)
        maps = (maps - p["norm.running_mean"].reshape(shape)) / np.sqrt(
            p["norm.running_var"].reshape(shape) + 1e-5
        ) * p["norm.weight"].reshape(shape) + p["norm.bias"].reshape(shape)
        maps = np.where(maps > 0, maps, np.expm1(maps))
    height, width = maps.shape[-2:]
    drive = np.zeros((len(maps), len(model.outputs))) + parts["readout.bias"]
    for cell in range(len(model.outputs)):
        if "readout.mask" in parts:
            mask = abs(parts["readout.mask"][cell])
            seen = (maps * mask).sum((2, 3))
        else:
            y, x = (np.clip(parts["readout.position"][cell], -1, 1) + 1) / 2
            y, x = y * (height - 1), x * (width - 1)
            y0, x0 = min(int(y), max(height - 2, 0)), min(int(x), max(width - 2, 0))
            y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
            wy, wx = y - y0, x - x0
            seen = (1 - wy) * ((1 - wx) * maps[:, :, y0, x0] + wx * maps[:, :, y0, x1]) + wy * (
                (1 - wx) * maps[:, :, y1, x0] + wx * maps[:, :, y1, x1]
            )
        drive[:, cell] += seen @ parts["readout.features"][cell]
    return np.logaddexp(0, drive) / model.bin_width


@pytest.mark.parametrize("readout", ["gaussian", "factorised"])
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((8, 9), {}),
        ((2, 7, 6), {}),
        ((1, 1), {}),
        ((1, 9), {}),
        (
            (8, 9),
            {"channels": (2, 3, 2), "spatial_kernel_sizes": (4, 1, 3)}
            | {"temporal_kernel_sizes": (2, 1, 5)},
        ),
        ((8, 9), {"channels": (2,), "spatial_kernel_sizes": (3,), "temporal_kernel_sizes": (6,)}),
    ],
)
def test_forward_is_the_literal_one(readout, shape, options):
    model = small(shape, readout=readout, mean=0.4, sd=1.7, **options)
    model.network.double()
    movie = movie_of(14, shape)
    found = model.network(model.samples(movie).frames(0, 14)).detach().numpy()
    np.testing.assert_allclose(found, literal(model, movie), rtol=1e-10)
    # Two segments: one after the other, samples in time order.
    frames = torch.cat([model.samples(movie).frames(i, i + 10) for i in (0, 4)])
    both = model.network(frames).detach().numpy()
    np.testing.assert_allclose(both[:5], found[:5], rtol=1e-10)
    np.testing.assert_allclose(both[5:], found[4:], rtol=1e-10)


def test_prediction_depends_on_neither_batches_nor_the_future_nor_other_blocks():
    model, movie = small(), movie_of(60, blocks=np.repeat([0, 1], [25, 35]))
    whole = model.predict(movie)
    np.testing.assert_allclose(model.predict(movie, batch_size=7), whole, rtol=1e-4)
    np.testing.assert_allclose(whole[20:], literal(model, movie[25:]), rtol=1e-3)
    later = movie.copy()
    later[40:] += 3
    changed = model.predict(later)
    same = (whole["time"] < movie["time"].values[40]).values
    np.testing.assert_allclose(changed[same], whole[same], rtol=1e-4)
    assert (abs(changed - whole)[~same].max("cell") > 1e-3).all()


def test_every_layer_has_windows_of_its_own():
    """The same rates, and layers whose last lag is the current frame."""
    model, movie = small(), movie_of(20)
    twin = model.with_all_layers()
    assert twin.default_layers == ("layer1", "layer2")
    assert model.default_layers == ("layer2",)
    assert twin.fingerprint == model.fingerprint
    np.testing.assert_allclose(twin.predict(movie), model.predict(movie), rtol=1e-4)
    steps = rc.methods.IntegratedGradients(steps=200)
    tree = rc.contributions(twin, movie, method=steps, progress=False)
    change = tree["target"] - tree["target_baseline"]
    assert float(abs(change).max()) > 10
    for name, channels in (("layer1", 9), ("layer2", 2)):
        layer = tree[f"layers/{name}"]
        assert layer.sizes["channel"] == channels
        total = layer["contribution"].sum(["channel", "y", "x"])
        np.testing.assert_allclose(total, change, atol=0.02 * float(abs(change).max()))
        # 3 x 3 kernels without padding, then with it, on pixels 4 apart.
        np.testing.assert_allclose(layer["y"], 104 + 4 * np.arange(6))
        np.testing.assert_allclose(layer["x"], 4 + 4 * np.arange(7))
    assert tree["layers/layer1"]["channel"].values[:4].tolist() == [
        "0 at 0.02 s",
        "0 at 0.01 s",
        "0 at 0 s",
        "1 at 0.02 s",
    ]
    # With one layer asked for, the samples share what they can: the same contributions.
    plain = rc.contributions(model, movie, method=steps, progress=False)
    np.testing.assert_allclose(
        plain["layers/layer2/contribution"], tree["layers/layer2/contribution"], atol=1e-2
    )


def test_a_window_holds_the_layer_at_its_lags():
    model, movie = small().with_all_layers(), movie_of(20)
    seen = {}
    handle = model.layers["layer1"].register_forward_hook(
        lambda module, inputs, output: seen.update(windows=output)
    )
    frames = model.samples(movie).frames(0, 20)
    with torch.no_grad():
        model.network(frames)
        handle.remove()
        whole = model.core.convolutions[0](frames[:, None])[0]  # (channel, frame, y, x)
    windows = seen["windows"].unflatten(1, (3, 3))
    for sample in (0, 7):
        torch.testing.assert_close(windows[sample], whole[:, sample : sample + 3])


def test_while_training_places_are_drawn_from_their_gaussian():
    """On a map that is its own coordinate, the readout tells where it looked."""
    readout = GaussianReadout(2, (21, 31), 2)
    y, x = torch.meshgrid(torch.arange(21.0), torch.arange(31.0), indexing="ij")
    maps = torch.stack([y, x]).expand(4000, -1, -1, -1)
    with torch.no_grad():
        readout.position.copy_(torch.tensor([[0.2, -0.1], [-0.3, 0.3]]))
        readout.log_sd.copy_(torch.tensor([0.1, 0.05]).log())
        readout.features.copy_(torch.eye(2))
        torch.manual_seed(0)
        drawn = readout(maps)
        mean, sd = readout.places()
        resting = readout.eval()(maps[:1])
    # The first cell gives the row it looked at, the second the column.
    expected = torch.tensor([mean[0, 0], mean[1, 1]])
    torch.testing.assert_close(resting[0], expected.float())
    torch.testing.assert_close(mean, torch.tensor([[12.0, 13.5], [7.0, 19.5]]).double())
    torch.testing.assert_close(drawn.mean(0), expected.float(), atol=0.06, rtol=0)
    torch.testing.assert_close(
        drawn.std(0), torch.tensor([sd[0, 0], sd[1, 1]]).float(), atol=0.05, rtol=0
    )


def test_places_of_masks_are_their_moments():
    readout = FactorisedReadout(1, (3, 4), 1)
    with torch.no_grad():
        readout.mask.zero_()
        readout.mask[0, 1, 1], readout.mask[0, 1, 3] = 1.0, -1.0
    mean, sd = readout.places()
    np.testing.assert_allclose(mean[0], [1, 2])
    np.testing.assert_allclose(sd[0], [0, 1])
    assert float(readout.penalty().detach()) == pytest.approx(
        2 * float(abs(readout.features.detach()).sum())
    )


SIDE, HISTORY = 12, 5
SIZES = {"channels": (3, 3), "spatial_kernel_sizes": (5, 3), "temporal_kernel_sizes": (4, 2)}


def truth(cells, seed):
    """A model with smooth centre-surround kernels and cells at known places."""
    model = CoreReadout((SIDE, SIDE), history=HISTORY, bin_width=0.01, cells=cells, seed=1, **SIZES)
    rng = np.random.default_rng(seed)
    grid = np.arange(5) - 2.0
    distance = grid[:, None] ** 2 + grid**2
    centre, surround = np.exp(-distance / 1.2), np.exp(-distance / 8)
    kernel = torch.from_numpy(centre / centre.sum() - 0.6 * surround / surround.sum()).float()
    first, second = model.core.convolutions
    with torch.no_grad():
        first.space.weight.copy_(torch.stack([kernel, -kernel, 0.7 * kernel])[:, None])
        first.time.weight.zero_()
        for i, profile in enumerate(([0, 0.3, 1, 0.5], [0, 0.3, 1, 0.5], [-0.8, -0.6, 1, 0.8])):
            first.time.weight[i, i, :, 0] = torch.tensor(profile) * 2
        second.space.weight.zero_()
        second.time.weight.zero_()
        for i in range(3):
            second.space.weight[i, i, 1, 1] = 1.5
            second.time.weight[i, i, :, 0] = torch.tensor([0.2, 1.0])
        places = rng.uniform(-0.7, 0.7, size=(len(cells), 2))
        model.network.readout.position.copy_(torch.from_numpy(places))
        features = rng.dirichlet([0.4] * 3, size=len(cells)) * 2.5
        model.network.readout.features.copy_(torch.from_numpy(features))
        model.network.readout.bias.fill_(-0.5)
    return model


def recorded(model, n, seed):
    """White noise and Poisson counts of a model, and its true rates."""
    movie = movie_of(n, (SIDE, SIDE), seed=seed)
    rate = model.predict(movie)
    whole = rate.reindex(time=movie["time"], fill_value=0.0)
    counts = np.random.default_rng(seed).poisson(whole.values * 0.01)
    node = xr.Dataset({"stimulus": movie, "spike_count": (("time", "cell"), counts)})
    node = node.assign_coords(cell=model.outputs)
    node["time"].attrs.update(movie["time"].attrs)
    return node, rate


def distance(model, planted):
    """From each cell's place to the planted one, in pixels."""
    found, there = model.places(), planted.places()
    return np.hypot(found["y"] - there["y"], found["x"] - there["x"]).values


@pytest.mark.parametrize("start", ["average", "centre"])
def test_gaussian_readout_finds_the_planted_places(start):
    """With the true core given: all cells from their averages, most from the middle."""
    planted = truth([f"c{i}" for i in range(8)], seed=4)
    with torch.no_grad():
        planted.network.readout.features.copy_(2.5 * torch.eye(3)[torch.arange(8) % 3])
    node, _ = recorded(planted, 4000, seed=0)
    model = CoreReadout.for_recording(node, history=HISTORY, start=start, **SIZES)
    model.core.load_state_dict(planted.core.state_dict())
    model.core.requires_grad_(False)
    for convolution in model.core.convolutions:
        convolution.norm.momentum = 0.0  # keeps the statistics that the truth was made with
    before, width = distance(model, planted), model.places()["y_sd"]
    rc.train(model, node, max_epochs=8, learning_rate=0.05, n_segments=4, progress=False)
    after = distance(model, planted)
    assert (model.places()["y_sd"] < width).all()
    if start == "average":
        assert before.max() < 1
        assert after.max() < 0.25
    else:
        assert (before > 1).sum() >= 6
        assert (after < 0.25).sum() >= 6


def test_a_silent_cell_starts_in_the_middle():
    node, _ = recorded(truth(["a", "b"], seed=4), 500, seed=0)
    node["spike_count"][:, 1] = 0
    model = CoreReadout.for_recording(node, history=HISTORY, **SIZES)
    places = model.places()
    assert float(places["y"][1]) == float(places["x"][1]) == (SIDE - 1) / 2
    assert np.isfinite(model.predict(node["stimulus"]).values).all()


def score(model, node, rate):
    """Mean correlation with the true rate."""
    predicted = model.predict(node["stimulus"]).values
    return np.mean(
        [np.corrcoef(a, b)[0, 1] for a, b in zip(predicted.T, rate.values.T, strict=True)]
    )


def test_a_small_recording_gains_from_a_large_one():
    """Two recordings of one retina; as many steps of the small one alone do not make up for it."""
    large, small_one = truth([f"l{i}" for i in range(10)], 1), truth([f"s{i}" for i in range(3)], 2)
    nodes = {"large": recorded(large, 4000, 1)[0], "small": recorded(small_one, 150, 2)[0]}
    unseen = {"large": recorded(large, 500, 11)[0], "small": recorded(small_one, 500, 12)[0]}
    test, rate = recorded(small_one, 2000, 3)
    options = {"learning_rate": 0.02, "n_segments": 4, "segment_length": 32, "progress": False}
    model = CoreReadout.for_recordings(nodes, history=HISTORY, **SIZES)
    history = train_jointly(model, nodes, validation=unseen, max_epochs=6, **options)
    assert history["validation_loss"].dims == ("epoch", "session")
    kept = history["validation_loss"].isel(epoch=history.attrs["best_epoch"])
    for name, session in model.sessions.items():
        counts = unseen[name]["spike_count"].values[HISTORY - 1 :]
        expected = session.predict(unseen[name]["stimulus"]).values * 0.01
        loss = (expected - counts * np.log(expected + 1e-6)).mean()
        assert float(kept.sel(session=name)) == pytest.approx(loss, rel=1e-4)
    alone = CoreReadout.for_recording(nodes["small"], history=HISTORY, **SIZES)
    steps = 6 * len(Segments(model.session("large"), nodes["large"], 4, 32, 0))
    epochs = steps // len(Segments(alone, nodes["small"], 4, 32, 0))
    assert epochs > 50
    rc.train(alone, nodes["small"], validation=unseen["small"], max_epochs=epochs, **options)
    joint, separate = (score(m, test, rate) for m in (model.session("small"), alone))
    assert joint > separate + 0.1, (joint, separate)
    assert joint > 0.7, (joint, separate)


@pytest.fixture
def shared():
    nodes = {}
    for name, size, cells in (("one", (8, 9), ["a", "b"]), ("two/b", (7, 7), ["c", "d", "e"])):
        movie = movie_of(300, size, seed=len(name)) * 3 + len(name)
        counts = np.random.default_rng(0).poisson(0.4, size=(300, len(cells)))
        nodes[name] = xr.Dataset(
            {"stimulus": movie, "spike_count": (("time", "cell"), counts)}, {"cell": cells}
        )
    return CoreReadout.for_recordings(nodes, history=6, channels=(2, 2)), nodes


def test_sessions_share_one_core_and_have_settings_of_their_own(shared):
    model, nodes = shared
    one, two = model.session("one"), model.session("two/b")
    assert one.core is two.core
    assert one.input_shape == (8, 9)
    assert two.input_shape == (7, 7)
    assert one.mean == pytest.approx(float(nodes["one"].stimulus.mean()))
    assert two.mean == pytest.approx(float(nodes["two/b"].stimulus.mean()))
    before = [m.predict(nodes[n].stimulus).values for n, m in model.sessions.items()]
    with torch.no_grad():
        one.core.convolutions[0].norm.bias += 1
    after = [m.predict(nodes[n].stimulus).values for n, m in model.sessions.items()]
    for a, b in zip(before, after, strict=True):
        assert abs(a - b).max() > 1e-3
    # Untrained rates start near each cell's mean count.
    found = before[1].mean(0) * 0.01
    np.testing.assert_allclose(found, nodes["two/b"].spike_count.mean("time"), rtol=0.9)
    tree = rc.contributions(one, nodes["one"].stimulus[:20], progress=False)
    assert tree["layers/layer2"].sizes["channel"] == 2


def test_shared_models_are_saved_and_loaded(shared, tmp_path):
    model, nodes = shared
    again = SharedCore.load(model.save(tmp_path / "model"))
    assert list(again.sessions) == ["one", "two/b"]
    assert again.fingerprint == model.fingerprint
    assert again.session("one").core is again.session("two/b").core
    for name, node in nodes.items():
        xr.testing.assert_identical(
            again.session(name).predict(node.stimulus), model.session(name).predict(node.stimulus)
        )
    single = rc.load_model(tmp_path / "model" / "session1")
    assert single.fingerprint == model.session("two/b").fingerprint
    with torch.no_grad():
        single.core.convolutions[0].norm.bias += 1
    single.save(tmp_path / "model" / "session1")
    with pytest.raises(ValueError, match="not those that were saved together"):
        SharedCore.load(tmp_path / "model")


def test_joint_batches_give_every_recording_its_turn(shared):
    model, nodes = shared
    nodes = nodes | {"one": nodes["one"].isel(time=slice(0, 120))}
    segments = {n: Segments(m, nodes[n], 2, 16, 0) for n, m in model.sessions.items()}
    n = len(segments["two/b"])
    assert n > 2 * len(segments["one"])
    epochs = [list(joint_batches(segments, seed=3, epoch=epoch)) for epoch in (0, 0, 1)]
    names = [[name for name, _, _ in batches] for batches in epochs]
    assert names[0] == names[1]
    assert names[0] != sorted(names[0])
    assert [names[0].count(name) for name in segments] == [n, n]
    for first, second in zip(epochs[0], epochs[1], strict=True):
        torch.testing.assert_close(first[1], second[1], rtol=0, atol=0)
    # The short one is cut anew in every pass.
    seen = torch.cat([frames for name, frames, _ in epochs[0] if name == "one"])
    assert len(seen.flatten(1).unique(dim=0)) > 0.8 * len(seen)
    for batches in epochs:
        for name, frames, counts in batches:
            assert frames.shape[1:] == (16 + 5, *model.session(name).input_shape)
            assert counts.shape == (16 * len(frames), len(model.session(name).outputs))


def test_joint_training_leaves_nothing_behind_and_repeats_itself(shared):
    model, nodes = shared
    start = {k: v.clone() for k, v in model.network.state_dict().items()}
    prints = []
    for seed in (0, 0, 1):
        model.network.load_state_dict(start)
        torch.manual_seed(9)
        expected = torch.rand(3)
        torch.manual_seed(9)
        train_jointly(model, nodes, max_epochs=1, segment_length=16, seed=seed, progress=False)
        torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)
        assert not any(module.training for module in model.network.modules())
        prints.append(model.fingerprint)
    assert prints[0] == prints[1] != prints[2]


def test_defaults_fit_any_frame_and_history():
    assert fitting_kernels(50, 2) == [11, 5]
    assert fitting_kernels(16, 3) == [7, 5, 5]
    assert fitting_kernels(1, 2) == [1, 1]
    assert fitting_lags(31, 2) == [21, 11]
    for history in (1, 2, 3, 40):
        for n in (1, 2, 3):
            lags = fitting_lags(history, n)
            assert min(lags) >= 1
            assert sum(size - 1 for size in lags) + 1 == history
    for shape in ((1, 1), (1, 12), (12, 1), (50, 50), (3, 6, 5)):
        model = CoreReadout(shape, history=3, bin_width=0.01, cells=["a"])
        assert model.predict(movie_of(6, shape)).sizes == {"time": 4, "cell": 1}


class TestBadInput:
    def test_lags_that_do_not_make_the_history(self):
        with pytest.raises(ValueError, match=r"look back over 6 frames; expected history=7"):
            small(history=7)

    def test_even_kernel_after_the_first(self):
        with pytest.raises(ValueError, match="sizes after the first are to be odd"):
            small(spatial_kernel_sizes=(3, 4))

    def test_sizes_for_other_layers(self):
        with pytest.raises(ValueError, match="one for each of the 2 layers"):
            small(spatial_kernel_sizes=(3,))

    def test_unknown_readout(self):
        with pytest.raises(ValueError, match="did you mean 'gaussian'"):
            small(readout="gausian")

    def test_unknown_start(self):
        with pytest.raises(ValueError, match="start='center' is not known; did you mean 'centre'"):
            CoreReadout.for_recording(None, start="center")

    def test_unknown_session(self, shared):
        with pytest.raises(ValueError, match=r"no session 'ones'; did you mean 'one'\?"):
            shared[0].session("ones")

    def test_no_recordings(self):
        with pytest.raises(ValueError, match="recordings is empty"):
            CoreReadout.for_recordings({})

    def test_other_frame_rates(self):
        a, b = small(), small(bin_width=0.02)
        with pytest.raises(ValueError, match=r"'b' has bins of 0\.02 s and 'a' of 0\.01 s"):
            SharedCore({"a": a, "b": b})

    def test_other_kernels(self):
        a, b = small(), small(spatial_kernel_sizes=(5, 3))
        with pytest.raises(ValueError, match="'b' cannot share the core of 'a': the cores differ"):
            SharedCore({"a": a, "b": b})

    def test_training_with_other_names_or_cells(self, shared):
        model, nodes = shared
        with pytest.raises(ValueError, match=r"recordings has \['one'\]; the model has"):
            train_jointly(model, {"one": nodes["one"]}, progress=False)
        other = nodes | {"one": nodes["one"].assign_coords(cell=["a", "z"])}
        with pytest.raises(ValueError, match=r"one has the cells \['a', 'z'\]; its session"):
            train_jointly(model, other, progress=False)

    def test_nan_loss_names_the_recording(self, shared):
        model, nodes = shared
        with torch.no_grad():
            model.session("two/b").network.readout.bias[0] = np.nan
        with pytest.raises(ValueError, match="training loss of 'two/b' is nan in epoch 0"):
            train_jointly(model, nodes, max_epochs=1, segment_length=16, progress=False)
        assert not model.network.training

    def test_folder_of_another_model(self, tmp_path):
        small().save(tmp_path / "single")
        with pytest.raises(ValueError, match="holds no SharedCore"):
            SharedCore.load(tmp_path / "single")
        with pytest.raises(FileNotFoundError, match=r"has no config\.yaml"):
            SharedCore.load(tmp_path / "nothing")
