"""Contribution modes: recurring teams of hidden units, what they mean, and how stable they are.

Here belongs what is fitted to contributions or computed from loadings: the fit and its
autoencoders (`fit`, `training`, `linear`, `codec`, `baselines`) of rows that may be larger than
memory (`rows`), the result (`result`), the matching and choosing of fits (`matching`, `refits`,
`choosing`), the link from modes to the stimulus (`describe` by `association` with the null of
`shift_null`, in words by `labels`; `epochs`, `tuning`), and what modes share (`reading`).
"""

from retina_codec.modes.choosing import choose_modes
from retina_codec.modes.describe import describe_modes
from retina_codec.modes.epochs import epoch_selectivity
from retina_codec.modes.fit import fit_modes
from retina_codec.modes.matching import match_modes
from retina_codec.modes.reading import cluster_cells, coactivation, mode_triggered_average
from retina_codec.modes.refits import consensus_modes, stability
from retina_codec.modes.result import Modes, load_modes
from retina_codec.modes.target_score import target_reconstruction
from retina_codec.modes.tuning import epoch_tuning, response_association

__all__ = [
    "Modes",
    "choose_modes",
    "cluster_cells",
    "coactivation",
    "consensus_modes",
    "describe_modes",
    "epoch_selectivity",
    "epoch_tuning",
    "fit_modes",
    "load_modes",
    "match_modes",
    "mode_triggered_average",
    "response_association",
    "stability",
    "target_reconstruction",
]
