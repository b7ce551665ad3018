"""Matching finds a permutation; refits of planted modes agree."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from retina_codec.modes import match_modes, stability


def dictionary(rows, channel=None):
    coords = {} if channel is None else {"channel": channel}
    return xr.DataArray(rows, dims=("mode", "channel"), coords=coords)


def test_permutation_is_found():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(7, 10))
    order = rng.permutation(7)
    matched = match_modes(
        dictionary(rows), dictionary(3 * rows[order]).transpose("channel", "mode")
    )
    np.testing.assert_array_equal(order[matched["matched"].values], np.arange(7))
    np.testing.assert_allclose(matched["cosine"], 1)


def test_pairing_is_the_best_on_the_whole_and_keeps_signs():
    a = dictionary([[1.0, 0.0], [0.8, 0.6]])
    b = dictionary([[0.8, 0.6], [0.0, -1.0]])
    matched = match_modes(a, b)
    # 1.0 * (-0.0) + 1.0 beats 0.8 - 0.6
    np.testing.assert_array_equal(matched["matched"], [1, 0])
    np.testing.assert_allclose(matched["cosine"], [0, 1], atol=1e-12)
    left_over = match_modes(dictionary(np.eye(3)), dictionary(np.eye(3)[:2]))
    np.testing.assert_array_equal(left_over["matched"], [0, 1, -1])
    assert np.isnan(left_over["cosine"][2])


def test_bad_input_is_named(contribution):
    a = dictionary(np.eye(3), channel=[0, 1, 2])
    with pytest.raises(ValueError, match="a and b have different columns"):
        match_modes(a, dictionary(np.eye(3), channel=[0, 1, 3]))
    with pytest.raises(ValueError, match="fit both with the same features"):
        match_modes(a, a.rename(channel="unit"))
    with pytest.raises(TypeError, match="b is a ndarray; expected Modes"):
        match_modes(a, np.eye(3))
    with pytest.raises(ValueError, match="expected one named 'mode'"):
        match_modes(a.rename(mode="atom"), a)
    for seeds in ((0,), (0, 0)):
        with pytest.raises(ValueError, match="expected at least two, all different"):
            stability(contribution, seeds=seeds)
