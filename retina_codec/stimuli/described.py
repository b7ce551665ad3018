"""Stimuli described by parameters, rendered where they are looked at.

Every frame is a function of its number alone, so a movie of any length costs no memory, and any
part of it, made alone, has the same bits as in the whole.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import quantities as pq
import xarray as xr

from retina_codec._common.checks import nearest_names, require_choice, require_count
from retina_codec._common.time import BIN_WIDTH_TOLERANCE
from retina_codec.stimuli.rendered_light import drifting_grating, grating_sequence, level_sequence
from retina_codec.stimuli.rendered_noise import seeded_noise
from retina_codec.stimuli.rendering import positive_number

KINDS: dict[str, Callable[..., xr.DataArray]] = {
    "seeded_noise": seeded_noise,
    "level_sequence": level_sequence,
    "drifting_grating": drifting_grating,
    "grating_sequence": grating_sequence,
}


def render(
    description: Mapping[str, Any],
    *,
    n_frames: int | None = None,
    bin_width: float | pq.Quantity | None = None,
) -> xr.DataArray:
    """Movie of a description, such as a YAML file holds; made where it is looked at.

    Parameters
    ----------
    description : mapping
        ``kind`` and the parameters of the function of that name: ``"seeded_noise"``,
        ``"level_sequence"``, ``"drifting_grating"`` or ``"grating_sequence"``.
    n_frames : int, optional
        Length of the movie, for a noise without one; other movies must have this length.
    bin_width : float or quantity, optional
        Duration of a frame in seconds, for a description without one. Where it states its own,
        that is used, and the two must agree within 2 %.

    Returns
    -------
    DataArray
        Lazy movie (time, y, x), float32: dask, in chunks along time of about 32 MB, each of which
        is made alone. ``attrs["description"]`` is the full description as JSON:
        ``render(json.loads(movie.attrs["description"]))`` gives the movie again.

    Raises
    ------
    TypeError
        If `description` is not a mapping, or a parameter is of the wrong kind.
    ValueError
        If kind or parameters are unknown, one is missing or out of range, or `n_frames` or
        `bin_width` contradict the description.

    Examples
    --------
    >>> import json
    >>> from retina_codec import stimuli
    >>> steps = {"kind": "level_sequence", "levels": [1, 0], "durations": 0.5, "shape": [1, 1]}
    >>> movie = stimuli.render(steps, bin_width=0.1)
    >>> movie.values.ravel().tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    >>> stimuli.render(json.loads(movie.attrs["description"])).identical(movie)
    True
    """
    if not isinstance(description, Mapping):
        raise TypeError(
            f"description is a {type(description).__name__}; expected a mapping with 'kind' and "
            "its parameters"
        )
    if "kind" not in description:
        raise ValueError(f"description has no 'kind'; expected one of {', '.join(KINDS)}")
    kind = description["kind"]
    require_choice(kind, list(KINDS), "description: kind")
    accepted = inspect.signature(KINDS[kind]).parameters
    parameters = {name: value for name, value in description.items() if name != "kind"}
    for name in parameters:
        if name not in accepted:
            raise ValueError(
                f"description: {kind} has no parameter {name!r}; {nearest_names(name, accepted)}"
            )
    if bin_width is not None:
        _agree_on_width(parameters, positive_number(bin_width, "s", "bin_width"))
    if n_frames is not None:
        n_frames = require_count(n_frames, 1, "n_frames")
        if "n_frames" in accepted:
            parameters.setdefault("n_frames", n_frames)
    missing = [
        name
        for name, accepts in accepted.items()
        if accepts.default is accepts.empty and name not in parameters
    ]
    if missing:
        raise ValueError(f"description: {kind} needs {', '.join(missing)}: add what is missing")
    movie = KINDS[kind](**parameters)
    if n_frames is not None and movie.sizes["time"] != n_frames:
        raise ValueError(
            f"n_frames={n_frames}, but the description gives {movie.sizes['time']} frames: correct "
            "the one that is wrong, or cut the movie with .isel(time=slice(...))"
        )
    return movie


def _agree_on_width(parameters: dict[str, Any], width: float) -> None:
    stated = positive_number(parameters.setdefault("bin_width", width), "s", "bin_width")
    if abs(stated - width) > BIN_WIDTH_TOLERANCE * stated:
        raise ValueError(
            f"bin_width={width:g} s, but the description says {stated:g} s: correct the one that "
            "is wrong, or leave one out"
        )
