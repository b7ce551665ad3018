"""Units at the interneuron's place, channels combined there, and receptive fields."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats
from sklearn.linear_model import Ridge
from torch import nn

import retina_codec as rc
from retina_codec import plot
from retina_codec.interneurons import receptive_fields
from retina_codec.interneurons.combination import ALPHAS, BlockSums, held_out_r
from retina_codec.interneurons.places import centre_of
from retina_codec.models import LayerGeometry, from_module

from .conftest import BIN, HISTORY, compare, noise, recorded

QUIET = {"progress": False}


def placed(potential, y, x):
    return potential.assign_coords(
        interneuron_y=("interneuron", y), interneuron_x=("interneuron", x)
    )


def test_the_unit_at_the_interneurons_place(model, movie, activation):
    layers = activation[0]
    # The interneuron looks at pixel (2, 4), unit (1, 3); another place follows it better.
    here, there = layers["0"][:, 2, 1, 3], layers["0"][:, 0, 2, 0]
    trace = here / here.std() + 2 * there / there.std()
    potential = placed(recorded(activation, movie, trace[:, None]), [2.2], [3.8])
    tree = compare(model, movie, potential, layers=["0", "1", "3"])
    root = tree.to_dataset().squeeze()
    assert (root["best_y"], root["best_x"]) == (3, 1)
    assert (root["centre_y"], root["centre_x"]) == (2.2, 3.8)
    assert (root["matched_layer"], root["matched_channel"]) == ("0", 2)
    assert (root["matched_y"], root["matched_x"]) == (2, 4)
    assert root["matched_r"] < root["best_r"] - 0.2
    # SciPy, on the halves.
    n = len(trace)
    half = (n - HISTORY) // 2
    halves = slice(0, half), slice(n - half, n)
    r = [stats.pearsonr(trace[part], here[part]).statistic for part in halves]
    assert float(root["matched_r"]) == pytest.approx(np.mean(r), abs=1e-5)
    matched = tree["layers/0"]["matched_correlation"]
    assert matched.dims == ("interneuron", "channel")
    for channel in range(3):
        whole = stats.pearsonr(trace, layers["0"][:, channel, 1, 3]).statistic
        assert float(matched.sel(channel=channel).squeeze()) == pytest.approx(whole, abs=1e-5)
    assert "matched_correlation" not in tree["layers/3"]


def test_the_place_is_found_by_reverse_correlation(model, movie, activation):
    layers = activation[0]
    wanted = [(0, 0, 0), (1, 3, 2), (2, 1, 3)]
    traces = np.stack([layers["0"][:, c, y, x] for c, y, x in wanted], axis=1)
    tree = compare(model, movie, recorded(activation, movie, traces))
    for i, (channel, y, x) in enumerate(wanted):
        root = tree.to_dataset().isel(interneuron=i)
        assert abs(root["centre_y"] - (y + 1)) < 1.1
        assert abs(root["centre_x"] - (x + 1)) < 1.1
        assert root["best_channel"] == channel
    blind = compare(model, movie, recorded(activation, movie, traces), centres="none")
    for name in ("matched_r", "combined_r", "matched_p_value", "combined_p_value", "centre_y"):
        assert blind[name].isnull().all()
    assert set(blind["matched_layer"].values) == {""}
    np.testing.assert_allclose(blind["best_r"], tree["best_r"])


def test_centre_of_a_field():
    y, x = np.arange(12.0) * 50, np.arange(10.0) * 50 + 7
    bump = np.exp(-((y[:, None] - 260) ** 2 + (x - 190) ** 2) / 2 / 60**2)
    field = np.stack([0.2 * bump, -bump, 0.5 * bump])
    assert centre_of(field, [y, x]) == pytest.approx((260, 190), abs=8)
    assert centre_of(field[:, None], [y, x]) == centre_of(field, [y, x])  # one colour plane
    far = field.copy()
    far[1, 11, 9] = 0.9  # another peak, not connected
    assert centre_of(far, [y, x]) == pytest.approx((260, 190), abs=8)
    assert np.isnan(centre_of(np.ones((3, 12, 10)), [y, x])).all()
    assert np.isnan(centre_of(field, [None, x])).all()


def test_combination_of_two_channels(model, movie, activation):
    layers = activation[0]
    at = layers["0"][:, :, 2, 1]
    both = at[:, 0] / at[:, 0].std() - at[:, 1] / at[:, 1].std()
    potential = recorded(activation, movie, both[:, None]) + 0.3 * noise(movie, 1, seed=4)
    tree = compare(model, movie, placed(potential, [3.0], [2.0]), layers="0")
    root = tree.to_dataset().squeeze()
    assert root["combined_r"] > 0.9
    assert root["combined_r"] > root["best_r"] + 0.1
    assert root["combined_p_value"] == 1 / 20
    assert abs(root["combined_null_r"]) < 0.1


def test_combination_agrees_with_scikit_learn():
    """Penalties and lags chosen in blocks of one half; the score on the other, both ways."""
    rng = np.random.default_rng(0)
    n, n_lags = 603, 2
    halves = slice(0, 300), slice(303, 603)
    features = rng.standard_normal((n, 6)) * [1, 1, 1, 10, 0.1, 0] + 5
    weights = np.array([[0.5, 0.1], [-0.5, 0], [0, 0], [0.02, 0], [1, 0], [0, 0]])
    signals = (features - 5) @ np.repeat(weights, 2, axis=1) + 2 * rng.standard_normal((n, 4))
    sums = BlockSums(6, 4, halves)
    for rows in np.array_split(np.arange(n), 7):
        sums.add(features[rows], signals[rows], rows)

    def fit(rows, alpha, y):
        x = features[rows][:, :5]
        mean, scale = x.mean(0), np.sqrt(((x - x.mean(0)) ** 2).sum(0))
        ridge = Ridge(alpha=alpha).fit((x - mean) / scale, y[rows])
        return lambda z: ridge.predict((z[:, :5] - mean) / scale)

    for half, (own, other) in enumerate((halves, halves[::-1])):
        blocks = np.array_split(np.arange(own.start, own.stop), 4)
        expected = []
        for shift in range(2):
            best = (-np.inf, None)
            for alpha in ALPHAS:
                for lag in range(n_lags):
                    y = signals[:, shift * n_lags + lag]
                    inner = []
                    for out in blocks:
                        rows = np.setdiff1d(np.arange(own.start, own.stop), out)
                        inner.append(np.corrcoef(fit(rows, alpha, y)(features[out]), y[out])[0, 1])
                    if np.mean(inner) > best[0]:
                        predicted = fit(np.arange(own.start, own.stop), alpha, y)(features[other])
                        best = (np.mean(inner), np.corrcoef(predicted, y[other])[0, 1])
            expected.append(best[1])
        np.testing.assert_allclose(held_out_r([sums], half, n_lags), expected, rtol=1e-6)


def test_noise_keeps_to_its_null(model, movie):
    """200 interneurons without relation to the movie, of all three scores."""
    tree = compare(model, movie, noise(movie, 200, seed=11), n_shifts=99, layers=["0"])
    for name in ("p_value", "matched_p_value", "combined_p_value"):
        p = tree[name].values
        assert np.isfinite(p).all()
        assert (p <= 0.05).mean() <= 0.08
        assert 0.4 < p.mean() < 0.6  # five standard errors either way
    assert (tree["q_value"].values < 0.05).sum() == 0
    assert float(abs(tree["combined_null_r"]).mean()) < 0.05


@pytest.fixture(scope="module")
def white():
    """White noise, and a model with one linear layer whose filters are Gaussian bumps."""
    rng = np.random.default_rng(3)
    movie = on_white(rng.standard_normal((4000, 8, 8)))
    net = nn.Sequential(nn.Conv2d(HISTORY, 2, 3), nn.Flatten(), nn.Linear(72, 1), nn.Softplus())
    space = torch.tensor(np.outer([0.4, 1, 0.4], [0.4, 1, 0.4]), dtype=torch.float32)
    courses = torch.tensor([[0.0, 0.5, 1.0, 0.2], [0.5, -1.0, 0.0, 0.0]])
    with torch.no_grad():
        net[0].weight[:] = courses[:, :, None, None] * space
    model = from_module(
        net,
        history=HISTORY,
        bin_width=BIN,
        cells=["a"],
        default_layers=["0"],
        geometry={"0": LayerGeometry((1.0, 1.0))},
    )
    with torch.no_grad():
        windows = np.lib.stride_tricks.sliding_window_view(movie.values, HISTORY, axis=0)
        units = net[0](torch.as_tensor(np.moveaxis(windows, -1, 1).copy()).float()).numpy()
    trace = np.zeros((4000, 2))
    trace[HISTORY - 1 :] = units[:, [0, 1], [2, 4], [3, 1]]
    trace += 0.05 * rng.standard_normal(trace.shape)
    potential = xr.DataArray(
        trace,
        dims=("time", "interneuron"),
        coords={
            "time": movie["time"],
            "interneuron": ["on", "off"],
            "y": ("interneuron", [3.0, 5.0]),  # where the cells are: not the movie's y
            "x": ("interneuron", [4.0, 2.0]),
        },
    )
    return model, movie, potential, space.numpy(), courses.numpy()


def on_white(values):
    return xr.DataArray(
        values,
        dims=("time", "y", "x"),
        coords={
            "time": rc.time_coordinate(BIN * np.arange(len(values)), BIN),
            "y": np.arange(values.shape[1]),
            "x": np.arange(values.shape[2]),
        },
    )


def test_receptive_fields_are_the_filters_on_white_noise(white):
    model, movie, potential, space, courses = white
    found = compare(model, movie, potential, n_shifts=5)
    fields = receptive_fields(model, movie, potential[:, ::-1], comparison=found, **QUIET)
    assert list(fields["interneuron"].values) == ["off", "on"]
    assert (fields["similarity"] > 0.97).all()
    assert list(fields["unit_channel"].values) == [1, 0]
    np.testing.assert_allclose(fields["lag"], BIN * np.arange(HISTORY))
    for label, channel, (y, x) in (("on", 0, (2, 3)), ("off", 1, (4, 1))):
        one = fields.sel(interneuron=label)
        kernel = np.zeros((HISTORY, 8, 8))
        # In time order in the network: the last frame is lag 0.
        kernel[:, y : y + 3, x : x + 3] = courses[channel, ::-1, None, None] * space
        for name in ("interneuron", "unit"):
            field = one[f"{name}_field"].values
            # 4000 frames, sd of the estimate 1/sqrt(4000) a pixel.
            assert stats.pearsonr(field.ravel(), kernel.ravel()).statistic > 0.95
            course = one[f"{name}_time"].values
            r = stats.pearsonr(course, courses[channel, ::-1]).statistic
            assert r > 0.99
            peak = np.unravel_index(one[f"{name}_space"].values.argmax(), (8, 8))
            assert peak == (y + 1, x + 1)
            assert one[f"{name}_space"].max() == pytest.approx(1)
    # The covariance with the movie, by hand.
    trace = potential.sel(interneuron="on").values[HISTORY - 1 :]
    pixel = movie.values[:, 3, 4]
    for lag in range(HISTORY):
        shown = pixel[HISTORY - 1 - lag : len(pixel) - lag]
        expected = np.cov(trace / trace.std(), shown, bias=True)[0, 1]
        got = fields["interneuron_field"].sel(interneuron="on").isel(lag=lag, y=3, x=4)
        assert float(got) == pytest.approx(expected, abs=1e-5)
    axes = plot.interneuron_fields(fields)
    assert axes.shape == (2, 3)
    assert axes[0, 0].get_title(loc="left") == "off"
    assert axes[0, 1].get_title(loc="left") == "0, channel 1"
    plt.close(axes[0, 0].figure)
    axes = plot.interneuron_map(found, interneuron="off", layer="0")
    assert len(axes) == 2
    assert [len(ax.lines) for ax in axes] == [1, 2]  # the cross, and the ring where the unit is
    assert [float(v[0]) for v in axes[1].lines[1].get_data()] == [2, 5]
    plt.close(axes[0].figure)


def test_receptive_fields_refuse_what_does_not_fit(white, model):
    net, movie, potential, *_ = white
    found = compare(net, movie, potential, n_shifts=2, centres="none")
    matched = receptive_fields(net, movie, potential, comparison=found, unit="matched", **QUIET)
    assert matched["unit_field"].isnull().all()
    assert matched["interneuron_field"].notnull().all()
    for options, error, message in (
        ({"comparison": 3}, TypeError, "comparison is a int"),
        ({"comparison": xr.Dataset()}, ValueError, "no 'best_layer'"),
        ({"comparison": found.to_dataset().drop_attrs()}, ValueError, "is of the model None"),
        ({"comparison": found.to_dataset().isel(interneuron=[0])}, ValueError, "interneuron off"),
        ({"comparison": found, "unit": "worst"}, ValueError, "unit='worst'"),
        ({"comparison": found, "batch_size": 0}, ValueError, "batch_size=0"),
    ):
        with pytest.raises(error, match=message):
            receptive_fields(net, movie, potential, **QUIET, **options)
    with pytest.raises(TypeError, match="model is a Sequential"):
        receptive_fields(net.network.module, movie, potential, comparison=found, **QUIET)


def test_pictures_refuse_what_does_not_fit(white):
    model, movie, potential, *_ = white
    found = compare(model, movie, potential, n_shifts=2, layers=["0", "2"])
    with pytest.raises(TypeError, match="comparison is a Dataset"):
        plot.interneuron_map(found.to_dataset(), interneuron="on", layer="0")
    with pytest.raises(ValueError, match="layer='1' is not in"):
        plot.interneuron_map(found, interneuron="on", layer="1")
    with pytest.raises(ValueError, match="units without places"):
        plot.interneuron_map(found, interneuron="on", layer="2")
    with pytest.raises(ValueError, match="interneuron='up' is not in comparison"):
        plot.interneuron_map(found, interneuron="up", layer="0")
    with pytest.raises(TypeError, match="fields is a DataTree"):
        plot.interneuron_fields(found)
    with pytest.raises(ValueError, match="no 'interneuron_space'"):
        plot.interneuron_fields(found.to_dataset())
