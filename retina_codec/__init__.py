"""Models of the retina, and what each of their interneurons contributes to each response.

>>> import retina_codec as rc
"""

from retina_codec import attribution, models, recordings, stimuli
from retina_codec._common.version import __version__
from retina_codec.attribution import contributions, methods, open_contributions, targets
from retina_codec.models import Model, evaluate, load_model, train
from retina_codec.recordings import (
    open_recording,
    recording_from_neo,
    reliability,
    save_recording,
    spike_triggered_average,
    split,
)
from retina_codec.stimuli import stimulus_features

__all__ = [
    "Model",
    "__version__",
    "attribution",
    "contributions",
    "evaluate",
    "load_model",
    "methods",
    "models",
    "open_contributions",
    "open_recording",
    "recording_from_neo",
    "recordings",
    "reliability",
    "save_recording",
    "spike_triggered_average",
    "split",
    "stimuli",
    "stimulus_features",
    "targets",
    "train",
]
