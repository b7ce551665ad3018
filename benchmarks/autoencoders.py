"""Training throughput of TopK autoencoders, beside the package `overcomplete`.

    python benchmarks/autoencoders.py [--samples N] [--runs R]

The same data, sizes, batch size and number of epochs, one thread each, in pairs. Ours is the
training of `fit_modes`, with the loss on samples kept aside and the revival of dead modes; theirs
is `train_sae` with monitoring off, from a DataLoader (as its documentation shows) and from a
generator of shuffled batches, which is faster. The whole of `fit_modes`, with its scores and the
loadings of all samples, is timed too. `overcomplete` needs an older matplotlib (< 3.9): an
environment of its own, with this package on its path.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
import torch
import xarray as xr
from side_by_side import in_pairs

from retina_codec.modes import fit_modes
from retina_codec.modes.held_out import held_out_stretches, stretches_aside
from retina_codec.modes.network import Network, Settings
from retina_codec.modes.rows import Rows, Survey, TrainingRows
from retina_codec.modes.scaling import ColumnScaling
from retina_codec.modes.training import STEPS_AN_EPOCH, fit_network

SIZES = ((16, 24, 2), (16, 64, 4), (128, 512, 8))  # columns, modes, k
EPOCHS = 5
TRAINED = 0.8  # of the samples; the others are scored, or say when to stop


class Shuffled:
    """Mini-batches of a tensor's rows in random order, without a DataLoader's work for each row."""

    def __init__(self, rows: torch.Tensor, size: int) -> None:
        self.rows, self.size = rows, size

    def __iter__(self) -> Iterator[torch.Tensor]:
        for ids in torch.randperm(len(self.rows)).split(self.size):
            yield self.rows[ids]


def planted(n: int, columns: int, modes: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    atoms = rng.normal(size=(modes // 2, columns))
    strength = rng.random((n, modes // 2)) < 0.05
    return (strength @ atoms + 0.02 * rng.normal(size=(n, columns))).astype(np.float32)


def compare(n: int, columns: int, modes: int, k: int, runs: int) -> None:
    from overcomplete.sae import TopKSAE, train_sae
    from torch.utils.data import DataLoader, TensorDataset

    values = planted(n, columns, modes)
    contribution = xr.DataArray(values, dims=("time", "channel"))
    rows = torch.from_numpy(values[: int(TRAINED * n)] / values.std())
    size = int(np.clip(len(rows) // STEPS_AN_EPOCH, *Network.batch_sizes))

    all_rows = Rows({"contribution": contribution}, ("channel",), 1e12)
    held_out = held_out_stretches(n, 0.1, 0)
    aside = stretches_aside(held_out, 0.1, 0)
    survey = Survey.of(all_rows, ~held_out & ~aside)
    training = TrainingRows(
        all_rows, ColumnScaling.fit(survey, "std"), ~held_out & ~aside, aside, survey.signs
    )
    settings = Settings(
        n_modes=modes,
        k=k,
        penalty=0,
        threshold=0,
        anneal=0,
        unit_norm=True,
        non_negative=False,
        decoder_bias=False,
    )

    def ours() -> None:
        fit_network(
            "topk",
            training,
            settings,
            seed=0,
            max_epochs=EPOCHS,
            learning_rate=None,
            device=torch.device("cpu"),
            progress=False,
        )

    def whole() -> None:
        fit_modes(
            contribution,
            features="channel",
            n_modes=modes,
            k=k,
            max_epochs=EPOCHS,
            scaling="std",
            progress=False,
        )

    def theirs(batches: object) -> None:
        sae = TopKSAE(columns, nb_concepts=modes, top_k=k)
        train_sae(
            sae,
            batches,
            lambda x, x_hat, pre_codes, codes, dictionary: (x - x_hat).square().mean(),
            torch.optim.Adam(sae.parameters(), lr=5e-3),
            nb_epochs=EPOCHS,
            monitoring=0,
        )

    loader = DataLoader(TensorDataset(rows), batch_size=size, shuffle=True)
    print(
        f"{columns} columns, {modes} modes, k={k}: {EPOCHS} epochs of {len(rows)} samples, "
        f"{size} a step ({EPOCHS * len(rows)} samples)"
    )
    in_pairs(
        ours,
        {
            "overcomplete, DataLoader": lambda: theirs(loader),
            "overcomplete, shuffled batches": lambda: theirs(Shuffled(rows, size)),
            "fit_modes, scores and loadings too": whole,
        },
        runs,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=60_000)
    parser.add_argument("--runs", type=int, default=5)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for columns, modes, k in SIZES:
        compare(chosen.samples, columns, modes, k, chosen.runs)


if __name__ == "__main__":
    main()
