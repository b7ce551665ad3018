"""Contributions during a phenomenon, on networks whose parts are known."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import retina_codec as rc
from retina_codec import physiology

SIDE, HISTORY = 14, 12
METHOD = rc.methods.IntegratedGradients(steps=4)


class Channels(nn.Module):
    """Three channels of one place: light now, dark now, light 40 ms ago; all rectified."""

    def forward(self, windows):
        now, before = windows[:, -1].mean((1, 2)), windows[:, -5].mean((1, 2))
        return torch.relu(torch.stack([now, -now, before], 1))


class Net(nn.Module):
    """Cell "a" is 10 on + 4 off + 0 late, cell "b" 20 late."""

    def __init__(self):
        super().__init__()
        self.channels = Channels()
        self.cells = nn.Linear(3, 2, bias=False)
        with torch.no_grad():
            self.cells.weight.copy_(torch.tensor([[10.0, 4.0, 0.0], [0.0, 0.0, 20.0]]))

    def forward(self, windows):
        return self.cells(self.channels(windows))


@pytest.fixture
def model():
    net = Net()
    made = rc.models.from_module(
        net,
        history=HISTORY,
        bin_width=0.01,
        cells=["a", "b"],
        layers={"channels": net.channels},
    )
    made.input_shape = (SIDE, SIDE)
    return made


def test_each_channel_adds_what_it_is_worth(model):
    """Bright and dark step of 1.2 against grey: worked by hand."""
    found = rc.explain(model, "step_response", method=METHOD)
    change = found["layers/channels"]["change"]
    # 30 frames after the step, of which the late channel sees 26; two steps, one of each sign.
    expected = np.array([[12.0, 4.8, 0.0], [0.0, 0.0, 24.0 * 26 / 30]]) / 2
    np.testing.assert_allclose(change, expected, rtol=1e-5)
    np.testing.assert_allclose(found["change"], expected.sum(1), rtol=1e-5)
    np.testing.assert_allclose(found["layers/channels"]["completeness_error"], 0, atol=1e-5)
    # (6 + 2.4)^2 / (36 + 5.76), and one channel alone.
    carrying = found["layers/channels"]["n_carrying"]
    np.testing.assert_allclose(carrying, [8.4**2 / 41.76, 1], rtol=1e-5)
    assert found["n_pairs"].values.tolist() == [2, 2]
    # On and off exclude each other: of two pairs one has nothing, all signs are as large.
    np.testing.assert_allclose(found["layers/channels"]["p_value"], 1)
    assert change.attrs["units"] == "Hz"


def test_p_values_are_exact_for_few_pairs_and_intervals_hold_the_mean(model):
    jitter = physiology.ObjectMotion(n_walks=5, period=200.0)
    centres = xr.Dataset({k: ("cell", [0.0, 0.0]) for k in "yx"}, {"cell": ["a", "b"]})
    found = rc.explain(model, jitter, centres=centres, method=METHOD)
    part = found["layers/channels"]
    assert found["n_pairs"].values.tolist() == [5, 5]
    p = part["p_value"].values
    # Multiples of 2 / 2^5.
    np.testing.assert_allclose(p * 16, np.rint(p * 16), atol=1e-9)
    change = part["change"]
    assert ((part["change_low"] <= change) & (change <= part["change_high"])).all()
    assert (part["q_value"] >= part["p_value"] - 1e-12).all()


def test_the_pairs_are_what_the_phenomenon_compares(model):
    """Differences of the rate itself, taken by hand from the same frames."""
    trains = physiology.OmittedStimulus(periods=(0.05, 0.08), flash=0.02)
    found = rc.explain(model, trains, method=METHOD, cells=["b", "a"])
    assert found["cell"].values.tolist() == ["b", "a"]
    screen = rc.stimuli.Screen((SIDE, SIDE))
    rate = model.predict(trains.movie(screen, lead=HISTORY * 0.01 + 0.1))
    measured = trains.measure(rate)
    for cell in ("a", "b"):
        of = rate.sel(cell=cell).values
        pairs = trains.compared(rate, measured.sel(cell=cell))
        assert len(pairs) == 2
        expected = np.mean([of[a].mean() - of[b].mean() for a, b in pairs])
        assert float(found["change"].sel(cell=cell)) == pytest.approx(expected, abs=1e-5)
        for response, control in pairs:
            assert not (response & control).any()
            assert (rate["onset"].values[control] < rate["onset"].values[response].min()).all()


@pytest.mark.parametrize(
    "phenomenon",
    [
        physiology.PairedFlash(intervals=(0.1,)),
        physiology.MotionReversal(places=(0.0,)),
        physiology.DirectionSelectivity(n_phases=1),
        physiology.PolarityReversal(period=200.0),
    ],
    ids=lambda one: one.name,
)
def test_channels_add_up_to_the_change_of_the_circuit(phenomenon):
    circuit = rc.simulation.circuit("default", shape=(SIDE, SIDE))
    cells = ["direction_selective_0"]
    found = rc.explain(circuit, phenomenon, cells=cells, layers="ganglion_input", method=METHOD)
    part = found["layers/ganglion_input"].to_dataset()
    total = float(part["change"].sum("channel")[0])
    change = float(found["change"][0])
    assert np.isfinite(change)
    assert total - change == pytest.approx(float(part["completeness_error"][0]), abs=1e-9)
    assert abs(total - change) < 0.05 * float(abs(part["change"]).sum()) + 0.05
    # A cell of the ON way has nothing from OFF cells.
    assert float(abs(part["change"].sel(channel=["off_sustained", "off_transient"])).max()) < 1e-6


def test_modes_share_out_the_change_and_say_what_is_left(model):
    movie = rc.stimuli.light_steps(n_frames=150, shape=(SIDE, SIDE), seed=0)
    tree = rc.contributions(
        model, movie, method=METHOD, split_sign=True, sum_over=("y", "x"), progress=False
    )
    contribution = tree["layers/channels"]["contribution"]
    with pytest.warns(UserWarning, match="constant in 3 of 6 columns"):
        modes = rc.fit_modes(contribution, n_modes=3, k=1, max_epochs=3, progress=False)
    found = rc.explain(model, "step_response", modes=modes, control=model, method=METHOD)
    part = found["modes"].to_dataset()
    assert part["change"].dims == ("cell", "mode")
    np.testing.assert_allclose(
        part["change"].sum("mode") + part["unassigned"], found["change"], atol=1e-9
    )
    # Shares lie between 0 and 1: no mode has more than there is.
    assert (part["change"].values <= found["change"].values[:, None] + 1e-6).all()
    assert float(part["change"].max()) > 0
    # The same network as its own control.
    xr.testing.assert_allclose(
        found["control/layers/channels"].to_dataset(), found["layers/channels"].to_dataset()
    )


def test_bad_arguments_are_named_and_the_model_is_as_before(model):
    with pytest.raises(ValueError, match="'slow_adaptation' needs a memory of at least 2 s"):
        rc.explain(model, "slow_adaptation")
    with pytest.raises(ValueError, match="no layer 'chanels'; did you mean 'channels'"):
        rc.explain(model, "step_response", layers="chanels")
    with pytest.raises(ValueError, match="no cell 'c'"):
        rc.explain(model, "step_response", cells=["c"])
    with pytest.raises(TypeError, match="control is a int"):
        rc.explain(model, "step_response", control=1)
    with pytest.raises(TypeError, match="modes is a str"):
        rc.explain(model, "step_response", modes="modes")
    with pytest.raises(ValueError, match="no cell answers a flashed bar"):
        with torch.no_grad():
            model.network.module.cells.weight.zero_()
        rc.explain(model, "object_motion")
    hooks = [m for m in model.network.modules() if m._forward_hooks or m._backward_hooks]
    assert hooks == []
    assert all(p.requires_grad and p.grad is None for p in model.network.parameters())
