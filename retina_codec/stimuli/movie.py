"""A movie as the package keeps it: contrast over (time, y, x), in blocks, with labelled epochs."""

from __future__ import annotations

from collections.abc import Sequence

import dask.array as da
import numpy as np
import xarray as xr

from retina_codec._common.checks import require_count, require_dims
from retina_codec._common.time import bin_width_of, block_coordinate, runs_of, time_coordinate

BLOCK_GAP = 1.0  # seconds between the blocks that `concatenate` joins


def require_size(n_frames: int, shape: tuple[int, int], bin_width: float) -> None:
    """Raise unless a movie of `n_frames` frames of `shape` pixels can be made."""
    require_count(n_frames, 1, "n_frames")
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"shape={shape!r}; expected (height, width) in pixels, each at least 1")
    if not bin_width > 0:
        raise ValueError(f"bin_width={bin_width!r}; expected a duration in seconds above 0")


def require_range(limits: tuple[float, float], argument: str, *, above: float = 0.0) -> None:
    """Raise unless `limits` is an ordered pair of numbers above `above`."""
    if len(limits) != 2 or not above < limits[0] <= limits[1]:
        raise ValueError(
            f"{argument}={limits!r}; expected (lowest, highest), in that order, above {above:g}"
        )


def duration_in_frames(
    rng: np.random.Generator, duration: tuple[float, float], bin_width: float
) -> int:
    """Draw a duration in seconds and give it in frames, at least one."""
    return max(1, round(rng.uniform(*duration) / bin_width))


def pixel_grid(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Position (y, x) of every pixel relative to the middle of the field."""
    y, x = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing="ij")
    return y, x


def position_along(shape: tuple[int, int], direction: float) -> np.ndarray:
    """Position of every pixel along `direction` (degrees), from the middle, in pixels."""
    y, x = pixel_grid(shape)
    angle = np.deg2rad(direction)
    return np.cos(angle) * x + np.sin(angle) * y


def make_movie(
    frames: np.ndarray | da.Array,
    *,
    bin_width: float,
    epoch: str | Sequence[str] | np.ndarray,
    direction: float | np.ndarray = np.nan,
    attrs: dict[str, str] | None = None,
) -> xr.DataArray:
    """Label `frames` (time, y, x): one block, with an epoch and a direction for every frame.

    Frames of dask are not loaded.
    """
    n_frames, height, width = frames.shape
    return xr.DataArray(
        frames.astype(np.float32, copy=False),
        dims=("time", "y", "x"),
        coords={
            "time": time_coordinate(np.arange(n_frames) * bin_width, bin_width),
            "block": block_coordinate(np.zeros(n_frames)),
            "epoch": epoch_coordinate(np.broadcast_to(epoch, n_frames)),
            "direction": direction_coordinate(np.broadcast_to(direction, n_frames)),
            "y": ("y", np.arange(height), {"units": "pixel"}),
            "x": ("x", np.arange(width), {"units": "pixel"}),
        },
        name="stimulus",
        attrs={"units": "1", "long_name": "contrast, 0 = mean grey", **(attrs or {})},
    )


def epoch_coordinate(labels: np.ndarray) -> xr.DataArray:
    """Return the `epoch` coordinate: what each frame shows."""
    return xr.DataArray(
        np.asarray(labels, dtype=str), dims="time", attrs={"long_name": "what the frame shows"}
    )


def direction_coordinate(degrees: np.ndarray) -> xr.DataArray:
    """Return the `direction` coordinate: where the picture moves, NaN where it does not."""
    return xr.DataArray(
        np.array(degrees, dtype=np.float64),
        dims="time",
        attrs={"units": "degree", "long_name": "direction of motion, 0 = +x, 90 = +y"},
    )


def concatenate(movies: Sequence[xr.DataArray]) -> xr.DataArray:
    """Join movies along time, each as a block of its own.

    Time grows throughout: a movie starts one second after the last bin of the one before it ends.
    Blocks that a movie already has stay apart, with the gaps they had.

    Parameters
    ----------
    movies : sequence of DataArray
        Movies (time, y, x) of one field and one bin width.

    Returns
    -------
    DataArray
        Contrast (time, y, x) with the coordinates `time` (s), `block`, `epoch` (``""`` where a
        movie has none) and `direction` (degrees, NaN where a movie has none).

    Raises
    ------
    ValueError
        If there is no movie, or if their fields or bin widths differ.

    Examples
    --------
    >>> from retina_codec import stimuli
    >>> steps = stimuli.light_steps(n_frames=100, seed=0)
    >>> noise = stimuli.white_noise(n_frames=50, seed=0)
    >>> both = stimuli.concatenate([steps, noise])
    >>> both.sizes["time"], both["block"].values[[99, 100]].tolist()
    (150, [0, 1])
    >>> [round(float(t), 2) for t in both["time"][[99, 100]]]
    [0.99, 2.0]
    """
    if len(movies) == 0:
        raise ValueError("movies is empty; expected at least one DataArray (time, y, x)")
    parts = [
        require_dims(movie, ("time", "y", "x"), f"movies[{i}]") for i, movie in enumerate(movies)
    ]
    first = parts[0]
    bin_width = bin_width_of(first, "movies[0]")
    for i, part in enumerate(parts):
        for dim in ("y", "x"):
            if not np.array_equal(part[dim].values, first[dim].values):
                raise ValueError(
                    f"movies[{i}] has another coordinate {dim!r} ({part.sizes[dim]} pixels) than "
                    f"movies[0] ({first.sizes[dim]} pixels): cut or resample it to the same field"
                )
        other = bin_width_of(part, f"movies[{i}]")
        if not np.isclose(other, bin_width):
            raise ValueError(
                f"movies[{i}] has a bin width of {other:g} s, movies[0] of {bin_width:g} s: "
                "resample it to the same bin width"
            )
    onsets: list[np.ndarray] = []
    blocks: list[np.ndarray] = []
    start, n_blocks = 0.0, 0
    for i, part in enumerate(parts):
        time = part["time"].values
        if i == 0:
            start = float(time[0])
        onsets.append(time - time[0] + start)
        for run in runs_of(part):
            blocks.append(np.full(run.stop - run.start, n_blocks))
            n_blocks += 1
        start = float(onsets[-1][-1]) + bin_width + BLOCK_GAP
    return xr.DataArray(
        np.concatenate([part.values for part in parts]),
        dims=first.dims,
        coords={
            "time": time_coordinate(np.concatenate(onsets), bin_width),
            "block": block_coordinate(np.concatenate(blocks)),
            "epoch": epoch_coordinate(
                np.concatenate([_along(part, "epoch", "") for part in parts])
            ),
            "direction": direction_coordinate(
                np.concatenate([_along(part, "direction", np.nan) for part in parts])
            ),
            "y": first["y"],
            "x": first["x"],
        },
        name="stimulus",
        attrs=first.attrs,
    )


def _along(movie: xr.DataArray, name: str, missing: object) -> np.ndarray:
    if name in movie.coords:
        return movie[name].values
    return np.full(movie.sizes["time"], missing)
