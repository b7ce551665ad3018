"""In-silico physiology: receptive fields, classical phenomena, the best stimuli.

What every lab does with a model cell as with a recorded one. The receptive field at every moment,
its parts in space and time and what is fitted to them, and how it changes with the modes; the
classical phenomena, each a stimulus and an index with its source; the movie that drives a cell, a
channel or a mode most. Stimuli are made in `retina_codec.stimuli`; what silencing does to any of
it belongs in `retina_codec.interventions`.
"""

from retina_codec.physiology.agreement import compare_phenomena
from retina_codec.physiology.battery import PHENOMENA, phenomena
from retina_codec.physiology.cell_types import TypeRule, classify_cells
from retina_codec.physiology.conditioned import mode_conditioned_field
from retina_codec.physiology.contrast_adaptation import ContrastGain, SlowAdaptation
from retina_codec.physiology.direction_selectivity import DirectionSelectivity
from retina_codec.physiology.explaining import explain
from retina_codec.physiology.flashed_bars import flashed_bars, receptive_field_centres
from retina_codec.physiology.frequency_doubling import FrequencyDoubling
from retina_codec.physiology.instantaneous import instantaneous_receptive_field
from retina_codec.physiology.latency_coding import LatencyCoding
from retina_codec.physiology.motion_anticipation import MotionAnticipation
from retina_codec.physiology.motion_reversal import MotionReversal
from retina_codec.physiology.object_motion import ObjectMotion
from retina_codec.physiology.omitted_stimulus import OmittedStimulus
from retina_codec.physiology.optimization import optimize_stimulus
from retina_codec.physiology.paired_flash import PairedFlash
from retina_codec.physiology.phenomenon import Phenomenon
from retina_codec.physiology.polarity_reversal import PolarityReversal
from retina_codec.physiology.separation import separate
from retina_codec.physiology.significance import spike_triggered_significance
from retina_codec.physiology.speed_tuning import SpeedTuning
from retina_codec.physiology.step_response import StepResponse

__all__ = [
    "PHENOMENA",
    "ContrastGain",
    "DirectionSelectivity",
    "FrequencyDoubling",
    "LatencyCoding",
    "MotionAnticipation",
    "MotionReversal",
    "ObjectMotion",
    "OmittedStimulus",
    "PairedFlash",
    "Phenomenon",
    "PolarityReversal",
    "SlowAdaptation",
    "SpeedTuning",
    "StepResponse",
    "TypeRule",
    "classify_cells",
    "compare_phenomena",
    "explain",
    "flashed_bars",
    "instantaneous_receptive_field",
    "mode_conditioned_field",
    "optimize_stimulus",
    "phenomena",
    "receptive_field_centres",
    "separate",
    "spike_triggered_significance",
]
