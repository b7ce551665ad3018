"""Training a retina model on a recording, by lightning's loop."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import lightning
import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from tqdm import tqdm

from retina_codec._common.checks import require_at_least, require_dims
from retina_codec._common.progress import progress_counter
from retina_codec._common.provenance import provenance
from retina_codec._common.time import runs_of
from retina_codec.models.model import RetinaModel, training_node
from retina_codec.recordings import split

# Keeps the logarithm of the Poisson loss finite for a rate of zero.
SMALLEST_COUNT = 1e-6


def poisson_loss(rate: Tensor, counts: Tensor, bin_width: float) -> Tensor:
    """Mean negative log-likelihood of counts at ``rate * bin_width``, up to a constant."""
    expected = rate * bin_width
    return (expected - counts * torch.log(expected + SMALLEST_COUNT)).mean()


class _Segments(IterableDataset[tuple[Tensor, Tensor]]):
    """Mini-batches of contiguous stretches in random order, with a new cut every epoch.

    Stretches share the transform of their frames, and cutting at a random offset keeps their
    edges from always falling on the same frames.
    """

    def __init__(
        self, model: RetinaModel, node: xr.Dataset, n_segments: int, length: int, seed: int
    ) -> None:
        movie = model.samples(node["stimulus"])
        self.frames = movie.frames(0, node.sizes["time"])[0]
        counts = node["spike_count"].transpose("time", "cell").values.astype(np.float32)
        self.counts = torch.from_numpy(counts).to(model.device, model.dtype)
        self.past = model.history - 1
        self.runs = [run for run in runs_of(node) if run.stop - run.start >= model.history]
        longest = max(run.stop - run.start for run in self.runs) - self.past
        self.length = min(length, longest)
        self.n_segments = n_segments
        self.seed = seed
        self.epoch = 0

    def starts(self) -> np.ndarray:
        """First sample of each stretch of this epoch, in random order."""
        rng = np.random.default_rng([self.seed, self.epoch])
        starts = []
        for run in self.runs:
            spare = run.stop - run.start - self.past - self.length
            if spare < 0:
                continue
            offset = int(rng.integers(0, min(self.length, spare + 1)))
            starts.append(
                np.arange(run.start + self.past + offset, run.stop - self.length + 1, self.length)
            )
        return rng.permutation(np.concatenate(starts))

    def __len__(self) -> int:
        """Return the number of batches in an epoch at most."""
        n = sum((run.stop - run.start - self.past) // self.length for run in self.runs)
        return max(1, -(-n // self.n_segments))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        starts = self.starts()
        for i in range(0, len(starts), self.n_segments):
            chosen = starts[i : i + self.n_segments]
            frames = [self.frames[t - self.past : t + self.length] for t in chosen]
            counts = [self.counts[t : t + self.length] for t in chosen]
            yield torch.stack(frames), torch.cat(counts)


class _Training(lightning.LightningModule):
    """Loss, optimiser and record of one training."""

    def __init__(
        self,
        model: RetinaModel,
        segments: _Segments,
        validation: xr.Dataset,
        *,
        learning_rate: float,
        l1_rate: float,
        l2_weights: float,
    ) -> None:
        super().__init__()
        self.network = model.network
        self._model = model
        self.segments = segments
        self._validation = validation
        samples = model.samples(validation["stimulus"])
        counts = validation["spike_count"].sel(time=samples.coords["time"])
        self._counts = torch.from_numpy(counts.transpose("time", "cell").values.astype(np.float32))
        self._rates = (learning_rate, l1_rate, l2_weights)
        self._sum = [0.0, 0]
        self.record: list[tuple[float, float]] = []
        self.best: tuple[float, dict[str, Tensor]] | None = None
        self.bar: tqdm | None = None

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        return DataLoader(self.segments, batch_size=None)

    def configure_optimizers(self) -> Any:
        learning_rate, _, l2_weights = self._rates
        optimizer = torch.optim.Adam(
            self.network.parameters(), lr=learning_rate, weight_decay=l2_weights
        )
        steps = len(self.segments) * int(self.trainer.max_epochs or 1)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=learning_rate, total_steps=steps
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_epoch_start(self) -> None:
        self.segments.epoch = self.current_epoch
        self._sum = [0.0, 0]

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        frames, counts = batch
        rate = self.network(frames)
        loss = poisson_loss(rate, counts, self._model.bin_width)
        if not torch.isfinite(loss):
            raise ValueError(
                f"the training loss is {loss.item()} in epoch {self.current_epoch}: lower "
                f"learning_rate={self._rates[0]:g}, and check the stimulus for outliers"
            )
        self._sum[0] += float(loss.detach()) * len(counts)
        self._sum[1] += len(counts)
        if self.bar is not None:
            self.bar.update()
        return loss + self._rates[1] * rate.mean()

    def on_train_epoch_end(self) -> None:
        predicted = self._model.predict(self._validation["stimulus"])
        loss = float(
            poisson_loss(torch.from_numpy(predicted.values), self._counts, self._model.bin_width)
        )
        self.record.append((self._sum[0] / max(1, self._sum[1]), loss))
        if self.best is None or loss < self.best[0]:
            self.best = (loss, copy.deepcopy(self.network.state_dict()))
        if self.bar is not None:
            self.bar.set_postfix(validation_loss=f"{loss:.4f}")


def train(
    model: RetinaModel,
    node: xr.DataTree | xr.Dataset,
    *,
    validation: xr.DataTree | xr.Dataset | None = None,
    max_epochs: int = 20,
    learning_rate: float = 1e-2,
    n_segments: int = 8,
    segment_length: int = 64,
    l1_rate: float = 1e-4,
    l2_weights: float = 0.0,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """Train a retina model on a recording, in place.

    Poisson loss of ``rate * bin_width`` against spike counts; Adam under a one-cycle schedule;
    mini-batches of contiguous stretches, which never cross a block; after each epoch the loss on
    the validation blocks, and at the end the weights of the best epoch.

    Parameters
    ----------
    model : RetinaModel
        Its weights change; it is left in evaluation mode.
    node : xarray.DataTree or xarray.Dataset
        stimulus (time, [color,] y, x) and spike_count (time, cell), or a recording with a node
        ``train``.
    validation : xarray.DataTree or xarray.Dataset, optional
        The same for the validation; by default `split` cuts a tenth of `node` off, in contiguous
        stretches with gaps of the model's history.
    max_epochs : int
        Passes over the data.
    learning_rate : float
        Highest learning rate of the cycle.
    n_segments, segment_length : int
        Stretches in a mini-batch, and frames predicted in each.
    l1_rate : float
        Weight of the mean predicted rate in Hz, added to the loss.
    l2_weights : float
        Adam's weight decay.
    seed : int
        Of the order of the stretches and the noise in the network.
    progress : bool
        Show a progress bar.

    Returns
    -------
    xarray.Dataset
        Over ``epoch``: ``train_loss`` and ``validation_loss``, nats per bin and cell up to a
        constant; attrs say which epoch was kept.

    Raises
    ------
    ValueError
        If the data do not fit the model, no stretch fits into a block, or the loss is not finite
        (the model then keeps the weights of its best epoch).

    Examples
    --------
    >>> import numpy as np, retina_codec as rc, xarray as xr
    >>> movie = rc.stimuli.white_noise(n_frames=1500, shape=(1, 1), seed=0)
    >>> drive = np.convolve(movie.squeeze(), [0, 0, 1, 0.5], mode="full")[: len(movie)]
    >>> counts = np.random.default_rng(0).poisson(0.2 * np.exp(drive))[:, None]
    >>> node = xr.Dataset(
    ...     {"stimulus": movie, "spike_count": (("time", "cell"), counts)}, {"cell": ["a"]}
    ... )
    >>> model = rc.models.BNCNN.for_recording(node, history=8, channels=(2, 2))
    >>> history = rc.train(model, node, max_epochs=3, progress=False)
    >>> float(history.train_loss[-1]) < float(history.train_loss[0])
    True
    """
    for name, value in (
        ("max_epochs", max_epochs),
        ("n_segments", n_segments),
        ("segment_length", segment_length),
    ):
        require_at_least(value, 1, name)
    dataset = training_node(node)
    if validation is None:
        parts = split(dataset, gap=model.history)
        dataset, held_out = parts["train"].to_dataset(), parts["validation"].to_dataset()
    else:
        held_out = training_node(validation)
    for name, part in (("node", dataset), ("validation", held_out)):
        require_dims(part["spike_count"], ("time", "cell"), f"{name}: spike_count")
        if list(map(str, part["cell"].values)) != model.outputs.tolist():
            raise ValueError(
                f"{name} has the cells {list(part['cell'].values)}; the model has "
                f"{model.outputs.tolist()}: select them with .sel(cell=model.outputs)"
            )
    segments = _Segments(model, dataset, n_segments, segment_length, seed)
    loop = _Training(
        model,
        segments,
        held_out,
        learning_rate=learning_rate,
        l1_rate=l1_rate,
        l2_weights=l2_weights,
    )
    try:
        _fit(loop, max_epochs, seed, progress)
    finally:
        if loop.best is not None:
            model.network.load_state_dict(loop.best[1])
        model.network.eval()
    losses = np.array(loop.record)
    return xr.Dataset(
        {
            "train_loss": ("epoch", losses[:, 0]),
            "validation_loss": ("epoch", losses[:, 1]),
        },
        coords={"epoch": np.arange(len(losses))},
        attrs={
            "best_epoch": int(losses[:, 1].argmin()),
            "model_fingerprint": model.fingerprint,
            **provenance(
                max_epochs=max_epochs,
                learning_rate=learning_rate,
                n_segments=n_segments,
                segment_length=segment_length,
                l1_rate=l1_rate,
                l2_weights=l2_weights,
                seed=seed,
            ),
        },
    )


def _fit(loop: _Training, max_epochs: int, seed: int, progress: bool) -> None:
    """Run lightning's loop quietly, with a generator state of its own."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    devices = [loop._model.device.index or 0] if loop._model.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
            # The data are in memory: worker processes would only copy them.
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*`IterableDataset` has `__len__`.*")
            warnings.filterwarnings("ignore", message=".*LeafSpec.*")
            torch.manual_seed(seed)
            trainer = lightning.Trainer(
                max_epochs=max_epochs,
                accelerator="cuda" if devices else "cpu",
                devices=devices or 1,
                logger=False,
                enable_checkpointing=False,
                enable_model_summary=False,
                enable_progress_bar=False,
            )
            loop.network.train()
            n_steps = max_epochs * len(loop.segments)
            with progress_counter(n_steps, "train", shown=progress) as loop.bar:
                trainer.fit(loop)
    finally:
        logger.setLevel(level)
