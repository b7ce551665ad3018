"""Networks trained with torch-deep-retina (the Baccus laboratory's code), as models of ours."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from retina_codec._common.checks import require_choice
from retina_codec.models.bncnn import BNCNN
from retina_codec.models.cnn2016 import CNN2016
from retina_codec.models.cnn_family import FitsRecording, take_weights
from retina_codec.models.deep_retina_file import Layer, Network, read_network
from retina_codec.models.normalization import PUBLISHED_EPS, MapNorm
from retina_codec.models.retinotopic import Retinotopic
from retina_codec.models.stacked import StackedBNCNN

RESPONSE_BINS = ("next", "current")
# Share of a place without any weight: its logarithm is finite.
NO_SHARE = 1e-30
# Share of each batch in the running mean and variance, as trained.
MOMENTUM = 0.01


def load_deep_retina(
    source: str | os.PathLike[str] | Mapping[str, Any],
    *,
    bin_width: float = 0.01,
    img_shape: Sequence[int] | None = None,
    norm_stats: Mapping[str, float] | Sequence[float] | None = None,
    cells: Sequence[Any] | None = None,
    maps: Sequence[int] | None = None,
    places: Sequence[Sequence[float]] | None = None,
    final_eps: float = PUBLISHED_EPS,
    response_bin: str = "next",
) -> BNCNN | CNN2016 | StackedBNCNN | Retinotopic:
    """Load a network that was trained with torch-deep-retina.

    Its model types CNN, BNCNN, LinearStackedBNCNN, VaryModel and RetinotopicModel are understood,
    with batch norms of either dimension, where ReLU and softplus are the nonlinearities and
    nothing is padded. Nothing is unpickled from the file but tensors, numbers and text.

    Parameters
    ----------
    source : path or mapping
        A checkpoint file, or its content: a state dict with keys ``sequential.N...``, or a dict
        that holds one under ``model_state_dict``.
    bin_width : float or quantity
        Duration of a frame, in seconds; the files do not say it.
    img_shape : tuple of int, optional
        (history, y, x); by default the checkpoint's.
    norm_stats : mapping or tuple, optional
        Mean and sd of the training movie, ``{"mean": ..., "std": ...}`` or ``(mean, sd)``; by
        default the checkpoint's.
    cells : sequence, optional
        Ids of the cells; by default the checkpoint's, or else their numbers.
    maps : sequence of int, optional
        Number of the map that each cell reads, in a retinotopic network whose cells share maps;
        by default the checkpoint's ``collapse_labels``, or else every cell has its own.
    places : sequence of (float, float), optional
        (y, x) of each cell in pixels, for networks whose file does not hold where cells read
        their maps (``convgc``).
    final_eps : float
        Added to the variance in the last batch norm: 1e-3 in all but the oldest versions (1e-5).
        The files do not say it.
    response_bin : {"next", "current"}
        Which bin a rate is labelled with. ``"next"``: the one after the window's last frame, which
        is what these networks were trained to predict. Their training data pair the window of
        frames i to i + h - 1 with the response in bin i + h (`loadexpt` in `datas.py`: of
        T frames `rolling_window` makes T - h windows, and the responses are ``resp[history:]``;
        deep-retina's `loadexpt` does the same). It adds a lag of zero weight, so that the history
        is one frame longer. ``"current"``: that of the window's last frame, with the history as in
        the file; for networks that were trained so.

    Returns
    -------
    BNCNN, CNN2016, StackedBNCNN or Retinotopic
        On the CPU, in evaluation mode; what the network puts out is taken for Hz. Batch norms and
        biases between the stages of a stack are folded into its kernels, and differences in other
        constants of the batch norms into their mean and variance: the outputs are the same, a
        training that goes on need not be.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged or holds other Python objects, if it is not a checkpoint of such a
        network (missing and unexpected keys are named), or lacks what has no default.

    Notes
    -----
    Written from the format of github.com/baccuslab/torch-deep-retina (`models.py`,
    `custom_modules.py`, `datas.py`), where the channels of the first convolution are the frames of
    the window in time order, the last one most recent.

    Examples
    --------
    >>> import torch
    >>> from retina_codec.models.deep_retina import load_deep_retina
    >>> weights = {
    ...     "sequential.0.weight": torch.randn(4, 10, 3, 3),
    ...     "sequential.3.weight": torch.randn(2, 4, 3, 3),
    ...     "sequential.7.weight": torch.randn(1, 2 * 4 * 4),
    ... }
    >>> model = load_deep_retina(weights, img_shape=(10, 8, 8), norm_stats=(0.0, 1.0))
    >>> model
    CNN2016(1 outputs along 'cell'; layers: relu1, relu2)
    >>> model.history
    11
    """
    require_choice(response_bin, RESPONSE_BINS, "response_bin")
    network = read_network(source)
    notes, layers = network.notes, network.layers
    shape = _image_shape(notes.get("img_shape") if img_shape is None else img_shape)
    mean, sd = _norm_stats(notes.get("norm_stats") if norm_stats is None else norm_stats)
    norm = _norm_kind(layers, shape)
    if response_bin == "next":
        first = layers[0].stages[0]
        first.weight = functional.pad(first.weight, (0, 0, 0, 0, 0, 1))
        shape = (shape[0] + 1, *shape[1:])
    noise = layers[0].noise
    arguments = {
        "input_shape": shape[1:],
        "history": shape[0],
        "bin_width": bin_width,
        "mean": mean,
        "sd": sd,
        "noise": float(notes.get("noise") or 0.0) if noise is None else noise,
        "kernel_sizes": [layer.kernel for layer in layers if not layer.dense],
        "rate_units": "Hz",
        **({} if norm is None else {"norm_momentum": MOMENTUM, "norm": norm}),
    }
    model: BNCNN | CNN2016 | StackedBNCNN | Retinotopic
    extra: dict[str, Tensor] = {}
    if layers[-1].dense:
        for argument, value in (("places", places), ("maps", maps)):
            if value is not None:
                raise ValueError(f"{argument} is given, but the network in source has no maps")
        if network.readout is not None:
            raise ValueError("source: unexpected one-hot readout after a dense layer")
        arguments["cells"] = _cell_ids(cells, notes, layers[-1].channels)
        model = _with_dense_layer(layers, arguments)
    else:
        if maps is None:
            maps = notes.get("collapse_labels")
        model, extra = _with_maps(network, arguments, cells, maps, places)
    _give(model, layers, final_eps, extra)
    model.network.to(network.dtype)
    return model


def _image_shape(value: Any) -> tuple[int, int, int]:
    if value is None:
        raise ValueError("img_shape is missing in source; give img_shape=(history, y, x)")
    shape = tuple(int(size) for size in value)
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"img_shape={shape}; expected (history, y, x)")
    return shape


def _norm_stats(value: Any) -> tuple[float, float]:
    if value is None:
        raise ValueError(
            "norm_stats is missing in source; give norm_stats=(mean, sd) of the training movie"
        )
    if isinstance(value, Mapping):
        if not {"mean", "std"} <= set(value):
            raise ValueError(f"norm_stats has {list(value)}; expected 'mean' and 'std'")
        value = (value["mean"], value["std"])
    if len(value) != 2:
        raise ValueError(f"norm_stats has {len(value)} numbers; expected the mean and the sd")
    return float(value[0]), float(value[1])


def _cell_ids(cells: Sequence[Any] | None, notes: Mapping[str, Any], n: int) -> list[str]:
    if cells is None:
        cells = notes.get("cells")
    if cells is None or isinstance(cells, str):  # "all", say
        return [str(i) for i in range(n)]
    if len(cells) != n:
        raise ValueError(
            f"cells has {len(cells)} ids ({', '.join(map(str, cells))}); the network in source "
            f"has {n} outputs"
        )
    return [str(cell) for cell in cells]


def _norm_kind(layers: Sequence[Layer], shape: tuple[int, int, int]) -> str | None:
    """Follow the sizes through the layers; tell what the batch norms of hidden layers are by.

    Raises
    ------
    ValueError
        Where sizes do not fit, or where batch norms are missing or of several kinds.
    """
    channels, height, width = shape
    kinds = set()
    for layer, after in zip(layers, [*layers[1:], None], strict=True):
        if layer.dense and after is not None:
            raise ValueError(f"source: unexpected {after.name} after a dense layer")
        expected = channels * height * width if layer.dense else channels
        taken = layer.stages[0].weight.shape[1]
        if taken != expected:
            raise ValueError(
                f"source: {layer.name} takes {taken} {'units' if layer.dense else 'channels'}; "
                f"img_shape={shape} gives {expected} where nothing is padded: give the img_shape "
                "that the network was trained with"
            )
        channels = layer.channels
        height, width = height - layer.kernel + 1, width - layer.kernel + 1
        if layer.dense:
            height = width = 1
        if min(height, width) < 1:
            raise ValueError(f"source: {layer.name} does not fit into img_shape={shape}")
        n_units = channels * height * width
        if layer.norm is not None:
            n = len(layer.norm["weight"])
            if n not in (channels, n_units):
                raise ValueError(
                    f"source: the batch norm after {layer.name} has {n} entries; expected "
                    f"{channels} (channels) or {n_units} (units) for img_shape={shape}"
                )
            if after is not None and channels != n_units:
                kinds.add("channel" if n == channels else "unit")
    lacking = [layer.name for layer in layers if layer.norm is None]
    if len(lacking) == len(layers):
        return None
    if lacking:
        raise ValueError(f"source: missing the batch norm after {', '.join(lacking)}")
    if len(kinds) > 1:
        raise ValueError("source has batch norms by unit and by channel; expected one kind")
    return next(iter(kinds), "unit")


def _stack_settings(hidden: Sequence[Layer]) -> dict[str, Any]:
    plain = [layer.name for layer in hidden if not layer.stacked]
    if plain:
        raise ValueError(f"source: {', '.join(plain)} is no stack as other layers are")
    return {
        "stages": [layer.stages[0].weight.shape[-1] for layer in hidden],
        "stage_channels": [len(layer.stages[0].weight) for layer in hidden],
    }


def _require_positive(layers: Sequence[Layer]) -> None:
    for layer in layers:
        if layer.norm is not None and not layer.positive and bool((layer.norm["weight"] < 0).any()):
            raise ValueError(
                f"source: the batch norm after {layer.name} has negative scales; expected "
                "positive ones ('scale' and 'shift') in such a network"
            )


def _with_dense_layer(
    layers: Sequence[Layer], arguments: dict[str, Any]
) -> BNCNN | CNN2016 | StackedBNCNN:
    hidden = layers[:-1]
    arguments = {**arguments, "channels": [layer.channels for layer in hidden]}
    stacked = any(layer.stacked for layer in hidden)
    if "norm" not in arguments:
        if stacked:
            raise ValueError("source: missing the batch norms of a network of stacked convolutions")
        return CNN2016(**arguments)
    if stacked:
        _require_positive(layers)
        return StackedBNCNN(**arguments, **_stack_settings(hidden))
    positive = any(layer.positive for layer in layers)
    if positive:
        _require_positive(layers)
    return BNCNN(**arguments, positive_norm=positive)


def _with_maps(
    network: Network,
    arguments: dict[str, Any],
    cells: Sequence[Any] | None,
    maps: Sequence[int] | None,
    places: Sequence[Sequence[float]] | None,
) -> tuple[Retinotopic, dict[str, Tensor]]:
    """Model and weights of its readout; reorders the maps to our order, of first use."""
    layers, readout = network.layers, network.readout
    hidden, last = layers[:-1], layers[-1]
    if last.stacked or last.norm is None or len(last.norm["weight"]) != last.channels:
        raise ValueError(
            f"source: missing a dense layer to the cells, or a batch norm by map after {last.name}"
        )
    if readout is None and places is None:
        raise ValueError(
            "source does not hold where the cells read their maps; give places=[(y, x), ...] in "
            "pixels"
        )
    _require_positive(layers)
    chosen = list(range(last.channels)) if maps is None else [int(i) for i in maps]
    order = list(dict.fromkeys(chosen))
    if sorted(order) != list(range(last.channels)):
        raise ValueError(
            f"maps={chosen}; expected numbers of maps from 0 to {last.channels - 1}, each at least "
            "once"
        )
    if readout is not None and len(readout) != len(chosen):
        raise ValueError(
            f"source has {last.channels} maps and {len(readout)} cells; give maps=, the number of "
            "the map that each cell reads"
        )
    stage = last.stages[0]
    stage.weight, stage.bias = stage.weight[order], stage.bias[order]
    last.norm = {name: tensor[order] for name, tensor in last.norm.items()}
    stacked = any(layer.stacked for layer in hidden)
    model = Retinotopic(
        **arguments,
        **(_stack_settings(hidden) if stacked else {}),
        cells=_cell_ids(cells, network.notes, len(chosen)),
        channels=[layer.channels for layer in hidden],
        types=None if maps is None else [str(i) for i in chosen],
        places=places,
        stacked=stacked,
    )
    extra = {"readout.map": model.readout.map}
    if places is not None or readout is None:
        return model, {**extra, "readout.place": model.readout.place}
    n_places = model.readout.choice.shape[1]
    if readout.shape[1:] != (n_places,):
        raise ValueError(
            f"source: the one-hot readout has {tuple(readout.shape)[1:]} places; expected "
            f"{n_places}, {model.readout.size[0]} x {model.readout.size[1]}"
        )
    share = readout.double() - readout.double().amin(1, keepdim=True)
    # No place preferred (or only one): an even share, where the quotient would be 0 / 0.
    share = torch.where(share.sum(1, keepdim=True) > 0, share, torch.ones_like(share))
    share = share / share.sum(1, keepdim=True)
    return model, {**extra, "readout.choice": share.clamp(min=NO_SHARE).log()}


def _give(
    model: FitsRecording, layers: Sequence[Layer], final_eps: float, extra: Mapping[str, Tensor]
) -> None:
    """Put the layers' weights into our network, in double precision."""
    weights = dict(extra)
    network = model.network.double()
    for i, layer in enumerate(layers, start=1):
        weights |= _kernels(layer, "dense" if layer.dense else f"conv{i}", first=i == 1)
        if layer.norm is None:
            continue
        module = network.get_submodule(f"norm{i}")
        norm = dict(layer.norm)
        # Ours may add another constant to the variance, and its dense layer has no bias.
        eps = final_eps if i == len(layers) else PUBLISHED_EPS
        norm["running_var"] = norm["running_var"] + eps - module.eps  # type: ignore[operator]
        if layer.dense:
            norm["running_mean"] = norm["running_mean"] - weights.pop("dense.bias")
        if not isinstance(module, MapNorm):
            norm["num_batches_tracked"] = torch.tensor(0)
        weights |= {f"norm{i}.{name}": tensor for name, tensor in norm.items()}
    try:
        take_weights(model, weights)
    except RuntimeError as error:
        raise ValueError(f"source: weights do not fit each other: {error}") from error


def _kernels(layer: Layer, name: str, first: bool) -> dict[str, Tensor]:
    """Weights of one layer by the names of our modules."""
    weights = {}
    for i, stage in enumerate(layer.stages):
        # The first one takes (history, color) where theirs takes history.
        weight = stage.weight[:, :, None] if first and i == 0 else stage.weight
        part = name
        if layer.stacked and first:
            part = f"{name}.first" if i == 0 else f"{name}.rest.{i - 1}"
        elif layer.stacked:
            part = f"{name}.stages.{i}"
        weights[f"{part}.weight"] = weight
        if i == len(layer.stages) - 1:
            weights[f"{part}.bias"] = stage.bias
    return weights
