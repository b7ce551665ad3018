"""Every type of ganglion cell behaves as its name says, in the default and the drawn circuits.

Measured on spikes by the functions that recordings are described with, where there is one.
"""

import numpy as np
import pytest

from retina_codec import simulation, stimuli
from retina_codec.recordings.tuning import (
    direction_selectivity,
    direction_tuning,
    on_off_index,
)
from retina_codec.simulation import simulate_retina
from retina_codec.stimuli.movie import make_movie

SCREEN = stimuli.Screen((24, 24), 50.0, 0.01)
REPEATS = 20


def flashes():
    """0.6 s of grey, 0.6 s of light, 0.6 s of grey, 0.6 s of dark."""
    levels = np.repeat([0.0, 1.2, 0.0, -1.2], 60)
    epoch = np.repeat(["grey", "on", "grey", "off"], 60)
    frames = np.broadcast_to(levels[:, None, None], (240, 24, 24))
    return SCREEN.place(make_movie(frames, bin_width=0.01, epoch=epoch))


def bars():
    """A bright bar in each of four directions, each for as long."""
    return stimuli.concatenate(
        [
            SCREEN.moving_bars(
                n_frames=70,
                width=(150.0, 150.0),
                speed=(2000.0, 2000.0),
                contrast=(1.2, 1.2),
                directions=[direction],
                seed=_seed_of_bright(direction),
            )
            for direction in (0.0, 90.0, 180.0, 270.0)
        ]
    )


def _seed_of_bright(direction):
    """Half of the bars are dark: the first seed that shows a bright one."""
    return next(
        seed
        for seed in range(20)
        if SCREEN.moving_bars(n_frames=70, directions=[direction], seed=seed).max() > 0.5
    )


@pytest.fixture(scope="module", params=["default", "drawn_1", "drawn_2", "drawn_3"])
def shown(request):
    """The circuit and its responses to flashes, bars, and motion round each object-motion cell."""
    circuit = simulation.read_specification(request.param)
    movies = {"flashes": flashes(), "bars": bars()}
    for cell, (kind, at) in circuit.cells.items():
        if kind == "object_motion":
            movies[cell] = SCREEN.differential_motion(
                n_frames=1200, seed=1, centre=(at.y, at.x), duration=(1.0, 1.0)
            )
    repeats = dict.fromkeys(("flashes", "bars"), REPEATS)
    return circuit, simulate_retina(movies, circuit, seed=0, repeats=repeats)


def of_type(circuit, kind):
    return [cell for cell, (found, _) in circuit.cells.items() if found == kind]


def test_on_and_off_cells_prefer_light_on_and_off(shown):
    circuit, recording = shown
    index = on_off_index(recording["flashes"])["on_off_index"]
    for speed in ("sustained", "transient"):
        assert float(index.sel(cell=of_type(circuit, f"on_{speed}")).min()) > 0.5
        assert float(index.sel(cell=of_type(circuit, f"off_{speed}")).max()) < -0.5
    assert float(abs(index.sel(cell=of_type(circuit, "on_off"))).max()) < 0.5


def test_on_off_cells_fire_at_both_steps(shown):
    circuit, recording = shown
    rate = recording["flashes"]["true_rate"].sel(cell=of_type(circuit, "on_off"))
    epoch = recording["flashes"]["epoch"].values
    rest = float(rate[:50].mean())
    for step in ("on", "off"):
        peaks = rate.isel(time=epoch == step).max("time")
        assert float(peaks.min()) > 5 * rest
        assert float(peaks.min()) > 5


def test_sustained_cells_go_on_and_transient_cells_stop(shown):
    """Transience: 1 less the share of the peak that is left after half a second."""
    circuit, recording = shown
    node = recording["flashes"].to_dataset()
    for kind in ("on", "off"):
        response = node["true_rate"].isel(time=node["epoch"].values == kind)
        left = response[50:60].mean("time") / response.max("time")
        assert float((1 - left.sel(cell=of_type(circuit, f"{kind}_transient"))).min()) > 0.8
        assert float((1 - left.sel(cell=of_type(circuit, f"{kind}_sustained"))).max()) < 0.5


def test_direction_selective_cells_prefer_their_directions_and_others_none(shown):
    circuit, recording = shown
    tuning = direction_tuning(recording["bars"], label="bar")
    found = direction_selectivity(tuning, n_permutations=999)
    for cell, (kind, at) in circuit.cells.items():
        one = found.sel(cell=cell)
        if kind == "direction_selective":
            assert float(one["dsi"]) > 0.25
            assert float(one["p_value"]) < 0.01
            away = (float(one["preferred_direction"]) - at.preferred_direction + 180) % 360 - 180
            assert abs(away) < 15
            counts = tuning["spike_count"].sel(cell=cell).mean("repeat")
            preferred = float(counts.sel(direction=at.preferred_direction))
            null = float(counts.sel(direction=(at.preferred_direction + 180) % 360))
            assert (preferred - null) / (preferred + null) > 0.45
        elif kind in ("on_sustained", "on_transient", "on_off"):
            assert float(one["dsi"]) < 0.2


def test_object_motion_cells_answer_differential_motion_only(shown):
    circuit, recording = shown
    for cell in of_type(circuit, "object_motion"):
        rates = recording[cell]["true_rate"].sel(cell=cell).groupby("epoch").mean()
        rate = dict(zip(rates["epoch"].values.tolist(), rates.values.tolist(), strict=True))
        assert rate["differential_motion"] > 5 * rate["global_motion"]
        assert rate["differential_motion"] > 15
        assert rate["object_motion"] > 4 * rate["background_motion"]
    # Cells that are not of this type do not tell the two apart so.
    others = recording[of_type(circuit, "object_motion")[0]].to_dataset()
    means = others["true_rate"].groupby("epoch").mean()
    ratio = means.sel(epoch="differential_motion") / means.sel(epoch="global_motion")
    assert float(ratio.sel(cell=of_type(circuit, "on_sustained")).max()) < 3
