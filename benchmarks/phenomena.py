"""The battery of phenomena on trained networks, beside the known circuit that they learned from.

    python benchmarks/phenomena.py FOLDER [--circuit default] [--seeds 0 1 ...]

FOLDER is that of `benchmarks/recovery.py train`: networks trained on twenty minutes of a simulated
retina, and untrained ones. Each is shown every stimulus of `rc.phenomena`, as is the circuit; what
comes out is kept in FOLDER and not done twice. Printed as Markdown: how many cells each network
names the type of as their circuit does, by the rule of `rc.physiology.classify_cells`; and for each
index r over cells with the circuit's own, median over seeds and the range, with the interval over
cells of the first seed.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import recovery
import xarray as xr

import retina_codec as rc

KINDS = ("trained", "untrained")


def table_of(folder: Path, circuit: str, kind: str, seed: int) -> xr.DataTree | None:
    """Return the result of the battery, made if it is not there; None without the network."""
    job = recovery.Job(circuit, recovery.MINUTES, seed)
    if kind == "truth":
        path = folder / f"phenomena_{circuit}.nc"
    else:
        path = job.place(folder, f"phenomena_{kind}").with_suffix(".nc")
        if not job.place(folder, kind).exists():
            return None
    if not path.exists():
        model = (
            rc.simulation.circuit(circuit)
            if kind == "truth"
            else rc.load_model(job.place(folder, kind))
        )
        start = time.perf_counter()
        rc.save_tree(rc.phenomena(model), path)
        print(f"{circuit}, {kind}, seed {seed}: {time.perf_counter() - start:.0f} s", flush=True)
    return rc.open_tree(path).load()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--circuit", default="default")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    options = parser.parse_args()
    truth = table_of(options.folder, options.circuit, "truth", 0)
    specification = rc.simulation.read_specification(options.circuit)
    kinds = {cell: kind for cell, (kind, _) in specification.cells.items()}
    found: dict[str, dict[int, xr.Dataset]] = {kind: {} for kind in KINDS}
    rows = [["truth", "", *named(truth, kinds)]]
    for kind in KINDS:
        for seed in options.seeds:
            table = table_of(options.folder, options.circuit, kind, seed)
            if table is None:
                continue
            tables = {"truth": truth, kind: table}
            found[kind][seed] = rc.physiology.compare_phenomena(tables, reference="truth")
            rows.append([kind, str(seed), *named(table, kinds)])
    recovery.show(["network", "seed", "types named right", "wrong"], rows)
    heading = ["index", "spread of the truth", *(f"r {kind}" for kind in KINDS), "cells"]
    recovery.show(heading, [row(name, found) for name in truth["index"].values])
    values(truth, found)


def named(table: xr.DataTree, kinds: dict[str, str]) -> list[str]:
    """Cells whose type is that of the circuit, and the others with what they are called."""
    types = rc.physiology.classify_cells(table)["cell_type"]
    called = {str(cell): str(types.sel(cell=cell).values) for cell in types["cell"].values}
    wrong = [f"{cell}: {name}" for cell, name in called.items() if name != kinds[cell]]
    return [f"{len(called) - len(wrong)} of {len(called)}", "; ".join(wrong)]


def row(name: str, found: dict[str, dict[int, xr.Dataset]]) -> list[str]:
    texts, cells, spread = [], "", ""
    for kind in KINDS:
        each = {seed: one.sel(index=name).isel(compared=0) for seed, one in found[kind].items()}
        r = np.array([float(one["r"]) for one in each.values()])
        if not each or np.isnan(r).all():
            texts.append("-")
            continue
        first = next(iter(each.values()))
        spread = f"{float(first['spread']):.2g}"
        low, high = float(first["r_low"]), float(first["r_high"])
        over = f"{np.nanmin(r):.2f} to {np.nanmax(r):.2f}"
        texts.append(f"{np.nanmedian(r):.2f} ({over}; cells {low:.2f} to {high:.2f})")
        cells = cells or str(int(first["n_cells"]))
    return [f"`{name}`", spread, *texts, cells]


def values(truth: xr.DataTree, found: dict[str, dict[int, xr.Dataset]]) -> None:
    """Print the indices themselves by type: mean over cells and seeds."""
    of_type = [str(cell).rsplit("_", 1)[0] for cell in truth["cell"].values]
    types = list(dict.fromkeys(of_type))
    rows = []
    for name in truth["index"].values:
        sources = {"truth": [truth["value"].sel(index=name).values]}
        for kind in KINDS:
            sources[kind] = [
                one["value"].sel(source=kind, index=name).values for one in found[kind].values()
            ]
        for source, each in sources.items():
            if not each:
                continue
            means = [
                np.concatenate([one[np.array(of_type) == kind] for one in each]) for kind in types
            ]
            shown = [f"{np.nanmean(one):.3g}" if np.isfinite(one).any() else "-" for one in means]
            rows.append([f"`{name}`", source, *shown])
    recovery.show(["index", "source", *types], rows)


if __name__ == "__main__":
    main()
