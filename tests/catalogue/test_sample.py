"""The sample that ships: small, what its facts say, and what its script makes."""

import importlib.util
import warnings

import numpy as np
import pytest
import xarray as xr

import retina_codec as rc
from retina_codec import catalogue

INFO = catalogue.dataset("simulated_sample")
SAMPLE = INFO.place / "sample.nc"


@pytest.fixture(scope="module")
def sample():
    return catalogue.open_dataset("simulated_sample").load()


@pytest.fixture(scope="module")
def script():
    """The script that makes it."""
    place = importlib.util.spec_from_file_location("make_sample", INFO.place / "make.py")
    script = importlib.util.module_from_spec(place)
    place.loader.exec_module(script)
    return script


@pytest.fixture(scope="module")
def made(script):
    """What the script makes now."""
    return script.sample()


def test_it_is_small():
    assert SAMPLE.stat().st_size < 500_000


def test_it_is_what_the_script_makes(sample, made):
    assert set(made.children) == set(sample.children) == {"train", "test"}
    for name in made.children:
        ours, theirs = sample[name].to_dataset(), made[name].to_dataset()
        assert set(ours.variables) == set(theirs.variables)
        # The fingerprint and the version are of the moment; everything else is in the arrays.
        rates = ["true_rate"]
        xr.testing.assert_equal(ours.drop_vars(rates), theirs.drop_vars(rates))
        # Convolutions of another processor round differently.
        np.testing.assert_allclose(ours["true_rate"], theirs["true_rate"], rtol=1e-4, atol=1e-4)


def test_writing_it_loses_nothing(script, made, tmp_path):
    script.write(made, tmp_path / "again.nc")
    again = rc.open_recording(tmp_path / "again.nc").load()
    for name in made.children:
        xr.testing.assert_identical(again[name].to_dataset(), made[name].to_dataset())
    assert again.attrs == made.attrs


def test_its_facts(sample):
    facts = INFO.facts
    train, test = sample["train"], sample["test"]
    assert train["cell"].values.tolist() == facts["cell_types"]
    counted = train["spike_count"].sum("time").values.tolist()
    assert dict(zip(facts["cell_types"], counted, strict=True)) == facts["spikes"]
    assert {"train": train.sizes["time"], "test": test.sizes["time"]} == facts["frames"]
    assert test.sizes["repeat"] == facts["repeats"]
    assert [train.sizes["y"], train.sizes["x"]] == facts["pixels"]
    assert train["time"].attrs["bin_width"] == facts["bin_width"]
    shown = [
        " and ".join(sorted(set(run["epoch"].values.tolist()), reverse=True))
        for _, run in train.to_dataset().groupby("block")
    ]
    assert shown == facts["train_blocks"]


def test_its_cells_are_what_their_names_say(sample):
    train = sample["train"].to_dataset()
    noise = train.isel(time=(train["epoch"] == "noise").values)
    average = rc.spike_triggered_average(noise, history=20).squeeze()
    largest = {
        cell: float(max(average.sel(cell=cell).values.ravel(), key=abs))
        for cell in average["cell"].values.tolist()
    }
    assert largest["on_sustained_1"] > 0 > largest["off_sustained_0"]
    assert largest["on_transient_0"] > 0 > largest["off_transient_0"]
    steps = train.isel(time=(train["block"] == 2).values)["true_rate"].groupby("epoch").mean()
    index = (steps.sel(epoch="on_step") - steps.sel(epoch="off_step")) / steps.sum("epoch")
    assert index.sel(cell="on_sustained_1") > 0.5
    assert index.sel(cell="off_sustained_0") < -0.5
    moving = train.isel(time=(train["epoch"] == "grating").values)["true_rate"]
    by_direction = moving.groupby("direction").mean()
    for cell, preferred in INFO.facts["preferred_directions"].items():
        rates = by_direction.sel(cell=cell)
        opposite = (preferred + 180) % 360
        assert rates.sel(direction=preferred) > 1.5 * rates.sel(direction=opposite)


def test_counts_follow_the_true_rates(sample):
    for name, mean_of in (("train", ()), ("test", ("repeat",))):
        node = sample[name]
        expected = (node["true_rate"] * 0.01).sum("time")
        n = node.sizes.get("repeat", 1)
        counted = node["spike_count"].sum(("time", *mean_of))
        # Poisson: the sum has the variance of its mean.
        z = (counted - n * expected) / np.sqrt(n * expected)
        assert float(abs(z).max()) < 4


def test_every_group_opens_by_plain_xarray():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("train", "test"):
            with xr.open_dataset(SAMPLE, group=name, engine="h5netcdf") as data:
                assert data.load()["stimulus"].attrs["units"] == "1"
                assert data["cell"].values.tolist() == INFO.facts["cell_types"]


def test_its_checksum_is_that_of_the_catalogue():
    import pooch

    (file,) = INFO.files
    assert pooch.file_hash(str(SAMPLE)) == file.sha256
    assert SAMPLE.stat().st_size == file.size
