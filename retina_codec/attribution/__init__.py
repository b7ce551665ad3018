"""Contributions of hidden units: targets, methods, the path engine, labelled results.

`targets` says what is decomposed and `methods` how; `capture` catches hidden layers, `plan` finds
out how a network can be walked, `path` is one batch's path through it, `integration`, `local` and
`silencing` divide the target, `reduction` keeps what was asked for, `run` puts labels around it,
and `contributions` is the door. `input_gradients` has gradients down to the input itself.
"""

from retina_codec.attribution import methods, targets
from retina_codec.attribution.contributions import contributions, open_contributions

__all__ = ["contributions", "methods", "open_contributions", "targets"]
