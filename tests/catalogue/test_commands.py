"""What the command line says about data sets."""

import pytest

from retina_codec import catalogue


def test_list_has_a_line_for_each_set(tmp_path):
    lines = catalogue.list_command(tmp_path).splitlines()
    table = lines[: lines.index("")]
    assert [line.split()[0] for line in table[1:]] == catalogue.dataset_names()
    (sample,) = [line for line in table if line.startswith("simulated_sample")]
    assert sample.endswith("yes, with the package")
    others = [line for line in table[1:] if not line.startswith("simulated_sample")]
    assert all(line.endswith("  no") for line in others)
    assert lines[-1] == f"Files are looked for in {tmp_path}"


def test_list_tells_whole_from_part(describe, tmp_path):
    describe(files=[{"name": name, "sha256": None} for name in ("a", "b", "c")])
    root = tmp_path / "toy_files"
    root.mkdir()
    (root / "a").touch()
    assert (
        catalogue.list_command(tmp_path).splitlines()[1].endswith("in part, 2 of 3 files missing")
    )
    for name in ("b", "c"):
        (root / name).touch()
    assert catalogue.list_command(tmp_path).splitlines()[1].endswith("  yes")


def test_show_tells_what_is_known(describe, tmp_path):
    describe(files=[{"name": "a.txt", "sha256": None}])
    (tmp_path / "toy_files").mkdir()
    text = catalogue.show_command("toy", tmp_path)
    for told in (
        "toy: Two numbers",
        "Nobody (2000). Toys",
        "https://doi.org/10.1234/toy.files",
        "https://example.org/toy",
        "CC0",
        str(tmp_path / "toy_files"),
        "missing:\n  a.txt",
        "Ask nobody.",
        "spikes: {C7: 4}",
        "made up",
    ):
        assert told in text


@pytest.mark.parametrize("name", catalogue.dataset_names())
def test_show_works_for_every_set(name, monkeypatch):
    monkeypatch.delenv("RETINA_CODEC_DATA", raising=False)
    info = catalogue.dataset(name)
    text = catalogue.show_command(name)
    assert text.startswith(f"{name}: {info.title}\n")
    assert info.licence in text
    assert ("RETINA_CODEC_DATA" in text) == (not info.included)


def test_fetch_tells_where_and_how_to_open(describe, server, tmp_path):
    describe(files=[server.give("a.txt", b"1\n")])
    text = catalogue.fetch_command("toy", tmp_path, progress=False)
    assert f"The files are in {tmp_path / 'toy_files'}\n" in text
    assert text.endswith(f"rc.catalogue.open_dataset('toy', folder={str(tmp_path)!r})")
    describe(layout=None, not_read="too odd", files=[server.give("a.txt", b"1\n")])
    assert catalogue.fetch_command("toy", tmp_path).endswith("cannot be opened by name: too odd")


def test_an_unknown_name_offers_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'simulated_sample'"):
        catalogue.show_command("simulated_samples")
