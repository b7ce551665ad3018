"""Pictures of labelled results, with matplotlib.

Every function takes a result of another room and returns the Axes that it drew on. Those of one
panel take ``ax=``, those of several ``figure=``; without it they make a new figure. Nothing is
shown and no global setting changed. Legends and labels stand beside the data: give figures of your
own ``layout="constrained"``. `style` holds what all pictures share.
"""

from retina_codec.plot.alignment import alignment
from retina_codec.plot.classifiers import (
    category_association,
    layer_statistics,
    mode_page,
    ranking_comparison,
)
from retina_codec.plot.comparisons import epoch_selectivity, interneuron_match
from retina_codec.plot.decomposition import contribution
from retina_codec.plot.interneurons import interneuron_fields, interneuron_map
from retina_codec.plot.interventions import ablation_curve, silencing_effects
from retina_codec.plot.kernels import filters
from retina_codec.plot.mode_choice import mode_choice
from retina_codec.plot.mode_filters import dictionary_with_filters
from retina_codec.plot.mode_maps import coactivation, dictionary, mode_cells, mode_features
from retina_codec.plot.mode_reading import cell_clusters, mode_triggered_average, mode_tuning
from retina_codec.plot.movies import movie_frames
from retina_codec.plot.optimized import optimized_stimulus
from retina_codec.plot.phenomena import (
    explanation,
    phenomena_agreement,
    phenomena_table,
    phenomenon,
)
from retina_codec.plot.quality import reliability, scores, training
from retina_codec.plot.receptive_fields import (
    fields_over_time,
    mode_conditioned_fields,
    receptive_field,
)
from retina_codec.plot.recovered import burst, recovery, recovery_curve
from retina_codec.plot.responses import prediction
from retina_codec.plot.timeline import mode_timeline

__all__ = [
    "ablation_curve",
    "alignment",
    "burst",
    "category_association",
    "cell_clusters",
    "coactivation",
    "contribution",
    "dictionary",
    "dictionary_with_filters",
    "epoch_selectivity",
    "explanation",
    "fields_over_time",
    "filters",
    "interneuron_fields",
    "interneuron_map",
    "interneuron_match",
    "layer_statistics",
    "mode_cells",
    "mode_choice",
    "mode_conditioned_fields",
    "mode_features",
    "mode_page",
    "mode_timeline",
    "mode_triggered_average",
    "mode_tuning",
    "movie_frames",
    "optimized_stimulus",
    "phenomena_agreement",
    "phenomena_table",
    "phenomenon",
    "prediction",
    "ranking_comparison",
    "receptive_field",
    "recovery",
    "recovery_curve",
    "reliability",
    "scores",
    "silencing_effects",
    "training",
]
