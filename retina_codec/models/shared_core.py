"""One core for several recordings: models that share it, and their training together."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
import yaml
from torch import nn

from retina_codec._common.checks import nearest_names, require_at_least
from retina_codec._common.files import written_beside
from retina_codec._common.version import __version__
from retina_codec.models.checkpoint_files import describe_models
from retina_codec.models.saving import load_model
from retina_codec.models.training import (
    checked_settings,
    history_of,
    train_sessions,
    training_parts,
)

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
        self.network = nn.ModuleList(model.network for model in self.sessions.values()).eval()

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
    """Train models with a shared core on their recordings, together and in place.

    The loop of `retina_codec.train`, with mini-batches of one recording at a time in random
    order, equally many of each (`joint_batches`). The validation loss, which decides what is
    kept, about the schedule and when to stop, is the mean over recordings.

    Parameters
    ----------
    model : SharedCore
        Its weights change; it is left in evaluation mode, on the device it came on.
    recordings : mapping of str to xarray.DataTree or xarray.Dataset
        A recording or node for each session, by its name. Movies that do not fit into their share
        of 1 GB are read in regions.
    validation : mapping, optional
        The same for the validation; by default a tenth of each recording, as in
        `retina_codec.train`.
    max_epochs : int
        Passes over the longest recording; shorter ones are passed over as often as it takes to
        give as many mini-batches.
    l1_readout : float
        Weight of the readout's own penalty (sum of absolute weights), divided by the number of
        cells, added to the loss.
    log : path, optional
        CSV file as in `retina_codec.train`, whose losses are means over recordings, with further
        columns for each recording's.
    learning_rate, n_segments, segment_length, l1_rate, l2_weights, seed, progress, loss, schedule
        As in `retina_codec.train`.
    patience, silent_cells, checkpoints, resume, accelerator, devices, num_nodes, strategy
        As in `retina_codec.train`.

    Returns
    -------
    xarray.Dataset
        ``train_loss`` and ``validation_loss`` (epoch, session), nats per bin and cell up to a
        constant, or squared spikes; over ``epoch`` their means over sessions,
        ``mean_train_loss`` and ``mean_validation_loss``, ``learning_rate`` of the last step and
        ``seconds``; attrs say which epoch was kept (``best_epoch``).

    Raises
    ------
    TypeError
        If the model is no SharedCore, or recordings are not given by name.
    ValueError
        If recordings and sessions differ in names or cells; and whatever `retina_codec.train`
        refuses, for any session: data that do not fit, fewer stretches than a mini-batch takes, a
        silent cell, a loss that is not finite, a checkpoint of another training.
    FileNotFoundError, FileExistsError
        As in `retina_codec.train`.

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
    >>> dict(history.validation_loss.sizes)
    {'epoch': 1, 'session': 2}
    """
    if not isinstance(model, SharedCore):
        raise TypeError(
            f"model is a {type(model).__name__}; expected a SharedCore, such as "
            "CoreReadout.for_recordings(recordings); a model of one recording is trained by "
            "retina_codec.train"
        )
    for argument, given in (("recordings", recordings), ("validation", validation)):
        if given is not None:
            _require_sessions(model, given, argument)
    # Names as a session has them, which of a day or an animal may be a number.
    recordings = {str(name): node for name, node in recordings.items()}
    if validation is not None:
        validation = {str(name): node for name, node in validation.items()}
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
    require_at_least(l1_readout, 0, "l1_readout")
    parts = [
        training_parts(
            session,
            recordings[name],
            None if validation is None else validation[name],
            silent_cells=silent_cells,
            name=name,
        )
        for name, session in model.sessions.items()
    ]
    loop = train_sessions(
        model.network,
        parts,
        settings | {"l1_readout": float(l1_readout)},
        description=describe_models(model.sessions),
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


def _require_sessions(model: SharedCore, given: object, argument: str) -> None:
    """Check that data are given for each session by its name."""
    if not isinstance(given, Mapping) or isinstance(given, xr.Dataset | xr.DataTree):
        raise TypeError(
            f"{argument} is a {type(given).__name__}; expected recordings by name, "
            f"{{name: recording}}, of the sessions {sorted(model.sessions)}"
        )
    if set(map(str, given)) != set(model.sessions):
        raise ValueError(
            f"{argument} has {sorted(map(str, given))}; the model has the sessions "
            f"{sorted(model.sessions)}"
        )
