"""The whole battery: on the known circuit, on recordings, and where it cannot be shown."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import retina_codec as rc
from retina_codec import physiology

RULE = [
    "step_response",
    physiology.ObjectMotion(n_walks=2),
    physiology.DirectionSelectivity(n_phases=2),
]
CELLS = [
    "on_sustained_0", "off_sustained_0", "on_transient_0", "off_transient_0", "object_motion_0",
    "on_off_0", "direction_selective_0", "direction_selective_1",
]  # fmt: skip


def centres_of(circuit):
    places = {cell: at for cell, (_, at) in circuit.specification.cells.items()}
    return xr.Dataset(
        {axis: ("cell", [getattr(at, axis) for at in places.values()]) for axis in ("y", "x")},
        coords={"cell": list(places)},
    )


@pytest.fixture(scope="module", params=["default", "drawn_1", "drawn_2", "drawn_3"])
def known(request):
    circuit = rc.simulation.circuit(request.param)
    # One of each type is enough, at the places that are known.
    tree = rc.phenomena(circuit, names=RULE, cells=CELLS, centres=centres_of(circuit))
    return circuit, tree


def test_the_rule_names_every_type_of_the_known_circuits(known):
    circuit, tree = known
    types = physiology.classify_cells(tree)
    for cell in CELLS:
        assert str(types["cell_type"].sel(cell=cell).values) == circuit.specification.cells[cell][0]
    assert types["polarity"].sel(cell="off_transient_0").item() == "OFF"
    assert types["kinetics"].sel(cell="on_sustained_0").item() == "sustained"
    assert types["object_motion"].sel(cell="on_off_0").item() == "no"
    for cell in CELLS[-2:]:
        _, at = circuit.specification.cells[cell]
        away = float(types["preferred_direction"].sel(cell=cell)) - at.preferred_direction
        assert abs((away + 180) % 360 - 180) < 15


def test_thresholds_lie_in_the_gaps_between_types(known):
    """What `TypeRule` says of the drawn circuits."""
    circuit, tree = known
    rule = physiology.TypeRule()
    value = tree["value"]
    kinds = {cell: circuit.specification.cells[cell][0] for cell in CELLS}
    for cell, kind in kinds.items():
        one = {str(name): float(value.sel(cell=cell, index=name)) for name in value["index"].values}
        if kind == "on_off":
            assert abs(one["step_bias"]) < rule.bias - 0.2
        elif kind != "object_motion":
            assert abs(one["step_bias"]) > rule.bias + 0.2
        if "sustained" in kind:
            assert one["transience"] < rule.transience - 0.2
        elif "transient" in kind:
            assert one["transience"] > rule.transience + 0.2
        moving = one["object_motion_index"] - rule.object_motion
        assert (moving > 0.2) if kind == "object_motion" else (moving < -0.2)
        directed = one["dsi"] - rule.direction
        if kind == "direction_selective":
            assert directed > 0.1
        else:
            # NaN for an object-motion cell that no grating drives.
            assert directed < -0.1 or (np.isnan(directed) and kind == "object_motion")


def test_receptive_fields_of_the_circuit_are_where_they_are():
    circuit = rc.simulation.circuit("default")
    true = centres_of(circuit)
    movie = physiology.flashed_bars(rc.stimuli.Screen(), spacing=50.0)
    found = physiology.receptive_field_centres(circuit.predict(movie))
    for axis in ("y", "x"):
        # Direction-selective cells are inhibited from one side.
        off = abs(found[axis] - true[axis]).where(~found["cell"].str.startswith("direction"))
        assert float(off.max()) < 40


def test_a_recording_of_the_movie_gives_what_the_circuit_gives():
    steps = physiology.StepResponse(duration=0.6)
    movie = steps.movie(rc.stimuli.Screen())
    recording = rc.simulate_retina({"shown": movie}, seed=0, repeats={"shown": 40})
    found = rc.phenomena(recording, names=steps, cells=CELLS[:4])
    true = rc.phenomena(rc.simulation.circuit("default"), names=steps, cells=CELLS[:4])
    both = physiology.compare_phenomena({"recorded": found, "true": true}, reference="true").isel(
        compared=0
    )
    assert float(both["r"].sel(index="on_off_index")) > 0.99
    assert float(both["r"].sel(index="transience")) > 0.9
    assert found["value"]["cell"].values.tolist() == CELLS[:4]


def test_labelled_steps_and_directions_of_a_recording_are_enough():
    """Counts worked by hand: 3 spikes at on and 1 at off; one direction of four."""
    counts = np.array([[0], [3], [0], [1], [4], [0], [0], [0]])
    node = xr.Dataset(
        {"spike_count": (("time", "cell"), counts)},
        coords={
            "time": rc.time_coordinate(np.arange(8) * 0.5, 0.5),
            "epoch": ("time", ["gray", "on", "gray", "off"] + ["grating"] * 4),
            "direction": ("time", [np.nan] * 4 + [90.0, 180.0, 270.0, 0.0]),
            "cell": ["C1"],
        },
    )
    tree = rc.phenomena(xr.DataTree.from_dict({"shown": node}))
    assert float(tree["value"].sel(index="on_off_index", cell="C1")) == 0.5
    assert float(tree["value"].sel(index="dsi", cell="C1")) == 1
    assert float(tree["direction_selectivity"]["preferred_direction"][0]) == pytest.approx(90)
    with pytest.raises(ValueError, match="shows none of"):
        rc.phenomena(xr.DataTree.from_dict({"shown": node.drop_vars(["epoch"])}))


def test_real_light_steps_and_gratings_through_the_battery(real_data):
    """Facts of the data's README, counted there by independent scripts."""
    steps = rc.open_recording(real_data / "ganglion_light_steps")
    index = rc.phenomena(steps)["value"].sel(index="on_off_index")
    assert index.sizes["cell"] == 20
    facts = {"C10601": 0.8708, "C12301": 0.0179, "C3701": -0.9562, "C6201": 0.9856}
    for cell, value in facts.items():
        assert float(index.sel(cell=cell)) == pytest.approx(value, abs=5e-5)
    gratings = rc.open_recording(real_data / "ganglion_drifting_gratings")
    tree = rc.phenomena(gratings)
    assert tree["value"].sizes["cell"] == 19
    both = [tree[f"direction_selectivity_gratings_{k}"] for k in (1, 2)]
    facts = {"C3601": (0.3138, 0.3995), "C8501": (0.5401, 0.5680), "C11501": (0.0242, 0.0072)}
    for cell, values in facts.items():
        for node, value in zip(both, values, strict=True):
            assert float(node["dsi"].sel(cell=cell)) == pytest.approx(value, abs=5e-5)
    selective = [(node["dsi"] > 0.2).values & (node["p_value"] < 0.01).values for node in both]
    named = tree["value"]["cell"].values[selective[0] & selective[1]].tolist()
    assert sorted(named) == ["C11102", "C11701", "C3601", "C8501", "C8701", "C9801"]


def small(history, side=4, cells=("a",)):
    net = nn.Sequential(nn.Flatten(), nn.Linear(history * side * side, len(cells)))
    model = rc.models.from_module(net, history=history, bin_width=0.01, cells=list(cells))
    model.input_shape = (side, side)
    return model


def test_what_a_model_cannot_see_is_nan_with_the_reason():
    names = [*physiology.PHENOMENA]
    table = rc.phenomena(small(5, side=1), names=names).to_dataset()
    reasons = {
        str(name): str(table["reason"].sel(index=name, cell="a").values)
        for name in table["index"].values
    }
    assert "needs a memory of at least 2 s" in reasons["slow_adaptation_index"]
    assert "needs a memory of at least 0.12 s" in reasons["omitted_stimulus_index"]
    assert "needs a field of 500 x 600 um" in reasons["object_motion_index"]
    assert "needs a memory of at least 0.1 s" in reasons["motion_reversal_index"]
    assert "1 x 1 pixels" in reasons["frequency_doubling"]
    for name in ("slow_adaptation_index", "object_motion_index", "dsi", "preferred_speed"):
        assert np.isnan(float(table["value"].sel(index=name, cell="a")))
    assert table["units"].sel(index="preferred_speed").item() == "um/s"


def test_cells_that_do_not_respond_are_nan_and_never_zero():
    model = small(3, side=14, cells=("dead", "dead too"))
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.zero_()
    names = [name for name in physiology.PHENOMENA if name != "slow_adaptation"]
    table = rc.phenomena(model, names=[n for n in names if n != "omitted_stimulus"]).to_dataset()
    assert table["value"].isnull().all()
    assert (table["reason"] != "").all()
    assert "no receptive field" in table["reason"].sel(index="object_motion_index")[0].item()


def test_bad_arguments_are_named():
    model = small(20)
    with pytest.raises(ValueError, match="did you mean 'step_response'"):
        rc.phenomena(model, names="step_respons")
    with pytest.raises(ValueError, match="each phenomenon once"):
        rc.phenomena(model, names=["step_response", physiology.StepResponse(contrast=1.0)])
    with pytest.raises(ValueError, match="names is empty"):
        rc.phenomena(model, names=[])
    with pytest.raises(ValueError, match="screen has 5 x 4 pixels"):
        rc.phenomena(model, screen=rc.stimuli.Screen((5, 4)))
    with pytest.raises(ValueError, match=r"screen has frames of 0.02 s"):
        rc.phenomena(model, screen=rc.stimuli.Screen((4, 4), 50.0, 0.02))
    with pytest.raises(ValueError, match="no cell 'b'"):
        rc.phenomena(model, names="step_response", cells=["b"])
    with pytest.raises(TypeError, match="expected a RetinaModel"):
        rc.phenomena(model.network)
    model.input_shape = None
    with pytest.raises(ValueError, match="screen is not given"):
        rc.phenomena(model)
    screen = rc.stimuli.Screen((4, 4))
    with pytest.raises(ValueError, match="motion_anticipation needs a field of 399 x 399 um"):
        physiology.MotionAnticipation().movie(screen)
    table = rc.phenomena(model, names="step_response", screen=screen)
    with pytest.raises(ValueError, match="no index object_motion_index, dsi"):
        physiology.classify_cells(table)
    with pytest.raises(ValueError, match="at least two"):
        physiology.compare_phenomena({"a": table}, reference="a")
    other = rc.phenomena(small(20, cells=("x",)), names="step_response")
    with pytest.raises(ValueError, match="different cells"):
        physiology.compare_phenomena({"a": table, "b": other}, reference="a")


def test_grey_and_contrast_are_those_of_the_models_movies():
    """A model of luminance 100 +- 50 sees what one of contrast sees."""

    class Luminance(nn.Module):
        def __init__(self, grey, unit):
            super().__init__()
            self.grey, self.unit = grey, unit

        def forward(self, windows):
            return torch.relu(10 * ((windows[:, -3] - self.grey) / self.unit).mean((1, 2)))[:, None]

    tables = []
    for grey, unit in ((0.0, 1.0), (100.0, 50.0)):
        model = rc.models.from_module(Luminance(grey, unit), history=5, bin_width=0.01, cells=["a"])
        screen = rc.stimuli.Screen((4, 4))
        tables.append(
            rc.phenomena(model, names="step_response", screen=screen, grey=grey, contrast=unit)
        )
    np.testing.assert_allclose(*(table["value"].values for table in tables), rtol=1e-4)
    assert float(tables[1]["value"].sel(cell="a", index="on_response")) == pytest.approx(
        12, rel=1e-4
    )


def test_a_cell_of_the_table_lacks_its_name_with_the_reason():
    indices = ["step_bias", "transience", "object_motion_index", "dsi"]
    value = [[np.nan, np.nan, 0.1, 0.1], [1.0, 0.1, np.nan, 0.1], [1.0, np.nan, 0.0, 0.0]]
    table = xr.Dataset(
        {
            "value": (("cell", "index"), value),
            "reason": (("cell", "index"), np.where(np.isnan(value), "too quiet", "")),
        },
        coords={"cell": ["a", "b", "c"], "index": indices},
    )
    found = physiology.classify_cells(table)
    assert found["cell_type"].values.tolist() == ["none"] * 3
    assert found["reason"].values.tolist() == [
        "step_bias: too quiet", "object_motion_index: too quiet", "transience: too quiet",
    ]  # fmt: skip
    assert found["object_motion"].values.tolist() == ["no", "none", "no"]


def test_agreement_is_pearsons_with_its_reasons():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(8, 3))
    b = a + 0.5 * rng.normal(size=a.shape)
    a[:6, 1], b[:, 2] = np.nan, 1.0
    coords = {"cell": [f"c{i}" for i in range(8)], "index": ["p", "q", "s"]}
    tables = {
        name: xr.Dataset(
            {"value": (("cell", "index"), v), "reason": (("cell", "index"), np.full(v.shape, ""))},
            coords,
        )
        for name, v in (("a", a), ("b", b))
    }
    found = physiology.compare_phenomena(tables, reference="a").sel(compared="b")
    assert float(found["r"].sel(index="p")) == pytest.approx(np.corrcoef(a[:, 0], b[:, 0])[0, 1])
    assert float(found["r_low"].sel(index="p")) < float(found["r"].sel(index="p"))
    assert found["n_cells"].values.tolist() == [8, 2, 8]
    assert "fewer than 3" in found["told"].sel(index="q").item()
    assert "same number" in found["told"].sel(index="s").item()
    rmse = np.sqrt(np.mean((a[:, 0] - b[:, 0]) ** 2))
    assert float(found["rmse"].sel(index="p")) == pytest.approx(rmse)


def test_the_model_is_as_before_also_where_it_raises():
    model = small(20)
    model.network.train()
    before = model.fingerprint
    rc.phenomena(model, names="step_response")

    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, windows):
            raise RuntimeError("broken")

    broken = rc.models.from_module(Broken(), history=5, bin_width=0.01, cells=["a"])
    with pytest.raises(RuntimeError, match="broken"):
        rc.phenomena(broken, names="step_response", screen=rc.stimuli.Screen((4, 4)))
    assert model.network.training
    assert model.fingerprint == before
    assert all(p.requires_grad and p.grad is None for p in model.network.parameters())
    assert next(broken.network.parameters()).requires_grad
