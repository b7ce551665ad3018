"""Late, lost and doubled frame marks; two clocks that saw the same pulses."""

import numpy as np
import pytest
import quantities as pq

from retina_codec.recordings.frame_marks import align_clocks, describe_frame_marks

PERIOD = 1 / 75


@pytest.fixture
def marks():
    """One hundred seconds at 75 Hz on the grid of a 25 kHz clock."""
    n = 7500
    return 1.75 + np.round(np.arange(n) * PERIOD * 25_000) / 25_000


def numbers(flags):
    return np.flatnonzero(flags.values).tolist()


def test_clean_marks_have_nothing_to_tell(marks):
    found = describe_frame_marks(marks)
    assert not found["late"].any() and not found["lost"].any() and not found["doubled"].any()
    np.testing.assert_array_equal(found["interval"][:-1], np.diff(marks))
    assert np.isnan(found["interval"][-1])
    assert found.attrs["frame_interval"] == pytest.approx(PERIOD, rel=1e-5)


def test_a_late_mark_is_caught_up(marks):
    marks[1001] += 0.7 * PERIOD
    marks[4001:4004] = marks[4001] + 1.8 * PERIOD + np.array([0, 0.0005, 0.001])
    found = describe_frame_marks(marks)
    assert numbers(found["late"]) == [1000, 4000]
    assert found["lost"].sum() == 0 and not found["doubled"].any()


def test_lost_marks_shift_all_later_ones(marks):
    found = describe_frame_marks(np.delete(marks, [500, 2000, 2001, 2002]))
    assert numbers(found["lost"]) == [499, 1998]
    assert found["lost"].values[[499, 1998]].tolist() == [1, 3]
    assert not found["late"].any() and not found["doubled"].any()
    assert (found.attrs["n_lost"], found.attrs["n_late"]) == (4, 0)


@pytest.mark.parametrize("place", [0.05, 0.3, 0.9])
def test_a_doubled_mark_is_one_too_many(marks, place):
    found = describe_frame_marks(np.insert(marks, 3001, marks[3000] + place * PERIOD))
    assert found.attrs["n_doubled"] == 1 and found["lost"].sum() == 0
    # Nearer to the next mark than to the one before, it could be either of the two.
    assert numbers(found["doubled"]) == [3001 if place < 0.5 else 3002]


def test_all_three_in_one_recording(marks):
    marks[1001] += 0.7 * PERIOD
    changed = np.delete(np.insert(marks, 6000, marks[5999] + 0.002), 3000)
    found = describe_frame_marks(changed)
    assert numbers(found["late"]) == [1000]
    assert numbers(found["lost"]) == [2999]
    assert numbers(found["doubled"]) == [5999]


def test_a_short_last_interval_is_not_judged(marks):
    marks[-1] = marks[-2] + 0.0019
    assert describe_frame_marks(marks).attrs["n_doubled"] == 0


def test_units_are_honoured(marks):
    in_seconds = describe_frame_marks(marks)
    again = describe_frame_marks(1e3 * marks * pq.ms)
    np.testing.assert_allclose(again["interval"][:-1], in_seconds["interval"][:-1], rtol=1e-9)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m[::-1], "earlier than"),
        (lambda m: m - 100, "negative"),
        (lambda m: np.where(np.arange(len(m)) == 7, np.nan, m), "mark 7 is nan"),
        (lambda m: m[:1], "at least two"),
        (lambda m: m * pq.mV, "expected something in s"),
    ],
)
def test_bad_marks_are_refused(marks, change, words):
    with pytest.raises(ValueError, match=words):
        describe_frame_marks(change(marks))


@pytest.mark.data
def test_marks_of_the_real_noise(real_data):
    marks = np.loadtxt(real_data / "ganglion_fullfield_noise" / "frametimes_fullfieldnoise.txt")
    found = describe_frame_marks(marks)
    late = [13410, 18072, 18781, 20073, 20308, 23514, 38876, 44431, 68655, 90991]
    assert numbers(found["late"]) == late
    assert found["lost"].sum() == 0
    assert found["interval"].values[23514] == pytest.approx(21.5e-3, abs=5e-5)
    assert found["interval"].values[18072] == pytest.approx(17.6e-3, abs=5e-5)
    long = [n for n in late if n not in (23514, 18072)]
    assert (
        (found["interval"].values[long] > 0.036) & (found["interval"].values[long] < 0.052)
    ).all()
    # Mark 34799 follows after 0.48 ms, and all later ones are one interval early.
    assert numbers(found["doubled"]) == [34799]
    around = marks[34700:34900]
    assert np.ptp(around) / 0.0133342 == pytest.approx(198, abs=0.05)


def pulses(n=400, seed=0):
    return np.cumsum(np.random.default_rng(seed).uniform(0.4, 1.6, n))


@pytest.mark.parametrize("drift", [0.0, 40e-6, -300e-6, 900e-6])
def test_offset_and_drift_are_found(drift):
    a = pulses()
    b = 321.5 + a * (1 + drift)
    found = align_clocks(a, b)
    assert float(found["drift"]) == pytest.approx(1e6 * drift, abs=1e-3)
    assert float(found["intercept"]) == pytest.approx(321.5, abs=1e-6)
    np.testing.assert_allclose(found["intercept"].item() + found["slope"].item() * a, b, atol=1e-6)
    middle = float(found["offset_time"])
    assert float(found["offset"]) == pytest.approx(321.5 + middle * drift, abs=1e-6)
    assert found["index_a"].values.tolist() == list(range(400))


def test_missing_pulses_outliers_and_jitter():
    rng = np.random.default_rng(5)
    a = pulses(600)
    b = a * (1 - 75e-6) - 3 + rng.normal(0, 2e-4, 600)
    kept_a = np.sort(rng.choice(600, 540, replace=False))
    kept_b = np.sort(rng.choice(600, 480, replace=False))
    b[kept_b[100]] += 0.01
    found = align_clocks(a[kept_a], b[kept_b])
    truth_a, truth_b = kept_a[found["index_a"]], kept_b[found["index_b"]]
    np.testing.assert_array_equal(truth_a, truth_b)
    both = np.intersect1d(kept_a, kept_b).size
    assert both - 5 <= found.sizes["pulse"] <= both
    assert kept_b[100] not in truth_b
    assert abs(float(found["drift"]) + 75) < 4 * float(found["drift_error"])
    assert float(found["drift_error"]) == pytest.approx(
        1e6 * 2e-4 / np.sqrt(((a[truth_a] - a[truth_a].mean()) ** 2).sum()), rel=0.15
    )
    assert float(found["residual_sd"]) == pytest.approx(2e-4, rel=0.15)


def test_errors_are_calibrated():
    rng = np.random.default_rng(11)
    a = pulses(100)
    z = []
    for _ in range(60):
        found = align_clocks(a, a + 1 + rng.normal(0, 1e-3, 100))
        z.append(float(found["drift"] / found["drift_error"]))
    assert 0.75 < np.std(z) < 1.3


def test_regular_pulses_of_equal_number_match_one_to_one():
    a = np.arange(1000) * 0.5
    found = align_clocks(a, a * (1 + 50e-6) + 7)
    assert float(found["drift"]) == pytest.approx(50)
    assert float(found["intercept"]) == pytest.approx(7)


def test_what_cannot_be_matched_is_refused():
    a = np.arange(1000) * 0.5
    with pytest.raises(ValueError, match=r"too regular to tell which"):
        align_clocks(a, a[3:])
    with pytest.raises(ValueError, match=r"not the same pulses"):
        align_clocks(pulses(200, 1), pulses(200, 2))
    with pytest.raises(ValueError, match=r"marks_b: pulse 2 is .* must be finite and ascend"):
        align_clocks(a, [0.0, 2.0, 1.0, 4.0])
    with pytest.raises(ValueError, match=r"marks_a has shape \(2,\); expected at least three"):
        align_clocks(a[:2], a)
    with pytest.raises(ValueError, match=r"tolerance=-1"):
        align_clocks(a, a, tolerance=-1)
