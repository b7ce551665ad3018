"""The zoo: trained models that come with the package, by name."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path
from typing import Any

import yaml

from retina_codec._common.checks import nearest_names

CONFIG, WEIGHTS, CARD = "config.yaml", "weights.safetensors", "card.md"
WIDTH = 90  # characters


def zoo_folder() -> Path:
    """Folder with a folder for each model.

    A wheel carries ``models/`` of the repository as ``retina_codec/_models/``; in a working copy
    it stands beside the package.
    """
    package = Path(__file__).resolve().parents[1]
    installed, beside = package / "_models", package.parent / "models"
    if installed.is_dir():
        return installed
    # Another package named `models` may stand beside an installed one.
    if beside.is_dir() and (package.parent / "pyproject.toml").is_file():
        return beside
    raise FileNotFoundError(
        f"the trained models are missing: neither {str(installed)!r} nor {str(beside)!r} holds "
        "them; install retina-codec again"
    )


def model_names() -> list[str]:
    """Return the names of the models in the zoo, in alphabetical order.

    Returns
    -------
    list of str
        Names for `retina_codec.load_model`, `model_card` and ``retina-codec models show``.

    Examples
    --------
    >>> from retina_codec.models.zoo import model_names
    >>> model_names()
    ['simulated_bncnn', 'simulated_ln']
    """
    return sorted(path.parent.name for path in zoo_folder().glob(f"*/{CONFIG}"))


def model_card(name: str) -> str:
    """Return the card of a model: its data, training, scores, limits and licence.

    Parameters
    ----------
    name : str
        One of `model_names`.

    Returns
    -------
    str
        Markdown; the first line is the title.

    Raises
    ------
    ValueError
        If no model has that name.

    Examples
    --------
    >>> from retina_codec.models.zoo import model_card
    >>> print(model_card("simulated_ln").splitlines()[0])
    # LN model of a simulated retina
    """
    return (_place(name) / CARD).read_text(encoding="utf-8")


def model_folder(folder: str | os.PathLike[str]) -> Path:
    """Folder of a model: `folder` itself, or that of the model of the zoo with this name.

    What is there comes before the zoo, so that a name can never hide a folder.
    """
    path = Path(folder)
    # Only a bare word can be a name: a path that is wrong should be told as such.
    if path.exists() or not isinstance(folder, str) or path.name != folder:
        return path
    names = model_names()
    if folder in names:
        return zoo_folder() / folder
    raise FileNotFoundError(
        f"folder={folder!r} is neither a folder nor a model of the zoo; "
        f"{nearest_names(folder, names)}"
    )


def list_command() -> str:
    """List the models of the zoo: name, architecture, movie, history, cells, and title.

    Returns
    -------
    str
        One line a model beneath a line of titles, then how one is loaded.

    Examples
    --------
    >>> from retina_codec.models.zoo import list_command
    >>> print(list_command().splitlines()[0])
    name  ...  what it is
    """
    rows = [("name", "model", "pixels", "history", "cells", "what it is")]
    for name in model_names():
        config = _config(name)
        arguments = config["arguments"]
        rows.append(
            (
                name,
                config["architecture"],
                _pixels(arguments),
                f"{arguments['history'] * arguments['bin_width']:g} s",
                str(len(arguments["cells"])),
                _title(model_card(name)),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, "", "Load one with rc.load_model(name)"])


def show_command(name: str) -> str:
    """Say what a model of the zoo is, and what its card says.

    Parameters
    ----------
    name : str
        One of `model_names`.

    Returns
    -------
    str
        Title, what it takes and gives, where it is, and its card.

    Raises
    ------
    ValueError
        If no model has that name.

    Examples
    --------
    >>> from retina_codec.models.zoo import show_command
    >>> print(show_command("simulated_ln").splitlines()[0])
    simulated_ln: LN model of a simulated retina
    """
    place, config, card = _place(name), _config(name), model_card(name)
    arguments = config["arguments"]
    milliseconds = 1000 * arguments["bin_width"]
    cells = textwrap.wrap(f"{len(arguments['cells'])}: {', '.join(arguments['cells'])}", WIDTH - 13)
    lines = [
        f"{name}: {_title(card)}",
        "",
        f"model:       {config['architecture']}, fingerprint {config['fingerprint']}",
        f"movie:       {_pixels(arguments)} pixels, bins of {milliseconds:g} ms",
        f"history:     {arguments['history']} frames",
        f"cells:       {f'{chr(10)}             '.join(cells)}",
        f"weights:     {(place / WEIGHTS).stat().st_size / 1000:.0f} kB",
        f"folder:      {place}",
        f"load it:     rc.load_model({name!r})",
        "",
        card.split("\n", 1)[1].strip(),
    ]
    return "\n".join(lines)


def _place(name: str) -> Path:
    names = model_names()
    if name not in names:
        raise ValueError(f"name={name!r} is no model of the zoo; {nearest_names(name, names)}")
    return zoo_folder() / name


def _config(name: str) -> dict[str, Any]:
    return yaml.safe_load((_place(name) / CONFIG).read_text(encoding="utf-8"))


def _pixels(arguments: dict[str, Any]) -> str:
    return " x ".join(map(str, arguments["input_shape"]))


def _title(card: str) -> str:
    return card.split("\n", 1)[0].removeprefix("#").strip()
