"""Texts of ``retina-codec datasets list``, ``show`` and ``fetch``."""

from __future__ import annotations

import os
import textwrap

import yaml

from retina_codec.catalogue.description import DatasetInfo
from retina_codec.catalogue.fetching import fetch_dataset
from retina_codec.catalogue.registry import (
    DATA_VARIABLE,
    data_folder,
    dataset,
    dataset_names,
    files_folder,
    is_complete,
    missing_files,
    recordings_in,
)

WIDTH = 90  # characters


def list_command(folder: str | os.PathLike[str] | None = None) -> str:
    """List the data sets: name, cells, species, layout, and whether the files are here.

    Parameters
    ----------
    folder : path, optional
        Data folder, as for `fetch_dataset`.

    Returns
    -------
    str
        One line a data set beneath a line of titles, then where files are looked for.

    Examples
    --------
    >>> from retina_codec.catalogue import list_command
    >>> print(list_command().splitlines()[0])
    name  ...  on this machine
    """
    infos = [dataset(name) for name in dataset_names()]
    rows = [("name", "cells", "species", "layout", "on this machine")]
    rows += [
        (info.name, info.cells, info.species, info.layout or "(not read)", _state(info, folder))
        for info in infos
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, "", f"Files are looked for in {data_folder(folder)}"])


def show_command(name: str, folder: str | os.PathLike[str] | None = None) -> str:
    """Say what is known of a data set, and where its files belong.

    Parameters
    ----------
    name : str
        One of `dataset_names`.
    folder : path, optional
        Data folder, as for `fetch_dataset`.

    Returns
    -------
    str
        Citation, licence, DOIs, facts and sources; the folder of the files and what it holds.

    Raises
    ------
    ValueError
        If no data set has that name.

    Examples
    --------
    >>> from retina_codec.catalogue import show_command
    >>> print(show_command("simulated_sample").splitlines()[0])
    simulated_sample: ...
    """
    info = dataset(name)
    root = files_folder(info, folder)
    lines = [
        f"{info.name}: {info.title}",
        "",
        f"cite:       {info.citation}",
        f"paper:      {_doi(info.paper_doi)}",
        f"files:      {_doi(info.data_doi)}",
        f"web page:   {info.landing_page or 'none'}",
        f"licence:    {info.licence}",
        f"species:    {info.species}",
        f"cells:      {info.cells}",
        f"layout:     {info.layout or f'not read: {info.not_read}'}",
        f"folder:     {root}{_why_there(info, folder)}",
        f"there:      {_state(info, folder)}",
    ]
    lines += _indented(
        "recordings", list(recordings_in(info, root)) if info.recordings != "." else []
    )
    lines += _indented("files", textwrap.wrap(", ".join(f.name for f in info.files), WIDTH))
    if root.is_dir():
        lines += _indented("missing", missing_files(info, root))
    lines += ["", f"To get the files: {info.obtain}"]
    facts = yaml.safe_dump(
        info.facts, sort_keys=False, allow_unicode=True, width=WIDTH, default_flow_style=None
    )
    lines += _indented("Facts", facts.splitlines() if info.facts else [])
    lines += _indented("Where this was found", list(info.sources))
    return "\n".join([*lines, "", f"More: {info.place / 'card.md'}"])


def fetch_command(
    name: str, folder: str | os.PathLike[str] | None = None, *, progress: bool = True
) -> str:
    """Fetch the files of a data set, and say where they are and how to open them.

    Parameters
    ----------
    name, folder, progress
        As for `fetch_dataset`.

    Returns
    -------
    str
        Where the files are, and the call that opens them.

    Raises
    ------
    OSError, ValueError
        As for `fetch_dataset`.

    Examples
    --------
    >>> from retina_codec.catalogue import fetch_command
    >>> print(fetch_command("simulated_sample").splitlines()[-1])
    Open it with rc.catalogue.open_dataset('simulated_sample')
    """
    root = fetch_dataset(name, folder=folder, progress=progress)
    info = dataset(name)
    if info.layout is None:
        return f"The files are in {root}\nThey cannot be opened by name: {info.not_read}"
    arguments = [repr(name)] + ([f"folder={str(folder)!r}"] if folder is not None else [])
    if len(recordings_in(info, root)) > 1:
        arguments.append("recording=...")
    return (
        f"The files are in {root}\nOpen it with rc.catalogue.open_dataset({', '.join(arguments)})"
    )


def _state(info: DatasetInfo, folder: str | os.PathLike[str] | None) -> str:
    root = files_folder(info, folder)
    if info.included:
        return "yes, with the package"
    if is_complete(info, root):
        return "yes"
    missing = len(missing_files(info, root))
    plain = sum(not file.unpack for file in info.files)
    return f"in part, {missing} of {plain} files missing" if 0 < missing < plain else "no"


def _doi(doi: str | None) -> str:
    return f"https://doi.org/{doi}" if doi else "no DOI known"


def _why_there(info: DatasetInfo, folder: str | os.PathLike[str] | None) -> str:
    if info.included or folder is not None or os.environ.get(DATA_VARIABLE):
        return ""
    return f" (set {DATA_VARIABLE} for another place)"


def _indented(title: str, items: list[str]) -> list[str]:
    return ["", f"{title}:", *(f"  {item}" for item in items)] if items else []
