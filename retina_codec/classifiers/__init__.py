"""Image classifiers behind the same `Model` as the models of the retina.

Here belongs what turns images into category logits: the wrapper and its normalisation (`model`),
torchvision's architectures (`resnet`), where their units look (`geometry`) and weights from files
(`weights`). Contributions, modes and ablation take these models like any other.
"""

from retina_codec.classifiers.model import Classifier, from_module
from retina_codec.classifiers.resnet import resnet18

__all__ = ["Classifier", "from_module", "resnet18"]
