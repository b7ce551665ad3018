"""The embedded example: a simulated retina, small enough for a laptop."""

from __future__ import annotations

from retina_codec.jobs.config import (
    ContributionSettings,
    Job,
    ModelSettings,
    ModeSettings,
    SimulationSettings,
    TrainingSettings,
)


def demo_job(folder: str, *, quick: bool = False, seed: int = 0) -> Job:
    """Give the settings of ``retina-codec demo``.

    Parameters
    ----------
    folder : str
        Where the results go.
    quick : bool
        A small version in about a minute, to see that everything runs: too little data to
        believe its results.
    seed : int
        Of everything that is drawn at random.

    Returns
    -------
    Job
        For `run_job`.

    Examples
    --------
    >>> from retina_codec.jobs import demo_job
    >>> demo_job("runs/demo").simulation.natural_frames
    20000
    """
    return Job(
        folder=folder,
        title="A simulated retina: which interneurons drive which ganglion cells, and with what",
        simulation=(
            SimulationSettings(
                natural_frames=2000,
                artificial_frames=600,
                test_frames=400,
                repeats=10,
                probe_cycles=1,
                probe_epoch=0.4,
            )
            if quick
            else SimulationSettings()
        ),
        model=ModelSettings(history=40, channels=[8, 8], kernel_sizes=[9, 7]),
        training=TrainingSettings(max_epochs=9 if quick else 12),
        contributions=ContributionSettings(
            node="probe", steps=4 if quick else 8, layers=["relu2"] if quick else None
        ),
        modes=ModeSettings(
            n_modes=12 if quick else 32,
            k=2,
            max_epochs=30 if quick else 200,
            population_modes=32 if quick else 128,
        ),
        seed=seed,
    )
