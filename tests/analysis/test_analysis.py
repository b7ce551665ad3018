"""Statistics of contributions, each against its definition and an outside judge."""

import json
import tracemalloc

import dask.array as da
import numpy as np
import pytest
import scipy.stats
import torch
import xarray as xr
from sklearn.decomposition import PCA
from torch import nn

import retina_codec as rc
from retina_codec._common import checks

SIGNS = ["positive", "negative"]


def contribution(n=40, cells=3, channels=5, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, cells, 2, channels)) ** 3
    values[:, :, 0], values[:, :, 1] = np.abs(values[:, :, 0]), -np.abs(values[:, :, 1])
    return xr.DataArray(
        values.astype(np.float32),
        dims=("time", "cell", "sign", "channel"),
        coords={
            "time": np.arange(n) * 0.01,
            "block": ("time", np.repeat([0, 1], [n // 2, n - n // 2])),
            "cell": [f"C{i}" for i in range(cells)],
            "sign": SIGNS,
        },
    )


def maps(n=30, channels=4, size=3, seed=1):
    values = np.random.default_rng(seed).normal(size=(n, channels, size, size))
    values[:, 0] += 0.5
    return xr.DataArray(values, dims=("image", "channel", "y", "x"))


def parameters(result):
    return json.loads(result.attrs["parameters"])


# Sparsity


def test_sparsity_by_its_definition():
    c = contribution()
    found = rc.analysis.sparsity(c)
    for t in (0, 7, 39):
        for cell in range(3):
            v = c.values[t, cell].astype(np.float64).ravel()
            n = len(v)
            expected = (np.sqrt(n) - np.abs(v).sum() / np.linalg.norm(v)) / (np.sqrt(n) - 1)
            assert found.values[t, cell] == pytest.approx(expected, rel=1e-12)
    assert found.dims == ("time", "cell")
    assert set(found.coords) == {"time", "block", "cell"}
    assert found.attrs["units"] == "1"
    assert parameters(found) == {"function": "sparsity", "features": ["sign", "channel"]}


@pytest.mark.parametrize("n_active", [1, 2, 5, 16])
@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e200])
def test_sparsity_of_some_equal_units(n_active, scale):
    """With k of n units alike: (sqrt n - sqrt k) / (sqrt n - 1)."""
    v = np.zeros((1, 4, 2, 2))
    v.ravel()[:n_active] = np.where(np.arange(n_active) % 2, scale, -scale)
    found = rc.analysis.sparsity(xr.DataArray(v, dims=("image", "channel", "y", "x")))
    assert found.item() == pytest.approx((4 - np.sqrt(n_active)) / 3, abs=1e-12)


def test_sparsity_over_some_dims():
    c = contribution()
    found = rc.analysis.sparsity(c, features="channel")
    assert found.dims == ("time", "cell", "sign")
    alone = rc.analysis.sparsity(c.isel(time=3, cell=1, sign=0))
    assert alone.dims == ()
    assert alone.item() == pytest.approx(found.values[3, 1, 0], rel=1e-12)
    xr.testing.assert_allclose(
        rc.analysis.sparsity(c.transpose("channel", "cell", "sign", "time")),
        rc.analysis.sparsity(c).transpose("cell", "time"),
    )


def test_sparsity_where_all_units_are_zero():
    c = contribution()
    c[4, 1] = 0.0
    found = rc.analysis.sparsity(c)
    assert np.isnan(found.values[4, 1])
    assert int(found.isnull().sum()) == 1
    assert found.attrs["undefined"] == "NaN where all units are 0"


# Dimensions


def covariance_spectrum(rows):
    return np.linalg.eigvalsh(np.cov(rows.T.astype(np.float64)))


def test_participation_ratio_by_its_definition():
    c = contribution()
    rows = c.values.reshape(-1, 10)
    spectrum = covariance_spectrum(rows)
    found = rc.analysis.participation_ratio(c)
    assert found.dims == ()
    assert found.item() == pytest.approx(spectrum.sum() ** 2 / (spectrum**2).sum(), rel=1e-9)
    each = rc.analysis.participation_ratio(c, by="cell")
    assert each.dims == ("cell",)
    for i in range(3):
        spectrum = covariance_spectrum(c.values[:, i].reshape(-1, 10))
        expected = spectrum.sum() ** 2 / (spectrum**2).sum()
        assert each.values[i] == pytest.approx(expected, rel=1e-9)
    assert list(each["cell"].values) == ["C0", "C1", "C2"]
    assert parameters(each)["by"] == ["cell"]
    assert parameters(each)["samples"] == 40


@pytest.mark.parametrize("k", [1, 3, 6])
def test_participation_ratio_of_k_equal_directions(k):
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0][:k]
    rows = np.vstack([basis, -basis]) + 100.0  # a mean that is no matter
    c = xr.DataArray(rows, dims=("image", "channel"))
    assert rc.analysis.participation_ratio(c).item() == pytest.approx(k, rel=1e-9)
    assert rc.analysis.dimensionality(c, explained=1.0).item() == k


def test_dimensionality_is_that_of_scikit_learn():
    c = contribution(seed=3)
    found = rc.analysis.dimensionality(c, explained=(0.5, 0.9, 0.95))
    rows = c.values.reshape(-1, 10)
    for share in (0.5, 0.9, 0.95):
        expected = PCA(share, svd_solver="full").fit(rows.astype(np.float64)).n_components_
        assert found.sel(explained=share).item() == expected
    assert found.dims == ("explained",)
    each = rc.analysis.dimensionality(c, by=("cell",), features="channel")
    assert each.dims == ("cell", "explained")
    for i in range(3):
        rows = c.values[:, i].reshape(-1, 5).astype(np.float64)
        expected = PCA(0.9, svd_solver="full").fit(rows).n_components_
        assert each.values[i, 0] == expected


def test_dimensionality_by_hand():
    """Variances 8 : 4 : 3 : 1."""
    rows = np.diag(np.sqrt([8.0, 4, 3, 1]))
    c = xr.DataArray(np.vstack([rows, -rows]), dims=("image", "channel"))
    found = rc.analysis.dimensionality(c, explained=[0.5, 0.51, 0.75, 0.9, 15 / 16, 0.95, 1])
    np.testing.assert_array_equal(found, [1, 2, 2, 3, 3, 4, 4])


def test_dimensions_of_class_means():
    rng = np.random.default_rng(0)
    labels = np.repeat(["cat", "dog", "owl", "cat"], [7, 9, 5, 6])
    rows = rng.normal(size=(27, 6)) + 3 * (labels == "dog")[:, None] * rng.normal(size=6)
    c = xr.DataArray(rows, dims=("image", "channel"), coords={"image": np.arange(27)})
    means = np.stack([rows[labels == name].mean(0) for name in ("cat", "dog", "owl")])
    spectrum = covariance_spectrum(means)
    expected = spectrum.sum() ** 2 / (spectrum**2).sum()
    assert expected < rc.analysis.participation_ratio(c).item() - 0.5
    for groups in (labels, list(labels), xr.DataArray(labels, dims="image")):
        found = rc.analysis.participation_ratio(c, groups=groups)
        assert found.item() == pytest.approx(expected, rel=1e-9)
    count = rc.analysis.dimensionality(c, groups=labels, explained=(0.9, 1.0))
    assert count.values[1] == 2  # three means lie in a plane
    assert parameters(count)["groups"] == 3


def test_dimensions_of_groups_over_several_sample_dims():
    c = contribution()
    labels = xr.DataArray(np.arange(40) % 4, dims="time", coords={"time": c["time"]})
    values = c.values.astype(np.float64)
    means = np.stack([values[labels == g].reshape(-1, 10).mean(0) for g in range(4)])
    spectrum = covariance_spectrum(means)
    found = rc.analysis.participation_ratio(c.transpose("cell", "time", ...), groups=labels)
    assert found.item() == pytest.approx(spectrum.sum() ** 2 / (spectrum**2).sum(), rel=1e-9)
    each = rc.analysis.participation_ratio(c, groups=labels, by="cell")
    means = np.stack([values[labels == g, 1].reshape(-1, 10).mean(0) for g in range(4)])
    spectrum = covariance_spectrum(means)
    assert each.values[1] == pytest.approx(spectrum.sum() ** 2 / (spectrum**2).sum(), rel=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_dimensions_where_nothing_varies(value):
    c = xr.DataArray(np.full((20, 4), value), dims=("image", "channel"))
    for groups in (None, np.arange(20) % 3):
        ratio = rc.analysis.participation_ratio(c, groups=groups)
        count = rc.analysis.dimensionality(c, groups=groups)
        assert np.isnan(ratio.item())
        assert np.isnan(count.values).all()
        assert ratio.attrs["undefined"] == "NaN where nothing varies over the samples"


def test_dimensions_far_from_zero():
    """Sums of squares would lose a spread that is a millionth of the mean."""
    rows = np.random.default_rng(0).normal(size=(200, 4))
    near, far = (xr.DataArray(rows + shift, dims=("image", "channel")) for shift in (0.0, 1e7))
    expected = rc.analysis.participation_ratio(near).item()
    assert rc.analysis.participation_ratio(far).item() == pytest.approx(expected, rel=1e-6)


# Signs


def test_sign_correlation_is_that_of_scipy():
    c = contribution(seed=5)
    found = rc.analysis.sign_correlation(c)
    for t, cell in ((0, 0), (11, 2)):
        expected = scipy.stats.pearsonr(c.values[t, cell, 0], -c.values[t, cell, 1])[0]
        assert found["correlation"].values[t, cell] == pytest.approx(expected, abs=1e-6)
    means = c.mean(("time", "cell")).values
    expected = scipy.stats.pearsonr(means[0], -means[1])[0]
    assert found["correlation_of_means"].item() == pytest.approx(expected, abs=1e-6)
    assert found["correlation"].dims == ("time", "cell")
    flipped = rc.analysis.sign_correlation(c.isel(sign=[1, 0]))
    xr.testing.assert_allclose(flipped, found)


def test_sign_correlation_of_maps_splits_before_it_sums():
    c = maps()
    found = rc.analysis.sign_correlation(c)
    split = xr.concat([c.clip(min=0), c.clip(max=0)], dim="sign").assign_coords(sign=SIGNS)
    for given in (split, split.sum(("y", "x"))):
        xr.testing.assert_allclose(rc.analysis.sign_correlation(given), found)
    positive, negative = split.sum(("y", "x")).values
    expected = scipy.stats.pearsonr(positive[3], -negative[3])[0]
    assert found["correlation"].values[3] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("part", SIGNS)
def test_sign_correlation_where_a_part_is_the_same_in_all_channels(part):
    c = contribution()
    c.loc[{"sign": part, "time": 0.05}] = 0.1 if part == "positive" else 0.0
    found = rc.analysis.sign_correlation(c)["correlation"]
    assert found.sel(time=0.05).isnull().all()
    assert int(found.isnull().sum()) == 3
    assert found.attrs["undefined"] == "NaN where a part is the same in all channels"


# Contribution beside activation


def test_contribution_beside_activation():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.Flatten(), nn.Linear(12, 5)
    )
    images = torch.randn(25, 1, 6, 6)
    tree = rc.contributions(
        network,
        images,
        layers="1",
        extras="activation",
        split_sign=True,
        sum_over=("y", "x"),
        progress=False,
    )
    labels = np.arange(25) % 5
    found = rc.analysis.compare_with_activation(tree["layers/1"], groups=labels)
    activation = tree["layers/1"]["activation"]
    whole = tree["layers/1"]["contribution"].sum("sign")
    groups = xr.DataArray(labels, dims="sample")
    for name, values in (("contribution", whole), ("activation", activation)):
        one = found.sel(quantity=name)
        each = rc.analysis.sparsity(values).values
        np.testing.assert_allclose(one["sparsity"], np.quantile(each, [0.25, 0.5, 0.75]))
        assert one["undefined_samples"] == 0
        ratio = rc.analysis.participation_ratio(values, groups=groups)
        assert one["participation_ratio"].item() == pytest.approx(ratio.item())
        count = rc.analysis.dimensionality(values, groups=groups)
        np.testing.assert_array_equal(one["dimensionality"], count)
    assert found["participation_ratio"].dims == ("quantity",)
    assert found["dimensionality"].attrs["units"] == "1"
    values = found["participation_ratio"].values
    assert abs(values[0] - values[1]) > 0.01


def test_contribution_beside_activation_with_too_few_labels():
    layer = xr.Dataset({"contribution": maps(), "activation": maps()})
    with pytest.raises(ValueError, match=r"groups has shape \(3,\); expected .* each of 30"):
        rc.analysis.compare_with_activation(layer, groups=[0, 1, 2])


def test_contribution_beside_activation_of_silent_samples():
    c = contribution().sum("sign")
    c[3] = 0.0
    layer = xr.Dataset({"contribution": c, "activation": np.abs(c.isel(cell=0, drop=True)) + 1})
    found = rc.analysis.compare_with_activation(layer)
    np.testing.assert_array_equal(found["undefined_samples"], [3, 0])
    assert found["sparsity"].notnull().all()


# Larger than memory


def test_arrays_are_read_block_by_block(monkeypatch):
    """64 MB, made where it is read; few blocks of 4 MB are held at a time."""
    monkeypatch.setattr(checks, "BLOCK_BYTES", 4 * 2**20)
    shape, chunks = (8000, 2, 2, 500), (500, 2, 2, 500)

    def made(block_info=None):
        (start, stop), *_ = block_info[None]["array-location"]
        rng = np.random.default_rng(start)
        values = np.abs(rng.standard_normal((stop - start, *shape[1:]), dtype=np.float32))
        values[:, :, 1] *= -1
        return values

    lazy = da.map_blocks(made, chunks=da.core.normalize_chunks(chunks, shape), dtype=np.float32)
    c = xr.DataArray(lazy, dims=("time", "cell", "sign", "channel"), coords={"sign": SIGNS}).isel(
        channel=slice(0, 500)
    )
    few = c.isel(channel=slice(0, 20))
    for statistic, array in (
        (rc.analysis.sparsity, c),
        (rc.analysis.sign_correlation, c),
        (rc.analysis.participation_ratio, few),
        (rc.analysis.dimensionality, few.transpose("cell", "time", ...)),
    ):
        tracemalloc.start()
        statistic(array)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 40 * 2**20, statistic.__name__


def test_lazy_arrays_give_the_same(monkeypatch):
    monkeypatch.setattr(checks, "BLOCK_BYTES", 2000)
    c = contribution(300)
    lazy = c.chunk(time=17, channel=2)
    xr.testing.assert_allclose(rc.analysis.sparsity(lazy), rc.analysis.sparsity(c))
    xr.testing.assert_allclose(rc.analysis.sign_correlation(lazy), rc.analysis.sign_correlation(c))
    for groups in (None, xr.DataArray(np.arange(300) % 7, dims="time")):
        for by in ((), "cell"):
            given = {"groups": groups, "by": by}
            xr.testing.assert_allclose(
                rc.analysis.participation_ratio(lazy, **given),
                rc.analysis.participation_ratio(c, **given),
            )


def test_results_are_saved_and_opened(tmp_path):
    c = contribution()
    found = rc.analysis.sign_correlation(c)
    found["sparsity"] = rc.analysis.sparsity(c)
    found["dimensionality"] = rc.analysis.dimensionality(c, by="cell")
    for suffix in (".zarr", ".nc"):
        path = rc.save_tree(found, tmp_path / f"statistics{suffix}")
        opened = rc.open_tree(path).to_dataset().load()
        xr.testing.assert_identical(opened, found)


# Bad input

NAN = contribution()
NAN[7, 1, 0, 2] = np.nan
STATISTICS = [
    rc.analysis.sparsity,
    rc.analysis.participation_ratio,
    rc.analysis.dimensionality,
    rc.analysis.sign_correlation,
]


@pytest.mark.parametrize("statistic", STATISTICS)
class TestBadInput:
    def test_not_an_array(self, statistic):
        with pytest.raises(TypeError, match="contribution is a ndarray; expected an xarray"):
            statistic(np.ones((3, 4)))

    def test_nan(self, statistic):
        where = r"NaN or infinite values, the first at index \(time=7, cell=1, sign=0, channel=2\)"
        with pytest.raises(ValueError, match=where):
            statistic(NAN)

    def test_empty(self, statistic):
        with pytest.raises(ValueError, match=r"contribution is empty: sizes \{'time': 0"):
            statistic(contribution().isel(time=[]))


@pytest.mark.parametrize(
    ("function", "array", "given", "message"),
    [
        ("sparsity", maps(), {"features": "chanel"}, "no dim 'chanel'; did you mean 'channel'"),
        ("sparsity", maps().isel(channel=[0], y=0, x=0), {}, "1 unit along .*needs at least two"),
        ("sparsity", xr.DataArray(np.ones((3, 2)), dims=("a", "b")), {}, "features="),
        ("participation_ratio", contribution(), {"by": "cells"}, "by: contribution has no dim"),
        ("participation_ratio", contribution(), {"by": "channel"}, "in features and in by"),
        ("participation_ratio", contribution(1, 1), {}, "has 1 sample along .*at least two"),
        ("participation_ratio", contribution(), {"by": ("cell", "time")}, "has 1 sample"),
        ("participation_ratio", maps(), {"groups": np.zeros(30)}, "has 1 group along"),
        ("participation_ratio", maps(), {"groups": np.zeros(3)}, "one label for each of 30"),
        ("participation_ratio", maps(), {"groups": np.full(30, np.nan)}, "groups has None or NaN"),
        (
            "dimensionality",
            maps(),
            {"groups": np.array([None, "cat", "dog"] * 10, dtype=object)},
            "groups has None or NaN",
        ),
        (
            "dimensionality",
            maps(),
            {"groups": np.array([np.nan, "cat", "dog"] * 10, dtype=object)},
            "groups has None or NaN",
        ),
        ("participation_ratio", contribution(), {"groups": np.zeros(40)}, "give a DataArray over"),
        (
            "participation_ratio",
            contribution(),
            {"groups": xr.DataArray(np.zeros(5), dims="channel")},
            "expected one of the sample dims",
        ),
        (
            "participation_ratio",
            contribution(),
            {"groups": xr.DataArray(np.zeros(40), dims="time", coords={"time": np.arange(40)})},
            "groups has other coordinates along 'time'",
        ),
        ("dimensionality", maps(), {"explained": 95}, "explained=95; expected shares above 0"),
        ("dimensionality", maps(), {"explained": []}, "expected shares above 0"),
        ("sign_correlation", maps().isel(channel=0), {}, "expected 'channel' in them"),
        ("sign_correlation", maps().isel(channel=[0]), {}, "one channel"),
        ("sign_correlation", maps().sum(("y", "x")), {}, "neither 'sign' nor places to split"),
        ("sign_correlation", -contribution(), {}, "below 0 at sign='positive'"),
        (
            "sign_correlation",
            contribution().assign_coords(sign=["on", "off"]),
            {},
            "without the labels 'positive' and 'negative'",
        ),
    ],
)
def test_bad_input(function, array, given, message):
    with pytest.raises(ValueError, match=message):
        getattr(rc.analysis, function)(array, **given)


def test_more_units_than_a_covariance_is_held_of():
    c = xr.DataArray(da.zeros((3, 40, 30, 30)), dims=("image", "channel", "y", "x"))
    with pytest.raises(ValueError, match=r"covariance of 36000 units .* sum over places before"):
        rc.analysis.participation_ratio(c)


@pytest.mark.parametrize(
    ("layer", "error", "message"),
    [
        (maps(), TypeError, "layer is a DataArray; expected a node of rc.contributions"),
        (maps().to_dataset(name="contribution"), ValueError, "no variable 'activation'"),
        (maps().to_dataset(name="activation"), ValueError, "no variable 'contribution'"),
    ],
)
def test_not_a_layer_with_both(layer, error, message):
    with pytest.raises(error, match=message):
        rc.analysis.compare_with_activation(layer)
