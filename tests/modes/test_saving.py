"""Modes come back from a folder bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from retina_codec.modes import fit_modes, load_modes

QUICK = {"n_modes": 6, "max_epochs": 5, "progress": False}


def assert_same(modes, loaded, contribution):
    for name in ("dictionary", "loadings", "offset"):
        xr.testing.assert_identical(getattr(modes, name), getattr(loaded, name))
        assert getattr(modes, name).dtype == getattr(loaded, name).dtype
    xr.testing.assert_identical(modes.score(), loaded.score())
    xr.testing.assert_identical(modes.transform(contribution), loaded.transform(contribution))
    assert modes.attrs == loaded.attrs
    assert repr(modes) == repr(loaded)


@pytest.mark.parametrize("autoencoder", ["topk", "pca", "nmf"])
def test_round_trip(contribution, tmp_path, autoencoder):
    modes = fit_modes(contribution, autoencoder=autoencoder, **QUICK)
    loaded = load_modes(modes.save(tmp_path / "modes"))
    assert_same(modes, loaded, contribution)
    xr.testing.assert_identical(modes.reconstruct(), loaded.reconstruct())
    assert loaded.loadings["time"].attrs["bin_width"] == 0.01
    assert sorted(p.name for p in (tmp_path / "modes").iterdir()) == [
        "autoencoder.safetensors",
        "modes.nc",
    ]


def test_round_trip_of_layers_without_labels(tmp_path):
    rng = np.random.default_rng(0)
    layers = {
        "layer2.0": xr.DataArray(rng.normal(size=(200, 3)), dims=("image", "channel")),
        "layer1.1": xr.DataArray(
            rng.normal(size=(5, 200)), dims=("channel", "image"), attrs={"a": [1]}
        ),
    }
    modes = fit_modes(layers, features="channel", **QUICK)
    loaded = load_modes(modes.save(tmp_path / "modes"))
    assert_same(modes, loaded, layers)
    assert list(loaded.reconstruct()) == ["layer2.0", "layer1.1"]
    for name, array in modes.reconstruct().items():
        xr.testing.assert_identical(array, loaded.reconstruct()[name])


def test_saving_replaces_modes_only(contribution, tmp_path):
    first = fit_modes(contribution, **QUICK)
    second = fit_modes(contribution, **{**QUICK, "seed": 1})
    first.save(tmp_path / "modes")
    second.save(tmp_path / "modes")
    xr.testing.assert_identical(load_modes(tmp_path / "modes").loadings, second.loadings)
    (tmp_path / "thesis").mkdir()
    with pytest.raises(ValueError, match="exists and holds no modes"):
        first.save(tmp_path / "thesis")
    with pytest.raises(FileNotFoundError, match="has no modes"):
        load_modes(tmp_path / "thesis")
