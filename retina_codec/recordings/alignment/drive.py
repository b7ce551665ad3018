"""How the spikes follow the stimulus: linear-nonlinear models, always judged on other frames.

Every model here is cross-fitted: the frames are dealt to folds, and the rate at a frame comes from
a filter that was fitted without the fold of the *spikes* it is compared with. Otherwise a model
with enough numbers "explains" any spikes, and noise would look aligned.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.optimize import isotonic_regression

# Places that the movie is pooled to at most, and those of them that are kept.
MOST_PLACES = 144
MOST_KEPT = 12
# Numbers of the filter of a cell at most, and functions of time at each place at least.
MOST_NUMBERS = 360
LEAST_FUNCTIONS = 8
# Numbers held in double precision at a time: bounds the memory for long movies (32 MB).
CHUNK_NUMBERS = 2**22
RIDGE = 0.05
# A place whose strongest lag is below this many standard errors is no part of the filter.
LEAST_Z = 4.0
N_LEVELS = 16
# Spikes at the mean rate that every level of the nonlinearity is given.
PRIOR_SPIKES = 2.0
# Firing below this share of the mean is taken as this share: a single stray spike is no proof.
LEAST_RATIO = 0.05


def pooled_movie(stimulus: xr.DataArray, argument: str) -> np.ndarray:
    """Movie (frame, place) of at most `MOST_PLACES` places, the means over blocks of pixels.

    The movie is read block by block along time, so that one larger than memory can be pooled.

    Raises
    ------
    ValueError
        If the movie has NaN or infinite values.
    """
    stimulus = stimulus.transpose("time", *[d for d in ("color", "y", "x") if d in stimulus.dims])
    n = stimulus.sizes["time"]
    rows, columns = stimulus.sizes["y"], stimulus.sizes["x"]
    planes = stimulus.sizes.get("color", 1)
    factor = 1
    while planes * -(-rows // factor) * -(-columns // factor) > MOST_PLACES and factor < max(
        rows, columns
    ):
        factor += 1
    row_starts, column_starts = np.arange(0, rows, factor), np.arange(0, columns, factor)
    size = np.outer(
        np.diff(np.append(row_starts, rows)), np.diff(np.append(column_starts, columns))
    )
    pooled = np.empty((n, planes * size.size), dtype=np.float32)
    step = max(1, CHUNK_NUMBERS // (planes * rows * columns))
    for start in range(0, n, step):
        frames = np.asarray(stimulus.isel(time=slice(start, start + step)).values)
        frames = frames.reshape(len(frames), planes, rows, columns).astype(np.float64)
        sums = np.add.reduceat(np.add.reduceat(frames, row_starts, 2), column_starts, 3)
        means = (sums / size).reshape(len(frames), -1)
        bad = np.flatnonzero(~np.isfinite(means).all(axis=1))
        if bad.size:
            raise ValueError(
                f"{argument} has NaN or infinite values, the first in frame {start + bad[0]}; "
                "replace or cut them out before"
            )
        pooled[start : start + step] = means
    return pooled


def standardised(pooled: np.ndarray) -> np.ndarray:
    """Each place less its mean, over its standard deviation; 0 where it does not change."""
    mean = pooled.mean(axis=0, dtype=np.float64)
    sd = pooled.std(axis=0, dtype=np.float64)
    changing = sd > 1e-6 * max(float(np.abs(mean).max()), float(sd.max()), 1e-30)
    scale = np.where(changing, 1 / np.where(changing, sd, 1.0), 0.0)
    return ((pooled - mean) * scale).astype(np.float32)


def lag_basis(history: int, n_places: int) -> np.ndarray:
    """Basis (lag, function) of the filters: every lag, or raised cosines, fine at short lags.

    The cosines are evenly spaced on a logarithmic axis (Pillow et al., J. Neurosci. 2005) and used
    where all lags at all places would be more than `MOST_NUMBERS` numbers.
    """
    n_functions = max(MOST_NUMBERS // n_places, LEAST_FUNCTIONS)
    if n_functions >= history:
        return np.eye(history)
    # Half the functions lie within the first third of the history.
    warped = np.log(np.arange(history) + history / 4)
    centres = np.linspace(warped[0], warped[-1], n_functions)
    distance = (warped[:, None] - centres) / (centres[1] - centres[0])
    basis = np.where(np.abs(distance) < 2, 0.5 * (1 + np.cos(np.pi * distance / 2)), 0.0)
    return basis / np.linalg.norm(basis, axis=0)


@dataclass(frozen=True)
class Design:
    """The recent stimulus of each frame in the basis, made block by block and never held whole."""

    movie: np.ndarray  # (frame, place)
    runs: list[slice]
    basis: np.ndarray  # (lag, function), lag 0 first

    @property
    def history(self) -> int:
        """Frames that a response depends on."""
        return len(self.basis)

    @property
    def n_numbers(self) -> int:
        """Numbers of a filter: places times functions."""
        return self.movie.shape[1] * self.basis.shape[1]

    def known(self) -> np.ndarray:
        """Whether each frame has a whole history in its own run."""
        known = np.zeros(len(self.movie), dtype=bool)
        for run in self.runs:
            known[run.start + self.history - 1 : run.stop] = True
        return known

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield stretches of frames with a whole history, and their design (frame, number)."""
        step = max(64, CHUNK_NUMBERS // max(1, self.n_numbers))
        # Single precision: sums over stretches are kept in double precision.
        backwards = np.ascontiguousarray(self.basis[::-1], dtype=np.float32)
        for run in self.runs:
            for start in range(run.start + self.history - 1, run.stop, step):
                stop = min(start + step, run.stop)
                before = self.movie[start - self.history + 1 : stop]
                windows = np.lib.stride_tricks.sliding_window_view(before, self.history, axis=0)
                yield slice(start, stop), (windows @ backwards).reshape(stop - start, -1)

    def moments(
        self, labels: np.ndarray, counts: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sum X'X, X'(n - mean n) and 1 over the frames of each label (-1 is left out)."""
        n_labels = int(labels.max()) + 1
        size = self.n_numbers
        squares = np.zeros((n_labels, size, size))
        products = np.zeros((n_labels, size, counts.shape[1]))
        frames = np.zeros(n_labels)
        centred = (counts - counts[labels >= 0].mean(axis=0)).astype(np.float32)
        for part, design in self.blocks():
            here = labels[part]
            for label in np.unique(here[here >= 0]):
                chosen = here == label
                rows = design[chosen]
                squares[label] += rows.T @ rows
                products[label] += rows.T @ centred[part][chosen]
                frames[label] += len(rows)
        return squares, products, frames

    def drives(self, weights: np.ndarray) -> np.ndarray:
        """Drive (fold, frame, cell) of filters (fold, number, cell); 0 without a whole history."""
        n_folds, size, n_cells = weights.shape
        flat = weights.transpose(1, 0, 2).reshape(size, -1).astype(np.float32)
        found = np.zeros((n_folds, len(self.movie), n_cells), dtype=np.float32)
        for part, design in self.blocks():
            values = (design @ flat).reshape(-1, n_folds, n_cells)
            found[:, part] = values.transpose(1, 0, 2)
        return found


def kept_places(
    movie: np.ndarray, runs: list[slice], counts: np.ndarray, history: int
) -> np.ndarray:
    """Numbers of the places, at most `MOST_KEPT`, whose light the spikes depend on most.

    By the largest entry of the spike-triggered average in a coarse basis, in standard errors, over
    cells and lags. What is kept for nothing costs power, not truth.
    """
    n_places = movie.shape[1]
    if n_places <= MOST_KEPT:
        return np.arange(n_places)
    design = Design(movie, runs, lag_basis(history, MOST_NUMBERS))
    centred = (counts - counts.mean(axis=0)).astype(np.float32)
    products = np.zeros((design.n_numbers, counts.shape[1]))
    squares = np.zeros(design.n_numbers)
    for part, rows in design.blocks():
        products += rows.T @ centred[part]
        squares += np.einsum("tk,tk->k", rows, rows)
    spread = np.sqrt(np.outer(squares / len(movie), np.maximum(counts.sum(axis=0), 1)))
    z = np.abs(products) / np.maximum(spread, 1e-12)
    strongest = z.reshape(n_places, -1).max(axis=1)
    return np.sort(np.argsort(-strongest, kind="stable")[:MOST_KEPT])


def fitted_filters(
    squares: np.ndarray, products: np.ndarray, n_frames: float, n_spikes: np.ndarray, places: int
) -> np.ndarray:
    """Fit filters (number, cell) by ridge regression on the places that drive each cell.

    A cell without spikes gets a filter of zeros.
    """
    size, n_cells = products.shape
    weights = np.zeros((size, n_cells))
    if n_frames < 2:
        return weights
    covariance = squares / n_frames
    level = np.trace(covariance) / size
    if level <= 0:
        return weights
    penalty = RIDGE * level
    variance = np.maximum(np.diag(covariance), 1e-3 * level)
    for cell in range(n_cells):
        if n_spikes[cell] < 1:
            continue
        z = np.abs(products[:, cell]) / np.sqrt(variance * n_spikes[cell])
        strongest = z.reshape(places, -1).max(axis=1)
        kept = strongest >= min(LEAST_Z, np.partition(strongest, -min(4, places))[-min(4, places)])
        chosen = np.repeat(kept, size // places)
        matrix = covariance[np.ix_(chosen, chosen)] + penalty * np.eye(int(chosen.sum()))
        weights[chosen, cell] = np.linalg.solve(matrix, products[chosen, cell] / n_frames)
    return weights


def rate_table(drive: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Monotone nonlinearity: drive levels, and the rate at each relative to the mean rate."""
    order = np.argsort(drive, kind="stable")
    edges = np.linspace(0, len(order), N_LEVELS + 1).astype(int)
    mean = counts.mean()
    if not mean > 0 or drive[order[0]] == drive[order[-1]]:
        return np.array([0.0, 1.0]), np.array([1.0, 1.0])
    sizes = np.diff(edges)
    levels = np.add.reduceat(drive[order].astype(np.float64), edges[:-1]) / sizes
    spikes = np.add.reduceat(counts[order].astype(np.float64), edges[:-1])
    rates = (spikes + PRIOR_SPIKES) / (sizes + PRIOR_SPIKES / mean)
    rates = isotonic_regression(rates, weights=sizes).x / mean
    return levels, np.maximum(rates, LEAST_RATIO)


def cross_fitted_rates(
    design: Design, counts: np.ndarray, used: np.ndarray, folds: np.ndarray
) -> np.ndarray:
    """Relative rates (fold, frame, cell), each fold's from filters fitted to the other folds.

    `counts` (frame, cell) are the spikes of the moment at which each frame was shown, `used`
    (frame,) says at which frames that is known, and `folds` (frame,) deals the frames out.
    """
    (rates,) = rates_of_parts(design, counts, np.where(used, folds, -1), [np.unique(folds)], folds)
    return rates


def rates_of_parts(
    design: Design,
    counts: np.ndarray,
    labels: np.ndarray,
    parts: list[np.ndarray],
    folds: np.ndarray,
) -> Iterator[np.ndarray]:
    """Yield relative rates (fold, frame, cell) fitted on each of `parts`, lists of labels.

    The moments of each label are summed once. A label belongs to the fold of its frames.
    """
    known = design.known()
    labels = np.where(known, labels, -1)
    if (labels < 0).all():
        raise ValueError("no frame to fit to")
    squares, products, frames = design.moments(labels, counts)
    n_labels = len(frames)
    spikes = np.stack([counts[labels == label].sum(axis=0) for label in range(n_labels)])
    fold_of = np.array(
        [folds[np.argmax(labels == k)] if (labels == k).any() else -1 for k in range(n_labels)]
    )
    n_folds = int(folds.max()) + 1
    places = design.movie.shape[1]
    for part in parts:
        part = part[part < n_labels]
        weights = []
        for fold in range(n_folds):
            rest = part[fold_of[part] != fold]
            weights.append(
                fitted_filters(
                    squares[rest].sum(axis=0),
                    products[rest].sum(axis=0),
                    frames[rest].sum(),
                    spikes[rest].sum(axis=0),
                    places,
                )
            )
        drives = design.drives(np.stack(weights))
        inside = np.flatnonzero(np.isin(labels, part))
        honest = drives[folds[inside], inside]
        for cell in range(counts.shape[1]):
            levels, rates = rate_table(honest[:, cell], counts[inside, cell])
            for fold in range(n_folds):
                drives[fold, :, cell] = np.interp(drives[fold, :, cell], levels, rates)
        drives[:, ~known] = 0
        yield drives
