"""The circuit against itself, a network against a literal computation, and bad input."""

import copy
from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
import torch
import xarray as xr

import retina_codec as rc
from retina_codec import simulation, stimuli
from retina_codec._common.files import open_tree, save_tree
from retina_codec._common.time import whole_history
from retina_codec.models import BNCNN
from retina_codec.models.model import RetinaModel
from retina_codec.simulation.specification import read_specification

STEPS = rc.methods.IntegratedGradients(steps=8)
SHAPE = (14, 14)


def part_of(*kinds):
    """Return the default circuit with some of its ganglion types only."""
    whole = read_specification("default")
    return replace(whole, ganglion={kind: whole.ganglion[kind] for kind in kinds})


@pytest.fixture(scope="module")
def specification():
    return part_of("on_off", "on_sustained")


@pytest.fixture(scope="module")
def truth(specification):
    test = stimuli.concatenate(
        [stimuli.white_noise(n_frames=n, shape=SHAPE, seed=n) for n in (150, 130)]
    )
    noise = stimuli.white_noise(n_frames=400, shape=SHAPE, seed=3)
    return rc.simulate_retina({"test": test, "noise": noise}, specification)


@pytest.fixture(scope="module")
def circuit(specification, truth):
    return simulation.circuit(specification, movie=truth["test"]["stimulus"])


def network(cells, seed=0):
    """Return an untrained CNN, its batch norms fed with something."""
    model = BNCNN(
        SHAPE, history=40, bin_width=0.01, cells=cells, channels=(3, 2), kernel_sizes=(5, 4),
        seed=seed,
    )  # fmt: skip
    torch.manual_seed(seed)
    for module in model.network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.weight.data.uniform_(0.5, 2)
            module.bias.data.normal_(0, 0.3)
    return model


@pytest.fixture(scope="module")
def untrained(truth):
    return network(truth["test"]["cell"].values.tolist())


@pytest.fixture(scope="module")
def found(truth, circuit, untrained, specification):
    return rc.benchmark_recovery(
        {"itself": circuit, "untrained": untrained}, truth, circuit=specification, progress=False
    )


def corr(a, b):
    return np.corrcoef(a, b)[0, 1]


class TestTheCircuitAgainstItself:
    def test_rates_and_contributions_are_found(self, found):
        assert found["prediction"]["r"].sel(model="itself").min() > 1 - 1e-6
        r = found["contributions"].to_dataset()["r"].sel(model="itself", features="contribution")
        feature = found["contributions"]["share"] >= 0.01
        left = found["contributions"]["variance_left"] >= 0.05
        for removed, expected in (("nothing", feature), ("both", feature & left)):
            of_kind = r.sel(removed=removed)
            np.testing.assert_array_equal(np.isfinite(of_kind), expected)
            assert of_kind.min() > 0.999
        # Cells of one type of input have a contribution that is their rate.
        sustained = found["contributions"]["cell_type"] == "on_sustained"
        assert not (feature & left).sel(cell=sustained).any()
        assert feature.sel(cell=sustained).any()
        assert (feature & left).sel(cell=~sustained).any("true_channel").all()

    def test_the_matches_are_the_channels_themselves(self, found):
        data = found["contributions"].to_dataset().sel(model="itself", features="contribution")
        data = data.sel(removed="nothing").isel(cell=0)
        for cut, channel, part, name, r in zip(
            data["cut"].values, data["channel"].values, data["best_part"].values,
            data["best_channel"].values, data["r"].values, strict=True,
        ):  # fmt: skip
            assert (name, part) == (("", "") if np.isnan(r) else (channel, part))
            assert cut in ("bipolar", "ganglion_input")

    def test_cka_is_one_at_its_own_cut(self, found):
        data = found["similarity"].to_dataset().sel(model="itself")
        known = data["variance_left"] >= 0.05
        for removed in ("nothing", "predicted", "both"):
            of_kind = data.sel(removed=removed)
            expected = xr.ones_like(known) if removed == "nothing" else known
            assert (np.isfinite(of_kind["cka"]) == expected).all()
            assert of_kind["cka"].min() > 0.998
        for cut in ("bipolar", "ganglion_input"):
            own = data["layer_cka"].sel(cut=cut, layer=cut, removed="nothing")
            np.testing.assert_allclose(own, 1, atol=1e-6)
        # A network's layers are not the circuit's.
        assert data["layer_cka"].sel(layer=["relu1", "relu2"]).isnull().all()

    def test_releases_are_units_at_their_places(self, found, truth):
        data = found["interneurons"].to_dataset().sel(model="itself", signal="release")
        known = np.isfinite(data["r"].values)
        assert known.any()
        assert data["r"].values[known].min() > 0.999
        for axis in ("y", "x"):
            np.testing.assert_allclose(
                data[f"best_{axis}"].values[known], data[f"interneuron_{axis}"].values[known]
            )
        np.testing.assert_array_equal(
            data["best_channel"].values[known], data["interneuron_type"].values[known]
        )

    def test_potentials_of_bipolar_cells_are_what_enters_their_rectification(self, found):
        data = found["interneurons"].to_dataset().sel(model="itself", signal="potential")
        of_bipolar = data.isel(interneuron=data["interneuron_layer"].values == "bipolar")
        assert float(of_bipolar["r"].min()) > 0.999
        np.testing.assert_array_equal(
            of_bipolar["best_channel"].values, of_bipolar["interneuron_type"].values
        )

    def test_an_untrained_network_is_far_below(self, found):
        summary = rc.validation.summarise(found)
        for name, chosen in (
            ("contribution_r", {"features": "contribution", "removed": "both"}),
            ("cka", {"parts": "net", "removed": "both"}),
            ("interneuron_r", {"signal": "release"}),
            ("prediction_r", {}),
        ):
            values = summary[name].sel(chosen)
            assert (values.sel(model="itself") - values.sel(model="untrained") > 0.3).all()


@pytest.fixture(scope="module")
def rows(truth):
    movie = truth["test"]["stimulus"]
    frames = whole_history(movie, 40)
    length = (len(frames) - 40) // 2
    return frames, slice(0, length), slice(len(frames) - length, len(frames))


@pytest.fixture(scope="module")
def numbers(truth, untrained, circuit):
    movie = truth["test"]["stimulus"]
    of_model = rc.contributions(untrained, movie, method=STEPS, extras="activation", progress=False)
    of_truth = rc.contributions(circuit, movie, method=STEPS, sum_over=("y", "x"), progress=False)
    return of_model, of_truth


class TestALiteralTwin:
    """Everything held in memory, regression by least squares, on one cell of the network."""

    @pytest.mark.parametrize("kind", ["contribution", "activation", "single_unit",
                                      "unit_activation"])  # fmt: skip
    @pytest.mark.parametrize("removed", ["nothing", "predicted", "both"])
    def test_contributions(self, found, numbers, rows, truth, kind, removed):
        of_model, of_truth = numbers
        frames, first, second = rows
        cell = "on_off_0"
        candidates = []
        for layer in ("relu1", "relu2"):
            data = of_model[f"layers/{layer}"].to_dataset().sel(cell=cell)
            values = data["activation" if "activation" in kind else "contribution"].values
            if "unit" in kind:
                candidates.append(values.reshape(len(values), -1))
                continue
            flat = values.reshape(*values.shape[:2], -1)
            for part in (flat * (flat > 0), flat * (flat < 0), flat):
                candidates.append(part.sum(-1))
        units = np.concatenate(candidates, axis=1).astype(float)
        rates = np.ones((len(frames), 1))
        if removed != "nothing":
            rates = np.c_[rates, of_model["target"].sel(cell=cell)]
        if removed == "both":
            rates = np.c_[rates, truth["test"]["true_rate"].sel(cell=cell).values[frames]]

        def left(values):
            b = np.linalg.lstsq(rates[first], values[first], rcond=None)[0]
            return values - rates @ b

        ours = found["contributions"].to_dataset().sel(
            model="untrained", features=kind, removed=removed, cell=cell
        )  # fmt: skip
        compared = 0
        for label in ours["true_channel"].values:
            one = ours.sel(true_channel=label)
            if np.isnan(one["r"]):
                continue
            cut, channel = label.split("/")
            target = of_truth[f"layers/{cut}"]["contribution"].sel(cell=cell, channel=channel)
            target, rest = left(target.values.astype(float)), left(units)
            with np.errstate(invalid="ignore", divide="ignore"):
                on_first = np.array([corr(u[first], target[first]) for u in rest.T])
            varies = units[first].std(0) > 0
            varies &= units[second].std(0) > 0
            # The sign of a contribution is that of its effect; an activation's is not.
            sign = np.where((on_first < 0) & ("activation" in kind), -1, 1)
            best = np.where(varies, sign * on_first, -2).argmax()
            expected = sign[best] * corr(rest[second, best], target[second])
            assert float(one["r"]) == pytest.approx(expected, abs=2e-4)
            assert float(one["polarity"]) == sign[best]
            compared += 1
        assert compared >= 3

    def test_cka(self, found, numbers, rows):
        """From centred Gram matrices, on the second half, the rate regressed on the first."""
        of_model, of_truth = numbers
        _, first, second = rows
        cell = "on_off_1"
        rates = np.c_[np.ones(rows[0].size), of_model["target"].sel(cell=cell)]

        def gram(values, half):
            values = values - rates @ np.linalg.lstsq(rates[first], values[first], rcond=None)[0]
            centred = values[half] - values[half].mean(0)
            return centred @ centred.T

        data = of_truth["layers/ganglion_input"].to_dataset()["contribution"].sel(cell=cell)
        truth = data.values.astype(float)
        by_half = []
        for half in (first, second):
            m = gram(truth, half)
            of_layers = []
            for layer in ("relu1", "relu2"):
                values = of_model[f"layers/{layer}"].to_dataset()["contribution"].sel(cell=cell)
                k = gram(values.sum(("y", "x")).values.astype(float), half)
                of_layers.append(np.sum(k * m) / np.sqrt(np.sum(k * k) * np.sum(m * m)))
            by_half.append(of_layers)
        ours = found["similarity"].to_dataset().sel(
            model="untrained", removed="predicted", parts="net", cut="ganglion_input", cell=cell
        )  # fmt: skip
        best = int(np.argmax(by_half[0]))
        assert float(ours["cka"]) == pytest.approx(by_half[1][best], abs=1e-4)
        assert str(ours["cka_layer"].values) == ("relu1", "relu2")[best]

    def test_interneurons(self, found, truth, untrained):
        movie = truth["noise"]["stimulus"]
        windows = np.stack([movie.values[t - 39 : t + 1] for t in range(39, movie.sizes["time"])])
        net = untrained.network
        values, x = {"potential": [], "release": []}, torch.from_numpy(windows)
        # Filters over whole windows, then frame for frame.
        with torch.no_grad():
            weight = net.conv1.weight[:, :, 0]
            x = torch.nn.functional.conv2d(x, weight, net.conv1.bias)
            for first, last in (("norm1", "relu1"), ("conv2", "relu2")):
                names = list(dict(net.named_children()))
                for name in names[names.index(first) : names.index(last)]:
                    x = getattr(net, name).eval()(x)
                values["potential"].append(x.flatten(1).numpy())
                x = x.clamp(min=0)
                values["release"].append(x.flatten(1).numpy())
        length = (len(windows) - 40) // 2
        first, second = slice(0, length), slice(len(windows) - length, len(windows))
        for signal, parts in values.items():
            units = np.concatenate(parts, axis=1).astype(float)
            units = units[:, (units[first].std(0) > 0) & (units[second].std(0) > 0)]
            recorded = truth["noise"][signal].values[39:]
            ours = found["interneurons"]["r"].sel(model="untrained", signal=signal).values
            for i in range(0, recorded.shape[1], 5):
                target = recorded[:, i]
                r = [corr(u[first], target[first]) for u in units.T]
                assert ours[i] == pytest.approx(
                    corr(units[second, np.argmax(r)], target[second]), abs=1e-4
                )


def turned_round(model):
    """Return the same network with its first channels, and its cells, in another order."""
    order, cells = [2, 0, 1], np.arange(len(model.outputs))[::-1].copy()
    turned = network(model.outputs[cells].tolist())
    state = copy.deepcopy(model.network.state_dict())
    for name in state:
        if name.startswith(("conv1", "norm1")) and state[name].ndim:
            state[name] = state[name][order]
        if name.startswith(("dense", "norm3")) and state[name].ndim:
            state[name] = state[name][cells]
    state["conv2.weight"] = state["conv2.weight"][:, order]
    turned.network.load_state_dict(state)
    return turned


def test_order_of_channels_and_cells_changes_nothing(found, truth, untrained, specification):
    turned = turned_round(untrained)
    again = rc.benchmark_recovery(
        {"turned": turned}, truth, circuit=specification, progress=False
    )  # also alone: a model's numbers do not depend on the others
    for node in ("prediction", "interneurons", "contributions"):
        np.testing.assert_allclose(
            again[node]["r"].sel(model="turned"), found[node]["r"].sel(model="untrained"),
            atol=2e-4,
        )  # fmt: skip
    np.testing.assert_allclose(
        again["similarity"]["cka"].sel(model="turned"),
        found["similarity"]["cka"].sel(model="untrained"),
        atol=2e-4,
    )
    movie = truth["test"]["stimulus"]
    same = rc.validation.agreement(untrained, turned, movie, progress=False)
    alive = same["cka"].notnull()
    assert alive.any()
    np.testing.assert_allclose(same["cka"].values[alive], 1, atol=1e-4)
    np.testing.assert_allclose(same["r"].values[same["r"].notnull()], 1, atol=1e-4)


def test_two_networks_agree_alike_in_both_directions(truth, untrained):
    movie = truth["test"]["stimulus"]
    other = network(untrained.outputs.tolist(), seed=1)
    there = rc.validation.agreement(untrained, other, movie, layers="relu2", progress=False)
    back = rc.validation.agreement(other, untrained, movie, layers="relu2", progress=False)
    assert there["cka"].dims == ("removed", "layer", "cell")
    for name in ("cka", "r"):
        np.testing.assert_allclose(there[name], back[name], atol=1e-5)
    assert float(there["cka"].median()) < 0.9


def test_a_network_that_gives_nothing_is_no_error(truth, specification, untrained):
    silent = network(untrained.outputs.tolist())
    silent.network.dense.weight.data.zero_()
    result = rc.benchmark_recovery(
        silent, truth, circuit=specification, noise=None, layers="relu2", progress=False
    )
    assert "interneurons" not in result.children
    assert (result["prediction"]["r"] == 0).all()
    # What is there and not found counts: 0, not a value that medians leave out.
    data = result["contributions"].to_dataset().isel(model=0)
    feature = data["share"] >= 0.01
    for removed, wanted in (
        ("nothing", feature),
        ("both", feature & (data["variance_left"] > 0.05)),
    ):
        for kind in ("contribution", "single_unit"):
            r = data["r"].sel(features=kind, removed=removed).transpose(*wanted.dims)
            np.testing.assert_array_equal(r, np.where(wanted, 0, np.nan))
    assert set(data["best_layer"].sel(features="contribution").values.ravel()) == {""}
    assert (result["similarity"]["cka"].sel(removed="nothing") == 0).all()
    summary = rc.validation.summarise(result)
    assert float(summary["worst_prediction_r"][0]) == 0
    with pytest.raises(ValueError, match="no matched contribution"):
        rc.validation.matched_burst(
            silent, truth, result, cell="on_off_0", circuit=specification, around=0.2
        )


def test_what_only_one_of_two_networks_has_is_not_found_again(truth, untrained):
    silent = network(untrained.outputs.tolist())
    silent.network.dense.weight.data.zero_()
    movie = truth["test"]["stimulus"][:150]
    found = rc.validation.agreement(untrained, silent, movie, layers="relu2", progress=False)
    assert (found["r"].sel(removed="nothing") == 0).all()


def test_a_dense_layer_and_a_shorter_history_do(truth, specification, untrained):
    torch.manual_seed(0)
    model = rc.models.LN(SHAPE, history=20, bin_width=0.01, cells=untrained.outputs.tolist())
    model.network.filter.weight.data.normal_(0, 0.05)
    both = {"ln": model, "cnn": untrained}
    result = rc.benchmark_recovery(
        both, truth, circuit=specification, layers={"cnn": "dense"}, progress=False
    )
    node = truth["test"].to_dataset()
    rate = model.predict(node["stimulus"])
    true = node["true_rate"].values[whole_history(node["stimulus"], 20)]
    for cell in (0, 4):
        expected = corr(rate.values[:, cell], true[:, cell])
        assert float(result["prediction"]["r"][0, cell]) == pytest.approx(expected, abs=1e-5)
    data = result["contributions"].to_dataset().sel(model="ln", removed="nothing")
    known = data["r"].notnull()
    assert known.sel(features="contribution").any("true_channel").all()
    assert set(data["best_layer"].values[known]) == {"filter"}
    assert result["interneurons"]["r"].sel(model="ln").notnull().any()
    layers = result["similarity"]["layer_cka"].sel(removed="nothing", parts="net")
    assert layers.sel(model="ln", layer="filter").notnull().all()
    assert layers.sel(model="ln", layer="dense").isnull().all()
    # One unit for each cell, at no place, whose contribution is the change of the rate.
    dense = (
        result["contributions"].to_dataset().sel(model="cnn", removed="nothing", cell="on_off_1")
    )
    known = dense["r"].sel(features="single_unit").notnull()
    assert known.any()
    for kind in ("contribution", "single_unit"):
        found = dense.sel(features=kind).isel(true_channel=np.flatnonzero(known))
        assert set(found["best_channel"].values) == {"1"}
        assert found["best_y"].isnull().all()


def test_a_lazy_movie_and_the_file_give_the_same(truth, found, specification, untrained, tmp_path):
    node = truth["test"].to_dataset()
    movie = node["stimulus"]
    lazy = movie.copy(data=da.from_array(movie.values, chunks=(100, 14, 14)))
    tree = xr.DataTree.from_dict({"test": node.assign(stimulus=lazy)})
    result = rc.benchmark_recovery(
        untrained, tree, circuit=specification, noise=None, progress=False
    )
    np.testing.assert_array_equal(
        result["contributions"]["r"].isel(model=0),
        found["contributions"]["r"].sel(model="untrained"),
    )
    save_tree(found, tmp_path / "found.nc")
    opened = open_tree(tmp_path / "found.nc", "found")
    for name in ("prediction", "interneurons", "contributions", "similarity"):
        xr.testing.assert_equal(opened[name].to_dataset(), found[name].to_dataset())


class TestSummary:
    def test_medians_over_types(self, found):
        summary = rc.validation.summarise(found)
        r = found["prediction"]["r"].sel(model="untrained")
        by_type = [
            np.median(r.values[r["cell_type"] == kind]) for kind in ("on_off", "on_sustained")
        ]
        assert float(summary["prediction_r"].sel(model="untrained")) == np.median(by_type)
        assert float(summary["worst_prediction_r"].sel(model="untrained")) == float(r.min())
        data = found["contributions"].to_dataset()["r"].sel(
            model="untrained", features="single_unit", removed="nothing"
        )  # fmt: skip
        medians = []
        for kind in ("on_off", "on_sustained"):
            for label in data["true_channel"].values[data["cut"].values == "bipolar"]:
                values = data.sel(true_channel=label).values[data["cell_type"].values == kind]
                if np.isfinite(values).any():
                    medians.append(np.nanmedian(values))
        value = summary["contribution_r"].sel(
            model="untrained", features="single_unit", removed="nothing", cut="bipolar"
        )
        assert float(value) == pytest.approx(np.median(medians))

    def test_then_over_seeds_with_the_range(self, found):
        def shifted(by):
            return xr.DataTree.from_dict(
                {
                    name: node.to_dataset().assign(
                        {v: node[v] + by for v in ("r", "cka") if v in node}
                    )
                    for name, node in found.children.items()
                }
            )

        trees = {seed: shifted(by) for seed, by in enumerate((0.0, 0.3, 0.1))}
        one, several = (rc.validation.summarise(given) for given in (found, trees))
        for name in ("prediction_r", "interneuron_r", "contribution_r", "cka"):
            for suffix, by in (("", 0.1), ("_low", 0.0), ("_high", 0.3)):
                np.testing.assert_allclose(several[name + suffix], one[name] + by)
        assert several.attrs["n_seeds"] == 3
        joined = {
            name: xr.concat(
                [tree[name].to_dataset() for tree in trees.values()],
                xr.Variable("seed", [0, 1, 2]), data_vars="all",
            )
            for name in found.children
        }  # fmt: skip
        xr.testing.assert_allclose(rc.validation.summarise(xr.DataTree.from_dict(joined)), several)

    def test_something_else_is_refused(self, found, truth):
        with pytest.raises(TypeError, match="recovery is a Dataset"):
            rc.validation.summarise(found["prediction"].to_dataset())
        with pytest.raises(ValueError, match="no node 'prediction'"):
            rc.validation.summarise(truth)
        with pytest.raises(ValueError, match="recovery is empty"):
            rc.validation.summarise({})


class TestBurst:
    def test_true_and_recovered_are_contributions_of_the_same_frames(
        self, truth, found, circuit, specification, untrained
    ):
        given = {"cell": "on_off_1", "around": 0.1, "circuit": specification}
        same = rc.validation.matched_burst(circuit, truth, found, name="itself", **given)
        np.testing.assert_allclose(same["recovered"], same["true"], atol=1e-4)
        np.testing.assert_allclose(same["true_rate"], same["predicted_rate"], rtol=1e-4)
        assert same.sizes["time"] == 21
        # The burst is the largest rate with 0.1 s round it.
        assert int(same["true_rate"].values.argmax()) == 10
        other = rc.validation.matched_burst(
            untrained, truth, found, name="untrained", at=float(same["time"][10]), **given
        )
        xr.testing.assert_equal(other["true"].drop_vars("feature"),
                                same["true"].drop_vars("feature"))  # fmt: skip
        match = found["contributions"].to_dataset().sel(
            model="untrained", features="contribution", removed="predicted", cell="on_off_1",
            true_channel="bipolar/on_transient",
        )  # fmt: skip
        tree = rc.contributions(
            untrained, truth["test"]["stimulus"], method=STEPS, split_sign=True,
            sum_over=("y", "x"), progress=False,
        )  # fmt: skip
        values = tree[f"layers/{match['best_layer'].item()}"]["contribution"].sel(
            cell="on_off_1", channel=int(match["best_channel"]), time=other["time"]
        )
        part = match["best_part"].item()
        values = values.sum("sign") if part == "both" else values.sel(sign=part)
        np.testing.assert_allclose(
            other["recovered"].sel(true_channel="on_transient"),
            values, atol=1e-4,
        )  # fmt: skip

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"name": None}, "several models"),
            ({"name": "its"}, "name='its' is unknown.*itself"),
            ({"cell": "on_of"}, "cell='on_of' is unknown"),
            ({"cut": "amacrine"}, "cut='amacrine'"),
            ({"around": 9.0}, "around=9.0: no block"),
            ({"at": 0.0}, "at=0.0"),
            ({"cell": "on_sustained_0"}, "no matched contribution"),
        ],
    )
    def test_errors(self, truth, found, circuit, specification, change, message):
        given = {"name": "itself", "cell": "on_off_0", "circuit": specification, **change}
        with pytest.raises(ValueError, match=message):
            rc.validation.matched_burst(circuit, truth, found, **given)

    def test_another_tree_is_refused(self, truth, circuit, specification):
        with pytest.raises(TypeError, match="recovery is not what"):
            rc.validation.matched_burst(
                circuit, truth, truth, cell="on_off_0", circuit=specification
            )


class TestErrors:
    def refuse(self, kind, message, model, simulation, **given):
        with pytest.raises(kind, match=message):
            rc.benchmark_recovery(model, simulation, progress=False, **given)

    def test_the_model(self, truth, specification, untrained, circuit):
        given = {"simulation": truth, "circuit": specification}
        self.refuse(TypeError, "model is a str", "bncnn", **given)
        self.refuse(TypeError, r"model\['a'\] is a int", {"a": 1}, **given)
        self.refuse(ValueError, "model is empty", {}, **given)
        others = network(["on_off_0", "x"])
        self.refuse(ValueError, "not of the same cells.*on_off_1.*has x beside", others, **given)
        wide = simulation.circuit(specification, shape=(16, 16))
        self.refuse(ValueError, r"model 'a' on simulation\['test'\].*frames", {"a": wide}, **given)
        slow = RetinaModel(
            circuit.network, history=40, bin_width=0.02, cells=circuit.outputs.tolist()
        )
        self.refuse(ValueError, "bins of 0.01 s", slow, **given)
        self.refuse(ValueError, "layers of model 'model'.*rely1", untrained, layers="rely1",
                    **given)  # fmt: skip
        self.refuse(ValueError, "layers: a model='cnn'.*model", untrained, layers={"cnn": "relu1"},
                    **given)  # fmt: skip
        self.refuse(ValueError, "layers of model 'model': none", untrained, layers=[], **given)

    def test_the_simulation(self, truth, specification, circuit):
        given = {"model": circuit, "circuit": specification}
        node = truth["test"].to_dataset()
        self.refuse(TypeError, "simulation is a Dataset", simulation=node, **given)
        self.refuse(ValueError, "no node 'tess'.*test.*node=", simulation=truth, node="tess",
                    **given)  # fmt: skip
        real = xr.DataTree.from_dict({"test": node.drop_vars("true_rate")})
        self.refuse(ValueError, "no 'true_rate'.*real retina", simulation=real, **given)
        alone = xr.DataTree.from_dict({"test": node})
        self.refuse(ValueError, "no node 'noise'.*noise=", simulation=alone, **given)
        short = xr.DataTree.from_dict({"test": node.isel(time=slice(0, 90))})
        self.refuse(ValueError, "51 frames with a whole history.*at least 60", simulation=short,
                    noise=None, **given)  # fmt: skip
        self.refuse(ValueError, "least_left", simulation=truth, least_left=-1, **given)

    def test_the_circuit(self, truth, circuit, specification):
        # By its name it is another: this one has some of the cells only.
        self.refuse(ValueError, "fingerprint.*give the circuit", circuit, truth)
        other = part_of("on_off", "on_transient")
        self.refuse(ValueError, "fingerprint", circuit, truth, circuit=other)
        node = truth["test"].to_dataset()
        for parameters, message in (("{}", "does not say"), ('{"circuit": "mine"}', "'mine'")):
            named = node.assign_attrs(parameters=parameters)
            tree = xr.DataTree.from_dict({"test": named})
            self.refuse(ValueError, f"{message}.*circuit=", circuit, tree)
        renamed = replace(specification, name="mine")
        found = rc.benchmark_recovery(
            circuit, truth, circuit=simulation.circuit(renamed, movie=node["stimulus"]),
            noise=None, progress=False,
        )  # fmt: skip
        assert found["prediction"]["r"].min() > 0.999

    def test_agreement(self, truth, circuit, untrained):
        movie = truth["test"]["stimulus"]
        for b, message in ((circuit, "none in common"), (network(["x"]), "same cells")):
            with pytest.raises(ValueError, match=message):
                rc.validation.agreement(untrained, b, movie, progress=False)
        with pytest.raises(ValueError, match="movie has 1 frames"):
            rc.validation.agreement(untrained, untrained, movie[:40], progress=False)


def test_methods_are_judged_by_one_truth(truth, circuit, specification):
    def judged(**methods):
        found = rc.benchmark_recovery(
            circuit, truth, circuit=specification, noise=None, layers="bipolar", progress=False,
            **methods,
        )  # fmt: skip
        r = found["contributions"]["r"].sel(features="contribution", removed="nothing")
        return r.sel(model="model").where(found["contributions"]["cut"] == "bipolar")

    other = rc.methods.ActivationGradient()
    assert judged(true_method=other, method=other).min() > 0.999
    # The truth is the path's, whatever the method of the models.
    by_path = judged(method=other)
    xr.testing.assert_equal(by_path, judged(method=other, true_method=STEPS))
    assert by_path.min() < 0.99
