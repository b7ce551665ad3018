"""Lightning's loop around a retina model: imported only when something is trained."""

from __future__ import annotations

import copy
import logging
import warnings
from typing import Any

import lightning
import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from retina_codec._common.progress import progress_counter
from retina_codec.models.model import RetinaModel
from retina_codec.models.segments import Segments, poisson_loss


class TrainingLoop(lightning.LightningModule):
    """Loss, optimiser and record of one training."""

    def __init__(
        self,
        model: RetinaModel,
        segments: Segments,
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
        """Give this epoch's mini-batches."""
        return DataLoader(self.segments, batch_size=None)

    def configure_optimizers(self) -> Any:
        """Adam under a one-cycle schedule, stepped every mini-batch."""
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
        """Tell the mini-batches which epoch they are cut for."""
        self.segments.epoch = self.current_epoch
        self._sum = [0.0, 0]

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the loss of one mini-batch; refuse one that is not finite."""
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
        """Score the validation part, and keep the weights if they are the best so far."""
        predicted = self._model.predict(self._validation["stimulus"])
        loss = float(
            poisson_loss(torch.from_numpy(predicted.values), self._counts, self._model.bin_width)
        )
        self.record.append((self._sum[0] / max(1, self._sum[1]), loss))
        if self.best is None or loss < self.best[0]:
            self.best = (loss, copy.deepcopy(self.network.state_dict()))
        if self.bar is not None:
            self.bar.set_postfix(validation_loss=f"{loss:.4f}")


def run_loop(loop: TrainingLoop, max_epochs: int, seed: int, progress: bool) -> None:
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
