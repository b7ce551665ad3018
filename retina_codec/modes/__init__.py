"""Contribution modes: recurring teams of hidden units, what they mean, and how stable they are.

Here belongs what is fitted to contributions or computed from loadings: the fit and its
autoencoders (`fit`, `topk`, `baselines`), the result (`result`), the matching of fits
(`matching`) and the link from modes to the stimulus (`describe`, `epochs`).
"""

from retina_codec.modes.describe import describe_modes
from retina_codec.modes.epochs import epoch_selectivity
from retina_codec.modes.fit import fit_modes
from retina_codec.modes.matching import match_modes, stability
from retina_codec.modes.result import Modes, load_modes

__all__ = [
    "Modes",
    "describe_modes",
    "epoch_selectivity",
    "fit_modes",
    "load_modes",
    "match_modes",
    "stability",
]
