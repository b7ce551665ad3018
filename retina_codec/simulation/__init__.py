"""A retina with a known circuit, itself a model: recordings with the truth beside them.

Here belongs what describes, builds and runs known circuits. Stimuli are made in
`retina_codec.stimuli`; how well a fitted model finds the circuit is judged in
`retina_codec.validation`.
"""

from retina_codec.simulation.calibration import calibrate
from retina_codec.simulation.circuit import Circuit, circuit, excitation_and_inhibition
from retina_codec.simulation.drawing import draw_circuit, write_circuit
from retina_codec.simulation.simulate import simulate_retina
from retina_codec.simulation.specification import CircuitSpecification, read_specification

__all__ = [
    "Circuit",
    "CircuitSpecification",
    "calibrate",
    "circuit",
    "draw_circuit",
    "excitation_and_inhibition",
    "read_specification",
    "simulate_retina",
    "write_circuit",
]
