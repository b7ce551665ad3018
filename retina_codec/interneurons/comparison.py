"""`compare_interneurons`: each recorded interneuron against all hidden units of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from retina_codec._common.checks import magnitude, require_at_least, require_count, require_dims
from retina_codec._common.progress import progress_bar
from retina_codec._common.provenance import provenance
from retina_codec._common.time import bin_width_of
from retina_codec.attribution.capture import captured
from retina_codec.interneurons.alignment import lagged_potential, separate_halves
from retina_codec.interneurons.choosing import LayerMoments, best_units
from retina_codec.interneurons.shifts import ShiftedSignals, circular_shifts
from retina_codec.models.model import BATCH_SIZE, Model, Samples, frozen

UNIT_DIMS = ("channel", "y", "x")


def compare_interneurons(
    model: Model,
    stimulus: xr.DataArray,
    potential: xr.DataArray,
    *,
    layers: str | Sequence[str] | None = None,
    max_lag: float = 0.0,
    n_shifts: int = 100,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    progress: bool = True,
) -> xr.DataTree:
    """Correlate recorded interneurons with every hidden unit of a model on the same stimulus.

    The published figure, the largest Pearson correlation over all units and all of the recording,
    is ``uncorrected_r``. It is a maximum over thousands of units, so that it is high for noise
    too. Here the unit is also chosen on the first half of the recording and scored on the second
    (``best_r``; between the halves a stretch as long as the model's history and `max_lag` is left
    out), and the same is done with the recording shifted circularly in time by at least 5 s, which
    gives ``null_r`` and ``p_value``. Compare with an untrained model by a second call.

    Parameters
    ----------
    model : Model
        A model of the retina, or the circuit of a simulation.
    stimulus : xarray.DataArray
        The movie (time, [color,] y, x) that was shown, in its recorded units.
    potential : xarray.DataArray
        (time, interneuron), membrane potentials in mV, or any signal. It must have a value at the
        exact `time` of every sample of the model (frames with a whole history); other times are
        not used. Coordinates of `interneuron` (type, layer, y, x ...) are passed on.
    layers : str or sequence of str, optional
        Layers by name; by default ``model.default_layers``.
    max_lag : float or quantity
        Also compare each unit with the potential up to `max_lag` seconds before, bin by bin; the
        best lag is chosen with the unit.
    n_shifts : int
        Number of shifted recordings. Memory and time grow with it: 16 bytes for each hidden unit,
        interneuron, lag and shift.
    seed : int
        Of the shifts.
    batch_size : int
        Samples in one forward pass.
    progress : bool
        Show a progress bar.

    Returns
    -------
    xarray.DataTree
        Root, over ``interneuron``: ``best_layer``, ``best_channel``, ``best_y``, ``best_x`` (NaN
        for dense layers) and ``best_lag`` (s) of the unit chosen on the first half; ``best_r``,
        its correlation in the second half; ``uncorrected_r``; ``null_r``, the mean of `best_r`
        over shifts; ``p_value`` = (1 + number of shifts with as high a `best_r`) /
        (1 + n_shifts). Node ``layers/NAME``: ``correlation`` (interneuron, channel, y, x) over
        the whole recording, with ``lag`` before ``channel`` if ``max_lag > 0``; NaN for units
        that never change.

    Raises
    ------
    TypeError
        If `model` is not a Model, or `stimulus` or `potential` not a DataArray.
    ValueError
        If the stimulus does not fit the model, `potential` is on another clock, has NaN or an
        interneuron that is constant, a layer is unknown, no unit of the layers ever changes, or
        the recording is too short for the shifts.

    References
    ----------
    Maheswaranathan et al., Neuron 111 (2023), 2742, for the uncorrected figure.

    Examples
    --------
    >>> import numpy as np
    >>> import retina_codec as rc
    >>> import xarray as xr
    >>> rng = np.random.default_rng(0)
    >>> time = rc.time_coordinate(0.05 * np.arange(600), bin_width=0.05)
    >>> movie = xr.DataArray(
    ...     rng.standard_normal((600, 4, 4)), dims=("time", "y", "x"), coords={"time": time}
    ... )
    >>> model = rc.models.LN((4, 4), history=3, bin_width=0.05, cells=["a", "b"])
    >>> noise = xr.DataArray(
    ...     rng.standard_normal((600, 2)), dims=("time", "interneuron"), coords={"time": time}
    ... )
    >>> tree = rc.compare_interneurons(model, movie, noise, n_shifts=20, progress=False)
    >>> bool((tree["best_r"] < 0.3).all())
    True
    >>> tree["layers/filter"]["correlation"].dims
    ('interneuron', 'channel', 'y', 'x')
    """
    if not isinstance(model, Model):
        raise TypeError(f"model is a {type(model).__name__}; expected a retina_codec.Model")
    if model.sample_dim != "time":
        raise ValueError(
            f"model has samples along {model.sample_dim!r}; expected a model of movies, along "
            "'time'"
        )
    potential = require_dims(potential, ("time", "interneuron"), "potential")
    if "interneuron" not in potential.coords:
        potential = potential.assign_coords(interneuron=np.arange(potential.sizes["interneuron"]))
    require_count(n_shifts, 1, "n_shifts")
    require_count(batch_size, 1, "batch_size")
    seconds = float(magnitude(max_lag, "s", "max_lag"))
    require_at_least(seconds, 0.0, "max_lag")
    names = _layer_names(model, layers)
    samples = model.samples(stimulus)
    bin_width = bin_width_of(stimulus, "stimulus")

    n_lags = 1 + round(seconds / bin_width)
    gap = getattr(model, "history", 1) + n_lags - 1
    rows, lagged = lagged_potential(potential, samples.coords, n_lags)
    shifts = circular_shifts(len(rows), bin_width, n_shifts, seed)
    halves = separate_halves(lagged, gap, potential["interneuron"].values)
    signals = ShiftedSignals(lagged, shifts)
    moments = _moments(model, samples, names, rows, signals, halves, batch_size, progress)

    lags = xr.DataArray(
        bin_width * np.arange(n_lags),
        dims="lag",
        attrs={"units": "s", "long_name": "time of the potential before that of the unit"},
    )
    units = {name: samples.layer_coords(name, found.shape) for name, found in moments.items()}
    attrs = {
        "model_fingerprint": model.fingerprint,
        **provenance(
            method="compare_interneurons",
            layers=names,
            max_lag=seconds,
            n_shifts=n_shifts,
            gap=gap,
            seed=seed,
        ),
    }
    of_interneuron = {
        name: coord for name, coord in potential.coords.items() if coord.dims == ("interneuron",)
    }
    root = best_units(moments, signals, units, lags.values)
    tree = {"/": root.assign_coords(of_interneuron).assign_attrs(attrs)}
    for name, found in moments.items():
        dims = UNIT_DIMS[: len(found.shape) - 1]
        correlation = xr.DataArray(
            found.correlation().astype(np.float32),
            dims=(*dims, "lag", "interneuron"),
            coords={**units[name], "lag": lags, "interneuron": potential["interneuron"].variable},
            attrs={"units": "1", "long_name": f"correlation with the units of {name}"},
        ).transpose("interneuron", "lag", *dims)
        kept = correlation if n_lags > 1 else correlation.isel(lag=0, drop=True)
        tree[f"/layers/{name}"] = kept.to_dataset(name="correlation")
    return xr.DataTree.from_dict(tree)


def _layer_names(model: Model, layers: str | Sequence[str] | None) -> list[str]:
    """Names of the layers, each once; `Model.layer` says which is unknown."""
    if layers is None:
        layers = model.default_layers
    names = list(dict.fromkeys([layers] if isinstance(layers, str) else layers))
    if not names:
        raise ValueError(f"layers is empty; choose from {', '.join(model.layers)}")
    for name in names:
        model.layer(name)
    return names


def _moments(
    model: Model,
    samples: Samples,
    names: Sequence[str],
    rows: np.ndarray,
    signals: ShiftedSignals,
    halves: tuple[slice, slice],
    batch_size: int,
    progress: bool,
) -> dict[str, LayerMoments]:
    """Run the model over the stimulus once; no activation outlives its batch."""
    modules = {name: model.layer(name) for name in names}
    # Of each sample its row among those compared; -1 for those whose lags leave their block.
    row_of = np.full(len(samples), -1)
    row_of[rows] = np.arange(len(rows))
    moments: dict[str, LayerMoments] = {}
    with frozen(model.network):
        for batch in progress_bar(
            samples.batches(batch_size),
            "compare_interneurons",
            total=-(-len(samples) // batch_size),
            shown=progress,
        ):
            with torch.no_grad(), captured(modules) as caught:
                model.network(batch.inputs)
            row = row_of[batch.index]
            used = row >= 0
            columns = signals.at(row[used])
            for name in names:
                activation = _activation(caught, name, len(row))
                if name not in moments:
                    moments[name] = LayerMoments(tuple(activation.shape), signals)
                units = activation.flatten(1).cpu().numpy().astype(np.float64)
                moments[name].add(units[used], columns, row[used], halves)
    return moments


def _activation(caught: Mapping[str, Tensor], name: str, n: int) -> Tensor:
    """Output (sample, channel[, y, x]) of a layer for a batch of `n` samples."""
    if name not in caught:
        raise ValueError(f"layer {name!r} did not run in the forward pass: choose another")
    activation = caught[name].detach()
    if activation.ndim not in (2, 4) or len(activation) != n:
        raise ValueError(
            f"layer {name!r} gives a tensor of shape {tuple(activation.shape)} for {n} samples; "
            "expected (sample, channel) or (sample, channel, y, x)"
        )
    return activation
