"""Receptive fields of interneurons beside those of the units that are most like them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from retina_codec._common.checks import nearest_names, require_choice, require_count
from retina_codec._common.progress import progress_counter
from retina_codec._common.provenance import provenance
from retina_codec._common.time import bin_width_of
from retina_codec.interneurons.parts import pairs_of, parts_of
from retina_codec.interneurons.places import ReverseCorrelation, segments
from retina_codec.interneurons.units import Units
from retina_codec.models.model import BATCH_SIZE, RetinaModel, frozen

UNITS = ("best", "matched")
DIM = "interneuron"


def receptive_fields(
    model: RetinaModel,
    stimulus: xr.DataArray | Mapping[str, xr.DataArray] | xr.DataTree | xr.Dataset,
    potential: xr.DataArray | Mapping[str, xr.DataArray] | str = "potential",
    *,
    comparison: xr.DataTree | xr.Dataset,
    unit: str = "best",
    batch_size: int = BATCH_SIZE,
    progress: bool = True,
) -> xr.Dataset:
    """Receptive fields of interneurons, and of the hidden units that follow them.

    Both are had in the same way from the same movie, by reverse correlation: the covariance of the
    signal (potential or activation, in units of its sd) with the movie, as the model normalises
    it, at each lag before. So that both can be compared whatever the layer, and what the movie's
    own correlations do to one they do to the other. On white noise, the field of a unit of a first
    layer is its filter. A map in space times a course in time is the first singular pair of each.

    Parameters
    ----------
    model : RetinaModel
        The model of the comparison.
    stimulus, potential
        As for `retina_codec.compare_interneurons`; several stimuli are weighted by their length.
    comparison : xarray.DataTree or xarray.Dataset
        Its result.
    unit : {"best", "matched"}
        The best of all units, or of those at the interneuron's place.
    batch_size : int
        Samples in one forward pass.
    progress : bool
        Show a progress bar.

    Returns
    -------
    xarray.Dataset
        Over `interneuron`, each for the interneuron and for its unit: ``interneuron_field``,
        ``unit_field`` (interneuron, lag, [color,] y, x); ``interneuron_space``, ``unit_space``
        (interneuron, [color,] y, x), whose strongest pixel is 1; ``interneuron_time``,
        ``unit_time`` (interneuron, lag), `lag` in seconds before the response;
        ``interneuron_share``, ``unit_share``, the share of the field's energy that the pair has;
        and ``similarity``, the correlation of the two fields. Coordinates ``unit_layer``,
        ``unit_channel``, ``unit_y``, ``unit_x``. NaN where an interneuron has no such unit.

    Raises
    ------
    TypeError, ValueError
        If the arguments do not fit, as for `retina_codec.compare_interneurons`; if `comparison`
        is of another model or of other interneurons.

    Examples
    --------
    >>> import retina_codec as rc
    >>> screen = rc.stimuli.Screen(shape=(16, 16), pixel_size=50.0, bin_width=0.01)
    >>> recording = rc.simulate_retina(screen.white_noise(n_frames=1500, seed=0), "first")
    >>> model = rc.load_model("simulated_bncnn")
    >>> found = rc.compare_interneurons(model, recording, n_shifts=10, progress=False)
    >>> fields = rc.interneurons.receptive_fields(
    ...     model, recording, comparison=found, progress=False
    ... )
    >>> fields["unit_field"].dims
    ('interneuron', 'lag', 'y', 'x')
    """
    if not isinstance(model, RetinaModel):
        raise TypeError(f"model is a {type(model).__name__}; expected a RetinaModel")
    require_choice(unit, UNITS, "unit")
    require_count(batch_size, 1, "batch_size")
    pairs = pairs_of(stimulus, potential)
    labels = pairs[0].potential["interneuron"]
    table = _table(comparison, model, unit, labels.values)
    lags = np.zeros(1, dtype=np.int64)
    parts = parts_of(model, pairs, lags, 0, 0)
    names = [str(name) for name in dict.fromkeys(table[f"{unit}_layer"].values) if name]
    n_signals = len(labels)
    total: np.ndarray | float = 0.0
    with frozen(model.network):
        units = Units(model, names, parts[0].samples) if names else None
        rows = [table.isel(interneuron=i) for i in range(n_signals)]
        numbers = np.array([_number(units, row, unit) for row in rows])
        known = numbers >= 0
        wanted = np.unique(numbers[known])
        column = np.searchsorted(wanted, numbers[known])
        steps = sum(-(-len(part.samples) // batch_size) for part in parts)
        with progress_counter(steps, "receptive_fields", shown=progress) as bar:
            for part in parts:
                shape = part.stimulus.transpose("time", ..., "y", "x").shape[1:]
                sums = ReverseCorrelation(2 * n_signals, model.history, shape)
                spread = _Spread(len(wanted))
                for batch, used, row, frames in segments(part, batch_size):
                    signals = np.zeros((len(row), 2 * n_signals))
                    signals[:, :n_signals] = part.signals.lagged[row, 0]
                    if units is not None:
                        n = batch.index.stop - batch.index.start
                        active = units.take(units.run(batch.inputs, n), wanted)[used]
                        centred = spread.add(active)
                        signals[:, n_signals:][:, known] = centred[:, column]
                    sums.add(signals, used, frames)
                    bar.update()
                found = sums.covariance()
                sd = np.full(n_signals, np.nan)
                sd[known] = spread.sd()[column]
                scale = np.r_[np.ones(n_signals), sd]
                total = total + part.n * found / scale.reshape(-1, *[1] * (found.ndim - 1))
    fields = np.asarray(total / sum(part.n for part in parts))
    return _labelled(fields, pairs[0].stimulus, model, table, unit)


class _Spread:
    """Standard deviations of units, taken about their first values."""

    def __init__(self, n: int) -> None:
        self._n = 0
        self._origin: np.ndarray | None = None
        self._sum, self._squares = np.zeros(n), np.zeros(n)

    def add(self, active: np.ndarray) -> np.ndarray:
        """Add (sample, unit); return it without the first values."""
        if self._origin is None:
            if len(active) == 0:
                return active
            self._origin = active[0].copy()
        active = active - self._origin
        self._n += len(active)
        self._sum += active.sum(0)
        self._squares += (active**2).sum(0)
        return active

    def sd(self) -> np.ndarray:
        """NaN for a unit that never changes."""
        variance = self._squares / self._n - (self._sum / self._n) ** 2
        return np.sqrt(np.where(variance > 0, variance, np.nan))


def _table(comparison: Any, model: RetinaModel, unit: str, labels: np.ndarray) -> xr.Dataset:
    """Give the rows of the comparison, in the order of the potentials."""
    table = comparison.to_dataset() if isinstance(comparison, xr.DataTree) else comparison
    if not isinstance(table, xr.Dataset):
        raise TypeError(
            f"comparison is a {type(comparison).__name__}; expected the result of "
            "compare_interneurons"
        )
    if f"{unit}_layer" not in table or table[f"{unit}_layer"].dims != (DIM,):
        raise ValueError(
            f"comparison has no {unit + '_layer'!r} over 'interneuron'; "
            f"{nearest_names(unit + '_layer', table)}; expected the result of "
            "compare_interneurons, or a node 'models/NAME' of compare_models"
        )
    made_with = table.attrs.get("model_fingerprint")
    if made_with != model.fingerprint:
        raise ValueError(
            f"comparison is of the model {made_with!r}, but model has the fingerprint "
            f"{model.fingerprint!r}: give the model that was compared"
        )
    lacking = [str(name) for name in labels if name not in table.indexes[DIM]]
    if lacking:
        raise ValueError(
            f"comparison has no interneuron {', '.join(lacking)}; give the potentials that were "
            "compared"
        )
    return table.sel(interneuron=labels)


def _number(units: Units | None, row: xr.Dataset, unit: str) -> int:
    layer = str(row[f"{unit}_layer"].item())
    if units is None or not layer:
        return -1
    return units.number_of(
        layer, {axis: row[f"{unit}_{axis}"].item() for axis in ("channel", "y", "x")}
    )


def _labelled(
    fields: np.ndarray, movie: xr.DataArray, model: RetinaModel, table: xr.Dataset, unit: str
) -> xr.Dataset:
    n = table.sizes[DIM]
    movie = movie.transpose("time", ..., "y", "x")
    places = tuple(map(str, movie.dims[1:]))
    width = bin_width_of(movie, "stimulus")
    lag = xr.DataArray(
        width * np.arange(model.history),
        dims="lag",
        attrs={"units": "s", "long_name": "time before the response", "bin_width": width},
    )
    r = {"units": "1"}
    made: dict[str, Any] = {}
    for name, part in (("interneuron", fields[:n]), ("unit", fields[n:])):
        pairs = [first_pair(field) for field in part]
        space, course, share = (np.stack(values) for values in zip(*pairs, strict=True))
        made[f"{name}_field"] = (
            (DIM, "lag", *places),
            part,
            {**r, "long_name": f"covariance of the {name} with the movie, both in sd"},
        )
        made[f"{name}_space"] = ((DIM, *places), space, r)
        made[f"{name}_time"] = ((DIM, "lag"), course, r)
        made[f"{name}_share"] = (DIM, share, r)
    flat = fields.reshape(2, n, -1)
    flat = flat - flat.mean(-1, keepdims=True)
    size = np.sqrt((flat**2).sum(-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        made["similarity"] = (
            DIM,
            (flat[0] * flat[1]).sum(-1) / (size[0] * size[1]),
            {**r, "long_name": "correlation of the two receptive fields"},
        )
    return xr.Dataset(
        made,
        {
            "lag": lag,
            **{axis: movie[axis].variable for axis in places if axis in movie.coords},
            **{
                name: c.variable
                for name, c in table.coords.items()
                if c.dims == (DIM,) and name not in places
            },
            **{f"unit_{a}": table[f"{unit}_{a}"].variable for a in ("layer", "channel", "y", "x")},
        },
        attrs={
            "model_fingerprint": model.fingerprint,
            **provenance(function="receptive_fields", unit=unit),
        },
    )


def first_pair(field: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Map ([color,] y, x) and course (lag) of a field (lag, [color,] y, x), and their share.

    The map's strongest pixel is 1; the share is that of the field's squared norm.
    """
    if not np.isfinite(field).all() or not field.any():
        return np.full(field.shape[1:], np.nan), np.full(len(field), np.nan), np.nan
    left, strength, right = np.linalg.svd(field.reshape(len(field), -1), full_matrices=False)
    strongest = right[0][np.abs(right[0]).argmax()]
    course = left[:, 0] * strength[0] * strongest
    share = float(strength[0] ** 2 / (strength**2).sum())
    return (right[0] / strongest).reshape(field.shape[1:]), course, share
