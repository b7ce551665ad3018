"""The numbers in the YAML files are those that calibration finds."""

import numpy as np
import pytest

from retina_codec import simulation, stimuli
from retina_codec.simulation.calibration import calibrate, calibration_movie
from retina_codec.simulation.specification import read_specification


@pytest.mark.parametrize("name", ["default", "drawn_1", "drawn_2", "drawn_3", "first"])
def test_calibration_reproduces_the_shipped_numbers(name):
    circuit = read_specification(name)
    found = calibrate(circuit)
    for kind, bipolar in circuit.bipolar.items():
        assert found.bipolar[kind].scale == pytest.approx(bipolar.scale, rel=1e-3)
    for cell, (_, at) in circuit.cells.items():
        assert found.cells[cell][1].scale == pytest.approx(at.scale, rel=1e-3)
        assert found.cells[cell][1].offset == pytest.approx(at.offset, abs=2e-3)


def test_calibrated_cells_fire_at_the_mean_rate_of_their_type():
    circuit = read_specification("default")
    rate = simulation.circuit(circuit).predict(calibration_movie()).mean("time")
    kinds = [kind for kind, _ in circuit.cells.values()]
    for kind, ganglion in circuit.ganglion.items():
        of_type = rate.values[np.array(kinds) == kind]
        assert of_type.mean() == pytest.approx(ganglion.mean_rate, rel=0.01)
    first = simulation.circuit("first").predict(calibration_movie())
    np.testing.assert_allclose(first.mean("time"), 7.5, rtol=0.01)


def test_a_movie_without_contrast_is_refused():
    grey = stimuli.light_steps(n_frames=100, amplitude=0)
    with pytest.raises(ValueError, match="movie does not drive on_sustained"):
        calibrate(read_specification("default"), movie=grey)
