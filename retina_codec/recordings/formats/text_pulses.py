"""Folders of text files in which ``stimulus.txt`` holds pulses: light steps, drifting gratings.

The pulses mark transitions, not frames; frames are laid evenly between them, so that every
transition is the edge of a bin.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from retina_codec._common.checks import magnitude
from retina_codec.recordings.assembly import Presentation, assemble, epoch_node
from retina_codec.recordings.binning import checked_marks
from retina_codec.recordings.formats.base import Format, Options, Read
from retina_codec.recordings.formats.text import (
    MARKS,
    Parameters,
    file_names,
    read_column,
    read_parameters,
    read_spikes,
    spike_files,
)
from retina_codec.recordings.plan import RepeatedFrames
from retina_codec.stimuli.rendered_light import grating_sequence

PULSES = "stimulus.txt"
GRATINGS = "directiongratingsequence"
# Light steps: the cycle of the course in which the layout is met, where the files tell no other.
STEP_LEVELS = (0.5, 1.0, 0.5, 0.0)
STEP_LABELS = ("gray", "on", "gray", "off")
USUAL_FRAME = 1 / 60
JITTER = 0.01  # of a step's duration, between trials
# Pixels of the rendered gratings are this many units of the parameter file wide.
GRATING_PIXEL = 24


def _has_pulses(path: Path) -> bool:
    return path.is_dir() and (path / PULSES).is_file() and not any(path.glob(f"{MARKS}*.txt"))


def _is_gratings(path: Path) -> bool:
    return _has_pulses(path) and _stimulus_type(path) == GRATINGS


def _is_steps(path: Path) -> bool:
    return _has_pulses(path) and _stimulus_type(path) is None


def _stimulus_type(folder: Path) -> str | None:
    names = [path.name for path in folder.glob("*.txt") if path.name != PULSES]
    try:
        return read_parameters(folder, names).stimulus_type
    except (OSError, ValueError):
        return ""


def _read_steps(folder: Path, options: Options) -> Read:
    """Light steps: a pulse at each transition, four steps a trial, the levels by convention."""
    files = spike_files(folder, file_names(folder), "<n>_SP")
    pulses = checked_marks(read_column(folder / PULSES, "stimulus"))
    n_steps = len(STEP_LEVELS)
    durations = _step_durations(pulses, n_steps)
    frame = _frame_interval(durations, options.bin_width)
    sizes = np.round(durations / frame).astype(int)
    n_trials = len(pulses) // n_steps
    # The last step has no end mark: it lasts as long as the others of its kind.
    edges = np.append(pulses, pulses[-1] + durations[-1])
    marks = np.concatenate(
        [
            np.linspace(a, b, sizes[i % n_steps], endpoint=False)
            for i, (a, b) in enumerate(pairwise(edges))
        ]
        + [edges[-1:]]
    )
    levels = np.tile(np.repeat(STEP_LEVELS, sizes), n_trials)
    movie = xr.DataArray(
        levels[:, None, None].astype(np.float32),
        dims=("time", "y", "x"),
        coords={
            "epoch": ("time", np.tile(np.repeat(STEP_LABELS, sizes), n_trials)),
            "y": ("y", [0], {"units": "pixel"}),
            "x": ("x", [0], {"units": "pixel"}),
        },
        attrs={"units": "1", "long_name": "light level, 0 = dark, 1 = full"},
    )
    trial = int(sizes.sum())
    plan = RepeatedFrames(tuple(range(0, n_trials * trial, trial)), trial)
    tree, notes = assemble(
        read_spikes(files, options.cells),
        [Presentation(movie, marks, plan, repeated="light_steps")],
        epochs=epoch_node(pulses, np.diff(edges), np.tile(STEP_LABELS, n_trials)),
        bin_width=options.bin_width,
    )
    shown = ", ".join(f"{a} {b:g}" for a, b in zip(STEP_LABELS, STEP_LEVELS, strict=True))
    return tree, [
        f"the levels are not in the files: steps are taken as {shown}, in this order, and frames "
        f"of {1000 * frame:.5g} ms are laid between the pulses",
        *notes,
    ]


def _step_durations(pulses: np.ndarray, n_steps: int) -> np.ndarray:
    """Mean duration of each step of the cycle; ValueError unless trials agree."""
    if len(pulses) % n_steps or len(pulses) < 2 * n_steps:
        raise ValueError(
            f"stimulus: {PULSES} has {len(pulses)} pulses; expected whole trials of {n_steps} "
            f"({', '.join(STEP_LABELS)}), at least two: cut it to whole trials"
        )
    own = np.append(np.diff(pulses), np.nan).reshape(-1, n_steps)
    durations = np.nanmean(own, axis=0)
    usual = np.nanmedian(own, axis=0)
    off = np.abs(own - usual) > JITTER * usual
    if off.any():
        trial, step = np.argwhere(off)[0]
        raise ValueError(
            f"stimulus: {PULSES}, step {step} of trial {trial} lasts {own[trial, step]:g} s, in "
            f"other trials {usual[step]:g} s; a pulse is missing or too many, or the cycle "
            f"does not have {n_steps} steps: correct the file"
        )
    return durations


def _frame_interval(durations: np.ndarray, bin_width: object) -> float:
    """Frame interval (seconds) of which all durations are whole multiples."""
    shortest = float(durations.min())
    wanted = USUAL_FRAME if bin_width is None else float(magnitude(bin_width, "s", "bin_width"))
    interval = shortest / max(1, round(shortest / wanted))
    frames = durations / interval
    if np.abs(frames - np.round(frames)).max() > 0.1:
        raise ValueError(
            f"bin_width: steps of {', '.join(f'{d:.5g}' for d in durations)} s are no whole "
            f"numbers of frames of {interval:.5g} s; give the frame interval with bin_width="
        )
    return interval


def _read_gratings(folder: Path, options: Options) -> Read:
    """Drifting gratings: a pulse at each period but the first; directions in even steps from 0."""
    names = file_names(folder)
    files = spike_files(folder, names, "<n>_SP")
    taken = {PULSES, *(path.name for path in files.values())}
    parameters = read_parameters(folder, [n for n in names if n not in taken])
    pulses = checked_marks(read_column(folder / PULSES, "stimulus"))
    shown, tables, start = [], [], 0
    for number, row in enumerate(_grating_rows(parameters), start=1):
        stop = start + row["n_cycles"] * row["n_directions"] * row["n_pulses"]
        if stop > len(pulses):
            break
        own = pulses[start:stop].reshape(-1, row["n_pulses"])
        presentation, table = _gratings(own, row, f"gratings_{number}")
        shown.append(presentation)
        tables.append(table)
        start = stop
    if start != len(pulses) or not shown:
        raise ValueError(
            f"stimulus: {PULSES} has {len(pulses)} pulses, but the parameter file asks for "
            f"{start if shown else 'another number'}; check that both belong together"
        )
    tree, notes = assemble(
        read_spikes(files, options.cells),
        shown,
        epochs=xr.concat(tables, dim="epoch"),
        bin_width=options.bin_width,
    )
    parameters.describe(tree)
    return tree, notes


def _grating_rows(parameters: Parameters) -> list[dict[str, Any]]:
    """Numbers of frames, directions and cycles of each stimulus of the parameter file."""
    columns: dict[str, list[int]] = {
        key: parameters.whole_numbers(key)
        for key in ("nangles", "period", "cycles", "preframeAngles", "duration")
    }
    widths = [parameters.decimals(key) for key in ("gratingwidthwhite", "gratingwidthblack")]
    square = parameters.decimals("squareWave")
    numbers = {len(values) for values in columns.values()} | {len(v) for v in (*widths, square)}
    if len(numbers) > 1:
        raise ValueError(
            f"{parameters.file} gives different numbers of values for its keys "
            f"({', '.join(columns)}, gratingwidthwhite, gratingwidthblack, squareWave); expected "
            "one a stimulus"
        )
    rows = []
    for i in range(numbers.pop()):
        periods, rest = divmod(columns["duration"][i], columns["period"][i])
        if rest or periods < 2:
            raise ValueError(
                f"{parameters.file} has duration {columns['duration'][i]} frames, which is not "
                f"two or more whole periods of {columns['period'][i]} frames"
            )
        rows.append(
            {
                "n_cycles": columns["cycles"][i],
                "n_directions": columns["nangles"][i],
                "n_pulses": periods - 1,
                "period": columns["period"][i],
                "gray": columns["preframeAngles"][i],
                "width": widths[0][i] + widths[1][i],
                "square": bool(square[i]),
                "shape": _shape(parameters),
            }
        )
    return rows


def _shape(parameters: Parameters) -> tuple[int, int]:
    """Pixels (y, x) of the rendered movie: the centre of the screen tells its size."""
    centre = [parameters.decimals(key)[0] for key in ("centerY", "centerX")]
    return (round(2 * centre[0] / GRATING_PIXEL), round(2 * centre[1] / GRATING_PIXEL))


def _gratings(
    pulses: np.ndarray, row: dict[str, Any], name: str
) -> tuple[Presentation, xr.Dataset]:
    """One stimulus: its movie with marks laid between pulses (presentation, pulse), its epochs."""
    n_shown, n_pulses = pulses.shape
    gray, period = row["gray"], row["period"]
    length = gray + (n_pulses + 1) * period
    # Frame numbers at which a pulse came, and the mean frame interval beyond the first and last.
    frames = (
        np.arange(n_shown)[:, None] * length + gray + (1 + np.arange(n_pulses))[None, :] * period
    )
    interval = float(np.polyfit(frames.ravel(), pulses.ravel(), 1)[0])
    first = pulses[0, 0] - frames[0, 0] * interval
    last = pulses[-1, -1] + (n_shown * length - frames[-1, -1]) * interval
    marks = np.interp(
        np.arange(n_shown * length + 1),
        np.r_[0, frames.ravel(), n_shown * length],
        np.r_[first, pulses.ravel(), last],
    )
    directions = np.arange(row["n_directions"]) * 360.0 / row["n_directions"]
    movie = grating_sequence(
        directions=directions.tolist(),
        n_cycles=row["n_cycles"],
        gray_before=gray * interval,
        spatial_period=row["width"],
        temporal_period=period * interval,
        duration=(n_pulses + 1) * period * interval,
        shape=row["shape"],
        pixel_size=GRATING_PIXEL,
        bin_width=interval,
        waveform="square" if row["square"] else "sine",
    )
    cycle = row["n_directions"] * length
    starts = tuple(range(0, n_shown * length, cycle))
    plan = RepeatedFrames(starts, cycle) if len(starts) > 1 else None
    duration = period * interval
    angle = np.tile(directions, row["n_cycles"])
    degrees = {"units": "degree", "long_name": "direction of motion"}
    number = np.repeat(np.arange(row["n_cycles"]), row["n_directions"])
    shared = {
        "direction": (angle, degrees),
        "cycle": (number, {"long_name": "number of the cycle"}),
        "stimulus": (np.full(n_shown, name), {"long_name": "node of the stimulus"}),
    }
    # The first period has no pulse of its own; responses are counted from the first pulse on.
    onset = epoch_node(pulses[:, 0] - duration, np.full(n_shown, duration), ["onset"] * n_shown,
                       **shared)  # fmt: skip
    response = pulses[:, -1] + duration - pulses[:, 0]
    grating = epoch_node(pulses[:, 0], response, ["grating"] * n_shown, **shared)
    table = xr.concat([onset, grating], dim="epoch").sortby("start")
    return Presentation(movie, marks, plan, once=name, repeated=name), table


TEXT_STEPS = Format(
    name="text_steps",
    expects=f"a folder with {PULSES} (a pulse at each step of the light) and <n>_SP_C<id>.txt",
    takes=("bin_width", "cells"),
    recognises=_is_steps,
    read=_read_steps,
)
TEXT_GRATINGS = Format(
    name="text_gratings",
    expects=f"a folder with {PULSES} (a pulse a period), a parameter file of the type {GRATINGS}, "
    "and <n>_SP_C<id>.txt",
    takes=("bin_width", "cells"),
    recognises=_is_gratings,
    read=_read_gratings,
)
