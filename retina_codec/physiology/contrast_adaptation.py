"""Contrast adaptation: the fast change of gain, and the slow one of the rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr
from scipy.optimize import minimize_scalar

from retina_codec.physiology.phenomenon import Described, Phenomenon
from retina_codec.physiology.trials import Trial, frames_of, leading_grey, trial_movie
from retina_codec.stimuli.screen import Screen

LAGS = 0.35  # seconds of the filter
LARGEST_RATIO = 8.0
N_BINS = 30  # of the nonlinearity
LEAST_EXPLAINED = 0.1
SOURCE = (
    "Baccus & Meister, Neuron 36:909 (2002): Gaussian flicker of two contrasts; gain as the scale "
    "along x of one nonlinearity: Chander & Chichilnisky, J. Neurosci. 21:9904 (2001)"
)


@dataclass(frozen=True)
class ContrastGain(Phenomenon):
    """Full-field Gaussian flicker of low and high contrast: the fast change of gain.

    One filter (by least squares, at high contrast) gives the drive x; N is the mean rate against x
    at high contrast. `gain_ratio` is the a for which N(a x) fits the rate at low
    contrast best: how much more sensitive the cell is at low contrast. 1 for a linear cell and for
    any cell that is a linear filter and a nonlinearity, above 1 with contrast gain control. NaN
    where filter and nonlinearity of one half explain less than a tenth of the variance of the other
    half at high contrast.

    Examples
    --------
    >>> import retina_codec as rc
    >>> flicker = rc.physiology.ContrastGain(duration=1.0)
    >>> movie = flicker.movie(rc.stimuli.Screen(shape=(2, 2)))
    >>> low, high = (movie.sel(time=movie["contrast"] == c).std() for c in (0.4, 1.2))
    >>> round(float(high / low), 3)
    3.0
    """

    name = "contrast_gain"
    indices: ClassVar[Described] = {"gain_ratio": ("1", "gain at low over gain at high contrast")}
    source = SOURCE
    conditions: ClassVar[Described] = {"contrast": ("1", "standard deviation of the flicker")}
    also = ("level",)

    low: float = 0.4
    high: float = 1.2
    duration: float = 15.0
    hold: float = 0.03
    seed: int = 0

    def _movie(self, screen: Screen, lead: float, centre: tuple[float, float]) -> xr.DataArray:
        n, hold = frames_of(screen, self.duration), frames_of(screen, self.hold)
        noise = np.random.default_rng(self.seed).normal(size=-(-n // hold)).repeat(hold)[:n]
        trials = [
            Trial(contrast * noise, "flicker", conditions={"contrast": contrast})
            for contrast in (self.low, self.high)
        ]
        movie = trial_movie(
            screen,
            trials,
            lead=lead,
            units=self.conditions,
            phenomenon=self.name,
            low=self.low,
            high=self.high,
            seed=self.seed,
        )
        level = xr.DataArray(
            movie.values[:, 0, 0], dims="time", attrs={"units": "1", "long_name": "contrast shown"}
        )
        return movie.assign_coords(level=level)

    def _measure(self, rate: xr.DataArray) -> xr.Dataset:
        trials = self._trials(rate)
        shown = ~leading_grey(rate)
        contrast = rate["contrast"].values
        n_lags = round(LAGS / trials["onset"].attrs["bin_width"])
        # The leads of grey stand before each: a drive of the first frames sees them.
        parts = [
            _windows(rate["level"].values, rate.values, np.isclose(contrast, c), shown, n_lags)
            for c in np.unique(contrast)
        ]
        found = [_gain_ratio(parts, cell) for cell in range(rate.sizes["cell"])]
        ratio, explained = np.asarray(found).T
        moved = np.stack([np.ptp(rates, axis=0) for _, rates in parts]).max(0)
        silent = moved < self.least_response
        reason = np.where(
            silent,
            f"no response: flicker moves the rate by less than {self.least_response:g} Hz",
            np.where(
                explained < LEAST_EXPLAINED,
                f"a filter and a nonlinearity explain less than {LEAST_EXPLAINED:g} of the "
                "variance: no gain",
                f"the rate at low contrast fits no gain ratio below {LARGEST_RATIO:g}",
            ),
        )
        kept = xr.DataArray(
            explained,
            dims="cell",
            coords={"cell": rate["cell"]},
            attrs={"units": "1", "long_name": "variance explained by filter and nonlinearity"},
        )
        return self._table(
            {"gain_ratio": ratio}, silent, reason, rate, explained=kept, response=trials
        )


def _windows(
    level: np.ndarray, rates: np.ndarray, of: np.ndarray, shown: np.ndarray, n_lags: int
) -> tuple[np.ndarray, np.ndarray]:
    """Windows (frame, lag) of the flicker at one contrast, and rates (frame, cell)."""
    frames = np.flatnonzero(of & shown)[n_lags - 1 :]
    return level[frames[:, None] - np.arange(n_lags)], rates[frames]


def _gain_ratio(parts: list[tuple[np.ndarray, np.ndarray]], cell: int) -> tuple[float, float]:
    """Gain at low over gain at high contrast, and the share that the description explains."""
    (low_seen, low_rates), (high_seen, high_rates) = parts
    low, high = low_rates[:, cell], high_rates[:, cell]
    if high.var() == 0:
        return np.nan, 0.0
    half = len(high) // 2
    folds = (slice(None, half), slice(half, None))
    # Each half by what describes the other.
    explained = float(
        np.mean(
            [
                _explained(_description(high_seen[a], high[a]), high_seen[b], high[b])
                for a, b in (folds, folds[::-1])
            ]
        )
    )
    if explained < LEAST_EXPLAINED:
        return np.nan, explained
    kernel, places, heights = _description(high_seen, high)
    x_low = low_seen @ kernel

    def error(log_ratio: float) -> float:
        return float(np.mean((low - np.interp(np.exp(log_ratio) * x_low, places, heights)) ** 2))

    reach = np.log(LARGEST_RATIO)
    # Several valleys are possible: the best of a coarse row is refined.
    row = np.linspace(-reach, reach, 41)
    errors = [error(value) for value in row]
    at = int(np.argmin(errors))
    if at in (0, len(row) - 1) or low.var() == 0:
        return np.nan, explained
    best = minimize_scalar(error, bounds=(row[at - 1], row[at + 1]), method="bounded")
    return float(np.exp(best.x)), explained


def _description(seen: np.ndarray, rate: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Filter, and the nonlinearity as mean rates at drives."""
    # Least squares and not the average alone: held frames are correlated.
    kernel = np.linalg.lstsq(np.c_[seen, np.ones(len(rate))], rate, rcond=None)[0][:-1]
    drive = seen @ kernel
    chunks = np.array_split(np.argsort(drive), N_BINS)
    places = np.array([drive[chunk].mean() for chunk in chunks])
    heights = np.array([rate[chunk].mean() for chunk in chunks])
    return kernel, places, heights


def _explained(
    description: tuple[np.ndarray, np.ndarray, np.ndarray], seen: np.ndarray, rate: np.ndarray
) -> float:
    """Share of the variance of a rate that filter and nonlinearity explain."""
    kernel, places, heights = description
    error = np.mean((rate - np.interp(seen @ kernel, places, heights)) ** 2)
    return float(1 - error / rate.var()) if rate.var() > 0 else 0.0


@dataclass(frozen=True)
class SlowAdaptation(Phenomenon):
    """Full-field flicker that goes from low to high contrast: the slow decline of the rate.

    - `slow_adaptation_index` = (early - late) / (early + late), mean rates from 0.5 to 1.5 s after
      the switch to high contrast and in the last second: above 0 where the rate declines.

    A model must see further back than `memory` seconds to show it: others get NaN with that reason.

    Examples
    --------
    >>> import retina_codec as rc
    >>> slow = rc.physiology.SlowAdaptation()
    >>> slow.unfit(rc.stimuli.Screen(), memory=0.4)
    'needs a memory of at least 2 s; the model sees the last 0.4 s'
    """

    name = "slow_adaptation"
    indices: ClassVar[Described] = {
        "slow_adaptation_index": ("1", "(early - late) / (early + late)")
    }
    source = (
        "Smirnakis, Berry, Warland, Bialek & Meister, Nature 386:69 (1997): rate after a switch to "
        "high contrast"
    )
    conditions: ClassVar[Described] = {
        "contrast": ("1", "standard deviation of the flicker after the switch")
    }

    low: float = 0.3
    high: float = 1.0
    before: float = 5.0
    duration: float = 10.0
    hold: float = 0.03
    memory: float = 2.0
    n_repeats: int = 4
    seed: int = 0

    def _memory(self) -> float:
        return self.memory

    def _movie(self, screen: Screen, lead: float, centre: tuple[float, float]) -> xr.DataArray:
        n_before, n = frames_of(screen, self.before), frames_of(screen, self.duration)
        hold = frames_of(screen, self.hold)
        rng = np.random.default_rng(self.seed)
        scale = np.r_[np.full(n_before, self.low), np.full(n, self.high)]
        epoch = np.r_[np.full(n_before, "low"), np.full(n, "high")]
        trials = [
            Trial(
                scale * rng.normal(size=-(-len(scale) // hold)).repeat(hold)[: len(scale)],
                epoch,
                event=n_before,
                conditions={"contrast": self.high},
            )
            for _ in range(self.n_repeats)
        ]
        return trial_movie(
            screen,
            trials,
            lead=lead,
            units=self.conditions,
            phenomenon=self.name,
            low=self.low,
            high=self.high,
            seed=self.seed,
        )

    def _measure(self, rate: xr.DataArray) -> xr.Dataset:
        trials = self._trials(rate)
        onset = trials["onset"].values
        early = (onset >= 0.5 - 1e-9) & (onset < 1.5 - 1e-9)
        late = onset >= onset[-1] - 1.0 + 1e-9
        means = [trials.isel(onset=part).mean(("trial", "onset")).values for part in (early, late)]
        with np.errstate(invalid="ignore", divide="ignore"):
            index = (means[0] - means[1]) / (means[0] + means[1])
        moved = np.ptp(np.nan_to_num(trials.values), axis=(0, 1))
        return self._table(
            {"slow_adaptation_index": index},
            moved < self.least_response,
            f"no response: flicker moves the rate by less than {self.least_response:g} Hz",
            rate,
            response=trials,
        )
