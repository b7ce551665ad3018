"""Every description that ships is whole and consistent; a broken one is refused by name."""

import re

import pytest

from retina_codec import catalogue
from retina_codec.catalogue import read_description
from retina_codec.catalogue.description import LAYOUTS

NAMES = catalogue.dataset_names()


def test_the_public_sets_of_the_field_are_there():
    field = {"maheswaranathan_2023", "hoefling_2024", "karamanlis_2024", "goldin_2022"}
    course = {"fullfield_noise_gollisch", "light_steps_gollisch", "drifting_gratings_gollisch"}
    assert field | course | {"sridhar_2025", "binary_noise_uzzell", "simulated_sample"} <= set(
        NAMES
    )
    assert sorted(NAMES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_description_that_ships(name):
    info = catalogue.dataset(name)
    assert info.name == name
    assert info.layout in (*LAYOUTS, None)
    # The card tells the same: the DOIs, the page and the folder stand in it.
    for told in (info.data_doi, info.paper_doi, info.folder):
        assert told is None or told in info.card
    # What cannot be checked against the source must not look as if it had been.
    if info.licence == "unknown":
        assert any("licence" in source and "not found" in source for source in info.sources)
    for file in info.files:
        assert file.url is None or "/" + file.name == file.url[-len(file.name) - 1 :]
        pinned = re.search(r"/[0-9a-f]{40}/", file.url or "")
        assert (file.sha256 is not None) == bool(pinned) or info.included


@pytest.mark.parametrize("name", NAMES)
def test_facts_are_not_what_yaml_makes_of_words(name):
    # ON, OFF, yes and no, unless quoted, are truth values to YAML.
    def leaves(thing):
        if isinstance(thing, dict):
            return [leaf for pair in thing.items() for part in pair for leaf in leaves(part)]
        return (
            [leaf for part in thing for leaf in leaves(part)]
            if isinstance(thing, list)
            else [thing]
        )

    assert {type(leaf) for leaf in leaves(catalogue.dataset(name).facts)} <= {str, int, float}


def test_no_two_sets_share_a_folder():
    folders = [catalogue.dataset(name).folder for name in NAMES]
    kept = [folder for folder in folders if folder is not None]
    assert len(set(kept)) == len(kept)


def test_an_unknown_name_offers_the_nearest():
    with pytest.raises(ValueError, match=r"name='sridhar_2024'.*did you mean 'sridhar_2025'"):
        catalogue.dataset("sridhar_2024")


def test_a_whole_description_is_read(describe):
    base = "https://example.org/files/"
    listed = [
        {"name": "a.txt", "sha256": None},
        {"name": "deep/b.txt", "sha256": "0" * 64, "url": "https://example.org/b", "size": 3},
    ]
    info = read_description(describe(url_base=base, files=listed, title="Two\n  numbers"))
    assert info.title == "Two numbers"
    assert [file.url for file in info.files] == [base + "a.txt", "https://example.org/b"]
    assert [file.size for file in info.files] == [None, 3]
    assert not info.included
    assert read_description(describe(folder=None, landing_page=None)).included


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"licence": ...}, r"lacks licence; write null"),
        ({"license": "MIT"}, r"unknown entry 'license'; did you mean 'licence'"),
        ({"licence": ""}, r"licence=''; expected text"),
        ({"cells": 8}, r"cells=8; expected text"),
        ({"name": "other"}, r"name='other'; expected the name of its folder, 'toy'"),
        ({"data_doi": "https://doi.org/10.1/x"}, r"data_doi=.*expected a bare DOI"),
        ({"paper_doi": "10.1/x"}, r"paper_doi='10.1/x'; expected a bare DOI"),
        ({"landing_page": "example.org"}, r"landing_page='example.org'; expected an address"),
        ({"landing_page": None}, r"landing_page=None; expected an address"),
        ({"layout": "bacus"}, r"layout='bacus'; .*did you mean 'baccus'"),
        ({"layout": None}, r"not_read=None; expected the reason where layout is null"),
        ({"not_read": "too hard"}, r"not_read='too hard'; expected .*null where it is not"),
        ({"recordings": None}, r"recordings=None; expected text"),
        ({"options": None}, r"options=None; expected entries"),
        ({"facts": ["C1"]}, r"facts=\['C1'\]; expected entries"),
        ({"folder": "a/b"}, r"folder='a/b'; expected one name"),
        ({"folder": ".."}, r"folder='..'; expected one name"),
        ({"sources": []}, r"sources=\[\]; expected a list of text"),
        ({"files": None}, r"files=None; expected a list"),
        ({"files": ["a.txt"]}, r"files\[0\]='a.txt'; expected entries"),
        ({"files": [{"name": "a.txt"}]}, r"files\[0\] lacks sha256; write null"),
        ({"files": [{"name": "../a", "sha256": None}]}, r"files\[0\].name='../a'; expected a path"),
        ({"files": [{"name": "/a", "sha256": None}]}, r"files\[0\].name='/a'; expected a path"),
        ({"files": [{"name": "a", "sha256": "12"}]}, r"files\[0\].sha256='12'; expected 64"),
        ({"files": [{"name": "a", "sha256": None, "size": -1}]}, r"files\[0\].size=-1; expected"),
        ({"files": [{"name": "a", "sha256": None, "unpack": 1}]}, r"files\[0\].unpack=1; expected"),
        ({"files": [{"name": "a", "sha256": None, "url": "ftp:a"}]}, r"files\[0\].url='ftp:a'"),
        ({"files": [{"name": "a", "sha256": None}] * 2}, r"files='a'; expected each file once"),
        ({"url_base": "https://example.org"}, r"url_base=.*ends with '/'"),
    ],
)
def test_a_broken_description_is_refused(describe, changed, message):
    place = describe()
    if "name" in changed:  # the folder keeps its name
        text = (place / "dataset.yaml").read_text()
        (place / "dataset.yaml").write_text(
            text.replace("name: toy", f"name: {changed['name']}", 1)
        )
    else:
        describe(**changed)
    with pytest.raises(ValueError, match=message) as caught:
        read_description(place)
    assert str(place / "dataset.yaml") in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"), [("a: [1", "is no YAML"), ("- a\n", "the file=.*expected entries")]
)
def test_a_file_that_is_no_description_is_refused(describe, text, message):
    place = describe()
    (place / "dataset.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_description(place)


@pytest.mark.parametrize("name", ["dataset.yaml", "card.md"])
def test_a_missing_file_is_named(describe, name):
    place = describe()
    (place / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        read_description(place)
