"""Training a retina model on a recording."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from torch import nn

from retina_codec._common.checks import (
    naming,
    require_at_least,
    require_choice,
    require_count,
    require_dims,
    require_finite,
)
from retina_codec._common.provenance import provenance
from retina_codec.models.checkpoint_files import describe_model
from retina_codec.models.model import MovieSamples, RetinaModel, training_node
from retina_codec.models.segments import LOSSES, Segments, data_fingerprint
from retina_codec.recordings import split

if TYPE_CHECKING:
    from retina_codec.models.loop import TrainingLoop

SCHEDULES = ("one_cycle", "plateau", "constant")
SILENT_CELLS = ("error", "keep", "drop")
LONG_NAMES = {
    "train_loss": "mean loss of the mini-batches",
    "validation_loss": "loss of the validation part",
    "learning_rate": "learning rate of the last step",
    "seconds": "time that the epoch took",
}


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
    loss: str = "poisson",
    schedule: str = "one_cycle",
    patience: int | None = None,
    silent_cells: str = "error",
    checkpoints: str | os.PathLike[str] | None = None,
    resume: str | os.PathLike[str] | bool | None = None,
    log: str | os.PathLike[str] | None = None,
    accelerator: str | None = None,
    devices: int | str | list[int] | None = None,
    num_nodes: int = 1,
    strategy: str = "auto",
) -> xr.Dataset:
    """Train a retina model on a recording, in place.

    Poisson loss of ``rate * bin_width`` against spike counts; Adam under a one-cycle schedule;
    mini-batches of contiguous stretches, which never cross a block; after each epoch the loss on
    the validation blocks, and at the end the weights of the best epoch.

    Parameters
    ----------
    model : RetinaModel
        Its weights change; it is left in evaluation mode, on the device it came on.
    node : xarray.DataTree or xarray.Dataset
        stimulus (time, [color,] y, x) and spike_count (time, cell), or a recording with a node
        ``train``. A movie of more than 1 GB (as float32) is read in regions of half a gigabyte,
        each once an epoch, and its stretches are shuffled within a region.
    validation : xarray.DataTree or xarray.Dataset, optional
        The same for the validation; by default `split` cuts a tenth of `node` off, in contiguous
        stretches with gaps of the model's history.
    max_epochs : int
        Passes over the data.
    learning_rate : float
        Highest learning rate of the cycle, or the first of the other schedules.
    n_segments, segment_length : int
        Stretches in a mini-batch, and frames predicted in each (fewer where the longest block
        has fewer). Blocks too short for a stretch are left out, with a warning.
    l1_rate : float
        Weight of the mean predicted rate in Hz, added to the loss: L1 on activity.
    l2_weights : float
        Adam's weight decay: adds ``l2_weights / 2`` times the sum of squares to the loss. Only of
        weights, which have several dims: not of offsets, gains, batch norm, the places of a
        readout or what else a module names in ``undecayed``.
    seed : int
        Of the order of the stretches and the noise in the network.
    progress : bool
        Show a progress bar.
    loss : {"poisson", "mse"}
        Negative log-likelihood of Poisson counts, up to a constant, or squared difference
        between counts and ``rate * bin_width``; mean over bins and cells.
    schedule : {"one_cycle", "plateau", "constant"}
        Up to `learning_rate` and down to almost nothing over `max_epochs`, step by step; halved
        when the validation loss has not fallen for more than three epochs; or left alone.
    patience : int, optional
        Stop after so many epochs without a better validation loss. It suits ``"plateau"`` and
        ``"constant"``: one cycle that is cut short has not come down.
    silent_cells : {"error", "keep", "drop"}
        What to do about cells without a spike in the training part, which mostly are a mistake
        of sorting or of the split: refuse them by name, train them to be silent, or leave them
        out of the loss (their outputs stay, untrained).
    checkpoints : path, optional
        Folder for a checkpoint at the end of each epoch; the last two stay. It holds the weights,
        the best ones, optimiser, schedule, generators, history and settings.
    resume : path or bool, optional
        Checkpoint, or folder of them, to go on from, with the settings, data and model (weights
        do not matter) of the first run: it ends with the bits of a run that was not interrupted.
        True goes on from `checkpoints` and begins anew if there is none. New checkpoints go to
        the same folder unless `checkpoints` names one. ``max_epochs`` may differ unless under
        one cycle. Data are told apart by a fingerprint, which of a lazy movie, or one of more
        than 1 GB, reads 16 frames only.
    log : path, optional
        CSV file, a line an epoch as it ends; replaced if it exists.
    accelerator, devices, num_nodes, strategy
        Where to train, as for ``lightning.Trainer``; by default on the model's device. With
        several processes each takes mini-batches of `n_segments` stretches of its own and the
        gradients are averaged: one process with so many times `n_segments`, but for batch norm
        (means over a process' own stretches; the first one's running means are kept) and noise.
        Plain ``"ddp"`` starts the script again in each process. ``strategy="ddp_fork"`` works
        in notebooks, but torch may refuse it once this process has computed a gradient (an
        earlier training, contributions): then give ``"ddp_spawn"``, or train in a fresh process.

    Returns
    -------
    xarray.Dataset
        Over ``epoch``: ``train_loss`` and ``validation_loss`` (nats per bin and cell up to a
        constant, or squared spikes), ``learning_rate`` of the last step and ``seconds``; attrs
        say which epoch was kept (``best_epoch``).

    Raises
    ------
    ValueError
        If the data do not fit the model, no stretch fits into a block, there are fewer stretches
        than a mini-batch takes, a cell is silent, the loss is not finite (the model then keeps
        the weights of its best epoch, or those it came with), or the checkpoint is damaged or of
        another model, data or settings.
    FileNotFoundError
        If there is no checkpoint to resume.
    FileExistsError
        If `checkpoints` has those of an earlier training that is not resumed.

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
    if not isinstance(model, RetinaModel):
        raise TypeError(
            f"model is a {type(model).__name__}; expected a retina model, such as "
            "BNCNN.for_recording(recording)"
        )
    settings = checked_settings(
        model.network,
        max_epochs=max_epochs,
        learning_rate=learning_rate,
        n_segments=n_segments,
        segment_length=segment_length,
        l1_rate=l1_rate,
        l2_weights=l2_weights,
        seed=seed,
        loss=loss,
        schedule=schedule,
        patience=patience,
        silent_cells=silent_cells,
    )
    parts = training_parts(model, node, validation, silent_cells=silent_cells)
    loop = train_sessions(
        model.network,
        [parts],
        settings,
        description=describe_model(model),
        progress=progress,
        checkpoints=checkpoints,
        resume=resume,
        log=log,
        launcher={
            "accelerator": accelerator,
            "devices": devices,
            "num_nodes": num_nodes,
            "strategy": strategy,
        },
    )
    return history_of(loop, model.fingerprint)


def checked_settings(
    network: nn.Module,
    *,
    max_epochs: int,
    learning_rate: float,
    n_segments: int,
    segment_length: int,
    l1_rate: float,
    l2_weights: float,
    seed: int,
    loss: str,
    schedule: str,
    patience: int | None,
    silent_cells: str,
) -> dict[str, Any]:
    """Check the arguments of a training, and that `network` can be trained.

    Returns
    -------
    dict
        The arguments as simple values, so that they can be compared with those in a checkpoint.
    """
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ValueError("model has no parameter to train")
    for name, value in (
        ("max_epochs", max_epochs),
        ("n_segments", n_segments),
        ("segment_length", segment_length),
        ("patience", 1 if patience is None else patience),
    ):
        require_count(value, 1, name)
    for name, number in (
        ("learning_rate", learning_rate),
        ("l1_rate", l1_rate),
        ("l2_weights", l2_weights),
    ):
        require_at_least(number, 0, name)
    require_count(seed, 0, "seed")
    require_choice(loss, list(LOSSES), "loss")
    require_choice(schedule, SCHEDULES, "schedule")
    require_choice(silent_cells, SILENT_CELLS, "silent_cells")
    return {
        "max_epochs": int(max_epochs),
        "learning_rate": float(learning_rate),
        "n_segments": int(n_segments),
        "segment_length": int(segment_length),
        "l1_rate": float(l1_rate),
        "l2_weights": float(l2_weights),
        "seed": int(seed),
        "loss": loss,
        "schedule": schedule,
        "patience": None if patience is None else int(patience),
        "silent_cells": silent_cells,
    }


@dataclass(frozen=True)
class TrainingParts:
    """A model and its data, checked; `name` is None for the only one."""

    name: str | None
    label: str
    model: RetinaModel
    node: xr.Dataset
    validation: xr.Dataset
    cells: list[int] | None
    samples: tuple[MovieSamples, MovieSamples]

    def fingerprint(self) -> str:
        """Tell the data from others."""
        parts = zip(self.samples, (self.node, self.validation), strict=True)
        return "".join(data_fingerprint(samples, node) for samples, node in parts)


def training_parts(
    model: RetinaModel,
    node: xr.DataTree | xr.Dataset,
    validation: xr.DataTree | xr.Dataset | None,
    *,
    silent_cells: str,
    name: str | None = None,
) -> TrainingParts:
    """Check what a model is trained on and scored on.

    `name` is that of one of several recordings; messages tell it.
    """
    label, other = "node", "validation"
    if name is not None:
        label, other = f"recordings: {name}", f"validation: {name}"
    dataset = training_node(node, label)
    owner = "the model" if name is None else "its session"
    _require_counts(model, dataset, label, owner)
    if validation is None:
        parts = split(dataset, gap=model.history)
        dataset, held_out = parts["train"].to_dataset(), parts["validation"].to_dataset()
    else:
        held_out = training_node(validation, other)
        _require_counts(model, held_out, other, owner)
    samples = _samples(model, dataset, label), _samples(model, held_out, other)
    cells = _scored_cells(dataset, silent_cells, label)
    return TrainingParts(name, label, model, dataset, held_out, cells, samples)


def train_sessions(
    network: nn.Module,
    parts: Sequence[TrainingParts],
    settings: dict[str, Any],
    *,
    description: dict[str, Any],
    progress: bool,
    checkpoints: str | os.PathLike[str] | None,
    resume: str | os.PathLike[str] | bool | None,
    log: str | os.PathLike[str] | None,
    launcher: dict[str, Any],
) -> TrainingLoop:
    """Train models on their data, in one loop; `network` holds the networks of all.

    `description` says what the weights in a checkpoint must fit.
    """
    # Importing lightning takes seconds, which nobody should wait for who does not train.
    from retina_codec.models.loop import Session, TrainingLoop, run_loop

    sessions = []
    for part in parts:
        segments = Segments(
            part.model,
            part.node,
            settings["n_segments"],
            settings["segment_length"],
            settings["seed"],
            sharing=len(parts),
        )
        if segments.n_left_out:
            warnings.warn(
                f"{part.label}: {segments.n_left_out} of {part.node.sizes['time']} frames are in "
                f"blocks too short for a stretch of {segments.length} frames after a history of "
                f"{part.model.history} and are not trained on: give a smaller segment_length",
                UserWarning,
                stacklevel=3,
            )
        sessions.append(
            Session(part.name or "", part.label, part.model, segments, part.validation, part.cells)
        )
    loop = TrainingLoop(
        network,
        sessions,
        joint=parts[0].name is not None,
        description=description,
        settings=settings,
        log=log,
        progress=progress,
    )
    run_loop(
        loop,
        fingerprint=lambda: _fingerprint(parts),
        checkpoints=checkpoints,
        resume=resume,
        launcher=launcher,
    )
    return loop


def _fingerprint(parts: Sequence[TrainingParts]) -> str:
    whole = "".join(part.fingerprint() for part in parts)
    return whole if parts[0].name is None else hashlib.sha256(whole.encode()).hexdigest()[:32]


def history_of(loop: TrainingLoop, fingerprint: str) -> xr.Dataset:
    """Give the record of a training of a model, or of several (``fingerprint``), by epoch."""
    columns = dict(zip(loop.columns, np.array(loop.record).T, strict=True))
    history = xr.Dataset(
        {
            name: ("epoch", columns[name], {"units": "s" if name == "seconds" else "1"})
            for name in LONG_NAMES
        },
        coords={"epoch": np.arange(len(loop.record))},
        attrs={
            "best_epoch": loop.best_epoch,
            "model_fingerprint": fingerprint,
            **provenance(**loop.settings),
        },
    )
    for name, long_name in LONG_NAMES.items():
        history[name].attrs["long_name"] = long_name
    if not loop.joint:
        return history
    names = list(loop.sessions)
    for name in ("train_loss", "validation_loss"):
        mean = history[name].assign_attrs(long_name=f"{LONG_NAMES[name]}, mean over sessions")
        each = np.stack([columns[f"{name} of {session}"] for session in names], axis=1)
        history[f"mean_{name}"] = mean
        history[name] = (("epoch", "session"), each, history[name].attrs)
    return history.assign_coords(session=names)


def _require_counts(model: RetinaModel, node: xr.Dataset, name: str, owner: str) -> None:
    """Check that a node has counts of the model's cells."""
    counts = require_dims(node["spike_count"], ("time", "cell"), f"{name}: spike_count")
    cells = [str(cell) for cell in node["cell"].values]
    if cells != model.outputs.tolist():
        raise ValueError(
            f"{name} has the cells {cells}; {owner} has {model.outputs.tolist()}: select them "
            "with .sel(cell=model.outputs)"
        )
    require_finite(counts, f"{name}: spike_count")
    if counts.size and float(counts.min()) < 0:
        raise ValueError(f"{name}: spike_count has negative values; expected numbers of spikes")


def _samples(model: RetinaModel, node: xr.Dataset, name: str) -> MovieSamples:
    """Lay out the movie of a node; what does not fit is told with the node's name."""
    with naming(f"{name}: its stimulus does not fit the model"):
        return model.samples(node["stimulus"], "stimulus")


def _scored_cells(node: xr.Dataset, silent_cells: str, label: str) -> list[int] | None:
    """Give the cells that the loss is over, None for all; refuse silent ones if that is asked."""
    silent = (node["spike_count"].sum("time") == 0).values
    if not silent.any() or silent_cells == "keep":
        return None
    if silent_cells == "drop" and not silent.all():
        return np.flatnonzero(~silent).tolist()
    names = ", ".join(str(cell) for cell in node["cell"].values[silent])
    raise ValueError(
        f"{label} has no spike of the cells {names} in its training part: take them out of the "
        "recording and the model, or give silent_cells='keep' to train them to be silent or "
        "silent_cells='drop' to leave them out of the loss"
    )
