"""A real classifier on real images: the figures of the data's own notes."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn
from torch.nn import functional

import retina_codec as rc

pytestmark = pytest.mark.data

CORRECT = [146, 157, 133, 139, 189, 141, 175, 171, 188, 188]
LOGITS = [7.8901, -1.0877, 2.6342, -1.0125, -2.8370, -6.9533, -3.3481, -6.4984, 6.9738, 4.2098]


class Block(nn.Module):
    """Two convolutions around a shortcut that pads channels with zeros (He et al. 2016, A)."""

    def __init__(self, before, after, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.stride, self.pad = stride, (after - before) // 2

    def forward(self, x):
        inner = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        x = functional.pad(x[:, :, :: self.stride, :: self.stride], [0] * 4 + [self.pad] * 2)
        return functional.relu(inner + x)


class ResNet20(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        sizes = ((16, 16, 1), (16, 32, 2), (32, 64, 2))
        for i, (before, after, stride) in enumerate(sizes, start=1):
            blocks = [Block(before, after, stride), *(Block(after, after, 1) for _ in range(2))]
            setattr(self, f"layer{i}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def test_resnet20_on_cifar10(real_data):
    saved = torch.load(real_data / "cifar10_resnet20.th", map_location="cpu", weights_only=True)
    state = {key.removeprefix("module."): value for key, value in saved["state_dict"].items()}
    net = ResNet20()
    net.load_state_dict(state)
    assert sum(p.numel() for p in net.parameters()) == 269722
    with np.load(real_data / "cifar10_test" / "cifar10_test_2000.npz") as file:
        images, labels, names = (file[key] for key in ("images", "labels", "class_names"))
    np.testing.assert_allclose(images.mean((0, 1, 2)), [126.766, 124.458, 116.008], atol=5e-4)
    model = rc.classifiers.from_module(
        net,
        categories=names.tolist(),
        mean=(0.485, 0.456, 0.406),
        sd=(0.229, 0.224, 0.225),
        default_layers=("layer1", "layer2", "layer3"),
    )
    pictures = xr.DataArray(
        images.transpose(0, 3, 1, 2).astype(np.float32) / 255, dims=("image", "color", "y", "x")
    )
    logits = model.predict(pictures)
    np.testing.assert_allclose(logits[0], LOGITS, atol=1e-4)
    order = np.argsort(-logits.values, axis=1)
    hit = order[:, 0] == labels
    assert [int(hit[labels == k].sum()) for k in range(10)] == CORRECT
    assert hit.sum() == 1627
    assert (order[:, :5] == labels[:, None]).any(1).mean() == pytest.approx(0.9875)
    loss = functional.cross_entropy(torch.from_numpy(logits.values), torch.from_numpy(labels))
    assert float(loss) == pytest.approx(0.8328, abs=5e-5)
