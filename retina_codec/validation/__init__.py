"""Recovery of the known circuit: whether a model finds what is true of a simulated retina.

Here belongs what compares a fitted model, or two, with the truth of a simulation: `recovery` is
the door, `truth` what is known, `features` contributions as columns, `moments` their sums over
time, `matching` best matches and CKA from those, `hidden_units` the part on interneurons,
`two_networks` their agreement, `summary` tables, `drivers` who drove the bursts, and `bursts` one
burst to look at; `true_modes` compares modes; `refit` makes the ceiling, the true circuit to be
fitted again. The circuit itself is in `retina_codec.simulation`.
"""

from retina_codec.validation.bursts import matched_burst
from retina_codec.validation.drivers import named_drivers
from retina_codec.validation.recovery import benchmark_recovery
from retina_codec.validation.refit import refittable_circuit
from retina_codec.validation.summary import summarise
from retina_codec.validation.true_modes import modes_against_truth
from retina_codec.validation.two_networks import agreement

__all__ = [
    "agreement",
    "benchmark_recovery",
    "matched_burst",
    "modes_against_truth",
    "named_drivers",
    "refittable_circuit",
    "summarise",
]
