"""`ablate` and `preserve`: a new model in which units, channels or modes are silenced."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import xarray as xr

from retina_codec.attribution.methods import Ablation, IntegratedGradients, Method
from retina_codec.attribution.targets import Output, Target, TopK
from retina_codec.interventions.choice import Choice
from retina_codec.interventions.model import ordered_baseline, silenced_copy
from retina_codec.interventions.of_modes import ModeChoice
from retina_codec.models.model import Model, RetinaModel
from retina_codec.modes import Modes

LARGEST_STRENGTH = 2.0

Layers = str | Sequence[str] | Mapping[str, Any]


def ablate(
    model: Model,
    layer: Layers,
    *,
    channels: Any = None,
    units: xr.DataArray | None = None,
    modes: Modes | None = None,
    mode: int | Sequence[int] | None = None,
    strength: float = 0.0,
    silence: str = "baseline",
    baseline: Any = 0.0,
    method: Method | None = None,
    target: Target | None = None,
) -> Any:
    """Silence units, channels or modes of a model, or scale them: a new model.

    A silenced unit gives a0, its value at the baseline input, whatever comes in; scaled by
    `strength` it gives ``a0 + strength (a - a0)``. A mode m is silenced in the network too, by
    the part of each unit that is the mode's in the sample,

        a_j(t) -> a_j(t) + (strength - 1) f_jm(t) (a_j(t) - a_j0),

    with f_jm the mode's share of the unit's reconstructed contribution (`Modes.share`, from 0 to
    1). What follows in the network is computed again.

    Parameters
    ----------
    model : Model
        A model of the retina, a classifier, or what this function gave. It stays as it is.
    layer : str, sequence of str or mapping
        Where: one layer or several. A mapping gives for each layer its channels, its mask of
        units, or None for all of it.
    channels : label or sequence of labels, optional
        Which channels, all their places and lags. Without them and `units`, the whole layer.
    units : DataArray of bool, optional
        Which units, over ``channel``, ``y``, ``x`` or some of them, with the labels that
        contributions of the layer have: those of the data that the new model is given are
        compared. Class tokens are at no place; a mask without `y` and `x` takes them along.
    modes : Modes, optional
        Fitted to contributions of the layer (or of the layers, in their order).
    mode : int or sequence of int, optional
        Labels of the modes to act on, together.
    strength : float
        0 silences, 1 changes nothing (bit for bit), 2 doubles the deviation from a0.
    silence : {"baseline", "zero"}
        What a0 is: the value at the baseline input in `model`, or zero, which before a batch norm
        is not silence.
    baseline : float or array
        The baseline input after the model's normalisation, 0 for the mean grey: a number, or an
        array of the shape of one frame or image (a DataArray: in any order).
    method, target
        With `modes`: how their contributions were computed. By default
        ``IntegratedGradients(steps=20)``, and each cell of a retina model or the largest logit
        of a classifier.

    Returns
    -------
    Model
        Of the same class: `predict`, `evaluate`, `contributions` and all else work on it. It
        shares the weights (training one trains both) and has its own modules and fingerprint. It
        cannot be saved. With `modes` it has outputs of data, by `predict` and what uses it; its
        network does not run by itself, and contributions of it are refused.

    Raises
    ------
    TypeError
        If `model` is no Model, or a mask is no DataArray.
    ValueError
        For an unknown layer, channel or mode, modes of another layer, or other values out of
        range; what depends on the data, such as places and the number of channels of a network
        that takes images of any size, when the model runs.

    Notes
    -----
    With modes of contributions to each cell the shares differ by cell: each cell's rate is
    computed from activations of its own. `predict` computes contributions to every unit first
    (the cost of `rc.contributions` with `method`), then runs the rest of the network once for
    each cell; ``IntegratedGradients(steps=4)`` is often enough. With ``sign`` among the columns a
    unit belongs, in each sample, to the column of the sign that its own contribution has.

    References
    ----------
    Melander et al., ICLR 2026, arXiv 2603.06557 (channels ranked by a mode are ablated).

    Examples
    --------
    >>> import retina_codec as rc
    >>> model = rc.load_model("simulated_bncnn")
    >>> movie = rc.stimuli.white_noise(n_frames=60, shape=model.input_shape)
    >>> silenced = rc.ablate(model, "relu1", channels=[0, 3])
    >>> silenced
    BNCNN(16 outputs along 'cell'; layers: relu1, relu2; relu1: channels 0, 3 silenced)
    >>> change = silenced.predict(movie) - model.predict(movie)
    >>> bool(abs(change).max() > 0)
    True
    >>> rc.ablate(model, "relu1", channels=0, strength=1.0).predict(movie).equals(
    ...     model.predict(movie)
    ... )
    True
    """
    return _silenced(
        model, layer, channels, units, modes, mode, strength, silence, baseline, method, target,
        others=False,
    )  # fmt: skip


def preserve(
    model: Model,
    layer: Layers,
    *,
    channels: Any = None,
    units: xr.DataArray | None = None,
    modes: Modes | None = None,
    mode: int | Sequence[int] | None = None,
    strength: float = 0.0,
    silence: str = "baseline",
    baseline: Any = 0.0,
    method: Method | None = None,
    target: Target | None = None,
) -> Any:
    """Keep units, channels or modes of a layer, and silence everything else in it: a new model.

    The counterpart of `ablate`, which has all arguments. Of modes, what is silenced in each unit
    is ``1 - f_jm``: all that the modes asked for do not explain.

    Parameters
    ----------
    model, layer, channels, units, modes, mode, strength, silence, baseline, method, target
        As for `ablate`; `strength` is that of what is *not* named.

    Returns
    -------
    Model
        As from `ablate`.

    Raises
    ------
    TypeError, ValueError
        As for `ablate`, and if nothing is named to be kept.

    Examples
    --------
    >>> import retina_codec as rc
    >>> model = rc.load_model("simulated_bncnn")
    >>> rc.preserve(model, "relu1", channels=[0, 3])
    BNCNN(16 outputs along 'cell'; layers: relu1, relu2; relu1: all but channels 0, 3 silenced)
    """
    return _silenced(
        model, layer, channels, units, modes, mode, strength, silence, baseline, method, target,
        others=True,
    )  # fmt: skip


def _silenced(
    model: Model,
    layer: Layers,
    channels: Any,
    units: xr.DataArray | None,
    modes: Modes | None,
    mode: int | Sequence[int] | None,
    strength: float,
    silence: str,
    baseline: Any,
    method: Method | None,
    target: Target | None,
    *,
    others: bool,
) -> Any:
    if not isinstance(model, Model):
        raise TypeError(
            f"model is a {type(model).__name__}; expected a retina_codec.Model: wrap a network "
            "with rc.models.from_module or rc.classifiers.from_module"
        )
    strength = float(strength)
    if not 0 <= strength <= LARGEST_STRENGTH or math.isnan(strength):
        raise ValueError(
            f"strength={strength!r}; expected 0 (silenced) to {LARGEST_STRENGTH:g} (doubled)"
        )
    how = Ablation(silence=silence, baseline=ordered_baseline(baseline))
    given = [name for name, value in (("channels", channels), ("units", units), ("modes", modes))
             if value is not None]  # fmt: skip
    names = _names(model, layer)
    if len(given) > 1 or (given and isinstance(layer, Mapping)):
        also = ["a mapping of layers"] if isinstance(layer, Mapping) else []
        raise ValueError(f"{' and '.join([*also, *given])} are given; expected one of them")
    if modes is None:
        for argument, value in (("mode", mode), ("method", method), ("target", target)):
            if value is not None:
                raise ValueError(f"{argument} is of modes: give modes=, or leave it out")
        if others and not given and not isinstance(layer, Mapping):
            raise ValueError("nothing to preserve: name channels, units or modes")
        choices = {
            name: Choice.of(name, part, argument, others=others)
            for name, (part, argument) in _parts(layer, names, channels, units).items()
        }
        silenced = silenced_copy(model, choices, strength, how)
    else:
        if not isinstance(modes, Modes):
            raise TypeError(f"modes is a {type(modes).__name__}; expected what rc.fit_modes gives")
        chosen = ModeChoice.of(
            modes,
            mode,
            names,
            method or IntegratedGradients(),
            target or (TopK(1) if model.exclusive_outputs else Output()),
            others=others,
        )
        choices = {name: Choice(name) for name in names}
        silenced = silenced_copy(model, choices, strength, how, chosen)
    if isinstance(model, RetinaModel) and model.input_shape is not None:
        # Channels and baseline are looked at now where the frames are known.
        frames = torch.zeros(1, model.history, *model.input_shape)
        silenced._silencing.still(frames.to(model.device, model.dtype))
    return silenced


def _names(model: Model, layer: Layers) -> list[str]:
    names = [layer] if isinstance(layer, str) else [str(name) for name in layer]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"layer={layer!r}; expected at least one layer, each once")
    for name in names:
        model.layer(name)
    return names


def _parts(
    layer: Layers, names: Sequence[str], channels: Any, units: xr.DataArray | None
) -> dict[str, tuple[Any, str]]:
    """Say what is chosen of each layer, and which argument said so."""
    if isinstance(layer, Mapping):
        return {name: (layer[name], f"layer[{name!r}]") for name in names}
    if units is not None:
        if not isinstance(units, xr.DataArray) or units.dtype != bool:
            kind = f"{type(units).__name__} of {getattr(units, 'dtype', 'no dtype')}"
            raise TypeError(f"units is a {kind}; expected a DataArray of booleans over units")
        return dict.fromkeys(names, (units, "units"))
    return dict.fromkeys(names, (channels, "channels"))
