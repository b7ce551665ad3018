"""Light modes and motion modes silenced: what is lost of light and of motion responses.

    python benchmarks/silencing.py run NETWORKS FOLDER [--kinds trained untrained] [--seeds 0 1 2]
    python benchmarks/silencing.py phenomena NETWORKS FOLDER [--kinds ...] [--seeds ...]
    python benchmarks/silencing.py pairs NETWORKS FOLDER [--kinds ...] [--seeds ...]
    python benchmarks/silencing.py tables FOLDER

NETWORKS holds what `benchmarks/recovery.py train` made of the default circuit in 20 minutes
(folders `trained_0`, `untrained_0`, ...). For each network: modes are fitted to contributions
during one probe movie, called light or motion on a second one, and silenced during a third one,
all together and beside random units of equal contribution; the same for the channels that weigh
most in the light and in the motion modes. `phenomena` then silences those channels during three
classical stimuli, shown in the middle of the field, and `pairs` every pair of channels of the
first layer, to see where those two stand among them. What is in FOLDER is not done twice. One
thread.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

import numpy as np
import torch
import xarray as xr

import retina_codec as rc

LAYERS = ("relu1", "relu2")
METHOD = rc.methods.IntegratedGradients(steps=4)
N_MODES, K = 24, 2
N_CHANNELS = {"relu1": 2, "relu2": 4}  # a quarter of the layer
N_CONTROLS = 5
PHENOMENA = (
    rc.physiology.StepResponse(),
    rc.physiology.DirectionSelectivity(),
    rc.physiology.ObjectMotion(),
)
RESPONSES = {"light": ["on_step", "off_step"], "motion": ["grating", "bar"]}
PROBE = {"n_cycles": 1, "epoch_duration": 0.6, "transition": 0.2}
SILENCED_PROBE = {"n_cycles": 1, "epoch_duration": 0.5, "transition": 0.1}


def probe(model: rc.models.RetinaModel, seed: int, **options: float) -> xr.DataArray:
    return rc.stimuli.probe_movie(seed=seed, shape=model.input_shape, **(options or PROBE))


def contributions(model: rc.models.RetinaModel, movie: xr.DataArray) -> xr.DataTree:
    return rc.contributions(
        model,
        movie,
        layers=LAYERS,
        method=METHOD,
        split_sign=True,
        sum_over=("y", "x"),
        progress=False,
    )


def weights(modes: rc.Modes, chosen: list[int]) -> xr.DataArray:
    """How much each channel weighs in some modes: their atoms, by share of the energy."""
    atoms = abs(modes.dictionary).sum("sign")
    share = modes.loadings["energy_share"]
    return (atoms * share).sel(mode=chosen).sum("mode") / share.sel(mode=chosen).sum()


def told_apart(modes: rc.Modes, movie: xr.DataArray, loadings: xr.DataArray) -> xr.Dataset:
    features = rc.stimulus_features(movie)
    return rc.describe_modes(loadings, features, max_lag=0.3, n_draws=500)


def chosen_modes(described: xr.Dataset, family: str) -> tuple[list[int], str]:
    """Modes with a label; where there is none, the one that comes nearest."""
    labelled = described["mode"].values[described["label"].values == family].tolist()
    if labelled:
        return labelled, f"{len(labelled)} modes"
    other = {"light": "motion", "motion": "light"}[family]
    more = (described[f"{family}_effect"] - described[f"{other}_effect"]).fillna(-1)
    return [int(described["mode"].values[int(more.values.argmax())])], "none labelled; the nearest"


def run(model: rc.models.RetinaModel, layer: str, trees: dict[str, xr.DataTree]) -> xr.Dataset:
    name = f"layers/{layer}"
    modes = rc.fit_modes(
        trees["fit"][name]["contribution"], n_modes=N_MODES, k=K, seed=0, progress=False
    )
    loadings = modes.transform(trees["label"][name]["contribution"])
    described = told_apart(modes, probe(model, 1), loadings)
    interventions, about = {}, {}
    for family in RESPONSES:
        chosen, said = chosen_modes(described, family)
        about[f"{family}_modes"] = f"{said} ({', '.join(map(str, chosen))})"
        interventions[f"{family} modes"] = rc.ablate(
            model, layer, modes=modes, mode=chosen, method=METHOD
        )
        ranked = weights(modes, chosen)
        best = np.argsort(-ranked.values, kind="stable")[: N_CHANNELS[layer]]
        about[f"{family}_channels"] = ", ".join(map(str, sorted(best.tolist())))
        about[f"{family}_weights"] = ranked.values.round(4).tolist()
        interventions[f"{family} channels"] = rc.ablate(
            model, layer, channels=ranked["channel"].values[best]
        )
    pair = [np.array(about.pop(f"{family}_weights")) for family in RESPONSES]
    cosine = float(pair[0] @ pair[1] / np.linalg.norm(pair[0]) / np.linalg.norm(pair[1]))
    without = rc.interventions.responses_without(
        model,
        probe(model, 2, **SILENCED_PROBE),
        interventions,
        n_controls=N_CONTROLS,
        progress=False,
    )
    found = rc.interventions.silencing_effects(without, RESPONSES)
    counts = {f"n_{label}": int((described["label"] == label).sum())
              for label in ("light", "motion", "mixed", "none")}  # fmt: skip
    return found.assign_attrs(
        **about, **counts, cosine=cosine, r2=float(modes.score()["mean_r2"]), layer=layer
    )


def phenomena(model: rc.models.RetinaModel, found: xr.Dataset) -> list[str]:
    """Change of each index without the channels of light and of motion modes: rows of a table."""
    layer = str(found.attrs["layer"])
    made = {}
    for family in RESPONSES:
        channels = [int(c) for c in str(found.attrs[f"{family}_channels"]).split(", ")]
        made[f"{family} channels"] = rc.ablate(model, layer, channels=channels)
    screen = rc.stimuli.Screen(shape=model.input_shape)
    rows = []
    for phenomenon in PHENOMENA:
        without = rc.interventions.responses_without(
            model,
            phenomenon.movie(screen, lead=model.history * model.bin_width + 0.1),
            made,
            n_controls=N_CONTROLS,
            method=METHOD,
            progress=False,
        )
        effects = rc.interventions.index_effects(without, phenomenon.measure)
        for name in phenomenon.indices:
            before = effects[name].sel(intervention="nothing")
            row = [name, str(effects[name].attrs["units"]), str(int(before.notnull().sum())),
                   f"{float(abs(before).mean()):.2f}"]  # fmt: skip
            for label in made:
                at = effects.sel(silenced=label)
                row += [interval(at, f"{name}_mean_change"), spread(at[f"{name}_control_change"])]
            rows.append(f"| {' | '.join(row)} |")
    return rows


def pairs(model: rc.models.RetinaModel, layer: str) -> xr.DataArray:
    """Silence every pair of a layer's channels during the third probe: their selectivities."""
    movie = probe(model, 2, **SILENCED_PROBE)
    chosen = list(itertools.combinations(range(4 * N_CHANNELS[layer]), 2))
    names = [", ".join(map(str, pair)) for pair in chosen]
    before = model.predict(movie)
    after = [rc.ablate(model, layer, channels=pair).predict(movie) for pair in chosen]
    rest = model.predict(xr.zeros_like(movie[: model.history])).isel(time=0, drop=True)
    without = xr.Dataset(
        {
            "response": xr.concat([before, *after], "intervention"),
            "at_baseline": rest,
        },
        {"intervention": ["nothing", *names], "silenced": names},
        {"model_fingerprint": model.fingerprint, "parameters": "{}"},
    )
    return rc.interventions.silencing_effects(without, RESPONSES, n_draws=20)["selectivity"]


def tables(folder: Path) -> None:
    """Print one table a layer: losses and controls, then selectivity and dissociation."""
    found = {path.stem: xr.open_dataset(path).load() for path in sorted(folder.glob("*.nc"))}
    for name, one in found.items():
        print(f"\n### {name}: modes light {one.attrs['n_light']}, motion {one.attrs['n_motion']}, "
              f"mixed {one.attrs['n_mixed']}, none {one.attrs['n_none']}; "
              f"held-out r2 {one.attrs['r2']:.2f}; cosine of channel weights "
              f"{one.attrs['cosine']:.2f}; channels light {one.attrs['light_channels']}, "
              f"motion {one.attrs['motion_channels']}")  # fmt: skip
        print("| silenced | removed | light lost | its controls | motion lost | its controls | "
              "light less motion | its controls |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
        for label in one["silenced"].values:
            at = one.sel(silenced=label)
            cells = [str(label), f"{float(at['removed']):.2f}"]
            for response in RESPONSES:
                cells.append(interval(at.sel(response=response), "mean_loss"))
                cells.append(spread(at["mean_control_loss"].sel(response=response)))
            cells += [interval(at, "selectivity"), spread(at["control_selectivity"])]
            print(f"| {' | '.join(cells)} |")
        for kind in ("modes", "channels"):
            both = one.sel(silenced=f"light {kind}", other=f"motion {kind}")
            print(f"dissociation of {kind}: {interval(both, 'dissociation')}")


def interval(one: xr.Dataset, name: str) -> str:
    low, high = float(one[f"{name}_low"]), float(one[f"{name}_high"])
    return f"{float(one[name]):.2f} ({low:.2f} to {high:.2f})"


def spread(draws: xr.DataArray) -> str:
    return f"{float(draws.mean()):.2f} ({float(draws.min()):.2f} to {float(draws.max()):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=("run", "phenomena", "pairs", "tables"))
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--kinds", nargs="+", default=["trained", "untrained"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--layers", nargs="+", default=list(LAYERS), choices=LAYERS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    folder = given.folders[-1]
    if given.stage == "tables":
        tables(folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    if given.stage == "pairs":
        for kind, seed in itertools.product(given.kinds, given.seeds):
            if (given.folders[0] / f"{kind}_{seed}").exists():
                model = rc.load_model(given.folders[0] / f"{kind}_{seed}")
                print(f"\n### {LAYERS[0]}_{kind}_{seed}")
                print(pairs(model, LAYERS[0]).to_series().sort_values().round(2).to_string())
        return
    if given.stage == "phenomena":
        for path in sorted(folder.glob("*.nc")):
            layer, kind, seed = path.stem.split("_")
            if layer in given.layers and kind in given.kinds and int(seed) in given.seeds:
                model = rc.load_model(given.folders[0] / f"{kind}_{seed}")
                rows = phenomena(model, xr.open_dataset(path).load())
                print(f"\n### {path.stem}")
                print("| index | units | cells | mean size | change without light channels | its "
                      "controls | without motion channels | its controls |")  # fmt: skip
                print("|---|---|---|---|---|---|---|---|", *rows, sep="\n", flush=True)
        return
    for seed in given.seeds:
        for kind in given.kinds:
            todo = [
                layer
                for layer in given.layers
                if not (folder / f"{layer}_{kind}_{seed}.nc").exists()
            ]
            if not todo or not (given.folders[0] / f"{kind}_{seed}").exists():
                continue
            model = rc.load_model(given.folders[0] / f"{kind}_{seed}")
            start = time.perf_counter()
            trees = {
                "fit": contributions(model, probe(model, 0)),
                "label": contributions(model, probe(model, 1)),
            }
            print(f"{kind}_{seed}: contributions {time.perf_counter() - start:.0f} s", flush=True)
            for layer in todo:
                start = time.perf_counter()
                found = run(model, layer, trees)
                found.to_netcdf(folder / f"{layer}_{kind}_{seed}.nc")
                took = time.perf_counter() - start
                print(f"{layer}_{kind}_{seed}: {took:.0f} s", flush=True)


if __name__ == "__main__":
    main()
