"""Samples kept out of the fit: contiguous stretches spread over the recording."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

MOST_STRETCHES = 10
SHORTEST_STRETCH = 5  # samples, so that short recordings get fewer stretches, not shreds
LARGEST_ASIDE = 0.1  # of the samples, to tell when to stop


def held_out_stretches(n: int, fraction: float, seed: int) -> np.ndarray:
    """Mark about ``fraction * n`` of `n` consecutive samples, in stretches.

    The samples are cut into at most 10 equal parts, and one stretch is taken from each at a
    random place: neighbouring samples share most of the stimulus, so single samples taken out
    here and there would not be new to the fit.
    """
    rng = np.random.default_rng(seed)
    mask = np.zeros(n, dtype=bool)
    for start, stop in pairwise(_edges(n, fraction)):
        length = max(1, round((stop - start) * fraction))
        first = rng.integers(start, stop - length + 1)
        mask[first : first + length] = True
    return mask


def stretches_aside(held_out: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Mark other stretches, one in each part, which tell the fit when to stop.

    Not those that are scored: what has chosen the weights would flatter them.
    """
    n, share = len(held_out), min(fraction, LARGEST_ASIDE)
    rng = np.random.default_rng([seed, 1])
    mask = np.zeros(n, dtype=bool)
    for start, stop in pairwise(_edges(n, fraction)):
        length = max(1, round((stop - start) * share))
        taken = np.convolve(held_out[start:stop], np.ones(length), "valid")
        free = np.flatnonzero(taken < 0.5)
        if len(free) and stop - start > length + held_out[start:stop].sum():
            first = start + int(rng.choice(free))
            mask[first : first + length] = True
    return mask


def _edges(n: int, fraction: float) -> np.ndarray:
    n_stretches = int(np.clip(n * fraction // SHORTEST_STRETCH, 1, MOST_STRETCHES))
    return np.linspace(0, n, n_stretches + 1).astype(int)
