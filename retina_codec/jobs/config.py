"""Settings of a job: plain dataclasses that a YAML file fills, checked name by name."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import jsonargparse
import yaml

from retina_codec._common.checks import nearest_names


@dataclass
class RecordingSettings:
    """Where the recording is.

    Parameters
    ----------
    path
        File or folder; environment variables such as ${RETINA_CODEC_DATA} are filled in.
    format
        Name of the layout; recognised from the files if not given.
    cells
        Ids to keep; all if not given.
    """

    path: str
    format: str | None = None
    cells: list[str] | None = None


@dataclass
class SimulationSettings:
    """A simulated retina that watches natural and artificial movies.

    Parameters
    ----------
    circuit
        Name of a circuit, or a YAML file that describes one.
    size
        Height and width of the movie in pixels.
    natural_frames
        Frames of natural movie to train on.
    artificial_frames
        Frames of steps, gratings and bars to train on, and as many of white noise.
    test_frames
        Frames of natural movie from photographs that were not trained on, shown in repeats.
    repeats
        How often the test movie is shown.
    probe_cycles
        Cycles of the probe movie (light steps, gratings, bars, still pictures).
    probe_epoch
        Duration of each of its epochs, in seconds.
    """

    circuit: str = "first"
    size: int = 24
    natural_frames: int = 20000
    artificial_frames: int = 5000
    test_frames: int = 1500
    repeats: int = 20
    probe_cycles: int = 2
    probe_epoch: float = 0.8


@dataclass
class ModelSettings:
    """The convolutional model.

    Parameters
    ----------
    history
        Frames that a response depends on.
    channels
        Channels of the two convolutions.
    kernel_sizes
        Sides of the two kernels in pixels; in proportion to the frame if not given.
    noise
        Standard deviation of the noise before each ReLU while training.
    """

    history: int = 40
    channels: list[int] = field(default_factory=lambda: [8, 8])
    kernel_sizes: list[int] | None = None
    noise: float = 0.05


@dataclass
class TrainingSettings:
    """The training.

    Parameters
    ----------
    max_epochs
        Passes over the data.
    learning_rate
        Highest learning rate of the one-cycle schedule.
    l1_rate
        Weight of the mean rate in the loss.
    l2_weights
        Weight decay.
    """

    max_epochs: int = 20
    learning_rate: float = 1e-2
    l1_rate: float = 1e-4
    l2_weights: float = 0.0


@dataclass
class ContributionSettings:
    """The contribution decomposition.

    Parameters
    ----------
    node
        Node of the recording whose movie is decomposed.
    max_frames
        Use its first frames only; all if not given.
    layers
        Layers of the model; the convolutions if not given.
    steps
        Steps of the path from the mean grey to the movie.
    """

    node: str = "train"
    max_frames: int | None = None
    layers: list[str] | None = None
    steps: int = 20


@dataclass
class ModeSettings:
    """The modes.

    Parameters
    ----------
    n_modes
        Modes of each layer's dictionary.
    k
        Most modes that are active at once.
    max_epochs
        Most passes of the autoencoder over the contributions.
    scaling
        Of the columns: rms, signed_sqrt, std or none.
    non_negative
        Hold atoms to the sign of their columns: positive and negative parts add up separately.
    population_modes
        Modes of each layer's contributions to all cells together, which are fitted where the movie
        has labelled epochs: what was shown is a question to the population.
    """

    n_modes: int = 32
    k: int = 2
    max_epochs: int = 200
    scaling: Literal["rms", "signed_sqrt", "std", "none"] = "rms"
    non_negative: bool = True
    population_modes: int = 128


@dataclass
class Job:
    """One run, from a recording or a simulation to a report.

    Parameters
    ----------
    folder
        Where the results go.
    title
        Heading of the report.
    recording
        A recording; or else give `simulation`.
    simulation
        A simulated retina; or else give `recording`.
    model
        The convolutional model.
    training
        Its training.
    contributions
        The contribution decomposition.
    modes
        The modes.
    seed
        Of everything that is drawn at random.
    """

    folder: str
    title: str = "What the model's interneurons contribute"
    recording: RecordingSettings | None = None
    simulation: SimulationSettings | None = None
    model: ModelSettings = field(default_factory=ModelSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    contributions: ContributionSettings = field(default_factory=ContributionSettings)
    modes: ModeSettings = field(default_factory=ModeSettings)
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.recording is None) == (self.simulation is None):
            raise ValueError("a job needs either recording: or simulation:, one of the two")


def read_job(path: str | os.PathLike[str]) -> Job:
    """Read the settings of a job from a YAML file.

    Parameters
    ----------
    path : path
        The file. Environment variables in it, such as ``${RETINA_CODEC_DATA}``, are filled in;
        relative paths are relative to the folder that the command is run in.

    Returns
    -------
    Job
        The settings, defaults filled in.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not YAML, names an unknown option or gives one a wrong value, or an environment
        variable is not set.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from retina_codec.jobs import read_job
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "job.yaml")
    ...     _ = file.write_text("{folder: out, recording: {path: data}, modes: {k: 3}}")
    ...     read_job(file).modes.k
    3
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"config={str(path)!r} is not a file")
    try:
        text = path.read_text(encoding="utf-8")
        settings = yaml.safe_load(text)
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        first = str(error).splitlines()[0]
        raise ValueError(f"config={str(path)!r} is not a YAML file: {first}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"config={str(path)!r} holds no settings; expected lines 'name: value'")
    recording = settings.get("recording")
    if isinstance(recording, dict) and isinstance(recording.get("path"), str):
        recording["path"] = _filled_in(recording["path"], path)
    try:
        _require_known(settings, Job, "")
    except ValueError as error:
        raise ValueError(f"config={str(path)!r}: {error}") from error
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Job, "job")
    try:
        parsed = parser.parse_object({"job": settings})
        return parser.instantiate(parsed).job
    except (jsonargparse.ArgumentError, ValueError) as error:
        raise ValueError(f"config={str(path)!r}: {_first_reason(error)}") from error


def _require_known(settings: dict[str, Any], kind: type, above: str) -> None:
    """Raise ValueError with the nearest name for an option that `kind` does not have."""
    known = {entry.name: entry for entry in fields(kind)}
    types = get_type_hints(kind)
    for name, value in settings.items():
        if name not in known:
            raise ValueError(f"unknown option {above}{name}; {nearest_names(name, known)}")
        inner = next((t for t in (types[name], *get_args(types[name])) if is_dataclass(t)), None)
        if isinstance(value, dict) and isinstance(inner, type):
            _require_known(value, inner, f"{above}{name}.")


def _filled_in(text: str, path: Path) -> str:
    filled = os.path.expandvars(os.path.expanduser(text))  # noqa: PTH111 (keeps ${...} readable)
    if "$" in filled:
        raise ValueError(
            f"config={str(path)!r}: recording.path={text!r} names an environment variable that is "
            "not set: export it, or write the path itself"
        )
    return filled


def _first_reason(error: Exception) -> str:
    """Return the parser's message on one line, with option names as they stand in the file."""
    return " ".join(str(error).split()).replace('"job.', '"').replace("job.", "")
