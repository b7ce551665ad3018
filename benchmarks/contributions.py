"""Contributions beside the public libraries for them, in one run.

    python benchmarks/contributions.py [retina] [resnet] [--repeats N] [--threads T]

For a BN-CNN of the retina (40 x 50 x 50, 8 and 8 channels, 5 cells, 20 steps, both convolutions)
and torchvision's ResNet-50 (16 block outputs, 10 steps, largest logit): milliseconds per time point
or image, the ratio of each contestant to ours (medians of runs in pairs), to the bare passes
through the network, peak memory, and the largest difference from ours at the same rule, relative to
the largest contribution.

Contestants, each on the plain network with the same weights that its users would have (`conv2d` on
stacked windows):
- Captum's `LayerConductance`, a call for each cell and layer, with the best of several batch
  settings;
- a literal twin: the formula with hooks, every step of every layer kept;
- the library of the paper (`bscope`), a call for each cell, where somebody installed it beside.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Callable

import numpy as np
import torch
import torchvision
import xarray as xr
from captum.attr import LayerConductance
from side_by_side import memory, seconds
from torch import Tensor, nn

import retina_codec as rc
from models import CELLS, HISTORY, SIZE, OnWindows

STEPS, IMAGES_STEPS = 20, 10
POINTS, THEIR_POINTS, IMAGES, THEIR_IMAGES, CAPTUMS_IMAGES = 512, 16, 16, 4, 2
RETINA_LAYERS = {"conv1": 0, "conv2": 4}


def retina() -> rc.Model:
    torch.manual_seed(0)
    model = rc.models.BNCNN(
        (SIZE, SIZE), history=HISTORY, bin_width=0.01, cells=[f"c{i}" for i in range(CELLS)]
    )
    with torch.no_grad():  # as trained ones are: their outputs move
        for norm in (model.network.norm1, model.network.norm2):
            norm.running_var.fill_(0.05)
            norm.bias.normal_()
    return model


def movie_of(points: int) -> xr.DataArray:
    values = np.random.default_rng(0).normal(size=(points + HISTORY - 1, SIZE, SIZE))
    time = rc.time_coordinate(np.arange(len(values)) * 0.01, 0.01)
    return xr.DataArray(values.astype("f4"), dims=("time", "y", "x"), coords={"time": time})


def windows_of(points: int) -> Tensor:
    frames = torch.from_numpy(movie_of(points).values)
    return frames.unfold(0, HISTORY, 1).movedim(-1, 1).contiguous()


# Contestants: each gives layer -> (sample, output, units)


def ours(model: rc.Model | nn.Module, data: object, layers: list[str], steps: int, rule: str,
         target: object = None) -> dict[str, np.ndarray]:  # fmt: skip
    method = rc.methods.IntegratedGradients(steps=steps, rule=rule)
    tree = rc.contributions(
        model, data, layers=layers, method=method, target=target, progress=False
    )
    return {name: tree[f"layers/{name}"]["contribution"].values for name in layers}


def captum(network: nn.Module, layers: dict[str, nn.Module], inputs: Tensor, steps: int,
           targets: list[Tensor | int], batch: int) -> dict[str, np.ndarray]:  # fmt: skip
    return {
        name: np.stack(
            [
                LayerConductance(network, layer)
                .attribute(
                    inputs, target=target, n_steps=steps, method="riemann_trapezoid",
                    internal_batch_size=batch,
                )
                .detach()
                .numpy()
                for target in targets
            ],
            1,
        )
        for name, layer in layers.items()
    }  # fmt: skip


def literal(network: nn.Module, layers: dict[str, nn.Module], inputs: Tensor, steps: int,
            targets: list[Tensor | int]) -> dict[str, np.ndarray]:  # fmt: skip
    """Sum the formula as it is written, trapezoid rule, one pass a step for all outputs."""
    kept: dict[str, list[tuple[Tensor, list[Tensor]]]] = {name: [] for name in layers}
    for k in range(steps + 1):
        here: dict[str, Tensor] = {}
        handles = [
            layer.register_forward_hook(
                lambda m, i, o, name=name, here=here: here.update({name: o}) or o.clone()
            )
            for name, layer in layers.items()
        ]
        outputs = network(inputs * (k / steps))
        for handle in handles:
            handle.remove()
        gradients = [
            torch.autograd.grad(_chosen(outputs, target), list(here.values()), retain_graph=True)
            for target in targets
        ]
        for i, name in enumerate(here):
            kept[name].append((here[name].detach(), [g[i] for g in gradients]))
    found = {}
    for name, nodes in kept.items():
        total = 0
        for (a, g), (b, h) in itertools.pairwise(nodes):
            total = total + torch.stack(
                [(x + y) / 2 * (b - a) for x, y in zip(g, h, strict=True)], 1
            )
        found[name] = total.numpy()
    return found


def papers(network: nn.Module, layers: dict[str, nn.Module], inputs: Tensor, steps: int,
           targets: list[int | None]) -> dict[str, np.ndarray]:  # fmt: skip
    import bscope

    parts = []
    for target in targets:
        scope = bscope.Scope(network, list(layers.values()))
        scope.use_int_grad(steps=steps)
        if target is None:
            scope.wrt_topk(k=1, softmax=False)
        else:
            scope.wrt_output_neuron(target)
        scope(inputs)
        parts.append([np.asarray(c) for c in scope.contributions])
        scope.inspector.remove_hooks()
    return {name: np.stack([p[i] for p in parts], 1) for i, name in enumerate(layers)}


def bare(network: nn.Module, first: nn.Module, inputs: Tensor, steps: int, n_outputs: int) -> None:
    """Run S + 1 passes forward, and backward to the first layer for every output."""
    for k in range(steps + 1):
        caught: list[Tensor] = []
        handle = first.register_forward_hook(
            lambda m, i, o, caught=caught: caught.append(o.detach().requires_grad_()) or caught[0]
        )
        outputs = network(inputs * (k / steps))
        handle.remove()
        for cell in range(n_outputs):
            torch.autograd.grad(outputs[:, cell].sum(), caught, retain_graph=cell + 1 < n_outputs)


def _chosen(outputs: Tensor, target: Tensor | int) -> Tensor:
    if isinstance(target, int):
        return outputs[:, target].sum()
    return outputs.gather(1, target[:, None]).sum()


def has_bscope() -> bool:
    try:
        import bscope  # noqa: F401
    except ImportError as error:
        print(f"  the paper's library is not here ({error})")
        return False
    return True


def compare(
    mine: Callable[[], object],
    n_mine: int,
    others: dict[str, Callable[[], object]],
    n_theirs: int,
    repeats: int,
) -> None:
    """Run ours right before each other one; print medians of milliseconds and of ratios."""
    mine()
    spent: list[float] = []
    for name, other in others.items():
        times, ratios = [], []
        for _ in range(repeats):
            first = seconds(mine) / n_mine
            times.append(seconds(other) / n_theirs)
            ratios.append(times[-1] / first)
            spent.append(first)
        print(
            f"  {name:34s} {1000 * statistics.median(times):9.1f} ms, "
            f"{statistics.median(ratios):6.1f} times as long "
            f"({min(ratios):.1f} to {max(ratios):.1f})",
            flush=True,
        )
    print(f"  {'ours':34s} {1000 * statistics.median(spent):9.1f} ms", flush=True)


def difference(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> str:
    """Relative difference of a layer's contributions, and that of the unit that differs most."""
    whole = max(
        float(np.linalg.norm(found[name] - values) / np.linalg.norm(values))
        for name, values in expected.items()
    )
    unit = max(
        float(np.abs(found[name] - values).max() / np.abs(values).max())
        for name, values in expected.items()
    )
    return f"{whole:.1e} (the unit that differs most, of the largest: {unit:.1e})"


def retina_bench(repeats: int, threads: int) -> None:
    model, names = retina(), list(RETINA_LAYERS)
    plain = OnWindows(model.network).eval()
    layers = {name: plain.layers[i] for name, i in RETINA_LAYERS.items()}
    windows, movie, few = windows_of(THEIR_POINTS), movie_of(POINTS), movie_of(THEIR_POINTS)
    cells: list[Tensor | int] = list(range(CELLS))
    print(f"BN-CNN, {CELLS} cells, {STEPS} steps, layers {', '.join(names)}; ms per time point")
    settings = {
        batch: seconds(
            lambda b=batch: captum(plain, {"conv2": layers["conv2"]}, windows, STEPS, [0], b)
        )
        for batch in (THEIR_POINTS, 4 * THEIR_POINTS, STEPS * THEIR_POINTS)
    }
    best = min(settings, key=lambda batch: settings[batch])
    print(f"  Captum's internal_batch_size: {best}, of {list(settings)}")
    network = model.network

    def passes() -> None:
        frames = torch.from_numpy(movie.values)[None]
        with torch.no_grad():
            network(frames)
        for start in range(0, POINTS, 64):
            segment = frames[:, start : start + 64 + HISTORY - 1]
            bare(network, model.layers["conv1"], segment, STEPS, CELLS)

    others: dict[str, Callable[[], object]] = {
        "captum": lambda: captum(plain, layers, windows, STEPS, cells, best),
        "literal twin": lambda: literal(plain, layers, windows, STEPS, cells),
    }
    if has_bscope():
        others["the paper's library"] = lambda: papers(
            plain, layers, windows, STEPS, list(range(CELLS))
        )
    mine = lambda: ours(model, movie, names, STEPS, "trapezoid")  # noqa: E731
    compare(mine, POINTS, others, THEIR_POINTS, repeats)
    compare(mine, POINTS, {"bare passes of our network": passes}, POINTS, repeats)
    # Kinks of ReLUs: in single precision a unit there may fall on either side. Judge by double.
    singles = {name: other() for name, other in others.items()}
    mine_single = {rule: ours(model, few, names, STEPS, rule) for rule in ("left", "trapezoid")}
    model.network.double()
    plain.double()
    few, windows = few.astype("f8"), windows.double()
    exact = {rule: ours(model, few, names, STEPS, rule) for rule in ("left", "trapezoid")}
    print("  relative difference from ours, both in double precision")
    # Im2col in double precision takes gigabytes: the smallest batches that Captum takes.
    found = captum(plain, layers, windows, STEPS, cells, 2 * THEIR_POINTS)
    print(f"    {'captum, left rule':26s} {difference(exact['left'], found)}")
    found = literal(plain, layers, windows, STEPS, cells)
    print(f"    {'literal twin':26s} {difference(exact['trapezoid'], found)}")
    print("  single precision, relative difference from ours in double")
    print(f"    {'ours':26s} {difference(mine_single['trapezoid'], exact['trapezoid'])}")
    for name, values in singles.items():
        rule = "left" if name == "captum" else "trapezoid"
        print(f"    {name:26s} {difference(values, exact[rule])}")
    for steps in (10, 50):
        mb = memory(_retina_run, steps, threads=threads)
        print(f"  peak memory of ours, {steps} steps: {mb:.0f} MB more", flush=True)


def _retina_run(steps: int) -> None:
    ours(retina(), movie_of(POINTS), list(RETINA_LAYERS), steps, "trapezoid")


def resnet_bench(repeats: int, threads: int) -> None:
    torch.manual_seed(0)
    network = torchvision.models.resnet50(weights=None).eval()
    names = [f"layer{i + 1}.{j}" for i, n in enumerate((3, 4, 6, 3)) for j in range(n)]
    layers = {name: network.get_submodule(name) for name in names}
    images = torch.randn(IMAGES, 3, 224, 224)
    with torch.no_grad():
        best = network(images).argmax(1)
    print(f"ResNet-50, {len(names)} blocks, {IMAGES_STEPS} steps; ms per image")

    def mine(n: int = IMAGES) -> dict[str, np.ndarray]:
        target = rc.targets.PerSample(best[:n].tolist())
        return ours(network, images[:n], names, IMAGES_STEPS, "trapezoid", target)

    def passes() -> None:
        """S + 1 passes forward, and backward to the first block, as many images as ours has."""
        for k in range(IMAGES_STEPS + 1):
            caught: list[Tensor] = []
            handle = layers[names[0]].register_forward_hook(
                lambda m, i, o, caught=caught: (
                    caught.append(o.detach().requires_grad_()) or caught[0].clone()
                )
            )
            outputs = network(images * (k / IMAGES_STEPS))
            handle.remove()
            torch.autograd.grad(outputs.gather(1, best[:, None]).sum(), caught)

    for parameter in network.parameters():
        parameter.requires_grad_(False)
    compare(mine, IMAGES, {"bare passes": passes}, IMAGES, repeats)
    few = images[:CAPTUMS_IMAGES]
    chosen = best[: len(few)]
    print("  relative difference from the literal twin")
    for precision in (torch.float64, torch.float32):
        network.to(precision)
        inputs, target = few.to(precision), rc.targets.PerSample(chosen.tolist())
        found = ours(network, inputs, names, IMAGES_STEPS, "trapezoid", target)
        twin = literal(network, layers, inputs.requires_grad_(), IMAGES_STEPS, [chosen])
        found = {name: values[:, None] for name, values in found.items()}
        print(f"    {precision!s:26s} {difference(found, twin)}", flush=True)
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    if has_bscope():
        theirs = images[:THEIR_IMAGES]
        others = {
            "the paper's library": lambda: papers(network, layers, theirs, IMAGES_STEPS, [None])
        }
        compare(mine, IMAGES, others, THEIR_IMAGES, repeats)
    others = {
        "captum, a call a layer": lambda: captum(
            network, layers, few, IMAGES_STEPS, [chosen], IMAGES_STEPS * len(few)
        )
    }
    compare(mine, IMAGES, others, CAPTUMS_IMAGES, 1)
    for steps in (10, 50):
        mb = memory(_resnet_run, steps, threads=threads)
        print(f"  peak memory of ours, {steps} steps: {mb:.0f} MB more", flush=True)


def _resnet_run(steps: int) -> None:
    torch.manual_seed(0)
    network = torchvision.models.resnet50(weights=None)
    images = torch.randn(2, 3, 224, 224)
    ours(network, images, ["layer1.0", "layer4.2"], steps, "trapezoid", rc.targets.TopK(1))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", default=["retina", "resnet"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} thread(s)", flush=True)
    if "retina" in options.what:
        retina_bench(options.repeats, options.threads)
    if "resnet" in options.what:
        resnet_bench(options.repeats, options.threads)


if __name__ == "__main__":
    main()
