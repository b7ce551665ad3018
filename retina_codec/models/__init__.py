"""Models of the retina: networks from movie to rates; training, evaluation, saving.

One module an architecture: `ln`, `glm`, `cnn2016`, `bncnn`, `stacked`, `retinotopic`,
`core_readout` (with `shared_core` for several recordings), `windows` for networks of others,
`deep_retina` for those of torch-deep-retina. `layers` and the modules it names have their
building blocks, and `model` the interface that all rooms below work on. `training` and what it
imports fits them by gradient, `evaluation` judges them.
"""

from retina_codec.models.bncnn import BNCNN
from retina_codec.models.cnn2016 import CNN2016
from retina_codec.models.comparison import paired_difference
from retina_codec.models.core_readout import CoreReadout
from retina_codec.models.deep_retina import load_deep_retina
from retina_codec.models.evaluation import evaluate
from retina_codec.models.glm import GLM
from retina_codec.models.ln import LN
from retina_codec.models.model import LayerGeometry, Model, RetinaModel, UnitLayout
from retina_codec.models.retinotopic import Retinotopic
from retina_codec.models.saving import load_model
from retina_codec.models.segments import joint_batches
from retina_codec.models.shared_core import SharedCore, train_jointly
from retina_codec.models.stacked import StackedBNCNN
from retina_codec.models.training import train
from retina_codec.models.windows import from_module

__all__ = [
    "BNCNN",
    "CNN2016",
    "GLM",
    "LN",
    "CoreReadout",
    "LayerGeometry",
    "Model",
    "RetinaModel",
    "Retinotopic",
    "SharedCore",
    "StackedBNCNN",
    "UnitLayout",
    "evaluate",
    "from_module",
    "joint_batches",
    "load_deep_retina",
    "load_model",
    "paired_difference",
    "train",
    "train_jointly",
]
