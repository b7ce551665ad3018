"""How receptive fields of a trained and an untrained network change while modes are on.

    python benchmarks/mode_fields.py FOLDER [--frames 3000] [--seed 0]

FOLDER is that of `benchmarks/recovery.py train`. For each network: contributions of its hidden
layers to six cells on a natural movie, modes of them, and, on another movie that neither modes nor
network saw, the receptive fields of each cell while a mode is on (`mode_conditioned_field`). Says
for how many of the tested pairs of cell and mode the field changes, and of which kind the changes
are; what differs between the networks is learned. Writes `fields_KIND_SEED.nc` in FOLDER, which is
not computed twice.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import xarray as xr

import retina_codec as rc

KINDS = ("trained", "untrained")
CELLS = (
    "off_sustained_0", "on_transient_0", "off_transient_0", "on_off_0", "object_motion_0",
    "direction_selective_0",
)  # fmt: skip
METHOD = rc.methods.IntegratedGradients(steps=4)
N_MODES, N_PAIRS, N_SHIFTS = 16, 6, 99


def movies(n_frames: int) -> dict[str, xr.DataArray]:
    """Natural movies: left parts of the photographs to fit modes on, right parts to judge on."""
    left, right = rc.stimuli.split_images(rc.stimuli.photographs())
    screen = rc.stimuli.Screen(shape=(24, 24))
    return {
        "fit": screen.natural_movie(left, n_frames=n_frames, seed=11),
        "test": screen.natural_movie(right, n_frames=n_frames, seed=12),
    }


def contributions(model: rc.Model, movie: xr.DataArray) -> dict[str, xr.DataArray]:
    tree = rc.contributions(
        model,
        movie,
        target=rc.targets.Output(CELLS),
        method=METHOD,
        split_sign=True,
        sum_over=("y", "x"),
        progress=False,
    )
    return {name: node["contribution"] for name, node in tree["layers"].children.items()}


def frequent_pairs(loadings: xr.DataArray) -> list[tuple[int, int]]:
    """Modes that are on together most often."""
    on = (loadings.values > 0).reshape(-1, loadings.sizes["mode"])
    together = np.triu(on.T.astype(float) @ on, 1)
    order = np.argsort(-together, axis=None)[:N_PAIRS]
    return [tuple(map(int, np.unravel_index(i, together.shape))) for i in order]


def fields(model: rc.RetinaModel, n_frames: int, seed: int) -> xr.Dataset:
    shown = movies(n_frames)
    modes = rc.fit_modes(
        contributions(model, shown["fit"]), n_modes=N_MODES, k=2, seed=seed, progress=False
    )
    loadings = modes.transform(contributions(model, shown["test"]))
    return rc.physiology.mode_conditioned_field(
        model,
        shown["test"],
        loadings.transpose("time", "cell", "mode"),
        cells=CELLS,
        together=frequent_pairs(loadings),
        n_shifts=N_SHIFTS,
        progress=False,
    )


def describe(kind: str, found: xr.Dataset) -> None:
    tested = found["change"].notnull()
    changed = (found["change_q_value"] < 0.05) & tested
    flips = (found["similarity"] < 0) & (found["similarity_q_value"] < 0.05)
    print(f"\n{kind}: {int(tested.sum())} pairs of cell and condition tested; q < .05 for")
    for name in ("change", "similarity", "gain", "shift", "stretch"):
        significant = (found[f"{name}_q_value"] < 0.05) & tested
        values = found[name].where(significant)
        chance = float(found[f"{name}_null"].median())
        print(
            f"  {name}: {int(significant.sum())}, median {float(values.median()):.2f} "
            f"({float(values.min()):.2f} to {float(values.max()):.2f}); all pairs "
            f"{float(found[name].median()):.2f}, by chance {chance:.2f}"
        )
    print(f"  polarity flips (similarity < 0): {int(flips.sum())}")
    for cell in found["cell"].values:
        one = found.sel(cell=cell)
        if not bool(changed.sel(cell=cell).any()):
            print(f"  {cell}: none")
            continue
        least = one["similarity"].fillna(np.inf).argmin("condition")
        at = one.isel(condition=int(least))
        print(
            f"  {cell}: {int(changed.sel(cell=cell).sum())} of {int(tested.sel(cell=cell).sum())}; "
            f"least like the mean field in condition {at['condition'].item()}: similarity "
            f"{float(at['similarity']):.2f} (by chance {float(at['similarity_null']):.2f}), "
            f"gain {float(at['gain']):.2f}, rate {float(at['rate']):.1f} Hz, shift "
            f"{float(at['shift']):.0f} um, stretch {float(at['stretch']):.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--frames", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    for kind in KINDS:
        path = given.folder / f"fields_{kind}_{given.seed}.nc"
        if not path.exists():
            start = time.perf_counter()
            model = rc.load_model(given.folder / f"default_20min/{kind}_{given.seed}")
            rc.save_tree(fields(model, given.frames, given.seed), path)
            print(f"{kind}: {time.perf_counter() - start:.0f} s", flush=True)
        describe(kind, rc.open_tree(path).to_dataset().load())


if __name__ == "__main__":
    main()
