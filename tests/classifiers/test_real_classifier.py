"""A real classifier on real images: the figures of the data's own notes."""

import numpy as np
import pytest
import xarray as xr

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
    pictures = xr.DataArray(
        images.transpose(0, 3, 1, 2),
        dims=("image", "color", "y", "x"),
        coords={"label": ("image", names[labels])},
    )
    logits = model.predict(pictures)
    np.testing.assert_allclose(logits[0], LOGITS, atol=1e-4)
    scores = rc.evaluate(logits, pictures, n_draws=20)
    assert (scores["top1"] * scores["n_images"]).round(9).values.tolist() == CORRECT
    assert float(scores["top1_overall"]) == pytest.approx(0.8135, abs=1e-9)
    assert float(scores["top5_overall"]) == pytest.approx(0.9875, abs=1e-9)
    assert float(scores["cross_entropy_overall"]) == pytest.approx(0.8328, abs=5e-5)
    assert scores["top1_overall_low"] < 0.8135 < scores["top1_overall_high"]
