"""Training and prediction of retina models, beside `conv2d` on windows and beside open-retina.

    python benchmarks/models.py [--repeats N] [--seconds S] [--threads T] [--no-race]

Prints
- one training step of a BN-CNN (40 x 50 x 50, 5 cells, 256 samples as 4 segments of 64): ours and
  the same network with `conv2d` on stacked windows, in both memory layouts (the windows are
  stacked before the clock starts): ratios of runs in pairs, their median; the largest difference
  of the gradients; the memory that each adds to a process of its own;
- the movie convolution alone, forward, and forward and backward;
- a race to a given validation loss on planted cells that no linear-nonlinear model fits: our
  BN-CNN and open-retina's core-readout (`ExampleCoreReadout`), one after the other in the same
  run on the same movie and mini-batches, each with the optimiser and learning rate of its package
  and no schedule: samples/s, seconds of training, memory. open-retina is left out, and this is
  said, where it is not installed.
"""

from __future__ import annotations

import argparse
import copy
import time
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
from side_by_side import in_pairs, memory
from torch import Tensor, nn

import retina_codec as rc
from retina_codec.models.layers import MovieConvolution
from retina_codec.models.segments import poisson_loss

HISTORY, SIZE, CELLS, BIN_WIDTH = 40, 50, 5, 0.01
SEGMENTS, LENGTH = 4, 64
STEPS_BETWEEN = 10  # two looks at the validation movie


def bn_cnn(noise: float = 0.05, mean_rate: np.ndarray | None = None) -> nn.Module:
    model = rc.models.BNCNN(
        (SIZE, SIZE), history=HISTORY, bin_width=BIN_WIDTH, cells=[f"c{i}" for i in range(CELLS)],
        noise=noise,
    )  # fmt: skip
    if mean_rate is not None:  # as BNCNN.for_recording starts it
        with torch.no_grad():
            model.network.norm3.bias.copy_(torch.from_numpy(np.log(np.expm1(mean_rate))))
    return model.network


class OnWindows(nn.Module):
    """The same network on stacked windows: `conv2d` throughout."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        layers = [copy.deepcopy(layer) for layer in network.children()]
        for i, layer in enumerate(layers):
            if isinstance(layer, MovieConvolution):
                weight, bias = layer.weight.detach().flatten(1, 2), layer.bias.detach()
            elif isinstance(layer, nn.Conv2d):
                weight, bias = layer.weight.detach(), layer.bias.detach()
            else:
                continue
            layers[i] = nn.Conv2d(weight.shape[1], weight.shape[0], tuple(weight.shape[2:]))
            layers[i].load_state_dict({"weight": weight.clone(), "bias": bias.clone()})
        self.layers = nn.Sequential(*layers)

    def forward(self, windows: Tensor) -> Tensor:
        """Rates of windows (sample, lag, y, x)."""
        return self.layers(windows)


def windows_of(movie: Tensor) -> Tensor:
    return movie.unfold(1, HISTORY, 1).movedim(-1, 2).flatten(0, 1).contiguous()


def a_batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    movie = torch.randn(SEGMENTS, LENGTH + HISTORY - 1, SIZE, SIZE)
    return movie, torch.poisson(torch.full((SEGMENTS * LENGTH, CELLS), 0.2))


def step_of(network: nn.Module, inputs: Tensor, counts: Tensor) -> Callable[[], None]:
    """One step of training: forward, loss, backward, Adam."""
    network.train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        poisson_loss(network(inputs), counts, BIN_WIDTH).backward()
        optimizer.step()

    return step


def gradients(network: nn.Module, inputs: Tensor, counts: Tensor) -> list[Tensor]:
    network.train().zero_grad()
    poisson_loss(network(inputs), counts, BIN_WIDTH).backward()
    return [p.grad.flatten() for p in network.parameters()]


def largest(found: list[Tensor], expected: list[Tensor]) -> float:
    """Largest relative difference, but for biases before batch norm, whose gradient is rounding."""
    return max(
        float((a - b).norm() / b.norm())
        for a, b in zip(found, expected, strict=True)
        if b.norm() > 1e-6
    )


def _steps_of(kind: str) -> None:
    movie, counts = a_batch()
    network = bn_cnn()
    if kind == "ours":
        step = step_of(network, movie, counts)
    elif kind == "open-retina":
        step = step_of(OpenRetina(), movie, counts)
    else:
        step = step_of(OnWindows(network), windows_of(movie), counts)
    for _ in range(2):
        step()


def training_step(repeats: int, threads: int) -> None:
    movie, counts = a_batch()
    windows = windows_of(movie)
    last = windows.contiguous(memory_format=torch.channels_last)
    print(f"training step of a BN-CNN, {len(windows)} samples of {tuple(windows.shape[1:])}")
    network = bn_cnn(noise=0.0)
    ours = gradients(network, movie, counts)
    theirs = gradients(OnWindows(network), windows, counts)
    exact = gradients(bn_cnn(noise=0.0).double(), movie.double(), counts.double())
    # A unit at the kink of its ReLU falls on either side by rounding: judge each by the truth.
    print(
        "  gradients, largest relative difference of a parameter's: ours and conv2d "
        f"{largest(ours, theirs):.1e}; from double precision: ours {largest(ours, exact):.1e}, "
        f"conv2d {largest(theirs, exact):.1e}"
    )
    network = bn_cnn()
    in_pairs(
        step_of(network, movie, counts),
        {
            "conv2d on windows": step_of(OnWindows(network), windows, counts),
            "conv2d on windows, channels last": step_of(
                OnWindows(network).to(memory_format=torch.channels_last), last, counts
            ),
        },
        repeats,
    )
    for kind in ("ours", "conv2d on windows"):
        print(f"  {kind:34s} {memory(_steps_of, kind, threads=threads):8.0f} MB more at the peak")


def first_layer(repeats: int) -> None:
    movie, _ = a_batch()
    windows = windows_of(movie)
    layer = MovieConvolution(HISTORY, 8, (15, 15))
    plain = nn.Conv2d(HISTORY, 8, 15)
    plain.load_state_dict({"weight": layer.weight.detach().flatten(1, 2), "bias": layer.bias})
    upstream = torch.randn(len(windows), 8, SIZE - 14, SIZE - 14)
    with torch.no_grad():
        difference = (layer(movie) - plain(windows)).abs().max() / plain(windows).abs().max()
        print(f"first layer, forward (largest difference {float(difference):.1e} of the largest)")
        in_pairs(lambda: layer(movie), {"conv2d on windows": lambda: plain(windows)}, repeats)
    print("first layer, forward and backward")
    in_pairs(
        lambda: layer(movie).backward(upstream),
        {"conv2d on windows": lambda: plain(windows).backward(upstream)},
        repeats,
    )


# A race to a validation loss


def planted(n_frames: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """White noise of 5 x 5-pixel checks, and rates per bin of cells that pool squared subunits."""
    rng = np.random.default_rng(seed)
    checks = rng.choice([-1.0, 1.0], (n_frames // 2 + 1, 10, 10)).repeat(2, 0)[:n_frames]
    movie = checks.repeat(5, 1).repeat(5, 2).astype(np.float32)
    lag = np.arange(25)
    kernel = (lag / 5) ** 3 * np.exp(-lag / 2.5) - 0.5 * (lag / 8) ** 3 * np.exp(-lag / 3.5)
    kernel /= np.linalg.norm(kernel)
    filtered = np.apply_along_axis(lambda v: np.convolve(v, kernel)[:n_frames], 0, checks)
    cells = np.random.default_rng(1)  # the same in training and validation
    rates = []
    for _ in range(CELLS):
        y, x = cells.integers(2, 7, 2)
        pool = np.maximum(filtered[:, y : y + 2, x : x + 2], 0) ** 2
        rates.append(0.02 + 0.4 * pool.mean((1, 2)))
    return movie, np.stack(rates, 1).astype(np.float32)


class OpenRetina(nn.Module):
    """open-retina's core-readout on our segments, giving Hz for frames with a whole history."""

    def __init__(self) -> None:
        super().__init__()
        from openretina.models.core_readout import ExampleCoreReadout

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.model = ExampleCoreReadout(
                in_shape=(1, LENGTH + HISTORY - 1, SIZE, SIZE),
                hidden_channels=(16, 32),
                temporal_kernel_sizes=(21, 11),
                spatial_kernel_sizes=(11, 5),
                n_neurons_dict={"all": CELLS},
                cut_first_n_frames_in_core=0,  # the frames without a whole history are cut below
            )

    def forward(self, movie: Tensor) -> Tensor:
        """Rates of segments (segment, frame, y, x)."""
        rate = self.model(movie[:, None], "all")  # spikes per bin
        return rate[:, -(movie.shape[1] - HISTORY + 1) :].flatten(0, 1) / BIN_WIDTH

    def penalty(self) -> Tensor:
        """Return its own regularisation."""
        return self.model.core.regularizer() + self.model.readout.regularizer("all")


class Contestant:
    """A network, its optimiser, and how far it got."""

    def __init__(self, name: str, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.name, self.network, self.optimizer = name, network, optimizer
        self.seconds, self.samples, self.steps = 0.0, 0, 0
        self.best, self.reached = np.inf, None

    def train(self, batches: list[tuple[Tensor, Tensor]]) -> None:
        """Take one step with each mini-batch."""
        self.network.train()
        start = time.perf_counter()
        for movie, counts in batches:
            self.optimizer.zero_grad()
            rate = self.network(movie)
            loss = poisson_loss(rate, counts, BIN_WIDTH)
            if isinstance(self.network, OpenRetina):
                # Its loss is a sum over samples and cells, beside which its penalties stand.
                loss = loss + self.network.penalty() / counts.numel()
            loss.backward()
            self.optimizer.step()
            self.samples += len(counts)
            self.steps += 1
        self.seconds += time.perf_counter() - start

    def validate(self, movie: Tensor, counts: Tensor, target: float) -> None:
        """Note the loss on the validation movie, and when it is small enough."""
        self.network.eval()
        with torch.no_grad():
            loss = float(poisson_loss(self.network(movie[None]), counts, BIN_WIDTH))
        self.best = min(self.best, loss)
        if self.reached is None and loss <= target:
            self.reached = self.seconds


def mini_batches(movie: Tensor, counts: Tensor, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    rng = np.random.default_rng(seed)
    while True:
        starts = rng.integers(HISTORY - 1, len(movie) - LENGTH, SEGMENTS)
        yield (
            torch.stack([movie[t - HISTORY + 1 : t + LENGTH] for t in starts]),
            torch.cat([counts[t : t + LENGTH] for t in starts]),
        )


def race(limit: float, threads: int) -> None:
    movie, expected = (torch.from_numpy(a) for a in planted(12_000, seed=2))
    generator = torch.Generator().manual_seed(0)
    counts = torch.poisson(expected, generator)
    movie_v, expected_v = (torch.from_numpy(a) for a in planted(1_500, seed=3))
    counts_v, expected_v = (
        torch.poisson(expected_v, generator)[HISTORY - 1 :],
        expected_v[HISTORY - 1 :],
    )
    constant = float(poisson_loss(counts.mean(0).expand_as(counts_v), counts_v, 1.0))
    truth = float(poisson_loss(expected_v, counts_v, 1.0))
    target = constant - 0.5 * (constant - truth)
    print(
        f"race, validation loss in nats per bin and cell: constant rate {constant:.4f}, "
        f"true rate {truth:.4f}, to reach (half of the way) {target:.4f}"
    )
    torch.manual_seed(0)
    ours = bn_cnn(mean_rate=counts.mean(0).numpy())
    contestants = [
        Contestant("BN-CNN, ours", ours, torch.optim.Adam(ours.parameters(), lr=1e-2)),
    ]
    try:
        theirs = OpenRetina()
    except ImportError as error:
        print(f"  open-retina is not here ({error}): pip install openretina")
    else:
        # Its own optimiser and learning rate.
        optimizer = torch.optim.AdamW(theirs.parameters(), lr=0.01)
        contestants.append(Contestant("open-retina core-readout", theirs, optimizer))
        for kind in ("ours", "open-retina"):
            more = memory(_steps_of, kind, threads=threads)
            print(f"  {kind:28s} {more:7.0f} MB more at the peak of a step")
    for contestant in contestants:
        batches = mini_batches(movie, counts, seed=4)
        contestant.train([next(batches)])  # warm-up, which counts as training
        while contestant.seconds < limit and contestant.reached is None:
            contestant.train([next(batches) for _ in range(STEPS_BETWEEN)])
            contestant.validate(movie_v, counts_v, target)
        found = "not reached" if contestant.reached is None else f"{contestant.reached:.1f} s"
        print(
            f"  {contestant.name:28s} {contestant.samples / contestant.seconds:7.0f} samples/s; "
            f"target after {found}, {contestant.steps} steps; best {contestant.best:.4f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=120, help="of the race, for each")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-race", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} thread(s)")
    first_layer(options.repeats)
    training_step(options.repeats, options.threads)
    if not options.no_race:
        race(options.seconds, options.threads)


if __name__ == "__main__":
    main()
