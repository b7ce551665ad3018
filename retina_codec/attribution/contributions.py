"""`contributions`: the decomposition of a model's outputs, as labelled data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from retina_codec._common.checks import require_at_least, require_choice
from retina_codec._common.files import open_tree
from retina_codec._common.progress import progress_bar
from retina_codec._common.provenance import provenance
from retina_codec.attribution.capture import captured
from retina_codec.attribution.engine import decompose
from retina_codec.attribution.methods import IntegratedGradients, Method
from retina_codec.attribution.targets import Output, Target, TopK
from retina_codec.models.model import BATCH_SIZE, Model, Samples, frozen
from retina_codec.models.tensors import TensorModel

SIGNS = ("positive", "negative")
UNIT_DIMS = ("channel", "y", "x")


def contributions(
    model: Model | nn.Module,
    data: Any,
    *,
    layers: str | Sequence[str] | None = None,
    target: Target | None = None,
    method: Method | None = None,
    split_sign: bool = False,
    sum_over: Sequence[str] = (),
    batch_size: int = BATCH_SIZE,
    memory_limit: float = 8e9,
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
        Layers by name; by default ``model.default_layers``.
    target : target, optional
        One of `retina_codec.targets`; by default each cell of a retina model, and the largest
        logit of a classifier.
    method : method, optional
        One of `retina_codec.methods`; by default ``IntegratedGradients(steps=20)``.
    split_sign : bool
        Split each unit's contribution into its positive and its negative part (dim ``sign``),
        before anything is summed.
    sum_over : sequence of {"channel", "y", "x"}
        Dims of the layer to sum over.
    batch_size : int
        Samples in one pass.
    memory_limit : float
        Bytes that the result may take; more is refused with advice.
    progress : bool
        Show a progress bar.

    Returns
    -------
    xarray.DataTree
        Root: ``target`` and ``target_baseline`` (sample[, cell]), in the target's units. Node
        ``layers/NAME``: ``contribution`` (sample[, cell][, sign], channel, y, x) less the dims
        summed over, and ``completeness_error`` (sample[, cell]): the sum of the contributions
        minus ``target - target_baseline``, near 0 if the layer cuts every path to the output.

    Raises
    ------
    ValueError
        For an unknown layer, target or dim, data that do not fit the model, a layer without a
        path to the output, or a result above `memory_limit`.
    TypeError
        If `target` or `method` is not one of ours.

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
    if not isinstance(model, Model):
        model = TensorModel(model, data)
    samples = model.samples(data)
    names = _layer_names(model, layers)
    modules = {name: model.layer(name) for name in names}
    target = target or (TopK(1) if model.exclusive_outputs else Output())
    method = method or IntegratedGradients()
    for name, given in (("target", target), ("method", method)):
        if not isinstance(given, Target if name == "target" else Method):
            raise TypeError(
                f"{name}={given!r}; expected one of retina_codec.{name}s, such as "
                + (
                    "retina_codec.targets.Output()"
                    if name == "target"
                    else "retina_codec.methods.IntegratedGradients(steps=20)"
                )
            )
    if isinstance(sum_over, str):
        sum_over = (sum_over,)
    for dim in sum_over:
        require_choice(dim, UNIT_DIMS, "sum_over")
    require_at_least(batch_size, 1, "batch_size")
    labels = target.labels(model)

    with frozen(model.network):
        shapes = _layer_shapes(model, modules, samples)
        nodes = {
            name: _Node(name, shapes[name], samples, labels, model, split_sign, sum_over)
            for name in names
        }
        needed = sum(node.n_bytes for node in nodes.values())
        if needed > memory_limit:
            raise ValueError(
                f"the result would take {needed / 1e9:.1f} GB, above memory_limit="
                f"{memory_limit:g}: use sum_over=('y', 'x'), fewer layers, or a shorter stretch "
                "of data"
            )
        n_targets = 1 if labels is None else len(labels)
        root = np.empty((2, len(samples), n_targets), dtype=np.float32)
        for batch in progress_bar(
            samples.batches(batch_size),
            "contributions",
            shown=progress,
            total=-(-len(samples) // batch_size),
        ):
            result = decompose(model, modules, target, method, batch.inputs)
            for i, values in enumerate((result.target, result.target_baseline)):
                root[i, batch.index] = values.float().cpu().numpy()
            for name, node in nodes.items():
                node.write(
                    batch.index, result.contribution[name], result.target - result.target_baseline
                )
    return _assemble(model, samples, labels, root, nodes, target, method, split_sign, sum_over)


def open_contributions(store: str | os.PathLike[str]) -> xr.DataTree:
    """Open a saved contribution tree lazily, from Zarr (.zarr) or netCDF (.nc).

    Parameters
    ----------
    store : path
        What `retina_codec.save_tree` wrote.

    Returns
    -------
    xarray.DataTree
        As `contributions` gives it.

    Raises
    ------
    FileNotFoundError, OSError, ValueError
        If the store is missing, damaged, or holds no contributions.
    """
    tree = open_tree(store, "store")
    if "layers" not in tree.children or "target" not in tree:
        raise ValueError(
            f"store={str(store)!r} holds no contributions; expected a variable 'target' and a "
            "group 'layers'"
        )
    return tree


def _layer_names(model: Model, layers: str | Sequence[str] | None) -> list[str]:
    names = model.default_layers if layers is None else layers
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise ValueError(f"layers is empty; choose from {', '.join(model.layers)}")
    for name in names:
        model.layer(name)
    if len(set(names)) != len(names):
        raise ValueError(f"layers={names} names a layer twice")
    return names


def _layer_shapes(
    model: Model, modules: dict[str, nn.Module], samples: Samples
) -> dict[str, tuple[int, ...]]:
    """Shape (sample, channel[, y, x]) of each layer's output for one sample."""
    with torch.no_grad(), captured(modules) as caught:
        model.network(next(iter(samples.batches(1))).inputs)
    missing = [name for name in modules if name not in caught]
    if missing:
        raise ValueError(f"layer {missing[0]!r} does not run in the forward pass: choose another")
    for name, output in caught.items():
        if output.ndim not in (2, 4) or output.shape[0] != 1:
            raise ValueError(
                f"layer {name!r} gives a tensor of shape {tuple(output.shape)} for one sample; "
                "expected (sample, channel) or (sample, channel, y, x)"
            )
    return {name: tuple(output.shape) for name, output in caught.items()}


class _Node:
    """The result of one layer, filled batch by batch."""

    def __init__(
        self,
        name: str,
        shape: tuple[int, ...],
        samples: Samples,
        labels: np.ndarray | None,
        model: Model,
        split_sign: bool,
        sum_over: Sequence[str],
    ) -> None:
        unit_dims = UNIT_DIMS[: len(shape) - 1]
        missing = [dim for dim in sum_over if dim not in unit_dims]
        if missing and len(unit_dims) == 1 and set(missing) <= {"y", "x"}:
            missing = []  # a dense layer has no places to sum over: the sum is itself
        if missing:
            raise ValueError(f"layer {name!r} has no dim {missing[0]!r} to sum over")
        self.split_sign = split_sign
        # Axes of (sample, target, sign, channel[, y, x]).
        self.summed = [3 + i for i, dim in enumerate(unit_dims) if dim in sum_over]
        kept = [dim for dim in unit_dims if dim not in sum_over]
        coords = samples.layer_coords(name, shape)
        self.coords = {dim: coords[dim] for dim in kept if dim in coords}
        self.dims = [model.sample_dim]
        sizes = [len(samples)]
        if labels is not None:
            self.dims.append(model.output_dim)
            sizes.append(len(labels))
        if split_sign:
            self.dims.append("sign")
            sizes.append(2)
            self.coords["sign"] = xr.DataArray(list(SIGNS), dims="sign")
        self.dims += kept
        sizes += [shape[1 + unit_dims.index(dim)] for dim in kept]
        self.sizes = sizes
        self.n_bytes = 4 * int(np.prod(sizes, dtype=np.int64))
        self.residual_shape = sizes[: 1 if labels is None else 2]
        self._values: np.ndarray | None = None
        self._residual: np.ndarray | None = None

    @property
    def values(self) -> np.ndarray:
        """Contributions, with the dims `dims`."""
        if self._values is None:
            self._values = np.empty(self.sizes, dtype=np.float32)
        return self._values

    @property
    def residual(self) -> np.ndarray:
        """Completeness error (sample[, target])."""
        if self._residual is None:
            self._residual = np.empty(self.residual_shape, dtype=np.float32)
        return self._residual

    def write(self, index: slice, contribution: Tensor, change: Tensor) -> None:
        """Reduce one batch (sample, target, channel[, y, x]) and put it in its place."""
        residual = contribution.flatten(2).sum(2) - change
        parts = (
            torch.stack([contribution.clamp(min=0), contribution.clamp(max=0)], dim=2)
            if self.split_sign
            else contribution.unsqueeze(2)
        )
        if self.summed:
            parts = parts.sum(self.summed)
        n = index.stop - index.start
        self.values[index] = parts.float().cpu().numpy().reshape(n, *self.sizes[1:])
        self.residual[index] = residual.float().cpu().numpy().reshape(n, *self.residual_shape[1:])


def _assemble(
    model: Model,
    samples: Samples,
    labels: np.ndarray | None,
    root: np.ndarray,
    nodes: dict[str, _Node],
    target: Target,
    method: Method,
    split_sign: bool,
    sum_over: Sequence[str],
) -> xr.DataTree:
    """Labels around the arrays."""
    dims = [model.sample_dim] + ([] if labels is None else [model.output_dim])
    coords = dict(samples.coords)
    if labels is not None:
        coords[model.output_dim] = xr.DataArray(labels, dims=model.output_dim)
    units = {"units": model.output_units}
    shape = root.shape[1:] if labels is not None else root.shape[1:2]
    tree = {
        "/": xr.Dataset(
            {
                "target": (dims, root[0].reshape(shape), {**units, "long_name": "target"}),
                "target_baseline": (
                    dims,
                    root[1].reshape(shape),
                    {**units, "long_name": "target at the baseline"},
                ),
            },
            coords=coords,
            attrs={
                "model_fingerprint": model.fingerprint,
                **provenance(
                    target=repr(target),
                    method=repr(method),
                    layers=list(nodes),
                    split_sign=split_sign,
                    sum_over=list(sum_over),
                ),
            },
        )
    }
    for name, node in nodes.items():
        tree[f"/layers/{name}"] = xr.Dataset(
            {
                "contribution": (
                    node.dims,
                    node.values,
                    {**units, "long_name": f"contribution of {name}"},
                ),
                "completeness_error": (
                    dims,
                    node.residual,
                    {**units, "long_name": "sum of contributions minus change of the target"},
                ),
            },
            # Only indexed coordinates are inherited; each group is to open alone.
            coords={**samples.coords, **node.coords},
        )
    return xr.DataTree.from_dict(tree)
