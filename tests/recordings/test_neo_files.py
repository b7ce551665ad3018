"""Files of formats that neo reads, and what is not read."""

import pickle

import neo
import numpy as np
import pytest
import quantities as pq
import xarray as xr

from retina_codec.recordings import open_recording, recording_from_neo

LAYOUT = "holds no frametimes_"
MARKS = np.arange(10) * 0.5
MOVIE = np.random.default_rng(1).normal(size=(10, 2, 2)).astype(np.float32)


def block():
    made, segment = neo.Block(name="b"), neo.Segment(name="s")
    rng = np.random.default_rng(0)
    for k in range(3):
        times = np.sort(rng.uniform(0, 5, 40))
        segment.spiketrains.append(neo.SpikeTrain(times * pq.s, t_stop=6, name=f"C{k}"))
    segment.events.append(neo.Event(MARKS * pq.s, labels=["f"] * 10, name="frames"))
    made.segments.append(segment)
    return made


def test_a_file_of_a_format_with_events(tmp_path):
    neo.io.NeoMatlabIO(str(tmp_path / "a.mat")).write_block(block())
    expected = recording_from_neo(block(), stimulus=MOVIE, frame_times="frames")
    np.save(tmp_path / "movie.npy", MOVIE)
    for stimulus in (MOVIE, "movie.npy", tmp_path / "movie.npy"):
        found = open_recording(tmp_path / "a.mat", format="neo", stimulus=stimulus)
        for node in ("train", "spikes", "frames"):
            np.testing.assert_array_equal(
                found[node].to_dataset().to_array() if node == "frames" else 0,
                expected[node].to_dataset().to_array() if node == "frames" else 0,
            )
        xr.testing.assert_equal(found["train"].to_dataset().load(), expected["train"].to_dataset())
        assert found.attrs["source_format"] == "neo"


def test_plain_text_with_marks_in_a_file_beside(tmp_path):
    # a train a line, as neo's AsciiSpikeTrainIO has them
    trains = [train.magnitude.tolist() for train in block().segments[0].spiketrains]
    (tmp_path / "a.txt").write_text("".join("\t".join(map(repr, t)) + "\n" for t in trains))
    (tmp_path / "marks.txt").write_text("".join(f"{mark!r}\n" for mark in MARKS.tolist()))
    (tmp_path / "levels.txt").write_text("".join(f"{k % 3}\n" for k in range(10)))
    found = open_recording(
        tmp_path / "a.txt", format="neo", stimulus="levels.txt", frame_times="marks.txt"
    )
    expected = recording_from_neo(block(), stimulus=np.arange(10.0) % 3, frame_times=MARKS)["train"]
    np.testing.assert_array_equal(found["train"]["spike_count"], expected["spike_count"])
    np.testing.assert_array_equal(found["train"]["stimulus"], expected["stimulus"])
    with pytest.raises(ValueError, match=r"frame_times='nix.txt' is no event.* it holds none"):
        open_recording(tmp_path / "a.txt", format="neo", stimulus=MOVIE, frame_times="nix.txt")
    with pytest.raises(FileNotFoundError, match=r"stimulus='no.txt' does not exist"):
        open_recording(tmp_path / "a.txt", format="neo", stimulus="no.txt", frame_times=MARKS)


def test_the_example_format_of_neo_is_recognised(tmp_path):
    # its contents are made up by neo whatever is in the file: three units, two segments
    (tmp_path / "a.fake").write_text("anything")
    with pytest.raises(ValueError, match=r"stimulus was not given, and .* holds no movie"):
        open_recording(tmp_path / "a.fake")
    (held,) = neo.io.ExampleIO(str(tmp_path / "a.fake")).read(lazy=False)
    first = held.segments[0]
    marks = np.arange(float(first.t_start), float(first.t_stop), 0.1)
    found = open_recording(
        tmp_path / "a.fake",
        stimulus=np.zeros(len(marks)),
        frame_times=[segment_marks(segment, len(marks)) for segment in held.segments],
    )
    repeats, cells = found["test"].sizes["repeat"], found["test"].sizes["cell"]
    assert (repeats, cells) == (len(held.segments), len(first.spiketrains))
    edges = np.append(marks, marks[-1] + 0.1)
    for number, train in enumerate(first.spiketrains):
        counts = np.histogram(train.rescale("s").magnitude, edges)[0]
        np.testing.assert_array_equal(found["test"]["spike_count"][0, :, number], counts)


def segment_marks(segment, n_marks):
    return float(segment.t_start) + np.arange(n_marks) * 0.1


class Harmful:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was opened",))


@pytest.mark.parametrize("suffix", [".pkl", ".pickle"])
@pytest.mark.parametrize("format", [None, "neo"])
def test_nothing_is_unpickled(tmp_path, suffix, format):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(ValueError, match="is a pickle, which can run any program") as error:
        open_recording(path, format=format, stimulus=MOVIE)
    assert "\n" not in str(error.value)


def test_what_neo_cannot_read(tmp_path):
    (tmp_path / "a.plx").write_bytes(b"no plexon file")
    with pytest.raises(
        OSError, match=r"cannot be read by neo \(PlexonIO: .*check that the file"
    ) as error:
        open_recording(tmp_path / "a.plx", stimulus=MOVIE)
    assert "\n" not in str(error.value)
    (tmp_path / "a.unknown").write_text("x")
    with pytest.raises(ValueError, match="neo knows no reader of spike trains"):
        open_recording(tmp_path / "a.unknown", format="neo", stimulus=MOVIE)
    with pytest.raises(ValueError, match="is a file of no known layout"):
        open_recording(tmp_path / "a.unknown", stimulus=MOVIE)


def test_a_text_file_or_folder_is_not_taken_for_one_of_neo(tmp_path):
    (tmp_path / "a.txt").write_text("1\n2\n")
    for path in (tmp_path, tmp_path / "a.txt"):
        with pytest.raises((ValueError, FileNotFoundError), match=f"no known layout|{LAYOUT}"):
            open_recording(path)
