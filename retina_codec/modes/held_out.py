"""Samples kept out of the fit: stretches spread over a recording, single images of a set."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

MOST_STRETCHES = 10
SHORTEST_STRETCH = 5  # samples, so that short recordings get fewer stretches, not shreds
LARGEST_ASIDE = 0.1  # of the samples, to tell when to stop


def samples_apart(
    dim: str, n: int, fraction: float, seed: int, *, aside: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Mark the samples that are held out, and (if `aside`) others that tell when to stop.

    Along `dim` ``"image"`` these are single images, one at random from each of as many equal parts
    of the set: images do not follow one another, and files come sorted by category, so that
    stretches would take whole categories out of the fit. Along any other dim they are stretches.
    """
    if dim == "image":
        rng = np.random.default_rng(seed)
        held_out, others = np.zeros((2, n), dtype=bool)
        held_out[_one_of_each(np.arange(n), fraction, rng)] = True
        if aside and not held_out.all():
            share = n * min(fraction, LARGEST_ASIDE) / (~held_out).sum()
            others[_one_of_each(np.flatnonzero(~held_out), share, rng)] = True
        return held_out, others
    held_out = held_out_stretches(n, fraction, seed)
    others = stretches_aside(held_out, fraction, seed) if aside else np.zeros(n, dtype=bool)
    return held_out, others


def _one_of_each(ids: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """About ``fraction`` of `ids`: one at random from each of as many equal parts."""
    n_parts = min(max(1, round(ids.size * fraction)), ids.size)
    edges = np.linspace(0, ids.size, n_parts + 1).astype(int)
    return ids[rng.integers(edges[:-1], edges[1:])]


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
