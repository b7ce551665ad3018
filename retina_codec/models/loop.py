"""Lightning's loop around retina models: imported only when something is trained.

One model and its recording, or several models that share parameters and a recording for each: the
same loop, with one session or several.
"""

from __future__ import annotations

import copy
import csv
import io
import logging
import os
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
import xarray as xr
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from retina_codec._common.files import written_beside
from retina_codec._common.progress import progress_counter
from retina_codec.models.checkpoint_files import (
    checkpoint_files,
    epochs_in,
    find_checkpoint,
    read_checkpoint,
    require_same_run,
    write_checkpoint,
)
from retina_codec.models.model import RetinaModel
from retina_codec.models.segments import LOSSES, JointSegments, Segments
from retina_codec.models.weight_decay import parameter_groups

# The plateau schedule: so many epochs without a validation loss that is lower by this share, then
# the rate times this.
PLATEAU_EPOCHS = 3
PLATEAU_SHARE = 1e-4
PLATEAU_FACTOR = 0.5
COLUMNS = ("train_loss", "validation_loss", "learning_rate", "seconds")


@dataclass
class Session:
    """A model, what it is trained on and what it is scored on.

    `cells` are those that the loss is over (None: all); `label` says in messages whose the data
    are.
    """

    name: str
    label: str
    model: RetinaModel
    segments: Segments
    validation: xr.Dataset
    cells: list[int] | None

    def __post_init__(self) -> None:
        samples = self.model.samples(self.validation["stimulus"])
        counts = self.validation["spike_count"].sel(time=samples.coords["time"])
        self._counts = torch.from_numpy(counts.transpose("time", "cell").values.astype(np.float32))

    def loss(self, rate: Tensor, counts: Tensor, kind: str) -> Tensor:
        """Loss of predicted rates (bin, cell) of the cells that count."""
        return LOSSES[kind](self.scored(rate), self.scored(counts), self.model.bin_width)

    def scored(self, values: Tensor) -> Tensor:
        """Those of the cells that the loss is over."""
        return values if self.cells is None else values[:, self.cells]

    def validation_loss(self, kind: str) -> float:
        """Loss of the validation part."""
        predicted = self.model.predict(self.validation["stimulus"])
        return float(self.loss(torch.from_numpy(predicted.values), self._counts, kind))


class TrainingLoop(lightning.LightningModule):
    """Loss, optimiser, schedule and record of one training.

    `network` holds the networks of all `sessions`. `description` says what the weights in a
    checkpoint must fit, and `settings` are the arguments of the training by name, plain values.
    `joint` trainings tell and record the losses of each session.
    """

    def __init__(
        self,
        network: nn.Module,
        sessions: Sequence[Session],
        *,
        joint: bool,
        description: dict[str, Any],
        settings: dict[str, Any],
        log: str | os.PathLike[str] | None = None,
        progress: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.sessions = {session.name: session for session in sessions}
        self.joint = joint
        self.segments = JointSegments(
            {session.name: session.segments for session in sessions}, settings["seed"]
        )
        self.description = description
        self.settings = settings
        self._sums = dict.fromkeys(self.sessions, (0.0, 0))
        self._started = 0.0
        self._rate = 0.0
        self._schedule: Any = None
        # State that a checkpoint gave, for the start of the loop.
        self._restored: dict[str, Any] | None = None
        # Of each epoch: COLUMNS, and of a joint training the losses of each session.
        self.record: list[list[float]] = []
        self.best: tuple[float, dict[str, Tensor]] | None = None
        self.folder: Path | None = None
        # Where processes of their own leave what they learned, if no folder was given.
        self.room: Path | None = None
        self.log_file = None if log is None else Path(log)
        self.data = ""
        self._shown = progress
        self.spread = False
        self.bar: tqdm | None = None

    @property
    def columns(self) -> list[str]:
        """Names of the numbers that are recorded after each epoch."""
        each = [f"{name} of {session}" for name in COLUMNS[:2] for session in self.sessions]
        return [*COLUMNS, *(each if self.joint else [])]

    @property
    def n_done(self) -> int:
        """Epochs behind us, those before a resumption included."""
        return len(self.record)

    @property
    def best_epoch(self) -> int:
        """The epoch whose weights are kept."""
        return int(np.argmin([row[1] for row in self.record]))

    @property
    def is_over(self) -> bool:
        """Whether all epochs are done, or the validation loss has not fallen for long enough."""
        patience = self.settings["patience"]
        if self.n_done >= self.settings["max_epochs"]:
            return True
        return bool(patience and self.record and self.n_done - 1 - self.best_epoch >= patience)

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.network.load_state_dict(state["weights"])
        self.record = [list(row) for row in state["record"]]
        self.best = (self.record[self.best_epoch][1], state["best_weights"])
        self._restored = state

    def begin_log(self) -> None:
        """Write the log up to here; what an earlier run wrote after its checkpoint goes."""
        if self.log_file is None:
            return
        with written_beside(self.log_file) as fresh:
            fresh.write_text(
                _line(["epoch", *self.columns])
                + "".join(_line([epoch, *row]) for epoch, row in enumerate(self.record))
            )

    def train_dataloader(self) -> DataLoader[tuple[str, Tensor, Tensor]]:
        """Give this epoch's mini-batches."""
        return DataLoader(self.segments, batch_size=None)

    def configure_optimizers(self) -> Any:
        """Adam; weight decay on what multiplies inputs, not on offsets, gains and the like."""
        rate = self.settings["learning_rate"]
        groups = parameter_groups(self.network, self.settings["l2_weights"])
        optimizer = torch.optim.Adam(groups, lr=rate)
        if self.settings["schedule"] == "one_cycle":
            self._schedule = torch.optim.lr_scheduler.OneCycleLR(
                optimizer,
                max_lr=rate,
                total_steps=len(self.segments) * self.settings["max_epochs"],
            )
        elif self.settings["schedule"] == "plateau":
            self._schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer, factor=PLATEAU_FACTOR, patience=PLATEAU_EPOCHS, threshold_mode="abs"
            )
        if self._restored is not None:
            optimizer.load_state_dict(self._restored["optimizer"])
            if self._schedule is not None:
                self._schedule.load_state_dict(self._restored["schedule"])
        return optimizer

    def on_fit_start(self) -> None:
        """Take this process' part of the data and its random numbers."""
        rank, n_processes = self.global_rank, self.trainer.world_size
        self.segments.set_process(rank, n_processes)
        if self._restored is None:
            seed = self.settings["seed"]
            torch.manual_seed(seed if rank == 0 else _seed_of(seed, rank))
        else:
            self._set_generators(self._restored["generators"][rank])
        if self.trainer.is_global_zero:
            self.begin_log()
            total = self.settings["max_epochs"] * len(self.segments)
            self.bar = progress_counter(total, "train", shown=self._shown)
            self.bar.update(self.n_done * len(self.segments))

    def on_train_epoch_start(self) -> None:
        """Tell the mini-batches which epoch they are cut for."""
        self.segments.epoch = self.n_done
        self._sums = dict.fromkeys(self.sessions, (0.0, 0))
        self._started = time.perf_counter()

    def training_step(self, batch: tuple[str, Tensor, Tensor], batch_index: int) -> Tensor:
        """Return the loss of one mini-batch; refuse one that is not finite."""
        name, frames, counts = batch
        session = self.sessions[name]
        rate = session.model.network(frames)
        loss = session.loss(rate, counts, self.settings["loss"])
        if not torch.isfinite(loss):
            raise ValueError(
                f"the training loss{self._of(name)} is {loss.item()} in epoch {self.n_done}, "
                f"mini-batch {batch_index}: lower "
                f"learning_rate={self.settings['learning_rate']:g}, and check the stimulus for "
                f"outliers; {self._kept}"
            )
        total, n = self._sums[name]
        self._sums[name] = (total + float(loss.detach()) * len(counts), n + len(counts))
        if self.bar is not None:
            self.bar.update()
        loss = loss + self.settings["l1_rate"] * session.scored(rate).mean()
        if self.settings.get("l1_readout"):
            readout: Any = session.model
            loss = loss + self.settings["l1_readout"] * readout.readout_penalty(session.cells)
        return loss

    def _of(self, name: str) -> str:
        return f" of {name!r}" if self.joint else ""

    @property
    def _kept(self) -> str:
        if not self.record:
            return "the model keeps the weights it came with"
        kept = f"the model keeps the weights of epoch {self.best_epoch}"
        files = [] if self.folder is None else checkpoint_files(self.folder)
        return f"{kept}, and the last checkpoint is {files[-1]}" if files else kept

    def on_train_batch_end(self, *_: Any) -> None:
        """Step the one-cycle schedule."""
        self._rate = float(self.trainer.optimizers[0].param_groups[0]["lr"])
        if self.settings["schedule"] == "one_cycle":
            self._schedule.step()

    def on_train_epoch_end(self) -> None:
        """Score the validation part, keep the weights if they are the best, write what is asked."""
        losses = self._validate()
        for name, value in zip(self.sessions, losses, strict=True):
            if not np.isfinite(value):
                raise ValueError(
                    f"the validation loss{self._of(name)} is {value} after epoch {self.n_done}: "
                    f"lower learning_rate={self.settings['learning_rate']:g}, and check the "
                    f"validation stimulus for outliers; {self._kept}"
                )
        sums = torch.tensor(list(self._sums.values()), dtype=torch.float64)
        if self.trainer.world_size > 1:
            sums = self.trainer.strategy.reduce(sums.to(self.device), reduce_op="sum")
        train_losses = [total / max(1.0, n) for total, n in sums.tolist()]
        loss = float(np.mean(losses))
        if self.best is None or loss < self.best[0]:
            self.best = (loss, copy.deepcopy(self.network.state_dict()))
        seconds = time.perf_counter() - self._started
        each = [*train_losses, *losses] if self.joint else []
        self.record.append([float(np.mean(train_losses)), loss, self._rate, seconds, *each])
        if self.settings["schedule"] == "plateau":
            # Torch's own relative threshold would take any loss near a negative one for better.
            lowest = self._schedule.best
            self._schedule.threshold = PLATEAU_SHARE * abs(lowest) if np.isfinite(lowest) else 0.0
            self._schedule.step(loss)
        if self.is_over:
            self.trainer.should_stop = True
        if self.bar is not None:
            self.bar.set_postfix(validation_loss=f"{loss:.4f}")
        self._write()

    def _validate(self) -> list[float]:
        """Losses of the validation parts, the same in all processes, with the first's buffers."""
        strategy = self.trainer.strategy
        if self.trainer.world_size > 1:
            # Batch norm has other running means in each process: the first one's are kept.
            buffers = {name: b.cpu() for name, b in self.network.named_buffers()}
            chosen = strategy.broadcast(buffers)
            with torch.no_grad():
                for name, buffer in self.network.named_buffers():
                    buffer.copy_(chosen[name])
        losses = [0.0] * len(self.sessions)
        if self.trainer.is_global_zero:
            kind = self.settings["loss"]
            losses = [session.validation_loss(kind) for session in self.sessions.values()]
        return list(strategy.broadcast(losses)) if self.trainer.world_size > 1 else losses

    def _write(self) -> None:
        """Write the checkpoint, then the line of the log."""
        generators = self._generators()
        if not self.trainer.is_global_zero:
            return
        folder = self.folder or self.room
        if folder is not None and self.best is not None:
            state = {
                "model": self.description,
                "data": self.data,
                "settings": self.settings,
                "record": self.record,
                "weights": self.network.state_dict(),
                "best_weights": self.best[1],
                "optimizer": self.trainer.optimizers[0].state_dict(),
                "schedule": None if self._schedule is None else self._schedule.state_dict(),
                "generators": generators,
            }
            write_checkpoint(folder, state)
        if self.log_file is not None:
            with self.log_file.open("a") as log:
                log.write(_line([self.n_done - 1, *self.record[-1]]))

    def _generators(self) -> list[dict[str, Tensor]]:
        """States of the random generators of each process."""
        own = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            own["cuda"] = torch.cuda.get_rng_state(self.device)
        if self.trainer.world_size == 1:
            return [own]
        states: list[Any] = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(states, own)
        return states

    def _set_generators(self, states: dict[str, Tensor]) -> None:
        torch.set_rng_state(states["cpu"])
        if "cuda" in states and self.device.type == "cuda":
            torch.cuda.set_rng_state(states["cuda"], self.device)


def _seed_of(seed: int, rank: int) -> int:
    """Give the processes noise of their own."""
    return int(np.random.default_rng([seed, rank]).integers(2**62))


def _line(values: Sequence[object]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()


def run_loop(
    loop: TrainingLoop,
    *,
    fingerprint: Callable[[], str],
    checkpoints: str | os.PathLike[str] | None,
    resume: str | os.PathLike[str] | bool | None,
    launcher: dict[str, Any],
) -> None:
    """Run lightning's loop quietly, from the start or a checkpoint; the best weights stay.

    `fingerprint` tells that of the data; `launcher` are the arguments of lightning.Trainer that
    say where it runs.
    """
    network, device = loop.network, next(iter(loop.sessions.values())).model.device
    initial = copy.deepcopy(network.state_dict())
    with tempfile.TemporaryDirectory() as room, _nothing_left_behind(device, launcher):
        try:
            trainer = lightning.Trainer(
                # At most: the loop counts on from a checkpoint's epoch, and stops when it is over.
                max_epochs=loop.settings["max_epochs"],
                logger=False,
                enable_checkpointing=False,
                enable_model_summary=False,
                enable_progress_bar=False,
                use_distributed_sampler=False,
                default_root_dir=room,
                **_place(device, launcher),
            )
            if len(loop.sessions) > 1 and isinstance(trainer.strategy, DDPStrategy):
                # A mini-batch is of one session: the readouts of the others have no gradient.
                trainer.strategy._ddp_kwargs["find_unused_parameters"] = True
            loop.settings["n_processes"] = trainer.world_size
            loop.segments.set_process(0, trainer.world_size)
            for session in loop.sessions.values():
                _require_whole_batch(session)
            _find_checkpoints(loop, checkpoints, resume, fingerprint)
            loop.room = Path(room) if trainer.world_size > 1 else None
            if loop.is_over:
                loop.begin_log()
            else:
                network.train()
                loop.spread = trainer.world_size > 1
                trainer.fit(loop)
        except torch.multiprocessing.ProcessRaisedException as error:
            # The whole traceback of the other process is its text; ours is the last line.
            last = str(error).strip().splitlines()[-1]
            if last.startswith("ValueError: "):
                raise ValueError(last.removeprefix("ValueError: ")) from error
            if "autograd's threading" in last:
                raise ValueError(
                    f"strategy={launcher['strategy']!r}: torch cannot train in a fork of a process "
                    "that has computed a gradient; give strategy='ddp_spawn', or train in a fresh "
                    "process"
                ) from error
            raise
        finally:
            if loop.bar is not None:
                loop.bar.close()
            folder = loop.folder or loop.room
            files = [] if folder is None else checkpoint_files(folder)
            if loop.spread and files and epochs_in(files[-1]) > loop.n_done:
                loop.restore(read_checkpoint(files[-1]))
            network.load_state_dict(initial if loop.best is None else loop.best[1])
            network.zero_grad(set_to_none=True)
            network.to(device).eval()


def _place(device: torch.device, launcher: dict[str, Any]) -> dict[str, Any]:
    """Where to run: as told, by default on the one device that the model is on."""
    chosen = {name: value for name, value in launcher.items() if value is not None}
    if "accelerator" not in chosen:
        chosen["accelerator"] = device.type
        if device.type == "cuda":
            chosen.setdefault("devices", [device.index or 0])
    chosen.setdefault("devices", 1)
    return chosen


def _require_whole_batch(session: Session) -> None:
    segments = session.segments
    needed = segments.n_segments * segments.n_processes
    if segments.n_stretches < needed:
        each = f" in each of {segments.n_processes} processes" if segments.n_processes > 1 else ""
        raise ValueError(
            f"{session.label} has {segments.n_stretches} stretches of {segments.length} frames "
            f"with a whole history; a mini-batch takes n_segments={segments.n_segments}{each}: "
            "lower n_segments or segment_length, or give more data"
        )


def _find_checkpoints(
    loop: TrainingLoop,
    checkpoints: str | os.PathLike[str] | None,
    resume: str | os.PathLike[str] | bool | None,
    fingerprint: Callable[[], str],
) -> None:
    """Find the checkpoint to go on from, and the folder for those to come."""
    folder = None if checkpoints is None else Path(checkpoints)
    existing = [] if folder is None else checkpoint_files(folder)
    file: Path | None = None
    if resume is True:
        if folder is None:
            raise ValueError("resume=True goes on from the folder checkpoints=, which is not given")
        file = existing[-1] if existing else None
    elif resume is not None and resume is not False:
        file = find_checkpoint(resume)
        folder = file.parent if folder is None else folder
    if existing and (file is None or file.parent.resolve() != Path(existing[0]).parent.resolve()):
        raise FileExistsError(
            f"checkpoints={str(checkpoints)!r} has checkpoints of an earlier training: continue "
            "it with resume=True, or give another folder"
        )
    if folder is not None:
        loop.data = fingerprint()
    if file is not None:
        state = read_checkpoint(file)
        require_same_run(file, state, loop.description, loop.settings, loop.data)
        loop.restore(state)
    loop.folder = folder


@contextmanager
def _nothing_left_behind(device: torch.device, launcher: dict[str, Any]) -> Iterator[None]:
    """Keep lightning quiet; generators, loggers and the interrupt handler are as before after."""
    accelerator = str(launcher.get("accelerator") or device.type)
    devices = []
    # Asking CUDA for its generators would keep processes from being forked.
    if accelerator != "cpu" and torch.cuda.is_available() and "fork" not in str(launcher):
        devices = list(range(torch.cuda.device_count()))
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
            # The data are in memory: worker processes would only copy them.
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*`IterableDataset` has `__len__`.*")
            warnings.filterwarnings("ignore", message=".*LeafSpec.*")
            yield
    except SystemExit as error:
        # Lightning leaves the interpreter when it is interrupted; a notebook should not.
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if in_main and handler is not None:
            signal.signal(signal.SIGINT, handler)
