"""Models of the retina: networks from movie to rates; training, evaluation, saving.

One module an architecture (`bncnn`, `ln`, `windows` for networks of others), `layers` for their
building blocks, and `model` for the interface that all rooms below work on.
"""

from retina_codec.models.bncnn import BNCNN
from retina_codec.models.evaluation import evaluate
from retina_codec.models.ln import LN
from retina_codec.models.model import LayerGeometry, Model, RetinaModel
from retina_codec.models.saving import load_model
from retina_codec.models.training import train
from retina_codec.models.windows import from_module

__all__ = [
    "BNCNN",
    "LN",
    "LayerGeometry",
    "Model",
    "RetinaModel",
    "evaluate",
    "from_module",
    "load_model",
    "train",
]
