"""`compare_interneurons`: each recorded interneuron against all hidden units of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from retina_codec._common.checks import magnitude, require_at_least, require_count
from retina_codec._common.provenance import provenance
from retina_codec._common.time import bin_width_of
from retina_codec.interneurons.cells import over_cells, q_values
from retina_codec.interneurons.choosing import Scored
from retina_codec.interneurons.duplicates import duplicates_of
from retina_codec.interneurons.parts import Pair, pairs_of
from retina_codec.interneurons.places import source_of
from retina_codec.interneurons.search import Found, Settings, gap, search, together
from retina_codec.interneurons.units import UNIT_DIMS, Units
from retina_codec.models.model import BATCH_SIZE, Model

MEMORY_BUDGET = 5e8
DIM = "interneuron"
R = {"units": "1"}


def compare_interneurons(
    model: Model,
    stimulus: xr.DataArray | Mapping[str, xr.DataArray] | xr.DataTree | xr.Dataset,
    potential: xr.DataArray | Mapping[str, xr.DataArray] | str = "potential",
    *,
    layers: str | Sequence[str] | None = None,
    max_lag: float = 0.0,
    min_lag: float = 0.0,
    centres: str = "auto",
    controls: Mapping[str, Model] | None = None,
    n_shifts: int = 100,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    memory_budget: float = MEMORY_BUDGET,
    progress: bool = True,
) -> xr.DataTree:
    """Correlate recorded interneurons with every hidden unit of a model on the same stimulus.

    The published figure, the largest Pearson correlation over all units and all of the recording,
    is ``uncorrected_r``. It is a maximum over thousands of units, so that it is high for noise
    too. Three scores have no such bias. Each is chosen, or fitted, on one half of the recording
    and scored on the other, then the other way round, and the mean of the two is given; between
    the halves a stretch as long as the model's history and the lags is left out.

    - ``best_r``: of the unit with the largest correlation.
    - ``matched_r``: the same among the units, one a channel, whose receptive fields are centred
      nearest to the interneuron's (`centres`): what remains if the place cannot be chosen.
    - ``combined_r``: of the ridge regression of the interneuron on all these channels. Penalty and
      lag are chosen by leaving out each quarter of the half that is fitted.

    The same is done with the recording shifted circularly in time by at least 5 s, which gives
    each score's null and p-value.

    With several stimuli, correlations are means over stimuli, weighted by their length (a unit
    that is silent under one counts 0 there), and each stimulus is shifted on its own.

    Parameters
    ----------
    model : Model
        A model of the retina, or the circuit of a simulation.
    stimulus : xarray.DataArray, mapping of str to DataArray, xarray.DataTree or Dataset
        The movie (time, [color,] y, x) that was shown, in its recorded units; several by name; or
        a recording: its nodes that hold ``stimulus`` and `potential` are used.
    potential : xarray.DataArray, mapping of str to DataArray, or str
        (time, interneuron), membrane potentials in mV, rates, or any signal; several by the names
        of the stimuli, with the same interneurons. It must have a value at the exact `time` of
        every sample of the model (frames with a whole history); other times are not used. Of a
        recording: the name of the variable. Coordinates of `interneuron` (type, layer, y, x ...)
        are passed on.
    layers : str or sequence of str, optional
        Layers by name; by default ``model.default_layers``. Controls that lack one of them are
        taken at their own default layers.
    max_lag : float or quantity
        Also compare each unit with the potential up to `max_lag` seconds before it, bin by bin:
        the unit comes late. The best lag is chosen with the unit.
    min_lag : float or quantity
        0 or negative: likewise with the potential up to ``-min_lag`` seconds after the unit.
    centres : {"auto", "coordinates", "sta", "none"}
        Where interneurons look: as their coordinates `interneuron_y` and `interneuron_x` (or `y`
        and `x`) say, in the movie's units; or by reverse correlation of potential and movie, for
        each half its own; ``"auto"`` takes coordinates where there are any. A place that is not
        known gives NaN.
    controls : mapping of str to Model, optional
        Models whose scores are given beside, such as ``{"untrained": ..., "time-shifted": ...}``.
    n_shifts : int
        Number of shifted recordings.
    seed : int
        Of the shifts.
    batch_size : int
        Samples in one forward pass.
    memory_budget : float
        Bytes of the correlations that are held at a time. Each hidden unit takes 16 bytes, and 8
        more a stimulus, for each interneuron, lag and shift; if all together are more, the model
        runs over the stimuli once for each part of the units that fits. The numbers do not depend
        on it. Beside it are held the potentials, the result (4 bytes for each unit, interneuron,
        lag and stimulus) and, by interneuron, the sums of the regression.
    progress : bool
        Show a progress bar.

    Returns
    -------
    xarray.DataTree
        Root, over ``interneuron``:

        - ``best_layer``, ``best_channel``, ``best_y``, ``best_x`` (NaN for dense layers),
          ``best_lag`` (s): the unit with the largest correlation over the whole recording, which
          is ``uncorrected_r``; ``same_channel``: 1 if both halves choose the same channel;
        - ``best_r``; ``null_r``, its mean over shifts; ``p_value`` = (1 + number of shifts with as
          high a `best_r`) / (1 + n_shifts); ``q_value``, the false discovery rate (Benjamini and
          Hochberg) among the cells;
        - ``centre_y``, ``centre_x`` of the interneuron's receptive field; ``matched_layer``,
          ``matched_channel``, ``matched_y``, ``matched_x``, ``matched_lag``: the best of the
          matched units over the whole recording, and its correlation ``matched_uncorrected_r``;
          ``matched_r``, ``matched_null_r``, ``matched_p_value``;
        - ``combined_r``, ``combined_null_r``, ``combined_p_value``;
        - ``duplicate_of``: the interneuron of which this is a copy, or "";
        - with controls, ``control_best_r``, ``control_matched_r``, ``control_combined_r`` (control,
          interneuron).

        Node ``over_cells``: `over_cells` of it. Node ``layers/NAME``: ``correlation``
        (interneuron, channel, y, x) over the whole recording, with ``lag`` before ``channel`` if
        there are lags; NaN for units that never change; and ``matched_correlation`` (interneuron,
        [lag,] channel) at the matched place. With several stimuli also
        ``correlation_by_stimulus`` (stimulus, interneuron, ...), and a node ``stimuli`` over
        (stimulus, interneuron): ``best_...`` to ``p_value`` of each alone, and ``others_r``,
        ``others_null_r``, ``others_p_value``: the unit chosen on this stimulus, scored on all
        others.

    Warns
    -----
    UserWarning
        If interneurons are duplicates of others (r > .999 under every stimulus). They count once
        in q-values and over cells.

    Raises
    ------
    TypeError
        If `model` is not a Model, or `stimulus` or `potential` are of other types or do not go
        together.
    ValueError
        If the stimulus does not fit the model, `potential` is on another clock, has NaN or an
        interneuron that is constant, a layer is unknown, no unit of the layers ever changes, the
        recording is too short for the shifts, stimuli hold other interneurons, or centres are in
        other units.

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
    question = Question(
        model,
        stimulus,
        potential,
        layers=layers,
        max_lag=max_lag,
        min_lag=min_lag,
        centres=centres,
        n_shifts=n_shifts,
        seed=seed,
        batch_size=batch_size,
        memory_budget=memory_budget,
        progress=progress,
    )
    scores = control_scores(question, controls)
    return question.answer(model, scores, "model")


class Question:
    """Stimuli and recorded interneurons, checked, to be put to one or several models.

    Parameters
    ----------
    model : Model
        Any of the models: its fitness is checked before the data are read.
    stimulus, potential, layers, max_lag, min_lag, centres, n_shifts, seed, batch_size, \
memory_budget, progress
        As for `compare_interneurons`.
    """

    def __init__(
        self,
        model: Model,
        stimulus: Any,
        potential: Any,
        *,
        layers: str | Sequence[str] | None = None,
        max_lag: float = 0.0,
        min_lag: float = 0.0,
        centres: str = "auto",
        n_shifts: int = 100,
        seed: int = 0,
        batch_size: int = BATCH_SIZE,
        memory_budget: float = MEMORY_BUDGET,
        progress: bool = True,
    ) -> None:
        require_movie_model(model, "model")
        self.pairs: list[Pair] = pairs_of(stimulus, potential)
        require_count(n_shifts, 1, "n_shifts")
        require_count(batch_size, 1, "batch_size")
        require_at_least(memory_budget, 1, "memory_budget")
        latest = float(magnitude(max_lag, "s", "max_lag"))
        require_at_least(latest, 0.0, "max_lag")
        earliest = float(magnitude(min_lag, "s", "min_lag"))
        if not earliest <= 0:
            raise ValueError(
                f"min_lag={min_lag!r}; expected 0, or a negative time for potentials after the unit"
            )
        model.samples(self.pairs[0].stimulus, "stimulus")
        self.bin_width = bin_width_of(self.pairs[0].stimulus, "stimulus")
        lags = np.arange(round(earliest / self.bin_width), round(latest / self.bin_width) + 1)
        self._layers = layers
        self._given = {"max_lag": latest, "min_lag": earliest, "centres": centres}
        self._settings = Settings(
            lags,
            n_shifts,
            seed,
            source_of(centres, self.pairs[0].potential),
            batch_size,
            float(memory_budget),
            progress,
        )

    @property
    def stimuli(self) -> list[str]:
        """Names of the stimuli."""
        return [pair.name for pair in self.pairs]

    @property
    def lag(self) -> xr.DataArray:
        """Lags in seconds."""
        return xr.DataArray(
            self.bin_width * self._settings.lags,
            dims="lag",
            attrs={"units": "s", "long_name": "time of the potential before that of the unit"},
        )

    def scores(self, model: Model, argument: str) -> xr.Dataset:
        """Scores of a control: ``best_r``, ``matched_r`` and ``combined_r``, without a null."""
        require_movie_model(model, argument)
        layers = self._layers
        if layers is not None:
            wanted = [layers] if isinstance(layers, str) else layers
            layers = layers if all(name in model.layers for name in wanted) else None
        settings = Settings(**{**vars(self._settings), "n_shifts": 0})
        found = search(model, self.pairs, _layer_names(model, layers), settings)
        return xr.Dataset(
            {
                "control_best_r": (DIM, found.best["together"].r, R),
                "control_matched_r": (DIM, found.matched.r, R),
                "control_combined_r": (DIM, found.combined.r, R),
            }
        )

    def answer(self, model: Model, controls: xr.Dataset, argument: str) -> xr.DataTree:
        """Compare one model, with the scores of controls beside."""
        require_movie_model(model, argument)
        names = _layer_names(model, self._layers)
        settings = self._settings
        found = search(model, self.pairs, names, settings)
        first = self.pairs[0].potential
        labels = first["interneuron"].values
        twins = duplicates_of(found.parts, int(np.flatnonzero(settings.lags == 0)[0]), labels)
        own = {name: c.variable for name, c in first.coords.items() if c.dims == (DIM,)}
        root = _root(found, self.lag.values, twins).assign_coords(own).merge(controls)
        root.attrs = {
            "model_fingerprint": model.fingerprint,
            **provenance(
                method="compare_interneurons",
                layers=names,
                stimuli=self.stimuli,
                n_shifts=settings.n_shifts,
                gap=gap(model, settings),
                seed=settings.seed,
                **self._given,
            ),
        }
        tree = {"/": root, "/over_cells": over_cells(root)}
        if len(self.pairs) > 1:
            each = _by_stimulus(found, self.stimuli, self.lag.values)
            tree["/stimuli"] = each.assign_coords(own)
        for name in names:
            layer = self._layer(found, name, first["interneuron"].variable)
            # Where the cells are, y and x, is not where the units are.
            free = {label: c for label, c in own.items() if label not in layer.dims}
            tree[f"/layers/{name}"] = layer.assign_coords(free)
        return xr.DataTree.from_dict(tree)

    def _layer(self, found: Found, name: str, interneuron: xr.Variable) -> xr.Dataset:
        units = found.units
        shape = units.shapes[name]
        dims = UNIT_DIMS[: len(shape)]
        coords = {**units.coords[name], "lag": self.lag, DIM: interneuron}
        attrs = {**R, "long_name": f"correlation with the units of {name}"}
        n_lags = len(self.lag)

        def labelled(whole: np.ndarray) -> xr.DataArray:
            values = whole[units.of_layer(name)].reshape(*shape, n_lags, -1)
            r = xr.DataArray(values, dims=(*dims, "lag", DIM), coords=coords, attrs=attrs)
            r = r.transpose(DIM, "lag", *dims)
            return r if n_lags > 1 else r.isel(lag=0, drop=True)

        correlation = labelled(together(found).astype(np.float32))
        layer = correlation.to_dataset(name="correlation")
        if len(dims) == 3:
            index = [units.index_at(name, y, x) for y, x in found.centres]
            at = np.array([(0, 0) if place is None else place for place in index])
            picked = correlation.isel(
                y=xr.DataArray(at[:, 0], dims=DIM), x=xr.DataArray(at[:, 1], dims=DIM), drop=True
            )
            known = xr.DataArray([place is not None for place in index], dims=DIM)
            layer["matched_correlation"] = picked.drop_vars(["y", "x"], errors="ignore").where(
                known
            )
            layer["matched_correlation"].attrs = {
                **R,
                "long_name": f"correlation with the units of {name} at the interneuron's place",
            }
        if len(self.pairs) > 1:
            each = [labelled(whole) for whole in found.whole]
            stimulus = xr.Variable("stimulus", self.stimuli)
            layer["correlation_by_stimulus"] = xr.concat(each, stimulus)
        return layer


def control_scores(question: Question, controls: Mapping[str, Model] | None) -> xr.Dataset:
    """Scores of all controls over (control, interneuron); empty if there are none.

    Raises
    ------
    TypeError
        If `controls` is no mapping of models.
    """
    if controls is None:
        return xr.Dataset()
    if not isinstance(controls, Mapping):
        raise TypeError(
            f"controls is a {type(controls).__name__}; expected a mapping of models by name, such "
            'as {"untrained": model}'
        )
    if not controls:
        return xr.Dataset()
    for name, model in controls.items():
        require_movie_model(model, f"controls[{name!r}]")
    each = [question.scores(model, f"controls[{name!r}]") for name, model in controls.items()]
    names = xr.Variable("control", [str(name) for name in controls])
    fingerprints = xr.Variable("control", [model.fingerprint for model in controls.values()])
    joined: xr.Dataset = xr.concat(each, names)
    return joined.assign_coords(control_fingerprint=fingerprints)


def require_movie_model(model: Any, argument: str) -> None:
    """Raise TypeError or ValueError unless it is a model of movies."""
    if not isinstance(model, Model):
        several = isinstance(model, Mapping)
        raise TypeError(
            f"{argument} is a {type(model).__name__}; expected a retina_codec.Model"
            f"{': for several, retina_codec.interneurons.compare_models' if several else ''}"
        )
    if model.sample_dim != "time":
        raise ValueError(
            f"{argument} has samples along {model.sample_dim!r}; expected a model of movies, along "
            "'time'"
        )


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


def _root(found: Found, lags: np.ndarray, twins: np.ndarray) -> xr.Dataset:
    whole = together(found)
    best, matched, combined = found.best["together"], found.matched, found.combined
    n = whole.shape[2]
    everyone = np.arange(len(found.units))
    near = [found.units.nearest(y, x) for y, x in found.centres]
    variables = {
        **_unit("best", found.units, whole, [everyone] * n, lags),
        **_score("", best, "unit chosen on the other half"),
        "same_channel": (
            DIM,
            _same_channel(found.units, best.unit),
            {**R, "long_name": "both halves choose the same channel"},
        ),
        "q_value": (
            DIM,
            q_values(best.p_value, twins == ""),
            {**R, "long_name": "false discovery rate among the cells"},
        ),
        "centre_y": (DIM, found.centres[:, 0], {"long_name": "receptive-field centre, y"}),
        "centre_x": (DIM, found.centres[:, 1], {"long_name": "receptive-field centre, x"}),
        **_unit("matched", found.units, whole, near, lags),
        **_score("matched_", matched, "matched unit chosen on the other half"),
        **_score("combined_", combined, "channels at the place, fitted on the other half"),
        "duplicate_of": (DIM, twins),
    }
    return xr.Dataset(variables)


def _score(prefix: str, score: Scored, how: str) -> dict[str, Any]:
    best = f"{prefix or 'best_'}r"
    return {
        best: (DIM, score.r, {**R, "long_name": f"correlation, {how}"}),
        f"{prefix}null_r": (
            DIM,
            score.null.mean(0),
            {**R, "long_name": f"mean {best} with the recording shifted"},
        ),
        f"{prefix}p_value": (DIM, score.p_value, R),
    }


def _unit(
    prefix: str,
    units: Units,
    whole: np.ndarray,
    eligible: Sequence[np.ndarray],
    lags: np.ndarray,
) -> dict[str, Any]:
    """Labels of the unit with the largest correlation among those eligible, and that."""
    columns: dict[str, list[Any]] = {a: [] for a in ("layer", "channel", "y", "x", "lag", "r")}
    for signal, numbers in enumerate(eligible):
        r = whole[numbers, :, signal]
        if not np.isfinite(r).any():
            labels = {"layer": "", "channel": -1, "y": np.nan, "x": np.nan, "lag": np.nan}
            largest = np.nan
        else:
            unit, lag = np.unravel_index(int(np.nanargmax(r)), r.shape)
            labels = {**units.labels(int(numbers[unit])), "lag": lags[lag]}
            largest = r[unit, lag]
        for name, column in columns.items():
            column.append(labels.get(name, largest))
    # Channels of some layers have names, of others numbers.
    if any(isinstance(channel, str) for channel in columns["channel"]):
        columns["channel"] = [str(channel) for channel in columns["channel"]]
    uncorrected = "uncorrected_r" if prefix == "best" else f"{prefix}_uncorrected_r"
    return {
        f"{prefix}_layer": (DIM, np.array(columns["layer"], dtype=str)),
        f"{prefix}_channel": (DIM, np.array(columns["channel"])),
        **{f"{prefix}_{axis}": (DIM, np.array(columns[axis], dtype=float)) for axis in "yx"},
        f"{prefix}_lag": (DIM, np.array(columns["lag"], dtype=float), {"units": "s"}),
        uncorrected: (
            DIM,
            np.array(columns["r"], dtype=float),
            {**R, "long_name": "its correlation, whole recording"},
        ),
    }


def _same_channel(units: Units, chosen: np.ndarray) -> np.ndarray:
    """1 where the units (half, interneuron) are of one channel."""
    found = [
        [(labels["layer"], labels["channel"]) for labels in map(units.labels, half)]
        for half in chosen.tolist()
    ]
    return np.array([a == b for a, b in zip(*found, strict=True)], dtype=np.int8)


def _by_stimulus(found: Found, stimuli: Sequence[str], lags: np.ndarray) -> xr.Dataset:
    everyone = np.arange(len(found.units))
    each = []
    for k, whole in enumerate(found.whole):
        eligible = [everyone] * whole.shape[2]
        others = _score("others_", found.best["others", k], "on the others, chosen on this one")
        each.append(
            xr.Dataset(
                {
                    **_unit("best", found.units, whole, eligible, lags),
                    **_score("", found.best[k], "unit chosen on the other half"),
                    **others,
                }
            )
        )
    joined: xr.Dataset = xr.concat(each, xr.Variable("stimulus", list(stimuli)))
    return joined
