"""Several stimuli, models and cells: what is said of all together."""

import h5py
import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats
from torch import nn

import retina_codec as rc
from retina_codec.interneurons import compare_models, over_cells, resample_potential
from retina_codec.models import LayerGeometry, from_module

from .conftest import BIN, FRAMES, HISTORY, compare, noise, recorded


def network(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(HISTORY, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2))
    geometry = LayerGeometry((1.0, 1.0))
    return from_module(
        net,
        history=HISTORY,
        bin_width=BIN,
        cells=["a", "b"],
        default_layers=["0"],
        geometry={"0": geometry, "1": geometry},
    )


@pytest.fixture(scope="module")
def two(movie):
    """The two blocks of the movie as stimuli on clocks of their own, and a model of one layer."""
    parts = {}
    for name, block in (("noise", 0), ("bars", 1)):
        part = movie.isel(time=movie["block"].values == block).drop_vars("block")
        clock = rc.time_coordinate(BIN * np.arange(part.sizes["time"]) + 100 * block, BIN)
        parts[name] = part.assign_coords(time=clock)
    model = network(0)
    units = {}
    for name, part in parts.items():
        windows = np.lib.stride_tricks.sliding_window_view(part.values, HISTORY, axis=0)
        with torch.no_grad():
            inputs = torch.as_tensor(np.moveaxis(windows, -1, 1).copy()).float()
            units[name] = model.network.module[0](inputs).numpy()
    return model, parts, units


def on(part, trace, labels=("b1", "a1")):
    values = np.full((part.sizes["time"], trace.shape[1]), 99.0)
    values[HISTORY - 1 :] = trace
    return xr.DataArray(
        values,
        dims=("time", "interneuron"),
        coords={"time": part["time"], "interneuron": list(labels)},
    )


def halves_of(n):
    half = (n - HISTORY) // 2
    return slice(0, half), slice(n - half, n)


def test_two_stimuli(two):
    model, parts, units = two
    rng = np.random.default_rng(1)
    potential = {
        name: on(parts[name], u[:, [2, 0], [1, 3], [3, 0]] + 0.5 * rng.standard_normal((len(u), 2)))
        for name, u in units.items()
    }
    # The order of the interneurons is no matter.
    potential["bars"] = potential["bars"].isel(interneuron=[1, 0])
    tree = compare(model, parts, potential, n_shifts=20)
    root, each = tree.to_dataset(), tree["stimuli"].to_dataset()
    assert list(root["best_channel"].values) == [2, 0]
    assert list(root["best_y"].values) == [2, 4]
    assert (root["p_value"] == 1 / 21).all()
    assert list(each["stimulus"].values) == ["noise", "bars"]
    assert each["best_r"].dims == ("stimulus", "interneuron")
    assert (each["best_channel"] == root["best_channel"]).all()
    assert (each["others_p_value"] == 1 / 21).all()
    weights = {name: len(u) for name, u in units.items()}
    correlation = tree["layers/0"]["correlation_by_stimulus"]
    assert correlation.dims == ("stimulus", "interneuron", "channel", "y", "x")
    for label, (c, y, x) in (("b1", (2, 1, 3)), ("a1", (0, 3, 0))):
        r, by_half = {}, {0: 0.0, 1: 0.0}
        for name, u in units.items():
            trace, unit = potential[name].sel(interneuron=label)[HISTORY - 1 :], u[:, c, y, x]
            r[name] = stats.pearsonr(trace, unit).statistic
            got = correlation.sel(stimulus=name, interneuron=label).values[c, y, x]
            assert got == pytest.approx(r[name], abs=1e-5)
            halves = [stats.pearsonr(trace[h], unit[h]).statistic for h in halves_of(len(u))]
            for half in (0, 1):
                by_half[half] += halves[half] * weights[name] / sum(weights.values())
            one = each.sel(stimulus=name, interneuron=label)
            assert float(one["best_r"]) == pytest.approx(np.mean(halves), abs=1e-5)
            assert float(one["uncorrected_r"]) == pytest.approx(r[name], abs=1e-5)
            # The same unit is chosen on either stimulus, and scored on the other.
            other = each.sel(interneuron=label).drop_sel(stimulus=name)
            assert float(other["others_r"].squeeze()) == pytest.approx(np.mean(halves), abs=1e-5)
        mean = sum(r[name] * weights[name] for name in r) / sum(weights.values())
        one = root.sel(interneuron=label)
        assert float(one["uncorrected_r"]) == pytest.approx(mean, abs=1e-5)
        assert float(one["best_r"]) == pytest.approx(np.mean(list(by_half.values())), abs=1e-5)


def test_what_holds_under_one_stimulus_only_does_not_carry_over(two):
    model, parts, units = two
    rng = np.random.default_rng(2)
    potential = {
        "noise": on(parts["noise"], units["noise"][:, [1, 1], [0, 2], [0, 2]]),
        "bars": on(parts["bars"], rng.standard_normal((len(units["bars"]), 2))),
    }
    tree = compare(model, parts, potential, n_shifts=20)
    assert (tree["stimuli/best_r"].sel(stimulus="noise") > 0.99).all()
    assert (tree["stimuli/others_r"].sel(stimulus="noise") < 0.3).all()


def test_one_stimulus_in_a_mapping_is_the_same_as_alone(two):
    model, parts, units = two
    potential = on(parts["bars"], units["bars"][:, [0, 1], [0, 2], [0, 2]])
    alone = compare(model, parts["bars"], potential)
    node = xr.Dataset({"stimulus": parts["bars"], "potential": potential})
    recording = xr.DataTree.from_dict({"/train": node, "/spikes": xr.Dataset()})
    for given in (
        compare(model, {"bars": parts["bars"]}, {"bars": potential}),
        compare(model, recording),
        compare(model, node),
        compare(model, node.rename(potential="release"), "release"),
    ):
        xr.testing.assert_equal(given.to_dataset(), alone.to_dataset())
        assert "stimuli" not in given.children


def test_a_file_of_the_baccus_laboratory(tmp_path):
    """Four stimuli on clocks of their own, on one screen; a unit is planted in all of them."""
    rng = np.random.default_rng(0)
    n = 1100
    stimuli = {
        "boxes": rng.integers(0, 2, (n, 38, 38)).astype(np.uint8),
        "lines": rng.standard_normal((n, 100)).astype(np.float32),
        "flashes": rng.standard_normal(n).astype(np.float32),
        "movingbar": rng.standard_normal((n // 5, 300)).astype(np.float32),
    }
    path = tmp_path / "bipolar.h5"
    traces: dict[str, np.ndarray] = {}
    for planted in (False, True):
        with h5py.File(path, "w") as file:
            for name, movie in stimuli.items():
                file[f"{name}/stimuli"] = movie
                values = rng.standard_normal((2, n))
                if planted:  # in the second round, when it is known how the model sees the file
                    values[1, HISTORY - 1 :] += 2 * traces[name]
                file[f"{name}/detrended_membrane_potential"] = values
        recording = rc.open_recording(path, format="baccus_interneurons")
        if not planted:
            torch.manual_seed(3)
            net = nn.Sequential(nn.Conv2d(HISTORY, 2, 15, 5), nn.Flatten(), nn.Linear(128, 1))
            model = from_module(
                net,
                history=HISTORY,
                bin_width=0.01,
                cells=["a"],
                default_layers=["0"],
                geometry={"0": LayerGeometry((7.0, 7.0), 5.0)},
            )
            for name in stimuli:
                shown = recording[name]["stimulus"].values
                windows = np.lib.stride_tricks.sliding_window_view(shown, HISTORY, axis=0)
                with torch.no_grad():
                    inputs = torch.as_tensor(np.moveaxis(windows, -1, 1).copy()).float()
                    unit = net[0](inputs)[:, 1, 4, 3].numpy()
                traces[name] = unit / unit.std()
    tree = compare(model, recording, n_shifts=20)
    found = tree.to_dataset().sel(interneuron="1")
    assert (found["best_channel"], found["best_y"], found["best_x"]) == (1, 27, 22)
    assert found["best_r"] > 0.8
    assert found["p_value"] == 1 / 21
    assert list(tree["stimuli"]["stimulus"].values) == list(stimuli)
    assert (tree["stimuli/best_r"].sel(interneuron="1") > 0.8).all()
    assert (tree["best_r"].sel(interneuron="0") < 0.2).all()
    assert abs(found["centre_y"] - 27) < 8
    assert abs(found["centre_x"] - 22) < 8


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda s, p: (s, p["bars"]), TypeError, "give both as mappings"),
        (lambda s, p: (s, {"bars": p["bars"]}), ValueError, "do not both have noise"),
        (lambda s, p: ({}, {}), ValueError, "stimulus is empty"),
        (
            lambda s, p: (s, {**p, "bars": p["bars"].isel(interneuron=[0])}),
            ValueError,
            r"only in one of them: a1",
        ),
        (
            lambda s, p: (s, {**p, "bars": p["noise"]}),
            ValueError,
            "stimulus 'bars': potential has no value at .*resample_potential",
        ),
        (
            lambda s, p: ({**s, "bars": s["bars"].assign_coords(y=np.arange(6) + 1)}, p),
            ValueError,
            "other coordinates 'y'",
        ),
        (lambda s, p: ({**s, "bars": s["bars"].values}, p), TypeError, r"stimulus\['bars'\] is a"),
        (
            lambda s, p: (xr.Dataset({"stimulus": s["bars"]}), "potential"),
            ValueError,
            "no node of the recording holds both",
        ),
        (lambda s, p: (xr.Dataset(), p["bars"]), TypeError, "the name of one of its variables"),
    ],
)
def test_refuses_stimuli_that_do_not_belong_together(two, change, error, message):
    model, parts, units = two
    potential = {name: on(parts[name], u[:, [0, 1], [0, 2], [0, 2]]) for name, u in units.items()}
    with pytest.raises(error, match=message):
        compare(model, *change(parts, potential))


def test_duplicates_are_named_and_count_once(model, movie, activation):
    traces = activation[0]["0"][:, [0, 1, 2], 1, 2]
    values = np.concatenate([traces, 3 * traces[:, [0]] - 5, traces[:, [1]]], axis=1)
    values += 1e-4 * np.random.default_rng(0).standard_normal(values.shape)
    potential = recorded(activation, movie, values).assign_coords(
        interneuron=["a", "b", "c", "d", "e"], type=("interneuron", ["x", "x", "y", "x", "x"])
    )
    with pytest.warns(UserWarning, match=r"duplicates of others .* d of a, e of b;"):
        tree = compare(model, movie, potential, layers="0")
    assert list(tree["duplicate_of"].values) == ["", "", "", "a", "b"]
    counted = tree["over_cells"].sel(score="best", against="shifted recordings")["n_cells"]
    assert {str(kind): int(n) for kind, n in zip(counted["type"], counted, strict=True)}
    assert [int(counted.sel(type=kind)) for kind in ("all", "x", "y")] == [3, 2, 1]
    assert list(np.isnan(tree["q_value"].values)) == [False] * 3 + [True] * 2


def test_controls_and_types(model, movie, activation, recwarn):
    layers = activation[0]["0"]
    traces = np.concatenate([layers[:, :, 1, 1], layers[:, :, 2, 3], layers[:, :, 0, 2]], axis=1)
    traces = np.stack(list(traces.T), axis=1)
    potential = recorded(activation, movie, traces) + 0.1 * noise(movie, 9)
    types = ["bipolar"] * 5 + ["amacrine"] * 4
    potential = potential.assign_coords(interneuron_type=("interneuron", types))
    controls = {"untrained": network(7), "shifted": network(8)}
    tree = compare(model, movie, potential, controls=controls, layers=["0", "1"])
    root = tree.to_dataset()
    assert root["control_best_r"].dims == ("control", "interneuron")
    assert list(root["control"].values) == ["untrained", "shifted"]
    alone = compare(controls["shifted"], movie, potential, layers=["0", "1"])
    for score in ("best", "matched", "combined"):
        np.testing.assert_allclose(
            root[f"control_{score}_r"].sel(control="shifted"), alone[f"{score}_r"], atol=1e-6
        )
    table = tree["over_cells"].to_dataset(inherit=False)
    assert list(table["type"].values) == ["all", "bipolar", "amacrine"]
    assert list(table["against"].values) == ["shifted recordings", "untrained", "shifted"]
    for kind, chosen in (("all", slice(None)), ("bipolar", slice(5)), ("amacrine", slice(5, 9))):
        for against, other in (
            ("shifted recordings", root["null_r"]),
            ("untrained", root["control_best_r"].sel(control="untrained")),
        ):
            one = table.sel(score="best", against=against, type=kind)
            a, b = root["best_r"].values[chosen], other.values[chosen]
            expected = stats.wilcoxon(a, b, alternative="greater").pvalue
            assert float(one["p_value"]) == pytest.approx(expected)
            assert float(one["median_difference"]) == pytest.approx(np.median(a - b))
            assert one["n_cells"] == len(a)
    # Benjamini and Hochberg, by hand.
    p = np.sort(root["p_value"].values)
    adjusted = np.minimum.accumulate((p * 9 / np.arange(1, 10))[::-1])[::-1]
    np.testing.assert_allclose(np.sort(root["q_value"].values), np.minimum(adjusted, 1))
    by = over_cells(
        tree.to_dataset().assign_coords(eye=("interneuron", ["l", "r", "l"] * 3)), by="eye"
    )
    assert list(by["n_cells"].sel(score="best", against="untrained").values) == [9, 6, 3]
    with pytest.raises(ValueError, match="by='eyes' is no coordinate"):
        over_cells(tree, by="eyes")
    with pytest.raises(TypeError, match="comparison is a int"):
        over_cells(3)
    with pytest.raises(ValueError, match="no 'best_r'"):
        over_cells(xr.Dataset())


def test_several_models_in_one_table(two):
    model, parts, units = two
    potential = {name: on(parts[name], u[:, [0, 1], [0, 2], [0, 2]]) for name, u in units.items()}
    models = {"trained": model, "other": network(5)}
    controls = {"untrained": network(6)}
    options = {"n_shifts": 10, "progress": False}
    table = compare_models(models, parts, potential, controls=controls, **options)
    assert table["best_r"].dims == ("model", "interneuron")
    assert table["control_best_r"].dims == ("control", "interneuron")
    assert table["over_cells/p_value"].dims == ("model", "score", "against", "type")
    assert (table["best_r"].sel(model="trained") > 0.99).all()
    assert (table["best_r"].sel(model="other") < 0.9).all()
    for name, one in models.items():
        alone = compare(one, parts, potential, controls=controls, n_shifts=10)
        for node in ("", "/stimuli", "/layers/0"):
            xr.testing.assert_equal(
                table[f"models/{name}{node}"].to_dataset().drop_dims("model"),
                alone[node or "/"].to_dataset(),
            )
        np.testing.assert_array_equal(table["best_r"].sel(model=name), alone["best_r"])
        assert table["model_fingerprint"].sel(model=name) == one.fingerprint
    with pytest.raises(TypeError, match="models is a RetinaModel"):
        compare_models(model, parts, potential)
    with pytest.raises(ValueError, match="models is empty"):
        compare_models({}, parts, potential)
    with pytest.raises(TypeError, match=r"models\['b'\] is a int"):
        compare_models({"a": model, "b": 3}, parts, potential, **options)
    with pytest.raises(TypeError, match=r"model is a dict; .* for several, .*compare_models"):
        compare(models, parts, potential)


def test_models_with_named_and_with_numbered_channels_fit_one_file(tmp_path):
    noise_movie = rc.stimuli.white_noise(n_frames=1200, shape=(12, 12), seed=0)
    recording = rc.simulate_retina(noise_movie, "default")
    circuit = rc.simulation.circuit("default", movie=noise_movie)
    cnn = rc.models.BNCNN(
        (12, 12), history=40, bin_width=0.01, cells=circuit.outputs.tolist(), channels=(2, 2),
        kernel_sizes=(5, 4),
    )  # fmt: skip
    potential = recording["train"]["potential"][:, [0, 6, 20]]
    table = compare_models(
        {"cnn": cnn, "circuit": circuit}, noise_movie, potential, n_shifts=2, layers=None,
        centres="none", progress=False,
    )  # fmt: skip
    assert table["best_channel"].dtype.kind == "U"
    assert set(table["best_channel"].sel(model="cnn").values) <= {"0", "1"}
    rc.save_tree(table, tmp_path / "both.nc")
    opened = rc.open_tree(tmp_path / "both.nc")
    xr.testing.assert_equal(opened["best_channel"].load(), table["best_channel"])


class TestResampling:
    def fine(self, movie, step=0.004, start=0.0):
        times = start + step * np.arange(round(FRAMES * BIN / step) + 1)
        values = np.stack([np.sin(times), times], axis=1)
        return xr.DataArray(
            values,
            dims=("time", "interneuron"),
            coords={"time": times, "interneuron": ["a", "b"]},
            attrs={"units": "mV"},
        )

    def movie(self, movie):
        clock = rc.time_coordinate(BIN * np.arange(FRAMES), BIN)
        return movie.drop_vars("block").assign_coords(time=clock)

    def test_means_in_bins_make_it_fit(self, model, movie):
        movie = self.movie(movie)
        fine = self.fine(movie)
        binned = resample_potential(fine, movie)
        assert binned.attrs["units"] == "mV"
        np.testing.assert_array_equal(binned["time"], movie["time"])
        for k in (0, 1, 700, FRAMES - 1):
            inside = fine.values[5 * k : 5 * k + 5].mean(0)
            np.testing.assert_allclose(binned.values[k], inside, atol=1e-9)
        with pytest.raises(ValueError, match="resample_potential"):
            compare(model, movie, self.fine(movie, start=0.001))
        compare(model, movie, binned, n_shifts=2, layers="3")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda p: p.isel(time=slice(None, None, 20)), "no sample in .* interpolate"),
            (lambda p: p.isel(time=slice(None, None, -1)), "time goes back"),
            (lambda p: p.drop_vars("time"), "no coordinate 'time'"),
            (lambda p: p.where(p["time"] > 1), "NaN"),
            (lambda p: p.rename(interneuron="cell"), "rename"),
        ],
    )
    def test_refuses(self, movie, change, message):
        movie = self.movie(movie)
        with pytest.raises(ValueError, match=message):
            resample_potential(change(self.fine(movie)), movie)
