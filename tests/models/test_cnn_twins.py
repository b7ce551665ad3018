"""Every convolutional model against its layers one after the other, on stacked windows."""

import pytest
import torch
import yaml
from torch import nn

import retina_codec as rc
from retina_codec.models.bncnn import BNCNN
from retina_codec.models.cnn2016 import CNN2016
from retina_codec.models.retinotopic import Retinotopic
from retina_codec.models.stacked import StackedBNCNN

EXACT = {"rtol": 1e-10, "atol": 1e-12}
VARIANTS = [
    (CNN2016, {}),
    (BNCNN, {}),
    (BNCNN, {"norm": "unit"}),
    (BNCNN, {"norm": "unit", "positive_norm": True}),
    (BNCNN, {"norm": "channel", "positive_norm": True}),
    (StackedBNCNN, {}),
    (StackedBNCNN, {"norm": "channel", "stages": (3, 2), "stage_channels": (2, 4)}),
    (Retinotopic, {}),
    (Retinotopic, {"types": ["x", "y", "x"], "norm": "channel"}),
    (Retinotopic, {"places": [(3, 3), (5, 4), (6, 6)], "stacked": False}),
]


def model_of(cls, shape=(12, 11), **options):
    kernels = (6, 4, 2) if cls is Retinotopic else (6, 4)
    settings = {"channels": (5, 3), "kernel_sizes": kernels, "noise": 0.0}
    model = cls(shape, history=4, bin_width=0.02, cells=["a", "b", "c"], **(settings | options))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, tensor in model.network.double().state_dict().items():
            if tensor.is_floating_point():
                values = torch.randn(tensor.shape, generator=generator, dtype=torch.double)
                values *= 1.4 / tensor[0].numel() ** 0.5 if tensor.ndim > 1 else 1
                if name.endswith(("running_var", "bias")):  # no dead units in small nets
                    values = values.abs() + 0.3
                tensor.copy_(values)
    return model


class LiteralNorm(nn.Module):
    """Batch norm by its formula."""

    def __init__(self, own, eps, by_unit, positive):
        super().__init__()
        for name in ("weight", "bias"):
            self.register_parameter(name, nn.Parameter(getattr(own, name).detach().clone()))
        self.statistics = [own.running_mean.clone(), own.running_var.clone()]
        self.eps, self.by_unit, self.positive = eps, by_unit, positive

    def forward(self, x):
        over = [0] if self.by_unit or x.ndim == 2 else [0, 2, 3]
        size = x.shape[1:] if self.by_unit else (-1, *[1] * (x.ndim - 2))
        mean, var = (s.reshape(size) for s in self.statistics)
        if self.training:
            mean, var = x.mean(over, keepdim=True), x.var(over, keepdim=True, unbiased=False)
        weight = self.weight.abs() if self.positive else self.weight
        return (x - mean) / (var + self.eps).sqrt() * weight.reshape(size) + self.bias.reshape(size)


class LiteralReadout(nn.Module):
    """Each cell's map summed with weights, or taken at one index."""

    def __init__(self, model, types):
        super().__init__()
        own = model.layers["readout"]
        self.types = types
        self.choice = None
        if own.fixed:
            centres = model.places()
            offset = model.geometry["rate"].offset
            self.at = [
                (int(y - offset[0]), int(x - offset[1]))
                for y, x in zip(centres["y"].values, centres["x"].values, strict=True)
            ]
        else:
            self.choice = nn.Parameter(own.choice.detach().clone())

    def forward(self, maps):
        out = []
        for cell, kind in enumerate(self.types):
            if self.choice is None:
                out.append(maps[:, kind, *self.at[cell]])
            else:
                share = self.choice[cell].exp() / self.choice[cell].exp().sum()
                out.append((maps[:, kind] * share.reshape(maps.shape[2:])).sum((1, 2)))
        return torch.stack(out, 1)


class Scaled(nn.Module):
    def forward(self, x):
        return nn.functional.softplus(x) / 0.02


def twin_of(model, options):
    """The published layers in order, with the model's weights."""
    layers = []
    for name, own in model.network.named_children():
        kind = name.rstrip("0123456789")
        if kind == "conv":
            stages = [m for m in own.modules() if m is own or not list(m.children())]
            for stage in (m for m in stages if "weight" in dict(m.named_parameters(recurse=False))):
                weight = stage.weight.detach()
                weight = weight.flatten(1, 2) if weight.ndim == 5 else weight
                conv = nn.Conv2d(
                    weight.shape[1],
                    weight.shape[0],
                    tuple(weight.shape[2:]),
                    bias=stage.bias is not None,
                )
                conv.weight.data = weight.clone()
                if stage.bias is not None:
                    conv.bias.data = stage.bias.detach().clone()
                layers.append(conv)
        elif kind == "norm":
            maps = isinstance(model, Retinotopic) and name == "norm3"
            positive = isinstance(model, StackedBNCNN | Retinotopic) or bool(
                options.get("positive_norm")
            )
            unit = options.get("norm", "channel" if isinstance(model, BNCNN) else "unit") == "unit"
            eps = 1e-3 if unit or positive else 1e-5
            layers.append(LiteralNorm(own, eps, unit and not maps, positive))
        elif kind == "relu":
            layers.append(nn.ReLU())
        elif kind == "dense":
            dense = nn.Linear(*reversed(own.weight.shape), bias=own.bias is not None).double()
            dense.load_state_dict(own.state_dict())
            layers += [nn.Flatten(), dense]
        elif kind == "rate":
            layers.append(Scaled())
        elif kind == "readout":
            layers.append(LiteralReadout(model, [0, 1, 0] if "types" in options else [0, 1, 2]))
    return nn.Sequential(*layers)


def windows_of(movie, history):
    """(N, history * color, y, x): the frames of each window in time order."""
    cut = [
        segment[t : t + history] for segment in movie for t in range(segment.shape[0] - history + 1)
    ]
    windows = torch.stack(cut)
    return windows if windows.ndim == 4 else windows.flatten(1, 2)


def compare(model, options, shape, training):
    twin = twin_of(model, options).train(training)
    model.network.train(training)
    movie = torch.randn(3, 9, *shape, dtype=torch.double, requires_grad=True)
    ours, theirs = model.network(movie), twin(windows_of(movie, 4))
    assert float(ours.detach().std(0).max()) > 0.1
    torch.testing.assert_close(ours, theirs, **EXACT)
    upstream = torch.randn_like(ours)
    own, others = list(model.network.parameters()), list(twin.parameters())
    gradients = torch.autograd.grad(ours, [movie, *own], upstream)
    expected = torch.autograd.grad(theirs, [movie, *others], upstream)
    for a, b in zip(gradients, expected, strict=True):
        scale = float(b.abs().max())
        torch.testing.assert_close(a.reshape(b.shape), b, rtol=1e-9, atol=1e-10 * max(scale, 1))


@pytest.mark.parametrize(("cls", "options"), VARIANTS)
@pytest.mark.parametrize("training", [False, True])
def test_rates_and_gradients_are_those_of_the_layers_on_windows(cls, options, training):
    compare(model_of(cls, **options), options, (12, 11), training)


@pytest.mark.parametrize("cls", [CNN2016, BNCNN, StackedBNCNN, Retinotopic])
@pytest.mark.parametrize("shape", [(1, 11), (1, 1), (2, 12, 12)])
def test_other_frames(cls, shape):
    compare(model_of(cls, shape), {}, shape, training=False)


@pytest.mark.parametrize("norm", ["channel", "unit"])
def test_running_statistics_move_as_in_pytorch(norm):
    model = model_of(BNCNN, norm=norm, positive_norm=True, norm_momentum=0.3)
    own = model.layers["norm1"]
    plain = nn.BatchNorm1d(len(own.weight), momentum=0.3).double()
    plain.running_mean.copy_(own.running_mean)
    plain.running_var.copy_(own.running_var)
    movie = torch.randn(2, 10, 12, 11, dtype=torch.double)
    maps = model.layers["conv1"](movie)
    model.network.train()(movie)
    plain(maps.flatten(2) if norm == "channel" else maps.flatten(1))
    torch.testing.assert_close(own.running_mean, plain.running_mean, **EXACT)
    torch.testing.assert_close(own.running_var, plain.running_var, **EXACT)


def test_models_saved_before_the_options_were_there(tmp_path):
    model = BNCNN((6, 6), history=3, bin_width=0.01, cells=["a"], kernel_sizes=(3, 3))
    folder = model.save(tmp_path / "model")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    for name in ("norm", "positive_norm", "norm_momentum", "rate_units"):
        del config["arguments"][name]
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert rc.load_model(folder).fingerprint == model.fingerprint
    assert isinstance(model.layers["norm1"], nn.BatchNorm2d)
    assert (model.layers["norm1"].momentum, model.layers["norm1"].eps) == (0.1, 1e-5)
