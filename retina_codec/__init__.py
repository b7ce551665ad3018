"""Models of the retina, and what each of their interneurons contributes to each response.

>>> import retina_codec as rc
"""

from retina_codec import (
    attribution,
    classifiers,
    interneurons,
    models,
    modes,
    plot,
    recordings,
    reporting,
    simulation,
    stimuli,
)
from retina_codec._common.files import open_tree, save_tree
from retina_codec._common.time import time_coordinate
from retina_codec._common.version import __version__
from retina_codec.attribution import contributions, methods, open_contributions, targets
from retina_codec.interneurons import compare_interneurons
from retina_codec.models import Model, evaluate, load_model, train
from retina_codec.modes import (
    Modes,
    describe_modes,
    epoch_selectivity,
    fit_modes,
    load_modes,
    match_modes,
)
from retina_codec.recordings import (
    open_recording,
    recording_from_neo,
    reliability,
    save_recording,
    spike_triggered_average,
    split,
)
from retina_codec.reporting import report
from retina_codec.simulation import simulate_retina
from retina_codec.stimuli import stimulus_features

__all__ = [
    "Model",
    "Modes",
    "__version__",
    "attribution",
    "classifiers",
    "compare_interneurons",
    "contributions",
    "describe_modes",
    "epoch_selectivity",
    "evaluate",
    "fit_modes",
    "interneurons",
    "load_model",
    "load_modes",
    "match_modes",
    "methods",
    "models",
    "modes",
    "open_contributions",
    "open_recording",
    "open_tree",
    "plot",
    "recording_from_neo",
    "recordings",
    "reliability",
    "report",
    "reporting",
    "save_recording",
    "save_tree",
    "simulate_retina",
    "simulation",
    "spike_triggered_average",
    "split",
    "stimuli",
    "stimulus_features",
    "targets",
    "time_coordinate",
    "train",
]
