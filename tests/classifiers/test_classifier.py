"""Images in, logits out: labels, normalisation, geometry, and what is refused."""

import numpy as np
import pytest
import torch
import torchvision
import xarray as xr
from torch import nn

from retina_codec.classifiers import Classifier, from_module, resnet18

DIMS = ("image", "color", "y", "x")
MEAN, SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def model():
    return resnet18(categories=["a", "b", "c", "d"], seed=3)


def images(n=2, size=32, dtype=np.float32, seed=0):
    values = np.random.default_rng(seed).random((n, 3, size, size))
    if dtype == np.uint8:
        values = np.round(values * 255)
    return xr.DataArray(values.astype(dtype), dims=DIMS)


def test_predicts_what_torchvision_predicts_on_normalised_images(model):
    data = images(5).assign_coords(
        image=list("vwxyz"), label=("image", [0, 1, 2, 3, 0]), color=["red", "green", "blue"]
    )
    predicted = model.predict(data, batch_size=2)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = torchvision.models.resnet18(num_classes=4).eval()
    normalise = torchvision.transforms.Normalize(MEAN, SD)
    with torch.no_grad():
        expected = network(normalise(torch.from_numpy(data.values))).numpy()
    np.testing.assert_allclose(predicted, expected, atol=1e-5, rtol=1e-4)
    assert predicted.dims == ("image", "category")
    assert list(predicted["image"].values) == list("vwxyz")
    assert list(predicted["label"].values) == [0, 1, 2, 3, 0]
    assert list(predicted["category"].values) == ["a", "b", "c", "d"]


def test_bytes_are_fractions_of_255_and_dim_order_does_not_matter(model):
    bytes_ = images(dtype=np.uint8)
    fractions = (bytes_ / 255).astype(np.float32)
    xr.testing.assert_allclose(model.predict(bytes_), model.predict(fractions), rtol=1e-4)
    turned = fractions.transpose("y", "x", "color", "image")
    xr.testing.assert_identical(model.predict(turned), model.predict(fractions))


def test_takes_other_sizes_without_resizing(model):
    assert model.predict(images(1, size=97)).sizes["image"] == 1


def test_seed_decides_the_weights_and_the_random_state_is_left_alone():
    state = torch.random.get_rng_state()
    one, same, other = (resnet18(categories=["a"], seed=seed) for seed in (0, 0, 1))
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert torch.equal(torch.random.get_rng_state(), state)


def test_runs_in_evaluation_mode_and_leaves_the_mode_alone(model):
    data = images(4)
    network = torchvision.models.resnet18(num_classes=4)
    wrapped = from_module(network, categories=list("abcd"), mean=MEAN, sd=SD)
    network.load_state_dict(model.network.state_dict())
    network.train()
    xr.testing.assert_allclose(wrapped.predict(data), model.predict(data), rtol=1e-4)
    assert network.training
    assert all(
        torch.equal(value, network.state_dict()[key])
        for key, value in model.network.state_dict().items()
    )
    assert not model.network.training


def test_normalisation_is_part_of_the_fingerprint():
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    made = [
        from_module(net, categories=["a", "b"], mean=mean, sd=sd).fingerprint
        for mean, sd in (((0.5,) * 3, (1,) * 3), ((0.4,) * 3, (1,) * 3), (None, None))
    ]
    assert len(set(made)) == 3


class Positive(nn.Module):
    """The network with all-positive kernels and average pooling: gradients show what units see."""

    def __init__(self):
        super().__init__()
        self.network = torchvision.models.resnet18(num_classes=2).eval()
        self.network.maxpool = nn.AvgPool2d(3, 2, 1)
        for module in self.network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.constant_(module.weight, 1 / module.weight[0].numel())


@pytest.mark.parametrize(("layer", "size"), [("conv1", 32), ("layer1.0", 64), ("layer2.1", 192)])
def test_places_of_units_are_the_centres_of_what_they_see(model, layer, size):
    network = Positive().network
    seen = []
    network.get_submodule(layer).register_forward_hook(lambda m, i, o: seen.append(o))
    data = torch.full((1, 3, size, size), 0.5, requires_grad=True)
    network(data)
    n = seen[0].shape[-1]
    i, j = n // 2, n // 2 - 1
    seen[0][0, 0, i, j].backward()
    field = data.grad[0].sum(0).numpy()
    rows, columns = (np.flatnonzero(field.sum(axis)) for axis in (1, 0))
    assert rows[0] > 0 and rows[-1] < size - 1  # the whole field lies inside the image
    pixels = xr.DataArray(np.zeros((1, 3, size, size)), dims=DIMS)
    coords = model.samples(pixels).layer_coords(layer, tuple(seen[0].shape))
    assert coords["y"].values[i] == (rows[0] + rows[-1]) / 2
    assert coords["x"].values[j] == (columns[0] + columns[-1]) / 2


def test_places_follow_the_coordinates_of_the_images(model):
    data = images(size=64).assign_coords(
        y=("y", 10 + 2.0 * np.arange(64), {"units": "um"}), x=np.arange(64)
    )
    coords = model.samples(data).layer_coords("layer2.0", (1, 128, 8, 8))
    np.testing.assert_allclose(coords["y"], 10 + 16 * np.arange(8))
    np.testing.assert_allclose(coords["x"], 8 * np.arange(8))
    assert coords["y"].attrs["units"] == "um"
    assert coords["x"].attrs["units"] == "pixel"
    unknown = model.samples(data).layer_coords("layer2.0.downsample.0", (1, 128, 8, 8))
    assert unknown["y"].attrs["units"] == "index"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda d: d.values, TypeError, "data is a ndarray"),
        (lambda d: d.rename(color="colour"), ValueError, r"rename\(colour='color'\)"),
        (lambda d: d.isel(color=[0]), ValueError, "has 1 colours; the model takes 3"),
        (lambda d: d.astype(int), TypeError, "dtype int64; expected uint8"),
        (lambda d: d * 255, ValueError, r"outside \[0, 1\] in image p"),
        (lambda d: d.isel(image=[]), ValueError, "data is empty"),
        (lambda d: d.where(d["image"] != "q"), ValueError, "NaN .* in image q"),
    ],
)
def test_refuses_images_that_do_not_fit(model, change, error, message):
    data = images(2).assign_coords(image=["p", "q"])
    with pytest.raises(error, match=message):
        model.predict(change(data), batch_size=1)


def test_images_without_normalisation_are_taken_as_they_are():
    net = nn.Sequential(nn.Flatten(), nn.Linear(2 * 4 * 4, 2))
    values = 100 * np.random.default_rng(0).standard_normal((3, 2, 4, 4)).astype(np.float32)
    got = from_module(net, categories=["a", "b"]).predict(xr.DataArray(values, dims=DIMS))
    with torch.no_grad():
        np.testing.assert_allclose(got, net(torch.from_numpy(values)), rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"categories": ["a", "a"]}, "not unique"),
        ({"categories": ["a", "b"], "mean": [0.5]}, "give both"),
        ({"categories": ["a", "b"], "mean": [0.5], "sd": [0.1, 0.1]}, "differ in length"),
        ({"categories": ["a", "b"], "mean": [0.5], "sd": [0.0]}, "expected positive"),
    ],
)
def test_refuses_settings_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        from_module(nn.Linear(1, 2), **options)


def test_says_when_there_are_more_categories_than_outputs():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2))
    with pytest.raises(ValueError, match=r"net gives \(2, 2\) for 2 images"):
        from_module(net, categories=["a", "b", "c"]).predict(images())


def test_saving_says_how_to_keep_the_weights(model, tmp_path):
    assert isinstance(model, Classifier)
    with pytest.raises(TypeError, match="save_file"):
        model.save(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
