"""``retina-codec demo --quick``: the whole job on a simulated retina."""

import json
import warnings

import numpy as np
import pytest
import xarray as xr

import retina_codec as rc
from retina_codec.cli import main


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "runs" / "demo"
    assert main(["demo", "--quick", "--folder", str(folder), "--progress", "false"]) == 0
    return folder


def test_the_model_sees_more_than_an_untrained_one(run):
    scores = rc.open_tree(run / "evaluation.nc")
    r = {name: scores[name]["pearson_r"].load() for name in ("trained", "untrained")}
    assert float(r["trained"].median()) > float(r["untrained"].median()) + 0.1


def test_contributions_add_up(run):
    for name in ("trained", "untrained"):
        tree = rc.open_contributions(run / "contributions" / f"{name}.zarr")
        change = (tree["target"] - tree["target_baseline"]).load()
        node = tree["layers/relu2"].to_dataset().load()
        summed = node["contribution"].sum(("sign", "channel"))
        np.testing.assert_allclose(
            summed, change + node["completeness_error"], rtol=1e-3, atol=0.02
        )
        assert float(change.std()) > 1  # Hz: the target really changed
        error = np.sqrt((node["completeness_error"] ** 2).mean()) / change.std()
        assert float(error) < 0.1


def test_every_group_opens_by_plain_xarray(run):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for store in (*run.rglob("*.zarr"), *run.rglob("*.nc")):
            engine = "zarr" if store.suffix == ".zarr" else "h5netcdf"
            for group in xr.open_datatree(store, engine=engine).groups:
                xr.open_dataset(store, group=group, engine=engine).close()


def test_modes_are_judged_beside_the_control(run):
    numbers = json.loads((run / "summary.json").read_text())["numbers"]
    for network in ("trained", "untrained"):
        found = numbers["modes"][network]["relu2"]
        assert sum(found["labels"].values()) == 12
        assert found["l0"] <= 2
        assert set(found["auc"]) == {"on_step", "off_step", "motion", "still"}
        low, high = found["purity"][1:]
        assert 0.2 < low <= high <= 1
        of_cells = rc.load_modes(run / "modes" / network / "relu2")
        assert of_cells.loadings.dims == ("time", "cell", "mode")
        # What was shown is asked of modes of all cells together, epoch by epoch.
        population = rc.load_modes(run / "modes" / network / "relu2" / "population")
        assert population.loadings.sizes == {"time": of_cells.loadings.sizes["time"], "mode": 32}
        epochs = rc.open_tree(run / "recording.zarr")["probe"]["epoch"].load()
        told = rc.epoch_selectivity(
            population,
            epochs.sel(time=population.loadings["time"]),
            ignore=["transition", "natural"],
            groups={"motion": ["grating", "bar"]},
            per="epoch",
        )
        for kind, (auc, *_) in found["auc"].items():
            expected = float(told["assigned_auc"].sel(epoch=kind))
            assert auc is None if np.isnan(expected) else abs(auc - expected) < 1e-4
    assert set(numbers["interneurons_median_r_and_null"]) == {"trained", "untrained"}


def test_figures_and_report(run):
    pictures = {path.stem: path for path in (run / "figures").iterdir()}
    assert len(pictures) >= 8
    assert {path.suffix for path in (run / "figures").iterdir()} == {".png", ".svg"}
    page = (run / "report.html").read_text()
    assert page.count("data:image/png;base64") >= 8
    assert "untrained" in page
    assert "AUC, motion" in page
