"""Quality of cells: planted violations, contamination and drift; selection; the real sets."""

import numpy as np
import pytest
import quantities as pq
import xarray as xr

from retina_codec._common.time import block_coordinate, time_coordinate
from retina_codec.recordings import reliability
from retina_codec.recordings.quality import quality, select_cells
from retina_codec.recordings.spikes import SpikeTimes


def tree(trains=None, **nodes):
    parts = {f"/{name}": data for name, data in nodes.items()}
    if trains is not None:
        parts["/spikes"] = SpikeTimes.from_trains(trains).to_dataset()
    return xr.DataTree.from_dict(parts)


def counted(counts, *, width=0.5, start=0.0, onsets=None, cells=None):
    counts = np.asarray(counts)
    onset = start + np.arange(counts.shape[-2]) * width
    coords = {
        "time": time_coordinate(onset if onsets is None else onset - start, width),
        "cell": cells or [f"C{i}" for i in range(counts.shape[-1])],
    }
    if onsets is not None:
        coords["repeat_onset"] = ("repeat", np.asarray(onsets, dtype=float))
    dims = ("repeat", "time", "cell")[-counts.ndim :]
    return xr.Dataset({"spike_count": (dims, counts)}, coords=coords)


def renewal(rate, seconds, dead_time, rng):
    """Spikes of a Poisson cell that cannot fire within its dead time."""
    n = int(rate * seconds * 1.2) + 50
    intervals = dead_time + rng.exponential(1 / rate - dead_time, n)
    times = np.cumsum(intervals)
    return times[times < seconds]


# Intervals between spikes


def test_violations_and_duplicates_by_hand():
    times = np.array([0.0, 0.001, 0.001, 0.5, 0.5019, 0.504, 3.0])
    found = quality(tree({"a": times, "b": np.array([0.0, 3.0])}), refractory_period=2 * pq.ms)
    assert found["isi_violations"].values.tolist() == [3 / 6, 0]
    assert found["n_duplicates"].values.tolist() == [1, 0]
    assert found["n_spikes"].values.tolist() == [7, 2]
    assert float(quality(tree({"a": times}))["isi_violations"][0]) == pytest.approx(2 / 6)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2])
def test_contamination_finds_the_share_of_a_second_cell(share):
    rng = np.random.default_rng(0)
    seconds, rate = 4000, 20.0
    own = renewal(rate * (1 - share), seconds, 0.003, rng)
    other = renewal(rate * share, seconds, 0.003, rng) if share else np.empty(0)
    found = quality(tree({"a": np.sort(np.r_[own, other])}), refractory_period=0.002)
    true_share = len(other) / (len(own) + len(other))
    # the number of violations is Poisson: 2 tau N^2 f (1 - f) / T
    expected = 2 * 0.002 * (rate * seconds) ** 2 * share * (1 - share) / seconds
    error = true_share / np.sqrt(expected) if share else 1e-9
    assert float(found["contamination"][0]) == pytest.approx(true_share, abs=4 * error)


def test_contamination_solves_its_equation_or_says_why_not():
    times = np.sort(np.random.default_rng(1).uniform(0, 100, 2000))
    burst = np.sort(np.r_[np.arange(0, 100, 1.0), np.arange(0, 100, 1.0) + 0.001])
    found = quality(tree({"two": times[::2], "burst": burst}), refractory_period=0.0015)
    f = float(found["contamination"].sel(cell="two"))
    v = (np.diff(times[::2]) < 0.0015).sum()
    extent = max(times[::2][-1], burst[-1]) - min(times[0], burst[0])
    assert 2 * 0.0015 * 1000**2 * f * (1 - f) / extent == pytest.approx(v)
    assert f < 0.5
    assert np.isnan(found["contamination"].sel(cell="burst"))
    assert (
        found["reason"]
        .sel(cell="burst")
        .item()
        .startswith("more violations than a second cell explains: contamination undefined")
    )


# Rate and its drift


def test_mean_rate_is_that_while_stimuli_are_shown():
    trains = {"a": np.arange(0, 100, 0.25), "b": np.array([5.0, 250.0])}
    node = counted(np.array([[3, 0], [1, 0], [2, 1]]), cells=["a", "b"])
    repeats = counted(np.ones((4, 6, 2), int), onsets=[10, 20, 30, 40], cells=["a", "b"])
    found = quality(tree(trains, train=node, test=repeats))
    np.testing.assert_allclose(found["mean_rate"], [30 / 13.5, 25 / 13.5])
    assert found["n_spikes"].values.tolist() == [400, 2]
    epochs = xr.Dataset(
        {"start": ("epoch", [50.0, 20.0]), "duration": ("epoch", [10.0, 5.0]),
         "label": ("epoch", ["on", "off"])}
    )  # fmt: skip
    found = quality(tree(trains, epochs=epochs))
    np.testing.assert_allclose(found["mean_rate"], [160 / 40, 0])
    found = quality(tree(trains))
    np.testing.assert_allclose(found["mean_rate"], [400 / 250, 1 / 250])  # half-open


def test_windows_follow_time_and_not_nodes():
    rng = np.random.default_rng(2)
    rate = np.linspace(12, 8, 1200)  # over 600 s, in bins of half a second
    counts = rng.poisson(rate[:, None] / 2, (1200, 50)).reshape(6, 200, 50)
    onsets = np.arange(6) * 100.0
    repeats = counted(counts[1::2], onsets=onsets[1::2])
    runs = xr.concat([counted(counts[i], start=onsets[i]) for i in (0, 2, 4)], "time")
    runs = runs.assign_coords(block=block_coordinate(np.repeat([0, 2, 4], 200)))
    runs["time"].attrs["bin_width"] = 0.5
    found = quality(tree(train=runs, test=repeats))
    slope = -100 * 0.4 / 10  # -0.4 Hz a minute, of 10 Hz
    assert float(found["rate_drift"].mean()) == pytest.approx(slope, abs=0.1)
    inside = (found["rate_drift_low"] < slope) & (slope < found["rate_drift_high"])
    assert int(inside.sum()) >= 43  # 95 % of 50, less three standard errors
    assert found["rate_drift"].attrs["units"] == "%/min"
    flat = counts.reshape(1200, 50)
    whole = quality(tree(all=counted(flat)))
    for name in ("rate_drift", "mean_rate", "presence_ratio", "n_spikes"):
        np.testing.assert_allclose(found[name], whole[name], rtol=1e-9)
    lazy = quality(tree(train=runs.chunk(time=70), test=repeats.chunk(time=31, repeat=1)))
    xr.testing.assert_allclose(lazy, found)
    one = quality(counted(flat))
    np.testing.assert_allclose(one["rate_drift"], whole["rate_drift"])
    xr.testing.assert_identical(quality(counted(flat).transpose("cell", "time")), one)


def test_drift_of_spike_times_is_the_slope_of_a_line():
    times = np.sort(np.random.default_rng(3).beta(2, 1, 5000)) * 1000  # rate grows from 0
    found = quality(tree({"a": times}), n_windows=10)
    edges = np.linspace(times[0], times[-1], 11)
    rate = np.histogram(times, edges)[0] / np.diff(edges)
    rate[-1] -= 1 / np.diff(edges)[-1]  # the last spike ends the last window
    fit, covariance = np.polyfit((edges[1:] + edges[:-1]) / 120, rate, 1, cov=True)
    assert float(found["rate_drift"][0]) == pytest.approx(100 * fit[0] / rate.mean())
    reach = 2.3060041350333704 * np.sqrt(covariance[0, 0])  # t(0.975, 8)
    high = 100 * (fit[0] + reach) / rate.mean()
    assert float(found["rate_drift_high"][0]) == pytest.approx(high)


def test_presence_is_the_fraction_of_windows_with_a_spike():
    trains = {"lost": np.arange(0, 30, 0.1), "all": np.linspace(0, 100, 500)}
    found = quality(tree(trains), n_windows=10)
    assert found["presence_ratio"].values.tolist() == [0.3, 1.0]


# Repeats


def test_measures_of_repeats_are_those_of_reliability():
    rng = np.random.default_rng(4)
    small = counted(rng.poisson(1.0, (3, 30, 2)), onsets=[0, 20, 40])
    large = counted(rng.poisson(rng.gamma(1, 1, (60, 2)), (9, 60, 2)), onsets=np.arange(9) * 40.0)
    found = quality(tree(one=small, two=large), history=5)
    expected = reliability(large, history=5)
    for name in ("cc_max", "signal_power", "explainable_variance", "ceiling"):
        np.testing.assert_array_equal(found[name], expected[name])
    assert found.attrs["repeats_from"] == "two"


def test_response_drift_against_a_loop_and_a_planted_gain():
    rng = np.random.default_rng(5)
    drive = rng.gamma(1, 2, 400)
    gain = np.ones((12, 200))
    gain[:, 0] = np.linspace(0.5, 1.5, 12)
    counts = rng.poisson(gain[:, None, :] * drive[:, None])
    data = counted(counts, onsets=np.arange(12) * 300.0)
    found = quality(data)
    for i in range(2):
        r = counts[:, :, i].astype(float)
        share = []
        for n in range(12):
            mean = np.delete(r, n, axis=0).mean(0)
            share.append(np.cov(r[n], mean)[0, 1] / mean.var(ddof=1))
        expected = np.corrcoef(np.arange(12), share)[0, 1]
        assert float(found["response_drift"][i]) == pytest.approx(expected)
    assert float(found["response_drift"][0]) > 0.95
    # without drift: correlations of 12 numbers, of variance 1 / 11
    steady = found["response_drift"].values[1:]
    assert abs(steady.mean()) < 4 * np.sqrt(1 / 11 / 199)
    assert steady.std() == pytest.approx(np.sqrt(1 / 11), rel=0.2)  # four standard errors


# What is missing


def test_undefined_numbers_say_why(recwarn):
    found = quality(tree({"silent": np.empty(0), "one": np.array([1.0]), "busy": np.arange(9.0)}))
    reasons = dict(zip(found["cell"].values, found["reason"].values, strict=True))
    assert "fewer than two spikes: isi_violations, contamination undefined" in reasons["silent"]
    assert "no spikes, or too short: rate_drift" in reasons["silent"]
    assert reasons["busy"] == (
        "no repeats: response_drift, cc_max, signal_power, explainable_variance, ceiling undefined"
    )
    assert found["mean_rate"].values[0] == 0
    only_counts = quality(counted(np.ones((40, 1), int)))
    assert "no spike times: isi_violations, contamination, n_duplicates undefined" in str(
        only_counts["reason"].values[0]
    )
    nothing = quality(tree({"a": np.empty(0)}))
    assert np.isnan(nothing["rate_drift"]).all()
    # repeats whose place in time is not told count for the mean rate only
    placeless = counted(np.ones((3, 8, 1), int), onsets=[0, 9, 18]).drop_vars("repeat_onset")
    found = quality(placeless)
    assert found["mean_rate"].values.tolist() == [2.0]
    assert np.isnan(found["rate_drift"]).all() and np.isnan(found["presence_ratio"]).all()
    for measure in found.data_vars:
        if measure != "reason" and np.isnan(found[measure].values[0]):
            assert measure in found["reason"].values[0]
    assert not recwarn.list


def test_counts_that_are_nan_are_refused():
    node = counted(np.ones((2, 30, 1)))
    node["spike_count"] = node["spike_count"].astype(np.float64)
    node["spike_count"][1, 4, 0] = np.nan
    with pytest.raises(ValueError, match=r"node\['spike_count'\] has 1 NaN .*repeat=1, time=4"):
        quality(node)
    with pytest.raises(ValueError, match=r"recording\['test'\]\['spike_count'\] has 1 NaN"):
        quality(tree(test=node))


def test_quality_bad_input():
    good = tree({"a": np.arange(5.0)})
    with pytest.raises(ValueError, match="refractory_period=0; expected a time above 0"):
        quality(good, refractory_period=0)
    with pytest.raises(ValueError, match="refractory_period is in m"):
        quality(good, refractory_period=1 * pq.m)
    with pytest.raises(ValueError, match="n_windows=2; expected a number of at least 3"):
        quality(good, n_windows=2)
    with pytest.raises(TypeError, match=r"history=1\.5"):
        quality(good, history=1.5)
    with pytest.raises(TypeError, match="node is a ndarray"):
        quality(np.zeros(3))
    with pytest.raises(ValueError, match=r"recording has no node 'spikes' \(its nodes: none\)"):
        quality(xr.DataTree())
    with pytest.raises(ValueError, match="the nodes of recording differ in their cells"):
        quality(tree({"b": np.arange(5.0)}, train=counted(np.ones((5, 1), int), cells=["a"])))


# Selection


@pytest.fixture
def recording():
    rng = np.random.default_rng(6)
    drive = rng.gamma(1, 1, 200)
    rates = np.stack([drive, np.full(200, 0.02), np.full(200, 1.0), drive * 2], axis=1)
    counts = rng.poisson(rates, (6, 200, 4))
    cells = ["good", "rare", "unreliable", "dirty"]
    onsets = np.arange(6) * 101.0
    trains = {}
    for i, cell in enumerate(cells):
        bins = [onsets[r] + np.repeat(np.arange(200) * 0.5, counts[r, :, i]) for r in range(6)]
        times = np.concatenate(bins)
        # spread within the bins, those of the dirty cell on top of each other
        places = np.concatenate([np.arange(n) for n in counts[:, :, i].ravel()])
        trains[cell] = times + places * (0.001 if cell == "dirty" else 0.02)
    test = counted(counts, onsets=onsets, cells=cells)
    made = tree(trains, test=test, frames=xr.Dataset({"frame_time": ("frame", onsets)}))
    made.attrs = {"source_format": "made", "notes": "frames 0..3 are not used"}
    made["spikes"].attrs["clock"] = "rig"
    amplitude = np.concatenate([times * 10 for times in trains.values()])
    made["spikes"]["amplitude"] = xr.DataArray(amplitude, dims="spike")
    return made


def test_selection_keeps_good_cells_in_every_node(recording):
    before = recording.copy(deep=True)
    chosen = select_cells(recording, min_rate=0.5, max_isi_violations=0.02, min_cc_max=0.5)
    for name in ("test", "spikes"):
        assert chosen[name]["cell"].values.tolist() == ["good"]
    spikes = SpikeTimes.from_dataset(chosen["spikes"])
    all_spikes = SpikeTimes.from_dataset(recording["spikes"])
    np.testing.assert_array_equal(spikes.of(0), all_spikes.of(0))
    np.testing.assert_array_equal(chosen["spikes"]["amplitude"], spikes.times * 10)
    assert chosen["spikes"].attrs == {"clock": "rig"}
    assert chosen["spikes"]["spike_time"].attrs["units"] == "s"
    xr.testing.assert_identical(chosen["frames"].to_dataset(), recording["frames"].to_dataset())
    assert chosen.attrs["source_format"] == "made"
    first, *notes = chosen.attrs["notes"].split("; cell ")
    assert first == "frames 0..3 are not used"
    assert [note.split(" is left out: ")[0] for note in notes] == ["rare", "unreliable", "dirty"]
    assert "mean_rate" in notes[0] and "is below 0.5" in notes[0]
    assert "cc_max" in notes[1] and "isi_violations" in notes[2]
    assert before.identical(recording)


def test_selection_by_id_keeps_the_order_asked_for(recording):
    chosen = select_cells(recording, cells=["dirty", "good"])
    assert chosen["test"]["cell"].values.tolist() == ["dirty", "good"]
    spikes = SpikeTimes.from_dataset(chosen["spikes"])
    all_spikes = SpikeTimes.from_dataset(recording["spikes"])
    np.testing.assert_array_equal(spikes.of(0), all_spikes.of(3))
    np.testing.assert_array_equal(spikes.of(1), all_spikes.of(0))
    assert chosen.attrs["notes"].endswith("2 cells are left out: not asked for")
    same = select_cells(recording)
    assert same.identical(recording)


def test_each_criterion_is_that_of_its_measure(recording):
    measured = quality(recording)
    for criterion, name, sign in (
        ("min_spikes", "n_spikes", 1),
        ("min_rate", "mean_rate", 1),
        ("max_isi_violations", "isi_violations", -1),
        ("max_contamination", "contamination", -1),
        ("min_presence", "presence_ratio", 1),
        ("max_drift", "rate_drift", -1),
        ("max_response_drift", "response_drift", -1),
        ("min_cc_max", "cc_max", 1),
        ("min_explainable_variance", "explainable_variance", 1),
    ):
        values = measured[name].values if sign > 0 else -np.abs(measured[name].values)
        limit = np.nanmedian(values)
        chosen = select_cells(recording, **{criterion: sign * limit})
        expected = measured["cell"].values[values >= limit]
        assert chosen["test"]["cell"].values.tolist() == expected.tolist(), criterion


@pytest.mark.parametrize(
    ("criterion", "name", "limit", "number"),
    [
        ("min_rate", "mean_rate", 1 * pq.kHz, 1000.0),
        ("min_rate", "mean_rate", 60 / pq.min, 1.0),
        ("min_spikes", "n_spikes", 700 * pq.dimensionless, 700.0),
        ("max_isi_violations", "isi_violations", 1 * pq.percent, 0.01),
        ("max_contamination", "contamination", 30 * pq.percent, 0.3),
        ("min_presence", "presence_ratio", 90 * pq.percent, 0.9),
        ("max_drift", "rate_drift", 2 * pq.percent / pq.min, 2.0),
        ("max_drift", "rate_drift", 1.2 / pq.hour, 2.0),
        ("max_response_drift", "response_drift", 50 * pq.percent, 0.5),
        ("min_cc_max", "cc_max", 50 * pq.percent, 0.5),
        ("min_explainable_variance", "explainable_variance", 20 * pq.percent, 0.2),
    ],
)
def test_limits_with_units_are_converted(recording, criterion, name, limit, number):
    measured = quality(recording)
    # One cell on either side of the limit.
    measured[name] = ("cell", number * np.array([0.9, 1.1, 0.9, 1.1]))
    chosen = select_cells(recording, measured=measured, **{criterion: limit})
    kept = ["good", "unreliable"] if criterion.startswith("max") else ["rare", "dirty"]
    assert chosen["test"]["cell"].values.tolist() == kept


def test_selection_uses_what_was_measured(recording):
    measured = quality(recording)
    measured["mean_rate"] = ("cell", [0.0, 9.0, 0.0, np.nan])
    chosen = select_cells(recording, min_rate=1, measured=measured)
    assert chosen["test"]["cell"].values.tolist() == ["rare"]
    assert "dirty is left out: mean_rate is undefined" in chosen.attrs["notes"]


def test_selection_bad_input(recording):
    with pytest.raises(ValueError, match=r"no cell of 4 meets all criteria \(min_rate=1000\)"):
        select_cells(recording, min_rate=1000)
    with pytest.raises(ValueError, match="min_rate=nan; expected a number"):
        select_cells(recording, min_rate=np.nan)
    with pytest.raises(ValueError, match=r"no cell of 4 .*\(min_rate=1000\.0\)"):
        select_cells(recording, min_rate=1 * pq.kHz)
    with pytest.raises(ValueError, match="min_rate is in s; expected something in Hz"):
        select_cells(recording, min_rate=1 * pq.s)
    with pytest.raises(ValueError, match="min_cc_max is in Hz; expected something in dimension"):
        select_cells(recording, min_cc_max=0.5 * pq.Hz)
    with pytest.raises(ValueError, match=r"max_drift is in dimensionless; .* in percent/min"):
        select_cells(recording, max_drift=2 * pq.dimensionless)
    for limit in ("1", [1.0, 2.0], np.array([1.0, 2.0]) * pq.Hz, True):
        with pytest.raises(
            TypeError, match=r"min_rate=.*; expected one number, or a quantity in H"
        ):
            select_cells(recording, min_rate=limit)
    with pytest.raises(ValueError, match="no cell 'god'; did you mean 'good'"):
        select_cells(recording, cells=["god"])
    with pytest.raises(TypeError, match="recording is a Dataset"):
        select_cells(recording["test"].to_dataset())
    without_repeats = recording.filter(lambda node: node.name != "test")
    with pytest.raises(ValueError, match=r"min_cc_max=0\.5, but cc_max is .* a node with repeats"):
        select_cells(without_repeats, min_cc_max=0.5)
    without_spikes = recording.filter(lambda node: node.name != "spikes")
    with pytest.raises(ValueError, match=r"isi_violations is .* it needs spike times"):
        select_cells(without_spikes, max_isi_violations=0.5)


# Real sets

NOISE_RATE = [17.200, 15.309, 10.896, 19.794, 9.742, 5.800, 56.649, 5.055]
NOISE_SPIKES = [23173, 20577, 14631, 26632, 13105, 7747, 76111, 6740]
NOISE_SHORT = [0.04, 0.04, 0.05, 0.03, 0.68, 0.08, 1.85, 0.25]  # % of intervals below 2 ms
STEP_RATE = {
    "C10601": (918, 2.209), "C10801": (488, 1.190), "C11101": (991, 2.399),
    "C12301": (4303, 10.360), "C15001": (10387, 24.850), "C15301": (601, 1.461),
    "C15401": (3830, 9.281), "C15501": (1174, 2.831), "C17201": (1915, 4.697),
    "C201": (11646, 28.088), "C202": (13057, 31.616), "C204": (7443, 17.975),
    "C22701": (4597, 11.113), "C3002": (6487, 15.746), "C3501": (1829, 4.396),
    "C3701": (5411, 13.051), "C3702": (4511, 10.878), "C4202": (8544, 20.720),
    "C4203": (14363, 34.351), "C6201": (4954, 11.935),
}  # fmt: skip


@pytest.mark.data
def test_real_noise(real_data):
    folder = real_data / "ganglion_fullfield_noise"
    marks = np.loadtxt(folder / "frametimes_fullfieldnoise.txt")[:98401]
    trains = {f"C{k}": np.loadtxt(folder / f"fullfieldnoise_C{k}.txt") for k in range(1, 9)}
    width = (marks[-1] - marks[0]) / 98400
    counts = np.stack([np.histogram(times, marks)[0] for times in trains.values()], axis=1)
    blocks = counts.reshape(41, 2400, 8)
    onsets = marks[:98400].reshape(41, 2400)
    train = xr.Dataset(
        {"spike_count": (("time", "cell"), blocks[:, :1800].reshape(-1, 8))},
        coords={
            "time": time_coordinate(onsets[:, :1800].ravel(), width),
            "block": block_coordinate(np.repeat(np.arange(41), 1800)),
            "cell": list(trains),
        },
    )
    test = counted(blocks[:, 1800:], width=width, onsets=onsets[:, 1800], cells=list(trains))
    recording = tree(trains, train=train, test=test)
    found = quality(recording, refractory_period=0.002, history=45)
    assert found["n_spikes"].values.tolist() == NOISE_SPIKES
    np.testing.assert_allclose(found["mean_rate"], NOISE_RATE, rtol=0, atol=5e-4)
    np.testing.assert_allclose(100 * found["isi_violations"], NOISE_SHORT, rtol=0, atol=5e-3)
    assert found["n_duplicates"].values.tolist() == [0, 0, 1, 0, 0, 0, 1, 0]
    np.testing.assert_allclose(found["cc_max"].values[:2], [0.988, 0.958], rtol=0, atol=5e-4)
    assert (found["presence_ratio"] == 1).all() and (found["reason"] == "").all()
    chosen = select_cells(recording, max_isi_violations=0.005, measured=found)
    assert chosen["train"]["cell"].values.tolist() == ["C1", "C2", "C3", "C4", "C6", "C8"]


@pytest.mark.data
def test_real_light_steps(real_data):
    folder = real_data / "ganglion_light_steps"
    start = np.loadtxt(folder / "stimulus.txt")
    epochs = xr.Dataset(
        {
            "start": ("epoch", start),
            "duration": ("epoch", np.diff(np.r_[start, 415.1536])),
            "label": ("epoch", ["gray", "on", "gray", "off"] * 68),
        }
    )
    trains = {cell: np.loadtxt(folder / f"8_SP_{cell}.txt") for cell in STEP_RATE}
    found = quality(tree(trains, epochs=epochs))
    n, rate = np.array(list(STEP_RATE.values())).T
    np.testing.assert_array_equal(found["n_spikes"], n)
    np.testing.assert_allclose(found["mean_rate"], rate, rtol=0, atol=5e-4)
