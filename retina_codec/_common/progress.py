"""Progress bars that can be silenced."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def progress_bar(
    items: Iterable[Item], description: str, *, total: int | None = None, shown: bool = True
) -> Iterator[Item]:
    """Iterate over `items` beneath a bar on standard error, or silently if not `shown`."""
    yield from tqdm(items, desc=description, total=total, disable=not shown, leave=False)
