"""Contributions of hidden units: targets, methods, the path engine, labelled results.

`targets` says what is decomposed, `methods` how, `capture` catches hidden layers, `engine` walks
the path, and `contributions` puts labels around it.
"""

from retina_codec.attribution import methods, targets
from retina_codec.attribution.contributions import contributions, open_contributions

__all__ = ["contributions", "methods", "open_contributions", "targets"]
