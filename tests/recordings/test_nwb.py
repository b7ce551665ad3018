"""NWB: files of pynwb and of neo opened, recordings written and opened again, bad files."""

import datetime
import json
import logging
import tracemalloc
from pathlib import Path

import dask.array as da
import h5py
import neo
import numpy as np
import pytest
import quantities as pq
import xarray as xr

import retina_codec.recordings.formats.nwb_writing as nwb_writing
from retina_codec.recordings import FrozenNoise, open_recording, recording_from_neo, save_recording
from retina_codec.recordings.spikes import SpikeTimes
from retina_codec.recordings.to_neo import recording_to_neo

pynwb = pytest.importorskip("pynwb")

START = datetime.datetime(2020, 1, 2, 3, tzinfo=datetime.UTC)
OWN_ATTRS = ("source", "source_format")
RNG = np.random.default_rng(5)
MARKS = 1.0 + np.arange(20) * 0.5 + RNG.uniform(0, 1e-3, 20)
TRAINS = {f"u{k}": np.sort(RNG.uniform(0, 12, 30 + k)) for k in range(4)}
MOVIE = RNG.normal(size=(20, 3, 2)).astype(np.float32)  # (frame, y, x)

pytestmark = [
    pytest.mark.filterwarnings("ignore:AnnotationSeries is deprecated"),
    pytest.mark.filterwarnings("ignore:validate. Using positional arguments"),
    pytest.mark.filterwarnings("ignore:.* of the spikes lie"),
]


def new_file(trains=TRAINS, **columns):
    file = pynwb.NWBFile("a session", "id", START)
    for name in columns:
        file.add_unit_column(name, name)
    for number, times in enumerate(trains.values()):
        own = {name: values[number] for name, values in columns.items()}
        file.add_unit(spike_times=times, **own)
    return file


def written(file, path):
    with pynwb.NWBHDF5IO(str(path), "w") as io:
        io.write(file)
    return path


def presented(movie=MOVIE, *, name="noise", data=None, **timing):
    timing = timing or {"timestamps": MARKS}
    data = movie.transpose(0, 2, 1) if data is None else data  # the standard has x before y
    return pynwb.image.OpticalSeries(
        name=name, data=data, unit="1", distance=1.0, field_of_view=[1.0, 1.0],
        orientation="none", **timing,
    )  # fmt: skip


def expected_counts(edges, trains=TRAINS):
    return np.stack([np.histogram(times, edges)[0] for times in trains.values()], 1)


def edges_of(marks):
    return np.append(marks, marks[-1] + np.diff(marks).mean())


def test_a_file_of_pynwb_with_everything_in_it(tmp_path):
    file = new_file(unit_name=list(TRAINS))
    file.add_stimulus(presented())
    file.add_trial_column("direction", "degrees")
    file.add_trial_column("condition", "what")
    for k in range(3):
        file.add_trial(1.0 + 2 * k, 2.5 + 2 * k, direction=90.0 * k, condition=f"c{k}")
    file.add_epoch(0.5, 11.0, ["whole", "light"])
    path = written(file, tmp_path / "a.nwb")
    recording = open_recording(path)
    train = recording["train"].to_dataset()
    assert train["cell"].values.tolist() == list(TRAINS)
    np.testing.assert_array_equal(train["time"], MARKS)
    np.testing.assert_array_equal(train["stimulus"], MOVIE)
    assert train["stimulus"].dims == ("time", "y", "x")
    assert isinstance(train["stimulus"].data, da.Array)
    inside = np.concatenate(list(TRAINS.values()))
    assert inside[inside > edges_of(MARKS)[-1]].size
    np.testing.assert_array_equal(train["spike_count"], expected_counts(edges_of(MARKS)))
    spikes = SpikeTimes.from_dataset(recording["spikes"])
    for number, times in enumerate(TRAINS.values()):
        np.testing.assert_array_equal(spikes.of(number), times)
    epochs = recording["epochs"].to_dataset()
    assert epochs["label"].values.tolist() == ["whole, light", "c0", "c1", "c2"]
    assert epochs["source"].values.tolist() == ["epochs", "trials", "trials", "trials"]
    np.testing.assert_array_equal(epochs["direction"], [np.nan, 0, 90, 180])
    np.testing.assert_allclose(epochs["duration"], [10.5, 1.5, 1.5, 1.5])
    assert recording.attrs["source_format"] == "nwb"
    assert recording.attrs["session_start_time"].startswith("2020-01-02T03")
    some = open_recording(path, cells=["u2", "u0"])
    np.testing.assert_array_equal(some["train"]["spike_count"], train["spike_count"][:, [2, 0]])


def test_ids_where_units_have_no_names_of_their_own(tmp_path):
    file = new_file(unit_name=["a", "b", "a", "c"])
    file.add_stimulus(presented())
    recording = open_recording(written(file, tmp_path / "a.nwb"))
    assert recording["train"]["cell"].values.tolist() == ["0", "1", "2", "3"]


def test_a_movie_with_a_rate_and_colours(tmp_path):
    colours = RNG.normal(size=(20, 2, 3, 3)).astype(np.float32)  # (frame, x, y, colour)
    file = new_file()
    file.add_stimulus(presented(data=colours, rate=2.0, starting_time=1.5))
    train = open_recording(written(file, tmp_path / "a.nwb"))["train"]
    np.testing.assert_allclose(train["time"], 1.5 + np.arange(20) / 2)
    assert train["stimulus"].dims == ("time", "color", "y", "x")
    np.testing.assert_array_equal(train["stimulus"], colours.transpose(0, 3, 2, 1))


def test_several_movies_are_nodes_by_name(tmp_path):
    file = new_file()
    file.add_stimulus(presented(MOVIE[:8], timestamps=MARKS[:8]))
    file.add_stimulus(presented(MOVIE[8:], name="bars", timestamps=MARKS[8:]))
    path = written(file, tmp_path / "a.nwb")
    recording = open_recording(path)
    assert set(recording.children) == {"noise", "bars", "spikes", "frames"}
    np.testing.assert_array_equal(recording["bars"]["stimulus"], MOVIE[8:])
    one = open_recording(path, stimulus="noise")
    np.testing.assert_array_equal(one["train"]["stimulus"], MOVIE[:8])
    with pytest.raises(ValueError, match=r"frame_times was given, .* several movies"):
        open_recording(path, frame_times="noise")


@pytest.mark.parametrize("suffix", [".h5", ".npy"])
def test_a_movie_in_a_file_beside(tmp_path, suffix):
    if suffix == ".npy":
        np.save(tmp_path / "movie.npy", MOVIE)
    else:
        with h5py.File(tmp_path / "movie.h5", "w") as store:
            store["frames"] = MOVIE
    file = new_file()
    series = pynwb.image.ImageSeries(
        name="noise", external_file=[f"movie{suffix}"], format="external", starting_frame=[0],
        timestamps=MARKS, unit="1",
    )  # fmt: skip
    file.add_stimulus(series)
    path = written(file, tmp_path / "a.nwb")
    train = open_recording(path)["train"]
    assert isinstance(train["stimulus"].data, da.Array)
    np.testing.assert_array_equal(train["stimulus"], MOVIE)
    (tmp_path / f"movie{suffix}").unlink()
    with pytest.raises(FileNotFoundError, match="which does not exist; put it beside"):
        open_recording(path)


def test_a_video_beside_is_refused(tmp_path):
    file = new_file()
    series = pynwb.image.ImageSeries(
        name="noise", external_file=["movie.avi"], format="external", starting_frame=[0],
        timestamps=MARKS, unit="1",
    )  # fmt: skip
    file.add_stimulus(series)
    with pytest.raises(ValueError, match=r"in 'movie\.avi', which cannot be read"):
        open_recording(written(file, tmp_path / "a.nwb"))


def test_images_shown_by_number(tmp_path):
    images = [pynwb.image.GrayscaleImage(name=f"i{k}", data=MOVIE[k].T) for k in range(3)]
    order = pynwb.base.ImageReferences(name="order_of_images", data=images)
    held = pynwb.base.Images(name="scenes", images=images, order_of_images=order)
    file = new_file()
    file.add_stimulus_template(held)
    numbers = np.array([2, 0, 1, 0] * 5, dtype=np.uint64)
    file.add_stimulus(
        pynwb.image.IndexSeries(
            name="shown", data=numbers, indexed_images=held, unit="N/A", timestamps=MARKS
        )
    )
    train = open_recording(written(file, tmp_path / "a.nwb"))["train"]
    np.testing.assert_array_equal(train["stimulus"], MOVIE[:3][numbers])


def test_a_series_shown_by_number(tmp_path):
    # as older versions of the format have it
    file = new_file()
    file.add_stimulus_template(presented(MOVIE[:3], timestamps=[0.0, 1.0, 2.0]))
    path = written(file, tmp_path / "a.nwb")
    numbers = np.array([2, 0, 1, 0] * 5)
    with h5py.File(path, "r+") as opened:
        shown = opened["stimulus/presentation"].create_group("shown")
        shown["data"], shown["timestamps"] = numbers, MARKS
        shown["indexed_timeseries"] = h5py.SoftLink("/stimulus/templates/noise")
    train = open_recording(path)["train"]
    np.testing.assert_array_equal(train["stimulus"], MOVIE[:3][numbers])
    with h5py.File(path, "r+") as opened:
        opened["stimulus/presentation/shown/data"][4] = 3
    with pytest.raises(ValueError, match=r"shows frames 0\.\.3 of 3; the file is damaged"):
        open_recording(path)


def test_a_full_field_series(tmp_path):
    file = new_file()
    values = RNG.normal(size=20)
    file.add_stimulus(pynwb.TimeSeries(name="light", data=values, timestamps=MARKS, unit="V"))
    train = open_recording(written(file, tmp_path / "a.nwb"))["train"]
    assert train["stimulus"].shape == (20, 1, 1)
    np.testing.assert_array_equal(train["stimulus"].values.ravel(), values.astype(np.float32))
    assert train["stimulus"].attrs["units"] == "V"


def test_a_movie_with_a_conversion_and_no_timing(tmp_path):
    file = new_file()
    file.add_stimulus(presented())
    path = written(file, tmp_path / "a.nwb")
    with h5py.File(path, "r+") as opened:
        series = opened["stimulus/presentation/noise"]
        series["data"].attrs["conversion"], series["data"].attrs["offset"] = 2.0, 0.5
        del series["timestamps"]
    train = open_recording(path, frame_times=MARKS)["train"]
    np.testing.assert_allclose(train["stimulus"], 2 * MOVIE + 0.5, rtol=1e-6)
    with pytest.raises(ValueError, match="'noise' has neither timestamps nor a rate; name"):
        open_recording(path)


def test_events_and_channels_as_frame_marks(tmp_path):
    file = new_file()
    file.add_acquisition(
        pynwb.misc.AnnotationSeries(name="frames", data=["f"] * 20, timestamps=MARKS)
    )
    trace = np.zeros(13_000)
    for mark in np.round(MARKS * 1000).astype(int):
        trace[mark : mark + 100] = 3.3
    file.add_acquisition(
        pynwb.TimeSeries(name="trigger", data=trace, rate=1000.0, starting_time=0.0, unit="V")
    )
    module = file.create_processing_module("sync", "clock")
    module.add(pynwb.TimeSeries(name="flips", data=np.ones(20), timestamps=MARKS, unit="1"))
    path = written(file, tmp_path / "a.nwb")
    np.save(tmp_path / "movie.npy", MOVIE)
    counts = expected_counts(edges_of(MARKS))
    for given in ("frames", "flips"):
        for movie in ("movie.npy", MOVIE):
            train = open_recording(path, stimulus=movie, frame_times=given)["train"]
            np.testing.assert_array_equal(train["time"], MARKS)
            np.testing.assert_array_equal(train["spike_count"], counts)
    train = open_recording(path, stimulus="movie.npy", frame_times="trigger")["train"]
    np.testing.assert_allclose(train["time"], np.round(MARKS * 1000) / 1000 - 0.0005, atol=1e-9)
    (tmp_path / "marks.txt").write_text("".join(f"{mark!r}\n" for mark in MARKS.tolist()))
    train = open_recording(path, stimulus="movie.npy", frame_times="marks.txt")["train"]
    np.testing.assert_array_equal(train["time"], MARKS)
    with pytest.raises(ValueError, match=r"frame_times was not given, .* events frames, flips"):
        open_recording(path, stimulus="movie.npy")
    with pytest.raises(ValueError, match=r"frame_times='flip' is no event.*did you mean 'flips'"):
        open_recording(path, stimulus="movie.npy", frame_times="flip")
    with pytest.raises(ValueError, match="holds no movie in stimulus/presentation"):
        open_recording(path, frame_times="frames")


@pytest.mark.skipif(
    not hasattr(pynwb.NWBFile, "create_events_table"), reason="tables of events came with pynwb 4"
)
def test_a_table_of_events_as_frame_marks(tmp_path):
    from pynwb.event import EventsTable

    table = EventsTable(name="flips", description="display")
    for mark in MARKS:
        table.add_row(timestamp=float(mark))
    file = new_file()
    file.add_events_table(table)
    train = open_recording(written(file, tmp_path / "a.nwb"), stimulus=MOVIE)["train"]
    np.testing.assert_array_equal(train["time"], MARKS)


# Files of neo


def neo_block(n_segments=1):
    block = neo.Block(name="b", session_start_time=START)
    for number in range(n_segments):
        segment = neo.Segment(name=f"s{number}")
        for name, times in TRAINS.items():
            segment.spiketrains.append(neo.SpikeTrain(times * pq.s, t_stop=20, name=name))
        segment.events.append(neo.Event(MARKS * pq.s, labels=["f"] * 20, name="frames"))
        segment.epochs.append(
            neo.Epoch([1, 3] * pq.s, durations=[1, 2] * pq.s, labels=["x", "y"], name="light")
        )
        block.segments.append(segment)
    block.check_relationships()
    return block


def test_a_file_of_neo_is_what_neo_holds(tmp_path):
    expected = recording_from_neo(neo_block(), stimulus=MOVIE, frame_times="frames")
    io = neo.io.NWBIO(str(tmp_path / "a.nwb"), mode="w")
    io.write_all_blocks([neo_block()])
    found = open_recording(tmp_path / "a.nwb", stimulus=MOVIE, frame_times="s0  frames 0".strip())
    for node in ("train", "spikes", "frames", "epochs"):
        xr.testing.assert_identical(found[node].to_dataset(), expected[node].to_dataset())


def test_segments_of_neo_are_repeats(tmp_path):
    # neo gives every event a name with its segment, unless the name is kept in an annotation
    block = neo_block(2)
    for segment in block.segments:
        segment.events[0].description = json.dumps({"original_name": "frames"})
    neo.io.NWBIO(str(tmp_path / "a.nwb"), mode="w").write_all_blocks([block])
    test = open_recording(tmp_path / "a.nwb", stimulus=MOVIE, frame_times="frames")["test"]
    counts = expected_counts(edges_of(MARKS))
    assert test["spike_count"].sizes["repeat"] == 2
    np.testing.assert_array_equal(test["spike_count"], np.stack([counts, counts]))


def test_neo_keeps_the_names_that_its_writer_changes(tmp_path):
    recording = recording_from_neo(neo_block(), stimulus=MOVIE, frame_times="frames")
    block = recording_to_neo(recording)
    block.annotate(session_start_time=START)
    neo.io.NWBIO(str(tmp_path / "a.nwb"), mode="w").write_all_blocks([block])
    (again,) = neo.io.NWBIO(str(tmp_path / "a.nwb"), mode="r").read_all_blocks()
    assert again.segments[0].events[0].name != "frames"
    assert again.segments[0].epochs[0].name == "light"
    for found in (
        recording_from_neo(again, stimulus=MOVIE, frame_times="frames"),
        open_recording(tmp_path / "a.nwb", stimulus=MOVIE, frame_times="frames"),
    ):
        for node in ("train", "spikes", "epochs"):
            xr.testing.assert_identical(found[node].to_dataset(), recording[node].to_dataset())


# Writing and opening again


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
        attrs={"units": "contrast"},
    )
    segment = neo_block().segments[0]
    segment.epochs[0].array_annotate(direction=[0.0, 90.0] * pq.deg)
    return recording_from_neo(
        segment, stimulus=labelled, frame_times="frames", plan=FrozenNoise(6, 4)
    )


def test_round_trip_is_identical(tmp_path):
    recording = saved_recording()
    path = save_recording(recording, tmp_path / "a.nwb")
    assert {file.name for file in tmp_path.iterdir()} == {"a.nwb", "a_stimulus.h5"}
    with open_recording(path) as again:
        for attrs in (again.attrs, recording.attrs):
            for name in OWN_ATTRS:
                attrs.pop(name, None)
        xr.testing.assert_identical(again.load(), recording)
        for node in recording.subtree:
            for key, variable in node.variables.items():
                other = again[node.path].variables[key]
                assert other.attrs == variable.attrs, key
                assert other.dtype.kind == variable.dtype.kind, key
                assert other.dtype == variable.dtype or variable.dtype.kind == "U", key
    with open_recording(path, cells=["u3", "u1"]) as some:
        xr.testing.assert_identical(
            some["test"].to_dataset().load(),
            recording["test"].to_dataset().sel(cell=["u3", "u1"]),
        )
        assert some["spikes"]["n_spikes"].values.tolist() == [33, 31]
    with pytest.raises(ValueError, match=r"^bin_width=0\.01 s"):
        open_recording(path, bin_width=0.01)
    # once more, over what is there
    save_recording(recording, path)
    with open_recording(path) as third:
        assert third["train"].load().identical(recording["train"])


def test_what_others_find_in_a_file_we_write(tmp_path, caplog):
    recording = saved_recording()
    path = save_recording(recording, tmp_path / "a.nwb")
    with pynwb.NWBHDF5IO(str(path), "r") as io:
        assert not pynwb.validate(io=io)
        file = io.read()
        assert file.units["_name"][:].tolist() == list(TRAINS)
        for number, times in enumerate(TRAINS.values()):
            np.testing.assert_array_equal(file.units["spike_times"][number], times)
        np.testing.assert_array_equal(file.acquisition["frames"].timestamps[:], MARKS)
        template = file.stimulus_template["train"]
        assert list(template.external_file[:]) == ["a_stimulus.h5"]
        with h5py.File(tmp_path / template.external_file[0]) as beside:
            frames = beside["train/stimulus"][()]
        np.testing.assert_array_equal(frames, recording["train"]["stimulus"])
        shown = file.stimulus["test"]
        assert shown.data[:].tolist() == [0, 1, 2, 3] * 2
        onsets = recording["test"]["repeat_onset"].values
        np.testing.assert_array_equal(shown.timestamps[:].reshape(2, 4)[:, 0], onsets)
        assert file.epochs["tags"][0] == ["x"]
        assert file.epochs["direction"][:].tolist() == [0, 90]
    with caplog.at_level(logging.ERROR):
        (block,) = neo.io.NWBIO(str(path), "r").read_all_blocks()
    (segment,) = block.segments
    assert [train.name for train in segment.spiketrains] == list(TRAINS)
    assert segment.events[0].name == "frames"
    assert segment.epochs[0].name == "light"


def test_a_recording_made_anew_from_a_file_we_wrote(tmp_path):
    recording = recording_from_neo(neo_block(), stimulus=MOVIE, frame_times="frames")
    path = save_recording(recording, tmp_path / "a.nwb")
    (tmp_path / "a_stimulus.h5").unlink()
    with pytest.raises(FileNotFoundError, match=r"'a_stimulus\.h5', which is not beside it"):
        open_recording(path)
    again = open_recording(path, stimulus=MOVIE, frame_times="frames")
    for node in ("train", "spikes", "frames"):
        xr.testing.assert_identical(again[node].to_dataset(), recording[node].to_dataset())


def test_counts_are_not_given_for_spikes_that_were_changed(tmp_path):
    path = save_recording(saved_recording(), tmp_path / "a.nwb")
    with h5py.File(path, "r+") as file:
        file["units/spike_times"][0] *= 0.5
    with pytest.raises(ValueError, match="its spike trains are not those") as error:
        open_recording(path)
    assert "\n" not in str(error.value)


def test_files_that_do_not_belong_together(tmp_path):
    path = save_recording(saved_recording(), tmp_path / "a.nwb")
    other = save_recording(saved_recording(), tmp_path / "b.nwb")
    assert other.exists()
    (tmp_path / "b_stimulus.h5").replace(tmp_path / "a_stimulus.h5")
    with pytest.raises(OSError, match=r"'a_stimulus\.h5' beside it is of another recording"):
        open_recording(path)
    (tmp_path / "a_stimulus.h5").write_bytes((tmp_path / "a_stimulus.h5").read_bytes()[:3000])
    with pytest.raises(OSError, match=r"'a_stimulus\.h5' beside it is cut off or damaged") as error:
        open_recording(path)
    assert "\n" not in str(error.value)


def test_nothing_is_left_of_a_write_that_fails(tmp_path, monkeypatch):
    path = save_recording(saved_recording(), tmp_path / "a.nwb")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def fail(*_):
        raise RuntimeError("no room")

    monkeypatch.setattr(nwb_writing, "_add_units", fail)
    with pytest.raises(RuntimeError, match="no room"):
        save_recording(saved_recording(), path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_recording_of_counts_only(tmp_path, make_node):
    counted = xr.DataTree.from_dict({"/train": make_node()})
    for name in ("a.nwb", "a.nix"):
        with pytest.raises(ValueError, match=r"no spike times .* save it as \.zarr or \.nc"):
            save_recording(counted, tmp_path / name)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"ending in \.nwb, \.nix, \.zarr, \.nc"):
        save_recording(counted, tmp_path / "a.mat")


def test_large_movies_are_written_and_opened_block_by_block(tmp_path):
    n = 6000
    movie = np.lib.format.open_memmap(tmp_path / "movie.npy", "w+", np.uint8, (n, 100, 100))
    movie[:] = np.arange(n)[:, None, None] % 251  # 240 MB as float32
    del movie
    trains = [neo.SpikeTrain(np.arange(0.05, 60, 0.1) * pq.s, t_stop=90, name="a")]
    recording = recording_from_neo(
        trains, stimulus=tmp_path / "movie.npy", frame_times=np.arange(n) * 0.01
    )
    tracemalloc.start()
    path = save_recording(recording, tmp_path / "a.nwb")
    again = open_recording(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 120e6
    assert (again["train"]["stimulus"][5234].values == 5234 % 251).all()


# Bad files


def cut(path: Path, fraction: float) -> Path:
    held = path.read_bytes()
    path.write_bytes(held[: int(len(held) * fraction)])
    return path


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.7, 0.99])
def test_a_file_that_was_cut_off(tmp_path, fraction):
    file = new_file()
    file.add_stimulus(presented())
    path = cut(written(file, tmp_path / "a.nwb"), fraction)
    with pytest.raises(OSError, match=r"path='.*a\.nwb' is") as error:
        open_recording(path)
    assert "\n" not in str(error.value)


def one_line(error):
    assert "\n" not in str(error.value)


def test_files_without_units_or_with_bad_ones(tmp_path):
    bare = pynwb.NWBFile("a", "b", START)
    bare.add_stimulus(presented())
    with pytest.raises(ValueError, match="holds no table 'units'") as error:
        open_recording(written(bare, tmp_path / "bare.nwb"))
    one_line(error)
    unsorted = dict(TRAINS, u1=np.array([2.0, 5.0, 3.0]))
    bad = {
        "unsorted": (unsorted, "spike 2 of cell '1'.* comes after one at 5 s; times must ascend"),
        "nan": (dict(TRAINS, u2=np.array([1.0, np.nan])), "spike 1 of cell '2' is nan"),
        "silent": ({"a": np.array([]), "b": np.array([])}, "none of the 2 cells has a spike"),
        "ms": ({n: t * 1000 for n, t in TRAINS.items()}, "lie after the stimulus"),
        "us": ({n: t * 1e6 for n, t in TRAINS.items()}, "lie after the stimulus"),
        "seconds as ms": ({"a": np.arange(400.0) * 1e-4 + 1.0}, "fires .* times a second"),
    }
    for name, (trains, words) in bad.items():
        file = new_file(trains)
        file.add_stimulus(presented())
        with pytest.raises(ValueError, match=words) as error:
            open_recording(written(file, tmp_path / f"{name}.nwb"))
        one_line(error)


def damaged(path, name, values):
    with h5py.File(path, "r+") as file:
        attrs = dict(file[name].attrs)
        del file[name]
        file[name] = values
        file[name].attrs.update(attrs)
    return path


def test_tables_that_contradict_themselves(tmp_path):
    file = new_file()
    file.add_stimulus(presented())
    path = written(file, tmp_path / "a.nwb")
    held = path.read_bytes()
    total = sum(map(len, TRAINS.values()))
    with pytest.raises(ValueError, match=f"{total - 3} spike times, of which {total} belong"):
        open_recording(damaged(path, "units/spike_times", np.zeros(total - 3)))
    path.write_bytes(held)
    with pytest.raises(ValueError, match="the index of the cells descends"):
        open_recording(damaged(path, "units/spike_times_index", [30, 20, 93, total]))
    path.write_bytes(held)
    with h5py.File(path, "r+") as opened:
        del opened["units/spike_times_index"]
    with pytest.raises(ValueError, match="units has no 'spike_times_index'"):
        open_recording(path)
    path.write_bytes(held)
    empty = np.empty(0)
    for name in ("spike_times", "spike_times_index", "id"):
        damaged(path, f"units/{name}", empty.astype(int) if "i" in name[-5:] else empty)
    with pytest.raises(ValueError, match="units has no rows"):
        open_recording(path)


@pytest.mark.parametrize(
    ("marks", "words"),
    [
        (np.r_[-1.0, MARKS[1:]], "mark 0 is negative"),
        (np.r_[MARKS[:5], MARKS[4:19]], "mark 5 .* repeats mark 4"),
        (np.r_[MARKS[:5], 0.5, MARKS[6:]], "mark 5 .* is earlier than mark 4"),
        (np.r_[MARKS[:5], np.nan, MARKS[6:]], "mark 5 is nan"),
        (MARKS[:15], "stimulus has 20 frames but frame_times has 15"),
    ],
)
def test_bad_frame_marks(tmp_path, marks, words):
    file = new_file()
    file.add_acquisition(
        pynwb.misc.AnnotationSeries(name="frames", data=["f"] * len(marks), timestamps=marks)
    )
    path = written(file, tmp_path / "a.nwb")
    with pytest.raises(ValueError, match=words) as error:
        open_recording(path, stimulus=MOVIE, frame_times="frames")
    one_line(error)


def test_thousands_of_units(tmp_path):
    rng = np.random.default_rng(0)
    trains = [np.sort(rng.uniform(0, 10, 200)) for _ in range(2000)]
    parts = SpikeTimes.from_trains({f"n{k}": times for k, times in enumerate(trains)})
    recording = xr.DataTree.from_dict({"/spikes": parts.to_dataset()})
    made = recording_from_neo(
        [neo.SpikeTrain(trains[0], units="s", t_stop=10, name="n0")],
        stimulus=np.zeros(10), frame_times=np.arange(10.0),
    )  # fmt: skip
    recording["train"] = made["train"]
    path = save_recording(recording, tmp_path / "a.nwb")
    found = open_recording(path, stimulus=np.zeros(10), frame_times=np.arange(10.0))
    assert found["train"].sizes["cell"] == 2000
    np.testing.assert_array_equal(found["spikes"]["spike_time"], np.concatenate(trains))
    np.testing.assert_array_equal(
        found["train"]["spike_count"][:, 1234], np.histogram(trains[1234], np.arange(11.0))[0]
    )


@pytest.mark.data
@pytest.mark.parametrize("name", ["a.nwb", "a.nix"])
def test_round_trip_of_the_real_noise_recording(real_data, tmp_path, name):
    with pytest.warns(UserWarning):
        recording = open_recording(real_data / "ganglion_fullfield_noise")
    again = open_recording(save_recording(recording, tmp_path / name))
    for node in ("train", "test", "spikes", "frames"):
        xr.testing.assert_identical(again[node].to_dataset().load(), recording[node].to_dataset())
    io = neo.io.NWBIO(str(tmp_path / name), "r") if name == "a.nwb" else None
    if io is not None:
        (block,) = io.read_all_blocks()
        sizes = {train.name: len(train) for train in block.segments[0].spiketrains}
        # the spikes of the eight cells, data/README.md section 1
        assert sizes == dict(
            zip(
                [f"C{k}" for k in range(1, 9)],
                [23173, 20577, 14631, 26632, 13105, 7747, 76111, 6740],
                strict=True,
            )
        )
