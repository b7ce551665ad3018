"""Hidden units of a model against recorded interneurons.

Here belongs the comparison on the same stimulus (`comparison`), its running correlations
(`moments`) and its chance level (`shifts`). What an interneuron contributes is computed in
`retina_codec.attribution`.
"""

from retina_codec.interneurons.comparison import compare_interneurons

__all__ = ["compare_interneurons"]
