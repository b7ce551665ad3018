"""Which figures a run gets, drawn and written as PNG and SVG."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from retina_codec import plot
from retina_codec._common.files import written_beside
from retina_codec._common.time import bin_width_of
from retina_codec.plot.stretches import drawn_runs
from retina_codec.plot.style import new_figure, off_screen, styled
from retina_codec.reporting.run import Run

DPI = 150
SECONDS_OF_RATES = 5.0
SECONDS_OF_MODES = 10.0
MOST_FRAMES = 7
REST = ("", "transition")


@dataclass(frozen=True)
class Picture:
    """A figure of the report: where it belongs, what it shows, and how to read it.

    `draw` makes the figure and returns its Axes, one or several.
    """

    section: str
    name: str
    title: str
    caption: str
    draw: Callable[[], Any]


def draw_figures(run: Run, folder: Path) -> dict[str, list[tuple[Picture, bytes]]]:
    """Draw all figures of a run into `folder`; give them with their PNG bytes, by section."""
    drawn: dict[str, list[tuple[Picture, bytes]]] = {}
    for picture in pictures(run):
        with off_screen():
            figure = np.ravel(picture.draw())[0].figure
        drawn.setdefault(picture.section, []).append((picture, _written(figure, folder, picture)))
    return drawn


def pictures(run: Run) -> Iterator[Picture]:
    """Say which figures the run has the data for."""
    yield from _of_recording(run)
    yield from _of_model(run)
    yield from _of_contributions(run)
    yield from _of_modes(run)
    if run.interneurons:
        yield Picture(
            "interneurons",
            "interneurons",
            "Model units against recorded interneurons",
            "Each point is one interneuron: the correlation of its potential with the hidden unit "
            "that follows it best, the unit chosen on the first half of the recording and scored "
            "on the second. Filled points are above their null (p < 0.05). Grey bars show the "
            "null: the same search with the recording shifted in time. A unit tells something "
            "about the retina only where the trained network stands above both its null and the "
            "untrained network.",
            partial(plot.interneuron_match, run.interneurons),
        )


def best_cell(run: Run) -> str:
    """Return the cell that the trained model predicts best."""
    return _ranked_cells(run)[0]


def _ranked_cells(run: Run) -> list[str]:
    scores = run.evaluation["trained"]["pearson_r"]
    order = np.argsort(-np.nan_to_num(scores.values, nan=-np.inf), kind="stable")
    return [str(cell) for cell in scores["cell"].values[order]]


def _of_recording(run: Run) -> Iterator[Picture]:
    node = run.decomposed
    if node is not None and node["stimulus"].sizes.get("y", 1) > 1:
        stimulus = node["stimulus"]
        yield Picture(
            "recording",
            "movie",
            "Frames of the movie",
            "Frames of the movie whose responses are decomposed below, with their onset"
            + (" and what they show." if "epoch" in stimulus.coords else "."),
            partial(plot.movie_frames, stimulus, times=_telling_times(stimulus)),
        )
    if run.reliability is not None:
        yield Picture(
            "recording",
            "reliability",
            "Agreement of repeats",
            "How well the cells repeat themselves. CC_max is the highest correlation that any "
            "model can reach with the mean response to this many repeats (bars: jackknife "
            "standard error); split-half r is the correlation of the means of random halves of "
            "the repeats.",
            partial(plot.reliability, run.reliability),
        )


def _of_model(run: Run) -> Iterator[Picture]:
    baseline = run.evaluation.get("ln")
    yield Picture(
        "model",
        "scores",
        "Prediction of held-out responses",
        "Pearson correlation of predicted and recorded responses, cell by cell, on movie that the "
        "models were not trained on. Error bars: 95 % intervals of a moving-block bootstrap over "
        "time. The black tick is the ceiling that the noise of the recording allows; without "
        "repeats there is none. A model that is no better than the LN baseline has learnt nothing "
        "beyond one filter a cell.",
        lambda: (
            plot.scores(
                run.evaluation["trained"],
                baseline=baseline,
                reliability=run.reliability,
                names=("trained network", "LN baseline"),
            ).figure
        ),
    )
    if run.held_out is not None and "trained" in run.predictions:
        yield Picture(
            "model",
            "predictions",
            "Recorded and predicted rates",
            "Responses (grey) and predictions (lines) of three cells: the one predicted best, the "
            "median one and the one predicted worst, in the stretch where the cells fire most.",
            partial(_predictions, run),
        )
    if run.training is not None:
        yield Picture(
            "model",
            "training",
            "Training",
            "Loss on the training data and on contiguous stretches held out for validation. The "
            "weights of the epoch at the dashed line were kept.",
            partial(plot.training, run.training),
        )
    layer = _first_kernels(run)
    if layer is not None:
        yield Picture(
            "model",
            "filters",
            f"Kernels of {layer}",
            "What each channel of the first layer looks at, as one map in space times one time "
            "course (their share of the kernel's energy in per cent). Red pixels count as the "
            "time course says, blue ones with the opposite sign; a time course that is positive "
            "shortly before the response prefers light in the red pixels.",
            partial(plot.filters, run.model, layer=layer),
        )


def _of_contributions(run: Run) -> Iterator[Picture]:
    tree = run.contributions.get("trained")
    if tree is None:
        return
    cell = best_cell(run)
    target = tree.to_dataset()["target"].load()
    active = target.sel(cell=cell) if "cell" in target.dims else target
    stretch = _busy_stretch(active.drop_vars("epoch", errors="ignore"), SECONDS_OF_MODES)
    for layer, node in tree["layers"].children.items():
        yield Picture(
            "contributions",
            f"contribution_{layer}",
            f"Contributions of {layer}",
            f"How much each channel of {layer} raised (red) or lowered (blue) the predicted rate "
            f"of cell {cell}, relative to a grey screen; above, the predicted rate. At every "
            "moment the rows add up to the difference between this rate and the rate at grey. "
            "The negative part is not inhibition: it is whatever kept the rate lower.",
            partial(_contribution, node.to_dataset(), target, cell, stretch),
        )


def _of_modes(run: Run) -> Iterator[Picture]:
    for layer, modes in run.modes.get("trained", {}).items():
        section = f"modes {layer}"
        description = run.descriptions.get(f"trained/{layer}")
        loadings = modes.loadings
        if description is not None:
            yield Picture(
                section,
                f"mode_features_{layer}",
                f"What the modes of {layer} follow",
                "Partial correlation of each mode with features of light and of motion: features "
                "of the other family are regressed out of both sides, so that what a mode owes "
                "to light that comes with motion does not count as motion. Dots: q < 0.05 against "
                "circular shifts in time, corrected for all modes and features. At the right, "
                "what the mode is called for it.",
                partial(plot.mode_features, description),
            )
        if "time" in loadings.dims:
            yield Picture(
                section,
                f"mode_timeline_{layer}",
                f"Modes of {layer} over time",
                "When each mode is active, below what was shown and what the cells are predicted "
                "to do. Modes are ordered by their share in the contributions; the colour of a "
                "number says what the mode carries.",
                partial(_timeline, run, loadings, description),
            )
        yield Picture(
            section,
            f"dictionary_{layer}",
            f"Teams: the modes of {layer}",
            "Which channels work together in each mode, with their positive contributions (left) "
            "and their negative ones (right), each column in units of its own spread.",
            partial(plot.dictionary, modes.dictionary),
        )
        if "cell" in loadings.dims:
            yield Picture(
                section,
                f"mode_cells_{layer}",
                f"Which modes of {layer} drive which cells",
                "Mean strength of each mode in the decomposition of each cell.",
                partial(plot.mode_cells, loadings),
            )
        selectivity = {
            name.split("/", 1)[0]: data
            for name, data in run.selectivity.items()
            if name.split("/", 1)[1] == layer
        }
        if selectivity:
            yield Picture(
                section,
                f"epoch_selectivity_{layer}",
                f"Modes of the population in {layer}, and kinds of epoch",
                "How well modes of the population tell one kind of epoch from all others (area "
                "under the ROC curve, 0.5 is chance): all that were assigned to it on one half of "
                "the epochs, scored on the other; 95 % intervals over epochs. An untrained network "
                "can come close: only the distance between the two is owed to what was learnt.",
                partial(plot.epoch_selectivity, selectivity, score="assigned"),
            )


def _contribution(
    layer: xr.Dataset, target: xr.DataArray, cell: str, stretch: tuple[float, float]
) -> np.ndarray:
    values = layer["contribution"].sel(time=slice(*stretch)).load()
    return plot.contribution(
        values,
        cell=cell if "cell" in values.dims else None,
        rate=target.sel(time=slice(*stretch)),
    )


@styled
def _predictions(run: Run) -> np.ndarray:
    ranked = _ranked_cells(run)
    chosen = dict.fromkeys([ranked[0], ranked[len(ranked) // 2], ranked[-1]])
    names = {"trained": "trained network", "ln": "LN baseline"}
    lines = {text: run.predictions[name] for name, text in names.items() if name in run.predictions}
    stretch = _busy_stretch(run.predictions["trained"], SECONDS_OF_RATES)
    node: Any = run.held_out
    node = node[["spike_count"]].sel(time=slice(*stretch)).load()
    axes = new_figure((9.0, 2.4 * len(chosen))).subplots(len(chosen), 1, squeeze=False)[:, 0]
    for cell, ax in zip(chosen, axes, strict=True):
        plot.prediction(lines, node, cell=cell, time=stretch, ax=ax)
        if ax is not axes[0]:
            ax.get_legend().remove()
        if ax is not axes[-1]:
            ax.set_xlabel("")
    return axes


def _timeline(run: Run, loadings: xr.DataArray, description: xr.Dataset | None) -> np.ndarray:
    node = run.decomposed
    tree = run.contributions.get("trained")
    target = None if tree is None else tree.to_dataset()["target"]
    stretch = _busy_stretch(loadings if target is None else target, SECONDS_OF_MODES)
    return plot.mode_timeline(
        loadings.sel(time=slice(*stretch)),
        stimulus=None if node is None else node["stimulus"].sel(time=slice(*stretch)).load(),
        rate=None if target is None else target.sel(time=slice(*stretch)).load(),
        description=description,
    )


def _busy_stretch(data: xr.DataArray, seconds: float) -> tuple[float, float]:
    """Return the stretch within a block that shows most kinds of epoch, then most activity."""
    length = max(1, round(seconds / bin_width_of(data)))
    activity = np.abs(data.transpose("time", ...).values).reshape(data.sizes["time"], -1).mean(1)
    labels = data["epoch"].values.astype(str) if "epoch" in data.coords else None
    best, stretch = (-1.0, -1.0), slice(0, length)
    for run in drawn_runs(data):
        for start in range(run.start, max(run.start + 1, run.stop - length + 1), length // 4 or 1):
            part = slice(start, min(start + length, run.stop))
            kinds = 0 if labels is None else len(set(labels[part]) - set(REST))
            # A short block must not win by its mean.
            rank = (float(kinds), float(activity[part].sum()))
            if rank > best:
                best, stretch = rank, part
    onsets = data["time"].values
    return float(onsets[stretch.start]), float(onsets[min(stretch.stop, len(onsets)) - 1])


def _telling_times(stimulus: xr.DataArray) -> list[float] | None:
    """Return a moment in the middle of the first epoch of each kind; None without epochs."""
    if "epoch" not in stimulus.coords:
        return None
    labels = stimulus["epoch"].values.astype(str)
    times = []
    for kind in [kind for kind in dict.fromkeys(labels) if kind not in REST][:MOST_FRAMES]:
        first = int(np.argmax(labels == kind))
        others = np.flatnonzero(labels[first:] != kind)
        stop = first + (int(others[0]) if others.size else len(labels) - first)
        times.append(float(stimulus["time"].values[(first + stop) // 2]))
    return times or None


def _first_kernels(run: Run) -> str | None:
    for name, module in run.model.layers.items():
        if getattr(getattr(module, "weight", None), "ndim", 0) == 5:
            return name
    return None


def _written(figure: Figure, folder: Path, picture: Picture) -> bytes:
    """Write PNG and SVG, the same bytes for the same figure; return the PNG."""
    stem = "".join(c if c.isalnum() or c in "._-" else "_" for c in picture.name)
    png = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "retina-codec"}):
        figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
        with written_beside(folder / f"{stem}.svg") as fresh:
            figure.savefig(fresh, format="svg", metadata={"Date": None})
    with written_beside(folder / f"{stem}.png") as fresh:
        fresh.write_bytes(png.getvalue())
    return png.getvalue()
