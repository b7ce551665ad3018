"""The stimulus that drives a cell, a channel or a mode most, found by gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from retina_codec._common.checks import (
    require_array,
    require_at_least,
    require_count,
    require_finite,
)
from retina_codec._common.progress import progress_counter
from retina_codec._common.provenance import provenance
from retina_codec._common.time import bin_width_of, time_coordinate
from retina_codec.attribution.capture import undisturbed
from retina_codec.models.model import Model, RetinaModel
from retina_codec.modes import Modes
from retina_codec.physiology.objectives import Objective, of_channel, of_mode, of_output

# Of the line search: what an accepted step is multiplied with, a refused one divided by, the
# largest, and below which a start has arrived. A step of 1 is as long as the energy limit.
LONGER, SHORTER, LONGEST, ARRIVED = 1.5, 3.0, 100.0, 1e-4
N_RANDOM = 128
HALVINGS = 30  # of what a stimulus is shrunk by, until it fits the energy limit


def optimize_stimulus(
    model: Model,
    like: xr.DataArray,
    *,
    output: str | None = None,
    layer: str | None = None,
    channel: int | str | None = None,
    unit: tuple[int, int] | None = None,
    modes: Modes | None = None,
    mode: int | None = None,
    n_frames: int | None = None,
    energy: float | None = None,
    limits: tuple[float, float] | None = None,
    smooth_time: float = 0.0,
    smooth_space: float = 0.0,
    restarts: int = 4,
    max_steps: int = 100,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """Find the movie, or image, that drives a cell, a channel or a mode most.

    Gradient ascent from random starts on the contrast to mean grey (what the model's
    normalisation subtracts). Three limits hold exactly at every step: the root mean square of the
    contrast is at most `energy`; values stay within `limits`; and the stimulus is a Gaussian blur
    of something that does, so that it has no detail finer than that. A step is taken only if it
    raises the objective (line search), so the history never falls. Restarts that end in the same
    stimulus speak for one maximum; none proves that there is no better one.

    Parameters
    ----------
    model : Model
        A model of the retina, or a classifier.
    like : xarray.DataArray
        Movie (time, [color,] y, x) or images (image, color, y, x) in recorded units, with dims,
        coordinates and units that the result is to have, and the default limits: its range, and
        its root mean square contrast.
    output : str, optional
        A cell or a category: its output is the objective, or, with `mode`, what contributions are
        to (by default the sum of all outputs).
    layer, channel : str, int or str, optional
        A channel of a hidden layer: the mean over its map is the objective. Of modes that do not
        say their layer, `layer` does.
    unit : (int, int), optional
        One unit (row, column) of that channel instead of the mean.
    modes, mode : Modes, int, optional
        A contribution mode over channels: the objective is the projection of the contributions
        (integrated gradients, 4 steps from mean grey), each divided by its column's scale, on the
        mode's atom. The loading itself, which also depends on the other modes, is had by
        ``modes.transform`` of the result's contributions.
    n_frames : int, optional
        Of a movie; the objective is the mean over its frames with a whole history. By default the
        model's history: one response.
    energy : float, optional
        Largest root mean square contrast, in recorded units.
    limits : (float, float), optional
        Smallest and largest value, in recorded units; mean grey must lie between.
    smooth_time, smooth_space : float
        Standard deviations of the blur: in seconds, and in units of the coordinate `y`.
    restarts : int
        Random starts.
    max_steps : int
        Steps of each, at most.
    seed : int
        Of the starts.
    progress : bool
        Show a progress bar.

    Returns
    -------
    xarray.Dataset
        ``stimulus``, (time, [color,] y, x) or (color, y, x), the best of all restarts, in recorded
        units; ``objective`` (restart, step), in Hz for a cell, which never falls; ``similarity``
        (restart,), correlation of each restart's stimulus with the best; ``random_objective``
        (draw,), of 128 random stimuli under the same limits and as energetic.

    Raises
    ------
    ValueError
        If not exactly one of a cell, a channel and a mode is named, or one is unknown; for limits
        that do not hold mean grey; if no start has a gradient.

    References
    ----------
    Most exciting inputs: Walker et al., Nat. Neurosci. 22, 2060 (2019); Bashivan et al., Science
    364, eaav9436 (2019).

    Examples
    --------
    >>> import retina_codec as rc
    >>> model = rc.load_model("simulated_ln")
    >>> movie = rc.stimuli.Screen(shape=(16, 16)).white_noise(n_frames=60, seed=0)
    >>> found = rc.optimize_stimulus(
    ...     model, movie, output="on_sustained_0", restarts=2, max_steps=20, progress=False
    ... )
    >>> bool(found["objective"].max() > found["random_objective"].max())
    True
    """
    if not isinstance(model, Model):
        raise TypeError(f"model is a {type(model).__name__}; expected a retina_codec.Model")
    data = require_array(like, "like")
    samples = model.samples(data, "like")
    is_movie = isinstance(model, RetinaModel)
    if is_movie and data.dims[0] != "time":
        data = data.transpose("time", ..., "y", "x")
    elif not is_movie:
        data = data.transpose(model.sample_dim, ...)
    require_finite(data, "like")
    restarts = require_count(restarts, 1, "restarts")
    max_steps = require_count(max_steps, 1, "max_steps")
    require_at_least(smooth_time, 0, "smooth_time")
    require_at_least(smooth_space, 0, "smooth_space")
    if n_frames is not None and not is_movie:
        raise ValueError("n_frames is of movies; an image classifier takes one image")
    shape = tuple(data.shape[1:])
    if isinstance(model, RetinaModel):
        frames = require_count(n_frames or model.history, model.history, "n_frames")
        shape = (frames, *shape)
    with undisturbed(model):
        probe = next(iter(samples.batches(1)))
        probe_inputs = probe.select(torch.arange(1))
        objective = _objective(model, probe_inputs, output, layer, channel, unit, modes, mode)
        space = _Space(model, data, shape, energy, limits, smooth_time, smooth_space, is_movie)
        ascent = _Ascent(objective, space)
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.cat(
            [ascent.values(space.random(1, generator)).detach() for _ in range(N_RANDOM)]
        )
        z, history = ascent.run(space.random(restarts, generator), max_steps, progress)
        stimuli = space.recorded(z).cpu().double().numpy()
    best = int(history[:, -1].argmax())
    flat = (stimuli - stimuli.mean(axis=tuple(range(1, stimuli.ndim)), keepdims=True)).reshape(
        restarts, -1
    )
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    units = model.output_units if layer is None and mode is None else "1"
    dims, coords = _labels(data, shape, is_movie)
    of_values = {"units": units, "long_name": "objective"}
    return xr.Dataset(
        {
            "stimulus": (
                dims,
                stimuli[best],
                {"units": str(data.attrs.get("units", "1")), "long_name": "stimulus"},
            ),
            "objective": (("restart", "step"), history, of_values),
            "similarity": (
                "restart",
                flat @ flat[best],
                {"units": "1", "long_name": "correlation with the best stimulus"},
            ),
            "random_objective": (
                "draw",
                drawn.double().cpu().numpy(),
                {**of_values, "long_name": "objective of random stimuli"},
            ),
        },
        coords,
        {
            "model_fingerprint": model.fingerprint,
            **provenance(
                function="optimize_stimulus",
                output=output,
                layer=layer,
                channel=channel,
                unit=unit,
                mode=mode,
                energy=space.energy,
                limits=[space.low, space.high],
                smooth_time=smooth_time,
                smooth_space=smooth_space,
                restarts=restarts,
                max_steps=max_steps,
                seed=seed,
            ),
        },
    )


def _objective(
    model: Model,
    probe: Tensor,
    output: str | None,
    layer: str | None,
    channel: int | str | None,
    unit: tuple[int, int] | None,
    modes: Modes | None,
    mode: int | None,
) -> Objective:
    """Choose what is to be driven."""
    if (modes is None) != (mode is None):
        raise ValueError(f"mode={mode!r}: give modes= and the label of one of them together")
    if unit is not None and channel is None:
        raise ValueError(f"unit={unit}: name its layer and channel")
    if modes is not None and mode is not None:
        if channel is not None:
            raise ValueError("channel and mode are given; a stimulus is made for one of them")
        return of_mode(model, modes, mode, output, layer)
    if channel is not None:
        if layer is None or output is not None:
            raise ValueError(f"channel={channel!r}: name its layer, and no output")
        return of_channel(model, layer, channel, unit, probe)
    if output is None or layer is not None:
        raise ValueError(
            f"name what is to be driven: output=, one of {', '.join(map(str, model.outputs))}; "
            "or layer= and channel=; or modes= and mode="
        )
    return of_output(model, output)


class _Space:
    """Stimuli within the limits: contrast z to mean grey, in recorded units, before its blur."""

    def __init__(
        self,
        model: Model,
        like: xr.DataArray,
        shape: tuple[int, ...],
        energy: float | None,
        limits: tuple[float, float] | None,
        smooth_time: float,
        smooth_space: float,
        is_movie: bool,
    ) -> None:
        self.shape = shape
        self._mean, self._sd = model.normalization
        values = like.values
        if values.dtype == np.uint8:
            values = values / np.float32(255)
        grey = self._mean.cpu().numpy()
        if limits is None:
            limits = float(values.min()), float(values.max())
        self.low, self.high = (float(limit) for limit in limits)
        if not (self.low < float(grey.min()) and float(grey.max()) < self.high):
            raise ValueError(
                f"limits=({self.low:g}, {self.high:g}) do not hold mean grey, "
                f"{float(grey.mean()):g}, between them: it is what the model was trained around"
            )
        if energy is None:
            energy = float(np.sqrt(np.mean((values - grey) ** 2, dtype=np.float64)))
        if not energy > 0:
            raise ValueError(f"energy={energy:g}; expected a positive root mean square contrast")
        self.energy = float(energy)
        self.radius = self.energy * float(np.sqrt(np.prod(shape)))
        sds = {}
        for axis, name in ((len(shape) - 2, "y"), (len(shape) - 1, "x")):
            places = like[name].values
            if len(places) > 1:
                sds[axis] = smooth_space / abs(float(places[1] - places[0]))
        if is_movie:
            sds[0] = smooth_time / bin_width_of(like, "like")
        self._blurs = {axis: _blur(shape[axis], sd, self._mean) for axis, sd in sds.items() if sd}

    def contrast(self, z: Tensor) -> Tensor:
        """Blur z (stimulus, ...): its contrast to mean grey."""
        for axis, matrix in self._blurs.items():
            z = torch.movedim(torch.movedim(z, 1 + axis, -1) @ matrix.T, -1, 1 + axis)
        return z

    def inputs(self, z: Tensor) -> Tensor:
        """Give what the network takes."""
        return self.contrast(z) / self._sd

    def recorded(self, z: Tensor) -> Tensor:
        """Give the stimuli in recorded units."""
        return self.contrast(z) + self._mean

    def within(self, z: Tensor) -> Tensor:
        """Bring z into the limits: the range, and the energy.

        Both at once: z is shrunk towards mean grey until what is left within the range has no
        more than the energy, which without a blur is the nearest stimulus within both limits. A
        blur is a mean, so what is within the range before it is so after it.
        """
        low, high = self.low - self._mean, self.high - self._mean
        each = (-1, *[1] * (z.ndim - 1))

        def shrunk(by: Tensor) -> Tensor:
            return torch.maximum(torch.minimum(z * by.view(each), high), low)

        def fits(by: Tensor) -> Tensor:
            return self.contrast(shrunk(by)).flatten(1).norm(dim=1) <= self.radius

        least, most = torch.zeros(len(z)).to(z), torch.ones(len(z)).to(z)
        whole = fits(most)
        for _ in range(HALVINGS):
            middle = (least + most) / 2
            good = fits(middle)
            least, most = torch.where(good, middle, least), torch.where(good, most, middle)
        return shrunk(torch.where(whole, torch.ones_like(least), least))

    def random(self, n: int, generator: torch.Generator) -> Tensor:
        """Noise that uses all the energy that the range leaves."""
        z = torch.randn((n, *self.shape), generator=generator).to(self._mean)
        size = self.contrast(z).flatten(1).norm(dim=1)
        return self.within(z * (self.radius / size).view(-1, *[1] * (z.ndim - 1)))


def _blur(n: int, sd: float, like: Tensor) -> Tensor:
    """Matrix (n, n) of a Gaussian mean whose weights add up to 1, at the edges too."""
    places = torch.arange(n, dtype=torch.float64)
    weights = torch.exp(-((places[:, None] - places[None]) ** 2) / (2 * sd**2))
    return (weights / weights.sum(1, keepdim=True)).to(like)


class _Ascent:
    """Projected gradient ascent with a line search, of several starts at once."""

    def __init__(self, objective: Objective, space: _Space) -> None:
        self._objective, self._space = objective, space

    def values(self, z: Tensor) -> Tensor:
        """Objective (stimulus,): the mean over what the network gives for each."""
        return self._objective(self._space.inputs(z)).unflatten(0, (len(z), -1)).mean(1)

    def _direction(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Objective, gradient of unit length times the radius, and whether there is one."""
        z = z.detach().requires_grad_()
        values = self.values(z)
        (slope,) = torch.autograd.grad(values.sum(), z)
        length = slope.flatten(1).norm(dim=1)
        scale = self._space.radius / length.clamp(min=1e-30)
        return values.detach(), slope * scale.view(-1, *[1] * (z.ndim - 1)), length > 0

    def run(self, z: Tensor, max_steps: int, progress: bool) -> tuple[Tensor, np.ndarray]:
        """Climb from z (start, ...); give where each arrived, and its history (start, step + 1)."""
        value, direction, alive = self._direction(z)
        if not bool(alive.any()):
            raise ValueError(
                "no start has a gradient: what is to be driven is silent all around them; use "
                "more restarts or a larger energy"
            )
        step = torch.ones_like(value)
        history = [value]
        each = (-1, *[1] * (z.ndim - 1))
        with progress_counter(max_steps, "stimulus", shown=progress) as bar:
            for _ in range(max_steps):
                if not bool((alive & (step > ARRIVED)).any()):
                    break
                trial = self._space.within(z + step.view(each) * direction)
                found, slope, has = self._direction(trial)
                better = found > value
                chosen = better.view(each)
                z = torch.where(chosen, trial, z)
                direction = torch.where(chosen, slope, direction)
                value = torch.where(better, found, value)
                alive = torch.where(better, has, alive)
                step = torch.where(better, (step * LONGER).clamp(max=LONGEST), step / SHORTER)
                history.append(value)
                bar.update()
        return z, torch.stack(history, dim=1).double().cpu().numpy()


def _labels(
    like: xr.DataArray, shape: tuple[int, ...], is_movie: bool
) -> tuple[tuple[str, ...], dict[str, Any]]:
    dims = tuple(map(str, like.dims if is_movie else like.dims[1:]))
    coords: dict[str, Any] = {
        dim: like[dim].variable for dim in dims if dim != "time" and dim in like.coords
    }
    if is_movie:
        width = bin_width_of(like, "like")
        coords["time"] = time_coordinate(width * np.arange(shape[0]), width)
    return dims, coords
