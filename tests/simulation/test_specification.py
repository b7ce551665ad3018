"""Circuits read from YAML: what is wrong is named, what is right comes back as it was."""

import copy

import pytest
import yaml

from retina_codec import simulation
from retina_codec.simulation.specification import parse_specification, read_specification

PLAIN = read_specification("default").to_mapping()


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


def test_the_default_circuit_has_the_types_of_the_trial():
    circuit = read_specification("default")
    assert (len(circuit.bipolar), len(circuit.amacrine), len(circuit.cells)) == (5, 3, 16)
    assert circuit.history * circuit.bin_width == pytest.approx(0.4)
    assert [c.preferred_direction for _, c in list(circuit.cells.values())[-4:]] == [
        0,
        90,
        180,
        270,
    ]


def test_a_file_round_trip_keeps_everything(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(PLAIN, sort_keys=False))
    assert read_specification(path) == read_specification("default")
    default, mine = simulation.circuit("default"), simulation.circuit(path)
    assert mine.fingerprint == default.fingerprint


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("bipolar", "on_transient", "tau"), -0.03, r"bipolar.on_transient.tau is -0.03"),
        (
            ("bipolar", "on_transient", "tau"),
            "fast",
            r"on_transient.tau is 'fast'; expected a numb",
        ),
        (("bipolar", "on_transient", "tau"), None, r"has no entry 'tau'"),
        (("bipolar", "on_transient", "taus"), 1, r"unknown entry 'taus'; did you mean 'tau'"),
        (("bipolar", "on_transient", "polarity"), 0.5, r"polarity is 0.5; expected 1"),
        (("bipolar", "on_transient", "delay"), -1.0, r"delay is -1.0"),
        (("bipolar",), {}, r"circuit.bipolar is \{\}"),
        (("bipolar", "wide"), PLAIN["bipolar"]["on_transient"], r"same name: \['wide'\]"),
        (("amacrine", "wide", "inputs"), {"of_transient": 1}, r"did you mean 'off_transient'"),
        (("amacrine", "wide", "inputs"), {"off_transient": "x"}, r"off_transient is 'x'"),
        (("amacrine", "wide", "sd"), 0, r"amacrine.wide.sd is 0"),
        (("ganglion", "on_off", "inputs", 0, "source"), "rod", r"inputs\[0\]: no type 'rod'"),
        (("ganglion", "on_off", "inputs", 0, "ahead"), 4.0, r"not every cell has a preferred"),
        (("ganglion", "on_off", "inputs", 0, "inner_sd"), -1.0, r"inner_sd is -1.0"),
        (("ganglion", "on_off", "cells"), [], r"ganglion.on_off.cells is \[\]"),
        (("ganglion", "on_off", "cells", 0, "scale"), 0.0, r"cells\[0\].scale is 0.0"),
        (("history",), 40.5, r"circuit.history is 40.5; expected a whole number"),
        (("bipolar_size",), 8, r"bipolar_size is 8; expected an odd"),
        (("bin_width",), 0.0, r"bin_width is 0.0"),
    ],
)
def test_a_wrong_entry_is_named(path, value, message):
    with pytest.raises(ValueError, match=message):
        parse_specification(changed(path, value))


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
