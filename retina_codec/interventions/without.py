"""`responses_without`: what is left of the outputs, beside random units of equal contribution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from retina_codec._common.checks import require_count
from retina_codec._common.progress import progress_counter
from retina_codec._common.provenance import provenance
from retina_codec.attribution.methods import IntegratedGradients, Method, described
from retina_codec.attribution.reduction import UNIT_DIMS
from retina_codec.attribution.targets import Output, Target, TopK
from retina_codec.interventions.choice import Choice
from retina_codec.interventions.conditions import Conditions
from retina_codec.interventions.model import Silenced
from retina_codec.interventions.of_modes import Passes
from retina_codec.interventions.silencing import Silencing, sharing_weights
from retina_codec.models.model import Model, frozen

NOTHING = "nothing"


def responses_without(
    model: Model,
    data: xr.DataArray,
    interventions: Mapping[str, Model],
    *,
    n_controls: int = 10,
    method: Method | None = None,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """Silence one thing after the other, and random units instead, and give the outputs.

    Controls silence random units of the same layer that carry an equal contribution:

    - for modes, at every moment and for each output: units in a random order, the same at all
      moments, are silenced until they have taken away as much absolute contribution as the modes
      do there (the last of them in part);
    - for channels and units, for good: random units whose absolute contributions, averaged over
      samples and outputs, add up to those of the units silenced.

    Contributions are computed once for all of it.

    Parameters
    ----------
    model : Model
        As it is.
    data : DataArray
        A movie, or images.
    interventions : mapping of str to Model
        What `ablate` or `preserve` made of `model`, by name; those of modes with one `method` and
        `target`. Of channels and units with ``strength=0``.
    n_controls : int
        Random controls for each.
    method : method, optional
        How contributions are computed for the controls of channels and units, where no
        intervention of modes says it; by default ``IntegratedGradients(steps=4)``.
    seed : int
        Of the random orders.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Dataset
        ``response`` (intervention, time, cell) or (intervention, image, category), in the model's
        units, of which the first intervention is ``"nothing"``; ``at_baseline`` (cell), the output
        at the baseline input; ``control`` (draw, silenced, time, cell), where ``silenced`` are the
        interventions without ``"nothing"``; ``removed`` (silenced) and ``control_removed`` (draw,
        silenced), the share of all absolute contributions of the layer that is taken away.

    Raises
    ------
    TypeError, ValueError
        If an intervention is not one of `model`, two of them are of other layers or methods, or
        data do not fit.

    Examples
    --------
    >>> import retina_codec as rc
    >>> model = rc.load_model("simulated_bncnn")
    >>> movie = rc.stimuli.white_noise(n_frames=60, shape=model.input_shape)
    >>> without = responses_without(
    ...     model, movie, {"channel 0": rc.ablate(model, "relu1", channels=0)},
    ...     n_controls=2, progress=False,
    ... )
    >>> without["response"].dims, without["control"].dims
    (('intervention', 'time', 'cell'), ('draw', 'silenced', 'time', 'cell'))
    """
    require_count(n_controls, 0, "n_controls")
    silenced = _checked(model, interventions)
    of_modes = {name: made._modes for name, made in silenced.items() if made._modes is not None}
    layers = tuple(next(iter(silenced.values()))._silencing.choices)
    how = next(iter(silenced.values()))._silencing.how
    target: Target = TopK(1) if model.exclusive_outputs else Output()
    for choice in of_modes.values():
        method, target = choice.method, choice.target
    method = method or IntegratedGradients(steps=4)

    samples = model.samples(data)
    n, n_outputs = len(samples), len(model.outputs)
    names = list(silenced)
    found = np.empty((1 + len(names), n, n_outputs), dtype=np.float32)
    controls = np.empty((n_controls, len(names), n, n_outputs), dtype=np.float32)
    removed, control_removed = np.zeros(len(names)), np.zeros((n_controls, len(names)))

    copied = sharing_weights(model)
    silencing = Silencing(
        sharing_weights(model), {name: Choice(name) for name in layers}, 0.0, how, by_sample=True
    )
    silencing.put_on(copied)
    sizes: dict[str, Any] = dict.fromkeys(layers, 0.0)
    whole = 0.0
    with frozen(copied.network):
        passes = Passes(copied, silencing, layers, method, target, samples)
        orders = _Orders(n_controls, seed)
        with progress_counter(len(passes), "silencing", shown=progress) as bar:
            for one in passes:
                for name, c in one.contributions.items():
                    total = abs(c)
                    over = [dim for dim in c.dims if dim not in UNIT_DIMS]
                    sizes[name] = sizes[name] + total.sum(over)
                    whole += float(total.sum())
                for place, name in enumerate(names):
                    choice_of = of_modes.get(name)
                    if choice_of is None:
                        continue
                    shares = _scaled(choice_of.shares(one.contributions), silenced[name])
                    found[1 + place, one.index] = one.outputs(shares).float().cpu().numpy()
                    taken = _taken(shares, one.contributions)
                    removed[place] += sum(float(t.sum()) for t in taken.values())
                    for draw in range(n_controls):
                        random = orders.matched(draw, taken, one.contributions)
                        if silenced[name]._silencing.strength > 1:  # added, not taken away
                            random = {layer: -share for layer, share in random.items()}
                        controls[draw, place, one.index] = one.outputs(random).float().cpu().numpy()
                        control_removed[draw, place] += sum(
                            float(t.sum()) for t in _taken(random, one.contributions).values()
                        )
                bar.update()
        conditions = Conditions(model, layers, how, samples)
        masks: list[dict[str, np.ndarray]] = []
        slots: list[tuple[int | None, int]] = []
        for place, name in enumerate(names):
            if name in of_modes:
                continue
            still = silenced[name]._silencing.still(next(iter(samples.batches(1))).inputs)
            own = {layer: still[layer].chosen.cpu().numpy() for layer in layers}
            removed[place] = sum(_sum_of(sizes[layer], own[layer], still[layer].layout.dims)
                                 for layer in layers)  # fmt: skip
            masks.append(own)
            slots.append((None, place))
            for draw in range(n_controls):
                dims = {layer: still[layer].layout.dims for layer in layers}
                random_masks = orders.matched_masks(draw, own, sizes, dims)
                control_removed[draw, place] = sum(
                    _sum_of(sizes[layer], random_masks[layer], dims[layer]) for layer in layers
                )
                masks.append(random_masks)
                slots.append((draw, place))
        for index, as_it_is, others in conditions.outputs(masks, progress=False):
            found[0, index] = as_it_is.float().cpu().numpy()
            for number, outputs in others:
                draw_of, place = slots[number]
                into = found[1 + place] if draw_of is None else controls[draw_of, place]
                into[index] = outputs.float().cpu().numpy()
        at_baseline = conditions.at_baseline[0].float().cpu().numpy()

    sample, output = model.sample_dim, model.output_dim
    units = {"units": model.output_units}
    share = {"units": "1", "long_name": "share of the absolute contributions taken away"}
    variables: dict[str, Any] = {
        "response": (
            ("intervention", sample, output),
            found,
            {**units, "long_name": "output with something silenced"},
        ),
        "at_baseline": (output, at_baseline, {**units, "long_name": "output at the baseline"}),
        "removed": ("silenced", removed / whole, share),
    }
    if n_controls:
        variables["control"] = (
            ("draw", "silenced", sample, output),
            controls,
            {**units, "long_name": "output with random units of equal contribution silenced"},
        )
        variables["control_removed"] = (("draw", "silenced"), control_removed / whole, share)
    return xr.Dataset(
        variables,
        {
            **samples.coords,
            output: model.outputs,
            "intervention": [NOTHING, *names],
            "silenced": names,
        },
        {
            "model_fingerprint": model.fingerprint,
            **provenance(
                function="responses_without",
                interventions={name: made._done for name, made in silenced.items()},
                method=described(method),
                target=repr(target),
                n_controls=n_controls,
                seed=seed,
            ),
        },
    )


def _checked(model: Model, interventions: Mapping[str, Model]) -> dict[str, Silenced]:
    """Interventions on a model that can be run together.

    Raises
    ------
    TypeError, ValueError
        If they cannot.
    """
    if not interventions:
        raise ValueError("interventions is empty; expected models that rc.ablate made, by name")
    found: dict[str, Silenced] = {}
    first: Silenced | None = None
    for name, made in interventions.items():
        if name == NOTHING:
            raise ValueError(f"interventions has the name {NOTHING!r}, which is the model's own")
        if not isinstance(made, Silenced):
            raise TypeError(
                f"interventions[{name!r}] is a {type(made).__name__}; expected what rc.ablate or "
                "rc.preserve gives"
            )
        if made._silencing.source.fingerprint != model.fingerprint:
            raise ValueError(
                f"interventions[{name!r}] was made of another model (fingerprint "
                f"{made._silencing.source.fingerprint}, model has {model.fingerprint})"
            )
        if made._modes is None and made._silencing.strength != 0:
            raise ValueError(
                f"interventions[{name!r}] has strength={made._silencing.strength:g}; expected 0 "
                "for channels and units: a scaled unit has no random units of equal contribution"
            )
        first = first or made
        if tuple(made._silencing.choices) != tuple(first._silencing.choices):
            raise ValueError(
                f"interventions[{name!r}] is at {', '.join(made._silencing.choices)}, others at "
                f"{', '.join(first._silencing.choices)}: call this once for each"
            )
        if described(made._silencing.how) != described(first._silencing.how):
            raise ValueError(
                f"interventions[{name!r}] has another silence or baseline than others: call this "
                "once for each"
            )
        found[name] = made
    ways = {
        (described(made._modes.method), repr(made._modes.target))
        for made in found.values()
        if made._modes is not None
    }
    if len(ways) > 1:
        raise ValueError(
            "interventions of modes have several methods or targets: make them with the same"
        )
    return found


def _scaled(shares: Mapping[str, xr.DataArray], made: Silenced) -> dict[str, xr.DataArray]:
    """Shares that are taken away, at the intervention's strength."""
    return {name: (1 - made._silencing.strength) * share for name, share in shares.items()}


def _taken(
    shares: Mapping[str, xr.DataArray], contributions: Mapping[str, xr.DataArray]
) -> dict[str, xr.DataArray]:
    """Absolute contribution (sample[, output]) that shares take away, by layer."""
    taken = {}
    for name, share in shares.items():
        over = [dim for dim in share.dims if dim in UNIT_DIMS]
        taken[name] = abs(share * contributions[name]).sum(over)
    return taken


def _sum_of(sizes: xr.DataArray, mask: np.ndarray, dims: Sequence[str]) -> float:
    """Sum the contributions of the units in a mask (the layer's dims); lags count once."""
    return float((sizes * _marked(sizes, mask, dims)).sum())


def _marked(sizes: xr.DataArray, mask: np.ndarray, dims: Sequence[str]) -> xr.DataArray:
    """Bring a mask into the dims of contributions."""
    if "token" in dims and "token" not in sizes.dims:
        raise ValueError(
            "controls of units are not made in layers of tokens: silence modes there, or give "
            "n_controls=0"
        )
    marked = xr.DataArray(mask, dims=tuple(dims))
    return marked.any([dim for dim in dims if dim not in sizes.dims])


class _Orders:
    """Random orders of the units of layers, one for each draw."""

    def __init__(self, n_controls: int, seed: int) -> None:
        self._seed = seed
        self._known: dict[tuple[int, str], np.ndarray] = {}

    def _order(self, draw: int, place: int, name: str, n: int) -> np.ndarray:
        if (draw, name) not in self._known:
            rng = np.random.default_rng([self._seed, draw, place])
            self._known[draw, name] = rng.permutation(n)
        return self._known[draw, name]

    def matched(
        self,
        draw: int,
        taken: Mapping[str, xr.DataArray],
        contributions: Mapping[str, xr.DataArray],
    ) -> dict[str, xr.DataArray]:
        """Shares of units in a random order, until as much is taken in each sample."""
        found = {}
        for place, (name, c) in enumerate(contributions.items()):
            unit_dims = [dim for dim in c.dims if dim in UNIT_DIMS]
            others = [dim for dim in c.dims if dim not in UNIT_DIMS]
            values = torch.from_numpy(np.ascontiguousarray(c.transpose(*others, *unit_dims).values))
            flat = values.abs().flatten(len(others))
            order = torch.from_numpy(self._order(draw, place, name, flat.shape[-1]))
            sizes = flat[..., order]
            amount = torch.from_numpy(taken[name].transpose(*others).values)[..., None]
            before = sizes.cumsum(-1) - sizes
            share = ((amount - before) / sizes).nan_to_num(0.0, 0.0, 0.0).clamp(0, 1)
            whole = torch.empty_like(share)
            whole[..., order] = share
            found[name] = c.transpose(*others, *unit_dims).copy(
                data=whole.view(values.shape).numpy()
            )
        return found

    def matched_masks(
        self,
        draw: int,
        own: Mapping[str, np.ndarray],
        sizes: Mapping[str, xr.DataArray],
        dims: Mapping[str, Sequence[str]],
    ) -> dict[str, np.ndarray]:
        """Masks of random units whose contributions add up to those of `own`, as near as can be."""
        found = {}
        for place, (name, mask) in enumerate(own.items()):
            of_units = sizes[name]
            amount = _sum_of(of_units, mask, dims[name])
            values = of_units.values.ravel().astype(np.float64)
            order = self._order(draw, place, name, values.size)
            reached = np.cumsum(values[order])
            n = int(np.argmin(np.abs(np.r_[0.0, reached] - amount)))
            chosen = np.zeros(values.size, dtype=bool)
            chosen[order[:n]] = True
            labelled = xr.DataArray(chosen.reshape(of_units.shape), dims=of_units.dims)
            template = xr.DataArray(mask, dims=tuple(dims[name]))
            found[name] = labelled.broadcast_like(template).transpose(*dims[name]).values
        return found
