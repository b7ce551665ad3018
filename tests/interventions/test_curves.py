"""Curves: numbers by hand, twins by `ablate`, rankings, random orders, bad input."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import retina_codec as rc
from retina_codec.interventions import curves


def curve_of(model, data, ranking, **options):
    return rc.ablation_curve(model, data, ranking, n_draws=20, progress=False, **options)


@pytest.fixture
def votes():
    """Six hidden units, two for each category; images whose units are 0.1, 1 and 2."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Linear(6, 3))
    with torch.no_grad():
        net[1].weight.copy_(torch.eye(6))
        net[1].bias.zero_()
        net[3].weight.copy_(torch.eye(3).repeat_interleave(2, dim=1))
        net[3].bias.zero_()
    model = rc.classifiers.from_module(net, categories=["a", "b", "c"])
    rows, names = [], []
    for place, name in enumerate("abc"):
        for strong in (0, 1):
            values = np.full(6, 0.1)
            values[2 * place + strong] = 2.0
            values[2 * place + 1 - strong] = 0.2
            rows.append(values)
            names.append(name)
    images = xr.DataArray(
        np.array(rows, dtype="float32").reshape(6, 1, 2, 3),
        {"image": np.arange(6) * 10, "category": ("image", names)},
        ("image", "color", "y", "x"),
    )
    return model, images


def test_accuracies_areas_and_scores_by_hand(votes):
    model, images = votes
    ranking = xr.DataArray(
        [[9.0, 8, 0, 0, 0, 0], [0, 0, 5, 4, 0, 0]],
        {"category": ["a", "b"]},
        ("category", "channel"),
    )
    found = curve_of(model, images, ranking, layer="2", labels="category", counts=[1, 2])
    # The first unit of `a` gone: its image has 0.2 against 0.2 of the others, a draw, which is
    # wrong; the second image has its 2. Both gone: nothing.
    for category in ("a", "b"):
        one = found.sel(category=category)
        assert one["before"].values.tolist() == [1, 1]
        assert one["after"].sel(group="target").values.tolist() == [0.5, 0]
        assert one["after"].sel(group="off_target").values.tolist() == [1, 1]
        assert one["auc"].values.tolist() == [0.25, 1]
        assert float(one["score"]) == -0.75
    assert found["mean_score"].item() == -0.75
    assert found["mean_ratio"].sel(group="target").values.tolist() == [0.5, 0]
    kept = curve_of(
        model, images, ranking, layer="2", labels="category", counts=[1, 2], preserve=True
    )
    one = kept.sel(category="a")
    # With its first unit alone, the second image of `a` has 0.2 there, and nothing else has any.
    assert one["after"].sel(group="target").values.tolist() == [1, 1]
    # Of the others nothing is left: what they are told apart by is at rest.
    assert one["after"].sel(group="off_target").values.tolist() == [0, 0]
    assert np.isnan(one["score"])
    two = curve_of(
        model, images, ranking.isel(category=0), layer="2", labels="category",
        target=["a", "b"], counts=[2], ignore=[],
    )  # fmt: skip
    assert two["after"].values.tolist() == [[0.5], [1.0]]
    top = curve_of(
        model, images, ranking, layer="2", labels="category", counts=[1], top=3
    )  # fmt: skip
    assert (top["after"] == 1).all()


def test_points_are_those_of_models_silenced_one_by_one(classifier, images):
    rng = np.random.default_rng(0)
    ranking = {
        "layer3.1": xr.DataArray(rng.normal(size=256), dims="channel"),
        "layer4.0": xr.DataArray(rng.normal(size=512), dims="channel"),
    }
    labels = images["category"]
    for preserve in (False, True):
        found = curve_of(
            classifier, images, ranking, labels=labels, target="x", percentages=[10, 40],
            preserve=preserve, batch_size=2,
        )  # fmt: skip
        act = rc.preserve if preserve else rc.ablate
        for percentage in (10, 40):
            chosen = {
                name: np.argsort(-order.values)[: round(percentage * order.size / 100)]
                for name, order in ranking.items()
            }
            logits = act(classifier, chosen).predict(images)
            right = logits["category"].values[logits.values.argmax(1)] == labels.values
            after = found["after"].sel(percentage=percentage)
            assert after.sel(group="target").item() == right[labels.values == "x"].mean()
            assert after.sel(group="off_target").item() == right[labels.values != "x"].mean()
    assert found["n_channels_layer4.0"].values.tolist() == [51, 205]


def test_responses_of_a_retina_model_cell_by_cell(model, movie):
    epochs = xr.DataArray(
        np.where(np.arange(60) % 20 < 10, "step", np.where(np.arange(60) % 20 < 15, "bar", "rest")),
        {"time": movie["time"]}, ("time",),
    )  # fmt: skip
    ranking = xr.DataArray([1.0, 3.0, 2.0], dims="channel")
    found = curve_of(
        model, movie, ranking, layer="relu1", labels=epochs, target="bar", ignore=["rest"],
        n_random=3,
    )  # fmt: skip
    assert found["count"].values.tolist() == [1, 2]
    before = model.predict(movie)
    zero = xr.zeros_like(movie)
    rest = model.predict(zero).isel(time=0, drop=True)
    kind = epochs.sel(time=before["time"])
    for count, channels in ((1, [1]), (2, [1, 2])):
        after = rc.ablate(model, "relu1", channels=channels).predict(movie)
        for group, label in (("target", "bar"), ("off_target", "step")):
            at = kind == label
            sizes = [abs(rate - rest).where(at).mean("time") for rate in (before, after)]
            ratio = found["ratio"].sel(count=count, group=group)
            np.testing.assert_allclose(ratio, sizes[1] / sizes[0], rtol=1e-4)
            r = xr.corr(before.where(at), after.where(at), "time")
            ours = found["correlation"].sel(count=count, group=group)
            np.testing.assert_allclose(ours, r, rtol=1e-3)
    np.testing.assert_allclose(found["auc"], found["ratio"].mean("count"), rtol=1e-6)
    low, high = found["mean_ratio_low"], found["mean_ratio_high"]
    assert ((low <= found["mean_ratio"]) & (found["mean_ratio"] <= high)).all()
    assert (low < high).all()
    # One draw of three channels is one of six orders; what is run twice is run once.
    alone = [rc.ablate(model, "relu1", channels=i).predict(movie) for i in range(3)]
    at = kind == "bar"
    ratios = [
        (abs(one - rest).where(at).mean("time") / abs(before - rest).where(at).mean("time")).values
        for one in alone
    ]
    for draw in found["random_ratio"].sel(count=1, group="target").values:
        assert min(np.abs(draw - ratio).max() for ratio in ratios) < 1e-4
    assert found["random_share"].item() in (0.25, 0.5, 0.75)


def test_ties_random_orders_and_where_they_are_tried(votes):
    model, images = votes
    flat = xr.DataArray(np.zeros(6), dims="channel")
    options = {"layer": "2", "labels": "category", "target": "a"}
    found = curve_of(model, images, flat, n_random=2, random_at=[2, 4], **options)
    # Of equals the first goes first; by default all but one channel of a small layer.
    assert found["count"].values.tolist() == [1, 2, 3, 4, 5]
    assert found["after"].sel(group="target", count=2).item() == 0
    there = np.isfinite(found["random_ratio"].sel(group="target"))
    assert there.all("draw")["count"].values[there.all("draw").values].tolist() == [2, 4]
    expected = found["ratio"].sel(group="target", count=[2, 4]).mean()
    assert found["auc_there"].sel(group="target").item() == expected
    again = curve_of(model, images, flat, n_random=2, random_at=[2, 4], **options)
    assert again.identical(found)
    other = curve_of(model, images, flat, n_random=2, random_at=[2, 4], seed=1, **options)
    assert not other["random_ratio"].equals(found["random_ratio"])
    large = curves._steps({"a": 128, "b": 256}, None, None)
    assert large.dim == "percentage"
    assert large.n_channels["b"].tolist() == [3, 5, 13, 26, 46, 64, 128, 205, 253]


def test_what_is_wrong_is_said(votes, model, movie):
    net, images = votes
    ranking = xr.DataArray(np.arange(6.0), dims="channel")
    options = {"layer": "2", "labels": "category", "target": "a"}

    def fails(message, ranking=ranking, data=images, error=ValueError, **changed):
        with pytest.raises(error, match=message):
            curve_of(net, data, ranking, **{**options, **changed})

    fails("target is missing", target=None)
    fails("target has 'd', which no sample is; .*choices: a, b, c", target="d")
    fails("leaves no sample off target", target=["a", "b", "c"])
    fails("labels='kind' is no coordinate of data", labels="kind")
    fails("labels lacks some", labels=images["category"].isel(image=slice(3)))
    fails("labels has 'bird', which is no output",
          labels=images["category"].where(images["category"] != "c", "bird"))  # fmt: skip
    fails("layer is missing", layer=None)
    fails("no layer 'x'", layer="x")
    fails("ranking of layer '2' has 5 channels, the layer 6", ranking=ranking[:5])
    fails("or others", ranking=ranking.assign_coords(channel=np.arange(6) + 1))
    fails("sum over signs", ranking=ranking.expand_dims(["sign", "mode"]))
    fails("a channel is silenced with both", ranking=ranking.expand_dims("sign"))
    fails("ranking has 1 NaN", ranking=ranking.where(ranking > 0))
    fails("ranking is a list", ranking=[1, 2], error=TypeError)
    fails("percentages and counts are given", percentages=[1], counts=[1])
    fails("counts=.*rising numbers of channels, at most 6", counts=[7])
    fails("percentages=.*rising numbers above 0", percentages=[0, 5])
    fails("random_at=", random_at=[9], n_random=1)
    fails("level=1", level=1)
