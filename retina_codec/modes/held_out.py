"""Samples kept out of the fit: contiguous stretches spread over the recording."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

MOST_STRETCHES = 10
SHORTEST_STRETCH = 5  # samples, so that short recordings get fewer stretches, not shreds


def held_out_stretches(n: int, fraction: float, seed: int) -> np.ndarray:
    """Mark about ``fraction * n`` of `n` consecutive samples, in stretches.

    The samples are cut into at most 10 equal parts, and one stretch is taken from each at a
    random place: neighbouring samples share most of the stimulus, so single samples taken out
    here and there would not be new to the fit.
    """
    n_stretches = int(np.clip(n * fraction // SHORTEST_STRETCH, 1, MOST_STRETCHES))
    edges = np.linspace(0, n, n_stretches + 1).astype(int)
    rng = np.random.default_rng(seed)
    mask = np.zeros(n, dtype=bool)
    for start, stop in pairwise(edges):
        length = max(1, round((stop - start) * fraction))
        first = rng.integers(start, stop - length + 1)
        mask[first : first + length] = True
    return mask
