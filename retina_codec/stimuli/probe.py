"""A balanced movie of light and motion epochs, to test what a mode carries."""

from __future__ import annotations

import numpy as np
import xarray as xr

from retina_codec._common.checks import require_at_least, require_count
from retina_codec._common.provenance import provenance
from retina_codec.stimuli.classical import bar_crossing, bar_frames, grating_frames
from retina_codec.stimuli.movie import make_movie, require_size

DIRECTIONS = tuple(45.0 * i for i in range(8))
STEP_PAIRS = 8  # a bright or dark flash: one ON step and one OFF step

Epoch = tuple[np.ndarray, str, float]  # frames, label, direction


def probe_movie(
    *,
    seed: int = 0,
    shape: tuple[int, int] = (24, 24),
    n_cycles: int = 2,
    epoch_duration: float = 0.8,
    transition: float = 0.3,
    bin_width: float = 0.01,
) -> xr.DataArray:
    """ON steps, OFF steps, gratings, bars and still pictures, for equally long, in random order.

    One cycle has 8 epochs of each: 4 flashes above and 4 below grey (each an ON and an OFF step),
    gratings and bars in 8 directions (bars bright and dark in turn), and 8 still pictures (grey
    and gratings in turn). A grating fades in and out: those frames, and grey between
    epochs, are labelled ``"transition"``, so that no light transient is counted as motion or as
    stillness.

    Parameters
    ----------
    seed : int
        Seed of the order, contrasts, periods and phases.
    shape : tuple of int
        Height and width in pixels.
    n_cycles : int
        How often each kind of epoch is shown 8 times.
    epoch_duration : float
        Duration of an epoch in seconds; a bar crosses the field in this time.
    transition : float
        Duration of grey after an epoch, and of a fade, in seconds.
    bin_width : float
        Duration of a frame in seconds.

    Returns
    -------
    DataArray
        Contrast (time, y, x) with `epoch` ``"on_step"``, ``"off_step"``, ``"grating"``,
        ``"bar"``, ``"still"`` or ``"transition"``, and `direction` in degrees.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> from retina_codec import stimuli
    >>> movie = stimuli.probe_movie(seed=0, n_cycles=1, shape=(12, 12))
    >>> labels, frames = np.unique(movie["epoch"].values, return_counts=True)
    >>> dict(zip(labels.tolist(), frames.tolist()))
    {'bar': 640, 'grating': 640, 'off_step': 640, 'on_step': 640, 'still': 640, 'transition': 1710}
    """
    require_size(1, shape, bin_width)
    require_count(n_cycles, 1, "n_cycles")
    require_at_least(epoch_duration, bin_width, "epoch_duration")
    require_at_least(transition, 0, "transition")
    n_epoch = round(epoch_duration / bin_width)
    n_rest = round(transition / bin_width)
    rng = np.random.default_rng(seed)
    grey: Epoch = (np.zeros((n_rest, *shape)), "transition", np.nan)
    epochs: list[Epoch] = [grey]
    for _ in range(n_cycles):
        trials = _one_cycle(rng, shape, n_epoch, n_rest)
        for i in rng.permutation(len(trials)):
            epochs += [*trials[i], grey]
    lengths = [len(frames) for frames, _, _ in epochs]
    made_by = provenance(
        generator="probe_movie",
        seed=seed,
        n_cycles=n_cycles,
        epoch_duration=epoch_duration,
        transition=transition,
    )
    return make_movie(
        np.concatenate([frames for frames, _, _ in epochs]),
        bin_width=bin_width,
        epoch=np.repeat([label for _, label, _ in epochs], lengths),
        direction=np.repeat([direction for _, _, direction in epochs], lengths),
        attrs=made_by,
    )


def _one_cycle(
    rng: np.random.Generator, shape: tuple[int, int], n_epoch: int, n_rest: int
) -> list[list[Epoch]]:
    """Trials, each a list of epochs that belong together."""
    trials: list[list[Epoch]] = []
    for i in range(STEP_PAIRS):
        sign = 1.0 if i % 2 else -1.0
        flash = np.full((n_epoch, *shape), sign * rng.uniform(0.8, 1.5))
        labels = ("on_step", "off_step") if sign > 0 else ("off_step", "on_step")
        trials.append([(flash, labels[0], np.nan), (np.zeros_like(flash), labels[1], np.nan)])
    for i, direction in enumerate(DIRECTIONS):
        trials.append(_grating(rng, shape, n_epoch, n_rest, direction, moving=True))
        trials.append([_bar(rng, shape, n_epoch, direction, bright=i % 2 == 0)])
        if i % 2:
            trials.append(_grating(rng, shape, n_epoch, n_rest, direction, moving=False))
        else:
            trials.append([(np.zeros((n_epoch, *shape)), "still", np.nan)])
    return trials


def _grating(
    rng: np.random.Generator,
    shape: tuple[int, int],
    n_epoch: int,
    n_rest: int,
    direction: float,
    *,
    moving: bool,
) -> list[Epoch]:
    period = rng.uniform(5, 12)
    shift = rng.uniform(0.2, 0.5) if moving else 0.0
    frames = grating_frames(
        shape,
        n_frames=n_epoch,
        direction=direction,
        period=period,
        shift=shift,
        contrast=rng.uniform(0.8, 1.3),
        phase=rng.uniform(0, 2 * np.pi),
    )
    fade = ((np.arange(n_rest) + 1) / (n_rest + 1))[:, None, None]
    epoch = ("grating", direction) if moving else ("still", np.nan)
    return [
        (fade * frames[0], "transition", np.nan),
        (frames, *epoch),
        (fade[::-1] * frames[-1], "transition", np.nan),
    ]


def _bar(
    rng: np.random.Generator,
    shape: tuple[int, int],
    n_epoch: int,
    direction: float,
    *,
    bright: bool,
) -> Epoch:
    width = rng.uniform(2, 4)
    frames = bar_frames(
        shape,
        n_frames=n_epoch,
        direction=direction,
        width=width,
        shift=bar_crossing(shape, direction, width) / n_epoch,
        contrast=(1.0 if bright else -1.0) * rng.uniform(1.0, 1.5),
    )
    return frames, "bar", direction
