"""Which pixels of an image make a mode, or a channel, help or hinder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from scipy.ndimage import gaussian_filter

from retina_codec._common.checks import nearest_names, require_array, require_at_least
from retina_codec._common.progress import progress_bar
from retina_codec._common.provenance import provenance
from retina_codec.attribution import contributions
from retina_codec.attribution.capture import undisturbed
from retina_codec.attribution.input_gradients import InputGradients, weighted_sums
from retina_codec.attribution.methods import Method
from retina_codec.attribution.reduction import SIGNS
from retina_codec.attribution.targets import Target
from retina_codec.models.model import Model

IMAGE_DIMS = ("image", "color", "y", "x")
# Bytes of weights (image, unit, sign, channel, y, x) that are held at a time.
WEIGHT_BYTES = 2**28


def contribution_fields(
    model: Model,
    data: xr.DataArray,
    layer: str,
    *,
    dictionary: xr.DataArray | None = None,
    channels: Sequence[Any] | None = None,
    target: Target | None = None,
    method: Method | None = None,
    batch_size: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Contribution-weighted receptive fields: what in an image makes a mode help or hinder.

    The receptive field of a unit at this image is the gradient of its activation with respect to
    the pixels. Those of all units of a layer are averaged with weights: the sizes of their
    contributions, the helping (positive) and the hindering (negative) apart, times the weight of
    their channel in the mode. With contributions c of the units j (channel and place) and weights
    w of a mode m,

        field_ms = sum_j w_msj |c_sj| d a_j / d x / sum_j w_msj |c_sj|,   s positive or negative

    Where it is positive, a brighter pixel makes the units more active that help (or hinder). All
    units of an image and mode take one backward pass.

    Parameters
    ----------
    model : Model
        A classifier.
    data : DataArray
        Images (image, color, y, x).
    layer : str
        A layer (sample, channel, y, x) or (sample, channel) that cuts the network.
    dictionary : DataArray, optional
        (mode, [sign,] channel), some rows of ``modes.dictionary``; the sizes of its weights are
        taken.
    channels : sequence, optional
        Labels of channels, each for itself, instead.
    target, method : optional
        Of the contributions, as for `retina_codec.contributions`.
    batch_size : int, optional
        Images in one pass; by default what fits.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Dataset
        `field` (image, mode or channel, sign, color, y, x), in the layer's units per unit of the
        images (of 0 to 1); `weight` (image, mode or channel, sign): the sum of the weights, in the
        target's units. Where that is 0 the field is 0.

    Raises
    ------
    TypeError
        If `data` or `dictionary` is no DataArray.
    ValueError
        If both or neither of `dictionary` and `channels` are given, a channel is unknown, or the
        layer is of another kind.

    References
    ----------
    After Melander et al., ICLR 2026, arXiv 2603.06557.

    Examples
    --------
    >>> import numpy as np, retina_codec as rc, xarray as xr
    >>> from torch import nn
    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
    >>> model = rc.classifiers.from_module(net, categories=["cross", "ring"])
    >>> images = xr.DataArray(np.random.default_rng(0).random((5, 1, 8, 8), dtype="float32"),
    ...     dims=("image", "color", "y", "x"))
    >>> found = rc.analysis.contribution_fields(model, images, "1", channels=[0, 2],
    ...     progress=False)
    >>> found["field"].dims
    ('image', 'channel', 'sign', 'color', 'y', 'x')
    """
    data = require_array(data, "data")
    if set(data.dims) != set(IMAGE_DIMS):
        raise ValueError(
            f"data has dims {tuple(data.dims)}; expected images {IMAGE_DIMS}; of a movie see "
            "retina_codec.instantaneous_receptive_field"
        )
    data = data.transpose(*IMAGE_DIMS)
    model.layer(layer)
    if layer in model.layouts:
        raise ValueError(
            f"layer {layer!r} has dims {model.layouts[layer].dims}; expected channels, with or "
            "without places: take a convolutional or a dense layer"
        )
    if batch_size is not None:
        require_at_least(batch_size, 1, "batch_size")
    tree = contributions(
        model, data.isel(image=slice(1)), layers=layer, target=target, method=method, progress=False
    )
    first: xr.DataArray = tree[f"layers/{layer}"].to_dataset()["contribution"]
    if model.output_dim in first.dims:
        raise ValueError(
            f"target: contributions to each {model.output_dim} apart; give one target, such as "
            f"Output('{model.outputs[0]}') or TopK(1)"
        )
    weights = _weights(dictionary, channels, first["channel"].values)
    unit = str(weights.dims[0])
    n, n_units = data.sizes["image"], weights.sizes[unit]
    field = np.empty((n, n_units, 2, *data.shape[1:]), dtype=np.float32)
    total = np.empty((n, n_units, 2))
    each = 2 * n_units * int(np.prod(first.shape[1:])) * 4
    size = batch_size or int(np.clip(WEIGHT_BYTES // each, 1, n))
    starts = range(0, n, size)
    for start in progress_bar(starts, "fields", total=len(starts), shown=progress):
        part = data.isel(image=slice(start, start + size))
        found = (
            contributions(
                model,
                part,
                layers=layer,
                target=target,
                method=method,
                batch_size=batch_size,
                progress=False,
            )[f"layers/{layer}"]
            .to_dataset()["contribution"]
            .values
        )
        apart = np.stack([found.clip(min=0), -found.clip(max=0)])  # (sign, image, channel, ...)
        own = np.einsum("usc,sic...->iusc...", weights.values, apart)
        sums = own.sum(axis=tuple(range(3, own.ndim)))
        total[start : start + size] = sums
        shape = (*sums.shape, *[1] * (own.ndim - 3))
        own = np.divide(own, sums.reshape(shape), out=np.zeros_like(own),
                        where=sums.reshape(shape) > 0)  # fmt: skip
        functions = torch.from_numpy(own.reshape(len(own), -1, *own.shape[3:]))
        with undisturbed(model):
            gradients = InputGradients(
                model,
                model.samples(part),
                weighted_sums(functions),
                layer=layer,
                batch_size=batch_size,
            )
            for index, _, gradient in gradients.batches():
                place = slice(start + index.start, start + index.stop)
                field[place] = gradient.cpu().numpy().reshape(-1, *field.shape[1:])
    along = {str(k): c for k, c in data.coords.items() if set(c.dims) <= set(IMAGE_DIMS)}
    coords = {**along, "sign": np.array(SIGNS, object), unit: weights[unit]}
    units = str(tree["target"].attrs.get("units", "1"))
    return xr.Dataset(
        {
            "field": (
                ("image", unit, "sign", *IMAGE_DIMS[1:]),
                field,
                {"units": "1", "long_name": "contribution-weighted receptive field"},
            ),
            "weight": (
                ("image", unit, "sign"),
                total,
                {"units": units, "long_name": "weighted size of the contributions"},
            ),
        },
        coords,
        attrs={
            "model_fingerprint": model.fingerprint,
            **provenance(function="contribution_fields", layer=layer, contributions=tree.attrs),
        },
    )


def field_masks(field: xr.DataArray, *, share: float = 0.5, smoothing: float = 1.0) -> xr.DataArray:
    """Mark the pixels that hold most of a field.

    Of the field's energy (the squares summed over colours, smoothed by a Gaussian) the fewest
    pixels are marked that hold `share` of it.

    Parameters
    ----------
    field : DataArray
        (..., [color,] y, x), as from `contribution_fields`.
    share : float
        Of the energy, above 0 and at most 1.
    smoothing : float
        Standard deviation of the Gaussian, in pixels; 0 leaves the energy as it is.

    Returns
    -------
    DataArray
        (..., y, x), bool; False everywhere where the field is 0.

    Raises
    ------
    TypeError
        If `field` is no DataArray.
    ValueError
        If it has no places, or an argument is out of range.

    Examples
    --------
    >>> import numpy as np, retina_codec as rc, xarray as xr
    >>> field = xr.DataArray([[3.0, 0, 0], [0, 2, 1]], dims=("y", "x"))
    >>> rc.analysis.field_masks(field, share=0.9, smoothing=0).values.astype(int)
    array([[1, 0, 0],
           [0, 1, 0]])
    """
    field = require_array(field, "field")
    if not {"y", "x"} <= set(field.dims):
        raise ValueError(f"field has dims {tuple(field.dims)}; expected 'y' and 'x' among them")
    if not 0 < share <= 1:
        raise ValueError(f"share={share!r}; expected a number above 0 and at most 1")
    require_at_least(smoothing, 0, "smoothing")
    energy = field.astype(np.float64) ** 2
    if "color" in energy.dims:
        energy = energy.sum("color")
    energy = energy.transpose(..., "y", "x")
    smooth = np.asarray(energy.values)
    if smoothing:
        smooth = gaussian_filter(smooth, (*[0] * (smooth.ndim - 2), smoothing, smoothing))
    flat = smooth.reshape(*smooth.shape[:-2], -1)
    order = np.argsort(-flat, axis=-1, kind="stable")
    ranked = np.take_along_axis(flat, order, axis=-1)
    whole = ranked.sum(axis=-1, keepdims=True)
    # Up to the pixel with which the share is reached.
    kept = (np.cumsum(ranked, axis=-1) - ranked < share * whole * (1 - 1e-12)) & (ranked > 0)
    marked = np.zeros(flat.shape, dtype=bool)
    np.put_along_axis(marked, order, kept, axis=-1)
    return (
        energy.copy(data=marked.reshape(smooth.shape))
        .rename("mask")
        .assign_attrs(units="1", long_name=f"pixels with {share:.0%} of the field's energy")
    )


def _weights(
    dictionary: xr.DataArray | None, channels: Sequence[Any] | None, known: np.ndarray
) -> xr.DataArray:
    """Sizes of weights (mode or channel, sign, channel of the layer)."""
    if (dictionary is None) == (channels is None):
        raise ValueError("give one of dictionary= (of modes) and channels=")
    if dictionary is None:
        wanted = np.atleast_1d(np.asarray(channels)).tolist()
        for channel in wanted:
            if channel not in known:
                raise ValueError(
                    f"channels has {channel!r}, which the layer does not; "
                    f"{nearest_names(channel, known)}"
                )
        one_hot = np.array([known == channel for channel in wanted], dtype=np.float64)
        return xr.DataArray(
            np.repeat(one_hot[:, None], 2, axis=1),
            dims=("channel", "sign", "channel_of_layer"),
            coords={"channel": np.array(wanted)},
        )
    sizes = abs(require_array(dictionary, "dictionary"))
    if "mode" not in sizes.dims:
        sizes = sizes.expand_dims("mode")
    if "sign" not in sizes.dims:
        sizes = sizes.expand_dims(sign=list(SIGNS))
    if set(sizes.dims) != {"mode", "sign", "channel"}:
        raise ValueError(
            f"dictionary has dims {tuple(dictionary.dims)}; expected ('mode', 'sign', 'channel'), "
            "of modes of this layer alone"
        )
    if sizes.sizes["channel"] != len(known) or (
        "channel" in sizes.coords and not np.array_equal(sizes["channel"].values, known)
    ):
        raise ValueError(
            f"dictionary has {sizes.sizes['channel']} channels, the layer {len(known)}, or others: "
            "pass rows of the modes of this layer"
        )
    if "mode" not in sizes.coords:
        sizes = sizes.assign_coords(mode=np.arange(sizes.sizes["mode"]))
    bare = sizes.sel(sign=list(SIGNS)).transpose("mode", "sign", "channel").astype(np.float64)
    extra = [name for name in bare.coords if name not in ("mode", "sign", "channel")]
    return bare.drop_vars([*extra, "channel"], errors="ignore")
