"""Image classifiers behind the same `Model` as the models of the retina.

Here belongs what turns images into category logits: the wrapper and its normalisation (`model`),
torchvision's ResNets and its vision transformer (`resnet`, `vit`), the ResNets for small images
(`cifar_resnet`), what networks with published weights share (`published`, `weights`) and where
their units look (`geometry`). Contributions, modes and ablation take these models like any other.
"""

from retina_codec.classifiers.cifar_resnet import cifar_resnet
from retina_codec.classifiers.model import Classifier, from_module
from retina_codec.classifiers.resnet import resnet18, resnet34, resnet50, resnet101, resnet152
from retina_codec.classifiers.vit import vit_b_16

__all__ = [
    "Classifier",
    "cifar_resnet",
    "from_module",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "vit_b_16",
]
