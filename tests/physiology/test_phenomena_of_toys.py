"""Every phenomenon on cells whose indices are known in closed form."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import retina_codec as rc
from retina_codec import physiology

BIN = 0.01
SIDE = 16
HISTORY = 40
SCREEN = rc.stimuli.Screen((SIDE, SIDE), 50.0, BIN)
MIDDLE = SIDE // 2


class Toy(nn.Module):
    """Cells as functions of windows (N, lag, y, x); lag 0 is the last frame."""

    def __init__(self, *cells):
        super().__init__()
        self.cells = cells

    def forward(self, windows):
        return torch.stack([cell(windows.flip(1)) for cell in self.cells], dim=1)


def model_of(history=HISTORY, bin_width=BIN, **cells):
    """Cells by name; each sees windows whose axis 1 is the lag, 0 first."""
    return rc.models.from_module(
        Toy(*cells.values()), history=history, bin_width=bin_width, cells=list(cells)
    )


def table_of(phenomenon, screen=SCREEN, history=HISTORY, centre=(0.0, 0.0), **cells):
    model = model_of(history, screen.bin_width, **cells)
    lead = (history + 10) * screen.bin_width
    return phenomenon.measure(model.predict(phenomenon.movie(screen, lead=lead, centre=centre)))


def pixel(windows, lag, dy=0, dx=0):
    return windows[:, lag, MIDDLE + dy, MIDDLE + dx]


def whole(windows, lag):
    return windows[:, lag].mean((1, 2))


def blob(windows, lag, sd=2.0):
    """Light under a Gaussian in the middle of the field."""
    y, x = (torch.arange(SIDE) - (SIDE - 1) / 2 for _ in range(2))
    weight = torch.exp(-0.5 * (y[:, None] ** 2 + x**2) / sd**2)
    return (windows[:, lag] * weight).sum((1, 2)) / weight.sum()


def test_step_response_of_on_off_sustained_and_transient_cells():
    found = table_of(
        physiology.StepResponse(),
        on=lambda w: torch.relu(10 * whole(w, 3)),
        off=lambda w: torch.relu(-10 * whole(w, 3)),
        both=lambda w: 10 * whole(w, 3).abs(),
        short=lambda w: torch.relu(10 * (whole(w, 3) - whole(w, 8))),
        half=lambda w: torch.relu(10 * (whole(w, 3) - 0.5 * whole(w, 20))),
        silent=lambda w: 0 * whole(w, 0) + 5,
    )
    index = found["on_off_index"].values
    np.testing.assert_allclose(index[:3], [1, -1, 0], atol=1e-6)
    np.testing.assert_allclose(found["step_bias"][:3], [1, -1, 0], atol=1e-6)
    # Sustained 0; over after 50 ms 1; a half of the peak is left 400 ms later.
    np.testing.assert_allclose(found["transience"][:5], [0, 0, 0, 1, 0.5], atol=1e-5)
    np.testing.assert_allclose(found["on_response"][[0, 1]], [12, 0], atol=1e-5)
    assert np.isnan(index[5])
    assert "less than 1 Hz" in str(found["reason"].sel(cell="silent").values)
    assert found["reason"].values[:5].tolist() == [""] * 5


def test_linear_cells_answer_the_second_flash_like_the_first():
    found = table_of(
        physiology.PairedFlash(),
        linear=lambda w: 50 + 10 * (whole(w, 3) + 0.5 * whole(w, 7)),
        # 0.1 s after a flash nothing is answered.
        tired=lambda w: torch.relu(10 * whole(w, 2)) * (whole(w, 12) <= 0),
    )
    ratios = found["paired_flash_ratios"]
    np.testing.assert_allclose(ratios.sel(cell="linear"), 1, atol=1e-5)
    np.testing.assert_allclose(ratios.sel(cell="tired"), [0, 1, 1], atol=1e-6)
    assert float(found["paired_flash_ratio"].sel(cell="tired")) == pytest.approx(0, abs=1e-6)


def flash_onset(windows, lag):
    """1 in the first frame of a dark flash of contrast 1.2."""
    return torch.relu(whole(windows, lag + 1) - whole(windows, lag)) / 1.2


def predicts(windows):
    """Fires where a flash is missing that the last three foretold, and weakly to flashes."""
    found = 50 * flash_onset(windows, 1)
    for period in range(6, 13):
        before = sum(flash_onset(windows, 1 + k * period) for k in (1, 2, 3))
        found = found + 100 * torch.relu(before - 2 - 3 * flash_onset(windows, 1))
    return found


def waits(windows):
    """Fires 140 ms after the last flash, whatever the period, and weakly to flashes."""
    since = sum(flash_onset(windows, lag) for lag in range(1, 14))
    late = torch.relu(flash_onset(windows, 14) - since)
    return 50 * flash_onset(windows, 1) + 100 * late


def test_omitted_stimulus_response_keeps_time_with_the_missing_flash():
    found = table_of(
        physiology.OmittedStimulus(),
        predicts=predicts,
        waits=waits,
        plain=lambda w: 50 * flash_onset(w, 1),
    )
    slope = found["omitted_latency_slope"].values
    np.testing.assert_allclose(slope[:2], [1, 0], atol=1e-6)
    assert np.isnan(slope[2])
    assert float(found["omitted_stimulus_index"].sel(cell="predicts")) > 0.3
    assert float(found["omitted_stimulus_index"].sel(cell="plain")) == -1
    # 100 Hz after 50 Hz.
    waiting = float(found["omitted_stimulus_index"].sel(cell="waits"))
    assert waiting == pytest.approx(1 / 3, abs=1e-6)


def test_latency_of_flashed_gratings_by_a_closed_form():
    theta = 2.0

    def ramp(windows):
        """Grows with time, faster where it is brighter: A min(t, 10) - theta."""
        return 10 * torch.relu(sum(pixel(windows, lag) for lag in range(10)) - theta)

    movie = physiology.LatencyCoding().movie(SCREEN)
    flash = movie.sel(time=np.isclose(movie["onset"], 0))
    light = flash.isel(y=MIDDLE, x=MIDDLE).values
    found = table_of(
        physiology.LatencyCoding(), ramp=ramp, prompt=lambda w: torch.relu(10 * pixel(w, 2))
    )
    bright = light * 10 > theta + 0.1
    expected = np.where(bright, BIN * ((10 * light + theta) / (2 * light) - 1), np.nan)
    np.testing.assert_allclose(found["latency"].sel(cell="ramp"), expected, atol=1e-6)
    assert float(found["latency_spread"].sel(cell="prompt")) == pytest.approx(0, abs=1e-7)
    assert float(found["latency_spread"].sel(cell="ramp")) > 0.005
    np.testing.assert_allclose(found["count_modulation"], 1)


def test_frequency_doubling_of_linear_rectified_and_full_wave_cells():
    # Twenty frames a period: a rectified sine of an odd number of them has a trace of F1.
    reversing = physiology.FrequencyDoubling(n_phases=1, frequency=5.0)
    found = table_of(
        reversing,
        linear=lambda w: 50 + 20 * pixel(w, 0),
        half=lambda w: torch.relu(20 * pixel(w, 0)),
        full=lambda w: 20 * pixel(w, 0).abs(),
    )
    # The discrete Fourier series of a rectified sine; near 4 / (3 pi), that of a continuous one.
    first, second = np.abs(np.fft.rfft(np.maximum(np.sin(2 * np.pi * np.arange(20) / 20), 0)))[1:3]
    ratio = second / first
    assert abs(ratio - 4 / (3 * np.pi)) < 0.02
    np.testing.assert_allclose(found["nonlinearity_index"][:2], [0, ratio], atol=1e-5)
    expected = [0, ratio / (1 + ratio), 1]
    np.testing.assert_allclose(found["frequency_doubling"], expected, atol=1e-5)
    assert float(found["nonlinearity_index"].sel(cell="full")) > 100


def test_polarity_turns_where_the_surround_shifted():
    def turning(windows):
        now, before = (pixel(windows, lag, dx=5) for lag in (0, 31))
        return 50 + 20 * pixel(windows, 0) * torch.sign(now * before)

    found = table_of(
        physiology.PolarityReversal(), turning=turning, plain=lambda w: 50 + 20 * pixel(w, 0)
    )
    polarity = 20 * 1.2 / 50
    np.testing.assert_allclose(found["polarity_still"], polarity, rtol=1e-5)
    np.testing.assert_allclose(found["polarity_shifted"], [-polarity, polarity], rtol=1e-5)
    np.testing.assert_allclose(found["polarity_change"], [-2 * polarity, 0], atol=1e-6)


def test_gain_is_the_same_at_both_contrasts_in_filters_and_doubles_with_control():
    def drive(windows):
        return whole(windows, 2) - 0.5 * whole(windows, 6)

    def controlled(windows):
        spread = windows[:, :36].mean((2, 3)).std(1)
        return 50 + 10 * drive(windows) / (spread + 1e-3)

    found = table_of(
        physiology.ContrastGain(),
        screen=rc.stimuli.Screen((2, 2), 50.0, BIN),
        linear=lambda w: 50 + 20 * drive(w),
        rectified=lambda w: torch.relu(20 * drive(w) + 2),
        controlled=controlled,
        square=lambda w: 20 * drive(w) ** 2,
    )
    ratio = found["gain_ratio"].values
    np.testing.assert_allclose(ratio[:2], 1, atol=0.05)
    # Divided by the contrast: three times the gain at a third of it.
    assert 2.5 < ratio[2] < 3.5
    assert np.isnan(ratio[3])
    assert "explain less than 0.1" in str(found["reason"].sel(cell="square").values)


def test_slow_adaptation_needs_memory_and_is_found_where_it_is():
    screen = rc.stimuli.Screen((1, 1), 50.0, 0.05)
    slow = physiology.SlowAdaptation(duration=6.0, n_repeats=8)

    def tiring(windows):
        """Divided by the mean contrast of the last 3 s."""
        return 20 * whole(windows, 0).abs() / (0.2 + windows.abs().mean((1, 2, 3)))

    given = {"tiring": tiring, "steady": lambda w: 20 * whole(w, 0).abs()}
    found = table_of(slow, screen=screen, history=60, **given)
    movie = slow.movie(screen, lead=3.5)
    level, onset = np.abs(movie.values[:, 0, 0]), movie["onset"].values
    past = np.convolve(level, np.ones(60) / 60)[: len(level)]
    early = (onset > 0.49) & (onset < 1.49)
    late = onset > 4.99
    for cell, rate in (("tiring", 20 * level / (0.2 + past)), ("steady", 20 * level)):
        a, b = rate[early].mean(), rate[late].mean()
        expected = (a - b) / (a + b)
        index = float(found["slow_adaptation_index"].sel(cell=cell))
        assert index == pytest.approx(expected, abs=0.01)
    assert float(found["slow_adaptation_index"].sel(cell="tiring")) > 0.15
    with pytest.raises(ValueError, match="needs frames of at most"):
        slow.movie(rc.stimuli.Screen((1, 1), 50.0, 0.2))


def test_a_delay_is_not_made_up_for_and_a_biphasic_filter_leads():
    found = table_of(
        physiology.MotionAnticipation(),
        late=lambda w: 20 + 50 * blob(w, 6),
        leads=lambda w: torch.relu(80 * (blob(w, 6) - blob(w, 16))),
    )
    # The bar moves a fifth of a pixel a frame, and its edges have the grain of pixels.
    assert float(found["lead_time"].sel(cell="late")) == pytest.approx(-0.06, abs=0.01)
    assert float(found["compensation"].sel(cell="late")) == pytest.approx(0, abs=0.17)
    assert float(found["compensation"].sel(cell="leads")) > 0.5
    np.testing.assert_allclose(found["flash_latency"], 0.06, atol=0.006)
    np.testing.assert_allclose(found["x"], 0, atol=5)


def test_a_burst_at_the_turn_is_told_from_the_two_ways():
    def motion(windows, lag):
        now, before = windows[:, lag], windows[:, lag + 2]
        right = before[:, :, :-1] * now[:, :, 1:] - now[:, :, :-1] * before[:, :, 1:]
        return right.sum((1, 2))

    def turns(windows):
        """Fires where what went right or left 120 ms ago goes the other way."""
        now, before = motion(windows, 0), motion(windows, 12)
        return torch.relu(-torch.sign(now) * torch.sign(before)) * (now.abs() > 0.1) * 30

    found = table_of(
        physiology.MotionReversal(), turns=turns, plain=lambda w: torch.relu(50 * blob(w, 3))
    )
    # Nothing in the smooth motions, 30 Hz at the turns along x.
    assert float(found["motion_reversal_index"].sel(cell="turns")) == pytest.approx(1, abs=0.02)
    # Without memory of the way before, no more than the way back gives.
    assert -0.6 < float(found["motion_reversal_index"].sel(cell="plain")) <= 0


def test_object_motion_is_seen_by_what_compares_centre_and_surround():
    def compares(windows):
        centre = pixel(windows, 0) - pixel(windows, 1)
        # A period of the grating away: the same light while both move together.
        around = pixel(windows, 0, dx=6) - pixel(windows, 1, dx=6)
        return 200 * (centre - around).abs()

    jitter = physiology.ObjectMotion(period=300.0, radius=180.0, n_walks=4)
    found = table_of(
        jitter,
        compares=compares,
        linear=lambda w: 50 + 10 * pixel(w, 0),
        flat=lambda w: w[:, 0, 0, 0] * 0,
    )
    assert float(found["object_motion_index"].sel(cell="compares")) == pytest.approx(1, abs=1e-3)
    assert abs(float(found["object_motion_index"].sel(cell="linear"))) < 0.1
    assert np.isnan(found["object_motion_index"].sel(cell="flat"))


def test_direction_selectivity_of_a_correlator_by_its_formula():
    """Hassenstein and Reichardt: two places a pixel and a half period of delay apart."""

    def correlator(windows):
        a, b = (lambda lag, dx=dx: pixel(windows, lag, dx=dx) for dx in (-1, 1))
        return torch.relu(30 * (a(3) * b(0) - a(0) * b(3)))

    gratings = physiology.DirectionSelectivity()
    found = table_of(gratings, ds=correlator, none=lambda w: 20 + 10 * pixel(w, 0))
    angle = np.deg2rad(np.arange(0, 360, 45))
    response = np.maximum(np.sin(2 * np.pi * 100 / gratings.period * np.cos(angle)), 0)
    expected = abs((response * np.exp(1j * angle)).sum()) / response.sum()
    assert float(found["dsi"].sel(cell="ds")) == pytest.approx(expected, abs=0.01)
    assert float(found["dsi"].sel(cell="none")) == pytest.approx(0, abs=0.01)
    away = (float(found["preferred_direction"].sel(cell="ds")) + 180) % 360 - 180
    assert away == pytest.approx(0, abs=1)


def test_a_cell_without_memory_prefers_no_speed():
    bars = physiology.SpeedTuning()
    found = table_of(bars, static=lambda w: torch.relu(60 * blob(w, 0)))
    assert float(found["preferred_speed"][0]) == pytest.approx(np.sqrt(1000 * 2000), rel=0.02)
    assert float(found["speed_bandwidth"][0]) == pytest.approx(np.std([0, 1, 2, 3]), rel=0.02)


def test_flashed_bars_find_where_a_cell_looks():
    weight = torch.zeros(SIDE, SIDE)
    weight[5, 11] = 1.0
    movie = physiology.flashed_bars(SCREEN, width=50.0, spacing=50.0)
    model = model_of(there=lambda w: 30 * (w[:, 2] * weight).sum((1, 2)).abs())
    found = physiology.receptive_field_centres(model.predict(movie))
    place = (np.array([5, 11]) - (SIDE - 1) / 2) * 50.0
    np.testing.assert_allclose([found["y"][0], found["x"][0]], place, atol=1e-3)


@pytest.mark.parametrize("name", [k for k in physiology.PHENOMENA if k != "slow_adaptation"])
def test_responses_may_come_in_any_order_of_dims_and_must_have_their_coordinates(name):
    phenomenon = physiology.PHENOMENA[name]()
    movie = phenomenon.movie(SCREEN, lead=0.2)
    rng = np.random.default_rng(0)
    response = xr.DataArray(
        rng.gamma(2.0, 5.0, size=(movie.sizes["time"], 2)),
        dims=("time", "cell"),
        coords={
            **{k: v for k, v in movie.coords.items() if v.dims == ("time",)},
            "cell": ["a", "b"],
        },
    )
    found = phenomenon.measure(response)
    assert set(phenomenon.indices) <= set(found.data_vars)
    for index, (units, _) in phenomenon.indices.items():
        assert found[index].dims == ("cell",)
        assert found[index].attrs["units"] == units
    assert found.attrs["source"]
    xr.testing.assert_allclose(found, phenomenon.measure(response.transpose("cell", "time")))
    with pytest.raises(ValueError, match="onset"):
        phenomenon.measure(response.drop_vars("onset"))


def test_a_lead_without_rest_is_refused():
    steps = physiology.StepResponse()
    rate = model_of(on=lambda w: whole(w, 0)).predict(steps.movie(SCREEN, lead=0.3))
    with pytest.raises(ValueError, match="longer lead"):
        steps.measure(rate)
