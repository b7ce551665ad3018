"""The trained network and its control, worked on at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

WORKERS = 2


@contextmanager
def half_of_the_threads() -> Iterator[None]:
    """Let torch use half of its threads inside, so that two workers share the machine.

    Small convolutions gain little from more, and threads that wait for each other become many
    times slower on a machine that is busy with something else.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // WORKERS))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def for_each(work: Callable[[str], None], names: Iterable[str]) -> None:
    """Do `work` for every name, two at a time; raise what one of them raises.

    Threads are enough: torch lets go of Python while it computes. What is done for one name must
    not share a network or a random generator with another.
    """
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(WORKERS, initializer=lambda: torch.set_num_threads(threads)) as pool:
        for done in [pool.submit(work, name) for name in names]:
            done.result()
