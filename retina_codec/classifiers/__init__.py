"""Image classifiers behind the same `Model` as the models of the retina.

Here belongs what turns images into category logits: the wrapper and its normalisation (`model`),
torchvision's ResNets and its vision transformer (`resnet`, `vit`), the ResNets for small images
(`cifar_resnet`), what networks with published weights share (`published`, `weights`) and where
their units look (`geometry`). And the images: `images` opens them from arrays, and from the files
that `layouts` finds, read by `pictures`; `preprocessing` is what is done to them, `imagenet` the
names of their categories. Contributions, modes and ablation take these models like any other.
"""

from retina_codec.classifiers.cifar_resnet import cifar_resnet
from retina_codec.classifiers.imagenet import imagenet_names
from retina_codec.classifiers.images import open_images
from retina_codec.classifiers.model import Classifier, from_module
from retina_codec.classifiers.preprocessing import Preprocessing
from retina_codec.classifiers.resnet import resnet18, resnet34, resnet50, resnet101, resnet152
from retina_codec.classifiers.vit import vit_b_16

__all__ = [
    "Classifier",
    "Preprocessing",
    "cifar_resnet",
    "from_module",
    "imagenet_names",
    "open_images",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "vit_b_16",
]
