"""Files are fetched whole and checked, or not at all. The server is on this machine."""

import hashlib
import io
import zipfile

import pytest

from retina_codec import catalogue

BODY = b"0.5\n0.6\n0.7\n0.8\n" * 500


def held(folder):
    """All files beneath `folder`, by their path; hidden ones too."""
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def archive(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name, body in files.items():
            opened.writestr(name, body)
    return buffer.getvalue()


def test_files_arrive_and_are_kept(describe, server, tmp_path):
    describe(files=[server.give("a.txt", BODY), server.give("deep/b.bin", b"\x00\xff", size=2)])
    root = catalogue.fetch_dataset("toy", folder=tmp_path, progress=False)
    assert root == tmp_path / "toy_files"
    assert held(root) == {"a.txt", "deep/b.bin"}
    assert (root / "a.txt").read_bytes() == BODY
    assert server.asked == ["/a.txt", "/deep/b.bin"]
    # What is there is not asked for again; what was lost is.
    (root / "deep/b.bin").unlink()
    catalogue.fetch_dataset("toy", folder=tmp_path, progress=False)
    assert server.asked == ["/a.txt", "/deep/b.bin", "/deep/b.bin"]


def test_a_wrong_checksum_is_refused_and_not_left_behind(describe, server, tmp_path):
    wrong = hashlib.sha256(b"something else").hexdigest()
    describe(files=[server.give("a.txt", BODY, sha256=wrong)])
    with pytest.raises(OSError, match=r"a\.txt could not be fetched") as caught:
        catalogue.fetch_dataset("toy", folder=tmp_path, progress=False)
    assert server.asked == ["/a.txt"]
    assert wrong in str(caught.value)
    assert held(tmp_path / "toy_files") == set()


@pytest.mark.parametrize(
    ("how", "sha256", "size"),
    [
        ("cut", "known", None),
        ("cut", None, None),
        ("cut, length not told", "known", None),
        ("cut, length not told", None, len(BODY)),
    ],
)
def test_a_half_sent_file_is_not_left_behind(describe, server, tmp_path, how, sha256, size):
    file = server.give("a.txt", BODY, how, size=size)
    describe(files=[file if sha256 else file | {"sha256": None}])
    with pytest.raises(OSError, match=r"a\.txt could not be fetched"):
        catalogue.fetch_dataset("toy", folder=tmp_path, progress=False)
    assert server.asked == ["/a.txt"]
    assert held(tmp_path / "toy_files") == set()


def test_the_files_before_a_failure_stay(describe, server, tmp_path):
    gone = server.give("b.txt", BODY)
    del server.bodies["/b.txt"]
    describe(files=[server.give("a.txt", BODY), gone])
    with pytest.raises(OSError, match=r"b\.txt could not be fetched.*404"):
        catalogue.fetch_dataset("toy", folder=tmp_path, progress=False)
    assert held(tmp_path / "toy_files") == {"a.txt"}


def test_a_server_that_is_gone(describe, server, tmp_path):
    describe(files=[server.give("a.txt", BODY)])
    server.shutdown()
    server.server_close()
    with pytest.raises(OSError, match=r"a\.txt could not be fetched") as caught:
        catalogue.fetch_dataset("toy", folder=tmp_path, progress=False)
    message = str(caught.value)
    # Everything that is needed to do it by hand is in the one message, which is one line.
    for needed in (
        "https://doi.org/10.1234/toy.files",
        "https://example.org/toy",
        str(tmp_path / "toy_files"),
        "the files a.txt",
        "Ask nobody.",
    ):
        assert needed in message
    assert "\n" not in message
    assert held(tmp_path / "toy_files") == set()


def test_a_file_without_an_address(describe, server, tmp_path):
    listed = [server.give("a.txt", BODY), {"name": "b.txt", "sha256": None}]
    describe(files=listed)
    with pytest.raises(OSError, match=r"no direct address of b\.txt is known.*10\.1234/toy\.files"):
        catalogue.fetch_dataset("toy", folder=tmp_path, progress=False)
    assert server.asked == []
    # The file put there by hand, the rest can be fetched.
    root = tmp_path / "toy_files"
    root.mkdir()
    (root / "b.txt").write_text("by hand")
    catalogue.fetch_dataset("toy", folder=tmp_path, progress=False)
    assert held(root) == {"a.txt", "b.txt"}


@pytest.mark.parametrize("name", ["karamanlis_2024", "goldin_2022", "sridhar_2025"])
def test_sets_without_a_direct_address_say_where_they_are(name, tmp_path):
    info = catalogue.dataset(name)
    with pytest.raises(OSError, match="no direct address of its files is known") as caught:
        catalogue.fetch_dataset(name, folder=tmp_path)
    for needed in (info.data_doi or "no DOI is known", info.landing_page, str(tmp_path / name)):
        assert needed in str(caught.value)


def test_a_file_of_mine_is_never_overwritten(describe, server, tmp_path):
    describe(files=[server.give("a.txt", BODY)])
    root = tmp_path / "toy_files"
    root.mkdir()
    (root / "a.txt").write_text("my own")
    with pytest.raises(OSError, match=r"its checksum is another one\. Move it away"):
        catalogue.fetch_dataset("toy", folder=tmp_path, progress=False)
    assert (root / "a.txt").read_text() == "my own"
    assert server.asked == []


def test_an_unknown_checksum_is_said(describe, server, tmp_path):
    describe(files=[server.give("a.txt", BODY, sha256=None)])
    with pytest.warns(UserWarning, match=hashlib.sha256(BODY).hexdigest()) as caught:
        catalogue.fetch_dataset("toy", folder=tmp_path, progress=False)
    assert caught[0].filename == __file__  # the warning points at the caller
    assert held(tmp_path / "toy_files") == {"a.txt"}


def test_an_archive_is_unpacked_once(describe, server, tmp_path):
    body = archive({"top/one/r.h5": "1", "top/two/r.h5": "2", "__MACOSX/one/r.h5": "shadow"})
    describe(recordings="**/*.h5", files=[server.give("all.zip", body, unpack=True)])
    root = catalogue.fetch_dataset("toy", folder=tmp_path, progress=False)
    assert {"top/one/r.h5", "top/two/r.h5"} <= held(root)
    assert not any(name.endswith(".zip") for name in held(root))
    catalogue.fetch_dataset("toy", folder=tmp_path, progress=False)
    assert server.asked == ["/all.zip"]


@pytest.mark.parametrize("body", [b"no archive", archive({"top/r": "1" * 5000})[:-40]])
def test_a_broken_archive_leaves_nothing(describe, server, tmp_path, body):
    describe(recordings="**/*.h5", files=[server.give("all.zip", body, unpack=True)])
    with pytest.raises(OSError, match=r"all\.zip could not be fetched.*zip file"):
        catalogue.fetch_dataset("toy", folder=tmp_path, progress=False)
    assert held(tmp_path / "toy_files") == set()


def test_an_archive_does_not_reach_out_of_the_folder_or_over_files(describe, server, tmp_path):
    body = archive({"top/r": "new"})
    describe(recordings="**/*.h5", files=[server.give("all.zip", body, unpack=True)])
    standing = tmp_path / "toy_files" / "top"
    standing.mkdir(parents=True)
    (standing / "r").write_text("my own")
    with pytest.raises(OSError, match=r"top stands in .* already"):
        catalogue.fetch_dataset("toy", folder=tmp_path, progress=False)
    assert held(tmp_path / "toy_files") == {"top/r"}
    assert (standing / "r").read_text() == "my own"
    listed = server.give("b.zip", archive({"../../escaped": "1"}), unpack=True)
    describe(folder="other", recordings="*.h5", files=[listed])
    catalogue.fetch_dataset("toy", folder=tmp_path, progress=False)
    assert not list(tmp_path.parent.glob("escaped"))
    assert not (tmp_path / "escaped").exists()


def test_the_data_folder_is_the_argument_the_variable_or_the_cache(
    describe, server, tmp_path, monkeypatch
):
    import pooch

    describe(files=[server.give("a.txt", BODY)])
    monkeypatch.setenv("RETINA_CODEC_DATA", str(tmp_path / "named"))
    root = catalogue.fetch_dataset("toy", folder=tmp_path / "given", progress=False)
    assert root == tmp_path / "given" / "toy_files"
    assert catalogue.fetch_dataset("toy", progress=False) == tmp_path / "named" / "toy_files"
    monkeypatch.setenv("RETINA_CODEC_DATA", "")
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    expected = tmp_path / "cache" / "retina-codec" / "toy_files"
    assert catalogue.fetch_dataset("toy", progress=False) == expected


def test_an_unknown_name(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'goldin_2022'"):
        catalogue.fetch_dataset("goldin_2021", folder=tmp_path)


@pytest.mark.parametrize("progress", [True, False])
def test_nothing_is_printed_where_there_is_no_terminal(describe, server, tmp_path, capfd, progress):
    import pooch

    before = pooch.get_logger().level
    describe(files=[server.give("a.txt", BODY), server.give("b.txt", BODY)])
    catalogue.fetch_dataset("toy", folder=tmp_path / "two", progress=progress)
    describe(files=[server.give("a.txt", BODY)])
    catalogue.fetch_dataset("toy", folder=tmp_path / "one", progress=progress)
    assert capfd.readouterr() == ("", "")
    assert pooch.get_logger().level == before


def test_a_bar_is_shown_on_a_terminal(describe, server, tmp_path, monkeypatch, capsys):
    describe(files=[server.give("a.txt", BODY)])
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    catalogue.fetch_dataset("toy", folder=tmp_path, progress=True)
    assert "100%" in capsys.readouterr().err
