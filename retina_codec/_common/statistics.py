"""Resampling that respects time."""

from __future__ import annotations

import numpy as np


def moving_block_draws(
    n: int, block_length: int, n_draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw indices (n_draws, n) of a moving-block bootstrap: random stretches laid end to end.

    Stretches keep the autocorrelation within `block_length` samples (Kunsch, Ann. Statist. 1989).
    """
    block_length = min(block_length, n)
    n_blocks = -(-n // block_length)
    starts = rng.integers(0, n - block_length + 1, size=(n_draws, n_blocks))
    draws = starts[:, :, None] + np.arange(block_length)
    return draws.reshape(n_draws, -1)[:, :n]
