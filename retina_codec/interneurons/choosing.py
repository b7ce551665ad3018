"""The best unit of each interneuron: chosen on one half of a recording, scored on the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from retina_codec.interneurons.moments import Moments
from retina_codec.interneurons.shifts import ShiftedSignals


class LayerMoments:
    """Moments of one layer: the whole recording unshifted, and each half with all shifts.

    Parameters
    ----------
    shape : tuple of int
        (sample, channel[, y, x]) of the layer's output.
    signals : ShiftedSignals
        What its units are correlated with.
    """

    def __init__(self, shape: tuple[int, ...], signals: ShiftedSignals) -> None:
        self.shape = shape
        self._signals = signals
        n_units = int(np.prod(shape[1:]))
        self._whole = Moments(n_units, signals.n_unshifted)
        self._halves = tuple(Moments(n_units, signals.n_columns) for _ in range(2))

    def add(
        self, units: np.ndarray, columns: np.ndarray, row: np.ndarray, halves: Sequence[slice]
    ) -> None:
        """Add `units` (row, unit) and signal `columns` (row, column) at the rows `row`."""
        self._whole.add(units, columns[:, : self._signals.n_unshifted])
        for moments, half in zip(self._halves, halves, strict=True):
            inside = (row >= half.start) & (row < half.stop)
            moments.add(units[inside], columns[inside])

    def correlation(self) -> np.ndarray:
        """Return the whole recording's (channel[, y, x], lag, interneuron); NaN if constant."""
        signals = self._signals
        return self._whole.correlation().reshape(*self.shape[1:], signals.n_lags, signals.n_signals)

    def best(self, shift: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Choose on the first half, for one shift (0: none).

        Returns
        -------
        tuple of ndarray
            Per interneuron: correlation in the first half (-inf if all units are constant in one
            of the halves), in the second, and place in (unit, lag), flat.
        """
        columns = self._signals.columns(shift)
        n = self._signals.n_signals
        first, second = (half.correlation(columns).reshape(-1, n) for half in self._halves)
        ranked = np.where(np.isfinite(first) & np.isfinite(second), first, -np.inf)
        place = ranked.argmax(0)
        chosen = place, np.arange(n)
        return ranked[chosen], second[chosen], place


def best_units(
    layers: Mapping[str, LayerMoments],
    signals: ShiftedSignals,
    coords: Mapping[str, Mapping[str, xr.DataArray]],
    lags: np.ndarray,
) -> xr.Dataset:
    """Best unit of each interneuron over all layers, against recordings shifted in time.

    Parameters
    ----------
    layers : mapping of str to LayerMoments
        By layer.
    signals : ShiftedSignals
        The interneurons, unshifted and shifted.
    coords : mapping of str to mapping of str to DataArray
        By layer: coordinates of its unit dims.
    lags : ndarray
        In seconds.

    Returns
    -------
    Dataset
        Over `interneuron`, as `compare_interneurons` describes it.

    Raises
    ------
    ValueError
        If no unit changes in both halves.
    """
    names = list(layers)
    layer, place, best_r = _best_of_layers(layers, 0)
    null = np.stack([_best_of_layers(layers, 1 + i)[2] for i in range(signals.n_shifts)])
    whole = [found.correlation().reshape(-1, signals.n_signals) for found in layers.values()]
    unit, lag = np.divmod(place, signals.n_lags)
    places = [
        _unit_labels(coords[names[number]], layers[names[number]].shape[1:], index)
        for number, index in zip(layer, unit, strict=True)
    ]
    r = {"units": "1"}
    dim = "interneuron"
    return xr.Dataset(
        {
            "best_layer": (dim, np.array(names)[layer]),
            **{
                f"best_{axis}": (dim, np.array([labels[axis] for labels in places]))
                for axis in ("channel", "y", "x")
            },
            "best_lag": (dim, lags[lag], {"units": "s"}),
            "best_r": (
                dim,
                best_r,
                {**r, "long_name": "correlation in the second half, unit chosen on the first"},
            ),
            "uncorrected_r": (
                dim,
                np.fmax.reduce(np.concatenate(whole)),
                {**r, "long_name": "largest correlation of any unit, whole recording"},
            ),
            "null_r": (
                dim,
                null.mean(0),
                {**r, "long_name": "mean best_r with the recording shifted"},
            ),
            "p_value": (dim, (1 + (null >= best_r).sum(0)) / (1 + len(null)), r),
        }
    )


def _best_of_layers(
    layers: Mapping[str, LayerMoments], shift: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per interneuron: number of the layer, place in it, and correlation in the second half."""
    first, second, place = (
        np.stack(values) for values in zip(*(m.best(shift) for m in layers.values()), strict=True)
    )
    if not np.isfinite(first).any(0).all():
        raise ValueError(
            f"layers {', '.join(layers)}: no unit changes in both halves of the recording; choose "
            "other layers, or a stimulus that drives them"
        )
    layer = first.argmax(0)
    chosen = layer, np.arange(first.shape[1])
    return layer, place[chosen], second[chosen]


def _unit_labels(
    coords: Mapping[str, xr.DataArray], shape: tuple[int, ...], unit: int
) -> dict[str, Any]:
    """Channel, y and x of a unit given its flat index; NaN for the places of a dense layer."""
    labels: dict[str, Any] = {"y": np.nan, "x": np.nan}
    for axis, index in zip(("channel", "y", "x"), np.unravel_index(unit, shape), strict=False):
        labels[axis] = coords[axis].values[index].item()
    return labels
