"""Fields while modes are on: a cell whose field is switched by a pixel, in closed form."""

import numpy as np
import pytest
import torch
import xarray as xr

import retina_codec as rc
from retina_codec.physiology.conditioned import _shifted_orders

HISTORY, SIDE, SD = 4, 10, 0.5
COURSE = np.array([-0.3, -0.5, 1.0, 0.4])  # in time order: the last is lag 0


def bump(y, x, sd):
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 2 / sd**2)


FIELDS = {
    "off": -COURSE[:, None, None] * bump(4.0, 4.0, 1.2),
    "flipped": COURSE[:, None, None] * bump(4.0, 4.0, 1.2),
    "moved": -COURSE[:, None, None] * bump(4.0, 6.0, 1.2),
    "wide": -COURSE[:, None, None] * bump(4.0, 4.0, 1.8),
    "stronger": -2 * COURSE[:, None, None] * bump(4.0, 4.0, 1.2),
}


class Switched(torch.nn.Module):
    """The field of each cell is another one while the corner pixel is bright."""

    def __init__(self):
        super().__init__()
        fields = np.stack([[FIELDS["off"]] * 4, [FIELDS[n] for n in list(FIELDS)[1:]]])
        self.fields = torch.nn.Parameter(torch.tensor(fields, dtype=torch.float32))

    def forward(self, windows):
        on = (windows[:, -1, 0, 0] > 0.8).float()[:, None]
        drives = torch.einsum("nlyx,kclyx->knc", windows, self.fields)
        return 50 + (1 - on) * drives[0] + on * drives[1]


@pytest.fixture(scope="module")
def model():
    return rc.models.from_module(
        Switched(), history=HISTORY, bin_width=0.01, cells=list(FIELDS)[1:], mean=1.0, sd=SD
    )


@pytest.fixture(scope="module")
def movie():
    rng = np.random.default_rng(2)
    values = rng.normal(1.0, SD, (900, SIDE, SIDE)).astype(np.float32)
    coords = {
        "time": rc.time_coordinate(np.arange(900) * 0.01, 0.01),
        "block": ("time", np.repeat([0, 1], [400, 500])),
        "y": ("y", 20.0 * np.arange(SIDE), {"units": "um"}),
        "x": ("x", 20.0 * np.arange(SIDE), {"units": "um"}),
    }
    return xr.DataArray(values, coords, ("time", "y", "x"))


@pytest.fixture(scope="module")
def loadings(model, movie):
    """Mode 0 is the switch, 1 has nothing to do with it, 2 is on with half of the switch."""
    time = model.predict(movie[:, :, :])["time"]
    on = (movie.sel(time=time)[:, 0, 0].values - 1.0) / SD > 0.8
    rng = np.random.default_rng(3)
    chance = rng.random(len(on)) < 0.3
    half = on & (rng.random(len(on)) < 0.5)
    values = np.stack([on, chance, half], axis=1) * rng.uniform(0.5, 2.0, (len(on), 3))
    return xr.DataArray(values, {"time": time, "mode": [0, 1, 2]}, ("time", "mode"))


@pytest.fixture(scope="module")
def found(model, movie, loadings):
    return rc.physiology.mode_conditioned_field(
        model, movie, loadings, n_shifts=99, stretch=0.5, shortest_shift=0.2, progress=False
    )


def field_at(name):
    """In recorded units, over lags."""
    return FIELDS[name][::-1] / SD


def test_the_field_while_on_is_the_one_that_was_planted(found, loadings):
    on = loadings.sel(mode=0).values > 0
    share = on.mean()
    for cell in found["cell"].values:
        one = found.sel(cell=cell)
        np.testing.assert_allclose(one["field"].sel(condition="0"), field_at(cell), atol=1e-5)
        mean = share * field_at(cell) + (1 - share) * field_at("off")
        np.testing.assert_allclose(one["mean_field"], mean, atol=1e-5)
        # A shifted switch sees the mean field, up to chance.
        away = one["null_field"].sel(condition="0") - one["mean_field"]
        assert float(abs(away).max()) < 0.1 * np.abs(mean).max()
    assert (found["n_on"].sel(condition="0") == on.sum()).all()
    assert found["field"].dims == ("cell", "condition", "lag", "y", "x")
    assert float(found["lag"][1]) == 0.01 and found["shift"].attrs["units"] == "um"


def test_numbers_are_those_of_the_formulas(found, model, movie, loadings):
    """Halves written out: stretches of half a second in turn, within blocks."""
    sizes = [397, 497]
    half, turn = [], 0
    for size in sizes:
        for part in np.array_split(np.arange(size), round(size / 50)):
            half += [turn % 2] * len(part)
            turn += 1
    half = np.array(half)
    on = loadings.sel(mode=0).values > 0
    for cell in found["cell"].values:
        off, switched = field_at("off").ravel(), field_at(cell).ravel()
        means = [on[half == h].mean() * switched + (1 - on[half == h].mean()) * off for h in (0, 1)]
        size = means[0] @ means[1]
        change = (switched - means[0]) @ (switched - means[1]) / size
        along = switched @ (means[0] + means[1]) / 2
        one = found.sel(cell=cell, condition="0")
        assert float(one["change"]) == pytest.approx(change, rel=1e-4)
        assert float(one["gain"]) == pytest.approx(along / size, rel=1e-4)
        similarity = along / np.linalg.norm(switched) / np.sqrt(size)
        assert float(one["similarity"]) == pytest.approx(similarity, rel=1e-4)


def test_flips_moves_and_stretches_are_told_apart(found):
    of = found.sel(condition="0")
    assert float(of["similarity"].sel(cell="flipped")) == pytest.approx(-1, abs=1e-3)
    assert float(of["similarity"].sel(cell="stronger")) == pytest.approx(1, abs=1e-3)
    assert float(of["gain"].sel(cell="stronger")) > 1.3
    assert float(of["stretch"].sel(cell="wide")) > 1.2
    # The squared map of the moved one is 2 pixels of 20 um away from the other place; its mean
    # field lies between.
    assert 15 < float(of["shift"].sel(cell="moved")) < 40
    assert float(of["shift"].sel(cell="stronger")) < 1e-3
    for name, cell in (
        ("similarity", "flipped"), ("shift", "moved"), ("stretch", "wide"), ("gain", "stronger"),
        ("change", "stronger"),
    ):  # fmt: skip
        assert float(of[f"{name}_p_value"].sel(cell=cell)) == 0.01
        assert float(of[f"{name}_q_value"].sel(cell=cell)) < 0.05


def test_a_mode_that_has_nothing_to_do_with_the_switch_changes_nothing(found):
    of = found.sel(condition="1")
    p = np.stack([of[f"{name}_p_value"] for name in ("change", "similarity", "gain")])
    assert (p > 0.02).all()
    assert (abs(of["change"]) < 0.05).all()
    np.testing.assert_allclose(of["similarity"], 1, atol=0.02)
    for name in ("change", "similarity", "gain"):
        np.testing.assert_allclose(
            of[name], of[f"{name}_null"], atol=0.1 * float(abs(found[name]).max())
        )


def test_combinations_and_modes_alone(model, movie, loadings):
    options = {"n_shifts": 3, "stretch": 0.5, "cells": "flipped", "progress": False}
    both = rc.physiology.mode_conditioned_field(
        model, movie, loadings, modes=[1], together=[(0, 2), (0, 1, 2)], **options
    )
    assert both["condition"].values.tolist() == ["1", "0+2", "0+1+2"]
    on = loadings.values > 0
    counts = [on[:, 1].sum(), (on[:, 0] & on[:, 2]).sum(), on.all(axis=1).sum()]
    assert both["n_on"].values[0].tolist() == counts
    alone = rc.physiology.mode_conditioned_field(
        model, movie, loadings, together=[(0, 2)], exclusive=True, **options
    )
    counts = [
        (on[:, 0] & ~on[:, 1] & ~on[:, 2]).sum(), (on[:, 1] & ~on[:, 0] & ~on[:, 2]).sum(), 0,
        (on[:, 0] & on[:, 2] & ~on[:, 1]).sum(),
    ]  # fmt: skip
    assert alone["n_on"].values[0].tolist() == counts
    # Mode 2 is never on without mode 0.
    assert "met at 0 and 0 moments" in str(alone["reason"].sel(condition="2").item())
    assert np.isnan(alone["change"].sel(condition="2")).all()
    assert np.isfinite(alone["change"].sel(condition="0")).all()


def test_each_cell_may_have_its_own_loadings(model, movie, loadings):
    own = xr.concat([loadings, loadings.roll(time=300, roll_coords=False)], "cell")
    own = own.assign_coords(cell=["moved", "flipped"]).transpose("time", "mode", "cell")
    options = {"n_shifts": 3, "stretch": 0.5, "modes": [0], "progress": False}
    found = rc.physiology.mode_conditioned_field(
        model, movie, own, cells=["flipped", "moved"], **options
    )
    np.testing.assert_allclose(
        found["field"].sel(cell="moved", condition="0"), field_at("moved"), atol=1e-5
    )
    assert abs(found["field"].sel(cell="flipped", condition="0") - field_at("flipped")).max() > 0.1
    with pytest.raises(ValueError, match="loadings have no cell 'wide'"):
        rc.physiology.mode_conditioned_field(model, movie, own, cells="wide", **options)


def test_batches_change_nothing(model, movie, loadings, found):
    again = rc.physiology.mode_conditioned_field(
        model, movie, loadings, n_shifts=99, stretch=0.5, shortest_shift=0.2, memory_budget=2e4,
        cells="moved", progress=False,
    )  # fmt: skip
    for name in ("change", "similarity", "gain_p_value", "field"):
        np.testing.assert_allclose(
            again[name].sel(cell="moved"), found[name].sel(cell="moved"), rtol=1e-4, atol=1e-5
        )


def test_loadings_are_shifted_within_blocks_by_more_than_the_least():
    runs = [slice(0, 100), slice(100, 130)]
    order = _shifted_orders(runs, 20, 50, seed=0)
    np.testing.assert_array_equal(order[0], np.arange(130))
    for run, least in zip(runs, (20, 7), strict=True):
        part = order[1:, run]
        assert (np.sort(part, axis=1) == np.arange(run.start, run.stop)).all()
        size = run.stop - run.start
        shift = (np.arange(run.start, run.stop) - part) % size
        assert (shift == shift[:, :1]).all()
        assert shift.min() >= least and shift.max() <= size - least
    assert len(np.unique(order[1:, 0])) > 20


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (lambda a: a, {"modes": [7]}, "no mode 7; .*choices: 0, 1, 2"),
        (lambda a: a, {"modes": []}, "modes is empty"),
        (lambda a: a.assign_coords(time=a["time"] + 77), {}, "loadings: .* is none of the"),
        (lambda a: a.isel(time=slice(None, None, -1)), {}, "not ascending"),
        (lambda a: a.rename(mode="atom"), {}, "expected 'time' and 'mode'"),
        (lambda a: a, {"cells": "none"}, "no cell 'none'"),
    ],
)
def test_what_does_not_fit_is_refused(model, movie, loadings, change, arguments, message):
    with pytest.raises(ValueError, match=message):
        rc.physiology.mode_conditioned_field(
            model, movie, change(loadings), progress=False, **arguments
        )
