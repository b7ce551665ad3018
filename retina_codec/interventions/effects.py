"""What silencing does to responses, beside random units of equal contribution."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from retina_codec._common.checks import nearest_names, require_array, require_count
from retina_codec._common.provenance import provenance
from retina_codec.interventions.without import NOTHING
from retina_codec.modes.epoch_runs import numbered_epochs

LEAST_RESPONSE = 1.0  # in the outputs' units, Hz for cells


def silencing_effects(
    without: xr.Dataset,
    responses: Mapping[str, Sequence[str] | str],
    *,
    labels: xr.DataArray | str = "epoch",
    least_response: float = LEAST_RESPONSE,
    n_draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> xr.Dataset:
    """How much of each response is lost when something is silenced.

    The size of a response is the mean over the samples of its epochs of
    ``|rate - rate at the baseline|``; the loss is one less the size after over the size before
    (negative where the response has grown). Intervals resample whole presentations (contiguous
    runs of one label in one block), the same for all that is silenced and for its controls.

    Parameters
    ----------
    without : Dataset
        As from `responses_without`, of a movie with labelled epochs.
    responses : mapping of str to labels
        Which epochs make up each response, such as ``{"light": ["on_step", "off_step"]}``.
    labels : DataArray or str
        The label of each sample, or the name of such a coordinate of `without`.
    least_response : float
        Cells whose response is smaller have no loss: NaN.
    n_draws, level, seed
        Of the bootstrap.

    Returns
    -------
    Dataset
        - `size` (response, cell), with nothing silenced, in the outputs' units;
        - `loss` (silenced, response, cell), `mean_loss` (silenced, response) over cells that
          respond, with ``_low`` and ``_high``;
        - `control_loss` (draw, silenced, response, cell), `mean_control_loss` (draw, silenced,
          response); `excess` (silenced, response): mean loss less that of the controls' mean, with
          interval; `control_share`: the share of the controls (and the intervention itself,
          counted once) that lose as much or more, or as little or less, whichever is fewer;
        - with two responses `selectivity` (silenced): mean loss of the first less that of the
          second, with interval, `control_selectivity` (draw, silenced) and
          `selectivity_control_share`; `dissociation` (silenced, other): selectivity less the
          other's, with interval.
        `removed` is passed on.

    Raises
    ------
    TypeError, ValueError
        If `without` has no labelled epochs, or a label is of no sample.

    Examples
    --------
    >>> import retina_codec as rc
    >>> model = rc.load_model("simulated_bncnn")
    >>> movie = rc.stimuli.light_steps(n_frames=200, shape=model.input_shape)
    >>> halved = rc.ablate(model, "relu1", channels=[0, 1, 2, 3])
    >>> without = rc.interventions.responses_without(
    ...     model, movie, {"half": halved}, n_controls=1, progress=False
    ... )
    >>> bright = movie.mean(("y", "x")).sel(time=without["time"]) > 0
    >>> effects = silencing_effects(
    ...     without, {"bright": "True"}, labels=bright.astype(str), n_draws=10
    ... )
    >>> effects["mean_loss"].dims
    ('silenced', 'response')
    """
    rates, at_rest, control = _parts(without)
    sample, output = map(str, rates.dims[1:])
    if isinstance(labels, str):
        if labels not in without.coords:
            raise ValueError(
                f"labels={labels!r} is no coordinate of without; "
                f"{nearest_names(labels, without.coords)}"
            )
        labels = without[labels]
    labels = require_array(labels, "labels")
    if labels.dims != (sample,) or not labels.indexes.get(sample, np.array([])).equals(
        without.indexes[sample]
    ):
        raise ValueError(f"labels is not over the {sample} of without; select its samples")
    require_count(n_draws, 1, "n_draws")
    if not responses:
        raise ValueError("responses is empty; expected labels of epochs for each response")
    names = labels.values.astype(str)
    run = numbered_epochs(names, labels)
    silenced = without["silenced"].values
    n_controls = 0 if control is None else control.shape[0]
    rng = np.random.default_rng(seed)
    everything = [rates.values]
    if control is not None:
        everything.append(control.values.reshape(-1, *control.shape[2:]))
    all_rates = np.concatenate(everything)  # nothing, silenced..., controls by draw

    sizes, losses = [], []
    for response, chosen in responses.items():
        wanted = [str(label) for label in np.atleast_1d(chosen)]
        for label in wanted:
            if label not in names:
                raise ValueError(
                    f"responses[{response!r}] has {label!r}, which no sample is; "
                    f"{nearest_names(label, np.unique(names))}"
                )
        kept = np.flatnonzero(np.isin(names, wanted))
        epochs, number = np.unique(run[kept], return_inverse=True)
        n = np.bincount(number)
        sums = np.stack(
            [
                np.add.reduceat(one, np.flatnonzero(np.r_[True, np.diff(number) > 0]), axis=0)
                for one in np.abs(all_rates[:, kept] - at_rest.values)
            ]
        )  # (condition, epoch, cell)
        weights = np.ones((1 + n_draws, len(epochs)))
        weights[1:] = rng.multinomial(len(epochs), np.full(len(epochs), 1 / len(epochs)), n_draws)
        totals = np.einsum("de,kec->dkc", weights, sums)
        size = totals[0, 0] / n.sum()
        with np.errstate(invalid="ignore", divide="ignore"):
            loss = 1 - totals[:, 1:] / totals[:, :1]
        loss[:, :, size < least_response] = np.nan
        sizes.append(size)
        losses.append(loss)
    loss = np.stack(losses, axis=2)  # (bootstrap, condition, response, cell)
    n_silenced = len(silenced)
    own = loss[:, :n_silenced]
    mean = _mean_over_cells(loss)
    mean_own = mean[:, :n_silenced]
    tails = (50 * (1 - level), 50 * (1 + level))
    units = str(without["response"].attrs["units"])
    table: dict[str, Any] = {
        "size": (
            ("response", output),
            np.stack(sizes),
            {"units": units, "long_name": "mean |rate - rate at the baseline|"},
        )
    }

    def add(name: str, values: np.ndarray, dims: tuple[str, ...], text: str) -> None:
        attrs = {"units": "1", "long_name": text}
        table[name] = (dims, values[0], attrs)
        ends = np.full((2, *values.shape[1:]), np.nan)
        known = np.isfinite(values).all(0)
        ends[:, known] = np.percentile(values[1:, known], tails, axis=0)
        for end, value in zip(("low", "high"), ends, strict=True):
            side = "lower" if end == "low" else "upper"
            table[f"{name}_{end}"] = (dims, value, {**attrs, "long_name": f"{text}, {side} end"})

    def plain(name: str, values: np.ndarray, dims: tuple[str, ...], text: str) -> None:
        table[name] = (dims, values, {"units": "1", "long_name": text})

    add("loss", own, ("silenced", "response", output), "loss of the response")
    add("mean_loss", mean_own, ("silenced", "response"), "mean loss of the response over cells")
    by_draw = None
    if n_controls:
        by_draw = mean[:, n_silenced:].reshape(len(mean), n_controls, n_silenced, -1)
        plain(
            "control_loss",
            loss[0, n_silenced:].reshape(n_controls, n_silenced, *loss.shape[2:]),
            ("draw", "silenced", "response", output),
            "loss, random units of equal contribution",
        )
        plain(
            "mean_control_loss", by_draw[0], ("draw", "silenced", "response"),
            "mean loss over cells, random units of equal contribution",
        )  # fmt: skip
        add(
            "excess", mean_own - by_draw.mean(1), ("silenced", "response"),
            "mean loss less that of the controls",
        )  # fmt: skip
        plain(
            "control_share", _extreme(mean_own[0], by_draw[0]), ("silenced", "response"),
            "share of controls as extreme",
        )  # fmt: skip
    if len(responses) == 2:
        first, second = list(responses)
        text = f"loss of {first} less loss of {second}"
        selectivity = mean_own[..., 0] - mean_own[..., 1]
        add("selectivity", selectivity, ("silenced",), text)
        add(
            "dissociation", selectivity[:, :, None] - selectivity[:, None, :],
            ("silenced", "other"), f"{text}, less the same of the other",
        )  # fmt: skip
        if by_draw is not None:
            of_controls = by_draw[0, ..., 0] - by_draw[0, ..., 1]
            plain("control_selectivity", of_controls, ("draw", "silenced"), f"{text}, controls")
            plain(
                "selectivity_control_share", _extreme(selectivity[0], of_controls),
                ("silenced",), "share of controls with a selectivity as extreme",
            )  # fmt: skip
    coords: dict[str, Any] = {
        "silenced": silenced,
        "response": list(responses),
        output: without[output].values,
    }
    if len(responses) == 2:
        coords["other"] = silenced
    found = xr.Dataset(table, coords)
    if "removed" in without:
        found["removed"] = without["removed"]
    return found.assign_attrs(
        model_fingerprint=without.attrs["model_fingerprint"],
        **provenance(
            function="silencing_effects",
            responses={name: np.atleast_1d(r).tolist() for name, r in responses.items()},
            least_response=least_response,
            n_draws=n_draws,
            level=level,
            seed=seed,
            without=json.loads(without.attrs["parameters"]),
        ),
    )


def index_effects(
    without: xr.Dataset,
    measure: Callable[[xr.DataArray], xr.Dataset],
    *,
    indices: Sequence[str] | None = None,
    n_draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> xr.Dataset:
    """Compute indices of a phenomenon with something silenced, cell by cell.

    Parameters
    ----------
    without : Dataset
        As from `responses_without`, of the phenomenon's movie.
    measure : callable
        Takes rates (time, cell) with the movie's coordinates and gives a Dataset of indices over
        ``cell``: ``measure`` of a phenomenon of `retina_codec.physiology`.
    indices : sequence of str, optional
        Those to keep; by default all numbers over ``cell``.
    n_draws, level, seed
        Of the bootstrap over cells.

    Returns
    -------
    Dataset
        For each index a variable ``NAME`` (intervention, cell), of which the first is
        ``"nothing"``, ``NAME_change`` (silenced, cell), ``NAME_mean_change`` (silenced) with
        ``_low`` and ``_high``, and with controls ``NAME_control_change`` (draw, silenced): the
        mean over cells. NaN where an index is not defined, before or after.

    Raises
    ------
    TypeError, ValueError
        If `without` is no result of `responses_without`, or an index is not there.

    Examples
    --------
    >>> import retina_codec as rc
    >>> model = rc.load_model("simulated_bncnn")
    >>> movie = rc.stimuli.light_steps(n_frames=200, shape=model.input_shape)
    >>> without = rc.interventions.responses_without(
    ...     model, movie, {"half": rc.ablate(model, "relu1", channels=[0, 1, 2, 3])},
    ...     n_controls=0, progress=False,
    ... )
    >>> found = index_effects(without, lambda rate: rate.mean("time").to_dataset(name="mean_rate"))
    >>> found["mean_rate_change"].dims
    ('silenced', 'cell')
    """
    rates, _, control = _parts(without)
    output = str(rates.dims[2])
    silenced = without["silenced"].values
    measured = [measure(rates.isel(intervention=i, drop=True)) for i in range(len(rates))]
    names = [
        str(name)
        for name, value in measured[0].data_vars.items()
        if value.dims == (output,) and value.dtype.kind in "fiu"
    ]
    if indices is not None:
        for name in indices:
            if name not in names:
                raise ValueError(f"indices has {name!r}; {nearest_names(name, names)}")
        names = list(indices)
    rng = np.random.default_rng(seed)
    table: dict[str, Any] = {}
    for name in names:
        values = np.stack([np.asarray(one[name].values, dtype=np.float64) for one in measured])
        attrs = measured[0][name].attrs
        text = str(attrs.get("long_name", name))
        units = str(attrs.get("units", "1"))
        change = values[1:] - values[0]
        table[name] = (("intervention", output), values, {"units": units, "long_name": text})
        table[f"{name}_change"] = (
            ("silenced", output), change, {"units": units, "long_name": f"change of {text}"},
        )  # fmt: skip
        draws = rng.integers(0, change.shape[1], size=(n_draws, change.shape[1]))
        draws = np.concatenate([np.arange(change.shape[1])[None], draws])
        mean = _mean_over_cells(change[:, draws].transpose(1, 0, 2))
        ends = np.full((2, len(silenced)), np.nan)
        known = np.isfinite(mean[0])
        tails = (50 * (1 - level), 50 * (1 + level))
        ends[:, known] = np.nanpercentile(mean[1:, known], tails, axis=0)
        for suffix, value in (("", mean[0]), ("_low", ends[0]), ("_high", ends[1])):
            table[f"{name}_mean_change{suffix}"] = (
                "silenced", value,
                {"units": units, "long_name": f"mean change of {text} over cells{suffix}"},
            )  # fmt: skip
        if control is not None:
            of_controls = np.empty(control.shape[:2])
            for draw, place in np.ndindex(*of_controls.shape):
                one = measure(control.isel(draw=draw, silenced=place, drop=True))[name]
                of_controls[draw, place] = _mean_over_cells(one.values - values[0])
            table[f"{name}_control_change"] = (
                ("draw", "silenced"), of_controls,
                {"units": units, "long_name": f"mean change of {text}, random units"},
            )  # fmt: skip
    return xr.Dataset(
        table,
        {
            "intervention": without["intervention"].values,
            "silenced": silenced,
            output: without[output].values,
        },
        {
            "model_fingerprint": without.attrs["model_fingerprint"],
            **{k: v for k, v in measured[0].attrs.items() if k in ("phenomenon", "source")},
            **provenance(
                function="index_effects",
                n_draws=n_draws,
                level=level,
                seed=seed,
                without=json.loads(without.attrs["parameters"]),
            ),
        },
    )


def _parts(without: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray | None]:
    """Responses, those at the baseline, and of controls; checked."""
    if not isinstance(without, xr.Dataset):
        raise TypeError(f"without is a {type(without).__name__}; expected an xarray.Dataset")
    for name in ("response", "at_baseline"):
        if name not in without:
            raise ValueError(
                f"without has no {name!r}; expected what rc.interventions.responses_without gives"
            )
    if without["intervention"].values[0] != NOTHING:
        raise ValueError(f"without has no intervention {NOTHING!r} first; do not select it away")
    return without["response"], without["at_baseline"], without.get("control")


def _mean_over_cells(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is known; NaN where nothing is."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        mean: np.ndarray = np.where(known, values, 0.0).sum(-1) / known.sum(-1)
    return mean


def _extreme(own: np.ndarray, controls: np.ndarray) -> np.ndarray:
    """Share of controls (draw, ...), and of `own` itself, as extreme as it, to its side."""
    beyond = np.minimum((controls >= own).sum(0), (controls <= own).sum(0))
    share: np.ndarray = (1 + beyond) / (1 + len(controls))
    return np.where(np.isfinite(own), share, np.nan)
