"""What benchmarks share: runs in pairs, their ratios, the memory of a process of its own."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def in_pairs(ours: Callable[[], object], others: dict[str, Callable[[], object]], n: int) -> None:
    """Run ours right before each of the others; print the medians of seconds and of ratios."""
    ours()
    spent: list[float] = []
    ratios: dict[str, list[float]] = {name: [] for name in others}
    theirs: dict[str, list[float]] = {name: [] for name in others}
    for _ in range(n):
        for name, other in others.items():
            mine = seconds(ours)
            theirs[name].append(seconds(other))
            ratios[name].append(theirs[name][-1] / mine)
            spent.append(mine)
    print(f"  {'ours':34s} {statistics.median(spent):8.3f} s")
    for name in others:
        print(
            f"  {name:34s} {statistics.median(theirs[name]):8.3f} s, "
            f"{statistics.median(ratios[name]):6.1f} times as long "
            f"({min(ratios[name]):.1f} to {max(ratios[name]):.1f})"
        )


def peak_memory() -> float:
    """MB of the process at its peak; NaN where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    # Not ru_maxrss, which a child takes over from its parent.
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def _measured(
    queue: multiprocessing.Queue[float], threads: int, function: Callable[..., object], *given: Any
) -> None:
    torch.set_num_threads(threads)
    before = peak_memory()
    function(*given)
    queue.put(peak_memory() - before)


def memory(function: Callable[..., object], *given: Any, threads: int = 1) -> float:
    """MB that a call adds to the peak memory of a fresh process."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_measured, args=(queue, threads, function, *given))
    process.start()
    result: float = queue.get()
    process.join()
    return result
