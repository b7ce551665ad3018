"""Contributions of all 16 blocks of ResNet-50 to 50,000 images of ImageNet, streamed to a store.

    python benchmarks/imagenet.py FOLDER STORE.zarr --weights IMAGENET1K_V2
        [--labels FILE --synsets meta.mat] [--steps S]
    torchrun --nproc-per-node 4 benchmarks/imagenet.py FOLDER STORE.zarr ...
    python benchmarks/imagenet.py --estimate N [--steps S] [--pairs P] [--threads T]

FOLDER holds a subfolder for each category, or the pictures of the validation set themselves, whose
labels are in FILE (`ILSVRC2012_validation_ground_truth.txt` with `meta.mat` of the same kit, or
`LOC_val_solution.csv` with `LOC_synset_mapping.txt`). Signs are split unit by unit and summed over
places; activations stand beside. A run that was killed is called again with the same arguments. The
processes that torchrun starts share one run, as do several machines with a disk that all see.

`--estimate N` needs no data: it runs N and 2 N random images of 224 x 224 pixels through random
weights, P times, takes the CPU time of an image from the difference (what a run costs at its start
falls out, and other work on the machine says less), and prints an ESTIMATE for 50,000 images.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from side_by_side import peak_memory

import retina_codec as rc

N_IMAGENET = 50_000
SIZE = 224


def decompose(
    model: rc.classifiers.Classifier, images: xr.DataArray, store: Path, steps: int
) -> xr.DataTree:
    """Stream contributions and activations of all blocks; go on where a run was killed."""
    return rc.contributions(
        model,
        images,
        split_sign=True,
        sum_over=("y", "x"),
        extras="activation",
        method=rc.methods.IntegratedGradients(steps=steps),
        store=store,
        progress=sys.stderr.isatty(),
    )


def run(given: argparse.Namespace) -> None:
    """Decompose the images of a folder."""
    model = rc.classifiers.resnet50(given.weights)
    images = rc.classifiers.open_images(
        given.folder,
        labels=given.labels,
        names=None if given.synsets is None else rc.classifiers.imagenet_names(given.synsets),
        preprocess=model.preprocess,
    )
    tree = decompose(model, images, given.store, given.steps)
    print(f"{tree.sizes['image']} images, {len(tree['layers'])} layers in {given.store}")


def random_run(n: int, steps: int, store: Path) -> float:
    """Decompose random images with random weights, and return the seconds of CPU it took."""
    pixels = np.random.default_rng(0).integers(0, 256, (n, 3, SIZE, SIZE), dtype=np.uint8)
    images = rc.classifiers.open_images(pixels, dims=("image", "color", "y", "x"))
    model = rc.classifiers.resnet50()
    start = time.process_time()
    decompose(model, images, store, steps)
    return time.process_time() - start


def size_of(store: Path) -> int:
    """Bytes of a store."""
    return sum(path.stat().st_size for path in store.rglob("*") if path.is_file())


def estimate(given: argparse.Namespace) -> None:
    """Measure few images, and print what 50,000 would take."""
    n, steps = given.estimate, given.steps
    torch.set_num_threads(given.threads)
    per_image, bytes_per_image = [], []
    with tempfile.TemporaryDirectory() as folder:
        random_run(1, 1, Path(folder, "warm.zarr"))
        for pair in range(given.pairs):
            few, many = Path(folder, f"few{pair}.zarr"), Path(folder, f"many{pair}.zarr")
            shorter, longer = random_run(n, steps, few), random_run(2 * n, steps, many)
            per_image.append((longer - shorter) / n)
            bytes_per_image.append((size_of(many) - size_of(few)) / n)
    one, size = statistics.median(per_image), statistics.median(bytes_per_image)
    print(
        f"measured: ResNet-50, 16 blocks, {SIZE} x {SIZE}, {steps} steps, random weights and "
        f"images, {given.threads} thread(s), {given.pairs} pair(s) of {n} and {2 * n} images\n"
        f"  {one:.2f} s of CPU an image ({min(per_image):.2f} to {max(per_image):.2f}), "
        f"{size / 1e3:.0f} kB an image, peak memory {peak_memory():.0f} MB\n"
        f"ESTIMATE, extrapolated and not run, for {N_IMAGENET} images:\n"
        f"  {N_IMAGENET * one / 3600:.0f} hours of one core, divided by the number of processes "
        f"that have a core each; {N_IMAGENET * size / 1e9:.1f} GB\n"
        "Reading and decoding the pictures comes on top."
    )


def main(arguments: list[str] | None = None) -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("store", nargs="?", type=Path)
    parser.add_argument("--weights", help="name of torchvision's, or a file; random without")
    parser.add_argument("--labels")
    parser.add_argument("--synsets", help="meta.mat, a mapping of synsets, or a folder of them")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--estimate", type=int, metavar="N")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    if given.estimate is not None:
        estimate(given)
    elif given.store is None:
        parser.error("give FOLDER and STORE.zarr, or --estimate N")
    else:
        run(given)


if __name__ == "__main__":
    main()
