"""Hidden units of a model against recorded interneurons.

Here belongs the comparison on the same stimuli (`comparison`; `several` models), with its running
correlations (`moments`, `search`), its choice of units (`choosing`), their places (`places`) and
their combination (`combination`), its chance level (`shifts`) and what holds over cells (`cells`).
What an interneuron contributes is computed in `retina_codec.attribution`.
"""

from retina_codec.interneurons.alignment import resample_potential
from retina_codec.interneurons.cells import over_cells
from retina_codec.interneurons.comparison import compare_interneurons
from retina_codec.interneurons.fields import receptive_fields
from retina_codec.interneurons.several import compare_models

__all__ = [
    "compare_interneurons",
    "compare_models",
    "over_cells",
    "receptive_fields",
    "resample_potential",
]
