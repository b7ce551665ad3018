"""Which pictures a folder or table lists, and the label that stands beside each."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retina_codec.classifiers.pictures import SUFFIXES

HEADERS = ("path", "image", "file", "filename", "imageid")
# Numbers in the development kit's own order, which is not that of any network's outputs.
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth"


@dataclass(frozen=True)
class Listed:
    """Pictures in order: their paths below `folder`, and what stands there as their labels."""

    folder: Path
    paths: list[str]
    labels: list[str] | None


def listed(source: Path, labels: Any) -> Listed:
    """List the pictures of a folder or a CSV file.

    Raises
    ------
    FileNotFoundError
        If `source`, or a file of labels, is missing.
    ValueError
        If there are no pictures, or labels do not go with them.
    """
    if not source.exists():
        raise FileNotFoundError(f"source={str(source)!r} does not exist")
    if source.is_dir():
        return _folder(source, labels)
    if source.suffix.lower() != ".csv":
        raise ValueError(
            f"source={str(source)!r} is neither a folder nor a file ending in .csv, .npy or .npz"
        )
    if labels is not None:
        raise ValueError("labels are given, and source is a table: put them into its column label")
    return _table(source)


def _folder(source: Path, labels: Any) -> Listed:
    above = _pictures(source, source.iterdir())
    if labels is not None:
        paths = above or _pictures(source, source.rglob("*"))
        _require_some(source, paths)
        return Listed(source, paths, _labels_of(paths, labels))
    below = {
        folder.name: _pictures(source, folder.rglob("*"))
        for folder in sorted(source.iterdir())
        if folder.is_dir() and not folder.name.startswith(".")
    }
    found = [(path, name) for name, paths in below.items() for path in paths]
    if above and found:
        raise ValueError(
            f"source={str(source)!r} has pictures beside folders with pictures ({above[0]}, "
            f"{found[0][0]}): keep a folder for each category and nothing else, or give labels"
        )
    _require_some(source, above + [path for path, _ in found])
    if above:
        return Listed(source, above, None)
    empty = [name for name, paths in below.items() if not paths]
    if empty:
        raise ValueError(
            f"source={str(source)!r}: folder {empty[0]!r} has no pictures: move it away"
        )
    return Listed(source, [path for path, _ in found], [name for _, name in found])


def _pictures(source: Path, entries: Any) -> list[str]:
    """Paths of pictures below `source`, sorted; hidden files are left out."""
    return sorted(
        path.relative_to(source).as_posix()
        for path in entries
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def _require_some(source: Path, paths: Sequence[str]) -> None:
    if not paths:
        raise ValueError(
            f"source={str(source)!r} has no pictures; expected files ending in "
            f"{', '.join(SUFFIXES)}, or a folder of them for each category"
        )


def _table(source: Path) -> Listed:
    with source.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        columns = list(rows.fieldnames or [])
        if "path" not in columns:
            raise ValueError(
                f"source={str(source)!r} has columns {', '.join(columns)}; expected path and, if "
                "there are labels, label"
            )
        entries = list(rows)
    if not entries:
        raise ValueError(f"source={str(source)!r} lists no pictures")
    paths = [row["path"] for row in entries]
    twice = next((path for path, n in Counter(paths).items() if n > 1), None)
    if twice is not None:
        raise ValueError(f"source={str(source)!r} lists {twice!r} twice")
    labels = [row["label"] for row in entries] if "label" in columns else None
    if labels is not None and not all(labels):
        raise ValueError(f"source={str(source)!r} has no label for {paths[labels.index('')]!r}")
    return Listed(source.parent, paths, labels)


def _labels_of(paths: Sequence[str], labels: Any) -> list[str]:
    """Labels of pictures in their order: of a file, a mapping by file name, or a sequence."""
    if isinstance(labels, str | Path):
        labels = _read_labels(Path(labels))
    if not isinstance(labels, Mapping):
        values = [str(label) for label in getattr(labels, "tolist", lambda: labels)()]
        if len(values) != len(paths):
            raise ValueError(
                f"labels has {len(values)} labels; expected one for each of {len(paths)} pictures, "
                "in the order of their names"
            )
        return values
    by_name = {str(name): str(label) for name, label in labels.items()}
    chosen = []
    for path in paths:
        for name in (path, Path(path).name, Path(path).stem):
            if name in by_name:
                chosen.append(by_name[name])
                break
        else:
            raise ValueError(f"labels has none for {path!r}; give one for every picture")
    return chosen


def _read_labels(file: Path) -> Mapping[str, str] | list[str]:
    """Read a text file: a label a line, or a file name and its label."""
    if not file.is_file():
        raise FileNotFoundError(f"labels={str(file)!r} does not exist")
    lines = [line.strip() for line in file.read_text("utf-8-sig").splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"labels={str(file)!r} is empty")
    separator = "," if "," in lines[0] else None
    rows = [[part.strip() for part in line.split(separator, 1)] for line in lines]
    header = rows[0][0].lower() in HEADERS
    # Of the second column of this table, the rest are boxes around objects.
    boxes = header and len(rows[0]) == 2 and rows[0][1] == "PredictionString"
    rows = rows[1:] if header else rows
    if all(len(row) == 1 for row in rows):
        return [row[0] for row in rows]
    wrong = next((number for number, row in enumerate(rows) if len(row) != 2), None)
    if wrong is not None:
        raise ValueError(
            f"labels={str(file)!r}: {rows[wrong][0]!r} has no label; expected a file name and a "
            "label on every line, or a label alone"
        )
    return {name: label.split()[0] if boxes else label for name, label in rows}
