"""Recorded interneurons against model units: planted units, noise, and a slow literal twin."""

import tracemalloc

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import retina_codec as rc
from retina_codec import plot
from retina_codec._common.files import open_tree, save_tree

from .conftest import BIN, FRAMES, HISTORY, LAYERS, compare, noise, recorded


def test_planted_units_are_found(model, movie, activation):
    layers, _, _ = activation
    jitter = 0.01 * np.random.default_rng(1).standard_normal((len(layers["0"]), 3))
    traces = np.stack([layers["0"][:, 2, 1, 3], layers["1"][:, 0, 3, 2], layers["3"][:, 1]], axis=1)
    potential = recorded(activation, movie, 5 * (traces / traces.std(0) + jitter) - 60)
    potential = potential.assign_coords(
        interneuron=["b1", "b2", "a1"],
        type=("interneuron", ["bipolar", "bipolar", "amacrine"]),
        layer=("interneuron", ["opl", "opl", "ipl"]),
        y=("interneuron", [1.0, 2.0, 3.0]),
    )
    tree = compare(model, movie, potential)
    assert list(tree["best_layer"].values) == ["0", "1", "3"]
    assert list(tree["best_channel"].values) == [2, 0, 1]
    # Receptive-field centres: a 3 x 3 kernel at place i looks at pixels i .. i + 2.
    np.testing.assert_array_equal(tree["best_y"], [2, 4, np.nan])
    np.testing.assert_array_equal(tree["best_x"], [4, 3, np.nan])
    np.testing.assert_array_equal(tree["best_lag"], 0)
    assert (tree["best_r"] > 0.999).all()
    assert (tree["uncorrected_r"] > 0.999).all()
    assert (abs(tree["null_r"]) < 0.2).all()
    np.testing.assert_allclose(tree["p_value"], 1 / 20)
    assert list(tree["type"].values) == ["bipolar", "bipolar", "amacrine"]
    assert list(tree["layer"].values) == ["opl", "opl", "ipl"]
    assert list(tree["y"].values) == [1, 2, 3]
    correlation = tree["layers/0"]["correlation"]
    assert correlation.dims == ("interneuron", "channel", "y", "x")
    assert float(correlation.sel(interneuron="b1", channel=2, y=2, x=4)) > 0.999
    assert tree["layers/3"]["correlation"].dims == ("interneuron", "channel")
    assert tree.attrs["model_fingerprint"] == model.fingerprint
    assert "n_shifts" in tree.attrs["parameters"]


def test_independent_noise_is_near_its_null(model, movie):
    tree = compare(model, movie, noise(movie, 12), n_shifts=39)
    assert float(tree["p_value"].mean()) > 0.25
    assert float(abs(tree["best_r"] - tree["null_r"]).mean()) < 0.1
    assert float(tree["null_r"].mean()) < 0.05
    # The published figure is a maximum over units: high for noise too.
    assert float(tree["uncorrected_r"].mean()) > float(tree["best_r"].mean()) + 0.04


def pearson(a, b):
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.corrcoef(a, b)[0, 1]


def literal(activation, potential, lags, n_shifts, seed):
    """The same by `numpy.corrcoef` on whole activations, unit by unit, both ways."""
    layers, samples, kept = activation
    values = potential.sel(time=samples).values
    block = (kept >= 600).astype(int)
    earliest, latest = lags[0], lags[-1]
    rows = np.array(
        [
            i
            for i in range(len(kept))
            if latest <= i < len(kept) + earliest
            and block[i - latest] == block[i] == block[i - earliest]
        ]
    )
    flat = {name: a.reshape(len(a), -1)[rows] for name, a in layers.items()}
    n, gap = len(rows), HISTORY + len(lags) - 1
    half = (n - gap) // 2
    halves = [slice(0, half), slice(n - half, n)]
    least = int(np.ceil(5 / BIN))
    shifts = np.random.default_rng(seed).choice(np.arange(least, n - least + 1), n_shifts, False)

    def one_way(signals, choose, score):
        best = (-np.inf, None)
        for units in flat.values():
            for unit in range(units.shape[1]):
                for signal in signals:
                    chosen = pearson(units[choose, unit], signal[choose])
                    if chosen > best[0]:
                        best = (chosen, pearson(units[score, unit], signal[score]))
        return best[1]

    def procedure(signals):
        return (one_way(signals, *halves) + one_way(signals, *halves[::-1])) / 2

    found = []
    for i in range(values.shape[1]):
        signals = [values[rows - lag, i] for lag in lags]
        null = [procedure([np.roll(s, shift) for s in signals]) for shift in shifts]
        everything = {
            name: np.array([[pearson(u, s) for s in signals] for u in units.T])
            for name, units in flat.items()
        }
        found.append((procedure(signals), np.array(null), everything))
    return found


@pytest.mark.parametrize("lags", [(0,), (0, 1, 2), (-1, 0, 1)])
def test_agrees_with_a_literal_twin(model, movie, activation, lags):
    signal = activation[0]["0"][:, 1, 2, 2]
    mixed = recorded(activation, movie, np.stack([signal, signal], axis=1) * [3, 0])
    potential = mixed + noise(movie, 2, seed=3)
    tree = compare(
        model,
        movie,
        potential,
        min_lag=lags[0] * BIN,
        max_lag=lags[-1] * BIN,
        n_shifts=3,
        seed=5,
        batch_size=100,
    )
    twin = literal(activation, potential, lags, n_shifts=3, seed=5)
    assert tree["best_r"].values[0] > 0.5
    for i, (best_r, null, everything) in enumerate(twin):
        root = tree.to_dataset().isel(interneuron=i)
        np.testing.assert_allclose(root["best_r"], best_r, rtol=1e-5)
        np.testing.assert_allclose(root["null_r"], null.mean(), rtol=1e-5)
        np.testing.assert_allclose(root["p_value"], (1 + (null >= best_r).sum()) / 4)
        largest = {name: np.nanmax(values) for name, values in everything.items()}
        name = max(largest, key=largest.get)
        np.testing.assert_allclose(root["uncorrected_r"], largest[name], rtol=1e-5)
        assert str(root["best_layer"].values) == name
        unit, lag = np.unravel_index(np.nanargmax(everything[name]), everything[name].shape)
        np.testing.assert_allclose(root["best_lag"], lags[lag] * BIN)
        for layer in LAYERS:
            correlation = tree[f"layers/{layer}"]["correlation"].isel(interneuron=i)
            got = correlation.values.reshape(len(lags), -1).T
            np.testing.assert_allclose(got, everything[layer], atol=1e-5)
        if name != "3":
            channel, y, x = np.unravel_index(unit, (3, 4, 4))
            assert (root["best_channel"], root["best_y"], root["best_x"]) == (channel, y + 1, x + 1)


def test_a_potential_that_leads_the_unit_is_found_with_its_lag(model, movie, activation):
    unit = activation[0]["0"][:, 1, 0, 0]
    potential = recorded(activation, movie, np.roll(unit, -2)[:, None])
    together, alone = (
        compare(model, movie, potential, layers="0", max_lag=lag) for lag in (3 * BIN, 0.0)
    )
    assert together["best_lag"].item() == pytest.approx(2 * BIN)
    assert together["best_r"].item() > 0.99 > 0.9 > alone["best_r"].item()
    correlation = together["layers/0"]["correlation"]
    assert correlation.dims == ("interneuron", "lag", "channel", "y", "x")
    found = correlation.sel(channel=1, y=1, x=1)
    assert float(found.sel(lag=2 * BIN, method="nearest").squeeze()) > 0.99


def test_a_potential_that_follows_the_unit_has_a_negative_lag(model, movie, activation):
    unit = activation[0]["0"][:, 1, 0, 0]
    potential = recorded(activation, movie, np.roll(unit, 2)[:, None])
    tree = compare(model, movie, potential, layers="0", min_lag=-3 * BIN, max_lag=BIN)
    assert tree["best_lag"].item() == pytest.approx(-2 * BIN)
    assert tree["best_r"].item() > 0.99
    lags = tree["layers/0"]["correlation"]["lag"]
    np.testing.assert_allclose(lags, BIN * np.arange(-3, 2))


def test_potential_is_aligned_by_its_labels_whatever_the_batches(model, movie):
    potential = noise(movie, 3, seed=7)
    order = np.random.default_rng(0).permutation(FRAMES)
    a = compare(model, movie, potential, batch_size=64)
    b = compare(model, movie, potential.isel(time=order).transpose(), batch_size=1000)
    for node in ("/", "/layers/0", "/layers/1", "/layers/3"):
        xr.testing.assert_allclose(a[node].to_dataset(), b[node].to_dataset(), atol=1e-5)


@pytest.mark.parametrize("share", [0.4, 0.11, 1e-9])
def test_numbers_do_not_depend_on_the_memory(model, movie, activation, share):
    potential = recorded(activation, movie, activation[0]["0"][:, 1, 2, :2]) + noise(movie, 2)
    options = {"max_lag": BIN, "n_shifts": 7, "batch_size": 200, "layers": ["1", "0"]}
    whole = compare(model, movie, potential, **options)
    # 96 units, 2 lags and interneurons, 1 + 7 shifts, 24 bytes each.
    budget = max(1, share * 96 * 2 * 2 * 8 * 24)
    parts = compare(model, movie, potential, memory_budget=budget, **options)
    for node in ("/", "/layers/0", "/layers/1"):
        xr.testing.assert_allclose(whole[node].to_dataset(), parts[node].to_dataset(), atol=1e-6)


def test_what_is_held_is_bounded(model, movie):
    """98 units, 40 interneurons and 1 + 99 shifts would take 9.4 MB."""

    def peak(budget):
        tracemalloc.start()
        options = {"n_shifts": 99, "batch_size": 16, "centres": "none", "memory_budget": budget}
        compare(model, movie.isel(time=slice(0, 750)), potential, **options)
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return held

    potential = noise(movie, 40)
    assert peak(2e6) < 6e6 < 9e6 < peak(1e9)


def test_units_that_never_change_are_not_chosen(model, movie):
    with torch.no_grad():
        bias = model.network.module[0].bias
        before = bias[1].item()
        bias[1] = -100.0
        tree = compare(model, movie, noise(movie, 2), layers="1")
        bias[:] -= 100.0
        with pytest.raises(ValueError, match="no unit changes in both halves"):
            compare(model, movie, noise(movie, 2), layers="1")
        bias[:] += 100.0
        bias[1] = before
    correlation = tree["layers/1"]["correlation"]
    assert correlation.sel(channel=1).isnull().all()
    assert correlation.sel(channel=[0, 2]).notnull().all()
    assert np.isfinite(tree["best_r"]).all()


def test_leaves_the_network_as_it_was(model, movie):
    network = model.network
    network.module[0].train()

    def look():
        return (
            [module.training for module in network.modules()],
            [parameter.requires_grad for parameter in network.parameters()],
            [len(module._forward_hooks) for module in network.modules()],
        )

    before = look()
    state = torch.random.get_rng_state()
    compare(model, movie, noise(movie, 1))
    assert look() == before
    broken = movie.copy()
    broken[-1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        compare(model, broken, noise(movie, 1))
    assert look() == before
    assert torch.equal(torch.random.get_rng_state(), state)
    network.eval()


@pytest.mark.parametrize("suffix", [".zarr", ".nc"])
def test_result_goes_to_a_file_and_to_a_picture(model, movie, tmp_path, suffix):
    potential = noise(movie, 2).assign_coords(
        type=("interneuron", ["bipolar", "amacrine"]),
        y=("interneuron", [10.0, 20.0]),
    )
    tree = compare(model, movie, potential)
    again = open_tree(save_tree(tree, tmp_path / f"found{suffix}")).load()
    for node in ("/", "/layers/0", "/layers/3"):
        xr.testing.assert_allclose(again[node].to_dataset(), tree[node].to_dataset())
    assert again["best_r"].attrs["units"] == "1"
    ax = plot.interneuron_match(tree.to_dataset())
    plt.close(ax.figure)


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        (lambda p: p.values, {}, TypeError, "potential is a ndarray"),
        (lambda p: p.rename(interneuron="cell"), {}, ValueError, r"rename\(cell='interneuron'\)"),
        (lambda p: p.assign_coords(time=p["time"] + 0.004), {}, ValueError, "stimulus's clock"),
        (lambda p: p.isel(time=slice(0, 800)), {}, ValueError, "has no value at 600 of the"),
        (lambda p: p.drop_vars("time"), {}, ValueError, "no coordinate 'time'"),
        (lambda p: xr.concat([p, p], "time"), {}, ValueError, "stand there twice"),
        (lambda p: p.where(p["time"] < 10), {}, ValueError, "potential has .* NaN"),
        (
            lambda p: p.where(p["interneuron"] != 1, -60.0),
            {},
            ValueError,
            "constant in a half of the recording for interneuron 1:",
        ),
        (lambda p: p, {"layers": "conv"}, ValueError, "no layer 'conv'"),
        (lambda p: p, {"layers": []}, ValueError, "layers is empty"),
        (lambda p: p, {"n_shifts": 0}, ValueError, "n_shifts=0"),
        (lambda p: p, {"n_shifts": 2000}, ValueError, "n_shifts=2000, but"),
        (lambda p: p, {"max_lag": -1}, ValueError, "max_lag=-1"),
        (lambda p: p, {"min_lag": 1}, ValueError, "min_lag=1"),
        (lambda p: p, {"batch_size": 0}, ValueError, "batch_size=0"),
        (lambda p: p, {"memory_budget": 0}, ValueError, "memory_budget=0"),
        (lambda p: p, {"centres": "rf"}, ValueError, "centres='rf'"),
        (lambda p: p, {"centres": "coordinates"}, ValueError, "no coordinates interneuron_y"),
        (
            lambda p: p.assign_coords(
                interneuron_y=("interneuron", [1.0, 2.0], {"units": "um"}),
                interneuron_x=("interneuron", [1.0, 2.0], {"units": "um"}),
            ),
            {},
            ValueError,
            "interneuron_y is in 'um', the movie's y in 'pixel'",
        ),
        (lambda p: p.isel(interneuron=[0, 0]), {}, ValueError, "of the same name"),
        (lambda p: p.isel(interneuron=[]), {}, ValueError, "holds no interneuron"),
        (lambda p: "potential", {}, TypeError, "names a variable"),
        (lambda p: {"noise": p}, {}, TypeError, "give both as mappings"),
        (lambda p: p, {"controls": [0]}, TypeError, "controls is a list"),
        (lambda p: p, {"controls": {"none": 0}}, TypeError, r"controls\['none'\] is a int"),
    ],
)
def test_refuses_what_does_not_fit(model, movie, change, options, error, message):
    potential = noise(movie, 2).assign_coords(interneuron=[0, 1])
    with pytest.raises(error, match=message):
        compare(model, movie, change(potential), **options)


def test_refuses_models_that_take_no_movies(movie):
    with pytest.raises(TypeError, match="model is a Linear"):
        compare(nn.Linear(1, 1), movie, noise(movie, 1))
    classifier = rc.models.model.Model(
        nn.Linear(1, 1), sample_dim="image", output_dim="category", outputs=["a"]
    )
    with pytest.raises(ValueError, match="samples along 'image'"):
        compare(classifier, movie, noise(movie, 1))
