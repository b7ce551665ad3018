"""Drawn circuits: inside the ranges, the same for a seed, and the ones that ship."""

import dataclasses

import pytest

from retina_codec import simulation
from retina_codec.simulation.drawing import drawn_parameters
from retina_codec.simulation.specification import parameter_keys, read_specification

SPEC = read_specification("default")


def value(circuit, path):
    found = circuit
    for key in parameter_keys(path):
        found = found[key] if isinstance(found, dict | tuple | list) else getattr(found, key)
    return found


def test_every_parameter_is_drawn_inside_its_range():
    drawn = [drawn_parameters(SPEC, seed, "d") for seed in range(40)]
    for path, allowed in SPEC.ranges.items():
        values = [value(one, path) for one in drawn]
        assert allowed.low <= min(values) <= max(values) <= allowed.high
        # Uniform: forty of them reach both ends, and their mean is the middle.
        width = allowed.high - allowed.low
        assert max(values) - min(values) > 0.75 * width
        middle = (allowed.low + allowed.high) / 2
        assert abs(sum(values) / 40 - middle) < 0.2 * width
    assert drawn[0].ranges == SPEC.ranges
    assert drawn[0].bipolar["on_transient"].delay == 0  # has no range
    assert len({one.ganglion["on_off"].mosaic.seed for one in drawn}) > 35


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_drawn_circuits_that_ship(number):
    shipped = read_specification(f"drawn_{number}")
    drawn = drawn_parameters(SPEC, number, f"drawn_{number}")
    for path in SPEC.ranges:
        assert value(shipped, path) == value(drawn, path)
    for kind, ganglion in drawn.ganglion.items():
        assert shipped.ganglion[kind].mosaic == ganglion.mosaic


def test_a_drawn_circuit_is_calibrated_and_round_trips(tmp_path):
    drawn = simulation.draw_circuit(1, name="mine")
    shipped = read_specification("drawn_1")
    for kind, ganglion in shipped.ganglion.items():
        assert drawn.ganglion[kind].scale == pytest.approx(ganglion.scale, rel=1e-3)
    path = simulation.write_circuit(drawn, tmp_path / "mine.yaml", comment="two\nlines")
    assert path.read_text().startswith("# two\n# lines\nname: mine\n")
    assert read_specification(path) == drawn


def test_what_cannot_be_drawn_or_written_is_named(tmp_path):
    with pytest.raises(ValueError, match="circuit 'first' gives no ranges"):
        simulation.draw_circuit(0, "first")
    with pytest.raises(TypeError, match=r"seed=0\.5"):
        simulation.draw_circuit(0.5)
    with pytest.raises(ValueError, match=r"mine\.txt.*ends in \.yaml"):
        simulation.write_circuit(SPEC, tmp_path / "mine.txt")
    with pytest.raises(ValueError, match="gives no ranges"):
        drawn_parameters(dataclasses.replace(SPEC, ranges={}), 0, "d")
