from . import (
    analysis,
    attribution,
    catalogue,
    classifiers,
    interneurons,
    interventions,
    models,
    modes,
    physiology,
    plot,
    recordings,
    reporting,
    simulation,
    stimuli,
    validation,
)
from ._common.files import open_tree, save_tree
from ._common.time import time_coordinate
from .attribution import contributions, methods, open_contributions, targets
from .interneurons import compare_interneurons
from .interventions import ablate, ablation_curve, preserve
from .models import Model, evaluate, load_model, train
from .modes import (
    Modes,
    choose_modes,
    describe_modes,
    epoch_selectivity,
    fit_modes,
    load_modes,
    match_modes,
)
from .physiology import (
    explain,
    instantaneous_receptive_field,
    optimize_stimulus,
    phenomena,
    separate,
)
from .recordings import (
    check_alignment,
    open_recording,
    recording_from_neo,
    reliability,
    save_recording,
    spike_triggered_average,
    split,
)
from .reporting import report
from .simulation import simulate_retina
from .stimuli import stimulus_features
from .validation import benchmark_recovery

__version__: str

__all__ = [
    "Model",
    "Modes",
    "ablate",
    "ablation_curve",
    "analysis",
    "attribution",
    "benchmark_recovery",
    "catalogue",
    "check_alignment",
    "choose_modes",
    "classifiers",
    "compare_interneurons",
    "contributions",
    "describe_modes",
    "epoch_selectivity",
    "evaluate",
    "explain",
    "fit_modes",
    "instantaneous_receptive_field",
    "interneurons",
    "interventions",
    "load_model",
    "load_modes",
    "match_modes",
    "methods",
    "models",
    "modes",
    "open_contributions",
    "open_recording",
    "open_tree",
    "optimize_stimulus",
    "phenomena",
    "physiology",
    "plot",
    "preserve",
    "recording_from_neo",
    "recordings",
    "reliability",
    "report",
    "reporting",
    "save_recording",
    "save_tree",
    "separate",
    "simulate_retina",
    "simulation",
    "spike_triggered_average",
    "split",
    "stimuli",
    "stimulus_features",
    "targets",
    "time_coordinate",
    "train",
    "validation",
]
