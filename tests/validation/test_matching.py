"""What is computed from covariances, against the same from the numbers themselves."""

import numpy as np
import pytest
import xarray as xr

from retina_codec._common.time import block_coordinate, time_coordinate
from retina_codec.validation.halves import Halves
from retina_codec.validation.matching import (
    best_matches,
    correlations,
    linear_cka,
    without_rates,
)
from retina_codec.validation.moments import Covariance, CrossCovariance, pooled

N = 4000


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def covariance(values):
    return np.cov(values, rowvar=False, bias=True)


def gathered(values, size=700):
    moments = Covariance(values.shape[1:])
    for start in range(0, len(values), size):
        moments.add(values[start : start + size])
    return moments


def test_covariances_are_numpys_however_time_is_cut(rng):
    values = rng.normal(size=(N, 2, 4)) * [1, 3, 0.1, 2] + [0, 1e4, 5, -3]
    moments = gathered(values)
    for cell in range(2):
        np.testing.assert_allclose(moments.matrix()[cell], covariance(values[:, cell]), atol=1e-9)
    np.testing.assert_allclose(moments.mean(), values.mean(0))
    parts = gathered(values[:1500]), gathered(values[1500:] + 2.0)
    values[1500:] += 2.0
    np.testing.assert_allclose(pooled(parts)[1], covariance(values[:, 1]), atol=1e-9)


def test_cross_covariances_are_numpys(rng):
    columns = rng.normal(size=(N, 3)) + 7
    units = columns @ rng.normal(size=(3, 5)) + rng.normal(size=(N, 5)) - 1e3
    moments = CrossCovariance(5, 3)
    for start in range(0, N, 900):
        moments.add(units[start : start + 900], columns[start : start + 900])
    whole = covariance(np.hstack([units, columns]))
    np.testing.assert_allclose(moments.matrix(), whole[:5, 5:], atol=1e-9)
    np.testing.assert_allclose(moments.variance(), np.diag(whole)[:5], atol=1e-9)
    np.testing.assert_allclose(moments.level(), units.mean(0) ** 2)


@pytest.mark.parametrize("rates", [[0], [0, 1]])
def test_rates_are_removed_as_by_a_regression_on_the_first_half(rng, rates):
    """Literally: least squares with an intercept on A, what is left correlated on B."""
    values = rng.normal(size=(N, 5)) @ rng.normal(size=(5, 5)) + 3
    values[N // 2 :] += values[N // 2 :, :1] * 0.4  # the two halves are not alike
    halves = values[: N // 2], values[N // 2 :]
    design = [np.c_[np.ones(N // 2), half[:, rates]] for half in halves]
    b = np.linalg.lstsq(design[0], halves[0], rcond=None)[0]
    expected = covariance(halves[1] - design[1] @ b)
    found = without_rates(covariance(halves[0]), covariance(halves[1]), rates)
    np.testing.assert_allclose(found[2:, 2:], expected[2:, 2:], atol=1e-9)


def test_two_rates_that_are_one_are_removed_as_one(rng):
    rate = rng.normal(size=N)
    values = np.c_[rate, rate + 1e-9 * rng.normal(size=N), rng.normal(size=(N, 2)) + rate[:, None]]
    one, two = (without_rates(covariance(values), covariance(values), r) for r in ([0], [0, 1]))
    np.testing.assert_allclose(two[2:, 2:], one[2:, 2:], atol=1e-6)


def test_a_constant_rate_removes_nothing(rng):
    values = np.c_[np.full(N, 2.0), rng.normal(size=(N, 2))]
    c = covariance(values)
    np.testing.assert_allclose(without_rates(c, c, [0])[1:, 1:], c[1:, 1:])


def test_what_shares_only_the_rate_is_not_recovered(rng):
    rate = rng.gamma(1, 1, N)
    feature, truth = rate + 0.3 * rng.normal(size=N), rate + 0.3 * rng.normal(size=N)
    values = np.c_[rate, feature, truth]
    whole = covariance(values)
    left = without_rates(whole, whole, [0])
    before, after = (
        correlations(c[1:2, 2:], (c[1:2, 1], c[2:, 2]), (whole[1:2, 1], whole[2:, 2]))
        for c in (whole, left)
    )
    assert before.item() > 0.85
    assert abs(after.item()) < 4 / np.sqrt(N)


def test_what_is_nothing_but_the_rate_has_no_correlation_left(rng):
    rate = rng.normal(size=N)
    values = np.c_[rate, 3 * rate + 1, rng.normal(size=N)]
    whole = covariance(values)
    left = without_rates(whole, whole, [0])
    r = correlations(left[1:2, 2:], (left[1:2, 1], left[2:, 2]), (whole[1:2, 1], whole[2:, 2]))
    assert np.isnan(r).all()


def test_the_choice_is_made_on_the_first_half_alone():
    first = np.array([[0.9, np.nan], [0.5, -0.6], [-0.95, 0.2], [np.nan, np.nan]])
    second = np.array([[0.1, 0.9], [0.8, -0.5], [0.3, 0.9], [1.0, 1.0]])
    best = best_matches(first, second, either_sign=True)
    # The third is the strongest on A, and has the other sign on B.
    np.testing.assert_array_equal(best.place, [2, 1])
    np.testing.assert_array_equal(best.polarity, [-1, -1])
    np.testing.assert_allclose(best.r, [-0.3, 0.5])
    one_sign = best_matches(first, second)
    np.testing.assert_array_equal(one_sign.place, [0, 2])
    np.testing.assert_allclose(one_sign.r, [0.1, 0.9])
    none = best_matches(np.full((2, 1), np.nan), second[:2, :1])
    assert np.isnan(none.r).all()
    assert none.place.tolist() == [-1]


def test_cka_is_that_of_centred_gram_matrices(rng):
    x = rng.normal(size=(60, 4)) * [1, 2, 3, 0.1] + 5
    y = x[:, :2] @ rng.normal(size=(2, 3)) + rng.normal(size=(60, 3))
    centre = np.eye(60) - np.full((60, 60), 1 / 60)
    k, m = (centre @ v @ v.T @ centre for v in (x, y))
    expected = np.sum(k * m) / np.sqrt(np.sum(k * k) * np.sum(m * m))
    maps = np.eye(7)[:, :4], np.eye(7)[:, 4:]
    joint = covariance(np.hstack([x, y]))
    assert linear_cka(joint, *maps) == pytest.approx(expected, rel=1e-12)
    turned = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    joint = covariance(np.hstack([x @ turned * 3 - 1, y]))
    assert linear_cka(joint, *maps) == pytest.approx(expected, rel=1e-9)
    assert linear_cka(joint, maps[0], maps[0]) == pytest.approx(1)
    assert np.isnan(linear_cka(np.zeros((7, 7)), *maps))


def test_halves_share_no_frame_and_stretches_cross_no_edge():
    block = np.repeat([0, 1, 2], [50, 20, 90])
    movie = xr.DataArray(
        np.zeros((160, 1, 1)),
        dims=("time", "y", "x"),
        coords={
            "time": time_coordinate(0.01 * np.arange(160) + block, 0.01),
            "block": block_coordinate(block),
        },
    )
    halves = Halves.of(movie, 10, "movie")
    kept = [t for t in range(160) if t - 9 >= {0: 0, 1: 50, 2: 70}[block[t]]]
    length = (len(kept) - 10) // 2
    assert halves.frames.tolist() == kept[:length] + kept[-length:]
    seen = []
    for stretch in halves.stretches(16):
        frames = list(range(stretch.frames.start, stretch.frames.stop))
        assert len(frames) <= 16
        assert halves.frames[stretch.rows].tolist() == frames
        shown = halves.shown(stretch, 10)
        assert len(set(shown["block"].values)) == 1
        assert shown.sizes["time"] == len(frames) + 9
        assert (stretch.rows.stop <= length) if stretch.half == 0 else stretch.rows.start >= length
        seen += frames
    assert seen == halves.frames.tolist()
    # No frame is seen from both halves.
    assert kept[-length] - 9 > kept[length - 1]


def test_too_short_is_said():
    time = time_coordinate(0.01 * np.arange(50), 0.01)
    movie = xr.DataArray(np.zeros((50, 1, 1)), dims=("time", "y", "x"), coords={"time": time})
    assert len(Halves.of(movie, 10, "clip")) == 30
    with pytest.raises(ValueError, match=r"clip has 21 frames with a whole history.*at least 30"):
        Halves.of(movie.isel(time=slice(0, 30)), 10, "clip")
