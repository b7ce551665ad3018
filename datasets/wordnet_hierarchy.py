"""The hierarchy of ImageNet's categories, from WordNet, as YAML for `category_association`.

    python datasets/wordnet_hierarchy.py data.noun synsets.txt imagenet.yaml [--torchvision]

``data.noun`` is WordNet 3.0's file of noun synsets: in the folder ``dict`` of the plain database,
or in ``corpora/wordnet`` of NLTK's data. ``synsets.txt`` has a category a line: its WordNet number
(``n02085620``) and its name. With ``--torchvision`` names are those of torchvision's weights, of
all 1000 numbers in ascending order. Nothing is downloaded.

Every synset above a category (by hypernyms, also of instances) is a node; one with a single child
says nothing new and is left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import yaml

HYPERNYMS = ("@", "@i")


def read_nouns(path: Path) -> dict[str, tuple[str, list[str]]]:
    """Name and hypernyms of every noun synset, by its number (WordNet's manual, wndb(5))."""
    found = {}
    for line in path.read_text(encoding="latin-1").splitlines():
        if line.startswith(" ") or not line:
            continue  # the licence
        fields = line.split(" | ")[0].split()
        n_words = int(fields[3], 16)
        place = 4 + 2 * n_words
        pointers = fields[place + 1 : place + 1 + 4 * int(fields[place])]
        above = [
            f"n{pointers[i + 1]}"
            for i in range(0, len(pointers), 4)
            if pointers[i] in HYPERNYMS and pointers[i + 2] == "n"
        ]
        found[f"n{fields[0]}"] = (fields[4].replace("_", " "), above)
    return found


def hierarchy(
    nouns: Mapping[str, tuple[str, Sequence[str]]], categories: Mapping[str, str]
) -> dict[str, list[str]]:
    """Children of every node above the categories (name by synset number), from below."""
    for number, name in categories.items():
        if number not in nouns:
            raise ValueError(
                f"{number} ({name}) is no noun of this WordNet: use version 3.0, which ImageNet's "
                "numbers are of"
            )
    children: dict[str, set[str]] = {}
    todo, seen = list(categories), set()
    while todo:
        number = todo.pop()
        if number in seen:
            continue
        seen.add(number)
        for above in nouns[number][1]:
            children.setdefault(above, set()).add(number)
            todo.append(above)

    @cache
    def named(number: str) -> list[str]:
        """Give what stands for a synset: its node if it has several children, else the one."""
        below = sorted({name for child in children.get(number, ()) for name in named(child)})
        own = [categories[number]] if number in categories else []
        if len(below) + len(own) > 1:
            return [f"{nouns[number][0]} ({number})"]
        return own + below

    found = {}
    for number in sorted(children):
        below = sorted({name for child in children[number] for name in named(child)})
        below += [categories[number]] if number in categories else []
        if len(below) > 1:
            found[f"{nouns[number][0]} ({number})"] = below
    return found


def read_categories(path: Path, torchvision_names: bool) -> dict[str, str]:
    """Name of each category by its synset number."""
    lines = [line.split(maxsplit=1) for line in path.read_text().splitlines() if line.strip()]
    if not torchvision_names:
        return {number: (rest[0].strip() if rest else number) for number, *rest in lines}
    import retina_codec as rc

    numbers = sorted(number for number, *_ in lines)
    names = rc.classifiers.resnet18().outputs.tolist()
    if len(numbers) != len(names):
        raise ValueError(f"{path} has {len(numbers)} categories; torchvision names {len(names)}")
    return dict(zip(numbers, names, strict=True))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("nouns", type=Path)
    parser.add_argument("categories", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--torchvision", action="store_true")
    given = parser.parse_args()
    categories = read_categories(given.categories, given.torchvision)
    nodes = hierarchy(read_nouns(given.nouns), categories)
    given.output.write_text(
        yaml.safe_dump(nodes, sort_keys=False, allow_unicode=True), encoding="utf-8"
    )
