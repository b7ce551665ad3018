"""Space and time of receptive fields: planted ellipses, real cells, a mosaic with known centres."""

import re

import numpy as np
import pytest
import xarray as xr

import retina_codec as rc

PITCH = 25.0
Y, X = -200 + PITCH * np.arange(17), 100 + PITCH * np.arange(21)
COURSE = np.array([0.0, 0.4, 2.0, 1.0, -0.5, -0.2])


def ellipse(center, sds, angle, *, surround=None):
    """Gaussian as a quadratic form, written apart from the package's."""
    turn = np.radians(angle)
    axis = np.array([np.cos(turn), np.sin(turn)])  # (x, y)
    other = np.array([-axis[1], axis[0]])
    inverse = np.outer(axis, axis) / sds[0] ** 2 + np.outer(other, other) / sds[1] ** 2
    d = np.stack(np.meshgrid(X - center[1], Y - center[0]), -1)
    square = np.einsum("...i,ij,...j", d, inverse, d)
    space = np.exp(-square / 2)
    if surround is not None:
        ratio, strength = surround
        space = space - strength / ratio**2 * np.exp(-square / 2 / ratio**2)
    return space


def field_of(spaces, courses, units="Hz"):
    values = np.einsum("cl,cyx->clyx", np.stack(courses), np.stack(spaces))
    coords = {
        "cell": [f"C{i}" for i in range(len(spaces))],
        "lag": ("lag", 0.01 * np.arange(len(courses[0])), {"units": "s"}),
        "y": ("y", Y, {"units": "um"}),
        "x": ("x", X, {"units": "um"}),
    }
    return xr.DataArray(values, coords, ("cell", "lag", "y", "x"), attrs={"units": units})


PLANTED = [((-20.0, 340.0), (80.0, 45.0), 30.0), ((0.0, 300.0), (60.0, 40.0), 120.0),
           ((35.0, 380.0), (50.0, 50.0), 0.0), ((-60.0, 330.0), (70.0, 35.0), 90.0)]  # fmt: skip


def test_planted_ellipses_are_found_under_noise():
    rf = field_of([ellipse(*one) for one in PLANTED], [COURSE, -COURSE, 3 * COURSE, -2 * COURSE])
    rng = np.random.default_rng(0)
    noise = rf.copy(data=rng.normal(0, 0.02, rf.shape))
    noisy = rf + noise * abs(rf).max(("lag", "y", "x"))
    for given, tolerance in ((rf, 1e-4), (noisy, 0.06)):
        found = rc.separate(given)
        np.testing.assert_array_equal(found["polarity"], [1, -1, 1, -1])
        for i, (center, sds, angle) in enumerate(PLANTED):
            one = found.isel(cell=i)
            assert abs(float(one["center_y"]) - center[0]) < tolerance * 100
            assert abs(float(one["center_x"]) - center[1]) < tolerance * 100
            assert float(one["sd_major"]) == pytest.approx(sds[0], rel=tolerance)
            assert float(one["sd_minor"]) == pytest.approx(sds[1], rel=tolerance)
            if sds[0] != sds[1]:
                away = (float(one["orientation"]) - angle + 90) % 180 - 90
                assert abs(away) < 200 * tolerance
        assert (found["reason"] == "").all()
    clean = rc.separate(rf)
    np.testing.assert_allclose(clean["separability"], 1, rtol=1e-12)
    np.testing.assert_allclose(clean["spatial"].max(("y", "x")), 1)
    rebuilt = (clean["spatial"] * clean["temporal"]).transpose(*rf.dims)
    np.testing.assert_allclose(rebuilt, rf, atol=1e-12)
    assert clean["center_y"].attrs["units"] == "um" and clean["peak"].attrs["units"] == "Hz"


def test_the_course_is_described():
    rf = field_of([ellipse(*PLANTED[0])] * 3, [COURSE, -COURSE, [0.0, 0.1, 1.0, 2.0, 3.0, 1.0]])
    found = rc.separate(rf, fit=None)
    np.testing.assert_allclose(found["time_to_peak"], [0.02, 0.02, 0.04])
    np.testing.assert_allclose(found["biphasic_index"], [0.25, 0.25, 0])
    # From 1.0 at 30 ms to -0.5 at 40 ms.
    np.testing.assert_allclose(found["zero_crossing"], [0.03 + 0.01 * 2 / 3] * 2 + [np.nan])
    peak = found["peak"] * found["polarity"]
    largest = abs(rf).max(("lag", "y", "x"))
    np.testing.assert_allclose(peak, largest)
    assert "reason" not in found


def test_of_two_lobes_nearly_as_high_the_one_near_the_response_has_the_polarity():
    courses = [[0.0, 1.0, 0.5, -1.2, -0.3, 0], [0.0, 0.4, 0.1, -1.2, -0.3, 0.0]]
    found = rc.separate(field_of([ellipse(*PLANTED[0])] * 2, courses), fit=None)
    np.testing.assert_array_equal(found["polarity"], [1, -1])
    np.testing.assert_allclose(found["time_to_peak"], [0.01, 0.03])
    np.testing.assert_allclose(found["biphasic_index"], [1.2, 0], atol=1e-12)


def test_share_of_two_planted_pairs():
    space = np.stack([ellipse(*PLANTED[0]), ellipse(*PLANTED[2])])
    space[1] -= space[0] * (space[0] * space[1]).sum() / (space[0] ** 2).sum()
    space /= np.linalg.norm(space, axis=(1, 2), keepdims=True)
    courses = np.array([[0.6, 0.8, 0.0], [-0.8, 0.6, 0.0]])  # orthonormal
    values = 2 * courses[0][:, None, None] * space[0] + courses[1][:, None, None] * space[1]
    rf = xr.DataArray(values, {"lag": [0.0, 0.01, 0.02]}, ("lag", "y", "x"))
    assert float(rc.separate(rf, fit=None)["separability"]) == pytest.approx(4 / 5)


def test_a_surround_is_found():
    planted = [(2.0, 0.6), (2.5, 0.9), (3.0, 0.3)]
    spaces = [
        ellipse((0.0, 350.0), (45.0, 35.0), 20.0, surround=one) for one in planted
    ]  # fmt: skip
    found = rc.separate(field_of(spaces, [COURSE, -COURSE, COURSE]), fit="difference_of_gaussians")
    np.testing.assert_allclose(found["surround_sd_ratio"], [2.0, 2.5, 3.0], rtol=1e-3)
    np.testing.assert_allclose(found["surround_strength"], [0.6, 0.9, 0.3], rtol=1e-3)
    np.testing.assert_allclose(found["sd_major"], 45.0, rtol=1e-3)
    np.testing.assert_allclose(found["fit_r2"], 1, atol=1e-6)


@pytest.mark.parametrize(
    ("space", "reason"),
    [
        (np.zeros((17, 21)), "nothing in the field"),
        (np.full((17, 21), np.nan), "nothing in the field"),
        (np.random.default_rng(0).normal(size=(17, 21)), r"explains \d+ % of the map"),
        (ellipse((-200.0, 350.0), (1.0, 1.0), 0), "at the edge|narrower"),
        (ellipse((0.0, 300.0), (3.0, 3.0), 0), "narrower than a pixel"),
        (ellipse((0.0, 300.0), (5000.0, 5000.0), 0) - 0.9999, "at the edge|wider|explains"),
    ],
)
def test_where_nothing_fits_there_is_a_reason_and_no_number(space, reason):
    found = rc.separate(field_of([space], [COURSE]))
    text = str(found["reason"].item())
    assert re.search(reason, text), text
    for name in ("center_y", "center_x", "sd_major", "orientation", "fit_r2"):
        assert np.isnan(found[name].item())


def test_order_of_dims_does_not_matter_and_others_are_kept():
    rf = field_of([ellipse(*one) for one in PLANTED[:2]], [COURSE, -COURSE])
    moments = xr.concat([rf, 2 * rf], "time").assign_coords(time=[0.0, 0.01])
    found = rc.separate(moments.transpose("x", "cell", "lag", "time", "y"))
    expected = rc.separate(moments)
    xr.testing.assert_allclose(found.transpose(*expected.dims), expected)
    assert expected["center_x"].dims == ("time", "cell")
    np.testing.assert_allclose(found["peak"].sel(time=0.01), 2 * found["peak"].sel(time=0.0))


def test_coloured_fields_are_fitted_by_their_first_colour_pair():
    space = ellipse(*PLANTED[0])
    values = COURSE[:, None, None, None] * np.stack([0.5 * space, -space])
    coords = {"lag": 0.01 * np.arange(6), "y": Y, "x": X}
    rf = xr.DataArray(values, coords, ("lag", "color", "y", "x"))
    found = rc.separate(rf)
    assert found["spatial"].dims == ("color", "y", "x")
    # The second colour is the stronger one: its peak is 1, and the polarity is its.
    np.testing.assert_allclose(found["spatial"].isel(color=1).max(), 1, atol=1e-2)
    assert float(found["polarity"]) == -1
    assert float(found["sd_major"]) == pytest.approx(80.0, rel=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rf: rf.rename(lag="delay"), "rf has no dim 'lag'"),
        (lambda rf: rf.isel(y=0), "rf has no dim 'y'"),
        (lambda rf: rf.drop_vars("lag"), "no coordinate 'lag' in seconds"),
    ],
)
def test_bad_fields_are_refused(change, message):
    rf = field_of([ellipse(*PLANTED[0])], [COURSE])
    with pytest.raises(ValueError, match=message):
        rc.separate(change(rf))
    with pytest.raises(ValueError, match="fit='disc' is not known"):
        rc.separate(rf, fit="disc")
    with pytest.raises(TypeError, match="rf is a ndarray"):
        rc.separate(rf.values)


# From the README of the real data: sign, lag of the peak in frames, peak, opposite lobe.
FACTS = {
    "C1": (-1, 4, 0.4300, 0.327), "C2": (1, 6, 0.3670, 0.248), "C3": (-1, 6, 0.6296, 0.180),
    "C4": (-1, 5, 0.3643, 0.360), "C5": (-1, 6, 0.4616, 0.115), "C6": (1, 6, 0.7241, 0.215),
    "C7": (-1, 5, 0.2951, 0.166), "C8": (1, 5, 0.7494, 0.319),
}  # fmt: skip


def test_real_cells_have_the_polarity_and_peak_of_the_facts(real_data):
    folder = real_data / "ganglion_fullfield_noise"
    recording = rc.open_recording(folder)
    node = recording["train"].to_dataset()
    found = rc.physiology.spike_triggered_significance(
        node, history=45, n_shifts=39, progress=False
    )
    table = rc.separate(found["spike_triggered_average"], fit="gaussian")
    width = node["time"].attrs["bin_width"]
    assert (found["p_value"] == 1 / 40).all() and (found["q_value"] == 1 / 40).all()
    # Far above chance: the weakest cell too.
    assert (found["statistic"] > 4 * found["null_high"]).all()
    assert (found["null_median"] < 5).all() and (found["null_median"] > 1).all()
    for cell, (sign, lag, peak, opposite) in FACTS.items():
        one = table.sel(cell=cell)
        assert float(one["polarity"]) == sign
        assert round(float(one["time_to_peak"]) / width) == lag
        assert float(abs(one["peak"])) == pytest.approx(peak, abs=6e-5)
        assert float(one["biphasic_index"]) == pytest.approx(opposite / peak, abs=2e-3)
        assert "no extent" in str(one["reason"].item())
    shifted = node.assign(spike_count=node["spike_count"].copy(data=np.concatenate([
        np.roll(node["spike_count"].values[node["block"].values == b], 700, axis=0)
        for b in np.unique(node["block"].values)])))  # fmt: skip
    chance = rc.physiology.spike_triggered_significance(
        shifted, history=45, n_shifts=39, seed=1, progress=False
    )
    # Spikes moved within their blocks have lost the stimulus.
    assert (chance["statistic"] < 2 * chance["null_high"]).all()
    assert float(chance["p_value"].median()) > 0.1


def test_a_mosaic_is_found_where_it_was_planted():
    """Centres of the circuit's cells, from their mean instantaneous fields on white noise."""
    movie = rc.stimuli.Screen(shape=(24, 24)).white_noise(n_frames=160, seed=0)
    truth = rc.simulate_retina(movie[:41], "default", seed=0)["train"].to_dataset()
    circuit = rc.simulation.circuit("default", movie=movie)
    kinds = ("on_sustained", "off_sustained", "on_transient", "off_transient")
    truth = truth.isel(cell=np.flatnonzero(np.isin(truth["cell_type"].values, kinds)))
    fields = rc.instantaneous_receptive_field(
        circuit, movie, cells=truth["cell"].values, at=movie["time"].values[48::4], progress=False
    )
    found = rc.separate(fields.mean("time", keep_attrs=True))
    away = np.hypot(found["center_y"] - truth["cell_y"], found["center_x"] - truth["cell_x"])
    assert away.sizes["cell"] == 11 and float(away.max()) < 20  # um, of pixels of 50 um
    sign = [1 if kind.startswith("on") else -1 for kind in truth["cell_type"].values]
    np.testing.assert_array_equal(found["polarity"], sign)
    transient = np.char.endswith(truth["cell_type"].values.astype(str), "transient")
    assert found["biphasic_index"].values[transient].min() > 0.4
    assert found["biphasic_index"].values[~transient].max() < 0.2
    assert (
        found["time_to_peak"].values[transient].max()
        < found["time_to_peak"].values[~transient].min()
    )
