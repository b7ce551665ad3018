"""What `dataset.yaml` must say about a data set, and the object that holds it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from retina_codec._common.checks import nearest_names

# The formats of `retina_codec.recordings.open_recording`.
LAYOUTS = (
    "baccus",
    "baccus_interneurons",
    "open_retina",
    "text",
    "text_steps",
    "text_gratings",
    "matlab_binned",
    "mapped",
    "nwb",
    "nix",
    "neo",
    "tree",
)
DESCRIPTION = "dataset.yaml"
CARD = "card.md"
_DOI = re.compile(r"10\.\d{4,9}/\S+")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class DatasetFile:
    """One file of a data set.

    Parameters
    ----------
    name : str
        Path beneath the folder of the data set, with ``/``.
    url : str or None
        Where it can be fetched; None if no direct address is known.
    sha256 : str or None
        Its checksum, in hexadecimal digits; None if unknown.
    size : int or None
        Bytes; None if unknown.
    unpack : bool
        Whether it is a zip archive that is unpacked into the folder and then removed.
    """

    name: str
    url: str | None
    sha256: str | None
    size: int | None
    unpack: bool


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set; see `dataset`.

    Parameters
    ----------
    name, title, citation : str
        Name in the catalogue, what it is, and how to cite it.
    data_doi, paper_doi : str or None
        DOIs of the files and of the paper; None if there is none or it is not known.
    landing_page : str or None
        Web page from which the files can be had; None if they come with the package.
    licence : str
        Licence of the files; ``"none stated"`` or ``"unknown"`` where that is so.
    species : str
        Species, or ``"unknown"``.
    cells : str
        How many cells, in words.
    layout : str or None
        Format of `open_recording`; None if the files are in none that it reads.
    not_read : str or None
        Why they cannot be opened, where `layout` is None.
    options : dict
        Arguments with which `open_recording` is called.
    folder : str or None
        Name of the set's folder in the data folder; None if the files come with the package.
    recordings : str or None
        Which files beneath the folder are recordings: a glob pattern; ``"."`` is the folder itself.
    files : tuple of DatasetFile
        Files that the set must have.
    obtain : str
        How to get the files by hand.
    facts : dict
        What the opened data must contain.
    sources : tuple of str
        Where each of these statements was found.
    place : pathlib.Path
        Folder of the description.
    """

    name: str
    title: str
    citation: str
    data_doi: str | None
    paper_doi: str | None
    landing_page: str | None
    licence: str
    species: str
    cells: str
    layout: str | None
    not_read: str | None
    options: dict[str, Any]
    folder: str | None
    recordings: str | None
    files: tuple[DatasetFile, ...]
    obtain: str
    facts: dict[str, Any]
    sources: tuple[str, ...]
    place: Path

    @property
    def included(self) -> bool:
        """Whether the files come with the package."""
        return self.folder is None

    @property
    def card(self) -> str:
        """Text of the card: the set in words, with its traps."""
        return (self.place / CARD).read_text(encoding="utf-8")


def read_description(folder: str | os.PathLike[str]) -> DatasetInfo:
    """Read and check the description of a data set.

    Parameters
    ----------
    folder : path
        Folder with ``dataset.yaml`` and ``card.md``; its name is that of the data set.

    Returns
    -------
    DatasetInfo
        What it says.

    Raises
    ------
    FileNotFoundError
        If one of the two files does not exist.
    ValueError
        If ``dataset.yaml`` is no YAML, lacks an entry, has one that is not known, or one that holds
        something else than it should; file and entry are named.

    Examples
    --------
    >>> from retina_codec.catalogue import dataset, read_description
    >>> info = dataset("simulated_sample")
    >>> read_description(info.place) == info
    True
    """
    folder = Path(folder)
    path = folder / DESCRIPTION
    for needed in (path, folder / CARD):
        if not needed.is_file():
            raise FileNotFoundError(f"{str(needed)!r} does not exist; a data set needs it")
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    return _Checked(path, entries).info()


class _Checked:
    """The entries of one ``dataset.yaml``, checked as they are taken."""

    def __init__(self, path: Path, entries: Any) -> None:
        self.path = path
        required = {field.name for field in fields(DatasetInfo)} - {"place"} | {"url_base"}
        self.entries = self._mapping(entries, "the file", required)

    def info(self) -> DatasetInfo:
        """Give the checked description."""
        name = self._text("name")
        if name != self.path.parent.name:
            raise self._error("name", name, f"the name of its folder, {self.path.parent.name!r}")
        layout = self._text("layout", optional=True)
        if layout is not None and layout not in LAYOUTS:
            raise self._error(
                "layout", layout, f"null or a known one ({nearest_names(layout, LAYOUTS)})"
            )
        not_read = self._text("not_read", optional=True)
        if (layout is None) != (not_read is not None):
            raise self._error(
                "not_read", not_read, "the reason where layout is null, and null where it is not"
            )
        recordings = self._text("recordings", optional=layout is None)
        folder = self._text("folder", optional=True)
        if folder == ".." or (folder and PurePosixPath(folder).parts != (folder,)):
            raise self._error("folder", folder, "one name, without '/'")
        return DatasetInfo(
            name=name,
            title=self._text("title"),
            citation=self._text("citation"),
            data_doi=self._doi("data_doi"),
            paper_doi=self._doi("paper_doi"),
            landing_page=self._landing_page(needed=folder is not None),
            licence=self._text("licence"),
            species=self._text("species"),
            cells=self._text("cells"),
            layout=layout,
            not_read=not_read,
            options=self._dict("options"),
            folder=folder,
            recordings=recordings,
            files=self._files(),
            obtain=self._text("obtain"),
            facts=self._dict("facts"),
            sources=self._texts("sources"),
            place=self.path.parent,
        )

    def _error(self, entry: str, given: object, expected: str) -> ValueError:
        return ValueError(f"{self.path}: {entry}={given!r}; expected {expected}")

    def _mapping(self, value: Any, where: str, required: set[str]) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise self._error(where, value, "entries, 'key: value'")
        for key in value:
            if key not in required:
                raise ValueError(
                    f"{self.path}: {where} has the unknown entry {key!r}; "
                    f"{nearest_names(key, sorted(required))}"
                )
        missing = sorted(required - set(value))
        if missing:
            raise ValueError(
                f"{self.path}: {where} lacks {', '.join(missing)}; write null where nothing is "
                "known"
            )
        return dict(value)

    def _text(self, entry: str, *, optional: bool = False) -> Any:
        value = self.entries[entry]
        if value is None and optional:
            return None
        if not isinstance(value, str) or not value.strip():
            raise self._error(entry, value, f"text{' or null' if optional else ''}")
        return " ".join(value.split())

    def _texts(self, entry: str) -> tuple[str, ...]:
        value = self.entries[entry]
        if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
            raise self._error(entry, value, "a list of text with at least one item")
        return tuple(" ".join(item.split()) for item in value)

    def _dict(self, entry: str) -> dict[str, Any]:
        value = self.entries[entry]
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise self._error(entry, value, "entries, 'key: value' ({} for none)")
        return value

    def _doi(self, entry: str) -> str | None:
        value = self._text(entry, optional=True)
        if value is not None and not _DOI.fullmatch(value):
            raise self._error(entry, value, "a bare DOI such as 10.1000/182, or null")
        return value

    def _url(self, entry: str, value: Any) -> str:
        if not isinstance(value, str) or not value.startswith(("http://", "https://")):
            raise self._error(entry, value, "an address that starts with http:// or https://")
        return value

    def _landing_page(self, *, needed: bool) -> str | None:
        value = self.entries["landing_page"]
        return self._url("landing_page", value) if needed or value is not None else None

    def _files(self) -> tuple[DatasetFile, ...]:
        value = self.entries["files"]
        if not isinstance(value, list):
            raise self._error("files", value, "a list ([] where no file is known)")
        base = self.entries["url_base"]
        if base is not None and not self._url("url_base", base).endswith("/"):
            raise self._error("url_base", base, "an address that ends with '/'")
        files = tuple(self._file(f"files[{i}]", item, base) for i, item in enumerate(value))
        names = [file.name for file in files]
        for name in names:
            if names.count(name) > 1:
                raise self._error("files", name, "each file once")
        return files

    def _file(self, where: str, value: Any, base: str | None) -> DatasetFile:
        given = (
            {"url": None, "size": None, "unpack": False} | value
            if isinstance(value, dict)
            else value
        )
        entries = self._mapping(given, where, {field.name for field in fields(DatasetFile)})
        name = entries["name"]
        parts = PurePosixPath(name).parts if isinstance(name, str) else ()
        if not parts or ".." in parts or parts[0] == "/" or "\\" in name:
            raise self._error(f"{where}.name", name, "a path beneath the folder, with '/'")
        url = entries["url"] or (None if base is None else base + name)
        if url is not None:
            self._url(f"{where}.url", url)
        checksum = entries["sha256"]
        if checksum is not None and not _SHA256.fullmatch(str(checksum)):
            raise self._error(f"{where}.sha256", checksum, "64 hexadecimal digits, or null")
        size = entries["size"]
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 0):
            raise self._error(f"{where}.size", size, "a number of bytes, or null")
        if not isinstance(entries["unpack"], bool):
            raise self._error(f"{where}.unpack", entries["unpack"], "true or false")
        return DatasetFile(name, url, checksum, size, entries["unpack"])
