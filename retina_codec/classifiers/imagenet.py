"""Names of ImageNet's thousand categories, by what its files call them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from scipy.io import loadmat
from torchvision.models import ResNet50_Weights

from retina_codec.classifiers.published import default_names

SYNSET = re.compile(r"n\d{8}")
N_CATEGORIES = 1000


def imagenet_names(synsets: str | os.PathLike[str] | Sequence[str]) -> dict[str, str]:
    """Names of torchvision's ImageNet outputs, by synset and by the development kit's numbers.

    Torchvision's outputs are in the alphabetical order of the synsets (``n01440764`` is the
    first); the numbers 1 to 1000 of the validation set's ground truth are in another order, which
    only the kit's ``meta.mat`` tells.

    Parameters
    ----------
    synsets : path or sequence of str
        ``meta.mat`` of the development kit; a text file with a synset at the start of each line
        (``synset_words.txt``, ``LOC_synset_mapping.txt``); a folder with a subfolder for each
        synset; or the thousand synsets.

    Returns
    -------
    dict of str to str
        From synset, and with ``meta.mat`` also from number, to the name of the output, as in
        ``resnet50().outputs``: the `names` of `open_images`.

    Raises
    ------
    FileNotFoundError, OSError
        If the file is missing or unreadable.
    ValueError
        If there are not exactly a thousand synsets.

    Examples
    --------
    >>> import retina_codec as rc
    >>> synsets = [f"n{10_000_000 + i}" for i in range(1000)]
    >>> names = rc.classifiers.imagenet_names(synsets)
    >>> names["n10000000"], names["n10000001"]
    ('tench', 'goldfish')
    """
    numbers: dict[str, str] = {}
    if isinstance(synsets, str | os.PathLike):
        path = Path(synsets)
        if not path.exists():
            raise FileNotFoundError(f"synsets={str(path)!r} does not exist")
        if path.is_dir():
            found = [folder.name for folder in path.iterdir() if SYNSET.fullmatch(folder.name)]
        elif path.suffix == ".mat":
            numbers = _numbered(path)
            found = list(numbers.values())
        else:
            lines = path.read_text("utf-8").splitlines()
            found = [m.group() for m in map(SYNSET.match, lines) if m is not None]
    else:
        found = list(synsets)
    if len(set(found)) != N_CATEGORIES or len(found) != N_CATEGORIES:
        raise ValueError(
            f"synsets has {len(set(found))} different synsets; expected the {N_CATEGORIES} of "
            "ILSVRC2012, each once"
        )
    categories = ResNet50_Weights.IMAGENET1K_V1.meta["categories"]
    names = dict(zip(sorted(found), default_names(categories, N_CATEGORIES), strict=True))
    return {**names, **{number: names[synset] for number, synset in numbers.items()}}


def _numbered(path: Path) -> dict[str, str]:
    """Synset of each of the development kit's numbers; inner nodes of its tree are left out."""
    try:
        table = loadmat(path, squeeze_me=True)["synsets"]
        rows = zip(table["ILSVRC2012_ID"], table["WNID"], table["num_children"], strict=True)
        return {str(int(number)): str(synset) for number, synset, n in rows if int(n) == 0}
    except Exception as error:
        raise OSError(
            f"synsets={str(path)!r} cannot be read as the development kit's meta.mat: {error}"
        ) from error
