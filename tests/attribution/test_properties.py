"""What must hold for every kind of model: one suite for models of the retina and classifiers."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import retina_codec as rc
from retina_codec._common.time import time_coordinate

# Steps, so that the residual is well below the target's change.
STEPS = 8


def retina():
    torch.manual_seed(3)
    model = rc.models.BNCNN(
        (9, 9), history=5, bin_width=0.01, cells=["a", "b"], kernel_sizes=(3, 3)
    )
    movie = np.random.default_rng(0).normal(size=(12, 9, 9)).astype(np.float32)
    time = time_coordinate(np.arange(12) * 0.01, 0.01)
    data = xr.DataArray(movie, dims=("time", "y", "x"), coords={"time": time})
    return model, data, ["relu1", "relu2"]


def pictures(n=2):
    values = np.random.default_rng(0).random((n, 3, 32, 32), dtype=np.float32)
    return xr.DataArray(values, dims=("image", "color", "y", "x"), coords={"image": [5, 7]})


def resnet(depth, layers):
    """With batch statistics like a trained one, without which a ResNet is homogeneous."""
    model = getattr(rc.classifiers, f"resnet{depth}")(categories=["a", "b", "c"], seed=1)
    draw = torch.Generator().manual_seed(0)
    for module in model.network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.bias.data = 0.5 * torch.randn(module.num_features, generator=draw)
            module.running_mean = 0.3 * torch.randn(module.num_features, generator=draw)
            module.running_var = 0.5 + torch.rand(module.num_features, generator=draw)
    nn.init.normal_(model.network.fc.weight, std=0.1, generator=draw)
    model.network.double()
    return model, pictures(), layers


def transformer():
    """With embeddings of places as large as those of patches, as trained ones have them."""
    model = rc.classifiers.vit_b_16(categories=["a", "b", "c"], image_size=32)
    draw = torch.Generator().manual_seed(0)
    for tokens in (model.network.encoder.pos_embedding, model.network.class_token):
        nn.init.normal_(tokens, generator=draw)
    nn.init.normal_(model.network.heads.head.weight, std=0.1, generator=draw)
    return model, pictures(), [model.default_layers[i] for i in (5, 11)]


KINDS = {
    "retina": retina,
    "resnet18": lambda: resnet(18, ["layer2.1", "layer4.1"]),
    "resnet50": lambda: resnet(50, ["layer2.3", "layer4.2"]),
    "vit_b_16": transformer,
}


@pytest.fixture(scope="module", params=KINDS)
def case(request):
    return KINDS[request.param]()


def decomposed(case, data=None, **options):
    model, given, layers = case
    options = {"method": rc.methods.IntegratedGradients(steps=STEPS), **options}
    return rc.contributions(
        model, given if data is None else data, layers=layers, progress=False, **options
    )


@pytest.fixture(scope="module")
def tree(case):
    return decomposed(case)


def parts(tree, layer):
    node = tree[f"layers/{layer}"]
    return [node[name] for name in node.data_vars if str(name).startswith("contribution")]


def test_contributions_add_up_to_the_change_of_the_target(case, tree):
    model, _, layers = case
    change = tree["target"] - tree["target_baseline"]
    assert float(abs(change).max()) > 0.01  # else completeness would say nothing
    for layer in layers:
        dims = {"channel", "y", "x"}
        total = sum(part.sum(dims & set(part.dims)) for part in parts(tree, layer))
        error = tree[f"layers/{layer}"]["completeness_error"]
        scale = float(abs(change).max())
        np.testing.assert_allclose(total - change, error, atol=1e-4 * scale)
        assert float(abs(error).max()) < 0.2 * scale
    last = tree[f"layers/{layers[-1]}"]["completeness_error"]
    assert float(abs(last).max()) < 0.05 * scale
    assert model.sample_dim in tree.dims


def test_neither_batches_nor_the_order_of_dims_matter(case, tree):
    _, data, layers = case
    other = decomposed(case, data.transpose(*reversed(data.dims)), batch_size=1)
    for layer in layers:
        for one, two in zip(parts(tree, layer), parts(other, layer), strict=True):
            assert one.dims == two.dims
            atol = 1e-3 * float(abs(one).max())
            np.testing.assert_allclose(one, two, rtol=1e-3, atol=atol)


def test_a_store_holds_what_memory_does(case, tree, tmp_path):
    stored = decomposed(case, store=tmp_path / "run.zarr")
    for layer in case[2]:
        for one, two in zip(parts(tree, layer), parts(stored, layer), strict=True):
            assert one.dims == two.dims
            np.testing.assert_allclose(
                one, two.load(), rtol=1e-3, atol=1e-4 * float(abs(one).max())
            )
            for name in one.coords:
                np.testing.assert_array_equal(one[name], two[name])


@pytest.mark.parametrize("fails", [False, True])
def test_the_network_is_left_as_it_was(case, fails):
    model, _, layers = case
    network = model.network
    modules = list(network.modules())
    modules[-1].train()
    first = next(network.parameters())
    first.requires_grad_(False)

    def look():
        return [
            [module.training for module in modules],
            [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules],
            [(p.requires_grad, p.grad is None) for p in network.parameters()],
            ["forward" in vars(module) for module in modules],
            torch.random.get_rng_state().tolist(),
        ]

    before, fingerprint = look(), model.fingerprint
    if fails:

        def broken(module, inputs, output):
            raise RuntimeError("broken")

        handle = model.layers[layers[-1]].register_forward_hook(broken)
        with pytest.raises(RuntimeError, match="broken"):
            decomposed(case)
        handle.remove()
    else:
        decomposed(case, method=rc.methods.IntegratedGradients(steps=1))
    assert look() == before
    assert model.fingerprint == fingerprint
    modules[-1].eval()
    first.requires_grad_(True)
