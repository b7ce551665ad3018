"""Modes and categories of images: planted ones are found, chance is not."""

import numpy as np
import pytest
import scipy.stats
import xarray as xr

import retina_codec as rc

N = 240
NAMES = np.array(["cat", "dog", "ship", "car"])
LABELS = NAMES[np.arange(N) % 4]
HIERARCHY = {"thing": ["animal", "vehicle"], "animal": ["cat", "dog"], "vehicle": ["car", "ship"]}


@pytest.fixture(scope="module")
def loadings():
    """A mode of ships, one of animals, one of noise, a silent one."""
    rng = np.random.default_rng(3)
    values = np.abs(rng.normal(size=(N, 4)))
    values[:, 0] += 3 * (LABELS == "ship")
    values[:, 1] += 2 * np.isin(LABELS, ["cat", "dog"])
    values[:, 3] = 0
    return xr.DataArray(
        values, dims=("image", "mode"), coords={"image": np.arange(N), "label": ("image", LABELS)}
    )


def test_correlations_are_those_of_scipy(loadings):
    found = rc.analysis.category_association(
        loadings, "label", hierarchy=HIERARCHY, n_permutations=300
    )
    for node, below in (("ship", ["ship"]), ("animal", ["cat", "dog"])):
        mask = np.isin(LABELS, below)
        for mode in range(3):
            expected = scipy.stats.pearsonr(loadings.values[:, mode], mask)[0]
            assert found["r"].sel(mode=mode, node=node).item() == pytest.approx(expected)
    assert found["node"].values.tolist() == [*sorted(NAMES), *HIERARCHY]
    assert found["n_images"].sel(node=["cat", "animal", "thing"]).values.tolist() == [60, 120, 240]
    assert found["r"].sel(node="thing").isnull().all()  # holds all images
    assert found["r"].sel(mode=3).isnull().all()
    assert found["best_node"].values.tolist()[:2] == ["ship", "animal"]
    assert found["best_category"].values[[0, 3]].tolist() == ["ship", ""]
    assert found["class_mode"].values[[0, 2, 3]].tolist() == [True, False, False]
    flipped = rc.analysis.category_association(
        loadings.T, xr.DataArray(LABELS, dims="image"), hierarchy=HIERARCHY, n_permutations=300
    )
    xr.testing.assert_allclose(flipped, found)


def test_p_values_are_those_of_a_plain_count(loadings):
    found = rc.analysis.category_association(loadings, LABELS, n_permutations=2000)
    mask = (LABELS == "dog").astype(float)
    rng = np.random.default_rng(5)
    for mode in (0, 1, 2):
        own = np.corrcoef(loadings.values[:, mode], mask)[0, 1]
        drawn = [
            np.corrcoef(rng.permutation(loadings.values[:, mode]), mask)[0, 1] for _ in range(2000)
        ]
        expected = np.mean(np.array(drawn) >= own)
        assert found["p_value"].sel(mode=mode, node="dog").item() == pytest.approx(
            expected, abs=0.04
        )
    tested = found["p_value"].values
    tested = tested[np.isfinite(tested)]
    q = scipy.stats.false_discovery_control(tested)
    np.testing.assert_allclose(found["q_value"].values[:3].ravel(), q)


def test_of_noise_few_are_class_modes_and_the_best_is_that_of_chance():
    rng = np.random.default_rng(1)
    noise = xr.DataArray(rng.gamma(1.0, size=(N, 60)), dims=("image", "mode"))
    found = rc.analysis.category_association(noise, LABELS, threshold=0.0)
    assert found["n_class_modes"].item() <= 1
    assert float(found["best_r"].mean() - found["chance_best_r"].mean()) == pytest.approx(
        0, abs=0.01
    )
    assert float((found["p_value"] < 0.05).mean()) == pytest.approx(0.05, abs=0.03)


def test_modes_are_scored_on_images_held_out():
    rng = np.random.default_rng(0)
    team = np.eye(4)[np.arange(N) % 4] * (1 + rng.random((N, 1)))
    contribution = xr.DataArray(
        team, dims=("image", "channel"), coords={"label": ("image", LABELS)}
    )
    modes = rc.fit_modes(
        contribution, features="channel", n_modes=4, k=1, validation_fraction=0.25, progress=False
    )
    found = rc.analysis.category_association(modes, "label")
    held_out = modes.score()["held_out"].values
    assert int(found["n_images"].sum()) == held_out.sum() == 60
    expected = rc.analysis.category_association(modes.loadings[held_out], LABELS[held_out])
    xr.testing.assert_allclose(found["r"], expected["r"])
    assert sorted(found["best_category"].values.tolist()) == sorted(NAMES.tolist())
    assert found["n_categories"].item() == 4


def test_a_hierarchy_from_a_file(loadings, tmp_path):
    path = tmp_path / "hierarchy.yaml"
    path.write_text("animal: [cat, dog]\nvehicle: [car, ship]\nthing: [animal, vehicle]\n")
    found = rc.analysis.category_association(loadings, LABELS, hierarchy=path, n_permutations=20)
    assert found["node"].values.tolist()[-3:] == ["animal", "vehicle", "thing"]
    assert found["n_images"].values[-3:].tolist() == [120, 120, 240]
    with pytest.raises(FileNotFoundError, match="no such file"):
        rc.analysis.category_association(loadings, LABELS, hierarchy=tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("labels", "given", "message"),
    [
        (LABELS, {"categories": ["cat", "dog", "ship"]}, "'car', which is not among the cat.*did"),
        (LABELS[:9], {}, r"labels has shape \(9,\); expected one label for each of 240"),
        ("labl", {}, "no coordinate of the loadings; did you mean 'label'"),
        (LABELS, {"threshold": 20}, "expected a correlation"),
        (LABELS, {"hierarchy": {"animal": ["cat", "dgo"]}}, "'dgo' below 'animal' .*mean 'dog'"),
        (LABELS, {"hierarchy": {"cat": ["dog"]}}, "has the name of a category"),
        (LABELS, {"hierarchy": {"a": ["b"], "b": ["a"]}}, "'a' is below itself, by a > b"),
        (LABELS, {"hierarchy": {"a": "cat"}}, "a list of children for each node"),
        (np.where(LABELS == "cat", np.nan, 1.0), {}, "None or NaN"),
        (xr.DataArray(LABELS, {"image": np.arange(N) + 1}, "image"), {}, "other coordinates"),
    ],
)
def test_bad_input(loadings, labels, given, message):
    with pytest.raises(ValueError, match=message):
        rc.analysis.category_association(loadings, labels, **given)


def test_loadings_of_several_outputs_are_refused(loadings):
    with pytest.raises(ValueError, match="fit to one target"):
        rc.analysis.category_association(loadings.expand_dims(category=2), LABELS)
