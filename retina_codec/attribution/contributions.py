"""`contributions`: the decomposition of a model's outputs, as labelled data."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr
from torch import nn

from retina_codec._common.checks import require_at_least, require_choice, require_count
from retina_codec._common.files import open_tree
from retina_codec.attribution.block_run import in_memory
from retina_codec.attribution.budget import MEMORY_BUDGET
from retina_codec.attribution.capture import undisturbed
from retina_codec.attribution.identity import identity_of
from retina_codec.attribution.methods import IntegratedGradients, Method
from retina_codec.attribution.reduction import UNIT_DIMS, Reduction
from retina_codec.attribution.run import PRECISIONS, Options, Run
from retina_codec.attribution.store import RECORD, Store, require_zarr, unfinished
from retina_codec.attribution.streaming import process_of, stream
from retina_codec.attribution.targets import Output, Target, TopK
from retina_codec.models.model import Model
from retina_codec.models.tensors import TensorModel

COLLECT = ("layer", "best")
EXTRAS = ("activation", "gradient")


def contributions(
    model: Model | nn.Module,
    data: Any,
    *,
    layers: str | Sequence[str] | None = None,
    target: Target | None = None,
    method: Method | None = None,
    split_sign: bool = False,
    sum_over: str | Sequence[str] = (),
    keep_lag: bool = False,
    extras: str | Sequence[str] = (),
    collect: str = "layer",
    allow_bypass: bool = False,
    layer_dims: Mapping[str, Sequence[str]] | None = None,
    sample_dim: str = "sample",
    output_dim: str = "output",
    batch_size: int | None = None,
    precision: str = "model",
    memory_budget: float = MEMORY_BUDGET,
    memory_limit: float = 8e9,
    store: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    process: tuple[int, int] | None = None,
    progress: bool = True,
) -> xr.DataTree:
    """How much each hidden unit contributed to each output, for every sample.

    Parameters
    ----------
    model : Model or torch.nn.Module
        A model of the retina, a classifier, or any network that gives (sample, output).
    data : xarray.DataArray, array or tensor
        A movie (time, [color,] y, x) in its recorded units; images (image, color, y, x); for a
        bare network its inputs, samples first. A movie gives a result for every frame with a
        whole history in its block.
    layers : str or sequence of str, optional
        Layers by name; by default ``model.default_layers``. All come from the same passes.
    target : target, optional
        One of `retina_codec.targets`; by default each cell of a retina model, and the largest
        logit of a classifier.
    method : method, optional
        One of `retina_codec.methods`; by default ``IntegratedGradients(steps=20)``.
    split_sign : bool
        Split each unit's contribution into its positive and its negative part (dim ``sign``),
        before anything is summed.
    sum_over : sequence of {"channel", "y", "x", "token"}
        Dims of the layer to sum over.
    keep_lag : bool
        Keep the ``lag`` of layers that have a time axis, instead of summing over it.
    extras : sequence of {"activation", "gradient"}
        Further variables: the layer at the input, and the target's gradient there, both summed
        over `sum_over`.
    collect : {"layer", "best"}
        Where contributions are collected: at the layer itself, or there or after the elementwise
        maps that follow it (batch norm, ReLU), whichever has the smallest completeness error on
        the first samples. In the limit of many steps they are the same; for integrated gradients
        only. The `extras` are those of the layer itself.
    allow_bypass : bool
        Take layers that do not cut the network, whose contributions do not add up to the target.
    layer_dims : mapping of str to sequence of str, optional
        Dims after the sample, of layers that are neither (sample, channel), (sample, channel, y,
        x) nor (sample, channel, lag, y, x), such as ``("token", "channel")``.
    sample_dim, output_dim : str
        Names of those dims, for a bare network.
    batch_size : int, optional
        Samples in one pass; by default what fits the budget.
    precision : {"model", "bfloat16", "float16"}
        Arithmetic of the network: the model's own, or half precision by autocast. The error of
        the latter on the first samples, relative to the largest contribution, is in
        ``attrs["parameters"]`` as ``precision_error``.
    memory_budget : float
        Bytes that a pass through the network may take.
    memory_limit : float
        Bytes that a result in memory may take; more is refused with advice.
    store : path, optional
        Name of a Zarr store, ending in ``.zarr``, that the result is streamed into while it is
        computed, for results larger than memory and runs of hours. Until all is there it is in
        the folder ``NAME.zarr.unfinished``. A run that was killed is called again with the same
        arguments: it goes on where it was, and ends with the same bits (on the same machine). A
        store that has the same run already is opened, and nothing computed. Data of more than a
        GiB are compared by 64 stretches of them, smaller ones as a whole.
    overwrite : bool
        Replace a `store` of another run; what stands there stays until the new one is whole.
    process : (int, int), optional
        Rank of this process, and how many share the run: each calls this function with the same
        arguments and the same `store`, on a disk that all of them see, and gets the whole result.
        By default as torch.distributed has it, or the variables RANK and WORLD_SIZE that torchrun
        and others set; without them, one process.
    progress : bool
        Show a progress bar.

    Returns
    -------
    xarray.DataTree
        Root: ``target`` and ``target_baseline`` (sample[, cell]), in the target's units, and with
        a tolerance ``steps`` (sample). Node ``layers/NAME``: ``contribution`` (sample[, cell][,
        sign], channel, y, x) less the dims summed over, ``completeness_error`` (sample[, cell]):
        the sum of the contributions minus ``target - target_baseline``, near 0 if the layer cuts
        every path to the output; ``contribution_class_token`` where a layer has class tokens
        (they are part of that sum); and the `extras`. With `store`, opened lazily from there.

    Raises
    ------
    ValueError
        For an unknown layer, target or dim, data that do not fit the model, a layer that does not
        cut the network or has no path to the output, a network with dropout on, dims or layers
        whose names cannot stand in the result, a result above `memory_limit`, or a `store` that
        holds something else.
    TypeError
        If `model` is no model or module, or `target` or `method` not one of ours.
    OSError
        If the disk of `store` is full; what is done is kept.
    TimeoutError
        If another process does not do its part.

    References
    ----------
    Melander et al., ICLR 2026, arXiv 2603.06557.

    Examples
    --------
    >>> import retina_codec as rc, torch
    >>> network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    >>> tree = rc.contributions(network, torch.randn(10, 3), layers="1", progress=False)
    >>> dict(tree["layers/1"]["contribution"].sizes)
    {'sample': 10, 'output': 2, 'channel': 4}
    """
    if not isinstance(model, Model | nn.Module):
        raise TypeError(
            f"model is a {type(model).__name__}; expected a retina_codec.Model, such as "
            "retina_codec.load_model gives, or a torch.nn.Module"
        )
    if not isinstance(model, Model):
        model = TensorModel(model, data, sample_dim=sample_dim, output_dim=output_dim)
    samples = model.samples(data)
    _require_apart(model)
    modules = {name: model.layer(name) for name in _layer_names(model, layers)}
    target = target or (TopK(1) if model.exclusive_outputs else Output())
    method = method or IntegratedGradients()
    if not isinstance(target, Target):
        raise TypeError(
            f"target={target!r}; expected one of retina_codec.targets, such as "
            "retina_codec.targets.Output()"
        )
    if not isinstance(method, Method):
        raise TypeError(
            f"method={method!r}; expected one of retina_codec.methods, such as "
            "retina_codec.methods.IntegratedGradients(steps=20)"
        )
    if collect == "best" and not isinstance(method, IntegratedGradients):
        raise ValueError(
            f"collect='best' is for IntegratedGradients; {type(method).__name__} does not give "
            "the same before and after an elementwise map: leave collect out, or name the layer "
            "that is meant"
        )
    reduction = Reduction(split_sign, _several(sum_over), keep_lag)
    extras = _several(extras)
    for extra in extras:
        require_choice(extra, EXTRAS, "extras")
    require_choice(collect, COLLECT, "collect")
    require_choice(precision, list(PRECISIONS), "precision")
    if batch_size is not None:
        require_count(batch_size, 1, "batch_size")
    require_at_least(memory_budget, 1, "memory_budget")
    options = Options(memory_budget, batch_size, precision, collect, allow_bypass, extras)

    def planned() -> Run:
        return Run(model, samples, modules, target, method, reduction, layer_dims or {}, options)

    if store is None:
        if process is not None or overwrite:
            raise ValueError(
                "process and overwrite are of a store: name one, as store='run.zarr', or leave "
                "them out"
            )
        with undisturbed(model):
            return in_memory(planned(), memory_limit, progress)
    place = Path(store)
    require_zarr(place)
    share = process_of(process)
    identity = identity_of(
        model,
        data,
        list(modules),
        target,
        method,
        reduction,
        layouts={name: model.layouts.get(name) for name in modules},
        extras=extras,
        collect=collect,
        allow_bypass=allow_bypass,
        layer_dims=layer_dims or {},
        precision=precision,
    )
    with undisturbed(model):
        stream(Store(place, identity, batch_size, overwrite, Run), planned, share, progress)
    return open_contributions(place)


def open_contributions(store: str | os.PathLike[str]) -> xr.DataTree:
    """Open a saved contribution tree lazily, from Zarr (.zarr) or netCDF (.nc).

    Parameters
    ----------
    store : path
        What `contributions` streamed there, or `retina_codec.save_tree` wrote.

    Returns
    -------
    xarray.DataTree
        As `contributions` gives it.

    Raises
    ------
    FileNotFoundError, OSError, ValueError
        If the store is missing, damaged, or holds no contributions.
    """
    left = unfinished(Path(store))
    if left.exists() and not Path(store).exists():
        raise FileNotFoundError(
            f"store={str(store)!r} is unfinished (what is done is in {left}): call "
            "retina_codec.contributions again with the same arguments to go on"
        )
    tree = open_tree(store, "store")
    if "layers" not in tree.children or "target" not in tree:
        raise ValueError(
            f"store={str(store)!r} holds no contributions; expected a variable 'target' and a "
            "group 'layers'"
        )
    # What the store is of: not so of what is computed from it.
    tree.attrs.pop(RECORD, None)
    return tree


def _layer_names(model: Model, layers: str | Sequence[str] | None) -> list[str]:
    names = model.default_layers if layers is None else layers
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise ValueError(f"layers is empty; choose from {', '.join(model.layers)}")
    for name in names:
        model.layer(name)
        if "/" in name:
            raise ValueError(
                f"layer {name!r} has a slash in its name, which would make it a group inside "
                "another in the result: give the model's layers names without"
            )
    if len(set(names)) != len(names):
        raise ValueError(f"layers={names} names a layer twice")
    return names


def _require_apart(model: Model) -> None:
    """Raise ValueError if a sample or output dim has the name of another dim of the result."""
    own = {"sample_dim": model.sample_dim, "output_dim": model.output_dim}
    for argument, dim in own.items():
        if dim in ("sign", *UNIT_DIMS) or list(own.values()).count(dim) > 1:
            raise ValueError(
                f"{argument}={dim!r} is the name of another dim of the result; of a DataArray the "
                "first dim is the samples': rename it, to 'sample' for example"
            )


def _several(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)
