"""NIX: files of neo opened, recordings written and opened again, bad files."""

import sys

import h5py
import neo
import numpy as np
import pytest
import quantities as pq
import xarray as xr

import retina_codec.recordings.formats.nix_writing as nix_writing
from retina_codec.recordings import FrozenNoise, open_recording, recording_from_neo, save_recording
from retina_codec.recordings.spikes import SpikeTimes
from retina_codec.recordings.to_neo import recording_to_neo

pytest.importorskip("nixio")

RNG = np.random.default_rng(6)
MARKS = 1.0 + np.arange(20) * 0.5 + RNG.uniform(0, 1e-3, 20)
TRAINS = {f"C{k}": np.sort(RNG.uniform(0, 12, 30 + k)) for k in (1, 2, 10, 11)}
MOVIE = RNG.normal(size=(20, 3, 2)).astype(np.float32)


def segment_of(trains=TRAINS, *, units="s", marks=MARKS, name="s"):
    segment = neo.Segment(name=name)
    for cell, times in trains.items():
        train = neo.SpikeTrain((times * pq.s).rescale(units), t_start=-1e9, t_stop=1e9, name=cell)
        segment.spiketrains.append(train)
    if marks is not None:
        segment.events.append(neo.Event((marks * pq.s).rescale("ms"), name="frames"))
    epoch = neo.Epoch(
        [1, 3] * pq.s, durations=[1, 2] * pq.s, labels=["x", "y"], name="light",
        array_annotations={"direction": [0.0, 90.0] * pq.deg, "kind": np.array(["a", "b"])},
    )  # fmt: skip
    segment.epochs.append(epoch)
    return segment


def written(path, *segments):
    block = neo.Block(name="b")
    block.segments.extend(segments)
    io = neo.NixIO(str(path), mode="ow")
    io.write_block(block)
    io.close()
    return path


@pytest.mark.parametrize("units", ["s", "ms"])
def test_a_file_of_neo_is_what_neo_reads(tmp_path, units):
    path = written(tmp_path / "a.nix", segment_of(units=units))
    found = open_recording(path, stimulus=MOVIE, frame_times="frames")
    io = neo.NixIO(str(path), mode="ro")
    block = io.read_block()
    io.close()
    expected = recording_from_neo(block, stimulus=MOVIE, frame_times="frames", cells=list(TRAINS))
    assert found["train"]["cell"].values.tolist() == ["C1", "C2", "C10", "C11"]
    for node in ("train", "spikes", "frames", "epochs"):
        xr.testing.assert_identical(found[node].to_dataset(), expected[node].to_dataset())
    assert found["epochs"]["direction"].attrs["units"] == "deg"
    assert open_recording(path, stimulus=MOVIE)["train"].identical(found["train"])  # the only event


def test_coarse_spike_times_are_told(tmp_path):
    segment = neo.Segment(name="s")
    times = np.sort(RNG.uniform(0, 4000, 300)).astype(np.float32)
    train = neo.SpikeTrain(times, units="s", t_stop=5000, dtype=np.float32, name="a")
    segment.spiketrains.append(train)
    path = written(tmp_path / "a.nix", segment)
    with pytest.warns(UserWarning, match="32-bit numbers"):
        open_recording(path, stimulus=np.zeros(4000), frame_times=np.arange(4000.0))


def test_what_is_needed_to_write(tmp_path, monkeypatch):
    for name, needed in (("a.nix", "nixio"), ("a.nwb", "pynwb")):
        monkeypatch.setitem(sys.modules, needed, None)
        with pytest.raises(ImportError, match=f"needs {needed}; install it with") as error:
            save_recording(saved_recording(), tmp_path / name)
        assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_channel_with_pulses(tmp_path):
    segment = segment_of(marks=None)
    trace = np.zeros((12_000, 2))
    for mark in np.round(MARKS * 1000).astype(int):
        trace[mark : mark + 100, 1] = 3.3
    segment.analogsignals.append(
        neo.AnalogSignal(trace * pq.V, sampling_rate=1 * pq.kHz, t_start=0 * pq.s, name="adc")
    )
    path = written(tmp_path / "a.nix", segment)
    train = open_recording(path, stimulus=MOVIE, frame_times="adc[1]")["train"]
    np.testing.assert_allclose(train["time"], np.round(MARKS * 1000) / 1000 - 0.0005, atol=1e-9)
    np.save(tmp_path / "marks.npy", MARKS)
    train = open_recording(path, stimulus=MOVIE, frame_times="marks.npy")["train"]
    np.testing.assert_array_equal(train["time"], MARKS)
    with pytest.raises(ValueError, match=r"'adc' is no event.*did you mean 'adc\[[01]\]'"):
        open_recording(path, stimulus=MOVIE, frame_times="adc")


def test_segments_are_in_the_order_of_their_names(tmp_path):
    order = (2, 10, 1)
    segments = [segment_of(name=f"trial {k}", marks=MARKS + k / 100) for k in order]
    path = written(tmp_path / "a.nix", *segments)
    test = open_recording(path, stimulus=MOVIE, frame_times="frames")["test"]
    np.testing.assert_allclose(
        test["repeat_onset"].values % 1, (MARKS[0] + np.array([1, 2, 10]) / 100) % 1
    )
    path = written(tmp_path / "b.nix", segment_of(), segment_of())
    with pytest.raises(ValueError, match="holds 2 segments, but not their order"):
        open_recording(path, stimulus=MOVIE, frame_times="frames")


def saved_recording():
    movie = RNG.normal(size=(20, 2, 3, 2)).astype(np.float32)
    movie[16:20] = movie[6:10]
    labelled = xr.DataArray(
        movie,
        dims=("time", "color", "y", "x"),
        coords={
            "color": ["green", "uv"],
            "epoch": ("time", np.repeat(["a", "bb"], 10)),
            "y": ("y", np.arange(3) * 50.0, {"units": "um"}),
        },
        attrs={"units": "contrast", "gain": 1.5},
    )
    return recording_from_neo(
        segment_of(), stimulus=labelled, frame_times="frames", plan=FrozenNoise(6, 4)
    )


def test_round_trip_is_identical(tmp_path):
    recording = saved_recording()
    recording["train"] = xr.DataTree(
        recording["train"].to_dataset().assign(note=("cell", ["a", "", "ccc", "d"]), depth=7.5)
    )
    path = save_recording(recording, tmp_path / "a.nix")
    again = open_recording(path)
    for attrs in (again.attrs, recording.attrs):
        for name in ("source", "source_format"):
            attrs.pop(name, None)
    xr.testing.assert_identical(again.load(), recording)
    for node in recording.subtree:
        for key, variable in node.variables.items():
            other = again[node.path].variables[key]
            assert other.dtype.kind == variable.dtype.kind, key
            assert other.dtype == variable.dtype or variable.dtype.kind == "U", key
    some = open_recording(path, cells=["C10", "C2"])
    xr.testing.assert_identical(
        some["test"].to_dataset().load(),
        recording["test"].to_dataset().sel(cell=["C10", "C2"]),
    )
    with pytest.raises(ValueError, match=r"^bin_width=0\.01 s"):
        open_recording(path, bin_width=0.01)


def test_what_neo_finds_in_a_file_we_write(tmp_path):
    recording = saved_recording()
    path = save_recording(recording, tmp_path / "a.nix")
    io = neo.NixIO(str(path), mode="ro")
    (block,) = io.read_all_blocks()
    io.close()
    (segment,) = block.segments
    assert block.annotations["parameters"] == recording.attrs["parameters"]
    held = {train.name: train for train in segment.spiketrains}
    for cell, times in TRAINS.items():
        np.testing.assert_array_equal(held[cell].magnitude, times)
    assert segment.events[0].name == "frames"
    np.testing.assert_allclose(segment.events[0].magnitude, MARKS, rtol=1e-15)
    assert segment.epochs[0].name == "light"
    assert segment.epochs[0].labels.tolist() == ["x", "y"]
    assert segment.epochs[0].array_annotations["direction"].tolist() == [0, 90]


def test_the_movie_is_read_frame_by_frame(tmp_path, monkeypatch):
    recording = saved_recording()
    monkeypatch.setattr(nix_writing, "BLOCK_BYTES", 200)  # several blocks
    path = save_recording(recording, tmp_path / "a.nix")
    train = open_recording(path)["train"]
    assert train["stimulus"].chunks is not None
    np.testing.assert_array_equal(train["stimulus"], recording["train"]["stimulus"])
    with h5py.File(path) as file:
        (block,) = file["data"].values()
        sizes = {array["data"].shape for array in block["data_arrays"].values()}
    assert recording["train"]["stimulus"].shape in sizes


def test_a_recording_to_neo_and_back():
    recording = saved_recording()
    block = recording_to_neo(recording)
    (segment,) = block.segments
    assert [train.name for train in segment.spiketrains] == list(TRAINS)
    assert [train.annotations["id"] for train in segment.spiketrains] == list(TRAINS)
    assert segment.epochs[0].array_annotations["direction"].units == pq.deg
    assert segment.epochs[0].array_annotations["kind"].tolist() == ["a", "b"]
    assert '"running_frames": 6' in block.annotations["parameters"]
    assert '"contrast"' in block.annotations["stimuli"]
    assert block.annotations["frames_used"] == "0..19"
    movie = np.concatenate(
        [
            part
            for k in range(2)
            for part in (
                recording["train"]["stimulus"].values[6 * k : 6 * k + 6],
                recording["test"]["stimulus"].values,
            )
        ]
    )
    again = recording_from_neo(
        block,
        stimulus=xr.DataArray(movie, dims=("time", "color", "y", "x")),
        frame_times="frames",
        plan=FrozenNoise(6, 4),
    )
    for node in ("train", "test"):
        for name in ("spike_count", "rate"):
            xr.testing.assert_equal(
                again[node][name].drop_vars("epoch", errors="ignore"),
                recording[node][name].drop_vars("epoch"),
            )
        np.testing.assert_array_equal(again[node]["stimulus"], recording[node]["stimulus"])
    for node in ("spikes", "epochs", "frames"):
        xr.testing.assert_identical(again[node].to_dataset(), recording[node].to_dataset())
    with pytest.raises(TypeError, match="recording is a Dataset"):
        recording_to_neo(recording["train"].to_dataset())


def test_counts_are_not_given_for_spikes_that_were_changed(tmp_path):
    path = save_recording(saved_recording(), tmp_path / "a.nix")
    with h5py.File(path, "r+") as file:
        (block,) = file["data"].values()
        tag = next(
            tag for tag in block["multi_tags"].values() if tag.attrs["type"] == "neo.spiketrain"
        )
        tag["positions/data"][-1] += 1e-3
    with pytest.raises(ValueError, match="its spike trains are not those"):
        open_recording(path)
    anew = open_recording(path, stimulus=MOVIE, frame_times="frames")
    assert SpikeTimes.from_dataset(anew["spikes"]).times.size == sum(map(len, TRAINS.values()))


def test_nothing_is_left_of_a_write_that_fails(tmp_path, monkeypatch):
    path = save_recording(saved_recording(), tmp_path / "a.nix")
    before = path.read_bytes()

    def fail(*_):
        raise RuntimeError("no room")

    monkeypatch.setattr(nix_writing, "_write", fail)
    with pytest.raises(RuntimeError, match="no room"):
        save_recording(saved_recording(), path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.nix"]
    assert path.read_bytes() == before


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.7, 0.99])
def test_a_file_that_was_cut_off(tmp_path, fraction):
    path = written(tmp_path / "a.nix", segment_of())
    held = path.read_bytes()
    path.write_bytes(held[: int(len(held) * fraction)])
    with pytest.raises(OSError, match=r"path='.*a\.nix' is") as error:
        open_recording(path, stimulus=MOVIE, frame_times="frames")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("trains", "marks", "words"),
    [
        ({}, MARKS, "holds no spike trains"),
        ({"a": np.array([])}, MARKS, "none of the 1 cells has a spike"),
        ({"a": np.array([1.0, 3, 2])}, MARKS, "spike 2 of cell 'a'.* times must ascend"),
        ({"a": TRAINS["C1"] * 1e3}, MARKS, "lie after the stimulus"),
        (TRAINS, np.r_[MARKS[:5], MARKS[4:19]], "mark 5 .* repeats mark 4"),
        (TRAINS, -MARKS[::-1], "mark 0 is negative"),
        (TRAINS, None, "no event .*light"),
    ],
)
def test_bad_contents(tmp_path, trains, marks, words):
    path = written(tmp_path / "a.nix", segment_of(trains, marks=marks))
    with pytest.raises(ValueError, match=words) as error:
        open_recording(path, stimulus=MOVIE)
    assert "\n" not in str(error.value)


def test_double_ids_and_nothing_of_neo(tmp_path):
    segment = segment_of()
    segment.spiketrains.append(neo.SpikeTrain([1.0] * pq.s, t_stop=9, name="C1"))
    path = written(tmp_path / "a.nix", segment)
    with pytest.raises(ValueError, match="two spike trains have the cell id 'C1'"):
        open_recording(path, stimulus=MOVIE)
    with pytest.raises(ValueError, match=r"stimulus was not given, and .* holds no movie"):
        open_recording(written(tmp_path / "b.nix", segment_of()))
    with h5py.File(tmp_path / "c.nix", "w") as file:
        file["a"] = 1
    with pytest.raises(ValueError, match="holds 0 blocks of neo"):
        open_recording(tmp_path / "c.nix", stimulus=MOVIE)
