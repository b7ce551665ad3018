"""ImageNet's hierarchy from a tiny file in WordNet's format."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml

import retina_codec as rc

SCRIPT = Path(__file__).resolve().parents[2] / "datasets" / "wordnet_hierarchy.py"
# As in data.noun: number, file, type, words (count in hex), pointers, gloss. The cat is a carnivore
# and a pet; entity has one child, chordate too.
NOUNS = """\
  1 This software and database is being provided to you, the LICENSEE, by Princeton
00000001 03 n 01 entity 0 001 ~ 00000002 n 0000 | all there is
00000002 05 n 02 animal 0 beast 0 001 @ 00000001 n 0000 | it lives
00000003 05 n 01 chordate 0 001 @ 00000002 n 0000 | with a cord
00000004 05 n 01 carnivore 0 002 @ 00000003 n 0000 + 00000009 v 0101 | eats meat
00000005 05 n 01 pet_animal 0 001 @ 00000002 n 0000 | at home
00000006 05 n 01 cat 0 002 @ 00000004 n 0000 @ 00000005 n 0000 | a cat | purrs
00000007 05 n 01 dog 0 001 @ 00000004 n 0000 | a dog
00000008 05 n 01 budgie 0 001 @ 00000005 n 0000 | a bird
00000010 18 n 01 Laika 0 001 @i 00000007 n 0000 | one dog
"""


@pytest.fixture
def files(tmp_path):
    (tmp_path / "data.noun").write_text(NOUNS)
    (tmp_path / "synsets.txt").write_text("n00000006 cat\nn00000007 dog, hound\nn00000008 budgie\n")
    return tmp_path


def run(folder, monkeypatch):
    output = folder / "hierarchy.yaml"
    arguments = [folder / "data.noun", folder / "synsets.txt", output]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    return output


def test_nodes_with_several_children(files, monkeypatch):
    output = run(files, monkeypatch)
    assert yaml.safe_load(output.read_text()) == {
        "animal (n00000002)": ["carnivore (n00000004)", "pet animal (n00000005)"],
        "carnivore (n00000004)": ["cat", "dog, hound"],
        "pet animal (n00000005)": ["budgie", "cat"],
    }
    labels = np.array(["cat", "dog, hound", "budgie"])[np.arange(30) % 3]
    loadings = xr.DataArray(
        np.isin(labels, ["cat", "budgie"])[:, None] * 1.0, dims=("image", "mode")
    )
    found = rc.analysis.category_association(loadings, labels, hierarchy=output, n_permutations=50)
    assert found["best_node"].item() == "pet animal (n00000005)"
    assert found["best_node_r"].item() == pytest.approx(1)


def test_a_category_above_another(files, monkeypatch):
    with (files / "synsets.txt").open("a") as file:
        file.write("n00000010 Laika\n")
    nodes = yaml.safe_load(run(files, monkeypatch).read_text())
    assert nodes["dog (n00000007)"] == ["Laika", "dog, hound"]
    assert nodes["carnivore (n00000004)"] == ["cat", "dog (n00000007)"]


def test_another_version_of_wordnet(files, monkeypatch):
    (files / "synsets.txt").write_text("n00000099 tench\n")
    with pytest.raises(ValueError, match=r"n00000099 \(tench\) is no noun of this WordNet"):
        run(files, monkeypatch)
