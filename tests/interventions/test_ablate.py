"""Silencing units and channels: closed forms, a literal twin, hygiene, both kinds of network."""

import copy

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import retina_codec as rc
from retina_codec.interventions.silencing import sharing_weights
from retina_codec.models.tensors import TensorModel


def windows(model, movie):
    """Network inputs of each sample by itself, (sample, frame, y, x)."""
    batches = list(model.samples(movie).batches(7))
    return torch.cat([batch.select(torch.arange(batch.index.stop - batch.index.start))
                      for batch in batches])  # fmt: skip


def test_silencing_a_unit_of_a_linear_network_takes_its_contribution_away(linear, pixel):
    model, net = linear
    x = windows(model, pixel).double().flatten(1)
    before = model.predict(pixel)
    w1, w2 = net[1].weight.detach(), net[2].weight.detach()
    contribution = torch.einsum("su,cu->scu", x @ w1.T, w2).numpy()  # of the change from x = 0
    tree = rc.contributions(model, pixel, layers="1", progress=False)
    np.testing.assert_allclose(
        tree["layers/1"]["contribution"].values, contribution, rtol=1e-6, atol=1e-9
    )
    for strength in (0.0, 0.3, 1.0, 2.0):
        after = rc.ablate(model, "1", channels=2, strength=strength).predict(pixel)
        expected = before.values + (strength - 1) * contribution[:, :, 2]
        np.testing.assert_allclose(after.values, expected, rtol=1e-5, atol=1e-6)
        assert after.coords.identical(before.coords)
    kept = rc.preserve(model, "1", channels=2).predict(pixel)
    rest = net(torch.zeros(1, 6, dtype=torch.float64)).detach().numpy()
    np.testing.assert_allclose(kept.values, rest + contribution[:, :, 2], rtol=1e-5, atol=1e-6)


def test_strength_one_changes_no_bit_of_either_kind(model, movie, classifier, images):
    for network, layer, data in ((model, "relu1", movie), (classifier, "layer2.0", images)):
        before = network.predict(data)
        same = rc.ablate(network, layer, channels=[0, 1], strength=1.0)
        assert same.predict(data).equals(before)
        assert not rc.ablate(network, layer, channels=[0, 1]).predict(data).equals(before)


def test_silent_before_a_batch_norm_is_the_value_at_the_baseline_and_not_zero(
    model, movie, literal
):
    network = model.network.eval()
    xs = windows(model, movie)
    layer = model.layer("conv2")
    x0 = torch.zeros_like(xs[:1])
    twin = literal(network, layer, x0)
    rest = twin.value(x0)
    assert (rest[0, 1].abs() > 1e-3).all()  # so that zero is something else

    def silent(a, a0, i):
        return torch.cat([a[:, :1], a0[:, 1:2], a[:, 2:]], dim=1)

    def zero(a, a0, i):
        return torch.cat([a[:, :1], 0 * a0[:, 1:2], a[:, 2:]], dim=1)

    for change, silence in ((silent, "baseline"), (zero, "zero")):
        ours = rc.ablate(model, "conv2", channels=1, silence=silence).predict(movie)
        np.testing.assert_allclose(ours.values, twin.outputs(xs, change), rtol=2e-4, atol=1e-4)
    assert np.abs(twin.outputs(xs, silent) - twin.outputs(xs, zero)).max() > 0.1


@pytest.mark.parametrize("strength", [0.0, 0.5, 2.0])
def test_agrees_with_hooks_in_a_resnet_whose_relu_works_in_place_and_twice(
    classifier, images, literal, strength
):
    inputs = next(iter(classifier.samples(images).batches(9))).inputs
    plain = copy.deepcopy(classifier.network).eval()
    # The twin is of what the block gives: its copy must not be written to by what follows.
    twin = literal(plain, plain.get_submodule("layer3.0"), torch.full_like(inputs[:1], 0.2))

    def change(a, a0, i):
        a = a.clone()
        a[:, [5, 200]] = a0[:, [5, 200]] + strength * (a[:, [5, 200]] - a0[:, [5, 200]])
        return a

    ours = rc.ablate(
        classifier, "layer3.0", channels=[200, 5], strength=strength, baseline=0.2
    ).predict(images, batch_size=2)
    np.testing.assert_allclose(ours.values, twin.outputs(inputs, change), rtol=1e-3, atol=1e-4)
    assert np.abs(ours.values - classifier.predict(images).values).max() > 1e-3


def test_units_by_labelled_places(model, movie, literal):
    tree = rc.contributions(
        model, movie, layers="relu1", method=rc.methods.IntegratedGradients(steps=2), progress=False
    )
    mask = tree["layers/relu1"]["contribution"].isel(time=3, cell=0) > 0
    assert 0 < int(mask.sum()) < mask.size
    xs = windows(model, movie)
    twin = literal(model.network.eval(), model.layer("relu1"), torch.zeros_like(xs[:1]))
    chosen = torch.from_numpy(mask.transpose("channel", "y", "x").values)[None]
    expected = twin.outputs(xs, lambda a, a0, i: torch.where(chosen, a0, a))
    for given in (mask, mask.transpose("x", "channel", "y")):
        ours = rc.ablate(model, "relu1", units=given).predict(movie)
        np.testing.assert_allclose(ours.values, expected, rtol=2e-4, atol=1e-4)
    others = rc.preserve(model, "relu1", units=mask).predict(movie)
    expected = twin.outputs(xs, lambda a, a0, i: torch.where(chosen, a, a0))
    np.testing.assert_allclose(others.values, expected, rtol=2e-4, atol=1e-4)
    # Of places alone: all channels there.
    column = mask.isel(channel=0, drop=True)
    everywhere = xr.ones_like(mask) & column
    one = rc.ablate(model, "relu1", units=column).predict(movie)
    assert one.equals(rc.ablate(model, "relu1", units=everywhere).predict(movie))
    moved = rc.ablate(model, "relu1", units=mask.assign_coords(x=mask["x"] + 10))
    with pytest.raises(ValueError, match=r"units has x=.*take the mask from contributions"):
        moved.predict(movie)


def test_several_layers_at_once_are_silenced_in_the_network_as_it_then_is(model, movie, literal):
    both = rc.ablate(model, {"relu1": [0], "relu2": [1, 2]}).predict(movie)
    first = rc.ablate(model, "relu1", channels=0)
    in_turn = rc.ablate(first, "relu2", channels=[1, 2])
    # At the baseline silencing changes nothing, so that what relu2 gives there is the same.
    np.testing.assert_allclose(in_turn.predict(movie).values, both.values, rtol=1e-5, atol=1e-5)
    for one in ({"relu1": [0]}, {"relu2": [1, 2]}):
        assert np.abs(rc.ablate(model, one).predict(movie) - both).max() > 1e-3
    xs = windows(model, movie)
    twin = literal(
        first.network, first.layer("relu2"), torch.zeros_like(xs[:1])
    )  # whose relu1 is silenced already

    def change(a, a0, i):
        a = a.clone()
        a[:, [1, 2]] = a0[:, [1, 2]]
        return a

    np.testing.assert_allclose(both.values, twin.outputs(xs, change), rtol=2e-4, atol=1e-4)


@pytest.mark.parametrize("silence", ["baseline", "zero"])
def test_agrees_with_the_contributions_of_ablation(model, movie, silence):
    movie = movie[:12]
    tree = rc.contributions(
        model, movie, layers="conv2", method=rc.methods.Ablation(silence=silence), progress=False
    )
    contribution = tree["layers/conv2"]["contribution"]
    before = model.predict(movie)
    for unit in ({"channel": 1, "y": 2, "x": 0}, {"channel": 3, "y": 0, "x": 1}):
        mask = xr.zeros_like(contribution.isel(time=0, cell=0), dtype=bool)
        mask[unit] = True
        after = rc.ablate(model, "conv2", units=mask, silence=silence).predict(movie)
        np.testing.assert_allclose(
            (before - after).values, contribution.isel(unit).values, rtol=1e-3, atol=2e-4
        )
    assert float(abs(contribution).max()) > 0.05


def test_contributions_of_a_silenced_model_are_complete_and_its_silenced_units_have_none(
    model, movie, classifier, images
):
    method = rc.methods.IntegratedGradients(steps=64)
    for network, data, layers, done in (
        (model, movie[:20], ["conv2", "relu2"], {"conv2": [0, 3]}),
        (classifier, images[:2], ["layer3.0", "layer4.1"], {"layer3.0": [0, 3]}),
    ):
        silenced = rc.ablate(network, done)
        tree = rc.contributions(silenced, data, layers=layers, method=method, progress=False)
        change = (tree["target"] - tree["target_baseline"]).values
        top = silenced.predict(data).values
        if network is classifier:
            top = top.max(1)
        np.testing.assert_allclose(tree["target"].values, top, rtol=1e-4, atol=1e-4)
        assert np.abs(change).max() > 0.05
        for layer in layers:
            error = tree[f"layers/{layer}"]["completeness_error"].values
            assert np.abs(error).max() < 0.03 * np.abs(change).max()
        ours = tree[f"layers/{layers[0]}"]["contribution"]
        assert float(abs(ours.sel(channel=[0, 3])).max()) == 0
        assert float(abs(ours).max()) > 1e-3


def test_the_original_and_its_random_state_stay_as_they_are_also_when_it_raises(
    model, movie, hooks
):
    state = torch.random.get_rng_state()
    # Rounding may depend on the length of a pass: a part is compared with the same part.
    before, part = model.predict(movie), model.predict(movie[:20])
    fingerprint = model.fingerprint
    model.network.train()
    silenced = rc.ablate(model, "relu1", channels=0)
    assert hooks(model.network) == []
    # The original runs in the middle of a pass of the silenced one, and gives what it gave.
    seen = []
    handle = silenced.layer("relu2").register_forward_hook(
        lambda m, i, o: seen.append(model.predict(movie[:20]).equals(part))
    )
    silenced.predict(movie)
    handle.remove()
    assert seen
    assert all(seen)
    with pytest.raises(ValueError, match="data has frames of"):
        silenced.predict(movie[:, :5])
    broken = silenced.layer("relu2").register_forward_hook(
        lambda m, i, o: (_ for _ in ()).throw(RuntimeError("broken"))
    )
    with pytest.raises(RuntimeError, match="broken"):
        silenced.predict(movie)
    broken.remove()
    assert hooks(model.network) == []
    assert model.network.training
    assert all(p.requires_grad and p.grad is None for p in model.network.parameters())
    assert model.fingerprint == fingerprint
    assert model.predict(movie).equals(before)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_weights_are_shared_and_rest_follows_them(model, movie):
    silenced = rc.ablate(model, "conv2", channels=[0, 1])
    ours = dict(silenced.network.named_parameters())
    assert all(ours[name] is value for name, value in model.network.named_parameters())
    silenced.predict(movie)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.mul_(0.7)
    fresh = rc.ablate(model, "conv2", channels=[0, 1])
    assert silenced.predict(movie).equals(fresh.predict(movie))
    assert silenced.fingerprint == fresh.fingerprint
    apart = sharing_weights(model)
    assert apart.network is not model.network
    assert apart.fingerprint == model.fingerprint


def test_fingerprint_and_repr_say_what_was_done(model):
    made = [
        rc.ablate(model, "relu1", channels=0),
        rc.ablate(model, "relu1", channels=1),
        rc.ablate(model, "relu1", channels=0, silence="zero"),
        rc.ablate(model, "relu1", channels=0, strength=0.5),
        rc.ablate(model, "relu1", channels=0, baseline=0.1),
        rc.preserve(model, "relu1", channels=0),
        rc.ablate(model, "relu2", channels=0),
        rc.ablate(rc.ablate(model, "relu1", channels=0), "relu2", channels=0),
    ]
    assert len({one.fingerprint for one in [model, *made]}) == len(made) + 1
    assert made[0].fingerprint == rc.ablate(model, "relu1", channels=[0]).fingerprint
    assert repr(made[0]).endswith("; relu1: channel 0 silenced)")
    assert repr(made[5]).endswith("; relu1: all but channel 0 silenced)")
    assert repr(made[7]).endswith("; relu1: channel 0 silenced; relu2: channel 0 silenced)")
    assert all(isinstance(one, rc.models.BNCNN) for one in made)
    assert set(rc.models.saving.SavedModel.architectures) == {
        kind.__name__ for kind in rc.models.saving.SavedModel.architectures.values()
    }
    assert not any(
        one.__module__.startswith("retina_codec.interventions")
        for one in rc.models.saving.SavedModel.architectures.values()
    )


def test_saving_is_refused_with_the_way(model, tmp_path):
    with pytest.raises(TypeError, match=r"relu1: channel 0 silenced.*call rc.ablate"):
        rc.ablate(model, "relu1", channels=0).save(tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_it_is_evaluated_and_compared_like_any_model(model, movie):
    node = xr.Dataset(
        {
            "stimulus": movie,
            "spike_count": (
                ("time", "cell"),
                np.random.default_rng(0).poisson(1, (movie.sizes["time"], 3)),
            ),
        },
        {"cell": model.outputs},
    )
    silenced = rc.ablate(model, "relu2")
    # With the whole layer at rest, the rate stands still: nothing correlates with it.
    scores = rc.evaluate(silenced, node, n_draws=20)
    assert np.isnan(scores["pearson_r"]).all()
    rest = rc.preserve(model, "relu2", channels=[0, 1, 2, 3]).predict(movie)
    assert rest.equals(model.predict(movie))


def test_layers_of_any_network_on_tensors():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(inplace=True), nn.Linear(5, 2)).double()
    x = torch.randn(6, 3, dtype=torch.float64)
    model = TensorModel(net, x)
    ours = rc.ablate(model, "0", channels=[1, 4], baseline=np.array([0.5, -1, 2])).predict(x)
    with torch.no_grad():
        a = net[0](x)
        a[:, [1, 4]] = net[0](torch.tensor([[0.5, -1, 2]], dtype=torch.float64))[:, [1, 4]]
        expected = net[2](a.relu())
    np.testing.assert_allclose(ours.values, expected.numpy(), rtol=1e-6)


def test_tokens_are_silenced_by_channel_and_by_place():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Conv2d(1, 3, 2, stride=2)
            self.body = nn.Identity()
            self.head = nn.Linear(3, 2)

        def forward(self, x):
            patches = self.embed(x).flatten(2).transpose(1, 2)
            tokens = torch.cat([patches.mean(1, keepdim=True) + 1, patches], 1)
            return self.head(self.body(tokens).sum(1))

    torch.manual_seed(0)
    net = Tokens().double()
    x = torch.randn(4, 1, 4, 6, dtype=torch.float64)
    model = rc.classifiers.from_module(net, categories=["a", "b"])
    model.layouts["body"] = rc.models.UnitLayout(("token", "channel"), grid=(2, 3), class_tokens=1)
    images = xr.DataArray(x.numpy(), dims=("image", "color", "y", "x"))
    with torch.no_grad():
        patches = net.embed(x).flatten(2).transpose(1, 2)
        a = torch.cat([patches.mean(1, keepdim=True) + 1, patches], 1)
        p0 = net.embed(torch.zeros(1, 1, 4, 6, dtype=torch.float64)).flatten(2).transpose(1, 2)
        a0 = torch.cat([p0.mean(1, keepdim=True) + 1, p0], 1)
        of_channel, of_place = a.clone(), a.clone()
        of_channel[:, :, 2] = a0[:, :, 2]
        of_place[:, 1 + 3 * 1 + 2] = a0[:, 1 + 3 * 1 + 2]  # y=1, x=2, behind the class token
        expected = [net.head(values.sum(1)).numpy() for values in (of_channel, of_place)]
    mask = xr.DataArray(np.zeros((2, 3), dtype=bool), dims=("y", "x"))
    mask[1, 2] = True
    ours = [
        rc.ablate(model, "body", channels=2).predict(images),
        rc.ablate(model, "body", units=mask).predict(images),
    ]
    for one, values in zip(ours, expected, strict=True):
        np.testing.assert_allclose(one.values, values, rtol=1e-5)


class TwiceReLU(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.relu = nn.Linear(4, 4), nn.Linear(4, 2), nn.ReLU(inplace=True)
        self.unused = nn.Linear(4, 4)

    def forward(self, x):
        return self.relu(self.b(self.relu(self.a(x))))


def test_what_is_wrong_is_said_at_the_door(model, movie, classifier, images):
    def fails(message, *given, error=ValueError, **options):
        with pytest.raises(error, match=message):
            rc.ablate(model, *given, **options)

    fails("no layer 'relu3'; did you mean 'relu", "relu3")
    fails("layer 'relu1' has no channel 7; .*choices: 0, 1, 2", "relu1", channels=[0, 7])
    fails("channels=.* names a channel twice", "relu1", channels=[0, 0])
    fails("channels is empty", "relu1", channels=[])
    fails(r"strength=2.5; expected 0 \(silenced\) to 2", "relu1", strength=2.5)
    fails("strength=nan", "relu1", strength=float("nan"))
    fails("silence='off' is not known", "relu1", silence="off")
    fails("units is a DataArray of float64", "relu1", units=xr.DataArray([1.0]), error=TypeError)
    mask = xr.DataArray(np.ones((3, 2), dtype=bool), dims=("channel", "time"))
    fails("units has dims .*time", "relu1", units=mask)
    fails("units has {'channel': 2}", "relu1", units=xr.DataArray([True, False], dims="channel"))
    fails("channels and units are given", "relu1", channels=0, units=mask)
    fails("a mapping of layers and channels", {"relu1": 0}, channels=0)
    fails("each once", ["relu1", "relu1"])
    fails("mode is of modes", "relu1", mode=0)
    fails("baseline has 2 inputs", "relu1", baseline=np.zeros((2, 9, 9)))
    fails("baseline has dims", "relu1", baseline=xr.DataArray([0.0, 1.0], dims="time"))
    with pytest.raises(ValueError, match="nothing to preserve"):
        rc.preserve(model, "relu1")
    with pytest.raises(TypeError, match="model is a Sequential"):
        rc.ablate(nn.Sequential(), "0")
    # Of networks that take images of any size, when they run.
    with pytest.raises(ValueError, match=r"has no channel 600; .*choices: 0, 1"):
        rc.ablate(classifier, "layer4.1", channels=600).predict(images)
    net = TwiceReLU()
    tensors = TensorModel(net, torch.randn(3, 4))
    with pytest.raises(ValueError, match="layer 'relu' runs more than once"):
        rc.ablate(tensors, "relu").predict(torch.randn(3, 4))
    with pytest.raises(ValueError, match="layer 'unused' does not run"):
        rc.ablate(tensors, "unused").predict(torch.randn(3, 4))
