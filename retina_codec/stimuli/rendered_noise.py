"""White noise from a seed, of which any frame is made without those before it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import quantities as pq
import xarray as xr
from scipy.special import ndtri

from retina_codec._common.checks import require_at_least, require_choice, require_count
from retina_codec.stimuli.rendering import (
    NUMBERS_AT_ONCE,
    field_size,
    labelled_movie,
    plain_number,
    positive_number,
)

DISTRIBUTIONS = ("gaussian", "binary")
# The two streams of noise: key words of the generator. Other numbers would change every movie.
RUNNING, FROZEN = 0, 1


def seeded_noise(
    *,
    n_frames: int,
    shape: tuple[int, int],
    seed: int,
    bin_width: float | pq.Quantity,
    distribution: str = "gaussian",
    contrast: float = 1.0,
    mean: float = 0.0,
    check: int = 1,
    hold: int = 1,
    running_frames: int | None = None,
    frozen_frames: int | None = None,
) -> xr.DataArray:
    """White noise from a seed, of any length, with or without a frozen part.

    The values come from the counter-based generator Philox-4x64-10 (Salmon et al., Proc. SC11,
    2011), so a frame does not depend on what is rendered before it. Value ``i`` of a stream
    (pattern by pattern, row by row) is made of word ``i`` of ``numpy.random.Philox(key=seed)`` for
    running frames, ``key=seed + 2**64`` for frozen ones: bright where the word is at least
    ``2**63`` (binary), or the normal quantile of ``(word // 4096 + 1/2) / 2**52`` (Gaussian).

    Parameters
    ----------
    n_frames : int
        Length of the movie.
    shape : tuple of int
        Height and width in pixels; ``(1, 1)`` for a full field.
    seed : int
        Seed of the values, 0 to 2**64 - 1.
    bin_width : float or quantity
        Duration of a frame in seconds.
    distribution : {"gaussian", "binary"}
        Of the values of a pixel; binary: ``mean - contrast`` or ``mean + contrast``.
    contrast : float
        Standard deviation of the values, in either distribution.
    mean : float
        Their mean.
    check : int
        Side in pixels of a square of pixels with one value; cut where it does not fit.
    hold : int
        Frames that a pattern stands.
    running_frames, frozen_frames : int, optional
        The plan of repeats: every block has `running_frames` new frames, then `frozen_frames`
        which are the same in every block. Both whole multiples of `hold`. Without them, all is
        new.

    Returns
    -------
    DataArray
        Lazy movie (time, y, x), float32, dimensionless. `epoch` is ``"noise"``, or with a plan
        ``"running"`` and ``"frozen"``. ``attrs["description"]`` is what `render` takes, as JSON.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If one is out of range, or only one number of the plan is given.

    Examples
    --------
    >>> from retina_codec import stimuli
    >>> hour = stimuli.seeded_noise(n_frames=360_000, shape=(50, 50), seed=1, bin_width=0.01)
    >>> hour.nbytes / 1e9  # GB, none of which is made before it is looked at
    3.6
    >>> bool((hour[200_000:200_003][1] == hour[200_001]).all())
    True
    """
    width = positive_number(bin_width, "s", "bin_width")
    field = field_size(shape, n_frames=n_frames, bin_width=width)
    n_frames = require_count(n_frames, 1, "n_frames")
    seed = require_count(seed, 0, "seed")
    if seed >= 2**64:
        raise ValueError(f"seed={seed}; expected a number below 2**64")
    require_choice(distribution, DISTRIBUTIONS, "distribution")
    deviation = plain_number(contrast, "dimensionless", "contrast")
    require_at_least(deviation, 0, "contrast")
    hold = require_count(hold, 1, "hold")
    plan = _checked_plan(running_frames, frozen_frames, hold)
    noise = _Noise(
        shape=field,
        seed=seed,
        binary=distribution == "binary",
        contrast=deviation,
        mean=plain_number(mean, "dimensionless", "mean"),
        check=require_count(check, 1, "check"),
        hold=hold,
        plan=plan,
    )
    epoch: str | np.ndarray = "noise"
    if plan is not None:
        epoch = np.where(np.arange(n_frames) % sum(plan) < plan[0], "running", "frozen")
    return labelled_movie(
        noise,
        n_frames,
        epoch=epoch,
        kind="seeded_noise",
        parameters={
            "n_frames": n_frames,
            "shape": list(field),
            "seed": seed,
            "bin_width": width,
            "distribution": distribution,
            "contrast": deviation,
            "mean": noise.mean,
            "check": noise.check,
            "hold": hold,
            "running_frames": None if plan is None else plan[0],
            "frozen_frames": None if plan is None else plan[1],
        },
    )


@dataclass(frozen=True)
class _Noise:
    shape: tuple[int, int]
    seed: int
    binary: bool
    contrast: float
    mean: float
    check: int
    hold: int
    plan: tuple[int, int] | None

    def frames(self, start: int, stop: int) -> np.ndarray:
        rows, columns = (np.arange(n) // self.check for n in self.shape)
        made = np.empty((stop - start, *self.shape), dtype=np.float32)
        at_once = max(1, NUMBERS_AT_ONCE // (rows.size * columns.size))
        done = 0
        while done < len(made):
            stream, place, left = self._place(start + done)
            n = min(len(made) - done, left, at_once)
            shown = np.arange(place, place + n) // self.hold
            patterns = self._patterns(stream, shown[0], shown[-1] + 1)
            pattern = (shown - shown[0])[:, None, None]
            made[done : done + n] = patterns[pattern, rows[:, None], columns]
            done += n
        return made

    def _place(self, frame: int) -> tuple[int, int, int]:
        """Stream of a frame, its number in the stream, and how many frames go on from there."""
        if self.plan is None:
            return RUNNING, frame, NUMBERS_AT_ONCE
        running, frozen = self.plan
        block, place = divmod(frame, running + frozen)
        if place < running:
            return RUNNING, block * running + place, running - place
        return FROZEN, place - running, running + frozen - place

    def _patterns(self, stream: int, start: int, stop: int) -> np.ndarray:
        """Patterns (pattern, y, x) of checks, one value each."""
        size = [-(-n // self.check) for n in self.shape]
        first, last = (int(pattern) * size[0] * size[1] for pattern in (start, stop))
        generator = np.random.Philox(
            key=self.seed + stream * 2**64,
            counter=first // 4,  # four words a count
        )
        words = generator.random_raw(last - first // 4 * 4)[first % 4 :]
        if self.binary:
            values = np.where(words >> np.uint64(63), self.contrast, -self.contrast)
        else:
            # 52 bits and the half are exact in float64: never 0 or 1, whose quantiles are infinite.
            values = self.contrast * ndtri(((words >> np.uint64(12)) + 0.5) * 2.0**-52)
        return (self.mean + values).astype(np.float32).reshape(-1, *size)


def _checked_plan(
    running_frames: int | None, frozen_frames: int | None, hold: int
) -> tuple[int, int] | None:
    if running_frames is None and frozen_frames is None:
        return None
    if running_frames is None or frozen_frames is None:
        raise ValueError(
            f"running_frames={running_frames} and frozen_frames={frozen_frames}; a plan of repeats "
            "needs both: give the other, or neither"
        )
    plan = (
        require_count(running_frames, 1, "running_frames"),
        require_count(frozen_frames, 1, "frozen_frames"),
    )
    if plan[0] % hold or plan[1] % hold:
        raise ValueError(
            f"hold={hold} frames, but the plan has running_frames={plan[0]} and frozen_frames="
            f"{plan[1]}; expected whole multiples of hold, so that no pattern lies across both"
        )
    return plan
