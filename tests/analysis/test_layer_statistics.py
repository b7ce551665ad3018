"""The table of all layers, beside the single statistics and a plain bootstrap."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import retina_codec as rc

LABELS = np.array(["a", "b", "c"])[np.arange(60) % 3]


@pytest.fixture(scope="module")
def tree():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 5, 3), nn.ReLU(), nn.Conv2d(5, 7, 3), nn.ReLU(), nn.Flatten(), nn.Linear(28, 3)
    )
    return rc.contributions(
        net, torch.randn(60, 1, 6, 6), layers=["1", "3"], target=rc.targets.TopK(1),
        split_sign=True, sum_over=("y", "x"), extras="activation", progress=False,
    )  # fmt: skip


def test_values_are_those_of_the_single_functions(tree):
    found = rc.analysis.layer_statistics(tree, LABELS, n_draws=50, explained=0.9)
    assert found["layer"].values.tolist() == ["1", "3"]
    for name in ("1", "3"):
        layer = tree[f"layers/{name}"].to_dataset()
        single = rc.analysis.compare_with_activation(layer, groups=LABELS, explained=0.9)
        here = found.sel(layer=name)
        np.testing.assert_allclose(here["sparsity"], single["sparsity"].sel(quantile=0.5))
        np.testing.assert_allclose(here["participation_ratio"], single["participation_ratio"])
        np.testing.assert_allclose(here["dimensionality"], single["dimensionality"][:, 0])
        r = rc.analysis.sign_correlation(layer["contribution"])["correlation"]
        assert here["sign_correlation"].item() == pytest.approx(float(r.median()))
        difference = here["sparsity"][0] - here["sparsity"][1]
        assert here["sparsity_difference"].item() == pytest.approx(float(difference))
    for name in ("sparsity", "participation_ratio", "sign_correlation"):
        assert (found[f"{name}_low"] < found[f"{name}_high"]).all()
    inside = (found["sparsity_low"] <= found["sparsity"]) & (
        found["sparsity"] <= found["sparsity_high"]
    )
    assert inside.all()


def test_intervals_are_those_of_a_plain_bootstrap(tree):
    found = rc.analysis.layer_statistics(tree, LABELS, n_draws=1000, seed=1)
    layer = tree["layers/3"].to_dataset()
    values = layer["activation"]
    each = rc.analysis.sparsity(values).values
    rng = np.random.default_rng(7)
    groups = [np.flatnonzero(name == LABELS) for name in np.unique(LABELS)]
    medians, ratios = [], []
    for _ in range(300):
        drawn = np.concatenate([rng.choice(own, 20) for own in groups])
        medians.append(np.median(each[drawn]))
        part = values.isel(sample=drawn).drop_vars("sample")
        ratios.append(rc.analysis.participation_ratio(part, groups=LABELS[drawn]).item())
    here = found.sel(layer="3", quantity="activation")
    for name, drawn in (("sparsity", medians), ("participation_ratio", ratios)):
        width = np.ptp(np.percentile(drawn, [2.5, 97.5]))
        for end, q in (("low", 2.5), ("high", 97.5)):
            expected = np.percentile(drawn, q)
            assert here[f"{name}_{end}"].item() == pytest.approx(expected, abs=0.25 * width)


def test_without_activations_and_with_labels_on_the_images(tree):
    bare = xr.DataTree.from_dict(
        {
            f"/layers/{name}": node.to_dataset()[["contribution"]].assign_coords(
                label=("sample", LABELS)
            )
            for name, node in tree["layers"].children.items()
        }
    )
    found = rc.analysis.layer_statistics(bare, "label", n_draws=5)
    assert found["quantity"].values.tolist() == ["contribution"]
    assert "sparsity_difference" not in found
    both = rc.analysis.layer_statistics(tree, LABELS, n_draws=5)
    xr.testing.assert_allclose(found["sparsity"][:, 0], both["sparsity"][:, 0])


def test_bad_input(tree):
    with pytest.raises(TypeError, match="tree is a Dataset; expected the result of"):
        rc.analysis.layer_statistics(tree["layers/1"].to_dataset(), LABELS)
    with pytest.raises(ValueError, match="one label for each of 60"):
        rc.analysis.layer_statistics(tree, LABELS[:5])
    with pytest.raises(ValueError, match="at least two groups"):
        rc.analysis.layer_statistics(tree, ["a"] * 60)
    with pytest.raises(ValueError, match="no coordinate of the contributions"):
        rc.analysis.layer_statistics(tree, "label")
    summed = xr.DataTree.from_dict({"/layers/1": tree["layers/1"].to_dataset().sum("sign")})
    with pytest.raises(ValueError, match="expected 'sign' and no places"):
        rc.analysis.layer_statistics(summed, LABELS)
    movie = xr.DataTree.from_dict(
        {"/layers/1": tree["layers/1"].to_dataset().rename(sample="time")}
    )
    with pytest.raises(ValueError, match="do not follow one another"):
        rc.analysis.layer_statistics(movie, LABELS)
