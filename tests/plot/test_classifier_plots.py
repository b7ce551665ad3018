"""Pictures of classifiers: values at their places, bad input."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

import retina_codec as rc
from retina_codec import plot

LABELS = np.repeat(["cat", "dog", "owl"], 20)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def association():
    loadings = xr.DataArray(
        np.c_[np.eye(3)[[2] * 20 + [0] * 20 + [1] * 20], np.zeros(60)], dims=("image", "mode")
    )
    return rc.analysis.category_association(
        loadings, LABELS, hierarchy={"mammal": ["cat", "dog"]}, n_permutations=100
    )


def statistics(shift=0.0):
    dims = ("layer", "quantity")
    names = ("sparsity", "participation_ratio")
    ends = {"": 0.0, "_low": -0.1, "_high": 0.1}
    values = np.array([[0.4, 0.2], [0.6, 0.3]]) + shift
    found = {f"{n}{end}": (dims, values + by) for n in names for end, by in ends.items()}
    found |= {f"sign_correlation{e}": ("layer", [0.9 + by, -0.1 + by]) for e, by in ends.items()}
    return xr.Dataset(found, {"layer": ["a", "b"], "quantity": ["contribution", "activation"]})


def test_statistics_of_layers_beside_a_control():
    axes = plot.layer_statistics(statistics(), control=statistics(0.05))
    lines = axes[0].get_lines()
    np.testing.assert_allclose([line.get_ydata() for line in lines],
                               [[0.4, 0.6], [0.2, 0.3], [0.45, 0.65], [0.25, 0.35]])  # fmt: skip
    np.testing.assert_allclose(axes[2].get_lines()[0].get_ydata(), [0.9, -0.1])
    assert [tick.get_text() for tick in axes[1].get_xticklabels()] == ["a", "b"]
    with pytest.raises(ValueError, match="control has other layers"):
        plot.layer_statistics(statistics(), control=statistics().assign_coords(layer=["a", "c"]))
    with pytest.raises(ValueError, match="statistics has no 'sign_correlation'"):
        plot.layer_statistics(statistics().drop_vars("sign_correlation"))
    with pytest.raises(TypeError, match="statistics is a DataArray"):
        plot.layer_statistics(statistics()["sparsity"])


def test_modes_are_sorted_by_category(association):
    ax = plot.category_association(association)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["2", "0", "1"]  # cat, dog, owl
    shown = ax.get_images()[0].get_array()
    np.testing.assert_allclose(np.diag(shown[:, :3]), 1)
    assert shown.shape == (3, 4)
    dots = ax.collections[0].get_offsets().tolist()
    assert [0, 0] in dots and [2, 2] in dots and [1, 0] not in dots
    with pytest.raises(ValueError, match="no mode that varies"):
        plot.category_association(association.isel(mode=[3]))


def test_scores_of_rankings():
    ratio = (("ranking", "group", "count"), np.array([[[0.5, 0.1], [0.9, 0.8]]] * 2))
    score = {f"mean_score{end}": ("ranking", [-0.6 + by, -0.2 + by])
             for end, by in {"": 0.0, "_low": -0.1, "_high": 0.2}.items()}  # fmt: skip
    found = xr.Dataset(
        dict.fromkeys(("mean_ratio", "mean_ratio_low", "mean_ratio_high"), ratio)
        | score
        | {"score": (("ranking", "target"), [[-0.7, -0.5], [-0.3, -0.1]]),
           "random_mean_score": ("draw", [0.01, -0.01, 0.0])},
        {"ranking": ["modes", "channels"], "group": ["target", "off_target"], "count": [1, 4],
         "target": ["cat", "dog"]},
    )  # fmt: skip
    axes = plot.ranking_comparison(found)
    np.testing.assert_allclose(axes[0].get_lines()[1].get_ydata(), [0.9, 0.8])
    assert [t.get_text() for t in axes[1].get_xticklabels()] == ["modes", "channels", "random"]
    dots = [line.get_ydata() for line in axes[1].get_lines() if line.get_marker() == "."]
    np.testing.assert_allclose(np.concatenate(dots), [-0.7, -0.5, -0.3, -0.1, 0.01, -0.01, 0])


def test_a_page_of_a_mode(association):
    rows = np.arange(24.0).reshape(4, 2, 3) - 5
    dictionary = xr.DataArray(rows, {"mode": range(4), "sign": ["positive", "negative"]},
                              ("mode", "sign", "channel"))  # fmt: skip
    images = xr.DataArray(np.random.default_rng(0).random((2, 3, 6, 5)),
                          {"label": ("image", ["cat", "dog"])},
                          ("image", "color", "y", "x"))  # fmt: skip
    marked = np.zeros((2, 2, 6, 5), dtype=bool)
    marked[0, 0, 2, 3] = True
    masks = xr.DataArray(marked, {"sign": ["positive", "negative"]}, ("image", "sign", "y", "x"))
    loadings = xr.DataArray([3.0, 2.0], dims="image")
    axes = plot.mode_page(dictionary, association, images, masks, mode=2, loadings=loadings)
    assert len(axes) == 4
    heights = [bar.get_height() for bar in axes[0].patches]
    np.testing.assert_allclose(heights, rows[2].ravel())
    assert [t.get_text() for t in axes[1].get_yticklabels()][:2] == ["cat", "mammal"]
    assert axes[1].patches[0].get_width() == pytest.approx(1)
    # The outline is that of the one pixel, in image coordinates.
    edges = np.concatenate(axes[2].collections[0].get_segments())
    np.testing.assert_allclose([edges.min(0), edges.max(0)], [[2.5, 1.5], [3.5, 2.5]])
    assert not axes[3].collections
    assert axes[2].get_title() == "cat\n3"
    with pytest.raises(ValueError, match="images and masks are not of the same images"):
        plot.mode_page(dictionary, association, images[:1], masks, mode=2)
    with pytest.raises(ValueError, match="mode=9 is not known"):
        plot.mode_page(dictionary, association, images, masks, mode=9)
