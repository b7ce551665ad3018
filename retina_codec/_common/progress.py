"""Progress bars that can be silenced."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def progress_counter(total: int | None, description: str, *, shown: bool = True) -> tqdm:
    """Return a bar on standard error, to be used in ``with`` and told of steps by ``update()``.

    It stays silent if not `shown`, and where standard error is a file and not a terminal.
    """
    return tqdm(total=total, desc=description, disable=None if shown else True, leave=False)


def progress_bar(
    items: Iterable[Item], description: str, *, total: int | None = None, shown: bool = True
) -> Iterator[Item]:
    """Iterate over `items` beneath a bar; see `progress_counter`."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress_counter(total, description, shown=shown) as bar:
        for item in items:
            yield item
            bar.update()
