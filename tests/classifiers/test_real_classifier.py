"""A real classifier on real images: the figures of the data's own notes."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch.nn import functional

import retina_codec as rc

pytestmark = pytest.mark.data

CORRECT = [146, 157, 133, 139, 189, 141, 175, 171, 188, 188]
LOGITS = [7.8901, -1.0877, 2.6342, -1.0125, -2.8370, -6.9533, -3.3481, -6.4984, 6.9738, 4.2098]


def test_resnet20_on_cifar10(real_data):
    model = rc.classifiers.cifar_resnet(real_data / "cifar10_resnet20.th")
    assert sum(p.numel() for p in model.network.parameters()) == 269722
    assert len(model.default_layers) == 9
    with np.load(real_data / "cifar10_test" / "cifar10_test_2000.npz") as file:
        images, labels, names = (file[key] for key in ("images", "labels", "class_names"))
    assert model.outputs.tolist() == names.tolist()
    np.testing.assert_allclose(images.mean((0, 1, 2)), [126.766, 124.458, 116.008], atol=5e-4)
    pictures = xr.DataArray(images.transpose(0, 3, 1, 2), dims=("image", "color", "y", "x"))
    logits = model.predict(pictures)
    np.testing.assert_allclose(logits[0], LOGITS, atol=1e-4)
    order = np.argsort(-logits.values, axis=1)
    hit = order[:, 0] == labels
    assert [int(hit[labels == k].sum()) for k in range(10)] == CORRECT
    assert hit.sum() == 1627
    assert (order[:, :5] == labels[:, None]).any(1).mean() == pytest.approx(0.9875)
    loss = functional.cross_entropy(torch.from_numpy(logits.values), torch.from_numpy(labels))
    assert float(loss) == pytest.approx(0.8328, abs=5e-5)
