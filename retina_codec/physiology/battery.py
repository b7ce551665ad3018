"""`phenomena`: the whole battery on a model or a recording, as one table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import xarray as xr

from retina_codec._common.checks import nearest_names
from retina_codec._common.progress import progress_bar
from retina_codec._common.provenance import provenance
from retina_codec.models.model import RetinaModel
from retina_codec.physiology.contrast_adaptation import ContrastGain, SlowAdaptation
from retina_codec.physiology.direction_selectivity import DirectionSelectivity
from retina_codec.physiology.flashed_bars import flashed_bars, receptive_field_centres
from retina_codec.physiology.frequency_doubling import FrequencyDoubling
from retina_codec.physiology.latency_coding import LatencyCoding
from retina_codec.physiology.motion_anticipation import MotionAnticipation
from retina_codec.physiology.motion_reversal import MotionReversal
from retina_codec.physiology.object_motion import ObjectMotion
from retina_codec.physiology.omitted_stimulus import OmittedStimulus
from retina_codec.physiology.paired_flash import PairedFlash
from retina_codec.physiology.phenomenon import Phenomenon
from retina_codec.physiology.polarity_reversal import PolarityReversal
from retina_codec.physiology.recorded import recorded_phenomena
from retina_codec.physiology.speed_tuning import SpeedTuning
from retina_codec.physiology.step_response import StepResponse
from retina_codec.recordings.nodes import chosen_cells
from retina_codec.stimuli.screen import Screen

PHENOMENA: dict[str, type[Phenomenon]] = {
    kind.name: kind
    for kind in (
        StepResponse,
        PairedFlash,
        OmittedStimulus,
        LatencyCoding,
        FrequencyDoubling,
        PolarityReversal,
        ContrastGain,
        SlowAdaptation,
        MotionAnticipation,
        MotionReversal,
        ObjectMotion,
        DirectionSelectivity,
        SpeedTuning,
    )
}
REST = 0.1  # seconds of grey that responses are compared with
GROUP = 2  # pixels: receptive fields nearer to each other are shown one movie
PIXEL_SIZE = 50.0  # um, of models that do not say


def phenomena(
    model_or_recording: RetinaModel | xr.DataTree,
    *,
    names: str | Phenomenon | Sequence[str | Phenomenon] | None = None,
    screen: Screen | None = None,
    cells: Iterable[object] | None = None,
    centres: xr.Dataset | None = None,
    grey: float = 0.0,
    contrast: float = 1.0,
    progress: bool = False,
) -> xr.DataTree:
    """Classical phenomena of vision in a model or a recording, as one table of indices.

    Parameters
    ----------
    model_or_recording : RetinaModel or DataTree
        A model, which is shown each stimulus: a trained network, an LN model, the known circuit.
        Or a recording: its nodes that show a stimulus of this battery (the movie of a phenomenon,
        simulated or shown), and its ``/epochs`` or nodes with the labels "on" and "off" (light
        steps), and "grating" or "bar" with a direction.
    names : str, phenomenon or sequence of them, optional
        Which: names, or phenomena with parameters of their own, such as
        ``rc.physiology.PairedFlash(intervals=(0.08,))``. By default all.
    screen : Screen, optional
        Pixels and their size. By default frames of the model's shape with the circuit's pixel
        size, or of 50 um.
    cells : iterable of str, optional
        Ids of the cells; by default all.
    centres : Dataset, optional
        `y`, `x` (cell), um from the middle: where stimuli that are shown to a cell's centre stand.
        By default found with flashed bars (`retina_codec.physiology.receptive_field_centres`).
    grey, contrast : float
        In the units of the movies that the model was made for, the mean grey, and what a contrast
        of 1 adds to it: 0 and 1 for the movies of `retina_codec.stimuli`.
    progress : bool
        Show a progress bar.

    Returns
    -------
    DataTree
        Root: `value` (cell, index), NaN where a phenomenon cannot be shown or a cell does not
        respond, and `reason` (cell, index) why; coordinates `phenomenon` and `units` along
        `index`. A node a phenomenon: its indices with units, `reason`, the responses by trial, and
        what the indices were computed from. ``centres``: the receptive fields, where needed.

    Raises
    ------
    TypeError
        If it is neither a model nor a recording.
    ValueError
        For an unknown name or cell, a screen of other pixels or frames than the model's, a model
        that takes any frames and no `screen`, or a recording that shows none of the stimuli.

    Examples
    --------
    >>> import retina_codec as rc
    >>> circuit = rc.simulation.circuit("default", shape=(14, 14))
    >>> found = rc.phenomena(circuit, names=["step_response", "slow_adaptation"])
    >>> bool(found["value"].sel(cell="off_sustained_0", index="on_off_index") < -0.5)
    True
    >>> str(found["reason"].sel(cell="off_sustained_0", index="slow_adaptation_index").values)
    'needs a memory of at least 2 s; the model sees the last 0.4 s'
    """
    chosen = chosen_phenomena(names)
    if isinstance(model_or_recording, xr.DataTree):
        recorded = recorded_phenomena(model_or_recording, chosen, cells)
        return _tabled(recorded, chosen, source="recording")
    if not isinstance(model_or_recording, RetinaModel):
        raise TypeError(
            f"model_or_recording is a {type(model_or_recording).__name__}; expected a RetinaModel "
            "or a recording (DataTree)"
        )
    model = model_or_recording
    shown = Shown(model, screen, cells, grey=grey, contrast=contrast)
    nodes: dict[str, xr.Dataset] = {}
    fit = {one.name: one.unfit(shown.screen, shown.memory) for one in chosen}
    centred = any(one.centred and not fit[one.name] for one in chosen)
    if centred:
        nodes["centres"] = shown.centres() if centres is None else centres_of(centres, shown.cells)
    for one in progress_bar(chosen, "phenomena", shown=progress):
        if fit[one.name]:
            nodes[one.name] = _impossible(one, fit[one.name], shown.cells)
        elif one.centred:
            nodes[one.name] = _at_centres(one, shown, nodes["centres"])
        else:
            nodes[one.name] = one.measure(shown.response(one.movie(shown.screen, lead=shown.lead)))
    return _tabled(
        nodes,
        chosen,
        source=type(model).__name__,
        model_fingerprint=model.fingerprint,
        pixel_size=shown.screen.pixel_size,
        grey=grey,
        contrast=contrast,
    )


def chosen_phenomena(names: Any) -> list[Phenomenon]:
    """Phenomena by name or as objects; all for None."""
    if names is None:
        return [kind() for kind in PHENOMENA.values()]
    listed = [names] if isinstance(names, str | Phenomenon) else list(names)
    if not listed:
        raise ValueError("names is empty; give at least one phenomenon, or None for all")
    found: list[Phenomenon] = []
    for name in listed:
        if isinstance(name, Phenomenon):
            found.append(name)
        elif name in PHENOMENA:
            found.append(PHENOMENA[name]())
        else:
            raise ValueError(f"names: no phenomenon {name!r}; {nearest_names(name, PHENOMENA)}")
    kinds = [one.name for one in found]
    if len(set(kinds)) < len(kinds):
        raise ValueError(f"names: {', '.join(kinds)}: give each phenomenon once")
    return found


class Shown:
    """A model, and the screen that it looks at."""

    def __init__(
        self,
        model: RetinaModel,
        screen: Screen | None,
        cells: Iterable[object] | None,
        *,
        grey: float,
        contrast: float,
    ) -> None:
        self.model = model
        self.screen = screen_of(model) if screen is None else _fitting(screen, model)
        self.cells = chosen_cells(model.outputs.tolist(), cells)
        self.memory = model.history * model.bin_width
        # Rest is seen by frames that have a whole history, of grey.
        self.lead = self.memory + REST
        self._grey, self._contrast = grey, contrast

    def response(self, movie: xr.DataArray) -> xr.DataArray:
        """Rates (time, cell) of the chosen cells to a movie in contrast."""
        rate = self.model.predict(self.in_units(movie)).sel(cell=self.cells)
        return rate.assign_coords(cell=rate["cell"])

    def in_units(self, movie: xr.DataArray) -> xr.DataArray:
        """Return a movie in the units that the model takes, with its color plane if it has one."""
        values = (self._grey + self._contrast * movie).assign_attrs(movie.attrs)
        values = values.assign_coords(movie.coords)
        shape = self.model.input_shape
        if shape is not None and len(shape) == 3:
            values = values.expand_dims(color=shape[0]).transpose("time", "color", "y", "x")
        return values.astype(np.float32)

    def centres(self) -> xr.Dataset:
        """Receptive fields of the chosen cells."""
        return receptive_field_centres(self.response(flashed_bars(self.screen, lead=self.lead)))


def screen_of(model: RetinaModel) -> Screen:
    """Return the screen of the model's own frames, or say that it has none."""
    if model.input_shape is None:
        raise ValueError(
            "screen is not given, and the model takes frames of any shape; give "
            "screen=rc.stimuli.Screen(shape=..., pixel_size=..., bin_width=...)"
        )
    field = getattr(model, "field", None)  # of a simulated retina
    size = PIXEL_SIZE if field is None else field.pixel_size
    height, width = model.input_shape[-2:]
    return Screen((height, width), size, model.bin_width)


def _fitting(screen: Screen, model: RetinaModel) -> Screen:
    shape = None if model.input_shape is None else tuple(model.input_shape[-2:])
    if shape is not None and tuple(screen.shape) != shape:
        raise ValueError(
            f"screen has {screen.shape[0]} x {screen.shape[1]} pixels; the model takes "
            f"{shape[0]} x {shape[1]}"
        )
    if not np.isclose(screen.bin_width, model.bin_width):
        raise ValueError(
            f"screen has frames of {screen.bin_width:g} s; the model was made for "
            f"{model.bin_width:g} s"
        )
    return screen


def centre_groups(
    centres: xr.Dataset, screen: Screen
) -> Iterator[tuple[tuple[float, float], list[str]]]:
    """Places (y, x) in um, and the cells whose receptive fields are nearest to each."""
    step = GROUP * screen.pixel_size
    places: dict[tuple[float, float], list[str]] = {}
    for cell, y, x in zip(
        centres["cell"].values, centres["y"].values, centres["x"].values, strict=True
    ):
        if np.isfinite(y) and np.isfinite(x):
            place = (float(step * np.round(y / step)), float(step * np.round(x / step)))
            places.setdefault(place, []).append(str(cell))
    yield from places.items()


def _at_centres(one: Phenomenon, shown: Shown, centres: xr.Dataset) -> xr.Dataset:
    """Measure each cell on the movie that stands at its receptive field."""
    parts = []
    for place, cells in centre_groups(centres, shown.screen):
        rate = shown.response(one.movie(shown.screen, lead=shown.lead, centre=place))
        parts.append(one.measure(rate.sel(cell=cells)))
    lost = [str(cell) for cell in shown.cells if not any(cell in p["cell"].values for p in parts)]
    if lost:
        told = "no receptive field found to show it at: no flashed bar is answered"
        parts.append(_impossible(one, told, lost))
    joined = xr.concat(parts, "cell", join="outer", combine_attrs="override", data_vars="all")
    return joined.sel(cell=shown.cells).assign_attrs(parts[0].attrs)


def centres_of(centres: Any, cells: list[str]) -> xr.Dataset:
    """Return the given receptive fields of these cells, or say what they lack."""
    if not isinstance(centres, xr.Dataset) or not {"y", "x"} <= set(centres.data_vars):
        raise TypeError("centres: expected a Dataset with y(cell) and x(cell) in um")
    missing = [cell for cell in cells if cell not in centres["cell"].values]
    if missing:
        raise ValueError(f"centres has no cell {', '.join(map(repr, missing))}")
    return centres.sel(cell=cells)


def _impossible(one: Phenomenon, reason: str, cells: Sequence[str]) -> xr.Dataset:
    """NaN for all cells, with the reason."""
    variables: dict[str, Any] = {
        name: ("cell", np.full(len(cells), np.nan), {"units": unit, "long_name": text})
        for name, (unit, text) in one.indices.items()
    }
    variables["reason"] = ("cell", [reason] * len(cells), {"long_name": "why a number is NaN"})
    return xr.Dataset(
        variables,
        coords={"cell": list(cells)},
        attrs={**provenance(**asdict(one)), "phenomenon": one.name, "source": one.source},
    )


def _tabled(
    nodes: Mapping[str, xr.Dataset], chosen: Sequence[Phenomenon], **made: Any
) -> xr.DataTree:
    """Lay the indices of all nodes side by side."""
    values, reasons, names, kinds, units = [], [], [], [], []
    cells = None
    for one in chosen:
        if one.name not in nodes:
            continue
        node = nodes[one.name]
        cells = node["cell"] if cells is None else cells
        for name, (unit, _) in one.indices.items():
            if name not in node:
                continue
            value = node[name].values
            values.append(value)
            reasons.append(np.where(np.isnan(value), node["reason"].values, ""))
            names.append(name)
            kinds.append(one.name)
            units.append(unit)
    root = xr.Dataset(
        {
            "value": (
                ("cell", "index"),
                np.stack(values, axis=1),
                {"long_name": "index, in the units of its coordinate"},
            ),
            "reason": (
                ("cell", "index"),
                np.stack(reasons, axis=1).astype(str),
                {"long_name": "why a number is NaN"},
            ),
        },
        coords={
            "cell": cells,
            "index": names,
            "phenomenon": ("index", kinds),
            "units": ("index", units),
        },
        attrs=provenance(function="phenomena", **made),
    )
    return xr.DataTree.from_dict({"/": root, **{f"/{k}": v for k, v in nodes.items()}})
