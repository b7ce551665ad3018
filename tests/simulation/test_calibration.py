"""The numbers in the YAML file are those that calibration finds."""

import numpy as np
import pytest

from retina_codec import simulation, stimuli
from retina_codec.simulation.calibration import calibrate, calibration_movie
from retina_codec.simulation.specification import read_specification

SPEC = read_specification("default")


def test_calibration_reproduces_the_shipped_numbers():
    found = calibrate(SPEC)
    for name, kind in SPEC.bipolar.items():
        assert found.bipolar[name].scale == pytest.approx(kind.scale, rel=1e-3)
    for name, (_, cell) in SPEC.cells.items():
        assert found.cells[name][1].scale == pytest.approx(cell.scale, rel=1e-3)
        assert found.cells[name][1].offset == pytest.approx(cell.offset, abs=2e-3)


def test_calibrated_cells_fire_at_the_mean_rate_on_the_movie():
    rate = simulation.circuit("default").predict(calibration_movie())
    np.testing.assert_allclose(rate.mean("time"), 7.5, rtol=0.01)


def test_a_movie_without_contrast_is_refused():
    grey = stimuli.light_steps(n_frames=100, amplitude=0)
    with pytest.raises(ValueError, match="movie does not drive on_sustained"):
        calibrate(SPEC, movie=grey)
