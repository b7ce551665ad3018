"""Modes of images, which have no order and are often sorted by category."""

import numpy as np
import pytest
import xarray as xr

from retina_codec.modes import fit_modes, stability
from retina_codec.modes.surrogates import phase_shuffled

N, CATEGORIES = 200, 4


@pytest.fixture(scope="module")
def by_category():
    """Each category has a channel of its own, which is 0 in all others; sorted by category."""
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(CATEGORIES), N // CATEGORIES)
    values = (1 + rng.random((N, 1))) * np.eye(CATEGORIES)[label]
    return xr.DataArray(
        values.astype(np.float32),
        dims=("image", "channel"),
        coords={"image": np.arange(N), "label": ("image", label)},
    )


@pytest.mark.parametrize("autoencoder", ["topk", "pca"])
def test_no_category_is_taken_out_of_the_fit(by_category, autoencoder):
    options = {"features": "channel", "n_modes": 4, "progress": False, "max_epochs": 5}
    modes = fit_modes(by_category, autoencoder=autoencoder, validation_fraction=0.2, **options)
    held_out, aside = (modes.score()[name].values for name in ("held_out", "aside"))
    assert held_out.sum() == 40
    assert aside.sum() == (20 if autoencoder == "topk" else 0)
    assert not (held_out & aside).any()
    for marked, n in ((held_out, 10), (aside, 5 if aside.any() else 0)):
        counts = np.bincount(by_category["label"].values[marked], minlength=CATEGORIES)
        assert abs(counts - n).max() <= 1
    # Single images at places of their own: ten stretches would have 20 edges.
    assert np.count_nonzero(np.diff(held_out.astype(int))) > 50
    assert len(np.unique(np.flatnonzero(held_out) % 5)) == 5
    other = fit_modes(by_category, seed=1, validation_fraction=0.2, **options)
    assert (other.score()["held_out"].values != held_out).any()


def test_halves_have_every_category(by_category):
    """By position, each half would lack two of the four categories, and with them their modes."""
    found = stability(
        by_category, seeds=(0, 1), controls=(), features="channel", n_modes=4, k=1,
        max_epochs=20, progress=False,
    )  # fmt: skip
    assert float(found["half_cosine"].min()) > 0.99


def test_shuffled_columns_keep_their_values(by_category):
    twice = xr.concat([by_category, by_category], dim="channel")
    shuffled = phase_shuffled(twice, features=("channel",), seed=0)["contribution"]
    np.testing.assert_allclose(np.sort(shuffled.values, 0), np.sort(twice.values, 0), rtol=1e-6)
    r = np.corrcoef(shuffled.values.T)[:4, 4:]
    assert np.abs(np.diag(r)).max() < 0.3  # 1 before
