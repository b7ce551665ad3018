"""The ResNets: torchvision's of every depth, and those for images of 32 pixels."""

import numpy as np
import pytest
import torch
import torchvision
import xarray as xr
from torch import nn
from torch.nn import functional

import retina_codec as rc
from retina_codec.classifiers import cifar_resnet

DIMS = ("image", "color", "y", "x")


def images(n=2, size=32):
    values = np.random.default_rng(0).random((n, 3, size, size), dtype=np.float32)
    return xr.DataArray(values, dims=DIMS)


@pytest.mark.parametrize(
    ("depth", "n_blocks", "n_weights"), [(34, 16, 21797672), (50, 16, 25557032)]
)
def test_torchvisions_networks_by_depth(depth, n_blocks, n_weights):
    model = getattr(rc.classifiers, f"resnet{depth}")(seed=2)
    assert sum(p.numel() for p in model.network.parameters()) == n_weights
    assert len(model.default_layers) == n_blocks
    blocks = [
        name
        for name, module in model.network.named_modules()
        if isinstance(
            module, torchvision.models.resnet.BasicBlock | torchvision.models.resnet.Bottleneck
        )
    ]
    assert list(model.default_layers) == blocks
    assert set(blocks) <= set(model.geometry)
    assert model.outputs[1] == "goldfish"


@pytest.mark.parametrize(("depth", "n_blocks"), [(101, 33), (152, 50)])
def test_deep_networks_have_all_their_blocks(depth, n_blocks):
    # Without the seconds that random weights of 40 to 60 million numbers take.
    with torch.device("meta"):
        model = getattr(rc.classifiers, f"resnet{depth}")(categories=["a", "b"])
    blocks = [name for name in model.layers if name.count(".") == 1 and name.startswith("layer")]
    assert list(model.default_layers) == blocks
    assert len(blocks) == n_blocks


def all_positive(network):
    """Kernels of ones: the gradient of a unit is then the whole of what it sees."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
    return network


@pytest.mark.parametrize(
    ("model", "layer", "size"),
    [
        ("resnet50", "layer1.0.conv2", 64),
        ("resnet50", "layer2.0", 96),
        ("cifar_resnet", "layer1.2", 64),
        ("cifar_resnet", "layer2.1", 96),
        ("cifar_resnet", "layer3.0.conv1", 96),
    ],
)
def test_places_of_units_are_the_centres_of_what_they_see(model, layer, size):
    model = getattr(rc.classifiers, model)(categories=["a", "b"])
    network = all_positive(model.network)
    if hasattr(network, "maxpool"):
        network.maxpool = nn.AvgPool2d(3, 2, 1)
    seen = []
    network.get_submodule(layer).register_forward_hook(lambda m, i, o: seen.append(o))
    data = torch.full((1, 3, size, size), 0.5, requires_grad=True)
    network(data)
    n = seen[0].shape[-1]
    i, j = n // 2, n // 2 - 1
    seen[0][0, -1 if layer == "layer1.2" else 20, i, j].backward()
    field = data.grad[0].sum(0).numpy()
    rows, columns = (np.flatnonzero(field.sum(axis)) for axis in (1, 0))
    assert rows[0] > 0 and rows[-1] < size - 1  # the whole field lies inside the image
    coords = model.samples(images(1, size)).layer_coords(layer, tuple(seen[0].shape))
    assert coords["y"].values[i] == (rows[0] + rows[-1]) / 2
    assert coords["x"].values[j] == (columns[0] + columns[-1]) / 2


def literally(state, x, depth):
    """A CIFAR ResNet as the paper describes it, function by function."""

    def norm(x, name):
        weight, bias, mean, var = (
            state[f"{name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
        )
        x = (x - mean[:, None, None]) / torch.sqrt(var + 1e-5)[:, None, None]
        return x * weight[:, None, None] + bias[:, None, None]

    x = functional.conv2d(x, state["conv1.weight"], padding=1)
    x = norm(x, "bn1").relu()
    for stage in (1, 2, 3):
        for block in range((depth - 2) // 6):
            name = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            y = functional.conv2d(x, state[f"{name}.conv1.weight"], stride=stride, padding=1)
            y = norm(y, f"{name}.bn1").relu()
            y = norm(functional.conv2d(y, state[f"{name}.conv2.weight"], padding=1), f"{name}.bn2")
            if stride == 2:  # option A: every second pixel; zeros around the channels
                zeros = torch.zeros_like(x[:, : x.shape[1] // 2, ::2, ::2])
                x = torch.cat([zeros, x[:, :, ::2, ::2], zeros], 1)
            x = (x + y).relu()
    return x.mean((2, 3)) @ state["linear.weight"].T + state["linear.bias"]


@pytest.mark.parametrize("depth", [8, 20])
def test_cifar_resnet_is_the_literal_network(depth):
    model = cifar_resnet(depth=depth, seed=4)
    for module in model.network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.running_mean)
            nn.init.normal_(module.bias)
    data = images(3)
    x = (data - xr.DataArray([0.485, 0.456, 0.406], dims="color")) / xr.DataArray(
        [0.229, 0.224, 0.225], dims="color"
    )
    x = torch.from_numpy(x.transpose(*DIMS).values).float()
    with torch.no_grad():
        expected = literally(model.network.state_dict(), x, depth)
    assert expected.std() > 0.1
    np.testing.assert_allclose(model.predict(data), expected, rtol=1e-4, atol=1e-4)
    assert len(model.default_layers) == (depth - 2) // 2


@pytest.mark.parametrize(("depth", "n_weights"), [(20, 269722), (56, 853018)])
def test_cifar_resnets_have_the_size_of_the_paper(depth, n_weights):
    model = cifar_resnet(depth=depth)
    assert sum(p.numel() for p in model.network.parameters()) == n_weights


def test_cifar_resnet_refuses_what_does_not_fit(tmp_path):
    for depth in (19, 21):
        with pytest.raises(ValueError, match=rf"depth={depth}; expected 6 n \+ 2"):
            cifar_resnet(depth=depth)
    with pytest.raises(TypeError, match=r"depth=20\.0; expected a whole number"):
        cifar_resnet(depth=20.0)
    torch.save(cifar_resnet(depth=14).network.state_dict(), tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"30 missing: layer1\.2\.conv1\.weight, layer1\.2\.bn1"):
        cifar_resnet(tmp_path / "w.pt", depth=20)
    with pytest.raises(ValueError, match=r"'cifar10' is not a file ending in \.pt"):
        cifar_resnet("cifar10")
    assert cifar_resnet(tmp_path / "w.pt", depth=14).outputs[0] == "airplane"
    assert cifar_resnet(depth=8, categories=["a", "b"]).outputs.tolist() == ["a", "b"]
