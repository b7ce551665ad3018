"""Effects against random units of equal contribution: by hand, and a planted dissociation."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import retina_codec as rc
from retina_codec.interventions import index_effects, responses_without, silencing_effects

STEPS = rc.methods.IntegratedGradients(steps=2)


def two_pathways():
    """One cell that adds two pathways: pixel 0 through units 0 to 3, pixel 1 through 4 to 7."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 8, bias=False), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        weight = torch.zeros(8, 2)
        weight[:4, 0] = weight[4:, 1] = 1
        net[1].weight.copy_(weight)
        net[3].weight.copy_(torch.tensor([[1.0] * 8, [2.0] * 8]))
        net[3].bias.copy_(torch.tensor([3.0, 0.0]))
    return rc.models.from_module(net, history=1, bin_width=0.01, cells=["one", "two"])


@pytest.fixture
def planted():
    """Epochs of 5 frames in which one pixel is lit, by turns."""
    n = 120
    turn = np.arange(n) // 5 % 3  # first pixel, second, none
    values = np.zeros((n, 1, 2), dtype="float32")
    values[turn == 0, 0, 0] = 1 + np.arange((turn == 0).sum()) % 3
    values[turn == 1, 0, 1] = 1
    movie = xr.DataArray(
        values,
        {
            "time": rc.time_coordinate(np.arange(n) * 0.01, 0.01),
            "epoch": ("time", np.array(["light", "motion", "grey"])[turn]),
        },
        ("time", "y", "x"),
    )
    return two_pathways(), movie


def test_losses_of_planted_pathways_and_their_controls(planted):
    model, movie = planted
    interventions = {
        "light": rc.ablate(model, "2", channels=[0, 1, 2, 3]),
        "half of motion": rc.ablate(model, "2", channels=[4, 5]),
    }
    without = responses_without(
        model, movie, interventions, n_controls=4, method=STEPS, progress=False
    )
    assert without["response"].sel(intervention="nothing").equals(
        model.predict(movie).drop_attrs().rename("response")
    ) or np.array_equal(without["response"][0].values, model.predict(movie).values)
    assert without["at_baseline"].values.tolist() == [3, 0]
    lit = (movie.sum() * 1).item()
    first = movie.isel(x=0).sum().item()
    np.testing.assert_allclose(
        without["removed"], [first / lit, (lit - first) / lit / 2], rtol=1e-5
    )
    # Random units of the same contribution: it is reached as near as whole units allow.
    np.testing.assert_allclose(
        without["control_removed"].sel(silenced="light"), first / lit, atol=0.1
    )
    effects = silencing_effects(
        without, {"light": "light", "motion": ["motion"]}, n_draws=50
    )  # fmt: skip
    np.testing.assert_allclose(effects["loss"].sel(silenced="light", response="light"), 1)
    np.testing.assert_allclose(effects["loss"].sel(silenced="light", response="motion"), 0)
    loss = effects["loss"].sel(silenced="half of motion", response="motion")
    np.testing.assert_allclose(loss, 0.5, rtol=1e-5)
    assert effects["selectivity"].sel(silenced="light").item() == pytest.approx(1)
    assert effects["selectivity"].sel(silenced="half of motion").item() == pytest.approx(-0.5)
    both = effects["dissociation"].sel(silenced="light", other="half of motion")
    assert both.item() == pytest.approx(1.5)
    # Every presentation loses the same, so that the interval has no width; sizes by hand.
    assert effects["mean_loss_low"].sel(silenced="light", response="light").item() == 1
    rate = model.predict(movie) - without["at_baseline"]
    size = rate.where(movie["epoch"] == "light").mean("time")
    np.testing.assert_allclose(effects["size"].sel(response="light"), size, rtol=1e-5)
    # A random unit of either pathway takes a quarter of its response away.
    losses = effects["control_loss"].sel(silenced="half of motion", cell="one")
    np.testing.assert_allclose(losses * 4, np.round(losses * 4), atol=1e-4)
    excess = effects["mean_loss"] - effects["mean_control_loss"].mean("draw")
    np.testing.assert_allclose(effects["excess"], excess, atol=1e-6)


def test_controls_of_modes_take_as_much_at_every_moment(model, movie):
    sums = rc.contributions(
        model, movie, layers="relu1", method=STEPS, split_sign=True, sum_over=("y", "x"),
        progress=False,
    )  # fmt: skip
    modes = rc.fit_modes(
        sums["layers/relu1"]["contribution"], n_modes=4, max_epochs=3, progress=False
    )
    made = {
        "both": rc.ablate(model, "relu1", modes=modes, mode=[0, 1], method=STEPS),
        "half": rc.ablate(model, "relu1", modes=modes, mode=[0, 1], method=STEPS, strength=0.5),
        "channel": rc.ablate(model, "relu1", channels=1),
    }
    state = torch.random.get_rng_state()
    without = responses_without(model, movie, made, n_controls=2, seed=1, progress=False)
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, one in made.items():
        ours = without["response"].sel(intervention=name)
        np.testing.assert_allclose(ours.values, one.predict(movie).values, rtol=1e-4, atol=1e-3)
    removed, random = without["removed"], without["control_removed"]
    np.testing.assert_allclose(random.sel(silenced=["both", "half"]),
                               removed.sel(silenced=["both", "half"]).broadcast_like(
                                   random.sel(silenced=["both", "half"])), rtol=1e-4)  # fmt: skip
    assert removed.sel(silenced="half").item() == pytest.approx(
        removed.sel(silenced="both").item() / 2, rel=1e-5
    )
    np.testing.assert_allclose(random.sel(silenced="channel"), removed[2].item(), rtol=0.05)
    control = without["control"].sel(silenced="both")
    assert float(abs(control[0] - control[1]).max()) > 0.1
    again = responses_without(model, movie, made, n_controls=2, seed=1, progress=False)
    assert again.identical(without)


def test_cells_without_a_response_have_no_loss(planted):
    model, movie = planted
    without = responses_without(
        model, movie, {"all": rc.ablate(model, "2")}, n_controls=0, method=STEPS, progress=False
    )
    effects = silencing_effects(
        without, {"grey": "grey", "light": "light"}, n_draws=10, least_response=0.5
    )
    assert np.isnan(effects["loss"].sel(response="grey")).all()
    assert np.isnan(effects["mean_loss"].sel(response="grey")).all()
    assert "control_loss" not in effects
    assert (effects["loss"].sel(response="light") == 1).all()


def test_indices_with_something_silenced(planted):
    model, movie = planted
    made = {"light": rc.ablate(model, "2", channels=[0, 1, 2, 3])}
    without = responses_without(model, movie, made, n_controls=3, method=STEPS, progress=False)

    def measure(rate):
        kinds = [rate.where(rate["epoch"] == kind).mean("time") for kind in ("light", "motion")]
        preference = (kinds[0] - kinds[1]) / (kinds[0] + kinds[1])
        return xr.Dataset({"preference": preference.assign_attrs(units="1", long_name="light")})

    found = index_effects(without, measure, n_draws=20)
    before, after = measure(model.predict(movie)), measure(made["light"].predict(movie))
    change = (after - before)["preference"].values
    np.testing.assert_allclose(found["preference_change"][0], change, rtol=1e-4)
    assert found["preference_mean_change"].item() == pytest.approx(change.mean(), rel=1e-4)
    assert (found["preference_control_change"] > change.mean()).all()
    with pytest.raises(ValueError, match="indices has 'prefer'; did you mean 'preference'"):
        index_effects(without, measure, indices=["prefer"])


def test_what_is_wrong_is_said(planted, model, movie):
    planted_model, planted_movie = planted

    def fails(message, interventions, error=ValueError, **options):
        with pytest.raises(error, match=message):
            responses_without(
                planted_model, planted_movie, interventions, progress=False, **options
            )

    one = rc.ablate(planted_model, "2", channels=0)
    fails("interventions is empty", {})
    fails("name 'nothing'", {"nothing": one})
    fails("expected what rc.ablate", {"a": planted_model}, TypeError)
    fails("was made of another model", {"a": rc.ablate(model, "relu1", channels=0)})
    fails("has strength=0.5", {"a": rc.ablate(planted_model, "2", channels=0, strength=0.5)})
    fails("is at 1, others at 2", {"a": one, "b": rc.ablate(planted_model, "1", channels=0)})
    zero = rc.ablate(planted_model, "2", channels=0, silence="zero")
    fails("another silence or baseline", {"a": one, "b": zero})
    without = responses_without(
        planted_model, planted_movie, {"a": one}, n_controls=0, method=STEPS, progress=False
    )
    with pytest.raises(ValueError, match="'bars', which no sample is"):
        silencing_effects(without, {"light": "bars"})
    with pytest.raises(ValueError, match="labels='kind' is no coordinate of without"):
        silencing_effects(without, {"light": "light"}, labels="kind")
    with pytest.raises(ValueError, match="responses is empty"):
        silencing_effects(without, {})
    with pytest.raises(ValueError, match="has no intervention 'nothing' first"):
        silencing_effects(without.isel(intervention=slice(1, None)), {"light": "light"})
