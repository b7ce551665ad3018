"""Statistics of contributions: how sparse, how many-dimensional, how the two signs relate.

Each says its definition and source. They take contributions, and activations, of any network, in
memory or lazily from a store. `hoyer` has sparsity, `components` what is read off the principal
components, `signs` the two signs, `comparison` contribution beside activation, `by_layer` all of
them for all layers; `categories` which modes stand for which categories, and for the nodes of a
`hierarchy`; `fields` which pixels make a mode help or hinder; `columns` reads labelled arrays as
rows and columns, block by block.
"""

from retina_codec.analysis.by_layer import layer_statistics
from retina_codec.analysis.categories import category_association
from retina_codec.analysis.comparison import compare_with_activation
from retina_codec.analysis.components import dimensionality, participation_ratio
from retina_codec.analysis.fields import contribution_fields, field_masks
from retina_codec.analysis.hoyer import sparsity
from retina_codec.analysis.signs import sign_correlation

__all__ = [
    "category_association",
    "compare_with_activation",
    "contribution_fields",
    "dimensionality",
    "field_masks",
    "layer_statistics",
    "participation_ratio",
    "sign_correlation",
    "sparsity",
]
