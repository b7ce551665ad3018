"""The dictionary with what its channels look for beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure, SubFigure

from retina_codec.models.model import RetinaModel
from retina_codec.plot.kernels import filters
from retina_codec.plot.mode_maps import dictionary as draw_dictionary
from retina_codec.plot.style import figure_for, heat_size, settle_ticks, styled

ROW = 1.9  # inches that a row of filters takes


@styled
def dictionary_with_filters(
    dictionary: xr.DataArray,
    model: RetinaModel,
    *,
    layer: str,
    figure: Figure | SubFigure | None = None,
) -> dict[str, Any]:
    """Draw which channels each mode is a team of, and below it the filters of these channels.

    Parameters
    ----------
    dictionary : DataArray
        ``modes.dictionary`` of this layer, with the dim `channel`.
    model : RetinaModel
        The model that was decomposed.
    layer : str
        Name of its layer with the filters, such as `BNCNN`'s ``"conv1"``.
    figure : matplotlib Figure or SubFigure, optional
        Where to draw; by default a new one.

    Returns
    -------
    dict
        ``"dictionary"``: the Axes of the heat map; ``"filters"``: the Axes of
        `retina_codec.plot.filters`.

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        If the dictionary has other channels than the layer.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> import retina_codec as rc
    >>> from retina_codec import plot
    >>> model = rc.models.BNCNN((12, 12), history=20, bin_width=0.01, cells=["C1"])
    >>> atoms = xr.DataArray(np.eye(8), dims=("mode", "channel"))
    >>> sorted(plot.dictionary_with_filters(atoms, model, layer="conv1"))
    ['dictionary', 'filters']
    """
    n_channels = dictionary.sizes.get("channel") if isinstance(dictionary, xr.DataArray) else None
    known = isinstance(model, RetinaModel) and layer in model.layers
    weight = getattr(model.layer(layer), "weight", None) if known else None
    if n_channels is not None and weight is not None and len(weight) != n_channels:
        raise ValueError(
            f"dictionary has {n_channels} channels, but layer={layer!r} has {len(weight)}: give "
            "the layer that the modes are of"
        )
    n_modes = dictionary.sizes.get("mode", 1) if n_channels is not None else 1
    height = heat_size(n_modes, 1)[1]
    below = ROW * 1.6 * -(-(n_channels or 8) // 8)
    figure = figure_for(figure, (11.5, height + below))
    parts: Any = figure.subfigures(2, 1, height_ratios=[height, below])
    ax = parts[0].subplots()
    settle_ticks(ax)
    draw_dictionary(dictionary, ax=ax)
    grid: np.ndarray = filters(model, layer=layer, figure=parts[1])
    return {"dictionary": ax, "filters": grid}
