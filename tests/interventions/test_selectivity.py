"""Rankings of channels compared: a network in which it is known which channels a category needs."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import retina_codec as rc

NAMES = ["a", "b", "c"]
LABELS = np.repeat(NAMES, 20)


@pytest.fixture(scope="module")
def model():
    """Six hidden channels, two of each category, in the order a b c a b c."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    net[1].weight.data.copy_(torch.eye(6))
    net[3].weight.data.copy_(torch.eye(3).repeat(1, 2))
    for layer in (net[1], net[3]):
        layer.bias.data.zero_()
    return rc.classifiers.from_module(net, categories=NAMES)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    own = np.tile(np.eye(3)[np.searchsorted(NAMES, LABELS)], 2)
    values = own * rng.uniform(1, 2, (60, 6)) + 0.2 * rng.random((60, 6))
    return xr.DataArray(
        values.astype(np.float32).reshape(60, 1, 2, 3),
        dims=("image", "color", "y", "x"),
        coords={"image": np.arange(60), "label": ("image", LABELS)},
    )


@pytest.fixture(scope="module")
def rankings():
    needed = np.tile(np.eye(3), 2)
    return {
        name: xr.DataArray(values, {"target": NAMES}, ("target", "channel"))
        for name, values in (("needed", needed), ("not needed", 1 - needed))
    }


def test_scores_are_those_of_single_curves(model, images, rankings):
    given = {"layer": "2", "labels": "label", "counts": [1, 2, 4], "n_draws": 50, "progress": False}
    found = rc.interventions.compare_rankings(model, images, rankings, n_random=10, **given)
    assert found["ranking"].values.tolist() == ["needed", "not needed"]
    for name, ranking in rankings.items():
        for target in NAMES:
            curve = rc.ablation_curve(model, images, ranking.sel(target=target, drop=True),
                                      target=target, **given)  # fmt: skip
            here = found.sel(ranking=name, target=target)
            for variable in ("score", "auc", "ratio", "before"):
                np.testing.assert_allclose(here[variable], curve[variable])
    # Without its two channels no image of the category is right; the others lose none of theirs.
    ratio = found["ratio"].sel(ranking="needed", count=2)
    assert (ratio.sel(group="target") == 0).all() and (ratio.sel(group="off_target") == 1).all()
    np.testing.assert_allclose(found["mean_score"], found["score"].mean("target"))
    difference = found["mean_score"][0] - found["mean_score"][1]
    assert found["score_difference"].values[1] == pytest.approx(float(difference))
    assert found["score_difference"].values[0] == 0 and difference < -0.5
    assert found["random_share"].values[0] == pytest.approx(1 / 11)
    assert float(found["random_share"][1]) > 0.5


def test_intervals_over_targets(model, images, rankings):
    """With as many targets, the interval is that of a plain bootstrap of the scores."""
    found = rc.interventions.compare_rankings(
        model, images, rankings, layer="2", labels="label", counts=[1, 3], n_draws=4000,
        n_random=0, progress=False,
    )  # fmt: skip
    scores = found["score"].sel(ranking="not needed").values
    rng = np.random.default_rng(1)
    drawn = rng.choice(scores, (4000, 3)).mean(1)
    for end, q in (("low", 2.5), ("high", 97.5)):
        got = found[f"mean_score_{end}"].sel(ranking="not needed").item()
        assert got == pytest.approx(np.percentile(drawn, q), abs=0.05 * max(np.ptp(scores), 0.01))
    assert "random_share" not in found


def test_preserving_and_groups(model, images, rankings):
    pair = xr.DataArray([np.tile([1.0, 1, 0], 2)], {"target": ["a or b"]}, ("target", "channel"))
    found = rc.interventions.compare_rankings(
        model, images, {"pair": pair}, layer="2", labels="label", groups={"a or b": ["a", "b"]},
        counts=[4], preserve=True, n_random=5, random_at=[4], progress=False,
    )  # fmt: skip
    ratio = found["ratio"].sel(ranking="pair", target="a or b").values[:, 0]
    np.testing.assert_allclose(ratio, [1, 0])
    assert found["score"].isnull().all()  # nothing off target is left to divide by


def test_several_layers_at_once(model, images, rankings):
    both = {"both": {"1": rankings["needed"], "2": rankings["needed"]}}
    found = rc.interventions.compare_rankings(
        model, images, both, labels="label", counts=[2], n_random=0, progress=False
    )
    one = rc.interventions.compare_rankings(
        model, images, {"one": rankings["needed"]}, layer="2", labels="label", counts=[2],
        n_random=0, progress=False,
    )  # fmt: skip
    np.testing.assert_allclose(found["ratio"], one["ratio"])


def test_channels_are_ranked_by_what_the_mode_gives_them(model, images):
    tree = rc.contributions(
        model, images, layers="2", split_sign=True, sum_over=("y", "x"), progress=False
    )
    contribution = tree["layers/2"]["contribution"]
    contribution = contribution.sel(sign=["positive"])  # nothing hinders
    modes = rc.fit_modes(contribution, n_modes=3, k=1, progress=False)
    found = rc.analysis.category_association(
        modes, "label", hierarchy={"a or b": ["a", "b"]}, n_permutations=50
    )
    ranking = rc.interventions.rank_by_mode(modes, found)
    assert ranking["target"].values.tolist() == NAMES
    for place, row in enumerate(ranking.values):
        assert sorted(np.argsort(-row)[:2]) == [place, place + 3]
    # In the contribution's units: what the mode gives at its mean loading.
    mode = int(ranking["mode"][0])
    loading = modes.loadings.sel(mode=mode).values
    row = modes.dictionary.sel(mode=mode).values * loading[loading != 0].mean()
    scale = modes._scaling.scale.reshape(row.shape)
    np.testing.assert_allclose(ranking.values[0], (row**2 * scale).sum(0), rtol=1e-4)
    group = rc.interventions.rank_by_mode(modes, found, ["a or b"])
    assert group["r"].item() == pytest.approx(float(found["r"].sel(node="a or b").max()))


def test_bad_input(model, images, rankings):
    given = {"labels": "label", "progress": False}
    with pytest.raises(ValueError, match="layer is missing"):
        rc.interventions.compare_rankings(model, images, rankings, **given)
    with pytest.raises(ValueError, match=r"rename\(node='target'\)"):
        wrong = {"needed": rankings["needed"].rename(target="node")}
        rc.interventions.compare_rankings(model, images, wrong, layer="2", **given)
    other = {**rankings, "other": rankings["needed"].isel(target=[1, 0, 2])}
    with pytest.raises(ValueError, match=r"rankings\['other'\] has other targets"):
        rc.interventions.compare_rankings(model, images, other, layer="2", **given)
    with pytest.raises(ValueError, match="'d', which no sample is"):
        new = {"new": rankings["needed"].assign_coords(target=["a", "b", "d"])}
        rc.interventions.compare_rankings(model, images, new, layer="2", **given)
    with pytest.raises(TypeError, match="expected at least one ranking by its name"):
        rc.interventions.compare_rankings(model, images, {}, layer="2", **given)
    with pytest.raises(TypeError, match="modes is a DataArray; expected the result of fit_modes"):
        rc.interventions.rank_by_mode(rankings["needed"], xr.Dataset())
