"""One core for several recordings: models that share it, and their training together."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
import yaml
from torch import Tensor, nn

from retina_codec._common.checks import nearest_names, require_at_least, require_count, require_dims
from retina_codec._common.files import written_beside
from retina_codec._common.progress import progress_counter
from retina_codec._common.provenance import provenance
from retina_codec._common.version import __version__
from retina_codec.models.model import training_node
from retina_codec.models.saving import load_model
from retina_codec.models.segments import Segments, poisson_loss
from retina_codec.recordings import split

if TYPE_CHECKING:
    from retina_codec.models.core_readout import CoreReadout


class SharedCore:
    """Models of several recordings with one core, so that each learns from all.

    Made by ``CoreReadout.for_recordings``. Each session is a whole `RetinaModel`; their cores are
    one module.

    Parameters
    ----------
    sessions : mapping of str to CoreReadout
        Models by name; all take over the core of the first.

    Raises
    ------
    ValueError
        If bin widths, histories, colour planes or kernels differ.
    """

    def __init__(self, sessions: Mapping[str, CoreReadout]) -> None:
        if not sessions:
            raise ValueError("sessions is empty; expected models by name")
        self.sessions = dict(sessions)
        name, first = next(iter(self.sessions.items()))
        for other, model in self.sessions.items():
            if not np.isclose(model.bin_width, first.bin_width, rtol=1e-2):
                raise ValueError(
                    f"{other!r} has bins of {model.bin_width:g} s and {name!r} of "
                    f"{first.bin_width:g} s: a core has one frame rate; resample one of them"
                )
            try:
                model.share_core(first.core)
            except ValueError as error:
                raise ValueError(f"{other!r} cannot share the core of {name!r}: {error}") from error
        self.network = nn.ModuleList(model.network for model in self.sessions.values())

    def __repr__(self) -> str:
        cells = ", ".join(f"{name}: {len(m.outputs)} cells" for name, m in self.sessions.items())
        return f"SharedCore({cells})"

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change with any session's name, architecture or weights."""
        return _fingerprint(self.sessions)

    def session(self, name: str) -> CoreReadout:
        """Return the model of one recording, which shares its core with the others.

        Raises
        ------
        ValueError
            With the nearest name, if there is no such session.
        """
        if name not in self.sessions:
            raise ValueError(f"no session {name!r}; {nearest_names(name, self.sessions)}")
        return self.sessions[name]

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write all sessions into `folder`, whole or not at all.

        Each session has a folder of its own, which `retina_codec.load_model` reads as well.

        Returns
        -------
        pathlib.Path
            `folder`.
        """
        places = {f"session{i}": name for i, name in enumerate(self.sessions)}
        config = {
            "architecture": "SharedCore",
            "retina_codec_version": __version__,
            "fingerprint": self.fingerprint,
            "sessions": places,
        }
        with written_beside(folder) as fresh:
            fresh.mkdir()
            (fresh / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
            for place, name in places.items():
                self.sessions[name].save(fresh / place)
        return Path(folder)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> SharedCore:
        """Load what `save` wrote.

        Raises
        ------
        FileNotFoundError
            If the folder, its configuration or a session is missing.
        ValueError
            If it holds something else, or the sessions do not share one core.
        """
        folder = Path(folder)
        if not (folder / "config.yaml").is_file():
            raise FileNotFoundError(
                f"folder={str(folder)!r} has no config.yaml; expected a folder that "
                "SharedCore.save wrote"
            )
        config = yaml.safe_load((folder / "config.yaml").read_text())
        if not isinstance(config, dict) or config.get("architecture") != "SharedCore":
            raise ValueError(
                f"{folder} holds no SharedCore; a model of one recording is read by "
                "retina_codec.load_model"
            )
        sessions: dict[str, Any] = {
            name: load_model(folder / place) for place, name in config["sessions"].items()
        }
        # Every session carries the core, which was one when they were saved.
        found = _fingerprint(sessions)
        if found != config["fingerprint"]:
            raise ValueError(
                f"{folder}: the sessions are not those that were saved together (fingerprint "
                f"{found}, expected {config['fingerprint']})"
            )
        return cls(sessions)


def _fingerprint(sessions: Mapping[str, CoreReadout]) -> str:
    digest = hashlib.sha256()
    for name, model in sessions.items():
        digest.update(f"{name}={model.fingerprint};".encode())
    return digest.hexdigest()[:16]


def joint_batches(
    segments: Mapping[str, Segments], *, seed: int, epoch: int
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Give mini-batches of several recordings in random order, each of one recording.

    Every recording gives as many as the longest one has in a pass: shorter ones are passed over
    several times, with new cuts, so that the core and each readout learn at one pace.

    Parameters
    ----------
    segments : mapping of str to Segments
        Mini-batches by recording.
    seed, epoch : int
        The order is a function of both.

    Yields
    ------
    tuple
        Name, frames and counts of a mini-batch.
    """
    n = max(len(of_one) for of_one in segments.values())
    batches = {name: _repeated(of_one, n, epoch) for name, of_one in segments.items()}
    turns = np.repeat(list(segments), n)
    for name in np.random.default_rng([seed, epoch]).permutation(turns).tolist():
        yield name, *next(batches[name])


def _repeated(segments: Segments, n: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Give `n` mini-batches of one recording: passes over it, each with a new cut."""
    given = cut = 0
    while given < n:
        # No two epochs have a cut in common: an epoch makes at most n passes.
        segments.epoch = epoch * n + cut
        for batch in segments:
            yield batch
            given += 1
            if given == n:
                break
        cut += 1


def train_jointly(
    model: SharedCore,
    recordings: Mapping[str, xr.DataTree | xr.Dataset],
    *,
    validation: Mapping[str, xr.DataTree | xr.Dataset] | None = None,
    max_epochs: int = 20,
    learning_rate: float = 1e-2,
    n_segments: int = 8,
    segment_length: int = 64,
    l1_rate: float = 1e-4,
    l1_readout: float = 0.0,
    l2_weights: float = 0.0,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """Train models with a shared core on their recordings, together and in place.

    As `retina_codec.train`, with mini-batches of one recording at a time in random order, equally
    many of each (`joint_batches`); kept are the weights of the epoch with the lowest validation
    loss, averaged over recordings.

    Parameters
    ----------
    model : SharedCore
        Its weights change; it is left in evaluation mode.
    recordings : mapping of str to xarray.DataTree or xarray.Dataset
        A recording or node for each session, by its name.
    validation : mapping, optional
        The same for the validation; by default a tenth of each recording, as in
        `retina_codec.train`.
    max_epochs, learning_rate, n_segments, segment_length, l1_rate, l2_weights, seed, progress
        As in `retina_codec.train`.
    l1_readout : float
        Weight of the readout's own penalty (sum of absolute weights), divided by the number of
        cells, added to the loss.

    Returns
    -------
    xarray.Dataset
        ``train_loss`` and ``validation_loss`` (epoch, session), nats per bin and cell up to a
        constant; attrs say which epoch was kept.

    Raises
    ------
    ValueError
        If recordings and sessions differ in names or cells, the data do not fit a model, or the
        loss is not finite (the model then keeps the weights of its best epoch).

    Examples
    --------
    >>> import numpy as np, retina_codec as rc, xarray as xr
    >>> from retina_codec.models.shared_core import train_jointly
    >>> recordings = {}
    >>> for name in ("monday", "tuesday"):
    ...     movie = rc.stimuli.white_noise(n_frames=800, shape=(6, 6), seed=len(name))
    ...     counts = np.random.default_rng(0).poisson(0.5, size=(800, 2))
    ...     recordings[name] = xr.Dataset(
    ...         {"stimulus": movie, "spike_count": (("time", "cell"), counts)},
    ...         {"cell": ["a", "b"]},
    ...     )
    >>> model = rc.models.CoreReadout.for_recordings(recordings, history=5, channels=(2, 2))
    >>> history = train_jointly(model, recordings, max_epochs=1, progress=False)
    >>> dict(history.sizes)
    {'epoch': 1, 'session': 2}
    """
    require_count(max_epochs, 1, "max_epochs")
    require_count(n_segments, 1, "n_segments")
    require_count(segment_length, 1, "segment_length")
    require_at_least(l1_readout, 0, "l1_readout")
    training, held_out = _parts(model, recordings, validation)
    segments = {
        name: Segments(model.session(name), node, n_segments, segment_length, seed)
        for name, node in training.items()
    }
    device = next(iter(model.sessions.values())).device
    optimizer = torch.optim.Adam(
        model.network.parameters(), lr=learning_rate, weight_decay=l2_weights
    )
    n_steps = max_epochs * len(segments) * max(len(of_one) for of_one in segments.values())
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=max(learning_rate, 1e-30), total_steps=n_steps
    )
    losses = np.full((max_epochs, 2, len(segments)), np.nan)
    best: tuple[float, dict[str, Tensor]] | None = None
    names = list(segments)
    devices = [device.index or 0] if device.type == "cuda" else []
    try:
        with (
            torch.random.fork_rng(devices=devices),
            progress_counter(n_steps, "train", shown=progress) as bar,
        ):
            torch.manual_seed(seed)
            for epoch in range(max_epochs):
                model.network.train()
                sums = dict.fromkeys(names, (0.0, 0))
                for name, frames, counts in joint_batches(segments, seed=seed, epoch=epoch):
                    session = model.session(name)
                    rate = session.network(frames)
                    loss = poisson_loss(rate, counts, session.bin_width)
                    if not torch.isfinite(loss):
                        raise ValueError(
                            f"the training loss of {name!r} is {loss.item()} in epoch {epoch}: "
                            f"lower learning_rate={learning_rate:g}, and check the stimulus for "
                            "outliers"
                        )
                    readout: nn.Module = session.network.readout  # type: ignore[assignment]
                    penalty = readout.penalty() / len(session.outputs)  # type: ignore[operator]
                    total = loss + l1_rate * rate.mean() + l1_readout * penalty
                    optimizer.zero_grad()
                    total.backward()
                    optimizer.step()
                    schedule.step()
                    done, n = sums[name]
                    sums[name] = (done + float(loss.detach()) * len(counts), n + len(counts))
                    bar.update()
                losses[epoch, 0] = [sums[name][0] / max(1, sums[name][1]) for name in names]
                losses[epoch, 1] = [_loss(model.session(name), held_out[name]) for name in names]
                mean = float(losses[epoch, 1].mean())
                if best is None or mean < best[0]:
                    best = (mean, copy.deepcopy(model.network.state_dict()))
    finally:
        if best is not None:
            model.network.load_state_dict(best[1])
        model.network.eval()
    units = {"units": "nat", "long_name": "Poisson loss per bin and cell, up to a constant"}
    return xr.Dataset(
        {
            "train_loss": (("epoch", "session"), losses[:, 0], units),
            "validation_loss": (("epoch", "session"), losses[:, 1], units),
        },
        coords={"epoch": np.arange(max_epochs), "session": names},
        attrs={
            "best_epoch": int(losses[:, 1].mean(1).argmin()),
            "model_fingerprint": model.fingerprint,
            **provenance(
                max_epochs=max_epochs,
                learning_rate=learning_rate,
                n_segments=n_segments,
                segment_length=segment_length,
                l1_rate=l1_rate,
                l1_readout=l1_readout,
                l2_weights=l2_weights,
                seed=seed,
            ),
        },
    )


def _parts(
    model: SharedCore,
    recordings: Mapping[str, xr.DataTree | xr.Dataset],
    validation: Mapping[str, xr.DataTree | xr.Dataset] | None,
) -> tuple[dict[str, xr.Dataset], dict[str, xr.Dataset]]:
    """Nodes to train on and to score, by session, checked."""
    for argument, given in (("recordings", recordings), ("validation", validation)):
        if given is not None and set(given) != set(model.sessions):
            raise ValueError(
                f"{argument} has {sorted(given)}; the model has the sessions "
                f"{sorted(model.sessions)}"
            )
    training, held_out = {}, {}
    for name, session in model.sessions.items():
        node = training_node(recordings[name])
        if validation is None:
            parts = split(node, gap=session.history)
            node, unseen = parts["train"].to_dataset(), parts["validation"].to_dataset()
        else:
            unseen = training_node(validation[name])
        for part in (node, unseen):
            require_dims(part["spike_count"], ("time", "cell"), f"{name}: spike_count")
            cells = [str(cell) for cell in part["cell"].values]
            if cells != session.outputs.tolist():
                raise ValueError(
                    f"{name} has the cells {cells}; its session has {session.outputs.tolist()}: "
                    "select them with .sel(cell=...)"
                )
        training[name], held_out[name] = node, unseen
    return training, held_out


def _loss(session: CoreReadout, node: xr.Dataset) -> float:
    predicted = session.predict(node["stimulus"])
    counts = node["spike_count"].transpose("time", "cell").sel(time=predicted["time"])
    observed = torch.from_numpy(counts.values.astype(np.float32))
    return float(poisson_loss(torch.from_numpy(predicted.values), observed, session.bin_width))
