"""Interventions: units, channels and modes of a network silenced, scaled or kept alone.

Here belongs whatever makes a new model out of one by acting on its hidden layers, and the curves
of what that does to outputs, to phenomena of `retina_codec.physiology` and to categories.
"""

from retina_codec.interventions.ablation import ablate, preserve
from retina_codec.interventions.curves import ablation_curve
from retina_codec.interventions.effects import index_effects, silencing_effects
from retina_codec.interventions.selectivity import compare_rankings, rank_by_mode
from retina_codec.interventions.without import responses_without

__all__ = [
    "ablate",
    "ablation_curve",
    "compare_rankings",
    "index_effects",
    "preserve",
    "rank_by_mode",
    "responses_without",
    "silencing_effects",
]
