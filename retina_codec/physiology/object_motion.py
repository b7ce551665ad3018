"""Object motion sensitivity: motion of a patch against its background, and with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from retina_codec.physiology.phenomenon import Described, Phenomenon
from retina_codec.physiology.trials import Trial, frames_of, resting, trial_movie, within
from retina_codec.stimuli.screen import Screen

GLOBAL, DIFFERENTIAL = 0.0, 1.0


@dataclass(frozen=True)
class ObjectMotion(Phenomenon):
    """A grating in a disc jitters with the one round it, or each its own way.

    The movies are those of `retina_codec.stimuli.differential_motion`, the disc at the centre of
    each cell's receptive field.

    - `object_motion_index` = (D - G) / (D + G), D and G the mean rates when object and background
      move differently and together, after the first `settle` seconds: above 0 where differential
      motion is answered more, and global motion suppressed.

    Examples
    --------
    >>> import retina_codec as rc
    >>> jitter = rc.physiology.ObjectMotion(n_walks=1)
    >>> movie = jitter.movie(rc.stimuli.Screen(shape=(14, 14)))
    >>> sorted(set(movie["epoch"].values.tolist()))
    ['differential_motion', 'global_motion', 'grey']
    """

    name = "object_motion"
    indices: ClassVar[Described] = {
        "object_motion_index": ("1", "(differential - global) / (differential + global)"),
    }
    source = (
        "Olveczky, Baccus & Meister, Nature 423:401 (2003): jittering gratings; normalised "
        "difference of the mean rates"
    )
    conditions: ClassVar[Described] = {
        "differential": ("1", "0 = object and background move together, 1 = each its own way"),
        "walk": ("1", "number of the random walk"),
    }
    centred = True

    contrast: float = 1.0
    period: float = 400.0
    radius: float = 250.0
    jitter: float = 250.0
    duration: float = 1.0
    settle: float = 0.3
    n_walks: int = 8
    seed: int = 0

    def _size(self) -> tuple[float, float]:
        # The background must be there, on both sides of the object at least.
        return 2 * self.radius, 2 * self.radius + 100.0

    def _coarsest_pixel(self) -> float:
        return self.period / 4

    def _memory(self) -> float:
        return 0.02

    def _movie(self, screen: Screen, lead: float, centre: tuple[float, float]) -> xr.DataArray:
        trials = []
        for walk in range(self.n_walks):
            for differential in (GLOBAL, DIFFERENTIAL):
                motion = "differential_motion" if differential else "global_motion"
                shown = screen.differential_motion(
                    n_frames=frames_of(screen, self.duration),
                    seed=self.seed + walk,
                    duration=(self.duration, self.duration),
                    period=self.period,
                    radius=self.radius,
                    centre=centre,
                    jitter=self.jitter,
                    contrast=self.contrast,
                    motions=(motion,),
                )
                given = {"differential": differential, "walk": walk}
                trials.append(Trial(shown.values, motion, conditions=given))
        return trial_movie(
            screen,
            trials,
            lead=lead,
            units=self.conditions,
            phenomenon=self.name,
            contrast=self.contrast,
            period=self.period,
            radius=self.radius,
            jitter=self.jitter,
            centre=list(centre),
            seed=self.seed,
        )

    def _measure(self, rate: xr.DataArray) -> xr.Dataset:
        trials, rest = self._trials(rate), resting(rate)
        seen = within(trials, self.settle, np.inf)
        top = (seen - rest).max(("trial", "onset"))
        means = {
            differential: seen.isel(trial=trials["differential"].values == differential)
            .mean(("trial", "onset"))
            .values
            for differential in (GLOBAL, DIFFERENTIAL)
        }
        with np.errstate(invalid="ignore", divide="ignore"):
            total = means[DIFFERENTIAL] + means[GLOBAL]
            index = (means[DIFFERENTIAL] - means[GLOBAL]) / total
        kept = {
            name: xr.DataArray(
                values,
                dims="cell",
                coords={"cell": rate["cell"]},
                attrs={
                    "units": "Hz",
                    "long_name": f"mean rate in {name.replace('_rate', '')} motion",
                },
            )
            for name, values in (
                ("differential_rate", means[DIFFERENTIAL]),
                ("global_rate", means[GLOBAL]),
            )
        }
        return self._table(
            {"object_motion_index": index},
            top < self.least_response,
            self._no_response("the largest rate during motion"),
            rate,
            **kept,
            response=trials,
        )

    def compared(
        self, movie: xr.DataArray, found: xr.Dataset
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Pair differential with global motion, walk by walk."""
        kept = movie["onset"].values >= self.settle - 1e-9
        walk, differential = movie["walk"].values, movie["differential"].values
        return [
            tuple(kept & (walk == one) & (differential == kind) for kind in (DIFFERENTIAL, GLOBAL))
            for one in np.unique(walk)
        ]
