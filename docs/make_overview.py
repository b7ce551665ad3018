"""Draw the figure of the README from the folder of a finished demo run.

    python docs/make_overview.py runs/demo --cell object_motion_0

One cell: its predicted rate, what each channel of a hidden layer contributed to it, and the modes
of that layer, named by what they carry.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.patches import Patch

import retina_codec as rc
from retina_codec.plot.style import LABEL_COLORS, PALE

EPOCHS = {
    "on_step": ("light on", "#F0E442"),
    "off_step": ("light off", "#56606B"),
    "grating": ("moving grating", "#56B4E9"),
    "bar": ("moving bar", "#009E73"),
    "still": ("still picture", "#CC79A7"),
}
ORDER = ("light", "motion", "mixed", "none")
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
}


def main() -> None:
    """Read the command line and write the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished demo run")
    parser.add_argument("--layer", default="relu2", help="hidden layer")
    parser.add_argument("--cell", help="ganglion cell; by default the one predicted best")
    parser.add_argument("--start", type=float, help="seconds; by default where most is shown")
    parser.add_argument("--duration", type=float, default=8.0, help="seconds")
    parser.add_argument("--modes", type=int, default=10, help="how many modes, strongest first")
    here = Path(__file__).parent / "images" / "overview.png"
    parser.add_argument("--output", type=Path, default=here, help="PNG file")
    options = parser.parse_args()
    figure = overview(options)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output, dpi=130)


def overview(options: argparse.Namespace) -> Figure:
    """Return the figure."""
    scores = rc.open_tree(options.run / "evaluation.nc")["trained"]["pearson_r"].load()
    cell = options.cell or str(scores["cell"].values[int(scores.argmax("cell"))])
    tree = rc.open_contributions(options.run / "contributions" / "trained.zarr")
    rate = tree["target"].sel(cell=cell).load()
    contribution = tree[f"layers/{options.layer}"]["contribution"].sel(cell=cell).load()
    contribution = contribution.sum("sign", keep_attrs=True)
    modes = rc.load_modes(options.run / "modes" / "trained" / options.layer)
    described = rc.open_tree(options.run / "descriptions.nc")[f"trained/{options.layer}"].load()
    start = most_shown(rate, options.duration) if options.start is None else options.start
    shown = slice(start, start + options.duration)
    rate, contribution = rate.sel(time=shown), contribution.sel(time=shown)
    loadings = modes.loadings.sel(cell=cell, time=shown)
    strongest = loadings.mean("time").argsort().values[::-1][: options.modes]
    loadings = loadings.isel(mode=strongest)
    labels = described.to_dataset()[["label", "subtype"]].sel(mode=loadings["mode"].values)
    rank = sorted(range(len(strongest)), key=lambda i: ORDER.index(str(labels["label"].values[i])))
    loadings, labels = loadings.isel(mode=rank), labels.isel(mode=rank)

    with mpl.rc_context(STYLE):
        n_channels, n_modes = contribution.sizes["channel"], loadings.sizes["mode"]
        heights = [0.16, 1.0, 0.19 * n_channels, 0.19 * n_modes]
        figure = Figure(figsize=(9.6, sum(heights) + 1.7), layout="constrained")
        axes = figure.subplots(4, 1, sharex=True, gridspec_kw={"height_ratios": heights})
        draw_epochs(axes[0], rate)
        seconds = rate["time"] - start
        axes[1].plot(seconds, rate, color="black", linewidth=1.2)
        axes[1].set(ylabel="rate (Hz)", ylim=(0, None))
        axes[1].set_title(f"Predicted firing rate of the simulated cell {cell}")
        heat = draw_rows(axes[2], seconds, contribution.transpose("channel", "time"), "RdBu_r")
        axes[2].set(ylabel="channel")
        axes[2].set_title(
            f"Contribution of each channel of layer {options.layer}: red raised the rate, blue "
            "lowered it"
        )
        figure.colorbar(heat, ax=axes[2], label="contribution\n(Hz)", pad=0.01, aspect=12)
        strength = draw_rows(axes[3], seconds, loadings.transpose("mode", "time"), "bone_r")
        figure.colorbar(strength, ax=axes[3], label="strength\n(1)", pad=0.01, aspect=12)
        name_modes(axes[3], labels)
        axes[3].set_title("Contribution modes of this cell: what they carry, and their numbers")
        axes[3].set(xlabel="time (s)", xlim=(0, options.duration))
        for ax in axes[:3]:
            ax.tick_params(axis="x", length=0)
    return figure


def most_shown(rate: xr.DataArray, duration: float) -> float:
    """Start of the stretch with most kinds of epochs, and among those with the liveliest rate."""
    onsets = rate["time"].values
    epochs = rate["epoch"].values.astype(str)
    best = (0.0, onsets[0])
    for start in np.arange(onsets[0], onsets[-1] - duration, 0.5):
        inside = (onsets >= start) & (onsets < start + duration)
        if inside.sum() * float(rate["time"].attrs["bin_width"]) < 0.98 * duration:
            continue  # a gap between blocks
        kinds = len(set(epochs[inside]) & set(EPOCHS))
        best = max(best, (kinds + float(rate.values[inside].std()) / 1000, float(start)))
    return best[1]


def draw_epochs(ax: mpl.axes.Axes, rate: xr.DataArray) -> None:
    """Draw what was shown, as a coloured band with a key."""
    names = rate["epoch"].values.astype(str)
    onsets = rate["time"].values - rate["time"].values[0]
    edges = [0, *(np.flatnonzero(names[1:] != names[:-1]) + 1), len(names) - 1]
    for first, last in itertools.pairwise(edges):
        color = EPOCHS.get(names[first], ("", PALE))[1]
        ax.axvspan(onsets[first], onsets[last], color=color, linewidth=0)
    ax.set(yticks=[], ylim=(0, 1))
    ax.spines[:].set_visible(False)
    key = [Patch(color=c, label=text) for name, (text, c) in EPOCHS.items() if name in names]
    key.append(Patch(color=PALE, label="in between"))
    ax.legend(
        handles=key,
        ncols=len(key),
        frameon=False,
        loc="lower left",
        bbox_to_anchor=(0, 0.9),
        handlelength=1,
        columnspacing=1.2,
        borderpad=0,
    )


def draw_rows(
    ax: mpl.axes.Axes, seconds: xr.DataArray, data: xr.DataArray, colors: str
) -> mpl.collections.QuadMesh:
    """Draw a heat map (row, time), symmetric about 0 where values have both signs."""
    values = data.values
    top = float(np.quantile(np.abs(values), 0.995)) or 1.0
    width = float(data["time"].attrs["bin_width"])
    edges = np.append(seconds.values, seconds.values[-1] + width)
    low = -top if (values < 0).any() else 0.0
    heat = ax.pcolormesh(
        edges,
        np.arange(len(values) + 1) - 0.5,
        values,
        cmap=colors,
        vmin=low,
        vmax=top,
        rasterized=True,
    )
    ax.set_yticks(range(len(values)), [str(name) for name in data[data.dims[0]].values])
    ax.invert_yaxis()
    ax.tick_params(axis="y", length=0, labelsize=8)
    return heat


def name_modes(ax: mpl.axes.Axes, labels: xr.Dataset) -> None:
    """Write what each mode carries in place of its number, in the colour of its label."""
    names = []
    for mode in labels["mode"].values:
        label, subtype = (str(labels[name].sel(mode=mode).values) for name in ("label", "subtype"))
        names.append(f"{label}: {subtype}  {mode}" if label != "none" else f"none  {mode}")
    ax.set_yticks(range(len(names)), names)
    for text, label in zip(ax.get_yticklabels(), labels["label"].values, strict=True):
        text.set_color(LABEL_COLORS.get(str(label), "black"))


if __name__ == "__main__":
    main()
