"""Which interneurons drove a burst: the circuit names them, a literal computation, bad input."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.signal import find_peaks

import retina_codec as rc
from retina_codec import simulation, stimuli
from retina_codec._common.time import whole_history
from retina_codec.simulation.specification import read_specification

SHAPE = (12, 12)
STEPS = rc.methods.IntegratedGradients(steps=8)


@pytest.fixture(scope="module")
def specification():
    whole = read_specification("default")
    kinds = ("on_off", "on_sustained")
    return replace(whole, ganglion={kind: whole.ganglion[kind] for kind in kinds})


@pytest.fixture(scope="module")
def truth(specification):
    test = stimuli.concatenate(
        [stimuli.white_noise(n_frames=n, shape=SHAPE, seed=n) for n in (160, 200)]
    )
    return rc.simulate_retina({"test": test}, specification)


@pytest.fixture(scope="module")
def circuit(specification, truth):
    return simulation.circuit(specification, movie=truth["test"]["stimulus"])


@pytest.fixture(scope="module")
def untrained(truth):
    return rc.models.BNCNN(
        SHAPE, history=40, bin_width=0.01, cells=truth["test"]["cell"].values.tolist(),
        channels=(3, 2), kernel_sizes=(5, 4), seed=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(truth, circuit, untrained, specification):
    return rc.validation.named_drivers(
        {"itself": circuit, "untrained": untrained}, truth, circuit=specification, n_bursts=6,
        progress=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def true(truth, circuit):
    tree = rc.contributions(
        circuit, truth["test"]["stimulus"], method=STEPS, sum_over=("y", "x"), progress=False
    )
    return tree["layers/bipolar"].to_dataset()["contribution"]


def test_the_circuit_names_what_drove_it(found):
    right = found["right"].sel(model="itself", features="contribution")
    np.testing.assert_array_equal(np.isfinite(right), found["driver"] != "")
    assert float(right.min()) == 1
    of_on_off = found.isel(cell=found["cell_type"].values == "on_off")
    assert (of_on_off["contested"] == 1).any()
    assert set(np.unique(of_on_off["driver"])) <= {"on_transient", "off_transient", ""}
    alone = found.isel(cell=found["cell_type"].values == "on_sustained")
    assert (alone["contested"] == 0).all()
    assert (alone["chance"] == 1).all()
    assert set(np.unique(alone["driver"])) <= {"on_sustained", ""}


def test_drivers_are_the_largest_contributions_in_bursts_of_the_second_half(found, truth, true):
    movie = truth["test"]["stimulus"]
    frames = whole_history(movie, 40)
    second = frames[-((len(frames) - 40) // 2) :]
    times = movie["time"].values
    for cell in ("on_off_0", "on_sustained_0"):
        one = found.sel(cell=cell)
        rate = truth["test"]["true_rate"].sel(cell=cell).values
        for time, driver in zip(one["burst_time"].values, one["driver"].values, strict=True):
            frame = int(np.abs(times - time).argmin())
            assert frame in second
            around = true.sel(cell=cell, time=times[frame - 5 : frame + 6]).mean("time")
            assert str(around["channel"].values[around.values.argmax()]) == driver
        # Those are the highest.
        high, _ = find_peaks(rate[second], distance=11)
        high = high[(high >= 5) & (high < len(second) - 5)]
        highest = np.sort(high[np.argsort(-rate[second][high])[:6]])
        np.testing.assert_allclose(one["burst_time"].values, times[second[highest]])


def test_an_untrained_network_agrees_with_a_literal_twin(found, truth, true, untrained):
    movie = truth["test"]["stimulus"]
    frames = whole_history(movie, 40)
    n = (len(frames) - 40) // 2
    used = np.r_[frames[:n], frames[-n:]]
    tree = rc.contributions(untrained, movie, method=STEPS, extras="activation", progress=False)
    at = np.searchsorted(frames, used)
    cell = "on_off_0"
    one = found.sel(model="untrained", cell=cell)
    rate = tree["target"].sel(cell=cell).values[at].astype(float)
    rates = np.c_[np.ones(n), rate[:n]]
    for kind in ("contribution", "activation"):
        candidates = []
        for layer in ("relu1", "relu2"):
            data = tree[f"layers/{layer}"].to_dataset()[kind]
            values = (data.sel(cell=cell) if "cell" in data.dims else data).values[at]
            flat = values.reshape(*values.shape[:2], -1)
            for part in (flat * (flat > 0), flat * (flat < 0), flat):
                candidates.append(part.sum(-1))
        units = np.concatenate(candidates, axis=1).astype(float)
        scaled = {}
        for channel in ("on_transient", "off_transient"):
            wanted = true.sel(cell=cell, channel=channel).values[at].astype(float)
            left = wanted[:n] - rates @ np.linalg.lstsq(rates, wanted[:n], rcond=None)[0]
            r = np.full(units.shape[1], -2.0)
            for k, unit in enumerate(units.T):
                if unit[:n].std() > 0:
                    rest = unit[:n] - rates @ np.linalg.lstsq(rates, unit[:n], rcond=None)[0]
                    r[k] = np.corrcoef(rest, left)[0, 1]
            best = units[:, np.abs(np.where(r > -2, r, 0)).argmax() if kind == "activation"
                         else r.argmax()]  # fmt: skip
            slope, offset = np.polyfit(best[:n], wanted[:n], 1)
            scaled[channel] = slope * best + offset
        compared = 0
        for time, named in zip(one["burst_time"].values,
                               one["named"].sel(features=kind).values, strict=True):  # fmt: skip
            if named:
                row = int(np.flatnonzero(used == np.abs(movie["time"].values - time).argmin())[0])
                means = {name: v[row - 5 : row + 6].mean() for name, v in scaled.items()}
                assert named == max(means, key=means.get)
                compared += 1
        assert compared >= 3


def test_chance_is_what_naming_the_usual_driver_of_the_first_half_gives(found, truth, true):
    movie = truth["test"]["stimulus"]
    frames = whole_history(movie, 40)
    first = frames[: (len(frames) - 40) // 2]
    cell = "on_off_0"
    rate = truth["test"]["true_rate"].sel(cell=cell).values[first]
    peaks, _ = find_peaks(rate, distance=11)
    peaks = peaks[(peaks >= 5) & (peaks < len(first) - 5)]
    highest = np.sort(peaks[np.argsort(-rate[peaks])[:6]])
    times = movie["time"].values
    names = []
    for peak in highest:
        around = true.sel(cell=cell, time=times[first[peak - 5 : peak + 6]]).mean("time")
        names.append(str(around["channel"].values[around.values.argmax()]))
    usual = max(dict.fromkeys(names), key=names.count)
    one = found.sel(cell=cell)
    drivers = one["driver"].values[one["driver"].values != ""]
    assert float(one["chance"]) == pytest.approx((drivers == usual).mean())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"n_bursts": 0}, ValueError, "n_bursts=0"),
        ({"around": -1}, ValueError, "around=-1"),
        ({"around": 3.0}, ValueError, "half without a burst"),
        ({"cut": "amacrine"}, ValueError, "cut='amacrine'"),
        ({"layers": "relu9"}, ValueError, "no layer 'relu9'"),
        ({"node": "train"}, ValueError, "no node 'train'"),
        ({"model": 3}, TypeError, "model is a int"),
        ({"circuit": "first"}, ValueError, "fingerprint"),
    ],
)
def test_bad_input(truth, untrained, specification, change, error, message):
    given = {"model": untrained, "simulation": truth, "circuit": specification, **change}
    with pytest.raises(error, match=message):
        rc.validation.named_drivers(**given, progress=False)
