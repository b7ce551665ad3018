"""How often a classifier is right: counted by hand, with intervals, and what is refused."""

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import norm
from torch import nn

import retina_codec as rc

NAMES = [f"c{i}" for i in range(7)]


def case(n=210, seed=0, own=1.0):
    """Logits of random images, whose label is a little larger; the last category has none."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 6
    logits = rng.normal(size=(n, 7))
    logits[np.arange(n), labels] += own
    ids = [f"p{i}" for i in range(n)]
    prediction = xr.DataArray(
        logits, dims=("image", "category"), coords={"image": ids, "category": NAMES}
    )
    images = xr.DataArray(
        np.zeros((n, 1, 2, 2), "float32"),
        dims=("image", "color", "y", "x"),
        coords={"image": ids, "label": ("image", [NAMES[k] for k in labels])},
    )
    return prediction, images, labels


def test_shares_and_cross_entropy_counted_one_by_one():
    prediction, images, labels = case()
    scores = rc.evaluate(prediction, images, n_draws=50)
    top1, top5, loss = [], [], []
    for row, label in zip(prediction.values, labels, strict=True):
        order = sorted(range(7), key=lambda k: -row[k])
        top1.append(order[0] == label)
        top5.append(label in order[:5])
        loss.append(-np.log(np.exp(row[label]) / np.exp(row).sum()))
    assert 0.2 < np.mean(top1) < np.mean(top5) < 1
    for name, values in {"top1": top1, "top5": top5, "cross_entropy": loss}.items():
        values = np.asarray(values, dtype=float)
        by_category = [values[labels == k].mean() for k in range(6)]
        np.testing.assert_allclose(scores[name][:6], by_category, rtol=1e-9)
        assert np.isnan(scores[name][6])
        assert float(scores[f"{name}_overall"]) == pytest.approx(values.mean(), rel=1e-9)
    assert scores["n_images"].values.tolist() == [35] * 6 + [0]
    assert scores["top1"].attrs["units"] == "1"
    assert scores["cross_entropy"].attrs["units"] == "nat"
    torch_loss = nn.functional.cross_entropy(
        torch.from_numpy(prediction.values), torch.from_numpy(labels)
    )
    assert float(scores["cross_entropy_overall"]) == pytest.approx(float(torch_loss), rel=1e-9)


def test_intervals_of_shares_are_wilsons():
    prediction, images, _ = case()
    scores = rc.evaluate(prediction, images, level=0.9, n_draws=10)
    z, n = norm.ppf(0.95), 35
    for k in range(6):
        p = float(scores["top1"][k])
        centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        reach = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
        assert float(scores["top1_low"][k]) == pytest.approx(centre - reach, rel=1e-6)
        assert float(scores["top1_high"][k]) == pytest.approx(centre + reach, rel=1e-6)


def test_the_difference_of_two_classifiers_is_paired():
    prediction, images, labels = case(n=1200)
    better = prediction.copy()
    # Right for 60 images more, wrong for none more.
    wrong = np.flatnonzero(prediction.values.argmax(1) != labels)[:60]
    better[wrong, :] = 0.0
    better.values[wrong, labels[wrong]] = 5.0
    scores = rc.evaluate(better, images, baseline=prediction, n_draws=400)
    assert float(scores["top1_overall_difference"]) == pytest.approx(60 / 1200)
    assert float(scores["top1_overall_baseline"]) == pytest.approx(
        float(rc.evaluate(prediction, images, n_draws=10)["top1_overall"])
    )
    # All of one sign: the paired spread is that of 60 in 1200, not that of two accuracies.
    ends = [float(scores[f"top1_overall_difference_{end}"]) for end in ("low", "high")]
    spread = 1.96 * np.sqrt(0.05 * 0.95 / 1200)
    np.testing.assert_allclose(ends, [0.05 - spread, 0.05 + spread], atol=0.004)


def test_a_classifier_is_scored_like_its_prediction_and_numbers_like_names():
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    model = rc.classifiers.from_module(net, categories=["a", "b", "c"])
    values = np.random.default_rng(0).random((40, 3, 2, 2), dtype=np.float32)
    numbers = np.arange(40) % 3
    images = xr.DataArray(
        values, dims=("image", "color", "y", "x"), coords={"label": ("image", numbers)}
    )
    scores = rc.evaluate(model, images, n_draws=20)
    named = images.assign_coords(label=("image", np.array(["a", "b", "c"])[numbers]))
    turned = named.transpose("x", "image", "color", "y")
    xr.testing.assert_identical(rc.evaluate(model, turned, n_draws=20), scores)
    xr.testing.assert_identical(rc.evaluate(model.predict(named), named, n_draws=20), scores)
    assert scores.attrs["model_fingerprint"] == model.fingerprint
    assert "top5" not in scores


def test_a_network_that_says_the_same_of_all_images_is_right_by_chance():
    prediction, images, _ = case()
    scores = rc.evaluate(xr.zeros_like(prediction), images, n_draws=10)
    assert scores["top1"].values[:6].tolist() == [1, 0, 0, 0, 0, 0]
    assert float(scores["cross_entropy_overall"]) == pytest.approx(np.log(7))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda p, i: (p, i.drop_vars("label")), ValueError, r"no coordinate label\(image\)"),
        (
            lambda p, i: (p, i.assign_coords(label=("image", ["c3x"] * 210))),
            ValueError,
            r"images\['label'\]: no category 'c3x'; did you mean 'c3'",
        ),
        (
            lambda p, i: (p, i.assign_coords(label=("image", [0] * 209 + [7]))),
            ValueError,
            "label 7 of image 209 is out of range; expected 0 to 6",
        ),
        (
            lambda p, i: (p, i.assign_coords(label=("image", [0.5] * 210))),
            TypeError,
            "dtype float64; expected names",
        ),
        (lambda p, i: (p[::-1], i), ValueError, "other images than images, or in another order"),
        (lambda p, i: (p.where(p["image"] != "p3"), i), ValueError, "NaN or infinite"),
        (lambda p, i: (p, i.values), TypeError, "images is a ndarray"),
    ],
)
def test_refuses_what_does_not_go_together(change, error, message):
    prediction, images, _ = case()
    with pytest.raises(error, match=message):
        rc.evaluate(*change(prediction, images))


def test_refuses_a_baseline_of_another_kind():
    prediction, images, _ = case()
    with pytest.raises(ValueError, match="keep_draws, and a baseline that is an evaluation"):
        rc.evaluate(prediction, images, keep_draws=True)
    other = prediction.assign_coords(category=list("abcdefg"))
    with pytest.raises(ValueError, match="baseline has other categories"):
        rc.evaluate(prediction, images, baseline=other)
    with pytest.raises(ValueError, match="level=95; expected a number between 0 and 1"):
        rc.evaluate(prediction, images, level=95)
