"""The movies that a simulated retina is shown in a job."""

from __future__ import annotations

import xarray as xr

from retina_codec import stimuli
from retina_codec.jobs.config import SimulationSettings
from retina_codec.simulation import simulate_retina

DEAD_LEAVES = 3
NOISE_FRAMES = 3000


def simulated_recording(settings: SimulationSettings, seed: int) -> xr.DataTree:
    """Record a simulated retina while it watches natural and artificial movies.

    Nodes: ``train`` (natural movies of one photograph and dead leaves, light steps, gratings,
    bars, white noise); ``test`` (natural movies of the other photograph, repeated); ``probe``
    (natural movie, then epochs of light and motion) and ``noise`` (white noise), which the model
    is not trained on either.

    Parameters
    ----------
    settings : SimulationSettings
        Circuit, size and lengths.
    seed : int
        Of the movies and the spikes.
    """
    shape = (settings.size, settings.size)
    photographs = list(stimuli.photographs().items())
    leaves = {
        f"dead_leaves_{i}": stimuli.dead_leaves(seed=seed + i) for i in range(2 * DEAD_LEAVES)
    }
    of_leaves = list(leaves.items())
    seen = dict(photographs[:1] + of_leaves[:DEAD_LEAVES])
    unseen = dict(photographs[1:] + of_leaves[DEAD_LEAVES:])
    third = settings.artificial_frames // 3
    movies = {
        "train": stimuli.concatenate(
            [
                stimuli.natural_movie(
                    seen, n_frames=settings.natural_frames, shape=shape, seed=seed
                ),
                stimuli.light_steps(n_frames=third, shape=shape, seed=seed),
                stimuli.moving_gratings(n_frames=third, shape=shape, seed=seed),
                stimuli.moving_bars(n_frames=third, shape=shape, seed=seed),
                stimuli.white_noise(n_frames=settings.artificial_frames, shape=shape, seed=seed),
            ]
        ),
        "test": stimuli.natural_movie(
            unseen, n_frames=settings.test_frames, shape=shape, seed=seed + 1
        ),
        "probe": stimuli.concatenate(
            [
                stimuli.natural_movie(
                    unseen, n_frames=settings.test_frames, shape=shape, seed=seed + 2
                ),
                stimuli.probe_movie(
                    seed=seed + 2,
                    shape=shape,
                    n_cycles=settings.probe_cycles,
                    epoch_duration=settings.probe_epoch,
                ),
            ]
        ),
        "noise": stimuli.white_noise(
            n_frames=min(NOISE_FRAMES, settings.natural_frames), shape=shape, seed=seed + 3
        ),
    }
    return simulate_retina(movies, settings.circuit, seed=seed, repeats={"test": settings.repeats})
