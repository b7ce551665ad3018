"""Where each interneuron looks: as given, or from its own reverse correlation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr
from scipy import ndimage

from retina_codec._common.checks import nearest_names, require_choice
from retina_codec.interneurons.parts import Pair, Part

# As in simulations, and in recordings.
PLACE_NAMES = (("interneuron_y", "interneuron_x"), ("y", "x"))
SOURCES = ("auto", "coordinates", "sta", "none")
# A map of energy that varies by less (of its peak) has no place: the stimulus is the same all over.
FLAT = 1e-3


def source_of(source: Any, potential: xr.DataArray) -> str:
    """Settle ``"auto"``: coordinates where there are any.

    Raises
    ------
    ValueError
        If `source` is unknown, or coordinates are asked for and there are none.
    """
    require_choice(source, SOURCES, "centres")
    held = place_coords(potential)
    if source == "auto":
        return "coordinates" if held else "sta"
    if source == "coordinates" and not held:
        raise ValueError(
            "centres='coordinates', but potential has no coordinates interneuron_y and "
            f"interneuron_x along 'interneuron'; {nearest_names('interneuron_y', potential.coords)}"
        )
    return str(source)


def place_coords(potential: xr.DataArray) -> list[xr.DataArray]:
    """Coordinates y and x of the interneurons, if both are there; else none."""
    for names in PLACE_NAMES:
        found = [potential.coords[name] for name in names if name in potential.coords]
        if len(found) == 2 and all(coord.dims == ("interneuron",) for coord in found):
            return found
    return []


def given_centres(pair: Pair) -> np.ndarray:
    """Centres (interneuron, 2) from coordinates.

    Raises
    ------
    ValueError
        If they are in other units than the movie's.
    """
    coords = place_coords(pair.potential)
    for axis, coord in zip("yx", coords, strict=True):
        units = coord.attrs.get("units")
        known = pair.stimulus[axis].attrs.get("units") if axis in pair.stimulus.coords else None
        if units and known and units != known:
            raise ValueError(
                f"potential: {coord.name} is in {units!r}, the movie's {axis} in {known!r}; "
                "bring them to the same units"
            )
    return np.stack([coord.values.astype(np.float64) for coord in coords], axis=1)


class ReverseCorrelation:
    """Sums of frames before each sample, weighted by signals.

    Parameters
    ----------
    n_signals : int
        Signals at a time.
    history : int
        Frames before, the current one included.
    frame_shape : tuple of int
        ([color,] y, x).
    """

    def __init__(self, n_signals: int, history: int, frame_shape: tuple[int, ...]) -> None:
        self.shape = (n_signals, history, *frame_shape)
        self.n = 0
        self._signals = np.zeros(n_signals)
        # The last row: sums of the frames alone.
        self._frames = np.zeros((n_signals + 1, history, int(np.prod(frame_shape))))

    def add(self, signals: np.ndarray, used: np.ndarray, frames: np.ndarray) -> None:
        """Add `signals` (used sample, signal) to a segment of `frames` (frame, pixel).

        `used` are indices of samples; sample i sees the frames i to i + history - 1.
        """
        history = self.shape[1]
        weights = np.concatenate([signals, np.ones((len(signals), 1))], axis=1).T
        for lag in range(history):
            self._frames[:, lag] += weights @ frames[used + history - 1 - lag]
        self._signals += signals.sum(0)
        self.n += len(signals)

    def covariance(self) -> np.ndarray:
        """(signal, lag, [color,] y, x): of the signal with the stimulus a lag before."""
        mean = self._signals[:, None, None] / self.n
        found = self._frames[:-1] / self.n - mean * self._frames[-1] / self.n
        return found.reshape(self.shape)


def segments(
    part: Part, batch_size: int
) -> Iterator[tuple[Any, np.ndarray, np.ndarray, np.ndarray]]:
    """Give batches of a movie, indices of compared samples in it, their rows, and its frames."""
    for batch, used, row in part.batches(batch_size):
        frames = batch.inputs[0].cpu().numpy().astype(np.float64)
        yield batch, np.flatnonzero(used), row, frames.reshape(len(frames), -1)


def half_centres(
    parts: Sequence[Part],
    lag: int,
    history: int,
    batch_size: int,
    seen: Callable[[], Any] = lambda: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Centres of receptive fields by reverse correlation, in each half and in both.

    Parameters
    ----------
    parts : sequence of Part
        All stimuli, weighted by their length.
    lag : int
        Number of the lag that is the sample's own time.
    history : int
        Frames that are looked at.
    batch_size : int
        Samples at a time.
    seen : callable
        Called once a batch.

    Returns
    -------
    halves : ndarray
        (half, interneuron, 2), y and x in the movie's coordinates; NaN if there is no place.
    whole : ndarray
        (interneuron, 2).
    """
    weighted: list[np.ndarray] = []
    for part in parts:
        shape = part.stimulus.transpose("time", ..., "y", "x").shape[1:]
        n_signals = part.signals.shape[2]
        sums = [ReverseCorrelation(n_signals, history, shape) for _ in range(2)]
        for _, used, row, frames in segments(part, batch_size):
            half = part.half_of(row)
            for number in range(2):
                inside = half == number
                if inside.any():
                    signals = part.signals.lagged[row[inside], lag]
                    sums[number].add(signals, used[inside], frames)
            seen()
        weighted.append(part.n * np.stack([each.covariance() for each in sums]))
    total = np.sum(weighted, axis=0)
    stimulus = parts[0].stimulus
    axes = [stimulus[a].values.astype(np.float64) if a in stimulus.coords else None for a in "yx"]
    halves = np.stack([[centre_of(field, axes) for field in half] for half in total])
    whole = np.stack([centre_of(field, axes) for field in total.sum(0)])
    return halves, whole


def centre_of(field: np.ndarray, axes: Sequence[np.ndarray | None]) -> tuple[float, float]:
    """Centre (y, x) of a receptive field (lag, [color,] y, x).

    Centre of mass of the energy above half its peak, of the pixels that hang together with the
    peak. NaN where the map is flat.
    """
    energy = (field**2).sum(axis=tuple(range(field.ndim - 2)))
    peak = float(energy.max())
    if not peak > 0 or peak - float(energy.min()) <= FLAT * peak:
        return np.nan, np.nan
    labels, _ = ndimage.label(energy > peak / 2)
    own = labels == labels.flat[int(energy.argmax())]
    weights = np.where(own, energy - peak / 2, 0)
    centre = []
    for place, axis in enumerate(axes):
        if axis is None:
            return np.nan, np.nan
        along = weights.sum(1 - place)
        centre.append(float(along @ axis / along.sum()))
    return centre[0], centre[1]
