"""Maps of cells and the places they are read at."""

import numpy as np
import pytest
import torch
import xarray as xr

import retina_codec as rc
from retina_codec._common.time import time_coordinate
from retina_codec.models.retinotopic import PlaceReadout, Retinotopic

CELLS = ["a", "b", "c"]


def model_of(shape=(14, 16), seed=0, **options):
    settings = {"history": 4, "bin_width": 0.01, "cells": CELLS, "channels": (4, 3), "noise": 0.0}
    settings |= {"kernel_sizes": (5, 3, 3), "stage_channels": None}
    model = Retinotopic(shape, seed=seed, **(settings | options))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.network.state_dict().items():
            if tensor.is_floating_point() and "choice" not in name:
                values = torch.randn(tensor.shape, generator=generator)
                values *= 1.4 / tensor[0].numel() ** 0.5 if tensor.ndim > 1 else 1
                if name.endswith(("running_var", "bias")):
                    values = values.abs() + 0.3
                tensor.copy_(values)
    return model


def movie_of(n, shape=(14, 16), seed=0):
    values = np.random.default_rng(seed).normal(size=(n, *shape)).astype(np.float32)
    return xr.DataArray(
        values,
        dims=("time", "y", "x"),
        coords={"time": time_coordinate(np.arange(n) * 0.01, 0.01)},
    )


def test_a_cell_sees_only_what_is_around_its_place():
    """Kernels of 5, 3 and 3 pixels reach 4 pixels to each side of the place."""
    model = model_of(places=[(4, 6), (9, 11), (5, 8)])
    movie = movie_of(12)
    before = model.predict(movie)
    for cell, (y, x) in zip(CELLS, [(4, 6), (9, 11), (5, 8)], strict=True):
        outside = movie.copy()
        outside[:] = movie + 2
        around = np.ix_(range(12), range(y - 4, y + 5), range(x - 4, x + 5))
        outside.values[around] = movie.values[around]
        xr.testing.assert_allclose(
            model.predict(outside).sel(cell=cell), before.sel(cell=cell), rtol=1e-4, atol=1e-4
        )
        corner = movie.copy()
        corner[:, y - 4, x - 4] += 4
        moved = abs(model.predict(corner) - before).max("time")
        assert float(moved.sel(cell=cell)) > 1e-2


def test_moved_picture_gives_the_same_rate_at_the_moved_place():
    model = model_of(types=["on", "on", "off"], places=[(6, 6), (8, 9), (7, 7)], norm="channel")
    movie = movie_of(20)
    moved = movie.roll(y=2, x=3)
    np.testing.assert_allclose(
        model.predict(movie).sel(cell="a"),
        model.predict(moved).sel(cell="b"),
        rtol=1e-4,
        atol=1e-4,
    )


def test_places_are_pixels_of_the_movie():
    model = model_of(places=[(4, 6), (9.4, 10.6), (0, 15)])
    places = model.places()
    # Units are centred on pixels 4 .. 9 and 4 .. 11; the corner's nearest one is taken.
    np.testing.assert_array_equal(places["y"], [4, 9, 4])
    np.testing.assert_array_equal(places["x"], [6, 11, 11])
    np.testing.assert_array_equal(places["weight"], 1)
    assert places["cell"].values.tolist() == CELLS
    assert places["y"].attrs["units"] == "pixel"
    geometry = model.geometry["rate"]
    maps = model.layers["rate"]
    caught = []
    handle = maps.register_forward_hook(lambda module, given, out: caught.append(out))
    rate = model.network(torch.randn(1, 9, 14, 16))
    handle.remove()
    y, x = (int(places[axis][1]) - int(geometry.offset[i]) for i, axis in enumerate(("y", "x")))
    torch.testing.assert_close(rate[:, 1], caught[0][:, 1, y, x])


def test_maps_of_rates_are_labelled_by_type():
    model = model_of(types=["on", "off", "on"])
    tree = rc.contributions(
        model,
        movie_of(8),
        layers=["rate"],
        method=rc.methods.IntegratedGradients(steps=8),
        progress=False,
    )
    contribution = tree["layers/rate"]["contribution"]
    assert contribution["channel"].values.tolist() == ["on", "off"]
    assert contribution.sizes["y"] == 6
    assert contribution.sizes["x"] == 8
    # The readout is linear in the maps of rates; a cell has nothing from the other type's map.
    change = tree["target"] - tree["target_baseline"]
    total = contribution.sum(("channel", "y", "x"))
    np.testing.assert_allclose(total.values, change.values, atol=1e-3 * float(abs(change).max()))
    assert float(abs(contribution.sel(cell="b", channel="on")).max()) == 0


def test_weights_of_places_sum_to_one():
    readout = PlaceReadout([0, 1, 0], (3, 4))
    maps = torch.full((5, 2, 3, 4), 2.0)
    maps[:, 1] = 7.0
    torch.testing.assert_close(readout(maps), torch.tensor([2.0, 7.0, 2.0]).expand(5, 3))
    readout.choice.data[:] = 0
    readout.choice.data[0, 5] = torch.log(torch.tensor(11.0))  # half of all: 11 / (11 + 11)
    maps[:, 0, 1, 1] = 4.0
    torch.testing.assert_close(readout(maps)[0, 0], torch.tensor(3.0))


def test_planted_places_are_learned_and_then_fixed(tmp_path):
    planted = [(5, 6), (8, 10), (4, 11)]
    truth = model_of(places=planted)
    model = model_of()
    shared = {k: v for k, v in truth.network.state_dict().items() if not k.startswith("readout")}
    model.network.load_state_dict(shared, strict=False)
    choice = model.layers["readout"].choice
    optimizer = torch.optim.Adam([choice], lr=0.3)
    frames = torch.randn(4, 64, 14, 16)
    with torch.no_grad():
        target = truth.network(frames)
    for _ in range(60):
        optimizer.zero_grad()
        (model.network(frames) - target).square().mean().backward()
        optimizer.step()
    found = model.places()
    np.testing.assert_array_equal(np.stack([found["y"], found["x"]], 1), planted)
    assert (found["weight"] > 0.5).all()

    fixed = model.fix_places()
    movie = movie_of(30, seed=4)
    xr.testing.assert_allclose(fixed.predict(movie), truth.predict(movie), rtol=1e-5)
    assert fixed.layers["readout"].fixed
    assert not model.layers["readout"].fixed
    assert fixed.fingerprint != model.fingerprint
    assert [name for name, _ in fixed.network.named_parameters() if "readout" in name] == []
    loaded = rc.load_model(fixed.save(tmp_path / "fixed"))
    xr.testing.assert_identical(loaded.predict(movie), fixed.predict(movie))
    xr.testing.assert_identical(loaded.places(), fixed.places())
    again = fixed.fix_places()
    assert again.fingerprint == fixed.fingerprint


def test_fixed_copy_has_its_own_weights():
    model = model_of()
    fixed = model.fix_places()
    movie = movie_of(10)
    before = model.predict(movie)
    with torch.no_grad():
        for tensor in fixed.network.parameters():
            tensor.zero_()
    xr.testing.assert_identical(model.predict(movie), before)


def test_full_field_has_one_place():
    model = model_of((1, 1))
    fixed = model.fix_places()
    movie = movie_of(20, (1, 1))
    xr.testing.assert_allclose(model.predict(movie), fixed.predict(movie))
    np.testing.assert_array_equal(model.places()["weight"], 1)
    np.testing.assert_array_equal(model.places()["y"], 0)


def test_cells_of_a_type_start_at_their_mean():
    counts = np.random.default_rng(0).poisson([0.5, 0.5, 2.0], size=(300, 3))
    node = xr.Dataset(
        {"stimulus": movie_of(300, (6, 6)), "spike_count": (("time", "cell"), counts)},
        {"cell": CELLS},
    )
    model = Retinotopic.for_recording(node, history=3, types=["x", "x", "y"])
    bias = model.layers["norm3"].bias.detach()
    assert bias.shape == (2,)
    per_bin = torch.nn.functional.softplus(bias).numpy()
    np.testing.assert_allclose(per_bin[0], counts[:, :2].mean(), rtol=0.01)
    np.testing.assert_allclose(per_bin[1], counts[:, 2].mean(), rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"types": ["on"]}, "types has 1 entries; expected one for each of 3 cells"),
        ({"places": [(4, 4)]}, r"places has shape \(1, 2\); expected \(y, x\) for each of 3"),
        ({"places": [(4, 4), (5, 16), (5, 5)]}, r"cell 'b' is at .*\(5\.0, 16\.0\).*\(14, 16\)"),
        ({"places": [(4, 4), (np.nan, 1), (5, 5)]}, "cell 'b'"),
    ],
)
def test_bad_places_and_types(options, message):
    with pytest.raises(ValueError, match=message):
        model_of(**options)
