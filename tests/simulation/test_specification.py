"""Circuit files: what they say, what is refused, and with which words."""

import copy

import numpy as np
import pytest
import yaml

from retina_codec import simulation
from retina_codec.simulation.specification import (
    CHOSEN,
    CIRCUITS,
    parse_specification,
    read_specification,
)

PLAIN = read_specification("default").to_mapping()
SHIPPED = sorted(path.stem for path in CIRCUITS.glob("*.yaml"))


def changed(path, value):
    plain = copy.deepcopy(PLAIN)
    part = plain
    for key in path[:-1]:
        part = part[key]
    if value is None:
        del part[path[-1]]
    else:
        part[path[-1]] = value
    return plain


def test_the_circuits_that_ship():
    assert SHIPPED == ["default", "drawn_1", "drawn_2", "drawn_3", "first"]
    for name in SHIPPED:
        assert read_specification(name).name == name


@pytest.mark.parametrize("name", [name for name in SHIPPED if name != "first"])
def test_each_has_all_types_and_four_directions(name):
    circuit = read_specification(name)
    assert {circuit.bipolar[kind].polarity for kind in circuit.bipolar} == {1, -1}
    assert set(circuit.ganglion) == {
        "on_sustained",
        "off_sustained",
        "on_transient",
        "off_transient",
        "object_motion",
        "on_off",
        "direction_selective",
    }
    directions = [
        cell.preferred_direction
        for kind, cell in circuit.cells.values()
        if kind == "direction_selective"
    ]
    assert directions[:4] == [0, 90, 180, 270]
    assert circuit.photoreceptor is not None
    assert circuit.spiking.process == "refractory"


@pytest.mark.parametrize("name", [name for name in SHIPPED if name != "first"])
def test_every_physical_parameter_has_a_range_with_a_source(name):
    circuit = read_specification(name)
    for kind in circuit.bipolar:
        for parameter in ("tau", "late_tau", "late_weight", "centre_sd", "surround_sd",
                          "surround_weight", "threshold"):  # fmt: skip
            assert f"bipolar.{kind}.{parameter}" in circuit.ranges
    for kind in circuit.amacrine:
        assert {f"amacrine.{kind}.sd", f"amacrine.{kind}.threshold"} <= set(circuit.ranges)
    for kind, ganglion in circuit.ganglion.items():
        for i, pool in enumerate(ganglion.inputs):
            assert f"ganglion.{kind}.inputs[{i}].sd" in circuit.ranges
            if pool.source in circuit.amacrine:
                assert f"ganglion.{kind}.inputs[{i}].weight" in circuit.ranges
    assert {allowed.source for allowed in circuit.ranges.values()} - {CHOSEN} == set(
        circuit.sources
    )


def test_a_file_round_trip_keeps_everything(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(PLAIN, sort_keys=False))
    assert read_specification(path) == read_specification("default")
    default, mine = simulation.circuit("default"), simulation.circuit(path)
    assert mine.fingerprint == default.fingerprint


RANGE = {"value": 22, "range": [19, 26], "source": "chosen"}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("bipolar", "on_transient", "tau"), -30, r"bipolar.on_transient.tau is -30; .* in ms"),
        (("photoreceptor", "tau"), -5, r"circuit.photoreceptor.tau is -5; .* in ms"),
        (("bipolar", "on_transient", "tau"), "fast", r"on_transient.tau is 'fast'; expected a n"),
        (("bipolar", "on_transient", "tau"), None, r"has no entry 'tau'"),
        (("bipolar", "on_transient", "taus"), 1, r"unknown entry 'taus'; did you mean 'tau'"),
        (("bipolar", "on_transient", "tau"), RANGE | {"value": 30}, r"tau.value is 30, .* outside"),
        (("bipolar", "on_transient", "tau"), RANGE | {"range": 3}, r"tau.range is 3; expected"),
        (("bipolar", "on_transient", "tau"), {"value": 3}, r"tau has the entries value; expected"),
        (
            ("bipolar", "on_transient", "tau"),
            RANGE | {"source": "demb_201"},
            r"tau.source is 'demb_201'.*did you mean 'demb_2001'",
        ),
        (("bipolar", "on_transient", "polarity"), 0.5, r"polarity is 0.5; expected 1"),
        (("bipolar", "on_transient", "delay"), -1.0, r"delay is -1.0"),
        (("bipolar", "on_transient", "delay"), 500, r"delay \+ tau is 522 ms, beyond the 400 ms"),
        (("bipolar",), {}, r"circuit.bipolar is \{\}"),
        (("bipolar", "wide"), PLAIN["bipolar"]["on_transient"], r"same name: \['wide'\]"),
        (("amacrine", "wide", "inputs"), {"of_transient": 1}, r"did you mean 'off_transient'"),
        (("amacrine", "wide", "inputs"), {"off_transient": "x"}, r"off_transient is 'x'"),
        (("amacrine", "wide", "sd"), 0, r"amacrine.wide.sd is 0; .* in um"),
        (
            ("ganglion", "on_off", "inputs", 0, "source"),
            "on_transientt",
            r"on_off.inputs\[0\]: no type 'on_transientt'; did you mean 'on_transient'",
        ),
        (("ganglion", "on_off", "inputs", 0, "weight"), -1, r"weight is -1; .* a bipolar type"),
        (("ganglion", "on_off", "inputs", 2, "weight"), 1, r"weight is 1; .* an amacrine type"),
        (("ganglion", "on_off", "inputs", 0, "ahead"), 4.0, r"not every cell has a direction"),
        (("ganglion", "on_off", "inputs", 0, "inner_sd"), -1.0, r"inner_sd is -1.0"),
        (("ganglion", "on_off", "mosaic", "spacing"), -20, r"on_off.mosaic.spacing is -20"),
        (("ganglion", "on_off", "mosaic", "directions"), 3, r"directions is 3; expected a list"),
        (("ganglion", "on_off", "mosaic", "seed"), 1.5, r"seed is 1.5; expected a whole"),
        (("ganglion", "on_off", "cells"), [], r"on_off.cells is \[\]; expected a list"),
        (("ganglion", "on_off", "cells"), [{"y": 0, "x": 0}], r"either mosaic: or cells:"),
        (("ganglion", "on_off", "mosaic"), None, r"on_off needs either mosaic: or cells:"),
        (("ganglion", "on_off", "scale"), 0.0, r"on_off.scale is 0.0"),
        (("ganglion", "on_off", "mean_rate"), -7.5, r"on_off.mean_rate is -7.5; .* in Hz"),
        (("units",), {"length": "mm"}, r"circuit.units is \{'length': 'mm'\}; expected"),
        (("units",), None, r"circuit.units is None"),
        (("memory",), 0, r"circuit.memory is 0"),
        (("pixel_size",), -50, r"circuit.pixel_size is -50; .* in um"),
        (("margin",), -1, r"circuit.margin is -1"),
        (("spiking", "process"), "poison", r"spiking.process is 'poison'; did you mean 'poisson'"),
        (("spiking", "absolute"), -2, r"spiking.absolute is -2"),
    ],
)
def test_a_wrong_entry_is_named(path, value, message):
    plain = changed(path, value)
    if path[-1] == "cells" and value == []:
        del plain["ganglion"]["on_off"]["mosaic"]
    with pytest.raises(ValueError, match=message):
        parse_specification(plain)


def test_unknown_circuits_and_broken_files_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"'defalt'.*did you mean 'default'"):
        read_specification("defalt")
    with pytest.raises(ValueError, match="there is no such file"):
        read_specification(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1")
    with pytest.raises(ValueError, match="not valid YAML"):
        read_specification(broken)
    broken.write_text("just text")
    with pytest.raises(ValueError, match="circuit is 'just text'; expected a mapping"):
        read_specification(broken)


class TestMosaic:
    def places(self, **changes):
        from retina_codec.simulation.mosaic import Mosaic, mosaic_places

        return mosaic_places(Mosaic(**({"spacing": 100.0, "extent": 2000.0} | changes)))

    def test_neighbours_are_a_spacing_apart_in_six_directions(self):
        places = np.array([(y, x) for y, x, _ in self.places()])
        inner = places[(np.abs(places) < 800).all(axis=1)]
        distance = np.hypot(*(inner[:, None] - places[None]).transpose(2, 0, 1))
        near = np.sort(distance, axis=1)[:, 1:8]
        np.testing.assert_allclose(near[:, :6], 100, atol=0.2)
        np.testing.assert_allclose(near[:, 6], 100 * np.sqrt(3), atol=0.2)

    def test_density_is_that_of_a_hexagonal_grid(self):
        n = len(self.places(extent=5000.0))
        assert n == pytest.approx(5000**2 / (100**2 * np.sqrt(3) / 2), rel=0.03)

    def test_jitter_has_its_size(self):
        grid = np.array([p[:2] for p in self.places(seed=3)])
        jittered = np.array([p[:2] for p in self.places(seed=3, jitter=0.05)])
        distance = np.hypot(*(jittered[:, None] - grid[None]).transpose(2, 0, 1)).min(axis=1)
        # Rayleigh: the mean of the distance is sqrt(pi / 2) standard deviations.
        assert distance.mean() == pytest.approx(5 * np.sqrt(np.pi / 2), rel=0.15)

    def test_directions_take_turns_from_the_middle(self):
        places = self.places(directions=(0.0, 90.0), extent=400.0)
        assert [d for *_, d in places[:4]] == [0, 90, 0, 90]
        of_one = [np.hypot(y, x) for y, x, d in places if d == 90]
        assert of_one == sorted(of_one)
        first, second = ([p[:2] for p in places if p[2] == d] for d in (0, 90))
        assert first != second

    def test_there_is_always_a_cell_and_none_outside(self):
        for seed in range(20):
            places = self.places(spacing=400.0, extent=100.0, seed=seed)
            assert len(places) >= 1
            assert all(abs(y) <= 50 and abs(x) <= 50 for y, x, _ in places)
            assert places == self.places(spacing=400.0, extent=100.0, seed=seed)
