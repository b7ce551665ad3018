"""Where spikes belong that do not follow their frames: elsewhere in the file, or seconds away."""

from __future__ import annotations

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft

# Standard deviations (of all other places) that a place must stand out by.
LEAST_Z = 9.0
OFFSET_SECONDS = 20.0
MOST_PAIRS = 200


def followed_elsewhere(
    counts: np.ndarray, log_rate: np.ndarray, start: int, stop: int
) -> tuple[int, float] | None:
    """First frame of the file that the spikes of frames [start, stop) follow instead, and its z.

    Compares the counts (frame, cell) with the log model rate (frame, cell) at every place of the
    file. None if no place stands out.
    """
    n, length = len(counts), stop - start
    if n < 4 * length or length < 8:
        return None
    size = next_fast_len(n + length)
    total = np.zeros(size // 2 + 1, dtype=np.complex128)
    for cell in range(counts.shape[1]):
        fired = counts[start:stop, cell] - counts[start:stop, cell].mean()
        total += rfft(log_rate[:, cell], size) * np.conj(rfft(fired, size))
    match = irfft(total, size)[: n - length + 1]
    middle = np.median(match)
    spread = 1.4826 * np.median(np.abs(match - middle))
    place = int(match.argmax())
    if not spread > 0 or match[place] - middle < LEAST_Z * spread:
        return None
    return place, float((match[place] - middle) / spread)


def lag_of_recording(
    movie: np.ndarray, counts: np.ndarray, *, history: int, bin_width: float
) -> tuple[int, float] | None:
    """Lag in frames at which the whole recording's spikes follow the movie best, and its z.

    The squared spike-triggered average, summed over places and cells and over `history` lags, at
    every lag within 20 s, beside those beyond. 0 to `history` is what a retina does; None if no
    lag stands out.
    """
    n = len(movie)
    reach = min(int(OFFSET_SECONDS / bin_width), n // 4)
    size = next_fast_len(2 * n)
    spectra = [rfft(movie[:, place], size) for place in range(movie.shape[1])]
    power = np.zeros(size)
    # Enough pairs of places and cells to see an offset, and no more time than that.
    n_cells = max(1, MOST_PAIRS // movie.shape[1])
    for cell in np.argsort(-counts.sum(axis=0), kind="stable")[:n_cells]:
        n_spikes = counts[:, cell].sum()
        if n_spikes < 1:
            continue
        fired = rfft(counts[:, cell] - counts[:, cell].mean(), size)
        for spectrum in spectra:
            power += irfft(fired * np.conj(spectrum), size) ** 2 / n_spikes
    lags = np.r_[np.arange(n // 2), np.arange(-(n // 2), 0)]
    by_lag = np.r_[power[-(n // 2) :], power[: n // 2]]
    lags = np.sort(lags)
    width = max(1, history // 4)
    smooth = np.convolve(by_lag, np.ones(width) / width, mode="same")
    smooth /= np.maximum(1 - np.abs(lags) / n, 0.25)
    far = np.abs(lags) > reach
    near = ~far
    middle = np.median(smooth[far])
    # The largest of the far lags, and how they scatter, are the null: no distribution is assumed.
    spread = 1.4826 * np.median(np.abs(smooth[far] - middle))
    peak = int(smooth[near].argmax())
    height = float(smooth[near][peak])
    if not spread > 0 or height < middle + 1.5 * (smooth[far].max() - middle):
        return None
    return int(lags[near][peak]), float((height - middle) / spread)
